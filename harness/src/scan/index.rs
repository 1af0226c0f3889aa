//! All windows of four bytes of all patterns, and what a residue around one of them is.
//!
//! Whether a window stands in any pattern is asked of `filter` first, by the loops in `kernel`. What passes is looked up
//! here and compared byte by byte.
//!
//! The index holds the needles, so all of it that is made from their bytes is wiped on drop.

use std::ops::Range;

use zeroize::Zeroizing;

use super::filter::Filter;
use super::kernel::Kernel;
use super::{Form, Match};
use crate::canary::distinct_non_zero;
use crate::variants::{self, Pattern};

/// Bytes of a window.
pub(super) const WINDOW: usize = 4;

/// A step as large as a page: larger ones would make no search faster.
const MAX_STEP: usize = 4096;

/// What to look for, made ready for looking.
pub struct Index {
    min_length: usize,
    step: usize,
    longest: usize,
    patterns: Vec<Indexed>,
    filter: Filter,
    windows: Windows,
    kernel: Kernel,
}

/// A pattern with what the index needs to know of it.
struct Indexed {
    needle: u32,
    pattern: Pattern,
    /// [`Pattern::shortest_residues`].
    residues: Vec<Range<usize>>,
    /// Which windows, by their offset, are in the table.
    listed: Vec<bool>,
}

/// Why an index cannot be made: a search with it could find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There are no needles.
    #[error("there is nothing to look for")]
    Empty,
    /// Residues shorter than a window cannot be looked for.
    #[error("residues of {min_length} bytes are too short to be looked for: it takes at least {WINDOW}")]
    MinLength {
        /// What was asked for.
        min_length: usize,
    },
    /// A needle has no residue in any form.
    #[error(
        "needle {needle} cannot be looked for: no piece of it shows {min_length} bytes with {} different values",
        variants::MIN_VALUES
    )]
    Needle {
        /// Its place in the list.
        needle: u32,
        /// Bytes of the shortest residue that was asked for.
        min_length: usize,
    },
}

impl Index {
    /// An index of those needles in those forms, for residues of at least `min_length` bytes of a needle.
    ///
    /// Matches name a needle by its place in the list.
    ///
    /// # Errors
    ///
    /// [`IndexError`] if there is no needle, if `min_length` is below 4, or if one of the needles could never be found.
    ///
    /// # Panics
    ///
    /// With 2³² or more needles.
    pub fn new(needles: &[&[u8]], forms: &[Form], min_length: usize) -> Result<Self, IndexError> {
        if needles.is_empty() {
            return Err(IndexError::Empty);
        }
        if min_length < WINDOW {
            return Err(IndexError::MinLength { min_length });
        }
        let mut patterns = Vec::new();
        for (needle, secret) in needles.iter().enumerate() {
            let needle = u32::try_from(needle).expect("fewer than 2^32 needles");
            let before = patterns.len();
            for pattern in variants::encode(secret, forms) {
                patterns.extend(Indexed::new(needle, pattern, min_length));
            }
            if patterns.len() == before {
                return Err(IndexError::Needle { needle, min_length });
            }
        }
        let windows = Windows::new(&patterns);
        Ok(Self {
            min_length,
            step: patterns.iter().map(Indexed::step).min().unwrap_or(1).min(MAX_STEP),
            longest: patterns.iter().map(|one| one.pattern.bytes().len()).max().unwrap_or(0),
            filter: Filter::new(&windows.words),
            kernel: Kernel::best(),
            patterns,
            windows,
        })
    }

    /// Bytes of the shortest residue.
    pub fn min_length(&self) -> usize {
        self.min_length
    }

    /// How many shortest residues there are, over all needles and forms.
    pub fn windows(&self) -> u64 {
        self.patterns.iter().map(|one| one.residues.len() as u64).sum()
    }

    /// How many matches chance alone would give in so many bytes, if they were random and, for each needle and form, of
    /// the alphabet in which that is written: a bound for memory of any content, pessimistic for all of it.
    pub fn expected_chance_hits(&self, bytes_searched: u64) -> f64 {
        let chance = |one: &Indexed| one.residues.iter().map(|piece| one.pattern.chance(piece.clone())).sum::<f64>();
        bytes_searched as f64 * self.patterns.iter().map(chance).sum::<f64>()
    }

    /// Every how many bytes a window is tested.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Bytes of the longest pattern.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The same index, searched by another loop.
    pub(super) fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The offsets in `view`, of `offsets.start` and every `step` after it, whose window may stand in a pattern.
    pub(super) fn candidates(&self, view: &[u8], offsets: Range<usize>, out: &mut Vec<usize>) {
        self.kernel.candidates(&self.filter, view, offsets, self.step, out);
    }

    /// Gives all residues in `view` for which the window at `at` is the first one in the table that was tested. Their
    /// addresses are offsets in `view`.
    pub(super) fn runs_through(&self, view: &[u8], at: usize, mut found: impl FnMut(Match)) {
        let window = word(&view[at..]);
        for &(pattern, offset) in self.windows.places(window) {
            let one = &self.patterns[pattern as usize];
            let offset = offset as usize;
            let bytes = one.pattern.bytes();
            let (before, after) = (&bytes[..offset], &bytes[offset..]);
            let left = view[..at].iter().rev().zip(before.iter().rev()).take_while(|(one, other)| one == other).count();
            let tested_before = (1..=left / self.step).any(|steps| one.listed[offset - steps * self.step]);
            if tested_before {
                continue;
            }
            let right = view[at..].iter().zip(after).take_while(|(one, other)| one == other).count();
            let piece = offset - left..offset + right;
            if one.is_residue(&piece) {
                found(describe(one.needle, &one.pattern, (at - left) as u64, piece));
            }
        }
    }
}

