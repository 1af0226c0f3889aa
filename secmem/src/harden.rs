//! The settings of the whole process that decide who may read its memory, and what a crash leaves behind.
//!
//! An arena is protected by itself. The rest of the process is not: registers and stacks are in every core dump, and
//! whoever has the same user id may read the memory of a process that the kernel calls *dumpable*. [`harden`] turns that
//! off. It is for the whole process and not undone, so nothing here does it unasked.
//!
//! ```
//! let posture = secmem::harden()?;
//! assert!(posture.is_hardened());
//! # Ok::<(), secmem::Error>(())
//! ```

use std::fs;
use std::io;

use crate::error::Error;
use crate::sys::{self, Call};

const FILTER: &str = "/proc/self/coredump_filter";

/// What decides who may read this process, as the kernel says it at the time of asking.
///
/// A library, a `setuid` program or an `exec` can change any of it later: ask again where it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Posture {
    /// Processes of the same user may read the memory, and a crash writes a core: `PR_GET_DUMPABLE` is not 0.
    pub dumpable: bool,
    /// `RLIMIT_CORE`, soft, in bytes. Below a page no core is written to a file; 0 still starts a core_pattern(5) handler
    /// with the whole memory, 1 does not.
    pub core_limit: u64,
    /// Which mappings a core holds, as core(5) numbers them; `None` where the kernel does not say.
    pub core_filter: Option<u32>,
    /// The process that traces this one, as for `gdb`; `None` where there is none, or the kernel does not say.
    pub traced_by: Option<u32>,
    /// Yama's `ptrace_scope`: 0 any process of the same user may trace, 1 ancestors, 2 administrators, 3 nobody. `None`
    /// where the kernel has no Yama.
    pub ptrace_scope: Option<u8>,
}

impl Posture {
    /// As it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Harden`] if the kernel refuses to say what it has to know: dumpable and the limit.
    pub fn now() -> Result<Self, Error> {
        Ok(Self {
            dumpable: sys::dumpable().map_err(refused(Call::GetDumpable))?,
            core_limit: sys::core_limit().map_err(refused(Call::GetLimit))?,
            core_filter: read(FILTER).and_then(|text| u32::from_str_radix(text.trim(), 16).ok()),
            traced_by: read("/proc/self/status").and_then(|status| tracer(&status)),
            ptrace_scope: read("/proc/sys/kernel/yama/ptrace_scope").and_then(|text| text.trim().parse().ok()),
        })
    }

    /// Whether all that [`harden`] sets is set.
    #[must_use]
    pub fn is_hardened(&self) -> bool {
        !self.dumpable && self.core_limit <= 1
    }
}

/// Forbids core dumps, to files and to handlers, and reading by processes of the same user.
///
/// Sets the core limit to 1, hard and soft (at 0 the kernel still starts a handler that core_pattern(5) names), empties the
/// core filter where that can be written, and clears the dumpable flag. Returns what the kernel says then.
///
/// Afterwards the files in `/proc/self` belong to root: a process of another user can no longer write some of its own.
/// exec(3) sets the dumpable flag again.
///
/// # Errors
///
/// [`Error::Harden`] with the call that was refused; those before it stay done.
pub fn harden() -> Result<Posture, Error> {
    if !cfg!(secmem_ablate = "harden-limit") {
        sys::set_core_limit(1).map_err(refused(Call::SetLimit))?;
    }
    // What it forbids is forbidden by the flag already; it is there for an administrator who sets the flag again.
    if !cfg!(secmem_ablate = "harden-filter") {
        let _ = fs::write(FILTER, "0");
    }
    if !cfg!(secmem_ablate = "harden-dumpable") {
        sys::clear_dumpable().map_err(refused(Call::SetDumpable))?;
    }
    Posture::now()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn tracer(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|&pid| pid != 0)
}

fn refused(call: Call) -> impl Fn(io::Error) -> Error {
    move |source| Error::Harden { call: call.name(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seam;

    #[test]
    fn a_refused_call_is_named() {
        // The flag itself stays: this is the process of all the tests.
        for call in [Call::SetLimit, Call::SetDumpable] {
            seam::fail_next(call, libc::EPERM);
            let error = harden().unwrap_err();
            assert!(error.to_string().contains(call.name()), "{error}");
        }
        for call in [Call::GetDumpable, Call::GetLimit] {
            seam::fail_next(call, libc::EPERM);
            let error = Posture::now().unwrap_err();
            assert!(error.to_string().contains(call.name()), "{error}");
        }
    }

    #[test]
    fn the_tracer_is_read_and_nobody_is_nobody() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t42\n"), Some(42));
        assert_eq!(tracer("TracerPid:\t0\n"), None);
        assert_eq!(tracer(""), None);
    }
}
