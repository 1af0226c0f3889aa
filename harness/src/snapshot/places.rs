//! What kind of place an address in a stopped process is: its mappings, and what is known of them beyond their names.
//!
//! Three kinds of place have no name. An *alternate signal stack* is known from the call that named it. A *heap of an
//! arena*, in which glibc's malloc keeps the allocations of threads, lies at a multiple of 64 MiB, reserves as much, and
//! begins with a header that says how much of it may be used; that is exactly what the mapping says too. A *mapped chunk* is
//! an allocation that glibc gave a mapping of its own, and begins with a header that gives its length in pages. What does not fit
//! to the last bit stays anonymous: another allocator's memory, another build of glibc's, a header that was overwritten.
//!
//! # Source
//!
//! glibc 2.26 to 2.36, malloc/arena.c (`heap_info`, `HEAP_MAX_SIZE`), malloc/malloc.c (`sysmalloc`, `IS_MMAPPED`); sigaltstack(2).

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use findings::Class;

use super::maps::live_or_dead;
use super::{InitialStack, PAGE, Region};
use crate::target::Process;

/// What a heap of an arena reserves, and is aligned to (`HEAP_MAX_SIZE` with 64-bit addresses and small pages).
const HEAP: u64 = 64 << 20;

/// Where an arena follows the header of its first heap: before and since glibc 2.35, which notes the page size there.
const ARENA: [u64; 2] = [0x20, 0x30];

/// The shortest chunk that malloc gives a mapping of its own unless it is told otherwise: 128 KiB and a header, in pages.
const CHUNK: u64 = (128 << 10) + PAGE;

/// Marks of a mapped chunk in the low bits of its length: `IS_MMAPPED` and no other.
const MAPPED: u64 = 0b010;

/// A range of addresses.
type Range = (u64, u64);

/// The mappings of one process at one look.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    regions: Vec<Region>,
    initial: Option<InitialStack>,
    /// Stack pointers of its threads.
    pointers: Vec<u64>,
    /// Stacks of threads other than the first, which the kernel does not name, each with its pointer.
    stacks: Vec<(Range, u64)>,
    alternates: Vec<Range>,
    heaps: Vec<Range>,
    chunks: Vec<Range>,
}

impl Places {
    /// Asks what is not known yet. `threads` are the stack pointers and the thread pointers of all threads, `alternates` the
    /// stacks that they named for their signals.
    pub(crate) fn of(process: &Process, regions: Vec<Region>, threads: &[(u64, u64)], alternates: &[Range]) -> Self {
        let words = |address: u64| words(process, address);
        let stacks = stacks(&regions, threads);
        let (heaps, chunks) = (heaps(&regions, words), chunks(&regions, &stacks, words));
        let (initial, pointers) = (InitialStack::of(process), threads.iter().map(|(pointer, _)| *pointer).collect());
        let alternates = Vec::from(alternates);
        let mut places = Self { regions, initial, pointers, stacks, alternates, heaps, chunks };
        // One that is not one piece of memory from its first byte to its last says nothing.
        let inside =
            |(start, end): &Range| places.region(*start).is_some_and(|region| *end <= region.end && start < end);
        places.alternates = places.alternates.iter().copied().filter(inside).collect();
        places
    }

    /// The mappings, in ascending order.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The mapping in which an address lies.
    pub(crate) fn region(&self, address: u64) -> Option<&Region> {
        holding(&self.regions, address)
    }

    /// The kind of place; anonymous where no mapping is known.
    pub(crate) fn class(&self, address: u64) -> Class {
        let Some(region) = self.region(address) else { return Class::Anonymous };
        let holds = |(start, end): &Range, address: &u64| (*start..*end).contains(address);
        let within = |ranges: &[Range]| ranges.iter().find(|range| holds(range, &address)).copied();
        if within(&self.alternates).is_some() && !region.is_secret_memory() {
            return Class::AlternateStack;
        }
        let chunk = within(&self.chunks);
        // A stack may be an allocation, too.
        if chunk.is_some_and(|chunk| !self.pointers.iter().any(|pointer| holds(&chunk, pointer))) {
            return Class::MappedChunk;
        }
        if let Some((_, pointer)) = self.stacks.iter().find(|(stack, _)| holds(stack, &address)) {
            return live_or_dead(address, Some(*pointer));
        }
        match region.class(address, self.initial.as_ref(), &self.pointers) {
            Class::Anonymous if within(&self.heaps).is_some() => Class::Arena,
            class => class,
        }
    }
}

