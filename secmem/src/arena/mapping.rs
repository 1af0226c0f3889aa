//! One stretch of protected memory between two guards.
//!
//! The whole stretch is reserved without access first, and the data pages are then mapped into its middle. So the
//! guards exist by construction: there is no moment, and no failure, that leaves data without them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use super::{Backend, fork};
use crate::error::Refusal;
use crate::policy::{Control, Demand, Policy};
use crate::sys::{self, Call};

/// Bytes from which a mapping must fit into the free memory: 64 MiB.
const LARGE: usize = 64 << 20;

/// Which kind of memory a mapping is made of: [`Backend`] without the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MemfdSecret,
    Mlock,
}

impl Kind {
    pub(crate) const fn backend(self) -> Backend {
        match self {
            Self::MemfdSecret => Backend::MemfdSecret,
            Self::Mlock => Backend::Mlock,
        }
    }
}

/// What came of each control that concerns pages, set one by one as the calls that bring it about answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shields([i32; Self::CONTROLS.len()]);

impl Shields {
    /// The controls that concern pages, in the order of the array.
    pub(super) const CONTROLS: [Control; 4] = [Control::Lock, Control::DontDump, Control::DontFork, Control::Guards];

    /// In place of an errno: the control is there.
    const REACHED: i32 = 0;
    /// In place of an errno: it was not tried.
    const UNTRIED: i32 = -1;

    pub(super) const NONE: Self = Self([Self::UNTRIED; Self::CONTROLS.len()]);

    pub(super) const fn errnos(self) -> [i32; Self::CONTROLS.len()] {
        self.0
    }

    pub(super) const fn from_errnos(errnos: [i32; Self::CONTROLS.len()]) -> Self {
        Self(errnos)
    }

    fn set(&mut self, control: Control, errno: i32) {
        if let Some(at) = Self::CONTROLS.iter().position(|it| *it == control) {
            self.0[at] = errno;
        }
    }

    fn errno(self, control: Control) -> i32 {
        Self::CONTROLS.iter().position(|it| *it == control).map_or(Self::UNTRIED, |at| self.0[at])
    }

    pub(crate) fn reached(self, control: Control) -> bool {
        self.errno(control) == Self::REACHED
    }

    /// Why a control that was tried is not there.
    pub(crate) fn why(self, control: Control) -> Option<Refusal> {
        let call = match control {
            Control::Lock => Call::Lock,
            Control::DontDump => Call::DontDump,
            Control::DontFork => Call::DontFork,
            _ => Call::Reserve,
        };
        let errno = self.errno(control);
        (errno > 0).then_some(Refusal { call: call.name(), errno })
    }
}

/// Protected data pages with a guard on either side. Wiped by whoever wrote to them, and given back by
/// [`unmap`](Self::unmap): a value that is only dropped keeps its addresses, for a refusal must reach somebody.
#[derive(Debug)]
pub(crate) struct Mapping {
    reserved: NonNull<u8>,
    reserved_len: usize,
    data: NonNull<u8>,
    len: usize,
    shields: Shields,
}

