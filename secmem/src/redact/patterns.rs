//! Rules that know no secret: names before values, and long words. Off unless asked for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::scan::Marks;

/// Bytes of the longest name.
const NAME: usize = 16;

/// What is redacted without being registered.
///
/// Such rules see what nobody registered, and err in both directions: see [`names`](Self::names) and
/// [`long_words`](Self::long_words). They do not wait for what follows: what a flush lets out they do not take back.
///
/// ```
/// use secmem::redact::{Patterns, Redactor};
///
/// let redactor = Redactor::with_patterns(Patterns::default().names(["password", "token"]))?;
/// assert_eq!(redactor.text("password=hunter2; user=ann"), "password=[redacted]; user=ann");
/// assert_eq!(redactor.text("the password: none of your business"), "the password: [redacted] of your business");
/// # Ok::<(), secmem::redact::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Patterns {
    names: Vec<Box<str>>,
    long: Option<u64>,
}

impl Patterns {
    /// The rules of console filters that are common, and of the one that this crate's authors began with: the names `password`,
    /// `passwd`, `secret`, `token` and `key`, and words of 32 letters. That one took a whole message for the name alone; these
    /// take what follows a name and `=` or `:`.
    pub fn usual() -> Self {
        Self::default().names(["password", "passwd", "secret", "token", "key"]).long_words(32)
    }

    /// What follows one of these names (in either case, also at the end of a longer one: `api_key`), quotes and spaces, and `=` or
    /// `:`, up to a space, a quote, a comma, a semicolon, an ampersand, a closing bracket or a line's end.
    ///
    /// What it takes by mistake: every word that follows so, `key: value` of any table. What it misses: a value with a space, from
    /// there on; a value that its name does not stand beside. Of a name, the last 16 bytes count.
    pub fn names(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.names.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| {
            let name = &name[name.len() - name.len().min(NAME)..];
            name.to_ascii_lowercase().into_boxed_str()
        }));
        self
    }

    /// Words of `len` (1 to 256) and more letters, digits, `+`, `/` and `=`: base64, and all that looks like it.
    ///
    /// What it takes by mistake: digests in hexadecimal, paths without a point or a dash, long identifiers. What it misses: a
    /// secret of fewer, or with any other character in it.
    pub fn long_words(mut self, len: usize) -> Self {
        self.long = Some(len.clamp(1, super::LONGEST_WORD) as u64);
        self
    }

    pub(super) fn are_none(&self) -> bool {
        self.names.is_empty() && self.long.is_none()
    }
}

/// How far the rules have come. All zeros: the text begins.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Words {
    /// The last letters, small, of which the first `name_len` are there, the latest last.
    name: [u8; NAME],
    name_len: u64,
    /// Something else has followed them: a quote, or spaces.
    name_ended: u64,
    /// [`AFTER_NAME`] or [`IN_VALUE`]: a value begins, or goes on.
    value: u64,
    /// Where the word began that looks like base64, and how long it is.
    word_start: u64,
    word_len: u64,
}

const AFTER_NAME: u64 = 1;
const IN_VALUE: u64 = 2;

impl Words {
    pub(super) fn push(&mut self, byte: u8, at: u64, patterns: &Patterns, marks: &mut Marks<'_>) {
        if let Some(long) = patterns.long {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=') {
                if self.word_len == 0 {
                    self.word_start = at;
                }
                self.word_len += 1;
                if self.word_len >= long {
                    marks.add(self.word_start, at + 1, self.word_len == long);
                }
            } else {
                self.word_len = 0;
            }
        }
        let space = matches!(byte, b' ' | b'\t');
        let quote = matches!(byte, b'"' | b'\'' | b'\\');
        let ends = matches!(byte, b',' | b';' | b'&' | b')' | b']' | b'}' | b'\r' | b'\n');
        match self.value {
            AFTER_NAME if space || quote => return,
            AFTER_NAME | IN_VALUE if !(space || quote || ends) => {
                marks.add(at, at + 1, self.value == AFTER_NAME);
                self.value = IN_VALUE;
                return;
            }
            _ => self.value = 0,
        }
        if byte == b'=' || byte == b':' {
            let name = &self.name[NAME - self.name_len as usize..];
            if patterns.names.iter().any(|known| name.ends_with(known.as_bytes())) {
                self.value = AFTER_NAME;
            }
            (self.name_len, self.name_ended) = (0, 0);
        } else if space || quote {
            self.name_ended = 1;
        } else {
            if self.name_ended != 0 {
                (self.name_len, self.name_ended) = (0, 0);
            }
            self.name.copy_within(1.., 0);
            self.name[NAME - 1] = byte.to_ascii_lowercase();
            self.name_len = (self.name_len + 1).min(NAME as u64);
        }
    }

    /// Where the word begins that may become a long one.
    pub(super) fn held(&self, patterns: &Patterns) -> Option<u64> {
        patterns.long.filter(|long| self.word_len > 0 && self.word_len < *long).map(|_| self.word_start)
    }
}
