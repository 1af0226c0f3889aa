//! The keys: one that encrypts, those before it that decrypt until their retention is over, and the names of those that ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::cipher::{KEY, derive};
use super::config::Config;
use super::error::Error;
use super::format::KeyId;
use super::{Event, Ring};
use crate::arena::Doom;
use crate::deadline::{Clock, Listener};
use crate::secret::{Options, Secret};
use crate::{keystream, wipe};

/// Hears that the retention of a key is over.
#[derive(Debug)]
struct Ear {
    ring: Weak<Ring>,
    id: KeyId,
}

impl Listener for Ear {
    fn expired(&self) {
        if let Some(ring) = self.ring.upgrade() {
            ring.audience.tell_late(|| Event::KeyExpired { key: self.id });
        }
    }
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: KeyId,
    /// Milliseconds since 1970.
    pub(super) made: u64,
    /// When another took its place.
    pub(super) retired: Option<u64>,
    revoked: bool,
    secret: Arc<Secret>,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// It encrypts and decrypts.
    Active,
    /// Another encrypts. It decrypts until its retention is over.
    Retired,
    /// Its retention is over: it was wiped.
    Expired,
    /// It was revoked, and wiped.
    Revoked,
}

/// What there is to know about a key: a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// Where it stands.
    pub state: KeyState,
    /// Time since it was made.
    pub age: Duration,
}

fn options(config: &Config) -> Options {
    let options = Secret::options().policy(config.policy);
    match config.clock {
        Clock::Test(clock) => options.clock(clock),
        Clock::System => options,
    }
}

impl Key {
    /// One that is drawn.
    pub(super) fn draw(config: &Config, now: u64) -> Result<Self, Error> {
        let mut secret = options(config).zeroed(KEY)?;
        secret.slot.write(keystream::from_kernel)??;
        Self::of(secret, now)
    }

    pub(super) fn of(secret: Secret, made: u64) -> Result<Self, Error> {
        if secret.len() != KEY {
            return Err(Error::KeyLength { len: secret.len() });
        }
        let mut id = KeyId([0; 16]);
        derive(&secret, &[], &[b"secmem record key id v1"], &mut id.0)?;
        Ok(Self { id, made, retired: None, revoked: false, secret: Arc::new(secret) })
    }

    /// From `at` on it only decrypts; it is wiped when its retention is over, by the thread of the deadlines.
    pub(super) fn retire(&mut self, ring: Weak<Ring>, config: &Config, at: u64, now: u64) -> Result<(), Error> {
        let over = Duration::from_millis(at).saturating_add(config.retention);
        let left = over.checked_sub(Duration::from_millis(now)).filter(|left| !left.is_zero());
        let left = left.ok_or(Error::KeyExpired { id: self.id })?;
        let ear = Box::new(Ear { ring, id: self.id });
        let mut options = options(config);
        if !cfg!(secmem_ablate = "records-retire") {
            options = options.expires_in(left);
        }
        let mut secret = options.watched(KEY, config.clock.now(), ear)?;
        self.secret.with(|old| secret.slot.write(|new| wipe::copy(old, new)))??;
        self.secret = Arc::new(secret); // the old slot is wiped when the last operation with it ends
        self.retired = Some(at);
        Ok(())
    }

    /// Wipes it now, or when the operations end that are within.
    pub(super) fn revoke(&mut self) {
        self.revoked = true;
        if !cfg!(secmem_ablate = "records-revoke") {
            // In a child there is nothing to end; without random bytes zeros stand there all the same.
            let _ = self.secret.slot.ticket().doom(Doom::Wiped);
        }
    }

    pub(super) fn state(&self) -> KeyState {
        match self {
            Self { revoked: true, .. } => KeyState::Revoked,
            Self { retired: None, .. } => KeyState::Active,
            _ if self.secret.is_over() => KeyState::Expired,
            _ => KeyState::Retired,
        }
    }

    /// The secret, if it may still be used.
    pub(super) fn secret(&self) -> Result<Arc<Secret>, Error> {
        match self.state() {
            KeyState::Active | KeyState::Retired => Ok(Arc::clone(&self.secret)),
            KeyState::Expired => Err(Error::KeyExpired { id: self.id }),
            KeyState::Revoked => Err(Error::KeyRevoked { id: self.id }),
        }
    }

    pub(super) fn info(&self, now: u64) -> KeyInfo {
        KeyInfo { id: self.id, state: self.state(), age: Duration::from_millis(now.saturating_sub(self.made)) }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Keys {
    /// The active one is the last.
    pub(super) list: Vec<Key>,
    /// Names of all that were ever revoked: they do not come back.
    pub(super) revoked: BTreeSet<[u8; 16]>,
}

/// Names of ended keys that are remembered.
const ENDED: usize = 1024;

impl Keys {
    pub(super) fn active(&self) -> Result<&Key, Error> {
        self.list.last().ok_or(Error::Shutdown)
    }

    /// An error if there is, or was, a key of that name.
    pub(super) fn is_new(&mut self, id: &KeyId) -> Result<(), Error> {
        if self.revoked.contains(&id.0) {
            return Err(Error::KeyRevoked { id: *id });
        }
        if self.find(id).is_ok() { Err(Error::KnownKey { id: *id }) } else { Ok(()) }
    }

    pub(super) fn find(&mut self, id: &KeyId) -> Result<&mut Key, Error> {
        self.list.iter_mut().find(|key| key.id == *id).ok_or(Error::UnknownKey { id: *id })
    }

    /// `key` encrypts from now on; gives the name of the one that did.
    pub(super) fn succeed(&mut self, ring: Weak<Ring>, config: &Config, key: Key, now: u64) -> Result<KeyId, Error> {
        let last = self.list.last_mut().ok_or(Error::Shutdown)?;
        let from = last.id;
        if !last.revoked {
            last.retire(ring, config, now, now)?;
        }
        self.list.push(key);
        self.forget();
        Ok(from)
    }

    /// Forgets the names of keys that ended longest ago, where there are many.
    fn forget(&mut self) {
        let ended = |key: &Key| matches!(key.state(), KeyState::Expired | KeyState::Revoked);
        let mut many = self.list.iter().filter(|key| ended(key)).count().saturating_sub(ENDED);
        self.list.retain(|key| {
            let goes = many > 0 && ended(key);
            many -= usize::from(goes);
            !goes
        });
    }
}
