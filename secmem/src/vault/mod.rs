//! A worker process that keeps a password and the keys to it, so that they are not in yours.
//!
//! The worker is this program, started once more. It reads the password itself, keeps it encrypted for a key that never leaves
//! its arena, and gives it out for the time of one callback, or, better, does with it what is to be done: derives a key, opens what was
//! encrypted for it, signs. It has no descriptor but its socket, opens no file, and ends when the program does, however that ends.
//!
//! ```no_run
//! use secmem::{input::Prompt, vault::{self, Config, Vault}};
//!
//! fn main() -> Result<(), vault::Error> {
//!     vault::init()?; // the first line of main: in the worker, this is where it works, and ends
//!
//!     let vault = Vault::start(Config::default())?;
//!     vault.generate()?;
//!     vault.read_password(&Prompt::new("Password: "))?;
//!     let length = vault.with_password(|bytes| bytes.len())?; // wiped in both processes when this returns
//!     println!("{length} bytes");
//!     Ok(())
//! }
//! ```
//!
//! # What it does for you
//!
//! - Of the password there is no plaintext but for the time of a call: in one slot of the worker's, which is encrypted where it
//!   stands, and in one of yours, which is wiped when the callback returns, fails, panics or is dropped, and at the call's deadline
//!   even if the callback never returns. Each side tells so ([`Event::Wiped`]), and counts ([`Vault::counts`]).
//! - What passes through the kernel is encrypted, each frame under a key of its own that neither side has any more when it was
//!   read. Frames that were changed, repeated, left out or are too long end the session.
//! - The worker is closed up (`harden`, a list of system calls, no inherited descriptors, every signal that ends it wipes first),
//!   and says so only if the kernel did: else [`Vault::start`] fails. [`Vault::verify_allocation`] has the kernel's own word for where
//!   its keys lie.
//! - Its death is noticed at once: every call that waits is [`Error::Ended`]. A worker that is stuck or stopped costs a call its
//!   deadline, and [`Vault::stop`] its grace: then it is killed.
//!
//! # What it does not
//!
//! - A callback that runs has the plaintext in this process: what it copies stays. What it makes of it (a wallet that is
//!   unlocked) is no less secret, and yours to wipe: return a [`Secret`](crate::Secret). [`Vault::derive`], [`Vault::unwrap`] and
//!   [`Vault::sign`] need no callback.
//! - Whoever may trace the worker, as root or with `CAP_SYS_PTRACE`, can make it do whatever it can.
//! - At a deadline the bytes are overwritten also under a callback that is running. Its reference then shows zeros, which the language
//!   promises nothing about; its result is dropped.
//! - A signal or a panic that ends the worker takes the password with it. Ctrl-C at a terminal goes to all processes there: a
//!   program that goes on after it calls [`Vault::restart`], and asks again.
//! - SIGKILL wipes nothing; see the crate's page for what the kernel does then.

mod algorithm;
mod call;
mod channel;
mod confine;
pub(crate) mod envelope;
mod error;
mod event;
pub(crate) mod frame;
mod link;
mod steps;
mod worker;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

pub use call::Lent;
use call::{Alarm, Answer, Ledger, Lending};
pub use envelope::PublicKey;
pub use error::{Ending, Error};
pub use event::{Event, Side, Why};
pub use frame::FrameError;
use frame::{Derive, Kind, Lies, Protected, Read, Source};
use link::{Body, Link, Request};
use steps::Step;

use crate::arena::Backend;
use crate::input::Prompt;
use crate::manager::Events;
use crate::policy::{Control, Policy};
pub use crate::pqc::Cost;
use crate::scrub;
use crate::secret::Secret;
use crate::sys::terminal::{self, Modes};
pub use algorithm::Algorithm;

/// The variable that tells a process that it is a worker, and of which release.
const VARIABLE: &str = "SECMEM_VAULT_WORKER";

/// Both sides are the same program, and so of the same version.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Bytes that a derived key may have.
const LONGEST_KEY: usize = 1024;

/// Bytes that a salt has at least.
const SHORTEST_SALT: usize = 8;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Makes this process the worker that it was started as; in any other process, returns, and lets it start one.
///
/// The first line of `main`: before threads, descriptors and everything else that a worker is not to have. A worker does not
/// return from here.
///
/// # Errors
///
/// [`Error::NoSocket`] if the process was started as a worker by something that does not know how.
pub fn init() -> Result<(), Error> {
    if std::env::var_os(VARIABLE).is_some() {
        return Err(worker::run());
    }
    INITIALISED.store(true, Ordering::Release);
    Ok(())
}

