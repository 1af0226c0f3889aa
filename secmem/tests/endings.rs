//! Every ending that can be caught leaves zeros, and the process still ends as it would have.
//!
//! The look at the memory of a dying process is made by something that runs after the purge: the application's own
//! signal handler, an exit function registered earlier, the panic hook before ours. Each look reports by exit status:
//! 40 for zeros, 41 for anything else.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{at_exit, exit_now, in_child, in_child_with, peek, raise, set_handler};
use secmem::purge::{self, Plan};
use secmem::wipe::Schedule;
use secmem::{Backend, Error, Secret};

const SIGNALS: [i32; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT];
const BACKENDS: [Backend; 2] = [Backend::MemfdSecret, Backend::Mlock];
const ZEROS: i32 = 40;
const NOT_ZEROS: i32 = 41;

/// Where the looks of a dying process look.
static LOOK_AT: [AtomicPtr<u8>; 2] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 2];
static LOOK_LEN: AtomicUsize = AtomicUsize::new(0);

fn filled(options: secmem::Options, len: usize) -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.fill(0xA7);
        Ok::<(), Error>(())
    };
    options.filled(len, fill).unwrap()
}

fn filled_with(options: secmem::Options, byte: u8) -> Secret {
    let mut secret = options.zeroed(32).unwrap();
    secret.with_mut(|slot| slot.fill(byte)).unwrap();
    secret
}

/// One secret of each backend, with the looks pointed at them.
fn planted(len: usize) -> [Secret; 2] {
    let secrets = BACKENDS.map(|backend| filled(Secret::options().backend(backend), len));
    for (place, secret) in LOOK_AT.iter().zip(&secrets) {
        place.store(address(secret).cast_mut(), Ordering::SeqCst);
    }
    LOOK_LEN.store(len, Ordering::SeqCst);
    secrets
}

fn address(secret: &Secret) -> *const u8 {
    secret.with(<[u8]>::as_ptr).unwrap()
}

fn look() -> i32 {
    let len = LOOK_LEN.load(Ordering::SeqCst);
    let zeros = LOOK_AT.iter().all(|at| peek(at.load(Ordering::SeqCst), len).iter().all(|&byte| byte == 0));
    if zeros && len > 0 { ZEROS } else { NOT_ZEROS }
}

extern "C" fn look_at_exit() {
    exit_now(look());
}

extern "C" fn look_in_handler(_: i32) {
    exit_now(look());
}

#[test]
fn each_signal_still_ends_the_process_by_that_signal() {
    for signal in SIGNALS {
        let ended = in_child_with(signal, |signal| {
            let _secrets = planted(32);
            purge::install(&Plan::default()).unwrap();
            raise(signal);
        });

        assert_eq!(ended.status.signal(), Some(signal), "{ended:?}");
    }
}

#[test]
fn abort_still_ends_the_process_by_sigabrt() {
    let ended = in_child(|| {
        let _secrets = planted(32);
        purge::install(&Plan::default()).unwrap();
        std::process::abort();
    });

    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{ended:?}");
}

#[test]
fn the_handler_of_the_application_runs_after_the_purge() {
    for signal in SIGNALS {
        let ended = in_child_with(signal, |signal| {
            let _secrets = planted(5000);
            set_handler(signal, look_in_handler as *const () as usize, 0);
            purge::install(&Plan::default()).unwrap();
            purge::install(&Plan::default()).unwrap(); // twice is once
            raise(signal);
        });

        assert_eq!(ended.status.code(), Some(ZEROS), "signal {signal}: {ended:?}");
    }
}

#[test]
fn without_a_plan_the_same_look_finds_the_secret() {
    let ended = in_child(|| {
        let _secrets = planted(5000);
        set_handler(libc::SIGTERM, look_in_handler as *const () as usize, 0);
        raise(libc::SIGTERM);
    });

    assert_eq!(ended.status.code(), Some(NOT_ZEROS), "{ended:?}");
}

