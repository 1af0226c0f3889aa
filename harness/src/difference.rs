//! Two keys, one program: what in its memory depends on the key, whatever it was made into.
//!
//! A search finds the forms that somebody thought of. Here nothing is searched for. The program runs several times with
//! one key and with another, by turns, its memory at the same addresses and its random numbers the same each time. A
//! byte that is the same in all runs of a key and differs between the keys depends on the key: whatever a cipher, a
//! checksum or a parser made of it, what stays is seen. Which bits of the key it tells is not: a length, a choice of way
//! and a result that is meant for the world depend on the key too.
//!
//! How much of it is chance is measured beside: the first key runs as often once more, and what differs between its two
//! groups is noise. The order of the groups changes from turn to turn, so that a clock or a count, which goes one way, is
//! never the same in one group and another in the next, and what alternates with the number of the process changes within each.
//!
//! What is compared is what a look searches: memory, the registers of every thread, and what lies behind descriptors.
//! A page that was never touched counts as zeroes where its mapping is there.
//!
//! The image of the first run is kept while the runs last, with what differs from it, and wiped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Class, DIFFERENCE_SCHEMA, Difference, Stretch, Verdict};
use zeroize::Zeroizing;

use crate::canary::Canary;
use crate::program::{self, Needles, Options, ProgramError, Sight};
use crate::scan::{Index, Scanner};
use crate::session::Shown;
use crate::snapshot::{self, PAGE, Places, Region};

/// Pages that are kept, images and what differs from them: 512 MiB.
const MOST: usize = 1 << 17;

/// Bytes alike between two that differ that still make one stretch: a word may be alike by chance.
const GAP: u64 = 8;

/// Neighbouring bytes that change from run to run which could hold a secret: the strength of the weakest keys in use.
const TELLING: u64 = 16;

/// Bytes of an address.
const WORD: usize = 8;

/// The groups of runs.
const GROUPS: usize = 3;

/// First key, second key, first key once more; and which of them runs when in a turn.
const TURNS: [[usize; GROUPS]; 3] = [[0, 1, 2], [1, 2, 0], [2, 0, 1]];

/// Moment and process.
type At = (String, u32);

/// What a page is a part of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Memory,
    /// General registers of the thread of this number.
    General(usize),
    /// Its extended state.
    Vector(usize),
    /// What lies behind a descriptor, by the part of its name that every run shares.
    Behind(String),
}

/// What a group saw of a page, where that is not the page of the first run all the time.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether a byte was the same in all runs so far.
    steady: Vec<bool>,
}

/// One page, as the groups saw it.
struct Page {
    /// As it was when it was seen first.
    first: Zeroizing<Vec<u8>>,
    views: [Option<View>; GROUPS],
    /// The run of each group in which it was taken in last.
    last: [u32; GROUPS],
    /// Whether it was not there in some run of a group, so that nothing can be compared.
    gone: [bool; GROUPS],
}

impl Page {
    /// Takes in what a group saw in its next run. Returns how many pages more are kept.
    fn take(&mut self, group: usize, bytes: &[u8]) -> usize {
        let fresh = self.last[group] == 0;
        self.last[group] += 1;
        if self.first.len() != bytes.len() {
            self.gone[group] = true;
            return 0;
        }
        if let Some(view) = &mut self.views[group] {
            for ((steady, one), other) in view.steady.iter_mut().zip(view.bytes.iter()).zip(bytes) {
                *steady &= one == other;
            }
            return 0;
        }
        if self.first[..] == *bytes {
            return 0;
        }
        let (bytes, steady) = if fresh {
            (Zeroizing::new(bytes.to_vec()), vec![true; bytes.len()])
        } else {
            (self.first.clone(), self.first.iter().zip(bytes).map(|(one, other)| one == other).collect())
        };
        self.views[group] = Some(View { bytes, steady });
        1
    }

