//! A round through the manager while ten thousand buffers live: allocate, write, read, deallocate.
#![allow(missing_docs)] // criterion's macros write functions

mod figures;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use figures::{LIVE, Times, alone, beside_a_reader, due_at_once, full, round, together, unused};
use secmem::manager::Hash;

fn tell(name: &str, times: &Times) {
    let at = |share| times.percentile(share);
    println!("manager/{name}: median {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
}

fn benches(c: &mut Criterion) {
    let (manager, owner, ids) = full();
    let one = alone(&manager, &owner);
    tell("round, one thread", &one);
    let ratio = |times: &Times, than: &Times| times.median().as_secs_f64() / than.median().as_secs_f64();
    let two = together(&manager, &owner);
    tell("round, two threads", &two);
    println!("manager/round, two threads: {:.2} times that of one", ratio(&two, &one));
    let (apart, _) = beside_a_reader(&manager, &owner, &unused());
    tell("round, beside a thread that reads another manager's statistics", &apart);
    let (told, count) = beside_a_reader(&manager, &owner, &manager);
    tell("round, beside a thread that reads this one's", &told);
    println!(
        "manager/statistics: read {count} times meanwhile; the rounds took {:.2} times as long",
        ratio(&told, &apart)
    );
    due();
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

/// Ten thousand buffers that are due at once, by the wall clock: how late the first and the last are wiped.
fn due() {
    const RUNS: usize = 100;
    let due = due_at_once(RUNS);
    println!("manager/due: {RUNS} runs of {LIVE} buffers, due within {:?}", due.spread);
    let all = [("the first wiped", &due.first), ("the last wiped", &due.last), ("the last told", &due.told)];
    for (name, times) in all {
        let [median, p99, most] = [50, 99, 100].map(|share| times.percentile(share));
        println!("manager/due: {name} late by: median {median:?}, p99 {p99:?}, at most {most:?}");
    }
}

criterion_group!(managing, benches);
criterion_main!(managing);
