//! Code on a protected stack: what it leaves, how it ends, what it may do.
#![allow(unsafe_code)] // looks at the stack after its use, signals

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use secmem::scrub::{self, Stack};
use secmem::{Backend, Coffer, Control, Demand, Error, Policy, Secret};

/// A frame full of `byte`, at an address that is told.
#[inline(never)]
fn litter(byte: u8) -> usize {
    let mut frame = [0_u8; 300];
    frame.fill(byte);
    std::hint::black_box(&mut frame).as_ptr() as usize
}

#[test]
fn the_stack_is_another_one_and_is_zero_afterwards() {
    for backend in [Backend::MemfdSecret, Backend::Mlock] {
        let mut stack = Stack::with_backend(backend, 64 << 10).unwrap();
        let mut place = 0;

        stack.run(|| place = litter(0xA7)).unwrap();

        let here = litter(0xA7);
        assert!(here.abs_diff(place) > 1 << 20, "{here:#x} {place:#x}");
        let bytes = std::ptr::with_exposed_provenance::<u8>(place);
        // SAFETY: the frame lies within the stack, whose pages stay mapped while `stack` lives.
        let left = (0..300).filter(|at| unsafe { bytes.wrapping_add(*at).read_volatile() } != 0).count();
        assert_eq!(left, 0);
        drop(stack);
    }
}

/// A frame of 40 KiB, zero but for one byte; where it lay, and whether the byte stood there.
#[inline(never)]
fn one_byte(at: usize) -> (usize, bool) {
    let mut frame = [0_u8; 40 << 10];
    frame[at] = 0xA7;
    let frame = std::hint::black_box(&mut frame);
    (frame.as_ptr() as usize, frame[at] == 0xA7)
}

#[test]
fn a_single_byte_deep_in_the_stack_is_overwritten_however_many_zeros_lie_around_it() {
    let mut stack = Stack::with_backend(Backend::Mlock, 64 << 10).unwrap();
    for at in [0, 1, 31, 32, 95, 96, 127, 128, 4096, 9_999, 24 << 10, (40 << 10) - 1] {
        let mut told = (0, false);

        stack.run(|| told = one_byte(at)).unwrap();

        let (place, stood) = told;
        assert!(stood, "{at}");
        let bytes = std::ptr::with_exposed_provenance::<u8>(place);
        // SAFETY: the frame lies within the stack, whose pages stay mapped while `stack` lives.
        let left = (0..40 << 10).filter(|at| unsafe { bytes.wrapping_add(*at).read_volatile() } != 0).count();
        assert_eq!(left, 0, "{at}");
    }
}

#[test]
fn what_the_closure_writes_through_references_arrives() {
    let key = [7_u8; 32];
    let mut sum = 0_u32;

    scrub::run(|| sum = key.iter().map(|&byte| u32::from(byte)).sum()).unwrap();

    assert_eq!(sum, 7 * 32);
}

#[test]
fn a_panic_ends_there_and_the_stack_serves_again() {
    let mut stack = Stack::new(64 << 10).unwrap();

    let result = stack.run(|| panic!("within"));
    let mut ran = false;
    stack.run(|| ran = true).unwrap();

    assert!(matches!(result, Err(Error::Panicked)), "{result:?}");
    assert!(ran);
}

#[test]
fn what_a_panic_carries_may_panic_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    assert!(matches!(scrub::run(|| std::panic::panic_any(Bomb)), Err(Error::Panicked)));
}

#[test]
fn calls_nest() {
    let mut depth = 0;

    scrub::run(|| scrub::run(|| scrub::run(|| depth = 3).unwrap()).unwrap()).unwrap();

    assert_eq!(depth, 3);
}

#[test]
fn many_threads_have_their_own() {
    let sum = AtomicUsize::new(0);

    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    scrub::run(|| _ = sum.fetch_add(1, Ordering::Relaxed)).unwrap();
                }
            });
        }
    });

    assert_eq!(sum.into_inner(), 800);
}

#[test]
fn floating_point_works_and_its_rounding_is_given_back() {
    let third = 1.0_f64 / std::hint::black_box(3.0);
    let mut inside = 0.0;

    scrub::run(|| inside = 1.0_f64 / std::hint::black_box(3.0)).unwrap();

    assert_eq!(inside.to_bits(), third.to_bits());
    assert_eq!((1.0_f64 / std::hint::black_box(3.0)).to_bits(), third.to_bits());
}

static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: libc::c_int) {
    SEEN.store(litter(0x5B), Ordering::SeqCst);
}

