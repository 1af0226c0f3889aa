//! `cargo xtask corpus`: how much of known leaks does residue see, and does it see any where there are none?
//!
//! The programs stand in `harness/corpus/victims.toml`; the package `corpus` runs and compares. Here both are built.

use std::path::PathBuf;
use std::process::Command;

use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask corpus --filter python";

/// The profile of both: they search gigabytes.
const PROFILE: &str = "release";

/// Which victims to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the victims whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run N victims at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Print the victims and what has to be seen of them, and run none
    #[arg(long)]
    list: bool,
    /// Write what came of each victim to FILE too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds both, runs the corpus, and returns its exit code.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    let residue = workspace.build("residue", PROFILE, None)?;
    let mut corpus = Command::new(workspace.build("corpus", PROFILE, None)?);
    // Built by the corpus itself, as that takes a C compiler and crates that nothing else here needs.
    corpus.arg(residue).arg("--build").arg(workspace.target.join("corpus-crates"));
    if let Some(json) = &options.json {
        corpus.arg("--json").arg(json);
    }
    if let Some(filter) = &options.filter {
        corpus.arg("--filter").arg(filter);
    }
    if let Some(jobs) = options.jobs {
        corpus.arg("--jobs").arg(jobs.to_string());
    }
    corpus.args(options.list.then_some("--list"));
    child::verdict(corpus)
}
