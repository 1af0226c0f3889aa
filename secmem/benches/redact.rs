//! Text before which a redactor stands, against a copy.
//!
//! `cargo bench --package secmem --features redact --bench redact`
#![allow(missing_docs)] // criterion's macros write functions

use std::io::Write as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use secmem::Secret;
use secmem::redact::Redactor;

/// Secrets that are registered.
const SECRETS: u64 = 16;

/// 64 KiB of lines as a server writes them.
fn log() -> Vec<u8> {
    let line = |at: u64| {
        let id = at.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("2026-01-02T03:04:05.{at:06}Z INFO server::request: GET /account/{at} 200 in 12 ms id={id:016x}\n")
    };
    (0..)
        .map(line)
        .scan(0, |len, line| {
            *len += line.len();
            (*len <= 64 << 10).then_some(line)
        })
        .collect::<String>()
        .into_bytes()
}

fn benches(c: &mut Criterion) {
    let redactor = Redactor::new().expect("locked memory");
    let registered: Vec<_> = (0..SECRETS)
        .map(|at| {
            let byte = |place: u64| (at * 32 + place + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0];
            let secret = Secret::try_from((0..32).map(byte).collect::<Vec<u8>>()).expect("locked memory");
            redactor.register(&secret).expect("room in a table")
        })
        .collect();
    let log = log();
    let mut group = c.benchmark_group("redact/64KiB-log/16-secrets");
    group.throughput(Throughput::Bytes(log.len() as u64));
    group.bench_function("writer", |bench| {
        let mut writer = redactor.writer(std::io::sink()).expect("locked memory");
        bench.iter(|| writer.write_all(&log).and_then(|()| writer.flush()).expect("a sink"));
    });
    group.bench_function("copy", |bench| {
        let mut copy = Vec::with_capacity(log.len());
        bench.iter(|| {
            copy.clear();
            copy.write_all(&log).expect("memory");
            std::hint::black_box(&copy);
        });
    });
    group.finish();
    let mut group = c.benchmark_group("redact/one-line/16-secrets");
    let line = log.split(|byte| *byte == b'\n').next().map(String::from_utf8_lossy).expect("a line");
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("text", |bench| bench.iter(|| redactor.text(&line)));
    group.finish();
    drop(registered);
}

criterion_group!(redacting, benches);
criterion_main!(redacting);
