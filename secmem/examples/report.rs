//! What a service may log when it starts: what its secrets' memory has, what it lacks and why, and whether the kernel agrees.
//!
//! `cargo run -p secmem --example report`; `ulimit -l 0` before it shows a machine without a lock budget.

use secmem::{Control, Demand, Error, Policy, Report, Sealed, Secret};

fn main() -> Result<(), Error> {
    // Everything as strict as it comes, but rather without a lock than not at all.
    let policy = Policy::default().with(Control::Lock, Demand::Preferred);
    let key = Secret::options().policy(policy).zeroed(32)?;
    let closed: Sealed = Secret::options().policy(policy).sealed(32)?;

    for line in key.protection().controls() {
        println!("key: {line}");
    }
    print!("{}", Report::now()?);
    let confirmation = secmem::verify()?;
    println!("the kernel confirms {} arenas of {} bytes", confirmation.arenas, confirmation.bytes);
    for missing in &confirmation.missing {
        println!("but not: {missing:?}");
    }
    closed.with(|bytes| println!("{} bytes were open for this line alone", bytes.len()))
}
