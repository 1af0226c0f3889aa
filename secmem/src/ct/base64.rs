//! Base64 (RFC 4648, sections 4 and 5), in a time that depends on lengths alone.
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux"))]
//! # fn main() -> Result<(), secmem::Error> {
//! use secmem::{Secret, ct::base64::STANDARD};
//!
//! let text = b"AP8QIA=="; // in a slot itself, where it is a secret
//! let key = Secret::options().filled(STANDARD.decoded_len(text), |slot| STANDARD.decode(text, slot))?;
//! assert!(key.with(|key| key == [0x00, 0xff, 0x10, 0x20])?);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "std", target_os = "linux")))]
//! # fn main() {} // a secret needs Linux
//! ```

use super::hidden::{cleanly, opaque};
use super::text::{CodecError, at_least, lanes, seven_bits, within};
use super::words::{load, store};

/// Bytes that become a word of text.
const BLOCK: usize = 6;

/// The ordinary alphabet, with padding.
pub const STANDARD: Base64 = Base64 { last: *b"+/", padded: true };
/// The ordinary alphabet, without padding.
pub const STANDARD_UNPADDED: Base64 = Base64 { last: *b"+/", padded: false };
/// The alphabet for addresses and file names, with padding.
pub const URL: Base64 = Base64 { last: *b"-_", padded: true };
/// The alphabet for addresses and file names, without padding.
pub const URL_UNPADDED: Base64 = Base64 { last: *b"-_", padded: false };

/// One of the four ways to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base64 {
    /// The characters for 62 and 63.
    last: [u8; 2],
    padded: bool,
}

impl Base64 {
    /// Characters of `len` bytes, padding included; `usize::MAX` if they are more than that.
    #[must_use]
    pub const fn encoded_len(self, len: usize) -> usize {
        if self.padded { len.div_ceil(3).saturating_mul(4) } else { unpadded(len) }
    }

    /// Bytes that `text` stands for. The padding at its end tells that; how long a secret is, is none.
    #[must_use]
    pub fn decoded_len(self, text: &[u8]) -> usize {
        let characters = self.characters(text);
        characters / 4 * 3 + (characters % 4).saturating_sub(1)
    }

    /// Writes `bytes` into `into`. Nothing of them stays in a register.
    ///
    /// # Errors
    ///
    /// [`CodecError::Length`] if `into` has not [`encoded_len`](Self::encoded_len).
    #[inline(never)]
    pub fn encode(self, bytes: &[u8], into: &mut [u8]) -> Result<(), CodecError> {
        if into.len() != self.encoded_len(bytes.len()) {
            return Err(CodecError::Length);
        }
        let (text, padding) = into.split_at_mut(unpadded(bytes.len()));
        cleanly(|| {
            for (from, into) in bytes.chunks(BLOCK).zip(text.chunks_mut(8)) {
                // What is missing of the last block is zero, and the text that it would be is not written.
                let missing = (BLOCK - from.len()) as u32;
                let characters = self.letters(opaque(load(from)) << (8 * missing));
                store(characters >> (8 * (8 - into.len())), into);
            }
        });
        padding.fill(b'=');
        Ok(())
    }

    /// Writes into `into` what `text` stands for. Nothing of it stays in a register.
    ///
    /// What is not exactly what [`encode`](Self::encode) writes is refused: missing padding or too much, other characters,
    /// bits in the last character that stand for nothing.
    ///
    /// # Errors
    ///
    /// [`CodecError::Length`] if `into` has not [`decoded_len`](Self::decoded_len), or no text has such a length;
    /// [`CodecError::Invalid`] for a text that the encoding does not make.
    #[inline(never)]
    pub fn decode(self, text: &[u8], into: &mut [u8]) -> Result<(), CodecError> {
        let characters = self.characters(text);
        if into.len() != self.decoded_len(text) || text.len() != self.encoded_len(into.len()) {
            return Err(CodecError::Length);
        }
        let wrong = cleanly(|| {
            let mut wrong = 0;
            for (from, into) in text[..characters].chunks(8).zip(into.chunks_mut(BLOCK)) {
                // What is missing of the last word stands there as zeros would.
                let missing = 8 * (8 - from.len()) as u32;
                let filled = opaque(load(from)) << missing | lanes(b'A') & !(u64::MAX << missing);
                let (value, odd) = self.values(filled);
                let unused = 8 * (BLOCK - into.len()) as u32;
                wrong = opaque(wrong | odd | value & !(u64::MAX << unused));
                store(value >> unused, into);
            }
            wrong
        });
        super::settle(wrong, into)
    }

    /// Characters of `text` without its padding.
    fn characters(self, text: &[u8]) -> usize {
        let padding = match text {
            [.., b'=', b'='] => 2,
            [.., b'='] => 1,
            _ => 0,
        };
        if self.padded { text.len() - padding } else { text.len() }
    }

    /// Six bytes as characters.
    #[inline(always)]
    fn letters(self, bytes: u64) -> u64 {
        // Six bits a lane.
        let mut word = (bytes << 8) & 0x00FF_FFFF_0000_0000 | bytes & 0x00FF_FFFF;
        word = (word << 4) & 0x0FFF_0000_0FFF_0000 | word & 0x0000_0FFF_0000_0FFF;
        word = (word << 2) & 0x3F00_3F00_3F00_3F00 | word & 0x003F_003F_003F_003F;
        let [plus, slash] = self.last.map(u64::from);
        // Each step counts from where the one before has got: 26 would be '[', 52 '{', 62 ':', 63 one behind the 62nd.
        word + lanes(b'A') + at_least(word, 26) * u64::from(b'a' - b'[')
            - at_least(word, 52) * u64::from(b'{' - b'0')
            - at_least(word, 62) * (u64::from(b':') - plus)
            + at_least(word, 63) * (slash - plus - 1)
    }

    /// Eight characters as six bytes, and something other than zero if one of them is none.
    #[inline(always)]
    fn values(self, text: u64) -> (u64, u64) {
        let (text, wrong) = seven_bits(text);
        let [plus, slash] = self.last;
        let classes = [
            (within(text, b'A', b'Z'), b'A', 0),
            (within(text, b'a', b'z'), b'a', 26),
            (within(text, b'0', b'9'), b'0', 52),
            (within(text, plus, plus), plus, 62),
            (within(text, slash, slash), slash, 63),
        ];
        let (mut known, mut offset) = (0, 0);
        for (is, first, value) in classes {
            known |= is;
            offset |= is * ((128 + value - u64::from(first)) & 0x7F); // a lane is of one class at most
        }
        let mut word = (text + offset) & lanes(0x3F);
        word = (word & 0x3F00_3F00_3F00_3F00) >> 2 | word & 0x003F_003F_003F_003F;
        word = (word & 0x0FFF_0000_0FFF_0000) >> 4 | word & 0x0000_0FFF_0000_0FFF;
        word = (word & 0x00FF_FFFF_0000_0000) >> 8 | word & 0x00FF_FFFF;
        (word, wrong | (lanes(1) & !known))
    }
}

/// Characters of `len` bytes without padding.
const fn unpadded(len: usize) -> usize {
    (len / 3).saturating_mul(4).saturating_add((len % 3 * 8).div_ceil(6))
}
