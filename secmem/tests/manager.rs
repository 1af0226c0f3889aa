//! The manager: what it holds, whom it serves, and that nothing is left of what has ended.

mod common;

use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{in_child, peek};
use secmem::manager::{
    Config, ConfigError, Error, Event, Hash, Id, IdError, Level, Manager, Modality, Template, TemplateError,
    Thresholds, Token, WhenFull,
};
use secmem::{Backend, Secret, TestClock, purge};

const SECOND: Duration = Duration::from_secs(1);
const CONTENT: [u8; 14] = *b"a bearer token";

fn manager(config: Config) -> (Manager, Token) {
    let manager = Manager::new(config).unwrap();
    let owner = manager.owner().unwrap();
    (manager, owner)
}

/// A buffer of 64 bytes with the content, and where that stands.
fn filled(manager: &Manager, owner: &Token) -> (Id, *const u8) {
    let id = manager.allocate(owner, 64, None).unwrap();
    manager.write(owner, &id, &mut CONTENT.clone()).unwrap();
    let at = manager.read(owner, &id, .., <[u8]>::as_ptr).unwrap();
    assert_eq!(peek(at, 14), CONTENT);
    (id, at)
}

fn name(text: &str) -> Id {
    text.parse().unwrap()
}

#[test]
fn what_is_written_is_read_and_the_input_is_wiped() {
    let (manager, owner) = manager(Config::default());
    let id = manager.allocate(&owner, 64, None).unwrap();
    let mut lent = CONTENT;
    let mut grown = Vec::with_capacity(400);
    grown.extend([b'x'; 300]);
    grown.truncate(5);
    let at = grown.as_ptr();

    manager.write(&owner, &id, &mut grown).unwrap();
    let vector = peek(at, 16); // the allocator writes there, but not as many x
    manager.write(&owner, &id, &mut lent).unwrap();

    assert_eq!(manager.read(&owner, &id, .., <[u8]>::to_vec).unwrap(), CONTENT);
    assert_eq!(lent, [0; 14]);
    assert!(grown.is_empty() && !vector.contains(&b'x'));
}

#[test]
fn an_input_is_wiped_where_the_call_fails_too() {
    let (manager, owner) = manager(Config::default());
    let id = manager.allocate(&owner, 4, None).unwrap();
    let mut lent = CONTENT;

    let error = manager.write(&owner, &id, &mut lent).unwrap_err();

    assert!(matches!(error, Error::Capacity { len: 14, capacity: 4 }));
    assert_eq!(lent, [0; 14]);
    assert_eq!(manager.info(&owner, &id).unwrap().len, 0);
}

#[test]
fn shorter_data_leaves_nothing_of_longer_data() {
    let (manager, owner) = manager(Config::default());
    let (id, at) = filled(&manager, &owner);

    manager.write(&owner, &id, &mut *b"abc".to_vec()).unwrap();

    assert_eq!(peek(at, 14), b"abc\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(manager.info(&owner, &id).unwrap().len, 3);
    assert!(matches!(manager.read(&owner, &id, ..4, |_| ()), Err(Error::Bounds { start: 0, end: 4, len: 3 })));
}

#[test]
fn data_that_is_not_brought_to_an_end_is_wiped() {
    let (manager, owner) = manager(Config::default());
    let (id, at) = filled(&manager, &owner);
    let half = |slot: &mut [u8]| {
        slot.fill(7);
        Err(Error::Algorithm)
    };

    assert!(matches!(manager.fill(&owner, &id, 64, half), Err(Error::Algorithm)));

    assert_eq!(peek(at, 64), [0; 64]);
    assert_eq!(manager.info(&owner, &id).unwrap().len, 0);
}

#[test]
fn a_range_that_is_not_within_the_data_is_refused() {
    let (manager, owner) = manager(Config::default());
    let (id, _) = filled(&manager, &owner);
    #[expect(clippy::reversed_empty_ranges, reason = "hostile on purpose")]
    let backwards = 5..3;

    assert_eq!(manager.read(&owner, &id, 2..8, <[u8]>::to_vec).unwrap(), b"bearer");
    assert_eq!(manager.read(&owner, &id, 14.., <[u8]>::len).unwrap(), 0);
    for (start, end, refused) in [
        (5, 3, manager.read(&owner, &id, backwards, |_| ())),
        (15, 14, manager.read(&owner, &id, 15.., |_| ())),
        (0, 15, manager.read(&owner, &id, ..=14, |_| ())),
        (usize::MAX, usize::MAX, manager.read(&owner, &id, usize::MAX..usize::MAX, |_| ())),
    ] {
        assert!(
            matches!(refused, Err(Error::Bounds { start: s, end: e, len: 14 }) if (s, e) == (start, end)),
            "{refused:?}"
        );
    }
}

#[test]
fn a_deallocated_buffer_is_wiped_at_once_and_unknown() {
    let (manager, owner) = manager(Config::default());
    let (id, at) = filled(&manager, &owner);

    manager.deallocate(&owner, &id).unwrap();

    assert_eq!(peek(at, 64), [0; 64]);
    assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::Unknown)));
    assert!(matches!(manager.deallocate(&owner, &id), Err(Error::Unknown)));
    assert_eq!((manager.statistics().live, manager.statistics().bytes), (0, 0));
}

