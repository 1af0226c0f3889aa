//! Signals while a scenario's secret is in use: the library wipes wherever one comes, ordinary memory does not.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Outcome, Verdict};
use harness::audit::{self, Course, Options};
use harness::canary::Seed;
use harness::machine;

fn swept(scenario: &str, sweep: &str) -> Outcome {
    let options = Options {
        subject: PathBuf::from(env!("CARGO_BIN_EXE_scenarios")),
        filter: String::new(),
        quick: false,
        jobs: 1,
        timeout: Duration::from_secs(60),
        min_length: 6,
        decoys: 2,
        required: Vec::new(),
        seed: Seed::random().unwrap(),
        profile: "test".to_owned(),
        rustc: "test".to_owned(),
        ablation: None,
        attribution: audit::Attribution::Nothing,
        course: Course { sweep: Some(sweep.parse().unwrap()), ..Course::default() },
    };
    let rows = audit::catalogue(&options.subject).unwrap();
    let row = rows.iter().find(|row| row.name == scenario).unwrap();
    audit::row(row, &machine::probe(), &options, &AtomicBool::new(false))
}

#[test]
fn a_secret_of_the_librarys_is_wiped_wherever_sigterm_comes() {
    let outcome = swept("secmem-mlock/wipe", "SIGTERM:4");

    assert_eq!((outcome.verdict, outcome.as_expected), (Verdict::Clean, true), "{:?}", outcome.reasons);
    assert_eq!((outcome.ended.as_str(), outcome.expectation.as_str()), ("signal 15", "clean"));
    assert!(outcome.ending.starts_with("SIGTERM at 4 points of "), "{}", outcome.ending);
    let looks: Vec<_> = outcome.observations.iter().filter(|look| look.checkpoint.starts_with("signal (")).collect();
    assert_eq!(looks.len(), 4);
}

#[test]
fn an_ordinary_vector_is_found_where_sigterm_comes_while_it_lives() {
    let outcome = swept("vec/wipe", "SIGTERM:3");

    assert_eq!((outcome.verdict, outcome.as_expected), (Verdict::Leak, true), "{:?}", outcome.reasons);
    let named = |text: &str| text.contains(" (SIGTERM after ") && text.contains(" instructions");
    assert!(outcome.findings.iter().all(|finding| named(&finding.checkpoint)), "{:?}", outcome.findings);
    assert!(outcome.expectation.starts_with("either"), "{}", outcome.expectation);
}
