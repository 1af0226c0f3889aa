//! The life of one slot, in one atomic word beside the arena.
//!
//! ```text
//! free ─occupy─► live ─enter/leave─► live        users counted
//!                  │ doom (expired, wiped, purged, spent)
//!                  ▼
//!                doomed ─no user left─► doomed+busy ─overwritten─► doomed+clean ─vacate─► free, next epoch
//! ```
//!
//! Whoever makes the step to *busy* overwrites the slot: the one who doomed it if nobody was using it, else the last
//! user on the way out. So a slot is overwritten by one thread alone, never under a running access, and nobody waits
//! but who must know that the bytes are gone: an owner that ends the secret or gives the slot back while somebody else
//! overwrites it, and a purge.
//!
//! Memory that is closed between accesses may not open. Then busy becomes *failed*: the bytes stand, the slot stays doomed, and
//! whoever dooms it next makes the step to busy again.
//!
//! The epoch tells a slot's lives apart: a deadline that fires late cannot doom the next secret in the same place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::wipe::Schedule;

/// Why a slot may no longer be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    Expired,
    Wiped,
    Purged,
    Spent,
}

impl Doom {
    const fn bit(self) -> u64 {
        match self {
            Self::Expired => EXPIRED,
            Self::Wiped => WIPED,
            Self::Purged => PURGED,
            Self::Spent => SPENT,
        }
    }
}

impl From<Doom> for Error {
    fn from(doom: Doom) -> Self {
        match doom {
            Doom::Expired => Self::Expired,
            Doom::Wiped => Self::Wiped,
            Doom::Purged => Self::Purged,
            Doom::Spent => Self::Spent,
        }
    }
}

/// Low half: running accesses. Each one is a stack frame of its own, so 2^32 of them do not fit into memory.
const USERS: u64 = (1 << 32) - 1;
/// A secret stands here.
const LIVE: u64 = 1 << 32;
const EXPIRED: u64 = 1 << 33;
const WIPED: u64 = 1 << 34;
const PURGED: u64 = 1 << 35;
const SPENT: u64 = 1 << 39;
const DOOMED: u64 = EXPIRED | WIPED | PURGED | SPENT;
/// Someone overwrites the slot.
const BUSY: u64 = 1 << 36;
/// The slot was overwritten.
const CLEAN: u64 = 1 << 37;
/// [`Schedule::SixPass`] was asked for.
const SIX: u64 = 1 << 38;
/// Its memory could not be opened to be overwritten.
const FAILED: u64 = 1 << 40;
/// One life of the slot; the bits above count them.
const EPOCH: u64 = 1 << 41;

/// The caller got the duty to overwrite the slot, and then to call [`State::cleaned`], or
/// [`State::failed`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Duty {
    pub(crate) schedule: Schedule,
}

/// Which life of a slot is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// The word itself.
#[derive(Debug, Default)]
pub(crate) struct State(AtomicU64);

impl State {
    /// Takes a free slot. The pool's lock keeps others from taking the same one.
    #[inline]
    pub(crate) fn occupy(&self, schedule: Schedule) -> Epoch {
        let six = if schedule == Schedule::SixPass { SIX } else { 0 };
        let epoch = self.0.load(Ordering::Acquire) / EPOCH;
        self.0.store((epoch * EPOCH) | LIVE | six, Ordering::Release);
        Epoch(epoch)
    }

