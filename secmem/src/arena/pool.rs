//! Which mapping a secret goes to, and which granules of it are free.
//!
//! Secrets share arenas of [`SHARED`] bytes; a longer one gets a mapping of its own, which is unmapped with it. Shared
//! arenas stay: the first touch of such memory is dear, and the next secret will want it.
//!
//! A thread keeps a few free slots at hand (`magazine`). Everything else is under one lock. Accesses, deadlines and
//! purges never take it. Where the kernel gives no more, what lies unused is taken back first: the slots that threads keep, then
//! shared arenas in which no secret lives.

use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::list::{Arena, GRANULE};
use super::magazine::{self, Place};
use super::mapping::{Kind, Mapping, Shields};
use super::{Backend, Class, canary, fork};
use crate::error::{Error, Refusal};
use crate::policy::{Control, Demand, Policy, Reached};
use crate::sys::{self, Call};
use crate::trace::News;

/// Bytes of the first shared arena, where the lock budget allows it; halved down to a page where not.
const SHARED: usize = 64 << 10;

/// Each further arena is four times as long, so that many secrets need few mappings, up to 1 MiB: so often it doubles.
const DOUBLINGS: usize = 4;

/// Slots that a thread is given at once, while an arena is half empty.
const REFILL: usize = 8;

static POOL: Mutex<Vec<Room>> = Mutex::new(Vec::new());

/// An arena and what is free in it.
#[derive(Debug)]
struct Room {
    arena: &'static Arena,
    kind: Kind,
    class: Class,
    /// `None` where it has been unmapped: the next such mapping moves in.
    mapping: Option<Mapping>,
    /// One a granule: whether a slot covers it. Empty for a secret's own mapping.
    taken: Vec<bool>,
    /// Before this one no granule is free: so that filling an arena does not walk it anew for each slot.
    from: usize,
    free: usize,
    /// A place for a mapping, in which no secret lives; one is still there only if the kernel refused to take it back.
    vacant: bool,
}

impl Room {
    /// Whether secrets of this class share it.
    fn is_for(&self, kind: Kind, class: Class) -> bool {
        let shared = !self.vacant && !self.taken.is_empty();
        shared && self.kind == kind && self.class == class && !self.arena.is_stuck()
    }

    /// Takes the first run of so many free granules.
    fn take(&mut self, granules: usize) -> Option<Place> {
        if self.free < granules {
            return None;
        }
        let from = self.taken.get(self.from..)?;
        let (index, length) = (self.from + free_run(from, granules)?, u16::try_from(granules).ok()?);
        self.taken[index..index + granules].fill(true);
        if granules == 1 || index == self.from {
            self.from = index + granules; // one granule is the first that is free
        }
        self.free -= granules;
        self.arena.set_granules(index, length);
        Some(Place { arena: self.arena, index })
    }

    /// Undoes [`take`](Self::take).
    fn untake(&mut self, place: Place) {
        let granules = granules(place.len());
        self.taken[place.index..place.index + granules].fill(false);
        self.from = self.from.min(place.index);
        self.free += granules;
    }

    /// Whether it is shared, and no slot of it is taken.
    fn is_unused(&self) -> bool {
        !self.vacant && !self.taken.is_empty() && self.free == self.taken.len()
    }

    /// Gives the mapping back.
    fn unmap(&mut self) -> Result<(), Refusal> {
        if let Some(mapping) = &mut self.mapping {
            mapping.unmap()?;
            self.mapping = None;
        }
        Ok(())
    }
}

/// Where a secret may live, and how that place came about.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// Why memfd_secret could not be had, where that was the first choice.
    pub(super) why: Option<Refusal>,
}

thread_local! {
    /// Why this thread gets no new memory of memfd_secret, and will not: [`is_lasting`]. A filter of system calls may be a
    /// thread's own, so what one thread is refused says nothing of others.
    static WITHOUT_MEMFD: Cell<Option<Refusal>> = const { Cell::new(None) };
}

