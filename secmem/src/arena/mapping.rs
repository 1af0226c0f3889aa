//! One stretch of protected memory between two guards.
//!
//! The whole stretch is reserved without access first, and the data pages are then mapped into its middle. So the
//! guards exist by construction: there is no moment, and no failure, that leaves data without them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use super::{Backend, fork};
use crate::error::Refusal;
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

/// What holds of a mapping, set one by one as the calls that bring it about succeed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shields {
    pub(crate) locked: bool,
    pub(crate) dump_excluded: bool,
    pub(crate) fork_excluded: bool,
    pub(crate) guards: bool,
}

impl Shields {
    pub(super) const fn bits(self) -> u8 {
        self.locked as u8 | (self.dump_excluded as u8) << 1 | (self.fork_excluded as u8) << 2 | (self.guards as u8) << 3
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self {
            locked: bits & 1 != 0,
            dump_excluded: bits & 2 != 0,
            fork_excluded: bits & 4 != 0,
            guards: bits & 8 != 0,
        }
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
    /// On failure whatever was mapped until then is unmapped again.
    pub(crate) fn new(kind: Kind, len: usize, guard: usize) -> Result<Self, Refusal> {
        match kind {
            // Pages of a file are shared: a child that is forked before they are excluded sees all that comes later.
            Kind::MemfdSecret => fork::undisturbed(|| Self::make(kind, len, guard), |mut mapping| mapping.unmap()),
            // Private pages: such a child gets a copy of zeros.
            Kind::Mlock => Self::make(kind, len, guard),
        }
    }

    fn make(kind: Kind, len: usize, guard: usize) -> Result<Self, Refusal> {
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
        if let Err(refusal) = mapping.protect(file.as_ref()) {
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
    fn protect(&mut self, file: Option<&OwnedFd>) -> Result<(), Refusal> {
        match file {
            Some(file) => {
                sys::resize(file.as_fd(), self.len).map_err(refused(Call::Resize))?;
                // SAFETY: the pages are the middle of our own fresh reservation; nothing refers to them yet.
                let made = unsafe { sys::map_secret(self.data, self.len, file.as_fd()) };
                made.map_err(refused(Call::MapSecret))?;
                // The kernel locks these pages itself; a second mlock is refused with ENOMEM.
                self.shields.locked = true;
                self.touch();
            }
            None => {
                // SAFETY: the pages are the middle of our own fresh reservation; nothing refers to them yet.
                let made = unsafe { sys::map_anonymous(self.data, self.len) };
                made.map_err(refused(Call::MapAnonymous))?;
                if !cfg!(secmem_ablate = "lock") {
                    sys::lock(self.data, self.len).map_err(refused(Call::Lock))?;
                }
                self.shields.locked = true;
            }
        }
        if !cfg!(secmem_ablate = "dont-dump") {
            sys::dont_dump(self.data, self.len).map_err(refused(Call::DontDump))?;
        }
        self.shields.dump_excluded = true;
        if !cfg!(secmem_ablate = "dont-fork") {
            // SAFETY: in a forked child no access begins, as `fork::in_child` is asked first, and one that had begun before
            // the fork ends without touching the arena. What is left is a closure that forks and goes on to use its bytes in
            // the child: it faults. Forking is unsafe to call, and the crate's documentation forbids that use.
            let excluded = unsafe { sys::dont_fork(self.data, self.len) };
            excluded.map_err(refused(Call::DontFork))?;
        }
        self.shields.fork_excluded = true;
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
        // SAFETY: the reservation is longer than a guard.
        let data = unsafe { reserved.add(guard) };
        if cfg!(secmem_ablate = "guard-before") {
            // SAFETY: the lower guard of our own fresh reservation; nothing refers to it yet.
            unsafe { sys::map_anonymous(reserved, guard) }?;
        }
        if cfg!(secmem_ablate = "guard-after") {
            // SAFETY: the reservation is longer than a guard and the data.
            let after = unsafe { data.add(len) };
            // SAFETY: the upper guard of our own fresh reservation; nothing refers to it yet.
            unsafe { sys::map_anonymous(after, guard) }?;
        }
        let shields = Shields { guards: true, ..Shields::default() };
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
            let refusal = Mapping::new(kind, 1 << 46, sys::page_size()).unwrap_err();

            assert_eq!((refusal.call, refusal.errno), (Call::FreeMemory.name(), libc::ENOMEM));
        }
    }

    #[test]
    fn a_machine_that_does_not_tell_its_free_memory_gives_no_large_mapping() {
        seam::fail_next(Call::FreeMemory, libc::ENOSYS);

        assert_eq!(Mapping::new(Kind::Mlock, LARGE, sys::page_size()).unwrap_err().call, Call::FreeMemory.name());
    }

    #[test]
    fn every_refused_call_is_named_with_its_errno() {
        let anonymous = [Call::Reserve, Call::MapAnonymous, Call::Lock, Call::DontDump, Call::DontFork];
        let secret = [Call::MemfdSecret, Call::Reserve, Call::Resize, Call::MapSecret, Call::DontDump, Call::DontFork];
        let rows = anonymous.map(|call| (Kind::Mlock, call)).into_iter();
        for (kind, call) in rows.chain(secret.map(|call| (Kind::MemfdSecret, call))) {
            seam::fail_next(call, libc::EPERM);

            let refusal = Mapping::new(kind, 1, sys::page_size()).unwrap_err();

            assert_eq!(refusal, Refusal { call: call.name(), errno: libc::EPERM });
            assert_eq!(seam::left(), 0, "{call:?} was not reached");
        }
    }

    #[test]
    fn a_refusal_to_clean_up_is_told() {
        seam::fail_next(Call::Lock, libc::EPERM);
        seam::fail_next(Call::Unmap, libc::ENOMEM);

        let refusal = Mapping::new(Kind::Mlock, 1, sys::page_size()).unwrap_err();

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

        let mapping = Mapping::new(Kind::MemfdSecret, 1, sys::page_size()).unwrap();

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
            assert_eq!(Mapping::new(Kind::Mlock, len, sys::page_size()).unwrap_err().errno, libc::ENOMEM);
        }
    }

    #[test]
    fn data_is_whole_pages_of_zeros() {
        for kind in [Kind::Mlock, Kind::MemfdSecret] {
            let mapping = Mapping::new(kind, 5000, sys::page_size()).unwrap();

            assert_eq!(mapping.len(), 2 * sys::page_size());
            // SAFETY: the data pages are mapped, and nobody writes to them.
            let data = unsafe { std::slice::from_raw_parts(mapping.data().as_ptr(), mapping.len()) };
            assert!(data.iter().all(|&byte| byte == 0));
        }
    }
}
