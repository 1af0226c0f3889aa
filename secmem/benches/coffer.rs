//! Encrypting what is put away, and opening it.
#![allow(missing_docs)] // criterion's macros write functions

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use secmem::{Coffer, Sealed, Secret};

fn benches(c: &mut Criterion) {
    let coffer = Coffer::new().expect("locked memory");
    for (name, len) in [("32B", 32), ("4KiB", 4096)] {
        let mut group = c.benchmark_group(format!("coffer/{name}"));
        group.throughput(Throughput::Bytes(len as u64));
        let secret = Secret::new(len).expect("locked memory");
        group.bench_function("store", |bench| bench.iter(|| coffer.store(&secret).expect("a coffer")));
        let stored = coffer.store(&secret).expect("a coffer");
        group.bench_function("open", |bench| bench.iter(|| stored.open(Secret::options()).expect("a coffer")));
        group.finish();
    }
    let mut group = c.benchmark_group("sealed/32B");
    let sealed = Sealed::new(32).expect("locked memory");
    let read = || sealed.with(|bytes| bytes[0]).expect("an access");
    group.bench_function("access", |bench| bench.iter(read));
    group.bench_function("batch-of-100", |bench| {
        bench.iter(|| Sealed::batch(&[&sealed], || (0..100).fold(0, |sum, _| sum ^ read())).expect("a batch"));
    });
    group.finish();
}

criterion_group!(storing, benches);
criterion_main!(storing);
