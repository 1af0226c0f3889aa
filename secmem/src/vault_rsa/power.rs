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

/// A secret key, with what is needed to compute by its primes.
struct Key<const H: usize, const N: usize> {
    n: FixedMontyParams<N>,
    p: FixedMontyParams<H>,
    q: FixedMontyParams<H>,
    dp: Uint<H>,
    dq: Uint<H>,
    qinv: Uint<H>,
}

impl<const H: usize, const N: usize> Key<H, N> {
    /// Nothing if a number that must be odd is even.
    fn read(secret: &[u8]) -> Option<Self> {
        let (n, rest) = secret.split_at(8 * N);
        let number = |at: usize| Uint::<H>::from_be_slice(&rest[8 * H * at..][..8 * H]);
        let odd = |at| Odd::new(number(at)).into_option();
        Some(Self {
            n: FixedMontyParams::new_vartime(Odd::new(Uint::from_be_slice(n)).into_option()?),
            p: FixedMontyParams::new(odd(0)?),
            q: FixedMontyParams::new(odd(1)?),
            dp: number(2),
            dq: number(3),
            qinv: number(4),
        })
    }

    /// `c` to the secret exponent, by the primes (RFC 8017, 5.1.2).
    fn raise(&self, c: &Uint<N>) -> Uint<N> {
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

/// Decrypts `cipher` into `into`, which is as long as the modulus. Nothing if `cipher` is not below the modulus or not as long,
/// if `secret` is no key, or if the result, encrypted again, is not `cipher`: a fault while computing by one of the primes
/// would tell the other one (Boneh, DeMillo, Lipton 1997), so that what is faulty is never given out.
///
/// What the primes raise is `cipher` times a random number to the public exponent, so that no sender knows it (Kocher 1996).
pub(super) fn private<const H: usize, const N: usize>(
    secret: &[u8],
    cipher: &[u8],
    random: &mut Random<'_>,
    into: &mut [u8],
) -> Option<()> {
    let key = Key::<H, N>::read(secret)?;
    if cipher.len() != 8 * N {
        return None;
    }
    let c = Uint::<N>::from_be_slice(cipher);
    if c.cmp_vartime(key.n.modulus().as_ref()).is_ge() {
        return None;
    }
    let blind = Uint::<N>::random_mod_vartime(random, key.n.modulus().as_nz_ref());
    // A number without an inverse is 0, or has a prime of the key in it: of 2^1000 one.
    let unblind = blind.invert_odd_mod(key.n.modulus()).into_option()?;

    let c = monty(&c, &key.n);
    let blinded = c.mul(&raise_publicly(&monty(&blind, &key.n))).retrieve();
    let m = monty(&key.raise(&blinded), &key.n).mul(&monty(&unblind, &key.n));
    if raise_publicly(&m).as_montgomery() != c.as_montgomery() || !random.is_good() {
        return None;
    }
    into.copy_from_slice(m.retrieve().to_be_bytes().as_ref());
    Some(())
}

/// Encrypts `padded`, which is below the modulus, into `into`; all are as long as the modulus.
pub(super) fn public<const H: usize, const N: usize>(modulus: &[u8], padded: &[u8], into: &mut [u8]) -> Option<()> {
    let n = FixedMontyParams::new_vartime(Odd::new(Uint::<N>::from_be_slice(modulus)).into_option()?);
    let m = Uint::<N>::from_be_slice(padded);
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
