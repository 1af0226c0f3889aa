//! Trying an ability of the kernel by using it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Makes one page of `memfd_secret(2)` memory, maps it and lets it go.
///
/// # Errors
///
/// `ENOSYS` without the call (before Linux 5.14, or secretmem off), `EAGAIN` without room in RLIMIT_MEMLOCK.
pub(crate) fn probe_memfd_secret() -> io::Result<()> {
    // SAFETY: takes no pointer.
    let number = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let number = i32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    nix::unistd::ftruncate(&fd, 4096)?;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.as_raw_fd(), 0)
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `page` is the mapping of 4096 bytes that was just made, and nothing points into it.
    let unmapped = unsafe { libc::munmap(page, 4096) };
    if unmapped < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
