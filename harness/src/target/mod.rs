//! A target: the process that was started and every process that it starts, traced as one tree.
//!
//! [`Target::spawn`] starts it, [`Target::next`] lets it run until something is worth a look and returns with what
//! must be seen standing still, [`Target::go_on`] lets it run again. Reading what it holds is the job of
//! `snapshot`, judging it that of `judge`.
//!
//! One thread owns a target from its start to its end: the kernel ties a tracee to the thread that seized it.

mod alternate;
mod inject;
mod pace;
mod pin;
mod process;
mod same;
mod stops;
mod trail;
mod tree;
mod watch;

pub(crate) use process::OpenError;
pub(crate) use process::Process;
pub(crate) use same::Same;
pub(crate) use stops::{Identity, Stops};
pub(crate) use trail::{MOST_STEPS as TRAIL_STEPS, Trail};
pub(crate) use watch::{How, Slot, StackCopy, Word, Write};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CStr, CString, NulError, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::memfd::MFdFlags;
use nix::sys::ptrace::Options;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType};
use nix::unistd::Pid;
use scenario_protocol::{CANARY_FD, CONTROL_FD, Checkpoint, FRAME_GO_ON};

use crate::sys::{self, End};
use pace::Pace;
use pin::Pin;
use trail::Followed;
use tree::Task;
use watch::Watch;

/// Descriptor in the target of the memfd into which an injected `write(2)` puts memory that only the target can read.
const DROPBOX_FD: i32 = 5;

/// The same in a program that is no scenario: a number that hardly any program uses.
const FOREIGN_DROPBOX_FD: i32 = sys::HIGHEST;

/// How long a thread may take to stand still once it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a thread stands in its exit stop, waiting for those of its process's other threads.
///
/// When the whole process dies they come together; when only that thread ends, the others never come.
const EXIT_PATIENCE: Duration = Duration::from_millis(100);

/// What to start, and where.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [&'a OsStr],
    /// Working directory, private to this target: a kernel core lands here.
    pub(crate) dir: &'a Path,
    /// For the whole life of the target.
    pub(crate) timeout: Duration,
    pub(crate) layout: Layout,
    /// Words whose writers are remembered; at most [`Word::MOST`].
    pub(crate) watch: &'a [Word],
    /// Registers whose writers are looked for.
    pub(crate) trails: &'a [Trail],
}

/// Where the target's memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Where the kernel puts it, as for any user.
    Natural,
    /// At the same addresses in every run of the same program with the same arguments.
    Fixed,
}

/// A program that knows nothing of us, and what it finds.
pub(crate) struct Foreign<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) envp: &'a [CString],
    pub(crate) standard: [Option<BorrowedFd<'a>>; 3],
    /// Whether its 0 becomes its controlling terminal.
    pub(crate) terminal: bool,
    /// Descriptors of ours and their numbers in it, from 3 to [`Foreign::HIGHEST`].
    pub(crate) pass: &'a [(BorrowedFd<'a>, RawFd)],
    /// Those of all these through which it is fed and heard; the others are our caller's.
    pub(crate) ours: &'a [BorrowedFd<'a>],
    pub(crate) timeout: Duration,
    /// The clock and the process number that it gets, where they are those of other runs.
    pub(crate) same: Option<Same>,
    /// With a fixed one the random numbers that the kernel gives it are the same in every run, too.
    pub(crate) layout: Layout,
    /// Words whose writers are remembered; at most [`Word::MOST`].
    pub(crate) watch: &'a [Word],
    /// Registers whose writers are looked for.
    pub(crate) trails: &'a [Trail],
}

impl Foreign<'_> {
    /// The highest number of a descriptor that can be handed on.
    pub(crate) const HIGHEST: RawFd = FOREIGN_DROPBOX_FD - 1;
}

