//! The subject of `cargo xtask schedules`: a vault, to one of whose sides something happens at a step of a call.
//!
//! Three kinds of process, all of this program: the one that the harness starts sees to the others (`driver`) and holds no secret,
//! `caller` has a vault and calls it, and the vault's worker. What happens when is `schedule`'s; that it happens is the library's,
//! in a build with `cfg(secmem_ablate = "vault-steps")` alone. In any other nothing does, and every row says so.

mod caller;
mod driver;
mod schedule;

use std::io::{self, Write};
use std::process::ExitCode;

use scenario_protocol::DENIED;
use scenario_stage::Failure;

use schedule::Schedule;

const USAGE: &str = "\
Usage: scenarios-schedules list
       scenarios-schedules run NAME
       scenarios-schedules --help

  list   print the catalogue as a JSON array, one row a schedule; the variable SCHEDULES may name others
  run    play the schedule NAME; started by the harness, which hands over a control socket
         (descriptor 3) and the canary's pipe (descriptor 4)

Exit status: 0 all that was planned came and nothing lives on; 10 something planned did not
come, 11 a process lived on, 12 the caller did not end, 71 the vault did not go on as it must,
64 wrong usage, 70 internal error.

Example: a worker that is killed while a plaintext stands in its slot
  cargo xtask schedules --only worker:plain:kill
";

/// Wrong usage, as sysexits.h numbers it.
const EX_USAGE: u8 = 64;

/// Internal error, as sysexits.h numbers it.
const EX_SOFTWARE: u8 = 70;

fn main() -> ExitCode {
    if let Err(error) = secmem::vault::init() {
        return ExitCode::from(report(&Failure::while_doing("becoming a worker")(error)));
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => list(),
        ["run", name] => with(name, driver::run),
        [driver::CALLER, name] => with(name, caller::run),
        [driver::LINGER] => {
            std::thread::sleep(driver::LONG);
            Ok(0)
        }
        ["--help" | "-h"] => print(USAGE.as_bytes()),
        _ => {
            complain(USAGE);
            Ok(EX_USAGE)
        }
    };
    ExitCode::from(done.unwrap_or_else(|failure| report(&failure)))
}

fn report(failure: &Failure) -> u8 {
    complain(&format!("scenarios-schedules: {failure}\n"));
    if failure.is_denied() { DENIED } else { EX_SOFTWARE }
}

fn with(name: &str, play: fn(&Schedule) -> Result<u8, Failure>) -> Result<u8, Failure> {
    match Schedule::parse(name) {
        Some(schedule) => play(&schedule),
        None => {
            complain(&format!("{name:?} is no schedule; `scenarios-schedules list` names some\n"));
            Ok(EX_USAGE)
        }
    }
}

fn list() -> Result<u8, Failure> {
    let these = std::env::var(schedule::THESE).ok();
    let rows = schedule::rows(these.as_deref()).map_err(Failure::while_doing("reading the names of schedules"))?;
    let mut text = serde_json::to_vec_pretty(&rows).map_err(Failure::while_doing("writing the catalogue"))?;
    text.push(b'\n');
    print(&text)
}

/// Prints to standard output; a reader that went away is a failure.
fn print(text: &[u8]) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(Failure::while_doing("printing"))?;
    Ok(0)
}

/// Standard error may be closed; the exit status tells it all the same.
fn complain(text: &str) {
    let _unheard = io::stderr().lock().write_all(text.as_bytes());
}
