//! Why a row could not be played. Never holds bytes of the canary.

use std::error::Error;
use std::fmt;

/// What was being done, and what came back.
#[derive(Debug)]
pub struct Failure {
    doing: &'static str,
    cause: Box<dyn Error + Send + Sync>,
    denied: bool,
}

impl Failure {
    /// For `map_err`: names what was being done.
    pub fn while_doing<E: Into<Box<dyn Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self { doing, cause: cause.into(), denied: false }
    }

    /// What the library says was asked for, and does not hold.
    pub fn denied(doing: &'static str) -> Self {
        Self { doing, cause: "it does not hold".into(), denied: true }
    }

    /// Whether it is that, and no failure of anything else.
    pub fn is_denied(&self) -> bool {
        self.denied
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)?;
        let mut cause = self.cause.source();
        while let Some(deeper) = cause {
            write!(f, ": {deeper}")?;
            cause = deeper.source();
        }
        Ok(())
    }
}

impl Error for Failure {}