#[test]
fn a_handler_that_returns_finds_old_secrets_gone_and_new_ones_possible() {
    extern "C" fn nothing(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        assert!(!info.is_null());
    }
    let ended = in_child(|| {
        let secrets = planted(32);
        set_handler(libc::SIGTERM, nothing as *const () as usize, libc::SA_SIGINFO | libc::SA_RESETHAND);
        purge::install(&Plan::default().signals([libc::SIGTERM])).unwrap();
        raise(libc::SIGTERM);

        assert_eq!(look(), ZEROS);
        assert!(secrets.iter().all(|secret| matches!(secret.with(|_| ()), Err(Error::Purged))));
        assert_eq!(filled(Secret::options(), 32).with(|bytes| bytes[31]).unwrap(), 0xA7);
        raise(libc::SIGTERM); // the handler was to be called once
    });

    assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{ended:?}");
}

#[test]
fn an_access_that_a_forced_purge_overtakes_has_no_result() {
    extern "C" fn nothing(_: i32) {}
    let ended = in_child(|| {
        set_handler(libc::SIGTERM, nothing as *const () as usize, 0);
        purge::install(&Plan::default().signals([libc::SIGTERM])).unwrap();
        let fill = |slot: &mut [u8]| {
            raise(libc::SIGTERM);
            slot.fill(0xA7);
            Ok::<(), Error>(())
        };
        for backend in BACKENDS {
            let options = Secret::options().backend(backend);

            let [one, other] = [0xA7, 0x5A].map(|byte| filled_with(options, byte));
            let equal = one.with(|a| {
                other.with(|b| {
                    raise(libc::SIGTERM);
                    secmem::ct::eq(a, b)
                })
            });
            assert!(matches!(equal, Err(Error::Purged)), "{equal:?}");

            let mut written = filled_with(options, 0xA7);
            let writing = written.with_mut(|_| raise(libc::SIGTERM));
            assert!(matches!(writing, Err(Error::Purged)), "{writing:?}");

            let made = options.filled(32, fill);
            assert!(matches!(made, Err(Error::Purged)), "{made:?}");

            let sealed = options.sealed(32).unwrap();
            let batch = secmem::Sealed::batch(&[&sealed], || sealed.with(|_| raise(libc::SIGTERM)));
            assert!(matches!(batch, Ok(Err(Error::Purged))), "{batch:?}");
            let made = options.filled_sealed(32, fill);
            assert!(matches!(made, Err(Error::Purged)), "{made:?}");
        }
        let undisturbed = filled_with(Secret::options(), 0xA7);
        assert_eq!(undisturbed.with(|bytes| bytes[31]).unwrap(), 0xA7);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let ended = in_child(|| {
        let secrets = planted(32);
        set_handler(libc::SIGHUP, libc::SIG_IGN, 0);
        purge::install(&Plan::default()).unwrap();
        raise(libc::SIGHUP);
        assert_eq!(secrets[0].with(|bytes| bytes[0]).unwrap(), 0xA7);
    });

    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn a_signal_that_ends_no_process_cannot_be_planned() {
    for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGTSTP, 0, -1, 33, 65, i32::MAX] {
        let result = purge::install(&Plan::default().panic(false).exit(false).signals([signal]));

        assert!(matches!(result, Err(Error::Signal { signal: named }) if named == signal), "{result:?}");
    }
}

#[test]
fn exit_purges_and_keeps_its_status() {
    let ended = in_child(|| {
        let _secrets = planted(32);
        purge::install(&Plan::default()).unwrap();
        std::process::exit(17);
    });
    assert_eq!(ended.status.code(), Some(17), "{ended:?}");
}

#[test]
fn exit_leaves_zeros() {
    let ended = in_child(|| {
        let secrets = planted(100_000);
        at_exit(look_at_exit); // functions run in reverse order, so this one last
        purge::install(&Plan::default()).unwrap();
        std::mem::forget(secrets);
        std::process::exit(17);
    });
    assert_eq!(ended.status.code(), Some(ZEROS), "{ended:?}");
}

#[test]
fn a_panic_ends_every_secret_before_the_next_hook_runs() {
    let ended = in_child(|| {
        let secrets = planted(32);
        std::panic::set_hook(Box::new(|_| exit_now(look())));
        purge::install(&Plan::default()).unwrap();
        assert!(secrets[0].is_empty(), "this is the panic");
    });

    assert_eq!(ended.status.code(), Some(ZEROS), "{ended:?}");
}

#[test]
fn a_hook_that_took_the_place_of_ours_has_it_no_longer_after_another_installation() {
    let ended = in_child(|| {
        let secrets = planted(32);
        purge::install(&Plan::default()).unwrap();
        std::panic::set_hook(Box::new(|_| exit_now(look())));
        purge::install(&Plan::default()).unwrap();
        assert!(secrets[0].is_empty(), "this is the panic");
    });

    assert_eq!(ended.status.code(), Some(ZEROS), "{ended:?}");
}

/// Builds a program of these tests, and the library with it, so that panics abort. `None` where no cargo is there.
///
/// Cargo builds tests so that panics unwind, whatever a profile says.
fn with_aborting_panics(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-abort");
    let tool = |name: &str, variable| Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()));
    let run = |mut command: Command| {
        // What builds these tests may be an instrument, of which the program is no part.
        let flags = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WORKSPACE_WRAPPER"];
        flags.iter().for_each(|flag| _ = command.env_remove(flag));
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().ok()?;
        assert!(output.status.success(), "{command:?}: {output:?}");
        Some(())
    };
    let mut library = tool("cargo", "CARGO");
    library.args(["build", "--locked", "--offline", "--quiet", "--package", "secmem", "--lib"]);
    library
        .args(["--no-default-features", "--features", "std", "--config", "profile.dev.panic=\"abort\"", "--target-dir"])
        .arg(&target);
    run(library)?;
    let (built, program) = (target.join("debug"), target.join(name));
    let mut compiler = tool("rustc", "RUSTC");
    compiler.args(["--edition", "2024", "-C", "panic=abort", "-L"]).arg(built.join("deps")).arg("--extern");
    compiler.arg(format!("secmem={}", built.join("libsecmem.rlib").display()));
    compiler.arg(Path::new("tests/programs").join(name).with_extension("rs")).arg("-o").arg(&program);
    run(compiler)?;
    Some(program)
}

