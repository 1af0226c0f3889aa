//! Who lives: a place for each buffer that may, and the counts. Read without a lock, so that nobody who looks keeps anybody
//! waiting.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::Error;
use crate::deadline::Time;

/// Places, of which each has the time at which its buffer was made.
#[derive(Debug)]
pub(super) struct Roll {
    /// Nanoseconds and one; 0 while no buffer has the place.
    made: Box<[AtomicU64]>,
    free: Mutex<Vec<u32>>,
    most_bytes: usize,
    /// Changes while `free` is locked.
    bytes: AtomicUsize,
    counts: [AtomicU64; COUNTS],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Allocated,
    Deallocated,
    Expired,
    Forced,
    Purged,
    Leftover,
    Denied,
    Refused,
    Evicted,
}

const COUNTS: usize = 9;

impl Roll {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let places = u32::try_from(most).unwrap_or(u32::MAX);
        Self {
            made: (0..places).map(|_| AtomicU64::new(0)).collect(),
            free: Mutex::new((0..places).rev().collect()),
            most_bytes,
            bytes: AtomicUsize::new(0),
            counts: Default::default(),
        }
    }

    pub(super) fn most(&self) -> usize {
        self.made.len()
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place and the bytes of a buffer that is to be made; says how many places are taken then.
    #[inline]
    pub(super) fn enter(&self, bytes: usize) -> Result<(u32, usize), Error> {
        let mut free = self.free();
        let sum = self.bytes.load(Ordering::Acquire).checked_add(bytes).filter(|sum| *sum <= self.most_bytes);
        let sum = sum.ok_or(Error::Quota { len: bytes, most: self.most_bytes })?;
        let place = free.pop().ok_or(Error::TooMany { most: self.most() })?;
        self.bytes.store(sum, Ordering::Release);
        Ok((place, self.most() - free.len()))
    }

    /// The buffer lives.
    #[inline]
    pub(super) fn begin(&self, place: u32, made: Time) {
        let nanos = u64::try_from(made.as_nanos()).unwrap_or(u64::MAX - 1);
        self.made[place as usize].store(nanos + 1, Ordering::Release);
    }

    /// The buffer is gone, and is counted, or was not made.
    #[inline]
    pub(super) fn leave(&self, place: u32, bytes: usize, counts: Option<Count>) {
        self.made[place as usize].store(0, Ordering::Release);
        let mut free = self.free();
        self.bytes.store(self.bytes.load(Ordering::Acquire) - bytes, Ordering::Release);
        free.push(place);
        if let Some(counts) = counts {
            let count = &self.counts[counts as usize]; // of the ways to end, which are counted here alone
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many have lived, at `now`, for less than each span and not for less than the one before, and how many for longer.
    pub(super) fn ages(&self, now: Time, spans: &[Duration]) -> Vec<usize> {
        let mut counts = vec![0; spans.len() + 1];
        for made in &self.made {
            let Some(made) = made.load(Ordering::Acquire).checked_sub(1) else { continue };
            let age = now.saturating_sub(Duration::from_nanos(made));
            counts[spans.partition_point(|span| *span <= age)] += 1;
        }
        counts
    }

    /// As things stand at `now`.
    pub(super) fn statistics(&self, now: Time) -> Statistics {
        let now_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (mut live, mut sum, mut oldest, mut newest) = (0, 0_u128, None, None);
        for made in &self.made {
            let Some(made) = made.load(Ordering::Acquire).checked_sub(1) else { continue };
            let age = now_nanos.saturating_sub(made);
            live += 1;
            sum += u128::from(age);
            oldest = oldest.max(Some(age));
            newest = Some(newest.map_or(age, |newest: u64| newest.min(age)));
        }
        let count = |what: Count| self.counts[what as usize].load(Ordering::Relaxed);
        let average = sum.checked_div(live as u128).map(|nanos| Duration::from_nanos(nanos as u64));
        Statistics {
            live,
            most: self.most(),
            bytes: self.bytes.load(Ordering::Acquire),
            oldest: oldest.map(Duration::from_nanos),
            newest: newest.map(Duration::from_nanos),
            average_age: average,
            allocated: count(Count::Allocated),
            deallocated: count(Count::Deallocated),
            expired: count(Count::Expired),
            forced: count(Count::Forced),
            purged: count(Count::Purged),
            leftover: count(Count::Leftover),
            evicted: count(Count::Evicted),
            denied: count(Count::Denied),
            refused: count(Count::Refused),
        }
    }
}

/// How a manager stands. Numbers alone; what happens while they are read may be in one and not yet in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Buffers that live.
    pub live: usize,
    /// Buffers that may.
    pub most: usize,
    /// Bytes of those that live: their capacity.
    pub bytes: usize,
    /// Age of the oldest; `None` where there is none.
    pub oldest: Option<Duration>,
    /// Age of the newest.
    pub newest: Option<Duration>,
    /// The average of all ages.
    pub average_age: Option<Duration>,
    /// Buffers made so far.
    pub allocated: u64,
    /// Buffers that their owners have freed.
    pub deallocated: u64,
    /// Buffers that time has ended.
    pub expired: u64,
    /// Buffers that a forced cleanup has ended.
    pub forced: u64,
    /// Buffers that a purge of the whole process has ended.
    pub purged: u64,
    /// Buffers that lived yet at the shutdown.
    pub leftover: u64,
    /// Buffers that were wiped to make room for others.
    pub evicted: u64,
    /// Operations that were refused because the token was another's.
    pub denied: u64,
    /// Buffers that were not made, because of a limit or because the kernel gave no memory.
    pub refused: u64,
}

impl Statistics {
    /// Buffers that ended without their owners freeing them.
    #[must_use]
    pub fn never_freed(&self) -> u64 {
        self.expired + self.forced + self.purged + self.leftover + self.evicted
    }

    /// The share of the places that is taken, from 0 to 1.
    #[must_use]
    pub fn fullness(&self) -> f64 {
        self.live as f64 / self.most as f64
    }
}
