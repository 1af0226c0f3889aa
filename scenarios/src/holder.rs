#![allow(unsafe_code)] // memsec's interface is raw pointers; removing an environment variable is unsafe
//! What can hold a secret: secmem, its peers, and the ordinary ways that leak.
//!
//! A holder brings the canary into its own kind of place, lends it to what happens next, and drops it. One that
//! is not meant to leak makes no copy on the way. A new holder is one [`Holder`] here and its rows in the catalogue.

use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::time::Duration;

use scenario_protocol::{CanaryKind, Need};
use scenario_stage::{Canary, Failure};
use secmem::{Backend, Options, Secret, purge};
use zeroize::Zeroizing;

/// The verb under which `argv` and `environ` start the program a second time.
pub(crate) const SECOND_IMAGE: &str = "held";

/// The variable that `environ` and its like put the canary in.
pub(crate) const VARIABLE: &str = "SCENARIO_SECRET";

/// A way to hold a secret.
pub(crate) struct Holder {
    /// The first half of a row's name.
    pub(crate) name: &'static str,
    /// What the canary must be made of.
    pub(crate) canary: CanaryKind,
    /// Bytes of canary. The heap holders each take a size whose freed chunk nothing asks for before the look.
    pub(crate) canary_len: usize,
    /// What the machine must offer.
    pub(crate) needs: &'static [Need],
    /// Whether it is secmem that is judged, or something to compare it with.
    pub(crate) ours: bool,
    /// Ablations, besides those of the wipe and of the ending, without which it leaks where it is ours.
    pub(crate) turned_by: &'static [&'static str],
    /// Whether it asks for what the library says, and ends with a denial where that does not hold.
    pub(crate) asks: bool,
    /// Requirements that its clean rows speak for, besides those of the ending.
    pub(crate) shows: &'static [&'static str],
    /// Plants the canary, lends it to what happens next, drops it.
    pub(crate) hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
}

/// What a holder is given to start with.
pub(crate) struct Plant<'a> {
    /// The row's name, for holders that start the program again.
    pub(crate) row: &'a str,
    /// Where the canary comes from; `None` in a second image, where it stands already.
    pub(crate) canary: Option<Canary>,
    /// Bytes of canary.
    pub(crate) len: usize,
    /// How long the secret may live, for holders that know deadlines.
    pub(crate) expires_in: Option<Duration>,
    /// Whether holders that know purges install one, and for which signals besides those of the default plan.
    pub(crate) purges: Option<&'static [i32]>,
}

