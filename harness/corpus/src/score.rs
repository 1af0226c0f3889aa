//! From what the oracle and `residue` found in a victim to whether they agree. Pure.

use std::collections::{BTreeMap, BTreeSet};

use findings::{Class, Finding, Outcome, Verdict};

use crate::oracle::{KNOWN, Place};
use crate::table::{Expect, Victim};

/// One run in which both looked at the same stops.
#[derive(Debug)]
pub(crate) struct Both {
    pub(crate) oracle: Vec<Place>,
    /// What the oracle could not read, in words.
    pub(crate) troubles: Vec<String>,
    pub(crate) residue: Outcome,
}

/// What came of one victim.
#[derive(Debug, Default)]
pub(crate) struct Score {
    /// Residues that the oracle found in each of its runs.
    pub(crate) stable: u32,
    /// How many of them `residue run` found.
    pub(crate) recalled: u32,
    /// Places that the oracle found in the runs in which both looked, and how many of them `residue` found there.
    pub(crate) seen: u32,
    pub(crate) seen_by_both: u32,
    /// Findings of `residue` in those runs in forms that the oracle knows, and how many of them the oracle confirms.
    pub(crate) claimed: u32,
    pub(crate) confirmed: u32,
    /// Residues that the oracle found in any of its runs.
    pub(crate) met: u32,
    /// Bytes of the secret that the largest stable residue outside of registers shows.
    pub(crate) most: u64,
    /// Findings in forms that the oracle does not know.
    pub(crate) beyond: u32,
    /// All findings of `residue`, in registers too.
    pub(crate) hits: u32,
    /// Everything that is not as it must be.
    pub(crate) wrong: Vec<String>,
}

/// A residue without its address: moment, process, place, form, first byte of the secret, bytes of the secret.
type Key = (String, u32, String, findings::Form, u64, u64);

/// A number beside the key tells equal residues apart.
fn counted(keys: impl Iterator<Item = Key>) -> BTreeSet<(Key, u32)> {
    let mut met: BTreeMap<Key, u32> = BTreeMap::new();
    keys.map(|key| {
        let number = met.entry(key.clone()).or_default();
        *number += 1;
        (key, *number)
    })
    .collect()
}

fn in_memory(place: &&Place) -> bool {
    place.place != "register" && place.moment != "planted"
}

fn is_register(finding: &Finding) -> bool {
    finding.rule.class == Class::Register
}

/// The residues of a run of the oracle's, without their addresses.
fn keys(run: &Both) -> BTreeSet<(Key, u32)> {
    counted(run.oracle.iter().filter(in_memory).map(|place| {
        let name = kind(&place.place);
        (place.moment.clone(), place.process, name, place.form, place.offset, place.shown)
    }))
}

/// What stood in the same place in all of the oracle's runs.
fn stable(runs: &[Both]) -> BTreeSet<(Key, u32)> {
    let mut runs = runs.iter().map(keys);
    let first = runs.next().unwrap_or_default();
    runs.fold(first, |both, run| both.intersection(&run).cloned().collect())
}

/// Mappings have names of their own in each run where they are a process's; what is compared is the kind.
fn kind(name: &str) -> String {
    match name {
        "[heap]" | "[stack]" | "" => name.to_owned(),
        name if name.starts_with("[anon") => String::new(),
        name => name.rsplit('/').next().unwrap_or_default().trim_end_matches(" (deleted)").to_owned(),
    }
}

/// Whether what was found in the same place, and is no other stable residue, shows these bytes and a few beside them: a
/// neighbour can be the next byte of the secret by chance.
fn is_within_another(key: &Key, stable: &BTreeSet<(Key, u32)>, found: &BTreeSet<(Key, u32)>) -> bool {
    let (moment, process, place, form, offset, shown) = key;
    found.difference(stable).any(|(other, _)| {
        (&other.0, &other.1, &other.2, &other.3) == (moment, process, place, form)
            && other.4 <= *offset
            && offset + shown <= other.4 + other.5
            && other.5 <= shown + 2
    })
}

