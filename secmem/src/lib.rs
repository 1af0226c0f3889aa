//! Secrets that live in locked, guarded memory alone, and are wiped at every ending that can be caught.
//!
//! ```
//! use secmem::{Secret, purge};
//!
//! purge::install(&purge::Plan::default())?; // panic, exit, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT
//!
//! let mut key = Secret::new(32)?;
//! key.with_mut(|bytes| bytes[..5].copy_from_slice(b"sesam"))?; // a real one is generated or read in place
//! let first = key.with(|bytes| bytes[0])?;
//! assert_eq!(first, b's');
//!
//! key.wipe()?;
//! assert!(matches!(key.with(|_| ()), Err(secmem::Error::Wiped)));
//! # Ok::<(), secmem::Error>(())
//! ```
//!
//! # What there is
//!
//! [`Secret`] for bytes of a known length, [`Bytes`] and [`Text`] for what grows, [`Typed`] for values in place, [`Sealed`] for memory
//! that is closed between accesses, [`Coffer`] for what lies encrypted until it is needed. [`Options`] say how a secret is kept and
//! how long it lives, [`Policy`] what its memory must have, [`Protection`] what it got, [`verify`] whether the kernel agrees,
//! [`Report`] and [`Statistics`] how the whole process stands. [`input`] reads secrets straight into their place, from a terminal
//! and elsewhere; [`ct`] compares, chooses and decodes them in constant time. [`scrub::run`] runs other people's code so that
//! nothing stays on its stack or in registers, [`WipingAlloc`] overwrites what it frees, [`harden`] closes the process to
//! others and to core dumps.
//!
//! With feature `manager`, `manager::Manager` keeps buffers by name; with `records`, `records::Keyring` encrypts what is to be
//! stored; with `pqc`, `pqc::Keys` does so for keys that are derived from a base secret. With `journal`, a `journal::Journal` keeps who
//! used which key, when, for what and with what result.
//!
//! No type shows content by `Debug`, and none can be displayed, cloned, copied, dereferenced, hashed, compared by `==` or
//! serialised. What leaves the protection on purpose is called `expose_…`.
//!
//! # What it promises
//!
//! - The bytes of a [`Secret`] stand in one place, an *arena*: never in the value, never in a copy of this crate's making.
//! - The arena is locked against swap, excluded from core dumps and from forked children, with a page without access on
//!   either side. With `memfd_secret` no read from outside reaches it: not `/proc/PID/mem`, not process_vm_readv, not the
//!   peeks of ptrace, no core dump, no swap. Every system call behind that is checked: what cannot be had is an [`Error`],
//!   or, for [`Backend::Auto`], a fallback that [`Protection`] names.
//! - The bytes are overwritten when the secret is dropped or wiped, at its deadline (not at its next use), and, with
//!   [`purge::install`], on a panic, at exit and on the signals of the plan. The process still ends as it would have.
//! - A forked child of a process with secrets gets none of them; what it tries is [`Error::Forked`]. It cannot make new
//!   ones either: it is to exec.
//!
//! # What it does not
//!
//! - Code that uses a secret leaves parts of it in registers and on its stack; so does a signal that comes meanwhile. What
//!   a closure copies out is the caller's.
//! - A forced purge (signal, exit, a panic that aborts) overwrites secrets under running accesses. Those read zeros until
//!   they end or the process does (the language promises nothing about such a read); one that ends is [`Error::Purged`], and its
//!   result is dropped. What another thread writes after the purge has passed stays until its access ends, or until the
//!   process has ended.
//! - SIGKILL, `_exit`, and a crash that is not in the plan run nothing. Pages of memfd_secret are zeroed by the kernel and
//!   were unreadable before; pages of mlock keep the bytes until the kernel uses them for something else.
//! - Code that runs in the process reads whatever it can read, also code that a debugger makes it run.
//! - No purge overwrites a protected stack (`scrub`) while code runs on it, in whichever thread.
//! - A closure that forks must not touch its bytes in the child: they are not mapped there. A child that is made by a raw
//!   system call or `_Fork`, not by fork(3), in the moment when another thread makes a new arena of `memfd_secret` shares
//!   that arena for good.
//! - A [`Secret`] is not sealed between accesses: a stray read in the same process, within the arena, finds it. A [`Sealed`] is.
//!
//! Linux, from 4.14 on; memfd_secret from 5.14 on, where the kernel was built with it. On processors other than x86-64 there
//! is neither `scrub` nor `coffer`, and what the compiler makes of [`ct`] and of copies can leave words in registers.

