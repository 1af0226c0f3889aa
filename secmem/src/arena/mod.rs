//! Locked, guarded memory, and the slots of secrets in it.
//!
//! [`Slot`] is the safe face of it all: memory that is reached by a closure, ends by being doomed, and is overwritten
//! before anyone else gets it. What the parts do: `mapping` makes protected pages, `list` keeps them where a purge finds
//! them, `pool` and `magazine` hand them out, `canary` sees that nobody writes past one, `state` says who may touch a slot,
//! `gate` closes memory between accesses, `fork` tells a child from its parent, `enclosure` is memory beside the pool, which
//! `register` lists.
#![allow(unsafe_code)] // mapped memory is reached by address

mod canary;
#[cfg(target_arch = "x86_64")]
mod enclosure;
mod fork;
mod gate;
mod list;
mod magazine;
mod mapping;
mod pool;
pub(crate) mod register;
mod state;

use std::fmt;
use std::ptr::NonNull;

#[cfg(target_arch = "x86_64")]
pub(crate) use enclosure::Enclosure;
pub(crate) use fork::in_child;
pub(crate) use gate::Need;
#[cfg(all(feature = "manager", target_arch = "x86_64"))]
pub(crate) use list::purges;
pub(crate) use list::{Opened, Since, doom_all, in_use, purge, purge_forced};
pub(crate) use pool::Look;
pub(crate) use state::Doom;

use crate::error::{Error, Refusal};
use crate::policy::{Control, Policy, Reached};
use crate::stats::{self, Count};
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
/// is in `/proc/self/smaps`: see [`verify`](crate::verify).
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
    policy: Policy,
    shields: Shields,
    witness: Reached,
}

impl Protection {
    fn new(shields: Shields, policy: Policy, kind: Kind, why: Option<Refusal>) -> Self {
        Self {
            asked: policy.backend(),
            reached: kind.backend(),
            why,
            locked: shields.reached(Control::Lock),
            dump_excluded: shields.reached(Control::DontDump),
            fork_excluded: shields.reached(Control::DontFork),
            guards: shields.reached(Control::Guards),
            policy,
            shields,
            witness: fork::witness(policy),
        }
    }

    /// What came of a control: what was asked, whether it is there, and why not.
    #[must_use]
    pub fn control(&self, control: Control) -> Reached {
        match control {
            Control::MemfdSecret => {
                let asked = self.policy.demand(control);
                Reached { control, asked, reached: self.reached == Backend::MemfdSecret, why: self.why }
            }
            Control::ForkWitness => self.witness,
            _ => reached(self.shields, self.policy, control),
        }
    }

    /// [`control`](Self::control) for each of them.
    pub fn controls(&self) -> impl Iterator<Item = Reached> + use<> {
        Control::ALL.map(|control| self.control(control)).into_iter()
    }

    /// Whether something that was asked for is not there.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.controls().any(|control| control.is_degraded())
    }
}

fn reached(shields: Shields, policy: Policy, control: Control) -> Reached {
    Reached { control, asked: policy.demand(control), reached: shields.reached(control), why: shields.why(control) }
}

/// What came of [`Control::ForkWitness`].
pub(crate) fn fork_witness(policy: Policy) -> Reached {
    fork::witness(policy)
}

/// Whether there is a witness, of whatever kind: it is made with the first secret.
pub(crate) fn has_fork_witness() -> bool {
    fork::has_witness()
}

/// The address of the page that the kernel zeroes in forked children, where there is one.
pub(crate) fn fork_witness_page() -> Option<usize> {
    fork::witness_page()
}

/// Calls `f` with what there is to know of each mapping that holds secrets; none is made or given back meanwhile.
pub(crate) fn look<R>(f: impl FnOnce(&mut dyn Iterator<Item = Look>) -> R) -> R {
    pool::look(f)
}

/// What a secret's pages must be like: equal for secrets that may share an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    policy: Policy,
    sealed: bool,
}

