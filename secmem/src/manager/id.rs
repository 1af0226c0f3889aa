//! Names of buffers, and the tokens of those who own them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::config::MOST_BUFFERS;
use crate::error::Error as MemoryError;
use crate::{ct, keystream};

/// Bytes that a name may have.
pub const LONGEST_ID: usize = 128;

/// The name of a buffer: drawn by the manager, or chosen by the caller. No secret: it stands in events and logs.
///
/// A chosen one has 1 to [`LONGEST_ID`] visible ASCII characters, so that it cannot forge a line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Name);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Drawn(u128),
    Chosen(Arc<str>),
}

/// Why a text is no [`Id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// It has no characters.
    #[error("an id is empty")]
    Empty,
    /// It is too long.
    #[error("an id of {len} bytes is longer than {LONGEST_ID}")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// A byte is no visible ASCII character.
    #[error("byte {at} of an id is no visible ASCII character")]
    Character {
        /// Where it stands.
        at: usize,
    },
}

impl Id {
    /// A name that a manager of this number draws for the buffer in a place; `count` is another one each time.
    #[inline]
    pub(super) fn drawn(manager: u64, count: u64, place: u32) -> Self {
        let manager = u128::from(manager) << (COUNT + PLACE);
        let count = u128::from(count & ((1 << COUNT) - 1)) << PLACE;
        Self(Name::Drawn(manager | count | u128::from(place)))
    }

    /// The count and the place, where it looks like a name that the manager of this number draws.
    #[inline]
    pub(super) fn of(&self, manager: u64) -> Option<(u64, u32)> {
        match self.0 {
            Name::Drawn(number) if number >> (COUNT + PLACE) == u128::from(manager) => {
                Some(((number >> PLACE) as u64 & ((1 << COUNT) - 1), number as u32 & ((1 << PLACE) - 1)))
            }
            _ => None,
        }
    }
}

/// Bits of a drawn name that say which place the buffer has.
const PLACE: u32 = 20;

/// Bits that say how many were drawn before: for as many as a thousand million a second, for thirty years.
const COUNT: u32 = 60;

/// Bits that are the manager's own number.
pub(super) const NUMBER: u32 = u128::BITS - COUNT - PLACE;

const _: () = assert!(MOST_BUFFERS <= 1 << PLACE);

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > LONGEST_ID {
            return Err(IdError::TooLong { len: text.len() });
        }
        if let Some(at) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(IdError::Character { at });
        }
        // As a drawn one is shown, so that it is found again.
        let shown = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = shown.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        Ok(Self(number.map_or_else(|| Name::Chosen(text.into()), Name::Drawn)))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Drawn(number) => write!(f, "{number:032x}"),
            Name::Chosen(name) => f.write_str(name),
        }
    }
}

/// Says whose a buffer is: 128 random bits that one owner has and no other. Who is to use the owner's buffers gets a clone.
///
/// It keeps parts of one program apart. Code that reads the process's memory at will reads the buffers as well as the token.
#[derive(Clone)]
pub struct Token([u8; 16]);

impl Token {
    pub(super) fn draw() -> Result<Self, MemoryError> {
        let mut bits = [0; 16];
        keystream::from_kernel(&mut bits)?;
        Ok(Self(bits))
    }

    #[inline]
    pub(super) fn is(&self, other: &Self) -> bool {
        ct::eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Token {
    /// Not its bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ids_are_refused_and_the_error_says_where() {
        let long = "x".repeat(LONGEST_ID + 1);
        let cases = [
            ("", IdError::Empty),
            (long.as_str(), IdError::TooLong { len: LONGEST_ID + 1 }),
            ("a b", IdError::Character { at: 1 }),
            ("a\nERROR forged", IdError::Character { at: 1 }),
            ("\0", IdError::Character { at: 0 }),
            ("schlüssel", IdError::Character { at: 4 }),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Id>(), Err(error));
        }
        assert!("x".repeat(LONGEST_ID).parse::<Id>().is_ok());
    }

    #[test]
    fn a_drawn_id_is_found_again_by_what_it_shows() {
        let id = Id::drawn(0x0123_4567_89AB, 7, 9);

        assert_eq!(id.to_string(), "0123456789ab00000000000000700009");
        assert_eq!(id.to_string().parse::<Id>().as_ref(), Ok(&id));
        assert_eq!((id.of(0x0123_4567_89AB), id.of(0x0123_4567_89AC)), (Some((7, 9)), None));
        assert_ne!(id.to_string().to_uppercase().parse::<Id>().as_ref(), Ok(&id));
    }

    #[test]
    fn a_token_does_not_show_its_bits() {
        let token = Token([7; 16]);

        assert_eq!(format!("{token:?}"), "Token");
    }
}
