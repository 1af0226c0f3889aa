//! What must hold of wiping and comparing, for any bytes: for fuzz targets and for the seeds that tests replay.

use crate::ct;
use crate::wipe::{Schedule, wipe_with};

/// Wipes a copy of `data` by each schedule, at an address that the data chooses.
///
/// # Panics
///
/// If a byte of the copy is not zero afterwards, or one beside it has changed.
pub fn wipe(data: &[u8]) {
    const FENCE: u8 = 0x9D;
    let before = 64 + data.first().map_or(0, |&byte| usize::from(byte) % 64);
    for schedule in [Schedule::Single, Schedule::SixPass] {
        let mut buffer = vec![FENCE; before + data.len() + 64];
        let place = before..before + data.len();
        buffer[place.clone()].copy_from_slice(data);

        wipe_with(&mut buffer[place.clone()], schedule).expect("the kernel has random bytes");

        assert!(buffer[place.clone()].iter().all(|&byte| byte == 0), "{schedule:?} left something");
        let fences = buffer[..place.start].iter().chain(&buffer[place.end..]);
        assert!(fences.into_iter().all(|&byte| byte == FENCE), "{schedule:?} went too far");
    }
}

/// Holds [`ct::eq`] against `==`: both parts of `data` at many splits, halves, and single flipped bits.
///
/// # Panics
///
/// If the two disagree.
pub fn compare(data: &[u8]) {
    let agree = |a: &[u8], b: &[u8]| assert_eq!(ct::eq(a, b), a == b, "lengths {} and {}", a.len(), b.len());
    for at in (0..=data.len()).step_by(data.len() / 64 + 1) {
        let (head, tail) = data.split_at(at);
        agree(head, tail);
        agree(tail, &data[..tail.len()]);
        agree(head, &data[data.len() - head.len()..]);
    }
    let mut copy = data.to_vec();
    agree(data, &copy);
    for at in (0..data.len()).step_by(data.len() / 64 + 1) {
        copy[at] ^= 1 << (at % 8);
        agree(data, &copy);
        copy[at] = data[at];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_wiped(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            wipe(&data);
        }

        #[test]
        fn any_bytes_compare_as_they_should(data in proptest::collection::vec(0..2u8, 0..600)) {
            compare(&data);
        }
    }
}
