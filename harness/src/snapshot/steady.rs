//! Whether memory stood still while it was read.
//!
//! The tree is frozen, but memory can still be written: by a process outside the tree that shares a mapping, by the
//! kernel for input that was asked for before, by anyone with the right to write through `/proc`. Then a secret can
//! move behind the reader's back, from a page not yet read to one that was, and a clean look means nothing. So every
//! look ends with a second one that compares.
//!
//! # What it costs, and what is compared
//!
//! Copying memory costs about as much as the search in it, so comparing all would double the time for which a large
//! target stands still. Shared mappings, which others can write by design, are always compared whole, holes included:
//! a page that appears meanwhile is a change. Private memory is compared whole as long as the process has no more than
//! 64 MiB resident; of a larger one, one block of 256 KiB in sixteen is. The coverage says how many bytes were seen
//! twice.
//!
//! Two states are equal if the sums of their pages' hashes are, each hash mixed with the page's address. XXH3 is no
//! cryptographic hash, and need not be one: nobody who can write the memory at will needs a collision. Pages of zeroes
//! count like absent ones, because the kernel exchanges one for the other by itself when it makes huge pages.
//!
//! Memory read by injection is not read twice: only its owner could write it, and the owner stands still.

use std::sync::atomic::{AtomicBool, Ordering};

use findings::Coverage;
use xxhash_rust::xxh3::xxh3_64;

use super::live::{Reader, read_ordinary};
use super::pages::Pages;
use super::{PAGE, Region};
use crate::target::Process;

/// Bytes that are compared as one, by address.
const BLOCK: u64 = 256 << 10;

/// Of a large process's private memory, one block in so many is compared.
const SAMPLE: u64 = 16;

/// Pages that a process may have resident to be compared whole: 64 MiB.
const SMALL: u64 = (64 << 20) / PAGE;

/// Why bytes that were read do not count as read.
const CHANGED: &str = "memory changed while it was read";

/// What one block held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    /// Its region's place in the list.
    region: usize,
    block: u64,
    /// Over all pages that hold more than zeroes.
    sum: u64,
    bytes: u64,
}

/// What was read, in hashes.
pub(super) struct Notes<'a> {
    regions: &'a [Region],
    /// Whether private memory is compared whole too.
    whole: bool,
    notes: Vec<Note>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(process: &Process, regions: &'a [Region]) -> Self {
        // Where it is not told, the careful way.
        let whole = resident(process).is_none_or(|pages| pages <= SMALL);
        Self { regions, whole, notes: Vec::new() }
    }

    /// Takes in the next piece; pieces ascend.
    pub(super) fn note(&mut self, at: u64, bytes: &[u8]) {
        let number = self.regions.partition_point(|region| region.end <= at);
        let Some(region) = self.regions.get(number) else { return };
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let block = at / BLOCK;
            let room = usize::try_from((block + 1) * BLOCK - at).unwrap_or(usize::MAX);
            let (here, behind) = rest.split_at(room.min(rest.len()));
            if self.compares(region, block) {
                let note = match self.notes.last_mut() {
                    Some(last) if (last.region, last.block) == (number, block) => last,
                    _ => {
                        self.notes.push(Note { region: number, block, sum: 0, bytes: 0 });
                        self.notes.last_mut().expect("just pushed")
                    }
                };
                note.sum = note.sum.wrapping_add(sum(at, here));
                note.bytes += here.len() as u64;
            }
            at += here.len() as u64;
            rest = behind;
        }
    }

    fn compares(&self, region: &Region, block: u64) -> bool {
        region.shared || self.whole || block.is_multiple_of(SAMPLE)
    }

    /// Reads what is to be compared once more. What differs was not read for certain: it counts as refused. Where the user
    /// wants to stop, nothing counts as seen twice.
    pub(super) fn compare(self, process: &Process, interrupted: &AtomicBool, coverage: &mut Coverage) {
        let mut again = Notes { regions: self.regions, whole: self.whole, notes: Vec::new() };
        let mut uncounted = Coverage::default();
        if self.whole {
            for part in self.regions.split(Region::is_secret_memory) {
                read_ordinary(process, part, interrupted, &mut uncounted, |at, bytes| again.note(at, bytes));
            }
        } else {
            let mut pages = Pages::new(&process.pagemap);
            let mut reader = Reader::new(process, interrupted, &mut uncounted, |at, bytes| again.note(at, bytes));
            for region in self.regions {
                if region.is_secret_memory() || region.exclusion(process).is_some() {
                    continue;
                }
                if region.shared {
                    reader.region(&mut pages, region, region.start, region.end);
                    continue;
                }
                let first = (region.start / BLOCK).next_multiple_of(SAMPLE);
                for block in (first..region.end.div_ceil(BLOCK)).step_by(SAMPLE as usize) {
                    let start = region.start.max(block * BLOCK);
                    reader.region(&mut pages, region, start, region.end.min((block + 1) * BLOCK));
                }
            }
            reader.flush();
        }
        if interrupted.load(Ordering::Relaxed) {
            return;
        }
        settle(&self.notes, &again.notes, coverage);
        // The edges of runs of zeroes are handed on without counting as read; they were seen twice too.
        coverage.verified = coverage.verified.min(coverage.read);
    }
}

