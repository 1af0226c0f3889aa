//! The list of all arenas, which only ever grows, and the purge that walks it.
//!
//! Growing only, it can be walked without a lock: from a panic hook, an exit handler, a signal handler. An arena that is
//! given back stays in the list without memory and is used again by the next one that needs a mapping of its own.
//!
//! A *forced* purge overwrites every arena whole, whoever uses it, and turns the [`generation`]: secrets of an older
//! one are gone, even where their slots were never marked. It takes no lock and allocates nothing.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::canary::{self, Canary};
use super::gate::{Gate, Need};
use super::magazine::Place;
use super::mapping::Shields;
use super::state::{Doom, Duty, Epoch, State};
use super::{Ticket, fork};
use crate::error::Error;
use crate::stats::{self, Count};
use crate::wipe;

/// Bytes of the smallest slot; slots are whole granules. One cache line: two secrets never share one.
pub(super) const GRANULE: usize = 64;

/// A mapping's place in the list, with the states of its slots: metadata never stands beside secrets.
#[derive(Debug)]
pub(crate) struct Arena {
    next: AtomicPtr<Arena>,
    /// First data byte; null while there is no memory here.
    base: AtomicPtr<u8>,
    /// Bytes of data; means nothing while `base` is null.
    len: AtomicUsize,
    /// What holds of the memory; means nothing while `base` is null.
    shields: [AtomicI32; Shields::CONTROLS.len()],
    /// Who is within, where the memory is closed between accesses.
    gate: Option<Gate>,
    /// One a granule; a slot of several uses its first.
    slots: Box<[SlotMeta]>,
}

/// What is known of the slot that begins at a granule: 16 bytes, for there is one for every 64 bytes of secrets.
#[derive(Debug, Default)]
pub(super) struct SlotMeta {
    pub(super) state: State,
    /// What the canaries can be looked at by, written by whoever takes the slot, before it is occupied: bytes that the slot has
    /// more than the secret and its canaries, less than a page; and the generation of the secret, its lower half.
    spare: AtomicU16,
    /// Means nothing where the slot is the whole mapping. Written by the pool while the slot is free.
    granules: AtomicU16,
    generation: AtomicU32,
}

const _: () = assert!(size_of::<SlotMeta>() == 16);

/// The half of a generation that a slot keeps. To be taken for another one it would need 2^31 forced purges in a secret's life.
const fn lower_half(generation: u64) -> u32 {
    generation as u32
}

static HEAD: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

/// Forced purges that are walking the list now.
static WALKING: AtomicUsize = AtomicUsize::new(0);

/// Turned when a forced purge begins and when it ends.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Purges that are no forced ones and are walking the list now.
static PURGING: AtomicUsize = AtomicUsize::new(0);

/// Turned when one of these begins.
static PURGES: AtomicU64 = AtomicU64::new(0);

/// Changes with each purge, of whichever kind.
#[cfg(all(feature = "manager", target_arch = "x86_64"))]
pub(crate) fn purges() -> u64 {
    PURGES.load(Ordering::Acquire).wrapping_add(GENERATION.load(Ordering::Acquire))
}

/// A moment, of which [`has_purged`](Self::has_purged) can be asked later.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Since {
    purges: u64,
    purging: bool,
}

impl Since {
    /// Now.
    pub(crate) fn now() -> Self {
        // In this order: a purge that began between the two is counted, or over.
        let purges = PURGES.load(Ordering::SeqCst);
        Self { purges, purging: PURGING.load(Ordering::SeqCst) != 0 }
    }

    /// Whether a purge ran at that moment, or has begun since. (A forced one turns the [`generation`].)
    ///
    /// One that begins after this finds every slot that was occupied before.
    pub(super) fn has_purged(self) -> bool {
        fence(Ordering::SeqCst); // behind what occupied the slot; pairs with the purge's
        self.purging || PURGES.load(Ordering::SeqCst) != self.purges
    }
}

