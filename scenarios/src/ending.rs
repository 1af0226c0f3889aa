#![allow(unsafe_code)] // kill, fork, _exit, faults, looks at an arena by address and behind its end
//! How a process can end while it holds a secret, or after.
//!
//! An ending runs twice: `during`, while the secret is held, and `after`, once its holder is gone. Most never get
//! that far. A new ending is one [`Ending`] here and its rows in the catalogue.
//!
//! Times are those of the monotonic clock.

use std::arch::asm;
use std::hint::black_box;
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{self, Command};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use scenario_protocol::Checkpoint::{
    self, BeforeExec, Child, Core, Exec, Exit, ExitCall, Planted, Signal, Timeout, Unwound, Wiped,
};
use scenario_protocol::Ends;
use scenario_stage::{Control, Failure};

use crate::holder::Held;

/// The verb of the image that an `exec` row ends as.
pub(crate) const AFTER_EXEC: &str = "after-exec";

/// The verb of the image that a `spawn` row starts.
pub(crate) const AFTER_SPAWN: &str = "after-spawn";

/// Exit status of a Rust program whose main thread panicked.
pub(crate) const PANICKED: i32 = 101;

/// How long a secret lives in the `timeout` rows. Long against the time in which the harness, on a loaded machine, answers
/// the announcement of `planted`, where the secret must still stand.
const LIFETIME: Duration = Duration::from_secs(4);

/// How long holders wait that know no deadline: nothing depends on it.
const PAUSE: Duration = Duration::from_secs(1);

/// How long after its deadline a secret is looked at, whether it is gone by then or not: long against a late wake-up on
/// a loaded machine. As soon as it is gone, there is nothing to wait for.
const GRACE: Duration = Duration::from_secs(3);

/// A way to end.
pub(crate) struct Ending {
    /// The second half of a row's name.
    pub(crate) name: &'static str,
    /// The status that wait(2) must report.
    pub(crate) ends: Ends,
    /// All that is looked at, in order.
    pub(crate) checkpoints: &'static [Checkpoint],
    /// What the secret is given to live, by holders that know deadlines.
    pub(crate) expires_in: Option<Duration>,
    /// Whether holders that know purges install one, and for which signals besides those of the default plan: none where
    /// something else has to wipe.
    pub(crate) purges: Option<&'static [i32]>,
    /// What happens while the secret is held.
    pub(crate) during: fn(&mut Held<'_>, Control) -> Result<(), Failure>,
    /// What is announced once the holder is gone.
    pub(crate) after: Option<Checkpoint>,
    /// Ablations, besides that of the wipe itself, without which one of our holders leaks at this ending.
    pub(crate) turned_by: &'static [&'static str],
    /// Requirements that a clean row of one of our holders speaks for.
    pub(crate) shows: &'static [&'static str],
}

/// The commonest end: `main` returns, and nothing is announced on the way.
const ORDINARY: Ending = Ending {
    name: "return",
    ends: Ends::Exit(0),
    checkpoints: &[Planted, ExitCall, Exit],
    expires_in: None,
    purges: Some(&[]),
    during: |_, _| Ok(()),
    after: None,
    turned_by: &[],
    shows: &["S11", "S16"],
};

pub(crate) static RETURN: Ending = ORDINARY;

pub(crate) static WIPE: Ending = Ending {
    name: "wipe",
    checkpoints: &[Planted, Wiped, ExitCall, Exit],
    after: Some(Wiped),
    shows: &["S8", "S11"],
    ..ORDINARY
};

pub(crate) static TIMEOUT: Ending = Ending {
    name: "timeout",
    checkpoints: &[Planted, Timeout, ExitCall, Exit],
    expires_in: Some(LIFETIME),
    during: |held, control| {
        outlast_deadline(held)?;
        control.announce(Timeout)
    },
    turned_by: &["deadline"],
    shows: &["S19"],
    ..ORDINARY
};

pub(crate) static PANIC_UNWIND: Ending = Ending {
    name: "panic-unwind",
    ends: Ends::Exit(PANICKED),
    checkpoints: &[Planted, Unwound, ExitCall, Exit],
    during: |_, _| panic!("the ending of this row"),
    after: Some(Unwound),
    shows: &["S16"],
    ..ORDINARY
};