/// Whether the kernel has no memfd_secret, or whoever confines this thread forbids it.
fn is_lasting(refusal: Refusal) -> bool {
    refusal.call == Call::MemfdSecret.name() && matches!(refusal.errno, libc::ENOSYS | libc::EPERM)
}

/// A free place for `len` bytes and their canaries that this thread has at hand, and its kind.
#[inline(always)]
pub(super) fn at_hand(policy: Policy, class: Class, len: usize) -> Option<(Place, Kind)> {
    if class != Class::STANDARD || !fork::watches(policy) {
        return None;
    }
    let kind = first_choice(policy);
    Some((magazine::take(kind, granules(len.saturating_add(canary::BOTH)))?, kind))
}

/// [`at_hand`] for whoever gets no memory of memfd_secret and would have preferred it.
fn second_choice(policy: Policy, class: Class, whole: usize) -> Option<Grant> {
    let why = WITHOUT_MEMFD.get().filter(|_| class == Class::STANDARD && policy.backend() == Backend::Auto)?;
    Some(Grant { place: magazine::take(Kind::Mlock, granules(whole))?, kind: Kind::Mlock, why: Some(why) })
}

#[inline]
fn first_choice(policy: Policy) -> Kind {
    match policy.backend() {
        Backend::Auto | Backend::MemfdSecret => Kind::MemfdSecret,
        Backend::Mlock => Kind::Mlock,
    }
}

/// Takes a free place for `len` bytes and their canaries.
pub(super) fn take(policy: Policy, class: Class, len: usize) -> Result<Grant, Error> {
    fork::watch(policy, len)?;
    let (asked, first) = (policy.backend(), first_choice(policy));
    let whole = len.saturating_add(canary::BOTH); // so long that it is refused, if it saturates
    canary::ready()?;
    if let Some(grant) = second_choice(policy, class, whole) {
        return Ok(grant);
    }
    let mut news = Vec::new();
    let grant = take_locked(asked, first, class, len, whole, &mut news);
    // Whoever listens may make secrets, and so may not be told while the pool is locked.
    news.iter().for_each(News::tell);
    grant
}

fn take_locked(
    asked: Backend,
    first: Kind,
    class: Class,
    len: usize,
    whole: usize,
    news: &mut Vec<News>,
) -> Result<Grant, Error> {
    let mut rooms = lock();
    let mut from = |kind| take_from(&mut rooms, kind, class, whole, news);
    match asked {
        Backend::MemfdSecret | Backend::Mlock => match from(first) {
            Ok(place) => Ok(Grant { place, kind: first, why: None }),
            Err(refusal) => Err(refused(asked, len, first, None)(refusal)),
        },
        Backend::Auto => {
            let memfd = match WITHOUT_MEMFD.get() {
                None => from(Kind::MemfdSecret).inspect_err(|&why| {
                    WITHOUT_MEMFD.set(is_lasting(why).then_some(why));
                }),
                Some(why) => from_room(&mut rooms, Kind::MemfdSecret, class, whole).ok_or(why),
            };
            let why = match memfd {
                Ok(place) => return Ok(Grant { place, kind: Kind::MemfdSecret, why: None }),
                Err(why) => why,
            };
            match take_from(&mut rooms, Kind::Mlock, class, whole, news) {
                Ok(place) => Ok(Grant { place, kind: Kind::Mlock, why: Some(why) }),
                Err(refusal) => Err(refused(asked, len, Kind::Mlock, Some(why))(refusal)),
            }
        }
    }
}

/// A refused call as the error of whoever asked for `len` bytes.
pub(super) fn refused(asked: Backend, len: usize, tried: Kind, before: Option<Refusal>) -> impl Fn(Refusal) -> Error {
    let tried = tried.backend();
    move |refusal| Error::Refused { asked, tried, len, call: refusal.call, before, source: refusal.cause() }
}

