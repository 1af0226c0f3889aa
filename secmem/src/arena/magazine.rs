//! Free slots that a thread keeps at hand, so that it makes and ends small secrets without a lock.
//!
//! Nobody else finds what a thread keeps: no more than [`ROUNDS`] slots of a size, given back when it ends. Where there is no
//! other room they are taken back from every thread, also from one that rests: [`take_back`].
//!
//! For that a thread says that it is within, and then looks whether its magazine is closed; whoever takes back closes it, and
//! then looks whether the thread is within. Neither may look before the other can see what it said. The thread gets by with
//! plain stores and loads, for a locked operation would cost as much as all the rest; whoever takes back pays for both, with
//! membarrier(2), by which every other thread passes a barrier wherever it is. Where the kernel has no such call, a thread
//! takes back its own slots alone.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::list::{Arena, SlotMeta};
use super::mapping::Kind;
use super::{fork, pool};
use crate::sys;

/// A free slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) arena: &'static Arena,
    pub(super) index: usize,
}

impl Place {
    /// What is known of the slot.
    #[inline]
    pub(super) fn meta(self) -> &'static SlotMeta {
        self.arena.slot(self.index)
    }

    /// The first byte of the slot.
    #[inline]
    pub(super) fn start(self) -> NonNull<u8> {
        self.arena.slot_start(self.index)
    }

    /// Bytes of the slot.
    #[inline]
    pub(super) fn len(self) -> usize {
        self.arena.slot_len(self.index)
    }
}

/// Slots of one size that a thread keeps.
pub(super) const ROUNDS: usize = 16;

/// Slots of up to so many granules are kept.
const LARGEST: usize = 8;

struct Shelf {
    count: Cell<usize>,
    /// The first `count` of them; what else stands there is nobody's.
    places: [Cell<Option<Place>>; ROUNDS],
}

impl Shelf {
    const fn new() -> Self {
        Self { count: Cell::new(0), places: [const { Cell::new(None) }; ROUNDS] }
    }

    #[inline(always)]
    fn take(&self) -> Option<Place> {
        let count = self.count.get().checked_sub(1)?;
        self.count.set(count);
        self.places.get(count)?.get()
    }

    #[inline(always)]
    fn keep(&self, place: Place) -> bool {
        let count = self.count.get();
        let Some(free) = self.places.get(count) else { return false };
        free.set(Some(place));
        self.count.set(count + 1);
        true
    }
}

/// What a thread keeps. It outlives the thread, and another one gets it.
struct Magazine {
    /// Its thread is taking or keeping a slot.
    within: AtomicBool,
    /// Its thread is to stay out.
    closed: AtomicBool,
    shelves: [[Shelf; LARGEST]; 2],
}

// SAFETY: the shelves are reached by the one thread whose `MINE` it is, while it is within and has then found it open, or by
// the one that holds the lock of `ALL`, and has closed it and then found nobody within, or is that thread itself.
unsafe impl Sync for Magazine {}

/// All that were ever made.
#[derive(Default)]
struct All {
    taken: Vec<&'static Magazine>,
    free: Vec<&'static Magazine>,
}

static ALL: Mutex<All> = Mutex::new(All { taken: Vec::new(), free: Vec::new() });

/// For threads that are ending. Closed for ever, so it stays empty.
static LATE: Magazine = Magazine::new(true);

/// Gives a thread's slots back when it ends, and its magazine to the next one.
struct Release(&'static Magazine);

thread_local! {
    /// This thread's magazine, once it has one. Without a destructor, so that reaching it is one instruction.
    static MINE: Cell<Option<&'static Magazine>> = const { Cell::new(None) };
    static RELEASE: Release = Release(lock().one());
}

impl All {
    fn one(&mut self) -> &'static Magazine {
        let one = self.free.pop().unwrap_or_else(|| Box::leak(Box::new(Magazine::new(false))));
        self.taken.push(one);
        one
    }
}

fn lock() -> MutexGuard<'static, All> {
    // Nothing is half done where the lock is held and something could panic.
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn mine() -> &'static Magazine {
    let magazine = RELEASE.try_with(|release| release.0).unwrap_or(&LATE);
    MINE.set(Some(magazine));
    magazine
}

/// A slot of so many granules, if the thread has one.
#[inline(always)]
pub(super) fn take(kind: Kind, granules: usize) -> Option<Place> {
    with(kind, granules, Shelf::take).flatten()
}

/// Keeps a free slot of so many granules; `false` if there is no room for it.
#[inline(always)]
pub(super) fn keep(kind: Kind, granules: usize, place: Place) -> bool {
    with(kind, granules, |shelf| shelf.keep(place)) == Some(true)
}

/// `None` for a size that is not kept, in a thread that is ending, or while somebody takes slots back.
#[inline(always)]
fn with<R>(kind: Kind, granules: usize, f: impl FnOnce(&Shelf) -> R) -> Option<R> {
    let kind = match kind {
        Kind::MemfdSecret => 0,
        Kind::Mlock => 1,
    };
    let magazine = MINE.get().unwrap_or_else(mine);
    let shelf = magazine.shelves[kind].get(granules.wrapping_sub(1))?;
    magazine.within.store(true, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst); // `take_back` makes it a barrier of the processor where one is needed
    let result = if magazine.closed.load(Ordering::Acquire) { None } else { Some(f(shelf)) };
    magazine.within.store(false, Ordering::Release);
    result
}

/// Takes back what threads keep, for the one who holds the pool's lock.
///
/// A thread that stands still within its magazine keeps what it has.
#[cold]
pub(super) fn take_back() -> Vec<Place> {
    let all = lock();
    all.taken.iter().for_each(|magazine| magazine.closed.store(true, Ordering::SeqCst));
    // After this each thread has said that it is within, where it is, or will find its magazine closed.
    let others = sys::barrier().is_ok();
    let mut places = Vec::new();
    for magazine in &all.taken {
        let mine = MINE.get().is_some_and(|mine| ptr::eq(mine, *magazine));
        if mine || others && magazine.is_left() {
            places.extend(magazine.empty());
        }
        magazine.closed.store(false, Ordering::Release);
    }
    places
}

/// Turns of waiting for a thread to leave its magazine, which takes it some instructions.
const PATIENCE: u32 = 1000;

impl Magazine {
    const fn new(closed: bool) -> Self {
        Self {
            within: AtomicBool::new(false),
            closed: AtomicBool::new(closed),
            shelves: [const { [const { Shelf::new() }; LARGEST] }; 2],
        }
    }

    /// Whether its thread is not within; waits for it to leave.
    fn is_left(&self) -> bool {
        (0..PATIENCE).any(|_| {
            let left = !self.within.load(Ordering::Acquire);
            if !left {
                std::thread::yield_now();
            }
            left
        })
    }

    /// Takes all slots out, for the one who may reach them.
    fn empty(&self) -> Vec<Place> {
        self.shelves.iter().flatten().flat_map(|shelf| std::iter::from_fn(|| shelf.take())).collect()
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        MINE.set(Some(&LATE));
        if fork::in_child() {
            return; // the slots are the parent's, and so are the locks
        }
        pool::put_back_all(|| {
            let mut all = lock();
            all.taken.retain(|magazine| !ptr::eq(*magazine, self.0));
            all.free.push(self.0);
            self.0.empty()
        });
    }
}
