//! What the managed store does with keys, through the crates that it uses and through those that it could have used.
//!
//! What is to be looked for beside the key, a content or what a key is expanded to, is put beside the result before, where nothing
//! is left of that: so what is found was left by the crate that is looked at.

use aes_gcm_now::aead::inout::InOutBuf;
use aes_gcm_now::aead::{AeadInOut, KeyInit, Nonce};
use argon2_now::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305_now::XChaCha20Poly1305;
use ed25519_dalek_now::{Signer, SigningKey};
use fips203::traits::{Decaps, KeyGen, SerDes};
use hkdf_now::Hkdf;
use ml_kem::kem::Decapsulate;
use ml_kem::{ml_kem_768, ml_kem_1024};
use orion::hazardous::aead::xchacha20poly1305 as orion_xchacha;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA512, KeyType, Salt};
use ring::signature::Ed25519KeyPair;
use scenario_stage::Failure;
use sha2_now::Digest;
use shake::digest::{ExtendableOutput, Update, XofReader};

use crate::victim::{KEY, SALT, failed};

/// Bytes of a content.
pub(crate) const CONTENT: usize = 64;
/// Bytes of a tag.
pub(crate) const TAG: usize = 16;

pub(crate) const TEXT: &[(&str, usize)] = &[("content", CONTENT)];

/// Bytes of the stack on which the store runs key encapsulations.
pub(crate) const LARGE: usize = 256 << 10;

/// Of an expanded key of ML-KEM: its secret vector as FIPS 203 encodes it, with 12 bits a coefficient, and as code computes with it,
/// with 16. The rest of it is the public key, and bytes that stand in the seed.
pub(crate) const EXPANDED_768: &[(&str, usize)] =
    &[("shared secret", KEY), ("vector, encoded", 3 * 384), ("vector, as numbers", 3 * 512)];
pub(crate) const EXPANDED_1024: &[(&str, usize)] =
    &[("shared secret", KEY), ("vector, encoded", 4 * 384), ("vector, as numbers", 4 * 512)];
/// X-Wing's seed becomes ML-KEM's and the key of X25519.
pub(crate) const EXPANDED_X_WING: &[(&str, usize)] =
    &[("shared secret", KEY), ("expanded seed", 96), ("vector, encoded", 3 * 384), ("vector, as numbers", 3 * 512)];

/// A content that nobody else has.
pub(crate) fn content(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let mut hasher = blake3::Hasher::new_derive_key("secmem scenarios-crypto: a content of records");
    hasher.update(key).finalize_xof().fill(&mut made[..CONTENT]);
    Ok(())
}

#[inline(never)]
pub(crate) fn ring(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let (content, place) = made[..2 * CONTENT].split_at_mut(CONTENT);
    place.copy_from_slice(content); // it works in place alone
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(failed("making a key"))?);
    let nonce = ring::aead::Nonce::assume_unique_for_key([7; 12]);
    cipher.seal_in_place_separate_tag(nonce, Aad::empty(), place).map(drop).map_err(failed("encrypting"))
}

#[inline(never)]
pub(crate) fn aes_gcm(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    encrypt::<aes_gcm_now::Aes256Gcm>(key, &[7; 12], made)
}

#[inline(never)]
pub(crate) fn xchacha(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    encrypt::<XChaCha20Poly1305>(key, &[7; 24], made)
}

fn encrypt<C: AeadInOut + KeyInit>(key: &[u8], nonce: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let cipher = C::new_from_slice(key).map_err(failed("making a key"))?;
    let nonce = Nonce::<C>::try_from(nonce).map_err(failed("taking a nonce"))?;
    let (content, place) = made[..2 * CONTENT].split_at_mut(CONTENT);
    let both = InOutBuf::new(content, place).map_err(failed("taking a place"))?;
    cipher.encrypt_inout_detached(&nonce, b"", both).map(drop).map_err(failed("encrypting"))
}

#[inline(never)]
pub(crate) fn orion(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let key = orion_xchacha::SecretKey::try_from(key).map_err(failed("making a key"))?;
    let nonce = orion_xchacha::Nonce::from([7; 24]);
    let (content, place) = made.split_at_mut(CONTENT);
    orion_xchacha::XChaCha20Poly1305::seal(&key, &nonce, content, None, place).map_err(failed("encrypting"))
}

#[inline(never)]
pub(crate) fn hkdf(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let hkdf = Hkdf::<sha2_now::Sha512>::new(Some(SALT), key);
    hkdf.expand_multi_info(&[b"session", &[1]], made).map_err(failed("expanding"))
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[inline(never)]
pub(crate) fn ring_hkdf(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let extracted = Salt::new(HKDF_SHA512, SALT).extract(key);
    let expanded = extracted.expand(&[b"session", &[1]], Length(made.len())).map_err(failed("expanding"))?;
    expanded.fill(made).map_err(failed("expanding"))
}

#[inline(never)]
pub(crate) fn sha2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    made.copy_from_slice(&sha2_now::Sha256::digest(key));
    Ok(())
}

#[inline(never)]
pub(crate) fn sha3(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    made.copy_from_slice(&sha3::Sha3_256::digest(key));
    Ok(())
}

