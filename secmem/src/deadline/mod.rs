//! Ending secrets at their time, by one thread that sleeps until the earliest.
//!
//! The thread starts with the first deadline and is woken by an earlier one; there is no interval of sweeps. Nobody
//! needs to touch the secret for it to end. An access that runs at the deadline is left to its end.
//!
//! An idle time-out moves with each access, and the queue does not follow: an access notes its time in an atomic, and
//! when the old time comes, the entry is put back at the new one.
//!
//! Time is that of [`Instant`](std::time::Instant): steady, and on Linux without the time that the machine is suspended. A [`TestClock`] has a time, and
//! a queue, of its own.

mod queue;

use std::fmt::Debug;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::arena::{Doom, Ticket, doom_all, in_child};
use crate::error::Error;
use crate::sys;
use queue::{Entry, Key, Queue};

/// Time since the clock's beginning.
pub(crate) type Time = Duration;

/// Hears of secrets that their time has ended. Called without a lock of this module held, after they were wiped.
pub(crate) trait Listener: Debug + Send + Sync + UnwindSafe + RefUnwindSafe {
    /// Its time has ended it.
    fn expired(&self);
}

/// Who is told of an end by time.
pub(crate) type Told = Box<dyn Listener>;

/// What ends a secret by time. Shared by the secret and the queue.
#[derive(Debug)]
pub(crate) struct Terms {
    clock: Clock,
    ends: Option<Time>,
    idle: Option<Duration>,
    told: Option<Told>,
    /// Nanoseconds: when an access last began or ended.
    used: AtomicU64,
    /// Accesses that run.
    running: AtomicU64,
}

impl Terms {
    /// For what is made at `now`.
    pub(crate) fn new(
        clock: Clock,
        now: Time,
        span: Option<Duration>,
        idle: Option<Duration>,
        told: Option<Told>,
    ) -> Self {
        let ends = span.and_then(|span| now.checked_add(span));
        Self { clock, ends, idle, told, used: AtomicU64::new(nanos(now)), running: AtomicU64::new(0) }
    }

    /// When it is over, as things stand; `None` for never.
    #[inline]
    fn due(&self, now: Time) -> Option<Time> {
        let used = if self.running.load(Ordering::SeqCst) > 0 {
            now
        } else {
            Duration::from_nanos(self.used.load(Ordering::SeqCst))
        };
        let idle = self.idle.and_then(|idle| used.checked_add(idle));
        let due = self.ends.into_iter().chain(idle).min();
        if cfg!(secmem_ablate = "manager-sweep") && self.idle.is_some() && self.told.is_some() {
            // A manager's buffer, and somebody comes by every 30 seconds.
            return due.map(|due| Duration::from_secs(30 * due.as_secs().saturating_add(1).div_ceil(30)));
        }
        due
    }

    /// Whether the time has come, whatever anybody has done about it.
    pub(crate) fn has_passed(&self) -> bool {
        self.has_passed_at(self.clock.now())
    }

    /// The same for one who knows what time it is.
    #[inline]
    pub(crate) fn has_passed_at(&self, now: Time) -> bool {
        self.due(now).is_some_and(|due| due <= now)
    }

    /// An access begins, one of several perhaps.
    #[inline]
    pub(crate) fn begin(&self, alone: Alone) {
        match alone {
            _ if self.idle.is_none() => {}
            Alone(true) => self.running.store(1, Ordering::Release),
            Alone(false) => _ = self.running.fetch_add(1, Ordering::SeqCst),
        }
    }

    /// An access ends. Who sees that it does not run any more sees when it ended.
    #[inline]
    pub(crate) fn end(&self, alone: Alone) {
        if self.idle.is_none() {
            return;
        }
        let now = nanos(self.clock.now());
        if alone.0 {
            self.used.store(self.used.load(Ordering::Relaxed).max(now), Ordering::Release);
            self.running.store(0, Ordering::Release);
        } else {
            self.used.fetch_max(now, Ordering::SeqCst);
            self.running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether whoever accesses a secret has it alone (`&mut`), so that no step of another access can come between its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone(pub(crate) bool);

#[inline]
fn nanos(time: Time) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) // 584 years
}

/// How many are taken out at once: so many that a lock, and the opening of closed memory, are shared by many; so few that the
/// first is overwritten before the last is looked at.
const BATCH: usize = 1024;

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
static EARLIER: Condvar = Condvar::new();

/// Whose time counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    Test(TestClock),
}

