//! Templates made shorter, within arenas and on a stack that is wiped.
//!
//! The bytes of the samples are put side by side by their places, all first ones, all second ones, for numbers of one kind are alike in
//! their upper bytes and seldom in their lower. Then LZ4 (its block format) takes out what repeats. Its table of what stands
//! where, which tells much of the content, is on the stack; or on the heap, if another crate of the program has switched on the
//! compressor's feature `alloc`, and is overwritten there before it is freed.
//!
//! In a buffer stand 2 (the version; 1 is a template that is not compressed), three zeros, the length of the template in four
//! bytes, little-endian, and the block.

use std::hint::black_box;
use std::ops::Range;

use lz4_blocks::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::biometric::{HEADER, TemplateError, samples_of};
use super::error::Error;
use crate::policy::Policy;
use crate::scrub::{self, Stack};
use crate::secret::Secret;

/// What the first byte of a compressed template is.
pub(super) const VERSION: u8 = 2;
/// Bytes before the block.
const PREFIX: usize = 8;
/// Bytes of the stack; without optimisation the table stands on it several times.
const STACK: usize = if cfg!(debug_assertions) { 256 << 10 } else { 64 << 10 };

/// The compressed form of a template, and how many bytes of the secret it has; nothing if it is no shorter.
pub(super) fn compressed(template: &Secret, policy: Policy) -> Result<Option<(Secret, usize)>, Error> {
    let len = template.len();
    let Ok(stated) = u32::try_from(len) else { return Ok(None) };
    let options = Secret::options().policy(policy);
    let mut apart = options.zeroed(len)?;
    let mut short = options.zeroed(PREFIX + get_maximum_output_size(len))?;
    let mut stack = Stack::new(STACK)?;
    let mut made = None;
    template.with(|template| {
        apart.slot.write(|apart| {
            short.slot.write(|short| {
                let (prefix, block) = short.split_at_mut(PREFIX);
                prefix[0] = VERSION;
                prefix[4..].copy_from_slice(&stated.to_le_bytes());
                stack.run(|| {
                    set_apart(template, apart);
                    made = squeeze(apart, block, &mut table(apart.len()));
                })
            })
        })
    })????;
    Ok(made.map(|block| PREFIX + block).filter(|made| *made < len).map(|made| (short, made)))
}

/// The template whose compressed form this is; none of more than `most` bytes.
pub(super) fn expanded(short: &[u8], most: usize, policy: Policy) -> Result<Secret, Error> {
    let damaged = Error::Template(TemplateError::Damaged);
    let Some((&[VERSION, 0, 0, 0, l0, l1, l2, l3], block)) = short.split_first_chunk::<PREFIX>() else {
        return Err(damaged);
    };
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize; // usize has at least as many bits on Linux
    if !(HEADER..=most).contains(&len) {
        return Err(damaged);
    }
    let options = Secret::options().policy(policy);
    let (mut apart, mut template) = (options.zeroed(len)?, options.zeroed(len)?);
    let mut done = false;
    apart.slot.write(|apart| {
        template.slot.write(|template| {
            scrub::run(|| {
                done = decompress_into(block, apart).is_ok_and(|got| got == len);
                if done {
                    put_together(apart, template);
                }
            })
        })
    })???;
    if done { Ok(template) } else { Err(damaged) }
}

fn table(len: usize) -> CompressTable {
    if len < usize::from(u16::MAX) { CompressTable::small() } else { CompressTable::large() }
}

#[inline(never)]
fn squeeze(from: &[u8], into: &mut [u8], table: &mut CompressTable) -> Option<usize> {
    let made = compress_into_with_table(from, into, table).ok();
    // Each call begins with an empty table. This one leaves it so, wherever it stands.
    let _ = compress_into_with_table(&[], &mut [0; 32], table);
    black_box(table);
    made
}

/// Where the samples stand in a template that says so itself, as far as it goes.
fn samples(template: &[u8]) -> Range<usize> {
    let end = HEADER.saturating_add(samples_of(template).saturating_mul(8));
    if end <= template.len() { HEADER..end } else { HEADER..HEADER }
}

/// Writes `template` with the bytes of its samples by their places.
fn set_apart(template: &[u8], into: &mut [u8]) {
    into.copy_from_slice(template);
    let samples = samples(template);
    let count = samples.len() / 8;
    let (from, into) = (&template[samples.clone()], &mut into[samples]);
    for (at, byte) in from.iter().enumerate() {
        into[at % 8 * count + at / 8] = *byte;
    }
}

