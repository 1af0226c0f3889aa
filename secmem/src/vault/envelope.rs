//! Secrets for whoever has a key, at rest and under way: X-Wing agrees on a key, or RSA wraps one, and AES-256-GCM encrypts under it.
//!
//! ```text
//! offset  0  version   1 byte
//!         1  algorithm 1 byte
//!         2  ciphertext of the key encapsulation, or the wrapped key
//!         -  content, encrypted
//!         -  tag, 16 bytes
//! ```

use std::fmt;

use aes_gcm_now::aead::{AeadInOut, KeyInit};
use aes_gcm_now::{Aes256Gcm, Nonce, Tag};

use super::algorithm::{Algorithm, Kind};
use super::error::Error;
use crate::error::Error as MemoryError;
use crate::keystream;
use crate::policy::Policy;
use crate::pqc::Algorithm as Kem;
use crate::pqc::kem::{self, SHARED};
#[cfg(feature = "vault-rsa")]
use crate::scrub;
use crate::scrub::Stack;
use crate::secret::{Options, Secret};

const VERSION: u8 = 1;
const START: usize = 2;
const TAG: usize = 16;
const WHAT_FOR: &str = "secmem vault v1, the key of an envelope";

/// Bytes of secret in an envelope, at most.
pub(super) const MOST: usize = 64 << 10;

/// The public half of a vault's key: whoever has it can send the vault a secret that only its worker opens.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Of the bytes that [`to_bytes`](Self::to_bytes) gave; `None` if they are no key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&algorithm, bytes) = bytes.split_first()?;
        let algorithm = Algorithm::from_byte(algorithm).filter(|algorithm| match algorithm.kind() {
            Kind::Kem(kem) => kem.public_len() == bytes.len(),
            #[cfg(feature = "vault-rsa")]
            Kind::Rsa(bits) => crate::vault_rsa::bits_of(bytes) == Some(bits),
            Kind::Absent => false,
        })?;
        Some(Self { algorithm, bytes: bytes.to_vec() })
    }

    /// One byte for the algorithm, and the key as its standard has it; that of RSA as DER of a SubjectPublicKeyInfo (RFC 5280,
    /// 4.1.2.7).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[self.algorithm as u8], &self.bytes[..]].concat()
    }

    /// How the key is agreed on.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A secret that only the worker with the other half opens: see [`Vault::unwrap`](super::Vault::unwrap).
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above 64 KiB; [`Error::Envelope`] if the key's bytes are none of its algorithm's; [`Error::Memory`].
    pub fn wrap(&self, secret: &Secret) -> Result<Vec<u8>, Error> {
        let mut copy = Secret::options().policy(secret.protection_policy()).zeroed(secret.len())?;
        secret.with(|from| copy.change(|to| crate::wipe::copy(from, to)))??;
        let mut stack = Stack::with_policy(secret.protection_policy(), kem::STACK)?;
        seal(&mut stack, self, &mut copy)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {} bytes)", self.algorithm, self.bytes.len())
    }
}

/// The secret half: a seed.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) seed: Secret,
    pub(super) public: PublicKey,
}

impl Key {
    pub(super) fn draw(algorithm: Algorithm, options: Options) -> Result<Self, Error> {
        let (seed, bytes) = match algorithm.kind() {
            Kind::Kem(kem) => {
                let seed = draw(kem.seed_len(), options)?;
                let public = seed.look(|seed| kem::public_key(kem, seed))??;
                (seed, public.unwrap_or_default()) // the seed has the length that it has to
            }
            #[cfg(feature = "vault-rsa")]
            Kind::Rsa(bits) => {
                let key = crate::vault_rsa::generate(bits, options)?;
                let public = key.look(crate::vault_rsa::public)??;
                (key, public)
            }
            Kind::Absent => return Err(Error::Algorithm),
        };
        Ok(Self { seed, public: PublicKey { algorithm, bytes } })
    }

