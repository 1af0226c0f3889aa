//! An ELF core of a process that stands still, written by us.
//!
//! ```text
//! file header ─ program headers ─ memory, a stretch for each mapping ─ notes
//! ```
//!
//! Memory goes through one buffer into the file, page by page; a page of zeroes stays a hole, so the file is as sparse as
//! the process. What cannot be read is a segment without contents and, to the byte, part of a note of our own, so that
//! whoever searches the core later knows what it lacks. Notes are those of the kernel's cores, in its order (core(5),
//! fs/binfmt_elf.c), and debuggers read them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use findings::{Coverage, Share};
use nix::unistd::Pid;
use object::LittleEndian;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_SYSV, EM_X86_64, ET_CORE, EV_CURRENT, FileHeader64, Ident, NT_AUXV,
    NT_FILE, NT_PRFPREG, NT_PRPSINFO, NT_PRSTATUS, NT_X86_XSTATE, NoteHeader32, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE,
    ProgramFlags, ProgramHeader64,
};
use object::endian::{U16, U32, U64};
use object::pod::bytes_of;
use zeroize::Zeroizing;

use super::notes::{ACCOUNT, Account, GENERAL, OWNER};
use super::{Injection, MapsError, PAGE, Region, read_live, regions};
use crate::sys;
use crate::target::{Process, Target};

/// Segments that a core can have without the detour over a section header, one of them the notes.
const SEGMENTS: usize = 65_534;

/// Bytes of a command line that go into the note about the process (linux/elfcore.h, *ELF_PRARGSZ*).
const COMMAND_LINE: usize = 80;

/// Which mappings a core gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All that can be read.
    All,
    /// Those that the kernel would write: no `MADV_DONTDUMP`, and as the process's coredump filter says.
    LikeTheKernel,
}

/// Why no core could be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The mappings cannot be listed.
    #[error("list what to write")]
    Maps {
        /// Why.
        #[from]
        source: MapsError,
    },
    /// What the kernel would write cannot be known.
    #[error("ask what the kernel would write")]
    Filter {
        /// Why.
        source: procfs::ProcError,
    },
    /// There are too many mappings for one core.
    #[error("{count} mappings; a core has room for {SEGMENTS}")]
    Segments {
        /// How many.
        count: usize,
    },
    /// The file cannot be written.
    #[error("write the core")]
    Write {
        /// Why.
        #[from]
        source: io::Error,
    },
}

/// What a core of our own writing holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dumped {
    /// Threads whose registers it holds.
    pub(crate) threads: u32,
    /// Bytes of the file, holes included.
    pub(crate) length: u64,
    /// Memory; `read` is what was written.
    pub(crate) coverage: Coverage,
    /// Threads whose registers could not be read, in words.
    pub(crate) troubles: Vec<String>,
}

/// A mapping's place in the file.
struct Segment {
    start: u64,
    end: u64,
    permissions: String,
    /// Where its bytes lie, and how many there are: all or none.
    offset: u64,
    stored: u64,
}

