//! Programs in several languages, each given a secret on standard input: what is found at their end is what a search by
//! brute force finds in the same bytes. A language that is not installed is a test that is ignored, by name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use findings::{Class, Verdict};
use harness::oracle::{self, Twice};
use harness::program::{Feed, Options, Output, Source};
use libtest_mimic::{Arguments, Failed, Trial};

/// Reads a line and drops it; what stays is in the buffer of the C library and in the dead frame.
const C: &str = r#"
#include <stdio.h>
static int read_line(void) { char line[256]; return fgets(line, sizeof line, stdin) != NULL; }
int main(void) { return read_line() ? 0 : 1; }
"#;

/// Reads it without a buffer and wipes it.
const CLEAN_C: &str = r#"
#include <string.h>
#include <unistd.h>
int main(void) {
    char line[256];
    ssize_t got = read(0, line, sizeof line);
    explicit_bzero(line, sizeof line);
    return got > 0 ? 0 : 1;
}
"#;

/// Asks to be traced, which somebody who is traced cannot.
const PTRACE_C: &str = r#"
#include <string.h>
#include <unistd.h>
#include <sys/ptrace.h>
int main(void) {
    char line[256];
    ssize_t got = read(0, line, sizeof line);
    explicit_bzero(line, sizeof line);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    return got > 0 ? 0 : 1;
}
"#;

fn main() {
    let arguments = Arguments::from_args();
    let python = interpreter("python3", &["-c", "import sys; print(sys.executable)"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let compiled = |name: &str, source: &str| compile(dir.path(), name, source);
    let trials = vec![
        language("python", python, &["-c", "import sys; key = sys.stdin.readline(); del key"]),
        language("perl", on_path("perl"), &["-e", "$key = <STDIN>; undef $key;"]),
        language("bash", on_path("bash"), &["-c", "read -r key; unset key"]),
        optimised(language("node", on_path("node"), &["-e", "require('fs').readFileSync(0, 'utf8')"])),
        language("c", compiled("leaky", C), &[]),
        trial("a_c_program_that_wipes_its_line_is_clean", compiled("clean", CLEAN_C), |program| {
            let twice = run(program, &[])?;
            check(twice.outcome.verdict == Verdict::Clean, &twice)?;
            check(twice.outcome.controls.planted > 0 && twice.brute.is_empty(), &twice)
        }),
        trial("a_program_that_uses_ptrace_is_inconclusive", compiled("ptrace", PTRACE_C), |program| {
            let twice = run(program, &[])?;
            check(twice.outcome.verdict == Verdict::Inconclusive, &twice)?;
            check(twice.outcome.reasons.iter().any(|reason| reason.contains("calls ptrace(2) itself")), &twice)
        }),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(dir);
    conclusion.exit();
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The interpreter behind a name that may be a wrapper.
fn interpreter(name: &str, ask: &[&str]) -> Option<PathBuf> {
    let output = Command::new(name).args(ask).output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn compile(dir: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let (code, program) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&code, source).ok()?;
    let status = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(&code).status().ok()?;
    status.success().then_some(program)
}

fn trial(
    name: &str,
    program: Option<PathBuf>,
    test: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match program {
        Some(program) => Trial::test(name, move || test(&program)),
        None => {
            Trial::test(format!("{name} (ignored: its program is not installed)"), || Ok(())).with_ignored_flag(true)
        }
    }
}

/// A test over some hundred megabytes, by brute force: minutes without optimisation, so it is ignored there, by kind.
fn optimised(trial: Trial) -> Trial {
    if cfg!(debug_assertions) { trial.with_kind("wants an optimised build").with_ignored_flag(true) } else { trial }
}

fn language(name: &str, program: Option<PathBuf>, args: &'static [&'static str]) -> Trial {
    trial(&format!("{name}_leaves_what_a_search_by_brute_force_finds"), program, move |program| {
        let twice = run(program, args)?;
        println!("{}: {} places in {} bytes", program.display(), twice.found.len(), twice.bytes);
        check(twice.found == twice.brute, &twice)?;
        check(twice.outcome.controls.planted > 0 && twice.outcome.reasons.is_empty(), &twice)?;
        check(!twice.found.is_empty() && twice.outcome.verdict == Verdict::Leak, &twice)?;
        for finding in &twice.outcome.findings {
            let right = match finding.place.as_str() {
                "[heap]" => finding.rule.class == Class::Heap,
                "[stack]" => matches!(finding.rule.class, Class::Stack | Class::DeadStack),
                _ => !matches!(finding.rule.class, Class::Heap | Class::Argv | Class::Environ),
            };
            check(right, &twice)?;
        }
        Ok(())
    })
}

fn run(program: &Path, args: &[&str]) -> Result<Twice, Failed> {
    let options = Options {
        program: std::iter::once(program.into()).chain(args.iter().map(OsString::from)).collect(),
        secret: Source::Random(32),
        feed: Feed::Stdin,
        text: true,
        moments: vec!["exit".parse()?],
        follow: false,
        repeat: 1,
        timeout: Duration::from_secs(120),
        min_length: 6,
        decoys: 4,
        hidden_variable: None,
        output: Output::Stderr,
    };
    Ok(oracle::program(&options)?)
}

fn check(holds: bool, twice: &Twice) -> Result<(), Failed> {
    let brute = twice.brute.len();
    if holds { Ok(()) } else { Err(format!("{:?}; by brute force {brute}: {:?}", twice.outcome, twice.brute).into()) }
}
