//! A real process keeps a piece of its secret in one place of each kind, each piece of another length: the kind that is told
//! is that of the place. Without a C compiler, or with another C library than glibc, this test is ignored, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::Class;
use harness::program::{self, Feed, Options, Output, Source};
use harness::progress::Nobody;
use libtest_mimic::{Arguments, Failed, Trial};

/// Bytes of the secret in a place, the place, and its kind.
const PLACES: [(u64, &str, Class); 12] = [
    (9, "the stack for signals of the first thread", Class::AlternateStack),
    (11, "an allocation of the second thread", Class::Arena),
    (13, "a long allocation", Class::MappedChunk),
    (15, "a mapping of the program's own", Class::Anonymous),
    (17, "what was a stack for signals before", Class::Anonymous),
    (19, "a frame that has returned", Class::DeadStack),
    (21, "a frame of a function that has not returned", Class::Stack),
    (23, "a frame of the second thread that has returned", Class::DeadStack),
    (25, "a frame of the second thread that has not", Class::Stack),
    (27, "the stack for signals of the second thread, in an allocation", Class::AlternateStack),
    (29, "a short allocation", Class::Heap),
    (31, "another long allocation", Class::MappedChunk),
];

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef __GLIBC__
#error another C library
#endif
static volatile unsigned char line[64];
static volatile int ready;
static __attribute__((noinline)) void put(volatile unsigned char *to, int length) {
    for (int i = 0; i < length; i++) to[i] = line[i];
}
static __attribute__((noinline)) void frame(int length) {
    volatile unsigned char room[16384];
    put(room, length); /* far below whatever is called next */
}
static void handler(int signal) {
    volatile unsigned char room[64];
    put(room, signal == SIGUSR1 ? 9 : 27);
}
static void on_alternate(void *room, size_t size, int signal) {
    stack_t stack = { .ss_sp = room, .ss_size = size };
    if (sigaltstack(&stack, NULL)) _exit(1);
    raise(signal);
}
static void *second(void *room) {
    put(malloc(100), 11);
    volatile unsigned char live[64];
    put(live, 25);
    frame(23);
    on_alternate(room, 65536, SIGUSR2);
    ready = 1;
    for (;;) { pause(); put(live, 25); }
}
static void *mapping(size_t size) {
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
int main(void) {
    if (read(0, (void *)line, sizeof line) < 32) return 1;
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    volatile unsigned char live[64];
    put(live, 21);
    put(malloc(100), 29);
    put(mapping(4096), 15);
    unsigned char *before = mapping(65536);
    stack_t stack = { .ss_sp = before, .ss_size = 65536 };
    sigaltstack(&stack, NULL);
    put(before + 100, 17);
    stack.ss_flags = SS_DISABLE;
    if (sigaltstack(&stack, &stack)) return 1; /* the old one where the new one was */
    on_alternate(mapping(65536), 65536, SIGUSR1);
    put((unsigned char *)malloc(300000) + 5000, 13); /* lowest: what is joined to them from below is a thread's stack */
    put((unsigned char *)malloc(200000) + 150000, 31);
    frame(19);
    pthread_t thread;
    if (pthread_create(&thread, NULL, second, malloc(65536))) return 1;
    while (!ready) usleep(1000);
    for (int i = 0; i < 64; i++) line[i] = 0;
    _exit(live[0] == 0 && live[1] == 0 && live[2] == 0);
}
"#;

fn main() {
    let arguments = Arguments::from_args();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "each_kind_of_place_is_told_in_a_real_process";
    let trial = match compile(dir.path()) {
        Some(program) => Trial::test(name, move || every_place(&program)),
        None => Trial::test(format!("{name} (ignored: no C compiler, or no glibc)"), || Ok(())).with_ignored_flag(true),
    };
    let conclusion = libtest_mimic::run(&arguments, vec![trial]);
    drop(dir);
    conclusion.exit();
}

fn compile(dir: &Path) -> Option<PathBuf> {
    let (code, program) = (dir.join("places.c"), dir.join("places"));
    std::fs::write(&code, SOURCE).ok()?;
    let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(&code).status().ok()?;
    status.success().then_some(program)
}

fn every_place(program: &Path) -> Result<(), Failed> {
    let options = Options {
        text: false,
        timeout: Duration::from_secs(120),
        output: Output::Stderr,
        ..Options::new(vec![program.into()], Source::Random(64), Feed::Stdin)
    };
    let run = program::run(&options, &AtomicBool::new(false), &Nobody)?;
    let outcome = run.outcomes.first().ok_or("no run")?;
    let mut told: BTreeMap<u64, Vec<Class>> = BTreeMap::new();
    for finding in &outcome.findings {
        told.entry(finding.secret_length).or_default().push(finding.rule.class);
    }
    for (length, place, class) in PLACES {
        if told.get(&length) != Some(&vec![class]) {
            return Err(format!("{place}: {:?}, not {class:?}; {outcome:?}", told.get(&length)).into());
        }
    }
    Ok(())
}
