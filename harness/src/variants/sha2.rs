//! What SHA-2 makes of a secret on the way: message schedules, the states with which HMAC begins, and the halves of an
//! Ed25519 key.
//!
//! From sixteen neighbouring words of a schedule the block can be computed back, and whoever has HMAC's two states can make
//! and check its codes: such bytes are as good as the secret that may be gone.
//!
//! Words are written as processors of the x86 family keep them, the lowest byte first.
//!
//! # Source
//!
//! FIPS 180-4: sections 5.1 (padding), 5.3 (initial values), 6.2.2 and 6.4.2 (schedules). FIPS 198-1, section 4 (HMAC).
//! RFC 8032, section 5.1.5 (Ed25519). Constants are computed from the primes as FIPS 180-4, 4.2.2 and 5.3, says.

use sha2_block::block_api::{compress256, compress512};
use sha2_block::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

type Bytes = Zeroizing<Vec<u8>>;

/// Words that a block fills; the schedule's others are computed.
const GIVEN: usize = 16;

/// SHA-256: the computed words of the schedule; these plus their constants, as vector code keeps them; and the words of the
/// secret plus theirs. Words of padding alone are left out: plus their constants they stand in every program.
///
/// None of a secret that does not fill two words, because then not every computed word depends on it.
pub(super) fn schedules256(secret: &[u8]) -> Vec<Bytes> {
    if secret.len() < 8 {
        return Vec::new();
    }
    let words = schedule256(&first_block::<64>(secret, 8));
    let sums = words.iter().zip(constants256()).map(|(word, constant)| word.wrapping_add(constant));
    let sums: Zeroizing<Vec<u32>> = Zeroizing::new(sums.collect());
    let own = GIVEN.min(secret.len() / 4);
    vec![little256(&words[GIVEN..]), little256(&sums[GIVEN..]), little256(&sums[..own])]
}

/// SHA-512: the computed words of the schedule. None of a secret that does not fill two words.
pub(super) fn schedules512(secret: &[u8]) -> Vec<Bytes> {
    if secret.len() < 16 {
        return Vec::new();
    }
    vec![little512(&schedule512(&first_block::<128>(secret, 16))[GIVEN..])]
}

fn schedule512(block: &[u8; 128]) -> Zeroizing<Vec<u64>> {
    let mut words = Zeroizing::new(Vec::with_capacity(80));
    words.extend(block.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes)));
    for at in GIVEN..80 {
        let (far, near): (u64, u64) = (words[at - 15], words[at - 2]);
        let one = far.rotate_right(1) ^ far.rotate_right(8) ^ far >> 7;
        let other = near.rotate_right(19) ^ near.rotate_right(61) ^ near >> 6;
        let word = words[at - 16].wrapping_add(one).wrapping_add(words[at - 7]).wrapping_add(other);
        words.push(word);
    }
    words
}

/// The states of HMAC-SHA-256 after its inner and its outer pad.
pub(super) fn states256(secret: &[u8]) -> Vec<Bytes> {
    let key = if secret.len() > 64 { Zeroizing::new(Sha256::digest(secret).to_vec()) } else { secret.to_vec().into() };
    let state = |pad: u8| {
        let block = padded::<64>(&key, pad);
        let mut state = Zeroizing::new(roots256());
        compress256(&mut state, &[*block]);
        little256(&*state)
    };
    vec![state(0x36), state(0x5c)]
}

/// The states of HMAC-SHA-512 after its inner and its outer pad.
pub(super) fn states512(secret: &[u8]) -> Vec<Bytes> {
    let key = if secret.len() > 128 { Zeroizing::new(Sha512::digest(secret).to_vec()) } else { secret.to_vec().into() };
    let state = |pad: u8| {
        let block = padded::<128>(&key, pad);
        let mut state = Zeroizing::new(ROOTS512);
        compress512(&mut state, &[*block]);
        little512(&*state)
    };
    vec![state(0x36), state(0x5c)]
}

/// What Ed25519 makes of a seed of 32 bytes: the clamped scalar with the prefix, the digest before it was clamped (as bytes
/// and as the words of the hash), and the scalar reduced by the order of the group. None of other secrets.
pub(super) fn ed25519(secret: &[u8]) -> Vec<Bytes> {
    if secret.len() != 32 {
        return Vec::new();
    }
    let digest = Zeroizing::new(Sha512::digest(secret).to_vec());
    let mut clamped = digest.clone();
    clamped[0] &= 0xf8;
    clamped[31] = clamped[31] & 0x7f | 0x40;
    let words: Bytes = digest.chunks(8).flat_map(|word| word.iter().rev().copied()).collect::<Vec<_>>().into();
    let scalar = reduced(&clamped[..32]);
    vec![clamped, digest, words, scalar]
}

