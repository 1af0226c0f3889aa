//! RSA of the vault: how many private operations a second, beside the same without our memory and beside others; and whether
//! its times depend on what is wrong with a ciphertext.
//!
//! `cargo bench -p secmem --features vault-rsa --bench rsa`. All that is compared runs in turn, round by round, and the best
//! round of each counts, by the processor time of the thread: the figures are the machine's, the ratios are what can be
//! compared. The lines behind are as those of the bench `ct`: |t| below 4.5 is what chance makes of times that do not depend on
//! the class.
#![allow(unsafe_code)] // a clock that the standard library does not read

use std::hint::black_box;
use std::time::Instant;

use rsa::{BigUint, Oaep, RsaPrivateKey};
use secmem::probe::rsa as ours;
use secmem::{Secret, scrub};
use sha2::Sha256;

/// Rounds, and how long one of a candidate takes, in seconds.
const ROUNDS: usize = 30;
const ROUND: f64 = 0.03;

/// Measurements for Welch's t.
const MEASUREMENTS: usize = 20_000;

type Candidate<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Seconds that this thread has had a processor.
fn worked() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(rc, 0, "Linux has this clock since 2.6.12");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The least seconds that one call of each took, on average over a round.
fn best(candidates: &mut [Candidate<'_>]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; candidates.len()];
    for _ in 0..ROUNDS {
        for ((_, act), best) in candidates.iter_mut().zip(&mut best) {
            let (begin, mut calls) = (worked(), 0);
            while worked() - begin < ROUND {
                act();
                calls += 1;
            }
            *best = best.min((worked() - begin) / f64::from(calls));
        }
    }
    best
}

/// The key of the same numbers as the crate `rsa` holds it.
fn rival(secret: &[u8]) -> RsaPrivateKey {
    let len = secret.len() / 7 * 2;
    let (n, rest) = secret.split_at(len);
    let [p, q] = [0, 1].map(|at| BigUint::from_bytes_be(&rest[at * len / 2..][..len / 2]));
    let one = BigUint::from(1_u8);
    let less = (&p - &one) * (&q - &one);
    let multiple = (1..65537_u32).map(|k| &less * k + &one).find(|number| number % 65537_u32 == BigUint::from(0_u8));
    let d = multiple.expect("65537 is a prime") / 65537_u32;
    RsaPrivateKey::from_components(BigUint::from_bytes_be(n), 65537_u32.into(), d, vec![p, q]).expect("a key")
}

fn figures(bits: usize) {
    let key = ours::generate(bits, Secret::options()).expect("a key");
    let mut content = Secret::new(bits / 8 - 66).expect("a slot");
    let copy = key.with(<[u8]>::to_vec).expect("a key"); // a bench may
    let public = ours::public(&copy).expect("a key");
    let wrapped = ours::wrap(&public, b"correct horse battery staple").expect("room");
    let rival = rival(&copy);
    let mut out = vec![0; content.len()];
    let mut candidates: Vec<Candidate<'_>> = vec![
        (
            "bare",
            Box::new(|| {
                black_box(ours::unwrap_bare(black_box(&copy), &wrapped, &mut out).expect("right"));
            }),
        ),
        (
            "from slot to slot, scrubbed",
            Box::new(|| {
                let done = content.with_mut(|out| key.with(|key| ours::unwrap(key, &wrapped, out).expect("right")));
                black_box(done.expect("slots").expect("slots"));
            }),
        ),
        ("wrap", Box::new(|| _ = black_box(ours::wrap(&public, b"correct horse battery staple").expect("room")))),
        ("rsa 0.9.8", Box::new(|| _ = black_box(rival.decrypt(Oaep::new::<Sha256>(), &wrapped).expect("right")))),
    ];
    let best = best(&mut candidates);
    for ((name, _), seconds) in candidates.iter().zip(&best) {
        println!("{bits} {name:<28} {:8.1} a second, {:6.3} of bare", 1.0 / seconds, best[0] / seconds);
    }
}

/// Welch's t of the two classes, without the slowest tenth of both together.
fn t(mut times: Vec<(bool, f64)>) -> f64 {
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    times.truncate(times.len() / 10 * 9);
    let [first, second] = [false, true].map(|class| {
        let of: Vec<f64> = times.iter().filter(|(of, _)| *of == class).map(|(_, time)| *time).collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        let variance = of.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (of.len() - 1) as f64;
        (mean, variance / of.len() as f64)
    });
    (first.0 - second.0) / (first.1 + second.1).sqrt()
}

/// Classes that alternate at random, each measurement one call.
fn measure(name: &str, count: usize, mut act: impl FnMut(bool)) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64; // any numbers do that do not repeat soon
    let times = (0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let second = state >> 40 & 1 == 1;
        let begin = Instant::now();
        act(black_box(second));
        (second, begin.elapsed().as_secs_f64())
    });
    println!("{name:<44} t = {:8.2}", t(times.collect()));
}

fn main() {
    scrub::run(|| {}).expect("a protected stack");
    [2048, 3072, 4096].into_iter().for_each(figures);

    let mut secret = vec![0; 896];
    ours::generate_bare(2048, &mut secret).expect("a key");
    let public = ours::public(&secret).expect("a key");
    // What is below the modulus and was padded by nobody: its first byte is not 0, which is what Manger asks for.
    let right = ours::wrap(&public, b"correct horse battery staple").expect("room");
    let wrong = (0..=u8::MAX).map(|last| [&right[..255], &[last]].concat()).find(|other| *other != right);
    let wrong = wrong.expect("there are others");
    let mut out = [0; 190];
    measure("2048 unwrap: right beside wrong", MEASUREMENTS / 10, |second| {
        let wrapped = if second { &wrong } else { &right };
        black_box(ours::unwrap_bare(&secret, wrapped, &mut out));
    });
    let padded = |first: u8| {
        let mut padded = [0x5C; 256];
        padded[0] = first;
        padded
    };
    let kinds = [padded(0), padded(1)];
    measure("2048 padding: first byte 0 beside 1", MEASUREMENTS, |second| {
        let mut padded = kinds[usize::from(second)];
        let _ = black_box(ours::unpad(&mut padded, &mut out, &mut 0));
    });
    measure("a twin that stops at the first byte", MEASUREMENTS, |second| {
        let mut padded = kinds[usize::from(second)];
        if padded[0] == 0 {
            let _ = black_box(ours::unpad(&mut padded, &mut out, &mut 0));
        }
    });
}
