//! Running somebody else's code so that nothing of a secret stays behind: on a protected stack, with clean registers.
//!
//! Code that computes with a key leaves parts of it on its stack and in registers; a cipher from a crate as much as
//! code of one's own. [`run`] gives such code another stack: locked, dump-excluded, not shared with forked children, with
//! guards on either side. When the code has ended, also by a panic, every general, vector, mask and x87 register is cleared
//! while that stack is still in use; then the stack is overwritten; only then does the thread go back to its own.
//!
//! ```
//! use secmem::{Secret, scrub};
//!
//! let key = Secret::new(32)?;
//! let mut tag = Secret::new(32)?;
//! // What the closure refers to are slots of an arena; nothing secret is moved in or returned.
//! tag.with_mut(|tag| key.with(|key| scrub::run(|| checksum(key, tag))))???;
//! # fn checksum(_: &[u8], _: &mut [u8]) {}
//! # Ok::<(), secmem::Error>(())
//! ```
//!
//! # What it does not reach
//!
//! - A value that is moved into the closure stays where it was moved from, and is the caller's to wipe. So is whatever the
//!   closure writes through a reference.
//! - The heap: what the closure allocates and frees is overwritten only by [`WipingAlloc`](crate::WipingAlloc), set as the
//!   program's allocator. What it leaks, or keeps in a static or a thread-local, stays.
//! - A value that the closure makes and puts elsewhere, by a reference or on the heap: what of it is padding, or unused as in an
//!   `Ok(())` whose error would be longer, can carry along bytes that stood on the stack before. Bytes, numbers and flags
//!   have no such parts.
//! - Other threads that the closure starts.
//! - A signal whose handler asks for no alternate stack (or, without one, any) runs on the protected stack; with `SA_ONSTACK` it
//!   runs on a protected one beside it. Both are overwritten. A handler that leaves by `siglongjmp` skips all that.
//! - A crash within the closure: a core dump holds the registers. See the process's own settings.
//! - A closure that forks: the child has no such stack and dies.
//! - A purge while the closure runs, in whichever thread: no purge overwrites a stack that is in use, for it holds the return
//!   addresses of code that goes on. The closure is not stopped either. Where a signal or exit(3) ends the process meanwhile,
//!   what stands on the stack stays until the process is gone; then the kernel zeroes pages of memfd_secret, and keeps those
//!   of mlock until it uses them for something else. [`purge::exec`](crate::purge::exec) refuses to go on as long as one runs.
//! - Functions that are bound when they are first called, called outside: see [`lazily_bound`].

mod binding;
mod handlers;
mod switch;

use std::cell::RefCell;

use crate::arena::{Backend, Enclosure, Protection};
use crate::error::Error;
use crate::policy::Policy;
use crate::report::{self, Confirmation};
pub use binding::{LazilyBound, lazily_bound};
use handlers::Handlers;

/// Bytes of the stack that [`run`] uses: enough for each of the ciphers that this project tests, of which ml-kem takes the
/// most (between 32 and 48 KiB), where they are optimised. A build without optimisation can take several times as much: a
/// [`Stack`] of one's own is as large as it is asked to be. What does not fit ends the process at a guard page.
pub const DEFAULT_STACK: usize = 64 << 10;

/// Bytes of the stack that [`run_large`] uses.
#[cfg(feature = "vault-rsa")]
pub(crate) const LARGE_STACK: usize = 256 << 10;

thread_local! {
    /// The stacks of [`run`] and [`run_large`], kept for the next call; away while one runs, so that a nested call makes its own.
    static KEPT: RefCell<[Kept; 2]> = const { RefCell::new([Kept::Nothing, Kept::Nothing]) };
}

/// Runs `f` on a protected stack of [`DEFAULT_STACK`] bytes and leaves nothing of it in registers or on that stack.
///
/// The first call of a thread makes the stack; later ones use it again, and it counts against the lock budget until the thread
/// ends. Where that is much, or the kernel grants no locked memory, a [`Stack`] of one's own lives as long, and has what is
/// required of it, as the caller says.
///
/// # Errors
///
/// [`Error::Refused`] if the kernel grants no such stack, and `f` has not run; [`Error::Panicked`] if `f` panicked.
pub fn run(f: impl FnOnce()) -> Result<(), Error> {
    run_kept(0, DEFAULT_STACK, f)
}

