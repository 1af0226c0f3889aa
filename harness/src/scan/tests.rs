use proptest::prelude::*;

use super::naive::{self, Pieces};
use super::*;
use crate::variants::{self, FORMS};

/// Bytes that differ from each other and from what surrounds them in these tests.
const SECRET: &[u8; 32] = b"\xd3\x1f\x8a\x42\xe7\x05\xb9\x6c\xf0\x2d\x91\x57\xcb\x3e\xa4\x18\
                           \x76\xfb\x63\xdc\x29\x84\x4d\xb2\x0a\xee\x97\x35\xc1\x5f\x70\xa8";

const DECOY: &[u8; 32] = b"\x4b\xc6\x12\xed\x39\xa0\x74\xd8\x1d\x8f\xe5\x56\xb3\x27\x9a\x61\
                          \xf4\x0e\x7d\xc9\x33\xba\x48\x95\xdf\x22\x6b\xac\x01\x87\xe0\x5c";

fn index(min_length: usize) -> Index {
    Index::new(&[SECRET, DECOY], &FORMS, min_length).unwrap()
}

/// Scans pieces for fragments of six bytes and more.
fn find(pieces: &[(u64, &[u8])]) -> Vec<Match> {
    find_with(&index(6), pieces)
}

fn find_with(index: &Index, pieces: &[(u64, &[u8])]) -> Vec<Match> {
    let mut scanner = Scanner::new(index);
    pieces.iter().for_each(|(address, bytes)| scanner.feed(*address, bytes));
    scanner.finish()
}

/// A page of bytes that stand in none of the needles, with those bytes at that offset.
fn page_with(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut page: Vec<u8> = (0xf5..=0xfa).cycle().take(4096).collect();
    page[at..at + bytes.len()].copy_from_slice(bytes);
    page
}

/// A piece of a pattern between two bytes that do not stand beside it there.
fn beside(bytes: &[u8], pattern: &[u8], piece: &std::ops::Range<usize>) -> Vec<u8> {
    let other = |at: usize| !pattern.get(at).copied().unwrap_or(0);
    [&[other(piece.start.wrapping_sub(1))], bytes, &[other(piece.end)]].concat()
}

fn text(form: Form, phase: usize) -> Vec<u8> {
    variants::encode(SECRET, &[form])[phase].bytes().to_vec()
}

#[test]
fn a_whole_secret_is_found_and_called_whole() {
    let found = find(&[(0x7000, &page_with(SECRET, 1001))]);

    assert_eq!(
        found,
        [Match {
            address: 0x7000 + 1001,
            needle: 0,
            form: Form::Raw,
            phase: 0,
            length: 32,
            secret_offset: 0,
            secret_length: 32,
            whole: true
        }]
    );
}

#[test]
fn six_bytes_at_any_offset_are_found_and_five_are_not() {
    let index = index(6);
    for at in 0..64 {
        for start in 0..SECRET.len() - 6 {
            let six = find_with(&index, &[(0, &page_with(&SECRET[start..start + 6], at))]);
            let five = find_with(&index, &[(0, &page_with(&SECRET[start..start + 5], at))]);

            assert_eq!(six.len(), 1, "bytes {start}.. at {at}");
            assert_eq!((six[0].address, six[0].secret_offset), (at as u64, start as u64));
            assert_eq!((six[0].length, six[0].secret_length, six[0].whole), (6, 6, false));
            assert_eq!(five, []);
        }
    }
}

#[test]
fn a_secret_split_across_two_pieces_is_found_once() {
    let page = page_with(SECRET, 2000);
    let expected = find(&[(0, &page)]);

    for cut in 1990..2040 {
        let (one, other) = page.split_at(cut);

        assert_eq!(find(&[(0, one), (cut as u64, other)]), expected, "cut at {cut}");
    }
    assert_eq!(expected.len(), 1);
}

