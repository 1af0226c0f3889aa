//! The files that a target's code was mapped from: what they say of frames, symbols and lines.
//!
//! Addresses here are those of the file (ELF `p_vaddr`), which is what debug information uses.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gimli::{BaseAddresses, EhFrame, LittleEndian, UnwindSection};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::snapshot::Region;

/// Where distributions put separate debug information, found by build id.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

/// Bytes of a file beyond which it is not read: no program that is traced here comes near.
const LARGEST: u64 = 2 << 30;

/// The images that were asked for, each opened once.
#[derive(Default)]
pub(crate) struct Images {
    opened: RefCell<Opened>,
}

type Opened = BTreeMap<(PathBuf, Stamp), Option<Rc<Image>>>;

/// What tells a file from another that took its place: inode, length, time of the last change in ns.
type Stamp = (u64, u64, i128);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = path.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= LARGEST)?;
    let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Some((meta.ino(), meta.len(), changed))
}

/// One file with code.
pub(crate) struct Image {
    path: PathBuf,
    inode: u64,
    data: Vec<u8>,
    /// Offset in the file, length in the file, address.
    segments: Vec<(u64, u64, u64)>,
    eh_frame: Vec<u8>,
    bases: BaseAddresses,
    /// First address, address behind the last, name as the file has it; sorted.
    symbols: OnceCell<Vec<(u64, u64, String)>>,
    lines: OnceCell<Vec<addr2line::Loader>>,
}

pub(super) type Reader<'a> = gimli::EndianSlice<'a, LittleEndian>;
pub(super) type Fde<'a> = gimli::FrameDescriptionEntry<Reader<'a>>;

impl Images {
    /// The image at a path, if it can be read.
    pub(super) fn at(&self, path: &Path) -> Option<Rc<Image>> {
        let stamp = stamp(path)?;
        let mut opened = self.opened.borrow_mut();
        opened.entry((path.to_owned(), stamp)).or_insert_with(|| Image::open(path, stamp.0).map(Rc::new)).clone()
    }

    /// The image that a mapping shows, and the address in it that an address in the mapping means.
    ///
    /// `None` where the mapping is of no file, or the file at its path is another one by now.
    pub(super) fn behind(&self, region: &Region, address: u64) -> Option<(Rc<Image>, u64)> {
        if !region.name.starts_with('/') {
            return None;
        }
        let image = self.at(Path::new(&region.name)).filter(|image| image.inode == region.inode)?;
        let offset = address.checked_sub(region.start)?.checked_add(region.offset)?;
        let address = image.segments.iter().find_map(|(start, length, at)| {
            let within = offset.checked_sub(*start).filter(|within| within < length)?;
            at.checked_add(within)
        })?;
        Some((image, address))
    }
}

impl Image {
    fn open(path: &Path, inode: u64) -> Option<Self> {
        let data = std::fs::read(path).ok()?;
        let (mut segments, mut eh_frame, mut bases) = (Vec::new(), Vec::new(), BaseAddresses::default());
        {
            let file = object::File::parse(data.as_slice()).ok()?;
            for segment in file.segments() {
                let (offset, length) = segment.file_range();
                segments.push((offset, length, segment.address()));
            }
            for section in file.sections() {
                let address = section.address();
                match section.name() {
                    Ok(".eh_frame") => {
                        eh_frame = section.uncompressed_data().ok()?.into_owned();
                        bases = bases.set_eh_frame(address);
                    }
                    Ok(".text") => bases = bases.set_text(address),
                    Ok(".got") => bases = bases.set_got(address),
                    _ => {}
                }
            }
        }
        Some(Self {
            path: path.to_owned(),
            inode,
            data,
            segments,
            eh_frame,
            bases,
            symbols: OnceCell::new(),
            lines: OnceCell::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of code at an address, at most `length`.
    pub(super) fn code(&self, address: u64, length: usize) -> &[u8] {
        let found = self.segments.iter().find_map(|(start, size, at)| {
            let within = address.checked_sub(*at).filter(|within| within < size)?;
            usize::try_from(start.checked_add(within)?).ok()
        });
        let rest = found.and_then(|start| self.data.get(start..)).unwrap_or_default();
        &rest[..rest.len().min(length)]
    }

    /// The call frame information, and the addresses that it is relative to.
    pub(super) fn frames(&self) -> (EhFrame<Reader<'_>>, &BaseAddresses) {
        let mut frames = EhFrame::new(&self.eh_frame, LittleEndian);
        frames.set_address_size(8);
        (frames, &self.bases)
    }

    /// The frame description of the function around an address.
    pub(super) fn fde(&self, address: u64) -> Option<Fde<'_>> {
        let (frames, bases) = self.frames();
        frames.fde_for_address(bases, address, EhFrame::cie_from_offset).ok()
    }

    /// The symbol whose extent holds an address, and how far into it that is. A symbol that merely comes before it is
    /// none: in a stripped file that would be some other function's.
    pub(super) fn symbol(&self, address: u64) -> Option<&str> {
        let symbols = self.symbols.get_or_init(|| symbols(&self.data));
        let before = symbols.partition_point(|(start, _, _)| *start <= address);
        symbols[..before]
            .iter()
            .rev()
            .take(8) // aliases of one function, and a function that begins within another
            .find(|(_, end, _)| address < *end)
            .map(|(_, _, name)| name.as_str())
    }

    /// Line tables: the file's own, then those of its separate debug file.
    pub(super) fn lines(&self) -> &[addr2line::Loader] {
        self.lines.get_or_init(|| {
            let separate = object::File::parse(self.data.as_slice()).ok().and_then(|file| {
                let id = file.build_id().ok()??;
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                (hex.len() > 2).then(|| PathBuf::from(format!("{DEBUG_FILES}/{}/{}.debug", &hex[..2], &hex[2..])))
            });
            let paths = [Some(self.path.clone()), separate.filter(|path| path.is_file())];
            paths.into_iter().flatten().filter_map(|path| addr2line::Loader::new(path).ok()).collect()
        })
    }
}

fn symbols(data: &[u8]) -> Vec<(u64, u64, String)> {
    let Ok(file) = object::File::parse(data) else { return Vec::new() };
    let mut symbols: Vec<_> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .filter_map(|symbol| {
            let end = symbol.address().checked_add(symbol.size())?;
            Some((symbol.address(), end, symbol.name().ok()?.to_owned()))
        })
        .collect();
    symbols.sort();
    symbols.dedup();
    symbols
}
