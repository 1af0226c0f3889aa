//! From what a run of a program showed to what may be said. Pure.

use findings::{Class, Controls, Finding, Looked, Observation, Outcome, Verdict};

use super::follow::{Record, Role, Seen};
use super::{Moment, Options};
use crate::judge::{self, CANARY, count};
use crate::scan::keys;
use crate::session::Hit;

/// Judges one run.
pub(super) fn outcome(options: &Options, record: &Record, decoys: u32) -> Outcome {
    outcome_at(options, &options.name(), &options.moments, record, decoys)
}

/// The same, under a name of its own, of a run that was looked at at these moments.
pub(super) fn outcome_at(options: &Options, name: &str, moments: &[Moment], record: &Record, decoys: u32) -> Outcome {
    let decoy_hits = count(record.seen.iter().flat_map(|seen| &seen.look.hits).filter(|hit| is_decoy(hit)));
    let whole = |role: fn(Role) -> bool| {
        let looks = record.seen.iter().filter(|seen| role(seen.role));
        count(looks.flat_map(|seen| &seen.look.hits).filter(|hit| is_canary(hit) && hit.found.whole))
    };
    // A copy that is found whole at the end was there before, whether or not a look caught its arrival.
    let planted = match whole(|role| role == Role::Control) {
        0 => whole(|_| true),
        planted => planted,
    };
    let controls = Controls { planted, decoys, decoy_hits };
    let findings: Vec<Finding> = findings_by_look(name, record).map(|(_, _, finding)| finding).collect();
    let reasons = doubts(options, moments, record, &controls);
    let verdict = judge::seen(&findings, &reasons, decoy_hits);
    Outcome {
        scenario: name.to_owned(),
        holder: options.name(),
        ending: moments.iter().map(Moment::name).collect::<Vec<_>>().join(", "),
        expectation: "clean".to_owned(),
        control: false,
        verdict,
        as_expected: verdict == Verdict::Clean,
        reasons,
        ended: record.ended.map_or_else(|| "killed by the harness".to_owned(), |ends| ends.to_string()),
        observations: record.seen.iter().map(observation).collect(),
        controls,
        findings,
        shows: Vec::new(),
    }
}

/// The residues, each with the look that showed it, and the index of the hit there.
pub(super) fn findings_by_look<'a>(name: &str, record: &'a Record) -> impl Iterator<Item = (&'a Seen, usize, Finding)> {
    let hits =
        record.seen.iter().flat_map(|seen| seen.look.hits.iter().enumerate().map(move |(at, hit)| (seen, at, hit)));
    hits.filter(|(seen, _, hit)| !is_decoy(hit) && is_residue(seen, hit))
        .map(move |(seen, at, hit)| (seen, at, judge::finding(name, &seen.moment, seen.look.process, hit)))
}

fn is_canary(hit: &Hit) -> bool {
    hit.found.needle == CANARY
}

fn is_decoy(hit: &Hit) -> bool {
    !is_canary(hit) && hit.found.needle != keys::UNKNOWN
}

fn is_residue(seen: &Seen, hit: &Hit) -> bool {
    match seen.role {
        Role::Control => false,
        Role::Residue => true,
        Role::SecretMemory => hit.class == Class::SecretMemory,
    }
}

fn observation(seen: &Seen) -> Observation {
    let at = match seen.role {
        Role::SecretMemory => "exit-call",
        Role::Control | Role::Residue => &seen.moment,
    };
    Observation { kept_freed: seen.kept_freed, ..judge::observation(at, &seen.look, is_canary, is_decoy) }
}

/// Everything that keeps a clean look from meaning clean.
fn doubts(options: &Options, moments: &[Moment], record: &Record, controls: &Controls) -> Vec<String> {
    let mut doubts = record.troubles.clone();
    if options.unknown_keys {
        doubts.extend(keys::silent());
    }
    if record.interrupted {
        doubts.push("interrupted".to_owned());
    }
    if controls.planted == 0 {
        doubts.push(
            "silent control: the secret was never seen whole in the target, so it may never have arrived".to_owned(),
        );
    }
    if controls.decoy_hits > 0 {
        doubts.push(format!("{} hits of decoys, which were never planted", controls.decoy_hits));
    }
    for moment in moments {
        let name = moment.name();
        if !record.seen.iter().any(|seen| seen.moment == name && seen.role == Role::Residue) {
            doubts.push(format!("{name} missed: {}", moment.missed()));
        }
    }
    for seen in record.seen.iter().filter(|seen| seen.role != Role::Control) {
        doubts.extend(doubts_of_look(seen, &record.seen));
    }
    doubts
}

fn doubts_of_look(seen: &Seen, all: &[Seen]) -> Vec<String> {
    let (at, look) = (&seen.moment, &seen.look);
    if let Looked::Missed(why) | Looked::NotLookedAt(why) = &look.looked {
        return vec![format!("{at} missed: {why}")];
    }
    let mut doubts = judge::unread(at, &look.coverage);
    // What waits behind descriptors at the last call waits there at the end too, and is looked at then.
    if seen.role == Role::Residue {
        doubts.extend(judge::unread_behind_descriptors(at, look.kept.as_ref()));
    }
    // At the exit stop nothing can be injected; what was read just before, at the call that ends the process, counts.
    let injected = all
        .iter()
        .filter(|other| other.role == Role::SecretMemory && other.look.process == look.process && *at == other.moment)
        .map(|other| other.look.coverage.injected)
        .max()
        .unwrap_or(0);
    if look.coverage.shielded > injected {
        doubts.push(format!("{at}: {} bytes of memfd_secret memory not read", look.coverage.shielded - injected));
    }
    doubts
}