#[test]
fn a_secret_fed_byte_by_byte_is_found_once() {
    let page = page_with(SECRET, 77);
    let bytes: Vec<_> = page.iter().enumerate().map(|(at, byte)| (at as u64, std::slice::from_ref(byte))).collect();

    assert_eq!(find(&bytes), find(&[(0, &page)]));
}

#[test]
fn no_run_reaches_over_a_gap() {
    let found = find(&[(0, &SECRET[..5]), (6, &SECRET[5..10]), (4096, &SECRET[10..])]);

    assert_eq!(found.len(), 1);
    assert_eq!((found[0].address, found[0].secret_offset, found[0].length), (4096, 10, 22));
}

#[test]
fn two_adjacent_pieces_of_a_secret_are_two_runs() {
    let found = find(&[(0, &[&SECRET[8..16], &SECRET[20..27], &SECRET[..]].concat())]);

    let places: Vec<_> = found.iter().map(|one| (one.address, one.secret_offset, one.length, one.whole)).collect();
    assert_eq!(places, [(0, 8, 8, false), (8, 20, 7, false), (15, 0, 32, true)]);
}

#[test]
fn a_whole_copy_is_not_found_once_more_where_what_stands_beside_it_fits_another_order() {
    // Its last word, and then a byte that comes after that where the lowest limb stands first.
    let went_on = [&SECRET[..], &SECRET[16..17]].concat();
    let found = find(&[(0x7000, &page_with(&went_on, 100))]);
    assert_eq!((found.len(), found[0].form, found[0].whole), (1, Form::Raw, true), "{found:?}");

    let alone = find(&[(0x7000, &page_with(&went_on[24..], 100))]);
    assert_eq!((alone.len(), alone[0].form, alone[0].length), (1, Form::Limbs64, 9), "{alone:?}");
    // From six bytes on, what goes on beside the copy is a residue of its own.
    let more = [&SECRET[..], &SECRET[16..22]].concat();
    assert_eq!(find(&[(0x7000, &page_with(&more, 100))]).len(), 2);
}

#[test]
fn a_whole_copy_stays_one_where_the_byte_before_it_fits_a_form_that_has_it_within() {
    let state = text(Form::ChachaState, 0);
    let key = state.windows(SECRET.len()).position(|run| run == SECRET).unwrap();
    let found = find(&[(0x7000, &page_with(&state[key - 1..key + SECRET.len()], 100))]);
    assert_eq!((found.len(), found[0].form, found[0].whole), (1, Form::Raw, true), "{found:?}");
    assert_eq!((found[0].address, found[0].length), (0x7000 + 101, 32));

    let found = find(&[(0x7000, &page_with(&state, 100))]);
    assert_eq!((found.len(), found[0].form, found[0].whole), (1, Form::ChachaState, true), "{found:?}");
}

#[test]
fn a_reversed_secret_is_found_as_such() {
    let found = find(&[(0, &page_with(&text(Form::Reversed, 0)[3..], 9))]);

    assert_eq!(found.len(), 1);
    assert_eq!((found[0].form, found[0].address, found[0].secret_offset), (Form::Reversed, 9, 0));
    assert_eq!(found[0].secret_length, 29);
}

#[test]
fn hexadecimal_at_an_odd_digit_is_found_in_its_own_case() {
    for form in [Form::HexLower, Form::HexUpper] {
        let found = find(&[(0, &page_with(&text(form, 0)[7..20], 501))]);

        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].form, found[0].address, found[0].length), (form, 501, 13));
        assert_eq!((found[0].secret_offset, found[0].secret_length), (3, 6));
    }
}

#[test]
fn a_text_that_two_forms_share_is_said_once() {
    // Twelve digits without a letter, and further ones with letters on either side.
    let secret = b"\xab\xcd\x12\x34\x56\x78\x90\x23\xef\xba";
    let index = Index::new(&[secret], &FORMS, 6).unwrap();
    let forms = |memory: &[u8]| {
        let mut scanner = Scanner::new(&index);
        scanner.feed(0, memory);
        scanner.finish().iter().map(|found| (found.form, found.whole)).collect::<Vec<_>>()
    };

    assert_eq!(forms(b"abcd123456789023efba"), [(Form::HexLower, true)]);
    assert_eq!(forms(b"ABCD123456789023EFBA"), [(Form::HexUpper, true)]);
    assert_eq!(forms(b"..123456789023.."), [(Form::HexLower, false)]);
}

