//! What is done with a key, and what is known to be left of it.
//!
//! Each is what the crate's own documentation shows, in as many lines. A comment at the end of a line names the residue
//! that is charged to it, for the test that looks the line up.

use std::hint::black_box;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aes_block::cipher::BlockEncrypt;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::ChaCha20Poly1305;
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use ml_kem::kem::Decapsulate;
use ml_kem::ml_kem_768;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use rsa::RsaPrivateKey;
use rsa::traits::PrivateKeyParts;
use scenario_stage::Failure;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

/// Bytes of what is made from a key, and of most keys.
pub(crate) const KEY: usize = 32;

const SALT: &[u8] = b"a salt that is known to all";

/// Bytes between what a victim leaves on the stack and whatever the stack is used for afterwards.
const ROOM: usize = 16 * 1024;

/// What a victim does.
pub(crate) enum Act {
    /// Something with a key that stands in its place, the result into its own.
    Use(fn(&[u8], &mut [u8]) -> Result<(), Failure>),
    /// Reads the key into its place by itself.
    Read(fn(&mut dyn Read, &mut [u8]) -> Result<(), Failure>),
}

/// Two lines of the catalogue: the same as it is, and scrubbed.
pub(crate) struct Victim {
    /// Its name before the slash.
    pub(crate) name: &'static str,
    /// Bytes of its key.
    pub(crate) key: usize,
    /// What it makes of the key, if that is a secret too.
    pub(crate) derived: Option<&'static str>,
    /// What it leaves when it is not scrubbed.
    pub(crate) leaves: &'static str,
    pub(crate) act: Act,
}

const fn uses(
    name: &'static str,
    derived: Option<&'static str>,
    leaves: &'static str,
    act: fn(&[u8], &mut [u8]) -> Result<(), Failure>,
) -> Victim {
    Victim { name, key: KEY, derived, leaves, act: Act::Use(act) }
}

/// The catalogue.
pub(crate) static VICTIMS: &[Victim] = &[
    uses("argon2", Some("derived key"), "leak@wiped", argon2),
    uses("scrypt", Some("derived key"), "leak@wiped", scrypt),
    uses("pbkdf2", Some("derived key"), "leak@wiped", pbkdf2),
    uses("hkdf", Some("derived key"), "leak@wiped", hkdf),
    uses("sha2", None, "leak@wiped", sha2),
    uses("blake3", None, "leak@wiped", blake3),
    uses("aes", None, "leak@wiped", aes),
    uses("aes-gcm", None, "leak@wiped", aes_gcm),
    uses("aes-gcm-signal", None, "leak@wiped", aes_gcm_signal),
    uses("chacha20poly1305", None, "leak@wiped", chacha20poly1305),
    uses("ring", None, "leak@wiped", ring),
    uses("ed25519-dalek", None, "leak@wiped", ed25519),
    uses("x25519-dalek", Some("shared secret"), CLAMPED, x25519),
    Victim { key: 64, ..uses("ml-kem", Some("shared secret"), "leak@wiped", ml_kem) },
    uses("rsa", Some("prime"), "leak@wiped", rsa),
    uses("serde-json", None, "leak@wiped", serde_json),
    Victim { name: "bufreader", key: KEY, derived: None, leaves: "leak@wiped", act: Act::Read(bufreader) },
];

/// What is left is all of the key or not, as its own bits have it.
const CLAMPED: &str = "either (the copy that the crate leaves has five bits of the key set or cleared)";

/// Calls it far below the part of the stack that is used afterwards, so that what it leaves there stays.
#[inline(never)]
pub(crate) fn below<R>(act: impl FnOnce() -> R) -> R {
    let mut room = [0_u8; ROOM];
    black_box(&mut room);
    let done = act();
    black_box(&mut room);
    done
}

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::while_doing(doing)(error.to_string())
}

#[inline(never)]
fn argon2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let params = Params::new(64, 1, 1, Some(KEY)).map_err(failed("choosing parameters"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(key, SALT, made).map_err(failed("hashing")) // residue: argon2
}

#[inline(never)]
fn scrypt(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let params = scrypt::Params::new(4, 8, 1, KEY).map_err(failed("choosing parameters"))?;
    scrypt::scrypt(key, SALT, &params, made).map_err(failed("hashing")) // residue: scrypt
}

#[inline(never)]
fn pbkdf2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    pbkdf2::pbkdf2_hmac::<Sha256>(key, SALT, 3, made); // residue: pbkdf2
    Ok(())
}

