//! The process that waits: starts the test program again for one check, looks, and says what came out.

use std::ffi::OsString;
use std::sync::atomic::AtomicBool;

use findings::{Class, Outcome, Run, Verdict};
use harness::chain;
use harness::program::{self, Feed, Options, Source};
use harness::progress::Nobody;

use crate::Check;
use crate::child::{self, Task};

/// Makes one check; what to fail with unless it is clean.
pub(crate) fn check(check: &Check, name: &str, number: u32) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| format!("find the test program: {}", chain(&error)))?;
    let arguments = [name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"];
    let program = std::iter::once(program.into_os_string()).chain(arguments.map(OsString::from)).collect();
    let feed = Feed::Descriptor(child::DESCRIPTOR);
    let mut options = Options {
        text: check.text,
        follow: true,
        timeout: check.timeout,
        min_length: check.shortest,
        variables: vec![(child::VARIABLE.into(), Task::text(number, check.length).into())],
        digest: false, // test programs are large, and nobody compares this run with another
        // Whoever writes a register is found by single steps, which takes minutes: not for what is left out anyway.
        attribute: check.writers && check.registers,
        // What the test's harness has to say of one test goes nowhere.
        ..Options::new(program, Source::Random(check.length), feed)
    };
    let mut run = look(check, name, &options)?;
    if run.verdict == Verdict::Leak && check.writers && !check.registers {
        options.attribute = true;
        let named = look(check, name, &options)?;
        if named.verdict == Verdict::Leak {
            run = named; // else it comes and goes, and the first run has seen it
        }
    }
    if run.verdict == Verdict::Clean {
        return Ok(());
    }
    let mut text = reports::brief(&run, false);
    if run.findings().count() > 0 && run.findings().all(|finding| finding.rule.class == Class::Register) {
        text.push_str("  It stands in registers alone: Check::without_registers leaves those out.\n");
    }
    Err(text)
}

/// Runs the test program once for this check. What keeps its end from being the one to judge is an error.
fn look(check: &Check, name: &str, options: &Options) -> Result<Run, String> {
    let mut run = program::run(options, &AtomicBool::new(false), &Nobody)
        .map_err(|error| format!("{name}: {}", chain(&error)))?;
    judge(&run, name)?;
    for outcome in &mut run.outcomes {
        name.clone_into(&mut outcome.scenario); // a test is known by its name, not by that of its program
        if outcome.ended == format!("exit {}", child::RETURNED) {
            outcome.ended.push_str(" of ours, after the closure had returned");
        }
        if !check.registers {
            leave_out_registers(outcome);
        }
    }
    run.verdict = run.judge();
    Ok(run)
}

fn leave_out_registers(outcome: &mut Outcome) {
    outcome.findings.retain(|finding| finding.rule.class != Class::Register);
    // A leak outweighs doubts: without it they count again.
    if outcome.verdict == Verdict::Leak && outcome.findings.is_empty() {
        outcome.verdict = if outcome.reasons.is_empty() { Verdict::Clean } else { Verdict::Inconclusive };
        outcome.as_expected = outcome.verdict == Verdict::Clean;
    }
}

/// What keeps the end of the process from being the end that was to be judged.
fn judge(run: &Run, name: &str) -> Result<(), String> {
    let Some(outcome) = run.outcomes.first() else { return Ok(()) };
    let status = |status: i32| outcome.ended == format!("exit {status}");
    let planted = outcome.controls.planted > 0;
    if status(child::RETURNED) || (planted && outcome.ended.starts_with("killed")) {
        return Ok(());
    }
    Err(if status(child::PANICKED) {
        format!("{name}: inconclusive: the closure panicked, at the place that stands above")
    } else if status(child::NOT_PLANTED) {
        format!("{name}: inconclusive: the secret could not be read in the test's second process")
    } else if planted {
        format!("{name}: inconclusive: the closure did not return, its process ended with {}", outcome.ended)
    } else {
        format!(
            "{name}: inconclusive: the test program was started again for this test and ended with {} without coming to \
             this check. Does its harness know the test by this name? Check::test tells another{}",
            outcome.ended,
            outcome.reasons.iter().map(|why| format!("\n  {why}")).collect::<String>()
        )
    })
}
