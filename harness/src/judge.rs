//! From what was seen to what may be said. Pure: a row and a record in, an outcome out.

use findings::{CORE, Controls, Coverage, Finding, Form, Kept, Looked, Observation, Outcome, Rule, Verdict};
use scenario_protocol::{Checkpoint, Claim, Expectation, Row, Shape};

use crate::session::{Hit, Look, Record};

/// Needle number of the canary; decoys count on from it.
pub(crate) const CANARY: u32 = 0;

/// Needle number of what a row makes of its canary, wherever it stood among the needles that were searched for.
pub(crate) const DERIVED: u32 = u32::MAX;

/// Judges one row.
///
/// `required` names the abilities without which nothing is conclusive (`core`).
pub(crate) fn judge(row: &Row, record: &Record, decoys: u32, required: &[String]) -> Outcome {
    let controls = controls(record, decoys);
    let findings = findings(row, record);
    let mut reasons = doubts(row, record, &controls, required);
    let seen = seen(&findings, &reasons, controls.decoy_hits);
    let (verdict, as_expected) = match &row.expect {
        Expectation::Clean(_) => (seen, seen == Verdict::Clean),
        Expectation::Leak { at, shape } => {
            // A control that is not found where it must be says that the instrument cannot see.
            reasons.extend(shortfall(&findings, *at, *shape));
            reasons.extend(surplus(row, record));
            let verdict = if reasons.is_empty() { seen } else { Verdict::Inconclusive };
            (verdict, verdict == Verdict::Leak)
        }
        Expectation::Either(_) => {
            let verdict = if reasons.is_empty() { seen } else { Verdict::Inconclusive };
            (verdict, verdict != Verdict::Inconclusive)
        }
    };
    Outcome {
        scenario: row.name.clone(),
        holder: row.holder.clone(),
        ending: row.ending.clone(),
        expectation: row.expect.to_string(),
        control: row.expect.is_leaky_control(),
        verdict,
        as_expected,
        reasons,
        ended: ended(record),
        observations: record.looks.iter().map(observed).collect(),
        controls,
        findings,
        shows: row.shows.clone(),
    }
}

/// What findings and doubts allow to be said. A leak is a leak even if not everything could be seen, unless decoys
/// were hit: then the instrument sees what is not there.
pub(crate) fn seen(findings: &[Finding], doubts: &[String], decoy_hits: u32) -> Verdict {
    match (findings.is_empty(), doubts.is_empty()) {
        (false, _) if decoy_hits == 0 => Verdict::Leak,
        (true, true) => Verdict::Clean,
        _ => Verdict::Inconclusive,
    }
}

fn ended(record: &Record) -> String {
    record.ended.map_or_else(|| "an end that was not seen".to_owned(), |ends| ends.to_string())
}

/// A row that could not be run at all.
pub(crate) fn unrunnable(row: &Row, why: String) -> Outcome {
    let record = Record { troubles: vec![why], ..Record::default() };
    judge(row, &record, 0, &[])
}

fn controls(record: &Record, decoys: u32) -> Controls {
    let planted = record.looks.iter().filter(|look| look.checkpoint == Checkpoint::Planted);
    Controls {
        planted: count(
            planted
                .flat_map(|look| &look.hits)
                .filter(|hit| is_canary(hit) && hit.found.whole && !hit.found.form.is_derived()),
        ),
        decoys,
        decoy_hits: count(record.looks.iter().flat_map(|look| &look.hits).filter(|hit| !is_secret(hit))),
    }
}

/// Whether what a row makes of its canary was seen whole while it was alive; there is nothing to see for most rows.
fn is_derived_planted(row: &Row, record: &Record) -> bool {
    let planted = record.looks.iter().filter(|look| look.checkpoint == Checkpoint::Planted);
    row.derived.is_none() || planted.flat_map(|look| &look.hits).any(|hit| hit.found.needle == DERIVED && is_home(hit))
}

/// How many there are.
pub(crate) fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn is_canary(hit: &Hit) -> bool {
    hit.found.needle == CANARY
}

/// Whether it is the canary, or what is made of it; anything else is a decoy.
fn is_secret(hit: &Hit) -> bool {
    is_canary(hit) || hit.found.needle == DERIVED
}

fn observed(look: &Look) -> Observation {
    observation(look.checkpoint.name(), look, is_secret, |hit| !is_secret(hit))
}

/// What a look showed, in numbers. A hit that is neither the secret nor a decoy counts for nothing here.
pub(crate) fn observation(
    checkpoint: &str,
    look: &Look,
    is_secret: fn(&Hit) -> bool,
    is_decoy: fn(&Hit) -> bool,
) -> Observation {
    let secret = || look.hits.iter().filter(|hit| is_secret(hit));
    Observation {
        checkpoint: checkpoint.to_owned(),
        process: look.process,
        looked: look.looked.clone(),
        threads: look.threads,
        coverage: look.coverage.clone(),
        kept: look.kept.clone(),
        exposure: look.exposure.clone(),
        core: look.core,
        kept_freed: None,
        whole: count(secret().filter(|hit| hit.found.whole)),
        fragments: count(secret().filter(|hit| !hit.found.whole)),
        public: look.public,
        decoy_hits: count(look.hits.iter().filter(|hit| is_decoy(hit))),
    }
}

