//! The figures, warnings and next steps that every format prints, computed once.
//!
//! A [`Summary`] only counts and words what a [`Run`] holds. It judges nothing new, except that it never repeats a
//! verdict that is milder than the rows support.

use findings::{Class, Coverage, Finding, Looked, Outcome, Run, Verdict};

use crate::words::{chance, count, grouped, place, visible};

/// Holders whose names begin so keep the secret in the library under audit.
const SUBJECT: &str = "secmem";

/// A run, counted.
pub(crate) struct Summary<'a> {
    pub(crate) run: &'a Run,
    /// The stricter of the run's own verdict and that of its rows.
    pub(crate) verdict: Verdict,
    /// What a reader must know before any figure; empty for an ordinary run.
    pub(crate) notices: Vec<String>,
    pub(crate) rows: Vec<Row<'a>>,
    /// Findings over all rows.
    pub(crate) findings: usize,
    /// Findings in rows that had to leak or might.
    pub(crate) findings_as_expected: usize,
    /// Bytes over all looks.
    pub(crate) coverage: Coverage,
}

/// One outcome with its numbers in the report.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// Counts from 1, in the order of the run.
    pub(crate) number: usize,
    /// The number of its first finding; findings count from 1 over the run.
    pub(crate) first_finding: usize,
    pub(crate) outcome: &'a Outcome,
}

/// How an outcome stands to what its row expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As expected.
    Expected,
    /// A leaky control that was found, which is what it is for.
    Found,
    /// Anything else.
    Unexpected,
}

/// One line of the overview.
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    /// The rest of the sentence; may be empty.
    pub(crate) note: String,
    /// Whether the reader should stop here.
    pub(crate) alarm: bool,
}

/// One line of the account of bytes.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Whether it is a part of the line above it.
    pub(crate) within: bool,
    pub(crate) note: &'static str,
}

impl<'a> Row<'a> {
    pub(crate) fn standing(&self) -> Standing {
        match self.outcome {
            Outcome { as_expected: false, .. } => Standing::Unexpected,
            Outcome { control: true, .. } => Standing::Found,
            _ => Standing::Expected,
        }
    }

    /// The findings with their numbers.
    pub(crate) fn findings(&self) -> impl Iterator<Item = (usize, &'a Finding)> + use<'a> {
        (self.first_finding..).zip(&self.outcome.findings)
    }

    fn is_subject(&self) -> bool {
        !self.outcome.control && self.outcome.holder.starts_with(SUBJECT)
    }

    /// A row of the library that has to leak: what it cannot do, kept in sight.
    fn is_limit(&self) -> bool {
        self.outcome.control && self.outcome.holder.starts_with(SUBJECT)
    }
}

impl Standing {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Expected => "as expected",
            Self::Found => "found, as it must be",
            Self::Unexpected => "not as expected",
        }
    }

    /// A sign beside the word, so that nothing rests on colour.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::Expected | Self::Found => "✓",
            Self::Unexpected => "✗",
        }
    }
}

impl<'a> Summary<'a> {
    pub(crate) fn of(run: &'a Run) -> Self {
        let mut next_finding = 1;
        let rows: Vec<_> = (1..)
            .zip(&run.outcomes)
            .map(|(number, outcome)| {
                let first_finding = next_finding;
                next_finding += outcome.findings.len();
                Row { number, first_finding, outcome }
            })
            .collect();
        let expected = rows.iter().filter(|row| row.standing() != Standing::Unexpected);
        let mut summary = Self {
            run,
            verdict: stricter(run.verdict, run.judge()),
            notices: Vec::new(),
            findings: next_finding - 1,
            findings_as_expected: expected.map(|row| row.outcome.findings.len()).sum(),
            coverage: run.coverage(),
            rows,
        };
        summary.notices = summary.notices();
        summary
    }

