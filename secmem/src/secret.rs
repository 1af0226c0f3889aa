//! The secret itself, and how one is made.

use std::error::Error as StdError;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::{fmt, io};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::arena::{Backend, Doom, Protection, Since, Slot};
use crate::deadline::{Alone, Clock, TestClock};
#[cfg(all(feature = "manager", target_arch = "x86_64"))]
use crate::deadline::{Time, Told};
use crate::error::Error;
use crate::life::{Life, Rules};
use crate::owner::Owner;
use crate::policy::{Control, Policy};
use crate::report::{self, Confirmation};
use crate::wipe::{self, Schedule};
use crate::{ct, sys};

/// How a secret is to be kept. Made by [`Secret::options`].
///
/// ```
/// use std::time::Duration;
/// use secmem::{Backend, Secret};
///
/// let options = Secret::options().backend(Backend::Mlock).expires_in(Duration::from_secs(60));
/// let secret = options.filled(32, |slot| {
///     slot.fill(7); // a key exchange, a decoder, a generator: whatever writes in place
///     Ok::<(), secmem::Error>(())
/// })?;
/// # assert_eq!(secret.with(|bytes| bytes[31])?, 7);
/// # Ok::<(), secmem::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Options {
    pub(crate) policy: Policy,
    rules: Rules,
    schedule: Schedule,
}

impl Options {
    /// The kind of memory; [`Backend::Auto`] if not said.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.policy = self.policy.with(Control::MemfdSecret, Policy::from(backend).demand(Control::MemfdSecret));
        self
    }

    /// What the memory must have, and what it may lack; [`Policy::default`] if not said. Replaces an earlier
    /// [`backend`](Self::backend).
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Ends the secret so long after it is made; never if not said, or if the clock cannot count that far.
    ///
    /// It is wiped at that time, by a thread of this crate. If an access runs just then, the bytes are wiped when it ends.
    /// On Linux the time that the machine is suspended does not count.
    pub fn expires_in(mut self, span: Duration) -> Self {
        self.rules.expires_in = Some(span);
        self
    }

    /// Ends the secret when nobody has used it for so long. It is wiped at that time, by the thread of
    /// [`expires_in`](Self::expires_in), and whichever of the two comes first counts. An access that runs is use.
    pub fn idle_for(mut self, span: Duration) -> Self {
        self.rules.idle = Some(span);
        self
    }

    /// Ends the secret with the so-manieth access: it is wiped when that ends, and each later one is
    /// [`Error::Spent`]. [`Secret::with_mut`] counts as one, too; filling does not.
    pub fn max_uses(mut self, uses: u64) -> Self {
        self.rules.uses = Some(uses);
        self
    }

    /// Counts the secret among those of `owner`, which may be too many: [`Error::Quota`].
    pub fn owner(mut self, owner: Owner) -> Self {
        self.rules.owner = Some(owner);
        self
    }

    /// Takes the time from a test's clock.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.rules.clock = Clock::Test(clock);
        self
    }

    /// How the bytes are overwritten at the end; [`Schedule::Single`] if not said.
    ///
    /// A forced purge (signal, exit, panic that aborts) overwrites once with zeros, whatever is said here.
    pub fn wipe(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// A secret of `len` zero bytes, to be written by [`Secret::with_mut`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the kernel grants no such memory, [`Error::Watch`] if a deadline cannot be watched,
    /// [`Error::Purged`] while the process is being purged, [`Error::Forked`] in a forked child.
    #[inline]
    pub fn zeroed(self, len: usize) -> Result<Secret, Error> {
        self.made(false, len)
    }

    /// `sealed`: its memory is closed between accesses.
    #[inline(always)]
    pub(crate) fn made(self, sealed: bool, len: usize) -> Result<Secret, Error> {
        if self.rules.are_none() {
            return Ok(Secret { life: None, slot: Slot::new(self.policy, sealed, len, self.schedule)? });
        }
        let share = self.rules.admit(len)?;
        let slot = Slot::new(self.policy, sealed, len, self.schedule)?;
        let life = self.rules.begin(&slot, self.rules.clock.now(), share, None)?;
        Ok(Secret { life: Some(life), slot })
    }

    /// [`zeroed`](Self::zeroed), at `now`, and `told` hears if time ends the secret.
    #[cfg(all(feature = "manager", target_arch = "x86_64"))]
    pub(crate) fn watched(self, len: usize, now: Time, told: Told) -> Result<Secret, Error> {
        if self.rules.are_none() {
            return self.zeroed(len);
        }
        let slot = Slot::new(self.policy, false, len, self.schedule)?;
        let life = self.rules.begin(&slot, now, None, Some(told))?;
        Ok(Secret { life: Some(life), slot })
    }

    /// A secret of `len` bytes that `fill` writes in place. If it fails or panics, the slot is wiped.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed); [`Error::Fill`] with what `fill` said.
    pub fn filled<E>(self, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Secret, Error>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut secret = self.zeroed(len)?;
        secret.slot.write(fill)?.map_err(|error| Error::Fill { len, source: error.into() })?;
        Ok(secret)
    }

    /// A secret of the next `len` bytes of `fd`, which read(2) puts into place without a stop in between.
    ///
    /// # Errors
    ///
    /// As [`zeroed`](Self::zeroed); [`Error::Read`] if reading fails or ends early. The slot is wiped then.
    pub fn read_exact(self, fd: BorrowedFd<'_>, len: usize) -> Result<Secret, Error> {
        let mut secret = self.zeroed(len)?;
        secret.slot.write(|slot| read_all(fd, slot))??;
        Ok(secret)
    }
}

