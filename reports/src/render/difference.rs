//! What two keys make of a program's memory, for a terminal.

use std::fmt::Write;

use findings::{Class, Difference, Stretch};

use crate::words::{count, grouped, visible};

/// Stretches that are listed, and those of the noise; the JSON has all.
const LISTED: usize = 40;
const LISTED_NOISE: usize = 5;

/// Renders it, complete with its last newline.
pub(crate) fn render(difference: &Difference) -> String {
    let bytes = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX), "byte");
    let (keyed, noise) = (difference.keyed_bytes(), difference.noise_bytes());
    let verdict = difference.verdict.name().to_uppercase();
    let mut text = match keyed {
        0 => format!("{verdict}  No byte was seen to depend on the key.\n"),
        _ => {
            let unexplained = grouped(difference.unexplained_bytes());
            format!(
                "{verdict}  {} depend on the key, {unexplained} of them in no form that a search knows.\n",
                bytes(keyed)
            )
        }
    };
    list(&mut text, &difference.keyed, LISTED);
    if difference.found > 0 {
        let found = count(difference.found as usize, "residue");
        let _ = writeln!(text, "  a search for known forms finds {found}: `residue run` lists them");
    }
    for reason in &difference.reasons {
        let _ = writeln!(text, "  why: {}", visible(reason));
    }
    list(&mut text, &difference.unknown, LISTED);
    let (made, runs) = (count(difference.made as usize, "run"), difference.runs);
    let _ = writeln!(
        text,
        "  {}: {made}, {runs} with each of two keys and {runs} more with the first",
        visible(&difference.subject)
    );
    let (compared, restless) = (bytes(difference.compared), grouped(difference.restless));
    let _ = writeln!(text, "  {compared} compared; {restless} more changed between runs with one key");
    let _ = writeln!(text, "  noise: {} differ between the two groups of runs with the first key", bytes(noise));
    list(&mut text, &difference.noise, LISTED_NOISE);
    text
}

fn list(text: &mut String, stretches: &[Stretch], most: usize) {
    stretches.iter().take(most).for_each(|stretch| line(text, stretch));
    if stretches.len() > most {
        let _ = writeln!(text, "    and {} more places", grouped((stretches.len() - most) as u64));
    }
}

fn line(text: &mut String, stretch: &Stretch) {
    let place = match stretch.place.as_str() {
        "" => "anonymous memory".into(),
        place => visible(place),
    };
    let Stretch { checkpoint, process, class, address, differing, length, known, addresses, .. } = stretch;
    let at = visible(checkpoint);
    let process = if *process == 1 { String::new() } else { format!(", process {process}") };
    let address = match class {
        Class::Register => String::new(),
        _ => format!(" at {address:#x}"),
    };
    let known = match known {
        0 => String::new(),
        known if known == differing => ", in a known form".to_owned(),
        known => format!(", {known} of them in a known form"),
    };
    let addresses = match addresses {
        0 => String::new(),
        addresses if addresses == differing => ", of addresses".to_owned(),
        addresses => format!(", {addresses} of them of addresses"),
    };
    let class = class.name();
    let _ = writeln!(
        text,
        "    {class} at {at}{process}: {differing} of {length} bytes in {place}{address}{known}{addresses}"
    );
}

#[cfg(test)]
mod tests {
    use findings::{DIFFERENCE_SCHEMA, Verdict};

    use super::*;

    fn stretch(class: Class, place: &str, address: u64, known: u64) -> Stretch {
        let (checkpoint, process, length, differing) = ("exit".to_owned(), 1, 33, 32);
        Stretch { checkpoint, process, class, place: place.to_owned(), address, length, differing, known, addresses: 0 }
    }

    fn difference() -> Difference {
        Difference {
            schema: DIFFERENCE_SCHEMA.to_owned(),
            subject: "mask".to_owned(),
            runs: 4,
            made: 12,
            compared: 1_234_567,
            restless: 24,
            unpaired: 0,
            keyed: vec![
                stretch(Class::Heap, "[heap]", 0x5555_5555_92a0, 0),
                Stretch { process: 2, ..stretch(Class::Anonymous, "", 0x7fff_f7d8_0000, 32) },
                stretch(Class::Register, "ymm3 of thread 1", 0, 5),
            ],
            noise: vec![stretch(Class::Stack, "[stack]", 0x7fff_ffff_e000, 0)],
            unknown: Vec::new(),
            found: 1,
            verdict: Verdict::Leak,
            reasons: vec!["a \x1b[31mreason".to_owned()],
        }
    }

    #[test]
    fn a_difference_for_a_terminal() {
        insta::assert_snapshot!(render(&difference()));
    }

    #[test]
    fn a_clean_one_shows_its_noise_too() {
        let (keyed, noise) = (Vec::new(), Vec::new());
        let clean = Difference { keyed, noise, found: 0, verdict: Verdict::Clean, reasons: Vec::new(), ..difference() };

        let text = render(&clean);

        assert!(text.starts_with("CLEAN  No byte was seen to depend on the key.\n"), "{text}");
        assert!(text.contains("noise: 0 bytes differ"), "{text}");
    }

    #[test]
    fn a_long_list_says_how_much_it_leaves_out() {
        let keyed = vec![stretch(Class::Heap, "[heap]", 0x1000, 0); 43];

        assert!(render(&Difference { keyed, ..difference() }).contains("and 3 more places"));
    }
}
