//! fork and exec of a target, held until the tracer has seized it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::{ForkResult, Pid};

/// How long a child may take from its seizure to its `execve`, in milliseconds.
const EXEC_PATIENCE_MS: u16 = 10_000;

/// Linux numbers its signals from 1 to 64.
const LAST_SIGNAL: i32 = 64;

/// What a target is started with.
pub(crate) struct Image<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) envp: &'a [CString],
    /// Its directory; ours if there is none.
    pub(crate) dir: Option<&'a CStr>,
    /// Whether its core limit is raised to the hard one: only where a core lands in a private directory.
    pub(crate) cores: bool,
    /// The number that its process gets, if that is free and we may choose; any other if not.
    pub(crate) pid: Option<Pid>,
    /// Whether its mappings and its stack lie at the same addresses in every run.
    pub(crate) fixed_layout: bool,
    pub(crate) descriptors: Descriptors<'a>,
}

/// What the target finds open, besides what is not closed on exec here.
#[derive(Default)]
pub(crate) struct Descriptors<'a> {
    /// Its 0, 1 and 2; `/dev/null` where there is none.
    pub(crate) standard: [Option<BorrowedFd<'a>>; 3],
    /// Whether its 0 is a terminal that becomes its controlling one.
    pub(crate) terminal: bool,
    /// Pairs of a descriptor of ours and the number, from 3 to [`HIGHEST`], that it gets in the target.
    pub(crate) pass: &'a [(BorrowedFd<'a>, RawFd)],
    /// Whether it finds our other descriptors that are not closed on exec, as any child would.
    pub(crate) inherit: bool,
}

/// The highest number that can be handed on.
pub(crate) const HIGHEST: RawFd = 63;

