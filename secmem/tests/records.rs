//! Records: that they come back, what is refused and why, and how keys live and end.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::pieces::{pattern, pieces};
use common::{fork, in_child};
use secmem::manager::{self, Manager};
use secmem::records::{Cipher, Config, Error, Event, Failure, Header, KeyState, Keyring, OVERHEAD};
use secmem::{Backend, Secret, TestClock};

const HOUR: Duration = Duration::from_secs(3600);
const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];

fn keyring() -> Keyring {
    Keyring::new(Config::default()).unwrap()
}

fn holds(secret: &Secret, content: &[u8]) -> bool {
    secret.with(|bytes| bytes == content).unwrap()
}

fn key(byte: u8) -> Secret {
    Secret::options()
        .filled(32, |slot| {
            slot.fill(byte);
            Ok::<(), secmem::Error>(())
        })
        .unwrap()
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::try_from(bytes.to_vec()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The paragraphs of a file of vectors, each by its names.
fn vectors(text: &str) -> Vec<HashMap<&str, &str>> {
    let lines = |part: &'static str| part.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    let paragraphs = text.split("\n\n").map(lines).filter(|lines| !lines.is_empty());
    paragraphs.map(|lines| lines.iter().filter_map(|line| line.split_once(' ')).collect()).collect()
}

#[test]
fn what_was_encrypted_comes_back_and_the_input_is_wiped() {
    for cipher in CIPHERS {
        let keys = Keyring::new(Config::default().cipher(cipher)).unwrap();
        for len in [0, 1, 15, 16, 17, 4096, 100_000] {
            let content: Vec<u8> = (0..len).map(|at| at as u8 | 1).collect();
            let mut input = content.clone();

            let record = keys.encrypt(&mut input[..], b"of whom").unwrap();

            assert!(input.iter().all(|byte| *byte == 0));
            assert_eq!(record.len(), len + OVERHEAD);
            assert!(len < 16 || !record.windows(16).any(|part| part == &content[..16]));
            let header = Header::read(&record).unwrap();
            assert_eq!((header.cipher, header.len, header.key), (cipher, len, keys.active().unwrap()));
            assert!(holds(&keys.decrypt(&record, b"of whom", Secret::options()).unwrap(), &content));
        }
    }
}

#[test]
fn two_records_of_one_content_have_nothing_in_common() {
    let keys = keyring();
    let made = [0; 2].map(|_| keys.encrypt_secret(&key(7), b"").unwrap());

    assert_ne!(made[0][40..], made[1][40..]);
    assert!(!made[0][40..72].iter().zip(&made[1][40..72]).all(|(a, b)| a == b), "salts");
}

#[test]
fn every_changed_bit_is_refused_and_says_nothing_of_the_content() {
    let keys = keyring();
    for cipher in CIPHERS {
        let keys = if cipher == Cipher::Aes256Gcm {
            keys.clone()
        } else {
            Keyring::new(Config::default().cipher(cipher)).unwrap()
        };
        let record = keys.encrypt_secret(&secret(b"content"), b"a").unwrap();
        for bit in 0..8 * record.len() {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = keys.decrypt_stored(&changed, b"a", Secret::options()).unwrap_err();
            let fits = match bit / 8 {
                0..4 | 5 | 7 => matches!(error, Error::NoRecord),
                4 => matches!(error, Error::Version { .. }),
                6 => matches!(error, Error::Cipher { .. } | Error::Altered),
                8..24 => matches!(error, Error::UnknownKey { .. }),
                32..40 => matches!(error, Error::Truncated { .. } | Error::Trailing { .. }),
                _ => matches!(error, Error::Altered),
            };
            assert!(fits, "bit {bit}: {error:?}");
        }
        assert!(matches!(keys.decrypt(&record, b"b", Secret::options()), Err(Error::Altered)));
        assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::Altered)));
        assert!(keys.decrypt(&record, b"a", Secret::options()).is_ok(), "the control");
    }
}

