//! The report in GitHub-flavoured Markdown: tables, and long lists folded into `<details>`.
//!
//! Every foreign text passes [`plain`], [`code`] or [`folded`], which give text that stays inside its cell.

use findings::{Finding, Looked, Run, Verdict};

use crate::controls::{self, Extent};
use crate::summary::{Row, Summary};
use crate::words::{self, chance, count, extent, grouped, percent, secret_bytes, visible};

pub(crate) fn render(run: &Run) -> String {
    let summary = Summary::of(run);
    let mut page = Page(String::new());
    page.head(&summary);
    page.unexpected(&summary);
    page.matrix(&summary);
    page.bytes(&summary);
    page.controls(&summary);
    page.sensitivity(&summary);
    page.not_shown(&summary);
    page.next(&summary);
    page.machine(run);
    page.rows(&summary);
    page.0
}

/// A foreign text as Markdown shows it literally, on one line.
fn plain(text: &str) -> String {
    let text = visible(text);
    let mut shown = String::with_capacity(text.len() + 8);
    for (at, c) in text.char_indices() {
        let rest = &text[at..];
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            // Mathematics, mentions, references and links have no escape with a backslash that GitHub keeps to.
            '$' | '@' | '#' => shown.push_str(&entity(c)),
            ':' if rest.starts_with("://") => shown.push_str(&entity(c)),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => shown.extend(['\\', c]),
            // These make lists and rules, at the start of a line alone.
            '-' | '+' | '=' if at == 0 => shown.extend(['\\', c]),
            _ => shown.push(c),
        }
    }
    shown
}

fn entity(c: char) -> String {
    format!("&#{};", u32::from(c))
}

