//! Which mapping a secret goes to, and which granules of it are free.
//!
//! Secrets share arenas of [`SHARED`] bytes; a longer one gets a mapping of its own, which is unmapped with it. Shared
//! arenas stay: the first touch of such memory is dear, and the next secret will want it.
//!
//! Everything is under one lock. Accesses, deadlines and purges never take it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::list::{Arena, GRANULE};
use super::mapping::{Kind, Mapping, Shields};
use super::{Backend, fork};
use crate::error::{Error, Refusal};
use crate::sys;

/// Bytes of a shared arena, where the lock budget allows it; halved down to a page where not.
const SHARED: usize = 64 << 10;

static POOL: Mutex<Vec<Room>> = Mutex::new(Vec::new());

/// An arena and what is free in it.
#[derive(Debug)]
struct Room {
    arena: &'static Arena,
    kind: Kind,
    /// `None` where a secret's own mapping has been unmapped: the next such secret moves in.
    mapping: Option<Mapping>,
    /// One a granule: whether a slot covers it. Empty for a secret's own mapping.
    taken: Vec<bool>,
    free: usize,
    /// A place for a mapping of its own in which no secret lives; a mapping is still there only if the kernel refused to
    /// take it back.
    vacant: bool,
}

impl Room {
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
    pub(super) arena: &'static Arena,
    pub(super) index: usize,
    pub(super) kind: Kind,
    pub(super) shields: Shields,
    /// Why memfd_secret could not be had, where that was the first choice.
    pub(super) why: Option<Refusal>,
}

/// Takes a free place for `len` bytes.
pub(super) fn take(asked: Backend, len: usize) -> Result<Grant, Error> {
    fork::watch(asked, len)?;
    let mut rooms = lock();
    match asked {
        Backend::MemfdSecret => {
            take_from(&mut rooms, Kind::MemfdSecret, len, None).map_err(refused(asked, len, Kind::MemfdSecret, None))
        }
        Backend::Mlock => take_from(&mut rooms, Kind::Mlock, len, None).map_err(refused(asked, len, Kind::Mlock, None)),
        Backend::Auto => take_from(&mut rooms, Kind::MemfdSecret, len, None).or_else(|first| {
            take_from(&mut rooms, Kind::Mlock, len, Some(first)).map_err(refused(asked, len, Kind::Mlock, Some(first)))
        }),
    }
}

/// A refused call as the error of whoever asked for `len` bytes.
pub(super) fn refused(asked: Backend, len: usize, tried: Kind, before: Option<Refusal>) -> impl Fn(Refusal) -> Error {
    let tried = tried.backend();
    move |refusal| Error::Refused { asked, tried, len, call: refusal.call, before, source: refusal.cause() }
}

/// Makes a vacated place free again.
pub(super) fn give_back(arena: &'static Arena, index: usize) {
    let mut rooms = lock();
    let Some(room) = rooms.iter_mut().find(|room| std::ptr::eq(room.arena, arena)) else {
        debug_assert!(false, "an arena that the pool does not know");
        return;
    };
    if room.taken.is_empty() {
        arena.hide();
        room.vacant = true;
        // Refused, it is tried again when the next such secret is made, whose maker can be told.
        let _ = room.unmap();
        return;
    }
    let granules = arena.slot(index).len.load(Ordering::Acquire) / GRANULE;
    room.taken[index..index + granules].fill(false);
    room.free += granules;
}

fn lock() -> MutexGuard<'static, Vec<Room>> {
    // Nothing is half done where the lock is held and something could panic, so a poisoned pool is as good as any.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_from(rooms: &mut Vec<Room>, kind: Kind, len: usize, why: Option<Refusal>) -> Result<Grant, Refusal> {
    let (at, index) = if len > SHARED { own(rooms, kind, len)? } else { shared(rooms, kind, len)? };
    let Room { arena, ref mapping, .. } = rooms[at];
    let shields = mapping.as_ref().map(Mapping::shields).unwrap_or_default();
    Ok(Grant { arena, index, kind, shields, why })
}

