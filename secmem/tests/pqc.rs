//! Keys that are derived when they are needed: that they are the same everywhere, and what is refused.

mod common;

use std::time::Duration;

use aes_gcm_now::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm_now::{Aes256Gcm, Nonce};
use common::in_child;
use common::pieces::{pattern, pieces};
use ml_kem::kem::TryKeyInit as _;
use ml_kem::ml_kem_768;
use secmem::manager::Settings;
use secmem::manager::settings::SettingsError;
use secmem::pqc::{Algorithm, Config, Cost, Error, Header, Keys};
use secmem::records::Cipher;
use secmem::{Backend, Secret, TestClock};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::MlKem768, Algorithm::MlKem1024, Algorithm::XWing];
const BASE: &[u8] = b"a base secret of more than 32 bytes";
const SALT: &[u8] = b"a salt of 16 bytes";

/// Little, for tests.
const COST: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

fn secret(bytes: &[u8]) -> Secret {
    Secret::try_from(bytes.to_vec()).unwrap()
}

fn config() -> Config {
    Config::default().cost(COST)
}

fn keys_of(base: &[u8], salt: &[u8], config: Config) -> Keys {
    Keys::new(secret(base), secret(salt), config).unwrap()
}

fn keys(config: Config) -> Keys {
    keys_of(BASE, SALT, config)
}

