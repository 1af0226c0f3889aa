//! A round through the manager while ten thousand buffers live: allocate, write, read, deallocate.
#![allow(missing_docs)] // criterion's macros write functions

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use secmem::manager::{Config, Hash, Id, Manager, Token};

const LIVE: usize = 10_000;

fn full() -> (Manager, Token, Vec<Id>) {
    let manager = Manager::new(Config::default().max_buffers(LIVE + 8)).expect("a manager");
    let owner = manager.owner().expect("an owner");
    let ids = (0..LIVE).map(|_| manager.allocate(&owner, 32, None).expect("locked memory")).collect();
    (manager, owner, ids)
}

fn round(manager: &Manager, owner: &Token) {
    let id = manager.allocate(owner, 32, None).expect("locked memory");
    manager.write(owner, &id, &mut black_box([7; 32])).expect("a write");
    manager.read(owner, &id, .., |bytes| black_box(bytes[31])).expect("a read");
    manager.deallocate(owner, &id).expect("a buffer");
}

/// Each round by itself: the median is not moved by what else runs on the machine.
fn timed(manager: &Manager, owner: &Token) -> Vec<Duration> {
    const ROUNDS: usize = 200_000;
    let one = || {
        let start = Instant::now();
        round(manager, owner);
        start.elapsed()
    };
    (0..ROUNDS / 10).for_each(|_| _ = one()); // to warm up
    (0..ROUNDS).map(|_| one()).collect()
}

fn tell(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("manager/{name}: median {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
}

fn benches(c: &mut Criterion) {
    let (manager, owner, ids) = full();
    tell("round, one thread", timed(&manager, &owner));
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| timed(&manager, &owner));
        let mut times = timed(&manager, &owner);
        times.extend(other.join().expect("the other thread"));
        times
    });
    tell("round, two threads", both);
    due_at_once();
    let mut group = c.benchmark_group("manager/10k-live");
    group.bench_function("allocate-write-read-deallocate", |bench| bench.iter(|| round(&manager, &owner)));
    // Both at once: the time of the slower one.
    group.bench_function("the-same-two-threads", |bench| {
        bench.iter_custom(|times| {
            let ready = Barrier::new(2);
            let work = || {
                round(&manager, &owner);
                ready.wait();
                let start = Instant::now();
                (0..times).for_each(|_| round(&manager, &owner));
                start.elapsed()
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(work);
                work().max(other.join().expect("the other thread"))
            })
        });
    });
    group.bench_function("read", |bench| {
        bench.iter(|| manager.read(&owner, &ids[77], .., |bytes| black_box(bytes.len())).expect("a read"));
    });
    group.bench_function("statistics", |bench| bench.iter(|| black_box(manager.statistics())));
    group.bench_function("sha-256", |bench| {
        bench.iter(|| manager.create_secure_hash(&owner, &ids[77], Hash::Sha256).expect("a hash"));
    });
    group.finish();
}

/// Ten thousand buffers with one deadline, by the wall clock: how long after it the last is told to have ended.
fn due_at_once() {
    let span = Duration::from_secs(2);
    let config = Config::default().max_buffers(LIVE).timeout(None).lifetime(span);
    let manager = Manager::new(config).expect("a manager");
    let owner = manager.owner().expect("an owner");
    let first = Instant::now();
    for _ in 0..LIVE {
        manager.allocate(&owner, 32, None).expect("locked memory");
    }
    let spread = first.elapsed();
    while manager.statistics().live > 0 && first.elapsed() < 10 * span {
        std::thread::sleep(Duration::from_micros(200));
    }
    let late = first.elapsed().saturating_sub(span);
    println!("manager/due: made within {spread:?}; the last of {LIVE} was gone {late:?} after the first was due");
}

criterion_group!(managing, benches);
criterion_main!(managing);