    /// The byte at an offset, if it was the same in all runs of a group.
    fn byte(&self, group: usize, at: usize) -> Option<u8> {
        match &self.views[group] {
            Some(view) => view.steady[at].then(|| view.bytes[at]),
            None => Some(self.first[at]),
        }
    }

    /// Whether the word that holds the byte at an offset is an address of what is mapped, under both keys.
    fn is_address(&self, offset: usize, is_mapped: impl Fn(u64) -> bool) -> bool {
        let word = |group| {
            let mut word = [0; WORD];
            for (at, byte) in (offset / WORD * WORD..).zip(&mut word) {
                *byte = if at < self.first.len() { self.byte(group, at)? } else { return None };
            }
            Some(u64::from_le_bytes(word))
        };
        [word(0), word(1)].iter().all(|word| word.is_some_and(&is_mapped))
    }

    /// What the first run of a group saw.
    fn seen(&self, group: usize) -> &[u8] {
        self.views[group].as_ref().map_or(&self.first, |view| &view.bytes)
    }
}

/// One process at one moment, as the groups saw it.
#[derive(Default)]
struct Image {
    pages: BTreeMap<(Space, u64), Page>,
    /// Where things lay in the first run that came here.
    places: Option<Places>,
    /// Kinds of what lies behind descriptors.
    stores: BTreeMap<String, Class>,
    /// Anonymous memory of its own that was there in every run of a group so far.
    mapped: [Vec<(u64, u64)>; GROUPS],
    /// Runs of each group that are over.
    over: [u32; GROUPS],
    /// The same memory in the run that goes on; `None` while it was not looked at.
    now: Option<Vec<(u64, u64)>>,
}

impl Image {
    fn is_mapped(&self, address: u64) -> bool {
        self.places.as_ref().is_some_and(|places| places.region(address).is_some())
    }

    /// Takes in a piece of a run. Returns how many pages more are kept.
    fn take(&mut self, group: usize, space: &Space, address: u64, bytes: &[u8]) -> usize {
        let mut kept = 0;
        for (number, part) in (0..).zip(bytes.chunks(PAGE as usize)) {
            let address = address + number * PAGE;
            let key = (space.clone(), address);
            if let Some(page) = self.pages.get_mut(&key) {
                // A piece that comes twice in a run, as the edges of zeroes can, was taken in.
                if page.last[group] == self.over[group] {
                    kept += page.take(group, part);
                }
                continue;
            }
            let first = Zeroizing::new(part.to_vec());
            let mut page = Page { first, views: Default::default(), last: [0; GROUPS], gone: [false; GROUPS] };
            // In the runs before it was not touched, or not there.
            let zeroes = vec![0; part.len()];
            for other in 0..GROUPS {
                for _ in 0..self.over[other] {
                    if *space == Space::Memory && covers(&self.mapped[other], address, part.len()) {
                        kept += page.take(other, &zeroes);
                    } else {
                        page.gone[other] = true;
                        page.last[other] += 1;
                    }
                }
            }
            kept += 1 + page.take(group, part);
            self.pages.insert(key, page);
        }
        kept
    }

    /// Ends a run of a group: what was not shown was not touched, or not there.
    fn end(&mut self, group: usize) -> usize {
        let mut kept = 0;
        let now = self.now.take().unwrap_or_default();
        for ((space, address), page) in &mut self.pages {
            if page.last[group] == self.over[group] {
                if *space == Space::Memory && covers(&now, *address, page.first.len()) {
                    let zeroes = vec![0; page.first.len()];
                    kept += page.take(group, &zeroes);
                } else {
                    page.gone[group] = true;
                    page.last[group] += 1;
                }
            }
        }
        self.mapped[group] = if self.over[group] == 0 { now } else { both(&self.mapped[group], &now) };
        self.over[group] += 1;
        kept
    }
}

/// Anonymous memory that a process has for itself: untouched it holds zeroes.
fn anonymous(regions: &[Region]) -> Vec<(u64, u64)> {
    let zeroes = |region: &&Region| !region.shared && region.inode == 0;
    regions.iter().filter(zeroes).map(|region| (region.start, region.end)).collect()
}

