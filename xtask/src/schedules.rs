//! `cargo xtask schedules`: something happens to either side of a vault at each step of a call, and nothing is left.
//!
//! The library is built with its steps (`cfg(secmem_ablate = "vault-steps")`), `residue` runs and judges a row for each step and
//! thing, and as many random schedules as are asked for. What a schedule is, its name says; a seed makes the random ones again.
//!
//! A residue, a process that lives on, a caller that does not end, and a vault that does not go on fail. What was planned and did not
//! come, and a planted leak that nobody saw, leave it undecided. SIGKILL wipes nothing, and of memory that is merely locked that
//! shows: bytes that stand whole in a process that a SIGKILL of the schedule's has just ended, and nowhere else, are no residue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use xshell::cmd;

use crate::audit::{self, Auditor};
use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;
use crate::wrapper;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask schedules\n  cargo xtask schedules --random 1000 --seed 7\n  cargo xtask schedules --only worker:plain:kill --only vault/3a+caller:lent:2:panic+worker:told:1:stop";

/// The package of the subject.
const PACKAGE: &str = "scenarios-schedules";

/// The build with the steps.
pub(crate) const STEPS: &str = "vault-steps";

/// The variable by which the subject is told which rows there are: `scenarios/schedules/src/schedule.rs`.
const THESE: &str = "SCHEDULES";

/// Seconds that `residue` gives a row. The subject gives up before: it then tells what hangs.
const PATIENCE: &str = "90";

/// Rows of which a run could say nothing that are run once more: a machine that was busy for a minute makes such rows, and so does a
/// thread that ends at the very moment at which its registers are read.
const MOST_AGAIN: usize = 12;

/// How often. What leaks, lives on or hangs gets no second chance.
const TIMES_AGAIN: u32 = 3;

/// Which schedules to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run N random schedules besides [default: 200, or none with --only]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    random: Option<u32>,
    /// Draw them from this number [default: a new one, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Run this alone, SIDE:STEP:WHAT or a schedule's whole name as it is printed; may be repeated
    #[arg(long, value_name = "SCHEDULE")]
    only: Vec<String>,
    /// Run N rows at a time [default: four a core, for most of a row's time is waiting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Write the evidence here, over that of an earlier run [default: target/schedules]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build the subject with this profile
    #[arg(long, value_name = "NAME", default_value = audit::SUBJECT_PROFILE)]
    profile: String,
}

/// Builds, runs every schedule, prints the tables, and returns the verdict's exit code.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    workspace.require_profile(&options.profile)?;
    let out = match &options.out {
        Some(out) => {
            std::path::absolute(out).map_err(|error| Failure::because(format!("finding {}", out.display()), error))?
        }
        None => workspace.target.join("schedules"),
    };
    audit::claim(&out)?;
    let started = Instant::now();
    let auditor = Auditor::build(&workspace)?;
    let dir = workspace.target.join("ablate").join(STEPS);
    let built = workspace.build(PACKAGE, &options.profile, Some(&wrapper::install(&dir, STEPS)?))?;
    // Cargo puts every build at the same path.
    let subject = dir.join(PACKAGE);
    fs::copy(&built, &subject).map_err(|error| Failure::because(format!("copying {}", built.display()), error))?;

    let listing = cmd!(workspace.sh, "{subject} list").quiet().env_remove(THESE).read()?;
    let own = names(&listing)?;
    let mut chosen = choose(&own, &options.only)?;
    let seed = options.seed.unwrap_or_else(from_the_clock);
    let count = options.random.unwrap_or(if options.only.is_empty() { 200 } else { 0 });
    let steps = Steps::of(&own)?;
    let drawn: Vec<(u64, String)> = (0..count).map(|number| steps.draw(seed_of(seed, number))).collect();
    let listed: BTreeSet<String> = chosen.iter().cloned().collect();
    let new: BTreeSet<&String> = drawn.iter().map(|(_, name)| name).filter(|name| !listed.contains(*name)).collect();
    chosen.extend(new.into_iter().cloned());
    eprintln!("xtask: {} schedules, {count} of them random with seed {seed}", chosen.len());

    let hits = dir.join("hits");
    fs::write(&hits, "").map_err(|error| Failure::because(format!("writing {}", hits.display()), error))?;
    let jobs =
        options.jobs.map_or_else(|| 4 * std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let running = Instant::now();
    let audit = |rows: &[String], evidence: &Path| -> Result<Result<Played, u8>, Failure> {
        audit::claim(evidence)?;
        let mut residue = auditor.audit(&subject, evidence, &options.profile);
        // Its report says of a schedule that ends by SIGKILL that it leaks; the tables say what is one.
        residue.args(["--ablation", STEPS, "--timeout", PATIENCE, "--jobs", &jobs.to_string()]).stdout(Stdio::null());
        residue.env(THESE, rows.join(" "));
        match child::verdict(residue)? {
            0..=2 => Played::read(&evidence.join("run.json"), &hits).map(Ok),
            code => Ok(Err(code)), // residue has said why
        }
    };
    let mut played = match audit(&chosen, &out)? {
        Ok(played) => played,
        Err(code) => return Ok(code),
    };
    for time in 1..=TIMES_AGAIN {
        let unclear = played.unclear();
        if unclear.is_empty() || unclear.len() > MOST_AGAIN {
            break;
        }
        eprintln!("xtask: {} schedules of which nothing could be said, once more", unclear.len());
        match audit(&unclear, &out.join(format!("again-{time}")))? {
            Ok(again) => played.rows.extend(again.rows),
            Err(code) => return Ok(code),
        }
    }
    print!("{}", played.text(&own, &drawn));
    println!("seed of the random ones: {seed} (the same again: cargo xtask schedules --random {count} --seed {seed})");
    println!("{} s with the builds, {} s without", started.elapsed().as_secs(), running.elapsed().as_secs());
    let code = played.code();
    println!("{}", ["all of it came, and nothing is left", "FAILED", "inconclusive"][usize::from(code)]);
    Ok(code)
}

