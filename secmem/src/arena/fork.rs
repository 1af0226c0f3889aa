//! Telling a forked child from its parent.
//!
//! A page that the kernel zeroes in every child that gets a copy of this memory, whichever call made the child:
//! fork(2), clone(2) without `CLONE_VM`, another library's raw system call. Needs Linux 4.14.

use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Backend;
use crate::error::Error;
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
        let unmapped = unsafe { sys::unmap(witness, page) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}"); // a page of zeros would stay behind, no more
        return Err(refused(Call::WipeOnFork)(source));
    }
    WITNESS.store(witness.as_ptr(), Ordering::Release);
    Ok(())
}

fn arm(witness: NonNull<u8>, page: usize) -> std::io::Result<()> {
    // SAFETY: zeros in a child are what this page is for.
    unsafe { sys::wipe_on_fork(witness, page) }?;
    // SAFETY: the page is mapped writable, ours alone, and a byte has no alignment to miss.
    unsafe { witness.write_volatile(1) };
    Ok(())
}
