//! Waiting for tracees, resuming them, and their register sets.

use std::io;
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

/// The note type of the extended state (linux/elf.h); not in `libc`.
const NT_X86_XSTATE: libc::c_int = 0x202;

/// What a wait on one task told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Nothing has happened.
    Nothing,
    /// It stands still.
    Stopped(Stop),
    /// It is gone; for the last thread of a process this is the process's end.
    Ended(End),
}

/// Why a tracee stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A `PTRACE_EVENT_*` number; `PTRACE_EVENT_STOP` means that we interrupted it, or that it is new.
    Event(i32),
    /// A group stop: this stopping signal was delivered to it.
    Group(i32),
    /// A system call's entry or exit (`PTRACE_O_TRACESYSGOOD`).
    Syscall,
    /// A signal is about to be delivered.
    Signal(i32),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status.
    Exit(i32),
    /// By this signal, with or without a core dump.
    Signal(i32, bool),
}

/// The system calls that matter to a tracer, whichever of the machine's three ways they are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `execve`, `execveat`.
    Exec,
    /// `exit_group`.
    ExitGroup,
    /// `exit`: this thread alone.
    Exit,
    /// `clone`, by its flags: the first argument.
    Clone {
        /// `CLONE_*`.
        flags: u64,
        /// Whether the call was made the 32-bit way, whose first argument is in `rbx`.
        compat: bool,
    },
    /// `clone3`, whose flags stand in memory at this address.
    Clone3 {
        /// Address of `struct clone_args`.
        args: u64,
    },
    /// `sigaltstack`, the 64-bit way.
    AlternateStack {
        /// Address of the new stack's `stack_t`; 0 for none.
        new: u64,
    },
    /// Any other.
    Other {
        /// Whether it was made the 64-bit way; else its number is of another table (`int 0x80`, x32).
        native: bool,
    },
}

/// `AUDIT_ARCH_I386` of linux/audit.h.
const I386: u32 = 0x4000_0003;

/// The bit that marks a call of the x32 kind (asm/unistd.h).
const X32: u64 = 0x4000_0000;

impl Call {
    /// Reads a call's number in the numbering of its architecture.
    ///
    /// # Source
    ///
    /// The kernel's syscall_32.tbl and syscall_64.tbl; x32 has numbers of its own for the `exec` calls.
    fn read(arch: u32, number: u64, first: u64) -> Self {
        let compat = arch == I386;
        match (compat, number & !X32, number & X32 != 0) {
            (true, 11 | 358, _) | (false, 59 | 322, false) | (false, 520 | 545, true) => Self::Exec,
            (true, 252, _) | (false, 231, _) => Self::ExitGroup,
            (true, 1, _) | (false, 60, _) => Self::Exit,
            (true, 120, _) | (false, 56, _) => Self::Clone { flags: first, compat },
            (_, 435, _) => Self::Clone3 { args: first },
            (false, 131, false) => Self::AlternateStack { new: first },
            _ => Self::Other { native: !compat && number & X32 == 0 },
        }
    }
}

/// Which side of a system call a tracee stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyscallStop {
    /// At its entry.
    Entry(Call),
    /// At its exit.
    Exit,
    /// Neither.
    None,
}

/// Waits for one task, whichever kind of child it is; `block` says whether to wait for a change.
///
/// The wait names the task and leaves children of other threads alone (`__WALL | __WNOTHREAD`), so that several
/// tracers can work in one process.
///
/// # Errors
///
/// `ECHILD` when the task is not (or no longer) ours; `EINTR` is retried.
pub(crate) fn wait(task: Pid, block: bool) -> io::Result<Waited> {
    let flags = libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid int to write to.
        let waited = unsafe { libc::waitpid(task.as_raw(), &raw mut status, flags) };
        match waited {
            0 => return Ok(Waited::Nothing),
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => return Ok(read_status(status)),
        }
    }
}

