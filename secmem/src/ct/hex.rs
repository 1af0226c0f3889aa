//! Hexadecimal, in a time that depends on lengths alone.
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux"))]
//! # fn main() -> Result<(), secmem::Error> {
//! use secmem::{Secret, ct::hex};
//!
//! let text = b"00ff10"; // from a file of keys, say, and in a slot itself
//! let key = Secret::options().filled(hex::decoded_len(text.len()), |slot| hex::decode(text, slot))?;
//! assert!(key.with(|key| key == [0x00, 0xff, 0x10])?);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "std", target_os = "linux")))]
//! # fn main() {} // a secret needs Linux
//! ```

use super::hidden::{cleanly, opaque};
use super::text::{CodecError, at_least, lanes, seven_bits, within};
use super::words::{load, store};

/// Bytes that become a word of text.
const BLOCK: usize = 4;

/// Characters of `len` bytes; `usize::MAX` if they are more than that.
#[must_use]
pub const fn encoded_len(len: usize) -> usize {
    len.saturating_mul(2)
}

/// Bytes of `len` characters; of an odd one there are none, and [`decode`] says so.
#[must_use]
pub const fn decoded_len(len: usize) -> usize {
    len / 2
}

/// Writes `bytes` into `into`, in digits and small letters. Nothing of them stays in a register.
///
/// # Errors
///
/// [`CodecError::Length`] if `into` is not twice as long.
#[inline(never)]
pub fn encode(bytes: &[u8], into: &mut [u8]) -> Result<(), CodecError> {
    if !into.len().is_multiple_of(2) || into.len() / 2 != bytes.len() {
        return Err(CodecError::Length);
    }
    cleanly(|| {
        for (from, into) in bytes.chunks(BLOCK).zip(into.chunks_mut(2 * BLOCK)) {
            store(characters(opaque(load(from))), into);
        }
    });
    Ok(())
}

/// Writes into `into` what `text` stands for; letters may be small or capital. Nothing of it stays in a register.
///
/// # Errors
///
/// [`CodecError::Length`] if `text` is not twice as long as `into`, [`CodecError::Invalid`] for what is no hexadecimal.
#[inline(never)]
pub fn decode(text: &[u8], into: &mut [u8]) -> Result<(), CodecError> {
    if !text.len().is_multiple_of(2) || text.len() / 2 != into.len() {
        return Err(CodecError::Length);
    }
    let wrong = cleanly(|| {
        let mut wrong = 0;
        for (from, into) in text.chunks(2 * BLOCK).zip(into.chunks_mut(BLOCK)) {
            let missing = 8 * (2 * BLOCK - from.len()) as u32; // lanes before the text, as if zeros stood there
            let zeros = lanes(b'0').checked_shl(64 - missing).unwrap_or(0);
            let (value, odd) = values(opaque(load(from)) | zeros);
            wrong = opaque(wrong | odd);
            store(value, into);
        }
        wrong
    });
    super::settle(wrong, into)
}

/// Up to four bytes as characters.
#[inline(always)]
fn characters(bytes: u64) -> u64 {
    // Half a byte a lane.
    let mut word = (bytes | bytes << 16) & 0x0000_FFFF_0000_FFFF;
    word = (word | word << 8) & 0x00FF_00FF_00FF_00FF;
    word = (word | word << 4) & lanes(0x0F);
    word + lanes(b'0') + at_least(word, 10) * u64::from(b'a' - b'0' - 10)
}

/// Eight characters as four bytes, and something other than zero if one of them is none.
#[inline(always)]
fn values(text: u64) -> (u64, u64) {
    let (text, wrong) = seven_bits(text);
    let digit = within(text, b'0', b'9');
    let letter = within(text | lanes(0x20), b'a', b'f'); // one bit tells small from capital
    let mut word = (text & lanes(0x0F)) + letter * 9;
    word = (word | word >> 4) & 0x00FF_00FF_00FF_00FF;
    word = (word | word >> 8) & 0x0000_FFFF_0000_FFFF;
    word = (word | word >> 16) & 0xFFFF_FFFF;
    (word, wrong | (lanes(1) & !(digit | letter)))
}
