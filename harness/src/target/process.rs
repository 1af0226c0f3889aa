//! One process of the tree: the files through which its memory is read.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

/// A process of the tree, alive or ended.
#[derive(Debug)]
pub(crate) struct Process {
    /// 1 is the process that was started; its children count on.
    pub(crate) number: u32,
    pub(crate) pid: Pid,
    /// `/proc/PID/mem`, open for reading, for the write that keeps a child from escaping and for those that pin random numbers, opened while the target was stopped in its `execve` or just forked.
    pub(crate) mem: File,
    /// `/proc/PID/pagemap`, opened with it.
    pub(crate) pagemap: File,
    /// `/proc/PID/maps`, opened with it.
    pub(crate) maps: File,
    pub(crate) ended: bool,
    /// One of its threads has called `exit_group`, so all of them come to their exit stops.
    pub(crate) exiting: bool,
    /// Its threads, the first apart, that ended without standing in their exit stop before our eyes.
    pub(crate) unseen: u32,
    /// It has made system calls that are not of the 64-bit kind.
    pub(crate) foreign_calls: bool,
    /// Threads and processes that it started and that are not traced.
    pub(crate) escaped: u32,
    /// Its call of `exit_group` came back: a filter of system calls can do that.
    pub(crate) came_back: bool,
}

impl Process {
    /// Opens the files of a stopped process.
    ///
    /// They stay usable when the target lowers its dumpable flag, which closes `/proc/PID` to later opens by an
    /// unprivileged reader. They show the memory of the moment of opening: after an `execve` they must be
    /// [reopened](Self::reopen).
    pub(crate) fn open(number: u32, pid: Pid) -> Result<Self, OpenError> {
        let open = |name: &'static str| {
            let path = PathBuf::from(format!("/proc/{pid}/{name}"));
            let write = name == "mem";
            File::options().read(true).write(write).open(&path).map_err(|source| OpenError { path, source })
        };
        let [mem, pagemap, maps] = [open("mem")?, open("pagemap")?, open("maps")?];
        Ok(Self {
            number,
            pid,
            mem,
            pagemap,
            maps,
            ended: false,
            exiting: false,
            unseen: 0,
            foreign_calls: false,
            escaped: 0,
            came_back: false,
        })
    }

    /// Opens the files again, after an `execve`.
    pub(crate) fn reopen(&mut self) -> Result<(), OpenError> {
        let (foreign_calls, escaped) = (self.foreign_calls, self.escaped);
        *self = Self { foreign_calls, escaped, ..Self::open(self.number, self.pid)? };
        Ok(())
    }
}

/// A file of `/proc` that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open {}", path.display())]
pub(crate) struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}
