//! The exit codes of the real program: never 0, 1 or 2 for anything that is not a verdict.

use std::process::{Command, Output};

fn xtask(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).output().unwrap()
}

#[test]
fn wrong_usage_exits_64() {
    for args in [&["audit", "--no-such-flag"][..], &["no-such-task"], &[]] {
        assert_eq!(xtask(args).status.code(), Some(64), "{args:?}");
    }
}

#[test]
fn an_unknown_profile_exits_64_and_names_the_known_ones() {
    let output = xtask(&["audit", "--profile", "no-such-profile"]);

    assert_eq!(output.status.code(), Some(64));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("dev, release, audit"), "{message}");
}

#[test]
fn a_directory_that_cannot_be_written_exits_70() {
    let output = xtask(&["audit", "--out", "/proc/no-such-directory"]);

    assert_eq!(output.status.code(), Some(70), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_directory_of_somebody_elses_exits_64() {
    let output = xtask(&["audit", "--out", concat!(env!("CARGO_MANIFEST_DIR"), "/src")]);

    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn help_exits_0() {
    assert_eq!(xtask(&["audit", "--help"]).status.code(), Some(0));
}
