//! Each example runs, and says what it is to say. Cargo builds them beside the tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program of an example: `target/PROFILE/examples/NAME`, where this test is `target/PROFILE/deps/examples-HASH`.
fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let program = this.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is not built: `cargo test` does, `cargo test --test examples` does not",
        program.display()
    );
    program
}

fn run(name: &str, input: &[u8]) -> Output {
    run_with(Command::new(program(name)), input)
}

fn run_with(mut command: Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // One that reads nothing may have ended before.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_key_is_held_used_and_gone() {
    let output = run("hold_a_key", &[7; 32]);

    assert!(output.status.success(), "{output:?}");
    let text = printed(&output);
    assert!(text.contains("a key of 32 bytes") && text.contains("even"), "{text}");
    assert!(text.contains("the same as itself: true\nand gone: true\n"), "{text}");
    assert!(!run("hold_a_key", &[7; 31]).status.success(), "a key that is cut is an error");
}

#[test]
fn a_password_is_read_from_a_pipe_and_checked() {
    let right = run("read_a_password", b"sesam\nanything else");
    assert_eq!((right.status.code(), printed(&right).as_str()), (Some(0), "welcome\n"));
    let wrong = run("read_a_password", b"sesame\n");
    assert_eq!((wrong.status.code(), printed(&wrong).as_str()), (Some(1), "wrong\n"));
    let none = run("read_a_password", b"");
    assert_eq!(
        (none.status.code(), none.stderr.as_slice()),
        (Some(2), &b"no password: there was no secret to read\n"[..])
    );
    assert_eq!(run("read_a_password", &[b'x'; 65]).status.code(), Some(2), "one that is too long is not cut");
}

#[test]
fn argon2_makes_the_key_that_it_makes_anywhere() {
    let output = run("run_argon2_scrubbed", b"sesam\n");
    let mut key = [0; 32];
    let params = argon2::Params::new(256, 1, 1, Some(32)).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    argon2.hash_password_into(b"sesam", b"not a random salt", &mut key).unwrap();
    let begin: String = key[..4].iter().map(|byte| format!("{byte:02x}")).collect();

    assert!(output.status.success(), "{output:?}");
    assert_eq!(printed(&output), format!("a key that begins with {begin}\n"));
}

#[test]
fn a_variable_is_taken() {
    let mut command = Command::new(program("take_a_variable"));
    command.env("TOKEN", "a token from the environment");
    let output = run_with(command, b"");

    assert!(output.status.success(), "{output:?}");
    let expected =
        "a token of 28 bytes\nthe program sees it: false\nthe kernel shows it: false\na child gets it: false\n";
    assert_eq!(printed(&output), expected);
    assert!(!run("take_a_variable", b"").status.success(), "without one it is an error");
}

#[cfg(feature = "coffer")]
#[test]
fn a_token_is_sealed_and_opened() {
    let output = run("store_a_token", b"");

    assert!(output.status.success(), "{output:?}");
    assert_eq!(printed(&output).matches("used a token of 25 bytes").count(), 3);
}

#[test]
fn a_token_that_rests_is_wiped() {
    let output = run("wipe_at_a_deadline", b"");

    assert!(output.status.success(), "{output:?}");
    assert!(printed(&output).ends_with("it rested for too long, and was wiped\n"), "{output:?}");
}

#[test]
fn the_report_says_what_is_there() {
    let output = run("report", b"");

    assert!(output.status.success(), "{output:?}");
    assert!(printed(&output).contains("the kernel confirms 2 arenas"), "{output:?}");
}

