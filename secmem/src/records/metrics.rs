//! Counts of what was done, which can begin again.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Encrypted,
    Decrypted,
    Reencrypted,
    EncryptionFailed,
    DecryptionFailed,
    Altered,
    OutOfTime,
    Replayed,
    HashMismatch,
    Rotated,
    BytesEncrypted,
    BytesDecrypted,
}

#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; 12]);

impl Counts {
    pub(super) fn add(&self, what: Count, number: u64) {
        self.0[what as usize].fetch_add(number, Ordering::Relaxed);
    }

    /// All of them; they begin at zero again if `reset`.
    pub(super) fn take(&self, reset: bool) -> Metrics {
        let of = |what: Count| {
            let count = &self.0[what as usize];
            if reset { count.swap(0, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) }
        };
        Metrics {
            encrypted: of(Count::Encrypted),
            decrypted: of(Count::Decrypted),
            reencrypted: of(Count::Reencrypted),
            encryption_failed: of(Count::EncryptionFailed),
            decryption_failed: of(Count::DecryptionFailed),
            altered: of(Count::Altered),
            out_of_time: of(Count::OutOfTime),
            replayed: of(Count::Replayed),
            hash_mismatches: of(Count::HashMismatch),
            rotated: of(Count::Rotated),
            bytes_encrypted: of(Count::BytesEncrypted),
            bytes_decrypted: of(Count::BytesDecrypted),
        }
    }
}

/// What was done since the beginning, or since the counts began again. Numbers alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Records made.
    pub encrypted: u64,
    /// Records opened.
    pub decrypted: u64,
    /// Records encrypted anew.
    pub reencrypted: u64,
    /// Records that were not made.
    pub encryption_failed: u64,
    /// Records that were not opened, for whatever reason.
    pub decryption_failed: u64,
    /// Of these, records that were changed.
    pub altered: u64,
    /// Of these, records that were too old, or from the future.
    pub out_of_time: u64,
    /// Of these, records that were opened before.
    pub replayed: u64,
    /// Records that had another hash than they should.
    pub hash_mismatches: u64,
    /// Times that another key came into use.
    pub rotated: u64,
    /// Bytes of content that were encrypted.
    pub bytes_encrypted: u64,
    /// Bytes of content that were decrypted.
    pub bytes_decrypted: u64,
}
