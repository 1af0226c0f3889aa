//! The notes of a core: whose registers it holds, and what its writer says that it left out.
//!
//! Notes are searched as plain bytes by whoever reads the core; here they are taken apart, because a value in one vector
//! register lies in pieces far apart in a note ([`super::xsave`]).

use object::LittleEndian;
use object::elf::{FileHeader64, NT_PRFPREG, NT_PRSTATUS, NT_X86_XSTATE};
use object::read::elf::NoteIterator;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use findings::{Coverage, Share};

use super::registers::Registers;

/// Owner of the note in which a core of our own writing says what it does not hold.
pub(super) const OWNER: &str = "residue";

/// Type of that note.
pub(super) const ACCOUNT: u32 = 1;

/// Where the general registers begin in `struct elf_prstatus` of x86-64 (linux/elfcore.h), and their bytes.
pub(super) const GENERAL: std::ops::Range<usize> = 112..112 + 27 * 8;

/// Bytes of notes that are taken apart: those of ten thousand threads are 40 MB.
const MOST: usize = 64 << 20;

/// Letters of a reason that another program wrote.
const REASON: usize = 120;

/// What a core of our own writing does not hold.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Memory, by reason.
    pub(super) unread: Vec<Share>,
}

impl Account {
    /// The bytes of the note.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers")
    }
}

/// The bytes of all notes, as they come.
#[derive(Default)]
pub(crate) struct Notes {
    /// Where each segment of notes begins, and what it holds.
    segments: Vec<(u64, Vec<u8>)>,
    held: usize,
    /// Bytes that there was no room for.
    left: u64,
}

impl Drop for Notes {
    fn drop(&mut self) {
        for (_, bytes) in &mut self.segments {
            bytes.zeroize();
        }
    }
}

impl Notes {
    /// Takes in the next piece, which begins at this offset of the file.
    pub(crate) fn take(&mut self, at: u64, bytes: &[u8]) {
        if self.held + bytes.len() > MOST {
            self.left = self.left.saturating_add(bytes.len() as u64);
            return;
        }
        self.held += bytes.len();
        match self.segments.last_mut() {
            Some((start, segment)) if *start + segment.len() as u64 == at => {
                if segment.capacity() - segment.len() < bytes.len() {
                    // By hand, as a Vec that grows leaves what it held unwiped.
                    let mut larger = Vec::with_capacity((segment.len() + bytes.len()) * 2);
                    larger.extend_from_slice(segment);
                    segment.zeroize();
                    *segment = larger;
                }
                segment.extend_from_slice(bytes);
            }
            _ => self.segments.push((at, bytes.to_vec())),
        }
    }

    /// The registers of every thread, each with the ranges of the file from which they were taken.
    pub(crate) fn registers(&self, mut each: impl FnMut(&Registers)) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut thread: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
        let mut done = |thread: Option<(Vec<u8>, Option<Vec<u8>>)>| {
            if let Some((general, area)) = thread {
                each(&Registers::new(general, area));
            }
        };
        self.each(|offset, owner, kind, bytes| {
            let whole = (offset, offset + bytes.len() as u64);
            match (owner, kind) {
                (b"CORE", kind) if kind == NT_PRSTATUS.0 && bytes.len() >= GENERAL.end => {
                    done(thread.take());
                    thread = Some((bytes[GENERAL].to_vec(), None));
                    ranges.push((offset + GENERAL.start as u64, offset + GENERAL.end as u64));
                }
                // It begins the extended state, which comes behind it where there is one.
                (b"CORE", kind) if kind == NT_PRFPREG.0 => {
                    if let Some((_, area @ None)) = &mut thread {
                        *area = Some(bytes.to_vec());
                        ranges.push(whole);
                    }
                }
                (b"LINUX", kind) if kind == NT_X86_XSTATE.0 => {
                    if let Some((_, area)) = &mut thread {
                        area.zeroize();
                        *area = Some(bytes.to_vec());
                        ranges.push(whole);
                    }
                }
                _ => {}
            }
        });
        done(thread);
        ranges
    }

    /// Counts what the core's writer says that it left out, and what was too much to take apart.
    pub(crate) fn account(&self, coverage: &mut Coverage, nameable: impl Fn(String) -> String) {
        self.each(|_, owner, kind, bytes| {
            if (owner, kind) != (OWNER.as_bytes(), ACCOUNT) {
                return;
            }
            let account = serde_json::from_slice(bytes).unwrap_or_else(|_| Account {
                unread: vec![Share {
                    why: "an account of what the core does not hold that cannot be read".into(),
                    bytes: 1,
                }],
            });
            for share in account.unread {
                let why = nameable(share.why.chars().take(REASON).collect());
                coverage.listed = coverage.listed.saturating_add(share.bytes);
                coverage.refuse(&format!("not in the core: {why}"), share.bytes);
            }
        });
        if self.left > 0 {
            let left = self.left.min(coverage.read);
            coverage.read -= left;
            coverage.refuse("more notes than are taken apart", left);
        }
    }

    /// Goes through all notes: offset of the contents in the file, owner, type, contents. Where a segment makes no
    /// sense any more, the next one goes on.
    fn each(&self, mut each: impl FnMut(u64, &[u8], u32, &[u8])) {
        for (start, bytes) in &self.segments {
            let Ok(mut notes) = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, 4, bytes) else {
                continue;
            };
            while let Ok(Some(note)) = notes.next() {
                let offset = note.desc().as_ptr().addr() - bytes.as_ptr().addr();
                each(start + offset as u64, note.name(), note.n_type(LittleEndian).0, note.desc());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &str, kind: u32, contents: &[u8]) -> Vec<u8> {
        let mut note: Vec<u8> = [owner.len() + 1, contents.len(), kind as usize]
            .iter()
            .flat_map(|number| u32::try_from(*number).unwrap().to_le_bytes())
            .collect();
        for part in [[owner.as_bytes(), &[0]].concat(), contents.to_vec()] {
            note.extend_from_slice(&part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_registers_of_every_thread_are_put_together() {
        let mut status = vec![0; 336];
        status[GENERAL][..8].copy_from_slice(&7_u64.to_le_bytes());
        let area = vec![3; 832];
        let thread = [note("CORE", 1, &status), note("CORE", 2, &[1; 512]), note("LINUX", 0x202, &area)].concat();
        let mut notes = Notes::default();
        // In pieces, as a reader hands them on.
        for (number, piece) in [thread.clone(), thread].concat().chunks(100).enumerate() {
            notes.take(4096 + number as u64 * 100, piece);
        }
        let mut seen = Vec::new();

        let ranges = notes.registers(|registers| {
            seen.push((registers.pieces[0].1[0], registers.pieces.last().unwrap().1.clone()));
        });

        assert_eq!(seen, [(7, vec![3; 832]), (7, vec![3; 832])]);
        assert_eq!((ranges.len(), ranges[0]), (6, (4096 + 20 + 112, 4096 + 20 + 328)));
    }

    #[test]
    fn what_a_core_of_ours_lacks_counts_as_refused() {
        let account = Account { unread: vec![Share { why: "EIO".to_owned(), bytes: 8192 }] };
        for (contents, bytes) in [(account.to_bytes(), 8192), (b"nonsense".to_vec(), 1)] {
            let mut notes = Notes::default();
            notes.take(0, &note(OWNER, ACCOUNT, &contents));
            let mut coverage = Coverage { listed: 10, read: 10, ..Coverage::default() };

            notes.account(&mut coverage, |text| text);

            assert_eq!((coverage.refused_bytes(), coverage.adds_up()), (bytes, true));
        }
    }
}
