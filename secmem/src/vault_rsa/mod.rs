//! RSA with OAEP: a key of 2048, 3072 or 4096 bits wraps what is short, a password or another key, and unwraps it again.
//!
//! RFC 8017, 7.1, with SHA-256 for the hash and for MGF1, and an empty label; the public exponent is 65537. `oaep` pads and
//! looks at padding, `power` computes with the key, `prime` draws one, `layout` says how it lies in a slot and how its public
//! half is written down.
//!
//! The numbers have fixed sizes and stand on a protected stack, which is wiped: none is ever on the heap, so no allocator has
//! to be trusted with parts of a key. `RSA.md` beside the manifest says which crates were looked at for it and why this one
//! was taken.
//!
//! What is unwrapped is right, or [`Error::Refused`]: the error never says what was wrong, and the padding is looked at in
//! constant time. For whoever may send wrapped bytes as he likes and learns what was wrong with them, or how long it took to
//! find, decrypts with a key that is not his (Manger 2001).

mod error;
mod layout;
mod oaep;
mod power;
mod prime;

use std::io;

pub(crate) use error::Error;
pub(crate) use layout::{Bits, bits_of, public};
pub(crate) use oaep::decode as unpad;
pub(crate) use power::small;

use crate::error::Error as MemoryError;
use crate::keystream;
use crate::scrub;
use crate::secret::{Options, Secret};
use crate::wipe;

/// Bytes of the stack for an operation with a key, and for drawing one: at least twice what they need, as
/// `the_stacks_are_not_half_used` sees. What an optimised build needs for 2048 bits is less than half of the default.
const fn stack(bits: Bits) -> usize {
    if matches!(bits, Bits::B2048) && !cfg!(debug_assertions) { scrub::DEFAULT_STACK } else { scrub::LARGE_STACK }
}

/// Calls a function of `power` or `prime` with the words of a prime and of a modulus of that size.
macro_rules! sized {
    ($bits:expr, $($function:ident)::+, $($argument:expr),*) => {
        match $bits {
            Bits::B2048 => $($function)::+::<16, 32>($($argument),*),
            Bits::B3072 => $($function)::+::<24, 48>($($argument),*),
            Bits::B4096 => $($function)::+::<32, 64>($($argument),*),
        }
    };
}

/// Draws a key.
///
/// It takes a tenth of a second for 2048 bits and a second for 4096, on average: some take three times as long, and builds
/// without optimisation twenty times.
///
/// # Errors
///
/// [`Error::Memory`] if the kernel gave no memory or no random bytes.
pub(crate) fn generate(bits: Bits, options: Options) -> Result<Secret, Error> {
    let mut secret = options.zeroed(bits.secret_len())?;
    secret.slot.write(|slot| with_random(bits, |random| sized!(bits, prime::key, slot, random)))??;
    Ok(secret)
}

/// Wraps `plain` for whoever has the secret half of `public_der`: DER of a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
///
/// # Errors
///
/// [`Error::PublicKey`] for other bytes; [`Error::Long`] if `plain` is longer than [`Bits::most`]; [`Error::Memory`] if the
/// kernel gave no memory or no random bytes.
pub(crate) fn wrap(public_der: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
    let (bits, modulus) = layout::parse(public_der)?;
    if plain.len() > bits.most() {
        return Err(Error::Long { len: plain.len(), most: bits.most() });
    }
    let mut wrapped = vec![0; bits.len()];
    with_random(bits, |random| {
        let mut padded = [0; layout::MOST_LEN];
        let padded = &mut padded[..bits.len()];
        oaep::encode(plain, random, padded);
        sized!(bits, power::public, modulus, padded, &mut wrapped)
    })?;
    Ok(wrapped)
}

