//! The report as one page for an auditor: complete, printable, quiet.
//!
//! No script, nothing fetched, style inline; the page forbids itself anything else by its content security policy.
//! maud escapes every text by construction, and foreign names pass [`visible`] first. Words and signs carry each
//! state; colour repeats them.

use findings::{Finding, Looked, Observation, Run, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::controls::{self, ClaimLevel, Control, Extent};
use crate::summary::{Part, Row, Standing, Summary};
use crate::words::{self, chance, count, extent, grouped, percent, secret_bytes, visible};

const STYLE: &str = include_str!("html.css");

pub(crate) fn render(run: &Run) -> String {
    let summary = Summary::of(run);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Memory audit: " (summary.verdict) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(&summary))
                main {
                    (unexpected(&summary))
                    (matrix(&summary))
                    (not_shown(&summary))
                    (coverage(&summary))
                    (leaky_controls(&summary))
                    (standards(&summary))
                    (sensitivity(&summary))
                    (machine(run))
                    (rows(&summary))
                }
                footer {
                    p {
                        "Made from " code { "run.json" } " (" (visible(&run.schema)) ") by "
                        (visible(&run.tool.name)) " " (visible(&run.tool.version))
                        ". The report holds places, lengths and names; never bytes that were read."
                    }
                }
            }
        }
    };
    let mut text = page.into_string();
    text.push('\n');
    text
}

const fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "good",
        Verdict::Leak => "bad",
        Verdict::Inconclusive => "unsure",
    }
}