#[test]
fn a_record_that_was_cut_or_grew_is_told_apart() {
    let keys = keyring();
    let record = keys.encrypt_secret(&secret(b"content"), b"").unwrap();

    for len in 1..record.len() {
        let error = keys.decrypt(&record[..len], b"", Secret::options()).unwrap_err();
        assert!(matches!(error, Error::Truncated { len: it, .. } if it == len), "{len}: {error:?}");
    }
    assert!(matches!(keys.decrypt(&[], b"", Secret::options()), Err(Error::NoRecord)));
    let grown = [&record[..], b"x"].concat();
    assert!(matches!(keys.decrypt(&grown, b"", Secret::options()), Err(Error::Trailing { .. })));
    assert!(matches!(keys.decrypt(b"{\"data\":\"...\"}", b"", Secret::options()), Err(Error::NoRecord)));
    let mut newer = record;
    newer[4] = 2;
    assert!(matches!(keys.decrypt(&newer, b"", Secret::options()), Err(Error::Version { found: 2 })));
}

#[test]
fn a_record_that_claims_to_be_huge_takes_no_memory() {
    let keys = keyring();
    let mut record = keys.encrypt_secret(&secret(b"content"), b"").unwrap();
    record[32..40].copy_from_slice(&u64::MAX.to_le_bytes());

    assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::Truncated { .. })));
    let small = Keyring::new(Config::default().max_len(8)).unwrap();
    assert!(matches!(small.encrypt(&mut [0; 9], b""), Err(Error::Size { len: 9, most: 8 })));
    assert!(small.encrypt(&mut [0; 8], b"").is_ok());
}

#[test]
fn records_of_an_independent_implementation_are_read() {
    let all = vectors(include_str!("vectors/records-v1.txt"));
    assert_eq!(all.len(), 7);
    for vector in all {
        let field = |name: &str| vector.get(name).copied().unwrap_or("");
        if vector["kind"] == "data" {
            let keys = Keyring::with_key(Config::default(), secret(&unhex(vector["key"]))).unwrap();
            let (record, associated) = (unhex(vector["record"]), unhex(field("associated")));

            assert_eq!(keys.active().unwrap().to_string(), vector["id"]);
            assert_eq!(Header::read(&record).unwrap().millis.to_string(), vector["millis"]);
            let opened = keys.decrypt_stored(&record, &associated, Secret::options()).unwrap();
            assert!(holds(&opened, &unhex(field("content"))));
            assert!(matches!(keys.decrypt(&record, &associated, Secret::options()), Err(Error::TooOld { .. })));
        } else {
            let keys = keyring();
            let wrapping = secret(&unhex(vector["wrapping"]));

            assert_eq!(keys.import(&unhex(vector["record"]), &wrapping).unwrap().to_string(), vector["id"]);
            let opened = keys.decrypt_stored(&unhex(vector["data"]), b"", Secret::options()).unwrap();
            assert!(holds(&opened, &unhex(vector["content"])));
        }
    }
}

#[test]
fn the_window_goes_by_the_authenticated_time() {
    let clock = TestClock::new();
    let keys = Keyring::new(Config::default().clock(clock).rotation(None)).unwrap();
    let record = keys.encrypt_secret(&secret(b"content"), b"").unwrap();

    clock.advance(24 * HOUR);
    assert!(keys.decrypt(&record, b"", Secret::options()).is_ok());
    clock.advance(Duration::from_millis(1));
    assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::TooOld { .. })));
    assert!(keys.decrypt_stored(&record, b"", Secret::options()).is_ok());
    let mut forged = record;
    let younger = Header::read(&forged).unwrap().millis + 1000;
    forged[24..32].copy_from_slice(&younger.to_le_bytes());
    assert!(matches!(keys.decrypt(&forged, b"", Secret::options()), Err(Error::Altered)));
}

