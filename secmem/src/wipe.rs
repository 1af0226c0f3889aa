//! Overwriting that survives the optimiser.
//!
//! Everything in this crate that ends a secret ends here. Zeros are stored in place, or by the C library's
//! `explicit_bzero` at the lengths where that is faster; other bytes always in place. After each pass in place a barrier
//! tells the compiler that the bytes were looked at, so that no pass can be dropped as dead.
//!
//! Nothing here allocates, and one pass locks nothing. A signal handler uses `wipe_forced` alone, which makes no call and keeps no
//! state. The random pass of six has a key (`keystream`), which the first one in a process draws; others that come just then wait
//! for it, so six passes have no place in a signal handler, nor in a child that was forked beside other threads.
#![allow(unsafe_code)] // raw ranges of arenas; vector stores behind a check of the processor; explicit_bzero

use std::ptr::NonNull;

use crate::error::Error;
use crate::keystream;

/// How often, and with what, a secret is overwritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Zeros, once. Enough for memory.
    #[default]
    Single,
    /// 0x00, 0xFF, 0xAA, 0x55, random bytes, 0x00: for rules that ask for several passes. The random bytes are AES's where
    /// the processor has that, under a key of the kernel's; else the kernel's own, which is many times slower.
    SixPass,
}

/// Lengths at which `explicit_bzero` is faster than stores in place: it has wider vectors on some processors, but
/// begins `rep stosb`, which is slow on others, beyond 2 KiB (measured on Zen 3 and on a Xeon with AVX-512).
const fn libc_is_faster(len: usize) -> bool {
    matches!(len, 129..=2048 | 0x10_0001..)
}

/// Bytes that go through all six passes before the next are begun: they stay in the first-level cache.
const BLOCK: usize = 16 << 10;

/// Overwrites `data` with zeros.
#[inline]
pub fn wipe(data: &mut [u8]) {
    if cfg!(secmem_ablate = "wipe") {
        return;
    }
    if libc_is_faster(data.len()) {
        // SAFETY: the slice is writable for its whole length and borrowed exclusively.
        unsafe { libc::explicit_bzero(data.as_mut_ptr().cast(), data.len()) }
    } else {
        overwrite(data, 0);
    }
}

/// Overwrites `data` as `schedule` says; zeros come last in each.
///
/// # Errors
///
/// [`Error::Random`] if the kernel gave no random bytes; the other passes were made nevertheless.
#[inline]
pub fn wipe_with(data: &mut [u8], schedule: Schedule) -> Result<(), Error> {
    if cfg!(secmem_ablate = "wipe") {
        return Ok(());
    }
    match schedule {
        Schedule::Single => {
            wipe(data);
            Ok(())
        }
        Schedule::SixPass => in_blocks(data),
    }
}

/// All six passes over one block after the other.
#[cold]
fn in_blocks(mut data: &mut [u8]) -> Result<(), Error> {
    let mut result = Ok(());
    while !data.is_empty() {
        let (block, rest) = data.split_at_mut(data.len().min(BLOCK));
        result = result.and(six_passes(block, rest, keystream::fill));
        data = rest;
    }
    result
}

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
    unsafe { overwrite_raw(start.as_ptr(), len, 0) };
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
    if libc_is_faster(len) {
        // SAFETY: the range is writable (this function's contract).
        unsafe { libc::explicit_bzero(start.cast(), len) }
    } else {
        // SAFETY: the range is writable (this function's contract).
        unsafe { overwrite_raw(start, len, 0) }
    }
}

