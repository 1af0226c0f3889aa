//! As a user without any privilege: nothing that needs root is needed for programs of one's own.
//!
//! Each test starts `residue` under another user. Root is needed to become somebody else; without it `residue` runs as whoever
//! runs the tests, who then has no privilege to lose.

use std::path::Path;
use std::process::{Command, Output};

/// Nobody's number: no account, no group, no home.
const USER: &str = "12345";

/// What an unprivileged user of a common distribution may lock.
const LOCKABLE: &str = "8388608";

const SECRET: &str = "Tz4-mQ9#vLx2_Rk7+Wj1";

/// Runs a copy of `residue` that the user can read, in a directory of the user's.
fn residue(args: &[&str]) -> Output {
    let dir = tempfile::Builder::new().prefix("residue-user-").tempdir_in("/tmp").unwrap();
    let program = dir.path().join("residue");
    std::fs::write(dir.path().join("secret"), SECRET).unwrap();
    // By a program of its own: a child that another test forks meanwhile would inherit our descriptor open for writing,
    // and nobody can execute a file that somebody may write (ETXTBSY, execve(2)).
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_residue")).arg(&program).status().unwrap().success());
    let mut command = if is_root() {
        chown(dir.path());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args(["prlimit", &format!("--memlock={LOCKABLE}:{LOCKABLE}")]).arg(&program);
        command
    } else {
        Command::new(&program)
    };
    command.args(args).current_dir(dir.path()).env("TMPDIR", dir.path()).output().unwrap()
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

fn chown(dir: &Path) {
    let owner = USER.parse().unwrap();
    std::os::unix::fs::chown(dir, Some(owner), Some(owner)).unwrap();
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_program_of_ones_own_is_decided_both_ways() {
    let leak = residue(&["run", "--", "sh", "-c", "read -r key; true"]);
    let clean = residue(&["run", "--", "sh", "-c", "read -r key; exec sleep 0"]);

    assert_eq!((leak.status.code(), clean.status.code()), (Some(1), Some(0)), "{}\n{}", text(&leak), text(&clean));
}

#[test]
fn the_doctor_says_that_own_programs_can_be_traced() {
    let output = residue(&["doctor"]);

    let text = text(&output);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("ptrace  ").starts_with("yes"), "{text}");
    assert!(line("lock limit").starts_with("yes"), "{text}");
}

#[test]
fn a_process_of_somebody_elses_is_refused_with_the_way_out() {
    let output = residue(&["scan", "1", "--secret-file", "secret"]);

    let text = text(&output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("may not be traced"), "{text}");
}
