#![allow(unsafe_code)] // vector registers by hand, a signal's handler, an allocator called as the language calls it
//! What code leaves that is not called with care, and what is left of it within secmem's scrub or under its allocator.
//!
//! Each act is played twice, bare and scrubbed. The key stands in a slot of an arena in both.

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;
use std::cell::RefCell;
use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::ptr;
use std::thread;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::scrub::{self, Stack};
use secmem::{Backend, Secret, WipingAlloc};

use crate::holder::{Held, Holder, Plant, Then};

/// Bytes of key: four vector registers.
const KEY: usize = 64;

/// Bytes between what an act leaves on the stack and whatever the stack is used for afterwards.
const ROOM: usize = 16 * 1024;

/// Bytes of the stack that is wiped.
const STACK: usize = 64 << 10;

/// Something that is done with a key.
type Act = fn(&[u8; KEY]);

pub(crate) static BARE_STACK: Holder = bare("bare-stack", |plant, then| bare_act(plant, then, on_the_stack));
pub(crate) static BARE_VECTORS: Holder = bare("bare-vectors", |plant, then| bare_act(plant, then, in_vectors));
pub(crate) static BARE_UNWIND: Holder = bare("bare-unwind", |plant, then| bare_act(plant, then, unwinds));
pub(crate) static BARE_SIGNAL: Holder = bare("bare-signal", |plant, then| bare_act(plant, then, signalled));
pub(crate) static BARE_FREE: Holder = bare("bare-free", |plant, then| allocates(plant, then, System, frees));
pub(crate) static BARE_REALLOC: Holder = bare("bare-realloc", |plant, then| allocates(plant, then, System, grows));

pub(crate) static SCRUB_STACK: Holder =
    ours("scrub-stack", &["stack-wipe"], &["S9", "S10"], |plant, then| scrubbed(plant, then, on_the_stack));
pub(crate) static SCRUB_VECTORS: Holder =
    ours("scrub-vectors", &["vector-registers"], &["S9", "S10"], |plant, then| scrubbed(plant, then, in_vectors));
pub(crate) static SCRUB_UNWIND: Holder =
    ours("scrub-unwind", &["stack-wipe"], &["S9", "S10"], |plant, then| scrubbed(plant, then, unwinds));
pub(crate) static SCRUB_SIGNAL: Holder = ours(
    "scrub-signal",
    &["alternate-stack", "alternate-stack-wipe", "vector-registers"],
    &["S9", "S10"],
    |plant, then| scrubbed(plant, then, signalled),
);
pub(crate) static SCRUB_SIGNAL_HERE: Holder =
    ours("scrub-signal-here", &["stack-wipe", "vector-registers"], &["S9", "S10"], |plant, then| {
        scrubbed(plant, then, signalled_here)
    });
pub(crate) static SCRUB_NESTED: Holder = ours("scrub-nested", &["stack-wipe"], &["S9", "S10"], nested);
pub(crate) static SCRUB_THREAD: Holder = ours("scrub-thread", &[], &["S9", "S10"], in_a_thread);
pub(crate) static WIPING_FREE: Holder = ours("wiping-free", &["wipe-on-free"], &["S10"], |plant, then| {
    allocates(plant, then, WipingAlloc::system(), frees)
});
pub(crate) static WIPING_REALLOC: Holder =
    ours("wiping-realloc", &["wipe-on-free", "wipe-on-realloc"], &["S10"], |plant, then| {
        allocates(plant, then, WipingAlloc::system(), grows)
    });
/// A secret that another thread ends: its slot goes to what that thread keeps at hand, and from there back.
pub(crate) static ELSEWHERE: Holder = ours("secmem-elsewhere", &[], &["S1"], ended_elsewhere);

const fn bare(name: &'static str, hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>) -> Holder {
    Holder {
        name,
        canary: CanaryKind::Bytes,
        canary_len: KEY,
        needs: &[Need::Mlock],
        ours: false,
        turned_by: &[],
        asks: false,
        shows: &[],
        hold,
    }
}

const fn ours(
    name: &'static str,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    Holder {
        name,
        canary: CanaryKind::Bytes,
        canary_len: KEY,
        needs: &[Need::Mlock],
        ours: true,
        turned_by,
        asks: false,
        shows,
        hold,
    }
}

/// The key in a slot that an outside reader can read.
fn key(mut plant: Plant<'_>) -> Result<Secret, Failure> {
    let canary = plant.canary()?;
    let key = Secret::options().backend(Backend::Mlock).read_exact(canary.as_fd(), plant.len);
    key.map_err(Failure::while_doing("reading the canary into secmem"))
}

