//! The ways in which a program is given its secret.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::{Options, ProgramError};
use crate::interrupt::Passing;
use crate::target::{Foreign, Identity};

/// How the program gets the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feed {
    /// On standard input, then end of file.
    Stdin,
    /// Typed at a terminal of its own, then Enter.
    Pty,
    /// From a pipe on this descriptor, then end of file.
    Descriptor(i32),
    /// In an environment variable of this name.
    Environment(String),
    /// In a file that is made at this path for the run.
    File(PathBuf),
    /// As its argument of this number; 1 is the first after the program's name.
    Argument(usize),
}

/// A text that names no feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no way to feed a secret: stdin, pty, fd:N (3 to {}), env:VAR, file:PATH or arg:N (from 1)",
    Foreign::HIGHEST
)]
pub struct ParseFeedError {
    /// The text.
    text: String,
}

impl FromStr for Feed {
    type Err = ParseFeedError;

    fn from_str(text: &str) -> Result<Self, ParseFeedError> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let feed = match (kind, rest) {
            ("stdin", None) => Some(Self::Stdin),
            ("pty", None) => Some(Self::Pty),
            ("fd", Some(number)) => {
                number.parse().ok().filter(|number| (3..=Foreign::HIGHEST).contains(number)).map(Self::Descriptor)
            }
            ("env", Some(name)) => {
                (!name.is_empty() && !name.contains(['=', '\0'])).then(|| Self::Environment(name.to_owned()))
            }
            ("file", Some(path)) => (!path.is_empty()).then(|| Self::File(path.into())),
            ("arg", Some(number)) => number.parse().ok().filter(|number| *number > 0).map(Self::Argument),
            _ => None,
        };
        feed.ok_or_else(|| ParseFeedError { text: text.to_owned() })
    }
}

impl Feed {
    /// Whether the secret is a line or a text there, unless somebody says otherwise.
    pub const fn is_text(&self) -> bool {
        !matches!(self, Self::Descriptor(_) | Self::File(_))
    }

    /// Why a secret cannot be given in this way; `None` if it can.
    pub(super) fn refuses(&self, secret: &[u8]) -> Option<&'static str> {
        let strings = matches!(self, Self::Environment(_) | Self::Argument(_));
        match self {
            _ if strings && secret.contains(&0) => Some("it holds a NUL byte, and arguments and variables end there"),
            Self::Pty if secret.len() > 4000 => Some("a terminal takes lines of at most 4,000 bytes"),
            Self::Pty if secret.iter().any(u8::is_ascii_control) => {
                Some("it holds control characters, which a terminal acts on")
            }
            _ if secret.len() > 60_000 => Some("it is longer than 60,000 bytes"),
            _ => None,
        }
    }
}

/// The program's strings, and the ends of what it is fed through.
pub(super) struct Wires {
    pub(super) argv: Zeroizing<Vec<CString>>,
    pub(super) envp: Zeroizing<Vec<CString>>,
    /// Its standard input, if that is not ours.
    pub(super) stdin: Option<OwnedFd>,
    /// A descriptor that it finds under a number.
    pub(super) pass: Option<(OwnedFd, RawFd)>,
    /// Where to write the secret, and what comes behind it.
    pub(super) writer: Option<(File, &'static [u8])>,
    /// The other end of its terminal.
    pub(super) terminal: Option<File>,
    /// Where its reads bring the secret; `None` if it has the secret from the start.
    pub(super) watched: Option<Identity>,
    /// A file to remove in the end.
    _file: Option<Passing>,
}

impl Wires {
    /// Lays them for one run.
    pub(super) fn lay(options: &Options, secret: &[u8]) -> Result<Self, ProgramError> {
        let mut args: Vec<Vec<u8>> = options.program.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        if let Feed::Argument(number) = &options.feed {
            if *number > args.len() {
                return Err(ProgramError::NoSuchArgument { number: *number });
            }
            args.resize(args.len().max(*number + 1), Vec::new()); // it may be the one behind the last
            args[*number] = secret.to_vec();
        }
        let more = &options.variables;
        let is_ours = |name: &OsString| {
            options.hidden_variable.as_ref().is_none_or(|hidden| name.as_bytes() != hidden.as_bytes())
                && more.iter().all(|(other, _)| other != name)
        };
        let mut variables: Vec<(Vec<u8>, Vec<u8>)> = std::env::vars_os()
            .filter(|(name, _)| is_ours(name))
            .chain(more.iter().cloned())
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect();
        if let Feed::Environment(name) = &options.feed {
            variables.retain(|(other, _)| other != name.as_bytes());
            variables.push((name.as_bytes().to_vec(), secret.to_vec()));
        }
        let variables = variables.into_iter().map(|(name, value)| [name, value].join(&b'='));
        let mut wires = Self {
            argv: Zeroizing::new(strings(args.into_iter())?),
            envp: Zeroizing::new(strings(variables)?),
            stdin: None,
            pass: None,
            writer: None,
            terminal: None,
            watched: None,
            _file: None,
        };
        wires.connect(&options.feed, secret, options.text).map_err(|source| match &options.feed {
            Feed::File(path) => ProgramError::FeedFile { path: path.clone(), source },
            _ => ProgramError::Feed { source },
        })?;
        Ok(wires)
    }

