//! What the kernel keeps for a stopped process behind its descriptors: pipes, sockets, memfds, files without a name.
//!
//! None of it is in the address space, so no reader of memory sees it. Each store is read through a duplicate of the
//! process's own descriptor (`pidfd_getfd`) and left as it was: a pipe is copied by `tee`, a socket's queue is peeked
//! at, a file is opened anew so that the process's own offset stays. Descriptors that wait in a socket's queue lead to
//! more stores, which are read too. What is mapped shared is read where it is mapped, and not again here.
//!
//! Regular files that still have a name are not read: they can be searched as files, without the process.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use findings::{Class, Kept};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::unistd::Pid;
use zeroize::Zeroize;

use super::holes::next_data;
use super::{CHUNK, PAGE, Region};
use crate::sys::{self, Peeked};
use crate::target::Target;

/// Bytes of a stream that are peeked at in one piece where a second piece cannot be had.
const AT_ONCE: usize = 16 << 20;

/// Empty messages in a row after which a queue is given up: a socket that was shut down brings them for ever.
const EMPTY: u32 = 4096;

/// Bytes of a `memfd_secret` file that are copied at a time: each is locked memory of ours meanwhile.
const SECRET_PIECE: usize = 4 * PAGE as usize;

/// What the kernel calls every `memfd_secret` file.
const SECRET_NAME: &str = "/secretmem";

/// `SECRETMEM_MAGIC` of linux/magic.h.
const SECRET_FILES: i64 = 0x5345_434d;

/// Why bytes of ours are not searched.
const OURS: &str = "what the harness feeds and hears the program through";

/// The same of the one through which it is fed.
const FED: &str = "what the harness feeds the program through";

/// Bytes that waited where the program is fed.
pub(crate) fn waiting_to_be_read(kept: &Kept) -> u64 {
    kept.bytes.excluded.iter().filter(|share| share.why == FED).map(|share| share.bytes).sum()
}

/// One store, by what it is and where it was met.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) class: Class,
    /// The kernel's name and the descriptor: `pipe:[123] at fd 5`.
    pub(crate) place: String,
}

