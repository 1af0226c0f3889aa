//! Sees to a caller and all that it starts: lets go on what the schedule has stopped for a while, ends what it has stopped for good,
//! waits until nobody is left, and says what came.
//!
//! It holds no secret, and hands the canary on unread. Times here are what a row is given before it counts as hanging, and never a
//! claim about how long anything takes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait};
use scenario_protocol::{Checkpoint, DENIED};
use scenario_stage::{Canary, Control, Failure};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::schedule::{self, HANG, Hit, ORPHAN, Schedule, UNREACHED};

/// The verb of the caller.
pub(crate) const CALLER: &str = "caller";
/// The verb of a process that only lives on.
pub(crate) const LINGER: &str = "linger";
/// How long that is: longer than anybody waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// What the library reads: `secmem/src/vault/steps.rs`.
const VARIABLE: &str = "SECMEM_STEPS";
/// How long a caller may take. Its longest way is a call late twice and a worker killed, for each worker of a schedule.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long those that it has started may take then.
const AFTER: Duration = Duration::from_secs(8);
/// How long a process stands still that goes on: a caller longer than its calls' deadline, a worker shorter.
const PAUSE: [Duration; 2] = [Duration::from_millis(1200), Duration::from_millis(300)];
/// How long a caller stands still that is ended then.
const STOP: Duration = Duration::from_millis(300);
/// How often it is looked at.
const TURN: Duration = Duration::from_millis(10);

/// The control socket and the canary of this process.
pub(crate) fn adopt() -> Result<(Control, Canary), Failure> {
    let adopted = Control::adopt().zip(Canary::adopt());
    adopted.ok_or("the harness starts `run`").map_err(Failure::while_doing("taking over its descriptors"))
}

/// Plays a schedule.
pub(crate) fn run(schedule: &Schedule) -> Result<u8, Failure> {
    let (control, canary) = adopt()?;
    refuse_memfd_secret()?;
    set_child_subreaper(Some(getpid())).map_err(Failure::while_doing("becoming the parent of orphans"))?;
    let mut command = Command::new("/proc/self/exe");
    command.args([CALLER, &schedule.to_string()]).env(VARIABLE, schedule.told());
    let (mut said, says) = file().map_err(Failure::while_doing("making a file for what comes"))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(says);
    let mut child = command.spawn().map_err(Failure::while_doing("starting the caller"))?;
    drop(canary);
    let caller = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let caller = caller.ok_or("it has no number").map_err(Failure::while_doing("starting the caller"))?;
    let mut going = Going {
        caller,
        started: Instant::now(),
        rest: String::new(),
        seen: Vec::new(),
        answered: 0,
        stands: false,
        later: Vec::new(),
        end: None,
        hung: false,
    };
    // What it waits for before it ends: that all has come.
    let mut more = child.stdin.take();
    let left = loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) => going.note(pid, status),
            Err(Errno::CHILD) => break false,
            Ok(None) | Err(Errno::INTR) => {
                if going.is_left_behind() {
                    break true;
                }
                thread::sleep(TURN);
            }
            Err(errno) => return Err(Failure::while_doing("waiting for the caller")(std::io::Error::from(errno))),
        }
        going.hear(&mut said)?;
        going.act();
        if going.seen.len() >= schedule.planned() {
            more = None;
        }
    };
    drop(more);
    if left {
        end_children();
    }
    going.hear(&mut said)?;
    let code = going.judge(schedule, left);
    write_down(schedule, &going, code)?;
    control.announce(Checkpoint::Wiped)?;
    Ok(code)
}

/// A line of the library's: what came, and to which process.
struct Line {
    hit: Option<Hit>,
    text: String,
    pid: Option<Pid>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (Some("hit"), Some(text), Some(pid), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        let pid = pid.parse().ok().and_then(Pid::from_raw);
        let hit = Schedule::parse(&format!("vault/1x+{text}")).and_then(|it| it.hits.into_iter().next());
        Some(Self { hit, text: text.to_owned(), pid })
    }
}

/// What every process of the tree says goes into a file without a name, in the order in which they say it.
fn file() -> std::io::Result<(File, File)> {
    const NAME: &str = "said";
    let says = OpenOptions::new().create_new(true).append(true).open(NAME)?;
    let said = File::open(NAME)?;
    std::fs::remove_file(NAME)?;
    Ok((said, says))
}

struct Going {
    caller: Pid,
    started: Instant,
    /// Of what was said, a line that has no end yet.
    rest: String,
    /// What came, in order.
    seen: Vec<Line>,
    /// Of those, how many were looked through for a caller that stands still.
    answered: usize,
    /// The caller stands still, and nothing was done about it yet.
    stands: bool,
    /// What is to be sent when.
    later: Vec<(Instant, Pid, Signal)>,
    /// How the caller ended, and when.
    end: Option<(WaitStatus, Instant)>,
    /// It had to be ended.
    hung: bool,
}