/// How a worker is to be. [`Config::default`] is what most programs want.
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    program: PathBuf,
    policy: Policy,
    arena: usize,
    deadline: Duration,
    patience: Duration,
    grace: Duration,
    algorithm: Algorithm,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            policy: Policy::default(),
            arena: 32 << 10,
            deadline: Duration::from_secs(30),
            patience: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            algorithm: Algorithm::default(),
        }
    }
}

impl Config {
    /// What the memory of secrets must have, in both processes; [`Policy::default`] if not said.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The kind of memory.
    pub fn backend(self, backend: Backend) -> Self {
        let policy = self.policy.with(Control::MemfdSecret, Policy::from(backend).demand(Control::MemfdSecret));
        self.policy(policy)
    }

    /// Bytes of secret that the worker may hold at once; 32 KiB if not said, and no fewer. A longer password needs more.
    pub fn arena(mut self, bytes: usize) -> Self {
        self.arena = bytes.max(32 << 10);
        self
    }

    /// How long a call may take, its callback counted; 30 seconds if not said. See [`Vault::within`].
    pub fn deadline(mut self, span: Duration) -> Self {
        self.deadline = span;
        self
    }

    /// How long a worker that was started may take to be ready; 10 seconds if not said.
    pub fn patience(mut self, span: Duration) -> Self {
        self.patience = span;
        self
    }

    /// How long a worker has to end after SIGTERM, before SIGKILL; 5 seconds if not said.
    pub fn grace(mut self, span: Duration) -> Self {
        self.grace = span;
        self
    }

    /// How keys are agreed on; [`Algorithm::XWing`] if not said.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The program that is the worker; `/proc/self/exe` if not said, which is this one, also if its file was replaced. It must be the
    /// same program.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }
}

/// Why a session takes no calls any more.
#[derive(Clone, Copy, Debug)]
enum Over {
    Stopped,
    Ended(Ending),
    Broken(FrameError),
    /// This process has purged, and has no keys for it.
    Purged,
}

impl From<Over> for Error {
    fn from(over: Over) -> Self {
        match over {
            Over::Stopped => Self::Stopped,
            Over::Ended(how) => Self::Ended { how },
            Over::Broken(error) => Self::Protocol(error),
            Over::Purged => Self::Memory(crate::Error::Purged),
        }
    }
}

/// What was counted, over all workers that a vault has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Plaintexts that were lent to a callback, or given out as a secret of its own.
    pub lent: u64,
    /// Slots of those that were wiped on this side.
    pub wiped: u64,
    /// Slots of answers that the worker has wiped.
    pub worker_wiped: u64,
    /// Callbacks that were running when their time was over.
    pub overdue: u64,
    /// Workers that were started.
    pub workers: u64,
}

/// How the worker is protected, as it was told by the kernel when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protection {
    /// No dumps, and no reading by processes of the same user: [`harden`](crate::harden).
    pub hardened: bool,
    /// Some process traces it.
    pub traced: bool,
    /// System calls that are not on its list are refused: `Seccomp: 2` in proc_pid_status(5).
    pub filtered: bool,
    /// The kind of memory that its secrets are in.
    pub backend: Backend,
    /// That memory is never swapped out.
    pub locked: bool,
    /// Something that the policy asks for is not there.
    pub degraded: bool,
    /// Bytes of secret that it may hold.
    pub arena: usize,
    /// Bytes of secret that it holds.
    pub held: usize,
    /// Descriptors that it has open: its socket, two that lead nowhere, two files about itself, and its caller's number.
    pub descriptors: u32,
    /// Bytes of memory that it takes up, program text included: `VmRSS`.
    pub resident: u64,
}

/// A secret that the worker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Part {
    /// What opens envelopes, the password's among them.
    WrappingKey = 1,
    /// What signs.
    SigningKey = 2,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WrappingKey => "the wrapping key",
            Self::SigningKey => "the signing key",
        })
    }
}

/// Where a secret of the worker lies: see [`Vault::verify_allocation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocation {
    /// Which secret.
    pub part: Part,
    /// Its bytes, all of them in one slot.
    pub bytes: usize,
    /// The kind of memory.
    pub backend: Backend,
    /// Controls that the kernel shows for that memory, a bit each.
    confirmed: u8,
}

