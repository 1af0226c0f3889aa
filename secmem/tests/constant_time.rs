//! The constant-time kit agrees with plain twins, and runs the same instructions whatever the secret.
//!
//! No time is measured: a child runs each function in single steps, and the addresses of all its instructions must be the
//! same for different secrets. A twin that branches shows that the trace would tell. Which memory is read is told by
//! pages that cannot be: each row of a table must be touched whatever the index.

mod common;

use common::pieces::{pattern, pieces_of_after};
use common::{in_child, step};
use proptest::collection::vec;
use proptest::prelude::*;
use secmem::ct::base64::{Base64, STANDARD, STANDARD_UNPADDED, URL, URL_UNPADDED};
use secmem::ct::{self, Choice, CodecError, hex};
use secmem::probe;

const ALPHABETS: [Base64; 4] = [STANDARD, STANDARD_UNPADDED, URL, URL_UNPADDED];

/// What base64 is, bit by bit.
fn naive_base64(bytes: &[u8], last: [char; 2], padded: bool) -> String {
    let letters = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(last);
    let alphabet: Vec<char> = letters.collect();
    let bits: Vec<bool> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let value = |six: &[bool]| (0..6).fold(0, |value, at| 2 * value + usize::from(six.get(at).is_some_and(|bit| *bit)));
    let mut text: String = bits.chunks(6).map(|six| alphabet[value(six)]).collect();
    while padded && !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

fn naive_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(kind: Base64, bytes: &[u8]) -> String {
    let mut text = vec![0; kind.encoded_len(bytes.len())];
    kind.encode(bytes, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn decoded(kind: Base64, text: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0xEE; kind.decoded_len(text)];
    let result = kind.decode(text, &mut bytes);
    if result == Err(CodecError::Invalid) {
        assert!(bytes.iter().all(|byte| *byte == 0), "something is left of what was wrong");
    }
    result.map(|()| bytes)
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0xEE; hex::decoded_len(text.len())];
    let result = hex::decode(text, &mut bytes);
    if result == Err(CodecError::Invalid) {
        assert!(bytes.iter().all(|byte| *byte == 0), "something is left of what was wrong");
    }
    result.map(|()| bytes)
}

proptest! {
    #[test]
    fn bytes_are_ordered_as_slices_are(a in vec(0..3_u8, 0..40), b in vec(0..3_u8, 0..40)) {
        let order = ct::compare(&a, &b);

        prop_assert_eq!(order.reveal(), a.cmp(&b));
        prop_assert_eq!(order.less().reveal(), a < b);
        prop_assert_eq!(order.equal().reveal(), a == b);
        prop_assert_eq!(order.greater().reveal(), a > b);
        prop_assert_eq!(ct::compare(&a, &a.clone()).reveal(), std::cmp::Ordering::Equal);
    }

    #[test]
    fn any_bytes_are_ordered_as_slices_are(a in vec(any::<u8>(), 17), b in vec(any::<u8>(), 17)) {
        prop_assert_eq!(ct::compare(&a, &b).reveal(), a.cmp(&b));
    }

    #[test]
    fn a_choice_takes_one_or_the_other(pair in vec(any::<(u8, u8)>(), 0..70), yes: bool) {
        let (a, b): (Vec<u8>, Vec<u8>) = pair.into_iter().unzip();
        let mut got = vec![0xEE; a.len()];
        ct::select(yes.into(), &a, &b, &mut got);
        prop_assert_eq!(&got, if yes { &a } else { &b });

        let mut got = b.clone();
        ct::copy_if(yes.into(), &a, &mut got);
        prop_assert_eq!(&got, if yes { &a } else { &b });

        let (mut first, mut second) = (a.clone(), b.clone());
        ct::swap_if(yes.into(), &mut first, &mut second);
        prop_assert_eq!((first, second), if yes { (b, a) } else { (a, b) });
    }

    #[test]
    fn the_row_of_the_index_is_found_and_no_other(width in 1..40_usize, rows in 0..9_usize, index in 0..12_u64, fill: u8) {
        let table: Vec<u8> = (0..width * rows).map(|at| (at as u8).wrapping_mul(31) ^ fill).collect();
        let mut row = vec![fill; width];

        ct::look_up(&table, index, &mut row);

        let expected = table.chunks(width).nth(index as usize).map_or(vec![0; width], <[u8]>::to_vec);
        prop_assert_eq!(row, expected);
    }

    #[test]
    fn hex_is_what_it_should_be_and_reads_back(bytes in vec(any::<u8>(), 0..70)) {
        let mut text = vec![0; hex::encoded_len(bytes.len())];
        hex::encode(&bytes, &mut text).unwrap();

        prop_assert_eq!(String::from_utf8(text.clone()).unwrap(), naive_hex(&bytes));
        prop_assert_eq!(unhex(&text), Ok(bytes.clone()));
        prop_assert_eq!(unhex(&text.to_ascii_uppercase()), Ok(bytes));
    }

    #[test]
    fn base64_is_what_it_should_be_and_reads_back(bytes in vec(any::<u8>(), 0..70)) {
        for (kind, last, padded) in
            [(STANDARD, ['+', '/'], true), (STANDARD_UNPADDED, ['+', '/'], false), (URL, ['-', '_'], true), (URL_UNPADDED, ['-', '_'], false)]
        {
            let text = encoded(kind, &bytes);
            prop_assert_eq!(&text, &naive_base64(&bytes, last, padded));
            prop_assert_eq!(decoded(kind, text.as_bytes()), Ok(bytes.clone()));
        }
    }

    #[test]
    fn any_text_is_refused_or_is_what_its_bytes_make(text in vec(prop_oneof![any::<u8>(), b'A'..=b'Z', Just(b'='), Just(b'/')], 0..20)) {
        for kind in ALPHABETS {
            if let Ok(bytes) = decoded(kind, &text) {
                prop_assert_eq!(encoded(kind, &bytes).into_bytes(), text.clone());
            }
        }
        if let Ok(bytes) = unhex(&text) {
            prop_assert_eq!(naive_hex(&bytes).into_bytes(), text.to_ascii_lowercase());
        }
    }
}

#[test]
fn every_character_at_every_place_is_taken_or_refused_as_it_should() {
    for at in 0..12 {
        for byte in 0..=u8::MAX {
            let mut text = *b"00112233aABB";
            text[at] = byte;
            assert_eq!(unhex(&text).is_ok(), byte.is_ascii_hexdigit(), "{byte:#x} at {at}");

            for (kind, last) in [(STANDARD_UNPADDED, b"+/"), (URL_UNPADDED, b"-_")] {
                let mut text = *b"AAAAbbbb0123";
                text[at] = byte;
                let fits = byte.is_ascii_alphanumeric() || last.contains(&byte);
                assert_eq!(decoded(kind, &text).is_ok(), fits, "{byte:#x} at {at} of {kind:?}");
            }
        }
    }
}

#[test]
fn lengths_and_padding_that_do_not_fit_are_refused() {
    let mut place = [0; 3];
    assert_eq!(hex::encode(&[1, 2], &mut place), Err(CodecError::Length));
    assert_eq!(hex::decode(b"001", &mut place[..1]), Err(CodecError::Length));
    assert_eq!(hex::decode(b"0011", &mut place), Err(CodecError::Length));
    assert_eq!(STANDARD.encode(b"a", &mut place), Err(CodecError::Length));
    assert_eq!(STANDARD.decode(b"YQ==", &mut place), Err(CodecError::Length));
    for text in ["=", "==", "A", "YQ=", "YQ", "YWI", "AAAAA"] {
        assert_eq!(decoded(STANDARD, text.as_bytes()), Err(CodecError::Length), "{text}");
    }
    for text in ["====", "A===", "YR==", "YWJ=", "Y=Q=", "=YQ="] {
        assert!(decoded(STANDARD, text.as_bytes()).is_err(), "{text}"); // bits that stand for nothing, padding within
    }
    for text in ["YQ==", "A", "YR", "YWJ"] {
        assert!(decoded(URL_UNPADDED, text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(decoded(STANDARD, b"YQ=="), Ok(b"a".to_vec()));
}

/// Bytes of the secrets that are followed: a few words and a piece of one.
const LEN: usize = 37;

/// Two secrets that have little in common, and a pair that has nearly all.
fn secrets() -> [[u8; LEN]; 4] {
    let drawn: [u8; LEN] = std::array::from_fn(|at| (at as u8).wrapping_mul(151) ^ 0xC3);
    let mut near = drawn;
    near[LEN - 1] ^= 1;
    [[0; LEN], [0xFF; LEN], drawn, near]
}

/// The addresses of the instructions that `act` runs, for each of the secrets.
fn traces(act: impl Fn(&[u8; LEN])) -> Vec<Vec<u64>> {
    secrets().iter().map(|secret| step::trace(|| act(secret)).instructions).collect()
}

/// Lengths of which each takes another way through `eq`.
const LENGTHS: [usize; 6] = [7, 12, 20, 37, 100, 300];

fn assert_same(what: &str, traces: &[Vec<u64>]) {
    assert!(traces[0].len() > 20, "{what}: {} instructions are no trace", traces[0].len());
    for (number, trace) in traces.iter().enumerate() {
        let differs = trace.iter().zip(&traces[0]).position(|(a, b)| a != b);
        assert_eq!((differs, trace.len()), (None, traces[0].len()), "{what}: secret {number} takes another way");
    }
}

#[test]
fn each_function_runs_the_same_instructions_whatever_the_secret() {
    let other = secrets()[2];
    for len in LENGTHS {
        let other = [other; 9].concat();
        let differing = secrets().map(|secret| [secret; 9].concat());
        let compared = differing
            .iter()
            .map(|secret| step::trace(|| _ = std::hint::black_box(ct::eq(&secret[..len], &other[..len]))).instructions);
        assert_same(&format!("eq of {len} bytes"), &compared.collect::<Vec<_>>());
    }
    assert_same("compare", &traces(|secret| _ = std::hint::black_box(ct::compare(secret, &other))));
    let choice = |secret: &[u8; LEN]| Choice::from_bit(secret[LEN - 1].into());
    assert_same("select", &traces(|secret| ct::select(choice(secret), secret, &other, &mut [0; LEN])));
    assert_same("copy_if", &traces(|secret| ct::copy_if(choice(secret), secret, &mut [1; LEN])));
    assert_same("swap_if", &traces(|secret| ct::swap_if(choice(secret), &mut [1; LEN], &mut { *secret })));
    assert_same("look_up", &traces(|secret| ct::look_up(&other[..36], u64::from(secret[0] % 4), &mut [0; 9])));
    assert_same("hex::encode", &traces(|secret| hex::encode(secret, &mut [0; 2 * LEN]).unwrap()));
    for kind in ALPHABETS {
        let encode = |secret: &[u8; LEN]| kind.encode(secret, &mut [0; 52][..kind.encoded_len(LEN)]).unwrap();
        assert_same("base64 encode", &traces(encode));
    }
}

#[test]
fn decoders_run_the_same_instructions_whatever_the_secret_and_wherever_it_is_wrong() {
    let texts = secrets().map(|secret| naive_hex(&secret).into_bytes());
    let run = |text: &Vec<u8>| step::trace(|| _ = std::hint::black_box(hex::decode(text, &mut [0; LEN]))).instructions;
    assert_same("hex::decode", &texts.each_ref().map(run));
    let wrong = [0, 9, 73].map(|at| {
        let mut text = texts[2].clone();
        text[at] = b'g';
        text
    });
    assert_same("hex::decode of what is wrong", &wrong.each_ref().map(run));

    for kind in ALPHABETS {
        let texts = secrets().map(|secret| encoded(kind, &secret).into_bytes());
        let run =
            |text: &Vec<u8>| step::trace(|| _ = std::hint::black_box(kind.decode(text, &mut [0; LEN]))).instructions;
        assert_same("base64 decode", &texts.each_ref().map(run));
        let wrong = [0, 9, 48].map(|at| {
            let mut text = texts[2].clone();
            text[at] = b'!';
            text
        });
        assert_same("base64 decode of what is wrong", &wrong.each_ref().map(run));
    }
}

#[test]
fn a_twin_that_branches_takes_another_way() {
    #[inline(never)]
    fn branching(a: &[u8], b: &[u8]) -> bool {
        a.iter().zip(b).all(|(a, b)| a == b)
    }
    let other = secrets()[2];

    let traces = traces(|secret| _ = std::hint::black_box(branching(secret, &other)));

    assert!(traces.iter().any(|trace| *trace != traces[0]), "the trace would not tell");
}

#[test]
fn nothing_of_the_secret_stays_in_registers() {
    let other = [0x5A; LEN];
    let secret = secrets()[2];
    let text = naive_hex(&secret).into_bytes();
    let base64 = encoded(STANDARD, &secret).into_bytes();
    let place = std::cell::RefCell::new(secret); // a copy that an act made would be the act's
    let acts: [(&str, &dyn Fn()); 10] = [
        ("wipe::copy", &|| secmem::wipe::copy(&secret, &mut [0; LEN])),
        ("compare", &|| _ = std::hint::black_box(ct::compare(&secret, &other))),
        ("select", &|| ct::select(Choice::from_bit(1), &secret, &other, &mut [0; LEN])),
        ("copy_if", &|| ct::copy_if(Choice::from_bit(1), &secret, &mut [0; LEN])),
        ("swap_if", &|| ct::swap_if(Choice::from_bit(1), &mut *place.borrow_mut(), &mut [0; LEN])),
        ("look_up", &|| ct::look_up(&secret, 0, &mut [0; LEN])),
        ("hex::encode", &|| _ = std::hint::black_box(hex::encode(&secret, &mut [0; 2 * LEN]))),
        ("hex::decode", &|| _ = std::hint::black_box(hex::decode(&text, &mut [0; LEN]))),
        ("base64 encode", &|| _ = std::hint::black_box(STANDARD.encode(&secret, &mut [0; 52]))),
        ("base64 decode", &|| _ = std::hint::black_box(STANDARD.decode(&base64, &mut [0; LEN]))),
    ];
    let holds = |registers: &[u8]| {
        [&secret[..], &text, &base64].iter().flat_map(|secret| secret.windows(8)).any(|window| {
            let reversed: Vec<u8> = window.iter().rev().copied().collect();
            registers.windows(8).any(|place| place == window || place == reversed)
        })
    };
    for (what, act) in acts {
        assert!(!holds(&step::trace(act).registers), "{what} leaves a part of the secret");
    }
    // The same look at a copy that is made with a register and not cleared.
    let left = step::trace(|| common::load_into_registers(&secret));
    assert!(holds(&left.registers), "the look would not see it");
}

/// Secrets of one byte over and over: then so are their parts, the differences from what they are compared with, and what is
/// gathered of those. So whatever stays in a place is the same function of that byte.
const BYTES: [u8; 4] = [0xC3, 0x59, 0x96, 0x2E];

/// One of them. Its byte is in no register of the caller's.
#[inline(never)]
fn secret_of(number: usize, len: usize) -> Vec<u8> {
    vec![BYTES[number]; len]
}

/// The places in registers that hold the byte of each secret in turn, or its difference from `other`.
fn places_that_follow(other: u8, left: impl Fn(usize) -> Vec<u8>) -> Vec<usize> {
    let left: Vec<Vec<u8>> = (0..BYTES.len()).map(left).collect();
    let follows = |at: usize, by: u8| left.iter().zip(BYTES).all(|(left, byte)| left[at] == byte ^ by);
    (0..left[0].len()).filter(|at| follows(*at, 0) || follows(*at, other)).collect()
}

#[test]
fn no_register_follows_what_is_compared() {
    let follow = |len: usize, other: Option<u8>, eq: fn(&[u8], &[u8]) -> bool| {
        places_that_follow(other.unwrap_or(0), |number| {
            let secret = secret_of(number, len);
            let other = other.map_or_else(|| secret.clone(), |byte| vec![byte; len]);
            step::trace(|| _ = std::hint::black_box(eq(&secret, &other))).registers
        })
    };
    // The ends of each way through `eq`.
    for len in [1, 2, 7, 8, 15, 16, 17, 32, 33, 37, 63, 64, 65, 100, 127, 128, 129, 256, 300] {
        for other in [Some(0), Some(0xA7), None] {
            assert_eq!(follow(len, other, ct::eq), [0_usize; 0], "eq of {len} bytes, with {other:x?}");
            if len >= 16 {
                assert_eq!(follow(len, other, probe::eq_by_sse2), [0_usize; 0], "SSE2: {len} bytes, with {other:x?}");
            }
        }
    }

    // A single byte that stays in a register is seen.
    let left = places_that_follow(0, |number| {
        let secret = secret_of(number, 1);
        step::trace(|| common::load_byte(&secret[0])).registers
    });
    assert_eq!(left.len(), 1, "the look would not see it: {left:?}");
}

/// The digits of the pattern's first 32 bytes.
fn digit(at: usize) -> u8 {
    b"0123456789abcdef"[usize::from(pattern(at / 2) >> (4 - at % 2 * 4) & 0xF)]
}

/// The letters of its first 48 bytes.
fn letter(at: usize) -> u8 {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let three = (0..3).fold(0, |three, byte| three << 8 | usize::from(pattern(at / 4 * 3 + byte)));
    LETTERS[three >> (18 - at % 4 * 6) & 0x3F]
}

/// What a careless copy does: each word lies on the stack on its way.
fn naive_copy(from: &[u8], into: &mut [u8]) {
    for (from, into) in from.as_chunks::<8>().0.iter().zip(into.as_chunks_mut::<8>().0) {
        *into = std::hint::black_box(u64::from_ne_bytes(*from)).to_ne_bytes();
    }
}

/// Without optimisation every step of the work lies on the stack on its way.
#[test]
fn nothing_of_the_secret_stays_on_the_stack() {
    let ended = in_child(|| {
        let patterns = [pattern as fn(usize) -> u8, digit, letter];
        let texts = patterns.map(|of| (0..64).map(of).collect::<Vec<u8>>());
        let [secret, digits, letters] = &texts;
        let left = |mut into: Vec<u8>, f: &(dyn Fn(&mut [u8]) + Sync)| {
            let found = pieces_of_after(&patterns, || f(&mut into));
            let known =
                |at: &usize| texts.iter().chain([&into]).any(|it| it.as_ptr_range().contains(&(*at as *const u8)));
            assert!(found.iter().any(known), "the search finds what is there");
            let left = found.into_iter().filter(|at| !known(at)).count();
            secmem::wipe::wipe(&mut into);
            left
        };
        type Work<'a> = &'a (dyn Fn(&mut [u8]) + Sync);
        let works: [(&str, usize, Work<'_>); 9] = [
            ("select", 64, &|into| ct::select(true.into(), secret, &[0; 64], into)),
            ("copy_if", 64, &|into| ct::copy_if(true.into(), secret, into)),
            ("swap_if", 128, &|into| {
                let (a, b) = into.split_at_mut(64);
                ct::copy_if(true.into(), secret, a);
                ct::swap_if(true.into(), a, b);
            }),
            ("look_up", 32, &|into| ct::look_up(secret, 1, into)),
            ("compare", 64, &|into| _ = ct::compare(secret, into)),
            ("hex::encode", 64, &|into| hex::encode(&secret[..32], into).unwrap()),
            ("hex::decode", 32, &|into| hex::decode(digits, into).unwrap()),
            ("base64::encode", 64, &|into| STANDARD.encode(&secret[..48], into).unwrap()),
            ("base64::decode", 48, &|into| STANDARD.decode(letters, into).unwrap()),
        ];
        for (what, len, work) in works {
            assert_eq!(left(vec![0; len], work), 0, "{what}");
        }
        assert_ne!(left(vec![0; 64], &|into| naive_copy(secret, into)), 0, "the control");
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_look_up_reads_every_row_whatever_the_index() {
    const ROWS: usize = 3;
    let mut row = vec![0; common::PAGE];
    for closed in 0..ROWS {
        let table = common::Pages::new(ROWS);
        table.close(closed);
        for index in 0..ROWS {
            let ends_by = |act: &mut dyn FnMut()| {
                let status = common::fork(|| {
                    common::no_core();
                    act();
                    0
                });
                libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
            };
            let kit = ends_by(&mut || ct::look_up(table.bytes(), index as u64, &mut row));
            assert_eq!(kit, Some(libc::SIGSEGV), "row {closed} is not read for index {index}");

            let naive = ends_by(&mut || row.copy_from_slice(&table.bytes()[index * common::PAGE..][..common::PAGE]));
            assert_eq!(naive.is_some(), index == closed, "the closed page would not tell");
        }
    }
}
