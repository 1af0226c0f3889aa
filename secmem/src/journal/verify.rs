//! Whether a journal is what was written. Reads it once from its beginning, and keeps a line at a time.

use std::io::{self, BufRead as _, BufReader, Read};

use super::Head;
use super::line::{self, LONGEST_LINE};
use super::sign::{PublicKey, Verifier};

/// What a journal is held against, beside itself.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Checks {
    key: Option<PublicKey>,
    heads: Vec<Head>,
}

impl Checks {
    /// Each entry is to have this key's signature. Without that said, signatures are not checked, and the account says so.
    pub fn signed_by(mut self, key: PublicKey) -> Self {
        self.key = Some(key);
        self
    }

    /// A head that was kept elsewhere: the journal has to have come by there. Nothing else shows a tail that was cut off.
    pub fn head(mut self, head: Head) -> Self {
        self.heads.push(head);
        self
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is what was written, as far as the [`Checks`] can tell.
    Whole(Account),
    /// So it is, but that its last line, which begins as the next one does, has no end: the process or the machine died while it was written, or somebody cut it.
    /// [`Journal::open`](super::Journal::open) cuts it off.
    Torn {
        /// What stands before it.
        account: Account,
        /// Bytes of it.
        bytes: u64,
    },
    /// It is not. Nothing from that line on can be relied on.
    Broken {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What a journal that is whole holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Where it is.
    pub head: Head,
    /// Bytes of its lines.
    pub len: u64,
    /// Entries that it says could not be written.
    pub missed: u64,
    /// Half entries that were cut off.
    pub mended: u64,
    /// Whose signatures it says it has.
    pub signer: Option<PublicKey>,
    /// Whether they were checked.
    pub checked: bool,
}

/// What is wrong with a line. Says what, never what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is none, and a journal has at least its first.
    #[error("there is no entry")]
    Empty,
    /// It is longer than a line can be.
    #[error("it is longer than a line can be")]
    TooLong,
    /// It does not begin as a line of this version does, or as the next one.
    #[error("it is no line of version 1")]
    Version,
    /// Its columns are not those of a line.
    #[error("its columns are not those of an entry")]
    Form,
    /// It is not the next one: lines were removed, repeated, or put into another order.
    #[error("it is entry {found} where {expected} has to stand")]
    Number {
        /// Its number.
        found: u64,
        /// The number of the next one.
        expected: u64,
    },
    /// It, or something before it, was changed.
    #[error("it does not follow from what stands before it")]
    Chain,
    /// A journal does not begin with it, or begins with it a second time.
    #[error("it is no beginning where one has to be, or one where none can be")]
    Begin,
    /// It has no signature, and has to have one; or has one that nobody has announced.
    #[error("it is signed where it should not be, or the other way round")]
    Unsigned,
    /// The journal says that another key has signed it.
    #[error("it names another key")]
    OtherKey,
    /// Its signature is not that of the key.
    #[error("its signature is not that of the key")]
    Signature,
    /// The journal came by somewhere else: it is another one, or was written anew.
    #[error("the head that was kept is another one")]
    OtherHead,
    /// It is missing: the journal ends before the head that was kept.
    #[error("it is missing: entry {kept} was there when its head was kept")]
    CutOff {
        /// The number of the entry whose head was kept.
        kept: u64,
    },
}

/// Holds a journal against itself and against `checks`.
///
/// # Errors
///
/// What reading says. Nothing is known of the journal then.
pub fn verify(from: impl Read, checks: &Checks) -> io::Result<Verdict> {
    let mut from = BufReader::with_capacity(64 << 10, from);
    let mut state = Reading::new(checks);
    let mut line = Vec::with_capacity(LONGEST_LINE);
    loop {
        line.clear();
        let got = from.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
        if got == 0 {
            return Ok(state.end(0));
        }
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            // What has no end is the last line, or more than a line; or nothing of ours, and not to be cut off.
            return Ok(match got {
                LONGEST_LINE.. => state.broken(Fault::TooLong),
                _ if !line::can_begin(&state.account.head, &line) => state.broken(Fault::Version),
                got => state.end(got as u64),
            });
        }
        if let Err(fault) = state.take(&line) {
            return Ok(state.broken(fault));
        }
    }
}

struct Reading<'a> {
    checks: &'a Checks,
    key: Option<Verifier>,
    account: Account,
}

impl<'a> Reading<'a> {
    fn new(checks: &'a Checks) -> Self {
        let key = checks.key.and_then(|key| key.verifier());
        let account = Account { head: Head::NONE, len: 0, missed: 0, mended: 0, signer: None, checked: key.is_some() };
        Self { checks, key, account }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let line = line::read(&self.account.head, bytes)?;
        if line.head.entries == 1 {
            self.account.signer = line.signer()?;
            if self.checks.key.is_some() && self.checks.key != self.account.signer {
                return Err(Fault::OtherKey);
            }
        }
        if line.is_signed() != self.account.signer.is_some() {
            return Err(Fault::Unsigned);
        }
        // A key that cannot verify has signed nothing.
        let is_signed = self.key.as_ref().is_some_and(|key| line.is_signed_by(key));
        if self.checks.key.is_some() && !is_signed && !cfg!(secmem_ablate = "journal-sign") {
            return Err(Fault::Signature);
        }
        if self.checks.heads.iter().any(|kept| kept.entries == line.head.entries && *kept != line.head) {
            return Err(Fault::OtherHead);
        }
        self.account.head = line.head;
        self.account.len += bytes.len() as u64 + 1;
        self.account.missed = self.account.missed.saturating_add(line.missed());
        self.account.mended += u64::from(line.is_mended());
        Ok(())
    }

    /// Behind the last line that has an end; so many bytes follow.
    fn end(self, torn: u64) -> Verdict {
        let reached = self.account.head.entries;
        if let Some(kept) = self.checks.heads.iter().map(|kept| kept.entries).max().filter(|kept| *kept > reached) {
            return self.broken(Fault::CutOff { kept });
        }
        match (reached, torn) {
            (0, 0) => self.broken(Fault::Empty),
            (_, 0) => Verdict::Whole(self.account),
            (_, bytes) => Verdict::Torn { account: self.account, bytes },
        }
    }

    fn broken(&self, fault: Fault) -> Verdict {
        Verdict::Broken { line: self.account.head.entries + 1, fault }
    }
}
