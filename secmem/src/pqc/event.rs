//! What happens to derived keys, as a typed stream and as events of `tracing`. Names and numbers; never content.

#[cfg(feature = "journal")]
use crate::journal::{Action, Amount, Entry, Name, Subject};
use crate::manager::{Id, Traced};
use crate::records::Failure;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A record was made.
    Encrypted {
        /// Its key.
        key: Id,
        /// Bytes of content.
        len: usize,
    },
    /// A record was opened.
    Decrypted {
        /// Its key.
        key: Id,
        /// Bytes of content.
        len: usize,
    },
    /// No record was made.
    EncryptionFailed {
        /// The key that it was for.
        key: Id,
        /// Why.
        why: Failure,
    },
    /// A record was not opened.
    DecryptionFailed {
        /// The key that it names, if it could be read.
        key: Option<Id>,
        /// Why.
        why: Failure,
    },
    /// The base secret of the epoch before was destroyed.
    Ratcheted {
        /// The epoch now.
        epoch: u32,
    },
    /// The base secret was given out.
    Exported {
        /// Its epoch.
        epoch: u32,
    },
}

impl Traced for Event {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        const TARGET: &str = "secmem::pqc";
        match self {
            Self::Encrypted { key, len } => tracing::debug!(target: TARGET, %key, len, "a record was encrypted"),
            Self::Decrypted { key, len } => tracing::debug!(target: TARGET, %key, len, "a record was decrypted"),
            Self::EncryptionFailed { key, why } => tracing::warn!(target: TARGET, %key, ?why, "no record was made"),
            Self::DecryptionFailed { key, why } => {
                tracing::warn!(target: TARGET, ?key, ?why, "a record was not decrypted");
            }
            Self::Ratcheted { epoch } => tracing::warn!(target: TARGET, epoch, "the epoch before was destroyed"),
            Self::Exported { epoch } => tracing::warn!(target: TARGET, epoch, "the base secret was given out"),
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn trace(&self) {}

    #[cfg(feature = "journal")]
    fn entry(&self) -> Option<Entry> {
        const BASE: Name = Name::ours("base-secret");
        let of = |key: &Id| Some(Subject::Key(key.into()));
        let base = || Some(Subject::Other(BASE));
        Some(match self {
            Self::Encrypted { key, len } => Entry::done(Action::Encrypt, of(key)).amount(Amount::Bytes(*len as u64)),
            Self::Decrypted { key, len } => Entry::done(Action::Decrypt, of(key)).amount(Amount::Bytes(*len as u64)),
            Self::EncryptionFailed { key, why } => Entry::failed(Action::Encrypt, of(key), (*why).into()),
            Self::DecryptionFailed { key, why } => {
                Entry::failed(Action::Decrypt, key.as_ref().and_then(of), (*why).into())
            }
            Self::Ratcheted { epoch } => Entry::done(Action::Ratchet, base()).amount(Amount::Epoch((*epoch).into())),
            Self::Exported { epoch } => Entry::done(Action::Export, base()).amount(Amount::Epoch((*epoch).into())),
        })
    }
}
