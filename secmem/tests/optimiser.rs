//! A wipe right before the memory is freed: what optimisers remove, unless they are told not to.
//!
//! The allocator of this test program looks at each block that it gets back.
#![allow(unsafe_code)] // an allocator is unsafe by its trait

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use secmem::wipe::wipe;
#[cfg(feature = "std")]
use secmem::wipe::{Schedule, wipe_with};

/// The blocks that are looked at have this size: no other does.
const LEN: usize = 12_347;

/// Bytes other than zero in the last block of that size.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Looking;

// SAFETY: every request goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this method, which is that of the other.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() == LEN {
            // SAFETY: the block is of that size, was written to as a whole, and is ours until it is freed below.
            let bytes = unsafe { std::slice::from_raw_parts(block, LEN) };
            LEFT.store(bytes.iter().filter(|&&byte| byte != 0).count(), Ordering::SeqCst);
        }
        // SAFETY: the caller keeps the contract of this method, which is that of the other.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

fn left_after(end: impl Fn(&mut [u8])) -> usize {
    LEFT.store(usize::MAX, Ordering::SeqCst);
    let mut block = vec![0xA7_u8; LEN].into_boxed_slice();
    std::hint::black_box(&mut block);
    end(&mut block);
    drop(block);
    LEFT.load(Ordering::SeqCst)
}

// One test, for the figure is shared.
#[test]
fn a_wipe_before_a_free_is_not_removed() {
    assert_eq!(left_after(|_| ()), LEN, "the look sees what is left");
    assert_eq!(left_after(wipe), 0);
    #[cfg(feature = "std")]
    for schedule in [Schedule::Single, Schedule::SixPass] {
        assert_eq!(left_after(|block| wipe_with(block, schedule).unwrap()), 0, "{schedule:?}");
    }
}
