//! Hashing what a buffer holds, so that nothing of it stays behind.

use std::fmt;
use std::str::FromStr;

use sha2_now::Digest as _;

use super::error::Error;
use crate::scrub;

/// Bytes of the longest digest.
const LONGEST: usize = 64;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hash {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA3-256 (FIPS 202).
    Sha3_256,
    /// SHA3-384 (FIPS 202).
    Sha3_384,
    /// SHA3-512 (FIPS 202).
    Sha3_512,
    /// BLAKE3, 32 bytes.
    Blake3,
}

/// A hash function for which collisions are known: it is refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeakHash {
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
}

impl fmt::Display for WeakHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
        })
    }
}

/// By its usual names, in either case: `sha256`, `SHA-256`, `sha3-256`, `blake3`.
impl FromStr for Hash {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "sha256" | "sha-256" => Self::Sha256,
            "sha384" | "sha-384" => Self::Sha384,
            "sha512" | "sha-512" => Self::Sha512,
            "sha3-256" => Self::Sha3_256,
            "sha3-384" => Self::Sha3_384,
            "sha3-512" => Self::Sha3_512,
            "blake3" => Self::Blake3,
            "md5" | "md-5" | "ssl3-md5" | "rsa-md5" => return Err(Error::Weak(WeakHash::Md5)),
            "sha1" | "sha-1" | "ssl3-sha1" | "rsa-sha1" => return Err(Error::Weak(WeakHash::Sha1)),
            _ => return Err(Error::Algorithm),
        })
    }
}

/// What a hash function gives. Not wiped: who may know it, the caller says. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Digest {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Hash {
    /// Hashes `data` on a stack that is wiped, and leaves nothing of it in registers.
    pub(crate) fn of(self, data: &[u8]) -> Result<Digest, Error> {
        let mut digest = Digest { bytes: [0; LONGEST], len: 0 };
        if cfg!(secmem_ablate = "manager-hash") {
            self.compute(data, &mut digest);
        } else {
            scrub::run(|| self.compute(data, &mut digest))?;
        }
        Ok(digest)
    }

    #[inline(never)]
    fn compute(self, data: &[u8], into: &mut Digest) {
        match self {
            Self::Sha256 => into.set(&sha2_now::Sha256::digest(data)),
            Self::Sha384 => into.set(&sha2_now::Sha384::digest(data)),
            Self::Sha512 => into.set(&sha2_now::Sha512::digest(data)),
            Self::Sha3_256 => into.set(&sha3::Sha3_256::digest(data)),
            Self::Sha3_384 => into.set(&sha3::Sha3_384::digest(data)),
            Self::Sha3_512 => into.set(&sha3::Sha3_512::digest(data)),
            Self::Blake3 => into.set(blake3(data).as_bytes()),
        }
    }
}

/// Without optimisation all at once takes more stack than there is.
fn blake3(data: &[u8]) -> blake3::Hash {
    if cfg!(not(debug_assertions)) {
        return blake3::hash(data);
    }
    let mut hasher = blake3::Hasher::new();
    data.chunks(1024).for_each(|piece| _ = hasher.update(piece));
    hasher.finalize()
}

impl Digest {
    fn set(&mut self, bytes: &[u8]) {
        self.len = bytes.len();
        self.bytes[..bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the three letters abc: FIPS 180-4's and FIPS 202's examples, and BLAKE3's by its reference implementation.
    #[test]
    fn digests_are_those_of_the_standards() {
        let abc = [
            ("SHA-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "sha384",
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                "sha512",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
            ("sha3-256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
            (
                "SHA3-384",
                "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
            ),
            (
                "sha3-512",
                "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e\
                 10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
            ),
            ("blake3", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ];
        for (name, digest) in abc {
            assert_eq!(name.parse::<Hash>().unwrap().of(b"abc").unwrap().to_string(), digest, "{name}");
        }
    }

    #[test]
    fn broken_functions_are_refused_by_name() {
        for name in ["md5", "MD5", "sha1", "SHA-1", "RSA-SHA1"] {
            assert!(matches!(name.parse::<Hash>(), Err(Error::Weak(_))), "{name}");
        }
        assert!(matches!("sha257".parse::<Hash>(), Err(Error::Algorithm)));
    }
}