#[test]
fn a_secret_of_bytes_scattered_among_zeros_is_found() {
    let secret = b"\x81\0\0\0\0\x92\0\0\0\0\xa3";
    let index = Index::new(&[secret], &[Form::Raw], 6).unwrap();
    let mut scanner = Scanner::new(&index);

    scanner.feed(0, &page_with(secret, 333));

    assert_eq!(scanner.finish().len(), 1);
}

#[test]
fn base64_is_found_in_each_phase_and_in_its_own_alphabet() {
    let patterns = variants::encode(SECRET, &[Form::Base64, Form::Base64Url]);
    for pattern in &patterns {
        let found = find(&[(0, &page_with(pattern.bytes(), 640))]);

        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].whole);
        assert_eq!((found[0].form, found[0].phase, found[0].address), (pattern.form(), pattern.phase(), 640));
    }
    assert!(patterns.len() > 3, "one of the phases has a character of its own in base64url");
}

#[test]
fn every_form_is_found_whole_and_in_its_shortest_pieces_at_any_alignment() {
    let index = index(6);
    for form in FORMS {
        for (phase, pattern) in variants::encode(SECRET, &[form]).iter().enumerate() {
            let pieces = pattern.shortest_residues(6);
            for (at, piece) in pieces.iter().cloned().chain(std::iter::once(0..pattern.bytes().len())).enumerate() {
                let page = page_with(&beside(&pattern.bytes()[piece.clone()], pattern.bytes(), &piece), 200 + at - 1);
                let found = find_with(&index, &[(0x4000, &page)]);

                assert_eq!(found.len(), 1, "{form:?} {phase} {piece:?}: {found:?}");
                assert_eq!((found[0].address, found[0].length), (0x4000 + 200 + at as u64, piece.len() as u64));
                assert!(found[0].secret_length >= 6 && found[0].whole == (piece.len() == pattern.bytes().len()));
            }
        }
    }
}

#[test]
fn pieces_that_show_less_than_the_shortest_residue_are_not_found_in_any_form() {
    let index = index(6);
    // Where ChaCha's spread words meet, less of eight lanes may be enough of four, or show the secret as it is.
    let is_spread = |pattern: &variants::Pattern| pattern.form() == Form::ChachaState && pattern.phase() > 0;
    for pattern in variants::encode(SECRET, &FORMS).into_iter().filter(|pattern| !is_spread(pattern)) {
        for piece in pattern.shortest_residues(6) {
            for shorter in [piece.start + 1..piece.end, piece.start..piece.end - 1] {
                let page = page_with(&beside(&pattern.bytes()[shorter.clone()], pattern.bytes(), &shorter), 333);

                assert_eq!(find_with(&index, &[(0, &page)]), [], "{:?}", pattern.form());
            }
        }
    }
}

#[test]
fn utf16_has_the_byte_order_in_which_its_units_are_aligned() {
    let units: Vec<u8> = SECRET.iter().flat_map(|byte| [*byte, 0]).collect();
    let index = index(6);
    let found = |at| find_with(&index, &[(0, &[vec![0; at], units.clone(), vec![0; 9]].concat())]);

    let [even, odd] = [50, 51].map(found);

    assert_eq!((even.len(), odd.len()), (1, 1));
    assert_eq!((even[0].form, even[0].address, even[0].whole), (Form::Utf16Le, 50, true));
    assert_eq!((odd[0].form, odd[0].address, odd[0].whole), (Form::Utf16Be, 51, true));
}

#[test]
fn arrays_of_small_numbers_are_searched_without_a_candidate() {
    let index = index(6);
    let numbers: Vec<u8> = (0..100_000u32).flat_map(|number| (number % 3).to_le_bytes()).collect();

    assert_eq!(index.count_candidates(&numbers), 0);
    assert_eq!(index.count_candidates(&vec![0; 100_000]), 0);
}