#[inline(never)]
fn hkdf(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let hkdf = Hkdf::<Sha256>::new(Some(SALT), key); // residue: hkdf extract
    hkdf.expand(b"session", made).map_err(failed("expanding")) // residue: hkdf expand
}

#[inline(never)]
fn sha2(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    Sha256::new().chain_update(key).finalize_into(made.into());
    Ok(())
}

#[inline(never)]
fn blake3(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    made.copy_from_slice(blake3::hash(key).as_bytes());
    Ok(())
}

#[inline(never)]
fn aes(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let cipher = aes_block::Aes256::new(key.into());
    for block in made.chunks_exact_mut(16) {
        cipher.encrypt_block(block.into());
    }
    Ok(())
}

#[inline(never)]
fn aes_gcm(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let cipher = Aes256Gcm::new(key.into()); // residue: aes-gcm
    cipher.encrypt_in_place_detached(Nonce::from_slice(&[7; 12]), b"", made).map(drop).map_err(failed("encrypting"))
}

/// A signal comes while round keys stand in registers: the kernel lays them on the stack, and they stay there.
#[inline(never)]
fn aes_gcm_signal(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let signal = signal_hook::consts::SIGUSR1;
    signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(failed("catching a signal"))?;
    aes_gcm(key, made)?;
    signal_hook::low_level::raise(signal).map_err(failed("raising a signal")) // residue: signal
}

#[inline(never)]
fn chacha20poly1305(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher
        .encrypt_in_place_detached(Nonce::from_slice(&[7; 12]), b"", made) // residue: chacha20poly1305
        .map(drop)
        .map_err(failed("encrypting"))
}

#[inline(never)]
fn ring(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(failed("making a key"))?);
    let nonce = ring::aead::Nonce::assume_unique_for_key([7; 12]);
    cipher.seal_in_place_separate_tag(nonce, Aad::empty(), made).map(drop).map_err(failed("encrypting"))
}

#[inline(never)]
fn ed25519(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    let signing = SigningKey::from_bytes(seed); // residue: ed25519-dalek
    let signature = signing.sign(b"a message").to_bytes();
    made.copy_from_slice(&signature[..KEY]);
    Ok(())
}

#[inline(never)]
fn x25519(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed: &[u8; KEY] = key.try_into().map_err(failed("taking a seed"))?;
    let shared = StaticSecret::from(*seed).diffie_hellman(&PublicKey::from([9; KEY]));
    made.copy_from_slice(shared.as_bytes());
    Ok(())
}

/// No such ciphertext was ever made, so what comes out is drawn from the key and it.
#[inline(never)]
fn ml_kem(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let seed = key.try_into().map_err(failed("taking a seed"))?;
    let key = ml_kem_768::DecapsulationKey::from_seed(seed);
    let ciphertext = ml_kem_768::Ciphertext::from_fn(|_| 7);
    made.copy_from_slice(&key.decapsulate(&ciphertext));
    Ok(())
}

/// A key is drawn and dropped, and one half of its first prime is what is made.
#[inline(never)]
fn rsa(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    let mut random = ChaCha20Rng::from_seed(key.try_into().map_err(failed("taking a seed"))?);
    let key = RsaPrivateKey::new(&mut random, 1024).map_err(failed("drawing a key"))?;
    let mut prime = key.primes()[0].to_bytes_le();
    made.copy_from_slice(&prime[..KEY]);
    secmem::wipe::wipe(&mut prime); // a copy of ours
    Ok(())
}

/// A text with the key in it is read as a service reads one: an array of numbers, then forgotten.
#[inline(never)]
fn serde_json(key: &[u8], made: &mut [u8]) -> Result<(), Failure> {
    // A name before the key: an allocator writes over the first bytes of what is freed.
    let text = serde_json::to_vec(&("a key to sign with", key)).map_err(failed("writing the key"))?;
    let read: serde_json::Value = serde_json::from_slice(&text).map_err(failed("reading the key"))?;
    made[0] = u8::from(read.is_array());
    Ok(())
}

#[inline(never)]
fn bufreader(source: &mut dyn Read, key: &mut [u8]) -> Result<(), Failure> {
    let mut buffered = BufReader::new(source);
    buffered.read_exact(key).map_err(failed("reading the key")) // residue: bufreader
}
