//! Victims that `../victims.toml` lists with the language `crates`: the first argument says which one to be.
//!
//! Each reads the secret with read(2) straight into its place, so that it alone decides what is left of it.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use hmac::Mac;
use zeroize::Zeroize;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of the secret.
const SECRET: usize = 32;

/// Sizes of what else is alive, as in any program: without neighbours some allocators hand everything back.
const NEIGHBOURS: [usize; 4] = [SECRET, 2 * SECRET, 8 * SECRET, 4096];

fn main() -> io::Result<()> {
    let victim = std::env::args().nth(1).unwrap_or_default();
    let neighbours: Vec<Vec<u8>> = NEIGHBOURS.iter().flat_map(|size| (0..8).map(|_| vec![1; *size])).collect();
    act(&victim)?;
    // From now on nothing of the secret may be there.
    File::from(io::stdout().as_fd().try_clone_to_owned()?).write_all(b"ready\n")?;
    drop(black_box(neighbours));
    Ok(())
}

fn act(victim: &str) -> io::Result<()> {
    match victim {
        "freed" => drop(black_box(filled(SECRET)?)),
        "freed-page" => drop(black_box(filled(4096)?)),
        "freed-large" => drop(black_box(filled(4 << 20)?)),
        "freed-elsewhere" => {
            let line = filled(SECRET)?;
            let _ = std::thread::spawn(move || drop(black_box(line))).join();
        }
        "wiped" => {
            let mut line = filled(SECRET)?;
            line.zeroize();
            drop(black_box(line));
        }
        "grown" => {
            let mut line = filled(SECRET)?;
            let barrier = black_box(vec![1_u8; SECRET]);
            line.reserve_exact(8 * SECRET);
            line.zeroize();
            drop(barrier);
        }
        "shrunk" => {
            let mut line = filled(8 * SECRET)?;
            line.truncate(SECRET);
            line.into_boxed_slice().zeroize();
        }
        // The storage of the String is larger than it, and From makes it a Box of its exact size.
        "secret-string" => {
            let mut line = filled(8 * SECRET)?;
            line.truncate(SECRET);
            let text = String::from_utf8(line).map_err(|_| io::Error::other("not a text"))?;
            drop(black_box(secrecy::SecretString::from(text)));
        }
        "hmac" => {
            let mut key = filled(SECRET)?;
            let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).map_err(io::Error::other)?;
            mac.update(b"a message");
            black_box(mac.finalize().into_bytes());
            key.zeroize();
        }
        "x25519" => {
            let mut key = Box::new([0; SECRET]);
            input()?.read_exact(&mut key[..])?;
            let other = x25519_dalek::PublicKey::from([9; SECRET]);
            let secret = x25519_dalek::StaticSecret::from(*key);
            black_box(secret.diffie_hellman(&other));
            drop(secret);
            key.zeroize();
        }
        "orion" => {
            let mut key = filled(SECRET)?;
            let secret = orion::hazardous::mac::hmac::sha256::SecretKey::from_slice(&key).map_err(io::Error::other)?;
            let tag = orion::hazardous::mac::hmac::sha256::HmacSha256::hmac(&secret, b"a message");
            let _ = black_box(tag.map_err(io::Error::other)?);
            drop(secret);
            key.zeroize();
        }
        other => return Err(io::Error::other(format!("no victim is called {other:?}"))),
    }
    Ok(())
}

/// Standard input without the standard library's buffer.
fn input() -> io::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Storage of that size. The secret stands in the middle, where no allocator keeps its links; in one of its own size it
/// begins at the front.
fn filled(size: usize) -> io::Result<Vec<u8>> {
    let mut storage = vec![0; size];
    let at = if size > 8 * SECRET { size / 2 } else { 0 };
    input()?.read_exact(&mut storage[at..at + SECRET])?;
    Ok(storage)
}