/// Lends the key to `use_it`.
fn with_key<R>(key: &Secret, use_it: impl FnOnce(&[u8; KEY]) -> R) -> Result<R, Failure> {
    let lent = key.with(|key| key.try_into().map(use_it)).map_err(Failure::while_doing("lending the key"))?;
    lent.map_err(Failure::while_doing("taking the key for what it is"))
}

fn bare_act(plant: Plant<'_>, then: Then<'_>, act: Act) -> Result<(), Failure> {
    handle()?;
    let mut key = key(plant)?;
    with_key(&key, |key| below(|| _ = panic::catch_unwind(AssertUnwindSafe(|| act(key)))))?;
    then(&mut Held::Secmem(&mut key))
}

fn scrubbed(plant: Plant<'_>, then: Then<'_>, act: Act) -> Result<(), Failure> {
    handle()?;
    let mut key = key(plant)?;
    let stack = Stack::with_backend(Backend::Mlock, STACK);
    let mut stack = stack.map_err(Failure::while_doing("making a protected stack"))?;
    let ran = with_key(&key, |key| below(|| stack.run(|| act(key))))?;
    expected(ran)?;
    STACKS.with_borrow_mut(|stacks| stacks.push(stack)); // to be looked at once the holder is gone
    then(&mut Held::Secmem(&mut key))
}

thread_local! {
    static STACKS: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
}

/// A panic within is what one of the acts is about.
fn expected(ran: Result<(), secmem::Error>) -> Result<(), Failure> {
    match ran {
        Ok(()) | Err(secmem::Error::Panicked) => Ok(()),
        Err(error) => Err(error).map_err(Failure::while_doing("running on a protected stack")),
    }
}

fn nested(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut key = key(plant)?;
    let within = |key: &[u8; KEY]| {
        below(|| on_the_stack(key)); // what makes the second stack ready runs on the first
        scrub::run(|| on_the_stack(key))
    };
    // A flag and no `Result` comes out: what an `Ok` leaves unfilled would carry along what stood on the stack.
    let mut inner = false;
    let ran = with_key(&key, |key| below(|| scrub::run(|| inner = within(key).is_ok())))?;
    expected(ran)?;
    if !inner {
        return Err(io::Error::other("it was refused")).map_err(Failure::while_doing("nesting"));
    }
    then(&mut Held::Secmem(&mut key))
}

/// The thread is gone when it is looked at, and its stack with it.
fn in_a_thread(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut key = key(plant)?;
    let ran = with_key(&key, |key| thread::scope(|scope| scope.spawn(|| scrub::run(|| on_the_stack(key))).join()))?;
    expected(ran.map_err(|_| io::Error::other("it panicked")).map_err(Failure::while_doing("running a thread"))?)?;
    then(&mut Held::Secmem(&mut key))
}

fn ended_elsewhere(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut key = key(plant)?;
    then(&mut Held::Secmem(&mut key))?;
    let ended = thread::spawn(move || drop(key)).join();
    ended.map_err(|_| io::Error::other("it panicked")).map_err(Failure::while_doing("running a thread"))
}

#[inline(never)]
fn below<R>(act: impl FnOnce() -> R) -> R {
    let mut room = [0_u8; ROOM];
    black_box(&mut room);
    let done = act();
    black_box(&mut room);
    done
}

/// A frame with a copy of the key, as every cipher has one.
#[inline(never)]
fn on_the_stack(key: &[u8; KEY]) {
    let mut frame = [0_u8; 512];
    frame[128..][..KEY].copy_from_slice(key);
    black_box(&mut frame);
}

#[inline(never)]
fn unwinds(key: &[u8; KEY]) {
    let mut frame = [0_u8; 512];
    frame[128..][..KEY].copy_from_slice(key);
    black_box(&mut frame);
    panic!("this act ends by a panic");
}

/// Registers that ordinary code seldom uses.
fn in_vectors(key: &[u8; KEY]) {
    // SAFETY: reads the key, which is as long as four registers, and changes nothing but those.
    unsafe {
        asm!(
            "movdqu xmm8, [{key}]",
            "movdqu xmm9, [{key} + 16]",
            "movdqu xmm10, [{key} + 32]",
            "movdqu xmm11, [{key} + 48]",
            key = in(reg) key,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            options(nostack, readonly),
        );
    }
}

