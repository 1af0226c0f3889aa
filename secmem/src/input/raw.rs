//! A terminal that shows nothing of what is typed, for as long as a question is asked.
//!
//! It is put back when the question ends, in whatever way, and before any signal ends or stops the process. While it lasts there are
//! handlers for those signals: each puts the terminal back and then lets happen what would have happened. After a stop, and
//! after a handler of the application that returns, the terminal hides again what is typed.
//!
//! A signal can come in any thread. What a handler needs stands behind one pointer; who takes that away waits until no handler
//! uses it any more.
#![allow(unsafe_code)] // signal handlers

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, ptr};

use super::InputError;
use crate::arena;
use crate::purge::{self, SIGNALS};
use crate::sys::terminal::{self, Keys, Modes};
use crate::sys::{self, Call};

/// The signals that end a process by default, but for those that cannot be caught, and the one of job control that the keyboard
/// sends. SIGTTIN and SIGTTOU come to processes that do not have the terminal.
fn watched() -> impl Iterator<Item = c_int> {
    (1..=libc::SIGRTMAX()).filter(|&signal| purge::ends_a_process(signal)).chain([libc::SIGTSTP])
}

/// Those after whose handler a question is given up, even if it returns: somebody wants the process to end, or it is about to, for
/// a handler of a fault returns to the fault. Programs use the others for their own ends: timers, children, descriptors.
const ENDING: [c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGXFSZ,
];

/// One question at a time: there is one keyboard.
static ASKING: Mutex<()> = Mutex::new(());

/// The terminal of the question that is being asked; null if there is none.
static CURRENT: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());

/// Handlers that use it just now.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// What stood before our handler, by number. Read by the handler, so never freed; a place is used again while it is the same.
static BEFORE: [AtomicPtr<libc::sigaction>; SIGNALS] = [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS];

/// What handlers and the question both use.
struct Shared {
    terminal: RawFd,
    before: Modes,
    unseen: Modes,
    wake: OwnedFd,
    /// Something has been written over the question.
    redraw: AtomicBool,
    /// A handler of the application has returned, for a signal that was to end the process.
    ended: AtomicBool,
}

/// A terminal that hides what is typed, until this is dropped.
pub(super) struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    shared: Box<Shared>,
    woken: OwnedFd,
    watched: Vec<c_int>,
    _one: MutexGuard<'static, ()>,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something was typed.
    Typed,
    /// The question is to be written again.
    Redraw,
    /// It is to be given up.
    Ended,
}

impl<'a> Raw<'a> {
    /// Hides what is typed from here on.
    pub(super) fn new(terminal: BorrowedFd<'a>) -> Result<Self, InputError> {
        let one = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = terminal::modes(terminal.as_raw_fd()).map_err(refused(Call::GetModes))?;
        let unseen = before.unseen();
        let (woken, wake) = terminal::pipe().map_err(refused(Call::Pipe))?;
        let (redraw, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Box::new(Shared { terminal: terminal.as_raw_fd(), before, unseen, wake, redraw, ended });
        // From here on, whatever goes wrong, the drop puts back what there is to put back.
        let mut raw = Self { terminal, shared, woken, watched: Vec::new(), _one: one };
        CURRENT.store(ptr::from_ref(&*raw.shared).cast_mut(), Ordering::SeqCst);
        {
            let _actions = purge::actions();
            for signal in watched().chain([libc::SIGCONT]) {
                if watch(signal).map_err(refused(Call::Action))? {
                    raw.watched.push(signal);
                }
            }
        }
        raw.hide()?;
        Ok(raw)
    }

    /// The keys that the user has set.
    pub(super) fn keys(&self) -> Keys {
        self.shared.before.keys()
    }

    /// Waits until there is something to do.
    pub(super) fn wait(&self) -> Result<Event, InputError> {
        loop {
            let ready = match terminal::wait_readable([self.terminal, self.woken.as_fd()]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => [false, true],
                other => other.map_err(refused(Call::Poll))?,
            };
            if ready[1] {
                while sys::read(self.woken.as_fd(), &mut [0; 16]).is_ok_and(|got| got > 0) {}
                if self.shared.ended.load(Ordering::SeqCst) {
                    return Ok(Event::Ended);
                }
                if self.shared.redraw.swap(false, Ordering::SeqCst) {
                    self.hide()?; // the handler may have come back in the background
                    return Ok(Event::Redraw);
                }
            } else if ready[0] {
                return Ok(Event::Typed);
            }
        }
    }

    /// Sets the modes, and sees that they are set: tcsetattr(3) succeeds if it has changed anything.
    fn hide(&self) -> Result<(), InputError> {
        terminal::set_modes(self.shared.terminal, &self.shared.unseen).map_err(refused(Call::SetModes))?;
        let now = terminal::modes(self.shared.terminal).map_err(refused(Call::GetModes))?;
        if now.shows() { Err(InputError::Echo) } else { Ok(()) }
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        self.shared.discard();
        self.shared.restore();
        let actions = purge::actions();
        for signal in self.watched.drain(..) {
            unwatch(signal);
        }
        drop(actions);
        CURRENT.store(ptr::null_mut(), Ordering::SeqCst);
        while INSIDE.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now(); // a handler in another thread has still to put the terminal back
        }
        // One that came between may have hidden again what is typed: it did not know that the question was over.
        self.shared.restore();
    }
}

