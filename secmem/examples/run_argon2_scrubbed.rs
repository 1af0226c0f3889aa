//! A key is made of a password by somebody else's code, which leaves nothing of either: its stack is a protected one and is
//! wiped, registers are cleared, and what it frees is overwritten.
//!
//! `echo sesam | cargo run -p secmem --example run_argon2_scrubbed`

use std::error::Error;

use argon2::{Algorithm, Argon2, Params, Version};
use secmem::input::Prompt;
use secmem::scrub::Stack;
use secmem::{Secret, WipingAlloc, ct, purge};

/// Argon2 works in memory of the heap: this wipes it when it is given back.
#[global_allocator]
static ALLOCATOR: WipingAlloc = WipingAlloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    purge::install(&purge::Plan::default())?;
    let password = Prompt::new("Password: ").read(Secret::options())?;
    let params = Params::new(256, 1, 1, Some(32)).map_err(|error| error.to_string())?; // little, for an example
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);

    let mut key = Secret::new(32)?;
    let mut stack = Stack::new(256 << 10)?; // `scrub::run` has a smaller one, which does where argon2 is built with optimisation
    let mut made = Ok(());
    // Only references go in, and the result stands in its slot: nothing secret passes through an ordinary value.
    password.with(|password| {
        key.with_mut(|key| {
            stack.run(|| made = argon2.hash_password_into(password.as_bytes(), b"not a random salt", key))
        })
    })???;
    made.map_err(|error| error.to_string())?;

    // What may be shown of it: a fingerprint, in hexadecimal that no table was looked up for.
    let mut text = [0; 8];
    key.with(|key| ct::hex::encode(&key[..4], &mut text))??;
    println!("a key that begins with {}", std::str::from_utf8(&text)?);
    Ok(())
}
