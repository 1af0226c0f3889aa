//! Several equal runs as one outcome: what was seen in some of them alone is told apart.

use std::collections::BTreeMap;

use findings::{Controls, Finding, Outcome, Repeats, Verdict};

/// One outcome of several runs: a residue counts once, with the number of runs in which it was seen.
pub(crate) fn merge(outcomes: Vec<Outcome>) -> Option<Outcome> {
    let of = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
    if of < 2 {
        return outcomes.into_iter().next();
    }
    // The same residue may stand in several places of one run: the second of a name is another than the first.
    let mut all: BTreeMap<(String, u32), (Finding, u32)> = BTreeMap::new();
    for outcome in &outcomes {
        let mut met: BTreeMap<&str, u32> = BTreeMap::new();
        for finding in &outcome.findings {
            let number = met.entry(&finding.fingerprint).or_default();
            *number += 1;
            let entry = all.entry((finding.fingerprint.clone(), *number)).or_insert_with(|| (finding.clone(), 0));
            entry.1 += 1;
        }
    }
    let mut merged = outcomes.first()?.clone();
    let mut findings: Vec<Finding> =
        all.into_values().map(|(finding, seen)| Finding { repeats: Some(Repeats { seen, of }), ..finding }).collect();
    findings.sort_by(|one, other| {
        let key = |finding: &Finding| (finding.checkpoint.clone(), finding.process, finding.address);
        key(one).cmp(&key(other))
    });
    merged.as_expected = outcomes.iter().all(|outcome| outcome.as_expected);
    // What was not as expected in any run outweighs what was in the others.
    let counted = |outcome: &&Outcome| merged.as_expected || !outcome.as_expected;
    let any = |verdict| outcomes.iter().filter(counted).any(|outcome| outcome.verdict == verdict);
    merged.verdict = match (any(Verdict::Leak), any(Verdict::Inconclusive)) {
        (true, _) => Verdict::Leak,
        (false, true) => Verdict::Inconclusive,
        (false, false) => Verdict::Clean,
    };
    merged.findings = findings;
    merged.reasons = (1..)
        .zip(&outcomes)
        .flat_map(|(number, outcome)| outcome.reasons.iter().map(move |why| format!("run {number}: {why}")))
        .collect();
    merged.observations = outcomes.iter().flat_map(|outcome| outcome.observations.clone()).collect();
    merged.controls = Controls {
        // Every run needs its own control: the weakest counts.
        planted: outcomes.iter().map(|outcome| outcome.controls.planted).min().unwrap_or(0),
        decoys: merged.controls.decoys,
        decoy_hits: outcomes.iter().map(|outcome| outcome.controls.decoy_hits).sum(),
    };
    let mut endings: Vec<String> = outcomes.into_iter().map(|outcome| outcome.ended).collect();
    endings.sort();
    endings.dedup();
    merged.ended = endings.join(" or ");
    Some(merged)
}

#[cfg(test)]
mod tests {
    use findings::{Class, Form, Rule};

    use super::*;

    fn finding(fingerprint: &str) -> Finding {
        Finding {
            rule: Rule { class: Class::Heap, form: Form::Raw },
            scenario: "row".to_owned(),
            checkpoint: "exit".to_owned(),
            process: 1,
            place: String::new(),
            permissions: String::new(),
            address: 0,
            length: 8,
            secret_offset: 0,
            secret_length: 8,
            whole: false,
            fingerprint: fingerprint.to_owned(),
            derived: None,
            writer: None,
            freed: None,
            unattributed: None,
            repeats: None,
        }
    }

    fn outcome(verdict: Verdict, as_expected: bool, fingerprints: &[&str]) -> Outcome {
        Outcome {
            scenario: "row".to_owned(),
            holder: "row".to_owned(),
            ending: "row".to_owned(),
            expectation: "either (a test)".to_owned(),
            control: false,
            verdict,
            as_expected,
            reasons: Vec::new(),
            ended: "exit 0".to_owned(),
            observations: Vec::new(),
            controls: Controls { planted: 1, decoys: 8, decoy_hits: 0 },
            findings: fingerprints.iter().map(|fingerprint| finding(fingerprint)).collect(),
            shows: Vec::new(),
        }
    }

    #[test]
    fn a_residue_says_in_how_many_runs_it_was() {
        let run = |fingerprints| outcome(Verdict::Leak, true, fingerprints);

        let merged = merge(vec![run(&["a", "b"]), run(&["a"]), run(&["b", "a", "a"])]).unwrap();

        let seen = |name: &str| {
            let named = merged.findings.iter().filter(|finding| finding.fingerprint == name);
            named.map(|finding| finding.repeats.unwrap().seen).collect::<Vec<_>>()
        };
        assert_eq!((seen("a"), seen("b")), (vec![3, 1], vec![2]));
        assert!(merged.findings.iter().any(|finding| !finding.is_intermittent()));
    }

    #[test]
    fn a_run_that_went_wrong_is_not_covered_by_those_that_went_well() {
        let inconclusive = outcome(Verdict::Inconclusive, false, &[]);
        let leak = outcome(Verdict::Leak, true, &["a"]);
        let clean = outcome(Verdict::Clean, true, &[]);

        let merged = merge(vec![leak.clone(), inconclusive]).unwrap();
        assert_eq!((merged.verdict, merged.as_expected), (Verdict::Inconclusive, false));
        let merged = merge(vec![clean, leak]).unwrap();
        assert_eq!((merged.verdict, merged.as_expected), (Verdict::Leak, true));
    }
}
