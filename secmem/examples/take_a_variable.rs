//! A token comes in a variable of the environment, and is gone from there before anything else happens.
//!
//! `TOKEN=sesam cargo run -p secmem --example take_a_variable`

use std::process::Command;

use secmem::{Error, Secret};

fn main() -> Result<(), Error> {
    // First of all: no other thread may be there that could read the environment meanwhile.
    let token = Secret::options().take_variable("TOKEN", 256)?;
    println!("a token of {} bytes", token.len());

    println!("the program sees it: {}", std::env::var_os("TOKEN").is_some());
    let shown = std::fs::read("/proc/self/environ").unwrap_or_default();
    let value = token.with(|token| shown.windows(token.len().max(1)).any(|place| place == token))?;
    println!("the kernel shows it: {value}");
    let child = Command::new("env").output().map(|output| String::from_utf8_lossy(&output.stdout).contains("TOKEN="));
    println!("a child gets it: {}", child.unwrap_or(true));
    Ok(())
}
