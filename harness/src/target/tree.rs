//! The tasks of a target: who runs, who stands still and why, and what each stop means.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::alternate::Alternate;
use super::{EXIT_PATIENCE, Event, How, Process, STOP_PATIENCE, Target, TargetError};
use crate::sys::{self, Call, End, Stop, SyscallStop, Waited};

/// One thread of the tree.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: Pid,
    /// Index of its process.
    pub(super) process: usize,
    /// Its age: how many threads of the tree were there before it.
    pub(super) born: u32,
    /// Why it stands still; `None` while it runs.
    pub(super) stop: Option<Stop>,
    /// Process of the task that made it; for a process it is the one whose memory it began with.
    parent: Option<usize>,
    /// It was sent one step into the handler of this signal, to see what the signal's frame overwrites.
    stepping: Option<i32>,
    /// The stack that it named for its signals.
    pub(super) alternate: Alternate,
    /// A fatal signal that was looked at already and sent again after an injected call, with its siginfo.
    pub(super) resent: Option<(i32, libc::siginfo_t)>,
    /// It waits in the kernel for a child made by `vfork` and cannot be stopped.
    pub(super) vforking: bool,
    /// Since when it stands in its exit stop, waiting for the other threads of its process.
    leaving: Option<Instant>,
    /// It has passed its exit stop alone; as a process's first thread it stays on as a zombie.
    left: bool,
    /// It has entered `exit_group`, which does not return.
    exiting: bool,
    /// It has entered a call that makes a thread or a process, and the kernel has not told us of that one.
    cloning: bool,
    /// The stop in which it was left, to be taken out of it by another thread's `exit_group`.
    held: Option<Stop>,
}

impl Task {
    pub(super) fn new(id: Pid, process: usize) -> Self {
        Self {
            id,
            process,
            born: 0,
            stop: None,
            parent: None,
            stepping: None,
            alternate: Alternate::default(),
            resent: None,
            vforking: false,
            leaving: None,
            left: false,
            exiting: false,
            cloning: false,
            held: None,
        }
    }

    /// Whether it has passed its exit stop: a zombie at most, without registers or memory.
    pub(super) fn gone(&self) -> bool {
        self.left && self.stop.is_none()
    }

    /// Whether what it stands before can be the end of the others of its process: `exit_group` surely, a signal or another
    /// call (`execve`) perhaps.
    pub(super) const fn may_end_others(&self) -> (bool, bool) {
        (self.exiting, matches!(self.stop, Some(Stop::Signal(_) | Stop::Syscall)))
    }

    /// Lets it run on from a stop that was about the tracer's own business: there is nothing to deliver.
    fn go_on_unsignalled(&mut self, syscalls: bool) {
        if self.stop.take().is_some() {
            drop(sys::resume(self.id, syscalls, 0)); // ESRCH: killed while it stood still
        }
    }

    /// Lets it run on from its stop, delivering the signal that it stopped for.
    pub(super) fn go_on(&mut self, syscalls: bool) {
        let Some(stop) = self.stop.take() else { return };
        let gone = match stop {
            Stop::Group(_) => sys::listen(self.id),
            Stop::Signal(signal) => sys::resume(self.id, syscalls, signal),
            // After an injected call the kernel sends the signal anew; it is known again by `resent`.
            Stop::Syscall => sys::resume(self.id, syscalls, self.resent.map_or(0, |(signal, _)| signal)),
            Stop::Event(_) => sys::resume(self.id, syscalls, 0),
        };
        // ESRCH: killed while it stood still. Its end arrives at the next wait.
        drop(gone);
    }
}

impl Task {
    /// Ends the tracing of it; a signal that it stopped for is delivered.
    pub(super) fn let_go(&mut self) {
        let signal = match self.stop.take() {
            Some(Stop::Signal(signal)) => signal,
            _ => 0,
        };
        let _ = sys::detach(self.id, signal); // ESRCH: it was killed meanwhile
    }
}