impl Class {
    /// What is asked for when nothing is said. Slots of it are kept at hand.
    const STANDARD: Self = Self { policy: Policy::STANDARD.of_pages(), sealed: false };
}

/// Memory for one secret: zeros at first, overwritten at the end.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Place,
    len: usize,
    epoch: Epoch,
    generation: u64,
    policy: Policy,
    kind: Kind,
    why: Option<Refusal>,
}

/// Writes the canaries of a place that nobody but its taker knows, and what they are looked at by: before it is occupied, for a
/// purge in another thread may end and overwrite what is.
#[inline(always)]
fn set_canary(place: &Place, len: usize, generation: u64) {
    place.arena.note(place.index, len, generation);
    // SAFETY: the place was given to the caller, is shown, open, and holds `len` bytes and their canaries.
    unsafe { Canary::new(place.start(), len) }.set();
}

impl Slot {
    /// `sealed`: its memory is closed between accesses.
    #[inline(always)] // with the caller: a copy of the value would wait until its parts have left the store buffer
    pub(crate) fn new(policy: Policy, sealed: bool, len: usize, schedule: Schedule) -> Result<Self, Error> {
        let class = Class { policy: policy.of_pages(), sealed };
        match Self::at_hand(policy, class, len, schedule) {
            Some(slot) => Ok(slot),
            None => Self::from_pool(policy, class, len, schedule).map(|slot| *slot).map_err(|error| *error),
        }
    }

    /// One that the thread has at hand, where nothing has to be asked, made or told.
    #[inline(always)]
    fn at_hand(policy: Policy, class: Class, len: usize, schedule: Schedule) -> Option<Self> {
        let generation = list::generation().ok().filter(|_| !in_child())?;
        let (place, kind) = pool::at_hand(policy, class, len)?;
        set_canary(&place, len, generation);
        let epoch = place.meta().state.occupy(schedule);
        stats::count(Count::Made);
        Some(Self { place, len, epoch, generation, policy, kind, why: None })
    }

    /// In boxes, so that the value that is at hand needs no place in memory before it is where the caller wants it.
    #[cold]
    fn from_pool(policy: Policy, class: Class, len: usize, schedule: Schedule) -> Result<Box<Self>, Box<Error>> {
        Self::made_by_pool(policy, class, len, schedule).map(Box::new).map_err(Box::new)
    }

    fn made_by_pool(policy: Policy, class: Class, len: usize, schedule: Schedule) -> Result<Self, Error> {
        if in_child() {
            return Err(Error::Forked);
        }
        let generation = list::generation()?;
        let pool::Grant { place, kind, why } =
            pool::take(policy, class, len).inspect_err(|_| stats::count(Count::Refused))?;
        let opened = match class.sealed.then(|| place.arena.open(Need::Write)).transpose() {
            Ok(opened) => opened.flatten(),
            Err(error) => {
                pool::give_back(place, kind, class);
                return Err(error);
            }
        };
        set_canary(&place, len, generation);
        let epoch = place.meta().state.occupy(schedule);
        let slot = Self { place, len, epoch, generation, policy, kind, why };
        opened.map_or(Ok(()), Opened::close)?;
        stats::count(Count::Made);
        Ok(slot)
    }

