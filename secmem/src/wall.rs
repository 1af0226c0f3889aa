//! What time it is in the world: of the machine, or of a test's clock that goes on from there.

use std::time::SystemTime;

use crate::deadline::{Clock, Time};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    clock: Clock,
    /// When it was made: milliseconds since 1970, and on the clock.
    began: (u64, Time),
}

impl Wall {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, began: (of_machine(), clock.now()) }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        match self.clock {
            Clock::System => of_machine(),
            Clock::Test(_) => {
                let passed = self.clock.now().saturating_sub(self.began.1);
                self.began.0.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

fn of_machine() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
