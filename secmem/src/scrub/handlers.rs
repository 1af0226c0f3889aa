//! Where signal handlers run while somebody's code runs on a protected stack.
//!
//! The kernel saves every register on the stack of the handler. A handler with `SA_ONSTACK` runs on the thread's
//! alternate stack, which is the application's and which nobody overwrites: so it gets ours for that time.
#![allow(unsafe_code)] // the kernel is given a place to write to

use crate::arena::Enclosure;
use crate::error::Error;
use crate::policy::Policy;
use crate::sys::stack::{self, AlternateStack};

/// Bytes beyond the frame that the kernel writes: what a handler of ordinary size needs, where this thread had no stack for
/// handlers, or a smaller one.
const ROOM: usize = 16 << 10;

/// An alternate stack for as long as it is taken.
#[derive(Debug)]
pub(super) struct Handlers {
    place: Enclosure,
    policy: Policy,
}

impl Handlers {
    pub(super) fn new(policy: Policy) -> Result<Self, Error> {
        // The application knows what its handlers need.
        let len = (stack::signal_frame() + ROOM).max(stack::alternate_stack_len());
        Ok(Self { place: Enclosure::new(policy, len)?, policy })
    }

    pub(super) fn enclosure(&self) -> &Enclosure {
        &self.place
    }

    /// Lets this thread's handlers run here; returns where they ran before. Never in less room than there: the thread may be
    /// another one than the one that made this, or have got a larger stack since.
    pub(super) fn take(&mut self) -> Result<AlternateStack, Error> {
        let before = self.set()?;
        if before.len() <= self.place.len() {
            return Ok(before);
        }
        self.give_back(&before)?;
        self.place = Enclosure::new(self.policy, before.len())?;
        self.set()
    }

    fn set(&self) -> Result<AlternateStack, Error> {
        // SAFETY: the pages are writable and ours alone. They outlive their use: `give_back` follows, and a stack that
        // could not be given back is never unmapped.
        let before = unsafe { stack::alternate_stack(self.place.start(), self.place.len()) };
        before.map_err(|source| Error::Handlers { source })
    }

    /// Lets them run where they ran before, and overwrites what they left here.
    pub(super) fn give_back(&mut self, before: &AlternateStack) -> Result<(), Error> {
        // SAFETY: it was this thread's place until `take`, and the application has had no chance to give it up since: what
        // ran in between could only have replaced ours.
        let ours = unsafe { stack::set_alternate_stack(before) };
        ours.map_err(|source| {
            self.place.keep_for_ever();
            Error::Handlers { source }
        })?;
        // The kernel writes its frame at the upper end, a return address in it. So where that is all zero nothing ran.
        if !cfg!(secmem_ablate = "alternate-stack-wipe") && !self.place.ends_in_zeros(stack::signal_frame()) {
            self.place.wipe();
        }
        Ok(())
    }
}
