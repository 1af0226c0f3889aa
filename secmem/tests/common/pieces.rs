//! A search of this process's own memory for a pattern that nothing else in it holds.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::mpsc;
use std::thread;

use super::{read_own, writable_mappings};

/// A byte of the pattern.
pub fn pattern(at: usize) -> u8 {
    let at = black_box(at as u32).wrapping_mul(0x9E37_79B1);
    (at >> 13 ^ at >> 24) as u8
}

/// Where pieces of 8 bytes of the pattern stand in this process's writable memory.
pub fn pieces() -> Vec<usize> {
    pieces_of(&[pattern])
}

/// The same for any patterns, each of 64 bytes that are told by their place. The search knows them masked alone.
pub fn pieces_of(patterns: &[fn(usize) -> u8]) -> Vec<usize> {
    const MASK: u64 = 0x5C5C_5C5C_5C5C_5C5C;
    let piece = |of: fn(usize) -> u8, at: usize| {
        (0..8).fold(0, |piece, byte| piece | u64::from(of(at + byte) ^ 0x5C) << (8 * byte))
    };
    let masked: HashSet<u64> = patterns.iter().flat_map(|of| (0..=64 - 8).map(|at| piece(*of, at))).collect();
    let mut first = [false; 256];
    masked.iter().for_each(|piece| first[(piece & 0xFF) as usize] = true);
    let mut buffer = vec![0_u8; 256 << 10];
    let own = buffer.as_ptr_range();
    let mut found = Vec::new();
    for range in writable_mappings() {
        for start in range.clone().step_by(buffer.len() - 8) {
            let len = buffer.len().min(range.end - start);
            let got = read_own(start, &mut buffer[..len]);
            // Most bytes of a process are zeros, of which the pattern has few: whole words of them are passed over.
            let mut at = 0;
            while at < got.saturating_sub(8) {
                let word = u64::from_le_bytes(buffer[at..at + 8].try_into().unwrap());
                if word == 0 {
                    at += 1 + usize::from(buffer[at + 8] == 0) * 7;
                    continue;
                }
                let address = start + at;
                if first[(word & 0xFF) as usize ^ 0x5C]
                    && !(own.start.addr()..own.end.addr()).contains(&address)
                    && masked.contains(&(word ^ MASK))
                {
                    found.push(address);
                }
                at += 1;
            }
        }
    }
    found
}

/// Runs `f` so far down the stack that what comes after it does not get there.
#[inline(never)]
fn deep(f: impl FnOnce()) {
    let room = [0_u8; 128 << 10];
    black_box(&room);
    f();
    black_box(&room);
}

/// [`pieces`], when `f` has ended, and while the stack that it ran on is left as it was: nobody runs there any more.
pub fn pieces_after(f: impl FnOnce() + Send) -> Vec<usize> {
    pieces_of_after(&[pattern], f)
}

/// [`pieces_of`], in the same way.
pub fn pieces_of_after(patterns: &[fn(usize) -> u8], f: impl FnOnce() + Send) -> Vec<usize> {
    let (ended, ends) = mpsc::channel();
    let (looked, looks) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            deep(f);
            ended.send(()).unwrap();
            let _ = looks.recv();
        });
        ends.recv().expect("it has ended");
        let found = pieces_of(patterns);
        drop(looked);
        found
    })
}
