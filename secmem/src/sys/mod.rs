//! The system calls that the library makes: one function each, `errno` as [`io::Error`].
//!
//! No policy here: what a refusal means is decided by the caller. Lengths count bytes. Every function that can
//! fail first asks [`seam`], through which a unit test makes the next call of a kind fail.
#![allow(unsafe_code)] // every function here ends in foreign code

pub(crate) mod environment;
pub(crate) mod seam;
#[cfg(target_arch = "x86_64")]
pub(crate) mod stack;
pub(crate) mod terminal;

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::thread::JoinHandle;
use std::time::Duration;

/// The system calls by name: what an error reports, and what a test can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    FreeMemory,
    Reserve,
    MapAnonymous,
    MapSecret,
    MemfdSecret,
    FileLimit,
    Resize,
    Lock,
    DontDump,
    DontFork,
    WipeOnFork,
    AtFork,
    Barrier,
    Unmap,
    Access,
    Mask,
    Random,
    Read,
    Action,
    AtExit,
    #[cfg(target_arch = "x86_64")]
    AlternateStack,
    GetDumpable,
    SetDumpable,
    GetLimit,
    SetLimit,
    GetModes,
    SetModes,
    Poll,
    Pipe,
    Write,
}

impl Call {
    /// The call as its manual page names it, with what it was for where that is not plain.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FreeMemory => "the demand on free memory",
            Self::Reserve => "mmap (address space)",
            Self::MapAnonymous => "mmap (anonymous)",
            Self::MapSecret => "mmap (memfd_secret)",
            Self::MemfdSecret => "memfd_secret",
            Self::FileLimit => "getrlimit (RLIMIT_FSIZE)",
            Self::Resize => "ftruncate",
            Self::Lock => "mlock",
            Self::DontDump => "madvise (MADV_DONTDUMP)",
            Self::DontFork => "madvise (MADV_DONTFORK)",
            Self::WipeOnFork => "madvise (MADV_WIPEONFORK)",
            Self::AtFork => "pthread_atfork",
            Self::Barrier => "membarrier",
            Self::Unmap => "munmap",
            Self::Access => "mprotect",
            Self::Mask => "pthread_sigmask",
            Self::Random => "getrandom",
            Self::Read => "read",
            Self::Action => "sigaction",
            Self::AtExit => "atexit",
            #[cfg(target_arch = "x86_64")]
            Self::AlternateStack => "sigaltstack",
            Self::GetDumpable => "prctl (PR_GET_DUMPABLE)",
            Self::SetDumpable => "prctl (PR_SET_DUMPABLE)",
            Self::GetLimit => "getrlimit (RLIMIT_CORE)",
            Self::SetLimit => "setrlimit (RLIMIT_CORE)",
            Self::GetModes => "tcgetattr",
            Self::SetModes => "tcsetattr",
            Self::Poll => "poll",
            Self::Pipe => "pipe2",
            Self::Write => "write",
        }
    }
}

/// Size of a page in bytes.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // POSIX requires the value, so -1 cannot come; 4096 is then as good a guess as any and no worse than a panic.
    usize::try_from(size).unwrap_or(4096)
}

/// Bytes of memory that a process can have without anything being swapped out: `MemAvailable` of proc_meminfo(5), and where that is
/// not told what nothing uses, file caches counted as used: sysinfo(2), *freeram*.
pub(crate) fn free_memory() -> io::Result<u64> {
    seam::ask(Call::FreeMemory)?;
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    if let Some(available) = available {
        return Ok(available.saturating_mul(1024));
    }
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: `info` has room for what the call writes.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written all of it.
    let info = unsafe { info.assume_init() };
    Ok(info.freeram.saturating_mul(info.mem_unit.into()))
}

/// Private anonymous address space at a place of the kernel's choice, with `protection` (`PROT_*`).
pub(crate) fn reserve(len: usize, protection: c_int) -> io::Result<NonNull<u8>> {
    seam::ask(Call::Reserve)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED the kernel picks unused addresses, so no memory of this process changes.
    let got = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    mapped(got)
}

