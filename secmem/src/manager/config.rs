//! What a manager may hold, and for how long.

use std::time::Duration;

use super::pressure::{Thresholds, WhenFull};
use crate::deadline::{Clock, TestClock};
use crate::policy::Policy;
use crate::secret::{Options, Secret};
use crate::wipe::Schedule;

/// Buffers for which a manager can have places.
pub const MOST_BUFFERS: usize = 1 << 20;

/// The limits of a manager, and what its memory must be like.
///
/// By default 100 buffers of up to 16 MiB live at most, and each is wiped when nobody has used it for five minutes.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    pub(crate) most: usize,
    pub(crate) most_bytes: usize,
    pub(crate) largest: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) lifetime: Option<Duration>,
    pub(super) clock: Clock,
    pub(crate) thresholds: Thresholds,
    pub(super) when_full: WhenFull,
    #[cfg(feature = "compression")]
    pub(super) compresses: bool,
    pub(super) policy: Policy,
    schedule: Schedule,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            most: 100,
            most_bytes: usize::MAX,
            largest: 16 << 20,
            timeout: Some(Duration::from_millis(300_000)),
            lifetime: None,
            clock: Clock::System,
            thresholds: Thresholds::default(),
            when_full: WhenFull::default(),
            #[cfg(feature = "compression")]
            compresses: false,
            policy: Policy::default(),
            schedule: Schedule::Single,
        }
    }
}

/// Why a [`Config`] cannot be. Names what is wrong, and never the value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No buffers, or too many.
    #[error("{asked} buffers: from 1 to {MOST_BUFFERS} can be managed")]
    Buffers {
        /// Buffers asked for.
        asked: usize,
    },
    /// Buffers of no bytes.
    #[error("buffers of no bytes")]
    Bytes,
    /// A time-out after which every buffer would be gone before it could be used.
    #[error("a time-out of less than a millisecond")]
    Timeout,
    /// Thresholds that are not in order, or not above 0 and up to 1.
    #[error("thresholds of pressure that are out of order or out of range")]
    Thresholds,
    /// The kernel gave no random bytes, from which names of buffers are drawn.
    #[error("the kernel gave no random bytes")]
    Random,
}

impl Config {
    /// How many buffers may live; 100 if not said.
    pub fn max_buffers(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// How many bytes all buffers together may have; no limit of the manager's own if not said.
    pub fn max_bytes(mut self, most: usize) -> Self {
        self.most_bytes = most;
        self
    }

    /// How many bytes one buffer may have; 16 MiB if not said.
    pub fn max_buffer(mut self, most: usize) -> Self {
        self.largest = most;
        self
    }

    /// Wipes a buffer when nobody has used it for so long; five minutes if not said, never with `None`.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Wipes a buffer so long after it was made, used or not; never if not said.
    pub fn lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// What the memory must have: see [`Options::policy`].
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = policy.into();
        self
    }

    /// How a buffer is overwritten: see [`Options::wipe`].
    pub fn wipe(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// What happens where there is no place or no memory for another buffer; it is refused if not said.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Keeps templates compressed, where that makes them shorter; not if not said. Each is so read whichever was said.
    ///
    /// How long the compressed form is tells how much of a template repeats, and of two templates that are known in part it can tell
    /// which it is: the length stands in [`Info`](super::Info), and in that of a record which is made of the buffer. Where lengths are
    /// seen by those who must not know the content, leave it off. Compressing, and each reading, takes two more slots for as long
    /// as it lasts, which count against the lock budget and not against this manager's limits.
    #[cfg(feature = "compression")]
    pub fn compress_templates(mut self, compress: bool) -> Self {
        self.compresses = compress;
        self
    }

    /// From where on memory is scarce: see [`Thresholds`].
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Takes the time from a test's clock.
    pub fn clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let millisecond = Duration::from_millis(1);
        match self {
            Self { most, .. } if !(1..=MOST_BUFFERS).contains(most) => Err(ConfigError::Buffers { asked: *most }),
            Self { most_bytes: 0, .. } | Self { largest: 0, .. } => Err(ConfigError::Bytes),
            Self { timeout, lifetime, .. } if timeout.iter().chain(lifetime).any(|it| *it < millisecond) => {
                Err(ConfigError::Timeout)
            }
            Self { thresholds, .. } if !thresholds.are_sound() => Err(ConfigError::Thresholds),
            _ => Ok(()),
        }
    }

    /// How a buffer's memory is made.
    pub(crate) fn options(&self) -> Options {
        let mut options = Secret::options().policy(self.policy).wipe(self.schedule);
        if let Clock::Test(clock) = self.clock {
            options = options.clock(clock);
        }
        if let Some(timeout) = self.timeout {
            options = options.idle_for(timeout);
        }
        if let Some(lifetime) = self.lifetime {
            options = options.expires_in(lifetime);
        }
        options
    }
}
