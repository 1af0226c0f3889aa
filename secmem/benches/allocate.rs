//! Making, writing, wiping and ending a secret of 32 bytes, beside the ways that others do it.
#![allow(missing_docs)] // criterion's macros write functions

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use secmem::{Backend, Secret};

const KEY: [u8; 32] = [7; 32];

#[allow(unsafe_code)] // the peers are foreign functions or take raw pointers
fn memsec() {
    // SAFETY: memsec asks nothing of its callers here but that they free what they get.
    let place = unsafe { memsec::malloc::<[u8; 32]>() }.expect("locked memory");
    // SAFETY: the allocation holds a key, and is ours.
    unsafe { place.as_ptr().write(black_box(KEY)) };
    // SAFETY: it came from memsec, and is freed once.
    unsafe { memsec::free(place) };
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate/32B");
    for (name, backend) in [("secmem-memfd", Backend::MemfdSecret), ("secmem-mlock", Backend::Mlock)] {
        let options = Secret::options().backend(backend);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut secret = options.zeroed(32).expect("locked memory");
                secret.with_mut(|bytes| bytes.copy_from_slice(black_box(&KEY))).expect("an access");
            });
        });
    }
    // Both at once, each its own secrets: the time of the slower one.
    group.bench_function("secmem-memfd-two-threads", |bench| {
        bench.iter_custom(|times| {
            let options = Secret::options().backend(Backend::MemfdSecret);
            let ready = Barrier::new(2);
            let work = || {
                let make = || {
                    let mut secret = options.zeroed(32).expect("locked memory");
                    secret.with_mut(|bytes| bytes.copy_from_slice(black_box(&KEY))).expect("an access");
                };
                make();
                ready.wait();
                let start = Instant::now();
                (0..times).for_each(|_| make());
                start.elapsed()
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(work);
                work().max(other.join().expect("the other thread"))
            })
        });
    });
    group.bench_function("malloc", |bench| {
        bench.iter(|| {
            let mut plain = vec![0_u8; 32];
            plain.copy_from_slice(black_box(&KEY));
            black_box(&mut plain);
        });
    });
    group.bench_function("memsec", |bench| bench.iter(memsec));
    group.finish();
}

criterion_group!(allocating, benches);
criterion_main!(allocating);