/// The names of a catalogue.
fn names(listing: &str) -> Result<Vec<String>, Failure> {
    let rows: Value = serde_json::from_str(listing).map_err(|error| Failure::because("reading a catalogue", error))?;
    let name = |row: &Value| Some(row["name"].as_str()?.to_owned());
    let names = rows.as_array().and_then(|rows| rows.iter().map(name).collect());
    names.ok_or_else(|| Failure::internal("a catalogue is no array of rows with a name"))
}

/// Whether a row is of those that must be noticed.
fn is_control(name: &str) -> bool {
    name.starts_with("control/")
}

/// The things of a schedule: `[SIDE, STEP, NTH, WHAT]`.
fn hits(name: &str) -> Vec<[&str; 4]> {
    name.split('+').filter_map(|hit| hit.split(':').collect::<Vec<_>>().try_into().ok()).collect()
}

/// The rows that are asked for, and those that must be noticed in any run.
fn choose(own: &[String], only: &[String]) -> Result<Vec<String>, Failure> {
    if only.is_empty() {
        return Ok(own.to_vec());
    }
    let mut chosen = Vec::new();
    for asked in only {
        if asked.starts_with("vault/") {
            chosen.push(asked.clone());
            continue;
        }
        let before = chosen.len();
        let is_asked = |name: &&String| match hits(name)[..] {
            [[side, step, nth, what]] => {
                [format!("{side}:{step}:{what}"), format!("{side}:{step}:{nth}:{what}")].contains(asked)
            }
            _ => false,
        };
        chosen.extend(own.iter().filter(is_asked).cloned());
        if chosen.len() == before {
            let steps: BTreeSet<String> =
                own.iter().flat_map(|name| hits(name)).map(|[side, step, ..]| format!("{side}:{step}")).collect();
            return Err(Failure::Usage(format!(
                "no schedule {asked:?}: SIDE:STEP:WHAT, where WHAT is kill, stop, pause or panic and SIDE:STEP one of {}",
                steps.into_iter().collect::<Vec<_>>().join(", ")
            )));
        }
    }
    chosen.extend(own.iter().filter(|name| is_control(name)).cloned());
    let mut seen = BTreeSet::new();
    chosen.retain(|name| seen.insert(name.clone()));
    Ok(chosen)
}