#[test]
fn a_panic_that_aborts_wipes_under_the_access_that_panics() {
    let Some(program) = with_aborting_panics("panic_abort") else { return common::skipped("no cargo, or no rustc") };

    let ended = Command::new(program).output().unwrap();

    assert_eq!(ended.status.code(), Some(ZEROS), "{ended:?}");
}

#[test]
fn a_panic_that_unwinds_leaves_the_access_that_panics_its_bytes() {
    let ended = in_child(|| {
        let [used, _unused] = planted(32);
        std::panic::set_hook(Box::new(|_| exit_now(look())));
        purge::install(&Plan::default()).unwrap();
        let _ = used.with(|bytes| assert!(bytes.is_empty(), "this is the panic"));
    });

    assert_eq!(ended.status.code(), Some(NOT_ZEROS), "{ended:?}");
}

#[test]
fn a_panic_within_an_access_wipes_when_the_access_unwinds() {
    let ended = in_child(|| {
        let [mut used, unused] = planted(32);
        purge::install(&Plan::default()).unwrap();

        let caught = catch_unwind(AssertUnwindSafe(|| {
            used.with_mut(|bytes| {
                bytes.fill(0xB8);
                assert!(bytes.is_empty(), "this is the panic");
            })
        }));

        assert!(caught.is_err());
        assert_eq!(look(), ZEROS);
        assert!(matches!(used.with(|_| ()), Err(Error::Purged)));
        assert!(matches!(unused.with(|_| ()), Err(Error::Purged)));
        assert_eq!(filled(Secret::options(), 32).with(|bytes| bytes[31]).unwrap(), 0xA7);
    });

    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn what_an_access_writes_after_a_forced_purge_is_wiped_when_it_ends() {
    extern "C" fn nothing(_: i32) {}
    let ended = in_child(|| {
        let [mut used, _other] = planted(32);
        set_handler(libc::SIGTERM, nothing as *const () as usize, 0);
        purge::install(&Plan::default().signals([libc::SIGTERM])).unwrap();

        let written = used.with_mut(|bytes| {
            raise(libc::SIGTERM);
            assert_eq!(look(), ZEROS);
            bytes.fill(0xB8);
            assert_eq!(look(), NOT_ZEROS);
        });

        assert!(matches!(written, Err(Error::Purged)), "{written:?}");
        assert_eq!(look(), ZEROS);
        assert!(matches!(used.with(|_| ()), Err(Error::Purged)));
    });

    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn damage_beside_one_secret_ends_those_of_every_arena_before_the_process() {
    for (number, (len, damaged)) in (0..).zip([(32, 0), (32, 1), (100_000, 0), (100_000, 1)]) {
        let ended = in_child_with(number, |_| {
            // The look comes with the SIGABRT that ends the process; no plan purges at it.
            set_handler(libc::SIGABRT, look_in_handler as *const () as usize, 0);
            let mut secrets = planted(len);
            let [memfd, mlock] = secrets.each_ref().map(|secret| common::map_line(address(secret)));
            assert_ne!(memfd, mlock, "both lie in one mapping");
            assert_eq!(look(), NOT_ZEROS);
            let _ = secrets[damaged].with_mut(|bytes| common::poke(bytes.as_mut_ptr().wrapping_add(len)));
        });

        assert_eq!(ended.status.code(), Some(ZEROS), "{len} bytes, secret {damaged}: {ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("memory beside a secret was overwritten"), "{ended:?}");
    }
}

#[test]
fn purging_on_request_spares_a_running_access_until_its_end() {
    let ended = in_child(|| {
        let [used, unused] = planted(32);

        let seen = used.with(|bytes| {
            purge::purge_all();
            bytes.to_vec()
        });

        assert_eq!(seen.unwrap(), [0xA7; 32]);
        assert_eq!(look(), ZEROS);
        assert!(matches!(used.with(|_| ()), Err(Error::Purged)));
        assert!(matches!(unused.with(|_| ()), Err(Error::Purged)));
        drop((used, unused));
        assert_eq!(filled(Secret::options(), 32).with(|bytes| bytes[31]).unwrap(), 0xA7);
    });

    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn exec_purges_first_and_comes_back_only_if_it_fails() {
    let ended = in_child(|| {
        let [mut secret, _other] = planted(32);
        let missing = purge::exec(&mut Command::new("/nowhere/to/be/found"));
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(look(), ZEROS);
        assert!(matches!(secret.with_mut(|_| ()), Err(Error::Purged)));
        purge::exec(Command::new("/bin/sh").args(["-c", "exit 23"]));
    });

    assert_eq!(ended.status.code(), Some(23), "{ended:?}");
}

#[test]
fn exec_within_an_access_is_refused_and_leaves_the_bytes_alone() {
    let ended = in_child(|| {
        let [used, unused] = planted(32);

        let (error, seen) = used
            .with(|bytes| {
                let error = purge::exec(&mut Command::new("/nowhere/to/be/found"));
                (error, bytes.to_vec())
            })
            .unwrap();

        assert_eq!((error.kind(), seen), (std::io::ErrorKind::ResourceBusy, vec![0xA7; 32]));
        assert_eq!(look(), ZEROS);
        assert!(matches!(unused.with(|_| ()), Err(Error::Purged)));
        purge::exec(Command::new("/bin/sh").args(["-c", "exit 23"]));
    });

    assert_eq!(ended.status.code(), Some(23), "{ended:?}");
}

#[test]
fn exec_is_refused_while_another_thread_uses_a_secret() {
    let ended = in_child(|| {
        let [used, _other] = planted(32);
        let (begun, wait_for_begin) = mpsc::channel();
        let (tried, wait_for_try) = mpsc::channel();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (begun, wait_for_try) = (begun, wait_for_try);
                used.with(|bytes| {
                    begun.send(()).unwrap();
                    wait_for_try.recv().unwrap();
                    bytes.to_vec()
                })
            });
            wait_for_begin.recv().unwrap();
            let error = purge::exec(&mut Command::new("/bin/true"));
            tried.send(()).unwrap();

            assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
            assert_eq!(reader.join().unwrap().unwrap(), [0xA7; 32]);
        });
        assert_eq!(look(), ZEROS);
        std::process::exit(24);
    });

    assert_eq!(ended.status.code(), Some(24), "{ended:?}");
}

