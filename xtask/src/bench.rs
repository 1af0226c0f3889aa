//! `cargo xtask bench`: run the benches of the library and the harness.

use xshell::cmd;

use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask bench -- wipe --save-baseline before";

/// What to tell criterion.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for criterion, after `--`
    #[arg(last = true, value_name = "ARGS")]
    criterion: Vec<String>,
}

/// Runs every bench; 0 when all ran. A bench measures and has no opinion, so there is no other verdict.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    let criterion = &options.criterion;
    let any = "*"; // bench targets alone: the libraries' own test harness would refuse criterion's arguments
    let bench =
        cmd!(workspace.sh, "cargo bench --locked --package secmem --package harness --bench {any} -- {criterion...}");
    child::success(bench.into())?;
    Ok(0)
}
