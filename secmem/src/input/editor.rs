//! The line as it is typed: what each byte does to it.

use super::InputError;
use crate::bytes::{Bytes, Text};
use crate::error::Error;
use crate::secret::Options;
use crate::sys::terminal::Keys;

/// Bytes that room is made for at first.
const FIRST: usize = 64;

/// The key that backspace is on some keyboards, where the terminal says another.
const BACKSPACE: [u8; 2] = [0x7F, 0x08];

/// A line that is being typed.
pub(super) struct Editor {
    line: Bytes,
    keys: Keys,
    limit: usize,
    /// More was typed than fits. The rest of the line is read and thrown away.
    too_long: bool,
}

/// What a byte has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A character has begun.
    Added,
    /// So many are gone.
    Removed(usize),
    /// Nothing that anybody is to see.
    Quiet,
    /// The line has ended.
    Done,
    /// The user wants no more of it.
    Interrupted,
    /// The input has ended before the line has begun.
    Nothing,
}

impl Editor {
    pub(super) fn new(options: Options, keys: Keys, limit: usize) -> Result<Self, Error> {
        Ok(Self { line: options.bytes(FIRST.min(limit))?, keys, limit, too_long: false })
    }

    pub(super) fn take(&mut self, byte: u8) -> Result<Step, Error> {
        let is = |key: Option<u8>| key == Some(byte);
        match byte {
            b'\n' | b'\r' => Ok(Step::Done),
            _ if is(self.keys.interrupt) => Ok(Step::Interrupted),
            _ if is(self.keys.end) => {
                Ok(if self.line.is_empty() && !self.too_long { Step::Nothing } else { Step::Done })
            }
            _ if is(self.keys.kill) => {
                let removed = self.line.characters()?;
                self.line.clear()?;
                self.too_long = false;
                Ok(Step::Removed(removed))
            }
            _ if is(self.keys.erase) || BACKSPACE.contains(&byte) => {
                Ok(if self.line.pop_character()? { Step::Removed(1) } else { Step::Quiet })
            }
            _ if self.too_long || self.line.len() >= self.limit => {
                self.too_long = true;
                Ok(Step::Quiet)
            }
            _ => {
                self.line.push(byte)?;
                let begins = byte & 0b1100_0000 != 0b1000_0000; // no continuation of a character of UTF-8
                Ok(if begins { Step::Added } else { Step::Quiet })
            }
        }
    }

    /// How many characters there are.
    pub(super) fn characters(&self) -> Result<usize, Error> {
        self.line.characters()
    }

    /// The line, once it has ended.
    pub(super) fn finish(self) -> Result<Text, Error> {
        if self.too_long {
            return Err(Error::Input(InputError::TooLong { limit: self.limit }));
        }
        Text::from_utf8(self.line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    const KEYS: Keys = Keys { erase: Some(0x7F), kill: Some(0x15), end: Some(0x04), interrupt: Some(0x03) };

    fn editor(limit: usize) -> Editor {
        Editor::new(Secret::options(), KEYS, limit).unwrap()
    }

    fn typed(bytes: &[u8], limit: usize) -> (Vec<Step>, Result<String, Error>) {
        let mut editor = editor(limit);
        let steps = bytes.iter().map(|byte| editor.take(*byte).unwrap()).collect();
        (steps, editor.finish().map(|text| text.expose_to_string().unwrap()))
    }

    #[test]
    fn a_backspace_removes_a_whole_character() {
        for key in [0x7F, 0x08] {
            let mut bytes = "aß€𝄞".as_bytes().to_vec();
            bytes.extend([key, key, b'z']);
            assert_eq!(typed(&bytes, 100).1.unwrap(), "aßz");
        }
        let (steps, text) = typed(b"\x7F", 100);
        assert_eq!((&steps[..], text.unwrap().len()), (&[Step::Quiet][..], 0));
    }

    #[test]
    fn keys_do_what_the_terminal_says() {
        let (steps, text) = typed("ab€\x15c".as_bytes(), 100);
        assert_eq!(steps[5..], [Step::Removed(3), Step::Added]);
        assert_eq!(text.unwrap(), "c");
        assert_eq!(typed(b"\x03", 100).0, [Step::Interrupted]);
        assert_eq!(typed(b"\x04", 100).0, [Step::Nothing]);
        assert_eq!(typed(b"a\x04", 100).0, [Step::Added, Step::Done]);
        assert_eq!(typed(b"a\r", 100).0[1], Step::Done);
        assert_eq!(typed(b"a\n", 100).0[1], Step::Done);

        let none = Keys { erase: None, kill: None, end: None, interrupt: None };
        let mut editor = Editor::new(Secret::options(), none, 9).unwrap();
        for byte in [0x15, 0x03, 0x04] {
            assert_eq!(editor.take(byte).unwrap(), Step::Added, "a key that is switched off is a byte like any");
        }
    }

    #[test]
    fn what_is_too_long_is_an_error_and_never_cut() {
        assert_eq!(typed(b"12345", 5).1.unwrap(), "12345");
        assert!(matches!(typed(b"123456", 5).1, Err(Error::Input(InputError::TooLong { limit: 5 }))));
        assert!(typed(b"123456\x7F", 5).1.is_err(), "what was thrown away cannot be taken back one by one");
        assert_eq!(typed(b"123456\x15abc", 5).1.unwrap(), "abc");
        assert!(typed("1234€".as_bytes(), 5).1.is_err());
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        assert!(matches!(typed(b"ab\xFF", 5).1, Err(Error::Utf8 { at: 2 })));
    }

    proptest! {
        #[test]
        fn any_keys_make_what_a_string_would(keys in proptest::collection::vec(prop_oneof![any::<char>(), Just('\x7F'), Just('\x15')], 0..60)) {
            let mut expected = String::new();
            let plain = |key: char| !['\n', '\r', '\x03', '\x04', '\x08'].contains(&key);
            let keys: String = keys.into_iter().filter(|key| plain(*key)).collect();
            for key in keys.chars() {
                match key {
                    '\x7F' => _ = expected.pop(),
                    '\x15' => expected.clear(),
                    other => expected.push(other),
                }
            }
            prop_assert_eq!(typed(keys.as_bytes(), 1000).1.unwrap(), expected);
        }
    }
}
