//! The mappings of a process, as the kernel lists them, and what kind of place an address in them is.
//!
//! Order is the kernel's and nothing is merged. Ranges are half-open and count bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use findings::Class;
use procfs::FromBufRead;
use procfs::process::{MMPermissions, MMapPath, MemoryMaps};

use crate::target::Process;

/// Bytes below the stack pointer that a function may use without moving it (System V ABI, x86-64).
const RED_ZONE: u64 = 128;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first address.
    pub start: u64,
    /// The address behind its last.
    pub end: u64,
    /// Permissions as the kernel writes them (`rw-p`).
    pub permissions: String,
    /// The file's path or the kernel's name in brackets; empty for anonymous memory.
    pub name: String,
    /// Whether other processes may share its pages (`s`).
    pub shared: bool,
    /// Offset in the backing file at which it begins, in bytes.
    pub offset: u64,
    /// Device of the backing file, as `stat` numbers it; 0 for none.
    pub device: u64,
    /// Inode of the backing file, 0 for none.
    pub inode: u64,
}

/// Why a listing of mappings could not be had.
#[derive(Debug, thiserror::Error)]
#[error("read the target's mappings")]
pub struct MapsError {
    /// Why.
    #[from]
    source: procfs::ProcError,
}

impl From<std::io::Error> for MapsError {
    fn from(error: std::io::Error) -> Self {
        Self { source: error.into() }
    }
}

/// The mappings of a stopped process.
///
/// # Errors
///
/// [`MapsError`] when the listing cannot be read or a line of it cannot be understood; no line is skipped.
///
/// # Source
///
/// proc_pid_maps(5).
pub(crate) fn regions(process: &Process) -> Result<Vec<Region>, MapsError> {
    let mut listing: &File = &process.maps;
    listing.seek(SeekFrom::Start(0))?;
    parse(listing)
}

pub(crate) fn parse(listing: impl Read) -> Result<Vec<Region>, MapsError> {
    let maps = MemoryMaps::from_buf_read(BufReader::new(listing))?;
    Ok(maps
        .into_iter()
        .map(|map| Region {
            start: map.address.0,
            end: map.address.1,
            permissions: map.perms.as_str().to_owned(),
            name: name(&map.pathname),
            shared: map.perms.contains(MMPermissions::SHARED),
            offset: map.offset,
            device: device(map.dev),
            inode: map.inode,
        })
        .collect())
}

fn device((major, minor): (i32, i32)) -> u64 {
    libc::makedev(major.cast_unsigned(), minor.cast_unsigned())
}

fn name(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".to_owned(),
        MMapPath::Stack => "[stack]".to_owned(),
        MMapPath::TStack(task) => format!("[stack:{task}]"),
        MMapPath::Vdso => "[vdso]".to_owned(),
        MMapPath::Vvar => "[vvar]".to_owned(),
        MMapPath::Vsyscall => "[vsyscall]".to_owned(),
        MMapPath::Rollup => "[rollup]".to_owned(),
        MMapPath::Anonymous => String::new(),
        MMapPath::Vsys(key) => format!("/SYSV{key:08x}"),
        MMapPath::Other(other) => format!("[{}]", other.trim_matches(['[', ']'])),
    }
}

impl Region {
    /// Bytes in it.
    pub const fn length(&self) -> u64 {
        self.end - self.start
    }

    /// Whether an address lies in it.
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether it is memory of a `memfd_secret(2)` descriptor.
    pub fn is_secret_memory(&self) -> bool {
        self.name.starts_with("/secretmem")
    }

    /// Whether nothing but memory lies behind it: no disk has a copy, and a read of what nobody touched allocates it.
    pub(crate) fn is_memory_alone(&self) -> bool {
        let name = self.name.as_str();
        name.is_empty()
            || name.starts_with("[anon")
            || name.starts_with("/memfd:")
            || name.starts_with("/SYSV")
            || name.starts_with("/dev/zero")
            || name.starts_with("/dev/shm/")
    }