/// [`run`] on [`LARGE_STACK`] bytes, which the thread keeps beside the others.
///
/// # Errors
///
/// As [`run`].
#[cfg(feature = "vault-rsa")]
pub(crate) fn run_large(f: impl FnOnce()) -> Result<(), Error> {
    run_kept(1, LARGE_STACK, f)
}

fn run_kept(which: usize, bytes: usize, f: impl FnOnce()) -> Result<(), Error> {
    let take = |kept: &mut [Kept; 2]| {
        let nested = kept.iter().any(|kept| matches!(kept, Kept::Away));
        (!nested).then(|| std::mem::replace(&mut kept[which], Kept::Away))
    };
    let kept = KEPT.try_with(|kept| kept.try_borrow_mut().ok().and_then(|mut kept| take(&mut kept)));
    let (mut stack, outermost) = match kept {
        Ok(Some(Kept::There(stack))) => (stack, true),
        Ok(Some(Kept::Nothing)) => match Stack::new(bytes) {
            Ok(stack) => (stack, true),
            Err(error) => {
                put(which, Kept::Nothing);
                return Err(error);
            }
        },
        // Nested, or in a thread that is ending: the stack is made, used and given back. A value that is made on a protected
        // stack must not leave it: what the compiler does not fill of it holds what stood there before.
        _ => (Stack::new(bytes)?, false),
    };
    let result = stack.run(f);
    if outermost {
        put(which, Kept::There(stack));
    }
    result
}

/// What a thread has of a stack for [`run`].
enum Kept {
    /// None was made.
    Nothing,
    There(Stack),
    /// A call uses it.
    Away,
}

fn put(which: usize, kept: Kept) {
    // A thread that is ending keeps nothing: what it was to keep is dropped.
    let _ = KEPT.try_with(|place| place.try_borrow_mut().map(|mut place| place[which] = kept));
}

/// A protected stack of one's own: another size, or kept where the caller wants.
///
/// Dropping it gives the memory back.
#[derive(Debug)]
pub struct Stack {
    stack: Enclosure,
    handlers: Handlers,
}

impl Stack {
    /// A stack of at least `bytes`, rounded up to whole pages, in [`Backend::Auto`]'s memory, and one for signal handlers.
    ///
    /// It counts against the lock budget as long as it lives.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the kernel grants no such memory; [`Error::Forked`] in a forked child.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        Self::with_backend(Backend::Auto, bytes)
    }

    /// [`new`](Self::new) in the memory of `backend`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_backend(backend: Backend, bytes: usize) -> Result<Self, Error> {
        Self::with_policy(Policy::from(backend), bytes)
    }

    /// [`new`](Self::new) in memory as `policy` says, as in a container that grants no lock budget. Guards are required whatever it
    /// says: without them, code that needs a longer stack would write to other memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_policy(policy: Policy, bytes: usize) -> Result<Self, Error> {
        let stack = Enclosure::new(policy, bytes)?;
        let handlers = Handlers::new(policy)?;
        Ok(Self { stack, handlers })
    }

    /// How the stack is protected: what the calls answered when it was made. See [`verify`](Self::verify).
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.stack.protection()
    }

    /// Asks the kernel whether the stack, and that of its signal handlers, still have what they had when they were made.
    ///
    /// # Errors
    ///
    /// As [`verify`](crate::verify).
    pub fn verify(&self) -> Result<Confirmation, Error> {
        let ours = |data: &std::ops::Range<usize>| {
            [&self.stack, self.handlers.enclosure()].iter().any(|it| it.contains(data.start))
        };
        report::verify_stacks(ours)
    }

    /// Runs `f` on this stack; see [`run`].
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if `f` panicked; [`Error::Handlers`] if signal handlers cannot be given a stack
    /// of their own, as in a handler that runs on one, and [`Error::Forked`] in a forked child: `f` has not run then.
    pub fn run(&mut self, f: impl FnOnce()) -> Result<(), Error> {
        if crate::arena::in_child() {
            return Err(Error::Forked);
        }
        // Handlers first: `f` must not run where a signal could carry its registers away.
        let before = if cfg!(secmem_ablate = "alternate-stack") { None } else { Some(self.handlers.take()?) };
        self.stack.set_running(true);
        let panicked = switch::run_on(&mut self.stack, f);
        let given_back = before.map_or(Ok(()), |before| self.handlers.give_back(&before));
        self.stack.set_running(false);
        given_back?;
        if panicked { Err(Error::Panicked) } else { Ok(()) }
    }
}
