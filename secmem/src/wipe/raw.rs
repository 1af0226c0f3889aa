//! Memory that is wiped by its address: slots and whole arenas, whoever refers to them, and what an allocator takes back.

use std::ptr::NonNull;

use super::passes::{Schedule, wipe_with};
use super::store;
use crate::error::Error;

/// [`wipe_with`] over a range of raw memory.
///
/// # Safety
///
/// The range is writable, and nobody else uses it or refers to it meanwhile, but for a purge that a dying process forces.
#[inline]
pub(crate) unsafe fn wipe_raw(start: NonNull<u8>, len: usize, schedule: Schedule) -> Result<(), Error> {
    // SAFETY: the range is writable and nobody else refers to it (this function's contract). A forced purge on top of
    // this makes no reference; it stores zeros, which is what comes last here too.
    let data = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) };
    wipe_with(data, schedule)
}

/// Overwrites a range of raw memory with zeros, whoever refers to it. Async-signal-safe: nothing but stores in place.
///
/// No reference is made here, so none of others' is broken by one; that their bytes change is what they must bear.
///
/// # Safety
///
/// The range is writable. Whoever reads it meanwhile, or later by a reference from before, may come to see anything.
pub(crate) unsafe fn wipe_forced(start: NonNull<u8>, len: usize) {
    if cfg!(secmem_ablate = "wipe") {
        return;
    }
    // SAFETY: the range is writable (this function's contract).
    unsafe { store::overwrite_raw(start.as_ptr(), len, 0) };
}

/// Overwrites an allocation that is being given back.
///
/// # Safety
///
/// The range is writable and nobody uses it; it need not be initialised.
pub(crate) unsafe fn wipe_freed(start: *mut u8, len: usize) {
    if cfg!(secmem_ablate = "wipe") {
        return;
    }
    if super::libc_is_faster(len) {
        // SAFETY: the range is writable (this function's contract).
        unsafe { libc::explicit_bzero(start.cast(), len) }
    } else {
        // SAFETY: the range is writable (this function's contract).
        unsafe { store::overwrite_raw(start, len, 0) }
    }
}

/// Overwrites a vector's whole capacity with zeros and leaves it empty. What it outgrew before is not its own any more, and
/// stays where it was.
pub fn wipe_vec(bytes: &mut Vec<u8>) {
    bytes.clear();
    // SAFETY: a vector owns its capacity, which is writable, and with no element left nothing refers to it.
    unsafe { wipe_freed(bytes.as_mut_ptr(), bytes.capacity()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_wipe_reaches_every_byte_and_no_other() {
        for len in (0..700).chain([4096, (2 << 20) + 3]) {
            let mut data = vec![0xC3_u8; len + 2];
            let start = NonNull::new(data.as_mut_ptr()).unwrap();
            // SAFETY: one byte into a buffer that is longer by two.
            let start = unsafe { start.add(1) };

            // SAFETY: the buffer is writable, and nobody refers to it during the call.
            unsafe { wipe_forced(start, len) };

            assert!(data[1..=len].iter().all(|&byte| byte == 0), "{len}");
            assert_eq!((data[0], data[len + 1]), (0xC3, 0xC3), "{len}");
        }
    }
}
