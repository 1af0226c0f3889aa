//! Secrets that lie encrypted: what is there, what is not, and what becomes of changed bits.

mod common;

use std::time::{Duration, Instant};

use common::pieces::{pattern, pieces};
use common::{fork, in_child, vm_flags};
use secmem::{Backend, Coffer, Error, Policy, Secret, Stored, probe};

const LENGTHS: [usize; 7] = [0, 1, 31, 32, 33, 4096, 100_000];

fn secret(backend: Backend, len: usize) -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));
        Ok::<(), Error>(())
    };
    Secret::options().backend(backend).filled(len, fill).unwrap()
}

fn is_pattern(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at))
}

#[test]
fn what_was_stored_comes_back_before_and_after_new_pre_keys() {
    for backend in [Backend::MemfdSecret, Backend::Mlock] {
        let coffer = Coffer::with_policy(Policy::from(backend)).unwrap();
        let stored: Vec<_> = LENGTHS.iter().map(|&len| coffer.store(&secret(backend, len)).unwrap()).collect();

        for _ in 0..3 {
            for (stored, len) in stored.iter().zip(LENGTHS) {
                let opened = stored.open(Secret::options().backend(backend)).unwrap();
                assert!(opened.with(|bytes| bytes.len() == len && is_pattern(bytes)).unwrap(), "{len}");
            }
            coffer.rekey().unwrap();
        }
        assert_eq!((coffer.pre_keys().unwrap(), coffer.stored().unwrap()), (4, LENGTHS.len()));
        drop(stored);
        assert_eq!(coffer.stored().unwrap(), 0);
        assert_eq!(coffer.protection().unwrap().reached, backend);
    }
}

/// Changes a bit of what is stored.
fn flip(stored: &Stored, bit: usize) {
    let mut content = probe::stored(stored);
    content[bit / 8] ^= 1 << (bit % 8);
    probe::overwrite(stored, &content);
}

#[test]
fn every_changed_bit_is_seen_and_nothing_is_decrypted() {
    let coffer = Coffer::new().unwrap();
    let stored = coffer.store(&secret(Backend::Auto, 5)).unwrap();
    let bits = 8 * (16 + 16 + 5); // salt, tag, ciphertext

    for bit in 0..bits {
        flip(&stored, bit);
        assert!(matches!(stored.open(Secret::options()), Err(Error::Damaged { len: 5 })), "bit {bit}");
        assert!(matches!(coffer.rekey(), Err(Error::Damaged { len: 5 })), "bit {bit}");
        flip(&stored, bit);
    }

    assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
    assert_eq!(coffer.pre_keys().unwrap(), 1, "a change of keys that fails leaves all as it was");
}

