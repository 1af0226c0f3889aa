//! Programs that are run with two keys by turns: what depends on the key is found whatever it was made into, and what
//! changes by itself is not taken for it. Without a C compiler these tests are ignored, by name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Class, Difference, Verdict};
use harness::difference;
use harness::program::{self, Feed, Options, Output, Source};
use harness::progress::Nobody;
use libtest_mimic::{Arguments, Failed, Trial};

/// Reads its secret, runs the code in the middle with it, and wipes it.
fn source(middle: &str) -> String {
    format!(
        r#"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
static unsigned char *kept;
static uint64_t state;
static unsigned char next(void) {{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned char)(state >> 56);
}}
static void clock_in(void) {{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    state = (uint64_t)now.tv_nsec * 2862933555777941757u + 1;
    next(), next();
}}
int main(void) {{
    unsigned char line[64] = {{0}};
    ssize_t got = read(0, line, sizeof line);
    {middle}
    __asm__ volatile("" :: "r"(kept) : "memory");
    explicit_bzero(line, sizeof line);
    return got > 0 ? 0 : 1;
}}
"#
    )
}

/// Keeps what a mix of its own makes of each byte and a pad: no rule names it.
const MASKED: &str =
    "kept = malloc(64); for (int i = 0; i < 32; i++) kept[i] = (unsigned char)(line[i] * 167 + next());";

/// Keeps the sum of all bytes alone, in one.
const SUM: &str =
    "kept = malloc(64); for (int i = 0; i < 32; i++) kept[7] = (unsigned char)(kept[7] + line[i] * (i + 1));";

/// Keeps bytes that a clock decides.
const CLOCK: &str = "clock_in(); kept = malloc(4096); for (int i = 0; i < 4096; i++) kept[i] = next();";

/// Keeps many bits, each in a byte of its own, that a clock decides: some are alike in all runs by chance.
const COINS: &str = "clock_in(); kept = malloc(65536); for (int i = 0; i < 4096; i++) kept[i * 16] = next() & 1;";

/// Keeps something that is always the same at an address that a clock decides.
const ELSEWHERE: &str = "clock_in(); next(); \
     kept = mmap((void *)(0x10000000000u + (state >> 52) * 4096), 4096, PROT_READ | PROT_WRITE, \
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); \
     memset(kept, 7, 4096);";

/// Writes to a page that the key decides, and nothing of the key.
const CHOICE: &str = "kept = mmap(0, 256 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); \
     for (int i = 0; i < 8; i++) kept[line[i] * 4096] = 1;";

/// Leaves a mix of its own in a vector register.
const REGISTER: &str = r#"unsigned char mix[16];
    for (int i = 0; i < 16; i++) mix[i] = (unsigned char)(line[i] * 167 + next());
    __asm__ volatile("movdqu %0, %%xmm9" :: "m"(mix) : "xmm9");
    explicit_bzero(mix, sizeof mix); explicit_bzero(line, sizeof line);
    __asm__ volatile("mov $231, %%eax\n xor %%edi, %%edi\n syscall" ::: "rax", "rdi", "rcx", "r11");"#;

/// Leaves a mix of its own in a pipe, for nobody.
const PIPE: &str = "int ends[2]; if (pipe(ends)) return 1; unsigned char mix[32]; \
     for (int i = 0; i < 32; i++) mix[i] = (unsigned char)(line[i] * 167 + next()); \
     if (write(ends[1], mix, 32) != 32) return 1; explicit_bzero(mix, sizeof mix);";

