//! Overwriting that survives the optimiser.
//!
//! Everything in this crate that ends a secret ends here. Zeros are stored in place, or by the C library's
//! `explicit_bzero` at the lengths where that is faster; other bytes always in place (`store`). After each pass in place a
//! barrier tells the compiler that the bytes were looked at, so that no pass can be dropped as dead. Where there is no C
//! library of Linux, all is stored in place.
//!
//! ```
//! let mut key = *b"a key that was copied out";
//! secmem::wipe::wipe(&mut key);
//! assert_eq!(key, [0; 25]);
//! ```
//!
//! `passes` holds the schedules, `raw` what is wiped by address: both are for memory that the library keeps or gives back.
//! Nothing here allocates, and one pass locks nothing. A signal handler uses `wipe_forced` alone, which makes no call and keeps no
//! state. The random pass of six has a key (`keystream`), which the first one in a process draws; others that come just then wait
//! for it, so six passes have no place in a signal handler, nor in a child that was forked beside other threads.
#![allow(unsafe_code)] // raw ranges of arenas; vector stores behind a check of the processor; assembly; explicit_bzero

#[cfg(all(feature = "std", target_os = "linux"))]
mod passes;
#[cfg(all(feature = "std", target_os = "linux"))]
mod raw;
mod store;

#[cfg(all(feature = "std", target_os = "linux"))]
pub use passes::{Schedule, wipe_with};
#[cfg(all(feature = "std", target_os = "linux"))]
pub use raw::wipe_vec;
#[cfg(all(feature = "std", target_os = "linux"))]
pub(crate) use raw::{wipe_forced, wipe_freed, wipe_raw};

/// Lengths at which `explicit_bzero` is faster than stores in place: it has wider vectors on some processors, but
/// begins `rep stosb`, which is slow on others, beyond 2 KiB (measured on Zen 3 and on a Xeon with AVX-512).
#[cfg(all(feature = "std", target_os = "linux"))]
const fn libc_is_faster(len: usize) -> bool {
    matches!(len, 129..=2048 | 0x10_0001..)
}

/// Overwrites `data` with zeros.
#[inline]
pub fn wipe(data: &mut [u8]) {
    if cfg!(secmem_ablate = "wipe") {
        return;
    }
    #[cfg(all(feature = "std", target_os = "linux"))]
    if libc_is_faster(data.len()) {
        // SAFETY: the slice is writable for its whole length and borrowed exclusively.
        return unsafe { libc::explicit_bzero(data.as_mut_ptr().cast(), data.len()) };
    }
    store::overwrite(data, 0);
}

/// Copies bytes of secrets, and leaves none in a register: on x86-64 the processor moves them itself.
///
/// # Panics
///
/// If the lengths differ.
pub fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy of another length");
    #[cfg(all(not(miri), target_arch = "x86_64"))]
    // SAFETY: both are as long as is copied, the one readable, the other writable and borrowed exclusively, so they do not
    // overlap; the direction flag is clear, as the ABI says.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") from.len() => _,
            inout("rsi") from.as_ptr() => _,
            inout("rdi") to.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(not(miri), target_arch = "x86_64")))]
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_wiped_and_its_neighbours_are_not() {
        let mut lengths: Vec<usize> = (0..140).collect();
        if !cfg!(miri) {
            lengths.extend((140..2400).chain([4095, 4096, 4097, (16 << 10) + 1, 1 << 20, (1 << 20) + 1]));
        }
        for len in lengths {
            let mut data = vec![0xC3; len + 2];

            wipe(&mut data[1..=len]);

            assert!(data[1..=len].iter().all(|&byte| byte == 0), "{len}");
            assert_eq!((data[0], data[len + 1]), (0xC3, 0xC3), "{len}");
        }
    }

    #[test]
    fn a_copy_is_the_same_and_goes_no_further() {
        let from: Vec<u8> = (0..100).collect();
        for len in [0, 1, 7, 8, 33, 100] {
            let mut to = [0xC3; 102];

            copy(&from[..len], &mut to[1..=len]);

            assert_eq!(to[1..=len], from[..len]);
            assert_eq!((to[0], to[len + 1]), (0xC3, 0xC3), "{len}");
        }
    }
}
