//! Wiping every secret when the process ends, or panics, or asks for it.
//!
//! Two strengths. *Cooperative* ([`purge_all`], a panic that unwinds): no access begins any more, unused secrets are
//! wiped at once and used ones when their access ends. *Forced* (signals, exit, a panic that aborts): every arena is
//! overwritten with zeros where it stands, for nothing will run later. That takes no lock; the first takes those of closed
//! memory ([`Sealed`](crate::Sealed)), and so has no place in a signal handler.
//!
//! Neither overwrites a protected stack (`scrub`) while code runs on it: a purge reaches secrets, and what that code has made of
//! them is overwritten when it ends. If the process ends first, by a signal or exit(3), the stacks of its threads stay as
//! they stand: pages of memfd_secret until the kernel zeroes them, pages of mlock until it uses them again.
//!
//! A forced purge changes bytes under the references of running accesses, which the language leaves undefined. The
//! process is ending then, and what these accesses compute is lost with it, unless a handler of the application
//! returns: see [`install`].
//!
//! Old secrets stay ended; new ones can be made after either.
#![allow(unsafe_code)] // signal handlers

use std::ffi::{c_int, c_void};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::arena;
use crate::error::Error;
use crate::sys::{self, Call};

/// At which endings all secrets are purged.
///
/// The default are a panic, a normal exit, and the signals by which people, terminals and supervisors end a process, and by which it
/// ends itself: SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGABRT. Others that end one, the faults among them, are planned by
/// [`signals`](Self::signals). SIGKILL and `_exit` run nothing of ours.
#[derive(Clone, Debug)]
#[must_use]
pub struct Plan {
    panic: bool,
    exit: bool,
    signals: Vec<c_int>,
}

impl Default for Plan {
    fn default() -> Self {
        let signals = vec![libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT];
        Self { panic: true, exit: true, signals }
    }
}

impl Plan {
    /// Whether a panic purges: any panic, also one that is caught later.
    pub fn panic(mut self, purge: bool) -> Self {
        self.panic = purge;
        self
    }

    /// Whether exit(3), or a return from `main`, purges.
    pub fn exit(mut self, purge: bool) -> Self {
        self.exit = purge;
        self
    }

    /// The signals that purge, instead of the default ones. Each must be one that ends a process by default.
    pub fn signals(mut self, signals: impl IntoIterator<Item = c_int>) -> Self {
        self.signals = signals.into_iter().collect();
        self
    }
}

/// What has been installed, so that a second plan adds what the first had not.
#[derive(Debug)]
pub(crate) struct Installed {
    exit: bool,
    /// By number: whether our handler has been set for that signal.
    signals: [bool; SIGNALS],
}

static INSTALLED: Mutex<Installed> = Mutex::new(Installed { exit: false, signals: [false; SIGNALS] });

/// Whether a panic purges: also where another hook of this crate has taken the place of ours.
static PANIC: AtomicBool = AtomicBool::new(false);

/// The action that stood before ours; null where that was the default. Read by the handler, so never freed.
static BEFORE: [AtomicPtr<libc::sigaction>; SIGNALS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SIGNALS];

/// Linux numbers its signals from 1 to 64.
pub(crate) const SIGNALS: usize = 65;

/// Installs the purge at the endings of `plan`; what an earlier plan installed stays.
///
/// - Panic: a hook that purges, then calls the hook before it. Cooperative where panics unwind, else forced. A filter of the
///   message (feature `redact`) has it before that. A hook that the application sets later without calling this one takes its place; [`install`] once more puts ours first again.
/// - Exit: a forced purge by atexit(3).
/// - Signals: a handler that purges by force, then does what was to be done before: the application's handler is
///   called; the default action ends the process, so that its exit status stays true. Ignored signals stay
///   ignored. The handler runs on the alternate stack where the thread has one, but where the application's did not ask
///   for it. A handler that the application installs later replaces this one; it may call this one, which sigaction(2)
///   gave it as the old action.
///
/// Where an application's handler returns into an access that it interrupted, that access goes on over bytes that have
/// changed under its reference. Plan such a signal only where no access can be running, or not at all.
///
/// # Errors
///
/// [`Error::Signal`] for a signal that does not end a process or that no handler can catch, and [`Error::Install`] if
/// this thread is panicking, when no hook can be set: nothing was installed then. [`Error::Install`] if a call is refused,
/// [`Error::Covered`] where the application has put a handler over ours; what was installed before that stays.
pub fn install(plan: &Plan) -> Result<(), Error> {
    if plan.panic && std::thread::panicking() {
        let source = io::Error::from(io::ErrorKind::ResourceBusy);
        return Err(Error::Install { call: "std::panic::set_hook", signal: None, source });
    }
    if let Some(&signal) = plan.signals.iter().find(|&&signal| !ends_a_process(signal)) {
        return Err(Error::Signal { signal });
    }
    let mut installed = actions();
    if plan.exit && !installed.exit && !cfg!(secmem_ablate = "purge-on-exit") {
        let refused = |source| Error::Install { call: Call::AtExit.name(), signal: None, source };
        sys::at_exit(on_exit).map_err(refused)?;
        installed.exit = true;
    }
    if !cfg!(secmem_ablate = "purge-on-signal") {
        for &signal in &plan.signals {
            handle(signal, place_of(signal, &mut installed.signals))?;
        }
    }
    if plan.panic && !cfg!(secmem_ablate = "purge-on-panic") {
        // Each time: nobody can tell whether another hook has taken the place of ours, and a second purge does no harm.
        let before = std::panic::take_hook();
        PANIC.store(true, Ordering::Release);
        std::panic::set_hook(Box::new(move |info| {
            // A filter of the message is to have it while it still knows what to filter.
            #[cfg(all(feature = "redact", target_arch = "x86_64"))]
            crate::redact::prepare(info);
            on_panic();
            before(info);
            #[cfg(all(feature = "redact", target_arch = "x86_64"))]
            crate::redact::forget();
        }));
    }
    Ok(())
}

