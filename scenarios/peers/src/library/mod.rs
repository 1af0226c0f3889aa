//! What the library of secrets does, beside others that do the like: wiping, comparing, making, sealing, scrubbing; and what its
//! manager of buffers does, which has no peer here.

mod contest;
mod foreign;
#[path = "../../../../secmem/benches/manager/figures.rs"] // what the bench prints
mod manager;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use contest::{Bound, Contender, contend, contend_on_two_threads};
use secmem::scrub::Stack;
use secmem::wipe::{Schedule, wipe, wipe_with};
use secmem::{Backend, Coffer, Secret, Statistics, ct};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::row;

/// What stands above the table.
pub const HEAD: &str = "\
# Figures

Written by `cargo xtask bench --peers --write`; not by hand.

All that is compared ran in turn, in one run on one machine; the best of many rounds counts, by the processor time of the
working thread. The manager's rounds alone are timed one by one on the wall clock, and their median counts; how late buffers are
wiped that are due together is what a hundred runs came to. The figures are the machine's, and other work on it disturbs them; the ratios are what can be compared. Some
targets are figures of the machine on which they were set, an AMD EPYC Milan: where even the C library does not reach one
here, the row beside it says so.
";

/// Rows of the table, as they come.
struct Table(String);

impl Table {
    /// The columns: ours and the peers side by side, then what was wanted.
    fn new() -> Self {
        Self("| work | ours | best peer | ratio | target | met or missed | others |\n|-|-|-|-|-|-|-|\n".to_owned())
    }

    /// One more row, told as it comes.
    fn add(&mut self, cells: &[String]) {
        let line = row(cells);
        eprint!("{line}");
        self.0.push_str(&line);
    }

    /// A row of what is counted, and has no peer here.
    fn count(&mut self, work: &str, is: usize, target: &str, met: bool) {
        let verdict = if met { "met" } else { "**missed**" };
        let cells = [work, &is.to_string(), "–", "–", target, verdict, ""];
        self.add(&cells.map(str::to_owned));
    }

    /// A row of a time that has no peer here; `others` is what else there is to say.
    fn time(&mut self, work: &str, is: Duration, (target, most): (&str, Duration), others: &str) {
        let verdict = if is <= most { "met" } else { "**missed**" };
        let cells = [work, &span(is), "–", "–", target, verdict, others];
        self.add(&cells.map(str::to_owned));
    }
}

