//! What this machine can show: abilities are probed by using them, limits are read.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{CORE, Fact, Machine};
use nix::unistd::Pid;
use scenario_protocol::Need;

use crate::handler::Handler;
use crate::session::chain;
use crate::target::{Event, Launch, Layout, Target};
use crate::{private, snapshot, sys};

/// Name of the fact that says whether a target can be traced.
const TRACE: &str = "ptrace";

/// Probes the machine. Takes some tens of milliseconds; changes no setting.
pub fn probe() -> Machine {
    let system = nix::sys::utsname::uname();
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let (kernel, arch) = system.map_or_else(
        |errno| (format!("unknown ({errno})"), std::env::consts::ARCH.to_owned()),
        |name| (format!("{} {}", text(name.sysname()), text(name.release())), text(name.machine())),
    );
    Machine { kernel, arch, facts: facts() }
}

fn facts() -> Vec<Fact> {
    vec![trace(), watchpoints(), page_scan(), memfd_secret(), lock_limit(), core(), core_pattern(), yama()]
}

/// How to enable what a probe did not find, where the user can.
pub fn cure(name: &str) -> Option<&'static str> {
    Some(match name {
        TRACE => "allow ptrace: in a container, add CAP_SYS_PTRACE or a seccomp profile that lets ptrace(2) through",
        "watchpoints" => "needs debug registers: a virtual machine may lack them; writers are then not named",
        "PAGEMAP_SCAN" => "needs Linux 6.7; without it page tables are read one entry at a time, which is slower",
        "memfd_secret" => "needs Linux 5.14; before 6.5 boot with secretmem.enable=1; raise the lock limit (ulimit -l)",
        "lock limit" => "raise it: ulimit -l 8192, or LimitMEMLOCK= in the service's unit",
        CORE => "have cores written to files: a core_pattern without `|`, and a hard core limit above 0 (ulimit -Hc)",
        "ptrace_scope" => "set kernel.yama.ptrace_scope to 1 or 0, or run with CAP_SYS_PTRACE",
        _ => return None,
    })
}

/// Why there is no kernel core, or `None` if there is one.
pub(crate) fn no_core(machine: &Machine) -> Option<&str> {
    machine.facts.iter().find(|fact| fact.name == CORE && !fact.present).map(|fact| fact.detail.as_str())
}

/// Why a row cannot run here, or `None` if it can.
pub fn lacks(machine: &Machine, needs: &[Need]) -> Option<String> {
    let missing = |name: &str| machine.facts.iter().find(|fact| fact.name == name && !fact.present);
    let needed = needs.iter().map(|need| match need {
        Need::MemfdSecret => "memfd_secret",
        Need::Mlock => "lock limit",
    });
    [TRACE]
        .into_iter()
        .chain(needed)
        .find_map(missing)
        .map(|fact| format!("this machine lacks {}: {}", fact.name, fact.detail))
}

