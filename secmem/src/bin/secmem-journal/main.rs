//! `secmem-journal verify FILE`: whether an audit log is what was written.

#[cfg(target_arch = "x86_64")]
mod command;

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    // A panic's own code is none of those that the help names.
    std::panic::catch_unwind(command::run).unwrap_or_else(|_| ExitCode::from(command::INTERNAL))
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("secmem-journal: the library has no journal on this processor");
    ExitCode::from(70)
}
