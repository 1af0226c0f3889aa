//! The kit against plain twins, with few and fixed bytes: small enough for an interpreter, and without anything but the core.
//!
//! Drawn bytes, instructions and registers are looked at by `tests/constant_time.rs`, which needs a system.

use super::base64::{STANDARD, STANDARD_UNPADDED, URL, URL_UNPADDED};
use super::{Choice, CodecError, compare, copy_if, eq, hex, look_up, select, swap_if};

/// Bytes that no two lengths have in common.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(151) ^ len as u8).collect()
}

#[test]
fn hexadecimal_is_what_format_writes_and_reads_back() {
    for len in 0..20 {
        let bytes = bytes(len);
        let mut text = vec![0; hex::encoded_len(len)];
        hex::encode(&bytes, &mut text).unwrap();
        let mut back = vec![0xEE; len];

        assert_eq!(text, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
        assert_eq!(hex::decode(&text, &mut back), Ok(()));
        assert_eq!(hex::decode(&text.to_ascii_uppercase(), &mut back), Ok(()));
        assert_eq!(back, bytes);
        for at in 0..text.len() {
            let mut wrong = text.clone();
            wrong[at] = b'g';
            assert_eq!(hex::decode(&wrong, &mut back), Err(CodecError::Invalid), "character {at} of {len} bytes");
            assert_eq!(back, vec![0; len]);
        }
    }
}

#[test]
fn base64_is_that_of_the_rfc_and_reads_back() {
    // RFC 4648, section 10.
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        let mut place = vec![0; STANDARD.encoded_len(bytes.len())];
        STANDARD.encode(bytes.as_bytes(), &mut place).unwrap();
        assert_eq!(place, text.as_bytes());
    }
    for kind in [STANDARD, STANDARD_UNPADDED, URL, URL_UNPADDED] {
        for len in 0..20 {
            let bytes = bytes(len);
            let mut text = vec![0; kind.encoded_len(len)];
            kind.encode(&bytes, &mut text).unwrap();
            let mut back = vec![0xEE; kind.decoded_len(&text)];

            assert_eq!(kind.decode(&text, &mut back), Ok(()));
            assert_eq!(back, bytes);
            if let Some(first) = text.first_mut() {
                *first = b'!';
                assert_eq!(kind.decode(&text, &mut back), Err(CodecError::Invalid));
                assert_eq!(back, vec![0; len]);
            }
        }
    }
    let mut all = [0; 64];
    let values: Vec<u8> = (0..64).collect();
    let packed: Vec<u8> = values
        .chunks(4)
        .flat_map(|six| [six[0] << 2 | six[1] >> 4, six[1] << 4 | six[2] >> 2, six[2] << 6 | six[3]])
        .collect();
    STANDARD.encode(&packed, &mut all).unwrap();
    assert_eq!(&all, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
}

#[test]
fn bytes_are_ordered_and_equal_as_slices_are() {
    for len in 0..20 {
        let a = bytes(len);
        assert!(compare(&a, &a).equal().reveal());
        for at in 0..len {
            for change in [1, 0x80] {
                let mut b = a.clone();
                b[at] ^= change;

                assert_eq!(compare(&a, &b).reveal(), a.cmp(&b), "byte {at} of {len}");
                assert_eq!(compare(&a[..at], &b).reveal(), a[..at].cmp(&b), "{at} of {len} bytes");
                assert!(!eq(&a, &b), "byte {at} of {len}");
            }
        }
    }
}

#[test]
fn a_choice_takes_one_or_the_other() {
    for len in 0..20 {
        let (a, b) = (bytes(len), vec![0xA7; len]);
        for yes in [true, false] {
            let (mut selected, mut copied) = (vec![0xEE; len], b.clone());
            let (mut first, mut second) = (a.clone(), b.clone());
            select(yes.into(), &a, &b, &mut selected);
            copy_if(yes.into(), &a, &mut copied);
            swap_if(yes.into(), &mut first, &mut second);

            let (chosen, other) = if yes { (&a, &b) } else { (&b, &a) };
            assert_eq!((&selected, &copied, &second, &first), (chosen, chosen, chosen, other), "{len} bytes, {yes}");
        }
    }
    assert!(Choice::from_bit(3).reveal() && !Choice::from_bit(2).reveal());
    assert!(Choice::from_zero(0).reveal() && !Choice::from_zero(1 << 63).reveal());
}

#[test]
fn the_row_of_the_index_is_found_and_no_other() {
    let table = bytes(5 * 11);
    for index in 0..7 {
        let mut row = [0xEE; 11];
        look_up(&table, index, &mut row);
        assert_eq!(&row[..], table.chunks(11).nth(index as usize).unwrap_or(&[0; 11]), "row {index}");
    }
}