fn read_all(fd: BorrowedFd<'_>, slot: &mut [u8]) -> Result<(), Error> {
    let wanted = slot.len();
    let mut got = 0;
    while got < wanted {
        match sys::read(fd, &mut slot[got..]) {
            Ok(0) => return Err(Error::Read { wanted, got, source: None }),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Read { wanted, got, source: Some(source) }),
        }
    }
    Ok(())
}

/// Bytes that live in locked, guarded memory alone, and are wiped at the end.
///
/// The value holds a place, never the bytes, so moving it copies nothing. They are reached in a closure, by
/// [`with`](Self::with) and [`with_mut`](Self::with_mut).
///
/// What would let them out by accident is not there:
///
/// ```compile_fail,E0599
/// let copy = secmem::Secret::new(32)?.clone();
/// # Ok::<(), secmem::Error>(())
/// ```
/// ```compile_fail,E0277
/// println!("{}", secmem::Secret::new(32)?);
/// # Ok::<(), secmem::Error>(())
/// ```
/// ```compile_fail,E0614
/// let bytes = *secmem::Secret::new(32)?;
/// # Ok::<(), secmem::Error>(())
/// ```
/// ```compile_fail,E0369
/// let same = secmem::Secret::new(32)? == secmem::Secret::new(32)?; // use ct_eq
/// # Ok::<(), secmem::Error>(())
/// ```
/// ```compile_fail
/// let escaped = secmem::Secret::new(32)?.with(|bytes| bytes)?;
/// # Ok::<(), secmem::Error>(())
/// ```
pub struct Secret {
    life: Option<Box<Life>>, // first: its end is called off before the slot goes
    pub(crate) slot: Slot,
}

/// The vector is consumed, and wiped to the end of its capacity, whatever comes of it.
impl TryFrom<Vec<u8>> for Secret {
    type Error = Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Consumed(bytes);
        let mut secret = Self::new(bytes.0.len())?;
        secret.with_mut(|slot| wipe::copy(&bytes.0, slot))?;
        Ok(secret)
    }
}

/// A vector that is wiped to the end of its capacity when it is dropped.
pub(crate) struct Consumed(pub(crate) Vec<u8>);

impl Drop for Consumed {
    fn drop(&mut self) {
        if !cfg!(secmem_ablate = "consumed-wipe") {
            wipe::wipe_vec(&mut self.0);
        }
    }
}

impl Secret {
    /// A secret of `len` zero bytes with [`Backend::Auto`], no deadline, and a single wipe at the end.
    ///
    /// # Errors
    ///
    /// As [`Options::zeroed`].
    #[inline]
    pub fn new(len: usize) -> Result<Self, Error> {
        Self::options().zeroed(len)
    }

    /// The other ways to make one.
    #[inline]
    pub fn options() -> Options {
        Options::default()
    }

