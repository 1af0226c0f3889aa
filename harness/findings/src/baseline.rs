//! A list of residues that somebody knows of and lives with, each with the reason, whose it is, and until when.
//!
//! The file is TOML or JSON, as its reader decides; this is what it holds. Pure: the day is handed in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Class, Family, Key, Length, Run};

/// Name and version of the shape.
pub const BASELINE_SCHEMA: &str = "secmem.baseline/1";

/// The list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`BASELINE_SCHEMA`].
    pub schema: String,
    /// One a kind of residue.
    #[serde(default, rename = "known", skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<Known>,
}

/// A residue that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The scenario, or the program.
    pub scenario: String,
    /// The name of the secret; empty where the run has one without a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub needle: String,
    /// In what kind of form.
    pub family: Family,
    /// In what kind of place.
    pub class: Class,
    /// How much of it.
    pub length: Length,
    /// Whether it comes and goes: then a run without it does not make the entry stale.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub intermittent: bool,
    /// Why it may stand.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it may stand: `YYYY-MM-DD`.
    pub expires: String,
}

/// How a run stands to a baseline. Anything but residues that are known fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Residues that are on the list and were found.
    pub known: Vec<Key>,
    /// Residues that are not on the list.
    pub new: Vec<Key>,
    /// On the list, and not found: the entry has to go, or it would cover the next one.
    pub stale: Vec<Key>,
    /// On the list for longer than was agreed, with the day.
    pub expired: Vec<(Key, String)>,
}

impl Compared {
    /// Whether every residue is known, every entry needed, and none too old.
    pub fn holds(&self) -> bool {
        self.new.is_empty() && self.stale.is_empty() && self.expired.is_empty()
    }
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaselineError {
    /// It was written for another reader.
    Schema(String),
    /// An entry says nothing in this field.
    Empty(Box<Key>, &'static str),
    /// An entry's last day is no day.
    Day(Box<Key>),
    /// Two entries name the same residue.
    Twice(Box<Key>),
}

impl std::error::Error for BaselineError {}

impl std::fmt::Display for BaselineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema(found) => {
                write!(f, "the baseline has schema {found:?}, and this version reads {BASELINE_SCHEMA:?}")
            }
            Self::Empty(key, field) => write!(f, "the baseline gives no {field} for {key}"),
            Self::Day(key) => write!(f, "the baseline's last day for {key} is no day: write it as 2027-12-31"),
            Self::Twice(key) => write!(f, "the baseline names {key} twice"),
        }
    }
}

impl Known {
    /// Which residue it is.
    pub fn key(&self) -> Key {
        let Self { scenario, needle, family, class, length, .. } = self;
        Key { scenario: scenario.clone(), needle: needle.clone(), family: *family, class: *class, length: *length }
    }
}

impl Baseline {
    /// Holds a run against the list. Residues of rows that had to leak, or might, count for nothing: those rows are
    /// expected to show them. An entry is stale if its residue is absent; in a run of some rows alone, those rows' entries are.
    ///
    /// `today` is written as the entries' days are.
    ///
    /// # Errors
    ///
    /// [`BaselineError`] when the list itself is wrong.
    pub fn compare(&self, run: &Run, today: &str) -> Result<Compared, BaselineError> {
        if self.schema != BASELINE_SCHEMA {
            return Err(BaselineError::Schema(self.schema.clone()));
        }
        let mut listed = BTreeSet::new();
        for known in &self.known {
            let key = || Box::new(known.key());
            for (field, text) in [("reason", &known.reason), ("owner", &known.owner)] {
                if text.trim().is_empty() {
                    return Err(BaselineError::Empty(key(), field));
                }
            }
            if !is_day(&known.expires) {
                return Err(BaselineError::Day(key()));
            }
            if !listed.insert(known.key()) {
                return Err(BaselineError::Twice(key()));
            }
        }
        let outcomes = run.outcomes.iter().filter(|outcome| !outcome.as_expected && !outcome.control);
        let found: BTreeSet<Key> = outcomes.flat_map(|outcome| &outcome.findings).map(crate::Finding::key).collect();
        let (known, new) = found.iter().cloned().partition(|key| listed.contains(key));
        // Days are written so that their order is that of their texts.
        let (in_time, late): (Vec<&Known>, Vec<&Known>) =
            self.known.iter().partition(|known| known.expires.as_str() >= today);
        let partial = run.shard.is_some() || run.interrupted || !run.settings.filter.is_empty();
        let ran = |scenario: &str| !partial || run.outcomes.iter().any(|outcome| outcome.scenario == scenario);
        let stale = |known: &&Known| !known.intermittent && ran(&known.scenario) && !found.contains(&known.key());
        Ok(Compared {
            known,
            new,
            stale: in_time.into_iter().filter(stale).map(Known::key).collect(),
            expired: late.into_iter().map(|known| (known.key(), known.expires.clone())).collect(),
        })
    }
}

