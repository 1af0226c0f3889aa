//! `cargo xtask ablate`: take one protection out at a time and see that the audit notices.
//!
//! A row of the catalogue names the ablations under which it must turn, that is, stop being as expected. The set
//! of rows that turn must be the set that names the ablation: a row too few means that the audit would not miss
//! the protection there, a row too many that somebody does not know what the protection is for. Some protections are
//! asked of the kernel instead, by tests of the library (`facts`), or as well: the set of tests that fail must be theirs, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use xshell::cmd;

use crate::audit::{self, Auditor};
use crate::child;
use crate::facts;
use crate::failure::Failure;
use crate::workspace::Workspace;
use crate::wrapper;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask ablate --only wipe";

/// Which protections to take out, and which rows to look at.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Take out this protection alone; may be repeated [default: each that a row names]
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Look at the rows whose name contains TEXT alone
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Build the scenarios with this profile
    #[arg(long, value_name = "NAME", default_value = audit::SUBJECT_PROFILE)]
    profile: String,
    /// Run N rows at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
}

impl Options {
    /// One ablation of each kind: each costs a build and a run, and all of them more time than a change's check has.
    pub(crate) fn of_each_kind() -> Self {
        let only = OF_EACH_KIND.map(str::to_owned).to_vec();
        Self { only, filter: None, profile: audit::SUBJECT_PROFILE.to_owned(), jobs: None }
    }
}

/// A wipe, an ending, a time, a canary, a stack, an allocator, and what the kernel alone can tell.
const OF_EACH_KIND: [&str; 7] =
    ["wipe", "purge-on-signal", "deadline", "canary-at-close", "stack-wipe", "wipe-on-free", "lock"];

/// Builds and audits each ablation; 0 when every one turns the rows that name it and no others, 1 otherwise.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    workspace.require_profile(&options.profile)?;
    let subject = workspace.build("scenarios", &options.profile, None)?;
    let listing = cmd!(workspace.sh, "{subject} list").quiet().read()?;
    let catalogue = Catalogue::read(&listing)?;
    let chosen = catalogue.choose(&options.only)?;
    let asked: Vec<&str> = chosen.iter().map(String::as_str).filter(|name| facts::of(name).is_some()).collect();
    let before = facts::failing(&workspace, None, &asked)?;
    if !before.is_empty() {
        let names = before.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::internal(format!("tests of secmem fail without any ablation: {names}")));
    }
    let auditor = Auditor::build(&workspace)?;

    let mut noticed = 0;
    for ablation in &chosen {
        eprintln!("xtask: without {ablation}");
        let dir = workspace.target.join("ablate").join(ablation);
        let evidence = dir.join("evidence");
        audit::claim(&evidence)?;
        let wrapper = wrapper::install(&dir, ablation)?;
        let fact = match facts::of(ablation) {
            Some(tests) => Some(Fact { tests, failed: facts::failing(&workspace, Some(&wrapper), &[ablation])? }),
            None => None,
        };
        let built = workspace.build("scenarios", &options.profile, Some(&wrapper))?;
        // Cargo puts every build of the scenarios at the same path; the next one must not replace this one.
        let mutant = dir.join("scenarios");
        fs::copy(&built, &mutant).map_err(|error| Failure::because(format!("copying {}", built.display()), error))?;

        // All rows of the library, and of those beside them enough to see that none of theirs turns.
        let audit = |evidence: &Path, filter: Option<&str>| {
            let mut residue = auditor.audit(&mutant, evidence, &options.profile);
            // Its report of leaks, all of them wanted, would bury the table; it lies beside run.json.
            residue.args(["--quick", "--ablation", ablation]).stdout(Stdio::null());
            if let Some(filter) = filter {
                residue.arg("--filter").arg(filter);
            }
            if let Some(jobs) = options.jobs {
                residue.arg("--jobs").arg(jobs.to_string());
            }
            child::verdict(residue)
        };
        match audit(&evidence, options.filter.as_deref())? {
            0..=2 => {}
            code => return Ok(code), // residue has said why
        }
        let mut turned = Turned::read(&evidence.join("run.json"), &catalogue)?;
        for row in turned.unclear() {
            let evidence = dir.join("evidence-again");
            audit::claim(&evidence)?;
            match audit(&evidence, Some(&row))? {
                0..=2 => turned.settle(&row, Turned::read(&evidence.join("run.json"), &catalogue)?),
                code => return Ok(code),
            }
        }
        let rows = Outcome::compare(&catalogue, ablation, &turned);
        let outcome = Outcome { fact, ..rows };
        noticed += usize::from(outcome.passed());
        eprintln!("xtask: without {ablation}: {}", outcome.word());
        print!("{}", outcome.text(ablation)); // as it comes: all of them take long
    }
    // The last mutant lies where the next user of the scenarios expects the real one.
    workspace.build("scenarios", &options.profile, None)?;
    println!("{noticed} of {} ablations noticed, {} not", chosen.len(), chosen.len() - noticed);
    Ok(u8::from(noticed < chosen.len()))
}

