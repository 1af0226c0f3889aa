//! What the manager refuses, and why. No error holds content.

use super::biometric::TemplateError;
use super::hash::WeakHash;
use super::id::IdError;
use crate::error::Error as MemoryError;

/// Why the manager did not do what it was asked for. Nothing of it was done, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manager was shut down.
    #[error("the manager was shut down")]
    Shutdown,
    /// As many buffers live as may.
    #[error("{most} buffers live, and no more may")]
    TooMany {
        /// How many may live.
        most: usize,
    },
    /// A buffer of no bytes, or of more than one may have.
    #[error("a buffer of {len} bytes: it may have 1 to {most}")]
    Size {
        /// Bytes asked for.
        len: usize,
        /// Bytes that one may have.
        most: usize,
    },
    /// All buffers together would have more bytes than they may.
    #[error("a buffer of {len} bytes is more than all of them may have together: {most}")]
    Quota {
        /// Bytes asked for.
        len: usize,
        /// Bytes of all that live.
        most: usize,
    },
    /// A buffer of that name lives.
    #[error("a buffer of that id lives already")]
    Duplicate,
    /// No buffer of that name lives, or it was deallocated.
    #[error("no buffer has that id")]
    Unknown,
    /// A text is no name.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The token is not that of the buffer's owner. Counted, and told as an event.
    #[error("the buffer belongs to another owner")]
    Denied,
    /// The time of the buffer has come: it was wiped.
    #[error("the time of the buffer has come, and it was wiped")]
    Expired,
    /// The buffer was wiped to make room for another one: see [`WhenFull`](super::WhenFull).
    #[error("the buffer was wiped to make room")]
    Evicted,
    /// Memory is about to be used up, and no buffer is made until it is not.
    #[error("memory is about to be used up")]
    Pressure,
    /// A forced cleanup has wiped the buffer.
    #[error("the buffer was wiped by a forced cleanup")]
    CleanedUp,
    /// All secrets of the process were purged.
    #[error("all secrets of the process were purged")]
    Purged,
    /// This process is a forked child; the buffers stay with the parent.
    #[error("the buffers stay with the parent of a forked process")]
    Forked,
    /// An operation within another one's closure found the buffer in use. It does not wait: that could be for ever.
    #[error("the buffer is in use, and within a closure nothing waits")]
    Busy,
    /// More data than the buffer can hold.
    #[error("{len} bytes do not fit into a buffer of {capacity}")]
    Capacity {
        /// Bytes of the data.
        len: usize,
        /// Bytes of the buffer.
        capacity: usize,
    },
    /// A range that is not within the data, or ends before it begins.
    #[error("bytes {start}..{end} of {len}")]
    Bounds {
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Bytes of data.
        len: usize,
    },
    /// A hash function that is broken.
    #[error("{0} is broken and is not offered")]
    Weak(WeakHash),
    /// A name of no hash function that is known.
    #[error("no hash function of that name is known")]
    Algorithm,
    /// What was to be kept as a template is none, or what was to be read as one.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// What was to be done with the data panicked. The data was wiped all the same.
    #[error("the operation on the data panicked")]
    Panicked,
    /// No runtime of tokio is there to run the operation, or it was shut down before that had begun. The data was wiped.
    #[cfg(feature = "tokio")]
    #[error("no runtime is there to run the operation")]
    Runtime,
    /// Memory for secrets could not be had or reached.
    #[error("memory for secrets")]
    Memory(#[source] MemoryError),
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Expired => Self::Expired,
            MemoryError::Purged => Self::Purged,
            MemoryError::Forked => Self::Forked,
            MemoryError::Panicked => Self::Panicked,
            error => Self::Memory(error),
        }
    }
}
