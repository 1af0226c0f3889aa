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
