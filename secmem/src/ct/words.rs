//! Bytes as words, most significant byte first. Where the bytes are fewer than a word has, the places before them are zero.

/// Bytes of a word.
pub(super) const WORD: usize = 8;

/// A word of up to eight bytes. Their number is no secret.
#[inline(always)]
pub(super) fn load(bytes: &[u8]) -> u64 {
    match <[u8; WORD]>::try_from(bytes) {
        Ok(word) => u64::from_be_bytes(word),
        Err(_) => bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// Writes the last `bytes.len()` bytes of a word, up to eight.
#[inline(always)]
pub(super) fn store(mut word: u64, bytes: &mut [u8]) {
    if let Ok(place) = <&mut [u8; WORD]>::try_from(&mut *bytes) {
        *place = word.to_be_bytes();
        return;
    }
    for byte in bytes.iter_mut().rev() {
        *byte = word as u8;
        word >>= 8;
    }
}
