//! The padding (RFC 8017, 7.1), with an empty label. Whether it is right is found out in constant time, once, at the end.

use sha2_now::{Digest, Sha256};

use super::Random;
use crate::ct::{self, Choice};

/// Bytes of a hash.
const HASH: usize = 32;

/// SHA-256 of nothing, for the label is empty.
const LABEL: [u8; HASH] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Pads `plain`, which is short enough, to as many bytes as `padded` has.
pub(super) fn encode(plain: &[u8], random: &mut Random<'_>, padded: &mut [u8]) {
    padded.fill(0);
    let (seed, block) = padded[1..].split_at_mut(HASH);
    random.fill(seed);
    block[..HASH].copy_from_slice(&LABEL);
    let start = block.len() - plain.len();
    block[start - 1] = 1;
    block[start..].copy_from_slice(plain);
    mask(seed, block);
    mask(block, seed);
}

/// Takes the padding off, and says whether it is right: then the content stands at the beginning of `out`, zeros behind it, and
/// `len` is its length.
///
/// Which instructions run and what memory they touch depends on the lengths of `padded` and `out` alone. `out` has room for the
/// longest content.
pub(crate) fn decode(padded: &mut [u8], out: &mut [u8], len: &mut usize) -> Choice {
    let (first, rest) = padded.split_at_mut(1);
    let (seed, block) = rest.split_at_mut(HASH);
    mask(block, seed);
    mask(seed, block);
    let (label, text) = block.split_at(HASH);

    let wrong = label.iter().zip(&LABEL).fold(first[0], |wrong, (found, expected)| wrong | (found ^ expected));
    let mut right = Choice::from_zero(wrong.into());
    let mut before = Choice::from_bit(1); // only zeros were met so far
    let mut found = [0; 8];
    out.fill(0);
    for (at, byte) in text.iter().enumerate() {
        let (is_zero, is_one) = (Choice::from_zero((*byte).into()), Choice::from_zero((byte ^ 1).into()));
        let content = &text[at + 1..];
        let starts = before & is_one;
        ct::copy_if(starts, content, &mut out[..content.len()]);
        ct::copy_if(starts, &(content.len() as u64).to_le_bytes(), &mut found);
        right = right & (!before | is_zero | is_one);
        before = before & is_zero;
    }
    *len = u64::from_le_bytes(found) as usize;
    right & !before
}

/// XORs MGF1 of `seed` over `into` (RFC 8017, B.2.1).
fn mask(seed: &[u8], into: &mut [u8]) {
    for (counter, block) in (0_u32..).zip(into.chunks_mut(HASH)) {
        let hash = Sha256::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
        block.iter_mut().zip(hash).for_each(|(byte, mask)| *byte ^= mask);
    }
}
