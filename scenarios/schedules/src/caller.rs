//! The caller: keeps the canary in a coffer, gives it to a vault, asks for it until everything planned has come, and starts a
//! worker anew whenever one is gone.
//!
//! Whatever a schedule does, this process ends by itself or by a signal of the schedule, and before it does the vault works once more.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use scenario_protocol::Checkpoint;
use scenario_stage::{Canary, Failure};
use secmem::coffer::{Coffer, Stored};
use secmem::vault::{Config, Error, Vault};
use secmem::{Backend, Options, Policy, Secret};

use crate::driver::{self, LINGER};
use crate::schedule::{Control, LEN, Schedule};

/// Time of a call: long against one on a loaded machine that is looked at meanwhile.
const DEADLINE: Duration = Duration::from_secs(1);
/// What a worker has to end, after SIGTERM.
const GRACE: Duration = Duration::from_millis(200);
/// Calls that each thread makes at least, and at most.
const CALLS: std::ops::RangeInclusive<u32> = 3..=40;
/// How often one thing is tried: more often than things go wrong in any schedule.
const TRIES: u32 = 20;

/// Plays the caller of a schedule.
pub(crate) fn run(schedule: &Schedule) -> Result<u8, Failure> {
    panic::set_hook(Box::new(|_| ())); // those of the schedule are caught
    let (control, mut canary) = driver::adopt()?;
    let secret = options().filled(LEN, |slot| canary.read_into(slot).map_err(|error| error.to_string()));
    let secret = secret.map_err(Failure::while_doing("reading the canary"))?;
    drop::<Canary>(canary);
    control.announce(Checkpoint::Planted)?;
    let coffer = Coffer::with_policy(policy()).map_err(Failure::while_doing("making a coffer"))?;
    let stored = coffer.store(&secret).map_err(Failure::while_doing("keeping the canary in a coffer"))?;
    let sum = secret.with(sum_of).map_err(Failure::while_doing("reading a secret"))?;
    drop(secret);
    match schedule.control {
        Some(Control::Hang) => thread::sleep(driver::LONG),
        Some(Control::Orphan) => {
            let lingers = Command::new("/proc/self/exe").arg(LINGER).spawn();
            lingers.map(drop).map_err(Failure::while_doing("leaving a process behind"))?;
        }
        _ => {}
    }

    let config = Config::default().backend(Backend::Mlock).deadline(DEADLINE).grace(GRACE);
    let vault = Vault::start(config).map_err(Failure::while_doing("starting a vault"))?;
    let keeps = AtomicBool::new(schedule.control == Some(Control::CallerKeeps));
    let client = Client { vault, stored, sum, polls: schedule.polls, keeps, mending: Mutex::new(()) };
    client.set_up();
    thread::scope(|scope| {
        let calling = || {
            for call in 1..=*CALLS.end() {
                client.call();
                if call >= *CALLS.start() && all_came() {
                    break;
                }
            }
        };
        let threads: Vec<_> = (0..schedule.threads).map(|_| scope.spawn(calling)).collect();
        // The scope alone would not wait until the kernel has no such thread any more, and one that is just ending is not looked at.
        threads.into_iter().for_each(|thread| _ = thread.join());
    });
    let works = client.call();
    let counts = client.vault.counts();
    if !works {
        return Err(Failure::denied("calling the vault once more when everything had come"));
    }
    if counts.lent != counts.wiped {
        return Err(Failure::denied("counting as many plaintexts wiped as lent"));
    }
    let _ = client.vault.stop();
    Ok(0)
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A runtime of the smallest kind.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

/// Whether whoever counts what comes has closed its end of standard input: all has.
fn all_came() -> bool {
    let stdin = std::io::stdin();
    let mut place = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut place, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn policy() -> Policy {
    Policy::from(Backend::Mlock)
}

fn options() -> Options {
    Secret::options().policy(policy())
}

/// Tells the password from zeros, and is no copy of it.
fn sum_of(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

struct Client {
    vault: Vault,
    stored: Stored,
    sum: u64,
    /// Calls are polled.
    polls: bool,
    /// A callback is to keep a copy, once.
    keeps: AtomicBool,
    /// One thread at a time puts the vault in order.
    mending: Mutex<()>,
}

/// A panic of a step's, or what the vault says.
enum Trouble {
    Panicked(#[expect(dead_code, reason = "nobody asks what it says")] Box<dyn Any + Send>),
    Refused(Error),
}

fn attempt<T>(what: impl FnOnce() -> Result<T, Error>) -> Result<T, Trouble> {
    match panic::catch_unwind(AssertUnwindSafe(what)) {
        Ok(result) => result.map_err(Trouble::Refused),
        Err(payload) => Err(Trouble::Panicked(payload)),
    }
}

impl Client {
    /// Asks for the password until it comes; `false` if it does not.
    fn call(&self) -> bool {
        let mut late = false;
        for _ in 0..TRIES {
            let pid = self.vault.pid();
            let called = attempt(|| {
                if self.polls {
                    block_on(self.vault.with_password_async(async |lent| lent.with(|bytes| self.use_password(bytes))))?
                } else {
                    self.vault.with_password(|bytes| self.use_password(bytes))
                }
            });
            match called {
                Ok(same) => return same,
                Err(Trouble::Panicked(_)) => {}
                // Once may be the machine's fault; a worker that stands still is late every time.
                Err(Trouble::Refused(Error::Deadline { .. })) if !late => late = true,
                Err(Trouble::Refused(Error::NoKeys | Error::NoPassword)) => self.mend(None),
                Err(Trouble::Refused(_)) => self.mend(Some(pid)),
            }
        }
        false
    }

    fn use_password(&self, bytes: &[u8]) -> bool {
        if self.keeps.swap(false, Ordering::AcqRel) {
            std::mem::forget(std::hint::black_box(bytes.to_vec()));
        }
        sum_of(bytes) == self.sum
    }

    /// A worker in place of that one, if nobody has started one meanwhile; and the password in it.
    fn mend(&self, instead_of: Option<u32>) {
        let _one = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        if instead_of.is_none_or(|pid| pid == self.vault.pid()) {
            if instead_of.is_some() {
                let _ = attempt(|| self.vault.restart()); // whoever calls next finds it as it is
            }
            self.set_up();
        }
    }

    /// Keys, and the password.
    fn set_up(&self) {
        for _ in 0..TRIES {
            let pid = self.vault.pid();
            let ready = attempt(|| {
                self.vault.generate()?;
                self.vault.store(self.stored.open(options())?)
            });
            match ready {
                Ok(()) => return,
                Err(Trouble::Panicked(_)) => {}
                Err(Trouble::Refused(_)) if pid == self.vault.pid() => _ = attempt(|| self.vault.restart()),
                Err(Trouble::Refused(_)) => {}
            }
        }
    }
}
