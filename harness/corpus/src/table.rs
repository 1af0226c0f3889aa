//! The victims as `victims.toml` lists them. What they are compiled and run with is told in `prepare`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The table, part of the program so that it cannot be another's.
const TABLE: &str = include_str!("../victims.toml");

/// What has to be seen of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expect {
    /// The oracle finds residues in each of its runs, and `residue` all of those that are in each.
    Leak,
    /// Neither finds any, and both see the secret while it lives.
    Clean,
    /// Something cannot be seen, so that nothing may be called clean.
    Inconclusive,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leak => "leak",
            Self::Clean => "clean",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// Whose `malloc` and `free` a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Allocator {
    Glibc,
    Musl,
    Jemalloc,
    Mimalloc,
}

impl Allocator {
    /// In the order of the columns.
    pub(crate) const ALL: [Self; 4] = [Self::Glibc, Self::Musl, Self::Jemalloc, Self::Mimalloc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Jemalloc => "jemalloc",
            Self::Mimalloc => "mimalloc",
        }
    }
}

/// A fact about where residues hide, which some victim has to show.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fact {
    pub(crate) name: String,
    /// The fact, in words.
    pub(crate) text: String,
}

/// One program.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Victim {
    pub(crate) name: String,
    /// Language of the source; `program` runs what is installed, with `args`.
    pub(crate) language: String,
    #[serde(default)]
    pub(crate) source: String,
    /// What the compiler is told besides.
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// As `residue run --feed` takes it; `DIR` is the victim's own directory.
    #[serde(default = "stdin")]
    pub(crate) feed: String,
    /// As `residue run --at` takes them.
    #[serde(default = "exit")]
    pub(crate) at: Vec<String>,
    #[serde(default)]
    pub(crate) follow: bool,
    /// Whether the secret is any bytes, and nothing follows it.
    #[serde(default)]
    pub(crate) bytes: bool,
    /// Bytes of the secret.
    #[serde(default = "thirty_two")]
    pub(crate) length: u16,
    /// What a random secret begins with; these bytes anybody knows.
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) expect: Expect,
    /// The allocators under which it runs, each time as a victim of its own, `NAME/ALLOCATOR`; none: whatever it has.
    #[serde(default)]
    pub(crate) allocators: Vec<Allocator>,
    /// What has to be seen under an allocator, where that is not `expect`.
    #[serde(default)]
    pub(crate) under: BTreeMap<Allocator, Expect>,
    /// The one of them that this is; not in the file.
    #[serde(skip)]
    pub(crate) allocator: Option<Allocator>,
    /// The function that has to be named as the writer of a residue.
    #[serde(default)]
    pub(crate) writer: Option<String>,
    /// Bytes that have to be counted as never touched, and not read.
    #[serde(default)]
    pub(crate) untouched: u64,
    /// The facts that it shows.
    #[serde(default)]
    pub(crate) facts: Vec<String>,
    /// What it stands for, in words.
    pub(crate) why: String,
}

fn stdin() -> String {
    "stdin".to_owned()
}

fn exit() -> Vec<String> {
    vec!["exit".to_owned()]
}

const fn thirty_two() -> u16 {
    32
}

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    #[serde(rename = "fact", default)]
    pub(crate) facts: Vec<Fact>,
    #[serde(rename = "victim")]
    pub(crate) victims: Vec<Victim>,
}

/// Reads the table; a victim that runs under several allocators is one victim for each.
///
/// # Errors
///
/// The line that is wrong, the name that two victims have, or a fact that no victim shows or that nobody wrote down.
pub(crate) fn table() -> Result<Table, String> {
    parse(TABLE)
}

fn parse(text: &str) -> Result<Table, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| format!("victims.toml: {error}"))?;
    let mut names = BTreeSet::new();
    if let Some(twice) = table.victims.iter().find(|victim| !names.insert(victim.name.as_str())) {
        return Err(format!("victims.toml: two victims are called {}", twice.name));
    }
    let shown: BTreeSet<&str> = table.victims.iter().flat_map(|victim| &victim.facts).map(String::as_str).collect();
    let known: BTreeSet<&str> = table.facts.iter().map(|fact| fact.name.as_str()).collect();
    if let Some(name) = shown.symmetric_difference(&known).next() {
        let lack = if known.contains(name) { "is shown by no victim" } else { "is not among the facts" };
        return Err(format!("victims.toml: {name} {lack}"));
    }
    table.victims = table.victims.into_iter().flat_map(each).collect();
    Ok(table)
}

/// A victim under each of its allocators.
fn each(victim: Victim) -> Vec<Victim> {
    if victim.allocators.is_empty() {
        return vec![victim];
    }
    let under = |allocator: &Allocator| Victim {
        name: format!("{}/{}", victim.name, allocator.name()),
        allocator: Some(*allocator),
        expect: victim.under.get(allocator).copied().unwrap_or(victim.expect),
        ..victim.clone()
    };
    victim.allocators.iter().map(under).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_leaks_and_programs_that_stay_clean() {
        let victims = table().unwrap().victims;

        let count = |expect| victims.iter().filter(|victim| victim.expect == expect).count();
        assert!(victims.len() >= 55, "{}", victims.len());
        assert!(count(Expect::Leak) >= 30 && count(Expect::Clean) >= 12);
    }

    #[test]
    fn a_name_that_stands_twice_and_a_field_that_is_none_are_errors() {
        let row = "[[victim]]\nname = 'a'\nlanguage = 'c'\nexpect = 'leak'\nwhy = ''\n";

        assert!(parse(row).is_ok());
        assert!(parse(&format!("{row}{row}")).unwrap_err().contains("two victims are called a"));
        assert!(parse(&format!("{row}colour = 'red'")).is_err());
    }

    #[test]
    fn a_victim_is_one_for_each_of_its_allocators() {
        let row = "[[victim]]\nname = 'a'\nlanguage = 'c'\nexpect = 'leak'\nwhy = ''\n\
                   allocators = ['glibc', 'musl']\nunder = { glibc = 'clean' }\n";

        let victims = parse(row).unwrap().victims;

        let seen: Vec<_> = victims.iter().map(|victim| (victim.name.as_str(), victim.expect)).collect();
        assert_eq!(seen, [("a/glibc", Expect::Clean), ("a/musl", Expect::Leak)]);
    }

    #[test]
    fn a_fact_that_no_victim_shows_and_one_that_nobody_wrote_down_are_errors() {
        let row = "[[victim]]\nname = 'a'\nlanguage = 'c'\nexpect = 'leak'\nwhy = ''\n";
        let fact = "[[fact]]\nname = 'F1'\ntext = ''\n";

        assert!(parse(&format!("{fact}{row}facts = ['F1']")).is_ok());
        assert!(parse(&format!("{fact}{row}")).unwrap_err().contains("F1 is shown by no victim"));
        assert!(parse(&format!("{row}facts = ['F1']")).unwrap_err().contains("F1 is not among the facts"));
    }
}
