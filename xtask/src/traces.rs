//! Whether a run leaves its own secrets in what it wrote: `residue scan` over the evidence and the places in `target/` where
//! it builds and runs.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::audit::{self, Auditor, Options};
use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Bytes of a secret that are hardly chance. In the 1.3 GB that a build wrote, `residue scan --min-length 5` told 73 pieces of 148
/// canaries that had never been there: by that, one of six bytes comes every four to ten runs, one of eight in more than a hundred
/// thousand.
const SHORTEST: &str = "8";

/// Audits from a known seed and searches `target/` for every canary of that run; then searches it again for a secret
/// that was written there on purpose. The first search must find nothing, and the second must find that.
///
/// Returns the audit's verdict, as the evidence that is searched is that audit's.
///
/// # Errors
///
/// A canary stands in `target/`, or the search missed what was planted, or a program did not run.
pub(crate) fn run(workspace: &Workspace, evidence: &Path) -> Result<u8, Failure> {
    // Not below target/: the secrets themselves are not what is searched for.
    let scratch = tempfile::tempdir().map_err(|error| Failure::because("making a directory", error))?;
    let planted = random()?;
    let seed = scratch.path().join("seed.hex");
    let secret = scratch.path().join("secret");
    write(&seed, hex(&random()?).as_bytes())?;
    write(&secret, &planted)?;

    let mut options = Options::quick(evidence.to_owned());
    options.seed_file = Some(seed.clone());
    let verdict = audit::run(&options)?;

    let auditor = Auditor::build(workspace)?;
    let subjects = [audit::SCENARIOS, audit::CRYPTO].map(|package| workspace.build(package, &options.profile, None));
    // Not what fuzzing gathers: cores that are broken on purpose, of which no search can say that they are clean.
    let written = [evidence.to_owned(), workspace.target.join("release"), workspace.target.join(&options.profile)];
    let search = |what: &str, args: &[&Path], expected: u8| {
        let mut scan = auditor.scan(&written);
        scan.args(args);
        match child::verdict(scan)? {
            code if code == expected => Ok(()),
            code => Err(Failure::internal(format!("the search of target/ for {what}: code {code}, not {expected}"))),
        }
    };
    for subject in subjects {
        search("the run's canaries", &[Path::new("--seed-file"), &seed, Path::new("--subject"), &subject?], 0)?;
    }
    let copy = evidence.join("planted.txt");
    write(&copy, format!("id=7;key={};\n", hex(&planted)).as_bytes())?;
    let found = search("what was planted there", &[Path::new("--secret-file"), &secret], 1);
    fs::remove_file(&copy).map_err(|error| Failure::because(format!("removing {}", copy.display()), error))?;
    found.map(|()| verdict)
}

impl Auditor {
    /// The start of the command that searches `paths`.
    fn scan(&self, paths: &[PathBuf]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("scan").arg("--min-length").arg(SHORTEST).args(paths);
        command
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| Failure::because(format!("writing {}", path.display()), error))
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::because("reading /dev/urandom", error))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
