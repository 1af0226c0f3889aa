//! Counting what happens to secrets, without a word about what they are.
//!
//! Each thread counts in a block of its own, which only it writes, so that counting costs a load and a store; a thread that
//! ends leaves its block, with the counts in it, to the next one that begins.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use crate::policy::Reached;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// A secret was made.
    Made,
    /// An access ran.
    Access,
    /// An access was refused: the secret had ended, or this is a forked child.
    Denied,
    /// Memory could not be closed after an access.
    LeftOpen,
    /// Memory could not be opened to overwrite a secret.
    NotWiped,
    /// No secret was made, because the kernel refused a call.
    Refused,
}

const COUNTS: usize = 6;

#[derive(Debug)]
#[repr(align(64))] // two threads never share a cache line
struct Block {
    taken: AtomicBool,
    counts: [AtomicU64; COUNTS],
}

impl Block {
    const fn new() -> Self {
        Self { taken: AtomicBool::new(true), counts: [const { AtomicU64::new(0) }; COUNTS] }
    }
}

static BLOCKS: Mutex<Vec<&'static Block>> = Mutex::new(Vec::new());

/// For threads that have no block: they are ending, or were forked while another one held the list.
static LATE: Block = Block::new();

/// Gives a thread's block to the next one when the thread ends.
struct Release(Option<&'static Block>);

impl Drop for Release {
    fn drop(&mut self) {
        MINE.set(Some(&LATE));
        if let Some(block) = self.0 {
            block.taken.store(false, Ordering::Release);
        }
    }
}

thread_local! {
    /// This thread's block, once it has one. Without a destructor, so that reaching it is one instruction.
    static MINE: Cell<Option<&'static Block>> = const { Cell::new(None) };
    static RELEASE: Release = Release(take());
}

#[cold]
fn mine() -> &'static Block {
    let block = RELEASE.try_with(|release| release.0).ok().flatten().unwrap_or(&LATE);
    MINE.set(Some(block));
    block
}

fn take() -> Option<&'static Block> {
    let mut blocks = BLOCKS.try_lock().ok()?;
    let free = blocks.iter().find(|block| !block.taken.swap(true, Ordering::AcqRel)).copied();
    free.or_else(|| {
        let block: &'static Block = Box::leak(Box::new(Block::new()));
        blocks.push(block);
        Some(block)
    })
}

/// Counts one. Not async-signal-safe.
#[inline]
pub(crate) fn count(what: Count) {
    let block = MINE.get().unwrap_or_else(mine);
    let place = &block.counts[what as usize];
    if std::ptr::eq(block, &LATE) {
        place.fetch_add(1, Ordering::Relaxed); // several threads may be late
    } else {
        place.store(place.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

fn sum(what: Count) -> u64 {
    // In a forked child the lock may be held for ever, by a thread that is not there: what threads counted is left out then.
    let locked = match BLOCKS.try_lock() {
        Err(TryLockError::WouldBlock) if !crate::arena::in_child() => {
            Some(BLOCKS.lock().unwrap_or_else(PoisonError::into_inner))
        }
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        locked => locked.ok(),
    };
    let blocks = locked.as_deref().map_or(&[][..], Vec::as_slice);
    let counts = blocks.iter().copied().chain([&LATE]).map(|block| block.counts[what as usize].load(Ordering::Relaxed));
    counts.fold(0, u64::wrapping_add)
}

/// How much of what there is, and what happened so far, in the whole process. Numbers alone.
///
/// What happens while they are read may be in one and not yet in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Secrets made so far.
    pub made: u64,
    /// Secrets that were not made because the kernel refused a call.
    pub refused: u64,
    /// Secrets that live now.
    pub live: usize,
    /// Accesses so far.
    pub accesses: u64,
    /// Accesses that were refused: to an ended secret, or in a forked child.
    pub denied: u64,
    /// Times that the kernel refused to close memory after an access.
    pub left_open: u64,
    /// Times that the kernel refused to open memory that was to be overwritten: the bytes stood until a later end or purge.
    pub not_wiped: u64,
    /// Mappings that hold secrets, each with its two guards.
    pub arenas: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Protected stacks, and those of their signal handlers, which count by themselves.
    pub stacks: usize,
    /// Bytes of them.
    pub stack_bytes: usize,
    /// Bytes of secrets' mappings and of stacks that are never swapped out.
    pub locked: usize,
    /// Controls of those mappings and stacks that were asked for and are not there.
    pub degraded: usize,
}

impl Statistics {
    /// As they are now. In a forked child there are no secrets, and all is 0 that counts those which live.
    #[must_use]
    pub fn now() -> Self {
        let arenas = crate::report::arenas();
        let bytes = |arena: &crate::report::ArenaReport| arena.bytes;
        let stacks = crate::report::stacks();
        let degraded = |controls: &[Reached]| controls.iter().filter(|control| control.is_degraded()).count();
        Self {
            made: sum(Count::Made),
            refused: sum(Count::Refused),
            live: arenas.iter().map(|arena| arena.live).sum(),
            accesses: sum(Count::Access),
            denied: sum(Count::Denied),
            left_open: sum(Count::LeftOpen),
            not_wiped: sum(Count::NotWiped),
            arenas: arenas.len(),
            bytes: arenas.iter().map(bytes).sum(),
            stacks: stacks.len(),
            stack_bytes: stacks.iter().map(|stack| stack.bytes).sum(),
            locked: arenas.iter().filter(|arena| arena.is_locked()).map(bytes).sum::<usize>()
                + stacks.iter().filter(|stack| stack.is_locked()).map(|stack| stack.bytes).sum::<usize>(),
            degraded: arenas.iter().map(|arena| degraded(&arena.controls)).sum::<usize>()
                + stacks.iter().map(|stack| degraded(&stack.controls)).sum::<usize>(),
        }
    }
}
