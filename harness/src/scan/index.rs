//! All windows of four bytes of all patterns, and what a residue around one of them is.
//!
//! Whether a window stands in any pattern is asked of `filter` first, by the loops in `kernel`. What passes is looked up
//! here and compared byte by byte.
//!
//! A pattern in which three of four bytes are zeros has windows that memory is full of. From such a *wide* pattern every
//! fourth byte is taken, and those windows are kept and tested apart, by `wide`.
//!
//! The index holds the needles, so all of it that is made from their bytes is wiped on drop.

use std::ops::Range;

use zeroize::Zeroizing;

use super::filter::Filter;
use super::kernel::Kernel;
use super::{Form, Match, wide};
use crate::canary::distinct_non_zero;
use crate::variants::{self, Pattern};

/// Bytes of a window.
pub(super) const WINDOW: usize = 4;

/// A step as large as a page: larger ones would make no search faster.
const MAX_STEP: usize = 4096;

/// What to look for, made ready for looking.
pub struct Index {
    min_length: usize,
    longest: usize,
    patterns: Vec<Indexed>,
    /// Windows of neighbours.
    near: Option<Table>,
    /// Windows of every fourth byte.
    wide: Option<Table>,
    kernel: Kernel,
    unknown_keys: bool,
}

/// The windows of some of the patterns.
struct Table {
    /// Of so many windows of a residue in a row, one must be tested.
    step: usize,
    filter: Filter,
    windows: Windows,
    /// Whether one of the windows has zeros in its middle.
    hollow: bool,
}

/// From one byte of a window to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stride {
    Near = 1,
    Wide = 4,
}

impl Stride {
    /// Bytes from the first to the last one of a window.
    const fn span(self) -> usize {
        (WINDOW - 1) * self as usize + 1
    }

    /// Where the windows of a piece of a pattern begin.
    fn windows_of(self, piece: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
        let starts = piece.start..(piece.end + 1).saturating_sub(self.span());
        starts.filter(move |at| at.is_multiple_of(self as usize))
    }

    /// The window that begins with those bytes. Its byte order does not matter as long as it is one.
    fn word(self, bytes: &[u8]) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|number| bytes[number * self as usize]))
    }
}