/// The rows of the catalogue by their names.
struct Catalogue(BTreeMap<String, Row>);

/// What is known of a row.
struct Row {
    /// The ablations under which it must turn.
    turned_by: BTreeSet<String>,
    /// Whether it asks for what the library says, and ends with [`ENDED_DENIED`] where that does not hold.
    asks: bool,
}

impl Catalogue {
    /// Reads what `scenarios list` printed.
    fn read(listing: &str) -> Result<Self, Failure> {
        let odd = || Failure::internal("`scenarios list` printed no array of rows with a name and turned_by");
        let rows: Value =
            serde_json::from_str(listing).map_err(|error| Failure::because("reading `scenarios list`", error))?;
        let mut catalogue = BTreeMap::new();
        for row in rows.as_array().ok_or_else(odd)? {
            let name = row["name"].as_str().ok_or_else(odd)?;
            let turned_by = row["turned_by"].as_array().ok_or_else(odd)?;
            let turned_by = turned_by.iter().map(|ablation| ablation.as_str().map(str::to_owned).ok_or_else(odd));
            let asks = row.get("asks").map_or(Some(false), Value::as_bool).ok_or_else(odd)?;
            catalogue.insert(name.to_owned(), Row { turned_by: turned_by.collect::<Result<_, _>>()?, asks });
        }
        Ok(Self(catalogue))
    }

    /// The ablations that were asked for, or all that any row names.
    fn choose(&self, only: &[String]) -> Result<Vec<String>, Failure> {
        let rows = self.0.values().flat_map(|row| &row.turned_by).map(String::as_str);
        let known: BTreeSet<&str> = rows.chain(facts::FACTS.iter().map(|(name, _)| *name)).collect();
        let words: Vec<&str> = known.iter().copied().collect();
        for name in &known {
            // It becomes part of a path and of a cfg.
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                return Err(Failure::internal(format!("the catalogue names an ablation {name:?}")));
            }
        }
        if let Some(unknown) = only.iter().find(|name| !known.contains(name.as_str())) {
            return Err(Failure::Usage(format!("no ablation {unknown:?}; there are: {}", words.join(", "))));
        }
        if self.0.values().all(|row| row.turned_by.is_empty()) {
            return Err(Failure::internal("no row of the catalogue names an ablation"));
        }
        Ok(if only.is_empty() { words.into_iter().map(str::to_owned).collect() } else { only.to_vec() })
    }
}

/// A row turned because something was found.
const LEAK: &str = "leak";

/// A row turned because the process lived on where the protection had to end it.
const SURVIVED: &str = "survived";

/// A row asked for what the library says, and ended because it is not so.
const DENIED: &str = "denied";

/// A process still had a descriptor to memory that is to be out of reach.
const OPEN: &str = "open descriptor";

/// A limit of the library showed more than its one copy: in the core.
const IN_CORE: &str = "copy in the core";

/// A control whose copy the library wipes, and of which pieces alone were to be found, showed all of it.
const WHOLE: &str = "whole copy";

/// A row is not as expected and nobody can say that the missing protection did it.
const UNCLEAR: &str = "inconclusive";

/// How `residue` tells that a row ended with a denial. A row that cannot be played for any other reason ends with 70.
const ENDED_DENIED: &str = "exit 71";

