//! Telling a forked child from its parent.
//!
//! A page that the kernel zeroes in every child that gets a copy of this memory, whichever call made the child:
//! fork(2), clone(2) without `CLONE_VM`, another library's raw system call. Needs Linux 4.14.
//!
//! And telling whether a fork came while memory was being made that a child would share: `undisturbed`.

use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

use super::Backend;
use crate::error::{Error, Refusal};
use crate::sys::{self, Call};

/// A page that holds 1 in the process that made it and 0 in its forked children; null before the first secret.
static WITNESS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

static MAKING: Mutex<()> = Mutex::new(());

/// Whether this process is a forked child of one that had secrets. Async-signal-safe.
pub(crate) fn in_child() -> bool {
    let witness = WITNESS.load(Ordering::Acquire);
    if witness.is_null() {
        return false;
    }
    // SAFETY: once set, the pointer is that of a page which is never unmapped; volatile, for the kernel changes it.
    unsafe { witness.read_volatile() == 0 }
}

/// Sets the witness up; cheap once it is.
pub(super) fn watch(asked: Backend, len: usize) -> Result<(), Error> {
    if !WITNESS.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !WITNESS.load(Ordering::Acquire).is_null() {
        return Ok(()); // made by another thread meanwhile
    }
    let page = sys::page_size();
    let refused =
        |call: Call| move |source| Error::Refused { asked, tried: asked, len, call: call.name(), before: None, source };
    let witness = sys::reserve(page, libc::PROT_READ | libc::PROT_WRITE).map_err(refused(Call::Reserve))?;
    if let Err(source) = arm(witness, page) {
        // SAFETY: the page is ours, and nobody has seen it.
        unsafe { sys::unmap(witness, page) }.map_err(refused(Call::Unmap))?;
        return Err(refused(Call::WipeOnFork)(source));
    }
    WITNESS.store(witness.as_ptr(), Ordering::Release);
    Ok(())
}

fn arm(witness: NonNull<u8>, page: usize) -> std::io::Result<()> {
    if !cfg!(secmem_ablate = "wipe-on-fork") {
        // SAFETY: zeros in a child are what this page is for.
        unsafe { sys::wipe_on_fork(witness, page) }?;
    }
    // SAFETY: the page is mapped writable, ours alone, and a byte has no alignment to miss.
    unsafe { witness.write_volatile(1) };
    Ok(())
}

/// Forks by fork(3) that have begun, and those that are over in this process. Unequal while one runs.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicU64 = AtomicU64::new(0);

/// Whether the handlers stand that count forks.
static COUNTING: Mutex<bool> = Mutex::new(false);

extern "C" fn begins() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn is_over() {
    OVER.fetch_add(1, Ordering::SeqCst);
}

/// In the child: forks that other threads of the parent had begun are not its own.
extern "C" fn has_made_us() {
    OVER.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// How often memory is made anew because a fork came in between, one millisecond apart.
const TRIES: u32 = 1000;

/// Makes something of which a child that is forked meanwhile must not get a share: once more, after `undo` of what was
/// made, for each fork that came in between.
///
/// A mapping can be kept from children only once it is there, and a child that is forked between these two calls would
/// share a memory file for ever. Forks are counted rather than held up by a lock: a signal handler that forks while
/// this thread holds the lock would wait for ever. Only forks by the C library's fork(3) are counted; raw system calls
/// and `_Fork` pass unseen.
///
/// # Errors
///
/// What `make` or `undo` say; `EBUSY` where forks never stopped; what pthread_atfork(3) says.
pub(super) fn undisturbed<T>(
    mut make: impl FnMut() -> Result<T, Refusal>,
    mut undo: impl FnMut(T) -> Result<(), Refusal>,
) -> Result<T, Refusal> {
    let refusal = |errno| Refusal { call: Call::AtFork.name(), errno };
    // Every error of `sys` carries an errno.
    count().map_err(|error| refusal(error.raw_os_error().unwrap_or(libc::EIO)))?;
    for _ in 0..TRIES {
        let begun = BEGUN.load(Ordering::SeqCst);
        if OVER.load(Ordering::SeqCst) == begun {
            let made = make()?;
            if BEGUN.load(Ordering::SeqCst) == begun {
                return Ok(made);
            }
            undo(made)?;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(refusal(libc::EBUSY))
}

fn count() -> io::Result<()> {
    let mut counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    if !*counting {
        sys::at_fork(begins, is_over, has_made_us)?;
        *counting = true;
    }
    Ok(())
}