#[test]
fn one_round_key_is_found_beside_the_key_and_named_apart_from_it() {
    let schedule = text(Form::AesEncKey, 0);
    let inverse = text(Form::AesDecKey, 1);

    let found = find(&[(0, &[SECRET, &schedule[..]].concat()), (0x9000, &page_with(&inverse[48..64], 70))]);

    let seen: Vec<_> = found.iter().map(|one| (one.form, one.address, one.length, one.whole)).collect();
    assert_eq!(
        seen,
        [(Form::Raw, 0, 32, true), (Form::AesEncKey, 32, 208, true), (Form::AesDecKey, 0x9000 + 70, 16, false)]
    );
}

#[test]
fn a_text_that_is_partly_in_percent_encoding_is_one_run() {
    let secret = b"pass word%1234567";
    let index = Index::new(&[secret], &FORMS, 6).unwrap();
    let forms = |memory: &[u8]| {
        let mut scanner = Scanner::new(&index);
        scanner.feed(0, memory);
        scanner.finish().iter().map(|found| (found.form, found.whole)).collect::<Vec<_>>()
    };

    assert_eq!(forms(b"..pass word%1234567.."), [(Form::Raw, true)]);
    assert_eq!(forms(b"..pass%20word%251234567.."), [(Form::PercentLower, true)]);
}

#[test]
fn a_needle_that_is_not_there_is_not_found() {
    let mut memory = page_with(SECRET, 100);
    memory.extend(page_with(&text(Form::HexLower, 0), 100));

    let found = find(&[(0, &memory)]);

    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|one| one.needle == 0));
}

#[test]
fn pages_that_memory_is_full_of_cost_no_candidates() {
    let needles: Vec<Vec<u8>> = (0..9u8).map(|number| blake3::hash(&[number]).as_bytes().to_vec()).collect();
    let needles: Vec<&[u8]> = needles.iter().map(Vec::as_slice).collect();
    let index = Index::new(&needles, &FORMS, 6).unwrap();

    for byte in [0, 0xff, b' ', 0xcc, 0xaa] {
        assert_eq!(index.count_candidates(&[byte; 4096]), 0, "{byte:#x}");
    }
}

#[test]
fn a_needle_with_a_run_of_equal_bytes_is_found_but_not_in_runs_of_equal_bytes() {
    let mut needle = SECRET.to_vec();
    needle[8..24].fill(0);
    let index = Index::new(&[&needle], &FORMS, 6).unwrap();
    let memory = [&[0; 100_000][..], &needle, &[0; 100_000], &needle[5..10]].concat();

    let candidates = index.count_candidates(&memory[..90_000]);
    let mut scanner = Scanner::new(&index);
    scanner.feed(0, &memory);
    let found = scanner.finish();

    assert_eq!(candidates, 0);
    assert_eq!(found.iter().filter(|one| one.whole).count(), 1);
    assert!(found.len() < 8, "{found:?}");
}

#[test]
fn a_stretch_at_the_end_of_the_address_space_is_searched() {
    let found = find(&[(u64::MAX - 31, SECRET), (4, DECOY)]);

    let places: Vec<_> = found.iter().map(|one| (one.address, one.needle)).collect();
    assert_eq!(places, [(4, 1), (u64::MAX - 31, 0)]);
}

#[test]
fn what_could_never_be_found_is_refused() {
    let refused = |needles: &[&[u8]], min_length| Index::new(needles, &FORMS, min_length).err().unwrap();

    assert_eq!(refused(&[], 6), IndexError::Empty);
    assert_eq!(refused(&[SECRET], 3), IndexError::MinLength { min_length: 3 });
    assert_eq!(refused(&[SECRET, &SECRET[..5]], 6), IndexError::Needle { needle: 1, min_length: 6 });
    assert_eq!(refused(&[SECRET, DECOY, &[7; 32]], 6), IndexError::Needle { needle: 2, min_length: 6 });
}