/// How it tells of such a descriptor, after the place and the number of bytes.
const WHY_OPEN: &str = "memfd_secret descriptor still open";

/// What follows from that in a row that rests on shielded memory: none was seen that could count as such.
const UNSHIELDED: &str = "exit: no shielded memory seen";

/// How it tells of such a copy. At any other moment another copy is one that nobody has asked for.
const WHY_IN_CORE: &str = "core: more than the one copy at the one home of the secret";

/// How it tells of such a control.
const WHY_WHOLE: &str = "the leaky control was found whole, not in fragments alone";

/// What may be said of a row that is not as expected: never more than all of its reasons bear out, so that a mutant which
/// hangs, crashes or fails besides has shown nothing.
fn what(asks: bool, verdict: &str, ended: Option<&str>, reasons: &[&str]) -> &'static str {
    let open = |why: &&str| why.ends_with(WHY_OPEN);
    // A row that ends like this anyway has not survived anything.
    let ended_otherwise = || reasons.iter().any(|why| why.starts_with("ended with exit 0, not"));
    match (verdict, ended) {
        (LEAK, _) => LEAK,
        (_, Some("exit 0")) if ended_otherwise() => SURVIVED,
        (_, Some(ENDED_DENIED)) if asks => DENIED,
        _ if reasons.iter().any(open) && reasons.iter().all(|why| open(why) || *why == UNSHIELDED) => OPEN,
        _ if reasons == [WHY_IN_CORE] => IN_CORE,
        _ if reasons == [WHY_WHOLE] => WHOLE,
        _ => UNCLEAR,
    }
}

/// Rows of which a run could say nothing that are run once more.
const MOST_AGAIN: usize = 4;

/// What a run says: the rows that ran and, of those, the ones that were not as expected, with their verdict.
struct Turned {
    ran: BTreeSet<String>,
    turned: BTreeMap<String, String>,
}

impl Turned {
    /// Reads a whole run's file.
    ///
    /// # Errors
    ///
    /// The file is missing or odd, or the run was cut short: half a run says nothing about the other half.
    fn read(path: &Path, catalogue: &Catalogue) -> Result<Self, Failure> {
        let doing = || format!("reading {}", path.display());
        let text = fs::read_to_string(path).map_err(|error| Failure::because(doing(), error))?;
        Self::parse(&text, catalogue).map_err(|why| Failure::because(doing(), why))
    }

    fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, Box<dyn std::error::Error>> {
        let run: Value = serde_json::from_str(text)?;
        match run["interrupted"].as_bool() {
            Some(false) => {}
            Some(true) => return Err("the run was interrupted".into()),
            None => return Err("no word on whether the run was interrupted".into()),
        }
        let (mut ran, mut turned) = (BTreeSet::new(), BTreeMap::new());
        for outcome in run["outcomes"].as_array().ok_or("no outcomes")? {
            let name = outcome["scenario"].as_str().ok_or("an outcome without a scenario")?;
            let verdict = outcome["verdict"].as_str().ok_or("an outcome without a verdict")?;
            let row = catalogue.0.get(name).ok_or("an outcome of a row that is not in the catalogue")?;
            ran.insert(name.to_owned());
            if !outcome["as_expected"].as_bool().ok_or("an outcome that does not say whether it is as expected")? {
                let reasons = outcome["reasons"].as_array().ok_or("an outcome without reasons")?;
                let reasons: Option<Vec<&str>> = reasons.iter().map(Value::as_str).collect();
                let reasons = reasons.ok_or("a reason that is no text")?;
                let what = what(row.asks, verdict, outcome["ended"].as_str(), &reasons);
                turned.insert(name.to_owned(), what.to_owned());
            }
        }
        Ok(Self { ran, turned })
    }

    /// Rows of which the run could say nothing, if they are few: a machine that was busy for a minute makes such rows,
    /// and they are asked once more. Where there are many, the build does not work.
    fn unclear(&self) -> Vec<String> {
        let rows = self.turned.iter().filter(|(_, what)| *what == UNCLEAR).map(|(name, _)| name.clone());
        Some(rows.collect::<Vec<_>>()).filter(|rows| rows.len() <= MOST_AGAIN).unwrap_or_default()
    }

