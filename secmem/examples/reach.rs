//! What the library has on the target that this is built for, and what it lacks there, with the reason.
//!
//! `cargo run -p secmem --example reach`; with `--no-default-features` it shows the core alone.

use secmem::reach::{Part, TARGET};

fn main() {
    println!("{TARGET}");
    for part in Part::ALL {
        println!("{part:<18} {}", part.here());
    }
}