impl Target<'_> {
    /// Stops every task and decides on nothing: for a process that is only looked at.
    pub(super) fn hold(&mut self) -> Result<(), TargetError> {
        let running: Vec<i32> =
            self.tasks.iter().filter(|(_, task)| task.stop.is_none()).map(|(number, _)| *number).collect();
        for number in &running {
            match nix::sys::ptrace::interrupt(Pid::from_raw(*number)) {
                Ok(()) | Err(Errno::ESRCH) => {} // ESRCH: it is ending; the wait below sees it
                Err(errno) => return Err(TargetError::Wait { task: *number, source: errno.into() }),
            }
        }
        running.into_iter().try_for_each(|number| self.await_stop(number))
    }

    /// Takes in what has happened to running tasks; says whether anything has.
    pub(super) fn harvest(&mut self) -> Result<bool, TargetError> {
        let running: Vec<Pid> = self.tasks.values().filter(|task| task.stop.is_none()).map(|task| task.id).collect();
        let mut moved = false;
        for task in running {
            moved |= self.take_in(task)?;
        }
        // Threads that stood in their exit stop for long enough ended alone.
        for (number, task) in &self.tasks {
            if task.leaving.is_some_and(|since| since.elapsed() > EXIT_PATIENCE) && !self.undecided.contains(number) {
                self.undecided.push_back(*number);
            }
        }
        Ok(moved)
    }

    /// Takes in one task's change, if there is one.
    fn take_in(&mut self, id: Pid) -> Result<bool, TargetError> {
        match sys::wait(id, false) {
            Ok(waited) => {
                self.meet(id, waited);
                Ok(waited != Waited::Nothing)
            }
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                // Another thread's `execve` took its place, or it was reaped with its process.
                self.bury(id, None);
                Ok(true)
            }
            Err(source) => Err(TargetError::Wait { task: id.as_raw(), source }),
        }
    }

    /// Writes down what a wait told of a task.
    pub(super) fn meet(&mut self, id: Pid, waited: Waited) {
        match waited {
            Waited::Nothing => {}
            Waited::Stopped(stop) => {
                if let Some(task) = self.tasks.get_mut(&id.as_raw()) {
                    task.stop = Some(stop);
                    task.held = None;
                    self.undecided.push_back(id.as_raw());
                }
            }
            Waited::Ended(end) => self.bury(id, Some(end)),
        }
    }

    fn bury(&mut self, id: Pid, end: Option<End>) {
        let Some(task) = self.tasks.remove(&id.as_raw()) else { return };
        self.undecided.retain(|other| *other != id.as_raw());
        let Some(process) = self.processes.get_mut(task.process) else {
            self.unmet += 1; // whatever it was, it is gone
            return;
        };
        if process.pid == id {
            process.ended = true;
            if task.process == 0 {
                self.first_end = end;
            }
        } else if !task.left {
            process.unseen += 1;
        }
    }

    /// Waits until a task stands still.
    pub(super) fn await_stop(&mut self, number: i32) -> Result<(), TargetError> {
        let patience = Instant::now() + STOP_PATIENCE;
        loop {
            self.take_in(Pid::from_raw(number))?;
            match self.tasks.get(&number) {
                Some(task) if task.stop.is_none() => {}
                _ => return Ok(()), // stands still, or is gone
            }
            if Instant::now() > patience {
                return Err(TargetError::Restless { task: number });
            }
            std::thread::yield_now();
        }
    }

    /// Stops every task of the tree that can be stopped.
    ///
    /// A task that comes to another stop first keeps it, undecided; the interrupt then shows up later by itself.
    pub(super) fn stop_tree(&mut self) -> Result<(), TargetError> {
        loop {
            let running: Vec<i32> = self
                .tasks
                .iter()
                .filter(|(_, task)| task.stop.is_none() && !task.vforking && !task.left)
                .map(|(number, _)| *number)
                .collect();
            if running.is_empty() {
                return Ok(());
            }
            for number in &running {
                match nix::sys::ptrace::interrupt(Pid::from_raw(*number)) {
                    Ok(()) | Err(Errno::ESRCH) => {} // ESRCH: it is ending; the wait below sees it
                    Err(errno) => return Err(TargetError::Wait { task: *number, source: errno.into() }),
                }
            }
            for number in running {
                self.await_stop(number)?;
                if self.tasks.get(&number).and_then(|task| task.stop) == Some(Stop::Event(libc::PTRACE_EVENT_STOP)) {
                    self.settle(number)?;
                }
            }
        }
    }

    /// Deals with an interrupt's stop: nothing to decide, but a new process must be opened.
    fn settle(&mut self, number: i32) -> Result<(), TargetError> {
        self.undecided.retain(|other| *other != number);
        self.adopt(Pid::from_raw(number))
    }

    /// What a stop means. `None` when it is nothing to look at; the task then runs on.
    pub(super) fn decide(&mut self, number: i32) -> Result<Option<Event>, TargetError> {
        if self.has_paced
            && let Some(event) = self.stepped(number)?
        {
            return Ok(event);
        }
        self.pin(number);
        self.follow_call(number);
        if self.watch.is_some() && self.decide_watched(number)? {
            return Ok(None);
        }
        let Some(task) = self.tasks.get_mut(&number) else { return Ok(None) };
        let (id, process, Some(stop)) = (task.id, task.process, task.stop) else { return Ok(None) };
        let mut back = false;
        let event = match stop {
            Stop::Event(libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
                task.vforking = stop == Stop::Event(libc::PTRACE_EVENT_VFORK);
                task.cloning = false;
                // A thread begins without one, a process with its parent's.
                let is_process = stop != Stop::Event(libc::PTRACE_EVENT_CLONE);
                let alternate = if is_process { task.alternate.inherited() } else { Alternate::default() };
                let lost = |source: io::Error| TargetError::Wait { task: number, source };
                match nix::sys::ptrace::getevent(id) {
                    Ok(child) => {
                        let child = i32::try_from(child).map_err(|error| lost(io::Error::other(error)))?;
                        let child = self.tasks.entry(child);
                        let child = child.or_insert_with_key(|child| Task::new(Pid::from_raw(*child), usize::MAX));
                        child.parent = Some(process);
                        child.alternate = alternate;
                    }
                    // Killed while it stood still; its child dies with the tree, and the missing look shows.
                    Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(lost(errno.into())),
                }
                None
            }
            Stop::Event(libc::PTRACE_EVENT_VFORK_DONE) => {
                task.vforking = false;
                None
            }
            Stop::Event(libc::PTRACE_EVENT_EXEC) => {
                // Every other thread of the process is gone, and the one that called has the process's number.
                self.tasks.retain(|_, other| other.process != process || other.id == id);
                // If the first thread had ended before, this is not that thread any more, which had left.
                if let Some(task) = self.tasks.get_mut(&number) {
                    *task = Task { stop: task.stop, ..Task::new(id, process) };
                }
                if let Some(opened) = self.processes.get_mut(process) {
                    opened.reopen()?;
                    if let Some(pin) = &self.pin {
                        pin.image(opened);
                    }
                    if let Some(watch) = &mut self.watch {
                        watch.begin(id, process, &opened.mem);
                    }
                }
                None
            }
            Stop::Event(libc::PTRACE_EVENT_EXIT) => return self.decide_exit(number),
            Stop::Event(_) => {
                self.adopt(id)?;
                None
            }
            Stop::Group(_) => None,
            Stop::Syscall => match sys::syscall_stop(id) {
                Ok(side @ (SyscallStop::Entry(_) | SyscallStop::Exit)) => {
                    let event = match side {
                        SyscallStop::Entry(call) => self.decide_call(id, process, call)?,
                        _ => {
                            if task.exiting
                                && let Some(process) = self.processes.get_mut(process)
                            {
                                process.came_back = true;
                                process.exiting = false;
                                task.exiting = false;
                                back = true;
                            }
                            task.alternate.settle(id);
                            // Another thread can put back, in memory, the wish not to be traced that was taken out.
                            if std::mem::take(&mut task.cloning)
                                && nix::sys::ptrace::getregs(id).is_ok_and(|regs| regs.rax as i64 > 0)
                                && let Some(process) = self.processes.get_mut(process)
                            {
                                process.escaped += 1;
                            }
                            None
                        }
                    };
                    event.or_else(|| self.stops.event(id, process, side))
                }
                _ => None,
            },
            Stop::Signal(signal) => match task.resent.take() {
                Some((resent, info)) if resent == signal => {
                    // ESRCH: killed meanwhile.
                    let _ = nix::sys::ptrace::setsiginfo(id, &info);
                    None
                }
                _ if self.stops.signals.contains(&signal) => Some(Event::Signalled(process, signal)),
                _ => is_fatal(id, signal).then_some(Event::FatalSignal(process, signal)),
            },
        };
        if back {
            // Nobody takes the others out of their stops.
            for other in self.tasks.values_mut().filter(|other| other.process == process) {
                if let Some(held) = other.held.take() {
                    other.stop = Some(held);
                    other.go_on(self.syscalls);
                }
            }
        }
        if event.is_some() {
            self.stop_tree()?;
        } else {
            self.release(number)?;
        }
        Ok(event)
    }

    /// Lets a task run on, unless it has left its stop already.
    ///
    /// A SIGKILL, and so the end of its process by another thread, takes a task out of any stop and on to its exit stop.
    /// Resumed as if it still stood in the old one, it would pass that unseen, and its registers with it.
    pub(super) fn release(&mut self, number: i32) -> Result<(), TargetError> {
        let stands = self.tasks.get(&number).is_some_and(|task| task.stop.is_some());
        if !stands || self.take_in(Pid::from_raw(number))? {
            return Ok(());
        }
        let Some(process) = self.tasks.get(&number).map(|task| task.process) else { return Ok(()) };
        let exiting = self.processes.get(process).is_some_and(|process| process.exiting);
        if let Some(task) = self.tasks.get_mut(&number)
            && exiting
            && !task.exiting
            && task.stop != Some(Stop::Event(libc::PTRACE_EVENT_EXIT))
        {
            // Another thread's exit_group kills it where it stands: it goes on to its exit stop by itself, and were it
            // resumed at that moment it would pass that stop unseen.
            task.held = task.stop.take();
            return Ok(());
        }
        if self.is_paced(process) {
            self.step_on(number);
        } else if let Some(task) = self.tasks.get_mut(&number) {
            task.go_on(self.syscalls);
        }
        Ok(())
    }

    /// Gives a task that asked for random numbers those of every run.
    fn pin(&mut self, number: i32) {
        let (Some(pin), Some(task)) = (&mut self.pin, self.tasks.get(&number)) else { return };
        let Some(process) = self.processes.get(task.process) else { return };
        if task.stop == Some(Stop::Syscall) && matches!(sys::syscall_stop(task.id), Ok(SyscallStop::Exit)) {
            pin.call(task.id, process);
        }
    }

    /// What a stop means for the watched words. Says whether that was all it meant, and the task runs on.
    fn decide_watched(&mut self, number: i32) -> Result<bool, TargetError> {
        let alone = self.tasks.len() == 1;
        let (Some(watch), Some(task)) = (&mut self.watch, self.tasks.get_mut(&number)) else { return Ok(false) };
        let Some(process) = self.processes.get(task.process) else { return Ok(false) };
        match task.stop {
            Some(Stop::Signal(libc::SIGTRAP)) => {
                let stepped = task.stepping.take();
                if let Some(signal) = stepped {
                    watch.compare(task.id, task.process, &process.mem, |_| How::SignalFrame(signal));
                }
                let trapped = watch.trapped(task.id, task.process, &process.mem);
                if stepped.is_some() || trapped {
                    task.go_on_unsignalled(true);
                    return Ok(true);
                }
                Ok(false)
            }
            Some(Stop::Signal(signal)) if task.resent.is_none() && is_caught(task.id, signal) => {
                watch.compare(task.id, task.process, &process.mem, |_| How::Unseen);
                task.stepping = Some(signal);
                task.stop = None;
                // ESRCH: killed while it stood still.
                drop(sys::step(task.id, signal));
                Ok(true)
            }
            Some(Stop::Syscall) => {
                match sys::syscall_stop(task.id) {
                    Ok(SyscallStop::Entry(Call::Exec)) => {
                        watch.leave(
                            task.id,
                            task.process,
                            &process.mem,
                            crate::snapshot::regions(process).unwrap_or_default(),
                        );
                    }
                    // With several threads it may be the call of another one, seen when that returns.
                    Ok(SyscallStop::Entry(_)) if alone => {
                        watch.compare(task.id, task.process, &process.mem, |_| How::Unseen);
                    }
                    Ok(SyscallStop::Exit) => watch.compare(task.id, task.process, &process.mem, How::call),
                    _ => {}
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// What the entry of a system call means.
    fn decide_call(&mut self, id: Pid, process: usize, call: Call) -> Result<Option<Event>, TargetError> {
        let traced = |source| TargetError::Wait { task: id.as_raw(), source };
        let untraced = libc::CLONE_UNTRACED as u64;
        if matches!(call, Call::Clone { .. } | Call::Clone3 { .. })
            && let Some(task) = self.tasks.get_mut(&id.as_raw())
        {
            task.cloning = true;
        }
        match call {
            Call::Exec => return Ok(Some(Event::ExecEntry(process))),
            Call::ExitGroup => {
                if let Some(task) = self.tasks.get_mut(&id.as_raw()) {
                    task.exiting = true;
                }
                if let Some(process) = self.processes.get_mut(process) {
                    process.exiting = true;
                }
                return Ok(Some(Event::ExitCall(process)));
            }
            Call::Exit if self.threads(process) == 1 => return Ok(Some(Event::ExitCall(process))),
            // A child that asks not to be traced would be neither looked at nor ended: it is traced all the same.
            Call::Clone { flags, compat } if flags & untraced != 0 => {
                let mut regs = nix::sys::ptrace::getregs(id).map_err(|errno| traced(errno.into()))?;
                *(if compat { &mut regs.rbx } else { &mut regs.rdi }) = flags & !untraced;
                nix::sys::ptrace::setregs(id, regs).map_err(|errno| traced(errno.into()))?;
            }
            Call::Clone3 { args } => {
                let mem = &self.processes[process].mem;
                let mut flags = [0; 8];
                // Not readable: the call will fail for the same reason.
                if mem.read_exact_at(&mut flags, args).is_ok() && u64::from_le_bytes(flags) & untraced != 0 {
                    let flags = u64::from_le_bytes(flags) & !untraced;
                    mem.write_all_at(&flags.to_le_bytes(), args).map_err(traced)?;
                }
            }
            Call::AlternateStack { new } => {
                if let (Some(process), Some(task)) = (self.processes.get(process), self.tasks.get_mut(&id.as_raw())) {
                    task.alternate.ask(&process.mem, new);
                }
            }
            Call::Other { native: false } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.foreign_calls = true;
                }
            }
            Call::Exit | Call::Clone { .. } | Call::Other { native: true } => {}
        }
        Ok(None)
    }

    /// An exit stop. Once every thread of the process stands in its own the process is at its end, and worth a look.
    ///
    /// A thread that waits there in vain ended alone, or is waited for by a core dump: it goes on. Where the whole process is
    /// known to end, it is only a loaded machine that keeps the others, and the wait is longer.
    fn decide_exit(&mut self, number: i32) -> Result<Option<Event>, TargetError> {
        self.adopt(Pid::from_raw(number))?; // one that was killed as soon as it was made has had no stop before
        let Some(task) = self.tasks.get_mut(&number) else { return Ok(None) };
        let process = task.process;
        let exiting = self.processes.get(process).is_some_and(|process| process.exiting);
        let patience = if exiting { STOP_PATIENCE } else { EXIT_PATIENCE };
        let since = *task.leaving.get_or_insert_with(Instant::now);
        let mut siblings = self.tasks.values_mut().filter(|task| task.process == process);
        if siblings.all(|task| task.leaving.is_some() || task.left) {
            for task in self.tasks.values_mut().filter(|task| task.process == process) {
                task.leaving = None;
                task.left = true;
            }
            self.undecided.retain(|other| self.tasks.get(other).is_none_or(|task| task.process != process));
            return Ok(Some(Event::ExitStop(process)));
        }
        if since.elapsed() > patience
            && let Some(task) = self.tasks.get_mut(&number)
        {
            task.leaving = None;
            task.left = true;
            task.go_on(self.syscalls);
        }
        Ok(None)
    }

    /// Finds out which process a new task belongs to, and opens that process if it is new too.
    fn adopt(&mut self, id: Pid) -> Result<(), TargetError> {
        let known = self.tasks.get(&id.as_raw()).is_some_and(|task| task.process != usize::MAX);
        if known {
            return Ok(());
        }
        let parent = self.tasks.get(&id.as_raw()).and_then(|task| task.parent);
        let leader = thread_group(id).unwrap_or(id);
        let living = self.processes.iter().position(|process| process.pid == leader && !process.ended);
        let process = match living {
            Some(process) => process,
            None => {
                let number = u32::try_from(self.processes.len()).unwrap_or(u32::MAX - 1) + 1;
                self.processes.push(Process::open(number, leader)?);
                if let Some(watch) = &mut self.watch {
                    watch.inherit(self.processes.len() - 1, parent);
                }
                self.processes.len() - 1
            }
        };
        if let Some(watch) = &self.watch {
            watch.arm(id); // debug registers are not handed on to new threads and processes
        }
        if let Some(task) = self.tasks.get_mut(&id.as_raw()) {
            self.births += 1;
            task.born = self.births;
            task.process = process;
        }
        Ok(())
    }
}

/// Whether the process has a handler for this signal.
fn is_caught(task: Pid, signal: i32) -> bool {
    let caught = status_fields(task).and_then(|fields| u64::from_str_radix(fields.get("SigCgt")?, 16).ok());
    caught.is_some_and(|mask| mask & 1_u64 << (signal - 1) != 0)
}

fn status_fields(task: Pid) -> Option<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    Some(
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
            .collect(),
    )
}

fn thread_group(task: Pid) -> Option<Pid> {
    status_fields(task)?.get("Tgid")?.parse().ok().map(Pid::from_raw)
}

/// Whether delivering this signal now ends the process: neither caught nor ignored, and its default action is to end.
///
/// # Source
///
/// signal(7), *Standard signals*; proc_pid_status(5), *SigIgn*, *SigCgt*.
fn is_fatal(task: Pid, signal: i32) -> bool {
    let harmless = [
        libc::SIGCHLD,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    if harmless.contains(&signal) {
        return false;
    }
    let Some(fields) = status_fields(task) else { return false };
    let set = |name: &str| fields.get(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    let bit = 1_u64 << (signal - 1);
    (set("SigCgt") | set("SigIgn")) & bit == 0
}
