//! Which records are too old, too new, or were here before. Asked after they were authenticated, never before.

use std::collections::BTreeSet;
use std::time::Duration;

use super::error::Error;
use super::format::{Header, TAG};

/// Whether a record's time is within the window.
pub(crate) fn in_time(millis: u64, now: u64, window: Duration, tolerance: Duration) -> Result<(), Error> {
    let (age, ahead) = (now.saturating_sub(millis), millis.saturating_sub(now));
    let (age, ahead) = (Duration::from_millis(age), Duration::from_millis(ahead));
    if ahead > tolerance {
        return Err(Error::Future { ahead });
    }
    if age > window { Err(Error::TooOld { age, most: window }) } else { Ok(()) }
}

/// Records that were opened, by time and tag.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeSet<(u64, [u8; TAG])>);

impl Seen {
    /// Remembers a record; an error if it is known. Forgets those that the window keeps out.
    pub(super) fn remember(&mut self, header: &Header, tag: &[u8; TAG], oldest: u64, most: usize) -> Result<(), Error> {
        self.0 = self.0.split_off(&(oldest, [0; TAG]));
        let mark = (header.millis, *tag);
        if self.0.contains(&mark) && !cfg!(secmem_ablate = "records-replay") {
            return Err(Error::Replayed);
        }
        if self.0.len() >= most {
            return Err(Error::Crowded { most });
        }
        self.0.insert(mark);
        Ok(())
    }
}