impl Arena {
    /// A new arena with room for so many slots, without memory yet, in the list for ever.
    ///
    /// `sealed`: what [`show`](Self::show) gives it is closed between accesses.
    pub(super) fn new(slots: usize, sealed: bool) -> &'static Self {
        let slots = std::iter::repeat_with(SlotMeta::default).take(slots).collect();
        let arena = Box::leak(Box::new(Self {
            next: AtomicPtr::new(ptr::null_mut()),
            base: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            shields: [const { AtomicI32::new(0) }; Shields::CONTROLS.len()],
            gate: sealed.then(Gate::default),
            slots,
        }));
        let added: *mut Self = arena;
        // SAFETY: the value was leaked, so it lives for ever; from here on it is only ever shared.
        let arena: &'static Self = unsafe { &*added };
        let mut head = HEAD.load(Ordering::Acquire);
        loop {
            arena.next.store(head, Ordering::Release);
            match HEAD.compare_exchange_weak(head, added, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return arena,
                Err(now) => head = now,
            }
        }
    }

    /// Shows the memory of a fresh mapping to purges.
    pub(super) fn show(&self, base: NonNull<u8>, len: usize, shields: Shields) {
        for (place, errno) in self.shields.iter().zip(shields.errnos()) {
            place.store(errno, Ordering::SeqCst);
        }
        self.len.store(len, Ordering::SeqCst);
        self.base.store(base.as_ptr(), Ordering::SeqCst);
    }

    /// Hides the memory from purges, so that it can be unmapped: waits for those that may have seen it.
    ///
    /// A purge in a signal handler on top of this thread has ended when this thread goes on, so the wait does too.
    pub(super) fn hide(&self) {
        self.base.store(ptr::null_mut(), Ordering::SeqCst);
        while WALKING.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }

    /// The first byte of the slot that begins at granule `index`.
    ///
    /// Means something to the slot's owner alone, who keeps the memory shown; without memory it is some address.
    #[inline]
    pub(super) fn slot_start(&self, index: usize) -> NonNull<u8> {
        let start = self.base.load(Ordering::Acquire).wrapping_add(index * GRANULE);
        NonNull::new(start).unwrap_or(NonNull::dangling())
    }

    /// What holds of the memory, which is shown.
    pub(super) fn shields(&self) -> Shields {
        Shields::from_errnos(self.shields.each_ref().map(|place| place.load(Ordering::Acquire)))
    }

    /// The memory, for its owner: see [`slot_start`](Self::slot_start).
    fn memory(&self) -> (NonNull<u8>, usize) {
        let base = NonNull::new(self.base.load(Ordering::Acquire)).unwrap_or(NonNull::dangling());
        (base, self.len.load(Ordering::Acquire))
    }

    /// Closes memory that was just shown, if this arena's is closed between accesses.
    pub(super) fn shut(&self) -> Result<(), Error> {
        let (base, len) = self.memory();
        self.gate.as_ref().map_or(Ok(()), |gate| gate.shut(base, len, is_purging))
    }

    /// Opens the memory until the value is dropped; `None` where it always is open. For those who own a slot in it.
    #[inline]
    pub(super) fn open(&'static self, need: Need) -> Result<Option<Opened>, Error> {
        match &self.gate {
            None => Ok(None),
            Some(gate) => {
                let (base, len) = self.memory();
                gate.enter(base, len, need, is_purging)?;
                Ok(Some(Opened { arena: self, need }))
            }
        }
    }

    /// Whether the memory is closed between accesses.
    #[inline]
    pub(super) fn is_sealed(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether something could not be overwritten here: nobody gets this memory again.
    #[inline]
    pub(super) fn is_stuck(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_stuck)
    }

    pub(super) fn set_stuck(&self) {
        if let Some(gate) = &self.gate {
            gate.set_stuck();
        }
    }

    /// Calls `f` with whether the memory is closed, and lets nobody change that meanwhile.
    pub(super) fn when_closed<R>(&self, f: impl FnOnce(bool) -> R) -> R {
        match &self.gate {
            None => f(false),
            Some(gate) => gate.when_closed(f),
        }
    }

    /// Secrets that live here.
    pub(super) fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state.is_live()).count()
    }

    /// Whether it is the place of a mapping for one secret alone.
    #[inline]
    pub(super) fn is_single(&self) -> bool {
        self.slots.len() == 1
    }

    /// One past the last data byte: the first byte of the upper guard.
    pub(super) fn end(&self) -> *const u8 {
        self.base.load(Ordering::Acquire).wrapping_add(self.len.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn slot(&self, index: usize) -> &SlotMeta {
        &self.slots[index]
    }

    /// Bytes of a slot that is taken.
    #[inline]
    pub(super) fn slot_len(&self, index: usize) -> usize {
        if self.is_single() {
            return self.len.load(Ordering::Acquire);
        }
        usize::from(self.slot(index).granules.load(Ordering::Acquire)) * GRANULE
    }

    /// Notes how long a free slot of a shared arena is.
    pub(super) fn set_granules(&self, index: usize, granules: u16) {
        self.slot(index).granules.store(granules, Ordering::Release);
    }

    /// Notes what is about to stand in a free slot.
    #[inline(always)]
    pub(super) fn note(&self, index: usize, secret: usize, generation: u64) {
        let spare = self.slot_len(index) - canary::BOTH - secret;
        let meta = self.slot(index);
        // Occupying the slot releases both. A page has 64 KiB at most.
        meta.spare.store(u16::try_from(spare).unwrap_or(u16::MAX), Ordering::Relaxed);
        meta.generation.store(lower_half(generation), Ordering::Relaxed);
    }

    /// Ends a secret and overwrites it, unless somebody uses it, who does that on the way out. Also if another one had ended it
    /// before, nobody is overwriting it any more when this returns.
    ///
    /// # Errors
    ///
    /// As `overwrite`.
    pub(super) fn end_secret(&'static self, index: usize, epoch: Option<Epoch>, doom: Doom) -> Result<(), Error> {
        let state = &self.slot(index).state;
        loop {
            let duty = state.doom(epoch, doom);
            // The other one may have failed.
            if duty.is_some() || !state.wait(epoch) {
                return self.fulfil(index, duty);
            }
        }
    }

    /// Does the duty to overwrite a slot, if there is one.
    #[inline]
    pub(super) fn fulfil(&'static self, index: usize, duty: Option<Duty>) -> Result<(), Error> {
        duty.map_or(Ok(()), |duty| self.overwrite(&[(index, duty)]))
    }

    /// Does the duties to overwrite slots, and opens the memory once for all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: the memory could not be opened, and the bytes stand. Whoever ends these slots next tries again, a purge
    /// at the latest, and nobody gets them meanwhile; so it is no harm if there is nobody to tell. [`Error::Random`]: zeros
    /// stand there.
    #[cold]
    fn overwrite(&'static self, duties: &[(usize, Duty)]) -> Result<(), Error> {
        let opened = self.open(Need::Write).inspect_err(|_| {
            self.set_stuck(); // first: who finds a slot that failed finds its memory closed to others
            for (index, _) in duties {
                self.slot(*index).state.failed();
                stats::count(Count::NotWiped);
            }
        })?;
        let one = |(index, duty): &(usize, Duty)| {
            let len = self.slot_len(*index);
            if !cfg!(secmem_ablate = "canary-at-free") {
                self.check(*index);
            }
            // SAFETY: the duty is given to one at a time, when no access runs and none can begin, so nobody refers to the
            // bytes; the memory stays mapped and shown until `cleaned` lets the owner give the slot back.
            unsafe { wipe::wipe_raw(self.slot_start(*index), len, duty.schedule) }
        };
        let wiped = duties.iter().map(one).fold(Ok(()), Result::and); // each one, whatever came of the others
        drop(opened); // before anybody can unmap it
        for (index, _) in duties {
            self.slot(*index).state.cleaned();
        }
        wiped
    }

    /// Ends the process if somebody wrote past a secret that is about to be overwritten. For the one who has the duty, while the
    /// memory is open.
    fn check(&self, index: usize) {
        let meta = self.slot(index);
        let secret = self.slot_len(index) - canary::BOTH - usize::from(meta.spare.load(Ordering::Relaxed));
        let generation = meta.generation.load(Ordering::Relaxed);
        // SAFETY: the memory is shown and open, and holds a secret of so many bytes and its canaries: until the duty is done
        // nobody takes the slot anew.
        let canary = unsafe { Canary::new(self.slot_start(index), secret) };
        // A forced purge overwrites canaries too, and turns the generation before it does.
        if !canary.intact() && !is_overtaken(|now| lower_half(now) == generation) {
            canary::damaged();
        }
    }
}

/// Memory that is open for somebody. Closes when dropped, if that was the last.
#[derive(Debug)]
#[must_use]
pub(crate) struct Opened {
    arena: &'static Arena,
    need: Need,
}

impl Opened {
    /// Closes it, and tells if that was refused.
    pub(crate) fn close(self) -> Result<(), Error> {
        let closed = self.leave();
        std::mem::forget(self);
        closed
    }

    fn leave(&self) -> Result<(), Error> {
        if fork::in_child() {
            return Ok(()); // forked within: the pages are the parent's
        }
        let (base, len) = self.arena.memory();
        let closed = match &self.arena.gate {
            Some(gate) => gate.leave(base, len, self.need, is_purging),
            None => Ok(()),
        };
        if closed.is_err() {
            stats::count(Count::LeftOpen);
        }
        closed
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Refused, it is counted; a drop has nobody to tell.
        let _ = self.leave();
    }
}

/// Whether a forced purge runs.
fn is_purging() -> bool {
    WALKING.load(Ordering::SeqCst) != 0
}

fn all() -> impl Iterator<Item = &'static Arena> {
    let mut at = HEAD.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the list holds null or arenas that were leaked, so each lives for ever and is only shared.
        let arena = unsafe { at.as_ref() }?;
        at = arena.next.load(Ordering::Acquire);
        Some(arena)
    })
}

