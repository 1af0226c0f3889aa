//! One run of a program: start it, feed it, look at it at the moments that were asked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicBool;

use findings::KeptFreed;
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use scenario_protocol::Ends;

use super::channels::Channels;
use super::feed::{self, Feed, Wires};
use super::input::Input;
use super::keep::Keeper;
use super::{Moment, Options, Output, ProgramError, Sight, Witness};
use crate::attribute::Watching;
use crate::canary::Canary;
use crate::scan::Index;
use crate::session::{self, Look, Shown, chain};
use crate::snapshot::{self, Injection};
use crate::sweep::{MOST_STEPS, Pass, Window};
use crate::target::{Event, Foreign, Layout, Same, Stops, Target, TargetError};

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The secret is alive: it must be seen, or nothing can be said.
    Control,
    /// Whatever is found is a residue.
    Residue,
    /// The last moment at which memfd_secret memory can be read; the rest is looked at just after.
    SecretMemory,
}

/// One look, and what for.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) moment: String,
    pub(super) role: Role,
    pub(super) look: Look,
    /// What was freed and kept, if that was asked for and done.
    pub(super) kept_freed: Option<KeptFreed>,
}

/// All that one run of a program showed.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) seen: Vec<Seen>,
    pub(super) ended: Option<Ends>,
    pub(super) troubles: Vec<String>,
    pub(super) interrupted: bool,
    /// The secret was in what the program printed or the terminal echoed.
    pub(super) echoed: bool,
    /// How long the window of a sweep was, where that was asked.
    pub(super) window: Option<Window>,
    /// The number that its first process had.
    pub(super) pid: Option<Pid>,
}

/// What is other in a run that is made to name writers, or to send a signal: its memory and the random numbers that it gets are those of every
/// such run, and what it prints goes nowhere.
pub(super) struct Again<'a> {
    /// Words whose writers are asked for.
    pub(super) watching: Option<&'a Watching<'a>>,
    /// What a signal's sweep asks of this run. Then it is looked at at its end alone.
    pub(super) pass: Option<Pass>,
    /// The clock and the process number of all these runs, where those are asked for.
    pub(super) same: Option<Same>,
    /// What is on its standard input if it is not fed there.
    pub(super) input: &'a Input,
}

/// The control's looks after which they come ever more rarely: a program may read for a long time.
const EAGER_LOOKS: u32 = 32;

