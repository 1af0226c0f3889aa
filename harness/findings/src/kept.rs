//! How much of what the kernel keeps for a process behind its descriptors was looked at, to the byte.

use serde::{Deserialize, Serialize};

use crate::Coverage;

/// Pipes, sockets, memfds and deleted files of one process at one look, each counted once however many descriptors
/// lead to it.
///
/// An account of its own: these bytes are outside of the address space, and what a mapping shows is counted there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Pipes and FIFOs.
    pub pipes: u32,
    /// Sockets.
    pub sockets: u32,
    /// Memfds, `memfd_secret` files among them.
    pub memfds: u32,
    /// Regular files without a name.
    pub deleted_files: u32,
    /// Their bytes. *Never populated* are the holes of files, *excluded* what the harness itself feeds and hears
    /// through.
    pub bytes: Coverage,
}

impl Kept {
    /// How many stores were looked at.
    pub fn stores(&self) -> u64 {
        [self.pipes, self.sockets, self.memfds, self.deleted_files].into_iter().map(u64::from).sum()
    }

    /// Adds another look's account to this one's.
    pub fn add(&mut self, other: &Self) {
        self.pipes = self.pipes.saturating_add(other.pipes);
        self.sockets = self.sockets.saturating_add(other.sockets);
        self.memfds = self.memfds.saturating_add(other.memfds);
        self.deleted_files = self.deleted_files.saturating_add(other.deleted_files);
        self.bytes.add(&other.bytes);
    }
}
