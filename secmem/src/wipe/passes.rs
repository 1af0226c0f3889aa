//! How often, and with what, a secret is overwritten.
//!
//! The stores are `store`'s; the random bytes of one pass are `keystream`'s, which has its key from the kernel.

use super::store::overwrite;
use super::wipe;
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

/// Bytes that go through all six passes before the next are begun: they stay in the first-level cache.
const BLOCK: usize = 16 << 10;

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
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a prefetch changes nothing but caches, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(all(not(miri), target_arch = "x86_64")))]
    let _ = ahead;
}

#[cfg(test)]
mod tests {
    use super::super::store::seen;
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
    fn every_length_is_wiped_by_each_schedule_and_its_neighbours_are_not() {
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
