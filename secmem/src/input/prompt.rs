//! A question at a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::InputError;
use super::editor::{Editor, Step};
use super::raw::{Event, Raw};
use crate::bytes::Text;
use crate::error::Error;
use crate::secret::{Options, Secret};
use crate::sys::{self, Call, terminal};

/// Bytes that an answer may have, if nothing else is said.
const LIMIT: usize = 1024;

/// Bytes that are taken from the terminal at once.
const PIECE: usize = 64;

/// A question whose answer is a secret.
///
/// What is typed is not shown, or as masks alone. Every byte is taken from the terminal as it is typed, straight into protected
/// memory. The keys are those that the terminal is set to: one that removes the last character, one for the whole line
/// (Ctrl-U), one that ends the answer (Ctrl-D), one that gives up (Ctrl-C). All other bytes belong to the answer, which must be
/// UTF-8. What is left in the terminal after the answer, as of a paste of several lines, is thrown away.
///
/// The terminal is put back as it was when the answer is there, on an error and on a panic, and before a signal ends or stops the
/// process: Ctrl-\\, Ctrl-Z, SIGTERM and whatever else can be caught. After a stop the question is written again. Handlers of the
/// application are called on the stack that they ask for, with all signals blocked; if one returns, the question goes on after SIGUSR1, SIGALRM and others that
/// programs use for their own ends, and is given up after SIGHUP, SIGINT, SIGQUIT, SIGTERM and faults. SIGKILL and SIGSTOP run
/// nothing of ours.
///
/// One question is asked at a time; another thread's waits.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Prompt<'a> {
    text: &'a str,
    mask: Option<char>,
    limit: usize,
}

impl<'a> Prompt<'a> {
    /// With this text before the answer.
    pub fn new(text: &'a str) -> Self {
        Self { text, mask: None, limit: LIMIT }
    }

    /// Writes a character, one column wide, for each that is typed. Whoever looks on sees how many they are.
    pub fn mask(mut self, mask: char) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Bytes that the answer may have; 1024 if not said.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// What it was given: the text, what is shown for a character, and its limit.
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    pub(crate) fn parts(&self) -> (&'a str, Option<char>, usize) {
        (self.text, self.mask, self.limit)
    }

    /// Asks at the terminal if standard input is one; else takes a line of standard input, without a question.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask), or as [`Options::read_line`].
    pub fn read(&self, options: Options) -> Result<Text, Error> {
        let stdin = io::stdin();
        if stdin.is_terminal() { self.ask(options) } else { options.read_line(stdin.as_fd(), self.limit) }
    }

    /// Asks at the terminal that controls this process, `/dev/tty`, wherever standard input comes from.
    ///
    /// # Errors
    ///
    /// [`InputError::NoTerminal`] if there is none; as [`ask_at`](Self::ask_at).
    pub fn ask(&self, options: Options) -> Result<Text, Error> {
        let terminal = open().map_err(|source| Error::Input(InputError::NoTerminal { source }))?;
        self.ask_at(options, terminal.as_fd())
    }

    /// Asks at a terminal that is open for reading and writing.
    ///
    /// # Errors
    ///
    /// [`InputError::Interrupted`] if the user gives up, [`InputError::Nothing`] if the input ends before anything was typed,
    /// [`InputError::TooLong`] after the line has ended, [`Error::Utf8`]; [`InputError::Terminal`] and [`InputError::Echo`] if the
    /// terminal does not do as it is told; as [`Options::zeroed`].
    pub fn ask_at(&self, options: Options, terminal: BorrowedFd<'_>) -> Result<Text, Error> {
        let mut typed = Secret::options().policy(options.policy).zeroed(PIECE)?;
        let raw = Raw::new(terminal).map_err(Error::Input)?;
        let mut editor = Editor::new(options, raw.keys(), self.limit)?;
        print(terminal, self.text.as_bytes())?;
        let answered = self.answer(terminal, &raw, &mut typed, &mut editor);
        let ended = print(terminal, b"\n");
        answered?;
        drop(raw);
        ended?;
        editor.finish()
    }

    /// Takes what is typed until the line ends.
    fn answer(
        &self,
        terminal: BorrowedFd<'_>,
        raw: &Raw<'_>,
        typed: &mut Secret,
        editor: &mut Editor,
    ) -> Result<(), Error> {
        loop {
            match raw.wait().map_err(Error::Input)? {
                Event::Ended => return Err(Error::Input(InputError::Interrupted)),
                Event::Redraw => {
                    print(terminal, self.text.as_bytes())?;
                    self.show(terminal, Step::Added, editor.characters()?)?;
                    continue;
                }
                Event::Typed => {}
            }
            let got = match typed.change(|piece| sys::read(terminal, piece))? {
                Ok(0) => return Err(Error::Input(InputError::Nothing)), // hung up
                Ok(got) => got,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    continue;
                }
                Err(source) => {
                    return Err(Error::Input(InputError::Terminal { call: Call::Read.name(), source }));
                }
            };
            for at in 0..got {
                let step = typed.look(|piece| editor.take(piece[at]))??;
                match step {
                    Step::Added => self.show(terminal, step, 1)?,
                    Step::Removed(many) => self.show(terminal, step, many)?,
                    Step::Quiet => {}
                    Step::Done => return Ok(()),
                    Step::Interrupted => return Err(Error::Input(InputError::Interrupted)),
                    Step::Nothing => return Err(Error::Input(InputError::Nothing)),
                }
            }
        }
    }

    /// Writes masks, or takes them away.
    fn show(&self, terminal: BorrowedFd<'_>, step: Step, many: usize) -> Result<(), Error> {
        let Some(mask) = self.mask else { return Ok(()) };
        let mut place = [0; 4];
        let one = match step {
            Step::Removed(_) => "\u{8} \u{8}",
            _ => mask.encode_utf8(&mut place),
        };
        (0..many).try_for_each(|_| print(terminal, one.as_bytes()))
    }
}

/// The terminal that controls this process; nobody else gets it by way of ours, and it stays what it is to us.
fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC).open("/dev/tty")
}

/// Writes what everybody may see.
fn print(terminal: BorrowedFd<'_>, mut text: &[u8]) -> Result<(), Error> {
    while !text.is_empty() {
        match terminal::write(terminal.as_raw_fd(), text) {
            Ok(wrote) => text = &text[wrote..],
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(source) => return Err(Error::Input(InputError::Terminal { call: Call::Write.name(), source })),
        }
    }
    Ok(())
}