/// The table of all works, and why peers are missing from it.
pub fn table() -> String {
    let (sodium, openssl) = (foreign::Sodium::load(), foreign::OpenSsl::load());
    let mut table = Table::new();
    budget(&mut table);
    let (sodium_there, openssl_there) = (sodium.as_ref().ok().copied(), openssl.as_ref().ok().copied());
    wiping(&mut table, sodium_there, openssl_there);
    comparing(&mut table, sodium_there, openssl_there);
    allocating(&mut table, sodium_there, openssl_there);
    storing(&mut table);
    scrubbing(&mut table);
    managing(&mut table);
    let mut text = table.0;
    text.push_str("\nNot measured:\n\n");
    for why in [sodium.err(), openssl.err()].into_iter().flatten() {
        text.push_str(&format!("- {why}\n"));
    }
    text.push_str(
        "- peers that seal at rest: memguard is a program of Go, redoubt's licence keeps it out, and secure-gate builds its own \
         C code. Beside the coffer stands its cipher alone, with the key ready.\n- ring: it needs a C compiler.\n",
    );
    text
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// How far the lock budget goes. First of all, for secrets that were made before count.
fn budget(table: &mut Table) {
    let mut secrets = Vec::new();
    let mut within = 0;
    for _ in 0..10_000 {
        let Ok(secret) = Secret::new(32) else { break };
        secrets.push(secret);
        if secrets.len() <= 2048 && Statistics::now().locked <= 64 << 10 {
            within = secrets.len();
        }
    }
    table.count("secrets of 32 B in 64 KiB of locked memory", within, "≥ 900", within >= 900);
    let mappings = Statistics::now().arenas;
    let met = mappings <= 10 && secrets.len() == 10_000;
    table.count(&format!("mappings for {} secrets of 32 B", secrets.len()), mappings, "≤ 10", met);
}

fn wiping(table: &mut Table, sodium: Option<foreign::Sodium>, openssl: Option<foreign::OpenSsl>) {
    let mut buffer = vec![0xC3_u8; (64 << 20) + 64];
    let at = buffer.as_ptr().align_offset(64);
    for len in [16, 32, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 64 << 20] {
        let data = RefCell::new(&mut buffer[at..at + len]);
        let mut contenders = vec![
            Contender::on("ours", &data, wipe),
            Contender::on("explicit_bzero", &data, foreign::explicit_bzero),
            Contender::on("zeroize", &data, Zeroize::zeroize),
            Contender::on("memsec", &data, foreign::memsec_memzero),
        ];
        contenders.extend(sodium.map(|sodium| Contender::on("sodium_memzero", &data, move |data| sodium.zero(data))));
        contenders
            .extend(openssl.map(|openssl| Contender::on("OPENSSL_cleanse", &data, move |data| openssl.zero(data))));
        let mut bounds = vec![Bound::Ratio("explicit_bzero", 1.3)];
        bounds.extend(match len {
            32 => Some(Bound::Nanoseconds(4.0)),
            4096 => Some(Bound::Rate(95.0)),
            0x400_0000 => Some(Bound::Rate(48.0)),
            _ => None,
        });
        table.add(&contend(&format!("wipe {}", size(len)), Some(len), contenders, &bounds));
    }
    for len in [4 << 10, 64 << 10, 1 << 20, 64 << 20] {
        let data = RefCell::new(&mut buffer[at..at + len]);
        let contenders = vec![
            Contender::on("ours", &data, |data| wipe_with(data, Schedule::SixPass).expect("random bytes")),
            Contender::on("volatile bytes", &data, foreign::volatile_six),
        ];
        table.add(&contend(&format!("six passes over {}", size(len)), Some(len), contenders, &[Bound::Rate(6.0)]));
    }
}

fn comparing(table: &mut Table, sodium: Option<foreign::Sodium>, openssl: Option<foreign::OpenSsl>) {
    for len in [16, 32, 64, 128, 256, 1 << 10, 4 << 10, 1 << 20] {
        let buffers = [vec![0xC3; len + 64], vec![0xC3; len + 64]];
        let [a, b] = buffers.each_ref().map(|buffer| {
            let at = buffer.as_ptr().align_offset(64);
            &buffer[at..at + len]
        });
        let mut contenders = vec![
            equal("ours", a, b, ct::eq),
            equal("memcmp (leaks)", a, b, foreign::memcmp),
            equal("constant_time_eq", a, b, constant_time_eq::constant_time_eq),
            equal("subtle", a, b, |a, b| a.ct_eq(b).into()),
            equal("memsec", a, b, foreign::memsec_memeq),
        ];
        contenders.extend(sodium.map(|sodium| equal("sodium_memcmp", a, b, move |a, b| sodium.eq(a, b))));
        contenders.extend(openssl.map(|openssl| equal("CRYPTO_memcmp", a, b, move |a, b| openssl.eq(a, b))));
        table.add(&contend(
            &format!("equality {}", size(len)),
            None,
            contenders,
            &[Bound::Ratio("memcmp (leaks)", 1.0)],
        ));
    }
}

fn equal<'a>(name: &'static str, a: &'a [u8], b: &'a [u8], eq: impl Fn(&[u8], &[u8]) -> bool + 'a) -> Contender<'a> {
    Contender::new(name, move || _ = black_box(eq(black_box(a), black_box(b))))
}

fn secret() {
    let mut secret = Secret::new(32).expect("locked memory");
    secret.with_mut(|bytes| bytes.copy_from_slice(black_box(&[7; 32]))).expect("an access");
}

fn malloc() {
    let mut plain = vec![0_u8; 32];
    plain.copy_from_slice(black_box(&[7; 32]));
    black_box(&mut plain);
}

fn allocating(table: &mut Table, sodium: Option<foreign::Sodium>, openssl: Option<foreign::OpenSsl>) {
    let contenders = || {
        let mut contenders = vec![
            Contender::new("ours", secret),
            Contender::new("malloc (no protection)", malloc),
            Contender::new("memsec", foreign::memsec_secret),
        ];
        contenders.extend(sodium.map(|sodium| Contender::new("sodium_malloc", move || sodium.secret())));
        contenders.extend(openssl.map(|openssl| Contender::new("CRYPTO_secure_malloc", move || openssl.secret())));
        contenders
    };
    let bounds = [Bound::Nanoseconds(25.0)];
    let work = "make + write + wipe + free 32 B";
    table.add(&contend(&format!("{work}, 1 thread"), None, contenders(), &bounds));
    table.add(&contend_on_two_threads(&format!("{work}, 2 threads"), contenders, &bounds));
}

fn storing(table: &mut Table) {
    let Ok(coffer) = Coffer::new() else { return };
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from([7; 32]));
    for len in [32, 4096] {
        let secret = Secret::new(len).expect("locked memory");
        let stored = coffer.store(&secret).expect("a coffer");
        let mut text = vec![7; len];
        let tag =
            cipher.encrypt_inout_detached(&Nonce::from([0; 12]), b"", (&mut text[..]).into()).expect("a short text");
        let sealing = vec![
            Contender::new("ours", || drop(coffer.store(&secret))),
            Contender::new("AES-256-GCM alone", || {
                let mut text = vec![7; len];
                let _ = black_box(cipher.encrypt_inout_detached(
                    &Nonce::from([0; 12]),
                    b"",
                    black_box(&mut text[..]).into(),
                ));
            }),
        ];
        table.add(&contend(&format!("seal {}", size(len)), None, sealing, &[]));
        let opening = vec![
            Contender::new("ours", || drop(stored.open(Secret::options()))),
            Contender::new("AES-256-GCM alone", || {
                let mut text = text.clone();
                let opened =
                    cipher.decrypt_inout_detached(&Nonce::from([0; 12]), b"", black_box(&mut text[..]).into(), &tag);
                opened.expect("what was sealed");
            }),
        ];
        let bounds = if len == 32 { &[Bound::Nanoseconds(1000.0)][..] } else { &[] };
        table.add(&contend(&format!("open {}", size(len)), None, opening, bounds));
    }
}

