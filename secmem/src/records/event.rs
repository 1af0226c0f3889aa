//! What happens to keys and records, as a typed stream and as events of `tracing`. Names and numbers; never content.

use super::format::KeyId;
#[cfg(feature = "journal")]
use crate::journal::{Action, Amount, Entry, Name, Subject};
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
        /// The key that was asked for, if one was.
        key: Option<KeyId>,
        /// Bytes of content.
        len: usize,
        /// Why.
        why: Failure,
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
    /// A key was not wrapped for export.
    ExportFailed {
        /// The key.
        key: KeyId,
        /// Why.
        why: Failure,
    },
    /// A wrapped key was not taken in.
    ImportFailed {
        /// Why.
        why: Failure,
    },
    /// A key was not revoked, for it is unknown or has ended.
    RevocationFailed {
        /// The key.
        key: KeyId,
        /// Why.
        why: Failure,
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

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It cannot be a record of this version.
    Malformed,
    /// It was changed.
    Altered,
    /// Its key is unknown, retired, expired or revoked.
    Key,
    /// It is too old, or from the future.
    Time,
    /// It was decrypted before.
    Replayed,
    /// It could not be written to the journal.
    Unrecorded,
    /// Anything else: memory, a buffer, a limit.
    Other,
}

#[cfg(feature = "journal")]
impl From<Failure> for Name {
    fn from(why: Failure) -> Self {
        Self::ours(match why {
            Failure::Malformed => "malformed",
            Failure::Altered => "altered",
            Failure::Key => "key",
            Failure::Time => "time",
            Failure::Replayed => "replayed",
            Failure::Unrecorded => "unrecorded",
            Failure::Other => "other",
        })
    }
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
            Self::EncryptionFailed { key, len, why } => {
                tracing::warn!(target: TARGET, ?key, len, ?why, "no record was made");
            }
            Self::DecryptionFailed { key, why } => {
                tracing::warn!(target: TARGET, ?key, ?why, "a record was not decrypted");
            }
            Self::HashMismatch { len } => tracing::warn!(target: TARGET, len, "a record has another hash"),
            Self::Rotated { from, to } => tracing::info!(target: TARGET, %from, %to, "another key encrypts"),
            Self::KeyExpired { key } => tracing::info!(target: TARGET, %key, "the retention of a key is over"),
            Self::KeyRevoked { key } => tracing::warn!(target: TARGET, %key, "a key was revoked"),
            Self::KeyExported { key } => tracing::warn!(target: TARGET, %key, "a key was wrapped for export"),
            Self::ExportFailed { key, why } => tracing::warn!(target: TARGET, %key, ?why, "a key was not wrapped"),
            Self::ImportFailed { why } => tracing::warn!(target: TARGET, ?why, "a wrapped key was not taken in"),
            Self::RevocationFailed { key, why } => tracing::warn!(target: TARGET, %key, ?why, "a key was not revoked"),
            Self::KeyImported { key } => tracing::info!(target: TARGET, %key, "a wrapped key was taken in"),
            Self::MetricsReset => tracing::info!(target: TARGET, "the counts begin again"),
            Self::Shutdown { keys } => tracing::warn!(target: TARGET, keys, "every key was wiped"),
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn trace(&self) {}

    #[cfg(feature = "journal")]
    fn entry(&self) -> Option<Entry> {
        const OTHER_HASH: Name = Name::ours("altered");
        let of = |key: &KeyId| Some(Subject::Key(key.into()));
        let both = |from: &KeyId, to: &KeyId| Some(Subject::Keys(from.into(), to.into()));
        let bytes = |len: &usize| Amount::Bytes(*len as u64);
        Some(match self {
            Self::Encrypted { key, len } => Entry::done(Action::Encrypt, of(key)).amount(bytes(len)),
            Self::Decrypted { key, len } => Entry::done(Action::Decrypt, of(key)).amount(bytes(len)),
            Self::Reencrypted { from, to } => Entry::done(Action::Reencrypt, both(from, to)),
            Self::EncryptionFailed { key, len, why } => {
                Entry::failed(Action::Encrypt, key.as_ref().and_then(of), (*why).into()).amount(bytes(len))
            }
            Self::DecryptionFailed { key, why } => {
                Entry::failed(Action::Decrypt, key.as_ref().and_then(of), (*why).into())
            }
            Self::HashMismatch { len } => Entry::failed(Action::Compare, None, OTHER_HASH).amount(bytes(len)),
            Self::Rotated { from, to } => Entry::done(Action::Rotate, both(from, to)),
            Self::KeyExpired { key } => Entry::done(Action::Expire, of(key)),
            Self::KeyRevoked { key } => Entry::done(Action::Revoke, of(key)),
            Self::KeyExported { key } => Entry::done(Action::Export, of(key)),
            Self::ExportFailed { key, why } => Entry::failed(Action::Export, of(key), (*why).into()),
            Self::ImportFailed { why } => Entry::failed(Action::Import, None, (*why).into()),
            Self::RevocationFailed { key, why } => Entry::failed(Action::Revoke, of(key), (*why).into()),
            Self::KeyImported { key } => Entry::done(Action::Import, of(key)),
            Self::MetricsReset => return None,
            Self::Shutdown { keys } => Entry::done(Action::Shutdown, None).amount(Amount::Keys(*keys as u64)),
        })
    }
}
