//! The last bytes of a text, as one way of reading it has them, and where each of them stands.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::scan::{Marks, Stop};
use super::table::{FRAGMENT, View, WINDOW};

/// Places that a trail remembers: more than a fragment has bytes.
const PLACES: usize = 16;

/// Bytes that one way of reading has found, without a gap. All zeros: none yet.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Trail {
    /// The last eight bytes, the latest lowest.
    window: u64,
    /// How many there are.
    count: u64,
    row: Row,
    /// Where the last ones begin, by their number.
    starts: [u64; PLACES],
}

/// Windows one after the other that are of secrets, up to the latest.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Row {
    /// How many.
    pub(super) hits: u64,
    /// Whether one of them is telling.
    telling: u64,
    /// Whether they were counted as a match.
    counted: u64,
}

impl Row {
    pub(super) const NONE: Self = Self { hits: 0, telling: 0, counted: 0 };

    /// Bytes that the row has, up to as many as are marked at once.
    pub(super) fn len(&self) -> u64 {
        match self.hits {
            0 => 0,
            hits => (hits + WINDOW as u64 - 1).min(FRAGMENT as u64),
        }
    }

    /// Takes the next window. Whether the row is a match now, and whether it is so for the first time.
    #[inline(always)]
    pub(super) fn next(&mut self, window: u64, view: &View<'_>) -> Option<bool> {
        let Some(known) = view.window(window) else {
            *self = Self::NONE;
            return None;
        };
        self.hits += 1;
        self.telling |= u64::from(known.telling);
        if self.len() < known.needed || self.telling == 0 {
            return None;
        }
        Some(std::mem::replace(&mut self.counted, 1) == 0)
    }
}

impl Trail {
    /// The next byte, which stands at `start..end` of the text.
    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8, start: u64, end: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        self.window = self.window << 8 | u64::from(byte);
        self.starts[self.count as usize % PLACES] = start;
        self.count += 1;
        if self.count >= WINDOW as u64
            && let Some(first) = self.row.next(self.window, view)
        {
            marks.add(self.start_of(self.row.len()), end, first);
        }
    }

    /// What comes next does not go on from what was.
    pub(super) fn gap(&mut self) {
        (self.count, self.row) = (0, Row::NONE);
    }

    /// Where the last so many bytes begin, of which there are that many.
    fn start_of(&self, last: u64) -> u64 {
        self.starts[(self.count - last) as usize % PLACES]
    }

    /// Where the bytes begin that a match may need which is not there yet.
    pub(super) fn held(&self, stop: Stop, view: &View<'_>) -> Option<u64> {
        let last = match stop {
            Stop::Anywhere => self.count.min(FRAGMENT as u64 - 1),
            Stop::Flush if self.row.hits > 0 => self.row.len(),
            Stop::Flush => {
                let begins = |len: &usize| *len as u64 <= self.count && view.begins(self.window, *len);
                (1..WINDOW).rev().find(begins).unwrap_or(0) as u64
            }
        };
        (last > 0).then(|| self.start_of(last))
    }
}
