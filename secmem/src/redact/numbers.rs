//! Bytes as numbers with something between them: `[67, 65]`, `{"0":67,"1":65}`, a pretty `Debug` of a line each, `-61` for 195.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SEPARATORS;
use super::scan::{Marks, Stop};
use super::table::View;
use super::trail::Trail;

/// Digits of a number that may be a key; a byte has three at most.
const LONGEST: u64 = 6;

/// Numbers, without a gap. All zeros: none yet.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Numbers {
    trail: Trail,
    /// Of the number that is being read.
    value: u64,
    digits: u64,
    negative: u64,
    start: u64,
    /// A number that has ended. It is a key, and no byte, if a colon follows; it is no byte either if it is too large.
    waits: u64,
    waiting: u64,
    waiting_start: u64,
    waiting_end: u64,
    separators: u64,
    /// The word that is being read is no number.
    word: u64,
}

impl Numbers {
    #[inline(always)]
    pub(super) fn push(&mut self, radix: u32, byte: u8, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        // Most of a text are words.
        if self.word != 0 && (byte.is_ascii_alphanumeric() || byte == b'_') {
            return;
        }
        self.read(radix, byte, at, view, marks);
    }

    fn read(&mut self, radix: u32, byte: u8, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        if self.word == 0
            && let Some(digit) = (byte as char).to_digit(radix)
        {
            if self.digits == 0 {
                self.settle(view, marks);
                if self.negative == 0 {
                    self.start = at;
                }
            }
            (self.value, self.digits) = (self.value * u64::from(radix) + u64::from(digit), self.digits + 1);
            if self.digits > LONGEST {
                self.gap();
                self.word = 1;
            }
            return;
        }
        match byte {
            b'x' | b'X' if radix == 16 && self.digits == 1 && self.value == 0 => self.digits = 0, // of 0x41
            // The next is below zero: what was written were signed numbers.
            b'-' if radix == 10 => {
                self.end(at);
                (self.negative, self.start) = (1, at);
            }
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b';' | b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'"' | b'\''
            | b'\\' => {
                self.end(at);
                (self.word, self.negative) = (0, 0);
                self.separators += 1;
                if self.separators > SEPARATORS {
                    self.settle(view, marks);
                    self.gap();
                }
            }
            b':' => {
                self.end(at);
                (self.word, self.negative, self.waits) = (0, 0, 0);
            }
            _ => {
                self.end(at);
                self.settle(view, marks);
                self.gap();
                self.word = u64::from(byte.is_ascii_alphanumeric() || byte == b'_');
            }
        }
    }

    /// The number that is being read has ended.
    fn end(&mut self, at: u64) {
        if self.digits > 0 {
            (self.waits, self.waiting, self.waiting_start, self.waiting_end) = (1, self.current(), self.start, at);
            self.separators = 0;
        }
        (self.value, self.digits) = (0, 0);
    }

    /// The number, as far as it has been read; more than a byte can be if it is none.
    fn current(&self) -> u64 {
        match (self.negative, self.value, self.digits) {
            (0, value, 1..=3) => value,
            (_, value @ 1..=128, 1..=3) if self.negative != 0 => 256 - value,
            _ => u64::MAX,
        }
    }

    /// The number before is a byte.
    fn settle(&mut self, view: &View<'_>, marks: &mut Marks<'_>) {
        if std::mem::take(&mut self.waits) != 0 {
            match u8::try_from(self.waiting) {
                Ok(byte) => self.trail.push(byte, self.waiting_start, self.waiting_end, view, marks),
                Err(_) => self.trail.gap(),
            }
        }
    }

    fn gap(&mut self) {
        self.trail.gap();
        (self.value, self.digits, self.negative, self.waits, self.separators) = (0, 0, 0, 0, 0);
    }

    /// The text ends at `at`.
    pub(super) fn finish(&mut self, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        self.end(at);
        self.settle(view, marks);
    }

    /// Where the numbers begin that a match may need which is not there yet.
    pub(super) fn held(&self, stop: Stop, view: &View<'_>) -> Option<u64> {
        let unread = (self.waits != 0).then_some(self.waiting_start);
        let unread = unread.or((self.digits > 0 || self.negative != 0).then_some(self.start));
        if matches!(stop, Stop::Anywhere) {
            return self.trail.held(stop, view).or(unread);
        }
        // With and without the numbers that may go on, or be keys.
        let mut trail = self.trail;
        let mut held = trail.held(stop, view);
        let mut none = Marks::none();
        let waiting = (self.waits != 0).then_some((self.waiting, self.waiting_start));
        let current = (self.digits > 0).then(|| (self.current(), self.start));
        for (byte, start) in waiting.into_iter().chain(current) {
            let Ok(byte) = u8::try_from(byte) else { break };
            trail.push(byte, start, start, view, &mut none);
            held = earlier(held, trail.held(stop, view));
        }
        held
    }
}

pub(super) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
