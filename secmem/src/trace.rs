//! Events for whoever listens, with feature `tracing`; nothing without it.
//!
//! Names, lengths and errnos alone: no address, no content. None is told from a signal handler, nor by a forced purge.

use crate::error::{Error, Refusal};
use crate::policy::Control;

/// What the events are filed under.
#[cfg(feature = "tracing")]
const TARGET: &str = "secmem";

/// A mapping was made.
pub(crate) fn arena_made(bytes: usize, sealed: bool) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, bytes, sealed, "memory for secrets was made");
    #[cfg(not(feature = "tracing"))]
    let _ = (bytes, sealed);
}

/// A control that was preferred was refused.
pub(crate) fn degraded(control: Control, why: Refusal) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, %control, call = why.call, errno = why.errno, "a protection was refused");
    #[cfg(not(feature = "tracing"))]
    let _ = (control, why);
}

/// An access was refused.
pub(crate) fn denied(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: TARGET, reason = %error, "an access to a secret was refused");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

/// A vault kept its old pre-key.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn rekey_failed(error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: TARGET, reason = %error, "a vault could not draw a new pre-key");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}
