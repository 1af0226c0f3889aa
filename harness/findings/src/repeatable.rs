//! The part of a run that the same input gives again, to the byte.
//!
//! A run measures real processes, so some of what it writes down is the moment's: where the kernel put a mapping, which pages
//! of a library were in memory, which of two threads came first. Left out here, and in `run.json` alone: addresses, names of
//! mappings and registers, offsets, numbers of bytes, threads and hits, details and reasons in words, and every residue that
//! some of several equal runs showed and others did not. All else is here.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{Build, Key, Looked, Run, Settings, Tool, Verdict};

/// Name and version of the shape.
pub const REPEATABLE_SCHEMA: &str = "secmem.repeatable/1";

/// What the same input gives again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repeatable {
    /// [`REPEATABLE_SCHEMA`].
    pub schema: String,
    /// The program that made the run.
    pub tool: Tool,
    /// Kernel name and release.
    pub kernel: String,
    /// Instruction set.
    pub arch: String,
    /// Abilities of the machine, by name.
    pub abilities: Vec<String>,
    /// How the subject was built.
    pub build: Build,
    /// What was asked for.
    pub settings: Settings,
    /// Windows of the shortest length in all forms of one canary.
    pub windows: u64,
    /// Decoys over the whole run.
    pub decoys: u64,
    /// Hits of decoys.
    pub decoy_hits: u64,
    /// What the run cannot show, by name.
    pub not_shown: Vec<String>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// The verdict over all rows.
    pub verdict: Verdict,
    /// One a row, in the order of the catalogue.
    pub rows: Vec<RepeatableRow>,
}

/// What the same input gives again of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepeatableRow {
    /// `holder/ending`.
    pub scenario: String,
    /// What had to be seen.
    pub expectation: String,
    /// Whether it is a leaky control.
    pub control: bool,
    /// What was seen.
    pub verdict: Verdict,
    /// Whether that is what the row expects.
    pub as_expected: bool,
    /// How the first process ended.
    pub ended: String,
    /// Whether the secret was seen while it was alive.
    pub seen_alive: bool,
    /// Every process at every checkpoint: `CHECKPOINT of PROCESS`, and whether it was looked at where it was not.
    pub looks: BTreeSet<String>,
    /// Residues, each kind once: those that every one of several equal runs showed.
    pub residues: BTreeSet<Key>,
    /// Requirements that the row speaks for.
    pub shows: Vec<String>,
}

impl Run {
    /// The part that the same input gives again.
    pub fn repeatable(&self) -> Repeatable {
        let rows = self.outcomes.iter().map(|outcome| {
            let looks = outcome.observations.iter().map(|look| {
                let suffix = match look.looked {
                    Looked::Yes => "",
                    Looked::Missed(_) => ", missed",
                    Looked::NotLookedAt(_) => ", not looked at",
                };
                format!("{} of {}{suffix}", without_point(&look.checkpoint), look.process)
            });
            let steady = outcome.findings.iter().filter(|finding| !finding.is_intermittent());
            RepeatableRow {
                scenario: outcome.scenario.clone(),
                expectation: outcome.expectation.clone(),
                control: outcome.control,
                verdict: outcome.verdict,
                as_expected: outcome.as_expected,
                ended: outcome.ended.clone(),
                seen_alive: outcome.controls.planted > 0,
                looks: looks.collect(),
                residues: steady.map(crate::Finding::key).collect(),
                shows: outcome.shows.clone(),
            }
        });
        Repeatable {
            schema: REPEATABLE_SCHEMA.to_owned(),
            tool: self.tool.clone(),
            kernel: self.machine.kernel.clone(),
            arch: self.machine.arch.clone(),
            abilities: self.machine.facts.iter().filter(|fact| fact.present).map(|fact| fact.name.clone()).collect(),
            build: self.build.clone(),
            settings: self.settings.clone(),
            windows: self.sensitivity.windows,
            decoys: self.sensitivity.decoys,
            decoy_hits: self.sensitivity.decoy_hits,
            not_shown: self.not_shown.iter().map(|thing| thing.what.clone()).collect(),
            interrupted: self.interrupted,
            verdict: self.verdict,
            rows: rows.collect(),
        }
    }
}

/// A checkpoint without the point at which a signal was sent, whose numbers are the moment's.
fn without_point(checkpoint: &str) -> &str {
    match checkpoint.split_once(" (SIG") {
        Some((name, point)) if point.ends_with(" instructions)") => name,
        _ => checkpoint,
    }
}