#[test]
fn what_lies_in_a_coffer_is_nowhere_in_the_clear_and_what_is_opened_is_in_an_arena_alone() {
    let ended = in_child(|| {
        let backend = Backend::Mlock; // which this process can read of itself by the file
        let coffer = Coffer::with_policy(Policy::from(backend)).unwrap();
        let plain = secret(backend, 64);
        assert!(!pieces().is_empty(), "the search finds what is there");
        let stored = coffer.store(&plain).unwrap();
        drop(plain);
        assert_eq!(pieces(), Vec::<usize>::new());

        let opened = stored.open(Secret::options().backend(backend)).unwrap();
        let found = pieces();
        let arena = opened.with(<[u8]>::as_ptr).unwrap().addr();
        assert!(found.len() >= 50 && found.iter().all(|at| (arena..arena + 64).contains(at)), "{found:x?}");
        let flags = vm_flags(std::ptr::without_provenance(arena));
        assert!(["lo", "dd", "dc"].iter().all(|flag| flags.iter().any(|it| it == flag)), "{flags:?}");
        drop(opened);
        coffer.rekey().unwrap();
        assert_eq!(pieces(), Vec::<usize>::new());
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_thread_draws_new_pre_keys_and_ends_with_the_coffer() {
    let ended = in_child(|| {
        let coffer = Coffer::new().unwrap();
        let stored = coffer.store(&secret(Backend::Auto, 32)).unwrap();
        coffer.rekey_every(Duration::from_millis(5)).unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while coffer.pre_keys().unwrap() < 4 && Instant::now() < patience {
            assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
        }
        assert!(coffer.pre_keys().unwrap() >= 4);

        drop((stored, coffer));
        let threads = || {
            std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
                let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
                name.is_ok_and(|name| name.starts_with("secmem-rekey"))
            })
        };
        while threads().count() > 0 && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(threads().count(), 0);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn after_a_purge_and_in_a_forked_child_nothing_opens() {
    let ended = in_child(|| {
        let coffer = Coffer::new().unwrap();
        let stored = coffer.store(&secret(Backend::Auto, 32)).unwrap();

        let status = fork(|| {
            assert!(matches!(stored.open(Secret::options()), Err(Error::Forked)));
            assert!(matches!(coffer.rekey(), Err(Error::Forked)));
            21
        });
        assert_eq!(libc::WEXITSTATUS(status), 21, "{status:#x}");
        secmem::purge::purge_all();

        assert!(matches!(stored.open(Secret::options()), Err(Error::Purged)));
        assert!(matches!(coffer.store(&Secret::new(1).unwrap()), Err(Error::Purged)));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn contents_that_have_changed_places_do_not_open() {
    let coffer = Coffer::new().unwrap();
    let (one, other) = (coffer.store(&secret(Backend::Auto, 32)), coffer.store(&secret(Backend::Auto, 32)));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.open(Secret::options()).is_ok() && other.open(Secret::options()).is_ok());

    let contents = [&one, &other].map(probe::stored);
    probe::overwrite(&one, &contents[1]);
    probe::overwrite(&other, &contents[0]);

    for stored in [&one, &other] {
        assert!(matches!(stored.open(Secret::options()), Err(Error::Damaged { len: 32 })));
    }
}

#[test]
fn equal_contents_have_neither_salt_nor_ciphertext_in_common() {
    let coffer = Coffer::new().unwrap();
    let [one, other] = [(); 2].map(|()| coffer.store(&secret(Backend::Auto, 64)).unwrap());

    let (one, other) = (probe::stored(&one), probe::stored(&other));

    for (what, part) in [("salt", 0..16), ("tag", 16..32), ("ciphertext", 32..64), ("ciphertext", 64..96)] {
        assert_ne!(one[part.clone()], other[part], "the same {what}");
    }
}

#[test]
fn what_one_coffer_stored_is_nothing_to_another() {
    let [ours, theirs] = [(); 2].map(|()| Coffer::new().unwrap());
    let [one, other] = [&ours, &theirs].map(|coffer| coffer.store(&secret(Backend::Auto, 32)).unwrap());

    // Both are the first of their coffers, so nothing but the pre-keys tells them apart.
    probe::overwrite(&other, &probe::stored(&one));

    assert!(one.open(Secret::options()).is_ok());
    assert!(matches!(other.open(Secret::options()), Err(Error::Damaged { len: 32 })));
}

#[test]
fn what_was_stored_under_an_old_pre_key_is_nothing_to_the_new_one() {
    let coffer = Coffer::new().unwrap();
    let stored = coffer.store(&secret(Backend::Auto, 32)).unwrap();
    let old = probe::stored(&stored);
    probe::overwrite(&stored, &old);
    assert!(stored.open(Secret::options()).is_ok(), "what is put back unchanged opens");

    coffer.rekey().unwrap();

    assert_ne!(probe::stored(&stored), old);
    assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
    probe::overwrite(&stored, &old);
    assert!(matches!(stored.open(Secret::options()), Err(Error::Damaged { len: 32 })));
}

#[test]
fn a_wrong_bit_anywhere_in_the_pre_key_opens_nothing() {
    const PRE_KEY: usize = 16 << 10;
    let coffer = Coffer::new().unwrap();
    let stored = coffer.store(&secret(Backend::Auto, 32)).unwrap();
    // The ends of each part that is used in its own way, and something of each 500 bytes between them.
    let ends = [0, 15, 16, 31, 32, PRE_KEY / 2, PRE_KEY - 33, PRE_KEY - 32, PRE_KEY - 16, PRE_KEY - 1];

    for (number, byte) in ends.into_iter().chain((0..PRE_KEY).step_by(499)).enumerate() {
        let bit = 8 * byte + number % 8;
        probe::flip_pre_key(&coffer, bit);
        let opened = stored.open(Secret::options());
        assert!(matches!(opened, Err(Error::Damaged { len: 32 })), "bit {bit}: {opened:?}");
        probe::flip_pre_key(&coffer, bit);
    }

    assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
}
