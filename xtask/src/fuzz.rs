//! `cargo xtask fuzz`: run the fuzz targets for a while, each from its seeds.
//!
//! Builds them as cargo-fuzz does, with plain cargo, so that nothing has to be installed by hand beyond a nightly
//! compiler (the sanitizer is unstable) and a C++ compiler (libFuzzer is C++).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xshell::cmd;

use crate::child;
use crate::failure::Failure;
use crate::workspace::{self, Workspace};

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask fuzz core --seconds 300";

/// Coverage that libFuzzer can steer by, and a sanitizer that notices what the oracles do not.
const RUSTFLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Which targets to run, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run these targets alone [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Run each target for this long
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets that were asked for; 0 when none found anything.
///
/// # Errors
///
/// A target found something, or the machine lacks what fuzzing needs.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    let cargo = nightly(&workspace).map_err(Failure::internal)?;
    campaign(&workspace, &cargo, &options.targets, options.seconds)?;
    Ok(0)
}

/// The command that starts a nightly cargo, or what is missing.
pub(crate) fn nightly(workspace: &Workspace) -> Result<Vec<String>, String> {
    let sh = &workspace.sh;
    if cmd!(sh, "c++ --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        return Err("no C++ compiler (c++), which libFuzzer needs".to_owned());
    }
    if cmd!(sh, "rustc --version").quiet().read().is_ok_and(|version| version.contains("nightly")) {
        return Ok(vec!["cargo".to_owned()]);
    }
    let Ok(toolchains) = cmd!(sh, "rustup toolchain list").quiet().ignore_stderr().read() else {
        return Err("no nightly compiler, and no rustup to have one".to_owned());
    };
    let Some(toolchain) = toolchains.split_whitespace().find(|word| word.starts_with("nightly")) else {
        return Err("no nightly toolchain (rustup toolchain install nightly)".to_owned());
    };
    Ok(["rustup", "run", toolchain, "cargo"].map(str::to_owned).into())
}

/// Builds the targets and runs each for so many seconds; the first that finds something ends the campaign.
pub(crate) fn campaign(workspace: &Workspace, cargo: &[String], only: &[String], seconds: u32) -> Result<(), Failure> {
    let home = workspace.root.join("fuzz");
    let place = workspace.target.join("fuzz");
    let mut targets = workspace::executables(&workspace::messages(build(workspace, cargo, &home, &place)?)?)?;
    targets.sort();
    let names: Vec<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Failure::Usage(format!("no fuzz target {unknown:?}; there are: {}", names.join(", "))));
    }

    for (name, program) in targets.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let seeds = home.join("seeds").join(name);
        let (corpus, artifacts) = (place.join("corpus").join(name), home.join("artifacts").join(name));
        for dir in [&corpus, &artifacts] {
            fs::create_dir_all(dir).map_err(|error| Failure::because(format!("creating {}", dir.display()), error))?;
        }
        if !seeds.is_dir() {
            return Err(Failure::internal(format!("{} has no seeds", seeds.display())));
        }
        eprintln!("xtask: fuzzing {name} for {seconds} s");
        let mut fuzz = Command::new(program);
        fuzz.arg(format!("-max_total_time={seconds}"));
        fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
        fuzz.args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
        fuzz.args([&corpus, &seeds]).stdin(Stdio::null());
        child::success(fuzz)?;
    }
    Ok(())
}

/// The command that builds every target, away from the other builds of the workspace.
fn build(workspace: &Workspace, cargo: &[String], home: &Path, place: &Path) -> Result<Command, Failure> {
    let verbose = cmd!(workspace.sh, "rustc --version --verbose").quiet().read()?;
    let host = verbose
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or_else(|| Failure::internal("rustc named no host"))?;
    let manifest: PathBuf = home.join("Cargo.toml");
    let (program, args) = cargo.split_first().ok_or_else(|| Failure::internal("no cargo to build the targets with"))?;
    // With a target named, the flags reach neither build scripts nor macros.
    let mut command: Command = cmd!(
        workspace.sh,
        "{program} {args...} build --locked --release --manifest-path {manifest} --target-dir {place} --target {host}"
    )
    .arg("--message-format=json-render-diagnostics")
    .into();
    // What the cargo that started us says of itself would otherwise hold for the nightly one too.
    command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").env("RUSTFLAGS", RUSTFLAGS);
    Ok(command)
}