    /// Rows that are not as expected.
    pub(crate) fn unexpected(&self) -> impl Iterator<Item = &Row<'a>> {
        self.rows.iter().filter(|row| row.standing() == Standing::Unexpected)
    }

    /// What the verdict says, in one sentence.
    pub(crate) fn meaning(&self) -> String {
        let unexpected = self.unexpected().count();
        match self.verdict {
            Verdict::Clean if self.rows.iter().any(|row| row.outcome.control) => {
                "Every row showed what it had to show, and every leaky control was found.".to_owned()
            }
            Verdict::Clean => "Every row showed what it had to show.".to_owned(),
            Verdict::Leak => {
                let leaks = self.unexpected().filter(|row| row.is_leak()).count();
                match (leaks, unexpected - leaks) {
                    (0, _) => "The run is marked as a leak, though none of its rows shows one.".to_owned(),
                    (leaks, 0) => format!("A residue stands where none may be, in {}.", count(leaks, "row")),
                    (leaks, others) => format!(
                        "A residue stands where none may be, in {}; {} did not show what had to be shown.",
                        count(leaks, "row"),
                        count(others, "other row")
                    ),
                }
            }
            Verdict::Inconclusive if self.rows.is_empty() => "No row was run, so nothing can be said.".to_owned(),
            Verdict::Inconclusive if unexpected > 0 => {
                format!("Nothing can be said: {} did not show what had to be shown.", count(unexpected, "row"))
            }
            Verdict::Inconclusive if self.run.interrupted => {
                "The run was stopped before its end, so nothing can be said about the whole.".to_owned()
            }
            Verdict::Inconclusive => "Nothing can be said about the whole, for the reason below.".to_owned(),
        }
    }

    /// What the exit code of the verdict means, next to the others.
    pub(crate) fn exit_code(&self) -> String {
        let name = |verdict: Verdict| format!("{} {verdict}", verdict.exit_code());
        let all = [Verdict::Clean, Verdict::Leak, Verdict::Inconclusive].map(name).join(", ");
        format!("exit code {} ({all})", self.verdict.exit_code())
    }

    fn notices(&self) -> Vec<String> {
        let run = self.run;
        let mut notices = Vec::new();
        if run.interrupted {
            notices
                .push("Interrupted: rows are missing, and what is listed here is not the whole catalogue.".to_owned());
        }
        if let Some(shard) = &run.shard {
            notices.push(format!(
                "Shard {} of {}: the other rows are in other files; `residue merge` puts them together.",
                shard.number, shard.of
            ));
        }
        if run.settings.fixed_layout {
            notices.push(
                "Fixed layout: memory lay at the same addresses in every run, and random numbers were the same, which is not \
                 how users run it."
                    .to_owned(),
            );
        }
        if self.rows.is_empty() {
            notices.push(
                "Empty: no row was run. Nothing was looked at, and nothing that was not looked at is clean.".to_owned(),
            );
        }
        if self.verdict != run.verdict {
            notices.push(format!("The file says {}, but its rows say {}; read it so.", run.verdict, self.verdict));
        }
        for ability in &run.settings.required {
            let missing = |fact: &&findings::Fact| fact.name == *ability && !fact.present;
            if let Some(fact) = run.machine.facts.iter().find(missing) {
                notices.push(format!("Required, but not there: {} ({}).", visible(ability), visible(&fact.detail)));
            }
        }
        if let Some(ablation) = &run.build.ablation {
            notices.push(format!(
                "The subject was built with the ablation {}: a protection was taken out on purpose.",
                visible(ablation)
            ));
        }
        if !run.settings.filter.is_empty() {
            notices.push(format!("Filtered: only rows whose names hold {:?} were run.", run.settings.filter));
        }
        if !self.rows.is_empty() && !self.rows.iter().any(|row| row.outcome.control) {
            notices.push(
                "No leaky control was run: that a residue would have been found rests on the copies seen at planted alone."
                    .to_owned(),
            );
        }
        if self.decoy_hits() > 0 {
            notices.push("Decoys were hit: something in this run resembles what was never planted.".to_owned());
        }
        for row in &self.rows {
            let odd = |look: &&findings::Observation| {
                !look.coverage.adds_up() || look.kept.as_ref().is_some_and(|kept| !kept.bytes.adds_up())
            };
            for look in row.outcome.observations.iter().filter(odd) {
                notices.push(format!(
                    "The bytes of {} at {} do not add up.",
                    visible(&row.outcome.scenario),
                    visible(&look.checkpoint)
                ));
            }
        }
        notices
    }

    /// The larger of two counts of the same thing, so that neither hides the other.
    fn decoy_hits(&self) -> u64 {
        let in_rows = self.rows.iter().map(|row| u64::from(row.outcome.controls.decoy_hits)).sum();
        self.run.sensitivity.decoy_hits.max(in_rows)
    }

    /// The overview. The label `findings` is in every run.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let rows = self.rows.len();
        let unexpected = self.unexpected().count();
        let share = |part: usize, whole: usize| format!("{} of {}", grouped(part as u64), grouped(whole as u64));
        let mut figures = vec![Figure {
            label: "rows",
            value: share(rows - unexpected, rows),
            note: "as expected".to_owned(),
            alarm: unexpected > 0 || rows == 0,
        }];

        let controls = self.rows.iter().filter(|row| row.outcome.control);
        let found = controls.clone().filter(|row| row.standing() == Standing::Found).count();
        let controls = controls.count();
        figures.push(Figure {
            label: "leaky controls",
            value: share(found, controls),
            note: "found, as they must be".to_owned(),
            alarm: found < controls || controls == 0,
        });

        let subject: Vec<_> = self.rows.iter().filter(|row| row.is_subject()).collect();
        if !subject.is_empty() {
            let clean: Vec<_> = subject.iter().filter(|row| row.outcome.verdict == Verdict::Clean).collect();
            let limits = self.rows.iter().filter(|row| row.is_limit()).count();
            let shielded = clean.iter().filter(|row| row.outcome.expectation == "clean (shielded)").count();
            figures.push(Figure {
                label: "secmem rows",
                value: share(clean.len(), subject.len()),
                note: {
                    let mut note = "clean".to_owned();
                    if shielded > 0 {
                        note += &format!(", {} of them shielded: unreadable, not wiped", grouped(shielded as u64));
                    }
                    if limits > 0 {
                        note += &format!("; {} more leak, as their limit is known", grouped(limits as u64));
                    }
                    note
                },
                alarm: clean.len() < subject.len(),
            });
        }

        let inconclusive = self.rows.iter().filter(|row| row.outcome.verdict == Verdict::Inconclusive).count();
        figures.push(Figure {
            label: "inconclusive",
            value: grouped(inconclusive as u64),
            note: if inconclusive == 1 { "row" } else { "rows" }.to_owned(),
            alarm: inconclusive > 0,
        });
        let elsewhere = self.findings - self.findings_as_expected;
        figures.push(Figure {
            label: "findings",
            value: grouped(self.findings as u64),
            note: format!(
                "{} in rows that had to leak or might, {} where none may be",
                grouped(self.findings_as_expected as u64),
                grouped(elsewhere as u64)
            ),
            alarm: elsewhere > 0,
        });

        let [mut taken, mut missed, mut absent] = [0; 3];
        for look in self.rows.iter().flat_map(|row| &row.outcome.observations) {
            match look.looked {
                Looked::Yes => taken += 1,
                Looked::Missed(_) => missed += 1,
                Looked::NotLookedAt(_) => absent += 1,
            }
        }
        figures.push(Figure {
            label: "looks",
            value: grouped(taken),
            note: format!("taken, {} missed, {} not possible on this machine", grouped(missed), grouped(absent)),
            alarm: missed > 0,
        });
        let refused = self.coverage.refused_bytes();
        figures.push(Figure {
            label: "bytes",
            value: grouped(self.coverage.read),
            note: format!("read and searched, {} refused", grouped(refused)),
            alarm: refused > 0,
        });
        let hits = self.decoy_hits();
        figures.push(Figure {
            label: "decoys",
            value: grouped(self.run.sensitivity.decoys),
            note: format!("looked for at every look and planted nowhere, {}", count(hits as usize, "hit")),
            alarm: hits > 0,
        });
        figures.push(Figure {
            label: "sensitivity",
            value: count(self.run.sensitivity.min_length as usize, "byte"),
            note: match self.run.sensitivity.chance_hits_below {
                Some(bound) => format!(
                    "of the secret, at any offset; below {} hits by chance, by what the decoys hit (95 %)",
                    chance(bound)
                ),
                None => format!(
                    "of the secret, at any offset; {} hits by chance if all memory were text like the secret",
                    chance(self.run.sensitivity.expected_chance_hits)
                ),
            },
            alarm: false,
        });
        figures
    }

    /// What is said of chance: measures with their values.
    pub(crate) fn chances(&self) -> Vec<(&'static str, String)> {
        let sensitivity = &self.run.sensitivity;
        let known = [
            ("hits by chance, at most (95 %), by what the decoys hit", sensitivity.chance_hits_below),
            ("hits expected by chance, if memory were random bytes", sensitivity.expected_in_random_bytes),
            ("the same, if all of it were text like the secret", Some(sensitivity.expected_chance_hits)),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, chance(value?)))).collect()
    }

    /// The account of all bytes, top line first; the lines that are not `within` another add up to it.
    pub(crate) fn bytes(&self) -> Vec<Part> {
        parts(&self.coverage)
    }

    /// Whether any look went behind descriptors.
    pub(crate) fn looked_behind_descriptors(&self) -> bool {
        self.run.outcomes.iter().flat_map(|outcome| &outcome.observations).any(|look| look.kept.is_some())
    }

    /// Findings in that kind of place: in rows as expected, and in all others.
    pub(crate) fn found_in(&self, class: Class) -> [u64; 2] {
        let mut found = [0; 2];
        for row in &self.rows {
            let here = row.outcome.findings.iter().filter(|finding| finding.rule.class == class).count();
            found[usize::from(row.standing() == Standing::Unexpected)] += here as u64;
        }
        found
    }

    /// Holders, endings and the rows where they meet, all in the order of the run.
    pub(crate) fn matrix(&self) -> Matrix<'_, 'a> {
        let mut matrix = Matrix { holders: Vec::new(), endings: Vec::new(), rows: &self.rows };
        for row in &self.rows {
            let Outcome { holder, ending, .. } = row.outcome;
            if !matrix.holders.contains(&holder.as_str()) {
                matrix.holders.push(holder);
            }
            if !matrix.endings.contains(&ending.as_str()) {
                matrix.endings.push(ending);
            }
        }
        matrix
    }

    /// Where a reader should look next, most urgent first.
    pub(crate) fn next_steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if self.run.interrupted || self.rows.is_empty() {
            steps.push("Let the run reach its end: a row that was not run says nothing.".to_owned());
        }
        let silent = self.unexpected().find(|row| row.outcome.control);
        if let Some(row) = silent {
            steps.push(format!(
                "Start with the control {}: its leak is planted and did not show as it must. Until it does, trust no clean row.",
                visible(&row.outcome.scenario)
            ));
        }
        if let Some(row) = self.unexpected().find(|row| row.is_leak()) {
            let mut step = format!("Look at the leak of {}", visible(&row.outcome.scenario));
            if let Some((number, finding)) = row.findings().next() {
                step += &format!(" (finding {number}: {} at {})", place(finding), visible(&finding.checkpoint));
                if let Some(frame) = finding.writer.as_ref().and_then(|writer| writer.frames.get(writer.charged()?)) {
                    step += &format!(", written by {}", visible(&frame.function));
                }
            }
            steps.push(step + ".");
        }
        let undecided =
            self.unexpected().find(|row| !row.outcome.control && row.outcome.verdict == Verdict::Inconclusive);
        if let Some(row) = undecided {
            steps.push(format!("See why {} could not be decided.", visible(&row.outcome.scenario)));
        }
        for fact in self.run.machine.facts.iter().filter(|fact| !fact.present) {
            steps.push(format!("This machine lacks {}: {}.", visible(&fact.name), visible(&fact.detail)));
        }
        if self.verdict == Verdict::Clean {
            steps.push(
                "Read what was not shown before relying on the verdict; it holds for this build alone.".to_owned(),
            );
        }
        steps
    }
}

