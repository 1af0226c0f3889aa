//! What is refused, and why. No error holds content.

use std::time::Duration;

use super::stretch::Cost;
use crate::error::Error as MemoryError;
use crate::manager;
use crate::records;

/// Why nothing was encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not begin as such a record does.
    #[error("this is no record for a post-quantum key")]
    NoRecord,
    /// A version that is not known.
    #[error("a record of version {found}; version {} is read", super::VERSION)]
    Version {
        /// Its version.
        found: u8,
    },
    /// An algorithm, a cipher or a derivation that is not known.
    #[error("a record of algorithm {algorithm}, cipher {cipher} and derivation {derivation}, which are not all known")]
    Algorithm {
        /// The number of the key encapsulation.
        algorithm: u8,
        /// The number of the cipher.
        cipher: u8,
        /// The number of the derivation.
        derivation: u8,
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
    /// The key that is derived here is not the record's: another base secret or salt, or what the record says of its
    /// key was changed.
    #[error("the record was encrypted for a key of another base secret or salt")]
    OtherKey,
    /// It is not what was encrypted, or its associated data are others.
    #[error("the record, or what it is associated with, was changed")]
    Altered,
    /// The record is of an epoch whose base secret was destroyed.
    #[error("the record is of epoch {epoch}, which was destroyed; this is epoch {now}")]
    EpochGone {
        /// The record's epoch.
        epoch: u32,
        /// The epoch now.
        now: u32,
    },
    /// The record is of an epoch so far ahead that it cannot be one.
    #[error("the record is of epoch {epoch}; this is epoch {now}")]
    EpochAhead {
        /// The record's epoch.
        epoch: u32,
        /// The epoch now.
        now: u32,
    },
    /// A derivation that Argon2 cannot do, or that costs more than is allowed.
    #[error("a derivation with {} KiB, {} passes and {} lanes is refused", asked.memory, asked.passes, asked.lanes)]
    Cost {
        /// What it would cost.
        asked: Cost,
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
    /// More bytes than a record may have.
    #[error("{len} bytes for a record; it may have {most}")]
    Size {
        /// Bytes of the content.
        len: usize,
        /// Bytes that it may have.
        most: usize,
    },
    /// A base secret or a salt that is too short.
    #[error("a base secret has at least 32 bytes, and a salt 16")]
    Short,
    /// Bytes that are no public key of that algorithm.
    #[error("these bytes are no public key")]
    PublicKey,
    /// A name of a key that cannot be one.
    #[error(transparent)]
    Id(#[from] manager::IdError),
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

impl From<records::Error> for Error {
    /// Of the errors that the two have in common.
    fn from(error: records::Error) -> Self {
        match error {
            records::Error::TooOld { age, most } => Self::TooOld { age, most },
            records::Error::Future { ahead } => Self::Future { ahead },
            records::Error::Buffer(error) => Self::Buffer(error),
            records::Error::Memory(error) => Self::Memory(error),
            #[cfg(feature = "journal")]
            records::Error::Unrecorded(error) => Self::Unrecorded(error),
            _ => Self::Altered,
        }
    }
}

#[cfg(not(feature = "journal"))]
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
