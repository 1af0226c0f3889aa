//! Writers in C programs: the kernel, the C library, a thread, a child, a signal's frame, repeated instructions; with
//! debug information, without, and stripped.
//!
//! One program with many rows, compiled here. Without a C compiler every test is listed as ignored, with the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use findings::{Finding, Form, Machine, Writer};
use harness::audit::{self, Attribution, Options};
use harness::canary::Seed;
use harness::machine;
use libtest_mimic::{Arguments, Failed, Trial};

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

static char *volatile kept;
static char key[64];

static void announce(char code) {
  char frame[2] = {(char)0xc5, code}, answer[16];
  if (write(3, frame, 2) != 2 || read(3, answer, sizeof answer) <= 0) _exit(3);
}
__attribute__((noinline)) static void take_in(void) {
  if (read(4, key, 48) != 48) _exit(4); /* read the key */
  announce(0);
}
__attribute__((noinline)) static void forget(void) { memset(key, 0, sizeof key); __asm__ volatile("" ::: "memory"); }

__attribute__((noinline)) static void copy(char *to) { memcpy(to, key, *(volatile int[]){48}); } /* copy the key */
__attribute__((noinline)) static void repeat(char *to) {
  const char *from = key; long n = 48;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) :: "memory"); /* repeat the key */
}
__attribute__((noinline)) static void *threaded(void *to) { for (int i = 0; i < 48; i++) ((volatile char *)to)[i] = key[i]; return 0; } /* thread the key */
__attribute__((noinline)) static void draw(void) {
  static char field[1 << 20] __attribute__((aligned(4096)));
  unsigned drawn;
  if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn) _exit(5);
  char *to = field + drawn % (sizeof field - 64);
  for (int i = 0; i < 48; i++) ((volatile char *)to)[i] = key[i]; /* put the key */
}
static void handler(int signal) { (void)signal; }
__attribute__((noinline)) static void interrupted(void) {
  __asm__ volatile("movdqu (%0), %%xmm7; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; syscall; pxor %%xmm7, %%xmm7"
                   :: "r"(key) : "rax", "rcx", "r11", "rdi", "rsi", "xmm7", "memory"); /* interrupt */
}
__attribute__((noinline)) static void vector(void) { __asm__ volatile("movdqu (%0), %%xmm5" :: "r"(key) : "xmm5"); } /* load the key */
__attribute__((noinline)) static void general(void) {
  static char frame[2] = {(char)0xc5, 1}, answer[16];
  __asm__ volatile("mov (%0), %%r15\n" /* one word */
    "mov $1, %%eax; mov $3, %%edi; mov %1, %%rsi; mov $2, %%edx\n"
    "syscall\n"
    "xor %%eax, %%eax; mov $3, %%edi; mov %2, %%rsi; mov $16, %%edx; syscall; xor %%r15, %%r15"
    :: "r"(key), "r"(frame), "r"(answer) : "rax", "rcx", "r11", "rdi", "rsi", "rdx", "r15", "memory");
}

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "list")) {
    const char *names[] = {"read", "memcpy", "strdup", "repeat", "thread", "fork", "child", "signal", "vector", "general", "drawn"};
    const int rows = sizeof names / sizeof *names;
    for (int i = 0; i < rows; i++)
      printf("%s{\"name\":\"c/%s\",\"holder\":\"c\",\"ending\":\"%s\",\"canary\":\"text\",\"canary_len\":48,"
             "\"expect\":\"leak@wiped\",\"ends\":{\"exit\":0},\"checkpoints\":[\"planted\",\"wiped\"],"
             "\"sole_home\":false,\"needs\":[],\"turned_by\":[],\"shows\":[]}%s", i ? "," : "[", names[i], names[i], i == rows - 1 ? "]" : "");
    return 0;
  }
  const char *row = argv[2] + 2;
  char *to = kept = calloc(1, 4096);
  take_in();
  if (!strcmp(row, "read")) { announce(1); return 0; }
  if (!strcmp(row, "memcpy")) copy(to);
  if (!strcmp(row, "strdup")) kept = strdup(key); /* duplicate the key */
  if (!strcmp(row, "repeat")) repeat(to);
  if (!strcmp(row, "thread")) { pthread_t t; pthread_create(&t, 0, threaded, to); pthread_join(t, 0); }
  if (!strcmp(row, "fork") || !strcmp(row, "child")) {
    int in_child = row[0] == 'c';
    if (!in_child) copy(to);
    pid_t pid = fork();
    if (pid == 0) { if (in_child) copy(to); forget(); announce(1); _exit(0); }
    forget(); waitpid(pid, 0, 0); return 0;
  }
  if (!strcmp(row, "signal")) { struct sigaction act = {.sa_handler = handler}; sigaction(10, &act, 0); interrupted(); }
  if (!strcmp(row, "general")) { general(); return 0; }
  if (!strcmp(row, "vector")) vector();
  if (!strcmp(row, "drawn")) draw();
  forget();
  announce(1);
  return 0;
}
"#;

/// How the program is built, and what that leaves of its names.
#[derive(Clone, Copy, PartialEq)]
enum Build {
    Debug,
    NoDebug,
    Stripped,
    Static,
}

fn build(dir: &Path, build: Build) -> PathBuf {
    let source = dir.join("victim.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let (name, flags): (&str, &[&str]) = match build {
        Build::Debug => ("victim", &["-g"]),
        Build::NoDebug => ("plain", &[]),
        Build::Stripped => ("stripped", &["-s"]),
        Build::Static => ("static", &["-g", "-static"]),
    };
    let program = dir.join(name);
    let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).args(flags).arg(&source).status();
    assert!(status.unwrap().success());
    program
}