/// Another thread panics and is joined; the secret is still held, so no unwinding reaches it.
pub(crate) static PANIC_THREAD: Ending = Ending {
    name: "panic-thread",
    checkpoints: &[Planted, Unwound, ExitCall, Exit],
    during: |held, control| {
        if thread::spawn(|| panic!("the ending of this row")).join().is_ok() {
            return Err(io::Error::other("it returned")).map_err(Failure::while_doing("letting a thread panic"));
        }
        control.announce(Unwound)?;
        black_box(held);
        Ok(())
    },
    turned_by: &["purge-on-panic"],
    shows: &["S16"],
    ..ORDINARY
};

pub(crate) static PANIC_ABORT: Ending = Ending {
    name: "panic-abort",
    during: |_, _| {
        panic_that_cannot_unwind();
        Ok(())
    },
    turned_by: &[], // the panic hook has purged before SIGABRT is raised
    ..killed("panic-abort", libc::SIGABRT, CORE_DUMPED)
};

pub(crate) static EXIT: Ending = Ending {
    name: "exit",
    during: |_, _| process::exit(0),
    turned_by: &["purge-on-exit"],
    shows: &["S16"],
    ..ORDINARY
};

pub(crate) static UNDERSCORE_EXIT: Ending =
    Ending { name: "_exit", during: |_, _| quit(0), shows: &["S4"], ..ORDINARY };

pub(crate) static ABORT: Ending =
    Ending { during: |_, _| process::abort(), ..killed("abort", libc::SIGABRT, CORE_DUMPED) };

pub(crate) static SIGINT: Ending = by_own_signal::<{ libc::SIGINT }>("sigint", CAUGHT);
pub(crate) static SIGTERM: Ending = by_own_signal::<{ libc::SIGTERM }>("sigterm", CAUGHT);
pub(crate) static SIGHUP: Ending = by_own_signal::<{ libc::SIGHUP }>("sighup", CAUGHT);
pub(crate) static SIGQUIT: Ending = by_own_signal::<{ libc::SIGQUIT }>("sigquit", CORE_DUMPED);
pub(crate) static SIGABRT: Ending = by_own_signal::<{ libc::SIGABRT }>("sigabrt", CORE_DUMPED);

pub(crate) static SIGKILL: Ending = Ending {
    turned_by: &[],
    shows: &["S4"],
    // No signal stop: a SIGKILL is not delivered to a tracer first.
    ..by_own_signal::<{ libc::SIGKILL }>("sigkill", &[Planted, Exit])
};

pub(crate) static FORK: Ending = Ending {
    name: "fork",
    checkpoints: &[Planted, ExitCall, Exit, Child],
    during: |_, control| fork(control),
    shows: &["S14"],
    ..ORDINARY
};

pub(crate) static EXEC: Ending = Ending {
    name: "exec",
    checkpoints: &[Planted, BeforeExec, Exec, ExitCall, Exit],
    during: exec,
    shows: &["S14", "S16"],
    ..ORDINARY
};

/// Starts another program, as posix_spawn(3) does: a child that shares the parent's memory until it is that program. It
/// outlives the parent.
pub(crate) static SPAWN: Ending = Ending {
    name: "spawn",
    checkpoints: &[Planted, ExitCall, Exit, Child],
    during: |_, _| spawn(),
    shows: &["S14"],
    ..ORDINARY
};

/// A destructor panics while a panic unwinds.
pub(crate) static PANIC_DROP: Ending = Ending {
    during: |_, _| {
        let _dropped = PanicsInDrop;
        panic!("the ending of this row")
    },
    turned_by: &[], // as above: the hook comes before the signal
    ..killed("panic-drop", libc::SIGABRT, CORE_DUMPED)
};

/// The standard library notices, and aborts: on the stack that is left over for such signals.
pub(crate) static STACK_OVERFLOW: Ending =
    Ending { during: |held, _| overflow(held), ..killed("stack-overflow", libc::SIGABRT, CORE_DUMPED) };