impl Shared {
    /// Throws away what was typed and not read, so that it does not reach who reads next. Async-signal-safe.
    fn discard(&self) {
        let _ = terminal::discard_input(self.terminal); // what a terminal that is gone says, nobody can act on
    }

    /// Puts the modes back. Async-signal-safe.
    fn restore(&self) {
        if !cfg!(secmem_ablate = "terminal-restore") {
            let _ = terminal::set_modes(self.terminal, &self.before); // as above
        }
    }

    /// Hides again what is typed, if the terminal is ours to say so, and wakes the question. Async-signal-safe.
    fn again(&self, redraw: bool) {
        if terminal::in_foreground(self.terminal) {
            let _ = terminal::set_modes(self.terminal, &self.unseen); // the question sees whether it is
        }
        self.redraw.fetch_or(redraw, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        let _ = terminal::write(self.wake.as_raw_fd(), &[0]); // a full pipe wakes as well
    }
}

fn refused(call: Call) -> impl FnOnce(io::Error) -> InputError {
    move |source| InputError::Terminal { call: call.name(), source }
}

/// Puts our handler before what stands there; says whether it did. What is ignored stays ignored.
fn watch(signal: c_int) -> io::Result<bool> {
    let before = sys::action(signal)?;
    if before.sa_sigaction == libc::SIG_IGN || before.sa_sigaction == ours() {
        return Ok(false);
    }
    let mut action = sys::default_action();
    action.sa_sigaction = ours();
    // The application's handler runs on the stack that it was written for: an alternate one may be small.
    action.sa_flags = libc::SA_SIGINFO
        | match before.sa_sigaction {
            libc::SIG_DFL => libc::SA_ONSTACK,
            _ => before.sa_flags & (libc::SA_RESTART | libc::SA_ONSTACK),
        };
    action.sa_mask = terminal::all_signals(); // SIGTTOU too, so that a process in the background can put its terminal back
    let place = before_of(signal);
    // SAFETY: null, or a structure that was leaked here for the handler to read.
    let kept = unsafe { place.load(Ordering::Acquire).as_ref() };
    if kept.is_none_or(|kept| kept.sa_sigaction != before.sa_sigaction || kept.sa_flags != before.sa_flags) {
        place.store(Box::into_raw(Box::new(before)), Ordering::Release);
    }
    // SAFETY: the handler takes three arguments, as SA_SIGINFO says, is a function of this program, and does nothing but atomic
    // operations, calls that signal-safety(7) lists, and what the application's own handler does.
    unsafe { sys::set_action(signal, &action) }?;
    Ok(true)
}

/// Puts back what stood there, unless the application has set something else meanwhile.
fn unwatch(signal: c_int) {
    // SAFETY: null, or a structure that was leaked for the handler to read.
    let before = unsafe { before_of(signal).load(Ordering::Acquire).as_ref() };
    if let Some(before) = before
        && sys::action(signal).is_ok_and(|now| now.sa_sigaction == ours())
    {
        // SAFETY: the application's own action, as it stood there. That it could be read says that it can be set.
        let _ = unsafe { sys::set_action(signal, before) };
    }
}

fn ours() -> libc::sighandler_t {
    on_signal as *const () as libc::sighandler_t
}

fn before_of(signal: c_int) -> &'static AtomicPtr<libc::sigaction> {
    // 0 is no signal; its place stays null.
    BEFORE.get(usize::try_from(signal).unwrap_or(0)).unwrap_or(&BEFORE[0])
}

/// What stands behind our handler, if `action` is that; else `action` itself.
pub(crate) fn behind(action: libc::sigaction, signal: c_int) -> libc::sigaction {
    if action.sa_sigaction != ours() {
        return action;
    }
    // SAFETY: null, or a structure that was leaked for the handler to read.
    unsafe { before_of(signal).load(Ordering::Acquire).as_ref() }.copied().unwrap_or_else(sys::default_action)
}