    /// Takes what another run says of one row.
    fn settle(&mut self, row: &str, mut again: Self) {
        self.turned.remove(row);
        self.turned.extend(again.turned.remove_entry(row));
    }
}

/// What tests of the library say that ask the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Fact {
    /// The tests that must fail.
    tests: &'static [&'static str],
    /// Those that did.
    failed: BTreeSet<String>,
}

impl Fact {
    /// The tests that must fail did, and no other.
    fn noticed(&self) -> bool {
        self.missing().next().is_none() && self.surplus().next().is_none()
    }

    fn missing(&self) -> impl Iterator<Item = &'static str> {
        self.tests.iter().copied().filter(|test| !self.failed.contains(*test))
    }

    fn surplus(&self) -> impl Iterator<Item = &str> {
        self.failed.iter().map(String::as_str).filter(|test| !self.tests.contains(test))
    }
}

/// What came of one ablation.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// The rows that turned, as many as they had to: name and verdict.
    turned: Vec<(String, String)>,
    /// Rows that had to turn and did not.
    missing: Vec<String>,
    /// Rows that turned and do not name the ablation: name and verdict.
    surplus: Vec<(String, String)>,
    /// What the kernel says, where it is asked.
    fact: Option<Fact>,
}

impl Outcome {
    /// Holds the rows that turned against those that name the ablation, among the rows that ran.
    fn compare(catalogue: &Catalogue, ablation: &str, run: &Turned) -> Self {
        let expected: BTreeSet<&String> = catalogue
            .0
            .iter()
            .filter(|(name, row)| row.turned_by.contains(ablation) && run.ran.contains(*name))
            .map(|(name, _)| name)
            .collect();
        let counts = |name: &String, what: &str| expected.contains(name) && what != UNCLEAR;
        let (turned, surplus): (Vec<_>, Vec<_>) =
            run.turned.clone().into_iter().partition(|(name, what)| counts(name, what));
        let missing = expected.into_iter().filter(|name| !turned.iter().any(|(other, _)| other == *name));
        let missing = missing.cloned().collect();
        Self { turned, missing, surplus, fact: None }
    }

    /// Nothing missing, nothing too many, and something there: an ablation that turns nothing shows nothing.
    fn passed(&self) -> bool {
        let noticed = self.fact.as_ref().map_or(!self.turned.is_empty(), Fact::noticed);
        self.missing.is_empty() && self.surplus.is_empty() && noticed
    }

