//! The pipeline on one screen: read the catalogue, run every row, judge it, sum up.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use findings::{Build, FormChance, NotShown, Outcome, Run, SCHEMA, Sensitivity, Settings, Shard, Tool, Verdict};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use scenario_protocol::{Checkpoint, Row};
use zeroize::Zeroizing;

use crate::canary::{Canary, Seed};
use crate::handler::Handler;
use crate::progress::{Observer, Progress};
use crate::repeat;
use crate::scan::{Index, Rate};
use crate::session::{self, Setting};
use crate::sweep::{self, Pass, Point, Sweep};
use crate::target::Layout;
use crate::variants::FORMS;
use crate::veil::veil;
use crate::{attribute, interrupt, judge, machine, private};

/// Decoys that are looked for beside every canary and were never planted.
pub const DECOYS: u32 = 8;

/// Bytes that a canary may have: enough for its pieces to be no chance, and little enough for a pipe to hold it.
const CANARY_LENGTHS: std::ops::RangeInclusive<usize> = 16..=4096;

/// How long the subject may take to print its catalogue.
const LIST_PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to derive a secret: password hashes are slow by design.
const DERIVE_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that a catalogue may have.
const LIST_SIZE: u64 = 16 * 1024 * 1024;

/// What to audit, and how. [`Options::new`] makes the plainest one.
#[derive(Debug)]
pub struct Options {
    /// The program with the scenarios: `SUBJECT list`, `SUBJECT run NAME`. An absolute path, as it is started in a
    /// directory of its own.
    pub subject: PathBuf,
    /// Only rows whose name contains this text.
    pub filter: String,
    /// Only the rows that [`quick`] keeps.
    pub quick: bool,
    /// Rows run at the same time.
    pub jobs: usize,
    /// How long one row may take.
    pub timeout: Duration,
    /// Shortest residue, in bytes of the secret.
    pub min_length: usize,
    /// Decoys a row.
    pub decoys: u32,
    /// Abilities without which the run counts as inconclusive (`core`).
    pub required: Vec<String>,
    /// Where the canaries come from.
    pub seed: Seed,
    /// Labels of the build that the builder knows: profile, compiler, ablation.
    pub profile: String,
    /// `rustc --version`.
    pub rustc: String,
    /// The ablation that the subject was built with.
    pub ablation: Option<String>,
    /// Whose writers are looked for.
    pub attribution: Attribution,
    /// Which of the rows are run, and how.
    pub course: Course,
}

impl Options {
    /// All rows of that subject, one after the other, once each: residues from six bytes up, a minute's patience for a row,
    /// no writers, and nothing known of the build.
    pub fn new(subject: PathBuf, seed: Seed) -> Self {
        Self {
            subject,
            seed,
            filter: String::new(),
            quick: false,
            jobs: 1,
            timeout: Duration::from_secs(60),
            min_length: 6,
            decoys: DECOYS,
            required: Vec::new(),
            profile: "unknown".to_owned(),
            rustc: "unknown".to_owned(),
            ablation: None,
            attribution: Attribution::Nothing,
            course: Course::default(),
        }
    }
}

/// Which of the rows that are asked for are run, how often, and where their memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// One part of the rows alone.
    pub part: Option<Part>,
    /// How often each row is run, always with the same secret; a residue that is not in all runs is intermittent.
    pub repeat: u32,
    /// Whether the kernel is told to put memory at the same addresses in every run.
    pub fixed_layout: bool,
    /// A signal that is sent while the secret is in use: each row is then run once for each of its points instead.
    pub sweep: Option<Sweep>,
}

impl Default for Course {
    /// All rows, once each, as for any user.
    fn default() -> Self {
        Self { part: None, repeat: 1, fixed_layout: false, sweep: None }
    }
}

/// One part of a run that is made in several: written `NUMBER/OF`, as in `2/3`.
///
/// Rows are dealt out like cards, so that slow ones, which stand together in a catalogue, spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    number: u32,
    of: u32,
}

/// A text that names no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no shard: NUMBER/OF, where NUMBER counts from 1 to OF and OF is at most 10000 (try 1/3)")]
pub struct ParsePartError {
    text: String,
}

impl std::str::FromStr for Part {
    type Err = ParsePartError;