/// A foreign text inside an HTML element, where Markdown's own signs mean nothing.
fn folded(text: &str) -> String {
    visible(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A foreign text as code if its characters allow that, else as [`plain`] text.
fn code(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " ._-/:@()[],+=".contains(c);
    let framed = !text.is_empty() && !text.starts_with(' ') && !text.ends_with(' ');
    if framed && text.chars().all(harmless) { format!("`{text}`") } else { plain(text) }
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.line(&format!("\n## {text}\n"));
    }

    /// A table; `columns` end with `:` where they are numbers.
    fn table(&mut self, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let names: Vec<_> = columns.iter().map(|column| column.trim_end_matches(':')).collect();
        let rules: Vec<_> = columns.iter().map(|column| if column.ends_with(':') { "---:" } else { "---" }).collect();
        self.line(&format!("| {} |", names.join(" | ")));
        self.line(&format!("| {} |", rules.join(" | ")));
        for row in rows {
            self.line(&format!("| {} |", row.join(" | ")));
        }
    }

    fn head(&mut self, summary: &Summary<'_>) {
        let Run { tool, build, .. } = summary.run;
        self.line(&format!("# Memory audit: {}\n", summary.verdict));
        let alert = match summary.verdict {
            Verdict::Clean => "NOTE",
            Verdict::Leak => "CAUTION",
            Verdict::Inconclusive => "WARNING",
        };
        self.line(&format!("> [!{alert}]\n> **{}** {}", summary.verdict.name().to_uppercase(), summary.meaning()));
        for notice in &summary.notices {
            self.line(&format!(">\n> {}", plain(notice)));
        }
        self.line(&format!(
            "\n{} {}, subject {} in profile {}; {}.\n",
            plain(&tool.name),
            plain(&tool.version),
            code(&build.subject),
            code(&build.profile),
            summary.exit_code()
        ));
        let figures = summary.figures().into_iter().map(|figure| {
            let label = if figure.alarm { format!("**{}** ⚠", figure.label) } else { figure.label.to_owned() };
            vec![label, figure.value, figure.note]
        });
        self.table(&["figure", "value:", ""], figures);
    }

    fn unexpected(&mut self, summary: &Summary<'_>) {
        let rows: Vec<_> = summary.unexpected().collect();
        if rows.is_empty() {
            return;
        }
        self.heading("Not as expected");
        let cells = rows.into_iter().map(|row| {
            let outcome = row.outcome;
            let reasons: Vec<_> = outcome.reasons.iter().map(|reason| plain(reason)).collect();
            vec![
                row.number.to_string(),
                plain(&outcome.scenario),
                plain(&outcome.expectation),
                format!("**{}**", outcome.verdict),
                reasons.join("<br>"),
                grouped(outcome.findings.len() as u64),
            ]
        });
        self.table(&["row:", "scenario", "expected", "saw", "why", "findings:"], cells);
    }

    fn matrix(&mut self, summary: &Summary<'_>) {
        let matrix = summary.matrix();
        if !matrix.is_worth_showing() {
            return;
        }
        self.heading("Holders and endings");
        self.line("✓ as expected (a leaky control must leak), ✗ not as expected.\n");
        let endings: Vec<_> = matrix.endings.iter().map(|ending| plain(ending)).collect();
        let mut columns = vec!["holder"];
        columns.extend(endings.iter().map(String::as_str));
        let cells = matrix.holders.iter().map(|holder| {
            let cell = |ending: &&str| {
                let words: Vec<_> = matrix.cell(holder, ending).map(cell).collect();
                words.join("<br>")
            };
            let mut cells = vec![plain(holder)];
            cells.extend(matrix.endings.iter().map(cell));
            cells
        });
        self.table(&columns, cells);
    }

    fn bytes(&mut self, summary: &Summary<'_>) {
        self.heading("Coverage");
        let listed = summary.coverage.listed;
        let cells = summary.bytes().into_iter().map(|part| {
            let name = plain(&part.name);
            let (name, share) = if part.within {
                (format!("of these {name}"), String::new())
            } else {
                (name, percent(part.bytes, listed))
            };
            vec![name, grouped(part.bytes), share, part.note.to_owned()]
        });
        self.table(&["over all looks", "bytes:", "share:", ""], cells);
        if summary.looked_behind_descriptors() {
            self.line(&format!("\nBehind descriptors: {}.", plain(&words::kept(&summary.run.kept()))));
        }
    }

    fn controls(&mut self, summary: &Summary<'_>) {
        self.heading("Standards");
        self.line(&format!(
            "Weaknesses are named by {}; steps are those of {}. {}\n",
            controls::CWE_VERSION,
            controls::COMMON_CRITERIA,
            controls::OLDER_NAMES
        ));
        let columns = [
            "place",
            "weakness",
            "whole copy",
            "fragment",
            "findings expected:",
            "elsewhere:",
            "a clean result does not show",
        ];
        let cells = controls::table().map(|control| {
            let step = |extent| match control.steps(extent) {
                Some(steps) => format!("{steps}: {}", control.claim(extent)),
                None => format!("not part of the test: {}", control.claim(extent)),
            };
            let [expected, elsewhere] = summary.found_in(control.class);
            vec![
                control.class.name().to_owned(),
                control.cwe.to_string(),
                step(Extent::Whole),
                step(Extent::Fragment),
                grouped(expected),
                grouped(elsewhere),
                control.does_not_show.to_owned(),
            ]
        });
        self.table(&columns, cells);
        self.line(&format!("\n{}\n\n{}\n", controls::FRAGMENTS, controls::SCOPE));
        let cells = controls::BEYOND.iter().map(|row| {
            let cwe: Vec<_> = row.cwe.iter().map(ToString::to_string).collect();
            vec![row.what.to_owned(), cwe.join("<br>"), row.claim.to_string(), row.does_not_show.to_owned()]
        });
        self.table(&["beyond the rules", "weakness", "claim", "why"], cells);
    }

    fn sensitivity(&mut self, summary: &Summary<'_>) {
        self.heading("Sensitivity");
        let sensitivity = &summary.run.sensitivity;
        let mut cells = vec![
            ("shortest residue looked for", count(sensitivity.min_length as usize, "byte") + " of the secret"),
            ("windows of that length, in all forms of one canary", grouped(sensitivity.windows)),
            ("bytes searched", grouped(sensitivity.searched)),
        ];
        cells.extend(summary.chances());
        cells.extend([
            ("decoys looked for and planted nowhere", grouped(sensitivity.decoys)),
            ("hits of decoys", grouped(sensitivity.decoy_hits)),
        ]);
        let cells = cells.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
        self.table(&["measure", "value:"], cells);
        if sensitivity.forms.is_empty() {
            return;
        }
        self.line("\nHits expected by chance over the whole run, by the form of the secret:\n");
        let cells = sensitivity.forms.iter().map(|one| {
            let figures = [grouped(one.windows), chance(one.in_random_bytes), chance(one.in_own_alphabet)];
            std::iter::once(one.form.name().to_owned()).chain(figures).collect()
        });
        self.table(&["form", "windows:", "in random bytes:", "in text of its own:"], cells);
    }

    fn not_shown(&mut self, summary: &Summary<'_>) {
        self.heading("Not shown");
        let cells = summary.run.not_shown.iter().map(|thing| vec![plain(&thing.what), plain(&thing.why)]);
        self.table(&["what", "why"], cells);
    }

    fn next(&mut self, summary: &Summary<'_>) {
        self.heading("Where to look next");
        for step in summary.next_steps() {
            self.line(&format!("- {}", plain(&step)));
        }
    }

    fn machine(&mut self, run: &Run) {
        let Run { machine, build, settings, .. } = run;
        self.heading("Machine and build");
        let mut facts = vec![
            ("kernel".to_owned(), plain(&machine.kernel)),
            ("instruction set".to_owned(), plain(&machine.arch)),
            ("subject".to_owned(), code(&build.subject)),
            ("digest".to_owned(), code(&build.digest)),
            ("profile".to_owned(), code(&build.profile)),
            ("compiler".to_owned(), plain(&build.rustc)),
            ("ablation".to_owned(), build.ablation.as_deref().map_or_else(|| "none".to_owned(), plain)),
            (
                "filter of names".to_owned(),
                if settings.filter.is_empty() { "none".to_owned() } else { plain(&settings.filter) },
            ),
            (
                "required abilities".to_owned(),
                if settings.required.is_empty() { "none".to_owned() } else { plain(&settings.required.join(", ")) },
            ),
            ("decoys a row".to_owned(), grouped(u64::from(settings.decoys))),
            ("seconds a row may take".to_owned(), grouped(u64::from(settings.timeout_seconds))),
        ];
        for fact in &machine.facts {
            let there = if fact.present { "there" } else { "**not there**" };
            facts.push((plain(&fact.name), format!("{there}: {}", plain(&fact.detail))));
        }
        self.table(&["fact", "value"], facts.into_iter().map(|(name, value)| vec![name, value]));
    }

    fn rows(&mut self, summary: &Summary<'_>) {
        self.heading("Rows");
        for row in &summary.rows {
            self.row(row);
        }
    }

    fn row(&mut self, row: &Row<'_>) {
        /// The column of looks that carries its reasons.
        const REFUSED: usize = 12;
        let outcome = row.outcome;
        self.line("<details>");
        self.line(&format!(
            "<summary>{}. {}: {} ({}), {}</summary>\n",
            row.number,
            folded(&outcome.scenario),
            cell(row),
            row.standing().name(),
            count(outcome.findings.len(), "finding")
        ));
        let shows: Vec<_> = outcome.shows.iter().map(|shows| plain(shows)).collect();
        self.line(&format!(
            "Expected {}; ended {}. Copies at planted {}, decoys {}, hits of decoys {}. Speaks for: {}.\n",
            plain(&outcome.expectation),
            plain(&outcome.ended),
            grouped(u64::from(outcome.controls.planted)),
            grouped(u64::from(outcome.controls.decoys)),
            grouped(u64::from(outcome.controls.decoy_hits)),
            if shows.is_empty() { "no requirement".to_owned() } else { shows.join(", ") }
        ));
        for reason in &outcome.reasons {
            self.line(&format!("- why: {}", plain(reason)));
        }
        if !outcome.reasons.is_empty() {
            self.line("");
        }
        let columns = [
            "checkpoint",
            "process:",
            "look",
            "threads:",
            "whole:",
            "fragments:",
            "decoy hits:",
            "listed:",
            "read:",
            "injected:",
            "never populated:",
            "shielded:",
            "refused:",
            "excluded:",
        ];
        let looks = outcome.observations.iter().map(|look| {
            let mut cells =
                vec![plain(&look.checkpoint), look.process.to_string(), plain(&words::looked(&look.looked))];
            if look.looked == Looked::Yes {
                let coverage = &look.coverage;
                let counts = [look.threads, look.whole, look.fragments, look.decoy_hits].map(u64::from);
                let bytes = [
                    coverage.listed,
                    coverage.read,
                    coverage.injected,
                    coverage.never_populated,
                    coverage.shielded,
                    coverage.refused_bytes(),
                    coverage.excluded_bytes(),
                ];
                cells.extend(counts.into_iter().chain(bytes).map(grouped));
                if !coverage.refused.is_empty() {
                    cells[REFUSED] = plain(&words::shares(&coverage.refused));
                }
            } else {
                cells.resize(columns.len(), String::new());
            }
            cells
        });
        self.table(&columns, looks);
        let beside = words::beside_memory(outcome);
        if !beside.is_empty() {
            self.line("");
        }
        for line in beside {
            self.line(&format!("- {}", plain(&line)));
        }
        if !outcome.findings.is_empty() {
            self.line("");
            let columns = [
                "finding",
                "rule",
                "checkpoint",
                "process:",
                "place",
                "address",
                "permissions",
                "length:",
                "secret",
                "extent",
                "written by",
                "fingerprint",
            ];
            self.table(&columns, row.findings().map(|(number, finding)| finding_cells(number, finding)));
        }
        self.line("\n</details>\n");
    }
}

/// The word and the sign of a row in the matrix.
fn cell(row: &Row<'_>) -> String {
    format!("{} {}", row.outcome.verdict, row.standing().mark())
}

fn finding_cells(number: usize, finding: &Finding) -> Vec<String> {
    let frames: Vec<_> = words::writer(finding).iter().map(|line| plain(line)).collect();
    vec![
        format!("F{number}"),
        code(&finding.rule.to_string()),
        plain(&finding.checkpoint),
        finding.process.to_string(),
        plain(&words::place(finding)),
        words::address(finding).map_or_else(String::new, |address| code(&address)),
        code(&finding.permissions),
        grouped(finding.length),
        secret_bytes(finding),
        extent(finding).into_owned(),
        frames.join("<br>"),
        code(&finding.fingerprint),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_sample_as_markdown() {
        insta::assert_snapshot!(render(&sample::run()));
    }

    #[test]
    fn an_empty_run_as_markdown() {
        insta::assert_snapshot!(render(&sample::empty()));
    }

    #[test]
    fn a_hostile_name_stays_inside_its_cell() {
        let text = render(&sample::run());

        assert!(!text.contains("<script"));
        assert!(!text.contains("\n# newline"));
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\|\\`pipe\\`\\\\n&#35; newline\\\\u{1b}\\[31m"));
    }

    #[test]
    fn every_row_of_a_table_has_the_columns_of_its_head() {
        let text = render(&sample::run());

        let mut columns = None;
        for line in text.lines() {
            let cells = line.starts_with('|').then(|| line.replace("\\|", "").matches('|').count());
            if let (Some(cells), Some(columns)) = (cells, columns) {
                assert_eq!(cells, columns, "{line}");
            }
            columns = cells;
        }
    }

    #[test]
    fn every_fold_that_opens_closes() {
        let text = render(&sample::run());

        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }
}
