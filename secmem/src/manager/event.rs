//! What happens to buffers, as a typed stream, and as events of `tracing`. Names and numbers; never content.

use std::collections::VecDeque;
#[cfg(feature = "journal")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::id::Id;
use super::pressure::Level;
use crate::arena;
#[cfg(feature = "journal")]
use crate::journal::{self, Action, Amount, Entry, Journal, Name, Subject};

/// Something that happened to a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A buffer was made.
    Allocated {
        /// Its name.
        id: Id,
        /// Its bytes.
        size: usize,
    },
    /// A buffer was wiped because its owner has freed it.
    Deallocated {
        /// Its name.
        id: Id,
    },
    /// A buffer was wiped because its time had come. Nobody has freed it.
    Expired {
        /// Its name.
        id: Id,
    },
    /// A buffer that nobody used was wiped to make room for another one.
    Evicted {
        /// Its name.
        id: Id,
    },
    /// Memory has become scarcer, or less scarce.
    Pressure {
        /// How bad it is now.
        level: Level,
        /// Buffers that live.
        buffers: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// No buffer was made, because of a limit or for want of memory.
    Refused {
        /// Bytes that it would have had.
        size: usize,
    },
    /// An operation was refused, because the token was not the owner's.
    Denied {
        /// The buffer.
        id: Id,
    },
    /// A forced cleanup, or the shutdown, has wiped everything.
    WipedAll {
        /// Buffers that were wiped.
        buffers: usize,
        /// Their bytes.
        bytes: usize,
        /// Whether it was the shutdown.
        shutdown: bool,
    },
}

/// The events from the call of [`Manager::events`](super::Manager::events) on, in their order. Who does not take them in time
/// loses the oldest, and can see how many.
#[derive(Debug)]
pub struct Events<E = Event>(Arc<Channel<E>>);

#[derive(Debug)]
struct Channel<E> {
    room: usize,
    waiting: Mutex<Waiting<E>>,
    more: Condvar,
}

#[derive(Debug)]
struct Waiting<E> {
    events: VecDeque<E>,
    lost: u64,
}

/// An event that is told to `tracing`, too, and to a journal.
pub(crate) trait Traced: Clone {
    /// Tells it; nothing without the feature.
    fn trace(&self);

    /// What a journal is to hold of it, if anything.
    #[cfg(feature = "journal")]
    fn entry(&self) -> Option<Entry>;
}

/// Why an event is not in the journal that it was to be in.
#[cfg(feature = "journal")]
pub(crate) type Unrecorded = journal::Error;
/// Without the feature there is none to be in.
#[cfg(not(feature = "journal"))]
pub(crate) type Unrecorded = std::convert::Infallible;

impl<E> Channel<E> {
    fn lock(&self) -> MutexGuard<'_, Waiting<E>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Events<E> {
    /// The next one, if it has happened.
    #[must_use]
    pub fn take(&self) -> Option<E> {
        if arena::in_child() {
            return None; // the lock may be held by a thread that is not there
        }
        self.0.lock().events.pop_front()
    }

    /// The next one; waits for it, but no longer than `span`.
    #[must_use]
    pub fn wait(&self, span: Duration) -> Option<E> {
        if arena::in_child() {
            return None;
        }
        let end = Instant::now().checked_add(span);
        let mut waiting = self.0.lock();
        loop {
            if let Some(event) = waiting.events.pop_front() {
                return Some(event);
            }
            let left = end.map_or(span, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            waiting = self.0.more.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Events that were lost, because nobody took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        if arena::in_child() { 0 } else { self.0.lock().lost }
    }
}

/// Those who listen.
#[derive(Debug)]
pub(crate) struct Audience<E = Event> {
    /// So many listen: without any, an event costs one load.
    count: AtomicUsize,
    channels: RwLock<Vec<Arc<Channel<E>>>>,
    #[cfg(feature = "journal")]
    journal: OnceLock<Journal>,
}

impl<E> Default for Audience<E> {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            channels: RwLock::default(),
            #[cfg(feature = "journal")]
            journal: OnceLock::new(),
        }
    }
}

impl<E: Traced> Audience<E> {
    pub(crate) fn join(&self, room: usize) -> Events<E> {
        let waiting = Mutex::new(Waiting { events: VecDeque::new(), lost: 0 });
        let channel = Arc::new(Channel { room: room.max(1), waiting, more: Condvar::new() });
        if arena::in_child() {
            return Events(channel); // of what happens in a child nobody is told
        }
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        channels.push(Arc::clone(&channel));
        self.forget_those_who_left(&mut channels);
        Events(channel)
    }

