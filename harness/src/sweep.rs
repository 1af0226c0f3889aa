//! A signal while the secret is in use: sent at points that are spread over the window, one run a point.
//!
//! ```text
//! a run in single steps counts the window ─► a run a point: so many steps, the signal, full speed ─► judged as ever ─► one outcome
//! ```
//!
//! The window begins where the secret is seen alive and ends with whatever is looked at next. A point is a number of
//! instructions of all threads of the first process. What lies between two points is not shown: a sweep is a sample, whose
//! size its outcome tells.

use std::fmt;
use std::str::FromStr;

use findings::{Controls, Finding, Outcome, Verdict};
use nix::sys::signal::Signal;
use scenario_protocol::{Checkpoint, Claim, Ends, Expectation, Row};

/// Instructions after which a window is cut: each costs two switches between the target and us.
pub const MOST_STEPS: u64 = 1_000_000;

/// Points that a sweep may have.
pub const MOST_POINTS: u32 = 10_000;

/// A signal, and at how many points it is sent. Written `SIGNAL:POINTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    signal: Signal,
    points: u32,
}

/// A text that names no sweep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no sweep: SIGNAL:POINTS, a signal that ends a process and a number from 1 to {MOST_POINTS} (try SIGTERM:32)"
)]
pub struct ParseSweepError {
    text: String,
}

impl FromStr for Sweep {
    type Err = ParseSweepError;

    fn from_str(text: &str) -> Result<Self, ParseSweepError> {
        let sweep = || {
            let (name, points) = text.split_once(':')?;
            let name = name.to_ascii_uppercase();
            let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
            let signal = Signal::from_str(&name).ok().filter(|signal| ends_a_process(*signal))?;
            let points = points.parse().ok().filter(|points| (1..=MOST_POINTS).contains(points))?;
            Some(Self { signal, points })
        };
        sweep().ok_or_else(|| ParseSweepError { text: text.to_owned() })
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.signal, self.points)
    }
}

/// Whether the default action of a signal is to end the process: signal(7).
fn ends_a_process(signal: Signal) -> bool {
    use Signal::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    !matches!(signal, SIGCHLD | SIGCONT | SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU | SIGURG | SIGWINCH)
}

/// What a sweep asks of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Count the instructions of the window.
    Count,
    /// Send a signal in it.
    Send {
        /// Which.
        signal: i32,
        /// After so many instructions.
        after: u64,
    },
}

/// How long the secret was in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// In instructions.
    pub(crate) instructions: u64,
    /// Whether there were more, which were not counted.
    pub(crate) cut: bool,
}

/// One point of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    signal: Signal,
    after: u64,
    window: Window,
}

impl Point {
    pub(crate) fn pass(&self) -> Pass {
        Pass::Send { signal: self.signal as i32, after: self.after }
    }

    /// A moment's name with the point.
    fn moment(&self, checkpoint: &str) -> String {
        format!("{checkpoint} ({self})")
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.window.cut { "more than " } else { "" };
        let (after, of) = (grouped(self.after), grouped(self.window.instructions));
        write!(f, "{} after {after} of {more}{of} instructions", self.signal)
    }
}

impl Sweep {
    /// The points in a window, from the middle of its first part to that of its last; no more than it has instructions.
    pub(crate) fn points(&self, window: Window) -> Vec<Point> {
        let count = u64::from(self.points).min(window.instructions.max(1));
        let after = |number: u64| (window.instructions * (2 * number + 1) / (2 * count)).max(1);
        (0..count).map(|number| Point { signal: self.signal, after: after(number), window }).collect()
    }

    /// The signal's name.
    pub(crate) fn signal(&self) -> &'static str {
        self.signal.as_str()
    }

    /// The row as which a run that this signal ends is judged.
    ///
    /// What must be seen then is what the catalogue expects of the row in which that signal ends the same holder. That
    /// one holds its secret while it ends; here the secret may be gone already, so a leak may be seen but need not.
    pub(crate) fn row(&self, row: &Row, catalogue: &[Row]) -> Row {
        let ends = Ends::Signal(self.signal as i32);
        let ending = self.signal.as_str().to_ascii_lowercase();
        let like = catalogue.iter().find(|other| other.holder == row.holder && other.ending == ending);
        let expect = match like.map(|like| &like.expect) {
            Some(Expectation::Clean(claim)) if matches!(row.expect, Expectation::Clean(_)) => {
                Expectation::Clean(weaker(*claim, &row.expect))
            }
            Some(_) => Expectation::Either("where the signal comes early the secret still stands".to_owned()),
            None => Expectation::Either(format!("no row ends this holder by {}", self.signal)),
        };
        let checkpoints = like.map_or_else(
            || match self.signal {
                Signal::SIGKILL => vec![Checkpoint::Planted, Checkpoint::Exit],
                _ => vec![Checkpoint::Planted, Checkpoint::Signal, Checkpoint::Exit],
            },
            |like| like.checkpoints.clone(),
        );
        let name = format!("{} + {}", row.name, self.signal);
        Row {
            name,
            ending,
            ends,
            checkpoints,
            expect,
            turned_by: Vec::new(),
            asks: false,
            shows: vec!["H16".to_owned()],
            ..row.clone()
        }
    }
}

