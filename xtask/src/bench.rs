//! `cargo xtask bench`: run the benches of the library and the harness, or the comparison with their peers.

use xshell::cmd;

use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str =
    "Example:\n  cargo xtask bench -- wipe --save-baseline before\n  cargo xtask bench --peers --write";

/// What is compared with its peers, and where the figures stand.
const FIGURES: [(Part, &str); 2] =
    [(Part::Harness, "harness/benches/README.md"), (Part::Library, "secmem/benches/README.md")];

/// What has peers.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The search and the reading of memory
    Harness,
    /// Wiping, comparing, making, sealing, scrubbing
    Library,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Compare with others that do the like, all in one run, and with what the machine allows
    #[arg(long, conflicts_with = "criterion")]
    peers: bool,
    /// Compare this part alone [default: both]
    #[arg(long, requires = "peers", value_name = "PART")]
    part: Option<Part>,
    /// Write the comparison's tables to harness/benches/README.md and secmem/benches/README.md too
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
        return peers(&workspace, options);
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
fn peers(workspace: &Workspace, options: &Options) -> Result<u8, Failure> {
    let manifest = workspace.root.join("scenarios/peers/Cargo.toml");
    let place = workspace.target.join("peers");
    let sh = &workspace.sh;
    for (part, figures) in FIGURES.into_iter().filter(|(part, _)| options.part.is_none_or(|only| only == *part)) {
        let word = match part {
            Part::Harness => "harness",
            Part::Library => "library",
        };
        let file = options.write.then(|| workspace.root.join(figures));
        let run = cmd!(
            sh,
            "cargo run --locked --release --manifest-path {manifest} --target-dir {place} -- {word} {file...}"
        );
        child::success(run.into())?;
    }
    Ok(0)
}