#[test]
fn a_record_from_the_future_is_refused_beyond_what_clocks_differ() {
    let (here, ahead) = (TestClock::new(), TestClock::new());
    let make = |clock| Keyring::with_key(Config::default().clock(clock), key(1)).unwrap();
    let (keys, other) = (make(here), make(ahead));
    ahead.advance(Duration::from_secs(30));
    assert!(keys.decrypt(&other.encrypt_secret(&key(2), b"").unwrap(), b"", Secret::options()).is_ok());
    ahead.advance(Duration::from_secs(300));
    let record = other.encrypt_secret(&key(2), b"").unwrap();

    assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::Future { .. })));
}

#[test]
fn a_record_is_decrypted_once_and_what_cannot_be_remembered_is_refused() {
    let clock = TestClock::new();
    let keys = Keyring::new(Config::default().clock(clock).rotation(None).max_remembered(2)).unwrap();
    let once = |record: &[u8]| keys.decrypt_once(record, b"", Secret::options());
    let [a, b, c] = [1, 2, 3].map(|byte| keys.encrypt_secret(&key(byte), b"").unwrap());

    assert!(once(&a).is_ok() && once(&b).is_ok());
    assert!(matches!(once(&a), Err(Error::Replayed)));
    assert!(matches!(once(&c), Err(Error::Crowded { most: 2 })));
    let anew = keys.reencrypt(&a, b"").unwrap();
    assert_eq!(Header::read(&anew).unwrap().millis, Header::read(&a).unwrap().millis, "no younger than it was");
    clock.advance(24 * HOUR + Duration::from_secs(1));
    assert!(matches!(once(&a), Err(Error::TooOld { .. })));
    let later = keys.encrypt_secret(&key(4), b"").unwrap();
    assert!(once(&later).is_ok(), "what the window keeps out is forgotten");
    assert_eq!(keys.metrics().replayed, 1);
}

#[test]
fn a_key_encrypts_a_day_then_decrypts_a_week_and_then_is_wiped() {
    let clock = TestClock::new();
    let keys = Keyring::new(Config::default().clock(clock)).unwrap();
    let events = keys.events(100);
    let first = keys.active().unwrap();
    let record = keys.encrypt_secret(&secret(b"content"), b"").unwrap();
    clock.advance(24 * HOUR);

    let second = Header::read(&keys.encrypt_secret(&key(2), b"").unwrap()).unwrap().key;
    assert!(second != first && keys.active().unwrap() == second, "the next encryption has rotated");
    assert!(keys.encrypt_with(&first, &mut [0; 3], b"").is_ok(), "within the grace period");
    clock.advance(HOUR + Duration::from_millis(1));
    assert!(matches!(keys.encrypt_with(&first, &mut [0; 3], b""), Err(Error::KeyRetired { .. })));
    let anew = keys.reencrypt(&record, b"").unwrap();
    clock.advance(7 * 24 * HOUR - HOUR - Duration::from_millis(2));
    assert!(keys.decrypt_stored(&record, b"", Secret::options()).is_ok());
    clock.advance(Duration::from_millis(1));

    let expired = keys.decrypt_stored(&record, b"", Secret::options());
    assert!(matches!(expired, Err(Error::KeyExpired { id }) if id == first), "{expired:?}");
    assert!(holds(&keys.decrypt_stored(&anew, b"", Secret::options()).unwrap(), b"content"));
    assert_eq!(keys.keys().unwrap()[0].state, KeyState::Expired);
    let told: Vec<_> = std::iter::from_fn(|| events.take()).collect();
    assert!(told.contains(&Event::Rotated { from: first, to: second }));
    assert!(told.contains(&Event::KeyExpired { key: first }));
    assert!(told.contains(&Event::Reencrypted { from: first, to: second }));
}

