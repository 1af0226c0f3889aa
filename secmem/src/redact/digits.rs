//! Hexadecimal, base32 and base64: each character is some bits of a byte, wherever the first of them stands.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SEPARATORS;
use super::scan::{Marks, Stop};
use super::table::{FRAGMENT, View, WINDOW};
use super::trail::Row;

/// Places that are remembered: more than a fragment has characters in hexadecimal.
const PLACES: usize = 32;

/// No character of an alphabet.
const NONE: u8 = u8::MAX;

/// An alphabet.
pub(super) struct Alphabet {
    /// Bits of a character.
    bits: u64,
    /// What each byte stands for, or [`NONE`]. A table: in a text nobody foresees which kind of character comes next.
    values: [u8; 256],
    /// Whether a character may stand between two; and so many have stood before it.
    separates: fn(u8, before: u64) -> bool,
    /// Whether `x` takes back a zero that stands before it, or is nothing after a backslash: `0x41` and `\x41`.
    prefixed: bool,
    /// Whether `n` and `r` after a backslash are a line's end of JSON, and no letters.
    in_json: bool,
}

pub(super) static HEX: Alphabet = Alphabet {
    bits: 4,
    values: values(&[b"0123456789abcdef", b"0123456789ABCDEF"]),
    separates: |byte, _| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'-' | b'_' | b'\\' | b'%' | b';'),
    prefixed: true,
    in_json: false,
};

pub(super) static BASE32: Alphabet = Alphabet {
    bits: 5,
    values: values(&[b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"abcdefghijklmnopqrstuvwxyz234567"]),
    separates: |byte, _| matches!(byte, b'\r' | b'\n' | b'-'),
    prefixed: false,
    in_json: false,
};

/// Both alphabets of RFC 4648.
pub(super) static BASE64: Alphabet = base64(false);

/// The same in lines whose ends JSON has escaped. A letter after a backslash can be either, so both are read.
pub(super) static BASE64_IN_JSON: Alphabet = base64(true);

const fn base64(in_json: bool) -> Alphabet {
    Alphabet {
        bits: 6,
        values: values(&[
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        ]),
        // Lines, with an indentation; and what JSON makes of a slash.
        separates: |byte, before| matches!(byte, b'\r' | b'\n' | b'\\') || before > 0 && matches!(byte, b' ' | b'\t'),
        prefixed: false,
        in_json,
    }
}

/// What each byte stands for, if it is written in any of these ways.
const fn values(ways: &[&[u8]]) -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut way = 0;
    while way < ways.len() {
        let mut value = 0;
        while value < ways[way].len() {
            values[ways[way][value] as usize] = value as u8;
            value += 1;
        }
        way += 1;
    }
    values
}

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
        let value = alphabet.values[usize::from(byte)];
        let escaped = before == b'\\' && matches!(byte, b'n' | b'r') && (alphabet.in_json || value == NONE);
        let prefix = alphabet.prefixed && matches!(byte, b'x' | b'X');
        match value {
            value if value != NONE && !escaped => self.take(alphabet, value, at, view, marks),
            _ if self.count == 0 => {}
            _ if prefix && before == b'0' => self.take_back(alphabet),
            _ if self.separators < SEPARATORS
                && ((alphabet.separates)(byte, self.separators) || escaped || prefix && before == b'\\') =>
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
