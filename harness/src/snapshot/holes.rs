//! Where files hold bytes and where they hold none.

use std::fs::File;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// The next bytes between two offsets that a file holds: where they begin and end. Both are `end` when there are none;
/// what cannot be asked counts as data. Moves the place at which the file is read next.
///
/// # Source
///
/// lseek(2), *Seeking file data and holes*.
pub(crate) fn next_data(file: &File, at: u64, end: u64) -> (u64, u64) {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
        lseek(file, from, whence).map(|offset| offset.cast_unsigned())
    };
    let data = match seek(at, Whence::SeekData) {
        Ok(data) => data.clamp(at, end),
        Err(Errno::ENXIO) => end,
        Err(_) => at,
    };
    let hole = if data == end { end } else { seek(data, Whence::SeekHole).unwrap_or(end).clamp(data, end) };
    if hole == data && data < end { (data, end) } else { (data, hole) }
}