/// Readable, writable, private zero pages over `at..at + len`, replacing what is mapped there.
///
/// # Safety
///
/// The range is page-aligned, belongs to the caller alone, and nothing refers into it.
pub(crate) unsafe fn map_anonymous(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::MapAnonymous)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the caller owns the range that MAP_FIXED replaces (this function's contract).
    let got = unsafe { libc::mmap(at.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    mapped(got).map(drop)
}

/// The first `len` bytes of `file`, shared, readable and writable, over `at..at + len`.
///
/// # Safety
///
/// The range is page-aligned, belongs to the caller alone, and nothing refers into it.
pub(crate) unsafe fn map_secret(at: NonNull<u8>, len: usize, file: BorrowedFd<'_>) -> io::Result<()> {
    seam::ask(Call::MapSecret)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED; // memfd_secret(2) refuses private mappings
    // SAFETY: the caller owns the range that MAP_FIXED replaces (this function's contract).
    let got = unsafe { libc::mmap(at.as_ptr().cast(), len, protection, flags, file.as_raw_fd(), 0) };
    mapped(got).map(drop)
}

fn mapped(got: *mut c_void) -> io::Result<NonNull<u8>> {
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(got.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Gives `at..at + len` back to the kernel.
///
/// # Safety
///
/// The range is page-aligned, belongs to the caller alone, and nothing refers into it any more.
pub(crate) unsafe fn unmap(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::Unmap)?;
    // SAFETY: the caller owns the range and no reference into it is left (this function's contract).
    check(unsafe { libc::munmap(at.as_ptr().cast(), len) })
}

/// Lets every thread of this process pass a full barrier before this returns: membarrier(2), Linux 4.14.
pub(crate) fn barrier() -> io::Result<()> {
    // <linux/membarrier.h>
    const PRIVATE_EXPEDITED: c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;
    seam::ask(Call::Barrier)?;
    for command in [REGISTER_PRIVATE_EXPEDITED, PRIVATE_EXPEDITED] {
        // SAFETY: the call takes numbers and touches no memory.
        if unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A file whose pages the kernel removes from its own map of memory. Close-on-exec.
///
/// The flag is `O_CLOEXEC`; the `FD_CLOEXEC` that memfd_secret(2) prints is refused with `EINVAL`.
pub(crate) fn memfd_secret() -> io::Result<OwnedFd> {
    seam::ask(Call::MemfdSecret)?;
    // SAFETY: the call takes flags alone and touches no memory of ours.
    let got = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = c_int::try_from(got).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes that a file may have. Whoever makes one longer gets SIGXFSZ, which ends the process, before `EFBIG`.
pub(crate) fn file_limit() -> io::Result<u64> {
    seam::ask(Call::FileLimit)?;
    limits(libc::RLIMIT_FSIZE).map(|limit| limit.rlim_cur)
}

/// Sets the length of `file`, which is no more than [`file_limit`].
pub(crate) fn resize(file: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    seam::ask(Call::Resize)?;
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: the descriptor is open, for it is borrowed; no memory of ours is touched.
    check(unsafe { libc::ftruncate(file.as_raw_fd(), len) })
}

/// Makes the pages of `at..at + len` resident and keeps them from swap.
pub(crate) fn lock(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::Lock)?;
    // SAFETY: mlock changes no content and no protection; a range that is not mapped is an error, not a fault.
    check(unsafe { libc::mlock(at.as_ptr().cast(), len) })
}

/// Keeps `at..at + len` out of core dumps.
pub(crate) fn dont_dump(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::DontDump)?;
    // SAFETY: this advice changes neither content nor protection, only what a dump holds.
    check(unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_DONTDUMP) })
}

/// Leaves `at..at + len` unmapped in children of fork(2).
///
/// # Safety
///
/// Whoever owns the range does not touch it in a forked child.
pub(crate) unsafe fn dont_fork(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::DontFork)?;
    // SAFETY: no child touches the range (this function's contract); in this process nothing changes.
    check(unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_DONTFORK) })
}

/// Makes `at..at + len` read as zero in children of fork(2). Since Linux 4.14, private anonymous memory only.
///
/// # Safety
///
/// Whoever owns the range expects the zeros.
pub(crate) unsafe fn wipe_on_fork(at: NonNull<u8>, len: usize) -> io::Result<()> {
    seam::ask(Call::WipeOnFork)?;
    // SAFETY: the owner expects zeros in a child (this function's contract); in this process nothing changes.
    check(unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_WIPEONFORK) })
}

/// Makes `protection` (`PROT_*`) what may be done with `at..at + len`. Async-signal-safe.
///
/// # Safety
///
/// The range is page-aligned and the caller's, and nobody makes an access to it meanwhile, or later, that is not allowed.
pub(crate) unsafe fn allow(at: NonNull<u8>, len: usize, protection: c_int) -> io::Result<()> {
    seam::ask(Call::Access)?;
    // SAFETY: the caller owns the range and keeps accesses to what is allowed (this function's contract).
    check(unsafe { libc::mprotect(at.as_ptr().cast(), len, protection) })
}

