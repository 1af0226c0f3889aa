//! Pages of a shared mapping that the process itself has not touched: others may have.
//!
//! Reading them through the process would allocate every page that nobody has touched either. The file behind the
//! mapping knows which those are (`SEEK_DATA`), and reading it leaves the process as it is.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::holes::next_data;
use super::{PAGE, Region};
use crate::target::Process;

/// Bytes of shared memory that are read through the process where the file behind it cannot be opened: the pages that
/// this allocates are no more than these.
const SMALL: u64 = 64 << 20;

/// Why shared memory was not read.
pub(super) const WOULD_ALLOCATE: &str =
    "shared memory that a read would allocate (reading what lies behind it needs CAP_CHECKPOINT_RESTORE)";

/// How the untouched pages of a shared mapping can be read.
pub(super) enum Backing {
    /// Through the file behind it.
    File(BackingFile),
    /// Only through the process, which may allocate a little.
    Untold,
    /// Not without allocating much.
    WouldAllocate,
}

/// The file behind a shared mapping.
pub(super) struct BackingFile {
    file: File,
    /// Bytes in it.
    length: u64,
    /// Add this to an address to get an offset in the file; wraps.
    shift: u64,
}

/// Opens what lies behind a shared mapping.
///
/// # Source
///
/// proc_pid_map_files(5): opening needs CAP_CHECKPOINT_RESTORE since Linux 5.9.
pub(super) fn open(process: &Process, region: &Region) -> Backing {
    let path = format!("/proc/{}/map_files/{:x}-{:x}", process.pid, region.start, region.end);
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    match opened.and_then(|file| Ok((file.metadata()?, file))) {
        Ok((meta, file)) if meta.is_file() => {
            Backing::File(BackingFile { file, length: meta.len(), shift: region.offset.wrapping_sub(region.start) })
        }
        _ if region.is_memory_alone() && region.length() > SMALL => Backing::WouldAllocate,
        _ => Backing::Untold,
    }
}

impl BackingFile {
    /// The next bytes between two addresses that the file holds: where they begin and end, in whole pages. Both are
    /// `end` when there are none.
    ///
    /// What cannot be asked counts as data: a read then decides.
    pub(super) fn next_data(&self, at: u64, end: u64) -> (u64, u64) {
        let offset = at.wrapping_add(self.shift);
        let Some(behind) = offset.checked_add(end - at) else { return (at, end) };
        let (data, hole) = next_data(&self.file, offset, behind);
        let in_pages = |to: u64| (to - offset).next_multiple_of(PAGE).min(end - at);
        (at + (data - offset) / PAGE * PAGE, at + in_pages(hole))
    }

    /// Reads whole pages at an address and returns how many bytes came, 0 where a page is not whole or not readable.
    ///
    /// Behind the end of the file the last page can hold what was written to a mapping of it; only the process shows
    /// that.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let offset = at.wrapping_add(self.shift);
        let whole = (self.length / PAGE * PAGE).saturating_sub(offset);
        let length = into.len().min(usize::try_from(whole).unwrap_or(usize::MAX));
        self.file.read_at(&mut into[..length], offset).map_or(0, |read| read / PAGE as usize * PAGE as usize)
    }
}
