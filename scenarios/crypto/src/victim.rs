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
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::RsaPrivateKey;
use rsa::traits::PrivateKeyParts;
use scenario_stage::Failure;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::managed::{self, CONTENT, EXPANDED_768, EXPANDED_1024, EXPANDED_X_WING, LARGE, TAG, TEXT};

/// Bytes of what is made from a key, and of most keys.
pub(crate) const KEY: usize = 32;

pub(crate) const SALT: &[u8] = b"a salt that is known to all";

/// Bytes between what a victim leaves on the stack and whatever the stack is used for afterwards.
const ROOM: usize = 16 * 1024;

/// Something with a key that stands in its place, the result into its own.
pub(crate) type Use = fn(&[u8], &mut [u8]) -> Result<(), Failure>;

/// What a victim does.
pub(crate) enum Act {
    Use(Use),
    /// Reads the key into its place by itself.
    Read(fn(&mut dyn Read, &mut [u8]) -> Result<(), Failure>),
}

/// Two lines of the catalogue: the same as it is, and scrubbed.
pub(crate) struct Victim {
    /// Its name before the slash.
    pub(crate) name: &'static str,
    /// The crate as our manifest names it; `std` for the standard library.
    pub(crate) dependency: &'static str,
    /// What the crate does with the key.
    pub(crate) operation: &'static str,
    /// Bytes of its key.
    pub(crate) key: usize,
    /// What stands in the place of the result and is a secret too, from its first byte on: names and bytes.
    pub(crate) parts: &'static [(&'static str, usize)],
    /// Bytes of that place.
    pub(crate) made: usize,
    /// Puts there what the act does not: run where nothing is left of it, before the act, whichever half is played.
    pub(crate) prepare: Option<Use>,
    /// What it leaves when it is not scrubbed.
    pub(crate) leaves: &'static str,
    /// Bytes of the stack that it is scrubbed on.
    pub(crate) stack: usize,
    pub(crate) act: Act,
}

impl Victim {
    const fn of(name: &'static str, dependency: &'static str, operation: &'static str, act: Act) -> Self {
        let (key, made, leaves, stack) = (KEY, KEY, "leak@wiped", secmem::scrub::DEFAULT_STACK);
        Self { name, dependency, operation, key, parts: &[], made, prepare: None, leaves, stack, act }
    }

    /// Of a crate by whose name the pair is called.
    const fn using(name: &'static str, operation: &'static str, act: Use) -> Self {
        Self::of(name, name, operation, Act::Use(act))
    }

    const fn making(self, parts: &'static [(&'static str, usize)]) -> Self {
        let made = if bytes(parts) > self.made { bytes(parts) } else { self.made };
        Self { parts, made, ..self }
    }

    /// Of a content that stands before the ciphertext, which some end with their tag.
    const fn encrypting(self) -> Self {
        Self { prepare: Some(managed::content), made: 2 * CONTENT + TAG, ..self }.making(TEXT)
    }

    /// Of the expanded key of ML-KEM-768.
    const fn of_768(self) -> Self {
        Self { key: 64, prepare: Some(managed::expand_768), stack: LARGE, ..self }.making(EXPANDED_768)
    }

    /// Bytes of what is made that is a secret.
    pub(crate) const fn secret(&self) -> usize {
        bytes(self.parts)
    }

    /// All that is made and is a secret, by name.
    pub(crate) fn derived(&self) -> Option<String> {
        let names: Vec<_> = self.parts.iter().map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }
}

const fn bytes(parts: &[(&str, usize)]) -> usize {
    match parts {
        [] => 0,
        [(_, first), rest @ ..] => *first + bytes(rest),
    }
}

const DERIVED: &[(&str, usize)] = &[("derived key", KEY)];
const ML_KEM_768: &str = "ML-KEM-768, decapsulates";
const SHARED: &[(&str, usize)] = &[("shared secret", KEY)];

