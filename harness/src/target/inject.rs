//! Making a stopped target run one system call of ours.
//!
//! `memfd_secret` memory has one reader: its owner. So the owner is made to write it into a memfd that both sides
//! hold, and is then put back as it was, registers and interrupted system call included. A process that closes what it has
//! inherited is made to open a pipe for that time, of which we take the other end.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

use nix::unistd::Pid;
use zeroize::Zeroize;

use super::process::Process;
use super::{STOP_PATIENCE, Target};
use crate::sys::{self, Stop, SyscallStop, Waited};

/// Bytes that one injected call moves.
const PIECE: usize = 64 * 1024;

/// The same through a pipe, which has room for twice as many.
const PIPED: usize = 32 * 1024;

/// How far below its stack a thread keeps two numbers for us: further than the red zone of the calling convention. They are put back.
const BELOW: u64 = 1024;

/// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`: the kernel starts the call again with the same number.
const RESTART_SAME: [i64; 3] = [-512, -513, -514];

/// `ERESTART_RESTARTBLOCK`: the kernel starts `restart_syscall` instead.
const RESTART_BLOCK: i64 = -516;

/// The two bytes of the `syscall` instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Why an injected call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InjectError {
    /// No thread of the process stands where a call can be injected.
    #[error("no thread of the process stands where a call can be injected")]
    NoThread,
    /// The process was running before us and holds no memfd of ours to write into.
    #[error("nothing can be injected into a process that was not started here")]
    NotOurs,
    /// The target has no `syscall` instruction that could be found.
    #[error("no system call instruction found in the target")]
    NoInstruction,
    /// A register set could not be read or written, or the thread could not be resumed.
    #[error("run the injected call")]
    Run {
        /// Why.
        source: io::Error,
    },
    /// Something else happened to the thread meanwhile; it is dealt with as if nothing had been injected.
    #[error("the thread was stopped by something else during the injected call")]
    Disturbed(Waited),
    /// The target has put something else under the number of the memfd between us.
    #[error("the target closed or replaced the descriptor through which its memory comes")]
    Replaced,
    /// The call itself failed in the target.
    #[error("the injected call failed")]
    Call {
        /// With this error.
        source: io::Error,
    },
    /// The memfd between us could not be read or wiped.
    #[error("read what the injected call wrote")]
    Dropbox {
        /// Why.
        source: io::Error,
    },
}

impl From<nix::errno::Errno> for InjectError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Run { source: errno.into() }
    }
}

