//! Memory that nobody can touch between accesses: `PROT_NONE`, opened for as long as somebody is within.
//!
//! Those within are counted, readers and writers apart, so one who leaves does not close it on another; two system calls
//! serve however many come and go in between. Only a change of what is allowed makes a call.
//!
//! A forced purge takes no lock and must find the memory writable. It counts itself first and then opens the memory; a
//! change of ours that begins later sees the count and leaves the memory open, and one that has begun is waited for.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::sys::{self, Call};

/// What somebody wants to do within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
}

#[derive(Debug, Default)]
struct Within {
    readers: usize,
    writers: usize,
}

impl Within {
    fn count(&mut self, need: Need) -> &mut usize {
        match need {
            Need::Read => &mut self.readers,
            Need::Write => &mut self.writers,
        }
    }

    fn protection(&self) -> i32 {
        match (self.readers, self.writers) {
            (0, 0) if cfg!(not(secmem_ablate = "reseal")) => libc::PROT_NONE,
            (_, 0) => libc::PROT_READ,
            _ => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// Who is within an arena, and who changes what is allowed there.
#[derive(Debug, Default)]
pub(super) struct Gate {
    within: Mutex<Within>,
    /// What tells the thread that is changing the protection from others; 0 while nobody is.
    changer: AtomicUsize,
    /// The memory could not be opened to be overwritten: what stands there stays, and nobody may get it.
    stuck: AtomicBool,
}

thread_local! {
    static ME: Cell<u8> = const { Cell::new(0) };
}

/// A number that no other living thread has, and that is not 0. Async-signal-safe: an address.
fn me() -> usize {
    ME.try_with(|me| std::ptr::from_ref(me).addr()).unwrap_or(1)
}

/// Turns of waiting for another thread's change, after which a purge goes on: that thread may be stopped for good.
const PATIENCE: u32 = 1 << 20;

impl Gate {
    /// Lets somebody in. `purging` says whether a forced purge runs.
    pub(super) fn enter(
        &self,
        at: NonNull<u8>,
        len: usize,
        need: Need,
        purging: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let mut within = self.lock();
        let before = within.protection();
        *within.count(need) += 1;
        let changed = self.change(before, &within, at, len, purging);
        if changed.is_err() {
            *within.count(need) -= 1;
        }
        changed
    }

    /// Lets somebody out, and closes behind the last.
    pub(super) fn leave(
        &self,
        at: NonNull<u8>,
        len: usize,
        need: Need,
        purging: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let mut within = self.lock();
        let before = within.protection();
        *within.count(need) -= 1;
        self.change(before, &within, at, len, purging)
    }

    /// Closes memory that is new.
    pub(super) fn shut(&self, at: NonNull<u8>, len: usize, purging: impl Fn() -> bool) -> Result<(), Error> {
        let within = self.lock();
        self.change(libc::PROT_READ | libc::PROT_WRITE, &within, at, len, purging)
    }

    fn change(
        &self,
        before: i32,
        within: &Within,
        at: NonNull<u8>,
        len: usize,
        purging: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let now = within.protection();
        if now == before {
            return Ok(());
        }
        self.changer.store(me(), Ordering::SeqCst);
        let allowed = if purging() { libc::PROT_READ | libc::PROT_WRITE } else { now };
        // SAFETY: the range is an arena's, and shown; whoever is within is counted, and what they need is allowed.
        let changed = unsafe { sys::allow(at, len, allowed) };
        self.changer.store(0, Ordering::SeqCst);
        changed.map_err(|source| Error::Access { call: Call::Access.name(), source })
    }

    /// Opens the memory for a forced purge, which has counted itself; says whether it may write. Async-signal-safe.
    ///
    /// A change by this very thread, which the signal interrupted, goes on after the purge and can do no harm then.
    pub(super) fn force(&self, at: NonNull<u8>, len: usize) -> bool {
        let me = me();
        for _ in 0..PATIENCE {
            let changer = self.changer.load(Ordering::SeqCst);
            if changer == 0 || changer == me {
                break;
            }
            std::hint::spin_loop();
        }
        // SAFETY: the range is an arena's, shown while the purge is counted; more is allowed, not less.
        unsafe { sys::allow(at, len, libc::PROT_READ | libc::PROT_WRITE) }.is_ok()
    }

    pub(super) fn set_stuck(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }

    /// Whether nobody is within. Holds still while `f` looks.
    pub(super) fn when_closed<R>(&self, f: impl FnOnce(bool) -> R) -> R {
        let within = self.lock();
        f(within.readers + within.writers == 0)
    }

    fn lock(&self) -> MutexGuard<'_, Within> {
        // Nothing is half done where the lock is held and something could panic.
        self.within.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
