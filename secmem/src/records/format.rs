//! How a record is laid out, and what of it cannot be one. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | `SMRC` |
//! | 4 | version: 1 |
//! | 5 | kind: 1 data, 2 a wrapped key |
//! | 6 | cipher: 1 AES-256-GCM, 2 XChaCha20-Poly1305 |
//! | 7 | 0 |
//! | 8–23 | key id |
//! | 24–31 | milliseconds since 1970 |
//! | 32–39 | bytes of content |
//! | 40–71 | salt |
//! | 72– | content, encrypted |
//! | the last 16 | tag |
//!
//! HKDF-SHA-512 of the key, with the salt and the information `secmem record v1`, kind and cipher, gives 32 bytes of key and then
//! the nonce. The tag covers all 72 bytes before the content, the length of the associated data in 8 bytes, and that data.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::error::Error;

/// Bytes before the content.
pub(super) const HEADER: usize = 72;
/// Bytes behind it.
pub(super) const TAG: usize = 16;
/// Bytes by which a record is longer than what it holds.
pub const OVERHEAD: usize = HEADER + TAG;
/// The version that is written.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"SMRC";

/// A cipher with authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D).
    #[default]
    Aes256Gcm = 1,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha): its time does not depend on the key where the processor has no AES.
    XChaCha20Poly1305 = 2,
}

impl Cipher {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::XChaCha20Poly1305].into_iter().find(|it| *it as u8 == byte)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::XChaCha20Poly1305 => "XChaCha20-Poly1305",
        })
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Data = 1,
    Key = 2,
}

/// The name of a key: 16 bytes that are derived from it, so that no two keys have one. No secret. Shown, and parsed, in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; 16]);

impl KeyId {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = Error;

    /// [`Error::NoKeyId`] if it is not 32 digits of hex.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.len() == 32 && text.bytes().all(|it| it.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().ok_or(Error::NoKeyId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What a record tells of itself to everybody. Nothing in it can be relied on until the record is decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The version of the format.
    pub version: u8,
    /// The cipher.
    pub cipher: Cipher,
    /// The key that it was encrypted under.
    pub key: KeyId,
    /// When it was encrypted first, in milliseconds since 1970.
    pub millis: u64,
    /// Bytes that it holds.
    pub len: usize,
    pub(super) kind: Kind,
    pub(super) salt: [u8; 32],
}

impl Header {
    /// Reads what a record tells of itself.
    ///
    /// # Errors
    ///
    /// [`Error::NoRecord`], [`Error::Version`], [`Error::Cipher`], [`Error::Truncated`], [`Error::Trailing`].
    pub fn read(record: &[u8]) -> Result<Self, Error> {
        let (header, _, _) = split(record, Kind::Data)?;
        Ok(header)
    }

    /// When it was encrypted first.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.millis)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&[VERSION, self.kind as u8, self.cipher as u8, 0]);
        bytes[8..24].copy_from_slice(&self.key.0);
        bytes[24..32].copy_from_slice(&self.millis.to_le_bytes());
        bytes[32..40].copy_from_slice(&(self.len as u64).to_le_bytes());
        bytes[40..].copy_from_slice(&self.salt);
        bytes
    }
}

/// Header, content and tag of a record. What is no record of this version is told apart from one that was cut or grew.
pub(super) fn split(record: &[u8], kind: Kind) -> Result<(Header, &[u8], &[u8; TAG]), Error> {
    if !record.starts_with(&MAGIC[..MAGIC.len().min(record.len())]) || record.is_empty() {
        return Err(Error::NoRecord);
    }
    let cut = |needed| Error::Truncated { len: record.len(), needed };
    let version = *record.get(4).ok_or_else(|| cut(OVERHEAD))?;
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    let (bytes, rest) = record.split_first_chunk::<HEADER>().ok_or_else(|| cut(OVERHEAD))?;
    if bytes[5] != kind as u8 || bytes[7] != 0 {
        return Err(Error::NoRecord);
    }
    let cipher = Cipher::from_byte(bytes[6]).ok_or(Error::Cipher { found: bytes[6] })?;
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let (millis, len) = (number(24), number(32));
    let needed = usize::try_from(len).ok().and_then(|len| len.checked_add(OVERHEAD)).unwrap_or(usize::MAX);
    if record.len() < needed {
        return Err(cut(needed));
    }
    if record.len() > needed {
        return Err(Error::Trailing { len: record.len(), needed });
    }
    let (mut key, mut salt) = (KeyId([0; 16]), [0; 32]);
    key.0.copy_from_slice(&bytes[8..24]);
    salt.copy_from_slice(&bytes[40..]);
    let (content, tag) = rest.split_last_chunk::<TAG>().ok_or_else(|| cut(OVERHEAD))?;
    Ok((Header { version, cipher, key, millis, len: content.len(), kind, salt }, content, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_read_as_it_is_shown() {
        let id = KeyId([0xAB; 16]);

        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        for wrong in ["", "abc", "+bababababababababababababababab", &"g".repeat(32), &"ab".repeat(17)] {
            assert!(matches!(wrong.parse::<KeyId>(), Err(Error::NoKeyId)), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            version: VERSION,
            cipher: Cipher::XChaCha20Poly1305,
            key: KeyId([3; 16]),
            millis: 1_700_000_000_123,
            len: 5,
            kind: Kind::Data,
            salt: [9; 32],
        };
        let record = [&header.encode()[..], &[1; 5], &[2; TAG]].concat();

        let (read, content, tag) = split(&record, Kind::Data).unwrap();

        assert_eq!((read, content, tag), (header, &[1; 5][..], &[2; TAG]));
        assert!(matches!(split(&record, Kind::Key), Err(Error::NoRecord)));
    }
}