/// The stacks that have no name, as far as they are known: from the start of the mapping in which the pointer is to its
/// end, or to the end of the thread's control block where that lies above, as glibc puts it. The kernel joins what is
/// mapped next to a stack with it.
fn stacks(regions: &[Region], threads: &[(u64, u64)]) -> Vec<(Range, u64)> {
    let stack = |(pointer, thread): &(u64, u64)| {
        let region = holding(regions, *pointer)?;
        if !(region.name.is_empty() || region.name.starts_with("[anon")) {
            return None;
        }
        let block = thread > pointer && region.contains(*thread);
        let end = if block { region.end.min((thread / PAGE + 1) * PAGE) } else { region.end };
        Some(((region.start, end), *pointer))
    };
    threads.iter().filter_map(stack).collect()
}

/// The mapping in which an address lies; they ascend.
fn holding(regions: &[Region], address: u64) -> Option<&Region> {
    let next = regions.partition_point(|region| region.end <= address);
    regions.get(next).filter(|region| region.contains(address))
}

/// The first four words at an address, where a page is behind it: asking for one that was never touched would make it.
fn words(process: &Process, address: u64) -> Option<[u64; 4]> {
    let mut entry = [0; 8];
    process.pagemap.read_exact_at(&mut entry, address / PAGE * 8).ok()?;
    let present = u64::from_le_bytes(entry) >> 63 == 1;
    let mut bytes = [0; 32];
    process.mem.read_exact_at(&mut bytes, address).ok().filter(|()| present)?;
    let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    Some([words.next()?, words.next()?, words.next()?, words.next()?])
}

/// Whether a mapping may be malloc's.
fn is_plain(region: &Region) -> bool {
    !region.shared && region.inode == 0 && region.name.is_empty() && region.permissions.starts_with("rw")
}

/// The heaps of arenas, as far as they may be used.
fn heaps(regions: &[Region], words: impl Fn(u64) -> Option<[u64; 4]>) -> Vec<Range> {
    struct Heap {
        start: u64,
        end: u64,
        arena: u64,
        before: u64,
    }
    let mut heaps: Vec<Heap> = Vec::new();
    for (number, region) in regions.iter().enumerate().filter(|(_, region)| is_plain(region)) {
        let mut start = region.start;
        while start.is_multiple_of(HEAP) && start < region.end {
            let Some([arena, before, used, usable]) = words(start) else { break };
            let pages = |bytes: u64| bytes > 0 && bytes.is_multiple_of(PAGE);
            if !pages(used) || !pages(usable) || used > usable || usable > HEAP {
                break;
            }
            let end = start + usable;
            let reserved = match regions.get(number + 1) {
                _ if usable == HEAP => end <= region.end,
                Some(rest) => {
                    let is_reserve = rest.permissions == "---p" && rest.inode == 0 && rest.name.is_empty();
                    end == region.end && is_reserve && rest.start == end && rest.end >= start + HEAP
                }
                None => false,
            };
            if !reserved {
                break;
            }
            heaps.push(Heap { start, end, arena, before });
            start += HEAP; // a heap that is full may be followed by the next in the same mapping
        }
    }
    let firsts: BTreeSet<u64> = heaps
        .iter()
        .filter(|heap| heap.before == 0 && ARENA.contains(&heap.arena.wrapping_sub(heap.start)))
        .map(|heap| heap.arena)
        .collect();
    let starts: BTreeSet<u64> = heaps.iter().map(|heap| heap.start).collect();
    let belongs = |heap: &&Heap| firsts.contains(&heap.arena) && (heap.before == 0 || starts.contains(&heap.before));
    heaps.iter().filter(belongs).map(|heap| (heap.start, heap.end)).collect()
}

