//! A small table that knows most windows that stand in no pattern.
//!
//! Two bits for each window, in one word: a blocked Bloom filter. It answers *no* or *maybe*, never a wrong no. It is
//! small enough to stay in the processor's cache, which is what makes the search fast.

use zeroize::Zeroizing;

/// The filter. Its bits are made from needles and wiped on drop.
pub(super) struct Filter {
    words: Zeroizing<Vec<u32>>,
    multiplier: u32,
    shift: u32,
}

/// The filter's words for each window in it.
const WORDS_A_WINDOW: usize = 4;

/// Fewest words, as a power of two.
const MIN_WORDS: usize = 1 << 8;

/// Most words, as a power of two: 1 MiB. A larger filter would be out of cache.
const MAX_WORDS: usize = 1 << 18;

/// How many multipliers are tried.
const DRAWS: usize = 64;

impl Filter {
    /// A filter that answers *maybe* for those windows.
    ///
    /// Memory is full of certain words: zeros, small numbers, fillings. If the filter took one of them for a window by
    /// accident, every page of it would be looked at byte by byte (an unlucky multiplier: 82 million candidates per
    /// GiB of zeros, measured). So multipliers are drawn until none of those words passes; the best of [`DRAWS`] if
    /// none is perfect.
    pub(super) fn new(windows: &[u32]) -> Self {
        let size = (WORDS_A_WINDOW * windows.len()).next_power_of_two().clamp(MIN_WORDS, MAX_WORDS);
        let mut best: Option<(usize, Self)> = None;
        for multiplier in multipliers().take(DRAWS) {
            let mut filter = Self { words: Zeroizing::new(vec![0; size]), multiplier, shift: u32::BITS - size.ilog2() };
            for window in windows {
                let (word, bits) = filter.place(*window);
                filter.words[word] |= bits;
            }
            let mistakes = common_words().filter(|word| filter.maybe(*word)).count();
            if best.as_ref().is_none_or(|(fewest, _)| mistakes < *fewest) {
                best = Some((mistakes, filter));
            }
            if mistakes == 0 {
                break;
            }
        }
        best.expect("at least one multiplier is tried").1
    }

    /// Whether the window may be one of the filter's.
    pub(super) fn maybe(&self, window: u32) -> bool {
        let (word, bits) = self.place(window);
        self.words[word] & bits == bits
    }

    /// The word in which the window's bits stand, and the bits.
    fn place(&self, window: u32) -> (usize, u32) {
        let hash = window.wrapping_mul(self.multiplier);
        ((hash >> self.shift) as usize, 1 << (hash >> FIRST_BIT & 31) | 1 << (hash >> SECOND_BIT & 31))
    }

    /// The words; there are `1 << (32 - shift())` of them.
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    /// What the hash of a window is: its product with this number.
    pub(super) fn multiplier(&self) -> u32 {
        self.multiplier
    }

    /// How far the hash is shifted down to be the number of a word.
    pub(super) fn shift(&self) -> u32 {
        self.shift
    }
}

/// How far the hash is shifted down to be the number of the first bit.
///
/// With the largest filter the word takes the upper 18 bits of the hash. Of the other 14 the upper ten are the numbers
/// of the two bits; the upper bits of a product depend on the most bits of a window.
pub(super) const FIRST_BIT: u32 = 9;

/// How far the hash is shifted down to be the number of the second bit.
pub(super) const SECOND_BIT: u32 = 4;

/// Odd numbers in a fixed order (the upper halves of a Weyl sequence), so that the same needles give the same filter.
fn multipliers() -> impl Iterator<Item = u32> {
    (1u64..).map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32 | 1)
}

/// Words that memory is full of: one byte four times (zeros first), and small numbers of either byte order, aligned or
/// not.
fn common_words() -> impl Iterator<Item = u32> {
    let filled = (0..=255).map(|byte| u32::from_ne_bytes([byte; 4]));
    let small = (1..=64).flat_map(|number: u32| [0, 8, 16, 24].map(|shift| number << shift));
    filled.chain(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(count: u32) -> Vec<u32> {
        let random = blake3::Hasher::new().update(&count.to_le_bytes()).finalize_xof();
        let mut bytes = vec![0; 4 * count as usize];
        { random }.fill(&mut bytes);
        bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn no_window_of_its_own_is_answered_with_no() {
        for count in [1, 100, 10_000, 100_000] {
            let windows = windows(count);

            let filter = Filter::new(&windows);

            assert!(windows.iter().all(|window| filter.maybe(*window)));
        }
    }

    #[test]
    fn common_words_are_answered_with_no() {
        for count in [1, 100, 1_000, 10_000] {
            let filter = Filter::new(&windows(count));

            assert_eq!(common_words().filter(|word| filter.maybe(*word)).count(), 0, "{count} windows");
        }
    }

    #[test]
    fn few_other_words_pass() {
        let filter = Filter::new(&windows(10_000));

        let passed = (0..1_000_000u32).filter(|number| filter.maybe(number.wrapping_mul(0x85EB_CA6B))).count();

        assert!(passed < 5_000, "{passed} of a million");
    }
}