impl Target<'_> {
    /// Reads memory that only the target itself can read, by injected `pwrite64` calls, and hands it on in pieces.
    ///
    /// # Errors
    ///
    /// [`InjectError`]; what was handed on before stays handed on. The target is put back as it was, unless it ended or
    /// was about to: [`InjectError::Disturbed`].
    pub(crate) fn read_by_injection(
        &mut self,
        process: usize,
        start: u64,
        end: u64,
        mut piece: impl FnMut(u64, &[u8]),
    ) -> Result<(), InjectError> {
        let task = self
            .tasks
            .values()
            .filter(|task| task.process == process)
            .find(|task| {
                matches!(task.stop, Some(Stop::Event(libc::PTRACE_EVENT_STOP) | Stop::Syscall | Stop::Signal(_)))
            })
            .ok_or(InjectError::NoThread)?;
        let (id, stop) = (task.id, task.stop);
        let descriptor = self.dropbox()?.1;
        let saved = nix::sys::ptrace::getregs(id)?;
        let siginfo = match stop {
            Some(Stop::Signal(signal)) => Some((signal, nix::sys::ptrace::getsiginfo(id)?)),
            _ => None,
        };
        let at_entry = stop == Some(Stop::Syscall)
            && matches!(sys::syscall_stop(id).map_err(|source| InjectError::Run { source })?, SyscallStop::Entry(_));
        let instruction = self.syscall_instruction(process, saved.rip)?;

        let owned = self.own_dropbox(process);
        if let Err(error) = &owned
            && !matches!(error, InjectError::Replaced)
        {
            return owned;
        }

        let mut buffer = vec![0_u8; PIECE];
        let mut moved = || {
            if at_entry {
                // Make the kernel skip the call at whose entry the thread stands; it is made again at the end.
                let mut skip = saved;
                skip.orig_rax = u64::MAX;
                nix::sys::ptrace::setregs(id, skip)?;
                run_to_syscall_stop(id)?;
            }
            let mut at = start;
            if owned.is_err() {
                let pipe = self.open_pipe(process, id, &saved, instruction)?;
                let mut drain = || {
                    while at < end {
                        let length = PIPED.min(usize::try_from(end - at).unwrap_or(PIPED));
                        let args = [pipe.theirs[1], at, length as u64, 0];
                        let written = written(call(id, &saved, instruction, libc::SYS_write, args)?)?.min(length);
                        let part = &mut buffer[..written];
                        std::io::Read::read_exact(&mut &pipe.ours, part)
                            .map_err(|source| InjectError::Dropbox { source })?;
                        piece(at, part);
                        at += written as u64;
                    }
                    Ok(())
                };
                let drained = drain();
                // Nothing of it stays, also where the thread was disturbed behind a write.
                while let Ok(1..) = std::io::Read::read(&mut &pipe.ours, &mut buffer) {}
                // Not by a thread that something else has stopped: then they stay, empty.
                if !matches!(drained, Err(InjectError::Disturbed(_))) {
                    for end in pipe.theirs {
                        call(id, &saved, instruction, libc::SYS_close, [end, 0, 0, 0])?;
                    }
                }
                return drained;
            }
            while at < end {
                let length = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
                self.empty_dropbox()?;
                let written =
                    call(id, &saved, instruction, libc::SYS_pwrite64, [descriptor as u64, at, length as u64, 0])?;
                let written = self::written(written)?;
                let part = &mut buffer[..written.min(length)];
                self.dropbox()?.0.read_exact_at(part, 0).map_err(|source| InjectError::Dropbox { source })?;
                piece(at, part);
                at += written as u64;
            }
            Ok(())
        };
        let moved = moved();
        buffer.zeroize();
        let emptied = self.empty_dropbox();
        // A thread that another signal stopped gets its registers back there too: its handler must return to where the
        // target was. One that is ending cannot use them any more.
        let restored = match &moved {
            Err(InjectError::Disturbed(Waited::Stopped(Stop::Signal(_) | Stop::Group(_)))) => {
                nix::sys::ptrace::setregs(id, undone(saved, at_entry)).map_err(InjectError::from)
            }
            Err(InjectError::Disturbed(_)) => Ok(()),
            _ => restore(id, saved, at_entry),
        };
        let result = moved.and(restored).and(emptied);
        if let Err(InjectError::Disturbed(waited)) = &result {
            self.meet(id, *waited);
        } else if let Some(task) = self.tasks.get_mut(&id.as_raw()) {
            task.stop = Some(Stop::Syscall);
            if siginfo.is_some() {
                task.resent = siginfo;
            }
        }
        result
    }

    fn dropbox(&self) -> Result<&(File, RawFd), InjectError> {
        self.dropbox.as_ref().ok_or(InjectError::NotOurs)
    }

    /// Sees that the target's descriptor is still the memfd that we hold: otherwise its memory would be written into
    /// something of its own, and zeros of ours be read for it.
    fn own_dropbox(&self, process: usize) -> Result<(), InjectError> {
        let (ours, descriptor) = self.dropbox()?;
        let ours = ours.metadata().map_err(|source| InjectError::Dropbox { source })?;
        let theirs = std::fs::metadata(format!("/proc/{}/fd/{descriptor}", self.processes[process].pid));
        match theirs {
            Ok(theirs) if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            _ => Err(InjectError::Replaced),
        }
    }

    /// Makes the target open a pipe, and takes its end to read from.
    fn open_pipe(
        &self,
        process: usize,
        id: Pid,
        saved: &libc::user_regs_struct,
        instruction: u64,
    ) -> Result<Pipe, InjectError> {
        let Process { pid, mem, .. } = &self.processes[process];
        let place = saved.rsp.saturating_sub(BELOW) & !15;
        let mut before = [0; 8];
        // Where the target itself alone can read its stack, so can nobody else put it back.
        mem.read_exact_at(&mut before, place).map_err(|_| InjectError::Replaced)?;
        let made =
            call(id, saved, instruction, libc::SYS_pipe2, [place, (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64, 0, 0])?;
        if made != 0 {
            return Err(InjectError::Replaced); // it may not
        }
        let mut numbers = [0; 8];
        let read = mem.read_exact_at(&mut numbers, place);
        let put_back = mem.write_all_at(&before, place);
        read.and(put_back).map_err(|source| InjectError::Dropbox { source })?;
        let [from, to] =
            [[0, 1, 2, 3], [4, 5, 6, 7]].map(|four: [usize; 4]| i32::from_ne_bytes(four.map(|at| numbers[at])));
        let ours = sys::pidfd_open(*pid, false).and_then(|handle| sys::pidfd_getfd(&handle, from));
        let ours = File::from(ours.map_err(|source| InjectError::Dropbox { source })?);
        // Both are ends of one pipe, whatever the target has made of the call.
        let about = |meta: io::Result<std::fs::Metadata>| {
            meta.ok().filter(|meta| meta.file_type().is_fifo()).map(|meta| (meta.dev(), meta.ino()))
        };
        let here = about(ours.metadata());
        let there = about(std::fs::metadata(format!("/proc/{pid}/fd/{to}")));
        if here.is_none() || here != there {
            return Err(InjectError::Replaced);
        }
        Ok(Pipe { ours, theirs: [from, to].map(|number| u64::from(number.unsigned_abs())) })
    }

    /// Overwrites what the memfd holds and gives the pages back. What is read from it next was written after this: a
    /// read past its new end fails.
    fn empty_dropbox(&self) -> Result<(), InjectError> {
        let dropbox = &self.dropbox()?.0;
        let empty = || {
            let length = dropbox.metadata()?.len();
            let zeros = vec![0; PIECE];
            let mut at = 0;
            while at < length {
                let part = PIECE.min(usize::try_from(length - at).unwrap_or(PIECE));
                dropbox.write_all_at(&zeros[..part], at)?;
                at += part as u64;
            }
            dropbox.set_len(0)
        };
        empty().map_err(|source| InjectError::Dropbox { source })
    }

    /// The address of a `syscall` instruction that the target can run: the one it has just run, or one of the vDSO.
    fn syscall_instruction(&self, process: usize, rip: u64) -> Result<u64, InjectError> {
        let mem = &self.processes[process].mem;
        // Just behind it while the call is interrupted, just before it once an injected call was undone.
        let mut around = [0; 4];
        if let Some(before) = rip.checked_sub(2)
            && mem.read_exact_at(&mut around, before).is_ok()
            && let Some(at) = [0, 2].into_iter().find(|at| around[*at..at + 2] == SYSCALL)
        {
            return Ok(before + at as u64);
        }
        let regions = crate::snapshot::regions(&self.processes[process]).map_err(|_| InjectError::NoInstruction)?;
        let vdso = regions.iter().find(|region| region.name == "[vdso]").ok_or(InjectError::NoInstruction)?;
        let mut code = vec![0; usize::try_from(vdso.end - vdso.start).map_err(|_| InjectError::NoInstruction)?];
        mem.read_exact_at(&mut code, vdso.start).map_err(|source| InjectError::Run { source })?;
        let at = memchr::memmem::find(&code, &SYSCALL).ok_or(InjectError::NoInstruction)?;
        Ok(vdso.start + at as u64)
    }
}