/// Starts a program as a child that waits to be seized, calls `seize` with its pid, lets it `execve`.
///
/// The child shares our memory (copy on write) until its `execve` alone; it calls async-signal-safe functions and
/// nothing else. It gets a session of its own, so that a Ctrl-C on our terminal is ours to pass on, and the signals of
/// an ordinary start: none blocked, SIGPIPE not ignored.
///
/// # Errors
///
/// The failing call's error: `fork`, `pipe2`, or whatever `seize` or `execve` returned. The child is reaped.
///
/// # Source
///
/// ptrace(2), *PTRACE_SEIZE*; signal-safety(7); personality(2), *ADDR_NO_RANDOMIZE*.
pub(crate) fn spawn_traced(image: &Image<'_>, seize: impl FnOnce(Pid) -> nix::Result<()>) -> io::Result<Pid> {
    let argv = pointers(image.argv);
    let envp = pointers(image.envp);
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    // Above every number that is handed on, so that dup2 in the child cannot overwrite one that is still needed.
    let floor = HIGHEST + 1;
    let descriptors = &image.descriptors;
    let standard = (0..).zip(&descriptors.standard).map(|(number, ours)| (ours.unwrap_or(null.as_fd()), number));
    let moved: Vec<(OwnedFd, RawFd)> = standard
        .chain(descriptors.pass.iter().copied())
        .map(|(ours, number)| Ok((above(&ours, floor)?, number)))
        .collect::<io::Result<_>>()?;
    let (hold_low, hold_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (error_read, error_low) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (hold_read, error_write) = (above(&hold_low, floor)?, above(&error_low, floor)?);
    drop((hold_low, error_low)); // an end of ours that stays open would hide the end of file that we wait for

    // A signal that reached the child between its seizure and its exec would stop it where nobody waits. The child
    // throws away what is pending before it lets signals in again.
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let forked = match image.pid.map(fork_as) {
        Some(Ok(forked)) => Ok(forked),
        // Not ours to choose (EPERM), taken (EEXIST), or no such call (ENOSYS).
        Some(Err(_)) | None => {
            // SAFETY: the child calls only async-signal-safe functions (`child` below) and never returns.
            unsafe { nix::unistd::fork() }
        }
    };
    if !matches!(forked, Ok(ForkResult::Child)) {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    }
    let forked = forked?;
    let pid = match forked {
        ForkResult::Child => {
            let plan = Plan { image, argv: &argv, envp: &envp, moved: &moved };
            child(&plan, [hold_write.as_raw_fd(), hold_read.as_raw_fd()], error_write.as_raw_fd())
        }
        ForkResult::Parent { child } => child,
    };
    drop((hold_read, error_write));

    let started = seize(pid).map_err(io::Error::from).and_then(|()| {
        nix::unistd::write(&hold_write, &[1])?;
        drop(hold_write);
        Ok(())
    });
    if let Err(error) = started {
        abandon(pid);
        return Err(error);
    }
    // The exec stop comes before the caller can wait for it only if exec succeeded: then this pipe closes empty.
    // A tracee that fails in `execve` reports its errno here and exits without ever reaching the exec stop.
    let mut errno = [0; 4];
    let mut waiting = [PollFd::new(error_read.as_fd(), PollFlags::POLLIN)];
    // A signal breaks the wait off: then it begins again.
    while match nix::poll::poll(&mut waiting, PollTimeout::from(EXEC_PATIENCE_MS)) {
        Ok(0) => {
            abandon(pid);
            return Err(io::ErrorKind::TimedOut.into());
        }
        result => result == Err(nix::errno::Errno::EINTR),
    } {}
    match nix::unistd::read(&error_read, &mut errno) {
        Ok(0) => Ok(pid),
        Ok(_) => {
            abandon(pid);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
        }
        Err(error) => {
            abandon(pid);
            Err(error.into())
        }
    }
}

/// A fork whose child gets this number.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE over the PID namespace, `EEXIST` when the number is taken, `ENOSYS`
/// where a container's filter hides the call.
///
/// # Source
///
/// clone(2), *The set_tid array*; Linux 5.5.
fn fork_as(pid: Pid) -> nix::Result<ForkResult> {
    let number = pid.as_raw();
    let args = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: (&raw const number).expose_provenance() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY:
    // - `args` is a whole `struct clone_args`, and `number`, to which it points, outlives the call;
    // - without CLONE_VM the child has a copy of our memory and goes on from here on a copy of this stack, as after
    //   fork(2): it calls only async-signal-safe functions (`child` below) and never returns to safe code that allocates.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match child {
        -1 => Err(nix::errno::Errno::last()),
        0 => Ok(ForkResult::Child),
        child => Ok(ForkResult::Parent { child: Pid::from_raw(child as i32) }),
    }
}

/// A duplicate at or above `floor`, closed on exec.
fn above(fd: &impl std::os::fd::AsFd, floor: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(floor))?;
    // SAFETY: F_DUPFD_CLOEXEC has just made this number; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Kills a child that never became a target, and reaps it.
