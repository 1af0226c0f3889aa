//! The program that verifies a journal: what it says, and its exit codes.

use std::fs;
use std::process::{Command, Output};

use secmem::journal::{Action, Entry, Journal, Options, SigningKey};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secmem-journal")).args(args).output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn each_exit_code_is_what_the_help_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let file = path.to_str().unwrap();
    let key = SigningKey::draw().unwrap();
    let (public, other) = (key.public().to_string(), SigningKey::draw().unwrap().public().to_string());
    let journal = Journal::open(&path, Options::default().sign(key)).unwrap();
    let mut heads = vec![journal.head().unwrap().to_string()];
    for _ in 0..3 {
        let entry = Entry::done(Action::Other("sesam".parse().unwrap()), None);
        heads.push(journal.append(&entry).unwrap().to_string());
    }
    let whole = fs::read_to_string(&path).unwrap();

    let help = run(&["verify", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    let said = out(&help).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("0 whole; 1 broken, with the line and why; 2 wrong usage; 70 the journal could not be read"),
        "{said}"
    );

    let verified = run(&["verify", file, "--key", &public, "--head", &heads[1], "--head", &heads[3]]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert_eq!(out(&verified), format!("4 entries; head {}\nsigned by {public}, checked\nwhole\n", heads[3]));
    let unchecked = run(&["verify", file]);
    assert_eq!(unchecked.status.code(), Some(0));
    assert!(out(&unchecked).contains("not checked\nwhole\n"), "{unchecked:?}");

    let broken = |text: &str, args: &[&str], said: &str| {
        fs::write(&path, text).unwrap();
        let output = run(&[&["verify", file], args].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(out(&output).ends_with(&format!("{said}\n")), "{output:?}");
        assert!(!out(&output).contains("sesam"));
    };
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    broken(
        &whole.replacen("sesam", "sesan", 1),
        &[],
        "broken at line 2: it does not follow from what stands before it",
    );
    broken(&[lines[0], lines[2]].concat(), &[], "broken at line 2: it is entry 3 where 2 has to stand");
    broken(&whole, &["--key", &other], "broken at line 1: it names another key");
    let cut = "broken at line 3: it is missing: entry 4 was there when its head was kept";
    broken(&lines[..2].concat(), &["--head", &heads[3]], cut);
    let torn =
        format!("broken at line 4: {} bytes without an end, which opening the journal cuts off", lines[3].len() - 1);
    broken(&whole[..whole.len() - 1], &[], &torn);
    broken("", &[], "broken at line 1: there is no entry");

    for wrong in [&[][..], &["verify"], &["verify", file, "--key", "x"], &["verify", file, "--head", "0:"], &["x"]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let missing = run(&["verify", "/proc/no-such-journal"]);
    assert_eq!(missing.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("secmem-journal: /proc/no-such-journal: "));
    assert_eq!(run(&["verify", directory.path().to_str().unwrap()]).status.code(), Some(70), "a directory is not read");
}