/// The generation of secrets made now.
///
/// # Errors
///
/// [`Error::Purged`] while a forced purge runs: what it wipes next may be what would be made.
#[inline]
pub(super) fn generation() -> Result<u64, Error> {
    let generation = GENERATION.load(Ordering::SeqCst);
    // The purge counts itself before it turns the generation, so no secret of this generation outlives it unseen.
    if WALKING.load(Ordering::SeqCst) == 0 { Ok(generation) } else { Err(Error::Purged) }
}

/// Whether no forced purge has begun since `generation` was current.
#[inline]
pub(super) fn is_current(generation: u64) -> bool {
    GENERATION.load(Ordering::SeqCst) == generation
}

/// Whether a forced purge has begun since the generation was current that `is_it` knows, to be asked after a look at secret bytes:
/// what was seen may be its zeros.
#[inline]
pub(super) fn is_overtaken(is_it: impl FnOnce(u64) -> bool) -> bool {
    fence(Ordering::Acquire); // pairs with the purge's: who has read a zero of its making finds the generation turned
    !is_it(GENERATION.load(Ordering::SeqCst))
}

/// Ends every secret: unused ones now, used ones when their running access ends. Takes no lock but those of closed memory, and
/// waits for whoever overwrites a secret just then: not for signal handlers.
pub(crate) fn purge() {
    if fork::in_child() {
        return;
    }
    PURGING.fetch_add(1, Ordering::SeqCst);
    PURGES.fetch_add(1, Ordering::SeqCst);
    fence(Ordering::SeqCst); // before any slot is looked at
    for arena in all() {
        for index in 0..arena.slots.len() {
            let _ = arena.end_secret(index, None, Doom::Purged); // a purge has nobody to tell: see `Arena::overwrite`
        }
    }
    PURGING.fetch_sub(1, Ordering::SeqCst);
}