pub(crate) static OVERRUN: Ending = Ending {
    during: |held, _| read_past_the_end(held),
    turned_by: &["guard-after"],
    shows: &["S6"],
    ..killed("overrun", libc::SIGSEGV, CORE_DUMPED)
};

/// Somebody writes past the secret while using it. Nothing dumps core then, so there is none to look at.
pub(crate) static DAMAGE: Ending =
    damaged("damage", |held, _| damage_in_use(held), &["canary-at-close", "damage-wipe"]);

/// Somebody writes past it between uses: found out when the holder ends it.
pub(crate) static DAMAGE_BETWEEN: Ending =
    damaged("damage-between", |held, _| damage_between(held), &["canary-at-free", "damage-wipe"]);

pub(crate) static SIGSEGV: Ending = by_fault("sigsegv", libc::SIGSEGV, read_null);
pub(crate) static SIGBUS: Ending = by_fault("sigbus", libc::SIGBUS, read_behind_a_files_end);
pub(crate) static SIGFPE: Ending = by_fault("sigfpe", libc::SIGFPE, divide_by_zero);
pub(crate) static SIGILL: Ending = by_fault("sigill", libc::SIGILL, run_no_instruction);

// The other signals that end a process, where the program's plan names them.
pub(crate) static SIGALRM: Ending = planned::<{ libc::SIGALRM }>("sigalrm", CAUGHT);
pub(crate) static SIGUSR1: Ending = planned::<{ libc::SIGUSR1 }>("sigusr1", CAUGHT);
pub(crate) static SIGUSR2: Ending = planned::<{ libc::SIGUSR2 }>("sigusr2", CAUGHT);
pub(crate) static SIGPIPE: Ending = planned::<{ libc::SIGPIPE }>("sigpipe", CAUGHT);
pub(crate) static SIGVTALRM: Ending = planned::<{ libc::SIGVTALRM }>("sigvtalrm", CAUGHT);
pub(crate) static SIGPROF: Ending = planned::<{ libc::SIGPROF }>("sigprof", CAUGHT);
pub(crate) static SIGIO: Ending = planned::<{ libc::SIGIO }>("sigio", CAUGHT);
pub(crate) static SIGPWR: Ending = planned::<{ libc::SIGPWR }>("sigpwr", CAUGHT);
pub(crate) static SIGSTKFLT: Ending = planned::<{ libc::SIGSTKFLT }>("sigstkflt", CAUGHT);
pub(crate) static SIGRTMIN: Ending = planned::<FIRST_REAL_TIME>("sigrtmin", CAUGHT);
pub(crate) static SIGXCPU: Ending = planned::<{ libc::SIGXCPU }>("sigxcpu", CORE_DUMPED);
pub(crate) static SIGXFSZ: Ending = planned::<{ libc::SIGXFSZ }>("sigxfsz", CORE_DUMPED);
pub(crate) static SIGSYS: Ending = planned::<{ libc::SIGSYS }>("sigsys", CORE_DUMPED);
pub(crate) static SIGSEGV_PLANNED: Ending = planned_fault::<{ libc::SIGSEGV }>("sigsegv-planned", read_null);
pub(crate) static SIGBUS_PLANNED: Ending = planned_fault::<{ libc::SIGBUS }>("sigbus-planned", read_behind_a_files_end);
pub(crate) static SIGFPE_PLANNED: Ending = planned_fault::<{ libc::SIGFPE }>("sigfpe-planned", divide_by_zero);
pub(crate) static SIGILL_PLANNED: Ending = planned_fault::<{ libc::SIGILL }>("sigill-planned", run_no_instruction);

/// SIGRTMIN as the C library has it: it keeps the kernel's first two for itself (signal(7)).
const FIRST_REAL_TIME: i32 = 34;

/// What is looked at when a signal that can be caught ends the process.
const CAUGHT: &[Checkpoint] = &[Planted, Signal, Exit];

/// The same for a signal whose action dumps core.
const CORE_DUMPED: &[Checkpoint] = &[Planted, Signal, Exit, Core];