/// The handler that stood before [`chains`].
static OLD: AtomicUsize = AtomicUsize::new(0);

extern "C" fn chains(signal: i32) {
    common::call_handler(OLD.load(Ordering::SeqCst), signal);
}

#[test]
fn ours_is_not_set_again_over_a_handler_that_may_call_it() {
    let ended = in_child(|| {
        let _secrets = planted(32);
        let plan = Plan::default().signals([libc::SIGTERM]);
        purge::install(&plan).unwrap();
        OLD.store(common::handler_of(libc::SIGTERM), Ordering::SeqCst);
        set_handler(libc::SIGTERM, chains as *const () as usize, 0);

        let again = purge::install(&plan);

        assert!(matches!(again, Err(Error::Covered { signal: libc::SIGTERM })), "{again:?}");
        raise(libc::SIGTERM);
    });

    assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{ended:?}");
}

#[test]
fn a_handler_that_the_application_has_taken_away_is_not_called() {
    let ended = in_child(|| {
        let _secrets = planted(32);
        let plan = Plan::default().signals([libc::SIGTERM]);
        set_handler(libc::SIGTERM, look_in_handler as *const () as usize, 0);
        purge::install(&plan).unwrap();
        set_handler(libc::SIGTERM, libc::SIG_DFL, 0);
        purge::install(&plan).unwrap();

        raise(libc::SIGTERM);
    });

    assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{ended:?}");
}

