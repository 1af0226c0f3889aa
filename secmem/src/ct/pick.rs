//! Taking one of several byte strings without telling which.

use super::choice::Choice;
use super::hidden::{cleanly, opaque};
use super::words::{WORD, load, store};

/// Writes `yes` or `no` into `into`, as `choice` says. All bytes of both are read.
///
/// # Panics
///
/// If the lengths differ.
#[inline(never)]
pub fn select(choice: Choice, yes: &[u8], no: &[u8], into: &mut [u8]) {
    assert!(yes.len() == into.len() && no.len() == into.len(), "a choice between other lengths");
    let mask = choice.mask();
    cleanly(|| {
        for ((yes, no), into) in yes.chunks(WORD).zip(no.chunks(WORD)).zip(into.chunks_mut(WORD)) {
            let (yes, no) = (opaque(load(yes)), opaque(load(no)));
            store(no ^ (opaque(mask) & (yes ^ no)), into);
        }
    });
}

/// Copies `from` over `into` if `choice` says so. All bytes of both are read, and those of `into` written, in either case.
///
/// # Panics
///
/// If the lengths differ.
#[inline(never)]
pub fn copy_if(choice: Choice, from: &[u8], into: &mut [u8]) {
    assert_eq!(from.len(), into.len(), "a copy of another length");
    let mask = choice.mask();
    cleanly(|| {
        for (from, into) in from.chunks(WORD).zip(into.chunks_mut(WORD)) {
            let (new, old) = (opaque(load(from)), opaque(load(into)));
            store(old ^ (opaque(mask) & (new ^ old)), into);
        }
    });
}

/// Exchanges `a` and `b` if `choice` says so. All bytes of both are read and written in either case.
///
/// # Panics
///
/// If the lengths differ.
#[inline(never)]
pub fn swap_if(choice: Choice, a: &mut [u8], b: &mut [u8]) {
    assert_eq!(a.len(), b.len(), "an exchange of other lengths");
    let mask = choice.mask();
    cleanly(|| {
        for (a, b) in a.chunks_mut(WORD).zip(b.chunks_mut(WORD)) {
            let (first, second) = (opaque(load(a)), opaque(load(b)));
            let change = opaque(mask) & (first ^ second);
            store(first ^ change, a);
            store(second ^ change, b);
        }
    });
}

/// Writes row `index` of `table` into `into`; a row is as long as that is. Every byte of every row is read, in order,
/// whatever the index. Where there is no such row, zeros are written.
///
/// # Panics
///
/// If the table is no whole number of rows.
#[inline(never)]
pub fn look_up(table: &[u8], index: u64, into: &mut [u8]) {
    if into.is_empty() {
        assert!(table.is_empty(), "rows without bytes");
        return;
    }
    assert_eq!(table.len() % into.len(), 0, "no whole number of rows");
    into.fill(0);
    cleanly(|| {
        for (row, number) in table.chunks_exact(into.len()).zip(0_u64..) {
            let mask = Choice::from_zero(opaque(number ^ index)).mask();
            for (from, into) in row.chunks(WORD).zip(into.chunks_mut(WORD)) {
                let (from, gathered) = (opaque(load(from)), opaque(load(into)));
                store(gathered | (from & opaque(mask)), into);
            }
        }
    });
}
