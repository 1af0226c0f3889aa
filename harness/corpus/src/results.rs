//! From what came of each victim to what a reader wants to know: recall and precision, over all, for each language and
//! for each allocator; what an allocator leaves of freed memory; the facts, and who shows them. Pure but for `write`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use findings::EXIT_INTERNAL;
use serde::Serialize;

use crate::Fate;
use crate::score::Score;
use crate::table::{Allocator, Expect, Fact, Victim};

/// The version of the JSON.
const SCHEMA: &str = "residue-corpus/1";

/// All of it. Lists have the order of the table, and nothing holds an address, a time or a path.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    schema: &'static str,
    total: Counts,
    languages: BTreeMap<String, Counts>,
    allocators: BTreeMap<Allocator, Counts>,
    facts: Vec<Shown>,
    victims: Vec<Row>,
}

/// One victim.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    language: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocator: Option<Allocator>,
    expect: Expect,
    fate: Word,
    /// Why it was skipped, failed or is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<String>,
    /// Bytes of the secret, and of those the most that one stable residue shows.
    length: u16,
    left: u64,
    #[serde(flatten)]
    counts: Counts,
}

/// What became of a victim, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ok,
    Wrong,
    Skipped,
    Failed,
}

/// A fact with the victims that show it.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    text: String,
    by: Vec<String>,
    /// Those of them that could not be run here.
    skipped: Vec<String>,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    victims: u32,
    skipped: u32,
    failed: u32,
    wrong: u32,
    leaks: u32,
    negatives: u32,
    negatives_with_a_hit: u32,
    /// Residues of any of the oracle's runs, those of all, and those of the latter that `residue run` found.
    met: u32,
    stable: u32,
    recalled: u32,
    /// Findings in forms that the oracle knows, and those that it confirms.
    claimed: u32,
    confirmed: u32,
    /// Findings in forms that it does not know.
    beyond: u32,
    /// Places that the oracle sees at the stops where both look, and those that `residue` sees there.
    seen: u32,
    seen_by_both: u32,
}

impl Counts {
    fn of(victim: &Victim, fate: &Fate) -> Self {
        match fate {
            Fate::Skipped(_) => Self { skipped: 1, ..Self::default() },
            Fate::Failed(_) => Self { failed: 1, ..Self::default() },
            Fate::Scored(score) => Self::scored(victim, score),
        }
    }

    fn scored(victim: &Victim, score: &Score) -> Self {
        let clean = victim.expect == Expect::Clean;
        Self {
            victims: 1,
            wrong: u32::from(!score.wrong.is_empty()),
            leaks: u32::from(victim.expect == Expect::Leak),
            negatives: u32::from(clean),
            negatives_with_a_hit: u32::from(clean && score.hits > 0),
            met: score.met,
            stable: score.stable,
            recalled: score.recalled,
            claimed: score.claimed,
            confirmed: score.confirmed,
            beyond: score.beyond,
            seen: score.seen,
            seen_by_both: score.seen_by_both,
            ..Self::default()
        }
    }

    fn add(&mut self, other: &Self) {
        self.victims += other.victims;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.leaks += other.leaks;
        self.negatives += other.negatives;
        self.negatives_with_a_hit += other.negatives_with_a_hit;
        self.met += other.met;
        self.stable += other.stable;
        self.recalled += other.recalled;
        self.claimed += other.claimed;
        self.confirmed += other.confirmed;
        self.beyond += other.beyond;
        self.seen += other.seen;
        self.seen_by_both += other.seen_by_both;
    }
}

/// A share in words; of nothing there is none.
fn share(part: u32, whole: u32) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * f64::from(part) / f64::from(whole)) }
}

impl Results {
    /// Counts.
    pub(crate) fn of(victims: &[Victim], fates: &[Fate], facts: &[Fact]) -> Self {
        let mut results = Self {
            schema: SCHEMA,
            total: Counts::default(),
            languages: BTreeMap::new(),
            allocators: BTreeMap::new(),
            facts: Vec::new(),
            victims: victims.iter().zip(fates).map(|(victim, fate)| row(victim, fate)).collect(),
        };
        for row in &results.victims {
            results.total.add(&row.counts);
            results.languages.entry(row.language.clone()).or_default().add(&row.counts);
            if let Some(allocator) = row.allocator {
                results.allocators.entry(allocator).or_default().add(&row.counts);
            }
        }
        results.facts = facts.iter().map(|fact| shown(fact, victims, fates)).collect();
        results
    }

