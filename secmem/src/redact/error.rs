//! Why a secret was not registered, or a text not looked through. No error holds content.

use std::io;

use super::{LONGEST, SHORTEST};
use crate::error::Error as MemoryError;

/// Why a redactor did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A secret that is too short to be told from chance, or longer than a table may become.
    #[error("a secret of {len} bytes: {SHORTEST} to {LONGEST} can be redacted")]
    Length {
        /// Its bytes.
        len: usize,
    },
    /// A secret of which no eight bytes in a row have three values: it stands in many texts that are none, as zeros do. One that
    /// nobody has filled yet is such a one.
    #[error("a secret of hardly more than one byte, repeated")]
    Monotonous,
    /// A build without `debug_assertions` has no switch that turns redaction off.
    #[error("redaction is turned off in development alone")]
    NotInDevelopment,
    /// The redactor is at work in this thread, and what it does has led to another text. That text is not looked through.
    #[error("the redactor is at work in this thread")]
    Nested,
    /// The hook of panics cannot be set by a thread that is panicking.
    #[error("a thread that is panicking sets no hook")]
    Panicking,
    /// Memory for secrets could not be had or reached; [`Forked`](crate::Error::Forked) in a forked child, and
    /// [`Purged`](crate::Error::Purged) after all secrets have ended: what was registered before ended with them.
    #[error("memory for secrets")]
    Memory(#[from] MemoryError),
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
