//! The types: what they refuse, how they grow, and memory that is closed between accesses.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use common::{
    Refused, exit_now, in_child, in_child_with, map_line, peek, peek_closed, poke, raise, refuse, set_handler, touch,
};
use secmem::purge::{self, Plan};
use secmem::{Backend, Bytes, Error, Missing, Sealed, Secret, Statistics, Text, Typed};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Session {
    key: [u8; 24],
    counter: u64,
}

/// What would let a secret out by accident is not there, for any of the types.
macro_rules! refuses_leaks {
    ($($type:ty),*) => { $(
        static_assertions::assert_not_impl_any!($type:
            Clone, Copy, std::fmt::Display, std::ops::Deref, std::hash::Hash, PartialEq, PartialOrd,
            AsRef<[u8]>, AsRef<str>, std::borrow::Borrow<[u8]>, std::borrow::Borrow<str>,
            Into<Vec<u8>>, Into<String>, Into<Box<[u8]>>, IntoIterator, std::ops::Index<usize>,
            std::fmt::LowerHex, std::fmt::UpperHex, std::io::Read, std::io::Write, serde::Serialize,
        );
        static_assertions::assert_impl_all!($type: Send, Sync, std::fmt::Debug, zeroize::Zeroize, zeroize::ZeroizeOnDrop);
    )* };
}
refuses_leaks!(Secret, Sealed, Bytes, Text, Typed<Session>);

const BACKENDS: [Backend; 2] = [Backend::MemfdSecret, Backend::Mlock];

// Sealed secrets share arenas: what looks whether one is closed runs in a process of its own.
fn sealed(backend: Backend, content: &[u8]) -> Sealed {
    let fill = |slot: &mut [u8]| {
        slot.copy_from_slice(content);
        Ok::<(), Error>(())
    };
    Secret::options().backend(backend).filled_sealed(content.len(), fill).unwrap()
}

fn address(secret: &Sealed) -> *const u8 {
    secret.with(<[u8]>::as_ptr).unwrap()
}

fn permissions(at: *const u8) -> String {
    map_line(at).split(' ').nth(1).unwrap()[..3].to_owned()
}

#[test]
fn no_debug_output_shows_content() {
    let mut bytes = Bytes::try_from(b"sesam".to_vec()).unwrap();
    bytes.push(b'!').unwrap();
    let session = Secret::options().typed_filled(|it: &mut Session| {
        it.key.fill(b's');
        Ok::<(), Error>(())
    });
    let shown = format!(
        "{:?} {:?} {bytes:?} {:?} {:?}",
        Secret::try_from(b"sesam".to_vec()).unwrap(),
        sealed(Backend::Mlock, b"sesam"),
        Text::try_from("sesam".to_owned()).unwrap(),
        session.unwrap(),
    );

    assert!(!shown.contains("sesam") && !shown.contains("115") && shown.contains("len: 6"), "{shown}");
}

