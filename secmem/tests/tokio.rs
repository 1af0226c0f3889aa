//! Operations as futures: what they give, and what a dropped one leaves.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::pieces::{pattern, pieces};
use common::{in_child, peek};
use secmem::manager::{Config, Error, Hash, Manager, Modality, Operation, Template, Token};
use secmem::{Backend, TestClock};
use tokio::runtime::{Builder, Runtime};

const CONTENT: [u8; 14] = *b"a bearer token";
const NONE: [usize; 0] = [];

fn manager() -> (Manager, Token) {
    let manager = Manager::new(Config::default().policy(Backend::Mlock)).unwrap();
    let owner = manager.owner().unwrap();
    (manager, owner)
}

/// One thread for what blocks, so that a second operation has to wait.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).enable_time().build().unwrap()
}

/// What the search of this process's memory knows.
fn known() -> Vec<u8> {
    (0..64).map(pattern).collect()
}

/// Whether it stands there, found out without a copy of it.
fn known_at(at: *const u8) -> bool {
    (0..64).all(|byte| peek(at.wrapping_add(byte), 1) == [pattern(byte)])
}

/// Keeps a runtime's thread for what blocks, until it is told to end.
fn occupy(runtime: &Runtime) -> Sender<()> {
    let (end, ends) = mpsc::channel::<()>();
    let (began, begins) = mpsc::channel();
    runtime.spawn_blocking(move || {
        began.send(()).unwrap();
        let _ = ends.recv();
    });
    begins.recv().unwrap();
    end
}

/// An operation that says where its data is, and then waits.
fn operation_that_waits(
    manager: &Manager,
    owner: &Token,
    data: Vec<u8>,
) -> (Operation<()>, Receiver<usize>, Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let operation = manager.execute_with_secure_data_async(owner, data, move |data| {
        tell.send(data.as_ptr().addr()).unwrap();
        let _ = ends.recv();
    });
    (operation, told, end)
}

/// Waits for what another thread is to do.
fn until(done: impl Fn() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(2));
    }
    done()
}

/// A first poll, as a runtime makes it.
fn begin<R: Send + 'static>(operation: &mut Operation<R>) {
    let poll = pin!(operation).poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending());
}

#[test]
fn an_operation_works_on_the_data_in_place_and_leaves_none() {
    let (manager, owner) = manager();
    let mut input = CONTENT;

    let operation = manager.execute_with_secure_data_async(&owner, &mut input, |data| {
        data.reverse();
        (data.as_ptr().addr(), data[0])
    });
    assert_eq!(input, [0; 14], "the input is wiped before anybody polls");
    let (at, first) = runtime().block_on(operation).unwrap();

    assert_eq!((first, peek(at as *const u8, 14)), (b'n', vec![0; 14]));
    let now = manager.statistics();
    assert_eq!((now.live, now.allocated, now.deallocated), (0, 1, 1));
}

#[test]
fn hashes_templates_and_cleanups_do_what_they_do_without_a_runtime() {
    let (runtime, clock) = (runtime(), TestClock::new());
    let manager = Manager::new(Config::default().clock(clock).timeout(Duration::from_secs(5))).unwrap();
    let owner = manager.owner().unwrap();
    let id = manager.allocate(&owner, 64, None).unwrap();
    manager.write(&owner, &id, b"abc".to_vec()).unwrap();
    let template =
        |quality| Template { modality: Modality::Voice, quality, samples: vec![1.5; 30], metadata: Vec::new() };
    let sum = |template| {
        let sum = manager.process_secure_biometric_async(&owner, template, |view| view.samples().sum::<f64>());
        runtime.block_on(sum)
    };

    let digest = runtime.block_on(manager.create_secure_hash_async(&owner, &id, Hash::Sha256)).unwrap();
    assert_eq!(digest, manager.create_secure_hash(&owner, &id, Hash::Sha256).unwrap());
    assert_eq!(sum(template(0.5)).unwrap(), 45.0);
    assert!(matches!(sum(template(2.0)), Err(Error::Template(_))));
    assert_eq!(runtime.block_on(manager.cleanup_expired_async()).unwrap().buffers, 0);
    assert_eq!(runtime.block_on(manager.cleanup_forced_async()).unwrap().buffers, 1);
    let stranger = manager.owner().unwrap();
    let id = manager.allocate(&owner, 8, None).unwrap();
    let denied = runtime.block_on(manager.create_secure_hash_async(&stranger, &id, Hash::Blake3));
    assert!(matches!(denied, Err(Error::Denied)));
    manager.shutdown().unwrap();
    assert!(matches!(sum(template(0.5)), Err(Error::Shutdown)));
    assert!(matches!(runtime.block_on(manager.cleanup_forced_async()), Err(Error::Shutdown)));
}

