//! How a key lies in its slot, and how its public half is written down.
//!
//! A secret key is `n p q dp dq qinv` (RFC 8017, 3.2), each with its full length, the highest byte first: `n` as many bytes as
//! the key has, the others half as many. Its length tells its size. `p` and `q` have their highest two bits set.

use pkcs1::der::asn1::{BitStringRef, UintRef};
use pkcs1::der::{Decode, Encode};
use spki::SubjectPublicKeyInfoRef;

use super::Error;

/// The public exponent, as its bytes and as a number.
const EXPONENT: [u8; 3] = [1, 0, 1];
pub(super) const E: u64 = 65537;

/// Bytes of the longest modulus.
pub(super) const MOST_LEN: usize = 512;

/// Bytes of hash and padding that OAEP with SHA-256 puts around a content (RFC 8017, 7.1.1).
const AROUND: usize = 66;

/// How many bits the modulus of a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bits {
    B2048,
    B3072,
    B4096,
}

impl Bits {
    pub(crate) const ALL: [Self; 3] = [Self::B2048, Self::B3072, Self::B4096];

    /// Bytes of the modulus, and of whatever is wrapped.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::B2048 => 256,
            Self::B3072 => 384,
            Self::B4096 => MOST_LEN,
        }
    }

    /// Bytes that can be wrapped: 190, 318 and 446.
    pub(crate) fn most(self) -> usize {
        self.len() - AROUND
    }

    /// Bytes of a secret key.
    pub(crate) fn secret_len(self) -> usize {
        self.len() / 2 * 7
    }

    /// The size of a secret key, by its length.
    pub(crate) fn of_secret(secret: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|bits| bits.secret_len() == secret.len())
    }
}

/// The public half of a secret key as DER of a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
///
/// # Errors
///
/// [`Error::Key`] if `secret` is no key.
pub(crate) fn public(secret: &[u8]) -> Result<Vec<u8>, Error> {
    let bits = Bits::of_secret(secret).ok_or(Error::Key)?;
    write(&secret[..bits.len()]).map_err(|_| Error::Key)
}

fn write(modulus: &[u8]) -> Result<Vec<u8>, pkcs1::der::Error> {
    let key = pkcs1::RsaPublicKey { modulus: UintRef::new(modulus)?, public_exponent: UintRef::new(&EXPONENT)? };
    let (mut inner, mut outer) = ([0; MOST_LEN + 64], [0; MOST_LEN + 128]);
    let key = BitStringRef::from_bytes(key.encode_to_slice(&mut inner)?)?;
    let info = SubjectPublicKeyInfoRef { algorithm: pkcs1::ALGORITHM_ID, subject_public_key: key };
    Ok(info.encode_to_slice(&mut outer)?.to_vec())
}

/// The size of a public key; `None` if that is none.
pub(crate) fn bits_of(der: &[u8]) -> Option<Bits> {
    parse(der).ok().map(|(bits, _)| bits)
}

/// The size and the modulus of a public key. Nothing but what [`public`] writes is one.
pub(super) fn parse(der: &[u8]) -> Result<(Bits, &[u8]), Error> {
    let known = |der| {
        let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
        let key = pkcs1::RsaPublicKeyRef::from_der(info.subject_public_key.as_bytes()?).ok()?;
        let modulus = key.modulus.as_bytes();
        let bits = Bits::ALL.into_iter().find(|bits| bits.len() == modulus.len())?;
        let is_full = modulus[0] >> 7 == 1 && modulus[modulus.len() - 1] & 1 == 1;
        let is_ours = info.algorithm == pkcs1::ALGORITHM_ID && key.public_exponent.as_bytes() == EXPONENT;
        (is_full && is_ours).then_some((bits, modulus))
    };
    known(der).ok_or(Error::PublicKey)
}
