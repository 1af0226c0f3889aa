//! Records that a quantum computer does not open, under keys that are derived when they are needed and stored nowhere.
//!
//! A key is a seed, and a seed is derived from a base secret, a salt and the key's name by a function that needs much memory. So
//! whoever has base secret and salt has all keys: after a restart, and on another machine. Content is encrypted under what
//! an encapsulation to the public key agrees on, fresh for each record.
//!
//! ```
//! use secmem::pqc::{Config, Cost, Error, Keys};
//! use secmem::Secret;
//!
//! # let cost = Cost { memory: 64, passes: 1, lanes: 1 };
//! let base = Secret::try_from(b"32 bytes at least, and drawn at random".to_vec())?;
//! let salt = Secret::try_from(b"16 bytes at least".to_vec())?;
//! let keys = Keys::new(base, salt, Config::default().cost(cost))?;
//! let key = "biometrics".parse()?;
//! let record = keys.encrypt(&key, &mut *b"a template".to_vec(), b"user 7")?;
//!
//! let opened = keys.decrypt(&record, b"user 7", Secret::options())?;
//! assert!(opened.with(|bytes| bytes == b"a template")?);
//! assert!(matches!(keys.decrypt(&record, b"user 8", Secret::options()), Err(Error::Altered)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is forward secret, and what is not
//!
//! Nothing is as long as the base secret is kept: it opens every record of its epoch, and, as the ratchet goes forward for
//! everybody, of every later one. [`Keys::ratchet`] derives the base secret of the next epoch and destroys this one's: from then on
//! this process opens no record of an epoch before, and neither does who takes its memory. That holds for the world only if
//! nobody has the old base secret any more, wherever it came from: the environment of a service, a file, a backup. Who wants that
//! keeps what [`Keys::export`] gives, and destroys the origin.
//!
//! A base secret that has too little in it can be guessed; the memory-hard function makes a guess dearer, and no more. The ratchet does
//! not go through it: whoever has a later base secret tries guesses of an earlier one at the price of a hash. So "neither does who
//! takes its memory" holds for base secrets that are drawn at random, and for no others.
//!
//! # What a record proves
//!
//! That nobody has changed it who has not made it. Not who that was: whoever has a public key can make a record with it, of any
//! content and any time. Where it matters who has written something, sign it, or use [`records`](crate::records).

mod error;
mod event;
mod format;
pub(crate) mod kem;
pub(crate) mod stretch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha3::{Digest as _, Sha3_256};

pub use error::Error;
pub use event::Event;
pub use format::{Header, VERSION};
pub use kem::Algorithm;
pub use stretch::Cost;

use crate::deadline::{Clock, TestClock};
use crate::manager::settings::{SHORTEST_SALT, SHORTEST_SECRET};
use crate::manager::{Audience, Events, Id, Input, Settings};
use crate::policy::Policy;
use crate::records::cipher::{self, Way};
use crate::records::{Cipher, Failure, replay};
use crate::secret::{Options, Secret};
use crate::wall::Wall;
use crate::{arena, keystream, wipe};
use kem::SHARED;

/// Bytes of the base secret of later epochs.
const RATCHETED: usize = 64;
/// Epochs that a record may be ahead of this process.
const AHEAD: u32 = 1 << 12;
/// Public keys that are remembered: no secret, but each took a derivation.
const REMEMBERED: usize = 256;

/// How [`Keys`] work. Everything has a value if nothing is said.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Config {
    algorithm: Algorithm,
    cipher: Cipher,
    cost: Cost,
    most: Option<Cost>,
    window: Duration,
    tolerance: Duration,
    largest: usize,
    policy: Policy,
    clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            cipher: Cipher::default(),
            cost: Cost::default(),
            most: None,
            window: Duration::from_secs(24 * 3600),
            tolerance: Duration::from_secs(60),
            largest: 16 << 20,
            policy: Policy::default(),
            clock: Clock::default(),
        }
    }
}

impl Config {
    /// How new records agree on a key; X-Wing if not said. Records of all are read.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The cipher of new records; AES-256-GCM if not said.
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// What the derivation of keys for new records costs. Another cost is another key of that name.
    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// What a record may cost that is to be decrypted; what new ones cost, if not said. A record can be anybody's, and says itself
    /// what it costs: whoever reads records of another cost says so here.
    pub fn most_cost(mut self, cost: Cost) -> Self {
        self.most = Some(cost);
        self
    }