    /// Begins an access, unless the slot is doomed.
    #[inline]
    pub(crate) fn enter(&self) -> Result<(), Doom> {
        let begin = |word: u64| (word & DOOMED == 0).then_some(word + 1);
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin) {
            Ok(_) => Ok(()),
            Err(word) if word & WIPED != 0 => Err(Doom::Wiped),
            Err(word) if word & EXPIRED != 0 => Err(Doom::Expired),
            Err(word) if word & SPENT != 0 => Err(Doom::Spent),
            Err(_) => Err(Doom::Purged),
        }
    }

    /// Ends an access that [`enter`](Self::enter) began.
    #[inline]
    pub(crate) fn leave(&self) -> Option<Duty> {
        let before = self.0.fetch_sub(1, Ordering::AcqRel);
        if before & DOOMED == 0 { None } else { self.step(Some) }
    }

    /// Forbids further accesses; `epoch` is the life that is meant, `None` whichever it is. Gives the duty anew where it failed.
    pub(crate) fn doom(&self, epoch: Option<Epoch>, doom: Doom) -> Option<Duty> {
        self.step(|word| {
            if !is_meant(word, epoch) || word & LIVE == 0 {
                return None;
            }
            match word & (DOOMED | FAILED) {
                0 => Some(word | doom.bit()),
                marks if marks & FAILED != 0 => Some(word & !FAILED),
                _ => None,
            }
        })
    }

    /// Waits for another one who overwrites the slot, or is about to, which ends by itself; says whether there was one.
    ///
    /// Not for signal handlers: the thread that they interrupted may be the one.
    pub(crate) fn wait(&self, epoch: Option<Epoch>) -> bool {
        let mut waited = false;
        loop {
            let word = self.0.load(Ordering::Acquire);
            if !is_meant(word, epoch) || !is_under_way(word) {
                return waited;
            }
            waited = true;
            std::thread::yield_now();
        }
    }

    /// Makes a step, and claims the overwriting if the step leaves a doomed slot without users.
    fn step(&self, change: impl Fn(u64) -> Option<u64>) -> Option<Duty> {
        let claim = |word: u64| if due(word) { word | BUSY } else { word };
        let old = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| change(word).map(claim)).ok()?;
        let new = change(old)?;
        due(new).then_some(Duty { schedule: schedule(new) })
    }

    /// Ends the life of a slot that nothing has ended before and nobody uses, all in one step.
    ///
    /// `Some`: the caller overwrites the slot, alone, and then calls [`vacate_retired`](Self::vacate_retired) instead of
    /// [`cleaned`](Self::cleaned) and [`vacate`](Self::vacate).
    #[inline]
    pub(crate) fn retire(&self, epoch: Epoch) -> Option<Duty> {
        let end = |word: u64| {
            let unused = word & (USERS | LIVE | DOOMED | BUSY | CLEAN) == LIVE;
            (unused && is_meant(word, Some(epoch))).then_some(word | WIPED | BUSY)
        };
        let old = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, end).ok()?;
        Some(Duty { schedule: schedule(old) })
    }

    /// Gives a slot back whose overwriting [`retire`](Self::retire) gave to the caller.
    #[inline]
    pub(crate) fn vacate_retired(&self, epoch: Epoch) {
        // While the slot is busy nobody else changes the word.
        self.0.store(epoch.0.wrapping_add(1).wrapping_mul(EPOCH), Ordering::Release);
    }

    /// How the slot will be overwritten.
    pub(crate) fn schedule(&self) -> Schedule {
        schedule(self.0.load(Ordering::Relaxed))
    }

    /// Whether a secret stands here that nothing has ended.
    pub(crate) fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed) & (LIVE | DOOMED) == LIVE
    }

    /// The duty is done.
    pub(crate) fn cleaned(&self) {
        // One step from busy to clean; the caller is the only one between the two.
        self.0.fetch_xor(BUSY | CLEAN, Ordering::AcqRel);
    }

    /// The duty could not be done: the bytes stand.
    pub(crate) fn failed(&self) {
        self.0.fetch_xor(BUSY | FAILED, Ordering::AcqRel); // as in `cleaned`
    }

    /// Whether accesses run, or bytes of an ended secret stand. Waits for whoever overwrites the slot, which ends by itself.
    pub(crate) fn in_use(&self) -> bool {
        let mut word = self.0.load(Ordering::Acquire);
        while is_under_way(word) {
            std::thread::yield_now();
            word = self.0.load(Ordering::Acquire);
        }
        word & (USERS | FAILED) != 0
    }

    /// Gives a doomed slot back once it is clean. `false`: it could not be overwritten, and stays as it is, for a purge to
    /// try again.
    #[must_use]
    pub(crate) fn vacate(&self) -> bool {
        let mut word = self.0.load(Ordering::Acquire);
        while word & (CLEAN | FAILED) == 0 {
            std::thread::yield_now(); // a deadline or a purge is overwriting it; that ends by itself
            word = self.0.load(Ordering::Acquire);
        }
        let clean = word & CLEAN != 0;
        if clean {
            self.0.store((word / EPOCH).wrapping_add(1).wrapping_mul(EPOCH), Ordering::Release);
        }
        clean
    }
}

fn is_meant(word: u64, epoch: Option<Epoch>) -> bool {
    epoch.is_none_or(|Epoch(epoch)| epoch == word / EPOCH)
}

