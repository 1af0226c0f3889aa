//! What happens to keys and records, as a typed stream and as events of `tracing`. Names and numbers; never content.

use super::format::KeyId;
use crate::manager::Traced;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A record was made.
    Encrypted {
        /// Its key.
        key: KeyId,
        /// Bytes of content.
        len: usize,
    },
    /// A record was opened.
    Decrypted {
        /// Its key.
        key: KeyId,
        /// Bytes of content.
        len: usize,
    },
    /// A record was encrypted anew.
    Reencrypted {
        /// The key that it had.
        from: KeyId,
        /// The key that it has.
        to: KeyId,
    },
    /// No record was made.
    EncryptionFailed {
        /// Bytes of content.
        len: usize,
    },
    /// A record was not opened.
    DecryptionFailed {
        /// The key that it names, if it could be read.
        key: Option<KeyId>,
        /// Why.
        why: Failure,
    },
    /// A record has not the hash that it should.
    HashMismatch {
        /// Bytes of the record.
        len: usize,
    },
    /// Another key encrypts from now on.
    Rotated {
        /// The key before.
        from: KeyId,
        /// The key now.
        to: KeyId,
    },
    /// The retention of a key is over: it was wiped.
    KeyExpired {
        /// The key.
        key: KeyId,
    },
    /// A key was revoked, and wiped.
    KeyRevoked {
        /// The key.
        key: KeyId,
    },
    /// A key was wrapped for export.
    KeyExported {
        /// The key.
        key: KeyId,
    },
    /// A wrapped key was taken in.
    KeyImported {
        /// The key.
        key: KeyId,
    },
    /// The counts begin again.
    MetricsReset,
    /// Every key was wiped.
    Shutdown {
        /// Keys that were wiped.
        keys: usize,
    },
}

/// Why a record was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It cannot be a record of this version.
    Malformed,
    /// It was changed.
    Altered,
    /// Its key is unknown, expired or revoked.
    Key,
    /// It is too old, or from the future.
    Time,
    /// It was decrypted before.
    Replayed,
    /// Anything else: memory, a buffer, a limit.
    Other,
}

impl Traced for Event {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        const TARGET: &str = "secmem::records";
        match self {
            Self::Encrypted { key, len } => tracing::debug!(target: TARGET, %key, len, "a record was encrypted"),
            Self::Decrypted { key, len } => tracing::debug!(target: TARGET, %key, len, "a record was decrypted"),
            Self::Reencrypted { from, to } => {
                tracing::debug!(target: TARGET, %from, %to, "a record was encrypted anew")
            }
            Self::EncryptionFailed { len } => tracing::warn!(target: TARGET, len, "no record was made"),
            Self::DecryptionFailed { key, why } => {
                tracing::warn!(target: TARGET, ?key, ?why, "a record was not decrypted");
            }
            Self::HashMismatch { len } => tracing::warn!(target: TARGET, len, "a record has another hash"),
            Self::Rotated { from, to } => tracing::info!(target: TARGET, %from, %to, "another key encrypts"),
            Self::KeyExpired { key } => tracing::info!(target: TARGET, %key, "the retention of a key is over"),
            Self::KeyRevoked { key } => tracing::warn!(target: TARGET, %key, "a key was revoked"),
            Self::KeyExported { key } => tracing::warn!(target: TARGET, %key, "a key was wrapped for export"),
            Self::KeyImported { key } => tracing::info!(target: TARGET, %key, "a wrapped key was taken in"),
            Self::MetricsReset => tracing::info!(target: TARGET, "the counts begin again"),
            Self::Shutdown { keys } => tracing::warn!(target: TARGET, keys, "every key was wiped"),
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn trace(&self) {}
}
