//! What a secret's memory must have, what it may lack, and what it got.
//!
//! Each protection is a [`Control`], and a [`Policy`] says for each whether it is required, preferred or off. What a
//! policy asks is tried where the memory is made (`arena`), and [`Protection`](crate::Protection) answers for each control
//! what was asked, whether it was reached, and why not. Nothing is lost in silence: a required control that the kernel
//! refuses is an error, a preferred one is in the report with its errno.

use std::fmt;

use crate::arena::Backend;
use crate::error::Refusal;

/// One protection of a secret's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Control {
    /// Pages of memfd_secret(2), which nobody outside the process reads. Off: ordinary pages.
    MemfdSecret,
    /// The pages are never swapped out: mlock(2). Pages of memfd_secret always are locked.
    Lock,
    /// The pages are not part of core dumps: `MADV_DONTDUMP`.
    DontDump,
    /// A forked child does not get the pages: `MADV_DONTFORK`.
    DontFork,
    /// A page without access on either side.
    Guards,
    /// A forked child knows that it is one, whichever call made it: a page with `MADV_WIPEONFORK`, one for the whole
    /// process, made with its first secret. Without it only children of fork(3) know.
    ForkWitness,
}

impl Control {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::MemfdSecret, Self::Lock, Self::DontDump, Self::DontFork, Self::Guards, Self::ForkWitness];
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemfdSecret => "memfd_secret",
            Self::Lock => "lock",
            Self::DontDump => "dont-dump",
            Self::DontFork => "dont-fork",
            Self::Guards => "guards",
            Self::ForkWitness => "fork-witness",
        })
    }
}

/// How much a control matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Demand {
    /// Without it there is no secret, but an error.
    Required,
    /// It is tried; where it is refused, the report says so.
    Preferred,
    /// It is not tried.
    Off,
}

/// What is demanded of each [`Control`]. By default memfd_secret is preferred and everything else required.
///
/// ```
/// use secmem::{Control, Demand, Policy, Secret};
///
/// // In a container that grants no lock budget, say so on purpose, and see what was lost.
/// let policy = Policy::default().with(Control::Lock, Demand::Preferred);
/// let secret = Secret::options().policy(policy).zeroed(32)?;
/// for reached in secret.protection().controls() {
///     println!("{reached}"); // "lock: preferred, reached"
/// }
/// # Ok::<(), secmem::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct Policy(u16); // two bits a control, for it is compared whenever a secret is made

impl Default for Policy {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Control::ALL.map(|control| (control, self.demand(control)))).finish()
    }
}

impl Policy {
    pub(crate) const STANDARD: Self = Self::strict().with(Control::MemfdSecret, Demand::Preferred);

    /// Everything is required, memfd_secret too.
    pub const fn strict() -> Self {
        Self(0)
    }

    /// Everything is preferred: there is a secret wherever the kernel grants memory and random bytes, and the report says what it lacks.
    pub const fn best_effort() -> Self {
        let mut policy = Self::strict();
        let mut at = 0;
        while at < Control::ALL.len() {
            policy = policy.with(Control::ALL[at], Demand::Preferred);
            at += 1;
        }
        policy
    }

    /// The same with another demand for one control.
    pub const fn with(self, control: Control, demand: Demand) -> Self {
        let shift = 2 * control as u16;
        Self(self.0 & !(3 << shift) | (demand as u16) << shift)
    }

    /// What is demanded of a control.
    #[must_use]
    pub const fn demand(&self, control: Control) -> Demand {
        match self.0 >> (2 * control as u16) & 3 {
            0 => Demand::Required,
            1 => Demand::Preferred,
            _ => Demand::Off,
        }
    }

    /// The demands as a number.
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// What [`bits`](Self::bits) told.
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) const fn of_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The kind of memory, as the demand for memfd_secret says it.
    pub(crate) const fn backend(&self) -> Backend {
        match self.demand(Control::MemfdSecret) {
            Demand::Required => Backend::MemfdSecret,
            Demand::Preferred => Backend::Auto,
            Demand::Off => Backend::Mlock,
        }
    }

    /// The same, but for what does not concern single pages: equal for secrets that may share an arena of one kind.
    pub(crate) const fn of_pages(self) -> Self {
        self.with(Control::MemfdSecret, Demand::Off).with(Control::ForkWitness, Demand::Off)
    }
}

impl From<Backend> for Policy {
    fn from(backend: Backend) -> Self {
        let demand = match backend {
            Backend::Auto => Demand::Preferred,
            Backend::MemfdSecret => Demand::Required,
            Backend::Mlock => Demand::Off,
        };
        Self::STANDARD.with(Control::MemfdSecret, demand)
    }
}

/// What came of one control: one line of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// Which.
    pub control: Control,
    /// What the policy said.
    pub asked: Demand,
    /// Whether it is there. It may be where nobody asked: pages of memfd_secret are always locked.
    pub reached: bool,
    /// Why it is not there although it was asked for.
    pub why: Option<Refusal>,
}

impl Reached {
    /// Whether it was asked for and is not there.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.asked != Demand::Off && !self.reached
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = match self.asked {
            Demand::Required => "required",
            Demand::Preferred => "preferred",
            Demand::Off => "off",
        };
        write!(f, "{}: {asked}, {}", self.control, if self.reached { "reached" } else { "not reached" })?;
        match self.why {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_a_demand_for_memfd_secret_and_back() {
        for backend in [Backend::Auto, Backend::MemfdSecret, Backend::Mlock] {
            assert_eq!(Policy::from(backend).backend(), backend);
        }
        assert_eq!(Policy::default(), Policy::from(Backend::Auto));
        for demand in [Demand::Required, Demand::Preferred, Demand::Off] {
            for control in Control::ALL {
                let policy = Policy::best_effort().with(control, demand);
                assert_eq!(policy.demand(control), demand);
                let others = Control::ALL.into_iter().filter(|other| *other != control);
                assert!(others.into_iter().all(|other| policy.demand(other) == Demand::Preferred));
            }
        }
    }

    #[test]
    fn a_line_of_a_report_says_what_was_asked_and_why_it_failed() {
        let why = Refusal { call: "mlock", errno: libc::EPERM };
        let line = Reached { control: Control::Lock, asked: Demand::Preferred, reached: false, why: Some(why) };

        assert!(line.is_degraded());
        assert_eq!(line.to_string(), format!("lock: preferred, not reached ({})", why));
    }
}
