//! The key encapsulations, from seeds and to slots, on a stack that is wiped. They are those of well-known crates.

use std::fmt;

use ml_kem::kem::{Decapsulate, Decapsulator, KeyExport, TryKeyInit};
use ml_kem::{ml_kem_768, ml_kem_1024};

use crate::error::Error as MemoryError;
use crate::scrub::Stack;

/// Bytes of what an encapsulation agrees on.
pub(crate) const SHARED: usize = 32;

/// Bytes of the stack: the matrices stand on it, and without optimisation several times.
pub(crate) const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };

/// How a key is agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Algorithm {
    /// ML-KEM-768 (FIPS 203).
    MlKem768 = 1,
    /// ML-KEM-1024 (FIPS 203).
    MlKem1024 = 2,
    /// X25519 and ML-KEM-768 together (draft-connolly-cfrg-xwing-kem): as hard as the harder of the two.
    #[default]
    XWing = 3,
}

impl Algorithm {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::MlKem768, Self::MlKem1024, Self::XWing].into_iter().find(|it| *it as u8 == byte)
    }

    /// Bytes of the seed, which is the whole key.
    pub(crate) fn seed_len(self) -> usize {
        match self {
            Self::MlKem768 | Self::MlKem1024 => 64,
            Self::XWing => 32,
        }
    }

    /// Bytes of a public key.
    pub(crate) fn public_len(self) -> usize {
        match self {
            Self::MlKem768 => 1184,
            Self::MlKem1024 => 1568,
            Self::XWing => 1216,
        }
    }

    /// Bytes of an encapsulated key.
    pub(crate) fn ciphertext_len(self) -> usize {
        match self {
            Self::MlKem768 => 1088,
            Self::MlKem1024 => 1568,
            Self::XWing => 1120,
        }
    }

    /// Random bytes that an encapsulation needs.
    pub(crate) fn random_len(self) -> usize {
        match self {
            Self::MlKem768 | Self::MlKem1024 => 32,
            Self::XWing => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MlKem768 => "ML-KEM-768",
            Self::MlKem1024 => "ML-KEM-1024",
            Self::XWing => "X-Wing",
        })
    }
}

/// Runs `f` where nothing of it is left; `None` where it says so, or was given other lengths than it knows.
fn scrubbed(f: impl FnOnce() -> Option<()>) -> Result<Option<()>, MemoryError> {
    let mut done = None;
    Stack::new(STACK)?.run(|| done = f())?;
    Ok(done)
}

/// The public key that belongs to a seed.
pub(crate) fn public_key(algorithm: Algorithm, seed: &[u8]) -> Result<Option<Vec<u8>>, MemoryError> {
    let mut public = vec![0; algorithm.public_len()];
    let made = scrubbed(|| {
        match algorithm {
            Algorithm::MlKem768 => {
                let key = ml_kem_768::DecapsulationKey::from_seed(seed.try_into().ok()?);
                public.copy_from_slice(&key.encapsulation_key().to_bytes());
            }
            Algorithm::MlKem1024 => {
                let key = ml_kem_1024::DecapsulationKey::from_seed(seed.try_into().ok()?);
                public.copy_from_slice(&key.encapsulation_key().to_bytes());
            }
            Algorithm::XWing => {
                let key = x_wing::DecapsulationKey::from(<[u8; 32]>::try_from(seed).ok()?);
                public.copy_from_slice(&key.encapsulation_key().to_bytes());
            }
        }
        Some(())
    })?;
    Ok(made.map(|()| public))
}

/// Agrees on `shared` with whoever has the seed; `None` if `public` is no public key.
pub(crate) fn encapsulate(
    algorithm: Algorithm,
    public: &[u8],
    random: &[u8],
    shared: &mut [u8],
) -> Result<Option<Vec<u8>>, MemoryError> {
    let mut ciphertext = vec![0; algorithm.ciphertext_len()];
    let made = scrubbed(|| encapsulate_here(algorithm, public, random, shared, &mut ciphertext))?;
    Ok(made.map(|()| ciphertext))
}

/// [`encapsulate`] on the stack that the caller is on.
pub(crate) fn encapsulate_here(
    algorithm: Algorithm,
    public: &[u8],
    random: &[u8],
    shared: &mut [u8],
    ciphertext: &mut [u8],
) -> Option<()> {
    match algorithm {
        Algorithm::MlKem768 => {
            let key = ml_kem_768::EncapsulationKey::new_from_slice(public).ok()?;
            let (made, agreed) = key.encapsulate_deterministic(&random.try_into().ok()?);
            ciphertext.copy_from_slice(&made);
            shared.copy_from_slice(&agreed);
        }
        Algorithm::MlKem1024 => {
            let key = ml_kem_1024::EncapsulationKey::new_from_slice(public).ok()?;
            let (made, agreed) = key.encapsulate_deterministic(&random.try_into().ok()?);
            ciphertext.copy_from_slice(&made);
            shared.copy_from_slice(&agreed);
        }
        Algorithm::XWing => {
            let key = x_wing::EncapsulationKey::new_from_slice(public).ok()?;
            let (made, agreed) = key.encapsulate_deterministic(&random.try_into().ok()?);
            ciphertext.copy_from_slice(&made);
            shared.copy_from_slice(&agreed);
        }
    }
    Some(())
}