/// Makes a vacated place free again.
#[inline]
pub(super) fn give_back(place: Place, kind: Kind, class: Class) {
    if place.arena.is_stuck() {
        return; // bytes that could not be overwritten stand there: nobody gets them
    }
    if place.arena.is_single() || class != Class::STANDARD || !magazine::keep(kind, granules(place.len()), place) {
        put_back(place);
    }
}

/// Makes a place free for every thread.
#[cold]
pub(super) fn put_back(place: Place) {
    if fork::in_child() {
        return; // the pages are the parent's, and so is the lock
    }
    let arena = place.arena;
    let mut rooms = lock();
    let Some(room) = rooms.iter_mut().find(|room| ptr::eq(room.arena, arena)) else {
        debug_assert!(false, "an arena that the pool does not know");
        return;
    };
    if arena.is_single() {
        arena.hide();
        room.vacant = true;
        // Refused, it is tried again when the next such secret is made, whose maker can be told.
        let _ = room.unmap();
        return;
    }
    room.untake(place);
}

/// Makes places free that a thread has kept; nobody looks for room between `kept` and that.
pub(super) fn put_back_all(kept: impl FnOnce() -> Vec<Place>) {
    let mut rooms = lock();
    untake_all(&mut rooms, kept());
}

fn untake_all(rooms: &mut [Room], places: Vec<Place>) {
    for place in places {
        if let Some(room) = rooms.iter_mut().find(|room| ptr::eq(room.arena, place.arena)) {
            room.untake(place);
        }
    }
}

#[inline]
fn granules(bytes: usize) -> usize {
    bytes.div_ceil(GRANULE)
}

fn lock() -> MutexGuard<'static, Vec<Room>> {
    // Nothing is half done where the lock is held and something could panic, so a poisoned pool is as good as any.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_from(
    rooms: &mut Vec<Room>,
    kind: Kind,
    class: Class,
    len: usize,
    news: &mut Vec<News>,
) -> Result<Place, Refusal> {
    let mut make = |rooms: &mut Vec<Room>| match len > SHARED {
        true => own(rooms, kind, class, len, news),
        false => shared(rooms, kind, class, len, news),
    };
    let refusal = match make(rooms) {
        Err(refusal) if is_shortage(refusal) => refusal,
        result => return result,
    };
    untake_all(rooms, magazine::take_back());
    if let Some(place) = from_room(rooms, kind, class, len) {
        return Ok(place);
    }
    if unmap_unused(rooms) { make(rooms) } else { Err(refusal) }
}

/// Whether the kernel might grant it to a process that has less.
pub(super) fn is_shortage(refusal: Refusal) -> bool {
    // mlock says EPERM where the limit is 0, which it may have become; ENOMEM is said of mappings, too.
    !is_lasting(refusal) && matches!(refusal.errno, libc::ENOMEM | libc::EAGAIN | libc::EPERM)
}

/// Takes the slots back that threads keep at hand, and gives back what is unused then; whether that was any.
#[cfg(target_arch = "x86_64")] // for protected stacks
pub(super) fn give_unused_back() -> bool {
    let mut rooms = lock();
    untake_all(&mut rooms, magazine::take_back());
    unmap_unused(&mut rooms)
}

/// Gives back the shared arenas in which nobody has a slot; whether there were any.
fn unmap_unused(rooms: &mut [Room]) -> bool {
    for room in rooms.iter_mut().filter(|room| room.is_unused()) {
        room.arena.hide();
        room.vacant = true;
    }
    let vacant = rooms.iter_mut().filter(|room| room.vacant && room.mapping.is_some());
    vacant.filter_map(|room| room.unmap().ok()).count() > 0
}

