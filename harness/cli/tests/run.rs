//! `residue run` as its users meet it: programs of a shell's, fed and looked at in every way.

use std::process::{Command, Output, Stdio};

fn residue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residue")).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs a shell's script with those options; the exit code, and the run.
fn run(options: &[&str], script: &str) -> (i32, serde_json::Value) {
    let args = [&["run", "--json"], options, &["--", "sh", "-c", script]].concat();
    let output = residue(&args);
    let run = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), run)
}

fn reasons(run: &serde_json::Value) -> String {
    run["outcomes"][0]["reasons"].to_string()
}

/// Classes of the findings at that moment.
fn classes(run: &serde_json::Value, moment: &str) -> Vec<String> {
    let findings = run["outcomes"][0]["findings"].as_array().unwrap();
    findings
        .iter()
        .filter(|finding| finding["checkpoint"] == moment)
        .map(|finding| finding["rule"]["class"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_secret_that_stays_in_a_variable_is_a_leak() {
    let (code, run) = run(&[], "read -r key; true");

    assert_eq!(code, 1, "{run}");
    assert!(classes(&run, "exit").contains(&"heap".to_owned()), "{run}");
}

#[test]
fn a_program_that_read_its_secret_and_became_another_is_clean() {
    let (code, run) = run(&[], "read -r key; exec sleep 0");

    assert_eq!(code, 0, "{run}");
    assert!(run["outcomes"][0]["controls"]["planted"].as_u64().unwrap() > 0);
}

#[test]
fn a_program_that_never_reads_is_a_silent_control() {
    let (code, run) = run(&[], "exit 0");

    assert_eq!(code, 2);
    assert!(reasons(&run).contains("silent control"), "{run}");
}

#[test]
fn arguments_and_the_environment_stay_to_the_end() {
    let (code, environ) = run(&["--feed", "env:KEY"], "exit 0");
    let argv = residue(&["run", "--json", "--feed", "arg:1", "--", "sleep", "0"]);
    let argv = serde_json::from_slice(&argv.stdout).unwrap_or_default();

    assert_eq!(code, 1);
    assert!(classes(&environ, "exit").contains(&"environ".to_owned()), "{environ}");
    assert!(classes(&argv, "exit").contains(&"argv".to_owned()), "{argv}");
}

#[test]
fn descriptors_files_and_terminals_bring_it_too() {
    let file = std::env::temp_dir().join(format!("residue-test-{}", std::process::id()));
    let path = file.to_str().unwrap();

    let (by_descriptor, run_3) = run(&["--feed", "fd:5", "--text"], "read -r key <&5; true");
    let (by_file, run_file) =
        run(&["--feed", &format!("file:{path}"), "--text"], &format!("read -r key <{path}; true"));
    let (by_terminal, run_pty) = run(&["--feed", "pty"], "stty -echo; read -r key; test -t 0 && : </dev/tty");

    assert_eq!((by_descriptor, by_file, by_terminal), (1, 1, 1), "{run_3}\n{run_file}\n{run_pty}");
    assert!(!file.exists());
}

#[test]
fn a_file_that_exists_is_never_overwritten() {
    let output = residue(&["run", "--feed", "file:/etc/hostname", "--", "cat", "/etc/hostname"]);

    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn each_moment_sees_the_secret_that_is_gone_at_the_end() {
    let script = "read -r key; echo ready; kill -USR1 $$; sleep 8; exec sleep 0";
    let moments = ["stdout:^rea.y", "signal:USR1", "after:5s", "syscall:execve"];
    let at: Vec<_> = moments.iter().flat_map(|moment| ["--at", moment]).collect();

    let (code, run) = run(&at, &format!("trap '' USR1; {script}"));

    assert_eq!(code, 1, "{run}");
    for moment in ["stdout:^rea.y", "signal:SIGUSR1", "after:5s", "syscall:execve"] {
        assert!(!classes(&run, moment).is_empty(), "{moment}: {run}");
    }
}

#[test]
fn a_look_before_the_secret_came_is_no_clean_look() {
    let (code, run) = run(&["--at", "after:50ms"], "sleep 2; read -r key; exec sleep 0");

    assert_eq!(code, 2, "{run}");
    assert!(reasons(&run).contains("came before the secret was seen"), "{run}");
}

#[test]
fn a_moment_that_never_comes_is_inconclusive_with_the_reason() {
    let (code, run) = run(&["--at", "stdout:never", "--at", "exit"], "read -r key; echo ready; exec sleep 0");

    assert_eq!(code, 2, "{run}");
    assert!(reasons(&run).contains("nothing that the program printed matched"), "{run}");
}

#[test]
fn children_are_looked_at_if_asked_and_missed_if_not() {
    let script = "read -r key; (true; exec true); exec sleep 0";

    let (alone, run_alone) = run(&[], script);
    let (tree, run_tree) = run(&["--follow"], "read -r key; (true; exit 0); exec sleep 0");

    assert_eq!(alone, 2, "{run_alone}");
    assert!(reasons(&run_alone).contains("--follow"), "{run_alone}");
    assert_eq!(tree, 1, "{run_tree}");
    assert!(run_tree["outcomes"][0]["findings"].as_array().unwrap().iter().all(|finding| finding["process"] == 2));
}

#[test]
fn a_daemon_and_a_program_that_never_ends_are_stopped_in_time() {
    let (_, daemon) = run(&["--timeout", "15"], "read -r key; setsid sleep 500 & exit 0");
    let (code, sleeper) = run(&["--timeout", "2"], "read -r key; exec sleep 500");

    assert!(reasons(&daemon).contains("a daemon?"), "{daemon}");
    assert!(reasons(&sleeper).contains("did not end within 2 s"), "{sleeper}");
    assert_eq!(code, 2);
}

#[test]
fn what_the_program_prints_comes_through_to_the_byte() {
    let script = r"read -r key; printf '\377\000\033[31m'; exec sleep 0";
    for at in ["exit", "stdout:[a-z]"] {
        let output = residue(&["run", "--at", at, "--", "sh", "-c", script]);

        assert!(output.stdout.starts_with(b"\xff\x00\x1b[31m"), "{at}");
    }
}

#[test]
fn a_program_that_is_not_there_is_wrong_usage() {
    for program in ["no-such-program", "/nowhere/program", "/etc/hostname", "/tmp"] {
        let output = residue(&["run", "--", program]);

        assert_eq!(output.status.code(), Some(64), "{program}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(program), "{program}");
    }
    assert_eq!(residue(&["run"]).status.code(), Some(64));
    assert_eq!(residue(&["run", "--at", "stdout:(", "--", "true"]).status.code(), Some(64));
    assert_eq!(residue(&["run", "--feed", "arg:9", "--", "true"]).status.code(), Some(64));
}

/// No word in it, or it would be found in the messages of the C library.
const SECRET: &str = "Tz4-mQ9#vLx2_Rk7+Wj1";

#[test]
fn a_secret_of_the_users_is_found_and_shown_nowhere() {
    let output = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["run", "--secret", "pass=env:PASS_PHRASE", "--", "sh", "-c", "read -r key; true"])
        .env("PASS_PHRASE", SECRET)
        .output()
        .unwrap();
    let unset = r#"read -r key; test -z "$PASS_PHRASE" || exit 3; exec sleep 0"#;
    let clean = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["run", "--secret", "pass=env:PASS_PHRASE", "--", "sh", "-c", unset])
        .env("PASS_PHRASE", SECRET)
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(clean.status.code(), Some(0), "{}", String::from_utf8_lossy(&clean.stdout));
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(SECRET));
}

#[test]
fn a_weak_secret_and_one_on_the_command_line_are_refused() {
    let hex = residue(&["run", "--secret", "k=hex:00112233445566778899", "--", "cat"]);
    let weak = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["run", "--secret", "k=env:WEAK", "--", "cat"])
        .env("WEAK", "aaaaaaaaaaaa")
        .output()
        .unwrap();

    assert_eq!((hex.status.code(), weak.status.code()), (Some(64), Some(64)));
    assert!(String::from_utf8_lossy(&weak.stderr).contains("too regular"));
}

#[test]
fn a_residue_that_comes_and_goes_is_shown_as_intermittent() {
    let counter = std::env::temp_dir().join(format!("residue-count-{}", std::process::id()));
    let path = counter.display();
    let script = format!("read -r key; test -e {path} && exec sleep 0; : >{path}");

    let (code, run) = run(&["--repeat", "3"], &script);
    std::fs::remove_file(&counter).unwrap();

    assert_eq!(code, 1, "{run}");
    let findings = run["outcomes"][0]["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["repeats"] == serde_json::json!({"seen": 1, "of": 3})), "{run}");
}

#[test]
fn a_live_process_is_searched_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let scan = |pid: u32| residue(&["scan", &pid.to_string(), "--secret-file", secret.to_str().unwrap()]);
    let mut holder =
        Command::new("sh").args(["-c", "read -r go; exit 5"]).arg(SECRET).stdin(Stdio::piped()).spawn().unwrap();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();

    let (leak, clean) = (scan(holder.id()), scan(other.id()));
    drop(holder.stdin.take());

    assert_eq!(leak.status.code(), Some(1), "{}", String::from_utf8_lossy(&leak.stdout));
    assert_eq!(clean.status.code(), Some(0), "{}", String::from_utf8_lossy(&clean.stdout));
    assert_eq!(holder.wait().unwrap().code(), Some(5));
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(scan(4_000_000).status.code(), Some(64));
}

#[test]
fn a_sweep_is_a_second_outcome_that_names_its_points() {
    let (code, run) = run(&["--sweep", "SIGKILL:2"], "read -r key; key=; exec sleep 0");

    let swept = &run["outcomes"][1];
    assert_ne!(code, 0, "{run}");
    assert!(swept["ending"].as_str().unwrap().starts_with("SIGKILL at 2 points of "), "{run}");
    assert!(swept["findings"].to_string().contains("SIGKILL after "), "{run}");
}

#[test]
fn a_sweep_that_makes_no_sense_is_wrong_usage() {
    for sweep in ["SIGTERM", "SIGTERM:0", "SIGCHLD:4", "FLY:4"] {
        let output = residue(&["run", "--sweep", sweep, "--", "true"]);

        assert_eq!(output.status.code(), Some(64), "{sweep}");
    }
}

#[test]
fn standard_input_that_can_be_read_only_once_is_refused_where_the_program_runs_again() {
    for again in [&["--attribute"][..], &["--sweep", "SIGTERM:2"]] {
        let args = [&["run", "--feed", "env:KEY"], again, &["--", "true"]].concat();
        let mut child = Command::new(env!("CARGO_BIN_EXE_residue"));
        let output = child.args(args).stdin(Stdio::piped()).output().unwrap();

        assert_eq!(output.status.code(), Some(64), "{again:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("a pipe, which can be read only once"), "{again:?}");
    }
}

#[test]
fn a_library_that_keeps_freed_memory_has_to_be_one() {
    let other = residue(&["run", "--keep-freed=/bin/sh", "--", "true"]);
    let absent = residue(&["run", "--keep-freed=/nowhere/library.so", "--", "true"]);

    assert_eq!((other.status.code(), absent.status.code()), (Some(64), Some(64)));
    assert!(String::from_utf8_lossy(&other.stderr).contains("is not the library"));
}

#[test]
fn what_an_earlier_run_reported_is_gone_before_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let reports = ["run.json", "repeatable.json"].map(|name| dir.path().join(name));
    for path in &reports {
        std::fs::write(path, "an earlier verdict").unwrap();
    }
    std::fs::write(dir.path().join("notes"), "the user's").unwrap();

    let output = residue(&["run", "--out", out, "--", "/no/such/program"]);

    assert_eq!(output.status.code(), Some(64));
    assert!(reports.iter().all(|path| !path.exists()));
    assert!(dir.path().join("notes").exists());
}

#[test]
fn a_file_that_cannot_be_made_for_the_secret_is_wrong_usage_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs");
    std::fs::write(&theirs, "the user's").unwrap();
    for path in ["/nonexistent/x", "/dev/null/x", theirs.to_str().unwrap()] {
        let output = residue(&["run", "--feed", &format!("file:{path}"), "--", "true"]);

        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(path), "{said}");
    }
    assert_eq!(std::fs::read_to_string(theirs).unwrap(), "the user's");
}