/// What was agreed on. For a ciphertext that was changed it is something else, as FIPS 203 has it: the tag tells.
pub(crate) fn decapsulate(
    algorithm: Algorithm,
    seed: &[u8],
    ciphertext: &[u8],
    shared: &mut [u8],
) -> Result<Option<()>, MemoryError> {
    scrubbed(|| decapsulate_here(algorithm, seed, ciphertext, shared))
}

/// [`decapsulate`] on the stack that the caller is on.
pub(crate) fn decapsulate_here(algorithm: Algorithm, seed: &[u8], ciphertext: &[u8], shared: &mut [u8]) -> Option<()> {
    match algorithm {
        Algorithm::MlKem768 => {
            let key = ml_kem_768::DecapsulationKey::from_seed(seed.try_into().ok()?);
            shared.copy_from_slice(&key.decapsulate_slice(ciphertext).ok()?);
        }
        Algorithm::MlKem1024 => {
            let key = ml_kem_1024::DecapsulationKey::from_seed(seed.try_into().ok()?);
            shared.copy_from_slice(&key.decapsulate_slice(ciphertext).ok()?);
        }
        Algorithm::XWing => {
            let key = x_wing::DecapsulationKey::from(<[u8; 32]>::try_from(seed).ok()?);
            shared.copy_from_slice(&key.decapsulate_slice(ciphertext).ok()?);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sha2_now::{Digest, Sha256};

    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The paragraphs of a file of vectors, each by its names.
    fn vectors(text: &str) -> Vec<HashMap<&str, &str>> {
        let of = |part: &'_ str| part.lines().filter(|line| !line.starts_with('#')).count() > 0;
        let paragraphs = text.split("\n\n").filter(|part| of(part));
        paragraphs.map(|part| part.lines().filter_map(|line| line.split_once(' ')).collect()).collect()
    }

    fn set(name: &str) -> Algorithm {
        if name == "ML-KEM-768" { Algorithm::MlKem768 } else { Algorithm::MlKem1024 }
    }

    #[test]
    fn nists_vectors_hold() {
        let all = vectors(include_str!("../../tests/vectors/ml-kem.txt"));
        assert_eq!(all.len(), 8);
        for vector in all {
            let algorithm = set(vector["set"]);
            if vector["kind"] == "keygen" {
                let seed = [unhex(vector["d"]), unhex(vector["z"])].concat();
                let public = public_key(algorithm, &seed).unwrap().unwrap();
                assert_eq!(Sha256::digest(&public)[..], unhex(vector["ek_sha256"]), "{}", vector["tc"]);
                let (mut agreed, mut found) = ([0; SHARED], [0; SHARED]);
                let ciphertext = encapsulate(algorithm, &public, &[5; 32], &mut agreed).unwrap().unwrap();
                decapsulate(algorithm, &seed, &ciphertext, &mut found).unwrap().unwrap();
                assert!(agreed == found && agreed != [0; SHARED]);
            } else {
                let mut shared = [0; SHARED];
                let made = encapsulate(algorithm, &unhex(vector["ek"]), &unhex(vector["m"]), &mut shared);
                assert_eq!(made.unwrap().unwrap(), unhex(vector["c"]), "{}", vector["tc"]);
                assert_eq!(shared[..], unhex(vector["k"]), "{}", vector["tc"]);
            }
        }
    }

    #[test]
    fn the_vectors_of_x_wings_draft_hold() {
        let all = vectors(include_str!("../../tests/vectors/x-wing.txt"));
        assert_eq!(all.len(), 3);
        for vector in all {
            let field = |name: &str| unhex(vector[name]);
            let (mut agreed, mut found) = ([0; SHARED], [0; SHARED]);
            let made = encapsulate(Algorithm::XWing, &field("pk"), &field("eseed"), &mut agreed).unwrap().unwrap();
            decapsulate(Algorithm::XWing, &field("sk"), &made, &mut found).unwrap().unwrap();

            assert_eq!(public_key(Algorithm::XWing, &field("sk")).unwrap().unwrap(), field("pk"));
            assert_eq!(made, field("ct"));
            assert_eq!(agreed[..], field("ss"));
            assert_eq!(found, agreed);
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        for algorithm in [Algorithm::MlKem768, Algorithm::MlKem1024, Algorithm::XWing] {
            assert!(public_key(algorithm, &[0; 63]).unwrap().is_none());
            assert!(encapsulate(algorithm, &[0; 7], &[0; 32], &mut [0; SHARED]).unwrap().is_none());
            let seed = vec![1; algorithm.seed_len()];
            assert!(decapsulate(algorithm, &seed, &[0; 7], &mut [0; SHARED]).unwrap().is_none());
            let public = public_key(algorithm, &seed).unwrap().unwrap();
            assert_eq!(public.len(), algorithm.public_len());
            let random = vec![2; algorithm.random_len()];
            let made = encapsulate(algorithm, &public, &random, &mut [0; SHARED]).unwrap().unwrap();
            assert_eq!(made.len(), algorithm.ciphertext_len());
        }
    }
}
