//! Parts of one run, made apart and put together again.

use serde::{Deserialize, Serialize};

use crate::{FormChance, Outcome, Run, SCHEMA, Sensitivity, Verdict};

/// Which part of a whole run a run is: of the rows that were asked for, counted from 0 in the order of the catalogue, those
/// whose number leaves `number - 1` when divided by `of`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 1.
    pub number: u32,
    /// How many parts there are.
    pub of: u32,
    /// Rows of the whole run.
    pub rows: u32,
    /// The number of each outcome's row among them.
    pub ranks: Vec<u32>,
    /// What chance alone would give in each outcome, form by form: kept apart, because a sum depends on the order of its
    /// parts.
    pub chances: Vec<Vec<FormChance>>,
}

// The figures are finite by construction, so equality is total.
impl Eq for Shard {}

/// Why runs are not the parts of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeError {
    /// There are none.
    Nothing,
    /// This one, counted from 1, is a whole run.
    Whole(usize),
    /// This one's lists do not belong together, or its schema is another.
    Malformed(usize),
    /// This one differs from the first in something that all parts have in common.
    Differs(usize, &'static str),
    /// No part has this number.
    Missing(u32, u32),
    /// Two parts have this number.
    Twice(u32),
    /// This row is in no part, though none was interrupted.
    Row(u32),
}

impl std::error::Error for MergeError {}

impl std::fmt::Display for MergeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(f, "there is no shard to merge"),
            Self::Whole(file) => write!(f, "file {file} is a whole run and no shard"),
            Self::Malformed(file) => write!(f, "file {file} is no shard that can be read"),
            Self::Differs(file, what) => write!(f, "file {file} is of another run than file 1: its {what} differs"),
            Self::Missing(number, of) => write!(f, "shard {number}/{of} is missing"),
            Self::Twice(number) => write!(f, "shard {number} is there twice"),
            Self::Row(rank) => write!(f, "row {} of the run is in no shard", rank + 1),
        }
    }
}

/// Puts the parts of a run together, in whatever order they come. The result is what one whole run would have written from
/// the same looks, to the byte.
///
/// # Errors
///
/// [`MergeError`] unless the parts are all of one run, each once: the same program, subject, machine and settings.
pub fn merge(runs: Vec<Run>) -> Result<Run, MergeError> {
    let first = runs.first().ok_or(MergeError::Nothing)?;
    for (file, run) in (1..).zip(&runs) {
        belongs(file, run, first)?;
    }
    let (of, total) = first.shard.as_ref().map_or((0, 0), |shard| (shard.of, shard.rows));
    let mut numbers: Vec<u32> = runs.iter().filter_map(|run| Some(run.shard.as_ref()?.number)).collect();
    numbers.sort_unstable();
    if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(MergeError::Twice(twice[0]));
    }
    if let Some(missing) = (1..=of).find(|number| numbers.binary_search(number).is_err()) {
        return Err(MergeError::Missing(missing, of));
    }
    let mut whole = Run { shard: None, outcomes: Vec::new(), ..first.clone() };
    let mut parts: Vec<(u32, Vec<FormChance>, Outcome)> = Vec::new();
    for run in runs {
        whole.interrupted |= run.interrupted;
        let (ranks, chances) = run.shard.map(|shard| (shard.ranks, shard.chances)).unwrap_or_default();
        let figures = ranks.into_iter().zip(chances);
        parts.extend(figures.zip(run.outcomes).map(|((rank, chance), outcome)| (rank, chance, outcome)));
    }
    parts.sort_by_key(|(rank, ..)| *rank);
    if !whole.interrupted
        && let Some(rank) = (0..total).find(|rank| parts.get(*rank as usize).is_none_or(|(found, ..)| found != rank))
    {
        return Err(MergeError::Row(rank));
    }
    let (chances, outcomes): (Vec<_>, Vec<_>) = parts.into_iter().map(|(_, chance, outcome)| (chance, outcome)).unzip();
    whole.sensitivity = Sensitivity::of(whole.sensitivity.min_length, &outcomes, &chances);
    whole.outcomes = outcomes;
    whole.verdict = Verdict::Inconclusive;
    whole.verdict = whole.judge();
    Ok(whole)
}

