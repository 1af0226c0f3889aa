//! How long secrets live: until a time, until they rest for too long, for so many uses, within an owner's limits.

mod common;

use std::time::{Duration, Instant};

use common::peek;
use secmem::{Backend, Bytes, Control, Demand, Error, Options, Owner, Policy, Secret, TestClock};

const SECOND: Duration = Duration::from_secs(1);
const BACKENDS: [Backend; 2] = [Backend::MemfdSecret, Backend::Mlock];

fn filled(options: Options) -> Secret {
    let fill = |slot: &mut [u8]| {
        slot.fill(7);
        Ok::<(), Error>(())
    };
    options.filled(32, fill).unwrap()
}

fn address(secret: &Secret) -> *const u8 {
    secret.with(<[u8]>::as_ptr).unwrap()
}

#[test]
fn a_secret_ends_at_its_time_and_not_before() {
    for backend in BACKENDS {
        let clock = TestClock::new();
        let secret = filled(Secret::options().backend(backend).clock(clock).expires_in(10 * SECOND));
        let at = address(&secret);

        clock.advance(10 * SECOND - Duration::from_nanos(1));
        assert_eq!((secret.with(|it| it[0]).unwrap(), peek(at, 1)[0]), (7, 7));
        clock.advance(Duration::from_nanos(1));

        assert_eq!(peek(at, 32), [0; 32], "wiped, and nobody had to ask");
        assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
    }
}

