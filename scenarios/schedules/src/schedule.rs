//! Schedules: what happens to which side of a vault, at which step of a call, the how-many-th time; and how a row is named.
//!
//! A name says all of it, so any row can be run alone: `vault/1x+worker:plain:1:kill` is one thread that calls, and a worker
//! that is killed when a plaintext stands in its slot for the first time; `1a` is one that polls a future, and leaves the reading to the
//! vault's own thread. Steps and what may happen there are those of
//! `secmem/src/vault/steps.rs`. `list` prints one row for each step and thing; others are named in a variable.

use std::fmt;

use scenario_protocol::Checkpoint::{Exit, ExitCall, Planted, Wiped};
use scenario_protocol::{CanaryKind, Claim, Ends, Expectation, Need, Row, Shape};

/// Names of schedules, separated by spaces, that `list` prints instead of its own.
pub(crate) const THESE: &str = "SCHEDULES";

/// The file beside the program that gets a line a row, if it is there.
pub(crate) const HITS: &str = "hits";

/// Bytes of canary.
pub(crate) const LEN: usize = 64;

/// How a name says that calls wait, or are polled.
const WAITS: char = 'x';
const POLLS: char = 'a';

/// Threads that call at once, at most.
const MOST_THREADS: usize = 8;

/// A hit was planned and did not come.
pub(crate) const UNREACHED: u8 = 10;
/// A process lived on when the one that had started it was gone.
pub(crate) const ORPHAN: u8 = 11;
/// The caller did not end.
pub(crate) const HANG: u8 = 12;

/// What can happen.
pub(crate) const WHATS: [&str; 4] = ["kill", "stop", "pause", "panic"];

/// A point that a call passes.
struct Step {
    side: &'static str,
    name: &'static str,
    /// When the first call for a password passes it: `generate` and `store` come before.
    nth: u32,
    /// The password stands there in a slot of this side's.
    plain: bool,
}

const fn step(side: &'static str, name: &'static str, nth: u32, plain: bool) -> Step {
    Step { side, name, nth, plain }
}

#[rustfmt::skip] // in columns
static STEPS: &[Step] = &[
    step("caller", "asked",    2, true), // the password that is to be kept
    step("caller", "asked",    3, false),
    step("caller", "sealed",   3, false),
    step("caller", "sent",     3, false),
    step("caller", "received", 3, false),
    step("caller", "opened",   1, true),
    step("caller", "lent",     1, true),
    step("caller", "wiped",    1, false),
    step("worker", "received", 3, false),
    step("worker", "opened",   3, false),
    step("worker", "taken",    1, true),
    step("worker", "plain",    1, true),
    step("worker", "sealed",   1, false),
    step("worker", "wiped",    1, false),
    step("worker", "sent",     1, false),
    step("worker", "told",     1, false),
];

/// Both sides at once: a worker that stands still, or has just been hit, while its caller goes.
const BOTH: [&str; 4] = [
    "1x+worker:received:3:stop+caller:sent:3:kill",
    "1x+worker:wiped:1:stop+caller:sent:3:stop",
    "1x+worker:sent:1:kill+caller:received:3:pause",
    "1x+worker:told:1:panic+caller:lent:1:panic",
];

/// What must be noticed, or a clean table means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The callback keeps a copy.
    CallerKeeps,
    /// The worker keeps one.
    WorkerKeeps,
    /// Something is planned for a step that no call passes so often.
    Unreached,
    /// The caller leaves a process behind.
    Orphan,
    /// It does not end.
    Hang,
}

const CONTROLS: [(&str, Control); 5] = [
    ("caller-keeps", Control::CallerKeeps),
    ("worker-keeps", Control::WorkerKeeps),
    ("unreached", Control::Unreached),
    ("orphan", Control::Orphan),
    ("hang", Control::Hang),
];

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit(String);

