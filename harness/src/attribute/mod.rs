//! Who wrote a residue: the row is run again with its words watched.
//!
//! ```text
//! run with a fixed layout ─► findings ─► words ─► run again, words watched ─► the last write to each
//!                                ▲                                                     │
//!                                └── it does not stand there again: its new words ◄────┴─► it does: walk, name
//! ```
//!
//! The last write to a word before the look is its writer, so no value has to match and random secrets do. It counts
//! only if the residue stands at the same address in the very run that was watched, and if the word still holds what
//! that write left. Anything else is *not attributed*, with the reason.

mod image;
mod register;
mod symbols;
mod unwind;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Class, Finding, Machine, Writer};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use scenario_protocol::Row;

use crate::audit::{self, Options};
use crate::canary::Canary;
use crate::handler::Handler;
use crate::scan::Index;
use crate::session::{self, Look, Setting, Spot, chain};
use crate::snapshot::Region;
use crate::target::{How, Layout, Slot, Target, Trail, Word};
use crate::variants::FORMS;
use crate::{judge, machine, private, program};

pub(crate) use image::Images;
use unwind::{Walk, walk};

/// Watched runs that a finding gets before it is given up.
const ATTEMPTS: u32 = 4;

/// Names the writers of findings of one row, in place: each gets a [`Writer`], or the reason why it has none.
///
/// The findings may come from any run of the row with any seed: they are known again by their fingerprints. Never
/// fails; what goes wrong is a reason.
pub fn attribute(
    row: &Row,
    machine: &Machine,
    options: &Options,
    findings: &mut [&mut Finding],
    interrupted: &AtomicBool,
) {
    each(findings, interrupted, || {
        if let Some(why) = machine::lacks(machine, &row.needs) {
            return Err(why);
        }
        Rerun::new(row, machine, options, interrupted)
    });
}

/// The same for findings of one program, which need no catalogue: it is run again with one secret, the same random
/// numbers, and its output thrown away.
pub(crate) fn attribute_program(
    options: &program::Options,
    input: &program::Input,
    findings: &mut [&mut Finding],
    interrupted: &AtomicBool,
) {
    each(findings, interrupted, || program::Rerun::new(options, input, interrupted).map_err(|error| chain(&error)));
}

fn each<S: Subject>(
    findings: &mut [&mut Finding],
    interrupted: &AtomicBool,
    subject: impl FnOnce() -> Result<S, String>,
) {
    let mut wanted: Vec<Wanted<'_>> = Wanted::all(findings);
    for wanted in &mut wanted {
        wanted.refuse_what_cannot_be_watched();
    }
    if wanted.iter().all(|wanted| !wanted.is_open()) {
        return;
    }
    let searched = subject().and_then(|subject| search(&subject, &mut wanted, interrupted));
    if let Err(why) = searched {
        for open in wanted.iter_mut().filter(|wanted| !wanted.done) {
            open.give_up(&why);
        }
    }
}

/// What can be run again and again, and leaves its residues in the same places as far as it can be made to.
pub(crate) trait Subject {
    /// Whether it can be given the same clock and process number in every run.
    fn can_be_pinned(&self) -> bool;

    /// Runs it once more, with words watched or none; `pinned` with the clock and the process number of all such runs. Why
    /// nothing could be seen is told in words.
    fn run(&self, watching: Option<&Watching<'_>>, pinned: bool) -> Result<Seen, String>;
}

/// How much is made the same in every run: as little as will do, for a program may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// Addresses, and a program's random numbers.
    First {
        /// Whether there is more that can be done.
        last: bool,
    },
    /// The clock and the process number as well.
    Pinned,
}

