//! Data encrypted for storage or transport, under keys that have names, ages and ends.
//!
//! A [`Keyring`] keeps keys in arenas. One of them encrypts; those before it decrypt until their retention is over, and are wiped
//! at that time. Content goes from a slot, or from an [`Input`] that is wiped, into a record, and from a record into a
//! slot: in the clear it is in arenas alone, and what is computed of it and of keys stands on a stack that is wiped.
//!
//! ```
//! use secmem::records::{Config, Error, Keyring};
//! use secmem::Secret;
//!
//! let keys = Keyring::new(Config::default())?;
//! let mut token = *b"a bearer token";
//! let record = keys.encrypt(&mut token, b"user 7")?; // bytes to store or to send
//! assert_eq!(token, [0; 14]); // the input was wiped
//!
//! let opened = keys.decrypt(&record, b"user 7", Secret::options())?;
//! assert!(opened.with(|bytes| bytes == b"a bearer token")?);
//! assert!(matches!(keys.decrypt(&record, b"user 8", Secret::options()), Err(Error::Altered)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is true of a record
//!
//! - It has a time, which is authenticated. [`Keyring::decrypt`] takes records of the last 24 hours, [`Keyring::decrypt_once`] each
//!   of them once, [`Keyring::decrypt_stored`] of any age. The memory of those seen is this process's: it does not survive a
//!   restart and is not shared.
//! - Its key and nonce are derived for it alone from a salt of 32 random bytes, so that a key has no number of records that it
//!   must not exceed.
//! - A key's name is derived from the key: a record of another key is told apart from one that was changed.
//!
//! After a restart keys come back by [`Keyring::import`] or [`Keyring::with_key`]; a key that was not exported is gone with the process, and
//! its records with it. The format is [`Header`]'s; the repository keeps records that later versions have to read.

pub(crate) mod cipher;
mod config;
mod error;
mod event;
mod format;
mod key;
mod metrics;
pub(crate) mod replay;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

pub use config::Config;
pub use error::Error;
pub use event::{Event, Failure};
pub use format::{Cipher, Header, KeyId, OVERHEAD, VERSION};
pub use key::{KeyInfo, KeyState};
pub use metrics::Metrics;

use crate::manager::{self, Audience, Digest, Events, Hash, Id, Input, Manager, Token};
use crate::secret::{Options, Secret};
use crate::wall::Wall;
use crate::{arena, ct, keystream, wipe};
use cipher::{KEY, Way};
use format::Kind;
use key::{Key, Keys};
use metrics::{Count, Counts};
use replay::Seen;

/// Bytes of a wrapped key's content: the key, when it was made, when it was retired (0: it is not).
const WRAPPED: usize = KEY + 16;

/// What the derivation for one record is for.
const INFO: [&[u8]; 2] = [b"secmem record v1\x01", b"secmem record v1\x02"];

/// Keys, and what is encrypted and decrypted with them. Clones are the same keyring; when the last is dropped the keys are wiped.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    me: Weak<Ring>,
    config: Config,
    wall: Wall,
    keys: Mutex<Keys>,
    seen: Mutex<Seen>,
    counts: Counts,
    audience: Audience<Event>,
    closed: AtomicBool,
}

/// How old a record may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Window,
    Once,
    Any,
}

/// One key has taken another's place.
struct Rotated {
    from: KeyId,
    to: KeyId,
}

