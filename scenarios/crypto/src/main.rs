//! Subjects for an audit that use real crates as their users do: a key goes in, something comes out, and both are wiped
//! where the program holds them: in slots of an arena. What is then found was left by the crate.
//!
//! Each crate is a pair of rows: *bare*, as its users call it, and *scrubbed*, the same call within `secmem::scrub` and
//! under its wiping allocator. The first must leak, the second must not.
//!
//! `scenarios-crypto list` prints the catalogue, `crates` what each pair is about, `run NAME` is one row of it, `derive NAME`
//! prints what a row makes from a canary, so that the harness can look for that too, and `alone NAME` plays a row without a
//! harness, for the comparison of two keys. It speaks what `scenarios` speaks, and is a program of its own because cargo unifies the features of
//! everything that it builds together.

mod allocator;
mod managed;
mod victim;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use scenario_protocol::{CanaryKind, Checkpoint, Ends, Need, Row};
use scenario_stage::{Canary, Control, Failure};
use secmem::scrub::Stack;
use secmem::{Backend, Secret};

use crate::victim::{Act, Use, VICTIMS, Victim};

const USAGE: &str = "\
Usage: scenarios-crypto list
       scenarios-crypto crates
       scenarios-crypto run NAME
       scenarios-crypto derive NAME
       scenarios-crypto alone NAME
       scenarios-crypto --help

  list    print the catalogue as a JSON array, one row a scenario
  crates  print as a JSON array which crate each pair uses, and for what
  run     use the canary as a key, as the row NAME says; started by the harness, which
          hands over a control socket (descriptor 3) and the canary's pipe (descriptor 4)
  derive  print what the row NAME makes from the canary on standard input
  alone   use a key from standard input as the row NAME says, print `done`, and end

Exit status: 0; 64 wrong usage, 70 internal error.

Example: what depends on the key when a cipher has run bare, and when it was scrubbed
  residue diff --bytes -- scenarios-crypto alone aes-gcm/bare
  residue diff --bytes -- scenarios-crypto alone aes-gcm/scrubbed
";

/// Wrong usage, as sysexits.h numbers it.
const EX_USAGE: u8 = 64;

/// Internal error, as sysexits.h numbers it.
const EX_SOFTWARE: u8 = 70;

/// Where everything stands that an outside reader must be able to see wiped.
const BACKEND: Backend = Backend::Mlock;

/// Bytes of stack for what the compiler did not optimise: it takes far more.
const UNOPTIMISED_STACK: usize = 2 << 20;

/// How a row ends: the halves of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Bare,
    Scrubbed,
}

