//! Hexadecimal, base32 and base64: each character is some bits of a byte, wherever the first of them stands.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SEPARATORS;
use super::scan::{Marks, Stop};
use super::table::{FRAGMENT, View, WINDOW};
use super::trail::Row;

/// Places that are remembered: more than a fragment has characters in hexadecimal.
const PLACES: usize = 32;

/// An alphabet.
pub(super) struct Alphabet {
    /// Bits of a character.
    bits: u64,
    value: fn(u8) -> Option<u8>,
    /// Whether a character may stand between two; and so many have stood before it.
    separates: fn(u8, before: u64) -> bool,
    /// Whether it takes back a zero that stands before it, or nothing after a backslash: the x of `0x41` and `\x41`.
    prefix: fn(u8) -> bool,
}

pub(super) const HEX: Alphabet = Alphabet {
    bits: 4,
    value: |byte| (byte as char).to_digit(16).map(|digit| digit as u8),
    separates: |byte, _| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'-' | b'_' | b'\\' | b'%' | b';'),
    prefix: |byte| matches!(byte, b'x' | b'X'),
};

pub(super) const BASE32: Alphabet = Alphabet {
    bits: 5,
    value: |byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    },
    separates: |byte, _| matches!(byte, b'\r' | b'\n' | b'-'),
    prefix: |_| false,
};

/// Both alphabets of RFC 4648.
pub(super) const BASE64: Alphabet = Alphabet {
    bits: 6,
    value: |byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    },
    // Lines, with an indentation; and what JSON makes of a line's end and of a slash.
    separates: |byte, before| matches!(byte, b'\r' | b'\n' | b'\\') || before > 0 && matches!(byte, b' ' | b'\t'),
    prefix: |_| false,
};

/// Characters of an alphabet, without a gap. All zeros: none yet.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Digits {
    /// The last 128 bits: the older 64, the later.
    bits: [u64; 2],
    /// Characters.
    count: u64,
    /// Others since the last one.
    separators: u64,
    /// The character before.
    before: u64,
    /// By where their bytes end: bits from the first character on, modulo 8.
    rows: [Row; 8],
    starts: [u64; PLACES],
}

impl Digits {
    #[inline(always)]
    pub(super) fn push(&mut self, alphabet: &Alphabet, byte: u8, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        let before = std::mem::replace(&mut self.before, u64::from(byte)) as u8;
        let of_an_escape = before == b'\\' && matches!(byte, b'n' | b'r');
        match (alphabet.value)(byte) {
            Some(value) if !(of_an_escape && alphabet.bits == BASE64.bits) => {
                self.take(alphabet, value, at, view, marks);
            }
            _ if (alphabet.prefix)(byte) && before == b'0' && self.count > 0 => self.take_back(alphabet),
            _ if self.count == 0 => {}
            _ if self.separators < SEPARATORS
                && ((alphabet.separates)(byte, self.separators)
                    || of_an_escape
                    || (alphabet.prefix)(byte) && before == b'\\') =>
            {
                self.separators += 1;
            }
            _ => self.gap(),
        }
    }

    #[inline(always)]
    fn take(&mut self, alphabet: &Alphabet, value: u8, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        let width = alphabet.bits;
        let [high, low] = self.bits;
        self.bits = [high << width | low >> (64 - width), low << width | u64::from(value)];
        self.starts[self.count as usize % PLACES] = at;
        self.count += 1;
        self.separators = 0;
        let total = self.count * width;
        // A byte ends with this character, or so many bits before its end.
        for beyond in (0..width).step_by(step(width)) {
            if total < 64 + beyond {
                break;
            }
            let row = &mut self.rows[((total - beyond) % 8) as usize];
            if let Some(first) = row.next(ending(self.bits, beyond), view) {
                let start = total - beyond - 8 * row.len();
                marks.add(self.starts[(start / width) as usize % PLACES], at + 1, first);
            }
        }
    }

    fn take_back(&mut self, alphabet: &Alphabet) {
        let [high, low] = self.bits;
        self.bits = [high >> alphabet.bits, low >> alphabet.bits | high << (64 - alphabet.bits)];
        self.count -= 1;
    }

    #[cold]
    fn gap(&mut self) {
        (self.count, self.separators, self.rows) = (0, 0, [Row::NONE; 8]);
    }

    /// Where the characters begin that a match may need which is not there yet.
    pub(super) fn held(&self, alphabet: &Alphabet, stop: Stop, view: &View<'_>) -> Option<u64> {
        let (width, total) = (alphabet.bits, self.count * alphabet.bits);
        let start = match stop {
            // What is left of a fragment without its last byte, and bits of a byte before it.
            Stop::Anywhere => total.saturating_sub(8 * FRAGMENT as u64 - 1),
            Stop::Flush => {
                let bytes = |beyond: u64| {
                    let row = self.rows[((total - beyond) % 8) as usize];
                    let window = ending(self.bits, beyond);
                    let begins = |len: &u64| 8 * len + beyond <= total && view.begins(window, *len as usize);
                    let last = match row.len() {
                        0 => (1..WINDOW as u64).rev().find(begins).unwrap_or(0),
                        len => len,
                    };
                    (last > 0).then_some(total - beyond - 8 * last)
                };
                (0..8.min(total + 1)).step_by(step(width)).filter_map(bytes).min().unwrap_or(total)
            }
        };
        let first = start / width;
        (first < self.count).then(|| self.starts[first as usize % PLACES])
    }
}

/// A byte can end after so many bits of a character, and twice that, and so on.
const fn step(width: u64) -> usize {
    1 << width.trailing_zeros()
}

/// The 64 bits that end so many before the last.
#[inline(always)]
const fn ending([high, low]: [u64; 2], beyond: u64) -> u64 {
    if beyond == 0 { low } else { low >> beyond | high << (64 - beyond) }
}
