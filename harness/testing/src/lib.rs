//! Asserts in a `#[test]` that a secret is gone from memory once a closure has returned.
//!
//! ```
//! # #[derive(Default)]
//! # struct Session;
//! # impl Session { fn start(&mut self, _: &[u8]) {} }
//! #[test]
//! fn a_session_leaves_nothing_of_its_key() {
//!     residue_test::assert_clean(|key| {
//!         let mut session = Session::default();
//!         session.start(key);
//!     });
//! }
//! ```
//!
//! The closure does not run in the test's own process, where other tests run and where whoever looks would look at
//! itself. [`assert_clean`] starts the test program once more, for this one test and under ptrace. There the test runs up
//! to the same call, which reads a random secret from a descriptor into a mapping of its own, calls the closure with
//! it, wipes and unmaps it, and ends the process. The process that waits has seen the secret whole when the read
//! brought it (or nothing counts), and searches all memory and registers for it at the end, in every form and in
//! pieces.
//!
//! So a test is either clean, or fails with what was found, where, and who wrote it; or fails because nothing can be
//! said, with the reason: no leave to trace (a container without ptrace), a closure that panics or never returns.
//!
//! What the test does before the call is done in both processes. What stands behind it is done in the first alone.
//! Works with the harness of `cargo test`, and with cargo-nextest and others that take `NAME --exact`; where a test
//! does not run in a thread of its own name, [`Check::test`] tells it.
//!
//! Needs Linux on x86-64. The harness is a loop over every byte of a process, so let it be optimised in tests:
//!
//! ```toml
//! [profile.dev.package.harness]
//! opt-level = 1
//! ```

#![expect(clippy::test_attr_in_doctest, reason = "it is what a user writes; tests/clean.rs runs the like")]

mod child;
mod parent;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Fails the test unless nothing is left of the secret that the closure is called with, 32 random bytes. More can be
/// chosen by a [`Check`].
///
/// # Panics
///
/// If something is left, or if nothing can be said. The message names places and writers, and holds no byte of the
/// secret.
#[track_caller]
pub fn assert_clean<F: FnOnce(&[u8])>(closure: F) {
    Check::new().assert_clean(closure);
}

/// What [`assert_clean`] does, with something other than its defaults.
///
/// ```no_run
/// use std::time::Duration;
///
/// residue_test::Check::new().length(64).shortest(8).timeout(Duration::from_secs(120)).assert_clean(|key| drop(key));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a check that is not made shows nothing"]
pub struct Check {
    length: usize,
    shortest: usize,
    text: bool,
    timeout: Duration,
    writers: bool,
    registers: bool,
    test: Option<String>,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            length: 32,
            shortest: 6,
            text: false,
            timeout: Duration::from_secs(60),
            writers: true,
            registers: true,
            test: None,
        }
    }
}

impl Check {
    /// A secret of 32 random bytes, residues from 6 bytes on, a minute's time, writers named.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the secret: at least 8, at most 60,000.
    pub const fn length(mut self, bytes: usize) -> Self {
        self.length = bytes;
        self
    }

    /// Shortest residue that counts, in bytes of the secret: from 4 on. The shorter, the likelier is a hit by chance.
    pub const fn shortest(mut self, bytes: usize) -> Self {
        self.shortest = bytes;
        self
    }

    /// Makes the secret of letters and digits, for code that takes a password or a token.
    pub const fn text(mut self) -> Self {
        self.text = true;
        self
    }

    /// How long the closure may take, traced.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Leaves out who wrote what was found: that takes a few runs more for each residue.
    pub const fn without_writers(mut self) -> Self {
        self.writers = false;
        self
    }

    /// Leaves out what stands in registers when the closure has returned, and there alone.
    ///
    /// A copy goes through vector registers, where its last pieces stay until another function needs them. Which ones
    /// depends on the processor, and code that is not written in assembly cannot wipe them.
    pub const fn without_registers(mut self) -> Self {
        self.registers = false;
        self
    }

    /// The name of the test that makes this check, as its harness knows it (`module::name`), where the thread that makes
    /// it bears another.
    pub fn test(mut self, name: impl Into<String>) -> Self {
        self.test = Some(name.into());
        self
    }

    /// Makes the check.
    ///
    /// # Panics
    ///
    /// As [`assert_clean`].
    #[track_caller]
    pub fn assert_clean<F: FnOnce(&[u8])>(self, closure: F) {
        let name = self.test.clone().unwrap_or_else(name_of_test::<F>);
        let number = number_of_call(&name);
        if let Some(task) = child::Task::given() {
            if task.number == number {
                child::run(&task, closure);
            }
            return; // the first process makes each check, this one is here for one of them
        }
        if let Err(why) = parent::check(&self, &name, number) {
            panic!("{why}");
        }
    }
}

/// The name of the running test: that of its thread, as libtest gives it; else where the closure stands in the source.
fn name_of_test<F>() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => {
            let path = std::any::type_name::<F>();
            let function = path.split("::{{closure}}").next().unwrap_or(path);
            function.split_once("::").map_or(function, |(_crate, rest)| rest).to_owned()
        }
    }
}

/// How many checks this test has made before: both processes count alike.
fn number_of_call(test: &str) -> u32 {
    static CALLS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    let mut calls = CALLS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let calls = calls.entry(test.to_owned()).or_default();
    *calls += 1;
    *calls
}
