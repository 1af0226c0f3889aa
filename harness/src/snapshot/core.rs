//! ELF cores: the kernel's own, or anyone's file of that form.
//!
//! Only headers are trusted, and they are checked against the file's length: what a header promises and the file
//! does not hold counts as refused, and what the file holds outside of all segments is read as plain bytes. Memory that the headers list without contents was left out by whoever wrote
//! the core; it is not part of what a reader of the core can get.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use findings::Coverage;
use object::LittleEndian;
use object::elf::{ET_CORE, FileHeader64, PT_LOAD, PT_NOTE, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use zeroize::{Zeroize, Zeroizing};

use super::CHUNK;
use super::holes::{edges, next_data};

/// Why the rest was not read.
const INTERRUPTED: &str = "interrupted";

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
pub fn read(file: &File, piece: impl FnMut(Part, u64, &[u8])) -> Result<Coverage, CoreError> {
    read_until(file, &AtomicBool::new(false), piece)
}

/// The same until the user wants to stop; what is left then counts as refused.
///
/// # Errors
///
/// As [`read`].
pub(crate) fn read_until(
    file: &File,
    interrupted: &AtomicBool,
    mut piece: impl FnMut(Part, u64, &[u8]),
) -> Result<Coverage, CoreError> {
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
        let (mut done, mut holes, mut data) = (0, 0, 0);
        while done < present && !interrupted.load(Ordering::Relaxed) {
            if done >= data {
                // Whoever wrote the core found nothing where it has a hole.
                let (begins, ends) = next_data(file, segment.offset + done, segment.offset + present);
                let hole = begins - segment.offset;
                data = ends - segment.offset;
                for (at, zeroes) in edges(done, hole) {
                    piece(part, segment.address.wrapping_add(at), zeroes);
                }
                holes += hole - done;
                done = hole;
                continue;
            }
            let step = buffer.len().min(usize::try_from(data - done).unwrap_or(usize::MAX));
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
        coverage.read = coverage.read.saturating_add(done - holes);
        coverage.never_populated = coverage.never_populated.saturating_add(holes);
        if done < present && interrupted.load(Ordering::Relaxed) {
            coverage.refuse(INTERRUPTED, present - done);
            done = present;
        }
        coverage.refuse("the core ends before its headers say", segment.length.saturating_sub(done));
    }
    buffer.zeroize();
    Ok(coverage)
}

/// Bytes that a stored core may unpack to.
const UNPACKED: u64 = 64 << 30;

/// Reads a core that comes as a stream, as [`read`] does one that lies in a file; each part in the order of the file.
///
/// # Errors
///
/// [`CoreError`]; a stream that breaks off behind its headers is no error but counts as refused.
pub(crate) fn read_stream(
    stream: &mut dyn Read,
    interrupted: &AtomicBool,
    piece: impl FnMut(Part, u64, &[u8]),
) -> Result<Coverage, CoreError> {
    read_stream_up_to(stream, UNPACKED, interrupted, piece)
}

fn read_stream_up_to(
    stream: &mut dyn Read,
    most: u64,
    interrupted: &AtomicBool,
    mut piece: impl FnMut(Part, u64, &[u8]),
) -> Result<Coverage, CoreError> {
    let start = size_of::<FileHeader64<LittleEndian>>() as u64;
    let mut headers = Zeroizing::new(Vec::new());
    stream.take(start).read_to_end(&mut headers)?;
    let elf = FileHeader64::<LittleEndian>::parse(&headers[..])?;
    let table = elf.e_phoff(elf.endian()?).saturating_add(u64::from(elf.e_phnum.get(LittleEndian)) * PROGRAM_HEADER);
    stream.take(table.min(HEADERS).saturating_sub(start)).read_to_end(&mut headers)?;
    let mut segments = segments(&headers)?;
    if segments.is_empty() {
        return Err(CoreError::Empty);
    }
    segments.sort_by_key(|(_, segment)| segment.offset);
    let mut parts = Parts { segments, number: 0, at: 0, seen: 0, coverage: Coverage::default() };
    for (_, segment) in &parts.segments {
        parts.coverage.listed = parts.coverage.listed.saturating_add(segment.length);
    }
    parts.hand_on(&headers, &mut piece);
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    let end = loop {
        if interrupted.load(Ordering::Relaxed) {
            break Some(INTERRUPTED.to_owned());
        }
        if parts.at >= most {
            break Some(format!("it unpacks to more than {most} bytes"));
        }
        match stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(read) => parts.hand_on(&buffer[..read], &mut piece),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(format!("it cannot be unpacked further: {error}")),
        }
    };
    Ok(parts.finish(end))
}

/// Bytes of one program header.
const PROGRAM_HEADER: u64 = size_of::<ProgramHeader64<LittleEndian>>() as u64;

/// The parts of a core that goes by.
struct Parts {
    /// Sorted by their offset in the file.
    segments: Vec<(Part, Segment)>,
    /// The first segment that does not end before `at`.
    number: usize,
    /// Bytes of the file so far.
    at: u64,
    /// Bytes of segments so far.
    seen: u64,
    coverage: Coverage,
}

