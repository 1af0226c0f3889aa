//! A password is asked for at the terminal, or taken from a pipe, and checked without an ordinary string ever holding it.
//!
//! `cargo run -p secmem --example read_a_password`, or `echo sesam | cargo run -p secmem --example read_a_password`

use std::process::ExitCode;

use secmem::input::{InputError, Prompt};
use secmem::{Error, Secret, Text, purge};

fn main() -> ExitCode {
    match check() {
        Ok(true) => {
            println!("welcome");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("wrong");
            ExitCode::FAILURE
        }
        Err(Error::Input(InputError::Interrupted)) => ExitCode::from(130), // as a shell reports Ctrl-C
        Err(error) => {
            eprintln!("no password: {error}");
            ExitCode::from(2)
        }
    }
}

fn check() -> Result<bool, Error> {
    purge::install(&purge::Plan::default())?;
    let password = Prompt::new("Password (it is sesam): ").limit(64).mask('*').read(Secret::options())?;
    let expected = Text::try_from(String::from("sesam"))?; // a real one is a hash, and comes from elsewhere
    password.ct_eq(&expected)
}
