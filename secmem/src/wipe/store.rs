//! One byte stored all over a range, in place: whole vectors, and ends that overlap.
//!
//! Nothing here calls anything, allocates or keeps state: a signal handler may come here, and so may code without an operating
//! system.

/// Stores `byte` all over `data`, and lets the compiler know that it matters.
pub(super) fn overwrite(data: &mut [u8], byte: u8) {
    #[cfg(test)]
    seen::note(data);
    // SAFETY: the slice is writable for its whole length and borrowed exclusively.
    unsafe { overwrite_raw(data.as_mut_ptr(), data.len(), byte) };
    #[cfg(test)]
    seen::note(data);
}

/// [`overwrite`] over a range of raw memory.
///
/// # Safety
///
/// The range is writable.
#[inline]
pub(super) unsafe fn overwrite_raw(start: *mut u8, len: usize, byte: u8) {
    match len {
        0 => {}
        // SAFETY: the range is writable and has at least 1 bytes.
        1..=2 => unsafe { both_ends::<1>(start, len, byte) },
        // SAFETY: the range is writable and has at least 2 bytes.
        3..=4 => unsafe { both_ends::<2>(start, len, byte) },
        // SAFETY: the range is writable and has at least 4 bytes.
        5..=8 => unsafe { both_ends::<4>(start, len, byte) },
        // SAFETY: the range is writable and has at least 8 bytes.
        9..=16 => unsafe { both_ends::<8>(start, len, byte) },
        // SAFETY: the range is writable and has at least 16 bytes.
        17..=32 => unsafe { both_ends::<16>(start, len, byte) },
        // SAFETY: the range is writable and has at least 32 bytes.
        33..=64 => unsafe { both_ends::<32>(start, len, byte) },
        // SAFETY: the range is writable and has at least 64 bytes.
        65..=128 => unsafe { both_ends::<64>(start, len, byte) },
        // SAFETY: the range is writable and longer than 128 bytes.
        _ => unsafe { overwrite_long(start, len, byte) },
    }
    looked_at(start);
}

/// Tells the compiler that somebody looks at the memory behind `start`, so that no store before this is dropped.
#[inline(always)]
fn looked_at(start: *mut u8) {
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    // SAFETY: the template is a comment: it changes nothing. That it may read memory is all that it says.
    unsafe {
        core::arch::asm!("/* {0} */", in(reg) start, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))))]
    zeroize::optimization_barrier(&start);
}

/// The first and the last `N` bytes; for lengths from `N` to `2 N` that is all of them.
///
/// # Safety
///
/// The range is writable and at least `N` bytes long.
#[inline(always)]
unsafe fn both_ends<const N: usize>(start: *mut u8, len: usize, byte: u8) {
    // SAFETY: the first `N` bytes are part of the range (this function's contract); unaligned, as bytes are.
    unsafe { start.cast::<[u8; N]>().write([byte; N]) };
    let last = start.wrapping_add(len - N);
    // SAFETY: the same holds of the last `N`.
    unsafe { last.cast::<[u8; N]>().write([byte; N]) };
}

/// # Safety
///
/// The range is writable and more than 128 bytes long.
unsafe fn overwrite_long(start: *mut u8, len: usize, byte: u8) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
    if crate::cpu::has_avx2() {
        // SAFETY: the processor has AVX2, as the line above asked; the range is as asked for here.
        return unsafe { overwrite_long_avx2(start, len, byte) };
    }
    // SAFETY: the range is as asked for here.
    unsafe { overwrite_chunks(start, len, byte) };
}

/// # Safety
///
/// The processor has AVX2; the range is writable and more than 128 bytes long.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[target_feature(enable = "avx2")]
unsafe fn overwrite_long_avx2(start: *mut u8, len: usize, byte: u8) {
    // SAFETY: the range is as asked for here.
    unsafe { overwrite_chunks(start, len, byte) };
}

/// More than 128 bytes: unaligned ends, and between them whole cache lines.
///
/// The barrier in the loop keeps it a loop; without it the compiler makes a call of `memset`, which is slower at the
/// sizes of secrets (measured on Zen 3).
///
/// # Safety
///
/// The range is writable and more than 128 bytes long.
#[inline(always)]
unsafe fn overwrite_chunks(start: *mut u8, len: usize, byte: u8) {
    // SAFETY: the range is longer than 128 bytes (this function's contract).
    unsafe { both_ends::<128>(start, len, byte) };
    let begin = 64 + start.align_offset(64).min(64); // within the first end
    for at in (begin..(len + 1).saturating_sub(128)).step_by(128) {
        let chunk = start.wrapping_add(at);
        // SAFETY: the 128 bytes from `at` on end within the range: `at + 128 <= len`.
        unsafe { chunk.cast::<[u8; 128]>().write([byte; 128]) };
        looked_at(chunk);
    }
}

/// The tests' look at what stands in memory before and after each pass of this thread.
#[cfg(test)]
pub(super) mod seen {
    use std::cell::RefCell;

    thread_local! {
        static SEEN: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
    }

    pub(super) fn note(data: &[u8]) {
        // A thread that ends wipes the stack that it kept, and may have nothing else of its own any more.
        let _ = SEEN.try_with(|seen| seen.borrow_mut().iter_mut().for_each(|seen| seen.push(data.to_vec())));
    }

    /// What was noted while `f` ran.
    #[cfg(all(feature = "std", target_os = "linux"))] // where there are schedules of passes
    pub(in crate::wipe) fn during(f: impl FnOnce()) -> Vec<Vec<u8>> {
        SEEN.set(Some(Vec::new()));
        f();
        SEEN.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_value_reaches_every_place() {
        for len in [1, 3, 17, 64, 129, 640] {
            for byte in [0x00, 0xFF, 0xAA, 0x55] {
                let mut data = vec![0xC3; len];

                overwrite(&mut data, byte);

                assert_eq!(data, vec![byte; len]);
            }
        }
    }
}