impl Allocation {
    /// Whether the kernel shows this control for the memory. Of those that no mapping shows, whether it was reached.
    #[must_use]
    pub fn has(&self, control: Control) -> bool {
        self.confirmed & 1 << control as u8 != 0
    }
}

/// The public halves of a worker's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublicKeys {
    /// What secrets are wrapped for.
    pub wrapping: PublicKey,
    /// What verifies signatures: Ed25519 (RFC 8032).
    pub signing: [u8; 32],
}

/// A worker, and what it can be asked. A handle: clones are of the same worker, which ends when the last is dropped.
///
/// Several threads, and futures, may call at once; the worker answers one after the other, and each call has slots of its own.
#[derive(Clone, Debug)]
pub struct Vault {
    inner: Arc<Inner>,
    deadline: Duration,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    link: Mutex<Arc<Link>>,
    /// Held while one worker takes another's place: calls meet the old one meanwhile.
    restarting: Mutex<()>,
    ledger: Arc<Ledger>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !crate::arena::in_child() {
            let _ = self.link().stop();
        }
    }
}

/// In a forked child locks may be held by threads that are not there, and the worker is the parent's.
fn not_in_child() -> Result<(), Error> {
    if crate::arena::in_child() { Err(Error::Memory(crate::Error::Forked)) } else { Ok(()) }
}

impl Inner {
    fn link(&self) -> MutexGuard<'_, Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// Starts a worker. It is closed up when this returns, and has no keys yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotInitialised`]; [`Error::Start`], [`Error::Version`] and [`Error::Confine`] if there is no worker, or none that
    /// could be confined; [`Error::Protocol`]; [`Error::Memory`].
    pub fn start(config: Config) -> Result<Self, Error> {
        if !INITIALISED.load(Ordering::Acquire) {
            return Err(Error::NotInitialised);
        }
        let ledger = Arc::default();
        let link = Mutex::new(Link::start(&config, &ledger)?);
        let deadline = config.deadline;
        Ok(Self { inner: Arc::new(Inner { config, link, restarting: Mutex::new(()), ledger }), deadline })
    }

