//! Buffers by name: with owners, limits, time-outs and events, and nothing of them left when they end.
//!
//! A [`Manager`] keeps buffers in arenas. What goes in is wiped where it came from; what is read goes into another slot or to a
//! closure. Each buffer belongs to a [`Token`], and no other token reaches it. When its time has come it is wiped at that
//! time, by the thread that ends every secret of this crate: no sweep, and no access revives it.
//!
//! ```
//! use secmem::manager::{Config, Error, Hash, Manager};
//!
//! let manager = Manager::new(Config::default())?;
//! let owner = manager.owner()?;
//!
//! let id = manager.allocate(&owner, 64, None)?;
//! let mut token = *b"a bearer token";
//! manager.write(&owner, &id, &mut token)?;
//! assert_eq!(token, [0; 14]); // the input was wiped
//! manager.read(&owner, &id, 2..8, |bytes| assert_eq!(bytes, b"bearer"))?;
//! println!("{}", manager.create_secure_hash(&owner, &id, Hash::Sha256)?);
//!
//! let other = manager.owner()?;
//! assert!(matches!(manager.deallocate(&other, &id), Err(Error::Denied)));
//! manager.deallocate(&owner, &id)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With feature `tokio` the operations that take long are futures, too, which leave nothing when they are dropped (`Operation`);
//! with `compression` templates can be kept shorter (`Config::compress_templates`); with `journal` what is denied or refused is
//! written to an audit log (`Manager::record_in`).

#[cfg(feature = "tokio")]
mod asynchronous;
mod biometric;
mod buffer;
mod compare;
#[cfg(feature = "compression")]
mod compress;
mod config;
mod error;
mod event;
mod hash;
mod id;
mod input;
mod network;
mod pressure;
mod roll;
pub mod settings;
mod store;

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tokio")]
pub use asynchronous::Operation;
pub use biometric::{Modality, Template, TemplateError, TemplateView};
pub use buffer::Info;
pub use config::{Config, ConfigError, MOST_BUFFERS};
pub use error::Error;
#[cfg(feature = "records")]
pub(crate) use event::{Audience, Traced};
pub use event::{Event, Events};
pub use hash::{Digest, Hash, WeakHash};
pub use id::{Id, IdError, LONGEST_ID, Token};
pub use input::Input;
pub use network::{AllowList, AllowListError};
pub use pressure::{Budget, Level, Pressure, Thresholds, WhenFull};
pub use roll::Statistics;
pub use settings::{Mode, Settings, SettingsError};

use crate::secret::{Options, Secret};
use crate::{arena, keystream, scrub, wipe};
use buffer::{Buffer, within};
use roll::Count;
use store::{Ended, Store};

/// Keeps buffers. Clones are the same manager; when the last is dropped, what lives yet is wiped.
#[derive(Clone)]
pub struct Manager(Arc<Store>);

/// What a cleanup has wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Cleaned {
    /// Buffers.
    pub buffers: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Whether it was forced, and so has wiped all that lived; else only what was over.
    pub forced: bool,
}