    /// Lets `f` read the bytes.
    #[inline]
    pub(crate) fn read<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let opened = self.open(Need::Read)?;
        let access = Access::begin(self)?;
        let start = self.start();
        // SAFETY: the slot is ours, so its memory is shown, and open, and holds at least `len` initialised bytes; while the
        // access runs nobody overwrites them, but for a forced purge, which no function of this crate makes that returns,
        // and which the crate's documentation owns up to; `&self` keeps writers out.
        let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.len) };
        let result = f(bytes);
        drop(access);
        opened.map_or(Ok(()), Opened::close)?;
        self.not_overtaken().map(|()| result)
    }

    /// Lets `f` read and write the bytes.
    #[inline]
    pub(crate) fn write<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let opened = self.open(Need::Write)?;
        let access = Access::begin(self)?;
        let start = self.start();
        // SAFETY: the slot is ours, so its memory is shown, and open, and holds at least `len` initialised bytes; while the
        // access runs nobody overwrites them, but for a forced purge, which no function of this crate makes that returns,
        // and which the crate's documentation owns up to; `&mut self` keeps all others out.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.len) };
        let result = f(bytes);
        drop(access);
        opened.map_or(Ok(()), Opened::close)?;
        self.not_overtaken().map(|()| result)
    }

    /// Whether an access that has run saw the secret, and not the zeros of a forced purge: what it made of those is no result.
    #[inline]
    fn not_overtaken(&self) -> Result<(), Error> {
        if list::is_overtaken(|now| now == self.generation) { Err(Error::Purged) } else { Ok(()) }
    }

    /// Opens the memory where it is closed between accesses.
    #[inline]
    fn open(&self, need: Need) -> Result<Option<Opened>, Error> {
        if !self.place.arena.is_sealed() {
            return Ok(None);
        }
        if in_child() {
            stats::count(Count::Denied);
            return Err(Error::Forked); // the memory is the parent's, and somebody there may have held the gate's lock
        }
        self.place.arena.open(need)
    }

    /// Opens the memory for reading until the value is dropped, where it is closed between accesses.
    pub(crate) fn hold_open(&self) -> Result<Option<Opened>, Error> {
        self.open(Need::Read)
    }

    /// A slot of another length like this one.
    pub(crate) fn like(&self, len: usize) -> Result<Self, Error> {
        Self::new(self.policy, self.place.arena.is_sealed(), len, self.place.meta().state.schedule())
    }

    /// Ends a secret that takes over what another one held, if a purge may have passed this place before it was occupied, and come to
    /// the other one's when that was given back. `since` is from before this slot was made; to be called when it holds
    /// everything, before the other one is dropped.
    pub(crate) fn end_if_purged(&self, since: Since) -> Result<(), Error> {
        if since.has_purged() { self.doom(Doom::Purged) } else { Ok(()) }
    }

    /// An address within the arena, to be told from those of others.
    pub(crate) fn address(&self) -> usize {
        self.start().as_ptr().addr()
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

    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Overwrites the bytes where they stand, also under an access that runs: it sees zeros from then on, and what it makes of them
    /// is no result. Does nothing for memory that is closed between accesses.
    ///
    /// The language promises nothing about an access whose bytes change under its reference: not for those who rely on what they
    /// have read before, as whoever reads text does.
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) fn overwrite_in_use(&self) {
        if in_child() || self.place.arena.is_sealed() || cfg!(secmem_ablate = "wipe") {
            return;
        }
        let start = self.start();
        for at in 0..self.len {
            // SAFETY: within the slot's bytes.
            let byte = unsafe { start.add(at) };
            // SAFETY: the slot is ours as long as `self` lives, so its memory is mapped, shown and open. An access that runs may
            // refer to it: see above; it is the deal of a deadline that does not wait.
            unsafe { byte.write_volatile(0) };
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The first byte of the secret.
    #[inline]
    fn start(&self) -> NonNull<u8> {
        // SAFETY: a slot is longer than what stands before the secret.
        unsafe { self.place.start().add(canary::BEFORE) }
    }

    #[inline]
    fn canary(&self) -> Canary {
        // SAFETY: the slot is ours, and so its memory mapped, as long as `self` lives; it holds the secret and its canaries.
        unsafe { Canary::new(self.place.start(), self.len) }
    }

    /// Ends the process if somebody wrote past the secret.
    #[inline]
    fn check(&self) {
        // A forced purge overwrites canaries too, and turns the generation before it does.
        if !self.canary().intact() && !list::is_overtaken(|now| now == self.generation) {
            canary::damaged();
        }
    }

    /// Ends and overwrites a slot that nothing has ended before, and says whether it was one.
    #[inline]
    fn retire(&self) -> bool {
        let state = &self.place.meta().state;
        let Some(Duty { schedule }) = state.retire(self.epoch) else { return false };
        if !cfg!(secmem_ablate = "canary-at-free") {
            self.check();
        }
        // SAFETY: the duty is given once in the slot's life, when no access runs and none can begin, so nobody refers
        // to the bytes; the memory stays mapped and shown until the slot is given back.
        let wiped = unsafe { wipe::wipe_raw(self.place.start(), self.place.len(), schedule) };
        let _ = wiped; // without random bytes the other passes were made and zeros stand there
        state.vacate_retired(self.epoch);
        true
    }

    /// [`retire`](Self::retire), where the memory is closed between accesses.
    #[cold]
    fn retire_opened(&self) -> bool {
        let Ok(_opened) = self.open(Need::Write) else { return false };
        self.retire()
    }

    pub(crate) fn protection(&self) -> Protection {
        Protection::new(self.place.arena.shields(), self.policy, self.kind, self.why)
    }

    /// Where it lies.
    #[cfg(test)]
    fn arena(&self) -> &'static list::Arena {
        self.place.arena
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
        let sealed = self.place.arena.is_sealed();
        let ended = if sealed { self.retire_opened() } else { self.retire() };
        if !ended {
            // An error is a missing random pass, or memory that could not be opened. A drop has nobody to tell.
            let _ = self.doom(Doom::Wiped);
            if !self.place.meta().state.vacate() {
                return; // the bytes stand: nobody gets the slot, and a purge tries again
            }
        }
        pool::give_back(self.place, self.kind, Class { policy: self.policy.of_pages(), sealed });
    }
}

