//! Where things are written: reports into files, summaries to the terminal, complaints to standard error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use findings::{Run, Verdict};
use reports::Format;

use crate::Failure;
use crate::args::{Merge, Report};

/// Whether standard output takes colour: a terminal, and the user has not said no (no-color.org).
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints text for the user. A closed pipe (`| head`) is no error.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::internal("write to standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Text with what a terminal would obey shown as escapes: names come from subjects and file systems.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => "\n".to_owned(),
        letter if letter.is_control() => letter.escape_unicode().to_string(),
        letter => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Removes what an earlier run wrote into the directory, and nothing else.
pub(crate) fn remove_old(dir: &Path) -> Result<(), Failure> {
    Format::ALL.map(Format::file_name).into_iter().chain([REPEATABLE]).try_for_each(|name| remove(&dir.join(name)))
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failure_at(&format!("remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Prints what went wrong; there is nowhere to report that this failed.
pub(crate) fn complain(why: &str) {
    let _ = writeln!(io::stderr().lock(), "residue: {why}");
}

/// Prints text for the user beside data on standard output; there is nowhere to report that this failed.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// What a failure to make or write what the user named is: the user's where the name is to blame, else ours.
pub(crate) fn failure_at(what: &str, error: &io::Error) -> Failure {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
    };
    match error.kind() {
        AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | NotFound | PermissionDenied
        | ReadOnlyFilesystem => Failure::Usage(format!("{what}: {error}")),
        _ => Failure::internal(what, error),
    }
}

/// Makes sure that a directory can be written to before hours of work end in it.
pub(crate) fn prepare(dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| failure_at(&format!("write into {}", dir.display()), &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let probe = dir.join(".residue-probe");
    std::fs::write(&probe, b"").map_err(failed)?;
    std::fs::remove_file(&probe).map_err(failed)
}

/// The part of a run that the same input gives again.
const REPEATABLE: &str = "repeatable.json";

/// Writes run.json, its repeatable part, and every report of it.
pub(crate) fn write_all(run: &Run, dir: &Path) -> Result<(), Failure> {
    for format in Format::ALL {
        let path = dir.join(format.file_name());
        std::fs::write(&path, reports::render(run, format))
            .map_err(|error| Failure::internal(&format!("write {}", path.display()), &error))?;
    }
    let path = dir.join(REPEATABLE);
    std::fs::write(&path, reports::repeatable(run))
        .map_err(|error| Failure::internal(&format!("write {}", path.display()), &error))
}

/// Prints the summary of a run and where its reports lie.
pub(crate) fn summarise(run: &Run, dir: &Path) -> Result<(), Failure> {
    say(&reports::terminal(run, colour()))?;
    let [html, json] = [Format::Html, Format::Json].map(|format| dir.join(format.file_name()));
    say(&format!("\nReport: {}\nData:   {}\n", html.display(), json.display()))
}

/// `residue report`.
pub(crate) fn report(args: &Report) -> Result<Verdict, Failure> {
    let run = read_run(&args.run)?;
    prepare(&args.out)?;
    write_all(&run, &args.out)?;
    summarise(&run, &args.out)?;
    Ok(run.verdict)
}

/// Reads a run.json.
pub(crate) fn read_run(path: &Path) -> Result<Run, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("read {}: {error}", path.display())))?;
    reports::parse(&text).map_err(|error| Failure::internal(&format!("read {}", path.display()), &error))
}

/// `residue merge`.
pub(crate) fn merge(args: &Merge) -> Result<Verdict, Failure> {
    let shards = args.shards.iter().map(|path| read_run(path)).collect::<Result<_, _>>()?;
    let run = findings::merge(shards).map_err(|error| Failure::Usage(error.to_string()))?;
    prepare(&args.out)?;
    write_all(&run, &args.out)?;
    summarise(&run, &args.out)?;
    Ok(run.verdict)
}