#[test]
fn a_future_that_nobody_has_polled_leaves_nothing_when_it_is_dropped() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let operation = manager.execute_with_secure_data_async(&owner, known(), |_| unreachable!());
        assert_eq!((pieces().len() > 40, manager.statistics().live), (true, 1), "the search finds what is there");

        drop::<Operation<()>>(operation);

        assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_future_that_is_dropped_while_it_waits_for_a_thread_leaves_nothing_and_never_runs() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = runtime();
        let end = occupy(&runtime);
        let captured = Arc::new(());
        let (theirs, ran) = (Arc::clone(&captured), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&ran);

        runtime.block_on(async {
            let mut operation = manager.execute_with_secure_data_async(&owner, known(), move |_| {
                let _theirs = theirs;
                count.fetch_add(1, Ordering::SeqCst);
            });
            begin(&mut operation);
            assert!(pieces().len() > 40, "the search finds what is there");

            drop(operation);

            // The thread for it is kept all the while.
            assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
            assert_eq!(Arc::strong_count(&captured), 1, "what it was to use is gone");
        });
        end.send(()).unwrap();
        drop(runtime); // waits for the thread
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_future_that_is_dropped_while_it_runs_leaves_nothing_when_the_operation_ends() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = runtime();
        let (mut operation, told, end) = operation_that_waits(&manager, &owner, known());

        let at = runtime.block_on(async {
            begin(&mut operation);
            let at = told.recv().unwrap() as *const u8;
            let timed_out = tokio::time::timeout(Duration::from_millis(20), operation).await;
            assert!(timed_out.is_err());
            at
        });

        // It still runs, on data that nobody takes from under it.
        assert_eq!((known_at(at), manager.statistics().live), (true, 0));
        end.send(()).unwrap();
        assert!(until(|| peek(at, 8) == [0; 8]));
        drop(runtime);
        assert_eq!(pieces(), NONE);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn data_is_wiped_when_the_operation_ends_and_not_when_somebody_polls_again() {
    let (manager, owner) = manager();
    let runtime = runtime();
    let (mut operation, told, end) = operation_that_waits(&manager, &owner, CONTENT.to_vec());

    runtime.block_on(async {
        begin(&mut operation);
        let at = told.recv().unwrap() as *const u8;
        assert_eq!(peek(at, 14), CONTENT);
        end.send(()).unwrap();

        assert!(until(|| peek(at, 14) == [0; 14]));
        operation.await.unwrap();
    });
    assert_eq!((manager.statistics().live, manager.statistics().deallocated), (0, 1));
}