impl Manager {
    /// A manager without buffers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where the limits cannot be, or if the kernel gave no random bytes.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let mut number = [0; 8];
        keystream::from_kernel(&mut number).map_err(|_| ConfigError::Random)?;
        Ok(Self(Store::new(config, u64::from_ne_bytes(number) >> (u64::BITS - id::NUMBER))))
    }

    /// A new owner, who has no buffers yet.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the kernel gave no random bytes; as for all operations, [`Error::Shutdown`] after the shutdown and
    /// [`Error::Forked`] in a forked child.
    pub fn owner(&self) -> Result<Token, Error> {
        self.0.open()?;
        Ok(Token::draw()?)
    }

    /// Makes a buffer of `size` bytes without data, under `id` or under a name that is drawn.
    ///
    /// # Errors
    ///
    /// [`Error::Size`], [`Error::Quota`], [`Error::TooMany`] by the limits, [`Error::Pressure`] while memory is about to be
    /// used up by the last [look](Self::pressure), [`Error::Duplicate`] where a buffer of that name
    /// lives or the name looks like one that this manager will draw, [`Error::Memory`] where the kernel gives none.
    pub fn allocate(&self, owner: &Token, size: usize, id: Option<Id>) -> Result<Id, Error> {
        self.make(owner, size, id).map(|buffer| buffer.id().clone())
    }

    fn make(&self, owner: &Token, size: usize, id: Option<Id>) -> Result<Arc<Buffer>, Error> {
        let store = self.0.open()?;
        if size == 0 || size > store.config.largest {
            return Err(Error::Size { len: size, most: store.config.largest });
        }
        let buffer = store.make(owner, id, size).inspect_err(|error| {
            if matches!(error, Error::TooMany { .. } | Error::Quota { .. } | Error::Pressure | Error::Memory(_)) {
                store.roll.count(Count::Refused);
                store.audience.tell(|| Event::Refused { size });
            }
        })?;
        store.roll.count(Count::Allocated);
        store.audience.tell(|| Event::Allocated { id: buffer.id().clone(), size });
        Ok(buffer)
    }

    /// Makes `data` the buffer's data, in place of what it held, and wipes it where it stood, whatever comes of the call.
    ///
    /// # Errors
    ///
    /// [`Error::Capacity`] if it does not fit; as [`read`](Self::read) else.
    pub fn write<'a>(&self, owner: &Token, id: &Id, data: impl Into<Input<'a>>) -> Result<(), Error> {
        let data = data.into();
        let copy = |slot: &mut [u8]| {
            wipe::copy(data.bytes(), slot);
            Ok(())
        };
        self.fill(owner, id, data.bytes().len(), copy)
    }

    /// Lets `fill` write `len` bytes in place, which become the buffer's data. If it fails or panics, the buffer is
    /// left without data.
    ///
    /// # Errors
    ///
    /// What `fill` says; as [`write`](Self::write) else.
    pub fn fill<E: From<Error>>(
        &self,
        owner: &Token,
        id: &Id,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reach(owner, id, |buffer| buffer.write(len, fill))?
    }

    /// Lets `f` read a part of the data: `..` for all of it. What it copies, it copies out of the protection.
    ///
    /// # Errors
    ///
    /// [`Error::Bounds`], [`Error::Unknown`], [`Error::Denied`]; [`Error::Expired`], [`Error::CleanedUp`] and
    /// [`Error::Purged`] if the buffer has ended, and [`Error::Busy`] within another operation's closure if the buffer is in
    /// use.
    pub fn read<R>(
        &self,
        owner: &Token,
        id: &Id,
        range: impl RangeBounds<usize>,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        self.reach(owner, id, |buffer| buffer.read(|slot, len| within(range, len).map(|range| f(&slot[range])))?)
    }

    /// Copies a part of the data into a secret of its own, made as `options` say: from slot to slot.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`Error::Memory`] where the kernel gives no memory.
    pub fn read_secret(
        &self,
        owner: &Token,
        id: &Id,
        range: impl RangeBounds<usize>,
        options: Options,
    ) -> Result<Secret, Error> {
        self.read(owner, id, range, |bytes| {
            let mut secret = options.zeroed(bytes.len())?;
            secret.slot.write(|slot| wipe::copy(bytes, slot))?;
            Ok(secret)
        })?
    }

    /// Makes a part of one buffer's data the data of another, from slot to slot.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read) and [`write`](Self::write), for either; [`Error::Busy`] if the two are one, or another thread uses
    /// the second.
    pub fn copy(&self, owner: &Token, from: &Id, range: impl RangeBounds<usize>, to: &Id) -> Result<(), Error> {
        let copied = self.read(owner, from, range, |bytes| {
            let copy = |slot: &mut [u8]| {
                wipe::copy(bytes, slot);
                Ok::<(), Error>(())
            };
            self.fill(owner, to, bytes.len(), copy)
        });
        copied?
    }

    /// Wipes a buffer and forgets its name.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). Where an access runs in another thread, the bytes are wiped when that ends.
    pub fn deallocate(&self, owner: &Token, id: &Id) -> Result<(), Error> {
        self.0.open()?.free(owner, id)
    }

    /// Puts `data` into a buffer, lets `operation` work on it there, and wipes it, also if that panics. The operation runs
    /// on a protected stack ([`scrub::run`]); `data` is wiped where it stood before it begins.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if `operation` did; as [`allocate`](Self::allocate) else.
    pub fn execute_with_secure_data<'a, R>(
        &self,
        owner: &Token,
        data: impl Into<Input<'a>>,
        operation: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, Error> {
        let buffer = self.taken_in(owner, data.into())?;
        worked(&buffer, operation)
    }

    /// A buffer of its own for `data`, which is wiped where it stood.
    fn taken_in(&self, owner: &Token, data: Input<'_>) -> Result<Leased, Error> {
        let len = data.bytes().len();
        let buffer = Leased::new(&self.0, self.make(owner, len, None)?);
        buffer.write(len, |slot| {
            wipe::copy(data.bytes(), slot);
            Ok::<(), Error>(())
        })??;
        Ok(buffer)
    }

    /// The hash of the data: of its logical length, not of the buffer's capacity.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`Error::Memory`] if there is no protected stack to compute it on.
    pub fn create_secure_hash(&self, owner: &Token, id: &Id, hash: Hash) -> Result<Digest, Error> {
        self.reach(owner, id, |buffer| buffer.read(|slot, len| hash.of(&slot[..counted((slot, len)).1]))?)
    }

    /// Whether two buffers hold the same data. The time depends on their capacities and on nothing else.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), for either.
    pub fn secure_compare(&self, owner: &Token, a: &Id, b: &Id) -> Result<bool, Error> {
        self.reach(owner, a, |a| {
            let mut of_a = None;
            // What ends the second has not ended the first.
            let of_b = self.reach(owner, b, |b| match a.read_with(b, |a, b| compare::same(counted(a), counted(b))) {
                Ok(compared) => compared?,
                Err(error) => {
                    of_a = Some(error);
                    Ok(false)
                }
            });
            of_a.map_or(Ok(of_b), Err)
        })?
    }

    /// What there is to know about a buffer: a copy, which changes nothing.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). It is no use: it does not put off the time-out.
    pub fn info(&self, owner: &Token, id: &Id) -> Result<Info, Error> {
        let buffer = self.0.open()?.find(owner, id)?;
        if buffer.is_over() {
            self.0.end(id, |live| std::ptr::eq(live, &*buffer), Ended::Expired);
            return Err(Error::Expired);
        }
        Ok(buffer.info())
    }

    /// How everything stands. Keeps nobody waiting, and is told after the shutdown and in a forked child, too.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let _ = self.0.open(); // after a purge it takes those out that the purge has ended
        self.now()
    }

    fn now(&self) -> Statistics {
        self.0.roll.statistics(self.0.config.clock.now())
    }

    /// How many buffers have lived for less than each of these spans, which are in order, and not for less than the one before;
    /// those that have lived for longer come last. Keeps nobody waiting, as [`statistics`](Self::statistics).
    #[must_use]
    pub fn ages(&self, spans: &[Duration]) -> Vec<usize> {
        self.0.roll.ages(self.0.config.clock.now(), spans)
    }

    /// Its limits.
    #[cfg(feature = "http")]
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether it was neither shut down nor left behind in a forked child.
    #[cfg(feature = "http")]
    pub(crate) fn is_open(&self) -> bool {
        self.0.open().is_ok()
    }

    /// How scarce memory is. Unlike [`pressure`](Self::pressure) it has no consequences, so that who looks changes nothing.
    #[cfg(feature = "http")]
    pub(crate) fn look_at_pressure(&self) -> Pressure {
        Pressure::now(&self.now())
    }

    /// The events from now on; `room` is how many wait to be taken before the oldest is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child. After a shutdown there are events no more, and no error.
    pub fn events(&self, room: usize) -> Result<Events, Error> {
        if arena::in_child() {
            return Err(Error::Forked);
        }
        Ok(self.0.audience.join(room))
    }

    /// Writes what is denied, refused, evicted or wiped all at once to `journal`, from now on. Whoever asks for what is denied can
    /// so make it grow, and wait for the disk each time.
    ///
    /// # Errors
    ///
    /// [`Attached`](crate::journal::Error::Attached) if there is a journal already.
    #[cfg(feature = "journal")]
    pub fn record_in(&self, journal: &crate::journal::Journal) -> Result<(), crate::journal::Error> {
        self.0.audience.record_in(journal)
    }

    /// Looks how scarce memory is, and tells it as an event where that has changed. From the look on until the next one no
    /// buffer is made while something is [`Level::Critical`], or only in place of one that rests: see [`WhenFull`].
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`], [`Error::Forked`].
    pub fn pressure(&self) -> Result<Pressure, Error> {
        Ok(self.0.open()?.look())
    }

    /// Lets a thread of this crate look every so often, 100 milliseconds at least, until the manager is dropped or shut down. There is
    /// one: a second call changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the thread could not be started; [`Error::Shutdown`], [`Error::Forked`].
    pub fn watch_pressure(&self, every: Duration) -> Result<(), Error> {
        let store = self.0.open()?;
        if !store.begin_to_watch() {
            return Ok(());
        }
        pressure::watch(Arc::downgrade(&self.0), Arc::clone(&store.gone), every)
            .map_err(|source| Error::Memory(crate::Error::Watch { source }))
    }

    /// Ends the buffers whose time has come. The thread of the deadlines does that by itself; this does it where the
    /// thread is late.
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`], [`Error::Forked`].
    pub fn cleanup_expired(&self) -> Result<Cleaned, Error> {
        let store = self.0.open()?;
        let over = store.live(Buffer::is_over).into_iter();
        let ended = over.filter_map(|over| store.end(over.id(), |live| std::ptr::eq(live, &*over), Ended::Expired));
        Ok(cleaned(&ended.collect::<Vec<_>>(), false))
    }

    /// Wipes every buffer, whatever its time and whoever owns it: each later use is [`Error::CleanedUp`].
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`], [`Error::Forked`].
    pub fn cleanup_forced(&self) -> Result<Cleaned, Error> {
        let ended = self.0.open()?.end_all(Ended::Forced);
        let cleaned = cleaned(&ended, true);
        let Cleaned { buffers, bytes, .. } = cleaned;
        self.0.audience.tell(|| Event::WipedAll { buffers, bytes, shutdown: false });
        Ok(cleaned)
    }

    /// Buffers that live and that nobody has used for at least `rest`: where somebody has forgotten to free them.
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`], [`Error::Forked`].
    pub fn never_freed(&self, rest: Duration) -> Result<Vec<Info>, Error> {
        let live = self.0.open()?.live(|_| true);
        Ok(live.iter().map(|buffer| buffer.info()).filter(|info| info.idle >= rest).collect())
    }

    /// Wipes every buffer and lets none be made any more: each later operation is [`Error::Shutdown`]. Gives back those
    /// that nobody has freed; nothing, if it was shut down before.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child.
    pub fn shutdown(&self) -> Result<Vec<Info>, Error> {
        if arena::in_child() {
            return Err(Error::Forked);
        }
        if !self.0.close() {
            return Ok(Vec::new());
        }
        let ended = self.0.end_all(Ended::Shutdown);
        let Cleaned { buffers, bytes, .. } = cleaned(&ended, true);
        let infos = ended.iter().map(|buffer| buffer.info()).collect();
        self.0.audience.tell(|| Event::WipedAll { buffers, bytes, shutdown: true });
        Ok(infos)
    }

    /// Lets `f` use the buffer of that name, and ends it where the access says that it is over.
    fn reach<R>(&self, owner: &Token, id: &Id, f: impl FnOnce(&Buffer) -> Result<R, Error>) -> Result<R, Error> {
        let store = self.0.open()?;
        let buffer = store.find(owner, id)?;
        let result = f(&buffer);
        let why = match result {
            Err(Error::Expired) => Ended::Expired,
            Err(Error::Purged) => Ended::Purged,
            _ => return result,
        };
        store.end(id, |live| std::ptr::eq(live, &*buffer), why);
        result
    }
}