fn abandon(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL); // it may be dead already: that is the aim
    loop {
        match super::wait(pid, true) {
            Ok(super::Waited::Stopped(_)) => {
                let _ = super::resume(pid, false, 0); // its exit stop; ESRCH if it is gone
            }
            Ok(super::Waited::Ended(_)) | Err(_) => return,
            Ok(super::Waited::Nothing) => {}
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// What the child needs, made before the fork: it must not allocate.
struct Plan<'a> {
    image: &'a Image<'a>,
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    moved: &'a [(OwnedFd, RawFd)],
}

/// The child's side between fork and exec. Async-signal-safe; never returns.
fn child(plan: &Plan<'_>, [release, hold]: [RawFd; 2], report: RawFd) -> ! {
    // SAFETY: the number is this process's copy of the end through which we are let go, and nobody uses it: open, it would hide
    // from us that the tracer is gone, and we would wait for ever with its memory.
    unsafe { libc::close(release) };
    let errno = become_target(plan, hold);
    let bytes = errno.to_ne_bytes();
    // SAFETY: `bytes` is four readable bytes; a failed write leaves the parent with an end of file, which it reads as
    // "started", and then with an ended child, which it reports.
    unsafe { libc::write(report, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: `_exit` runs no code of ours.
    unsafe { libc::_exit(127) }
}

/// Sets the child up and calls `execve`; returns the errno of the first call that failed.
fn become_target(plan: &Plan<'_>, hold: RawFd) -> i32 {
    let image = plan.image;
    let mut byte = 0_u8;
    // SAFETY: `byte` is one writable byte. Blocks until the tracer has seized us; end of file means it gave up.
    let held = unsafe { libc::read(hold, (&raw mut byte).cast(), 1) };
    if held != 1 {
        return libc::ECANCELED;
    }
    // SAFETY: takes no pointer. Fails only if we lead a group already, which a fresh child does not.
    if unsafe { libc::setsid() } < 0 {
        return nix::errno::Errno::last_raw();
    }
    if !image.descriptors.inherit {
        // SAFETY: takes no pointer. Marks them close-on-exec instead of closing them: `report` must live until then.
        if unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    for (ours, number) in plan.moved {
        // SAFETY: takes no pointer; `ours` lies above every target number, so nothing needed is overwritten. The copy
        // is not closed on exec.
        if unsafe { libc::dup2(ours.as_raw_fd(), *number) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    if image.descriptors.terminal {
        // SAFETY: the request takes a number. We lead a new session without a terminal, and 0 is one.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    if image.cores {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid rlimit to write to.
        if unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) } < 0 {
            return nix::errno::Errno::last_raw();
        }
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit; raising the soft limit to the hard one needs no privilege.
        if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    if let Some(dir) = image.dir {
        // SAFETY: `dir` is a C string that outlives the call.
        if unsafe { libc::chdir(dir.as_ptr()) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    for signal in 1..=LAST_SIGNAL {
        // Ignoring a signal discards a pending one; the two that cannot be ignored, and libc's own, refuse.
        for action in [libc::SIG_IGN, libc::SIG_DFL] {
            // SAFETY: neither action is a handler.
            unsafe { libc::signal(signal, action) };
        }
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `none` is a sigset_t to write to.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was made by the call before; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) } < 0 {
        return nix::errno::Errno::last_raw();
    }
    if image.fixed_layout {
        // SAFETY: takes no pointer. Refused (EPERM) where a container's filter knows the default personality alone.
        if unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) } < 0 {
            return nix::errno::Errno::last_raw();
        }
    }
    // SAFETY: all three are NUL-terminated, `argv` and `envp` end with a null pointer (`pointers`).
    unsafe { libc::execve(image.program.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
    nix::errno::Errno::last_raw()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_child_whose_tracer_ends_before_it_seizes_does_not_stay_behind() {
        const ALONE: &str = "HARNESS_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            let arguments = [c"true".to_owned()];
            let descriptors = Descriptors::default();
            let program = c"/bin/true";
            let image = Image {
                program,
                argv: &arguments,
                envp: &[],
                dir: None,
                cores: false,
                pid: None,
                fixed_layout: false,
                descriptors,
            };
            let _ = spawn_traced(&image, |pid| {
                eprintln!("child {pid}");
                std::process::exit(0)
            });
            unreachable!("it has ended");
        }
        let test = "sys::spawn::tests::a_child_whose_tracer_ends_before_it_seizes_does_not_stay_behind";
        let mut alone = Command::new("/proc/self/exe");
        // To a file: the child holds it open as long as it lives.
        let (dir, said) = (tempfile::tempdir().unwrap(), "said");
        let file = std::fs::File::create(dir.path().join(said)).unwrap();
        let status = alone.args(["--exact", test, "--nocapture"]).env(ALONE, "1").stderr(file).status().unwrap();
        let said = std::fs::read_to_string(dir.path().join(said)).unwrap();
        let pid: i32 = said.split_once("child ").expect("a child was made").1.trim().parse().expect("its number");

        assert!(status.success(), "{said}");
        let patience = Instant::now() + Duration::from_secs(60);
        let waits = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while waits() {
            if Instant::now() > patience {
                nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
                panic!("process {pid} waits for nobody");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