impl Going {
    fn note(&mut self, pid: Pid, status: WaitStatus) {
        if pid != self.caller {
            if status.stopped() {
                // Its caller is gone, and nobody else lets it go on: what stands still cannot end.
                self.later.push((Instant::now(), pid, Signal::CONT));
            }
        } else if status.stopped() {
            self.stands = true;
        } else {
            self.end = Some((status, Instant::now()));
        }
    }

    /// Takes in what was said since.
    fn hear(&mut self, said: &mut File) -> Result<(), Failure> {
        said.read_to_string(&mut self.rest).map_err(Failure::while_doing("reading what came"))?;
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let line = Line::parse(line);
            self.rest = rest.to_owned();
            let Some(line) = line else { continue };
            if let (Some(hit), Some(pid)) = (&line.hit, line.pid)
                && !hit.is_the_callers()
                && hit.what() == "pause"
            {
                self.later.push((Instant::now() + PAUSE[1], pid, Signal::CONT));
            }
            self.seen.push(line);
        }
        Ok(())
    }

    /// Sends what is due.
    fn act(&mut self) {
        let now = Instant::now();
        if self.stands {
            let new = &self.seen[self.answered..];
            let mut whats = new.iter().filter_map(|line| line.hit.as_ref()).filter(|hit| hit.is_the_callers());
            let what = whats.by_ref().map(Hit::what).filter(|what| ["stop", "pause"].contains(what)).max(); // stop, if both
            match what {
                Some("stop") => self.later.push((now + STOP, self.caller, Signal::KILL)),
                Some(_) => self.later.push((now + PAUSE[0], self.caller, Signal::CONT)),
                None => return self.send(now), // its line is still on the way
            }
            (self.stands, self.answered) = (false, self.seen.len());
        }
        if self.end.is_none() && !self.hung && self.started.elapsed() > PATIENCE {
            self.hung = true;
            self.later.push((now, self.caller, Signal::KILL));
        }
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        self.later.retain(|(when, pid, signal)| {
            if *when > now {
                return true;
            }
            let _ = kill_process(*pid, *signal); // it may be gone
            false
        });
    }

    /// Whether something has lived on for too long.
    fn is_left_behind(&self) -> bool {
        self.end.as_ref().is_some_and(|(_, when)| when.elapsed() > AFTER)
    }

    /// Whether the schedule has ended the caller.
    fn ended_by_schedule(&self) -> bool {
        self.seen.iter().filter_map(|line| line.hit.as_ref()).any(|hit| hit.is_the_callers() && hit.kills())
    }

    fn judge(&self, schedule: &Schedule, left: bool) -> u8 {
        let killed = self.ended_by_schedule();
        match self.end.as_ref().map(|(status, _)| (status.exit_status(), status.terminating_signal())) {
            _ if self.hung => HANG,
            _ if left => ORPHAN,
            Some((None, Some(signal))) if killed && signal == Signal::KILL.as_raw() => 0,
            Some((Some(0), None)) if !killed && self.seen.len() < schedule.planned() => UNREACHED,
            Some((Some(0), None)) if !killed => 0,
            Some((Some(code), None)) if code == i32::from(DENIED) => DENIED,
            _ => crate::EX_SOFTWARE,
        }
    }
}

/// All memory can be read from outside: that of memfd_secret(2) is there on no kernel that any process from here on sees.
fn refuse_memfd_secret() -> Result<(), Failure> {
    let rules = [(libc::SYS_memfd_secret, Vec::new())].into_iter().collect();
    let none = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let doing = "having memfd_secret refused";
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, none, TargetArch::x86_64);
    let program: seccompiler::BpfProgram = filter.and_then(TryInto::try_into).map_err(Failure::while_doing(doing))?;
    apply_filter(&program).map_err(Failure::while_doing(doing))
}

/// Kills whoever is still a child of this process.
fn end_children() {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    for pid in children.flat_map(|text| text.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<i32>>())
    {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL); // it may be gone
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// Adds a line on this row to the file `hits` beside the program, if there is one: name, what came, status, milliseconds.
fn write_down(schedule: &Schedule, going: &Going, code: u8) -> Result<(), Failure> {
    let doing = "writing down what came";
    let program = std::env::current_exe().map_err(Failure::while_doing(doing))?;
    let Ok(mut file) = OpenOptions::new().append(true).open(program.with_file_name(schedule::HITS)) else {
        return Ok(());
    };
    let came: Vec<&str> = going.seen.iter().map(|line| &*line.text).collect();
    let line = format!("{schedule}\t{}\t{code}\t{}\n", came.join("+"), going.started.elapsed().as_millis());
    file.write_all(line.as_bytes()).map_err(Failure::while_doing(doing))
}
