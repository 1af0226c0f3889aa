//! The same clock and the same process number in every run, where the same random numbers were not enough.
//!
//! The clock begins where it stood when the first of these runs was made, goes on by a little with every question, and
//! by what was slept. The kernel's code page, through which a program reads the clock without a call, is hidden from a
//! new image: the C library then makes calls, whose results are written over. A program that reads the processor's
//! counter itself (`rdtsc`) sees the real one.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::Process;

/// Keys of getauxval(3): no entry, the address of the kernel's code page, the end.
const AT_IGNORE: u64 = 1;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_NULL: u64 = 0;

/// Words at the top of a new stack that are looked through for the auxiliary vector: arguments and environment come first.
const MOST_WORDS: usize = 1 << 16;

/// By how much the clock goes on when it is asked.
const TICK: Duration = Duration::from_micros(10);

/// What is the same in several runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Same {
    /// When their clocks begin: since 1970, and since the machine's start.
    real: Duration,
    monotonic: Duration,
    /// The number of their first process, where there is one to have again.
    pub(super) pid: Option<Pid>,
}

impl Same {
    /// The same with a process number, unless there is one already.
    pub(crate) fn with_number(self, pid: Option<Pid>) -> Self {
        Self { pid: self.pid.or(pid), ..self }
    }

    /// The clocks of now.
    pub(crate) fn now() -> Self {
        // Neither clock can be missing; were one, it would begin at zero in all runs.
        let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
        Self { real: read(ClockId::CLOCK_REALTIME), monotonic: read(ClockId::CLOCK_MONOTONIC), pid: None }
    }
}

/// The clock of one run.
pub(super) struct Clock {
    same: Same,
    passed: Duration,
}

impl Clock {
    pub(super) fn new(same: Same) -> Self {
        Self { same, passed: Duration::ZERO }
    }

    /// Hides the kernel's code page from a new image, which stands in its exec stop.
    pub(super) fn image(&self, process: &Process) {
        // What cannot be found or written stays as it is: the run is then less repeatable, which shows.
        let Ok(registers) = nix::sys::ptrace::getregs(process.pid) else { return };
        let mut bytes = vec![0; MOST_WORDS * 8];
        let Ok(read) = process.mem.read_at(&mut bytes, registers.rsp) else { return };
        let words: Vec<u64> = bytes[..read].as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        // The number of arguments, the arguments, a null, the environment, a null, the vector (System V ABI, x86-64).
        let Some(arguments) = words.first().and_then(|count| usize::try_from(*count).ok()) else { return };
        let Some(environment) = arguments.checked_add(2).and_then(|start| words.get(start..)) else { return };
        let Some(end) = environment.iter().position(|word| *word == 0) else { return };
        let vector = arguments + 2 + end + 1;
        for (number, pair) in words.get(vector..).unwrap_or_default().as_chunks::<2>().0.iter().enumerate() {
            match pair[0] {
                AT_NULL => return,
                AT_SYSINFO_EHDR => {
                    let at = registers.rsp + (vector as u64 + number as u64 * 2) * 8;
                    let _ = process.mem.write_all_at(&AT_IGNORE.to_ne_bytes(), at); // as above
                }
                _ => {}
            }
        }
    }

    /// Writes over what a call has told of the time, and notes what was slept. The task stands at the call's exit.
    ///
    /// # Source
    ///
    /// clock_gettime(2), gettimeofday(2), time(2), nanosleep(2), clock_nanosleep(2), poll(2), epoll_wait(2).
    pub(super) fn call(&mut self, task: Pid, process: &Process) {
        let Ok(mut registers) = nix::sys::ptrace::getregs(task) else { return }; // ESRCH: killed meanwhile
        let result = registers.rax.cast_signed();
        let put = |time: Duration, fraction: u64, at: u64| {
            let bytes = [time.as_secs().to_ne_bytes(), fraction.to_ne_bytes()].concat();
            let _ = process.mem.write_all_at(&bytes, at); // not writable: the call has failed
        };
        let asked = |at: u64| {
            let mut bytes = [0; 16];
            process.mem.read_exact_at(&mut bytes, at).ok()?;
            let [seconds, nanoseconds] = [0, 8].map(|at| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8")));
            Some(Duration::new(seconds, u32::try_from(nanoseconds).ok()?))
        };
        match i64::try_from(registers.orig_rax) {
            Ok(libc::SYS_clock_gettime) if result == 0 => {
                let time = self.ask(registers.rdi as i32); // the kernel looks at the low half alone
                put(time, u64::from(time.subsec_nanos()), registers.rsi);
            }
            Ok(libc::SYS_gettimeofday) if result == 0 && registers.rdi != 0 => {
                let time = self.ask(libc::CLOCK_REALTIME);
                put(time, u64::from(time.subsec_micros()), registers.rdi);
            }
            Ok(libc::SYS_time) if result >= 0 => {
                let seconds = self.ask(libc::CLOCK_REALTIME).as_secs();
                if registers.rdi != 0 {
                    let _ = process.mem.write_all_at(&seconds.to_ne_bytes(), registers.rdi); // as above
                }
                registers.rax = seconds;
                let _ = nix::sys::ptrace::setregs(task, registers); // ESRCH: killed meanwhile
            }
            Ok(libc::SYS_nanosleep) if result == 0 => self.passed += asked(registers.rdi).unwrap_or_default(),
            Ok(libc::SYS_clock_nanosleep) if result == 0 => {
                let until = asked(registers.rdx).unwrap_or_default();
                let relative = registers.rsi as i32 & libc::TIMER_ABSTIME == 0;
                let now = self.start(registers.rdi as i32) + self.passed;
                self.passed += if relative { until } else { until.saturating_sub(now) };
            }
            Ok(libc::SYS_poll) if result == 0 => self.wait(registers.rdx),
            Ok(libc::SYS_epoll_wait | libc::SYS_epoll_pwait) if result == 0 => self.wait(registers.r10),
            _ => {}
        }
    }

    /// A call has waited for so many milliseconds, or a negative number.
    fn wait(&mut self, milliseconds: u64) {
        self.passed += Duration::from_millis(u64::try_from(milliseconds as i32).unwrap_or(0));
    }

    fn ask(&mut self, clock: i32) -> Duration {
        self.passed += TICK;
        self.start(clock) + self.passed
    }

    fn start(&self, clock: i32) -> Duration {
        match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => self.same.real,
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
                self.same.monotonic
            }
            _ => Duration::ZERO, // the time that a process or a thread has used
        }
    }
}
