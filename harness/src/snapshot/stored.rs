//! Cores as crash handlers store them: systemd-coredump's, compressed by zstd, LZ4 or xz, and apport's reports, which hold a
//! compressed core in base64.
//!
//! They are told by what they hold, not by their names. Nothing is unpacked into a file or into memory as a whole: the core
//! goes by in pieces, in the order of the file, and how much of it may come is limited, as a few bytes can unpack to any
//! number. What the unpackers hold for themselves (a window, a block) is theirs, and not wiped when they are done.
//!
//! # Source
//!
//! systemd's coredump.c and compress.c; apport's problem_report.py; RFC 8878, RFC 1952 and the descriptions of the LZ4 frame
//! and xz formats for the numbers that files begin with.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use base64ct::{Base64, Encoding};
use zeroize::Zeroize;

/// KiB that unpacking xz may take: its highest level needs 65 MiB.
const XZ_MEMORY: u32 = 128 << 10;

/// Bytes of the window that unpacking zstd may take.
const ZSTD_WINDOW: u64 = 128 << 20;

/// Bytes of one line of a report: apport packs at most 1 MiB at a time, in base64.
const LINE: u64 = 8 << 20;

/// Bytes of a report before its core begins.
const FIELDS: u64 = 256 << 20;

/// How an ELF core begins, up to and with its type (elf(5)).
const START: usize = 18;

/// A core that is stored in a file of another form.
pub(crate) struct Stored<'a> {
    /// The core, unpacked as it is read.
    pub(crate) core: Box<dyn Read + 'a>,
    /// Whether the file also holds plain text of interest.
    pub(crate) is_report: bool,
}

/// Whether bytes begin an ELF core of any class (`e_type` 4 at byte 16).
pub(crate) fn begins_core(start: &[u8]) -> bool {
    start.len() >= START && start[..4] == *b"\x7fELF" && start[16..START] == [4, 0]
}

/// The core that a file holds in one of the known forms; `None` for any other file.
///
/// # Errors
///
/// When the file has such a form and cannot be unpacked, or cannot be read.
pub(crate) fn open(file: &File) -> io::Result<Option<Stored<'_>>> {
    let mut start = [0; 16];
    let read = file.read_at(&mut start, 0)?;
    let whole = At { file, at: 0 };
    if start[..read].starts_with(b"ProblemType:") {
        return match report(BufReader::with_capacity(64 << 10, whole))? {
            Some(encoded) => {
                let mut encoded = BufReader::new(encoded);
                let packed = encoded.fill_buf()?.to_vec();
                match form(&packed) {
                    Some(form) => stored(form.unpack(encoded)?, true),
                    None => Err(io::Error::other("the core in a crash report is compressed in an unknown way")),
                }
            }
            None => Ok(None),
        };
    }
    match form(&start[..read]) {
        Some(form) => stored(form.unpack(BufReader::with_capacity(64 << 10, whole))?, false),
        None => Ok(None),
    }
}

/// Looks at the first unpacked bytes, and gives them back.
fn stored<'a>(mut core: Box<dyn Read + 'a>, is_report: bool) -> io::Result<Option<Stored<'a>>> {
    let mut start = Vec::with_capacity(START);
    (&mut core).take(START as u64).read_to_end(&mut start)?;
    let is_core = begins_core(&start);
    let core = Box::new(io::Cursor::new(start).chain(core));
    if is_report && !is_core {
        return Err(io::Error::other("what a crash report calls a core is none"));
    }
    Ok(is_core.then_some(Stored { core, is_report }))
}

/// How a core is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Zstd,
    Lz4,
    Xz,
    Gzip,
}

fn form(start: &[u8]) -> Option<Form> {
    Some(match start {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Form::Zstd,
        [0x04, 0x22, 0x4d, 0x18, ..] => Form::Lz4,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Form::Xz,
        [0x1f, 0x8b, ..] => Form::Gzip,
        _ => return None,
    })
}

impl Form {
    fn unpack<'a>(self, packed: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Zstd => Box::new(Frames { decoder: Some(frame(packed)?) }),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY)),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        })
    }
}

type Zstd<R> = ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>;

fn frame<R: Read>(packed: R) -> io::Result<Zstd<R>> {
    Zstd::new_with_max_window_size(packed, ZSTD_WINDOW).map_err(io::Error::other)
}

/// All frames of a zstd file, one after the other.
struct Frames<R: Read> {
    /// `None` behind the last one.
    decoder: Option<Zstd<R>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let (mut packed, done) = self.decoder.take().expect("just used").into_parts();
            let said = done.get_checksum_from_data();
            if said.is_some() && said != done.get_calculated_checksum() {
                return Err(io::Error::other("its checksum is another"));
            }
            if !packed.fill_buf()?.is_empty() {
                self.decoder = Some(frame(packed)?);
            }
        }
        Ok(0)
    }
}

/// The file from an offset on, without its cursor.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Goes through the fields of a report to its core.
fn report<R: BufRead>(mut lines: R) -> io::Result<Option<Encoded<R>>> {
    let mut before = 0;
    loop {
        let line = line(&mut lines)?;
        before += line.len() as u64;
        if line == b"CoreDump: base64\n" {
            return Ok(Some(Encoded { lines, bytes: Vec::new(), done: 0, ended: false }));
        }
        if line.is_empty() {
            return Ok(None);
        }
        if before > FIELDS {
            return Err(io::Error::other("a crash report with too many fields before its core"));
        }
    }
}

fn line(lines: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    lines.take(LINE).read_until(b'\n', &mut line)?;
    if line.len() as u64 == LINE {
        return Err(io::Error::other(format!("a crash report with a line of more than {LINE} bytes")));
    }
    Ok(line)
}

/// Lines of base64, each of its own, begun by a space; the field ends where a line does not.
struct Encoded<R> {
    lines: R,
    /// The last line, decoded.
    bytes: Vec<u8>,
    done: usize,
    ended: bool,
}

impl<R> Drop for Encoded<R> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl<R: BufRead> Read for Encoded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.done == self.bytes.len() && !self.ended {
            let line = line(&mut self.lines)?;
            let Some(text) = line.strip_prefix(b" ") else {
                self.ended = true;
                break;
            };
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            self.bytes.zeroize();
            self.bytes.resize(text.len() / 4 * 3 + 3, 0);
            let length = Base64::decode(text, &mut self.bytes)
                .map_err(|_| io::Error::other("a crash report whose core is no base64"))?
                .len();
            self.bytes.truncate(length);
            self.done = 0;
        }
        let length = into.len().min(self.bytes.len() - self.done);
        into[..length].copy_from_slice(&self.bytes[self.done..self.done + length]);
        self.done += length;
        Ok(length)
    }
}
