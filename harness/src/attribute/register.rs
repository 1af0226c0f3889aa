//! Who put residues into registers: two more runs for all of them, one to find between which two system calls each came
//! there, and one in single steps between these two.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{ATTEMPTS, Names, Seen, Sighting, Subject, Wanted, Watching};
use crate::sweep::grouped;
use crate::target::{TRAIL_STEPS, Trail};

/// Residues in registers that are asked for.
const MOST: usize = 64;

/// Names the writers of the findings in registers.
pub(super) fn search(
    subject: &impl Subject,
    wanted: &mut [Wanted<'_>],
    names: &Names,
    interrupted: &AtomicBool,
) -> Result<(), String> {
    for more in wanted.iter_mut().filter(|wanted| wanted.is_register()).skip(MOST) {
        more.give_up(&format!("more than {MOST} residues in registers"));
    }
    let mut open: Vec<(&mut Wanted<'_>, String)> = wanted
        .iter_mut()
        .filter(|wanted| wanted.is_register() && wanted.is_open())
        .map(|wanted| (wanted, String::new()))
        .collect();
    for attempt in 0..ATTEMPTS {
        if open.iter().all(|(wanted, _)| !wanted.is_open()) {
            break;
        }
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        // The latter half with all that can be made the same.
        attempt_all(subject, &mut open, names, attempt >= ATTEMPTS / 2 && subject.can_be_pinned())?;
    }
    for (wanted, why) in open.iter_mut().filter(|(wanted, _)| wanted.is_open()) {
        wanted.give_up(why);
    }
    Ok(())
}

/// One attempt for all that are open. Beside each stands why it has no writer.
fn attempt_all(
    subject: &impl Subject,
    open: &mut [(&mut Wanted<'_>, String)],
    names: &Names,
    pinned: bool,
) -> Result<(), String> {
    let plain = subject.run(None, pinned)?;
    // Which of the open ones, and what is followed for it.
    let mut trails: Vec<Trail> = Vec::new();
    let mut owners: Vec<usize> = Vec::new();
    for (number, (wanted, why)) in open.iter_mut().enumerate().filter(|(_, (wanted, _))| wanted.is_open()) {
        match wanted.among(&plain).and_then(|sighting| sighting.spot.clone()) {
            Some((born, part)) => {
                trails.push(Trail { born, part, from: None });
                owners.push(number);
            }
            None => *why = format!("it did not show again in {ATTEMPTS} runs with a fixed layout"),
        }
    }
    let coarse = subject.run(Some(&Watching { words: &[], trails: &trails, images: &names.images }), pinned)?;
    let mut keep = vec![true; trails.len()];
    for (at, number) in owners.iter().enumerate() {
        let (wanted, why) = &mut open[*number];
        match there(wanted, &coarse, &trails[at]).and_then(|sighting| sighting.writings.get(at)) {
            Some(writing) => trails[at].from = Some(writing.from),
            None => {
                *why = format!("it did not stand in the same place again in {ATTEMPTS} runs with a fixed layout");
                keep[at] = false;
            }
        }
    }
    // What has no window would be looked for anew, and cost nothing; but it has its reason.
    let fine = subject.run(Some(&Watching { words: &[], trails: &trails, images: &names.images }), pinned)?;
    for (at, number) in owners.iter().enumerate().filter(|(at, _)| keep[*at]) {
        let (wanted, why) = &mut open[*number];
        let Some(sighting) = there(wanted, &fine, &trails[at]) else {
            *why = format!("it did not stand in the same place again in {ATTEMPTS} runs with a fixed layout");
            continue;
        };
        let Some(writing) = sighting.writings.get(at) else {
            "its thread was not followed".clone_into(why);
            continue;
        };
        if writing.given_up {
            let most = grouped(TRAIL_STEPS);
            wanted.give_up(&format!("the window between two system calls is longer than {most} instructions"));
            continue;
        }
        match writing.writer(&sighting.finding, names) {
            Ok(writer) => {
                wanted.finding.writer = Some(writer);
                wanted.done = true;
            }
            Err(reason) => reason.clone_into(why),
        }
    }
    Ok(())
}

/// The finding in another run, if it lies in the same bytes of the same thread's registers there.
fn there<'a>(wanted: &Wanted<'_>, seen: &'a Seen, trail: &Trail) -> Option<&'a Sighting> {
    wanted.among(seen).filter(|sighting| {
        sighting.spot.as_ref().is_some_and(|(born, part)| *born == trail.born && *part == trail.part)
    })
}
