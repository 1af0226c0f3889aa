//! `cargo xtask check`: everything that a change has to pass, in the order in which it fails fastest.

use std::time::{Duration, Instant};

use xshell::cmd;

use crate::ablate;
use crate::child;
use crate::failure::Failure;
use crate::fuzz;
use crate::traces;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask check";

/// How long each fuzz target runs, in seconds.
const SMOKE: u32 = 10;

/// Nothing to choose: a check that can be made smaller will be.
#[derive(clap::Args)]
pub(crate) struct Options {}

/// What came of a step.
enum Step {
    Passed,
    Skipped(String),
    Verdict(u8),
}

/// Runs the steps until one fails.
///
/// Returns the quick audit's exit code.
///
/// # Errors
///
/// Any other step failed: neither a lint nor a test may read as a verdict on the scenarios.
pub(crate) fn run(_: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    let sh = &workspace.sh;
    let readme = sh.read_file("README.md")?;
    let test = test_command(&readme)?;
    let (test_program, test_args) = (test[0], &test[1..]);

    let mut report = Report::default();
    report.step("format", || passes(cmd!(sh, "cargo fmt --all --check")))?;
    report.step("lints", || passes(cmd!(sh, "cargo clippy --workspace --all-targets --locked -- --deny warnings")))?;
    report.step("tests", || passes(cmd!(sh, "{test_program} {test_args...}")))?;
    // The rows, and the library that they audit: thin LTO of every other test program would take longer than all else.
    report.step("leak tests, optimised", || {
        passes(cmd!(sh, "cargo test --package scenarios --test audit --profile audit --locked"))
    })?;
    report.step("writers in real crates, optimised", || {
        passes(cmd!(sh, "cargo test --package scenarios-crypto --profile audit --locked"))
    })?;
    report.step("library, optimised", || {
        passes(cmd!(sh, "cargo test --package secmem --all-features --profile audit --locked"))
    })?;
    report.step("ablations", || match ablate::run(&ablate::Options::all())? {
        0 => Ok(Step::Passed),
        code => Err(Failure::internal(format!("an ablation was not noticed (code {code})"))),
    })?;
    report.step("fuzz smoke", || match fuzz::nightly(&workspace) {
        Ok(cargo) => fuzz::campaign(&workspace, &cargo, &[], SMOKE).map(|()| Step::Passed),
        Err(missing) => Ok(Step::Skipped(missing)),
    })?;
    let evidence = workspace.target.join("check-evidence");
    let verdict = report.step("quick audit, own traces", || traces::run(&workspace, &evidence).map(Step::Verdict))?;
    Ok(verdict)
}

/// The steps so far, printed again after each so that the last lines always tell the whole story.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    /// Runs a step, times it and tells what came of it; returns the exit code that it stands for.
    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Step, Failure>) -> Result<u8, Failure> {
        println!("\n== {name}");
        let start = Instant::now();
        let result = run();
        let (word, code) = match &result {
            Ok(Step::Passed) => ("passed".to_owned(), 0),
            Ok(Step::Verdict(0)) => ("passed".to_owned(), 0),
            Ok(Step::Verdict(code)) => (format!("FAILED with code {code}"), *code),
            Ok(Step::Skipped(why)) => (format!("SKIPPED: {why}"), 0),
            Err(_) => ("FAILED".to_owned(), 0),
        };
        self.0.push(line(name, &word, start.elapsed()));
        println!("\n{}", self.0.join("\n"));
        result.map(|_| code)
    }
}

/// One line of the report.
fn line(name: &str, word: &str, took: Duration) -> String {
    format!("{name:<24}{:>8.1} s  {word}", took.as_secs_f64())
}

/// A step that is one program.
fn passes(command: xshell::Cmd<'_>) -> Result<Step, Failure> {
    println!("{command}");
    child::success(command.into()).map(|()| Step::Passed)
}

/// The words of the test command that the README shows, so that the page and the check cannot drift apart.
///
/// # Errors
///
/// The README shows no such command, or more than one.
fn test_command(readme: &str) -> Result<Vec<&str>, Failure> {
    let commands: Vec<&str> = readme.lines().filter(|line| line.starts_with("cargo test")).collect();
    match commands.as_slice() {
        // What follows a `#` is for the reader.
        [command] => Ok(command.split_whitespace().take_while(|word| !word.starts_with('#')).collect()),
        _ => Err(Failure::internal(format!("README.md shows {} test commands, not one", commands.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_command_is_the_readmes() {
        let readme = "text\n\n```sh\ncargo xtask audit\ncargo test --workspace --locked # all tests\n```\n";

        assert_eq!(test_command(readme).unwrap(), ["cargo", "test", "--workspace", "--locked"]);
    }

    #[test]
    fn a_readme_without_a_test_command_or_with_two_is_an_error() {
        assert!(test_command("cargo xtask audit").is_err());
        assert!(test_command("cargo test\ncargo test --workspace").is_err());
    }

    #[test]
    fn a_skip_names_its_reason() {
        let mut report = Report::default();

        let code = report.step("fuzz smoke", || Ok(Step::Skipped("no nightly".to_owned()))).unwrap();

        assert_eq!(code, 0);
        assert!(report.0[0].ends_with("SKIPPED: no nightly"), "{}", report.0[0]);
    }
}
