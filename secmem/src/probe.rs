//! Seams for tests of the protection.

#[cfg(all(feature = "std", target_os = "linux"))]
use crate::Secret;
#[cfg(all(feature = "vault", target_os = "linux", target_arch = "x86_64"))]
pub use crate::vault::envelope::Opener;

/// What a coffer stored: salt (16 bytes), tag (16 bytes) and ciphertext, one after the other.
#[cfg(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"))]
#[must_use]
pub fn stored(stored: &crate::Stored) -> Vec<u8> {
    stored.stands()
}

/// Puts others in their place.
#[cfg(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"))]
pub fn overwrite(stored: &crate::Stored, content: &[u8]) {
    stored.overwrite(content);
}

/// Changes a bit of a coffer's pre-key, of 16 KiB.
#[cfg(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"))]
pub fn flip_pre_key(coffer: &crate::Coffer, bit: usize) {
    coffer.flip(bit);
}

/// [`ct::eq`](crate::ct::eq) of 16 bytes and more as a processor without AVX2 runs it.
///
/// # Panics
///
/// If the slices are shorter, or of unequal lengths.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
#[must_use]
pub fn eq_by_sse2(a: &[u8], b: &[u8]) -> bool {
    crate::ct::eq_by_sse2(a, b)
}

/// One past the last data byte of the arena that `secret` lives in: the first byte of the guard page.
///
/// To see that an overrun is caught. Reading it must end the process.
#[cfg(all(feature = "std", target_os = "linux"))]
#[must_use]
pub fn arena_end(secret: &Secret) -> *const u8 {
    secret.arena_end()
}

/// RSA without the protected stack that the vault runs it on: for figures, and to see that it keeps to that stack.
#[cfg(all(feature = "vault-rsa", target_os = "linux", target_arch = "x86_64"))]
pub mod rsa {
    use std::error::Error;

    use crate::vault_rsa::{self, Bits};
    use crate::{Options, Secret};

    fn bits(bits: usize) -> Option<Bits> {
        Bits::ALL.into_iter().find(|known| known.len() * 8 == bits)
    }

    /// Draws a key of 2048, 3072 or 4096 bits.
    ///
    /// # Errors
    ///
    /// For another size, and if the kernel gave no memory or no random bytes.
    pub fn generate(size: usize, options: Options) -> Result<Secret, Box<dyn Error>> {
        Ok(vault_rsa::generate(bits(size).ok_or("no such size")?, options)?)
    }

    /// The public half of a key.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn public(secret: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(vault_rsa::public(secret)?)
    }

    /// Wraps for a public key.
    ///
    /// # Errors
    ///
    /// If it is none, or `plain` is too long, or the kernel gave no memory or no random bytes.
    pub fn wrap(public: &[u8], plain: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(vault_rsa::wrap(public, plain)?)
    }

    /// Unwraps.
    ///
    /// # Errors
    ///
    /// If it was not wrapped for this key, and if the kernel gave no memory or no random bytes.
    pub fn unwrap(secret: &[u8], wrapped: &[u8], out: &mut [u8]) -> Result<usize, Box<dyn Error>> {
        Ok(vault_rsa::unwrap(secret, wrapped, out)?)
    }

    /// The same on the caller's stack, which nobody wipes.
    pub fn unwrap_bare(secret: &[u8], wrapped: &[u8], out: &mut [u8]) -> Option<usize> {
        vault_rsa::unwrap_bare(secret, wrapped, out)
    }

    /// Draws a key on the caller's stack.
    pub fn generate_bare(size: usize, secret: &mut [u8]) -> Option<()> {
        vault_rsa::generate_bare(bits(size)?, secret)
    }

    /// Takes OAEP's padding off, and tells in an answer that no branch has looked at whether it was right.
    pub fn unpad(padded: &mut [u8], out: &mut [u8], len: &mut usize) -> crate::ct::Choice {
        vault_rsa::unpad(padded, out, len)
    }
    /// A key of 256 bits, of two primes.
    pub fn small_key(p: &[u8; 16], q: &[u8; 16]) -> Option<[u8; 112]> {
        vault_rsa::small::key(p, q)
    }

    /// What such a key makes of a number by its primes.
    pub fn small_raise(secret: &[u8; 112], cipher: &[u8; 32]) -> Option<[u8; 32]> {
        vault_rsa::small::raise(secret, cipher)
    }

    /// The same with a blind, and a check of the result.
    pub fn small_blinded(secret: &[u8; 112], cipher: &[u8; 32], blind: &[u8; 32]) -> Option<[u8; 32]> {
        vault_rsa::small::blinded(secret, cipher, blind)
    }
}