/// A pattern with what the index needs to know of it.
struct Indexed {
    needle: u32,
    pattern: Pattern,
    /// [`Pattern::shortest_residues`].
    residues: Vec<Range<usize>>,
    /// How its windows are taken.
    stride: Stride,
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
            // What is made from a secret does not stand in for it.
            let direct = patterns[before..].iter().any(|one: &Indexed| !one.pattern.form().is_derived());
            if !direct && (patterns.len() == before || forms.iter().any(|form| !form.is_derived())) {
                return Err(IndexError::Needle { needle, min_length });
            }
        }
        let near = Table::new(&mut patterns, Stride::Near);
        let wide = Table::new(&mut patterns, Stride::Wide);
        Ok(Self {
            min_length,
            longest: patterns.iter().map(|one| one.pattern.bytes().len()).max().unwrap_or(0),
            near,
            wide,
            kernel: Kernel::best(),
            unknown_keys: false,
            patterns,
        })
    }

    /// An index of nothing but keys that nobody named.
    pub fn of_unknown_keys() -> Self {
        let patterns = Vec::new();
        Self { min_length: 0, longest: 0, near: None, wide: None, kernel: Kernel::best(), unknown_keys: true, patterns }
    }

    /// The same index, which also finds keys that nobody named: round keys of AES, private keys in DER and PEM.
    pub fn with_unknown_keys(mut self) -> Self {
        self.unknown_keys = true;
        self
    }

    /// Bytes of a needle; 0 if no form shows it as it is.
    pub(crate) fn needle_length(&self, needle: u32) -> u64 {
        let raw = |one: &&Indexed| one.needle == needle && one.pattern.form() == Form::Raw;
        self.patterns.iter().filter(raw).map(|one| one.pattern.bytes().len() as u64).max().unwrap_or(0)
    }

    /// Whether keys that nobody named are looked for.
    pub(crate) fn finds_unknown_keys(&self) -> bool {
        self.unknown_keys
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

    /// How the search in one form, for all needles, compares with chance. In the order in which the forms were asked for.
    pub fn rates(&self) -> Vec<Rate> {
        let mut rates: Vec<Rate> = Vec::new();
        for one in &self.patterns {
            let form = one.pattern.form();
            let at = rates.iter().position(|rate| rate.form == form).unwrap_or_else(|| {
                rates.push(Rate { form, windows: 0, chance: 0.0, random: 0.0 });
                rates.len() - 1
            });
            rates[at].windows += one.residues.len() as u64;
            rates[at].chance += one.residues.iter().map(|piece| one.pattern.chance(piece.clone())).sum::<f64>();
            rates[at].random += one.residues.iter().map(|piece| 256f64.powf(-(piece.len() as f64))).sum::<f64>();
        }
        rates
    }

    /// Every how many bytes a window of neighbours is tested.
    pub(super) fn step(&self) -> usize {
        self.near.as_ref().map_or(0, |table| table.step)
    }

    /// How many bytes around a position must be in view before its windows are tested.
    pub(super) fn reach(&self) -> usize {
        self.longest + wide::GROUP
    }

    /// The same index, searched by another loop.
    pub(super) fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// Gives all residues in `view` that have a window which is tested at `offsets`, some of them more than once; their
    /// addresses are offsets in `view`. `position` is that of the view's first byte in its stretch, from which tests are
    /// counted. `candidates` is room to work in.
    pub(super) fn search(
        &self,
        view: &[u8],
        position: u64,
        offsets: Range<usize>,
        candidates: &mut Vec<usize>,
        mut found: impl FnMut(Match),
    ) {
        if let Some(near) = &self.near {
            self.near_candidates(near, view, position, offsets.clone(), candidates);
            for at in candidates.drain(..) {
                self.runs_through(near, Stride::Near, view, at, &mut found);
            }
        }
        if let Some(wide) = &self.wide {
            Self::wide_candidates(wide, view, position, offsets, candidates);
            for at in candidates.drain(..) {
                self.runs_through(wide, Stride::Wide, view, at, &mut found);
            }
        }
    }

    fn near_candidates(&self, near: &Table, view: &[u8], position: u64, offsets: Range<usize>, out: &mut Vec<usize>) {
        let offsets = first(position, &offsets, near.step)..offsets.end;
        self.kernel.candidates(&near.filter, view, offsets, near.step, out);
    }

    fn wide_candidates(wide: &Table, view: &[u8], position: u64, offsets: Range<usize>, out: &mut Vec<usize>) {
        let every = wide::GROUP * wide.step;
        let starts = (first(position, &offsets, every)..offsets.end).step_by(every);
        wide::candidates(&wide.filter, wide.hollow, view, starts, out);
    }

    /// How many windows of a stretch the filters do not rule out.
    #[cfg(test)]
    pub(super) fn count_candidates(&self, stretch: &[u8]) -> usize {
        let mut out = Vec::new();
        if let Some(near) = &self.near {
            self.near_candidates(near, stretch, 0, 0..stretch.len(), &mut out);
        }
        if let Some(wide) = &self.wide {
            Self::wide_candidates(wide, stretch, 0, 0..stretch.len(), &mut out);
        }
        out.len()
    }

    /// Gives all residues in `view` that have the window at `at`, but those that an earlier test must have given.
    fn runs_through(&self, table: &Table, stride: Stride, view: &[u8], at: usize, found: &mut impl FnMut(Match)) {
        let window = stride.word(&view[at..]);
        for &(pattern, offset) in table.windows.places(window) {
            let one = &self.patterns[pattern as usize];
            let offset = offset as usize;
            let bytes = one.pattern.bytes();
            let (before, after) = (&bytes[..offset], &bytes[offset..]);
            let left = view[..at].iter().rev().zip(before.iter().rev()).take_while(|(one, other)| one == other).count();
            // Of wide windows all are looked through: which of them were tested is not so plainly told.
            let tested_before =
                stride == Stride::Near && (1..=left / table.step).any(|steps| one.listed[offset - steps * table.step]);
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

/// The first of those offsets whose position in the stretch is a multiple of `every`.
fn first(position: u64, offsets: &Range<usize>, every: usize) -> usize {
    let at = position + offsets.start as u64;
    offsets.start + (at.next_multiple_of(every as u64) - at) as usize
}

/// How the search in one form compares with chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// The form.
    pub form: Form,
    /// How many shortest residues there are.
    pub windows: u64,
    /// Matches that chance would give in each byte searched: see [`Index::expected_chance_hits`].
    pub chance: f64,
    /// The same in bytes that are random: each byte of a residue, signs between included, is hit by one in 256.
    pub random: f64,
}

impl Table {
    /// `None` if no pattern has such windows. Patterns keep those windows alone that are needed.
    fn new(patterns: &mut [Indexed], stride: Stride) -> Option<Self> {
        let steps = patterns.iter().filter(|one| one.stride == stride).map(Indexed::step);
        let step = steps.min()?.min(MAX_STEP);
        if stride == Stride::Near {
            patterns.iter_mut().filter(|one| one.stride == stride).for_each(|one| one.thin(step));
        }
        let windows = Windows::new(patterns, stride);
        let hollow = windows.words.iter().any(|word| word.to_le_bytes()[1..3] == [0, 0]);
        Some(Self { step, filter: Filter::new(&windows.words), windows, hollow })
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

/// The window that the first four bytes are, as [`Stride::Near`] takes it.
pub(super) fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The window of every fourth byte from the first on, as [`Stride::Wide`] takes it.
pub(super) fn wide_word(bytes: &[u8]) -> u32 {
    Stride::Wide.word(bytes)
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
        let list = |stride: Stride| {
            let mut listed = vec![false; bytes.len()];
            for at in residues.iter().flat_map(|residue| stride.windows_of(residue)) {
                listed[at] = distinct_non_zero(&stride.word(&bytes[at..]).to_le_bytes()) > 1;
            }
            let has_window = |residue| stride.windows_of(residue).any(|at| listed[at]);
            (residues.iter().all(has_window), listed)
        };
        let hollow = bytes.iter().enumerate().all(|(at, byte)| at.is_multiple_of(Stride::Wide as usize) || *byte == 0);
        let (stride, listed) = match if hollow { list(Stride::Wide) } else { (false, Vec::new()) } {
            (true, listed) => (Stride::Wide, listed),
            (false, _) => {
                let (complete, mut listed) = list(Stride::Near);
                if !complete {
                    residues
                        .iter()
                        .flat_map(|residue| Stride::Near.windows_of(residue))
                        .for_each(|at| listed[at] = true);
                }
                (Stride::Near, listed)
            }
        };
        Some(Self { needle, pattern, residues, stride, listed })
    }

    /// The largest step with which no residue is missed: each of the shortest has that many listed windows in a row.
    fn step(&self) -> usize {
        let longest_row = |residue| {
            let mut row = 0;
            let rows = self.stride.windows_of(residue).map(|at| {
                row = if self.listed[at] { row + 1 } else { 0 };
                row
            });
            rows.max().unwrap_or(0)
        };
        self.residues.iter().map(longest_row).min().unwrap_or(1)
    }

    /// Takes windows off the list as long as each shortest residue keeps `step` of them in a row, one of which is tested.
    ///
    /// A form that writes a byte of the secret in several of its own has long residues: of hexadecimal less than half of
    /// the windows stay, of a decimal array a seventh. That keeps the filter small and its false answers few.
    fn thin(&mut self, step: usize) {
        let mut kept = vec![false; self.listed.len()];
        let mut row: Option<usize> = None; // where the last row that was kept begins
        for residue in &self.residues {
            let windows = residue.start..(residue.end + 1).saturating_sub(WINDOW);
            if row.is_some_and(|row| row >= windows.start && row + step <= windows.end) {
                continue;
            }
            // The last row serves the most of the residues that follow.
            let starts = windows.start..(windows.end + 1).saturating_sub(step);
            let last = starts.rev().find(|start| self.listed[*start..*start + step].iter().all(|listed| *listed));
            row = last;
            match last {
                Some(start) => kept[start..start + step].fill(true),
                None => kept[windows].fill(true), // no step is so long; but if one were, nothing would be missed
            }
        }
        self.listed = kept;
    }

    /// Whether a piece of the pattern is a residue: whether it contains a shortest one.
    fn is_residue(&self, piece: &Range<usize>) -> bool {
        let next = self.residues.partition_point(|residue| residue.start < piece.start);
        self.residues.get(next).is_some_and(|residue| residue.end <= piece.end)
    }
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
    fn new(patterns: &[Indexed], stride: Stride) -> Self {
        let listed = || {
            patterns.iter().enumerate().filter(|(_, one)| one.stride == stride).flat_map(move |(pattern, one)| {
                let offsets = (0..one.listed.len()).filter(|offset| one.listed[*offset]);
                let word = move |offset: usize| stride.word(&one.pattern.bytes()[offset..]);
                offsets.map(move |offset| (word(offset), (pattern as u32, offset as u32)))
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
