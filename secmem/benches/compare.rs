//! Comparing for equality, beside the ways that others do it.
#![allow(missing_docs)] // criterion's macros write functions

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use secmem::ct;

const SIZES: [(&str, usize); 8] = [
    ("16B", 16),
    ("32B", 32),
    ("64B", 64),
    ("128B", 128),
    ("256B", 256),
    ("1KiB", 1 << 10),
    ("4KiB", 4 << 10),
    ("1MiB", 1 << 20),
];

#[allow(unsafe_code)] // the peers are foreign functions or take raw pointers
fn memcmp(a: &[u8], b: &[u8]) -> bool {
    // SAFETY: both slices are readable for that length, which the benches make equal.
    unsafe { libc::memcmp(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0 }
}

#[allow(unsafe_code)] // the peers are foreign functions or take raw pointers
fn memsec(a: &[u8], b: &[u8]) -> bool {
    // SAFETY: both slices are readable for that length, which the benches make equal.
    unsafe { memsec::memeq(a.as_ptr(), b.as_ptr(), a.len()) }
}

type Equal = fn(&[u8], &[u8]) -> bool;

fn benches(c: &mut Criterion) {
    let peers: [(&str, Equal); 3] = [("secmem", ct::eq), ("memcmp", memcmp), ("memsec", memsec)];
    for (name, size) in SIZES {
        let mut group = c.benchmark_group(format!("compare/{name}"));
        group.throughput(Throughput::Bytes(size as u64));
        let buffers = [vec![0xC3; size + 64], vec![0xC3; size + 64]];
        let [a, b] = buffers.each_ref().map(|buffer| {
            let at = buffer.as_ptr().align_offset(64);
            &buffer[at..at + size]
        });
        let mut other = b.to_vec();
        other[0] ^= 1;
        for (peer, eq) in peers {
            group.bench_with_input(BenchmarkId::new(peer, "equal"), &(), |bench, ()| {
                bench.iter(|| eq(black_box(a), black_box(b)));
            });
            group.bench_with_input(BenchmarkId::new(peer, "first-byte-differs"), &(), |bench, ()| {
                bench.iter(|| eq(black_box(a), black_box(&other)));
            });
        }
        group.finish();
    }
}

criterion_group!(comparing, benches);
criterion_main!(comparing);
