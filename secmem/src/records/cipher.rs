//! The ciphers over a slot, in place and on a stack that is wiped. They are those of well-known crates.

use aes_gcm_now::Aes256Gcm;
use aes_gcm_now::aead::{AeadInOut, KeyInit, Nonce, Tag};
use chacha20poly1305_now::XChaCha20Poly1305;
use hkdf_now::Hkdf;
use sha2_now::Sha512;

use super::format::{Cipher, TAG};
use crate::error::Error as MemoryError;
use crate::scrub;
use crate::secret::Secret;

/// Bytes of a key.
pub(crate) const KEY: usize = 32;
/// Bytes of key and of the longest nonce.
const DERIVED: usize = KEY + 24;

/// What is done to a slot.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// The content becomes ciphertext.
    Seal,
    /// The ciphertext becomes content, if this is its tag.
    Open(&'a [u8; TAG]),
}

/// Derives a key and a nonce from `key` and works on `slot` in place; gives the tag, or nothing if it is not that of the
/// ciphertext, which then is as it was.
pub(crate) fn apply(
    cipher: Cipher,
    (key, salt, info): (&Secret, &[u8], &[u8]),
    authenticated: &[u8],
    slot: &mut [u8],
    way: Way<'_>,
) -> Result<Option<[u8; TAG]>, MemoryError> {
    let mut tag = None;
    let through_the_heap = |content: &[u8]| drop(std::hint::black_box(content.to_vec()));
    if cfg!(secmem_ablate = "record-content") && matches!(way, Way::Seal) {
        through_the_heap(slot);
    }
    key.with(|key| scrub::run(|| tag = work(cipher, (key, salt, info), authenticated, slot, way)))??;
    if cfg!(secmem_ablate = "record-content") && matches!(way, Way::Open(_)) {
        through_the_heap(slot);
    }
    Ok(tag)
}

#[inline(never)]
fn work(
    cipher: Cipher,
    (key, salt, info): (&[u8], &[u8], &[u8]),
    authenticated: &[u8],
    slot: &mut [u8],
    way: Way<'_>,
) -> Option<[u8; TAG]> {
    let mut derived = [0; DERIVED];
    Hkdf::<Sha512>::new(Some(salt), key).expand_multi_info(&[info, &[cipher as u8]], &mut derived).ok()?;
    let (key, nonce) = derived.split_at(KEY);
    match cipher {
        Cipher::Aes256Gcm => with::<Aes256Gcm>(key, &nonce[..12], authenticated, slot, way),
        Cipher::XChaCha20Poly1305 => with::<XChaCha20Poly1305>(key, nonce, authenticated, slot, way),
    }
}

fn with<C: AeadInOut + KeyInit>(
    key: &[u8],
    nonce: &[u8],
    authenticated: &[u8],
    slot: &mut [u8],
    way: Way<'_>,
) -> Option<[u8; TAG]> {
    let cipher = C::new_from_slice(key).ok()?;
    let nonce = Nonce::<C>::try_from(nonce).ok()?;
    match way {
        Way::Seal => {
            let tag = cipher.encrypt_inout_detached(&nonce, authenticated, slot.into()).ok()?;
            tag.as_slice().try_into().ok()
        }
        Way::Open(tag) => {
            let expected = Tag::<C>::try_from(&tag[..]).ok()?;
            // The tag is verified first: what is not ours is not decrypted.
            cipher.decrypt_inout_detached(&nonce, authenticated, slot.into(), &expected).ok()?;
            Some(*tag)
        }
    }
}

/// Derives `into` from a key, on a stack that is wiped. `info` says what it is for.
pub(crate) fn derive(key: &Secret, salt: &[u8], info: &[&[u8]], into: &mut [u8]) -> Result<(), MemoryError> {
    key.with(|key| {
        scrub::run(|| {
            // Fails for more than 255 times 64 bytes alone, and nobody asks for as many.
            let _ = Hkdf::<Sha512>::new(Some(salt), key).expand_multi_info(info, into);
        })
    })?
}