/// In memory of the caller's, who overwrites it: in the store it stands in an arena.
#[inline(never)]
pub(crate) fn argon2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let params = Params::new(64, 1, 1, Some(KEY)).map_err(failed("choosing parameters"))?;
    let mut memory = vec![Block::new(); params.block_count()];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done = argon2.hash_password_into_with_memory(key, SALT, made, &mut memory);
    for block in &mut memory {
        secmem::wipe::wipe(zerocopy::IntoBytes::as_mut_bytes(block.as_mut()));
    }
    done.map_err(failed("hashing"))
}

#[inline(never)]
pub(crate) fn rust_argon2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let config = rust_argon2_lib::Config { mem_cost: 64, time_cost: 1, ..rust_argon2_lib::Config::default() };
    let mut hash = rust_argon2_lib::hash_raw(key, SALT, &config).map_err(failed("hashing"))?;
    made.copy_from_slice(&hash);
    secmem::wipe::wipe(&mut hash); // given to us
    Ok(())
}

#[inline(never)]
pub(crate) fn ed25519(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    let signature = SigningKey::from_bytes(seed).sign(b"a message").to_bytes();
    made.copy_from_slice(&signature[..KEY]);
    Ok(())
}

#[inline(never)]
pub(crate) fn ring_ed25519(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let pair = Ed25519KeyPair::from_seed_unchecked(key).map_err(failed("taking a seed"))?;
    made.copy_from_slice(&pair.sign(b"a message").as_ref()[..KEY]);
    Ok(())
}

/// No such ciphertext was ever made, here and below, so what comes out is drawn from the key and it.
#[inline(never)]
pub(crate) fn ml_kem(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    let key = ml_kem_768::DecapsulationKey::from_seed(seed);
    made[..KEY].copy_from_slice(&key.decapsulate(&ml_kem_768::Ciphertext::from_fn(|_| 7)));
    Ok(())
}

#[inline(never)]
pub(crate) fn ml_kem_1024(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    let key = ml_kem_1024::DecapsulationKey::from_seed(seed);
    made[..KEY].copy_from_slice(&key.decapsulate(&ml_kem_1024::Ciphertext::from_fn(|_| 7)));
    Ok(())
}

#[inline(never)]
pub(crate) fn libcrux(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    use libcrux_ml_kem::mlkem768::{MlKem768Ciphertext, decapsulate, generate_key_pair};

    let pair = generate_key_pair(key.try_into().map_err(failed("taking a seed"))?);
    made[..KEY].copy_from_slice(&decapsulate(pair.private_key(), &MlKem768Ciphertext::from([7; 1088])));
    Ok(())
}

#[inline(never)]
pub(crate) fn fips203(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    use fips203::ml_kem_768::{CipherText, KG};

    let (d, z) = key.split_at(KEY);
    let (d, z) = (d.try_into().map_err(failed("taking a seed"))?, z.try_into().map_err(failed("taking a seed"))?);
    let (_, key) = KG::keygen_from_seed(d, z);
    let ciphertext = CipherText::try_from_bytes([7; 1088]).map_err(failed("taking a ciphertext"))?;
    made[..KEY].copy_from_slice(&key.try_decaps(&ciphertext).map_err(failed("decapsulating"))?.into_bytes());
    Ok(())
}

#[inline(never)]
pub(crate) fn x_wing(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed: [u8; KEY] = key.try_into().map_err(failed("taking a seed"))?;
    let key = x_wing::DecapsulationKey::from(seed);
    made[..KEY].copy_from_slice(&key.decapsulate(&x_wing::Ciphertext::from_fn(|_| 7)));
    Ok(())
}

pub(crate) fn expand_768(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    #[expect(deprecated, reason = "nobody stores this form; it is only looked for")]
    let expanded = ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&ml_kem_768::DecapsulationKey::from_seed(seed));
    write_vector(&expanded[..3 * 384], &mut made[KEY..]);
    Ok(())
}

pub(crate) fn expand_1024(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    #[expect(deprecated, reason = "nobody stores this form; it is only looked for")]
    let expanded = ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&ml_kem_1024::DecapsulationKey::from_seed(seed));
    write_vector(&expanded[..4 * 384], &mut made[KEY..]);
    Ok(())
}

/// SHAKE256 of the seed, as the draft has it, and of that ML-KEM's part once more.
pub(crate) fn expand_x_wing(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let mut shake = shake::Shake256::default();
    shake.update(key);
    shake.finalize_xof().read(&mut made[KEY..KEY + 96]);
    let (before, after) = made.split_at_mut(KEY + 64);
    expand_768(&before[KEY..], after) // leaves 32 bytes before what it writes: the key of X25519
}

/// A vector as FIPS 203 encodes it (ByteEncode of 12 bits), then each coefficient in 16 bits.
fn write_vector(encoded: &[u8], into: &mut [u8]) {
    let (first, second) = into.split_at_mut(encoded.len());
    first.copy_from_slice(encoded);
    for (three, four) in encoded.chunks_exact(3).zip(second.chunks_exact_mut(4)) {
        four[0] = three[0];
        four[1] = three[1] & 15;
        four[2] = three[1] >> 4 | three[2] << 4;
        four[3] = three[2] >> 4;
    }
}
