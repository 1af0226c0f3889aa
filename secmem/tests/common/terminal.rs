//! A terminal of its own for a child: a session whose leader stays, so that what the child leaves can be looked at. When the leader
//! of a session ends, the kernel puts its terminal back by itself.

use std::any::type_name_of_val;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use std::{io, ptr};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child at a terminal.
pub struct Session {
    /// What a person would type and see.
    person: File,
    terminal: File,
    /// The child's standard output.
    output: File,
    /// Wait statuses of the child.
    statuses: File,
    leader: i32,
    pub child: i32,
    ended: bool,
    before: Modes,
}

/// What a terminal is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    flags: [u32; 4],
    keys: Vec<u8>,
}

impl Modes {
    pub fn shows_what_is_typed(&self) -> bool {
        self.flags[3] & libc::ECHO != 0
    }
}

/// Runs `body` in a process with a terminal; in the test itself, gives that back.
///
/// As [`super::in_child`]: the first thing in a test, and the body a closure of the test function.
pub fn at_terminal(parameter: i32, body: impl FnOnce(i32)) -> Session {
    let name = super::test_of(type_name_of_val(&body));
    if std::env::var(super::CHILD).as_deref() == Ok(name) {
        super::no_core();
        body(std::env::var(super::PARAMETER).unwrap().parse().unwrap());
        // Not exit: it takes away the main thread's alternate stack, on which a handler may be about to return.
        super::exit_now(0);
    }
    Session::start(name, parameter)
}

impl Session {
    fn start(name: &str, parameter: i32) -> Self {
        let text = |text: &[u8]| CString::new(text).unwrap();
        let program = text(std::env::current_exe().unwrap().as_os_str().as_bytes());
        let args = [program.as_bytes(), b"--exact", name.as_bytes(), b"--nocapture", b"--test-threads=1"].map(text);
        let inherited = std::env::vars_os().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat());
        let ours = [format!("{}={name}", super::CHILD), format!("{}={parameter}", super::PARAMETER)];
        let env: Vec<CString> = inherited.chain(ours.map(String::into_bytes)).map(|variable| text(&variable)).collect();
        let pointers =
            |texts: &[CString]| -> Vec<_> { texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect() };
        let (args, env) = (pointers(&args), pointers(&env));