    /// What is in an envelope; `None` if it is not for this key, or was changed.
    pub(super) fn open(
        &self,
        stack: &mut Stack,
        envelope: &[u8],
        options: Options,
    ) -> Result<Option<Secret>, MemoryError> {
        let algorithm = self.public.algorithm;
        let Some((head, rest)) = envelope.split_at_checked(START + algorithm.told_len()) else { return Ok(None) };
        if head[..START] != [VERSION, algorithm as u8] {
            return Ok(None);
        }
        let Some((content, tag)) = rest.split_last_chunk::<TAG>().filter(|(content, _)| content.len() <= MOST) else {
            return Ok(None);
        };
        let mut secret = options.zeroed(content.len())?;
        secret.change(|slot| slot.copy_from_slice(content))?;
        let mut opened = None;
        match algorithm.kind() {
            Kind::Kem(kem) => {
                let run =
                    |slot: &mut [u8]| self.seed.look(|seed| stack.run(|| opened = unwrap(kem, seed, head, slot, tag)));
                secret.change(run)???;
            }
            #[cfg(feature = "vault-rsa")]
            Kind::Rsa(bits) => {
                let mut shared = Secret::options().policy(self.seed.protection_policy()).zeroed(bits.most())?;
                let unwrapped = shared
                    .change(|shared| self.seed.look(|key| crate::vault_rsa::unwrap(key, &head[START..], shared)))??;
                match unwrapped {
                    Ok(SHARED) => {}
                    Err(crate::vault_rsa::Error::Memory(error)) => return Err(error),
                    // Which of the two it was, nobody is told.
                    Ok(_) | Err(_) => return Ok(None),
                }
                let run =
                    |slot: &mut [u8]| shared.look(|shared| scrub::run(|| opened = decrypt(shared, head, slot, tag)));
                secret.change(run)???;
            }
            Kind::Absent => {}
        }
        Ok(opened.map(|()| secret))
    }
}

#[cfg(feature = "vault-rsa")]
#[inline(never)]
fn decrypt(shared: &[u8], head: &[u8], slot: &mut [u8], tag: &[u8; TAG]) -> Option<()> {
    let cipher = cipher_of(shared.first_chunk()?)?;
    let tag = Tag::try_from(&tag[..]).ok()?;
    cipher.decrypt_inout_detached(&Nonce::default(), head, slot.into(), &tag).ok()
}

#[cfg(feature = "vault-rsa")]
#[inline(never)]
fn encrypt(shared: &[u8], head: &[u8], slot: &mut [u8]) -> Option<[u8; TAG]> {
    let cipher = cipher_of(shared.first_chunk()?)?;
    let tag = cipher.encrypt_inout_detached(&Nonce::default(), head, slot.into()).ok()?;
    tag.as_slice().try_into().ok()
}

#[inline(never)]
fn unwrap(algorithm: Kem, seed: &[u8], head: &[u8], slot: &mut [u8], tag: &[u8; TAG]) -> Option<()> {
    let mut shared = [0; SHARED];
    kem::decapsulate_here(algorithm, seed, &head[START..], &mut shared)?;
    let cipher = cipher_of(&shared)?;
    let tag = Tag::try_from(&tag[..]).ok()?;
    cipher.decrypt_inout_detached(&Nonce::default(), head, slot.into(), &tag).ok()
}

/// The cipher of one envelope: no key is used twice.
fn cipher_of(shared: &[u8; SHARED]) -> Option<Aes256Gcm> {
    let mut hasher = blake3::Hasher::new_derive_key(WHAT_FOR);
    hasher.update(shared);
    Aes256Gcm::new_from_slice(hasher.finalize().as_bytes()).ok()
}

/// An envelope for a key; the secret is encrypted in its slot, and gone from there.
pub(super) fn seal(stack: &mut Stack, key: &PublicKey, secret: &mut Secret) -> Result<Vec<u8>, Error> {
    if secret.len() > MOST {
        return Err(Error::TooLong { most: MOST });
    }
    let algorithm = key.algorithm;
    let mut envelope = vec![VERSION, algorithm as u8];
    envelope.resize(START + algorithm.told_len(), 0);
    let mut tag = None;
    match algorithm.kind() {
        Kind::Kem(kem) => {
            let random = draw(kem.random_len(), Secret::options().policy(secret.protection_policy()))?;
            let head = &mut envelope[..];
            let run =
                |slot: &mut [u8]| random.look(|random| stack.run(|| tag = wrap(kem, &key.bytes, random, head, slot)));
            secret.change(run)???;
        }
        #[cfg(feature = "vault-rsa")]
        Kind::Rsa(_) => {
            let shared = draw(SHARED, Secret::options().policy(secret.protection_policy()))?;
            let wrapped = shared.look(|shared| crate::vault_rsa::wrap(&key.bytes, shared))??;
            envelope[START..].copy_from_slice(&wrapped);
            let head = &envelope[..];
            let run = |slot: &mut [u8]| shared.look(|shared| scrub::run(|| tag = encrypt(shared, head, slot)));
            secret.change(run)???;
        }
        Kind::Absent => return Err(Error::Algorithm),
    }
    let tag = tag.ok_or(Error::Envelope)?;
    secret.look(|slot| envelope.extend_from_slice(slot))?;
    envelope.extend(tag);
    Ok(envelope)
}

#[inline(never)]
fn wrap(algorithm: Kem, public: &[u8], random: &[u8], head: &mut [u8], slot: &mut [u8]) -> Option<[u8; TAG]> {
    let mut shared = [0; SHARED];
    kem::encapsulate_here(algorithm, public, random, &mut shared, &mut head[START..])?;
    let tag = cipher_of(&shared)?.encrypt_inout_detached(&Nonce::default(), head, slot.into()).ok()?;
    tag.as_slice().try_into().ok()
}