/// A row that claims less does not claim more because a signal comes.
fn weaker(claim: Claim, expect: &Expectation) -> Claim {
    if *expect == Expectation::Clean(Claim::Shielded) { Claim::Shielded } else { claim }
}

/// The outcomes of all points as one. A residue that stands at several is told once, with the first.
pub(crate) fn merge(sweep: &Sweep, window: Window, points: Vec<(Point, Outcome)>) -> Outcome {
    let more = if window.cut { "more than " } else { "" };
    let mut merged: Option<Outcome> = None;
    let mut all: Vec<(Finding, usize, u32)> = Vec::new();
    let mut verdicts = Vec::new();
    let (mut observations, mut reasons, mut endings) = (Vec::new(), Vec::new(), Vec::new());
    let mut controls = Controls::default();
    for (point, outcome) in &points {
        let first = merged.get_or_insert_with(|| outcome.clone());
        first.as_expected &= outcome.as_expected;
        verdicts.push(outcome.verdict);
        let mut met: Vec<&str> = Vec::new();
        for finding in &outcome.findings {
            let ordinal = met.iter().filter(|other| **other == finding.fingerprint).count();
            met.push(&finding.fingerprint);
            match all
                .iter_mut()
                .find(|(other, number, _)| (&other.fingerprint, *number) == (&finding.fingerprint, ordinal))
            {
                Some((_, _, times)) => *times += 1,
                None => {
                    let checkpoint = point.moment(&finding.checkpoint);
                    all.push((Finding { checkpoint, ..finding.clone() }, ordinal, 1));
                }
            }
        }
        observations.extend(outcome.observations.iter().cloned().map(|mut look| {
            look.checkpoint = point.moment(&look.checkpoint);
            look
        }));
        reasons.extend(outcome.reasons.iter().map(|why| format!("{point}: {why}")));
        endings.push(outcome.ended.clone());
        controls = Controls {
            // Every point needs its own control: the weakest counts.
            planted: if verdicts.len() == 1 {
                outcome.controls.planted
            } else {
                controls.planted.min(outcome.controls.planted)
            },
            decoys: outcome.controls.decoys,
            decoy_hits: controls.decoy_hits + outcome.controls.decoy_hits,
        };
    }
    let mut merged = merged.expect("a window has at least one point");
    if window.cut {
        let most = grouped(MOST_STEPS);
        reasons.push(format!("the window is longer than {most} instructions: the signal was sent in these alone"));
        merged.as_expected = false;
        verdicts.push(Verdict::Inconclusive);
    }
    merged.verdict = match (verdicts.contains(&Verdict::Leak), verdicts.contains(&Verdict::Inconclusive)) {
        (true, _) => Verdict::Leak,
        (false, true) => Verdict::Inconclusive,
        (false, false) => Verdict::Clean,
    };
    endings.sort();
    endings.dedup();
    let of = points.len();
    let count = if of == 1 { "1 point".to_owned() } else { format!("{of} points") };
    merged.ending = format!("{} at {count} of {more}{} instructions", sweep.signal, grouped(window.instructions));
    merged.findings = all
        .into_iter()
        .map(|(mut finding, _, times)| {
            if times > 1 {
                finding.checkpoint =
                    finding.checkpoint.replacen(')', &format!(", and at {} points more)", times - 1), 1);
            }
            finding
        })
        .collect();
    merged.ended = endings.join(" or ");
    (merged.observations, merged.reasons, merged.controls) = (observations, reasons, controls);
    merged
}

/// Says of a finding why nobody asked for its writer.
pub(crate) fn unattributed(finding: &mut Finding) {
    finding.unattributed = Some("the runs of a sweep are not made again to name writers".to_owned());
}

/// A number with commas: 80,210.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { instructions: 80_210, cut: false };

    #[test]
    fn a_sweep_reads_as_it_is_written_and_anything_else_is_refused() {
        assert_eq!("SIGTERM:32".parse::<Sweep>().unwrap().to_string(), "SIGTERM:32");
        assert_eq!("segv:1".parse::<Sweep>().unwrap().to_string(), "SIGSEGV:1");
        for text in ["", "SIGTERM", "SIGTERM:", "SIGTERM:0", "SIGTERM:20000", "SIGCHLD:4", "SIGSTOP:4", "FLY:4"] {
            assert!(text.parse::<Sweep>().is_err(), "{text}");
        }
    }

    #[test]
    fn points_spread_over_the_window_and_are_no_more_than_its_instructions() {
        let sweep: Sweep = "SIGTERM:4".parse().unwrap();
        let after = |instructions| -> Vec<u64> {
            sweep.points(Window { instructions, cut: false }).iter().map(|point| point.after).collect()
        };

        assert_eq!(after(80_000), [10_000, 30_000, 50_000, 70_000]);
        assert_eq!(after(3), [1, 1, 2]);
        assert_eq!(after(0), [1]);
    }

    #[test]
    fn a_point_names_the_signal_and_where_it_came() {
        let point = Point { signal: Signal::SIGTERM, after: 12_345, window: WINDOW };

        assert_eq!(point.to_string(), "SIGTERM after 12,345 of 80,210 instructions");
        assert_eq!(point.moment("exit"), "exit (SIGTERM after 12,345 of 80,210 instructions)");
    }

    #[test]
    fn a_long_number_is_cut_into_threes() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
