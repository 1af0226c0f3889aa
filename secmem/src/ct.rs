//! Comparing in a time that does not depend on the bytes.
//!
//! Every byte of both sides is read, whatever the others say: differences are gathered with exclusive or, and looked
//! at once, at the end, behind a barrier that hides from the compiler what that look is for. The barrier holds the
//! gathered value in a register: on the stack it would be a residue.
#![allow(unsafe_code)] // vector code behind a check of the processor; the barrier

/// Whether `a` and `b` hold the same bytes.
///
/// The time depends on the lengths, which are no secret here, and on nothing else: unequal lengths are told at once.
#[must_use]
#[inline]
pub fn eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    opaque(differences(a, b)) == 0
}

/// Whether all of `bytes` are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<64>();
    let mut gathered = [0; 8];
    for step in steps {
        for (gathered, word) in gathered.iter_mut().zip(step.as_chunks().0) {
            *gathered |= u64::from_ne_bytes(*word);
        }
    }
    let rest = rest.iter().fold(0, |gathered, &byte| gathered | u64::from(byte));
    opaque(gathered.iter().fold(rest, |all, gathered| all | gathered)) == 0
}

/// Gathers the differences of two slices of equal length; 0 if there are none.
#[inline]
fn differences(a: &[u8], b: &[u8]) -> u64 {
    match a.len() {
        0..8 => a.iter().zip(b).fold(0, |gathered, (a, b)| gathered | u64::from(a ^ b)),
        8..=16 => ends::<8>(a, b),
        17..=32 => ends::<16>(a, b),
        33..=64 => ends::<32>(a, b),
        65..=128 => ends::<64>(a, b),
        _ => {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2, as the line above asked.
                return unsafe { avx2::long(a, b) };
            }
            long(a, b)
        }
    }
}

/// The differences in the first and in the last `N` bytes; for lengths from `N` to `2 N` that is in all of them.
#[inline(always)]
fn ends<const N: usize>(a: &[u8], b: &[u8]) -> u64 {
    step(a.first_chunk::<N>(), b.first_chunk()) | step(a.last_chunk::<N>(), b.last_chunk())
}

/// The differences of a step of `N` bytes, a multiple of 8. The callers know that both are there.
#[inline(always)]
fn step<const N: usize>(a: Option<&[u8; N]>, b: Option<&[u8; N]>) -> u64 {
    let (Some(a), Some(b)) = (a, b) else { return 0 };
    let words = a.as_chunks().0.iter().zip(b.as_chunks().0);
    words.fold(0, |gathered, (a, b)| gathered | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)))
}

/// Steps of 128 bytes; the last one ends with the slice, and so may overlap the one before.
fn long(a: &[u8], b: &[u8]) -> u64 {
    let before = ..(a.len() - 1) / 128 * 128; // what the last step begins after
    let steps = a[before].as_chunks::<128>().0.iter().zip(b[before].as_chunks().0);
    let last = step(a.last_chunk::<128>(), b.last_chunk());
    steps.fold(last, |gathered, (a, b)| gathered | step(Some(a), Some(b)))
}

/// [`long`] in vectors of 32 bytes: as wide as those of the C library's memcmp, which stops at the first difference.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_loadu_si256, _mm256_or_si256, _mm256_setzero_si256, _mm256_testz_si256, _mm256_xor_si256,
    };

    type Vector = [u8; 32];

    /// The differences of slices of the same length, from 128 bytes on: 0 or 1.
    #[target_feature(enable = "avx2")]
    pub(super) fn long(a: &[u8], b: &[u8]) -> u64 {
        let before = ..(a.len() - 1) / 128 * 128; // what the last step begins after
        let last = step(a.last_chunk::<128>(), b.last_chunk());
        let steps = a[before].as_chunks::<128>().0.iter().zip(b[before].as_chunks().0);
        let gathered = steps.fold(last, |gathered, (a, b)| _mm256_or_si256(gathered, step(Some(a), Some(b))));
        u64::from(_mm256_testz_si256(gathered, gathered) == 0)
    }

    /// The differences of a step of `N` bytes, a multiple of 32. The callers know that both are there.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn step<const N: usize>(a: Option<&[u8; N]>, b: Option<&[u8; N]>) -> __m256i {
        let mut gathered = _mm256_setzero_si256();
        let (Some(a), Some(b)) = (a, b) else { return gathered };
        for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
            gathered = _mm256_or_si256(gathered, difference(a, b));
        }
        gathered
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn difference(a: &Vector, b: &Vector) -> __m256i {
        _mm256_xor_si256(load(a), load(b))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &Vector) -> __m256i {
        // SAFETY: the reference covers the 32 bytes that are read; this load asks for no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }
}

/// The same value, of which the compiler no longer knows anything.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let mut hidden = value;
        // SAFETY: the template is a comment: it reads and writes one register and touches neither memory nor flags.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags)) };
        hidden
    }
    #[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))))]
    std::hint::black_box(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen_at_every_place_of_every_length() {
        for len in 1..400 {
            let a: Vec<u8> = (0..len).map(|at| (at * 7 + 3) as u8).collect();
            assert!(eq(&a, &a.clone()), "{len}");
            for at in 0..len {
                for bit in [1, 0x80] {
                    let mut b = a.clone();
                    b[at] ^= bit;

                    assert!(!eq(&a, &b), "byte {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn the_plain_path_agrees_with_the_vector_path() {
        for len in 129..400 {
            let a = vec![0x5A; len];
            assert_eq!((long(&a, &a), differences(&a, &a)), (0, 0), "{len}");
            for at in 0..len {
                let mut b = a.clone();
                b[at] = 0xA5;

                assert_ne!(long(&a, &b), 0, "byte {at} of {len}");
                assert_ne!(differences(&a, &b), 0, "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn a_byte_that_is_not_zero_is_seen_wherever_it_stands() {
        for len in 0..200 {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len}");
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn unequal_lengths_differ_and_nothing_equals_nothing() {
        assert!(!eq(b"", b"\0"));
        assert!(!eq(b"secret", b"secrets"));
        assert!(eq(b"", b""));
    }
}