/// What reading hands on.
pub(crate) enum Step<'a> {
    /// The next bytes of a store, at this offset.
    Piece(u64, &'a [u8]),
    /// That was all of this store.
    End(&'a Store),
}

/// The part of a place that is the same in another run: inodes and temporary names are not.
pub(crate) fn stable_part(place: &str) -> &str {
    place.rsplit(" at ").next().unwrap_or_default()
}

/// Reads all that lies behind the descriptors of one process, each store once. `regions` are its mappings.
///
/// Never fails: what cannot be read is counted as refused, and where not even a length is known it is a trouble.
pub(crate) fn read(
    target: &Target<'_>,
    process: usize,
    regions: &[Region],
    troubles: &mut Vec<String>,
    step: &mut dyn FnMut(Step<'_>),
) -> Kept {
    let pid = target.processes()[process].pid;
    let mut reader = Reader {
        fed: target.fed(),
        ours: target.ours(),
        regions,
        seen: BTreeSet::new(),
        kept: Kept::default(),
        unknown: Vec::new(),
        buffer: vec![0; CHUNK],
        step,
    };
    let mut tables: Vec<Pid> = Vec::new();
    for thread in target.standing_threads(process) {
        // Threads share one table unless they asked for their own; a kernel that does not tell has all walked.
        if !tables.iter().any(|other| sys::share_descriptors(*other, thread).unwrap_or(false)) {
            reader.table(pid, thread);
            tables.push(thread);
        }
    }
    if tables.is_empty() {
        reader.unknown.push("no thread stands still".to_owned());
    }
    reader.unknown.sort();
    reader.unknown.dedup();
    troubles.extend(reader.unknown.drain(..).map(|why| format!("behind descriptors: {why}")));
    std::mem::take(&mut reader.kept)
}

struct Reader<'a> {
    /// Device and inode of what the program is fed through.
    fed: Option<(u64, u64)>,
    /// Device and inode of each end that is the harness's own.
    ours: &'a BTreeSet<(u64, u64)>,
    regions: &'a [Region],
    /// Device and inode of the stores that were met.
    seen: BTreeSet<(u64, u64)>,
    kept: Kept,
    /// What may hold bytes that nobody counted.
    unknown: Vec<String>,
    /// Wiped when dropped.
    buffer: Vec<u8>,
    step: &'a mut dyn FnMut(Step<'_>),
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

impl Reader<'_> {
    /// Walks one table of descriptors.
    fn table(&mut self, pid: Pid, thread: Pid) {
        let dir = format!("/proc/{pid}/task/{thread}/fd");
        let listed = std::fs::read_dir(&dir).and_then(|entries| {
            let mut numbers = Vec::new();
            for entry in entries {
                numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
            }
            numbers.sort_unstable();
            Ok(numbers)
        });
        let handle = sys::pidfd_open(thread, pid != thread);
        let (numbers, handle) = match (listed, handle) {
            (Ok(numbers), Ok(handle)) => (numbers, handle),
            (Err(error), _) => return self.unknown.push(format!("the table of descriptors cannot be read: {error}")),
            (_, Err(error)) => return self.unknown.push(format!("no handle on a thread: {error}")),
        };
        for number in numbers {
            let path = Path::new(&dir).join(number.to_string());
            let meta = match std::fs::metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // closed meanwhile, by another process
                Err(error) => {
                    self.unknown.push(format!("what a descriptor is cannot be told: {error}"));
                    continue;
                }
            };
            let Some(kind) = kind(&meta).filter(|_| !self.seen.contains(&(meta.dev(), meta.ino()))) else { continue };
            let name = std::fs::read_link(&path).unwrap_or_default();
            if kind == Kind::File && meta.nlink() > 0 && !name.to_string_lossy().starts_with(SECRET_NAME) {
                continue; // most of a program's files: no duplicate is needed to pass them over
            }
            match sys::pidfd_getfd(&handle, number) {
                Ok(fd) => self.store(kind, &fd, &meta, &name.to_string_lossy(), &format!("fd {number}")),
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
                Err(error) => self.unknown.push(format!("a descriptor cannot be had: {error}")),
            }
        }
    }

    /// Reads one store.
    fn store(&mut self, kind: Kind, fd: &OwnedFd, meta: &Metadata, name: &str, at: &str) {
        let secret = kind == Kind::File && is_secret(fd);
        if kind == Kind::File && meta.nlink() > 0 && !secret {
            return; // it has a name
        }
        let class = match kind {
            Kind::Pipe => Class::Pipe,
            Kind::Socket => Class::Socket,
            Kind::File if secret || name.starts_with("/memfd:") => Class::Memfd,
            Kind::File => Class::DeletedFile,
        };
        let store = Store { class, place: format!("{name} at {at}") };
        let identity = (meta.dev(), meta.ino());
        let ours = self.ours.contains(&identity);
        let before = self.kept.bytes.read;
        let mut flying = Vec::new();
        let met = match kind {
            Kind::Pipe => self.pipe(fd, name, ours.then_some(if self.fed == Some(identity) { FED } else { OURS })),
            Kind::Socket => self.socket(fd, ours, at, &mut flying),
            Kind::File if ours => {
                self.exclude(meta.len());
                true
            }
            Kind::File => {
                let gaps = self.unmapped(meta);
                if secret {
                    self.secret_file(fd, meta.len(), &gaps)
                } else {
                    self.file(fd, &gaps)
                }
                true
            }
        };
        if !met {
            return; // another descriptor may lead there
        }
        self.seen.insert(identity);
        let count = match class {
            Class::Pipe => &mut self.kept.pipes,
            Class::Socket => &mut self.kept.sockets,
            Class::Memfd => &mut self.kept.memfds,
            _ => &mut self.kept.deleted_files,
        };
        *count = count.saturating_add(1);
        if self.kept.bytes.read > before {
            (self.step)(Step::End(&store));
        }
        for fd in flying {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let meta = match std::fs::metadata(&path) {
                Ok(meta) => meta,
                Err(error) => {
                    self.unknown.push(format!("what a descriptor in flight is cannot be told: {error}"));
                    continue;
                }
            };
            let name = std::fs::read_link(&path).unwrap_or_default();
            if let Some(kind) = self::kind(&meta).filter(|_| !self.seen.contains(&(meta.dev(), meta.ino()))) {
                // One of a chain that sends itself ends where a store was met before.
                self.store(kind, &fd, &meta, &name.to_string_lossy(), &format!("{at}, in flight"));
            }
        }
    }

    fn exclude(&mut self, bytes: u64) {
        self.kept.bytes.listed += bytes;
        self.kept.bytes.exclude(OURS, bytes);
    }

    fn refuse(&mut self, why: &str, bytes: u64) {
        self.kept.bytes.listed += bytes;
        self.kept.bytes.refuse(why, bytes);
    }

    /// Hands on what stands at the front of the buffer.
    fn piece(&mut self, at: u64, length: usize) {
        self.kept.bytes.listed += length as u64;
        self.kept.bytes.read += length as u64;
        (self.step)(Step::Piece(at, &self.buffer[..length]));
    }

    /// Copies a pipe's bytes into one of ours; says whether it is one that can be asked.
    ///
    /// # Source
    ///
    /// tee(2); pipe(7), *F_SETPIPE_SZ*.
    fn pipe(&mut self, fd: &OwnedFd, name: &str, ours: Option<&str>) -> bool {
        let Ok(waiting) = sys::waiting(fd) else { return false }; // O_PATH
        if let Some(why) = ours {
            self.kept.bytes.listed += waiting;
            self.kept.bytes.exclude(why, waiting);
            return true;
        }
        if waiting == 0 {
            return true;
        }
        let copied = reading_end(fd, name).and_then(|end| copy(end.as_ref().map_or(fd.as_fd(), File::as_fd)));
        let (mut from, copied) = match copied {
            Ok((from, copied)) => (from, copied as u64),
            Err(error) => {
                self.refuse(&format!("a pipe: {error}"), waiting);
                return true;
            }
        };
        let mut at = 0;
        while at < copied {
            match io::Read::read(&mut from, &mut self.buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    self.piece(at, read);
                    at += read as u64;
                }
            }
        }
        self.refuse("a pipe that is larger than one of ours may be", waiting.saturating_sub(at));
        true
    }

    /// Peeks at what waits in a socket; says whether it is one that can be asked.
    fn socket(&mut self, fd: &OwnedFd, ours: bool, at: &str, flying: &mut Vec<OwnedFd>) -> bool {
        let number = |option| sys::socket_number(fd, option);
        let (Ok(kind), Ok(family)) = (number(libc::SO_TYPE), number(libc::SO_DOMAIN)) else { return false }; // O_PATH
        let waiting = sys::waiting(fd).unwrap_or(0); // one that listens has no queue of bytes
        if ours {
            self.exclude(waiting);
            return true;
        }
        if kind == libc::SOCK_STREAM && matches!(family, libc::AF_INET | libc::AF_INET6) {
            let unsent = sys::unsent(fd).unwrap_or(0);
            self.refuse("sent and not acknowledged: the kernel shows it to nobody", unsent);
        }
        let mut asked = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        let told = match nix::poll::poll(&mut asked, PollTimeout::ZERO) {
            Ok(_) => asked[0].revents().unwrap_or(PollFlags::empty()),
            Err(_) => PollFlags::POLLIN,
        };
        if family == libc::AF_NETLINK || waiting == 0 && !told.contains(PollFlags::POLLIN) {
            return true; // messages of the kernel's own, or nothing
        }
        if number(libc::SO_ACCEPTCONN).unwrap_or(0) != 0 {
            self.unknown.push(format!("{at}: connections that nobody has accepted yet cannot be read"));
            return true;
        }
        let stream = kind == libc::SOCK_STREAM;
        if !stream && told.contains(PollFlags::POLLERR) {
            self.refuse("a socket with an error that a look would take away", waiting);
            return true;
        }
        let before = sys::peek_offset(fd).and_then(|before| sys::set_peek_offset(fd, 0).map(|()| before));
        match (&before, stream) {
            (_, true) => self.stream(fd, waiting, before.is_ok(), flying),
            (Ok(_), false) => self.messages(fd, flying),
            (Err(_), false) => {
                self.unknown.push(format!("{at}: only the front of a socket of family {family} can be read"));
            }
        }
        if let Ok(before) = before
            && let Err(error) = sys::set_peek_offset(fd, before)
        {
            self.unknown.push(format!("{at}: the peek offset cannot be put back: {error}"));
        }
        true
    }

    /// Reads the queue of a stream, and never past its end: there a pending error would be taken away.
    fn stream(&mut self, fd: &OwnedFd, waiting: u64, steps: bool, flying: &mut Vec<OwnedFd>) {
        let whole = usize::try_from(waiting).unwrap_or(usize::MAX).min(AT_ONCE);
        let room = self.buffer.len();
        if !steps && whole > room {
            self.buffer.resize(whole, 0);
        }
        let mut at = 0;
        while at < waiting {
            let want = self.buffer.len().min(usize::try_from(waiting - at).unwrap_or(usize::MAX));
            match sys::peek(fd, &mut self.buffer[..want]) {
                Ok(Peeked { read: 0, .. }) | Err(_) => break,
                Ok(Peeked { read, flying: came, cut }) => {
                    flying.extend(came);
                    self.doubt_cut(cut);
                    self.piece(at, read);
                    at += read as u64;
                }
            }
            if !steps {
                break;
            }
        }
        self.buffer[room..].zeroize();
        self.buffer.truncate(room);
        self.refuse("a stream whose queue does not show whole", waiting.saturating_sub(at));
    }

    /// Says so if more descriptors are in flight than could be had.
    fn doubt_cut(&mut self, cut: bool) {
        if cut {
            self.unknown.push("more descriptors in flight than can be taken: raise the limit of open files".to_owned());
        }
    }

    /// Reads a queue of messages.
    fn messages(&mut self, fd: &OwnedFd, flying: &mut Vec<OwnedFd>) {
        let (mut at, mut empty) = (0, 0);
        while empty < EMPTY {
            let buffer = &mut self.buffer;
            match sys::peek(fd, buffer) {
                Ok(Peeked { read, flying: came, cut }) => {
                    flying.extend(came);
                    self.doubt_cut(cut);
                    empty = if read == 0 { empty + 1 } else { 0 };
                    if read > 0 {
                        self.piece(at, read);
                        at += read as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Not connected, or shut down: there is no queue.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::EINVAL)) => return,
                Err(error) => return self.unknown.push(format!("a socket's queue breaks off: {error}")),
            }
        }
        let shut = PollFlags::POLLHUP | PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut asked = [PollFd::new(fd.as_fd(), shut)];
        let over = nix::poll::poll(&mut asked, PollTimeout::ZERO).is_ok()
            // `None`: a flag that nix has no name for, and POLLRDHUP is one.
            && asked[0].revents().is_none_or(|told| told.intersects(shut));
        if !over {
            self.unknown.push("a socket's queue holds more empty messages than were looked at".to_owned());
        }
    }

    /// The stretches of a file that no shared mapping of the process shows.
    fn unmapped(&self, meta: &Metadata) -> Vec<(u64, u64)> {
        let shown = |region: &&Region| region.shared && (region.device, region.inode) == (meta.dev(), meta.ino());
        let mut mapped: Vec<_> = self
            .regions
            .iter()
            .filter(shown)
            .map(|region| (region.offset, region.offset.saturating_add(region.length())))
            .collect();
        mapped.sort_unstable();
        mapped.push((meta.len(), meta.len()));
        let (mut gaps, mut at) = (Vec::new(), 0);
        for (start, end) in mapped {
            if start.min(meta.len()) > at {
                gaps.push((at, start.min(meta.len())));
            }
            at = at.max(end);
        }
        gaps
    }

    /// Reads stretches of a file; holes are not read.
    fn file(&mut self, fd: &OwnedFd, gaps: &[(u64, u64)]) {
        // Opened anew: its own offset, and readable whatever the process may do with its descriptor.
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let (file, anew) = match opened {
            Ok(file) => (file, true),
            Err(_) => match fd.try_clone() {
                Ok(fd) => (fd.into(), false),
                Err(error) => {
                    let bytes = gaps.iter().map(|(start, end)| end - start).sum();
                    return self.refuse(&format!("a file without a name: {error}"), bytes);
                }
            },
        };
        for (start, end) in gaps.iter().copied() {
            let mut at = start;
            while at < end {
                let (data, hole) = if anew { next_data(&file, at, end) } else { (at, end) };
                self.kept.bytes.listed += data - at;
                self.kept.bytes.never_populated += data - at;
                at = data;
                while at < hole {
                    let want = self.buffer.len().min(usize::try_from(hole - at).unwrap_or(usize::MAX));
                    match file.read_at(&mut self.buffer[..want], at) {
                        Ok(read) if read > 0 => {
                            self.piece(at, read);
                            at += read as u64;
                        }
                        refused => {
                            let why = refused.map_or_else(|error| error.to_string(), |_| "it shrank".to_owned());
                            self.refuse(&format!("a file without a name: {why}"), hole - at);
                            at = hole;
                        }
                    }
                }
            }
        }
    }

    /// Reads stretches of a `memfd_secret` file through a mapping of ours. Its holes get pages by that, which the
    /// kernel does not tell from others.
    fn secret_file(&mut self, fd: &OwnedFd, length: u64, gaps: &[(u64, u64)]) {
        let ours = match nix::sys::memfd::memfd_create(c"copied", nix::sys::memfd::MFdFlags::MFD_CLOEXEC) {
            Ok(ours) => File::from(ours),
            Err(error) => return self.refuse(&format!("a memfd_secret file: {error}"), length),
        };
        for (start, end) in gaps.iter().copied() {
            let mut at = start / PAGE * PAGE;
            while at < end {
                let want = SECRET_PIECE.min(usize::try_from(end.next_multiple_of(PAGE) - at).unwrap_or(SECRET_PIECE));
                let here = (want as u64).min(end - at);
                let copied = sys::copy_secret_file(fd, at, want, &ours)
                    .and_then(|copied| if copied == want { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) })
                    .and_then(|()| ours.read_exact_at(&mut self.buffer[..want], 0));
                match copied {
                    Ok(()) => self.piece(at, usize::try_from(here).unwrap_or(want)),
                    Err(error) => self.refuse(&format!("a memfd_secret file: {error}"), here),
                }
                at += here;
            }
        }
        // Pages are the kernel's again once they are given back; overwritten, they hold nothing then.
        let _ = ours.write_all_at(&[0; SECRET_PIECE], 0);
    }
}

