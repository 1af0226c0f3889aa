//! Terminals: their modes, what waits in them, and who has them. termios(3), tty_ioctl(4).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

use super::{Call, Mask, check, count, number, seam};

/// How a terminal treats what is typed.
#[derive(Clone, Copy)]
pub(crate) struct Modes(libc::termios);

/// The keys that mean something: the bytes that they send, `None` where the user has switched them off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) erase: Option<u8>,
    pub(crate) kill: Option<u8>,
    pub(crate) end: Option<u8>,
    pub(crate) interrupt: Option<u8>,
}

impl Modes {
    /// The same, but each byte is given at once and as it is, none is shown, and the key that interrupts is a byte like any.
    pub(crate) fn unseen(&self) -> Self {
        let mut modes = self.0;
        modes.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::IEXTEN);
        modes.c_iflag &= !(libc::ISTRIP | libc::INLCR | libc::IGNCR | libc::PARMRK);
        modes.c_cc[libc::VINTR] = OFF;
        modes.c_cc[libc::VMIN] = 1;
        modes.c_cc[libc::VTIME] = 0;
        Self(modes)
    }

    pub(crate) fn keys(&self) -> Keys {
        let key = |name: usize| Some(self.0.c_cc[name]).filter(|&key| key != OFF);
        Keys { erase: key(libc::VERASE), kill: key(libc::VKILL), end: key(libc::VEOF), interrupt: key(libc::VINTR) }
    }

    /// Whether what is typed is shown, or kept until the line ends.
    pub(crate) fn shows(&self) -> bool {
        self.0.c_lflag & (libc::ECHO | libc::ICANON) != 0
    }
}

/// `_POSIX_VDISABLE` of Linux: no key.
const OFF: u8 = 0;

/// The modes of a terminal; `ENOTTY` if it is none.
pub(crate) fn modes(terminal: RawFd) -> io::Result<Modes> {
    seam::ask(Call::GetModes)?;
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `modes` has room for what the call writes.
    check(unsafe { libc::tcgetattr(terminal, modes.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it has written all of it.
    Ok(Modes(unsafe { modes.assume_init() }))
}

/// Sets the modes at once. Async-signal-safe. A process in the background is stopped by it, unless it blocks SIGTTOU.
pub(crate) fn set_modes(terminal: RawFd, modes: &Modes) -> io::Result<()> {
    seam::ask(Call::SetModes)?;
    loop {
        // SAFETY: `modes` is what a terminal gave, but for flags.
        let set = check(unsafe { libc::tcsetattr(terminal, libc::TCSANOW, &raw const modes.0) });
        match set {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Throws away what was typed and not read. Async-signal-safe.
pub(crate) fn discard_input(terminal: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers alone.
    check(unsafe { libc::tcflush(terminal, libc::TCIFLUSH) })
}

/// Whether this process may use the terminal without being stopped. Async-signal-safe.
pub(crate) fn in_foreground(terminal: RawFd) -> bool {
    // SAFETY: takes a number, and gives one or an error.
    let theirs = unsafe { libc::tcgetpgrp(terminal) };
    // SAFETY: takes nothing and cannot fail.
    let ours = unsafe { libc::getpgrp() };
    theirs < 0 || theirs == ours // not the terminal of this session: nobody is stopped for it
}

/// Waits until one of them can be read, or has come to its end.
pub(crate) fn wait_readable(of: [BorrowedFd<'_>; 2]) -> io::Result<[bool; 2]> {
    seam::ask(Call::Poll)?;
    let mut wanted = of.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: an array of two valid structures.
    let got = unsafe { libc::poll(wanted.as_mut_ptr(), 2, -1) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(wanted.map(|fd| fd.revents != 0)) }
}

/// A pipe of which neither end blocks: the one to read from, the one to write to. Close-on-exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    seam::ask(Call::Pipe)?;
    let mut ends = [-1; 2];
    // SAFETY: a valid place for two numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel has just made both descriptors for us, so nothing else owns them.
    let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    Ok((reader, writer))
}

/// Bytes from the beginning of `bytes` to `into`; returns how many. Async-signal-safe.
pub(crate) fn write(into: RawFd, bytes: &[u8]) -> io::Result<usize> {
    seam::ask(Call::Write)?;
    // SAFETY: the slice is readable for its whole length; a number that is no descriptor is an error.
    count(unsafe { libc::write(into, bytes.as_ptr().cast(), bytes.len()) })
}

/// Lets one signal through to this thread; returns what it had blocked before.
pub(crate) fn unblock(signal: libc::c_int) -> io::Result<Mask> {
    // SAFETY: a set of signals is an array of integers, for which zero is valid.
    let [mut one, mut before]: [libc::sigset_t; 2] = unsafe { std::mem::zeroed() };
    // SAFETY: a valid, empty set to write to.
    check(unsafe { libc::sigaddset(&raw mut one, signal) })?;
    // SAFETY: `one` is a valid set, and `before` a valid place for another.
    number(unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const one, &raw mut before) })?;
    Ok(Mask(before))
}

/// Whether a signal waits until this thread, or the process, lets it through. Async-signal-safe.
pub(crate) fn is_pending(signal: libc::c_int) -> bool {
    // SAFETY: a set of signals is an array of integers, for which zero is valid.
    let mut waiting: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for a set.
    let known = check(unsafe { libc::sigpending(&raw mut waiting) }).is_ok();
    // SAFETY: a valid set; a number that is no signal is an error.
    known && unsafe { libc::sigismember(&raw const waiting, signal) } == 1
}

/// Every signal, for a handler that none is to interrupt.
pub(crate) fn all_signals() -> libc::sigset_t {
    // SAFETY: a set of signals is an array of integers, for which zero is valid.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set to write to; the call cannot fail.
    let _ = unsafe { libc::sigfillset(ptr::addr_of_mut!(all)) };
    all
}