// SAFETY: the value owns its pages, and nothing about a mapping is tied to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps at least `len` bytes, rounded up to whole pages, all zero, between two guards of `guard` bytes: whole pages.
    ///
    /// On failure whatever was mapped until then is unmapped again. What `policy` only prefers is no failure.
    pub(crate) fn new(kind: Kind, len: usize, guard: usize, policy: Policy) -> Result<Self, Refusal> {
        let guard = if policy.demand(Control::Guards) == Demand::Off { 0 } else { guard };
        match Self::guarded(kind, len, guard, policy) {
            // Guards take mappings and address space, of which there may be none left.
            Err(refusal) if refusal.errno == libc::ENOMEM && policy.demand(Control::Guards) == Demand::Preferred => {
                let mut mapping = Self::guarded(kind, len, 0, policy)?;
                mapping.shields.set(Control::Guards, refusal.errno);
                Ok(mapping)
            }
            result => result,
        }
    }

    fn guarded(kind: Kind, len: usize, guard: usize, policy: Policy) -> Result<Self, Refusal> {
        let make = || Self::make(kind, len, guard, policy);
        match kind {
            // Pages of a file are shared: a child that is forked before they are excluded sees all that comes later.
            Kind::MemfdSecret => fork::undisturbed(make, |mut mapping| mapping.unmap()),
            // Private pages: such a child gets a copy of zeros.
            Kind::Mlock => make(),
        }
    }

    fn make(kind: Kind, len: usize, guard: usize, policy: Policy) -> Result<Self, Refusal> {
        // Locked pages cannot be taken back. For whoever has no lock limit the kernel would end some process, perhaps
        // another's, before it refused.
        if len >= LARGE && u64::try_from(len).is_ok_and(|len| len > sys::free_memory().unwrap_or(0)) {
            return Err(refused(Call::FreeMemory)(io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        // Asked before the reservation: where the kernel lacks the call, this is all that it costs.
        let file = match kind {
            Kind::MemfdSecret => Some(sys::memfd_secret().map_err(refused(Call::MemfdSecret))?),
            Kind::Mlock => None,
        };
        let mut mapping = Self::reserve(len, guard).map_err(refused(Call::Reserve))?;
        if let Err(refusal) = mapping.protect(file.as_ref(), policy) {
            mapping.unmap()?; // a second refusal is the one to tell: it leaves something behind
            return Err(refusal);
        }
        if cfg!(secmem_ablate = "descriptor-close") {
            std::mem::forget(file);
        }
        Ok(mapping)
        // The descriptor is closed here: while it is open, others could map the file (pidfd_getfd, exec, fork).
    }

    /// Puts the data pages into the reservation and shields them.
    fn protect(&mut self, file: Option<&OwnedFd>, policy: Policy) -> Result<(), Refusal> {
        let (data, len) = (self.data, self.len);
        match file {
            Some(file) => {
                // Beyond the limit of files the call would end the process, also for a file that is on no disk.
                let limit = sys::file_limit().map_err(refused(Call::FileLimit))?;
                if u64::try_from(len).is_ok_and(|len| len > limit) {
                    return Err(refused(Call::FileLimit)(io::Error::from_raw_os_error(libc::EFBIG)));
                }
                sys::resize(file.as_fd(), len).map_err(refused(Call::Resize))?;
                // SAFETY: the pages are the middle of our own fresh reservation; nothing refers to them yet.
                let made = unsafe { sys::map_secret(data, len, file.as_fd()) };
                made.map_err(refused(Call::MapSecret))?;
                // The kernel locks these pages itself; a second mlock is refused with ENOMEM.
                self.shields.set(Control::Lock, Shields::REACHED);
                self.touch();
            }
            None => {
                // SAFETY: the pages are the middle of our own fresh reservation; nothing refers to them yet.
                let made = unsafe { sys::map_anonymous(data, len) };
                made.map_err(refused(Call::MapAnonymous))?;
                self.shield(policy, Control::Lock, Call::Lock, || match () {
                    () if cfg!(secmem_ablate = "lock") => Ok(()),
                    () => sys::lock(data, len),
                })?;
            }
        }
        self.shield(policy, Control::DontDump, Call::DontDump, || match () {
            () if cfg!(secmem_ablate = "dont-dump") => Ok(()),
            () => sys::dont_dump(data, len),
        })?;
        self.shield(policy, Control::DontFork, Call::DontFork, || {
            if cfg!(secmem_ablate = "dont-fork") {
                return Ok(());
            }
            // SAFETY: in a forked child no access begins, as `fork::in_child` is asked first, and one that had begun before
            // the fork ends without touching the arena. What is left is a closure that forks and goes on to use its bytes
            // in the child: it faults. Forking is unsafe to call, and the crate's documentation forbids that use.
            unsafe { sys::dont_fork(data, len) }
        })
    }

    /// Makes a call that brings a control about, unless that is off; a refusal counts where it is required.
    fn shield(
        &mut self,
        policy: Policy,
        control: Control,
        call: Call,
        make: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Refusal> {
        let demand = policy.demand(control);
        if demand == Demand::Off {
            return Ok(());
        }
        match make().map_err(refused(call)) {
            Ok(()) => self.shields.set(control, Shields::REACHED),
            Err(refusal) if demand == Demand::Required => return Err(refusal),
            Err(refusal) => self.shields.set(control, refusal.errno),
        }
        Ok(())
    }

    /// Gives all of it back to the kernel. After a refusal (splitting a mapping at the process's limit of mappings) it can
    /// be tried again; nothing else may be done with the value, nor anything after a success.
    pub(crate) fn unmap(&mut self) -> Result<(), Refusal> {
        if cfg!(secmem_ablate = "unmap") {
            return Ok(());
        }
        // SAFETY: the range is our reservation with all that was mapped into it; slots into it are gone before the pool
        // lets go of a mapping, and the value is forgotten once this has succeeded.
        unsafe { sys::unmap(self.reserved, self.reserved_len) }.map_err(refused(Call::Unmap))
    }

    /// Address space without access for the data and both guards.
    fn reserve(len: usize, guard: usize) -> io::Result<Self> {
        let page = sys::page_size();
        let too_long = || io::Error::from_raw_os_error(libc::ENOMEM); // as the kernel would say
        let len = len.max(1).checked_next_multiple_of(page).ok_or_else(too_long)?;
        let reserved_len = len.checked_add(2 * guard).ok_or_else(too_long)?;
        let reserved = sys::reserve(reserved_len, libc::PROT_NONE)?;
        // SAFETY: the reservation is as long as a guard at least.
        let data = unsafe { reserved.add(guard) };
        if guard > 0 && cfg!(secmem_ablate = "guard-before") {
            // SAFETY: the lower guard of our own fresh reservation; nothing refers to it yet.
            unsafe { sys::map_anonymous(reserved, guard) }?;
        }
        if guard > 0 && cfg!(secmem_ablate = "guard-after") {
            // SAFETY: the reservation is longer than a guard and the data.
            let after = unsafe { data.add(len) };
            // SAFETY: the upper guard of our own fresh reservation; nothing refers to it yet.
            unsafe { sys::map_anonymous(after, guard) }?;
        }
        let mut shields = Shields::NONE;
        if guard > 0 {
            shields.set(Control::Guards, Shields::REACHED);
        }
        Ok(Self { reserved, reserved_len, data, len, shields })
    }

    /// Makes every page resident, so that running out of memory shows here and not in an access.
    ///
    /// By hand: MADV_POPULATE_WRITE is refused for such memory.
    fn touch(&self) {
        for offset in (0..self.len).step_by(sys::page_size()) {
            // SAFETY: the offset lies within the data pages.
            let page = unsafe { self.data.add(offset) };
            // SAFETY: the page is mapped writable, ours alone, and a byte has no alignment to miss.
            unsafe { page.write_volatile(0) };
        }
    }

    /// The first data byte.
    pub(crate) fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// Bytes of data: whole pages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn shields(&self) -> Shields {
        self.shields
    }
}

fn refused(call: Call) -> impl Fn(io::Error) -> Refusal {
    // Every error of `sys` carries an errno.
    move |error| Refusal { call: call.name(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seam;

    #[test]
    fn more_than_the_free_memory_is_refused_before_anything_is_mapped() {
        for kind in [Kind::MemfdSecret, Kind::Mlock] {
            let refusal = Mapping::new(kind, 1 << 46, sys::page_size(), Policy::default()).unwrap_err();

            assert_eq!((refusal.call, refusal.errno), (Call::FreeMemory.name(), libc::ENOMEM));
        }
    }

    #[test]
    fn a_machine_that_does_not_tell_its_free_memory_gives_no_large_mapping() {
        seam::fail_next(Call::FreeMemory, libc::ENOSYS);

        assert_eq!(
            Mapping::new(Kind::Mlock, LARGE, sys::page_size(), Policy::default()).unwrap_err().call,
            Call::FreeMemory.name()
        );
    }

    #[test]
    fn every_refused_call_is_named_with_its_errno() {
        let anonymous = [Call::Reserve, Call::MapAnonymous, Call::Lock, Call::DontDump, Call::DontFork];
        let secret = [
            Call::MemfdSecret,
            Call::Reserve,
            Call::FileLimit,
            Call::Resize,
            Call::MapSecret,
            Call::DontDump,
            Call::DontFork,
        ];
        let rows = anonymous.map(|call| (Kind::Mlock, call)).into_iter();
        for (kind, call) in rows.chain(secret.map(|call| (Kind::MemfdSecret, call))) {
            seam::fail_next(call, libc::EPERM);

            let refusal = Mapping::new(kind, 1, sys::page_size(), Policy::default()).unwrap_err();

            assert_eq!(refusal, Refusal { call: call.name(), errno: libc::EPERM });
            assert_eq!(seam::left(), 0, "{call:?} was not reached");
        }
    }

    #[test]
    fn a_refusal_to_clean_up_is_told() {
        seam::fail_next(Call::Lock, libc::EPERM);
        seam::fail_next(Call::Unmap, libc::ENOMEM);

        let refusal = Mapping::new(Kind::Mlock, 1, sys::page_size(), Policy::default()).unwrap_err();

        assert_eq!(refusal, Refusal { call: "munmap", errno: libc::ENOMEM });
    }

    #[test]
    fn a_child_forked_while_memory_is_made_does_not_share_it() {
        use std::io::{Read, Write};

        let (mut told, mut tell) = io::pipe().unwrap();
        let (send, child) = std::sync::mpsc::channel();
        seam::before_next(Call::DontFork, move || {
            // SAFETY: the child makes system calls alone, reads memory, and leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid != 0 {
                return send.send(pid).unwrap();
            }
            let mut address = [0; size_of::<usize>()];
            let heard = told.read_exact(&mut address).is_ok();
            let at = std::ptr::with_exposed_provenance::<u8>(usize::from_ne_bytes(address));
            // SAFETY: none: where nothing is mapped in the child, it dies here, which is as good as zero.
            let seen = if heard { unsafe { at.read_volatile() } } else { u8::MAX };
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(seen)) }
        });

        let mapping = Mapping::new(Kind::MemfdSecret, 1, sys::page_size(), Policy::default()).unwrap();

        // SAFETY: the page is mapped writable and ours alone.
        unsafe { mapping.data().write_volatile(0x5A) };
        tell.write_all(&mapping.data().as_ptr().expose_provenance().to_ne_bytes()).unwrap();
        let (pid, mut status) = (child.recv().unwrap(), 0);
        // SAFETY: waits for the child that was just made; `status` is a valid place.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        let saw = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        assert!(matches!(saw, None | Some(0)), "the child read {saw:?} where its parent wrote 0x5A");
    }

    #[test]
    fn a_length_beyond_the_address_space_is_refused() {
        for len in [usize::MAX, usize::MAX - 4096, isize::MAX as usize] {
            assert_eq!(
                Mapping::new(Kind::Mlock, len, sys::page_size(), Policy::default()).unwrap_err().errno,
                libc::ENOMEM
            );
        }
    }

    #[test]
    fn data_is_whole_pages_of_zeros() {
        for kind in [Kind::Mlock, Kind::MemfdSecret] {
            let mapping = Mapping::new(kind, 5000, sys::page_size(), Policy::default()).unwrap();

            assert_eq!(mapping.len(), 2 * sys::page_size());
            // SAFETY: the data pages are mapped, and nobody writes to them.
            let data = unsafe { std::slice::from_raw_parts(mapping.data().as_ptr(), mapping.len()) };
            assert!(data.iter().all(|&byte| byte == 0));
        }
    }
}