/// The match that a run at `address` is, in which `piece` of the pattern stands.
pub(super) fn describe(needle: u32, pattern: &Pattern, address: u64, piece: Range<usize>) -> Match {
    let shown = pattern.shown(piece.clone());
    Match {
        address,
        needle,
        form: pattern.form(),
        phase: pattern.phase(),
        length: piece.len() as u64,
        secret_offset: shown.start as u64,
        secret_length: shown.len() as u64,
        whole: piece.len() == pattern.bytes().len(),
    }
}

/// The window that the first four bytes are. Its byte order does not matter as long as it is one.
pub(super) fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Indexed {
    /// `None` if no piece of the pattern is a residue.
    ///
    /// All windows of all shortest residues are listed, but for dull ones of a single value (besides zero), which
    /// memory is full of. Only where a residue has no other window are those listed too.
    fn new(needle: u32, pattern: Pattern, min_length: usize) -> Option<Self> {
        let residues = pattern.shortest_residues(min_length);
        if residues.is_empty() {
            return None;
        }
        let bytes = pattern.bytes();
        let mut listed = vec![false; bytes.len()];
        for at in residues.iter().flat_map(windows_of) {
            listed[at] = distinct_non_zero(&bytes[at..at + WINDOW]) > 1;
        }
        if residues.iter().any(|residue| !windows_of(residue).any(|at| listed[at])) {
            residues.iter().flat_map(windows_of).for_each(|at| listed[at] = true);
        }
        Some(Self { needle, pattern, residues, listed })
    }

    /// The largest step with which no residue is missed: each of the shortest has that many listed windows in a row.
    fn step(&self) -> usize {
        let longest_row = |residue| {
            let mut row = 0;
            let rows = windows_of(residue).map(|at| {
                row = if self.listed[at] { row + 1 } else { 0 };
                row
            });
            rows.max().unwrap_or(0)
        };
        self.residues.iter().map(longest_row).min().unwrap_or(1)
    }

    /// Whether a piece of the pattern is a residue: whether it contains a shortest one.
    fn is_residue(&self, piece: &Range<usize>) -> bool {
        let next = self.residues.partition_point(|residue| residue.start < piece.start);
        self.residues.get(next).is_some_and(|residue| residue.end <= piece.end)
    }
}

/// Where the windows of a piece of a pattern begin.
fn windows_of(piece: &Range<usize>) -> Range<usize> {
    piece.start..piece.end + 1 - WINDOW
}

/// Which patterns hold a window, and where: buckets by hash, one after the other.
struct Windows {
    /// The windows, bucket by bucket.
    words: Zeroizing<Vec<u32>>,
    /// For each window its pattern and the offset there.
    places: Vec<(u32, u32)>,
    /// Where each bucket begins in those lists; one more, where the last one ends.
    buckets: Zeroizing<Vec<u32>>,
}

impl Windows {
    fn new(patterns: &[Indexed]) -> Self {
        let listed = || {
            patterns.iter().enumerate().flat_map(|(pattern, one)| {
                let offsets = (0..one.listed.len()).filter(|offset| one.listed[*offset]);
                offsets.map(move |offset| (word(&one.pattern.bytes()[offset..]), (pattern as u32, offset as u32)))
            })
        };
        let count = listed().count();
        let buckets = (2 * count).next_power_of_two();
        let mut windows = Self {
            words: Zeroizing::new(vec![0; count]),
            places: vec![(0, 0); count],
            buckets: Zeroizing::new(vec![0; buckets + 1]),
        };

        // Sorting by counting: sizes, then ends, then each window moves the end of its bucket down to its beginning.
        for (word, _) in listed() {
            let bucket = windows.bucket(word);
            windows.buckets[bucket] += 1;
        }
        let mut end = 0;
        for bucket in windows.buckets.iter_mut() {
            end += *bucket;
            *bucket = end;
        }
        for (word, place) in listed() {
            let bucket = windows.bucket(word);
            windows.buckets[bucket] -= 1;
            let at = windows.buckets[bucket] as usize;
            (windows.words[at], windows.places[at]) = (word, place);
        }
        windows
    }

    fn bucket(&self, word: u32) -> usize {
        let buckets = self.buckets.len() - 1;
        // An odd number far from those that a filter draws: what collides there had better not collide here.
        ((u64::from(word.wrapping_mul(0x9E37_79B1)) * buckets as u64) >> 32) as usize
    }

    /// Where that window stands.
    fn places(&self, word: u32) -> impl Iterator<Item = &(u32, u32)> {
        let bucket = self.bucket(word);
        let range = self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize;
        let places = &self.places[range.clone()];
        self.words[range].iter().zip(places).filter(move |(stands, _)| **stands == word).map(|(_, place)| place)
    }
}