    fn most(&self) -> Cost {
        self.most.unwrap_or(self.cost)
    }

    /// How old a record may be to be taken; 24 hours if not said.
    pub fn window(mut self, span: Duration) -> Self {
        self.window = span;
        self
    }

    /// Bytes that a record may hold; 16 MiB if not said.
    pub fn max_len(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// What the memory of secrets and content must have: see [`Options::policy`].
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = policy.into();
        self
    }

    /// Takes the time from a test's clock, on top of the time that it is when the keys are made.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }
}

/// Keys that are derived from a base secret when they are needed. Clones are the same keys.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    config: Config,
    wall: Wall,
    state: Mutex<State>,
    audience: Audience<Event>,
}

struct State {
    epoch: u32,
    base: Arc<Secret>,
    salt: Arc<Secret>,
    /// By name, of this epoch.
    public: BTreeMap<String, PublicKey>,
}

/// What somebody needs to encrypt for a key: no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    cost: Cost,
    epoch: u32,
    key: Id,
    bytes: Arc<[u8]>,
}

impl Keys {
    /// Keys of a base secret and a salt, in epoch 0.
    ///
    /// # Errors
    ///
    /// [`Error::Short`] if the base secret has less than 32 bytes or the salt less than 16; [`Error::Cost`] for a cost that
    /// Argon2 does not know, or more than may be.
    pub fn new(base: Secret, salt: Secret, config: Config) -> Result<Self, Error> {
        Self::at_epoch(0, base, salt, config)
    }

