//! `cargo xtask check`: everything that a change has to pass, in the order in which it fails fastest.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
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

/// Test programs that may be run once more. Where more of them fail, it is not for want of time.
const MOST_AGAIN: usize = 3;

/// Packages whose tests are never run once more: a secret that one run of two left behind was left behind.
const JUDGED: [&str; 3] = ["secmem", "scenarios", "scenarios-crypto"];

/// What came of a step.
enum Step {
    Passed,
    /// These test programs failed, and passed when they had the machine for themselves.
    Unsteady(Vec<String>),
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
    report.step("other targets", || targets(&workspace))?;
    report.step("library, without a system", || core(&workspace))?;
    report.step("library, oldest Rust", || oldest(&workspace))?;
    report.step("library, packaged", || {
        passes(cmd!(sh, "cargo package --package secmem --locked --offline --allow-dirty"))
    })?;
    report.step("library's core under Miri", || interpreted(&workspace))?;
    report.step("dependencies", || dependencies(&workspace))?;
    report.step("tests", || tests(cmd!(sh, "{test_program} {test_args...}").into()))?;
    // The rows, and the library that they audit: thin LTO of every other test program would take longer than all else.
    report.step("leak tests, optimised", || {
        passes(cmd!(sh, "cargo test --package scenarios --test audit --profile audit --locked"))
    })?;
    report.step("writers in real crates, optimised", || {
        passes(cmd!(sh, "cargo test --package scenarios-crypto --profile audit --locked"))
    })?;
    report.step("library, optimised", || {
        let tests = OPTIMISED.into_iter().flat_map(|name| ["--test", name]);
        passes(cmd!(sh, "cargo test --package secmem --all-features --lib {tests...} --profile audit --locked"))?;
        let core = ["--no-default-features", "--lib", "--test", "optimiser"];
        passes(cmd!(sh, "cargo test --package secmem {core...} --profile audit --locked"))
    })?;
    report.step("ablations, one of each kind", || match ablate::run(&ablate::Options::of_each_kind())? {
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
            Ok(Step::Unsteady(targets)) => (format!("passed, UNSTEADY: {}", targets.join(", ")), 0),
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
    format!("{name:<34}{:>8.1} s  {word}", took.as_secs_f64())
}

/// The library's tests that look at what is left in memory or registers, or at how a process ends: what the optimiser can change. Thin LTO
/// of all the others, and of the examples, would take as long again.
const OPTIMISED: [&str; 18] = [
    "coffer",
    "compression",
    "constant_time",
    "consumed",
    "endings",
    "input",
    "journal",
    "kernel",
    "lifetimes",
    "manager",
    "optimiser",
    "pqc",
    "records",
    "scrub",
    "secret",
    "tokio",
    "types",
    "vault_rsa",
];

/// Other machines and systems that the library is built for, and with which features: those of them whose standard library, or
/// `core`, is installed here. On systems other than Linux it is its core, whatever the features.
const TARGETS: [(&str, &[&str]); 8] = [
    ("aarch64-unknown-linux-gnu", &["--all-features", "--no-default-features"]),
    ("x86_64-unknown-linux-musl", &["--all-features"]),
    ("aarch64-apple-darwin", &["--all-features", "--no-default-features"]),
    ("x86_64-pc-windows-gnu", &["--all-features", "--no-default-features"]),
    ("x86_64-unknown-freebsd", &["--all-features", "--no-default-features"]),
    ("wasm32-unknown-unknown", &["--all-features", "--no-default-features"]),
    // No system at all: 32 bits; a kernel's code, which has no vector registers.
    ("thumbv7em-none-eabi", &["--no-default-features"]),
    ("x86_64-unknown-none", &["--no-default-features"]),
];

fn targets(workspace: &Workspace) -> Result<Step, Failure> {
    let sh = &workspace.sh;
    let mut missing = Vec::new();
    for (target, features) in TARGETS {
        let library = cmd!(sh, "rustc --print target-libdir --target {target}").quiet().read()?;
        if !std::path::Path::new(&library).is_dir() {
            missing.push(target);
            continue;
        }
        for features in features {
            let library = ["--package", "secmem", "--lib", features, "--locked", "--target", target];
            passes(cmd!(sh, "cargo clippy {library...} -- --deny warnings"))?;
            // Assembly is read when code is made of it, not before.
            passes(cmd!(sh, "cargo build {library...}"))?;
        }
    }
    let hint = || format!("not installed: {0}; `rustup target add {0}` installs", missing.join(" "));
    Ok(if missing.is_empty() { Step::Passed } else { Step::Skipped(hint()) })
}

/// The library without `std`, on this machine: a target that has none.
fn core(workspace: &Workspace) -> Result<Step, Failure> {
    let sh = &workspace.sh;
    let library = ["--package", "secmem", "--no-default-features", "--locked"];
    passes(cmd!(sh, "cargo clippy {library...} --all-targets -- --deny warnings"))?;
    passes(cmd!(sh, "cargo test {library...}"))
}

/// A machine that is unlike this one in what code can come to depend on: 32 bits, and another system.
const INTERPRETED: &str = "i686-pc-windows-gnu";

/// The core's unit tests under Miri, which finds what unsafe code may not do, as on a machine that nobody here has.
fn interpreted(workspace: &Workspace) -> Result<Step, Failure> {
    let sh = &workspace.sh;
    let nightly = match toolchain(workspace, "nightly") {
        Ok(nightly) => nightly,
        Err(missing) => return Ok(Step::Skipped(missing)),
    };
    if cmd!(sh, "rustup run {nightly} cargo miri --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        return Ok(Step::Skipped("no Miri (rustup component add --toolchain nightly miri rust-src)".to_owned()));
    }
    let tests = ["--package", "secmem", "--no-default-features", "--lib", "--locked", "--target", INTERPRETED];
    passes(cmd!(sh, "rustup run {nightly} cargo miri test {tests...}"))
}

/// The library, built by the oldest Rust that it says it needs.
fn oldest(workspace: &Workspace) -> Result<Step, Failure> {
    let sh = &workspace.sh;
    let manifest = sh.read_file("secmem/Cargo.toml")?;
    let version = minimum(&manifest).ok_or_else(|| Failure::internal("secmem/Cargo.toml names no rust-version"))?;
    Ok(match toolchain(workspace, version) {
        Ok(oldest) => passes(cmd!(sh, "rustup run {oldest} cargo check --package secmem --all-features --locked"))?,
        Err(missing) => Step::Skipped(missing),
    })
}

fn minimum(manifest: &str) -> Option<&str> {
    let value = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \""))?;
    value.split_once('"').map(|(version, _)| version)
}

