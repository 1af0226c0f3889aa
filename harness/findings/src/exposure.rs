//! What decides who else may get a process's bytes: swap, locks, dumps.

use serde::{Deserialize, Serialize};

/// The facts of one process at one look, each absent where the kernel does not tell it.
///
/// A weakness is none by itself: these facts say which copies a clean look does not answer for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Bytes in swap when the look began. Reading brings them back, so they are searched, but the swap device keeps its
    /// copy. Pages of shared memory are not in this figure (proc_pid_status(5), *VmSwap*).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped: Option<u64>,
    /// Bytes that are locked against swap (*VmLck*).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<u64>,
    /// Who may trace and dump it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumpable: Option<Dumpable>,
    /// The soft limit of a core file. A handler that cores are piped to gets one all the same, unless it is 1 byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_limit: Option<CoreLimit>,
    /// Which kinds of mapping a core holds (core(5), *coredump_filter*).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coredump_filter: Option<u32>,
}

/// The dumpable flag of a process (prctl(2), *PR_SET_DUMPABLE*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dumpable {
    /// Its user.
    User,
    /// Root alone.
    Root,
    /// Nobody: no core is written, and its user may not trace it.
    No,
}

impl Dumpable {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "by its user",
            Self::Root => "by root alone",
            Self::No => "no",
        }
    }
}

/// The largest core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoreLimit {
    /// No limit.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}