fn from_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    mix(now.as_secs() ^ u64::from(now.subsec_nanos()) << 32) >> 32 // short enough to be typed
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014). Nothing secret comes of it.
fn mix(from: u64) -> u64 {
    let from = (from ^ from >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let from = (from ^ from >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    from ^ from >> 31
}

/// The seed of one schedule.
fn seed_of(seed: u64, number: u32) -> u64 {
    mix(seed.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// What schedules are drawn from.
struct Steps {
    /// `SIDE:STEP`, and when a call for a password first passes it.
    steps: Vec<(String, u32)>,
    whats: Vec<String>,
}

impl Steps {
    fn of(own: &[String]) -> Result<Self, Failure> {
        let (mut steps, mut whats) = (BTreeMap::new(), BTreeSet::new());
        for [side, step, nth, what] in own.iter().flat_map(|name| hits(name)) {
            let nth: u32 = nth.parse().map_err(|error| Failure::because("reading a schedule's name", error))?;
            let first = steps.entry(format!("{side}:{step}")).or_insert(nth);
            *first = nth.min(*first);
            whats.insert(what.to_owned());
        }
        if steps.is_empty() {
            return Err(Failure::internal("the catalogue names no step"));
        }
        Ok(Self { steps: steps.into_iter().collect(), whats: whats.into_iter().collect() })
    }

    /// One to four threads, one to three things, each at one of the first four times that a step is passed.
    fn draw(&self, seed: u64) -> (u64, String) {
        let mut state = seed;
        let mut below = |most: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (mix(state) >> 32) as usize % most
        };
        let mut name = format!("vault/{}{}", 1 + below(4), ["x", "a"][below(2)]); // calls that wait, or are polled
        let mut taken = BTreeSet::new();
        for _ in 0..=below(3) {
            let (step, first) = &self.steps[below(self.steps.len())];
            let nth = *first as usize + below(4);
            let what = &self.whats[below(self.whats.len())];
            // A password is taken once by a worker, and by another when that one is gone.
            let nth = if step == "worker:taken" { *first as usize } else { nth };
            if taken.insert((step, nth)) {
                let _ = write!(name, "+{step}:{nth}:{what}"); // to a String
            }
        }
        (seed, name)
    }
}

/// What may be said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Clean,
    /// So is all but a slot of a process that SIGKILL has ended.
    Killed,
    Residue,
    Orphan,
    Hang,
    /// The vault did not work any more, or counted wrongly.
    Broken,
    /// Planned, and did not come.
    Unreached,
    /// Nothing can be said.
    Unclear,
    /// A planted leak, or what else must be noticed, was.
    Noticed,
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Killed => "clean*",
            Self::Residue => "RESIDUE",
            Self::Orphan => "ORPHAN",
            Self::Hang => "HANG",
            Self::Broken => "BROKEN",
            Self::Unreached => "unreached",
            Self::Unclear => "unclear",
            Self::Noticed => "noticed",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Clean | Self::Killed | Self::Noticed => 0,
            Self::Residue | Self::Orphan | Self::Hang | Self::Broken => 1,
            Self::Unreached | Self::Unclear => 2,
        }
    }
}

/// A row that was played.
#[derive(Debug)]
struct Row {
    what: What,
    /// Why, where it is not as it should be.
    why: Vec<String>,
    /// What came: `SIDE:STEP:NTH:WHAT`.
    came: Vec<String>,
}

/// All rows by their names.
#[derive(Debug, Default)]
struct Played {
    rows: BTreeMap<String, Row>,
}

