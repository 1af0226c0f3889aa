//! A yes or no that no branch has looked at.

use core::fmt;
use core::ops::{BitAnd, BitOr, BitXor, Not};

use super::hidden::opaque;

/// Yes or no, to choose by without a branch. It becomes a `bool` by [`reveal`](Self::reveal) alone.
#[derive(Clone, Copy)]
#[must_use]
pub struct Choice(u64); // all bits, or none

impl Choice {
    /// Yes if the lowest bit of `word` is set; the others do not count.
    #[inline]
    pub fn from_bit(word: u64) -> Self {
        Self(opaque(word & 1).wrapping_neg())
    }

    /// Yes if `word` is zero.
    #[inline]
    pub fn from_zero(word: u64) -> Self {
        // The highest bit of one of the two is set, unless the word is zero.
        Self::from_bit(!(word | word.wrapping_neg()) >> 63)
    }

    /// The answer, for branches and whatever depends on it from here on.
    #[inline]
    pub fn reveal(self) -> bool {
        opaque(self.0) != 0
    }

    /// All bits, or none.
    #[inline]
    pub(super) fn mask(self) -> u64 {
        opaque(self.0)
    }
}

/// Of a secret `bool` nobody knows how the compiler keeps it: better is what never was one.
impl From<bool> for Choice {
    #[inline]
    fn from(yes: bool) -> Self {
        Self::from_bit(yes.into())
    }
}

impl Not for Choice {
    type Output = Self;

    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl BitAnd for Choice {
    type Output = Self;

    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Choice {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitXor for Choice {
    type Output = Self;

    #[inline]
    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl fmt::Debug for Choice {
    /// Never the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choice")
    }
}