/// Random bytes from the kernel into the beginning of `into`; returns how many.
///
/// More than 256 bytes may be cut short by a signal (getrandom(2)).
pub(crate) fn random(into: &mut [u8]) -> io::Result<usize> {
    seam::ask(Call::Random)?;
    // SAFETY: the slice is writable for its whole length and borrowed exclusively.
    let got = unsafe { libc::getrandom(into.as_mut_ptr().cast(), into.len(), 0) };
    count(got)
}

/// Bytes from `from` into the beginning of `into`; returns how many, 0 at the end.
pub(crate) fn read(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    seam::ask(Call::Read)?;
    // SAFETY: the slice is writable for its whole length and borrowed exclusively; the descriptor is open.
    let got = unsafe { libc::read(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    count(got)
}

fn count(got: isize) -> io::Result<usize> {
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// What the process does on `signal` now.
pub(crate) fn action(signal: c_int) -> io::Result<libc::sigaction> {
    seam::ask(Call::Action)?;
    // SAFETY: every field of the C structure is an integer, a set of integers or an optional pointer: zero is valid.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing changes; `old` is a valid place for the answer.
    check(unsafe { libc::sigaction(signal, ptr::null(), &raw mut old) })?;
    Ok(old)
}

/// Makes `new` what the process does on `signal`. Async-signal-safe.
///
/// # Safety
///
/// A handler in `new` has the signature that its flags say, lives for ever, and does only what signal-safety(7) allows.
pub(crate) unsafe fn set_action(signal: c_int, new: &libc::sigaction) -> io::Result<()> {
    seam::ask(Call::Action)?;
    // SAFETY: the handler is fit for a signal (this function's contract); the old action is not asked for.
    check(unsafe { libc::sigaction(signal, new, ptr::null_mut()) })
}

/// The action that the kernel takes by default. Async-signal-safe.
pub(crate) fn default_action() -> libc::sigaction {
    // SAFETY: every field of the C structure is an integer, a set of integers or an optional pointer: zero is valid.
    // SIG_DFL is zero, and so is the empty set of signals.
    unsafe { std::mem::zeroed() }
}

/// Sends `signal` to this thread. Async-signal-safe.
pub(crate) fn raise(signal: c_int) -> io::Result<()> {
    // SAFETY: the call takes a number; what happens is the action that the process has set.
    check(unsafe { libc::raise(signal) })
}

/// Ends the process at once, running nothing. Async-signal-safe.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: nothing of this process runs after it.
    unsafe { libc::_exit(status) }
}

/// Whether the process may be dumped, and read by others of the same user.
pub(crate) fn dumpable() -> io::Result<bool> {
    seam::ask(Call::GetDumpable)?;
    // SAFETY: the call takes and gives numbers alone.
    match unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        flag => Ok(flag != 0),
    }
}

/// Forbids both.
pub(crate) fn clear_dumpable() -> io::Result<()> {
    seam::ask(Call::SetDumpable)?;
    // SAFETY: the call takes numbers alone.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })
}

/// Bytes that a core may have.
pub(crate) fn core_limit() -> io::Result<u64> {
    core_limits().map(|limit| limit.rlim_cur)
}

/// Limits a core to so many bytes, or to fewer where the limit cannot be raised to that; for good.
pub(crate) fn set_core_limit(bytes: u64) -> io::Result<()> {
    let bytes = bytes.min(core_limits()?.rlim_max);
    seam::ask(Call::SetLimit)?;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: `limit` holds two numbers, of which neither is above the limit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) })
}

fn core_limits() -> io::Result<libc::rlimit> {
    seam::ask(Call::GetLimit)?;
    limits(libc::RLIMIT_CORE)
}

/// A kind of limit: glibc has a type for it, musl a number.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = c_int;

fn limits(of: Resource) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    check(unsafe { libc::getrlimit(of, &raw mut limit) })?;
    Ok(limit)
}

