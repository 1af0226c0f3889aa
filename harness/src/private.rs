//! Private directories for targets: a kernel core lands there, so they lie in memory where that can be had.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

/// What their names begin with; a process number and random letters follow.
const PREFIX: &str = "residue-target-";

/// Only their owner may enter.
const MODE: u32 = 0o700;

/// A directory that only we can enter, gone when dropped. Locked while it lives, so that no other run of ours takes it
/// for one that a killed run left behind.
#[derive(Debug)]
pub(crate) struct Private {
    // Before the lock, so that it is removed while it is still locked.
    dir: TempDir,
    _lock: Flock<File>,
}

impl Private {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes one.
///
/// # Errors
///
/// When neither `/dev/shm` nor the temporary directory takes one.
pub(crate) fn directory() -> io::Result<Private> {
    let make = |parent: &Path| {
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(std::fs::Permissions::from_mode(MODE))
            .tempdir_in(parent)?;
        let lock = lock(dir.path())?;
        Ok(Private { dir, _lock: lock })
    };
    make(Path::new("/dev/shm")).or_else(|_: io::Error| make(&std::env::temp_dir()))
}

/// Removes what killed runs of ours left behind: SIGKILL leaves no time to tidy up.
pub(crate) fn sweep() {
    for parent in [PathBuf::from("/dev/shm"), std::env::temp_dir()] {
        sweep_in(&parent);
    }
}

fn sweep_in(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_left_behind(&path) && lock(&path).is_ok() {
            let _ = std::fs::remove_dir_all(&path); // it stays for the next run, or for its owner
        }
    }
}

/// Whether a directory is one of ours, by name, owner and mode, whose process is gone. The lock has the last word: a
/// number can be alive in another namespace.
fn is_left_behind(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    let Some((process, letters)) = name.and_then(|rest| rest.split_once('-')) else { return false };
    let ours = path.symlink_metadata().is_ok_and(|meta| {
        meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o777 == MODE
    });
    ours && letters.len() == 6
        && letters.bytes().all(|letter| letter.is_ascii_alphanumeric())
        && process.parse::<u32>().is_ok_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

fn lock(dir: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(dir)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_ours_alone_and_goes_when_dropped() {
        let dir = directory().unwrap();
        let path = dir.path().to_owned();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_a_killed_run_of_ours_left_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let left = make("residue-target-4194305-aB3dE5", 0o700); // above the highest number that Linux gives
        let locked = make("residue-target-4194305-aB3dE6", 0o700);
        let _held = lock(&locked).unwrap();
        let others = [
            make("residue-4194305-thesis", 0o700),
            make("residue-target-4194305-notes", 0o700),
            make("residue-target-4194305-aB3dE7", 0o755),
            make(&format!("residue-target-{}-aB3dE8", std::process::id()), 0o700),
        ];

        sweep_in(parent.path());

        assert!(!left.exists());
        assert!(locked.exists());
        assert!(others.iter().all(|path| path.exists()));
    }
}