/// The installed toolchain whose name begins so; else what is missing.
fn toolchain(workspace: &Workspace, name: &str) -> Result<String, String> {
    let installed = cmd!(workspace.sh, "rustup toolchain list").quiet().ignore_stderr().read();
    let toolchains = installed.map_err(|_| format!("no rustup to have Rust {name} by"))?;
    let found = toolchains.split_whitespace().find(|word| word.starts_with(name)).map(str::to_owned);
    found.ok_or_else(|| format!("no toolchain {name} (rustup toolchain install --profile minimal {name})"))
}

/// Licences, advisories and sources of all dependencies, as deny.toml has them.
fn dependencies(workspace: &Workspace) -> Result<Step, Failure> {
    let sh = &workspace.sh;
    if cmd!(sh, "cargo deny --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        return Ok(Step::Skipped("no cargo-deny (cargo install cargo-deny)".to_owned()));
    }
    passes(cmd!(sh, "cargo deny --locked check bans licenses sources"))?;
    if cmd!(sh, "cargo deny fetch db").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        return Ok(Step::Skipped("advisories: their database could not be fetched".to_owned()));
    }
    passes(cmd!(sh, "cargo deny --locked check advisories"))
}

/// A step that is one program.
fn passes(command: xshell::Cmd<'_>) -> Result<Step, Failure> {
    println!("{command}");
    child::success(command.into()).map(|()| Step::Passed)
}

/// Runs tests, all of them, and a test program that failed once more by itself, unless it is one of what is [`JUDGED`].
///
/// The harness's tests stop, time and watch processes of their own, several at a time: a machine that does not get to one of them
/// for a minute fails a test of a program that has no fault. What passes then is named in the report all the same; what
/// is broken fails twice.
///
/// # Errors
///
/// A test program failed twice, or is of a package that is [`JUDGED`], more than [`MOST_AGAIN`] failed, or something did not
/// compile.
fn tests(mut command: Command) -> Result<Step, Failure> {
    command.arg("--no-fail-fast");
    println!("{command:?}");
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::because(format!("starting {}", command.get_program().display()), error))?;
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("asked for above")).lines() {
        let line = line.map_err(|error| Failure::because("reading what cargo says", error))?;
        eprintln!("{line}");
        said.push(line);
    }
    let status = child.wait().map_err(|error| Failure::because("waiting for cargo", error))?;
    if status.success() {
        return Ok(Step::Passed);
    }
    let failed = failed_targets(&said);
    if !may_be_run_again(&failed) {
        return Err(Failure::internal(format!("cargo {}", child::ended(status))));
    }
    for target in &failed {
        let mut again = Command::new(command.get_program());
        again.args(["test", "--locked"]).args(target.split_whitespace());
        again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            again.current_dir(dir);
        }
        println!("\nonce more: {again:?}");
        child::success(again)?;
    }
    Ok(Step::Unsteady(failed))
}

