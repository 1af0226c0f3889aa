//! A password that a process of its own keeps: it is asked for there, and lent for the time of a callback.
//!
//! `cargo run -p secmem --example vault --features vault`, or, with the password as the first line of standard input and a command
//! on each one after it, `printf 'sesam\nuse\nsign\n' | cargo run -p secmem --example vault --features vault`
//!
//! `kill` kills the worker, as somebody else might: the program goes on, and asks anew after `restart`.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use secmem::input::Prompt;
use secmem::vault::{self, Config, Cost, Error, Vault};
use secmem::{Error as MemoryError, Secret, harden, purge};

const COMMANDS: &str = "status, use, derive, sign, wallet, kill, restart, quit";
/// A salt belongs to what was derived, and is kept beside it. It is no secret.
const SALT: &[u8] = b"a salt of the example";
/// What a derivation costs: 19 MiB and two passes, as OWASP's cheat sheet on storing passwords has it.
const COST: Cost = Cost { memory: 19 << 10, passes: 2, lanes: 1 };
/// How long a wallet stays open.
const OPEN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Err(error) = vault::init() {
        return fail(&error);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => ExitCode::from(130), // as a shell reports Ctrl-C
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("{}", chain(error));
    ExitCode::from(2)
}

/// An error and what it comes from. None of them holds content.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn run() -> Result<(), Error> {
    harden()?;
    purge::install(&purge::Plan::default())?;
    let vault = Vault::start(Config::default())?;
    println!("the worker is process {}", vault.pid());
    match ask(&vault).and_then(|()| use_it(&vault)) {
        Err(error @ Error::Ended { .. }) => tell(&error),
        asked => asked?,
    }
    println!("commands: {COMMANDS}");
    while let Some(command) = next_command()? {
        let done = match command.as_str() {
            "" => continue,
            "status" => status(&vault),
            "use" => use_it(&vault),
            "derive" => derive(&vault),
            "sign" => sign(&vault),
            "wallet" => wallet(&vault),
            "kill" => kill(&vault),
            "restart" => vault.restart().and_then(|()| {
                println!("the worker is process {}, and knows no password", vault.pid());
                ask(&vault)
            }),
            "quit" => break,
            _ => {
                println!("commands: {COMMANDS}");
                Ok(())
            }
        };
        if let Err(error) = done {
            tell(&error);
        }
    }
    println!("the worker has ended ({})", vault.stop());
    Ok(())
}

/// What went wrong, and what can be done. The program goes on.
fn tell(error: &Error) {
    match error {
        Error::Ended { .. } => println!("{error}: the password is gone with it; restart starts another"),
        _ => println!("{}", chain(error)),
    }
}

/// New keys, and the worker asks for the password; this process has none of it.
fn ask(vault: &Vault) -> Result<(), Error> {
    vault.generate()?;
    // Whoever types may take his time.
    let asked = vault.within(Duration::from_secs(600));
    asked.read_password(&Prompt::new("Password: ").mask('*'))
}

/// The next line of standard input; `None` at its end. Byte by byte: what follows may be a password, and is the worker's to read.
fn next_command() -> Result<Option<String>, Error> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        print!("> ");
        let _ = io::stdout().flush(); // nobody looks
    }
    match Secret::options().read_line(stdin.as_fd(), 64).and_then(|line| line.expose_to_string()) {
        Ok(line) => Ok(Some(line.trim().to_owned())),
        Err(MemoryError::Input(secmem::input::InputError::Nothing)) => Ok(None),
        Err(MemoryError::Input(secmem::input::InputError::TooLong { .. }) | MemoryError::Utf8 { .. }) => {
            Ok(Some("?".to_owned())) // no command is that
        }
        Err(error) => Err(error.into()),
    }
}

fn use_it(vault: &Vault) -> Result<(), Error> {
    let (bytes, chars) = vault.with_password_text(|text| (text.len(), text.chars().count()))?;
    println!("a password of {chars} characters, {bytes} bytes; wiped in both processes");
    Ok(())
}

fn status(vault: &Vault) -> Result<(), Error> {
    let protection = vault.protection()?;
    println!("worker {}: {protection:?}", vault.pid());
    for allocation in vault.verify_allocation()? {
        println!("{}: {} bytes in {:?}", allocation.part, allocation.bytes, allocation.backend);
    }
    println!("{:?}", vault.counts());
    Ok(())
}

/// A key for something, made where the password is: no callback sees either.
fn derive(vault: &Vault) -> Result<(), Error> {
    let key = vault.derive(SALT, COST, 32)?;
    println!("a key of {} bytes, in {:?}", key.len(), key.protection().reached);
    Ok(())
}

fn sign(vault: &Vault) -> Result<(), Error> {
    let signature = vault.sign(b"pay nobody anything")?;
    println!("signed: {:02x}{:02x}…, {} bytes", signature[0], signature[1], signature.len());
    Ok(())
}

/// Its key is there for a while after it was opened, and wiped then, whether or not anybody locks it.
fn wallet(vault: &Vault) -> Result<(), Error> {
    let derived = vault.derive(SALT, COST, 32)?;
    let mut key = Secret::options().expires_in(OPEN).zeroed(derived.len())?;
    derived.with(|from| key.with_mut(|to| to.copy_from_slice(from)))??;
    drop(derived);
    println!("the wallet is open: {} bytes of key, for {OPEN:?}", key.with(<[u8]>::len)?);
    while key.with(|_| ()).is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
    println!(
        "the wallet has locked itself: {}",
        key.with(|_| ()).map_or_else(|error| error.to_string(), |()| String::new())
    );
    Ok(())
}

/// What nobody is to do.
fn kill(vault: &Vault) -> Result<(), Error> {
    let killed = Command::new("kill").arg("-KILL").arg(vault.pid().to_string()).status();
    if !killed.is_ok_and(|status| status.success()) {
        println!("it could not be killed");
        return Ok(());
    }
    while vault.check().is_ok() {
        std::thread::sleep(Duration::from_millis(2));
    }
    vault.check()
}
