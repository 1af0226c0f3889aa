//! What is kept of registered secrets: keyed fingerprints of every eight bytes in a row, and of the first one to seven.
//!
//! A fingerprint is `k₀·a + k₁·b + k₂·length + k₃` modulo 2⁶¹ − 1, of the halves `a` and `b` of a window. The four are drawn for
//! each redactor. Over that draw, two different windows have the same fingerprint with a chance of 1 in 2⁶¹ − 1, whichever they
//! are: so much is proved of such a function (Carter and Wegman, 1979), and the page of [`redact`](super) rests its rate on it.
//!
//! Who has the numbers and the fingerprints can compute the secrets back. So both stand in arenas, as the secrets do.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SHORTEST;
use super::error::Error;
use crate::error::Error as MemoryError;
use crate::secret::Secret;
use crate::typed::Typed;
use crate::{keystream, scrub};

/// Bytes of a window.
pub(super) const WINDOW: usize = 8;
/// Bytes of a part of a longer secret that is redacted by itself.
pub const FRAGMENT: usize = 12;

/// 2⁶¹ − 1, a prime.
const PRIME: u64 = (1 << 61) - 1;
/// Places of the first table.
const FIRST: usize = 256;
/// No entry, and none was here.
const EMPTY: u64 = 0;
/// An entry that was taken out.
const GONE: u64 = u64::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Key([u64; 4]);

impl Key {
    /// Of the last `len` bytes of `window`, which has no others. Never [`EMPTY`] or [`GONE`].
    #[inline(always)]
    fn fingerprint(&self, window: u64, len: usize) -> u64 {
        let [a, b, c, d] = self.0;
        let product = |k: u64, value: u64| u128::from(k) * u128::from(value);
        let sum = product(a, window >> 32) + product(b, window & 0xFFFF_FFFF) + product(c, len as u64) + u128::from(d);
        let folded = (sum as u64 & PRIME) + (sum >> 61) as u64; // less than twice the prime: the sum has 95 bits at most
        1 + if folded >= PRIME { folded - PRIME } else { folded }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    print: u64,
    /// From the lowest bit on: bytes in a row that count (8 bits), whether the window can begin a match (1), whose it is.
    about: u64,
}

/// What is known of a window.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Bytes in a row that make a match.
    pub(super) needed: u64,
    /// It has three different bytes at least: a match of others alone would be one of zeros, or of dashes.
    pub(super) telling: bool,
}

/// The entries, while they can be read.
pub(super) struct View<'a> {
    key: &'a Key,
    entries: &'a [Entry],
}

impl View<'_> {
    #[inline(always)]
    pub(super) fn window(&self, window: u64) -> Option<Known> {
        self.find(self.key.fingerprint(window, WINDOW))
    }

    /// Whether a secret begins with the last `len` bytes of `window`, of which there are 1 to 7.
    pub(super) fn begins(&self, window: u64, len: usize) -> bool {
        let bytes = window & (u64::MAX >> (64 - 8 * len));
        self.find(self.key.fingerprint(bytes, len)).is_some()
    }

    #[inline(always)]
    fn find(&self, print: u64) -> Option<Known> {
        let mask = self.entries.len() - 1;
        let mut at = print as usize & mask;
        let mut found: Option<Known> = None;
        loop {
            let entry = &self.entries[at];
            if entry.print == EMPTY {
                return found;
            }
            if entry.print == print {
                let (needed, telling) = (entry.about & 0xFF, entry.about & 0x100 != 0);
                found = Some(match found {
                    None => Known { needed, telling },
                    Some(other) => Known { needed: needed.min(other.needed), telling: telling | other.telling },
                });
            }
            at = (at + 1) & mask;
        }
    }
}

/// The fingerprints of all that is registered.
pub(super) struct Table {
    key: Typed<Key>,
    /// [`Entry`]s, a power of two of them, of which one in four is used at most.
    entries: Secret,
    used: usize,
    next: u64,
}

impl Table {
    pub(super) fn new() -> Result<Self, Error> {
        let mut key = Typed::<Key>::zeroed()?;
        key.with_mut(|key| {
            keystream::from_kernel(key.as_mut_bytes())?;
            // Of numbers up to 2⁶¹ - 1 one is too many; it comes once in 2⁵⁹ redactors, and is another zero.
            key.0.iter_mut().for_each(|number| *number &= PRIME);
            Ok::<_, MemoryError>(())
        })??;
        Ok(Self { key, entries: Secret::new(FIRST * size_of::<Entry>())?, used: 0, next: 0 })
    }

