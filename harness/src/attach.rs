//! A process that runs already: stopped, read, and let go on as before.

use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Coverage, Looked, Observation, Outcome};
use nix::unistd::Pid;

use crate::files::{self, Needles, SearchError};
use crate::judge;
use crate::session;
use crate::snapshot::{self, Injection};
use crate::sys;
use crate::target::{Target, TargetError};
use crate::veil::veil;

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It is this program itself.
    #[error("process {pid} is this program itself")]
    Myself {
        /// Its number.
        pid: i32,
    },
    /// There is no such process.
    #[error("there is no process {pid}")]
    Gone {
        /// Its number.
        pid: i32,
    },
    /// The kernel does not allow it.
    #[error(
        "process {pid} may not be traced: run as its user or with CAP_SYS_PTRACE, and set kernel.yama.ptrace_scope to 0"
    )]
    Refused {
        /// Its number.
        pid: i32,
    },
    /// It is a thread of the kernel.
    #[error("process {pid} is a thread of the kernel: it has no memory of its own that could be searched")]
    Kernel {
        /// Its number.
        pid: i32,
    },
    /// It has ended and waits for its parent to ask how.
    #[error("process {pid} has ended (a zombie): it has no memory any more")]
    Ended {
        /// Its number.
        pid: i32,
    },
    /// Somebody else traces it.
    #[error("process {pid} is traced by process {tracer} already: end that first")]
    Traced {
        /// Its number.
        pid: i32,
        /// Who traces it.
        tracer: i32,
    },
    /// Stopping it failed in another way.
    #[error("stop process {pid}: {why}")]
    Stop {
        /// Its number.
        pid: i32,
        /// What failed, with its causes.
        why: String,
    },
    /// The needles cannot be used.
    #[error("prepare the search")]
    Search {
        /// Why.
        #[from]
        source: SearchError,
    },
}

/// Stops a process, searches its registers and memory, and lets it go on.
///
/// It stands still for as long as the search takes. A blocking call that it is in is started again by the kernel; a few
/// (`epoll_wait` among them) return `EINTR` instead, as after any stop (signal(7)). Memory of memfd_secret counts as
/// not read: nothing is injected into a process that was not started here.
///
/// # Errors
///
/// [`AttachError`]; the process then goes on too.
pub fn search(pid: i32, needles: &Needles, interrupted: &AtomicBool) -> Result<Outcome, AttachError> {
    let index = needles.index().map_err(SearchError::from)?;
    let planted = files::prove(&index, needles);

    let mut target = stop(pid, interrupted)?;
    let mut reasons: Vec<String> = needles.silent().into_iter().collect();
    let look = session::look(&mut target, 0, "now", Injection::Leave, &index, None, &mut reasons, &mut |_| {});
    reasons.extend(sharers(Pid::from_raw(pid)));
    drop(target);
    if interrupted.load(Ordering::Relaxed) {
        reasons.push("interrupted".to_owned());
    }

    match &look.looked {
        Looked::Yes => {}
        Looked::Missed(why) | Looked::NotLookedAt(why) => reasons.push(format!("not looked at: {why}")),
    }
    reasons.extend(judge::unread("now", &look.coverage));
    if look.coverage.shielded > 0 {
        reasons.push(format!("{} bytes of memfd_secret memory not read", look.coverage.shielded));
    }
    reasons.extend(judge::unread_behind_descriptors("now", look.kept.as_ref()));
    let name = format!("process {pid}");
    let hits = look.hits.iter().map(|hit| (name.clone(), hit));
    let mut outcome = needles.outcome(planted, reasons, hits, ("now", 1));
    for observation in &mut outcome.observations {
        *observation = Observation {
            looked: look.looked.clone(),
            threads: look.threads,
            coverage: look.coverage.clone(),
            kept: look.kept.clone(),
            exposure: look.exposure.clone(),
            core: look.core,
            ..observation.clone()
        };
    }
    outcome.holder.clone_from(&name);
    outcome.scenario = name;
    outcome.ending = "alive".to_owned();
    outcome.ended = "goes on".to_owned();
    veil(&mut outcome, &index);
    Ok(outcome)
}

/// Stops a process, hands on its memory in pieces (each with its address, ascending), and lets it go on.
///
/// As [`search`] reads it, the second look included; the coverage says what was not read.
///
/// # Errors
///
/// [`AttachError`]; the process then goes on too.
pub fn read(pid: i32, interrupted: &AtomicBool, piece: impl FnMut(u64, &[u8])) -> Result<Coverage, AttachError> {
    let mut target = stop(pid, interrupted)?;
    let regions = snapshot::regions(&target.processes()[0])
        .map_err(|error| AttachError::Stop { pid, why: session::chain(&error) })?;
    Ok(snapshot::read_live(&mut target, 0, &regions, Injection::Leave, piece))
}