/// What keeps a look with this coverage from meaning clean.
pub(crate) fn unread(at: &str, coverage: &Coverage) -> Vec<String> {
    let mut doubts: Vec<String> =
        coverage.refused.iter().map(|share| format!("{at}: {} bytes not read: {}", share.bytes, share.why)).collect();
    if !coverage.adds_up() {
        doubts.push(format!("{at}: the parts of the coverage do not add up"));
    }
    if coverage.read == 0 {
        doubts.push(format!("{at}: not one byte was read"));
    }
    doubts
}

/// Residues: the canary anywhere after `planted`, and at `planted` anywhere but in its one home.
fn findings(row: &Row, record: &Record) -> Vec<Finding> {
    findings_by_look(row, record).into_iter().map(|(_, _, finding)| finding).collect()
}

/// The same, each with the index of the look that showed it, and of the hit there.
pub(crate) fn findings_by_look(row: &Row, record: &Record) -> Vec<(usize, usize, Finding)> {
    let mut found = Vec::new();
    let mut homes: [Option<(usize, &Hit)>; 2] = [None; 2]; // one in the whole tree, and one of what is made of the secret
    for (number, look) in record.looks.iter().enumerate() {
        let planted = look.checkpoint == Checkpoint::Planted;
        for (at, hit) in look.hits.iter().enumerate().filter(|(_, hit)| is_secret(hit)) {
            if planted && !row.sole_home {
                continue;
            }
            if planted {
                let home = &mut homes[usize::from(hit.found.needle == DERIVED)];
                let first = || look.hits.iter().find(|one| one.found.needle == hit.found.needle && is_home(one));
                if home.is_none() {
                    *home = first().map(|first| (number, first));
                }
                if home.is_some_and(|(seen, home)| seen == number && is_the_same(hit, home)) {
                    continue;
                }
            }
            let derived = row.derived.as_deref().filter(|_| hit.found.needle == DERIVED);
            found.push((number, at, finding_of(derived, &row.name, look.checkpoint.name(), look.process, hit)));
        }
    }
    found
}

/// Bytes that may fit another form of the secret by chance where it ends: a word of it is itself in any order of words, and
/// what stands beside the home may be anything.
const BESIDE: u64 = 3;

/// Whether a hit is the home, or a piece of it that is seen in another form too.
fn is_the_same(hit: &Hit, home: &Hit) -> bool {
    let (hit, home) = (&hit.found, &home.found);
    let shared =
        (hit.address + hit.length).min(home.address + home.length).saturating_sub(hit.address.max(home.address));
    hit.length - shared.min(hit.length) <= BESIDE
        && (hit.form != Form::Raw || (hit.address, hit.length) == (home.address, home.length))
}

/// Whether this can be where the secret lives: all of it, as it is, in memory.
fn is_home(hit: &Hit) -> bool {
    hit.found.whole && hit.class.is_in_memory() && hit.found.form == Form::Raw
}

/// A finding of the secret, from where and what.
pub(crate) fn finding(scenario: &str, checkpoint: &str, process: u32, hit: &Hit) -> Finding {
    finding_of(None, scenario, checkpoint, process, hit)
}

/// The same of what the target made of the secret, if it is that which has a name.
fn finding_of(derived: Option<&str>, scenario: &str, checkpoint: &str, process: u32, hit: &Hit) -> Finding {
    let rule = Rule { class: hit.class, form: hit.found.form };
    Finding {
        rule,
        scenario: scenario.to_owned(),
        checkpoint: checkpoint.to_owned(),
        process,
        place: hit.place.clone(),
        permissions: hit.permissions.clone(),
        address: hit.found.address,
        length: hit.found.length,
        secret_offset: hit.found.secret_offset,
        secret_length: hit.found.secret_length,
        whole: hit.found.whole,
        derived: derived.map(str::to_owned),
        fingerprint: fingerprint(derived, scenario, checkpoint, process, rule, hit),
        writer: None,
        freed: None,
        unattributed: None,
        repeats: None,
    }
}

