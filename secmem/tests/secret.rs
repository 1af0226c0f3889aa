//! Making, reaching and comparing secrets, as an application does it.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use secmem::{Backend, Error, Secret};

const BACKENDS: [Backend; 3] = [Backend::Auto, Backend::MemfdSecret, Backend::Mlock];

fn of(bytes: &[u8]) -> Secret {
    let mut secret = Secret::new(bytes.len()).unwrap();
    secret.with_mut(|slot| slot.copy_from_slice(bytes)).unwrap();
    secret
}

#[test]
fn a_new_secret_is_zero_and_holds_what_is_written() {
    for backend in BACKENDS {
        for len in [0, 1, 63, 64, 65, 4096, 65_536, 65_537, 3 << 20] {
            let mut secret = Secret::options().backend(backend).zeroed(len).unwrap();
            assert!(secret.with(|bytes| bytes.iter().all(|&byte| byte == 0)).unwrap());

            secret.with_mut(|bytes| bytes.fill(9)).unwrap();

            assert!(secret.with(|bytes| bytes.len() == len && bytes.iter().all(|&byte| byte == 9)).unwrap());
            assert_eq!((secret.len(), secret.is_empty()), (len, len == 0));
        }
    }
}

#[test]
fn an_impossible_length_is_an_error() {
    for backend in BACKENDS {
        for len in [usize::MAX, usize::MAX - 4096, isize::MAX as usize] {
            assert!(matches!(Secret::options().backend(backend).zeroed(len), Err(Error::Refused { .. })), "{len}");
        }
    }
}

#[test]
fn secrets_do_not_overlap() {
    let mut secrets: Vec<_> = (0..300).map(|at| Secret::new(1 + at % 130).unwrap()).collect();
    for (at, secret) in secrets.iter_mut().enumerate() {
        secret.with_mut(|bytes| bytes.fill(at as u8)).unwrap();
    }
    for at in (0..300).step_by(3) {
        secrets[at] = Secret::new(1 + at % 130).unwrap(); // into the holes
        secrets[at].with_mut(|bytes| bytes.fill(at as u8)).unwrap();
    }

    for (at, secret) in secrets.iter().enumerate() {
        assert!(secret.with(|bytes| bytes.iter().all(|&byte| byte == at as u8)).unwrap(), "{at}");
    }
}

#[test]
fn a_fill_that_fails_says_why() {
    let result = Secret::options().filled(32, |_| Err("the card was pulled out"));

    let error = result.unwrap_err();
    assert!(matches!(error, Error::Fill { len: 32, .. }), "{error:?}");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the card was pulled out");
}

#[test]
fn bytes_of_a_descriptor_are_read_into_place() {
    for backend in BACKENDS {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let feeder = std::thread::spawn(move || {
            for part in [&b"it comes"[..], b" in pieces"] {
                writer.write_all(part).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });

        let secret = Secret::options().backend(backend).read_exact(reader.as_fd(), 18).unwrap();

        assert!(secret.with(|bytes| bytes == b"it comes in pieces").unwrap());
        feeder.join().unwrap();
    }
}

#[test]
fn a_descriptor_that_ends_early_is_an_error_without_its_bytes() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"sesam").unwrap();
    drop(writer);

    let error = Secret::options().read_exact(reader.as_fd(), 32).unwrap_err();

    assert!(matches!(error, Error::Read { wanted: 32, got: 5, source: None }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("sesam"));
}

#[test]
fn a_descriptor_that_cannot_be_read_is_an_error_with_the_reason() {
    let (_reader, writer) = std::io::pipe().unwrap();

    let error = Secret::options().read_exact(writer.as_fd(), 32).unwrap_err();

    let Error::Read { wanted: 32, got: 0, source: Some(source) } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn equality_is_of_bytes() {
    let (a, same, other, longer) = (of(b"open"), of(b"open"), of(b"opem"), of(b"opens"));

    assert!(a.ct_eq(&a).unwrap());
    assert!(a.ct_eq(&same).unwrap());
    assert!(!a.ct_eq(&other).unwrap());
    assert!(!a.ct_eq(&longer).unwrap());
}

#[test]
fn comparing_with_an_ended_secret_is_an_error() {
    let (a, mut b) = (of(b"open"), of(b"open"));
    b.wipe().unwrap();

    assert!(matches!(a.ct_eq(&b), Err(Error::Wiped)));
    assert!(matches!(b.ct_eq(&a), Err(Error::Wiped)));
}

#[test]
fn generic_code_can_wipe_a_secret() {
    fn end<T: zeroize::Zeroize + zeroize::ZeroizeOnDrop>(mut value: T) -> T {
        value.zeroize();
        value
    }

    let ended = end(of(b"open"));

    assert!(matches!(ended.with(|_| ()), Err(Error::Wiped)));
}

#[test]
fn debug_shows_no_content() {
    let secret = of(b"sesam, open");

    let shown = format!("{secret:?}");

    assert_eq!(shown, "Secret { len: 11, backend: MemfdSecret, .. }");
}

#[test]
fn protection_says_what_was_reached() {
    for (asked, reached) in [
        (Backend::Auto, Backend::MemfdSecret),
        (Backend::MemfdSecret, Backend::MemfdSecret),
        (Backend::Mlock, Backend::Mlock),
    ] {
        let protection = Secret::options().backend(asked).zeroed(1).unwrap().protection();

        assert_eq!((protection.asked, protection.reached, protection.why), (asked, reached, None));
        assert!(protection.locked && protection.dump_excluded && protection.fork_excluded && protection.guards);
    }
}

#[test]
fn threads_read_write_end_and_drop_beside_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..2000_u64 {
                    let options = Secret::options().expires_in(Duration::from_micros(round % 200));
                    let Ok(mut secret) = options.zeroed(1 + (round as usize * 37) % 200) else { panic!() };
                    let _ = secret.with_mut(|bytes| bytes.fill(thread + 1));
                    match secret.with(|bytes| bytes.iter().all(|&byte| byte == thread + 1)) {
                        Ok(own) => assert!(own, "another's bytes, or zeros, in a live secret"),
                        Err(error) => assert!(matches!(error, Error::Expired), "{error:?}"),
                    }
                }
            });
        }
    });
}