    fn word(&self) -> &'static str {
        if self.passed() { "noticed" } else { "FAILED" }
    }

    /// What it came to, row by row and test by test, for people.
    fn text(&self, ablation: &str) -> String {
        let total = self.turned.len() + self.surplus.len();
        let mut text = format!("\nwithout {ablation}: {}, {total} rows turned\n", self.word());
        if let Some(fact) = &self.fact {
            let failed = fact.tests.iter().filter(|test| fact.failed.contains(**test));
            let failed = failed.map(|test| ("  ", *test, "failed"));
            let missing = fact.missing().map(|test| ("- ", test, "had to fail and did not"));
            let surplus = fact.surplus().map(|test| ("+ ", test, "failed and does not ask for it"));
            for (mark, test, what) in failed.chain(missing).chain(surplus) {
                text += &format!("  {mark}{test:<72} {what}\n");
            }
        }
        let turned = self.turned.iter().map(|(name, verdict)| ("  ", name, verdict.as_str()));
        let missing = self.missing.iter().map(|name| ("- ", name, "had to turn and did not"));
        let surplus = self.surplus.iter().map(|(name, verdict)| ("+ ", name, verdict.as_str()));
        for (mark, name, what) in turned.chain(missing).chain(surplus) {
            text += &format!("  {mark}{name:<44} {what}\n");
        }
        if total == 0 && self.fact.is_none() {
            text += "  nothing turned, so nothing here shows that the protection works\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"[
        {"name": "secmem/return", "turned_by": ["wipe"]},
        {"name": "secmem/signal", "turned_by": ["wipe", "purge"]},
        {"name": "secmem/asks", "turned_by": ["lock"], "asks": true},
        {"name": "vec/return", "turned_by": []}
    ]"#;

    fn run(turned: &[(&str, &str)]) -> Turned {
        Turned {
            ran: ["secmem/return", "secmem/signal", "vec/return"].map(str::to_owned).into(),
            turned: turned.iter().map(|(name, verdict)| ((*name).to_owned(), (*verdict).to_owned())).collect(),
        }
    }

    #[test]
    fn the_list_of_ablations_is_what_the_rows_name() {
        let catalogue = Catalogue::read(LISTING).unwrap();

        let all = catalogue.choose(&[]).unwrap();
        assert!(["purge", "wipe", "lock"].iter().all(|name| all.iter().any(|known| known == name)), "{all:?}");
        assert_eq!(catalogue.choose(&["wipe".to_owned()]).unwrap(), ["wipe"]);
        assert!(matches!(catalogue.choose(&["wipes".to_owned()]), Err(Failure::Usage(_))));
    }

    /// What is said of a row that is in the catalogue and not as expected.
    fn said(name: &str, ended: &str, verdict: &str, reasons: &[&str]) -> String {
        let outcome = serde_json::json!({
            "scenario": name, "verdict": verdict, "as_expected": false, "ended": ended, "reasons": reasons});
        let run = serde_json::json!({"interrupted": false, "outcomes": [outcome]});
        Turned::parse(&run.to_string(), &Catalogue::read(LISTING).unwrap()).unwrap().turned[name].clone()
    }

    #[test]
    fn a_mutant_that_crashes_or_hangs_is_not_noticed() {
        let ended = |how: &str, verdict: &str| {
            said("secmem/signal", how, verdict, &[&format!("ended with {how}, not with signal 6")])
        };

        assert_eq!(ended("signal 15", "leak"), LEAK);
        assert_eq!(ended("exit 0", "inconclusive"), SURVIVED);
        assert_eq!(ended("signal 11", "inconclusive"), UNCLEAR);
        let catalogue = Catalogue::read(LISTING).unwrap();
        assert!(!Outcome::compare(&catalogue, "purge", &run(&[("secmem/signal", UNCLEAR)])).passed());
    }

    #[test]
    fn a_denial_is_one_of_a_row_that_asks_and_a_failure_is_none() {
        let ended = |name: &str, how: &str| {
            said(name, how, "inconclusive", &[&format!("ended with {how}, not with exit 0"), "planted missed: why"])
        };

        assert_eq!(ended("secmem/asks", "exit 71"), DENIED);
        assert_eq!(ended("secmem/asks", "exit 70"), UNCLEAR);
        assert_eq!(ended("secmem/return", "exit 71"), UNCLEAR);
        assert_eq!(ended("secmem/return", "exit 70"), UNCLEAR);
    }

    #[test]
    fn an_open_descriptor_and_a_copy_in_the_core_count_where_they_are_all_that_is_wrong() {
        let because = |reasons: &[&str]| said("secmem/return", "exit 0", "inconclusive", reasons);
        let open = "exit: 4096 bytes not read: memfd_secret descriptor still open";

        assert_eq!(because(&[open]), OPEN);
        assert_eq!(because(&[open, UNSHIELDED]), OPEN);
        assert_eq!(because(&[WHY_IN_CORE]), IN_CORE);
        assert_eq!(because(&[WHY_WHOLE]), WHOLE);
        for reasons in [
            &[open, "signal missed: why"][..],
            &[UNSHIELDED],
            &["exit: more than the one copy at the one home of the secret"],
            &[WHY_IN_CORE, open],
            &[],
        ] {
            assert_eq!(because(reasons), UNCLEAR, "{reasons:?}");
        }
    }

    #[test]
    fn the_words_that_are_looked_for_are_those_of_the_harness() {
        let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("../harness/src");
        let source = |name| fs::read_to_string(harness.join(name)).expect("a source");
        let (_, after_the_place) = WHY_IN_CORE.split_once(": ").unwrap();
        let (_, unshielded) = UNSHIELDED.split_once(": ").unwrap();

        assert!(source("snapshot/live.rs").contains(WHY_OPEN));
        assert!(source("judge.rs").contains(WHY_WHOLE));
        assert!(source("judge.rs").contains(after_the_place) && source("judge.rs").contains(unshielded));
        let protocol = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/protocol/src/lib.rs");
        let denied = ENDED_DENIED.strip_prefix("exit ").unwrap();
        assert!(fs::read_to_string(protocol).unwrap().contains(&format!("pub const DENIED: u8 = {denied};")));
    }

    #[test]
    fn a_row_that_was_unclear_is_what_the_second_look_says() {
        let mut turned = run(&[("secmem/signal", UNCLEAR), ("secmem/return", LEAK), ("vec/return", UNCLEAR)]);

        assert_eq!(turned.unclear(), ["secmem/signal", "vec/return"]);
        turned.settle("secmem/signal", run(&[("secmem/signal", LEAK)]));
        turned.settle("vec/return", run(&[]));

        assert_eq!(turned.turned, run(&[("secmem/signal", LEAK), ("secmem/return", LEAK)]).turned);
    }

    #[test]
    fn equal_sets_pass() {
        let catalogue = Catalogue::read(LISTING).unwrap();

        let outcome =
            Outcome::compare(&catalogue, "wipe", &run(&[("secmem/return", "leak"), ("secmem/signal", "leak")]));

        assert!(outcome.passed(), "{outcome:?}");
    }

    #[test]
    fn a_row_that_did_not_turn_fails() {
        let catalogue = Catalogue::read(LISTING).unwrap();

        let outcome = Outcome::compare(&catalogue, "wipe", &run(&[("secmem/return", "leak")]));

        assert_eq!(outcome.missing, ["secmem/signal"]);
        assert!(!outcome.passed());
    }

    #[test]
    fn a_row_that_turned_without_cause_fails() {
        let catalogue = Catalogue::read(LISTING).unwrap();

        let outcome =
            Outcome::compare(&catalogue, "purge", &run(&[("secmem/signal", "leak"), ("vec/return", "inconclusive")]));

        assert_eq!(outcome.surplus, [("vec/return".to_owned(), "inconclusive".to_owned())]);
        assert!(!outcome.passed());
    }

    #[test]
    fn an_ablation_that_turns_nothing_fails() {
        let catalogue = Catalogue::read(LISTING).unwrap();
        let outcome = Outcome::compare(
            &catalogue,
            "purge",
            &Turned { ran: ["vec/return".to_owned()].into(), turned: BTreeMap::new() },
        );

        assert!(outcome.missing.is_empty() && !outcome.passed());
    }

    #[test]
    fn a_fact_alone_is_noticed_when_its_tests_fail_and_no_other_does() {
        let outcome = |failed: &[&str]| Outcome {
            fact: Some(Fact { tests: &["one", "two"], failed: failed.iter().map(|&test| test.to_owned()).collect() }),
            ..Outcome::default()
        };

        assert!(outcome(&["one", "two"]).passed());
        for failed in [&["one"][..], &["one", "three"], &["one", "two", "three"], &[]] {
            assert!(!outcome(failed).passed(), "{failed:?}");
        }
    }

    #[test]
    fn rows_that_are_not_as_expected_have_turned() {
        let parsed = Turned::parse(
            r#"{"interrupted": false, "outcomes": [
                {"scenario": "secmem/return", "verdict": "leak", "as_expected": false, "reasons": []},
                {"scenario": "vec/return", "verdict": "leak", "as_expected": true}
            ]}"#,
            &Catalogue::read(LISTING).unwrap(),
        )
        .unwrap();

        assert_eq!(parsed.turned.into_iter().collect::<Vec<_>>(), [("secmem/return".to_owned(), "leak".to_owned())]);
        assert_eq!(parsed.ran.len(), 2);
    }

    #[test]
    fn half_a_run_is_refused() {
        let refused = |text: &str| Turned::parse(text, &Catalogue::read(LISTING).unwrap()).is_err();

        assert!(refused(r#"{"interrupted": true, "outcomes": []}"#));
        assert!(refused(r#"{"outcomes": []}"#));
        assert!(refused(r#"{"interrupted": false}"#));
    }
}
