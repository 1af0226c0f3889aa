//! What is measured of the manager with ten thousand buffers: for the bench, and for the table of figures.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use secmem::Statistics;
use secmem::manager::{Config, Id, Manager, Token};

/// Buffers that live.
pub(crate) const LIVE: usize = 10_000;

/// A manager in which so many live, and there is room for a few more.
pub(crate) fn full() -> (Manager, Token, Vec<Id>) {
    let manager = Manager::new(Config::default().max_buffers(LIVE + 8)).expect("a manager");
    let owner = manager.owner().expect("an owner");
    let ids = (0..LIVE).map(|_| manager.allocate(&owner, 32, None).expect("locked memory")).collect();
    (manager, owner, ids)
}

/// Allocate, write, read, deallocate.
pub(crate) fn round(manager: &Manager, owner: &Token) {
    let id = manager.allocate(owner, 32, None).expect("locked memory");
    manager.write(owner, &id, &mut black_box([7; 32])).expect("a write");
    manager.read(owner, &id, .., |bytes| black_box(bytes[31])).expect("a read");
    manager.deallocate(owner, &id).expect("a buffer");
}

/// Times, in their order.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The least that so many of a hundred do not exceed.
    pub(crate) fn percentile(&self, share: usize) -> Duration {
        self.0[(self.0.len() * share).div_ceil(100).max(1) - 1]
    }

    /// Half of them are no longer than this.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

/// Each round by itself: the median is not moved by what else runs on the machine for a while. The clock is looked at once for
/// each, and that counts.
fn timed(manager: &Manager, owner: &Token) -> Vec<Duration> {
    const ROUNDS: usize = 200_000;
    let one = || {
        let start = Instant::now();
        round(manager, owner);
        start.elapsed()
    };
    (0..ROUNDS / 10).for_each(|_| _ = one()); // to warm up
    (0..ROUNDS).map(|_| one()).collect()
}

/// Rounds of one thread.
pub(crate) fn alone(manager: &Manager, owner: &Token) -> Times {
    Times::new(timed(manager, owner))
}

/// Rounds of two threads at once.
pub(crate) fn together(manager: &Manager, owner: &Token) -> Times {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| timed(manager, owner));
        let mut times = timed(manager, owner);
        times.extend(other.join().expect("the other thread"));
        Times::new(times)
    })
}

/// Rounds of one thread while another reads the statistics of `other` without a pause, and how often it has done that.
///
/// Where that is a manager that nobody else uses, the thread takes the same part of the machine and is in nobody's way.
pub(crate) fn beside_a_reader(manager: &Manager, owner: &Token, other: &Manager) -> (Times, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                black_box(other.statistics());
                count += 1;
            }
            count
        });
        let times = timed(manager, owner);
        over.store(true, Ordering::Relaxed);
        (Times::new(times), reader.join().expect("the other thread"))
    })
}

/// One with as many places, which nobody uses.
pub(crate) fn unused() -> Manager {
    Manager::new(Config::default().max_buffers(LIVE + 8)).expect("a manager")
}

/// How late the first and the last of [`LIVE`] buffers were that were due at once, run for run.
pub(crate) struct Due {
    /// From the time of the first until one was found wiped.
    pub(crate) first: Times,
    /// From the time of the first until all were found wiped.
    pub(crate) last: Times,
    /// From the time of the first until the manager had heard of all.
    pub(crate) told: Times,
    /// How far apart the first and the last were due, at the most.
    pub(crate) spread: Duration,
}

/// So many runs.
pub(crate) fn due_at_once(runs: usize) -> Due {
    let (mut times, mut spread) = ([const { Vec::new() }; 3], Duration::ZERO);
    for _ in 0..runs {
        let (late, apart) = due_once(Duration::from_millis(250));
        times.iter_mut().zip(late).for_each(|(times, late)| times.push(late));
        spread = spread.max(apart);
    }
    let [first, last, told] = times.map(Times::new);
    Due { first, last, told, spread }
}

/// All are read one after the other, and nobody uses them any more from then on: so their time-outs begin together. Looks every
/// 100 µs, which is part of what is told.
fn due_once(rest: Duration) -> ([Duration; 3], Duration) {
    let manager = Manager::new(Config::default().max_buffers(LIVE).timeout(rest)).expect("a manager");
    let owner = manager.owner().expect("an owner");
    let ids: Vec<Id> = (0..LIVE).map(|_| manager.allocate(&owner, 32, None).expect("locked memory")).collect();
    let begin = Instant::now();
    let read = ids.iter().all(|id| manager.read(&owner, id, .., |_| ()).is_ok());
    let (due, spread) = (begin + rest, begin.elapsed());
    if !read || spread > rest / 2 {
        return due_once(4 * rest); // a machine that was busy elsewhere: no run
    }
    let all = Statistics::now().live;
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let (mut first, mut last) = (None, None);
    while manager.statistics().live > 0 || last.is_none() {
        let live = Statistics::now().live;
        first = first.or_else(|| (live < all).then(|| due.elapsed()));
        last = last.or_else(|| (live + LIVE <= all).then(|| due.elapsed()));
        std::thread::sleep(Duration::from_micros(100));
    }
    let told = due.elapsed();
    ([first.unwrap_or(told), last.unwrap_or(told), told], spread)
}
