//! Who put a value into a register: the thread is followed from system call to system call, and stepped between the two
//! calls between which the register took the value that it has at the look.
//!
//! ```text
//! a run, compared at every call's entry and exit ─► behind which of them it last changed ─► a run, stepped from there to the next
//! ```
//!
//! No value has to be known: the last change before the look is the writer, as it is for memory. What is kept of a
//! register is wiped.

use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::watch::{How, Write, write};
use super::{Process, Target};
use crate::snapshot::RegisterPart;
use crate::sys;
use crate::sys::{Stop, SyscallStop};

/// Instructions after which a window is given up: each costs two switches between the target and us.
pub(crate) const MOST_STEPS: u64 = 1_000_000;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    /// The thread, by its age: 0 is the first of all, and each that is started after it counts one on.
    pub(crate) born: u32,
    /// The bytes of its registers.
    pub(crate) part: RegisterPart,
    /// The entry or exit of a call, counted from 1 in this thread, from which on it is stepped; 0 is its start. `None`
    /// where that is what is asked for.
    pub(crate) from: Option<u64>,
}

/// How far a trail was followed.
pub(super) struct Followed {
    trail: Trail,
    /// Entries and exits of calls so far.
    stops: u64,
    /// The last of them at which the value was another than now.
    before: u64,
    value: Option<Zeroizing<Vec<u8>>>,
    last: Option<Write>,
    /// The window was longer than is stepped.
    given_up: bool,
}

/// What is known of a trail at a look.
pub(crate) struct Followup<'a> {
    /// From where on it must be stepped.
    pub(crate) from: u64,
    /// The last change, where it was stepped.
    pub(crate) last: Option<&'a Write>,
    /// Whether the registers still hold what that left.
    pub(crate) stands: bool,
    pub(crate) given_up: bool,
}

impl Followed {
    pub(super) fn new(trail: &Trail) -> Self {
        Self { trail: trail.clone(), stops: 0, before: 0, value: None, last: None, given_up: false }
    }

    fn is_stepping(&self) -> bool {
        self.trail.from.is_some_and(|from| self.stops == from)
    }

    /// Compares the registers of the thread, which stands still; `how` says what a change means here.
    fn compare(
        &mut self,
        thread: Pid,
        process: &Process,
        sets: &mut Sets,
        how: impl Fn(&libc::user_regs_struct) -> How,
    ) {
        let now = sets.value(thread, &self.trail.part);
        if now == self.value {
            return;
        }
        if self.trail.from.is_some() {
            self.last = write(thread, &process.mem, self.last.take(), how);
        }
        self.before = self.stops.saturating_sub(1);
        self.value = now;
    }
}

/// The register sets of a thread that stands still, each read when it is first asked for.
#[derive(Default)]
struct Sets {
    general: Option<Zeroizing<Vec<u8>>>,
    vector: Option<Zeroizing<Vec<u8>>>,
}

impl Sets {
    /// The bytes of a part.
    fn value(&mut self, thread: Pid, part: &RegisterPart) -> Option<Zeroizing<Vec<u8>>> {
        // None of them for a thread that was killed while it stood still (ESRCH).
        let read = |set: std::io::Result<Vec<u8>>| Zeroizing::new(set.unwrap_or_default());
        let (set, offsets) = match part {
            RegisterPart::General(offsets) => {
                (self.general.get_or_insert_with(|| read(sys::general_registers(thread))), offsets)
            }
            RegisterPart::Vector(offsets) => {
                (self.vector.get_or_insert_with(|| read(sys::vector_registers(thread))), offsets)
            }
        };
        let bytes: Option<Vec<u8>> = offsets.iter().map(|at| set.get(*at).copied()).collect();
        bytes.map(Zeroizing::new)
    }
}

impl Target<'_> {
    /// Follows trails from now on; the first process stands in its exec stop.
    pub(super) fn follow(&mut self, trails: &[Trail]) {
        self.followed = trails.iter().map(Followed::new).collect();
        if trails.iter().any(|trail| trail.born == 0 && trail.from == Some(0)) {
            self.pace(0, MOST_STEPS);
        }
    }

    /// Takes in a call's entry or exit, if the task is followed.
    pub(super) fn follow_call(&mut self, number: i32) {
        if self.followed.is_empty() {
            return;
        }
        let Some(task) = self.tasks.get(&number).filter(|task| task.stop == Some(Stop::Syscall)) else { return };
        let Some(process) = self.processes.get(task.process) else { return };
        let at_exit = matches!(sys::syscall_stop(task.id), Ok(SyscallStop::Exit));
        let mut sets = Sets::default();
        let (mut begins, mut ended) = (false, false);
        for followed in self.followed.iter_mut().filter(|followed| followed.trail.born == task.born) {
            let stepped = followed.is_stepping();
            followed.stops += 1;
            if stepped || followed.trail.from.is_none() {
                let how = |registers: &libc::user_regs_struct| if at_exit { How::call(registers) } else { How::Unseen };
                followed.compare(task.id, process, &mut sets, how);
            }
            ended |= stepped;
            if followed.is_stepping() {
                // What it holds now is where the window begins.
                followed.value = sets.value(task.id, &followed.trail.part);
                begins = true;
            }
        }
        let process = task.process;
        if begins {
            self.pace(process, MOST_STEPS);
        } else if ended {
            self.end_pace();
        }
    }

    /// Takes in an instruction, if the task is followed.
    pub(super) fn follow_step(&mut self, number: i32) {
        let Some(task) = self.tasks.get(&number) else { return };
        let Some(process) = self.processes.get(task.process) else { return };
        let mut sets = Sets::default();
        for followed in self.followed.iter_mut().filter(|followed| followed.trail.born == task.born) {
            if followed.is_stepping() {
                followed.compare(task.id, process, &mut sets, |_| How::Instruction);
            }
        }
    }

    /// The window is longer than it may be. Says whether it was that of a trail.
    pub(super) fn lose_trail(&mut self) -> bool {
        let mut lost = self.followed.iter_mut().filter(|followed| followed.is_stepping()).peekable();
        if lost.peek().is_none() {
            return false;
        }
        lost.for_each(|followed| followed.given_up = true);
        self.end_pace();
        true
    }

    /// What is known of each trail while its thread stands still, in their order. Of one whose thread is in another process
    /// nothing stands.
    pub(crate) fn followups(&self, process: usize) -> impl Iterator<Item = Followup<'_>> {
        self.followed.iter().map(move |followed| {
            let mut own = self.tasks.values().filter(|task| task.process == process);
            let task = own.find(|task| task.born == followed.trail.born);
            let value = task.and_then(|task| Sets::default().value(task.id, &followed.trail.part));
            let stands = task.is_some() && value == followed.value;
            Followup {
                from: if stands { followed.before } else { followed.stops },
                last: followed.last.as_ref(),
                stands,
                given_up: followed.given_up,
            }
        })
    }

    /// The age of a thread, as a [`Trail`] counts it.
    pub(crate) fn born(&self, thread: Pid) -> u32 {
        self.tasks.get(&thread.as_raw()).map_or(0, |task| task.born)
    }
}