/// Writes a line to standard error, as far as that goes. Async-signal-safe.
pub(crate) fn complain(line: &str) {
    // SAFETY: the text is readable for its whole length. What comes of it changes nothing.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// Ends the process by SIGABRT, and lets the kernel write no core. Async-signal-safe.
pub(crate) fn abort_without_dump() -> ! {
    if !cfg!(secmem_ablate = "damage-dump") {
        // SAFETY: sets a flag of the process. Refused (it never is), a core holds no arena: those are excluded and zero.
        let _ = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    }
    // SAFETY: nothing of this process runs after it but its handlers of SIGABRT.
    unsafe { libc::abort() }
}

/// Runs `function` when the process ends through exit(3) or a return from `main`.
pub(crate) fn at_exit(function: extern "C" fn()) -> io::Result<()> {
    seam::ask(Call::AtExit)?;
    // SAFETY: a function of this program outlives the process's normal end.
    let rc = unsafe { libc::atexit(function) };
    // atexit(3) promises non-zero, not errno; memory for the list is all that it can lack.
    if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOMEM)) }
}

/// Lets fork(3) call `prepare` before it forks, and the other two after it, each in its process. They stay for ever.
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> io::Result<()> {
    seam::ask(Call::AtFork)?;
    let hook = |function: extern "C" fn()| Some(function as unsafe extern "C" fn());
    // SAFETY: functions of this program outlive every fork that it makes.
    number(unsafe { libc::pthread_atfork(hook(prepare), hook(parent), hook(child)) })
}

/// The signals that a thread has blocked.
pub(crate) struct Mask(libc::sigset_t);

/// Blocks every signal that can be blocked, in the calling thread; returns what it had blocked before.
pub(crate) fn block_signals() -> io::Result<Mask> {
    // SAFETY: a set of signals is an array of integers, for which zero is valid.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid set to write to.
    check(unsafe { libc::sigfillset(&raw mut all) })?;
    set_mask(&Mask(all))
}

/// Makes `mask` what the calling thread has blocked; returns what it had blocked before.
pub(crate) fn set_mask(mask: &Mask) -> io::Result<Mask> {
    seam::ask(Call::Mask)?;
    // SAFETY: a set of signals is an array of integers, for which zero is valid.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `mask` holds a valid set, and `before` is a valid place for another.
    number(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, &raw mut before) })?;
    Ok(Mask(before))
}

/// Blocks no signal in the calling thread.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn unblock_signals() -> io::Result<()> {
    // SAFETY: a set of signals is an array of integers, for which zero is valid, and the empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    set_mask(&Mask(none)).map(drop)
}

/// Closes every descriptor but 0, 1 and 2: close_range(2), Linux 5.9. For a process that was just started: what it finds open
/// there was left to it by the one that started it, and nothing in this program owns it.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn close_all_but_standard() -> io::Result<()> {
    // SAFETY: the call takes numbers; the descriptors belong to nothing in this process (above).
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Descriptors below 1024 that are open.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn open_descriptors() -> u32 {
    // SAFETY: the call takes numbers and changes nothing.
    let is_open = |number: c_int| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    (0..1024).filter(|number| is_open(*number)).map(|_| 1).sum()
}

/// Lets the kernel do on `signal` what it does by default.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn reset_action(signal: c_int) -> io::Result<()> {
    // SAFETY: the default action is no handler.
    unsafe { set_action(signal, &default_action()) }
}

/// Starts a thread with all signals blocked: those of the application are for its own threads.
///
/// A thread begins with the mask of the one that starts it, so there is no moment at which it could take one.
pub(crate) fn quiet_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let before = block_signals()?;
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let restored = set_mask(&before);
    let started = started?;
    restored.map(|_| started)
}

/// `CLOCK_MONOTONIC`, since the machine was started: clock_gettime(2), without a system call. What `Instant` has, which
/// can only be asked for differences.
#[inline]
pub(crate) fn steady_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place for the time is writable.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    debug_assert_eq!(told, 0, "every Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32) // neither is ever negative
}

/// The kernel's number of the calling thread: gettid(2).
pub(crate) fn thread_number() -> i32 {
    // SAFETY: takes nothing, and cannot fail.
    unsafe { libc::gettid() }
}

/// `errno` of the calling thread. Async-signal-safe.
pub(crate) fn errno() -> c_int {
    // SAFETY: the C library keeps one valid errno per thread.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the address is that of this thread's errno and no reference to it exists.
    unsafe { at.read() }
}

/// Sets `errno` of the calling thread. Async-signal-safe.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the C library keeps one valid errno per thread.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the address is that of this thread's errno and no reference to it exists.
    unsafe { at.write(errno) }
}

/// The result of a call that returns its error number instead of setting `errno`.
fn number(errno: c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

fn check(rc: c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