const fn killed(name: &'static str, signal: i32, checkpoints: &'static [Checkpoint]) -> Ending {
    Ending {
        name,
        ends: Ends::Signal(signal),
        checkpoints,
        turned_by: &["purge-on-signal"],
        shows: &["S16"],
        ..ORDINARY
    }
}

/// Ends by a signal that the process sends itself.
const fn by_own_signal<const SIGNAL: i32>(name: &'static str, checkpoints: &'static [Checkpoint]) -> Ending {
    Ending { during: |_, _| send_to_myself(SIGNAL), ..killed(name, SIGNAL, checkpoints) }
}

/// The same, by a signal that is not of the default plan.
const fn planned<const SIGNAL: i32>(name: &'static str, checkpoints: &'static [Checkpoint]) -> Ending {
    Ending { purges: Some(&[SIGNAL]), ..by_own_signal::<SIGNAL>(name, checkpoints) }
}

/// Ends by a fault, which the program's plan names.
const fn planned_fault<const SIGNAL: i32>(
    name: &'static str,
    during: fn(&mut Held<'_>, Control) -> Result<(), Failure>,
) -> Ending {
    Ending { during, purges: Some(&[SIGNAL]), ..killed(name, SIGNAL, CORE_DUMPED) }
}

/// Ends by a signal that the processor raises for the process's own fault. The default plan of the purge leaves these
/// alone: whatever state the process is in then, its handlers would run in it.
const fn by_fault(
    name: &'static str,
    signal: i32,
    during: fn(&mut Held<'_>, Control) -> Result<(), Failure>,
) -> Ending {
    Ending { during, turned_by: &[], shows: &["S4"], ..killed(name, signal, CORE_DUMPED) }
}

/// Ends by the library's own hand, after it has overwritten every arena.
const fn damaged(
    name: &'static str,
    during: fn(&mut Held<'_>, Control) -> Result<(), Failure>,
    turned_by: &'static [&'static str],
) -> Ending {
    Ending { during, turned_by, purges: None, shows: &["S7"], ..killed(name, libc::SIGABRT, CAUGHT) }
}

/// The signals that rows end by and that a process can have inherited as ignored or blocked.
const CATCHABLE: [i32; 18] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE, // the standard library ignores it
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
    FIRST_REAL_TIME,
];

/// Sets the signals that rows end by to their default action, unblocked.
///
/// A shell starts background jobs with SIGINT ignored, nohup(1) does so with SIGHUP, and both pass through
/// `execve` (signal(7)): the row would wait for ever.
pub(crate) fn take_default_actions() -> Result<(), Failure> {
    for signal in CATCHABLE {
        // SAFETY: no handler is installed, only the default action; no other thread runs yet.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(last_error("taking the default action of a signal"));
        }
    }
    let mut none = std::mem::MaybeUninit::uninit();
    // SAFETY: `none` is memory for one signal set, which the call initialises.
    if unsafe { libc::sigemptyset(none.as_mut_ptr()) } != 0 {
        return Err(last_error("emptying a signal set"));
    }
    // SAFETY: `none` was initialised by sigemptyset just now; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) } != 0 {
        return Err(last_error("unblocking signals"));
    }
    Ok(())
}

/// A panic where no unwinding may pass: the runtime aborts.
extern "C" fn panic_that_cannot_unwind() {
    panic!("the ending of this row");
}