impl Played {
    fn read(run: &Path, hits: &Path) -> Result<Self, Failure> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| Failure::because(format!("reading {}", path.display()), error))
        };
        Self::parse(&read(run)?, &read(hits)?)
            .map_err(|why| Failure::because(format!("reading {}", run.display()), why))
    }

    /// From a run, and from what the subject has written down of each row: name, what came, and more, with tabs between.
    fn parse(run: &str, written: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut came = BTreeMap::new();
        for line in written.lines() {
            let mut columns = line.split('\t');
            let (Some(name), Some(these)) = (columns.next(), columns.next()) else {
                return Err("an odd line of hits".into());
            };
            came.insert(name, these); // a later one is of the second time
        }
        let run: Value = serde_json::from_str(run)?;
        if run["interrupted"].as_bool() != Some(false) {
            return Err("the run was interrupted".into());
        }
        let mut rows = BTreeMap::new();
        for outcome in run["outcomes"].as_array().ok_or("no outcomes")? {
            let name = outcome["scenario"].as_str().ok_or("an outcome without a scenario")?;
            let (mut what, why) = judge(name, outcome).ok_or("an outcome without what is judged by")?;
            let came = came.get(name).into_iter().flat_map(|came| came.split('+')).filter(|hit| !hit.is_empty());
            let came: Vec<String> = came.map(str::to_owned).collect();
            // The subject says so itself; here is its list.
            if what.code() == 0 && came.is_empty() && !hits(name).is_empty() {
                what = What::Unreached;
            }
            rows.insert(name.to_owned(), Row { what, why, came });
        }
        Ok(Self { rows })
    }

    fn unclear(&self) -> Vec<String> {
        let unclear = self.rows.iter().filter(|(_, row)| row.what.code() == 2);
        unclear.map(|(name, _)| name.clone()).collect()
    }

    /// 1 if anything failed, else 2 if anything is undecided or no leak was planted.
    fn code(&self) -> u8 {
        let codes: BTreeSet<u8> = self.rows.values().map(|row| row.what.code()).collect();
        let noticed = self.rows.values().any(|row| row.what == What::Noticed);
        if codes.contains(&1) { 1 } else { 2 * u8::from(codes.contains(&2) || !noticed) }
    }

    fn word(&self, name: &str) -> &'static str {
        self.rows.get(name).map_or("", |row| row.what.word())
    }

    /// The tables: steps and things, several at once, what must be noticed, the random ones; why, where something is wrong; sums.
    fn text(&self, own: &[String], drawn: &[(u64, String)]) -> String {
        let mut text = String::new();
        let mut line = |line: String| text += &(line.trim_end().to_owned() + "\n");
        let mut points: Vec<&str> = Vec::new();
        let mut whats: Vec<&str> = Vec::new();
        for name in own.iter().filter(|name| hits(name).len() == 1) {
            let Some((point, what)) = name.rsplit_once(':') else { continue };
            if !points.contains(&point) {
                points.push(point);
            }
            if !whats.contains(&what) {
                whats.push(what);
            }
        }
        let cells = |cells: &[&str]| cells.iter().map(|cell| format!("{cell:<11}")).collect::<String>();
        line(format!("{:<33}{}", "threads, step, how-many-th time", cells(&whats)));
        for point in points {
            let words: Vec<&str> = whats.iter().map(|what| self.word(&format!("{point}:{what}"))).collect();
            if words.iter().any(|word| !word.is_empty()) {
                line(format!("{point:<33}{}", cells(&words)));
            }
        }
        let random: BTreeSet<&str> = drawn.iter().map(|(_, name)| &**name).collect();
        line(String::new());
        for name in self.rows.keys() {
            let is_of_the_table = own.contains(name) && hits(name).len() == 1;
            if !is_of_the_table && !random.contains(&**name) {
                line(format!("{:<11}{name}", self.word(name)));
            }
        }
        line(String::new());
        for (number, (seed, name)) in drawn.iter().enumerate() {
            line(format!("{:<11}random {:<5}{seed:#018x}  {name}", self.word(name), number + 1));
        }
        for (name, row) in &self.rows {
            for why in row.why.iter().filter(|_| row.what.code() != 0) {
                line(format!("{name}: {why}"));
            }
        }
        line(String::new());
        line(
            "clean*: but for the slot of a process that SIGKILL has just ended, where nothing can run to wipe it"
                .to_owned(),
        );
        let mut sums: BTreeMap<String, usize> = BTreeMap::new();
        let mut points = BTreeSet::new();
        for hit in self.rows.iter().filter(|(name, _)| !is_control(name)).flat_map(|(_, row)| &row.came) {
            if let [side, step, _, what] = hit.split(':').collect::<Vec<_>>()[..] {
                *sums.entry(format!("{side} {what}")).or_default() += 1;
                points.insert((side, step, what));
            }
        }
        let total: usize = sums.values().sum();
        let sums: Vec<String> = sums.into_iter().map(|(what, count)| format!("{what} {count}")).collect();
        let mut words: BTreeMap<&str, usize> = BTreeMap::new();
        self.rows.values().for_each(|row| *words.entry(row.what.word()).or_default() += 1);
        let words: Vec<String> = words.into_iter().map(|(word, count)| format!("{word} {count}")).collect();
        line(format!("{} schedules: {}", self.rows.len(), words.join(", ")));
        line(format!("{total} hits, {} of each side, step and thing at least once: {}", points.len(), sums.join(", ")));
        text
    }
}