        let (person, terminal) = pair();
        let before = modes(&terminal);
        let (output, child_output) = pipe();
        let (statuses, report) = pipe();
        let fds = Fds { terminal: &terminal, output: &child_output, report: &report };
        // SAFETY: the child makes system calls alone until it becomes another program or ends.
        let leader = match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => lead(&fds, &program, &args, &env),
            leader => leader,
        };
        let mut session = Self { person, terminal, output, statuses, leader, child: 0, ended: false, before };
        session.child = session.status();
        session
    }

    /// Waits until the terminal shows this, and gives back what it has shown until then.
    pub fn shows(&mut self, wanted: &str) -> String {
        let (mut shown, until) = (Vec::new(), Instant::now() + PATIENCE);
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            assert!(Instant::now() < until, "{wanted:?} is not shown: {:?}", String::from_utf8_lossy(&shown));
            if readable(&self.person) {
                let mut some = [0; 256];
                let got = self.person.read(&mut some).unwrap();
                shown.extend_from_slice(&some[..got]);
            }
        }
        String::from_utf8(shown).unwrap()
    }

    pub fn types(&mut self, text: impl AsRef<[u8]>) {
        self.person.write_all(text.as_ref()).unwrap();
    }

    /// The next wait status of the child.
    pub fn status(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while !readable(&self.statuses) {
            assert!(Instant::now() < until, "the child neither ends nor stops: {}", self.found());
        }
        let mut status = [0; 4];
        self.statuses.read_exact(&mut status).unwrap();
        let status = i32::from_ne_bytes(status);
        self.ended = self.child != 0 && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status));
        status
    }

    /// What the kernel says of the child and of who leads its session.
    fn found(&self) -> String {
        let of = |process: i32| {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            let file =
                |task: &std::fs::DirEntry, name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            tasks
                .map(|task| ["status", "wchan", "syscall"].map(|name| file(&task, name)).join("\n"))
                .collect::<String>()
        };
        format!("{} led by {}", of(self.child), of(self.leader))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the number is its.
        assert_eq!(unsafe { libc::kill(self.child, signal) }, 0);
    }

    /// What the terminal is set to, and what it was set to before the child came.
    pub fn modes(&self) -> (Modes, Modes) {
        (modes(&self.terminal), self.before.clone())
    }

    pub fn assert_as_before(&self, when: &str) {
        let (now, before) = self.modes();
        assert_eq!(now, before, "the terminal {when}");
    }

    /// What the child has printed, once it has ended.
    pub fn printed(&mut self) -> String {
        let mut text = Vec::new();
        while readable(&self.output) {
            let mut some = [0; 256];
            match self.output.read(&mut some).unwrap() {
                0 => break,
                got => text.extend_from_slice(&some[..got]),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// What the next program at this terminal would read.
    pub fn left_to_read(&self) -> i32 {
        let mut left = 0;
        // SAFETY: a valid place for a number.
        assert_eq!(unsafe { libc::ioctl(self.terminal.as_raw_fd(), libc::FIONREAD, &raw mut left) }, 0);
        left
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended && self.child > 0 {
            // SAFETY: the leader has not told its end, and waits for it: the number is the child's, or no one's.
            unsafe { libc::kill(self.child, libc::SIGKILL) };
        }
        // SAFETY: a child of ours that nobody has waited for.
        unsafe { libc::kill(self.leader, libc::SIGKILL) };
        // SAFETY: waits for a child of ours; the status is not asked for.
        unsafe { libc::waitpid(self.leader, ptr::null_mut(), 0) };
    }
}

struct Fds<'a> {
    terminal: &'a File,
    output: &'a File,
    report: &'a File,
}

/// Leads a session with one child, in the foreground: tells what becomes of it, and stays until it is killed. System calls alone.
fn lead(fds: &Fds<'_>, program: &CString, args: &[*const i8], env: &[*const i8]) -> ! {
    // SAFETY: ends this process with the test's thread, should that not come to end it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: makes the terminal this session's.
    unsafe { libc::ioctl(fds.terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    // SAFETY: the child makes system calls alone until it becomes another program.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: makes this process a group of its own.
        unsafe { libc::setpgid(0, 0) };
        ignore(libc::SIGTTOU);
        // SAFETY: takes nothing.
        let group = unsafe { libc::getpgrp() };
        // SAFETY: makes that group the one in the foreground.
        unsafe { libc::tcsetpgrp(fds.terminal.as_raw_fd(), group) };
        super::ignore_no_signal();
        for (from, to) in [(fds.terminal, 0), (fds.output, 1)] {
            // SAFETY: both are descriptors of this process.
            unsafe { libc::dup2(from.as_raw_fd(), to) };
        }
        // SAFETY: arrays of C strings that end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
        super::exit_now(127)
    }
    tell(fds.report, child);
    loop {
        let mut status = 0;
        // SAFETY: a valid place for the status.
        let got = unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
        if got != child {
            break;
        }
        tell(fds.report, status);
        if !libc::WIFSTOPPED(status) {
            break;
        }
    }
    loop {
        // SAFETY: waits for the test to end this process.
        unsafe { libc::pause() };
    }
}

fn ignore(signal: i32) {
    // SAFETY: no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn tell(report: &File, number: i32) {
    let bytes = number.to_ne_bytes();
    // SAFETY: the bytes are readable.
    unsafe { libc::write(report.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
}

fn modes(terminal: &File) -> Modes {
    // SAFETY: zero is valid for every field.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer.
    assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes) }, 0, "{}", io::Error::last_os_error());
    Modes { flags: [modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag], keys: modes.c_cc.to_vec() }
}

fn readable(file: &File) -> bool {
    let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure.
    unsafe { libc::poll(&raw mut wanted, 1, 100) > 0 }
}

/// The person's side of a new terminal, and the program's.
fn pair() -> (File, File) {
    let (mut person, mut terminal) = (-1, -1);
    // SAFETY: two valid places; the others may be null.
    let made = unsafe { libc::openpty(&raw mut person, &raw mut terminal, ptr::null_mut(), ptr::null(), ptr::null()) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    let file = |fd| {
        // SAFETY: sets a flag of a descriptor that was just made.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: the kernel has just made it for us.
        File::from(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    (file(person), file(terminal))
}

fn pipe() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)))
}

/// A terminal that is nobody's controlling one, for whoever is handed it.
pub struct Pty {
    person: File,
    terminal: File,
}

impl Pty {
    pub fn open() -> Self {
        let (person, terminal) = pair();
        Self { person, terminal }
    }

    pub fn device(&self) -> OwnedFd {
        self.terminal.try_clone().unwrap().into()
    }

    /// Waits until the terminal shows this.
    pub fn expect(&self, wanted: &str) {
        let (mut shown, until) = (Vec::new(), Instant::now() + PATIENCE);
        while !String::from_utf8_lossy(&shown).contains(wanted) {
            assert!(Instant::now() < until, "{wanted:?} is not shown: {:?}", String::from_utf8_lossy(&shown));
            if readable(&self.person) {
                let mut some = [0; 256];
                let got = (&self.person).read(&mut some).unwrap();
                shown.extend_from_slice(&some[..got]);
            }
        }
    }

    pub fn type_in(&self, text: &str) {
        (&self.person).write_all(text.as_bytes()).unwrap();
    }

    pub fn shows_what_is_typed(&self) -> bool {
        modes(&self.terminal).shows_what_is_typed()
    }
}
