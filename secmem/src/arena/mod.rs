//! Locked, guarded memory, and the slots of secrets in it.
//!
//! [`Slot`] is the safe face of it all: memory that is reached by a closure, ends by being doomed, and is overwritten
//! before anyone else gets it. What the parts do: `mapping` makes protected pages, `list` keeps them where a purge finds
//! them, `pool` and `magazine` hand them out, `canary` sees that nobody writes past one, `state` says who may touch a slot,
//! `fork` tells a child from its parent, `enclosure` is memory beside the pool.
#![allow(unsafe_code)] // mapped memory is reached by address

mod canary;
mod enclosure;
mod fork;
mod list;
mod magazine;
mod mapping;
mod pool;
mod state;

use std::fmt;
use std::ptr::NonNull;

pub(crate) use enclosure::Enclosure;
pub(crate) use fork::in_child;
pub(crate) use list::{in_use, purge, purge_forced};
pub(crate) use state::Doom;

use crate::error::{Error, Refusal};
use crate::wipe::{self, Schedule};
use canary::Canary;
use magazine::Place;
use mapping::{Kind, Shields};
use state::{Duty, Epoch};

/// The kind of memory that secrets live in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// `memfd_secret`, or `mlock` where the kernel refuses that; [`Protection`] says which, and why.
    #[default]
    Auto,
    /// memfd_secret(2), Linux 5.14: the kernel drops the pages from its own map of memory. No read from outside reaches
    /// them: not `/proc/PID/mem`, not process_vm_readv(2), not the peeks of ptrace(2), no core dump, no swap. They are zeroed
    /// when the process is gone, however it ended. Code that runs in the process reads them, also code that a debugger
    /// makes it run.
    MemfdSecret,
    /// mlock(2), with the pages excluded from core dumps and from forked children. Whoever may trace the process reads them.
    Mlock,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::MemfdSecret => "memfd_secret",
            Self::Mlock => "mlock",
        })
    }
}

/// How a secret is protected: what was asked for, and what the kernel granted.
///
/// Each control is what the call that brings it about has answered when the memory was made. The kernel's own view of it
/// is in `/proc/self/smaps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protection {
    /// The backend that was asked for.
    pub asked: Backend,
    /// The backend that holds the secret; never [`Backend::Auto`].
    pub reached: Backend,
    /// Why it is not memfd_secret, where [`Backend::Auto`] had to fall back.
    pub why: Option<Refusal>,
    /// The pages are never swapped out.
    pub locked: bool,
    /// The pages are not part of core dumps.
    pub dump_excluded: bool,
    /// A forked child does not get the pages.
    pub fork_excluded: bool,
    /// A page without access lies on either side of the arena.
    pub guards: bool,
}

fn protection(shields: Shields, asked: Backend, kind: Kind, why: Option<Refusal>) -> Protection {
    let Shields { locked, dump_excluded, fork_excluded, guards } = shields;
    Protection { asked, reached: kind.backend(), why, locked, dump_excluded, fork_excluded, guards }
}

/// Memory for one secret: zeros at first, overwritten at the end.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Place,
    len: usize,
    epoch: Epoch,
    generation: u64,
    asked: Backend,
    kind: Kind,
    why: Option<Refusal>,
}

impl Slot {
    pub(crate) fn new(asked: Backend, len: usize, schedule: Schedule) -> Result<Self, Error> {
        if in_child() {
            return Err(Error::Forked);
        }
        let generation = list::generation()?;
        let pool::Grant { place, kind, why } = pool::take(asked, len)?;
        let epoch = place.meta().state.occupy(schedule);
        let slot = Self { place, len, epoch, generation, asked, kind, why };
        slot.canary().set();
        Ok(slot)
    }

