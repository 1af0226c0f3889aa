//! A global allocator that overwrites what is freed.
#![allow(unsafe_code)] // the contract of GlobalAlloc

use std::alloc::{GlobalAlloc, Layout, System};

use crate::wipe;

/// An allocator that overwrites each allocation with zeros before it gives it back to `A`, and that never grows one in
/// place or moves it unwiped.
///
/// For what other crates allocate: their buffers come and go, and the allocator underneath keeps what stood in them.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: secmem::WipingAlloc = secmem::WipingAlloc::system();
/// # fn main() { drop(vec![1, 2, 3]) }
/// ```
///
/// To overwrite a long allocation that was never written to makes the kernel give it memory: a sparse table of gigabytes is freed at
/// the price of gigabytes.
///
/// Memory of the C library's own (`getline`, `setenv`) does not pass through here, nor does memory that is leaked.
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAlloc<A = System>(A);

impl WipingAlloc<System> {
    /// Over the system's allocator.
    #[must_use]
    pub const fn system() -> Self {
        Self(System)
    }
}

impl<A> WipingAlloc<A> {
    /// Over another allocator.
    pub const fn over(inner: A) -> Self {
        Self(inner)
    }
}

// SAFETY: memory comes from `A` and goes back to it with the layout that it came with; `realloc` is made of both.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipingAlloc<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `A`'s contract, which is this function's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `A`'s contract, which is this function's.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if !cfg!(secmem_ablate = "wipe-on-free") {
            // SAFETY: the allocation is `layout.size()` bytes, and nobody uses it any more (this function's contract).
            unsafe { wipe::wipe_freed(start, layout.size()) };
        }
        // SAFETY: the caller keeps `A`'s contract, which is this function's.
        unsafe { self.0.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller passes a size that makes a valid layout with this alignment (this function's contract).
        let grown = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the size is not zero (this function's contract).
        let moved = unsafe { self.0.alloc(grown) };
        if !moved.is_null() {
            // SAFETY: both hold so many bytes, and the new one is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(start, moved, layout.size().min(size)) };
            if cfg!(secmem_ablate = "wipe-on-realloc") {
                // SAFETY: the caller gives the old allocation up when this succeeds (this function's contract).
                unsafe { self.0.dealloc(start, layout) };
            } else {
                // SAFETY: the caller gives the old allocation up when this succeeds (this function's contract).
                unsafe { self.dealloc(start, layout) };
            }
        }
        moved
    }
}