    /// Why its bytes are not looked at: the closed list of kernel data pages and devices, which hold nothing that
    /// the process can write, or nothing that may be read without effect. `None` for everything else.
    ///
    /// A device is told by what its path names for the process, not by the path: anything can lie in `/dev`.
    pub(crate) fn exclusion(&self, process: &Process) -> Option<&'static str> {
        self.kernel_data().or_else(|| self.is_device(process).then_some("device mapping"))
    }

    fn kernel_data(&self) -> Option<&'static str> {
        ["[vvar]", "[vvar_vclock]", "[vsyscall]"].into_iter().find(|name| self.name == *name)
    }

    fn is_device(&self, process: &Process) -> bool {
        // A private mapping's written pages are the process's own memory, and so is all of /dev/zero (zero(4)).
        // Unlinked, unknown or out of reach: it is read, and what a read refuses is counted.
        self.shared
            && self.name.starts_with('/')
            && !self.name.starts_with("/dev/zero")
            && std::fs::metadata(format!("/proc/{}/root{}", process.pid, self.name)).is_ok_and(|meta| {
                let kind = meta.file_type();
                meta.ino() == self.inode && (kind.is_char_device() || kind.is_block_device())
            })
    }

    /// What kind of place an address in this mapping is.
    ///
    /// `stacks` are the stack pointers of all threads of the process; of them those of the first one's stack matter here,
    /// which has a name. [`super::Places`] knows more.
    pub(super) fn class(&self, address: u64, initial: Option<&InitialStack>, stacks: &[u64]) -> Class {
        if self.is_secret_memory() {
            return Class::SecretMemory;
        }
        match self.name.as_str() {
            "[heap]" => Class::Heap,
            "[vdso]" => Class::Vdso,
            "[stack]" => {
                let pointer = stacks.iter().copied().find(|pointer| self.contains(*pointer));
                if let Some(class) = initial.and_then(|initial| initial.class(address)) {
                    return class;
                }
                live_or_dead(address, pointer)
            }
            "" if !self.shared => Class::Anonymous,
            name if name.starts_with("[anon") => Class::Anonymous,
            _ if self.shared => Class::Shared,
            _ => Class::File,
        }
    }
}

/// A stack at or above its pointer, less what a function may use below it, or beneath.
pub(super) fn live_or_dead(address: u64, pointer: Option<u64>) -> Class {
    match pointer {
        Some(pointer) if address < pointer.saturating_sub(RED_ZONE) => Class::DeadStack,
        _ => Class::Stack,
    }
}

/// Where the kernel put the arguments and the environment when it started the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialStack {
    args: (u64, u64),
    environment: (u64, u64),
}

impl InitialStack {
    /// Asks the kernel. `None` when it does not say (it hides the addresses from those who may not trace).
    ///
    /// # Source
    ///
    /// proc_pid_stat(5), fields 48 to 51.
    pub(crate) fn of(process: &Process) -> Option<Self> {
        let stat = procfs::process::Process::new(process.pid.as_raw()).ok()?.stat().ok()?;
        let known = |start: Option<u64>, end: Option<u64>| Some((start?, end?)).filter(|(start, _)| *start != 0);
        Some(Self { args: known(stat.arg_start, stat.arg_end)?, environment: known(stat.env_start, stat.env_end)? })
    }

    fn class(&self, address: u64) -> Option<Class> {
        let within = |(start, end): (u64, u64)| start <= address && address < end;
        if within(self.args) {
            return Some(Class::Argv);
        }
        if within(self.environment) {
            return Some(Class::Environ);
        }
        (address >= self.environment.1).then_some(Class::Auxv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0 
7f0000001000-7f0000002000 rw-s 00000000 00:0f 7                          /secretmem (deleted)
7f0000002000-7f0000003000 r--s 00000000 00:06 9                          /dev/dri/card0
7f0000003000-7f0000004000 rw-s 00000000 00:06 9                          /dev/shm/segment
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7ffc000f0000-7ffc000f4000 r--p 00000000 00:00 0                          [vvar]
7ffc000f4000-7ffc000f6000 r--p 00000000 00:00 0                          [vvar_vclock]
7ffc000f6000-7ffc000f8000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn every_line_becomes_a_region_in_the_kernels_order() {
        let regions = parse(LISTING.as_bytes()).unwrap();

        assert_eq!(regions.len(), LISTING.lines().count());
        assert!(regions.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(regions[1].permissions, "---p");
        assert!(regions[2].is_secret_memory() && regions[2].shared);
    }

    #[test]
    fn only_the_closed_list_is_excluded() {
        let excluded: Vec<_> = parse(LISTING.as_bytes()).unwrap().iter().filter_map(Region::kernel_data).collect();

        assert_eq!(excluded, ["[vvar]", "[vvar_vclock]", "[vsyscall]"]);
    }

    #[test]
    fn a_listing_that_breaks_off_is_refused() {
        assert!(parse(&LISTING.as_bytes()[..30]).is_err());
    }

    #[test]
    fn what_lies_below_the_red_zone_is_dead_stack() {
        let regions = parse(LISTING.as_bytes()).unwrap();
        let pointer = 0x7ffc_0001_0000;

        let class = |address| regions[5].class(address, None, &[pointer]);

        assert_eq!(class(pointer - 129), Class::DeadStack);
        assert_eq!(class(pointer - 128), Class::Stack);
        assert_eq!(class(pointer), Class::Stack);
    }
}
