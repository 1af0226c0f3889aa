//! Targets that hide a secret where a harness might not look, and say that it is gone. None may be called clean.
//!
//! This program is both sides: started with `list` or `run` it is the subject, else the tests.
#![allow(unsafe_code)] // system calls that the standard library does not wrap

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use findings::{Outcome, Verdict};
use harness::audit::{self, Options};
use harness::canary::Seed;
use harness::machine;
use libtest_mimic::{Arguments, Failed, Trial};
use scenario_protocol::{CANARY_FD, CONTROL_FD, CanaryKind, Checkpoint, Ends, Need, Row};

const LENGTH: usize = 32;

/// A way to lie, with the verdicts that see through it.
struct Liar {
    name: &'static str,
    lie: fn(&mut [u8]),
    ends: Ends,
    checkpoints: &'static [Checkpoint],
}

const LIARS: &[Liar] = &[
    Liar {
        name: "honest",
        lie: |secret| {
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "says-wiped-and-is-not",
        lie: |_| announce(Checkpoint::Wiped),
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "shielded-until-killed",
        lie: |_| {
            // SAFETY: takes no pointer.
            unsafe { libc::kill(std::process::id() as libc::pid_t, libc::SIGKILL) };
        },
        ends: Ends::Signal(libc::SIGKILL),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Exit],
    },
    Liar {
        name: "ends-its-only-thread",
        lie: |_| {
            // SAFETY: takes no pointer and does not return.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Exit],
    },
    Liar {
        name: "replaces-the-descriptor-between-us",
        lie: |_| {
            let file = File::create("mine").expect("a file of its own");
            // SAFETY: takes no pointer; whatever 5 was is closed by this.
            unsafe { libc::dup2(file.as_raw_fd(), 5) };
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "leaves-a-file-behind",
        lie: |secret| {
            std::fs::write("left", &*secret).expect("a file of its own");
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "hides-a-child",
        lie: |secret| {
            let (mut copied, mut tell) = std::io::pipe().expect("a pipe");
            let flags = libc::CLONE_UNTRACED | libc::SIGCHLD;
            // SAFETY: without CLONE_VM this is a fork; no stack is given.
            if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
                let copy = secret.to_vec();
                tell.write_all(b"!").expect("the parent listens");
                std::thread::sleep(Duration::from_secs(60));
                std::hint::black_box(copy);
            }
            copied.read_exact(&mut [0]).expect("the child's word");
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "hides-a-child-behind-the-tracers-back",
        lie: |secret| {
            hide_by_race();
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "calls-in-the-32-bit-way",
        lie: |secret| {
            // SAFETY: getpid takes no pointer; 20 is its number in that table.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("eax") 20 => _, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _)
            };
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "parks-it-in-a-connection-that-nobody-accepts",
        lie: |secret| {
            let address = "waiting";
            let listener = UnixListener::bind(address).expect("a socket of its own");
            UnixStream::connect(address).and_then(|mut stream| stream.write_all(secret)).expect("room for it");
            std::fs::remove_file(address).expect("the socket's name");
            secret.fill(0);
            std::hint::black_box(&secret);
            announce(Checkpoint::Wiped);
            drop(listener);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "names-a-pipe-after-it",
        lie: |secret| {
            let name: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            nix::unistd::mkfifo(name.as_str(), nix::sys::stat::Mode::S_IRUSR).expect("a pipe of its own");
            announce(Checkpoint::Wiped);
        },
        ends: Ends::Exit(0),
        checkpoints: &[Checkpoint::Planted, Checkpoint::Wiped, Checkpoint::Exit],
    },
    Liar {
        name: "comes-back-from-exit",
        lie: |secret| {
            let copy = secret.to_vec();
            secret.fill(0);
            std::hint::black_box(&secret);
            refuse_exit_group();
            // SAFETY: takes no pointer; the filter makes it return.
            unsafe { libc::syscall(libc::SYS_exit_group, 0) };
            secret.copy_from_slice(&copy);
            // SAFETY: takes no pointer.
            unsafe { libc::kill(std::process::id() as libc::pid_t, libc::SIGKILL) };
        },
        ends: Ends::Signal(libc::SIGKILL),
        checkpoints: &[Checkpoint::Planted, Checkpoint::ExitCall, Checkpoint::Exit],
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("list") => {
            let rows: Vec<Row> = LIARS.iter().map(row).collect();
            println!("{}", serde_json::to_string(&rows).expect("rows are JSON"));
            ExitCode::SUCCESS
        }
        Some("run") => {
            subject(args.get(2).expect("a name"));
            ExitCode::SUCCESS
        }
        _ => libtest_mimic::run(&Arguments::from_args(), tests()).exit_code(),
    }
}

fn row(liar: &Liar) -> Row {
    Row {
        name: format!("liar/{}", liar.name),
        holder: "liar".to_owned(),
        ending: liar.name.to_owned(),
        canary: CanaryKind::Bytes,
        canary_len: LENGTH,
        expect: "clean".parse().expect("an expectation"),
        ends: liar.ends,
        checkpoints: liar.checkpoints.to_vec(),
        sole_home: false,
        needs: vec![Need::MemfdSecret],
        turned_by: Vec::new(),
        asks: false,
        shows: Vec::new(),
        derived: None,
    }
}

/// Reads the secret into memfd_secret memory, shows it, and lies.
fn subject(name: &str) {
    let liar = LIARS.iter().find(|liar| name == format!("liar/{}", liar.name)).expect("a liar of that name");
    let secret = secret_memory();
    // SAFETY: the harness hands this descriptor down; nobody else here owns it.
    let mut canary = File::from(unsafe { OwnedFd::from_raw_fd(CANARY_FD) });
    canary.read_exact(secret).expect("the canary");
    drop(canary);
    announce(Checkpoint::Planted);
    (liar.lie)(secret);
}

/// One page that no outside reader can read.
fn secret_memory() -> &'static mut [u8] {
    // SAFETY: takes no pointer.
    let number = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let number = i32::try_from(number).expect("a descriptor");
    // SAFETY: the kernel has just made it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    file.set_len(4096).expect("a page of secret memory");
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, shared, file.as_raw_fd(), 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the page was just mapped, is zeroed, and is never unmapped.
    unsafe { std::slice::from_raw_parts_mut(page.cast(), LENGTH) }
}

/// Starts children until one is not traced: another thread puts back, in memory, the wish that the tracer takes out.
fn hide_by_race() {
    /// `struct clone_args` of linux/sched.h: flags first, the signal at the child's end fifth.
    static ARGS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    static DONE: AtomicBool = AtomicBool::new(false);
    ARGS[4].store(libc::SIGCHLD as u64, Ordering::SeqCst);
    let wish = || {
        while !DONE.load(Ordering::Relaxed) {
            ARGS[0].store(libc::CLONE_UNTRACED as u64, Ordering::SeqCst);
        }
    };
    let wisher = std::thread::spawn(wish);
    for _ in 0..60 {
        // SAFETY: the kernel reads 64 bytes, which are there for ever; without CLONE_VM this is a fork.
        let child = unsafe { libc::syscall(libc::SYS_clone3, ARGS.as_ptr(), 64) };
        if child == 0 {
            // SAFETY: takes no pointer and runs nothing of this process.
            unsafe { libc::_exit(0) };
        }
        let child = nix::unistd::Pid::from_raw(i32::try_from(child).expect("a process number"));
        nix::sys::wait::waitpid(child, None).expect("the child's end");
    }
    DONE.store(true, Ordering::Relaxed);
    wisher.join().expect("the other thread");
}

/// From here on `exit_group` fails with `EPERM`.
fn refuse_exit_group() {
    let step = |code: u32, jf, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the call's number
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_exit_group as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: `program` describes `steps`, which the kernel copies during the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

fn announce(checkpoint: Checkpoint) {
    // SAFETY: the harness hands this descriptor down; it is given back below.
    let mut control = File::from(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) });
    control.write_all(&checkpoint.frame()).expect("the harness listens");
    control.read_exact(&mut [0; 2]).expect("the harness answers");
    let _ = control.into_raw_fd();
}

fn tests() -> Vec<Trial> {
    let missing = machine::lacks(&machine::probe(), &[Need::MemfdSecret]);
    let test = |name: &'static str, check: fn(&Outcome) -> bool| {
        let run = move || {
            let outcome = judge(name);
            if check(&outcome) { Ok(()) } else { Err(Failed::from(format!("{outcome:#?}"))) }
        };
        Trial::test(name, run).with_ignored_flag(missing.is_some()).with_kind(missing.clone().unwrap_or_default())
    };
    vec![
        test("honest", |outcome| outcome.verdict == Verdict::Clean),
        test("says-wiped-and-is-not", |outcome| outcome.verdict == Verdict::Leak),
        test("shielded-until-killed", |outcome| {
            outcome.verdict == Verdict::Inconclusive && says(outcome, "not seen to be wiped")
        }),
        test("ends-its-only-thread", |outcome| outcome.verdict == Verdict::Leak),
        // It is made to open a pipe, and what it has not wiped is seen.
        test("replaces-the-descriptor-between-us", |outcome| outcome.verdict == Verdict::Leak),
        test("leaves-a-file-behind", |outcome| {
            outcome.verdict == Verdict::Leak && outcome.findings.iter().any(|finding| finding.place.contains("left"))
        }),
        test("parks-it-in-a-connection-that-nobody-accepts", |outcome| {
            outcome.verdict == Verdict::Inconclusive && says(outcome, "nobody has accepted")
        }),
        test("names-a-pipe-after-it", |outcome| {
            outcome.verdict == Verdict::Leak && says(outcome, "a name that holds the secret")
        }),
        test("comes-back-from-exit", |outcome| {
            outcome.verdict != Verdict::Clean && says(outcome, "exit_group(2) came back")
        }),
        test("hides-a-child", |outcome| outcome.verdict == Verdict::Leak),
        test("hides-a-child-behind-the-tracers-back", |outcome| {
            outcome.verdict != Verdict::Clean && says(outcome, "are not traced")
        }),
        test("calls-in-the-32-bit-way", |outcome| {
            // A kernel without those calls ends whoever makes one.
            outcome.verdict == Verdict::Inconclusive && (says(outcome, "int 0x80") || outcome.ended != "exit 0")
        }),
    ]
}

fn says(outcome: &Outcome, why: &str) -> bool {
    outcome.reasons.iter().any(|reason| reason.contains(why))
}

fn judge(name: &str) -> Outcome {
    let liar = LIARS.iter().find(|liar| liar.name == name).expect("a liar of that name");
    // Longer than any takes on a busy machine, but for the one whose child outlives every wait.
    let patience = if name == "hides-a-child" { 20 } else { 120 };
    let options = Options {
        timeout: Duration::from_secs(patience),
        ..Options::new(std::env::current_exe().expect("this program"), Seed::random().expect("random bytes"))
    };
    audit::row(&row(liar), &machine::probe(), &options, &AtomicBool::new(false))
}