/// A pipe that the target was made to open.
struct Pipe {
    /// The end to read from.
    ours: File,
    /// Both ends, by the target's numbers.
    theirs: [u64; 2],
}

/// How many bytes an injected write has written.
fn written(returned: i64) -> Result<usize, InjectError> {
    match usize::try_from(returned) {
        Ok(0) => Err(InjectError::Call { source: io::ErrorKind::WriteZero.into() }),
        Ok(written) => Ok(written),
        Err(_) => Err(InjectError::Call { source: io::Error::from_raw_os_error(-returned as i32) }),
    }
}

/// Runs one system call in the thread and returns what it returned.
fn call(
    id: Pid,
    saved: &libc::user_regs_struct,
    instruction: u64,
    number: libc::c_long,
    args: [u64; 4],
) -> Result<i64, InjectError> {
    let mut regs = *saved;
    regs.rip = instruction;
    regs.rax = number as u64;
    regs.orig_rax = u64::MAX; // no system call to restart when the thread leaves its stop
    [regs.rdi, regs.rsi, regs.rdx, regs.r10] = args;
    nix::sys::ptrace::setregs(id, regs)?;
    run_to_syscall_stop(id)?; // its entry
    run_to_syscall_stop(id)?; // its exit
    Ok(nix::sys::ptrace::getregs(id)?.rax as i64)
}

/// Puts the registers back so that the thread goes on as if nothing had happened.
fn restore(id: Pid, saved: libc::user_regs_struct, at_entry: bool) -> Result<(), InjectError> {
    nix::sys::ptrace::setregs(id, undone(saved, at_entry))?;
    // Run the instruction again, up to the entry stop at which the thread stood.
    if at_entry { run_to_syscall_stop(id) } else { Ok(()) }
}

/// The registers with which the thread makes the call that it was in, or about to make, again.
fn undone(mut saved: libc::user_regs_struct, at_entry: bool) -> libc::user_regs_struct {
    let interrupted = saved.orig_rax as i64 >= 0;
    if at_entry || (interrupted && RESTART_SAME.contains(&(saved.rax as i64))) {
        saved.rip -= SYSCALL.len() as u64;
        saved.rax = saved.orig_rax;
    } else if interrupted && saved.rax as i64 == RESTART_BLOCK {
        saved.rip -= SYSCALL.len() as u64;
        saved.rax = libc::SYS_restart_syscall as u64;
    }
    saved.orig_rax = u64::MAX;
    saved
}

/// Resumes the thread and waits for its next system call stop. Bounded: the call is ours and does not block.
fn run_to_syscall_stop(id: Pid) -> Result<(), InjectError> {
    sys::resume(id, true, 0).map_err(|source| InjectError::Run { source })?;
    let patience = std::time::Instant::now() + STOP_PATIENCE;
    loop {
        match sys::wait(id, false).map_err(|source| InjectError::Run { source })? {
            Waited::Stopped(Stop::Syscall) => return Ok(()),
            // An interrupt that was asked for before, or the same one again: not ours to act on.
            Waited::Stopped(Stop::Event(libc::PTRACE_EVENT_STOP)) => {
                sys::resume(id, true, 0).map_err(|source| InjectError::Run { source })?;
            }
            Waited::Nothing if std::time::Instant::now() < patience => std::thread::yield_now(),
            Waited::Nothing => {
                return Err(InjectError::Run { source: io::ErrorKind::TimedOut.into() });
            }
            other => return Err(InjectError::Disturbed(other)),
        }
    }
}