fn standing_class(row: &Row<'_>) -> &'static str {
    match (row.standing(), row.outcome.verdict) {
        (Standing::Found, _) | (Standing::Expected, Verdict::Leak) => "found",
        (Standing::Expected, _) => "good",
        (Standing::Unexpected, Verdict::Leak) => "bad",
        (Standing::Unexpected, _) => "unsure",
    }
}

fn head(summary: &Summary<'_>) -> Markup {
    let Run { tool, build, machine, .. } = summary.run;
    html! {
        header {
            p.eyebrow { "Memory audit" }
            div class={ "verdict " (verdict_class(summary.verdict)) } {
                h1 { (summary.verdict) }
                p.meaning { (summary.meaning()) }
                p.faint { (summary.exit_code()) }
                @if !summary.notices.is_empty() {
                    ul.notices { @for notice in &summary.notices { li { (visible(notice)) } } }
                }
            }
            p.faint {
                (visible(&tool.name)) " " (visible(&tool.version)) " · subject " (visible(&build.subject))
                " · profile " (visible(&build.profile)) " · " (visible(&machine.kernel)) " " (visible(&machine.arch))
            }
            dl.figures {
                @for figure in summary.figures() {
                    div.alarm[figure.alarm] {
                        dt { (figure.label) @if figure.alarm { span.sign title="needs attention" { "!" } } }
                        dd { strong { (figure.value) } " " span { (figure.note) } }
                    }
                }
            }
            section.next aria-labelledby="next" {
                h2 #next { "Where to look next" }
                ol { @for step in summary.next_steps() { li { (step) } } }
            }
            nav aria-label="Sections" {
                @if summary.unexpected().next().is_some() { a href="#unexpected" { "Not as expected" } }
                @if summary.matrix().is_worth_showing() { a href="#matrix" { "Holders and endings" } }
                a href="#not-shown" { "Not shown" }
                a href="#coverage" { "Coverage" }
                a href="#leaky-controls" { "Leaky controls" }
                a href="#standards" { "Standards" }
                a href="#sensitivity" { "Sensitivity" }
                a href="#machine" { "Machine and build" }
                a href="#rows" { "Rows" }
            }
        }
    }
}

fn unexpected(summary: &Summary<'_>) -> Markup {
    let rows: Vec<_> = summary.unexpected().collect();
    html! {
        @if !rows.is_empty() {
            section {
                h2 #unexpected { "Not as expected" }
                div.scroll { table {
                    caption { (count(rows.len(), "row")) " that did not show what had to be shown" }
                    thead { tr {
                        th scope="col" { "Scenario" }
                        th scope="col" { "Expected" }
                        th scope="col" { "Saw" }
                        th scope="col" { "Why" }
                        th.number scope="col" { "Findings" }
                    } }
                    tbody { @for row in rows { tr {
                        th scope="row" { (link(row)) }
                        td { (visible(&row.outcome.expectation)) }
                        td { (badge(row)) }
                        td { @for reason in &row.outcome.reasons { p { (visible(reason)) } } }
                        td.number { (grouped(row.outcome.findings.len() as u64)) }
                    } } }
                } }
            }
        }
    }
}

fn link(row: &Row<'_>) -> Markup {
    html! { a href={ "#row-" (row.number) } { (visible(&row.outcome.scenario)) } }
}

/// The verdict of a row with the sign that says whether it had to be so.
fn badge(row: &Row<'_>) -> Markup {
    html! {
        span class={ "badge " (standing_class(row)) } title=(row.standing().name()) {
            (row.outcome.verdict) " " (row.standing().mark())
        }
    }
}

fn matrix(summary: &Summary<'_>) -> Markup {
    let matrix = summary.matrix();
    html! {
        @if matrix.is_worth_showing() {
            section {
                h2 #matrix { "Holders and endings" }
                p.faint {
                    "Each cell is a row, linked to its details. ✓ is as expected: a leaky control must leak, or the "
                    "harness would miss what is there. ✗ is not as expected. An empty cell is no row."
                }
                div.scroll { table.matrix {
                    caption { "What was seen for each holder of the secret and each ending of its process" }
                    thead { tr {
                        th scope="col" { "Holder" }
                        @for ending in &matrix.endings { th scope="col" { (visible(ending)) } }
                    } }
                    tbody { @for holder in &matrix.holders { tr {
                        th scope="row" { (visible(holder)) }
                        @for ending in &matrix.endings {
                            td { @for row in matrix.cell(holder, ending) {
                                a class={ "cell " (standing_class(row)) } href={ "#row-" (row.number) }
                                    title={ (visible(&row.outcome.scenario)) ": " (row.standing().name()) } {
                                    (row.outcome.verdict) " " (row.standing().mark())
                                }
                            } }
                        }
                    } } }
                } }
            }
        }
    }
}

fn not_shown(summary: &Summary<'_>) -> Markup {
    html! {
        section {
            h2 #not-shown { "What was not shown" }
            p.faint { "Nothing that was not looked at counts as clean. This run cannot show:" }
            div.scroll { table {
                caption { "Outside of what this run can show" }
                thead { tr { th scope="col" { "What" } th scope="col" { "Why" } } }
                tbody { @for thing in &summary.run.not_shown { tr {
                    th scope="row" { (visible(&thing.what)) }
                    td { (visible(&thing.why)) }
                } } }
            } }
            p.faint { "What no run of this kind can show stands under " a href="#beyond" { "Standards" } "." }
        }
    }
}

fn coverage(summary: &Summary<'_>) -> Markup {
    let parts = summary.bytes();
    let listed = summary.coverage.listed;
    html! {
        section {
            h2 #coverage { "Coverage" }
            p.faint { "Each look accounts for every byte of address space that the kernel lists. The parts add up to the whole." }
            (bar(&parts, listed))
            div.scroll { table.narrow {
                caption { "Bytes over all looks" }
                thead { tr {
                    th scope="col" { "Part" } th.number scope="col" { "Bytes" } th.number scope="col" { "Share" }
                    th scope="col" { "Meaning" }
                } }
                tbody { @for part in &parts { tr.within[part.within] {
                    th scope="row" { (part.name) }
                    td.number { (grouped(part.bytes)) }
                    td.number { @if !part.within { (percent(part.bytes, listed)) } }
                    td { (part.note) }
                } } }
            } }
            @if summary.looked_behind_descriptors() {
                p { "Behind descriptors, outside of the address space: " (words::kept(&summary.run.kept())) "." }
            }
        }
    }
}

/// The parts as a bar; the table below it says the same in words.
fn bar(parts: &[Part], listed: u64) -> Markup {
    let shares = parts.iter().skip(1).filter(|part| !part.within && part.bytes > 0);
    html! {
        @if listed > 0 {
            div.bar aria-hidden="true" {
                @for part in shares {
                    span class={ "part-" (part.name.replace(' ', "-")) }
                        style={ "flex-grow:" (part.bytes) } title={ (part.name) " " (percent(part.bytes, listed)) } {
                        // A name that would not fit is left to the title and the table.
                        @if part.bytes >= listed / 8 { (part.name) }
                    }
                }
            }
        }
    }
}

fn leaky_controls(summary: &Summary<'_>) -> Markup {
    let controls: Vec<_> = summary.rows.iter().filter(|row| row.outcome.control).collect();
    html! {
        section {
            h2 #leaky-controls { "Leaky controls" }
            p.faint {
                "These rows leak on purpose. A search that did not find them could not be believed elsewhere."
            }
            @if controls.is_empty() {
                p { "This run holds none." }
            } @else {
                div.scroll { table {
                    caption { (count(controls.len(), "row")) " that must be found" }
                    thead { tr {
                        th scope="col" { "Scenario" }
                        th scope="col" { "Expected" }
                        th scope="col" { "Saw" }
                        th scope="col" { "So" }
                        th.number scope="col" { "Whole" }
                        th.number scope="col" { "Fragments" }
                    } }
                    tbody { @for row in controls {
                        @let whole = row.outcome.findings.iter().filter(|finding| finding.whole).count();
                        tr {
                            th scope="row" { (link(row)) }
                            td { (visible(&row.outcome.expectation)) }
                            td { (badge(row)) }
                            td { (row.standing().name()) }
                            td.number { (grouped(whole as u64)) }
                            td.number { (grouped((row.outcome.findings.len() - whole) as u64)) }
                        }
                    } }
                } }
            }
        }
    }
}

fn standards(summary: &Summary<'_>) -> Markup {
    html! {
        section {
            h2 #standards { "Standards" }
            p.faint {
                "Which weakness a finding in each kind of place is an instance of (" (controls::CWE_VERSION)
                "), which step of " (controls::COMMON_CRITERIA) " looks for it, and how far the absence of findings reaches. "
                (controls::OLDER_NAMES)
            }
            div.scroll { table.rules {
                caption { "Rules: kinds of place" }
                thead {
                    tr {
                        th scope="col" rowspan="2" { "Place" }
                        th scope="col" rowspan="2" { "Weakness" }
                        th scope="colgroup" colspan="2" { "Step and claim" }
                        th scope="colgroup" colspan="2" { "Findings" }
                        th scope="col" rowspan="2" { "A clean result does not show" }
                    }
                    tr {
                        th scope="col" { "whole copy" }
                        th scope="col" { "fragment" }
                        th.number scope="col" { "expected" }
                        th.number scope="col" { "elsewhere" }
                    }
                }
                tbody { @for control in controls::table() { (control_row(summary, &control)) } }
            } }
            p.faint { (controls::FRAGMENTS) }
            p.faint { (controls::SCOPE) }
            div.scroll { table {
                caption #beyond { "Beyond the rules" }
                thead { tr {
                    th scope="col" { "To be shown" } th scope="col" { "Weakness" } th scope="col" { "Claim" }
                    th scope="col" { "Why" }
                } }
                tbody { @for row in &controls::BEYOND { tr {
                    th scope="row" { (row.what) }
                    td { @for cwe in row.cwe { p { (cwe) } } }
                    td { (claim(row.claim)) }
                    td { (row.does_not_show) }
                } } }
            } }
        }
    }
}

fn control_row(summary: &Summary<'_>, control: &Control) -> Markup {
    let [expected, elsewhere] = summary.found_in(control.class);
    html! {
        tr {
            th scope="row" { (control.class.name()) }
            td { (control.cwe) }
            @for extent in [Extent::Whole, Extent::Fragment] {
                td.step { (control.steps(extent).unwrap_or("not in the test")) br; (claim(control.claim(extent))) }
            }
            td.number { (grouped(expected)) }
            td.number { @if elsewhere > 0 { strong.bad { (grouped(elsewhere)) " !" } } @else { "0" } }
            td { (control.does_not_show) }
        }
    }
}

fn claim(level: ClaimLevel) -> Markup {
    let class = match level {
        ClaimLevel::EvidenceFor => "good",
        ClaimLevel::Partial => "found",
        ClaimLevel::CannotProve => "none",
    };
    html! { span class={ "badge " (class) } { (level) } }
}

/// With its first letter in upper case, as names begin on this page.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn sensitivity(summary: &Summary<'_>) -> Markup {
    let sensitivity = &summary.run.sensitivity;
    let mut measures = vec![
        ("Shortest residue looked for", count(sensitivity.min_length as usize, "byte") + " of the secret"),
        ("Windows of that length, in all forms of one canary", grouped(sensitivity.windows)),
        ("Bytes searched", grouped(sensitivity.searched)),
    ];
    measures.extend(summary.chances());
    measures.extend([
        ("Decoys looked for and planted nowhere", grouped(sensitivity.decoys)),
        ("Hits of decoys", grouped(sensitivity.decoy_hits)),
    ]);
    let by_form = sensitivity.forms.iter().map(|one| {
        let name = one.form.name().to_owned();
        let text = format!(
            "{} windows; {} in random bytes, {} in text of its own",
            grouped(one.windows),
            chance(one.in_random_bytes),
            chance(one.in_own_alphabet)
        );
        (name, html! { (text) })
    });
    html! {
        section {
            h2 #sensitivity { "Sensitivity" }
            (facts("How small a residue would have been seen, and what chance alone would give", measures.into_iter().map(
                |(name, value)| (capital(name), html! { (value) }),
            )))
            @if !sensitivity.forms.is_empty() {
                (facts("Hits expected by chance over the whole run, by the form of the secret", by_form))
            }
        }
    }
}