/// What kind of store a file can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pipe,
    Socket,
    /// A regular file. One without a name is looked at: deleted, never named (`O_TMPFILE`), or a memfd; a
    /// `memfd_secret` file counts one link and has no name all the same.
    File,
}

fn kind(meta: &Metadata) -> Option<Kind> {
    match meta.mode() & libc::S_IFMT {
        libc::S_IFIFO => Some(Kind::Pipe),
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFREG if meta.len() > 0 => Some(Kind::File),
        _ => None,
    }
}

fn is_secret(fd: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(fd).is_ok_and(|stat| stat.filesystem_type().0 == SECRET_FILES)
}

/// An end of that pipe from which can be read, if this is none.
///
/// Opening one is not seen by anybody, unless somebody waits to open the other end of a named one: there it is left.
fn reading_end(fd: &OwnedFd, name: &str) -> io::Result<Option<File>> {
    if fcntl(fd, FcntlArg::F_GETFL)? & libc::O_ACCMODE != libc::O_WRONLY {
        return Ok(None);
    }
    if !name.starts_with("pipe:") {
        return Err(io::Error::other("a FIFO of which only the writing end is open here"));
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map(Some)
}

/// Copies what a pipe holds into a new one; returns its reading end and how many bytes it got.
fn copy(from: BorrowedFd<'_>) -> io::Result<(File, usize)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let size = fcntl(from, FcntlArg::F_GETPIPE_SZ)?;
    // Refused beyond /proc/sys/fs/pipe-max-size without CAP_SYS_RESOURCE: then less is copied, and that is counted.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
    let copied = loop {
        match nix::fcntl::tee(from, &write, i32::MAX as usize, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break 0,
            copied => break copied?,
        }
    };
    Ok((read.into(), copied))
}
