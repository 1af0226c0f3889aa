//! A secret whose memory nobody can touch between accesses, the process itself included.

use std::error::Error as StdError;
use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::arena::{Opened, Protection};
use crate::error::Error;
use crate::report::Confirmation;
use crate::secret::{Options, Secret};

/// Bytes whose memory is closed (`PROT_NONE`) while no access runs: a stray read or write in the process is a fault then.
///
/// Sealed secrets of one policy stand together in arenas of their own. An access opens the arena for as long as it runs, for
/// reading or for writing; accesses that overlap are counted, and the last one closes it, also when a closure panics. To
/// open and to close are a system call each, so many reads belong into one [`batch`](Self::batch).
///
/// This is against accidents of the process's own: overruns, stray pointers. Who reads from outside reads closed memory
/// too, unless it is of memfd_secret.
///
/// ```
/// use secmem::{Sealed, Secret};
///
/// let key = Secret::options().filled_sealed(32, |slot| {
///     slot.fill(7);
///     Ok::<(), secmem::Error>(())
/// })?;
/// assert_eq!(key.with(|bytes| bytes[31])?, 7);
/// let sums: u32 = Sealed::batch(&[&key], || (0..100).map(|_| key.with(|bytes| u32::from(bytes[0]))).sum::<Result<_, _>>())??;
/// assert_eq!(sums, 700);
/// # Ok::<(), secmem::Error>(())
/// ```
///
/// ```compile_fail,E0599
/// let copy = secmem::Sealed::new(32)?.clone();
/// # Ok::<(), secmem::Error>(())
/// ```
pub struct Sealed(Secret);

impl Options {
    /// A sealed secret of `len` zero bytes.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed), and [`Error::Access`] if the kernel refuses to close the memory.
    pub fn sealed(self, len: usize) -> Result<Sealed, Error> {
        self.made(true, len).map(Sealed)
    }

    /// A sealed secret of `len` bytes that `fill` writes in place. If it fails or panics, the slot is wiped.
    ///
    /// # Errors
    ///
    /// As [`sealed`](Self::sealed); [`Error::Fill`] with what `fill` said.
    pub fn filled_sealed<E>(self, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Sealed, Error>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut sealed = self.sealed(len)?;
        sealed.0.slot.write(fill)?.map_err(|error| Error::Fill { len, source: error.into() })?;
        Ok(sealed)
    }
}

impl Sealed {
    /// A sealed secret of `len` zero bytes, as [`Secret::new`] makes one.
    ///
    /// # Errors
    ///
    /// As [`Options::sealed`].
    pub fn new(len: usize) -> Result<Self, Error> {
        Secret::options().sealed(len)
    }

    /// Lets `f` read the bytes. Several threads may at once.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`]; [`Error::Access`] if the memory could not be opened, or could not be closed after `f` has run.
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        self.0.with(f)
    }

    /// Lets `f` read and write the bytes.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub fn with_mut<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        self.0.with_mut(f)
    }

    /// Runs `f` while the memory of all of `secrets` is open for reading: their accesses within it make no system call.
    ///
    /// Other sealed secrets that share their arenas can be read by stray pointers meanwhile, too.
    ///
    /// # Errors
    ///
    /// [`Error::Access`] if memory could not be opened, and `f` has not run, or not be closed again when it had; [`Error::Forked`] in a forked child. What an
    /// access within `f` says is `f`'s to pass on.
    pub fn batch<R>(secrets: &[&Self], f: impl FnOnce() -> R) -> Result<R, Error> {
        let open: Vec<_> = secrets.iter().map(|secret| secret.0.slot.hold_open()).collect::<Result<_, _>>()?;
        let result = f();
        // All are closed, whatever one of them says.
        open.into_iter().flatten().map(Opened::close).fold(Ok(()), Result::and)?;
        Ok(result)
    }

    /// Whether both hold the same bytes, in a time that depends on nothing but their lengths.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with), for either of the two.
    pub fn ct_eq(&self, other: &Self) -> Result<bool, Error> {
        self.0.ct_eq(&other.0)
    }

    /// Wipes the bytes now; every later access is [`Error::Wiped`].
    ///
    /// # Errors
    ///
    /// As [`Secret::wipe`]; [`Error::Access`] if the memory could not be opened for that: the bytes stand, no access
    /// reaches them any more, and the next call, the drop or a purge tries again.
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.0.wipe()
    }

    /// Bytes of secret, also when they have been wiped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the secret has no bytes; one that was wiped still has them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the bytes are protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.0.protection()
    }

    /// Asks the kernel whether the memory still has what it had, and is closed if no access runs.
    ///
    /// # Errors
    ///
    /// As [`verify`](crate::verify).
    pub fn verify(&self) -> Result<Confirmation, Error> {
        self.0.verify()
    }

    /// A plain copy of the bytes, outside of all protection: see [`Secret::expose_to_vec`].
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub fn expose_to_vec(&self) -> Result<Vec<u8>, Error> {
        self.0.expose_to_vec()
    }
}

impl Zeroize for Sealed {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Sealed {}

impl fmt::Debug for Sealed {
    /// Length and protection; never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealed").field(&self.0).finish()
    }
}
