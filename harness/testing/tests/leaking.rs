//! Closures that leave something, and those of which nothing can be said: each fails, and its message says why.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};
use std::time::Duration;

use residue_test::{Check, assert_clean};

/// Keeps a copy of a key and never wipes it.
#[inline(never)]
fn forgetful(key: &[u8]) {
    let copy = key.to_vec().into_boxed_slice();
    std::hint::black_box(&copy); // freed as it is
}

/// As a user would write it: the test that shows a leak fails.
#[test]
#[should_panic(expected = "LEAK  The secret is still there")]
fn a_copy_that_is_dropped_unwiped_is_a_leak() {
    assert_clean(forgetful);
}

/// What a check fails with. In the process that is looked at, the check does not return.
fn message(check: Check, closure: impl FnOnce(&[u8])) -> String {
    failure(check, closure).expect("it passed")
}

/// The same; `None` in a process that is there for another check of the test.
fn failure(check: Check, closure: impl FnOnce(&[u8])) -> Option<String> {
    let failed = catch_unwind(AssertUnwindSafe(|| check.assert_clean(closure))).err()?;
    Some(*failed.downcast::<String>().unwrap())
}

#[test]
fn the_message_names_the_place_and_the_function_that_wrote() {
    // Longer than what an allocator keeps of its own in a freed piece.
    // A residue that does not stand at the same address again has no writer: two threads allocate, so one check may miss.
    let mut checks = (0..8).filter_map(|_| failure(Check::new().length(64).without_registers(), forgetful));
    let said = checks.find(|said| said.contains("forgetful (")).expect("no check named the writer");

    // Which part of the heap it is depends on the thread that asks for it.
    assert!(["heap.raw at exit", "arena.raw at exit"].iter().any(|place| said.contains(place)), "{said}");
    assert!(said.contains("forgetful") && said.contains("tests/leaking.rs:"), "{said}");
    assert!(said.contains("the_message_names_the_place_and_the_function_that_wrote ended with"), "{said}");
}

#[test]
fn a_pattern_of_the_secret_in_another_form_is_found_and_writers_can_be_left_out() {
    let said = message(Check::new().without_writers(), |secret| {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        std::mem::forget(hex);
    });

    assert!(said.contains(".hex-lower at exit"), "{said}");
    assert!(!said.contains("written by"), "{said}");
}

#[test]
fn a_copy_in_a_process_that_the_closure_starts_is_found() {
    let said = message(Check::new().text().without_writers(), |secret| {
        let secret = std::str::from_utf8(secret).unwrap();
        // The shell keeps what it was told.
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", "read -r key; exit 0"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(shell.stdin.as_mut().unwrap(), secret.as_bytes()).unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
    });

    let words: Vec<_> = said.split_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == ["process", "2,"]), "{said}");
}

#[test]
fn a_closure_that_never_returns_is_inconclusive() {
    let check = Check::new().timeout(Duration::from_secs(5)).without_writers();

    let said = message(check, |_| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });

    assert!(said.contains("INCONCLUSIVE") && said.contains("did not end within 5 s"), "{said}");
}

#[test]
fn a_closure_that_ends_the_process_is_inconclusive() {
    let said = message(Check::new().without_writers(), |_| std::process::exit(0));

    assert!(said.contains("the closure did not return, its process ended with exit 0"), "{said}");
}

#[test]
fn a_test_that_its_harness_does_not_know_is_inconclusive() {
    let said = message(Check::new().test("no_such_test"), |_| {});

    assert!(said.contains("Does its harness know the test by this name?"), "{said}");
    assert!(said.contains("silent control"), "{said}");
}

#[test]
fn a_secret_that_is_too_short_to_be_searched_for_is_refused() {
    let said = message(Check::new().length(7), |_| {});

    assert!(said.contains("a secret of 7 bytes is too short"), "{said}");
}

mod in_a_module {
    #[test]
    #[ignore = "fails: another test runs it and reads what it says"]
    fn panics_with_the_secret() {
        residue_test::assert_clean(|secret| panic!("the secret is {secret:?}"));
    }

    #[test]
    #[ignore = "fails: another test runs it and reads what it says"]
    fn leaks() {
        residue_test::Check::new().length(64).without_writers().assert_clean(super::forgetful);
    }
}

/// Runs one of those above alone, as cargo-nextest does; `more` says how.
fn alone(test: &str, more: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", test, "--nocapture", "--ignored"]).args(more).output().unwrap()
}

fn said(output: Output) -> String {
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn a_test_that_runs_in_a_process_of_its_own_fails_alike() {
    for more in [&[][..], &["--test-threads=1"]] {
        let output = alone("in_a_module::leaks", more);

        assert_eq!(output.status.code(), Some(101));
        let said = said(output);
        assert!(said.contains("LEAK  The secret is still there"), "{said}");
    }
}

#[test]
fn a_panic_of_the_closure_is_told_with_its_place_and_without_its_message() {
    let output = alone("in_a_module::panics_with_the_secret", &[]);

    assert_eq!(output.status.code(), Some(101));
    let said = said(output);
    assert!(said.contains("the closure panicked at") && said.contains("tests/leaking.rs:"), "{said}");
    assert!(!said.contains("the secret is ["), "{said}");
}
