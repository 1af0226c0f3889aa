//! A library that keeps freed memory as it was, for `residue run --keep-freed`.
//!
//! Loaded by `LD_PRELOAD` it takes the place of `free` and `realloc`: what a program frees is neither used again nor given
//! back, so a secret that was freed without being wiped stays where a search finds it. It does not touch `malloc`,
//! `munmap` or anything else, and does nothing in a program that brings its own allocator or is not dynamically linked.
//!
//! What it kept stands in [`RESIDUE_KEPT_FREED`], which the harness reads from outside. Once the limit is met memory is
//! freed again as ever.
//!
//! Nothing here may allocate, or it would call itself.
#![allow(unsafe_code)] // takes the place of the C library's functions

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Bytes that are kept at most: 1 GiB.
const LIMIT: u64 = 1 << 30;

/// What was kept, in this order: [`MAGIC`], blocks, bytes, blocks that were freed because the limit was met.
#[unsafe(no_mangle)]
pub static RESIDUE_KEPT_FREED: [AtomicU64; 4] =
    [AtomicU64::new(MAGIC), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)];

/// Tells whoever reads from outside that the right place was found.
pub const MAGIC: u64 = 0x6b65_7074_6672_6565;

/// The next library's `free`, once it was asked for; 1 while it is being asked for, and where there is none.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Keeps a block; once the limit is met, frees it.
///
/// # Safety
///
/// As free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: a block of the allocator's, by this function's own contract; its length alone is read.
    let length = unsafe { libc::malloc_usable_size(block) } as u64;
    let [_, blocks, bytes, released] = &RESIDUE_KEPT_FREED;
    if bytes.load(Ordering::Relaxed).saturating_add(length) <= LIMIT {
        blocks.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(length, Ordering::Relaxed);
        return;
    }
    released.fetch_add(1, Ordering::Relaxed);
    if let Some(next) = next() {
        // SAFETY: the block is the allocator's and is not kept, so this is the one time that it is freed.
        unsafe { next(block) };
    }
}

/// Makes a new block, copies, and keeps the old one.
///
/// # Safety
///
/// As realloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, length: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: takes no pointer.
        return unsafe { libc::malloc(length) };
    }
    if length == 0 {
        // SAFETY: the caller's block, which it gives up.
        unsafe { free(block) };
        return ptr::null_mut();
    }
    // SAFETY: a block of the allocator's, by this function's own contract.
    let old = unsafe { libc::malloc_usable_size(block) };
    // SAFETY: takes no pointer.
    let new = unsafe { libc::malloc(length) };
    if new.is_null() {
        return new;
    }
    // SAFETY: both blocks have at least so many bytes, and the new one overlaps no other.
    unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast::<u8>(), old.min(length)) };
    // SAFETY: the caller's block, which it gives up for the new one.
    unsafe { free(block) };
    new
}

/// An old name of [`free`].
///
/// # Safety
///
/// As free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's promise is the same.
    unsafe { free(block) };
}

/// The `free` that would have been called without this library. `None` while it is being looked up, which may itself free.
fn next() -> Option<unsafe extern "C" fn(*mut c_void)> {
    let asking = ptr::without_provenance_mut(1);
    if NEXT.compare_exchange(ptr::null_mut(), asking, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        // SAFETY: a C string, and a handle that stands for the libraries behind this one (dlsym(3)).
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"free".as_ptr()) };
        NEXT.store(if found.is_null() { asking } else { found }, Ordering::Relaxed);
    }
    let found = NEXT.load(Ordering::Relaxed);
    if found.is_null() || found == asking {
        return None;
    }
    // SAFETY: it is what dlsym gave for a function of this type.
    Some(unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(found) })
}