fn holds(secret: &Secret, content: &[u8]) -> bool {
    secret.with(|bytes| bytes == content).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn whoever_has_the_same_secrets_reads_the_record_and_nobody_else() {
    let id = "biometrics".parse().unwrap();
    for algorithm in ALGORITHMS {
        let made = keys(config().algorithm(algorithm).cipher(Cipher::XChaCha20Poly1305));
        let mut content = *b"content";
        let record = made.encrypt(&id, &mut content, b"of whom").unwrap();
        drop(made);
        assert_eq!(content, [0; 7], "the input was wiped");
        assert_eq!(Header::read(&record).unwrap().algorithm, algorithm);

        let elsewhere = keys(config());
        assert!(holds(&elsewhere.decrypt(&record, b"of whom", Secret::options()).unwrap(), b"content"));
        assert!(matches!(elsewhere.decrypt(&record, b"other", Secret::options()), Err(Error::Altered)));
        for other in [
            keys_of(b"another secret of more than 32 bytes", SALT, config()),
            keys_of(BASE, b"another salt of 16", config()),
        ] {
            assert!(matches!(other.decrypt(&record, b"of whom", Secret::options()), Err(Error::OtherKey)));
        }
    }
}

#[test]
fn keys_of_other_names_algorithms_and_costs_are_others() {
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let public = |config: Config, id| keys(config).public_key(id).unwrap().as_bytes().to_vec();

    let first = public(config(), &a);
    assert_eq!(public(config(), &a), first, "and the same is the same");
    assert_ne!(public(config(), &b), first);
    assert_ne!(public(config().cost(Cost { passes: 2, ..COST }), &a), first);
    let kem = public(config().algorithm(Algorithm::MlKem768), &a);
    assert_ne!(first[..1184], kem[..], "X-Wing's part of ML-KEM is no other key");
}

/// The cipher and nonce of somebody who has the record and what was `agreed` on alone, and what the tag covers: by the page of the
/// format.
fn cipher_of(record: &[u8], agreed: &[u8]) -> (Aes256Gcm, Nonce<aes_gcm_now::aead::consts::U12>, Vec<u8>) {
    let header = Header::read(record).unwrap();
    let mut derived = [0; 56];
    let info = [&b"secmem pqc record v1"[..], &[header.algorithm as u8, header.cipher as u8]];
    let derivation = hkdf_now::Hkdf::<sha2_now::Sha512>::new(Some(&record[40..72]), agreed);
    derivation.expand_multi_info(&info, &mut derived).unwrap();
    let (key, nonce) = derived.split_at(32);
    let covered = [&record[..record.len() - header.len - 16], &[0; 8]].concat();
    (Aes256Gcm::new_from_slice(key).unwrap(), nonce[..12].try_into().unwrap(), covered)
}

/// Where in `found` something stands that opens the record.
fn what_opens(record: &[u8], found: &[u8]) -> Option<usize> {
    let (rest, tag) = record.split_last_chunk::<16>().unwrap();
    let content = &rest[rest.len() - Header::read(record).unwrap().len..];
    found.windows(32).position(|agreed| {
        let (cipher, nonce, covered) = cipher_of(record, agreed);
        let mut content = content.to_vec();
        cipher.decrypt_inout_detached(&nonce, &covered, (&mut content[..]).into(), &(*tag).into()).is_ok()
    })
}

#[test]
fn no_record_holds_what_opens_it() {
    let made = keys(config());
    let id = "a".parse().unwrap();
    for algorithm in ALGORITHMS {
        let record = keys(config().algorithm(algorithm)).encrypt(&id, &mut [7; 9], b"").unwrap();
        assert_eq!(what_opens(&record, &record), None, "{algorithm}");
    }
    // The same for somebody who has made the record, with the public key alone, and knows what was agreed on.
    let kem = keys(config().algorithm(Algorithm::MlKem768));
    let public = ml_kem_768::EncapsulationKey::new_from_slice(kem.public_key(&id).unwrap().as_bytes()).unwrap();
    let (encapsulated, agreed) = public.encapsulate_deterministic(&[5; 32].into());
    let mut record = kem.encrypt(&id, &mut [7; 9], b"").unwrap();
    let (before, content) = (74, 74 + encapsulated.len());
    record[before..content].copy_from_slice(&encapsulated);
    let (cipher, nonce, covered) = cipher_of(&record, &agreed);
    let mut theirs = *b"by others";
    let tag = cipher.encrypt_inout_detached(&nonce, &covered, (&mut theirs[..]).into()).unwrap();
    record.truncate(content);
    record.extend([&theirs[..], &tag].concat());
    assert!(holds(&made.decrypt(&record, b"", Secret::options()).unwrap(), b"by others"), "the format is what it says");
    assert_eq!(what_opens(&record, &[&record[..20], &agreed].concat()), Some(20), "the control");

    let records = [0; 2].map(|_| made.encrypt(&id, &mut [7; 100], b"").unwrap());
    let begin = 73 + 1;

    assert_ne!(records[0][begin..begin + 1120], records[1][begin..begin + 1120], "each agrees on a key of its own");
    assert!(!records[0].windows(16).any(|part| part == [7; 16]));
    let mut other_half = records[0].clone();
    other_half[begin..begin + 1120].copy_from_slice(&records[1][begin..begin + 1120]);
    assert!(matches!(made.decrypt(&other_half, b"", Secret::options()), Err(Error::Altered)));
}

#[test]
fn changed_records_are_refused_with_the_reason() {
    let made = keys(config().algorithm(Algorithm::MlKem768));
    let id = "name".parse().unwrap();
    let record = made.encrypt(&id, &mut *b"content".to_vec(), b"").unwrap();
    // All of the header, and here and there behind it.
    let (header, behind, all) = (8 * 77, 8 * 77 + 5, 8 * record.len());
    let bits = (0..header).step_by(11).chain((behind..all).step_by(997)).chain([all - 300, all - 1]);
    for bit in bits {
        let mut changed = record.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = made.decrypt_stored(&changed, b"", Secret::options()).unwrap_err();
        let fits = match bit / 8 {
            0..4 => matches!(error, Error::NoRecord),
            4 => matches!(error, Error::Version { .. }),
            5..8 => {
                matches!(error, Error::Algorithm { .. } | Error::Altered | Error::Truncated { .. } | Error::OtherKey)
            }
            8..20 => matches!(error, Error::Cost { .. } | Error::OtherKey),
            20..24 => matches!(error, Error::EpochAhead { .. } | Error::OtherKey),
            24..32 => matches!(error, Error::Altered),
            32..40 => matches!(error, Error::Truncated { .. } | Error::Trailing { .. }),
            40..72 => matches!(error, Error::OtherKey),
            72 => matches!(error, Error::Truncated { .. } | Error::Trailing { .. } | Error::NoRecord),
            73..77 => matches!(error, Error::OtherKey | Error::NoRecord | Error::Id(_)),
            _ => matches!(error, Error::Altered),
        };
        assert!(fits, "bit {bit}: {error:?}");
    }
    for len in 1..record.len() {
        let error = made.decrypt(&record[..len], b"", Secret::options()).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{len}: {error:?}");
    }
    assert!(matches!(made.decrypt(&[&record[..], b"x"].concat(), b"", Secret::options()), Err(Error::Trailing { .. })));
    assert!(matches!(made.decrypt(b"SMRC", b"", Secret::options()), Err(Error::NoRecord)));
    assert!(made.decrypt(&record, b"", Secret::options()).is_ok(), "the control");
}

#[test]
fn a_record_cannot_ask_for_more_work_than_is_allowed() {
    let dear = keys(config().cost(Cost { passes: 3, ..COST }));
    let id = "a".parse().unwrap();
    let record = dear.encrypt(&id, &mut [1], b"").unwrap();

    let mean = keys(config().most_cost(COST));
    assert!(matches!(mean.decrypt(&record, b"", Secret::options()), Err(Error::Cost { asked }) if asked.passes == 3));
    let too_dear = Keys::new(secret(BASE), secret(SALT), config().most_cost(COST).cost(Cost { passes: 2, ..COST }));
    assert!(matches!(too_dear, Err(Error::Cost { .. })));
}

#[test]
fn the_ratchet_destroys_what_was_and_reads_what_comes() {
    let (made, before) = (keys(config()), keys(config()));
    let id = "a".parse().unwrap();
    let old = made.encrypt(&id, &mut *b"old".to_vec(), b"").unwrap();
    let public = made.public_key(&id).unwrap();

    assert_eq!(made.ratchet().unwrap(), 1);
    assert_eq!(made.ratchet().unwrap(), 2);
    assert_ne!(made.public_key(&id).unwrap().fingerprint(), public.fingerprint());
    assert!(matches!(made.decrypt(&old, b"", Secret::options()), Err(Error::EpochGone { epoch: 0, now: 2 })));
    let new = made.encrypt(&id, &mut *b"new".to_vec(), b"").unwrap();
    assert!(holds(&before.decrypt(&new, b"", Secret::options()).unwrap(), b"new"), "forward for whoever has the first");
    let (epoch, base) = made.export(Secret::options()).unwrap();
    let again = Keys::at_epoch(epoch, base, secret(SALT), config()).unwrap();
    assert!(holds(&again.decrypt(&new, b"", Secret::options()).unwrap(), b"new"));
    assert!(matches!(again.decrypt(&old, b"", Secret::options()), Err(Error::EpochGone { .. })));
    assert_eq!((before.epoch().unwrap(), again.epoch().unwrap()), (0, 2));
}

#[test]
fn a_record_is_taken_within_its_window_alone() {
    let clock = TestClock::new();
    let made = keys(config().clock(clock));
    let record = made.encrypt(&"a".parse().unwrap(), &mut [1; 9], b"").unwrap();
    clock.advance(Duration::from_secs(24 * 3600 + 1));

    assert!(matches!(made.decrypt(&record, b"", Secret::options()), Err(Error::TooOld { .. })));
    assert!(holds(&made.decrypt_stored(&record, b"", Secret::options()).unwrap(), &[1; 9]));
}

#[test]
fn the_secrets_come_from_the_settings_and_are_long_enough() {
    let mut settings = Settings::production(secret(BASE), secret(SALT)).unwrap();
    let made = Keys::from_settings(&mut settings, config()).unwrap();
    let record = made.encrypt(&"a".parse().unwrap(), &mut [1; 9], b"").unwrap();
    assert!(settings.base_secret.is_none(), "it has moved");
    assert!(keys(config()).decrypt(&record, b"", Secret::options()).is_ok());

    let drawn = Keys::from_settings(&mut Settings::development(), config()).unwrap();
    assert!(matches!(drawn.decrypt(&record, b"", Secret::options()), Err(Error::OtherKey)));
    assert!(matches!(Keys::new(secret(&[1; 31]), secret(SALT), config()), Err(Error::Short)));
    assert!(matches!(Keys::new(secret(BASE), secret(&[1; 15]), config()), Err(Error::Short)));
    let missing = Settings::production(secret(&[1; 31]), secret(SALT));
    assert!(matches!(missing, Err(SettingsError::Invalid { .. })));
}

#[test]
fn a_forked_child_has_no_keys() {
    let made = keys(config());
    let id = "a".parse().unwrap();
    let status = common::fork(|| {
        let refused = made.encrypt(&id, &mut [1], b"");
        i32::from(!matches!(refused, Err(Error::Memory(secmem::Error::Forked))))
    });
    assert_eq!(status, 0);
}

/// Records that an earlier build has written, with the secrets of this file. They are never written anew: a build that
/// does not read them has changed the format.
#[test]
fn records_that_were_kept_are_read() {
    let kept: Vec<_> = include_str!("vectors/pqc-v1.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(kept.len(), 3);
    for (record, algorithm) in kept.into_iter().zip(ALGORITHMS) {
        let record = unhex(record);
        assert_eq!(Header::read(&record).unwrap().algorithm, algorithm);
        let opened = keys(config()).decrypt_stored(&record, b"of whom", Secret::options()).unwrap();
        assert!(holds(&opened, b"kept"));
    }
}

#[test]
#[ignore = "prints what was kept in vectors/pqc-v1.txt; a new version of the format needs it again"]
fn print_records_to_keep() {
    for algorithm in ALGORITHMS {
        let made = keys(config().algorithm(algorithm));
        let record = made.encrypt(&"kept".parse().unwrap(), &mut *b"kept".to_vec(), b"of whom").unwrap();
        println!("{}", record.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}

#[test]
fn a_base_secret_is_in_arenas_alone_and_gone_after_the_ratchet() {
    let ended = in_child(|| {
        let fill = |slot: &mut [u8]| {
            slot.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));
            Ok::<(), secmem::Error>(())
        };
        let base = Secret::options().backend(Backend::Mlock).filled(64, fill).unwrap();
        let arena = base.with(<[u8]>::as_ptr).unwrap().addr();
        let made = Keys::new(base, secret(SALT), config().policy(Backend::Mlock)).unwrap();
        let record = made.encrypt(&"a".parse().unwrap(), &mut [1; 100], b"").unwrap();
        drop(made.decrypt(&record, b"", Secret::options()).unwrap());
        let found = pieces();
        assert!(found.len() >= 50 && found.iter().all(|at| (arena..arena + 64).contains(at)), "{found:x?}");

        made.ratchet().unwrap();
        assert_eq!(pieces(), Vec::<usize>::new());
    });
    assert!(ended.status.success(), "{ended:?}");
}