/// The error of an access to a slot that has ended, or, where nothing has ended it, of one in a forked child.
#[cold]
fn denied(doom: Option<Doom>) -> Error {
    refuse(doom.map_or(Error::Forked, Error::from))
}

/// Counts and tells that an access was refused.
pub(crate) fn refuse(error: Error) -> Error {
    stats::count(Count::Denied);
    crate::trace::denied(&error);
    error
}

/// A running access. Ends when dropped, so also when the closure unwinds.
#[derive(Debug)]
struct Access<'a>(&'a Slot);

impl<'a> Access<'a> {
    #[inline(always)]
    fn begin(slot: &'a Slot) -> Result<Self, Error> {
        Self::enter(slot).map_err(denied)
    }

    #[inline(always)]
    fn enter(slot: &'a Slot) -> Result<Self, Option<Doom>> {
        if in_child() {
            return Err(None);
        }
        slot.place.meta().state.enter()?;
        let access = Self(slot);
        // After entering, so that a purge which begins later finds the access counted.
        if !list::is_current(slot.generation) {
            return Err(Some(Doom::Purged));
        }
        stats::count(Count::Access);
        Ok(access)
    }
}

impl Drop for Access<'_> {
    #[inline]
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
        // An access has nobody to tell: see `Arena::overwrite`.
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
    /// Bytes to write when the slot is overwritten, each pass counted.
    pub(crate) fn work(&self) -> usize {
        let passes = match self.place.meta().state.schedule() {
            Schedule::SixPass => 6,
            Schedule::Single => 1,
        };
        self.place.len().saturating_mul(passes)
    }

    /// Forbids further accesses and overwrites the slot: now if nobody uses it, else when the last access ends, and if another one is
    /// overwriting it, until that is done.
    pub(crate) fn doom(&self, doom: Doom) -> Result<(), Error> {
        if in_child() {
            return Err(Error::Forked);
        }
        self.place.arena.end_secret(self.place.index, Some(self.epoch), doom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Call, seam};

    /// The bytes of a slot, whether it has ended or not, but for its canaries.
    fn bytes(slot: &Slot) -> Vec<u8> {
        let _opened = slot.open(Need::Read).unwrap();
        let start = slot.start().as_ptr();
        // SAFETY: the slot is ours, so its memory is mapped, and it is open; volatile, for others overwrite it.
        (0..slot.len()).map(|at| unsafe { start.wrapping_add(at).read_volatile() }).collect()
    }

    fn filled(sealed: bool, schedule: Schedule) -> Slot {
        filled_as(Policy::from(Backend::Mlock), sealed, schedule)
    }

    fn filled_as(policy: Policy, sealed: bool, schedule: Schedule) -> Slot {
        let mut slot = Slot::new(policy, sealed, 100, schedule).unwrap();
        slot.write(|bytes| bytes.fill(0xA7)).unwrap();
        slot
    }

    /// Closed memory of a policy that no other test has: where another one has it open, it is not opened, and nothing is refused.
    fn closed(preferred: Control) -> Slot {
        let policy = Policy::from(Backend::Mlock).with(preferred, crate::policy::Demand::Preferred);
        filled_as(policy, true, Schedule::Single)
    }

    #[test]
    fn a_slot_that_did_not_open_to_be_wiped_is_wiped_by_the_next_one_who_ends_it() {
        for (first, second) in [(Doom::Wiped, Doom::Wiped), (Doom::Expired, Doom::Purged), (Doom::Spent, Doom::Expired)]
        {
            let slot = closed(Control::DontFork);
            seam::fail_next(Call::Access, libc::ENOMEM);

            assert!(matches!(slot.doom(first), Err(Error::Access { .. })));
            assert_eq!(bytes(&slot), [0xA7; 100]);
            assert!(slot.place.meta().state.in_use(), "bytes that stand count");
            slot.doom(second).unwrap();

            assert_eq!((bytes(&slot), seam::left()), (vec![0; 100], 0));
            assert!(!slot.place.meta().state.in_use());
        }
    }

    #[test]
    fn a_slot_whose_end_was_refused_twice_is_nobodys_and_the_next_purge_wipes_it() {
        let slot = closed(Control::DontDump);
        let place = slot.place;
        for _ in 0..2 {
            seam::fail_next(Call::Access, libc::ENOMEM);
        }

        drop(slot); // opened to be retired, then to be wiped

        assert!(place.meta().state.in_use() && place.arena.is_stuck());
        assert!(place.arena.end_secret(place.index, None, Doom::Purged).is_ok() && !place.meta().state.in_use());
        assert_eq!(seam::left(), 0);
    }

    #[test]
    fn who_ends_a_secret_that_another_one_is_overwriting_returns_when_that_is_done() {
        for epoch in [false, true] {
            let slot = filled(false, Schedule::Single);
            let place = slot.place;
            let duty = place.meta().state.doom(None, Doom::Expired);
            assert!(duty.is_some());
            let begins = std::sync::Barrier::new(2);

            let after = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    begins.wait();
                    // As `wipe` does, and as a purge.
                    place.arena.end_secret(place.index, epoch.then_some(slot.epoch), Doom::Wiped).unwrap();
                    bytes(&slot)
                });
                begins.wait();
                std::thread::sleep(std::time::Duration::from_millis(50)); // for the other one to have gone on, if it would
                place.arena.fulfil(place.index, duty).unwrap();
                other.join().unwrap()
            });

            assert_eq!(after, [0; 100]);
        }
    }

    #[test]
    fn a_slot_that_a_forced_purge_has_overwritten_is_ended_without_a_word_of_damage() {
        let ended = seam::in_child(
            "arena::tests::a_slot_that_a_forced_purge_has_overwritten_is_ended_without_a_word_of_damage",
            || {
                for sealed in [false, true] {
                    let slot = filled(sealed, Schedule::Single);
                    purge_forced();
                    slot.doom(Doom::Wiped).unwrap();
                    drop(slot);
                    drop(filled(sealed, Schedule::Single));
                }
            },
        );

        assert!(ended.status.success(), "{ended:?}");
    }
}