/// Unwraps `wrapped` into `out`, whose bytes behind the plain ones become zeros, and says how many bytes those are.
///
/// `out` must have room for [`Bits::most`], so that nothing depends on how long the content is.
///
/// # Errors
///
/// [`Error::Refused`] for whatever was not wrapped for this key, and `out` holds zeros then; [`Error::Key`] if `secret` is no
/// key; [`Error::Room`] if `out` is too short; [`Error::Memory`] if the kernel gave no memory or no random bytes.
pub(crate) fn unwrap(secret: &[u8], wrapped: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    let bits = Bits::of_secret(secret).ok_or(Error::Key)?;
    if out.len() < bits.most() {
        return Err(Error::Room { len: out.len(), needed: bits.most() });
    }
    let mut len = 0;
    let done = with_random(bits, |random| open(bits, secret, wrapped, random, out, &mut len));
    if done.is_err() {
        wipe::wipe(out);
    }
    done.map(|()| len)
}

/// The whole of [`unwrap`] but for the stack and for what is done about errors.
fn open(
    bits: Bits,
    secret: &[u8],
    wrapped: &[u8],
    random: &mut Random<'_>,
    out: &mut [u8],
    len: &mut usize,
) -> Option<()> {
    let mut padded = [0; layout::MOST_LEN];
    let padded = &mut padded[..bits.len()];
    sized!(bits, power::private, secret, wrapped, random, padded)?;
    oaep::decode(padded, out, len).reveal().then_some(())
}

/// Runs `f` on a stack that is wiped, with random bytes; nothing is [`Error::Refused`], unless it is their fault.
///
/// What `f` makes of numbers leaves through references, and as bytes: a value that is returned takes along in its padding what
/// stood on the stack.
fn with_random(bits: Bits, f: impl FnOnce(&mut Random<'_>) -> Option<()>) -> Result<(), Error> {
    let (mut done, mut errno) = (false, 0);
    let run = || {
        done = f(&mut Random::new(&mut errno)).is_some();
    };
    if stack(bits) == scrub::DEFAULT_STACK { scrub::run(run) } else { scrub::run_large(run) }?;
    if errno != 0 {
        return Err(Error::Memory(MemoryError::Random { source: io::Error::from_raw_os_error(errno) }));
    }
    if done { Ok(()) } else { Err(Error::Refused) }
}

/// Bytes that [`Random`] fetches: as many as the kernel gives without a stop (getrandom(2)).
const AHEAD: usize = 256;

/// [`unwrap`] on the caller's stack.
pub(crate) fn unwrap_bare(secret: &[u8], wrapped: &[u8], out: &mut [u8]) -> Option<usize> {
    let bits = Bits::of_secret(secret)?;
    let (mut len, mut errno) = (0, 0);
    open(bits, secret, wrapped, &mut Random::new(&mut errno), out, &mut len)?;
    Some(len)
}

/// [`generate`] on the caller's stack.
pub(crate) fn generate_bare(bits: Bits, secret: &mut [u8]) -> Option<()> {
    sized!(bits, prime::key, secret, &mut Random::new(&mut 0))
}

/// Random bytes of the kernel, fetched several at once. Must stand on a protected stack: primes come of them.
struct Random<'a> {
    ahead: [u8; AHEAD],
    left: usize,
    /// What the kernel said when it gave none, or 0. The numbers are zeros from then on, and nothing that came of them counts.
    errno: &'a mut i32,
}

impl<'a> Random<'a> {
    fn new(errno: &'a mut i32) -> Self {
        Self { ahead: [0; AHEAD], left: 0, errno }
    }

    /// Whether the kernel gave all that was asked for.
    fn is_good(&self) -> bool {
        *self.errno == 0
    }

    fn fill(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            if self.left == 0 {
                self.fetch();
            }
            let now = self.left.min(into.len());
            let from = &mut self.ahead[AHEAD - self.left..][..now];
            let (first, rest) = into.split_at_mut(now);
            first.copy_from_slice(from);
            from.fill(0);
            self.left -= now;
            into = rest;
        }
    }

    fn fetch(&mut self) {
        if let Err(MemoryError::Random { source }) = keystream::from_kernel(&mut self.ahead) {
            *self.errno = source.raw_os_error().unwrap_or(libc::EIO);
        }
        if !self.is_good() {
            self.ahead.fill(0);
        }
        self.left = AHEAD;
    }
}

impl rand_core::TryRng for Random<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(into);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Random<'_> {}

#[cfg(test)]
mod tests;
