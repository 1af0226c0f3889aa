//! One row, run once: start the target, look at every checkpoint, write down what was seen.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use findings::{Class, CoreSource, Coverage, Exposure, Kept, Looked};
use scenario_protocol::{Checkpoint, Claim, Ends, Expectation, Row};

use crate::attribute::{Watching, Writing};
use crate::canary::Canary;
use crate::handler::Handler;
use crate::judge;
use crate::public;
use crate::scan::{Index, Match, Scanner};
use crate::snapshot::{self, Extent, Injection, Notes, Part, Places, RegisterPart, Registers, Step, Store};
use crate::sweep::{MOST_STEPS, Pass, Window};
use crate::sys::End;
use crate::target::{Event, Launch, Layout, Target, TargetError};
use crate::veil::nameable;
use zeroize::Zeroizing;

/// A match with the place in which it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) found: Match,
    pub(crate) class: Class,
    pub(crate) place: String,
    pub(crate) permissions: String,
}

/// What a search of one file brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Searched {
    pub(crate) coverage: Coverage,
    pub(crate) hits: Vec<Hit>,
    /// Places that hold a needle and are not among the hits.
    pub(crate) unlisted: u64,
}

/// What is said where more was found than is listed; nothing where all is.
pub(crate) fn unlisted(at: &str, more: u64) -> Option<String> {
    (more > 0).then(|| format!("{at}: {more} places more that hold a needle are not listed"))
}

/// Where in the registers of which thread: its age, as the target counts it, and the bytes.
pub(crate) type Spot = (u32, RegisterPart);

/// One look at one process at one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) process: u32,
    pub(crate) looked: Looked,
    pub(crate) threads: u32,
    pub(crate) coverage: Coverage,
    /// What the kernel keeps for it; `None` where nobody looked.
    pub(crate) kept: Option<Kept>,
    pub(crate) exposure: Option<Exposure>,
    /// Who wrote the core that was looked at.
    pub(crate) core: Option<CoreSource>,
    pub(crate) hits: Vec<Hit>,
    /// Of the first hits, which are those in registers: the thread's age and its bytes.
    pub(crate) spots: Vec<Spot>,
    /// Hits that are not among them, because anybody can read those bytes in the program's own file.
    pub(crate) public: u32,
    /// Who wrote the watched words last, in their order; empty where none are watched.
    pub(crate) writings: Vec<Writing>,
}

/// All that a run of a row showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) looks: Vec<Look>,
    /// How the first process ended; `None` if it had to be killed.
    pub(crate) ended: Option<Ends>,
    /// What went wrong on the way, in words.
    pub(crate) troubles: Vec<String>,
    /// The user wanted to stop.
    pub(crate) interrupted: bool,
    /// How long the window of a sweep was, where that was asked.
    pub(crate) window: Option<Window>,
}

/// What a row is run with.
pub(crate) struct Setting<'a> {
    pub(crate) subject: &'a Path,
    /// A directory that this run alone uses.
    pub(crate) dir: &'a Path,
    pub(crate) timeout: Duration,
    /// Why no kernel core can be had here, or `None` if one can.
    pub(crate) no_core: Option<&'a str>,
    /// Who gets the kernel's cores instead.
    pub(crate) handler: Option<Handler>,
    pub(crate) interrupted: &'a AtomicBool,
    pub(crate) layout: Layout,
    /// Number among the needles of what the row makes of its canary.
    pub(crate) derived: Option<u32>,
    /// Words whose writers are asked for.
    pub(crate) watching: Option<&'a Watching<'a>>,
    /// What a signal's sweep asks of this run, and the checkpoints that are announced if the signal lets it get there.
    pub(crate) pass: Option<(Pass, &'a [Checkpoint])>,
}

