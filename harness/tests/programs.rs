//! Programs in several languages, each given a secret on standard input: what is found at their end is what a search by
//! brute force finds in the same bytes. A language that is not installed is a test that is ignored, by name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Class, Finding, Verdict, Writer};
use harness::canary::Canary;
use harness::oracle::{self, Twice};
use harness::program::{self, Feed, Options, Output, Source};
use harness::progress::Nobody;
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

/// Reads a line into a piece of the heap and frees it as it is.
const FREES_C: &str = r#"
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline)) static void take(void) {
    char *line = malloc(64);
    if (line == NULL || read(0, line, 64) < 32) _exit(1); /* read it */
    free(line); /* free it */
    __asm__ volatile("" ::: "memory");
}
int main(void) { take(); return 0; }
"#;

/// Leaves its line where the clock says.
const CLOCK_C: &str = r#"
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static char field[1 << 20] __attribute__((aligned(4096)));
__attribute__((noinline)) static void put(char *at, const char *line) { for (int i = 0; i < 32; i++) at[i] = line[i]; }
int main(void) {
    char line[64];
    struct timespec now;
    struct timeval day;
    if (read(0, line, sizeof line) < 32 || clock_gettime(CLOCK_MONOTONIC, &now) || gettimeofday(&day, 0)) return 1;
    unsigned long drawn = now.tv_nsec * 31UL + now.tv_sec * 17UL + day.tv_usec * 13UL + time(0);
    put(field + drawn % (sizeof field - 64), line);
    explicit_bzero(line, sizeof line);
    return 0;
}
"#;

/// Leaves its line where its own number says.
const NUMBER_C: &str = r#"
#include <string.h>
#include <unistd.h>
static char field[1 << 20] __attribute__((aligned(4096)));
__attribute__((noinline)) static void put(char *at, const char *line) { for (int i = 0; i < 32; i++) at[i] = line[i]; }
int main(void) {
    char line[64];
    if (read(0, line, sizeof line) < 32) return 1;
    put(field + getpid() * 9973UL % (sizeof field - 64), line);
    explicit_bzero(line, sizeof line);
    return 0;
}
"#;

/// Holds what every key of a kind begins with, and one whole key. Wipes what it reads, unless it has an argument.
const KNOWN_C: &str = r#"
#include <string.h>
#include <unistd.h>
const char prefix[] = "AGE-SECRET-KEY-1", whole[] = "AGE-SECRET-KEY-1QTEXVLKJ3W5M8ZRD4N7HYCP9";
static volatile char wanted[16];
int main(int count, char **words) {
    static char line[256];
    for (int at = 0; at < 16; at++) wanted[at] = prefix[at];
    ssize_t got = read(0, line, sizeof line);
    int same = line[0] == whole[0];
    if (count == 1) explicit_bzero(line, sizeof line);
    return got > 0 && same && words ? 0 : 1;
}
"#;

/// A key that [`KNOWN_C`] holds as a whole, and one of which it holds the beginning.
const HARD_CODED: &[u8] = b"AGE-SECRET-KEY-1QTEXVLKJ3W5M8ZRD4N7HYCP9";
const FRESH: &[u8] = b"AGE-SECRET-KEY-1WZ6DM4UQ2YHN8XRTJ5GLC7EKVP3";

