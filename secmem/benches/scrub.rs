//! A call on the protected stack, beside the same call as it is.
#![allow(missing_docs)] // criterion's macros write functions

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use secmem::Backend;
use secmem::scrub::{self, DEFAULT_STACK, Stack};

#[inline(never)]
fn sum(key: &[u8; 32]) -> u32 {
    key.iter().map(|&byte| u32::from(byte)).sum()
}

fn benches(c: &mut Criterion) {
    let key = [7; 32];
    let mut group = c.benchmark_group("scrub");
    group.bench_function("bare", |bench| bench.iter(|| sum(black_box(&key))));
    group.bench_function("run", |bench| {
        bench.iter(|| {
            let mut total = 0;
            scrub::run(|| total = sum(black_box(&key))).expect("a protected stack");
            total
        });
    });
    for (name, size) in [("16KiB", 16 << 10), ("64KiB", DEFAULT_STACK), ("256KiB", 256 << 10)] {
        let mut stack = Stack::with_backend(Backend::Mlock, size).expect("a protected stack");
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut total = 0;
                stack.run(|| total = sum(black_box(&key))).expect("a protected stack");
                total
            });
        });
    }
    group.bench_function("make", |bench| bench.iter(|| Stack::new(DEFAULT_STACK).expect("a protected stack")));
    group.finish();
}

criterion_group!(scrubbing, benches);
criterion_main!(scrubbing);
