//! Pieces of the secret that anybody can read in the program itself: what keys of a kind begin with (`AGE-SECRET-KEY-1`),
//! a fixed header, a name. They stand in its file, and are there in a run with another secret as well.
//!
//! A piece counts as such if it is less than half of the secret and stands, as it does in memory, in a file of which some
//! part is mapped as code, that nobody has changed since the run began. The same bytes of the secret then say nothing
//! elsewhere either. All of the secret in such a file is a finding: it is hard-coded.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use findings::Class;

use crate::scan::{Index, Scanner};
use crate::session::Hit;
use crate::snapshot::Region;
use crate::target::Process;

/// How far the kernel's stamps on files may lag behind the clock: a tick, of 10 ms at most.
const TICK: Duration = Duration::from_millis(10);

/// The stretches of each needle that anybody can read. `began` is when the first process started.
pub(crate) fn known(
    hits: &[Hit],
    regions: &[Region],
    process: &Process,
    began: SystemTime,
    index: &Index,
) -> BTreeSet<(u32, u64, u64)> {
    hits.iter()
        .filter(|hit| is_small(hit, index) && stands_in_its_file(hit, regions, process, began, index))
        .map(|hit| {
            let found = &hit.found;
            (found.needle, found.secret_offset, found.secret_offset + found.secret_length)
        })
        .collect()
}

/// Whether a hit shows nothing but such a stretch.
pub(crate) fn is_public(hit: &Hit, known: &BTreeSet<(u32, u64, u64)>, index: &Index) -> bool {
    let (needle, from) = (hit.found.needle, hit.found.secret_offset);
    let to = from + hit.found.secret_length;
    is_small(hit, index) && known.iter().any(|known| known.0 == needle && known.1 <= from && to <= known.2)
}

fn is_small(hit: &Hit, index: &Index) -> bool {
    !hit.found.whole
        && !hit.found.form.is_derived()
        && 2 * hit.found.secret_length < index.needle_length(hit.found.needle)
}

/// Whether the file behind the mapping shows the same piece at the same place.
///
/// # Source
///
/// inode(7): the time of the last status change moves with every write, and nobody can set it.
fn stands_in_its_file(hit: &Hit, regions: &[Region], process: &Process, began: SystemTime, index: &Index) -> bool {
    let found = &hit.found;
    let at = |region: &&Region| hit.class == Class::File && !region.shared && region.contains(found.address);
    let Some(region) = regions.iter().find(at) else { return false };
    let same_file = |other: &&Region| (other.device, other.inode) == (region.device, region.inode);
    if !regions.iter().filter(same_file).any(|other| other.permissions.contains('x')) {
        return false;
    }
    let Ok(file) = File::open(format!("/proc/{}/root{}", process.pid, region.name)) else { return false };
    let Ok(meta) = file.metadata() else { return false };
    let changed = u64::try_from(meta.ctime()).map(Duration::from_secs).unwrap_or(Duration::MAX)
        + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or(0));
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if !meta.is_file() || meta.ino() != region.inode || changed + TICK >= began {
        return false;
    }
    let mut bytes = vec![0; usize::try_from(found.length).unwrap_or(0)];
    if file.read_exact_at(&mut bytes, region.offset + (found.address - region.start)).is_err() {
        return false;
    }
    let mut scanner = Scanner::new(index);
    scanner.feed(found.address, &bytes);
    scanner.finish().contains(found)
}
