//! Any program, in any language: it is given a secret as its users give it one, and searched for it.
//!
//! ```text
//! feed ─► follow ─► look at each moment ─► judge ─► outcome
//! ```
//!
//! Nothing is linked into the program and nothing of it is known. That the secret really arrived is therefore shown
//! first: it is looked for when the read that brings it comes back, or at the start where it stands in the arguments or the
//! environment. Until it was seen whole, nothing that is not found counts as clean.

mod channels;
mod feed;
mod follow;
mod input;
mod judge;
mod keep;
mod moment;

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use findings::{Build, Outcome, Run, SCHEMA, Sensitivity, Settings, Tool, Verdict};
use scenario_protocol::CanaryKind;

pub use feed::{Feed, ParseFeedError};
pub(crate) use input::Input;
pub use keep::KeepError;
pub use moment::{Moment, ParseMomentError};

use crate::attribute::{self, Seen, Sighting, Watching};
use crate::audit;
use crate::canary::{Canary, Seed, TooWeak};
use crate::machine;
use crate::progress::{Observer, Progress};
use crate::repeat;
use crate::scan::{Index, IndexError};
use crate::session::{self, Shown};
use crate::sweep::{self, Pass, Sweep};
use crate::target::Same;
use crate::variants::FORMS;
use crate::veil::veil;

/// What to run, with what secret, and when to look. [`Options::new`] makes the plainest one.
#[derive(Debug)]
pub struct Options {
    /// The program as it is called, and its arguments.
    pub program: Vec<OsString>,
    /// The secret.
    pub secret: Source,
    /// How the program gets it.
    pub feed: Feed,
    /// Whether it is a text: random ones are letters and digits, and one on standard input ends with a newline.
    pub text: bool,
    /// When to look. At least one.
    pub moments: Vec<Moment>,
    /// Whether the processes that the program starts are looked at too.
    pub follow: bool,
    /// How often to run it.
    pub repeat: u32,
    /// How long one run may take.
    pub timeout: Duration,
    /// Shortest residue, in bytes of the secret.
    pub min_length: usize,
    /// Decoys a run.
    pub decoys: u32,
    /// Whether keys that nobody named are looked for too, by what they look like.
    pub unknown_keys: bool,
    /// A variable of ours that the program does not get: the one that the secret came from.
    pub hidden_variable: Option<String>,
    /// Variables that it gets besides ours, by name and value; they win.
    pub variables: Vec<(OsString, OsString)>,
    /// Whether the run names the file that was run by a digest, for which all of it is read.
    pub digest: bool,
    /// Where the program's standard output goes.
    pub output: Output,
    /// Whether the writers of findings are looked for. The program is then run a few times more, and what it prints
    /// then goes nowhere.
    pub attribute: bool,
    /// The library that keeps what the program frees from being used again, by its path; none if it is not to be kept.
    pub keep_freed: Option<PathBuf>,
}

/// Where a secret comes from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Source {
    /// So many random bytes, fresh in every run.
    Random(usize),
    /// The user's own.
    Given(Canary),
}

/// Where what the program prints goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// To our standard output.
    Stdout,
    /// To our standard error, where standard output is for something else.
    Stderr,
    /// Nowhere.
    Discard,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// No program was named.
    #[error("no program to run")]
    NoProgram,
    /// There is no such program.
    #[error("no program {program:?} is found: there is no such file, or none on PATH that can be run")]
    NotFound {
        /// Its name as it was given.
        program: String,
    },
    /// The kernel does not start it.
    #[error("start {program}")]
    Start {
        /// Its path.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// An argument or a variable holds a NUL byte.
    #[error("an argument or a variable holds a NUL byte")]
    Nul,
    /// The secret cannot be given in that way.
    #[error("the secret cannot be given in this way: {why}")]
    Refused {
        /// Why.
        why: &'static str,
    },
    /// The secret would take the place of an argument that is not there.
    #[error("there is no argument {number}, nor one before it")]
    NoSuchArgument {
        /// Counted from 1, the first after the program's name.
        number: usize,
    },
    /// The program is to be run several times, and our standard input, which it would read, can be read only once.
    #[error(
        "standard input is {what}, which can be read only once, and the program is run several times: give it a file or \
         /dev/null"
    )]
    Input {
        /// What it is.
        what: &'static str,
    },
    /// The file for the secret cannot be made.
    #[error("make the file {} for the secret", path.display())]
    FeedFile {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A pipe or a terminal for the secret cannot be made.
    #[error("make the pipe or terminal that the secret is fed through")]
    Feed {
        /// Why.
        source: std::io::Error,
    },
    /// Freed memory cannot be kept.
    #[error("keep freed memory")]
    KeepFreed {
        /// Why.
        #[from]
        source: KeepError,
    },
    /// The secret cannot be told from other bytes.
    #[error("the secret")]
    Weak {
        /// Why.
        #[from]
        source: TooWeak,
    },
    /// The secret cannot be indexed.
    #[error("prepare the search")]
    Index {
        /// Why.
        #[from]
        source: IndexError,
    },
    /// No random bytes.
    #[error("draw random bytes")]
    Random {
        /// Why.
        source: std::io::Error,
    },
}

