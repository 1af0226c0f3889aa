//! What happens to the plaintexts of calls, as a stream. Numbers; never content.

#[cfg(feature = "journal")]
use crate::journal::Entry;
use crate::manager::Traced;

use super::error::Ending;

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that has the [`Vault`](super::Vault).
    Caller,
    /// The one that has the keys.
    Worker,
}

/// Why a slot was wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The callback has returned, or the answer was sent.
    Over,
    /// The callback has panicked.
    Panicked,
    /// Its time was over. It may still run, over zeros.
    Deadline,
    /// The call was dropped.
    Dropped,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A plaintext was put into a slot of the caller's, for one call.
    Lent {
        /// The call.
        call: u64,
        /// The slot, counted from 0.
        slot: u64,
    },
    /// The slot of a call was wiped.
    Wiped {
        /// By whom.
        side: Side,
        /// The call.
        call: u64,
        /// The slot, counted by that side.
        slot: u64,
        /// Why.
        why: Why,
    },
    /// A worker has taken up its work.
    Started {
        /// Its process.
        pid: u32,
    },
    /// A worker has ended.
    Ended {
        /// Its process.
        pid: u32,
        /// How.
        how: Ending,
    },
}

impl Traced for Event {
    #[cfg(feature = "tracing")]
    fn trace(&self) {
        const TARGET: &str = "secmem::vault";
        match self {
            Self::Lent { call, slot } => tracing::debug!(target: TARGET, call, slot, "a secret was lent"),
            Self::Wiped { side, call, slot, why } => {
                tracing::debug!(target: TARGET, ?side, call, slot, ?why, "a secret's slot was wiped");
            }
            Self::Started { pid } => tracing::info!(target: TARGET, pid, "a worker was started"),
            Self::Ended { pid, how } => tracing::info!(target: TARGET, pid, %how, "a worker has ended"),
        }
    }

    #[cfg(not(feature = "tracing"))]
    fn trace(&self) {}

    #[cfg(feature = "journal")]
    fn entry(&self) -> Option<Entry> {
        None // a vault has no journal
    }
}
