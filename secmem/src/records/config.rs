//! How keys live, and which records are taken.

use std::time::Duration;

use super::error::Error;
use super::format::Cipher;
use crate::deadline::{Clock, TestClock};
use crate::policy::Policy;

const HOUR: Duration = Duration::from_secs(3600);

/// How a [`Keyring`](super::Keyring) works. Everything has a value if nothing is said.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Config {
    pub(super) cipher: Cipher,
    pub(super) rotation: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) retention: Duration,
    pub(super) window: Duration,
    pub(super) tolerance: Duration,
    pub(super) largest: usize,
    pub(super) remembered: usize,
    pub(super) policy: Policy,
    pub(super) clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cipher: Cipher::default(),
            rotation: Some(24 * HOUR),
            grace: HOUR,
            retention: 7 * 24 * HOUR,
            window: 24 * HOUR,
            tolerance: Duration::from_secs(60),
            largest: 16 << 20,
            remembered: 1 << 16,
            policy: Policy::default(),
            clock: Clock::default(),
        }
    }
}

impl Config {
    /// The cipher of new records; AES-256-GCM if not said. Records of either are read.
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// How long a key encrypts before another takes its place, which the next encryption brings about; 24 hours if not
    /// said, `None` for until [`rotate`](super::Keyring::rotate) is called.
    pub fn rotation(mut self, span: impl Into<Option<Duration>>) -> Self {
        self.rotation = span.into();
        self
    }

    /// How long after that a key still encrypts for who asks for it by name; an hour if not said.
    pub fn grace(mut self, span: Duration) -> Self {
        self.grace = span;
        self
    }

    /// How long after that a key decrypts before it is wiped; 7 days if not said. What is to be read for longer has to be
    /// encrypted anew before: see [`reencrypt`](super::Keyring::reencrypt).
    pub fn retention(mut self, span: Duration) -> Self {
        self.retention = span;
        self
    }

    /// How old a record may be to be taken; 24 hours if not said. What is kept for longer is read by
    /// [`decrypt_stored`](super::Keyring::decrypt_stored).
    pub fn window(mut self, span: Duration) -> Self {
        self.window = span;
        self
    }

    /// How far clocks may differ; a minute if not said.
    pub fn tolerance(mut self, span: Duration) -> Self {
        self.tolerance = span;
        self
    }

    /// Bytes that a record may hold; 16 MiB if not said.
    pub fn max_len(mut self, bytes: usize) -> Self {
        self.largest = bytes;
        self
    }

    /// Records that [`decrypt_once`](super::Keyring::decrypt_once) remembers within the window; 65536 if not said, of 24 bytes each.
    pub fn max_remembered(mut self, records: usize) -> Self {
        self.remembered = records;
        self
    }

    /// What the memory of keys and content must have: see [`Options::policy`](crate::Options::policy).
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = policy.into();
        self
    }

    /// Takes the time from a test's clock, on top of the time that it is when the keyring is made.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.retention.is_zero() || self.window.is_zero() || self.rotation.is_some_and(|it| it.is_zero()) {
            return Err(Error::Config("rotation, retention and window are longer than nothing"));
        }
        if self.grace > self.retention {
            return Err(Error::Config("a grace period ends before the retention does"));
        }
        if self.largest == 0 || self.remembered == 0 {
            return Err(Error::Config("a record may have bytes, and one at least is remembered"));
        }
        Ok(())
    }
}
