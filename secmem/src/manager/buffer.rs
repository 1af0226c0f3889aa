//! One buffer: a slot of an arena, how much of it is data, and who is within.
//!
//! Logical length and capacity are two things, and behind the data there are always zeros. Readers share a buffer, a writer has
//! it alone. A thread waits for others only where it is within no buffer itself: so no two can wait for each other.

use std::cell::Cell;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak};
use std::time::Duration;

use super::error::Error;
use super::id::{Id, Token};
use super::{Ended, Store};
use crate::arena::{Doom, Ticket};
use crate::deadline::{Clock, Listener, Time};
use crate::secret::{Options, Secret};
use crate::wipe;

/// Hears that time has ended a buffer.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) store: Weak<Store>,
    pub(super) id: Id,
    /// The buffer's.
    pub(super) number: u64,
}

impl Listener for Ear {
    fn expired(&self) {
        if let Some(store) = self.store.upgrade() {
            store.end(&self.id, |buffer| buffer.number == self.number, Ended::Expired);
        }
    }
}

#[derive(Debug)]
pub(super) struct Buffer {
    id: Id,
    /// No other buffer of the manager has it, also none of the same name.
    number: u64,
    owner: Token,
    pub(super) place: u32,
    pub(super) capacity: usize,
    clock: Clock,
    made: Time,
    /// Nanoseconds: when it was used last.
    used: AtomicU64,
    uses: AtomicU64,
    /// Bytes of data. Changes while a writer has the secret.
    len: AtomicUsize,
    /// Reads that run.
    readers: AtomicU32,
    /// Why the manager has ended it, under a running access perhaps; 0 while it has not.
    ended: AtomicU8,
    ticket: Ticket,
    secret: RwLock<Secret>,
}

thread_local! {
    /// Buffers that this thread is within.
    static WITHIN: Cell<usize> = const { Cell::new(0) };
}

struct Within;

impl Within {
    #[inline]
    fn begin() -> Self {
        WITHIN.set(WITHIN.get() + 1);
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(WITHIN.get() - 1);
    }
}

/// A read that runs.
struct Reads<'a>(&'a AtomicU32);

impl<'a> Reads<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Reads<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Data that is being written: wiped if it is not brought to an end.
struct Unfinished<'a>(&'a mut [u8]);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        wipe::wipe(self.0);
    }
}

impl Buffer {
    /// A buffer of `capacity` bytes without data.
    pub(super) fn new(
        ear: Ear,
        owner: &Token,
        options: Options,
        clock: Clock,
        (place, capacity): (u32, usize),
    ) -> Result<Self, Error> {
        let made = clock.now();
        let (id, number) = (ear.id.clone(), ear.number);
        let secret = options.watched(capacity, made, Box::new(ear))?;
        Ok(Self {
            id,
            number,
            owner: owner.clone(),
            place,
            capacity,
            clock,
            made,
            used: AtomicU64::new(made.as_nanos() as u64),
            uses: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            readers: AtomicU32::new(0),
            ended: AtomicU8::new(0),
            ticket: secret.slot.ticket(),
            secret: RwLock::new(secret),
        })
    }

    #[inline]
    pub(super) fn id(&self) -> &Id {
        &self.id
    }

    pub(super) fn made(&self) -> Time {
        self.made
    }

    #[inline]
    pub(super) fn is_of(&self, owner: &Token) -> bool {
        self.owner.is(owner)
    }

    /// Lets `f` read the slot and know how much of it is data.
    pub(super) fn read<R>(&self, f: impl FnOnce(&[u8], usize) -> R) -> Result<R, Error> {
        let secret = self.shared()?;
        let _within = Within::begin();
        self.look(&secret, f)
    }

    /// Lets `f` read the slots of two buffers, and know how much of them is data. An error of the other one is the inner one.
    ///
    /// Both are locked before either is read, the one that stands first in memory first, so that who waits for the second keeps
    /// nobody waiting for the first for ever.
    pub(super) fn read_with<R>(
        &self,
        other: &Self,
        f: impl FnOnce((&[u8], usize), (&[u8], usize)) -> R,
    ) -> Result<Result<R, Error>, Error> {
        let (here, there) = (std::ptr::from_ref(self).addr(), std::ptr::from_ref(other).addr());
        if here == there {
            return self.read(|slot, len| Ok(f((slot, len), (slot, len))));
        }
        let (mine, theirs) = if here < there {
            let mine = self.shared()?;
            (mine, other.shared()?)
        } else {
            let theirs = other.shared()?;
            (self.shared()?, theirs)
        };
        let _within = Within::begin();
        self.look(&mine, |slot, len| other.look(&theirs, |other, other_len| f((slot, len), (other, other_len))))
    }

    fn look<R>(&self, secret: &Secret, f: impl FnOnce(&[u8], usize) -> R) -> Result<R, Error> {
        let _reads = Reads::begin(&self.readers);
        let now = self.touch();
        secret.with_at(now, |slot| f(slot, self.len.load(Ordering::Acquire))).map_err(|error| self.why(error))
    }

