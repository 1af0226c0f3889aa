//! Protected memory for somebody's whole use, beside the pool: a stack, a heap.
//!
//! No purge overwrites it. A thread may be running on it, and to pull its return addresses away would end the process
//! by another signal than the one that it dies of.

use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use super::mapping::{Kind, Mapping};
use super::pool::{self, refused};
use super::register::Entry;
use super::{Backend, Protection, fork};
use crate::error::Error;
use crate::policy::{Control, Demand, Policy};
use crate::{ct, wipe};

/// Bytes without access on either side. More than a page, because code that was not compiled with stack probes can step
/// over one.
const GUARD: usize = 64 << 10;

/// Whole pages between guards, zero at first.
#[derive(Debug)]
pub(crate) struct Enclosure {
    mapping: Mapping,
    /// For reports.
    entry: Entry,
    /// The kernel still knows the place.
    kept: bool,
}

impl Enclosure {
    /// At least `len` bytes, as `policy` says. Guards are required, whatever it says: code that goes past the end of a stack or a
    /// heap would write to what is nobody's to write to.
    pub(crate) fn new(policy: Policy, len: usize) -> Result<Self, Error> {
        if fork::in_child() {
            return Err(Error::Forked);
        }
        let policy = policy.with(Control::Guards, Demand::Required);
        let asked = policy.backend();
        fork::watch(policy, len)?;
        let make = |kind| match Mapping::new(kind, len, GUARD, policy) {
            // What the pool keeps for secrets to come may be what is missing here.
            Err(refusal) if pool::is_shortage(refusal) && pool::give_unused_back() => {
                Mapping::new(kind, len, GUARD, policy)
            }
            result => result,
        };
        let (kind, mapping, why) = match asked {
            Backend::MemfdSecret => {
                let made = make(Kind::MemfdSecret).map_err(refused(asked, len, Kind::MemfdSecret, None))?;
                (Kind::MemfdSecret, made, None)
            }
            Backend::Mlock => (Kind::Mlock, make(Kind::Mlock).map_err(refused(asked, len, Kind::Mlock, None))?, None),
            Backend::Auto => match make(Kind::MemfdSecret) {
                Ok(made) => (Kind::MemfdSecret, made, None),
                Err(why) => {
                    let made = make(Kind::Mlock).map_err(refused(asked, len, Kind::Mlock, Some(why)))?;
                    (Kind::Mlock, made, Some(why))
                }
            },
        };
        let protection = Protection::new(mapping.shields(), policy, kind, why);
        let start = mapping.data().as_ptr().addr();
        let entry = Entry::new(start..start + mapping.len(), protection);
        Ok(Self { mapping, entry, kept: false })
    }

    /// The first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.mapping.data()
    }

    /// Whole pages, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    pub(crate) fn protection(&self) -> Protection {
        self.entry.protection()
    }

    /// Tells others whether code runs on it.
    pub(crate) fn set_running(&self, runs: bool) {
        self.entry.set_running(runs);
    }

    /// Whether an address lies in it.
    pub(crate) fn contains(&self, address: usize) -> bool {
        let start = self.start().as_ptr().addr();
        (start..start + self.len()).contains(&address)
    }

    /// Leaves the pages mapped, whatever happens to this value.
    pub(crate) fn keep_for_ever(&mut self) {
        self.kept = true;
    }

    /// Whether the last `len` bytes are zero.
    pub(crate) fn ends_in_zeros(&self, len: usize) -> bool {
        compiler_fence(Ordering::SeqCst); // the kernel may have written there
        let skip = self.len().saturating_sub(len);
        // SAFETY: the pages are mapped readable and initialised, and nobody else writes to them while they are looked at:
        // whoever runs or allocates on them borrows this value.
        let end = unsafe { std::slice::from_raw_parts(self.start().as_ptr().wrapping_add(skip), self.len() - skip) };
        ct::is_zero(end)
    }

    /// Overwrites all of it with zeros.
    pub(crate) fn wipe(&mut self) {
        // SAFETY: the pages are mapped writable and ours alone: `&mut self`, and whoever runs or allocates on them borrows it.
        let all = unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len()) };
        wipe::wipe(all);
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        if self.kept || fork::in_child() {
            return; // in a child the pages are the parent's
        }
        self.wipe();
        self.entry.remove();
        // Refused, the pages stay mapped, and are zero; a drop has nobody to tell.
        let _ = self.mapping.unmap();
    }
}
