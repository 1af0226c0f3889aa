//! RSA of the vault, from outside: it keeps off the heap, and runs the same instructions whatever the key and the ciphertext.
//!
//! No time is measured: a child runs the functions in single steps, and the addresses of all instructions must be the same. A
//! key of 256 bits is short enough for that; its functions are those of the larger ones. Under each test of that kind a twin
//! that takes another way shows that the trace would tell.
#![allow(unsafe_code)] // an allocator that counts

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::step;
use secmem::Secret;
use secmem::probe::rsa;

struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of this method, which is that of the other.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this method, which is that of the other.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> usize {
    let before = ALLOCATED.get();
    act();
    ALLOCATED.get() - before
}

#[test]
fn neither_drawing_a_key_nor_unwrapping_allocates() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), 1, "the count sees an allocation");

    let mut secret = [0; 896];
    assert_eq!(allocations(|| rsa::generate_bare(2048, &mut secret).unwrap()), 0);
    let wrapped = rsa::wrap(&rsa::public(&secret).unwrap(), b"sesam").unwrap();
    let mut out = [0; 190];
    assert_eq!(allocations(|| assert_eq!(rsa::unwrap_bare(&secret, &wrapped, &mut out), Some(5))), 0);
    assert_eq!(&out[..5], b"sesam");
}

#[test]
fn what_is_unwrapped_goes_from_slot_to_slot() {
    let key = rsa::generate(2048, Secret::options()).unwrap();
    let mut content = Secret::new(190).unwrap();
    let wrapped = key.with(|key| rsa::wrap(&rsa::public(key).unwrap(), b"sesam").unwrap()).unwrap();

    let len = content.with_mut(|out| key.with(|key| rsa::unwrap(key, &wrapped, out).unwrap()).unwrap()).unwrap();

    assert_eq!(len, 5);
    content.with(|content| assert_eq!(&content[..5], b"sesam")).unwrap();
}

/// Keys of primes of 128 bits: the largest ones, the least one with its highest two bits set, and two between.
fn small_keys() -> Vec<[u8; 112]> {
    let primes: [u128; 5] = [
        0xffffffffffffffffffffffffffffff61,
        0xffffffffffffffffffffffffffffff53,
        0xc00000000000000000000000000000b5,
        0xd1b54a32d192ed03c7c3a4e9d5f01a53,
        0xe9a7f6c3b2d10f4e8d7c6b5a493827c1,
    ];
    let pairs = [(0, 1), (1, 0), (2, 3), (3, 4), (4, 2)];
    pairs.map(|(p, q)| rsa::small_key(&primes[p].to_be_bytes(), &primes[q].to_be_bytes()).unwrap()).to_vec()
}

/// Numbers below each modulus: 0, 1, one with a single bit, and two of many bits.
fn numbers() -> [[u8; 32]; 5] {
    let many = |factor: u8| std::array::from_fn(|at| if at == 0 { 0x5A } else { (at as u8).wrapping_mul(factor) });
    let last = |byte| std::array::from_fn(|at| if at == 31 { byte } else { 0 });
    [last(0), last(1), std::array::from_fn(|at| u8::from(at == 1)), many(37), many(101)]
}

fn assert_same(what: &str, mut traces: impl Iterator<Item = Vec<u64>>) {
    let first = traces.next().unwrap();
    assert!(first.len() > 1000, "{what}: {} instructions are no trace", first.len());
    for (number, trace) in traces.enumerate() {
        let differs = trace.iter().zip(&first).position(|(a, b)| a != b);
        assert_eq!((differs, trace.len()), (None, first.len()), "{what}: input {} takes another way", number + 1);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "without optimisation there are too many steps, and other code")]
fn every_key_and_every_number_take_the_same_instructions() {
    let keys = small_keys();
    let run =
        |key: &_, number: &_| step::trace(|| _ = std::hint::black_box(rsa::small_raise(key, number))).instructions;

    assert_same("raising", keys.iter().zip(numbers()).map(|(key, number)| run(key, &number)));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "without optimisation there are too many steps, and other code")]
