//! What a worker gives up before it takes a request: descriptors, dumps, signals that would end it uncleaned, system calls.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::frame::{Failed, Why};
use crate::error::Error as MemoryError;
use crate::purge::{self, Plan, ends_a_process};
use crate::secret::Secret;
use crate::{arena, harden, input, report, scrub, sys};

/// A step that was refused: [`Error::Confine`](super::Error::Confine).
#[derive(Debug)]
pub(super) struct Step {
    at: usize,
    errno: i32,
}

const STEPS: [&str; 9] = [
    "unknown",
    "its first steps",
    "setting its signals",
    "hardening it",
    "making its memory",
    "keeping /proc/self/smaps open",
    "watching its caller",
    "the list of system calls",
    "applying the list of system calls",
];

impl Step {
    /// What a step is called.
    pub(super) fn name_of(number: u64) -> &'static str {
        usize::try_from(number).ok().and_then(|at| STEPS.get(at)).copied().unwrap_or(STEPS[0])
    }

    pub(super) fn told(&self) -> Failed {
        let number = u64::from(self.errno.unsigned_abs());
        Failed { why: Why::Refused, number, other: self.at as u64 }
    }
}

fn system(at: usize) -> impl Fn(io::Error) -> Step {
    move |error| Step { at, errno: error.raw_os_error().unwrap_or(0) }
}

fn memory(at: usize) -> impl Fn(MemoryError) -> Step {
    move |error| Step { at, errno: errno_of(&error) }
}

/// The `errno` behind an error, or 0.
pub(super) fn errno_of(error: &MemoryError) -> i32 {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error).unwrap_or(0)
}

/// Files of the kernel's about this process, which it cannot open any more.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) status: std::fs::File,
}

/// Makes this process one that can do its work and nothing else. It has one thread so far.
pub(super) fn close_up() -> Result<Files, Step> {
    take_signals()?;
    harden::harden().map_err(memory(3))?;
    // What is made at its first use is made now: the stack for other people's code, and the thread that watches deadlines.
    scrub::run(|| ()).map_err(memory(4))?;
    drop(Secret::options().expires_in(Duration::from_secs(3600)).zeroed(1).map_err(memory(4))?);
    report::keep_open().map_err(system(5))?;
    let status = std::fs::File::open("/proc/self/status").map_err(system(5))?;
    watch()?;
    let list = allowed().map_err(|_| Step { at: 7, errno: 0 })?;
    if !cfg!(secmem_ablate = "vault-filter") {
        apply_filter_all_threads(&list).map_err(|error| Step {
            at: 8,
            errno: match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                    error.raw_os_error().unwrap_or(0)
                }
                _ => 0,
            },
        })?;
    }
    Ok(Files { status })
}

/// Every signal that would end the process purges first. What its caller ignored or blocked is as it was meant to be.
fn take_signals() -> Result<(), Step> {
    let all = (1..=31).chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    // What a write to a caller that is gone sends: an error says it, too.
    let ends: Vec<_> = all.filter(|&signal| ends_a_process(signal) && signal != libc::SIGPIPE).collect();
    for &signal in &ends {
        sys::reset_action(signal).map_err(system(2))?;
    }
    sys::unblock_signals().map_err(system(2))?;
    if !cfg!(secmem_ablate = "vault-signals") {
        purge::install(&Plan::default().signals(ends)).map_err(memory(2))?;
    }
    Ok(())
}