#[cfg(all(feature = "http", feature = "pqc"))]
#[test]
fn the_monitor_serves_is_hardened_and_keeps_its_secrets_to_itself() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::net::TcpStream;

    struct Ended(std::process::Child);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    const TOKEN: &str = "a-token-of-many-characters";
    const BASE: &str = "a-base-secret-of-many-more-characters";
    const SALT: &str = "a-salt-of-some-characters";
    let mut command = Command::new(program("monitor"));
    for unset in ["ADMIN_IP_WHITELIST", "TRUSTED_PROXIES", "MAX_SECURE_BUFFERS", "SECURE_BUFFER_TIMEOUT"] {
        command.env_remove(unset);
    }
    command.env("MONITOR_ADDRESS", "127.0.0.1:0").env("SECMEM_ENV", "development").env("MONITOR_TOKEN", TOKEN);
    command.env("PQC_BASE_SECRET", BASE).env("PQC_KEY_SALT", SALT);
    let mut child = Ended(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().trim_end_matches('/');
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };

    let stats = ask("GET /api/security/memory-stats HTTP/1.0\r\n\r\n");
    let comprehensive = ask("GET /api/security/comprehensive-status HTTP/1.0\r\n\r\n");
    let post = "POST /api/security/test-memory HTTP/1.0\r\n";
    let (bare, with) = (ask(&format!("{post}\r\n")), ask(&format!("{post}Authorization: Bearer {TOKEN}\r\n\r\n")));

    assert!(stats.starts_with("HTTP/1.0 200") && stats.contains("\"totalBuffers\":"), "{stats}");
    assert!(bare.starts_with("HTTP/1.0 401"), "{bare}");
    assert!(with.starts_with("HTTP/1.0 200") && with.contains("Secure memory test passed"), "{with}");
    for fact in [
        r#""postQuantumEnabled":true,"#,
        r#""keyDerivation":"BASE_SECRET""#,
        r#""recommendations":[]},"configuration""#, // that is: none to call harden()
    ] {
        assert!(comprehensive.contains(fact), "{fact}: {comprehensive}");
    }
    match std::fs::read(format!("/proc/{}/environ", child.0.id())) {
        Ok(environment) => {
            let holds = |text: &str| environment.windows(text.len()).any(|bytes| bytes == text.as_bytes());
            assert!(holds("MONITOR_ADDRESS") && ![TOKEN, BASE, SALT].into_iter().any(holds));
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {} // a hardened process shows it to root alone
        Err(error) => panic!("{error}"),
    }
}

#[cfg(feature = "vault")]
#[test]
fn a_vault_asks_goes_on_without_its_worker_and_asks_again() {
    let commands = "sesam öffne\nstatus\nsign\nderive\nwallet\nwhat?\nkill\nuse\nrestart\nanders1\nuse\nquit\n";
    let output = run("vault", commands.as_bytes());

    assert!(output.status.success(), "{output:?}");
    let text = printed(&output);
    let mut rest = text.as_str();
    for said in [
        "the worker is process ",
        "a password of 11 characters, 12 bytes; wiped in both processes\n",
        "commands: ",
        "hardened: true",
        "filtered: true",
        "the wrapping key: 32 bytes in ",
        "signed: ",
        ", 64 bytes\n",
        "a key of 32 bytes, in ",
        "the wallet is open: 32 bytes of key",
        "the wallet has locked itself: the deadline of the secret has passed\n",
        "commands: ",
        "the worker has ended (signal 9): the password is gone with it",
        "the worker has ended (signal 9): the password is gone with it",
        "and knows no password\n",
        "a password of 7 characters, 7 bytes; wiped in both processes\n",
        "the worker has ended (exit status 0)\n",
    ] {
        let at = rest.find(said).unwrap_or_else(|| panic!("{said}: {text}"));
        rest = &rest[at + said.len()..];
    }
    assert!(!text.contains("sesam") && !text.contains("anders1"), "{text}");
    let none = run("vault", b"");
    assert_eq!(none.status.code(), Some(2));
    assert_eq!(none.stderr, b"there was no password to read\n");
}

#[cfg(feature = "vault")]
#[test]
fn the_patterns_of_a_vault_leave_nothing() {
    let output = run("vault_patterns", b"");

    assert!(output.status.success(), "{output:?}");
    assert_eq!(printed(&output).lines().count(), 7);
}

#[test]
fn the_reach_of_this_build_is_told_part_by_part() {
    let output = run("reach", b"");

    assert!(output.status.success(), "{output:?}");
    let text = printed(&output);
    assert_eq!(text.lines().next(), Some(secmem::reach::TARGET));
    for part in secmem::reach::Part::ALL {
        let told = |line: &str| line.starts_with(part.name()) && line.ends_with(&part.here().to_string());
        assert!(text.lines().any(told), "{part}: {text}");
    }
}
