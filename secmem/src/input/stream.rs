//! From descriptors and files, and to descriptors.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::InputError;
use crate::bytes::{Bytes, Text};
use crate::error::Error;
use crate::secret::{Options, Secret};
use crate::sys;

/// Bytes that room is made for at first, where nobody knows how many will come.
const FIRST: usize = 256;

/// Who may be able to read a file with a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Whoever is: the file may come from a place where permissions say nothing.
    #[default]
    Anyone,
    /// Its owner alone: with a bit of reading for its group or for others it is refused.
    Owner,
}

impl Options {
    /// What `fd` gives until its end.
    ///
    /// # Errors
    ///
    /// [`InputError::TooLong`] if that is more than `limit` bytes, of which one more than those is read; [`Error::Read`] if
    /// reading fails; as [`zeroed`](Self::zeroed).
    pub fn read_to_end(self, fd: BorrowedFd<'_>, limit: usize) -> Result<Bytes, Error> {
        self.read_rest(fd, limit, FIRST)
    }

    /// The next line of `fd`, without its end: a line feed, or a carriage return and one, or the end of all. Nothing behind it
    /// is read, so each byte takes a call of its own. At a terminal, a [`Prompt`](super::Prompt) hides what is typed; this does
    /// not.
    ///
    /// # Errors
    ///
    /// [`InputError::TooLong`] if the line has more than `limit` bytes, after all of it was read; [`InputError::Nothing`] at the
    /// end of `fd`; [`Error::Read`] if reading fails; [`Error::Utf8`]; as [`zeroed`](Self::zeroed).
    pub fn read_line(self, fd: BorrowedFd<'_>, limit: usize) -> Result<Text, Error> {
        let mut line = self.bytes(FIRST.min(limit.saturating_add(2)))?;
        let mut too_long = false;
        loop {
            let got = read_more(&mut line, fd, 1)?;
            if got == 0 && line.is_empty() && !too_long {
                return Err(Error::Input(InputError::Nothing));
            }
            if line.strip(b'\n')? {
                line.strip(b'\r')?;
                break;
            }
            if got == 0 {
                break;
            }
            // One more than the limit may be a carriage return, which is part of the end.
            if line.len() > limit.saturating_add(1) {
                too_long = true;
                line.clear()?; // and on to the end of the line
            }
        }
        if too_long || line.len() > limit {
            return Err(Error::Input(InputError::TooLong { limit }));
        }
        Text::from_utf8(line)
    }

    /// All of a file, which is opened for this process alone (`O_CLOEXEC`) and, if it is a terminal, does not become its own
    /// (`O_NOCTTY`).
    ///
    /// # Errors
    ///
    /// [`InputError::File`] if it cannot be opened, [`InputError::Readable`] if `readers` are to be fewer than may read it; as
    /// [`read_to_end`](Self::read_to_end).
    pub fn read_file(self, path: impl AsRef<Path>, limit: usize, readers: Readers) -> Result<Bytes, Error> {
        let refused = |source| Error::Input(InputError::File { source });
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC).open(path);
        let file = file.map_err(refused)?;
        let about = file.metadata().map_err(refused)?;
        let mode = about.permissions().mode() & 0o7777;
        if readers == Readers::Owner && mode & 0o044 != 0 {
            return Err(Error::Input(InputError::Readable { mode }));
        }
        // One byte more, to see the end without a move.
        let size = usize::try_from(about.len()).unwrap_or(usize::MAX).saturating_add(1);
        self.read_rest(file.as_fd(), limit, size.max(FIRST))
    }

    fn read_rest(self, fd: BorrowedFd<'_>, limit: usize, expected: usize) -> Result<Bytes, Error> {
        let most = limit.saturating_add(1);
        let mut all = self.bytes(expected.min(most))?;
        loop {
            let left = most - all.len();
            if read_more(&mut all, fd, left)? == 0 {
                return Ok(all);
            }
            if all.len() > limit {
                return Err(Error::Input(InputError::TooLong { limit }));
            }
        }
    }
}

/// Adds up to `most` bytes; returns how many, 0 at the end.
pub(super) fn read_more(into: &mut Bytes, fd: BorrowedFd<'_>, most: usize) -> Result<usize, Error> {
    loop {
        let got = into.len();
        match into.append(most, |room| sys::read(fd, room).map_err(|source| (room.len(), source)))? {
            Ok(more) => return Ok(more),
            Err((_, error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err((room, source)) => return Err(Error::Read { wanted: got + room, got, source: Some(source) }),
        }
    }
}

/// write(2) until all is written.
fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Error> {
    let wanted = bytes.len();
    let mut got = 0;
    while got < wanted {
        match sys::terminal::write(fd.as_raw_fd(), &bytes[got..]) {
            Ok(0) => return Err(Error::Write { wanted, got, source: io::ErrorKind::WriteZero.into() }),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Write { wanted, got, source }),
        }
    }
    Ok(())
}

impl Secret {
    /// Lets write(2) take the bytes from their place to `fd`; no buffer in between ever holds them. What the other side makes of
    /// them is its own affair: a pipe, a socket and a file keep what they are given.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if `fd` does not take all of them; as [`with`](Self::with).
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.with(|bytes| write_all(fd, bytes))?
    }
}

impl Bytes {
    /// Lets write(2) take the bytes from their place to `fd`: see [`Secret::write_to`].
    ///
    /// # Errors
    ///
    /// As [`Secret::write_to`].
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.with(|bytes| write_all(fd, bytes))?
    }
}

impl Text {
    /// Lets write(2) take the text from its place to `fd`: see [`Secret::write_to`].
    ///
    /// # Errors
    ///
    /// As [`Secret::write_to`].
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.with(|text| write_all(fd, text.as_bytes()))?
    }
}
