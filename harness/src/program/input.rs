//! Our standard input, for a program that is not fed there: the same bytes in every run.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::{Feed, ProgramError};

/// Device number of `/dev/null`: 1, 3 (Documentation/admin-guide/devices.txt).
const DEV_NULL: u64 = libc::makedev(1, 3);

/// What the runs behind the first find on their standard input.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Where our file stood before the first run; `None` for nothing at all.
    offset: Option<u64>,
}

impl Input {
    /// Looks what our standard input is, before anything has read from it.
    ///
    /// # Errors
    ///
    /// [`ProgramError::Input`] for one that can be read only once.
    pub(super) fn ours(feed: &Feed) -> Result<Self, ProgramError> {
        if matches!(feed, Feed::Stdin | Feed::Pty) {
            return Ok(Self::default());
        }
        let Ok(meta) = std::fs::metadata(OURS) else { return Ok(Self::default()) }; // closed
        let kind = meta.file_type();
        let refuse = |what| Err(ProgramError::Input { what });
        if kind.is_char_device() && meta.rdev() == DEV_NULL {
            Ok(Self::default())
        } else if kind.is_file() {
            let offset = nix::unistd::lseek(std::io::stdin(), 0, nix::unistd::Whence::SeekCur);
            let input = Self { offset: Some(offset.map_or(0, i64::cast_unsigned)) };
            if input.again().is_ok() { Ok(input) } else { refuse("a file that cannot be opened again") }
        } else if kind.is_fifo() {
            refuse("a pipe")
        } else if kind.is_socket() {
            refuse("a socket")
        } else if kind.is_char_device() {
            refuse("a terminal or another device")
        } else {
            refuse("no file")
        }
    }

    /// The same bytes again; `None` where there are none.
    pub(super) fn again(&self) -> std::io::Result<Option<File>> {
        let Some(offset) = self.offset else { return Ok(None) };
        let mut file = File::open(OURS)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Some(file))
    }
}

/// Opened, it is the same file with a place of its own in it.
const OURS: &str = "/proc/self/fd/0";
