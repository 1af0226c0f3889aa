//! Logs, consoles and panic messages without the secrets: registered values are redacted wherever they turn up, in any usual form.
//!
//! ```
//! use secmem::Secret;
//! use secmem::redact::Redactor;
//!
//! let password = Secret::try_from(b"correct horse battery staple".to_vec())?;
//! let redactor = Redactor::new()?;
//! let _registered = redactor.register(&password)?; // until this is dropped
//!
//! # let leaked = String::from_utf8(password.expose_to_vec()?)?;
//! # let bytes = leaked.as_bytes();
//! assert_eq!(redactor.text(format_args!("login failed: {leaked}")), "login failed: [redacted]");
//! assert_eq!(redactor.text(format_args!("{:?}", &bytes[..20])), "[[redacted]]"); // an array, and a part
//! assert_eq!(redactor.text("The monkey is keyed up today"), "The monkey is keyed up today");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Redactor::writer`] stands before any writer, [`Redactor::text`] takes one message. With feature `redact-log`, `Redactor::logger` stands before a
//! logger of the crate `log`; with `redact-tracing` there are a layer and a `MakeWriter` of `tracing-subscriber`.
//! [`Redactor::install_panic_filter`] is for panics.
//!
//! # What is found
//!
//! By value, not by name: what label stands before a secret, in which argument, field or nested object, is nothing to it.
//! A text is read in all of these ways at once ([`Form`]), and a secret is found in whichever of them its bytes turn up, forwards or
//! backwards:
//!
//! - as it stands; UTF-16 and UTF-32 (text that is not ASCII: where its UTF-16 has eight bytes that are not zero);
//! - hexadecimal in either case, with or without separators, `0x` or `\x`;
//! - base32 and base64 of either alphabet, wherever in a longer text the secret begins, and in lines;
//! - escapes of JSON, Rust and C, also twice; percent encoding and forms; entities of HTML;
//! - numbers, decimal and hexadecimal: arrays of JSON, `Debug` in one line or many, `{"0":67,"1":65}`, signed bytes.
//!
//! Of a secret of [`FRAGMENT`] bytes or more, every part of so many bytes in a row is found, too. A shorter one is found whole.
//! What is not found: compressed or encrypted, other encodings one on top of the other, parts that are shorter, letters in another
//! case; and a byte that the text before it makes something else, as a backslash does of the `n` that an escaped secret begins with.
//!
//! # What is kept
//!
//! No secret. For every eight bytes of one in a row, and for its first one to seven, a fingerprint of 61 bits under a key of the
//! redactor's. Key and fingerprints stand in arenas, for who has both can compute the secret: a registration is to end when the
//! secret does. A text that has to wait stands in an arena, too, and is read on a protected stack ([`scrub`](crate::scrub)). What
//! the program itself has formatted before, in a `String` of its own, is its own to wipe.
//!
//! The time that it takes depends on the text, and on whether secrets are in it.
//!
//! # What is redacted by mistake
//!
//! A text that does hold the same bytes as a secret, or as twelve in a row of one: `password12` as a password takes that word out
//! of every message. Beside that, chance: a window of eight bytes of other text has the fingerprint of one of *n* windows with
//! a probability of at most *n*/(2⁶¹ − 1), and a byte of text makes at most 21 windows. For sixteen secrets of 32 bytes, 800 windows,
//! that is less than 8·10⁻¹⁵ a byte: one in 125 TB. A window of fewer than three different bytes, as zeros or dashes are, begins
//! no match, and a secret of nothing else is refused.

mod digits;
mod error;
mod escapes;
#[cfg(feature = "redact-tracing")]
mod layer;
#[cfg(feature = "redact-log")]
mod logger;
mod numbers;
mod panic;
mod patterns;
mod pipe;
mod scan;
mod table;
mod trail;
mod writer;