/// Waits until the deadline has passed and, where it is ours, until the bytes are gone or the grace is over.
///
/// The bytes are looked at by address: an access would notice by itself that the time has come, and end a secret that
/// nobody else has ended. The look goes byte by byte, so no register holds more than one.
fn outlast_deadline(held: &mut Held<'_>) -> Result<(), Failure> {
    let (start, len) = match held {
        Held::Secmem(secret) => secret
            .with(|bytes| (bytes.as_ptr(), bytes.len()))
            .map_err(Failure::while_doing("looking the secret up before its deadline"))?,
        Held::At(start, len) => (*start, *len),
        Held::Hidden => {
            thread::sleep(LIFETIME + GRACE);
            return Ok(());
        }
        _ => {
            thread::sleep(PAUSE); // nobody here knows deadlines
            return Ok(());
        }
    };
    thread::sleep(LIFETIME);
    let patience = Instant::now() + GRACE;
    // SAFETY: the slot stays mapped, that of a secret while it lives, which is borrowed here, and that of a buffer for ever, for
    // it is short and lies in a shared arena; volatile, for another thread wipes it.
    let gone = || (0..len).all(|at| unsafe { start.wrapping_add(at).read_volatile() } == 0);
    while !gone() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn send_to_myself(signal: i32) -> Result<(), Failure> {
    // SAFETY: kill(2) touches no memory; the target is this process.
    if unsafe { libc::kill(process::id().cast_signed(), signal) } != 0 {
        return Err(last_error("sending the signal"));
    }
    loop {
        thread::park(); // the signal may take a moment, on whichever thread it lands
    }
}

/// Ends without running anything: no destructor, no exit handler.
fn quit(status: i32) -> ! {
    // SAFETY: _exit(2) touches no memory and does not return.
    unsafe { libc::_exit(status) }
}

/// The parent goes on and ends; the child outlives it and says so.
fn fork(control: Control) -> Result<(), Failure> {
    let parent = process::id();
    // SAFETY: the child calls nothing that needs another thread's locks: it sleeps, uses a descriptor, and
    // leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(last_error("forking")),
        0 => outlive(parent, control),
        _child => Ok(()),
    }
}

/// Waits until the parent has ended, which is when the child gets another one.
fn outlive(parent: u32, control: Control) -> ! {
    while parent_id() == parent {
        thread::sleep(Duration::from_millis(1));
    }
    quit(if control.announce(Child).is_ok() { 0 } else { i32::from(crate::EX_SOFTWARE) })
}

/// The child runs another program from its first instruction in a stack of its own on; the parent goes on and ends.
fn spawn() -> Result<(), Failure> {
    let mut child = Command::new("/proc/self/exe");
    child.args([AFTER_SPAWN, &process::id().to_string()]);
    // Nobody waits for it: it waits for us.
    child.spawn().map(drop).map_err(Failure::while_doing("starting another program"))
}

/// The program that a `spawn` row starts.
pub(crate) fn after_spawn(parent: &str, control: Control) -> Result<(), Failure> {
    let doing = Failure::while_doing("reading who started this program");
    let parent: u32 = parent.parse().map_err(doing)?;
    outlive(parent, control)
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("the end of this row")
    }
}

/// Calls itself until the stack is used up, in a thread whose stack is small, while this one waits.
fn overflow(held: &mut Held<'_>) -> Result<(), Failure> {
    #[expect(unconditional_recursion, reason = "the overflow itself")]
    fn deeper(above: &[u8]) -> u8 {
        let here = black_box([above[0]; 512]);
        deeper(&here) ^ here[1]
    }
    let small = thread::Builder::new().stack_size(64 << 10);
    let thread = small.spawn(|| black_box(deeper(&[1]))).map_err(Failure::while_doing("starting a thread"))?;
    let ended = thread.join().is_ok();
    black_box((held, ended));
    survived()
}

/// Becomes another image, by way of secmem's purge where a secret of ours is held.
fn exec(held: &mut Held<'_>, control: Control) -> Result<(), Failure> {
    let mut next = Command::new("/proc/self/exe");
    next.arg(AFTER_EXEC);
    // SAFETY: `exec` runs the hook in this process, without a fork, so it may do what any code may. std runs it
    // right before `execve`, when secmem's purge is over: the announcement means what it says.
    unsafe { next.pre_exec(move || control.announce(BeforeExec).map_err(io::Error::other)) };
    let error = match held {
        Held::Secmem(_) | Held::At(..) | Held::Hidden | Held::Kept => secmem::purge::exec(&mut next),
        Held::Bytes(_) | Held::Block => next.exec(),
    };
    black_box(held);
    Err(error).map_err(Failure::while_doing("becoming another image"))
}

