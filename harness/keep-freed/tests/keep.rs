//! A secret that later allocations would overwrite is still there when freed memory is kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use findings::{Class, Outcome, Verdict};
use harness::program::{self, Feed, Options, Source};
use harness::progress::Nobody;

/// Reads a line by read(2) into a block, frees that, and fills the next block of that size with something else.
const PROGRAM: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char *line = malloc(200);
    for (size_t length = 0; length < 200; length++)
        if (read(0, line + length, 1) != 1 || line[length] == '\n')
            break;
    free(line);
    char *next = malloc(200);
    memset(next, 'x', 200);
    char *volatile kept = realloc(next, 400);
    return kept[0] != 'x';
}
"#;

/// The library that this crate is.
fn library() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.set_file_name("libresidue_keep_freed.so");
    path
}

/// Compiles the program; `None`, and a word on standard error, where there is no compiler for it.
fn compile(dir: &Path, flags: &[&str]) -> Option<PathBuf> {
    let (source, program) = (dir.join("program.c"), dir.join("program"));
    std::fs::write(&source, PROGRAM).unwrap();
    let done = Command::new("cc").args(["-O1", "-fno-builtin", "-o"]).args([&program, &source]).args(flags).output();
    if done.is_ok_and(|done| done.status.success()) {
        return Some(program);
    }
    eprintln!("skipped: no C compiler for {flags:?}");
    None
}

fn options(program: &Path, keep_freed: Option<PathBuf>) -> Options {
    Options { keep_freed, ..Options::new(vec![OsString::from(program)], Source::Random(32), Feed::Stdin) }
}

fn run(program: &Path, keep_freed: Option<PathBuf>) -> Outcome {
    let options = options(program, keep_freed);
    program::run(&options, &AtomicBool::new(false), &Nobody).unwrap().outcomes.remove(0)
}

#[test]
fn a_freed_secret_that_is_overwritten_is_found_when_freed_memory_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = compile(dir.path(), &[]) else { return };

    let (without, with) = (run(&program, None), run(&program, Some(library())));

    assert_eq!(without.verdict, Verdict::Clean, "{without:?}");
    assert_eq!(with.verdict, Verdict::Leak, "{with:?}");
    assert!(with.findings.iter().any(|finding| finding.rule.class == Class::Heap && finding.whole), "{with:?}");
    let kept = with.observations.last().unwrap().kept_freed.unwrap();
    assert!(kept.blocks >= 2 && kept.bytes >= 400 && kept.released == 0, "{kept:?}");
    assert!(without.observations.iter().all(|look| look.kept_freed.is_none()));
}

#[test]
fn a_program_that_does_not_load_the_library_is_inconclusive() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = compile(dir.path(), &["-static"]) else { return };

    let outcome = run(&program, Some(library()));

    assert_eq!(outcome.verdict, Verdict::Inconclusive, "{outcome:?}");
    assert!(outcome.reasons.iter().any(|reason| reason.contains("freed memory was not kept")), "{outcome:?}");
}

#[test]
fn another_file_in_the_place_of_the_library_is_an_error() {
    assert!(library().exists());
    for path in ["/bin/sh", "/nowhere/library.so"] {
        let ran = program::run(&options(Path::new("true"), Some(path.into())), &AtomicBool::new(false), &Nobody);

        assert!(ran.is_err(), "{path}");
    }
}
