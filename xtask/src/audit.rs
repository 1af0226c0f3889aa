//! `cargo xtask audit`: build the scenarios, run every one, write the reports.
//!
//! Two programs: the scenarios of the library and its peers, and the pairs that use real crates of cryptography, whose
//! evidence goes into `crypto/` beside the others'.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use xshell::cmd;

use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask audit --filter secmem --out target/secmem-only";

/// The package of the scenarios of the library and its peers.
pub(crate) const SCENARIOS: &str = "scenarios";

/// The package of the pairs that use real crates.
pub(crate) const CRYPTO: &str = "scenarios-crypto";

/// The profile of the scenarios unless another is asked for: optimised, because the optimiser is what removes a wipe.
pub(crate) const SUBJECT_PROFILE: &str = "audit";

/// The profile of the harness: it scans gigabytes, and it is never the subject.
const HARNESS_PROFILE: &str = "release";

/// What to run and where to put the evidence.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run all rows of the library, and of each other holder only a few
    #[arg(long)]
    pub(crate) quick: bool,
    /// Run the rows whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// Write the evidence here, over that of an earlier run [default: target/evidence]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Build the scenarios with this profile
    #[arg(long, value_name = "NAME", default_value = SUBJECT_PROFILE)]
    pub(crate) profile: String,
    /// Run N rows at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Count the run as inconclusive where this cannot be looked at; may be repeated
    #[arg(long, value_name = "ABILITY", value_parser = ["core"])]
    pub(crate) require: Vec<String>,
    /// Read the seed of the canaries from FILE, so that the same ones can be made again
    #[arg(long, value_name = "FILE")]
    pub(crate) seed_file: Option<PathBuf>,
    /// Run one part of the rows alone; `residue merge` puts the parts together
    #[arg(long, value_name = "NUMBER/OF")]
    pub(crate) shard: Option<String>,
    /// Run each row so often, to tell residues that come and go
    #[arg(long, value_name = "TIMES")]
    pub(crate) repeat: Option<u32>,
    /// Have the kernel put memory at the same addresses in every run, and give programs the same random numbers
    #[arg(long)]
    pub(crate) fixed_layout: bool,
    /// Send a signal while the secret is in use, at so many points of each row: best with --filter
    #[arg(long, value_name = "SIGNAL:POINTS")]
    pub(crate) sweep: Option<String>,
}

impl Options {
    /// The quick audit that every change has to pass, its evidence in `out`.
    pub(crate) fn quick(out: PathBuf) -> Self {
        let profile = SUBJECT_PROFILE.to_owned();
        Self {
            quick: true,
            filter: None,
            out: Some(out),
            profile,
            jobs: None,
            require: Vec::new(),
            seed_file: None,
            shard: None,
            repeat: None,
            fixed_layout: false,
            sweep: None,
        }
    }
}

/// Builds, audits, and returns the verdict's exit code.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    workspace.require_profile(&options.profile)?;
    let out = match &options.out {
        Some(out) => absolute(out)?,
        None => workspace.target.join("evidence"),
    };
    claim(&out)?;

    let auditor = Auditor::build(&workspace)?;
    let mut subjects = Vec::new();
    for (package, out) in [(SCENARIOS, out.clone()), (CRYPTO, out.join("crypto"))] {
        let subject = workspace.build(package, &options.profile, None)?;
        if options.wants(&rows(&workspace, &subject)?) {
            subjects.push((subject, out));
        }
    }
    if subjects.is_empty() {
        let filter = options.filter.as_deref().unwrap_or_default();
        return Err(Failure::Usage(format!(
            "no scenario's name contains {filter:?}; `residue list PROGRAM` prints them"
        )));
    }
    let mut verdicts = Vec::new();
    for (subject, out) in &subjects {
        claim(out)?;
        let mut residue = auditor.audit(subject, out, &options.profile);
        options.pass_on(&mut residue)?;
        match child::verdict(residue)? {
            code @ 0..=2 => verdicts.push(code),
            code => return Ok(code), // residue has said why
        }
    }
    Ok(worst(&verdicts))
}

/// The verdict of several: a leak anywhere is one, and what is not decided leaves all undecided.
fn worst(verdicts: &[u8]) -> u8 {
    [1, 2].into_iter().find(|code| verdicts.contains(code)).unwrap_or(0)
}

