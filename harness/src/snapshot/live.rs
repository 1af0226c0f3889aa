//! The memory of a stopped process, read through `/proc/PID/mem` whatever its permissions.
//!
//! Pages that were never populated are counted and not read: reading them would allocate them. memfd_secret memory
//! is tried by both outside ways, and if both are refused it is read by injection or counted as shielded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use findings::Coverage;
use zeroize::Zeroize;

use super::{CHUNK, PAGE, Region};
use crate::session::chain;
use crate::sys;
use crate::target::Target;

/// Whether memory that only the target can read is read by making it run a call of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Injection {
    /// The target stands where it can run one, and the row claims that the bytes are gone.
    Use,
    /// It cannot run any more, or the row claims only that no outsider can read the bytes.
    Leave,
}

/// What the pagemap says of a page.
///
/// # Source
///
/// Documentation/admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped, 58 guard region (Linux 6.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Populated,
    Never,
}

/// Reads every region of a process in ascending order and hands the bytes on in pieces.
///
/// Never fails: what cannot be read is counted as refused, with the reason.
pub(crate) fn read(
    target: &mut Target<'_>,
    process: usize,
    regions: &[Region],
    injection: Injection,
    mut piece: impl FnMut(u64, &[u8]),
) -> Coverage {
    let mut coverage = Coverage::default();
    let mut buffer = vec![0_u8; CHUNK];
    for region in regions {
        coverage.listed += region.length();
        if let Some(why) = region.exclusion() {
            coverage.exclude(why, region.length());
        } else if region.is_secret_memory() {
            secret_memory(target, process, region, injection, &mut coverage, &mut piece);
        } else {
            ordinary(target, process, region, &mut buffer, &mut coverage, &mut piece);
        }
    }
    buffer.zeroize();
    coverage
}

fn ordinary(
    target: &Target<'_>,
    process: usize,
    region: &Region,
    buffer: &mut [u8],
    coverage: &mut Coverage,
    piece: &mut impl FnMut(u64, &[u8]),
) {
    let files = &target.processes()[process];
    for (start, end, page) in runs(&files.pagemap, region) {
        match page {
            Page::Never => coverage.never_populated += end - start,
            Page::Populated => readable(&files.mem, start, end, buffer, coverage, piece),
        }
    }
}

/// Reads one run of populated pages; a refused page is counted and the next one tried.
fn readable(
    mem: &File,
    start: u64,
    end: u64,
    buffer: &mut [u8],
    coverage: &mut Coverage,
    piece: &mut impl FnMut(u64, &[u8]),
) {
    let mut at = start;
    while at < end {
        let length = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match mem.read_at(&mut buffer[..length], at) {
            Ok(read) if read > 0 => {
                piece(at, &buffer[..read]);
                coverage.read += read as u64;
                at += read as u64;
            }
            refused => {
                let to_page_end = (PAGE - at % PAGE).min(end - at);
                coverage.refuse(&why(refused), to_page_end);
                at += to_page_end;
            }
        }
    }
}

fn why(refused: io::Result<usize>) -> String {
    match refused {
        Ok(_) => "end of file".to_owned(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.kind().to_string(), |number| format!("{:?}", nix::errno::Errno::from_raw(number))),
    }
}

fn secret_memory(
    target: &mut Target<'_>,
    process: usize,
    region: &Region,
    injection: Injection,
    coverage: &mut Coverage,
    piece: &mut impl FnMut(u64, &[u8]),
) {
    if injection == Injection::Use {
        match target.read_by_injection(process, region.start, region.end, piece) {
            Ok(()) => {
                coverage.read += region.length();
                coverage.injected += region.length();
            }
            Err(error) => coverage.refuse(&chain(&error), region.length()),
        }
        return;
    }
    let descriptor = open_secret_descriptor(target);
    let files = &target.processes()[process];
    for page in (region.start..region.end).step_by(PAGE as usize) {
        let length = PAGE.min(region.end - page);
        let mut probe = [0_u8; 16];
        let by_file = files.mem.read_at(&mut probe, page);
        let by_call = sys::read_vm(files.pid, page, &mut probe);
        probe.zeroize();
        let refused =
            |read: &io::Result<usize>, with: i32| matches!(read, Err(error) if error.raw_os_error() == Some(with));
        match (&descriptor, refused(&by_file, libc::EIO) && refused(&by_call, libc::EFAULT)) {
            (Ok(false), true) => coverage.shielded += length,
            (Ok(true), _) => coverage.refuse("memfd_secret descriptor still open", length),
            (Err(_), _) => coverage.refuse("descriptors of the tree not readable", length),
            // Readable after all, or refused for another reason than what the memory is.
            (Ok(false), false) => {
                let mut buffer = [0; PAGE as usize];
                readable(&files.mem, page, page + length, &mut buffer, coverage, piece);
                buffer.zeroize();
            }
        }
    }
}

/// Whether any living process of the tree has a descriptor through which memfd_secret memory can be mapped.
fn open_secret_descriptor(target: &Target<'_>) -> io::Result<bool> {
    for process in target.processes().iter().filter(|process| !process.ended) {
        for entry in std::fs::read_dir(format!("/proc/{}/fd", process.pid))? {
            match std::fs::read_link(entry?.path()) {
                Ok(path) if path.to_string_lossy().starts_with("/secretmem") => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // closed meanwhile
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

/// The runs of populated and never populated pages of a region, in order, without a gap.
///
/// A shared mapping's page may be populated without this process's knowledge (another process, or a write through
/// its descriptor), so all its pages count as populated. What the pagemap does not tell counts as populated too:
/// a read then decides.
fn runs(pagemap: &File, region: &Region) -> Vec<(u64, u64, Page)> {
    if region.shared {
        return vec![(region.start, region.end, Page::Populated)];
    }
    let mut runs: Vec<(u64, u64, Page)> = Vec::new();
    let mut entries = vec![0_u8; 8 * 8192];
    let mut at = region.start;
    while at < region.end {
        let pages = usize::try_from((region.end - at).div_ceil(PAGE)).unwrap_or(usize::MAX).min(8192);
        let part = &mut entries[..pages * 8];
        let known = pagemap.read_exact_at(part, at / PAGE * 8).is_ok();
        for entry in part.chunks_exact(8) {
            let bits = u64::from_le_bytes(entry.try_into().unwrap_or_default());
            let (present, swapped, guard) = (bits >> 63 & 1 == 1, bits >> 62 & 1 == 1, bits >> 58 & 1 == 1);
            let page = if known && (guard || !(present || swapped)) { Page::Never } else { Page::Populated };
            match runs.last_mut() {
                Some((_, end, last)) if *last == page => *end += PAGE,
                _ => runs.push((at, at + PAGE, page)),
            }
            at += PAGE;
        }
    }
    runs
}
