//! Finds every piece of a secret that is long enough to matter, at any offset, in one pass for all secrets.
//!
//! An [`Index`] is made once from the needles in all their forms. A [`Scanner`] is fed the bytes of one look at memory
//! and gives [`Match`]es: places and lengths, never content.
//!
//! A match is a *maximal run*: bytes that agree with a pattern as far as they go in both directions, and that tell
//! enough of the secret to be a residue. Where they begin, how the bytes were cut into pieces, and what else is near
//! makes no difference; `naive` says the same in a few slow lines, and the two are compared in tests and under fuzzing.
//!
//! # Why nothing is missed
//!
//! The scanner does not look at every offset. It takes four bytes at every `step`-th offset and asks whether they stand
//! in any pattern. [`Index`] chooses `step` so that every residue contains `step` windows of four bytes, one after the
//! other, that are in its table. One of them begins at a multiple of `step`; the filter before the table may say yes
//! wrongly but never no; so that window is found, and from there the run is compared byte by byte in both directions.
//!
//! Where three of four bytes of a pattern are zeros, its windows are of every fourth byte instead. Of those, four
//! neighbouring positions are tested, and then none until `4 * step` further: whatever its alignment, of `step` such
//! windows in a row one is tested.
//!
//! Addresses are those of the target. Lengths count bytes of the target, or bytes of the secret where that is said.

pub(crate) mod brute;
mod filter;
mod index;
mod kernel;
pub(crate) mod keys;
mod naive;
mod wide;

use std::cmp::Reverse;

pub use findings::Form;
pub use index::{Index, IndexError, Rate};
use zeroize::Zeroizing;

/// A residue in what was fed: where it lies and how much it shows.
///
/// The order is that of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Where it begins.
    pub address: u64,
    /// Which needle: its place in the list from which the index was made.
    pub needle: u32,
    /// How it is written.
    pub form: Form,
    /// Which phase of that form.
    pub phase: u8,
    /// Bytes that it fills.
    pub length: u64,
    /// Index of the byte of the secret in which what it shows begins.
    pub secret_offset: u64,
    /// Bytes of the secret that it shows, counted in bits and rounded down.
    pub secret_length: u64,
    /// Whether it is all of the form's text that the secret alone decides (base64: without the characters at the ends
    /// that the secret shares with its neighbours, so `secret_length` may be one less than the secret has).
    pub whole: bool,
}

/// One pass over the bytes of one look at memory.
///
/// Keeps twice the longest pattern of what was fed last, so that runs across the edges of pieces are seen whole. Those
/// bytes are wiped when they are no longer needed, at the latest on drop.
pub struct Scanner<'a> {
    index: &'a Index,
    /// Address at which the current stretch of contiguous bytes begins. Positions count from there.
    stretch: u64,
    /// Bytes of the stretch so far.
    fed: u64,
    /// Windows that begin before this position have been tested.
    tested: u64,
    /// The last bytes of the stretch.
    carry: Zeroizing<Vec<u8>>,
    candidates: Vec<usize>,
    matches: Vec<Match>,
    /// Length of `matches` at which what is said twice is taken out of it next.
    full: usize,
    /// Matches beyond [`MOST`].
    unlisted: u64,
    /// For keys that nobody named.
    keys: Option<keys::Finder>,
}

/// Matches that a scanner keeps: a target full of its secret must not fill our memory too.
pub(crate) const MOST: usize = 1 << 16;

/// Bytes after which candidates are looked up, so that they are few and still in cache.
const BLOCK: u64 = 16 << 10;

impl<'a> Scanner<'a> {
    /// A scanner that has seen nothing.
    pub fn new(index: &'a Index) -> Self {
        let keys = index.finds_unknown_keys().then(keys::Finder::new);
        let carry = Zeroizing::new(Vec::with_capacity(4 * index.reach())); // never grows, so it leaves no copy
        Self {
            index,
            stretch: 0,
            fed: 0,
            tested: 0,
            carry,
            candidates: Vec::new(),
            matches: Vec::new(),
            full: MOST,
            unlisted: 0,
            keys,
        }
    }

    /// Takes the next bytes. They go on the stretch if their address does, and begin a new one otherwise; no run
    /// reaches over a gap.
    pub fn feed(&mut self, address: u64, bytes: &[u8]) {
        if let Some(keys) = &mut self.keys {
            keys.feed(address, bytes);
        }
        if address != self.stretch.wrapping_add(self.fed) {
            self.end_stretch();
            self.stretch = address;
        }
        let reach = self.index.reach();
        let at = self.fed;
        let mut carry = std::mem::take(&mut self.carry);

        // Each window is tested where the longest pattern around it is in view, or else the stretch ends. First those
        // near the seam, in what was carried over and as much of the new bytes as that takes.
        let (seam, rest) = bytes.split_at(bytes.len().min(2 * reach));
        let origin = at - carry.len() as u64;
        carry.extend_from_slice(seam);
        self.fed = at + seam.len() as u64;
        self.test(&carry, origin, self.fed.saturating_sub(reach as u64));

        // Then the others, where the bytes lie.
        if !rest.is_empty() {
            self.fed = at + bytes.len() as u64;
            self.test(bytes, at, self.fed.saturating_sub(reach as u64));
            carry.clear();
            carry.extend_from_slice(&bytes[bytes.len() - 2 * reach..]);
        }
        let spent = carry.len().saturating_sub(2 * reach);
        carry.drain(..spent);
        self.carry = carry;
    }