#[inline(never)]
fn sum(key: &[u8; 32]) -> u32 {
    key.iter().map(|&byte| u32::from(byte)).sum()
}

fn scrubbing(table: &mut Table) {
    // Signals are always handled, so the 0.6 µs for that are part of each target.
    for (len, most) in [(16 << 10, 1000.0), (64 << 10, 1800.0), (1 << 20, 5600.0)] {
        let mut stack = Stack::with_backend(Backend::Mlock, len).expect("a protected stack");
        let mut whole = vec![0_u8; len];
        let contenders = vec![
            Contender::new("ours", || {
                let mut total = 0;
                stack.run(|| total = sum(black_box(&[7; 32]))).expect("a protected stack");
                black_box(total);
            }),
            Contender::new("bare call", || _ = black_box(sum(black_box(&[7; 32])))),
            Contender::new("explicit_bzero of as much", || foreign::explicit_bzero(black_box(&mut whole))),
        ];
        let work = format!("call on a scrubbed stack of {}", size(len));
        table.add(&contend(&work, None, contenders, &[Bound::Over("bare call", most)]));
    }
}

/// As the other rows have it.
fn span(time: Duration) -> String {
    let text = format!("{time:.2?}");
    let unit = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    format!("{} {}", &text[..unit], &text[unit..])
}

fn managing(table: &mut Table) {
    let (store, owner, _ids) = manager::full();
    let work = "manager of 10000 buffers: allocate + write + read + deallocate 32 B";
    let one = manager::alone(&store, &owner).median();
    table.time(&format!("{work}, 1 thread"), one, ("≤ 1 µs", Duration::from_micros(1)), "");
    let two = manager::together(&store, &owner).median();
    let ratio = |of: Duration, to: Duration| of.as_secs_f64() / to.as_secs_f64();
    let others = format!("{:.2} × 1 thread", ratio(two, one));
    table.time(&format!("{work}, 2 threads"), two, ("≤ 3 × 1 thread", 3 * one), &others);
    let (apart, _) = manager::beside_a_reader(&store, &owner, &manager::unused());
    let (told, count) = manager::beside_a_reader(&store, &owner, &store);
    let (apart, told) = (apart.median(), told.median());
    let others = format!("{:.2} × as beside one who reads another manager's; read {count} times", ratio(told, apart));
    let beside = format!("{work}, beside one who reads its statistics without a pause");
    table.add(&[&beside, &span(told), "–", "–", "–", "–", &others].map(str::to_owned));
    let due = manager::due_at_once(100);
    let work = format!("{} buffers due within {}", manager::LIVE, span(due.spread));
    for (name, times, most) in [("first", &due.first, 10), ("last", &due.last, 20)] {
        let [median, most_late] = [50, 100].map(|share| times.percentile(share));
        let others = format!("median {}, at most {}", span(median), span(most_late));
        let target = (format!("≤ {most} ms"), Duration::from_millis(most));
        let work = format!("{work}: the {name} wiped, p99 of 100 runs");
        table.time(&work, times.percentile(99), (&target.0, target.1), &others);
    }
    let told = span(due.told.percentile(99));
    let work = format!("{work}: the manager has heard of all, p99 of 100 runs");
    table.add(&[&work, &told, "–", "–", "–", "–", ""].map(str::to_owned));
}