/// Registers in which the secret, or a piece of it, stood at the same moment in every run: compared by form alone, as a
/// register's two halves may lie apart.
fn stable_registers(runs: &[Both]) -> BTreeSet<(String, u32, findings::Form)> {
    let of = |run: &Both| -> BTreeSet<_> {
        let registers = run.oracle.iter().filter(|place| place.place == "register" && place.moment != "planted");
        registers.map(|place| (place.moment.clone(), place.process, place.form)).collect()
    };
    let mut runs = runs.iter().map(of);
    let first = runs.next().unwrap_or_default();
    runs.fold(first, |both, run| both.intersection(&run).cloned().collect())
}

/// Compares.
pub(crate) fn score(victim: &Victim, runs: &[Both], product: &Outcome) -> Score {
    let mut score = Score::default();
    for run in runs {
        compare(run, &mut score);
    }
    let stable = stable(runs);
    let found = counted(product.findings.iter().filter(|finding| !is_register(finding)).map(|finding| {
        let class = finding.rule.class;
        let place = if class.is_behind_descriptor() { class.name().to_owned() } else { kind(&finding.place) };
        let shown = (finding.secret_offset, finding.secret_length);
        (finding.checkpoint.clone(), finding.process, place, finding.rule.form, shown.0, shown.1)
    }));
    let registers = stable_registers(runs);
    let in_registers: BTreeSet<_> = product
        .findings
        .iter()
        .filter(|finding| is_register(finding))
        .map(|finding| (finding.checkpoint.clone(), finding.process, finding.rule.form))
        .collect();
    score.stable = number(stable.len() + registers.len());
    score.met = number(runs.iter().flat_map(keys).collect::<BTreeSet<_>>().len() + registers.len());
    score.most = stable.iter().map(|((.., shown), _)| *shown).max().unwrap_or(0);
    let missed: Vec<_> =
        stable.difference(&found).filter(|(key, _)| !is_within_another(key, &stable, &found)).collect();
    score.recalled = number(stable.len() - missed.len() + registers.intersection(&in_registers).count());
    for ((moment, process, place, form, offset, shown), _) in missed {
        let place = if place.is_empty() { "anonymous memory" } else { place };
        let end = offset + shown;
        score
            .wrong
            .push(format!("missed: bytes {offset}..{end} as {form:?} in {place} at {moment}, process {process}"));
    }
    for (moment, process, form) in registers.difference(&in_registers) {
        score.wrong.push(format!("missed: {form:?} in a register at {moment}, process {process}"));
    }
    score.wrong.extend(classes(product));
    score.hits =
        number(runs.iter().map(|run| &run.residue).chain([product]).map(|outcome| outcome.findings.len()).sum());
    judge(victim.expect, runs, product, &mut score);
    score.wrong.extend(unattributed(victim, product));
    score.wrong.extend(touched(victim, product));
    score
}

/// Whether the function that has to be named as a writer is named by no finding.
fn unattributed(victim: &Victim, product: &Outcome) -> Option<String> {
    let wanted = victim.writer.as_ref()?;
    let frames =
        product.findings.iter().filter_map(|finding| finding.writer.as_ref()).flat_map(|writer| &writer.frames);
    let named = frames.into_iter().any(|frame| frame.function.contains(wanted));
    let why = product.findings.iter().find_map(|finding| finding.unattributed.as_deref()).unwrap_or("another is named");
    (!named).then(|| format!("no residue is charged to {wanted}: {why}"))
}

