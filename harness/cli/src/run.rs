//! `residue run`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use findings::Verdict;
use harness::canary::Canary;
use harness::interrupt;
use harness::program::{self, Feed, Moment, Options, Output, ProgramError, Source};
use harness::progress::Progress;
use reports::Format;
use zeroize::Zeroizing;

use crate::args::Run;
use crate::baseline::List;
use crate::output::{colour, complain, failure_at, note, prepare, remove_old, say, write_all};
use crate::secret::read_small;
use crate::{Failure, chain, project};

/// File name of the library that keeps freed memory.
const KEEPER: &str = "libresidue_keep_freed.so";

/// Bytes of a random secret.
const LENGTH: u16 = 32;

/// `residue run`.
pub(crate) fn run(mut args: Run) -> Result<Verdict, Failure> {
    match project::complete(&mut args)? {
        Some(used) => complain(&format!("{} says {}", project::FILE, used.join(", "))),
        None if args.program.is_empty() => {
            let why = "what is to be run? Name a program behind --, or put residue.toml here: residue run --help";
            return Err(Failure::Usage(why.to_owned()));
        }
        None if Path::new(project::FILE).exists() => {
            complain(&format!("{} is not used: a program is named", project::FILE));
        }
        None => {}
    }
    if let Some(dir) = &args.out {
        prepare(dir)?;
        remove_old(dir)?; // it must not pass for this run's, should this one fail
    }
    let list = args.baseline.as_deref().map(List::read).transpose()?;
    let feed = args.feed.clone().unwrap_or(Feed::Stdin);
    let text = args.text || !args.bytes && feed.is_text();
    let (secret, hidden_variable) = match &args.secret {
        Some(secret) => given(secret, args.bytes)?,
        None => (Source::Random(usize::from(args.secret_random.unwrap_or(LENGTH))), None),
    };
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let plain = Options::new(args.program.clone(), secret, feed);
    let options = Options {
        text,
        moments: if args.at.is_empty() { vec![Moment::Exit] } else { args.at.clone() },
        follow: args.follow,
        repeat: args.repeat.unwrap_or(1),
        timeout: args.timeout.map_or(plain.timeout, Duration::from_secs),
        min_length: args.min_length.map_or(plain.min_length, usize::from),
        unknown_keys: args.unknown_keys,
        hidden_variable,
        attribute: args.attribute,
        keep_freed: args.keep_freed.as_ref().map(|library| keeper(library.as_deref())).transpose()?,
        output: if args.json { Output::Stderr } else { Output::Stdout },
        ..plain
    };
    let observer = |event: &Progress| {
        if let Progress::Noted { text } = event {
            complain(text);
        }
    };
    let run = program::swept(&options, args.sweep.as_ref(), &interrupted, &observer).map_err(failure)?;
    if let Some(dir) = &args.out {
        write_all(&run, dir)?;
    }
    if args.json {
        say(&reports::render(&run, Format::Json))?;
    } else {
        say(&reports::brief(&run, colour()))?;
        if let Some(dir) = &args.out {
            say(&format!("Report: {}\n", dir.join(Format::Html.file_name()).display()))?;
        }
    }
    let Some(list) = list else { return Ok(run.verdict) };
    let (verdict, text) = list.hold(&run)?;
    if args.json {
        note(&text);
    } else {
        say(&text)?;
    }
    Ok(verdict)
}

/// The library that keeps freed memory: the one that was named, or the one that cargo built beside us.
fn keeper(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let own = std::env::current_exe().map_err(|error| Failure::internal("find this program", &error))?;
    let beside = own.with_file_name(KEEPER);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::Usage(format!(
        "--keep-freed: there is no {}; build it with `cargo build --release --package residue-keep-freed` and give its path: \
         --keep-freed=target/release/{KEEPER}",
        beside.display()
    )))
}

/// A secret of the user's, and the variable that it came from.
pub(crate) fn given(text: &str, bytes: bool) -> Result<(Source, Option<String>), Failure> {
    let Some((name, from)) = text.split_once('=').filter(|(name, from)| !name.is_empty() && !from.is_empty()) else {
        return Err(Failure::Usage("--secret takes NAME=FILE or NAME=env:VAR".to_owned()));
    };
    if from.starts_with("hex:") {
        let why = "a secret on the command line can be read by every user of this machine: put it into a file";
        return Err(Failure::Usage(format!("--secret {name}: {why}")));
    }
    let (mut secret, variable) = match from.strip_prefix("env:") {
        Some(variable) => {
            let value = std::env::var_os(variable)
                .ok_or_else(|| Failure::Usage(format!("--secret {name}: there is no variable {variable}")))?;
            (Zeroizing::new(value.into_encoded_bytes()), Some(variable.to_owned()))
        }
        None => (read_small(Path::new(from))?, None),
    };
    if !bytes && secret.last() == Some(&b'\n') {
        secret.pop();
    }
    let canary =
        Canary::given(secret).map_err(|error| Failure::Usage(format!("--secret {name}: {}", chain(&error))))?;
    Ok((Source::Given(canary), variable))
}

/// What keeps a program from being run: the user's to mend, or ours.
pub(crate) fn failure(error: ProgramError) -> Failure {
    if let ProgramError::FeedFile { source, .. } = &error {
        return failure_at(&error.to_string(), source);
    }
    let usage = match &error {
        ProgramError::NoProgram
        | ProgramError::NotFound { .. }
        | ProgramError::Nul
        | ProgramError::Refused { .. }
        | ProgramError::NoSuchArgument { .. }
        | ProgramError::Input { .. }
        | ProgramError::KeepFreed { .. }
        | ProgramError::Weak { .. }
        | ProgramError::Index { .. } => true,
        // No program, no right to run it, or no format that the kernel knows.
        ProgramError::Start { source, .. } => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory)
                || source.raw_os_error() == Some(8)
        }
        _ => false,
    };
    if usage { Failure::Usage(chain(&error)) } else { Failure::Internal(chain(&error)) }
}
