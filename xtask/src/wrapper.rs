//! The compiler of an ablated build: this program, under a name of its own for each ablation.
//!
//! Cargo starts `RUSTC_WORKSPACE_WRAPPER` in place of rustc for the packages of the workspace alone, and keeps what
//! each such path builds apart from the rest. So an ablation rebuilds our crates and nothing else, and the
//! unablated build stays as it was. Neither a feature (cargo unifies them) nor a variable that the library reads
//! could do that.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{EXIT_INTERNAL, Failure};

const PREFIX: &str = "rustc-without-";

/// The ablation that this program was started for, if its name says so.
pub(crate) fn ablation(program: &OsStr) -> Option<String> {
    let name = Path::new(program).file_name()?.to_str()?;
    name.strip_prefix(PREFIX).map(str::to_owned)
}

/// Becomes rustc with the ablation's cfg added. Cargo passes rustc's path first, then its arguments.
///
/// Returns only when rustc could not be started.
pub(crate) fn run(ablation: &str, mut args: impl Iterator<Item = OsString>) -> u8 {
    let rustc = args.next().unwrap_or_else(|| "rustc".into());
    let error = Command::new(&rustc).args(args).arg("--cfg").arg(format!("secmem_ablate={ablation:?}")).exec();
    eprintln!("xtask: starting {}: {error}", rustc.display());
    EXIT_INTERNAL
}

/// This program's file as the kernel holds it: a build that ran meanwhile may have put another in its place, and
/// then the path that it was started by leads nowhere (proc_pid_exe(5)).
const THIS: &str = "/proc/self/exe";

/// Puts a copy of this program into `dir` under the name that makes it the ablation's compiler.
pub(crate) fn install(dir: &Path, ablation: &str) -> Result<PathBuf, Failure> {
    let wrapper = dir.join(format!("{PREFIX}{ablation}"));
    let doing = || format!("copying this program to {}", wrapper.display());
    fs::create_dir_all(dir).map_err(|error| Failure::because(doing(), error))?;
    fs::copy(THIS, &wrapper).map_err(|error| Failure::because(doing(), error))?;
    Ok(wrapper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_which_ablation_is_meant() {
        let read = |name: &str| ablation(OsStr::new(name));

        assert_eq!(read("target/ablate/rustc-without-purge-on-signal").as_deref(), Some("purge-on-signal"));
        assert_eq!(read("target/debug/xtask"), None);
    }

    #[test]
    fn a_program_that_was_replaced_while_it_runs_still_copies_itself() {
        const DIR: &str = "XTASK_TEST_DIR";
        if let Some(dir) = std::env::var_os(DIR) {
            let this = std::env::current_exe().expect("the path of this copy");
            fs::remove_file(this).expect("removing this copy");
            install(Path::new(&dir), "wipe").expect("copying a program whose file is gone");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let copy = dir.path().join("replaced");
        // Not by our own descriptor: a child that another test forks meanwhile would inherit it, open for writing, and
        // nobody can execute a file that somebody may write (ETXTBSY, execve(2)).
        let tests = format!("/proc/{}/exe", std::process::id());
        assert!(Command::new("cp").arg(tests).arg(&copy).status().expect("cp").success());

        let test = "wrapper::tests::a_program_that_was_replaced_while_it_runs_still_copies_itself";
        let output = Command::new(&copy).args(["--exact", test]).env(DIR, dir.path()).output().expect("the copy");

        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let wrapper = dir.path().join("rustc-without-wipe");
        assert_eq!(fs::read(wrapper).expect("the wrapper").len(), fs::read(THIS).expect("the tests").len());
    }
}