    /// Keys of a later epoch, whose base secret [`export`](Self::export) has given.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn at_epoch(epoch: u32, base: Secret, salt: Secret, config: Config) -> Result<Self, Error> {
        if base.len() < SHORTEST_SECRET || salt.len() < SHORTEST_SALT {
            return Err(Error::Short);
        }
        if !config.cost.is_within(&config.most()) {
            return Err(Error::Cost { asked: config.cost });
        }
        let state = State { epoch, base: Arc::new(base), salt: Arc::new(salt), public: BTreeMap::new() };
        let (state, audience) = (Mutex::new(state), Audience::default());
        Ok(Self(Arc::new(Inner { config, wall: Wall::new(config.clock), state, audience })))
    }

    /// Keys of the settings' secrets, which move here: `PQC_BASE_SECRET` and `PQC_KEY_SALT`. In development, where one is not set,
    /// it is drawn at random: no record can be read after the process then.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); [`Error::Memory`] if the kernel gave no memory or no random bytes.
    pub fn from_settings(settings: &mut Settings, config: Config) -> Result<Self, Error> {
        let drawn = |len| -> Result<Secret, Error> {
            let mut drawn = Secret::options().policy(config.policy).zeroed(len)?;
            drawn.slot.write(keystream::from_kernel)??;
            Ok(drawn)
        };
        let base = settings.base_secret.take().map_or_else(|| drawn(SHORTEST_SECRET), Ok)?;
        let salt = settings.key_salt.take().map_or_else(|| drawn(SHORTEST_SALT), Ok)?;
        Self::new(base, salt, config)
    }

    /// The public key of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] where the kernel gives no memory, for the derivation above all.
    pub fn public_key(&self, key: &Id) -> Result<PublicKey, Error> {
        let config = &self.0.config;
        let name = key.to_string();
        let (base, salt, epoch) = {
            let state = self.0.lock()?;
            if let Some(public) = state.public.get(&name) {
                return Ok(public.clone());
            }
            (Arc::clone(&state.base), Arc::clone(&state.salt), state.epoch)
        };
        let seed = self.0.seed(config.algorithm, config.cost, (&base, &salt), key)?;
        let bytes = seed.with(|seed| kem::public_key(config.algorithm, seed))??.ok_or(Error::PublicKey)?;
        let public =
            PublicKey { algorithm: config.algorithm, cost: config.cost, epoch, key: key.clone(), bytes: bytes.into() };
        let mut state = self.0.lock()?;
        if state.epoch == epoch {
            if state.public.len() >= REMEMBERED {
                state.public.pop_first();
            }
            state.public.insert(name, public.clone());
        }
        Ok(public)
    }

    /// Encrypts `content` for the key of that name, and wipes it where it stood, whatever comes of the call.
    ///
    /// # Errors
    ///
    /// [`Error::Size`]; [`Error::Memory`]. As for all operations, the latter with [`Forked`](crate::Error::Forked) in a forked child.
    pub fn encrypt<'a>(&self, key: &Id, content: impl Into<Input<'a>>, associated: &[u8]) -> Result<Vec<u8>, Error> {
        let content = content.into();
        let record = self.public_key(key).and_then(|public| self.0.seal(&public, content.bytes(), associated));
        self.0.made(key, content.bytes().len(), record)
    }

    /// Encrypts what a secret holds, from its slot. It stays as it is.
    ///
    /// # Errors
    ///
    /// As [`encrypt`](Self::encrypt) and [`Secret::with`].
    pub fn encrypt_secret(&self, key: &Id, content: &Secret, associated: &[u8]) -> Result<Vec<u8>, Error> {
        let seal = |public: PublicKey| content.with(|content| self.0.seal(&public, content, associated))?;
        self.0.made(key, content.len(), self.public_key(key).and_then(seal))
    }

    /// Decrypts a record of the window into a slot, made as `options` say.
    ///
    /// # Errors
    ///
    /// [`Error::NoRecord`], [`Error::Version`], [`Error::Algorithm`], [`Error::Truncated`], [`Error::Trailing`], [`Error::Id`] for what
    /// cannot be one; [`Error::OtherKey`] for one of another base secret or salt; [`Error::EpochGone`], [`Error::EpochAhead`];
    /// [`Error::Cost`]; [`Error::Altered`]; [`Error::TooOld`], [`Error::Future`]; [`Error::Size`]; [`Error::Memory`].
    pub fn decrypt(&self, record: &[u8], associated: &[u8], options: Options) -> Result<Secret, Error> {
        let opened = self.0.open(record, associated, options).and_then(|(header, content)| {
            let config = &self.0.config;
            replay::in_time(header.millis, self.0.wall.now(), config.window, config.tolerance)?;
            Ok((header, content))
        });
        self.0.opened(record, opened)
    }

    /// [`decrypt`](Self::decrypt), of any age: for what was stored, where an old record is no replayed one.
    ///
    /// # Errors
    ///
    /// As [`decrypt`](Self::decrypt), except for those of time.
    pub fn decrypt_stored(&self, record: &[u8], associated: &[u8], options: Options) -> Result<Secret, Error> {
        self.0.opened(record, self.0.open(record, associated, options))
    }

    /// The epoch of the base secret.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] in a forked child.
    pub fn epoch(&self) -> Result<u32, Error> {
        Ok(self.0.lock()?.epoch)
    }

    /// Whether keys can still be derived: a purge ends the base secret and the salt, and not this value.
    #[cfg(feature = "http")]
    pub(crate) fn are_there(&self) -> bool {
        self.0.lock().is_ok_and(|state| [&state.base, &state.salt].iter().all(|it| it.with(|_| ()).is_ok()))
    }

    /// Derives the base secret of the next epoch and destroys this one's; gives the new epoch. There is no way back.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]; [`Error::EpochAhead`] after the last epoch. The epoch is as before then.
    pub fn ratchet(&self) -> Result<u32, Error> {
        let mut state = self.0.lock()?;
        let epoch = state.epoch;
        let next = epoch.checked_add(1).ok_or(Error::EpochAhead { epoch, now: epoch })?;
        let base = self.0.next(&state.base)?;
        if cfg!(secmem_ablate = "pqc-ratchet") {
            std::mem::forget(Arc::clone(&state.base));
        }
        state.base = Arc::new(base); // the old one is wiped when the last derivation with it ends
        state.epoch = next;
        state.public.clear();
        drop(state);
        self.0.audience.tell(|| Event::Ratcheted { epoch: next });
        Ok(next)
    }

    /// The epoch, and its base secret in a slot of its own: to be kept in place of the first one, for [`at_epoch`](Self::at_epoch).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn export(&self, options: Options) -> Result<(u32, Secret), Error> {
        let state = self.0.lock()?;
        let mut copy = options.zeroed(state.base.len())?;
        state.base.with(|base| copy.slot.write(|slot| wipe::copy(base, slot)))??;
        let epoch = state.epoch;
        drop(state);
        self.0.audience.record(|| Event::Exported { epoch })?;
        Ok((epoch, copy))
    }

    /// The events from now on; `room` is how many wait to be taken before the oldest is lost.
    #[must_use]
    pub fn events(&self, room: usize) -> Events<Event> {
        self.0.audience.join(room)
    }

    /// Writes what is done with keys, and what was refused, to `journal`, from now on. No record, content or base secret is
    /// handed out then whose entry could not be written: that is [`Error::Unrecorded`].
    ///
    /// # Errors
    ///
    /// [`Attached`](crate::journal::Error::Attached) if there is a journal already.
    #[cfg(feature = "journal")]
    pub fn record_in(&self, journal: &crate::journal::Journal) -> Result<(), crate::journal::Error> {
        self.0.audience.record_in(journal)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Its bytes, as the standard of its algorithm has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How a key is agreed on with it.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA3-256 of its bytes, which stands in records.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha3_256::digest(&*self.bytes).into()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("algorithm", &self.algorithm).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        if arena::in_child() {
            return Err(Error::Memory(crate::Error::Forked)); // the lock may be held by a thread that is not there
        }
        // Nothing is half done where the lock is held and something could panic.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn options(&self) -> Options {
        Secret::options().policy(self.config.policy)
    }

    /// Tells what came of a record that was to be made, and hands it out.
    fn made(&self, key: &Id, len: usize, record: Result<Vec<u8>, Error>) -> Result<Vec<u8>, Error> {
        let record = record.and_then(|record| {
            self.audience.record(|| Event::Encrypted { key: key.clone(), len })?;
            Ok(record)
        });
        if let Err(error) = &record {
            self.audience.tell(|| Event::EncryptionFailed { key: key.clone(), why: failure(error) });
        }
        record
    }

    /// Tells what came of a record that was to be opened, and hands its content out.
    fn opened(&self, record: &[u8], opened: Result<(Header, Secret), Error>) -> Result<Secret, Error> {
        let opened = opened.and_then(|(header, content)| {
            self.audience.record(|| Event::Decrypted { key: header.key, len: content.len() })?;
            Ok(content)
        });
        if let Err(error) = &opened {
            let key = Header::read(record).ok().map(|header| header.key);
            self.audience.tell(|| Event::DecryptionFailed { key, why: failure(error) });
        }
        opened
    }

    /// The base secret of the epoch after that of `base`.
    fn next(&self, base: &Secret) -> Result<Secret, Error> {
        let mut next = self.options().zeroed(RATCHETED)?;
        next.slot.write(|next| cipher::derive(base, &[], &[b"secmem pqc ratchet v1"], next))??;
        Ok(next)
    }

    /// The seed of a key: the key itself.
    fn seed(
        &self,
        algorithm: Algorithm,
        cost: Cost,
        (base, salt): (&Secret, &Secret),
        key: &Id,
    ) -> Result<Secret, Error> {
        let mut own = self.options().zeroed(32)?;
        let name = key.to_string();
        let info: [&[u8]; 3] = [b"secmem pqc salt v1", &[algorithm as u8], name.as_bytes()];
        own.slot.write(|own| cipher::derive(salt, &[], &info, own))??;
        let mut seed = self.options().zeroed(algorithm.seed_len())?;
        own.with(|own| stretch::stretch(cost, self.config.policy, base, own, &mut seed))??;
        Ok(seed)
    }

    fn seal(&self, public: &PublicKey, content: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
        let (len, most) = (content.len(), self.config.largest);
        if len > most {
            return Err(Error::Size { len, most });
        }
        let mut random = self.options().zeroed(public.algorithm.random_len())?;
        random.slot.write(keystream::from_kernel)??;
        let mut shared = self.options().zeroed(SHARED)?;
        let encapsulated = random.with(|random| {
            shared.slot.write(|shared| kem::encapsulate(public.algorithm, &public.bytes, random, shared))
        })??;
        let mut encapsulated = encapsulated?.ok_or(Error::PublicKey)?;
        drop(random);
        if cfg!(secmem_ablate = "pqc-secret") {
            shared.with(|shared| encapsulated[..SHARED].copy_from_slice(shared))?;
        }

        let (algorithm, cipher) = (public.algorithm, self.config.cipher);
        let fingerprint = public.fingerprint();
        let header = Header {
            algorithm,
            cipher,
            cost: public.cost,
            epoch: public.epoch,
            millis: self.wall.now(),
            len,
            key: public.key.clone(),
            fingerprint,
        };
        let mut record = header.encode(&encapsulated);
        let authenticated = crate::records::authenticated(&record, associated);
        // In a slot, for it is the content until it is encrypted.
        let mut work = self.options().zeroed(len)?;
        let tag = work.slot.write(|work| {
            wipe::copy(content, work);
            cipher::apply(cipher, (&shared, &fingerprint, info(algorithm)), &authenticated, work, Way::Seal)
        })??;
        let tag = tag.ok_or(Error::Size { len, most })?; // a cipher refuses a length alone
        work.with(|ciphertext| record.extend_from_slice(ciphertext))?;
        record.extend_from_slice(&tag);
        Ok(record)
    }

    fn open(&self, record: &[u8], associated: &[u8], options: Options) -> Result<(Header, Secret), Error> {
        let parts = format::split(record)?;
        let header = parts.header;
        let (len, most) = (header.len, self.config.largest);
        if len > most {
            return Err(Error::Size { len, most });
        }
        if !header.cost.is_within(&self.config.most()) {
            return Err(Error::Cost { asked: header.cost });
        }
        let (base, salt) = self.base_of(header.epoch)?;
        let seed = self.seed(header.algorithm, header.cost, (&base, &salt), &header.key)?;
        let public = seed.with(|seed| kem::public_key(header.algorithm, seed))??.ok_or(Error::PublicKey)?;
        if Sha3_256::digest(&public)[..] != header.fingerprint {
            return Err(Error::OtherKey);
        }
        let mut shared = self.options().zeroed(SHARED)?;
        let agreed = seed.with(|seed| {
            shared.slot.write(|shared| kem::decapsulate(header.algorithm, seed, parts.encapsulated, shared))
        })??;
        agreed?.ok_or(Error::Altered)?;
        if cfg!(secmem_ablate = "pqc-secret") {
            shared.slot.write(|shared| shared.copy_from_slice(&parts.encapsulated[..SHARED]))?;
        }
        drop(seed);

        let mut opened = options.zeroed(len)?;
        let authenticated = crate::records::authenticated(parts.prefix, associated);
        let is_ours = opened.slot.write(|slot| {
            wipe::copy(parts.content, slot);
            let derived = (&shared, &header.fingerprint[..], info(header.algorithm));
            cipher::apply(header.cipher, derived, &authenticated, slot, Way::Open(parts.tag))
        })??;
        is_ours.ok_or(Error::Altered)?;
        Ok((header, opened))
    }

    /// The base secret of an epoch, this one's or a later one's, and the salt.
    fn base_of(&self, epoch: u32) -> Result<(Arc<Secret>, Arc<Secret>), Error> {
        let (mut base, salt, now) = {
            let state = self.lock()?;
            (Arc::clone(&state.base), Arc::clone(&state.salt), state.epoch)
        };
        let steps = epoch.checked_sub(now).ok_or(Error::EpochGone { epoch, now })?;
        if steps > AHEAD {
            return Err(Error::EpochAhead { epoch, now });
        }
        for _ in 0..steps {
            base = Arc::new(self.next(&base)?);
        }
        Ok((base, salt))
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::NoRecord
        | Error::Version { .. }
        | Error::Algorithm { .. }
        | Error::Truncated { .. }
        | Error::Trailing { .. }
        | Error::Id(_) => Failure::Malformed,
        Error::Altered => Failure::Altered,
        Error::OtherKey | Error::EpochGone { .. } | Error::EpochAhead { .. } => Failure::Key,
        Error::TooOld { .. } | Error::Future { .. } => Failure::Time,
        #[cfg(feature = "journal")]
        Error::Unrecorded(_) => Failure::Unrecorded,
        _ => Failure::Other,
    }
}

/// What the derivation for one record is for; the cipher comes after it.
fn info(algorithm: Algorithm) -> &'static [u8] {
    match algorithm {
        Algorithm::MlKem768 => b"secmem pqc record v1\x01",
        Algorithm::MlKem1024 => b"secmem pqc record v1\x02",
        Algorithm::XWing => b"secmem pqc record v1\x03",
    }
}