fn every_number_and_blind_take_the_same_instructions_to_the_end() {
    let key = small_keys()[0];
    let run = |number: &_, blind: &_| {
        step::trace(|| _ = std::hint::black_box(rsa::small_blinded(&key, number, blind))).instructions
    };
    let [nothing, one, bit, many, more] = numbers();
    let inputs = [(nothing, one), (many, more), (more, bit)];

    assert!(inputs.iter().all(|(number, blind)| rsa::small_blinded(&key, number, blind).is_some()));
    assert_same("raising", inputs.iter().map(|(number, blind)| run(number, blind)));
}

#[test]
fn a_blind_that_cannot_be_taken_off_again_gives_nothing() {
    let key = small_keys()[0];
    let [nothing, one, .., number] = numbers();
    let mut prime = [0; 32];
    prime[16..].copy_from_slice(&key[32..48]);

    assert!(rsa::small_blinded(&key, &number, &one).is_some());
    for blind in [nothing, prime] {
        assert!(rsa::small_blinded(&key, &number, &blind).is_none(), "the blind is not used");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "without optimisation there are too many steps, and other code")]
fn right_and_wrong_padding_of_any_kind_takes_the_same_instructions() {
    /// A padded content of 100 bytes, as it stands before it is masked.
    fn block(first: u8, label: u8, rest: &[u8]) -> Vec<u8> {
        let mut padded = vec![0; 100];
        padded[0] = first;
        padded[33..65].copy_from_slice(&LABEL);
        padded[40] ^= label;
        padded[65..65 + rest.len()].copy_from_slice(rest);
        masked(padded)
    }
    let one_at = |at: usize| {
        let mut rest = vec![0; 35];
        rest[at] = 1;
        rest[at + 1..].fill(0xA7);
        rest
    };
    let right = [block(0, 0, &one_at(0)), block(0, 0, &one_at(20)), block(0, 0, &one_at(34))];
    let wrong = [
        block(1, 0, &one_at(20)),
        block(0, 4, &one_at(20)),
        block(0, 0, &[]),
        block(0, 0, &[2, 0, 1]),
        block(0, 0, &[0, 0, 0, 7, 0, 1]),
        vec![0; 100],
    ];
    let unpadded = |padded: &[u8]| {
        let (mut padded, mut out, mut len) = (padded.to_vec(), [0xEE; 34], 0);
        rsa::unpad(&mut padded, &mut out, &mut len).reveal().then(|| out[..len].to_vec())
    };
    assert_eq!(right.clone().map(|padded| unpadded(&padded).map(|content| content.len())), [34, 14, 0].map(Some));
    assert!(wrong.iter().all(|padded| unpadded(padded).is_none()));

    let run = |padded: &Vec<u8>| {
        let mut place = [0; 100];
        place.copy_from_slice(padded);
        let place = Cell::new(place);
        step::trace(|| {
            let mut padded = place.get();
            _ = std::hint::black_box(rsa::unpad(&mut padded, &mut [0; 34], &mut 0));
        })
        .instructions
    };
    assert_same("unpadding", right.iter().chain(&wrong).map(run));
}

#[test]
fn a_twin_that_stops_early_is_seen() {
    let naive = |text: [u8; 35]| _ = std::hint::black_box(text.iter().position(|byte| *byte == 1));
    let [early, late] = [3, 30].map(|at| {
        let mut text = [0; 35];
        text[at] = 1;
        step::trace(|| naive(std::hint::black_box(text))).instructions
    });

    assert_ne!(early.len(), late.len());
}

/// SHA-256 of nothing.
const LABEL: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// MGF1 by another hand, over the block and then over the seed (RFC 8017, 7.1.1).
fn masked(mut padded: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};

    let mask = |seed: &[u8], len: usize| -> Vec<u8> {
        let blocks = (0..20_u32).flat_map(|at| Sha256::digest([seed, &at.to_be_bytes()].concat()));
        blocks.take(len).collect()
    };
    let (seed, block) = padded[1..].split_at_mut(32);
    seed.fill(0x5C);
    block.iter_mut().zip(mask(seed, 67)).for_each(|(byte, mask)| *byte ^= mask);
    seed.iter_mut().zip(mask(block, 32)).for_each(|(byte, mask)| *byte ^= mask);
    padded
}
