//! The allocator of the whole program: the C library's, jemalloc or mimalloc, as it was built; overwriting what is freed
//! once [`wipe_what_is_freed`] was called, so that one program can play both halves of a pair.
#![allow(unsafe_code)] // the contract of GlobalAlloc

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

use secmem::WipingAlloc;

#[cfg(feature = "jemalloc")]
use tikv_jemallocator::Jemalloc as Inner;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
use mimalloc::MiMalloc as Inner;

#[cfg(not(any(feature = "jemalloc", feature = "mimalloc")))]
use std::alloc::System as Inner;

struct Either {
    plain: Inner,
    wiping: WipingAlloc<Inner>,
}

#[global_allocator]
static ALLOCATOR: Either = Either { plain: Inner, wiping: WipingAlloc::over(Inner) };

static WIPES: AtomicBool = AtomicBool::new(false);

/// From now on. What was allocated before is overwritten too when it is freed.
pub(crate) fn wipe_what_is_freed() {
    WIPES.store(true, Ordering::Relaxed);
}

fn wipes() -> bool {
    WIPES.load(Ordering::Relaxed)
}

// SAFETY: both halves hand on to the same allocator, so either may give back what came from the other.
unsafe impl GlobalAlloc for Either {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this function's contract, which is that of the other.
        unsafe { self.plain.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this function's contract, which is that of the other.
        unsafe { self.plain.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if wipes() {
            // SAFETY: the caller keeps this function's contract, which is that of the other.
            unsafe { self.wiping.dealloc(start, layout) }
        } else {
            // SAFETY: the caller keeps this function's contract, which is that of the other.
            unsafe { self.plain.dealloc(start, layout) }
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if wipes() {
            // SAFETY: the caller keeps this function's contract, which is that of the other.
            unsafe { self.wiping.realloc(start, layout, size) }
        } else {
            // SAFETY: the caller keeps this function's contract, which is that of the other.
            unsafe { self.plain.realloc(start, layout, size) }
        }
    }
}
