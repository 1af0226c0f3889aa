//! What the scanner does, said slowly: every pattern, at every offset, over bytes that lie in one piece.

use super::index::describe;
use super::{Form, Index, Match, Scanner, leave_out_echoes, settle};
use crate::variants;

/// Pieces of memory, each with its address.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

/// All matches in `pieces`, in the order of addresses.
pub(super) fn find(needles: &[&[u8]], forms: &[Form], min_length: usize, pieces: &Pieces) -> Vec<Match> {
    let mut matches = Vec::new();
    for (address, memory) in joined(pieces) {
        for (needle, secret) in (0..).zip(needles) {
            for pattern in variants::encode(secret, forms) {
                let bytes = pattern.bytes();
                // Slide the pattern over memory, from a first overlap of one byte to a last one.
                for at in 1..bytes.len() + memory.len() {
                    let overlap = bytes.len().saturating_sub(at)..bytes.len().min(bytes.len() + memory.len() - at);
                    let there = |offset: usize| at + offset - bytes.len();
                    let mut start = overlap.start;
                    for end in overlap.clone().chain([overlap.end]) {
                        if end < overlap.end && memory[there(end)] == bytes[end] {
                            continue;
                        }
                        // No byte of any form counts for more than a byte of the secret.
                        if end - start >= min_length && pattern.tells(start..end, min_length) {
                            let address = address.wrapping_add(there(start) as u64);
                            matches.push(describe(needle, &pattern, address, start..end));
                        }
                        start = end + 1;
                    }
                }
            }
        }
    }
    let mut matches = settle(matches);
    leave_out_echoes(&mut matches, min_length);
    matches
}

/// The pieces, those that touch made one.
fn joined(pieces: &Pieces) -> Pieces {
    let mut joined = Pieces::new();
    for (address, bytes) in pieces {
        match joined.last_mut() {
            Some((start, before)) if start.wrapping_add(before.len() as u64) == *address => before.extend(bytes),
            _ => joined.push((*address, bytes.clone())),
        }
    }
    joined
}

/// Compares the scanner with [`find`], by every loop that this machine can run.
pub(super) fn compare(needles: &[&[u8]], forms: &[Form], min_length: usize, pieces: &Pieces) {
    let expected = find(needles, forms, min_length, pieces);
    for kernel in super::kernel::Kernel::all() {
        let index = match Index::new(needles, forms, min_length) {
            Ok(index) => index.with_kernel(kernel),
            Err(_) => return,
        };
        let mut scanner = Scanner::new(&index);
        pieces.iter().for_each(|(address, bytes)| scanner.feed(*address, bytes));
        let found = scanner.finish();

        assert_eq!(found, expected, "{kernel:?}, step {}", index.step());
    }
}

/// Makes a case of any bytes, and compares. See [`scan::oracle`](super::oracle).
///
/// The first byte tells the shortest length and which forms are asked for; then come the needles. What follows is a list of orders: bytes as they are, the same byte many times, a piece of a
/// needle in some form, or a cut, with or without a gap.
pub(super) fn oracle(data: &[u8]) {
    let mut data = data.iter().copied();
    let mut next = || data.next().unwrap_or(0);
    let asked = next();
    let min_length = 4 + usize::from(asked % 13);
    let forms: Vec<Form> = match usize::from(asked / 13) {
        0 => variants::FORMS[..6].to_vec(),
        number => (0..4).map(|step| variants::FORMS[(number + 5 * step) % variants::FORMS.len()]).collect(),
    };
    let secrets: Vec<Vec<u8>> = (0..=next() % 3).map(|_| (0..next() % 40).map(|_| next()).collect()).collect();
    let needles: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let patterns: Vec<_> = needles.iter().flat_map(|secret| variants::encode(secret, &forms)).collect();

    let mut pieces = vec![(u64::from(next()), Vec::new())];
    for _ in 0..next() % 32 {
        let (order, amount) = (next(), usize::from(next()));
        let (address, memory) = pieces.last_mut().expect("there is one from the start");
        match order % 5 {
            0 => memory.extend((0..amount % 16).map(|_| next())),
            1 => memory.resize(memory.len() + amount, next()),
            2 if !patterns.is_empty() => {
                let bytes = patterns[amount % patterns.len()].bytes();
                let start = usize::from(next()) % bytes.len();
                let end = start + usize::from(next()) % (bytes.len() - start + 1);
                memory.extend_from_slice(&bytes[start..end]);
            }
            3 => {
                let end = address.wrapping_add(memory.len() as u64);
                pieces.push((end, Vec::new()));
            }
            _ => {
                let end = address.wrapping_add(memory.len() as u64);
                pieces.push((end.wrapping_add(amount as u64), Vec::new()));
            }
        }
    }
    compare(&needles, &forms, min_length, &pieces);
}
