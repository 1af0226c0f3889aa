//! A whole run: what was audited, where, with which controls, and what came out.

use serde::{Deserialize, Serialize};

use crate::{Coverage, Finding, Kept, Outcome, Sensitivity, Shard, Verdict};

/// Name and version of the file's shape. Readers refuse another major version.
pub const SCHEMA: &str = "secmem.run/1";

/// Name of the fact that says whether a kernel core can be had.
pub const CORE: &str = "kernel core";

/// A whole run, as `run.json` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that made it.
    pub tool: Tool,
    /// The machine on which it ran.
    pub machine: Machine,
    /// How the subject was built.
    pub build: Build,
    /// What was asked for.
    pub settings: Settings,
    /// How small a residue would have been seen.
    pub sensitivity: Sensitivity,
    /// What this run cannot show, in words.
    pub not_shown: Vec<NotShown>,
    /// Which part of a whole run this is; absent in a whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// The verdict over all outcomes.
    pub verdict: Verdict,
    /// One a row, in the order of the catalogue.
    pub outcomes: Vec<Outcome>,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Where the run took place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel name and release.
    pub kernel: String,
    /// Instruction set.
    pub arch: String,
    /// What this machine can show, each probed once.
    pub facts: Vec<Fact>,
}

/// One probed ability of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What was probed (`kernel core`, `memfd_secret`, `ptrace`, `lock limit`).
    pub name: String,
    /// Whether it is there.
    pub present: bool,
    /// What the probe saw.
    pub detail: String,
}

/// How the subject was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The subject's file name.
    pub subject: String,
    /// Digest of the subject: `blake3:` and hexadecimal.
    pub digest: String,
    /// Cargo's profile.
    pub profile: String,
    /// `rustc --version` of the build, as the builder told it.
    pub rustc: String,
    /// The ablation that the subject was built with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablation: Option<String>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bytes of the secret that make the shortest residue looked for.
    pub min_length: u32,
    /// Decoys a row.
    pub decoys: u32,
    /// The text that names had to contain; empty for all.
    pub filter: String,
    /// Names of facts of the machine without which the run counts as inconclusive ([`CORE`]).
    pub required: Vec<String>,
    /// Seconds that a scenario may take.
    pub timeout_seconds: u32,
    /// How often each row was run; absent where it was once.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub repeat: u32,
    /// Whether the kernel was told to put memory at the same addresses in every run; programs then got the same random
    /// numbers, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed_layout: bool,
}

fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn is_once(times: &u32) -> bool {
    *times == 1
}

/// Something that the run cannot show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotShown {
    /// The thing.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl Run {
    /// The verdict over all outcomes, which [`Run::verdict`](Self#structfield.verdict) must equal.
    ///
    /// An unexpected leak outweighs everything; then come an interrupted run, a run without rows, a required ability
    /// that the machine lacks, and any row that did not show what it had to.
    pub fn judge(&self) -> Verdict {
        let unexpected = |outcome: &&Outcome| !outcome.as_expected;
        if self.outcomes.iter().filter(unexpected).any(|outcome| outcome.verdict == Verdict::Leak && !outcome.control) {
            return Verdict::Leak;
        }
        let lacks = |ability: &String| !self.machine.facts.iter().any(|fact| fact.name == *ability && fact.present);
        if self.interrupted
            || self.outcomes.is_empty()
            || self.settings.required.iter().any(lacks)
            || self.outcomes.iter().any(|outcome| !outcome.as_expected)
        {
            return Verdict::Inconclusive;
        }
        Verdict::Clean
    }

    /// All findings, in the order of the outcomes.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.outcomes.iter().flat_map(|outcome| &outcome.findings)
    }

    /// The bytes of all looks.
    pub fn coverage(&self) -> Coverage {
        let mut total = Coverage::default();
        for outcome in &self.outcomes {
            total.add(&outcome.coverage());
        }
        total
    }

    /// What the kernel kept behind descriptors, over all looks that looked there.
    pub fn kept(&self) -> Kept {
        let mut total = Kept::default();
        self.outcomes.iter().for_each(|outcome| total.add(&outcome.kept()));
        total
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Controls;

    pub(crate) fn outcome(control: bool, verdict: Verdict, as_expected: bool) -> Outcome {
        Outcome {
            scenario: "holder/ending".to_owned(),
            holder: "holder".to_owned(),
            ending: "ending".to_owned(),
            expectation: "clean".to_owned(),
            control,
            verdict,
            as_expected,
            reasons: Vec::new(),
            ended: "exit 0".to_owned(),
            observations: Vec::new(),
            controls: Controls::default(),
            findings: Vec::new(),
            shows: Vec::new(),
        }
    }

    pub(crate) fn run(outcomes: Vec<Outcome>) -> Run {
        let text = String::new;
        Run {
            schema: SCHEMA.to_owned(),
            tool: Tool { name: text(), version: text() },
            machine: Machine {
                kernel: text(),
                arch: text(),
                facts: vec![Fact { name: CORE.to_owned(), present: false, detail: text() }],
            },
            build: Build { subject: text(), digest: text(), profile: text(), rustc: text(), ablation: None },
            settings: Settings {
                min_length: 6,
                decoys: 8,
                filter: text(),
                required: Vec::new(),
                timeout_seconds: 1,
                repeat: 1,
                fixed_layout: false,
            },
            sensitivity: Sensitivity::of(6, &[], &[]),
            not_shown: Vec::new(),
            shard: None,
            interrupted: false,
            verdict: Verdict::Clean,
            outcomes,
        }
    }

    pub(crate) fn good() -> Vec<Outcome> {
        vec![outcome(false, Verdict::Clean, true), outcome(true, Verdict::Leak, true)]
    }

    #[test]
    fn rows_as_expected_make_a_clean_run() {
        assert_eq!(run(good()).judge(), Verdict::Clean);
    }

    #[test]
    fn an_unexpected_leak_outweighs_everything() {
        let mut run = run(good());
        run.outcomes.push(outcome(false, Verdict::Leak, false));
        run.interrupted = true;

        assert_eq!(run.judge(), Verdict::Leak);
    }

    #[test]
    fn a_run_that_shows_less_than_was_asked_is_inconclusive() {
        let interrupted = Run { interrupted: true, ..run(good()) };
        let mut without_core = run(good());
        without_core.settings.required.push(CORE.to_owned());
        let silent = run(vec![outcome(true, Verdict::Inconclusive, false)]);

        for run in [run(Vec::new()), interrupted, without_core, silent] {
            assert_eq!(run.judge(), Verdict::Inconclusive);
        }
    }
}