fn covers(ranges: &[(u64, u64)], address: u64, length: usize) -> bool {
    let next = ranges.partition_point(|(_, end)| *end <= address);
    ranges.get(next).is_some_and(|(start, end)| *start <= address && address + length as u64 <= *end)
}

/// What two ascending lists of ranges share.
fn both(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let overlap = |(start, end): &(u64, u64)| {
        let (start, end) = (*start, *end);
        let first = other.partition_point(|(_, before)| *before <= start);
        let shared = other[first..].iter().take_while(move |(from, _)| *from < end);
        shared.map(move |(from, to)| ((*from).max(start), (*to).min(end)))
    };
    one.iter().flat_map(overlap).collect()
}

/// All that was seen so far.
#[derive(Default)]
struct Images {
    images: BTreeMap<At, Image>,
    kept: usize,
    overflow: bool,
}

impl Images {
    fn at(&mut self, moment: &str, process: u32, over: [u32; GROUPS]) -> &mut Image {
        // One that comes late was not there in the runs before.
        self.images.entry((moment.to_owned(), process)).or_insert_with(|| Image { over, ..Image::default() })
    }

    fn take(&mut self, at: (&str, u32), over: [u32; GROUPS], group: usize, space: &Space, address: u64, bytes: &[u8]) {
        if self.kept >= MOST {
            self.overflow = true;
            return;
        }
        let kept = self.at(at.0, at.1, over).take(group, space, address, bytes);
        self.kept += kept;
    }
}

/// Runs a program `runs` times with each of two keys, and once more as often with the first.
///
/// The first key is that of the options; `other` is the second, and one of the same length is drawn where there is none.
/// What the program prints goes nowhere.
///
/// # Errors
///
/// [`ProgramError`] when it cannot be run as asked; what goes wrong later makes the result inconclusive.
pub fn run(
    options: &Options,
    other: Option<&Canary>,
    runs: u32,
    interrupted: &AtomicBool,
) -> Result<Difference, ProgramError> {
    let first = Needles::draw(options)?;
    let second = other.map_or_else(|| Needles::draw(options), |other| Needles::given(other, options))?;
    let indices = [program::index(options, &first.all())?, program::index(options, &second.all())?];
    let keys = [(&first, &indices[0]), (&second, &indices[1]), (&first, &indices[0])];
    let mut images = Images::default();
    let (mut reasons, mut found, mut over): (Vec<String>, u32, _) = (Vec::new(), 0, [0; GROUPS]);
    'all: for turn in TURNS.iter().cycle().take(usize::try_from(runs).unwrap_or(usize::MAX)) {
        for group in turn {
            if interrupted.load(Ordering::Relaxed) {
                break 'all;
            }
            let (needles, index) = keys[*group];
            let mut run = Run { images: &mut images, group: *group, over, threads: 0, behind: Vec::new() };
            let outcome = program::once_more(options, needles, index, interrupted, &mut |sight| run.see(sight))?;
            for image in images.images.values_mut() {
                images.kept += image.end(*group);
            }
            over[*group] += 1;
            if outcome.verdict == Verdict::Leak {
                found = found.max(u32::try_from(outcome.findings.len()).unwrap_or(u32::MAX));
            }
            for reason in outcome.reasons {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
    }
    if interrupted.load(Ordering::Relaxed) && !reasons.iter().any(|reason| reason == "interrupted") {
        reasons.push("interrupted".to_owned());
    }
    if images.overflow {
        reasons.push("there is more memory in use than is kept to compare (512 MiB)".to_owned());
    }
    let alone = program::index(options, &[first.canary().bytes()])?;
    let mut sums = Sums::default();
    for (at, image) in &images.images {
        sums.add(at, image, &alone);
    }
    // The target chooses the names of its files and mappings, and might choose its secret.
    for stretch in [&mut sums.keyed, &mut sums.noise, &mut sums.unknown].into_iter().flatten() {
        for index in &indices {
            stretch.place = crate::veil::nameable(std::mem::take(&mut stretch.place), index);
        }
    }
    reasons.extend(sums.reasons());
    let Sums { compared, restless, unpaired, keyed, noise, unknown } = sums;
    let mut difference = Difference {
        schema: DIFFERENCE_SCHEMA.to_owned(),
        subject: options.name(),
        runs,
        made: over.iter().sum(),
        compared,
        restless,
        unpaired,
        keyed,
        noise,
        unknown,
        found,
        verdict: Verdict::Inconclusive,
        reasons,
    };
    difference.verdict = difference.judge();
    Ok(difference)
}

/// One run, on its way into the images.
struct Run<'a> {
    images: &'a mut Images,
    group: usize,
    over: [u32; GROUPS],
    /// Threads of the current look.
    threads: usize,
    /// What was shown of a descriptor's other end, until it has a name.
    behind: Vec<(u64, Zeroizing<Vec<u8>>)>,
}

