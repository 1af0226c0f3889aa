//! What the fuzz targets check: properties that hold for any input. Each panics when one does not.

use std::io::Write;
use std::sync::atomic::AtomicBool;

use crate::program::{self, Options, ProgramError, Sight};
use crate::progress::Nobody;
use crate::scan::brute;
use crate::session::Shown;
use crate::snapshot::{self, Part};
use crate::sys;
use crate::variants::FORMS;

/// Any bytes, taken as a core file and as a core that is unpacked: no panic, no more bytes handed on than the file has, and the parts add up.
///
/// # Panics
///
/// When a property does not hold, or when a temporary file cannot be written.
pub fn core(data: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("write it");
    let mut handed_on = 0;
    let coverage = snapshot::read_core(&file, |part, address, bytes| {
        handed_on += bytes.len();
        if part != Part::Memory {
            let start = usize::try_from(address).expect("an offset in the file");
            assert_eq!(data.get(start..start + bytes.len()), Some(bytes));
        }
    });
    assert!(handed_on <= data.len());
    if let Ok(coverage) = coverage {
        assert_eq!(coverage.read, handed_on as u64);
        // A header may list more than can be counted; then nothing may pass for complete.
        assert!(coverage.adds_up() || coverage.refused_bytes() > 0);
    }
    let mut streamed = 0;
    let coverage =
        snapshot::read_core_stream(&mut &data[..], &AtomicBool::new(false), |_, _, bytes| streamed += bytes.len());
    assert!(streamed <= data.len());
    if let Ok(coverage) = coverage {
        assert_eq!(coverage.read, streamed as u64);
        assert!(coverage.adds_up() || coverage.refused_bytes() > 0);
    }
}

/// Any bytes, taken as needles, haystack and chunk lengths: the index finds what the naive search finds.
///
/// # Panics
///
/// When they disagree.
pub fn scan(data: &[u8]) {
    crate::scan::oracle(data);
}

/// A place in memory at a residue: process, address, bytes, form, and the bytes of the secret that it shows.
pub type Place = (u32, u64, u64, findings::Form, (u64, u64));

/// One run of a program, searched twice.
#[derive(Debug)]
pub struct Twice {
    /// What the harness says of it.
    pub outcome: findings::Outcome,
    /// What it found in memory at its moments.
    pub found: Vec<Place>,
    /// What a search by brute force finds in the same bytes, read at the same stops.
    pub brute: Vec<Place>,
    /// Bytes of those images.
    pub bytes: u64,
}

/// Runs a program once, keeps all memory that is read at its moments, and searches it by brute force too.
///
/// # Errors
///
/// As [`program::run`].
pub fn program(options: &Options) -> Result<Twice, ProgramError> {
    let needles = program::Needles::draw(options)?;
    let mut images: Vec<(u32, u64, Vec<u8>)> = Vec::new();
    let mut witness = |sight: Sight<'_>| {
        let Sight::Shown { process, shown: Shown::Memory(at, bytes), .. } = sight else { return };
        match images.last_mut() {
            Some((last, start, image)) if *last == process && *start + image.len() as u64 == at => {
                image.extend_from_slice(bytes);
            }
            _ => images.push((process, at, bytes.to_vec())),
        }
    };
    let (outcome, _) = program::once(options, &needles, &AtomicBool::new(false), &Nobody, &mut witness)?;
    let in_memory = |finding: &&findings::Finding| finding.rule.class.is_in_memory();
    let mut found: Vec<Place> = outcome
        .findings
        .iter()
        .filter(in_memory)
        .map(|finding| {
            let shown = (finding.secret_offset, finding.secret_length);
            (finding.process, finding.address, finding.length, finding.rule.form, shown)
        })
        .collect();
    let secret = [needles.canary().bytes()];
    let mut brute: Vec<Place> = Vec::new();
    for (process, at, image) in &images {
        let matches = brute::find(&secret, &FORMS, options.min_length, *at, image);
        brute.extend(
            matches
                .iter()
                .map(|hit| (*process, hit.address, hit.length, hit.form, (hit.secret_offset, hit.secret_length))),
        );
    }
    let bytes = images.iter().map(|(_, _, image)| image.len() as u64).sum();
    for (_, _, image) in &mut images {
        zeroize::Zeroize::zeroize(image);
    }
    found.sort_unstable();
    brute.sort_unstable();
    Ok(Twice { outcome, found, brute, bytes })
}

/// Is called with the secret, the moment, a process's number in the tree, and its pid.
pub type Looker<'a> = dyn FnMut(&[u8], &str, u32, i32) + 'a;

/// Runs a program once, and calls `look` with the secret, the moment, the process's number in the tree and its pid
/// wherever one stands still to be searched: at `planted`, where the secret was just seen, and at each moment that was
/// asked for.
///
/// # Errors
///
/// As [`program::run`].
pub fn frozen(options: &Options, look: &mut Looker<'_>) -> Result<findings::Outcome, ProgramError> {
    let needles = program::Needles::draw(options)?;
    let mut witness = |sight: Sight<'_>| {
        if let Sight::Still { moment, process, pid } = sight {
            look(needles.canary().bytes(), moment, process, pid);
        }
    };
    Ok(program::once(options, &needles, &AtomicBool::new(false), &Nobody, &mut witness)?.0)
}

/// The general registers of a thread that stands still, and its extended state in the layout of XSAVE: as the kernel
/// hands them out, nothing put together. Called by the thread that traces it.
///
/// # Errors
///
/// What ptrace(2) refuses with: `ESRCH` for a thread that is gone or runs.
pub fn registers(thread: i32) -> std::io::Result<[Vec<u8>; 2]> {
    let thread = nix::unistd::Pid::from_raw(thread);
    Ok([sys::general_registers(thread)?, sys::vector_registers(thread)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_seed(target: &str, oracle: fn(&[u8])) {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let seeds: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();

        assert!(!seeds.is_empty());
        for seed in seeds {
            oracle(&std::fs::read(seed).unwrap());
        }
    }

    #[test]
    fn every_seed_of_the_core_target_passes_its_oracle() {
        every_seed("core", core);
    }

    #[test]
    fn every_seed_of_the_scan_target_passes_its_oracle() {
        every_seed("scan", scan);
    }
}
