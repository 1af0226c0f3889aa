//! A secret in every place that a process can keep one: each must be found where it lies, and no other.
//!
//! The subject is a C program, built here. Without a C compiler, or without what a place needs of the machine, a test
//! is listed as ignored.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Class, Finding, Form, Outcome, Run, Verdict};
use harness::audit::{self, Options};
use harness::canary::Seed;
use harness::progress::Nobody;
use libtest_mimic::{Arguments, Failed, Trial};

/// The program and a directory that it shares with one test.
struct Subject {
    dir: tempfile::TempDir,
    program: PathBuf,
}

fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("victim");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/places/victim.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-w", "-pthread", "-mavx", "-Wl,-z,now", "-o"]).arg(&program).arg(source);
    assert!(compiler.status().unwrap().success());
    Subject { dir, program }
}

impl Subject {
    /// Runs one row and looks at it.
    fn run(&self, row: &str) -> Run {
        let options =
            Options { filter: format!("places/{row}"), ..Options::new(self.program.clone(), Seed::random().unwrap()) };
        audit::run(&options, &audit::rows(&options).unwrap(), &AtomicBool::new(false), &Nobody).unwrap()
    }

    fn outcome(&self, row: &str) -> Outcome {
        let run = self.run(row);
        assert_eq!(run.outcomes.len(), 1);
        run.outcomes.into_iter().next().unwrap()
    }

    /// Where the program says that it put copies.
    fn places(&self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string(self.dir.path().join("places")).unwrap();
        let place = |line: &str| {
            let (name, address) = line.split_once(' ').unwrap();
            (name.to_owned(), u64::from_str_radix(address, 16).unwrap())
        };
        text.lines().map(place).collect()
    }
}

fn wiped(outcome: &Outcome) -> impl Iterator<Item = &Finding> {
    outcome.findings.iter().filter(|finding| finding.checkpoint == "wiped")
}

/// The finding at an address, while its process lived.
fn at(outcome: &Outcome, address: u64) -> &Finding {
    let mut there =
        wiped(outcome).filter(|finding| finding.address == address && finding.rule.class != Class::Register);
    let finding = there.next().unwrap_or_else(|| panic!("nothing found at {address:#x}: {:?}", outcome.reasons));
    assert!(there.next().is_none(), "one residue is reported twice");
    finding
}

fn every_planted_copy_is_found_and_none_else() {
    let subject = subject();

    let run = subject.run("everywhere");

    let outcome = &run.outcomes[0];
    assert_eq!(outcome.verdict, Verdict::Leak, "{:?}", outcome.reasons);
    let places = subject.places();
    for (name, address) in &places {
        let finding = at(outcome, *address);
        assert!(finding.whole, "{name}: {finding:?}");
        let (class, permissions, form) = match name.as_str() {
            "heap" => (Class::Heap, "rw-p", Form::Raw),
            "hex" => (Class::Heap, "rw-p", Form::HexLower),
            "shared" => (Class::Shared, "rw-s", Form::Raw),
            "device" => (Class::File, "rw-p", Form::Raw),
            "read-only" => (Class::Anonymous, "r--p", Form::Raw),
            "no-access" => (Class::Anonymous, "---p", Form::Raw),
            "memfd-secret" => (Class::SecretMemory, "rw-s", Form::Raw),
            _ => (Class::Anonymous, "rw-p", Form::Raw),
        };
        assert_eq!(
            (finding.rule.class, finding.permissions.as_str(), finding.rule.form),
            (class, permissions, form),
            "{name}"
        );
    }
    let expected = 11 + usize::from(places.contains_key("memfd-secret"));
    assert_eq!(places.len(), expected - 1);
    // The copy from which all others were made, and nothing of the page that was unmapped.
    let whole: Vec<_> =
        wiped(outcome).filter(|finding| finding.whole && finding.rule.class != Class::Register).collect();
    let homes = whole.iter().filter(|finding| !places.values().any(|address| *address == finding.address)).count();
    assert_eq!(homes, 1, "{whole:?}");
    assert!(run.not_shown.iter().any(|thing| thing.what == "freed physical pages"));
}

