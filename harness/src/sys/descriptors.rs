//! Other processes' descriptors, and what lies behind them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::unistd::Pid;

/// `PIDFD_THREAD` of linux/pidfd.h (Linux 6.9): a thread's own table of descriptors.
const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;

/// `KCMP_VM` and `KCMP_FILES` of linux/kcmp.h.
const KCMP_VM: libc::c_long = 1;
const KCMP_FILES: libc::c_long = 2;

/// `PIDFD_GET_INFO` of linux/pidfd.h (Linux 6.13): `_IOWR(0xff, 11, struct pidfd_info)`, 72 bytes as of Linux 6.16.
const PIDFD_GET_INFO: libc::Ioctl = 0xc048_ff0b;

/// `PIDFD_INFO_COREDUMP` of linux/pidfd.h (Linux 6.16).
const PIDFD_INFO_COREDUMP: u64 = 1 << 4;

/// Descriptors that one message can carry (`SCM_MAX_FD`).
const FLYING: usize = 253;

/// `struct pidfd_info` of linux/pidfd.h.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Process, thread group, parent, user and group numbers.
    numbers: [u32; 11],
    exit_code: i32,
    coredump_mask: u32,
    spare: u32,
}

/// A handle on a process or, with `thread`, on a thread that is not its first.
///
/// # Errors
///
/// `ESRCH` when it is gone; `EINVAL` for `thread` before Linux 6.9.
///
/// # Source
///
/// pidfd_open(2).
pub(crate) fn pidfd_open(task: Pid, thread: bool) -> io::Result<OwnedFd> {
    let flags = if thread { PIDFD_THREAD } else { 0 };
    // SAFETY: takes no pointer.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, task.as_raw(), flags) };
    owned(number)
}

/// A duplicate of a descriptor of another process: the same open file, closed on exec.
///
/// # Errors
///
/// `EBADF` when there is no such descriptor, `EPERM` without the right to trace, `ENOSYS` before Linux 5.6.
///
/// # Source
///
/// pidfd_getfd(2).
pub(crate) fn pidfd_getfd(pidfd: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    owned(number)
}

fn owned(number: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(number) {
        Ok(number) if number >= 0 => {
            // SAFETY: the kernel has just made this descriptor; nobody else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether two threads share one table of descriptors.
///
/// # Errors
///
/// `ENOSYS` in a kernel without the call, `EPERM` without the right to trace.
///
/// # Source
///
/// kcmp(2).
pub(crate) fn share_descriptors(one: Pid, other: Pid) -> io::Result<bool> {
    share(one, other, KCMP_FILES)
}

/// Whether two threads share one address space.
///
/// # Errors
///
/// As [`share_descriptors`]; `ESRCH` when one of them is gone.
pub(crate) fn share_memory(one: Pid, other: Pid) -> io::Result<bool> {
    share(one, other, KCMP_VM)
}

fn share(one: Pid, other: Pid, what: libc::c_long) -> io::Result<bool> {
    // SAFETY: takes no pointer.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one.as_raw(), other.as_raw(), what, 0, 0) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

/// What the kernel would do with a core of a process: the bits `PIDFD_COREDUMP_*`, or `None` where it does not tell.
///
/// # Errors
///
/// `ENOTTY` before Linux 6.13.
pub(crate) fn coredump_mask(pidfd: &OwnedFd) -> io::Result<Option<u32>> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_COREDUMP, ..PidfdInfo::default() };
    // SAFETY: `info` is a `pidfd_info` of the size that the request's number states, ours for the whole call.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_COREDUMP != 0).then_some(info.coredump_mask))
}

/// How many bytes can be read from a pipe, or from a socket without another message coming.
///
/// # Errors
///
/// `ENOTTY` or `EINVAL` where nothing can be asked, as of a socket that listens.
///
/// # Source
///
/// pipe(7), tcp(7), udp(7), unix(7): *FIONREAD*, *SIOCINQ*.
pub(crate) fn waiting(fd: impl AsFd) -> io::Result<u64> {
    count(fd, libc::FIONREAD)
}

/// How many sent bytes a TCP socket keeps because its peer has not acknowledged them.
///
/// # Errors
///
/// As [`waiting`].
///
/// # Source
///
/// tcp(7), *SIOCOUTQ*.
pub(crate) fn unsent(fd: impl AsFd) -> io::Result<u64> {
    count(fd, libc::TIOCOUTQ)
}

fn count(fd: impl AsFd, request: libc::Ioctl) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int, and `bytes` is one.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &raw mut bytes) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The offset at which a peek into a socket's queue begins; -1 if each begins at the front.
///
/// # Errors
///
/// `EOPNOTSUPP` or `ENOPROTOOPT` for a kind of socket that has none.
///
/// # Source
///
/// socket(7), *SO_PEEK_OFF*; TCP has it since Linux 6.9.
pub(crate) fn peek_offset(fd: impl AsFd) -> io::Result<i32> {
    let mut offset: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `offset` is an int of the length that `length` states; both are ours for the whole call.
    let done = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw mut offset).cast(),
            &raw mut length,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(offset) }
}