fn search(subject: &impl Subject, wanted: &mut [Wanted<'_>], interrupted: &AtomicBool) -> Result<(), String> {
    let names = Names { images: IMAGES.with(Rc::clone), home: std::env::current_dir().ok() };
    let _one_cpu = OneCpu::take(); // a trap costs four times as much across two
    let last = !subject.can_be_pinned();
    if wanted.iter().any(|wanted| wanted.is_open() && wanted.is_register()) {
        register::search(subject, wanted, &names, interrupted)?;
    }
    if wanted.iter().all(|wanted| !wanted.is_open()) {
        return Ok(());
    }
    try_hard(subject, wanted, Effort::First { last }, &names, interrupted)?;
    let mut tired = wanted.iter_mut().filter(|wanted| wanted.tired).peekable();
    if tired.peek().is_none() {
        return Ok(());
    }
    tired.for_each(|wanted| (wanted.tired, wanted.attempts) = (false, 0));
    try_hard(subject, wanted, Effort::Pinned, &names, interrupted)
}

fn try_hard(
    subject: &impl Subject,
    wanted: &mut [Wanted<'_>],
    effort: Effort,
    names: &Names,
    interrupted: &AtomicBool,
) -> Result<(), String> {
    let pinned = effort == Effort::Pinned;
    let mut seen = subject.run(None, pinned)?;
    loop {
        let words = next_words(wanted, &seen, effort);
        if wanted.iter().all(|wanted| !wanted.is_open()) {
            return Ok(());
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        let watching = Watching { words: &words, trails: &[], images: &names.images };
        let again = subject.run((!words.is_empty()).then_some(&watching), pinned)?;
        for wanted in wanted.iter_mut().filter(|wanted| wanted.is_open()) {
            wanted.settle(&seen, &again, &words, names);
        }
        seen = again;
    }
}

/// The words of as many open findings as can be watched at a time; none if the last run showed no open finding. Those
/// that had their attempts are given up on the way.
fn next_words(wanted: &mut [Wanted<'_>], seen: &Seen, effort: Effort) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    for wanted in wanted.iter_mut().filter(|wanted| wanted.is_open()) {
        let sighting = wanted.among(seen);
        if wanted.attempts >= ATTEMPTS {
            if effort == (Effort::First { last: false }) {
                wanted.tired = true;
                continue;
            }
            let clock = if effort == Effort::Pinned { ", the same clock and the same process number" } else { "" };
            let runs = format!("in each of {ATTEMPTS} runs with a fixed layout{clock}");
            let why = match (&sighting, &seen.trouble) {
                (None, Some(trouble)) => format!("it did not show again ({trouble})"),
                (None, None) => format!("it did not stand at the same address again {runs}"),
                (Some(_), _) => format!("it stood at another address {runs}"),
            };
            wanted.give_up(&why);
            continue;
        }
        let Some(sighting) = sighting else {
            wanted.attempts += 1;
            continue;
        };
        let Some((first, last)) = Word::ends(sighting.finding.address, sighting.finding.length) else {
            wanted.give_up("it fills no byte");
            continue;
        };
        let mut more = words.clone();
        more.extend([first, last]);
        more.extend(before(&sighting.finding));
        more.sort_unstable();
        more.dedup();
        if more.len() <= Word::MOST {
            words = more;
        }
    }
    words
}

/// The word before a residue on the heap: where an allocator keeps what it knows of a piece, and writes when that is
/// freed.
fn before(finding: &Finding) -> Option<Word> {
    let heap = matches!(finding.rule.class, Class::Heap | Class::Arena | Class::MappedChunk | Class::Anonymous);
    let address = (finding.address.checked_sub(1)?) / 8 * 8;
    heap.then_some(Word { address, length: 8 })
}

/// A finding whose writer is asked for.
struct Wanted<'a> {
    finding: &'a mut Finding,
    /// Which of the findings with the same fingerprint, in the order of their addresses.
    ordinal: usize,
    attempts: u32,
    /// It had its attempts, and may get others.
    tired: bool,
    done: bool,
}

impl<'a> Wanted<'a> {
    fn all(findings: &'a mut [&mut Finding]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for finding in findings.iter_mut() {
            finding.writer = None;
            finding.freed = None;
            finding.unattributed = None;
            let ordinal = all.iter().filter(|other| other.finding.fingerprint == finding.fingerprint).count();
            all.push(Wanted { finding, ordinal, attempts: 0, tired: false, done: false });
        }
        all
    }

    fn is_open(&self) -> bool {
        !self.done && !self.tired
    }

    fn is_register(&self) -> bool {
        self.finding.rule.class == Class::Register
    }

    fn give_up(&mut self, why: &str) {
        self.finding.unattributed = Some(why.to_owned());
        self.done = true;
    }

    fn refuse_what_cannot_be_watched(&mut self) {
        match self.finding.rule.class {
            class if class.is_behind_descriptor() => self.give_up("what lies behind descriptors is not watched"),
            Class::Core if self.finding.place == "notes" => self.give_up("the notes of a core are the kernel's"),
            Class::Data => self.give_up("the bytes of a file have no writer that could be watched"),
            _ if self.finding.place.starts_with("file left behind") => {
                self.give_up("the bytes of a file have no writer that could be watched");
            }
            _ => {}
        }
    }

    /// The finding in another run.
    fn among<'b>(&self, seen: &'b Seen) -> Option<&'b Sighting> {
        seen.sightings.iter().filter(|other| other.finding.fingerprint == self.finding.fingerprint).nth(self.ordinal)
    }

    /// Takes in a watched run: accepted only if the finding stood where the words were.
    fn settle(&mut self, earlier: &Seen, after: &Seen, words: &[Word], names: &Names) {
        let Some(expected) = self.among(earlier).map(|sighting| (sighting.finding.address, sighting.finding.length))
        else {
            return;
        };
        let Some((first, last)) = Word::ends(expected.0, expected.1) else { return };
        let slot = |word| words.iter().position(|other| *other == word);
        let (Some(first), Some(last)) = (slot(first), slot(last)) else { return }; // not this time
        self.attempts += 1;
        let Some(sighting) = self.among(after) else { return };
        if (sighting.finding.address, sighting.finding.length) != expected {
            return;
        }
        let writer = |slot: usize| {
            let writing = sighting.writings.get(slot).ok_or("the process was not watched")?;
            writing.writer(&sighting.finding, names)
        };
        match writer(first) {
            Ok(mut writer_of_first) => {
                if last != first
                    && let Ok(writer_of_last) = writer(last)
                    && writer_of_last != writer_of_first
                {
                    writer_of_first.end = Some(Box::new(writer_of_last));
                }
                self.finding.writer = Some(writer_of_first);
                let freed = before(&sighting.finding).and_then(slot).and_then(|slot| writer(slot).ok());
                self.finding.freed = freed.filter(Writer::frees);
                self.done = true;
            }
            Err(why) if self.attempts >= ATTEMPTS || why == GIVEN_UP => self.give_up(why),
            Err(_) => {}
        }
    }
}