impl Row<'_> {
    /// Whether it leaked where it must not.
    pub(crate) fn is_leak(&self) -> bool {
        self.outcome.verdict == Verdict::Leak && !self.outcome.control
    }
}

/// The account of bytes of any coverage.
fn parts(coverage: &Coverage) -> Vec<Part> {
    let part = |name: &str, bytes, within, note| Part { name: name.to_owned(), bytes, within, note };
    let mut parts = vec![
        part("listed", coverage.listed, false, "in every mapping that the kernel lists"),
        part("read", coverage.read, false, "and searched"),
        part("injected", coverage.injected, true, "by a write(2) that the target was made to run"),
        part("never populated", coverage.never_populated, false, "no page behind the address, nothing to read"),
        part("shielded", coverage.shielded, false, "memfd_secret, refused to every outside reader"),
        part("refused", coverage.refused_bytes(), false, "could not be read; never counts as clean"),
    ];
    if coverage.verified > 0 {
        parts.insert(2, part("seen twice", coverage.verified, true, "equal both times: nobody wrote it meanwhile"));
    }
    let shares = |shares: &[findings::Share]| -> Vec<Part> {
        shares.iter().map(|share| part(&visible(&share.why), share.bytes, true, "")).collect()
    };
    parts.extend(shares(&coverage.refused));
    parts.push(part("excluded", coverage.excluded_bytes(), false, "on the closed list of exclusions"));
    parts.extend(shares(&coverage.excluded));
    parts
}

