//! How a vault's key is agreed on, or wraps.

use std::fmt;

use crate::pqc;
#[cfg(feature = "vault-rsa")]
use crate::vault_rsa::Bits;

/// How secrets are encrypted for a vault's worker.
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
    /// RSA of 2048 bits with OAEP and SHA-256 (RFC 8017, 7.1), which wraps the key of each envelope. A quantum computer opens it. To
    /// be had with feature `vault-rsa`.
    Rsa2048 = 0x11,
    /// The same of 3072 bits.
    Rsa3072 = 0x12,
    /// The same of 4096 bits. Its keys take many seconds to draw: give [`generate`](super::Vault::generate) the time.
    Rsa4096 = 0x13,
}

/// What stands behind an algorithm.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Kem(pqc::Algorithm),
    #[cfg(feature = "vault-rsa")]
    Rsa(Bits),
    /// Not in this build.
    #[cfg_attr(feature = "vault-rsa", expect(dead_code, reason = "all are"))]
    Absent,
}

impl Algorithm {
    const ALL: [Self; 6] = [Self::MlKem768, Self::MlKem1024, Self::XWing, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as u8 == byte)
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::MlKem768 => Kind::Kem(pqc::Algorithm::MlKem768),
            Self::MlKem1024 => Kind::Kem(pqc::Algorithm::MlKem1024),
            Self::XWing => Kind::Kem(pqc::Algorithm::XWing),
            #[cfg(feature = "vault-rsa")]
            Self::Rsa2048 => Kind::Rsa(Bits::B2048),
            #[cfg(feature = "vault-rsa")]
            Self::Rsa3072 => Kind::Rsa(Bits::B3072),
            #[cfg(feature = "vault-rsa")]
            Self::Rsa4096 => Kind::Rsa(Bits::B4096),
            #[cfg(not(feature = "vault-rsa"))]
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => Kind::Absent,
        }
    }

    /// Bytes of what is told of the key of an envelope; 0 where nothing is.
    pub(super) fn told_len(self) -> usize {
        match self.kind() {
            Kind::Kem(kem) => kem.ciphertext_len(),
            #[cfg(feature = "vault-rsa")]
            Kind::Rsa(bits) => bits.len(),
            Kind::Absent => 0,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MlKem768 => "ML-KEM-768",
            Self::MlKem1024 => "ML-KEM-1024",
            Self::XWing => "X-Wing",
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
        })
    }
}
