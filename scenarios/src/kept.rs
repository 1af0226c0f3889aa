//! The other ways in which secmem keeps a secret: closed between accesses, as text that grows, made of a vector, as a value of a
//! type, for a while, for so many uses, encrypted.

use std::io;
use std::time::Duration;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::Failure;
use secmem::{Backend, Coffer, Options, Secret, Typed};

use crate::holder::{Held, Holder, Plant, Then};
use crate::proved::expect;

/// Bytes of canary.
const LEN: usize = 64;

/// Memory that is closed to the process itself is open to a reader outside, who so can see that it was wiped.
pub(crate) static SEALED: Holder =
    Holder { asks: true, ..ours("secmem-sealed", CanaryKind::Bytes, &["reseal"], &["S5", "S11"], sealed) };
/// Each growth leaves a slot behind.
pub(crate) static GROWN_TEXT: Holder = ours("secmem-text", CanaryKind::Text, &[], &["S11", "S12"], grown_text);
/// The vector that it is made of has more in its capacity than in its length. A conversion takes no options: what comes of
/// it stands where the library prefers.
pub(crate) static FROM_VEC: Holder = Holder {
    needs: &[Need::MemfdSecret],
    ..ours("secmem-from-vec", CanaryKind::Bytes, &["consumed-wipe"], &["S12"], from_vec)
};
pub(crate) static TYPED: Holder = ours("secmem-typed", CanaryKind::Bytes, &[], &["S11"], typed);
/// Nobody uses it for as long as the rows of deadlines wait.
pub(crate) static IDLE: Holder = ours("secmem-idle", CanaryKind::Bytes, &[], &["S19"], idle);
pub(crate) static SPENT: Holder = ours("secmem-spent", CanaryKind::Bytes, &["uses"], &["S19"], spent);
/// Stored, encrypted anew, opened: what is opened is seen, and nothing is left of the way there.
pub(crate) static COFFER: Holder =
    ours("secmem-coffer", CanaryKind::Bytes, &["coffer-encryption"], &["S9", "S13"], coffer);

const fn ours(
    name: &'static str,
    canary: CanaryKind,
    turned_by: &'static [&'static str],
    shows: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    Holder { name, canary, canary_len: LEN, needs: &[Need::Mlock], ours: true, turned_by, asks: false, shows, hold }
}

/// In memory that an outside reader can read.
fn options() -> Options {
    Secret::options().backend(Backend::Mlock)
}

fn sealed(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut canary = plant.canary()?;
    let fill = |slot: &mut [u8]| canary.read_into(slot).map_err(|error| error.to_string());
    let sealed = options().filled_sealed(plant.len, fill);
    let sealed = sealed.map_err(Failure::while_doing("reading the canary into sealed memory"))?;
    drop(canary);
    let at = sealed.with(|bytes| std::hint::black_box(bytes).as_ptr().addr());
    let at = at.map_err(Failure::while_doing("opening sealed memory"))?;
    let closed =
        closed(at).map_err(Failure::while_doing("asking the kernel for what may be done with sealed memory"))?;
    expect(closed, "finding sealed memory closed between accesses")?;
    then(&mut Held::Kept)?;
    drop(sealed);
    Ok(())
}

/// Whether the process itself may neither read nor write at an address: proc_pid_maps(5).
fn closed(at: usize) -> io::Result<bool> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let permissions = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (low, high) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (number(low)?..number(high)?).contains(&at).then_some(rest)
    });
    permissions.map(|it| it.starts_with("---")).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn grown_text(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let whole = plant.secret(options())?;
    let doing = Failure::while_doing("growing a text");
    let text = (|| {
        let mut text = options().text(8)?;
        for at in (0..plant.len).step_by(8) {
            let piece = |bytes: &[u8]| std::str::from_utf8(&bytes[at..at + 8]).map(|piece| text.push_str(piece));
            whole.with(piece)?.map_err(|error| secmem::Error::Utf8 { at: error.valid_up_to() })??;
        }
        Ok::<_, secmem::Error>(text)
    })();
    let text = text.map_err(doing)?;
    drop(whole);
    then(&mut Held::Kept)?;
    drop(text);
    Ok(())
}

fn from_vec(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = Vec::with_capacity(4 * plant.len);
    bytes.resize(2 * plant.len, 0);
    let half = plant.len;
    let (kept, twin) = bytes.split_at_mut(half);
    plant.canary()?.read_into(twin)?;
    secmem::wipe::copy(twin, kept); // leaves nothing in registers
    bytes.truncate(half); // the first one's twin stays in the capacity
    let secret = Secret::try_from(bytes);
    let mut secret = secret.map_err(Failure::while_doing("making a secret of a vector"))?;
    then(&mut Held::Secmem(&mut secret))
}

fn typed(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut canary = plant.canary()?;
    let fill = |value: &mut [u8; LEN]| canary.read_into(value).map_err(|error| error.to_string());
    let typed: Typed<[u8; LEN]> =
        options().typed_filled(fill).map_err(Failure::while_doing("reading the canary into a value"))?;
    drop(canary);
    then(&mut Held::Kept)?;
    drop(typed);
    Ok(())
}

fn idle(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let rest = plant.expires_in.unwrap_or(Duration::from_secs(3600));
    let mut secret = plant.secret(options().idle_for(rest))?;
    then(&mut Held::Secmem(&mut secret))
}

fn spent(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let secret = plant.secret(options().max_uses(1))?;
    then(&mut Held::Kept)?;
    let doing = Failure::while_doing("using a secret for the last time");
    secret.with(|bytes| _ = std::hint::black_box(bytes)).map_err(doing)?;
    std::mem::forget(secret); // nothing but its last use has ended it
    Ok(())
}

fn coffer(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let doing = "storing the canary, or opening what was stored";
    let secret = plant.secret(options())?;
    let coffer = Coffer::with_policy(Backend::Mlock.into()).map_err(Failure::while_doing(doing))?;
    let stored = coffer.store(&secret).map_err(Failure::while_doing(doing))?;
    drop(secret);
    coffer.rekey().map_err(Failure::while_doing(doing))?;
    let opened = stored.open(options()).map_err(Failure::while_doing(doing))?;
    then(&mut Held::Kept)?;
    drop((opened, stored, coffer));
    Ok(())
}
