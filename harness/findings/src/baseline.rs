//! A list of residues that somebody knows of and lives with, each with the reason, whose it is, and until when.
//!
//! The file is TOML or JSON, as its reader decides; this is what it holds. Pure: the day is handed in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Class, Family, Finding, Key, Length, Run, Verdict};

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
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The scenario, or the program.
    pub scenario: String,
    /// The name of what was made from the secret; empty for the secret itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub needle: String,
    /// In what kind of form.
    pub family: Family,
    /// In what kind of place.
    pub class: Class,
    /// How much of it.
    pub length: Length,
    /// The moment at which it is seen; at any if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<String>,
    /// The function that writes it, compared where the run names one; any if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
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

/// What an entry of the list names: a residue without addresses, offsets, and names of mappings and registers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Residue {
    /// What, where, and how much.
    #[serde(flatten)]
    pub key: Key,
    /// At which moment, if that is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<String>,
    /// The function that wrote it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}

/// How a run stands to a baseline. Anything but residues that are known fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Residues that are on the list and were found.
    pub known: Vec<Residue>,
    /// Residues that are not on the list.
    pub new: Vec<Residue>,
    /// On the list, and not found: the entry has to go, or it would cover the next one.
    pub stale: Vec<Residue>,
    /// On the list for longer than was agreed, with the day.
    pub expired: Vec<(Residue, String)>,
}

impl Compared {
    /// Whether every residue is known, every entry needed, and none too old.
    pub fn holds(&self) -> bool {
        self.new.is_empty() && self.stale.is_empty() && self.expired.is_empty()
    }

    /// What the run comes to with the list. One that does not hold fails like a leak. Where it holds, known residues count
    /// for nothing, and what else keeps the run from saying clean counts as ever.
    pub fn verdict(&self, run: &Run) -> Verdict {
        if !self.holds() {
            return Verdict::Leak;
        }
        let mut run = run.clone();
        let leaks = |outcome: &&mut crate::Outcome| {
            !outcome.as_expected && !outcome.control && outcome.verdict == Verdict::Leak
        };
        for outcome in run.outcomes.iter_mut().filter(leaks) {
            if outcome.reasons.is_empty() {
                outcome.as_expected = true;
            } else {
                outcome.verdict = Verdict::Inconclusive;
            }
        }
        run.judge()
    }
}

/// Why a list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaselineError {
    /// It was written for another reader.
    Schema(String),
    /// An entry says nothing in this field.
    Empty(Box<Residue>, &'static str),
    /// An entry's last day is no day.
    Day(Box<Residue>),
    /// Two entries name the same residue.
    Twice(Box<Residue>),
}

impl std::error::Error for BaselineError {}

impl std::fmt::Display for BaselineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema(found) => {
                write!(f, "the baseline has schema {found:?}, and this version reads {BASELINE_SCHEMA:?}")
            }
            Self::Empty(residue, field) => write!(f, "the baseline gives no {field} for {residue}"),
            Self::Day(residue) => {
                write!(f, "the baseline's last day for {residue} is no day: write it as 2027-12-31")
            }
            Self::Twice(residue) => write!(f, "the baseline names {residue} twice"),
        }
    }
}

impl std::fmt::Display for Residue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(moment) = &self.moment {
            write!(f, ", at {moment}")?;
        }
        match &self.writer {
            Some(writer) => write!(f, ", by {writer}"),
            None => Ok(()),
        }
    }
}

impl Residue {
    /// That of a finding.
    pub fn of(finding: &Finding) -> Self {
        let writer = finding.writer.as_ref();
        let writer = writer.and_then(|writer| writer.frames.get(writer.charged()?));
        Self {
            key: finding.key(),
            moment: Some(finding.checkpoint.clone()),
            writer: writer.map(|frame| frame.function.clone()),
        }
    }
}

impl Known {
    /// Which residue it is.
    pub fn residue(&self) -> Residue {
        let Self { scenario, needle, family, class, length, moment, writer, .. } = self;
        let key =
            Key { scenario: scenario.clone(), needle: needle.clone(), family: *family, class: *class, length: *length };
        Residue { key, moment: moment.clone(), writer: writer.clone() }
    }