    /// Lets `fill` write `len` bytes of new data in place; behind them there are zeros afterwards. If it fails or panics, the
    /// buffer has no data any more.
    pub(super) fn write<R, E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<R, E>,
    ) -> Result<Result<R, E>, Error> {
        if len > self.capacity {
            return Err(Error::Capacity { len, capacity: self.capacity });
        }
        let mut secret = self.alone()?;
        let _within = Within::begin();
        let now = self.touch_alone();
        let written = secret.with_mut_at(now, |slot| {
            let before = self.len.load(Ordering::Acquire);
            self.len.store(0, Ordering::Release); // who has the secret alone is the one who changes it
            let slot = Unfinished(slot);
            let result = fill(&mut slot.0[..len])?;
            wipe::wipe(&mut slot.0[len..before.max(len)]);
            self.len.store(len, Ordering::Release);
            std::mem::forget(slot);
            Ok(result)
        });
        written.map_err(|error| self.why(error))
    }

    /// Ends it: now if nobody is within, else when the last one leaves.
    pub(super) fn end(&self, why: Ended) {
        // The first reason stays.
        let _ = self.ended.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire);
        // In a child there is nothing to end; without random bytes zeros stand there all the same.
        let _ = self.ticket.doom(if why == Ended::Expired { Doom::Expired } else { Doom::Wiped });
    }

    /// Whether time has ended it and nobody has heard yet.
    pub(super) fn is_over(&self) -> bool {
        self.secret.try_read().is_ok_and(|secret| secret.is_over())
    }

    /// Whether a purge has ended it.
    pub(super) fn is_purged(&self) -> bool {
        self.secret.try_read().is_ok_and(|secret| matches!(secret.look(|_| ()), Err(crate::Error::Purged)))
    }

    /// When it was used last; `None` while somebody is within. The look keeps nobody out.
    pub(super) fn rests_since(&self) -> Option<u64> {
        let is_read = self.readers.load(Ordering::Acquire) > 0;
        self.secret.try_read().ok().filter(|_| !is_read).map(|_| self.used.load(Ordering::Relaxed))
    }

    /// A copy of what there is to know about it.
    pub(super) fn info(&self) -> Info {
        let now = self.clock.now();
        Info {
            id: self.id().clone(),
            capacity: self.capacity,
            len: self.len.load(Ordering::Acquire),
            age: now.saturating_sub(self.made),
            idle: now.saturating_sub(Duration::from_nanos(self.used.load(Ordering::Relaxed))),
            uses: self.uses.load(Ordering::Relaxed),
        }
    }

    /// Notes a use by one of those who share it; says when that is.
    #[inline]
    fn touch(&self) -> Time {
        let now = self.clock.now();
        self.used.fetch_max(now.as_nanos() as u64, Ordering::Relaxed);
        self.uses.fetch_add(1, Ordering::Relaxed);
        now
    }

    /// The same for one who has it alone, and so needs no step that others cannot come between.
    #[inline]
    fn touch_alone(&self) -> Time {
        let now = self.clock.now();
        let used = self.used.load(Ordering::Relaxed).max(now.as_nanos() as u64);
        self.used.store(used, Ordering::Relaxed);
        self.uses.store(self.uses.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        now
    }

    /// What a refused access means for one who knows why the buffer was ended.
    fn why(&self, error: crate::Error) -> Error {
        match (Ended::of(self.ended.load(Ordering::Acquire)), error) {
            (Some(ended), crate::Error::Wiped) => ended.into(),
            (_, error) => error.into(),
        }
    }

    #[inline]
    fn shared(&self) -> Result<RwLockReadGuard<'_, Secret>, Error> {
        if WITHIN.get() == 0 {
            // A panic within an access leaves no half data: see `write`.
            return Ok(self.secret.read().unwrap_or_else(|poison| poison.into_inner()));
        }
        match self.secret.try_read() {
            Ok(secret) => Ok(secret),
            Err(TryLockError::Poisoned(poison)) => Ok(poison.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
        }
    }

    #[inline]
    fn alone(&self) -> Result<RwLockWriteGuard<'_, Secret>, Error> {
        if WITHIN.get() == 0 {
            return Ok(self.secret.write().unwrap_or_else(|poison| poison.into_inner()));
        }
        match self.secret.try_write() {
            Ok(secret) => Ok(secret),
            Err(TryLockError::Poisoned(poison)) => Ok(poison.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
        }
    }
}

/// What there is to know about a buffer, as it was when it was asked for: a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Its name.
    pub id: Id,
    /// Bytes that it can hold.
    pub capacity: usize,
    /// Bytes that it holds.
    pub len: usize,
    /// Time since it was made.
    pub age: Duration,
    /// Time since it was used last.
    pub idle: Duration,
    /// Reads and writes so far.
    pub uses: u64,
}

/// `range` of data of `len` bytes.
pub(super) fn within(range: impl RangeBounds<usize>, len: usize) -> Result<Range<usize>, Error> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    if start <= end && end <= len { Ok(start..end) } else { Err(Error::Bounds { start, end, len }) }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Manager};
    use super::*;
    use crate::TestClock;

    #[test]
    fn an_access_ahead_of_the_thread_of_the_deadlines_revives_nothing() {
        let clock = TestClock::new();
        let manager = Manager::new(Config::default().clock(clock).timeout(Duration::from_secs(5))).unwrap();
        let owner = manager.owner().unwrap();
        let ids = [(); 2].map(|()| manager.allocate(&owner, 8, None).unwrap());
        clock.pass(Duration::from_secs(4));
        ids.iter().for_each(|id| manager.write(&owner, id, &mut [7]).unwrap());

        clock.pass(Duration::from_secs(5));

        for _ in 0..2 {
            assert!(matches!(manager.read(&owner, &ids[0], .., |_| ()), Err(Error::Expired)));
            assert!(matches!(manager.write(&owner, &ids[1], &mut [7]), Err(Error::Expired)));
        }
        assert_eq!((manager.statistics().live, manager.statistics().expired), (0, 2));
    }
}
