//! One row of the catalogue: who holds the secret, how the process ends, what must be seen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Checkpoint;

/// One scenario, as `scenarios list` prints it and the harness reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// `holder/ending`, unique in the catalogue.
    pub name: String,
    /// What holds the secret.
    pub holder: String,
    /// How the process ends.
    pub ending: String,
    /// What the canary is made of.
    pub canary: CanaryKind,
    /// Bytes of canary that the target reads.
    pub canary_len: usize,
    /// What must be seen, and where.
    pub expect: Expectation,
    /// The status with which the first process must end.
    pub ends: Ends,
    /// Every checkpoint that must be looked at, in order. `Core` counts only where the machine can show one.
    pub checkpoints: Vec<Checkpoint>,
    /// At `planted` the canary may stand in one place alone, and what is made of it in another.
    pub sole_home: bool,
    /// What the machine must offer for this row to mean anything.
    pub needs: Vec<Need>,
    /// Ablated builds of the library under which this row must turn.
    pub turned_by: Vec<String>,
    /// Whether the row asks the kernel, by itself, for what the library says: where that does not hold it ends with
    /// [`DENIED`](crate::DENIED), and so turns without a residue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// The requirements (rows of the house's list) that this row speaks for.
    pub shows: Vec<String>,
    /// What the target makes of the canary that is a secret too, by name. It is looked for as the canary is: `PROGRAM
    /// derive NAME` reads a canary on standard input and prints what the row makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<String>,
}

/// What a canary is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryKind {
    /// Random bytes without zero.
    Bytes,
    /// Letters and digits, for holders that can hold nothing else (argv, environment, `String`).
    Text,
}

/// Something a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// `memfd_secret(2)`, and memory of that kind that may be locked.
    MemfdSecret,
    /// `mlock(2)` of a few pages.
    Mlock,
}

impl Need {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Mlock => "mlock",
        }
    }
}

/// What must be found at a leaky control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The whole canary at least once.
    Whole,
    /// Pieces, and the whole canary nowhere.
    Fragments,
}

/// What a clean row claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The bytes are gone; shielded memory was read at the last live stop to see that.
    Wiped,
    /// The bytes stand in memory that no outside reader can read; nothing could run to wipe them.
    Shielded,
}

/// What must be seen in a row, and at which checkpoint.
///
/// Written `clean`, `clean (shielded)`, `leak@CHECKPOINT`, `leak@CHECKPOINT (fragments)` or `either (WHY)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing at any checkpoint after `planted`.
    Clean(Claim),
    /// The canary, or pieces of it, at this checkpoint.
    Leak {
        /// Where it must be found; it may stand at others too.
        at: Checkpoint,
        /// Whole, or in pieces alone.
        shape: Shape,
    },
    /// A residue that comes and goes; the reason is printed with the row.
    Either(String),
}

impl Expectation {
    /// Whether the row is a control that must be found leaking.
    pub const fn is_leaky_control(&self) -> bool {
        matches!(self, Self::Leak { .. })
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean(Claim::Wiped) => f.write_str("clean"),
            Self::Clean(Claim::Shielded) => f.write_str("clean (shielded)"),
            Self::Leak { at, shape: Shape::Whole } => write!(f, "leak@{at}"),
            Self::Leak { at, shape: Shape::Fragments } => write!(f, "leak@{at} (fragments)"),
            Self::Either(why) => write!(f, "either ({why})"),
        }
    }
}

/// Why a text is not an [`Expectation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseExpectationError {
    text: String,
}

impl fmt::Display for ParseExpectationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no expectation: write clean, clean (shielded), leak@CHECKPOINT, leak@CHECKPOINT (fragments) or either (WHY)",
            self.text
        )
    }
}

impl std::error::Error for ParseExpectationError {}

impl FromStr for Expectation {
    type Err = ParseExpectationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseExpectationError { text: text.to_owned() };
        if text == "clean" {
            return Ok(Self::Clean(Claim::Wiped));
        }
        if text == "clean (shielded)" {
            return Ok(Self::Clean(Claim::Shielded));
        }
        if let Some(why) = text.strip_prefix("either (").and_then(|rest| rest.strip_suffix(')')) {
            return if why.is_empty() { Err(refused()) } else { Ok(Self::Either(why.to_owned())) };
        }
        let at = text.strip_prefix("leak@").ok_or_else(refused)?;
        let (at, shape) = match at.strip_suffix(" (fragments)") {
            Some(at) => (at, Shape::Fragments),
            None => (at, Shape::Whole),
        };
        let at = Checkpoint::from_name(at).ok_or_else(refused)?;
        Ok(Self::Leak { at, shape })
    }
}

impl Serialize for Expectation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a process ended, as wait(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// With this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit {status}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_read_back_as_they_are_written() {
        for text in ["clean", "clean (shielded)", "leak@exit", "leak@wiped (fragments)", "either (reused by libc)"] {
            let parsed: Expectation = text.parse().unwrap();

            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_is_no_expectation_is_refused() {
        for text in ["", "Clean", "leak", "leak@", "leak@nowhere", "either ()", "either", "leak@exit (whole)"] {
            assert!(text.parse::<Expectation>().is_err(), "{text}");
        }
    }
}