#[test]
fn a_revoked_key_opens_nothing_and_does_not_come_back() {
    let keys = keyring();
    let first = keys.active().unwrap();
    let wrapped = keys.export(&first, &key(9)).unwrap();
    let record = keys.encrypt_secret(&key(1), b"").unwrap();
    keys.revoke(&first).unwrap();

    assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::KeyRevoked { .. })));
    assert!(matches!(keys.encrypt_with(&first, &mut [1], b""), Err(Error::KeyRevoked { .. })));
    assert!(matches!(keys.revoke(&first), Err(Error::KeyRevoked { .. })));
    assert!(matches!(keys.export(&first, &key(9)), Err(Error::KeyRevoked { .. })));
    assert!(matches!(keys.import(&wrapped, &key(9)), Err(Error::KeyRevoked { .. })));
    assert_ne!(keys.active().unwrap(), first, "another encrypts");
    assert!(keys.encrypt(&mut [1], b"").is_ok());
}

#[test]
fn a_wrapped_key_opens_elsewhere_what_it_has_encrypted() {
    let keys = keyring();
    let id = keys.active().unwrap();
    let record = keys.encrypt_secret(&secret(b"content"), b"").unwrap();
    let wrapped = keys.export(&id, &key(9)).unwrap();
    let elsewhere = keyring();
    assert!(
        matches!(elsewhere.decrypt(&record, b"", Secret::options()), Err(Error::UnknownKey { id: it }) if it == id)
    );

    assert!(matches!(elsewhere.import(&wrapped, &key(8)), Err(Error::Altered)));
    assert!(matches!(elsewhere.import(&wrapped, &secret(b"short")), Err(Error::KeyLength { len: 5 })));
    assert!(matches!(elsewhere.import(&record, &key(9)), Err(Error::NoRecord)));
    assert!(matches!(elsewhere.decrypt(&wrapped, b"", Secret::options()), Err(Error::NoRecord)));
    for bit in 0..8 * wrapped.len() {
        let mut changed = wrapped.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(elsewhere.import(&changed, &key(9)).is_err(), "bit {bit}");
    }
    assert_eq!(elsewhere.import(&wrapped, &key(9)).unwrap(), id);
    assert!(holds(&elsewhere.decrypt(&record, b"", Secret::options()).unwrap(), b"content"));
    assert!(matches!(elsewhere.import(&wrapped, &key(9)), Err(Error::KnownKey { .. })));
    assert_ne!(elsewhere.active().unwrap(), id);
}

#[test]
fn content_goes_from_buffer_to_buffer_and_is_in_arenas_alone() {
    let keys = keyring();
    let manager = Manager::new(manager::Config::default()).unwrap();
    let (owner, stranger) = (manager.owner().unwrap(), manager.owner().unwrap());
    let [from, to] = [0; 2].map(|_| manager.allocate(&owner, 64, None).unwrap());
    manager.write(&owner, &from, &mut *b"content".to_vec()).unwrap();

    let record = keys.encrypt_buffer((&manager, &owner), &from, b"").unwrap();
    assert_eq!(record.len(), 7 + OVERHEAD, "the data, not the capacity");
    keys.decrypt_into(&record, b"", (&manager, &owner), &to).unwrap();

    assert!(manager.secure_compare(&owner, &from, &to).unwrap());
    let refused = keys.encrypt_buffer((&manager, &stranger), &from, b"");
    assert!(matches!(refused, Err(Error::Buffer(manager::Error::Denied))));
    let long = keys.encrypt(&mut [1; 65], b"").unwrap();
    let refused = keys.decrypt_into(&long, b"", (&manager, &owner), &to);
    assert!(matches!(refused, Err(Error::Buffer(manager::Error::Capacity { len: 65, capacity: 64 }))));
    assert!(manager.secure_compare(&owner, &from, &to).unwrap(), "as before");
}

