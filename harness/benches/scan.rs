//! How fast memory is searched, beside what a plain read of it costs and what one whole needle costs.
//!
//! Names read work/input/load/outcome. `16-needles-L6` are 16 random secrets of 32 to 64 bytes, of which every piece of
//! six bytes and more is looked for; `audit-L6` is what one row of an audit looks for: a canary of 32 bytes and eight
//! decoys in all forms. Quote ratios to `read` of the same run, not absolute figures: they are the machine's.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness::canary::{Canary, Seed};
use harness::scan::{Index, Scanner};
use harness::variants::{FORMS, Form};
use scenario_protocol::CanaryKind;

const MIB: usize = 1 << 20;
const SIZE: usize = 64 * MIB;

/// Bytes handed to the scanner at a time, as the snapshot does.
const CHUNK: usize = 256 << 10;

fn seed() -> Seed {
    Seed::from_hex(&"5c".repeat(32)).expect("64 digits")
}

fn secrets(count: u32) -> Vec<Canary> {
    (0..count).map(|at| seed().canary(&format!("bench {at}"), CanaryKind::Bytes, 32 + at as usize % 33)).collect()
}

fn index(secrets: &[Canary], forms: &[Form], min_length: usize) -> Index {
    let needles: Vec<_> = secrets.iter().map(Canary::bytes).collect();
    Index::new(&needles, forms, min_length).expect("canaries can be looked for")
}

/// What is looked for, by name.
fn loads() -> Vec<(String, Index)> {
    let raw =
        [(1, 6), (16, 6), (256, 6), (4096, 6), (256, 4), (1, 8), (256, 8), (4096, 8), (1, 16), (256, 16), (4096, 16)];
    let mut loads: Vec<_> = raw
        .iter()
        .map(|&(count, length)| (format!("{count}-needles-L{length}"), index(&secrets(count), &[Form::Raw], length)))
        .collect();
    let mut row = vec![seed().canary("row", CanaryKind::Bytes, 32)];
    row.extend(seed().decoys("row", CanaryKind::Bytes, 32, 8));
    for length in [6, 16] {
        loads.push((format!("audit-L{length}"), index(&row, &FORMS, length)));
    }
    loads
}

/// Memory of three kinds, by name. None holds a piece of a needle but by chance.
fn inputs() -> [(&'static str, Vec<u8>); 3] {
    let mut random = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    [("64MiB-zeroes", vec![0; SIZE]), ("64MiB-random", random), ("64MiB-real", program())]
}

/// This program and the libraries that it has loaded, over and over.
fn program() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let files: BTreeSet<_> = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
    let bytes: Vec<u8> = files.into_iter().filter_map(|file| std::fs::read(file).ok()).flatten().collect();
    bytes.into_iter().cycle().take(SIZE).collect()
}

fn scan(index: &Index, memory: &[u8]) -> usize {
    let mut scanner = Scanner::new(index);
    for (at, chunk) in memory.chunks(CHUNK).enumerate() {
        scanner.feed((at * CHUNK) as u64, chunk);
    }
    scanner.finish().len()
}

fn read(memory: &[u8]) -> u64 {
    memory.as_chunks().0.iter().fold(0, |sum: u64, bytes| sum.wrapping_add(u64::from_ne_bytes(*bytes)))
}

fn bench(criterion: &mut Criterion) {
    let loads = loads();
    let needle = seed().canary("whole", CanaryKind::Bytes, 32);
    for (input, memory) in &inputs() {
        let mut group = criterion.benchmark_group("scan");
        group.throughput(Throughput::Bytes(SIZE as u64));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        group.bench_function(format!("{input}/read/sum"), |bench| bench.iter(|| read(black_box(memory))));
        group.bench_function(format!("{input}/memchr-1-whole-needle/absent"), |bench| {
            let finder = memchr::memmem::Finder::new(needle.bytes());
            bench.iter(|| assert_eq!(finder.find(black_box(memory)), None));
        });
        for (load, index) in &loads {
            group.bench_function(format!("{input}/{load}/absent"), |bench| {
                bench.iter(|| scan(black_box(index), black_box(memory)));
            });
        }
        group.finish();
    }
    making(criterion);
}

/// What it costs to make an index.
fn making(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for count in [16, 4096] {
        let secrets = secrets(count);
        group.bench_function(format!("{count}-needles-L6/made"), |bench| {
            bench.iter(|| index(black_box(&secrets), &[Form::Raw], 6));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
