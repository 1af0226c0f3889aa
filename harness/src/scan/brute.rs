//! The plain twin of the scanner for whole images: every place where a byte of a pattern stands and the byte before it
//! does not begins a run, and every run is followed to its end. No windows, no table, no filter, no pieces.

use super::index::describe;
use super::{Form, Match, leave_out_echoes, settle};
use crate::variants;

/// All matches in one stretch of memory, in the order of addresses.
pub(crate) fn find(needles: &[&[u8]], forms: &[Form], min_length: usize, address: u64, memory: &[u8]) -> Vec<Match> {
    let mut matches = Vec::new();
    for (needle, secret) in (0..).zip(needles) {
        for pattern in variants::encode(secret, forms) {
            let bytes = pattern.bytes();
            // Where in the pattern each value of a byte stands.
            let mut places = vec![Vec::new(); 256];
            bytes.iter().enumerate().for_each(|(at, byte)| places[usize::from(*byte)].push(at));
            for (there, value) in memory.iter().enumerate() {
                for &start in &places[usize::from(*value)] {
                    if start > 0 && there > 0 && memory[there - 1] == bytes[start - 1] {
                        continue; // within a run that began earlier
                    }
                    let run =
                        bytes[start..].iter().zip(&memory[there..]).take_while(|(one, other)| one == other).count();
                    if run >= min_length && pattern.tells(start..start + run, min_length) {
                        matches.push(describe(needle, &pattern, address + there as u64, start..start + run));
                    }
                }
            }
        }
    }
    let mut matches = settle(matches);
    leave_out_echoes(&mut matches, min_length);
    matches
}
