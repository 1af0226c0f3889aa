//! Overwriting with zeros, beside the ways that others do it.
#![allow(missing_docs)] // criterion's macros write functions

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use secmem::wipe::{Schedule, wipe, wipe_with};
use zeroize::Zeroize;

const SIZES: [(&str, usize); 7] = [
    ("16B", 16),
    ("32B", 32),
    ("256B", 256),
    ("4KiB", 4 << 10),
    ("64KiB", 64 << 10),
    ("1MiB", 1 << 20),
    ("64MiB", 64 << 20),
];

#[allow(unsafe_code)] // the peers are foreign functions or take raw pointers
fn explicit_bzero(data: &mut [u8]) {
    // SAFETY: the slice is writable for its whole length.
    unsafe { libc::explicit_bzero(data.as_mut_ptr().cast(), data.len()) }
}

#[allow(unsafe_code)] // the peers are foreign functions or take raw pointers
fn memsec(data: &mut [u8]) {
    // SAFETY: the slice is writable for its whole length.
    unsafe { memsec::memzero(data.as_mut_ptr(), data.len()) }
}

fn six_pass(data: &mut [u8]) {
    wipe_with(data, Schedule::SixPass).expect("the kernel has random bytes");
}

type Wipe = fn(&mut [u8]);

fn benches(c: &mut Criterion) {
    let peers: [(&str, Wipe); 5] = [
        ("secmem", wipe),
        ("explicit_bzero", explicit_bzero),
        ("zeroize", |data| data.zeroize()),
        ("memsec", memsec),
        ("secmem-six-pass", six_pass),
    ];
    for (name, size) in SIZES {
        let mut group = c.benchmark_group(format!("wipe/{name}"));
        group.throughput(Throughput::Bytes(size as u64));
        let mut data = vec![0xC3; size + 64];
        let at = data.as_ptr().align_offset(64);
        for (peer, wipe) in peers {
            group.bench_with_input(BenchmarkId::new(peer, "zeroed"), &(), |b, ()| {
                b.iter(|| wipe(std::hint::black_box(&mut data[at..at + size])));
            });
        }
        group.finish();
    }
}

criterion_group!(wiping, benches);
criterion_main!(wiping);
