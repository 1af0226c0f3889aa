//! The files that a target's code was mapped from: what they say of frames, symbols and lines.
//!
//! Addresses here are those of the file (ELF `p_vaddr`), which is what debug information uses.
//!
//! Of a file only those parts are read that somebody asks for, so that a program of any size takes little memory.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gimli::{BaseAddresses, EhFrame, LittleEndian, UnwindSection};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

use crate::snapshot::Region;

/// Where distributions put separate debug information, found by build id.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

/// Bytes of call frame information beyond which it is not read: that of the largest browsers is a tenth of it.
const FRAMES: u64 = 256 << 20;

/// Images that are kept open: more than a process maps.
const MOST: usize = 256;

/// The images that were asked for, each opened once.
#[derive(Default)]
pub(crate) struct Images {
    opened: RefCell<Opened>,
}

type Opened = BTreeMap<(PathBuf, Stamp), Option<Rc<Image>>>;

/// What tells a file from another that took its place: device, inode, length, time of the last change in ns.
type Stamp = (u64, u64, u64, i128);

fn stamp(meta: &Metadata) -> Option<Stamp> {
    let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    meta.is_file().then(|| (meta.dev(), meta.ino(), meta.len(), changed))
}

/// Whether a mapping's device is that of a file. Some file systems (overlayfs, btrfs) tell a mapping's device and a file's
/// by different numbers, of which one at least has no driver (major number 0): there the inode must do.
fn same_device(mapping: u64, file: u64) -> bool {
    let anonymous = |device| nix::sys::stat::major(device) == 0;
    mapping == file || anonymous(mapping) || anonymous(file)
}

/// One file with code.
pub(crate) struct Image {
    path: PathBuf,
    stamp: Stamp,
    file: File,
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
        let stamp = stamp(&path.metadata().ok()?)?;
        let mut opened = self.opened.borrow_mut();
        let key = (path.to_owned(), stamp);
        if !opened.contains_key(&key) {
            opened.retain(|(other, _), _| other != path); // the file that was there before
            if opened.len() >= MOST {
                opened.clear();
            }
        }
        opened.entry(key).or_insert_with(|| Image::open(path).filter(|image| image.stamp == stamp).map(Rc::new)).clone()
    }

    /// The image that a mapping shows, and the address in it that an address in the mapping means.
    ///
    /// `None` where the mapping is of no file, or the file at its path is another one by now.
    pub(super) fn behind(&self, region: &Region, address: u64) -> Option<(Rc<Image>, u64)> {
        if !region.name.starts_with('/') {
            return None;
        }
        let image = self.at(Path::new(&region.name))?;
        let (device, inode, ..) = image.stamp;
        if inode != region.inode || !same_device(region.device, device) {
            return None;
        }
        let offset = address.checked_sub(region.start)?.checked_add(region.offset)?;
        let address = image.segments.iter().find_map(|(start, length, at)| {
            let within = offset.checked_sub(*start).filter(|within| within < length)?;
            at.checked_add(within)
        })?;
        Some((image, address))
    }
}

impl Image {
    fn open(path: &Path) -> Option<Self> {
        let opened = File::open(path).ok()?;
        let stamp = stamp(&opened.metadata().ok()?)?;
        let (mut segments, mut eh_frame, mut bases) = (Vec::new(), Vec::new(), BaseAddresses::default());
        {
            let cache = ReadCache::new(&opened);
            let file = object::File::parse(&cache).ok()?;
            for segment in file.segments() {
                let (offset, length) = segment.file_range();
                segments.push((offset, length, segment.address()));
            }
            for section in file.sections() {
                let address = section.address();
                match section.name() {
                    Ok(".eh_frame") if section.size() <= FRAMES => {
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
            stamp,
            file: opened,
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
    pub(super) fn code(&self, address: u64, length: usize) -> Vec<u8> {
        let found = self.segments.iter().find_map(|(start, size, at)| {
            let within = address.checked_sub(*at).filter(|within| within < size)?;
            Some((start.checked_add(within)?, size - within))
        });
        let Some((start, size)) = found else { return Vec::new() };
        let mut code = vec![0; length.min(usize::try_from(size).unwrap_or(usize::MAX))];
        let read = self.file.read_at(&mut code, start).unwrap_or_default();
        code.truncate(read);
        code
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
        let symbols = self.symbols.get_or_init(|| symbols(&self.file));
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
            let cache = ReadCache::new(&self.file);
            let separate = object::File::parse(&cache).ok().and_then(|file| {
                let id = file.build_id().ok()??;
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                (hex.len() > 2).then(|| PathBuf::from(format!("{DEBUG_FILES}/{}/{}.debug", &hex[..2], &hex[2..])))
            });
            let paths = [Some(self.path.clone()), separate.filter(|path| path.is_file())];
            paths.into_iter().flatten().filter_map(|path| addr2line::Loader::new(path).ok()).collect()
        })
    }
}

fn symbols(file: &File) -> Vec<(u64, u64, String)> {
    let cache = ReadCache::new(file);
    let Ok(file) = object::File::parse(&cache) else { return Vec::new() };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn region(path: &Path) -> Region {
        crate::snapshot::parse_maps(File::open("/proc/self/maps").unwrap())
            .unwrap()
            .into_iter()
            .find(|region| Path::new(&region.name) == path && region.permissions.contains('x'))
            .expect("code of this program")
    }

    #[test]
    fn a_mapping_is_resolved_by_the_file_that_it_shows_and_by_no_other() {
        let path = std::env::current_exe().unwrap();
        let mapped = region(&path);
        let here = symbols as *const () as usize as u64;
        let images = Images::default();

        let (image, address) = images.behind(&mapped, here).expect("an image");
        assert!(image.symbol(address).is_some_and(|name| name.contains("symbols")));
        assert_eq!(image.code(address, 4).len(), 4);
        let other = Region { inode: mapped.inode + 1, ..mapped };
        assert!(images.behind(&other, here).is_none());
    }

    #[test]
    fn a_file_that_takes_anothers_place_is_read_anew_and_the_old_one_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let images = Images::default();

        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        assert!(images.at(&path).is_some());
        std::fs::write(&path, "no program").unwrap();

        assert!(images.at(&path).is_none());
        assert_eq!(images.opened.borrow().len(), 1);
    }

    #[test]
    fn a_device_tells_files_apart_unless_the_file_system_has_none() {
        let [disk, other, overlay] =
            [(8, 1), (8, 2), (0, 40)].map(|(major, minor)| nix::sys::stat::makedev(major, minor));

        assert!(same_device(disk, disk) && same_device(overlay, disk));
        assert!(!same_device(disk, other));
    }
}