/// Whether a text is a day of the calendar: `YYYY-MM-DD`.
fn is_day(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten();
    let parts: Vec<_> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    if [year.len(), month.len(), day.len()] != [4, 2, 2] {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (digits(year), digits(month), digits(day)) else { return false };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{outcome, run};
    use crate::{Finding, Form, Rule, Verdict};

    fn finding(class: Class, address: u64) -> Finding {
        Finding {
            rule: Rule { class, form: Form::Swap32 },
            scenario: "holder/ending".to_owned(),
            checkpoint: "exit".to_owned(),
            process: 1,
            place: "[heap]".to_owned(),
            permissions: "rw-p".to_owned(),
            address,
            length: 9,
            secret_offset: 3,
            secret_length: 9,
            whole: false,
            fingerprint: format!("{address:x}"),
            needle: String::new(),
            writer: None,
            unattributed: None,
            repeats: None,
        }
    }

    fn leak(classes: &[Class]) -> Run {
        let mut row = outcome(false, Verdict::Leak, false);
        row.findings = (1..).zip(classes).map(|(address, class)| finding(*class, address)).collect();
        let mut control = outcome(true, Verdict::Leak, true);
        control.findings.push(finding(Class::Stack, 0));
        run(vec![row, control])
    }

    fn known(class: Class, expires: &str) -> Known {
        Known {
            scenario: "holder/ending".to_owned(),
            needle: String::new(),
            family: Family::Order,
            class,
            length: Length::From8,
            intermittent: false,
            reason: "the allocator keeps it".to_owned(),
            owner: "heap team".to_owned(),
            expires: expires.to_owned(),
        }
    }

    fn baseline(known: Vec<Known>) -> Baseline {
        Baseline { schema: BASELINE_SCHEMA.to_owned(), known }
    }

    const TODAY: &str = "2027-03-01";

    #[test]
    fn a_known_residue_holds_on_its_last_day_wherever_it_lies() {
        let compared = baseline(vec![known(Class::Heap, TODAY)]).compare(&leak(&[Class::Heap; 3]), TODAY).unwrap();

        assert!(compared.holds(), "{compared:?}");
        assert_eq!(compared.known.len(), 1);
    }

    #[test]
    fn new_stale_and_expired_fail_each_in_its_own_list() {
        let list = baseline(vec![known(Class::Heap, "2027-02-28"), known(Class::File, "2028-01-01")]);

        let compared = list.compare(&leak(&[Class::Heap, Class::DeadStack]), TODAY).unwrap();

        assert!(!compared.holds());
        assert_eq!(compared.new, [known(Class::DeadStack, TODAY).key()]);
        assert_eq!(compared.stale, [known(Class::File, TODAY).key()]);
        assert_eq!(compared.expired, [(known(Class::Heap, TODAY).key(), "2027-02-28".to_owned())]);
    }

    #[test]
    fn an_entry_that_comes_and_goes_or_whose_row_was_not_run_is_not_stale() {
        let intermittent = Known { intermittent: true, ..known(Class::File, TODAY) };
        let elsewhere = Known { scenario: "other/row".to_owned(), ..known(Class::File, TODAY) };
        let mut part = leak(&[]);
        part.settings.filter = "holder".to_owned();

        let compared = baseline(vec![intermittent, elsewhere.clone()]).compare(&part, TODAY).unwrap();
        assert!(compared.holds(), "{compared:?}");
        let compared = baseline(vec![elsewhere]).compare(&leak(&[]), TODAY).unwrap();
        assert_eq!(compared.stale.len(), 1);
    }

    #[test]
    fn an_entry_without_a_reason_an_owner_or_a_day_is_refused() {
        let compare = |known: Vec<Known>| baseline(known).compare(&leak(&[]), TODAY).unwrap_err();
        let good = || known(Class::Heap, TODAY);

        let other = Baseline { schema: "secmem.baseline/2".to_owned(), known: Vec::new() };
        assert!(matches!(other.compare(&leak(&[]), TODAY), Err(BaselineError::Schema(_))));
        assert!(matches!(compare(vec![Known { reason: " ".into(), ..good() }]), BaselineError::Empty(_, "reason")));
        assert!(matches!(compare(vec![Known { owner: String::new(), ..good() }]), BaselineError::Empty(_, "owner")));
        assert!(matches!(compare(vec![good(), good()]), BaselineError::Twice(_)));
        for day in ["", "soon", "2027-2-1", "2027-02-29", "2027-13-01", "2027-04-31", "+027-01-01", "2027-01-00"] {
            assert!(matches!(compare(vec![known(Class::Heap, day)]), BaselineError::Day(_)), "{day}");
        }
    }
}
