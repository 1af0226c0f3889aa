//! The oracle: reads a process that stands still, page by page, and searches every byte in the plainest way that ends.
//!
//! It shares nothing with what it judges but the stop: mappings, pages, registers, ways of writing and search are done
//! again here, on fewer forms, from the kernel's documentation. Speed is bought with one trick alone: a run of two bytes
//! or more begins with two bytes, so only places where some pattern's two neighbours stand are compared at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use findings::Form;
use rustix::fs::OFlags;
use rustix::net::RecvFlags;
use rustix::pipe::SpliceFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

const PAGE: u64 = 4096;

/// Shortest run that counts, in bytes of the secret.
pub(crate) const MIN_LENGTH: u64 = 6;

/// One residue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) moment: String,
    pub(crate) process: u32,
    /// As the kernel names the mapping; `register` for registers; `pipe`, `socket`, `memfd`, `deleted-file` for what the
    /// kernel keeps behind a descriptor.
    pub(crate) place: String,
    pub(crate) form: Form,
    /// Bytes of the secret that it shows: the first, and how many.
    pub(crate) offset: u64,
    pub(crate) shown: u64,
    /// Where it lies, in bytes; 0 for registers; an offset behind a descriptor.
    pub(crate) address: u64,
    pub(crate) length: u64,
}

/// A way of writing the secret: bytes, and for each the bits of the secret that it shows, `first..first + count`.
struct Pattern {
    form: Form,
    bytes: Vec<u8>,
    bits: Vec<(u64, u64)>,
}

/// The forms that the oracle knows.
pub(crate) const KNOWN: [Form; 16] = [
    Form::Raw,
    Form::Reversed,
    Form::HexLower,
    Form::HexUpper,
    Form::Base64,
    Form::Base64Url,
    Form::Swap16,
    Form::Swap32,
    Form::Swap64,
    Form::Utf16Le,
    Form::Utf16Be,
    Form::Utf32Le,
    Form::JsonArray,
    Form::Xor36,
    Form::Xor5c,
    Form::Inverted,
];

fn patterns(secret: &[u8]) -> Vec<Pattern> {
    let each = |form, write: &dyn Fn(usize, u8) -> Vec<u8>| {
        let (mut bytes, mut bits) = (Vec::new(), Vec::new());
        for (at, byte) in secret.iter().enumerate() {
            let written = write(at, *byte);
            let (whole, share) = (8 * at as u64, 8 / written.len().min(2) as u64);
            // Two characters share the bits of a byte; of more, like a zero beside each, the first that is not zero has all.
            for (number, one) in written.iter().enumerate() {
                let hex = matches!(form, Form::HexLower | Form::HexUpper);
                let has = if hex {
                    (whole + number as u64 * share, share)
                } else {
                    (whole, if *one == *byte || written.len() == 1 { 8 } else { 0 })
                };
                bytes.push(*one);
                bits.push(has);
            }
        }
        Pattern { form, bytes, bits }
    };
    let map = |form, change: &dyn Fn(u8) -> u8| each(form, &|_, byte| vec![change(byte)]);
    let order = |form, from: &dyn Fn(usize) -> usize| Pattern {
        form,
        bytes: (0..secret.len()).map(|at| secret[from(at)]).collect(),
        bits: (0..secret.len()).map(|at| (8 * from(at) as u64, 8)).collect(),
    };
    let last = secret.len() - 1;
    let swap = |width: usize| move |at: usize| (at / width * width + (width - 1 - at % width)).min(last);
    let mut all = vec![
        map(Form::Raw, &|byte| byte),
        order(Form::Reversed, &|at| last - at),
        each(Form::HexLower, &|_, byte| format!("{byte:02x}").into_bytes()),
        each(Form::HexUpper, &|_, byte| format!("{byte:02X}").into_bytes()),
        trimmed(each(Form::Utf16Le, &|_, byte| vec![byte, 0])),
        trimmed(each(Form::Utf32Le, &|_, byte| vec![byte, 0, 0, 0])),
        map(Form::Xor36, &|byte| byte ^ 0x36),
        map(Form::Xor5c, &|byte| byte ^ 0x5c),
        map(Form::Inverted, &|byte| !byte),
    ];
    if secret.len().is_multiple_of(8) {
        all.push(order(Form::Swap16, &swap(2)));
        all.push(order(Form::Swap32, &swap(4)));
        all.push(order(Form::Swap64, &swap(8)));
    }
    for (form, alphabet) in [(Form::Base64, STANDARD), (Form::Base64Url, URL)] {
        all.extend((0..3).map(|phase| base64(form, alphabet, secret, phase)));
    }
    all.push(numbers(secret));
    all
}

