#![allow(unsafe_code)] // takes over the two descriptors that the harness hands down by number
//! The two descriptors between a scenario and the harness.
//!
//! [`Control`] announces a checkpoint and waits until the harness has looked. [`Canary`] reads the secret from
//! its pipe straight into the place that will hold it: `read(2)` is the only copy ever made on its way.

use std::fs::{self, FileType};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;

use scenario_protocol::{CANARY_FD, CONTROL_FD, Checkpoint, FRAME_GO_ON};

use crate::failure::Failure;

/// The control socket. It stays open as long as the process does, so that a forked child can announce too.
#[derive(Clone, Copy)]
pub struct Control {
    /// A datagram type over a `SOCK_SEQPACKET` socket: `send(2)` and `recv(2)` are all that is used of it,
    /// and std's pass `MSG_NOSIGNAL`, so that a harness that died is an error and not a SIGPIPE.
    socket: &'static UnixDatagram,
}

impl Control {
    /// Takes over [`CONTROL_FD`]; `None` if that is not a socket, or was taken over before.
    pub fn adopt() -> Option<Self> {
        let socket = UnixDatagram::from(adopt(CONTROL_FD, FileType::is_socket)?);
        Some(Self { socket: Box::leak(Box::new(socket)) })
    }

    /// Tells the harness that the checkpoint is reached and waits until it has looked.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the harness is gone or answers with anything but its one answer.
    pub fn announce(self, checkpoint: Checkpoint) -> Result<(), Failure> {
        self.socket.send(&checkpoint.frame()).map_err(Failure::while_doing("announcing a checkpoint"))?;
        self.wait().map_err(Failure::while_doing("waiting for the harness"))
    }

    fn wait(self) -> io::Result<()> {
        let mut answer = [0; FRAME_GO_ON.len() + 1]; // a longer answer must not pass for the right one
        loop {
            match self.socket.recv(&mut answer) {
                Ok(len) if answer[..len] == FRAME_GO_ON => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The pipe that holds the canary. Closed when dropped.
pub struct Canary {
    pipe: fs::File,
}

impl Canary {
    /// Takes over [`CANARY_FD`]; `None` if that is not a pipe, or was taken over before.
    pub fn adopt() -> Option<Self> {
        Some(Self { pipe: adopt(CANARY_FD, FileType::is_fifo)?.into() })
    }

    /// Reads the next `place.len()` bytes, unbuffered, into their place.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the pipe holds fewer.
    pub fn read_into(&mut self, place: &mut [u8]) -> Result<(), Failure> {
        self.pipe.read_exact(place).map_err(Failure::while_doing("reading the canary"))
    }
}

/// Unbuffered, for what reads it in a way of its own.
impl Read for Canary {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        self.pipe.read(place)
    }
}

impl AsFd for Canary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Takes over an inherited descriptor, after a look at what it is.
///
/// The look goes through /proc so that a number that is not open is an answer and not a stray close.
fn adopt(number: RawFd, is_expected: fn(&FileType) -> bool) -> Option<OwnedFd> {
    let inherited = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
    if !is_expected(&inherited.file_type()) {
        return None;
    }
    // SAFETY:
    // - the descriptor is open: its entry in /proc was just found, and nothing in between closes one;
    // - nothing else owns it: it was inherited under a number that no code but this function names, and each
    //   number is adopted once in a process (by the program's `run`), before anything else is opened.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
