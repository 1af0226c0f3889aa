//! `residue diff` as its users meet it: exit codes, what it prints, and what it never does.

use std::process::{Command, Output, Stdio};

fn residue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residue")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn diff(options: &[&str], script: &str) -> Output {
    residue(&[&["diff", "--runs", "2"], options, &["--", "sh", "-c", script]].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_key_that_stays_in_a_variable_is_told_as_one_that_a_search_finds_too() {
    let output = diff(&["--json"], "read -r key; true");

    let difference: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{difference}");
    assert!(difference["found"].as_u64().unwrap() > 0);
    let keyed = difference["keyed"].as_array().unwrap();
    let known = |stretch: &&serde_json::Value| stretch["class"] == "heap" && stretch["known"] == stretch["differing"];
    assert!(keyed.iter().any(|stretch| known(&stretch)), "{difference}");
}

#[test]
fn a_program_that_read_its_key_and_became_another_is_clean() {
    let output = diff(&[], "read -r key; exec sleep 0");

    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).starts_with("CLEAN  No byte was seen to depend on the key."));
}

#[test]
fn a_moment_that_never_comes_is_inconclusive() {
    let output = diff(&["--at", "syscall:mlock"], "read -r key; exec sleep 0");

    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stdout(&output).contains("syscall:mlock missed"));
}

#[test]
fn two_keys_of_the_users_are_compared_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ["Vq7mZ2xLw9Tn4RbYc8Kd", "eJ5hPu3sGf6AoXi1Nk0W"];
    let files: Vec<_> = keys.iter().zip(["one", "other"]).map(|(key, name)| (dir.path().join(name), key)).collect();
    let arguments: Vec<_> = files
        .iter()
        .map(|(path, key)| {
            std::fs::write(path, key).unwrap();
            format!("name={}", path.display())
        })
        .collect();
    let out = dir.path().join("out");
    let secrets = ["--secret", &arguments[0], "--secret", &arguments[1], "--out", out.to_str().unwrap()];

    let output = diff(&secrets, "read -r key; echo \"$key\"; true");

    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let written = ["difference.json", "difference.txt"].map(|name| std::fs::read_to_string(out.join(name)).unwrap());
    let said = [stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned()];
    for text in said.iter().chain(&written) {
        assert!(keys.iter().all(|key| !text.contains(key)), "{text}");
    }
    assert_eq!(written[1], said[0]);
}

#[test]
fn one_key_alone_and_the_same_key_twice_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "Vq7mZ2xLw9Tn4RbYc8Kd").unwrap();
    let secret = format!("name={}", file.display());

    for secrets in [&["--secret", &secret][..], &["--secret", &secret, "--secret", &secret]] {
        let output = diff(secrets, "read -r key");

        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(residue(&["diff", "--", "/no/such/program"]).status.code(), Some(64));
}
