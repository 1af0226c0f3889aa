//! A password in a worker process of its own, by each of the ways in which it is lent and ends.
//!
//! Both processes are looked at. Where nothing else is said the memory is that of mlock, in which an outside reader sees everything.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::input::Prompt;
use secmem::vault::{Config, Cost, Error, Vault};
use secmem::{Backend, Secret};

use crate::holder::{Held, Holder, Plant, Then};

/// Lent, and the process goes on.
pub(crate) static VAULT: Holder = ours("vault", LENT, &["S21"], lent);
/// The process ends while a callback has the password, or soon after: what wipes then is what wipes everything.
pub(crate) static VAULT_CUT: Holder = ours("vault-cut", KEPT, &["S21"], lent);
/// The same in memory that no outside reader reads.
pub(crate) static VAULT_MEMFD: Holder = Holder {
    needs: &[Need::MemfdSecret],
    ..ours("vault-memfd", LENT, &["S4", "S21"], |plant, then| {
        let vault = stored(plant, Backend::MemfdSecret)?;
        lend(&vault, then)?;
        left(vault);
        Ok(())
    })
};
/// The worker reads it from a pipe; this process has it for the time of a callback alone.
pub(crate) static VAULT_WORKER: Holder = Holder {
    canary: CanaryKind::Text,
    ..ours("vault-worker", LENT, &["S20", "S21"], |mut plant, then| {
        let vault = started(&plant, Backend::Mlock)?;
        let canary = plant.canary()?;
        let read = vault.read_to_end(&Prompt::new("").limit(plant.len), canary.as_fd());
        read.map_err(Failure::while_doing("letting the worker read the canary"))?;
        lend(&vault, then)?;
        left(vault);
        Ok(())
    })
};
/// Lent ten times, ten times at once, on a protected stack, and derived from. It is looked at before and after.
pub(crate) static VAULT_USED: Holder = ours("vault-used", LENT, &["S13", "S21"], |mut plant, then| {
    let vault = started(&plant, Backend::Mlock)?;
    let secret = plant.secret(Secret::options().backend(Backend::Mlock))?;
    then(&mut Held::Kept)?;
    vault.store(secret).and_then(|()| use_in_every_way(&vault)).map_err(Failure::while_doing("using a vault"))?;
    left(vault);
    Ok(())
});
/// A callback does not return before its deadline.
pub(crate) static VAULT_LATE: Holder = ours(
    "vault-late",
    &["vault-cipher", "vault-deadline", "vault-stored", "vault-worker-wipe"],
    &["S19", "S21"],
    |plant, then| {
        let span = plant.expires_in.unwrap_or(Duration::from_secs(60));
        let vault = stored(plant, Backend::Mlock)?;
        let late = vault.within(span).with_password(|bytes| then(&mut Held::At(bytes.as_ptr(), bytes.len())));
        left(vault);
        match late {
            Err(Error::Deadline { .. }) => Ok(()),
            Ok(ended) => ended.and(Err(Failure::denied("telling that a callback was late"))),
            Err(error) => Err(Failure::while_doing("lending a password")(error)),
        }
    },
);
/// The vault is stopped, and its worker with it.
pub(crate) static VAULT_STOPPED: Holder = ours("vault-stopped", LENT, &["S21"], |plant, then| {
    let vault = stored(plant, Backend::Mlock)?;
    lend(&vault, then)?;
    black_box(vault.stop());
    left(vault);
    Ok(())
});
/// A signal ends the worker while it has half of a password.
pub(crate) static VAULT_SIGNALLED: Holder =
    ours("vault-signalled", &["purge-on-signal", "vault-signals"], &["S16", "S21"], |mut plant, then| {
        let vault = started(&plant, Backend::Mlock)?;
        let secret = plant.secret(Secret::options().backend(Backend::Mlock))?;
        then(&mut Held::Kept)?;
        let doing = "handing the canary to the worker";
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(Failure::while_doing(doing))?;
        secret.write_to(ours.as_fd()).map_err(Failure::while_doing(doing))?;
        drop(secret);
        let ended = thread::scope(|scope| {
            let reads = scope.spawn(|| vault.read_to_end(&Prompt::new(""), theirs.as_fd()));
            // There is no end to be read: it waits, with all of it in a slot.
            while rustix::io::ioctl_fionread(&theirs).is_ok_and(|left| left > 0) {
                thread::sleep(Duration::from_millis(1));
            }
            let signalled = send(vault.pid(), libc::SIGTERM);
            signalled.map(|()| reads.join())
        });
        drop(ours);
        black_box(vault.stop()); // it has ended: now the thread that saw to it has, too
        left(vault);
        match ended? {
            Ok(Err(Error::Ended { .. })) => Ok(()),
            _ => Err(Failure::denied("telling that the worker has ended")),
        }
    });