/// Runs the program once.
///
/// # Errors
///
/// [`ProgramError`] when it cannot be started as asked. What goes wrong later is part of the record.
pub(super) fn run(
    options: &Options,
    canary: &Canary,
    index: &Index,
    again: Option<&Again<'_>>,
    interrupted: &AtomicBool,
    witness: &mut Witness<'_>,
) -> Result<Record, ProgramError> {
    let name = options.program.first().ok_or(ProgramError::NoProgram)?;
    let not_found = || ProgramError::NotFound { program: name.to_string_lossy().into_owned() };
    let program = feed::find(name).ok_or_else(not_found)?;
    let mut wires = Wires::lay(options, canary.bytes())?;
    let keeper = options.keep_freed.as_deref().map(Keeper::new).transpose()?;
    if let Some(keeper) = &keeper {
        keeper.preload(&mut wires.envp);
    }
    let image = std::ffi::CString::new(program.into_os_string().into_encoded_bytes()).map_err(|_| ProgramError::Nul)?;

    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let nowhere = match (again, options.output) {
        (Some(_), _) | (None, Output::Discard) => {
            Some(File::options().write(true).open("/dev/null").map_err(|source| ProgramError::Feed { source })?)
        }
        (None, Output::Stdout | Output::Stderr) => None,
    };
    let onward = match (&nowhere, options.output) {
        (Some(nowhere), _) => nowhere.as_fd(),
        (None, Output::Stdout) => stdout.as_fd(),
        (None, Output::Stderr | Output::Discard) => stderr.as_fd(),
    };
    // A run that is only there to name writers says nothing that the first has not said.
    let errors = match (again, &nowhere) {
        (Some(_), Some(nowhere)) => nowhere.as_fd(),
        _ => stderr.as_fd(),
    };
    let mut channels = Channels::new(canary.bytes(), onward);
    let capture =
        if wires.terminal.is_none() && options.moments.iter().any(|moment| matches!(moment, Moment::Stdout(_))) {
            Some(pipe().map_err(|source| ProgramError::Feed { source })?)
        } else {
            None
        };
    // Ours was read by the first run.
    let input = match again.map(|again| again.input.again()) {
        Some(input) => {
            let null = || File::open("/dev/null");
            let input = input.and_then(|input| input.map_or_else(null, Ok));
            Some(input.map_err(|source| ProgramError::Feed { source })?)
        }
        None => None,
    };
    let input = input.as_ref().map_or(stdin.as_fd(), |input| input.as_fd());
    let standard = match (&wires.stdin, wires.terminal.is_some()) {
        (Some(terminal), true) => [terminal.as_fd(); 3],
        (fed, _) => [
            fed.as_ref().map_or(input, |fed| fed.as_fd()),
            capture.as_ref().map_or(onward, |(_, write)| write.as_fd()),
            errors,
        ],
    };
    let passed = wires.passed();
    // A terminal that it is fed through is its own; the ends of our caller's pipes are not ours.
    let ours: Vec<_> = [wires.stdin.as_ref(), capture.as_ref().map(|(_, write)| write)]
        .into_iter()
        .flatten()
        .map(AsFd::as_fd)
        .chain(passed.iter().map(|(fd, _)| *fd))
        .collect();
    let foreign = Foreign {
        program: &image,
        argv: &wires.argv,
        envp: &wires.envp,
        standard: standard.map(Some),
        terminal: wires.terminal.is_some(),
        pass: &passed,
        ours: &ours,
        timeout: options.timeout,
        same: again.and_then(|again| again.same),
        layout: if again.is_some() { Layout::Fixed } else { Layout::Natural },
        watch: again.map_or(&[], |again| again.watching.map_or(&[], |watching| watching.words)),
        trails: again.and_then(|again| again.watching).map_or(&[], |watching| watching.trails),
    };
    let mut record = Record::default();
    let target = match Target::spawn_foreign(&foreign, interrupted) {
        Ok(target) => target,
        Err(TargetError::Start { program, source }) => return Err(ProgramError::Start { program, source }),
        Err(error) => {
            record.troubles.push(chain(&error));
            return Ok(record);
        }
    };
    record.pid = target.processes().first().map(|first| first.pid);
    let captured = capture.map(|(read, _)| read); // the program has the other end now
    let outputs = [captured, wires.terminal.take()];
    outputs.into_iter().flatten().for_each(|from| channels.output(from));
    if let Some((to, behind)) = wires.writer.take() {
        channels.feed(to, behind, options.feed == Feed::Pty);
    }
    for (number, moment) in options.moments.iter().enumerate() {
        match moment {
            Moment::Stdout(regex) => channels.pattern(number, regex),
            Moment::After(after, _) => channels.timer(number, *after),
            Moment::Exit | Moment::Signal(..) | Moment::Syscall(..) => {}
        }
    }
    wires.hand_over();
    let mut run = Run {
        options,
        index,
        keeper,
        watching: again.and_then(|again| again.watching),
        pass: again.and_then(|again| again.pass),
        swept: again.is_some_and(|again| again.pass.is_some()),
        begun: None,
        secret: canary.bytes().len() as u64,
        channels,
        record,
        arrived: false,
        delivered: 0,
        tries: 0,
        // A file can be mapped, and then no call tells when its bytes came.
        gone_before: matches!(options.feed, Feed::File(_)).then(BTreeSet::new),
        done: BTreeSet::new(),
        file: wires.watched,
        witness,
    };
    if let Err(error) = run.follow(target) {
        run.record.troubles.push(chain(&error));
    }
    run.record.echoed = run.channels.echoed();
    Ok(run.record)
}

