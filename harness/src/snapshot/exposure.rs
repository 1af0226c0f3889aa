//! What the kernel tells of a process that decides who else may get its bytes.
//!
//! All of it is asked while the process stands still, and nothing of it is needed for a verdict: a fact that the kernel
//! does not tell is absent.

use findings::{CoreLimit, Dumpable, Exposure};
use nix::sys::resource::RLIM_INFINITY;
use nix::unistd::Pid;
use procfs::process::LimitValue;

use crate::interrupt::users_core_limit;
use crate::sys;

/// `PIDFD_COREDUMP_SKIP`, `_USER` and `_ROOT` of linux/pidfd.h.
const SKIP: u32 = 1 << 1;
const USER: u32 = 1 << 2;
const ROOT: u32 = 1 << 3;

/// Asks for all facts of a process. One that was started by us has inherited our core limit: then what is told is the one
/// that it would have without us.
///
/// # Source
///
/// proc_pid_status(5), *VmSwap*, *VmLck*; proc_pid_limits(5); proc_pid_coredump_filter in core(5).
pub(crate) fn read(pid: Pid, started_by_us: bool) -> Exposure {
    let process = procfs::process::Process::new(pid.as_raw()).ok();
    let status = process.as_ref().and_then(|process| process.status().ok());
    let limit = process.as_ref().and_then(|process| process.limits().ok());
    let kibibytes = |value: Option<u64>| value.map(|value| value.saturating_mul(1024));
    let filter = std::fs::read_to_string(format!("/proc/{pid}/coredump_filter")).ok();
    Exposure {
        swapped: kibibytes(status.as_ref().and_then(|status| status.vmswap)),
        locked: kibibytes(status.as_ref().and_then(|status| status.vmlck)),
        dumpable: dumpable(pid),
        core_limit: limit.map(|limits| {
            let seen = match limits.max_core_file_size.soft_limit {
                LimitValue::Unlimited => RLIM_INFINITY,
                LimitValue::Value(bytes) => bytes,
            };
            match if started_by_us { users_core_limit(seen) } else { seen } {
                RLIM_INFINITY => CoreLimit::Unlimited,
                bytes => CoreLimit::Bytes(bytes),
            }
        }),
        coredump_filter: filter.and_then(|text| u32::from_str_radix(text.trim(), 16).ok()),
    }
}

/// The dumpable flag. Before Linux 6.16 no file of `/proc` tells it.
fn dumpable(pid: Pid) -> Option<Dumpable> {
    let mask = sys::coredump_mask(&sys::pidfd_open(pid, false).ok()?).ok()??;
    [(USER, Dumpable::User), (ROOT, Dumpable::Root), (SKIP, Dumpable::No)]
        .into_iter()
        .find_map(|(bit, flag)| (mask & bit != 0).then_some(flag))
}
