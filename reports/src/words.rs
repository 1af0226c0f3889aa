//! The words and numbers that every format shares, and what keeps a foreign name from speaking for the report.

use std::borrow::Cow;

use findings::{Class, CoreLimit, Exposure, Finding, Frame, Kept, Looked, Outcome, Share, Writer};

/// A foreign name with every character that could hide, reorder or erase text written out as an escape.
///
/// Control characters (a terminal obeys them), line separators, zero-width and direction-changing characters.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if deceives(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A number in groups of three digits: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}

/// A share of a whole in percent with one decimal, rounded towards zero: nothing short of all reads as all.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0 %".to_owned();
    }
    let thousandths = u128::from(part) * 1000 / u128::from(whole);
    match thousandths {
        0 => "< 0.1 %".to_owned(),
        _ => format!("{}.{} %", thousandths / 10, thousandths % 10),
    }
}

/// An expected number of hits: plain from a hundredth up, else in powers of ten.
pub(crate) fn chance(hits: f64) -> String {
    if hits == 0.0 || hits >= 0.01 { format!("{hits:.2}") } else { format!("{hits:.1e}") }
}

/// Where a finding lies, by name.
pub(crate) fn place(finding: &Finding) -> Cow<'_, str> {
    if finding.place.is_empty() { Cow::Borrowed("anonymous memory") } else { visible(&finding.place) }
}

/// The half-open range of addresses that a finding fills, of offsets for what is no memory; a register has none.
pub(crate) fn address(finding: &Finding) -> Option<String> {
    // Wide enough for any length that a file may name.
    let end = u128::from(finding.address) + u128::from(finding.length);
    (finding.rule.class != Class::Register).then(|| format!("{:#x}..{end:#x}", finding.address))
}

/// What lay behind descriptors: `2 pipes, 1 socket, 0 memfds, 0 deleted files: 48 bytes read, 0 refused`.
pub(crate) fn kept(kept: &Kept) -> String {
    let counts =
        [(kept.pipes, "pipe"), (kept.sockets, "socket"), (kept.memfds, "memfd"), (kept.deleted_files, "deleted file")];
    let counts = counts.map(|(number, noun)| count(number as usize, noun)).join(", ");
    let bytes = &kept.bytes;
    let mut text = format!("{counts}: {} read", count(bytes.read as usize, "byte"));
    if !bytes.refused.is_empty() {
        text += &format!(", {} refused ({})", grouped(bytes.refused_bytes()), shares(&bytes.refused));
    }
    if !bytes.excluded.is_empty() {
        text += &format!(", {} excluded ({})", grouped(bytes.excluded_bytes()), shares(&bytes.excluded));
    }
    text
}

/// What decides who else may get a process's bytes, as far as it is known.
pub(crate) fn exposure(exposure: &Exposure) -> String {
    let mut facts = Vec::new();
    if let Some(swapped) = exposure.swapped {
        let note = if swapped > 0 { " (read back; the swap device keeps its copy)" } else { "" };
        facts.push(format!("{} in swap{note}", count(swapped as usize, "byte")));
    }
    facts.extend(exposure.locked.map(|locked| format!("{} locked", grouped(locked))));
    facts.extend(exposure.dumpable.map(|dumpable| format!("dumpable: {}", dumpable.name())));
    facts.extend(exposure.core_limit.map(|limit| match limit {
        CoreLimit::Unlimited => "core limit: none".to_owned(),
        CoreLimit::Bytes(bytes) => format!("core limit: {}", grouped(bytes)),
    }));
    facts.extend(exposure.coredump_filter.map(|filter| format!("coredump filter {filter:#x}")));
    facts.join(", ")
}

/// What the looks of a row told of descriptors, of where a core came from and of who else may get the bytes: looks that told the same share a line.
pub(crate) fn beside_memory(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for look in &outcome.observations {
        let behind = look.kept.as_ref().map(|kept| format!("behind descriptors {}", self::kept(kept)));
        let facts = look.exposure.as_ref().map(exposure).filter(|facts| !facts.is_empty());
        let core = look.core.map(|core| core.name().to_owned());
        let freed = look.kept_freed.map(|kept| {
            let limit = if kept.released > 0 { ", then the limit was met" } else { "" };
            let blocks = count(usize::try_from(kept.blocks).unwrap_or(usize::MAX), "freed block");
            format!("{blocks} of {} bytes kept from being used again{limit}", grouped(kept.bytes))
        });
        let public = (look.public > 0).then(|| {
            format!(
                "{} of the secret not counted, which the program's own file shows to anybody",
                count(look.public as usize, "piece")
            )
        });
        let told: Vec<_> = [behind, core, freed, facts, public].into_iter().flatten().collect();
        if told.is_empty() {
            continue;
        }
        let (told, at) = (told.join("; "), format!("{} of process {}", visible(&look.checkpoint), look.process));
        match lines.iter_mut().find(|(other, _)| *other == told) {
            Some((_, looks)) => looks.push(at),
            None => lines.push((told, vec![at])),
        }
    }
    lines.into_iter().map(|(told, looks)| format!("{}: {told}", looks.join(", "))).collect()
}

