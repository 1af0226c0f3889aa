//! Secrets that lie encrypted: what is there, what is not, and what becomes of changed bits.

mod common;

use std::time::{Duration, Instant};

use common::pieces::{pattern, pieces};
use common::{fork, in_child, vm_flags};
use secmem::{Backend, Error, Policy, Secret, Vault, probe};

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
        let vault = Vault::with_policy(Policy::from(backend)).unwrap();
        let stored: Vec<_> = LENGTHS.iter().map(|&len| vault.store(&secret(backend, len)).unwrap()).collect();

        for _ in 0..3 {
            for (stored, len) in stored.iter().zip(LENGTHS) {
                let opened = stored.open(Secret::options().backend(backend)).unwrap();
                assert!(opened.with(|bytes| bytes.len() == len && is_pattern(bytes)).unwrap(), "{len}");
            }
            vault.rekey().unwrap();
        }
        assert_eq!((vault.pre_keys().unwrap(), vault.stored().unwrap()), (4, LENGTHS.len()));
        drop(stored);
        assert_eq!(vault.stored().unwrap(), 0);
        assert_eq!(vault.protection().unwrap().reached, backend);
    }
}

#[test]
fn every_changed_bit_is_seen_and_nothing_is_decrypted() {
    let vault = Vault::new().unwrap();
    let stored = vault.store(&secret(Backend::Auto, 5)).unwrap();
    let bits = 8 * (16 + 16 + 5); // salt, tag, ciphertext

    for bit in 0..bits {
        probe::flip(&stored, bit);
        assert!(matches!(stored.open(Secret::options()), Err(Error::Damaged { len: 5 })), "bit {bit}");
        assert!(matches!(vault.rekey(), Err(Error::Damaged { len: 5 })), "bit {bit}");
        probe::flip(&stored, bit);
    }

    assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
    assert_eq!(vault.pre_keys().unwrap(), 1, "a change of keys that fails leaves all as it was");
}

#[test]
fn what_lies_in_a_vault_is_nowhere_in_the_clear_and_what_is_opened_is_in_an_arena_alone() {
    let ended = in_child(|| {
        let backend = Backend::Mlock; // which this process can read of itself by the file
        let vault = Vault::with_policy(Policy::from(backend)).unwrap();
        let plain = secret(backend, 64);
        assert!(!pieces().is_empty(), "the search finds what is there");
        let stored = vault.store(&plain).unwrap();
        drop(plain);
        assert_eq!(pieces(), Vec::<usize>::new());

        let opened = stored.open(Secret::options().backend(backend)).unwrap();
        let found = pieces();
        let arena = opened.with(<[u8]>::as_ptr).unwrap().addr();
        assert!(found.len() >= 50 && found.iter().all(|at| (arena..arena + 64).contains(at)), "{found:x?}");
        let flags = vm_flags(std::ptr::without_provenance(arena));
        assert!(["lo", "dd", "dc"].iter().all(|flag| flags.iter().any(|it| it == flag)), "{flags:?}");
        drop(opened);
        vault.rekey().unwrap();
        assert_eq!(pieces(), Vec::<usize>::new());
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_thread_draws_new_pre_keys_and_ends_with_the_vault() {
    let ended = in_child(|| {
        let vault = Vault::new().unwrap();
        let stored = vault.store(&secret(Backend::Auto, 32)).unwrap();
        vault.rekey_every(Duration::from_millis(5)).unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while vault.pre_keys().unwrap() < 4 && Instant::now() < patience {
            assert!(stored.open(Secret::options()).unwrap().with(is_pattern).unwrap());
        }
        assert!(vault.pre_keys().unwrap() >= 4);

        drop((stored, vault));
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
        let vault = Vault::new().unwrap();
        let stored = vault.store(&secret(Backend::Auto, 32)).unwrap();

        let status = fork(|| {
            assert!(matches!(stored.open(Secret::options()), Err(Error::Forked)));
            assert!(matches!(vault.rekey(), Err(Error::Forked)));
            21
        });
        assert_eq!(libc::WEXITSTATUS(status), 21, "{status:#x}");
        secmem::purge::purge_all();

        assert!(matches!(stored.open(Secret::options()), Err(Error::Purged)));
        assert!(matches!(vault.store(&Secret::new(1).unwrap()), Err(Error::Purged)));
    });

    assert!(ended.status.success(), "{ended:?}");
}
