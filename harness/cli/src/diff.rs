//! `residue diff`.

use std::path::Path;
use std::time::Duration;

use findings::{Difference, Verdict};
use harness::canary::Canary;
use harness::program::{Options, Source};
use harness::{difference, interrupt};

use crate::Failure;
use crate::args::Diff;
use crate::output::{prepare, remove, say};
use crate::run::{failure, given};

/// Bytes of a random key.
const LENGTH: u16 = 32;

/// What is written with `--out`.
const JSON: &str = "difference.json";
const TEXT: &str = "difference.txt";

/// `residue diff`.
pub(crate) fn diff(args: &Diff) -> Result<Verdict, Failure> {
    let (secret, other) = keys(args)?;
    if let Some(dir) = &args.out {
        prepare(dir)?;
        for name in [JSON, TEXT] {
            remove(&dir.join(name))?; // it must not pass for this run's, should this one fail
        }
    }
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let options = Options {
        text: args.text || !args.bytes && args.feed.is_text(),
        moments: args.at.clone(),
        follow: args.follow,
        timeout: Duration::from_secs(args.timeout),
        ..Options::new(args.program.clone(), secret, args.feed.clone())
    };
    let difference = difference::run(&options, other.as_ref(), args.runs, &interrupted).map_err(failure)?;
    if let Some(dir) = &args.out {
        write(&difference, dir)?;
    }
    say(&if args.json { reports::difference_json(&difference) } else { reports::difference(&difference) })?;
    Ok(difference.verdict)
}

fn keys(args: &Diff) -> Result<(Source, Option<Canary>), Failure> {
    let file = |text: &String| match given(text, args.bytes)? {
        (Source::Given(canary), None) => Ok(canary),
        _ => Err(Failure::Usage("--secret takes NAME=FILE here".to_owned())),
    };
    match args.secret.as_slice() {
        [] => Ok((Source::Random(usize::from(args.secret_random.unwrap_or(LENGTH))), None)),
        [one, other] => {
            let (one, other) = (file(one)?, file(other)?);
            if one.bytes() == other.bytes() {
                return Err(Failure::Usage("the two secrets are the same".to_owned()));
            }
            Ok((Source::Given(one), Some(other)))
        }
        _ => Err(Failure::Usage("--secret is given twice, or not at all: two keys are compared".to_owned())),
    }
}

fn write(difference: &Difference, dir: &Path) -> Result<(), Failure> {
    let texts = [(JSON, reports::difference_json(difference)), (TEXT, reports::difference(difference))];
    for (name, text) in texts {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| Failure::internal(&format!("write {}", path.display()), &error))?;
    }
    Ok(())
}
