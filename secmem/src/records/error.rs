//! What is refused of records and keys, and why. No error holds content.

use std::time::Duration;

use super::format::KeyId;
use crate::error::Error as MemoryError;
use crate::manager;

/// Why nothing was encrypted, decrypted or done to a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not begin as a record does, or is one of another kind.
    #[error("this is no record")]
    NoRecord,
    /// A version that is not known.
    #[error("a record of version {found}; version {} is read", super::VERSION)]
    Version {
        /// Its version.
        found: u8,
    },
    /// A cipher that is not known.
    #[error("a record of cipher {found}, which is not known")]
    Cipher {
        /// Its number.
        found: u8,
    },
    /// The end of it is missing.
    #[error("a record of {needed} bytes of which there are {len}")]
    Truncated {
        /// Bytes that there are.
        len: usize,
        /// Bytes that there should be.
        needed: usize,
    },
    /// There is more than the record.
    #[error("a record of {needed} bytes in {len}")]
    Trailing {
        /// Bytes that there are.
        len: usize,
        /// Bytes that there should be.
        needed: usize,
    },
    /// It is not what was encrypted, or its associated data are others.
    #[error("the record, or what it is associated with, was changed")]
    Altered,
    /// There is no key of that name here.
    #[error("no key {id}")]
    UnknownKey {
        /// The name.
        id: KeyId,
    },
    /// The retention of the key is over: it was wiped.
    #[error("the retention of key {id} is over, and it was wiped")]
    KeyExpired {
        /// The name.
        id: KeyId,
    },
    /// The key was revoked, and wiped.
    #[error("key {id} was revoked")]
    KeyRevoked {
        /// The name.
        id: KeyId,
    },
    /// Another key is in use for longer than the grace period: this one decrypts, and encrypts no more.
    #[error("key {id} encrypts no more")]
    KeyRetired {
        /// The name.
        id: KeyId,
    },
    /// There is a key of that name.
    #[error("key {id} is here already")]
    KnownKey {
        /// The name.
        id: KeyId,
    },
    /// A text is no name of a key.
    #[error("a key id is 32 digits of hex")]
    NoKeyId,
    /// A key of another length.
    #[error("a key of {len} bytes; it has 32")]
    KeyLength {
        /// Its bytes.
        len: usize,
    },
    /// The authenticated time is further back than the window.
    #[error("a record that is {age:?} old; it may be {most:?}")]
    TooOld {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        most: Duration,
    },
    /// The authenticated time is ahead of this machine's, by more than clocks differ.
    #[error("a record from {ahead:?} ahead")]
    Future {
        /// How far ahead.
        ahead: Duration,
    },
    /// It was decrypted before.
    #[error("the record was decrypted before")]
    Replayed,
    /// So many records of the window were decrypted that no more can be remembered: fail closed.
    #[error("{most} records are remembered, and no more can be")]
    Crowded {
        /// How many are remembered.
        most: usize,
    },
    /// More bytes than a record may have.
    #[error("{len} bytes for a record; it may have {most}")]
    Size {
        /// Bytes of the content.
        len: usize,
        /// Bytes that it may have.
        most: usize,
    },
    /// Limits that cannot be.
    #[error("{0}")]
    Config(&'static str),
    /// The keys were wiped by the shutdown.
    #[error("the keys were wiped by the shutdown")]
    Shutdown,
    /// A buffer of a manager could not be read or written.
    #[error(transparent)]
    Buffer(#[from] manager::Error),
    /// It could not be written to the journal, and so was not done.
    #[cfg(feature = "journal")]
    #[error("nothing is done that is not in the journal")]
    Unrecorded(#[from] crate::journal::Error),
    /// Memory for secrets could not be had or reached.
    #[error("memory for secrets")]
    Memory(#[from] MemoryError),
}

#[cfg(not(feature = "journal"))]
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
