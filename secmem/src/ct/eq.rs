//! Whether bytes are the same: differences are gathered with exclusive or, and looked at once, at the end, behind a barrier.
//!
//! On x86-64 that is assembly: a build without optimisation would leave every word on its stack, and one with it the last
//! ones in registers. In a kernel, whose code has no vector registers, and on other processors it is the compiler's.
#![allow(unsafe_code)] // loads behind a check of the processor, in registers that are cleared

use super::hidden::opaque;

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

/// Whether all of `bytes` are zero. Of the scrubbed stack alone.
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
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

/// [`eq`] of 16 bytes and more as a processor without AVX2 runs it.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
pub(crate) fn eq_by_sse2(a: &[u8], b: &[u8]) -> bool {
    assert!(a.len() == b.len() && a.len() >= 16, "lengths that this way is not for");
    opaque(by_hand::steps(a, b)) == 0
}

/// 0 if two slices of equal length hold the same bytes, else something else.
#[inline]
fn differences(a: &[u8], b: &[u8]) -> u64 {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
    {
        by_hand::differences(a, b)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(miri))))]
    portable(a, b)
}

/// [`differences`] as the compiler makes it: in a build without optimisation its words pass over the stack.
#[cfg(any(test, miri, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
fn portable(a: &[u8], b: &[u8]) -> u64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let words = a.iter().zip(b).map(|(a, b)| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b));
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| u64::from(a ^ b));
    words.chain(rest).fold(0, |gathered, difference| gathered | difference)
}

/// In registers that are zero again at the end, and nowhere else, at every level of optimisation: the same for every
/// content, for nothing branches on a byte.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
mod by_hand {
    use core::arch::asm;

    pub(super) fn differences(a: &[u8], b: &[u8]) -> u64 {
        debug_assert_eq!(a.len(), b.len());
        let len = a.len();
        match len {
            0..8 => bytes(a, b),
            8..16 => words(a, b),
            16..33 => halves(a, b),
            // Vectors of 32 bytes, as wide as those of the C library's memcmp, which stops at the first difference.
            _ if crate::cpu::has_avx2() => match len {
                33..65 => avx2_ends::<32>(a, b),
                65..129 => avx2_ends::<64>(a, b),
                _ => avx2_steps(a, b),
            },
            _ => steps(a, b),
        }
    }

