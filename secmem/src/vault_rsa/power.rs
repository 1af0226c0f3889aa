//! The arithmetic of a key: numbers of a fixed size from `crypto-bigint`, which takes the same time for all of them.
//!
//! `H` is the words of a prime, `N` those of a modulus, twice as many. Everything here stands on the caller's stack, which is
//! to be a protected one.
//!
//! What takes a variable time says so in its name, and depends on the modulus and the exponent 65537 alone, which are public.
//! Operators are avoided where there is a function: in some builds they compare the moduli first and would print them.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{NonZero, Odd, RandomMod, U64, Uint};

use super::Random;
use super::layout::E;

/// The secret part of a key, with what is needed to compute by its primes.
struct Primes<const H: usize> {
    p: FixedMontyParams<H>,
    q: FixedMontyParams<H>,
    dp: Uint<H>,
    dq: Uint<H>,
    qinv: Uint<H>,
}

impl<const H: usize> Primes<H> {
    /// Reads what stands behind the modulus. Nothing if a prime is even.
    fn read(numbers: &[u8]) -> Option<Self> {
        let number = |at: usize| Uint::<H>::from_be_slice(&numbers[8 * H * at..][..8 * H]);
        let odd = |at| Odd::new(number(at)).into_option();
        Some(Self {
            p: FixedMontyParams::new(odd(0)?),
            q: FixedMontyParams::new(odd(1)?),
            dp: number(2),
            dq: number(3),
            qinv: number(4),
        })
    }

    /// `c` to the secret exponent, by the primes (RFC 8017, 5.1.2).
    fn raise<const N: usize>(&self, c: &Uint<N>) -> Uint<N> {
        let m1 = by(c, &self.p).pow(&self.dp);
        let m2 = by(c, &self.q).pow(&self.dq).retrieve();
        // `m2` is below q, which may be above p.
        let difference = m1.retrieve().sub_mod(&m2.rem(self.p.modulus().as_nz_ref()), self.p.modulus().as_nz_ref());
        let h = monty(&difference, &self.p).mul(&monty(&self.qinv, &self.p)).retrieve();
        // At most p - 1 times q and another q - 1: below n.
        let (low, high) = self.q.modulus().as_ref().widening_mul(&h);
        low.concat_resize::<H, N>(&high).wrapping_add(&m2.resize())
    }
}

/// `c` modulo a prime.
fn by<const H: usize, const N: usize>(c: &Uint<N>, prime: &FixedMontyParams<H>) -> FixedMontyForm<H> {
    monty(&c.rem(prime.modulus().as_nz_ref()), prime)
}

fn monty<const L: usize>(number: &Uint<L>, params: &FixedMontyParams<L>) -> FixedMontyForm<L> {
    FixedMontyForm::new(number, params)
}

/// To the public exponent.
fn raise_publicly<const N: usize>(base: &FixedMontyForm<N>) -> FixedMontyForm<N> {
    base.pow_vartime(&U64::from_u64(E))
}

/// The modulus, which nobody hides.
fn modulus<const N: usize>(bytes: &[u8]) -> Option<FixedMontyParams<N>> {
    Some(FixedMontyParams::new_vartime(Odd::new(Uint::from_be_slice(bytes)).into_option()?))
}

/// Decrypts `cipher` into `into`, which is as long as the modulus. Nothing if `cipher` is not below the modulus or not as long,
/// or if [`blinded`] gives nothing.
pub(super) fn private<const H: usize, const N: usize>(
    secret: &[u8],
    cipher: &[u8],
    random: &mut Random<'_>,
    into: &mut [u8],
) -> Option<()> {
    let (n, primes) = secret.split_at(8 * N);
    let n = modulus::<N>(n)?;
    if cipher.len() != 8 * N {
        return None;
    }
    let c = Uint::from_be_slice(cipher);
    if c.cmp_vartime(n.modulus().as_ref()).is_ge() {
        return None;
    }
    let blind = Uint::random_mod_vartime(random, n.modulus().as_nz_ref());
    if !random.is_good() {
        return None;
    }
    into.copy_from_slice(blinded::<H, N>(&n, primes, &c, &blind)?.to_be_bytes().as_ref());
    Some(())
}

