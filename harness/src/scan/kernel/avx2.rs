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
        let run = if step <= NEAR { candidates::<true> } else { candidates::<false> };
        // SAFETY:
        // - The processor has AVX2: a `Token` exists, and only `Token::new` makes one, after asking.
        unsafe { run(filter, view, offsets, step, out) }
    }
}

#[target_feature(enable = "avx2")]
fn candidates<const IS_NEAR: bool>(
    filter: &Filter,
    view: &[u8],
    offsets: Range<usize>,
    step: usize,
    out: &mut Vec<usize>,
) -> usize {
    let table = Table::new(filter);
    let group = Group::<IS_NEAR>::new(step);
    let Some(others) = (offsets.len() / group.length).checked_sub(1) else { return offsets.start };
    // Where the reads of all those groups end. If that is out of view, the last of them are left to others.
    let end = (offsets.start + others * group.length + group.needs).min(view.len());
    let mut at = offsets.start;
    loop {
        let rest = view.get(at..end).unwrap_or_default();
        let (passed, mut lanes) = first_hit(&table, &group, rest);
        at += passed;
        if lanes == 0 {
            break;
        }
        while lanes != 0 {
            out.push(at + lanes.trailing_zeros() as usize * step);
            lanes &= lanes - 1;
        }
        at += group.length;
    }
    at
}

/// Tests groups until the filter does not rule one out. Gives the bytes before that group and its windows, one bit
/// each; 0 if there is none, with the bytes of all groups tested.
///
/// Nothing else is called here, so that everything stays in registers (a fifth faster, measured).
#[target_feature(enable = "avx2")]
#[inline(never)]
fn first_hit<const IS_NEAR: bool>(table: &Table<'_>, group: &Group<IS_NEAR>, bytes: &[u8]) -> (usize, u32) {
    let mut rest = bytes;
    let mut lanes = 0;
    while rest.len() >= group.needs {
        lanes = table.maybe(group.windows(rest));
        if lanes != 0 {
            break;
        }
        rest = &rest[group.length..];
    }
    (bytes.len() - rest.len(), lanes)
}

/// How eight windows get into the lanes of a vector.
///
/// If they are near, four lie within 16 bytes: two loads and a shuffle, which for a step of 3 is a quarter faster
/// than the gather that serves all other steps (measured).
struct Group<const IS_NEAR: bool> {
    step: usize,
    /// From the first window of a group to the first one of the next.
    length: usize,
    /// Bytes from the first window on that must be there: all that is read, and all that is passed.
    needs: usize,
    /// Near: where the bytes of each lane are in its load. Far: where each lane's window begins.
    places: __m256i,
}

/// The largest step at which four windows lie within 16 bytes.
const NEAR: usize = 4;

impl<const IS_NEAR: bool> Group<IS_NEAR> {
    #[target_feature(enable = "avx2")]
    fn new(step: usize) -> Self {
        let length = LANES * step;
        let (needs, places) = if IS_NEAR {
            let places: [u8; 16] = std::array::from_fn(|place| (place / 4 * step + place % 4) as u8);
            (length.max(4 * step + 16), _mm256_broadcastsi128_si256(load(&places, 0)))
        } else {
            assert!(i32::try_from(length).is_ok(), "the index makes no such steps");
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            (length, _mm256_mullo_epi32(lanes, _mm256_set1_epi32(step as i32)))
        };
        Self { step, length, needs, places }
    }

    /// The windows at 0, `step`, … 7 `step`.
    ///
    /// # Panics
    ///
    /// If there are fewer than `needs` bytes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn windows(&self, bytes: &[u8]) -> __m256i {
        if IS_NEAR {
            let halves = _mm256_set_m128i(load(bytes, 4 * self.step), load(bytes, 0));
            return _mm256_shuffle_epi8(halves, self.places);
        }
        assert!(bytes.len() >= self.needs, "a group is there");
        // SAFETY:
        // - Lane `n` reads the 4 bytes at `n * step` (the scale is one byte), the last lane those at `7 * step`. As
        //   `step` is above `NEAR`, they end before `8 * step`, which is `needs`, and so many bytes are there.
        // - No product overflowed its 32-bit lane: `new` has checked that `8 * step` fits. No alignment is asked for.
        unsafe { _mm256_i32gather_epi32::<1>(bytes.as_ptr().cast(), self.places) }
    }
}

/// The 16 bytes at `at`.
#[target_feature(enable = "avx2")]
#[inline]
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