/// A run of granules in a shared arena, in a new one if need be.
fn shared(rooms: &mut Vec<Room>, kind: Kind, len: usize) -> Result<(usize, usize), Refusal> {
    let granules = len.max(1).div_ceil(GRANULE);
    let fits = |room: &Room| {
        let may = room.kind == kind && room.free >= granules;
        if may { free_run(&room.taken, granules) } else { None }
    };
    let found = rooms.iter().enumerate().find_map(|(at, room)| Some((at, fits(room)?)));
    let (at, index) = match found {
        Some(place) => place,
        None => {
            let mapping = map_shared(kind, len)?;
            let slots = mapping.len() / GRANULE;
            let arena = Arena::new(slots);
            arena.show(mapping.data(), mapping.len());
            rooms.push(Room {
                arena,
                kind,
                mapping: Some(mapping),
                taken: vec![false; slots],
                free: slots,
                vacant: false,
            });
            (rooms.len() - 1, 0)
        }
    };
    let room = &mut rooms[at];
    room.taken[index..index + granules].fill(true);
    room.free -= granules;
    room.arena.slot(index).len.store(granules * GRANULE, Ordering::Release);
    Ok((at, index))
}

/// A mapping for one secret alone.
fn own(rooms: &mut Vec<Room>, kind: Kind, len: usize) -> Result<(usize, usize), Refusal> {
    rooms.iter_mut().filter(|room| room.vacant).try_for_each(Room::unmap)?;
    let mapping = Mapping::new(kind, len, sys::page_size())?;
    let at = rooms.iter().position(|room| room.vacant).unwrap_or_else(|| {
        rooms.push(Room { arena: Arena::new(1), kind, mapping: None, taken: Vec::new(), free: 0, vacant: true });
        rooms.len() - 1
    });
    let room = &mut rooms[at];
    room.kind = kind;
    room.arena.slot(0).len.store(mapping.len(), Ordering::Release);
    room.arena.show(mapping.data(), mapping.len());
    room.mapping = Some(mapping);
    room.vacant = false;
    Ok((at, 0))
}

/// A new shared arena, as long as the lock budget allows, but with room for `len` bytes.
fn map_shared(kind: Kind, len: usize) -> Result<Mapping, Refusal> {
    let least = len.max(sys::page_size());
    let mut size = SHARED;
    loop {
        match Mapping::new(kind, size, sys::page_size()) {
            // mlock says ENOMEM where the budget is used up, mmap of memfd_secret EAGAIN.
            Err(Refusal { errno: libc::ENOMEM | libc::EAGAIN, .. }) if size / 2 >= least => size /= 2,
            result => return result,
        }
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
    use crate::sys::{Call, seam};

    #[test]
    fn a_run_is_found_where_it_is_and_nowhere_else() {
        let taken = [true, false, true, false, false, true];

        assert_eq!(free_run(&taken, 1), Some(1));
        assert_eq!(free_run(&taken, 2), Some(3));
        assert_eq!(free_run(&taken, 3), None);
        assert_eq!(free_run(&[], 1), None);
    }

    #[test]
    fn memory_that_the_kernel_would_not_take_back_is_told_to_the_next_who_asks() {
        let len = SHARED + 1;
        let mut rooms = Vec::new();
        let (at, _) = own(&mut rooms, Kind::Mlock, len).unwrap();
        rooms[at].arena.hide();
        rooms[at].vacant = true;
        for _ in 0..2 {
            seam::fail_next(Call::Unmap, libc::ENOMEM);
        }

        assert!(rooms[at].unmap().is_err());
        let refusal = own(&mut rooms, Kind::Mlock, len).unwrap_err();
        let (again, _) = own(&mut rooms, Kind::Mlock, len).unwrap();

        assert_eq!(refusal, Refusal { call: "munmap", errno: libc::ENOMEM });
        assert_eq!((again, rooms.len(), seam::left()), (at, 1, 0));
        rooms[at].arena.hide();
    }

    #[test]
    fn a_short_lock_budget_makes_a_shorter_arena() {
        for errno in [libc::ENOMEM, libc::EAGAIN] {
            seam::fail_next(Call::Lock, errno);
            seam::fail_next(Call::Lock, errno);

            let mapping = map_shared(Kind::Mlock, 100).unwrap();

            assert_eq!((mapping.len(), seam::left()), (SHARED / 4, 0));
        }
    }

    #[test]
    fn an_arena_is_never_shorter_than_the_secret() {
        seam::fail_next(Call::Lock, libc::ENOMEM);

        let refusal = map_shared(Kind::Mlock, SHARED / 2 + 1).unwrap_err();

        assert_eq!((refusal.errno, seam::left()), (libc::ENOMEM, 0));
    }

    #[test]
    fn a_refusal_that_size_cannot_mend_is_not_tried_again() {
        seam::fail_next(Call::Lock, libc::EPERM);

        let refusal = map_shared(Kind::Mlock, 1).unwrap_err();

        assert_eq!((refusal.errno, seam::left()), (libc::EPERM, 0));
    }
}
