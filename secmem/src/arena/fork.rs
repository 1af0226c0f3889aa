//! Telling a forked child from its parent.
//!
//! A page that the kernel zeroes in every child that gets a copy of this memory, whichever call made the child:
//! fork(2), clone(2) without `CLONE_VM`, another library's raw system call. Needs Linux 4.14.
//!
//! And telling whether a fork came while memory was being made that a child would share: `undisturbed`.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use std::{io, thread};

use crate::error::{Error, Refusal};
use crate::policy::{Control, Demand, Policy, Reached};
use crate::sys::{self, Call};

/// A page that holds 1 in the process that made it and 0 in its forked children; null before the first secret.
static WITNESS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Whether this process is a forked child of one that had secrets. Async-signal-safe.
#[inline]
pub(crate) fn in_child() -> bool {
    let witness = WITNESS.load(Ordering::Acquire);
    if witness.is_null() {
        return false;
    }
    // SAFETY: once set, the pointer is that of a page which is never unmapped; volatile, for the kernel changes it.
    unsafe { witness.read_volatile() == 0 }
}

/// The witness where the kernel gives no better one: 0 in children of fork(3) alone, whose handlers set it.
static PLAIN: AtomicU8 = AtomicU8::new(1);

/// Why the plain witness had to do: an errno, and the call that it is of, as [`Lack`] packs them.
static LACKING: AtomicI32 = AtomicI32::new(0);

/// Why there is no page that the kernel zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// The policy of the first secret did not ask for one.
    Untried,
    /// The kernel refused it.
    Refused(Refusal),
}

impl Lack {
    /// The calls that it takes.
    const CALLS: [Call; 3] = [Call::Reserve, Call::WipeOnFork, Call::Unmap];
    const UNTRIED: i32 = -1;
    /// No errno is so high.
    const ERRNOS: i32 = 1 << 16;

    fn pack((call, source): (Call, io::Error)) -> i32 {
        let at = Self::CALLS.iter().position(|it| *it == call).and_then(|at| i32::try_from(at).ok());
        at.unwrap_or(0) * Self::ERRNOS + source.raw_os_error().unwrap_or(libc::EIO)
    }

    fn unpack(packed: i32) -> Self {
        match usize::try_from(packed / Self::ERRNOS).ok().and_then(|at| Self::CALLS.get(at)) {
            Some(call) if packed != Self::UNTRIED => {
                Self::Refused(Refusal { call: call.name(), errno: packed % Self::ERRNOS })
            }
            _ => Self::Untried,
        }
    }

    /// Whether a later try may be granted: the kernel was short of memory.
    fn is_passing(self) -> bool {
        matches!(self, Self::Refused(Refusal { errno: libc::ENOMEM | libc::EAGAIN, .. }))
    }

    /// As an error for whoever requires the page.
    fn refusal(self) -> Refusal {
        match self {
            Self::Untried => Refusal { call: Call::WipeOnFork.name(), errno: libc::ENOTSUP },
            Self::Refused(refusal) => refusal,
        }
    }
}

/// Whether the witness is there that `policy` demands.
#[inline]
pub(super) fn watches(policy: Policy) -> bool {
    let lacks = policy.demand(Control::ForkWitness) == Demand::Required && lacking().is_some();
    !WITNESS.load(Ordering::Acquire).is_null() && !lacks
}

/// Sets the witness up, if it is not; once more, if it is the plain one for a reason that may have passed.
pub(super) fn watch(policy: Policy, len: usize) -> Result<(), Error> {
    if WITNESS.load(Ordering::Acquire).is_null() {
        set_up(policy, len)?;
    } else if lacking().is_some_and(Lack::is_passing) && policy.demand(Control::ForkWitness) != Demand::Off {
        try_again(policy, len)?;
    }
    match lacking() {
        Some(lack) if !watches(policy) => {
            let Refusal { call, errno } = lack.refusal();
            Err(refused(policy, len, call)(io::Error::from_raw_os_error(errno)))
        }
        _ => Ok(()),
    }
}

fn refused(policy: Policy, len: usize, call: &'static str) -> impl Fn(io::Error) -> Error {
    let asked = policy.backend();
    move |source| Error::Refused { asked, tried: asked, len, call, before: None, source }
}

