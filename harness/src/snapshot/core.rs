//! ELF cores: the kernel's own, or anyone's file of that form.
//!
//! Only headers are trusted, and they are checked against the file's length: what a header promises and the file
//! does not hold counts as refused, and what the file holds outside of all segments is read as plain bytes. Memory that the headers list without contents was left out by whoever wrote
//! the core; it is not part of what a reader of the core can get.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use findings::Coverage;
use object::LittleEndian;
use object::elf::{ET_CORE, FileHeader64, PT_LOAD, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use zeroize::Zeroize;

use super::CHUNK;

/// Bytes of headers that are read at most: 65 535 program headers of 56 bytes, and the file header.
const HEADERS: u64 = 4 * 1024 * 1024;

/// Why a file is no core that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The file cannot be opened or its headers cannot be read.
    #[error("read the core")]
    Read {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// It is not a 64-bit little-endian ELF file, or its headers lie outside it.
    #[error("the core's headers are not those of a 64-bit ELF file")]
    Headers {
        /// What the parser objects to.
        #[from]
        source: object::read::Error,
    },
    /// It is an ELF file of another kind.
    #[error("an ELF file, but no core")]
    Kind,
    /// It lists nothing that could be read.
    #[error("the core holds no memory and no notes")]
    Empty,
}

/// Part of a core file: where its bytes lie in the file and at which address they stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    length: u64,
    /// Notes have no address; they get their offset in the file.
    address: u64,
}

/// Reads notes and memory of a core, notes first, and hands the bytes on in pieces.
///
/// Memory comes in ascending order of its address, notes and the rest of the file by their offset, each part as one
/// ascending sequence: `piece` is told which it gets.
///
/// # Errors
///
/// [`CoreError`]; a core that is shorter than its headers say is no error but counts as refused.
///
/// # Source
///
/// elf(5), core(5).
pub fn read(file: &File, mut piece: impl FnMut(Part, u64, &[u8])) -> Result<Coverage, CoreError> {
    let length = file.metadata()?.len();
    let mut headers = vec![0; usize::try_from(length.min(HEADERS)).unwrap_or(0)];
    file.read_exact_at(&mut headers, 0)?;
    let segments = segments(&headers);
    headers.zeroize(); // its tail is memory of the target already
    let mut segments = segments?;
    if segments.is_empty() {
        return Err(CoreError::Empty);
    }
    segments.extend(gaps(&segments, length));
    let mut coverage = Coverage::default();
    let mut buffer = vec![0; CHUNK];
    // No honest core lists a byte of the file twice; a hostile one could make us read it 65 535 times.
    let mut budget = length;
    for (part, segment) in segments {
        coverage.listed = coverage.listed.saturating_add(segment.length);
        let present = segment.length.min(length.saturating_sub(segment.offset)).min(budget);
        budget -= present;
        let mut done = 0;
        while done < present {
            let step = buffer.len().min(usize::try_from(present - done).unwrap_or(usize::MAX));
            match file.read_at(&mut buffer[..step], segment.offset + done) {
                Ok(read) if read > 0 => {
                    piece(part, segment.address.wrapping_add(done), &buffer[..read]);
                    done += read as u64;
                }
                Ok(_) => break,
                Err(error) => {
                    buffer.zeroize();
                    return Err(error.into());
                }
            }
        }
        coverage.read = coverage.read.saturating_add(done);
        coverage.refuse("the core ends before its headers say", segment.length.saturating_sub(done));
    }
    buffer.zeroize();
    Ok(coverage)
}

/// Which part of a core some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Notes: registers, process facts, the auxiliary vector.
    Notes,
    /// Memory, at the address where it stood.
    Memory,
    /// Bytes of the file that belong to no segment: headers, padding, whatever else was put there.
    Rest,
}

/// The segments that have bytes in the file, sorted by part and address. Overlaps are kept: each is read.
fn segments(headers: &[u8]) -> Result<Vec<(Part, Segment)>, CoreError> {
    let elf = FileHeader64::<LittleEndian>::parse(headers)?;
    let endian = elf.endian()?;
    if elf.e_type(endian) != ET_CORE {
        return Err(CoreError::Kind);
    }
    let mut segments = Vec::new();
    for header in elf.program_headers(endian, headers)? {
        let (offset, length, address) = extent(header);
        match header.p_type(endian) {
            PT_NOTE => segments.push((Part::Notes, Segment { offset, length, address: offset })),
            PT_LOAD => segments.push((Part::Memory, Segment { offset, length, address })),
            _ => {}
        }
    }
    segments.retain(|(_, segment)| segment.length > 0);
    segments.sort_by_key(|(part, segment)| (*part, segment.address, segment.offset));
    Ok(segments)
}

/// What lies between the segments of a file of that length.
fn gaps(segments: &[(Part, Segment)], length: u64) -> Vec<(Part, Segment)> {
    let mut covered: Vec<(u64, u64)> =
        segments.iter().map(|(_, part)| (part.offset, part.offset.saturating_add(part.length))).collect();
    covered.sort_unstable();
    covered.push((length, length));
    let mut gaps = Vec::new();
    let mut at = 0;
    for (start, end) in covered {
        if start.min(length) > at {
            let gap = Segment { offset: at, length: start.min(length) - at, address: at };
            gaps.push((Part::Rest, gap));
        }
        at = at.max(end);
    }
    gaps
}

fn extent(header: &ProgramHeader64<LittleEndian>) -> (u64, u64, u64) {
    let endian = LittleEndian;
    (header.p_offset(endian), header.p_filesz(endian), header.p_vaddr(endian))
}

/// The core that the kernel left in a directory that only one target used, if there is one.
///
/// # Errors
///
/// When the directory cannot be listed or the file cannot be opened. A symbolic link is not followed.
pub(crate) fn find(dir: &Path) -> io::Result<Option<(PathBuf, File)>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")) {
            // A target can leave a pipe of that name, which nobody writes to.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = File::options().read(true).custom_flags(flags).open(&path)?;
            if file.metadata()?.is_file() {
                return Ok(Some((path, file)));
            }
        }
    }
    Ok(None)
}