    /// Lets `f` read the bytes. Several threads may at once.
    ///
    /// What `f` copies, it copies out of the protection.
    ///
    /// # Errors
    ///
    /// [`Error::Expired`], [`Error::Wiped`], [`Error::Spent`], [`Error::Purged`] if the secret has ended, [`Error::Forked`] in a
    /// forked child. `f` has not run then. [`Error::Purged`] also if a forced purge came while `f` ran: what it may have made of
    /// zeros is dropped.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        match &self.life {
            None => self.slot.read(f),
            Some(life) => {
                let _used = life.begin(&self.slot, Alone(false), None)?; // until the access has ended
                self.slot.read(f)
            }
        }
    }

    /// Lets `f` read and write the bytes.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    #[inline]
    pub fn with_mut<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        match &self.life {
            None => self.slot.write(f),
            Some(life) => {
                let _used = life.begin(&self.slot, Alone(true), None)?; // until the access has ended
                self.slot.write(f)
            }
        }
    }

    /// [`with`](Self::with), for one who knows what time it is.
    #[cfg(all(feature = "manager", target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn with_at<R>(&self, now: Time, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let _used = self.life.as_ref().map(|life| life.begin(&self.slot, Alone(false), Some(now))).transpose()?;
        self.slot.read(f)
    }

    /// [`with_mut`](Self::with_mut), for one who knows what time it is.
    #[cfg(all(feature = "manager", target_arch = "x86_64"))]
    #[inline]
    pub(crate) fn with_mut_at<R>(&mut self, now: Time, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let _used = self.life.as_ref().map(|life| life.begin(&self.slot, Alone(true), Some(now))).transpose()?;
        self.slot.write(f)
    }

    /// A change of this crate's own: no use.
    pub(crate) fn change<R>(&mut self, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, Error> {
        let _held = self.life.as_ref().map(|life| life.hold(&self.slot));
        self.slot.write(f)
    }

    /// A look of this crate's own: no use.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let _held = self.life.as_ref().map(|life| life.hold(&self.slot));
        self.slot.read(f)
    }

    /// Whether both hold the same bytes, in a time that depends on nothing but their lengths.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with), for either of the two.
    pub fn ct_eq(&self, other: &Self) -> Result<bool, Error> {
        self.with(|a| other.with(|b| ct::eq(a, b)))?
    }

    /// Wipes the bytes now; every later access is [`Error::Wiped`]. A secret that has ended before stays as it ended.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a forked child, where there is nothing to wipe; [`Error::Random`] as
    /// [`wipe_with`](crate::wipe::wipe_with): the bytes are zero even so.
    pub fn wipe(&mut self) -> Result<(), Error> {
        self.slot.doom(Doom::Wiped)
    }

    /// Bytes of secret, also when they have been wiped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// Whether the secret has no bytes; one that was wiped still has them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the bytes are protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.slot.protection()
    }

    /// Asks the kernel whether the secret's memory still has what it had when it was made. See [`verify`](crate::verify).
    ///
    /// # Errors
    ///
    /// As [`verify`](crate::verify).
    pub fn verify(&self) -> Result<Confirmation, Error> {
        report::verify_at(self.slot.address())
    }

    /// Lets `f` read the bytes, and ends the secret, whatever comes of it.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub fn consume<R>(self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        self.with(f)
    }

    /// A plain copy of the bytes, outside of all protection: nobody wipes it, and it is the caller's from here on.
    ///
    /// # Errors
    ///
    /// As [`with`](Self::with).
    pub fn expose_to_vec(&self) -> Result<Vec<u8>, Error> {
        self.with(<[u8]>::to_vec)
    }

    /// Moves the first `keep` bytes to a slot of `len`, which the secret lives in from now on; the old one is wiped. What
    /// limits its life goes on as it was.
    pub(crate) fn relocate(&mut self, keep: usize, len: usize) -> Result<(), Error> {
        let before = self.len();
        if let Some(share) = self.life.as_mut().and_then(|life| life.share())
            && len > before
        {
            share.grow(len - before)?;
        }
        let moved = self.move_to(keep, len);
        if let Some(share) = self.life.as_mut().and_then(|life| life.share()) {
            match moved {
                Ok(()) if len < before => share.shrink(before - len),
                Err(_) if len > before => share.shrink(len - before),
                _ => {}
            }
        }
        moved
    }

    fn move_to(&mut self, keep: usize, len: usize) -> Result<(), Error> {
        let since = Since::now();
        let mut slot = self.slot.like(len)?;
        let keep = keep.min(len);
        self.slot.read(|old| slot.write(|new| wipe::copy(&old[..keep], &mut new[..keep])))??;
        if self.life.as_ref().is_some_and(|life| !life.move_to(&slot)) {
            slot.doom(Doom::Expired)?;
        }
        slot.end_if_purged(since)?;
        self.slot = slot; // the old one is wiped as it is dropped
        Ok(())
    }

    /// The policy that it was made with.
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) fn protection_policy(&self) -> Policy {
        self.slot.policy()
    }

    /// Whether its time has come, whatever anybody has done about it.
    #[cfg(all(feature = "manager", target_arch = "x86_64"))]
    pub(crate) fn is_over(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.is_over())
    }

    pub(crate) fn arena_end(&self) -> *const u8 {
        self.slot.arena_end()
    }
}

