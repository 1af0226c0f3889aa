//! Which pages of a mapping hold something that must be read.
//!
//! The kernel is asked by `PAGEMAP_SCAN` and, where it does not know that call, page by page through the pagemap.
//! Neither touches a page. What the kernel does not tell counts as populated: a read then decides.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::PAGE;
use crate::sys::{self, PageRun};

/// Runs asked for at a time. With longer lists Linux 6.18 returned runs twice: the address up to which it said that
/// it had looked lay before the last run that it returned.
const RUNS: usize = 512;

/// Entries of the pagemap read at a time.
const ENTRIES: usize = 8192;

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Present or swapped: read it.
    Populated,
    /// In this process's page table there is nothing, or a guard marker.
    Never,
    /// The kernel's page of zeroes: read before, never written.
    Zeroes,
}

/// How the kernel can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// `PAGEMAP_SCAN` that tells guard markers (Linux 6.15).
    ScanGuards,
    /// `PAGEMAP_SCAN` (Linux 6.7).
    Scan,
    /// The pagemap, entry by entry.
    Entries,
}

/// Asks the kernel about the pages of one process.
pub(super) struct Pages<'a> {
    pagemap: &'a File,
    how: How,
    runs: Vec<PageRun>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(pagemap: &'a File) -> Self {
        Self { pagemap, how: How::ScanGuards, runs: vec![PageRun::default(); RUNS] }
    }

    /// Tells of all pages between two addresses, in ascending runs without a gap.
    ///
    /// Neighbouring runs may be alike. Keeps no more than [`RUNS`] of them, whatever the size of the mapping.
    pub(super) fn each(&mut self, start: u64, end: u64, mut run: impl FnMut(u64, u64, Page)) {
        let mut at = start;
        while at < end {
            at = match self.how {
                How::ScanGuards | How::Scan => {
                    let guards = self.how == How::ScanGuards;
                    match sys::scan_pages(self.pagemap, at, end, guards, &mut self.runs) {
                        Ok((filled, walked)) => told(&self.runs[..filled], at, walked.min(end), &mut run),
                        Err(error) if guards && error.raw_os_error() == Some(libc::EINVAL) => {
                            self.how = How::Scan;
                            at
                        }
                        Err(_) => {
                            self.how = How::Entries;
                            at
                        }
                    }
                }
                How::Entries => entries(self.pagemap, at, end, &mut run),
            };
        }
    }
}

/// Passes on what one scan told of the pages from `at`, and returns up to where that reaches.
fn told(runs: &[PageRun], mut at: u64, walked: u64, run: &mut impl FnMut(u64, u64, Page)) -> u64 {
    let began = at;
    for found in runs {
        let start = found.start.max(at); // below the last end: told before
        if found.end <= start {
            continue;
        }
        if at < start {
            run(at, start, Page::Never);
        }
        let page = match found {
            found if found.is_guard() => Page::Never,
            found if found.is_zeroes() => Page::Zeroes,
            _ => Page::Populated,
        };
        run(start, found.end, page);
        at = found.end;
    }
    if at < walked {
        run(at, walked, Page::Never);
        at = walked;
    }
    if at == began {
        // A scan that does not move would be asked for ever; a read decides on the page instead.
        run(at, at + PAGE, Page::Populated);
        at += PAGE;
    }
    at
}

/// Reads the next entries of the pagemap and returns up to where they reach.
///
/// # Source
///
/// Documentation/admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped, 58 guard region (Linux 6.15).
fn entries(pagemap: &File, at: u64, end: u64, run: &mut impl FnMut(u64, u64, Page)) -> u64 {
    let pages = usize::try_from((end - at).div_ceil(PAGE)).unwrap_or(usize::MAX).min(ENTRIES);
    let mut bytes = vec![0_u8; pages * 8];
    let known: io::Result<()> = pagemap.read_exact_at(&mut bytes, at / PAGE * 8);
    let (mut start, mut last) = (at, None);
    for (number, entry) in (0..).zip(bytes.chunks_exact(8)) {
        let bits = u64::from_le_bytes(entry.try_into().unwrap_or_default());
        let (present, swapped, guard) = (bits >> 63 & 1 == 1, bits >> 62 & 1 == 1, bits >> 58 & 1 == 1);
        let nothing = known.is_ok() && (guard || !(present || swapped));
        let page = if nothing { Page::Never } else { Page::Populated };
        let here = at + number * PAGE;
        if let Some(before) = last.filter(|before| *before != page) {
            run(start, here, before);
            start = here;
        }
        last = Some(page);
    }
    let reached = (at + pages as u64 * PAGE).min(end);
    if let Some(page) = last {
        run(start, reached, page);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(how: How, start: u64) -> Vec<(u64, Page)> {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut pages = Pages { how, ..Pages::new(&pagemap) };
        let mut known = Vec::new();
        pages.each(start, start + 3 * PAGE, |from, to, page| {
            known.extend((from..to).step_by(4096).map(|at| ((at - start) / PAGE, page)));
        });
        known
    }

    #[test]
    fn a_page_is_told_as_written_as_zeroes_or_as_never_touched() {
        let start = sys::pages_of_three_kinds();

        let known = known(How::ScanGuards, start);

        assert_eq!(known, [(0, Page::Populated), (1, Page::Zeroes), (2, Page::Never)]);
    }

    #[test]
    fn the_pagemap_tells_the_same_but_for_zeroes() {
        let start = sys::pages_of_three_kinds();

        let known = known(How::Entries, start);

        assert_eq!(known, [(0, Page::Populated), (1, Page::Populated), (2, Page::Never)]);
    }

    #[test]
    fn runs_that_come_twice_are_told_once() {
        let run = |start, end| PageRun { start, end, categories: 0 };
        let mut all = Vec::new();

        let at = told(&[run(0, 4), run(8, 12)], 0, 10, &mut |from, to, page| all.push((from, to, page)));
        let at = told(&[run(8, 12), run(16, 20)], at, 24, &mut |from, to, page| all.push((from, to, page)));

        assert_eq!(at, 24);
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0), "{all:?}");
        assert_eq!(all.iter().filter(|(_, _, page)| *page == Page::Populated).count(), 3);
    }

    #[test]
    fn a_pagemap_that_tells_nothing_leaves_every_page_to_a_read() {
        let null = File::open("/dev/null").unwrap();
        let mut all = Vec::new();

        Pages::new(&null).each(0, 4 * PAGE, |from, to, page| all.push((from, to, page)));

        assert_eq!(all, [(0, 4 * PAGE, Page::Populated)]);
    }
}
