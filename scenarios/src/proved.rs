#![allow(unsafe_code)] // a filter for the process's own system calls
//! What secmem says of itself, held against the kernel while a secret is there: a row ends with a denial, and so is
//! inconclusive, where it says too much or too little.

use std::hint::black_box;
use std::io;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::{Backend, Control, Demand, Options, Policy, Secret, Statistics, ct, wipe};

use crate::holder::{Held, Holder, Plant, Then};

/// Bytes of canary.
const LEN: usize = 64;

/// The kernel locks no memory: what requires that is refused, and what prefers it says that it lacks it.
pub(crate) static REFUSED: Holder = ours("secmem-refused", &[], &["lock"], &["S2"], refused);
/// The kernel confirms what was reached, and the numbers are those of one secret.
pub(crate) static VERIFIED: Holder = ours(
    "secmem-verified",
    &[Need::Mlock],
    &["dont-dump", "dont-fork", "guard-after", "guard-before", "lock", "wipe-on-fork"],
    &["S3", "S24"],
    verified,
);
/// In a process that dumps no core and that others of the same user cannot read.
pub(crate) static HARDENED: Holder =
    ours("secmem-hardened", &[Need::Mlock], &["harden-dumpable", "harden-limit"], &["S15"], hardened);
/// Compared with its twin, in a time that does not depend on either.
pub(crate) static COMPARED: Holder = ours("secmem-compared", &[Need::Mlock], &["eq-clear"], &["S9", "S17"], compared);
/// Everything that shows it is printed, and an error about it besides.
pub(crate) static PRINTED: Holder =
    Holder { asks: false, ..ours("secmem-printed", &[Need::Mlock], &[], &["S18"], printed) };

const fn ours(
    name: &'static str,
    needs: &'static [Need],
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    Holder { name, canary: CanaryKind::Bytes, canary_len: LEN, needs, ours: true, turned_by, asks: true, shows, hold }
}

/// In memory that an outside reader can read.
fn options() -> Options {
    Secret::options().backend(Backend::Mlock)
}

/// A denial unless what was said holds.
pub(crate) fn expect(holds: bool, what: &'static str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::denied(what)) }
}

fn refused(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    refuse_locking().map_err(Failure::while_doing("having the kernel refuse to lock memory"))?;
    expect(options().zeroed(LEN).is_err(), "asking for locked memory that cannot be had")?;
    let policy = Policy::default().with(Control::MemfdSecret, Demand::Off).with(Control::Lock, Demand::Preferred);
    let mut secret = plant.secret(Secret::options().policy(policy))?;
    let lock = secret.protection().control(Control::Lock);
    expect(!lock.reached && lock.is_degraded() && lock.why.is_some(), "reading what came of the lock")?;
    then(&mut Held::Secmem(&mut secret))
}

fn verified(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut secret = plant.secret(options())?;
    let confirmed = secmem::verify().map_err(Failure::while_doing("asking the kernel for what was reached"))?;
    expect(confirmed.is_confirmed() && confirmed.arenas > 0, "having the kernel confirm what was reached")?;
    let numbers = Statistics::now();
    expect(numbers.live == 1 && numbers.locked >= LEN && numbers.degraded == 0, "counting one secret")?;
    then(&mut Held::Secmem(&mut secret))
}

fn hardened(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let posture = secmem::harden().map_err(Failure::while_doing("hardening the process"))?;
    expect(posture.is_hardened(), "having the kernel confirm that it is hardened")?;
    let mut secret = plant.secret(options())?;
    then(&mut Held::Secmem(&mut secret))
}

fn compared(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut secret = plant.secret(options())?;
    let doing = "comparing a secret with its twin";
    let mut twin = options().zeroed(LEN).map_err(Failure::while_doing(doing))?;
    let copied = twin.with_mut(|twin| secret.with(|bytes| wipe::copy(bytes, twin)));
    copied.and_then(|copied| copied).map_err(Failure::while_doing(doing))?;
    expect(secret.ct_eq(&twin).map_err(Failure::while_doing(doing))?, doing)?;
    twin.with_mut(|twin| twin[LEN - 1] ^= 1).map_err(Failure::while_doing(doing))?;
    let same = secret.with(|bytes| twin.with(|twin| ct::eq(bytes, twin))).and_then(|same| same);
    expect(!same.map_err(Failure::while_doing(doing))?, doing)?;
    drop(twin);
    // Short enough for ordinary vector registers, and nothing between this and the look.
    let halves = secret.with(|bytes| ct::eq(&bytes[..LEN / 2], &bytes[LEN / 2..]));
    expect(!halves.map_err(Failure::while_doing(doing))?, doing)?;
    then(&mut Held::Secmem(&mut secret))
}

fn printed(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut secret = plant.secret(options())?;
    let report = secmem::Report::now().map_err(Failure::while_doing("reporting on the process"))?;
    let refused = options().max_uses(0).zeroed(usize::MAX).map(drop);
    let text = black_box(format!("{secret:?} {:?} {report} {refused:?}", secret.protection()));
    then(&mut Held::Secmem(&mut secret))?;
    drop(text);
    Ok(())
}

/// Lets the kernel answer mlock(2) and mlock2(2) of this process with `EPERM`, for good: seccomp(2).
fn refuse_locking() -> io::Result<()> {
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let is = |call: libc::c_long, skip: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, skip);
    let answer = |value: u32| step(libc::BPF_RET | libc::BPF_K, value, 0);
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // struct seccomp_data: the call's number
        is(libc::SYS_mlock, 2),
        is(libc::SYS_mlock2, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: sets a flag of this thread.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program points to the filter, which the call copies.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
