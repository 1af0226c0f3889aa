//! Events for whoever listens, with feature `tracing`; nothing without it.
//!
//! Names, lengths and errnos alone: no address, no content. None is told from a signal handler, nor by a forced purge.

use crate::error::{Error, Refusal};
use crate::policy::Control;

/// What the events are filed under.
#[cfg(feature = "tracing")]
const TARGET: &str = "secmem";

/// What happened while a lock was held under which nobody can be told.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody listens"))]
pub(crate) enum News {
    /// A mapping was made.
    Made {
        /// Its data's.
        bytes: usize,
        /// Closed between accesses.
        sealed: bool,
    },
    /// A control that was preferred was refused.
    Degraded(Control, Refusal),
}

impl News {
    pub(crate) fn tell(&self) {
        #[cfg(feature = "tracing")]
        match self {
            Self::Made { bytes, sealed } => {
                tracing::debug!(target: TARGET, bytes, sealed, "memory for secrets was made");
            }
            Self::Degraded(control, why) => {
                tracing::warn!(target: TARGET, %control, call = why.call, errno = why.errno, "a protection was refused");
            }
        }
    }
}

/// An access was refused.
pub(crate) fn denied(error: &Error) {
    // In a forked child a listener's locks may be held by a thread that is not there.
    #[cfg(feature = "tracing")]
    if !crate::arena::in_child() {
        tracing::info!(target: TARGET, reason = %error, "an access to a secret was refused");
    }
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// A coffer kept its old pre-key.
#[cfg(all(feature = "coffer", target_arch = "x86_64"))]
pub(crate) fn rekey_failed(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, reason = %error, "a coffer could not draw a new pre-key");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}
