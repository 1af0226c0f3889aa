//! Random bytes faster than the kernel gives them, for one purpose: the random pass of a wipe.
//!
//! AES-128 in counter mode under a key that is drawn once in a process. Nobody's secret rests on these bytes: zeros are written
//! over them at once. So the key stays where it is, and no block of the stream is used twice only because that is easily had.
//!
//! A crate's cipher takes its counters from memory; this keeps them in registers, eight blocks
//! (with VAES sixteen) at a time. The tests hold it against that crate. Without AES in the processor the kernel's bytes serve.
#![allow(unsafe_code)] // vector code behind a check of the processor

#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::sys;

/// Fills `into`, or as much of it as the kernel can.
///
/// # Errors
///
/// [`Error::Random`] if the kernel gave no random bytes.
pub(crate) fn fill(into: &mut [u8]) -> Result<(), Error> {
    #[cfg(test)]
    if sys::seam::left() > 0 {
        return from_kernel(into); // the key is drawn once in a process, and a test has a refusal planned
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if std::arch::is_x86_feature_detected!("aes") {
        return x86::fill(into);
    }
    from_kernel(into)
}

/// The same from the kernel.
///
/// # Errors
///
/// As [`fill`].
pub(crate) fn from_kernel(mut into: &mut [u8]) -> Result<(), Error> {
    while !into.is_empty() {
        match sys::random(into) {
            Ok(got) => into = &mut into[got..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Random { source }),
        }
    }
    Ok(())
}

/// The first of so many blocks that nobody else has or will get.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn take_blocks(count: usize) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(count as u64, Ordering::Relaxed) // wraps after 2^68 bytes
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use std::arch::x86_64::*;

    use std::sync::OnceLock;

    use super::{from_kernel, take_blocks};
    use crate::error::Error;

    /// Round keys.
    type Schedule = [__m128i; 11];

    pub(super) fn fill(into: &mut [u8]) -> Result<(), Error> {
        static KEYS: OnceLock<Schedule> = OnceLock::new();
        let keys = match KEYS.get() {
            Some(keys) => keys,
            None => {
                let mut key = [0; 16];
                from_kernel(&mut key)?;
                // SAFETY: the processor has AES, as the caller asked.
                KEYS.get_or_init(|| unsafe { expand(&key) }) // of two threads that are here at once, one's key stands
            }
        };
        let first = take_blocks(into.len().div_ceil(16));
        if std::arch::is_x86_feature_detected!("vaes") && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has VAES and AVX2, as the line above asked, and AES, as the caller did.
            unsafe { fill_wide(keys, first, into) };
        } else {
            // SAFETY: the processor has AES, as the caller asked.
            unsafe { fill_narrow(keys, first, into) };
        }
        Ok(())
    }

    /// The key schedule of AES-128 (FIPS 197, 5.2).
    #[target_feature(enable = "aes,sse2")]
    pub(super) fn expand(key: &[u8; 16]) -> Schedule {
        #[target_feature(enable = "aes,sse2")]
        fn next<const RCON: i32>(before: __m128i) -> __m128i {
            let assist = _mm_shuffle_epi32::<0xFF>(_mm_aeskeygenassist_si128::<RCON>(before));
            let one = _mm_xor_si128(before, _mm_slli_si128::<4>(before));
            let two = _mm_xor_si128(one, _mm_slli_si128::<8>(one));
            _mm_xor_si128(two, assist)
        }
        let [low, high] = [0, 8].map(|at| i64::from_le_bytes(std::array::from_fn(|byte| key[at + byte])));
        let mut keys = [_mm_set_epi64x(high, low); 11];
        keys[1] = next::<0x01>(keys[0]);
        keys[2] = next::<0x02>(keys[1]);
        keys[3] = next::<0x04>(keys[2]);
        keys[4] = next::<0x08>(keys[3]);
        keys[5] = next::<0x10>(keys[4]);
        keys[6] = next::<0x20>(keys[5]);
        keys[7] = next::<0x40>(keys[6]);
        keys[8] = next::<0x80>(keys[7]);
        keys[9] = next::<0x1B>(keys[8]);
        keys[10] = next::<0x36>(keys[9]);
        keys
    }

    /// Eight blocks of 16 bytes at a time. A block's counter is its first eight bytes, little-endian.
    #[target_feature(enable = "aes,sse2")]
    pub(super) fn fill_narrow(keys: &Schedule, first: u64, into: &mut [u8]) {
        let mut counter = first;
        let (chunks, rest) = into.as_chunks_mut::<128>();
        for chunk in chunks {
            *chunk = eight(keys, counter);
            counter = counter.wrapping_add(8);
        }
        if !rest.is_empty() {
            let last = eight(keys, counter);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    #[inline]
    #[target_feature(enable = "aes,sse2")]
    fn eight(keys: &Schedule, first: u64) -> [u8; 128] {
        let mut blocks: [__m128i; 8] = [_mm_setzero_si128(); 8];
        for (at, block) in blocks.iter_mut().enumerate() {
            *block = _mm_xor_si128(_mm_set_epi64x(0, first.wrapping_add(at as u64).cast_signed()), keys[0]);
        }
        for key in &keys[1..10] {
            for block in &mut blocks {
                *block = _mm_aesenc_si128(*block, *key);
            }
        }
        for block in &mut blocks {
            *block = _mm_aesenclast_si128(*block, keys[10]);
        }
        // SAFETY: vectors are bytes, and eight of them as long as the array.
        unsafe { std::mem::transmute::<[__m128i; 8], [u8; 128]>(blocks) }
    }

    /// Sixteen blocks at a time, two to a register.
    #[target_feature(enable = "aes,sse2,avx2,vaes")]
    pub(super) fn fill_wide(keys: &Schedule, first: u64, into: &mut [u8]) {
        let keys = keys.map(|key| _mm256_broadcastsi128_si256(key));
        let mut counter = first;
        let (chunks, rest) = into.as_chunks_mut::<256>();
        for chunk in chunks {
            *chunk = sixteen(&keys, counter);
            counter = counter.wrapping_add(16);
        }
        if !rest.is_empty() {
            let last = sixteen(&keys, counter);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }

    #[inline]
    #[target_feature(enable = "aes,sse2,avx2,vaes")]
    fn sixteen(keys: &[__m256i; 11], first: u64) -> [u8; 256] {
        let start = _mm256_add_epi64(
            _mm256_set_epi64x(0, first.cast_signed(), 0, first.cast_signed()),
            _mm256_set_epi64x(0, 1, 0, 0),
        );
        let two = _mm256_set_epi64x(0, 2, 0, 2);
        let mut blocks = [start; 8];
        for at in 1..8 {
            blocks[at] = _mm256_add_epi64(blocks[at - 1], two);
        }
        for block in &mut blocks {
            *block = _mm256_xor_si256(*block, keys[0]);
        }
        for key in &keys[1..10] {
            for block in &mut blocks {
                *block = _mm256_aesenc_epi128(*block, *key);
            }
        }
        for block in &mut blocks {
            *block = _mm256_aesenclast_epi128(*block, keys[10]);
        }
        // SAFETY: vectors are bytes, and eight of them as long as the array.
        unsafe { std::mem::transmute::<[__m256i; 8], [u8; 256]>(blocks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_calls_give_the_same_bytes_and_every_value_comes() {
        let (mut one, mut two) = (vec![0; 4099], vec![0; 4099]);
        fill(&mut one).unwrap();
        fill(&mut two).unwrap();

        assert!(one.chunks(16).zip(two.chunks(16)).all(|(one, two)| one != two || one.len() < 16));
        assert!((0..=u8::MAX).all(|value| one.iter().filter(|&&byte| byte == value).count() < 320));
    }

    #[test]
    fn a_kernel_without_random_bytes_is_an_error() {
        use crate::sys::{Call, seam};

        seam::fail_next(Call::Random, libc::ENOSYS);

        assert!(matches!(from_kernel(&mut [0; 16]), Err(Error::Random { .. })));
        assert_eq!(seam::left(), 0);
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn the_stream_is_that_of_a_crate_of_aes() {
        use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

        let key: [u8; 16] = std::array::from_fn(|at| (at as u8).wrapping_mul(17));
        let cipher = aes::Aes128::new(&Array::from(key));
        let first = u64::from(u32::MAX) - 9;
        let expected: Vec<u8> = (0..70)
            .flat_map(|at: u64| {
                let mut block = [0; 16];
                block[..8].copy_from_slice(&first.wrapping_add(at).to_le_bytes());
                let mut block = Array::from(block);
                cipher.encrypt_block(&mut block);
                block.0
            })
            .collect();
        for len in [0, 1, 15, 16, 127, 128, 129, 255, 256, 257, 1000, 1111] {
            let mut into = vec![0; len];
            if std::arch::is_x86_feature_detected!("aes") {
                // SAFETY: the processor has AES, as the line above asked.
                let keys = unsafe { x86::expand(&key) };
                // SAFETY: the processor has AES, as was asked.
                unsafe { x86::fill_narrow(&keys, first, &mut into) };
                assert_eq!(into, expected[..len], "{len}");
            }
            if std::arch::is_x86_feature_detected!("vaes") {
                // SAFETY: the processor has VAES, as the line above asked, and with it AES.
                let keys = unsafe { x86::expand(&key) };
                // SAFETY: the processor has VAES, and with it AVX2.
                unsafe { x86::fill_wide(&keys, first, &mut into) };
                assert_eq!(into, expected[..len], "{len}");
            }
        }
    }
}