    /// 0 all as it must be, 1 something is wrong, 2 nothing was run, 70 something failed.
    pub(crate) fn exit_code(&self) -> u8 {
        match (self.total.victims, self.total.failed, self.total.wrong) {
            (_, 1.., _) => EXIT_INTERNAL,
            (0, 0, _) => 2,
            (_, 0, 0) => 0,
            (_, 0, _) => 1,
        }
    }

    /// Writes the JSON.
    ///
    /// # Errors
    ///
    /// Whatever writing the file fails with.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        text.push('\n');
        std::fs::write(path, text)
    }
}

fn row(victim: &Victim, fate: &Fate) -> Row {
    let (word, why) = match fate {
        Fate::Scored(score) if score.wrong.is_empty() => (Word::Ok, Vec::new()),
        Fate::Scored(score) => (Word::Wrong, score.wrong.clone()),
        Fate::Skipped(why) => (Word::Skipped, vec![why.clone()]),
        Fate::Failed(why) => (Word::Failed, vec![why.clone()]),
    };
    Row {
        name: victim.name.clone(),
        language: victim.language.clone(),
        allocator: victim.allocator,
        expect: victim.expect,
        fate: word,
        why,
        length: victim.length,
        left: if let Fate::Scored(score) = fate { score.most } else { 0 },
        counts: Counts::of(victim, fate),
    }
}

fn shown(fact: &Fact, victims: &[Victim], fates: &[Fate]) -> Shown {
    let mut shown = Shown { name: fact.name.clone(), text: fact.text.clone(), by: Vec::new(), skipped: Vec::new() };
    for (victim, fate) in victims.iter().zip(fates).filter(|(victim, _)| victim.facts.contains(&fact.name)) {
        match fate {
            Fate::Scored(score) if score.wrong.is_empty() => shown.by.push(victim.name.clone()),
            Fate::Scored(_) | Fate::Failed(_) => shown.skipped.push(format!("{}: not as expected", victim.name)),
            Fate::Skipped(why) => shown.skipped.push(format!("{}: {why}", victim.name)),
        }
    }
    shown
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        let unclear = total.victims - total.leaks - total.negatives;
        writeln!(f)?;
        self.matrix(f)?;
        sums(f, "language", self.languages.iter().map(|(name, counts)| (name.as_str(), counts)))?;
        sums(f, "allocator", self.allocators.iter().map(|(allocator, counts)| (allocator.name(), counts)))?;
        self.write_facts(f)?;
        writeln!(
            f,
            "victims    {} run: {} that leak, {} that stay clean, {unclear} that cannot be seen",
            total.victims, total.leaks, total.negatives
        )?;
        writeln!(f, "           {} skipped, {} failed, {} wrong", total.skipped, total.failed, total.wrong)?;
        let Counts { met, stable, recalled, claimed, confirmed, beyond, seen, seen_by_both, .. } = total;
        writeln!(f, "stable     {}: {stable} of {met} residues stand in all runs", share(*stable, *met))?;
        writeln!(f, "recall     {}: {recalled} of {stable} stable residues", share(*recalled, *stable))?;
        writeln!(f, "precision  {}: {confirmed} of {claimed} findings confirmed", share(*confirmed, *claimed))?;
        writeln!(
            f,
            "same stops {seen_by_both} of {seen} places that the oracle sees; {beyond} more in forms it does not know"
        )?;
        writeln!(f, "negatives  {} of {} with a hit", total.negatives_with_a_hit, total.negatives)
    }
}

