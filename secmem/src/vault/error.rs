//! What is refused, and why. No error holds content.

use std::io;
use std::time::Duration;

use super::channel::OpenError;
use super::frame::{Failed, FrameError, Why};
use crate::error::Error as MemoryError;
use crate::policy::Control;

/// Why a call did not do what it was to do. Whatever it had of a secret was wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// [`init`](super::init) has not run: the worker is this program once more, and would not know that it is one.
    #[error("secmem::vault::init() was not called; make it the first line of main")]
    NotInitialised,
    /// The process was started as a worker, and what it was given as its socket is none.
    #[error("this process was started as a vault's worker without its socket")]
    NoSocket {
        /// Why.
        source: io::Error,
    },
    /// The worker could not be started.
    #[error("the worker could not be started: {step}")]
    Start {
        /// What was refused.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The worker is another version of this crate, or what was started is no worker.
    #[error("the worker is of another version than {ours}, or is not this program")]
    Version {
        /// This crate's.
        ours: &'static str,
    },
    /// The worker could not close itself up, and ended.
    #[error("the worker could not be confined: {step} (errno {errno})")]
    Confine {
        /// What was refused.
        step: &'static str,
        /// Its `errno`, or 0.
        errno: i32,
    },
    /// The worker has ended, by itself or by somebody else. What it held is lost; [`restart`](super::Vault::restart) starts another.
    #[error("the worker has ended ({how})")]
    Ended {
        /// How.
        how: Ending,
    },
    /// What came from the worker is not of this session. It was ended.
    #[error("the session with the worker was broken off")]
    Protocol(#[from] FrameError),
    /// The vault was stopped.
    #[error("the vault was stopped")]
    Stopped,
    /// The call was not over in time. If the callback was still running, its bytes were overwritten under it, and its result is dropped.
    #[error("the call was not over within {after:?}")]
    Deadline {
        /// The time that it had.
        after: Duration,
    },
    /// So much waits for the worker already that no more is taken.
    #[error("the worker does not take what waits for it")]
    Busy,
    /// No keys were made yet.
    #[error("the worker has no keys; call generate first")]
    NoKeys,
    /// No password was given yet.
    #[error("the worker has no password; call read_password or store first")]
    NoPassword,
    /// The worker's arena has no room for it.
    #[error("the worker's arena of {most} bytes is full")]
    ArenaFull {
        /// Bytes of secret that it may hold.
        most: usize,
    },
    /// A secret that is longer than it may be.
    #[error("a secret of more than {most} bytes")]
    TooLong {
        /// Bytes that it may have.
        most: usize,
    },
    /// A message to be signed, a prompt or a salt that is longer than it may be.
    #[error("more than {most} bytes for one request")]
    Request {
        /// Bytes that it may have.
        most: usize,
    },
    /// An envelope that is not for the worker's key, or was changed.
    #[error("the envelope is not for the worker's key, or was changed")]
    Envelope,
    /// An algorithm that this build does not have.
    #[error("this build has no such algorithm")]
    Algorithm,
    /// A derivation that Argon2 cannot do, or that asks for more than it may.
    #[error("this derivation is refused")]
    Cost,
    /// The user gave the question up.
    #[error("the question was interrupted")]
    Interrupted,
    /// There was nothing to read.
    #[error("there was no password to read")]
    Nothing,
    /// What was read, or is to be text, is not UTF-8.
    #[error("what begins at byte {at} is not UTF-8")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// There is no terminal to ask at.
    #[error("no terminal to ask at; run this in one, or give the password as a line on standard input")]
    NoTerminal {
        /// Why `/dev/tty` could not be opened.
        source: io::Error,
    },
    /// The worker's terminal, or another descriptor, did not do as it was told.
    #[error("the password could not be read")]
    Unread {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused memory to the worker.
    #[error("the kernel refused memory to the worker")]
    Refused {
        /// Why.
        source: io::Error,
    },
    /// The kernel does not show a protection that the worker's memory is to have.
    #[error("the kernel does not show that {part} of the worker has {control}")]
    Unprotected {
        /// Whose memory it is.
        part: super::Part,
        /// What is missing.
        control: Control,
    },
    /// A secret's memory, on this side or, without more to say, on the worker's.
    #[error("memory for secrets")]
    Memory(#[from] MemoryError),
    /// Memory of the worker: it was purged, or could not be reached.
    #[error("the worker's memory for secrets")]
    WorkerMemory,
}

/// How a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It has returned from what it does, with this status.
    Exit(i32),
    /// A signal has ended it.
    Signal(i32),
    /// Nobody could tell: the program takes the status of all its children itself, as with `SIGCHLD` ignored.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("its status is not known"),
        }
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Frame(error) => Self::Protocol(error),
            OpenError::Memory(error) => Self::Memory(error),
        }
    }
}

#[cfg(feature = "vault-rsa")]
impl From<crate::vault_rsa::Error> for Error {
    fn from(error: crate::vault_rsa::Error) -> Self {
        match error {
            crate::vault_rsa::Error::Memory(error) => Self::Memory(error),
            crate::vault_rsa::Error::Long { most, .. } => Self::TooLong { most },
            _ => Self::Envelope,
        }
    }
}

fn errno(number: u64) -> io::Error {
    match i32::try_from(number) {
        Ok(number) if number != 0 => io::Error::from_raw_os_error(number),
        _ => io::ErrorKind::Other.into(), // it was not the kernel's
    }
}

fn length(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl From<Failed> for Error {
    fn from(Failed { why, number, other }: Failed) -> Self {
        match why {
            Why::NoKeys => Self::NoKeys,
            Why::NoPassword => Self::NoPassword,
            Why::ArenaFull => Self::ArenaFull { most: length(other) },
            Why::TooLong => Self::TooLong { most: length(number) },
            Why::Envelope => Self::Envelope,
            Why::Cost => Self::Cost,
            Why::Interrupted => Self::Interrupted,
            Why::Nothing => Self::Nothing,
            Why::Utf8 => Self::Utf8 { at: length(number) },
            Why::Terminal | Why::Unread => Self::Unread { source: errno(number) },
            Why::NoDescriptor => Self::Unread { source: errno(libc::EBADF as u64) },
            Why::Refused => Self::Refused { source: errno(number) },
            Why::Algorithm => Self::Algorithm,
            Why::Memory => Self::WorkerMemory,
        }
    }
}