#[test]
fn the_one_that_loses_a_race_leaves_nothing() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = Builder::new_multi_thread().worker_threads(1).max_blocking_threads(2).build().unwrap();
        let (slow, told, end) = operation_that_waits(&manager, &owner, known());
        let fast = manager.execute_with_secure_data_async(&owner, CONTENT.to_vec(), move |data| {
            told.recv().unwrap(); // the other one runs
            data.len()
        });

        let won = runtime.block_on(async {
            tokio::select! {
                _ = slow => panic!("it waits"),
                len = fast => len.unwrap(),
            }
        });
        assert!(won == 14 && pieces().len() > 40);
        end.send(()).unwrap();

        drop(runtime);
        assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn an_operation_that_panics_is_an_error_and_leaves_no_data() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = runtime();
        let panics = || manager.execute_with_secure_data_async(&owner, known(), |_| -> () { panic!("on purpose") });

        assert!(matches!(runtime.block_on(panics()), Err(Error::Panicked)));

        assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
        let next = manager.execute_with_secure_data_async(&owner, CONTENT.to_vec(), |data| data.len());
        assert_eq!(runtime.block_on(next).unwrap(), 14, "the thread goes on");
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_runtime_that_is_shut_down_leaves_nothing_of_what_waits_and_waits_for_what_runs() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = runtime();
        let (running, told, end) = operation_that_waits(&manager, &owner, known());
        let waiting: Operation<()> =
            manager.execute_with_secure_data_async(&owner, CONTENT.to_vec(), |_| unreachable!());
        runtime.spawn(running);
        let at = told.recv().unwrap() as *const u8;
        runtime.spawn(waiting);

        runtime.shutdown_background();

        assert!(until(|| manager.statistics().live == 0));
        assert!(known_at(at), "it still runs");
        end.send(()).unwrap();
        assert!(until(|| peek(at, 8) == [0; 8]));
        assert_eq!(pieces(), NONE);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_runtime_that_is_gone_runs_nothing_and_no_data_is_left() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let mut operation = pin!(manager.execute_with_secure_data_async(&owner, known(), |_| unreachable!()));
        drop(runtime);

        let _within = handle.enter();
        let poll: Poll<Result<(), _>> = operation.as_mut().poll(&mut Context::from_waker(Waker::noop()));

        assert!(matches!(poll, Poll::Ready(Err(Error::Runtime))), "{poll:?}");
        assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn without_a_runtime_it_is_an_error_and_leaves_no_data() {
    let ended = in_child(|| {
        let (manager, owner) = manager();
        let mut operation = pin!(manager.execute_with_secure_data_async(&owner, known(), |_| unreachable!()));

        let poll: Poll<Result<(), _>> = operation.as_mut().poll(&mut Context::from_waker(Waker::noop()));

        assert!(matches!(poll, Poll::Ready(Err(Error::Runtime))));
        assert_eq!((pieces().as_slice(), manager.statistics().live), (&NONE[..], 0));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn what_waits_can_be_cleaned_up_like_any_other_buffer() {
    let (manager, owner) = manager();
    let operation = manager.execute_with_secure_data_async(&owner, CONTENT.to_vec(), |_| unreachable!());

    assert_eq!(manager.cleanup_forced().unwrap().buffers, 1);

    assert!(matches!(runtime().block_on(operation), Err::<(), _>(Error::CleanedUp)));
}

#[test]
fn an_operation_has_no_more_places_than_others_and_its_input_is_wiped() {
    let manager = Manager::new(Config::default().max_buffers(1)).unwrap();
    let owner = manager.owner().unwrap();
    let _waits = manager.execute_with_secure_data_async(&owner, CONTENT.to_vec(), |_| ());
    let mut input = CONTENT;

    let refused = manager.execute_with_secure_data_async(&owner, &mut input, |_| ());

    assert_eq!(input, [0; 14]);
    assert!(matches!(runtime().block_on(refused), Err(Error::TooMany { most: 1 })));
}

#[test]
fn many_tasks_run_operations_and_some_give_up() {
    let (manager, owner) = manager();
    let runtime = Builder::new_multi_thread().worker_threads(2).max_blocking_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..60_u64)
            .map(|task| {
                let operation = manager.execute_with_secure_data_async(&owner, vec![7; 100], |data| data.len());
                tokio::spawn(async move {
                    // Who has no result has given up.
                    if let Ok(len) = tokio::time::timeout(Duration::from_micros(task * 30), operation).await {
                        assert_eq!(len.unwrap(), 100);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    drop(runtime);
    let now = manager.statistics();
    assert_eq!((now.live, now.bytes, now.allocated, now.deallocated), (0, 0, 60, 60));
}

#[test]
fn no_debug_shows_content() {
    let (manager, owner) = manager();
    let operation = manager.execute_with_secure_data_async(&owner, b"sesam".to_vec(), |_| ());

    assert_eq!(format!("{operation:?}"), "Operation { state: \"waiting\", .. }");
}

/// Whoever was said to act when the future was made acts in it, whichever thread it runs on.
#[cfg(feature = "journal")]
#[test]
fn an_operation_is_its_makers_in_the_journal() {
    use secmem::journal::{self, Actor, Journal, Options};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, Options::default()).unwrap();
    let (manager, owner) = manager();
    manager.record_in(&journal).unwrap();
    let stranger = manager.owner().unwrap();
    let id = manager.allocate(&owner, 8, None).unwrap();

    let actor = Actor::new("user 7".parse().unwrap());
    let hash = journal::acting_as(&actor, || manager.create_secure_hash_async(&stranger, &id, Hash::Sha256));
    assert!(runtime().block_on(hash).is_err());

    assert!(std::fs::read_to_string(&path).unwrap().contains(" user%207 - reach buffer:"));
}