impl Results {
    /// What stands after each victim's end under each allocator: whole, so many bytes of the secret, or nothing.
    fn matrix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(&str, BTreeMap<Allocator, String>)> = Vec::new();
        for row in &self.victims {
            let Some(allocator) = row.allocator else { continue };
            let name = row.name.split('/').next().unwrap_or_default();
            let cell = match (row.fate, row.left) {
                (Word::Skipped, _) => "skipped".to_owned(),
                (Word::Failed, _) => "failed".to_owned(),
                (_, 0) => "nothing".to_owned(),
                (_, left) if left >= u64::from(row.length) => "whole".to_owned(),
                (_, left) => format!("{left} of {}", row.length),
            };
            match rows.last_mut().filter(|(last, _)| *last == name) {
                Some((_, cells)) => {
                    cells.insert(allocator, cell);
                }
                None => rows.push((name, BTreeMap::from([(allocator, cell)]))),
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let mut line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
            let cells: String = cells.map(|cell| format!("{cell:<12}")).collect();
            writeln!(f, "{}", format!("{name:<26} {cells}").trim_end())
        };
        line("what is left", &mut Allocator::ALL.iter().map(|allocator| allocator.name()))?;
        for (name, cells) in &rows {
            let cell = |allocator| cells.get(allocator).map_or("-", String::as_str);
            line(name, &mut Allocator::ALL.iter().map(cell))?;
        }
        writeln!(f)
    }

    fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fact in self.facts.iter().filter(|fact| !fact.by.is_empty() || !fact.skipped.is_empty()) {
            writeln!(f, "{:<4} {}", fact.name, fact.text)?;
            match fact.by.as_slice() {
                [] => writeln!(f, "     not shown here: {}", fact.skipped.join("; "))?,
                by => writeln!(f, "     {}", by.join(", "))?,
            }
        }
        writeln!(f)
    }
}

fn sums<'a>(f: &mut fmt::Formatter<'_>, of: &str, rows: impl Iterator<Item = (&'a str, &'a Counts)>) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(f, "{of:<12} {:>7} {:>7} {:>14} {:>16} {:>9}", "victims", "skipped", "recall", "precision", "negatives")?;
    for (name, counts) in rows {
        let recall = format!("{} of {}", counts.recalled, counts.stable);
        let precision = format!("{} of {}", counts.confirmed, counts.claimed);
        let negatives = format!("{} of {}", counts.negatives_with_a_hit, counts.negatives);
        let (recalled, confirmed) = (share(counts.recalled, counts.stable), share(counts.confirmed, counts.claimed));
        writeln!(
            f,
            "{name:<12} {:>7} {:>7} {recall:>14} {precision:>16} {negatives:>9}   {recalled} recall, {confirmed} precision",
            counts.victims, counts.skipped
        )?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;

    /// The heap's victims, of which each leaves so many bytes.
    fn results(left: u64, fate: impl Fn(&Victim, Score) -> Fate) -> Results {
        let table = table().unwrap();
        let victims: Vec<Victim> =
            table.victims.into_iter().filter(|victim| victim.name.starts_with("heap-freed/")).collect();
        let score = || Score { most: left, met: 2, stable: 1, recalled: 1, ..Score::default() };
        let fates: Vec<Fate> = victims.iter().map(|victim| fate(victim, score())).collect();
        Results::of(&victims, &fates, &table.facts)
    }

    #[test]
    fn what_is_left_under_each_allocator_is_one_line() {
        for (left, said) in [(32, "whole"), (16, "16 of 32"), (0, "nothing")] {
            let text = results(left, |_, score| Fate::Scored(score)).to_string();

            let row = text.lines().find(|line| line.starts_with("heap-freed ")).unwrap();
            assert_eq!(row.matches(said).count(), Allocator::ALL.len(), "{row}");
        }
    }

    #[test]
    fn a_skip_is_told_with_its_reason_and_is_no_victim_that_was_run() {
        let skipped = results(0, |_, _| Fate::Skipped("no such thing".to_owned()));

        assert_eq!((skipped.exit_code(), skipped.total.victims, skipped.total.skipped), (2, 0, 4));
        assert!(skipped.to_string().contains("not shown here: heap-freed/glibc: no such thing"));
    }

    #[test]
    fn a_wrong_one_and_a_failed_one_are_in_the_exit_code() {
        let wrong = |_: &Victim, score| Fate::Scored(Score { wrong: vec![String::new()], ..score });

        assert_eq!(results(0, |_, score| Fate::Scored(score)).exit_code(), 0);
        assert_eq!(results(0, wrong).exit_code(), 1);
        assert_eq!(results(0, |_, _| Fate::Failed(String::new())).exit_code(), EXIT_INTERNAL);
    }

    #[test]
    fn the_same_results_are_the_same_json() {
        let json = || serde_json::to_string(&results(16, |_, score| Fate::Scored(score))).unwrap();

        assert_eq!(json(), json());
        assert!(json().contains(r#""allocators":{"glibc":{"victims":1"#), "{}", json());
    }
}
