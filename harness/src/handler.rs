//! Programs to which the kernel pipes cores, and where they store them.
//!
//! The machine's settings are read and never changed.
//!
//! # Source
//!
//! core(5), *Piping core dumps to a program*; systemd-coredump(8) and coredump.c for its names; apport's fileutils.py for
//! its.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Where the kernel is told what to do with cores.
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// How long a handler may take to store a core after the process is gone: it works behind the kernel's back.
const PATIENCE: Duration = Duration::from_secs(2);

/// A program that gets cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// systemd-coredump.
    Systemd,
    /// apport.
    Apport,
    /// Any other, by its name.
    Other(String),
}

impl Handler {
    /// The one that this machine's kernel pipes cores to, if it does.
    pub(crate) fn of_this_machine() -> Option<Self> {
        Self::of_pattern(&std::fs::read_to_string(PATTERN).ok()?)
    }

    pub(crate) fn of_pattern(pattern: &str) -> Option<Self> {
        let program = pattern.trim().strip_prefix('|')?.split_whitespace().next().unwrap_or_default();
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(match name.as_str() {
            "systemd-coredump" => Self::Systemd,
            "apport" => Self::Apport,
            _ => Self::Other(name),
        })
    }

    fn store(&self) -> Option<&'static Path> {
        match self {
            Self::Systemd => Some(Path::new("/var/lib/systemd/coredump")),
            Self::Apport => Some(Path::new("/var/crash")),
            Self::Other(_) => None,
        }
    }

    /// What it is and where its cores lie, in words.
    pub(crate) fn describe(&self) -> String {
        let name = match self {
            Self::Systemd => "systemd-coredump",
            Self::Apport => "apport",
            Self::Other(name) => {
                return format!("cores go to the program {name:?}, and what it does with them is unknown");
            }
        };
        let store = self.store().unwrap_or(Path::new("/"));
        let readable = if std::fs::read_dir(store).is_ok() { "can be listed" } else { "cannot be listed" };
        format!("cores go to {name}, which stores them in {}: {readable} here", store.display())
    }

    /// The core of a process that it stored since then, once it has.
    pub(crate) fn stored(&self, program: &Path, pid: i32, since: SystemTime) -> Option<PathBuf> {
        let store = self.store()?;
        std::fs::read_dir(store).ok()?;
        let patience = Instant::now() + PATIENCE;
        loop {
            let found = self.find(store, program, pid, since);
            if found.is_some() || Instant::now() > patience {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find(&self, store: &Path, program: &Path, pid: i32, since: SystemTime) -> Option<PathBuf> {
        let new = |path: &PathBuf| {
            path.symlink_metadata().is_ok_and(|meta| {
                meta.is_file() && meta.modified().is_ok_and(|time| time + Duration::from_secs(1) > since)
            })
        };
        let is_its = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| match self {
                Self::Systemd => systemd_process(name) == Some(pid),
                Self::Apport => name == apport_name(program),
                Self::Other(_) => false,
            })
        };
        let entries = std::fs::read_dir(store).ok()?.flatten().map(|entry| entry.path());
        entries.filter(is_its).find(new)
    }
}

/// The process in `core.COMMAND.USER.BOOT.PROCESS.TIME`, with or without an ending that tells the compression.
fn systemd_process(name: &str) -> Option<i32> {
    let name = name.strip_prefix("core.")?;
    let name = [".zst", ".lz4", ".xz"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let mut parts = name.rsplit('.');
    let (_time, process) = (parts.next()?, parts.next()?);
    process.parse().ok()
}

/// `PATH.USER.crash`, with the slashes of the program's path written as underscores.
fn apport_name(program: &Path) -> String {
    let path = program.display().to_string().replace('/', "_");
    format!("{path}.{}.crash", nix::unistd::geteuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_its_handler() {
        let handler = |pattern: &str| Handler::of_pattern(pattern);

        assert_eq!(handler("|/usr/lib/systemd/systemd-coredump %P %u %g"), Some(Handler::Systemd));
        assert_eq!(handler("|/usr/share/apport/apport -p%p -s%s\n"), Some(Handler::Apport));
        assert_eq!(handler("|/opt/catch"), Some(Handler::Other("catch".to_owned())));
        assert_eq!((handler("core"), handler("/var/cores/%p")), (None, None));
    }

    #[test]
    fn the_core_of_a_process_is_told_by_its_name_and_its_age() {
        let store = tempfile::tempdir().unwrap();
        let boot = "0123456789abcdef0123456789abcdef";
        let systemd = store.path().join(format!("core.my\\x2eprogram.1000.{boot}.4321.1700000000000000.zst"));
        let apport = store.path().join(apport_name(Path::new("/usr/bin/program")));
        for path in [&systemd, &apport] {
            std::fs::write(path, "").unwrap();
        }
        let find = |handler: Handler, pid, since| handler.find(store.path(), Path::new("/usr/bin/program"), pid, since);
        let before = SystemTime::now() - Duration::from_secs(60);
        let after = SystemTime::now() + Duration::from_secs(60);

        assert_eq!(find(Handler::Systemd, 4321, before), Some(systemd));
        assert_eq!(find(Handler::Systemd, 4322, before), None);
        assert_eq!(find(Handler::Systemd, 4321, after), None);
        assert_eq!(find(Handler::Apport, 4321, before), Some(apport));
    }
}
