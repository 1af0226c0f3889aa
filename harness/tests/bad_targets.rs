//! Targets that misbehave: each must end inconclusive, in time, with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use findings::{Outcome, Run, Verdict};
use harness::audit::{self, AuditError, Options};
use harness::canary::Seed;
use harness::progress::Nobody;

/// One row that waits for `planted` and then ends with 0.
const ROW: &str = r#"[{"name":"script/return","holder":"script","ending":"return","canary":"text","canary_len":32,
"expect":"clean","ends":{"exit":0},"checkpoints":["planted","exit-call","exit"],"sole_home":false,"needs":[],
"turned_by":[],"shows":[]}]"#;

/// Announces `planted` and waits for the answer, as a shell can: frames are two bytes on descriptor 3.
const PLANTED: &str = r"printf '\305\000' >&3; dd bs=16 count=1 <&3 >/dev/null 2>&1";

fn subject(dir: &Path, run: &str) -> PathBuf {
    let [text, path] = ["text", "subject"].map(|name| dir.join(name));
    let script = format!("#!/bin/sh\nif [ \"$1\" = list ]; then cat <<'EOF'\n{ROW}\nEOF\nexit 0; fi\n{run}\n");
    std::fs::write(&text, script).unwrap();
    // By a program of its own: a child that another test forks meanwhile would inherit our descriptor open for writing,
    // and nobody can execute a file that somebody may write (ETXTBSY, execve(2)).
    assert!(Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap().success());
    path
}

/// Longer than any target takes that ends by itself, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(subject: PathBuf) -> Options {
    Options { timeout: PATIENCE, ..Options::new(subject, Seed::random().unwrap()) }
}

fn audit(run: &str) -> Run {
    audit_within(PATIENCE, run)
}

fn audit_within(timeout: Duration, run: &str) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { timeout, ..options(subject(dir.path(), run)) };
    audit::run(&options, &audit::rows(&options).unwrap(), &AtomicBool::new(false), &Nobody).unwrap()
}

fn only(run: &Run) -> &Outcome {
    assert_eq!(run.outcomes.len(), 1);
    &run.outcomes[0]
}

fn assert_inconclusive(run: &Run, why: &str) {
    let outcome = only(run);
    assert_eq!(outcome.verdict, Verdict::Inconclusive, "{outcome:?}");
    assert_eq!(run.verdict, Verdict::Inconclusive);
    assert!(outcome.reasons.iter().any(|reason| reason.contains(why)), "{:?}", outcome.reasons);
}

#[test]
fn a_script_that_holds_its_secret_is_found_by_the_same_means() {
    // The canary stands in a shell variable: the positive control of the tests below.
    let run = audit(&format!("read secret <&4; {PLANTED}; exit 0"));

    let outcome = only(&run);
    assert!(outcome.controls.planted > 0, "{outcome:?}");
    assert_eq!(outcome.verdict, Verdict::Leak, "{outcome:?}");
    assert_eq!(run.verdict, Verdict::Leak);
}

#[test]
fn a_target_that_announces_planted_and_holds_nothing_is_a_silent_control() {
    assert_inconclusive(&audit(&format!("{PLANTED}; exit 0")), "silent control");
}

#[test]
fn a_target_that_dies_early_is_inconclusive() {
    let run = audit("exit 3");

    assert_inconclusive(&run, "planted missed");
    assert_inconclusive(&run, "ended with exit 3");
}

#[test]
fn a_target_that_announces_another_checkpoint_is_inconclusive() {
    assert_inconclusive(&audit(&format!("printf '\\305\\001' >&3; {PLANTED}; exit 0")), "announced wiped");
}

#[test]
fn a_target_that_babbles_is_inconclusive() {
    assert_inconclusive(&audit(&format!("printf 'hello' >&3; {PLANTED}; exit 0")), "no announcement");
}

#[test]
fn a_target_that_never_stops_is_killed_in_time() {
    let run = audit_within(Duration::from_secs(2), &format!("read secret <&4; {PLANTED}; while :; do :; done"));

    let outcome = only(&run);
    assert!(outcome.reasons.iter().any(|reason| reason.contains("did not end within 2 s")), "{outcome:?}");
    assert!(!outcome.as_expected);
}

#[test]
fn a_target_that_stops_itself_is_killed_in_time() {
    let run = audit_within(Duration::from_secs(2), "kill -STOP $$; exit 0");

    assert_inconclusive(&run, "did not end within 2 s");
}

#[test]
fn an_interrupted_run_says_so_and_leaves_nobody_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pid");
    let script = format!("echo $$ > {}; while :; do :; done", mark.display());
    let options = options(subject(dir.path(), &script));
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let waiter = std::thread::spawn(move || {
        // The number is whole once the line is.
        let pid = loop {
            match std::fs::read_to_string(&mark) {
                Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        flag.store(true, Ordering::Relaxed);
        pid
    });

    let run = audit::run(&options, &audit::rows(&options).unwrap(), &interrupted, &Nobody).unwrap();

    let pid = waiter.join().unwrap();
    assert!(run.interrupted);
    assert_eq!(run.verdict, Verdict::Inconclusive);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_program_that_prints_no_catalogue_is_an_error() {
    let silent = audit::rows(&options(PathBuf::from("/bin/true")));
    let failing = audit::rows(&options(PathBuf::from("/bin/false")));
    let missing = audit::rows(&options(PathBuf::from("/nowhere/subject")));

    assert!(matches!(silent, Err(AuditError::Catalogue { .. })), "{silent:?}");
    assert!(matches!(failing, Err(AuditError::List { .. })), "{failing:?}");
    assert!(matches!(missing, Err(AuditError::Subject { .. })), "{missing:?}");
}