impl Clock {
    #[inline]
    pub(crate) fn now(self) -> Time {
        match self {
            Self::System => sys::steady_time(),
            Self::Test(TestClock(clock)) => Duration::from_nanos(clock.now.load(Ordering::SeqCst)),
        }
    }

    fn queue(self) -> MutexGuard<'static, Queue> {
        let queue = match self {
            Self::System => &QUEUE,
            Self::Test(TestClock(clock)) => &clock.queue,
        };
        // Nothing is half done where the lock is held and something could panic.
        queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that stands still until a test moves it, for [`Options::clock`](crate::Options::clock).
///
/// ```
/// use std::time::Duration;
/// use secmem::{Error, Secret, TestClock};
///
/// let clock = TestClock::new();
/// let secret = Secret::options().clock(clock).expires_in(Duration::from_secs(3600)).zeroed(32)?;
/// clock.advance(Duration::from_secs(3599));
/// assert!(secret.with(|_| ()).is_ok());
/// clock.advance(Duration::from_secs(1)); // ends the secret before it returns
/// assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TestClock(&'static Test);

#[derive(Debug)]
struct Test {
    now: AtomicU64,
    queue: Mutex<Queue>,
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl TestClock {
    /// A clock at its beginning. It lives as long as the process.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::leak(Box::new(Test { now: AtomicU64::new(0), queue: Mutex::new(Queue::new()) })))
    }

    /// Moves it on, and ends what is over by then, before this returns.
    pub fn advance(self, span: Duration) {
        let later = |now: u64| Some(now.saturating_add(nanos(span)));
        let _ = self.0.now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later); // always some
        let clock = Clock::Test(self);
        let mut over = Vec::new();
        loop {
            let due = clock.queue().take_due(clock.now(), &mut over);
            if due.is_empty() {
                break;
            }
            doom_all(&due, Doom::Expired);
        }
        tell(&mut over);
    }
}

#[cfg(all(test, feature = "manager", target_arch = "x86_64"))]
impl TestClock {
    /// Moves it on as if the thread that ends what is over were late.
    pub(crate) fn pass(self, span: Duration) {
        self.0.now.fetch_add(nanos(span), Ordering::SeqCst);
    }
}

/// A deadline that stands. Dropping it calls it off.
#[derive(Debug)]
pub(crate) struct Deadline {
    key: Key,
    clock: Clock,
}

impl Deadline {
    /// Lets the ticket's slot end as `terms` say, which were made at `now`; `None` if that is never.
    pub(crate) fn set(terms: &Arc<Terms>, now: Time, ticket: Ticket) -> Result<Option<Self>, Error> {
        let clock = terms.clock;
        let Some(at) = terms.due(now) else { return Ok(None) };
        let mut queue = clock.queue();
        if matches!(clock, Clock::System) && !queue.watched {
            start().map_err(|source| Error::Watch { source })?;
            queue.watched = true;
        }
        let (key, is_first) = queue.insert(Entry { at, ticket, terms: Arc::clone(terms) });
        // It may be the first after one that was called off: the thread wakes in time for it then.
        if is_first && queue.asleep_until.is_none_or(|until| at < until) {
            EARLIER.notify_one();
        }
        Ok(Some(Self { key, clock }))
    }

    /// Lets another slot end at that time in place of the first; says whether there was still time for it.
    pub(crate) fn move_to(&self, ticket: Ticket) -> bool {
        let mut queue = self.clock.queue();
        queue.get_mut(self.key).map(|entry| entry.ticket = ticket).is_some()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if !in_child() {
            let called_off = self.clock.queue().remove(self.key);
            drop(called_off); // when nobody waits for the lock any more
        }
    }
}

fn start() -> io::Result<()> {
    sys::quiet_thread("secmem-deadline", watch)?;
    while watcher().is_none() {
        std::thread::yield_now(); // who counts threads has to know this one
    }
    Ok(())
}