/// Compares two looks, both in ascending order, and corrects the account of the first.
fn settle(first: &[Note], second: &[Note], coverage: &mut Coverage) {
    let key = |note: &Note| (note.region, note.block);
    let mut others = second.iter().peekable();
    let mut changed = |read: u64, before: u64, coverage: &mut Coverage| {
        coverage.read -= read;
        coverage.never_populated -= before;
        coverage.refuse(CHANGED, read + before);
    };
    for note in first {
        while let Some(new) = others.next_if(|other| key(other) < key(note)) {
            appeared(new, coverage, &mut changed);
        }
        let again = others.next_if(|other| key(other) == key(note));
        if again.map_or(0, |again| again.sum) == note.sum {
            coverage.verified += note.bytes;
        } else {
            changed(note.bytes, 0, coverage);
        }
    }
    for new in others {
        appeared(new, coverage, &mut changed);
    }
}

/// A block of which nothing was read the first time.
fn appeared(note: &Note, coverage: &mut Coverage, changed: &mut impl FnMut(u64, u64, &mut Coverage)) {
    if note.sum != 0 {
        let before = note.bytes.min(coverage.never_populated);
        changed(0, before, coverage);
    }
}

fn sum(at: u64, bytes: &[u8]) -> u64 {
    let mut sum = 0_u64;
    for (address, page) in (at..).step_by(PAGE as usize).zip(bytes.chunks(PAGE as usize)) {
        let (words, rest) = page.as_chunks::<32>();
        if words.iter().any(|word| *word != [0; 32]) || rest.iter().any(|byte| *byte != 0) {
            let mixed = (xxh3_64(page) ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum = sum.wrapping_add(mixed ^ mixed >> 29);
        }
    }
    sum
}

/// Resident pages of a process.
///
/// # Source
///
/// proc_pid_statm(5), second field.
fn resident(process: &Process) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", process.pid)).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(block: u64, sum: u64) -> Note {
        Note { region: 0, block, sum, bytes: 4096 }
    }

    fn settled(first: &[Note], second: &[Note]) -> Coverage {
        let mut coverage = Coverage { listed: 40960, read: 8192, never_populated: 32768, ..Coverage::default() };
        settle(first, second, &mut coverage);
        assert!(coverage.adds_up(), "{coverage:?}");
        coverage
    }

    #[test]
    fn what_is_equal_twice_counts_as_seen_twice() {
        let coverage = settled(&[note(1, 5), note(3, 6)], &[note(1, 5), note(3, 6)]);

        assert_eq!((coverage.verified, coverage.refused_bytes()), (8192, 0));
    }

    #[test]
    fn what_differs_counts_as_refused() {
        let coverage = settled(&[note(1, 5), note(3, 6)], &[note(1, 5), note(3, 7)]);

        assert_eq!((coverage.verified, coverage.read, coverage.refused_bytes()), (4096, 4096, 4096));
        assert_eq!(coverage.refused[0].why, CHANGED);
    }

    #[test]
    fn what_vanishes_and_what_appears_counts_as_refused() {
        let coverage = settled(&[note(1, 5), note(3, 6)], &[note(0, 9), note(3, 6), note(8, 9)]);

        assert_eq!((coverage.read, coverage.refused_bytes()), (4096, 3 * 4096));
    }

    #[test]
    fn zeroes_that_appear_are_no_change() {
        let coverage = settled(&[note(1, 5), note(3, 6)], &[note(1, 5), note(2, 0), note(3, 6)]);

        assert_eq!(coverage.refused_bytes(), 0);
    }

    #[test]
    fn a_sum_tells_pages_apart_by_content_and_by_place() {
        let [mut one, mut other] = [[0; 8192]; 2];
        one[4095] = 1;
        other[8191] = 1;

        assert_ne!(sum(0, &one), sum(0, &other));
        assert_ne!(sum(0, &one[..4096]), sum(4096, &one[..4096]));
        assert_eq!(sum(0, &one), sum(0, &one[..4096]));
    }
}
