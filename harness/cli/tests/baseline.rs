//! A list of known residues against a run of a program that leaks, and a project's file that names both.

use std::path::Path;
use std::process::{Command, Output};

fn residue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residue")).args(args).output().unwrap()
}

fn held(run: &Path, list: &Path, text: &str) -> (Option<i32>, String) {
    std::fs::write(list, text).unwrap();
    let output = residue(&["baseline", run.to_str().unwrap(), "--list", list.to_str().unwrap()]);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The entries that it offers for what is new.
fn drafts(said: &str) -> &str {
    let from = said.find("[[known]]").unwrap_or(said.len());
    let text = &said[from..];
    &text[..text.find("The list ").unwrap()]
}

/// The same with what only people can say.
fn filled(drafts: &str, day: &str) -> String {
    let drafts = drafts.replace("reason = \"\"", "reason = \"a shell\"").replace("owner = \"\"", "owner = \"us\"");
    drafts.replace("expires = \"\"", &format!("expires = \"{day}\""))
}

#[test]
fn a_leak_is_new_until_it_is_listed_and_its_entry_expires_and_grows_stale() {
    let dir = tempfile::tempdir().unwrap();
    let [leaky, clean, list] = ["leaky", "clean", "list.toml"].map(|name| dir.path().join(name));
    for (out, script, code) in [(&leaky, "read -r key; true", 1), (&clean, "read -r key; exec sleep 0", 0)] {
        let output = residue(&["run", "--out", out.to_str().unwrap(), "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code));
    }
    let [leaky, clean] = [leaky, clean].map(|out| out.join("run.json"));
    let head = "schema = \"secmem.baseline/1\"\n";

    let (code, said) = held(&leaky, &list, head);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("new      sh: raw in heap, whole"), "{said}");

    // The drafts that it prints, filled in.
    let drafts = drafts(&said);
    let full = |day: &str| format!("{head}\n{}", filled(drafts, day));
    let (code, said) = held(&leaky, &list, &full("2999-12-31"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = held(&leaky, &list, &full("2020-01-01"));
    assert!(code == Some(1) && said.contains("expired  sh: raw in heap, whole, at exit (on 2020-01-01)"), "{said}");
    let (code, said) = held(&clean, &list, &full("2999-12-31"));
    assert!(code == Some(1) && said.contains("stale    sh: raw in heap, whole"), "{said}");
    let (code, said) = held(&clean, &list, head);
    assert_eq!(code, Some(0), "{said}");

    for wrong in
        ["", "schema = 1", &format!("{head}{drafts}"), &full("soon"), &full("2999-12-31").replace("owner", "ower")]
    {
        let (code, said) = held(&leaky, &list, wrong);
        assert_eq!(code, Some(64), "{said}");
    }
}

/// Runs `residue run` with those options in that directory.
fn run_in(dir: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_residue")).arg("run").args(options).current_dir(dir).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

const PROJECT: &str = r#"
baseline = "known.toml"

[run]
program = ["sh", "-c", "read -r key; echo ready; true"]
timeout = 120

[secret]
name = "key"
random = 40
feed = "stdin"

[look]
at = ["exit"]
min-length = 8
"#;

#[test]
fn a_project_says_what_to_run_and_which_residues_are_known() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("residue.toml"), PROJECT).unwrap();
    let list = dir.path().join("known.toml");
    std::fs::write(&list, "schema = \"secmem.baseline/1\"\n").unwrap();

    let (code, said) = run_in(dir.path(), &[]);
    assert_eq!(code, Some(1), "{said}");
    let used = "residue.toml says run.program, secret, secret.feed, look.at, look.min-length, run.timeout, baseline";
    assert!(said.contains(used) && said.contains("new      sh: raw in heap, whole, at exit"), "{said}");

    // What a shell leaves differs a little from run to run: its list grows until it holds.
    let mut text = std::fs::read_to_string(&list).unwrap();
    let mut last = (code, said);
    for _ in 0..10 {
        let more = filled(drafts(&last.1), "2999-12-31").replace("reason =", "intermittent = true\nreason =");
        text.push_str(&more);
        std::fs::write(&list, &text).unwrap();
        last = run_in(dir.path(), &[]);
        if last.0 == Some(0) {
            break;
        }
    }
    assert!(last.0 == Some(0) && last.1.contains("The list known.toml holds."), "{}", last.1);

    // The command line wins: another moment, which is not on the list.
    let (code, said) = run_in(dir.path(), &["--at", "stdout:^ready"]);
    assert!(code == Some(1) && said.contains("whole, at stdout:^ready"), "{said}");
    assert!(!said.contains("look.at,"), "{said}");
    let (code, said) = run_in(dir.path(), &["--", "sh", "-c", "read -r key; exec sleep 0"]);
    assert!(code == Some(0) && said.contains("residue.toml is not used: a program is named"), "{said}");
}

#[test]
fn a_project_that_nobody_understands_is_wrong_usage_and_its_lines_are_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    for (wrong, why) in [
        ("[run]\nprogramm = []", "line 2: unknown field `programm`"),
        ("[secret]\nvalue = \"hunter2-hunter3\"", "line 2: unknown field `value`"),
        ("[secrets]", "unknown field `secrets`"),
        ("[run]\nprogram = [\"true\"]\n[secret]\nrandom = 7", "secret.random is 7, and may be 8 to 4000"),
        ("[run]\nprogram = [\"true\"]\n[secret]\nrandom = 32\nenv = \"KEY\"", "one of secret.file, secret.env and"),
        ("[run]\nprogram = [\"true\"]\n[secret]\nfeed = \"fd:1\"", "secret.feed: \"fd:1\" is no way to feed"),
        ("[run]\nprogram = [\"true\"]\n[look]\nat = [\"never\"]", "look.at: \"never\" is no moment"),
        ("baseline = \"nowhere.toml\"\n[run]\nprogram = [\"true\"]", "read nowhere.toml"),
        ("", "no program to run"),
    ] {
        std::fs::write(dir.path().join("residue.toml"), wrong).unwrap();

        let (code, said) = run_in(dir.path(), &[]);

        assert_eq!(code, Some(64), "{wrong}: {said}");
        assert!(said.contains(why) && !said.contains("hunter2"), "{wrong}: {said}");
    }
}
