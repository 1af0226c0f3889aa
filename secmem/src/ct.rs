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
pub fn eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    opaque(differences(a, b)) == 0
}

/// Gathers the differences of two slices of equal length; 0 if there are none.
#[inline]
fn differences(a: &[u8], b: &[u8]) -> u64 {
    match a.len() {
        0..8 => a.iter().zip(b).fold(0, |gathered, (a, b)| gathered | u64::from(a ^ b)),
        8..=32 => steps::<1>(a, b) | last_step::<1>(a, b),
        _ => {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2, as the line above asked.
                return unsafe { differences_avx2(a, b) };
            }
            differences_long(a, b)
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn differences_avx2(a: &[u8], b: &[u8]) -> u64 {
    differences_long(a, b)
}

/// At least 32 bytes: wide steps while they last, then narrower ones, the last of which overlaps what is done.
#[inline(always)]
fn differences_long(a: &[u8], b: &[u8]) -> u64 {
    let wide = a.len() / 128 * 128;
    steps::<16>(a, b) | steps::<4>(&a[wide..], &b[wide..]) | last_step::<4>(a, b)
}

/// The differences in whole steps of `W` words of 8 bytes; what is left at the end is not looked at.
#[inline(always)]
fn steps<const W: usize>(a: &[u8], b: &[u8]) -> u64 {
    let mut gathered = [0; W];
    for (a, b) in words(a).as_chunks::<W>().0.iter().zip(words(b).as_chunks::<W>().0) {
        add(&mut gathered, a, b);
    }
    gathered.into_iter().fold(0, |all, word| all | word)
}

/// The differences in the last `W` words, counted from the end. Slices shorter than that have none here.
#[inline(always)]
fn last_step<const W: usize>(a: &[u8], b: &[u8]) -> u64 {
    let from = a.len().saturating_sub(8 * W);
    steps::<W>(&a[from..], &b[from..])
}

#[inline(always)]
fn words(bytes: &[u8]) -> &[[u8; 8]] {
    bytes.as_chunks::<8>().0
}

#[inline(always)]
fn add<const W: usize>(gathered: &mut [u64; W], a: &[[u8; 8]; W], b: &[[u8; 8]; W]) {
    for ((gathered, a), b) in gathered.iter_mut().zip(a).zip(b) {
        *gathered |= u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
    }
}

/// The same value, of which the compiler no longer knows anything.
#[inline(always)]
fn opaque(value: u64) -> u64 {
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
    fn the_narrow_path_agrees_with_the_wide_one() {
        for len in 33..300 {
            let a = vec![0x5A; len];
            for at in 0..len {
                let mut b = a.clone();
                b[at] = 0xA5;

                assert_ne!(differences_long(&a, &b), 0, "byte {at} of {len}");
                assert_ne!(differences(&a, &b), 0, "byte {at} of {len}");
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