impl Keyring {
    /// A keyring with a key that is drawn.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the limits cannot be; [`Error::Memory`] where the kernel gives no memory or no random bytes.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let wall = Wall::new(config.clock);
        Ok(Self::of(config, Key::draw(&config, wall.now())?, wall))
    }

    /// A keyring whose key is `key`, as if it was drawn now: the way back to a key that the caller keeps elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`] if it has not 32 bytes; as [`new`](Self::new).
    pub fn with_key(config: Config, key: Secret) -> Result<Self, Error> {
        config.check()?;
        let wall = Wall::new(config.clock);
        Ok(Self::of(config, Key::of(key, wall.now())?, wall))
    }

    fn of(config: Config, key: Key, wall: Wall) -> Self {
        Self(Arc::new_cyclic(|me| Ring {
            me: Weak::clone(me),
            config,
            wall,
            keys: Mutex::new(Keys { list: vec![key], revoked: BTreeSet::new() }),
            seen: Mutex::default(),
            counts: Counts::default(),
            audience: Audience::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// Encrypts `content` and wipes it where it stood, whatever comes of the call. `associated` is not part of the record,
    /// and has to be the same when it is decrypted.
    ///
    /// # Errors
    ///
    /// [`Error::Size`]; [`Error::Memory`]; as for all operations, [`Error::Shutdown`] after the shutdown, and [`Error::Memory`] with
    /// [`Forked`](crate::Error::Forked) in a forked child.
    pub fn encrypt<'a>(&self, content: impl Into<Input<'a>>, associated: &[u8]) -> Result<Vec<u8>, Error> {
        let content = content.into();
        self.0.encrypt(None, content.bytes(), associated)
    }

    /// [`encrypt`](Self::encrypt) with a key of the caller's choice: one that encrypts, or did within the grace period.
    ///
    /// # Errors
    ///
    /// [`Error::KeyRetired`], [`Error::UnknownKey`], [`Error::KeyExpired`], [`Error::KeyRevoked`]; as [`encrypt`](Self::encrypt).
    pub fn encrypt_with<'a>(
        &self,
        key: &KeyId,
        content: impl Into<Input<'a>>,
        associated: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let content = content.into();
        self.0.encrypt(Some(key), content.bytes(), associated)
    }

    /// Encrypts what a secret holds, from its slot. It stays as it is.
    ///
    /// # Errors
    ///
    /// As [`encrypt`](Self::encrypt) and [`Secret::with`].
    pub fn encrypt_secret(&self, content: &Secret, associated: &[u8]) -> Result<Vec<u8>, Error> {
        content.with(|content| self.0.encrypt(None, content, associated))?
    }

    /// Encrypts the data of a manager's buffer, from its slot. It stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`]; as [`encrypt`](Self::encrypt).
    pub fn encrypt_buffer(
        &self,
        (manager, owner): (&Manager, &Token),
        id: &Id,
        associated: &[u8],
    ) -> Result<Vec<u8>, Error> {
        manager.read(owner, id, .., |content| self.0.encrypt(None, content, associated))?
    }

    /// Decrypts a record of the window into a slot, made as `options` say.
    ///
    /// # Errors
    ///
    /// [`Error::NoRecord`], [`Error::Version`], [`Error::Cipher`], [`Error::Truncated`], [`Error::Trailing`] for what cannot be
    /// one; [`Error::UnknownKey`], [`Error::KeyExpired`], [`Error::KeyRevoked`]; [`Error::Altered`]; [`Error::TooOld`],
    /// [`Error::Future`]; [`Error::Size`]; [`Error::Memory`]. Nothing of the content is kept then.
    pub fn decrypt(&self, record: &[u8], associated: &[u8], options: Options) -> Result<Secret, Error> {
        self.0.decrypt(record, associated, options, Age::Window)
    }

    /// [`decrypt`](Self::decrypt), and no second time.
    ///
    /// # Errors
    ///
    /// [`Error::Replayed`] if it was here before, [`Error::Crowded`] if no more can be remembered; as [`decrypt`](Self::decrypt).
    pub fn decrypt_once(&self, record: &[u8], associated: &[u8], options: Options) -> Result<Secret, Error> {
        self.0.decrypt(record, associated, options, Age::Once)
    }

    /// [`decrypt`](Self::decrypt), of any age: for what was stored, where an old record is no replayed one.
    ///
    /// # Errors
    ///
    /// As [`decrypt`](Self::decrypt), except for those of time.
    pub fn decrypt_stored(&self, record: &[u8], associated: &[u8], options: Options) -> Result<Secret, Error> {
        self.0.decrypt(record, associated, options, Age::Any)
    }

    /// [`decrypt`](Self::decrypt) into a manager's buffer, whose data the content becomes.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`]; as [`decrypt`](Self::decrypt). The buffer's data are as before then, unless its writing failed.
    pub fn decrypt_into(
        &self,
        record: &[u8],
        associated: &[u8],
        (manager, owner): (&Manager, &Token),
        id: &Id,
    ) -> Result<(), Error> {
        let content = self.decrypt(record, associated, Secret::options().policy(self.0.config.policy))?;
        content.with(|content| {
            manager.fill(owner, id, content.len(), |slot| {
                wipe::copy(content, slot);
                Ok::<(), manager::Error>(())
            })
        })??;
        Ok(())
    }

    /// Encrypts a record anew under the key of today. Its time stays what it was: that does not make an old record a new one. It is
    /// another record, though: where the first one has been taken by [`decrypt_once`](Self::decrypt_once), this one will be, too.
    ///
    /// # Errors
    ///
    /// As [`decrypt_stored`](Self::decrypt_stored) and [`encrypt`](Self::encrypt).
    pub fn reencrypt(&self, record: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.reencrypt(record, associated)
    }

    /// Draws a key that encrypts from now on; gives its name.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]; [`Error::Shutdown`].
    pub fn rotate(&self) -> Result<KeyId, Error> {
        let rotated = self.0.rotate(&mut *self.0.open()?)?;
        Ok(self.0.tell_rotated(rotated))
    }

    /// Wipes a key. What it has encrypted is gone. If it is the one that encrypts, another takes its place first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`], [`Error::KeyExpired`], [`Error::KeyRevoked`]; as [`rotate`](Self::rotate).
    pub fn revoke(&self, id: &KeyId) -> Result<(), Error> {
        let revoked = self.0.revoke(id);
        self.0.audience.tell(|| match &revoked {
            Ok(()) => Event::KeyRevoked { key: *id },
            Err(error) => Event::RevocationFailed { key: *id, why: failure(error) },
        });
        revoked
    }

    /// Encrypts a key under another one, of 32 bytes, so that it can be kept or sent: a record of its own kind.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`], [`Error::KeyExpired`], [`Error::KeyRevoked`]; [`Error::KeyLength`]; [`Error::Memory`].
    pub fn export(&self, id: &KeyId, wrapping: &Secret) -> Result<Vec<u8>, Error> {
        let wrapped = self.0.export(id, wrapping);
        if let Err(error) = &wrapped {
            self.0.audience.tell(|| Event::ExportFailed { key: *id, why: failure(error) });
        }
        wrapped
    }

    /// Takes in a key that was exported. It decrypts for as long as its retention says, counted from when it was retired, or
    /// from now if it was not.
    ///
    /// # Errors
    ///
    /// [`Error::Altered`] if it was changed or wrapped under another key; [`Error::KnownKey`]; [`Error::KeyExpired`] if its
    /// retention is over; as [`decrypt`](Self::decrypt) for what is no wrapped key.
    pub fn import(&self, wrapped: &[u8], wrapping: &Secret) -> Result<KeyId, Error> {
        let taken_in = self.0.import(wrapped, wrapping);
        if let Err(error) = &taken_in {
            self.0.audience.tell(|| Event::ImportFailed { why: failure(error) });
        }
        taken_in
    }

    /// The key that encrypts.
    ///
    /// # Errors
    ///
    /// [`Error::Shutdown`]; [`Error::Memory`] in a forked child.
    pub fn active(&self) -> Result<KeyId, Error> {
        Ok(self.0.open()?.active()?.id)
    }

    /// What there is to know about the keys, those that ended among them; the one that encrypts is the last.
    ///
    /// # Errors
    ///
    /// As [`active`](Self::active).
    pub fn keys(&self) -> Result<Vec<KeyInfo>, Error> {
        let now = self.0.wall.now();
        Ok(self.0.open()?.list.iter().map(|key| key.info(now)).collect())
    }

    /// The hash of a whole record, from its first byte to its last: whoever stores records elsewhere can keep it here.
    ///
    /// # Errors
    ///
    /// [`Error::NoRecord`] and the like for what is none; [`Error::Buffer`] if the hash could not be computed.
    pub fn data_hash(&self, record: &[u8]) -> Result<Digest, Error> {
        format::split(record, Kind::Data)?;
        Ok(Hash::Sha256.of(record)?)
    }

    /// Whether a record has this hash; what is no record has not. The time does not depend on where they differ.
    ///
    /// # Errors
    ///
    /// As [`data_hash`](Self::data_hash), for the computation alone.
    pub fn verify_data_hash(&self, record: &[u8], hash: &Digest) -> Result<bool, Error> {
        let of_record = match self.data_hash(record) {
            Err(error @ (Error::Buffer(_) | Error::Memory(_))) => return Err(error),
            digest => digest.ok(),
        };
        let same = of_record.is_some_and(|it| ct::eq(it.as_bytes(), hash.as_bytes()));
        if !same {
            self.0.counts.add(Count::HashMismatch, 1);
            self.0.audience.tell(|| Event::HashMismatch { len: record.len() });
        }
        Ok(same)
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.0.counts.take(false)
    }

    /// What was done so far; the counts begin again at zero, and that is told as an event.
    pub fn reset_metrics(&self) -> Metrics {
        let metrics = self.0.counts.take(true);
        self.0.audience.tell(|| Event::MetricsReset);
        metrics
    }

    /// The events from now on; `room` is how many wait to be taken before the oldest is lost.
    #[must_use]
    pub fn events(&self, room: usize) -> Events<Event> {
        self.0.audience.join(room)
    }

    /// Writes what is done with keys, and what was refused, to `journal`, from now on. No record, content or key is handed out
    /// then whose entry could not be written: that is [`Error::Unrecorded`]. A record that [`decrypt_once`](Self::decrypt_once) did not
    /// hand out for that counts as decrypted.
    ///
    /// # Errors
    ///
    /// [`Attached`](crate::journal::Error::Attached) if there is a journal already.
    #[cfg(feature = "journal")]
    pub fn record_in(&self, journal: &crate::journal::Journal) -> Result<(), crate::journal::Error> {
        self.0.audience.record_in(journal)
    }

    /// Wipes every key; no operation works any more. Gives how many there were.
    pub fn shutdown(&self) -> usize {
        let Ok(mut keys) = self.0.open() else { return 0 };
        self.0.closed.store(true, Ordering::Release);
        if cfg!(secmem_ablate = "record-shutdown") {
            std::mem::forget(std::mem::take(&mut keys.list));
        }
        let live = |key: &&mut Key| matches!(key.state(), KeyState::Active | KeyState::Retired);
        let wiped = keys.list.iter_mut().filter(live).map(Key::revoke).count();
        keys.list.clear();
        drop(keys);
        self.0.audience.tell(|| Event::Shutdown { keys: wiped });
        wiped
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Ring {
    fn open(&self) -> Result<MutexGuard<'_, Keys>, Error> {
        if arena::in_child() {
            return Err(Error::Memory(crate::Error::Forked)); // the lock may be held by a thread that is not there
        }
        // Nothing is half done where the lock is held and something could panic.
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) { Err(Error::Shutdown) } else { Ok(keys) }
    }

    fn revoke(&self, id: &KeyId) -> Result<(), Error> {
        let mut keys = self.open()?;
        keys.find(id)?.secret()?;
        let is_active = keys.active()?.id == *id;
        let rotated = is_active.then(|| self.rotate(&mut keys)).transpose()?;
        keys.find(id)?.revoke();
        keys.revoked.insert(id.0);
        drop(keys);
        rotated.map(|rotated| self.tell_rotated(rotated));
        Ok(())
    }

    /// To be told when the keys' lock is given back: whoever hears it may want to use them.
    fn rotate(&self, keys: &mut Keys) -> Result<Rotated, Error> {
        let now = self.wall.now();
        let key = Key::draw(&self.config, now)?;
        let to = key.id;
        let from = keys.succeed(Weak::clone(&self.me), &self.config, key, now)?;
        self.counts.add(Count::Rotated, 1);
        Ok(Rotated { from, to })
    }

    fn tell_rotated(&self, Rotated { from, to }: Rotated) -> KeyId {
        self.audience.tell(|| Event::Rotated { from, to });
        to
    }

    /// The key for a new record.
    fn key_to_encrypt(&self, asked: Option<&KeyId>) -> Result<(KeyId, Arc<Secret>), Error> {
        let mut keys = self.open()?;
        let now = self.wall.now();
        if let Some(rotation) = self.config.rotation
            && Duration::from_millis(now.saturating_sub(keys.active()?.made)) >= rotation
        {
            let rotated = self.rotate(&mut keys)?;
            drop(keys);
            self.tell_rotated(rotated);
            keys = self.open()?;
        }
        let Some(id) = asked else {
            let key = keys.active()?;
            return Ok((key.id, key.secret()?));
        };
        let key = keys.find(id)?;
        let secret = key.secret()?;
        match key.retired {
            Some(at) if Duration::from_millis(now.saturating_sub(at)) > self.config.grace => {
                Err(Error::KeyRetired { id: *id })
            }
            _ => Ok((*id, secret)),
        }
    }

    fn encrypt(&self, key: Option<&KeyId>, content: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
        let made = self.key_to_encrypt(key).and_then(|(id, secret)| {
            let record =
                self.seal((id, &secret), Kind::Data, self.config.cipher, self.wall.now(), content, associated)?;
            self.audience.record(|| Event::Encrypted { key: id, len: content.len() })?;
            Ok(record)
        });
        match made {
            Ok(record) => {
                self.counts.add(Count::Encrypted, 1);
                self.counts.add(Count::BytesEncrypted, content.len() as u64);
                Ok(record)
            }
            Err(error) => {
                self.counts.add(Count::EncryptionFailed, 1);
                let (key, why) = (key.copied(), failure(&error));
                self.audience.tell(|| Event::EncryptionFailed { key, len: content.len(), why });
                Err(error)
            }
        }
    }

    fn seal(
        &self,
        (id, key): (KeyId, &Secret),
        kind: Kind,
        cipher: Cipher,
        millis: u64,
        content: &[u8],
        associated: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let (len, most) = (content.len(), self.config.largest);
        if len > most {
            return Err(Error::Size { len, most });
        }
        let mut salt = [0; 32];
        keystream::from_kernel(&mut salt)?;
        let header = Header { version: VERSION, cipher, key: id, millis, len, kind, salt };
        let encoded = header.encode();
        // In a slot, for it is the content until it is encrypted.
        let mut work = Secret::options().policy(self.config.policy).zeroed(len)?;
        let authenticated = authenticated(&encoded, associated);
        let tag = work.slot.write(|work| {
            wipe::copy(content, work);
            cipher::apply(cipher, (key, &salt, INFO[kind as usize - 1]), &authenticated, work, Way::Seal)
        })??;
        let tag = tag.ok_or(Error::Size { len, most })?; // a cipher refuses a length alone
        let mut record = Vec::with_capacity(len + OVERHEAD);
        record.extend_from_slice(&encoded);
        work.with(|ciphertext| record.extend_from_slice(ciphertext))?;
        record.extend_from_slice(&tag);
        Ok(record)
    }

    fn decrypt(&self, record: &[u8], associated: &[u8], options: Options, age: Age) -> Result<Secret, Error> {
        let opened = self.unseal(record, associated, options, age).and_then(|(header, content)| {
            self.audience.record(|| Event::Decrypted { key: header.key, len: content.len() })?;
            Ok(content)
        });
        match opened {
            Ok(content) => {
                self.counts.add(Count::Decrypted, 1);
                self.counts.add(Count::BytesDecrypted, content.len() as u64);
                Ok(content)
            }
            Err(error) => {
                let why = failure(&error);
                self.counts.add(Count::DecryptionFailed, 1);
                match why {
                    Failure::Altered => self.counts.add(Count::Altered, 1),
                    Failure::Time => self.counts.add(Count::OutOfTime, 1),
                    Failure::Replayed => self.counts.add(Count::Replayed, 1),
                    _ => {}
                }
                let key = Header::read(record).ok().map(|header| header.key);
                self.audience.tell(|| Event::DecryptionFailed { key, why });
                Err(error)
            }
        }
    }

    fn unseal(&self, record: &[u8], associated: &[u8], options: Options, age: Age) -> Result<(Header, Secret), Error> {
        let (header, _, tag) = format::split(record, Kind::Data)?;
        let key = self.open()?.find(&header.key)?.secret()?;
        let content = self.open_with(&key, record, Kind::Data, associated, options)?;
        // What is not authenticated says nothing about time.
        if age != Age::Any {
            let now = self.wall.now();
            replay::in_time(header.millis, now, self.config.window, self.config.tolerance)?;
            if age == Age::Once {
                let window = u64::try_from(self.config.window.as_millis()).unwrap_or(u64::MAX);
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.remember(&header, tag, now.saturating_sub(window), self.config.remembered)?;
            }
        }
        Ok((header, content))
    }

    /// Opens a record that is one of its kind.
    fn open_with(
        &self,
        key: &Secret,
        record: &[u8],
        kind: Kind,
        associated: &[u8],
        options: Options,
    ) -> Result<Secret, Error> {
        let (header, ciphertext, tag) = format::split(record, kind)?;
        let (len, most) = (header.len, self.config.largest);
        if len > most {
            return Err(Error::Size { len, most });
        }
        let mut opened = options.zeroed(len)?;
        let authenticated = authenticated(&record[..format::HEADER], associated);
        let is_ours = opened.slot.write(|slot| {
            wipe::copy(ciphertext, slot);
            let info = INFO[kind as usize - 1];
            cipher::apply(header.cipher, (key, &header.salt, info), &authenticated, slot, Way::Open(tag))
        });
        match is_ours? {
            Ok(Some(_)) => Ok(opened),
            Ok(None) => Err(Error::Altered),
            // The key's time came between the look at it and its use.
            Err(crate::Error::Expired) => Err(Error::KeyExpired { id: header.key }),
            Err(crate::Error::Wiped) => Err(Error::KeyRevoked { id: header.key }),
            Err(error) => Err(Error::Memory(error)),
        }
    }

    fn reencrypt(&self, record: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
        let options = Secret::options().policy(self.config.policy);
        let (header, content) = self.unseal(record, associated, options, Age::Any)?;
        let (to, key) = self.key_to_encrypt(None)?;
        let anew = content.with(|content| {
            self.seal((to, &key), Kind::Data, self.config.cipher, header.millis, content, associated)
        })??;
        self.audience.record(|| Event::Reencrypted { from: header.key, to })?;
        self.counts.add(Count::Reencrypted, 1);
        Ok(anew)
    }

    fn export(&self, id: &KeyId, wrapping: &Secret) -> Result<Vec<u8>, Error> {
        if wrapping.len() != KEY {
            return Err(Error::KeyLength { len: wrapping.len() });
        }
        let (secret, made, retired) = {
            let mut keys = self.open()?;
            let key = keys.find(id)?;
            (key.secret()?, key.made, key.retired.unwrap_or(0))
        };
        let mut content = Secret::options().policy(self.config.policy).zeroed(WRAPPED)?;
        secret.with(|key| {
            content.slot.write(|slot| {
                wipe::copy(key, &mut slot[..KEY]);
                slot[KEY..KEY + 8].copy_from_slice(&made.to_le_bytes());
                slot[KEY + 8..].copy_from_slice(&retired.to_le_bytes());
            })
        })??;
        let cipher = Cipher::XChaCha20Poly1305;
        let wrapped =
            content.with(|content| self.seal((*id, wrapping), Kind::Key, cipher, self.wall.now(), content, &[]))??;
        self.audience.record(|| Event::KeyExported { key: *id })?;
        Ok(wrapped)
    }

    fn import(&self, wrapped: &[u8], wrapping: &Secret) -> Result<KeyId, Error> {
        if wrapping.len() != KEY {
            return Err(Error::KeyLength { len: wrapping.len() });
        }
        let options = Secret::options().policy(self.config.policy);
        let content = self.open_with(wrapping, wrapped, Kind::Key, &[], options)?;
        if content.len() != WRAPPED {
            return Err(Error::NoRecord);
        }
        let (header, _, _) = format::split(wrapped, Kind::Key)?;
        let mut secret = Secret::options().policy(self.config.policy).zeroed(KEY)?;
        let mut times = [[0; 8]; 2];
        content.with(|content| {
            times[0].copy_from_slice(&content[KEY..KEY + 8]);
            times[1].copy_from_slice(&content[KEY + 8..]);
            secret.slot.write(|slot| wipe::copy(&content[..KEY], slot))
        })??;
        let [made, retired] = times.map(u64::from_le_bytes);
        let now = self.wall.now();
        let mut key = Key::of(secret, made)?;
        if key.id != header.key {
            return Err(Error::Altered);
        }
        key.retire(Weak::clone(&self.me), &self.config, if retired == 0 { now } else { retired.min(now) }, now)?;
        let id = key.id;
        // What is known is not written as taken in, and what could not be written is not taken in. In between nobody waits for a disk.
        self.open()?.is_new(&id)?;
        self.audience.record(|| Event::KeyImported { key: id })?;
        let mut keys = self.open()?;
        keys.is_new(&id)?;
        let behind_active = keys.list.len().saturating_sub(1);
        keys.list.insert(behind_active, key);
        Ok(id)
    }
}

/// What the tag covers beside the content.
pub(crate) fn authenticated(header: &[u8], associated: &[u8]) -> Vec<u8> {
    let mut all = [header, &(associated.len() as u64).to_le_bytes(), associated].concat();
    if cfg!(secmem_ablate = "records-window") {
        all[24..32].fill(0); // the time
    }
    all
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::NoRecord
        | Error::Version { .. }
        | Error::Cipher { .. }
        | Error::Truncated { .. }
        | Error::Trailing { .. } => Failure::Malformed,
        Error::Altered => Failure::Altered,
        Error::UnknownKey { .. }
        | Error::KeyRetired { .. }
        | Error::KeyExpired { .. }
        | Error::KeyRevoked { .. }
        | Error::KnownKey { .. } => Failure::Key,
        Error::TooOld { .. } | Error::Future { .. } => Failure::Time,
        Error::Replayed => Failure::Replayed,
        #[cfg(feature = "journal")]
        Error::Unrecorded(_) => Failure::Unrecorded,
        _ => Failure::Other,
    }
}
