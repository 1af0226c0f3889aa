//! Argon2id (RFC 9106) with its memory in an arena: what is memory-hard is all secret until it is wiped.
#![allow(unsafe_code)] // bytes of an arena as the blocks that the crate works on

use std::sync::{Mutex, PoisonError};

use argon2_now::{Algorithm, Argon2, Block, Params, Version};

use super::error::Error;
use crate::policy::Policy;
use crate::scrub::Stack;
use crate::secret::Secret;

/// Bytes of the stack; without optimisation a block stands on it several times.
const STACK: usize = if cfg!(debug_assertions) { 512 << 10 } else { 64 << 10 };

/// Whose derivation it is just now.
static TURN: Mutex<()> = Mutex::new(());

/// What a derivation costs whoever does it, or tries secrets. It stands in each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cost {
    /// Memory, in KiB. It is locked while it is used, so the process's lock budget (`ulimit -l`) has to have it: once, for one derivation
    /// of the process waits for another.
    pub memory: u32,
    /// Times that all of it is gone over.
    pub passes: u32,
    /// Parts that could be worked on at once. They are worked on one after the other here.
    pub lanes: u32,
}

impl Default for Cost {
    /// 7 MiB, five times: of the settings that OWASP's password storage cheat sheet counts as equal, the one that fits into
    /// the 8 MiB that a process may often lock.
    fn default() -> Self {
        Self { memory: 7168, passes: 5, lanes: 1 }
    }
}

impl Cost {
    /// Whether Argon2 can do that, and it is no more than `most`.
    pub(crate) fn is_within(&self, most: &Self) -> bool {
        self.params(32).is_some()
            && self.memory <= most.memory
            && self.passes <= most.passes
            && self.lanes <= most.lanes
    }

    fn params(&self, len: usize) -> Option<Params> {
        Params::new(self.memory, self.passes, self.lanes, Some(len)).ok()
    }
}

/// Derives all of `into` from a secret.
pub(crate) fn stretch(
    cost: Cost,
    policy: Policy,
    secret: &Secret,
    salt: &[u8],
    into: &mut Secret,
) -> Result<(), Error> {
    let params = cost.params(into.len()).ok_or(Error::Cost { asked: cost })?;
    // One after the other: the lock budget has room for one.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let blocks = params.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // One more than needed, for the blocks begin where their alignment lets them.
    let mut memory = Secret::options().policy(policy).zeroed((blocks + 1) * Block::SIZE)?;
    let mut stack = Stack::new(STACK)?;
    let mut done = false;
    secret.with(|secret| {
        into.slot.write(|into| {
            memory.slot.write(|memory| {
                let blocks = blocks_of(memory);
                stack.run(|| done = argon2.hash_password_into_with_memory(secret, salt, into, blocks).is_ok())
            })
        })
    })????;
    // The crate refuses lengths alone.
    if done { Ok(()) } else { Err(Error::Cost { asked: cost }) }
}

fn blocks_of(memory: &mut [u8]) -> &mut [Block] {
    const { assert!(size_of::<Block>() == Block::SIZE) };
    // SAFETY: a block is 128 integers of 64 bits and nothing else (its size is asserted), so any bytes are one.
    unsafe { memory.align_to_mut::<Block>() }.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretched(cost: Cost, secret: &[u8], salt: &[u8], len: usize) -> Vec<u8> {
        let secret = Secret::try_from(secret.to_vec()).unwrap();
        let mut into = Secret::new(len).unwrap();
        stretch(cost, Policy::default(), &secret, salt, &mut into).unwrap();
        into.expose_to_vec().unwrap()
    }

    /// The first is that of the reference implementation's test.c, of version 0x13 for Argon2id.
    #[test]
    fn it_is_argon2id() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let cost = Cost { memory: 256, passes: 2, lanes: 1 };

        let made = stretched(cost, b"password", b"somesalt", 32);

        assert_eq!(hex(&made), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
        assert_ne!(stretched(cost, b"password", b"somesalu", 32), made);
        assert_ne!(stretched(Cost { passes: 3, ..cost }, b"password", b"somesalt", 32), made);
        assert_eq!(stretched(cost, b"password", b"somesalt", 64).len(), 64);
    }

    #[test]
    fn costs_that_cannot_be_or_are_too_much_are_refused() {
        let most = Cost { memory: 1 << 16, passes: 16, lanes: 4 };
        assert!(Cost::default().is_within(&most));
        for (memory, passes, lanes) in [(7, 1, 1), (8, 0, 1), (8, 1, 0), (1 << 17, 1, 1), (64, 17, 1), (64, 1, 5)] {
            assert!(!Cost { memory, passes, lanes }.is_within(&most), "{memory} {passes} {lanes}");
        }
    }
}