fn handle(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: all fields may be zero.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = flags;
    // SAFETY: the handler stores a number and fills a frame.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

#[test]
fn handlers_run_on_memory_that_is_overwritten_and_then_on_the_old_one_again() {
    for (signal, flags) in [(libc::SIGUSR1, libc::SA_ONSTACK), (libc::SIGUSR2, 0)] {
        handle(signal, flags);
        let mut stack = Stack::new(64 << 10).unwrap();

        // SAFETY: raises a signal that is handled.
        stack.run(|| _ = unsafe { libc::raise(signal) }).unwrap();

        let place = SEEN.swap(0, Ordering::SeqCst);
        let bytes = std::ptr::with_exposed_provenance::<u8>(place);
        // SAFETY: the handler ran on one of the two stacks, whose pages stay mapped while `stack` lives.
        let left = (0..300).filter(|at| unsafe { bytes.wrapping_add(*at).read_volatile() } != 0).count();
        assert_eq!(left, 0, "{signal}");
        // SAFETY: raises a signal that is handled.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
        assert!(SEEN.swap(0, Ordering::SeqCst).abs_diff(place) > 1 << 16);
        drop(stack);
    }
}

#[test]
fn handlers_have_as_much_room_as_the_application_has_given_them_since() {
    let ended = common::in_child(|| {
        let mut stack = Stack::new(64 << 10).unwrap();
        stack.run(|| ()).unwrap();
        let place = vec![0_u8; 256 << 10].leak();
        let larger = libc::stack_t { ss_sp: place.as_mut_ptr().cast(), ss_flags: 0, ss_size: place.len() };
        // SAFETY: the place is leaked, so it outlives the thread.
        assert_eq!(unsafe { libc::sigaltstack(&raw const larger, std::ptr::null_mut()) }, 0);
        extern "C" fn takes_much(_: libc::c_int) {
            let mut room = std::hint::black_box([1_u8; 40 << 10]);
            std::hint::black_box(&mut room);
        }
        common::set_handler(libc::SIGUSR1, takes_much as *const () as usize, libc::SA_ONSTACK);

        for _ in 0..2 {
            stack.run(|| common::raise(libc::SIGUSR1)).unwrap();
        }

        assert!(common::alternate_stack().is_some_and(|at| at == place.as_ptr().addr()), "it is back where it was");
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_protected_stack_gets_what_the_pool_keeps_for_secrets_to_come() {
    let ended = common::in_child(|| {
        common::limit_locked_memory(512 << 10);
        let secrets: Vec<_> = (0..20_000).map_while(|_| Secret::new(32).ok()).collect();
        assert!(secrets.len() > 1000);
        assert!(Stack::new(64 << 10).is_err(), "secrets that live fill the budget");
        drop(secrets);

        Stack::new(64 << 10).unwrap().run(|| ()).unwrap();
        scrub::run(|| ()).unwrap();
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn without_a_lock_budget_a_coffer_and_a_stack_are_had_by_a_policy_that_says_so() {
    let ended = common::in_child(|| {
        common::limit_locked_memory(0);
        let policy = Policy::best_effort();
        let mut stack = Stack::with_policy(policy, 64 << 10).unwrap();
        let lock = stack.protection().controls().find(|it| it.control == Control::Lock).unwrap();
        assert!(!lock.reached && lock.is_degraded(), "{lock}");
        let guards = stack.protection().controls().find(|it| it.control == Control::Guards).unwrap();
        assert_eq!((guards.reached, guards.asked), (true, Demand::Required));
        stack.run(|| ()).unwrap();
        let secret = Secret::options().policy(policy).zeroed(32).unwrap();
        let coffer = Coffer::with_policy(policy).unwrap();
        assert!(coffer.store(&secret).unwrap().open(Secret::options().policy(policy)).is_ok());
        assert!(matches!(Coffer::new(), Err(Error::Refused { .. })));
    });

    assert!(ended.status.success(), "{ended:?}");
}

/// A library that calls a function of another, bound as `how` says; `None` where no compiler is there.
fn library(dir: &std::path::Path, how: &str) -> Option<std::path::PathBuf> {
    let (source, library) = (dir.join("lazy.c"), dir.join(format!("lib{how}.so")));
    std::fs::write(&source, "int puts(const char *); int speak(void) { return puts(\"\"); }").unwrap();
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-fplt", &format!("-Wl,-z,{how}"), "-o"]).arg(&library).arg(&source);
    match compiler.status() {
        Ok(status) if status.success() => Some(library),
        _ => None,
    }
}

#[test]
fn a_library_that_is_bound_lazily_is_told_and_one_that_is_not_is_not() {
    let dir = std::env::temp_dir().join(format!("secmem-binding-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let libraries = ["lazy", "now"].map(|how| library(&dir, how));
    let [Some(lazy), Some(now)] = &libraries else {
        std::fs::remove_dir_all(&dir).unwrap();
        return common::skipped("no C compiler that makes a shared library");
    };
    for library in [lazy, now] {
        let name = std::ffi::CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: the library has no constructors.
        assert!(!unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY) }.is_null());
    }

    let told = scrub::lazily_bound();

    std::fs::remove_dir_all(&dir).unwrap();
    let bound_at_start = std::env::var_os("LD_BIND_NOW").is_some_and(|value| !value.is_empty());
    assert_eq!(told.iter().any(|told| told.object == *lazy && told.functions > 0), !bound_at_start, "{told:?}");
    assert!(!told.iter().any(|told| told.object == *now), "{told:?}");
    // rustc binds its programs at once.
    assert!(!told.iter().any(|told| told.object.as_os_str().is_empty()), "{told:?}");
}

#[test]
fn a_stack_too_large_for_the_machine_is_an_error() {
    assert!(matches!(Stack::new(1 << 46), Err(Error::Refused { .. })));
}