/// What no vault can help: the callback copies the password to memory of its own.
pub(crate) static VAULT_COPIED: Holder = bare("vault-copied", |plant, then| {
    let vault = stored(plant, Backend::Mlock)?;
    let copied = vault.with_password(<[u8]>::to_vec).map_err(Failure::while_doing("lending a password"))?;
    left(vault);
    then(&mut Held::Bytes(black_box(&copied)))?;
    std::mem::forget(copied);
    Ok(())
});
/// Nor this: it unlocks a wallet, which stays open.
pub(crate) static VAULT_UNLOCKED: Holder = bare("vault-unlocked", |plant, then| {
    let vault = stored(plant, Backend::Mlock)?;
    let mut wallet = Box::new(Wallet { open: false, seed: [0; LEN] });
    let unlocked = vault.with_password(|password| wallet.unlock(password));
    unlocked.map_err(Failure::while_doing("lending a password"))?;
    left(vault);
    then(&mut Held::Bytes(black_box(&wallet.seed)))?;
    black_box(&mut wallet).open = false;
    std::mem::forget(wallet);
    Ok(())
});

/// What every row rests on that has a password in the worker.
const KEPT: &[&str] = &["vault-cipher", "vault-stored", "vault-worker-wipe"];

/// And what rests on the end of a callback as well.
const LENT: &[&str] = &["vault-cipher", "vault-lent", "vault-stored", "vault-worker-wipe"];

/// Bytes of canary.
const LEN: usize = 48;

struct Wallet {
    open: bool,
    seed: [u8; LEN],
}

impl Wallet {
    fn unlock(&mut self, password: &[u8]) {
        self.open = true;
        self.seed.copy_from_slice(password);
    }
}

const fn ours(
    name: &'static str,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    let (canary, needs): (_, &[Need]) = (CanaryKind::Bytes, &[Need::Mlock]);
    Holder { name, canary, canary_len: LEN, needs, ours: true, asks: false, turned_by, shows, hold }
}

const fn bare(name: &'static str, hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>) -> Holder {
    Holder { ours: false, turned_by: &[], shows: &[], ..ours(name, &[], &[], hold) }
}

fn started(plant: &Plant<'_>, backend: Backend) -> Result<Vault, Failure> {
    plant.install_purge()?;
    let doing = "starting a vault";
    let vault = Vault::start(Config::default().backend(backend)).map_err(Failure::while_doing(doing))?;
    vault.generate().map_err(Failure::while_doing(doing))?;
    Ok(vault)
}

fn stored(mut plant: Plant<'_>, backend: Backend) -> Result<Vault, Failure> {
    let vault = started(&plant, backend)?;
    let secret = plant.secret(Secret::options().backend(backend))?;
    vault.store(secret).map_err(Failure::while_doing("storing the canary in a vault"))?;
    Ok(vault)
}

fn lent(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let vault = stored(plant, Backend::Mlock)?;
    lend(&vault, then)?;
    left(vault);
    Ok(())
}

fn lend(vault: &Vault, then: Then<'_>) -> Result<(), Failure> {
    let lent = vault.with_password(|bytes| {
        black_box(sum(bytes));
        then(&mut Held::Kept)
    });
    lent.map_err(Failure::while_doing("lending a password"))?
}

/// Leaves the worker as it is, so that it is looked at, too. It ends with this process.
fn left(vault: Vault) {
    std::mem::forget(vault);
}

fn send(pid: u32, signal: i32) -> Result<(), Failure> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let sent = process.zip(rustix::process::Signal::from_named_raw(signal));
    let sent = sent.map(|(process, signal)| rustix::process::kill_process(process, signal));
    sent.unwrap_or(Err(rustix::io::Errno::INVAL)).map_err(Failure::while_doing("sending the worker a signal"))
}

fn use_in_every_way(vault: &Vault) -> Result<(), Error> {
    for _ in 0..10 {
        vault.with_password(sum)?;
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| vault.with_password(sum))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_or(Err(Error::Stopped), |lent| lent.map(drop)))
    })?;
    vault.with_password_scrubbed(|bytes| _ = black_box(sum(bytes)))?;
    let cost = Cost { memory: 64, passes: 1, lanes: 1 };
    drop(vault.derive(b"a salt of some length", cost, 32)?);
    vault.sign(b"a message").map(drop)
}

/// Something that leaves nothing of its argument.
fn sum(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| usize::from(*byte)).sum()
}