#[test]
fn sealed_memory_is_open_while_it_is_accessed_and_for_no_more_than_that() {
    let ended = in_child(|| {
        for backend in BACKENDS {
            for len in [32, 100_000] {
                let mut secret = sealed(backend, &vec![7; len]);
                let at = address(&secret);
                assert_eq!(permissions(at), "---", "{backend} {len}");

                let reading = secret.with(|bytes| (permissions(bytes.as_ptr()), bytes[len - 1])).unwrap();
                assert_eq!((reading, permissions(at)), (("r--".to_owned(), 7), "---".to_owned()));
                let writing = secret.with_mut(|bytes| permissions(bytes.as_ptr())).unwrap();
                assert_eq!((writing.as_str(), permissions(at).as_str()), ("rw-", "---"));

                assert!(secret.verify().unwrap().is_confirmed());
                assert!(secret.protection().guards && secret.protection().locked);
            }
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_stray_read_between_accesses_and_a_stray_write_in_a_read_end_the_process() {
    for (number, what) in [(0, "read between"), (1, "write within"), (2, "read after a wipe")] {
        let ended = in_child_with(number, |number| {
            let mut secret = sealed(Backend::MemfdSecret, &[7; 32]);
            let at = address(&secret);
            match number {
                0 => touch(at),
                1 => secret.with(|bytes| poke(bytes.as_ptr().cast_mut())).unwrap(),
                _ => {
                    secret.wipe().unwrap();
                    touch(at);
                }
            }
        });

        assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{what}: {ended:?}");
    }
}

#[test]
fn of_two_readers_the_first_to_end_does_not_close_on_the_other() {
    let ended = in_child(|| {
        let secret = sealed(Backend::Mlock, &[7; 32]);
        let (entered, has_entered) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let secret = &secret;
            let reader = scope.spawn(move || {
                secret.with(|bytes| {
                    entered.send(()).unwrap();
                    may_leave.recv().unwrap();
                    bytes[31]
                })
            });
            has_entered.recv().unwrap();

            secret.with(|bytes| assert_eq!(bytes[0], 7)).unwrap();

            leave.send(()).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 7);
        });
        assert_eq!(permissions(address(&secret)), "---");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_panic_within_closes_the_memory() {
    let ended = in_child(|| {
        let mut secret = sealed(Backend::MemfdSecret, &[7; 32]);
        let at = address(&secret); // to ask for it opens and closes the memory, and would mend what the panic left

        assert!(catch_unwind(AssertUnwindSafe(|| secret.with(|_| panic!("reading")))).is_err());
        assert_eq!(permissions(at), "---");
        assert!(catch_unwind(AssertUnwindSafe(|| secret.with_mut(|_| panic!("writing")))).is_err());
        assert_eq!(permissions(at), "---");
        assert!(catch_unwind(AssertUnwindSafe(|| Sealed::batch(&[&secret], || panic!("a batch")))).is_err());
        assert_eq!(permissions(at), "---");
        let filled = Secret::options().filled_sealed(32, |_| Err::<(), _>("no"));
        assert!(matches!(filled, Err(Error::Fill { .. })));
        assert_eq!(permissions(at), "---");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_refused_access_closes_the_memory_too() {
    let ended = in_child(|| {
        let mut secret = sealed(Backend::Mlock, &[7; 32]);
        let at = address(&secret);
        secret.wipe().unwrap();

        assert!(matches!(secret.with(|_| ()), Err(Error::Wiped)));
        assert_eq!(permissions(at), "---");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_batch_opens_and_closes_once_for_all_its_reads() {
    let ended = in_child(|| {
        let secrets = [
            sealed(Backend::Mlock, &[1; 32]),
            sealed(Backend::MemfdSecret, &[2; 32]),
            sealed(Backend::Mlock, &[3; 100_000]),
        ];
        let places = secrets.each_ref().map(address);

        let sum = Sealed::batch(&secrets.each_ref(), || {
            assert_eq!(places.map(permissions), ["r--"; 3], "open between the reads, too");
            secrets.iter().map(|secret| secret.with(|bytes| u32::from(bytes[31])).unwrap()).sum::<u32>()
        });

        assert_eq!(sum.unwrap(), 6);
        assert_eq!(places.map(permissions), ["---"; 3]);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn memory_that_cannot_be_opened_or_closed_is_an_error_and_is_counted() {
    let call = Refused { number: libc::SYS_mprotect, argument: None };
    for errno in [libc::ENOSYS, libc::EPERM] {
        let ended = in_child_with(errno, |errno| {
            let secret = sealed(Backend::Mlock, &[7; 32]);

            let closing = secret.with(|_| refuse(call, errno));

            let Err(Error::Access { call: "mprotect", source }) = closing else { panic!("{closing:?}") };
            assert_eq!(source.raw_os_error(), Some(errno));
            assert_eq!(Statistics::now().left_open, 1);
            assert!(matches!(secret.verify().unwrap().missing[..], [Missing::Access { .. }]));
            let mut other = Secret::options().backend(Backend::MemfdSecret);
            other = other.wipe(secmem::wipe::Schedule::Single);
            let made = other.sealed(32);
            assert!(matches!(made, Err(Error::Refused { call: "mprotect", .. })), "{made:?}");
            drop(secret);
            assert!(Secret::new(32).is_ok(), "memory that need not be closed is still there");
        });

        assert!(ended.status.success(), "{ended:?}");
    }
}

#[test]
fn what_could_not_be_wiped_is_told_each_time_and_no_program_takes_the_place_of_this_one() {
    let ended = in_child(|| {
        let mut secret = sealed(Backend::Mlock, &[7; 32]);
        refuse(Refused { number: libc::SYS_mprotect, argument: None }, libc::ENOMEM);

        for _ in 0..2 {
            let wiped = secret.wipe();
            assert!(matches!(wiped, Err(Error::Access { call: "mprotect", .. })), "{wiped:?}");
        }
        assert!(matches!(secret.with(|_| ()), Err(Error::Wiped | Error::Access { .. })));
        assert_eq!(Statistics::now().not_wiped, 2);
        drop(secret);
        assert_eq!(Statistics::now().not_wiped, 3);
        let error = purge::exec(&mut std::process::Command::new("true"));
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{error}");
        assert_eq!(Statistics::now().not_wiped, 4);
        println!("still here");
    });

    assert!(ended.status.success(), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stdout).contains("still here"), "{ended:?}");
}

#[test]
fn a_forked_child_is_refused_sealed_memory_and_ends_normally() {
    let ended = in_child(|| {
        for backend in BACKENDS {
            let mut secret = sealed(backend, &[7; 32]);
            let status = common::fork(|| {
                assert!(matches!(secret.with(|_| ()), Err(Error::Forked)));
                assert!(matches!(secret.with_mut(|_| ()), Err(Error::Forked)));
                assert!(matches!(Sealed::batch(&[&secret], || ()), Err(Error::Forked)));
                assert!(matches!(secret.wipe(), Err(Error::Forked)));
                drop(secret);
                21
            });
            assert_eq!(libc::WEXITSTATUS(status), 21, "{status:#x}");
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

/// Where the handler looks, and whether it saw zeros.
static LOOK_AT: std::sync::atomic::AtomicPtr<u8> = std::sync::atomic::AtomicPtr::new(std::ptr::null_mut());

extern "C" fn look_in_handler(_: i32) {
    let at = LOOK_AT.load(std::sync::atomic::Ordering::SeqCst);
    let mut seen = [1; 32];
    peek_closed(at, &mut seen);
    exit_now(if seen == [0; 32] { 40 } else { 41 });
}

#[test]
fn a_signal_wipes_sealed_memory_whoever_is_within() {
    for number in 0..2 {
        let ended = in_child_with(number, |number| {
            let secret = sealed(BACKENDS[number as usize], &[7; 32]);
            LOOK_AT.store(address(&secret).cast_mut(), std::sync::atomic::Ordering::SeqCst);
            set_handler(libc::SIGTERM, look_in_handler as *const () as usize, 0);
            purge::install(&Plan::default()).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let secret = &secret;
                    scope.spawn(move || while secret.with(|_| ()).is_ok() {});
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
                raise(libc::SIGTERM);
            });
        });

        assert_eq!(ended.status.code(), Some(40), "{ended:?}");
    }
}

#[test]
fn a_purge_and_a_deadline_wipe_sealed_memory() {
    let ended = in_child(|| {
        let clock = secmem::TestClock::new();
        let options = Secret::options().backend(Backend::Mlock);
        let ending = options.clock(clock).expires_in(std::time::Duration::from_secs(1)).sealed(32).unwrap();
        let mut lasting = options.sealed(32).unwrap();
        lasting.with_mut(|bytes| bytes.fill(7)).unwrap();

        clock.advance(std::time::Duration::from_secs(1));
        assert!(matches!(ending.with(|_| ()), Err(Error::Expired)));
        assert_eq!(lasting.with(|bytes| bytes[0]).unwrap(), 7);
        purge::purge_all();
        assert!(matches!(lasting.with(|_| ()), Err(Error::Purged)));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn growth_moves_the_bytes_and_wipes_where_they_were() {
    let ended = in_child(|| {
        for backend in BACKENDS {
            let mut bytes = Secret::options().backend(backend).bytes(40).unwrap();
            let mut left = Vec::new();
            for round in 0..2000_u32 {
                let before = (bytes.with(<[u8]>::as_ptr).unwrap(), bytes.capacity());
                bytes.push(round as u8 | 1).unwrap();
                if bytes.with(<[u8]>::as_ptr).unwrap() != before.0 {
                    left.push(before);
                }
            }

            assert!(bytes.with(|it| (0..2000_u32).zip(it).all(|(round, &byte)| byte == round as u8 | 1)).unwrap());
            assert!(left.len() >= 5, "{left:?}");
            // Slots of a few granules are kept by this thread, so nobody else has written there since.
            for (at, len) in left {
                assert!(peek(at, len).iter().all(|&byte| byte == 0), "{backend}: {len} bytes");
            }
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn what_is_cut_off_is_wiped() {
    let mut bytes = Bytes::try_from(b"0123456789".to_vec()).unwrap();
    let at = bytes.with(<[u8]>::as_ptr).unwrap();

    bytes.truncate(4).unwrap();
    assert_eq!(peek(at, 10), b"0123\0\0\0\0\0\0");
    bytes.truncate(7).unwrap();
    assert_eq!(bytes.len(), 4, "there is nothing more to cut off");
    bytes.clear().unwrap();
    assert_eq!(peek(at, 10), [0; 10]);
    bytes.extend(b"more").unwrap();
    assert!(bytes.into_secret().unwrap().with(|it| it == b"more").unwrap());
}

#[test]
fn text_stays_text() {
    let mut text = Text::new().unwrap();
    for character in "päßwörd→🔑".chars() {
        text.push(character).unwrap();
    }
    assert!(text.pop().unwrap() && text.pop().unwrap());
    text.push_str("!").unwrap();

    assert_eq!(text.expose_to_string().unwrap(), "päßwörd!");
    assert!(text.ct_eq(&Text::try_from("päßwörd!".to_owned()).unwrap()).unwrap());
    text.clear().unwrap();
    assert!(text.is_empty() && !text.pop().unwrap());
    let broken = Text::from_utf8(Bytes::try_from(vec![b'a', b'b', 0xFF]).unwrap());
    assert!(matches!(broken, Err(Error::Utf8 { at: 2 })), "{broken:?}");
}

#[test]
fn values_of_a_type_are_written_in_place() {
    let mut session = Typed::<Session>::zeroed().unwrap();
    session.with_mut(|it| (it.key, it.counter) = ([9; 24], 1)).unwrap();

    let at = session.with(std::ptr::from_ref).unwrap();
    assert_eq!(peek(at.cast(), 24), [9; 24]);
    assert!(at.is_aligned());
    session.wipe().unwrap();
    assert!(matches!(session.with(|_| ()), Err(Error::Wiped)));
    assert_eq!(peek(at.cast(), 32), [0; 32]);
    let failed = Secret::options().typed_filled(|_: &mut Session| Err("no card"));
    assert!(matches!(failed, Err(Error::Fill { len: 32, .. })), "{failed:?}");
}