fn main() {
    let arguments = Arguments::from_args();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let victim = |name: &str, middle: &str| compile(dir.path(), name, &source(middle));
    let trials = vec![
        trial("what_no_rule_names_is_found_by_two_keys_and_not_by_a_search", victim("masked", MASKED), |program| {
            let difference = diff(program)?;
            check(difference.verdict == Verdict::Leak && difference.found == 0, &difference)?;
            let heap = difference.keyed.iter().find(|stretch| stretch.class == Class::Heap);
            // A byte of the two keys may be the same, and so then is what was made of it.
            check(heap.is_some_and(|stretch| (24..=32).contains(&stretch.differing)), &difference)?;
            check(difference.unexplained_bytes() >= 24, &difference)?;
            let run = program::run(&options(program)?, &AtomicBool::new(false), &Nobody)?;
            if run.verdict == Verdict::Clean { Ok(()) } else { Err(format!("{run:?}").into()) }
        }),
        trial("a_single_byte_that_depends_on_the_key_is_found", victim("sum", SUM), |program| {
            // Two sums are the same by chance once in 256.
            let found = (0..3).map(|_| diff(program)).collect::<Result<Vec<_>, _>>()?;
            let one = |difference: &Difference| {
                difference.verdict == Verdict::Leak
                    && difference.keyed.iter().any(|stretch| (stretch.class, stretch.differing) == (Class::Heap, 1))
            };
            if found.iter().any(one) { Ok(()) } else { Err(format!("{found:?}").into()) }
        }),
        trial("a_program_that_keeps_nothing_is_clean", victim("nothing", ""), |program| {
            let difference = diff(program)?;
            check(difference.verdict == Verdict::Clean && difference.compared > 4096, &difference)
        }),
        trial("what_a_clock_decides_is_not_taken_for_the_key", victim("clock", CLOCK), |program| {
            let difference = diff(program)?;
            check(difference.verdict == Verdict::Inconclusive && difference.restless >= 4000, &difference)?;
            let told = difference.unknown.iter().any(|stretch| stretch.class == Class::Heap);
            check(told && says(&difference, "change from run to run"), &difference)
        }),
        trial("what_is_alike_by_chance_raises_the_noise", victim("coins", COINS), |program| {
            let difference = diff(program)?;
            check(difference.noise_bytes() > 0 && difference.verdict != Verdict::Leak, &difference)
        }),
        trial("memory_that_is_elsewhere_in_each_run_is_inconclusive", victim("elsewhere", ELSEWHERE), |program| {
            let difference = diff(program)?;
            check(difference.verdict == Verdict::Inconclusive && difference.unpaired >= 4096, &difference)?;
            check(says(&difference, "were not compared"), &difference)
        }),
        trial(
            "a_page_that_the_key_chose_is_found_though_no_byte_of_it_tells_the_key",
            victim("choice", CHOICE),
            |program| {
                let difference = diff(program)?;
                let chosen = difference.keyed.iter().filter(|stretch| stretch.class == Class::Anonymous).count();
                check(difference.verdict == Verdict::Leak && chosen >= 4, &difference)
            },
        ),
        trial("what_stays_in_a_register_is_found_by_name", victim("register", REGISTER), |program| {
            let difference = diff(program)?;
            let register = difference.keyed.iter().find(|stretch| stretch.class == Class::Register);
            let named = register.is_some_and(|stretch| stretch.place.contains("mm9 of thread 1"));
            check(difference.verdict == Verdict::Leak && named, &difference)
        }),
        trial("what_waits_in_a_pipe_is_found", victim("pipe", PIPE), |program| {
            let difference = diff(program)?;
            let pipe = difference.keyed.iter().find(|stretch| stretch.class == Class::Pipe);
            check(pipe.is_some_and(|stretch| stretch.differing >= 24 && stretch.place.starts_with("fd ")), &difference)
        }),
        trial("a_program_that_never_gets_its_key_is_inconclusive", Some("/bin/true".into()), |program| {
            let difference = diff(program)?;
            check(difference.verdict == Verdict::Inconclusive && says(&difference, "silent control"), &difference)
        }),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(dir);
    conclusion.exit();
}

fn compile(dir: &Path, name: &str, source: &str) -> Option<PathBuf> {
    let (code, program) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&code, source).ok()?;
    let status = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(&code).status().ok()?;
    status.success().then_some(program)
}

fn trial(
    name: &str,
    program: Option<PathBuf>,
    test: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    match program {
        Some(program) => Trial::test(name, move || test(&program)),
        None => Trial::test(format!("{name} (ignored: no C compiler)"), || Ok(())).with_ignored_flag(true),
    }
}

fn diff(program: &Path) -> Result<Difference, Failed> {
    Ok(difference::run(&options(program)?, None, 3, &AtomicBool::new(false))?)
}

fn options(program: &Path) -> Result<Options, Failed> {
    let plain = Options::new(vec![program.into()], Source::Random(32), Feed::Stdin);
    Ok(Options { text: false, timeout: Duration::from_secs(120), output: Output::Stderr, ..plain })
}

fn says(difference: &Difference, text: &str) -> bool {
    difference.reasons.iter().any(|reason| reason.contains(text))
}

fn check(holds: bool, difference: &Difference) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{difference:?}").into()) }
}
