//! Overwriting that survives the optimiser.
//!
//! Everything in this crate that ends a secret ends here. Zeros are stored in place, or by the C library's
//! `explicit_bzero` at the lengths where that is faster; other bytes always in place. After each pass in place a barrier
//! tells the compiler that the bytes were looked at, so that no pass can be dropped as dead.
//!
//! Nothing here locks, allocates or keeps state, so all of it may run in a signal handler.
#![allow(unsafe_code)] // raw ranges of arenas; vector stores behind a check of the processor; explicit_bzero

use std::ptr::NonNull;

use crate::error::Error;
use crate::sys;

/// How often, and with what, a secret is overwritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Zeros, once. Enough for memory.
    #[default]
    Single,
    /// 0x00, 0xFF, 0xAA, 0x55, random bytes, 0x00: for rules that ask for several passes.
    SixPass,
}

/// Lengths at which `explicit_bzero` is faster than stores in place: it has wider vectors on some processors, but
/// begins `rep stosb`, which is slow on others, at 2 KiB (measured on Zen 3 and on a Xeon with AVX-512).
const fn libc_is_faster(len: usize) -> bool {
    matches!(len, 129..2048 | 0x10_0001..)
}

/// Bytes that go through all six passes before the next are begun: they stay in the first-level cache.
const BLOCK: usize = 16 << 10;

/// Overwrites `data` with zeros.
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
pub fn wipe_with(data: &mut [u8], schedule: Schedule) -> Result<(), Error> {
    if cfg!(secmem_ablate = "wipe") {
        return Ok(());
    }
    match schedule {
        Schedule::Single => {
            wipe(data);
            Ok(())
        }
        Schedule::SixPass => data.chunks_mut(BLOCK).map(six_passes).fold(Ok(()), Result::and),
    }
}

/// [`wipe_with`] over a range of raw memory.
///
/// # Safety
///
/// The range is writable and, but for a purge that a dying process forces, nobody else uses it meanwhile.
pub(crate) unsafe fn wipe_raw(start: NonNull<u8>, len: usize, schedule: Schedule) -> Result<(), Error> {
    // SAFETY: the range is writable and ours for the time of the call (this function's contract).
    let data = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) };
    wipe_with(data, schedule)
}

fn six_passes(block: &mut [u8]) -> Result<(), Error> {
    for byte in [0x00, 0xFF, 0xAA, 0x55] {
        overwrite(block, byte);
    }
    let random = fill_random(block);
    overwrite(block, 0x00);
    random
}

fn fill_random(mut block: &mut [u8]) -> Result<(), Error> {
    while !block.is_empty() {
        match sys::random(block) {
            Ok(got) => block = &mut block[got..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Random { source }),
        }
    }
    Ok(())
}

/// Stores `byte` all over `data`, and lets the compiler know that it matters.
fn overwrite(data: &mut [u8], byte: u8) {
    match data.len() {
        0 => {}
        1..=2 => both_ends::<1>(data, byte),
        3..=4 => both_ends::<2>(data, byte),
        5..=8 => both_ends::<4>(data, byte),
        9..=16 => both_ends::<8>(data, byte),
        17..=32 => both_ends::<16>(data, byte),
        33..=64 => both_ends::<32>(data, byte),
        65..=128 => both_ends::<64>(data, byte),
        _ => overwrite_long(data, byte),
    }
    zeroize::optimization_barrier(data);
}

/// The first and the last `N` bytes; for lengths from `N` to `2 N` that is all of them.
#[inline(always)]
fn both_ends<const N: usize>(data: &mut [u8], byte: u8) {
    if let Some(first) = data.first_chunk_mut::<N>() {
        *first = [byte; N];
    }
    if let Some(last) = data.last_chunk_mut::<N>() {
        *last = [byte; N];
    }
}

fn overwrite_long(data: &mut [u8], byte: u8) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as the line above asked.
        return unsafe { overwrite_long_avx2(data, byte) };
    }
    overwrite_chunks(data, byte);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn overwrite_long_avx2(data: &mut [u8], byte: u8) {
    overwrite_chunks(data, byte);
}

/// More than 128 bytes: unaligned ends, and between them whole cache lines.
///
/// The barrier in the loop keeps it a loop; without it the compiler makes a call of `memset`, which is slower at the
/// sizes of secrets (measured on Zen 3).
#[inline(always)]
fn overwrite_chunks(data: &mut [u8], byte: u8) {
    both_ends::<128>(data, byte);
    let begin = 64 + data.as_ptr().align_offset(64).min(64); // within the first end
    for chunk in data[begin..].as_chunks_mut::<128>().0 {
        *chunk = [byte; 128];
        zeroize::optimization_barrier(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Call, seam};

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
    fn the_random_pass_is_random() {
        let mut data = vec![0; 4096];

        fill_random(&mut data).unwrap();

        // 4096 random bytes hold each value 16 times on average; none twenty times as often.
        assert!((0..=u8::MAX).all(|value| data.iter().filter(|&&byte| byte == value).count() < 320));
    }

    #[test]
    fn zeros_come_last_even_if_there_are_no_random_bytes() {
        let mut data = vec![0xC3; 2 * BLOCK];
        seam::fail_next(Call::Random, libc::ENOSYS);

        let result = wipe_with(&mut data, Schedule::SixPass);

        assert!(matches!(result, Err(Error::Random { .. })), "{result:?}");
        assert!(data.iter().all(|&byte| byte == 0));
        assert_eq!(seam::left(), 0);
    }
}