/// Without the zeroes behind the last character, which are anybody's.
fn trimmed(mut pattern: Pattern) -> Pattern {
    while pattern.bytes.last() == Some(&0) {
        pattern.bytes.pop();
        pattern.bits.pop();
    }
    pattern
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The characters that the secret alone decides when `phase` bytes stand before it in its group of three.
fn base64(form: Form, alphabet: &[u8; 64], secret: &[u8], phase: u64) -> Pattern {
    let (mut bytes, mut bits) = (Vec::new(), Vec::new());
    let bit = |at: u64| usize::from(secret[(at / 8) as usize] >> (7 - at % 8) & 1);
    let mut first = (6 - phase * 8 % 6) % 6; // of the secret's bits, the first that begins a character
    while first + 6 <= 8 * secret.len() as u64 {
        let value = (first..first + 6).fold(0, |value, at| value << 1 | bit(at));
        bytes.push(alphabet[value]);
        bits.push((first, 6));
        first += 6;
    }
    Pattern { form, bytes, bits }
}

/// Decimal numbers with commas between, as JSON and debug output write bytes; without spaces.
fn numbers(secret: &[u8]) -> Pattern {
    let (mut bytes, mut bits) = (Vec::new(), Vec::new());
    for (at, byte) in secret.iter().enumerate() {
        let text = byte.to_string();
        for number in 0..text.len() {
            // Half a number says little: it counts once its last digit stands there.
            bits.push((8 * at as u64, if number + 1 == text.len() { 8 } else { 0 }));
        }
        bytes.extend(text.into_bytes());
        if at + 1 < secret.len() {
            bytes.push(b',');
            bits.push((8 * at as u64 + 8, 0));
        }
    }
    Pattern { form: Form::JsonArray, bytes, bits }
}

/// A run of a pattern in some bytes.
struct Run {
    form: Form,
    at: usize,
    length: usize,
    offset: u64,
    shown: u64,
}

/// Patterns, and where in which of them two neighbouring bytes stand.
struct Patterns {
    all: Vec<Pattern>,
    beginnings: Vec<Vec<(usize, usize)>>,
}

impl Patterns {
    fn of(secret: &[u8]) -> Self {
        let all = patterns(secret);
        let mut beginnings = vec![Vec::new(); 1 << 16];
        for (number, pattern) in all.iter().enumerate() {
            for (start, pair) in pattern.bytes.windows(2).enumerate() {
                beginnings[usize::from(pair[0]) << 8 | usize::from(pair[1])].push((number, start));
            }
        }
        Self { all, beginnings }
    }
}

/// All runs of all patterns that show enough; of those within another, the outer one alone. `address` is the first byte's.
fn search(patterns: &Patterns, address: u64, memory: &[u8]) -> Vec<Run> {
    let Patterns { all, beginnings } = patterns;
    let mut runs: Vec<Run> = Vec::new();
    for (at, pair) in memory.windows(2).enumerate() {
        for &(number, start) in &beginnings[usize::from(pair[0]) << 8 | usize::from(pair[1])] {
            let pattern = &all[number];
            if start > 0 && at > 0 && memory[at - 1] == pattern.bytes[start - 1] {
                continue; // within a run that began before
            }
            let mut end = start;
            while end < pattern.bytes.len() && memory.get(at + end - start) == Some(&pattern.bytes[end]) {
                end += 1;
            }
            let bits = &pattern.bits[start..end];
            let shown = bits.iter().map(|(_, count)| count).sum::<u64>() / 8;
            if shown >= MIN_LENGTH {
                let offset = bits.iter().filter(|(_, count)| *count > 0).map(|(first, _)| first / 8).min();
                let offset = offset.unwrap_or(0);
                // Between small characters the zeroes read alike in both orders: units lie at even addresses.
                let odd = !(address + at as u64).is_multiple_of(2);
                let form = if pattern.form == Form::Utf16Le && odd { Form::Utf16Be } else { pattern.form };
                runs.push(Run { form, at, length: end - start, offset, shown });
            }
        }
    }
    runs.sort_by_key(|run| (run.at, std::cmp::Reverse(run.length), run.form));
    let mut covered = 0;
    runs.retain(|run| {
        let outer = run.at + run.length > covered;
        covered = covered.max(run.at + run.length);
        outer
    });
    runs
}

/// Searches the memory and the registers of a process that stands still, and what the kernel keeps for it behind its
/// descriptors. Pieces of the first `known` bytes alone, which anybody knows, are nobody's secret.
///
/// # Errors
///
/// What reading its mappings, its memory or its registers fails with; a page that is refused is left out.
///
/// # Source
///
/// proc_pid_maps(5), proc_pid_pagemap(5): bit 63 is present, bit 62 swapped.
pub(crate) fn look(secret: &[u8], known: u64, moment: &str, process: u32, pid: i32) -> io::Result<Vec<Place>> {
    let patterns = Patterns::of(secret);
    let mut places = Vec::new();
    let mut add = |place: &str, address: u64, runs: Vec<Run>| {
        for run in runs.into_iter().filter(|run| run.offset + run.shown > known) {
            places.push(Place {
                moment: moment.to_owned(),
                process,
                place: place.to_owned(),
                form: run.form,
                offset: run.offset,
                shown: run.shown,
                address: if place == "register" { 0 } else { address + run.at as u64 },
                length: run.length as u64,
            });
        }
    };
    let open = |name: &str| File::open(format!("/proc/{pid}/{name}"));
    let (mem, pagemap) = (open("mem")?, open("pagemap")?);
    let mut stretch: (u64, String, Vec<u8>) = (0, String::new(), Vec::new());
    for line in std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(permissions)) = (words.next(), words.next()) else { continue };
        let name = words.skip(3).collect::<Vec<_>>().join(" ");
        let Some((start, end)) = range.split_once('-') else { continue };
        let address = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
        let (start, end) = (address(start)?, address(end)?);
        if name.starts_with("[v") && name != "[vdso]" {
            continue;
        }
        let mut entries = vec![0; 8 * ((end - start) / PAGE) as usize];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        for (page, entry) in (start..end).step_by(PAGE as usize).zip(entries.as_chunks::<8>().0) {
            let populated = u64::from_le_bytes(*entry) >> 62 != 0;
            if !populated && permissions.ends_with('p') {
                continue; // nobody wrote there
            }
            let mut bytes = vec![0; PAGE as usize];
            if mem.read_exact_at(&mut bytes, page).is_err() {
                continue;
            }
            if stretch.0 + stretch.2.len() as u64 != page || stretch.1 != name {
                add(&stretch.1, stretch.0, search(&patterns, stretch.0, &stretch.2));
                stretch = (page, name.clone(), Vec::new());
            }
            stretch.2.extend_from_slice(&bytes);
        }
    }
    add(&stretch.1, stretch.0, search(&patterns, stretch.0, &stretch.2));
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = task?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        // A thread that is on its way out has none any more.
        for registers in harness::oracle::registers(thread).into_iter().flatten() {
            add("register", 0, search(&patterns, 0, &registers));
        }
    }
    for (name, bytes) in behind_descriptors(pid)? {
        add(name, 0, search(&patterns, 0, &bytes));
    }
    Ok(places)
}

