//! Keys that nobody named, in real processes: found where they are used, and nowhere else.
//!
//! Started with `hold` this program is its own subject: it expands a key with the `aes` crate, reads the PEM of a key that
//! OpenSSL made, and stands still.

use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;

use aes::cipher::KeyInit;
use findings::{Form, Outcome, Verdict};
use harness::attach;
use harness::files::Needles;
use libtest_mimic::{Arguments, Failed, Trial};

/// Made by `openssl genrsa`, for tests and nothing else; read when the subject runs, so that its program does not hold it.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("hold") {
        hold(&args.next().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let tests = vec![
        Trial::test("a_key_of_aes_is_found_by_its_schedule_in_a_process_that_uses_it", aes_is_found),
        Trial::test("a_private_key_in_pem_is_found_in_a_process_that_read_it", pem_is_found),
        Trial::test("a_process_without_keys_but_with_libraries_zeros_and_random_bytes_is_clean", nothing_is_found),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// What a subject does.
fn hold(what: &str) {
    // Written to: zeros that nobody wrote are no pages that could be read.
    let mut zeros = black_box(vec![1_u8; 8 << 20]);
    zeros.fill(0);
    let mut random = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    let key: [u8; 32] = blake3::hash(what.as_bytes()).into();
    let cipher = (what == "aes").then(|| Box::new(aes::Aes256Enc::new(&key.into())));
    let pem = (what == "pem").then(|| std::fs::read(format!("{KEYS}/rsa-pkcs8.pem")).unwrap());
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    black_box((zeros, random, cipher, pem));
}

struct Subject(Child);

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone
        let _ = self.0.wait();
    }
}

fn search(what: &str) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = command.args(["hold", what]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut subject = Subject(child.unwrap());
    let mut line = String::new();
    BufReader::new(subject.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let needles = Needles::of_unknown_keys();
    attach::search(subject.0.id() as i32, &needles, &AtomicBool::new(false)).unwrap()
}

fn found(outcome: &Outcome) -> Vec<(Form, u64)> {
    let mut found: Vec<_> = outcome.findings.iter().map(|finding| (finding.rule.form, finding.length)).collect();
    found.sort();
    found.dedup();
    found
}

fn aes_is_found() -> Result<(), Failed> {
    let outcome = search("aes");

    assert_eq!(found(&outcome), [(Form::Aes256Schedule, 240)], "{:?}", outcome.reasons);
    assert_eq!(outcome.verdict, Verdict::Leak);
    Ok(())
}

fn pem_is_found() -> Result<(), Failed> {
    let outcome = search("pem");

    let length = std::fs::read_to_string(format!("{KEYS}/rsa-pkcs8.pem"))?.trim_end().len() as u64;
    assert_eq!(found(&outcome), [(Form::PemKey, length)], "{:?}", outcome.reasons);
    Ok(())
}

fn nothing_is_found() -> Result<(), Failed> {
    let outcome = search("nothing");

    assert_eq!((found(&outcome), outcome.verdict), (Vec::new(), Verdict::Clean), "{:?}", outcome.reasons);
    assert!(outcome.coverage().read > 16 << 20);
    Ok(())
}