/// What one run shows to a test that compares with a search of its own, and to who compares runs.
#[derive(Clone, Copy)]
pub(crate) enum Sight<'a> {
    /// This process stands still at this moment, and is searched next; at `planted` it was searched just before.
    Still {
        /// The moment's name.
        moment: &'a str,
        /// Its number in the tree.
        process: u32,
        /// Its number in the kernel's eyes.
        pid: i32,
    },
    /// Something in which residues are searched.
    Shown {
        /// The moment's name.
        moment: &'a str,
        /// The process's number in the tree.
        process: u32,
        /// What.
        shown: Shown<'a>,
    },
}

/// Is shown every [`Sight`] of one run.
pub(crate) type Witness<'a> = dyn FnMut(Sight<'_>) + 'a;

impl Options {
    /// That program, looked at once, at its end, its children left alone: residues from six bytes up, eight decoys, a minute's
    /// patience, and what it prints goes nowhere. The secret is a text where the way to feed it is one for texts.
    pub fn new(program: Vec<OsString>, secret: Source, feed: Feed) -> Self {
        Self {
            program,
            secret,
            text: feed.is_text(),
            feed,
            moments: vec![Moment::Exit],
            follow: false,
            repeat: 1,
            timeout: Duration::from_secs(60),
            min_length: 6,
            decoys: audit::DECOYS,
            unknown_keys: false,
            hidden_variable: None,
            variables: Vec::new(),
            digest: true,
            output: Output::Discard,
            attribute: false,
            keep_freed: None,
        }
    }