/// Puts the terminal of the question back, if one is being asked. Async-signal-safe.
pub(crate) fn restore_terminal() {
    with_current(Shared::restore);
}

/// Lets `f` use the terminal of the question, if one is being asked. Async-signal-safe.
fn with_current(f: impl FnOnce(&Shared)) {
    if arena::in_child() {
        return; // the question is our parent's
    }
    INSIDE.fetch_add(1, Ordering::SeqCst);
    // SAFETY: null, or what a question has put there. That stays until the question has taken the pointer away and has seen
    // nobody inside: whoever came in before that is counted, whoever comes later finds null.
    let current = unsafe { CURRENT.load(Ordering::SeqCst).as_ref() };
    if let Some(shared) = current {
        f(shared);
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

thread_local! {
    /// The signals for which our handler runs in this thread, a bit each. Neither made nor dropped by any code, so that a handler
    /// may use it.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
}

/// Our handler runs for a signal, in this thread.
///
/// A handler that was set over ours while one question was asked, and calls ours, stands behind ours at the next question: the two
/// would call each other until the stack is used up.
struct Running(u64);

impl Running {
    /// `None`: it runs already.
    fn begin(signal: c_int) -> Option<Self> {
        let bit = 1 << ((signal - 1) as u32 % u64::BITS);
        RUNNING.try_with(|running| running.replace(running.get() | bit) & bit == 0).unwrap_or(true).then_some(Self(bit))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = RUNNING.try_with(|running| running.set(running.get() & !self.0)); // as above: always there
    }
}

/// Puts the terminal back, lets happen what would have happened, and goes on asking if that came back. Async-signal-safe.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = sys::errno();
    let _running = match Running::begin(signal) {
        Some(running) => running,
        None => return purge::end_by(signal), // whoever we called calls us
    };
    // SAFETY: null, or a structure that was leaked for this handler to read.
    let before = unsafe { before_of(signal).load(Ordering::Acquire).as_ref() };
    let handled = before.is_some_and(|before| before.sa_sigaction != libc::SIG_DFL);
    let passing = handled && !ENDING.contains(&signal); // what was typed is wanted still
    if signal != libc::SIGCONT {
        with_current(|shared| {
            if !passing {
                shared.discard();
            }
            shared.restore();
        });
    }
    match before {
        Some(before) if handled => {
            sys::set_errno(errno);
            purge::call(before, signal, info, context);
            with_current(|shared| {
                if passing {
                    shared.again([libc::SIGTSTP, libc::SIGCONT].contains(&signal));
                } else if !ends(signal, info) {
                    shared.ended.store(true, Ordering::SeqCst);
                    shared.wake();
                }
            });
        }
        _ if signal == libc::SIGCONT => with_current(|shared| shared.again(true)),
        _ if signal == libc::SIGTSTP => {
            stop();
            with_current(|shared| shared.again(true));
        }
        _ => purge::end_by(signal), // by the default action, when this returns
    }
    sys::set_errno(errno);
}

/// Whether the process ends as soon as our handler returns: by the signal itself, which the handler that we called has sent again
/// with the default action set, or by the fault, which happens anew. A question that went on meanwhile would end the process
/// another way, and take from under this thread the stack on which it handles the signal. Async-signal-safe.
fn ends(signal: c_int, info: *const libc::siginfo_t) -> bool {
    const FAULTS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    let by_default = sys::action(signal).is_ok_and(|now| now.sa_sigaction == libc::SIG_DFL);
    // SAFETY: what the kernel gave the handler, or null where a handler of the application's called ours with less.
    let fault = || FAULTS.contains(&signal) && unsafe { info.as_ref() }.is_some_and(|info| info.si_code > 0);
    by_default && (terminal::is_pending(signal) || fault())
}

/// Stops the process as the key does that stops it, until somebody lets it go on. A process that nobody could let go on is not
/// stopped: the kernel sees to that.
fn stop() {
    let Ok(ours) = sys::action(libc::SIGTSTP) else { return };
    // SAFETY: the default action is no handler.
    let reset = unsafe { sys::set_action(libc::SIGTSTP, &sys::default_action()) };
    if reset.and_then(|()| sys::raise(libc::SIGTSTP)).is_ok()
        && let Ok(mask) = terminal::unblock(libc::SIGTSTP)
    {
        let _ = sys::set_mask(&mask); // as it was: the kernel knows the set
    }
    // SAFETY: what stood there a moment ago.
    let _ = unsafe { sys::set_action(libc::SIGTSTP, &ours) };
}
