//! The moments at which a program is looked at.

use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use regex::bytes::Regex;

/// When to look.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Moment {
    /// At the end of every process that is followed.
    Exit,
    /// When what the program has printed matches for the first time.
    Stdout(Regex),
    /// When this signal is about to be delivered, for the first time in a process after the secret arrived.
    Signal(i32, String),
    /// When this system call is about to be made, for the first time in a process after the secret arrived.
    Syscall(u64, String),
    /// So long after the start.
    After(Duration, String),
}

/// A text that names no moment.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseMomentError {
    /// It is none of the words.
    #[error("{text:?} is no moment: exit, stdout:REGEX, signal:NAME, syscall:NAME or after:DURATION")]
    Unknown {
        /// The text.
        text: String,
    },
    /// The regular expression is none.
    #[error("{text:?} is no regular expression")]
    Regex {
        /// The text.
        text: String,
        /// Where it goes wrong.
        source: regex::Error,
    },
    /// There is no such signal, or no process can be stopped at it.
    #[error("{text:?} is no signal that can be looked at (try SIGTERM)")]
    Signal {
        /// The text.
        text: String,
    },
    /// There is no such system call.
    #[error("{text:?} is no system call of x86-64 (try openat)")]
    Syscall {
        /// The text.
        text: String,
    },
    /// The duration is none.
    #[error("{text:?} is no duration (try 500ms)")]
    Duration {
        /// The text.
        text: String,
    },
}

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, ParseMomentError> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("exit", None) => Ok(Self::Exit),
            ("stdout", Some(rest)) => Regex::new(rest)
                .map(Self::Stdout)
                .map_err(|source| ParseMomentError::Regex { text: rest.to_owned(), source }),
            ("signal", Some(rest)) => {
                let name = rest.to_ascii_uppercase();
                let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
                match Signal::from_str(&name) {
                    // No stop comes before these two.
                    Ok(Signal::SIGKILL | Signal::SIGSTOP) | Err(_) => {
                        Err(ParseMomentError::Signal { text: rest.to_owned() })
                    }
                    Ok(signal) => Ok(Self::Signal(signal as i32, name)),
                }
            }
            ("syscall", Some(rest)) => syscalls::Sysno::from_str(rest)
                .map(|call| Self::Syscall(call.id() as u64, rest.to_owned()))
                .map_err(|_| ParseMomentError::Syscall { text: rest.to_owned() }),
            ("after", Some(rest)) => humantime::parse_duration(rest)
                .map(|duration| Self::After(duration, rest.to_owned()))
                .map_err(|_| ParseMomentError::Duration { text: rest.to_owned() }),
            _ => Err(ParseMomentError::Unknown { text: text.to_owned() }),
        }
    }
}

impl Moment {
    /// Its name in findings and reports, which reads as it was asked for.
    pub fn name(&self) -> String {
        match self {
            Self::Exit => "exit".to_owned(),
            Self::Stdout(regex) => format!("stdout:{regex}"),
            Self::Signal(_, name) => format!("signal:{name}"),
            Self::Syscall(_, name) => format!("syscall:{name}"),
            Self::After(_, text) => format!("after:{text}"),
        }
    }

    /// Why it never came, where it did not.
    pub(super) const fn missed(&self) -> &'static str {
        match self {
            Self::Exit => "no process that is followed came to its exit stop",
            Self::Stdout(_) => "nothing that the program printed matched",
            Self::Signal(..) => "it was not delivered after the secret arrived",
            Self::Syscall(..) => "it was not called after the secret arrived",
            Self::After(..) => "the program had ended by then",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_they_are_named() {
        for text in ["exit", "stdout:^done [0-9]+$", "signal:SIGUSR1", "syscall:openat", "after:500ms"] {
            assert_eq!(text.parse::<Moment>().unwrap().name(), text);
        }
        assert_eq!("signal:usr1".parse::<Moment>().unwrap().name(), "signal:SIGUSR1");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "end", "stdout:(", "signal:NONE", "signal:KILL", "syscall:fly", "after:soon", "exit:1"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