/// The first block of a message that is the secret, with the padding as far as it is in that block.
fn first_block<const BLOCK: usize>(secret: &[u8], length_bytes: usize) -> Zeroizing<[u8; BLOCK]> {
    let mut block = Zeroizing::new([0; BLOCK]);
    let here = secret.len().min(BLOCK);
    block[..here].copy_from_slice(&secret[..here]);
    if here < BLOCK {
        block[here] = 0x80;
    }
    if here < BLOCK - length_bytes {
        block[BLOCK - 8..].copy_from_slice(&(8 * secret.len() as u64).to_be_bytes());
    }
    block
}

/// A key filled up with zeros to a block, each byte exclusive-or the pad.
fn padded<const BLOCK: usize>(key: &[u8], pad: u8) -> Zeroizing<[u8; BLOCK]> {
    let mut block = Zeroizing::new([pad; BLOCK]);
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    block
}

fn schedule256(block: &[u8; 64]) -> Zeroizing<Vec<u32>> {
    let mut words = Zeroizing::new(Vec::with_capacity(64));
    words.extend(block.as_chunks().0.iter().map(|bytes| u32::from_be_bytes(*bytes)));
    for at in GIVEN..64 {
        let (far, near): (u32, u32) = (words[at - 15], words[at - 2]);
        let one = far.rotate_right(7) ^ far.rotate_right(18) ^ far >> 3;
        let other = near.rotate_right(17) ^ near.rotate_right(19) ^ near >> 10;
        let word = words[at - 16].wrapping_add(one).wrapping_add(words[at - 7]).wrapping_add(other);
        words.push(word);
    }
    words
}

fn little256(words: &[u32]) -> Bytes {
    words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().into()
}

fn little512(words: &[u64]) -> Bytes {
    words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>().into()
}

fn primes() -> impl Iterator<Item = u128> {
    (2u128..).filter(|number| (2..*number).all(|factor| number % factor != 0))
}

/// The first 32 bits behind the point of the cube roots of the first 64 primes.
fn constants256() -> [u32; 64] {
    let mut primes = primes();
    [(); 64].map(|()| root(primes.next().expect("there are more") << 96, |root| root * root * root) as u32)
}

/// The first 32 bits behind the point of the square roots of the first eight primes.
fn roots256() -> [u32; 8] {
    let mut primes = primes();
    [(); 8].map(|()| root(primes.next().expect("there are more") << 64, |root| root * root) as u32)
}

/// The first 64 bits behind the point of the square roots of the first eight primes.
///
/// # Source
///
/// FIPS 180-4, section 5.3.5.
const ROOTS512: [u64; 8] = [
    0x6a09e667f3bcc908,
    0xbb67ae8584caa73b,
    0x3c6ef372fe94f82b,
    0xa54ff53a5f1d36f1,
    0x510e527fade682d1,
    0x9b05688c2b3e6c1f,
    0x1f83d9abfb41bd6b,
    0x5be0cd19137e2179,
];

/// The largest number whose power is not above `number`.
fn root(number: u128, power: impl Fn(u128) -> u128) -> u128 {
    (0..40).rev().fold(0, |root, bit| if power(root | 1 << bit) <= number { root | 1 << bit } else { root })
}

