//! `cargo xtask pairs`: what well-known crates leave of a key as they are, and when they are scrubbed, seen in two ways and
//! under three allocators.
//!
//! The first way is the audit's: every form of the key that somebody thought of is searched for. The second is the
//! comparison of two keys, which sees whatever depends on the key and does not know why. The bare half of a pair must
//! show in both, or nothing is said of the scrubbed half, which must show in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::audit::{self, Auditor};
use crate::child;
use crate::failure::Failure;
use crate::residues::{self, Found, Pair};
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:
  cargo xtask pairs --allocator glibc --filter aes-gcm
  cargo xtask pairs --allocator glibc --markdown";

/// How the halves of a pair are called, behind its name.
const HALVES: [&str; 2] = ["bare", "scrubbed"];

/// What a half shows that has left something.
const LEAK: &str = "leak";

/// Scrubbed halves whose key decides how much, and how often, they allocate: the allocator's own books then depend on it,
/// in bytes that are no form of the key. Only what a heap of its own would hide is excused, and only there.
const BOOKS: [&str; 1] = ["rsa/scrubbed"];

/// Bytes of those books at most: sizes and links beside some hundreds of blocks.
const MOST_BOOKS: u64 = 2048;

/// Bytes from the first to the last of a stretch of them that may differ all: a link and the mark of a free block beside it.
const LINK: u64 = 16;

/// Whether a stretch is such a link, or several words of which at most three bytes in four differ: an address has two bytes that
/// are the same in all, a size more. Nearly every byte differs in a number that is made of a key, and the numbers that are made of
/// such a key are many times as long as a link.
const fn may_be_books(length: u64, differing: u64) -> bool {
    length <= LINK || 4 * differing <= 3 * length
}

/// Which pairs, and under what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with this allocator alone; may be repeated. jemalloc and mimalloc take a C compiler
    #[arg(long, value_name = "NAME", value_parser = ["glibc", "jemalloc", "mimalloc"])]
    allocator: Vec<String>,
    /// Run the pairs whose name contains TEXT
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Runs with each of the two keys, and as many once more with the first
    #[arg(long, value_name = "TIMES", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=100))]
    runs: u32,
    /// Build with this profile
    #[arg(long, value_name = "NAME", default_value = audit::SUBJECT_PROFILE)]
    profile: String,
    /// Print the table in Markdown, one line a pair: what its bare half leaves, and of which crate in which version
    #[arg(long)]
    markdown: bool,
}

/// Builds, searches and compares; 0 when every bare half shows in both ways and no scrubbed one in any, 1 otherwise.
pub(crate) fn run(options: &Options) -> Result<u8, Failure> {
    let workspace = Workspace::open()?;
    workspace.require_profile(&options.profile)?;
    let auditor = Auditor::build(&workspace)?;
    let chosen: Vec<&str> = match options.allocator.as_slice() {
        [] => vec!["glibc", "jemalloc", "mimalloc"],
        some => some.iter().map(String::as_str).collect(),
    };
    let mut passed = true;
    for allocator in chosen {
        let dir = workspace.target.join("pairs").join(allocator);
        let subject = build(&workspace, allocator, &options.profile, &dir)?;
        let lengths = audit::rows(&workspace, &subject)?;
        let wanted = halves(lengths.keys().map(String::as_str), options.filter.as_deref())?;
        let pairs = residues::pairs(&workspace, &subject)?;
        let found = search(&auditor, &subject, &dir.join("evidence"), options, &wanted)?;
        println!("{}", head(allocator, options.markdown));
        let mut bare = None;
        for (name, searched) in found {
            let key = lengths.get(&name).ok_or_else(|| Failure::internal(format!("nobody knows the key of {name}")))?;
            let compared = compare(&auditor, &subject, &name, *key, options.runs)?;
            let shown = Shown { name, searched, compared };
            passed &= shown.holds();
            if options.markdown {
                // A bare half comes before its scrubbed one, as their names do.
                match bare.take() {
                    None => bare = Some(shown),
                    Some(bare) => println!("{}", line(&pairs, &bare, &shown)?),
                }
            } else {
                println!("{}", shown.text());
            }
        }
    }
    // The last build lies where the next user expects the one with the C library's allocator.
    workspace.build(audit::CRYPTO, &options.profile, None)?;
    Ok(u8::from(!passed))
}

