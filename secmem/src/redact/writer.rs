//! A writer before another one.

use std::fmt;
use std::io::{self, Write};

use super::error::Error;
use super::pipe::Pipe;
use super::scan::Stop;

/// Passes on what is written to it, without the secrets. Made by [`Redactor::writer`](super::Redactor::writer).
///
/// What may be the beginning of a secret waits, in an arena, until it is known to be none: the last eleven bytes of each
/// reading of the text, mostly eleven bytes in all, of an array or of hexadecimal in columns as many numbers. So it makes no
/// difference how a text is cut into writes.
///
/// [`flush`](Write::flush) is for somebody who waits: it lets all out but what a registered secret, in any form, *begins* with, and
/// fragments of eight bytes and more. A question at a terminal (`Password: `) comes out whole, unless a secret begins with its
/// end; then the last bytes come with what follows. A secret that a flush cuts is redacted even so. But a *fragment* which begins
/// within a secret, and which a flush cuts, is seen only from there on. Of an encoded secret, a flush lets out less than
/// the first byte.
///
/// [`finish`](Self::finish), or dropping the writer, ends the text and lets all out. What is written then is another text.
///
/// Where memory for secrets cannot be reached, a write is an error, and what it had is not passed on. An error of the other
/// writer is told by the next call; what it has not taken is kept for that.
pub struct Writer<W: Write> {
    pipe: Pipe,
    /// What has been let out, and how much of it was passed on.
    out: Vec<u8>,
    passed: usize,
    /// `None` once it was given back.
    inner: Option<W>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(pipe: Pipe, inner: W) -> Self {
        Self { pipe, out: Vec::new(), passed: 0, inner: Some(inner) }
    }

    /// Ends the text: lets out all that waits, and flushes the other writer.
    ///
    /// # Errors
    ///
    /// As [`write`](Write::write).
    pub fn finish(&mut self) -> io::Result<()> {
        self.pipe.finish(&mut self.out)?;
        self.pass()?;
        self.inner.as_mut().map_or(Ok(()), Write::flush)
    }

    /// Ends the text, and gives the other writer back.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish): the other writer is dropped then.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.finish()?;
        self.inner.take().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The other writer. What is written to it by hand passes by this one.
    pub fn get_ref(&self) -> Option<&W> {
        self.inner.as_ref()
    }

    fn pass(&mut self) -> io::Result<()> {
        let Some(inner) = &mut self.inner else { return Ok(()) };
        while self.passed < self.out.len() {
            match inner.write(&self.out[self.passed..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => self.passed += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.passed = 0;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass()?; // what an error has kept: nothing of `bytes` was taken then
        let taken = &bytes[..bytes.len().min(1 << 16)];
        self.pipe.push(taken, &mut self.out)?;
        self.pipe.settle(Stop::Anywhere, &mut self.out)?;
        match self.pass() {
            // Taken they are, and what the other writer has refused is tried again.
            Ok(()) | Err(_) => Ok(taken.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.settle(Stop::Flush, &mut self.out)?;
        self.pass()?;
        self.inner.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            let _ = self.finish(); // as `BufWriter` does: who wants to know calls it
        }
    }
}

impl<W: Write> fmt::Debug for Writer<W> {
    /// Never content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// A message that is formatted straight into a slot.
pub(super) struct Message {
    pipe: Pipe,
    out: Vec<u8>,
    failed: Option<Error>,
}

impl Message {
    pub(super) fn new(pipe: Pipe) -> Self {
        Self { pipe, out: Vec::new(), failed: None }
    }

    /// What may be shown of it.
    pub(super) fn finish(mut self) -> Result<String, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.pipe.finish(&mut self.out)?;
        // Where the bytes of a character were taken, there can be others of it left.
        Ok(String::from_utf8(self.out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.pipe.push(text.as_bytes(), &mut self.out).map_err(|error| {
            self.failed = Some(error);
            fmt::Error
        })
    }
}