/// Ends this process when its caller does, also while it waits for somebody who types. `PR_SET_PDEATHSIG` would not do: it comes
/// when the thread ends that has started the process.
fn watch() -> Result<(), Step> {
    // A child that the caller has forked may have the caller's end of the socket as long as it lives.
    let caller: Option<Pid> = getppid();
    let made = rustix::net::sockopt::socket_peercred(io::stdin()).map_err(|errno| system(6)(errno.into()))?;
    if caller != Some(made.pid) {
        leave(0); // it is gone already, and somebody else has taken its place
    }
    let caller = caller.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Running before there is a list of system calls, which is without those that a thread begins with.
    let (tell, told) = std::sync::mpsc::channel();
    sys::quiet_thread("secmem-vault-watch", move || {
        let _ = tell.send(());
        let socket = io::stdin();
        let other = caller.as_ref().map_or(socket.as_fd(), AsFd::as_fd);
        let interest = if caller.is_some() { PollFlags::IN } else { PollFlags::empty() };
        loop {
            let mut places = [PollFd::new(&socket, PollFlags::empty()), PollFd::from_borrowed_fd(other, interest)];
            match poll(&mut places, None) {
                Ok(_) if places.iter().any(|place| !place.revents().is_empty()) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        leave(0)
    })
    .map_err(system(6))?;
    told.recv().map_err(|_| Step { at: 6, errno: 0 })
}

/// Wipes everything and ends the process, whatever its other threads do.
pub(super) fn leave(status: i32) -> ! {
    arena::purge_forced();
    input::restore_terminal();
    sys::exit_now(status)
}

/// What the worker does with the kernel: memory, its socket, the terminal that it is given, time, its own end. What is not on the list
/// is `EPERM`: no file is opened, no process started, no connection made.
fn allowed() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        // memory
        libc::SYS_memfd_secret,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_mlock,
        libc::SYS_mlock2,
        libc::SYS_brk,
        libc::SYS_ftruncate,
        libc::SYS_membarrier,
        libc::SYS_getrandom,
        libc::SYS_sysinfo,
        // descriptors that it has or is given
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_lseek,
        libc::SYS_statx,
        libc::SYS_fstat,
        libc::SYS_close,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_pipe2, // how a question hears of signals
        // threads, signals and time
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_getpgrp, // whether a terminal is this process's to set
        libc::SYS_getpgid,
        libc::SYS_rt_sigpending,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_sigaltstack,
        // its end
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    // Of terminals, what a question does: their settings, and what was typed and not read.
    let terminal =
        [libc::TCGETS, libc::TCSETS, libc::TCSETSW, libc::TCSETSF, libc::TCFLSH, libc::TIOCGPGRP, libc::TIOCGWINSZ];
    let terminal = terminal.into_iter().map(|request| is(1, request)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, terminal);
    let flags = [libc::F_GETFD, libc::F_GETFL, libc::F_SETFL];
    let flags = flags.into_iter().map(|command| is(1, command.unsigned_abs().into())).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_fcntl, flags);
    // Limits are looked at, not set; of itself a process says whether it may be dumped, and forbids it, before it aborts.
    rules.insert(
        libc::SYS_prlimit64,
        vec![SeccompRule::new(vec![SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?])?],
    );
    let condition =
        |argument, operation, value: u64| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value);
    let equal = |argument, value: i32| condition(argument, SeccompCmpOp::Eq, value.unsigned_abs().into());
    rules.insert(
        libc::SYS_prctl,
        vec![
            SeccompRule::new(vec![equal(0, libc::PR_GET_DUMPABLE)?])?,
            SeccompRule::new(vec![equal(0, libc::PR_SET_DUMPABLE)?, equal(1, 0)?])?,
        ],
    );
    // Signals to itself alone: what ends it, ends it as if nobody had caught it.
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![equal(0, own)?])?]);
    if cfg!(target_env = "musl") {
        rules.insert(libc::SYS_tkill, Vec::new()); // what its raise(3) makes
    }
    // No code but the program's.
    let not_executable = |argument| {
        let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
        condition(argument, SeccompCmpOp::MaskedEq(executable), 0).and_then(|it| SeccompRule::new(vec![it]))
    };
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![not_executable(2)?]);
    }

    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seam;

    #[test]
    fn what_is_not_on_the_list_is_refused_and_what_is_needed_is_not() {
        let ended = seam::in_child(
            "vault::confine::tests::what_is_not_on_the_list_is_refused_and_what_is_needed_is_not",
            || {
                let secret = Secret::new(32).unwrap();
                crate::scrub::run(|| ()).unwrap();
                let mut page = [0_u8; 1];
                let other = rustix::process::getppid().unwrap();
                seccompiler::apply_filter(&allowed().unwrap()).unwrap();

                let refused = |error: io::Error| error.raw_os_error() == Some(libc::EPERM);
                assert!(std::fs::File::open("/dev/null").is_err_and(refused));
                assert!(std::os::unix::net::UnixStream::pair().is_err_and(refused));
                assert!(std::process::Command::new("/bin/true").spawn().is_err_and(refused));
                assert!(std::thread::Builder::new().spawn(|| ()).is_err());
                assert!(std::fs::read_dir("/").is_err_and(refused));
                let sent = rustix::process::kill_process(other, rustix::process::Signal::CONT);
                assert_eq!(sent, Err(rustix::io::Errno::PERM));

                assert!(sys::reserve(4096, libc::PROT_READ | libc::PROT_EXEC).is_err_and(refused));

                // What it lives on: memory, of any size, its wipe, random bytes, a deadline.
                secret.with(|bytes| page[0] = bytes[0]).unwrap();
                drop(Secret::new(1 << 20).unwrap());
                crate::scrub::run(|| ()).unwrap();
                assert!(sys::random(&mut page).is_ok());
                sys::exit_now(0); // the harness of the tests has files of its own to write
            },
        );

        assert!(ended.status.success(), "{ended:?}");
    }
}
