//! The subject of the audit: a process that takes a secret, holds it in one way, and ends in one way.
//!
//! `scenarios list` prints the catalogue, `scenarios run NAME` is one row of it. The harness starts `run` with a
//! control socket and a canary pipe on fixed descriptors, looks at the stopped process from outside, and judges.
//! Nothing here looks at memory or judges.
//!
//! The program is kept small so that what is found in it was left by the holder: no argument parser, no
//! allocation between the end of a holder and the look at what it left.

mod catalog;
mod ending;
mod futures;
mod holder;
mod kept;
mod managed;
mod proved;
mod scrubbed;
mod stored;
mod taken;
mod vaulted;

use std::any::Any;
use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use scenario_protocol::{Checkpoint, DENIED, Ends};
use scenario_stage::{Canary, Control, Failure};

use crate::catalog::Line;
use crate::holder::{Held, Plant};

const USAGE: &str = "\
Usage: scenarios list
       scenarios run NAME
       scenarios --help

  list   print the catalogue as a JSON array, one row a scenario
  run    hold the canary and end as the row NAME says; started by the harness, which
         hands over a control socket (descriptor 3) and the canary's pipe (descriptor 4)

Exit status: as the row says; 64 wrong usage, 70 internal error, 71 what the library
says of itself was asked for and does not hold.

Example: what is expected of a bare Vec that is dropped
  scenarios list | jq '.[] | select(.name == \"vec/wipe\") | .expect'
";

/// Wrong usage, as sysexits.h numbers it.
const EX_USAGE: u8 = 64;

/// Internal error, as sysexits.h numbers it.
const EX_SOFTWARE: u8 = 70;

/// How the program proper came back.
enum End {
    /// With this status.
    Code(u8),
    /// The panic that a row is about: it goes on through `main`, so that the process ends as Rust ends it.
    Panic(Box<dyn Any + Send>),
}

fn main() -> ExitCode {
    // The worker of a row's vault is this program once more.
    if let Err(error) = secmem::vault::init() {
        complain(&format!("scenarios: {error}\n"));
        return ExitCode::from(EX_SOFTWARE);
    }
    // One line and one write. The standard hook prints the stack of a panic that cannot unwind in thousands of pieces,
    // reads the program's debug data to do so, and stops for the harness at each piece.
    panic::set_hook(Box::new(|_| complain("scenarios: a panic\n")));
    match panic::catch_unwind(program) {
        Ok(Ok(End::Code(code))) => ExitCode::from(code),
        Ok(Ok(End::Panic(payload))) => panic::resume_unwind(payload),
        Ok(Err(failure)) => {
            complain(&format!("scenarios: {failure}\n"));
            ExitCode::from(if failure.is_denied() { DENIED } else { EX_SOFTWARE })
        }
        Err(_ours) => ExitCode::from(EX_SOFTWARE),
    }
}

fn program() -> Result<End, Failure> {
    // In the second image of an argv row this copies the canary too; such a row is whole in argv anyway.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    match words.as_slice() {
        ["list"] => list(),
        ["run", name] => run(name, Image::First),
        // Not for users: the images that `run` turns into.
        [holder::SECOND_IMAGE, name, ..] => run(name, Image::Second),
        [ending::AFTER_EXEC] => Ok(End::Code(0)),
        [ending::AFTER_SPAWN, parent] => match Control::adopt() {
            Some(control) => ending::after_spawn(parent, control).map(|()| End::Code(0)),
            None => Ok(End::Code(EX_SOFTWARE)),
        },
        ["--help" | "-h"] => print(USAGE.as_bytes()),
        _ => Ok(refuse(USAGE)),
    }
}

fn list() -> Result<End, Failure> {
    let rows = catalog::rows().map_err(Failure::while_doing("reading the table"))?;
    let mut text = serde_json::to_vec_pretty(&rows).map_err(Failure::while_doing("writing the catalogue"))?;
    text.push(b'\n');
    print(&text)
}

/// Which image of the program runs a row: some holders need an `execve` before the secret stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Image {
    /// Started by the harness; the canary is still in its pipe.
    First,
    /// Started by the first; the canary stands in the block that `execve` laid out.
    Second,
}

fn run(name: &str, image: Image) -> Result<End, Failure> {
    let Some(line) = catalog::find(name) else {
        return Ok(refuse(&format!("no scenario is called {name:?}; `scenarios list` names them\n")));
    };
    let Some(control) = Control::adopt() else {
        return Ok(refuse("descriptor 3 is no control socket: the harness starts `run`\n"));
    };
    let canary = if image == Image::First {
        let Some(canary) = Canary::adopt() else {
            return Ok(refuse("descriptor 4 is no canary pipe: the harness starts `run`\n"));
        };
        Some(canary)
    } else {
        None
    };
    play(line, name, control, canary)
}

/// Plays a row, up to the return of `main` for rows that get that far.
fn play(line: &Line, name: &str, control: Control, canary: Option<Canary>) -> Result<End, Failure> {
    ending::take_default_actions()?;
    let (expires_in, purges) = (line.ending.expires_in, line.ending.purges);
    let plant = Plant { row: name, canary, len: line.holder.canary_len, expires_in, purges };
    let mut then = |held: &mut Held<'_>| {
        control.announce(Checkpoint::Planted)?;
        (line.ending.during)(held, control)
    };

    let end = match panic::catch_unwind(AssertUnwindSafe(|| (line.holder.hold)(plant, &mut then))) {
        Ok(result) => result.map(|()| End::Code(0))?,
        Err(payload) if line.ending.ends == Ends::Exit(ending::PANICKED) => End::Panic(payload),
        Err(ours) => panic::resume_unwind(ours),
    };
    if let Some(checkpoint) = line.ending.after {
        control.announce(checkpoint)?;
    }
    Ok(end)
}

/// Prints to standard output; a reader that went away is a failure.
fn print(text: &[u8]) -> Result<End, Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(Failure::while_doing("printing"))?;
    Ok(End::Code(0))
}

fn refuse(why: &str) -> End {
    complain(why);
    End::Code(EX_USAGE)
}

/// Standard error may be closed; the exit status tells it all the same.
fn complain(text: &str) {
    let _unheard = io::stderr().lock().write_all(text.as_bytes());
}
