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

/// Why the plain witness had to do: an errno, or [`UNTRIED`].
static LACKING: AtomicI32 = AtomicI32::new(0);

/// In place of an errno: the policy of the first secret did not ask for such a page.
const UNTRIED: i32 = -1;

/// Whether the witness is there that `policy` demands.
#[inline]
pub(super) fn watches(policy: Policy) -> bool {
    let lacks = lacking() != 0 && policy.demand(Control::ForkWitness) == Demand::Required;
    !WITNESS.load(Ordering::Acquire).is_null() && !lacks
}

/// Sets the witness up, if it is not.
pub(super) fn watch(policy: Policy, len: usize) -> Result<(), Error> {
    if WITNESS.load(Ordering::Acquire).is_null() {
        set_up(policy, len)?;
    }
    if !watches(policy) {
        let lacking = lacking();
        let errno = if lacking == UNTRIED { libc::ENOTSUP } else { lacking };
        return Err(refused(policy, len, Call::WipeOnFork)(io::Error::from_raw_os_error(errno)));
    }
    Ok(())
}

fn refused(policy: Policy, len: usize, call: Call) -> impl Fn(io::Error) -> Error {
    let asked = policy.backend();
    move |source| Error::Refused { asked, tried: asked, len, call: call.name(), before: None, source }
}

/// Without a lock, which a child that is forked meanwhile would find held for ever: of several threads that are here at once,
/// the first one's witness stands.
#[cold]
fn set_up(policy: Policy, len: usize) -> Result<(), Error> {
    let lacking = match policy.demand(Control::ForkWitness) {
        Demand::Off => UNTRIED,
        demand => match new_page() {
            Ok(witness) => {
                if !take_as_witness(witness.as_ptr()) {
                    // SAFETY: the page is ours, and nobody has seen it.
                    let unmapped = unsafe { sys::unmap(witness, sys::page_size()) };
                    unmapped.map_err(refused(policy, len, Call::Unmap))?;
                }
                return Ok(());
            }
            Err((call, source)) if demand == Demand::Required => return Err(refused(policy, len, call)(source)),
            Err((_, source)) => source.raw_os_error().unwrap_or(libc::EIO),
        },
    };
    count().map_err(refused(policy, len, Call::AtFork))?;
    LACKING.store(lacking, Ordering::Release); // it counts if the plain witness stands
    take_as_witness(PLAIN.as_ptr());
    Ok(())
}

fn take_as_witness(witness: *mut u8) -> bool {
    WITNESS.compare_exchange(std::ptr::null_mut(), witness, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Why the witness is no page that the kernel zeroes: an errno, [`UNTRIED`], or 0 where it is one, or there is none yet.
#[inline]
fn lacking() -> i32 {
    if WITNESS.load(Ordering::Acquire) == PLAIN.as_ptr() { LACKING.load(Ordering::Acquire) } else { 0 }
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
    let why = (lacking > 0).then_some(Refusal { call: Call::WipeOnFork.name(), errno: lacking });
    let asked = policy.demand(Control::ForkWitness);
    Reached { control: Control::ForkWitness, asked, reached: made && lacking == 0, why }
}

/// The address of the page that the kernel zeroes in children, where there is one.
pub(super) fn witness_page() -> Option<usize> {
    let witness = WITNESS.load(Ordering::Acquire);
    (!witness.is_null() && LACKING.load(Ordering::Relaxed) == 0).then(|| witness.addr())
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
