//! Private directories for targets: a kernel core lands there, so they lie in memory where that can be had.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

const PREFIX: &str = "residue-";

/// A directory that only we can enter, gone when dropped.
///
/// # Errors
///
/// When neither `/dev/shm` nor the temporary directory takes one.
pub(crate) fn directory() -> io::Result<TempDir> {
    let make = |parent: &Path| {
        tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
    };
    make(Path::new("/dev/shm")).or_else(|_| make(&std::env::temp_dir()))
}

/// Removes what killed runs of ours left behind: SIGKILL leaves no time to tidy up.
pub(crate) fn sweep() {
    for parent in [PathBuf::from("/dev/shm"), std::env::temp_dir()] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
            let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
            if !Path::new(&format!("/proc/{owner}")).exists() {
                let _ = std::fs::remove_dir_all(entry.path()); // another user's is not ours to remove
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_ours_alone_and_goes_when_dropped() {
        let dir = directory().unwrap();
        let path = dir.path().to_owned();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }
}
