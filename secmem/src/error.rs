//! What can go wrong, said without a byte of any secret.

use std::error::Error as StdError;
use std::{fmt, io};

use crate::arena::Backend;
use crate::input::InputError;

/// A system call that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The call, and what it was for.
    pub call: &'static str,
    /// Its `errno`.
    pub errno: i32,
}

impl Refusal {
    /// The `errno` as an error.
    pub fn cause(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.cause())
    }
}

/// Why a secret could not be made, reached or ended as asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a call that the protection needs. Nothing was kept.
    Refused {
        /// The kind of memory that was asked for.
        asked: Backend,
        /// The kind of memory that was being made when the call was refused.
        tried: Backend,
        /// Bytes of secret asked for.
        len: usize,
        /// The call, and what it was for.
        call: &'static str,
        /// With [`Backend::Auto`]: why memfd_secret could not be had before.
        before: Option<Refusal>,
        /// The call's `errno`.
        source: io::Error,
    },
    /// The deadline of the secret has passed.
    Expired,
    /// The secret was wiped by its owner.
    Wiped,
    /// The secret has been used as often as it may be.
    Spent,
    /// The owner holds as much as it may.
    Quota {
        /// Secrets that it may hold.
        most_secrets: usize,
        /// Bytes that it may hold in all of them.
        most_bytes: usize,
        /// Bytes that the secret would have had.
        len: usize,
    },
    /// Bytes that were to be text are not UTF-8.
    Utf8 {
        /// Where the first such byte stands.
        at: usize,
    },
    /// Every secret was purged: on request, by a panic, a signal, or the end of the process.
    Purged,
    /// This process is a forked child; secrets stay with the parent.
    Forked,
    /// The function that was to fill the secret gave up. The slot was wiped.
    Fill {
        /// Bytes of secret asked for.
        len: usize,
        /// What the function said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The descriptor did not give enough bytes. The slot was wiped.
    Read {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes read until then.
        got: usize,
        /// The `errno` of read(2); `None` where the descriptor was at its end.
        source: Option<io::Error>,
    },
    /// A secret was not read as it was to be. Nothing of it was kept.
    Input(InputError),
    /// A descriptor did not take all bytes of a secret.
    Write {
        /// Bytes that it was to take.
        wanted: usize,
        /// Bytes that it took.
        got: usize,
        /// The `errno` of write(2).
        source: io::Error,
    },
    /// The kernel gave no random bytes for the random pass of a wipe. The other passes were made, zeros last.
    Random {
        /// The `errno` of getrandom(2).
        source: io::Error,
    },
    /// A signal that cannot be planned for: it does not end a process, or no handler can be set for it.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// The purge was to be installed again, and the application has put a handler of its own over the purge's. Whether
    /// that calls the purge's, its author knows; set over it, the two could call each other for ever.
    Covered {
        /// The signal's number.
        signal: i32,
    },
    /// A part of the purge could not be installed.
    Install {
        /// The call, and what it was for.
        call: &'static str,
        /// The signal, where it was a handler.
        signal: Option<i32>,
        /// The call's `errno`, or [`io::ErrorKind::ResourceBusy`] for a panic hook in a thread that is panicking.
        source: io::Error,
    },
    /// A setting of the process could not be made or read.
    Harden {
        /// The call, and what it was for.
        call: &'static str,
        /// The call's `errno`.
        source: io::Error,
    },
    /// The code that ran on a protected stack panicked. What it wrote there was overwritten all the same.
    Panicked,
    /// The kernel refused to let signal handlers run on a protected stack.
    Handlers {
        /// The `errno` of sigaltstack(2); `EPERM` in a handler that runs on an alternate stack itself.
        source: io::Error,
    },
    /// Memory that is closed between accesses could not be opened, or, if the access has run, could not be closed.
    Access {
        /// The call.
        call: &'static str,
        /// The call's `errno`.
        source: io::Error,
    },
    /// What a coffer stored is not what it was: it was changed, and was not decrypted.
    Damaged {
        /// Bytes of it.
        len: usize,
    },
    /// The kernel's own account of the memory could not be read.
    Verify {
        /// Why.
        source: io::Error,
    },
    /// The thread that watches deadlines, or draws new keys by a timer, could not be started.
    Watch {
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { asked, tried, len, call, before, source: _ } => {
                write!(f, "no protected memory for a secret of {len} bytes (asked for {asked}, tried {tried}): ")?;
                write!(f, "{call} was refused and all before it undone")?;
                match before {
                    Some(refusal) => write!(f, "; before that, {refusal}"),
                    None => Ok(()),
                }
            }
            Self::Expired => f.write_str("the deadline of the secret has passed"),
            Self::Wiped => f.write_str("the secret was wiped by its owner"),
            Self::Spent => f.write_str("the secret has been used as often as it may be"),
            Self::Quota { most_secrets, most_bytes, len } => {
                write!(
                    f,
                    "a secret of {len} bytes is more than its owner may hold: {most_secrets} secrets, {most_bytes} bytes"
                )
            }
            Self::Utf8 { at } => write!(f, "what begins at byte {at} is not UTF-8"),
            Self::Purged => f.write_str("all secrets were purged"),
            Self::Forked => f.write_str("secrets stay with the parent of a forked process"),
            Self::Fill { len, .. } => write!(f, "a secret of {len} bytes was not filled"),
            Self::Read { wanted, got, source: Some(_) } => {
                write!(f, "reading a secret failed at {got} of {wanted} bytes")
            }
            Self::Read { wanted, got, source: None } => write!(f, "reading a secret ended at {got} of {wanted} bytes"),
            Self::Input(error) => error.fmt(f),
            Self::Write { wanted, got, .. } => write!(f, "writing a secret failed at {got} of {wanted} bytes"),
            Self::Random { .. } => f.write_str("the random pass of a wipe got no random bytes"),
            Self::Signal { signal } => write!(f, "signal {signal} cannot be planned for"),
            Self::Covered { signal } => write!(f, "the purge's handler of signal {signal} was covered by another one"),
            Self::Install { call, signal: Some(signal), .. } => write!(f, "{call} for signal {signal} was refused"),
            Self::Install { call, signal: None, .. } => write!(f, "{call} was refused"),
            Self::Harden { call, .. } => write!(f, "{call} was refused"),
            Self::Access { call, .. } => write!(f, "{call} of a sealed secret's memory was refused"),
            Self::Damaged { len } => write!(f, "{len} stored bytes were changed and are not decrypted"),
            Self::Verify { .. } => f.write_str("/proc/self/smaps could not be read"),
            Self::Panicked => f.write_str("the code on the protected stack panicked"),
            Self::Handlers { .. } => f.write_str("no protected stack for signal handlers"),
            Self::Watch { .. } => f.write_str("the thread that watches the time could not be started"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Refused { source, .. }
            | Self::Random { source }
            | Self::Write { source, .. }
            | Self::Install { source, .. }
            | Self::Harden { source, .. }
            | Self::Handlers { source }
            | Self::Access { source, .. }
            | Self::Verify { source }
            | Self::Watch { source } => Some(source),
            Self::Fill { source, .. } => Some(&**source),
            Self::Input(error) => error.source(),
            Self::Read { source, .. } => source.as_ref().map(|source| source as _),
            Self::Expired | Self::Wiped | Self::Purged | Self::Forked | Self::Panicked => None,
            Self::Spent | Self::Quota { .. } | Self::Utf8 { .. } | Self::Damaged { .. } => None,
            Self::Signal { .. } | Self::Covered { .. } => None,
        }
    }
}
