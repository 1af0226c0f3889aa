//! Bytes and text that grow: each step moves them to a longer slot, and wipes the one before.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::arena::Protection;
use crate::error::Error;
use crate::secret::{Consumed, Options, Secret};
use crate::wipe;

/// Bytes that a first slot has, with its canaries: one granule of an arena.
const FIRST: usize = 40;

/// Secret bytes that grow. What limits their life ([`Options`]) goes on over every move.
///
/// ```
/// let mut line = secmem::Bytes::new()?;
/// for byte in *b"sesam" {
///     line.push(byte)?; // a terminal gives them one at a time
/// }
/// assert!(line.with(|bytes| bytes == b"sesam")?);
/// # Ok::<(), secmem::Error>(())
/// ```
pub struct Bytes {
    secret: Secret,
    len: usize,
}

impl Options {
    /// Secret bytes, none at first, with room for `capacity` of them.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed).
    pub fn bytes(self, capacity: usize) -> Result<Bytes, Error> {
        Ok(Bytes { secret: self.zeroed(capacity)?, len: 0 })
    }

    /// Secret text, empty at first, with room for `capacity` bytes of it.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed).
    pub fn text(self, capacity: usize) -> Result<Text, Error> {
        self.bytes(capacity).map(Text)
    }
}

impl Bytes {
    /// None at first.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`].
    pub fn new() -> Result<Self, Error> {
        Secret::options().bytes(FIRST)
    }

    /// Adds a byte.
    ///
    /// # Errors
    ///
    /// As [`extend`](Self::extend).
    pub fn push(&mut self, byte: u8) -> Result<(), Error> {
        let mut place = [byte];
        let added = self.extend(&place);
        wipe::wipe(&mut place);
        added
    }

    /// Adds bytes. Where they came from is the caller's to wipe.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`] where a longer slot is needed, and as [`Secret::with`] if the secret has ended. What was there
    /// before is there still, unless the secret has ended.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (begin, end) = (self.len, self.len.saturating_add(bytes.len()));
        if end > self.secret.len() {
            self.grow(end)?;
        }
        self.secret.change(|slot| wipe::copy(bytes, &mut slot[begin..end]))?;
        self.len = end;
        Ok(())
    }

    /// Makes room for `least` bytes in all, and for more where there is more: twice as long, many small steps move everything few
    /// times.
    fn grow(&mut self, least: usize) -> Result<(), Error> {
        let wanted = least.max(self.secret.len().saturating_mul(2)).max(FIRST);
        match self.secret.relocate(self.len, wanted) {
            // An owner's limit, or the lock budget, may have room for what is needed.
            Err(Error::Quota { .. } | Error::Refused { .. }) if wanted > least => self.secret.relocate(self.len, least),
            grown => grown,
        }
    }

    /// Makes room for one byte more at least, and lets `f` write into that room; it says how many bytes it wrote, from the
    /// beginning on. It gets no more than `most`.
    pub(crate) fn append<E>(
        &mut self,
        most: usize,
        f: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Result<usize, E>, Error> {
        if self.len == self.secret.len() {
            self.grow(self.len.saturating_add(1))?;
        }
        let begin = self.len;
        let wrote = self.secret.change(|slot| {
            let end = begin.saturating_add(most).min(slot.len());
            f(&mut slot[begin..end])
        })?;
        Ok(wrote.inspect(|wrote| self.len = (begin + wrote).min(self.secret.len())))
    }

    /// Wipes the last byte if it is this one.
    pub(crate) fn strip(&mut self, last: u8) -> Result<bool, Error> {
        let is = self.secret.look(|slot| slot[..self.len].last() == Some(&last))?;
        if is {
            self.truncate(self.len - 1)?;
        }
        Ok(is)
    }

    /// Wipes the last character of UTF-8, and what stands behind it; `false` if there was none.
    pub(crate) fn pop_character(&mut self) -> Result<bool, Error> {
        let start = self.secret.look(|slot| {
            let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000; // not a continuation byte
            slot[..self.len].iter().rposition(is_start)
        })?;
        start.map_or(Ok(false), |start| self.truncate(start).map(|()| true))
    }

    /// How many characters of UTF-8 there are.
    pub(crate) fn characters(&self) -> Result<usize, Error> {
        self.secret.look(|slot| slot[..self.len].iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count())
    }

    /// Keeps the first `len` bytes and wipes the others; does nothing if there are no others.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn truncate(&mut self, len: usize) -> Result<(), Error> {
        if len < self.len {
            let end = self.len;
            self.secret.change(|slot| wipe::wipe(&mut slot[len..end]))?;
            self.len = len;
        }
        Ok(())
    }

    /// Wipes all bytes; more can be added.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn clear(&mut self) -> Result<(), Error> {
        self.truncate(0)
    }

    /// Lets `f` read the bytes.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        self.secret.with(|slot| f(&slot[..self.len]))
    }

    /// Lets `f` read and write the bytes.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn with_mut<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let len = self.len;
        self.secret.with_mut(|slot| f(&mut slot[..len]))
    }

    /// The same bytes as a secret that does not grow, of exactly their length.
    ///
    /// # Errors
    ///
    /// As [`extend`](Self::extend).
    pub fn into_secret(mut self) -> Result<Secret, Error> {
        if self.len != self.secret.len() {
            self.secret.relocate(self.len, self.len)?;
        }
        Ok(self.secret)
    }

    /// Whether both hold the same bytes, in a time that depends on nothing but their lengths.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`], for either of the two.
    pub fn ct_eq(&self, other: &Self) -> Result<bool, Error> {
        self.with(|a| other.with(|b| crate::ct::eq(a, b)))?
    }

    /// Wipes the bytes and ends the secret: every later access is [`Error::Wiped`].
    ///
    /// # Errors
    ///
    /// As [`Secret::wipe`].
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.secret.wipe()
    }

    /// How many there are, also when they have been wiped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many fit without a move.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.secret.len()
    }

    /// How the bytes are protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.secret.protection()
    }

    /// A plain copy of the bytes, outside of all protection: see [`Secret::expose_to_vec`].
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn expose_to_vec(&self) -> Result<Vec<u8>, Error> {
        self.with(<[u8]>::to_vec)
    }
}