/// Of two verdicts the one that says less for the subject.
fn stricter(one: Verdict, other: Verdict) -> Verdict {
    let severity = |verdict| match verdict {
        Verdict::Clean => 0,
        Verdict::Inconclusive => 1,
        Verdict::Leak => 2,
    };
    if severity(one) >= severity(other) { one } else { other }
}

/// Which holder met which ending.
pub(crate) struct Matrix<'s, 'a> {
    pub(crate) holders: Vec<&'a str>,
    pub(crate) endings: Vec<&'a str>,
    rows: &'s [Row<'a>],
}

impl<'s, 'a> Matrix<'s, 'a> {
    /// The rows of one cell: none or one in an ordinary run, but a second one must not hide the first.
    pub(crate) fn cell(&self, holder: &str, ending: &str) -> impl Iterator<Item = &'s Row<'a>> {
        self.rows.iter().filter(move |row| row.outcome.holder == holder && row.outcome.ending == ending)
    }

    /// Whether there is anything to compare.
    pub(crate) fn is_worth_showing(&self) -> bool {
        self.rows.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn figure(summary: &Summary<'_>, label: &str) -> (String, bool) {
        let figure =
            summary.figures().into_iter().find(|figure| figure.label == label).expect("a figure of that label");
        (format!("{} {}", figure.value, figure.note), figure.alarm)
    }

    #[test]
    fn the_sample_is_counted_right() {
        let run = sample::run();

        let summary = Summary::of(&run);

        assert_eq!(figure(&summary, "rows"), ("7 of 10 as expected".to_owned(), true));
        assert_eq!(figure(&summary, "leaky controls"), ("3 of 4 found, as they must be".to_owned(), true));
        assert_eq!(
            figure(&summary, "secmem rows"),
            ("2 of 3 clean, 1 of them shielded: unreadable, not wiped".to_owned(), true)
        );
        assert_eq!(figure(&summary, "inconclusive").0, "2 rows");
        assert_eq!(figure(&summary, "findings").0, "10 7 in rows that had to leak or might, 3 where none may be");
    }

    #[test]
    fn a_clean_run_raises_no_alarm_and_no_notice() {
        let run = sample::clean();

        let summary = Summary::of(&run);

        assert_eq!(summary.verdict, Verdict::Clean);
        assert_eq!(summary.notices, [""; 0]);
        assert!(summary.figures().iter().all(|figure| !figure.alarm));
    }

    #[test]
    fn a_file_that_claims_more_than_its_rows_is_not_believed() {
        let run = Run { verdict: Verdict::Clean, ..sample::run() };

        let summary = Summary::of(&run);

        assert_eq!(summary.verdict, Verdict::Leak);
        assert!(summary.notices.contains(&"The file says clean, but its rows say leak; read it so.".to_owned()));
    }

    #[test]
    fn a_verdict_stricter_than_the_rows_stands() {
        let run = Run { verdict: Verdict::Inconclusive, ..sample::clean() };

        assert_eq!(Summary::of(&run).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn whatever_narrows_a_run_is_said_before_its_figures() {
        let mut run = sample::clean();
        run.outcomes.retain(|outcome| !outcome.control);
        run.build.ablation = Some("wipe".to_owned());
        run.settings.filter = "secmem".to_owned();
        run.settings.required = vec!["ptrace".to_owned(), "lock limit".to_owned()];
        run.verdict = run.judge();

        let notices = Summary::of(&run).notices;

        assert_eq!(
            notices,
            [
                "Required, but not there: lock limit (64 KiB may be locked, 8,192 KiB were asked for).",
                "The subject was built with the ablation wipe: a protection was taken out on purpose.",
                "Filtered: only rows whose names hold \"secmem\" were run.",
                "No leaky control was run: that a residue would have been found rests on the copies seen at planted alone.",
            ]
        );
    }

    #[test]
    fn bytes_that_do_not_add_up_are_named() {
        let mut run = sample::clean();
        run.outcomes[0].observations[1].coverage.read -= 1;

        let notices = Summary::of(&run).notices;

        assert_eq!(notices, ["The bytes of secmem-memfd/exit at wiped do not add up."]);
    }

    #[test]
    fn the_parts_that_are_not_within_another_add_up_to_the_listed_bytes() {
        let run = sample::run();

        let parts = Summary::of(&run).bytes();

        let whole = parts[0].bytes;
        let sum: u64 = parts[1..].iter().filter(|part| !part.within).map(|part| part.bytes).sum();
        assert_eq!(sum, whole);
    }

    #[test]
    fn decoys_that_were_hit_are_counted_wherever_they_are_written_down() {
        let mut run = sample::clean();
        run.outcomes[0].controls.decoy_hits = 2;

        let summary = Summary::of(&run);

        assert!(figure(&summary, "decoys").1);
        assert!(summary.notices.iter().any(|notice| notice.starts_with("Decoys were hit")));
    }

    #[test]
    fn two_rows_in_one_cell_are_both_kept() {
        let mut run = sample::clean();
        run.outcomes.push(run.outcomes[0].clone());

        let summary = Summary::of(&run);

        assert_eq!(summary.matrix().cell("secmem-memfd", "exit").count(), 2);
    }
}