#[test]
fn sizes_and_numbers_over_the_limits_are_errors_and_change_nothing() {
    let (manager, owner) = manager(Config::default().max_buffers(3).max_bytes(100).max_buffer(90));
    let refused = |size| manager.allocate(&owner, size, None).unwrap_err();

    for size in [0, 91, usize::MAX] {
        assert!(matches!(refused(size), Error::Size { len, most: 90 } if len == size));
    }
    manager.allocate(&owner, 90, None).unwrap();
    assert!(matches!(refused(11), Error::Quota { len: 11, most: 100 }));
    manager.allocate(&owner, 4, None).unwrap();
    manager.allocate(&owner, 4, None).unwrap();
    assert!(matches!(refused(1), Error::TooMany { most: 3 }));

    let now = manager.statistics();
    assert_eq!((now.live, now.bytes, now.allocated, now.refused, now.fullness()), (3, 98, 3, 2, 1.0));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let refused = |config| Manager::new(config).unwrap_err();

    assert_eq!(refused(Config::default().max_buffers(0)), ConfigError::Buffers { asked: 0 });
    assert_eq!(refused(Config::default().max_buffers(usize::MAX)), ConfigError::Buffers { asked: usize::MAX });
    assert_eq!(refused(Config::default().max_buffer(0)), ConfigError::Bytes);
    assert_eq!(refused(Config::default().timeout(Duration::ZERO)), ConfigError::Timeout);
}

#[test]
fn a_name_is_given_once_and_again_when_it_is_free() {
    let (manager, owner) = manager(Config::default());
    let id = manager.allocate(&owner, 8, Some(name("session/7"))).unwrap();

    assert!(matches!(manager.allocate(&owner, 8, Some(id.clone())), Err(Error::Duplicate)));
    assert_eq!(manager.statistics().live, 1);
    manager.deallocate(&owner, &id).unwrap();
    assert_eq!(manager.allocate(&owner, 8, Some(id.clone())).unwrap(), id);
    assert_eq!("".parse::<Id>(), Err(IdError::Empty));
}

#[test]
fn a_drawn_name_does_not_reach_the_buffer_that_comes_after_its_own() {
    let (manager, owner) = manager(Config::default().max_buffers(1));
    let (first, _) = filled(&manager, &owner);
    manager.deallocate(&owner, &first).unwrap();
    let (second, _) = filled(&manager, &owner); // in the only place

    assert_ne!(first, second);
    assert!(matches!(manager.read(&owner, &first, .., |_| ()), Err(Error::Unknown)));
    assert!(matches!(manager.deallocate(&owner, &first), Err(Error::Unknown)));
    manager.read(&owner, &second, .., |bytes| assert_eq!(bytes, CONTENT)).unwrap();
}

#[test]
fn a_drawn_name_is_given_again_when_it_is_free_and_not_before_it_is_drawn() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(SECOND));
    let (id, _) = filled(&manager, &owner);
    let given = name(&id.to_string());
    assert!(matches!(manager.allocate(&owner, 8, Some(given.clone())), Err(Error::Duplicate)));

    manager.deallocate(&owner, &id).unwrap();
    manager.allocate(&owner, 8, Some(given.clone())).unwrap();
    let (other, _) = filled(&manager, &owner);
    assert_eq!((manager.info(&owner, &given).unwrap().len, manager.info(&owner, &other).unwrap().len), (0, 14));
    assert!(matches!(manager.allocate(&owner, 8, Some(given.clone())), Err(Error::Duplicate)));

    clock.advance(SECOND);
    for id in [&given, &other] {
        assert!(matches!(manager.info(&owner, id), Err(Error::Expired)));
        manager.allocate(&owner, 8, Some(id.clone())).unwrap();
        assert_eq!(manager.info(&owner, id).unwrap().len, 0);
    }
    let number = u128::from_str_radix(&other.to_string(), 16).unwrap();
    let to_come: Vec<Id> = (4..40).map(|more| name(&format!("{:032x}", number + (more << 20)))).collect();
    for id in &to_come {
        assert!(matches!(manager.allocate(&owner, 8, Some(id.clone())), Err(Error::Duplicate)));
    }
    assert_eq!(manager.statistics().live, 2);
}