/// Ends every secret: each later access is [`Error::Purged`]. Unused ones are wiped on return, used ones when the access
/// ends. Code on a protected stack goes on. Does nothing in a forked child, which has no secrets. Not for signal handlers: it waits for whoever opens or closes a
/// [`Sealed`](crate::Sealed) secret just then, who may be the one that the signal interrupted.
pub fn purge_all() {
    arena::purge();
}

/// Ends every secret as [`purge_all`] does, then replaces this process by `command`; returns only if that fails.
///
/// execve(2) gives the pages of the old program back without wiping them, and ends its other threads wherever they are.
/// So it is not called while an access, or code on a protected stack (`scrub`), runs in any thread: the error is then
/// [`io::ErrorKind::ResourceBusy`], every secret has ended, and the call can be made again when those are over. Within one it
/// always fails. What other threads make, or begin to run, after the purge is not wiped.
pub fn exec(command: &mut Command) -> io::Error {
    arena::purge();
    if arena::in_use() || arena::register::in_use() {
        let why = "a secret or a protected stack is being used, and is wiped when that ends, or its memory did not open to be wiped";
        return io::Error::new(io::ErrorKind::ResourceBusy, why);
    }
    command.exec()
}

/// Purges if a plan says that a panic does.
#[cfg(all(feature = "redact", target_arch = "x86_64"))]
pub(crate) fn as_planned() {
    if PANIC.load(Ordering::Acquire) {
        on_panic();
    }
}

fn on_panic() {
    if cfg!(panic = "unwind") {
        arena::purge(); // the panicking access itself ends by unwinding
    } else {
        arena::purge_forced();
    }
}

extern "C" fn on_exit() {
    arena::purge_forced();
}

/// Whether the default action of `signal` ends the process and a handler can come first: signal(7).
pub(crate) fn ends_a_process(signal: c_int) -> bool {
    match signal {
        libc::SIGKILL | libc::SIGSTOP => false,
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => false,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => false,
        _ => (1..=31).contains(&signal) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal),
    }
}

/// Keeps others of this crate from changing what signals do, until it is dropped: each looks at an action, and sets another.
pub(crate) fn actions() -> MutexGuard<'static, Installed> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts our handler before what stands there, once: `done` says whether that was.
fn handle(signal: c_int, done: &mut bool) -> Result<(), Error> {
    let refused = |source| Error::Install { call: Call::Action.name(), signal: Some(signal), source };
    // Where a question is being asked, what stood before the question's handler.
    let before = crate::input::behind(sys::action(signal).map_err(refused)?, signal);
    let ours = on_signal as *const () as libc::sighandler_t;
    if before.sa_sigaction == ours || before.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    if *done && before.sa_sigaction != libc::SIG_DFL {
        // It may call ours. Set again over it, ours would call it, and the two each other for ever.
        return Err(Error::Covered { signal });
    }
    let mut action = sys::default_action();
    action.sa_sigaction = ours;
    action.sa_flags = libc::SA_SIGINFO;
    if before.sa_sigaction == libc::SIG_DFL {
        action.sa_flags |= libc::SA_ONSTACK;
        action.sa_mask = sys::terminal::all_signals(); // see `purge_with_room`
        // An earlier plan may have found a handler here that the application has taken away since.
        before_of(signal).store(std::ptr::null_mut(), Ordering::Release);
    } else {
        // The application's handler expects its own mask, its own way with interrupted calls, and the stack that it was
        // written for: an alternate one may be small.
        action.sa_mask = before.sa_mask;
        action.sa_flags |= before.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER | libc::SA_ONSTACK);
        before_of(signal).store(Box::into_raw(Box::new(before)), Ordering::Release);
    }
    // SAFETY: the handler takes three arguments, as SA_SIGINFO says, is a function of this program, and does nothing but
    // atomic operations, stores in place, a look at what the processor can (cpuid, kept in an atomic), calls that
    // signal-safety(7) lists, mprotect (a bare system call), and what the application's own handler does.
    unsafe { sys::set_action(signal, &action) }.map_err(refused)?;
    *done = true;
    Ok(())
}