#[test]
fn the_core_limit_that_is_told_is_the_users_and_not_ours() {
    let line = format!("ulimit -Sc 0; exec {} run --json -- sh -c 'read -r key'", env!("CARGO_BIN_EXE_residue"));
    let output = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();

    let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let limits: Vec<_> = run["outcomes"][0]["observations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seen| seen["exposure"]["core_limit"]["bytes"].as_u64())
        .collect();
    assert!(!limits.is_empty() && limits.iter().all(|limit| *limit == Some(0)), "{limits:?}");
}

#[test]
fn a_secret_in_a_threads_name_is_found_there() {
    let (code, run) = run(&[], "read -r key; printf %s \"$key\" > /proc/self/comm; sleep 0");

    assert_eq!(code, 1, "{run}");
    let findings = run["outcomes"][0]["findings"].as_array().unwrap();
    let name =
        findings.iter().find(|finding| finding["rule"]["class"] == "thread-name").unwrap_or_else(|| panic!("{run}"));
    // The kernel keeps fifteen bytes of it.
    assert_eq!((name["secret_offset"].as_u64(), name["secret_length"].as_u64()), (Some(0), Some(15)), "{name}");
    let (_, other) = self::run(&[], "read -r key; sleep 0");
    assert!(!classes(&other, "exit").contains(&"thread-name".to_owned()), "{other}");
}

#[test]
fn a_secret_that_is_written_back_into_the_pipe_that_it_came_through_is_not_called_clean() {
    let (code, back) = run(&[], "read -r key; printf %s \"$key\" > /proc/self/fd/0; exec sleep 0");

    assert_ne!(code, 0, "{back}");
    assert!(reasons(&back).contains("bytes wait where it was fed"), "{back}");
    // What is left unread there is nobody's doing.
    let (code, unread) = run(&["--bytes"], "exec dd bs=32 count=1 of=/dev/null status=none");
    assert!(!reasons(&unread).contains("bytes wait where it was fed"), "{code} {unread}");
}
