//! How much one part of a program may hold: a limit that is an error, not a surprise for the others.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;

/// Whose secrets these are, and how many and how long they may be together.
///
/// A handle that is copied; the account behind it lives as long as the process, so make one for each part of a program, not
/// for each request.
///
/// ```
/// use secmem::{Error, Owner, Secret};
///
/// let sessions = Owner::new(2, 1024);
/// let options = Secret::options().owner(sessions);
/// let (first, _second) = (options.zeroed(32)?, options.zeroed(32)?);
/// assert!(matches!(options.zeroed(32), Err(Error::Quota { .. })));
/// drop(first);
/// assert!(options.zeroed(32).is_ok());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Owner(&'static Account);

#[derive(Debug)]
struct Account {
    most_secrets: usize,
    most_bytes: usize,
    secrets: AtomicUsize,
    bytes: AtomicUsize,
}

impl Owner {
    /// An owner of so many secrets, and of so many bytes of secret in all of them; `usize::MAX` for no limit.
    #[must_use]
    pub fn new(most_secrets: usize, most_bytes: usize) -> Self {
        let (secrets, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Box::leak(Box::new(Account { most_secrets, most_bytes, secrets, bytes })))
    }

    /// Secrets that it has now, and their bytes.
    #[must_use]
    pub fn holds(self) -> (usize, usize) {
        (self.0.secrets.load(Ordering::Acquire), self.0.bytes.load(Ordering::Acquire))
    }

    /// Takes from the account, until the value is dropped.
    pub(crate) fn take(self, bytes: usize) -> Result<Share, Error> {
        let Account { most_secrets, most_bytes, .. } = *self.0;
        let refused = || Error::Quota { most_secrets, most_bytes, len: bytes };
        add(&self.0.secrets, 1, most_secrets).ok_or_else(refused)?;
        let mut share = Share { owner: self, bytes: 0 };
        share.grow(bytes)?;
        Ok(share)
    }
}

fn add(place: &AtomicUsize, more: usize, most: usize) -> Option<usize> {
    let sum = |held: usize| held.checked_add(more).filter(|sum| *sum <= most || cfg!(secmem_ablate = "quota"));
    place.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum).ok()
}

/// One secret's part of an account.
#[derive(Debug)]
pub(crate) struct Share {
    owner: Owner,
    bytes: usize,
}

impl Share {
    /// Takes more bytes.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Error> {
        let Account { most_secrets, most_bytes, ref bytes, .. } = *self.owner.0;
        add(bytes, more, most_bytes).ok_or(Error::Quota {
            most_secrets,
            most_bytes,
            len: self.bytes.saturating_add(more),
        })?;
        self.bytes += more;
        Ok(())
    }

    /// Gives bytes back.
    pub(crate) fn shrink(&mut self, less: usize) {
        self.owner.0.bytes.fetch_sub(less, Ordering::AcqRel);
        self.bytes -= less;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.owner.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.owner.0.secrets.fetch_sub(1, Ordering::AcqRel);
    }
}
