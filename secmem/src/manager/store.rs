//! Which buffers there are: by name, with their ends. The manager's operations are in `mod`, one buffer's in `buffer`.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::buffer::{Buffer, Ear};
use super::config::Config;
use super::error::Error;
use super::event::{Audience, Event};
use super::id::{Id, Token};
use super::pressure::{self, Gone, Level, Pressure, WhenFull};
use super::roll::{Count, Roll};
use crate::arena;
use crate::error::Error as MemoryError;
use crate::secret::Options;

/// Parts of the store, each under a lock of its own.
const SHARDS: usize = 16;

/// How a buffer has ended, other than by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Freed,
    Expired,
    Forced,
    Purged,
    Evicted,
    Shutdown,
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Freed => Self::Unknown,
            Ended::Expired => Self::Expired,
            Ended::Forced => Self::CleanedUp,
            Ended::Purged => Self::Purged,
            Ended::Evicted => Self::Evicted,
            Ended::Shutdown => Self::Shutdown,
        }
    }
}

impl Ended {
    /// Whether this build leaves such buffers as they are, to see that somebody notices.
    const fn is_ablated(self) -> bool {
        match self {
            Self::Freed => cfg!(secmem_ablate = "manager-free"),
            Self::Forced => cfg!(secmem_ablate = "manager-forced"),
            Self::Shutdown => cfg!(secmem_ablate = "manager-shutdown"),
            Self::Expired | Self::Purged | Self::Evicted => false,
        }
    }

    fn count(self) -> Count {
        match self {
            Self::Freed => Count::Deallocated,
            Self::Expired => Count::Expired,
            Self::Forced => Count::Forced,
            Self::Purged => Count::Purged,
            Self::Evicted => Count::Evicted,
            Self::Shutdown => Count::Leftover,
        }
    }
}

#[derive(Debug)]
enum Entry {
    Live(Arc<Buffer>),
    /// Why there is none any more, as long as that is remembered.
    Ended(Ended),
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Id, Entry>,
    /// Names of the ended, in that order: as many are remembered as buffers may live.
    ended: VecDeque<Id>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: Config,
    options: Options,
    pub(super) roll: Roll,
    pub(super) audience: Audience,
    me: Weak<Self>,
    number: u64,
    drawn: AtomicU64,
    closed: AtomicBool,
    /// How bad it is with the machine's memory, by the last look; how bad it was told to be in all.
    machine: AtomicU8,
    told: AtomicU8,
    pub(super) gone: Arc<Gone>,
    hasher: std::hash::RandomState,
    shards: [Apart<Mutex<Shard>>; SHARDS],
}

/// In cache lines of its own, also where the processor fetches them in pairs: who writes to it keeps nobody else waiting.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