/// How much of a slot counts where it is hashed or compared: the data.
fn counted((slot, len): (&[u8], usize)) -> (&[u8], usize) {
    (slot, if cfg!(secmem_ablate = "manager-capacity") { slot.len() } else { len })
}

/// What was ended, in numbers.
fn cleaned(ended: &[Arc<Buffer>], forced: bool) -> Cleaned {
    Cleaned { buffers: ended.len(), bytes: ended.iter().map(|buffer| buffer.capacity).sum(), forced }
}

/// Lets `operation` work on all of a buffer, on a protected stack.
fn worked<R>(buffer: &Buffer, operation: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
    let mut result = None;
    buffer.write(buffer.capacity, |slot| scrub::run(|| result = Some(operation(slot))))??;
    result.ok_or(Error::Panicked)
}

/// A buffer for as long as the value lives, unless it is kept.
struct Leased {
    store: Arc<Store>,
    buffer: Arc<Buffer>,
    kept: bool,
}

impl Leased {
    fn new(store: &Arc<Store>, buffer: Arc<Buffer>) -> Self {
        Self { store: Arc::clone(store), buffer, kept: false }
    }

    /// The same buffer once more: it ends with the first of the two that does.
    #[cfg(feature = "tokio")]
    fn twin(&self) -> Self {
        Self::new(&self.store, Arc::clone(&self.buffer))
    }

    /// Lets it live on, under this name.
    fn keep(mut self) -> Id {
        self.kept = true;
        self.buffer.id().clone()
    }
}

impl std::ops::Deref for Leased {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if !self.kept && !arena::in_child() {
            self.store.end(self.id(), |live| std::ptr::eq(live, &*self.buffer), Ended::Freed);
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Manager").field(&self.statistics()).finish()
    }
}