    /// The program's name in reports.
    pub(crate) fn name(&self) -> String {
        let name = self.program.first().map(Path::new).and_then(Path::file_name);
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Runs a program as often as asked and judges what was found.
///
/// # Errors
///
/// [`ProgramError`] when it cannot be run as asked; what goes wrong later is an inconclusive outcome.
pub fn run(options: &Options, interrupted: &AtomicBool, observer: &dyn Observer) -> Result<Run, ProgramError> {
    swept(options, None, interrupted, observer)
}

/// The same, and then once more for each point of a sweep: a signal comes while the secret is in use, that is between the
/// moment at which it is seen alive and the first of those that were asked for. What is left at the end of these runs is a
/// second outcome. What they print goes nowhere, and their memory lies at the same addresses.
///
/// # Errors
///
/// As [`run`].
pub fn swept(
    options: &Options,
    sweep: Option<&Sweep>,
    interrupted: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Run, ProgramError> {
    let again = options.attribute || sweep.is_some();
    let input = if again { Input::ours(&options.feed)? } else { Input::default() };
    let mut outcomes = Vec::new();
    let mut chances = Vec::new();
    observer.on(&Progress::Started { rows: options.repeat.max(1) as usize });
    for _ in 0..options.repeat.max(1) {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let needles = Needles::draw(options)?;
        let (outcome, chance) = once(options, &needles, interrupted, observer, &mut |_| {})?;
        observer.on(&Progress::judged(&outcome));
        outcomes.push(outcome);
        chances.push(chance);
    }
    let mut at_points = None;
    if let Some(sweep) = sweep {
        let (outcome, chance) = signalled(options, sweep, &input, interrupted)?;
        observer.on(&Progress::judged(&outcome));
        at_points = Some((outcome, chance));
    }
    let all: Vec<_> = outcomes.iter().chain(at_points.iter().map(|(outcome, _)| outcome)).cloned().collect();
    chances.extend(at_points.iter().map(|(_, chance)| chance.clone()));
    let sensitivity = Sensitivity::of(u32::try_from(options.min_length).unwrap_or(u32::MAX), &all, &chances);
    let machine = machine::probe();
    let mut run = Run {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "residue".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        not_shown: audit::not_shown(&machine),
        machine,
        build: Build {
            subject: options.name(),
            digest: if options.digest { digest(options) } else { "unknown".to_owned() },
            profile: "unknown".to_owned(),
            rustc: "unknown".to_owned(),
            ablation: None,
        },
        settings: Settings {
            min_length: u32::try_from(options.min_length).unwrap_or(u32::MAX),
            decoys: options.decoys,
            filter: String::new(),
            required: Vec::new(),
            timeout_seconds: u32::try_from(options.timeout.as_secs()).unwrap_or(u32::MAX),
            repeat: options.repeat.max(1),
            fixed_layout: false,
        },
        sensitivity,
        shard: None,
        interrupted: interrupted.load(Ordering::Relaxed),
        verdict: Verdict::Inconclusive,
        outcomes: repeat::merge(outcomes).into_iter().chain(at_points.map(|(outcome, _)| outcome)).collect(),
    };
    run.verdict = run.judge();
    if options.attribute && !run.interrupted {
        let (plain, at_points) = run.outcomes.split_at_mut(1);
        at_points.iter_mut().flat_map(|outcome| &mut outcome.findings).for_each(sweep::unattributed);
        let mut found: Vec<_> = plain.iter_mut().flat_map(|outcome| &mut outcome.findings).collect();
        attribute::attribute_program(options, &input, &mut found, interrupted);
        run.interrupted = interrupted.load(Ordering::Relaxed);
        if let Source::Given(canary) = &options.secret {
            let index = index(options, &[canary.bytes()])?;
            run.outcomes.iter_mut().for_each(|outcome| veil(outcome, &index));
        }
    }
    Ok(run)
}

/// Runs it once.
pub(crate) fn once<'w>(
    options: &Options,
    needles: &Needles<'_>,
    interrupted: &AtomicBool,
    observer: &dyn Observer,
    witness: &'w mut Witness<'w>,
) -> Result<audit::Judged, ProgramError> {
    if let Some(why) = options.feed.refuses(needles.canary().bytes()) {
        return Err(ProgramError::Refused { why });
    }
    let all = needles.all();
    let index = index(options, &all)?;
    let alone = Index::new(&all[..1], &FORMS, options.min_length)?;
    let record = follow::run(options, needles.canary(), &index, None, interrupted, witness)?;
    if record.echoed {
        observer.on(&Progress::Noted {
            text: "the secret was in what the program printed, or its terminal echoed it".to_owned(),
        });
    }
    let mut outcome = judge::outcome(options, &record, options.decoys);
    veil(&mut outcome, &index);
    let chance = audit::chance(&alone, &outcome);
    Ok((outcome, chance))
}

/// Runs it once as it is run to name writers: its memory at the same addresses each time, what it asks of chance the
/// same each time, what it prints nowhere.
pub(crate) fn once_more(
    options: &Options,
    needles: &Needles<'_>,
    index: &Index,
    interrupted: &AtomicBool,
    witness: &mut Witness<'_>,
) -> Result<Outcome, ProgramError> {
    if let Some(why) = options.feed.refuses(needles.canary().bytes()) {
        return Err(ProgramError::Refused { why });
    }
    // What can be read only once is nothing in all of these runs.
    let input = Input::ours(&options.feed).unwrap_or_default();
    let again = follow::Again { watching: None, pass: None, same: None, input: &input };
    let record = follow::run(options, needles.canary(), index, Some(&again), interrupted, witness)?;
    Ok(judge::outcome(options, &record, options.decoys))
}

/// Runs it once to measure the window, and once for each point in it.
fn signalled(
    options: &Options,
    sweep: &Sweep,
    input: &Input,
    interrupted: &AtomicBool,
) -> Result<audit::Judged, ProgramError> {
    let needles = Needles::draw(options)?;
    let all = needles.all();
    let index = index(options, &all)?;
    let alone = Index::new(&all[..1], &FORMS, options.min_length)?;
    let name = format!("{} + {}", options.name(), sweep.signal());
    let _one_cpu = attribute::OneCpu::take();
    let run = |pass: Pass| {
        let again = follow::Again { watching: None, pass: Some(pass), same: None, input };
        follow::run(options, needles.canary(), &index, Some(&again), interrupted, &mut |_| {})
    };
    let counted = run(Pass::Count)?;
    let outcome = match counted.window {
        Some(window) => {
            let mut points = Vec::new();
            for point in sweep.points(window) {
                let record = run(point.pass())?;
                points.push((point, judge::outcome_at(options, &name, &[Moment::Exit], &record, options.decoys)));
                if record.interrupted {
                    break;
                }
            }
            sweep::merge(sweep, window, points)
        }
        None => {
            let mut outcome = judge::outcome_at(options, &name, &[Moment::Exit], &counted, options.decoys);
            outcome.reasons.insert(0, "the window of the sweep was not measured".to_owned());
            outcome.verdict = Verdict::Inconclusive;
            outcome
        }
    };
    let chance = audit::chance(&alone, &outcome);
    Ok((outcome, chance))
}

/// All that is looked for.
pub(crate) fn index(options: &Options, needles: &[&[u8]]) -> Result<Index, IndexError> {
    let index = Index::new(needles, &FORMS, options.min_length)?;
    Ok(if options.unknown_keys { index.with_unknown_keys() } else { index })
}

/// The program, to be run again and again with one secret.
pub(crate) struct Rerun<'a> {
    options: &'a Options,
    needles: Needles<'a>,
    index: Index,
    input: &'a Input,
    /// The clocks of its first run, and the number that its process had.
    same: Cell<Same>,
    interrupted: &'a AtomicBool,
}

impl<'a> Rerun<'a> {
    pub(crate) fn new(
        options: &'a Options,
        input: &'a Input,
        interrupted: &'a AtomicBool,
    ) -> Result<Self, ProgramError> {
        let needles = Needles::draw(options)?;
        let index = index(options, &[needles.canary().bytes()])?;
        Ok(Self { options, needles, index, input, same: Cell::new(Same::now()), interrupted })
    }
}

impl attribute::Subject for Rerun<'_> {
    fn can_be_pinned(&self) -> bool {
        true
    }