/// What stands above the halves, or above the pairs.
fn head(allocator: &str, markdown: bool) -> String {
    if markdown {
        return format!("\n<!-- {allocator} -->\n{}", residues::HEAD);
    }
    let [name, search, difference] = ["", "search", "difference"];
    let [stack, heap, registers, other] = ["stack", "heap", "registers", "other"];
    let columns = format!("{name:<28}{search:<10}{difference:<14}{stack:>8}{heap:>8}{registers:>10}{other:>7}");
    format!("\n{allocator}: bytes that depend on the key\n{columns}")
}

/// The line of a pair in Markdown.
fn line(pairs: &BTreeMap<String, Pair>, bare: &Shown, scrubbed: &Shown) -> Result<String, Failure> {
    let (name, _) = bare.name.split_once('/').unwrap_or_default();
    let pair = pairs.get(name).ok_or_else(|| Failure::internal(format!("nobody knows the crate of {name}")))?;
    let Compared { stack, heap, registers, other, .. } = bare.compared;
    let verdict = match (bare.holds() && scrubbed.holds(), scrubbed.books()) {
        (false, _) => "FAILED",
        (true, true) => "clean, but for the allocator's own books",
        (true, false) => "clean",
    };
    Ok(pair.line(name, &bare.searched.found, [stack, heap, registers, other], verdict))
}

/// A half, as it was seen in both ways.
struct Shown {
    name: String,
    searched: Searched,
    compared: Compared,
}

impl Shown {
    fn books(&self) -> bool {
        BOOKS.contains(&self.name.as_str()) && self.compared.is_bookkeeping()
    }

    /// Whether it shows what it must: something where it is bare, in both ways, and nothing where it is scrubbed.
    fn holds(&self) -> bool {
        let wanted = if self.name.ends_with("/bare") { LEAK } else { "clean" };
        self.searched.verdict == wanted && (self.compared.verdict == wanted || self.books())
    }

    /// One line, and one for each reason why it does not hold.
    fn text(&self) -> String {
        let Self { name, searched, compared } = self;
        let remark = match (self.holds(), self.books()) {
            (false, _) => "  FAILED",
            (true, true) => "  the allocator's own books",
            (true, false) => "",
        };
        let Compared { verdict, stack, heap, registers, other, .. } = compared;
        let searched = &searched.verdict;
        let mut text =
            format!("{name:<28}{searched:<10}{verdict:<14}{stack:>8}{heap:>8}{registers:>10}{other:>7}{remark}");
        for reason in compared.reasons.iter().filter(|_| !self.holds()) {
            text.push_str("\n    ");
            text.push_str(reason);
        }
        text
    }
}

/// What the search says of a half: its verdict, and what it found where all is wiped.
struct Searched {
    verdict: String,
    found: Vec<Found>,
}

/// The program with the pairs over that allocator, at a place of its own.
fn build(workspace: &Workspace, allocator: &str, profile: &str, dir: &Path) -> Result<PathBuf, Failure> {
    let features = if allocator == "glibc" { "" } else { allocator };
    let built = workspace.build_with(audit::CRYPTO, profile, features)?;
    let copy = dir.join(audit::CRYPTO);
    let doing = || format!("copying {}", built.display());
    fs::create_dir_all(dir).map_err(|error| Failure::because(doing(), error))?;
    fs::copy(&built, &copy).map_err(|error| Failure::because(doing(), error))?;
    Ok(copy)
}

