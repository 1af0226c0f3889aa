//! What is asked of the kernel: at most once a second, however many ask.
//!
//! To see whether the kernel confirms the memory of secrets means to read `/proc/self/smaps`, and no memory for secrets is
//! mapped meanwhile. Who asks more often gets what was seen last.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::error::Error;
use crate::manager::{Level, Manager, Pressure};
use crate::report::{Confirmation, Missing, Report, verify};

/// How long a look is taken for the present.
const FRESH: Duration = Duration::from_secs(1);

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) pressure: Pressure,
    pub(super) level: Level,
    pub(super) confirmation: Result<Confirmation, Error>,
    pub(super) report: Result<Report, Error>,
}

/// How the memory of secrets is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// All of it has what was asked for, and the kernel confirms it.
    Active,
    /// Something is not there.
    Degraded,
    /// There is no such memory, or the kernel did not say.
    Unknown,
}

impl Protection {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Degraded => "DEGRADED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Look {
    fn now(manager: &Manager) -> Self {
        let pressure = manager.look_at_pressure();
        let level = pressure.level(&manager.config().thresholds);
        Self { pressure, level, confirmation: verify(), report: Report::now() }
    }

    pub(super) fn protection(&self) -> Protection {
        match (&self.confirmation, &self.report) {
            (Ok(_), Ok(_)) if cfg!(secmem_ablate = "http-status") => Protection::Active, // said, whatever was seen
            (Ok(seen), Ok(_)) if seen.arenas == 0 => Protection::Unknown,
            (Ok(seen), Ok(report)) if seen.is_confirmed() && report.statistics.degraded == 0 => Protection::Active,
            (Ok(_), Ok(_)) => Protection::Degraded,
            _ => Protection::Unknown,
        }
    }

    /// What is wrong with the memory of secrets.
    pub(super) fn errors(&self) -> Vec<Cow<'static, str>> {
        match &self.confirmation {
            Ok(_) if cfg!(secmem_ablate = "http-status") => Vec::new(),
            Ok(seen) => seen.missing.iter().map(|missing| missing_text(missing).into()).collect(),
            Err(_) => vec!["the kernel does not say how the memory of secrets is protected".into()],
        }
    }

    /// What may go wrong.
    pub(super) fn warnings(&self) -> Vec<Cow<'static, str>> {
        let mut warnings = Vec::new();
        if self.level != Level::Calm {
            warnings.push(format!("memory is scarce: {}", level(self.level)).into());
        }
        match &self.report {
            Ok(_) if cfg!(secmem_ablate = "http-status") => {}
            Err(_) => warnings.push("the process does not know how it is protected".into()),
            Ok(report) => {
                let degraded = report.statistics.degraded;
                if degraded > 0 {
                    warnings
                        .push(format!("controls of memory that were asked for and are not there: {degraded}").into());
                }
                if self.confirmation.as_ref().is_ok_and(|seen| seen.arenas == 0) {
                    warnings.push("there is no memory of secrets that could be asked about".into());
                }
            }
        }
        warnings
    }
}

pub(super) fn level(level: Level) -> &'static str {
    match level {
        Level::Calm => "calm",
        Level::High => "high",
        Level::Critical => "critical",
    }
}

fn missing_text(missing: &Missing) -> String {
    match missing {
        Missing::Control { control, backend, bytes } => {
            format!("the kernel does not confirm {control} for {bytes} bytes of {backend}")
        }
        Missing::Access { backend, bytes } => format!("{bytes} bytes of {backend} have other access than they should"),
        Missing::Unmapped { backend, bytes } => format!("{bytes} bytes of {backend} are not mapped as they should be"),
        Missing::ForkWitness => "forked children do not know that they are forked".to_owned(),
    }
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Looks(Arc<Mutex<Option<(Instant, Arc<Look>)>>>);

impl Looks {
    /// Looks, unless somebody just did. Whoever comes meanwhile waits for that look, and no thread waits with them. `None`
    /// where it came to no end.
    pub(super) async fn now(&self, manager: &Manager) -> Option<Arc<Look>> {
        let manager = manager.clone();
        self.by(move || Look::now(&manager)).await
    }

    async fn by(&self, look: impl FnOnce() -> Look + Send + 'static) -> Option<Arc<Look>> {
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some((taken, look)) = &*last
            && taken.elapsed() < FRESH
        {
            return Some(Arc::clone(look));
        }
        // It goes on if who asked for it goes away, and holds the lock until it has ended: else the next would look at once.
        let look = move || {
            let look = Arc::new(look());
            *last = Some((Instant::now(), Arc::clone(&look)));
            look
        };
        tokio::task::spawn_blocking(look).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use super::*;

    fn look() -> Look {
        let pressure = Pressure { places: 0.0, lock: None, group: None, stalled: None };
        Look { pressure, level: Level::Calm, confirmation: verify(), report: Report::now() }
    }

    #[test]
    fn a_look_whose_asker_went_away_is_waited_for_and_no_other_begins_meanwhile() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (looks, (end, ended)) = (Looks::default(), mpsc::channel::<()>());
        runtime.block_on(async {
            let mut asked = Box::pin(looks.by(move || {
                let _ = ended.recv();
                look()
            }));
            assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(asked);

            let mut next = Box::pin(looks.by(look));
            let meanwhile = tokio::time::timeout(FRESH / 4, &mut next).await;
            assert!(meanwhile.is_err(), "the first look has not ended");
            drop(end);

            assert!(next.await.is_some());
        });
    }
}
