//! What is asked, what is reached, and what the report says, where the kernel refuses: in children.

mod common;

use std::sync::Barrier;

#[cfg(target_arch = "x86_64")]
use common::refuse_and_count;
use common::{
    Refused, Spoil, fork, in_child, in_child_with, limit_locked_memory, refuse, spoil, take_all_mappings, wiped_on_fork,
};
use secmem::{Backend, Control, Demand, Error, Missing, Options, Policy, Report, Secret, Statistics, probe};

const BACKENDS: [Backend; 2] = [Backend::MemfdSecret, Backend::Mlock];

fn advice(advice: i32) -> Option<(usize, u32)> {
    Some((2, advice as u32))
}

/// Each call that memory is made of, the control that it brings about, and how the errors name it.
fn calls() -> [(Refused, Option<Control>, &'static str); 9] {
    let call = |number, argument| Refused { number, argument };
    let shared = Some((3, (libc::MAP_SHARED | libc::MAP_FIXED) as u32));
    [
        (call(libc::SYS_memfd_secret, None), Some(Control::MemfdSecret), "memfd_secret"),
        (call(libc::SYS_ftruncate, None), Some(Control::MemfdSecret), "ftruncate"),
        (call(libc::SYS_mmap, shared), Some(Control::MemfdSecret), "mmap (memfd_secret)"),
        (call(libc::SYS_mlock, None), Some(Control::Lock), "mlock"),
        (call(libc::SYS_madvise, advice(libc::MADV_DONTDUMP)), Some(Control::DontDump), "madvise (MADV_DONTDUMP)"),
        (call(libc::SYS_madvise, advice(libc::MADV_DONTFORK)), Some(Control::DontFork), "madvise (MADV_DONTFORK)"),
        (
            call(libc::SYS_madvise, advice(libc::MADV_WIPEONFORK)),
            Some(Control::ForkWitness),
            "madvise (MADV_WIPEONFORK)",
        ),
        (call(libc::SYS_mprotect, None), None, "mprotect"),
        (call(libc::SYS_getrandom, None), None, "getrandom"),
    ]
}

/// One row a child: a call, an errno.
fn rows() -> impl Iterator<Item = (i32, usize, i32)> {
    (0..)
        .zip((0..calls().len()).flat_map(|call| [(call, libc::ENOSYS), (call, libc::EPERM)]))
        .map(|(n, (c, e))| (n, c, e))
}

fn row(number: i32) -> ((Refused, Option<Control>, &'static str), i32) {
    let (_, call, errno) = rows().nth(number as usize).unwrap();
    (calls()[call], errno)
}

#[test]
fn a_required_control_that_is_refused_is_an_error_with_call_and_errno() {
    for (number, call, _) in rows() {
        let ended = in_child_with(number, |number| {
            let ((call, control, name), errno) = row(number);
            refuse(call, errno);
            for backend in BACKENDS {
                let concerns = match control {
                    Some(Control::MemfdSecret) => backend == Backend::MemfdSecret,
                    Some(Control::Lock) => backend == Backend::Mlock, // pages of memfd_secret are locked as they come
                    Some(_) => true,
                    None => name == "getrandom",
                };
                match Secret::options().backend(backend).zeroed(32) {
                    Ok(secret) => {
                        assert!(!concerns, "{name} was refused, and {backend} did without it");
                        assert!(!secret.protection().is_degraded());
                    }
                    Err(Error::Refused { call, source, .. }) => {
                        assert!(concerns, "{backend} does not need {name}, but {call} is missing");
                        assert_eq!((call, source.raw_os_error()), (name, Some(errno)));
                    }
                    Err(Error::Random { source }) => {
                        assert_eq!((name, source.raw_os_error()), ("getrandom", Some(errno)))
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });

        assert!(ended.status.success(), "{call}: {ended:?}");
    }
}

#[test]
fn a_preferred_control_that_is_refused_is_in_the_report_with_call_and_errno() {
    for (number, call, _) in rows() {
        let ended = in_child_with(number, |number| {
            let ((call, control, name), errno) = row(number);
            refuse(call, errno);
            for memfd in [Demand::Preferred, Demand::Off] {
                let policy = Policy::best_effort().with(Control::MemfdSecret, memfd);
                let secret = match Secret::options().policy(policy).zeroed(32) {
                    Ok(secret) => secret,
                    Err(Error::Random { .. }) if name == "getrandom" => continue,
                    Err(error) => panic!("{name}: {error:?}"),
                };
                let protection = secret.protection();
                let concerns = control.filter(|&control| match control {
                    Control::MemfdSecret => memfd == Demand::Preferred,
                    Control::Lock => memfd == Demand::Off,
                    _ => true,
                });
                assert_eq!(protection.is_degraded(), concerns.is_some(), "{name}: {protection:?}");
                for reached in protection.controls() {
                    let this = concerns == Some(reached.control);
                    assert_eq!(reached.is_degraded(), this, "{name}: {reached}");
                    assert_eq!(
                        reached.why.map(|why| (why.call, why.errno)),
                        this.then_some((name, errno)),
                        "{reached}"
                    );
                }
                // What is reported as reached, the kernel confirms; what is not there is not claimed.
                assert!(secret.verify().unwrap().is_confirmed(), "{name}: {:?}", secret.verify());
            }
        });

        assert!(ended.status.success(), "{call}: {ended:?}");
    }
}

#[test]
fn what_is_off_is_not_tried() {
    let ended = in_child(|| {
        for control in [Control::Lock, Control::DontDump, Control::DontFork, Control::Guards] {
            let policy = Policy::from(Backend::Mlock).with(control, Demand::Off);
            let secret = Secret::options().policy(policy).zeroed(32).unwrap();

            let line = secret.protection().control(control);
            assert_eq!((line.asked, line.reached, line.why), (Demand::Off, false, None), "{line}");
            assert!(!secret.protection().is_degraded());
            let others =
                secret.protection().controls().filter(|it| ![control, Control::MemfdSecret].contains(&it.control));
            assert!(others.into_iter().all(|it| it.reached));
            assert!(secret.verify().unwrap().is_confirmed());
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn without_the_page_a_forked_child_still_knows_that_it_is_one() {
    let ended = in_child(|| {
        let policy = Policy::default().with(Control::ForkWitness, Demand::Off);
        let secret = Secret::options().policy(policy).zeroed(32).unwrap();
        assert!(!secret.protection().control(Control::ForkWitness).reached);

        let status = fork(|| {
            assert!(matches!(secret.with(|_| ()), Err(Error::Forked)));
            21
        });

        assert_eq!(libc::WEXITSTATUS(status), 21, "{status:#x}");
        assert!(secret.with(|_| ()).is_ok());
        assert!(
            matches!(Secret::new(32), Err(Error::Refused { call: "madvise (MADV_WIPEONFORK)", .. })),
            "required, not there"
        );
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn without_a_lock_budget_a_preferred_lock_is_reported_as_missing() {
    for (number, limit) in [(0, 0), (1, 4096)] {
        let ended = in_child_with(number, |number| {
            limit_locked_memory([0, 4096][number as usize]);
            let policy = Policy::default().with(Control::Lock, Demand::Preferred);
            let mut secrets: Vec<_> = (0..200).map(|_| Secret::options().policy(policy).zeroed(32).unwrap()).collect();

            let locked = secrets.iter().filter(|it| it.protection().locked).count();
            assert_eq!(locked, [0, 64][number as usize], "a page holds 64, and there is no more budget");
            for secret in &mut secrets {
                let line = secret.protection().control(Control::Lock);
                let errno = line.why.map(|why| why.errno);
                assert_eq!(errno.is_some(), !line.reached, "{line}");
                assert!(matches!(errno, None | Some(libc::EPERM | libc::ENOMEM)), "{line}");
                secret.with_mut(|bytes| bytes.fill(7)).unwrap();
            }
            assert!(secmem::verify().unwrap().is_confirmed());
        });

        assert!(ended.status.success(), "limit {limit}: {ended:?}");
    }
}

/// Bytes of secrets that need one granule, two, and so on, with what stands around them.
fn sizes() -> impl Iterator<Item = usize> {
    (1..=8).map(|granules| 64 * granules - 32)
}

/// Makes this thread keep as many slots at hand as it will.
fn hoard(options: Options) {
    for len in sizes() {
        let some: Vec<_> = (0..16).map_while(|_| options.zeroed(len).ok()).collect();
        drop(some);
    }
}

/// So many secrets of 32 bytes, or as many as there are.
fn secrets(options: Options, most: usize) -> Vec<Secret> {
    (0..most).map_while(|_| options.zeroed(32).ok()).collect()
}

#[test]
fn what_threads_keep_at_hand_is_taken_back_where_there_is_no_other_room() {
    // The backends, each without and with other threads that keep slots and rest.
    for number in 0..6 {
        let ended = in_child_with(number, |number| {
            limit_locked_memory(64 << 10);
            let backend = [Backend::Auto, Backend::MemfdSecret, Backend::Mlock][number as usize % 3];
            let options = Secret::options().backend(backend);
            if number % 3 != 2 && Secret::options().backend(Backend::MemfdSecret).zeroed(1).is_err() {
                return eprintln!("skipped: no memfd_secret");
            }
            let others = 2 * (number as usize / 3);
            let (ready, over) = (Barrier::new(others + 1), Barrier::new(others + 1));
            let all = std::thread::scope(|scope| {
                for _ in 0..others {
                    scope.spawn(|| {
                        hoard(options);
                        ready.wait();
                        over.wait();
                    });
                }
                ready.wait();
                hoard(options);

                let all = secrets(options, 2000);

                over.wait();
                all
            });
            assert_eq!(all.len(), 1024, "a budget of 64 KiB is so many secrets of a cache line");
        });

        assert!(ended.status.success(), "{number}: {ended:?}");
    }
}

#[test]
fn memory_in_which_no_secret_lives_makes_room_for_secrets_of_another_kind() {
    let ended = in_child(|| {
        limit_locked_memory(64 << 10);
        let mlock = Secret::options().backend(Backend::Mlock);
        for _ in 0..3 {
            // A whole budget each, one after the other.
            assert_eq!(secrets(mlock, 2000).len(), 1024);
            let sealed: Vec<_> = (0..2000).map_while(|_| mlock.sealed(32).ok()).collect();
            assert_eq!(sealed.len(), 1024);
            drop(sealed);
            assert_eq!(Statistics::now().arenas, 1);
            assert!(mlock.zeroed(60_000).is_ok());
            let other =
                mlock.policy(Policy::from(Backend::Mlock).with(Control::DontDump, Demand::Preferred)).zeroed(65_000);
            assert!(other.is_ok(), "{other:?}");
        }
        let lives = mlock.zeroed(32).unwrap();
        assert!(mlock.sealed(32).is_err(), "a secret lives there");
        assert!(lives.with(|_| ()).is_ok());
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn without_a_barrier_a_thread_takes_its_own_slots_back_and_leaves_those_of_others() {
    let ended = in_child(|| {
        limit_locked_memory(64 << 10);
        refuse(Refused { number: libc::SYS_membarrier, argument: None }, libc::ENOSYS);
        let options = Secret::options().backend(Backend::Mlock);
        hoard(options);
        assert_eq!(secrets(options, 2000).len(), 1024);

        let (ready, over) = (Barrier::new(2), Barrier::new(2));
        let left = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                hoard(options);
                ready.wait();
                over.wait();
            });
            ready.wait();
            let left = secrets(options, 2000).len();
            over.wait();
            other.join().unwrap(); // the end of a scope comes before that of its threads
            left
        });

        assert!((400..1024).contains(&left), "{left}");
        assert_eq!(secrets(options, 2000).len(), 1024, "the other has ended, and gave its slots back");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn no_two_threads_get_the_same_slot_while_slots_are_taken_back() {
    let ended = in_child(|| {
        limit_locked_memory(4096); // 64 slots, for threads that would keep 16 of each size
        let options = Secret::options().backend(Backend::Mlock);
        let work = |number: u8| {
            let mut made = 0;
            for round in 0..3000_usize {
                let some = secrets(options, 1 + round % 40);
                made += some.len();
                for mut secret in some {
                    secret.with_mut(|bytes| bytes.fill(number)).unwrap();
                    std::hint::spin_loop();
                    assert!(secret.with(|bytes| bytes.iter().all(|&byte| byte == number)).unwrap());
                }
            }
            made
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4).map(|number| scope.spawn(move || work(number))).collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap() > 0));
        });
        assert_eq!(secrets(options, 2000).len(), 64, "none was lost");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_kernel_without_memfd_secret_is_asked_once_a_thread() {
    for (number, _) in [(0, libc::ENOSYS), (1, libc::EPERM)] {
        let ended = in_child_with(number, |number| {
            let errno = [libc::ENOSYS, libc::EPERM][number as usize];
            let asked = refuse_and_count(Refused { number: libc::SYS_memfd_secret, argument: None }, errno);
            let make = move || {
                for _ in 0..3 {
                    for secret in secrets(Secret::options(), 500) {
                        let protection = secret.protection();
                        let why = protection.why.map(|why| (why.call, why.errno));
                        assert_eq!((protection.reached, why), (Backend::Mlock, Some(("memfd_secret", errno))));
                    }
                }
                let _ = Secret::new(100_000); // there may be no lock budget for it
            };
            make();
            assert_eq!(asked(), 1);
            std::thread::spawn(make).join().unwrap();
            assert_eq!(asked(), 2, "another thread may be allowed it");
            for _ in 0..2 {
                assert!(Secret::options().backend(Backend::MemfdSecret).zeroed(1).is_err());
            }
            assert_eq!(asked(), 4, "whoever wants nothing else is told by the kernel");
        });

        assert!(ended.status.success(), "{number}: {ended:?}");
    }
}

#[test]
fn memory_of_memfd_secret_that_is_there_is_used_though_there_is_no_more() {
    let ended = in_child(|| {
        let before = secrets(Secret::options(), 40);
        if before[0].protection().reached != Backend::MemfdSecret {
            return eprintln!("skipped: no memfd_secret");
        }
        refuse(Refused { number: libc::SYS_memfd_secret, argument: None }, libc::EPERM);
        drop(before);
        let room = Statistics::now().bytes / 64;

        let after = secrets(Secret::options(), room + 50);

        let memfd = after.iter().filter(|secret| secret.protection().reached == Backend::MemfdSecret).count();
        assert_eq!(memfd, room);
        drop(after);
        assert_eq!(Secret::new(32).unwrap().protection().reached, Backend::MemfdSecret);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn at_the_limit_of_mappings_there_is_an_error_and_no_memory_without_guards() {
    let ended = in_child(|| {
        let small = Secret::new(32).unwrap(); // the arena that the last lines come back to
        let long = Secret::options().backend(Backend::Mlock);
        assert!(long.zeroed(100_000).is_ok());
        let mut give_back = take_all_mappings();
        for backend in BACKENDS {
            let error = Secret::options().backend(backend).zeroed(100_000).unwrap_err();
            let Error::Refused { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
        }
        let policy = Policy::from(Backend::Mlock).with(Control::Guards, Demand::Preferred);
        let mut without = None;
        for _ in 0..8 {
            match Secret::options().policy(policy).zeroed(100_000) {
                Ok(secret) => {
                    without = Some(secret);
                    break;
                }
                Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error:?}"),
            }
            give_back();
        }
        let line = without.expect("a few mappings are enough").protection().control(Control::Guards);
        assert!(line.reached || line.why.is_some_and(|why| why.errno == libc::ENOMEM), "{line}");
        assert!(small.with(|_| ()).is_ok());
        assert!(Secret::new(32).is_ok(), "there is room in the first arena");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_kernel_confirms_what_is_there_and_misses_what_was_undone() {
    let ways = [
        (Spoil::Unlock, Control::Lock),
        (Spoil::Dump, Control::DontDump),
        (Spoil::Fork, Control::DontFork),
        (Spoil::Guard, Control::Guards),
    ];
    for number in 0..8 {
        let ended = in_child_with(number, |number| {
            let (how, control) = ways[number as usize % 4];
            let backend = BACKENDS[number as usize / 4];
            let secret = Secret::options().backend(backend).zeroed(32).unwrap();
            let other = Secret::options().backend(Backend::Mlock).zeroed(100_000).unwrap();
            let whole = secmem::verify().unwrap();
            assert!(whole.is_confirmed() && whole.arenas == 2 && secret.verify().unwrap().arenas == 1, "{whole:?}");

            let at = match how {
                Spoil::Guard => probe::arena_end(&secret),
                _ => secret.with(<[u8]>::as_ptr).unwrap(),
            };
            spoil(at, 4096, how);

            let missing = secret.verify().unwrap().missing;
            if number == 0 {
                assert_eq!(missing, [], "munlock leaves pages of memfd_secret locked");
                return;
            }
            let [Missing::Control { control: found, backend: of, .. }] = missing[..] else { panic!("{missing:?}") };
            assert_eq!((found, of), (control, backend));
            assert_eq!(secmem::verify().unwrap().missing.len(), 1);
            assert!(other.verify().unwrap().is_confirmed());
        });

        assert!(ended.status.success(), "{number}: {ended:?}");
    }
}

#[test]
fn a_page_that_a_forked_child_no_longer_finds_zeroed_is_missed() {
    let ended = in_child(|| {
        let secret = Secret::new(32).unwrap();
        let before = secmem::verify().unwrap();
        assert!(before.is_confirmed(), "{before:?}");
        let witness = wiped_on_fork();
        assert!(!witness.is_empty());

        for page in witness {
            spoil(page, 4096, Spoil::Witness);
        }

        assert_eq!(secmem::verify().unwrap().missing, [Missing::ForkWitness]);
        assert_eq!(secret.verify().unwrap().missing, [Missing::ForkWitness]);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[cfg(target_arch = "x86_64")]
mod stacks {
    use std::process::Command;

    use secmem::purge;
    use secmem::scrub::Stack;

    use super::*;

    /// An address on the stack that this is called on.
    #[inline(never)]
    fn here() -> *const u8 {
        let here = 0_u8;
        let at: *const u8 = std::hint::black_box(&raw const here);
        std::ptr::with_exposed_provenance(at.expose_provenance())
    }

    #[test]
    fn a_protected_stack_is_in_the_reports_as_long_as_it_is_there() {
        let ended = in_child(|| {
            let mut stack = Stack::with_backend(Backend::Mlock, 64 << 10).unwrap();
            let (mut within, mut confirmed) = (None, None);
            stack
                .run(|| {
                    within = Some(Report::now().unwrap());
                    confirmed = Some(secmem::verify().unwrap());
                })
                .unwrap();
            let (within, confirmed) = (within.unwrap(), confirmed.unwrap());
            let after = Statistics::now();

            assert_eq!(within.stacks.iter().map(|stack| stack.running).collect::<Vec<_>>(), [true, false]);
            assert!(within.stacks.iter().all(|stack| stack.backend == Backend::Mlock && stack.controls.len() == 4));
            assert!(within.to_string().contains("stack: mlock, 65536 bytes, running\n"), "{within}");
            assert!(confirmed.is_confirmed() && confirmed.stacks == 2 && confirmed.arenas == 0, "{confirmed:?}");
            assert!(!Report::now().unwrap().stacks.iter().any(|stack| stack.running));
            assert_eq!((after.stacks, after.degraded, after.arenas), (2, 0, 0));
            assert!(after.stack_bytes > 64 << 10 && after.locked == after.stack_bytes, "{after:?}");
            let own = stack.verify().unwrap();
            assert_eq!((own.stacks, own.bytes), (2, after.stack_bytes));
            let other = Stack::new(4096).unwrap();
            assert_eq!((stack.verify().unwrap().stacks, secmem::verify().unwrap().stacks), (2, 4));
            drop((stack, other));
            assert_eq!((Statistics::now().stacks, secmem::verify().unwrap().stacks), (0, 0));
        });

        assert!(ended.status.success(), "{ended:?}");
    }

    #[test]
    fn what_the_pages_of_a_stack_lose_is_missed() {
        let ways = [
            (Spoil::Unlock, Control::Lock),
            (Spoil::Dump, Control::DontDump),
            (Spoil::Fork, Control::DontFork),
            (Spoil::Guard, Control::Guards),
        ];
        for number in 0..4 {
            let ended = in_child_with(number, |number| {
                let (how, control) = ways[number as usize];
                let mut stack = Stack::with_backend(Backend::Mlock, 64 << 10).unwrap();
                let other = Stack::new(64 << 10).unwrap();
                let mut at = std::ptr::null();
                stack.run(|| at = here()).unwrap();
                assert!(stack.verify().unwrap().is_confirmed());
                if how as i32 == Spoil::Guard as i32 {
                    let line = common::map_line(at);
                    let end = line.split([' ', '-']).nth(1).unwrap();
                    at = std::ptr::with_exposed_provenance(usize::from_str_radix(end, 16).unwrap());
                }
                spoil(at, 4096, how);

                let missing = stack.verify().unwrap().missing;
                let [Missing::Control { control: found, backend: Backend::Mlock, .. }] = missing[..] else {
                    panic!("{missing:?}")
                };
                assert_eq!(found, control);
                assert_eq!(secmem::verify().unwrap().missing, missing);
                assert!(other.verify().unwrap().is_confirmed());
            });

            assert!(ended.status.success(), "{number}: {ended:?}");
        }
    }

    #[test]
    fn no_other_program_takes_the_place_of_one_that_runs_on_a_protected_stack() {
        for number in 0..2 {
            let ended = in_child_with(number, |number| {
                let mut next = Command::new("/proc/self/exe");
                next.arg("--list");
                let mut stack = Stack::new(256 << 10).unwrap();
                if number == 0 {
                    stack.run(|| assert_eq!(purge::exec(&mut next).kind(), std::io::ErrorKind::ResourceBusy)).unwrap();
                    println!("refused");
                } else {
                    stack.run(|| ()).unwrap();
                    panic!("{}", purge::exec(&mut next));
                }
            });

            assert!(ended.status.success(), "{ended:?}");
            assert_eq!(String::from_utf8_lossy(&ended.stdout).contains("refused\n"), number == 0, "{ended:?}");
        }
    }
}

#[test]
fn the_counts_of_the_process_add_up_and_hold_no_content() {
    let ended = in_child(|| {
        let before = Statistics::now();
        assert!(Report::now().unwrap().fork_witness.is_none(), "nothing has been asked for");
        let mut secrets: Vec<_> = (0..10).map(|_| Secret::new(32).unwrap()).collect();
        for secret in &mut secrets {
            secret.with_mut(|bytes| bytes.copy_from_slice(b"0123456789abcdefghijklmnopqrstuv")).unwrap();
            secret.with(|_| ()).unwrap();
        }
        secrets[0].wipe().unwrap();
        assert!(secrets[0].with(|_| ()).is_err());
        let spent = Secret::options().max_uses(0).zeroed(1).unwrap();
        assert!(spent.with(|_| ()).is_err());
        drop(spent);
        let in_thread = std::thread::spawn(|| Secret::new(1).unwrap().with(|_| ()).unwrap());
        in_thread.join().unwrap();

        let after = Statistics::now();

        assert_eq!((before.made, before.accesses, before.denied, before.live, before.arenas), (0, 0, 0, 0, 0));
        assert_eq!((after.made, after.accesses, after.denied), (12, 21, 2));
        assert_eq!((after.live, after.arenas, after.degraded, after.left_open), (9, 1, 0, 0));
        assert_eq!((after.bytes, after.locked), (64 << 10, 64 << 10));
        let report = Report::now().unwrap();
        assert!(report.fork_witness.is_some_and(|witness| witness.reached));
        assert_eq!(report.arenas[0].live, 9);
        assert!(!format!("{report:?} {report}").contains("0123456789"));
    });

    assert!(ended.status.success(), "{ended:?}");
}