#[test]
fn another_token_reaches_nothing_and_is_counted() {
    let (manager, owner) = manager(Config::default());
    let (id, _) = filled(&manager, &owner);
    let (stranger, events) = (manager.owner().unwrap(), manager.events(16).unwrap());
    let own = manager.allocate(&stranger, 64, None).unwrap();
    let before = manager.info(&owner, &id).unwrap();
    let denied = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Denied)), "{result:?}");

    denied(manager.read(&stranger, &id, .., |_| unreachable!()));
    denied(manager.write(&stranger, &id, &mut [1]));
    denied(manager.deallocate(&stranger, &id));
    denied(manager.info(&stranger, &id).map(drop));
    denied(manager.create_secure_hash(&stranger, &id, Hash::Sha256).map(drop));
    denied(manager.secure_compare(&stranger, &own, &id).map(drop));
    denied(manager.copy(&stranger, &id, .., &own));

    assert_eq!(manager.statistics().denied, 7);
    assert!(matches!(events.take(), Some(Event::Allocated { .. })));
    for _ in 0..7 {
        assert_eq!(events.take(), Some(Event::Denied { id: id.clone() }));
    }
    assert_eq!(manager.info(&owner, &id).unwrap().uses, before.uses);
    assert_eq!(manager.read(&owner, &id, .., <[u8]>::to_vec).unwrap(), CONTENT);
}

#[test]
fn a_buffer_that_rests_is_wiped_exactly_at_its_time_and_not_revived() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(5 * SECOND));
    let (id, at) = filled(&manager, &owner);
    let events = manager.events(4).unwrap();

    clock.advance(5 * SECOND - Duration::from_nanos(1));
    assert_eq!(peek(at, 14), CONTENT);
    clock.advance(Duration::from_nanos(1));

    assert_eq!(peek(at, 64), [0; 64], "wiped, and nobody had to ask");
    assert_eq!(events.take(), Some(Event::Expired { id: id.clone() }));
    for _ in 0..2 {
        assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::Expired)));
        assert!(matches!(manager.write(&owner, &id, &mut [1]), Err(Error::Expired)));
        assert!(matches!(manager.info(&owner, &id), Err(Error::Expired)));
    }
    let now = manager.statistics();
    assert_eq!((now.live, now.bytes, now.expired, now.never_freed()), (0, 0, 1, 1));
    assert_eq!(events.take(), None);
}

#[test]
fn use_puts_the_time_out_off_and_looking_at_metadata_does_not() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(5 * SECOND));
    let ((used, _), (seen, _)) = (filled(&manager, &owner), filled(&manager, &owner));

    for _ in 0..2 {
        clock.advance(3 * SECOND);
        manager.read(&owner, &used, .., |_| ()).unwrap();
        let _ = manager.info(&owner, &seen);
    }

    assert!(manager.info(&owner, &used).is_ok());
    assert!(matches!(manager.info(&owner, &seen), Err(Error::Expired)));
}

#[test]
fn a_lifetime_ends_a_buffer_that_is_used_all_the_time() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(None).lifetime(3 * SECOND));
    let (id, at) = filled(&manager, &owner);

    for _ in 0..3 {
        manager.read(&owner, &id, .., |_| ()).unwrap();
        clock.advance(SECOND);
    }

    assert_eq!(peek(at, 64), [0; 64]);
    assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::Expired)));
}

#[test]
fn the_thread_of_the_deadlines_ends_a_buffer_and_tells_it() {
    let (manager, owner) = manager(Config::default().timeout(Duration::from_millis(300)));
    let events = manager.events(4).unwrap();
    let id = manager.allocate(&owner, 64, None).unwrap();

    assert_eq!(events.take(), Some(Event::Allocated { id: id.clone(), size: 64 }));
    assert_eq!(events.wait(Duration::from_secs(60)), Some(Event::Expired { id: id.clone() }));
    assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::Expired)));
}

#[test]
fn a_name_whose_buffer_has_expired_can_be_given_again() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(SECOND));
    let id = manager.allocate(&owner, 8, Some(name("again"))).unwrap();

    clock.advance(SECOND);
    manager.allocate(&owner, 8, Some(id.clone())).unwrap();

    assert_eq!(manager.info(&owner, &id).unwrap().len, 0);
    clock.advance(SECOND);
    assert!(matches!(manager.info(&owner, &id), Err(Error::Expired)));
}

#[test]
fn a_cleanup_ends_what_is_over_and_a_forced_one_everything_and_says_so() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(SECOND));
    let (id, at) = filled(&manager, &owner);
    let stranger = manager.owner().unwrap();
    let (others, other_at) = filled(&manager, &stranger);
    let events = manager.events(4).unwrap();

    let gentle = manager.cleanup_expired().unwrap();
    assert_eq!((gentle.buffers, gentle.bytes, gentle.forced), (0, 0, false));
    assert_eq!(peek(at, 14), CONTENT);
    let forced = manager.cleanup_forced().unwrap();

    assert_eq!((forced.buffers, forced.bytes, forced.forced), (2, 128, true));
    assert_eq!((peek(at, 64), peek(other_at, 64)), (vec![0; 64], vec![0; 64]));
    assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::CleanedUp)));
    assert!(matches!(manager.read(&stranger, &others, .., |_| ()), Err(Error::CleanedUp)));
    assert_eq!(events.take(), Some(Event::WipedAll { buffers: 2, bytes: 128, shutdown: false }));
    assert!(manager.allocate(&owner, 8, None).is_ok(), "the manager goes on");
}

