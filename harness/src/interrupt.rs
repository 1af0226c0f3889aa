//! What keeps needles from outliving us: Ctrl-C as a flag, so that guards run; no core of ours, no page of ours in swap.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Sees that no core of this program is written: it would hold every needle. Targets get the hard limit back.
///
/// A limit of one byte keeps a core from files and from pipe handlers alike; with 0 the kernel still starts a handler
/// (core(5), *Piping core dumps to a program*; measured on Linux 6.18).
///
/// # Errors
///
/// When the limit cannot be set.
pub fn no_core() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    let lowered = hard.min(1);
    setrlimit(Resource::RLIMIT_CORE, lowered, hard)?;
    let _ = CORE_LIMIT.set((lowered, soft)); // a second call finds what the first has set
    Ok(())
}

/// Locks all memory of this program against swap, now and later, where that cannot make later allocations fail: needles,
/// what is made of them and what is read of targets. Says whether that was done; if not, runs say so too. Targets inherit
/// nothing of it.
///
/// Success proves that no limit holds only where there is no limit or the memory is larger than it: without the privilege
/// the call would succeed within the limit, and the next allocation beyond it would fail.
///
/// # Source
///
/// mlockall(2), *MCL_ONFAULT*: pages are locked as they come, so that nothing is read in or allocated by it.
pub fn lock_memory() -> bool {
    let now = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    let flags = now | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    let size = procfs::process::Process::myself().and_then(|process| process.stat()).map_or(0, |stat| stat.vsize);
    let locked = (limit == RLIM_INFINITY || size > limit) && mlockall(flags).is_ok();
    let _ = LOCKED.set(locked); // a second call finds what the first has set
    locked
}

/// Whether [`lock_memory`] was asked for and did not lock.
pub(crate) fn is_unlocked() -> bool {
    LOCKED.get() == Some(&false)
}

static LOCKED: OnceLock<bool> = OnceLock::new();

/// The limit that [`no_core`] set, and the one that was there before.
static CORE_LIMIT: OnceLock<(u64, u64)> = OnceLock::new();

/// The core limit that a program of the user's would have where one that we started has this one: it inherits ours.
pub(crate) fn users_core_limit(seen: u64) -> u64 {
    CORE_LIMIT.get().map_or(seen, |limits| restored(*limits, seen))
}

fn restored((lowered, before): (u64, u64), seen: u64) -> u64 {
    if seen == lowered { before } else { seen }
}

/// What ends us.
const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

/// A flag that SIGINT, SIGTERM, SIGHUP or SIGQUIT sets. A second one of them ends the program at once, but for files with
/// a secret that it made where the user works: those go first. `PTRACE_O_EXITKILL` then ends the targets, and the next run
/// sweeps what is left of private directories.
///
/// # Errors
///
/// When a handler cannot be installed, or the thread that waits for the second signal cannot be started.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new(SIGNALS)?;
    for signal in SIGNALS {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
        if signals.forever().nth(1).is_some() {
            let _passing = remove_passing(); // held, so that no more are made
            signal_hook::low_level::exit(i32::from(findings::EXIT_INTERNAL));
        }
    })?;
    Ok(flag)
}

/// Files of ours that must not outlive us.
static PASSING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn passing() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PASSING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_passing() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    let passing = passing();
    for path in passing.iter() {
        let _ = std::fs::remove_file(path); // the program may have removed it
    }
    passing
}

/// A file of ours that goes when this is dropped, or when a second signal ends the program.
#[derive(Debug)]
pub(crate) struct Passing(PathBuf);

impl Passing {
    /// Makes a new file that its owner alone can read.
    ///
    /// # Errors
    ///
    /// When there is one already, or none can be made there.
    pub(crate) fn create(path: &Path) -> io::Result<(File, Self)> {
        let path = std::path::absolute(path)?;
        let mut passing = passing(); // a signal that comes now waits until the file is known
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        passing.insert(path.clone());
        Ok((file, Self(path)))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut passing = passing();
        if passing.remove(&self.0) {
            let _ = std::fs::remove_file(&self.0); // the program may have removed it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_file_goes_with_its_guard_and_with_the_last_signal_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, theirs] = ["first", "second", "theirs"].map(|name| dir.path().join(name));
        std::fs::write(&theirs, "").unwrap();

        let (_, dropped) = Passing::create(&first).unwrap();
        let (_, _kept) = Passing::create(&second).unwrap();
        assert!(Passing::create(&theirs).is_err());
        assert!(first.exists() && second.exists());
        drop(dropped);
        assert!(!first.exists() && second.exists());
        drop(remove_passing());

        assert!(!second.exists() && theirs.exists());
    }

    #[test]
    fn a_limit_that_a_program_has_from_us_is_told_as_the_users() {
        let (lowered, before) = (1, RLIM_INFINITY);

        assert_eq!(restored((lowered, before), 1), before);
        assert_eq!(restored((lowered, before), 0), 0, "its own");
    }
}