    /// Whether it speaks of that one.
    fn covers(&self, found: &Residue) -> bool {
        // A run that did not ask for writers, or could not name one, is no reason to call a residue new.
        let agree =
            |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || theirs.is_none() || ours == theirs;
        let ours = self.residue();
        ours.key == found.key && agree(&ours.moment, &found.moment) && agree(&ours.writer, &found.writer)
    }

    fn check(&self) -> Result<(), BaselineError> {
        let residue = || Box::new(self.residue());
        for (field, text) in [("reason", &self.reason), ("owner", &self.owner)] {
            if text.trim().is_empty() {
                return Err(BaselineError::Empty(residue(), field));
            }
        }
        if is_day(&self.expires) { Ok(()) } else { Err(BaselineError::Day(residue())) }
    }
}

impl Baseline {
    /// Whether it can be used at all, as [`compare`](Self::compare) asks before it compares.
    ///
    /// # Errors
    ///
    /// [`BaselineError`].
    pub fn check(&self) -> Result<(), BaselineError> {
        if self.schema != BASELINE_SCHEMA {
            return Err(BaselineError::Schema(self.schema.clone()));
        }
        let mut listed = BTreeSet::new();
        for known in &self.known {
            known.check()?;
            if !listed.insert(known.residue()) {
                return Err(BaselineError::Twice(Box::new(known.residue())));
            }
        }
        Ok(())
    }

    /// Holds a run against the list. Residues of rows that had to leak, or might, count for nothing: those rows are
    /// expected to show them.
    ///
    /// An entry is stale if its residue was not found where it would have been seen: a row that was not run, in a run of some
    /// rows alone, and a row that is inconclusive show nothing about it. `today` is written as the entries' days are.
    ///
    /// # Errors
    ///
    /// [`BaselineError`] when the list itself is wrong.
    pub fn compare(&self, run: &Run, today: &str) -> Result<Compared, BaselineError> {
        self.check()?;
        let outcomes = run.outcomes.iter().filter(|outcome| !outcome.as_expected && !outcome.control);
        let found: BTreeSet<Residue> = outcomes.flat_map(|outcome| &outcome.findings).map(Residue::of).collect();
        let listed = |residue: &Residue| self.known.iter().any(|known| known.covers(residue));
        let (known, new) = found.iter().cloned().partition(listed);
        // Days are written so that their order is that of their texts.
        let (in_time, late): (Vec<&Known>, Vec<&Known>) =
            self.known.iter().partition(|known| known.expires.as_str() >= today);
        let stale = |known: &&Known| {
            !known.intermittent && shows(run, &known.scenario) && !found.iter().any(|residue| known.covers(residue))
        };
        Ok(Compared {
            known,
            new,
            stale: in_time.into_iter().filter(stale).map(Known::residue).collect(),
            expired: late.into_iter().map(|known| (known.residue(), known.expires.clone())).collect(),
        })
    }
}

/// Whether a residue of that scenario would have been seen in this run, or could never be: there is no such scenario.
fn shows(run: &Run, scenario: &str) -> bool {
    let partial = run.shard.is_some() || run.interrupted || !run.settings.filter.is_empty();
    match run.outcomes.iter().find(|outcome| outcome.scenario == scenario) {
        Some(outcome) => outcome.verdict != Verdict::Inconclusive,
        None => !partial && !run.outcomes.is_empty(),
    }
}

