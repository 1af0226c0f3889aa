#![allow(unsafe_code)] // a terminal of one's own, and moving bytes to it within the kernel; removing a variable
//! Secrets on their way in: from a descriptor, a file, a variable, a terminal, out of hexadecimal and base64.
//!
//! Beside each way of secmem's that has one stands the way that programs commonly go.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

use scenario_protocol::{CANARY_FD, CanaryKind, Need};
use scenario_stage::{Canary, Failure};
use secmem::ct::base64::STANDARD;
use secmem::ct::{CodecError, hex};
use secmem::input::{Prompt, Readers};
use secmem::{Backend, Bytes, Options, Secret, Text};

use crate::holder::{Held, Holder, Plant, Then, VARIABLE, start_again};

/// Bytes of canary.
const LEN: usize = 64;

pub(crate) static DESCRIPTOR: Holder = ours("secmem-descriptor", CanaryKind::Bytes, &[], descriptor);
pub(crate) static FILE: Holder = ours("secmem-file", CanaryKind::Bytes, &[], file);
pub(crate) static LINE: Holder = ours("secmem-line", CanaryKind::Text, &[], line);
pub(crate) static TAKEN_VARIABLE: Holder =
    ours("secmem-variable", CanaryKind::Text, &["environment-wipe"], taken_variable);
/// The program reads it and removes it, which is all that the standard library offers.
pub(crate) static BARE_VARIABLE: Holder = bare("bare-variable", CanaryKind::Text, bare_variable);
pub(crate) static TERMINAL: Holder = ours("secmem-terminal", CanaryKind::Text, &[], terminal);
pub(crate) static DECODED_HEX: Holder =
    Holder { shows: &["S17"], ..ours("secmem-hex", CanaryKind::Bytes, &[], |plant, then| decoded(plant, then, &HEX)) };
pub(crate) static DECODED_BASE64: Holder = Holder {
    shows: &["S17"],
    ..ours("secmem-base64", CanaryKind::Bytes, &[], |plant, then| decoded(plant, then, &BASE64))
};
pub(crate) static BARE_HEX: Holder = decoded_bare("bare-hex", |plant, then| bare_decoded(plant, then, &HEX, naive_hex));
pub(crate) static BARE_BASE64: Holder =
    decoded_bare("bare-base64", |plant, then| bare_decoded(plant, then, &BASE64, naive_base64));

const fn ours(
    name: &'static str,
    canary: CanaryKind,
    turned_by: &'static [&'static str],
    hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>,
) -> Holder {
    Holder {
        name,
        canary,
        canary_len: LEN,
        needs: &[Need::Mlock],
        ours: true,
        turned_by,
        asks: false,
        shows: &["S20"],
        hold,
    }
}

const fn bare(name: &'static str, canary: CanaryKind, hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>) -> Holder {
    Holder {
        name,
        canary,
        canary_len: LEN,
        needs: &[Need::Mlock],
        ours: false,
        turned_by: &[],
        asks: false,
        shows: &[],
        hold,
    }
}

/// One that holds what it has decoded as the library does, and so leaves pieces alone.
const fn decoded_bare(name: &'static str, hold: fn(Plant<'_>, Then<'_>) -> Result<(), Failure>) -> Holder {
    Holder { turned_by: &["wipe"], ..bare(name, CanaryKind::Bytes, hold) }
}

/// In memory that an outside reader can read.
fn options() -> Options {
    Secret::options().backend(Backend::Mlock)
}

fn descriptor(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let canary = plant.canary()?;
    let secret = options().read_to_end(canary.as_fd(), LEN);
    drop(canary);
    hold_bytes(secret, then)
}

/// The pipe by its name: it is opened, looked at and read to its end like any file.
fn file(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let canary = plant.canary()?;
    let secret = options().read_file(format!("/proc/self/fd/{CANARY_FD}"), LEN, Readers::Owner);
    drop(canary);
    hold_bytes(secret, then)
}

fn line(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let canary = plant.canary()?;
    let secret = options().read_line(canary.as_fd(), LEN);
    drop(canary);
    hold_text(secret, then)
}

fn taken_variable(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    if plant.canary.is_some() {
        return in_the_environment(plant);
    }
    hold_bytes(options().take_variable(VARIABLE, LEN), then)
}

fn bare_variable(plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    if plant.canary.is_some() {
        return in_the_environment(plant);
    }
    let value = std::env::var(VARIABLE).map_err(Failure::while_doing("reading the variable"))?;
    // SAFETY: no other thread reads or writes the environment; the program starts none in this row.
    unsafe { std::env::remove_var(VARIABLE) };
    then(&mut Held::Bytes(black_box(value.as_bytes())))
}

fn in_the_environment(plant: Plant<'_>) -> Result<(), Failure> {
    start_again(plant, |next, text| {
        next.env(VARIABLE, text);
    })
}