fn what_the_kernel_keeps_is_found_and_left_as_it_was() {
    let subject = subject();

    let outcome = subject.outcome("kernel");

    assert_eq!(outcome.verdict, Verdict::Leak, "{:?}", outcome.reasons);
    assert_eq!(outcome.ended, "exit 0", "the look changed what waited there");
    let places = subject.places();
    let behind: Vec<_> = wiped(&outcome).filter(|finding| finding.rule.class.is_behind_descriptor()).collect();
    for (name, number) in &places {
        let place = format!("at fd {number}{}", if name == "in-flight" { ", in flight" } else { "" });
        let found: Vec<_> = behind.iter().filter(|finding| finding.place.ends_with(&place)).collect();
        assert_eq!(found.len(), 1, "{name}: {place} in {behind:#?}");
        let (class, address) = match name.as_str() {
            "pipe" => (Class::Pipe, 6),
            "full-pipe" => (Class::Pipe, (256 << 10) - 4096),
            "packets" | "one-end" | "own-table" => (Class::Pipe, 0),
            "stream" => (Class::Socket, 64 << 10),
            "tcp" => (Class::Socket, 16 << 10),
            "other-end" => (Class::Socket, 0),
            "messages" | "sequence" | "udp" => (Class::Socket, 5),
            "memfd" => (Class::Memfd, 500 << 20),
            "memfd-secret" => (Class::Memfd, 64),
            "in-flight" => (Class::Memfd, 0),
            "deleted" => (Class::DeletedFile, 6),
            "never-named" => (Class::DeletedFile, 0),
            other => panic!("{other} is no place that this test knows"),
        };
        assert_eq!((found[0].rule.class, found[0].address, found[0].whole), (class, address, true), "{name}");
    }
    for always in ["pipe", "full-pipe", "packets", "one-end", "own-table", "stream", "other-end", "messages"] {
        assert!(places.contains_key(always), "{always}");
    }
    assert_eq!(behind.len(), places.len(), "{behind:#?}");
    let kept = outcome.observations[1].kept.as_ref().unwrap();
    assert!(kept.bytes.adds_up() && kept.bytes.refused.is_empty(), "{kept:?}");
    assert!(kept.bytes.never_populated > 1000 << 20, "{kept:?}");
    // An account of its own: the address space adds up without it.
    assert!(outcome.observations[1].coverage.adds_up());
}

/// A process, and one that shares its memory and is no thread of it.
const SHARER_C: &str = r#"
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static char stack[65536];
static int sleeps(void *unused) { for (;;) pause(); return 0; }
int main(int argc, char **argv) {
    int shared = argc > 1 ? clone(sleeps, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) : 0;
    printf("%d\n", shared);
    fflush(stdout);
    for (;;) pause();
}
"#;

fn a_process_whose_memory_another_shares_is_inconclusive_and_that_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("sharer.c"), dir.path().join("sharer"));
    std::fs::write(&source, SHARER_C).unwrap();
    assert!(Command::new("cc").arg("-o").args([&program, &source]).status().unwrap().success());
    let needles = || {
        let secret = Seed::random().unwrap().canary("sharer", scenario_protocol::CanaryKind::Bytes, 32);
        harness::files::Needles::new(vec![secret], 6).unwrap()
    };
    for share in [&["share"][..], &[]] {
        let mut process = Command::new(&program).args(share).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut line).unwrap();
        let sharer: i32 = line.trim().parse().unwrap();

        let searched =
            harness::attach::search(i32::try_from(process.id()).unwrap(), &needles(), &AtomicBool::new(false));
        if sharer > 0 {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(sharer), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        process.kill().unwrap();
        process.wait().unwrap();

        let searched = searched.unwrap();
        let said =
            searched.reasons.iter().any(|reason| reason.starts_with(&format!("process {sharer} shares its memory")));
        let expected = if share.is_empty() { Verdict::Clean } else { Verdict::Inconclusive };
        assert_eq!((searched.verdict, said), (expected, !share.is_empty()), "{:?}", searched.reasons);
    }
}

fn twenty_gibibytes_of_nothing_are_read_in_little_memory() {
    let subject = subject();
    let before = peak();

    let outcome = subject.outcome("sparse");

    let used = peak() - before;
    assert!(used < 200 << 20, "{used} bytes");
    assert!(at(&outcome, subject.places()["sparse"]).whole);
    let coverage = &outcome.observations[0].coverage;
    assert!(coverage.never_populated > 19 << 30, "{coverage:?}");
    assert!(coverage.adds_up() && coverage.refused.is_empty(), "{coverage:?}");
}

fn thousands_of_runs_of_pages_are_read_each_once() {
    let subject = subject();

    let outcome = subject.outcome("chequered");

    // The secret lies across the end of a touched page and the page behind it.
    assert!(at(&outcome, subject.places()["chequered"]).whole);
    let coverage = &outcome.observations[0].coverage;
    assert!(coverage.read > 4 << 20, "{coverage:?}");
    assert!(coverage.adds_up() && coverage.refused.is_empty(), "{coverage:?}");
}

