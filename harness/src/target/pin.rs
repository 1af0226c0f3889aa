//! The same random numbers in every run: what the kernel gives a program is written over before the program sees it.
//!
//! A program that seeds its hash tables by them has another heap in every run, and a residue that does not stand at the
//! same address again has no writer that could be watched. Processes that run at the same time share one stream, so
//! they get the same numbers only where they ask for them in the same order.

use std::os::unix::fs::{FileExt, MetadataExt};

use nix::unistd::Pid;

use super::Process;
use super::same::{Clock, Same};

/// `AT_RANDOM` of getauxval(3): the address of sixteen random bytes.
const AT_RANDOM: u64 = 25;

/// Device numbers of `/dev/random` and `/dev/urandom` (Documentation/admin-guide/devices.txt).
const RANDOM_DEVICES: [u64; 2] = [libc::makedev(1, 8), libc::makedev(1, 9)];

/// Bytes that are written at a time.
const PIECE: usize = 4096;

/// A stream of bytes that is the same in every run.
pub(super) struct Pin {
    stream: blake3::OutputReader,
    /// The clock, too.
    clock: Option<Clock>,
}

impl Pin {
    pub(super) fn new(same: Option<Same>) -> Self {
        let stream = blake3::Hasher::new().update(b"the same numbers in every run").finalize_xof();
        Self { stream, clock: same.map(Clock::new) }
    }

    /// Writes over the sixteen bytes that a new image finds on its stack. It stands in its exec stop.
    ///
    /// They are the same in every image: a stack protector needs no more.
    pub(super) fn image(&self, process: &Process) {
        if let Some(clock) = &self.clock {
            clock.image(process);
        }
        // What cannot be read or written stays as it is: the run is then less repeatable, which shows.
        let Ok(vector) = std::fs::read(format!("/proc/{}/auxv", process.pid)) else { return };
        let mut words = vector.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            if key == AT_RANDOM {
                let _ = process.mem.write_all_at(&[0x5a; 16], value); // as above
            }
        }
    }

    /// Writes over what a call has brought, if that was random. The task stands at the call's exit.
    pub(super) fn call(&mut self, task: Pid, process: &Process) {
        if let Some(clock) = &mut self.clock {
            clock.call(task, process);
        }
        let Ok(registers) = nix::sys::ptrace::getregs(task) else { return }; // ESRCH: killed meanwhile
        let into = match i64::try_from(registers.orig_rax) {
            Ok(libc::SYS_getrandom) => registers.rdi,
            Ok(libc::SYS_read | libc::SYS_pread64) if is_random(task, registers.rdi) => registers.rsi,
            _ => return,
        };
        let Ok(mut left) = usize::try_from(registers.rax as i64) else { return }; // an error: nothing came
        let mut at = into;
        let mut piece = [0; PIECE];
        while left > 0 {
            let part = &mut piece[..left.min(PIECE)];
            self.stream.fill(part);
            if process.mem.write_all_at(part, at).is_err() {
                return; // it stays random, and the run is less repeatable, which shows
            }
            left -= part.len();
            at = at.wrapping_add(part.len() as u64);
        }
    }
}

fn is_random(task: Pid, descriptor: u64) -> bool {
    let descriptor = descriptor as i32; // the kernel looks at the low half alone
    let device = std::fs::metadata(format!("/proc/{task}/fd/{descriptor}")).map(|meta| meta.rdev());
    device.is_ok_and(|device| RANDOM_DEVICES.contains(&device))
}
