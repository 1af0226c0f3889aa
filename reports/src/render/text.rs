//! The report for a terminal: at most [`TEXT_WIDTH`] columns, the verdict first, and only what needs attention.
//!
//! Findings that a row had to have are counted and not listed, so a clean audit of a hundred rows fits a screen.
//! Colour repeats what a word or a sign already says.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use findings::{Finding, Run, Verdict};

use crate::controls::{self, Extent};
use crate::summary::{Row, Standing, Summary};
use crate::words::{self, address, count, extent, grouped, percent, place, secret_bytes, visible, writer_in_short};
use crate::{Format, TEXT_WIDTH};

/// Findings that a row may list before the rest are only counted.
const LISTED: usize = 8;

const BOLD: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const UNSURE: Style = AnsiColor::Yellow.on_default().bold();

/// The style of a verdict on a whole run.
const fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Clean => GOOD.bold(),
        Verdict::Leak => BAD,
        Verdict::Inconclusive => UNSURE,
    }
}

pub(crate) fn render(run: &Run, colour: bool) -> String {
    let summary = Summary::of(run);
    let mut page = Page { text: String::new(), colour };
    page.head(&summary);
    page.figures(&summary);
    page.unexpected(&summary);
    page.matrix(&summary);
    page.bytes(&summary);
    page.controls(&summary);
    page.not_shown(&summary);
    page.next(&summary);
    page.text
}

/// The verdict, every finding, every reason, and how much was searched.
pub(crate) fn brief(run: &Run, colour: bool) -> String {
    let summary = Summary::of(run);
    let mut page = Page { text: String::new(), colour };
    page.line(style(summary.verdict), &format!("{}  {}", summary.verdict.name().to_uppercase(), sentence(&summary)));
    for row in &summary.rows {
        for reason in &row.outcome.reasons {
            page.wrapped(Style::new(), "  why: ", &visible(reason));
        }
        for (number, finding) in row.findings() {
            page.finding(number, finding);
        }
        let looks = row.outcome.observations.len();
        let text = format!(
            "{} ended with {}; {}, {} searched, {} refused; seen alive {}; {} decoys, {}",
            visible(&row.outcome.scenario),
            visible(&row.outcome.ended),
            count(looks, "look"),
            count(summary.coverage.read as usize, "byte"),
            grouped(summary.coverage.refused_bytes()),
            count(row.outcome.controls.planted as usize, "time"),
            grouped(u64::from(row.outcome.controls.decoys)),
            count(row.outcome.controls.decoy_hits as usize, "hit"),
        );
        page.wrapped(FAINT, "  ", &text);
        for line in words::beside_memory(row.outcome) {
            page.wrapped(FAINT, "  ", &line);
        }
    }
    page.text
}

fn sentence(summary: &Summary<'_>) -> String {
    match summary.verdict {
        Verdict::Clean => "Nothing of the secret was found.".to_owned(),
        Verdict::Leak => format!("The secret is still there: {}.", count(summary.findings, "finding")),
        Verdict::Inconclusive => "Nothing can be said, for these reasons.".to_owned(),
    }
}

struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn paint<'t>(&self, style: Style, text: &'t str) -> Cow<'t, str> {
        if self.colour { Cow::Owned(format!("{style}{text}{style:#}")) } else { Cow::Borrowed(text) }
    }

    fn line(&mut self, style: Style, text: &str) {
        let line = self.paint(style, text.trim_end()).into_owned();
        self.text.push_str(&line);
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        self.line(BOLD, text);
    }

    /// Text wrapped at the width, its first line after `first`, the others indented as far.
    fn wrapped(&mut self, style: Style, first: &str, text: &str) {
        let indent = first.chars().count();
        for (at, line) in wrap(text, TEXT_WIDTH - indent).into_iter().enumerate() {
            let margin = if at == 0 { first.to_owned() } else { " ".repeat(indent) };
            self.text.push_str(if line.is_empty() { margin.trim_end() } else { &margin });
            self.line(style, &line);
        }
    }

    fn head(&mut self, summary: &Summary<'_>) {
        let Run { tool, build, .. } = summary.run;
        let verdict = summary.verdict.name().to_uppercase();
        self.line(style(summary.verdict), &format!("{verdict}  {}", summary.meaning()));
        for notice in &summary.notices {
            self.wrapped(UNSURE, "! ", notice);
        }
        let about = format!(
            "{} {}, subject {} in profile {}; {}",
            visible(&tool.name),
            visible(&tool.version),
            visible(&build.subject),
            visible(&build.profile),
            summary.exit_code()
        );
        self.wrapped(FAINT, "", &about);
        self.text.push('\n');
    }

    fn figures(&mut self, summary: &Summary<'_>) {
        for figure in summary.figures() {
            let sign = if figure.alarm { "!" } else { " " };
            let style = if figure.alarm { UNSURE } else { Style::new() };
            let label = format!("{sign} {:<15}{:>16}  ", figure.label, figure.value);
            self.wrapped(style, &label, &figure.note);
        }
    }

    fn unexpected(&mut self, summary: &Summary<'_>) {
        let rows: Vec<_> = summary.unexpected().collect();
        if rows.is_empty() {
            return;
        }
        self.heading(&format!("Not as expected ({})", count(rows.len(), "row")));
        for row in rows {
            self.unexpected_row(row);
        }
    }

    fn unexpected_row(&mut self, row: &Row<'_>) {
        let outcome = row.outcome;
        let head = format!(
            "{}: expected {}, saw {} ({})",
            visible(&outcome.scenario),
            visible(&outcome.expectation),
            outcome.verdict,
            visible(&outcome.ended)
        );
        self.wrapped(style(outcome.verdict), "✗ ", &head);
        for reason in &outcome.reasons {
            self.wrapped(Style::new(), "    why: ", &visible(reason));
        }
        for (number, finding) in row.findings().take(LISTED) {
            self.finding(number, finding);
        }
        let rest = outcome.findings.len().saturating_sub(LISTED);
        if rest > 0 {
            self.line(FAINT, &format!("    and {} more in {}", grouped(rest as u64), Format::Html.file_name()));
        }
    }

    fn finding(&mut self, number: usize, finding: &Finding) {
        let mut text = format!("{} at {}: ", finding.rule, visible(&finding.checkpoint));
        if finding.process != 1 {
            text += &format!("process {}, ", finding.process);
        }
        text += &format!("{} in {}", count(finding.length as usize, "byte"), place(finding));
        if let Some(address) = address(finding) {
            if finding.permissions.is_empty() {
                text += &format!(", at {address}");
            } else {
                text += &format!(" {} at {address}", visible(&finding.permissions));
            }
        }
        text += &format!(", {}: bytes {}", extent(finding), secret_bytes(finding));
        if finding.derived.is_none() {
            text += " of the secret";
        }
        self.wrapped(Style::new(), &format!("    F{number} "), &text);
        if let Some(writer) = &finding.writer {
            self.wrapped(FAINT, "       written by ", &writer_in_short(writer));
        }
        if let Some(freed) = &finding.freed {
            self.wrapped(FAINT, "       freed as it was by ", &writer_in_short(freed));
        }
        if let Some(why) = &finding.unattributed {
            self.wrapped(FAINT, "       not attributed: ", &visible(why));
        }
    }

    fn matrix(&mut self, summary: &Summary<'_>) {
        let matrix = summary.matrix();
        if !matrix.is_worth_showing() {
            return;
        }
        self.heading("Holders and endings");
        self.wrapped(
            FAINT,
            "",
            "c clean, l leak, ? inconclusive; ! not as expected. An l without ! had to leak, or might.",
        );
        let names: Vec<_> = matrix.holders.iter().map(|holder| shortened(&visible(holder), 24)).collect();
        let margin = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6) + 1;
        let across = (TEXT_WIDTH - margin) / 3;
        for (block, endings) in matrix.endings.chunks(across).enumerate() {
            let numbers = (1 + block * across..).zip(endings);
            let head: String = numbers.clone().map(|(number, _)| format!("{number:>2} ")).collect();
            self.line(FAINT, &format!("{:margin$}{head}", ""));
            for (holder, name) in matrix.holders.iter().zip(&names) {
                let mut line = format!("{name:<margin$}");
                for ending in endings {
                    line += &self.cell(matrix.cell(holder, ending));
                }
                self.line(Style::new(), &line);
            }
            let legend: Vec<_> = numbers.map(|(number, ending)| format!("{number}={}", visible(ending))).collect();
            self.wrapped(FAINT, "", &legend.join("  "));
        }
    }

    /// Three columns: where two rows share a cell, the one that is not as expected shows.
    fn cell<'r>(&self, rows: impl Iterator<Item = &'r Row<'r>>) -> String {
        let Some(row) = rows.max_by_key(|row| row.standing() == Standing::Unexpected) else { return " · ".to_owned() };
        let letter = match row.outcome.verdict {
            Verdict::Clean => 'c',
            Verdict::Leak => 'l',
            Verdict::Inconclusive => '?',
        };
        match row.standing() {
            Standing::Unexpected => self.paint(style(row.outcome.verdict), &format!(" {letter}!")).into_owned(),
            Standing::Found => format!(" {letter} "),
            Standing::Expected => self.paint(GOOD, &format!(" {letter}")).into_owned() + " ",
        }
    }

    fn bytes(&mut self, summary: &Summary<'_>) {
        let parts = summary.bytes();
        let listed = summary.coverage.listed;
        self.heading("Coverage in bytes");
        for part in &parts {
            let (indent, name) =
                if part.within { ("    ", shortened(&part.name, 18)) } else { ("  ", part.name.clone()) };
            let share = if part.within { String::new() } else { percent(part.bytes, listed) };
            let label = format!("{:<22}{:>18} {share:>8}  ", format!("{indent}{name}"), grouped(part.bytes));
            self.wrapped(FAINT, &label, part.note);
        }
        if summary.looked_behind_descriptors() {
            self.wrapped(Style::new(), "  behind descriptors  ", &words::kept(&summary.run.kept()));
        }
    }

    fn controls(&mut self, summary: &Summary<'_>) {
        self.heading("Standards");
        let mut rules: Vec<_> = summary
            .unexpected()
            .flat_map(|row| &row.outcome.findings)
            .map(|finding| (finding.rule.class, Extent::of(finding)))
            .collect();
        rules.sort_unstable();
        rules.dedup();
        for (class, extent) in rules {
            let control = controls::control(class);
            let steps = control.steps(extent).map_or_else(String::new, |steps| format!("; FCS_CKM.6 Test 1, {steps}"));
            let first = format!("  {:<24}", format!("{} {}", class.name(), extent.name()));
            self.wrapped(Style::new(), &first, &format!("{}{steps}", control.cwe));
        }
        let rest = format!(
            "Each kind of place with its CWE, its step of {}, and how far a clean result reaches: {}.",
            controls::COMMON_CRITERIA,
            Format::Html.file_name()
        );
        self.wrapped(FAINT, "  ", &rest);
    }

    fn not_shown(&mut self, summary: &Summary<'_>) {
        self.heading("Not shown");
        for thing in &summary.run.not_shown {
            self.wrapped(Style::new(), "  ", &format!("{}: {}", visible(&thing.what), visible(&thing.why)));
        }
        self.wrapped(
            FAINT,
            "  ",
            "and what no run can show: other builds, other inputs, processor caches, swap, physical remanence.",
        );
    }

    fn next(&mut self, summary: &Summary<'_>) {
        self.heading("Where to look next");
        for step in summary.next_steps() {
            self.wrapped(Style::new(), "  ", &step);
        }
        let [_, markdown, html, json] = Format::ALL.map(Format::file_name);
        let files = format!("{html} and {markdown} list every finding; {json} is what all reports are made from.");
        self.wrapped(Style::new(), "  ", &files);
    }
}