#[test]
fn a_secret_that_is_used_outlives_its_idle_time_and_one_that_rests_does_not() {
    let clock = TestClock::new();
    let used = filled(Secret::options().clock(clock).idle_for(3 * SECOND));
    let rests = filled(Secret::options().clock(clock).idle_for(3 * SECOND));
    let at = address(&rests);

    for _ in 0..5 {
        clock.advance(2 * SECOND);
        assert!(used.with(|_| ()).is_ok());
    }

    assert_eq!(peek(at, 32), [0; 32]);
    assert!(matches!(rests.with(|_| ()), Err(Error::Expired)));
    clock.advance(3 * SECOND);
    assert!(matches!(used.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn what_grows_does_not_rest() {
    let clock = TestClock::new();
    let mut bytes = Secret::options().clock(clock).idle_for(3 * SECOND).bytes(8).unwrap();

    for _ in 0..5 {
        clock.advance(2 * SECOND);
        bytes.push(7).unwrap();
    }
    clock.advance(3 * SECOND);

    assert!(matches!(bytes.push(7), Err(Error::Expired)));
}

#[test]
fn a_test_clock_stands_still_at_the_end_of_time() {
    let clock = TestClock::new();
    clock.advance(9 * SECOND);
    let secret = filled(Secret::options().clock(clock).expires_in(5 * SECOND));

    clock.advance(Duration::MAX);

    assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn an_access_that_runs_is_no_rest() {
    let clock = TestClock::new();
    let secret = filled(Secret::options().clock(clock).idle_for(SECOND));

    let seen = secret.with(|it| {
        clock.advance(5 * SECOND);
        it[31]
    });

    assert_eq!(seen.unwrap(), 7);
    assert!(secret.with(|_| ()).is_ok(), "it rests from the end of the access on");
    clock.advance(SECOND);
    assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn use_does_not_put_the_end_off() {
    let clock = TestClock::new();
    let secret = filled(Secret::options().clock(clock).idle_for(3 * SECOND).expires_in(4 * SECOND));

    for _ in 0..3 {
        clock.advance(SECOND);
        assert!(secret.with(|_| ()).is_ok());
    }
    clock.advance(SECOND);

    assert!(matches!(secret.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn what_has_ended_is_never_alive_again() {
    let clock = TestClock::new();
    let mut secret = filled(Secret::options().clock(clock).idle_for(SECOND).expires_in(9 * SECOND).max_uses(9));
    clock.advance(SECOND);

    assert!(matches!(secret.with_mut(|_| ()), Err(Error::Expired)));
    secret.wipe().unwrap();
    clock.advance(SECOND);
    assert!(matches!(secret.with(|_| ()), Err(Error::Expired)), "what ended it first stays the reason");
}

#[test]
fn growth_does_not_put_the_end_off() {
    let clock = TestClock::new();
    let mut bytes = Secret::options().clock(clock).expires_in(2 * SECOND).bytes(4).unwrap();
    bytes.extend(b"1234").unwrap();
    clock.advance(SECOND);
    bytes.extend(&[7; 500]).unwrap();
    let at = bytes.with(<[u8]>::as_ptr).unwrap();
    clock.advance(SECOND);

    assert_eq!(peek(at, 504), [0; 504]);
    assert!(matches!(bytes.extend(&[7; 5000]), Err(Error::Expired)));
    assert!(matches!(bytes.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn the_last_use_ends_the_secret_when_it_is_over() {
    let secret = filled(Secret::options().max_uses(2));
    let at = address(&secret); // the first

    assert_eq!(secret.with(|it| it[31]).unwrap(), 7);
    assert_eq!(peek(at, 32), [0; 32]);
    assert!(matches!(secret.with(|_| ()), Err(Error::Spent)));

    assert!(matches!(filled(Secret::options().max_uses(0)).with(|_| ()), Err(Error::Spent)));
}

#[test]
fn many_threads_have_no_more_uses_than_there_are() {
    let secret = filled(Secret::options().max_uses(100));

    let used: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..100).filter(|_| secret.with(|_| ()).is_ok()).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });

    assert!(used <= 100, "{used}");
    assert!(matches!(secret.with(|_| ()), Err(Error::Spent)));
}

#[test]
fn of_as_many_threads_as_there_are_uses_none_is_refused() {
    for _ in 0..2000 {
        let secret = filled(Secret::options().max_uses(2));
        let used = std::thread::scope(|scope| {
            let other = scope.spawn(|| secret.with(|_| ()).is_ok());
            secret.with(|_| ()).is_ok() && other.join().unwrap()
        });

        assert!(used);
        assert!(matches!(secret.with(|_| ()), Err(Error::Spent)));
    }
}

#[test]
fn a_secret_is_consumed_by_one_use_even_if_that_panics() {
    let secret = filled(Secret::options());
    let at = address(&secret);
    assert_eq!(secret.consume(|it| it[31]).unwrap(), 7);
    assert_eq!(peek(at, 32), [0; 32]);

    let secret = filled(Secret::options());
    let at = address(&secret);
    assert!(std::panic::catch_unwind(|| secret.consume(|_| panic!("within"))).is_err());
    assert_eq!(peek(at, 32), [0; 32]);
}

#[test]
fn an_owner_holds_what_it_may_and_no_more() {
    let owner = Owner::new(3, 100);
    let options = Secret::options().owner(owner);
    let first = options.zeroed(60).unwrap();
    assert!(matches!(options.zeroed(41), Err(Error::Quota { most_secrets: 3, most_bytes: 100, len: 41 })));
    assert_eq!(owner.holds(), (1, 60), "what was refused takes nothing");
    let _second = options.zeroed(40).unwrap();
    let _third = options.sealed(0).unwrap();
    assert!(matches!(options.zeroed(0), Err(Error::Quota { .. })));
    assert!(Secret::options().owner(Owner::new(1, 1000)).zeroed(500).is_ok(), "others are not concerned");

    drop(first);
    assert_eq!(owner.holds(), (2, 40));
    let mut grows: Bytes = options.bytes(10).unwrap();
    assert!(matches!(grows.extend(&[7; 70]), Err(Error::Quota { .. })));
    assert_eq!(owner.holds(), (3, 50));
    grows.extend(&[7; 50]).unwrap();
    assert_eq!(owner.holds(), (3, 90));
    assert_eq!(grows.into_secret().unwrap().len(), 50);
}

#[test]
fn what_grows_gets_what_is_left_to_its_owner_where_twice_as_much_is_too_much() {
    let mut grows = Secret::options().owner(Owner::new(1, 100)).bytes(64).unwrap();
    grows.extend(&[7; 64]).unwrap();

    for _ in 64..100 {
        grows.push(7).unwrap();
    }

    assert!(matches!(grows.push(7), Err(Error::Quota { .. })));
    assert!(grows.with(|bytes| bytes == [7; 100]).unwrap());
}

#[test]
fn a_long_secret_ends_at_its_time_too() {
    let clock = TestClock::new();
    // Beyond what the lock budget gives, perhaps, which is not what is asked here.
    let policy = Policy::default().with(Control::Lock, Demand::Preferred);
    let mut long = Secret::options().policy(policy).clock(clock).expires_in(SECOND).zeroed(5 << 20).unwrap();
    let at = long.with_mut(|bytes| {
        bytes.fill(7);
        bytes.as_ptr()
    });
    let at = at.unwrap();
    let ends = [at, at.wrapping_add((5 << 20) - 1)];
    assert_eq!(ends.map(|end| peek(end, 1)[0]), [7, 7]);

    clock.advance(SECOND);

    assert_eq!(ends.map(|end| peek(end, 1)[0]), [0, 0]);
    assert!(matches!(long.with(|_| ()), Err(Error::Expired)));
}

#[test]
fn the_thread_ends_secrets_in_the_order_of_their_time() {
    // Under the real clock: an earlier deadline that comes later wakes the thread; the later one stands.
    let later = filled(Secret::options().expires_in(3600 * SECOND));
    let sooner = filled(Secret::options().expires_in(SECOND));
    let at = sooner.with(<[u8]>::as_ptr).unwrap();

    let patience = Instant::now() + 60 * SECOND;
    while peek(at, 1)[0] != 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }

    assert_eq!(peek(at, 32), [0; 32]);
    assert!(matches!(sooner.with(|_| ()), Err(Error::Expired)));
    assert!(later.with(|_| ()).is_ok());
}