/// Tells those who want to know that these are over.
fn tell(over: &mut Vec<Arc<Terms>>) {
    for terms in over.drain(..) {
        if let Some(listener) = &terms.told {
            // Who is told may pass it on to code of the program's. A panic of that is its own: this thread has others to wipe.
            let _ = catch_unwind(|| listener.expired());
        }
    }
}

fn watch() {
    WATCHER.store(sys::thread_number(), Ordering::Release);
    let clock = Clock::System;
    let mut over = Vec::new();
    let mut queue = clock.queue();
    loop {
        // Whoever is told takes time: not while another secret is due.
        if !over.is_empty() && queue.first().is_none_or(|at| at > clock.now()) {
            drop(queue);
            tell(&mut over);
            queue = clock.queue();
        }
        queue.asleep_until = queue.first();
        let Some(at) = queue.first() else {
            queue = EARLIER.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = at.saturating_sub(clock.now());
        if !left.is_zero() {
            queue = EARLIER.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let known = over.len();
        let due = queue.take_due(clock.now(), &mut over);
        drop(queue); // overwriting takes time, and needs no lock
        if cfg!(secmem_ablate = "deadline") {
            over.truncate(known);
        } else {
            end(due);
        }
        queue = clock.queue();
    }
}

/// Bytes to overwrite, each pass counted, from which on they must not keep the next secret waiting: some milliseconds of it.
const LONG: usize = 4 << 20;

/// Overwrites what is due: what is soon done first, and what would keep it waiting beside that.
fn end(due: Vec<Ticket>) {
    let mut parts = parts(due, Ticket::work).into_iter();
    let first = parts.next().unwrap_or_default();
    for part in parts {
        let part = Arc::new(part);
        let now = {
            let part = Arc::clone(&part);
            move || doom_all(&part, Doom::Expired)
        };
        if sys::quiet_thread("secmem-wipe", now).is_err() {
            doom_all(&part, Doom::Expired);
        }
    }
    doom_all(&first, Doom::Expired);
}

/// In parts of no more than [`LONG`] together, but for what is longer by itself; the first holds what is shortest.
fn parts<T>(mut due: Vec<T>, work: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    due.sort_by_key(&work);
    let mut parts = vec![Vec::new()];
    let mut sum = 0_usize;
    for one in due {
        let its = work(&one);
        sum = sum.saturating_add(its);
        if sum > LONG {
            parts.push(Vec::new());
            sum = its;
        }
        parts.last_mut().expect("one at least").push(one);
    }
    parts
}

/// The thread that watches, once it has begun. It never ends.
static WATCHER: AtomicI32 = AtomicI32::new(0);

/// The kernel's number of the thread that watches, which never looks at the environment, if there is one.
pub(crate) fn watcher() -> Option<i32> {
    Some(WATCHER.load(Ordering::Acquire)).filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::sys::{Call, seam};

    #[test]
    fn many_that_are_due_together_open_their_memory_together() {
        let clock = TestClock::new();
        let options = Secret::options().clock(clock).expires_in(Duration::from_secs(1));
        let secrets: Vec<_> = (0..500).map(|_| options.sealed(32).unwrap()).collect();
        let before = seam::calls(Call::Access);

        clock.advance(Duration::from_secs(1));

        let calls = seam::calls(Call::Access) - before;
        assert!(secrets.iter().all(|it| matches!(it.with(|_| ()), Err(Error::Expired))));
        // Twice an arena. Other tests have some there too, so theirs and ours may lie in a few.
        assert!((2..=20).contains(&calls), "{calls}");
    }

    #[test]
    fn what_takes_long_together_is_done_beside_the_rest() {
        let all = vec![LONG - 1, 1, LONG, 7, 9 * LONG, LONG / 2, LONG / 2];

        let parts = parts(all, |len| *len);

        let half = LONG / 2;
        assert_eq!(parts, [vec![1, 7, half], vec![half], vec![LONG - 1], vec![LONG], vec![9 * LONG]]);
        assert_eq!(super::parts(Vec::<usize>::new(), |len| *len), [Vec::<usize>::new()]);
    }

    #[test]
    fn a_thread_that_would_take_signals_is_not_started() {
        seam::fail_next(Call::Mask, libc::EINVAL);

        let error = start().unwrap_err();

        assert_eq!((error.raw_os_error(), seam::left()), (Some(libc::EINVAL), 0));
    }
}
