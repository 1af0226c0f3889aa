//! The last thing that happens to an outcome: no name that a target chose may carry its secret into a report.
//!
//! A target chooses the names of its files, mappings, libraries and functions, and might choose its secret.

use findings::{Outcome, Writer};

use crate::scan::{Index, Scanner};

/// What stands where a text held the secret.
const VEIL: &str = "(a name that holds the secret)";

/// A text that may stand in a report.
pub(crate) fn nameable(text: String, index: &Index) -> String {
    if holds(&text, index) { VEIL.to_owned() } else { text }
}

/// Takes every text out of an outcome that holds one of the needles, or a piece of one.
pub(crate) fn veil(outcome: &mut Outcome, index: &Index) {
    let mut cover = |text: &mut String| {
        if holds(text, index) {
            VEIL.clone_into(text);
        }
    };
    for text in [&mut outcome.scenario, &mut outcome.holder, &mut outcome.ending, &mut outcome.ended] {
        cover(text);
    }
    outcome.reasons.iter_mut().for_each(&mut cover);
    for finding in &mut outcome.findings {
        cover(&mut finding.scenario);
        cover(&mut finding.place);
        finding.unattributed.iter_mut().for_each(&mut cover);
        for writer in finding.writer.iter_mut().chain(&mut finding.freed) {
            veil_writer(writer, &mut cover);
        }
    }
}

fn veil_writer(writer: &mut Writer, cover: &mut impl FnMut(&mut String)) {
    cover(&mut writer.how);
    writer.cut.iter_mut().for_each(&mut *cover);
    for frame in &mut writer.frames {
        cover(&mut frame.function);
        frame.file.iter_mut().for_each(&mut *cover);
        frame.module.iter_mut().for_each(&mut *cover);
    }
    if let Some(end) = &mut writer.end {
        veil_writer(end, cover);
    }
}

fn holds(text: &str, index: &Index) -> bool {
    let mut scanner = Scanner::new(index);
    scanner.feed(0, text.as_bytes());
    !scanner.finish().is_empty()
}
