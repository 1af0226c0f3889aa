//! `residue scan`.

use std::path::{Path, PathBuf};

use findings::{Outcome, Verdict};
use harness::attach::{self, AttachError};
use harness::canary::Canary;
use harness::files::{self, Needles};
use harness::progress::Progress;
use harness::{audit, interrupt};
use indicatif::{HumanBytes, ProgressBar};

use crate::args::Scan;
use crate::audit::{absolute, read_seed};
use crate::output::{printable, say};
use crate::secret::read_small;
use crate::{Failure, chain};

/// `residue scan`.
pub(crate) fn scan(args: &Scan) -> Result<Verdict, Failure> {
    let mut secrets = Vec::new();
    for file in &args.secret_file {
        secrets.push(read_secret(file, usize::from(args.min_length))?);
    }
    if let (Some(seed), Some(subject)) = (&args.seed_file, &args.subject) {
        let seed = read_seed(seed)?;
        let rows = audit::catalogue(&absolute(subject)?).map_err(|error| Failure::Usage(chain(&error)))?;
        secrets.extend(rows.iter().map(|row| seed.canary(&row.name, row.canary, row.canary_len)));
    }
    let missing = |path: &&PathBuf| path.symlink_metadata().is_err() && process(path).is_none();
    if let Some(missing) = args.paths.iter().find(missing) {
        return Err(Failure::Usage(format!("{} does not exist or cannot be looked up", missing.display())));
    }
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let searched = secrets.len();
    let needles = match (secrets.is_empty(), args.unknown_keys) {
        (true, true) => Ok(Needles::of_unknown_keys()),
        (_, false) => Needles::new(secrets, usize::from(args.min_length)),
        (false, true) => Needles::new(secrets, usize::from(args.min_length)).map(Needles::with_unknown_keys),
    };
    let needles = needles.map_err(|error| Failure::internal("prepare the search", &error))?;
    let bar = ProgressBar::new_spinner();
    let observer = |event: &Progress| {
        if let Progress::Searched { bytes } = event {
            bar.inc(*bytes);
            bar.set_message(HumanBytes(bar.position()).to_string());
        }
    };
    let mut outcomes = Vec::new();
    for path in &args.paths {
        let outcome = match process(path) {
            Some(pid) => attach::search(pid, &needles, &interrupted).map_err(refused)?,
            None => files::search(path, &needles, &interrupted, &observer)
                .map_err(|error| Failure::internal(&format!("search {}", path.display()), &error))?,
        };
        outcomes.push(outcome);
    }
    bar.finish_and_clear();
    if args.json {
        let text = serde_json::to_string_pretty(&outcomes).map_err(|error| Failure::internal("write JSON", &error))?;
        say(&format!("{text}\n"))?;
    } else {
        for outcome in &outcomes {
            say(&printable(&describe(outcome, searched)))?;
        }
    }
    let worst = |verdict| outcomes.iter().any(|outcome| outcome.verdict == verdict).then_some(verdict);
    Ok(worst(Verdict::Leak).or(worst(Verdict::Inconclusive)).unwrap_or(Verdict::Clean))
}

/// The process that is meant: a number that names no file.
fn process(path: &Path) -> Option<i32> {
    let pid = path.to_str()?.parse().ok()?;
    path.symlink_metadata().is_err().then_some(pid)
}

fn refused(error: AttachError) -> Failure {
    match error {
        AttachError::Myself { .. }
        | AttachError::Gone { .. }
        | AttachError::Kernel { .. }
        | AttachError::Ended { .. }
        | AttachError::Traced { .. }
        | AttachError::Refused { .. } => Failure::Usage(chain(&error)),
        _ => Failure::Internal(chain(&error)),
    }
}

fn read_secret(file: &Path, shortest: usize) -> Result<Canary, Failure> {
    let bytes = read_small(file)?;
    if bytes.len() < shortest {
        return Err(Failure::Usage(format!("{}: shorter than --min-length {shortest}", file.display())));
    }
    Canary::given(bytes).map_err(|error| Failure::Usage(format!("{}: {}", file.display(), chain(&error))))
}

fn describe(outcome: &Outcome, searched: usize) -> String {
    let coverage = outcome.coverage();
    let mut text = format!(
        "{}: {} ({} searched for {searched} secrets and {} decoys, {} findings)\n",
        outcome.scenario,
        outcome.verdict,
        HumanBytes(coverage.read),
        outcome.controls.decoys,
        outcome.findings.len()
    );
    for finding in &outcome.findings {
        let extent = if finding.whole { "whole" } else { "fragment" };
        let place = if finding.place.is_empty() { String::new() } else { format!(" ({})", finding.place) };
        text.push_str(&format!(
            "  {} at {:#x}{place}: {}, ",
            finding.scenario,
            finding.address,
            finding.rule.form.name()
        ));
        text.push_str(&if finding.rule.form.is_unknown() {
            format!("{} bytes, a key that nobody named\n", finding.length)
        } else {
            let end = finding.secret_offset + finding.secret_length;
            format!(
                "{extent}, {} bytes, which show bytes {}..{end} of the secret\n",
                finding.length, finding.secret_offset
            )
        });
    }
    for reason in &outcome.reasons {
        text.push_str(&format!("  inconclusive: {reason}\n"));
    }
    text
}