/// Whether it is the whole secret.
fn is_whole(hit: &session::Hit) -> bool {
    hit.found.needle == crate::judge::CANARY && hit.found.whole
}

/// A pipe whose end on our side does not block.
fn pipe() -> std::io::Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read.into(), write))
}

struct Run<'a, 'w> {
    options: &'a Options,
    index: &'a Index,
    /// Keeps what the program frees.
    keeper: Option<Keeper>,
    /// Words whose writers are asked for.
    watching: Option<&'a Watching<'a>>,
    /// What a sweep asks of this run, until it has that.
    pass: Option<Pass>,
    /// Whether it is a run of a sweep: then its end alone is looked at.
    swept: bool,
    /// The process in which the window of a sweep has begun.
    begun: Option<usize>,
    /// Bytes of the secret.
    secret: u64,
    channels: Channels<'a>,
    record: Record,
    /// The secret was seen whole in the target.
    arrived: bool,
    /// Bytes that reads from the fed file have brought.
    delivered: u64,
    /// Looks for the control so far.
    tries: u32,
    /// The processes that had ended when the first byte of the secret was read: they never had any of it.
    gone_before: Option<BTreeSet<usize>>,
    /// Moments that were looked at already, by process.
    done: BTreeSet<(usize, usize)>,
    file: Option<crate::target::Identity>,
    witness: &'w mut Witness<'w>,
}

impl Run<'_, '_> {
    fn follow(&mut self, mut target: Target<'_>) -> Result<(), TargetError> {
        self.set_watch(&mut target);
        if let Some(file) = self.file {
            target.is_fed_through(file);
        }
        if self.file.is_none() {
            // It has the secret from the start, in its arguments or its environment.
            self.gone_before = Some(BTreeSet::new());
            self.look_for_control(&mut target, 0);
        }
        target.go_on()?;
        loop {
            let mut come = Vec::new();
            let channels = &mut self.channels;
            let event = target.next_or(|| {
                come = channels.turn();
                !come.is_empty()
            })?;
            if self.ends_window(&event) && self.passed(&mut target, &event) {
                return Ok(());
            }
            match event {
                Event::Woken => self.moments(&mut target, &come),
                Event::Wrote(_) => {
                    let come = self.channels.turn();
                    self.moments(&mut target, &come);
                }
                Event::Reading(_) => self.channels.asked(),
                Event::Read(process, bytes) => self.read(&mut target, process, bytes),
                Event::Call(process, call) => self.call(&mut target, process, call),
                Event::Signalled(process, signal) => self.signal(&mut target, process, signal),
                Event::ExitCall(process) => {
                    self.call(&mut target, process, libc::SYS_exit_group as u64);
                    self.exit_call(&mut target, process);
                }
                Event::ExecEntry(process) => self.call(&mut target, process, libc::SYS_execve as u64),
                Event::ExitStop(process) => self.exit_stop(&mut target, process),
                // The last moment at which a call can be injected, if a signal ends it.
                Event::FatalSignal(process, _) => self.exit_call(&mut target, process),
                Event::Announced(_) | Event::Babble | Event::Paced(_) => {}
                Event::Ended(end) => {
                    self.channels.turn();
                    self.record.ended = end.map(session::ends);
                    self.account(&target);
                    return Ok(());
                }
                Event::TimedOut => {
                    let seconds = self.options.timeout.as_secs_f32();
                    let left = target.processes().iter().filter(|process| !process.ended).count();
                    self.record.troubles.push(if target.processes().first().is_some_and(|first| first.ended) {
                        format!(
                            "{left} processes that the program left running (a daemon?) did not end within {seconds} s"
                        )
                    } else {
                        format!("did not end within {seconds} s")
                    });
                    return Ok(());
                }
                Event::Interrupted => {
                    self.record.interrupted = true;
                    return Ok(());
                }
            }
            target.go_on()?;
        }
    }