/// Overwrites a vector's whole capacity with zeros and leaves it empty. What it outgrew before is not its own any more, and
/// stays where it was.
pub fn wipe_vec(bytes: &mut Vec<u8>) {
    bytes.clear();
    // SAFETY: a vector owns its capacity, which is writable, and with no element left nothing refers to it.
    unsafe { wipe_freed(bytes.as_mut_ptr(), bytes.capacity()) };
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
        std::arch::asm!(
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

/// `rest` is what will be overwritten next.
fn six_passes(block: &mut [u8], rest: &[u8], fill: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Result<(), Error> {
    for (part, byte) in [0x00, 0xFF, 0xAA, 0x55].into_iter().enumerate() {
        overwrite(block, byte);
        fetch(rest.chunks(BLOCK / 4).nth(part).unwrap_or_default());
    }
    let random = fill(block);
    overwrite(block, 0x00);
    random
}

/// Lets the processor bring memory nearer while it does something else.
fn fetch(ahead: &[u8]) {
    #[cfg(all(not(miri), target_arch = "x86_64"))]
    for line in ahead.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch changes nothing but caches, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(all(not(miri), target_arch = "x86_64")))]
    let _ = ahead;
}

/// Stores `byte` all over `data`, and lets the compiler know that it matters.
fn overwrite(data: &mut [u8], byte: u8) {
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
unsafe fn overwrite_raw(start: *mut u8, len: usize, byte: u8) {
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
        std::arch::asm!("/* {0} */", in(reg) start, options(readonly, nostack, preserves_flags));
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
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as the line above asked; the range is as asked for here.
        return unsafe { overwrite_long_avx2(start, len, byte) };
    }
    // SAFETY: the range is as asked for here.
    unsafe { overwrite_chunks(start, len, byte) };
}

/// # Safety
///
/// The processor has AVX2; the range is writable and more than 128 bytes long.
#[cfg(target_arch = "x86_64")]
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
mod seen {
    use std::cell::RefCell;

    thread_local! {
        static SEEN: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
    }

    pub(super) fn note(data: &[u8]) {
        // A thread that ends wipes the stack that it kept, and may have nothing else of its own any more.
        let _ = SEEN.try_with(|seen| seen.borrow_mut().iter_mut().for_each(|seen| seen.push(data.to_vec())));
    }

    /// What was noted while `f` ran.
    pub(super) fn during(f: impl FnOnce()) -> Vec<Vec<u8>> {
        SEEN.set(Some(Vec::new()));
        f();
        SEEN.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::sys::{Call, seam};

    /// That memory full of `before` was overwritten six times, block by block: `at` lengths.
    fn assert_six_passes(seen: &[Vec<u8>], before: u8, lengths: &[usize]) {
        assert_eq!(seen.len(), 10 * lengths.len(), "five passes of one byte, before and after each");
        for (seen, &len) in seen.chunks(10).zip(lengths) {
            for (at, byte) in [before, 0x00, 0x00, 0xFF, 0xFF, 0xAA, 0xAA, 0x55].into_iter().enumerate() {
                assert!(seen[at] == vec![byte; len], "look {at} of {len} bytes");
            }
            let counts = seen[8].iter().fold([0; 256], |mut counts, &byte| {
                counts[usize::from(byte)] += 1;
                counts
            });
            assert!(counts.into_iter().all(|count| count < len / 2), "no random bytes stand before the last pass");
            assert!(seen[9] == vec![0; len], "zeros do not come last");
        }
    }

    #[test]
    fn six_passes_are_six_wherever_they_are_asked_for() {
        for lengths in [&[300][..], &[BLOCK, BLOCK, 100]] {
            let mut data = vec![0xC3; lengths.iter().sum()];
            let seen = seen::during(|| wipe_with(&mut data, Schedule::SixPass).unwrap());
            assert_six_passes(&seen, 0xC3, lengths);
        }

        let mut secret = Secret::options().wipe(Schedule::SixPass).zeroed(1000).unwrap();
        secret.with_mut(|bytes| bytes.fill(0xC3)).unwrap();
        let seen = seen::during(|| secret.wipe().unwrap());
        // A slot is whole granules, with canaries: what stands there first is more than the secret.
        assert_eq!((seen.len(), seen[0].iter().filter(|&&byte| byte == 0xC3).count() >= 1000), (10, true));
        assert_six_passes(&[vec![vec![0xC3; seen[0].len()]], seen[1..].to_vec()].concat(), 0xC3, &[seen[0].len()]);
    }

    #[test]
    fn a_single_pass_is_of_zeros() {
        let mut data = [0xC3; 100];

        let seen = seen::during(|| wipe_with(&mut data, Schedule::Single).unwrap());

        assert_eq!(seen, [[0xC3; 100], [0; 100]]);
    }

    #[test]
    fn six_passes_without_random_bytes_are_an_error() {
        seam::fail_next(Call::Random, libc::ENOSYS);
        let mut data = [0xC3; 300];

        let result = wipe_with(&mut data, Schedule::SixPass);

        assert!(matches!(result, Err(Error::Random { .. })), "{result:?}");
        assert_eq!((data, seam::left()), ([0; 300], 0));
    }

    #[test]
    fn every_length_is_wiped_and_its_neighbours_are_not() {
        for len in (0..700).chain(2040..2400).chain([4095, 4096, 4097, BLOCK + 1, 1 << 20, (1 << 20) + 1]) {
            for schedule in [Schedule::Single, Schedule::SixPass] {
                let mut data = vec![0xC3; len + 2];

                wipe_with(&mut data[1..=len], schedule).unwrap();

                assert!(data[1..=len].iter().all(|&byte| byte == 0), "{len} {schedule:?}");
                assert_eq!((data[0], data[len + 1]), (0xC3, 0xC3), "{len} {schedule:?}");
            }
        }
    }

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

    #[test]
    fn zeros_come_last_even_if_there_are_no_random_bytes() {
        let mut data = [0xC3; 300];
        let none = || std::io::Error::from_raw_os_error(libc::ENOSYS);

        let result = six_passes(&mut data, &[], |_| Err(Error::Random { source: none() }));

        assert!(matches!(result, Err(Error::Random { .. })), "{result:?}");
        assert!(data.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_random_pass_comes_before_the_last_zeros() {
        let mut data = [0xC3; 300];
        let mut seen = [0; 300];

        let fill = |block: &mut [u8]| {
            seen.copy_from_slice(block);
            keystream::fill(block)
        };
        six_passes(&mut data, &[], fill).unwrap();

        assert_eq!((seen, data), ([0x55; 300], [0; 300]));
    }
}