impl Store {
    pub(super) fn new(config: Config, number: u64) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            options: config.options(),
            roll: Roll::new(config.most, config.most_bytes),
            audience: Audience::default(),
            me: Weak::clone(me),
            number,
            drawn: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            machine: AtomicU8::new(Level::Calm as u8),
            told: AtomicU8::new(Level::Calm as u8),
            gone: Arc::default(),
            hasher: std::hash::RandomState::new(),
            shards: Default::default(),
            config,
        })
    }

    /// Whether anything can be done.
    pub(super) fn open(&self) -> Result<&Self, Error> {
        if arena::in_child() {
            return Err(Error::Forked); // locks may be held by threads that are not there
        }
        if self.closed.load(Ordering::Acquire) { Err(Error::Shutdown) } else { Ok(self) }
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, Shard> {
        let at = id.spread(|| self.hasher.hash_one(id)) as usize % SHARDS;
        // Nothing is half done where the lock is held and something could panic.
        self.shards[at].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn draw(&self) -> Id {
        Id::drawn(self.number, self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a buffer, and lets it live under its name; makes room for it where that is wanted and needed.
    pub(super) fn make(&self, owner: &Token, id: Id, capacity: usize) -> Result<Arc<Buffer>, Error> {
        let evicts = self.config.when_full == WhenFull::EvictIdle;
        if self.machine.load(Ordering::Relaxed) == Level::Critical as u8 && !(evicts && self.evict()) {
            return Err(Error::Pressure);
        }
        loop {
            match self.try_make(owner, id.clone(), capacity) {
                Err(Error::TooMany { .. } | Error::Quota { .. } | Error::Memory(MemoryError::Refused { .. }))
                    if evicts && self.evict() => {}
                made => return made,
            }
        }
    }

    fn try_make(&self, owner: &Token, id: Id, capacity: usize) -> Result<Arc<Buffer>, Error> {
        let (place, taken) = self.roll.enter(capacity)?;
        let made = self.begin(owner, id, (place, capacity)).inspect_err(|_| self.roll.leave(place, capacity))?;
        let places = taken as f64 / self.roll.most() as f64;
        let level = pressure::level(Some(places), self.config.thresholds.shares) as u8;
        self.strained(level.max(self.machine.load(Ordering::Relaxed)));
        Ok(made)
    }

    /// Ends the buffer that rests for the longest time; `false` if none does.
    fn evict(&self) -> bool {
        let resting = self.live(|buffer| buffer.rests_since().is_some());
        let idlest = resting.iter().min_by_key(|buffer| buffer.rests_since().unwrap_or(u64::MAX));
        idlest.is_some_and(|meant| self.end(meant.id(), |it| std::ptr::eq(it, &**meant), Ended::Evicted).is_some())
    }

    /// Looks how scarce memory is, and tells it where that has changed.
    pub(super) fn look(&self) -> Pressure {
        let pressure = Pressure::now(&self.roll.statistics(self.config.clock.now()));
        self.machine.store(pressure.of_the_machine(&self.config.thresholds) as u8, Ordering::Relaxed);
        self.strained(pressure.level(&self.config.thresholds) as u8);
        pressure
    }

    fn strained(&self, level: u8) {
        if self.told.load(Ordering::Relaxed) != level && self.told.swap(level, Ordering::Relaxed) != level {
            let level = [Level::Calm, Level::High, Level::Critical][usize::from(level)];
            self.audience.tell(|| {
                let now = self.roll.statistics(self.config.clock.now());
                Event::Pressure { level, buffers: now.live, bytes: now.bytes }
            });
        }
    }

    fn begin(&self, owner: &Token, id: Id, (place, capacity): (u32, usize)) -> Result<Arc<Buffer>, Error> {
        let ear = Arc::new(Ear { store: Weak::clone(&self.me), id: id.clone() });
        let buffer = Arc::new(Buffer::new(ear, owner, self.options, self.config.clock, (place, capacity))?);
        let mut shard = self.shard(&id);
        // Under the lock: a shutdown that begins later finds the buffer.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Shutdown);
        }
        match shard.entries.entry(id) {
            Place::Occupied(there) if matches!(there.get(), Entry::Live(_)) => return Err(Error::Duplicate),
            Place::Occupied(mut ended) => _ = ended.insert(Entry::Live(Arc::clone(&buffer))),
            Place::Vacant(place) => _ = place.insert(Entry::Live(Arc::clone(&buffer))),
        }
        self.roll.begin(place, buffer.made());
        Ok(buffer)
    }

    /// The buffer of that name, for its owner.
    pub(super) fn find(&self, owner: &Token, id: &Id) -> Result<Arc<Buffer>, Error> {
        let buffer = match self.shard(id).entries.get(id) {
            None => return Err(Error::Unknown),
            Some(Entry::Ended(why)) => return Err((*why).into()),
            Some(Entry::Live(buffer)) => Arc::clone(buffer),
        };
        if buffer.is_of(owner) { Ok(buffer) } else { Err(self.denied(id)) }
    }

    /// Ends the buffer of that name, if it is the one that is meant and nobody has ended it before.
    pub(super) fn end(&self, id: &Id, is_meant: impl Fn(&Buffer) -> bool, why: Ended) -> Option<Arc<Buffer>> {
        let mut shard = self.shard(id);
        let Place::Occupied(there) = shard.entries.entry(id.clone()) else { return None };
        if !matches!(there.get(), Entry::Live(buffer) if is_meant(buffer)) {
            return None;
        }
        if why == Ended::Freed {
            return self.ended(there.remove(), shard, why);
        }
        let live = there.into_mut();
        let live = std::mem::replace(live, Entry::Ended(why));
        shard.ended.push_back(id.clone());
        if shard.ended.len() > self.roll.most().div_ceil(SHARDS)
            && let Some(oldest) = shard.ended.pop_front()
            && matches!(shard.entries.get(&oldest), Some(Entry::Ended(_)))
        {
            shard.entries.remove(&oldest);
        }
        self.ended(live, shard, why)
    }

    /// Ends the buffer of that name for its owner.
    pub(super) fn free(&self, owner: &Token, id: &Id) -> Result<(), Error> {
        let mut shard = self.shard(id);
        let Place::Occupied(there) = shard.entries.entry(id.clone()) else { return Err(Error::Unknown) };
        match there.get() {
            Entry::Ended(why) => Err((*why).into()),
            Entry::Live(buffer) if !buffer.is_of(owner) => {
                drop(shard);
                Err(self.denied(id))
            }
            Entry::Live(_) => {
                self.ended(there.remove(), shard, Ended::Freed);
                Ok(())
            }
        }
    }

    /// Ends what has just lost its name, and tells it.
    fn ended(&self, was: Entry, shard: MutexGuard<'_, Shard>, why: Ended) -> Option<Arc<Buffer>> {
        drop(shard);
        let Entry::Live(buffer) = was else { return None };
        if why.is_ablated() {
            std::mem::forget(Arc::clone(&buffer));
        } else {
            buffer.end(why);
        }
        self.roll.leave(buffer.place, buffer.capacity);
        self.roll.count(why.count());
        match why {
            Ended::Freed => self.audience.tell(|| Event::Deallocated { id: buffer.id().clone() }),
            Ended::Expired => self.audience.tell(|| Event::Expired { id: buffer.id().clone() }),
            Ended::Evicted => self.audience.tell(|| Event::Evicted { id: buffer.id().clone() }),
            Ended::Forced | Ended::Shutdown | Ended::Purged => {} // told once, of all of them
        }
        Some(buffer)
    }

    /// Counts and tells that a token was another's.
    #[cold]
    fn denied(&self, id: &Id) -> Error {
        self.roll.count(Count::Denied);
        self.audience.tell(|| Event::Denied { id: id.clone() });
        Error::Denied
    }

    /// Those that live and that `wanted` says.
    pub(super) fn live(&self, wanted: impl Fn(&Buffer) -> bool) -> Vec<Arc<Buffer>> {
        let mut live = Vec::new();
        for shard in &self.shards {
            let shard = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
            live.extend(shard.entries.values().filter_map(|entry| match entry {
                Entry::Live(buffer) => Some(buffer).filter(|buffer| wanted(buffer)).map(Arc::clone),
                Entry::Ended(_) => None,
            }));
        }
        live
    }

    /// Ends all of them; gives back what lived.
    pub(super) fn end_all(&self, why: Ended) -> Vec<Arc<Buffer>> {
        let live = self.live(|_| true);
        live.iter().filter_map(|meant| self.end(meant.id(), |buffer| std::ptr::eq(buffer, &**meant), why)).collect()
    }

    /// Lets nothing begin any more; `false` if that was so before.
    pub(super) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !arena::in_child() {
            self.gone.set();
        }
    }
}
