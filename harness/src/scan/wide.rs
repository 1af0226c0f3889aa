//! Windows of every fourth byte, for patterns in which the three bytes between are zeros.
//!
//! Memory is full of zeros, but hardly any of it has one byte in four filled and always the same one: eight bytes tell
//! that in one look, before the filter is asked.

use super::filter::Filter;

/// Positions that are tested together: one for each alignment.
pub(super) const GROUP: usize = 4;

/// Bytes from a group's first position to the end of its last window.
const SPAN: usize = 16;

/// Appends the offsets of each group (which begins at one of `starts`) at which a window lies in `view` that has zeros
/// between its bytes and that the filter does not rule out. `hollow` tells whether a window may have zeros in its middle.
pub(super) fn candidates(
    filter: &Filter,
    hollow: bool,
    view: &[u8],
    starts: impl Iterator<Item = usize>,
    out: &mut Vec<usize>,
) {
    for at in starts {
        // The second and third word are in all four windows: in one, their zeros are where the others have bytes.
        if let Some(bytes) = view.get(at + 4..at + 12).and_then(|bytes| bytes.first_chunk()) {
            let both = u64::from_le_bytes(*bytes);
            let word = (both | both >> 32) as u32;
            if word == 0 && !hollow || !one_byte(word) {
                continue;
            }
        }
        let rest = &view[at.min(view.len())..];
        for alignment in 0..GROUP {
            let Some(window) = rest.get(alignment..alignment + SPAN - GROUP + 1) else { break };
            let between = window.iter().enumerate().any(|(at, byte)| at % 4 != 0 && *byte != 0);
            if !between && filter.maybe(super::index::wide_word(window)) {
                out.push(at + alignment);
            }
        }
    }
}

/// Whether at most one byte of a word is other than zero.
fn one_byte(word: u32) -> bool {
    let low = word.trailing_zeros() & !7; // 32 for zero
    word.checked_shr(low).unwrap_or(0) <= 0xff
}