/// What an outcome says, and why.
fn judge(name: &str, outcome: &Value) -> Option<(What, Vec<String>)> {
    let ended = outcome["ended"].as_str()?;
    let as_expected = outcome["as_expected"].as_bool()?;
    let reasons: Vec<String> =
        outcome["reasons"].as_array()?.iter().map(|why| why.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    if is_control(name) {
        return Some(if as_expected { (What::Noticed, reasons) } else { (What::Unclear, reasons) });
    }
    let looks = outcome["observations"].as_array()?;
    let findings = outcome["findings"].as_array()?;
    let mut excused: BTreeMap<u64, usize> = BTreeMap::new();
    let mut residues = Vec::new();
    for finding in findings {
        let (process, checkpoint) = (finding["process"].as_u64()?, finding["checkpoint"].as_str()?);
        let rule = &finding["rule"];
        // Whoever ends in any other way has had a last live stop.
        let live = |look: &Value| {
            look["process"] == finding["process"]
                && look["checkpoint"] != "planted"
                && look["checkpoint"] != "wiped"
                && look["checkpoint"] != "exit"
        };
        let side = if process == CALLER { "caller" } else { "worker" };
        let planned = hits(name).iter().any(|[its, .., what]| *its == side && ["kill", "stop"].contains(what));
        let lawful = checkpoint == "exit" && process >= CALLER && planned && !looks.iter().any(live);
        if lawful && finding["whole"].as_bool()? && rule["form"] == "raw" {
            *excused.entry(process).or_default() += 1;
        } else {
            residues.push(format!("at {checkpoint} in process {process}: {rule}, {} bytes", finding["secret_length"]));
        }
    }
    // One slot a thread that calls, and one where the password goes to another worker; a worker does one thing at a time.
    let threads = name.strip_prefix("vault/").and_then(|rest| rest.split(['x', 'a']).next()?.parse().ok()).unwrap_or(1);
    for (process, count) in &excused {
        let most = if *process == CALLER { threads + 1 } else { 1 };
        if *count > most {
            residues.push(format!("at exit in process {process}: {count} copies, and {most} slots at most"));
        }
    }
    let stuck = reasons.iter().any(|why| why.starts_with("did not end within"));
    let what = match ended {
        _ if !residues.is_empty() => What::Residue,
        "exit 11" => What::Orphan,
        "exit 12" => What::Hang,
        _ if stuck => What::Hang,
        "exit 71" => What::Broken,
        "exit 10" => What::Unreached,
        _ if !as_expected => What::Unclear,
        _ if findings.is_empty() => What::Clean,
        _ => What::Killed,
    };
    let mut why: Vec<String> = residues.into_iter().chain(reasons).collect();
    if why.is_empty() && !as_expected {
        why.push(format!("expected {}, saw {}, {ended}", outcome["expectation"], outcome["verdict"]));
    }
    Some((what, why))
}

/// The caller's number in the tree; the first process holds no secret, and later ones are workers.
const CALLER: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<String> {
        [
            "vault/1x+caller:lent:1:kill",
            "vault/1x+caller:lent:1:panic",
            "vault/1x+worker:received:3:kill",
            "vault/1x+worker:received:3:kill+caller:lent:1:kill",
            "control/hang",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn a_seed_draws_the_same_schedules_and_another_draws_others() {
        let steps = Steps::of(&own()).unwrap();
        let draw = |seed| (0..50).map(|number| steps.draw(seed_of(seed, number)).1).collect::<Vec<_>>();

        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let hits: Vec<_> = draw(7);
        assert!(hits.iter().all(|name| (1..=3).contains(&super::hits(name).len())), "{hits:?}");
        assert!(
            ["caller:lent:4:", "worker:received:3:", ":kill", ":panic", "/4x"]
                .iter()
                .all(|part| hits.iter().any(|name| name.contains(part)))
        );
    }

    #[test]
    fn what_is_asked_for_comes_with_what_must_be_noticed() {
        let chosen = |only: &str| choose(&own(), &[only.to_owned()]);

        assert_eq!(chosen("caller:lent:kill").unwrap(), ["vault/1x+caller:lent:1:kill", "control/hang"]);
        assert_eq!(chosen("vault/2x+caller:lent:1:kill").unwrap(), ["vault/2x+caller:lent:1:kill", "control/hang"]);
        assert!(matches!(chosen("caller:lent:stop"), Err(Failure::Usage(_))));
        assert_eq!(choose(&own(), &[]).unwrap(), own());
    }

    fn said(name: &str, ended: &str, as_expected: bool, looks: &[(&str, u64)], findings: &[(&str, u64, bool)]) -> What {
        let looks: Vec<_> =
            looks.iter().map(|(at, process)| serde_json::json!({"checkpoint": at, "process": process})).collect();
        let finding = |(at, process, whole): &(&str, u64, bool)| {
            serde_json::json!({"checkpoint": at, "process": process, "whole": whole,
                "secret_length": 64, "rule": {"class": "anonymous", "form": "raw"}})
        };
        let findings: Vec<_> = findings.iter().map(finding).collect();
        let outcome = serde_json::json!({"scenario": name, "ended": ended, "as_expected": as_expected, "reasons": [],
            "observations": looks, "findings": findings});
        judge(name, &outcome).unwrap().0
    }

    #[test]
    fn a_whole_slot_of_a_killed_process_is_excused_and_nothing_else() {
        let killed = "vault/1x+worker:plain:1:kill";
        let of = |looks: &[(&str, u64)], findings: &[(&str, u64, bool)]| said(killed, "exit 0", true, looks, findings);

        assert_eq!(of(&[("exit", 3)], &[("exit", 3, true)]), What::Killed);
        assert_eq!(of(&[("exit", 3)], &[]), What::Clean);
        assert_eq!(of(&[("exit", 3)], &[("exit", 3, false)]), What::Residue);
        assert_eq!(of(&[("exit", 3)], &[("exit", 3, true), ("exit", 3, true)]), What::Residue);
        assert_eq!(of(&[("exit-call", 3), ("exit", 3)], &[("exit", 3, true)]), What::Residue);
        assert_eq!(of(&[("exit", 2)], &[("exit", 2, true)]), What::Residue); // the other side
        assert_eq!(of(&[("wiped", 3)], &[("wiped", 3, true)]), What::Residue);
        let panicked = "vault/1x+worker:plain:1:panic";
        assert_eq!(said(panicked, "exit 0", true, &[("exit", 3)], &[("exit", 3, true)]), What::Residue);
    }

    #[test]
    fn what_hangs_lives_on_breaks_or_does_not_come_is_told_apart() {
        let ended = |how: &str| said("vault/1x+caller:lent:1:panic", how, how == "exit 0", &[], &[]);

        assert_eq!(
            ["exit 0", "exit 10", "exit 11", "exit 12", "exit 71", "exit 70"].map(ended),
            [What::Clean, What::Unreached, What::Orphan, What::Hang, What::Broken, What::Unclear]
        );
        assert_eq!(said("control/hang", "exit 12", true, &[], &[]), What::Noticed);
        assert_eq!(said("control/hang", "exit 0", false, &[], &[]), What::Unclear);
    }

    #[test]
    fn a_failure_outweighs_a_doubt_and_without_a_control_nothing_is_decided() {
        let row = |what| Row { what, why: Vec::new(), came: Vec::new() };
        let code = |whats: &[What]| {
            let rows = whats.iter().enumerate().map(|(at, what)| (at.to_string(), row(*what)));
            Played { rows: rows.collect() }.code()
        };

        assert_eq!(code(&[What::Clean, What::Noticed]), 0);
        assert_eq!(code(&[What::Clean]), 2);
        assert_eq!(code(&[What::Clean, What::Noticed, What::Unreached]), 2);
        assert_eq!(code(&[What::Hang, What::Noticed, What::Unreached]), 1);
    }

    #[test]
    fn a_hit_that_nobody_wrote_down_did_not_come() {
        let name = "vault/1x+caller:lent:1:panic";
        let outcome = serde_json::json!({"scenario": name, "ended": "exit 0", "as_expected": true, "reasons": [],
            "observations": [], "findings": []});
        let run = serde_json::json!({"interrupted": false, "outcomes": [outcome]}).to_string();
        let what = |hits: &str| Played::parse(&run, hits).unwrap().rows[name].what;

        assert_eq!(what(&format!("{name}\tcaller:lent:1:panic\t0\t50\n")), What::Clean);
        assert_eq!(what(""), What::Unreached);
        assert!(Played::parse(&run.replace("false", "true"), "").is_err());
    }
}
