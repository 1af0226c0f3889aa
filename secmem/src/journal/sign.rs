//! Signatures by Ed25519 (RFC 8032): who verifies them has a public key, and can make none.
//!
//! A code made with a secret key would have been cheaper, but whoever checks one could also write one, and a key that lies
//! where journals are read is not well kept.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek_now::{Signature, Signer as _, SigningKey as Key, VerifyingKey};

use super::error::Error;
use crate::secret::Secret;
use crate::{keystream, scrub};

/// Bytes of a seed and of a public key.
pub(super) const KEY: usize = 32;
/// Bytes of a signature.
pub(super) const SIGNATURE: usize = 64;

/// A key that signs: a seed of 32 bytes in an arena. All that is computed of it stands on a stack that is wiped.
#[derive(Debug)]
pub struct SigningKey {
    seed: Secret,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a seed of 32 bytes, as RFC 8032 has it.
    ///
    /// # Errors
    ///
    /// [`Error::KeyLength`]; [`Error::Memory`].
    pub fn new(seed: Secret) -> Result<Self, Error> {
        let mut public = None;
        seed.with(|seed| scrub::run(|| public = seed.try_into().ok().map(public_of)))??;
        let public = PublicKey(public.ok_or(Error::KeyLength { len: seed.len() })?);
        Ok(Self { seed, public })
    }

    /// One that is drawn. [`expose`](Self::expose) lets it be kept.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the kernel gave no memory or no random bytes.
    pub fn draw() -> Result<Self, Error> {
        let mut seed = Secret::options().zeroed(KEY)?;
        seed.slot.write(keystream::from_kernel)??;
        Self::new(seed)
    }

    /// The seed, in its slot.
    #[must_use]
    pub fn expose(&self) -> &Secret {
        &self.seed
    }

    /// Who has it can verify, and cannot sign.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE], Error> {
        let mut signature = [0; SIGNATURE];
        let into = &mut signature;
        let mut done = false;
        self.seed.with(|seed| scrub::run(|| done = sign(seed, message, into)))??;
        if done { Ok(signature) } else { Err(Error::KeyLength { len: self.seed.len() }) }
    }
}

#[inline(never)]
fn public_of(seed: &[u8; KEY]) -> [u8; KEY] {
    Key::from_bytes(seed).verifying_key().to_bytes()
}

#[inline(never)]
fn sign(seed: &[u8], message: &[u8], into: &mut [u8; SIGNATURE]) -> bool {
    let Ok(seed) = seed.try_into() else { return false };
    *into = Key::from_bytes(seed).sign(message).to_bytes();
    true
}

/// The key that verifies a journal's signatures. No secret. Shown, and parsed, as `ed25519:` and 64 digits of hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// Its bytes, as RFC 8032 has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// What checks signatures; `None` if no key has these bytes.
    pub(super) fn verifier(&self) -> Option<Verifier> {
        VerifyingKey::from_bytes(&self.0).ok().filter(|key| !key.is_weak()).map(Verifier)
    }
}

pub(super) struct Verifier(VerifyingKey);

impl Verifier {
    pub(super) fn is_of(&self, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// Why a text is no [`PublicKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is ed25519: and 64 digits of hex, those of a key")]
pub struct NoPublicKey;

impl FromStr for PublicKey {
    type Err = NoPublicKey;

    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        let digits = text.strip_prefix("ed25519:").ok_or(NoPublicKey)?;
        let key = Self(super::line::unhex(digits.as_bytes()).ok_or(NoPublicKey)?);
        key.verifier().map(|_| key).ok_or(NoPublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", super::line::Hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn keys_and_signatures_are_those_of_the_rfc() {
        let seed: [u8; 32] =
            super::super::line::unhex(b"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::new(Secret::try_from(seed.to_vec()).unwrap()).unwrap();

        let signature = key.sign(&[0x72]).unwrap();

        let public = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.public().to_string(), public);
        assert_eq!(public.parse(), Ok(key.public()));
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(super::super::line::Hex(&signature).to_string(), expected);
        assert!(key.public().verifier().unwrap().is_of(&[0x72], &signature));
        assert!(!key.public().verifier().unwrap().is_of(&[0x73], &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let zeros = format!("ed25519:{}", "0".repeat(64));
        for text in ["", "ed25519:", "ed25519:xyz", &"3d".repeat(32), &zeros] {
            assert_eq!(text.parse::<PublicKey>(), Err(NoPublicKey), "{text}");
        }
        let short = Secret::try_from(vec![1; 31]).unwrap();
        assert!(matches!(SigningKey::new(short), Err(Error::KeyLength { len: 31 })));
    }
}