const GIVEN_UP: &str = "its place was written more than 100,000 times: given up";

/// A finding of a run of ours, with what was seen of the watched words at the look that showed it.
pub(crate) struct Sighting {
    pub(crate) finding: Finding,
    pub(crate) writings: Vec<Writing>,
    /// Where it lies, if that is a register.
    spot: Option<Spot>,
}

impl Sighting {
    /// A finding of this hit of a look.
    pub(crate) fn new(finding: Finding, look: &Look, hit: usize) -> Self {
        let spot = look.spots.get(hit).filter(|_| finding.rule.class == Class::Register).cloned();
        Self { finding, writings: look.writings.clone(), spot }
    }
}

/// What a run of ours showed.
pub(crate) struct Seen {
    pub(crate) sightings: Vec<Sighting>,
    /// The first thing that went wrong in it.
    pub(crate) trouble: Option<String>,
}

thread_local! {
    /// Reading the debug data of a program takes longer than running it: once for all rows of a thread.
    static IMAGES: Rc<Images> = Rc::default();
}

/// What turns a place in the code into names.
struct Names {
    images: Rc<Images>,
    /// Cut off the front of source paths.
    home: Option<PathBuf>,
}

/// What a row is run again with.
struct Rerun<'a> {
    row: &'a Row,
    options: &'a Options,
    machine: &'a Machine,
    interrupted: &'a AtomicBool,
    index: Index,
}

impl<'a> Rerun<'a> {
    fn new(
        row: &'a Row,
        machine: &'a Machine,
        options: &'a Options,
        interrupted: &'a AtomicBool,
    ) -> Result<Self, String> {
        let canary = options.seed.canary(&row.name, row.canary, row.canary_len);
        let derived = audit::derived(row, &options.subject, &canary)?;
        let needles: Vec<_> = [&canary].into_iter().chain(&derived).map(Canary::bytes).collect();
        let index = Index::new(&needles, &FORMS, options.min_length).map_err(|error| chain(&error))?;
        Ok(Self { row, options, machine, interrupted, index })
    }
}

impl Subject for Rerun<'_> {
    fn can_be_pinned(&self) -> bool {
        false
    }

    /// Runs the row with the same canary, arguments, environment and length of directory as every time.
    fn run(&self, watching: Option<&Watching<'_>>, _: bool) -> Result<Seen, String> {
        let dir = private::directory().map_err(|error| format!("no private directory: {error}"))?;
        let setting = Setting {
            subject: &self.options.subject,
            dir: dir.path(),
            timeout: self.options.timeout,
            no_core: machine::no_core(self.machine),
            handler: Handler::of_this_machine(),
            interrupted: self.interrupted,
            layout: Layout::Fixed,
            derived: self.row.derived.as_ref().map(|_| 1),
            watching,
            pass: None,
        };
        let canary = self.options.seed.canary(&self.row.name, self.row.canary, self.row.canary_len);
        let record = session::run(self.row, &canary, &self.index, &setting);
        if record.looks.iter().all(|look| look.coverage.read == 0) {
            return Err(record.troubles.into_iter().next().unwrap_or_else(|| "nothing could be read".to_owned()));
        }
        let sightings = judge::findings_by_look(self.row, &record)
            .into_iter()
            .map(|(look, hit, finding)| Sighting::new(finding, &record.looks[look], hit));
        Ok(Seen { sightings: sightings.collect(), trouble: record.troubles.first().cloned() })
    }
}

/// Which words a run watches, and what turns their writes into places in the code.
pub(crate) struct Watching<'a> {
    pub(crate) words: &'a [Word],
    /// Registers whose writers are looked for. What is known of them is told before what is known of words.
    pub(crate) trails: &'a [Trail],
    images: &'a Images,
}