/// `c` to the secret exponent. What the primes raise is `c` times `blind` to the public exponent, so that whoever chose `c` does
/// not know it (Kocher 1996).
///
/// Nothing if there is no such key, or if the result, raised publicly, is not `c`: a fault while computing by one of the primes
/// would tell the other one (Boneh, DeMillo, Lipton 1997), so what is faulty is never given out.
fn blinded<const H: usize, const N: usize>(
    n: &FixedMontyParams<N>,
    primes: &[u8],
    c: &Uint<N>,
    blind: &Uint<N>,
) -> Option<Uint<N>> {
    // A number without an inverse is 0, or has a prime of the key in it: of 2^1000 one.
    let unblind = blind.invert_odd_mod(n.modulus()).into_option()?;
    let c = monty(c, n);
    let raised = Primes::<H>::read(primes)?.raise(&c.mul(&raise_publicly(&monty(blind, n))).retrieve());
    let m = monty(&raised, n).mul(&monty(&unblind, n));
    (raise_publicly(&m).as_montgomery() == c.as_montgomery()).then(|| m.retrieve())
}

/// Encrypts `padded`, which is below the modulus, into `into`; all are as long as the modulus.
pub(super) fn public<const H: usize, const N: usize>(n: &[u8], padded: &[u8], into: &mut [u8]) -> Option<()> {
    let (n, m) = (modulus::<N>(n)?, Uint::from_be_slice(padded));
    into.copy_from_slice(raise_publicly(&monty(&m, &n)).retrieve().to_be_bytes().as_ref());
    Some(())
}

/// Writes the key of two primes to `secret`, in the layout of a secret key. Nothing if 65537 divides a prime less one, or a
/// prime is the other.
pub(super) fn assemble<const H: usize, const N: usize>(
    p: &Odd<Uint<H>>,
    q: &Odd<Uint<H>>,
    secret: &mut [u8],
) -> Option<()> {
    let e = Uint::<H>::from_u64(E);
    let inverse_below = |prime: &Odd<Uint<H>>| {
        let less_one = NonZero::new(prime.as_ref().wrapping_sub(&Uint::ONE)).into_option()?;
        e.invert_mod(&less_one).into_option()
    };
    let (low, high) = p.as_ref().widening_mul(q.as_ref());
    let (dp, dq) = (inverse_below(p)?, inverse_below(q)?);
    let qinv = q.as_ref().rem(p.as_nz_ref()).invert_odd_mod(p).into_option()?;

    let (n, rest) = secret.split_at_mut(8 * N);
    n.copy_from_slice(low.concat_resize::<H, N>(&high).to_be_bytes().as_ref());
    for (place, number) in rest.chunks_exact_mut(8 * H).zip([p.as_ref(), q.as_ref(), &dp, &dq, &qinv]) {
        place.copy_from_slice(number.to_be_bytes().as_ref());
    }
    Some(())
}

/// Seams for the test that follows instructions: keys of 256 bits, which is few enough to step through.
pub(crate) mod small {
    use super::*;

    /// Words of a prime and of a modulus.
    const H: usize = 2;
    const N: usize = 4;

    /// The key of two primes of 128 bits.
    pub(crate) fn key(p: &[u8; 16], q: &[u8; 16]) -> Option<[u8; 112]> {
        let odd = |bytes: &[u8]| Odd::new(Uint::<H>::from_be_slice(bytes)).into_option();
        let mut secret = [0; 112];
        assemble::<H, N>(&odd(p)?, &odd(q)?, &mut secret)?;
        Some(secret)
    }

    /// By the primes alone.
    pub(crate) fn raise(secret: &[u8; 112], c: &[u8; 32]) -> Option<[u8; 32]> {
        let raised = Primes::<H>::read(&secret[32..])?.raise(&Uint::<N>::from_be_slice(c)).to_be_bytes();
        raised.as_ref().try_into().ok()
    }

    /// With a given blind.
    pub(crate) fn blinded(secret: &[u8; 112], c: &[u8; 32], blind: &[u8; 32]) -> Option<[u8; 32]> {
        let [c, blind] = [c, blind].map(|bytes| Uint::<N>::from_be_slice(bytes));
        let found = super::blinded::<H, N>(&modulus(&secret[..32])?, &secret[32..], &c, &blind)?.to_be_bytes();
        found.as_ref().try_into().ok()
    }
}
