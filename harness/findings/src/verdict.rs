//! The three verdicts and the exit codes that every program of ours ends with.

use serde::{Deserialize, Serialize};

/// What a look at memory allows to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Looked at, with working controls, and nothing was found.
    Clean,
    /// Something was found.
    Leak,
    /// It cannot be said: a silent control, unseen bytes, a missed checkpoint.
    Inconclusive,
}

/// Exit code for wrong usage (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Exit code for an error of our own: unwritable directory, panic, a child killed by a signal (`EX_SOFTWARE`).
pub const EXIT_INTERNAL: u8 = 70;

impl Verdict {
    /// The exit code: 0 clean, 1 leak, 2 inconclusive. The only place where a verdict becomes a number.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Leak => 1,
            Self::Inconclusive => 2,
        }
    }

    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Leak => "leak",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_its_own_exit_code_and_none_is_that_of_an_error() {
        let codes = [Verdict::Clean, Verdict::Leak, Verdict::Inconclusive].map(Verdict::exit_code);

        assert_eq!(codes, [0, 1, 2]);
        assert!(!codes.contains(&EXIT_USAGE) && !codes.contains(&EXIT_INTERNAL));
    }
}