/// A run of granules in a shared arena that is there.
fn from_room(rooms: &mut [Room], kind: Kind, class: Class, len: usize) -> Option<Place> {
    let granules = granules(len);
    let fits = |room: &&mut Room| room.is_for(kind, class);
    let (place, room) = rooms.iter_mut().filter(fits).find_map(|room| Some((room.take(granules)?, room)))?;
    for _ in 1..REFILL {
        if class != Class::STANDARD || room.free < room.taken.len() / 2 {
            break;
        }
        let Some(place) = room.take(granules) else { break };
        if !magazine::keep(kind, granules, place) {
            room.untake(place);
            break;
        }
    }
    Some(place)
}

/// A run of granules in a shared arena, in a new one if need be.
fn shared(rooms: &mut Vec<Room>, kind: Kind, class: Class, len: usize, news: &mut Vec<News>) -> Result<Place, Refusal> {
    if let Some(place) = from_room(rooms, kind, class, len) {
        return Ok(place);
    }
    let before = rooms.iter().filter(|room| room.is_for(kind, class)).count();
    let mut mapping = map_shared(kind, class.policy, len, SHARED << (2 * before).min(DOUBLINGS))?;
    let slots = mapping.len() / GRANULE;
    let room = vacant(rooms, slots, kind, class);
    show(room.arena, &mut mapping, news)?;
    room.mapping = Some(mapping);
    room.vacant = false;
    // A mapping is never shorter than what it is made for.
    room.take(granules(len)).ok_or(Refusal { call: Call::Reserve.name(), errno: libc::ENOMEM })
}

/// A place for a mapping with so many slots, in a new arena if need be. One slot is a mapping for one secret alone.
fn vacant(rooms: &mut Vec<Room>, slots: usize, kind: Kind, class: Class) -> &mut Room {
    let granules = if slots == 1 { 0 } else { slots };
    let fits = |room: &Room| {
        room.vacant && room.mapping.is_none() && room.taken.len() == granules && room.class.sealed == class.sealed
    };
    let at = rooms.iter().position(fits).unwrap_or_else(|| {
        let (arena, taken) = (Arena::new(slots, class.sealed), vec![false; granules]);
        rooms.push(Room { arena, kind, class, mapping: None, taken, from: 0, free: granules, vacant: true });
        rooms.len() - 1
    });
    let room = &mut rooms[at];
    room.kind = kind;
    room.class = class;
    room
}

/// Gives an arena its memory, closed if that is its way.
fn show(arena: &'static Arena, mapping: &mut Mapping, news: &mut Vec<News>) -> Result<(), Refusal> {
    let shields = mapping.shields();
    news.push(News::Made { bytes: mapping.len(), sealed: arena.is_sealed() });
    news.extend(
        Shields::CONTROLS.into_iter().filter_map(|control| Some(News::Degraded(control, shields.why(control)?))),
    );
    arena.show(mapping.data(), mapping.len(), shields);
    if let Err(error) = arena.shut() {
        arena.hide();
        mapping.unmap()?;
        let errno = match error {
            Error::Access { source, .. } => source.raw_os_error(),
            _ => None,
        };
        return Err(Refusal { call: Call::Access.name(), errno: errno.unwrap_or(libc::EIO) });
    }
    Ok(())
}

/// A mapping for one secret alone.
fn own(rooms: &mut Vec<Room>, kind: Kind, class: Class, len: usize, news: &mut Vec<News>) -> Result<Place, Refusal> {
    rooms.iter_mut().filter(|room| room.vacant).try_for_each(Room::unmap)?;
    let mut mapping = Mapping::new(kind, len, sys::page_size(), class.policy)?;
    let room = vacant(rooms, 1, kind, class);
    show(room.arena, &mut mapping, news)?;
    room.mapping = Some(mapping);
    room.vacant = false;
    Ok(Place { arena: room.arena, index: 0 })
}