/// A person's side of a terminal types the canary, which goes there within the kernel.
fn terminal(mut plant: Plant<'_>, then: Then<'_>) -> Result<(), Failure> {
    let (mut person, terminal) = pair().map_err(Failure::while_doing("making a terminal"))?;
    let canary = plant.canary()?;
    let typing = Failure::while_doing("typing the canary at a terminal");
    move_to(&canary, &person, plant.len).and_then(|()| person.write_all(b"\n")).map_err(typing)?;
    drop(canary);
    let secret = Prompt::new("").ask_at(options(), terminal.as_fd());
    drop((person, terminal));
    hold_text(secret, then)
}

/// The two sides of a new terminal, which shows nothing and does nothing but pass on what is typed.
fn pair() -> io::Result<(File, File)> {
    let open = |path: &str| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC).open(path)
    };
    let person = open("/dev/ptmx")?;
    let locked = 0;
    // SAFETY: reads a number that is there.
    let unlocked = unsafe { libc::ioctl(person.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    if unlocked != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes a number, gives a descriptor.
    let terminal = unsafe { libc::ioctl(person.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if terminal < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us.
    Ok((person, unsafe { File::from_raw_fd(terminal) }))
}

/// Moves bytes from a pipe without a copy in this process.
fn move_to(from: &Canary, to: &File, len: usize) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        // SAFETY: takes descriptors and numbers; no offsets are given.
        let moved = unsafe {
            libc::splice(from.as_fd().as_raw_fd(), ptr::null_mut(), to.as_raw_fd(), ptr::null_mut(), left, 0)
        };
        match usize::try_from(moved) {
            Err(_) => return Err(io::Error::last_os_error()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => left -= moved,
        }
    }
    Ok(())
}

/// A codec of the library.
struct Codec {
    text: usize,
    encode: fn(&[u8], &mut [u8]) -> Result<(), CodecError>,
    decode: fn(&[u8], &mut [u8]) -> Result<(), CodecError>,
}

static HEX: Codec = Codec { text: hex::encoded_len(LEN), encode: hex::encode, decode: hex::decode };
static BASE64: Codec = Codec {
    text: STANDARD.encoded_len(LEN),
    encode: |bytes, text| STANDARD.encode(bytes, text),
    decode: |text, bytes| STANDARD.decode(text, bytes),
};

impl Codec {
    /// The canary as text, in a slot.
    fn text(&self, plant: &mut Plant<'_>) -> Result<Secret, Failure> {
        let canary = plant.canary()?;
        let bytes = options().read_exact(canary.as_fd(), plant.len);
        let bytes = bytes.map_err(Failure::while_doing("reading the canary into secmem"))?;
        let text = bytes.with(|bytes| options().filled(self.text, |text| (self.encode)(bytes, text))).flatten();
        text.map_err(Failure::while_doing("encoding the canary"))
    }
}

fn decoded(mut plant: Plant<'_>, then: Then<'_>, codec: &Codec) -> Result<(), Failure> {
    let text = codec.text(&mut plant)?;
    let secret = text.with(|text| options().filled(LEN, |bytes| (codec.decode)(text, bytes))).flatten();
    let mut secret = secret.map_err(Failure::while_doing("decoding the canary"))?;
    drop(text);
    then(&mut Held::Secmem(&mut secret))
}

/// Text and bytes in ordinary vectors, as decoders commonly give them.
#[inline(never)]
fn bare_decoded(
    mut plant: Plant<'_>,
    then: Then<'_>,
    codec: &Codec,
    decode: fn(&[u8]) -> Vec<u8>,
) -> Result<(), Failure> {
    let text = codec.text(&mut plant)?.expose_to_vec();
    let text = text.map_err(Failure::while_doing("copying the text"))?;
    let bytes = decode(&text);
    then(&mut Held::Bytes(black_box(&bytes)))
}

fn naive_hex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    text.chunks_exact(2).map(|pair| 16 * digit(pair[0]) + digit(pair[1])).collect()
}

fn naive_base64(text: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(LEN);
    let (mut gathered, mut bits) = (0_u32, 0);
    for byte in text.iter().filter(|byte| **byte != b'=') {
        let value = ALPHABET.iter().position(|letter| letter == byte).unwrap_or_default() as u32;
        (gathered, bits) = (gathered << 6 | value, bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((gathered >> bits) as u8);
        }
    }
    bytes
}

fn hold_bytes(secret: Result<Bytes, secmem::Error>, then: Then<'_>) -> Result<(), Failure> {
    let secret = secret.map_err(Failure::while_doing("taking the canary in"))?;
    full(secret.len())?;
    then(&mut Held::Kept)?;
    drop(secret);
    Ok(())
}

fn hold_text(secret: Result<Text, secmem::Error>, then: Then<'_>) -> Result<(), Failure> {
    let secret = secret.map_err(Failure::while_doing("taking the canary in"))?;
    full(secret.len())?;
    then(&mut Held::Kept)?;
    drop(secret);
    Ok(())
}

fn full(len: usize) -> Result<(), Failure> {
    let short = || Err(io::Error::other("it was cut")).map_err(Failure::while_doing("taking the canary in"));
    if len == LEN { Ok(()) } else { short() }
}