/// Ends many slots: unused ones now, used ones when their running access ends. Memory that is closed is opened once for all
/// that lie in it, for a change of what is allowed costs more than to overwrite them.
pub(crate) fn doom_all(tickets: &[Ticket], doom: Doom) {
    if fork::in_child() {
        return;
    }
    let mut closed = Vec::new();
    for Ticket { place: Place { arena, index }, epoch } in tickets {
        let Some(duty) = arena.slot(*index).state.doom(Some(*epoch), doom) else { continue };
        if arena.is_sealed() {
            closed.push((*arena, (*index, duty)));
        } else {
            let _ = arena.overwrite(&[(*index, duty)]); // a thread has nobody to tell: see there
        }
    }
    closed.sort_by_key(|(arena, _)| ptr::from_ref(*arena).addr());
    while let Some(&(arena, _)) = closed.last() {
        let first = closed.partition_point(|(other, _)| ptr::from_ref(*other).addr() < ptr::from_ref(arena).addr());
        let duties: Vec<_> = closed.drain(first..).map(|(_, duty)| duty).collect();
        let _ = arena.overwrite(&duties); // a thread has nobody to tell
    }
}

/// Whether an access still runs in any thread, or bytes stand that could not be overwritten. After [`purge`] no other begins.
/// Waits for wipes that are under way.
pub(crate) fn in_use() -> bool {
    !fork::in_child() && all().flat_map(|arena| &arena.slots).any(|slot| slot.state.in_use())
}

/// Overwrites every arena, used or not, with zeros. Async-signal-safe.
///
/// Accesses that run in other threads read zeros from now on, and fail when they end.
pub(crate) fn purge_forced() {
    if fork::in_child() {
        return;
    }
    WALKING.fetch_add(1, Ordering::SeqCst);
    GENERATION.fetch_add(1, Ordering::SeqCst);
    fence(Ordering::SeqCst); // whoever sees a zero sees the generation turned, if it asks behind a fence
    // Memory that is closed comes last: if a thread that stands still comes to close it meanwhile, the store faults, and the rest
    // has been overwritten by then.
    let open = all().filter(|arena| arena.gate.is_none());
    for arena in open.chain(all().filter(|arena| arena.gate.is_some())) {
        let Some(base) = NonNull::new(arena.base.load(Ordering::SeqCst)) else { continue };
        let len = arena.len.load(Ordering::SeqCst);
        if arena.gate.as_ref().is_some_and(|gate| !gate.force(base, len)) {
            continue; // the kernel refuses to open it: a store would be a fault
        }
        // SAFETY: memory that is shown stays mapped and writable while a walk is counted in `WALKING`. Accesses may run
        // on it, which is what forced means: only a signal, an exit or an abort forces, and the documentation of `purge`
        // says what that means for them.
        unsafe { wipe::wipe_forced(base, len) };
    }
    GENERATION.fetch_add(1, Ordering::SeqCst);
    WALKING.fetch_sub(1, Ordering::SeqCst);
}