use std::fmt::{self, Display, Write as _};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use error::Error;
#[cfg(feature = "redact-tracing")]
pub use layer::{Layer, MakeWriter};
#[cfg(feature = "redact-log")]
pub use logger::Logger;
pub(crate) use panic::{forget, prepare};
pub use patterns::Patterns;
pub use pipe::REDACTED;
use pipe::{AtWork, Found, Pipe};
pub use table::FRAGMENT;
use table::{Table, WINDOW};
use writer::Message;
pub use writer::Writer;

use crate::arena;
use crate::error::Error as MemoryError;
use crate::secret::Secret;

/// Bytes of the shortest secret that can be registered: fewer turn up by chance.
pub const SHORTEST: usize = WINDOW;
/// Bytes of the longest one. Its table takes about 128 bytes of locked memory a byte.
pub const LONGEST: usize = 16 << 10;
/// Bytes of the longest word that is waited for.
const LONGEST_WORD: usize = 256;
/// Characters that may stand between two digits, or between two numbers: a line of a pretty `Debug` seven levels deep.
const SEPARATORS: u64 = 32;

/// What stands in place of a message that could not be looked through.
const UNSEEN: &str = "[not shown: it could not be searched for secrets]";

/// In which form a secret was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// As it is, or backwards.
    Raw,
    /// UTF-16 or UTF-32.
    Wide,
    /// Hexadecimal.
    Hex,
    /// Base32.
    Base32,
    /// Base64.
    Base64,
    /// With backslashes.
    Escaped,
    /// Percent encoding.
    Percent,
    /// Entities of HTML.
    Entities,
    /// Numbers with something between them.
    Numbers,
    /// No secret: what a rule of [`Patterns`] takes for one.
    Pattern,
}

const FORMS: usize = 10;

impl Form {
    /// All of them.
    pub const ALL: [Self; FORMS] = [
        Self::Raw,
        Self::Wide,
        Self::Hex,
        Self::Base32,
        Self::Base64,
        Self::Escaped,
        Self::Percent,
        Self::Entities,
        Self::Numbers,
        Self::Pattern,
    ];
}

/// What a redactor has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Places at which something was left out.
    pub redacted: u64,
    /// How often redaction was turned off.
    pub turned_off: u64,
    /// Secrets that are registered now.
    pub registered: u64,
    found: [u64; FORMS],
}

impl Counts {
    /// Matches in this form. What can be read in two ways counts for both: hexadecimal of two digits a number is one of
    /// [`Form::Hex`] and one of [`Form::Numbers`], and base64, which is read with escaped line ends and without, counts twice.
    #[must_use]
    pub fn found(&self, form: Form) -> u64 {
        self.found[form as usize]
    }
}

/// Knows secrets by their fingerprints. Copies of the handle are the same redactor.
#[derive(Clone)]
pub struct Redactor(Arc<Inner>);

struct Inner {
    table: RwLock<Table>,
    patterns: Patterns,
    redacted: AtomicU64,
    found: Found,
    registered: AtomicU64,
    turned_off: AtomicU64,
    /// How many hold it off now.
    off: AtomicU64,
}

