//! Starting programs and telling how they ended.
//!
//! `residue` has processes to stop and directories to remove when a run is cut short, so we must not end before it:
//! while it runs, the signals that ask for an end are caught here and handed on. It stands in a process group of its
//! own, where Ctrl-C does not reach it, because it takes a second signal as the wish to end at once. Caught, not
//! ignored: exec gives a caught signal back its default action, whereas an ignored one would stay ignored in there.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::failure::Failure;

/// How long an interrupt may wait before it is handed on, and how late we may notice the end.
const POLL: Duration = Duration::from_millis(20);

/// Runs a program that ends with one of our exit codes and returns that code; signals are handed on to it.
///
/// # Errors
///
/// The program cannot be started, is killed by a signal, or ends with a code that is none of ours.
pub(crate) fn verdict(command: Command) -> Result<u8, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = wait(command, &name)?;
    match status.code() {
        Some(code @ (0 | 1 | 2 | 64 | 70)) => Ok(code as u8),
        _ => Err(Failure::internal(format!("{name} {}", ended(status)))),
    }
}

/// Runs a program that ends with 0 when all went well.
///
/// # Errors
///
/// The program cannot be started or ends in any other way.
pub(crate) fn success(mut command: Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| Failure::because(format!("starting {name}"), error))?;
    if status.success() { Ok(()) } else { Err(Failure::internal(format!("{name} {}", ended(status)))) }
}

/// How a program ended, as the end of a sentence.
pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "did not end".to_owned(),
    }
}

/// Starts the program with our streams and waits for its end, handing signals on.
fn wait(mut command: Command, name: &str) -> Result<ExitStatus, Failure> {
    let caught = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        // Registered for good: what follows the program is over before a signal could spoil it, or starts a cargo,
        // which shares our group and ends by itself.
        signal_hook::flag::register_usize(number, Arc::clone(&caught), number as usize)
            .map_err(|error| Failure::because(format!("catching signal {number}"), error))?;
    }

    let mut child =
        command.process_group(0).spawn().map_err(|error| Failure::because(format!("starting {name}"), error))?;
    loop {
        if let Some(status) =
            child.try_wait().map_err(|error| Failure::because(format!("waiting for {name}"), error))?
        {
            return Ok(status);
        }
        let number = caught.swap(0, Ordering::Relaxed);
        if number != 0 {
            let signal = Signal::try_from(number as i32).expect("one of those registered above");
            // Not yet waited for, so the number still names this child, dead or alive.
            signal::kill(Pid::from_raw(child.id() as i32), signal)
                .map_err(|error| Failure::because(format!("handing {signal} on to {name}"), error))?;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn our_exit_codes_pass_through() {
        for code in [0, 1, 2, 64, 70] {
            assert_eq!(verdict(sh(&format!("exit {code}"))).unwrap(), code);
        }
    }

    #[test]
    fn the_code_of_a_panic_is_no_verdict() {
        assert_eq!(verdict(sh("exit 101")).unwrap_err().to_string(), "sh ended with code 101");
    }

    #[test]
    fn a_program_killed_by_a_signal_gives_no_verdict() {
        assert_eq!(verdict(sh("kill -KILL $$")).unwrap_err().to_string(), "sh was killed by signal 9");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        assert!(verdict(Command::new("/no/such/program")).is_err());
    }

    #[test]
    fn an_interrupt_is_handed_on_and_waited_for() {
        // In a process of its own: the signal comes to the whole process, and would be handed on to the programs of the
        // tests beside this one.
        const ALONE: &str = "XTASK_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let test = "child::tests::an_interrupt_is_handed_on_and_waited_for";
            let mut alone = Command::new("/proc/self/exe");
            let output = alone.args(["--exact", test]).env(ALONE, "1").output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            // By its name: were that another, no test would run, and none would fail.
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        let cleans_up = "trap 'exit 2' TERM; kill -TERM $PPID; for i in $(seq 100); do sleep 0.05; done";

        assert_eq!(verdict(sh(cleans_up)).unwrap(), 2);
    }

    #[test]
    fn success_is_code_zero_alone() {
        assert!(success(sh("exit 0")).is_ok());
        assert!(success(sh("exit 1")).is_err());
    }
}