/// Without a lock, which a child that is forked meanwhile would find held for ever: of several threads that are here at once,
/// the first one's witness stands.
#[cold]
fn set_up(policy: Policy, len: usize) -> Result<(), Error> {
    let lacking = match policy.demand(Control::ForkWitness) {
        Demand::Off => Lack::UNTRIED,
        demand => match new_page() {
            Ok(page) => return take_page(ptr::null_mut(), page, policy, len),
            Err((call, source)) if demand == Demand::Required => return Err(refused(policy, len, call.name())(source)),
            Err(refusal) => Lack::pack(refusal),
        },
    };
    count().map_err(refused(policy, len, Call::AtFork.name()))?;
    LACKING.store(lacking, Ordering::Release); // it counts if the plain witness stands
    take_as_witness(ptr::null_mut(), PLAIN.as_ptr());
    Ok(())
}

/// Puts a page in place of the plain witness, where the kernel gives one now.
///
/// Whoever asks the plain one once more hears the truth, too: it stays.
#[cold]
fn try_again(policy: Policy, len: usize) -> Result<(), Error> {
    match new_page() {
        Ok(page) => take_page(PLAIN.as_ptr(), page, policy, len),
        Err(_) => Ok(()), // the plain one stands, for the reason that is known
    }
}

/// Makes a page the witness in place of `before`, or gives it back where another thread was faster.
fn take_page(before: *mut u8, page: NonNull<u8>, policy: Policy, len: usize) -> Result<(), Error> {
    if take_as_witness(before, page.as_ptr()) {
        return Ok(());
    }
    // SAFETY: the page is ours, and nobody has seen it.
    unsafe { sys::unmap(page, sys::page_size()) }.map_err(refused(policy, len, Call::Unmap.name()))
}