/// Reads the first byte behind the arena. SIGSEGV is not among the signals that purge, so the secret is wiped
/// first: the row speaks for the guard alone.
fn read_past_the_end(held: &mut Held<'_>) -> Result<(), Failure> {
    let Held::Secmem(secret) = held else {
        return Err(io::Error::from(io::ErrorKind::Unsupported)).map_err(Failure::while_doing("finding a guard page"));
    };
    secret.wipe().map_err(Failure::while_doing("wiping the secret"))?;
    let guard = secmem::probe::arena_end(secret);
    // SAFETY: none: this is the overrun itself. With the guard in place it faults, which ends the row; without
    // it (the ablated build) the page is mapped and readable, and the byte is nobody's.
    black_box(unsafe { guard.read_volatile() });
    Ok(())
}

/// Writes the byte behind the secret, and ends the access.
fn damage_in_use(held: &mut Held<'_>) -> Result<(), Failure> {
    let Held::Secmem(secret) = held else { return no_canary() };
    let used = secret.with_mut(|bytes| {
        let past = bytes.as_mut_ptr_range().end;
        flip(past);
    });
    used.map_err(Failure::while_doing("writing past a secret"))?;
    process::exit(0) // nothing has noticed
}

/// Writes the byte behind the secret while nobody uses it.
fn damage_between(held: &mut Held<'_>) -> Result<(), Failure> {
    let Held::Secmem(secret) = held else { return no_canary() };
    let past = secret.with_mut(|bytes| bytes.as_mut_ptr_range().end);
    let past = past.map_err(Failure::while_doing("finding the end of a secret"))?;
    flip(past);
    Ok(())
}

/// Changes the byte behind a secret.
fn flip(past: *mut u8) {
    // SAFETY: the byte lies in the slot, which is mapped, and is no part of the secret.
    let byte = unsafe { past.read_volatile() };
    // SAFETY: none: this is the damage itself.
    unsafe { past.write_volatile(!byte) };
}

fn no_canary() -> Result<(), Failure> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
        .map_err(Failure::while_doing("finding what stands beside a secret"))
}

fn read_null(_: &mut Held<'_>, _: Control) -> Result<(), Failure> {
    // SAFETY: none: this is the fault itself. Nothing is ever mapped at zero (vm.mmap_min_addr), so the load ends the row.
    unsafe { asm!("mov al, byte ptr [{null}]", null = in(reg) 0_u64, out("al") _, options(nostack, readonly)) };
    survived()
}

/// Maps a page of a file that has no bytes: there is nothing behind the mapping that could be read.
fn read_behind_a_files_end(_: &mut Held<'_>, _: Control) -> Result<(), Failure> {
    // SAFETY: the name is a C string; the call touches no other memory.
    let file = unsafe { libc::memfd_create(c"empty".as_ptr(), libc::MFD_CLOEXEC) };
    if file < 0 {
        return Err(last_error("making an empty file"));
    }
    // SAFETY: a new mapping at a place that the kernel chooses lies over no other.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file, 0) };
    if page == libc::MAP_FAILED {
        return Err(last_error("mapping an empty file"));
    }
    // SAFETY: none: this is the fault itself. The address is mapped and no byte of the file lies there.
    unsafe { asm!("mov al, byte ptr [{page}]", page = in(reg) page, out("al") _, options(nostack, readonly)) };
    survived()
}

fn divide_by_zero(_: &mut Held<'_>, _: Control) -> Result<(), Failure> {
    // SAFETY: none: this is the fault itself. `div` by zero raises #DE before it writes a register.
    unsafe { asm!("div {zero:e}", zero = in(reg) 0_u32, inout("eax") 1 => _, inout("edx") 0 => _, options(nostack)) };
    survived()
}

fn run_no_instruction(_: &mut Held<'_>, _: Control) -> Result<(), Failure> {
    // SAFETY: none: this is the fault itself. `ud2` is defined to be undefined, and changes nothing.
    unsafe { asm!("ud2", options(nostack, nomem)) };
    survived()
}

fn survived() -> Result<(), Failure> {
    Err(io::Error::other("it went on")).map_err(Failure::while_doing("raising a fault"))
}

fn last_error(doing: &'static str) -> Failure {
    Failure::while_doing(doing)(io::Error::last_os_error())
}
