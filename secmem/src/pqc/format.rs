//! How a record is laid out. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | `SMPQ` |
//! | 4 | version: 1 |
//! | 5 | key encapsulation: 1 ML-KEM-768, 2 ML-KEM-1024, 3 X-Wing |
//! | 6 | cipher: 1 AES-256-GCM, 2 XChaCha20-Poly1305 |
//! | 7 | derivation of the seed: 1 Argon2id, version 0x13 |
//! | 8–19 | its memory in KiB, passes, lanes |
//! | 20–23 | epoch |
//! | 24–31 | milliseconds since 1970 |
//! | 32–39 | bytes of content |
//! | 40–71 | SHA3-256 of the public key |
//! | 72 | bytes of the key's name, 1 to 128 |
//! | 73– | the name |
//! | then | the encapsulated key: 1088, 1568, 1120 bytes |
//! | then | content, encrypted |
//! | the last 16 | tag |
//!
//! The base secret of epoch 0 is what the caller gives; that of the next is HKDF-SHA-512 of it, without a salt, with the
//! information `secmem pqc ratchet v1`, 64 bytes. The salt of the derivation is HKDF-SHA-512 of the caller's salt, with
//! `secmem pqc salt v1`, the number of the key encapsulation and the name, 32 bytes. The seed is 64 bytes, for X-Wing 32. Key
//! and nonce of the cipher are HKDF-SHA-512 of what the encapsulation agrees on, with the hash of the public key as salt and
//! `secmem pqc record v1`, key encapsulation and cipher. The tag covers all before the content, the length of the associated data
//! in 8 bytes, and that data.

use super::error::Error;
use super::kem::Algorithm;
use super::stretch::Cost;
use crate::manager::{Id, LONGEST_ID};
use crate::records::Cipher;

/// The version that is written.
pub const VERSION: u8 = 1;

pub(super) const TAG: usize = 16;

const MAGIC: [u8; 4] = *b"SMPQ";
const FIXED: usize = 73;
const ARGON2ID: u8 = 1;

/// What a record tells of itself to everybody. Nothing in it can be relied on until the record is decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// How the key was agreed on.
    pub algorithm: Algorithm,
    /// The cipher.
    pub cipher: Cipher,
    /// What the derivation of the key costs.
    pub cost: Cost,
    /// The epoch of the base secret.
    pub epoch: u32,
    /// When it was encrypted, in milliseconds since 1970.
    pub millis: u64,
    /// Bytes that it holds.
    pub len: usize,
    /// The name of the key.
    pub key: Id,
    pub(super) fingerprint: [u8; 32],
}

/// A record in its parts.
pub(super) struct Parts<'a> {
    pub(super) header: Header,
    pub(super) encapsulated: &'a [u8],
    /// All before the content.
    pub(super) prefix: &'a [u8],
    pub(super) content: &'a [u8],
    pub(super) tag: &'a [u8; TAG],
}

impl Header {
    /// Reads what a record tells of itself.
    ///
    /// # Errors
    ///
    /// [`Error::NoRecord`], [`Error::Version`], [`Error::Algorithm`], [`Error::Id`], [`Error::Truncated`], [`Error::Trailing`].
    pub fn read(record: &[u8]) -> Result<Self, Error> {
        split(record).map(|parts| parts.header)
    }

    /// With the encapsulated key, all before the content.
    pub(super) fn encode(&self, encapsulated: &[u8]) -> Vec<u8> {
        let name = self.key.to_string();
        let mut bytes = Vec::with_capacity(FIXED + name.len() + encapsulated.len() + self.len + TAG);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.algorithm as u8, self.cipher as u8, ARGON2ID]);
        for number in [self.cost.memory, self.cost.passes, self.cost.lanes, self.epoch] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.millis.to_le_bytes());
        bytes.extend_from_slice(&(self.len as u64).to_le_bytes());
        bytes.extend_from_slice(&self.fingerprint);
        bytes.push(name.len() as u8); // 128 at most
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(encapsulated);
        bytes
    }
}

pub(super) fn split(record: &[u8]) -> Result<Parts<'_>, Error> {
    if record.is_empty() || !record.starts_with(&MAGIC[..MAGIC.len().min(record.len())]) {
        return Err(Error::NoRecord);
    }
    let cut = |needed| Error::Truncated { len: record.len(), needed };
    let version = *record.get(4).ok_or_else(|| cut(FIXED))?;
    if version != VERSION {
        return Err(Error::Version { found: version });
    }
    let (fixed, rest) = record.split_first_chunk::<FIXED>().ok_or_else(|| cut(FIXED))?;
    let [algorithm, cipher, derivation] = [fixed[5], fixed[6], fixed[7]];
    let known = (Algorithm::from_byte(algorithm), Cipher::from_byte(cipher), derivation);
    let (Some(kem), Some(aead), ARGON2ID) = known else {
        return Err(Error::Algorithm { algorithm, cipher, derivation });
    };
    let short = |at: usize| fixed[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let long = |at: usize| u64::from(short(at + 4)) << 32 | u64::from(short(at));
    let named = usize::from(fixed[72]);
    if !(1..=LONGEST_ID).contains(&named) {
        return Err(Error::NoRecord);
    }
    let before = FIXED + named + kem.ciphertext_len();
    let needed = usize::try_from(long(32)).ok().and_then(|len| len.checked_add(before + TAG)).unwrap_or(usize::MAX);
    if record.len() < needed {
        return Err(cut(needed));
    }
    if record.len() > needed {
        return Err(Error::Trailing { len: record.len(), needed });
    }
    let name = std::str::from_utf8(&rest[..named]).map_err(|_| Error::NoRecord)?;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(&fixed[40..72]);
    let (prefix, rest) = record.split_at(before);
    let (content, tag) = rest.split_last_chunk::<TAG>().ok_or_else(|| cut(needed))?;
    let header = Header {
        algorithm: kem,
        cipher: aead,
        cost: Cost { memory: short(8), passes: short(12), lanes: short(16) },
        epoch: short(20),
        millis: long(24),
        len: content.len(),
        key: name.parse()?,
        fingerprint,
    };
    Ok(Parts { header, encapsulated: &prefix[FIXED + named..], prefix, content, tag })
}