/// Undoes [`set_apart`].
fn put_together(apart: &[u8], into: &mut [u8]) {
    into.copy_from_slice(apart);
    let samples = samples(apart);
    let count = samples.len() / 8;
    let (from, into) = (&apart[samples.clone()], &mut into[samples]);
    for (at, byte) in into.iter_mut().enumerate() {
        *byte = from[at % 8 * count + at / 8];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What begins as a template of so many samples, and some bytes after them.
    fn template(samples: u32, rest: usize) -> Vec<u8> {
        let mut bytes = vec![1, 1, 0, 0];
        bytes.extend_from_slice(&samples.to_le_bytes());
        bytes.extend_from_slice(&[7; 4]);
        bytes.extend((0..samples).flat_map(|at| (f64::from(at) / 3.0).to_le_bytes()));
        bytes.extend((0..rest).map(|at| at as u8));
        bytes
    }

    fn secret(bytes: &[u8]) -> Secret {
        Secret::try_from(bytes.to_vec()).unwrap()
    }

    fn short(template: &[u8]) -> Option<Vec<u8>> {
        let (short, len) = compressed(&secret(template), Policy::default()).unwrap()?;
        Some(short.with(|bytes| bytes[..len].to_vec()).unwrap())
    }

    fn long(short: &[u8]) -> Result<Vec<u8>, Error> {
        expanded(short, 1 << 24, Policy::default()).map(|it| it.expose_to_vec().unwrap())
    }

    #[test]
    fn a_template_comes_back_as_it_was_at_every_length() {
        for samples in [1, 2, 3, 40, 41, 100, 8189, 8190, 8191, 20_000] {
            for rest in [0, 1, 13] {
                let template = template(samples, rest);
                let apart = {
                    let mut apart = vec![0; template.len()];
                    set_apart(&template, &mut apart);
                    apart
                };
                let mut back = vec![0; template.len()];
                put_together(&apart, &mut back);
                assert_eq!(back, template);
                match short(&template) {
                    Some(short) => assert!(short.len() < template.len() && long(&short).unwrap() == template),
                    None => assert!(samples < 40, "{samples}"),
                }
            }
        }
    }

    #[test]
    fn numbers_are_shorter_apart_than_together() {
        let template = template(2000, 0);
        let mut together = vec![0; get_maximum_output_size(template.len())];
        let together = squeeze(&template, &mut together, &mut table(template.len())).unwrap();

        assert!(short(&template).unwrap().len() < together * 3 / 4, "{together}");
    }

    #[test]
    fn what_does_not_get_shorter_is_left_as_it_is() {
        let mut bytes = template(64, 0);
        crate::keystream::from_kernel(&mut bytes[HEADER..]).unwrap();
        assert_eq!(short(&bytes), None);
    }

    #[test]
    fn what_is_no_block_is_refused_at_every_length_and_bit() {
        let whole = short(&template(100, 5)).unwrap();
        for len in 0..whole.len() {
            assert!(matches!(long(&whole[..len]), Err(Error::Template(TemplateError::Damaged))), "{len}");
        }
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // It may be another template, but is read without a panic.
            if let Ok(other) = long(&bytes) {
                assert_eq!(other.len(), template(100, 5).len());
            }
        }
        let mut bomb = whole;
        bomb[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(long(&bomb), Err(Error::Template(TemplateError::Damaged))));
    }

    #[test]
    fn the_table_of_what_stood_where_is_empty_afterwards() {
        let shown = |table: &CompressTable| match table {
            CompressTable::Small(table) => format!("{table:?}"),
            CompressTable::Large(table) => format!("{table:?}"),
        };
        let is_empty =
            |table: &CompressTable| !shown(table).split_once('[').unwrap().1.contains(|it| ('1'..='9').contains(&it));
        for samples in [1000, 10_000] {
            let template = template(samples, 0);
            let mut into = vec![0; get_maximum_output_size(template.len())];
            let mut table = table(template.len());
            compress_into_with_table(&template, &mut into, &mut table).unwrap();
            assert!(!is_empty(&table), "as the compressor leaves it");

            squeeze(&template, &mut into, &mut table).unwrap();

            assert!(is_empty(&table));
        }
    }
}