fn machine(run: &Run) -> Markup {
    let Run { machine, build, settings, .. } = run;
    let built = [
        ("Subject", html! { (visible(&build.subject)) }),
        ("Digest", html! { code { (visible(&build.digest)) } }),
        ("Profile", html! { (visible(&build.profile)) }),
        ("Compiler", html! { (visible(&build.rustc)) }),
        ("Ablation", html! { (build.ablation.as_deref().map_or("none".into(), visible)) }),
        ("Filter of names", html! { @if settings.filter.is_empty() { "none" } @else { (visible(&settings.filter)) } }),
        (
            "Required abilities",
            html! { @if settings.required.is_empty() { "none" } @else { (visible(&settings.required.join(", "))) } },
        ),
        ("Decoys a row", html! { (settings.decoys) }),
        ("Seconds a row may take", html! { (settings.timeout_seconds) }),
    ];
    html! {
        section {
            h2 #machine { "Machine and build" }
            div.scroll { table {
                caption { (visible(&machine.kernel)) ", " (visible(&machine.arch)) ": what it can show, each probed once" }
                thead { tr { th scope="col" { "Ability" } th scope="col" { "There" } th scope="col" { "What the probe saw" } } }
                tbody { @for fact in &machine.facts { tr {
                    th scope="row" { (visible(&fact.name)) }
                    td { @if fact.present { span class="badge good" { "yes ✓" } } @else { span class="badge unsure" { "no ✗" } } }
                    td { (visible(&fact.detail)) }
                } } }
            } }
            (facts("How the subject was built and what was asked for", built.map(|(name, value)| (name.to_owned(), value))))
        }
    }
}