    fn from_str(text: &str) -> Result<Self, ParsePartError> {
        let plain =
            |text: &str| text.bytes().all(|letter| letter.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        text.split_once('/')
            .and_then(|(number, of)| Some(Self { number: plain(number)?, of: plain(of)? }))
            .filter(|part| (1..=part.of).contains(&part.number) && part.of <= 10_000)
            .ok_or_else(|| ParsePartError { text: text.to_owned() })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Which findings get a writer, or the reason why they have none. Each row with such findings is run a few times more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// None.
    #[default]
    Nothing,
    /// Those of rows that are not as expected, leaky controls apart.
    Unexpected,
    /// All.
    All,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The subject cannot be read or started.
    #[error("start {subject}")]
    Subject {
        /// Its path.
        subject: String,
        /// Why.
        source: std::io::Error,
    },
    /// The subject did not print its catalogue.
    #[error("{subject} list: {why}")]
    List {
        /// Its path.
        subject: String,
        /// What it did instead.
        why: String,
    },
    /// What it printed is no catalogue.
    #[error("the catalogue that {subject} prints cannot be read")]
    Catalogue {
        /// Its path.
        subject: String,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// The catalogue has no rows.
    #[error("the catalogue that {subject} prints is empty")]
    Empty {
        /// The subject's path.
        subject: String,
    },
    /// There are more parts than rows.
    #[error("shard {part} has no row: {rows} are asked for")]
    EmptyPart {
        /// Which.
        part: Part,
        /// Rows of all parts.
        rows: usize,
    },
    /// No row's name contains the filter.
    #[error("no scenario's name contains {filter:?}; `residue list {subject}` prints them")]
    NoSuchRow {
        /// What was asked for.
        filter: String,
        /// The subject's path.
        subject: String,
    },
}

/// Reads the catalogue of a subject.
///
/// # Errors
///
/// [`AuditError`] when the subject does not print one within ten seconds. What it started meanwhile is killed.
pub fn catalogue(subject: &Path) -> Result<Vec<Row>, AuditError> {
    let name = || subject.display().to_string();
    let refused = |why: String| AuditError::List { subject: name(), why };
    let mut command = Command::new(subject);
    command.arg("list");
    let told = tell(command, None, LIST_SIZE, LIST_PATIENCE).map_err(|why| match why {
        Untold::Started(source) => AuditError::Subject { subject: name(), source },
        Untold::Silent => refused(format!("printed no catalogue within {} s", LIST_PATIENCE.as_secs())),
        Untold::Long => refused(format!("printed more than {LIST_SIZE} bytes")),
        Untold::Broken(error) => refused(format!("its output breaks off: {error}")),
        Untold::Ended(status) => refused(format!("ended with {status}")),
    })?;
    let text = std::str::from_utf8(&told).map_err(|error| refused(format!("its output is no text: {error}")))?;
    serde_json::from_str(text).map_err(|source| AuditError::Catalogue { subject: name(), source })
}

/// Why a subject that was asked told nothing.
enum Untold {
    /// It cannot be started, fed or waited for.
    Started(std::io::Error),
    /// It did not end its output in time.
    Silent,
    /// It said more than was allowed.
    Long,
    /// What it said breaks off.
    Broken(std::io::Error),
    /// It ended badly.
    Ended(std::process::ExitStatus),
}

/// Runs a command that may take so long, kills whatever it has started, and returns what it printed, wiped when dropped.
fn tell(
    mut command: Command,
    feed: Option<&[u8]>,
    most: u64,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, Untold> {
    let mut child = command
        .stdin(if feed.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(Untold::Started)?;
    // What is fed fits the pipe: nobody waits for the other.
    let fed = child.stdin.take().zip(feed).map_or(Ok(()), |(mut stdin, bytes)| stdin.write_all(bytes));
    let (send, receive) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            // Where it is a secret there is room for all of it at once, so that no smaller buffer is left behind unwiped.
            let mut bytes = Zeroizing::new(Vec::with_capacity(*CANARY_LENGTHS.end() + 2));
            let read = output.take(most + 1).read_to_end(&mut bytes).map(|_| bytes);
            let _ = send.send(read); // nobody waits any more: the time was up
        });
    }
    let deadline = Instant::now() + patience;
    let read = receive.recv_timeout(patience);
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let ended = || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(group), flags), Ok(WaitStatus::StillAlive))
    };
    while read.is_ok() && !ended() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whatever it has started would outlive it. Not reaped yet, it keeps its number, which is the group's, from others.
    let _ = nix::sys::signal::killpg(group, Signal::SIGKILL); // ESRCH: nobody is left
    let status = child.wait().map_err(Untold::Started)?;
    match read {
        Err(_) => Err(Untold::Silent),
        Ok(Err(error)) => Err(Untold::Broken(error)),
        Ok(Ok(bytes)) if bytes.len() as u64 > most => Err(Untold::Long),
        Ok(Ok(_)) if !status.success() => Err(Untold::Ended(status)),
        Ok(Ok(bytes)) => fed.map(|()| bytes).map_err(Untold::Started),
    }
}

