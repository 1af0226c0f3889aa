//! The memory of a stopped process, read from outside whatever its permissions.
//!
//! Pages are read by `process_vm_readv`, up to a thousand stretches a call, into a buffer that stays in the cache for
//! the scan behind it; what that call refuses (`PROT_NONE` among it) is read through `/proc/PID/mem`. The harness
//! holds one buffer and one list of runs at a time, whatever the size of the target.
//!
//! Pages that were never populated are counted and not read: reading them would allocate them. A page of a *shared*
//! mapping can hold something without this process's page table knowing; such pages are read through the file behind
//! the mapping ([`super::shared`]). memfd_secret memory is tried by both outside ways, and if both are refused it is
//! read by injection or counted as shielded.
//!
//! What was read is then compared with a second look: [`super::steady`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use findings::Coverage;
use nix::sys::uio::RemoteIoVec;
use zeroize::Zeroize;

use super::pages::{Page, Pages};
use super::shared::{self, Backing};
use super::steady::Notes;
use super::{CHUNK, PAGE, Region};
use crate::session::chain;
use crate::sys;
use crate::target::{Process, Target};

/// Stretches of memory that one `process_vm_readv` takes (`IOV_MAX`).
const PARTS: usize = 1024;

/// Why the rest was not read.
const INTERRUPTED: &str = "interrupted";

/// Whether memory that only the target can read is read by making it run a call of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Injection {
    /// The target stands where it can run one, and the row claims that the bytes are gone.
    Use,
    /// It cannot run any more, or the row claims only that no outsider can read the bytes.
    Leave,
}

/// Reads every region of a process and hands the bytes on in pieces: memfd_secret memory first, then the others in
/// ascending order.
///
/// Never fails: what cannot be read is counted as refused, with the reason, and so is what changed while it was read, and
/// what was left when the user wanted to stop.
pub(crate) fn read(
    target: &mut Target<'_>,
    process: usize,
    regions: &[Region],
    injection: Injection,
    mut piece: impl FnMut(u64, &[u8]),
) -> Coverage {
    let mut coverage = Coverage::default();
    // First what makes the target run: the kernel keeps a thread's `rseq` area up to date when it does, and that
    // would be a change between the two looks at the rest.
    for secret in regions.iter().filter(|region| region.is_secret_memory()) {
        coverage.listed += secret.length();
        secret_memory(target, process, secret, injection, &mut coverage, &mut piece);
    }
    let interrupted = target.interrupted();
    let process = &target.processes()[process];
    let mut notes = Notes::new(process, regions);
    for ordinary in regions.split(Region::is_secret_memory) {
        read_ordinary(process, ordinary, interrupted, &mut coverage, |at, bytes| {
            notes.note(at, bytes);
            piece(at, bytes);
        });
    }
    notes.compare(process, interrupted, &mut coverage);
    coverage
}

/// Reads regions of which none is memfd_secret memory, once.
pub(super) fn read_ordinary(
    process: &Process,
    regions: &[Region],
    interrupted: &AtomicBool,
    coverage: &mut Coverage,
    piece: impl FnMut(u64, &[u8]),
) {
    let mut pages = Pages::new(&process.pagemap);
    let mut reader = Reader::new(process, interrupted, coverage, piece);
    for region in regions {
        reader.coverage.listed += region.length();
        match region.exclusion(process) {
            Some(why) => reader.coverage.exclude(why, region.length()),
            None => reader.region(&mut pages, region, region.start, region.end),
        }
    }
    reader.flush();
}

/// Collects stretches of memory and reads them by the hundred.
pub(super) struct Reader<'a, P> {
    process: &'a Process,
    interrupted: &'a AtomicBool,
    coverage: &'a mut Coverage,
    piece: P,
    /// Wiped in the end: what a read brought is overwritten by the next, and a wipe after each costs more than the read.
    buffer: Vec<u8>,
    /// What is to be read next; together no longer than the buffer.
    parts: Vec<RemoteIoVec>,
    wanted: usize,
    /// Whether `process_vm_readv` works for this process at all.
    by_call: bool,
}

impl<'a, P: FnMut(u64, &[u8])> Reader<'a, P> {
    pub(super) fn new(process: &'a Process, interrupted: &'a AtomicBool, coverage: &'a mut Coverage, piece: P) -> Self {
        let parts = Vec::with_capacity(PARTS);
        Self { process, interrupted, coverage, piece, buffer: vec![0; CHUNK], parts, wanted: 0, by_call: true }
    }

