//! Eight windows at a time, with the vector instructions of AVX2.
#![allow(unsafe_code)] // vector loads and gathers take pointers, and the processor must have them

use std::arch::x86_64::*;
use std::ops::Range;

use crate::scan::filter::{FIRST_BIT, Filter, SECOND_BIT};

/// Proof that this processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct Token(());

/// Windows that are tested together.
const LANES: usize = 8;

impl Token {
    pub(super) fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// As [`Kernel::candidates`](super::Kernel::candidates), for as many offsets as whole groups of eight cover.
    /// Returns the first offset that was not tested.
    pub(super) fn candidates(
        self,
        filter: &Filter,
        view: &[u8],
        offsets: Range<usize>,
        step: usize,
        out: &mut Vec<usize>,
    ) -> usize {
        // SAFETY:
        // - The processor has AVX2: a `Token` exists, and only `Token::new` makes one, after asking.
        unsafe { candidates(filter, view, offsets, step, out) }
    }
}

#[target_feature(enable = "avx2")]
fn candidates(filter: &Filter, view: &[u8], offsets: Range<usize>, step: usize, out: &mut Vec<usize>) -> usize {
    let table = Table::new(filter);
    let group = LANES * step;
    let mut at = offsets.start;
    if step <= 4 {
        // Four windows lie within 16 bytes: two loads, and a shuffle that spreads them over the lanes.
        let spread = spread(step);
        while at + group <= offsets.end && at + 4 * step + 16 <= view.len() {
            let low = load(view, at);
            let high = load(view, at + 4 * step);
            let windows = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), spread);
            table.test(windows, at, step, out);
            at += group;
        }
    } else {
        while at + group <= offsets.end {
            let window = |lane: usize| i32::from_le_bytes(*view[at + lane * step..].first_chunk().expect("in view"));
            let windows = _mm256_setr_epi32(
                window(0),
                window(1),
                window(2),
                window(3),
                window(4),
                window(5),
                window(6),
                window(7),
            );
            table.test(windows, at, step, out);
            at += group;
        }
    }
    at
}

/// For each 128-bit half, the bytes of the windows at 0, `step`, 2 `step` and 3 `step`.
#[target_feature(enable = "avx2")]
fn spread(step: usize) -> __m256i {
    let mut bytes = [0u8; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = (place / 4 * step + place % 4) as u8;
    }
    _mm256_broadcastsi128_si256(load(&bytes, 0))
}

/// The 16 bytes at `at`.
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m128i {
    let bytes: &[u8; 16] = bytes[at..].first_chunk().expect("16 bytes are there");
    // SAFETY:
    // - `bytes` is a live reference to 16 bytes; the instruction asks for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// A filter, as eight lanes look it up.
struct Table<'a> {
    words: &'a [u32],
    multiplier: __m256i,
    shift: __m128i,
}

impl<'a> Table<'a> {
    #[target_feature(enable = "avx2")]
    fn new(filter: &'a Filter) -> Self {
        let words = filter.words();
        assert!(words.len() as u64 >= 1 << (u32::BITS - filter.shift()), "a word for every hash");
        Self {
            words,
            multiplier: _mm256_set1_epi32(filter.multiplier() as i32),
            shift: _mm_cvtsi32_si128(filter.shift() as i32),
        }
    }

    /// Appends the offsets of those of the eight windows that the filter does not rule out.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn test(&self, windows: __m256i, at: usize, step: usize, out: &mut Vec<usize>) {
        let mut lanes = self.maybe(windows);
        while lanes != 0 {
            out.push(at + lanes.trailing_zeros() as usize * step);
            lanes &= lanes - 1;
        }
    }

    /// One bit for each of the eight windows: what [`Filter::maybe`] says.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn maybe(&self, windows: __m256i) -> u32 {
        let hash = _mm256_mullo_epi32(windows, self.multiplier);
        let number = _mm256_srl_epi32(hash, self.shift);
        // SAFETY:
        // - Every lane of `number` is a 32-bit hash shifted down by `filter.shift()`, so it is below
        //   `1 << (32 - shift)`, and `Table::new` has asserted that there are as many words.
        // - The words are borrowed for as long as `self` lives; the scale is the size of one of them.
        let words = unsafe { _mm256_i32gather_epi32::<4>(self.words.as_ptr().cast(), number) };
        let five = _mm256_set1_epi32(31);
        let first = _mm256_and_si256(_mm256_srli_epi32::<{ FIRST_BIT as i32 }>(hash), five);
        let second = _mm256_and_si256(_mm256_srli_epi32::<{ SECOND_BIT as i32 }>(hash), five);
        let both = _mm256_and_si256(_mm256_srlv_epi32(words, first), _mm256_srlv_epi32(words, second));
        // The lowest bit of each lane goes where movemask reads it.
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32::<31>(both))) as u32
    }
}
