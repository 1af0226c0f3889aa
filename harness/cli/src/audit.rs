//! `residue audit`, `residue list`, `residue doctor`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use findings::{CORE, Verdict};
use harness::audit::{Attribution, AuditError, Course, Options};
use harness::canary::Seed;
use harness::progress::Progress;
use harness::{audit, interrupt, machine};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{Audit, List, Which};
use crate::output::{prepare, printable, remove_old, say, summarise, write_all};
use crate::secret::read_small;
use crate::{Failure, chain};

/// `residue audit`.
pub(crate) fn audit(args: &Audit) -> Result<Verdict, Failure> {
    let seed = match &args.seed_file {
        Some(file) => read_seed(file)?,
        None => Seed::random().map_err(|error| Failure::internal("draw a random seed", &error))?,
    };
    prepare(&args.out)?;
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let options = Options {
        filter: args.filter.clone(),
        quick: args.quick,
        jobs: args.jobs.map_or_else(cpus, usize::from),
        timeout: Duration::from_secs(args.timeout),
        min_length: usize::from(args.min_length),
        required: args.require.iter().map(|_| CORE.to_owned()).collect(),
        profile: args.profile.clone(),
        rustc: args.rustc.clone(),
        ablation: args.ablation.clone(),
        attribution: match args.attribute {
            None => Attribution::Nothing,
            Some(Which::Unexpected) => Attribution::Unexpected,
            Some(Which::All) => Attribution::All,
        },
        course: Course { part: args.shard, repeat: args.repeat, fixed_layout: args.fixed_layout, sweep: args.sweep },
        ..Options::new(absolute(&args.subject)?, seed)
    };
    let rows = audit::rows(&options).map_err(failure)?;
    // What an earlier run found must not pass for this one's, should this one be killed.
    remove_old(&args.out)?;
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(0).with_style(style());
    let observer = |event: &Progress| match event {
        Progress::Started { rows } => bar.set_length(*rows as u64),
        Progress::Judged { scenario, verdict, as_expected } => {
            if !as_expected {
                bar.println(format!("not as expected: {scenario}: {verdict}"));
            }
            bar.set_message(scenario.clone());
            bar.inc(1);
        }
        _ => {}
    };
    let run = audit::run(&options, &rows, &interrupted, &observer).map_err(failure)?;
    bar.finish_and_clear();
    write_all(&run, &args.out)?;
    summarise(&run, &args.out)?;
    Ok(run.verdict)
}

pub(crate) fn absolute(subject: &Path) -> Result<PathBuf, Failure> {
    subject.canonicalize().map_err(|error| Failure::Usage(format!("find the subject {}: {error}", subject.display())))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Reads a seed; the error never repeats what the file holds.
pub(crate) fn read_seed(file: &Path) -> Result<Seed, Failure> {
    let text = read_small(file)?;
    let text = std::str::from_utf8(&text).map_err(|_| Failure::Usage(format!("{}: no text", file.display())))?;
    Seed::from_hex(text.trim()).map_err(|error| Failure::Usage(format!("{}: {}", file.display(), chain(&error))))
}

pub(crate) fn failure(error: AuditError) -> Failure {
    match error {
        AuditError::NoSuchRow { .. } | AuditError::Empty { .. } | AuditError::EmptyPart { .. } => {
            Failure::Usage(chain(&error))
        }
        _ => Failure::Internal(chain(&error)),
    }
}

/// `residue list`.
pub(crate) fn list(args: &List) -> Result<Verdict, Failure> {
    let rows = audit::catalogue(&absolute(&args.subject)?).map_err(failure)?;
    if args.json {
        let text = serde_json::to_string_pretty(&rows).map_err(|error| Failure::internal("write JSON", &error))?;
        say(&format!("{text}\n"))?;
    } else {
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &rows {
            say(&printable(&format!("{:width$}  {}", row.name, row.expect)))?;
            say("\n")?;
        }
    }
    Ok(Verdict::Clean)
}

/// `residue doctor`.
pub(crate) fn doctor() -> Result<Verdict, Failure> {
    let machine = machine::probe();
    say(&format!("{} {}\n", machine.kernel, machine.arch))?;
    for fact in &machine.facts {
        let mark = if fact.present { "yes" } else { "no " };
        say(&format!("{mark}  {:14} {}\n", fact.name, fact.detail))?;
        if !fact.present
            && let Some(cure) = machine::cure(&fact.name)
        {
            say(&format!("     {:14} {cure}\n", ""))?;
        }
    }
    let all = machine.facts.iter().all(|fact| fact.present);
    Ok(if all { Verdict::Clean } else { Verdict::Inconclusive })
}
