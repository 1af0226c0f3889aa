//! A token lies encrypted and is opened for the moment of its use.
//!
//! `cargo run -p secmem --example store_a_token`

use std::time::Duration;

use secmem::{Coffer, Error, Secret, purge};

fn main() -> Result<(), Error> {
    purge::install(&purge::Plan::default())?;
    let coffer = Coffer::new()?;
    coffer.rekey_every(Duration::from_secs(60))?;

    let stored = {
        let token = Secret::try_from(b"from wherever tokens come".to_vec())?; // the vector is wiped
        coffer.store(&token)?
    };

    for _ in 0..3 {
        let opened = stored.open(Secret::options().expires_in(Duration::from_secs(1)))?;
        let length = opened.consume(|bytes| bytes.len())?;
        println!("used a token of {length} bytes; the pre-key is {:?}", coffer.protection()?.reached);
    }
    coffer.rekey()?; // on demand, too
    println!("pre-keys so far: {}", coffer.pre_keys()?);
    Ok(())
}