impl Run<'_> {
    fn see(&mut self, sight: Sight<'_>) {
        let (moment, process, shown) = match sight {
            Sight::Still { .. } => {
                self.threads = 0;
                return;
            }
            Sight::Shown { moment, process, shown } => (moment, process, shown),
        };
        let (at, over, group) = ((moment, process), self.over, self.group);
        match shown {
            Shown::Registers(registers) => {
                self.threads += 1;
                let [general, vector] = registers.plain();
                self.images.take(at, over, group, &Space::General(self.threads), 0, general);
                // One page, so that it is told as one area: chunks of a page are named by their addresses.
                self.images.take(at, over, group, &Space::Vector(self.threads), 0, vector);
            }
            Shown::Behind(address, bytes) => self.behind.push((address, Zeroizing::new(bytes.to_vec()))),
            Shown::BehindEnd(store) => {
                let name = snapshot::stable_part(&store.place).to_owned();
                self.images.at(moment, process, over).stores.insert(name.clone(), store.class);
                let space = Space::Behind(name);
                for (address, bytes) in self.behind.drain(..) {
                    self.images.take(at, over, group, &space, address, &bytes);
                }
            }
            Shown::Places(places) => {
                let image = self.images.at(moment, process, over);
                let now = anonymous(places.regions());
                image.now = Some(image.now.take().map_or_else(|| now.clone(), |before| both(&before, &now)));
                image.places.get_or_insert_with(|| places.clone());
            }
            Shown::Memory(address, bytes) => {
                self.images.take(at, over, group, &Space::Memory, address, bytes);
            }
        }
    }
}

/// What the images show, over all of them.
#[derive(Default)]
struct Sums {
    compared: u64,
    restless: u64,
    unpaired: u64,
    keyed: Vec<Stretch>,
    noise: Vec<Stretch>,
    unknown: Vec<Stretch>,
}

/// What the comparison of a byte says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Alike,
    Keyed,
    Noise,
    Restless,
}

impl Sums {
    fn add(&mut self, at: &At, image: &Image, index: &Index) {
        let known = Known::of(image, index);
        let [mut keyed, mut noise, mut unknown] = [(); 3].map(|()| Stretches::default());
        for ((space, start), page) in &image.pages {
            if page.gone.contains(&true) {
                let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
                if !(0..GROUPS).all(|group| zero(page.seen(group))) {
                    self.unpaired += page.first.len() as u64;
                }
                continue;
            }
            if page.views.iter().all(Option::is_none) {
                self.compared += page.first.len() as u64;
                continue;
            }
            for offset in 0..page.first.len() {
                let says = match [0, 1, 2].map(|group| page.byte(group, offset)) {
                    [Some(one), _, Some(again)] if one != again => Says::Noise,
                    [Some(one), Some(other), Some(_)] if one != other => Says::Keyed,
                    [Some(_), Some(_), Some(_)] => Says::Alike,
                    _ => Says::Restless,
                };
                self.compared += u64::from(says != Says::Restless);
                self.restless += u64::from(says == Says::Restless);
                let address = start + offset as u64;
                let place = || place(at, image, space, address);
                match says {
                    Says::Alike => {}
                    Says::Keyed => {
                        let of_words = matches!(space, Space::Memory | Space::General(_));
                        let is_address = of_words && page.is_address(offset, |address| image.is_mapped(address));
                        keyed.add(space, address, known.holds(space, address), is_address, place);
                    }
                    Says::Noise => noise.add(space, address, false, false, place),
                    Says::Restless => unknown.add(space, address, false, false, place),
                }
            }
        }
        self.keyed.extend(keyed.done);
        self.noise.extend(noise.done);
        self.unknown.extend(unknown.done.into_iter().filter(|stretch| stretch.differing >= TELLING));
    }