/// Whether memory that nobody touched was read, at the last look.
fn touched(victim: &Victim, product: &Outcome) -> Option<String> {
    let last = product.observations.last().map(|look| look.coverage.never_populated).unwrap_or(0);
    (last < victim.untouched).then(|| format!("{last} bytes count as never touched, and {} have to", victim.untouched))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The same stops, the same bytes: each must find what the other finds.
fn compare(run: &Both, score: &mut Score) {
    let findings: Vec<&Finding> = run.residue.findings.iter().filter(|finding| !is_register(finding)).collect();
    let places: Vec<&Place> = run.oracle.iter().filter(in_memory).collect();
    let same = |place: &Place, finding: &Finding| {
        (place.moment.as_str(), place.process) == (finding.checkpoint.as_str(), finding.process)
            && place.address < finding.address + finding.length
            && finding.address < place.address + place.length
    };
    for place in &places {
        score.seen += 1;
        if findings.iter().any(|finding| same(place, finding)) {
            score.seen_by_both += 1;
        } else {
            let (form, at, shown) = (place.form, &place.moment, place.shown);
            score.wrong.push(format!("the oracle alone sees {shown} bytes as {form:?} in {:?} at {at}", place.place));
        }
    }
    for finding in findings {
        if !KNOWN.contains(&finding.rule.form) {
            score.beyond += 1;
            continue;
        }
        score.claimed += 1;
        // Memory that only its owner can read is beyond the oracle.
        if places.iter().any(|place| same(place, finding)) || finding.rule.class == Class::SecretMemory {
            score.confirmed += 1;
        } else {
            let (rule, at) = (finding.rule, &finding.checkpoint);
            score.wrong.push(format!("residue alone sees {rule} at {at}, {} bytes", finding.secret_length));
        }
    }
    score.wrong.extend(run.troubles.iter().map(|trouble| format!("the oracle: {trouble}")));
}

/// Whether each class fits the mapping that its finding lies in.
fn classes(outcome: &Outcome) -> impl Iterator<Item = String> {
    let fits = |finding: &&Finding| match (finding.place.as_str(), finding.rule.class) {
        (_, Class::Register | Class::SecretMemory) => true,
        ("[heap]", class) => matches!(class, Class::Heap | Class::AlternateStack),
        ("[stack]", class) => {
            use Class::{AlternateStack, Argv, Auxv, DeadStack, Environ, Stack};
            matches!(class, Stack | DeadStack | AlternateStack | Argv | Environ | Auxv)
        }
        (_, Class::Heap | Class::Argv | Class::Environ) => false,
        _ => true,
    };
    outcome.findings.iter().filter(move |finding| !fits(finding)).map(|finding| {
        let place = &finding.place;
        format!("{} is no class for {place:?}", finding.rule)
    })
}

fn judge(expect: Expect, runs: &[Both], product: &Outcome, score: &mut Score) {
    let outcomes = || runs.iter().map(|run| &run.residue).chain([product]);
    let verdicts: BTreeSet<Verdict> = outcomes().map(|outcome| outcome.verdict).collect();
    let said = || verdicts.iter().map(Verdict::to_string).collect::<Vec<_>>().join(" and ");
    let mut wrong = Vec::new();
    match expect {
        Expect::Leak => {
            if score.stable == 0 && score.beyond == 0 && score.confirmed == 0 {
                wrong.push("it must leak, and the oracle sees nothing that is stable".to_owned());
            }
            if verdicts != [Verdict::Leak].into() {
                wrong.push(format!("it must leak, and residue says {}", said()));
            }
        }
        Expect::Clean => {
            let residues = runs.iter().flat_map(|run| &run.oracle).filter(|place| place.moment != "planted").count();
            if residues > 0 {
                wrong.push(format!("it must stay clean, and the oracle sees {residues} places"));
            }
            if verdicts != [Verdict::Clean].into() {
                wrong.push(format!("it must stay clean, and residue says {}", said()));
            }
            let planted = |run: &Both| run.oracle.iter().any(|place| place.moment == "planted" && place.shown >= 30);
            if !runs.iter().all(planted) {
                wrong.push("the oracle did not see the secret alive".to_owned());
            }
        }
        Expect::Inconclusive => {
            if verdicts != [Verdict::Inconclusive].into() {
                wrong.push(format!("not all of it can be seen, and residue says {}", said()));
            }
        }
    }
    if !wrong.is_empty() {
        let reasons: BTreeSet<&String> = outcomes().flat_map(|outcome| &outcome.reasons).collect();
        wrong.extend(reasons.into_iter().map(|reason| format!("its reason: {reason}")));
        let findings = product.findings.iter().take(8);
        wrong.extend(findings.map(|finding| {
            let (rule, place, at) = (finding.rule, &finding.place, &finding.checkpoint);
            format!("it finds {rule} at {at}: {} bytes in {place}", finding.secret_length)
        }));
    }
    score.wrong.extend(wrong);
}