/// The rows of a subject: name, and bytes of its canary.
pub(crate) fn rows(workspace: &Workspace, subject: &Path) -> Result<BTreeMap<String, u64>, Failure> {
    let listing = cmd!(workspace.sh, "{subject} list").quiet().read()?;
    let rows: Value = serde_json::from_str(&listing).map_err(|error| Failure::because("reading a catalogue", error))?;
    let read = |row: &Value| Some((row["name"].as_str()?.to_owned(), row["canary_len"].as_u64()?));
    let rows = rows.as_array().and_then(|rows| rows.iter().map(read).collect());
    rows.ok_or_else(|| Failure::internal("a catalogue is no array of rows with a name and a length"))
}

impl Options {
    /// Whether any of these rows is asked for.
    fn wants(&self, rows: &BTreeMap<String, u64>) -> bool {
        self.filter.as_ref().is_none_or(|filter| rows.keys().any(|name| name.contains(filter)))
    }

    /// Asks `residue` for what was asked of us.
    fn pass_on(&self, residue: &mut Command) -> Result<(), Failure> {
        residue.args(self.quick.then_some("--quick"));
        if let Some(filter) = &self.filter {
            residue.arg("--filter").arg(filter);
        }
        if let Some(jobs) = self.jobs {
            residue.arg("--jobs").arg(jobs.to_string());
        }
        for ability in &self.require {
            residue.arg("--require").arg(ability);
        }
        residue.args(self.fixed_layout.then_some("--fixed-layout"));
        if let Some(shard) = &self.shard {
            residue.arg("--shard").arg(shard);
        }
        if let Some(sweep) = &self.sweep {
            residue.arg("--sweep").arg(sweep);
        }
        if let Some(repeat) = self.repeat {
            residue.arg("--repeat").arg(repeat.to_string());
        }
        if let Some(seed) = &self.seed_file {
            residue.arg("--seed-file").arg(absolute(seed)?);
        }
        Ok(())
    }
}

/// `residue`, built, and what it must be told about the build of its subjects.
pub(crate) struct Auditor {
    pub(crate) program: PathBuf,
    rustc: String,
}

impl Auditor {
    /// Builds `residue`.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self, Failure> {
        Ok(Self { program: workspace.build("residue", HARNESS_PROFILE, None)?, rustc: workspace.rustc_version()? })
    }

    /// The start of the command that audits `subject`; what was asked for can be added.
    pub(crate) fn audit(&self, subject: &Path, out: &Path, profile: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("audit").arg(subject).arg("--out").arg(out);
        command.args(["--profile", profile, "--rustc", &self.rustc]);
        command
    }
}

/// Sees before anything is built that the evidence can be written.
///
/// `residue` removes what an earlier run of it left there once it knows that it will run. A directory that holds
/// other things and no `run.json` is somebody's, and is refused.
///
/// # Errors
///
/// [`Failure::Usage`] for a directory that is not ours, an internal one where nothing can be written.
pub(crate) fn claim(out: &Path) -> Result<(), Failure> {
    let cannot = |doing: &str, error| Failure::because(format!("{doing} {}", out.display()), error);
    fs::create_dir_all(out).map_err(|error| cannot("creating", error))?;
    let others = fs::read_dir(out).map_err(|error| cannot("listing", error))?.count();
    if others > 0 && !out.join("run.json").is_file() {
        let out = out.display();
        return Err(Failure::Usage(format!("{out} holds {others} files and no run.json: name an empty place")));
    }
    let probe = out.join("report.probe");
    fs::write(&probe, "").map_err(|error| cannot("writing to", error))?;
    fs::remove_file(&probe).map_err(|error| cannot("writing to", error))
}

/// A path as the user meant it: from where they stand, not from the workspace's root.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::because(format!("finding {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_in_one_of_two_programs_is_a_leak_and_doubt_in_one_is_doubt() {
        assert_eq!([worst(&[0, 0]), worst(&[0, 2]), worst(&[2, 1]), worst(&[1, 0])], [0, 2, 1, 1]);
    }

    #[test]
    fn an_empty_place_and_one_of_ours_are_taken_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();

        claim(dir.path()).unwrap();
        fs::write(dir.path().join("run.json"), "old").unwrap();
        fs::write(dir.path().join("notes.txt"), "old").unwrap();
        claim(dir.path()).unwrap();

        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_of_somebody_elses_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["report.tex", "thesis.txt"] {
            fs::write(dir.path().join(name), "precious").unwrap();
        }

        let refusal = claim(dir.path()).unwrap_err();

        assert!(matches!(refusal, Failure::Usage(_)), "{refusal}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_internal_error() {
        let file = tempfile::NamedTempFile::new().unwrap();

        for out in [file.path().join("evidence"), PathBuf::from("/proc/evidence")] {
            let failure = claim(&out).unwrap_err();

            assert!(matches!(failure, Failure::Internal { .. }), "{failure}");
        }
    }
}