    /// Takes out what is said twice, once that is much, and what is too much.
    fn compact(&mut self) {
        if self.matches.len() < self.full {
            return;
        }
        self.matches = settle(std::mem::take(&mut self.matches));
        self.unlisted += self.matches.len().saturating_sub(MOST) as u64;
        self.matches.truncate(MOST);
        self.full = 2 * MOST;
    }

    /// Everything found, in the order of addresses: at most 65,536 matches, which is more than anybody reads.
    pub fn finish(self) -> Vec<Match> {
        self.finish_counted().0
    }

    /// The same, with how many more there were.
    pub fn finish_counted(mut self) -> (Vec<Match>, u64) {
        self.end_stretch();
        self.full = 0;
        self.compact();
        let mut matches = std::mem::take(&mut self.matches);
        if let Some(keys) = self.keys.take() {
            let (found, unlisted) = keys.finish();
            matches.extend(found);
            matches.sort_unstable();
            self.unlisted += unlisted;
        }
        leave_out_echoes(&mut matches, self.index.min_length());
        (matches, self.unlisted)
    }

    /// Tests what waited for bytes that did not come, and forgets the stretch.
    fn end_stretch(&mut self) {
        let carry = std::mem::take(&mut self.carry);
        self.test(&carry, self.fed - carry.len() as u64, self.fed);
        self.carry = carry;
        self.carry.clear();
        (self.fed, self.tested) = (0, 0);
    }

    /// Tests the windows that begin at positions `self.tested..end` and lie in `view`, which begins at `origin`.
    fn test(&mut self, view: &[u8], origin: u64, end: u64) {
        let index = self.index;
        while self.tested < end {
            let block = self.tested..end.min(self.tested + BLOCK);
            self.tested = block.end;
            let offsets = (block.start - origin) as usize..(block.end - origin) as usize;
            index.search(view, origin, offsets, &mut self.candidates, |found| {
                let address = self.stretch.wrapping_add(origin + found.address);
                self.matches.push(Match { address, ..found });
            });
            self.compact();
        }
    }
}

/// Leaves out what is said twice, names what can be named in two ways, and sorts.
///
/// A secret written in capital hexadecimal also shows small hexadecimal wherever a few digits come without letters; the
/// two alphabets of base64 overlap in the same way, and a text in percent encoding shows some of the text itself. Of
/// the runs of one needle, a run that lies within another is left out, but no whole one for a piece; of equal ones, the first
/// form stays. What shows the secret and what shows something made from it stay apart.
fn settle(mut matches: Vec<Match>) -> Vec<Match> {
    for found in &mut matches {
        found.form = order_of(found);
    }
    matches.sort_unstable_by_key(|found| {
        // A secret that repeats itself can have come from either place: the first is named.
        let run = (found.address, Reverse(found.length));
        (found.needle, found.form.is_derived(), run, found.form, found.phase, found.secret_offset)
    });
    let kind = |found: &Match| (found.needle, found.form.is_derived());
    let mut around: Option<Match> = None;
    matches.retain(|found| {
        let end = |found: &Match| u128::from(found.address) + u128::from(found.length);
        let around_it = around.filter(|around| kind(around) == kind(found) && end(found) <= end(around));
        let Some(around_it) = around_it else {
            around = Some(*found);
            return true;
        };
        // A piece of a form that has the secret in it, as ChaCha's state has, is longer than the secret where one byte before it fits.
        found.whole && !around_it.whole
    });
    matches.sort_unstable();
    matches
}

/// Leaves out pieces in other forms that are a whole copy seen once more: of a run that shares all but fewer bytes with it than
/// the shortest piece has, nothing is left to tell. A word of the secret is a word of it in any order of words, and what stands
/// beside the copy goes on like another order one time in 256.
fn leave_out_echoes(matches: &mut Vec<Match>, min_length: usize) {
    let mut copies: Vec<(u32, u64, u64)> = matches
        .iter()
        .filter(|found| found.whole && found.form == Form::Raw)
        .map(|found| (found.needle, found.address, found.address.saturating_add(found.length)))
        .collect();
    copies.sort_unstable();
    matches.retain(|found| {
        if found.whole || found.form.is_derived() {
            return true;
        }
        let (start, end) = (found.address, found.address.saturating_add(found.length));
        let after = copies.partition_point(|copy| (copy.0, copy.1) <= (found.needle, start));
        let beside = copies[after.saturating_sub(1)..copies.len().min(after + 1)].iter();
        let shared =
            beside.filter(|copy| copy.0 == found.needle).map(|copy| end.min(copy.2).saturating_sub(start.max(copy.1)));
        found.length - shared.max().unwrap_or(0) >= min_length as u64
    });
}

/// Which byte order a text of small characters in UTF-16 has.
///
/// Its characters and the zeros between them read alike in both, so it is looked for once. It has that order in which
/// its units lie at even addresses.
fn order_of(found: &Match) -> Form {
    match found.form {
        Form::Utf16Le | Form::Utf16Be if found.phase == 0 && found.address.is_multiple_of(2) => Form::Utf16Le,
        Form::Utf16Le if found.phase == 0 => Form::Utf16Be,
        form => form,
    }
}

/// Reads needles, bytes and cuts out of `data` and compares the scanner with its plain twin, for the fuzzer.
///
/// # Panics
///
/// If the two do not agree.
#[doc(hidden)]
pub fn oracle(data: &[u8]) {
    naive::oracle(data);
}

/// The name of the loop that searches on this machine, for whoever compares speeds.
pub fn loop_name() -> &'static str {
    kernel::Kernel::best().name()
}

#[cfg(test)]
mod tests;