#[test]
fn a_handler_runs_on_the_stack_that_it_asked_for() {
    extern "C" fn tell(_: i32) {
        exit_now(if common::on_alternate_stack() { 41 } else { 40 });
    }
    for (flags, expected) in [(0, 40), (libc::SA_ONSTACK, 41)] {
        let ended = in_child_with(flags, |flags| {
            set_handler(libc::SIGTERM, tell as *const () as usize, flags);
            purge::install(&Plan::default()).unwrap();
            raise(libc::SIGTERM);
        });

        assert_eq!(ended.status.code(), Some(expected), "{ended:?}");
    }
}

#[test]
fn a_plan_in_a_panicking_thread_is_an_error_and_no_second_panic() {
    struct Installs;
    impl Drop for Installs {
        fn drop(&mut self) {
            let result = purge::install(&Plan::default());
            assert!(matches!(result, Err(Error::Install { signal: None, .. })), "{result:?}");
        }
    }
    let ended = in_child(|| {
        let caught = catch_unwind(|| {
            let _installs = Installs;
            assert!(std::hint::black_box(false), "this is the panic");
        });
        assert!(caught.is_err());
    });

    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn dropping_and_wiping_leave_zeros() {
    for schedule in [Schedule::Single, Schedule::SixPass] {
        for backend in BACKENDS {
            let mut wiped = filled(Secret::options().backend(backend).wipe(schedule), 100);
            let dropped = filled(Secret::options().backend(backend).wipe(schedule), 100);
            // Held for as long as the test looks: the arena is shared with tests beside this one.
            let places = [address(&wiped), address(&dropped)];
            assert_eq!(places.map(|at| peek(at, 100)), [[0xA7; 100]; 2]);

            wiped.wipe().unwrap();
            wiped.wipe().unwrap(); // twice is once
            drop(dropped);

            assert_eq!(peek(places[0], 100), [0; 100]);
            assert!(matches!(wiped.with(|_| ()), Err(Error::Wiped)));
            assert_ne!(peek(places[1], 100), [0xA7; 100]); // zeros, or another test's secret
        }
    }
}

#[test]
fn a_secret_is_wiped_at_its_deadline_though_nobody_touches_it() {
    for backend in BACKENDS {
        let secret = filled(Secret::options().backend(backend).expires_in(Duration::from_millis(50)), 5000);
        let keeps = filled(Secret::options().backend(backend).expires_in(Duration::from_secs(3600)), 5000);
        let at = address(&secret);
        assert_eq!(peek(at, 5000), [0xA7; 5000]);

        let patience = Instant::now() + Duration::from_secs(60);
        while peek(at, 5000) != [0; 5000] {
            assert!(Instant::now() < patience, "still there");
            std::thread::sleep(Duration::from_millis(5));
        }

        assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
        assert_eq!(keeps.with(|bytes| bytes[0]).unwrap(), 0xA7);
    }
}

#[test]
fn a_deadline_waits_for_the_access_that_runs() {
    // Long enough for the reader to get in on a busy machine.
    let mut secret = filled(Secret::options().expires_in(Duration::from_millis(500)), 32);
    let (begun, wait_for_begin) = mpsc::channel();
    let (expired, wait_for_expiry) = mpsc::channel();

    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // Both are dropped with the thread, so that nobody waits for a reader that came too late.
            let (begun, wait_for_expiry) = (begun, wait_for_expiry);
            secret.with(|bytes| {
                begun.send(()).unwrap();
                wait_for_expiry.recv().unwrap();
                bytes.to_vec()
            })
        });
        wait_for_begin.recv().unwrap();
        while secret.with(|_| ()).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(20)); // for a thread that would wipe now
        expired.send(()).unwrap();

        assert_eq!(reader.join().unwrap().unwrap(), [0xA7; 32]);
    });

    assert!(matches!(secret.with_mut(|_| ()), Err(Error::Expired)));
    assert!(secret.wipe().is_ok());
    assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
}

