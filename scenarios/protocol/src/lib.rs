//! What a scenario and the harness say to each other.
//!
//! Rows of the catalogue, names of checkpoints, the frames on the control socket and the numbers of the
//! descriptors. No I/O here: both sides bring their own, the scenario one that leaves no copies.
//!
//! The scenario announces a checkpoint and then waits; the harness looks at the stopped process and answers.
//! Nothing secret crosses the control socket. The canary comes over [`CANARY_FD`] and is read straight into place.

mod row;

pub use row::{CanaryKind, Claim, Ends, Expectation, Need, ParseExpectationError, Row, Shape};

use serde::{Deserialize, Serialize};

/// Descriptor of the control socket in the target: a `SOCK_SEQPACKET` pair, one frame a message.
pub const CONTROL_FD: i32 = 3;

/// Descriptor in the target from which exactly [`Row::canary_len`] bytes of canary can be read, then end of file.
pub const CANARY_FD: i32 = 4;

/// Exit status of a row that asked for what the library says, and it does not hold. Any other failure of a row has another,
/// so that a library that merely fails is not taken for one that was caught.
pub const DENIED: u8 = 71;

/// A named moment at which memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoint {
    /// Announced: the secret stands in its holder. The row's positive control.
    Planted,
    /// Announced: the holder was dropped or wiped and the process stays.
    Wiped,
    /// Announced: the deadline of the secret has passed.
    Timeout,
    /// Announced: a panic has unwound past the holder.
    Unwound,
    /// Announced by a forked child after its parent has ended.
    Child,
    /// Announced: the next thing the target does is `execve`.
    BeforeExec,
    /// Seen by the harness: entry stop of `execve`, the old image still in place.
    Exec,
    /// Seen by the harness: entry stop of `exit_group`, the last live stop of an ordinary end.
    ExitCall,
    /// Seen by the harness: a signal whose action is the default is about to end the target; its last live stop.
    Signal,
    /// Seen by the harness: the exit stop, memory at the moment of death (`PTRACE_EVENT_EXIT`).
    Exit,
    /// After death: the kernel's core dump.
    Core,
}

impl Checkpoint {
    /// All checkpoints, in the order in which a target can reach them.
    pub const ALL: [Self; 11] = [
        Self::Planted,
        Self::Wiped,
        Self::Timeout,
        Self::Unwound,
        Self::Child,
        Self::BeforeExec,
        Self::Exec,
        Self::ExitCall,
        Self::Signal,
        Self::Exit,
        Self::Core,
    ];

    /// The name in tables, files and expectations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planted => "planted",
            Self::Wiped => "wiped",
            Self::Timeout => "timeout",
            Self::Unwound => "unwound",
            Self::Child => "child",
            Self::BeforeExec => "before-exec",
            Self::Exec => "exec",
            Self::ExitCall => "exit-call",
            Self::Signal => "signal",
            Self::Exit => "exit",
            Self::Core => "core",
        }
    }

    /// The checkpoint of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|checkpoint| checkpoint.name() == name)
    }

    /// Whether the target announces it (the harness sees the others without the target's help).
    pub const fn announced(self) -> bool {
        matches!(self, Self::Planted | Self::Wiped | Self::Timeout | Self::Unwound | Self::Child | Self::BeforeExec)
    }

    /// The message that announces it: two bytes, the second its place in [`ALL`](Self::ALL).
    pub const fn frame(self) -> [u8; 2] {
        [FRAME_ANNOUNCE, self as u8]
    }

    /// Reads an announcement; `None` for anything that is not one.
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        let &[FRAME_ANNOUNCE, code] = frame else { return None };
        Self::ALL.into_iter().find(|checkpoint| *checkpoint as u8 == code && checkpoint.announced())
    }
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const FRAME_ANNOUNCE: u8 = 0xC5;

/// The harness's answer to an announcement: go on.
pub const FRAME_GO_ON: [u8; 2] = [0xC6, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_announced_checkpoint_survives_its_frame() {
        for checkpoint in Checkpoint::ALL {
            let read = Checkpoint::from_frame(&checkpoint.frame());

            assert_eq!(read, checkpoint.announced().then_some(checkpoint));
        }
    }

    #[test]
    fn a_frame_that_is_none_is_refused() {
        for frame in [&[][..], &[0xC5], &[0xC5, 0xFF], &[0xC6, 0], &[0xC5, 0, 0]] {
            assert_eq!(Checkpoint::from_frame(frame), None);
        }
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for checkpoint in Checkpoint::ALL {
            assert_eq!(Checkpoint::from_name(checkpoint.name()), Some(checkpoint));
        }
    }
}
