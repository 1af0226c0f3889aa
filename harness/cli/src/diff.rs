//! `residue diff`.

use std::path::Path;
use std::time::Duration;

use findings::{Difference, Verdict};
use harness::canary::Canary;
use harness::program::{Options, Output, Source};
use harness::{difference, interrupt};

use crate::Failure;
use crate::args::Diff;
use crate::output::{prepare, say};
use crate::run::{failure, given};

/// Decoys that are looked for in every run and were never planted.
const DECOYS: u32 = 8;

/// Bytes of a random key.
const LENGTH: u16 = 32;

/// Shortest residue that the search beside the comparison finds, in bytes of the secret.
const MIN_LENGTH: usize = 6;

/// `residue diff`.
pub(crate) fn diff(args: &Diff) -> Result<Verdict, Failure> {
    let (secret, other) = keys(args)?;
    if let Some(dir) = &args.out {
        prepare(dir)?;
    }
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let options = Options {
        program: args.program.clone(),
        secret,
        feed: args.feed.clone(),
        text: args.text || !args.bytes && args.feed.is_text(),
        moments: args.at.clone(),
        follow: args.follow,
        repeat: 1,
        timeout: Duration::from_secs(args.timeout),
        min_length: MIN_LENGTH,
        decoys: DECOYS,
        unknown_keys: false,
        hidden_variable: None,
        attribute: false,
        keep_freed: None,
        output: Output::Discard,
        variables: Vec::new(),
        digest: true,
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
    let texts = [
        ("difference.json", reports::difference_json(difference)),
        ("difference.txt", reports::difference(difference)),
    ];
    for (name, text) in texts {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| Failure::internal(&format!("write {}", path.display()), &error))?;
    }
    Ok(())
}