/// Both halves of the pairs that are asked for: neither says anything without the other.
fn halves<'a>(rows: impl Iterator<Item = &'a str>, filter: Option<&str>) -> Result<BTreeSet<String>, Failure> {
    let rows: BTreeSet<&str> = rows.collect();
    let mut wanted = BTreeSet::new();
    for row in &rows {
        let (name, _) = row.split_once('/').ok_or_else(|| Failure::internal(format!("{row} is no half of a pair")))?;
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        for half in HALVES.map(|half| format!("{name}/{half}")) {
            if !rows.contains(half.as_str()) {
                return Err(Failure::internal(format!("there is no {half} beside {row}")));
            }
            wanted.insert(half);
        }
    }
    match (wanted.is_empty(), filter) {
        (false, _) => Ok(wanted),
        (true, Some(filter)) => Err(Failure::Usage(format!("no pair's name contains {filter:?}"))),
        (true, None) => Err(Failure::internal("the catalogue has no pairs")),
    }
}

/// Audits the rows; of those that are wanted, the name and what each shows: `leak` wherever anything was found, in whatever
/// pieces the allocator leaves, and that.
fn search(
    auditor: &Auditor,
    subject: &Path,
    evidence: &Path,
    options: &Options,
    wanted: &BTreeSet<String>,
) -> Result<BTreeMap<String, Searched>, Failure> {
    audit::claim(evidence)?;
    let mut residue = auditor.audit(subject, evidence, &options.profile);
    residue.stdout(Stdio::null());
    if let Some(filter) = &options.filter {
        residue.arg("--filter").arg(filter); // it may fit halves of other pairs, too
    }
    if let code @ (64 | 70) = child::verdict(residue)? {
        return Err(Failure::internal(format!("residue audit ended with code {code}")));
    }
    let path = evidence.join("run.json");
    let doing = || format!("reading {}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| Failure::because(doing(), error))?;
    searched(&text, wanted).map_err(|why| Failure::because(doing(), why))
}

/// What a whole run says of the rows that are wanted: of each of them.
fn searched(text: &str, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, Searched>, Box<dyn std::error::Error>> {
    let run: Value = serde_json::from_str(text)?;
    match run["interrupted"].as_bool() {
        Some(false) => {}
        Some(true) => return Err("the run was interrupted".into()),
        None => return Err("no word on whether the run was interrupted".into()),
    }
    let mut searched = BTreeMap::new();
    for outcome in run["outcomes"].as_array().ok_or("no outcomes")? {
        let name = outcome["scenario"].as_str().ok_or("an outcome without a scenario")?;
        let (mut leaks, mut found) = (false, Vec::new());
        for finding in outcome["findings"].as_array().ok_or("an outcome without findings")? {
            let at = finding["checkpoint"].as_str().ok_or("a finding without a checkpoint")?;
            leaks |= at != "planted";
            // What is left then is mostly there at later moments, too.
            if at == "wiped" {
                found.push(Found::read(finding)?);
            }
        }
        let decoys = outcome["controls"]["decoy_hits"].as_u64().ok_or("an outcome without a word on decoys")?;
        let verdict = outcome["verdict"].as_str().ok_or("an outcome without a verdict")?;
        if wanted.contains(name) {
            let verdict = if leaks && decoys == 0 { LEAK } else { verdict }.to_owned();
            searched.insert(name.to_owned(), Searched { verdict, found });
        }
    }
    match wanted.iter().find(|name| !searched.contains_key(*name)) {
        Some(missing) => Err(format!("nothing is said of {missing}").into()),
        None => Ok(searched),
    }
}

/// What came of a comparison of two keys: its verdict, and how many bytes depend on them, by place.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    verdict: String,
    stack: u64,
    heap: u64,
    registers: u64,
    other: u64,
    /// Of all of them, those that are a known form of the key.
    known: u64,
    /// Of those on stacks and in registers, those that lie in no address: where a block
    /// lies depends on how long the others are.
    told: u64,
    /// Stretches that are too long and too dense for an allocator's books.
    dense: u64,
    reasons: Vec<String>,
}

/// Of as many bytes as the row reads: what it would leave in the pipe would depend on the key too.
fn compare(auditor: &Auditor, subject: &Path, name: &str, key: u64, runs: u32) -> Result<Compared, Failure> {
    let (key, runs) = (key.to_string(), runs.to_string());
    let mut residue = Command::new(&auditor.program);
    // When it says that it is done, as the search looks when it says that all is wiped: what a program does on its way out
    // overwrites things that it has freed.
    residue.args([
        "diff",
        "--json",
        "--bytes",
        "--secret-random",
        &key,
        "--runs",
        &runs,
        "--at",
        "syscall:write",
        "--",
    ]);
    residue.arg(subject).args(["alone", name]).stderr(Stdio::inherit());
    let doing = || format!("comparing two keys over {name}");
    let output = residue.output().map_err(|error| Failure::because(doing(), error))?;
    match output.status.code() {
        Some(0..=2) => {}
        _ => return Err(Failure::internal(format!("{}: residue {}", doing(), child::ended(output.status)))),
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Compared::parse(&text).map_err(|why| Failure::because(doing(), why))
}

impl Compared {
    /// Whether nothing but what an allocator keeps beside its blocks depends on the key.
    fn is_bookkeeping(&self) -> bool {
        self.verdict == LEAK && self.told + self.known == 0 && self.heap + self.other <= MOST_BOOKS && self.dense == 0
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let difference: Value = serde_json::from_str(text)?;
        let number = |name: &str| difference[name].as_u64().ok_or("no word on how many runs there were");
        if number("made")? != 3 * number("runs")? {
            return Err("it was interrupted".into());
        }
        let mut compared =
            Self { verdict: difference["verdict"].as_str().ok_or("no verdict")?.to_owned(), ..Self::default() };
        for stretch in difference["keyed"].as_array().ok_or("no word on what depends on the key")? {
            let bytes = stretch["differing"].as_u64().ok_or("a stretch without a number of bytes")?;
            let length = stretch["length"].as_u64().ok_or("a stretch without a length")?;
            compared.dense += u64::from(!may_be_books(length, bytes));
            // Left out where there are none.
            let addresses = stretch.get("addresses").map_or(Some(0), Value::as_u64);
            let addresses = addresses.ok_or("a stretch with an odd word on addresses")?;
            let class = stretch["class"].as_str().ok_or("a stretch without a class")?;
            let sum = match class {
                class if class.contains("stack") => &mut compared.stack,
                class if class.contains("heap") => &mut compared.heap,
                class if class.contains("register") => &mut compared.registers,
                _ => &mut compared.other,
            };
            *sum += bytes;
            if class.contains("stack") || class.contains("register") {
                compared.told += bytes.saturating_sub(addresses);
            }
            // Left out where nothing is known of it.
            let known = stretch.get("known").map_or(Some(0), Value::as_u64);
            compared.known += known.ok_or("a stretch with an odd word on what is known of it")?;
        }
        let reasons = difference["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
        compared.reasons = reasons.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(names: &[&str], filter: Option<&str>) -> Result<BTreeSet<String>, Failure> {
        halves(names.iter().copied(), filter)
    }

    #[test]
    fn a_filter_chooses_pairs_and_never_one_half() {
        let all = ["aes/bare", "aes/scrubbed", "rsa/bare", "rsa/scrubbed"];

        assert_eq!(rows(&all, None).unwrap().len(), 4);
        assert_eq!(rows(&all, Some("rs")).unwrap(), ["rsa/bare", "rsa/scrubbed"].map(str::to_owned).into());
        assert!(matches!(rows(&all, Some("scrubbed")), Err(Failure::Usage(_))));
        assert!(matches!(rows(&all[..3], None), Err(Failure::Internal { .. })));
        assert!(matches!(rows(&[], None), Err(Failure::Internal { .. })));
    }

    fn outcome(name: &str) -> Value {
        let finding = serde_json::json!(
            {"checkpoint": "wiped", "rule": {"class": "heap", "form": "raw"}, "secret_offset": 0, "secret_length": 8}
        );
        serde_json::json!({"scenario": name, "verdict": "inconclusive", "findings": [finding], "controls": {"decoy_hits": 0}})
    }

    #[test]
    fn a_run_that_was_cut_short_or_lacks_a_row_says_nothing() {
        let wanted = rows(&["aes/bare", "aes/scrubbed"], None).unwrap();
        let of = |interrupted: bool, outcomes: &[Value]| {
            let run = serde_json::json!({"interrupted": interrupted, "outcomes": outcomes});
            searched(&run.to_string(), &wanted)
        };
        let mut both = ["aes/bare", "aes/scrubbed"].map(outcome);
        let mut later = both[0]["findings"][0].clone();
        later["checkpoint"] = "exit".into();
        both[0]["findings"].as_array_mut().unwrap().push(later);

        assert_eq!(of(false, &both).unwrap()["aes/bare"].verdict, LEAK);
        assert_eq!(of(false, &both).unwrap()["aes/bare"].found.len(), 1);
        assert!(of(true, &both).is_err());
        assert!(of(false, &both[..1]).is_err());
        assert!(of(false, &[]).is_err());
        assert!(searched(r#"{"interrupted": false}"#, &wanted).is_err());
        for part in ["scenario", "verdict", "findings", "controls"] {
            let mut odd = both.clone();
            odd[1].as_object_mut().unwrap().remove(part);
            assert!(of(false, &odd).is_err(), "{part}");
        }
    }

    #[test]
    fn bytes_are_summed_by_place() {
        let text = r#"{"verdict": "leak", "runs": 2, "made": 6, "reasons": ["why"], "keyed": [
            {"class": "dead-stack", "length": 3, "differing": 3, "known": 1},
            {"class": "stack", "length": 4, "differing": 4, "addresses": 3},
            {"class": "heap", "length": 20, "differing": 5, "known": 0},
            {"class": "register", "length": 6, "differing": 6, "known": 0},
            {"class": "file-private", "length": 7, "differing": 7, "known": 0}]}"#;

        let compared = Compared::parse(text).unwrap();

        let Compared { stack, heap, registers, other, .. } = &compared;
        assert_eq!((*stack, *heap, *registers, *other), (7, 5, 6, 7));
        assert_eq!((compared.verdict.as_str(), compared.known, compared.reasons.len()), ("leak", 1, 1));
        assert_eq!((compared.dense, compared.told), (0, 3 + 1 + 6));
        let number = text.replace(r#""differing": 5"#, r#""differing": 16"#);
        assert_eq!(Compared::parse(&number).unwrap().dense, 1);
    }

    #[test]
    fn books_are_no_form_of_the_key_and_neither_on_a_stack_nor_in_a_register() {
        let books = || Compared { verdict: "leak".to_owned(), heap: 800, ..Compared::default() };

        assert!(books().is_bookkeeping());
        assert!(Compared { stack: 3, ..books() }.is_bookkeeping(), "three bytes of an address");
        for spoilt in [
            Compared { stack: 1, told: 1, ..books() },
            Compared { registers: 1, told: 1, ..books() },
            Compared { known: 1, ..books() },
            Compared { dense: 1, ..books() },
            Compared { other: MOST_BOOKS, ..books() },
        ] {
            assert!(!spoilt.is_bookkeeping(), "{spoilt:?}");
        }
    }

    #[test]
    fn what_is_no_difference_is_an_error() {
        let odd = [
            "",
            "{}",
            r#"{"verdict": "clean", "keyed": []}"#,
            r#"{"verdict": "clean", "runs": 2, "made": 5, "keyed": []}"#,
            r#"{"verdict": "clean", "runs": 2, "made": 6}"#,
            r#"{"verdict": "clean", "runs": 2, "made": 6, "keyed": [{}]}"#,
        ];
        for text in odd {
            assert!(Compared::parse(text).is_err(), "{text}");
        }
        assert!(Compared::parse(r#"{"verdict": "clean", "runs": 2, "made": 6, "keyed": []}"#).is_ok());
    }
}