#[test]
fn a_data_hash_covers_the_whole_record() {
    let keys = keyring();
    let record = keys.encrypt_secret(&secret(b"{\"a\":{\"b\":1}}"), b"").unwrap();
    let hash = keys.data_hash(&record).unwrap();
    let events = keys.events(10);

    assert!(keys.verify_data_hash(&record, &hash).unwrap());
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 1;
        assert!(!keys.verify_data_hash(&changed, &hash).unwrap(), "byte {at}");
    }
    assert!(!keys.verify_data_hash(b"", &hash).unwrap());
    assert_eq!(keys.metrics().hash_mismatches, record.len() as u64 + 1);
    assert_eq!(events.take(), Some(Event::HashMismatch { len: record.len() }));
}

#[test]
fn counts_follow_what_was_done_and_begin_again() {
    let keys = keyring();
    let record = keys.encrypt(&mut [7; 10], b"").unwrap();
    keys.decrypt(&record, b"", Secret::options()).unwrap();
    keys.decrypt(&record, b"other", Secret::options()).unwrap_err();
    keys.rotate().unwrap();
    let events = keys.events(10);

    let metrics = keys.reset_metrics();
    assert_eq!((metrics.encrypted, metrics.decrypted, metrics.decryption_failed), (1, 1, 1));
    assert_eq!((metrics.altered, metrics.rotated), (1, 1));
    assert_eq!((metrics.bytes_encrypted, metrics.bytes_decrypted), (10, 10));
    assert_eq!(keys.metrics(), Default::default());
    assert_eq!(events.take(), Some(Event::MetricsReset));
}

#[test]
fn refusals_are_told_with_their_reason() {
    let keys = keyring();
    let record = keys.encrypt(&mut [7; 10], b"").unwrap();
    let events = keys.events(10);
    let key = Some(keys.active().unwrap());

    keys.decrypt(&record, b"other", Secret::options()).unwrap_err();
    keys.decrypt(&record[..50], b"", Secret::options()).unwrap_err();

    assert_eq!(events.take(), Some(Event::DecryptionFailed { key, why: Failure::Altered }));
    assert_eq!(events.take(), Some(Event::DecryptionFailed { key: None, why: Failure::Malformed }));
}

#[test]
fn after_the_shutdown_nothing_works_and_no_key_is_left() {
    let keys = keyring();
    let record = keys.encrypt(&mut [7; 10], b"").unwrap();
    keys.rotate().unwrap();

    assert_eq!(keys.shutdown(), 2);
    assert_eq!(keys.shutdown(), 0);
    assert!(matches!(keys.decrypt(&record, b"", Secret::options()), Err(Error::Shutdown)));
    assert!(matches!(keys.encrypt(&mut [7; 10], b""), Err(Error::Shutdown)));
    assert!(matches!(keys.rotate(), Err(Error::Shutdown)));
    assert!(matches!(keys.keys(), Err(Error::Shutdown)));
}

#[test]
fn a_forked_child_has_no_keys() {
    let keys = keyring();
    let record = keys.encrypt(&mut [7; 10], b"").unwrap();
    let events = keys.events(64);
    // A thread that is not in the child may hold any lock in the moment of the fork.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = keys.decrypt(b"no record", b"", Secret::options());
                let _ = (events.take(), keys.events(1));
            }
        });
        for _ in 0..50 {
            let status = fork(|| {
                let refused = keys.decrypt(&record, b"", Secret::options());
                let told = (events.take(), events.lost(), keys.events(1).take());
                let is_so = matches!(refused, Err(Error::Memory(secmem::Error::Forked))) && told == (None, 0, None);
                i32::from(!is_so)
            });
            assert_eq!(status, 0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let nothing = Duration::ZERO;
    let wrong = [
        Config::default().retention(nothing),
        Config::default().window(nothing),
        Config::default().rotation(nothing),
        Config::default().grace(8 * 24 * HOUR),
        Config::default().max_len(0),
        Config::default().max_remembered(0),
    ];
    for config in wrong {
        assert!(matches!(Keyring::new(config), Err(Error::Config(_))));
    }
    assert!(matches!(Keyring::with_key(Config::default(), secret(b"short")), Err(Error::KeyLength { len: 5 })));
}

#[test]
fn threads_encrypt_while_keys_change() {
    let keys = keyring();
    std::thread::scope(|scope| {
        for byte in 1..4 {
            let keys = keys.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    let record = keys.encrypt(&mut [byte; 100], b"").unwrap();
                    assert!(holds(&keys.decrypt(&record, b"", Secret::options()).unwrap(), &[byte; 100]));
                }
            });
        }
        for _ in 0..20 {
            keys.rotate().unwrap();
        }
    });
    assert_eq!(keys.metrics().decrypted, 150);
}

