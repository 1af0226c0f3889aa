//! How fast the harness searches and reads memory, and the library wipes, compares, makes, seals and scrubs, beside others that
//! do the like and beside what the machine allows.
//!
//! All that is compared runs in turn, round after round, in one run on one machine; the best round counts. Times are
//! processor times of the thread that works, so that other work on the machine disturbs less. Quote the ratios to `read`
//! (the sum of the same bytes as words): the absolute figures are the machine's.
//!
//! `cargo xtask bench --peers` starts it.

mod acquire;
mod hyperscan;
mod library;
mod scan;
mod target;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::time::ClockId;

/// Rounds; the best one of each work counts.
const ROUNDS: usize = 7;

const HEAD: &str = "\
# Figures

Written by `cargo xtask bench --peers --write`; not by hand.

All that is compared ran in turn, in one run on one machine. GB/s (10⁹ bytes) of the best of several rounds, by the
processor time of the working thread. The figures are the machine's; the ratios to `read` (summing the same bytes as 64-bit
words on one thread) are what can be compared.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["target", word] => target::stand(word),
        ["harness", rest @ ..] if rest.len() < 2 => print(&harness(), rest.first()),
        ["library", rest @ ..] if rest.len() < 2 => print(&library(), rest.first()),
        _ => {
            eprintln!("usage: peers harness|library [FILE]");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::from(70)
        }
    }
}

fn harness() -> String {
    format!("{HEAD}\n{}; loop: {}.\n\n{}\n{}", machine(), harness::scan::loop_name(), scan::table(), acquire::table())
}

fn library() -> String {
    format!("{}\n{}.\n\n{}", library::HEAD, machine(), library::table())
}

/// Prints the figures, and writes them to a file if there is one.
fn print(text: &str, file: Option<impl AsRef<Path>>) -> std::io::Result<()> {
    print!("{text}");
    file.map_or(Ok(()), |file| std::fs::write(file, text))
}

/// What the figures depend on.
fn machine() -> String {
    let line = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split_once(':').map(|(_, value)| value.trim().to_owned()));
        value.unwrap_or_else(|| "unknown".to_owned())
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = line("/proc/cpuinfo", "model name");
    format!("Processor: {processor}, {threads} threads; Linux {}", kernel.trim())
}

/// Bytes a second, in GB.
fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// The processor time that this thread spends in `work`.
fn spent(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("Linux has the clock");
        Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32)
    };
    let start = now();
    work();
    now() - start
}

/// One row of a table in Markdown.
fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A ratio beside the one that is wanted.
fn judged(is: f64, wanted: Option<f64>) -> String {
    match wanted {
        None => "–".to_owned(),
        Some(wanted) if is >= wanted => format!("≥ {wanted:.2}: met"),
        Some(wanted) => format!("≥ {wanted:.2}: **missed**"),
    }
}
