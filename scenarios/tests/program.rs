//! The program from outside, without a harness: what it refuses, what it announces, how it ends.
//!
//! What is left in memory is not looked at here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use scenario_protocol::{CanaryKind, Checkpoint, Ends, FRAME_GO_ON, Row};

const PROGRAM: &str = env!("CARGO_BIN_EXE_scenarios");

/// Longer than any row takes; a test that hangs is worse than one that fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn status_of(args: &[&str]) -> Option<i32> {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().code()
}

fn rows() -> Vec<Row> {
    let listed = Command::new(PROGRAM).arg("list").output().unwrap();
    serde_json::from_slice(&listed.stdout).unwrap()
}

fn row(name: &str) -> Row {
    rows().into_iter().find(|row| row.name == name).unwrap()
}

/// What a row did when it was played.
struct Played {
    announced: Vec<Checkpoint>,
    status: ExitStatus,
}

/// Starts a row with its two descriptors and gives `answer` to each announcement; hangs up where that is empty.
///
/// A shell puts the descriptors in place and forbids a core file. The control socket is a stream here, whose
/// two-byte frames come one by one, as each is answered before the next.
fn play(row: &Row, answer: &[u8]) -> Played {
    let (mut control, theirs) = UnixStream::pair().unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    let (canary, mut feed) = io::pipe().unwrap();
    let letter = if row.canary == CanaryKind::Text { b'a' } else { 0xA5 };
    feed.write_all(&vec![letter; row.canary_len]).unwrap();
    drop(feed);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"ulimit -c 0; exec "$0" run "$1" 3<&0 4<&1 0</dev/null 1>/dev/null"#, PROGRAM, &row.name]);
    command.stdin(OwnedFd::from(theirs)).stdout(canary).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command); // it holds our copies of their ends

    let mut announced = Vec::new();
    let mut frame = [0; 2];
    while let Ok(()) = control.read_exact(&mut frame) {
        announced.push(Checkpoint::from_frame(&frame).unwrap());
        if answer.is_empty() {
            break;
        }
        control.write_all(answer).unwrap();
    }
    drop(control);
    Played { announced, status: child.wait().unwrap() }
}

fn ends(status: ExitStatus) -> Option<Ends> {
    status.code().map(Ends::Exit).or(status.signal().map(Ends::Signal))
}

#[test]
fn help_is_printed_with_an_example() {
    let help = Command::new(PROGRAM).arg("--help").output().unwrap();

    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("Example"));
}

#[test]
fn wrong_usage_and_unknown_names_end_with_64() {
    for args in [&[][..], &["lists"], &["run"], &["run", "vec/nowhere"], &["run", "vec/wipe", "more"], &["--bad"]] {
        assert_eq!(status_of(args), Some(64), "{args:?}");
    }
}

#[test]
fn a_row_started_by_hand_ends_with_64() {
    assert_eq!(status_of(&["run", "vec/wipe"]), Some(64));
}

#[test]
fn a_catalogue_that_cannot_be_printed_ends_with_70() {
    let full = File::options().write(true).open("/dev/full").unwrap();

    let status = Command::new(PROGRAM).arg("list").stdout(full).stderr(Stdio::null()).status().unwrap();

    assert_eq!(status.code(), Some(70));
}

#[test]
fn a_harness_that_hangs_up_ends_a_row_with_70() {
    let played = play(&row("vec/wipe"), &[]);

    assert_eq!(played.announced, [Checkpoint::Planted]);
    assert_eq!(played.status.code(), Some(70));
}

#[test]
fn a_wrong_answer_ends_a_row_with_70() {
    let played = play(&row("vec/wipe"), &[FRAME_GO_ON[0], FRAME_GO_ON[1] + 1]);

    assert_eq!(played.announced, [Checkpoint::Planted]);
    assert_eq!(played.status.code(), Some(70));
}

#[test]
fn every_row_without_special_needs_announces_and_ends_as_listed() {
    for row in rows().into_iter().filter(|row| row.needs.is_empty()) {
        let played = play(&row, &FRAME_GO_ON);

        let listed: Vec<Checkpoint> = row.checkpoints.iter().copied().filter(|it| it.announced()).collect();
        assert_eq!(played.announced, listed, "{}", row.name);
        assert_eq!(ends(played.status), Some(row.ends), "{}", row.name);
    }
}
