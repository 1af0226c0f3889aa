//! Ctrl-C as a flag, so that guards run and nothing is left behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Sees that no core of this program is written: it would hold every needle. Targets get the hard limit back.
///
/// A limit of one byte keeps a core from files and from pipe handlers alike; with 0 the kernel still starts a handler
/// (core(5), *Piping core dumps to a program*; measured on Linux 6.18).
///
/// # Errors
///
/// When the limit cannot be set.
pub fn no_core() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard)?)
}

/// A flag that SIGINT, SIGTERM, SIGHUP or SIGQUIT sets. A second one of them ends the program at once; `PTRACE_O_EXITKILL`
/// then ends the targets, and the next run sweeps what is left of private directories.
///
/// # Errors
///
/// When a handler cannot be installed.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        // In this order: the second arrival sees the flag that the first one set.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(findings::EXIT_INTERNAL), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}