/// The chunks that have a mapping of their own. The kernel joins neighbours, the youngest lowest, and so are they looked for:
/// from the start of a mapping on, and from the end of a stack.
fn chunks(regions: &[Region], stacks: &[(Range, u64)], words: impl Fn(u64) -> Option<[u64; 4]>) -> Vec<Range> {
    let mut chunks = Vec::new();
    let ends: BTreeSet<u64> = stacks.iter().map(|((_, end), _)| *end).collect();
    for region in regions.iter().filter(|region| is_plain(region)) {
        let above = ends.range(region.start + 1..region.end).copied();
        for mut start in [region.start].into_iter().chain(above) {
            while let Some([0, length, ..]) = (start < region.end).then(|| words(start)).flatten() {
                let bytes = length & !(PAGE - 1);
                if length - bytes != MAPPED || bytes < CHUNK || bytes > region.end - start {
                    break;
                }
                chunks.push((start, start + bytes));
                start += bytes;
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const START: u64 = 0x7fff_f000_0000;

    fn region(start: u64, end: u64, permissions: &str) -> Region {
        let (name, shared) = (String::new(), false);
        Region { start, end, permissions: permissions.to_owned(), name, shared, offset: 0, device: 0, inode: 0 }
    }

    /// What is told of these mappings with these words in them.
    fn told(regions: &[Region], words: &[(u64, [u64; 4])]) -> (Vec<Range>, Vec<Range>) {
        let words: BTreeMap<u64, [u64; 4]> = words.iter().copied().collect();
        let at = |address: u64| words.get(&address).copied();
        (heaps(regions, at), chunks(regions, &[], at))
    }

    fn heap(usable: u64) -> [Region; 2] {
        [region(START, START + usable, "rw-p"), region(START + usable, START + HEAP, "---p")]
    }

    #[test]
    fn a_heap_is_told_by_its_header_and_its_mapping_together() {
        let header = |used, usable| [(START, [START + 0x30, 0, used, usable])];

        assert_eq!(told(&heap(0x21000), &header(0x20000, 0x21000)).0, [(START, START + 0x21000)]);
        // The header says another length, or has another start, or there is nothing in reserve, or nothing at all.
        assert_eq!(told(&heap(0x21000), &header(0x20000, 0x22000)).0, []);
        assert_eq!(told(&heap(0x21000), &header(0x22000, 0x21000)).0, []);
        assert_eq!(told(&heap(0x21000)[..1], &header(0x20000, 0x21000)).0, []);
        assert_eq!(told(&heap(0x21000), &[(START, [START + 0x38, 0, 0x20000, 0x21000])]).0, []);
        assert_eq!(told(&heap(0x21000), &[]).0, []);
    }

    #[test]
    fn a_second_heap_is_told_by_the_first() {
        let [next, rest] =
            heap(0x3000).map(|region| Region { start: region.start + 4 * HEAP, end: region.end + 4 * HEAP, ..region });
        let [one, reserve] = heap(0x21000);
        let first = (START, [START + 0x20, 0, 0x21000, 0x21000]);
        let second = (START + 4 * HEAP, [START + 0x20, START, 0x3000, 0x3000]);

        let both = told(&[one.clone(), reserve.clone(), next.clone(), rest.clone()], &[first, second]).0;
        let orphan = told(&[one, reserve, next, rest], &[second]).0;

        assert_eq!(both, [(START, START + 0x21000), (START + 4 * HEAP, START + 4 * HEAP + 0x3000)]);
        assert_eq!(orphan, []);
    }

    #[test]
    fn chunks_that_share_a_mapping_are_told_up_to_what_is_none() {
        let regions = [region(START, START + 0x60000, "rw-p")];
        let header = |length| [0, length, 7, 7];

        let told = |words: &[(u64, [u64; 4])]| told(&regions, words).1;
        let (one, two) = ((START, header(0x21002)), (START + 0x21000, header(0x30002)));

        assert_eq!(told(&[one, two]), [(START, START + 0x21000), (START + 0x21000, START + 0x51000)]);
        assert_eq!(told(&[two]), []);
        // Longer than the mapping, shorter than what gets one, with another mark, with something before the length.
        for words in [header(0x61002), header(0x20002), header(0x21003), header(0x21012), [8, 0x21002, 0, 0]] {
            assert_eq!(told(&[(START, words)]), [], "{words:x?}");
        }
    }
    #[test]
    fn a_thread_s_stack_ends_behind_its_control_block_and_a_chunk_may_begin_there() {
        let regions = [region(START, START + 0x60000, "rw-p")];
        let (pointer, block) = (START + 0x8000, START + 0xf6c0);

        let known = stacks(&regions, &[(pointer, block)]);
        let words = |address| (address == START + 0x10000).then_some([0, 0x21002, 0, 0]);

        assert_eq!(known, [((START, START + 0x10000), pointer)]);
        assert_eq!(chunks(&regions, &known, words), [(START + 0x10000, START + 0x31000)]);
        // Where the block is not above the pointer in the same mapping, nothing is known of the end.
        for block in [0, START + 0x7000, START + 0x70000] {
            assert_eq!(stacks(&regions, &[(pointer, block)]), [((START, START + 0x60000), pointer)]);
        }
    }
}
