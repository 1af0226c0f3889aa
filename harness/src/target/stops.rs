//! What a target is stopped at besides its own announcements and endings.
//!
//! Which file a call uses is asked of the kernel by the number in the call's first argument, while the caller stands
//! still: the file's identity, not its name, so that copies of a descriptor count too.

use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use super::Event;
use crate::sys::{Call, SyscallStop};

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its device.
    pub(crate) device: u64,
    /// Its inode on that device.
    pub(crate) inode: u64,
    /// Whether it is a terminal, which `/dev/tty` names as well.
    pub(crate) terminal: bool,
}

/// Device number of `/dev/tty`: 5, 0 (Documentation/admin-guide/devices.txt).
const DEV_TTY: u64 = libc::makedev(5, 0);

/// What is stopped at.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    /// Reads from this file.
    pub(crate) file: Option<Identity>,
    /// The ends of all calls that write to a descriptor.
    pub(crate) writes: bool,
    /// The entries of these calls.
    pub(crate) calls: Vec<u64>,
    /// Deliveries of these signals.
    pub(crate) signals: Vec<i32>,
}

/// Calls that bring bytes from the descriptor in their first argument to the caller.
const READS: [libc::c_long; 10] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
];

/// Calls that move bytes out through a descriptor.
const WRITES: [libc::c_long; 8] = [
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
];

impl Stops {
    /// What a system call stop means; `None` when nobody asked.
    pub(super) fn event(&self, task: Pid, process: usize, side: SyscallStop) -> Option<Event> {
        if self.file.is_none() && !self.writes && self.calls.is_empty() {
            return None;
        }
        let registers = nix::sys::ptrace::getregs(task).ok()?;
        let call = registers.orig_rax;
        match side {
            // Its number is of another table.
            SyscallStop::Entry(Call::Other { native: false }) => None,
            SyscallStop::Entry(_) if self.calls.contains(&call) => Some(Event::Call(process, call)),
            SyscallStop::Entry(_) => {
                (is(call, &READS) && self.is_watched(task, registers.rdi)).then_some(Event::Reading(process))
            }
            SyscallStop::Exit if is(call, &READS) && self.is_watched(task, registers.rdi) => {
                // A negative number is an error: nothing came.
                let bytes = u64::try_from(registers.rax as i64).ok()?;
                Some(Event::Read(process, bytes))
            }
            SyscallStop::Exit => (self.writes && is(call, &WRITES)).then_some(Event::Wrote(process)),
            SyscallStop::None => None,
        }
    }

    /// Whether a descriptor of the task is the watched file.
    fn is_watched(&self, task: Pid, descriptor: u64) -> bool {
        let Some(file) = self.file else { return false };
        let descriptor = descriptor as i32; // the kernel looks at the low half alone
        let Ok(found) = std::fs::metadata(format!("/proc/{task}/fd/{descriptor}")) else { return false };
        let same = (found.dev(), found.ino()) == (file.device, file.inode);
        same || file.terminal && found.rdev() == DEV_TTY
    }
}

impl Identity {
    /// The identity of an open file of ours.
    ///
    /// # Errors
    ///
    /// That of `fstat`.
    pub(crate) fn of(file: impl std::os::fd::AsFd, terminal: bool) -> std::io::Result<Self> {
        let stat = nix::sys::stat::fstat(file)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, terminal })
    }
}

fn is(call: u64, calls: &[libc::c_long]) -> bool {
    calls.iter().any(|other| u64::try_from(*other) == Ok(call))
}
