//! Which buffers there are: by name, with their ends. The manager's operations are in `mod`, one buffer's in `buffer`.

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
#[repr(u8)]
pub(super) enum Ended {
    Freed = 1,
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
    const ALL: [Self; 6] = [Self::Freed, Self::Expired, Self::Forced, Self::Purged, Self::Evicted, Self::Shutdown];

    /// The one of that number; 0 is none's.
    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as u8 == number)
    }

    /// Whether this build leaves such buffers as they are, to see that somebody notices.
    const fn is_ablated(self) -> bool {
        match self {
            Self::Freed => cfg!(secmem_ablate = "manager-free"),
            Self::Forced => cfg!(secmem_ablate = "manager-forced"),
            Self::Shutdown => cfg!(secmem_ablate = "manager-shutdown"),
            Self::Evicted => cfg!(secmem_ablate = "manager-evict"),
            Self::Expired | Self::Purged => false,
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

#[derive(Debug)]
struct Shard {
    /// Those that live under names which were drawn, by their places, of which each shard has every so-manieth.
    drawn: Vec<Option<Arc<Buffer>>>,
    /// Those under names that were given, and the ended.
    named: HashMap<Id, Entry>,
    /// Whether a name was given that looks like a drawn one: then it may be there twice, if nobody looks.
    alike: bool,
    /// Names of the ended, in that order: as many are remembered as buffers may live.
    ended: VecDeque<Id>,
}

impl Shard {
    fn new(places: usize) -> Self {
        let drawn = std::iter::repeat_with(|| None).take(places).collect();
        Self { drawn, named: HashMap::new(), alike: false, ended: VecDeque::new() }
    }

    /// What lives in the place that a name speaks of, if it was drawn with that name.
    #[inline]
    fn drawn(&self, id: &Id, at: Option<usize>) -> Option<&Arc<Buffer>> {
        self.drawn.get(at?)?.as_ref().filter(|buffer| buffer.id() == id)
    }

    /// The buffer of that name, or why there is none.
    #[inline]
    fn look(&self, id: &Id, at: Option<usize>) -> Result<&Arc<Buffer>, Error> {
        if let Some(buffer) = self.drawn(id, at) {
            return Ok(buffer);
        }
        match self.named.get(id) {
            None => Err(Error::Unknown),
            Some(Entry::Ended(why)) => Err((*why).into()),
            Some(Entry::Live(buffer)) => Ok(buffer),
        }
    }

    /// Takes out the buffer of that name, which lives.
    fn take(&mut self, id: &Id, at: Option<usize>) -> Option<Arc<Buffer>> {
        if self.drawn(id, at).is_some() {
            return self.drawn[at?].take();
        }
        match self.named.remove(id) {
            Some(Entry::Live(buffer)) => Some(buffer),
            _ => None,
        }
    }

    /// Remembers why there is none of that name, and forgets what ended longest ago, where that is more than `most`.
    fn remember(&mut self, id: &Id, why: Ended, most: usize) {
        self.named.insert(id.clone(), Entry::Ended(why));
        self.ended.push_back(id.clone());
        if self.ended.len() > most
            && let Some(oldest) = self.ended.pop_front()
            && matches!(self.named.get(&oldest), Some(Entry::Ended(_)))
        {
            self.named.remove(&oldest);
        }
    }

    /// Those that live.
    fn live(&self) -> impl Iterator<Item = &Arc<Buffer>> {
        let named = self.named.values().filter_map(|entry| match entry {
            Entry::Live(buffer) => Some(buffer),
            Entry::Ended(_) => None,
        });
        self.drawn.iter().flatten().chain(named)
    }
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: Config,
    options: Options,
    pub(super) roll: Roll,
    pub(super) audience: Audience,
    me: Weak<Self>,
    number: u64,
    /// Buffers so far, also those that did not come to live.
    made: AtomicU64,
    closed: AtomicBool,
    /// How bad it is with the machine's memory, by the last look; how bad it was told to be in all.
    machine: AtomicU8,
    told: AtomicU8,
    pub(super) gone: Arc<Gone>,
    watched: AtomicBool,
    /// Purges of the process, when somebody last looked for what they have ended.
    purges: AtomicU64,
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
            made: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            machine: AtomicU8::new(Level::Calm as u8),
            told: AtomicU8::new(Level::Calm as u8),
            gone: Arc::default(),
            watched: AtomicBool::new(false),
            purges: AtomicU64::new(arena::purges()),
            hasher: std::hash::RandomState::new(),
            shards: std::array::from_fn(|_| Apart(Mutex::new(Shard::new(config.most.div_ceil(SHARDS))))),
            config,
        })
    }

    /// Whether anything can be done.
    #[inline]
    pub(super) fn open(&self) -> Result<&Self, Error> {
        if arena::in_child() {
            return Err(Error::Forked); // locks may be held by threads that are not there
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Shutdown);
        }
        let purges = arena::purges();
        if self.purges.load(Ordering::Relaxed) != purges {
            self.take_out_the_purged(purges);
        }
        Ok(self)
    }

    /// Ends what a purge has ended since somebody looked, so that it takes no place.
    #[cold]
    fn take_out_the_purged(&self, purges: u64) {
        for over in self.live(Buffer::is_purged) {
            self.end(over.id(), |live| std::ptr::eq(live, &*over), Ended::Purged);
        }
        self.purges.store(purges, Ordering::Relaxed);
    }

    /// Whether nobody watches yet; the caller does from now on.
    pub(super) fn begin_to_watch(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    /// The part that a name is in, and where in it the buffer is if the name was drawn.
    #[inline]
    fn shard(&self, id: &Id) -> (MutexGuard<'_, Shard>, Option<usize>) {
        let place = id.of(self.number).map(|(_, place)| place as usize);
        let at = place.unwrap_or_else(|| self.hasher.hash_one(id) as usize) % SHARDS;
        // Nothing is half done where the lock is held and something could panic.
        (self.shards[at].0.lock().unwrap_or_else(PoisonError::into_inner), place.map(|place| place / SHARDS))
    }

    /// Whether a given name looks like one that is yet to be drawn: it would be in the way of that.
    fn is_to_come(&self, id: &Id) -> bool {
        id.of(self.number).is_some_and(|(count, _)| count >= self.made.load(Ordering::Relaxed))
    }

    /// Makes a buffer, and lets it live under its name; makes room for it where that is wanted and needed.
    pub(super) fn make(&self, owner: &Token, id: Option<Id>, capacity: usize) -> Result<Arc<Buffer>, Error> {
        // What cannot be made costs no other buffer.
        let most = self.config.most_bytes;
        if capacity > most {
            return Err(Error::Quota { len: capacity, most });
        }
        if let Some(id) = &id
            && self.is_there(id)
        {
            return Err(Error::Duplicate);
        }
        let evicts = self.config.when_full == WhenFull::EvictIdle;
        if self.machine.load(Ordering::Relaxed) == Level::Critical as u8 && !(evicts && self.evict().is_some()) {
            return Err(Error::Pressure);
        }
        let mut for_the_kernel = 0;
        loop {
            let made = self.try_make(owner, id.clone(), capacity);
            match &made {
                Err(Error::TooMany { .. } | Error::Quota { .. }) if evicts => {}
                // Where as many bytes as it needs have not helped, more do not.
                Err(Error::Memory(MemoryError::Refused { .. })) if evicts && for_the_kernel < capacity.max(1) => {}
                _ => return made,
            }
            let Some(bytes) = self.evict() else { return made };
            if matches!(made, Err(Error::Memory(_))) {
                for_the_kernel += bytes.max(1);
            }
        }
    }

    /// Whether there is a buffer of that name, or is to be.
    fn is_there(&self, id: &Id) -> bool {
        let (shard, at) = self.shard(id);
        shard.look(id, at).is_ok()
    }

    fn try_make(&self, owner: &Token, id: Option<Id>, capacity: usize) -> Result<Arc<Buffer>, Error> {
        let (place, taken) = self.roll.enter(capacity)?;
        let made = self.begin(owner, id, (place, capacity)).inspect_err(|_| self.roll.leave(place, capacity, None))?;
        let places = taken as f64 / self.roll.most() as f64;
        let level = pressure::level(Some(places), self.config.thresholds.shares) as u8;
        self.strained(level.max(self.machine.load(Ordering::Relaxed)));
        Ok(made)
    }

    /// Ends the buffer that rests for the longest time, and gives its bytes; nothing if none does.
    fn evict(&self) -> Option<usize> {
        let resting = self.live(|buffer| buffer.rests_since().is_some());
        let idlest = resting.iter().min_by_key(|buffer| buffer.rests_since().unwrap_or(u64::MAX));
        let ended = idlest.and_then(|meant| self.end(meant.id(), |it| std::ptr::eq(it, &**meant), Ended::Evicted));
        ended.map(|ended| ended.capacity)
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

    fn begin(&self, owner: &Token, given: Option<Id>, (place, capacity): (u32, usize)) -> Result<Arc<Buffer>, Error> {
        if given.as_ref().is_some_and(|id| self.is_to_come(id)) {
            return Err(Error::Duplicate);
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let id = given.clone().unwrap_or_else(|| Id::drawn(self.number, number, place));
        let ear = Ear { store: Weak::clone(&self.me), id: id.clone(), number };
        let buffer = Arc::new(Buffer::new(ear, owner, self.options, self.config.clock, (place, capacity))?);
        let (mut shard, at) = self.shard(&id);
        // Under the lock: a shutdown that begins later finds the buffer.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Shutdown);
        }
        if (given.is_some() || shard.alike) && shard.look(&id, at).is_ok() {
            return Err(Error::Duplicate);
        }
        match at {
            Some(at) if given.is_none() => shard.drawn[at] = Some(Arc::clone(&buffer)), // the place is this buffer's
            _ => {
                shard.alike |= at.is_some();
                shard.named.insert(id, Entry::Live(Arc::clone(&buffer)));
            }
        }
        self.roll.begin(place, buffer.made());
        drop(shard);
        if buffer.is_over() {
            // Its time came before it had its name: who heard of it found nothing.
            self.end(buffer.id(), |live| std::ptr::eq(live, &*buffer), Ended::Expired);
        }
        Ok(buffer)
    }

    /// The buffer of that name, for its owner.
    #[inline]
    pub(super) fn find(&self, owner: &Token, id: &Id) -> Result<Arc<Buffer>, Error> {
        let (shard, at) = self.shard(id);
        let buffer = shard.look(id, at).map(Arc::clone)?;
        drop(shard);
        let is_theirs = buffer.is_of(owner) || cfg!(secmem_ablate = "manager-owner");
        if is_theirs { Ok(buffer) } else { Err(self.denied(id)) }
    }

    /// Ends the buffer of that name, if it is the one that is meant and nobody has ended it before.
    pub(super) fn end(&self, id: &Id, is_meant: impl Fn(&Buffer) -> bool, why: Ended) -> Option<Arc<Buffer>> {
        let (mut shard, at) = self.shard(id);
        shard.look(id, at).ok().filter(|buffer| is_meant(buffer))?;
        let buffer = shard.take(id, at)?;
        if why != Ended::Freed {
            shard.remember(id, why, self.roll.most().div_ceil(SHARDS));
        }
        drop(shard);
        self.ended(&buffer, why);
        Some(buffer)
    }

    /// Ends the buffer of that name for its owner.
    pub(super) fn free(&self, owner: &Token, id: &Id) -> Result<(), Error> {
        let (mut shard, at) = self.shard(id);
        if !shard.look(id, at)?.is_of(owner) {
            drop(shard);
            return Err(self.denied(id));
        }
        let buffer = shard.take(id, at).ok_or(Error::Unknown)?;
        drop(shard);
        let (place, capacity) = (buffer.place, buffer.capacity);
        if Ended::Freed.is_ablated() {
            std::mem::forget(buffer);
        } else if let Err(shared) = Arc::try_unwrap(buffer) {
            shared.end(Ended::Freed); // else nobody is within: it was wiped as it was dropped
        }
        self.leave(id, (place, capacity), Ended::Freed);
        Ok(())
    }

    /// Ends what has just lost its name.
    fn ended(&self, buffer: &Arc<Buffer>, why: Ended) {
        if why.is_ablated() {
            std::mem::forget(Arc::clone(buffer));
        } else {
            buffer.end(why);
        }
        self.leave(buffer.id(), (buffer.place, buffer.capacity), why);
    }

    /// Gives the place of an ended buffer back, and tells what has happened.
    fn leave(&self, id: &Id, (place, capacity): (u32, usize), why: Ended) {
        self.roll.leave(place, capacity, Some(why.count()));
        match why {
            Ended::Freed => self.audience.tell(|| Event::Deallocated { id: id.clone() }),
            Ended::Expired => self.audience.tell(|| Event::Expired { id: id.clone() }),
            Ended::Evicted => self.audience.tell(|| Event::Evicted { id: id.clone() }),
            Ended::Forced | Ended::Shutdown | Ended::Purged => {} // told once, of all of them
        }
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
            live.extend(shard.live().filter(|buffer| wanted(buffer)).map(Arc::clone));
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
        self.gone.set();
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