    fn connect(&mut self, feed: &Feed, secret: &[u8], text: bool) -> io::Result<()> {
        match feed {
            Feed::Stdin | Feed::Descriptor(_) => {
                let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
                nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                self.watched = Some(Identity::of(&read, false)?);
                let newline: &[u8] = if text { b"\n" } else { b"" };
                self.writer = Some((write.into(), newline));
                match feed {
                    Feed::Descriptor(number) => self.pass = Some((read, *number)),
                    _ => self.stdin = Some(read),
                }
            }
            Feed::Pty => {
                let size = nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
                let pty = nix::pty::openpty(Some(&size), None)?;
                for end in [&pty.master, &pty.slave] {
                    nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
                }
                nix::fcntl::fcntl(&pty.master, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                self.watched = Some(Identity::of(&pty.slave, true)?);
                self.stdin = Some(pty.slave);
                let master = File::from(pty.master);
                // Enter is a carriage return, which the terminal makes a newline unless it was told not to.
                self.writer = Some((master.try_clone()?, b"\r"));
                self.terminal = Some(master);
            }
            Feed::File(path) => {
                let (mut file, passing) = Passing::create(path)?;
                self._file = Some(passing);
                file.write_all(secret)?;
                self.watched = Some(Identity::of(&file, false)?);
            }
            Feed::Environment(_) | Feed::Argument(_) => {}
        }
        Ok(())
    }

    /// The descriptors that the program finds under numbers of their own.
    pub(super) fn passed(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        self.pass.iter().map(|(ours, number)| (ours.as_fd(), *number)).collect()
    }

    /// Closes the ends that are the program's alone, once it has its own: an end of ours that stays open hides its end
    /// of file from us, and ours from it.
    pub(super) fn hand_over(&mut self) {
        self.stdin = None;
        self.pass = None;
    }
}

fn strings(texts: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>, ProgramError> {
    texts.map(|text| CString::new(text).map_err(|_| ProgramError::Nul)).collect()
}

/// Finds a program as a shell does: by its path if the name has a slash, else along `PATH`.
pub(super) fn find(name: &OsString) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    if name.as_bytes().contains(&b'/') {
        return Path::new(name).exists().then(|| name.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_feed_is_understood() {
        let feed = |text: &str| text.parse::<Feed>();

        assert_eq!(feed("stdin"), Ok(Feed::Stdin));
        assert_eq!(feed("pty"), Ok(Feed::Pty));
        assert_eq!(feed("fd:3"), Ok(Feed::Descriptor(3)));
        assert_eq!(feed("env:KEY"), Ok(Feed::Environment("KEY".to_owned())));
        assert_eq!(feed("file:/tmp/a:b"), Ok(Feed::File("/tmp/a:b".into())));
        assert_eq!(feed("arg:1"), Ok(Feed::Argument(1)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "stdin:", "fd", "fd:2", "fd:63", "fd:x", "env:", "env:A=B", "file:", "arg:0", "tty"] {
            assert!(text.parse::<Feed>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_or_a_string_cannot_carry_is_refused() {
        assert!(Feed::Pty.refuses(b"abc\x03def").is_some());
        assert!(Feed::Environment("A".to_owned()).refuses(b"abc\0def").is_some());
        assert!(Feed::Stdin.refuses(b"abc\0\x03def").is_none());
    }
}