impl Hit {
    fn parse(text: &str) -> Option<Self> {
        let [side, name, nth, what] = text.split(':').collect::<Vec<_>>()[..] else { return None };
        let known = STEPS.iter().any(|step| (step.side, step.name) == (side, name)) && WHATS.contains(&what);
        (known && nth.parse::<u32>().is_ok_and(|nth| nth > 0)).then(|| Self(text.to_owned()))
    }

    /// As it is told to the library, and by it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it happens to the caller.
    pub(crate) fn is_the_callers(&self) -> bool {
        self.0.starts_with("caller:")
    }

    /// What happens.
    pub(crate) fn what(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }

    /// Whether its side ends by SIGKILL, at which nothing can be wiped.
    pub(crate) fn kills(&self) -> bool {
        matches!(self.what(), "kill" | "stop")
    }

    /// The step, if it comes when the first call for a password passes it.
    fn step(&self) -> Option<&'static Step> {
        STEPS.iter().find(|step| self.0.starts_with(&format!("{}:{}:{}:", step.side, step.name, step.nth)))
    }
}

/// What happens in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) threads: usize,
    /// They poll.
    pub(crate) polls: bool,
    pub(crate) hits: Vec<Hit>,
    pub(crate) control: Option<Control>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = CONTROLS.iter().find(|(_, control)| Some(*control) == self.control) {
            return write!(f, "control/{name}");
        }
        write!(f, "vault/{}{}", self.threads, if self.polls { POLLS } else { WAITS })?;
        self.hits.iter().try_for_each(|hit| write!(f, "+{}", hit.0))
    }
}

impl Schedule {
    /// Reads a row's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_prefix("control/") {
            let (_, control) = CONTROLS.iter().find(|(known, _)| *known == name)?;
            return Some(Self { threads: 1, polls: false, hits: Vec::new(), control: Some(*control) });
        }
        let mut parts = name.strip_prefix("vault/")?.split('+');
        let first = parts.next()?;
        let (threads, polls) = match first.strip_suffix(WAITS) {
            Some(threads) => (threads, false),
            None => (first.strip_suffix(POLLS)?, true),
        };
        let threads = threads.parse().ok()?;
        let hits: Vec<Hit> = parts.map(Hit::parse).collect::<Option<_>>()?;
        let alone = hits.iter().enumerate().all(|(at, hit)| !hits[..at].contains(hit));
        (alone && (1..=MOST_THREADS).contains(&threads)).then_some(Self { threads, polls, hits, control: None })
    }

    /// What the library is told.
    pub(crate) fn told(&self) -> String {
        match self.control {
            Some(Control::WorkerKeeps) => "worker:plain:1:keep".to_owned(),
            Some(Control::Unreached) => "caller:lent:1000000:panic".to_owned(),
            _ => self.hits.iter().map(Hit::text).collect::<Vec<_>>().join(","),
        }
    }

    /// How many lines the library is to say.
    pub(crate) fn planned(&self) -> usize {
        if self.told().is_empty() { 0 } else { self.hits.len().max(1) }
    }

    fn expectation(&self) -> Expectation {
        let known = |hit: &Hit| hit.step().filter(|_| self.threads == 1);
        match (self.control, &self.hits[..]) {
            (Some(Control::CallerKeeps | Control::WorkerKeeps), _) => {
                Expectation::Leak { at: ExitCall, shape: Shape::Whole }
            }
            // A limit that no library can lift: memory that is merely locked is as it was where nothing can run any more.
            (_, [hit]) if hit.kills() && known(hit).is_some_and(|step| step.plain) => {
                Expectation::Leak { at: Exit, shape: Shape::Whole }
            }
            (_, [hit]) if known(hit).is_some() => Expectation::Clean(Claim::Wiped),
            (_, hits) if hits.iter().any(Hit::kills) => {
                Expectation::Either("at SIGKILL nothing wipes what stood in a slot".to_owned())
            }
            _ => Expectation::Clean(Claim::Wiped),
        }
    }

    fn row(&self) -> Row {
        let name = self.to_string();
        let (holder, ending) = name.split_once('/').unwrap_or((&name, ""));
        let ends = match self.control {
            Some(Control::Unreached) => UNREACHED,
            Some(Control::Orphan) => ORPHAN,
            Some(Control::Hang) => HANG,
            Some(Control::CallerKeeps | Control::WorkerKeeps) | None => 0,
        };
        Row {
            holder: holder.to_owned(),
            ending: ending.to_owned(),
            canary: CanaryKind::Bytes,
            canary_len: LEN,
            expect: self.expectation(),
            ends: Ends::Exit(ends.into()),
            checkpoints: vec![Planted, Wiped, ExitCall, Exit],
            sole_home: !matches!(self.control, Some(Control::CallerKeeps | Control::WorkerKeeps)),
            needs: vec![Need::Mlock],
            turned_by: Vec::new(),
            asks: false,
            shows: vec!["S11".to_owned(), "S16".to_owned()],
            derived: None,
            name,
        }
    }
}