#[test]
fn a_shutdown_wipes_everything_and_names_what_nobody_freed() {
    let (manager, owner) = manager(Config::default());
    let (freed, _) = filled(&manager, &owner);
    let (left, at) = filled(&manager, &owner);
    manager.deallocate(&owner, &freed).unwrap();

    let leftover = manager.shutdown().unwrap();

    assert_eq!(leftover.iter().map(|info| &info.id).collect::<Vec<_>>(), [&left]);
    assert_eq!(peek(at, 64), [0; 64]);
    let now = manager.statistics();
    assert_eq!((now.live, now.leftover, now.never_freed()), (0, 1, 1));
    assert!(matches!(manager.read(&owner, &left, .., |_| ()), Err(Error::Shutdown)));
    assert!(matches!(manager.allocate(&owner, 8, None), Err(Error::Shutdown)));
    assert!(matches!(manager.owner(), Err(Error::Shutdown)));
    assert!(matches!(manager.cleanup_forced(), Err(Error::Shutdown)));
    assert!(manager.shutdown().unwrap().is_empty());
}

#[test]
fn the_last_handle_takes_the_buffers_along() {
    let (manager, owner) = manager(Config::default());
    let (_, at) = filled(&manager, &owner);

    drop(manager);

    assert_eq!(peek(at, 64), [0; 64]);
}

#[test]
fn buffers_that_rest_are_found_before_anybody_ends_them() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(60 * SECOND));
    let (id, _) = filled(&manager, &owner);
    clock.advance(10 * SECOND);
    let (_young, _) = filled(&manager, &owner);

    let forgotten = manager.never_freed(10 * SECOND).unwrap();

    assert_eq!(forgotten.len(), 1);
    assert_eq!((&forgotten[0].id, forgotten[0].idle, forgotten[0].uses), (&id, 10 * SECOND, 2));
    assert_eq!(manager.never_freed(Duration::ZERO).unwrap().len(), 2);
}