/// Whether a file holds a part of the same run as the first.
fn belongs(file: usize, run: &Run, first: &Run) -> Result<(), MergeError> {
    let shard = run.shard.as_ref().ok_or(MergeError::Whole(file))?;
    let lengths = [shard.ranks.len(), shard.chances.len()];
    let of_it = |rank: &u32| *rank < shard.rows && rank.checked_rem(shard.of) == shard.number.checked_sub(1);
    let is_finite = |chance: &FormChance| chance.in_random_bytes.is_finite() && chance.in_own_alphabet.is_finite();
    let in_order = shard.ranks.windows(2).all(|pair| pair[0] < pair[1]);
    if run.schema != SCHEMA
        || lengths != [run.outcomes.len(); 2]
        || !(1..=shard.of).contains(&shard.number)
        || !shard.ranks.iter().all(of_it)
        || !in_order
        || !shard.chances.iter().flatten().all(is_finite)
    {
        return Err(MergeError::Malformed(file));
    }
    let theirs = first.shard.as_ref().ok_or(MergeError::Whole(1))?;
    let same = [
        (run.tool == first.tool, "version of the tool"),
        (run.build == first.build, "subject"),
        (run.machine == first.machine, "machine"),
        (run.not_shown == first.not_shown, "list of what is not shown"),
        (run.settings == first.settings, "settings"),
        (run.sensitivity.min_length == first.sensitivity.min_length, "shortest residue"),
        (shard.of == theirs.of, "number of shards"),
        (shard.rows == theirs.rows, "number of rows"),
    ];
    match same.iter().find(|(same, _)| !same) {
        Some((_, what)) => Err(MergeError::Differs(file, what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{good, run};
    use crate::{Coverage, Form, Looked, Observation};

    /// A run of seven rows, and the same outcomes as so many parts.
    fn parts(of: u32) -> (Run, Vec<Run>) {
        let mut outcomes = [good(), good(), good(), good()].concat();
        outcomes.truncate(7);
        let chances = [0.1, 0.2, 1e-17, 0.3, 1e9, 0.7, 0.000_1];
        for (rank, outcome) in (1..).zip(&mut outcomes) {
            outcome.scenario = format!("row {rank}");
            outcome.controls.decoys = 8;
            outcome.observations.push(Observation {
                checkpoint: "exit".to_owned(),
                process: 1,
                looked: Looked::Yes,
                threads: 1,
                coverage: Coverage { listed: rank, read: rank, ..Coverage::default() },
                kept: None,
                exposure: None,
                core: None,
                kept_freed: None,
                whole: 0,
                fragments: 0,
                public: 0,
                decoy_hits: 0,
            });
        }
        let chance = |hits: f64| {
            let one =
                |form, windows, hits| FormChance { form, windows, in_random_bytes: hits / 3.0, in_own_alphabet: hits };
            vec![one(Form::HexLower, 53, hits), one(Form::Raw, 27, hits / 7.0)]
        };
        let cut = |number: u32, of: u32| {
            let mine = |rank: &u32| rank % of == number - 1;
            let ranks: Vec<u32> = (0..7).filter(mine).collect();
            let mut part = run(ranks.iter().map(|rank| outcomes[*rank as usize].clone()).collect());
            let chances: Vec<_> = ranks.iter().map(|rank| chance(chances[*rank as usize])).collect();
            part.sensitivity = Sensitivity::of(6, &part.outcomes, &chances);
            part.verdict = part.judge();
            Run { shard: Some(Shard { number, of, rows: 7, ranks, chances }), ..part }
        };
        let whole = Run { shard: None, ..cut(1, 1) };
        (whole, (1..=of).map(|number| cut(number, of)).collect())
    }

    #[test]
    fn parts_in_any_order_give_the_whole_to_the_byte() {
        for of in [1, 2, 3, 7] {
            let (whole, mut parts) = parts(of);
            parts.reverse();
            // As they come from their files.
            let parts = parts.iter().map(|part| serde_json::from_str(&serde_json::to_string(part).unwrap()).unwrap());

            let merged = merge(parts.collect()).unwrap();

            assert_eq!(serde_json::to_string(&merged).unwrap(), serde_json::to_string(&whole).unwrap(), "{of}");
        }
    }

    #[test]
    fn what_is_missing_twice_or_of_another_run_is_refused() {
        let (whole, parts) = parts(3);
        let with = |change: fn(&mut Run)| {
            let mut parts = parts.clone();
            change(&mut parts[1]);
            merge(parts).unwrap_err()
        };

        assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
        assert_eq!(merge(vec![whole]), Err(MergeError::Whole(1)));
        assert_eq!(merge(parts[..2].to_vec()), Err(MergeError::Missing(3, 3)));
        assert_eq!(merge([&parts[..], &parts[..1]].concat()), Err(MergeError::Twice(1)));
        assert_eq!(with(|run| run.shard = None), MergeError::Whole(2));
        assert_eq!(with(|run| run.build.digest.push('0')), MergeError::Differs(2, "subject"));
        assert_eq!(with(|run| run.settings.repeat = 2), MergeError::Differs(2, "settings"));
        assert_eq!(with(|run| drop(run.outcomes.pop())), MergeError::Malformed(2));
        let lost = |run: &mut Run| {
            let shard = run.shard.as_mut().unwrap();
            shard.ranks.pop();
            shard.chances.pop();
            run.outcomes.pop();
        };
        assert_eq!(with(lost), MergeError::Row(4));
    }

    #[test]
    fn an_interrupted_part_makes_an_interrupted_whole() {
        let (_, mut parts) = parts(3);
        parts[2].interrupted = true;
        parts[2].outcomes.clear();
        let shard = parts[2].shard.as_mut().unwrap();
        shard.ranks.clear();
        shard.chances.clear();

        let merged = merge(parts).unwrap();

        assert!(merged.interrupted);
        assert_eq!(merged.verdict, Verdict::Inconclusive);
    }
}
