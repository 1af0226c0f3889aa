//! Subjects for an audit that use real crates as their users do: a key goes in, something comes out, and both are wiped
//! where the program holds them. What is then found was left by the crate.
//!
//! `scenarios-crypto list` prints the catalogue, `run NAME` is one row of it, `derive NAME` prints what a row makes from
//! a canary, so that the harness can look for that too. It speaks what `scenarios` speaks, and is a program of its own
//! because cargo unifies the features of everything that it builds together.

mod victim;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use scenario_protocol::{CanaryKind, Checkpoint, Ends, Row};
use scenario_stage::{Canary, Control, Failure};
use zeroize::Zeroizing;

use crate::victim::{KEY, Key, VICTIMS, Victim};

const USAGE: &str = "\
Usage: scenarios-crypto list
       scenarios-crypto run NAME
       scenarios-crypto derive NAME
       scenarios-crypto --help

  list    print the catalogue as a JSON array, one row a scenario
  run     use the canary as a key, as the row NAME says; started by the harness, which
          hands over a control socket (descriptor 3) and the canary's pipe (descriptor 4)
  derive  print what the row NAME makes from the canary on standard input

Exit status: 0; 64 wrong usage, 70 internal error.
";

/// Wrong usage, as sysexits.h numbers it.
const EX_USAGE: u8 = 64;

/// Internal error, as sysexits.h numbers it.
const EX_SOFTWARE: u8 = 70;

/// How every name in this catalogue ends: the key and what was made from it are wiped, and the process stays.
const ENDING: &str = "wipe";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    let done = match words.as_slice() {
        ["list"] => list(),
        ["run", name] => with(name, run),
        ["derive", name] => with(name, derive),
        ["--help" | "-h"] => print(USAGE.as_bytes()),
        _ => return refuse(USAGE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&format!("scenarios-crypto: {failure}\n"));
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

fn with(name: &str, play: fn(&Victim) -> Result<(), Failure>) -> Result<(), Failure> {
    let victim = name.strip_suffix(ENDING).and_then(|rest| rest.strip_suffix('/'));
    let victim = victim.and_then(|name| VICTIMS.iter().find(|victim| victim.name == name));
    play(victim.ok_or("`list` names them").map_err(Failure::while_doing("finding the scenario"))?)
}

fn list() -> Result<(), Failure> {
    let rows = VICTIMS.iter().map(row).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(Failure::while_doing("reading the table"))?;
    let mut text = serde_json::to_vec_pretty(&rows).map_err(Failure::while_doing("writing the catalogue"))?;
    text.push(b'\n');
    print(&text)
}

fn row(victim: &Victim) -> Result<Row, scenario_protocol::ParseExpectationError> {
    Ok(Row {
        name: format!("{}/{ENDING}", victim.name),
        holder: victim.name.to_owned(),
        ending: ENDING.to_owned(),
        canary: CanaryKind::Bytes,
        canary_len: KEY,
        expect: victim.expect.parse()?,
        ends: Ends::Exit(0),
        checkpoints: vec![Checkpoint::Planted, Checkpoint::Wiped],
        sole_home: false,
        needs: Vec::new(),
        turned_by: Vec::new(),
        shows: vec!["H18".to_owned(), "H30".to_owned()],
        derived: victim.derived.map(str::to_owned),
    })
}

/// Plays a row: the key and what is made from it live in two boxes, and are wiped there.
fn run(victim: &Victim) -> Result<(), Failure> {
    let control = Control::adopt().ok_or("descriptor 3 is no control socket: the harness starts `run`");
    let control = control.map_err(Failure::while_doing("taking over what the harness hands down"))?;
    let canary = Canary::adopt().ok_or("descriptor 4 is no canary pipe: the harness starts `run`");
    let canary = canary.map_err(Failure::while_doing("taking over what the harness hands down"))?;
    let mut key: Key = Box::new(Zeroizing::new([0; KEY]));
    let mut made: Key = Box::new(Zeroizing::new([0; KEY]));
    victim.play(canary, &mut key, &mut made)?;
    control.announce(Checkpoint::Planted)?;
    drop((key, made));
    control.announce(Checkpoint::Wiped)
}

fn derive(victim: &Victim) -> Result<(), Failure> {
    let mut key: Key = Box::new(Zeroizing::new([0; KEY]));
    let mut made: Key = Box::new(Zeroizing::new([0; KEY]));
    io::stdin().read_exact(&mut key[..]).map_err(Failure::while_doing("reading the canary"))?;
    victim.make(&key, &mut made)?;
    print(&made[..])
}

/// Prints to standard output; a reader that went away is a failure.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(Failure::while_doing("printing"))
}

fn refuse(why: &str) -> ExitCode {
    complain(why);
    ExitCode::from(EX_USAGE)
}

/// Standard error may be closed; the exit status tells it all the same.
fn complain(text: &str) {
    let _unheard = io::stderr().lock().write_all(text.as_bytes());
}
