//! Where files hold bytes and where they hold none.

use std::fs::File;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::PAGE;

/// The next bytes between two offsets that a file holds: where they begin and end. Both are `end` when there are none;
/// what cannot be asked counts as data, and a file system that does not tell has no holes. Moves the place at which the
/// file is read next.
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
        Ok(data) => data.max(at),
        Err(Errno::ENXIO) => end, // nothing from here to the end of the file
        Err(_) => return (at, end),
    };
    if data >= end {
        return (end, end);
    }
    match seek(data, Whence::SeekHole) {
        Ok(hole) => (data, hole.max(data + 1).min(end)), // a file that changes meanwhile must not stop us
        Err(_) => (data, end),
    }
}

/// What of a hole the scan must see: its first and its last page, or all of it if it is no longer than one. A secret that
/// begins or ends in zero bytes may lean on them.
pub(crate) fn edges(start: u64, end: u64) -> impl Iterator<Item = (u64, &'static [u8])> {
    static ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];
    let length = (end - start).min(PAGE);
    let zeroes = &ZEROES[..usize::try_from(length).unwrap_or_default()];
    let second = (end - start > PAGE).then_some((end - length, zeroes));
    (length > 0).then_some((start, zeroes)).into_iter().chain(second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// 64 MiB of which one page holds something, or nothing if the file system here has no holes.
    fn sparse() -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[1], 32 << 20).unwrap();
        let (data, _) = next_data(&file, 0, 64 << 20);
        if data == 0 {
            eprintln!("skipped: the temporary directory's file system tells no holes");
            return None;
        }
        Some(file)
    }

    #[test]
    fn what_a_file_holds_is_told_between_its_holes() {
        let Some(file) = sparse() else { return };

        let (data, hole) = next_data(&file, 0, 64 << 20);

        assert!(data <= 32 << 20 && hole > 32 << 20 && hole - data <= 1 << 20, "{data} {hole}");
        assert_eq!(next_data(&file, hole, 64 << 20), (64 << 20, 64 << 20));
        assert_eq!(next_data(&file, 0, 1 << 20), (1 << 20, 1 << 20));
    }

    #[test]
    fn what_cannot_be_asked_counts_as_data() {
        let (read, _write) = nix::unistd::pipe().unwrap();

        assert_eq!(next_data(&read.into(), 5, 10), (5, 10));
    }

    #[test]
    fn of_a_hole_its_first_and_its_last_page_are_seen() {
        let seen = |start, end| edges(start, end).map(|(at, zeroes)| (at, zeroes.len())).collect::<Vec<_>>();

        assert_eq!(seen(0, 10 * PAGE), [(0, 4096), (9 * PAGE, 4096)]);
        assert_eq!(seen(100, 300), [(100, 200)]);
        assert_eq!(seen(7, 7), []);
    }
}