/// What is known of a watched word at a look. Places and names of causes; nothing of what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writing {
    /// How, and from where; `None` when no write was seen.
    last: Option<(How, Walk)>,
    /// Whether the word still holds what the last write left.
    stands: bool,
    /// Whether the word can be read from outside, so that the kernel's writes are seen.
    readable: bool,
    given_up: bool,
    /// For a register: the call's entry or exit behind which it took the value that it has.
    from: u64,
}

impl Watching<'_> {
    /// What is known of each word in a process that stands still.
    pub(crate) fn writings(&self, target: &Target<'_>, process: usize, regions: &[Region]) -> Vec<Writing> {
        let mem = &target.processes()[process].mem;
        let writing = |slot: &Slot| Writing {
            last: slot.last.as_ref().map(|write| (write.how, walk(write, slot.word, regions, self.images))),
            stands: slot.stands(mem),
            readable: slot.is_readable(),
            given_up: slot.is_given_up(),
            from: 0,
        };
        let nowhere = Word { address: 0, length: 8 };
        let followed = target.followups(process).map(|followup| Writing {
            last: followup.last.map(|write| (write.how, walk(write, nowhere, regions, self.images))),
            stands: followup.stands,
            readable: true,
            given_up: followup.given_up,
            from: followup.from,
        });
        followed.chain(target.watched(process).iter().map(writing)).collect()
    }
}

impl Writing {
    fn writer(&self, finding: &Finding, names: &Names) -> Result<Writer, &'static str> {
        if self.given_up {
            return Err(GIVEN_UP);
        }
        let Some((how, walk)) = &self.last else {
            return Err(if self.readable {
                "nobody was seen to write it"
            } else {
                "no instruction was seen to write it, and what the kernel writes there cannot be seen from outside"
            });
        };
        if !self.stands || *how == How::Unseen {
            return Err("its bytes changed without an instruction or a system call that was seen to change them");
        }
        let frames = symbols::frames(walk, &names.images, names.home.as_deref());
        let on_stack = matches!(finding.rule.class, Class::Stack | Class::DeadStack | Class::AlternateStack);
        let holder = walk.sites.iter().position(|site| on_stack && site.holds(finding.address));
        // Inlined functions come before the one whose frame they share.
        let holder = holder.and_then(|number| {
            let mut real = frames.iter().enumerate().filter(|(_, frame)| !frame.inlined);
            u32::try_from(real.nth(number)?.0).ok()
        });
        Ok(Writer { frames, how: words(*how), cut: walk.cut.map(str::to_owned), holder, end: None })
    }
}

/// How a word was written, in words.
fn words(how: How) -> String {
    match how {
        How::Instruction => "instruction".to_owned(),
        How::Call { number, first } => call(number, first),
        How::SignalFrame(signal) => format!("frame of signal {signal}"),
        How::Exec => "system call execve(…), which lays out arguments and environment".to_owned(),
        How::Unseen => "unseen".to_owned(),
    }
}

/// A system call that writes into its caller's memory, by name.
fn call(number: u64, first: u64) -> String {
    let name = match i64::try_from(number) {
        Ok(libc::SYS_read) => "read",
        Ok(libc::SYS_pread64) => "pread64",
        Ok(libc::SYS_readv) => "readv",
        Ok(libc::SYS_preadv) => "preadv",
        Ok(libc::SYS_preadv2) => "preadv2",
        Ok(libc::SYS_recvfrom) => "recvfrom",
        Ok(libc::SYS_recvmsg) => "recvmsg",
        Ok(libc::SYS_recvmmsg) => "recvmmsg",
        Ok(libc::SYS_process_vm_readv) => "process_vm_readv",
        Ok(libc::SYS_getrandom) => "getrandom",
        Ok(libc::SYS_mmap) => "mmap",
        Ok(libc::SYS_mremap) => "mremap",
        Ok(libc::SYS_ioctl) => "ioctl",
        Ok(libc::SYS_rt_sigreturn) => "rt_sigreturn",
        _ => return format!("system call {number}"),
    };
    let first = i32::try_from(first).map_or_else(|_| format!("{first:#x}"), |first| first.to_string());
    format!("system call {name}({first}, …)")
}

/// This thread, and the targets that it starts, on one CPU until dropped.
pub(crate) struct OneCpu(Option<CpuSet>);

impl OneCpu {
    pub(crate) fn take() -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).ok();
        let mut one = CpuSet::new();
        let taken = sched_getcpu().and_then(|cpu| one.set(cpu)).and_then(|()| sched_setaffinity(this, &one));
        Self(before.filter(|_| taken.is_ok()))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(Pid::from_raw(0), before); // it was allowed before
        }
    }
}