fn may_be_run_again(failed: &[String]) -> bool {
    let judged = |target: &String| JUDGED.iter().any(|package| target.split_whitespace().any(|word| word == *package));
    (1..=MOST_AGAIN).contains(&failed.len()) && !failed.iter().any(judged)
}

/// What cargo tells to run again, at its end: lines of four spaces and arguments between backquotes.
fn failed_targets(said: &[String]) -> Vec<String> {
    let argument = |line: &String| Some(line.strip_prefix("    `")?.strip_suffix('`')?.to_owned());
    let end = said.iter().rposition(|line| line.starts_with("error: ") && line.ends_with("failed:"));
    end.map_or_else(Vec::new, |end| said[end..].iter().filter_map(argument).collect())
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
    fn the_oldest_rust_is_the_librarys() {
        let manifest = "[package]\nname = \"secmem\"\nrust-version = \"1.93\" # why\n";

        assert_eq!(minimum(manifest), Some("1.93"));
        assert_eq!(minimum("[package]\nrust-version.workspace = true\n"), None);
    }

    #[test]
    fn what_failed_is_read_from_the_end_of_what_cargo_says() {
        let said = ["error: test failed, to rerun pass `-p a --lib`", "error: 2 targets failed:", "    `-p a --lib`"];
        let said = said.into_iter().chain(["    `-p b --test c`"]).map(str::to_owned).collect::<Vec<_>>();

        assert_eq!(failed_targets(&said), ["-p a --lib", "-p b --test c"]);
        assert_eq!(failed_targets(&["error: could not compile `a`".to_owned()]), Vec::<String>::new());
    }

    #[test]
    fn what_is_judged_and_what_fails_everywhere_gets_no_second_chance() {
        let targets = |targets: &[&str]| targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>();

        assert!(may_be_run_again(&targets(&["-p harness --test programs", "-p scenario-protocol --lib"])));
        assert!(!may_be_run_again(&targets(&["-p harness --test programs", "-p scenarios --test audit"])));
        assert!(!may_be_run_again(&targets(&["-p secmem --lib"])));
        assert!(!may_be_run_again(&targets(&[])));
        assert!(!may_be_run_again(&targets(&["-p a --lib", "-p b --lib", "-p c --lib", "-p d --lib"])));
    }

    /// A package with one test program, whose body is given: it runs in a directory of its own, and prints no line that
    /// reads like a failed test of ours.
    fn outcome_of(body: &str) -> Result<Step, Failure> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tests")).unwrap();
        std::fs::write(
            dir.path().join("Cargo.toml"),
            "[package]\nname = \"once\"\nedition = \"2024\"\n[workspace]\n[[test]]\nname = \"alone\"\nharness = false\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("Cargo.lock"),
            "version = 4\n[[package]]\nname = \"once\"\nversion = \"0.0.0\"\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("tests/alone.rs"), format!("fn main() {{ {body} }}")).unwrap();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--locked"]).current_dir(dir.path()).env("CARGO_TARGET_DIR", dir.path().join("target"));
        tests(command)
    }

    #[test]
    fn a_test_that_fails_twice_has_failed_and_one_that_fails_once_is_named() {
        let once =
            r#"if !std::fs::exists("mark").unwrap() { std::fs::write("mark", "").unwrap(); panic!("on purpose") }"#;

        assert!(matches!(outcome_of("").unwrap(), Step::Passed));
        assert!(matches!(outcome_of(once).unwrap(), Step::Unsteady(targets) if targets == ["--test alone"]));
        assert!(outcome_of("panic!()").is_err());
    }

    #[test]
    fn a_skip_names_its_reason() {
        let mut report = Report::default();

        let code = report.step("fuzz smoke", || Ok(Step::Skipped("no nightly".to_owned()))).unwrap();

        assert_eq!(code, 0);
        assert!(report.0[0].ends_with("SKIPPED: no nightly"), "{}", report.0[0]);
    }
}
