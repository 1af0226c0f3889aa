//! The victims as `victims.toml` lists them. What they are compiled and run with is told in `prepare`.

use std::collections::BTreeSet;

use serde::Deserialize;

/// The table, part of the program so that it cannot be another's.
const TABLE: &str = include_str!("../victims.toml");

/// What has to be seen of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Expect {
    /// The oracle finds residues in each of its runs, and `residue` all of those that are in each.
    Leak,
    /// Neither finds any, and both see the secret while it lives.
    Clean,
    /// Something cannot be seen, so that nothing may be called clean.
    Inconclusive,
}

/// One program.
#[derive(Debug, Deserialize)]
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
    pub(crate) expect: Expect,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    victim: Vec<Victim>,
}

/// Reads the table.
///
/// # Errors
///
/// The line that is wrong, or the name that two victims have.
pub(crate) fn victims() -> Result<Vec<Victim>, String> {
    parse(TABLE)
}

fn parse(text: &str) -> Result<Vec<Victim>, String> {
    let table: Table = toml::from_str(text).map_err(|error| format!("victims.toml: {error}"))?;
    let mut names = BTreeSet::new();
    match table.victim.iter().find(|victim| !names.insert(victim.name.as_str())) {
        Some(twice) => Err(format!("victims.toml: two victims are called {}", twice.name)),
        None => Ok(table.victim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_leaks_and_programs_that_stay_clean() {
        let victims = victims().unwrap();

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
}
