//! How long a secret lives: until a time, until it has rested for too long, for so many uses, within an owner's limits.
//!
//! Most secrets have no such rules, and pay for none: they have no [`Life`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::arena::{Doom, Slot, Ticket, refuse};
use crate::deadline::{Alone, Clock, Deadline, Terms, Time, Told};
use crate::error::Error;
use crate::owner::{Owner, Share};

/// What [`Options`](crate::Options) say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) expires_in: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) uses: Option<u64>,
    pub(crate) owner: Option<Owner>,
    pub(crate) clock: Clock,
}

impl Rules {
    /// Whether nothing limits a life.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.expires_in.is_none() && self.idle.is_none() && self.uses.is_none() && self.owner.is_none()
    }

    /// Takes `len` bytes from the owner's account, before there is memory.
    pub(crate) fn admit(&self, len: usize) -> Result<Option<Share>, Error> {
        self.owner.map(|owner| owner.take(len)).transpose()
    }

    /// Begins the life of a slot, at `now`. `told`: who hears if time ends it.
    pub(crate) fn begin(
        &self,
        slot: &Slot,
        now: Time,
        share: Option<Share>,
        told: Option<Told>,
    ) -> Result<Box<Life>, Error> {
        let terms = Arc::new(Terms::new(self.clock, now, self.expires_in, self.idle, told));
        let deadline = Deadline::set(&terms, now, slot.ticket())?;
        Ok(Box::new(Life { deadline, terms, uses: self.uses.map(Uses::new), share }))
    }
}

/// The rules that a secret lives by, and where it stands with them.
#[derive(Debug)]
pub(crate) struct Life {
    deadline: Option<Deadline>,
    terms: Arc<Terms>,
    /// How often it may still be used.
    uses: Option<Uses>,
    share: Option<Share>,
}

impl Life {
    /// Begins an access: ends the slot if its time has come and the thread was not scheduled yet, and counts the use.
    /// `now`: what time it is, where somebody has looked already.
    #[inline]
    pub(crate) fn begin<'a>(&'a self, slot: &Slot, alone: Alone, now: Option<Time>) -> Result<Use<'a>, Error> {
        let held = self.hold_at(slot, alone, now);
        match &self.uses {
            None => Ok(Use { held, of: None }),
            Some(uses) => {
                let used = Use { held, of: Some((uses, slot.ticket())) };
                if uses.begin() { Ok(used) } else { Err(refuse(Error::Spent)) }
            }
        }
    }

    /// The same for a look or a change of this crate's own: no use, but the secret does not rest meanwhile.
    pub(crate) fn hold(&self, slot: &Slot) -> Held<'_> {
        self.hold_at(slot, Alone(false), None)
    }

    #[inline]
    fn hold_at(&self, slot: &Slot, alone: Alone, now: Option<Time>) -> Held<'_> {
        let has_passed = || now.map_or_else(|| self.terms.has_passed(), |now| self.terms.has_passed_at(now));
        if self.deadline.is_some() && has_passed() && !cfg!(secmem_ablate = "manager-revive") {
            // The access that follows says why it fails.
            let _ = slot.doom(Doom::Expired);
        }
        self.terms.begin(alone);
        Held(self, alone)
    }

    /// Whether its time has come, whatever anybody has done about it.
    #[cfg(all(feature = "manager", target_arch = "x86_64"))]
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.is_some() && self.terms.has_passed()
    }

    /// Another slot takes the place of the first. `false`: the time came in between, and the new one has to end, too.
    pub(crate) fn move_to(&self, slot: &Slot) -> bool {
        self.deadline.as_ref().is_none_or(|deadline| deadline.move_to(slot.ticket()))
    }

    pub(crate) fn share(&mut self) -> Option<&mut Share> {
        self.share.as_mut()
    }
}

/// Uses that are left, and those that run.
#[derive(Debug)]
struct Uses {
    left: AtomicU64,
    running: AtomicU64,
}

impl Uses {
    fn new(left: u64) -> Self {
        Self { left: AtomicU64::new(left), running: AtomicU64::new(0) }
    }

    /// Counts one that begins; says whether it may. It has to [`end`](Self::end) in either case.
    fn begin(&self) -> bool {
        // First: as long as one that may has not ended, no other one finds itself the last.
        self.running.fetch_add(1, Ordering::AcqRel);
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Says whether that was the end of the last one.
    fn end(&self) -> bool {
        self.running.fetch_sub(1, Ordering::AcqRel) == 1 && self.left.load(Ordering::Acquire) == 0
    }
}

/// Somebody is at it: it does not rest. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Life, Alone);

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.terms.end(self.1);
    }
}

/// A use that is counted. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Use<'a> {
    #[expect(dead_code, reason = "for its drop")]
    held: Held<'a>,
    /// What the last use ends.
    of: Option<(&'a Uses, Ticket)>,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if let Some((uses, ticket)) = &self.of
            && uses.end()
            && !cfg!(secmem_ablate = "uses")
        {
            // Without random bytes zeros stand there, and memory that did not open is tried again; a use has nobody to tell.
            let _ = ticket.doom(Doom::Spent);
        }
    }
}
