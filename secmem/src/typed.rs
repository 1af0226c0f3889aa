//! Values of a type in a slot, written and read in place.

use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::arena::Protection;
use crate::error::Error;
use crate::secret::{Options, Secret};

/// What can stand in a slot as it is: any bytes are a value, every byte is written, and nothing is behind a pointer. The
/// traits are [`zerocopy`]'s, which a type derives and the compiler checks.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Plain for T {}

/// A value that stands in a slot and nowhere else: it is made there, and reached by reference.
///
/// ```
/// use secmem::Typed;
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Session {
///     key: [u8; 32],
///     counter: u64,
/// }
///
/// let mut session = Typed::<Session>::zeroed()?;
/// session.with_mut(|session| session.counter += 1)?;
/// assert_eq!(session.with(|session| session.counter)?, 1);
/// # Ok::<(), secmem::Error>(())
/// ```
///
/// What holds pointers, or has bytes that no field covers, is refused:
///
/// ```compile_fail,E0277
/// let names = secmem::Typed::<String>::zeroed()?;
/// # Ok::<(), secmem::Error>(())
/// ```
/// ```compile_fail,E0277
/// let yes = secmem::Typed::<bool>::zeroed()?; // most bytes are no bool
/// # Ok::<(), secmem::Error>(())
/// ```
pub struct Typed<T> {
    secret: Secret,
    value: PhantomData<T>,
}

impl Options {
    /// A value of zero bytes.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed).
    pub fn typed<T: Plain>(self) -> Result<Typed<T>, Error> {
        const { assert!(align_of::<T>() <= 16, "slots are aligned to 16 bytes") };
        Ok(Typed { secret: self.zeroed(size_of::<T>())?, value: PhantomData })
    }

    /// A value that `fill` writes in place. If it fails or panics, the slot is wiped.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed); [`Error::Fill`] with what `fill` said.
    pub fn typed_filled<T: Plain, E>(self, fill: impl FnOnce(&mut T) -> Result<(), E>) -> Result<Typed<T>, Error>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut typed = self.typed::<T>()?;
        let filled = typed.secret.slot.write(|slot| fill(within_mut(slot)))?;
        filled.map_err(|error| Error::Fill { len: size_of::<T>(), source: error.into() })?;
        Ok(typed)
    }
}

/// The value in a slot that was made for it.
fn within<T: Plain>(slot: &[u8]) -> &T {
    match T::ref_from_bytes(slot) {
        Ok(value) => value,
        Err(_) => unreachable!("the slot is as long and as aligned as it was made"),
    }
}

fn within_mut<T: Plain>(slot: &mut [u8]) -> &mut T {
    match T::mut_from_bytes(slot) {
        Ok(value) => value,
        Err(_) => unreachable!("the slot is as long and as aligned as it was made"),
    }
}

impl<T: Plain> Typed<T> {
    /// A value of zero bytes, as [`Secret::new`] makes one.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`].
    pub fn zeroed() -> Result<Self, Error> {
        Secret::options().typed()
    }

    /// Lets `f` read the value.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Result<R, Error> {
        self.secret.with(|slot| f(within(slot)))
    }

    /// Lets `f` read and write the value.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`].
    pub fn with_mut<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> Result<R, Error> {
        self.secret.with_mut(|slot| f(within_mut(slot)))
    }

    /// Whether both hold the same bytes, in a time that depends on nothing else.
    ///
    /// # Errors
    ///
    /// As [`Secret::with`], for either of the two.
    pub fn ct_eq(&self, other: &Self) -> Result<bool, Error> {
        self.secret.ct_eq(&other.secret)
    }

    /// Wipes the value now; every later access is [`Error::Wiped`].
    ///
    /// # Errors
    ///
    /// As [`Secret::wipe`].
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.secret.wipe()
    }

    /// How the value is protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.secret.protection()
    }
}

impl<T> Zeroize for Typed<T> {
    fn zeroize(&mut self) {
        self.secret.zeroize();
    }
}

impl<T> ZeroizeOnDrop for Typed<T> {}

impl<T> fmt::Debug for Typed<T> {
    /// Length and protection; never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.secret).finish()
    }
}