    /// Lets `f` look windows up.
    pub(super) fn with<R>(&self, f: impl FnOnce(&View<'_>) -> R) -> Result<R, MemoryError> {
        self.key.with(|key| self.entries.with(|entries| f(&View { key, entries: within(entries) })))?
    }

    /// Takes a secret in; returns the number that [`remove`](Self::remove) takes.
    pub(super) fn add(&mut self, secret: &[u8]) -> Result<u64, Error> {
        let mut telling = false;
        let mut windows = 0;
        scrub::run(|| {
            for (len, window) in all(secret) {
                windows += 1;
                telling |= len == WINDOW && tells(window);
            }
        })?;
        if !telling {
            return Err(Error::Monotonous);
        }
        self.make_room(windows)?;
        let (id, mut added) = (self.next, 0);
        let (key, entries) = (&self.key, &mut self.entries);
        key.with(|key| {
            entries.with_mut(|entries| {
                let entries = within_mut(entries);
                scrub::run(|| {
                    for pattern in patterns(secret) {
                        let needed = pattern.len().min(FRAGMENT) as u64;
                        for (len, window) in windows_of(pattern) {
                            let telling = u64::from(len == WINDOW && tells(window));
                            let entry =
                                Entry { print: key.fingerprint(window, len), about: id << 9 | telling << 8 | needed };
                            added += usize::from(insert(entries, entry));
                        }
                    }
                })
            })
        })???;
        self.used += added;
        self.next += 1;
        Ok(id)
    }

    /// Takes a secret out: its fingerprints are overwritten.
    pub(super) fn remove(&mut self, id: u64) -> Result<(), MemoryError> {
        self.entries.with_mut(|entries| {
            for entry in within_mut(entries) {
                if entry.print != EMPTY && entry.print != GONE && entry.about >> 9 == id {
                    *entry = Entry { print: GONE, about: 0 };
                }
            }
        })
    }

    /// Moves all to a larger table, if `more` would fill this one.
    fn make_room(&mut self, more: usize) -> Result<(), MemoryError> {
        if 4 * (self.used + more) <= self.entries.len() / size_of::<Entry>() {
            return Ok(());
        }
        let mut used = 0;
        let mut count = |entries: &[u8]| used = within(entries).iter().filter(|entry| lives(entry)).count();
        self.entries.with(&mut count)?;
        let places = (4 * (used + more)).next_power_of_two().max(FIRST);
        let mut larger = Secret::new(places * size_of::<Entry>())?;
        self.entries.with(|old| {
            larger.with_mut(|new| {
                let new = within_mut(new);
                for entry in within(old).iter().filter(|entry| lives(entry)) {
                    insert(new, Entry { print: entry.print, about: entry.about });
                }
            })
        })??;
        (self.entries, self.used) = (larger, used);
        Ok(())
    }
}

fn lives(entry: &Entry) -> bool {
    entry.print != EMPTY && entry.print != GONE
}

/// Whether it was not there before.
fn insert(entries: &mut [Entry], new: Entry) -> bool {
    let mask = entries.len() - 1;
    let mut at = new.print as usize & mask;
    while entries[at].print != EMPTY {
        if entries[at].print == new.print && entries[at].about == new.about {
            return false;
        }
        at = (at + 1) & mask;
    }
    entries[at] = new;
    true
}

fn within(slot: &[u8]) -> &[Entry] {
    match <[Entry]>::ref_from_bytes(slot) {
        Ok(entries) => entries,
        Err(_) => unreachable!("the slot is as long and as aligned as it was made"),
    }
}

fn within_mut(slot: &mut [u8]) -> &mut [Entry] {
    match <[Entry]>::mut_from_bytes(slot) {
        Ok(entries) => entries,
        Err(_) => unreachable!("the slot is as long and as aligned as it was made"),
    }
}

/// Whether a window has three different bytes.
fn tells(window: u64) -> bool {
    let bytes = window.to_be_bytes();
    let first = bytes[0];
    let second = bytes.iter().find(|byte| **byte != first);
    second.is_some_and(|second| bytes.iter().any(|byte| *byte != first && byte != second))
}

/// A sequence of bytes that is looked for: what a secret is once its encoding is undone.
#[derive(Clone)]
enum Pattern<'a> {
    /// As it is.
    Forward(&'a [u8]),
    /// Last byte first.
    Backward(&'a [u8]),
    /// UTF-16 without its zeros, of text that is not ASCII; of ASCII that is the text itself.
    Wide(&'a str, fn(u16) -> [u8; 2]),
}

impl<'a> Pattern<'a> {
    fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let (forward, backward, wide) = match self {
            Self::Forward(bytes) => (Some(bytes), None, None),
            Self::Backward(bytes) => (None, Some(bytes), None),
            Self::Wide(text, order) => (None, None, Some((text, order))),
        };
        let forward = forward.into_iter().flatten().copied();
        let backward = backward.into_iter().flat_map(|bytes| bytes.iter().rev().copied());
        let wide = wide.into_iter().flat_map(|(text, order)| text.encode_utf16().flat_map(order));
        forward.chain(backward).chain(wide.filter(|byte| *byte != 0))
    }

    fn len(&self) -> usize {
        match self {
            Self::Forward(bytes) | Self::Backward(bytes) => bytes.len(),
            Self::Wide(..) => self.clone().bytes().count(),
        }
    }
}

/// All that are looked for of a secret. Those that are too short are left out.
fn patterns(secret: &[u8]) -> impl Iterator<Item = Pattern<'_>> {
    let text = std::str::from_utf8(secret).ok().filter(|text| !text.is_ascii());
    let wide = text.into_iter().flat_map(|text| [u16::to_le_bytes, u16::to_be_bytes].map(|to| Pattern::Wide(text, to)));
    [Pattern::Forward(secret), Pattern::Backward(secret)].into_iter().chain(wide).filter(|it| it.len() >= SHORTEST)
}

fn all(secret: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    patterns(secret).flat_map(windows_of)
}

/// The first one to seven bytes of a pattern, then every eight in a row; each with how many there are.
fn windows_of(pattern: Pattern<'_>) -> impl Iterator<Item = (usize, u64)> {
    let mut window = 0;
    pattern.bytes().enumerate().map(move |(at, byte)| {
        window = window << 8 | u64::from(byte);
        ((at + 1).min(WINDOW), window)
    })
}
