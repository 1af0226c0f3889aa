//! Texts in which something stands for other bytes: backslashes, percent signs, entities, and zeros between.
//!
//! Such a reading differs from the plain one only near what it undoes. So it follows the text from there on, beginning with what
//! the plain reading has so far, until it has read the same for long enough.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::scan::{Marks, Stop};
use super::table::View;
use super::trail::Trail;

/// Bytes that an escape has at most: two of JSON's, one after the other.
const LONGEST: usize = 12;
/// Bytes that are read as they stand before two readings agree: more than a fragment has.
const AGREED: u64 = 16;
/// Zeros in a row that a character of UTF-32 has.
const ZEROS: u64 = 3;

/// What is undone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Those of JSON, of Rust's `Debug` and `escape_ascii`, and of C: `\n`, `\"`, `\u00e9`, `\u{e9}`, `\xe9`.
    Backslash,
    /// `%41`.
    Percent,
    /// `%41`, and `+` for a space.
    Form,
    /// `&amp;`, `&#65;`, `&#x41;`.
    Entity,
    /// The zeros of UTF-16 and UTF-32.
    Zeros,
}

/// What the bytes at the beginning of some are.
enum Step {
    /// What follows decides.
    More,
    /// The first is itself.
    Plain,
    /// All stand for these.
    Is([u8; 4], usize),
}

/// A byte, and where it stands.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Placed {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) byte: u64,
}

/// One such reading. All zeros: it does not differ from the plain one.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Reading {
    differs: u64,
    /// Bytes since that were read as they stand.
    agreed: u64,
    zeros: u64,
    held: u64,
    escape: [Placed; LONGEST],
    trail: Trail,
}

impl Reading {
    /// Whether it follows the text.
    #[inline(always)]
    pub(super) fn differs(&self) -> bool {
        self.differs != 0
    }

    /// The next byte. `before`: the reading that this one begins with, without that byte. What is read goes to `out`, too, which
    /// says whether somebody needs this reading to follow on.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        escape: Escape,
        placed: Placed,
        before: &Trail,
        view: &View<'_>,
        marks: &mut Marks<'_>,
        out: impl FnMut(Placed, &Trail, &mut Marks<'_>) -> bool,
    ) {
        if self.differs == 0 && !escape.begins(placed.byte as u8) {
            return;
        }
        self.follow(escape, placed, before, view, marks, out);
    }

