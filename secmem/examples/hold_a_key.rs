//! A key stands in locked, guarded memory from the moment it is drawn or read, and is compared in constant time.
//!
//! `head -c 32 /dev/urandom | cargo run -p secmem --example hold_a_key`

use std::io;
use std::os::fd::AsFd;

use secmem::{Error, Secret, purge};

fn main() -> Result<(), Error> {
    // Wipes every secret on a panic, at exit, and on the signals that end a process.
    purge::install(&purge::Plan::default())?;

    // read(2) writes into the place where the key stays; moving the value moves no byte of it.
    let key = Secret::options().read_exact(io::stdin().as_fd(), 32)?;
    let held = Some(key);

    if let Some(mut key) = held {
        println!("a key of {} bytes in {:?}", key.len(), key.protection().reached);
        let parity = key.with(|bytes| bytes.iter().fold(0, |parity, byte| parity ^ byte).count_ones() % 2)?;
        println!("used it for a parity: {}", if parity == 0 { "even" } else { "odd" });
        println!("the same as itself: {}", key.ct_eq(&key)?);
        key.wipe()?; // now, and not only when it is dropped
        println!("and gone: {}", matches!(key.with(|_| ()), Err(Error::Wiped)));
    }
    Ok(())
}
