//! Round keys of AES, made from a key: what is left in memory where the key itself may be gone.
//!
//! From each round key the key can be computed back, so one of them is as much of a residue as the key.
//!
//! # Source
//!
//! FIPS 197: sections 5.2 (key expansion) and 5.3.5 (the equivalent inverse cipher).

use zeroize::Zeroizing;

/// Bytes of a round key.
const BLOCK: usize = 16;

/// The round keys of encryption, in their order, without the key itself, which they begin with; `None` if the secret
/// has not the length of a key.
pub(super) fn encryption(secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    Some(expand(secret)?[secret.len()..].to_vec().into())
}

/// The round keys of the equivalent inverse cipher in the order of their use, without the first and the last one, which
/// are round keys of encryption.
pub(super) fn decryption(secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let schedule = expand(secret)?;
    let rounds = schedule.len() / BLOCK - 1;
    let mut keys = Zeroizing::new(Vec::with_capacity(schedule.len()));
    for round in (1..rounds).rev() {
        for column in schedule[round * BLOCK..(round + 1) * BLOCK].chunks_exact(4) {
            keys.extend_from_slice(&*unmixed(column));
        }
    }
    Some(keys)
}

/// The key and all that follows from it.
pub(crate) fn expand(key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let rounds = match key.len() {
        16 => 10,
        24 => 12,
        32 => 14,
        _ => return None,
    };
    let substitutes = substitutes();
    let end = (rounds + 1) * BLOCK;
    let mut schedule = Zeroizing::new(Vec::with_capacity(end));
    schedule.extend_from_slice(key);
    let mut constant = 1;
    while schedule.len() < end {
        let at = schedule.len();
        let mut word = Zeroizing::new([0; 4]);
        word.copy_from_slice(&schedule[at - 4..]);
        if at % key.len() == 0 {
            word.rotate_left(1);
        }
        if at % key.len() == 0 || key.len() == 32 && at % 32 == 16 {
            word.iter_mut().for_each(|byte| *byte = substitutes[usize::from(*byte)]);
        }
        if at % key.len() == 0 {
            word[0] ^= constant;
            constant = double(constant);
        }
        for (number, byte) in word.iter().enumerate() {
            let before = schedule[at + number - key.len()];
            schedule.push(byte ^ before);
        }
    }
    Some(schedule)
}

/// InvMixColumns of one column.
fn unmixed(column: &[u8]) -> Zeroizing<[u8; 4]> {
    let row = |row: usize| {
        let terms = [14, 11, 13, 9].iter().enumerate().map(|(at, factor)| product(column[(row + at) % 4], *factor));
        terms.fold(0, |sum, term| sum ^ term)
    };
    Zeroizing::new([row(0), row(1), row(2), row(3)])
}

/// Twice a number of the field of 256 elements.
fn double(number: u8) -> u8 {
    number << 1 ^ if number & 0x80 == 0 { 0 } else { 0x1b }
}

/// The product of two numbers of the field.
fn product(mut one: u8, mut other: u8) -> u8 {
    let mut sum = 0;
    while other != 0 {
        if other & 1 != 0 {
            sum ^= one;
        }
        one = double(one);
        other >>= 1;
    }
    sum
}

/// The S-box: inverses in the field, and an affine map.
pub(crate) fn substitutes() -> [u8; 256] {
    let mut table = [0x63; 256];
    // 3 generates all elements but zero, and 0xf6 is its inverse.
    let (mut number, mut inverse) = (1, 1);
    for _ in 0..255 {
        let map = (0..5).fold(0, |sum, turn| sum ^ u8::rotate_left(inverse, turn));
        table[usize::from(number)] = map ^ 0x63;
        number = product(number, 3);
        inverse = product(inverse, 0xf6);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn schedules_are_those_of_the_standard() {
        // FIPS 197, appendix A.1 to A.3: the last word of each expansion, and the first new one.
        for (key, first, last) in [
            ("2b7e151628aed2a6abf7158809cf4f3c", "a0fafe17", "b6630ca6"),
            ("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "fe0c91f7", "01002202"),
            ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "9ba35411", "706c631e"),
        ] {
            let keys = encryption(&hex(key)).unwrap();

            assert_eq!((&keys[..4], &keys[keys.len() - 4..]), (&hex(first)[..], &hex(last)[..]), "{key}");
        }
    }

    #[test]
    fn inverse_columns_are_those_of_the_standard() {
        // FIPS 197, section 5.1.3's example in reverse: MixColumns of db135345 is 8e4da1bc.
        assert_eq!(*unmixed(&hex("8e4da1bc")), hex("db135345")[..]);
        assert_eq!(decryption(&hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap().len(), 9 * BLOCK);
    }

    #[test]
    fn a_secret_of_another_length_is_no_key() {
        assert!(encryption(&[1; 31]).is_none() && decryption(&[]).is_none());
    }
}