fn main() {
    let arguments = Arguments::from_args();
    let python = interpreter("python3", &["-c", "import sys; print(sys.executable)"]);
    let python_again = python.clone();
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
        trial("who_read_a_secret_and_who_freed_it_unwiped_are_named", compiled("frees", FREES_C), |program| {
            let found = attributed(program, &[])?;
            let heap = found.iter().filter(|finding| finding.rule.class == Class::Heap);
            let (mut read, mut freed) = (false, false);
            for finding in heap {
                let writer = finding.writer.as_ref().ok_or_else(|| format!("{finding:?}"))?;
                read |= writer.how == "system call read(0, …)" && is_at(writer, "take", "/* read it */");
                freed |= finding.freed.as_ref().is_some_and(|freed| is_at(freed, "take", "/* free it */"));
            }
            if read && freed { Ok(()) } else { Err(format!("{found:?}").into()) }
        }),
        trial("a_residue_whose_place_the_clock_decides_has_a_writer", compiled("by-clock", CLOCK_C), put_is_named),
        // Without the right to choose a process number it is another in every run.
        trial(
            "a_residue_whose_place_the_process_number_decides_has_a_writer",
            compiled("by-number", NUMBER_C).filter(|_| is_root()),
            put_is_named,
        ),
        trial("the_writers_in_an_interpreter_are_named_or_the_reason_is", python_again, |program| {
            let found = attributed(program, &["-c", "import sys; key = sys.stdin.readline(); del key"])?;
            let decided = |finding: &Finding| finding.writer.is_some() != finding.unattributed.is_some();
            let read = |finding: &Finding| {
                finding.writer.as_ref().is_some_and(|writer| writer.how.starts_with("system call read(0"))
            };
            let holds = found.iter().all(decided) && found.iter().any(read);
            if holds { Ok(()) } else { Err(format!("{found:?}").into()) }
        }),
    ];
    let trials = trials.into_iter().chain([trial(
        "what_anybody_can_read_in_a_program_is_no_residue_and_a_key_that_is_hard_coded_is_one",
        compiled("known", KNOWN_C),
        |program| {
            // A file as young as the run that it is run in is not believed to hold anything from before.
            std::thread::sleep(Duration::from_millis(50));
            let run = |secret: &[u8], args: &[&str]| -> Result<Twice, Failed> {
                let secret = Source::Given(Canary::given(secret.to_vec().into())?);
                Ok(oracle::program(&Options { secret, ..options(program, args)? })?)
            };
            let (wiped, kept, hard_coded) = (run(FRESH, &[])?, run(FRESH, &["keep"])?, run(HARD_CODED, &[])?);
            let public = |twice: &Twice| twice.outcome.observations.iter().map(|look| look.public).sum::<u32>();
            let whole = |finding: &Finding| finding.whole && finding.rule.class == Class::File;
            check(wiped.outcome.verdict == Verdict::Clean && public(&wiped) > 0 && !wiped.brute.is_empty(), &wiped)?;
            check(kept.outcome.verdict == Verdict::Leak && kept.outcome.findings.iter().all(whole), &kept)?;
            check(hard_coded.outcome.findings.iter().any(whole), &hard_coded)
        },
    )]);
    let trials = trials.collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(dir);
    conclusion.exit();
}

/// What lies at a place that the program drew was written by its function `put`.
fn put_is_named(program: &Path) -> Result<(), Failed> {
    let found = attributed(program, &[])?;
    let whole = found.iter().filter(|finding| finding.whole && finding.rule.class.is_in_memory());
    let mut writers = whole.filter_map(|finding| finding.writer.as_ref());
    let named = writers.any(|writer| writer.frames.iter().any(|frame| frame.function == "put"));
    if named { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
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
    let output = Command::new("cc").args(["-g", "-O2", "-o"]).arg(&program).arg(&code).output().ok()?; // not installed
    // Only that is a reason to skip: a source that does not compile is a test that fails.
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Some(program)
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
    Ok(oracle::program(&options(program, args)?)?)
}

/// What a run that names its writers finds.
fn attributed(program: &Path, args: &[&str]) -> Result<Vec<Finding>, Failed> {
    let options = Options { attribute: true, ..options(program, args)? };
    let run = program::run(&options, &AtomicBool::new(false), &Nobody)?;
    Ok(run.outcomes.into_iter().flat_map(|outcome| outcome.findings).collect())
}

/// Whether a writer has a frame of that function, at the line of [`FREES_C`] that has that text.
fn is_at(writer: &Writer, function: &str, text: &str) -> bool {
    let line = FREES_C.lines().position(|line| line.contains(text)).and_then(|at| u32::try_from(at + 1).ok());
    writer.frames.iter().any(|frame| frame.function == function && frame.line == line)
}

fn options(program: &Path, args: &[&str]) -> Result<Options, Failed> {
    let program = std::iter::once(program.into()).chain(args.iter().map(OsString::from)).collect();
    let plain = Options::new(program, Source::Random(32), Feed::Stdin);
    Ok(Options { timeout: Duration::from_secs(120), decoys: 4, output: Output::Stderr, ..plain })
}

fn check(holds: bool, twice: &Twice) -> Result<(), Failed> {
    let brute = twice.brute.len();
    if holds { Ok(()) } else { Err(format!("{:?}; by brute force {brute}: {:?}", twice.outcome, twice.brute).into()) }
}