/// Breaks text at spaces into lines of at most `width` characters; a longer word is broken where it must be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            lines.last_mut().expect("one line at least").push(' ');
            used += 1;
        }
        for c in word.chars() {
            if used == width {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().expect("one line at least").push(c);
            used += 1;
        }
    }
    lines
}

/// The text, or its beginning and an ellipsis.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_sample_as_text() {
        insta::assert_snapshot!(render(&sample::run(), false));
    }

    #[test]
    fn a_clean_run_as_text() {
        insta::assert_snapshot!(render(&sample::clean(), false));
    }

    #[test]
    fn an_interrupted_run_as_text() {
        insta::assert_snapshot!(render(&sample::interrupted(), false));
    }

    #[test]
    fn a_clean_audit_of_every_holder_and_ending_fits_a_screen() {
        let text = render(&sample::large(), false);

        assert!(text.lines().count() <= 60, "{} lines\n{text}", text.lines().count());
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        for run in [sample::run(), sample::clean(), sample::large(), sample::empty(), sample::interrupted()] {
            for line in render(&run, false).lines() {
                assert!(line.chars().count() <= TEXT_WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn colour_adds_escapes_and_changes_no_word() {
        let run = sample::run();
        let painted = render(&run, true);

        let stripped = strip(&painted);

        assert_ne!(painted, stripped);
        assert_eq!(stripped, render(&run, false));
    }

    #[test]
    fn plain_text_holds_no_control_character_but_newlines() {
        let text = render(&sample::run(), false);

        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn long_words_are_broken_and_short_ones_are_not() {
        assert_eq!(wrap("ab cde fghijkl", 5), ["ab", "cde", "fghij", "kl"]);
    }

    /// Removes ANSI sequences; none of ours holds an `m` before its end.
    fn strip(text: &str) -> String {
        let mut parts = text.split('\u{1b}');
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            plain.push_str(part.split_once('m').expect("a colour ends with m").1);
        }
        plain
    }
}