    fn run(&self, watching: Option<&Watching<'_>>, pinned: bool) -> Result<Seen, String> {
        let same = self.same.get();
        let again = follow::Again { watching, pass: None, same: pinned.then_some(same), input: self.input };
        let mut nobody = |_: Sight<'_>| {};
        let canary = self.needles.canary();
        let record = follow::run(self.options, canary, &self.index, Some(&again), self.interrupted, &mut nobody)
            .map_err(|error| session::chain(&error))?;
        self.same.set(same.with_number(record.pid));
        let name = self.options.name();
        let sightings =
            judge::findings_by_look(&name, &record).map(|(seen, hit, finding)| Sighting::new(finding, &seen.look, hit));
        Ok(Seen { sightings: sightings.collect(), trouble: record.troubles.first().cloned() })
    }
}

/// The secret and the decoys of one run.
pub(crate) struct Needles<'a> {
    drawn: Option<Canary>,
    given: Option<&'a Canary>,
    decoys: Vec<Canary>,
}

impl<'a> Needles<'a> {
    pub(crate) fn draw(options: &'a Options) -> Result<Self, ProgramError> {
        let seed = Seed::random().map_err(|source| ProgramError::Random { source })?;
        let kind = if options.text { CanaryKind::Text } else { CanaryKind::Bytes };
        let (drawn, given, length) = match &options.secret {
            Source::Random(length) => {
                if *length < crate::canary::MIN_SECRET {
                    return Err(TooWeak::Short { length: *length }.into());
                }
                (Some(seed.canary("program", kind, *length)), None, *length)
            }
            Source::Given(canary) => (None, Some(canary), canary.bytes().len()),
        };
        Ok(Self { drawn, given, decoys: seed.decoys("program", kind, length, options.decoys) })
    }

    /// With a secret that was given.
    pub(crate) fn given(canary: &'a Canary, options: &Options) -> Result<Self, ProgramError> {
        let seed = Seed::random().map_err(|source| ProgramError::Random { source })?;
        let kind = if options.text { CanaryKind::Text } else { CanaryKind::Bytes };
        let decoys = seed.decoys("program", kind, canary.bytes().len(), options.decoys);
        Ok(Self { drawn: None, given: Some(canary), decoys })
    }

    pub(crate) fn canary(&self) -> &Canary {
        self.drawn.as_ref().or(self.given).expect("one of the two is there from the start")
    }

    /// The secret is the first.
    pub(crate) fn all(&self) -> Vec<&[u8]> {
        std::iter::once(self.canary()).chain(&self.decoys).map(Canary::bytes).collect()
    }
}

/// A digest of the file that was run: of a script's interpreter where that is what was named.
fn digest(options: &Options) -> String {
    let digest = || {
        let path = feed::find(options.program.first()?)?;
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut std::fs::File::open(path).ok()?, &mut hasher).ok()?;
        Some(format!("blake3:{}", hasher.finalize().to_hex()))
    };
    digest().unwrap_or_else(|| "unknown".to_owned()) // a program that may be run but not read
}
