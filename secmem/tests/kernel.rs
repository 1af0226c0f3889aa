//! What the kernel says of the memory: flags, guards, limits, forks.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::{Start, fork, in_child, in_child_with, limit_locked_memory, map_line, peek, start, touch, vm_flags};
use secmem::{Backend, Error, Options, Secret, TestClock, probe};

const BACKENDS: [Backend; 2] = [Backend::MemfdSecret, Backend::Mlock];

fn secret(backend: Backend, content: &[u8]) -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.copy_from_slice(content);
        Ok::<(), Error>(())
    };
    Secret::options().backend(backend).filled(content.len(), fill).unwrap()
}

fn address(secret: &Secret) -> *const u8 {
    secret.with(<[u8]>::as_ptr).unwrap()
}

#[test]
fn the_kernel_confirms_every_arena() {
    for backend in BACKENDS {
        for len in [1, 5000, 64 << 10, 100_000] {
            let secret = secret(backend, &vec![1; len]);

            let at = address(&secret);
            for place in [at, at.wrapping_add(len - 1)] {
                let flags = vm_flags(place);
                for flag in ["lo", "dd", "dc"] {
                    assert!(flags.iter().any(|it| it == flag), "{backend:?}, {len} bytes: no {flag} in {flags:?}");
                }
                assert_eq!(map_line(place).contains("secretmem"), backend == Backend::MemfdSecret);
            }
            assert_eq!(secret.protection().reached, backend);
        }
    }
}

#[test]
fn no_descriptor_to_secret_memory_stays_open() {
    let _secret = secret(Backend::MemfdSecret, &[1; 32]);

    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("secretmem"), "{target:?}");
    }
}

#[test]
fn a_read_past_the_arena_ends_the_process() {
    let ended = in_child(|| {
        let secret = secret(Backend::Mlock, &[1; 32]);
        touch(probe::arena_end(&secret).wrapping_sub(1));
        println!("the last data byte is readable");
        touch(probe::arena_end(&secret));
    });

    assert!(String::from_utf8_lossy(&ended.stdout).contains("is readable"), "{ended:?}");
    assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{ended:?}");
}

#[test]
fn a_read_before_the_arena_ends_the_process() {
    let ended = in_child(|| {
        let secret = secret(Backend::MemfdSecret, &vec![1; 100_000]); // a mapping of its own: only canaries before it
        let first = address(&secret).wrapping_sub(address(&secret).addr() % 4096);
        touch(first);
        println!("the first data byte is readable");
        touch(first.wrapping_sub(1));
    });

    assert!(String::from_utf8_lossy(&ended.stdout).contains("is readable"), "{ended:?}");
    assert_eq!(ended.status.signal(), Some(libc::SIGSEGV), "{ended:?}");
}

