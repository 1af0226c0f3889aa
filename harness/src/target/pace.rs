//! One process of the tree in single steps, counted: from one moment until another, or for so many instructions.
//!
//! All threads of the process are stepped, and their instructions counted together. A system call is one
//! instruction, and is stopped at as ever: what a call means is decided in `tree`. What a repeated string instruction does
//! counts once a repetition.

use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use super::{Event, Target, TargetError};
use crate::sys::{self, Stop, SyscallStop, Waited};

/// Instructions that a thread is stepped in a row before anybody else's turn comes.
const IN_A_ROW: u32 = 512;

/// Bytes of a page of code.
const PAGE: usize = 4096;

/// How far a process has come in single steps.
#[derive(Debug)]
pub(super) struct Pace {
    process: usize,
    done: u64,
    until: u64,
    /// Code near the last step: read once, as long as no call can have changed what is mapped.
    page: Option<(u64, Box<[u8; PAGE]>)>,
}

impl Target<'_> {
    /// From the next [`go_on`](Self::go_on) on a process runs in single steps. [`Event::Paced`] comes after so many
    /// instructions, at least one.
    pub(crate) fn pace(&mut self, process: usize, until: u64) {
        self.has_paced = true;
        self.pace = Some(Pace { process, done: 0, until: until.max(1), page: None });
    }

    /// Ends that, and says how many instructions there were.
    pub(crate) fn end_pace(&mut self) -> u64 {
        self.pace.take().map_or(0, |pace| pace.done)
    }

    /// Whether the threads of a process run in single steps.
    pub(super) fn is_paced(&self, process: usize) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.process == process)
    }

    /// Lets a task of the paced process go on from its stop: by one instruction, or by a whole system call.
    pub(super) fn step_on(&mut self, number: i32) {
        let Some(task) = self.tasks.get(&number) else { return };
        let (id, stop) = (task.id, task.stop);
        let in_call = || nix::sys::ptrace::getregs(id).is_ok_and(|registers| registers.orig_rax.cast_signed() >= 0);
        let whole = match stop {
            Some(Stop::Syscall) if task.resent.is_some() => true,
            Some(Stop::Syscall) => !matches!(sys::syscall_stop(id), Ok(SyscallStop::Exit)) || self.is_at_call(number),
            // Interrupted in a call, it makes that again.
            Some(Stop::Event(libc::PTRACE_EVENT_STOP)) => in_call() || self.is_at_call(number),
            // A step would run the handler's first instruction unseen, if it has one; it stops before that.
            Some(Stop::Signal(_)) => false,
            Some(Stop::Group(_) | Stop::Event(_)) | None => true,
        };
        let Some(task) = self.tasks.get_mut(&number) else { return };
        if whole {
            task.go_on(true);
            if let Some(pace) = &mut self.pace {
                pace.page = None;
            }
            return;
        }
        let signal = match task.stop.take() {
            Some(Stop::Signal(signal)) => signal,
            _ => 0,
        };
        drop(sys::step(id, signal)); // ESRCH: killed while it stood still
    }

    /// Takes in a stop that may be the end of a step, and steps on. `None` if it is another stop, which is still to be
    /// decided on; else whether the count is full.
    pub(super) fn stepped(&mut self, number: i32) -> Result<Option<Option<Event>>, TargetError> {
        let Some(task) = self.tasks.get(&number) else { return Ok(None) };
        let (id, process) = (task.id, task.process);
        if task.stop != Some(Stop::Signal(libc::SIGTRAP)) || !sys::is_step(id) {
            return Ok(None);
        }
        if !self.is_paced(process) {
            // The end of the last step, which came when nobody counted any more: nothing of it is delivered.
            if let Some(task) = self.tasks.get_mut(&number) {
                task.stop = Some(Stop::Event(libc::PTRACE_EVENT_STOP));
            }
            self.release(number)?;
            return Ok(Some(None));
        }
        for turn in 1.. {
            let Some(pace) = &mut self.pace else { break };
            pace.done += 1;
            let full = pace.done >= pace.until;
            self.follow_step(number);
            // The trap is ours: nothing of it is delivered.
            if let Some(task) = self.tasks.get_mut(&number) {
                task.stop = Some(Stop::Event(libc::PTRACE_EVENT_STOP));
            }
            if full && self.lose_trail() {
                self.release(number)?;
                break;
            }
            if full {
                self.stop_tree()?;
                return Ok(Some(Some(Event::Paced(process))));
            }
            if self.is_at_call(number) {
                if let Some(pace) = &mut self.pace {
                    pace.page = None;
                }
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.go_on(true);
                }
                break;
            }
            if let Some(task) = self.tasks.get_mut(&number) {
                task.stop = None;
            }
            if sys::step(id, 0).is_err() || turn >= IN_A_ROW {
                break; // ESRCH: killed while it stood still
            }
            // One instruction that is no call does not block.
            let waited = sys::wait(id, true).map_err(|source| TargetError::Wait { task: number, source })?;
            if waited != Waited::Stopped(Stop::Signal(libc::SIGTRAP)) || !sys::is_step(id) {
                self.meet(id, waited);
                break;
            }
        }
        Ok(Some(None))
    }

    /// Whether the next instruction of a thread is a system call.
    fn is_at_call(&mut self, number: i32) -> bool {
        let Some(task) = self.tasks.get(&number) else { return false };
        let Some(process) = self.processes.get(task.process) else { return false };
        let Ok(at) = sys::instruction_pointer(task.id) else { return false };
        let start = at - at % PAGE as u64;
        let offset = (at - start) as usize;
        let mut code = [0; 2];
        if offset + code.len() > PAGE {
            drop(process.mem.read_exact_at(&mut code, at)); // the end of what is mapped: no call, then
        } else {
            let Some(pace) = &mut self.pace else { return false };
            if pace.page.as_ref().is_none_or(|(page, _)| *page != start) {
                let mut page = Box::new([0; PAGE]);
                // Not readable (memfd_secret, or nothing there at all): nobody can say.
                pace.page = process.mem.read_exact_at(&mut page[..], start).ok().map(|()| (start, page));
            }
            if let Some((_, page)) = &pace.page {
                code.copy_from_slice(&page[offset..offset + 2]);
            }
        }
        matches!(code, [0x0f, 0x05] | [0x0f, 0x34] | [0xcd, 0x80]) // syscall, sysenter, int 0x80
    }

    /// Sends a signal to a process that stands still, as kill(2) does: it arrives before its next instruction.
    ///
    /// # Errors
    ///
    /// Why not: `ESRCH` when it is gone.
    pub(crate) fn send(&self, process: usize, signal: i32) -> std::io::Result<()> {
        let signal = nix::sys::signal::Signal::try_from(signal)?;
        let pid = self.processes.get(process).map_or(Pid::from_raw(i32::MAX), |process| process.pid);
        Ok(nix::sys::signal::kill(pid, signal)?)
    }
}