/// Runs a row and looks at it. Never fails: what goes wrong is written into the record, which is then inconclusive.
pub(crate) fn run(row: &Row, canary: &Canary, index: &Index, setting: &Setting<'_>) -> Record {
    let mut record = Record::default();
    if let Err(error) = follow(row, canary, index, setting, &mut record) {
        record.troubles.push(chain(&error));
    }
    for hit in record.looks.iter_mut().flat_map(|look| &mut look.hits) {
        if Some(hit.found.needle) == setting.derived {
            hit.found.needle = judge::DERIVED;
        }
    }
    for checkpoint in &row.checkpoints {
        if !record.looks.iter().any(|look| look.checkpoint == *checkpoint) {
            record.looks.push(unseen(*checkpoint, Looked::Missed("never reached".to_owned())));
        }
    }
    record
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn unseen(checkpoint: Checkpoint, looked: Looked) -> Look {
    Look {
        checkpoint,
        process: 1,
        looked,
        threads: 0,
        coverage: Coverage::default(),
        kept: None,
        exposure: None,
        core: None,
        hits: Vec::new(),
        spots: Vec::new(),
        public: 0,
        writings: Vec::new(),
    }
}

fn follow(
    row: &Row,
    canary: &Canary,
    index: &Index,
    setting: &Setting<'_>,
    record: &mut Record,
) -> Result<(), TargetError> {
    let args = [OsStr::new("run"), OsStr::new(&row.name)];
    let launch = Launch {
        program: setting.subject,
        args: &args,
        dir: setting.dir,
        timeout: setting.timeout,
        layout: setting.layout,
        watch: setting.watching.map_or(&[], |watching| watching.words),
        trails: setting.watching.map_or(&[], |watching| watching.trails),
    };
    let mut target = Target::spawn(&launch, canary.bytes(), setting.interrupted)?;
    target.go_on()?;
    let checkpoints = setting.pass.map_or(&row.checkpoints[..], |(_, checkpoints)| checkpoints);
    let mut announcements: VecDeque<Checkpoint> =
        checkpoints.iter().copied().filter(|checkpoint| checkpoint.announced()).collect();
    let mut planted = false;
    let mut dumped = None;
    // What a sweep wants of the window that begins at `planted`, and ends with whatever is looked at next.
    let mut pass = setting.pass.map(|(pass, _)| pass);
    loop {
        let event = target.next()?;
        if planted && let Some(pass) = pass.take() {
            let done = target.end_pace();
            match (pass, event) {
                (Pass::Count, Event::TimedOut | Event::Interrupted) => {}
                (Pass::Count, event) => {
                    record.window = Some(Window { instructions: done, cut: matches!(event, Event::Paced(_)) });
                    return Ok(());
                }
                (Pass::Send { signal, .. }, Event::Paced(process)) => {
                    if let Err(error) = target.send(process, signal) {
                        record.troubles.push(format!("send the signal: {error}"));
                    }
                }
                (Pass::Send { after, .. }, _) => record.troubles.push(too_short(done, after)),
            }
        }
        if let Event::FatalSignal(0, _) = event
            && row.checkpoints.contains(&Checkpoint::Core)
            && setting.handler.is_some()
        {
            dumped = Some(Piped::dump(&mut target, setting));
        }
        let injection = match (&row.expect, planted) {
            (Expectation::Clean(Claim::Shielded), true) => Injection::Leave,
            _ => Injection::Use,
        };
        let mut look_at = |target: &mut Target<'_>, processes: &[usize], checkpoint: Checkpoint, injection| {
            for process in processes {
                let at = checkpoint.name();
                let troubles = &mut record.troubles;
                let seen = look(target, *process, at, injection, index, setting.watching, troubles, &mut |_| {});
                record.looks.push(Look { checkpoint, ..seen });
            }
        };
        match event {
            Event::Announced(checkpoint) if announcements.front() == Some(&checkpoint) => {
                announcements.pop_front();
                let living = living(&target);
                look_at(&mut target, &living, checkpoint, injection);
                if checkpoint == Checkpoint::Planted {
                    planted = true;
                    match pass {
                        Some(Pass::Count) => target.pace(0, MOST_STEPS),
                        Some(Pass::Send { after, .. }) => target.pace(0, after),
                        None => {}
                    }
                }
            }
            // One lie is enough: what such a target says later means nothing.
            Event::Announced(checkpoint) => {
                record.troubles.push(format!("announced {checkpoint}, which the row does not expect here"));
                return Ok(());
            }
            Event::Babble => {
                record.troubles.push("sent something that is no announcement".to_owned());
                return Ok(());
            }
            // Before the secret is there, there is nothing to find.
            Event::ExecEntry(_) | Event::ExitCall(_) | Event::FatalSignal(..) if !planted => {}
            // What it ends with is another's memory, which goes on.
            Event::ExecEntry(process)
            | Event::ExitCall(process)
            | Event::FatalSignal(process, _)
            | Event::ExitStop(process)
                if target.borrows_memory(process) => {}
            Event::ExecEntry(process) => look_at(&mut target, &[process], Checkpoint::Exec, injection),
            Event::ExitCall(process) => look_at(&mut target, &[process], Checkpoint::ExitCall, injection),
            Event::FatalSignal(process, _) => look_at(&mut target, &[process], Checkpoint::Signal, injection),
            // Nothing can be injected into a dying process.
            Event::ExitStop(process) => look_at(&mut target, &[process], Checkpoint::Exit, Injection::Leave),
            // Nothing of this is asked for in a scenario.
            Event::Call(..)
            | Event::Reading(_)
            | Event::Read(..)
            | Event::Wrote(_)
            | Event::Signalled(..)
            | Event::Woken
            | Event::Paced(_) => {}
            Event::Ended(end) => {
                record.ended = end.map(ends);
                if target.unmet() > 0 {
                    let why = "new threads or processes ended before they were seen";
                    record.troubles.push(format!("{} {why}", target.unmet()));
                }
                record.troubles.extend(escaped(&target));
                if row.checkpoints.contains(&Checkpoint::Core) {
                    let by_kernel = matches!(end, Some(End::Signal(_, true)));
                    let troubles = &mut record.troubles;
                    let mut look = match (&setting.handler, dumped.take()) {
                        (Some(handler), Some(piped)) if by_kernel => {
                            look_at_piped_core(setting, handler, piped, index, troubles)
                        }
                        _ => look_at_core(setting, by_kernel, index, troubles),
                    };
                    // The dump shows the memory of the exit stop.
                    let exit =
                        record.looks.iter().find(|look| look.checkpoint == Checkpoint::Exit && look.process == 1);
                    look.writings = exit.map(|exit| exit.writings.clone()).unwrap_or_default();
                    record.looks.push(look);
                }
                look_at_leftovers(setting, index, record);
                return Ok(());
            }
            Event::TimedOut => {
                record.troubles.push(format!("did not end within {} s", setting.timeout.as_secs_f32()));
                return Ok(());
            }
            Event::Interrupted => {
                record.interrupted = true;
                return Ok(());
            }
        }
        target.go_on()?;
    }
}

