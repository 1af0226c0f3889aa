//! How late the thread of the deadlines is where many are due together: prints when the first and the last had ended.
#![allow(missing_docs)] // a program, no interface

use std::time::{Duration, Instant};

use secmem::{Error, Options, Secret, Statistics};

/// Long enough for all of them to be made before they are due.
const SPAN: Duration = Duration::from_secs(2);

fn main() {
    for count in [1_000, 3_000, 10_000] {
        report("plain", count, |options| options.zeroed(32));
        report("sealed", count, |options| options.sealed(32));
    }
}

fn report<T>(name: &str, count: usize, make: impl Fn(Options) -> Result<T, Error>) {
    let due = Instant::now() + SPAN;
    let one = |_| make(Secret::options().expires_in(due.saturating_duration_since(Instant::now())));
    let mut secrets: Vec<T> = (0..count).map(|at| one(at).expect("locked memory")).collect();
    let left = due.saturating_duration_since(Instant::now());
    if left.is_zero() {
        println!("deadline/{name}/{count}: skipped, for they took longer than that to make");
        return;
    }
    std::thread::sleep(left);
    let mut first = None;
    loop {
        let live = Statistics::now().live;
        first = first.or_else(|| (live < count).then(Instant::now));
        if live == 0 {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    drop(secrets.pop()); // returns when that one is overwritten
    let late = |at: Instant| at.saturating_duration_since(due);
    let last = late(Instant::now());
    println!("deadline/{name}/{count}: the first {:.1?} late, the last {last:.1?}", late(first.unwrap_or(due)));
}