fn found(scenario: &str, how: Build, machine: &Machine) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { attribution: Attribution::All, ..Options::new(build(dir.path(), how), Seed::random().unwrap()) };
    let rows = audit::catalogue(&options.subject).unwrap();
    let row = rows.iter().find(|row| row.name == scenario).unwrap();
    let outcome = audit::row(row, machine, &options, &AtomicBool::new(false));
    let found: Vec<_> = outcome.findings.into_iter().filter(|finding| finding.checkpoint == "wiped").collect();
    assert!(!found.is_empty(), "{:?}", outcome.reasons);
    found
}

/// The line of the program that has that text.
fn line(text: &str) -> Option<u32> {
    let at = PROGRAM.lines().position(|line| line.contains(text))?;
    u32::try_from(at + 1).ok()
}

/// The findings in one register.
fn registers(found: Vec<Finding>, name: &str) -> Result<Vec<Finding>, Failed> {
    let there: Vec<_> = found.iter().filter(|finding| finding.place == name).cloned().collect();
    if there.is_empty() { Err(Failed::from(format!("no {name} in {found:#?}"))) } else { Ok(there) }
}

/// One of the findings was written like this, by a function of that name at that line, in its own or a caller's frame.
fn expect(found: &[Finding], how: &str, function: &str, at: Option<u32>) -> Result<(), Failed> {
    let fits = |writer: &Writer| {
        writer.how.starts_with(how)
            && writer.frames.iter().any(|frame| frame.function.contains(function) && frame.line == at)
    };
    if found.iter().filter_map(|finding| finding.writer.as_ref()).any(fits) {
        return Ok(());
    }
    Err(Failed::from(format!("no {how:?} by {function} at line {at:?} in {found:#?}")))
}

fn main() {
    let compiler = Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let missing = if compiler.is_ok_and(|status| status.success()) { "" } else { "no C compiler" };
    let machine = Arc::new(machine::probe());
    let trial = |name: &str, test: fn(&Machine) -> Result<(), Failed>| {
        let machine = Arc::clone(&machine);
        Trial::test(name, move || test(&machine)).with_kind(missing).with_ignored_flag(!missing.is_empty())
    };
    let tests = vec![
        trial("a_key_that_was_read_into_place_was_written_by_the_read", |machine| {
            expect(&found("c/read", Build::Debug, machine), "system call read(4, …)", "take_in", line("read the key"))
        }),
        trial("a_copy_by_the_c_library_is_charged_to_its_caller", |machine| {
            let found = found("c/memcpy", Build::Debug, machine);
            expect(&found, "instruction", "copy", line("copy the key"))?;
            // What lies beside a piece can lengthen it by chance in another form, and was written by whoever wrote it.
            let charged = found
                .iter()
                .filter(|finding| finding.rule.form == Form::Raw)
                .filter_map(|finding| finding.writer.as_ref())
                .all(|writer| writer.charged().is_some_and(|at| writer.frames[at].function == "copy"));
            if charged { Ok(()) } else { Err(Failed::from(format!("{found:#?}"))) }
        }),
        trial("a_duplicate_is_charged_to_the_line_that_asked_for_it", |machine| {
            expect(&found("c/strdup", Build::Debug, machine), "instruction", "main", line("duplicate the key"))
        }),
        trial("a_repeated_instruction_is_named_by_its_own_line", |machine| {
            expect(&found("c/repeat", Build::Debug, machine), "instruction", "repeat", line("repeat the key"))
        }),
        trial("a_thread_is_watched_from_its_first_instruction", |machine| {
            expect(&found("c/thread", Build::Debug, machine), "instruction", "threaded", line("thread the key"))
        }),
        trial("a_child_inherits_who_wrote_its_parents_memory", |machine| {
            let found = found("c/fork", Build::Debug, machine);
            let child: Vec<_> = found.into_iter().filter(|finding| finding.process == 2).collect();
            expect(&child, "instruction", "copy", line("copy the key"))
        }),
        trial("a_child_is_watched_on_its_own", |machine| {
            let found = found("c/child", Build::Debug, machine);
            let child: Vec<_> = found.into_iter().filter(|finding| finding.process == 2).collect();
            expect(&child, "instruction", "copy", line("copy the key"))
        }),
        trial("a_signal_frame_holds_the_registers_of_the_interrupted_function", |machine| {
            expect(
                &found("c/signal", Build::Debug, machine),
                "frame of signal 10",
                "interrupted",
                line("interrupt */").map(|at| at - 1),
            )
        }),
        trial("a_vector_register_is_charged_to_the_line_that_loaded_it", |machine| {
            let found = found("c/vector", Build::Debug, machine);
            expect(&registers(found, "xmm5")?, "instruction", "vector", line("load the key"))
        }),
        trial("a_general_register_is_charged_to_the_line_that_loaded_it", |machine| {
            let found = found("c/general", Build::Debug, machine);
            expect(&registers(found, "r15")?, "instruction", "general", line("one word"))
        }),
        trial("a_residue_whose_place_a_random_number_decides_has_a_writer", |machine| {
            expect(&found("c/drawn", Build::Debug, machine), "instruction", "draw", line("put the key"))
        }),
        trial("without_debug_information_functions_have_names_and_no_lines", |machine| {
            expect(&found("c/memcpy", Build::NoDebug, machine), "instruction", "copy", None)
        }),
        trial("a_stripped_program_gives_module_and_offset", |machine| {
            expect(&found("c/memcpy", Build::Stripped, machine), "instruction", "stripped+0x", None)
        }),
        trial("a_static_program_is_walked_through_its_own_c_library", |machine| {
            expect(&found("c/memcpy", Build::Static, machine), "instruction", "copy", line("copy the key"))
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}