    /// Reads the part of a region between two addresses, some of it not before the next [`flush`](Self::flush).
    pub(super) fn region(&mut self, pages: &mut Pages<'_>, region: &Region, start: u64, end: u64) {
        // The call never reads what the process itself may not.
        let by_call = self.by_call && region.permissions.starts_with('r');
        let mut backing = None;
        pages.each(start, end, |start, end, page| match page {
            Page::Populated if by_call => self.want(start, end),
            Page::Populated => self.by_file(start, end),
            // A file's bytes are the process's to read whether or not it has touched them.
            Page::Never if region.shared || region.inode != 0 => {
                let backing = backing.get_or_insert_with(|| shared::open(self.process, region));
                self.behind(backing, start, end);
            }
            Page::Never => self.coverage.never_populated += end - start,
            Page::Zeroes => self.zeroes(start, end),
        });
    }

    /// Whether the user wants to stop: then the rest is not read.
    fn stops(&mut self, at: u64, end: u64) -> bool {
        let stops = self.interrupted.load(Ordering::Relaxed);
        if stops {
            self.coverage.refuse(INTERRUPTED, end - at);
        }
        stops
    }

    /// Has a stretch read soon.
    fn want(&mut self, mut at: u64, end: u64) {
        while at < end {
            if self.stops(at, end) {
                return;
            }
            if self.parts.len() == PARTS || self.wanted == self.buffer.len() {
                self.flush();
            }
            let length = (self.buffer.len() - self.wanted).min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let Ok(base) = usize::try_from(at) else { return self.coverage.refuse("address", end - at) };
            self.parts.push(RemoteIoVec { base, len: length });
            self.wanted += length;
            at += length as u64;
        }
    }

    /// Reads what is wanted, and hands it on.
    pub(super) fn flush(&mut self) {
        let mut came = 0;
        if self.wanted > 0 && self.by_call {
            match sys::read_vm_parts(self.process.pid, &self.parts, &mut self.buffer[..self.wanted]) {
                Ok(bytes) => came = bytes,
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {}
                // Not allowed, not known, or the process's first thread is gone: through the file alone from now on.
                Err(_) => self.by_call = false,
            }
        }
        let parts = std::mem::take(&mut self.parts);
        let mut done = 0;
        let mut refused = Vec::new();
        for part in &parts {
            let here = part.len.min(came - done);
            if here > 0 {
                (self.piece)(part.base as u64, &self.buffer[done..done + here]);
                self.coverage.read += here as u64;
                done += here;
            }
            if here < part.len {
                refused.push(((part.base + here) as u64, (part.base + part.len) as u64));
            }
        }
        self.wanted = 0;
        for (start, end) in refused {
            self.readable(start, end);
        }
        self.parts = parts;
        self.parts.clear();
    }

    fn by_file(&mut self, start: u64, end: u64) {
        self.flush();
        self.readable(start, end);
    }

    /// Reads through `/proc/PID/mem`.
    fn readable(&mut self, mut at: u64, end: u64) {
        while at < end {
            if self.stops(at, end) {
                return;
            }
            let part = end.min(at.saturating_add(self.buffer.len() as u64));
            readable(&self.process.mem, at, part, &mut self.buffer, self.coverage, &mut self.piece);
            at = part;
        }
    }

    /// Zeroes that nobody wrote. A secret that begins or ends in zero bytes may lean on them, so the scan sees those at
    /// the edges.
    fn zeroes(&mut self, start: u64, end: u64) {
        self.flush();
        let page = [0; PAGE as usize];
        (self.piece)(start, &page);
        if end - start > PAGE {
            (self.piece)(end - PAGE, &page);
        }
        self.coverage.never_populated += end - start;
    }

    /// Pages of a shared mapping that this process has not touched.
    fn behind(&mut self, backing: &Backing, start: u64, end: u64) {
        self.flush();
        let mut at = start;
        while at < end {
            let (hole, data) = match backing {
                Backing::File(file) => file.next_data(at, end),
                Backing::Untold => (at, end),
                Backing::WouldAllocate => {
                    self.coverage.refuse(shared::WOULD_ALLOCATE, end - at);
                    return;
                }
            };
            self.coverage.never_populated += hole - at;
            at = hole;
            while at < data {
                if self.stops(at, end) {
                    return;
                }
                let length = self.buffer.len().min(usize::try_from(data - at).unwrap_or(usize::MAX));
                let read = match backing {
                    Backing::File(file) => file.read(at, &mut self.buffer[..length]),
                    _ => 0,
                };
                if read > 0 {
                    (self.piece)(at, &self.buffer[..read]);
                    self.coverage.read += read as u64;
                    at += read as u64;
                } else {
                    // Beyond the file's last whole page, or a file that does not want to be read: as the process would.
                    self.readable(at, data);
                    at = data;
                }
            }
        }
    }
}

impl<P> Drop for Reader<'_, P> {
    fn drop(&mut self) {
        self.buffer.zeroize();
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