/// Somebody overwrites the slot, or is the last user on the way out and will.
const fn is_under_way(word: u64) -> bool {
    word & BUSY != 0 || due(word)
}

const fn schedule(word: u64) -> Schedule {
    if word & SIX != 0 { Schedule::SixPass } else { Schedule::Single }
}

/// Doomed, unused, and nobody overwrites it or has tried to.
const fn due(word: u64) -> bool {
    word & DOOMED != 0 && word & (USERS | BUSY | CLEAN | FAILED) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUTY: Option<Duty> = Some(Duty { schedule: Schedule::Single });

    #[test]
    fn the_one_who_dooms_an_unused_slot_overwrites_it() {
        let state = State::default();
        let epoch = state.occupy(Schedule::Single);

        assert_eq!(state.doom(Some(epoch), Doom::Expired), DUTY);
        assert_eq!(state.doom(None, Doom::Purged), None);
        assert_eq!(state.enter(), Err(Doom::Expired));
    }

    #[test]
    fn the_last_user_of_a_doomed_slot_overwrites_it() {
        let state = State::default();
        let _ = state.occupy(Schedule::SixPass);
        state.enter().unwrap();
        state.enter().unwrap();

        assert_eq!(state.doom(None, Doom::Purged), None);
        assert_eq!(state.enter(), Err(Doom::Purged));
        assert_eq!(state.leave(), None);
        assert_eq!(state.leave(), Some(Duty { schedule: Schedule::SixPass }));
    }

    #[test]
    fn a_slot_that_could_not_be_overwritten_is_not_given_back_and_the_next_one_tries_again() {
        let state = State::default();
        let epoch = state.occupy(Schedule::Single);
        assert_eq!(state.doom(Some(epoch), Doom::Expired), DUTY);
        state.failed();

        assert_eq!((state.in_use(), state.vacate(), state.wait(None)), (true, false, false));
        assert_eq!(state.doom(Some(epoch), Doom::Wiped), DUTY);
        assert_eq!((state.doom(None, Doom::Purged), state.enter()), (None, Err(Doom::Expired)));
        state.cleaned();
        assert_eq!((state.in_use(), state.doom(None, Doom::Purged), state.vacate()), (false, None, true));
    }

    #[test]
    fn a_retired_slot_is_ended_and_given_back_in_two_steps() {
        let state = State::default();
        let first = state.occupy(Schedule::SixPass);
        state.enter().unwrap();

        assert_eq!(state.retire(first), None, "an access runs");
        assert_eq!(state.leave(), None);
        assert_eq!(state.retire(first), Some(Duty { schedule: Schedule::SixPass }));
        assert_eq!((state.doom(None, Doom::Purged), state.enter()), (None, Err(Doom::Wiped)));
        state.vacate_retired(first);

        let second = state.occupy(Schedule::Single);
        assert_eq!((state.retire(first), state.retire(second)), (None, DUTY));
    }

    #[test]
    fn a_doomed_slot_is_not_retired() {
        let state = State::default();
        let epoch = state.occupy(Schedule::Single);
        assert_eq!(state.doom(Some(epoch), Doom::Expired), DUTY);

        assert_eq!(state.retire(epoch), None);
    }

    #[test]
    fn a_free_slot_cannot_be_doomed() {
        assert_eq!(State::default().doom(None, Doom::Purged), None);
    }

    #[test]
    fn a_late_deadline_spares_the_next_life_of_the_slot() {
        let state = State::default();
        let first = state.occupy(Schedule::Single);
        assert_eq!(state.doom(None, Doom::Wiped), DUTY);
        state.cleaned();
        assert!(state.vacate());
        let second = state.occupy(Schedule::Single);

        assert_ne!(first, second);
        assert_eq!(state.doom(Some(first), Doom::Expired), None);
        assert_eq!(state.enter(), Ok(()));
    }

    #[test]
    fn the_epoch_wraps_without_touching_the_flags() {
        let state = State(AtomicU64::new(u64::MAX / EPOCH * EPOCH));
        let _ = state.occupy(Schedule::Single);
        assert_eq!(state.doom(None, Doom::Wiped), DUTY);
        state.cleaned();
        assert!(state.vacate());

        assert_eq!(state.0.load(Ordering::Relaxed), 0);
    }
}