    fn set_watch(&self, target: &mut Target<'_>) {
        let mut watch = Stops { file: self.file.filter(|_| !self.arrived), ..Stops::default() };
        watch.calls.push(libc::SYS_ptrace as u64);
        for moment in &self.options.moments {
            match moment {
                Moment::Stdout(_) => watch.writes = self.channels.has_output(),
                Moment::Signal(signal, _) => watch.signals.push(*signal),
                Moment::Syscall(call, _) => watch.calls.push(*call),
                Moment::Exit | Moment::After(..) => {}
            }
        }
        target.stop_at(watch);
    }

    fn is_followed(&self, process: usize) -> bool {
        process == 0 || self.options.follow
    }

    fn asks_for_exit(&self) -> bool {
        self.swept || self.options.moments.iter().any(|moment| matches!(moment, Moment::Exit))
    }

    /// A read of the secret, or of a part of it, has come back. Once enough has, the secret is looked for while it lives.
    fn read(&mut self, target: &mut Target<'_>, process: usize, bytes: u64) {
        if bytes > 0 && self.gone_before.is_none() {
            let ended = target.processes().iter().enumerate().filter(|(_, process)| process.ended);
            self.gone_before = Some(ended.map(|(number, _)| number).collect());
        }
        self.delivered += bytes;
        if self.delivered >= self.secret && !self.arrived {
            self.tries += 1;
            if self.tries <= EAGER_LOOKS || self.tries.is_power_of_two() {
                self.look_for_control(target, process);
            }
        }
    }

    fn look_for_control(&mut self, target: &mut Target<'_>, process: usize) {
        let mut aside = Vec::new(); // what this look does not see is another look's to answer for
        let look = session::look(target, process, "planted", Injection::Use, self.index, None, &mut aside, &mut |_| {});
        if look.hits.iter().any(is_whole) {
            self.arrived = true;
            self.begin_window(target, process);
            let state = &target.processes()[process];
            (self.witness)(Sight::Still { moment: "planted", process: state.number, pid: state.pid.as_raw() });
            let moment = "planted".to_owned();
            self.record.seen.push(Seen { moment, role: Role::Control, look, kept_freed: None });
            self.set_watch(target);
        }
    }

    /// A sweep begins where the secret is seen alive.
    fn begin_window(&mut self, target: &mut Target<'_>, process: usize) {
        match self.pass {
            Some(Pass::Count) => target.pace(process, MOST_STEPS),
            Some(Pass::Send { after, .. }) => target.pace(process, after),
            None => return,
        }
        self.begun = Some(process);
    }

    /// Whether the window of a sweep is over: at its last point, at a moment that was asked for, or at the process's end.
    fn ends_window(&self, event: &Event) -> bool {
        let (Some(begun), Some(_)) = (self.begun, self.pass) else { return false };
        let any = |fits: &dyn Fn(&Moment) -> bool| self.options.moments.iter().any(fits);
        match event {
            Event::Paced(_) | Event::Woken | Event::Ended(_) | Event::TimedOut | Event::Interrupted => true,
            Event::ExitCall(process) | Event::ExitStop(process) | Event::ExecEntry(process) => *process == begun,
            Event::FatalSignal(process, _) => *process == begun,
            Event::Call(process, call) => {
                *process == begun && any(&|moment| matches!(moment, Moment::Syscall(other, _) if other == call))
            }
            Event::Signalled(process, signal) => {
                *process == begun && any(&|moment| matches!(moment, Moment::Signal(other, _) if other == signal))
            }
            _ => false,
        }
    }

    /// The window is over, or its point is reached. Says whether that was all that was wanted.
    fn passed(&mut self, target: &mut Target<'_>, event: &Event) -> bool {
        let done = target.end_pace();
        match (self.pass.take(), event) {
            (Some(Pass::Count), Event::TimedOut | Event::Interrupted) | (None, _) => false,
            (Some(Pass::Count), event) => {
                self.record.window = Some(Window { instructions: done, cut: matches!(event, Event::Paced(_)) });
                true
            }
            (Some(Pass::Send { signal, .. }), Event::Paced(process)) => {
                if let Err(error) = target.send(*process, signal) {
                    self.record.troubles.push(format!("send the signal: {error}"));
                }
                false
            }
            (Some(Pass::Send { after, .. }), _) => {
                self.record.troubles.push(session::too_short(done, after));
                false
            }
        }
    }