/// Why no signal was sent at a point of a sweep.
pub(crate) fn too_short(done: u64, after: u64) -> String {
    format!("the window was over after {done} instructions, before the signal was to be sent after {after}")
}

/// What is said where a part of the tree got away.
pub(crate) fn escaped(target: &Target<'_>) -> Option<String> {
    let escaped = target.escaped();
    (escaped > 0)
        .then(|| format!("{escaped} threads or processes were started that are not traced, so nobody looked at them"))
}

/// How a process ended.
pub(crate) fn ends(end: End) -> Ends {
    match end {
        End::Exit(status) => Ends::Exit(status),
        End::Signal(signal, _) => Ends::Signal(signal),
    }
}

fn living(target: &Target<'_>) -> Vec<usize> {
    target.processes().iter().enumerate().filter(|(_, process)| !process.ended).map(|(index, _)| index).collect()
}

/// What a look shows to whoever watches it: all that it searches, in the order in which it does.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// The registers of one thread.
    Registers(&'a Registers),
    /// The next bytes of what lies behind a descriptor, at this offset.
    Behind(u64, &'a [u8]),
    /// That was all of it.
    BehindEnd(&'a Store),
    /// Where memory is; comes before any of it.
    Places(&'a Places),
    /// A piece of memory, at this address.
    Memory(u64, &'a [u8]),
}

/// Looks at the registers and the memory of one process that stands still. `at` is the moment's name for troubles; the
/// checkpoint of the look is the caller's to fill in. `witness` is shown everything that is searched.
#[expect(clippy::too_many_arguments, reason = "one look, made of what two kinds of run know of it")]
pub(crate) fn look(
    target: &mut Target<'_>,
    process: usize,
    at: &str,
    injection: Injection,
    index: &Index,
    watching: Option<&Watching<'_>>,
    troubles: &mut Vec<String>,
    witness: &mut dyn FnMut(Shown<'_>),
) -> Look {
    let number = target.processes()[process].number;
    let mut hits = Vec::new();
    let mut spots = Vec::new();
    let mut stacks = Vec::new();
    let mut writings = Vec::new();
    let threads = target.standing_threads(process);
    for thread in &threads {
        match snapshot::read_registers(*thread) {
            Ok(registers) => {
                stacks.push((registers.stack_pointer, registers.thread_pointer));
                witness(Shown::Registers(&registers));
                for (hit, part) in search_registers(&registers, index) {
                    hits.push(hit);
                    spots.push((target.born(*thread), part));
                }
            }
            Err(error) => troubles.push(format!("{at}: registers of a thread: {error}")),
        }
    }
    for thread in &threads {
        match std::fs::read(format!("/proc/{}/task/{thread}/comm", target.processes()[process].pid)).map(Zeroizing::new)
        {
            Ok(name) => hits.extend(search_name(&name, index)),
            Err(error) => troubles.push(format!("{at}: the name of a thread: {error}")),
        }
    }
    let alive = threads_alive(target, process, threads.len());
    if alive != threads.len() {
        troubles.push(format!("{at}: registers of {} of {alive} threads seen", threads.len()));
    }
    if target.processes()[process].came_back {
        let why = "exit_group(2) came back: what was read at its entry is out of date";
        troubles.push(format!("{at}: {why}"));
    }
    if target.processes()[process].foreign_calls {
        let why = "it makes system calls that are not of the 64-bit kind (int 0x80), and what those read and write is not followed";
        troubles.push(format!("{at}: {why}"));
    }
    let unseen = target.processes()[process].unseen;
    if unseen > 0 {
        troubles.push(format!("{at}: {unseen} threads ended before their registers could be read"));
    }
    let exposure = snapshot::exposure(target.processes()[process].pid, target.began().is_some());
    let mut kept = None;
    let mut public = 0;
    let mut more = 0;
    let (looked, coverage) = match snapshot::regions(&target.processes()[process]) {
        Ok(regions) => {
            // Before an injected call empties the file that it writes into.
            let mut scanner = Scanner::new(index);
            kept = Some(snapshot::read_kept(target, process, &regions, troubles, &mut |step| match step {
                Step::Piece(at, bytes) => {
                    witness(Shown::Behind(at, bytes));
                    scanner.feed(at, bytes);
                }
                Step::End(store) => {
                    witness(Shown::BehindEnd(store));
                    let scanned = std::mem::replace(&mut scanner, Scanner::new(index));
                    let (found, unlisted) = scanned.finish_counted();
                    more += unlisted;
                    hits.extend(found.into_iter().map(|found| behind(found, store)));
                }
            }));
            writings = watching.map(|watching| watching.writings(target, process, &regions)).unwrap_or_default();
            let places = Places::of(&target.processes()[process], regions, &stacks, &target.alternates(process));
            witness(Shown::Places(&places));
            let mut scanner = Scanner::new(index);
            let coverage = snapshot::read_live(target, process, places.regions(), injection, |at, bytes| {
                witness(Shown::Memory(at, bytes));
                scanner.feed(at, bytes);
            });
            let (found, unlisted) = scanner.finish_counted();
            more += unlisted;
            hits.extend(found.into_iter().map(|found| place(found, &places)));
            if let Some(began) = target.began() {
                let regions = places.regions();
                let known = public::known(&hits, regions, &target.processes()[process], began, index);
                let mut kept = hits.iter().map(|hit| !public::is_public(hit, &known, index));
                spots.retain(|_| kept.next().unwrap_or(true));
                let before = hits.len();
                hits.retain(|hit| !public::is_public(hit, &known, index));
                public = u32::try_from(before - hits.len()).unwrap_or(u32::MAX);
            }
            (Looked::Yes, coverage)
        }
        Err(error) => (Looked::Missed(chain(&error)), Coverage::default()),
    };
    troubles.extend(unlisted(at, more));
    for hit in &mut hits {
        hit.place = nameable(std::mem::take(&mut hit.place), index);
    }
    let threads = u32::try_from(threads.len()).unwrap_or(u32::MAX);
    let exposure = Some(exposure);
    let nothing = self::unseen(Checkpoint::Planted, looked);
    Look { process: number, threads, coverage, kept, exposure, hits, spots, public, writings, ..nothing }
}

/// How many threads of a process the kernel counts; a thread that is just going is given time to go.
///
/// # Source
///
/// proc_pid_status(5), *Threads*.
fn threads_alive(target: &Target<'_>, process: usize, standing: usize) -> usize {
    let status = format!("/proc/{}/status", target.processes()[process].pid);
    let mut counted = None;
    for _ in 0..50 {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        // A first thread that has ended alone counts until its process ends; it has no registers any more.
        let ended = usize::from(field("State:").is_some_and(|state| state.starts_with('Z')));
        counted = field("Threads:").and_then(|threads| threads.parse::<usize>().ok()?.checked_sub(ended));
        if counted == Some(standing) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    counted.unwrap_or(usize::MAX)
}

/// Searches the files that the target left in its directory, which go with the run.
fn look_at_leftovers(setting: &Setting<'_>, index: &Index, record: &mut Record) {
    let mut files = Vec::new();
    let mut names = Vec::new();
    crate::files::list(setting.dir, setting.dir, index, &mut files, &mut names, &mut record.troubles);
    if !names.is_empty() {
        let place = || "name of a file left behind".to_owned();
        let hits = names.into_iter().map(|(_, hit)| Hit { place: place(), ..hit }).collect();
        record.looks.push(Look { hits, ..unseen(Checkpoint::Exit, Looked::Yes) });
    }
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match crate::files::one(&file, index, setting.interrupted) {
            Ok(Searched { coverage, hits, unlisted }) => {
                let place = nameable(format!("file left behind: {name}"), index);
                record.troubles.extend(self::unlisted(&place, unlisted));
                let hits = hits.into_iter().map(|hit| Hit { place: place.clone(), ..hit }).collect();
                let look = unseen(Checkpoint::Exit, Looked::Yes);
                record.looks.push(Look { coverage, hits, ..look });
            }
            Err(error) => record.troubles.push(format!("a file that the target left behind: {}", chain(&error))),
        }
    }
}

fn search_registers(registers: &Registers, index: &Index) -> Vec<(Hit, RegisterPart)> {
    let mut scanner = Scanner::new(index);
    for (at, bytes) in &registers.pieces {
        scanner.feed(*at, bytes);
    }
    let register = |(found, place, part): (Match, String, RegisterPart)| {
        let found = Match { address: 0, ..found };
        (Hit { class: Class::Register, place, permissions: String::new(), found }, part)
    };
    registers.named(scanner.finish()).into_iter().map(register).collect()
}

/// Searches a thread's name, which a newline ends.
fn search_name(name: &[u8], index: &Index) -> impl Iterator<Item = Hit> {
    let mut scanner = Scanner::new(index);
    scanner.feed(0, name.strip_suffix(b"\n").unwrap_or(name));
    scanner.finish().into_iter().map(|found| Hit {
        found,
        class: Class::ThreadName,
        place: "name of a thread".to_owned(),
        permissions: String::new(),
    })
}

fn place(found: Match, places: &Places) -> Hit {
    let region = places.region(found.address);
    Hit {
        class: places.class(found.address),
        place: region.map(|region| region.name.clone()).unwrap_or_default(),
        permissions: region.map(|region| region.permissions.clone()).unwrap_or_default(),
        found,
    }
}

fn behind(found: Match, store: &Store) -> Hit {
    Hit { found, class: store.class, place: store.place.clone(), permissions: String::new() }
}

fn look_at_core(setting: &Setting<'_>, dumped: bool, index: &Index, troubles: &mut Vec<String>) -> Look {
    if let Some(why) = setting.no_core {
        return unseen(Checkpoint::Core, Looked::NotLookedAt(why.to_owned()));
    }
    let missed = |why: String| unseen(Checkpoint::Core, Looked::Missed(why));
    if !dumped {
        return missed("the kernel says that it dumped no core".to_owned());
    }
    let (path, file) = match snapshot::find_core(setting.dir) {
        Ok(Some(core)) => core,
        Ok(None) => return missed("no core file in the target's directory".to_owned()),
        Err(error) => return missed(format!("open the core: {error}")),
    };
    let read = search_core(&file, index, setting.interrupted);
    // The directory goes with the run; a core is too much secret to wait for that.
    let removed = std::fs::remove_file(path);
    match (read, removed) {
        (Ok(searched), Ok(())) => look_of_core(searched, CoreSource::Kernel, troubles),
        (Err(error), _) => missed(chain(&error)),
        (_, Err(error)) => missed(format!("remove the core: {error}")),
    }
}

fn look_of_core(searched: Searched, core: CoreSource, troubles: &mut Vec<String>) -> Look {
    let Searched { coverage, hits, unlisted } = searched;
    troubles.extend(self::unlisted(Checkpoint::Core.name(), unlisted));
    Look { coverage, hits, core: Some(core), ..unseen(Checkpoint::Core, Looked::Yes) }
}

/// A core of our own, for when the kernel's goes to a program.
struct Piped {
    pid: i32,
    since: SystemTime,
    core: Result<File, String>,
}

impl Piped {
    /// Writes what the kernel is about to write, into a file without a name that goes when it is closed.
    fn dump(target: &mut Target<'_>, setting: &Setting<'_>) -> Self {
        let (pid, since) = (target.processes()[0].pid.as_raw(), SystemTime::now());
        let core = tempfile::tempfile_in(setting.dir).map_err(|error| format!("make a file for a core: {error}"));
        let core = core.and_then(|file| {
            let dumped =
                snapshot::write_core(target, 0, Extent::LikeTheKernel, &file).map_err(|error| chain(&error))?;
            match dumped.troubles.into_iter().next() {
                Some(trouble) => Err(trouble),
                None => Ok(file),
            }
        });
        Self { pid, since, core }
    }
}

/// Looks at the core that the handler stored, or where there is none that can be read at our own.
fn look_at_piped_core(
    setting: &Setting<'_>,
    handler: &Handler,
    piped: Piped,
    index: &Index,
    troubles: &mut Vec<String>,
) -> Look {
    let stored = handler.stored(setting.subject, piped.pid, piped.since);
    let by_handler = stored.and_then(|path| crate::files::one(&path, index, setting.interrupted).ok());
    if let Some(searched) = by_handler {
        return look_of_core(searched, CoreSource::Handler, troubles);
    }
    let search = |file| search_core(&file, index, setting.interrupted).map_err(|error| chain(&error));
    match piped.core.and_then(search) {
        Ok(searched) => look_of_core(searched, CoreSource::Own, troubles),
        Err(why) => unseen(Checkpoint::Core, Looked::Missed(why)),
    }
}

/// Searches the notes and the memory of a core.
pub(crate) fn search_core(
    file: &std::fs::File,
    index: &Index,
    interrupted: &AtomicBool,
) -> Result<Searched, snapshot::CoreError> {
    let mut search = CoreSearch::new(index);
    let coverage = snapshot::read_core_until(file, interrupted, |part, at, bytes| search.feed(part, at, bytes))?;
    Ok(search.finish(coverage))
}

/// The same in a core that is unpacked as it goes by.
pub(crate) fn search_core_stream(
    stream: &mut dyn std::io::Read,
    index: &Index,
    interrupted: &AtomicBool,
) -> Result<Searched, snapshot::CoreError> {
    let mut search = CoreSearch::new(index);
    let coverage = snapshot::read_core_stream(stream, interrupted, |part, at, bytes| search.feed(part, at, bytes))?;
    Ok(search.finish(coverage))
}

/// The search of one core.
pub(crate) struct CoreSearch<'a> {
    index: &'a Index,
    scanners: [Scanner<'a>; 3],
    notes: Notes,
}

impl<'a> CoreSearch<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        Self { index, scanners: [(); 3].map(|()| Scanner::new(index)), notes: Notes::default() }
    }

    /// Takes in the next piece; those of one part ascend.
    pub(crate) fn feed(&mut self, part: Part, at: u64, bytes: &[u8]) {
        if part == Part::Notes {
            self.notes.take(at, bytes);
        }
        self.scanners[part as usize].feed(at, bytes);
    }

    /// What was found, and the account with what the core's writer left out of it.
    pub(crate) fn finish(self, mut coverage: Coverage) -> Searched {
        let hit = |found: Match, place: String| Hit { found, class: Class::Core, place, permissions: String::new() };
        let mut hits = Vec::new();
        let taken = self.notes.registers(|registers| {
            let found = search_registers(registers, self.index).into_iter();
            hits.extend(found.map(|(found, _)| hit(found.found, format!("register {}", found.place))));
        });
        // What lies in a register was found there, put together.
        let in_register = |found: &Match| {
            let end = found.address.saturating_add(found.length);
            let after = taken.partition_point(|(_, behind)| *behind < end);
            taken.get(after).is_some_and(|(start, _)| *start <= found.address)
        };
        let mut unlisted = 0;
        let [notes, memory, rest] = self.scanners.map(|scanner| {
            let (found, more) = scanner.finish_counted();
            unlisted += more;
            found
        });
        hits.extend(notes.into_iter().filter(|found| !in_register(found)).map(|found| hit(found, "notes".to_owned())));
        hits.extend(memory.into_iter().map(|found| hit(found, "memory".to_owned())));
        let outside = "outside of all segments, by offset";
        hits.extend(rest.into_iter().map(|found| hit(found, outside.to_owned())));
        self.notes.account(&mut coverage, |text| nameable(text, self.index));
        Searched { coverage, hits, unlisted }
    }
}

#[cfg(test)]
mod tests;