    /// Another deadline for the calls that are made through the value that this returns.
    #[must_use]
    pub fn within(&self, span: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), deadline: span }
    }

    /// Ends the worker, if it has not ended, and starts another, which has no keys and no password.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), Error> {
        not_in_child()?;
        let seen = Arc::clone(&self.inner.link());
        let _one = self.inner.restarting.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&seen, &self.inner.link()) {
            return Ok(()); // somebody else has done it
        }
        let _ = seen.stop();
        let link = Link::start(&self.inner.config, &self.inner.ledger)?;
        *self.inner.link() = link;
        Ok(())
    }

    /// Ends the worker: calls that wait, and later ones, are [`Error::Stopped`]. Its socket ends, then it gets SIGTERM, and SIGKILL
    /// when its grace is over. Returns how it ended when it is gone; within a waker that the vault has woken, at once.
    pub fn stop(&self) -> Ending {
        if not_in_child().is_err() {
            return Ending::Unknown;
        }
        let link = Arc::clone(&self.inner.link());
        link.stop()
    }

    /// The process of the worker.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.link().pid
    }

    /// Whether there is a worker that takes calls.
    ///
    /// # Errors
    ///
    /// What a call would be: [`Error::Ended`], [`Error::Stopped`], [`Error::Protocol`].
    pub fn check(&self) -> Result<(), Error> {
        not_in_child()?;
        self.inner.link().check()
    }

    /// What happens from now on; `room` events are kept for whoever is slow.
    #[must_use]
    pub fn events(&self, room: usize) -> Events<Event> {
        self.inner.ledger.audience.join(room)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.ledger.counts()
    }

    /// Makes the worker's keys. Earlier ones, and the password that was encrypted for them, are gone.
    ///
    /// # Errors
    ///
    /// [`Error::ArenaFull`], and what any call can be: [`Error::Ended`], [`Error::Stopped`], [`Error::Deadline`], [`Error::Protocol`],
    /// [`Error::Refused`], [`Error::Memory`].
    pub fn generate(&self) -> Result<PublicKeys, Error> {
        let keys = self.call(Kind::Generate, Body::Open(&[self.inner.config.algorithm as u8]))?;
        let keys = expect(Kind::Keys, keys)?;
        keys.look(|keys| {
            let (signing, wrapping) = keys.split_first_chunk::<32>()?;
            Some(PublicKeys { wrapping: PublicKey::from_bytes(wrapping)?, signing: *signing })
        })?
        .ok_or(Error::Protocol(FrameError::Body))
    }

    /// How the worker is protected.
    ///
    /// # Errors
    ///
    /// What any call can be: see [`generate`](Self::generate).
    pub fn protection(&self) -> Result<Protection, Error> {
        let told = expect(Kind::Protected, self.call(Kind::Protection, Body::Open(&[]))?)?;
        let told = told.look(Protected::decode)??;
        Ok(Protection {
            hardened: told.hardened,
            traced: told.traced,
            filtered: told.filtered,
            backend: backend(told.memfd_secret),
            locked: told.locked,
            degraded: told.degraded,
            arena: usize::try_from(told.arena).unwrap_or(usize::MAX),
            held: usize::try_from(told.held).unwrap_or(usize::MAX),
            descriptors: told.descriptors,
            resident: told.resident,
        })
    }

    /// Where each key of the worker lies, by the kernel's own account: the mapping is locked, out of dumps and of forked children, between
    /// pages without access. What is encrypted, as the password between calls, lies elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Unprotected`] if the kernel does not show what was there when the memory was made; [`Error::NoKeys`]; and what any
    /// call can be.
    pub fn verify_allocation(&self) -> Result<Vec<Allocation>, Error> {
        let told = expect(Kind::Verified, self.call(Kind::Verify, Body::Open(&[]))?)?;
        let told = told.look(Lies::decode)??;
        let one = |lies: Lies| {
            let part = [Part::WrappingKey, Part::SigningKey].into_iter().find(|part| *part as u8 == lies.part);
            let part = part.ok_or(Error::Protocol(FrameError::Body))?;
            let lost = lies.reached & lies.missing;
            if let Some(control) = Control::ALL.into_iter().find(|control| lost & 1 << *control as u8 != 0) {
                return Err(Error::Unprotected { part, control });
            }
            let bytes = usize::try_from(lies.bytes).unwrap_or(usize::MAX);
            Ok(Allocation { part, bytes, backend: backend(lies.memfd_secret), confirmed: lies.reached })
        };
        if told.len() != 2 {
            return Err(FrameError::Body.into()); // of one nothing is known
        }
        told.into_iter().map(one).collect()
    }

    /// Lets the worker ask for the password at the terminal if standard input is one; else it takes a line of standard input. Nothing
    /// of it passes through this process. Other calls wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`], [`Error::Nothing`], [`Error::TooLong`], [`Error::Utf8`], [`Error::NoTerminal`], [`Error::Unread`],
    /// [`Error::NoKeys`], [`Error::ArenaFull`]; and what any call can be. The deadline counts while somebody types, too: a question that is not
    /// answered by then ends with its worker, and the keys with it. Give a person time by [`within`](Self::within).
    pub fn read_password(&self, prompt: &Prompt<'_>) -> Result<(), Error> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let terminal = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
                .open("/dev/tty");
            let terminal = terminal.map_err(|source| Error::NoTerminal { source })?;
            self.read(Source::Terminal, prompt, terminal.into())
        } else {
            self.read_line(prompt, stdin.as_fd())
        }
    }

    /// Lets the worker ask at this terminal, which is open for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`read_password`](Self::read_password).
    pub fn read_password_at(&self, prompt: &Prompt<'_>, terminal: BorrowedFd<'_>) -> Result<(), Error> {
        self.read(Source::Terminal, prompt, owned(terminal)?)
    }

    /// Lets the worker read the password as the next line of `fd`. Of the prompt, its limit counts.
    ///
    /// # Errors
    ///
    /// As [`read_password`](Self::read_password).
    pub fn read_line(&self, prompt: &Prompt<'_>, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.read(Source::Line, prompt, owned(fd)?)
    }

    /// Lets the worker read the password as all that `fd` gives, a file as much as a pipe. Of the prompt, its limit counts.
    ///
    /// # Errors
    ///
    /// As [`read_password`](Self::read_password).
    pub fn read_to_end(&self, prompt: &Prompt<'_>, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.read(Source::All, prompt, owned(fd)?)
    }

    fn read(&self, source: Source, prompt: &Prompt<'_>, from: OwnedFd) -> Result<(), Error> {
        let (text, mask, limit) = prompt.parts();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let body = Read { source, limit, mask, prompt: text }.encode();
        not_in_child()?;
        let link = Arc::clone(&self.inner.link());
        let shown = if source == Source::Terminal { Shown::of(from.as_fd()) } else { None };
        let answer =
            link.request(Kind::Read, Body::Open(&body), Some(from), self.deadline).and_then(|request| request.wait());
        // A question that nobody waits for must not go on, and take what is typed into something else: it ends with its worker.
        if matches!(answer, Err(Error::Deadline { .. })) {
            link.give_up();
        }
        if matches!(answer, Err(Error::Deadline { .. } | Error::Ended { .. } | Error::Protocol(_) | Error::Stopped)) {
            link.await_end();
            if let Some(shown) = shown {
                shown.restore();
            }
        }
        expect(Kind::Done, answer?).map(drop)
    }

    /// Keeps a password that this process has; the secret is wiped.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] above 64 KiB; [`Error::NoKeys`], [`Error::ArenaFull`]; and what any call can be.
    pub fn store(&self, mut password: Secret) -> Result<(), Error> {
        if password.len() > envelope::MOST {
            return Err(Error::TooLong { most: envelope::MOST });
        }
        expect(Kind::Done, self.call(Kind::Store, Body::Secret(&mut password))?).map(drop)
    }

    /// Keeps a password that somebody has wrapped for this worker: [`PublicKey::wrap`].
    ///
    /// # Errors
    ///
    /// [`Error::Envelope`], [`Error::NoKeys`], [`Error::ArenaFull`]; and what any call can be.
    pub fn store_wrapped(&self, envelope: &[u8]) -> Result<(), Error> {
        expect(Kind::Done, self.call(Kind::StoreWrapped, Body::Open(envelope))?).map(drop)
    }

    /// Forgets the password.
    ///
    /// # Errors
    ///
    /// What any call can be.
    pub fn forget(&self) -> Result<(), Error> {
        expect(Kind::Done, self.call(Kind::Forget, Body::Open(&[]))?).map(drop)
    }

    /// Lets `f` read the password, which is in a slot of this process for that time alone.
    ///
    /// # Errors
    ///
    /// [`Error::NoPassword`], [`Error::NoKeys`], [`Error::ArenaFull`]; [`Error::Deadline`] if `f` has not returned in time: its result is
    /// dropped then; and what any call can be. `f` has not run but for the deadline.
    pub fn with_password<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        if cfg!(secmem_ablate = "vault-throws") {
            return Err(Error::WorkerMemory);
        }
        self.with_lent(|lent| lent.with(f))
    }

    fn with_lent<R>(&self, f: impl FnOnce(&Lent) -> Result<R, Error>) -> Result<R, Error> {
        let lending = self.lend(Kind::Password, &[])?;
        steps::pass(Step::CallerLent);
        let result = f(lending.lent());
        let result = lending.finish(result);
        steps::pass(Step::CallerWiped);
        result
    }

    /// [`with_password`](Self::with_password), as text.
    ///
    /// # Errors
    ///
    /// [`Error::Utf8`]; as [`with_password`](Self::with_password).
    pub fn with_password_text<R>(&self, f: impl FnOnce(&str) -> R) -> Result<R, Error> {
        self.with_lent(|lent| lent.with_text(f))
    }

    /// [`with_password`](Self::with_password) on a protected stack, which is wiped like all registers when `f` has run: see
    /// [`scrub`](crate::scrub).
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] with [`Panicked`](crate::Error::Panicked) if `f` panicked; as [`with_password`](Self::with_password).
    pub fn with_password_scrubbed(&self, f: impl FnOnce(&[u8])) -> Result<(), Error> {
        Ok(self.with_password(|bytes| scrub::run(|| f(bytes)))??)
    }

    /// [`with_password`](Self::with_password) for a callback that waits in between. It reaches the bytes by [`Lent::with`], and
    /// cannot keep them. Of any runtime, or none.
    ///
    /// When the time is over, the callback is dropped at its next wait. Dropping the future gives the call up.
    ///
    /// # Errors
    ///
    /// As [`with_password`](Self::with_password).
    pub async fn with_password_async<R>(&self, f: impl AsyncFnOnce(&Lent) -> R) -> Result<R, Error> {
        let request = self.sent(Kind::Password, Body::Open(&[]), None)?;
        let call = Arc::clone(request.call());
        // No clock of a runtime's: this wakes whoever waits when the time is over.
        let _alarm = Alarm::set(&call, Secret::options().policy(self.inner.config.policy))?;
        let answer = call.answered().await?;
        let lending = Lending::begin(Arc::clone(&call), answer)?;
        steps::pass(Step::CallerLent);
        let result = {
            let mut callback = pin!(f(lending.lent()));
            let run = std::future::poll_fn(|context| match lending.call().poll_overdue(context) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => callback.as_mut().poll(context).map(Ok),
            });
            run.await
        };
        let result = lending.finish(result);
        steps::pass(Step::CallerWiped);
        result
    }

    /// What is in an envelope that was wrapped for this worker, in a slot of this process. It is the caller's to drop.
    ///
    /// # Errors
    ///
    /// [`Error::Envelope`], [`Error::NoKeys`], [`Error::ArenaFull`]; [`Error::Request`]; and what any call can be.
    pub fn unwrap(&self, envelope: &[u8]) -> Result<Secret, Error> {
        self.given(Kind::Unwrap, envelope)
    }

    /// A key of `len` bytes, derived from the password by Argon2id (RFC 9106) within the worker.
    ///
    /// # Errors
    ///
    /// [`Error::Cost`] for more than 64 MiB, 16 passes, 4 lanes or 1024 bytes, for no bytes, and for a salt of fewer than 8;
    /// [`Error::NoPassword`], [`Error::NoKeys`], [`Error::ArenaFull`], [`Error::Refused`] if that much memory cannot be locked; and what any
    /// call can be.
    pub fn derive(&self, salt: &[u8], cost: Cost, len: usize) -> Result<Secret, Error> {
        let len = u32::try_from(len).map_err(|_| Error::Cost)?;
        self.given(Kind::Derive, &Derive { cost, len, salt }.encode())
    }

    /// A signature of a message by the worker's signing key: Ed25519 (RFC 8032).
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`]; [`Error::Request`]; and what any call can be.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        let signature = expect(Kind::Signature, self.call(Kind::Sign, Body::Open(message))?)?;
        signature.look(|signature| signature.try_into())?.map_err(|_| Error::Protocol(FrameError::Body))
    }

    /// Sends a request.
    fn sent(&self, kind: Kind, body: Body<'_>, along: Option<OwnedFd>) -> Result<Request, Error> {
        let len = match &body {
            Body::Open(body) => body.len(),
            Body::Secret(body) => body.len(),
        };
        if len > frame::MOST {
            return Err(Error::Request { most: frame::MOST });
        }
        not_in_child()?;
        let link = Arc::clone(&self.inner.link());
        link.request(kind, body, along, self.deadline)
    }

    fn call(&self, kind: Kind, body: Body<'_>) -> Result<Answer, Error> {
        self.sent(kind, body, None)?.wait()
    }

    /// A plaintext for a callback.
    fn lend(&self, kind: Kind, body: &[u8]) -> Result<Lending, Error> {
        let request = self.sent(kind, Body::Open(body), None)?;
        let answer = request.wait()?;
        Lending::begin(Arc::clone(request.call()), answer)
    }

    /// A plaintext that goes on to live on its own, in a slot that no deadline ends.
    fn given(&self, kind: Kind, body: &[u8]) -> Result<Secret, Error> {
        let lending = self.lend(kind, body)?;
        let mut secret = Secret::options().policy(self.inner.config.policy).zeroed(lending.lent().len())?;
        let copied = lending.lent().with(|from| secret.change(|to| crate::wipe::copy(from, to)));
        lending.finish(copied)??;
        Ok(secret)
    }
}

/// A terminal as it was before the worker asked there: one that is killed cannot put it back.
struct Shown(OwnedFd, Modes);

impl Shown {
    /// `None`: it is no terminal, which the worker says.
    fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        Some(Self(fd.try_clone_to_owned().ok()?, terminal::modes(fd.as_raw_fd()).ok()?))
    }

    fn restore(self) {
        // In the background it is the shell's, which has put it back.
        if terminal::in_foreground(self.0.as_raw_fd()) {
            let _ = terminal::set_modes(self.0.as_raw_fd(), &self.1); // what failed is told already
        }
    }
}

fn expect(kind: Kind, (found, body): Answer) -> Result<Secret, Error> {
    if found == kind { Ok(body) } else { Err(FrameError::Unexpected.into()) }
}

fn backend(memfd_secret: bool) -> Backend {
    if memfd_secret { Backend::MemfdSecret } else { Backend::Mlock }
}

fn owned(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().map_err(|source| Error::Unread { source })
}
