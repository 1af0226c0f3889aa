//! `residue explain`: who wrote a finding.

use std::path::Path;
use std::time::Duration;

use findings::{Finding, Origin, Run, Verdict, Writer};
use harness::audit::{self, Options};
use harness::canary::Seed;
use harness::{attribute, interrupt, machine};

use crate::Failure;
use crate::args::Explain;
use crate::audit::{absolute, failure, read_seed};
use crate::output::{read_run, say};

/// `residue explain`.
pub(crate) fn explain(args: &Explain) -> Result<Verdict, Failure> {
    let run = read_run(&args.run)?;
    let mut found = matching(&run, &args.fingerprint)?;
    if let Some(subject) = &args.subject {
        attribute_again(args, subject, &run, &mut found)?;
    } else if found.iter().all(|finding| finding.writer.is_none() && finding.unattributed.is_none()) {
        let how = "no writer was asked for in that run: name its --subject, or run `residue run --attribute`";
        return Err(Failure::Usage(how.to_owned()));
    }
    if args.json {
        let text = serde_json::to_string_pretty(&found).map_err(|error| Failure::internal("write JSON", &error))?;
        say(&format!("{text}\n"))?;
    } else {
        for finding in &found {
            say(&describe(finding))?;
        }
    }
    let all = found.iter().all(|finding| finding.writer.is_some());
    Ok(if all { Verdict::Clean } else { Verdict::Inconclusive })
}

/// Runs the findings' row again to name who wrote them.
fn attribute_again(args: &Explain, subject: &Path, run: &Run, found: &mut [Finding]) -> Result<(), Failure> {
    let seed = match &args.seed_file {
        Some(file) => read_seed(file)?,
        None => Seed::random().map_err(|error| Failure::internal("draw a random seed", &error))?,
    };
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let options = Options {
        timeout: Duration::from_secs(args.timeout),
        min_length: usize::try_from(run.settings.min_length).unwrap_or(usize::MAX),
        profile: run.build.profile.clone(),
        rustc: run.build.rustc.clone(),
        ablation: run.build.ablation.clone(),
        ..Options::new(absolute(subject)?, seed)
    };
    let scenario = found[0].scenario.clone();
    let rows = audit::catalogue(&options.subject).map_err(failure)?;
    let row = rows.iter().find(|row| row.name == scenario);
    let row = row.ok_or_else(|| Failure::Usage(format!("{} has no row {scenario}", subject.display())))?;
    let mut wanted: Vec<_> = found.iter_mut().collect();
    attribute::attribute(row, &machine::probe(), &options, &mut wanted, &interrupted);
    Ok(())
}

/// The findings with that fingerprint: more than one where copies of a secret lie in places of the same name.
fn matching(run: &Run, start: &str) -> Result<Vec<Finding>, Failure> {
    let found: Vec<Finding> =
        run.findings().filter(|finding| finding.fingerprint.starts_with(start)).cloned().collect();
    let Some(first) = found.first() else {
        return Err(Failure::Usage(format!("no finding's fingerprint begins with {start:?}; run.json names them")));
    };
    if found.iter().any(|other| other.fingerprint != first.fingerprint) {
        return Err(Failure::Usage(format!("more than one fingerprint begins with {start:?}: give more of it")));
    }
    Ok(found)
}

fn describe(finding: &Finding) -> String {
    let extent = if finding.whole { "whole" } else { "fragment" };
    let place = if finding.place.is_empty() { "anonymous memory" } else { &finding.place };
    let mut text = format!(
        "{} {} at {}: {} in {}, {extent}, bytes {}..{} of the {}\n",
        finding.fingerprint,
        finding.scenario,
        finding.checkpoint,
        finding.rule,
        place.escape_debug(),
        finding.secret_offset,
        finding.secret_offset + finding.secret_length,
        finding.derived.as_deref().unwrap_or("secret").escape_debug(),
    );
    match (&finding.writer, &finding.unattributed) {
        (Some(writer), _) => describe_writer(&mut text, writer, "written by"),
        (None, Some(why)) => text.push_str(&format!("  not attributed: {why}\n")),
        (None, None) => text.push_str("  not attributed\n"),
    }
    if let Some(freed) = &finding.freed {
        describe_writer(&mut text, freed, "freed as it was by");
    }
    text
}

fn describe_writer(text: &mut String, writer: &Writer, what: &str) {
    text.push_str(&format!("  {what}: {}\n", writer.how));
    for (number, frame) in writer.frames.iter().enumerate() {
        let mut notes = String::new();
        match (&frame.file, frame.line, &frame.module) {
            (Some(file), Some(line), _) => notes.push_str(&format!("  {}:{line}", file.escape_debug())),
            (Some(file), None, _) => notes.push_str(&format!("  {}", file.escape_debug())),
            (None, _, Some(module)) => notes.push_str(&format!("  in {}", module.escape_debug())),
            (None, _, None) => {}
        }
        if frame.inlined {
            notes.push_str("  (inlined)");
        }
        if writer.holder == u32::try_from(number).ok() {
            notes.push_str("  <- the residue lies in its part of the stack");
        }
        text.push_str(&format!("    {number:>3}  {}{notes}\n", frame.function.escape_debug()));
    }
    if let Some(why) = &writer.cut {
        text.push_str(&format!("         … the stack goes on: {why}\n"));
    }
    if let Some(charge) = charge(writer) {
        text.push_str(&format!("  {charge}\n"));
    }
    if let Some(end) = &writer.end {
        describe_writer(text, end, "its end was written by");
    }
}

/// To whom the write is charged, in a sentence; `None` when no frame is known to be outside the libraries.
fn charge(writer: &Writer) -> Option<String> {
    let name = |at: usize| {
        let frame = &writer.frames[at];
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!(" at {}:{line}", file.escape_debug()),
            _ => String::new(),
        };
        format!("{}{place}", frame.function.escape_debug())
    };
    let at = writer.charged()?;
    let why = match writer.frames.first()?.origin {
        Origin::Libc => "a write of the C library, charged to its caller",
        Origin::Std => "a write of the standard library, charged to its caller",
        _ => "charged to",
    };
    let own = writer.own().filter(|own| *own != at);
    let own = own.map(|own| format!("; the program's own code: {}", name(own))).unwrap_or_default();
    Some(format!("{why} {}{own}", name(at)))
}
