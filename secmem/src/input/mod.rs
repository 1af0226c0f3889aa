//! Secrets from outside, straight into their place: a terminal, a descriptor, a file, a variable of the environment; and back out
//! to a descriptor.
//!
//! read(2) writes into the slot, and no buffer in between ever holds what is read. What is longer than a limit is an error,
//! never cut. Text is kept whole: a character is there with all its bytes or not at all.
//!
//! ```no_run
//! use secmem::{Secret, input::Prompt};
//!
//! // At the terminal if standard input is one, else a line of whatever it is.
//! let password = Prompt::new("Password: ").read(Secret::options())?;
//! # Ok::<(), secmem::Error>(())
//! ```
//!
//! | from | by |
//! |---|---|
//! | a person at a terminal | [`Prompt`] |
//! | a pipe, a socket, standard input | [`Options::read_exact`], [`Options::read_to_end`], [`Options::read_line`] |
//! | a file | [`Options::read_file`] |
//! | a variable of the environment | [`Options::take_variable`] |
//!
//! [`Secret::write_to`], [`Bytes::write_to`] and [`Text::write_to`] go the other way.
//!
//! # What is out of reach
//!
//! What comes through a pipe, a socket or a terminal was in the kernel's own memory before. A terminal keeps what was typed in
//! buffers that are overwritten by what is typed later; [`Prompt`] takes every byte out at once, instead of letting the
//! terminal collect the line, and throws away what is left at the end. Who typed or sent it has copies of their own: terminal
//! emulators, multiplexers, network programs, the page cache of a file. A variable came through the memory of whoever started this
//! program; [`Options::take_variable`] wipes the copies in this process.
//!
//! Whatever reads standard input through [`std::io::stdin`] first reads ahead into a buffer of the standard library, secrets of
//! later lines among it. Read those first, or all of it by what is here.
//!
//! [`Secret::write_to`]: crate::Secret::write_to
//! [`Bytes::write_to`]: crate::Bytes::write_to
//! [`Text::write_to`]: crate::Text::write_to
//! [`Options::read_exact`]: crate::Options::read_exact
//! [`Options::read_to_end`]: crate::Options::read_to_end
//! [`Options::read_line`]: crate::Options::read_line
//! [`Options::read_file`]: crate::Options::read_file
//! [`Options::take_variable`]: crate::Options::take_variable

mod editor;
mod prompt;
mod raw;
mod stream;
mod variable;

use std::error::Error as StdError;
use std::{fmt, io};

pub use prompt::Prompt;
pub(crate) use raw::{behind, restore_terminal};
pub use stream::Readers;

/// Why a secret was not read. None of it was kept.
#[derive(Debug)]
#[non_exhaustive]
pub enum InputError {
    /// There is more than the limit. Of a line the rest was read and thrown away, too.
    TooLong {
        /// Bytes that it may have.
        limit: usize,
    },
    /// The input was at its end, or the user said so, before there was anything.
    Nothing,
    /// The user has interrupted the question (Ctrl-C), or a signal has whose handler returned.
    Interrupted,
    /// There is no terminal to ask at.
    NoTerminal {
        /// Why `/dev/tty` could not be opened.
        source: io::Error,
    },
    /// The terminal did not do what it was to do.
    Terminal {
        /// The call.
        call: &'static str,
        /// Its `errno`.
        source: io::Error,
    },
    /// The terminal goes on showing what is typed, although it was told not to.
    Echo,
    /// The file could not be opened or looked at.
    File {
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read the file.
    Readable {
        /// Its permissions, as chmod(1) counts them.
        mode: u32,
    },
    /// There is no such variable, or no variable can be called that.
    NoVariable,
    /// Other threads run, which could be using the environment.
    Threads {
        /// How many there are, this one included.
        count: usize,
    },
    /// The environment of the process could not be looked at.
    Environment {
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "a secret of more than {limit} bytes was refused"),
            Self::Nothing => f.write_str("there was no secret to read"),
            Self::Interrupted => f.write_str("the question was interrupted"),
            Self::NoTerminal { .. } => {
                f.write_str("no terminal to ask at; run this in one, or give the secret as a line on standard input")
            }
            Self::Terminal { call, .. } => write!(f, "{call} of the terminal was refused"),
            Self::Echo => f.write_str("the terminal cannot be told to hide what is typed"),
            Self::File { .. } => f.write_str("the file with the secret cannot be opened"),
            Self::Readable { mode } => write!(f, "the file with the secret may be read by others (mode {mode:o})"),
            Self::NoVariable => f.write_str("the variable is not in the environment"),
            Self::Threads { count } => {
                write!(f, "a variable is taken before threads are started, and there are {count}")
            }
            Self::Environment { .. } => f.write_str("the environment of the process cannot be looked at"),
        }
    }
}

impl StdError for InputError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoTerminal { source }
            | Self::Terminal { source, .. }
            | Self::File { source }
            | Self::Environment { source } => Some(source),
            Self::TooLong { .. } | Self::Nothing | Self::Interrupted | Self::Echo => None,
            Self::Readable { .. } | Self::NoVariable | Self::Threads { .. } => None,
        }
    }
}