/// The rows of a quick run: all of the library's own, and of every other holder the first row of each expectation.
pub fn quick(rows: Vec<Row>) -> Vec<Row> {
    let mut seen = std::collections::BTreeSet::new();
    rows.into_iter()
        .filter(|row| row.sole_home || seen.insert((row.holder.clone(), row.expect.is_leaky_control())))
        .collect()
}

/// The rows that the options ask for, over all parts.
///
/// # Errors
///
/// [`AuditError`] when the subject prints no catalogue, or nothing in it is asked for.
pub fn rows(options: &Options) -> Result<Vec<Row>, AuditError> {
    let subject = || options.subject.display().to_string();
    let mut rows = catalogue(&options.subject)?;
    if rows.is_empty() {
        return Err(AuditError::Empty { subject: subject() });
    }
    rows.retain(|row| row.name.contains(&options.filter));
    if options.quick {
        rows = quick(rows);
    }
    if rows.is_empty() {
        return Err(AuditError::NoSuchRow { filter: options.filter.clone(), subject: subject() });
    }
    Ok(rows)
}

/// Runs rows of a subject's catalogue and judges every one.
///
/// `interrupted` may be set by anybody at any time: running targets are killed, and the run says that it was
/// interrupted.
///
/// # Errors
///
/// [`AuditError`] when no row could be run; a row that goes wrong is an inconclusive outcome.
///
/// # Panics
///
/// When a thread of this run panicked.
pub fn run(
    options: &Options,
    rows: &[Row],
    interrupted: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Run, AuditError> {
    let subject = &options.subject;
    let digest = digest(subject)?;
    private::sweep();
    let machine = machine::probe();

    let total = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mine = |rank: &u32| options.course.part.is_none_or(|part| rank % part.of == part.number - 1);
    let (ranks, rows): (Vec<u32>, Vec<&Row>) = (0..total).zip(rows).filter(|(rank, _)| mine(rank)).unzip();
    if let (Some(part), true) = (options.course.part, rows.is_empty()) {
        return Err(AuditError::EmptyPart { part, rows: total as usize });
    }
    observer.on(&Progress::Started { rows: rows.len() });
    let next = AtomicUsize::new(0);
    let judged: Vec<Place> = rows.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, rows.len()) {
            scope.spawn(|| {
                while !interrupted.load(Ordering::Relaxed) {
                    let Some((row, place)) = claim(&next, &rows, &judged) else { return };
                    let outcome = one(row, &machine, options, interrupted);
                    observer.on(&Progress::judged(&outcome.0));
                    *place.lock().expect("nobody panics while holding it") = Some(outcome);
                }
            });
        }
    });
    let (mut done, mut outcomes, mut chances) = (Vec::new(), Vec::new(), Vec::new());
    for (rank, place) in ranks.into_iter().zip(judged) {
        if let Some((outcome, chance)) = place.into_inner().expect("nobody panicked while holding it") {
            done.push(rank);
            outcomes.push(outcome);
            chances.push(chance);
        }
    }
    let interrupted = interrupted.load(Ordering::Relaxed);
    let mut run = Run {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "residue".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        not_shown: not_shown(&machine),
        machine,
        build: Build {
            subject: subject.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            digest,
            profile: options.profile.clone(),
            rustc: options.rustc.clone(),
            ablation: options.ablation.clone(),
        },
        settings: Settings {
            min_length: u32::try_from(options.min_length).unwrap_or(u32::MAX),
            decoys: options.decoys,
            filter: options.filter.clone(),
            required: options.required.clone(),
            timeout_seconds: u32::try_from(options.timeout.as_secs()).unwrap_or(u32::MAX),
            repeat: options.course.repeat.max(1),
            fixed_layout: options.course.fixed_layout,
        },
        sensitivity: Sensitivity::of(u32::try_from(options.min_length).unwrap_or(u32::MAX), &outcomes, &chances),
        shard: options.course.part.map(|part| Shard {
            number: part.number,
            of: part.of,
            rows: total,
            ranks: done,
            chances,
        }),
        interrupted,
        verdict: Verdict::Inconclusive,
        outcomes,
    };
    run.verdict = run.judge();
    Ok(run)
}

