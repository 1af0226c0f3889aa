//! A process that runs already: stopped, read, and let go on as before.

use std::sync::atomic::AtomicBool;

use findings::{Controls, Coverage, Finding, Looked, Observation, Outcome, Verdict};
use nix::unistd::Pid;

use crate::files::{self, Needles, SearchError};
use crate::judge;
use crate::session;
use crate::snapshot::{self, Injection};
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
        "process {pid} may not be traced: run as its user or with CAP_SYS_PTRACE, set kernel.yama.ptrace_scope to 0, and \
         make sure that no debugger holds it"
    )]
    Refused {
        /// Its number.
        pid: i32,
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
    drop(target);

    let secrets = needles.secrets();
    if planted as usize != secrets {
        reasons.push(format!("silent control: {planted} of {secrets} secrets were found where they were planted"));
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
    let (decoys, hits): (Vec<_>, Vec<_>) = look.hits.iter().partition(|hit| needles.is_decoy(hit.found.needle));
    if !decoys.is_empty() {
        reasons.push(format!("{} hits of decoys, which are nowhere", decoys.len()));
    }
    let findings: Vec<Finding> = hits.into_iter().map(|hit| judge::finding(&name, "now", 1, hit)).collect();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let whole = findings.iter().filter(|finding| finding.whole).count();
    let decoy_hits = number(decoys.len());
    let verdict = judge::seen(&findings, &reasons, decoy_hits);
    let mut outcome = Outcome {
        scenario: name.clone(),
        holder: name,
        ending: "alive".to_owned(),
        expectation: "clean".to_owned(),
        control: false,
        verdict,
        as_expected: verdict == Verdict::Clean,
        reasons,
        ended: "goes on".to_owned(),
        observations: vec![Observation {
            checkpoint: "now".to_owned(),
            process: 1,
            looked: look.looked.clone(),
            threads: look.threads,
            coverage: look.coverage.clone(),
            kept: look.kept.clone(),
            exposure: look.exposure.clone(),
            core: look.core,
            kept_freed: None,
            whole: number(whole),
            fragments: number(findings.len() - whole),
            public: 0,
            decoy_hits,
        }],
        controls: Controls { planted, decoys: needles.decoys(), decoy_hits },
        findings,
        shows: Vec::new(),
    };
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
        TargetError::Seize { .. } | TargetError::Open { .. } => AttachError::Refused { pid },
        _ => AttachError::Stop { pid, why: session::chain(&error) },
    })
}