/// A new shared arena of `size` bytes, or as long as the lock budget allows, but with room for `len` bytes.
fn map_shared(kind: Kind, policy: Policy, len: usize, mut size: usize) -> Result<Mapping, Refusal> {
    let least = len.max(sys::page_size());
    loop {
        // Where the budget is used up, a shorter arena is better than one that lacks what is only preferred.
        let smaller = size / 2 >= least;
        let strict = if smaller { policy.with(Control::Lock, demand_for_size(policy)) } else { policy };
        match Mapping::new(kind, size, sys::page_size(), strict) {
            // mlock says ENOMEM where the budget is used up, mmap of memfd_secret EAGAIN; EFBIG is said of the limit of files.
            Err(Refusal { errno: libc::ENOMEM | libc::EAGAIN | libc::EFBIG, .. }) if smaller => size /= 2,
            Err(_) if strict != policy => return Mapping::new(kind, size, sys::page_size(), policy),
            result => return result,
        }
    }
}

/// A preferred lock is required as long as a shorter arena may have it.
fn demand_for_size(policy: Policy) -> Demand {
    match policy.demand(Control::Lock) {
        Demand::Off => Demand::Off,
        Demand::Required | Demand::Preferred => Demand::Required,
    }
}

/// Calls `f` with what there is to know of each mapping; none is made or given back meanwhile.
pub(super) fn look<R>(f: impl FnOnce(&mut dyn Iterator<Item = Look>) -> R) -> R {
    if fork::in_child() {
        return f(&mut std::iter::empty()); // the lock is the parent's
    }
    let rooms = lock();
    let mut looks = rooms.iter().filter(|room| !room.vacant).filter_map(|room| {
        let mapping = room.mapping.as_ref()?;
        let start = mapping.data().as_ptr().addr();
        let controls = Shields::CONTROLS.map(|control| super::reached(mapping.shields(), room.class.policy, control));
        Some(Look {
            arena: room.arena,
            backend: room.kind.backend(),
            data: start..start + mapping.len(),
            live: room.arena.live(),
            sealed: room.class.sealed,
            controls: controls.to_vec(),
        })
    });
    f(&mut looks)
}

/// What there is to know of a mapping.
#[derive(Debug)]
pub(crate) struct Look {
    arena: &'static Arena,
    pub(crate) backend: Backend,
    /// Addresses.
    pub(crate) data: Range<usize>,
    /// Secrets in it.
    pub(crate) live: usize,
    pub(crate) sealed: bool,
    pub(crate) controls: Vec<Reached>,
}

impl Look {
    /// Calls `f` with whether the memory is closed, which nobody changes meanwhile.
    pub(crate) fn still<R>(&self, f: impl FnOnce(bool) -> R) -> R {
        self.arena.when_closed(f)
    }
}