/// A signal comes while the key stands in registers: the kernel writes them to where the handler runs.
fn send_with_key_in_vectors(key: &[u8; KEY], signal: i32) {
    // SAFETY: reads the key, which is as long as four registers; kill(2) touches no memory, and the handler returns. What the
    // kernel and the handler change of registers is told.
    unsafe {
        asm!(
            "movdqu xmm8, [{key}]",
            "movdqu xmm9, [{key} + 16]",
            "movdqu xmm10, [{key} + 32]",
            "movdqu xmm11, [{key} + 48]",
            "syscall",
            key = in(reg) key,
            inlateout("rax") libc::SYS_kill => _,
            in("rdi") process::id(),
            in("rsi") signal,
            out("rcx") _, out("r11") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
        );
    }
}

/// The handler runs on the thread's alternate stack.
fn signalled(key: &[u8; KEY]) {
    send_with_key_in_vectors(key, libc::SIGUSR1);
}

/// The handler runs on the stack of the code that it interrupts.
fn signalled_here(key: &[u8; KEY]) {
    send_with_key_in_vectors(key, libc::SIGUSR2);
}

extern "C" fn nothing(_: libc::c_int) {}

/// Installs a handler for the signals of the acts: with `SA_ONSTACK` for SIGUSR1, without for SIGUSR2.
fn handle() -> Result<(), Failure> {
    for (signal, flags) in [(libc::SIGUSR1, libc::SA_ONSTACK), (libc::SIGUSR2, 0)] {
        // SAFETY: every field of the structure is an integer, a set of integers or an optional pointer: zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = flags;
        // SAFETY: the handler does nothing, and takes the one argument that it is given.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error()).map_err(Failure::while_doing("installing a handler"));
        }
    }
    Ok(())
}

/// Lets `act` copy the key into memory of `allocator`. It is not the allocator of the program, whose own memory is not
/// what is looked at.
fn allocates<A: GlobalAlloc>(
    plant: Plant<'_>,
    then: Then<'_>,
    allocator: A,
    act: fn(&A, &[u8; KEY]),
) -> Result<(), Failure> {
    let mut key = key(plant)?;
    with_key(&key, |key| act(&allocator, key))?;
    then(&mut Held::Secmem(&mut key))
}

/// What [`frees`] and [`grows`] allocate: a size that nothing asks for before the look, and that glibc keeps whole for whoever asks
/// for it again (up to 1032 bytes, one thread's): a longer block would be cut up, or become a part of what lies behind it.
fn block() -> Layout {
    Layout::new::<[u8; 1000]>()
}

/// Where in it the key is put: behind what an allocator writes into memory that is free.
const WITHIN: usize = 256;

fn frees<A: GlobalAlloc>(allocator: &A, key: &[u8; KEY]) {
    if let Some(start) = filled(allocator, key) {
        // SAFETY: allocated here, with that layout, and nobody uses it any more.
        unsafe { allocator.dealloc(start, block()) };
    }
}

fn grows<A: GlobalAlloc>(allocator: &A, key: &[u8; KEY]) {
    let Some(start) = filled(allocator, key) else { return };
    // A neighbour, so that the allocator has to move what grows.
    // SAFETY: the layout has a size.
    let neighbour = unsafe { allocator.alloc(block()) };
    let size = 8 * block().size();
    // SAFETY: allocated here, with that layout; the size is not zero.
    let moved = unsafe { allocator.realloc(start, block(), size) };
    if !moved.is_null() {
        // The new place is wiped by hand: only the old one is what this is about.
        // SAFETY: the allocation holds so many bytes, and nobody else refers to it.
        secmem::wipe::wipe(unsafe { std::slice::from_raw_parts_mut(moved, block().size()) });
    }
    // Neither is given back: what the allocator would write into them is not looked for.
    black_box((moved, neighbour));
}

fn filled<A: GlobalAlloc>(allocator: &A, key: &[u8; KEY]) -> Option<*mut u8> {
    // SAFETY: the layout has a size.
    let start = unsafe { allocator.alloc_zeroed(block()) };
    if start.is_null() {
        return None;
    }
    for (at, &byte) in (WITHIN..).zip(key) {
        // SAFETY: the key fits behind `WITHIN`.
        let place = unsafe { start.add(at) };
        // SAFETY: the place lies within the allocation, which is ours alone. Volatile, so that the bytes go one by one and
        // no vector register keeps them.
        unsafe { place.write_volatile(byte) };
    }
    Some(black_box(start))
}
