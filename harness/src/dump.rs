//! A core of a process that goes on living, written where the user wants it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use findings::Coverage;

use crate::attach::{self, AttachError};
use crate::snapshot::{self, DumpError, Extent};

/// A core that was written.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Bytes of the file, holes included.
    pub length: u64,
    /// Memory; `read` is what was written.
    pub coverage: Coverage,
    /// Threads whose registers it holds.
    pub threads: u32,
    /// How long the process stood still, at most.
    pub stopped: Duration,
    /// What it does not hold, in words.
    pub unread: Vec<String>,
}

/// Why there is no core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The process cannot be stopped.
    #[error(transparent)]
    Attach {
        /// Why.
        #[from]
        source: AttachError,
    },
    /// The file is there already or cannot be made.
    #[error("make {path}")]
    Make {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("write {path}")]
    Dump {
        /// Where.
        path: String,
        /// Why.
        source: DumpError,
    },
}

/// Stops a process, writes its memory and registers into a new ELF core, and lets it go on.
///
/// It stands still for as long as reading takes; nothing is injected. The file can be read by its owner alone, and
/// holds whatever secrets the process held. `interrupted` is looked at before the process is stopped.
///
/// # Errors
///
/// [`WriteError`]; the process then goes on too, and no file is left.
pub fn write(pid: i32, path: &Path, interrupted: &AtomicBool) -> Result<Dump, WriteError> {
    let name = || path.display().to_string();
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|source| WriteError::Make { path: name(), source })?;
    let written = fill(pid, &file, name, interrupted);
    if written.is_err() {
        let _ = std::fs::remove_file(path); // it was made by us just now
    }
    written
}

fn fill(pid: i32, file: &File, name: impl Fn() -> String, interrupted: &AtomicBool) -> Result<Dump, WriteError> {
    let began = Instant::now();
    let mut target = attach::stop(pid, interrupted)?;
    let dumped = snapshot::write_core(&mut target, 0, Extent::All, file);
    drop(target);
    let stopped = began.elapsed();
    let dumped = dumped.map_err(|source| WriteError::Dump { path: name(), source })?;
    let mut unread = dumped.troubles;
    unread.extend(dumped.coverage.refused.iter().map(|share| format!("{} bytes not read: {}", share.bytes, share.why)));
    if dumped.coverage.shielded > 0 {
        unread.push(format!("{} bytes of memfd_secret memory not read", dumped.coverage.shielded));
    }
    Ok(Dump { length: dumped.length, coverage: dumped.coverage, threads: dumped.threads, stopped, unread })
}