/// The time of the steady clock at which the thread of this name will be woken, if it waits for one: what the kernel says of
/// the call that the thread is in, FUTEX_WAIT_BITSET with a time (futex(2)).
fn wakes_at(thread: &str) -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let has_name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
    let call = std::fs::read_to_string(tasks.into_iter().find(has_name)?.join("syscall")).unwrap();
    let words: Vec<&str> = call.split_whitespace().collect(); // the call's number, its arguments, or "running"
    if words[0] != libc::SYS_futex.to_string() {
        return None;
    }
    let place = usize::from_str_radix(words[4].trim_start_matches("0x"), 16).unwrap();
    let mut time = [0; 16];
    if place == 0 || common::read_own(place, &mut time) < time.len() {
        return None;
    }
    let [seconds, nanos] = [0, 8].map(|at| u64::from_ne_bytes(time[at..at + 8].try_into().unwrap()));
    Some(Duration::new(seconds, nanos as u32))
}

#[test]
fn the_thread_of_the_deadlines_sleeps_until_the_earliest_and_no_shorter() {
    if let Err(error) = std::fs::read("/proc/thread-self/syscall") {
        return common::skipped(&format!("the kernel does not show what a thread waits for: {error}"));
    }
    let ended = in_child(|| {
        let mut secrets = Vec::new();
        // Each is earlier than those before it, for which the thread sleeps by then.
        for seconds in [90_000, 7200, 3600] {
            let span = Duration::from_secs(seconds);
            let before = common::steady_time() + span;
            secrets.push(filled(Secret::options().expires_in(span), 32));

            let patience = Instant::now() + Duration::from_secs(60);
            loop {
                let wakes = wakes_at("secmem-deadline");
                if wakes.is_some_and(|wakes| wakes >= before && wakes <= common::steady_time() + span) {
                    break;
                }
                assert!(Instant::now() < patience, "{before:?} is to come, and the thread sleeps until {wakes:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn an_earlier_deadline_is_not_held_up_by_a_later_one() {
    let late = filled(Secret::options().expires_in(Duration::from_secs(3600)), 32);
    let never = filled(Secret::options().expires_in(Duration::MAX), 32);
    let soon = filled(Secret::options().expires_in(Duration::from_millis(10)), 32);
    let at = address(&soon);

    let patience = Instant::now() + Duration::from_secs(60);
    while peek(at, 32) != [0; 32] {
        assert!(Instant::now() < patience, "still there");
        std::thread::sleep(Duration::from_millis(5));
    }

    assert!(late.with(|_| ()).is_ok());
    assert!(never.with(|_| ()).is_ok());
}

#[test]
fn a_purge_meanwhile_leaves_nothing_in_a_new_secret() {
    let ended = in_child(|| {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let makers = [8, 40].map(|len| {
                scope.spawn(move || {
                    for _ in 0..50_000 {
                        let Ok(secret) = Secret::new(len) else { continue };
                        // It may be ended before it is looked at.
                        let zeros = secret.with(|bytes| bytes.iter().all(|byte| *byte == 0));
                        assert!(zeros.unwrap_or(true), "something stands in a new secret");
                    }
                })
            });
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    purge::purge_all();
                }
            });
            let ended = makers.map(|maker| maker.join().is_ok());
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(ended, [true; 2]);
        });
    });

    assert!(ended.status.success(), "{ended:?}");
}
