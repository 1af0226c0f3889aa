//! Whether times depend on secrets, by Welch's t over two classes of inputs, after dudect (Reparaz, Balasch, Verbauwhede 2017).
//!
//! `cargo bench -p secmem --bench ct`. Each line is a function: |t| below 4.5 is what chance makes of times that do not depend on
//! the class; the last line is a twin that branches, which must be far above. The classes alternate at random, the inputs are
//! laid out before, and the slowest tenth of all measurements is left out, where interrupts are. Nothing fails here: a loaded
//! machine may lift any line. The tests follow instructions instead.

use std::hint::black_box;
use std::time::Instant;

use secmem::ct::base64::STANDARD;
use secmem::ct::{self, Choice, hex};

/// Bytes of secret.
const LEN: usize = 96;

/// Measurements of one function, and calls in each: a clock is too coarse for one.
const MEASUREMENTS: usize = 40_000;
const CALLS: usize = 16;

/// An input of one class, ready to be worked on.
struct Input {
    second: bool,
    bytes: [u8; LEN],
    hex: [u8; 2 * LEN],
    base64: [u8; LEN / 3 * 4],
}

fn inputs() -> Vec<Input> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64; // any numbers do that do not repeat soon
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let made = (0..1024).map(|_| {
        let second = draw() >> 40 & 1 == 1;
        let bytes = std::array::from_fn(|_| if second { (draw() >> 24) as u8 } else { FIXED });
        let (mut hex, mut base64) = ([0; 2 * LEN], [0; LEN / 3 * 4]);
        hex::encode(&bytes, &mut hex).expect("twice as long");
        STANDARD.encode(&bytes, &mut base64).expect("as long as it has to be");
        Input { second, bytes, hex, base64 }
    });
    made.collect()
}

/// What the inputs of the first class are made of, and what all are compared with.
const FIXED: u8 = 0xA7;

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

fn measure(name: &str, inputs: &[Input], mut act: impl FnMut(&Input)) {
    let times = inputs.iter().cycle().take(MEASUREMENTS).map(|input| {
        let begin = Instant::now();
        for _ in 0..CALLS {
            act(black_box(input));
        }
        (input.second, begin.elapsed().as_secs_f64())
    });
    println!("{name:<16} t = {:8.2}", t(times.collect()));
}

fn main() {
    let inputs = inputs();
    let other = [FIXED; LEN];
    let mut place = [0; 2 * LEN];
    measure("eq", &inputs, |input| _ = black_box(ct::eq(&input.bytes, &other)));
    measure("compare", &inputs, |input| _ = black_box(ct::compare(&input.bytes, &other)));
    measure("select", &inputs, |input| {
        ct::select(Choice::from_bit(input.bytes[0].into()), &input.bytes, &other, &mut place[..LEN]);
    });
    measure("look_up", &inputs, |input| ct::look_up(&other, u64::from(input.bytes[0] % 8), &mut place[..LEN / 8]));
    measure("hex::encode", &inputs, |input| _ = black_box(hex::encode(&input.bytes, &mut place)));
    measure("hex::decode", &inputs, |input| _ = black_box(hex::decode(&input.hex, &mut place[..LEN])));
    measure("base64 encode", &inputs, |input| _ = black_box(STANDARD.encode(&input.bytes, &mut place[..LEN / 3 * 4])));
    measure("base64 decode", &inputs, |input| _ = black_box(STANDARD.decode(&input.base64, &mut place[..LEN])));
    measure("branching twin", &inputs, |input| _ = black_box(input.bytes.iter().zip(&other).all(|(a, b)| a == b)));
}
