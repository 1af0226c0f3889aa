//! Secrets that live in locked, guarded memory alone, and are wiped when they end, and when the process does: at the endings that
//! it plans for.
//!
//! ```
//! # #[cfg(all(feature = "std", target_os = "linux"))]
//! # fn main() -> Result<(), secmem::Error> {
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
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "std", target_os = "linux")))]
//! # fn main() {} // a secret needs Linux
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
//! used which key, when, for what and with what result. With `http`, `http::Monitor` tells those who
//! may ask how a manager stands. With `vault`, a `vault::Vault` keeps a password in a worker process of its own. With `redact`, a
//! `redact::Redactor` keeps secrets out of logs and messages.
//!
//! No type shows content by `Debug`, and none can be displayed, cloned, copied, dereferenced, hashed, compared by `==` or
//! serialised. What leaves the protection on purpose is called `expose_…`, or `write_to`, which a descriptor gets.
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
//! # Where
//!
//! Linux, from 4.14 on; memfd_secret from 5.14 on, where the kernel was built with it. On processors other than x86-64 there
//! is neither `scrub` nor `coffer`, and what the compiler makes of [`ct`] and of copies can leave words in registers.
//!
//! On other systems, and without feature `std` (then the crate is `no_std`), there are [`ct`] and [`wipe::wipe`] alone, which ask
//! no system for anything and allocate nothing; no secret can be held there by mistake, for there is no type for it. [`reach`]
//! says what a build has.

#![cfg_attr(not(any(feature = "std", test)), no_std)]
// The front page names what only Linux has.
#![cfg_attr(not(all(feature = "std", target_os = "linux")), allow(rustdoc::broken_intra_doc_links))]

// The core: no operating system is asked for anything.
mod cpu;
pub mod ct;
#[doc(hidden)]
pub mod probe;
pub mod reach;
pub mod wipe;

// The protection. Elsewhere there is none of it, so that nobody takes a type without for one with it.
#[cfg(all(feature = "std", target_os = "linux"))]
mod alloc;
#[cfg(all(feature = "std", target_os = "linux"))]
mod arena;
#[cfg(all(feature = "std", target_os = "linux"))]
mod bytes;
#[cfg(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"))]
pub mod coffer;
#[cfg(all(feature = "std", target_os = "linux"))]
mod deadline;
#[cfg(all(feature = "std", target_os = "linux"))]
mod error;
#[cfg(all(feature = "std", target_os = "linux"))]
mod harden;
#[cfg(all(feature = "http", target_os = "linux", target_arch = "x86_64"))]
pub mod http;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod input;
#[cfg(all(feature = "journal", target_os = "linux", target_arch = "x86_64"))]
pub mod journal;
#[cfg(all(feature = "std", target_os = "linux"))]
mod keystream;
#[cfg(all(feature = "std", target_os = "linux"))]
mod life;
#[cfg(all(feature = "manager", target_os = "linux", target_arch = "x86_64"))]
pub mod manager;
#[cfg(all(feature = "std", target_os = "linux"))]
#[doc(hidden)]
pub mod oracle;
#[cfg(all(feature = "std", target_os = "linux"))]
mod owner;
#[cfg(all(feature = "std", target_os = "linux"))]
mod policy;
#[cfg(all(feature = "pqc", target_os = "linux", target_arch = "x86_64"))]
pub mod pqc;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod purge;
#[cfg(all(feature = "records", target_os = "linux", target_arch = "x86_64"))]
pub mod records;
#[cfg(all(feature = "redact", target_os = "linux", target_arch = "x86_64"))]
pub mod redact;
#[cfg(all(feature = "std", target_os = "linux"))]
mod report;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod scrub;
#[cfg(all(feature = "std", target_os = "linux"))]
mod sealed;
#[cfg(all(feature = "std", target_os = "linux"))]
mod secret;
#[cfg(all(feature = "std", target_os = "linux"))]
mod stats;
#[cfg(all(feature = "std", target_os = "linux"))]
mod sys;
#[cfg(all(feature = "std", target_os = "linux"))]
mod trace;
#[cfg(all(feature = "typed", target_os = "linux"))]
mod typed;
#[cfg(all(feature = "vault-rsa", target_os = "linux", target_arch = "x86_64"))]
mod vault_rsa;

#[cfg(all(feature = "vault", target_os = "linux", target_arch = "x86_64"))]
pub mod vault;

#[cfg(all(any(feature = "journal", feature = "records"), target_os = "linux", target_arch = "x86_64"))]
mod wall;

#[cfg(all(feature = "std", target_os = "linux"))]
pub use {
    alloc::WipingAlloc,
    arena::{Backend, Protection},
    bytes::{Bytes, Text},
    deadline::TestClock,
    error::{Error, Refusal},
    harden::{Posture, harden},
    owner::Owner,
    policy::{Control, Demand, Policy, Reached},
    report::{ArenaReport, Confirmation, Missing, Report, StackReport, verify},
    sealed::Sealed,
    secret::{Options, Secret},
    stats::Statistics,
};

#[cfg(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"))]
pub use coffer::{Coffer, Stored};
#[cfg(all(feature = "typed", target_os = "linux"))]
pub use typed::{Plain, Typed};

/// The page's examples are compiled, so that they cannot drift from the interface.
#[cfg(all(doctest, feature = "std", target_os = "linux"))]
#[doc = include_str!("../README.md")]
struct FrontPage;
