//! What is to end, in the order of time: a heap whose entries know where they stand in it, so that one which is called off is
//! taken out without a search.
//!
//! Most deadlines are set later than those that stand, and called off soon after: both are done at the end of the heap, in a
//! few steps, however many stand before it.

use std::sync::Arc;

use super::{BATCH, Terms, Time};
use crate::arena::Ticket;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) ticket: Ticket,
    pub(super) terms: Arc<Terms>,
}

/// Which entry is meant: its cell, and the count of those that were put in before, for cells are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    cell: u32,
    count: u64,
}

#[derive(Debug)]
struct Cell {
    count: u64,
    /// Where it stands in the heap.
    place: usize,
    /// `None`: the cell is free.
    entry: Option<Entry>,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Times, each with its cell: none is earlier than the one at half its place.
    heap: Vec<(Time, u32)>,
    cells: Vec<Cell>,
    free: Vec<u32>,
    count: u64,
    pub(super) watched: bool,
    /// The thread sleeps until then; `None` for as long as nobody wakes it.
    pub(super) asleep_until: Option<Time>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { heap: Vec::new(), cells: Vec::new(), free: Vec::new(), count: 0, watched: false, asleep_until: None }
    }

    /// Puts an entry in; says whether it is the earliest now.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) -> (Key, bool) {
        self.count += 1;
        let (count, at, place) = (self.count, entry.at, self.heap.len());
        let new = Cell { count, place, entry: Some(entry) };
        let cell = match self.free.pop() {
            Some(cell) => {
                self.cells[cell as usize] = new;
                cell
            }
            None => {
                self.cells.push(new);
                u32::try_from(self.cells.len() - 1).expect("fewer entries than fill the memory")
            }
        };
        self.heap.push((at, cell));
        (Key { cell, count }, self.rise(place) == 0)
    }

    /// The entry, if it was not taken out yet.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.cells.get_mut(key.cell as usize).filter(|cell| cell.count == key.count)?.entry.as_mut()
    }

    /// Takes the entry out, if that was not done yet.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let cell = self.cells.get_mut(key.cell as usize).filter(|cell| cell.count == key.count)?;
        let entry = cell.entry.take()?;
        let place = cell.place;
        self.free.push(key.cell);
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
        }
        Some(entry)
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<Time> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes out what is over at `now`, but no more than [`BATCH`]; an entry whose time has moved is put back at that time.
    /// Who wants to know of it joins `over`.
    pub(super) fn take_due(&mut self, now: Time, over: &mut Vec<Arc<Terms>>) -> Vec<Ticket> {
        let mut due = Vec::new();
        while due.len() < BATCH
            && let Some((_, cell)) = self.heap.first().copied().filter(|(at, _)| *at <= now)
        {
            let Cell { count, entry, .. } = &mut self.cells[cell as usize];
            let Some(first) = entry.as_mut() else { break }; // what stands in the heap has one
            match first.terms.due(now) {
                Some(later) if later > now => {
                    first.at = later;
                    self.heap[0].0 = later;
                    self.settle(0);
                }
                ends => {
                    let key = Key { cell, count: *count };
                    let Some(entry) = self.remove(key).filter(|_| ends.is_some()) else { continue };
                    due.push(entry.ticket);
                    if entry.terms.told.is_some() {
                        over.push(entry.terms);
                    }
                }
            }
        }
        due
    }

    /// Lets what stands at `place` go where it belongs.
    fn settle(&mut self, place: usize) {
        let place = self.rise(place);
        self.sink(place);
    }

    /// Lets it change places with what stands above it and is later; says where it came to.
    #[inline]
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].0 <= self.heap[place].0 {
                break;
            }
            self.swap(above, place);
            place = above;
        }
        self.note(place);
        place
    }

    /// Lets it change places with the earlier one of the two below, as long as that is earlier.
    fn sink(&mut self, mut place: usize) {
        loop {
            let below = 2 * place + 1;
            let Some(left) = self.heap.get(below) else { break };
            let below = if self.heap.get(below + 1).is_some_and(|right| right.0 < left.0) { below + 1 } else { below };
            if self.heap[place].0 <= self.heap[below].0 {
                break;
            }
            self.swap(place, below);
            place = below;
        }
        self.note(place);
    }

    /// Swaps two, and notes where the one has come from that is not looked at any more.
    fn swap(&mut self, above: usize, below: usize) {
        self.heap.swap(above, below);
        self.note(above);
        self.note(below);
    }

    /// Notes in the cell where it stands.
    #[inline]
    fn note(&mut self, place: usize) {
        let cell = self.heap[place].1;
        self.cells[cell as usize].place = place;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::arena::Slot;
    use crate::deadline::{Clock, TestClock};
    use crate::policy::Policy;
    use crate::wipe::Schedule;

    /// Entries that end at these milliseconds, all of one slot.
    struct Made {
        queue: Queue,
        keys: Vec<Key>,
        clock: TestClock,
        slot: Slot,
    }

    impl Made {
        fn new(times: impl IntoIterator<Item = u64>) -> Self {
            let slot = Slot::new(Policy::default(), false, 1, Schedule::Single).unwrap();
            let mut made = Self { queue: Queue::new(), keys: Vec::new(), clock: TestClock::new(), slot };
            for at in times {
                made.insert(at);
            }
            made
        }

        fn insert(&mut self, at: u64) -> bool {
            let at = Duration::from_millis(at);
            let clock = Clock::Test(self.clock);
            let terms = Arc::new(Terms::new(clock, clock.now(), Some(at), None, None));
            let (key, first) = self.queue.insert(Entry { at, ticket: self.slot.ticket(), terms });
            self.keys.push(key);
            first
        }

        /// Takes all out, each at its time; the times.
        fn drain(&mut self) -> Vec<u64> {
            let mut times = Vec::new();
            while let Some(at) = self.queue.first() {
                let taken = self.queue.take_due(at, &mut Vec::new());
                times.extend(std::iter::repeat_n(at.as_millis() as u64, taken.len()));
            }
            times
        }

        fn check(&self) {
            for (place, (at, cell)) in self.queue.heap.iter().enumerate() {
                let cell = &self.queue.cells[*cell as usize];
                assert_eq!((cell.place, cell.entry.as_ref().map(|entry| entry.at)), (place, Some(*at)));
                assert!(self.queue.heap[place.saturating_sub(1) / 2].0 <= *at);
            }
        }
    }

    /// Numbers without an order that anybody sees, the same each time.
    fn mixed(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54)
    }

    #[test]
    fn entries_come_out_in_the_order_of_their_times_however_they_went_in() {
        for count in [0, 1, 2, 3, 10, 500] {
            let mut times: Vec<u64> = mixed(count).collect();
            let mut made = Made::new(times.iter().copied());
            made.check();

            times.sort_unstable();
            assert_eq!(made.drain(), times);
        }
    }

    #[test]
    fn one_that_is_called_off_does_not_come_and_the_others_stay_in_order() {
        let mut times: Vec<(usize, u64)> = mixed(500).enumerate().collect();
        let mut made = Made::new(times.iter().map(|(_, at)| *at));
        let keys = made.keys.clone();

        for (at, key) in keys.iter().enumerate().filter(|(at, _)| at % 3 != 0) {
            assert!(made.queue.remove(*key).is_some(), "{at}");
            assert!(made.queue.remove(*key).is_none(), "{at}");
        }
        made.check();

        times.retain(|(at, _)| at % 3 == 0);
        let mut left: Vec<u64> = times.iter().map(|(_, at)| *at).collect();
        left.sort_unstable();
        assert_eq!(made.drain(), left);
    }

    #[test]
    fn a_cell_that_is_used_again_is_not_reached_by_its_first_key() {
        let mut made = Made::new([7]);
        let first = made.keys[0];
        assert!(made.queue.remove(first).is_some());
        made.insert(9);

        assert_eq!((made.queue.cells.len(), made.keys[1].cell), (1, first.cell));
        assert!(made.queue.get_mut(first).is_none() && made.queue.remove(first).is_none());
        assert!(made.queue.get_mut(made.keys[1]).is_some());
    }

    #[test]
    fn who_comes_first_is_told_so() {
        let mut made = Made::new([]);

        let first: Vec<bool> = [5, 7, 5, 4, 9, 1].map(|at| made.insert(at)).into();

        assert_eq!(first, [true, false, false, true, false, true]);
    }

    #[test]
    fn an_entry_whose_time_has_moved_is_put_back_at_that_time() {
        let mut made = Made::new([5, 6, 7]);
        let at = Duration::from_millis(1); // it said so when it was put in
        made.queue.insert(Entry { at, ..made.queue.cells[1].entry.as_ref().map(Entry::copy).unwrap() });

        assert!(made.queue.take_due(Duration::from_millis(4), &mut Vec::new()).is_empty());
        made.check();
        assert_eq!(made.drain(), [5, 6, 6, 7]);
    }

    impl Entry {
        fn copy(&self) -> Self {
            Self { at: self.at, ticket: self.ticket, terms: Arc::clone(&self.terms) }
        }
    }

    #[test]
    fn no_more_than_a_batch_is_taken_out_at_once() {
        let mut made = Made::new(std::iter::repeat_n(0, BATCH + 1));

        let taken = [(); 3].map(|()| made.queue.take_due(Duration::ZERO, &mut Vec::new()).len());

        assert_eq!(taken, [BATCH, 1, 0]);
    }
}
