//! Every way in which a row must not pass.

use findings::{Class, Coverage, Share};
use scenario_protocol::{CanaryKind, Ends};

use super::*;
use crate::scan::Match;

fn row(expect: &str) -> Row {
    Row {
        name: "holder/ending".to_owned(),
        holder: "holder".to_owned(),
        ending: "ending".to_owned(),
        canary: CanaryKind::Bytes,
        canary_len: 32,
        expect: expect.parse().unwrap(),
        ends: Ends::Exit(0),
        checkpoints: vec![Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
        sole_home: false,
        needs: Vec::new(),
        turned_by: Vec::new(),
        asks: false,
        shows: Vec::new(),
        derived: None,
    }
}

fn hit(needle: u32, secret_length: u64) -> Hit {
    Hit {
        found: Match {
            address: 0x1000,
            needle,
            form: Form::Raw,
            phase: 0,
            length: secret_length,
            secret_offset: 0,
            secret_length,
            whole: secret_length == 32,
        },
        class: Class::Heap,
        place: "[heap]".to_owned(),
        permissions: "rw-p".to_owned(),
    }
}

fn look(checkpoint: Checkpoint, hits: Vec<Hit>) -> Look {
    let coverage = Coverage { listed: 4096, read: 4096, ..Coverage::default() };
    let (kept, exposure) = (None, None);
    Look {
        checkpoint,
        process: 1,
        looked: Looked::Yes,
        threads: 1,
        coverage,
        kept,
        exposure,
        core: None,
        hits,
        spots: Vec::new(),
        public: 0,
        writings: Vec::new(),
    }
}

/// The secret stands at `planted` and nowhere later.
fn clean() -> Record {
    Record {
        looks: vec![
            look(Checkpoint::Planted, vec![hit(CANARY, 32)]),
            look(Checkpoint::Wiped, Vec::new()),
            look(Checkpoint::Exit, Vec::new()),
        ],
        ended: Some(Ends::Exit(0)),
        ..Record::default()
    }
}

fn verdict(expect: &str, record: &Record) -> (Verdict, bool) {
    let outcome = judge(&row(expect), record, 8, &[]);
    (outcome.verdict, outcome.as_expected)
}

/// The clean record, spoilt.
fn spoilt(spoil: impl FnOnce(&mut Record)) -> Record {
    let mut record = clean();
    spoil(&mut record);
    record
}

#[test]
fn a_record_without_fault_is_clean() {
    assert_eq!(verdict("clean", &clean()), (Verdict::Clean, true));
}

#[test]
fn a_piece_after_planted_is_a_leak() {
    let record = spoilt(|record| record.looks[2].hits.push(hit(CANARY, 6)));

    assert_eq!(verdict("clean", &record), (Verdict::Leak, false));
}

#[test]
fn every_doubt_keeps_a_clean_row_from_being_clean() {
    let refuse = |record: &mut Record| record.looks[1].coverage.refused.push(Share { why: "EIO".to_owned(), bytes: 1 });
    let doubts: [(&str, Record); 10] = [
        ("silent control", spoilt(|record| record.looks[0].hits.clear())),
        ("control in pieces", spoilt(|record| record.looks[0].hits = vec![hit(CANARY, 31)])),
        ("decoy hit", spoilt(|record| record.looks[1].hits.push(hit(3, 6)))),
        ("refused bytes", spoilt(refuse)),
        ("bytes that do not add up", spoilt(|record| record.looks[1].coverage.listed += 1)),
        ("nothing read", spoilt(|record| record.looks[1].coverage = Coverage::default())),
        ("missed checkpoint", spoilt(|record| record.looks[1].looked = Looked::Missed("late".to_owned()))),
        ("another ending", spoilt(|record| record.ended = Some(Ends::Signal(9)))),
        ("trouble", spoilt(|record| record.troubles.push("trouble".to_owned()))),
        ("interrupted", spoilt(|record| record.interrupted = true)),
    ];

    for (name, record) in doubts {
        assert_eq!(verdict("clean", &record), (Verdict::Inconclusive, false), "{name}");
    }
    assert_eq!(judge(&row("clean"), &clean(), 0, &[]).verdict, Verdict::Inconclusive, "no decoys");
}

#[test]
fn a_leak_stays_a_leak_beside_refused_bytes_but_not_beside_decoy_hits() {
    let leak = |record: &mut Record| record.looks[1].hits.push(hit(CANARY, 32));
    let refused = spoilt(|record| {
        leak(record);
        record.looks[1].coverage.refuse("EIO", 4096);
    });
    let decoys = spoilt(|record| {
        leak(record);
        record.looks[1].hits.push(hit(1, 8));
    });

    assert_eq!(verdict("clean", &refused).0, Verdict::Leak);
    assert_eq!(verdict("clean", &decoys).0, Verdict::Inconclusive);
}

#[test]
fn shielded_memory_at_the_end_counts_as_wiped_only_after_it_was_read() {
    let shield = |look: &mut Look| {
        look.coverage.read = 0;
        look.coverage.shielded = look.coverage.listed;
    };
    let mut read_before = clean();
    read_before.looks[2].coverage = Coverage { listed: 8192, read: 4096, shielded: 4096, ..Coverage::default() };
    let mut never_read = read_before.clone();
    never_read.looks.remove(1);
    let mut unread_alive = read_before.clone();
    shield(&mut unread_alive.looks[1]);
    let mut of_another = read_before.clone();
    of_another.looks[1].process = 2;

    assert_eq!(verdict("clean", &read_before).0, Verdict::Clean);
    for record in [never_read, unread_alive, of_another] {
        assert_eq!(verdict("clean", &record).0, Verdict::Inconclusive);
    }
}

#[test]
fn shielded_rows_need_shielded_memory() {
    let mut shielded = clean();
    shielded.looks[2].coverage = Coverage { listed: 8192, read: 4096, shielded: 4096, ..Coverage::default() };

    assert_eq!(verdict("clean (shielded)", &shielded), (Verdict::Clean, true));
    assert_eq!(verdict("clean (shielded)", &clean()), (Verdict::Inconclusive, false));
}

#[test]
fn a_leaky_control_must_be_found_where_and_how_its_row_says() {
    let leaks = |at: usize, length| spoilt(|record| record.looks[at].hits.push(hit(CANARY, length)));

    assert_eq!(verdict("leak@wiped", &leaks(1, 32)), (Verdict::Leak, true));
    assert_eq!(verdict("leak@wiped (fragments)", &leaks(1, 16)), (Verdict::Leak, true));
    for (expect, record) in [
        ("leak@wiped", clean()),
        ("leak@wiped", leaks(2, 32)),
        ("leak@wiped", leaks(1, 16)),
        ("leak@wiped (fragments)", leaks(1, 32)),
    ] {
        assert_eq!(verdict(expect, &record), (Verdict::Inconclusive, false), "{expect}");
    }
}

#[test]
fn a_copy_beside_the_one_home_is_a_leak_even_while_the_secret_lives() {
    let mut ours = row("clean");
    ours.sole_home = true;
    let two = spoilt(|record| {
        record.looks[0].hits.push(Hit { class: Class::DeadStack, ..hit(CANARY, 32) });
        record.looks[0].hits[1].found.address = 0x2000;
    });
    let piece = spoilt(|record| record.looks[0].hits.push(hit(CANARY, 8)));

    assert_eq!(judge(&ours, &clean(), 8, &[]).verdict, Verdict::Clean);
    assert_eq!(judge(&ours, &two, 8, &[]).verdict, Verdict::Leak);
    assert_eq!(judge(&ours, &piece, 8, &[]).verdict, Verdict::Leak);
}

#[test]
fn a_word_of_the_home_that_its_neighbour_fits_by_chance_is_no_other_copy() {
    let mut ours = row("clean");
    ours.sole_home = true;
    let beside = |address, length| {
        let mut hit = hit(CANARY, 8);
        hit.found = Match { address, length, form: Form::Limbs64, secret_length: length, ..hit.found };
        spoilt(|record| record.looks[0].hits.push(hit))
    };

    // The last word and a byte behind it, the first and one before it; four bytes are too many for chance.
    for (address, length, verdict) in [
        (0x1018, 9, Verdict::Clean),
        (0x0FFF, 9, Verdict::Clean),
        (0x1018, 12, Verdict::Leak),
        (0x2000, 9, Verdict::Leak),
    ] {
        assert_eq!(judge(&ours, &beside(address, length), 8, &[]).verdict, verdict, "{address:#x} {length}");
    }
}

#[test]
fn what_is_made_of_a_secret_has_one_home_of_its_own() {
    let mut ours = row("clean");
    ours.sole_home = true;
    ours.derived = Some("derived key".to_owned());
    let one = spoilt(|record| record.looks[0].hits.push(hit(DERIVED, 32)));
    let elsewhere = |needle| {
        let mut hit = hit(needle, 32);
        hit.found.address = 0x2000;
        hit
    };
    let two = spoilt(|record| record.looks[0].hits.extend([hit(DERIVED, 32), elsewhere(DERIVED)]));
    let both = spoilt(|record| record.looks[0].hits.extend([hit(DERIVED, 32), elsewhere(CANARY)]));

    assert_eq!(judge(&ours, &one, 8, &[]).verdict, Verdict::Clean);
    assert_eq!(judge(&ours, &two, 8, &[]).verdict, Verdict::Leak);
    assert_eq!(judge(&ours, &both, 8, &[]).verdict, Verdict::Leak);
}

#[test]
fn a_limit_of_ours_excuses_its_one_copy_and_nothing_else() {
    let mut limit = row("leak@exit");
    limit.sole_home = true;
    let one = spoilt(|record| record.looks[2].hits.push(hit(CANARY, 32)));
    let more = spoilt(|record| {
        record.looks[2].hits.push(hit(CANARY, 32));
        record.looks[2].hits.push(Hit { class: Class::DeadStack, ..hit(CANARY, 8) });
    });

    assert!(judge(&limit, &one, 8, &[]).as_expected);
    assert!(!judge(&limit, &more, 8, &[]).as_expected);
}

#[test]
fn either_allows_both_but_no_doubt() {
    let leak = spoilt(|record| record.looks[1].hits.push(hit(CANARY, 32)));
    let doubt = spoilt(|record| record.troubles.push("trouble".to_owned()));

    assert!(verdict("either (why)", &clean()).1);
    assert!(verdict("either (why)", &leak).1);
    assert!(!verdict("either (why)", &doubt).1);
}

#[test]
fn a_core_that_is_required_must_be_looked_at() {
    let record = spoilt(|record| {
        let looked = Looked::NotLookedAt("piped".to_owned());
        record.looks.push(Look { looked, coverage: Coverage::default(), ..look(Checkpoint::Core, Vec::new()) });
    });

    assert_eq!(judge(&row("clean"), &record, 8, &[]).verdict, Verdict::Clean);
    assert_eq!(judge(&row("clean"), &record, 8, &[CORE.to_owned()]).verdict, Verdict::Inconclusive);
}

#[test]
fn a_fingerprint_names_the_residue_and_not_its_address() {
    let moved = |address| Hit { found: Match { address, ..hit(CANARY, 8).found }, ..hit(CANARY, 8) };
    let print = |hit: &Hit| finding("row", "exit", 1, hit).fingerprint;

    assert_eq!(print(&moved(1)), print(&moved(2)));
    assert_ne!(print(&hit(CANARY, 8)), print(&hit(CANARY, 9)));
}