impl Parts {
    fn hand_on(&mut self, mut bytes: &[u8], piece: &mut impl FnMut(Part, u64, &[u8])) {
        while !bytes.is_empty() {
            let behind = |(_, segment): &(Part, Segment)| segment.offset.saturating_add(segment.length) <= self.at;
            while self.segments.get(self.number).is_some_and(behind) {
                self.number += 1;
            }
            let here = self.segments.get(self.number);
            let (part, address, left) = match here {
                Some((part, segment)) if segment.offset <= self.at => {
                    let done = self.at - segment.offset;
                    (*part, segment.address.wrapping_add(done), segment.length - done)
                }
                Some((_, segment)) => (Part::Rest, self.at, segment.offset - self.at),
                None => (Part::Rest, self.at, u64::MAX),
            };
            let (now, rest) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            piece(part, address, now);
            match part {
                Part::Rest => self.coverage.listed = self.coverage.listed.saturating_add(now.len() as u64),
                Part::Notes | Part::Memory => self.seen += now.len() as u64,
            }
            self.coverage.read += now.len() as u64;
            self.at += now.len() as u64;
            bytes = rest;
        }
    }

    fn finish(mut self, why: Option<String>) -> Coverage {
        let promised = self.segments.iter().fold(0_u64, |sum, (_, segment)| sum.saturating_add(segment.length));
        let missing = promised - self.seen;
        match why {
            None => self.coverage.refuse("the core ends before its headers say", missing),
            Some(why) => {
                // Where all that was promised has come, what is behind it is unknown, and more than nothing.
                if missing == 0 {
                    self.coverage.listed = self.coverage.listed.saturating_add(1);
                }
                self.coverage.refuse(&why, missing.max(1));
            }
        }
        self.coverage
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A core with these stretches of memory: address, offset, length.
    fn core(stretches: &[(u64, u64, u64)], length: usize) -> Vec<u8> {
        let mut core = b"\x7fELF\x02\x01\x01".to_vec();
        core.resize(16, 0);
        core.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        core.extend([0_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
        core.extend([0; 4]);
        let count = u16::try_from(stretches.len()).unwrap();
        core.extend([64_u16, 56, count, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
        for (address, offset, length) in stretches {
            core.extend([1, 0, 0, 0, 6, 0, 0, 0]);
            core.extend([*offset, *address, 0, *length, *length, 4096].iter().flat_map(|word| word.to_le_bytes()));
        }
        core.extend((core.len()..length).map(|at| (at % 251) as u8));
        core
    }

    /// Every byte with its address, by part.
    fn collect(into: &mut Vec<(Part, u64, u8)>) -> impl FnMut(Part, u64, &[u8]) + '_ {
        |part, at, bytes| into.extend((at..).zip(bytes).map(|(at, byte)| (part, at, *byte)))
    }

    #[test]
    fn a_core_reads_alike_from_a_file_and_from_a_stream() {
        let core = core(&[(0x9000, 300, 100), (0x1000, 500, 1000), (0x5000, 1500, 200)], 2000);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&core, 0).unwrap();
        let (mut from_file, mut from_stream) = (Vec::new(), Vec::new());

        let by_file = read(&file, collect(&mut from_file)).unwrap();
        let by_stream = read_stream(&mut &core[..], &AtomicBool::new(false), collect(&mut from_stream)).unwrap();

        from_file.sort_unstable();
        from_stream.sort_unstable();
        assert_eq!(from_file, from_stream);
        assert_eq!((by_file, by_stream.adds_up()), (by_stream, true));
    }

    #[test]
    fn a_stream_that_breaks_off_is_refused_to_the_byte() {
        let core = core(&[(0x1000, 500, 1000)], 2000);

        let coverage = read_stream(&mut &core[..700], &AtomicBool::new(false), |_, _, _| {}).unwrap();

        assert_eq!((coverage.refused_bytes(), coverage.adds_up()), (800, true));
    }

    #[test]
    fn a_stream_without_end_is_left_at_the_limit() {
        let core = core(&[(0x1000, 500, 100)], 600);
        let mut endless = core.chain(io::repeat(0));

        let coverage = read_stream_up_to(&mut endless, 10 << 20, &AtomicBool::new(false), |_, _, _| {}).unwrap();

        assert!(coverage.refused[0].why.contains("unpacks to more"), "{coverage:?}");
        assert!(coverage.read < 11 << 20 && coverage.adds_up(), "{coverage:?}");
    }

    #[test]
    fn stretches_that_overlap_are_never_complete_in_a_stream() {
        let core = core(&[(0x1000, 500, 1000), (0x9000, 600, 1000)], 2000);

        let coverage = read_stream(&mut &core[..], &AtomicBool::new(false), |_, _, _| {}).unwrap();

        assert_eq!((coverage.refused_bytes(), coverage.adds_up()), (900, true));
    }

    #[test]
    fn an_interrupt_ends_a_core_in_a_file_and_in_a_stream_and_is_no_end_of_either() {
        let core = core(&[(0x1000, 500, 1000)], 2000);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&core, 0).unwrap();
        let stop = AtomicBool::new(true);

        let by_file = read_until(&file, &stop, |_, _, _| {}).unwrap();
        let by_stream = read_stream(&mut &core[..], &stop, |_, _, _| {}).unwrap();

        for coverage in [by_file, by_stream] {
            let why: Vec<_> = coverage.refused.iter().map(|share| share.why.as_str()).collect();
            assert_eq!((why, coverage.adds_up()), (vec![INTERRUPTED], true));
        }
    }
}