/// Sets what [`peek_offset`] tells.
///
/// # Errors
///
/// As there.
pub(crate) fn set_peek_offset(fd: impl AsFd, offset: i32) -> io::Result<()> {
    // SAFETY: the option is one int, and `offset` lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a socket tells of itself by a number: `SO_TYPE`, `SO_DOMAIN`.
///
/// # Errors
///
/// `ENOTSOCK` or `EBADF` when it is none that can be used.
pub(crate) fn socket_number(fd: impl AsFd, option: libc::c_int) -> io::Result<i32> {
    let mut number: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `number` is an int of the length that `length` states; both are ours for the whole call.
    let done = unsafe {
        libc::getsockopt(fd.as_fd().as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut number).cast(), &raw mut length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// What waits in a socket.
pub(crate) struct Peeked {
    /// Bytes of it that were read.
    pub(crate) read: usize,
    /// Duplicates of the descriptors that came with them.
    pub(crate) flying: Vec<OwnedFd>,
    /// Whether there are more descriptors than could be duplicated: our own table is full.
    pub(crate) cut: bool,
}

/// Reads what waits in a socket and leaves it there, without waiting.
///
/// # Errors
///
/// `EAGAIN` when nothing waits; `ENOTCONN` or `EINVAL` for a socket that cannot receive.
///
/// # Source
///
/// recv(2), *MSG_PEEK*; unix(7), *SCM_RIGHTS*.
pub(crate) fn peek(fd: impl AsFd, into: &mut [u8]) -> io::Result<Peeked> {
    // Aligned as a `cmsghdr` must be, with room for the most descriptors and for credentials.
    let mut control = [0_u64; (FLYING * 4 + 128) / 8];
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut message = libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&control),
        msg_flags: 0,
    };
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` describes `into` and `control`, which are ours and not touched otherwise until the call returns.
    let got = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, flags) };
    let read = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let flying = descriptors(&control, message.msg_controllen);
    Ok(Peeked { read, flying, cut: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// A descriptor of the sender's process, for a socket that asked for it (`SO_PASSPIDFD`, Linux 6.5).
const SCM_PIDFD: libc::c_int = 4;

/// The descriptors in a control buffer that `recvmsg` has filled up to `length` bytes.
fn descriptors(control: &[u64], length: usize) -> Vec<OwnedFd> {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let header = size_of::<libc::cmsghdr>();
    let mut found = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= header {
        let number = |at: usize| rest[at..at + 4].try_into().map_or(0, i32::from_ne_bytes);
        let length = rest[..8].try_into().map_or(0, usize::from_ne_bytes).clamp(header, rest.len());
        let (level, kind) = (number(8), number(12));
        if level == libc::SOL_SOCKET && matches!(kind, libc::SCM_RIGHTS | SCM_PIDFD) {
            for number in rest[header..length].as_chunks::<4>().0 {
                let number = i32::from_ne_bytes(*number);
                // SAFETY: `recvmsg` has just made this descriptor for us; nobody else owns it.
                found.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        rest = &rest[length.next_multiple_of(8).min(rest.len())..];
    }
    found
}

/// Copies part of a `memfd_secret` file, which has no read(2), into a file of ours; returns how many bytes came.
///
/// The kernel does the copying, from a mapping that lasts for this call alone: what cannot be read there is an error
/// and no signal. `offset` and `length` are whole pages.
///
/// # Errors
///
/// `EAGAIN` without room in RLIMIT_MEMLOCK, `EFAULT` when the pages cannot be read.
///
/// # Source
///
/// memfd_secret(2).
pub(crate) fn copy_secret_file(from: &OwnedFd, offset: u64, length: usize, to: &std::fs::File) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let mapped =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, from.as_raw_fd(), offset) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel reads `length` bytes of the mapping that was just made; a page that is not there is `EFAULT`.
    let written = unsafe { libc::pwrite(to.as_raw_fd(), mapped, length, 0) };
    let result = usize::try_from(written).map_err(|_| io::Error::last_os_error());
    // SAFETY: `mapped` is the mapping of `length` bytes that was made above, and nothing points into it.
    let unmapped = unsafe { libc::munmap(mapped, length) };
    if unmapped < 0 { Err(io::Error::last_os_error()) } else { result }
}
