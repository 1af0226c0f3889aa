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
pub(super) struct Seen {
    marks: BTreeSet<(u64, [u8; TAG])>,
    /// Of what is older nothing is known any more, also if the clock goes back.
    forgotten: u64,
}

impl Seen {
    /// Remembers a record; an error if it is known. Forgets those that the window keeps out.
    pub(super) fn remember(&mut self, header: &Header, tag: &[u8; TAG], oldest: u64, most: usize) -> Result<(), Error> {
        self.forgotten = self.forgotten.max(oldest);
        self.marks = self.marks.split_off(&(self.forgotten, [0; TAG]));
        let mark = (header.millis, *tag);
        // Whether one from before that was here nobody knows.
        let was_here = header.millis < self.forgotten || self.marks.contains(&mark);
        if was_here && !cfg!(secmem_ablate = "records-replay") {
            return Err(Error::Replayed);
        }
        if self.marks.len() >= most {
            return Err(Error::Crowded { most });
        }
        self.marks.insert(mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Cipher, KeyId, Kind, VERSION};
    use super::*;

    #[test]
    fn a_clock_that_goes_back_brings_nothing_back() {
        let record = |millis| {
            let (key, salt) = (KeyId([1; 16]), [2; 32]);
            Header { version: VERSION, cipher: Cipher::Aes256Gcm, key, millis, len: 3, kind: Kind::Data, salt }
        };
        let mut seen = Seen::default();
        let mut remember = |millis, tag, oldest| seen.remember(&record(millis), &[tag; TAG], oldest, 10);

        assert!(remember(1000, 1, 500).is_ok());
        assert!(matches!(remember(1000, 1, 500), Err(Error::Replayed)));
        assert!(remember(2000, 2, 1500).is_ok()); // the first one is forgotten
        assert!(matches!(remember(1000, 1, 500), Err(Error::Replayed)));
        assert!(remember(1600, 3, 500).is_ok());
    }
}
