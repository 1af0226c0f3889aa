//! What the codecs of text share: what can be wrong, and eight bytes at a time in one word, a lane each.
//!
//! Nothing is looked up in a table and nothing branches on a byte: the characters are computed. A lane never carries into
//! the next one, because what is added to its seven bits stays below 256.

use core::fmt;

/// Why bytes were not encoded or decoded. It does not say where something is wrong, or what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The place for the result has not the length that the result has, or no text of that length exists. Nothing was written.
    Length,
    /// The text is not one that the encoding makes. What was decoded of it was overwritten with zeros.
    Invalid,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a length that does not fit what is encoded or decoded",
            Self::Invalid => "not what the encoding makes",
        })
    }
}

impl core::error::Error for CodecError {}

/// The byte in each of the eight lanes.
#[inline(always)]
pub(super) const fn lanes(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

/// 1 in each lane of `word` that is `least` or more. Lanes have seven bits.
#[inline(always)]
pub(super) const fn at_least(word: u64, least: u8) -> u64 {
    ((word + lanes(0x80 - least)) >> 7) & lanes(1)
}

/// 1 in each lane from `first` to `last`.
#[inline(always)]
pub(super) const fn within(word: u64, first: u8, last: u8) -> u64 {
    at_least(word, first) & !at_least(word, last + 1)
}

/// The low seven bits of each lane, and whether any has more: 1 in that lane.
#[inline(always)]
pub(super) const fn seven_bits(word: u64) -> (u64, u64) {
    (word & lanes(0x7F), (word >> 7) & lanes(1))
}