/// [`Secret::wipe`] under the name that generic code calls; later accesses are [`Error::Wiped`].
impl Zeroize for Secret {
    fn zeroize(&mut self) {
        // An error here is a fork, where there is nothing to wipe; a missing random pass, and zeros stand there even so; or
        // sealed memory that did not open, which the drop tries again, and a purge.
        let _ = self.wipe();
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    /// Length and protection; never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("len", &self.len())
            .field("backend", &self.protection().reached)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sys::{Call, seam};
    use crate::{Bytes, arena};

    fn grown(options: Options) -> Bytes {
        let mut bytes = options.bytes(40).unwrap();
        bytes.extend(&[0xA7; 40]).unwrap();
        bytes
    }

    /// Purges, and while that is at closed memory, behind what was made last and before what was made first, lets `happens` run.
    fn purge_with_a_pause(options: Options, happens: impl FnOnce() + 'static) {
        let _pause = options.sealed(32).unwrap();
        let before = seam::calls(Call::Access);
        seam::before_next(Call::Access, happens);

        arena::purge();

        assert!(seam::calls(Call::Access) > before, "the purge met no closed memory");
    }

    #[test]
    fn a_secret_that_moves_behind_a_purge_s_back_ends_with_it() {
        let ended = seam::in_child("secret::tests::a_secret_that_moves_behind_a_purge_s_back_ends_with_it", || {
            let options = Secret::options().backend(Backend::Mlock);
            let (moving, staying) = (Arc::new(Mutex::new(grown(options))), grown(options));

            let shared = Arc::clone(&moving);
            let (send, moved) = std::sync::mpsc::channel();
            purge_with_a_pause(options, move || {
                // To an arena of its own, which the list has now and the purge does not see.
                send.send(shared.lock().unwrap().extend(&[0xA7; 100_000])).unwrap();
            });

            let moved = moved.recv().unwrap();
            assert!(matches!(moved, Err(Error::Purged)), "{moved:?}");
            for bytes in [&*moving.lock().unwrap(), &staying] {
                assert!(matches!(bytes.with(|_| ()), Err(Error::Purged)), "{:?}", bytes.with(|_| ()));
            }
            // What is made, and moved, afterwards lives.
            let mut new = grown(options);
            new.extend(&[0xA7; 100_000]).unwrap();
            assert_eq!(new.with(|bytes| bytes[100_000]).unwrap(), 0xA7);
        });

        assert!(ended.status.success(), "{ended:?}");
    }

    #[test]
    fn a_secret_that_is_cut_to_its_length_behind_a_purge_s_back_ends_with_it() {
        let ended = seam::in_child(
            "secret::tests::a_secret_that_is_cut_to_its_length_behind_a_purge_s_back_ends_with_it",
            || {
                let options = Secret::options().backend(Backend::Mlock);
                let mut bytes = options.bytes(200_000).unwrap();
                bytes.extend(&[0xA7; 100_000]).unwrap();
                let (send, cut) = std::sync::mpsc::channel();

                purge_with_a_pause(options, move || send.send(bytes.into_secret()).unwrap());

                let cut = cut.recv().unwrap().unwrap();
                assert!(matches!(cut.with(|_| ()), Err(Error::Purged)), "{:?}", cut.with(|_| ()));
            },
        );

        assert!(ended.status.success(), "{ended:?}");
    }
}
