//! What must hold over all formats at once.

use findings::Run;

use crate::{Format, controls, parse, render, sample, terminal};

fn runs() -> Vec<Run> {
    vec![sample::run(), sample::clean(), sample::large(), sample::empty(), sample::interrupted()]
}

/// Findings in a rendered text, counted where that format shows them.
fn findings_in(text: &str, format: Format) -> usize {
    match format {
        // The terminal counts them; see also the test of what it lists.
        Format::Text => {
            let line =
                text.lines().find_map(|line| line.get(2..)?.strip_prefix("findings")).expect("a line of findings");
            let figure = line.split_whitespace().next().expect("a figure");
            figure.replace(',', "").parse().expect("a number")
        }
        Format::Markdown => text.lines().filter(|line| line.starts_with("| F") && line.contains("| `")).count(),
        Format::Html => text.matches("<tr id=\"finding-").count(),
        Format::Json => text.matches("\"fingerprint\": ").count(),
    }
}

#[test]
fn every_format_shows_the_same_number_of_findings() {
    for run in runs() {
        let expected = run.findings().count();

        for format in Format::ALL {
            assert_eq!(findings_in(&render(&run, format), format), expected, "{format:?}");
        }
    }
}

#[test]
fn the_terminal_lists_exactly_the_findings_that_nobody_expected() {
    let run = sample::run();

    let listed = terminal(&run, false).lines().filter(|line| line.starts_with("    F")).count();

    let unexpected = run.outcomes.iter().filter(|outcome| !outcome.as_expected).flat_map(|outcome| &outcome.findings);
    assert_eq!(listed, unexpected.count());
}

#[test]
fn every_fingerprint_is_in_each_format_that_carries_all_findings() {
    let run = sample::run();

    for format in [Format::Markdown, Format::Html, Format::Json] {
        let text = render(&run, format);
        for finding in run.findings() {
            assert!(text.contains(&finding.fingerprint), "{format:?}");
        }
    }
}

#[test]
fn an_interrupted_run_says_so_at_the_top_of_every_format() {
    let run = sample::interrupted();

    for (format, sign, rows) in [
        (Format::Text, "Interrupted: ", "rows  "),
        (Format::Markdown, "Interrupted: ", "| rows"),
        (Format::Html, "Interrupted: ", "<dt>rows"),
        (Format::Json, "\"interrupted\": true", "\"outcomes\""),
    ] {
        let text = render(&run, format);
        let at = text.find(sign).unwrap_or_else(|| panic!("{format:?} does not say so"));
        assert!(at < text.find(rows).expect("rows"), "{format:?}");
    }
}

#[test]
fn an_empty_run_is_inconclusive_in_every_format_and_says_why() {
    let run = sample::empty();

    for format in [Format::Text, Format::Markdown, Format::Html] {
        let text = render(&run, format);
        assert!(text.to_lowercase().contains("inconclusive"), "{format:?}");
        assert!(text.contains("No row was run, so nothing can be said."), "{format:?}");
    }
    assert!(render(&run, Format::Json).contains("\"verdict\": \"inconclusive\""));
}

#[test]
fn every_format_is_the_same_to_the_byte_for_the_same_run_and_ends_its_last_line() {
    for run in runs() {
        for format in Format::ALL {
            let text = render(&run, format);
            let again = render(&parse(&render(&run, Format::Json)).expect("our own text"), format);

            assert_eq!(text, again, "{format:?}");
            assert!(text.ends_with('\n'), "{format:?}");
        }
    }
}

/// A report is material for a judgement that others make, so it may not sound like one.
#[test]
fn no_text_promises_more_than_evidence() {
    let forbidden =
        ["complian", "certified", "military-grade", "guarantee", "unbreakable", "100% secure", "100 % secure"];
    let sources = [
        include_str!("lib.rs"),
        include_str!("controls.rs"),
        include_str!("read.rs"),
        include_str!("summary.rs"),
        include_str!("words.rs"),
        include_str!("render/text.rs"),
        include_str!("render/markdown.rs"),
        include_str!("render/html.rs"),
        include_str!("render/json.rs"),
    ];
    let rendered = runs().into_iter().flat_map(|run| Format::ALL.map(|format| render(&run, format)));
    let errors = ["{", "{\"schema\": \"x\"}", "{\"schema\": \"secmem.run/1\"}"]
        .map(|text| parse(text).expect_err("not a run").to_string());

    let texts = rendered.chain(errors).chain(sources.map(str::to_owned)).chain([controls::SCOPE.to_owned()]);

    for text in texts {
        let text = text.to_lowercase();
        for word in forbidden {
            assert!(!text.contains(word), "{word:?} in: {:.200}", &text[text.find(word).unwrap_or(0)..]);
        }
    }
}

#[test]
fn each_format_has_a_file_of_its_own() {
    assert_eq!(Format::ALL.map(Format::file_name), ["report.txt", "report.md", "report.html", "run.json"]);
}
