//! Comparing two buffers in a time that tells nothing of what they hold, nor of how much.
//!
//! A buffer is zero behind its data. So the buffers hold the same if their whole slots are the same, the longer one's rest
//! being zero, and their logical lengths are. All of both slots is read, whatever is found: the time depends on the
//! capacities, which [`Manager::info`](super::Manager::info) tells anyway.

use super::error::Error;
use crate::{ct, scrub};

/// What one side gives: a whole slot, and how much of it is data.
pub(super) type Side<'a> = (&'a [u8], usize);

/// Bytes that are compared with zeros at once.
const STEP: usize = 256;

pub(super) fn same(a: Side<'_>, b: Side<'_>) -> Result<bool, Error> {
    if cfg!(secmem_ablate = "manager-compare") {
        // What it must not be: plain copies, and a way out as soon as the lengths differ.
        let copies = (a.0[..a.1].to_vec(), b.0[..b.1].to_vec());
        return Ok(a.1 == b.1 && copies.0 == copies.1);
    }
    if cfg!(secmem_ablate = "manager-length") && a.1 != b.1 {
        return Ok(false);
    }
    let mut same = false;
    scrub::run(|| same = whole(a, b))?;
    Ok(same)
}

#[inline(never)]
fn whole((a, a_len): Side<'_>, (b, b_len): Side<'_>) -> bool {
    let common = a.len().min(b.len());
    let mut same = read(&a[..common], &b[..common]);
    for rest in [&a[common..], &b[common..]] {
        for step in rest.chunks(STEP) {
            same &= read(step, &[0; STEP][..step.len()]);
        }
    }
    same & ct::eq(&a_len.to_ne_bytes(), &b_len.to_ne_bytes())
}

fn read(a: &[u8], b: &[u8]) -> bool {
    #[cfg(test)]
    tests::READ.with(|read| read.set(read.get() + a.len()));
    ct::eq(a, b)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static READ: Cell<usize> = const { Cell::new(0) };
    }

    fn slot(data: &[u8], capacity: usize) -> Vec<u8> {
        let mut slot = data.to_vec();
        slot.resize(capacity, 0);
        slot
    }

    #[test]
    fn the_same_data_is_the_same_in_another_capacity_and_a_zero_at_the_end_counts() {
        for capacity in [3, 4, 64, 1000, 5000] {
            for (data, is_same) in [(&b"abc"[..], true), (b"abd", false), (b"ab", false), (b"", false)] {
                let (a, b) = (slot(b"abc", capacity), slot(data, 4));
                assert_eq!(same((&a, 3), (&b, data.len())).unwrap(), is_same, "{capacity} {data:?}");
                assert_eq!(same((&b, data.len()), (&a, 3)).unwrap(), is_same, "{capacity} {data:?}");
            }
        }
        assert!(!same((b"abc\0", 3), (b"abc\0", 4)).unwrap());
    }

    #[test]
    fn as_many_bytes_are_read_whatever_they_are_and_however_many_count() {
        let (long, short) = (slot(b"abc", 4096), slot(b"abc", 100));
        let differs_at_once = slot(b"xbc", 100);
        for (other, len) in [(&short, 3), (&short, 2), (&short, 100), (&short, 0), (&differs_at_once, 3)] {
            READ.set(0);

            let _ = same((&long, 3), (other, len)).unwrap();

            assert_eq!(READ.get(), 4096, "{len}");
        }
    }
}
