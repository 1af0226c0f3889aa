//! What is refused, and why. No error holds content, and for what was wrapped there is one only.

use crate::error::Error as MemoryError;

/// Why nothing was wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// More bytes than a key of that size wraps.
    #[error("{len} bytes to wrap; a key of that size wraps {most}")]
    Long {
        /// Bytes that were to be wrapped.
        len: usize,
        /// Bytes that it wraps.
        most: usize,
    },
    /// The place for what is unwrapped is shorter than what can be wrapped.
    #[error("room for {len} bytes; what is unwrapped can have {needed}")]
    Room {
        /// Bytes of the place.
        len: usize,
        /// Bytes that it must have.
        needed: usize,
    },
    /// Not DER of a public key of RSA with 2048, 3072 or 4096 bits and the exponent 65537.
    #[error("no public key of RSA that is known here: 2048, 3072 or 4096 bits, with the exponent 65537")]
    PublicKey,
    /// Not a secret key of one of these sizes.
    #[error("no secret key of RSA")]
    Key,
    /// It was not wrapped for this key, or was changed since. Nothing tells which, nor what was wrong with it.
    #[error("this was not wrapped for this key, or was changed")]
    Refused,
    /// Memory for secrets, or random bytes, could not be had.
    #[error("memory for secrets")]
    Memory(#[from] MemoryError),
}