/// A table of names and values.
fn facts(caption: &str, facts: impl IntoIterator<Item = (String, Markup)>) -> Markup {
    html! {
        div.scroll { table.narrow {
            caption { (caption) }
            tbody { @for (name, value) in facts { tr { th scope="row" { (name) } td { (value) } } } }
        } }
    }
}

fn rows(summary: &Summary<'_>) -> Markup {
    html! {
        section {
            h2 #rows { "Rows" }
            p.faint { "Every row with every look at every process, and every finding. Findings are numbered over the whole run." }
            @for row in &summary.rows { (row_details(row)) }
        }
    }
}

fn row_details(row: &Row<'_>) -> Markup {
    let outcome = row.outcome;
    let controls = &outcome.controls;
    html! {
        article class={ "row " (standing_class(row)) } id={ "row-" (row.number) } {
            h3 { (visible(&outcome.scenario)) " " (badge(row)) }
            dl.facts {
                div { dt { "Expected" } dd { (visible(&outcome.expectation)) } }
                div { dt { "So" } dd { (row.standing().name()) } }
                div { dt { "Ended" } dd { (visible(&outcome.ended)) } }
                div { dt { "Copies at planted" } dd { (controls.planted) } }
                div { dt { "Decoys, hits" } dd { (controls.decoys) ", " (controls.decoy_hits) } }
                @if !outcome.shows.is_empty() {
                    div { dt { "Speaks for" } dd { (visible(&outcome.shows.join(", "))) } }
                }
            }
            @if !outcome.reasons.is_empty() {
                ul.notices { @for reason in &outcome.reasons { li { (visible(reason)) } } }
            }
            div.scroll { table.figures-table {
                caption { "Looks" }
                thead { tr {
                    th scope="col" { "Checkpoint" }
                    @for name in ["Process", "Threads", "Whole", "Fragments", "Decoy hits", "Listed", "Read", "Injected",
                        "Never populated", "Shielded", "Refused", "Excluded"] { th.number scope="col" { (name) } }
                } }
                tbody { @for look in &outcome.observations { (look_row(look)) } }
            } }
            @let beside = words::beside_memory(outcome);
            @if !beside.is_empty() { ul { @for line in &beside { li { (line) } } } }
            @if !outcome.findings.is_empty() {
                div.scroll { table.findings {
                    caption { (count(outcome.findings.len(), "finding")) }
                    thead { tr {
                        th scope="col" { "No." } th scope="col" { "Rule" } th scope="col" { "Checkpoint, process" }
                        th scope="col" { "Place" } th.number scope="col" { "Length" } th scope="col" { "Of the secret" }
                        th scope="col" { "Written by" } th scope="col" { "Fingerprint" }
                    } }
                    tbody { @for (number, finding) in row.findings() { (finding_row(number, finding)) } }
                } }
            }
        }
    }
}

