//! What a call of a vault costs beside the private key's own work, and whether the memory of both processes stays as it is.
//!
//! `cargo bench -p secmem --features vault --bench vault`
//!
//! Times are medians of single calls on the wall clock. The call and the work of its key take turns, so that what else runs on the
//! machine is in the way of both.
#![allow(missing_docs)] // a program, no interface

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use secmem::Secret;
use secmem::probe::Opener;
use secmem::vault::{self, Algorithm, Config, Error, Vault};

const PASSWORD: &[u8] = b"correct horse battery staple";
const CALLS: usize = 5_000;
const OVERLAPPING: usize = 1_000;
const WAVES: usize = 3;
/// How much a call may cost beside the work of its key.
const OVERHEAD: Duration = Duration::from_micros(40);
/// What a worker may take up, in bytes.
const RESIDENT: u64 = 4 << 20;
/// How much of what was resident after the first wave may have come by the last. Later ones find the memory of the first.
const GROWTH: f64 = 1.02;

fn main() -> Result<(), Error> {
    vault::init()?;
    // As `cargo test --benches` runs it: once, to see that it does.
    let calls = if std::env::args().any(|argument| argument == "--bench") { CALLS } else { 10 };

    let vault = Vault::start(Config::default())?;
    vault.generate()?;
    vault.store(password()?)?;
    time(&vault, calls)?;
    memory(&vault)?;

    let mut criterion = Criterion::default().configure_from_args();
    let mut opener = Opener::new(Algorithm::XWing, &password()?)?;
    let mut group = criterion.benchmark_group("vault/28B");
    group.bench_function("with-password", |bench| {
        bench.iter(|| vault.with_password(|bytes| black_box(bytes[27])).expect("a password"));
    });
    group.bench_function("private-key-alone", |bench| bench.iter(|| opener.open().expect("its own envelope")));
    group.bench_function("sign", |bench| bench.iter(|| vault.sign(b"a message").expect("a key")));
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn password() -> Result<Secret, Error> {
    Ok(Secret::try_from(PASSWORD.to_vec())?)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

fn timed<T>(of: impl FnOnce() -> Result<T, Error>) -> Result<Duration, Error> {
    let start = Instant::now();
    let result = of();
    let took = start.elapsed();
    result.map(|_| took)
}

/// The median, and the least that so many of a hundred do not exceed.
fn percentiles<const N: usize>(mut times: Vec<Duration>, shares: [usize; N]) -> [Duration; N] {
    times.sort_unstable();
    shares.map(|share| times[(times.len() * share).div_ceil(100).max(1) - 1])
}

fn time(vault: &Vault, calls: usize) -> Result<(), Error> {
    let mut opener = Opener::new(Algorithm::XWing, &password()?)?;
    let (mut round_trips, mut alone) = (Vec::new(), Vec::new());
    for at in 0..calls + calls / 10 {
        let round_trip = timed(|| vault.with_password(|bytes| black_box(bytes[27])))?;
        let opened = timed(|| opener.open())?;
        // The first ones are to warm up.
        if at >= calls / 10 {
            round_trips.push(round_trip);
            alone.push(opened);
        }
    }
    let tell = |name: &str, times: Vec<Duration>| {
        let [median, p99] = percentiles(times, [50, 99]);
        println!("vault/{name}: median {median:.1?}, p99 {p99:.1?}, of {calls}");
        median
    };
    let round_trip = tell("with_password", round_trips);
    let alone = tell("the private key's work alone", alone);
    let over = round_trip.saturating_sub(alone);
    println!("vault/over the private key's work: {over:.1?}, target ≤ {OVERHEAD:?}: {}", verdict(over <= OVERHEAD));
    Ok(())
}

/// Bytes that proc_pid_status(5) tells of a process. `VmRSS` is what the worker tells of itself, too.
fn field(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Many calls that overlap, and their plaintexts too: no callback returns before all of them have run.
fn memory(vault: &Vault) -> Result<(), Error> {
    let kib = |bytes: u64| bytes / 1024;
    let both = || Ok::<_, Error>([field("self", "VmRSS"), vault.protection()?.resident]);
    let before = both()?;
    let mut after = Vec::new();
    for _ in 0..WAVES {
        wave(vault)?;
        after.push(both()?);
    }
    for (at, name) in ["caller", "worker"].into_iter().enumerate() {
        let waves: Vec<u64> = after.iter().map(|wave| wave[at]).collect();
        let flat = waves[WAVES - 1] as f64 <= waves[0] as f64 * GROWTH;
        let waves: Vec<u64> = waves.into_iter().map(kib).collect();
        println!(
            "vault/memory of the {name}: {} KiB, after each of {WAVES} waves of {OVERLAPPING} calls at once {waves:?} KiB; from the \
             first to the last ≤ {GROWTH} times: {}",
            kib(before[at]),
            verdict(flat)
        );
    }
    let worker = vault.protection()?.resident;
    println!(
        "vault/the worker takes up {} KiB, target < {} KiB: {}",
        kib(worker),
        kib(RESIDENT),
        verdict(worker < RESIDENT)
    );
    let of_it = |name| kib(field(&vault.pid().to_string(), name));
    println!(
        "vault/of that {} KiB are anonymous, and {} KiB of files: the program, libraries, and protected memory",
        of_it("RssAnon"),
        of_it("RssFile")
    );
    let counts = vault.counts();
    println!("vault/lent {}, wiped {}", counts.lent, counts.wiped);
    Ok(())
}

/// A call that is under way.
type UnderWay = dyn Future<Output = Result<u8, Error>>;

/// As many futures as calls, in one thread.
fn wave(vault: &Vault) -> Result<(), Error> {
    let (running, all) = (Arc::new(AtomicUsize::new(0)), Waiting::default());
    let mut calls: Vec<Pin<Box<UnderWay>>> = Vec::new();
    for _ in 0..OVERLAPPING {
        let (vault, running, all) = (vault.clone(), Arc::clone(&running), all.clone());
        calls.push(Box::pin(async move {
            let callback = async |lent: &vault::Lent| {
                if running.fetch_add(1, Ordering::AcqRel) + 1 == OVERLAPPING {
                    all.wake();
                }
                std::future::poll_fn(|context| {
                    if running.load(Ordering::Acquire) == OVERLAPPING {
                        return Poll::Ready(());
                    }
                    all.note(context.waker());
                    Poll::Pending
                })
                .await;
                lent.with(|bytes| bytes[27])
            };
            vault.with_password_async(callback).await?
        }));
    }
    let parked = Arc::new(Parked::default());
    let waker = Waker::from(Arc::clone(&parked));
    while !calls.is_empty() {
        let mut failed = None;
        calls.retain_mut(|call| match call.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => {
                failed = failed.take().or(result.err());
                false
            }
            Poll::Pending => true,
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if !calls.is_empty() {
            parked.wait();
        }
    }
    Ok(())
}

/// Who waits for the last of them. They are all polled by one waker.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Option<Waker>>>);

impl Waiting {
    fn note(&self, waker: &Waker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// The smallest runtime: parks the thread.
#[derive(Default)]
struct Parked(Mutex<bool>, Condvar);

impl Parked {
    fn wait(&self) {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::replace(&mut *woken, false) {
            woken = self.1.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_one();
    }
}