/// What happens while the secret is held; it may never come back.
pub(crate) type Then<'a> = &'a mut dyn FnMut(&mut Held<'_>) -> Result<(), Failure>;

/// A secret in its holder, lent to an ending.
pub(crate) enum Held<'a> {
    /// One of ours.
    Secmem(&'a mut Secret),
    /// Another of ours, which no ending looks into: where it stands, in memory that stays mapped, and bytes of it.
    At(*const u8, usize),
    /// Another of ours that ends by its time, and of which nobody is told where it stands.
    Hidden,
    /// Another of ours.
    Kept,
    /// Ordinary readable memory.
    Bytes(#[expect(dead_code, reason = "borrowed to keep it alive; no ending reads it")] &'a [u8]),
    /// The block of arguments and environment at the top of the stack.
    Block,
}

pub(crate) static SECMEM_MEMFD: Holder = Holder {
    name: "secmem-memfd",
    canary: CanaryKind::Bytes,
    canary_len: 64,
    needs: &[Need::MemfdSecret],
    ours: true,
    turned_by: &[],
    asks: false,
    shows: &[],
    hold: |plant, then| secmem(Backend::MemfdSecret, plant, then),
};

pub(crate) static SECMEM_MLOCK: Holder = Holder {
    name: "secmem-mlock",
    canary: CanaryKind::Bytes,
    canary_len: 64,
    needs: &[Need::Mlock],
    ours: true,
    turned_by: &[],
    asks: false,
    shows: &[],
    hold: |plant, then| secmem(Backend::Mlock, plant, then),
};

pub(crate) static ZEROIZE_VEC: Holder = peer("zeroize-vec", CanaryKind::Bytes, 48, zeroize_vec);
pub(crate) static ZEROIZE_GROWN_VEC: Holder = peer("zeroize-grown-vec", CanaryKind::Bytes, 64, zeroize_grown_vec);
pub(crate) static MEMSEC: Holder = peer("memsec", CanaryKind::Bytes, 48, memsec);
pub(crate) static VEC: Holder = peer("vec", CanaryKind::Bytes, 48, vec);
pub(crate) static GROWN_VEC: Holder = peer("grown-vec", CanaryKind::Bytes, 64, grown_vec);
pub(crate) static MOVED_BOX: Holder = peer("moved-box", CanaryKind::Bytes, BOXED, moved_box);
pub(crate) static STRING_FORMAT: Holder = peer("string-format", CanaryKind::Text, 48, string_format);
pub(crate) static STACK_ARRAY: Holder = peer("stack-array", CanaryKind::Bytes, 48, stack_array);
pub(crate) static MOVED_ARRAY: Holder = peer("moved-array", CanaryKind::Bytes, MOVED, moved_array);
pub(crate) static ARGV: Holder = peer("argv", CanaryKind::Text, 32, argv);
pub(crate) static ENVIRON: Holder = peer("environ", CanaryKind::Text, 32, environ);

/// A holder that is not ours and asks nothing of the machine.
const fn peer(
    name: &'static str,
    canary: CanaryKind,
    canary_len: usize,
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    Holder { name, canary, canary_len, needs: &[], ours: false, turned_by: &[], asks: false, shows: &[], hold }
}

impl Plant<'_> {
    /// The canary's pipe, for the one time that it is read.
    pub(crate) fn canary(&mut self) -> Result<Canary, Failure> {
        let none = || io::Error::other("this image was given none");
        self.canary.take().ok_or_else(none).map_err(Failure::while_doing("taking the canary"))
    }

    /// The canary in a secret of its own.
    pub(crate) fn secret(&mut self, options: Options) -> Result<Secret, Failure> {
        let mut canary = self.canary()?;
        let secret = options.filled(self.len, |slot| canary.read_into(slot).map_err(|error| error.to_string()));
        secret.map_err(Failure::while_doing("reading the canary into secmem"))
    }

    /// Installs the purge that the ending asks for, if any.
    pub(crate) fn install_purge(&self) -> Result<(), Failure> {
        let Some(also) = self.purges else { return Ok(()) };
        let doing = Failure::while_doing("installing the purge");
        purge::install(&purge::Plan::default())
            .and_then(|()| purge::install(&purge::Plan::default().signals(also.iter().copied())))
            .map_err(doing)
    }

    /// Reads the whole canary into its place and closes the pipe.
    fn fill(mut self, place: &mut [u8]) -> Result<(), Failure> {
        self.canary()?.read_into(place)
    }
}

fn secmem(backend: Backend, mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    plant.install_purge()?;
    let mut options = Secret::options().backend(backend);
    if let Some(lifetime) = plant.expires_in {
        options = options.expires_in(lifetime);
    }
    let canary = plant.canary()?;
    let mut secret = options
        .read_exact(canary.as_fd(), plant.len)
        .map_err(Failure::while_doing("reading the canary into secmem"))?;
    drop(canary);
    then(&mut Held::Secmem(&mut secret))
}

#[inline(never)]
fn zeroize_vec(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = Zeroizing::new(vec![0; plant.len]);
    plant.fill(&mut bytes)?;
    then(&mut Held::Bytes(black_box(&bytes)))
}

/// Only the last buffer is wiped: the one that growth left behind was never zeroize's to see.
#[inline(never)]
fn zeroize_grown_vec(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let neighbour = grow(plant, &mut bytes)?;
    then(&mut Held::Bytes(black_box(&bytes)))?;
    drop(neighbour);
    Ok(())
}

#[inline(never)]
fn grown_vec(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let neighbour = grow(plant, &mut bytes)?;
    then(&mut Held::Bytes(black_box(&bytes)))?;
    drop(neighbour);
    Ok(())
}

/// Reads the canary in two pieces, so that the vector has to move in between.
///
/// Gives back the allocation that stands behind the first buffer: without a neighbour the allocator would
/// lengthen that buffer in place. It is too large for the allocator's per-thread cache, so it is cut from the
/// same free space, next to the buffer.
fn grow(mut plant: Plant<'_>, bytes: &mut Vec<u8>) -> Result<Box<[u8]>, Failure> {
    let mut canary = plant.canary()?;
    let first = plant.len - plant.len / 4; // a size that a panic does not ask the allocator for
    bytes.reserve_exact(first);
    bytes.resize(first, 0);
    canary.read_into(bytes)?;
    let neighbour = black_box(vec![0; 2048].into_boxed_slice());
    bytes.resize(plant.len, 0);
    canary.read_into(&mut bytes[first..])?;
    Ok(neighbour)
}

#[inline(never)]
fn vec(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = vec![0; plant.len];
    plant.fill(&mut bytes)?;
    then(&mut Held::Bytes(black_box(&bytes)))
}

const BOXED: usize = 64;

/// Someone's state, with a key in a box: moving it moves the pointer, and the bytes stay where they were.
struct Session {
    key: Box<[u8; BOXED]>,
}

#[inline(never)]
fn moved_box(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut key = Box::new([0; BOXED]);
    plant.fill(&mut key[..])?;
    let session = black_box(Session { key });
    let taken = black_box(Some(session.key));
    let Some(key) = taken else { return Ok(()) };
    then(&mut Held::Bytes(black_box(&key[..])))
}

/// The prefix is shorter than the 16 bytes that `free` overwrites, so the canary does not survive whole.
#[inline(never)]
fn string_format(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut buffer = vec![0; plant.len];
    plant.fill(&mut buffer)?;
    let text = std::str::from_utf8(&buffer).map_err(Failure::while_doing("reading the canary as text"))?;
    let token = format!("token={text}");
    drop(buffer);
    then(&mut Held::Bytes(black_box(token.as_bytes())))
}

/// Bytes between the canary and whatever the stack is used for once its frame is gone.
const ROOM: usize = 16 * 1024;

/// The canary lies at the low end of a large frame: calls made after that frame was left do not reach it.
#[inline(never)]
fn stack_array(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut frame = [0; ROOM];
    let place = &mut frame[..plant.len];
    plant.fill(place)?;
    then(&mut Held::Bytes(black_box(place)))?;
    black_box(&mut frame);
    Ok(())
}

const MOVED: usize = 48;

#[inline(never)]
fn moved_array(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut first = [0; MOVED];
    plant.fill(&mut first)?;
    let last = hand_on(hand_on(first));
    then(&mut Held::Bytes(black_box(&last)))
}

/// Returns its argument: a copy in, a copy out, unless the optimiser joins them.
#[inline(never)]
fn hand_on(bytes: [u8; MOVED]) -> [u8; MOVED] {
    black_box(bytes)
}

#[inline(never)]
fn memsec(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let mut bytes = Memsec::new(plant.len)?;
    plant.fill(bytes.as_mut())?;
    then(&mut Held::Bytes(black_box(bytes.as_mut())))
}

/// An allocation of memsec's, used as its documentation says: zeroed, then freed.
struct Memsec(NonNull<[u8]>);

impl Memsec {
    fn new(len: usize) -> Result<Self, Failure> {
        // SAFETY: `len` is a row's canary length, far below the `isize::MAX` that memsec must not overflow.
        let bytes = unsafe { memsec::malloc_sized(len) };
        let none = || io::Error::from(io::ErrorKind::OutOfMemory);
        bytes.map(Self).ok_or_else(none).map_err(Failure::while_doing("allocating with memsec"))
    }

    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY:
        // - memsec handed the memory out readable, writable, and filled; nobody changes its protection;
        // - it is freed in `Drop` only, and the slice borrows `self` mutably until then.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Memsec {
    fn drop(&mut self) {
        let len = self.as_mut().len();
        // SAFETY: the allocation is `len` bytes, alive and writable, and `&mut self` keeps readers away.
        unsafe { memsec::memzero(self.0.as_ptr().cast(), len) };
        // SAFETY: the pointer came from `memsec::malloc_sized`, and `drop` runs once.
        unsafe { memsec::free(self.0) };
    }
}

#[inline(never)]
fn argv(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    if plant.canary.is_none() {
        return then(&mut Held::Block); // an argument has no drop
    }
    start_again(plant, |next, text| {
        next.arg(text);
    })
}

#[inline(never)]
fn environ(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    if plant.canary.is_none() {
        let _removed_at_the_end = Variable;
        return then(&mut Held::Block);
    }
    start_again(plant, |next, text| {
        next.env(VARIABLE, text);
    })
}

/// The variable as a value with a drop: all that a program can do about it is to remove it.
struct Variable;

impl Drop for Variable {
    fn drop(&mut self) {
        // SAFETY: no other thread reads or writes the environment; the program starts none in this row.
        unsafe { std::env::remove_var(VARIABLE) };
    }
}

/// Starts the program over the same row, with the canary where `place` puts it.
///
/// What this image read and copied is gone with it; the new one has the canary from the kernel alone.
pub(crate) fn start_again(mut plant: Plant<'_>, place: fn(&mut Command, &str)) -> Result<(), Failure> {
    let mut canary = plant.canary()?;
    let mut buffer = vec![0; plant.len];
    canary.read_into(&mut buffer)?;
    drop(canary);
    let text = std::str::from_utf8(&buffer).map_err(Failure::while_doing("reading the canary as text"))?;
    let mut next = Command::new("/proc/self/exe");
    next.arg(SECOND_IMAGE).arg(plant.row);
    place(&mut next, text);
    Err(next.exec()).map_err(Failure::while_doing("starting the second image"))
}
