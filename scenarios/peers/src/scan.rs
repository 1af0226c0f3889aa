//! Searching memory for every piece of secrets, from a shortest length on.
//!
//! The task is the same for all: any piece of at least L bytes of N random secrets of 32 to 64 bytes, at any offset.
//! Multi-pattern searchers get windows of the secrets of which each such piece holds one: all windows of L bytes, or for
//! L = 16 every ninth window of 8 bytes. memmem gets one whole secret, which is less than what is asked.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use harness::canary::{Canary, Seed};
use harness::scan::{Index, Scanner};
use harness::variants::{FORMS, Form};
use memchr::memmem::Finder;
use scenario_protocol::CanaryKind;

use crate::hyperscan::Hyperscan;
use crate::{ROUNDS, judged, rate, row, spent};

const MIB: usize = 1 << 20;

/// Bytes of each kind of memory: above what the caches hold of it.
const SIZE: usize = 64 * MIB;

/// Bytes handed to the scanner at a time, as the harness does.
const CHUNK: usize = 256 << 10;

/// A slow searcher gets only so much of the memory that a round takes no longer.
const ROUND: Duration = Duration::from_millis(200);

/// Shortest piece, secrets, and the part of the read bandwidth that is wanted.
///
/// Where a target is a speed beside a bandwidth (7 GB/s where read is 21), it is that ratio.
const TASKS: [(usize, u32, Option<f64>); 13] = [
    (16, 1, Some(0.6)),
    (16, 16, Some(0.6)),
    (16, 256, Some(0.6)),
    (16, 4096, Some(0.3)),
    (8, 1, Some(7.0 / 21.0)),
    (8, 16, Some(7.0 / 21.0)),
    (8, 256, Some(5.0 / 21.0)),
    (8, 4096, Some(2.7 / 21.0)),
    (6, 1, None),
    (6, 16, None),
    (6, 256, Some(4.0 / 21.0)),
    (6, 4096, None),
    (4, 256, Some(1.5 / 21.0)),
];

/// Searches memory and counts what it finds.
type Search<'a> = Box<dyn Fn(&[u8]) -> u64 + 'a>;

/// Something that searches: it takes memory and says how much it found.
struct Searcher<'a> {
    search: Search<'a>,
    /// How much of the memory it gets.
    size: usize,
    best: f64,
}

impl<'a> Searcher<'a> {
    fn new(search: impl Fn(&[u8]) -> u64 + 'a) -> Self {
        Self { search: Box::new(search), size: SIZE, best: 0.0 }
    }

    /// Finds out how much it can search in a round; the first pass also warms it up.
    fn sized(mut self, memory: &[u8]) -> Self {
        let time = spent(|| _ = black_box((self.search)(&memory[..MIB])));
        let fits = ROUND.as_secs_f64() / time.as_secs_f64().max(1e-9);
        self.size = MIB * (fits as usize).clamp(1, SIZE / MIB);
        self
    }

    fn round(&mut self, memory: &[u8]) {
        let memory = black_box(&memory[..self.size]);
        let time = spent(|| _ = black_box((self.search)(memory)));
        self.best = self.best.max(rate(self.size, time));
    }
}

/// The table of all tasks over two kinds of memory.
pub fn table() -> String {
    let mut random = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    let memories = [("random", random), ("real", files())];
    let mut text = "## Scan\n\nAny piece of at least L bytes of N secrets, at any offset. *random*: 64 MiB of random bytes; *real*: this program \
         and the libraries it has loaded, over and over. `forms` is what one row of an audit looks for: a canary of 32 bytes \
         and eight decoys, in all forms.\n\n".to_owned();
    text.push_str(
        "| memory | L | N | read | ours | ours / read | target | Hyperscan | aho-corasick | memmem, one whole |\n",
    );
    text.push_str("|-|-|-|-|-|-|-|-|-|-|\n");
    let mut missing = BTreeSet::new();
    for (name, memory) in &memories {
        for (length, count, wanted) in TASKS {
            let secrets = secrets(count);
            let needles: Vec<&[u8]> = secrets.iter().map(Canary::bytes).collect();
            let index = Index::new(&needles, &[Form::Raw], length).expect("canaries can be searched for");
            text.push_str(&task(name, memory, (length, &count.to_string()), wanted, &needles, &index, &mut missing));
        }
        let mut row = vec![seed().canary("row", CanaryKind::Bytes, 32)];
        row.extend(seed().decoys("row", CanaryKind::Bytes, 32, 8));
        let needles: Vec<&[u8]> = row.iter().map(Canary::bytes).collect();
        for length in [6, 16] {
            let index = Index::new(&needles, &FORMS, length).expect("canaries can be searched for");
            text.push_str(&task(name, memory, (length, "forms"), None, &[], &index, &mut missing));
        }
    }
    for why in missing {
        text.push_str(&format!("\nNot measured: {why}.\n"));
    }
    text
}