    fn follow(
        &mut self,
        escape: Escape,
        placed: Placed,
        before: &Trail,
        view: &View<'_>,
        marks: &mut Marks<'_>,
        mut out: impl FnMut(Placed, &Trail, &mut Marks<'_>) -> bool,
    ) {
        if self.differs == 0 {
            (self.differs, self.agreed, self.zeros, self.held, self.trail) = (1, 0, 0, 0, *before);
        }
        if escape == Escape::Zeros {
            if placed.byte == 0 {
                (self.zeros, self.agreed) = (self.zeros + 1, 0);
                if self.zeros > ZEROS {
                    self.trail.gap();
                }
                return;
            }
            self.zeros = 0;
        }
        let mut needed = false;
        let mut give = |trail: &mut Trail, placed: Placed| {
            needed |= out(placed, trail, marks);
            trail.push(placed.byte as u8, placed.start, placed.end, view, marks);
        };
        self.escape[self.held as usize % LONGEST] = placed;
        self.held += 1;
        while self.held > 0 {
            let held = self.held as usize;
            let all = &self.escape[..held];
            let step = if held == LONGEST { escape.step(all).or_plain() } else { escape.step(all) };
            match step {
                Step::More => break,
                Step::Plain => {
                    give(&mut self.trail, self.escape[0]);
                    self.escape.copy_within(1..held, 0);
                    (self.held, self.agreed) = (self.held - 1, self.agreed + 1);
                }
                Step::Is(bytes, len) => {
                    let (start, end) = (all[0].start, all[held - 1].end);
                    for byte in &bytes[..len] {
                        give(&mut self.trail, Placed { start, end, byte: u64::from(*byte) });
                    }
                    (self.held, self.agreed) = (0, 0);
                }
            }
        }
        if self.agreed >= AGREED && self.held == 0 && !needed {
            self.differs = 0;
        }
    }

    /// The text ends: what may have become an escape is none.
    pub(super) fn finish(
        &mut self,
        view: &View<'_>,
        marks: &mut Marks<'_>,
        mut out: impl FnMut(Placed, &Trail, &mut Marks<'_>),
    ) {
        for placed in &self.escape[..self.held as usize] {
            out(*placed, &self.trail, marks);
            self.trail.push(placed.byte as u8, placed.start, placed.end, view, marks);
        }
        self.held = 0;
    }

    /// Where the bytes begin that a match may need which is not there yet.
    pub(super) fn held(&self, stop: Stop, view: &View<'_>) -> Option<u64> {
        if self.differs == 0 {
            return None;
        }
        let unread = (self.held > 0).then(|| self.escape[0].start);
        match (stop, self.trail.held(stop, view)) {
            (_, Some(start)) => Some(start),
            (Stop::Anywhere, None) => unread,
            (Stop::Flush, None) => None,
        }
    }
}

impl Step {
    fn or_plain(self) -> Self {
        if matches!(self, Self::More) { Self::Plain } else { self }
    }

    /// A byte.
    fn byte(byte: u8) -> Self {
        Self::Is([byte, 0, 0, 0], 1)
    }

    /// A character in UTF-8.
    fn character(code: u32) -> Self {
        let mut bytes = [0; 4];
        match char::from_u32(code) {
            Some(character) => {
                let len = character.encode_utf8(&mut bytes).len();
                Self::Is(bytes, len)
            }
            None => Self::Plain,
        }
    }
}

impl Escape {
    /// Whether the reading differs from the plain one from this byte on.
    #[inline(always)]
    fn begins(self, byte: u8) -> bool {
        match self {
            Self::Backslash => byte == b'\\',
            Self::Percent => byte == b'%',
            Self::Form => byte == b'%' || byte == b'+',
            Self::Entity => byte == b'&',
            Self::Zeros => byte == 0,
        }
    }

    /// What the bytes of `all` are, of which there is one at least, and only the last one is new.
    fn step(self, all: &[Placed]) -> Step {
        let mut text = [0; LONGEST];
        text.iter_mut().zip(all).for_each(|(byte, placed)| *byte = placed.byte as u8);
        let text = &text[..all.len().min(LONGEST)];
        if !self.begins(text[0]) {
            return Step::Plain;
        }
        match self {
            Self::Backslash => backslash(text),
            Self::Form if text == b"+" => Step::byte(b' '),
            Self::Percent | Self::Form => number(&text[1..], 2).map_or_else(|step| step, |code| Step::byte(code as u8)),
            Self::Entity => entity(text),
            Self::Zeros => Step::Plain,
        }
    }
}

/// The number that all `digits` are, in hexadecimal, if there are as many.
fn number(digits: &[u8], len: usize) -> Result<u32, Step> {
    let mut code = 0;
    for digit in digits {
        code = code << 4 | (*digit as char).to_digit(16).ok_or(Step::Plain)?;
    }
    if digits.len() < len { Err(Step::More) } else { Ok(code) }
}

fn backslash(text: &[u8]) -> Step {
    let read = || match text {
        [_] => Err(Step::More),
        [_, b'x', digits @ ..] => number(digits, 2).map(|code| Step::byte(code as u8)),
        [_, b'u', b'{', digits @ .., b'}'] if (1..=6).contains(&digits.len()) => {
            number(digits, digits.len()).map(Step::character)
        }
        [_, b'u', b'{', digits @ ..] => number(digits, 7).map(|_| Step::Plain),
        [_, b'u', first @ ..] => {
            let (first, second) = first.split_at(first.len().min(4));
            match (number(first, 4)?, second) {
                (high @ 0xD800..0xDC00, second) => match second {
                    [] | [b'\\'] | [b'\\', b'u'] => Err(Step::More),
                    [b'\\', b'u', digits @ ..] => {
                        let low = number(digits, 4)?.checked_sub(0xDC00).filter(|low| *low < 0x400);
                        Ok(low.map_or(Step::Plain, |low| Step::character(0x1_0000 + ((high - 0xD800) << 10 | low))))
                    }
                    _ => Ok(Step::Plain),
                },
                (code, _) => Ok(Step::character(code)),
            }
        }
        [_, b'n', ..] => Ok(Step::byte(b'\n')),
        [_, b'r', ..] => Ok(Step::byte(b'\r')),
        [_, b't', ..] => Ok(Step::byte(b'\t')),
        [_, b'0', ..] => Ok(Step::byte(0)),
        [_, b'b', ..] => Ok(Step::byte(8)),
        [_, b'f', ..] => Ok(Step::byte(12)),
        [_, b'v', ..] => Ok(Step::byte(11)),
        [_, byte @ (b'\\' | b'"' | b'\'' | b'/' | b'`' | b'$'), ..] => Ok(Step::byte(*byte)),
        _ => Ok(Step::Plain),
    };
    read().unwrap_or_else(|step| step)
}

fn entity(text: &[u8]) -> Step {
    const NAMES: [(&[u8], u8); 5] =
        [(b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&quot;", b'"'), (b"&apos;", b'\'')];
    if let Some((_, byte)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Step::byte(*byte);
    }
    let (digits, radix) = match text {
        [_, b'#', b'x' | b'X', digits @ ..] => (digits, 16),
        [_, b'#', digits @ ..] => (digits, 10),
        _ if NAMES.iter().any(|(name, _)| name.starts_with(text)) => return Step::More,
        _ => return Step::Plain,
    };
    let (digits, ended) = digits.strip_suffix(b";").map_or((digits, false), |digits| (digits, true));
    let mut code: u32 = 0;
    for digit in digits {
        let Some(digit) = (*digit as char).to_digit(radix) else { return Step::Plain };
        code = code.saturating_mul(radix).saturating_add(digit);
    }
    match (digits.is_empty(), ended) {
        (true, true) => Step::Plain,
        (_, false) => Step::More,
        (false, true) => Step::character(code),
    }
}
