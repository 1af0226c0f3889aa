//! `cargo xtask`: the glue between cargo, the scenarios and `residue`.
//!
//! Each subcommand starts programs and says with its exit code what came out: 0 clean, 1 leak, 2 inconclusive,
//! 64 wrong usage, 70 an error of ours, a panic, or a program that a signal killed. No crate of the workspace is
//! linked here, so that the judge never shares code with the thing that starts it.

mod ablate;
mod audit;
mod bench;
mod check;
mod child;
mod corpus;
mod facts;
mod failure;
mod fuzz;
mod pairs;
mod residues;
mod schedules;
mod traces;
mod workspace;
mod wrapper;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{EXIT_USAGE, Failure};

/// Builds, audits and checks this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = "Example:\n  cargo xtask audit --quick")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the scenarios, run every one, write the report.
    ///
    /// Exits with the verdict: 0 clean, 1 leak, 2 inconclusive.
    #[command(after_help = audit::EXAMPLE)]
    Audit(audit::Options),
    /// Run programs that are known to leak and programs that must not, and print how much of it residue sees.
    ///
    /// Exits 0 when every stable leak was found and nothing in a program that stays clean, 1 otherwise, 2 when no program
    /// could be run.
    #[command(after_help = corpus::EXAMPLE)]
    Corpus(corpus::Options),
    /// Compare what well-known crates leave of a key, as they are and scrubbed: by a search and by a difference of two keys,
    /// under three allocators.
    ///
    /// Exits 0 when every bare half leaks in both ways and every scrubbed one is clean in both, 1 otherwise.
    #[command(after_help = pairs::EXAMPLE)]
    Pairs(pairs::Options),
    /// Take one protection out at a time and see that the audit notices.
    ///
    /// Exits 0 when each ablation turns exactly the rows that name it, 1 otherwise.
    #[command(after_help = ablate::EXAMPLE)]
    Ablate(ablate::Options),
    /// Kill, stop and panic either side of a vault at each step of a call, and by random schedules.
    ///
    /// Exits 0 when all of it came and nothing is left, 1 when there is a residue, a process that lives on or one that hangs, 2 when
    /// something did not come or a planted leak was not seen.
    #[command(after_help = schedules::EXAMPLE)]
    Schedules(schedules::Options),
    /// Everything that a change has to pass: format, lints, tests, leak tests, fuzz smoke, quick audit.
    ///
    /// Stops at the first failure. The audit's exit code is passed on; any other failure is 70.
    #[command(after_help = check::EXAMPLE)]
    Check(check::Options),
    /// Run the fuzz targets for a while, each from its seeds. Needs a nightly compiler.
    #[command(after_help = fuzz::EXAMPLE)]
    Fuzz(fuzz::Options),
    /// Run the benches of the library and the harness, or compare both with their peers.
    #[command(after_help = bench::EXAMPLE)]
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let code = failure::guarded(|| match wrapper::ablation(&name) {
        Some(ablation) => wrapper::run(&ablation, args),
        None => run(std::env::args_os()),
    });
    ExitCode::from(code)
}

/// Does what the arguments ask for and returns the exit code; everything that went wrong has been printed.
fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let task = match Cli::try_parse_from(args) {
        Ok(cli) => cli.task,
        Err(refusal) => {
            // A closed stream leaves the exit code as the only answer.
            let _ = refusal.print();
            return if refusal.use_stderr() { EXIT_USAGE } else { 0 };
        }
    };
    let result = match task {
        Task::Audit(options) => audit::run(&options),
        Task::Corpus(options) => corpus::run(&options),
        Task::Pairs(options) => pairs::run(&options),
        Task::Ablate(options) => ablate::run(&options),
        Task::Schedules(options) => schedules::run(&options),
        Task::Check(options) => check::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => bench::run(&options),
    };
    result.unwrap_or_else(|failure: Failure| {
        eprintln!("xtask: {failure}");
        failure.exit_code()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_subcommand_shows_an_example_of_itself() {
        for task in Cli::command().get_subcommands_mut() {
            let name = task.get_name().to_owned();
            let help = task.render_long_help().to_string();

            assert!(help.contains(&format!("Example:\n  cargo xtask {name}")), "{help}");
        }
    }

    #[test]
    fn help_is_no_error_and_a_bad_flag_is_wrong_usage() {
        let code = |args: &[&str]| run(args.iter().map(OsString::from));

        assert_eq!(code(&["xtask", "--help"]), 0);
        assert_eq!(code(&["xtask", "audit", "--help"]), 0);
        assert_eq!(code(&["xtask"]), EXIT_USAGE);
        assert_eq!(code(&["xtask", "audit", "--no-such-flag"]), EXIT_USAGE);
        assert_eq!(code(&["xtask", "audit", "--jobs", "0"]), EXIT_USAGE);
        assert_eq!(code(&["xtask", "no-such-task"]), EXIT_USAGE);
    }
}
