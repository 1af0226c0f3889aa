//! Every row of the catalogue, end to end: one test a row.
//!
//! A row whose means this machine lacks is listed as ignored, with the reason as its kind.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Machine, Outcome};
use harness::audit::{self, Options};
use harness::canary::Seed;
use harness::machine;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let subject = PathBuf::from(env!("CARGO_BIN_EXE_scenarios"));
    let rows = audit::catalogue(&subject).expect("the scenarios print their catalogue");
    let machine: Arc<Machine> = Arc::new(machine::probe());
    let options = Arc::new(Options {
        subject,
        filter: String::new(),
        quick: false,
        jobs: 1,
        timeout: Duration::from_secs(30),
        min_length: 6,
        decoys: 8,
        required: Vec::new(),
        seed: Seed::random().expect("random bytes"),
        profile: "test".to_owned(),
        rustc: "test".to_owned(),
        ablation: None,
        attribution: audit::Attribution::Nothing,
        course: audit::Course::default(),
    });
    let tests = rows
        .into_iter()
        .map(|row| {
            let missing = machine::lacks(&machine, &row.needs);
            let (machine, options) = (Arc::clone(&machine), Arc::clone(&options));
            let name = row.name.clone();
            let test = move || {
                let never = AtomicBool::new(false);
                let outcome = audit::row(&row, &machine, &options, &never);
                if outcome.as_expected { Ok(()) } else { Err(Failed::from(describe(&outcome))) }
            };
            let ignored = missing.is_some();
            Trial::test(name, test).with_ignored_flag(ignored).with_kind(missing.unwrap_or_default())
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

fn describe(outcome: &Outcome) -> String {
    let mut text = format!("expected {}, saw {} ({})", outcome.expectation, outcome.verdict, outcome.ended);
    for reason in &outcome.reasons {
        text.push_str(&format!("\n  {reason}"));
    }
    for finding in &outcome.findings {
        text.push_str(&format!(
            "\n  at {}: {} in {} {:?}, secret bytes {}+{}",
            finding.checkpoint,
            finding.rule,
            finding.permissions,
            finding.place,
            finding.secret_offset,
            finding.secret_length
        ));
    }
    text
}
