//! Which of two byte strings comes first.

use core::cmp::Ordering;
use core::fmt;

use super::choice::Choice;
use super::hidden::{cleanly, opaque};
use super::words::{WORD, load};

/// How two byte strings stand to each other: three answers, none of which a branch has looked at.
#[derive(Clone, Copy)]
#[must_use]
pub struct Order {
    less: u64,
    greater: u64,
}

impl Order {
    /// Whether the first comes before the second.
    pub fn less(self) -> Choice {
        Choice::from_bit(self.less)
    }

    /// Whether they are the same.
    pub fn equal(self) -> Choice {
        Choice::from_bit(!(self.less | self.greater))
    }

    /// Whether the first comes after the second.
    pub fn greater(self) -> Choice {
        Choice::from_bit(self.greater)
    }

    /// The answer, for branches and whatever depends on it from here on.
    #[must_use]
    pub fn reveal(self) -> Ordering {
        match (self.less().reveal(), self.greater().reveal()) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }
}

impl fmt::Debug for Order {
    /// Never the answer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Order")
    }
}

/// Compares as slices of bytes are ordered: by the first byte that differs, else the shorter one comes first. For numbers of
/// equal length, most significant byte first, that is their order.
///
/// All bytes are read up to the shorter length, whatever they are.
#[inline(never)]
pub fn compare(a: &[u8], b: &[u8]) -> Order {
    cleanly(|| order(a, b))
}

#[inline(always)]
fn order(a: &[u8], b: &[u8]) -> Order {
    let shorter = a.len().min(b.len());
    let (mut less, mut greater) = (0, 0);
    for (a, b) in a[..shorter].chunks(WORD).zip(b[..shorter].chunks(WORD)) {
        let (a, b) = (opaque(load(a)), opaque(load(b)));
        let open = opaque(!(less | greater)); // what is decided stays so
        less |= below(a, b) & open;
        greater |= below(b, a) & open;
    }
    // The lengths are no secret, but what came before is.
    let open = !(less | greater) & 1;
    less |= open & u64::from(a.len() < b.len());
    greater |= open & u64::from(a.len() > b.len());
    Order { less: less & 1, greater: greater & 1 }
}

/// 1 if `a` is below `b`: the borrow of their difference.
#[inline(always)]
fn below(a: u64, b: u64) -> u64 {
    ((!a & b) | ((!a | b) & a.wrapping_sub(b))) >> 63
}