#[test]
fn a_purge_of_the_process_ends_buffers_and_the_manager_says_it() {
    let ended = in_child(|| {
        let (manager, owner) = manager(Config::default());
        let (id, at) = filled(&manager, &owner);

        purge::purge_all();

        assert_eq!(peek(at, 64), [0; 64]);
        assert!(matches!(manager.read(&owner, &id, .., |_| ()), Err(Error::Purged)));
        assert_eq!((manager.statistics().live, manager.statistics().purged), (0, 1));
        assert!(manager.allocate(&owner, 8, Some(id)).is_ok());
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_forked_child_gets_an_error_for_everything() {
    let ended = in_child(|| {
        let (manager, owner) = manager(Config::default());
        let (id, _) = filled(&manager, &owner);

        let status = common::fork(|| {
            let forked = |result: Result<(), Error>| matches!(result, Err(Error::Forked));
            let all = forked(manager.allocate(&owner, 8, None).map(drop))
                && forked(manager.write(&owner, &id, &mut [1]))
                && forked(manager.read(&owner, &id, .., |_| ()))
                && forked(manager.deallocate(&owner, &id))
                && forked(manager.info(&owner, &id).map(drop))
                && forked(manager.cleanup_forced().map(drop))
                && forked(manager.never_freed(SECOND).map(drop))
                && forked(manager.events(1).map(drop))
                && forked(manager.shutdown().map(drop))
                && forked(manager.execute_with_secure_data(&owner, &mut [1], |_| ()));
            i32::from(!all)
        });

        assert_eq!(status, 0);
        assert_eq!(manager.read(&owner, &id, .., <[u8]>::to_vec).unwrap(), CONTENT);
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn an_operation_works_on_the_data_in_place_and_leaves_none() {
    let (manager, owner) = manager(Config::default().max_buffers(1));
    let mut input = CONTENT;

    let (at, sum) = manager
        .execute_with_secure_data(&owner, &mut input, |data| {
            data.reverse();
            (data.as_ptr().addr(), data.iter().map(|&byte| u32::from(byte)).sum::<u32>())
        })
        .unwrap();

    assert_eq!(sum, CONTENT.iter().map(|&byte| u32::from(byte)).sum::<u32>());
    assert_eq!((peek(at as *const u8, 14), input), (vec![0; 14], [0; 14]));
    let now = manager.statistics();
    assert_eq!((now.live, now.allocated, now.deallocated), (0, 1, 1));
}

#[test]
fn an_operation_that_panics_is_an_error_and_leaves_no_data() {
    let (manager, owner) = manager(Config::default());
    let mut at = 0;

    let refused = manager.execute_with_secure_data(&owner, CONTENT.to_vec(), |data| {
        at = data.as_ptr().addr();
        panic!("on purpose");
    });

    assert!(matches!(refused, Err::<(), _>(Error::Panicked)));
    assert_eq!(peek(at as *const u8, 14), [0; 14]);
    assert_eq!(manager.statistics().live, 0);
}

#[test]
fn an_operation_has_no_more_places_than_others() {
    let (manager, owner) = manager(Config::default().max_buffers(1));
    manager.allocate(&owner, 8, None).unwrap();
    let mut input = CONTENT;

    let refused = manager.execute_with_secure_data(&owner, &mut input, |_| unreachable!());

    assert!(matches!(refused, Err::<(), _>(Error::TooMany { most: 1 })));
    assert_eq!(input, [0; 14]);
}

#[test]
fn a_hash_is_that_of_the_data_and_not_of_the_capacity() {
    let (manager, owner) = manager(Config::default());
    let hash = |capacity| {
        let id = manager.allocate(&owner, capacity, None).unwrap();
        manager.write(&owner, &id, b"abc".to_vec()).unwrap();
        manager.create_secure_hash(&owner, &id, Hash::Sha256).unwrap().to_string()
    };

    assert_eq!(hash(3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(hash(64), hash(3));
    assert_eq!(hash(5000), hash(3));
}

#[test]
fn a_comparison_goes_by_the_data_and_not_by_the_capacity() {
    let (manager, owner) = manager(Config::default());
    let buffer = |capacity, data: &[u8]| {
        let id = manager.allocate(&owner, capacity, None).unwrap();
        manager.write(&owner, &id, data.to_vec()).unwrap();
        id
    };
    let (abc, wide, zero, other) = (buffer(3, b"abc"), buffer(900, b"abc"), buffer(4, b"abc\0"), buffer(3, b"abd"));

    let same = |a: &Id, b: &Id| manager.secure_compare(&owner, a, b).unwrap();
    assert!(same(&abc, &wide) && same(&wide, &abc) && same(&abc, &abc));
    assert!(!same(&abc, &zero) && !same(&abc, &other) && !same(&wide, &other));
}

#[test]
fn data_goes_from_slot_to_slot() {
    let (manager, owner) = manager(Config::default());
    let (from, _) = filled(&manager, &owner);
    let to = manager.allocate(&owner, 10, None).unwrap();

    manager.copy(&owner, &from, 2..8, &to).unwrap();
    let secret = manager.read_secret(&owner, &from, ..1, Secret::options().backend(Backend::Mlock)).unwrap();

    assert_eq!(manager.read(&owner, &to, .., <[u8]>::to_vec).unwrap(), b"bearer");
    assert!(secret.with(|bytes| bytes == b"a").unwrap());
    assert!(matches!(manager.copy(&owner, &from, .., &to), Err(Error::Capacity { len: 14, capacity: 10 })));
    assert!(matches!(manager.copy(&owner, &from, .., &from), Err(Error::Busy)));
}

#[test]
fn within_a_closure_nothing_waits() {
    let (manager, owner) = manager(Config::default());
    let (id, _) = filled(&manager, &owner);
    let (other, _) = filled(&manager, &owner);

    manager
        .read(&owner, &id, .., |_| {
            assert!(matches!(manager.write(&owner, &id, &mut [1]), Err(Error::Busy)));
            manager.read(&owner, &id, .., |_| ()).unwrap();
            manager.write(&owner, &other, &mut [1]).unwrap();
            manager.deallocate(&owner, &other).unwrap();
        })
        .unwrap();

    assert!(manager.write(&owner, &id, &mut [1]).is_ok());
}

#[test]
fn a_buffer_that_is_ended_under_an_access_is_wiped_when_that_ends() {
    let (manager, owner) = manager(Config::default());
    let (id, at) = filled(&manager, &owner);

    manager
        .read(&owner, &id, .., |bytes| {
            manager.deallocate(&owner, &id).unwrap();
            assert_eq!(bytes, CONTENT);
        })
        .unwrap();

    assert_eq!(peek(at, 64), [0; 64]);
}

#[test]
fn many_threads_make_write_read_and_end_buffers() {
    let (manager, owner) = manager(Config::default().max_buffers(64));
    let start = Barrier::new(4);

    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (manager, owner, start) = (&manager, &owner, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..500_u16 {
                    let id = manager.allocate(owner, 1 + usize::from(round) % 300, None).unwrap();
                    manager.write(owner, &id, &mut [thread]).unwrap();
                    assert_eq!(manager.read(owner, &id, .., |bytes| bytes[0]).unwrap(), thread);
                    let _ = manager.statistics();
                    manager.deallocate(owner, &id).unwrap();
                }
            });
        }
    });

    let now = manager.statistics();
    assert_eq!((now.live, now.bytes, now.allocated, now.deallocated), (0, 0, 2000, 2000));
}

#[test]
fn the_buffer_that_rests_the_longest_makes_room_and_none_that_is_in_use() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).max_buffers(2).when_full(WhenFull::EvictIdle));
    let ((old, at), (used, _)) = (filled(&manager, &owner), filled(&manager, &owner));
    clock.advance(SECOND);
    manager.read(&owner, &used, .., |_| ()).unwrap();
    let events = manager.events(4).unwrap();

    let third = manager.allocate(&owner, 200, None).unwrap();

    assert_eq!(peek(at, 64), [0; 64]);
    assert_eq!(events.take(), Some(Event::Evicted { id: old.clone() }));
    assert!(matches!(manager.read(&owner, &old, .., |_| ()), Err(Error::Evicted)));
    assert_eq!((manager.statistics().evicted, manager.statistics().live), (1, 2));
    let within_both = manager
        .read(&owner, &used, .., |_| manager.read(&owner, &third, .., |_| manager.allocate(&owner, 8, None)).unwrap());
    assert!(matches!(within_both.unwrap(), Err(Error::TooMany { most: 2 })));
    assert!(manager.info(&owner, &used).is_ok() && manager.info(&owner, &third).is_ok());
}

#[test]
fn pressure_is_told_when_it_changes_and_not_again() {
    let (manager, owner) =
        manager(Config::default().max_buffers(10).thresholds(Thresholds { shares: (0.3, 0.5), stalled: (1.0, 1.0) }));
    let events = manager.events(64).unwrap();
    let ids: Vec<Id> = (0..6).map(|_| manager.allocate(&owner, 8, None).unwrap()).collect();
    ids.iter().for_each(|id| manager.deallocate(&owner, id).unwrap());

    let mut told = Vec::new();
    while let Some(event) = events.take() {
        if let Event::Pressure { level, buffers, .. } = event {
            told.push((level, buffers));
        }
    }

    assert_eq!(told, [(Level::High, 3), (Level::Critical, 5)]);
}

#[test]
fn what_is_measured_is_between_nothing_and_everything() {
    let (manager, _) = manager(Config::default());

    let pressure = manager.pressure().unwrap();

    assert_eq!(pressure.places, 0.0);
    assert!(pressure.stalled.is_none_or(|share| (0.0..=1.0).contains(&share)), "{pressure:?}");
    assert!(pressure.lock.is_none_or(|lock| lock.used <= lock.limit), "{pressure:?}");
    assert!(pressure.group.is_none_or(|group| group.limit > 0), "{pressure:?}");
}

#[test]
fn a_lock_budget_that_is_nearly_used_up_is_pressure_and_lets_nothing_be_made() {
    let ended = in_child(|| {
        common::limit_locked_memory(64 << 10);
        let policy = Backend::Mlock;
        let (manager, owner) = manager(Config::default().policy(policy));
        let events = manager.events(8).unwrap();
        assert_eq!(manager.pressure().unwrap().lock.map(|lock| (lock.used, lock.limit)), Some((0, 64 << 10)));
        manager.allocate(&owner, 8, None).unwrap(); // takes a whole arena

        let pressure = manager.pressure().unwrap();

        assert!(pressure.lock.unwrap().share() >= 0.95, "{pressure:?}");
        assert!(matches!(manager.allocate(&owner, 8, None), Err(Error::Pressure)));
        let told: Vec<_> = std::iter::from_fn(|| events.take()).collect();
        assert!(told.iter().any(|it| matches!(it, Event::Pressure { level: Level::Critical, .. })), "{told:?}");
        assert_eq!(told.last(), Some(&Event::Refused { size: 8 }));
    });

    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_thread_looks_until_the_manager_is_gone() {
    let (manager, _) = manager(Config::default());
    manager.watch_pressure(Duration::from_millis(20)).unwrap();
    let named = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
        tasks.filter_map(name).any(|name| name.trim() == "secmem-pressure")
    };
    let until = |there: bool| {
        let patience = Instant::now() + Duration::from_secs(60);
        while named() != there && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        named() == there
    };
    assert!(until(true));

    drop(manager);

    assert!(until(false));
}

/// A template whose number and text are told by their places.
fn template() -> (Template, [*const u8; 2]) {
    let mut samples = Vec::with_capacity(100);
    samples.extend([1.25; 60]);
    samples.truncate(40); // more in its capacity than in its length
    let name = "n".repeat(300);
    let places = [samples.as_ptr().cast(), name.as_ptr()];
    (Template { modality: Modality::Face, quality: 0.75, samples, metadata: vec![(name, "left".to_owned())] }, places)
}

#[test]
fn a_template_is_kept_in_a_buffer_alone_and_wiped_where_it_came_from() {
    let (manager, owner) = manager(Config::default());
    let (template, [samples, text]) = template();

    let id = manager.keep_secure_biometric(&owner, template, None).unwrap();

    // The allocator writes its links into the first bytes of what it got back.
    let number = 1.25_f64.to_le_bytes();
    assert!(peek(samples, 480)[16..].chunks(8).all(|it| it != number));
    assert!(!peek(text, 300)[16..].contains(&b'n'));
    let sum = manager.read_secure_biometric(&owner, &id, |view| {
        assert_eq!((view.modality(), view.quality()), (Modality::Face, 0.75));
        assert!(view.metadata().all(|(name, value)| name.len() == 300 && value == "left"));
        view.samples().sum::<f64>()
    });
    assert_eq!(sum.unwrap(), 50.0);
    manager.write(&owner, &id, &mut [1, 2, 3]).unwrap();
    let refused = manager.read_secure_biometric(&owner, &id, |_| ());
    assert!(matches!(refused, Err(Error::Template(TemplateError::Damaged))));
}

#[test]
fn a_template_is_processed_and_nothing_of_it_stays() {
    let (manager, owner) = manager(Config::default());

    let (at, quality) = manager
        .process_secure_biometric(&owner, template().0, |view| {
            let name = view.metadata().next().map(|(name, _)| name.as_ptr().addr());
            (name.unwrap(), view.quality())
        })
        .unwrap();

    assert_eq!(quality, 0.75);
    assert!(!peek(at as *const u8, 300).contains(&b'n'));
    assert_eq!(manager.statistics().live, 0);
}

#[test]
fn a_template_that_measures_nothing_is_refused_and_wiped() {
    let (manager, owner) = manager(Config::default());
    let (mut template, [_, text]) = template();
    template.samples[7] = f64::NAN;

    let refused = manager.keep_secure_biometric(&owner, template, None);

    assert!(matches!(refused, Err(Error::Template(TemplateError::Sample { at: 7 }))));
    assert!(!peek(text, 300)[16..].contains(&b'n'));
    assert_eq!(manager.statistics().live, 0);
}

#[test]
fn who_does_not_take_events_loses_the_oldest_and_sees_it() {
    let (manager, owner) = manager(Config::default());
    let events = manager.events(2).unwrap();
    let ids: Vec<Id> = (0..5).map(|_| manager.allocate(&owner, 8, None).unwrap()).collect();

    assert_eq!(events.take(), Some(Event::Allocated { id: ids[3].clone(), size: 8 }));
    assert_eq!(events.lost(), 3);
}

#[test]
fn ages_are_told_without_a_buffer_in_hand() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock));
    assert_eq!(manager.statistics().oldest, None);
    manager.allocate(&owner, 8, None).unwrap();
    clock.advance(4 * SECOND);
    manager.allocate(&owner, 8, None).unwrap();
    clock.advance(SECOND);

    let now = manager.statistics();

    assert_eq!((now.oldest, now.newest, now.average_age), (Some(5 * SECOND), Some(SECOND), Some(3 * SECOND)));
}

