//! Ending secrets at their deadline, by one thread that sleeps until the earliest.
//!
//! The thread starts with the first deadline and is woken by an earlier one; there is no interval of sweeps. Nobody
//! needs to touch the secret for it to end. An access that runs at the deadline is left to its end.
//!
//! Time is [`Instant`]'s: steady, and on Linux without the time that the machine is suspended.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arena::{Doom, Ticket, in_child};
use crate::error::Error;
use crate::sys;

/// When, and the how-manieth deadline: unique, and in the order of time.
type Key = (Instant, u64);

#[derive(Debug)]
struct Queue {
    tickets: BTreeMap<Key, Ticket>,
    count: u64,
    watched: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { tickets: BTreeMap::new(), count: 0, watched: false });
static EARLIER: Condvar = Condvar::new();

/// A deadline that stands. Dropping it calls it off.
#[derive(Debug)]
pub(crate) struct Deadline(Key);

impl Deadline {
    /// Lets the ticket's slot end after `span`; never, if that is further away than the clock can count.
    pub(crate) fn set(span: Duration, ticket: Ticket) -> Result<Option<Self>, Error> {
        let Some(at) = Instant::now().checked_add(span) else { return Ok(None) };
        let mut queue = lock();
        if !queue.watched {
            start().map_err(|source| Error::Watch { source })?;
            queue.watched = true;
        }
        queue.count += 1;
        let key = (at, queue.count);
        queue.tickets.insert(key, ticket);
        if queue.tickets.first_key_value().is_some_and(|(first, _)| *first == key) {
            EARLIER.notify_one();
        }
        Ok(Some(Self(key)))
    }

    /// Whether the time has come, whatever the thread has done about it.
    pub(crate) fn has_passed(&self) -> bool {
        self.0.0 <= Instant::now()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if !in_child() {
            lock().tickets.remove(&self.0);
        }
    }
}

fn lock() -> MutexGuard<'static, Queue> {
    // Nothing is half done where the lock is held and something could panic.
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread with all signals blocked: those of the application are for its own threads.
///
/// A thread begins with the mask of the one that starts it, so there is no moment at which it could take one.
fn start() -> io::Result<()> {
    let before = sys::block_signals()?;
    let started = thread::Builder::new().name("secmem-deadline".to_owned()).spawn(watch);
    let restored = sys::set_mask(&before);
    started?;
    restored.map(drop)
}

fn watch() {
    let mut queue = lock();
    loop {
        let Some(&(at, _)) = queue.tickets.keys().next() else {
            queue = EARLIER.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            queue = EARLIER.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let due = queue.tickets.pop_first();
        drop(queue); // overwriting takes time, and needs no lock
        if let Some((_, ticket)) = due
            && !cfg!(secmem_ablate = "deadline")
        {
            // Without random bytes the other passes were made and zeros stand there; a thread has nobody to tell.
            let _ = ticket.doom(Doom::Expired);
        }
        queue = lock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Call, seam};

    #[test]
    fn a_thread_that_would_take_signals_is_not_started() {
        seam::fail_next(Call::Mask, libc::EINVAL);

        let error = start().unwrap_err();

        assert_eq!((error.raw_os_error(), seam::left()), (Some(libc::EINVAL), 0));
    }
}