fn fact(name: &str, probed: Result<String, String>) -> Fact {
    let (present, detail) = match probed {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Fact { name: name.to_owned(), present, detail }
}

fn trace() -> Fact {
    fact(TRACE, at_exit_stop(|_| Ok("a child of ours can be seized, its exit stop comes".to_owned())))
}

/// Whether a debug register can be set in a child: that is how writers are found.
fn watchpoints() -> Fact {
    let set = |child| {
        // The control register's bits: register 0 is on and waits for writes of eight bytes (Intel SDM volume 3).
        let control = 0b1001 << 16 | 1;
        sys::set_debug_register(child, 0, 0x1000)
            .and_then(|()| sys::set_debug_register(child, 7, control))
            .map(|()| "a debug register of a child can be set".to_owned())
            .map_err(|error| format!("debug registers: {error}"))
    };
    fact("watchpoints", at_exit_stop(set))
}

/// Whether the kernel tells in one call which pages are there.
fn page_scan() -> Fact {
    fact("PAGEMAP_SCAN", File::open("/proc/self/pagemap").and_then(scans).map_err(|error| error.to_string()))
}

fn scans(pagemap: File) -> io::Result<String> {
    let mut found = [sys::PageRun::default()];
    sys::scan_pages(&pagemap, 0, snapshot::PAGE, false, &mut found)?;
    Ok("tells which pages are there".to_owned())
}

/// Asks this of a child that stands in its exit stop.
fn at_exit_stop(ask: impl FnOnce(Pid) -> Result<String, String>) -> Result<String, String> {
    private::directory().map_err(|error| format!("no private directory: {error}")).and_then(|dir| {
        let never = AtomicBool::new(false);
        let launch = Launch {
            program: std::path::Path::new("/bin/sh"),
            args: &[std::ffi::OsStr::new("-c"), std::ffi::OsStr::new("exit 0")],
            dir: dir.path(),
            timeout: Duration::from_secs(60), // a loaded machine lacks nothing
            layout: Layout::Natural,
            watch: &[],
            trails: &[],
        };
        let mut target = Target::spawn(&launch, b"", &never).map_err(|error| chain(&error))?;
        loop {
            target.go_on().map_err(|error| chain(&error))?;
            match target.next().map_err(|error| chain(&error))? {
                Event::ExitStop(0) => return ask(target.processes()[0].pid),
                Event::Ended(_) | Event::TimedOut | Event::Interrupted => return Err("no exit stop came".to_owned()),
                _ => {}
            }
        }
    })
}

fn memfd_secret() -> Fact {
    let probed = sys::probe_memfd_secret()
        .map(|()| "a page of it can be made and mapped".to_owned())
        .map_err(|error| format!("{error} (Linux 5.14 with secretmem, and room in the lock limit)"));
    fact("memfd_secret", probed)
}

fn lock_limit() -> Fact {
    let probed = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)
        .map_err(|errno| errno.to_string())
        .and_then(|(soft, _)| {
            let text = if soft == libc::RLIM_INFINITY { "no limit".to_owned() } else { format!("{soft} bytes") };
            if soft < 64 * 1024 { Err(format!("{text}: too little for an arena")) } else { Ok(text) }
        });
    fact("lock limit", probed)
}

/// Lets a shell abort in a private directory and looks for its core there.
fn core() -> Fact {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    let probed = private::directory().map_err(|error| format!("no private directory: {error}")).and_then(|dir| {
        let status = Command::new("/bin/sh")
            .args(["-c", "ulimit -c unlimited && kill -ABRT $$"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| format!("/bin/sh: {error}"))?;
        let why = |what: &str| format!("{what} (core_pattern is {pattern:?}, the shell ended with {status})");
        match snapshot::find_core(dir.path()) {
            Ok(Some((_, file))) => snapshot::read_core(&file, |_, _, _| {})
                .map(|_| format!("to a file in the working directory (core_pattern is {pattern:?})"))
                .map_err(|error| why(&chain(&error))),
            Ok(None) => Err(why("no core file came")),
            Err(error) => Err(why(&error.to_string())),
        }
    });
    fact(CORE, probed)
}

/// Where the kernel sends cores: to a file, or to a program that may store or send them.
fn core_pattern() -> Fact {
    let probed = match std::fs::read_to_string("/proc/sys/kernel/core_pattern") {
        Ok(pattern) => Ok(match Handler::of_pattern(&pattern) {
            Some(handler) => format!("{:?}: {}", pattern.trim(), handler.describe()),
            None => format!("{:?}: cores go to files", pattern.trim()),
        }),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    fact("core_pattern", probed)
}

fn yama() -> Fact {
    let probed = match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) => match scope.trim() {
            "0" | "1" => Ok(format!("{} (own children can be traced)", scope.trim())),
            other => Err(format!("{other} (tracing needs CAP_SYS_PTRACE or is off)")),
        },
        Err(_) => Ok("no Yama: own children can be traced".to_owned()),
    };
    fact("ptrace_scope", probed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_absent_and_has_a_cure() {
        let refused = |fact: Fact| (!fact.present && cure(&fact.name).is_some()).then_some(fact.detail);

        let stopped = fact("watchpoints", at_exit_stop(|_| Err("refused".to_owned())));
        let scanned = fact("PAGEMAP_SCAN", File::open("/dev/null").and_then(scans).map_err(|error| error.to_string()));

        assert_eq!(refused(stopped).as_deref(), Some("refused"));
        assert!(refused(scanned).is_some_and(|why| why.contains("ioctl")));
    }

    #[test]
    fn a_row_whose_means_are_missing_is_told_which() {
        let absent = Fact { name: "memfd_secret".to_owned(), present: false, detail: "ENOSYS".to_owned() };
        let machine = Machine { kernel: String::new(), arch: String::new(), facts: vec![absent] };

        assert_eq!(lacks(&machine, &[Need::Mlock]), None);
        assert_eq!(lacks(&machine, &[Need::MemfdSecret]).unwrap(), "this machine lacks memfd_secret: ENOSYS");
    }
}