fn untouched_shared_memory_is_found_behind_its_descriptor_and_stays_untouched() {
    let subject = subject();

    let outcome = subject.outcome("behind");

    assert!(at(&outcome, subject.places()["behind"]).whole);
    assert_eq!(outcome.ended, "exit 0", "the look allocated shared memory");
    assert!(outcome.observations[0].coverage.never_populated > 1000 << 20, "{:?}", outcome.observations[0]);
}

fn memory_that_others_write_meanwhile_is_inconclusive() {
    let subject = subject();
    let path = subject.dir.path().join("raced");
    std::fs::write(&path, [1; 4096]).unwrap();

    let still = subject.outcome("race");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let done = AtomicBool::new(false);
    let raced = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut count = 0_u64;
            while !done.load(Ordering::Relaxed) {
                count += 1;
                file.write_all_at(&count.to_le_bytes(), 64).unwrap();
            }
        });
        let outcome = subject.outcome("race");
        done.store(true, Ordering::Relaxed);
        outcome
    });

    assert_eq!(still.verdict, Verdict::Clean, "{:?}", still.reasons);
    let coverage = &still.observations[0].coverage;
    assert_eq!(coverage.verified, coverage.read - coverage.injected, "a small process is compared whole");
    assert_eq!(raced.verdict, Verdict::Inconclusive, "{raced:?}");
    assert!(
        raced.reasons.iter().any(|reason| reason.contains("memory changed while it was read")),
        "{:?}",
        raced.reasons
    );
}

/// A register of a thread that only spins, with the secret in it.
fn found_in_register(row: &str, register: &str, whole: bool) {
    let outcome = subject().outcome(row);

    let found: Vec<_> = wiped(&outcome).filter(|finding| finding.rule.class == Class::Register).collect();
    let there: Vec<_> = found.iter().filter(|finding| finding.place.starts_with(register)).collect();
    assert!(!there.is_empty(), "{found:?}");
    assert_eq!(there[0].whole, whole, "{found:?}");
}

fn a_ymm_register_of_another_thread_is_found_whole() {
    found_in_register("ymm", "ymm7", true);
}

fn a_high_register_of_another_thread_is_found_whole() {
    found_in_register("zmm", "ymm19", true);
}

fn a_mask_register_of_another_thread_is_found() {
    found_in_register("opmask", "k1", false);
}

/// The most memory that this process had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn has(flag: &str) -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.split_whitespace().any(|word| word == flag))
}

fn main() -> ExitCode {
    let compiler = Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success());
    let needs = |name: &str, lacking: Option<&str>, test: fn()| {
        let lacking = if compiler { lacking } else { Some("needs a C compiler") };
        let name = lacking.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(lacking.is_some())
    };
    let trials = vec![
        needs("every_planted_copy_is_found_and_none_else", None, every_planted_copy_is_found_and_none_else),
        needs(
            "what_the_kernel_keeps_is_found_and_left_as_it_was",
            None,
            what_the_kernel_keeps_is_found_and_left_as_it_was,
        ),
        needs(
            "twenty_gibibytes_of_nothing_are_read_in_little_memory",
            None,
            twenty_gibibytes_of_nothing_are_read_in_little_memory,
        ),
        needs(
            "a_process_whose_memory_another_shares_is_inconclusive_and_that_one_is_named",
            None,
            a_process_whose_memory_another_shares_is_inconclusive_and_that_one_is_named,
        ),
        needs("thousands_of_runs_of_pages_are_read_each_once", None, thousands_of_runs_of_pages_are_read_each_once),
        needs(
            "untouched_shared_memory_is_found_behind_its_descriptor_and_stays_untouched",
            None,
            untouched_shared_memory_is_found_behind_its_descriptor_and_stays_untouched,
        ),
        needs(
            "memory_that_others_write_meanwhile_is_inconclusive",
            None,
            memory_that_others_write_meanwhile_is_inconclusive,
        ),
        needs(
            "a_ymm_register_of_another_thread_is_found_whole",
            (!has("avx")).then_some("needs AVX"),
            a_ymm_register_of_another_thread_is_found_whole,
        ),
        needs(
            "a_high_register_of_another_thread_is_found_whole",
            (!has("avx512vl")).then_some("needs AVX-512"),
            a_high_register_of_another_thread_is_found_whole,
        ),
        needs(
            "a_mask_register_of_another_thread_is_found",
            (!has("avx512bw")).then_some("needs AVX-512"),
            a_mask_register_of_another_thread_is_found,
        ),
    ];

    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
