//! One stream of events for whoever watches a run: a progress bar, a log, nobody.

use findings::{Outcome, Verdict};

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The catalogue was read; so many rows will run.
    Started {
        /// How many.
        rows: usize,
    },
    /// A row has its verdict.
    Judged {
        /// Its name.
        scenario: String,
        /// What was seen.
        verdict: Verdict,
        /// Whether that is what it expects.
        as_expected: bool,
    },
    /// Something that a user should know and that no verdict rests on.
    Noted {
        /// What.
        text: String,
    },
    /// Bytes of files were searched.
    Searched {
        /// How many more.
        bytes: u64,
    },
}

impl Progress {
    pub(crate) fn judged(outcome: &Outcome) -> Self {
        Self::Judged { scenario: outcome.scenario.clone(), verdict: outcome.verdict, as_expected: outcome.as_expected }
    }
}

/// Takes in events from several threads.
pub trait Observer: Sync {
    /// Is told what happened. Must not block for long: the target stands still meanwhile.
    fn on(&self, event: &Progress);
}

impl<F: Fn(&Progress) + Sync> Observer for F {
    fn on(&self, event: &Progress) {
        self(event);
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {
    fn on(&self, _: &Progress) {}
}
