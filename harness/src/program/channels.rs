//! The harness's ends of what a program reads and prints: feeds the secret, passes output on, watches for what was
//! asked.
//!
//! Everything here is done by the thread that traces, between two stops, and nothing waits: the program's ends may be
//! full or empty at any time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use memchr::memmem;
use regex::bytes::Regex;
use zeroize::{Zeroize, Zeroizing};

/// How long a terminal's program may take to ask for input before it is typed at anyway.
const TYPING_PATIENCE: Duration = Duration::from_millis(500);

/// Bytes of output that a regular expression can look back over.
const MEMORY: usize = 64 * 1024;

/// Bytes that one read takes.
const PIECE: usize = 16 * 1024;

/// The ends of one run.
pub(super) struct Channels<'a> {
    secret: &'a [u8],
    feed: Option<Feeding>,
    outputs: Vec<Output>,
    /// Where output goes on to: our standard output, or our standard error.
    onward: BorrowedFd<'a>,
    patterns: Vec<Pattern<'a>>,
    timers: Vec<(usize, Instant)>,
    /// The last output, for the patterns.
    last: Zeroizing<Vec<u8>>,
    /// Whether the program's output held the secret.
    echoed: bool,
}

/// The secret on its way.
struct Feeding {
    to: File,
    text: Zeroizing<Vec<u8>>,
    sent: usize,
    /// When to begin: at once, or once a terminal's program asks.
    from: Instant,
}

struct Output {
    from: File,
    open: bool,
}

struct Pattern<'a> {
    moment: usize,
    regex: &'a Regex,
    matched: bool,
}

impl<'a> Channels<'a> {
    /// Ends that do nothing yet.
    pub(super) fn new(secret: &'a [u8], onward: BorrowedFd<'a>) -> Self {
        Self {
            secret,
            feed: None,
            outputs: Vec::new(),
            onward,
            patterns: Vec::new(),
            timers: Vec::new(),
            last: Zeroizing::new(Vec::with_capacity(MEMORY + PIECE)), // never grows, so it leaves no copy
            echoed: false,
        }
    }

    /// Feeds the secret and what comes behind it, then closes; at a terminal only once its program asks.
    pub(super) fn feed(&mut self, to: File, behind: &[u8], terminal: bool) {
        let text = Zeroizing::new([self.secret, behind].concat());
        let from = Instant::now() + if terminal { TYPING_PATIENCE } else { Duration::ZERO };
        self.feed = Some(Feeding { to, text, sent: 0, from });
    }

    /// Passes on what comes from there. It must not block.
    pub(super) fn output(&mut self, from: File) {
        self.outputs.push(Output { from, open: true });
    }

    /// Watches the output for this; `moment` names it.
    pub(super) fn pattern(&mut self, moment: usize, regex: &'a Regex) {
        self.patterns.push(Pattern { moment, regex, matched: false });
    }

    /// Reports this moment after so long.
    pub(super) fn timer(&mut self, moment: usize, after: Duration) {
        // One that lies beyond the end of time never comes.
        self.timers.extend(Instant::now().checked_add(after).map(|due| (moment, due)));
    }

    /// The program asks for input.
    pub(super) fn asked(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.from = Instant::now();
        }
    }

    /// Whether the program's output held the secret.
    pub(super) const fn echoed(&self) -> bool {
        self.echoed
    }

    /// Whether there is any output to pass on.
    pub(super) fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Moves what can be moved, and says which moments have come.
    pub(super) fn turn(&mut self) -> Vec<usize> {
        self.send();
        let mut come = self.receive();
        let now = Instant::now();
        self.timers.retain(|(moment, due)| {
            let due = *due <= now;
            if due {
                come.push(*moment);
            }
            !due
        });
        come
    }

    fn send(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        if feed.from > Instant::now() {
            return;
        }
        match feed.to.write(&feed.text[feed.sent..]) {
            Ok(sent) => feed.sent += sent,
            Err(error) if is_temporary(&error) => {}
            // The program closed its end: it never reads the rest, which the missing control then shows.
            Err(_) => feed.sent = feed.text.len(),
        }
        if feed.sent == feed.text.len() {
            self.feed = None;
        }
    }

    fn receive(&mut self) -> Vec<usize> {
        let mut come = Vec::new();
        let mut piece = Zeroizing::new(vec![0; PIECE]);
        for at in 0..self.outputs.len() {
            loop {
                let output = &mut self.outputs[at];
                if !output.open {
                    break;
                }
                match output.from.read(&mut piece) {
                    Ok(0) => output.open = false,
                    Ok(read) => {
                        forward(self.onward, &piece[..read]);
                        self.remember(&piece[..read]);
                        come.extend(self.matches());
                    }
                    Err(error) if is_temporary(&error) => break,
                    // A terminal whose other ends are all closed says EIO.
                    Err(_) => output.open = false,
                }
            }
        }
        come
    }

    fn remember(&mut self, piece: &[u8]) {
        self.last.extend_from_slice(piece);
        self.echoed |= memmem::find(&self.last, self.secret).is_some();
        let spent = self.last.len().saturating_sub(MEMORY);
        if spent > 0 {
            self.last.copy_within(spent.., 0);
            self.last[MEMORY..].zeroize();
            self.last.truncate(MEMORY);
        }
    }

    fn matches(&mut self) -> Vec<usize> {
        let last = &self.last;
        let new = self.patterns.iter_mut().filter(|pattern| !pattern.matched && pattern.regex.is_match(last));
        new.map(|pattern| {
            pattern.matched = true;
            pattern.moment
        })
        .collect()
    }
}

/// Passes output on. Where nobody reads it any more, it is lost, as the program's own would be.
fn forward(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return,
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