impl Half {
    const BOTH: [Self; 2] = [Self::Bare, Self::Scrubbed];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Scrubbed => "scrubbed",
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    let done = match words.as_slice() {
        ["list"] => list(),
        ["crates"] => crates(),
        ["run", name] => with(name, run),
        ["derive", name] => with(name, derive),
        ["alone", name] => with(name, alone),
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

fn with(name: &str, play: fn(&Victim, Half) -> Result<(), Failure>) -> Result<(), Failure> {
    let found = name.split_once('/').and_then(|(name, ending)| {
        let half = Half::BOTH.into_iter().find(|half| half.name() == ending)?;
        Some((VICTIMS.iter().find(|victim| victim.name == name)?, half))
    });
    let (victim, half) = found.ok_or("`list` names them").map_err(Failure::while_doing("finding the scenario"))?;
    play(victim, half)
}

fn list() -> Result<(), Failure> {
    let rows = VICTIMS.iter().flat_map(|victim| Half::BOTH.map(|half| row(victim, half)));
    print_json(&rows.collect::<Result<Vec<_>, _>>().map_err(Failure::while_doing("reading the table"))?)
}

/// The crate of each pair as our manifest names it, what it does, and what of the derived secret is what: names and bytes, in their
/// order.
fn crates() -> Result<(), Failure> {
    let pair = |victim: &Victim| {
        let Victim { name, dependency, operation, parts, .. } = victim;
        serde_json::json!({"name": name, "dependency": dependency, "operation": operation, "parts": parts})
    };
    print_json(&VICTIMS.iter().map(pair).collect::<Vec<_>>())
}

fn print_json(rows: &[impl serde::Serialize]) -> Result<(), Failure> {
    let mut text = serde_json::to_vec_pretty(rows).map_err(Failure::while_doing("writing the catalogue"))?;
    text.push(b'\n');
    print(&text)
}

fn row(victim: &Victim, half: Half) -> Result<Row, scenario_protocol::ParseExpectationError> {
    let (expect, shows): (_, &[&str]) = match half {
        Half::Bare => (victim.leaves, &["H18", "H30"]),
        Half::Scrubbed => ("clean", &["S9", "S10", "S11"]),
    };
    Ok(Row {
        name: format!("{}/{}", victim.name, half.name()),
        holder: victim.name.to_owned(),
        ending: half.name().to_owned(),
        canary: CanaryKind::Bytes,
        canary_len: victim.key,
        expect: expect.parse()?,
        ends: Ends::Exit(0),
        checkpoints: vec![Checkpoint::Planted, Checkpoint::Wiped],
        // Also while the key still stands in its slot, scrubbed code has left nothing beside it.
        sole_home: half == Half::Scrubbed,
        needs: vec![Need::Mlock],
        turned_by: Vec::new(),
        asks: false,
        shows: shows.iter().map(|&id| id.to_owned()).collect(),
        derived: victim.derived(),
    })
}

/// Plays a row: the key and what is made from it live in two slots, and are wiped there.
fn run(victim: &Victim, half: Half) -> Result<(), Failure> {
    let control = Control::adopt().ok_or("descriptor 3 is no control socket: the harness starts `run`");
    let control = control.map_err(Failure::while_doing("taking over what the harness hands down"))?;
    let canary = Canary::adopt().ok_or("descriptor 4 is no canary pipe: the harness starts `run`");
    let canary = canary.map_err(Failure::while_doing("taking over what the harness hands down"))?;
    play(victim, half, canary, || control.announce(Checkpoint::Planted), || control.announce(Checkpoint::Wiped))
}

/// The same without a harness.
fn alone(victim: &Victim, half: Half) -> Result<(), Failure> {
    // Here: its buffer would be made where the row has just freed something, and overwrite it.
    let mut out = io::stdout().lock();
    let mut print = |text| out.write_all(text).and_then(|()| out.flush()).map_err(Failure::while_doing("printing"));
    play(victim, half, stdin()?, || Ok(()), || print(b"done\n"))
}

fn play(
    victim: &Victim,
    half: Half,
    mut source: impl Read + AsFd,
    planted: impl FnOnce() -> Result<(), Failure>,
    wiped: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    if half == Half::Scrubbed {
        allocator::wipe_what_is_freed();
    }
    let (mut key, mut made) = slots(victim, &source)?;
    let mut stack = match half {
        Half::Bare => None,
        Half::Scrubbed => Some(protected_stack(victim.stack)?),
    };
    victim::below(|| act(victim, stack.as_mut(), &mut source, &mut key, &mut made))?;
    drop(source);
    planted()?;
    drop((key, made));
    wiped()?;
    drop(stack); // it was there to be looked at
    Ok(())
}

fn derive(victim: &Victim, _: Half) -> Result<(), Failure> {
    let mut source = stdin()?;
    let (mut key, mut made) = slots(victim, &source)?;
    act(victim, None, &mut source, &mut key, &mut made)?;
    made.with(|made| print(&made[..victim.secret()])).map_err(Failure::while_doing("reading a slot"))?
}

fn protected_stack(bytes: usize) -> Result<Stack, Failure> {
    let bytes = if cfg!(debug_assertions) { UNOPTIMISED_STACK } else { bytes };
    Stack::with_backend(BACKEND, bytes).map_err(Failure::while_doing("making a protected stack"))
}

/// A slot for the key, which stands in it where the victim does not read it by itself, and one for what is made of it, with what is
/// prepared of that.
fn slots(victim: &Victim, source: &impl AsFd) -> Result<(Secret, Secret), Failure> {
    let options = Secret::options().backend(BACKEND);
    let key = match victim.act {
        Act::Use(_) => options.read_exact(source.as_fd(), victim.key),
        Act::Read(_) => options.zeroed(victim.key),
    };
    let key = key.map_err(Failure::while_doing("reading the key into an arena"))?;
    let mut made = options.zeroed(victim.made).map_err(Failure::while_doing("making a slot"))?;
    if let Some(prepare) = victim.prepare {
        let mut stack = protected_stack(managed::LARGE)?;
        use_key(prepare, Some(&mut stack), &key, &mut made)?;
    }
    Ok((key, made))
}

/// Lets the victim do what it does: on a stack of its own that is wiped, if it is given one.
fn act(
    victim: &Victim,
    stack: Option<&mut Stack>,
    source: &mut dyn Read,
    key: &mut Secret,
    made: &mut Secret,
) -> Result<(), Failure> {
    match victim.act {
        Act::Use(act) => use_key(act, stack, key, made),
        Act::Read(act) => telling(|tell| key.with_mut(|key| within(stack, || tell(act(source, key)))).flatten()),
    }
}

fn use_key(act: Use, stack: Option<&mut Stack>, key: &Secret, made: &mut Secret) -> Result<(), Failure> {
    telling(|tell| key.with(|key| made.with_mut(|made| within(stack, || tell(act(key, made))))).flatten().flatten())
}

/// Nothing of the key is moved into what runs, or returned: it sees references to slots. Nothing comes out but a failure: what an
/// `Ok` leaves unfilled would carry along what stood on the stack.
fn telling(run: impl FnOnce(&mut dyn FnMut(Result<(), Failure>)) -> Result<(), secmem::Error>) -> Result<(), Failure> {
    let mut failure = None;
    let mut tell = |done: Result<(), Failure>| {
        if let Err(error) = done {
            failure = Some(error);
        }
    };
    run(&mut tell).map_err(Failure::while_doing("running the victim"))?;
    failure.map_or(Ok(()), Err)
}

fn within(stack: Option<&mut Stack>, act: impl FnOnce()) -> Result<(), secmem::Error> {
    match stack {
        Some(stack) => stack.run(act),
        None => {
            act();
            Ok(())
        }
    }
}

/// Standard input without a buffer.
fn stdin() -> Result<File, Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    stdin.map(File::from).map_err(Failure::while_doing("taking standard input"))
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