/// Writes a core of a process that stands still into an empty file.
///
/// # Errors
///
/// [`DumpError`]; what cannot be read of the process is no error but part of the account.
pub(crate) fn write(target: &mut Target<'_>, process: usize, extent: Extent, file: &File) -> Result<Dumped, DumpError> {
    let all = regions(&target.processes()[process])?;
    let wanted = match extent {
        Extent::All => all.clone(),
        Extent::LikeTheKernel => like_the_kernel(target.processes()[process].pid, &all)?,
    };
    if all.len() + 1 > SEGMENTS {
        return Err(DumpError::Segments { count: all.len() });
    }
    let segments = lay(&target.processes()[process], &all, &wanted);
    let headers = header_length(segments.len());
    let behind = segments.iter().map(|segment| segment.offset + segment.stored).max().unwrap_or(headers);

    let mut dumped = Dumped::default();
    let mut notes = Zeroizing::new(Vec::new());
    registers_and_facts(target, process, &all, &mut notes, &mut dumped);
    let (mut failed, mut lost) = (None, 0);
    dumped.coverage = read_live(target, process, &wanted, Injection::Leave, |at, bytes| {
        if failed.is_none() {
            match put(file, &segments, at, bytes) {
                Ok(left) => lost += left,
                Err(error) => failed = Some(error),
            }
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    // What the kernel keeps from outsiders and yet let us read: there is no place for it in the file.
    let lost = lost.min(dumped.coverage.read);
    dumped.coverage.read -= lost;
    dumped.coverage.refuse("memfd_secret memory", lost);

    let mut account = Account { unread: dumped.coverage.refused.clone() };
    if dumped.coverage.shielded > 0 {
        account.unread.push(Share { why: "memfd_secret memory".to_owned(), bytes: dumped.coverage.shielded });
    }
    note(&mut notes, OWNER, ACCOUNT, &account.to_bytes());
    file.write_all_at(&headers_of(&segments, behind, notes.len() as u64), 0)?;
    file.write_all_at(&notes, behind)?;
    dumped.length = behind + notes.len() as u64;
    Ok(dumped)
}

fn header_length(segments: usize) -> u64 {
    let bytes = size_of::<FileHeader64<LittleEndian>>() + (segments + 1) * size_of::<ProgramHeader64<LittleEndian>>();
    (bytes as u64).next_multiple_of(PAGE)
}

/// Gives every mapping its place; those that are not wanted or cannot be read get none.
fn lay(process: &Process, all: &[Region], wanted: &[Region]) -> Vec<Segment> {
    let mut offset = header_length(all.len());
    let mut wanted = wanted.iter().peekable();
    all.iter()
        .map(|region| {
            let is_wanted = wanted.next_if(|wanted| wanted.start == region.start);
            let stored = match is_wanted {
                Some(part) if part.exclusion(process).is_none() && !part.is_secret_memory() => part.length(),
                _ => 0,
            };
            let segment = Segment {
                start: region.start,
                end: region.end,
                permissions: region.permissions.clone(),
                offset,
                stored,
            };
            offset += stored;
            segment
        })
        .collect()
}

/// Writes a piece of memory where it belongs and returns how many of its bytes have no place. Zeroes stay holes.
fn put(file: &File, segments: &[Segment], at: u64, bytes: &[u8]) -> io::Result<u64> {
    let number = segments.partition_point(|segment| segment.end <= at);
    let Some(segment) = segments.get(number).filter(|segment| segment.start <= at) else {
        return Ok(bytes.len() as u64);
    };
    let inside = bytes.len().min(usize::try_from(segment.end - at).unwrap_or(usize::MAX));
    let (bytes, behind) = bytes.split_at(inside);
    let left = if behind.is_empty() { 0 } else { put(file, segments, segment.end, behind)? };
    let place = at - segment.start;
    if place + bytes.len() as u64 > segment.stored {
        return Ok(left + bytes.len() as u64);
    }
    // In runs of pages: one write a page would cost more than the copy.
    let pages = bytes.chunks(PAGE as usize).map(|page| page.iter().all(|byte| *byte == 0));
    let (mut from, mut done) = (None, 0);
    for (page, empty) in bytes.chunks(PAGE as usize).zip(pages) {
        if empty {
            if let Some(from) = from.take() {
                file.write_all_at(&bytes[from..done], segment.offset + place + from as u64)?;
            }
        } else {
            from = from.or(Some(done));
        }
        done += page.len();
    }
    if let Some(from) = from {
        file.write_all_at(&bytes[from..], segment.offset + place + from as u64)?;
    }
    Ok(left)
}

fn headers_of(segments: &[Segment], notes_at: u64, notes: u64) -> Vec<u8> {
    let e = LittleEndian;
    let phentsize = size_of::<ProgramHeader64<LittleEndian>>();
    let header = FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: ELFOSABI_SYSV,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(e, ET_CORE),
        e_machine: U16::new(e, EM_X86_64),
        e_version: U32::new(e, 1),
        e_entry: U64::new(e, 0),
        e_phoff: U64::new(e, size_of::<FileHeader64<LittleEndian>>() as u64),
        e_shoff: U64::new(e, 0),
        e_flags: U32::new(e, object::elf::FileFlags(0)),
        e_ehsize: U16::new(e, u16::try_from(size_of::<FileHeader64<LittleEndian>>()).unwrap_or(0)),
        e_phentsize: U16::new(e, u16::try_from(phentsize).unwrap_or(0)),
        e_phnum: U16::new(e, u16::try_from(segments.len() + 1).unwrap_or(0)),
        e_shentsize: U16::new(e, 0),
        e_shnum: U16::new(e, 0),
        e_shstrndx: U16::new(e, object::elf::SymbolSection(0)),
    };
    let mut bytes = bytes_of(&header).to_vec();
    let mut push = |p_type, flags, offset, start, stored, length, align| {
        let header = ProgramHeader64 {
            p_type: U32::new(e, p_type),
            p_flags: U32::new(e, flags),
            p_offset: U64::new(e, offset),
            p_vaddr: U64::new(e, start),
            p_paddr: U64::new(e, 0),
            p_filesz: U64::new(e, stored),
            p_memsz: U64::new(e, length),
            p_align: U64::new(e, align),
        };
        bytes.extend_from_slice(bytes_of(&header));
    };
    push(PT_NOTE, ProgramFlags(0), notes_at, 0, notes, 0, 4);
    for segment in segments {
        let flag = |letter, flag: ProgramFlags| if segment.permissions.contains(letter) { flag.0 } else { 0 };
        let flags = ProgramFlags(flag('r', PF_R) | flag('w', PF_W) | flag('x', PF_X));
        push(PT_LOAD, flags, segment.offset, segment.start, segment.stored, segment.end - segment.start, PAGE);
    }
    bytes
}

/// The notes of a kernel's core: the first thread's, with what concerns the whole process, then the other threads'.
fn registers_and_facts(target: &Target<'_>, process: usize, all: &[Region], notes: &mut Vec<u8>, dumped: &mut Dumped) {
    let pid = target.processes()[process].pid;
    let mut threads = target.standing_threads(process);
    threads.sort_unstable_by_key(|thread| (*thread != pid, *thread));
    let facts = Facts::of(pid);
    let mut told = false;
    for thread in threads {
        let (general, floating) = match (sys::general_registers(thread), sys::float_registers(thread)) {
            (Ok(general), Ok(floating)) => (Zeroizing::new(general), Zeroizing::new(floating)),
            (Err(error), _) | (_, Err(error)) => {
                dumped.troubles.push(format!("registers of a thread: {error}"));
                continue;
            }
        };
        note(notes, "CORE", NT_PRSTATUS.0, &facts.status(thread, &general));
        if !std::mem::replace(&mut told, true) {
            note(notes, "CORE", NT_PRPSINFO.0, &facts.process());
            note(notes, "CORE", NT_AUXV.0, &facts.auxv);
            note(notes, "CORE", NT_FILE.0, &files(all));
        }
        note(notes, "CORE", NT_PRFPREG.0, &floating);
        match sys::vector_registers(thread).map(Zeroizing::new) {
            Ok(area) => note(notes, "LINUX", NT_X86_XSTATE.0, &area),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {} // no XSAVE here
            Err(error) => dumped.troubles.push(format!("vector registers of a thread: {error}")),
        }
        dumped.threads += 1;
    }
}

/// What the kernel tells of a process beside its memory. All of it may be absent: a debugger then knows less.
#[derive(Default)]
struct Facts {
    pid: i32,
    stat: Option<procfs::process::Stat>,
    user: (u32, u32),
    command_line: Vec<u8>,
    auxv: Vec<u8>,
}

impl Facts {
    fn of(pid: Pid) -> Self {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let process = procfs::process::Process::new(pid.as_raw()).ok();
        let status = process.as_ref().and_then(|process| process.status().ok());
        Self {
            pid: pid.as_raw(),
            stat: process.as_ref().and_then(|process| process.stat().ok()),
            user: status.map_or((0, 0), |status| (status.ruid, status.rgid)),
            command_line: read("cmdline"),
            auxv: read("auxv"),
        }
    }

    fn family(&self) -> [i32; 3] {
        self.stat.as_ref().map_or([0; 3], |stat| [stat.ppid, stat.pgrp, stat.session])
    }

    /// `struct elf_prstatus` (linux/elfcore.h).
    fn status(&self, thread: Pid, general: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut status = Zeroizing::new(vec![0; GENERAL.end + 8]);
        let [parent, group, session] = self.family();
        for (at, number) in [(32, thread.as_raw()), (36, parent), (40, group), (44, session), (GENERAL.end, 1)] {
            status[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let length = general.len().min(GENERAL.len());
        status[GENERAL][..length].copy_from_slice(&general[..length]);
        status
    }

    /// `struct elf_prpsinfo` (linux/elfcore.h).
    fn process(&self) -> Vec<u8> {
        let mut info = vec![0; 136];
        let letter = self.stat.as_ref().map_or('t', |stat| stat.state);
        info[1] = u8::try_from(letter).unwrap_or(b'.');
        info[16..20].copy_from_slice(&self.user.0.to_le_bytes());
        info[20..24].copy_from_slice(&self.user.1.to_le_bytes());
        let [parent, group, session] = self.family();
        for (at, number) in [(24, self.pid), (28, parent), (32, group), (36, session)] {
            info[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let name = self.stat.as_ref().map_or("", |stat| stat.comm.as_str()).as_bytes();
        let name = &name[..name.len().min(15)];
        info[40..40 + name.len()].copy_from_slice(name);
        let line = &self.command_line[..self.command_line.len().min(COMMAND_LINE - 1)];
        for (to, from) in info[56..].iter_mut().zip(line) {
            *to = if *from == 0 { b' ' } else { *from };
        }
        info
    }
}

/// The note of mapped files: how many, the unit of offsets, then start, end and offset of each, then their names.
fn files(all: &[Region]) -> Vec<u8> {
    let files: Vec<&Region> = all.iter().filter(|region| region.name.starts_with('/')).collect();
    let mut numbers = vec![files.len() as u64, PAGE];
    let mut names = Vec::new();
    for file in files {
        numbers.extend([file.start, file.end, file.offset / PAGE]);
        names.extend_from_slice(file.name.as_bytes());
        names.push(0);
    }
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.append(&mut names);
    bytes
}

/// Appends a note: lengths, type, the owner's name and the contents, both filled up to whole words.
fn note(notes: &mut Vec<u8>, owner: &str, kind: u32, contents: &[u8]) {
    let name = [owner.as_bytes(), &[0]].concat();
    let length = |bytes: &[u8]| U32::new(LittleEndian, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let header = NoteHeader32 {
        n_namesz: length(&name),
        n_descsz: length(contents),
        n_type: U32::new(LittleEndian, object::elf::NoteType(kind)),
    };
    let more = size_of_val(&header) + name.len() + contents.len() + 6;
    if notes.capacity() - notes.len() < more {
        // By hand, as a Vec that grows leaves what it held unwiped.
        let mut larger = Vec::with_capacity((notes.len() + more) * 2);
        larger.extend_from_slice(notes);
        zeroize::Zeroize::zeroize(notes);
        *notes = larger;
    }
    notes.extend_from_slice(bytes_of(&header));
    for part in [&name[..], contents] {
        notes.extend_from_slice(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// The parts of mappings that the kernel would write into a core now.
///
/// # Source
///
/// core(5), *Controlling which mappings are written to the core dump*; `vma_dump_size` of fs/coredump.c, Linux 6.18.
fn like_the_kernel(pid: Pid, all: &[Region]) -> Result<Vec<Region>, DumpError> {
    use procfs::process::VmFlags;
    let asked = procfs::process::Process::new(pid.as_raw()).and_then(|process| process.smaps());
    let told = asked.map_err(|source| DumpError::Filter { source })?;
    let filter = std::fs::read_to_string(format!("/proc/{pid}/coredump_filter")).ok();
    let filter = filter.and_then(|text| u32::from_str_radix(text.trim(), 16).ok()).unwrap_or(0x33);
    let asks = |bit: u32| filter >> bit & 1 == 1;
    let mut told = told.into_iter().peekable();
    let kept = |region: &Region| {
        while told.next_if(|map| map.address.0 < region.start).is_some() {}
        // What is not told is written: too much is searched rather than too little.
        let Some(map) = told.next_if(|map| map.address.0 == region.start) else { return Some(region.clone()) };
        let flags = map.extension.vm_flags;
        let written = map.extension.map.get("Anonymous").is_some_and(|bytes| *bytes > 0);
        let (private_bit, shared_bit) = if flags.contains(VmFlags::HT) { (5, 6) } else { (0, 1) };
        let whole = if region.name == "[vdso]" {
            true
        } else if flags.intersects(VmFlags::DD | VmFlags::IO) {
            return None;
        } else if region.shared {
            let nameless = region.is_memory_alone() || region.name.ends_with(" (deleted)");
            asks(if nameless || flags.contains(VmFlags::HT) { shared_bit } else { 3 })
        } else {
            asks(private_bit) && (written || region.inode == 0) || asks(2) && region.inode != 0
        };
        let first_page = asks(4) && region.inode != 0 && region.offset == 0 && region.permissions.starts_with('r');
        match (whole, first_page) {
            (true, _) => Some(region.clone()),
            (false, true) => Some(Region { end: region.start + PAGE, ..region.clone() }),
            (false, false) => None,
        }
    };
    Ok(all.iter().filter_map(kept).collect())
}