    /// Why the absence of a difference means nothing.
    fn reasons(&self) -> Vec<String> {
        let sum = |stretches: &[Stretch]| stretches.iter().map(|stretch| stretch.differing).sum::<u64>();
        let (keyed, noise) = (sum(&self.keyed), sum(&self.noise));
        let mut reasons = Vec::new();
        if self.compared == 0 {
            reasons.push("no byte was the same in all runs of each key".to_owned());
        }
        if keyed > 0 && keyed <= noise {
            reasons.push(format!("{keyed} bytes differ between the keys, and {noise} do between runs with one key: more runs lower the noise"));
        }
        if self.unpaired > 0 {
            let unpaired = self.unpaired;
            reasons.push(format!("{unpaired} bytes lay where other runs had no memory, and were not compared"));
        }
        if !self.unknown.is_empty() {
            let bytes = sum(&self.unknown);
            reasons.push(format!(
                "{bytes} bytes, {TELLING} or more beside each other, change from run to run with one key: whether they \
                 depend on the key cannot be told"
            ));
        }
        reasons
    }
}

/// Neighbouring bytes, put together.
#[derive(Default)]
struct Stretches {
    done: Vec<Stretch>,
    last: Option<Space>,
}

impl Stretches {
    /// Takes the next byte; they ascend.
    fn add(&mut self, space: &Space, address: u64, known: bool, is_address: bool, place: impl FnOnce() -> Stretch) {
        let register = matches!(space, Space::General(_) | Space::Vector(_));
        let same = self.last.as_ref() == Some(space);
        let new = match self.done.last_mut().filter(|_| same) {
            // The bytes of a register lie apart: it is told by name, as a whole.
            Some(last) if register => {
                let new = place();
                if last.place == new.place {
                    last.length += 1;
                    last.differing += 1;
                    last.known += u64::from(known);
                    last.addresses += u64::from(is_address);
                    return;
                }
                new
            }
            Some(last) if address - (last.address + last.length) <= GAP => {
                last.length = address + 1 - last.address;
                last.differing += 1;
                last.known += u64::from(known);
                last.addresses += u64::from(is_address);
                return;
            }
            _ => place(),
        };
        self.last = Some(space.clone());
        self.done.push(Stretch { known: u64::from(known), addresses: u64::from(is_address), ..new });
    }
}

/// Where a byte lies, as a stretch of one.
fn place((moment, process): &At, image: &Image, space: &Space, address: u64) -> Stretch {
    let offset = usize::try_from(address).unwrap_or(usize::MAX);
    let (class, place, address) = match space {
        Space::Memory => {
            let places = image.places.as_ref();
            let region = places.and_then(|places| places.region(address));
            let class = places.map_or(Class::Anonymous, |places| places.class(address));
            (class, region.map(|region| region.name.clone()).unwrap_or_default(), address)
        }
        Space::General(thread) => {
            (Class::Register, format!("{} of thread {thread}", snapshot::register_name(None, offset)), 0)
        }
        Space::Vector(thread) => {
            let area = area(image, *thread);
            (Class::Register, format!("{} of thread {thread}", snapshot::register_name(Some(&area), offset)), 0)
        }
        Space::Behind(name) => (image.stores.get(name).copied().unwrap_or(Class::Pipe), name.clone(), address),
    };
    let (checkpoint, process) = (moment.clone(), *process);
    Stretch { checkpoint, process, class, place, address, length: 1, differing: 1, known: 0, addresses: 0 }
}