#[cfg(not(target_os = "linux"))]
compile_error!("secmem knows the memory calls of Linux alone");

mod alloc;
mod arena;
mod bytes;
#[cfg(all(feature = "coffer", target_arch = "x86_64"))]
pub mod coffer;
pub mod ct;
mod deadline;
mod error;
mod harden;
pub mod input;
#[cfg(all(feature = "journal", target_arch = "x86_64"))]
pub mod journal;
mod keystream;
mod life;
#[cfg(all(feature = "manager", target_arch = "x86_64"))]
pub mod manager;
#[doc(hidden)]
pub mod oracle;
mod owner;
mod policy;
#[cfg(all(feature = "pqc", target_arch = "x86_64"))]
pub mod pqc;
pub mod purge;
#[cfg(all(feature = "records", target_arch = "x86_64"))]
pub mod records;
mod report;
#[cfg(target_arch = "x86_64")]
pub mod scrub;
mod sealed;
mod secret;
mod stats;
mod sys;
mod trace;
#[cfg(feature = "typed")]
mod typed;
#[cfg(all(any(feature = "journal", feature = "records"), target_arch = "x86_64"))]
mod wall;
pub mod wipe;

pub use alloc::WipingAlloc;
pub use arena::{Backend, Protection};
pub use bytes::{Bytes, Text};
#[cfg(all(feature = "coffer", target_arch = "x86_64"))]
pub use coffer::{Coffer, Stored};
pub use deadline::TestClock;
pub use error::{Error, Refusal};
pub use harden::{Posture, harden};
pub use owner::Owner;
pub use policy::{Control, Demand, Policy, Reached};
pub use report::{ArenaReport, Confirmation, Missing, Report, StackReport, verify};
pub use sealed::Sealed;
pub use secret::{Options, Secret};
pub use stats::Statistics;
#[cfg(feature = "typed")]
pub use typed::{Plain, Typed};

/// Seams for tests of the protection.
#[doc(hidden)]
pub mod probe {
    use crate::Secret;

    /// What a coffer stored: salt (16 bytes), tag (16 bytes) and ciphertext, one after the other.
    #[cfg(all(feature = "coffer", target_arch = "x86_64"))]
    #[must_use]
    pub fn stored(stored: &crate::Stored) -> Vec<u8> {
        stored.stands()
    }

    /// Puts others in their place.
    #[cfg(all(feature = "coffer", target_arch = "x86_64"))]
    pub fn overwrite(stored: &crate::Stored, content: &[u8]) {
        stored.overwrite(content);
    }

    /// Changes a bit of a coffer's pre-key, of 16 KiB.
    #[cfg(all(feature = "coffer", target_arch = "x86_64"))]
    pub fn flip_pre_key(coffer: &crate::Coffer, bit: usize) {
        coffer.flip(bit);
    }

    /// [`ct::eq`](crate::ct::eq) of 16 bytes and more as a processor without AVX2 runs it.
    ///
    /// # Panics
    ///
    /// If the slices are shorter, or of unequal lengths.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[must_use]
    pub fn eq_by_sse2(a: &[u8], b: &[u8]) -> bool {
        crate::ct::eq_by_sse2(a, b)
    }

    /// One past the last data byte of the arena that `secret` lives in: the first byte of the guard page.
    ///
    /// To see that an overrun is caught. Reading it must end the process.
    #[must_use]
    pub fn arena_end(secret: &Secret) -> *const u8 {
        secret.arena_end()
    }
}

/// The front page's example is compiled, so that it cannot drift from the interface.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
