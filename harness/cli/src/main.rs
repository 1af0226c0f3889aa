//! `residue`: does my program leave this key in memory?
//!
//! Exit codes: 0 clean, 1 leak, 2 inconclusive, 64 wrong usage, 70 an error of our own.

mod args;
mod audit;
mod baseline;
mod diff;
mod dump;
mod explain;
mod output;
mod project;
mod run;
mod scan;
mod secret;

use std::process::ExitCode;

use clap::Parser;
use findings::{EXIT_INTERNAL, EXIT_USAGE, Verdict};
use harness::{chain, interrupt};

use args::{Args, Command};

/// Why a command ended without a verdict.
enum Failure {
    /// What was asked for makes no sense; the text says what would.
    Usage(String),
    /// Something of ours went wrong.
    Internal(String),
}

impl Failure {
    /// An error of our own, with its causes.
    fn internal(what: &str, error: &dyn std::error::Error) -> Self {
        Self::Internal(format!("{what}: {}", chain(error)))
    }
}

fn main() -> ExitCode {
    // A panic's own exit code, 101, is none of ours. The default hook has printed the message by then.
    match std::panic::catch_unwind(real_main) {
        Ok(code) => code,
        Err(_) => ExitCode::from(EXIT_INTERNAL),
    }
}

fn real_main() -> ExitCode {
    if let Err(error) = interrupt::no_core() {
        output::complain(&format!("forbid cores of this program: {error}"));
        return ExitCode::from(EXIT_INTERNAL);
    }
    interrupt::lock_memory(); // where it cannot be done the run says so
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if wrong { EXIT_USAGE } else { Verdict::Clean.exit_code() });
        }
    };
    let done = match args.command {
        Command::Audit(args) => audit::audit(&args),
        Command::Baseline(args) => baseline::baseline(&args),
        Command::Merge(args) => output::merge(&args),
        Command::Report(args) => output::report(&args),
        Command::Core(args) => dump::core(&args),
        Command::Scan(args) => scan::scan(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Run(args) => run::run(*args),
        Command::Diff(args) => diff::diff(&args),
        Command::List(args) => audit::list(&args),
        Command::Doctor => audit::doctor(),
        Command::Panic => panic!("asked to"),
    };
    match done {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(Failure::Usage(why)) => {
            output::complain(&why);
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Internal(why)) => {
            output::complain(&why);
            ExitCode::from(EXIT_INTERNAL)
        }
    }
}
