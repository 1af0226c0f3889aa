//! Names as they stand in a journal: of people, keys, buffers. They cannot forge a line or a column.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Bytes that a name may have.
pub const LONGEST_NAME: usize = 128;

/// A name in a journal, of 1 to [`LONGEST_NAME`] bytes. Whoever reads the journal reads it: it must be no secret.
///
/// Any text will do. What is not a visible ASCII character, or has a meaning in a line, is written as `%` and two digits of
/// hex a byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Cow<'static, str>);

/// Why a text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no bytes.
    #[error("a name is empty")]
    Empty,
    /// It is too long.
    #[error("a name of {len} bytes is longer than {LONGEST_NAME}")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
}

impl Name {
    /// A name that this crate gives.
    pub(crate) const fn ours(name: &'static str) -> Self {
        assert!(!name.is_empty() && name.len() <= LONGEST_NAME);
        Self(Cow::Borrowed(name))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.len() {
            0 => Err(NameError::Empty),
            len if len > LONGEST_NAME => Err(NameError::TooLong { len }),
            _ => Ok(Self(Cow::Owned(text.to_owned()))),
        }
    }
}

impl From<&crate::manager::Id> for Name {
    fn from(id: &crate::manager::Id) -> Self {
        const { assert!(crate::manager::LONGEST_ID <= LONGEST_NAME) };
        Self(Cow::Owned(id.to_string()))
    }
}

#[cfg(feature = "records")]
impl From<&crate::records::KeyId> for Name {
    fn from(id: &crate::records::KeyId) -> Self {
        Self(Cow::Owned(id.to_string()))
    }
}

/// As it stands in a line.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == "-" {
            return f.write_str("%2D"); // alone it says that there is none
        }
        self.0.bytes().try_for_each(|byte| match byte {
            // `>` parts two names, and `%` begins what is written so.
            b'%' | b'>' => write!(f, "%{byte:02X}"),
            byte if byte.is_ascii_graphic() => write!(f, "{}", char::from(byte)),
            byte => write!(f, "%{byte:02X}"),
        })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_one_column_of_one_line() {
        let cases = [
            ("user 7", "user%207"),
            ("x\nSMJ1 9 9 root - export", "x%0ASMJ1%209%209%20root%20-%20export"),
            ("-", "%2D"),
            ("--", "--"),
            ("a>b%20", "a%3Eb%2520"),
            ("\u{2028}ü\0\x7F\x1B[2J", "%E2%80%A8%C3%BC%00%7F%1B[2J"),
        ];
        for (text, shown) in cases {
            let name: Name = text.parse().unwrap();
            assert_eq!(name.to_string(), shown);
        }
    }

    #[test]
    fn no_two_names_are_written_alike() {
        let hostile = ["-", "%2D", "%252D", "a b", "a%20b", "a>b", "a%3Eb", "a\tb"];
        let mut shown: Vec<String> = hostile.iter().map(|text| text.parse::<Name>().unwrap().to_string()).collect();
        shown.sort();
        shown.dedup();
        assert_eq!(shown.len(), hostile.len());
    }

    #[test]
    fn a_name_has_some_bytes_and_not_too_many() {
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert!("ü".repeat(64).parse::<Name>().is_ok());
        assert_eq!("ü".repeat(65).parse::<Name>(), Err(NameError::TooLong { len: 130 }));
    }
}
