//! Asking the kernel which pages of a process hold something, without touching them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `PAGEMAP_SCAN` of linux/fs.h (Linux 6.7): `_IOWR('f', 16, struct pm_scan_arg)`, 96 bytes; not in `libc`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;

const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZEROES: u64 = 1 << 5;
/// Linux 6.15; unknown bits make the call fail with `EINVAL`.
const GUARD: u64 = 1 << 8;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h: neighbouring pages that are alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageRun {
    /// First address.
    pub(crate) start: u64,
    /// The address behind the last.
    pub(crate) end: u64,
    /// `PAGE_IS_*`, as far as they were asked for.
    pub(crate) categories: u64,
}

impl PageRun {
    /// Whether its pages are the kernel's page of zeroes: read once, never written.
    pub(crate) const fn is_zeroes(&self) -> bool {
        self.categories & ZEROES != 0
    }

    /// Whether its pages are guard markers (`MADV_GUARD_INSTALL`), behind which there is nothing.
    pub(crate) const fn is_guard(&self) -> bool {
        self.categories & GUARD != 0
    }
}

/// Lists runs of present or swapped pages between two addresses, ascending, into `found`.
///
/// Returns how many runs it filled in and the address up to which it looked. `guards` asks for guard markers as such;
/// without it they look like swapped pages.
///
/// # Errors
///
/// `ENOTTY` before Linux 6.7, `EINVAL` for `guards` before 6.15.
///
/// # Source
///
/// Documentation/admin-guide/mm/pagemap.rst, *Pagemap Scan IOCTL*.
pub(crate) fn scan_pages(
    pagemap: &File,
    start: u64,
    end: u64,
    guards: bool,
    found: &mut [PageRun],
) -> io::Result<(usize, u64)> {
    let guard = if guards { GUARD } else { 0 };
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start,
        end,
        vec: found.as_mut_ptr().expose_provenance() as u64,
        vec_len: found.len() as u64,
        category_anyof_mask: PRESENT | SWAPPED,
        return_mask: PRESENT | ZEROES | guard,
        ..ScanArg::default()
    };
    // SAFETY:
    // - `arg` is a `pm_scan_arg` of the size that it states, alive and ours for the whole call;
    // - `vec` points to `vec_len` regions of `found`, which is borrowed mutably until we return, and any bytes the
    //   kernel writes there make valid `PageRun`s;
    // - without a write-protect flag the call changes nothing in the other process.
    let filled = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
    Ok((filled.min(found.len()), arg.walk_end))
}

/// The address of three pages of our own: written, only read, never touched. They stay until the process ends.
#[cfg(test)]
pub(crate) fn pages_of_three_kinds() -> u64 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), 3 * 4096, access, kind, -1, 0) };
    assert_ne!(pages, libc::MAP_FAILED);
    // SAFETY: the mapping that was just made; the advice changes no content. A huge page would populate all three.
    let advised = unsafe { libc::madvise(pages, 3 * 4096, libc::MADV_NOHUGEPAGE) };
    assert!(advised == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)); // no huge pages here
    let first = pages.cast::<u8>();
    // SAFETY: the first byte of a mapping that is writable and that nobody else knows.
    unsafe { first.write_volatile(7) };
    let second = first.wrapping_add(4096);
    // SAFETY: the second page of that mapping, which is readable and filled with zeroes.
    unsafe { second.read_volatile() };
    pages.addr() as u64
}
