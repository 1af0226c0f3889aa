//! An audit log: who used which key, when, for what, and with what result. Lines are appended, chained, and signed if asked.
//!
//! ```
//! use secmem::journal::{self, Actor, Checks, Journal, Options, SigningKey, Verdict};
//! use secmem::manager::{Config, Error, Manager};
//!
//! # let directory = std::env::temp_dir().join(format!("secmem-journal-doctest-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let path = directory.join("journal");
//! let key = SigningKey::draw()?;
//! let public = key.public();
//! let journal = Journal::open(&path, Options::default().sign(key))?;
//! let manager = Manager::new(Config::default())?;
//! manager.record_in(&journal)?;
//!
//! let (owner, stranger) = (manager.owner()?, manager.owner()?);
//! let id = manager.allocate(&owner, 64, None)?;
//! let actor = Actor::new("user 7".parse()?).purpose("support case 12".parse()?);
//! journal::acting_as(&actor, || assert!(matches!(manager.deallocate(&stranger, &id), Err(Error::Denied))));
//!
//! let checks = Checks::default().signed_by(public).head(journal.head()?);
//! assert!(matches!(journal::verify(std::fs::File::open(&path)?, &checks)?, Verdict::Whole(it) if it.head.entries == 2));
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The program `secmem-journal` (feature `journal-command`) verifies a journal from a shell.
//!
//! # What is written
//!
//! What a [`Keyring`](crate::records::Keyring) and post-quantum [`Keys`](crate::pqc::Keys) do, and what a
//! [`Manager`](crate::manager::Manager) refuses, evicts and wipes all at once, from their call of `record_in` on; and what the
//! program adds by [`Journal::append`]. What hands out something secret (a record, its content, a key) does so after its entry was
//! written; if it could not be, the operation is an error and nothing is handed out. What ends something goes on all the same.
//! Entries that could not be written are counted, and the next that can be is preceded by one that says how many.
//!
//! An entry holds names and numbers, never content. Names are the program's: whoever names a key after a secret writes that
//! into the file.
//!
//! # Format
//!
//! Text, a line an entry, of 10 columns parted by single spaces, or of 11 where the journal is signed; each of visible ASCII
//! characters, `-` for nothing. What is none in a name is written as `%` and two digits of hex, and so are `%` and `>`.
//!
//! | column | what |
//! |---|---|
//! | 1 | `SMJ1`: the format and its version |
//! | 2 | the entry's number, from 1 |
//! | 3 | milliseconds since 1970, by the machine's clock, which can be set |
//! | 4, 5 | who, and what for: see [`acting_as`] |
//! | 6 | what was done: [`Action`] |
//! | 7 | with what: `key:NAME`, `key:FROM>TO`, `buffer:NAME`, `journal:NUMBER` (in the first entry, with `>ed25519:KEY` if signed), `other:NAME` |
//! | 8 | `done` or `failed:WHY` |
//! | 9 | how much: `bytes=14`, `buffers=`, `keys=`, `entries=`, `epoch=` |
//! | 10 | the link: 64 digits of hex |
//! | 11 | the signature: 128 digits of hex |
//!
//! The link is BLAKE3 in its mode to derive keys, with the context `secmem journal v1 chain`, of the 32 bytes of the link before
//! (zeros for the first) and of columns 1 to 9 with the spaces between them. The signature is Ed25519's of `secmem journal v1
//! signature ` and the 32 bytes of the link.
//!
//! # What it shows, and what not
//!
//! - A byte that was changed, a line that was removed, added, repeated or moved, at that line: by the chain, if whoever did it
//!   has not written all that follows anew. Who can write to the file can do that; not where it is signed.
//! - Whole lines cut off the end: by neither. What is left is a journal as it was before. Only a [`Head`] that was kept elsewhere
//!   shows it (and shows for an unsigned one, too, that nothing before it was written anew), so send heads where the
//!   journal's machine cannot change them, and as often as matters.
//! - Who has the signing key, or runs code in the process, writes what he likes. The key is in an arena; the machine's
//!   root can make the process sign.
//! - That an actor is who the program says is the program's word.
//!
//! # When something goes wrong
//!
//! A process that dies within an entry leaves half a line; the next [`Journal::open`] cuts it off, says how many bytes it had
//! ([`Journal::mended`], and an entry), and goes on behind the last whole line. An entry whose `append` has returned is
//! whole: in the file, and with [`Sync::Each`] on the disk. A disk that is full, or any refused write, is an error; what was
//! written of the entry is taken back, and the chain goes on when there is room. Under a limit of RLIMIT_FSIZE the kernel also
//! sends SIGXFSZ, which ends a process that does not ignore it.
//!
//! One process writes, held by a lock on the file (flock(2)). It is given back when the journal is dropped; of a process that is
//! killed, a forked child that does not exec keeps it as long as it lives. Before each entry the file must be as long as it was left,
//! and still be where it was opened: who changes, moves or removes it under the writer stops the journal, and what it guards, until it is
//! opened anew. How many entries were missed by then a journal that is opened anew does not know: ask [`Journal::missed`] before.