impl Inner {
    fn table(&self) -> Result<RwLockReadGuard<'_, Table>, Error> {
        if arena::in_child() {
            return Err(Error::Memory(MemoryError::Forked)); // the lock may be held by a thread that is not there
        }
        Ok(self.table.read().unwrap_or_else(PoisonError::into_inner)) // nothing is half done where something could panic
    }

    fn table_mut(&self) -> Result<RwLockWriteGuard<'_, Table>, Error> {
        if arena::in_child() {
            return Err(Error::Memory(MemoryError::Forked));
        }
        Ok(self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Redactor {
    /// One that knows no secret yet.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the kernel grants no memory for secrets, or no random bytes.
    pub fn new() -> Result<Self, Error> {
        Self::with_patterns(Patterns::default())
    }

    /// One with rules beside the secrets.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_patterns(patterns: Patterns) -> Result<Self, Error> {
        let _at_work = AtWork::begin()?;
        let zero = || AtomicU64::new(0);
        Ok(Self(Arc::new(Inner {
            table: RwLock::new(Table::new()?),
            patterns,
            redacted: zero(),
            found: std::array::from_fn(|_| zero()),
            registered: zero(),
            turned_off: zero(),
            off: zero(),
        })))
    }

    /// Redacts what `secret` holds, until the registration is dropped. It is no use of the secret ([`Options::max_uses`](crate::Options::max_uses)).
    ///
    /// The registration does not end with the secret: keep the two together.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] for one that is shorter than [`SHORTEST`] or longer than [`LONGEST`], [`Error::Monotonous`];
    /// [`Error::Memory`] if the secret has ended, or for want of memory.
    pub fn register(&self, secret: &Secret) -> Result<Registered, Error> {
        secret.look(|secret| self.register_bytes(secret))?
    }

    /// The same for bytes that are reached within a closure: of a [`Text`](crate::Text), a [`Typed`](crate::Typed), a manager's buffer.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn register_bytes(&self, secret: &[u8]) -> Result<Registered, Error> {
        if !(SHORTEST..=LONGEST).contains(&secret.len()) {
            return Err(Error::Length { len: secret.len() });
        }
        let _at_work = AtWork::begin()?;
        let secret = if cfg!(secmem_ablate = "redact-off") { b"what nobody writes" } else { secret };
        let id = self.0.table_mut()?.add(secret)?;
        self.0.registered.fetch_add(1, Ordering::Relaxed);
        Ok(Registered { redactor: self.clone(), id })
    }

    /// A writer that redacts, before `inner`.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the kernel grants no memory for what has to wait; [`Error::Nested`].
    pub fn writer<W: io::Write>(&self, inner: W) -> Result<Writer<W>, Error> {
        Ok(Writer::new(Pipe::new(self.clone())?, inner))
    }

    /// A message as it may be shown. It is formatted straight into an arena.
    ///
    /// Where it cannot be looked through, for want of memory or after a purge, none of it is shown, and a text says so.
    pub fn text(&self, message: impl Display) -> String {
        self.try_text(message).unwrap_or_else(|_| UNSEEN.to_owned())
    }

    /// [`text`](Self::text), or why it could not be looked through.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], [`Error::Nested`].
    pub fn try_text(&self, message: impl Display) -> Result<String, Error> {
        let mut redacted = Message::new(Pipe::new(self.clone())?);
        // A `Display` that fails has said what it has said; whether memory was missing, `finish` knows.
        let _ = write!(redacted, "{message}");
        redacted.finish()
    }

    /// Lets everything through, until what is returned is dropped: to see what redaction hides. Counted.
    ///
    /// # Errors
    ///
    /// [`Error::NotInDevelopment`] where this crate was compiled without `debug_assertions`, as a release is.
    pub fn off_in_development(&self) -> Result<Off, Error> {
        if !cfg!(debug_assertions) {
            return Err(Error::NotInDevelopment);
        }
        self.0.turned_off.fetch_add(1, Ordering::Relaxed);
        self.0.off.fetch_add(1, Ordering::AcqRel);
        Ok(Off { redactor: self.clone() })
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            redacted: load(&self.0.redacted),
            turned_off: load(&self.0.turned_off),
            registered: load(&self.0.registered),
            found: std::array::from_fn(|at| load(&self.0.found[at])),
        }
    }
}

impl fmt::Debug for Redactor {
    /// Counts alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// A secret that is redacted as long as this lives.
#[must_use = "the secret is redacted until this is dropped"]
pub struct Registered {
    redactor: Redactor,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Where that fails, the table has ended, and its fingerprints with it.
        if cfg!(not(secmem_ablate = "redact-remove"))
            && let Ok(mut table) = self.redactor.0.table_mut()
        {
            let _ = table.remove(self.id);
        }
        self.redactor.0.registered.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").finish_non_exhaustive()
    }
}

/// Nothing is redacted as long as this lives. Made by [`Redactor::off_in_development`].
#[must_use = "redaction is on again when this is dropped"]
pub struct Off {
    redactor: Redactor,
}

impl Drop for Off {
    fn drop(&mut self) {
        self.redactor.0.off.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Off").finish_non_exhaustive()
    }
}