    /// Looks at every followed process for moments that concern the whole tree.
    fn moments(&mut self, target: &mut Target<'_>, come: &[usize]) {
        let swept = self.swept;
        for moment in come.iter().filter(|_| !swept) {
            let living = |process: &usize| !target.processes()[*process].ended && self.is_followed(*process);
            let processes: Vec<usize> = (0..target.processes().len()).filter(living).collect();
            for process in processes {
                self.look(target, process, &self.options.moments[*moment].name(), Role::Residue, Injection::Use);
            }
            self.doubt_early(&self.options.moments[*moment].name());
        }
    }

    /// What was looked at before the secret came shows nothing, clean or not.
    fn doubt_early(&mut self, moment: &str) {
        let is_there = |seen: &Seen| seen.moment == moment && seen.look.hits.iter().any(is_whole);
        if !self.arrived && !self.record.seen.iter().any(is_there) {
            self.record.troubles.push(format!("{moment} came before the secret was seen in the program"));
        }
    }

    fn call(&mut self, target: &mut Target<'_>, process: usize, call: u64) {
        if call == libc::SYS_ptrace as u64 {
            let trouble = "calls ptrace(2) itself, which fails while it is traced, so it may behave differently";
            if !self.record.troubles.iter().any(|other| other == trouble) {
                self.record.troubles.push(trouble.to_owned());
            }
        }
        self.first(target, process, |moment| matches!(moment, Moment::Syscall(other, _) if *other == call));
    }

    fn signal(&mut self, target: &mut Target<'_>, process: usize, signal: i32) {
        self.first(target, process, |moment| matches!(moment, Moment::Signal(other, _) if *other == signal));
    }

    /// Looks for the moments that come for the first time in this process since the secret arrived.
    fn first(&mut self, target: &mut Target<'_>, process: usize, come: impl Fn(&Moment) -> bool) {
        if !self.arrived || self.swept || !self.is_followed(process) {
            return;
        }
        for (number, moment) in self.options.moments.iter().enumerate().filter(|(_, moment)| come(moment)) {
            if self.done.insert((number, process)) {
                self.look(target, process, &moment.name(), Role::Residue, Injection::Use);
            }
        }
    }

    /// The last moment at which a call can be injected: for memory that cannot be read otherwise.
    fn exit_call(&mut self, target: &mut Target<'_>, process: usize) {
        let shielded = snapshot::regions(&target.processes()[process])
            .is_ok_and(|regions| regions.iter().any(snapshot::Region::is_secret_memory));
        if shielded && self.asks_for_exit() && self.is_followed(process) {
            self.look(target, process, "exit", Role::SecretMemory, Injection::Use);
        }
    }

    fn exit_stop(&mut self, target: &mut Target<'_>, process: usize) {
        if self.is_followed(process) && self.asks_for_exit() {
            self.look(target, process, "exit", Role::Residue, Injection::Leave);
        } else if !self.arrived && self.delivered >= self.secret {
            self.look_for_control(target, process);
        }
        self.check_rights(target, process);
    }

    /// A set-user-ID bit has no effect under a tracer without privilege (ptrace(2), execve(2)): then another program
    /// ran than the one that a user meets.
    fn check_rights(&mut self, target: &Target<'_>, process: usize) {
        let pid = target.processes()[process].pid;
        let bits = std::fs::metadata(format!("/proc/{pid}/exe")).map(|meta| meta.permissions().mode() & 0o6000);
        if bits.is_ok_and(|bits| bits != 0) && !nix::unistd::geteuid().is_root() {
            let number = target.processes()[process].number;
            self.record.troubles.push(format!(
                "process {number} ran a set-user-ID or set-group-ID program without its rights: they are not given to a \
                 program that an ordinary user traces; run as root"
            ));
        }
    }