mod actor;
mod entry;
mod error;
mod line;
mod name;
mod sign;
mod verify;

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use actor::current;
#[cfg(feature = "tokio")]
pub(crate) use actor::during;
pub use actor::{Actor, acting_as};
pub use entry::{Action, Amount, Entry, Outcome, Subject};
pub use error::Error;
use line::{Hex, LINK};
pub use name::{LONGEST_NAME, Name, NameError};
pub use sign::{NoPublicKey, PublicKey, SigningKey};
pub use verify::{Account, Checks, Fault, Verdict, verify};

use crate::deadline::Clock;
use crate::wall::Wall;
use crate::{arena, keystream};

/// Entries of other threads' ends of time that wait to be written.
const LATE: usize = 1024;

/// Where a journal is: how many entries it has, and the link of the last. Whoever keeps it elsewhere can tell later that nothing
/// up to there was removed or changed. No secret. Shown, and parsed, as `12:` and 64 digits of hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Entries.
    pub entries: u64,
    link: [u8; LINK],
}

/// When an entry counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// When it is on the disk: it survives the machine.
    #[default]
    Each,
    /// When the kernel has it: it survives the process. [`Journal::sync`] brings what there is to the disk. What is not there when
    /// the machine dies can be lost in any part, so that the journal does not open any more.
    Leave,
}

/// How a [`Journal`] is written.
#[derive(Debug, Default)]
#[must_use]
pub struct Options {
    key: Option<SigningKey>,
    sync: Sync,
    checks: Checks,
}

impl Options {
    /// Signs each entry. A journal is signed by one key from its beginning, or not at all.
    pub fn sign(mut self, key: SigningKey) -> Self {
        self.checks = self.checks.signed_by(key.public());
        self.key = Some(key);
        self
    }

    /// When an entry counts as written; [`Sync::Each`] if not said.
    pub fn sync(mut self, sync: Sync) -> Self {
        self.sync = sync;
        self
    }

    /// A head that was kept elsewhere: a journal that has not come by there is not opened.
    pub fn head(mut self, head: Head) -> Self {
        self.checks = self.checks.head(head);
        self
    }
}

/// A journal that is written to. Clones are the same journal; when the last is dropped another process may write.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    key: Option<SigningKey>,
    sync: Sync,
    /// Where it was opened.
    path: PathBuf,
    wall: Wall,
    mended: Option<u64>,
    /// Whose it is.
    process: u32,
    state: Mutex<State>,
    late: Mutex<Late>,
}

struct State {
    file: Held,
    /// Bytes of the entries that stand.
    len: u64,
    head: Head,
    /// Half an entry stands behind them.
    torn: bool,
    missed: u64,
}

#[derive(Default)]
struct Late {
    waiting: VecDeque<(u64, Entry)>,
    missed: u64,
    /// A thread is there to write them.
    served: bool,
}

/// A file with its lock, and whose it is.
struct Held(File, u32);

impl Held {
    fn new(file: File) -> Result<Self, Error> {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked,
            TryLockError::Error(source) => Error::Open { doing: "flock", source },
        })?;
        Ok(Self(file, std::process::id()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing the file would not do: a child that another thread has forked, and that is about to exec, has it open too. The
        // lock is one for all of them, so a child must not give it back.
        if !in_child_of(self.1) {
            let _ = self.0.unlock();
        }
    }
}

/// A process that has no secrets does not tell its children apart as one does that has.
fn in_child_of(process: u32) -> bool {
    arena::in_child() || std::process::id() != process
}

