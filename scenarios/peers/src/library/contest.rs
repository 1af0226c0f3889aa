//! Ours and its peers in turn, and what came of it.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Duration;

use crate::spent;

/// Rounds; the best one of each contender counts.
const ROUNDS: usize = 25;

/// How long a round should take.
const ROUND: Duration = Duration::from_micros(1500);

/// Somebody who does the work.
pub struct Contender<'a> {
    name: &'static str,
    /// So many turns.
    work: Box<dyn FnMut(usize) + 'a>,
}

impl<'a> Contender<'a> {
    /// `work` is one turn of it. The first contender is ours.
    pub fn new(name: &'static str, mut work: impl FnMut() + 'a) -> Self {
        Self { name, work: Box::new(move |count| (0..count).for_each(|_| work())) }
    }

    /// One who works on `data`, which the others have in their turns.
    pub fn on(name: &'static str, data: &'a RefCell<&mut [u8]>, work: impl Fn(&mut [u8]) + 'a) -> Self {
        let work = move |count| {
            let mut data = data.borrow_mut();
            (0..count).for_each(|_| work(black_box(&mut **data)));
        };
        Self { name, work: Box::new(work) }
    }

    /// The processor time of so many turns.
    fn turns(&mut self, count: usize) -> Duration {
        spent(|| (self.work)(count))
    }

    /// Turns that fill a round.
    fn calibrate(&mut self) -> usize {
        let mut count = 1;
        loop {
            let time = self.turns(count);
            if time * 4 > ROUND || count > 1 << 20 {
                let more = ROUND.as_secs_f64() / time.as_secs_f64().max(1e-9);
                return ((count as f64 * more) as usize).max(1);
            }
            count *= 2;
        }
    }
}

/// What is wanted of ours.
pub enum Bound {
    /// At most so many a turn.
    Nanoseconds(f64),
    /// At least so many GB/s.
    Rate(f64),
    /// At most so many times what this contender takes.
    Ratio(&'static str, f64),
    /// At most so many nanoseconds more than this contender takes.
    Over(&'static str, f64),
}

/// The best of a contender's rounds, in nanoseconds a turn.
type Best = (&'static str, f64);

/// Lets them work in turn: a row of the table. `bytes` are what one turn goes over, where a rate says more than a time.
pub fn contend(work: &str, bytes: Option<usize>, mut contenders: Vec<Contender<'_>>, bounds: &[Bound]) -> Vec<String> {
    let counts: Vec<usize> = contenders.iter_mut().map(Contender::calibrate).collect();
    let mut best: Vec<Best> = contenders.iter().map(|contender| (contender.name, f64::INFINITY)).collect();
    for _ in 0..ROUNDS {
        for ((contender, &count), best) in contenders.iter_mut().zip(&counts).zip(&mut best) {
            best.1 = best.1.min(a_turn(contender.turns(count), count));
        }
    }
    cells(work, bytes, &best, bounds)
}

/// The same, each contender on two threads at once; the slower of the two counts.
pub fn contend_on_two_threads<'a>(
    work: &str,
    contenders: impl Fn() -> Vec<Contender<'a>> + Sync,
    bounds: &[Bound],
) -> Vec<String> {
    let mut first = contenders();
    let counts: Vec<usize> = first.iter_mut().map(Contender::calibrate).collect();
    let mut best: Vec<Best> = first.iter().map(|contender| (contender.name, f64::INFINITY)).collect();
    drop(first);
    let together = Barrier::new(2);
    let one = || {
        let mut contenders = contenders();
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            for (contender, &count) in contenders.iter_mut().zip(&counts) {
                together.wait();
                rounds.push(a_turn(contender.turns(count), count));
            }
        }
        rounds
    };
    let (mine, others) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one(), other.join().expect("the other thread"))
    });
    for (at, (mine, other)) in mine.into_iter().zip(others).enumerate() {
        let best = &mut best[at % counts.len()];
        best.1 = best.1.min(mine.max(other));
    }
    cells(work, None, &best, bounds)
}

fn a_turn(time: Duration, turns: usize) -> f64 {
    time.as_secs_f64() * 1e9 / turns as f64
}

fn cells(work: &str, bytes: Option<usize>, best: &[Best], bounds: &[Bound]) -> Vec<String> {
    let tell = |time: f64| match bytes {
        Some(bytes) if bytes >= 1024 => format!("{:.1} GB/s", bytes as f64 / time),
        _ if time >= 10_000.0 => format!("{:.1} µs", time / 1000.0),
        _ if time >= 100.0 => format!("{time:.0} ns"),
        _ => format!("{time:.1} ns"),
    };
    let ours = best[0].1;
    let mut peers = best[1..].to_vec();
    peers.sort_by(|one, other| one.1.total_cmp(&other.1));
    let name = |(name, time): &Best| format!("{name} {}", tell(*time));
    let time_of = |wanted: &str| best.iter().find(|(name, _)| *name == wanted).map_or(f64::NAN, |(_, time)| *time);
    let (mut targets, mut verdicts) = (Vec::new(), Vec::new());
    for bound in bounds {
        let (target, met) = match *bound {
            Bound::Nanoseconds(most) if most >= 1000.0 => (format!("≤ {} µs", most / 1000.0), ours <= most),
            Bound::Nanoseconds(most) => (format!("≤ {most} ns"), ours <= most),
            Bound::Rate(least) => (format!("≥ {least} GB/s"), bytes.unwrap_or(0) as f64 / ours >= least),
            Bound::Ratio(peer, most) => (format!("≤ {most} × {peer}"), ours <= most * time_of(peer)),
            Bound::Over(peer, most) => {
                (format!("≤ {} µs over the {peer}", most / 1000.0), ours - time_of(peer) <= most)
            }
        };
        targets.push(target);
        verdicts.push(if met { "met" } else { "**missed**" });
    }
    let or_dash = |text: String| if text.is_empty() { "–".to_owned() } else { text };
    vec![
        work.to_owned(),
        tell(ours),
        peers.first().map_or_else(|| "–".to_owned(), name),
        peers.first().map_or_else(|| "–".to_owned(), |(_, time)| format!("{:.2}", ours / time)),
        or_dash(targets.join("; ")),
        or_dash(verdicts.join("; ")),
        peers.iter().skip(1).map(name).collect::<Vec<_>>().join(", "),
    ]
}