/// The extended state of a thread in the first run.
fn area(image: &Image, thread: usize) -> Zeroizing<Vec<u8>> {
    let from = (Space::Vector(thread), 0)..=(Space::Vector(thread), u64::MAX);
    Zeroizing::new(image.pages.range(from).flat_map(|(_, page)| page.seen(0).iter().copied()).collect())
}

/// What a search for the first key's known forms finds in its first run.
struct Known {
    /// Ranges of addresses, in ascending order of their starts.
    found: Vec<(Space, u64, u64)>,
}

impl Known {
    fn of(image: &Image, index: &Index) -> Self {
        let mut found = Vec::new();
        let mut spaces: Vec<&Space> = image.pages.keys().map(|(space, _)| space).collect();
        spaces.dedup();
        for space in spaces {
            if let Space::Vector(thread) = space {
                let explained = snapshot::explained_registers(&area(image, *thread), index);
                found.extend(explained.into_iter().map(|at| (space.clone(), at as u64, at as u64 + 1)));
                continue;
            }
            let mut scanner = Scanner::new(index);
            for ((_, at), page) in image.pages.range((space.clone(), 0)..=(space.clone(), u64::MAX)) {
                scanner.feed(*at, page.seen(0));
            }
            let hits = scanner.finish();
            found.extend(hits.iter().map(|hit| (space.clone(), hit.address, hit.address + hit.length)));
        }
        Self { found }
    }