/// The rows: each step and thing, both sides at once, and what must be noticed; or `these`, separated by spaces.
///
/// # Errors
///
/// The name that is none.
pub(crate) fn rows(these: Option<&str>) -> Result<Vec<Row>, String> {
    let row = |name: String| Schedule::parse(&name).map(|it| it.row()).ok_or(name);
    if let Some(these) = these {
        return these.split_ascii_whitespace().map(|name| row(name.to_owned())).collect();
    }
    let each = STEPS.iter().flat_map(|step| {
        WHATS.map(|what| format!("vault/1{WAITS}+{}:{}:{}:{what}", step.side, step.name, step.nth)).into_iter()
    });
    // What is other where a call is polled: who reads its answer, and who runs its callback.
    let polled = STEPS.iter().filter(|step| ["received", "opened", "lent", "wiped"].contains(&step.name));
    let polled = polled.filter(|step| step.side == "caller").flat_map(|step| {
        WHATS.map(|what| format!("vault/1{POLLS}+{}:{}:{}:{what}", step.side, step.name, step.nth)).into_iter()
    });
    let both = BOTH.iter().map(|both| format!("vault/{both}"));
    let controls = CONTROLS.iter().map(|(name, _)| format!("control/{name}"));
    each.chain(polled).chain(both).chain(controls).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_what_is_no_schedule_is_refused() {
        for row in rows(None)
            .unwrap()
            .into_iter()
            .chain(rows(Some("vault/3a+caller:lent:2:panic+worker:plain:4:stop")).unwrap())
        {
            assert_eq!(Schedule::parse(&row.name).unwrap().to_string(), row.name);
        }
        for name in [
            "vault/0x",
            "vault/1y",
            "vault/9x",
            "vault/1x+caller:lent:0:kill",
            "vault/1x+caller:plain:1:kill",
            "vault/1x+caller:lent:1:melt",
            "vault/1x+caller:lent:1:kill+caller:lent:1:kill",
            "control/nothing",
            "",
        ] {
            assert_eq!(Schedule::parse(name), None, "{name}");
        }
        assert_eq!(rows(Some("vault/1x nonsense")), Err("nonsense".to_owned()));
    }

    #[test]
    fn a_residue_is_expected_where_sigkill_meets_a_plaintext_alone() {
        let expected = |name: &str| Schedule::parse(name).unwrap().row().expect.to_string();

        assert_eq!(expected("vault/1x+worker:plain:1:kill"), "leak@exit");
        assert_eq!(expected("vault/1x+worker:plain:1:pause"), "clean");
        assert_eq!(expected("vault/1x+worker:sealed:1:kill"), "clean");
        assert_eq!(expected("vault/1x+caller:asked:3:stop"), "clean");
        assert_eq!(expected("vault/2x+caller:asked:3:panic+worker:told:2:panic"), "clean");
        assert!(expected("vault/2x+worker:sealed:1:kill").starts_with("either"));
        assert!(expected("vault/1a+caller:lent:3:kill").starts_with("either"));
        assert_eq!(expected("vault/1a+caller:lent:3:panic"), "clean");
    }
}