pub(crate) fn stop(pid: i32, interrupted: &AtomicBool) -> Result<Target<'_>, AttachError> {
    let process = Pid::from_raw(pid);
    if pid <= 0 {
        return Err(AttachError::Gone { pid });
    }
    if process == Pid::this() || std::path::Path::new(&format!("/proc/self/task/{pid}")).exists() {
        return Err(AttachError::Myself { pid });
    }
    Target::attach(process, interrupted).map_err(|error| match &error {
        TargetError::Seize { source } if source.raw_os_error() == Some(libc::ESRCH) => AttachError::Gone { pid },
        TargetError::Seize { .. } | TargetError::Open { .. } => refusal(pid),
        _ => AttachError::Stop { pid, why: session::chain(&error) },
    })
}

/// Why the kernel refused, as far as it tells.
///
/// # Source
///
/// proc_pid_stat(5), fields *state* and *flags* (`PF_KTHREAD` of linux/sched.h); proc_pid_status(5), *TracerPid*.
fn refusal(pid: i32) -> AttachError {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let Ok(process) = procfs::process::Process::new(pid) else { return AttachError::Refused { pid } };
    match (process.stat(), process.status()) {
        (Ok(stat), _) if stat.flags & PF_KTHREAD != 0 => AttachError::Kernel { pid },
        (Ok(stat), _) if stat.state == 'Z' => AttachError::Ended { pid },
        (_, Ok(status)) if status.tracerpid != 0 => AttachError::Traced { pid, tracer: status.tracerpid },
        _ => AttachError::Refused { pid },
    }
}

/// What is said of processes that share a process's memory and are no threads of it (`CLONE_VM`, also between `vfork` and
/// `exec`): they ran on, and their registers were not read.
fn sharers(pid: Pid) -> Vec<String> {
    let listed = std::fs::read_dir("/proc").map(|entries| {
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect::<Vec<_>>()
    });
    let mut doubts = Vec::new();
    for other in listed.unwrap_or_default().into_iter().filter(|other| *other != pid) {
        match sys::share_memory(pid, other) {
            Ok(true) => doubts.push(format!(
                "process {other} shares its memory, went on while that was read, and its registers were not"
            )),
            Ok(false) => {}
            // Gone, or of somebody whose processes are not ours to look at.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EPERM | libc::EACCES)) => {}
            Err(error) => {
                doubts.push(format!("whether another process shares its memory cannot be told: {error}"));
                break;
            }
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_interrupt_ends_the_reading_of_a_process_and_leaves_nothing_uncounted() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();

        let [whole, stopped] =
            [false, true].map(|stop| read(pid, &AtomicBool::new(stop), |_, _| {}).map_err(|error| error.to_string()));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();

        let (whole, stopped) = (whole.unwrap(), stopped.unwrap());
        assert!(whole.read > 0 && whole.refused.iter().all(|share| share.why != "interrupted"), "{whole:?}");
        assert!(stopped.refused.iter().any(|share| share.why == "interrupted"), "{stopped:?}");
        assert_eq!((stopped.read, stopped.adds_up()), (0, true), "{stopped:?}");
    }

    #[test]
    fn threads_share_memory_and_a_program_that_was_started_does_not() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        let child = Pid::from_raw(i32::try_from(sleeper.id()).unwrap());

        let here = sys::share_memory(Pid::this(), nix::unistd::gettid()).map_err(|error| error.to_string());
        let there = sys::share_memory(Pid::this(), child).map_err(|error| error.to_string());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();

        assert_eq!((here, there), (Ok(true), Ok(false)));
    }

    #[test]
    fn a_process_that_has_ended_and_one_of_the_kernels_are_told_as_what_they_are() {
        let mut ended = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(ended.id()).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while !state().contains(") Z ") {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }

        let told = read(pid, &AtomicBool::new(false), |_, _| {}).unwrap_err();
        ended.wait().unwrap();

        assert!(matches!(told, AttachError::Ended { .. }), "{told:?}");
        // Process 2 starts the kernel's threads; within a container it is another, or none.
        let kernel = procfs::process::Process::new(2).and_then(|process| process.stat());
        if kernel.is_ok_and(|stat| stat.flags & 0x0020_0000 != 0) {
            let told = read(2, &AtomicBool::new(false), |_, _| {}).unwrap_err();
            assert!(matches!(told, AttachError::Kernel { .. }), "{told:?}");
        }
    }
}