fn read_status(status: i32) -> Waited {
    if libc::WIFEXITED(status) {
        return Waited::Ended(End::Exit(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Waited::Ended(End::Signal(libc::WTERMSIG(status), libc::WCOREDUMP(status)));
    }
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    Waited::Stopped(match (signal, event) {
        (signal, libc::PTRACE_EVENT_STOP) if signal != libc::SIGTRAP => Stop::Group(signal),
        (_, event) if event != 0 => Stop::Event(event),
        (signal, _) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (signal, _) => Stop::Signal(signal),
    })
}

/// Lets a stopped tracee go on, to the next system call stop if `syscalls`, delivering `signal` unless it is 0.
///
/// # Errors
///
/// `ESRCH` when it is not stopped or was killed meanwhile.
pub(crate) fn resume(task: Pid, syscalls: bool, signal: i32) -> io::Result<()> {
    let request = if syscalls { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
    request_number(request, task, 0, signal as usize)
}

/// Lets a stopped tracee run one instruction, delivering `signal` unless it is 0. One that has a handler for it stops
/// before the first instruction of that handler.
///
/// # Errors
///
/// `ESRCH` as for [`resume`].
pub(crate) fn step(task: Pid, signal: i32) -> io::Result<()> {
    request_number(libc::PTRACE_SINGLESTEP, task, 0, signal as usize)
}

/// Whether the SIGTRAP for which a tracee stands still is the end of a step, and not one that it was sent or made itself.
pub(crate) fn is_step(task: Pid) -> bool {
    // By the processor, at a call's end, before a handler's first instruction (asm-generic/siginfo.h, kernel/signal.c).
    const ENDS: [i32; 3] = [libc::TRAP_TRACE, libc::TRAP_BRKPT, libc::SIGTRAP];
    nix::sys::ptrace::getsiginfo(task).is_ok_and(|info| ENDS.contains(&info.si_code))
}

/// The address of the next instruction of a stopped tracee.
///
/// # Errors
///
/// `ESRCH` when it is not stopped.
pub(crate) fn instruction_pointer(task: Pid) -> io::Result<u64> {
    let offset = std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
    Ok(nix::sys::ptrace::read_user(task, ptr::without_provenance_mut(offset))?.cast_unsigned())
}

/// The value of debug register `number` of a stopped tracee.
///
/// # Errors
///
/// `ESRCH` when it is not stopped.
///
/// # Source
///
/// ptrace(2), *PTRACE_PEEKUSER*; `u_debugreg` of sys/user.h; Intel SDM volume 3, *Debug Registers*.
pub(crate) fn debug_register(task: Pid, number: usize) -> io::Result<u64> {
    let offset = ptr::without_provenance_mut(debug_register_offset(number));
    Ok(nix::sys::ptrace::read_user(task, offset)?.cast_unsigned())
}

/// Sets debug register `number` of a stopped tracee.
///
/// # Errors
///
/// `ESRCH` as for [`debug_register`]; `EINVAL` for an address that is not the target's to use; `ENOSPC` when all
/// breakpoints of the processor are taken.
pub(crate) fn set_debug_register(task: Pid, number: usize, value: u64) -> io::Result<()> {
    let offset = ptr::without_provenance_mut(debug_register_offset(number));
    Ok(nix::sys::ptrace::write_user(task, offset, value.cast_signed())?)
}

fn debug_register_offset(number: usize) -> usize {
    std::mem::offset_of!(libc::user, u_debugreg) + number * size_of::<libc::c_ulonglong>()
}

/// Leaves a tracee in its group stop, where only SIGCONT or SIGKILL moves it.
///
/// # Errors
///
/// `ESRCH` as for [`resume`]; `EIO` when it is not in a group stop.
pub(crate) fn listen(task: Pid) -> io::Result<()> {
    request_number(libc::PTRACE_LISTEN, task, 0, 0)
}

/// Ends the tracing of a stopped tracee, which runs on with `signal` unless it is 0: any signal, real-time ones too.
///
/// # Errors
///
/// `ESRCH` as for [`resume`].
pub(crate) fn detach(task: Pid, signal: i32) -> io::Result<()> {
    request_number(libc::PTRACE_DETACH, task, 0, signal as usize)
}

/// A request whose data is a number.
fn request_number(request: libc::c_uint, task: Pid, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: for the requests that this module passes, address and data are numbers that the kernel does not follow.
    let done = unsafe {
        libc::ptrace(
            request,
            task.as_raw(),
            ptr::without_provenance_mut::<libc::c_void>(address),
            ptr::without_provenance_mut::<libc::c_void>(data),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Which side of a system call the stopped task stands on.
///
/// # Errors
///
/// `ESRCH` when it is not stopped.
///
/// # Source
///
/// ptrace(2), *PTRACE_GET_SYSCALL_INFO*, Linux 5.3.
pub(crate) fn syscall_stop(task: Pid) -> io::Result<SyscallStop> {
    let info = nix::sys::ptrace::syscall_info(task)?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that the union holds `entry`.
            let entry = unsafe { info.u.entry };
            SyscallStop::Entry(Call::read(info.arch, entry.nr, entry.args[0]))
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => SyscallStop::Exit,
        _ => SyscallStop::None,
    })
}

/// The general registers of a stopped task as bytes, in the order of `user_regs_struct`.
///
/// # Errors
///
/// `ESRCH` when it is not stopped.
pub(crate) fn general_registers(task: Pid) -> io::Result<Vec<u8>> {
    regset(task, libc::NT_PRSTATUS, 512)
}

/// The x87 and SSE registers of a stopped task in the layout of FXSAVE, as bytes.
///
/// # Errors
///
/// `ESRCH` when it is not stopped.
pub(crate) fn float_registers(task: Pid) -> io::Result<Vec<u8>> {
    regset(task, libc::NT_PRFPREG, 512)
}

/// The extended state of a stopped task (x87, SSE, AVX and up) in the layout of XSAVE, as bytes.
///
/// # Errors
///
/// `ESRCH` when it is not stopped; `ENODEV` or `EINVAL` on a machine without XSAVE.
pub(crate) fn vector_registers(task: Pid) -> io::Result<Vec<u8>> {
    // 11 KiB with AMX tiles today; the kernel says how much it wrote.
    regset(task, NT_X86_XSTATE, 64 * 1024)
}

fn regset(task: Pid, note: libc::c_int, room: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; room];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY:
    // - `part` describes `bytes`, which lives and is not moved until after the call;
    // - the kernel writes at most `iov_len` bytes and sets `iov_len` to what it wrote.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            task.as_raw(),
            ptr::without_provenance_mut::<libc::c_void>(note as usize),
            (&raw mut part).cast::<libc::c_void>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    bytes.truncate(part.iov_len);
    Ok(bytes)
}

/// Reads another process's memory by `process_vm_readv`; returns how many bytes came.
///
/// # Errors
///
/// `EFAULT` for unreadable memory (PROT_NONE and memfd_secret among it), `EPERM` without the right to trace.
pub(crate) fn read_vm(process: Pid, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let Ok(base) = usize::try_from(address) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let remote = [nix::sys::uio::RemoteIoVec { base, len: into.len() }];
    Ok(nix::sys::uio::process_vm_readv(process, &mut [io::IoSliceMut::new(into)], &remote)?)
}

/// Reads many stretches of another process's memory, one after the other, by one `process_vm_readv`.
///
/// Returns how many bytes came, counted over the stretches in their order; fewer than asked for when one of them
/// cannot be read.
///
/// # Errors
///
/// As for [`read_vm`], when the first stretch cannot be read; `EINVAL` for more than 1024 stretches.
pub(crate) fn read_vm_parts(process: Pid, parts: &[nix::sys::uio::RemoteIoVec], into: &mut [u8]) -> io::Result<usize> {
    Ok(nix::sys::uio::process_vm_readv(process, &mut [io::IoSliceMut::new(into)], parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_another_table_are_told_from_those_of_the_64_bit_kind() {
        const X86_64: u32 = 0xc000_003e;

        assert_eq!(Call::read(X86_64, 0, 0), Call::Other { native: true });
        assert_eq!(Call::read(I386, 3, 0), Call::Other { native: false });
        assert_eq!(Call::read(X86_64, X32, 0), Call::Other { native: false });
        assert_eq!(Call::read(I386, 11, 0), Call::Exec);
    }
}
