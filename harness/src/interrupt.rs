//! Ctrl-C as a flag, so that guards run and nothing is left behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A flag that SIGINT, SIGTERM or SIGHUP sets. A second one of them ends the program at once; `PTRACE_O_EXITKILL`
/// then ends the targets, and the next run sweeps what is left of private directories.
///
/// # Errors
///
/// When a handler cannot be installed.
pub fn flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the second arrival sees the flag that the first one set.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(findings::EXIT_INTERNAL), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}
