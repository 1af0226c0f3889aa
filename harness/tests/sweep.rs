//! Signals while a secret is in use, in C programs: what one signal at the end does not show, a sweep does.
//!
//! Without a C compiler every test is listed as ignored, with the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Outcome, Verdict};
use harness::program::{self, Feed, Options, Output, Source};
use harness::progress::Nobody;
use libtest_mimic::{Arguments, Failed, Trial};

/// Wipes its key when it is told to end. For a while there is a copy, which it wipes too, but not when it is told to end
/// (with `-DBOTH` it does). It moves single bytes, so that no register ever holds a piece of the key.
const PROGRAM: &str = r#"
#include <signal.h>
#include <string.h>
#include <unistd.h>
static volatile char key[64], copy[64];
static void wipe(volatile char *at) { for (int i = 0; i < 64; i++) at[i] = 0; }
static void handler(int signal) {
  (void)signal;
  wipe(key);
#ifdef BOTH
  wipe(copy);
#endif
  _exit(0);
}
static void work(int turns) { for (volatile int i = 0; i < turns; i++); }
int main(int argc, char **argv) {
  struct sigaction act = {.sa_handler = handler};
  sigaction(SIGTERM, &act, 0);
  if (read(0, (char *)key, sizeof key) < 32) return 1;
  work(300);
  for (int i = 0; i < 32; i++) copy[i] = key[i];
  work(300);
  wipe(copy);
  work(300);
  if (argc > 1 && !strcmp(argv[1], "raise")) raise(SIGTERM);
  wipe(key);
  return 0;
}
"#;

fn build(dir: &Path, flags: &[&str]) -> PathBuf {
    let (source, program) = (dir.join("victim.c"), dir.join("victim"));
    std::fs::write(&source, PROGRAM).unwrap();
    let status = Command::new("cc").args(["-O1", "-o"]).arg(&program).args(flags).arg(&source).status();
    assert!(status.unwrap().success());
    program
}

/// The outcomes of a run: the plain one, and that of the sweep if there is one.
fn outcomes(flags: &[&str], args: &[&str], sweep: Option<&str>) -> Result<Vec<Outcome>, Failed> {
    let dir = tempfile::tempdir()?;
    let program = build(dir.path(), flags);
    let options = Options {
        program: std::iter::once(program.into_os_string()).chain(args.iter().map(Into::into)).collect(),
        secret: Source::Random(32),
        feed: Feed::Stdin,
        text: true,
        moments: vec!["exit".parse()?],
        follow: false,
        repeat: 1,
        timeout: Duration::from_secs(60),
        min_length: 6,
        decoys: 2,
        unknown_keys: false,
        hidden_variable: None,
        attribute: false,
        output: Output::Discard,
        variables: Vec::new(),
        keep_freed: None,
        digest: true,
    };
    let sweep = sweep.map(str::parse).transpose()?;
    Ok(program::swept(&options, sweep.as_ref(), &AtomicBool::new(false), &Nobody)?.outcomes)
}

fn check(holds: bool, outcomes: &[Outcome]) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{outcomes:#?}").into()) }
}

fn main() {
    let compiler = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = if compiler.is_ok_and(|status| status.success()) { "" } else { "no C compiler" };
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_kind(missing).with_ignored_flag(!missing.is_empty())
    };
    let tests = vec![
        trial("a_signal_at_the_end_of_the_window_finds_a_program_clean_that_is_not", || {
            let one = outcomes(&[], &["raise"], None)?;
            check(one[0].verdict == Verdict::Clean && one[0].ended == "exit 0", &one)
        }),
        trial("a_sweep_finds_the_moments_at_which_the_signal_leaves_a_copy_and_names_them", || {
            let both = outcomes(&[], &[], Some("SIGTERM:8"))?;
            let swept = &both[1];
            check(both[0].verdict == Verdict::Clean && swept.verdict == Verdict::Leak, &both)?;
            check(swept.scenario == "victim + SIGTERM", &both)?;
            check(swept.ending.starts_with("SIGTERM at 8 points of "), &both)?;
            let whole = swept.findings.iter().find(|finding| finding.whole);
            let named = whole.is_some_and(|finding| {
                finding.checkpoint.starts_with("exit (SIGTERM after ")
                    && finding.checkpoint.contains(" instructions, and at ")
            });
            check(named && swept.controls.planted > 0, &both)?;
            // At some points, not at all of them.
            let looks = swept.observations.iter().filter(|look| look.checkpoint.starts_with("exit "));
            let with: Vec<bool> = looks.map(|look| look.whole > 0).collect();
            check(with.len() == 8 && with.contains(&true) && with.contains(&false), &both)
        }),
        trial("a_program_that_wipes_at_every_moment_is_clean_at_every_point", || {
            let both = outcomes(&["-DBOTH"], &[], Some("SIGTERM:8"))?;
            check(both[1].verdict == Verdict::Clean && both[1].ended == "exit 0", &both)
        }),
        trial("a_signal_that_nobody_catches_leaves_the_key_wherever_it_comes", || {
            let both = outcomes(&["-DBOTH"], &[], Some("SIGSEGV:4"))?;
            check(both[1].verdict == Verdict::Leak && both[1].ended == "signal 11", &both)
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