    fn holds(&self, space: &Space, address: u64) -> bool {
        self.found.iter().any(|(other, start, end)| other == space && (*start..*end).contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: [(u64, u64); 1] = [(0x1000, 0x3000)];

    /// Runs by turns: what the first page showed in each run of the first key, the second, and the first again; `None`
    /// where it was not shown.
    fn image(turns: &[[Option<&[u8]>; GROUPS]], mapped: &[(u64, u64)]) -> Image {
        let mut image = Image::default();
        for turn in turns {
            for (group, bytes) in turn.iter().enumerate() {
                image.now = Some(mapped.to_vec());
                if let Some(bytes) = bytes {
                    image.take(group, &Space::Memory, 0x1000, bytes);
                }
                image.end(group);
            }
        }
        image
    }

    fn sums(turns: &[[Option<&[u8]>; GROUPS]], mapped: &[(u64, u64)]) -> Sums {
        let index = Index::new(&[b"a secret of 32 random bytes or so"], &[crate::scan::Form::Raw], 6).unwrap();
        let mut sums = Sums::default();
        sums.add(&("exit".to_owned(), 1), &image(turns, mapped), &index);
        sums
    }

    fn shown(stretches: &[Stretch]) -> Vec<(u64, u64, u64)> {
        stretches.iter().map(|one| (one.address, one.length, one.differing)).collect()
    }

    #[test]
    fn only_bytes_that_are_steady_within_each_group_and_differ_between_the_keys_count() {
        let one = [Some(&b"abcdefghijklmnop"[..]), Some(b"aBCdefghijklmnoP"), Some(b"abcdefghijklmnop")];
        let two = [Some(&b"abXdefghijklmnop"[..]), Some(b"aBCdefghijklmnoP"), Some(b"abcdefghijklmnop")];

        let sums = sums(&[one, two], &OPEN);

        assert_eq!(shown(&sums.keyed), [(0x1001, 1, 1), (0x100f, 1, 1)]);
        assert_eq!((sums.compared, sums.restless, shown(&sums.noise)), (15, 1, Vec::new()));
    }

    #[test]
    fn a_word_is_an_address_where_it_is_one_under_both_keys() {
        let page = |words: [[u64; 2]; 2]| {
            let bytes = words.map(|words| words.map(u64::to_le_bytes).concat());
            let turn = [Some(&bytes[0][..]), Some(&bytes[1]), Some(&bytes[0])];
            image(&[turn, turn], &OPEN).pages.into_values().next().unwrap()
        };
        let is_mapped = |address| (0x1000..0x3000).contains(&address);
        let told = |page: Page| [0, 1, 7, 8, 15].map(|offset| page.is_address(offset, is_mapped));

        assert_eq!(told(page([[0x1010, 7], [0x2f18, 9]])), [true, true, true, false, false]);
        assert_eq!(told(page([[0x1010, 0x1000], [0x3010, 0x2000]])), [false, false, false, true, true]);
    }

    #[test]
    fn what_differs_between_two_groups_with_one_key_is_noise_and_nothing_else() {
        let turn = [Some(&b"abcd"[..]), Some(b"xbcd"), Some(b"ybcd")];

        let sums = sums(&[turn, turn], &OPEN);

        assert_eq!((shown(&sums.noise), shown(&sums.keyed)), (vec![(0x1000, 1, 1)], Vec::new()));
    }

    #[test]
    fn a_page_that_one_key_never_touches_holds_zeroes_where_its_mapping_is_there() {
        let turn = [Some(&b"\0key"[..]), None, Some(b"\0key")];

        assert_eq!(shown(&sums(&[turn, turn], &OPEN).keyed), [(0x1001, 3, 3)]);
        let elsewhere = sums(&[turn, turn], &[(0x8000, 0x9000)]);
        assert_eq!((elsewhere.compared, elsewhere.unpaired), (0, 4));
        assert!(elsewhere.reasons().iter().any(|reason| reason.contains("no memory")));
    }

    #[test]
    fn a_page_that_comes_late_was_zeroes_before_or_is_not_compared() {
        let (without, with) = ([None; GROUPS], [Some(&b"\0key"[..]), Some(b"\0other"), Some(b"\0key")]);
        let with = with.map(|bytes| bytes.map(|bytes| &bytes[..4]));

        let here = sums(&[without, with], &OPEN);
        assert_eq!((here.compared, here.restless, shown(&here.keyed)), (1, 3, Vec::new()));
        assert_eq!(sums(&[without, with], &[]).unpaired, 4);
    }

    #[test]
    fn many_restless_bytes_beside_each_other_are_told_and_few_are_not() {
        let (one, two): (Vec<u8>, Vec<u8>) = ((0..64).collect(), (64..128).collect());
        let turns = |length: usize| {
            let run = |bytes: &[u8]| [bytes, &[0; 64]].concat()[64 - length..128 - length].to_vec();
            [run(&one), run(&two)]
        };
        for (length, told) in [(15, 0), (16, 1), (64, 1)] {
            let [one, two] = turns(length);
            let sums = sums(&[[Some(&one); 3], [Some(&two); 3]], &OPEN);

            assert_eq!((sums.restless, sums.unknown.len()), (length as u64, told));
            assert_eq!(sums.reasons().is_empty(), told == 0);
        }
    }

    #[test]
    fn a_count_that_goes_one_way_is_never_taken_for_the_key() {
        // Whenever it goes on, and however long the runs are in between.
        for runs in 2..6_usize {
            let order: Vec<usize> = TURNS.iter().cycle().take(runs).flatten().copied().collect();
            for step in 0..=order.len() {
                let mut seen: [Vec<bool>; GROUPS] = Default::default();
                for (number, group) in order.iter().enumerate() {
                    seen[*group].push(number >= step);
                }
                let steady = |group: usize| seen[group].windows(2).all(|pair| pair[0] == pair[1]);
                let taken = steady(0) && steady(1) && seen[0][0] != seen[1][0];
                assert!(!taken, "{runs} runs, {step}");
            }
        }
    }

    #[test]
    fn what_two_lists_of_ranges_share_is_found() {
        assert_eq!(both(&[(0, 10), (20, 30)], &[(5, 22), (25, 40)]), [(5, 10), (20, 22), (25, 30)]);
        assert_eq!(both(&[(0, 10)], &[]), []);
    }
}
