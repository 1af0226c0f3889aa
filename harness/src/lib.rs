//! Runs a program, looks at its memory from outside, judges what is left of a planted secret.
//!
//! ```text
//! catalogue row ─► target ─► checkpoint ─► snapshot ─► scan ─► judge ─► findings
//! ```
//!
//! [`audit`] is that pipeline over a catalogue, [`attribute`] runs a row again to name who wrote a finding, [`files`] searches files and cores, [`machine`] says what this
//! machine can show. [`difference`] runs a program with two keys. Bytes read from a target live in `snapshot`, `scan` and,
//! while they are compared, `difference` alone: no error, finding or progress
//! event holds any.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the harness reads processes of Linux on x86-64; the library `secmem` builds without it");

pub mod attach;
pub mod attribute;
pub mod audit;
pub mod canary;
pub mod difference;
pub mod dump;
pub mod files;
mod handler;
pub mod interrupt;
mod judge;
pub mod machine;
#[doc(hidden)]
pub mod oracle;
mod private;
pub mod program;
pub mod progress;
mod public;
mod repeat;
pub mod scan;
mod session;
pub mod snapshot;
pub mod sweep;
mod sys;
mod target;
pub mod variants;
mod veil;

pub use session::chain;