/// What a row makes of its canary, told by the subject in a process that nobody looks at; `None` where it makes nothing.
///
/// # Errors
///
/// Why the subject could not tell, in words.
pub(crate) fn derived(row: &Row, subject: &Path, canary: &Canary) -> Result<Option<Canary>, String> {
    let Some(name) = &row.derived else { return Ok(None) };
    let mut command = Command::new(subject);
    command.args(["derive", &row.name]);
    let told = tell(command, Some(canary.bytes()), *CANARY_LENGTHS.end() as u64, DERIVE_PATIENCE);
    let bytes = told.map_err(|why| match why {
        Untold::Started(error) => format!("ask the subject for the {name}: {error}"),
        Untold::Broken(error) => format!("read the {name} from the subject: {error}"),
        Untold::Silent => format!("the subject did not tell the {name} within {} s", DERIVE_PATIENCE.as_secs()),
        Untold::Long => format!("the subject told more than {} bytes for the {name}", CANARY_LENGTHS.end()),
        Untold::Ended(status) => format!("the subject did not tell the {name}: ended with {status}"),
    })?;
    Canary::given(bytes).map(Some).map_err(|error| format!("the {name}: {error}"))
}

/// An outcome, and what chance alone would give in it.
pub(crate) type Judged = (Outcome, Vec<FormChance>);

type Place = Mutex<Option<Judged>>;

fn claim<'a>(next: &AtomicUsize, rows: &[&'a Row], places: &'a [Place]) -> Option<(&'a Row, &'a Place)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((rows.get(at).copied()?, places.get(at)?))
}

/// What chance alone would give in all that a row's looks read; `alone` is the index of the canary without its decoys.
pub(crate) fn chance(alone: &Index, outcome: &Outcome) -> Vec<FormChance> {
    let read = outcome.coverage().read as f64;
    let in_form = |rate: Rate| FormChance {
        form: rate.form,
        windows: rate.windows,
        in_random_bytes: rate.random * read,
        in_own_alphabet: rate.chance * read,
    };
    alone.rates().into_iter().map(in_form).collect()
}

/// Runs and judges one row, on a machine that was probed before.
///
/// Never fails: a row that cannot be run is inconclusive, with the reason.
pub fn row(row: &Row, machine: &findings::Machine, options: &Options, interrupted: &AtomicBool) -> Outcome {
    one(row, machine, options, interrupted).0
}

fn one(row: &Row, machine: &findings::Machine, options: &Options, interrupted: &AtomicBool) -> Judged {
    if let Some(why) = machine::lacks(machine, &row.needs) {
        return (judge::unrunnable(row, why), Vec::new());
    }
    if !CANARY_LENGTHS.contains(&row.canary_len) {
        let (least, most) = CANARY_LENGTHS.into_inner();
        let why = format!("a canary of {} bytes; {least} to {most} can be planted", row.canary_len);
        return (judge::unrunnable(row, why), Vec::new());
    }
    let canary = options.seed.canary(&row.name, row.canary, row.canary_len);
    let decoys = options.seed.decoys(&row.name, row.canary, row.canary_len, options.decoys);
    let derived = match derived(row, &options.subject, &canary) {
        Ok(derived) => derived,
        Err(why) => return (judge::unrunnable(row, why), Vec::new()),
    };
    let needles: Vec<_> = [&canary].into_iter().chain(&decoys).chain(&derived).map(Canary::bytes).collect();
    let indices = Index::new(&needles, &FORMS, options.min_length)
        .and_then(|index| Ok((index, Index::new(&needles[..1], &FORMS, options.min_length)?)));
    let (index, alone) = match indices {
        Ok(indices) => indices,
        Err(error) => return (judge::unrunnable(row, session::chain(&error)), Vec::new()),
    };
    let index = &index;
    let run = |row: &Row, pass: Option<(Pass, &[Checkpoint])>| {
        // One a run: nothing of one may be left for the next.
        let dir = match private::directory() {
            Ok(dir) => dir,
            Err(error) => {
                let troubles = vec![format!("no private directory: {error}")];
                return session::Record { troubles, ..session::Record::default() };
            }
        };
        let setting = Setting {
            subject: &options.subject,
            dir: dir.path(),
            timeout: options.timeout,
            no_core: machine::no_core(machine),
            handler: Handler::of_this_machine(),
            interrupted,
            layout: if options.course.fixed_layout { Layout::Fixed } else { Layout::Natural },
            derived: derived.as_ref().map(|_| options.decoys + 1),
            watching: None,
            pass,
        };
        session::run(row, &canary, index, &setting)
    };
    let judged = |row: &Row, record: &session::Record| judge::judge(row, record, options.decoys, &options.required);
    let mut outcome = if let Some(sweep) = options.course.sweep {
        let swept = match catalogue(&options.subject) {
            Ok(rows) => sweep.row(row, &rows),
            Err(error) => return (judge::unrunnable(row, session::chain(&error)), Vec::new()),
        };
        let played = Row { name: row.name.clone(), ..swept.clone() }; // by the name that the subject knows
        let announced: Vec<Checkpoint> =
            row.checkpoints.iter().copied().filter(|checkpoint| checkpoint.announced()).collect();
        let _one_cpu = attribute::OneCpu::take();
        let counted = run(row, Some((Pass::Count, &announced)));
        let Some(window) = counted.window else {
            let why = counted.troubles.into_iter().next().unwrap_or_else(|| "it never began".to_owned());
            return (judge::unrunnable(&swept, format!("the window of the sweep was not measured: {why}")), Vec::new());
        };
        let mut points: Vec<(Point, Outcome)> = Vec::new();
        for point in sweep.points(window) {
            let record = run(&played, Some((point.pass(), &announced)));
            points.push((point, judged(&swept, &record)));
            if record.interrupted {
                break;
            }
        }
        sweep::merge(&sweep, window, points)
    } else {
        let mut outcomes = Vec::new();
        for _ in 0..options.course.repeat.max(1) {
            let record = run(row, None);
            outcomes.push(judged(row, &record));
            if record.interrupted {
                break;
            }
        }
        repeat::merge(outcomes).expect("at least one run")
    };
    let asked = match options.attribution {
        Attribution::Nothing => false,
        Attribution::Unexpected => !outcome.as_expected && !outcome.control,
        Attribution::All => true,
    };
    if options.course.sweep.is_some() {
        outcome.findings.iter_mut().filter(|_| asked).for_each(sweep::unattributed);
    } else if asked {
        let mut findings: Vec<_> = outcome.findings.iter_mut().collect();
        attribute::attribute(row, machine, options, &mut findings, interrupted);
    }
    veil(&mut outcome, index);
    let chance = chance(&alone, &outcome);
    (outcome, chance)
}

