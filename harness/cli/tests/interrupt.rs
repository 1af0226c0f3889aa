//! Ctrl-C at a terminal: what was started is gone, and no file is left where the user works, no core either.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a terminal makes SIGINT of.
const CTRL_C: &[u8] = b"\x03";

/// What a terminal makes SIGQUIT of, at which a program usually leaves a core.
const CTRL_BACKSLASH: &[u8] = b"\x1c";

/// Whether there is what gives a program a terminal; says so on standard error if not.
fn has_terminal() -> bool {
    let there =
        Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: there is no `script` (util-linux) to run a program at a terminal");
    }
    there
}

/// Runs a command line of `residue` at a terminal of its own, in `dir`; types that key once a process whose arguments hold
/// `marker` runs.
fn interrupted(dir: &Path, line: &str, marker: &str, key: &[u8]) -> ExitStatus {
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_residue"));
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &format!("exec {line}"), "/dev/null"])
        .current_dir(dir)
        .env("TMPDIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("script of util-linux");
    let patience = Instant::now() + PATIENCE;
    while running(marker) == 0 {
        assert!(Instant::now() < patience, "{marker} never ran");
        assert!(terminal.try_wait().unwrap().is_none(), "ended before {marker} ran");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Its standard input stays open until the end: `script` would take an end of file for the end of all.
    terminal.stdin.as_mut().unwrap().write_all(key).unwrap();
    let patience = Instant::now() + PATIENCE;
    while terminal.try_wait().unwrap().is_none() {
        if Instant::now() >= patience {
            terminal.kill().unwrap();
            panic!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.wait().unwrap()
}

/// Processes that were started with these words and are not `residue` or the terminal itself.
fn running(marker: &str) -> usize {
    let arguments = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.ok()?.path().join("cmdline")).ok();
    let is_it = |words: &Vec<u8>| {
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words[0].ends_with(b"sleep") && words.contains(&marker.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().filter_map(arguments).filter(is_it).count()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_run_ends_inconclusive_and_leaves_no_process_and_no_file() {
    if !has_terminal() {
        return;
    }
    for (number, key) in [CTRL_C, CTRL_BACKSLASH].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let marker = format!("{}.{number}25", 100_000 + std::process::id());

        let line = format!("run -- sh -c 'sleep {marker} & read -r key; wait'");
        let status = interrupted(dir.path(), &line, &marker, key);

        assert_eq!(status.code(), Some(2));
        assert_eq!(running(&marker), 0);
        assert_eq!(files(dir.path()), [""; 0]);
    }
}

/// A program that prints a catalogue of one row, and sleeps when it is run.
fn subject(dir: &Path, marker: &str) -> String {
    let row = r#"[{"name":"holder/ending","holder":"holder","ending":"ending","canary":"bytes","canary_len":32,
        "expect":"clean","ends":{"exit":0},"checkpoints":["planted","exit"],"needs":[],"sole_home":true,"turned_by":[],"shows":[]}]"#;
    let (text, path) = (dir.join("text"), dir.join("subject"));
    let script = format!("#!/bin/sh\ntest \"$1\" = run && exec sleep {marker}\ncat <<'ROW'\n{row}\nROW\n");
    std::fs::write(&text, script).unwrap();
    // Another process writes what is executed: a child forked meanwhile would hold a file of ours open for writing.
    assert!(Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap().success());
    std::fs::remove_file(text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_audit_writes_that_it_was_interrupted_and_leaves_no_process() {
    if !has_terminal() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let marker = format!("{}.75", 100_000 + std::process::id());
    let subject = subject(dir.path(), &marker);
    let out = dir.path().join("out");

    let status = interrupted(dir.path(), &format!("audit {subject} --out {}", out.display()), &marker, CTRL_C);

    assert_eq!(status.code(), Some(2));
    assert_eq!(running(&marker), 0);
    let run = std::fs::read_to_string(out.join("run.json")).unwrap();
    assert!(run.contains("\"interrupted\": true"), "{run}");
    let mut left = files(dir.path());
    left.sort();
    assert_eq!(left, ["out", "subject"]);
}

#[test]
fn a_filter_that_no_row_matches_is_wrong_usage_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let (subject, out) = (subject(dir.path(), "0"), dir.path().join("out"));

    let output = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["audit", &subject, "--filter", "no-such-row", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no-such-row") && said.contains("residue list"), "{said}");
}

#[test]
fn a_second_signal_leaves_no_file_with_the_secret() {
    use nix::sys::signal::{Signal, kill};
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let mut residue = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["run", "--feed", &format!("file:{}", secret.display()), "--", "sleep", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + PATIENCE;
    while !secret.exists() {
        assert!(Instant::now() < patience, "the secret was never fed");
        std::thread::sleep(Duration::from_millis(1));
    }

    // Where it stands it takes in both at once when it goes on: the second is never late.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(residue.id()).unwrap());
    for signal in [Signal::SIGSTOP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCONT] {
        kill(pid, signal).unwrap();
    }
    let status = residue.wait().unwrap();

    assert!(matches!(status.code(), Some(2 | 70)), "{status}");
    assert_eq!(files(dir.path()), [""; 0]);
}