fn place_of(signal: c_int, signals: &mut [bool; SIGNALS]) -> &mut bool {
    let at = usize::try_from(signal).ok().filter(|&at| at < SIGNALS).unwrap_or(0); // 0 is no signal
    &mut signals[at]
}

fn before_of(signal: c_int) -> &'static AtomicPtr<libc::sigaction> {
    // 0 is no signal; its place stays null.
    BEFORE.get(usize::try_from(signal).unwrap_or(0)).unwrap_or(&BEFORE[0])
}

/// Purges, then lets happen what would have happened. Async-signal-safe.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = sys::errno();
    let before = before_of(signal).load(Ordering::Acquire);
    if before.is_null() {
        purge_with_room();
    } else {
        purge_now();
    }
    // SAFETY: null, or a structure that `handle` has leaked for this handler to read.
    match unsafe { before.as_ref() } {
        Some(before) => {
            if before.sa_flags & libc::SA_RESETHAND != 0 {
                before_of(signal).store(std::ptr::null_mut(), Ordering::Release); // it asked to be called once
            }
            sys::set_errno(errno);
            call(before, signal, info, context);
        }
        None => end_by(signal),
    }
    sys::set_errno(errno);
}

extern "C" fn purge_now() {
    arena::purge_forced();
    crate::input::restore_terminal(); // this handler may have been put over the one that would
}

/// Bytes for [`purge_now`] without optimisation, and many times more than it needs with it.
#[cfg(target_arch = "x86_64")]
const ROOM: usize = 32 << 10;

/// A stack that is one handler's at a time.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Room(std::cell::UnsafeCell<[u8; ROOM]>);

// SAFETY: nobody refers to its bytes but the one handler that runs on it, which `TAKEN` sees to.
#[cfg(target_arch = "x86_64")]
unsafe impl Sync for Room {}

#[cfg(target_arch = "x86_64")]
static PLACE: Room = Room(std::cell::UnsafeCell::new([0; ROOM]));
#[cfg(target_arch = "x86_64")]
static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// [`purge_now`] on a stack of its own. That of an alternate one may be nearly used up: the standard library gives threads 8 KiB, of which
/// each signal's frame takes more than 3 where there is AVX-512, and a stack that overflows is two signals, one within the other.
///
/// With all signals blocked: one whose handler asks for the alternate stack would get it from its beginning, for this thread does not
/// look as if it were on it.
#[cfg(target_arch = "x86_64")]
fn purge_with_room() {
    if TAKEN.swap(true, Ordering::Acquire) {
        return purge_now(); // another thread is ending the process, too
    }
    let top = PLACE.0.get().cast::<u8>().wrapping_add(ROOM);
    // SAFETY: the place is this handler's alone, aligned and writable; the function returns, and does not unwind.
    unsafe { call_on(top, purge_now) };
    TAKEN.store(false, Ordering::Release);
}

#[cfg(not(target_arch = "x86_64"))]
fn purge_with_room() {
    purge_now();
}

/// Calls `function` on the stack below `top`.
///
/// # Safety
///
/// The stack is writable, aligned to 16 bytes at its top, and nobody else's; `function` returns, and does not unwind out of itself.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call_on(top: *mut u8, function: extern "C" fn()) {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdi",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Calls the application's handler the way it was to be called.
pub(crate) fn call(before: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let handler = before.sa_sigaction as *const ();
    if before.sa_flags & libc::SA_SIGINFO != 0 {
        type Long = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: the application installed this address for three arguments; it is neither SIG_DFL nor SIG_IGN.
        let handler = unsafe { std::mem::transmute::<*const (), Long>(handler) };
        handler(signal, info, context);
    } else {
        type Short = extern "C" fn(c_int);
        // SAFETY: the application installed this address for one argument; it is neither SIG_DFL nor SIG_IGN.
        let handler = unsafe { std::mem::transmute::<*const (), Short>(handler) };
        handler(signal);
    }
}

/// Takes the default action for `signal`: it is blocked while its handler runs, and ends the process when that returns.
pub(crate) fn end_by(signal: c_int) {
    // SAFETY: the default action is no handler.
    let reset = unsafe { sys::set_action(signal, &sys::default_action()) };
    if reset.and_then(|()| sys::raise(signal)).is_err() {
        sys::exit_now(128 + signal); // as a shell would report the signal; going on is not an option
    }
}
