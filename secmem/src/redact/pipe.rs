//! Text on its way: what comes in waits in a slot until it is known to be none of a secret.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::Error;
use super::scan::{Marks, State, Stop};
use super::{FORMS, LONGEST_WORD, Redactor, SEPARATORS};
use crate::arena;
use crate::error::Error as MemoryError;
use crate::scrub;
use crate::secret::Secret;
use crate::typed::Typed;
use crate::wipe;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Bytes that are looked through at once.
const CHUNK: usize = 4096;
/// Bytes that may wait: of hexadecimal with as many separators as there may be, twice as long an array, a long word.
const WAITING: usize = 1024;
const _: () = assert!(WAITING > 24 * (SEPARATORS as usize + 1) && WAITING > 13 * 2 * (SEPARATORS as usize + 6));
const _: () = assert!(WAITING > LONGEST_WORD);

thread_local! {
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Keeps a redactor from being asked by what it does itself: memory that is made is told as an event, which has a text.
pub(super) struct AtWork(());

impl AtWork {
    pub(super) fn begin() -> Result<Self, Error> {
        // A thread that is ending has no such place any more, and tells no events either.
        match AT_WORK.try_with(|at_work| at_work.replace(true)) {
            Ok(true) => Err(Error::Nested),
            _ => Ok(Self(())),
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = AT_WORK.try_with(|at_work| at_work.set(false));
    }
}

/// A text that comes in pieces.
pub(super) struct Pipe {
    redactor: Redactor,
    state: Typed<State>,
    /// What has not been let out, first; the rest is zeros.
    text: Secret,
    /// For each of them: not to be shown.
    marks: Vec<u8>,
    /// How many there are, and how many of those have been looked through.
    filled: usize,
    read: usize,
    /// Bytes of the whole text before them.
    base: u64,
    /// What was let out last was of a secret, and more of it is not told again.
    redacting: bool,
}

impl Pipe {
    pub(super) fn new(redactor: Redactor) -> Result<Self, Error> {
        if arena::in_child() {
            return Err(Error::Memory(MemoryError::Forked)); // a lock may be held by a thread that is not there
        }
        let _at_work = AtWork::begin()?;
        let (state, text) = (Typed::zeroed()?, Secret::new(WAITING + CHUNK)?);
        let marks = vec![0; WAITING + CHUNK];
        Ok(Self { redactor, state, text, marks, filled: 0, read: 0, base: 0, redacting: false })
    }

    /// Takes what comes next; what it makes known to be none of a secret goes to `out`.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.filled == self.text.len() {
                self.look(Some(Stop::Anywhere), out)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.text.len() - self.filled));
            let place = self.filled..self.filled + now.len();
            self.text.change(|text| wipe::copy(now, &mut text[place]))?;
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Lets out what nobody has to wait for.
    pub(super) fn settle(&mut self, stop: Stop, out: &mut Vec<u8>) -> Result<(), Error> {
        self.look(Some(stop), out)
    }

    /// Lets out all: the text has ended. What comes then is another one.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.look(None, out)?;
        self.redacting = false;
        Ok(())
    }

    /// Looks through what has come, and lets out what is decided; all, if nothing is to come.
    fn look(&mut self, stop: Option<Stop>, out: &mut Vec<u8>) -> Result<(), Error> {
        let _at_work = AtWork::begin()?;
        let inner = Arc::clone(&self.redactor.0);
        let off = inner.off.load(Ordering::Acquire) > 0;
        let (base, read, filled) = (self.base, self.read, self.filled);
        let end = base + filled as u64;
        let mut marks = Marks::new(&mut self.marks[..filled], base, off);
        let mut decided = 0;
        let table = inner.table()?;
        let (text, patterns) = (&mut self.text, &inner.patterns);
        self.state.with_mut(|state| {
            text.change(|text| {
                table.with(|view| {
                    scrub::run(|| {
                        for (at, byte) in (base + read as u64..).zip(&text[read..filled]) {
                            state.push(*byte, at, patterns, view, &mut marks);
                        }
                        let held = match stop {
                            Some(stop) => state.held(end, stop, patterns, view),
                            None => {
                                state.finish(end, view, &mut marks);
                                end
                            }
                        };
                        // Only of what no encoding writes (a thousand prefixes without a digit) more would wait than there is room for.
                        let waits = usize::try_from(end - held.clamp(base, end)).unwrap_or(filled).min(WAITING);
                        decided = filled - waits;
                    })
                })
            })
        })????;
        drop(table);
        let found = marks.found();
        let redactions = self.let_out(decided, out)?;
        if stop.is_none() {
            self.state.with_mut(|state| *state = zerocopy::FromZeros::new_zeroed())?;
        }
        let counts = inner.found.iter().zip(found).chain([(&inner.redacted, redactions)]);
        for (count, more) in counts.filter(|(_, more)| *more > 0) {
            count.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Moves the first `decided` bytes to `out`, but for those that are marked. Returns how often the text was put in their place.
    fn let_out(&mut self, decided: usize, out: &mut Vec<u8>) -> Result<u64, Error> {
        let (marks, filled) = (&mut self.marks, self.filled);
        let mut redacting = self.redacting;
        let mut redactions = 0;
        // What is not marked is plain text. What waits may be none, and is moved with nothing left in a register.
        self.text.change(|text| {
            for (byte, mark) in text[..decided].iter().zip(marks.iter()) {
                match (*mark != 0, std::mem::replace(&mut redacting, *mark != 0)) {
                    (false, _) => out.push(*byte),
                    (true, true) => {}
                    (true, false) => {
                        out.extend_from_slice(REDACTED.as_bytes());
                        redactions += 1;
                    }
                }
            }
            let mut at = 0;
            while decided + at < filled {
                // Pieces that do not overlap.
                let len = decided.min(filled - decided - at);
                if len == 0 {
                    break;
                }
                let (to, from) = text.split_at_mut(decided + at);
                wipe::copy(&from[..len], &mut to[at..at + len]);
                at += len;
            }
            if decided > 0 {
                wipe::wipe(&mut text[filled - decided..filled]);
            }
        })?;
        if decided > 0 {
            marks.copy_within(decided..filled, 0);
            marks[filled - decided..filled].fill(0);
        }
        self.filled -= decided;
        self.read = self.filled;
        self.base += decided as u64;
        self.redacting = redacting;
        Ok(redactions)
    }
}

/// So many kinds of matches are counted.
pub(super) type Found = [std::sync::atomic::AtomicU64; FORMS];
