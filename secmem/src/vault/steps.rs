//! The steps of a call, at each of which something can happen to its side: it is killed, stands still, or panics.
//!
//! In the build of `cargo xtask schedules` alone, `cfg(secmem_ablate = "vault-steps")`; in any other, [`pass`] does nothing and no
//! variable is read. A process is told in [`VARIABLE`] what is to come, as `SIDE:STEP:NTH:WHAT` with commas between. What comes is
//! told on standard error, in one line with the process's number, before it does; a file there tells what is left for the next
//! worker.

use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// What is to happen, to this process and to those that it starts.
pub(super) const VARIABLE: &str = "SECMEM_STEPS";

/// A point that a call passes. The first seven are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A request is about to be encrypted.
    CallerAsked,
    CallerSealed,
    CallerSent,
    /// An answer has come, to whoever reads.
    CallerReceived,
    /// A plaintext stands in its slot, and whose it is has not been told.
    CallerOpened,
    /// A callback is about to run.
    CallerLent,
    /// It has returned, and its slot was wiped.
    CallerWiped,
    WorkerReceived,
    /// A request is decrypted.
    WorkerOpened,
    /// A password that is to be kept stands in its slot.
    WorkerTaken,
    /// A plaintext that is asked for stands in its slot.
    WorkerPlain,
    /// It is encrypted there.
    WorkerSealed,
    WorkerWiped,
    WorkerSent,
    /// The caller was told of the wipe.
    WorkerTold,
}

const NAMES: [&str; 15] = [
    "caller:asked",
    "caller:sealed",
    "caller:sent",
    "caller:received",
    "caller:opened",
    "caller:lent",
    "caller:wiped",
    "worker:received",
    "worker:opened",
    "worker:taken",
    "worker:plain",
    "worker:sealed",
    "worker:wiped",
    "worker:sent",
    "worker:told",
];

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Kill,
    /// SIGSTOP. Whether somebody lets the process go on is not known here.
    Stop,
    Panic,
    /// A copy of the plaintext stays: what a search has to find.
    Keep,
}

#[derive(Debug)]
struct Hit {
    step: usize,
    nth: u32,
    what: What,
    text: String,
}

impl Hit {
    fn parse(text: &str) -> Option<Self> {
        let (rest, what) = text.rsplit_once(':')?;
        let (step, nth) = rest.rsplit_once(':')?;
        let what = match what {
            "kill" => What::Kill,
            "stop" | "pause" => What::Stop,
            "panic" => What::Panic,
            "keep" => What::Keep,
            _ => return None,
        };
        let step = NAMES.iter().position(|name| *name == step)?;
        Some(Self { step, nth: nth.parse().ok()?, what, text: text.to_owned() })
    }

    fn is_a_workers(&self) -> bool {
        self.step >= Step::WorkerReceived as usize
    }
}

#[derive(Debug)]
struct Plan {
    hits: Vec<Hit>,
    passed: [AtomicU32; NAMES.len()],
}

impl Plan {
    fn parse(text: &str) -> Self {
        let hits = text.split(',').filter_map(Hit::parse).collect();
        Self { hits, passed: [const { AtomicU32::new(0) }; NAMES.len()] }
    }

    /// This process's, read when it is first asked for.
    fn of_this_process() -> &'static Self {
        static PLAN: OnceLock<Plan> = OnceLock::new();
        PLAN.get_or_init(|| Self::parse(&std::env::var(VARIABLE).unwrap_or_default()))
    }

    /// Counts, and says what is to come.
    fn pass(&self, step: Step) -> Option<&Hit> {
        let nth = self.passed[step as usize].fetch_add(1, Ordering::AcqRel) + 1;
        self.hits.iter().find(|hit| (hit.step, hit.nth) == (step as usize, nth))
    }

    /// What is a worker's and has not come to an earlier one; `told` is what all of them have said.
    fn of_workers(&self, told: &str) -> String {
        let came = |hit: &&Hit| told.lines().any(|line| line.split(' ').nth(1) == Some(&hit.text));
        let left = self.hits.iter().filter(|hit| hit.is_a_workers() && !came(hit));
        left.map(|hit| &*hit.text).collect::<Vec<_>>().join(",")
    }
}

/// What was said so far, where standard error is a file.
fn told() -> String {
    const STANDARD_ERROR: &str = "/proc/self/fd/2";
    let is_file = std::fs::metadata(STANDARD_ERROR).is_ok_and(|it| it.is_file());
    is_file.then(|| std::fs::read_to_string(STANDARD_ERROR).ok()).flatten().unwrap_or_default()
}

/// A call is at this step.
#[inline]
pub(super) fn pass(step: Step) {
    if !cfg!(secmem_ablate = "vault-steps") {
        return;
    }
    let Some(hit) = Plan::of_this_process().pass(step) else { return };
    let line = format!("hit {} {}\n", hit.text, std::process::id());
    let _ = io::stderr().write_all(line.as_bytes()); // whoever counts misses it
    match hit.what {
        What::Kill => _ = sys::raise(libc::SIGKILL),
        What::Stop => _ = sys::raise(libc::SIGSTOP),
        What::Panic => panic!("at a step"),
        What::Keep => {}
    }
}

/// Whether the worker is to keep a copy of a plaintext.
#[inline]
pub(super) fn keeps() -> bool {
    cfg!(secmem_ablate = "vault-steps") && Plan::of_this_process().hits.iter().any(|hit| hit.what == What::Keep)
}

/// What the next worker is told; `None` where there are no steps.
#[inline]
pub(super) fn of_next_worker() -> Option<String> {
    cfg!(secmem_ablate = "vault-steps").then(|| Plan::of_this_process().of_workers(&told()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_comes_at_its_step_and_time_alone() {
        let plan = Plan::parse("caller:lent:2:panic,worker:plain:1:kill,nonsense,caller:nowhere:1:kill");

        assert_eq!(plan.hits.len(), 2);
        assert!(plan.pass(Step::CallerLent).is_none());
        assert_eq!(plan.pass(Step::CallerLent).map(|hit| hit.what), Some(What::Panic));
        assert!(plan.pass(Step::CallerLent).is_none() && plan.pass(Step::CallerWiped).is_none());
        assert_eq!(NAMES[Step::WorkerTold as usize], "worker:told");
        assert_eq!(NAMES[Step::WorkerReceived as usize], "worker:received");
    }

    #[test]
    fn a_worker_is_told_what_has_not_come_to_an_earlier_one() {
        let plan = Plan::parse("worker:sent:2:pause,caller:lent:1:kill,worker:plain:1:kill,worker:plain:11:kill");

        assert_eq!(plan.of_workers(""), "worker:sent:2:pause,worker:plain:1:kill,worker:plain:11:kill");
        assert_eq!(plan.of_workers("hit worker:plain:1:kill 7\nelse\n"), "worker:sent:2:pause,worker:plain:11:kill");
    }
}
