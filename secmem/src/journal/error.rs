//! Why an entry was not written, or a journal not opened. No error holds what an entry says.

use std::io;

use super::name::NameError;
use super::verify::Fault;
use crate::error::Error as MemoryError;

/// Why nothing was written. The chain is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened, read or locked.
    #[error("opening the journal: {doing}")]
    Open {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path names something else than a file: a device, a pipe, a directory.
    #[error("the journal is no file")]
    NoFile,
    /// Another process, or another part of this one, writes to it.
    #[error("somebody else writes to the journal")]
    Locked,
    /// It is not what was written, and nothing is added to it.
    #[error("line {line} of the journal")]
    Broken {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        source: Fault,
    },
    /// It is signed by another key, or one of the two, journal and options, is without a signature.
    #[error("the journal is signed by another key")]
    OtherKey,
    /// A signing key of another length.
    #[error("a signing key of {len} bytes; it has 32")]
    KeyLength {
        /// Its bytes.
        len: usize,
    },
    /// The entry could not be written: the disk is full, a limit reached, the file system read-only. What was written of
    /// it was taken back, or is before the next entry.
    #[error("writing to the journal")]
    Write {
        /// What the kernel said.
        source: io::Error,
    },
    /// The entry was written, and the kernel could not say that it is on the disk. It was taken back.
    #[error("bringing the journal to the disk")]
    Sync {
        /// What the kernel said.
        source: io::Error,
    },
    /// A half entry stands at the end, and could not be taken back. It will be tried again before the next one.
    #[error("taking back half an entry of the journal")]
    TakeBack {
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is longer or shorter than this process has left it.
    #[error("a journal of {len} bytes that was left with {expected}")]
    Changed {
        /// Its bytes.
        len: u64,
        /// What it should have.
        expected: u64,
    },
    /// The file is no longer where it was opened: it was removed, or moved, or another took its place.
    #[error("the journal is no longer where it was opened")]
    Removed,
    /// An entry that a journal alone writes, of itself.
    #[error("an entry that a journal writes of itself")]
    NotYours,
    /// Whose events are to be written has a journal already.
    #[error("there is a journal already")]
    Attached,
    /// A text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Memory for secrets could not be had or reached; [`Forked`](crate::Error::Forked) in a forked child.
    #[error("memory for secrets")]
    Memory(#[from] MemoryError),
}