/// Whether a text is a day of the calendar: `YYYY-MM-DD`.
fn is_day(text: &str) -> bool {
    let digits =
        |part: &str| part.bytes().all(|digit| digit.is_ascii_digit()).then(|| part.parse::<u32>().ok()).flatten();
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
    use crate::{Form, Frame, Origin, Rule, Writer};

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
            derived: None,
            writer: None,
            freed: None,
            unattributed: None,
            repeats: None,
        }
    }

    fn written_by(function: &str, finding: Finding) -> Finding {
        let frame = |function: &str, origin| Frame {
            function: function.to_owned(),
            file: None,
            line: None,
            inlined: false,
            module: None,
            origin,
        };
        let frames = vec![frame("memcpy", Origin::Libc), frame(function, Origin::Own)];
        Finding { writer: Some(Writer { frames, ..Writer::default() }), ..finding }
    }

    fn leaks(findings: Vec<Finding>) -> Run {
        let mut row = outcome(false, Verdict::Leak, false);
        row.findings = findings;
        let mut control = outcome(true, Verdict::Leak, true);
        control.scenario = "control".to_owned();
        control.findings.push(finding(Class::Stack, 0));
        run(vec![row, control])
    }

    fn leak(classes: &[Class]) -> Run {
        leaks((1..).zip(classes).map(|(address, class)| finding(*class, address)).collect())
    }

    fn known(class: Class, expires: &str) -> Known {
        Known {
            scenario: "holder/ending".to_owned(),
            needle: String::new(),
            family: Family::Order,
            class,
            length: Length::From8,
            moment: None,
            writer: None,
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
        let run = leak(&[Class::Heap; 3]);
        let compared = baseline(vec![known(Class::Heap, TODAY)]).compare(&run, TODAY).unwrap();

        assert!(compared.holds(), "{compared:?}");
        assert_eq!(compared.known.len(), 1);
        assert_eq!(compared.verdict(&run), Verdict::Clean);
    }

    #[test]
    fn new_stale_and_expired_fail_each_in_its_own_list() {
        let run = leak(&[Class::Heap, Class::DeadStack]);
        let list = baseline(vec![known(Class::Heap, "2027-02-28"), known(Class::File, "2028-01-01")]);

        let compared = list.compare(&run, TODAY).unwrap();

        assert_eq!(compared.verdict(&run), Verdict::Leak);
        assert_eq!(compared.new, [Residue::of(&finding(Class::DeadStack, 0))]);
        assert_eq!(compared.stale, [known(Class::File, TODAY).residue()]);
        assert_eq!(compared.expired, [(known(Class::Heap, TODAY).residue(), "2027-02-28".to_owned())]);
    }

    #[test]
    fn a_moment_and_a_writer_tell_residues_apart_where_they_are_told() {
        let entry = |moment: &str, writer: &str| Known {
            moment: Some(moment.to_owned()),
            writer: Some(writer.to_owned()),
            ..known(Class::Heap, TODAY)
        };
        let new = |entry: Known, found: Finding| baseline(vec![entry]).compare(&leaks(vec![found]), TODAY).unwrap().new;
        let found = || written_by("parse", finding(Class::Heap, 1));

        assert!(new(entry("exit", "parse"), found()).is_empty());
        assert_eq!(new(entry("exit", "other"), found()), [Residue::of(&found())]);
        assert_eq!(new(entry("signal", "parse"), found()).len(), 1);
        assert!(new(entry("exit", "parse"), finding(Class::Heap, 1)).is_empty(), "no writer was asked for");
        assert!(new(known(Class::Heap, TODAY), found()).is_empty());
    }

    #[test]
    fn an_entry_that_comes_and_goes_or_whose_row_showed_nothing_is_not_stale() {
        let intermittent = Known { intermittent: true, ..known(Class::File, TODAY) };
        let elsewhere = Known { scenario: "other/row".to_owned(), ..known(Class::File, TODAY) };
        let mut part = leak(&[]);
        part.settings.filter = "holder".to_owned();
        let unseen = run(vec![outcome(false, Verdict::Inconclusive, false)]);

        let compared = baseline(vec![intermittent, elsewhere.clone()]).compare(&part, TODAY).unwrap();
        assert!(compared.holds(), "{compared:?}");
        let compared = baseline(vec![known(Class::File, TODAY)]).compare(&unseen, TODAY).unwrap();
        assert!(compared.holds(), "{compared:?}");
        assert_eq!(compared.verdict(&unseen), Verdict::Inconclusive);
        let compared = baseline(vec![elsewhere]).compare(&leak(&[]), TODAY).unwrap();
        assert_eq!(compared.stale.len(), 1);
    }

    #[test]
    fn what_a_leak_outweighed_counts_again_once_the_leak_is_known() {
        let mut run = leak(&[Class::Heap]);
        run.outcomes[0].reasons.push("exit: 4096 bytes not read".to_owned());

        let compared = baseline(vec![known(Class::Heap, TODAY)]).compare(&run, TODAY).unwrap();

        assert_eq!((compared.holds(), compared.verdict(&run)), (true, Verdict::Inconclusive));
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