impl Journal {
    /// Opens the journal at `path`, or begins one that only its owner can read. All of it is verified first, and half an entry at its
    /// end is cut off.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if it is not what was written, or has not come by a head of the options; [`Error::OtherKey`];
    /// [`Error::Locked`]; [`Error::NoFile`]; [`Error::Open`]; as [`append`](Self::append).
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let refused = |doing| move |source| Error::Open { doing, source };
        let mut open = OpenOptions::new();
        open.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = open.open(path).map_err(refused("open"))?;
        if !file.metadata().map_err(refused("fstat"))?.is_file() {
            return Err(Error::NoFile);
        }
        let place = path.canonicalize().map_err(refused("realpath"))?;
        let file = Held::new(file)?;
        let len = file.0.metadata().map_err(refused("fstat"))?.len();
        let verdict = verify(&file.0, &options.checks).map_err(refused("read"))?;
        let (account, torn) = match verdict {
            Verdict::Whole(account) => (Some(account), 0),
            Verdict::Torn { account, bytes } => (Some(account), bytes),
            Verdict::Broken { line: 1, fault: Fault::Empty } if len == 0 => (None, 0),
            Verdict::Broken { fault: Fault::OtherKey, .. } => return Err(Error::OtherKey),
            Verdict::Broken { line, fault } => return Err(Error::Broken { line, source: fault }),
        };
        let account = account.filter(|account| account.head.entries > 0);
        if account.is_some_and(|account| account.signer != options.key.as_ref().map(SigningKey::public)) {
            return Err(Error::OtherKey);
        }
        let (head, kept) = account.map_or((Head::NONE, 0), |account| (account.head, account.len));
        let process = file.1;
        let state = State { file, len: kept, head, torn: torn > 0, missed: 0 };
        let journal = Self(Arc::new(Inner {
            key: options.key,
            sync: options.sync,
            path: place,
            wall: Wall::new(Clock::System),
            mended: Some(torn).filter(|bytes| *bytes > 0),
            process,
            state: Mutex::new(state),
            late: Mutex::default(),
        }));
        journal.begin(path, account.is_none())?;
        Ok(journal)
    }

    /// Writes what has to stand before anything else.
    fn begin(&self, path: &Path, is_new: bool) -> Result<(), Error> {
        let inner = &*self.0;
        let mut state = inner.lock()?;
        if is_new {
            let mut number = [0; 16];
            keystream::from_kernel(&mut number)?;
            let signer = inner.key.as_ref().map(SigningKey::public);
            let subject = Subject::Journal { number: u128::from_be_bytes(number), signer };
            inner.write(&mut state, inner.wall.now(), None, &Entry::done(Action::Begin, Some(subject)))?;
            // The file's name has to be on the disk as well.
            let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            let named = File::open(parent).and_then(|parent| parent.sync_all());
            named.map_err(|source| Error::Sync { source })?;
        }
        if let Some(bytes) = inner.mended {
            let mended = Entry::done(Action::Mend, None).amount(Amount::Bytes(bytes));
            inner.write(&mut state, inner.wall.now(), None, &mended)?;
        }
        Ok(())
    }

    /// Writes an entry behind those that there are; says where the journal is then.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], [`Error::Sync`], [`Error::TakeBack`], [`Error::Changed`], [`Error::Removed`]; [`Error::Memory`]. The entry was not
    /// written then, is counted, and the chain goes on with the next. [`Error::NotYours`] for what a journal says of itself:
    /// [`Action::Begin`], [`Action::Mend`], [`Action::Miss`].
    pub fn append(&self, entry: &Entry) -> Result<Head, Error> {
        if matches!(entry.action, Action::Begin | Action::Mend | Action::Miss) {
            return Err(Error::NotYours);
        }
        let mut state = self.0.lock()?;
        let written = self.0.catch_up(&mut state).and_then(|()| self.0.write_now(&mut state, entry));
        written.inspect_err(|_| state.missed += 1)?;
        Ok(state.head)
    }

    /// Writes it without keeping the caller waiting for the disk: the thread that wipes secrets at their time must not.
    #[cfg_attr(not(feature = "records"), expect(dead_code, reason = "nothing of the manager's is written so"))]
    pub(crate) fn append_late(&self, entry: Entry) {
        if self.0.in_child() {
            return;
        }
        let mut late = self.0.late();
        if late.waiting.len() == LATE {
            late.missed += 1;
        } else {
            late.waiting.push_back((self.0.wall.now(), entry));
        }
        if !late.served {
            let inner = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("secmem-journal".to_owned());
            // Without a thread they are written before the next entry, or at the end.
            late.served = thread.spawn(move || inner.serve()).is_ok();
        }
    }

    /// Brings what there is to the disk.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn sync(&self) -> Result<(), Error> {
        let mut state = self.0.lock()?;
        self.0.catch_up(&mut state)?;
        state.file.0.sync_data().map_err(|source| Error::Sync { source })
    }

    /// Where it is: to be kept elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] in a forked child.
    pub fn head(&self) -> Result<Head, Error> {
        Ok(self.0.lock()?.head)
    }

    /// Bytes of half an entry that was cut off when it was opened.
    #[must_use]
    pub fn mended(&self) -> Option<u64> {
        self.0.mended
    }

    /// Entries that could not be written, and of which no entry says so yet.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] in a forked child.
    pub fn missed(&self) -> Result<u64, Error> {
        Ok(self.0.lock()?.missed + self.0.late().missed)
    }
}

