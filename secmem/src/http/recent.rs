//! What has happened to buffers lately: kinds, sizes and times. Names stay within.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::Error;
use super::look::level;
use crate::manager::{Event, Events, Manager};
use crate::sys;

/// Events that are kept.
pub(super) const KEPT: usize = 24;

/// Events that may wait for the thread that takes them.
const ROOM: usize = 1024;

/// How long the thread waits before it looks whether anybody still wants to know.
const PATIENCE: Duration = Duration::from_secs(1);

/// One event, without a name.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) at: SystemTime,
    pub(super) what: &'static str,
    pub(super) detail: Cow<'static, str>,
}

/// The last ones, the newest first.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<Happened>>);

impl Recent {
    /// Those of the manager from now on, taken by a thread that ends with the value.
    pub(super) fn of(manager: &Manager) -> Result<Arc<Self>, Error> {
        let recent = Arc::new(Self::default());
        let (events, taker) = (manager.events(ROOM)?, Arc::downgrade(&recent));
        sys::quiet_thread("secmem-events", move || take(&events, &taker)).map_err(Error::Thread)?;
        Ok(recent)
    }

    pub(super) fn list(&self) -> Vec<Happened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, event: &Event) {
        let (what, detail) = described(event);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(Happened { at: SystemTime::now(), what, detail });
    }
}

fn take(events: &Events, recent: &Weak<Recent>) {
    loop {
        let event = events.wait(PATIENCE);
        let Some(recent) = recent.upgrade() else { return };
        if let Some(event) = event {
            recent.add(&event);
        }
    }
}

fn described(event: &Event) -> (&'static str, Cow<'static, str>) {
    match event {
        Event::Allocated { size, .. } => ("allocated", format!("{size} bytes").into()),
        Event::Deallocated { .. } => ("deallocated", "freed by its owner".into()),
        Event::Expired { .. } => ("expired", "its time had come".into()),
        Event::Evicted { .. } => ("evicted", "wiped to make room".into()),
        Event::Pressure { level: now, buffers, bytes } => {
            ("pressure", format!("{}, with {buffers} buffers of {bytes} bytes", level(*now)).into())
        }
        Event::Refused { size } => ("refused", format!("{size} bytes were not to be had").into()),
        Event::Denied { .. } => ("denied", "the token was not the owner's".into()),
        Event::WipedAll { buffers, bytes, shutdown } => {
            let why = if *shutdown { "the shutdown" } else { "a forced cleanup" };
            ("wiped", format!("{buffers} buffers of {bytes} bytes, by {why}").into())
        }
    }
}