/// Why a target could not be started or followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    /// `fork`, `execve` or a descriptor for the target.
    #[error("start {program}")]
    Start {
        /// The program's path.
        program: String,
        /// The failing call's error.
        source: io::Error,
    },
    /// A path or argument holds a NUL byte.
    #[error("an argument of the target holds a NUL byte")]
    Nul {
        /// Where.
        source: NulError,
    },
    /// The kernel refuses to trace the target.
    #[error("trace the target (ptrace refused: see `residue doctor`)")]
    Seize {
        /// Why.
        source: io::Error,
    },
    /// Its files below `/proc` cannot be opened.
    #[error("read the target's memory through /proc (is it hidden? see `residue doctor`)")]
    Open {
        /// Which and why.
        #[from]
        source: OpenError,
    },
    /// Waiting for a task failed.
    #[error("wait for task {task}")]
    Wait {
        /// Its number.
        task: i32,
        /// Why.
        source: io::Error,
    },
    /// A task did not stand still in time.
    #[error("task {task} did not stand still within {} s", STOP_PATIENCE.as_secs())]
    Restless {
        /// Its number.
        task: i32,
    },
    /// The control socket or the canary's pipe failed.
    #[error("{what}")]
    Channel {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Something worth a look. What it names stands still until [`Target::go_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The target announced a checkpoint; the whole tree stands still.
    Announced(Checkpoint),
    /// The control socket brought something that is no announcement; the whole tree stands still.
    Babble,
    /// This process is about to `execve`; the whole tree stands still.
    ExecEntry(usize),
    /// This process is about to `exit_group`; the whole tree stands still.
    ExitCall(usize),
    /// This signal, whose action is the default, is about to end this process; the whole tree stands still.
    FatalSignal(usize, i32),
    /// This process is at its exit stop. Others may run.
    ExitStop(usize),
    /// A watched system call is about to be made by this process; the whole tree stands still.
    Call(usize, u64),
    /// This process is about to read from the watched file; the whole tree stands still.
    Reading(usize),
    /// A read of this process from the watched file has returned so many bytes; the whole tree stands still.
    Read(usize, u64),
    /// A write of this process has returned; the whole tree stands still.
    Wrote(usize),
    /// A watched signal is about to be delivered to this process; the whole tree stands still.
    Signalled(usize, i32),
    /// Whoever waits for this target wants to look; the whole tree stands still.
    Woken,
    /// This process has run so many instructions as were asked for; the whole tree stands still.
    Paced(usize),
    /// The tree is gone; how its first process ended, if that was seen.
    Ended(Option<End>),
    /// The time is up; nothing stands still.
    TimedOut,
    /// The user wants to stop; nothing stands still.
    Interrupted,
}

/// A traced tree of processes.
pub(crate) struct Target<'a> {
    tasks: BTreeMap<i32, Task>,
    processes: Vec<Process>,
    /// Stops that nobody has decided on yet.
    undecided: VecDeque<i32>,
    /// Whether system calls are stopped at.
    syscalls: bool,
    /// Who wrote the words that were asked about.
    watch: Option<Watch>,
    /// What it gets instead of random numbers, where it does not get those.
    pin: Option<Pin>,
    /// The process that runs in single steps.
    pace: Option<Pace>,
    /// Whether any has done so.
    has_paced: bool,
    /// The registers whose writers are looked for.
    followed: Vec<Followed>,
    /// Threads that were started since the first.
    births: u32,
    /// What else is stopped at.
    stops: Stops,
    /// None in a program that is no scenario.
    control: Option<OwnedFd>,
    /// The control socket's last announcement was not answered yet.
    owes_answer: bool,
    /// None in a process that we did not start: then nothing can be injected.
    dropbox: Option<(File, RawFd)>,
    /// Device and inode of what it is fed and heard through: what waits there is no residue.
    ours: BTreeSet<(u64, u64)>,
    /// The one of them through which it is fed.
    fed: Option<(u64, u64)>,
    /// Whether it was there before us and must be there after us.
    attached: bool,
    /// When it was started; `None` for one that was there before us.
    began: Option<SystemTime>,
    deadline: Instant,
    interrupted: &'a AtomicBool,
    first_end: Option<End>,
    /// Tasks that were gone before anything was known of them.
    unmet: u32,
}

impl<'a> Target<'a> {
    /// Starts a target and returns with it standing in its exec stop, its canary waiting in the pipe.
    ///
    /// # Errors
    ///
    /// [`TargetError`]; nothing is left running.
    pub(crate) fn spawn(launch: &Launch<'_>, canary: &[u8], interrupted: &'a AtomicBool) -> Result<Self, TargetError> {
        let start = |source: io::Error| TargetError::Start { program: launch.program.display().to_string(), source };
        let program = c_string(launch.program.as_os_str())?;
        let mut argv = vec![program.clone()];
        for arg in launch.args {
            argv.push(c_string(arg)?);
        }
        let dir = c_string(launch.dir.as_os_str())?;
        // A fixed, small environment: the same stack layout in every run, and nothing of ours in the target.
        let envp = [c"LANG=C.UTF-8", c"PATH=/usr/local/bin:/usr/bin:/bin"].map(CString::from);

        let (control, theirs) =
            nix::sys::socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| start(errno.into()))?;
        let (canary_read, canary_write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| start(errno.into()))?;
        let dropbox = dropbox().map_err(start)?;
        let image = sys::Image {
            program: &program,
            argv: &argv,
            envp: &envp,
            dir: Some(&dir),
            cores: true,
            pid: None,
            fixed_layout: launch.layout == Layout::Fixed,
            descriptors: sys::Descriptors {
                pass: &[(theirs.as_fd(), CONTROL_FD), (canary_read.as_fd(), CANARY_FD), (dropbox.as_fd(), DROPBOX_FD)],
                ..Default::default()
            },
        };
        let mut target = Self::start(&image, launch.timeout, interrupted)?;
        target.ours.extend(identity(canary_read.as_fd()));
        target.control = Some(control);
        target.dropbox = Some((dropbox, DROPBOX_FD));
        if launch.layout == Layout::Fixed {
            // glibc writes one into every block that is freed: beside a residue it would look like more of it, at times.
            target.give_same_numbers(None);
        }
        target.watch(launch.watch);
        target.follow(launch.trails);
        // A canary fits the pipe's 64 KiB, so this cannot block.
        let written = nix::unistd::write(&canary_write, canary)
            .map_err(|errno| TargetError::Channel { what: "hand the canary over", source: errno.into() })?;
        if written != canary.len() {
            return Err(TargetError::Channel {
                what: "hand the canary over in one piece",
                source: io::ErrorKind::WriteZero.into(),
            });
        }
        Ok(target)
    }

    /// Starts a program that knows nothing of us, in our directory and with our core limit, and returns with it
    /// standing in its exec stop. System calls are stopped at from the start.
    ///
    /// # Errors
    ///
    /// [`TargetError`]; nothing is left running.
    pub(crate) fn spawn_foreign(foreign: &Foreign<'_>, interrupted: &'a AtomicBool) -> Result<Self, TargetError> {
        let start = |source| TargetError::Start { program: foreign.program.to_string_lossy().into_owned(), source };
        let dropbox = dropbox().map_err(start)?;
        let pass: Vec<_> = foreign.pass.iter().copied().chain([(dropbox.as_fd(), FOREIGN_DROPBOX_FD)]).collect();
        let image = sys::Image {
            program: foreign.program,
            argv: foreign.argv,
            envp: foreign.envp,
            dir: None,
            fixed_layout: foreign.layout == Layout::Fixed,
            pid: foreign.same.and_then(|same| same.pid),
            cores: false, // a core would land where the user works
            descriptors: sys::Descriptors {
                standard: foreign.standard,
                terminal: foreign.terminal,
                pass: &pass,
                inherit: true,
            },
        };
        let mut target = Self::start(&image, foreign.timeout, interrupted)?;
        target.dropbox = Some((dropbox, FOREIGN_DROPBOX_FD));
        target.ours = foreign.ours.iter().filter_map(|fd| identity(*fd)).collect();
        if foreign.layout == Layout::Fixed {
            target.give_same_numbers(foreign.same);
        }
        target.watch(foreign.watch);
        target.follow(foreign.trails);
        Ok(target)
    }

    /// Has the tree get the same random numbers as in every other run. Its first process stands in its exec stop.
    fn give_same_numbers(&mut self, same: Option<Same>) {
        let pin = Pin::new(same);
        pin.image(&self.processes[0]);
        self.pin = Some(pin);
    }

    fn start(image: &sys::Image<'_>, timeout: Duration, interrupted: &'a AtomicBool) -> Result<Self, TargetError> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXIT
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEVFORKDONE
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        let mut refused = false;
        let pid = sys::spawn_traced(image, |pid| nix::sys::ptrace::seize(pid, options).inspect_err(|_| refused = true));
        let pid = match pid {
            Ok(pid) => pid,
            Err(source) if refused => return Err(TargetError::Seize { source }),
            Err(source) => {
                return Err(TargetError::Start { program: image.program.to_string_lossy().into_owned(), source });
            }
        };
        let mut target = Self::new(timeout, interrupted);
        target.tasks.insert(pid.as_raw(), Task::new(pid, 0));
        target.await_stop(pid.as_raw())?;
        target.processes.push(Process::open(1, pid)?);
        target.undecided.clear(); // the exec stop itself: what it asks for was just done
        Ok(target)
    }

    /// Watches words of the first process, which stands in its exec stop; none if there are none.
    fn watch(&mut self, words: &[Word]) {
        if !words.is_empty() {
            let mut watch = Watch::new(words);
            watch.begin(self.processes[0].pid, 0, &self.processes[0].mem);
            self.watch = Some(watch);
        }
    }

    fn new(timeout: Duration, interrupted: &'a AtomicBool) -> Self {
        Self {
            tasks: BTreeMap::new(),
            processes: Vec::new(),
            undecided: VecDeque::new(),
            syscalls: true,
            watch: None,
            pin: None,
            pace: None,
            has_paced: false,
            followed: Vec::new(),
            births: 0,
            stops: Stops::default(),
            control: None,
            owes_answer: false,
            dropbox: None,
            ours: BTreeSet::new(),
            fed: None,
            attached: false,
            began: Some(SystemTime::now()),
            deadline: Instant::now() + timeout,
            interrupted,
            first_end: None,
            unmet: 0,
        }
    }

    /// Stops a process that runs already, all its threads. It goes on as before when this value is dropped.
    ///
    /// # Errors
    ///
    /// [`TargetError::Seize`] when the kernel refuses, or when the process is not there (`ESRCH`).
    pub(crate) fn attach(pid: Pid, interrupted: &'a AtomicBool) -> Result<Self, TargetError> {
        let refused = |source: io::Error| TargetError::Seize { source };
        let mut target = Self::new(STOP_PATIENCE, interrupted);
        target.attached = true;
        target.began = None;
        // Threads may start threads until all that are listed stand still.
        loop {
            let listed = std::fs::read_dir(format!("/proc/{pid}/task"))
                .map_err(|_| refused(nix::errno::Errno::ESRCH.into()))?
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
            let new: Vec<i32> = listed.filter(|task| !target.tasks.contains_key(task)).collect();
            if new.is_empty() {
                break;
            }
            for task in new {
                let id = Pid::from_raw(task);
                match nix::sys::ptrace::seize(id, Options::PTRACE_O_TRACESYSGOOD) {
                    Ok(()) => drop(target.tasks.insert(task, Task::new(id, 0))),
                    Err(nix::errno::Errno::ESRCH) if id != pid => {} // it has ended meanwhile
                    Err(errno) => return Err(refused(errno.into())),
                }
            }
            target.hold()?;
        }
        target.processes.push(Process::open(1, pid)?);
        Ok(target)
    }

    /// Lets the target run until something is worth a look.
    ///
    /// # Errors
    ///
    /// [`TargetError`] when the tracing itself fails.
    pub(crate) fn next(&mut self) -> Result<Event, TargetError> {
        self.next_or(|| false)
    }

    /// The same, but asks `wanted` again and again meanwhile; [`Event::Woken`] once it says yes.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub(crate) fn next_or(&mut self, mut wanted: impl FnMut() -> bool) -> Result<Event, TargetError> {
        let mut idle = 0_u32;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(Event::Interrupted);
            }
            if self.tasks.is_empty() {
                return Ok(Event::Ended(self.first_end));
            }
            if Instant::now() >= self.deadline {
                return Ok(Event::TimedOut);
            }
            let moved = self.harvest()?;
            while let Some(task) = self.undecided.pop_front() {
                if let Some(event) = self.decide(task)? {
                    return Ok(event);
                }
            }
            if let Some(event) = self.listen_to_control()? {
                self.stop_tree()?;
                return Ok(event);
            }
            if wanted() {
                self.stop_tree()?;
                return Ok(Event::Woken);
            }
            // A traced stop follows a resume within microseconds, a scenario's own pauses last milliseconds.
            idle = if moved { 0 } else { idle + 1 };
            match idle {
                0..64 => std::thread::yield_now(),
                64..128 => std::thread::sleep(Duration::from_micros(100)),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Lets everything that stands still run again, and answers an announcement.
    ///
    /// # Errors
    ///
    /// [`TargetError::Channel`] when the answer cannot be sent. A task that was killed meanwhile is no error.
    pub(crate) fn go_on(&mut self) -> Result<(), TargetError> {
        let mut decided: Vec<i32> = self.tasks.keys().copied().filter(|task| !self.undecided.contains(task)).collect();
        // Those that may end a process now come last: whom they kill should run by then. Killed where it stands, a task
        // goes on to its exit stop by itself, and would be resumed out of that.
        decided.sort_by_key(|task| self.tasks.get(task).map(|task| task.may_end_others()));
        decided.into_iter().try_for_each(|task| self.release(task))?;
        if let (true, Some(control)) = (std::mem::take(&mut self.owes_answer), &self.control) {
            // A target that never reads its answers fills the socket; waiting for it would be its to decide.
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let sent = nix::sys::socket::send(control.as_raw_fd(), &FRAME_GO_ON, flags);
            match sent {
                // The target was killed while it stood still: its end is the next event.
                Ok(_) | Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => {}
                Err(errno) => {
                    return Err(TargetError::Channel { what: "answer an announcement", source: errno.into() });
                }
            }
        }
        Ok(())
    }

    /// What is known of the watched words of a process, in the order in which they were asked about; empty when none was.
    pub(crate) fn watched(&self, process: usize) -> &[Slot] {
        self.watch.as_ref().map_or(&[], |watch| watch.slots(process))
    }

    /// Stops at other things from now on.
    pub(crate) fn stop_at(&mut self, stops: Stops) {
        self.stops = stops;
    }

    /// How many threads and processes were gone before anything was known of them.
    pub(crate) const fn unmet(&self) -> u32 {
        self.unmet
    }

    /// Whether a process uses the memory of one that waits for it: that of vfork(2) and posix_spawn(3), until it becomes
    /// another program or ends. Where the kernel does not say so, it does not.
    pub(crate) fn borrows_memory(&self, process: usize) -> bool {
        let Some(pid) = self.processes.get(process).map(|process| process.pid) else { return false };
        let mut lenders = self.tasks.values().filter(|task| task.vforking && task.process != process);
        lenders.any(|lender| sys::share_memory(lender.id, pid).unwrap_or(false))
    }

    /// How many threads and processes of the tree were started and are not traced.
    pub(crate) fn escaped(&self) -> u32 {
        self.processes.iter().map(|process| process.escaped).sum()
    }

    /// When its first process was started; `None` if that was there before us.
    pub(crate) fn began(&self) -> Option<SystemTime> {
        self.began
    }

    /// The processes of the tree, in the order in which they appeared, ended ones included.
    pub(crate) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// The threads of a process that stand still now.
    pub(crate) fn standing_threads(&self, process: usize) -> Vec<Pid> {
        self.tasks.values().filter(|task| task.process == process && task.stop.is_some()).map(|task| task.id).collect()
    }

    /// The stacks that living threads of a process named for their signals, as ranges of addresses.
    pub(crate) fn alternates(&self, process: usize) -> Vec<(u64, u64)> {
        let threads = self.tasks.values().filter(|task| task.process == process && !task.gone());
        threads.filter_map(|task| task.alternate.range()).collect()
    }

    /// Says which of the harness's ends it is fed through.
    pub(crate) fn is_fed_through(&mut self, file: Identity) {
        self.fed = Some((file.device, file.inode));
    }

    /// Device and inode of what it is fed through.
    pub(crate) fn fed(&self) -> Option<(u64, u64)> {
        self.fed
    }

    /// Device and inode of what it is fed and heard through.
    pub(crate) fn ours(&self) -> &BTreeSet<(u64, u64)> {
        &self.ours
    }

    /// Whether the user wants to stop.
    pub(crate) fn interrupted(&self) -> &'a AtomicBool {
        self.interrupted
    }

    /// How many threads of a process are alive.
    pub(crate) fn threads(&self, process: usize) -> usize {
        self.tasks.values().filter(|task| task.process == process && !task.gone()).count()
    }

    fn listen_to_control(&mut self) -> Result<Option<Event>, TargetError> {
        let Some(control) = &self.control else { return Ok(None) };
        let mut frame = [0; 16];
        let received = nix::sys::socket::recv(control.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT);
        match received {
            // End of file: the target closed its end. Its end as a process is an event of its own.
            Ok(0) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ECONNRESET) => Ok(None),
            Ok(length) => {
                self.owes_answer = true;
                Ok(Some(Checkpoint::from_frame(&frame[..length]).map_or(Event::Babble, Event::Announced)))
            }
            Err(errno) => Err(TargetError::Channel { what: "listen for announcements", source: errno.into() }),
        }
    }
}

impl Drop for Target<'_> {
    /// Kills what is left of the tree and reaps it. `PTRACE_O_EXITKILL` does the same should we be killed.
    ///
    /// A process that was there before us is let go instead, as the kernel does should we be killed.
    fn drop(&mut self) {
        if self.attached {
            for task in self.tasks.values_mut() {
                task.let_go();
            }
            return;
        }
        let patience = Instant::now() + STOP_PATIENCE;
        while !self.tasks.is_empty() && Instant::now() < patience {
            for task in self.tasks.values() {
                let _ = nix::sys::signal::kill(task.id, Signal::SIGKILL); // ESRCH: gone already
            }
            let _ = self.harvest(); // a failing wait means that there is nothing to reap
            self.undecided.clear();
            for task in self.tasks.values_mut() {
                task.go_on(false);
            }
            std::thread::yield_now();
        }
    }
}

/// Device and inode of what a descriptor leads to.
fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    nix::sys::stat::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// A file in memory for what an injected call writes.
fn dropbox() -> io::Result<File> {
    Ok(nix::sys::memfd::memfd_create(c"dropbox", MFdFlags::MFD_CLOEXEC)?.into())
}

fn c_string(text: &OsStr) -> Result<CString, TargetError> {
    CString::new(text.as_bytes()).map_err(|source| TargetError::Nul { source })
}
