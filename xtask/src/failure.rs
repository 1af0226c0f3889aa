//! What can go wrong, and the exit code that says so.

use std::error::Error;
use std::fmt;
use std::panic::{UnwindSafe, catch_unwind};

/// Wrong usage (`EX_USAGE` of sysexits.h).
pub(crate) const EXIT_USAGE: u8 = 64;

/// An error of ours, a panic, or a program that a signal killed (`EX_SOFTWARE`).
pub(crate) const EXIT_INTERNAL: u8 = 70;

/// Why a task could not be done. A verdict is no failure: it is the code that a task returns.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for does not exist or cannot be meant.
    Usage(String),
    /// What we were doing, and why it did not work.
    Internal {
        /// What was being done, and to what.
        doing: String,
        /// The cause, where there is one beneath.
        source: Option<Box<dyn Error>>,
    },
}

impl Failure {
    /// An error of ours without a deeper cause.
    pub(crate) fn internal(doing: impl Into<String>) -> Self {
        Self::Internal { doing: doing.into(), source: None }
    }

    /// An error of ours with its cause.
    pub(crate) fn because(doing: impl Into<String>, source: impl Into<Box<dyn Error>>) -> Self {
        Self::Internal { doing: doing.into(), source: Some(source.into()) }
    }

    /// The exit code that tells this failure from every verdict.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Internal { .. } => EXIT_INTERNAL,
        }
    }
}

/// The whole chain on one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (message, source) = match self {
            Self::Usage(message) => (message, None),
            Self::Internal { doing, source } => (doing, source.as_deref()),
        };
        f.write_str(message)?;
        let mut cause = source;
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<xshell::Error> for Failure {
    fn from(error: xshell::Error) -> Self {
        Self::Internal { doing: error.to_string(), source: None }
    }
}

/// Runs a task; a panic, which has printed itself, becomes [`EXIT_INTERNAL`] instead of Rust's 101.
pub(crate) fn guarded(task: impl FnOnce() -> u8 + UnwindSafe) -> u8 {
    catch_unwind(task).unwrap_or(EXIT_INTERNAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error_and_no_verdict() {
        assert_eq!(guarded(|| panic!("on purpose")), EXIT_INTERNAL);
    }

    #[test]
    fn a_task_that_ends_keeps_its_code() {
        assert_eq!(guarded(|| 2), 2);
    }

    #[test]
    fn the_message_names_every_cause_once() {
        let failure = Failure::because("reading run.json", std::io::Error::other("disk on fire"));

        assert_eq!(failure.to_string(), "reading run.json: disk on fire");
    }
}
