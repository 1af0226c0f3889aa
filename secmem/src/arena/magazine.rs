//! Free slots that a thread keeps at hand, so that it makes and ends small secrets without a lock.
//!
//! What a thread keeps is of no use to others: no more than [`ROUNDS`] slots of a size, given back when it ends.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::list::{Arena, SlotMeta};
use super::mapping::Kind;

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
        self.meta().len.load(Ordering::Acquire)
    }
}

/// Slots of one size that a thread keeps.
pub(super) const ROUNDS: usize = 16;

/// Slots of up to so many granules are kept.
const LARGEST: usize = 8;

struct Shelf {
    count: Cell<usize>,
    places: [Cell<Option<Place>>; ROUNDS],
}

struct Magazine([[Shelf; LARGEST]; 2]);

thread_local! {
    static MAGAZINE: Magazine = const {
        Magazine([const { [const { Shelf { count: Cell::new(0), places: [const { Cell::new(None) }; ROUNDS] } }; LARGEST] }; 2])
    };
}

/// A slot of so many granules, if the thread has one.
#[inline]
pub(super) fn take(kind: Kind, granules: usize) -> Option<Place> {
    with(kind, granules, |shelf| {
        let count = shelf.count.get().checked_sub(1)?;
        shelf.count.set(count);
        shelf.places[count].take()
    })
    .flatten()
}

/// Keeps a free slot of so many granules; `false` if there is no room for it.
#[inline]
pub(super) fn keep(kind: Kind, granules: usize, place: Place) -> bool {
    let kept = with(kind, granules, |shelf| {
        let count = shelf.count.get();
        let Some(free) = shelf.places.get(count) else { return false };
        free.set(Some(place));
        shelf.count.set(count + 1);
        true
    });
    kept == Some(true)
}

/// `None` for a size that is not kept, or in a thread that is ending.
#[inline]
fn with<R>(kind: Kind, granules: usize, f: impl FnOnce(&Shelf) -> R) -> Option<R> {
    let kind = match kind {
        Kind::MemfdSecret => 0,
        Kind::Mlock => 1,
    };
    MAGAZINE.try_with(|magazine| magazine.0[kind].get(granules.wrapping_sub(1)).map(f)).ok().flatten()
}

impl Drop for Magazine {
    fn drop(&mut self) {
        for shelf in self.0.iter().flatten() {
            shelf.count.set(0);
            for place in shelf.places.iter().filter_map(Cell::take) {
                super::pool::put_back(place);
            }
        }
    }
}