fn look_row(look: &Observation) -> Markup {
    /// The place in `bytes` that carries its reasons.
    const REFUSED: usize = 5;
    let coverage = &look.coverage;
    let bytes = [
        coverage.listed,
        coverage.read,
        coverage.injected,
        coverage.never_populated,
        coverage.shielded,
        coverage.refused_bytes(),
        coverage.excluded_bytes(),
    ];
    html! {
        tr {
            th scope="row" { (visible(&look.checkpoint)) }
            td.number { (look.process) }
            @if look.looked == Looked::Yes {
                @for number in [look.threads, look.whole, look.fragments, look.decoy_hits] {
                    td.number { (grouped(u64::from(number))) }
                }
                @for (at, number) in bytes.into_iter().enumerate() {
                    td.number { (grouped(number)) @if at == REFUSED && number > 0 { br; small { (words::shares(&coverage.refused)) } } }
                }
            } @else {
                td.missed colspan="11" { (words::looked(&look.looked)) }
            }
        }
    }
}

fn finding_row(number: usize, finding: &Finding) -> Markup {
    html! {
        tr id={ "finding-" (number) } {
            th scope="row" { (number) }
            td { code { (finding.rule) } }
            td { (visible(&finding.checkpoint)) ", " (finding.process) }
            td {
                (words::place(finding)) " " (visible(&finding.permissions))
                @if let Some(address) = words::address(finding) { br; code { (address) } }
            }
            td.number { (grouped(finding.length)) }
            td { (extent(finding)) br; (secret_bytes(finding)) }
            td { @let writer = words::writer(finding); @if !writer.is_empty() {
                ol.frames { @for line in &writer { li { (line) } } }
            } }
            td { code { (visible(&finding.fingerprint)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_sample_as_html() {
        insta::assert_snapshot!(render(&sample::run()));
    }

    #[test]
    fn a_hostile_name_stays_text() {
        let page = render(&sample::run());

        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn the_page_loads_nothing_and_runs_nothing() {
        let page = render(&sample::run());

        for fetch in [
            "<script", "<link", "<img", "<iframe", "<object", " src=", "url(", "@import", "http://", "https://",
            " onload=",
        ] {
            assert!(!page.contains(fetch), "{fetch}");
        }
        assert!(page.contains("default-src 'none'; style-src 'unsafe-inline'"));
    }

    #[test]
    fn every_link_leads_to_an_anchor_and_no_anchor_is_used_twice() {
        for run in [sample::run(), sample::clean(), sample::empty(), sample::large()] {
            let page = render(&run);
            let mut anchors: Vec<_> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
            let count = anchors.len();
            anchors.sort_unstable();
            anchors.dedup();

            assert_eq!(anchors.len(), count);
            for target in page.split(" href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let anchor = target.strip_prefix('#').expect("a link within the page");
                assert!(anchors.binary_search(&anchor).is_ok(), "{target}");
            }
        }
    }

    #[test]
    fn every_table_has_a_caption_and_every_head_a_scope() {
        let page = render(&sample::run());

        assert_eq!(page.matches("<table").count(), page.matches("<caption").count());
        for head in page.split("<th").skip(1).filter(|rest| !rest.starts_with("ead")) {
            assert!(head.split('>').next().is_some_and(|tag| tag.contains("scope=")), "{head:.60}");
        }
    }
}