/// The vector is consumed, and wiped to the end of its capacity, whatever comes of it.
impl TryFrom<Vec<u8>> for Bytes {
    type Error = Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Consumed(bytes);
        let mut secret = Secret::options().bytes(bytes.0.len())?;
        secret.extend(&bytes.0)?;
        Ok(secret)
    }
}

impl Zeroize for Bytes {
    fn zeroize(&mut self) {
        self.secret.zeroize();
    }
}

impl ZeroizeOnDrop for Bytes {}

impl fmt::Debug for Bytes {
    /// Length and protection; never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("len", &self.len).field("secret", &self.secret).finish()
    }
}

/// Secret text that grows. Always UTF-8.
///
/// ```
/// use secmem::Text;
///
/// let mut password = Text::try_from(String::from("open, "))?; // the string is wiped, spare capacity and all
/// password.push_str("sesam")?;
/// assert_eq!(password.with(|text| text.chars().count())?, 11);
/// # Ok::<(), secmem::Error>(())
/// ```
///
/// ```compile_fail,E0277
/// println!("{}", secmem::Text::new()?);
/// # Ok::<(), secmem::Error>(())
/// ```
pub struct Text(Bytes);

impl Text {
    /// Empty at first.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`].
    pub fn new() -> Result<Self, Error> {
        Bytes::new().map(Self)
    }

    /// Bytes as text. If they are none, they are wiped.
    ///
    /// # Errors
    ///
    /// [`Error::Utf8`] with the place of the first that cannot be; as [`Secret::with`].
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Error> {
        let valid = bytes.secret.look(|slot| match std::str::from_utf8(&slot[..bytes.len]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Utf8 { at: error.valid_up_to() }),
        })?;
        valid.map(|()| Self(bytes))
    }

    /// Adds a character.
    ///
    /// # Errors
    ///
    /// As [`Bytes::extend`].
    pub fn push(&mut self, character: char) -> Result<(), Error> {
        let mut place = [0; 4];
        let added = self.0.extend(character.encode_utf8(&mut place).as_bytes());
        wipe::wipe(&mut place);
        added
    }

    /// Adds text. Where it came from is the caller's to wipe.
    ///
    /// # Errors
    ///
    /// As [`Bytes::extend`].
    pub fn push_str(&mut self, text: &str) -> Result<(), Error> {
        self.0.extend(text.as_bytes())
    }

    /// Wipes the last character, as the backspace key does; `false` if there was none.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn pop(&mut self) -> Result<bool, Error> {
        self.0.pop_character()
    }

    /// Wipes all of it; more can be added.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn clear(&mut self) -> Result<(), Error> {
        self.0.clear()
    }

    /// Lets `f` read the text.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`]; [`Error::Utf8`] if a stray write has made other bytes of it: `f` has not run then.
    pub fn with<R>(&self, f: impl FnOnce(&str) -> R) -> Result<R, Error> {
        self.0.with(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(f(text)),
            Err(error) => Err(Error::Utf8 { at: error.valid_up_to() }),
        })?
    }

    /// The bytes of the text.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Whether both hold the same text, in a time that depends on nothing but their lengths.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`], for either of the two.
    pub fn ct_eq(&self, other: &Self) -> Result<bool, Error> {
        self.0.ct_eq(&other.0)
    }

    /// Wipes the text and ends the secret: every later access is [`Error::Wiped`].
    ///
    /// # Errors
    ///
    /// As [`Secret::wipe`].
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.0.wipe()
    }

    /// Its bytes, also when they have been wiped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the text is protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.0.protection()
    }

    /// A plain copy of the text, outside of all protection: see [`Secret::expose_to_vec`].
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub fn expose_to_string(&self) -> Result<String, Error> {
        self.with(str::to_owned)
    }
}

/// The string is consumed, and wiped to the end of its capacity, whatever comes of it.
impl TryFrom<String> for Text {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Bytes::try_from(text.into_bytes()).map(Self)
    }
}

impl Zeroize for Text {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Text {}

impl fmt::Debug for Text {
    /// Length and protection; never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Text").field(&self.0).finish()
    }
}