/// The order of Ed25519's group, lowest byte first.
///
/// # Source
///
/// RFC 8032, section 5.1: 2^252 + 27742317777372353535851937790883648493.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A number of 32 bytes, lowest first, less the order as often as it goes: seven times at most, as it is below 2^255.
fn reduced(number: &[u8]) -> Bytes {
    let mut number = Zeroizing::new(number.to_vec());
    while number.iter().rev().ge(ORDER.iter().rev()) {
        let mut borrow = false;
        for (byte, order) in number.iter_mut().zip(ORDER) {
            let (less, one) = byte.overflowing_sub(order);
            let (less, other) = less.overflowing_sub(u8::from(borrow));
            (*byte, borrow) = (less, one || other);
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The bytes of a number in hexadecimal digits, lowest first.
    fn little(text: &str) -> Vec<u8> {
        hex(text).into_iter().rev().collect()
    }

    #[test]
    fn constants_are_those_of_the_standard() {
        let constants = constants256();

        assert_eq!((constants[0], constants[1], constants[63]), (0x428a2f98, 0x71374491, 0xc67178f2));
        assert_eq!((roots256()[0], roots256()[7]), (0x6a09e667, 0x5be0cd19));
        for (short, long) in roots256().iter().zip(ROOTS512) {
            assert_eq!(u64::from(*short), long >> 32);
        }
    }

    #[test]
    fn a_padded_block_is_one_that_the_hash_takes() {
        for secret in [&b"abc"[..], &[7; 55]] {
            let mut state = roots256();
            compress256(&mut state, &[*first_block::<64>(secret, 8)]);
            let digest: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();

            assert_eq!(digest, Sha256::digest(secret).to_vec());
        }
        for secret in [&b"abc"[..], &[7; 111]] {
            let mut state = ROOTS512;
            compress512(&mut state, &[*first_block::<128>(secret, 16)]);
            let digest: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();

            assert_eq!(digest, Sha512::digest(secret).to_vec());
        }
    }

    /// The hash, said with a schedule and constants: what the schedule is right for.
    fn compressed(words: &[u32], constants: &[u32]) -> Vec<u8> {
        let start = roots256();
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = start;
        for (word, constant) in words.iter().zip(constants) {
            let one = h
                .wrapping_add(e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25))
                .wrapping_add(e & f ^ !e & g)
                .wrapping_add(*constant)
                .wrapping_add(*word);
            let two = (a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22)).wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
        }
        let end = [a, b, c, d, e, f, g, h];
        start.iter().zip(end).flat_map(|(one, other)| one.wrapping_add(other).to_be_bytes()).collect()
    }

    #[test]
    fn a_schedule_is_the_one_with_which_the_hash_comes_out() {
        let secret = b"a secret that is no longer than one block";
        let words = schedule256(&first_block::<64>(secret, 8));

        assert_eq!(compressed(&words, &constants256()), Sha256::digest(secret).to_vec());
        assert_eq!(schedules256(secret)[0], little256(&words[16..]));
        assert_eq!(schedules256(secret)[1][..4], words[16].wrapping_add(constants256()[16]).to_le_bytes());
        assert_eq!(schedules256(secret)[2].len(), 40);
    }

    #[test]
    fn a_schedule_of_the_longer_hash_follows_its_rule() {
        // The standard's example "abc": of the terms of W16 only W0 is not zero, of those of W17 only the length's.
        let words = schedule512(&first_block::<128>(b"abc", 16));

        assert_eq!((words.len(), words[16]), (80, 0x6162638000000000));
        assert_eq!(words[17], 24_u64.rotate_right(19) ^ 24_u64.rotate_right(61)); // and 24 >> 6 is 0
    }

    #[test]
    fn a_secret_that_decides_too_few_words_has_no_schedule() {
        assert!(schedules256(b"7 bytes").is_empty() && schedules512(b"fifteen letters").is_empty());
    }

    #[test]
    fn states_of_hmac_are_those_from_which_its_code_comes() {
        // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?".
        let [inner, outer] = <[Bytes; 2]>::try_from(states256(b"Jefe")).unwrap();
        let finish = |state: &Bytes, data: &[u8]| {
            let mut state: [u32; 8] =
                std::array::from_fn(|at| u32::from_le_bytes(*state.as_chunks().0.get(at).unwrap()));
            let mut block = [0; 64];
            block[..data.len()].copy_from_slice(data);
            block[data.len()] = 0x80;
            block[56..].copy_from_slice(&(8 * (64 + data.len() as u64)).to_be_bytes());
            compress256(&mut state, &[block]);
            state.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>()
        };

        let code = finish(&outer, &finish(&inner, b"what do ya want for nothing?"));

        assert_eq!(code, hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
        assert_eq!(states512(b"Jefe").len(), 2);
    }

    #[test]
    fn a_scalar_is_clamped_and_reduced_as_the_standard_has_it() {
        // RFC 8032, section 7.1, test 1; the scalar and its remainder as Python computes them from the seed.
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");

        let made = ed25519(&seed);

        assert_eq!(made[0][..32], little("4fe94d9006f020a5a3c080d96827fffd3c010ac0f12e7a42cb33284f86837c30")[..]);
        assert_eq!(made[1].len(), 64);
        let mut sum = [0_u16; 33];
        // The remainder and a few times the order are the scalar again.
        for (at, byte) in made[3].iter().enumerate() {
            sum[at] += u16::from(*byte);
        }
        let times = u16::from(made[0][31] / 16) - u16::from(made[3][31] / 16);
        for (at, byte) in ORDER.iter().enumerate() {
            sum[at] += times * u16::from(*byte);
            sum[at + 1] += sum[at] >> 8;
            sum[at] &= 0xff;
        }
        let sum: Vec<u8> = sum[..32].iter().map(|byte| *byte as u8).collect();
        assert_eq!(sum, made[0][..32]);
        assert!(made[3][31] <= 0x10 && ed25519(&seed[1..]).is_empty());
    }
}
