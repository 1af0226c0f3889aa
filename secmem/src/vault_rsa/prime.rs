//! Drawing a key: two primes as FIPS 186-5, A.1.3, has them, tested by `crypto-primes`.
//!
//! Each candidate is drawn anew. A sieve that goes on from one to the next would be faster by a half, and is not used: the
//! remainders that it keeps tell the prime, and whether they are on the heap is up to a feature of that crate which any other
//! crate of a program may turn on. Besides, how long it took to refuse a candidate says nothing of one that is drawn later.
//! The tests themselves take a time that depends on the candidate.

use std::num::NonZeroU32;

use crypto_bigint::{Odd, Uint};
use crypto_primes::Flavor;
use crypto_primes::fips::{FipsOptions, is_prime};
use crypto_primes::hazmat::{SetBits, random_odd_integer};

use super::{Random, power};

/// Of two to this power of numbers that are taken for primes, one at most is none.
const CERTAINTY: u32 = 128;

/// Writes a new key to `secret`; nothing if there are no random bytes.
///
/// FIPS 186-5 also wants the secret exponent above the square root of the modulus. It is below for one key of 2^1000, for the
/// public one is given, and nobody looks.
pub(super) fn key<const H: usize, const N: usize>(secret: &mut [u8], random: &mut Random<'_>) -> Option<()> {
    loop {
        let (p, q) = (prime::<H>(random)?, prime::<H>(random)?);
        if are_apart(p.as_ref(), q.as_ref()) && power::assemble::<H, N>(&p, &q, secret).is_some() {
            return Some(());
        }
    }
}

/// A prime whose highest two bits are set, so that the product of two has all its bits.
fn prime<const H: usize>(random: &mut Random<'_>) -> Option<Odd<Uint<H>>> {
    let bits = NonZeroU32::new(Uint::<H>::BITS)?;
    let tests = FipsOptions::with_error_bound(bits.get(), CERTAINTY)?.with_trial_division_test().with_lucas_test();
    loop {
        let candidate: Odd<Uint<H>> = random_odd_integer(random, bits, SetBits::TwoMsb).ok()?;
        let found = is_prime(random, Flavor::Any, candidate.as_ref(), tests);
        if !random.is_good() {
            return None;
        }
        if found {
            return Some(candidate);
        }
    }
}

/// Whether two primes differ in their highest 100 bits (FIPS 186-5, A.1.3, 5.4): of others, the product is easily factored.
fn are_apart<const H: usize>(p: &Uint<H>, q: &Uint<H>) -> bool {
    let (larger, smaller) = if p.cmp_vartime(q).is_ge() { (p, q) } else { (q, p) };
    larger.wrapping_sub(smaller).bits_vartime() > Uint::<H>::BITS - 100
}
