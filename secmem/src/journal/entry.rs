//! What an entry says: typed, with names and numbers alone.

use std::fmt;

use super::name::Name;
use super::sign::PublicKey;

/// One thing that was done, or refused. Who did it, what for and when is added where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub action: Action,
    /// With what.
    pub subject: Option<Subject>,
    /// What came of it.
    pub outcome: Outcome,
    /// How much of it.
    pub amount: Option<Amount>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The journal began. The first entry of each, and of no other place.
    Begin,
    /// A half entry was found at the end and cut off.
    Mend,
    /// Entries could not be written before.
    Miss,
    /// A record was made.
    Encrypt,
    /// A record was opened.
    Decrypt,
    /// A record was encrypted under another key.
    Reencrypt,
    /// A record was held against its hash.
    Compare,
    /// Another key encrypts from now on.
    Rotate,
    /// The retention of a key was over.
    Expire,
    /// A key was revoked.
    Revoke,
    /// A key, or a base secret, was given out.
    Export,
    /// A key was taken in.
    Import,
    /// The base secret of an epoch was destroyed.
    Ratchet,
    /// All keys, or all buffers, were wiped and none can be made any more.
    Shutdown,
    /// A buffer was to be made.
    Allocate,
    /// A buffer was to be used.
    Reach,
    /// A buffer was wiped to make room.
    Evict,
    /// All buffers were wiped.
    Wipe,
    /// What the program itself has to say.
    Other(Name),
}

/// With what something was done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The key of that name.
    Key(Name),
    /// From one key to another.
    Keys(Name, Name),
    /// The buffer of that name.
    Buffer(Name),
    /// This journal.
    Journal {
        /// What it is told apart by: drawn when it began.
        number: u128,
        /// Whose signatures its entries have, if they have any.
        signer: Option<PublicKey>,
    },
    /// What the program itself knows by that name.
    Other(Name),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not, for this reason.
    Failed(Name),
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Amount {
    /// Bytes of content, or of a buffer.
    Bytes(u64),
    /// Buffers.
    Buffers(u64),
    /// Keys.
    Keys(u64),
    /// Entries of the journal.
    Entries(u64),
    /// The number of an epoch.
    Epoch(u64),
}

impl Entry {
    /// Something that was done.
    #[must_use]
    pub fn done(action: Action, subject: Option<Subject>) -> Self {
        Self { action, subject, outcome: Outcome::Done, amount: None }
    }

    /// Something that was not done, and why not.
    #[must_use]
    pub fn failed(action: Action, subject: Option<Subject>, why: Name) -> Self {
        Self { action, subject, outcome: Outcome::Failed(why), amount: None }
    }

    /// With how much of it there was.
    #[must_use]
    pub fn amount(mut self, amount: Amount) -> Self {
        self.amount = Some(amount);
        self
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin => "begin",
            Self::Mend => "mend",
            Self::Miss => "miss",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Reencrypt => "reencrypt",
            Self::Compare => "compare",
            Self::Rotate => "rotate",
            Self::Expire => "expire",
            Self::Revoke => "revoke",
            Self::Export => "export",
            Self::Import => "import",
            Self::Ratchet => "ratchet",
            Self::Shutdown => "shutdown",
            Self::Allocate => "allocate",
            Self::Reach => "reach",
            Self::Evict => "evict",
            Self::Wipe => "wipe",
            Self::Other(name) => return write!(f, "other:{name}"),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "key:{name}"),
            Self::Keys(from, to) => write!(f, "key:{from}>{to}"),
            Self::Buffer(name) => write!(f, "buffer:{name}"),
            Self::Journal { number, signer: None } => write!(f, "journal:{number:032x}"),
            Self::Journal { number, signer: Some(key) } => write!(f, "journal:{number:032x}>{key}"),
            Self::Other(name) => write!(f, "other:{name}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(why) => write!(f, "failed:{why}"),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(it) => write!(f, "bytes={it}"),
            Self::Buffers(it) => write!(f, "buffers={it}"),
            Self::Keys(it) => write!(f, "keys={it}"),
            Self::Entries(it) => write!(f, "entries={it}"),
            Self::Epoch(it) => write!(f, "epoch={it}"),
        }
    }
}