fn take_as_witness(before: *mut u8, witness: *mut u8) -> bool {
    WITNESS.compare_exchange(before, witness, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Why the witness is no page that the kernel zeroes; `None` where it is one, or there is none yet.
#[inline]
fn lacking() -> Option<Lack> {
    let plain = WITNESS.load(Ordering::Acquire) == PLAIN.as_ptr();
    plain.then(|| Lack::unpack(LACKING.load(Ordering::Acquire)))
}

fn new_page() -> Result<NonNull<u8>, (Call, io::Error)> {
    let page = sys::page_size();
    let witness = sys::reserve(page, libc::PROT_READ | libc::PROT_WRITE).map_err(|source| (Call::Reserve, source))?;
    if let Err(source) = arm(witness, page) {
        // SAFETY: the page is ours, and nobody has seen it.
        unsafe { sys::unmap(witness, page) }.map_err(|source| (Call::Unmap, source))?;
        return Err((Call::WipeOnFork, source));
    }
    Ok(witness)
}

/// What came of [`Control::ForkWitness`] in this process, as `policy` sees it.
pub(super) fn witness(policy: Policy) -> Reached {
    let made = !WITNESS.load(Ordering::Acquire).is_null();
    let lacking = lacking();
    let why = match lacking {
        Some(Lack::Refused(refusal)) => Some(refusal),
        Some(Lack::Untried) | None => None,
    };
    let asked = policy.demand(Control::ForkWitness);
    Reached { control: Control::ForkWitness, asked, reached: made && lacking.is_none(), why }
}

/// Whether there is one, of whatever kind: it is made with the first secret.
pub(super) fn has_witness() -> bool {
    !WITNESS.load(Ordering::Acquire).is_null()
}

/// The address of the page that the kernel zeroes in children, where there is one.
pub(super) fn witness_page() -> Option<usize> {
    let witness = WITNESS.load(Ordering::Acquire);
    (!witness.is_null() && witness != PLAIN.as_ptr()).then(|| witness.addr())
}

fn arm(witness: NonNull<u8>, page: usize) -> std::io::Result<()> {
    if !cfg!(secmem_ablate = "wipe-on-fork") {
        // SAFETY: zeros in a child are what this page is for.
        unsafe { sys::wipe_on_fork(witness, page) }?;
    }
    // SAFETY: the page is mapped writable, ours alone, and a byte has no alignment to miss.
    unsafe { witness.write_volatile(1) };
    Ok(())
}

/// Forks by fork(3) that have begun, and those that are over in this process. Unequal while one runs.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicU64 = AtomicU64::new(0);

/// Whether the handlers stand that count forks.
static COUNTING: AtomicBool = AtomicBool::new(false);

extern "C" fn begins() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn is_over() {
    OVER.fetch_add(1, Ordering::SeqCst);
}

/// In the child: forks that other threads of the parent had begun are not its own.
extern "C" fn has_made_us() {
    OVER.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    PLAIN.store(0, Ordering::SeqCst);
}

/// How often memory is made anew because a fork came in between, one millisecond apart.
const TRIES: u32 = 1000;

/// Makes something of which a child that is forked meanwhile must not get a share: once more, after `undo` of what was
/// made, for each fork that came in between.
///
/// A mapping can be kept from children only once it is there, and a child that is forked between these two calls would
/// share a memory file for ever. Forks are counted rather than held up by a lock: a signal handler that forks while
/// this thread holds the lock would wait for ever. Only forks by the C library's fork(3) are counted; raw system calls
/// and `_Fork` pass unseen.
///
/// # Errors
///
/// What `make` or `undo` say; `EBUSY` where forks never stopped; what pthread_atfork(3) says.
pub(super) fn undisturbed<T>(
    mut make: impl FnMut() -> Result<T, Refusal>,
    mut undo: impl FnMut(T) -> Result<(), Refusal>,
) -> Result<T, Refusal> {
    let refusal = |errno| Refusal { call: Call::AtFork.name(), errno };
    // Every error of `sys` carries an errno.
    count().map_err(|error| refusal(error.raw_os_error().unwrap_or(libc::EIO)))?;
    for _ in 0..TRIES {
        let begun = BEGUN.load(Ordering::SeqCst);
        if OVER.load(Ordering::SeqCst) == begun {
            let made = make()?;
            if BEGUN.load(Ordering::SeqCst) == begun {
                return Ok(made);
            }
            undo(made)?;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(refusal(libc::EBUSY))
}

/// Of several threads that are here at once each sets the handlers up: then each fork is counted as often, at its begin and at
/// its end.
fn count() -> io::Result<()> {
    if !COUNTING.load(Ordering::Acquire) {
        sys::at_fork(begins, is_over, has_made_us)?;
        COUNTING.store(true, Ordering::Release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seam;
    use crate::{Backend, Options, Secret};

    fn preferring() -> Options {
        Secret::options().policy(Policy::from(Backend::Mlock).with(Control::ForkWitness, Demand::Preferred))
    }

    #[test]
    fn a_lack_of_memory_that_has_passed_is_not_held_against_the_witness() {
        let ended = seam::in_child(
            "arena::fork::tests::a_lack_of_memory_that_has_passed_is_not_held_against_the_witness",
            || {
                seam::fail_next(Call::WipeOnFork, libc::ENOMEM);
                let secret = preferring().zeroed(32).unwrap();
                let refused = Refusal { call: Call::WipeOnFork.name(), errno: libc::ENOMEM };
                assert_eq!(secret.protection().control(Control::ForkWitness).why, Some(refused));
                assert_eq!((witness_page(), seam::left()), (None, 0));

                let other = preferring().zeroed(100_000).unwrap();

                for secret in [&secret, &other] {
                    assert!(secret.protection().control(Control::ForkWitness).reached);
                    assert!(secret.with(|_| ()).is_ok());
                }
                assert!(witness_page().is_some());
                assert!(Secret::new(32).is_ok(), "which requires the page");
            },
        );

        assert!(ended.status.success(), "{ended:?}");
    }

    #[test]
    fn the_witness_that_was_refused_tells_by_which_call() {
        let ended = seam::in_child("arena::fork::tests::the_witness_that_was_refused_tells_by_which_call", || {
            let refused = Refusal { call: "mmap (address space)", errno: libc::EPERM };
            seam::fail_next(Call::Reserve, libc::EPERM);
            let secret = preferring().zeroed(32).unwrap();

            assert_eq!(secret.protection().control(Control::ForkWitness).why, Some(refused));
            let required = Secret::new(100_000).unwrap_err();
            assert!(matches!(required, Error::Refused { call: "mmap (address space)", .. }), "{required:?}");
        });

        assert!(ended.status.success(), "{ended:?}");
    }

    #[test]
    fn what_is_lacking_is_unpacked_as_it_was_packed() {
        for (call, errno) in Lack::CALLS.into_iter().flat_map(|call| [(call, libc::ENOMEM), (call, libc::ENOSYS)]) {
            let lack = Lack::unpack(Lack::pack((call, io::Error::from_raw_os_error(errno))));

            assert_eq!(lack, Lack::Refused(Refusal { call: call.name(), errno }));
        }
        assert_eq!(Lack::unpack(Lack::UNTRIED), Lack::Untried);
    }
}