fn task(
    name: &str,
    memory: &[u8],
    (length, count): (usize, &str),
    wanted: Option<f64>,
    needles: &[&[u8]],
    index: &Index,
    missing: &mut BTreeSet<String>,
) -> String {
    let windows = windows(needles, length);
    let hyperscan = (!windows.is_empty())
        .then(|| Hyperscan::new(&windows))
        .and_then(|made| made.map_err(|why| missing.insert(format!("Hyperscan: {why}"))).ok());
    let automaton = (!windows.is_empty()).then(|| {
        let kind = AhoCorasickKind::ContiguousNFA;
        AhoCorasick::builder().kind(Some(kind)).match_kind(MatchKind::Standard).build(&windows)
    });
    let automaton = automaton.and_then(|made| made.map_err(|why| missing.insert(format!("aho-corasick: {why}"))).ok());
    let finder = (needles.len() == 1).then(|| Finder::new(needles[0]));

    let mut read = Searcher::new(sum).sized(memory);
    let mut ours = Searcher::new(|memory| scan(index, memory)).sized(memory);
    let mut others = [
        hyperscan.as_ref().map(|made| Searcher::new(|memory| made.count(memory)).sized(memory)),
        automaton.as_ref().map(|made| Searcher::new(|memory| made.find_iter(memory).count() as u64).sized(memory)),
        finder.as_ref().map(|made| Searcher::new(|memory| made.find_iter(memory).count() as u64).sized(memory)),
    ];
    for _ in 0..ROUNDS {
        read.round(memory);
        ours.round(memory);
        others.iter_mut().flatten().for_each(|other| other.round(memory));
    }
    let ratio = ours.best / read.best;
    let figure = |speed: f64| if speed < 1.0 { format!("{speed:.2}") } else { format!("{speed:.1}") };
    let mut cells = vec![name.to_owned(), length.to_string(), count.to_owned(), figure(read.best), figure(ours.best)];
    cells.extend([format!("{ratio:.2}"), judged(ratio, wanted)]);
    cells.extend(others.iter().map(|other| other.as_ref().map_or("–".to_owned(), |other| figure(other.best))));
    let line = row(&cells);
    eprint!("{line}");
    line
}

fn seed() -> Seed {
    Seed::from_hex(&"5c".repeat(32)).expect("64 digits")
}

fn secrets(count: u32) -> Vec<Canary> {
    (0..count).map(|at| seed().canary(&format!("bench {at}"), CanaryKind::Bytes, 32 + at as usize % 33)).collect()
}

/// Windows of which every piece of `length` bytes holds one.
fn windows<'a>(needles: &[&'a [u8]], length: usize) -> Vec<&'a [u8]> {
    let (window, every) = if length == 16 { (8, 9) } else { (length, 1) };
    needles.iter().flat_map(|needle| needle.windows(window).step_by(every)).collect()
}

fn scan(index: &Index, memory: &[u8]) -> u64 {
    let mut scanner = Scanner::new(index);
    for (at, chunk) in memory.chunks(CHUNK).enumerate() {
        scanner.feed((at * CHUNK) as u64, chunk);
    }
    scanner.finish().len() as u64
}

fn sum(memory: &[u8]) -> u64 {
    memory.as_chunks().0.iter().fold(0, |sum: u64, bytes| sum.wrapping_add(u64::from_ne_bytes(*bytes)))
}

/// This program and the libraries that it has loaded, over and over.
fn files() -> Vec<u8> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files: BTreeSet<_> = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
    let bytes: Vec<u8> = files.into_iter().filter_map(|file| std::fs::read(file).ok()).flatten().collect();
    bytes.into_iter().cycle().take(SIZE).collect()
}