/// Which bytes of the secret a finding shows, half-open, counted from 0; of what was made of it, with its name.
pub(crate) fn secret_bytes(finding: &Finding) -> String {
    let end = u128::from(finding.secret_offset) + u128::from(finding.secret_length);
    match &finding.derived {
        None => format!("{}..{end}", finding.secret_offset),
        Some(derived) => format!("{}..{end} of the {}", finding.secret_offset, visible(derived)),
    }
}

/// Whether a finding shows all of the secret, and in how many of several runs it was seen.
pub(crate) fn extent(finding: &Finding) -> Cow<'static, str> {
    let extent = if finding.whole { "whole" } else { "fragment" };
    match finding.repeats {
        None => Cow::Borrowed(extent),
        Some(repeats) if repeats.seen == repeats.of => Cow::Owned(format!("{extent} (in all {} runs)", repeats.of)),
        Some(repeats) => Cow::Owned(format!("{extent} (intermittent: in {} of {} runs)", repeats.seen, repeats.of)),
    }
}

/// One function of a stack: `name (file:line, inlined)`.
pub(crate) fn frame(frame: &Frame) -> String {
    let mut notes = Vec::new();
    if let Some(file) = &frame.file {
        notes.push(match frame.line {
            Some(line) => format!("{}:{line}", visible(file)),
            None => visible(file).into_owned(),
        });
    }
    if let (None, Some(module)) = (&frame.file, &frame.module)
        && !frame.function.starts_with(module)
    {
        notes.push(format!("in {}", visible(module)));
    }
    if frame.inlined {
        notes.push("inlined".to_owned());
    }
    let function = visible(&frame.function);
    if notes.is_empty() { function.into_owned() } else { format!("{function} ({})", notes.join(", ")) }
}

/// Who wrote a finding, a line each: how, the frames innermost first, and the same for its end if that was another.
/// Why nobody is named, where that was asked; nothing where it was not.
pub(crate) fn writer(finding: &Finding) -> Vec<String> {
    let mut lines = Vec::new();
    let mut writer = finding.writer.as_ref();
    while let Some(next) = writer {
        if !lines.is_empty() {
            lines.push("its end:".to_owned());
        }
        if !next.how.is_empty() {
            lines.push(visible(&next.how).into_owned());
        }
        lines.extend(next.frames.iter().map(frame));
        lines.extend(next.cut.iter().map(|why| format!("… ({})", visible(why))));
        writer = next.end.as_deref();
    }
    if let Some(freed) = &finding.freed {
        lines.push("freed as it was by:".to_owned());
        lines.extend(freed.frames.iter().map(frame));
    }
    lines.extend(finding.unattributed.iter().map(|why| format!("not attributed: {}", visible(why))));
    lines
}

/// The same in one line: as far as the first function of the program's own.
pub(crate) fn writer_in_short(writer: &Writer) -> String {
    let own = writer.own().map_or(writer.frames.len(), |own| own + 1);
    let frames: Vec<_> = writer.frames.iter().take(own).map(frame).collect();
    let frames = frames.join(" < ");
    if writer.how.is_empty() { frames } else { format!("{}: {frames}", visible(&writer.how)) }
}

/// Bytes by reason: `EIO 4,096, EPERM 8,192`.
pub(crate) fn shares(shares: &[Share]) -> String {
    let shown: Vec<_> =
        shares.iter().map(|share| format!("{} {}", visible(&share.why), grouped(share.bytes))).collect();
    shown.join(", ")
}

/// Whether a checkpoint was looked at, and if not why.
pub(crate) fn looked(looked: &Looked) -> String {
    match looked {
        Looked::Yes => "looked at".to_owned(),
        Looked::Missed(why) => format!("missed: {}", visible(why)),
        Looked::NotLookedAt(why) => format!("not looked at: {}", visible(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_text_around() {
        let shown = visible("a\u{1b}[2J\nb\u{202e}c\u{200b}");

        assert_eq!(shown, "a\\u{1b}[2J\\nb\\u{202e}c\\u{200b}");
    }

    #[test]
    fn an_ordinary_name_stays_as_it_is() {
        assert_eq!(visible("/usr/lib/größe.so (deleted)"), "/usr/lib/größe.so (deleted)");
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        let shown = [0, 12, 123, 1234, 123_456, 1_234_567, u64::MAX].map(grouped);

        assert_eq!(shown, ["0", "12", "123", "1,234", "123,456", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn almost_all_is_not_rounded_up_to_all() {
        let shown =
            [(0, 5), (1, 100_000), (1, 3), (99_999, 100_000), (7, 7), (0, 0)].map(|(part, of)| percent(part, of));

        assert_eq!(shown, ["0 %", "< 0.1 %", "33.3 %", "99.9 %", "100.0 %", "0 %"]);
    }

    #[test]
    fn small_chances_keep_their_size() {
        assert_eq!([0.0, 3.25, 0.000_032].map(chance), ["0.00", "3.25", "3.2e-5"]);
    }
}
