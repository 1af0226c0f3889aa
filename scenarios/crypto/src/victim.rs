//! What is done with a key, and what is known to be left of it.
//!
//! Each is what the crate's own documentation shows, in as many lines. A comment at the end of a line names the residue
//! that is charged to it, for the test that looks the line up.

use std::hint::black_box;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::ChaCha20Poly1305;
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use scenario_stage::{Canary, Failure};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of a key, and of what is made from it.
pub(crate) const KEY: usize = 32;

/// A key in its one place, wiped on drop.
pub(crate) type Key = Box<Zeroizing<[u8; KEY]>>;

const SALT: &[u8] = b"a salt that is known to all";

/// Bytes between what a victim leaves on the stack and whatever the stack is used for afterwards.
const ROOM: usize = 16 * 1024;

/// One line of the catalogue.
pub(crate) struct Victim {
    /// Its name before the slash.
    pub(crate) name: &'static str,
    /// What it makes of the canary, if that is a secret too.
    pub(crate) derived: Option<&'static str>,
    pub(crate) expect: &'static str,
    act: Act,
}

/// What a victim does.
enum Act {
    /// Something with a key that stands in its place, the result into its own.
    Use(fn(&Key, &mut Key) -> Result<(), Failure>),
    /// Reads the key by itself.
    Read(fn(Canary, &mut Key) -> Result<(), Failure>),
}

const fn uses(
    name: &'static str,
    derived: Option<&'static str>,
    expect: &'static str,
    act: fn(&Key, &mut Key) -> Result<(), Failure>,
) -> Victim {
    Victim { name, derived, expect, act: Act::Use(act) }
}

/// The catalogue.
pub(crate) static VICTIMS: &[Victim] = &[
    uses("argon2", Some("derived key"), "leak@wiped", argon2),
    uses("scrypt", Some("derived key"), "leak@wiped", scrypt),
    uses("pbkdf2", Some("derived key"), "leak@wiped", pbkdf2),
    uses("hkdf", Some("derived key"), "leak@wiped", hkdf),
    uses("aes-gcm", None, "leak@wiped", aes_gcm),
    uses("aes-gcm-signal", None, "leak@wiped", aes_gcm_signal),
    uses("chacha20poly1305", None, "leak@wiped", chacha20poly1305),
    uses("ed25519-dalek", None, "leak@wiped", ed25519),
    Victim { name: "bufreader", derived: None, expect: "leak@wiped", act: Act::Read(bufreader) },
];

impl Victim {
    /// Takes the canary and does what the victim does.
    pub(crate) fn play(&self, mut canary: Canary, key: &mut Key, made: &mut Key) -> Result<(), Failure> {
        match self.act {
            Act::Use(act) => {
                canary.read_into(&mut key[..])?;
                below(|| act(key, made))
            }
            Act::Read(act) => below(|| act(canary, key)),
        }
    }

    /// What it makes of a key, if it makes anything.
    pub(crate) fn make(&self, key: &Key, made: &mut Key) -> Result<(), Failure> {
        match self.act {
            Act::Use(act) => act(key, made),
            Act::Read(_) => Ok(()),
        }
    }
}

/// Calls it far below the part of the stack that is used afterwards, so that what it leaves there stays.
#[inline(never)]
fn below(act: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
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
fn argon2(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let params = Params::new(64, 1, 1, Some(KEY)).map_err(failed("choosing parameters"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(&key[..], SALT, &mut made[..]).map_err(failed("hashing")) // residue: argon2
}

#[inline(never)]
fn scrypt(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let params = scrypt::Params::new(4, 8, 1, KEY).map_err(failed("choosing parameters"))?;
    scrypt::scrypt(&key[..], SALT, &params, &mut made[..]).map_err(failed("hashing")) // residue: scrypt
}

#[inline(never)]
fn pbkdf2(key: &Key, made: &mut Key) -> Result<(), Failure> {
    pbkdf2::pbkdf2_hmac::<Sha256>(&key[..], SALT, 3, &mut made[..]); // residue: pbkdf2
    Ok(())
}

#[inline(never)]
fn hkdf(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let hkdf = Hkdf::<Sha256>::new(Some(SALT), &key[..]); // residue: hkdf extract
    hkdf.expand(b"session", &mut made[..]).map_err(failed("expanding")) // residue: hkdf expand
}

#[inline(never)]
fn aes_gcm(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let cipher = Aes256Gcm::new(key[..].into()); // residue: aes-gcm
    cipher
        .encrypt_in_place_detached(Nonce::from_slice(&[7; 12]), b"", &mut made[..])
        .map(drop)
        .map_err(failed("encrypting"))
}

/// A signal comes while round keys stand in registers: the kernel lays them on the stack, and they stay there.
#[inline(never)]
fn aes_gcm_signal(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let signal = signal_hook::consts::SIGUSR1;
    signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(failed("catching a signal"))?;
    aes_gcm(key, made)?;
    signal_hook::low_level::raise(signal).map_err(failed("raising a signal")) // residue: signal
}

#[inline(never)]
fn chacha20poly1305(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let cipher = ChaCha20Poly1305::new(key[..].into());
    cipher
        .encrypt_in_place_detached(Nonce::from_slice(&[7; 12]), b"", &mut made[..]) // residue: chacha20poly1305
        .map(drop)
        .map_err(failed("encrypting"))
}

#[inline(never)]
fn ed25519(key: &Key, made: &mut Key) -> Result<(), Failure> {
    let signing = SigningKey::from_bytes(key); // residue: ed25519-dalek
    let signature = signing.sign(b"a message").to_bytes();
    made.copy_from_slice(&signature[..KEY]);
    Ok(())
}

#[inline(never)]
fn bufreader(canary: Canary, key: &mut Key) -> Result<(), Failure> {
    let mut buffered = BufReader::new(canary);
    buffered.read_exact(&mut key[..]).map_err(failed("reading the key")) // residue: bufreader
}
