//! The audit as a user without any privilege: at least nine rows in ten are decided, and each of the rest says why not.
//!
//! Needs root to become somebody else. Whoever runs the tests without it is such a user, and every other test of this
//! directory shows the same.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::Verdict;
use harness::audit::{self, Course, Options};
use harness::canary::Seed;
use harness::progress::Nobody;

/// No account, no group, no home.
const USER: u32 = 12345;

/// Bytes that an unprivileged user of a common distribution may lock.
const LOCKABLE: &str = "8388608";

#[test]
fn nine_rows_in_ten_are_decided_and_the_rest_say_why() {
    let dir = tempfile::Builder::new().prefix("scenarios-user-").tempdir_in("/tmp").unwrap();
    let [program, subject] = ["unprivileged", "scenarios"].map(|name| dir.path().join(name));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_scenarios"), &subject).unwrap();
    let user = USER.to_string();
    let mut command = match chown(dir.path(), Some(USER), Some(USER)) {
        Ok(()) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--bounding-set=-all"]);
            command.args(["prlimit", &format!("--memlock={LOCKABLE}:{LOCKABLE}")]).arg(&program);
            command
        }
        Err(_) => Command::new(&program),
    };
    command.args(["--ignored", "--exact", "an_audit_as_that_user", "--nocapture"]).current_dir(dir.path());

    let output = command.env("TMPDIR", dir.path()).output().unwrap();

    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains(" rows decided"), "{text}");
}

#[test]
#[ignore = "the other test of this file runs it as another user"]
fn an_audit_as_that_user() {
    let options = Options {
        subject: PathBuf::from("scenarios").canonicalize().unwrap(),
        filter: String::new(),
        quick: false,
        jobs: 2,
        timeout: Duration::from_secs(60),
        min_length: 6,
        decoys: 2,
        required: Vec::new(),
        seed: Seed::random().unwrap(),
        profile: "test".to_owned(),
        rustc: "test".to_owned(),
        ablation: None,
        attribution: audit::Attribution::Nothing,
        // Of every holder and ending some: all of them take minutes without optimisation.
        course: Course { part: Some("1/4".parse().unwrap()), ..Course::default() },
    };
    let rows = audit::rows(&options).unwrap();

    let run = audit::run(&options, &rows, &AtomicBool::new(false), &Nobody).unwrap();

    let undecided: Vec<_> = run.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Inconclusive).collect();
    assert!(undecided.iter().all(|outcome| !outcome.reasons.is_empty()));
    let (of, decided) = (run.outcomes.len(), run.outcomes.len() - undecided.len());
    assert!(of >= 30 && decided * 10 >= of * 9, "{decided} of {of}: {undecided:#?}");
    println!("{decided} of {of} rows decided");
}