#[test]
fn sensitivity_counts_windows_and_chance() {
    let index = Index::new(&[SECRET], &[Form::Raw, Form::HexLower], 6).unwrap();

    assert_eq!(index.windows(), 27 + 53);
    let expected = index.expected_chance_hits(1 << 30);
    assert!((expected / (80.0 * 2f64.powi(30 - 48)) - 1.0).abs() < 1e-9, "{expected}");
}

#[test]
fn the_step_is_what_the_shortest_residue_allows() {
    assert_eq!([4, 6, 8, 16].map(|min_length| index(min_length).step()), [1, 3, 5, 13]);
}

/// Secrets as they come: random, text, of few values, mostly zeros.
fn secret() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 4..48),
        1 => prop::collection::vec(b'a'..=b'z', 8..32),
        1 => prop::collection::vec(prop_oneof![3 => prop::char::range('a', 'z'), 1 => any::<char>()], 4..24)
            .prop_map(|text| text.into_iter().collect::<String>().into_bytes()),
        1 => prop::collection::vec(0u8..4, 8..48),
        1 => prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 8..48),
    ]
}

/// What lies between the plants.
fn filling() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        (0usize..200).prop_map(|length| vec![0; length]),
        prop::collection::vec(0u8..4, 0..80),
        prop::collection::vec(b'a'..=b'z', 0..80),
    ]
}

/// A piece of a pattern: which pattern, and where it begins and ends.
fn plant() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index, prop::sample::Index)> {
    any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>()
}

/// Cuts memory at those places; every fourth cut leaves a gap.
fn cut(memory: &[u8], cuts: &[prop::sample::Index]) -> Pieces {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(memory.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Pieces::new();
    let (mut from, mut gaps) = (0, 0);
    for (number, to) in (1..).zip(places.into_iter().chain([memory.len()])) {
        pieces.push((0x1000 + gaps + from as u64, memory[from..to].to_vec()));
        from = to;
        gaps += u64::from(number % 4 == 0);
    }
    pieces
}

proptest! {
    #[test]
    fn every_chunking_agrees_with_the_naive_search(
        secrets in prop::collection::vec(secret(), 1..4),
        forms in prop::sample::subsequence(FORMS.to_vec(), 1..8),
        min_length in 4usize..18,
        parts in prop::collection::vec((filling(), plant()), 0..10),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let needles: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
        let patterns: Vec<_> = needles.iter().flat_map(|secret| variants::encode(secret, &forms)).collect();
        prop_assume!(!patterns.is_empty());
        let mut memory = Vec::new();
        for (filling, (which, start, end)) in parts {
            let bytes = which.get(&patterns).bytes();
            let start = start.index(bytes.len());
            let end = start + 1 + end.index(bytes.len() - start);
            memory.extend(filling);
            memory.extend_from_slice(&bytes[start..end]);
        }

        naive::compare(&needles, &forms, min_length, &cut(&memory, &cuts));
    }

    #[test]
    fn any_bytes_make_a_case_in_which_both_agree(data in prop::collection::vec(any::<u8>(), 0..600)) {
        oracle(&data);
    }

    #[test]
    fn all_loops_hand_out_the_same_candidates(
        seed in any::<u64>(),
        length in 0usize..400,
        offsets in (0usize..40, 0usize..500),
        step in 1usize..40,
    ) {
        let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut view = vec![0; length];
        stream.fill(&mut view);
        // Half of the windows of the view are in the filter, so that each group of eight has some of them.
        let windows: Vec<u32> = view.windows(4).step_by(2).map(super::index::word).collect();
        let filter = super::filter::Filter::new(&windows);

        let mut all = super::kernel::Kernel::all().map(|kernel| {
            let mut out = Vec::new();
            kernel.candidates(&filter, &view, offsets.0..offsets.1, step, &mut out);
            out
        });

        let first = all.next().unwrap();
        prop_assert!(all.all(|other| other == first));
    }
}