#[test]
fn statistics_keep_nobody_waiting_and_wait_for_nobody() {
    let (manager, owner) = manager(Config::default());
    let (id, _) = filled(&manager, &owner);
    let (told, tell) = mpsc::channel();

    manager
        .fill::<Error>(&owner, &id, 1, |_| {
            // A writer is within.
            thread::scope(|scope| _ = scope.spawn(|| told.send(manager.statistics().live).unwrap()));
            assert_eq!(tell.recv_timeout(Duration::from_secs(60)), Ok(1));
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_error_and_no_debug_shows_content() {
    let (manager, owner) = manager(Config::default());
    let (id, _) = filled(&manager, &owner);
    let refused = manager.write(&owner, &id, b"sesam".repeat(20)).unwrap_err();

    for text in
        [format!("{refused} {refused:?}"), format!("{manager:?} {owner:?}"), format!("{:?}", manager.info(&owner, &id))]
    {
        assert!(!text.contains("sesam") && !text.contains("bearer"), "{text}");
    }
}

#[test]
fn ten_thousand_buffers_that_are_due_at_once_all_end() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().max_buffers(10_000).clock(clock).timeout(SECOND));
    for _ in 0..10_000 {
        manager.allocate(&owner, 32, None).unwrap();
    }
    assert_eq!(manager.statistics().live, 10_000);

    let begin = Instant::now();
    clock.advance(SECOND);

    eprintln!("10 000 buffers ended and told in {:?}", begin.elapsed()); // for who runs it; nothing depends on it
    assert_eq!((manager.statistics().live, manager.statistics().expired), (0, 10_000));
}

#[test]
fn a_request_that_cannot_be_met_costs_no_other_buffer() {
    let config = Config::default().max_bytes(1000).max_buffers(10).when_full(WhenFull::EvictIdle);
    let (manager, owner) = manager(config.max_buffer(usize::MAX >> 1));
    let ids: Vec<Id> = (0..10).map(|_| filled(&manager, &owner).0).collect();

    assert!(matches!(manager.allocate(&owner, 2000, None), Err(Error::Quota { .. })));
    assert!(matches!(manager.allocate(&owner, 8, Some(ids[3].clone())), Err(Error::Duplicate)));

    assert_eq!((manager.statistics().live, manager.statistics().evicted), (10, 0));
    // 640 bytes are taken: so many go as make room, and no more.
    assert!(manager.allocate(&owner, 400, None).is_ok());
    assert_eq!((manager.statistics().live, manager.statistics().evicted), (10, 1));
}

#[test]
fn what_the_kernel_refuses_costs_no_more_than_it_would_need() {
    let ended = in_child(|| {
        let config = Config::default().policy(Backend::Mlock).max_bytes(usize::MAX).max_buffer(usize::MAX);
        let (manager, owner) = manager(config.when_full(WhenFull::EvictIdle));
        (0..100).for_each(|_| _ = filled(&manager, &owner));
        common::limit_locked_memory(4 << 20);

        assert!(matches!(manager.allocate(&owner, 640 + (5 << 20), None), Err(Error::Memory(_))));
        let evicted = manager.statistics().evicted;
        assert!(evicted <= 100, "{evicted}"); // as many bytes as all of them have would not do
        let (manager, owner) = self::manager(Config::default().max_buffer(usize::MAX).max_bytes(usize::MAX));
        let (id, _) = filled(&manager, &owner);
        assert!(matches!(manager.allocate(&owner, 8 << 40, None), Err(Error::Memory(_))));
        assert!(manager.info(&owner, &id).is_ok());
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn of_two_that_are_compared_the_one_that_is_over_ends_and_not_the_other() {
    let clock = TestClock::new();
    let (manager, owner) = manager(Config::default().clock(clock).timeout(10 * SECOND));
    let (old, _) = filled(&manager, &owner);
    clock.advance(9 * SECOND);
    let (young, at) = filled(&manager, &owner);
    clock.advance(2 * SECOND);

    assert!(matches!(manager.secure_compare(&owner, &young, &old), Err(Error::Expired)));
    assert_eq!(peek(at, 14), CONTENT);
    assert!(matches!(manager.secure_compare(&owner, &old, &young), Err(Error::Expired)));
    assert!(manager.secure_compare(&owner, &young, &young).unwrap());
}

#[test]
fn a_comparison_waits_for_who_writes() {
    let (manager, owner) = manager(Config::default());
    let (a, b) = (filled(&manager, &owner).0, filled(&manager, &owner).0);
    std::thread::scope(|scope| {
        for id in [&a, &b] {
            let (manager, owner) = (&manager, &owner);
            scope.spawn(move || (0..2000).for_each(|_| manager.write(owner, id, &mut CONTENT.clone()).unwrap()));
        }
        for (a, b) in [(&a, &b), (&b, &a)] {
            let (manager, owner) = (&manager, &owner);
            scope.spawn(move || (0..2000).for_each(|_| assert!(manager.secure_compare(owner, a, b).unwrap())));
        }
    });
}

#[test]
fn what_a_purge_has_ended_takes_no_place() {
    let ended = in_child(|| {
        let (manager, owner) = manager(Config::default().max_buffers(3));
        let ids = [(); 3].map(|()| filled(&manager, &owner).0);

        purge::purge_all();

        assert_eq!((manager.statistics().live, manager.statistics().purged), (0, 3));
        assert!(matches!(manager.info(&owner, &ids[0]), Err(Error::Purged)));
        (0..3).for_each(|_| _ = filled(&manager, &owner));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn who_no_longer_listens_keeps_nothing() {
    let (manager, owner) = manager(Config::default());
    drop(manager.events(usize::MAX).unwrap());
    let events = manager.events(4).unwrap();
    assert_eq!(events.wait(Duration::ZERO), None);
    let (id, _) = filled(&manager, &owner);
    assert!(matches!(events.wait(Duration::MAX), Some(Event::Allocated { id: it, .. }) if it == id));
}

#[test]
fn a_buffer_of_any_length_is_hashed() {
    let (manager, owner) = manager(Config::default());
    for len in [0, 1, 1024, 1025, 4096, 100_000, 1 << 20] {
        let id = manager.allocate(&owner, len.max(1), None).unwrap();
        manager.write(&owner, &id, vec![7; len]).unwrap();
        for name in ["sha-256", "sha-384", "sha-512", "sha3-256", "sha3-384", "sha3-512", "blake3"] {
            let hash: Hash = name.parse().unwrap();
            assert!(manager.create_secure_hash(&owner, &id, hash).is_ok(), "{name} {len}");
        }
        manager.deallocate(&owner, &id).unwrap();
    }
}
