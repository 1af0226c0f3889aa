//! `cargo xtask bench`: run the benches of the library and the harness, or the comparison with their peers.

use std::ffi::OsString;

use xshell::cmd;

use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str =
    "Example:\n  cargo xtask bench -- wipe --save-baseline before\n  cargo xtask bench --peers --write";

/// Where the figures of the comparison stand.
const FIGURES: &str = "harness/benches/README.md";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Compare with others that do the like, all in one run, and with what the machine allows
    #[arg(long, conflicts_with = "criterion")]
    peers: bool,
    /// Write the comparison's tables to harness/benches/README.md too
    #[arg(long, requires = "peers")]
    write: bool,
    /// Arguments for criterion, after `--`
    #[arg(last = true, value_name = "ARGS")]
    criterion: Vec<String>,
}

/// Runs every bench; 0 when all ran. A bench measures and has no opinion, so there is no other verdict.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    if options.peers {
        return peers(&workspace, options.write);
    }
    let criterion = &options.criterion;
    let any = "*"; // bench targets alone: the libraries' own test harness would refuse criterion's arguments
    let bench =
        cmd!(workspace.sh, "cargo bench --locked --package secmem --package harness --bench {any} -- {criterion...}");
    child::success(bench.into())?;
    Ok(0)
}

/// Builds the peers' workspace, away from the other builds, and runs what it builds. What the machine lacks is told in
/// the tables.
fn peers(workspace: &Workspace, write: bool) -> Result<u8, Failure> {
    let manifest = workspace.root.join("scenarios/peers/Cargo.toml");
    let place = workspace.target.join("peers");
    let figures = workspace.root.join(FIGURES);
    let args: Vec<OsString> = if write { vec!["--write".into(), figures.into()] } else { Vec::new() };
    let sh = &workspace.sh;
    let run = cmd!(sh, "cargo run --locked --release --manifest-path {manifest} --target-dir {place} -- {args...}");
    child::success(run.into())?;
    Ok(0)
}