    /// Up to 7 bytes.
    fn bytes(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: reads `len` bytes of either slice; what holds them is zero at the end, but for whether they differ.
        unsafe {
            asm!(
                "xor {gathered:e}, {gathered:e}",
                "test {left}, {left}",
                "jz 3f",
                "2:",
                "movzx {byte:e}, byte ptr [{a} + {left} - 1]",
                "xor {byte:l}, byte ptr [{b} + {left} - 1]",
                "or {gathered:e}, {byte:e}",
                "dec {left}",
                "jnz 2b",
                "3:",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "xor {byte:e}, {byte:e}",
                "neg {gathered:e}",
                "sbb {gathered:e}, {gathered:e}",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), left = inout(reg) a.len() => _,
                byte = out(reg_abcd) _, gathered = out(reg) gathered,
                options(readonly, nostack),
            );
        }
        gathered
    }

    /// 8 to 16 bytes: the first word and the last.
    fn words(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: reads 8 bytes at either end of either slice, which has as many; as above.
        unsafe {
            asm!(
                "mov {gathered}, [{a}]",
                "mov {last}, [{a} + {len} - 8]",
                "xor {gathered}, [{b}]",
                "xor {last}, [{b} + {len} - 8]",
                "or {gathered}, {last}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "xor {last:e}, {last:e}",
                "neg {gathered}",
                "sbb {gathered}, {gathered}",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), len = in(reg) a.len(),
                last = out(reg) _, gathered = out(reg) gathered,
                options(readonly, nostack, pure),
            );
        }
        gathered
    }

    /// 16 to 32 bytes: the first 16 and the last.
    fn halves(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: reads 16 bytes at either end of either slice, which has as many; as above.
        unsafe {
            asm!(
                "movdqu {x}, [{a}]",
                "movdqu {y}, [{b}]",
                "pxor {x}, {y}",
                "movdqu {y}, [{a} + {len} - 16]",
                "movdqu {z}, [{b} + {len} - 16]",
                "pxor {y}, {z}",
                "por {x}, {y}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {y}, {y}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {z}, {z}",
                "pcmpeqb {x}, {y}",
                "pmovmskb {gathered:e}, {x}",
                "xor {gathered:e}, 0xffff",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {x}, {x}",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), len = in(reg) a.len(),
                x = out(xmm_reg) _, y = out(xmm_reg) _, z = out(xmm_reg) _, gathered = out(reg) gathered,
                options(readonly, nostack, pure),
            );
        }
        gathered
    }

    /// From 16 bytes on, 16 at a time; the last of them once more where the length is no multiple.
    pub(super) fn steps(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: reads 16 bytes at a time, the last of them at the end of either slice, which has as many; as above.
        unsafe {
            asm!(
                "movdqu {x}, [{a} + {last}]",
                "movdqu {y}, [{b} + {last}]",
                "pxor {x}, {y}",
                "xor {at:e}, {at:e}",
                "2:",
                "movdqu {y}, [{a} + {at}]",
                "movdqu {z}, [{b} + {at}]",
                "pxor {y}, {z}",
                "por {x}, {y}",
                "add {at}, 16",
                "cmp {at}, {last}",
                "jb 2b",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {y}, {y}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {z}, {z}",
                "pcmpeqb {x}, {y}",
                "pmovmskb {gathered:e}, {x}",
                "xor {gathered:e}, 0xffff",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "pxor {x}, {x}",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), last = in(reg) a.len() - 16, at = out(reg) _,
                x = out(xmm_reg) _, y = out(xmm_reg) _, z = out(xmm_reg) _, gathered = out(reg) gathered,
                options(readonly, nostack, pure),
            );
        }
        gathered
    }

    /// `N` to twice as many bytes: the first `N` and the last, for `N` of 32 and 64.
    fn avx2_ends<const N: usize>(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: the processor has AVX2, as the caller has asked; reads `N` bytes at either end of either slice, which has as
        // many; as above.
        unsafe {
            asm!(
                "vmovdqu ymm0, [{a}]",
                "vmovdqu ymm1, [{a} + {len} - 32]",
                "vpxor ymm0, ymm0, [{b}]",
                "vpxor ymm1, ymm1, [{b} + {len} - 32]",
                "vpor ymm0, ymm0, ymm1",
                ".if {n} == 64",
                "vmovdqu ymm1, [{a} + 32]",
                "vmovdqu ymm2, [{a} + {len} - 64]",
                "vpxor ymm1, ymm1, [{b} + 32]",
                "vpxor ymm2, ymm2, [{b} + {len} - 64]",
                "vpor ymm1, ymm1, ymm2",
                "vpor ymm0, ymm0, ymm1",
                ".endif",
                "xor {gathered:e}, {gathered:e}",
                "vptest ymm0, ymm0",
                "setnz {gathered:l}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm0, ymm0, ymm0",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm1, ymm1, ymm1",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm2, ymm2, ymm2",
                "vzeroupper",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), len = in(reg) a.len(), n = const N,
                gathered = out(reg_abcd) gathered,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, // vzeroupper clears the upper half of each
                options(readonly, nostack, pure),
            );
        }
        gathered
    }

    /// From 128 bytes on, 128 at a time; the last of them once more where the length is no multiple.
    fn avx2_steps(a: &[u8], b: &[u8]) -> u64 {
        let mut gathered: u64;
        // SAFETY: the processor has AVX2, as the caller has asked; reads 128 bytes at a time, the last of them at the end of
        // either slice, which has as many; as above.
        unsafe {
            asm!(
                "vmovdqu ymm0, [{a} + {last}]",
                "vmovdqu ymm1, [{a} + {last} + 32]",
                "vmovdqu ymm2, [{a} + {last} + 64]",
                "vmovdqu ymm3, [{a} + {last} + 96]",
                "vpxor ymm0, ymm0, [{b} + {last}]",
                "vpxor ymm1, ymm1, [{b} + {last} + 32]",
                "vpxor ymm2, ymm2, [{b} + {last} + 64]",
                "vpxor ymm3, ymm3, [{b} + {last} + 96]",
                "xor {at:e}, {at:e}",
                "2:",
                "vmovdqu ymm4, [{a} + {at}]",
                "vmovdqu ymm5, [{a} + {at} + 32]",
                "vmovdqu ymm6, [{a} + {at} + 64]",
                "vmovdqu ymm7, [{a} + {at} + 96]",
                "vpxor ymm4, ymm4, [{b} + {at}]",
                "vpxor ymm5, ymm5, [{b} + {at} + 32]",
                "vpxor ymm6, ymm6, [{b} + {at} + 64]",
                "vpxor ymm7, ymm7, [{b} + {at} + 96]",
                "vpor ymm0, ymm0, ymm4",
                "vpor ymm1, ymm1, ymm5",
                "vpor ymm2, ymm2, ymm6",
                "vpor ymm3, ymm3, ymm7",
                "add {at}, 128",
                "cmp {at}, {last}",
                "jb 2b",
                "vpor ymm0, ymm0, ymm1",
                "vpor ymm2, ymm2, ymm3",
                "vpor ymm0, ymm0, ymm2",
                "xor {gathered:e}, {gathered:e}",
                "vptest ymm0, ymm0",
                "setnz {gathered:l}",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm0, ymm0, ymm0",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm1, ymm1, ymm1",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm2, ymm2, ymm2",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm3, ymm3, ymm3",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm4, ymm4, ymm4",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm5, ymm5, ymm5",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm6, ymm6, ymm6",
                #[cfg(not(secmem_ablate = "eq-clear"))]
                "vpxor ymm7, ymm7, ymm7",
                "vzeroupper",
                a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), last = in(reg) a.len() - 128, at = out(reg) _,
                gathered = out(reg_abcd) gathered,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, // vzeroupper clears the upper half of each
                options(readonly, nostack, pure),
            );
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen_at_every_place_of_every_length() {
        for len in 1..if cfg!(miri) { 18 } else { 400 } {
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
    fn the_other_paths_agree() {
        for len in 1..if cfg!(miri) { 18 } else { 400 } {
            let a = vec![0x5A; len];
            assert_eq!((portable(&a, &a), differences(&a, &a)), (0, 0), "{len}");
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
            let steps = |a: &[u8], b: &[u8]| if a.len() < 16 { portable(a, b) } else { by_hand::steps(a, b) };
            #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(miri))))]
            let steps = portable;
            assert_eq!(steps(&a, &a), 0, "{len}");
            for at in 0..len {
                let mut b = a.clone();
                b[at] = 0xA5;

                assert_ne!(portable(&a, &b), 0, "byte {at} of {len}");
                assert_ne!(steps(&a, &b), 0, "byte {at} of {len}");
                assert_ne!(differences(&a, &b), 0, "byte {at} of {len}");
            }
        }
    }

    #[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
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