#[test]
fn a_key_that_was_revoked_or_is_over_is_wiped_while_its_keyring_goes_on() {
    let ended = in_child(|| {
        let clock = TestClock::new();
        let config = Config::default().policy(Backend::Mlock).clock(clock);
        let ways: [fn(&Keyring, TestClock); 2] = [
            |keys, _| keys.revoke(&keys.active().unwrap()).unwrap(),
            |keys, clock| {
                keys.rotate().unwrap();
                assert!(!pieces().is_empty(), "it decrypts yet");
                clock.advance(7 * 24 * HOUR);
            },
        ];
        for end in ways {
            let keys = Keyring::with_key(config, pattern_of(32)).unwrap();
            assert!(!pieces().is_empty(), "the search finds what is there");

            end(&keys, clock);

            assert_eq!(pieces(), Vec::<usize>::new());
            assert!(keys.encrypt(&mut [1], b"").is_ok());
        }
    });
    assert!(ended.status.success(), "{ended:?}");
}

/// Of the pattern that the search knows, in memory that this process can read of itself by the file.
fn pattern_of(len: usize) -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));
        Ok::<(), secmem::Error>(())
    };
    Secret::options().backend(Backend::Mlock).filled(len, fill).unwrap()
}

#[test]
fn a_key_and_what_it_encrypts_are_in_arenas_alone_and_gone_at_the_end() {
    let ended = in_child(|| {
        for cipher in CIPHERS {
            let config = Config::default().policy(Backend::Mlock).cipher(cipher);
            let keys = Keyring::with_key(config, pattern_of(32)).unwrap();
            assert!(!pieces().is_empty(), "the search finds what is there");
            let record = keys.encrypt(&mut [1; 100], b"").unwrap();
            drop(keys.decrypt(&record, b"", Secret::options()).unwrap());
            let wrapped = keys.export(&keys.active().unwrap(), &key(9)).unwrap();
            keys.rotate().unwrap();
            keys.shutdown();
            assert_eq!(pieces(), Vec::<usize>::new(), "{cipher}: the key");
            drop(wrapped);

            let keys = Keyring::new(config).unwrap();
            let content = pattern_of(64);
            let record = keys.encrypt_secret(&content, b"").unwrap();
            drop(content);
            assert_eq!(pieces(), Vec::<usize>::new(), "{cipher}: the content");
            let opened = keys.decrypt(&record, b"", Secret::options().backend(Backend::Mlock)).unwrap();
            let (found, arena) = (pieces(), opened.with(<[u8]>::as_ptr).unwrap().addr());
            assert!(found.len() >= 50 && found.iter().all(|at| (arena..arena + 64).contains(at)), "{found:x?}");
            keys.reencrypt(&record, b"").unwrap();
            drop(opened);
            assert_eq!(pieces(), Vec::<usize>::new(), "{cipher}: the content that was opened");
        }
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_revoked_key_does_not_come_back_however_many_were_revoked_since() {
    let (keys, wrapping) = (keyring(), key(9));
    let first = keys.active().unwrap();
    let wrapped = keys.export(&first, &wrapping).unwrap();
    keys.revoke(&first).unwrap();
    for _ in 0..1100 {
        keys.revoke(&keys.active().unwrap()).unwrap();
    }
    assert!(matches!(keys.import(&wrapped, &wrapping), Err(Error::KeyRevoked { id }) if id == first));
}