/// One half of a session's agreement: what the caller keeps, and what it tells the worker.
pub(super) fn propose(policy: Policy) -> Result<Key, Error> {
    Key::draw(Algorithm::XWing, Secret::options().policy(policy))
}

/// The worker's half: what is agreed on, and what it tells the caller. `None`: that was no key.
pub(super) fn accept(public: &[u8], policy: Policy) -> Result<Option<(Secret, Vec<u8>)>, MemoryError> {
    let random = draw(Kem::XWing.random_len(), Secret::options().policy(policy))?;
    let mut agreed = Secret::options().policy(policy).zeroed(SHARED)?;
    let told =
        agreed.change(|agreed| random.look(|random| kem::encapsulate(Kem::XWing, public, random, agreed)))???;
    Ok(told.map(|told| (agreed, told)))
}

/// The caller's end of it.
pub(super) fn conclude(key: &Key, told: &[u8], policy: Policy) -> Result<Option<Secret>, MemoryError> {
    let mut agreed = Secret::options().policy(policy).zeroed(SHARED)?;
    let known = agreed.change(|agreed| key.seed.look(|seed| kem::decapsulate(Kem::XWing, seed, told, agreed)))???;
    Ok(known.map(|()| agreed))
}

/// The operation of a worker's private key by itself, in this process: an envelope, opened as the worker opens it, on a stack that
/// is kept. For the bench.
#[derive(Debug)]
pub struct Opener {
    key: Key,
    stack: Stack,
    envelope: Vec<u8>,
}

impl Opener {
    /// With a key of its own, and `secret` wrapped for it.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::wrap`].
    pub fn new(algorithm: Algorithm, secret: &Secret) -> Result<Self, Error> {
        let key = Key::draw(algorithm, Secret::options())?;
        let envelope = key.public.wrap(secret)?;
        Ok(Self { key, stack: Stack::new(kem::STACK)?, envelope })
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn open(&mut self) -> Result<Secret, Error> {
        self.key.open(&mut self.stack, &self.envelope, Secret::options())?.ok_or(Error::Envelope)
    }
}

/// A random seed of `len` bytes.
pub(super) fn draw(len: usize, options: Options) -> Result<Secret, MemoryError> {
    let mut seed = options.zeroed(len)?;
    seed.slot.write(keystream::from_kernel)??;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(key: &Key, envelope: &[u8]) -> Option<Vec<u8>> {
        let mut stack = Stack::new(kem::STACK).unwrap();
        key.open(&mut stack, envelope, Secret::options()).unwrap().map(|secret| secret.expose_to_vec().unwrap())
    }

    #[test]
    fn what_is_wrapped_for_a_key_is_opened_by_it_alone() {
        for algorithm in [Algorithm::XWing, Algorithm::MlKem768, Algorithm::MlKem1024] {
            let (key, other) =
                (Key::draw(algorithm, Secret::options()).unwrap(), Key::draw(algorithm, Secret::options()).unwrap());
            for len in [0, 1, 26, 64 << 10] {
                let secret = Secret::try_from(vec![0x5A; len]).unwrap();
                let public = PublicKey::from_bytes(&key.public.to_bytes()).unwrap();
                assert_eq!(public, key.public);
                let envelope = public.wrap(&secret).unwrap();
                assert_eq!(opened(&key, &envelope), Some(vec![0x5A; len]));
                assert_eq!(opened(&other, &envelope), None);
                assert_ne!(public.wrap(&secret).unwrap(), envelope);
            }
        }
    }

    #[test]
    fn envelopes_that_were_changed_or_cut_are_refused() {
        let key = Key::draw(Algorithm::XWing, Secret::options()).unwrap();
        let envelope = key.public.wrap(&Secret::try_from(b"pass".to_vec()).unwrap()).unwrap();
        for at in [0, 1, 2, 700, envelope.len() - 20, envelope.len() - 1] {
            let mut changed = envelope.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&key, &changed), None, "{at}");
        }
        for len in [0, 1, 2, 1000, START + 1120, envelope.len() - 1] {
            assert_eq!(opened(&key, &envelope[..len]), None, "{len}");
        }
        assert_eq!(opened(&key, &[&envelope[..], &[0]].concat()), None);
    }

    #[test]
    fn what_is_too_long_or_no_key_is_refused() {
        let key = Key::draw(Algorithm::XWing, Secret::options()).unwrap();
        let long = Secret::new(MOST + 1).unwrap();
        assert!(matches!(key.public.wrap(&long), Err(Error::TooLong { most: MOST })));
        let bytes = key.public.to_bytes();
        assert!(PublicKey::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert!(PublicKey::from_bytes(&[]).is_none());
        assert!(PublicKey::from_bytes(&[&[9], &bytes[1..]].concat()).is_none());
    }
}
