//! A token that is gone after a while, after a rest, or after a few uses: whichever comes first.
//!
//! `cargo run -p secmem --example wipe_at_a_deadline`

use std::thread::sleep;
use std::time::Duration;

use secmem::{Error, Owner, Secret, Text};

fn main() -> Result<(), Error> {
    let sessions = Owner::new(100, 64 << 10); // no more than that for all of them
    let options = Secret::options()
        .owner(sessions)
        .expires_in(Duration::from_secs(300))
        .idle_for(Duration::from_millis(50))
        .max_uses(3);

    let mut token: Text = options.text(64)?;
    token.push_str("issued-by-somebody")?;
    println!("a token of {} bytes is used", token.with(str::len)?);

    sleep(Duration::from_millis(200)); // nobody touches it, and nobody needs to for it to end
    match token.with(|_| ()) {
        Err(Error::Expired) => println!("it rested for too long, and was wiped"),
        other => println!("unexpected: {other:?}"),
    }
    Ok(())
}