/// The catalogue: crates as many programs still have them, then those of [`managed`].
pub(crate) static VICTIMS: &[Victim] = &[
    Victim::using("argon2", "Argon2id", argon2).making(DERIVED),
    Victim::using("scrypt", "scrypt", scrypt).making(DERIVED),
    Victim::using("pbkdf2", "PBKDF2-HMAC-SHA-256", pbkdf2).making(DERIVED),
    Victim::using("hkdf", "HKDF-SHA-256", hkdf).making(DERIVED),
    Victim::using("sha2", "SHA-256", sha2),
    Victim::using("blake3", "BLAKE3", blake3),
    Victim { dependency: "aes-block", ..Victim::using("aes", "AES-256, blocks", aes) },
    Victim::using("aes-gcm", "AES-256-GCM, encrypts zeros", aes_gcm),
    Victim {
        dependency: "aes-gcm",
        ..Victim::using("aes-gcm-signal", "the same, then a signal is handled", aes_gcm_signal)
    },
    Victim::using("chacha20poly1305", "ChaCha20-Poly1305, encrypts zeros", chacha20poly1305),
    Victim::using("ed25519-dalek", "Ed25519, signs", ed25519),
    Victim { leaves: CLAMPED, ..Victim::using("x25519-dalek", "X25519", x25519).making(SHARED) },
    Victim::using("rsa", "RSA-1024, draws a key", rsa).making(&[("prime", KEY)]),
    Victim::using("serde-json", "JSON, reads and writes a key", serde_json),
    Victim::of("bufreader", "std", "reads a key from a pipe", Act::Read(bufreader)),
    Victim::using("ring", "AES-256-GCM, encrypts", managed::ring).encrypting(),
    Victim::using("aes-gcm-now", "AES-256-GCM, encrypts", managed::aes_gcm).encrypting(),
    Victim::using("chacha20poly1305-now", "XChaCha20-Poly1305, encrypts", managed::xchacha).encrypting(),
    Victim::using("orion", "XChaCha20-Poly1305, encrypts", managed::orion).encrypting(),
    Victim::using("hkdf-now", "HKDF-SHA-512", managed::hkdf).making(DERIVED),
    Victim { dependency: "ring", ..Victim::using("ring-hkdf", "HKDF-SHA-512", managed::ring_hkdf) }.making(DERIVED),
    Victim::using("sha2-now", "SHA-256", managed::sha2),
    Victim::using("sha3", "SHA3-256", managed::sha3),
    Victim::using("argon2-now", "Argon2id, memory of the caller's", managed::argon2).making(DERIVED),
    Victim { dependency: "rust-argon2-lib", ..Victim::using("rust-argon2", "Argon2id", managed::rust_argon2) }
        .making(DERIVED),
    Victim::using("ed25519-dalek-now", "Ed25519, signs", managed::ed25519),
    Victim { dependency: "ring", ..Victim::using("ring-ed25519", "Ed25519, signs", managed::ring_ed25519) },
    Victim {
        stack: secmem::scrub::DEFAULT_STACK,
        leaves: HALVES,
        ..Victim::using("ml-kem", ML_KEM_768, managed::ml_kem).of_768()
    },
    Victim {
        key: 64,
        prepare: Some(managed::expand_1024),
        stack: LARGE,
        leaves: HALVES,
        dependency: "ml-kem",
        ..Victim::using("ml-kem-1024", "ML-KEM-1024, decapsulates", managed::ml_kem_1024)
    }
    .making(EXPANDED_1024),
    Victim::using("libcrux-ml-kem", ML_KEM_768, managed::libcrux).of_768(),
    Victim { leaves: HALVES, ..Victim::using("fips203", ML_KEM_768, managed::fips203).of_768() },
    Victim {
        prepare: Some(managed::expand_x_wing),
        stack: LARGE,
        ..Victim::using("x-wing", "X-Wing, decapsulates", managed::x_wing)
    }
    .making(EXPANDED_X_WING),
];

/// What is left is all of the key or not, as its own bits have it.
const CLAMPED: &str = "either (the copy that the crate leaves has five bits of the key set or cleared)";

/// A seed of ML-KEM is two numbers, which some take apart; and of what comes of it the whole nowhere stands together.
const HALVES: &str = "leak@wiped (fragments)";

/// Calls it far below the part of the stack that is used afterwards, so that what it leaves there stays.
#[inline(never)]
pub(crate) fn below<R>(act: impl FnOnce() -> R) -> R {
    let mut room = [0_u8; ROOM];
    black_box(&mut room);
    let done = act();
    black_box(&mut room);
    done
}

pub(crate) fn failed<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Failure {
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