impl Inner {
    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        if self.in_child() {
            return Err(Error::Memory(crate::Error::Forked)); // the file is the parent's to write
        }
        // Nothing is half done where the lock is held and something could panic.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn in_child(&self) -> bool {
        in_child_of(self.process)
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_now(&self, state: &mut State, entry: &Entry) -> Result<(), Error> {
        self.write(state, self.wall.now(), current().as_ref(), entry)
    }

    /// Writes what was not written before, or that it was not.
    fn catch_up(&self, state: &mut State) -> Result<(), Error> {
        loop {
            state.missed += std::mem::take(&mut self.late().missed);
            if state.missed > 0 {
                let missed = Entry::done(Action::Miss, None).amount(Amount::Entries(state.missed));
                self.write(state, self.wall.now(), None, &missed)?;
                state.missed = 0;
            }
            let Some((millis, entry)) = self.late().waiting.pop_front() else { return Ok(()) };
            self.write(state, millis, None, &entry).inspect_err(|_| state.missed += 1)?;
        }
    }

    /// The thread of those that are late: as long as there are any.
    fn serve(&self) {
        loop {
            let Ok(mut state) = self.lock() else { return };
            // What cannot be written is counted, and said by the next that can be.
            let written = self.catch_up(&mut state);
            let mut late = self.late();
            if written.is_err() || late.waiting.is_empty() {
                late.served = false;
                return;
            }
        }
    }

    /// Writes one entry, or leaves the file as it was.
    fn write(&self, state: &mut State, millis: u64, actor: Option<&Actor>, entry: &Entry) -> Result<(), Error> {
        let (line, head) = line::write(&state.head, millis, actor, entry, self.key.as_ref())?;
        if state.torn {
            state.take_back()?;
        }
        let there = state.file.0.metadata().map_err(|source| Error::Write { source })?;
        let is_it = |named: Metadata| (named.dev(), named.ino()) == (there.dev(), there.ino());
        if !std::fs::symlink_metadata(&self.path).is_ok_and(is_it) {
            return Err(Error::Removed);
        }
        if there.len() != state.len {
            return Err(Error::Changed { len: there.len(), expected: state.len });
        }
        let written =
            state.file.0.write_all(line.as_bytes()).map_err(|source| Error::Write { source }).and_then(|()| match self
                .sync
            {
                Sync::Each => state.file.0.sync_data().map_err(|source| Error::Sync { source }),
                Sync::Leave => Ok(()),
            });
        if let Err(error) = written {
            state.torn = true;
            let _ = state.take_back(); // tried again before the next
            return Err(error);
        }
        state.len += line.len() as u64;
        state.head = head;
        Ok(())
    }
}

impl State {
    fn take_back(&mut self) -> Result<(), Error> {
        self.file.0.set_len(self.len).map_err(|source| Error::TakeBack { source })?;
        self.torn = false;
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody else has it any more, and in a child it is not ours.
        if let Ok(mut state) = self.lock() {
            let _ = self.catch_up(&mut state);
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signer = self.0.key.as_ref().map(SigningKey::public);
        f.debug_struct("Journal").field("signer", &signer).field("sync", &self.0.sync).finish_non_exhaustive()
    }
}

impl Head {
    pub(crate) const NONE: Self = Self { entries: 0, link: [0; LINK] };
}

/// Why a text is no [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head is a number from 1, a colon and 64 digits of hex")]
pub struct NoHead;

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let (entries, link) = text.split_once(':').ok_or(NoHead)?;
        let entries = line::number(entries.as_bytes()).filter(|it| *it > 0).ok_or(NoHead)?;
        Ok(Self { entries, link: line::unhex(link.as_bytes()).ok_or(NoHead)? })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entries, Hex(&self.link))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({self})")
    }
}
