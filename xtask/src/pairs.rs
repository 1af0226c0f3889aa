//! `cargo xtask pairs`: what well-known crates leave of a key as they are, and when they are scrubbed, seen in two ways and
//! under three allocators.
//!
//! The first way is the audit's: every form of the key that somebody thought of is searched for. The second is the
//! comparison of two keys, which sees whatever depends on the key and does not know why. The bare half of a pair must
//! show in both, or nothing is said of the scrubbed half, which must show in neither.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::audit::{self, Auditor};
use crate::child;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// Shown under `--help`.
pub(crate) const EXAMPLE: &str = "Example:\n  cargo xtask pairs --allocator glibc --filter aes-gcm";

/// Scrubbed halves whose key decides how much, and how often, they allocate: the allocator's own books then depend on it,
/// in bytes that are no form of the key. Only what a heap of its own would hide is excused, and only there.
const BOOKS: [&str; 1] = ["rsa/scrubbed"];

/// Bytes of those books at most: sizes and links beside some hundreds of blocks.
const MOST_BOOKS: u64 = 2048;

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
        let found = search(&auditor, &subject, &dir.join("evidence"), options)?;
        println!("\n{allocator}: bytes that depend on the key");
        println!(
            "{:<28}{:<10}{:<14}{:>8}{:>8}{:>10}{:>7}",
            "", "search", "difference", "stack", "heap", "registers", "other"
        );
        for (name, searched) in found {
            let key = lengths.get(&name).ok_or_else(|| Failure::internal(format!("nobody knows the key of {name}")))?;
            let compared = compare(&auditor, &subject, &name, *key, options.runs)?;
            let bare = name.ends_with("/bare");
            let wanted = if bare { "leak" } else { "clean" };
            let books = BOOKS.contains(&name.as_str()) && compared.is_bookkeeping();
            let holds = searched == wanted && (compared.verdict == wanted || books);
            passed &= holds;
            let Compared { verdict, stack, heap, registers, other, .. } = &compared;
            let remark = match (holds, books) {
                (false, _) => "  FAILED",
                (true, true) => "  the allocator's own books",
                (true, false) => "",
            };
            println!("{name:<28}{searched:<10}{verdict:<14}{stack:>8}{heap:>8}{registers:>10}{other:>7}{remark}");
            for reason in compared.reasons.iter().filter(|_| !holds) {
                println!("    {reason}");
            }
        }
    }
    // The last build lies where the next user expects the one with the C library's allocator.
    workspace.build(audit::CRYPTO, &options.profile, None)?;
    Ok(u8::from(!passed))
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

/// Audits the rows; their names, and what each shows: `leak` wherever anything was found, in whatever pieces the allocator
/// leaves.
fn search(
    auditor: &Auditor,
    subject: &Path,
    evidence: &Path,
    options: &Options,
) -> Result<BTreeMap<String, String>, Failure> {
    audit::claim(evidence)?;
    let mut residue = auditor.audit(subject, evidence, &options.profile);
    residue.stdout(Stdio::null());
    if let Some(filter) = &options.filter {
        residue.arg("--filter").arg(filter);
    }
    if let code @ (64 | 70) = child::verdict(residue)? {
        return Err(Failure::internal(format!("residue audit ended with code {code}")));
    }
    let path = evidence.join("run.json");
    let doing = || format!("reading {}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| Failure::because(doing(), error))?;
    let run: Value = serde_json::from_str(&text).map_err(|error| Failure::because(doing(), error))?;
    let outcomes = run["outcomes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |outcome: &Value| {
        let found = outcome["findings"].as_array()?.iter().any(|finding| finding["checkpoint"] != "planted");
        let decoys = outcome["controls"]["decoy_hits"].as_u64()?;
        let verdict = if found && decoys == 0 { "leak" } else { outcome["verdict"].as_str()? };
        Some((outcome["scenario"].as_str()?.to_owned(), verdict.to_owned()))
    };
    Ok(outcomes.iter().filter_map(named).collect())
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
    reasons: Vec<String>,
}

/// Of as many bytes as the row reads: what it would leave in the pipe would depend on the key too.
fn compare(auditor: &Auditor, subject: &Path, name: &str, key: u64, runs: u32) -> Result<Compared, Failure> {
    let (key, runs) = (key.to_string(), runs.to_string());
    let mut residue = Command::new(&auditor.program);
    residue.args(["diff", "--json", "--bytes", "--secret-random", &key, "--runs", &runs, "--"]);
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
        self.verdict == "leak" && self.stack + self.registers + self.known == 0 && self.heap + self.other <= MOST_BOOKS
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let difference: Value = serde_json::from_str(text)?;
        let mut compared =
            Self { verdict: difference["verdict"].as_str().ok_or("no verdict")?.to_owned(), ..Self::default() };
        for stretch in difference["keyed"].as_array().ok_or("no word on what depends on the key")? {
            let bytes = stretch["differing"].as_u64().ok_or("a stretch without a number of bytes")?;
            let sum = match stretch["class"].as_str().ok_or("a stretch without a class")? {
                class if class.contains("stack") => &mut compared.stack,
                class if class.contains("heap") => &mut compared.heap,
                class if class.contains("register") => &mut compared.registers,
                _ => &mut compared.other,
            };
            *sum += bytes;
            compared.known += stretch["known"].as_u64().ok_or("a stretch that does not say what is known of it")?;
        }
        let reasons = difference["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
        compared.reasons = reasons.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(compared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_by_place() {
        let text = r#"{"verdict": "leak", "reasons": ["why"], "keyed": [
            {"class": "dead-stack", "differing": 3, "known": 1}, {"class": "stack", "differing": 4, "known": 0},
            {"class": "heap", "differing": 5, "known": 0}, {"class": "register", "differing": 6, "known": 0},
            {"class": "file-private", "differing": 7, "known": 0}]}"#;

        let compared = Compared::parse(text).unwrap();

        let Compared { stack, heap, registers, other, .. } = &compared;
        assert_eq!((*stack, *heap, *registers, *other), (7, 5, 6, 7));
        assert_eq!((compared.verdict.as_str(), compared.known, compared.reasons.len()), ("leak", 1, 1));
    }

    #[test]
    fn books_are_no_form_of_the_key_and_neither_on_a_stack_nor_in_a_register() {
        let books = || Compared { verdict: "leak".to_owned(), heap: 800, ..Compared::default() };

        assert!(books().is_bookkeeping());
        for spoilt in
            [Compared { stack: 1, ..books() }, Compared { registers: 1, ..books() }, Compared { known: 1, ..books() }]
        {
            assert!(!spoilt.is_bookkeeping(), "{spoilt:?}");
        }
    }

    #[test]
    fn what_is_no_difference_is_an_error() {
        for text in ["", "{}", r#"{"verdict": "clean"}"#, r#"{"verdict": "clean", "keyed": [{}]}"#] {
            assert!(Compared::parse(text).is_err(), "{text}");
        }
    }
}
