//! A text, byte by byte, in every reading at once.
//!
//! Each reading undoes one encoding and looks up, at each byte that it has found, the window that ends there. So nothing is kept
//! of a secret but fingerprints of the bytes themselves, and a mixture is found that nobody has thought of: hexadecimal with any
//! separators, an array of any layout, base64 in lines.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::digits::{Alphabet, BASE32, BASE64, BASE64_IN_JSON, Digits, HEX};
use super::escapes::{Escape, Placed, Reading};
use super::numbers::{Numbers, earlier};
use super::patterns::{Patterns, Words};
use super::table::View;
use super::trail::Trail;
use super::{FORMS, Form};

/// The readings that undo escapes.
const ESCAPES: [(Escape, Form); 5] = [
    (Escape::Backslash, Form::Escaped),
    (Escape::Percent, Form::Percent),
    (Escape::Form, Form::Percent),
    (Escape::Entity, Form::Entities),
    (Escape::Zeros, Form::Wide),
];

const ALPHABETS: [&Alphabet; 4] = [&HEX, &BASE32, &BASE64, &BASE64_IN_JSON];

/// Why a text stops where it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// More may come at once, and nobody waits for what is there.
    Anywhere,
    /// Somebody waits.
    Flush,
}

/// Which bytes of a text are not to be shown.
pub(super) struct Marks<'a> {
    marks: &'a mut [u8],
    /// Of the first of them, in the whole text.
    base: u64,
    /// Matches, by their form.
    found: [u64; FORMS],
    form: Form,
    off: bool,
}

impl<'a> Marks<'a> {
    pub(super) fn new(marks: &'a mut [u8], base: u64, off: bool) -> Self {
        Self { marks, base, found: [0; FORMS], form: Form::Raw, off }
    }

    /// Nobody looks at them.
    pub(super) fn none() -> Self {
        Marks::new(&mut [], 0, true)
    }

    /// Those at `start..end`, which are a match, or more of one. What has been let out is not there any more.
    pub(super) fn add(&mut self, start: u64, end: u64, first: bool) {
        if self.off {
            return;
        }
        let place =
            |at: u64| usize::try_from(at.saturating_sub(self.base)).map_or(usize::MAX, |at| at.min(self.marks.len()));
        let (start, end) = (place(start), place(end));
        if start < end {
            self.marks[start..end].fill(1);
        }
        self.found[self.form as usize] += u64::from(first);
    }

    pub(super) fn found(&self) -> [u64; FORMS] {
        self.found
    }
}

/// How far a text has been read. All zeros: it begins.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct State {
    plain: Trail,
    escapes: [Reading; ESCAPES.len()],
    /// What the first of them has read, once more: JSON in JSON.
    twice: Reading,
    alphabets: [Digits; ALPHABETS.len()],
    /// Decimal, and hexadecimal.
    numbers: [Numbers; 2],
    words: Words,
}

impl State {
    /// The next byte, which stands at `at`.
    #[inline]
    pub(super) fn push(&mut self, byte: u8, at: u64, patterns: &Patterns, view: &View<'_>, marks: &mut Marks<'_>) {
        let placed = Placed { start: at, end: at + 1, byte: u64::from(byte) };
        let Self { plain, escapes, twice, alphabets, numbers, .. } = self;
        let [backslash, others @ ..] = escapes;
        marks.form = Form::Escaped;
        backslash.push(Escape::Backslash, placed, plain, view, marks, |placed, before, marks| {
            twice.push(Escape::Backslash, placed, before, view, marks, |_, _, _| false);
            twice.differs()
        });
        for (reading, (escape, form)) in others.iter_mut().zip(&ESCAPES[1..]) {
            marks.form = *form;
            reading.push(*escape, placed, plain, view, marks, |_, _, _| false);
        }
        marks.form = Form::Raw;
        plain.push(byte, at, at + 1, view, marks);
        let [hex, base32, base64, base64_in_json] = alphabets;
        marks.form = Form::Hex;
        hex.push(&HEX, byte, at, view, marks);
        marks.form = Form::Base32;
        base32.push(&BASE32, byte, at, view, marks);
        marks.form = Form::Base64;
        base64.push(&BASE64, byte, at, view, marks);
        base64_in_json.push(&BASE64_IN_JSON, byte, at, view, marks);
        let [decimal, hexadecimal] = numbers;
        marks.form = Form::Numbers;
        decimal.push(10, byte, at, view, marks);
        hexadecimal.push(16, byte, at, view, marks);
        if !patterns.are_none() {
            marks.form = Form::Pattern;
            self.words.push(byte, at, patterns, marks);
        }
    }

    /// The text has ended at `at`.
    pub(super) fn finish(&mut self, at: u64, view: &View<'_>, marks: &mut Marks<'_>) {
        let Self { escapes, twice, .. } = self;
        for (reading, (escape, form)) in escapes.iter_mut().zip(ESCAPES) {
            marks.form = form;
            match escape {
                Escape::Backslash => reading.finish(view, marks, |placed, before, marks| {
                    twice.push(escape, placed, before, view, marks, |_, _, _| false);
                }),
                _ => reading.finish(view, marks, |_, _, _| ()),
            }
        }
        marks.form = Form::Escaped;
        twice.finish(view, marks, |_, _, _| ());
        marks.form = Form::Numbers;
        for numbers in &mut self.numbers {
            numbers.finish(at, view, marks);
        }
    }

    /// Where the bytes begin that may yet turn out to be part of a match; `at`, the end, if there are none.
    pub(super) fn held(&self, at: u64, stop: Stop, patterns: &Patterns, view: &View<'_>) -> u64 {
        if cfg!(secmem_ablate = "redact-hold") {
            return at;
        }
        let mut held = earlier(self.plain.held(stop, view), self.twice.held(stop, view));
        for reading in &self.escapes {
            held = earlier(held, reading.held(stop, view));
        }
        for (digits, alphabet) in self.alphabets.iter().zip(ALPHABETS) {
            held = earlier(held, digits.held(alphabet, stop, view));
        }
        for numbers in &self.numbers {
            held = earlier(held, numbers.held(stop, view));
        }
        if stop == Stop::Anywhere {
            held = earlier(held, self.words.held(patterns));
        }
        held.unwrap_or(at)
    }
}