/// The first run of so many free granules.
fn free_run(taken: &[bool], granules: usize) -> Option<usize> {
    let mut run = 0;
    taken.iter().enumerate().find_map(|(at, &taken)| {
        run = if taken { 0 } else { run + 1 };
        (run == granules).then(|| at + 1 - granules)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Backend, Slot};
    use crate::sys::seam;
    use crate::wipe::Schedule;

    #[test]
    fn a_run_is_found_where_it_is_and_nowhere_else() {
        let taken = [true, false, true, false, false, true];

        assert_eq!(free_run(&taken, 1), Some(1));
        assert_eq!(free_run(&taken, 2), Some(3));
        assert_eq!(free_run(&taken, 3), None);
        assert_eq!(free_run(&[], 1), None);
    }

    #[test]
    fn what_is_given_back_is_found_again_wherever_it_lies() {
        let mut rooms = Vec::new();
        let (policy, len) = (Policy::from(Backend::Mlock), SHARED / GRANULE / 2);
        let room = vacant(&mut rooms, 2 * len, Kind::Mlock, Class { policy, sealed: false });
        let take = |room: &mut Room, granules| room.take(granules).map(|place| place.index);

        let all: Vec<_> = (0..len).filter_map(|_| room.take(2)).collect();
        assert_eq!((all.len(), room.free, take(room, 1)), (len, 0, None));
        room.untake(all[7]);
        room.untake(all[3]);

        assert_eq!([1, 2, 1, 1].map(|granules| take(room, granules)), [Some(6), Some(14), Some(7), None]);
        room.untake(all[1]);
        room.untake(all[0]);
        assert_eq!([5, 3, 1].map(|granules| take(room, granules)), [None, Some(0), Some(3)]);
    }

    #[test]
    fn memory_that_the_kernel_would_not_take_back_is_told_to_the_next_who_asks() {
        let len = SHARED + 1;
        let mut rooms = Vec::new();
        own(&mut rooms, Kind::Mlock, Class::STANDARD, len, &mut Vec::new()).unwrap();
        rooms[0].arena.hide();
        rooms[0].vacant = true;
        for _ in 0..2 {
            seam::fail_next(Call::Unmap, libc::ENOMEM);
        }

        assert!(rooms[0].unmap().is_err());
        let refusal = own(&mut rooms, Kind::Mlock, Class::STANDARD, len, &mut Vec::new()).unwrap_err();
        let again = own(&mut rooms, Kind::Mlock, Class::STANDARD, len, &mut Vec::new()).unwrap();

        assert_eq!(refusal, Refusal { call: "munmap", errno: libc::ENOMEM });
        assert!(std::ptr::eq(again.arena, rooms[0].arena));
        assert_eq!((rooms.len(), seam::left()), (1, 0));
        rooms[0].arena.hide();
    }

    #[test]
    fn memory_that_could_not_be_overwritten_is_never_handed_out_again() {
        // Asked for by no other test, so the arena is this one's alone.
        let policy = Policy::from(Backend::Mlock).with(Control::Guards, Demand::Off);
        let new = || Slot::new(policy, true, 32, Schedule::Single).unwrap();
        let is_unused = |arena| lock().iter().any(|room| ptr::eq(room.arena, arena) && room.is_unused());
        let first = new();
        let at = first.address();
        drop(first);
        let mut stays = new();
        assert_eq!(stays.address(), at, "what was overwritten is handed out again");
        let arena = stays.arena();
        let beside = new();
        assert!(ptr::eq(beside.arena(), arena));
        stays.write(|bytes| bytes.fill(0xA7)).unwrap();

        // For the quick way of a drop, and for the other.
        for _ in 0..2 {
            seam::fail_next(Call::Access, libc::ENOMEM);
        }
        drop(stays);

        assert_eq!((seam::left(), arena.is_stuck()), (0, true));
        assert!(beside.read(|bytes| bytes.iter().all(|byte| *byte == 0)).unwrap(), "who is there may stay");
        let others: Vec<_> = (0..100).map(|_| new()).collect();
        assert!(others.iter().all(|slot| !ptr::eq(slot.arena(), arena)), "somebody got memory beside it");
        drop((beside, others));
        assert!(!is_unused(arena), "the kernel would get it back as it stands");
    }

    #[test]
    fn a_short_lock_budget_makes_a_shorter_arena() {
        for errno in [libc::ENOMEM, libc::EAGAIN] {
            seam::fail_next(Call::Lock, errno);
            seam::fail_next(Call::Lock, errno);

            let mapping = map_shared(Kind::Mlock, Policy::default(), 100, SHARED).unwrap();

            assert_eq!((mapping.len(), seam::left()), (SHARED / 4, 0));
        }
    }

    #[test]
    fn an_arena_is_never_shorter_than_the_secret() {
        seam::fail_next(Call::Lock, libc::ENOMEM);

        let refusal = map_shared(Kind::Mlock, Policy::default(), SHARED / 2 + 1, SHARED).unwrap_err();

        assert_eq!((refusal.errno, seam::left()), (libc::ENOMEM, 0));
    }

    #[test]
    fn a_refusal_that_size_cannot_mend_is_not_tried_again() {
        seam::fail_next(Call::Lock, libc::EPERM);

        let refusal = map_shared(Kind::Mlock, Policy::default(), 1, SHARED).unwrap_err();

        assert_eq!((refusal.errno, seam::left()), (libc::EPERM, 0));
    }
}