#[test]
fn without_a_lock_budget_there_is_an_error_that_names_the_call() {
    let ended = in_child(|| {
        limit_locked_memory(0);
        for (backend, errno) in [(Backend::Mlock, libc::EPERM), (Backend::MemfdSecret, libc::EAGAIN)] {
            let error = Secret::options().backend(backend).zeroed(32).unwrap_err();
            let Error::Refused { asked, tried, before: None, ref source, .. } = error else { panic!("{error:?}") };
            assert_eq!((asked, tried, source.raw_os_error()), (backend, backend, Some(errno)));
        }
        let error = Secret::new(32).unwrap_err();
        let Error::Refused { asked: Backend::Auto, tried: Backend::Mlock, before: Some(before), .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(before.errno, libc::EAGAIN);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_limit_of_files_below_an_arena_makes_it_shorter_or_of_mlock_and_ends_no_process() {
    for (number, limit) in [(0, 0), (1, 16 << 10)] {
        let ended = in_child_with(number, |number| {
            common::limit_file_size([0, 16 << 10][number as usize]);
            let short = Secret::options().backend(Backend::MemfdSecret).zeroed(32);
            let long = Secret::options().backend(Backend::MemfdSecret).zeroed(100_000);
            for refused in [(number == 0).then_some(&short), Some(&long)].into_iter().flatten() {
                let Err(Error::Refused { call: "getrlimit (RLIMIT_FSIZE)", source, .. }) = refused else {
                    panic!("{refused:?}")
                };
                assert_eq!(source.raw_os_error(), Some(libc::EFBIG));
            }
            let secret = Secret::new(if number == 0 { 32 } else { 100_000 }).unwrap();
            assert_eq!(secret.protection().reached, Backend::Mlock);
            assert_eq!(secret.protection().why.map(|why| why.errno), Some(libc::EFBIG));
            assert_eq!(short.is_ok(), number == 1);
        });

        assert!(ended.status.success(), "{limit}: {ended:?}");
    }
}

#[test]
fn a_used_up_lock_budget_is_an_error_and_frees_with_the_secrets() {
    let ended = in_child(|| {
        limit_locked_memory(20 << 10); // a 16 KiB arena and one of 4 KiB
        for backend in BACKENDS {
            let options = Secret::options().backend(backend);
            let mut secrets = Vec::new();
            let error = loop {
                match options.zeroed(32) {
                    Ok(secret) => secrets.push(secret),
                    Err(error) => break error,
                }
                assert!(secrets.len() < 1000, "more than the budget locks");
            };
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
            // Also for the second backend: arenas in which no secret lives make room for others.
            assert_eq!(secrets.len(), (20 << 10) / 64, "every locked granule holds a secret");
            secrets.pop();
            assert!(options.zeroed(32).is_ok());
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn nine_hundred_keys_fit_into_64_kib_of_lock_budget() {
    let ended = in_child(|| {
        limit_locked_memory(64 << 10);
        let secrets: Vec<_> = (0..900).map(|_| Secret::new(32).unwrap()).collect();
        assert_eq!(secrets.len(), 900);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_long_secret_gives_its_lock_budget_back() {
    let ended = in_child(|| {
        limit_locked_memory(200 << 10);
        for backend in BACKENDS {
            for _ in 0..20 {
                let secret = secret(backend, &vec![1; 150 << 10]);
                assert!(Secret::options().backend(backend).zeroed(150 << 10).is_err());
                drop(secret);
            }
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_forked_child_gets_an_error_and_ends_normally() {
    let ended = in_child(|| {
        secmem::purge::install(&secmem::purge::Plan::default()).unwrap();
        for backend in BACKENDS {
            let mut secret = secret(backend, &[7; 32]);
            let deadline = std::time::Duration::from_secs(3600);
            let with_deadline = Secret::options().backend(backend).expires_in(deadline).zeroed(8).unwrap();

            let status = fork(|| {
                assert!(matches!(secret.with(|_| ()), Err(Error::Forked)));
                assert!(matches!(secret.with_mut(|_| ()), Err(Error::Forked)));
                assert!(matches!(secret.wipe(), Err(Error::Forked)));
                assert!(matches!(Secret::new(1), Err(Error::Forked)));
                secmem::purge::purge_all();
                drop(secret);
                drop(with_deadline);
                std::process::exit(21); // through atexit
            });
            assert!(libc::WIFEXITED(status), "{status:#x}");
            assert_eq!(libc::WEXITSTATUS(status), 21);
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_parent_keeps_its_secret_while_the_child_cannot_load_it() {
    let ended = in_child(|| {
        for backend in BACKENDS {
            let secret = secret(backend, &[7; 32]);
            let at = address(&secret);
            assert_eq!(peek(at, 1), [7]);

            let status = fork(|| {
                touch(at);
                0
            });

            assert!(libc::WIFSIGNALED(status), "{status:#x}");
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
            assert_eq!(secret.with(|bytes| bytes[31]).unwrap(), 7);
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_program_started_from_shared_memory_inherits_nothing_and_the_secrets_stay() {
    const SHOW: &std::ffi::CStr = c"ls -l /proc/$$/fd && cat /proc/$$/maps && exit 21";
    for (number, how) in (0..).zip([Start::Vfork, Start::Spawn]) {
        let ended = in_child_with(number, |_| {
            let secrets = BACKENDS.map(|backend| secret(backend, &[7; 32]));
            assert!(map_line(address(&secrets[0])).contains("secretmem"));
            let sealed = Secret::options().sealed(32).unwrap();
            let finds_nothing = || start(how, c"/nowhere/to/be/found", &[c"found"]);
            let shows = || start(how, c"/bin/sh", &[c"sh", c"-c", SHOW]);
            // Also in the middle of an access, and where the child finds no program and ends beside us.
            let statuses = [shows(), secrets[0].with(|_| shows()).unwrap(), sealed.with(|_| finds_nothing()).unwrap()];

            assert_eq!(statuses, [21 << 8, 21 << 8, 127 << 8]);
            for secret in &secrets {
                assert_eq!(secret.with(|bytes| bytes.to_vec()).unwrap(), [7; 32]);
            }
            assert!(sealed.with(|bytes| bytes.iter().all(|byte| *byte == 0)).unwrap());
            assert!(Secret::new(32).is_ok());
        });

        let shown = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && shown.matches("[stack]").count() == 2, "{how:?}: {ended:?}");
        assert!(!shown.contains("secretmem"), "{how:?}: {shown}");
    }
}

#[test]
fn a_byte_beside_a_secret_that_changes_ends_the_process_when_the_access_ends() {
    // Past the secret, right before it, and at the far end of what stands before it.
    let places = [1, 8, 31, 32, 5000, 100_000].into_iter().flat_map(|len| [(len, len as isize), (len, -1), (len, -16)]);
    let places: Vec<(usize, isize)> = places.collect();
    for (number, (len, at)) in (0..).zip(&places) {
        let ended = in_child_with(number, |number| {
            let (len, at) = places[number as usize];
            let mut secret = secret(Backend::MemfdSecret, &vec![1; len]);
            println!("begins");
            let _ = secret.with_mut(|bytes| common::poke(bytes.as_mut_ptr().wrapping_offset(at)));
            println!("goes on");
        });

        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(said.contains("begins") && !said.contains("goes on"), "{len} bytes, at {at}: {ended:?}");
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{len} bytes, at {at}: {ended:?}");
        assert!(!ended.status.core_dumped(), "{ended:?}");
    }
}

#[test]
fn a_byte_beside_a_secret_that_changes_between_accesses_ends_the_process_when_the_secret_ends() {
    let ended = in_child(|| {
        let secret = secret(Backend::Mlock, &[1; 32]);
        common::poke(address(&secret).cast_mut().wrapping_add(32));
        println!("lives");
        drop(secret);
        println!("goes on");
    });

    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("lives") && !said.contains("goes on"), "{ended:?}");
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{ended:?}");
}

#[test]
fn a_byte_beside_a_secret_that_changes_ends_the_process_however_the_secret_ends() {
    type Way = fn(Options, TestClock);
    let ways: [(&str, Way); 4] = [
        ("wiped", |options, _| damaged(options).wipe().unwrap()),
        ("expired", |options, clock| {
            let _secret = damaged(options.clock(clock).expires_in(Duration::from_secs(1)));
            clock.advance(Duration::from_secs(1));
        }),
        ("purged", |options, _| {
            let _secret = damaged(options);
            secmem::purge::purge_all();
        }),
        ("dropped by a panic that purges", |options, _| {
            secmem::purge::install(&secmem::purge::Plan::default()).unwrap();
            let _secret = damaged(options);
            let _ = std::panic::catch_unwind(|| panic!("a panic"));
        }),
    ];
    for (number, (way, _)) in (0..).zip(ways) {
        for backend in 0..2 {
            let ended = in_child_with(2 * number + backend, |parameter| {
                let options = Secret::options().backend(BACKENDS[parameter as usize % 2]);
                println!("begins");
                ways[parameter as usize / 2].1(options, TestClock::new());
                println!("goes on");
            });

            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(said.contains("begins") && !said.contains("goes on"), "{way}: {ended:?}");
            assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{way}: {ended:?}");
            assert!(!ended.status.core_dumped(), "{way}: {ended:?}");
        }
    }
}

/// A secret with a byte changed behind it.
fn damaged(options: Options) -> Secret {
    let mut secret = options.zeroed(32).unwrap();
    let mut at = std::ptr::null_mut();
    secret.with_mut(|bytes| at = bytes.as_mut_ptr()).unwrap();
    common::poke(at.wrapping_add(32));
    secret
}

#[test]
fn ten_thousand_secrets_take_few_mappings() {
    for (number, backend) in (0..).zip(BACKENDS) {
        let ended = in_child_with(number, |number| {
            let backend = BACKENDS[number as usize];
            let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
            let options = Secret::options().backend(backend);
            let (before, mut secrets) = (mappings(), Vec::with_capacity(10_000));
            secrets.extend((0..10_000).map(|_| options.zeroed(32).unwrap()));
            let more = mappings() - before;
            assert!(more <= 10, "{more} mappings");
        });

        assert!(ended.status.success(), "{backend:?}: {ended:?}");
    }
}