    /// Tells what has happened. If it cannot be written, the journal counts it, and whoever listens is told all the same.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> E) {
        if self.nobody_listens() {
            return;
        }
        let event = event();
        let _ = self.write(&event);
        self.spread(&event);
    }

    /// Tells what is about to be handed out; where that cannot be written, it must not be, and nobody is told.
    #[cfg(feature = "records")]
    pub(crate) fn record(&self, event: impl FnOnce() -> E) -> Result<(), Unrecorded> {
        if self.nobody_listens() {
            return Ok(());
        }
        let event = event();
        self.write(&event)?;
        self.spread(&event);
        Ok(())
    }

    #[cfg(feature = "journal")]
    fn write(&self, event: &E) -> Result<(), Unrecorded> {
        let entry = self.journal.get().zip(event.entry());
        entry.map_or(Ok(()), |(journal, entry)| journal.append(&entry).map(drop))
    }

    #[cfg(not(feature = "journal"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "there is no journal")]
    fn write(&self, _: &E) -> Result<(), Unrecorded> {
        Ok(())
    }

    /// [`tell`](Self::tell), from the thread that wipes secrets at their time: it does not wait for a disk.
    #[cfg(feature = "records")]
    pub(crate) fn tell_late(&self, event: impl FnOnce() -> E) {
        if self.nobody_listens() {
            return;
        }
        let event = event();
        #[cfg(feature = "journal")]
        if let Some((journal, entry)) = self.journal.get().zip(event.entry()) {
            journal.append_late(entry);
        }
        self.spread(&event);
    }

    /// Writes events to `journal` from now on.
    #[cfg(feature = "journal")]
    pub(crate) fn record_in(&self, journal: &Journal) -> Result<(), journal::Error> {
        self.journal.set(journal.clone()).map_err(|_| journal::Error::Attached)
    }

    /// Whether there is nothing to tell, or nobody who could: a forked child's locks may be held by threads that are not there.
    #[inline]
    fn nobody_listens(&self) -> bool {
        if arena::in_child() {
            return true;
        }
        #[cfg(feature = "journal")]
        if self.journal.get().is_some() {
            return false;
        }
        cfg!(not(feature = "tracing")) && self.count.load(Ordering::Acquire) == 0
    }

    fn spread(&self, event: &E) {
        event.trace();
        let mut have_left = false;
        for channel in &*self.channels.read().unwrap_or_else(PoisonError::into_inner) {
            if Arc::strong_count(channel) == 1 {
                have_left = true;
                continue;
            }
            let mut waiting = channel.lock();
            if waiting.events.len() == channel.room {
                waiting.events.pop_front();
                waiting.lost += 1;
            }
            waiting.events.push_back(event.clone());
            channel.more.notify_one();
        }
        if have_left {
            self.forget_those_who_left(&mut self.channels.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn forget_those_who_left(&self, channels: &mut Vec<Arc<Channel<E>>>) {
        channels.retain(|channel| Arc::strong_count(channel) > 1);
        self.count.store(channels.len(), Ordering::Release);
    }
}

impl Traced for Event {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        const TARGET: &str = "secmem::manager";
        match self {
            Self::Allocated { id, size } => tracing::debug!(target: TARGET, %id, size, "a buffer was allocated"),
            Self::Deallocated { id } => tracing::debug!(target: TARGET, %id, "a buffer was deallocated"),
            Self::Expired { id } => tracing::info!(target: TARGET, %id, "a buffer has expired"),
            Self::Evicted { id } => tracing::warn!(target: TARGET, %id, "a buffer was wiped to make room"),
            Self::Pressure { level, buffers, bytes } => {
                tracing::warn!(target: TARGET, ?level, buffers, bytes, "the pressure of memory has changed");
            }
            Self::Refused { size } => tracing::warn!(target: TARGET, size, "no buffer was made"),
            Self::Denied { id } => tracing::warn!(target: TARGET, %id, "a token was not the owner's"),
            Self::WipedAll { buffers, bytes, shutdown } => {
                tracing::warn!(target: TARGET, buffers, bytes, shutdown, "every buffer was wiped");
            }
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn trace(&self) {}

    /// What was refused, and what was wiped without its owner: not what owners do all the time.
    #[cfg(feature = "journal")]
    fn entry(&self) -> Option<Entry> {
        const DENIED: Name = Name::ours("denied");
        const REFUSED: Name = Name::ours("refused");
        let buffer = |id: &Id| Some(Subject::Buffer(id.into()));
        Some(match self {
            Self::Denied { id } => Entry::failed(Action::Reach, buffer(id), DENIED),
            Self::Refused { size } => {
                Entry::failed(Action::Allocate, None, REFUSED).amount(Amount::Bytes(*size as u64))
            }
            Self::Evicted { id } => Entry::done(Action::Evict, buffer(id)),
            Self::WipedAll { buffers, shutdown, .. } => {
                let action = if *shutdown { Action::Shutdown } else { Action::Wipe };
                Entry::done(action, None).amount(Amount::Buffers(*buffers as u64))
            }
            Self::Allocated { .. } | Self::Deallocated { .. } | Self::Expired { .. } | Self::Pressure { .. } => {
                return None;
            }
        })
    }
}