    fn look(&mut self, target: &mut Target<'_>, process: usize, moment: &str, role: Role, injection: Injection) {
        let (number, pid) = (target.processes()[process].number, target.processes()[process].pid.as_raw());
        let witness = &mut *self.witness;
        let mut secret: Vec<std::ops::Range<u64>> = Vec::new();
        if role == Role::Residue {
            witness(Sight::Still { moment, process: number, pid });
        }
        let look = session::look(
            target,
            process,
            moment,
            injection,
            self.index,
            self.watching,
            &mut self.record.troubles,
            &mut |shown| {
                let is_shown = match (role, shown) {
                    (Role::Residue, _) => true,
                    // Of the look for memfd_secret memory, that alone.
                    (Role::SecretMemory, Shown::Places(places)) => {
                        let regions = places.regions().iter().filter(|region| region.is_secret_memory());
                        secret = regions.map(|region| region.start..region.end).collect();
                        true
                    }
                    (Role::SecretMemory, Shown::Memory(at, _)) => secret.iter().any(|range| range.contains(&at)),
                    _ => false,
                };
                if is_shown {
                    witness(Sight::Shown { moment, process: number, shown });
                }
            },
        );
        self.doubt_fed(moment, &look);
        let kept_freed = self.kept_freed(target, process, moment);
        self.record.seen.push(Seen { moment: moment.to_owned(), role, look, kept_freed });
    }

    /// What waits where the program is fed is ours and not searched; but a program can write there, too.
    fn doubt_fed(&mut self, moment: &str, look: &Look) {
        let waiting = look.kept.as_ref().map_or(0, snapshot::waiting_to_be_read);
        let newline = u64::from(self.options.text && matches!(self.options.feed, Feed::Stdin | Feed::Descriptor(_)));
        // What it read after the secret had come was not counted: more may be its own than is told.
        if waiting > (self.secret + newline).saturating_sub(self.delivered) {
            self.record.troubles.push(format!(
                "{moment}: {waiting} bytes wait where it was fed, more than it had left there: what it wrote there was not \
                 searched"
            ));
        }
    }

    /// What was freed and kept in a process, if that was asked for; what was not kept is a trouble.
    fn kept_freed(&mut self, target: &Target<'_>, process: usize, moment: &str) -> Option<KeptFreed> {
        let state = &target.processes()[process];
        let mut doubt = |why: String| {
            let doubt = format!("{moment}: freed memory was not kept in process {}: {why}", state.number);
            if !self.record.troubles.contains(&doubt) {
                self.record.troubles.push(doubt);
            }
        };
        match self.keeper.as_ref()?.kept(state) {
            Ok(kept) => {
                if kept.released > 0 {
                    doubt(format!("the limit was met, and {} blocks were freed after all", kept.released));
                }
                Some(kept)
            }
            Err(why) => {
                doubt(why);
                None
            }
        }
    }

    /// Adds what was not seen of the tree, once it is gone.
    fn account(&mut self, target: &Target<'_>) {
        let gone_before = self.gone_before.clone().unwrap_or_default();
        let had_a_chance = |process: &usize| !gone_before.contains(process);
        let others = (1..target.processes().len()).filter(had_a_chance).count();
        if others > 0 && !self.options.follow {
            self.record.troubles.push(format!(
                "{others} child processes lived while the secret did and were not looked at: --follow looks at them"
            ));
        }
        if target.unmet() > 0 {
            self.record
                .troubles
                .push(format!("{} new threads or processes ended before they were seen", target.unmet()));
        }
        self.record.troubles.extend(session::escaped(target));
        if !self.asks_for_exit() {
            return;
        }
        for (process, state) in target.processes().iter().enumerate().filter(|(process, _)| had_a_chance(process)) {
            let seen =
                |seen: &Seen| seen.moment == "exit" && seen.role == Role::Residue && seen.look.process == state.number;
            if self.is_followed(process) && !self.record.seen.iter().any(seen) {
                self.record.troubles.push(format!("process {} ended without an exit stop", state.number));
            }
        }
    }
}