    /// Lets `f` read the bytes.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let access = Access::begin(self)?;
        let start = self.start();
        // SAFETY: the slot is ours, so its memory is shown, and holds at least `len` initialised bytes; while the access
        // runs nobody overwrites them, but for a forced purge, which no function of this crate makes that returns, and
        // which the crate's documentation owns up to; `&self` keeps writers out.
        let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) };
        let result = f(bytes);
        drop(access);
        Ok(result)
    }

    /// Lets `f` read and write the bytes.
    pub(crate) fn write<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let access = Access::begin(self)?;
        let start = self.start();
        // SAFETY: the slot is ours, so its memory is shown, and holds at least `len` initialised bytes; while the access
        // runs nobody overwrites them, but for a forced purge, which no function of this crate makes that returns, and
        // which the crate's documentation owns up to; `&mut self` keeps all others out.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len) };
        let result = f(bytes);
        drop(access);
        Ok(result)
    }

    /// Ends the secret, if nothing has ended it before.
    pub(crate) fn doom(&self, doom: Doom) -> Result<(), Error> {
        self.ticket().doom(doom)
    }

    /// A handle by which others can end the secret; it does nothing once the slot was given back.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { place: self.place, epoch: self.epoch }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first byte of the secret.
    fn start(&self) -> NonNull<u8> {
        // SAFETY: a slot is longer than what stands before the secret.
        unsafe { self.place.start().add(canary::BEFORE) }
    }

    fn canary(&self) -> Canary {
        // SAFETY: the slot is ours, and so its memory mapped, as long as `self` lives; it holds the secret and its canaries.
        unsafe { Canary::new(self.place.start(), self.len) }
    }

    /// Ends the process if somebody wrote past the secret.
    fn check(&self) {
        // A forced purge overwrites canaries too, and turns the generation before it does.
        if !self.canary().intact() && list::is_current(self.generation) {
            canary::damaged();
        }
    }

    pub(crate) fn protection(&self) -> Protection {
        protection(self.place.arena.shields(), self.asked, self.kind, self.why)
    }

    /// One past the last data byte of the arena: the first byte of its upper guard.
    pub(crate) fn arena_end(&self) -> *const u8 {
        self.place.arena.end()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if in_child() {
            return; // the pages are the parent's, and so is the lock of the pool
        }
        let state = &self.place.meta().state;
        // Without random bytes the other passes were made and zeros stand there; a drop has nobody to tell.
        if let Some(Duty { schedule }) = state.retire(self.epoch) {
            if !cfg!(secmem_ablate = "canary-at-free") {
                self.check();
            }
            // SAFETY: the duty is given once in the slot's life, when no access runs and none can begin, so nobody refers
            // to the bytes; the memory stays mapped and shown until the slot is given back.
            let _ = unsafe { wipe::wipe_raw(self.place.start(), self.place.len(), schedule) };
            state.vacate_retired(self.epoch);
        } else {
            let _ = self.doom(Doom::Wiped);
            state.vacate();
        }
        pool::give_back(self.place, self.kind);
    }
}

/// A running access. Ends when dropped, so also when the closure unwinds.
#[derive(Debug)]
struct Access<'a>(&'a Slot);

impl<'a> Access<'a> {
    fn begin(slot: &'a Slot) -> Result<Self, Error> {
        if in_child() {
            return Err(Error::Forked);
        }
        slot.place.meta().state.enter()?;
        let access = Self(slot);
        // After entering, so that a purge which begins later finds the access counted.
        if list::is_current(slot.generation) { Ok(access) } else { Err(Error::Purged) }
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        let slot = self.0;
        if in_child() {
            return; // forked within the access: the slot is the parent's
        }
        if !cfg!(secmem_ablate = "canary-at-close") {
            slot.check();
        }
        let state = &slot.place.meta().state;
        let mut duty = state.leave();
        // A forced purge may have come before the last write of this access. Asked after leaving: that step orders the
        // writes before the question.
        if duty.is_none() && !list::is_current(slot.generation) {
            duty = state.doom(Some(slot.epoch), Doom::Purged);
        }
        // Without random bytes the other passes were made and zeros stand there; an access has nobody to tell.
        let _ = slot.place.arena.fulfil(slot.place.index, duty);
    }
}

/// Ends a slot from elsewhere. See [`Slot::ticket`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    place: Place,
    epoch: Epoch,
}

impl Ticket {
    /// Forbids further accesses and overwrites the slot: now if nobody uses it, else when the last access ends.
    pub(crate) fn doom(&self, doom: Doom) -> Result<(), Error> {
        if in_child() {
            return Err(Error::Forked);
        }
        let duty = self.place.meta().state.doom(Some(self.epoch), doom);
        self.place.arena.fulfil(self.place.index, duty)
    }
}