fn digest(subject: &Path) -> Result<String, AuditError> {
    let failed = |source| AuditError::Subject { subject: subject.display().to_string(), source };
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(subject).map_err(failed)?;
    std::io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// What no run of this harness looks at, and what this machine keeps from it.
pub(crate) fn not_shown(machine: &findings::Machine) -> Vec<NotShown> {
    let always = [
        ("freed physical pages", "pages that a process gave back are the kernel's; reading them needs its memory"),
        (
            "the kernel's other keeping",
            "of what it holds for a process, the pipes, sockets, memfds and nameless files behind descriptors are \
             searched; not the page cache, terminals, send queues, connections that nobody accepted, key rings, message \
             queues, io_uring and BPF maps",
        ),
        (
            "files with a name",
            "what a program wrote into them is searched by `residue scan`, not by a look at the program",
        ),
        ("caches and DRAM remanence", "not visible to software"),
        ("moments between checkpoints", "a residue that comes and goes between two looks is not seen"),
        ("other builds", "what is shown holds for this build, kernel and machine"),
    ];
    let own = (
        "this program's own memory",
        "its needles may be written to swap: the lock limit is too low, and it has no right to pass it (CAP_IPC_LOCK)",
    );
    always
        .into_iter()
        .chain(interrupt::is_unlocked().then_some(own))
        .map(|(what, why)| NotShown { what: what.to_owned(), why: why.to_owned() })
        .chain(
            machine
                .facts
                .iter()
                .filter(|fact| !fact.present)
                .map(|fact| NotShown { what: fact.name.clone(), why: fact.detail.clone() }),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, most: u64, patience: Duration) -> Result<Vec<u8>, &'static str> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        tell(command, Some(b"canary"), most, patience).map(|bytes| bytes.to_vec()).map_err(|why| match why {
            Untold::Started(_) => "started",
            Untold::Silent => "silent",
            Untold::Long => "long",
            Untold::Broken(_) => "broken",
            Untold::Ended(_) => "ended",
        })
    }

    #[test]
    fn a_subject_that_never_answers_is_given_up_and_one_that_does_is_heard() {
        let (minute, moment) = (Duration::from_secs(60), Duration::from_millis(50));

        assert_eq!(shell("cat", 10, minute), Ok(b"canary".to_vec()));
        assert_eq!(shell("cat >/dev/null; sleep 1000", 10, moment), Err("silent"));
        assert_eq!(shell("cat >/dev/null; sleep 1000 & exec cat", 10, moment), Err("silent"));
        assert_eq!(shell("cat; cat /dev/zero", 10, minute), Err("long"));
        assert_eq!(shell("cat; exit 3", 10, minute), Err("ended"));
    }
}