/// What waits in pipes and sockets and what stands in files without a name, each once. Descriptors 0 to 2 lead to
/// whoever started the process. A file of which any piece is mapped counts as memory.
///
/// # Source
///
/// tee(2), *does not consume*; recv(2), `MSG_PEEK`; pidfd_getfd(2).
fn behind_descriptors(pid: i32) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let process = rustix::process::pidfd_open(Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
    let mapped: BTreeSet<String> = std::fs::read_to_string(format!("/proc/{pid}/maps"))?
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned))
        .collect();
    let (mut met, mut found) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let number: i32 = path.file_name().and_then(|name| name.to_string_lossy().parse().ok()).unwrap_or(0);
        let (Ok(name), Ok(meta)) = (std::fs::read_link(&path), std::fs::metadata(&path)) else { continue };
        let name = name.to_string_lossy();
        if number <= 2 || !met.insert((meta.dev(), meta.ino())) {
            continue;
        }
        let mut bytes = Vec::new();
        if name.starts_with("pipe:") {
            let end = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path)?;
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK)?;
            if rustix::pipe::tee(&end, &write, 1 << 16, SpliceFlags::NONBLOCK).is_ok() {
                drop(write);
                File::from(read).read_to_end(&mut bytes)?;
            }
            found.push(("pipe", bytes));
        } else if name.starts_with("socket:") {
            let socket = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
            bytes.resize(1 << 16, 0);
            // One that listens, or has nothing, refuses.
            let waiting = rustix::net::recv(&socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            bytes.truncate(waiting.map_or(0, |(read, _)| read));
            found.push(("socket", bytes));
        } else if meta.is_file() && meta.nlink() == 0 && !mapped.contains(&meta.ino().to_string()) {
            File::open(&path)?.read_to_end(&mut bytes)?;
            found.push((if name.starts_with("/memfd:") { "memfd" } else { "deleted-file" }, bytes));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8; 32] = b"Tr0ub4dor&3/correct-horse*batter";

    fn forms(memory: &[u8]) -> Vec<(Form, usize, u64, u64)> {
        let runs = search(&Patterns::of(SECRET), 0, memory);
        runs.iter().map(|run| (run.form, run.at, run.offset, run.shown)).collect()
    }

    #[test]
    fn pieces_are_found_where_they_lie() {
        let mut memory = vec![0; 100];
        memory[10..42].copy_from_slice(SECRET);
        memory[50..56].copy_from_slice(&SECRET[7..13]);
        memory[70..75].copy_from_slice(&SECRET[7..12]);

        assert_eq!(forms(&memory), [(Form::Raw, 10, 0, 32), (Form::Raw, 50, 7, 6)]);
    }

    #[test]
    fn each_way_of_writing_is_found() {
        let reversed: Vec<u8> = SECRET.iter().rev().copied().collect();
        let wide: Vec<u8> = SECRET.iter().flat_map(|byte| [*byte, 0]).collect();
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        let json: Vec<String> = SECRET.iter().map(u8::to_string).collect();

        assert_eq!(forms(&reversed)[0].0, Form::Reversed);
        assert_eq!(forms(&wide), [(Form::Utf16Le, 0, 0, 32)]);
        assert_eq!(forms(hex.as_bytes()), [(Form::HexLower, 0, 0, 32)]);
        assert_eq!(forms(json.join(",").as_bytes()), [(Form::JsonArray, 0, 0, 32)]);
    }

    #[test]
    fn base64_is_found_in_each_phase() {
        // `base64` of the secret behind nothing, "x" and "xy".
        for text in [
            "VHIwdWI0ZG9yJjMvY29ycmVjdC1ob3JzZSpiYXR0ZXI=",
            "eFRyMHViNGRvciYzL2NvcnJlY3QtaG9yc2UqYmF0dGVy",
            "eHlUcjB1YjRkb3ImMy9jb3JyZWN0LWhvcnNlKmJhdHRlcg==",
        ] {
            let found = forms(text.as_bytes());
            assert!(matches!(found[..], [(Form::Base64, _, _, 31..=32)]), "{found:?}");
        }
    }
}
