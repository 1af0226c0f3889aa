//! How small a residue would have been seen, and what chance alone would have given.

use serde::{Deserialize, Serialize};

use crate::{Form, Outcome};

/// How small a residue would have been seen, and how many hits chance alone would give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Shortest residue, in bytes of the secret.
    pub min_length: u32,
    /// Windows of that length in all forms of one canary.
    pub windows: u64,
    /// Bytes searched over the whole run.
    pub searched: u64,
    /// Hits expected by chance over the whole run, if all that was searched were random text of each form's own alphabet:
    /// the worst case, as most memory is none.
    pub expected_chance_hits: f64,
    /// The same if all that was searched were random bytes: each byte of a residue, signs between included, is hit by one in
    /// 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_in_random_bytes: Option<f64>,
    /// What chance gives in memory as it was: with 95 % confidence fewer hits than this over the whole run. From the decoys:
    /// each is made like its canary and looked for in the same bytes, so what it hits is what chance gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance_hits_below: Option<f64>,
    /// The two estimates, form by form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forms: Vec<FormChance>,
    /// Decoys planted nowhere and looked for everywhere, over the whole run.
    pub decoys: u64,
    /// Hits that those decoys really had.
    pub decoy_hits: u64,
}

// The figures are finite by construction, so equality is total.
impl Eq for Sensitivity {}

/// How many hits chance would give in one form, over the whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormChance {
    /// The form.
    pub form: Form,
    /// Shortest residues of one canary in that form.
    pub windows: u64,
    /// Hits expected if all that was searched were random bytes.
    pub in_random_bytes: f64,
    /// Hits expected if all of it were random text of the form's own alphabet.
    pub in_own_alphabet: f64,
}

impl Sensitivity {
    /// That of so many outcomes, and of what chance alone would give in each, form by form. The same outcomes in the same
    /// order give the same figures to the last bit.
    pub fn of(min_length: u32, outcomes: &[Outcome], chances: &[Vec<FormChance>]) -> Self {
        let mut forms: Vec<FormChance> = Vec::new();
        for one in chances.iter().flatten() {
            let form = one.form;
            let at = forms.iter().position(|known| known.form == form).unwrap_or_else(|| {
                forms.push(FormChance { form, windows: 0, in_random_bytes: 0.0, in_own_alphabet: 0.0 });
                forms.len() - 1
            });
            forms[at].windows = forms[at].windows.max(one.windows);
            forms[at].in_random_bytes += one.in_random_bytes;
            forms[at].in_own_alphabet += one.in_own_alphabet;
        }
        forms.sort_by_key(|one| one.form);
        let decoy_hits = outcomes.iter().map(|outcome| u64::from(outcome.controls.decoy_hits)).sum();
        let read = |outcome: &Outcome| outcome.coverage().read;
        let searched = outcomes.iter().fold(0, |sum: u64, outcome| sum.saturating_add(read(outcome)));
        // Bytes searched for a decoy, once for each decoy.
        let exposed: f64 =
            outcomes.iter().map(|outcome| f64::from(outcome.controls.decoys) * read(outcome) as f64).sum();
        let windows = |of_one: &Vec<FormChance>| of_one.iter().fold(0, |sum: u64, one| sum.saturating_add(one.windows));
        Self {
            min_length,
            windows: chances.iter().map(windows).max().unwrap_or(0),
            searched,
            expected_chance_hits: forms.iter().map(|one| one.in_own_alphabet).sum(),
            expected_in_random_bytes: Some(forms.iter().map(|one| one.in_random_bytes).sum()),
            chance_hits_below: (exposed > 0.0).then(|| most_expected(decoy_hits) * searched as f64 / exposed),
            forms,
            decoys: outcomes.iter().map(|outcome| u64::from(outcome.controls.decoys)).sum(),
            decoy_hits,
        }
    }
}

/// The largest number of hits that may be expected where so many were seen, with 95 % confidence: with that mean of a
/// Poisson distribution, so few come in one case of twenty. With none seen it is 3.0.
fn most_expected(seen: u64) -> f64 {
    let so_few = |mean: f64| {
        let mut term = (-mean).exp();
        let mut sum = term;
        for number in 1..=seen {
            term *= mean / number as f64;
            sum += term;
        }
        sum
    };
    // Hits of decoys make a row inconclusive: hundreds of them need no fine bound.
    if seen > 200 {
        return 1.2 * seen as f64 + 20.0;
    }
    let (mut low, mut high) = (0.0, 2.0 * seen as f64 + 10.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if so_few(middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::good;
    use crate::{Coverage, Looked, Observation};

    fn searched(read: u64, decoys: u32) -> Outcome {
        let mut outcome = good().remove(0);
        outcome.controls.decoys = decoys;
        outcome.observations = vec![Observation {
            checkpoint: "exit".to_owned(),
            process: 1,
            looked: Looked::Yes,
            threads: 1,
            coverage: Coverage { listed: read, read, ..Coverage::default() },
            kept: None,
            exposure: None,
            core: None,
            kept_freed: None,
            whole: 0,
            fragments: 0,
            public: 0,
            decoy_hits: 0,
        }];
        outcome
    }

    #[test]
    fn what_decoys_do_not_hit_bounds_what_chance_gives() {
        // Tables of the Poisson distribution, one-sided 95 %.
        for (seen, bound) in [(0, 2.996), (1, 4.744), (2, 6.296), (10, 16.962)] {
            assert!((most_expected(seen) - bound).abs() < 0.001, "{seen}");
        }

        let sensitivity = Sensitivity::of(6, &[searched(1 << 30, 8), searched(1 << 30, 8)], &[Vec::new(), Vec::new()]);

        assert!((sensitivity.chance_hits_below.unwrap() - 2.996 / 8.0).abs() < 0.001);
    }

    #[test]
    fn without_decoys_nothing_is_bounded() {
        assert_eq!(Sensitivity::of(6, &[searched(1 << 30, 0)], &[Vec::new()]).chance_hits_below, None);
    }

    #[test]
    fn hits_of_chance_add_up_and_windows_are_those_of_one_canary() {
        let chance = |form, windows| FormChance { form, windows, in_random_bytes: 0.5, in_own_alphabet: 2.0 };
        let chances = [vec![chance(Form::HexLower, 53), chance(Form::Raw, 27)], vec![chance(Form::Raw, 11)]];

        let sensitivity = Sensitivity::of(6, &[searched(1, 8), searched(1, 8)], &chances);

        assert_eq!(sensitivity.windows, 80);
        assert_eq!((sensitivity.expected_chance_hits, sensitivity.expected_in_random_bytes), (6.0, Some(1.5)));
        let forms: Vec<_> = sensitivity.forms.iter().map(|one| (one.form, one.windows, one.in_own_alphabet)).collect();
        assert_eq!(forms, [(Form::Raw, 27, 4.0), (Form::HexLower, 53, 2.0)]);
    }
}