/// Names the same residue in another run. Made from names and lengths: addresses change, and a digest of the
/// residue itself would be a digest of the secret.
fn fingerprint(derived: Option<&str>, scenario: &str, checkpoint: &str, process: u32, rule: Rule, hit: &Hit) -> String {
    let rule = rule.to_string();
    let place = if hit.class.is_behind_descriptor() {
        crate::snapshot::stable_part(&hit.place)
    } else {
        hit.place.rsplit('/').next().unwrap_or_default()
    };
    let process = process.to_string();
    let extent = format!("{}+{}", hit.found.secret_offset, hit.found.secret_length);
    let mut hasher = blake3::Hasher::new();
    for part in [scenario, checkpoint, &process, &rule, place, &extent].into_iter().chain(derived) {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Everything that keeps a clean look from meaning clean.
fn doubts(row: &Row, record: &Record, controls: &Controls, required: &[String]) -> Vec<String> {
    let mut doubts = record.troubles.clone();
    if record.interrupted {
        doubts.push("interrupted".to_owned());
    }
    if controls.planted == 0 {
        doubts.push("silent control: the canary was not found whole at planted".to_owned());
    }
    if !is_derived_planted(row, record) {
        doubts.push("silent control: what is made of the canary was not found whole at planted".to_owned());
    }
    if controls.decoys == 0 {
        doubts.push("no decoys were looked for".to_owned());
    }
    if controls.decoy_hits > 0 {
        doubts.push(format!("{} hits of decoys, which were never planted", controls.decoy_hits));
    }
    if record.ended != Some(row.ends) {
        doubts.push(format!("ended with {}, not with {}", ended(record), row.ends));
    }
    for look in &record.looks {
        doubts.extend(doubts_of_look(row, look, required));
    }
    if row.expect == Expectation::Clean(Claim::Wiped) {
        doubts.extend(record.looks.iter().filter_map(|look| unseen_wipe(look, record)));
    }
    doubts
}

fn doubts_of_look(row: &Row, look: &Look, required: &[String]) -> Vec<String> {
    let at = look.checkpoint;
    match &look.looked {
        Looked::Missed(why) => return vec![format!("{at} missed: {why}")],
        Looked::NotLookedAt(why) if at == Checkpoint::Core && required.iter().any(|name| name == CORE) => {
            return vec![format!("{at} required but not looked at: {why}")];
        }
        Looked::NotLookedAt(_) => return Vec::new(),
        Looked::Yes => {}
    }
    let mut doubts = unread(at.name(), &look.coverage);
    doubts.extend(unread_behind_descriptors(at.name(), look.kept.as_ref()));
    let left = look.kept.as_ref().map_or(0, |kept| kept.bytes.excluded_bytes());
    if left > 0 {
        doubts.push(format!("{at}: {left} bytes in the pipe that brings the canary, which a scenario reads empty"));
    }
    // "Shielded" needs something that was shielded, at the moment that the row is about.
    if at == Checkpoint::Exit
        && look.process == 1
        && row.expect == Expectation::Clean(Claim::Shielded)
        && look.coverage.shielded == 0
    {
        doubts.push(format!("{at}: no shielded memory seen"));
    }
    doubts
}

/// What keeps a look behind the descriptors of a process from meaning clean.
pub(crate) fn unread_behind_descriptors(at: &str, kept: Option<&Kept>) -> Vec<String> {
    let Some(kept) = kept else { return Vec::new() };
    let refused = kept.bytes.refused.iter();
    let mut doubts: Vec<String> = refused
        .map(|share| format!("{at}: {} bytes behind descriptors not read: {}", share.bytes, share.why))
        .collect();
    if !kept.bytes.adds_up() {
        doubts.push(format!("{at}: the parts of what lies behind descriptors do not add up"));
    }
    doubts
}

/// Why a look with shielded memory does not show that the bytes are gone.
///
/// "Wiped" means that the shielded memory was read too. Nothing can be injected at the exit stop, so there it is
/// enough that the same process was read in full at a stop before, after the secret was planted.
fn unseen_wipe(look: &Look, record: &Record) -> Option<String> {
    let in_full = |other: &Look| {
        other.process == look.process
            && !matches!(other.checkpoint, Checkpoint::Planted | Checkpoint::Exit | Checkpoint::Core)
            && other.looked == Looked::Yes
            && other.coverage.shielded == 0
            && other.coverage.refused.is_empty()
    };
    let excused = look.checkpoint == Checkpoint::Exit && record.looks.iter().any(in_full);
    (look.coverage.shielded > 0 && !excused).then(|| {
        format!("{}: {} shielded bytes not read, so not seen to be wiped", look.checkpoint, look.coverage.shielded)
    })
}

/// What a limit of the library shows besides its one copy at its one home: that is a leak of another kind, which the
/// row does not excuse.
fn surplus(row: &Row, record: &Record) -> Option<String> {
    let more = |look: &&Look| {
        let hits = || look.hits.iter().filter(|hit| is_secret(hit));
        hits().count() > 1 || hits().any(|hit| !is_home(hit))
    };
    let look = record.looks.iter().filter(|_| row.sole_home).find(more)?;
    Some(format!("{}: more than the one copy at the one home of the secret", look.checkpoint))
}

/// Why a leaky control was not found as it must be.
fn shortfall(findings: &[Finding], at: Checkpoint, shape: Shape) -> Option<String> {
    let there = || findings.iter().filter(|finding| finding.checkpoint == at.name());
    match shape {
        _ if there().next().is_none() => Some(format!("the leaky control was not found at {at}")),
        Shape::Whole if !there().any(|finding| finding.whole) => {
            Some(format!("the leaky control was found at {at} in fragments only"))
        }
        Shape::Fragments if findings.iter().any(|finding| finding.whole) => {
            Some("the leaky control was found whole, not in fragments alone".to_owned())
        }
        Shape::Whole | Shape::Fragments => None,
    }
}

#[cfg(test)]
mod tests;
