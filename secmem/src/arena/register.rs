//! Which memory there is beside the pool: protected stacks, and those of their signal handlers.
//!
//! For reports, for [`verify`](crate::verify) and for whoever must know whether one is in use. Behind a lock: no signal handler
//! asks, for no purge overwrites such memory.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Protection, fork};

/// A stretch of memory beside the pool.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// Addresses.
    pub(crate) data: Range<usize>,
    pub(crate) protection: Protection,
    /// Code runs on it.
    running: AtomicBool,
}

impl Stretch {
    /// Whether code runs on it.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }
}

static ALL: Mutex<Vec<Arc<Stretch>>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Arc<Stretch>>> {
    // Nothing is half done where the lock is held and something could panic.
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `f` with all there are; none is given back meanwhile. In a forked child there are none.
pub(crate) fn look<R>(f: impl FnOnce(&[Arc<Stretch>]) -> R) -> R {
    if fork::in_child() {
        return f(&[]); // the lock is the parent's
    }
    f(&lock())
}

/// Whether code runs on any of them.
pub(crate) fn in_use() -> bool {
    look(|all| all.iter().any(|stretch| stretch.is_running()))
}

/// A stretch that is in the register until [`remove`](Self::remove), which comes before its memory is given back.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(super) struct Entry(Arc<Stretch>);

#[cfg(target_arch = "x86_64")]
impl Entry {
    pub(super) fn new(data: Range<usize>, protection: Protection) -> Self {
        let stretch = Arc::new(Stretch { data, protection, running: AtomicBool::new(false) });
        lock().push(Arc::clone(&stretch));
        Self(stretch)
    }

    /// Code begins to run on it, or has ended.
    pub(super) fn set_running(&self, runs: bool) {
        self.0.running.store(runs, Ordering::SeqCst);
    }

    pub(super) fn protection(&self) -> Protection {
        self.0.protection
    }

    /// Takes it out. Not in a forked child, where the register is the parent's.
    pub(super) fn remove(&self) {
        lock().retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}
