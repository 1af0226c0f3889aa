//! The catalogue: holder × ending × what must be seen.
//!
//! One table. What a row needs besides (checkpoints, status, canary) its holder and its ending know. Expectations
//! are written as [`scenario_protocol::Expectation`] prints them.

use scenario_protocol::{Checkpoint, Claim, Expectation, Need, ParseExpectationError, Row, Shape};

use crate::ending::{
    ABORT, DAMAGE, DAMAGE_BETWEEN, EXEC, EXIT, Ending, FORK, OVERRUN, PANIC_ABORT, PANIC_DROP, PANIC_THREAD,
    PANIC_UNWIND, RETURN, SIGABRT, SIGALRM, SIGBUS, SIGBUS_PLANNED, SIGFPE, SIGFPE_PLANNED, SIGHUP, SIGILL,
    SIGILL_PLANNED, SIGINT, SIGIO, SIGKILL, SIGPIPE, SIGPROF, SIGPWR, SIGQUIT, SIGRTMIN, SIGSEGV, SIGSEGV_PLANNED,
    SIGSTKFLT, SIGSYS, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ, SPAWN, STACK_OVERFLOW, TIMEOUT,
    UNDERSCORE_EXIT, WIPE,
};
use crate::futures::{FUTURE_PANICKED, FUTURE_RUNNING, FUTURE_WAITING};
use crate::holder::{
    ARGV, ENVIRON, GROWN_VEC, Holder, MEMSEC, MOVED_ARRAY, MOVED_BOX, SECMEM_MEMFD, SECMEM_MLOCK, STACK_ARRAY,
    STRING_FORMAT, VEC, ZEROIZE_GROWN_VEC, ZEROIZE_VEC,
};
use crate::kept::{COFFER, FROM_VEC, GROWN_TEXT, IDLE, SEALED, SPENT, TYPED};
use crate::managed::{
    MANAGED, MANAGED_COMPARE, MANAGED_COMPRESSED, MANAGED_COPIED, MANAGED_EVICTED, MANAGED_EXECUTE, MANAGED_FORCED,
    MANAGED_HASH, MANAGED_IDLE, MANAGED_INPUT, MANAGED_PANICKED, MANAGED_PROCESSED, MANAGED_REST, MANAGED_SHUTDOWN,
    MANAGED_TEMPLATE,
};
use crate::proved::{COMPARED, HARDENED, PRINTED, REFUSED, VERIFIED};
use crate::scrubbed::{
    BARE_FREE, BARE_REALLOC, BARE_SIGNAL, BARE_STACK, BARE_UNWIND, BARE_VECTORS, ELSEWHERE, SCRUB_NESTED, SCRUB_SIGNAL,
    SCRUB_SIGNAL_HERE, SCRUB_STACK, SCRUB_THREAD, SCRUB_UNWIND, SCRUB_VECTORS, WIPING_FREE, WIPING_REALLOC,
};
use crate::stored::{
    JOURNAL_KEY, PQC_BASE, PQC_DECRYPTED, PQC_RATCHETED, RECORD_DECRYPTED, RECORD_ENCRYPTED, RECORD_KEY,
    RECORD_KEY_EXPORTED, RECORD_KEY_RETIRED, RECORD_KEY_REVOKED, RECORD_KEY_SHUTDOWN,
};
use crate::taken::{
    BARE_BASE64, BARE_HEX, BARE_VARIABLE, DECODED_BASE64, DECODED_HEX, DESCRIPTOR, FILE, LINE, TAKEN_VARIABLE, TERMINAL,
};
use crate::vaulted::{
    VAULT, VAULT_COPIED, VAULT_CUT, VAULT_LATE, VAULT_MEMFD, VAULT_SIGNALLED, VAULT_STOPPED, VAULT_UNLOCKED,
    VAULT_USED, VAULT_WORKER,
};

/// One line of the table.
pub(crate) struct Line {
    /// Who holds the secret.
    pub(crate) holder: &'static Holder,
    /// How the process ends.
    pub(crate) ending: &'static Ending,
    expect: &'static str,
}

const fn line(holder: &'static Holder, ending: &'static Ending, expect: &'static str) -> Line {
    Line { holder, ending, expect }
}

#[rustfmt::skip] // one line a row, in columns
static TABLE: &[Line] = &[
    // Ours. At _exit and SIGKILL nothing of ours can run, and at a fault nothing does: there memfd_secret memory is still out of reach ...
    line(&SECMEM_MEMFD, &WIPE,            "clean"),
    line(&SECMEM_MEMFD, &TIMEOUT,         "clean"),
    line(&SECMEM_MEMFD, &PANIC_UNWIND,    "clean"),
    line(&SECMEM_MEMFD, &PANIC_THREAD,    "clean"),
    line(&SECMEM_MEMFD, &PANIC_ABORT,     "clean"),
    line(&SECMEM_MEMFD, &RETURN,          "clean"),
    line(&SECMEM_MEMFD, &EXIT,            "clean"),
    line(&SECMEM_MEMFD, &UNDERSCORE_EXIT, "clean (shielded)"),
    line(&SECMEM_MEMFD, &ABORT,           "clean"),
    line(&SECMEM_MEMFD, &SIGINT,          "clean"),
    line(&SECMEM_MEMFD, &SIGTERM,         "clean"),
    line(&SECMEM_MEMFD, &SIGHUP,          "clean"),
    line(&SECMEM_MEMFD, &SIGQUIT,         "clean"),
    line(&SECMEM_MEMFD, &SIGABRT,         "clean"),
    line(&SECMEM_MEMFD, &SIGKILL,         "clean (shielded)"),
    // The library does not purge at a fault of the program's own.
    line(&SECMEM_MEMFD, &SIGSEGV,         "clean (shielded)"),
    line(&SECMEM_MEMFD, &SIGBUS,          "clean (shielded)"),
    line(&SECMEM_MEMFD, &SIGFPE,          "clean (shielded)"),
    line(&SECMEM_MEMFD, &SIGILL,          "clean (shielded)"),
    line(&SECMEM_MEMFD, &FORK,            "clean"),
    line(&SECMEM_MEMFD, &EXEC,            "clean"),
    line(&SECMEM_MEMFD, &OVERRUN,         "clean"),
    line(&SECMEM_MEMFD, &DAMAGE,          "clean"),
    line(&SECMEM_MEMFD, &DAMAGE_BETWEEN,  "clean"),
    line(&SECMEM_MEMFD, &SPAWN,           "clean"),
    line(&SECMEM_MEMFD, &PANIC_DROP,      "clean"),
    line(&SECMEM_MEMFD, &STACK_OVERFLOW,  "clean"),
    line(&SECMEM_MEMFD, &SIGALRM,         "clean"),
    line(&SECMEM_MEMFD, &SIGUSR1,         "clean"),
    line(&SECMEM_MEMFD, &SIGUSR2,         "clean"),
    line(&SECMEM_MEMFD, &SIGPIPE,         "clean"),
    line(&SECMEM_MEMFD, &SIGVTALRM,       "clean"),
    line(&SECMEM_MEMFD, &SIGPROF,         "clean"),
    line(&SECMEM_MEMFD, &SIGIO,           "clean"),
    line(&SECMEM_MEMFD, &SIGPWR,          "clean"),
    line(&SECMEM_MEMFD, &SIGSTKFLT,       "clean"),
    line(&SECMEM_MEMFD, &SIGRTMIN,        "clean"),
    line(&SECMEM_MEMFD, &SIGXCPU,         "clean"),
    line(&SECMEM_MEMFD, &SIGXFSZ,         "clean"),
    line(&SECMEM_MEMFD, &SIGSYS,          "clean"),
    line(&SECMEM_MEMFD, &SIGSEGV_PLANNED, "clean"),
    line(&SECMEM_MEMFD, &SIGBUS_PLANNED,  "clean"),
    line(&SECMEM_MEMFD, &SIGFPE_PLANNED,  "clean"),
    line(&SECMEM_MEMFD, &SIGILL_PLANNED,  "clean"),
    line(&SECMEM_MLOCK, &WIPE,            "clean"),
    line(&SECMEM_MLOCK, &TIMEOUT,         "clean"),
    line(&SECMEM_MLOCK, &PANIC_UNWIND,    "clean"),
    line(&SECMEM_MLOCK, &PANIC_THREAD,    "clean"),
    line(&SECMEM_MLOCK, &PANIC_ABORT,     "clean"),
    line(&SECMEM_MLOCK, &RETURN,          "clean"),
    line(&SECMEM_MLOCK, &EXIT,            "clean"),
    // ... and locked memory is not. A limit of this backend that no library can lift, kept in sight as a control.
    line(&SECMEM_MLOCK, &UNDERSCORE_EXIT, "leak@exit"),
    line(&SECMEM_MLOCK, &ABORT,           "clean"),
    line(&SECMEM_MLOCK, &SIGINT,          "clean"),
    line(&SECMEM_MLOCK, &SIGTERM,         "clean"),
    line(&SECMEM_MLOCK, &SIGHUP,          "clean"),
    line(&SECMEM_MLOCK, &SIGQUIT,         "clean"),
    line(&SECMEM_MLOCK, &SIGABRT,         "clean"),
    line(&SECMEM_MLOCK, &SIGKILL,         "leak@exit"), // the same limit
    line(&SECMEM_MLOCK, &SIGSEGV,         "leak@exit"), // the same, in the process's memory alone: its core leaves it out
    line(&SECMEM_MLOCK, &SIGBUS,          "leak@exit"),
    line(&SECMEM_MLOCK, &SIGFPE,          "leak@exit"),
    line(&SECMEM_MLOCK, &SIGILL,          "leak@exit"),
    line(&SECMEM_MLOCK, &FORK,            "clean"),
    line(&SECMEM_MLOCK, &EXEC,            "clean"),
    line(&SECMEM_MLOCK, &OVERRUN,         "clean"),
    line(&SECMEM_MLOCK, &DAMAGE,          "clean"),
    line(&SECMEM_MLOCK, &DAMAGE_BETWEEN,  "clean"),
    line(&SECMEM_MLOCK, &SPAWN,           "clean"),
    line(&SECMEM_MLOCK, &PANIC_DROP,      "clean"),
    line(&SECMEM_MLOCK, &STACK_OVERFLOW,  "clean"),
    line(&SECMEM_MLOCK, &SIGALRM,         "clean"),
    line(&SECMEM_MLOCK, &SIGUSR1,         "clean"),
    line(&SECMEM_MLOCK, &SIGUSR2,         "clean"),
    line(&SECMEM_MLOCK, &SIGPIPE,         "clean"),
    line(&SECMEM_MLOCK, &SIGVTALRM,       "clean"),
    line(&SECMEM_MLOCK, &SIGPROF,         "clean"),
    line(&SECMEM_MLOCK, &SIGIO,           "clean"),
    line(&SECMEM_MLOCK, &SIGPWR,          "clean"),
    line(&SECMEM_MLOCK, &SIGSTKFLT,       "clean"),
    line(&SECMEM_MLOCK, &SIGRTMIN,        "clean"),
    line(&SECMEM_MLOCK, &SIGXCPU,         "clean"),
    line(&SECMEM_MLOCK, &SIGXFSZ,         "clean"),
    line(&SECMEM_MLOCK, &SIGSYS,          "clean"),
    line(&SECMEM_MLOCK, &SIGSEGV_PLANNED, "clean"),
    line(&SECMEM_MLOCK, &SIGBUS_PLANNED,  "clean"),
    line(&SECMEM_MLOCK, &SIGFPE_PLANNED,  "clean"),
    line(&SECMEM_MLOCK, &SIGILL_PLANNED,  "clean"),

    line(&ELSEWHERE,    &WIPE,            "clean"),

    // The other types, and what limits their life.
    line(&SEALED,       &WIPE,            "clean"),
    line(&SEALED,       &RETURN,          "clean"),
    line(&SEALED,       &EXIT,            "clean"),
    line(&SEALED,       &SIGTERM,         "clean"),
    line(&SEALED,       &PANIC_ABORT,     "clean"),
    line(&SEALED,       &FORK,            "clean"),
    line(&GROWN_TEXT,   &WIPE,            "clean"),
    line(&FROM_VEC,     &WIPE,            "clean"),
    line(&TYPED,        &WIPE,            "clean"),
    line(&IDLE,         &TIMEOUT,         "clean"),
    line(&SPENT,        &WIPE,            "clean"),
    line(&COFFER,        &WIPE,            "clean"),

    // A password in a worker process, which is looked at as well.
    line(&VAULT,              &WIPE,         "clean"),
    line(&VAULT_CUT,          &PANIC_UNWIND, "clean"),
    line(&VAULT_CUT,          &RETURN,       "clean"),
    line(&VAULT_CUT,          &EXIT,         "clean"),
    line(&VAULT_CUT,          &SIGINT,       "clean"),
    line(&VAULT_CUT,          &SIGTERM,      "clean"),
    line(&VAULT_CUT,          &SIGHUP,       "clean"),
    line(&VAULT_CUT,          &SIGQUIT,      "clean"),
    line(&VAULT_CUT,          &SIGALRM,      "clean"),
    line(&VAULT_CUT,          &SIGUSR1,      "clean"),
    line(&VAULT_CUT,          &SIGUSR2,      "clean"),
    line(&VAULT_MEMFD,        &WIPE,         "clean"),
    line(&VAULT_WORKER,       &WIPE,         "clean"),
    line(&VAULT_USED,         &WIPE,         "clean"),
    line(&VAULT_LATE,         &TIMEOUT,      "clean"),
    line(&VAULT_STOPPED,      &WIPE,         "clean"),
    line(&VAULT_SIGNALLED,    &WIPE,         "clean"),

    // Buffers of a manager.
    line(&MANAGED,            &WIPE,         "clean"),
    line(&MANAGED_IDLE,       &TIMEOUT,      "clean"),
    line(&MANAGED_REST,       &WIPE,         "clean"),
    line(&MANAGED_REST,       &PANIC_UNWIND, "clean"),
    line(&MANAGED_REST,       &SIGTERM,      "clean"),
    line(&MANAGED_REST,       &EXIT,         "clean"),
    line(&MANAGED_REST,       &FORK,         "clean"),
    line(&MANAGED_FORCED,     &WIPE,         "clean"),
    line(&MANAGED_SHUTDOWN,   &WIPE,         "clean"),
    line(&MANAGED_EVICTED,    &WIPE,         "clean"),
    line(&MANAGED_INPUT,      &WIPE,         "clean"),
    line(&MANAGED_COPIED,     &WIPE,         "clean"),
    line(&MANAGED_HASH,       &WIPE,         "clean"),
    line(&MANAGED_COMPARE,    &WIPE,         "clean"),
    line(&MANAGED_EXECUTE,    &WIPE,         "clean"),
    line(&MANAGED_PANICKED,   &WIPE,         "clean"),
    line(&MANAGED_TEMPLATE,   &WIPE,         "clean"),
    line(&MANAGED_COMPRESSED, &WIPE,         "clean"),
    line(&MANAGED_PROCESSED,  &WIPE,         "clean"),
    line(&FUTURE_WAITING,     &WIPE,         "clean"),
    line(&FUTURE_RUNNING,     &WIPE,         "clean"),
    line(&FUTURE_PANICKED,    &WIPE,         "clean"),

    // Records and their keys, keys that are derived, the key of a journal.
    line(&RECORD_ENCRYPTED,    &WIPE,         "clean"),
    line(&RECORD_DECRYPTED,    &WIPE,         "clean"),
    line(&RECORD_KEY,          &WIPE,         "clean"),
    line(&RECORD_KEY,          &PANIC_UNWIND, "clean"),
    line(&RECORD_KEY,          &SIGTERM,      "clean"),
    line(&RECORD_KEY,          &EXIT,         "clean"),
    line(&RECORD_KEY,          &FORK,         "clean"),
    line(&RECORD_KEY_EXPORTED, &WIPE,         "clean"),
    line(&RECORD_KEY_RETIRED,  &TIMEOUT,      "clean"),
    line(&RECORD_KEY_REVOKED,  &WIPE,         "clean"),
    line(&RECORD_KEY_SHUTDOWN, &WIPE,         "clean"),
    line(&PQC_BASE,            &WIPE,         "clean"),
    line(&PQC_BASE,            &SIGTERM,      "clean"),
    line(&PQC_BASE,            &FORK,         "clean"),
    line(&PQC_RATCHETED,       &WIPE,         "clean"),
    line(&PQC_DECRYPTED,       &WIPE,         "clean"),
    line(&JOURNAL_KEY,         &WIPE,         "clean"),
    line(&JOURNAL_KEY,         &SIGTERM,      "clean"),

    // What the library says of itself.
    line(&REFUSED,      &WIPE,            "clean"),
    line(&REFUSED,      &SIGTERM,         "clean"),
    line(&VERIFIED,     &WIPE,            "clean"),
    line(&HARDENED,     &WIPE,            "clean"),
    line(&HARDENED,     &SIGTERM,         "clean"),
    line(&COMPARED,     &WIPE,            "clean"),
    line(&PRINTED,      &WIPE,            "clean"),

    // On the way in, and the common ways beside them.
    line(&DESCRIPTOR,     &WIPE,          "clean"),
    line(&FILE,           &WIPE,          "clean"),
    line(&LINE,           &WIPE,          "clean"),
    line(&TERMINAL,       &WIPE,          "clean"),
    line(&TAKEN_VARIABLE, &WIPE,          "clean"),
    line(&TAKEN_VARIABLE, &RETURN,        "clean"),
    line(&TAKEN_VARIABLE, &FORK,          "clean"),
    line(&BARE_VARIABLE,  &WIPE,          "leak@wiped"),
    line(&BARE_VARIABLE,  &FORK,          "leak@child"),
    line(&DECODED_HEX,    &WIPE,          "clean"),
    line(&BARE_HEX,       &WIPE,          "leak@wiped (fragments)"),
    line(&DECODED_BASE64, &WIPE,          "clean"),
    line(&BARE_BASE64,    &WIPE,          "leak@wiped (fragments)"),

    // What code leaves that uses a secret, and what is left of it within the scrub or under the allocator.
    line(&BARE_STACK,        &WIPE,       "leak@wiped"),
    line(&SCRUB_STACK,       &WIPE,       "clean"),
    line(&SCRUB_NESTED,      &WIPE,       "clean"),
    line(&SCRUB_THREAD,      &WIPE,       "clean"),
    line(&BARE_VECTORS,      &WIPE,       "leak@wiped"),
    line(&SCRUB_VECTORS,     &WIPE,       "clean"),
    line(&BARE_UNWIND,       &WIPE,       "leak@wiped"),
    line(&SCRUB_UNWIND,      &WIPE,       "clean"),
    line(&BARE_SIGNAL,       &WIPE,       "leak@wiped"),
    line(&SCRUB_SIGNAL,      &WIPE,       "clean"),
    line(&SCRUB_SIGNAL_HERE, &WIPE,       "clean"),
    line(&BARE_FREE,         &WIPE,       "leak@wiped"),
    line(&WIPING_FREE,       &WIPE,       "clean"),
    line(&BARE_REALLOC,      &WIPE,       "leak@wiped"),
    line(&WIPING_REALLOC,    &WIPE,       "clean"),

    // Peers that wipe on drop: clean where drop runs, whole where it does not.
    line(&ZEROIZE_VEC,  &WIPE,            "clean"),
    line(&ZEROIZE_VEC,  &TIMEOUT,         "leak@timeout"),
    line(&ZEROIZE_VEC,  &PANIC_UNWIND,    "clean"),
    line(&ZEROIZE_VEC,  &PANIC_THREAD,    "leak@unwound"), // another thread unwinds than the one that holds it
    line(&ZEROIZE_VEC,  &PANIC_ABORT,     "leak@signal"),
    line(&ZEROIZE_VEC,  &RETURN,          "clean"),
    line(&ZEROIZE_VEC,  &EXIT,            "leak@exit-call"),
    line(&ZEROIZE_VEC,  &UNDERSCORE_EXIT, "leak@exit"),
    line(&ZEROIZE_VEC,  &ABORT,           "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGINT,          "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGTERM,         "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGHUP,          "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGQUIT,         "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGABRT,         "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGKILL,         "leak@exit"),
    line(&ZEROIZE_VEC,  &SIGSEGV,         "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGBUS,          "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGFPE,          "leak@signal"),
    line(&ZEROIZE_VEC,  &SIGILL,          "leak@signal"),
    line(&ZEROIZE_VEC,  &FORK,            "leak@child"), // the parent's drop does not reach the child's copy
    line(&ZEROIZE_VEC,  &EXEC,            "leak@exec"),
    line(&MEMSEC,       &WIPE,            "clean"),
    line(&MEMSEC,       &TIMEOUT,         "leak@timeout"),
    line(&MEMSEC,       &PANIC_UNWIND,    "clean"),
    line(&MEMSEC,       &PANIC_THREAD,    "leak@unwound"),
    line(&MEMSEC,       &PANIC_ABORT,     "leak@signal"),
    line(&MEMSEC,       &RETURN,          "clean"),
    line(&MEMSEC,       &EXIT,            "leak@exit-call"),
    line(&MEMSEC,       &UNDERSCORE_EXIT, "leak@exit"),
    line(&MEMSEC,       &ABORT,           "leak@signal"),
    line(&MEMSEC,       &SIGINT,          "leak@signal"),
    line(&MEMSEC,       &SIGTERM,         "leak@signal"),
    line(&MEMSEC,       &SIGHUP,          "leak@signal"),
    line(&MEMSEC,       &SIGQUIT,         "leak@signal"),
    line(&MEMSEC,       &SIGABRT,         "leak@signal"),
    line(&MEMSEC,       &SIGKILL,         "leak@exit"),
    line(&MEMSEC,       &SIGSEGV,         "leak@signal"),
    line(&MEMSEC,       &SIGBUS,          "leak@signal"),
    line(&MEMSEC,       &SIGFPE,          "leak@signal"),
    line(&MEMSEC,       &SIGILL,          "leak@signal"),
    line(&MEMSEC,       &FORK,            "leak@child"),
    line(&MEMSEC,       &EXEC,            "leak@exec"),
    // Wiped on drop, but a buffer that growth left behind was freed as it was.
    line(&ZEROIZE_GROWN_VEC, &WIPE,         "leak@wiped (fragments)"),
    line(&ZEROIZE_GROWN_VEC, &PANIC_UNWIND, "leak@unwound (fragments)"),
    line(&ZEROIZE_GROWN_VEC, &RETURN,       "leak@exit (fragments)"),
    line(&ZEROIZE_GROWN_VEC, &EXIT,         "leak@exit-call"),

    // Ordinary heap: glibc's `free` puts its links over the first 16 bytes, the rest stays.
    // What no vault can help: a callback that keeps what it was lent.
    line(&VAULT_COPIED,   &WIPE,           "leak@wiped"),
    line(&VAULT_UNLOCKED, &WIPE,           "leak@wiped"),
    line(&VEC,           &WIPE,            "leak@wiped (fragments)"),
    line(&VEC,           &TIMEOUT,         "leak@timeout"),
    line(&VEC,           &PANIC_UNWIND,    "leak@unwound (fragments)"),
    line(&VEC,           &PANIC_THREAD,    "leak@unwound"),
    line(&VEC,           &PANIC_ABORT,     "leak@signal"),
    line(&VEC,           &RETURN,          "leak@exit (fragments)"),
    line(&VEC,           &EXIT,            "leak@exit"),
    line(&VEC,           &UNDERSCORE_EXIT, "leak@exit-call"),
    line(&VEC,           &ABORT,           "leak@signal"),
    line(&VEC,           &SIGINT,          "leak@signal"),
    line(&VEC,           &SIGTERM,         "leak@exit"),
    line(&VEC,           &SIGKILL,         "leak@exit"),
    line(&VEC,           &SIGSEGV,         "leak@signal"),
    line(&VEC,           &SIGBUS,          "leak@signal"),
    line(&VEC,           &SIGFPE,          "leak@signal"),
    line(&VEC,           &SIGILL,          "leak@signal"),
    line(&VEC,           &FORK,            "leak@child"),
    line(&VEC,           &EXEC,            "leak@exec"),
    line(&GROWN_VEC,     &WIPE,            "leak@wiped (fragments)"),
    line(&GROWN_VEC,     &PANIC_UNWIND,    "leak@unwound (fragments)"),
    line(&GROWN_VEC,     &RETURN,          "leak@exit (fragments)"),
    line(&GROWN_VEC,     &EXIT,            "leak@exit-call"),
    line(&GROWN_VEC,     &SIGQUIT,         "leak@signal"),
    line(&GROWN_VEC,     &FORK,            "leak@child"),
    line(&STRING_FORMAT, &WIPE,            "leak@wiped (fragments)"),
    line(&STRING_FORMAT, &PANIC_UNWIND,    "leak@unwound (fragments)"),
    line(&STRING_FORMAT, &RETURN,          "leak@exit (fragments)"),
    line(&STRING_FORMAT, &EXIT,            "leak@exit-call"),
    line(&STRING_FORMAT, &ABORT,           "leak@signal"),
    line(&STRING_FORMAT, &SIGTERM,         "leak@signal"),
    line(&STRING_FORMAT, &EXEC,            "leak@exec"),
    line(&MOVED_BOX,     &WIPE,            "leak@wiped (fragments)"),
    line(&MOVED_BOX,     &PANIC_UNWIND,    "leak@unwound (fragments)"),
    line(&MOVED_BOX,     &RETURN,          "leak@exit (fragments)"),
    line(&MOVED_BOX,     &EXIT,            "leak@exit-call"),
    line(&MOVED_BOX,     &SIGHUP,          "leak@signal"),
    line(&MOVED_BOX,     &FORK,            "leak@child"),

    // The stack: a frame that was left keeps what it held until something else is called.
    line(&STACK_ARRAY,   &WIPE,            "leak@wiped"),
    line(&STACK_ARRAY,   &TIMEOUT,         "leak@timeout"),
    line(&STACK_ARRAY,   &PANIC_UNWIND,    "leak@unwound"),
    line(&STACK_ARRAY,   &RETURN,          "leak@exit"),
    line(&STACK_ARRAY,   &EXIT,            "leak@exit-call"),
    line(&STACK_ARRAY,   &SIGQUIT,         "leak@signal"),
    line(&STACK_ARRAY,   &SIGKILL,         "leak@exit"),
    line(&STACK_ARRAY,   &FORK,            "leak@child"),
    line(&MOVED_ARRAY,   &WIPE,            "either (copies on the dead stack last until a call happens to reach them)"),

    // The block that execve lays out: nothing in the program wipes it, and the environment is inherited.
    line(&ARGV,          &WIPE,            "leak@wiped"),
    line(&ARGV,          &PANIC_UNWIND,    "leak@unwound"),
    line(&ARGV,          &RETURN,          "leak@exit"),
    line(&ARGV,          &SIGKILL,         "leak@exit"),
    line(&ARGV,          &FORK,            "leak@child"),
    line(&ARGV,          &EXEC,            "leak@exec"),
    line(&ENVIRON,       &WIPE,            "leak@wiped"),
    line(&ENVIRON,       &PANIC_UNWIND,    "leak@unwound"),
    line(&ENVIRON,       &RETURN,          "leak@exit"),
    line(&ENVIRON,       &SIGTERM,         "leak@signal"),
    line(&ENVIRON,       &FORK,            "leak@child"),
    line(&ENVIRON,       &EXEC,            "leak@exit"), // in the new image
];

/// The line of that name.
pub(crate) fn find(name: &str) -> Option<&'static Line> {
    let (holder, ending) = name.split_once('/')?;
    TABLE.iter().find(|line| line.holder.name == holder && line.ending.name == ending)
}

/// The whole catalogue, as `scenarios list` prints it.
///
/// # Errors
///
/// An expectation in the table that cannot be read back.
pub(crate) fn rows() -> Result<Vec<Row>, ParseExpectationError> {
    TABLE.iter().map(Line::row).collect()
}

impl Line {
    fn row(&self) -> Result<Row, ParseExpectationError> {
        let Self { holder, ending, .. } = self;
        let expect: Expectation = self.expect.parse()?;
        Ok(Row {
            name: format!("{}/{}", holder.name, ending.name),
            holder: holder.name.to_owned(),
            ending: ending.name.to_owned(),
            canary: holder.canary,
            canary_len: holder.canary_len,
            ends: ending.ends,
            checkpoints: ending.checkpoints.to_vec(),
            sole_home: holder.ours,
            derived: None,
            needs: holder.needs.to_vec(),
            turned_by: owned(&turned_by(holder, ending, &expect)),
            asks: holder.asks,
            shows: owned(&shows(holder, ending, &expect)),
            expect,
        })
    }
}

/// The ablated builds of the library under which a row must turn: those that take away what makes it as it is.
fn turned_by(holder: &Holder, ending: &Ending, expect: &Expectation) -> Vec<&'static str> {
    if !holder.ours {
        return holder.turned_by.to_vec(); // of a control that lets the library wipe one of its copies
    }
    // A descriptor that stays open is a way into such memory, whatever else is done about it. A new image has none of it.
    let shielded = holder.needs.contains(&Need::MemfdSecret) && ending.name != EXEC.name;
    let of_memfd: &[&str] = if shielded { &["descriptor-close"] } else { &[] };
    match expect {
        Expectation::Clean(Claim::Wiped) => {}
        Expectation::Clean(Claim::Shielded) => return of_memfd.to_vec(), // no wipe at all
        // A limit is one copy in the process's memory, and none in its core.
        Expectation::Leak { .. } if ending.checkpoints.contains(&Checkpoint::Core) => return vec!["dont-dump"],
        Expectation::Leak { .. } | Expectation::Either(_) => return Vec::new(),
    }
    // A child's copy of private pages is its own; shared ones the parent wipes for both.
    let copied = ending.name == FORK.name && holder.needs.contains(&Need::Mlock);
    let of_both: &[&str] = if copied { &["dont-fork"] } else { &[] };
    [&["wipe"], ending.turned_by, holder.turned_by, of_both, of_memfd].concat()
}

/// The requirements that a row speaks for.
fn shows(holder: &Holder, ending: &Ending, expect: &Expectation) -> Vec<&'static str> {
    match expect {
        Expectation::Clean(Claim::Wiped) if holder.ours => {
            // Mutations of the protections (S25) are shown where one is noticed beside the wipe's, which turns them all.
            let mutated = turned_by(holder, ending, expect).len() > 1;
            let proof: &[&str] = if mutated { &["S25"] } else { &[] };
            [ending.shows, holder.shows, proof].concat()
        }
        Expectation::Clean(_) if holder.ours => [ending.shows, holder.shows].concat(),
        // A corpus of known leaks and true negatives; pieces of 6 bytes; one place and moment after another.
        Expectation::Clean(_) | Expectation::Either(_) => vec!["H30"],
        Expectation::Leak { shape: Shape::Fragments, .. } => vec!["H6", "H15", "H30"],
        Expectation::Leak { shape: Shape::Whole, .. } => vec!["H15", "H30"],
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use scenario_protocol::Ends;

    use super::*;

    /// The ablated builds of the library that rows notice; tests of the library notice more (`xtask/src/facts.rs`).
    const ABLATIONS: [&str; 50] = [
        "wipe",
        "descriptor-close",
        "reseal",
        "purge-on-signal",
        "purge-on-panic",
        "purge-on-exit",
        "deadline",
        "guard-after",
        "canary-at-close",
        "canary-at-free",
        "damage-wipe",
        "stack-wipe",
        "vector-registers",
        "alternate-stack",
        "alternate-stack-wipe",
        "wipe-on-free",
        "wipe-on-realloc",
        "consumed-wipe",
        "manager-free",
        "manager-forced",
        "manager-shutdown",
        "manager-input",
        "manager-hash",
        "manager-compare",
        "manager-template",
        "manager-evict",
        "future-drop",
        "record-content",
        "record-shutdown",
        "records-retire",
        "records-revoke",
        "manager-sweep",
        "pqc-ratchet",
        "vault-lent",
        "vault-deadline",
        "vault-cipher",
        "vault-worker-wipe",
        "vault-stored",
        "vault-signals",
        "environment-wipe",
        "dont-dump",
        "dont-fork",
        "eq-clear",
        "guard-before",
        "harden-dumpable",
        "harden-limit",
        "lock",
        "uses",
        "coffer-encryption",
        "wipe-on-fork",
    ];

    fn all() -> Vec<Row> {
        rows().unwrap()
    }

    #[test]
    fn the_report_that_the_front_page_shows_has_as_many_rows() {
        let page = include_str!("../../README.md");
        let rows = page.lines().find_map(|line| line.strip_prefix("  rows ")).unwrap();

        let count = TABLE.len().to_string();
        assert_eq!(rows.split_whitespace().take(3).collect::<Vec<_>>(), [&count, "of", &count]);
    }

    fn is_fragments(row: &Row) -> bool {
        matches!(row.expect, Expectation::Leak { shape: Shape::Fragments, .. })
    }

    #[test]
    fn every_name_is_unique_and_finds_its_row() {
        let names: BTreeSet<String> = all().into_iter().map(|row| row.name).collect();

        assert_eq!(names.len(), TABLE.len());
        for name in &names {
            let line = find(name).unwrap();
            assert_eq!(&format!("{}/{}", line.holder.name, line.ending.name), name);
        }
    }

    #[test]
    fn a_name_that_is_no_row_is_not_found() {
        for name in ["", "vec", "/", "vec/", "vec/nowhere", "nobody/wipe", "vec/overrun", "vec/wipe/"] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_catalogue_holds_enough_rows_and_controls() {
        let rows = all();

        assert!(rows.len() >= 150);
        assert!(rows.iter().filter(|row| row.expect.is_leaky_control()).count() >= 20);
        assert!(rows.iter().filter(|row| is_fragments(row)).count() >= 10);
        assert!(rows.iter().any(|row| !row.sole_home && row.expect == Expectation::Clean(Claim::Wiped)));
    }

    #[test]
    fn ours_meet_every_ending() {
        let mut endings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in all() {
            endings.entry(row.holder).or_default().insert(row.ending);
        }
        let every: BTreeSet<String> = endings.values().flatten().cloned().collect();

        assert_eq!(endings[SECMEM_MEMFD.name], every);
        assert_eq!(endings[SECMEM_MLOCK.name], every);
    }

    #[test]
    fn ours_are_clean_or_a_limit_that_is_named() {
        for row in all().into_iter().filter(|row| row.sole_home) {
            let nothing_runs =
                ["_exit", "sigkill", "sigsegv", "sigbus", "sigfpe", "sigill"].contains(&row.ending.as_str());
            let expected = match (nothing_runs, row.holder.as_str()) {
                (false, _) => "clean",
                (true, "secmem-memfd") => "clean (shielded)",
                (true, _) => "leak@exit",
            };

            assert_eq!(row.expect.to_string(), expected, "{}", row.name);
        }
    }

    #[test]
    fn pieces_alone_are_expected_only_after_the_holder_was_dropped() {
        for row in all().iter().filter(|row| is_fragments(row)) {
            assert!(["wipe", "panic-unwind", "return"].contains(&row.ending.as_str()), "{}", row.name);
        }
    }

    #[test]
    fn checkpoints_begin_with_planted_and_fit_the_status() {
        for row in all() {
            let has = |checkpoint| row.checkpoints.contains(&checkpoint);
            let unique: BTreeSet<Checkpoint> = row.checkpoints.iter().copied().collect();
            let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
            let others = [libc::SIGQUIT, libc::SIGABRT, libc::SIGXCPU, libc::SIGXFSZ, libc::SIGSYS];
            let mut dumping = faults.into_iter().chain(others).map(Ends::Signal);
            let forbidden = row.ending.starts_with("damage"); // the library's own abort
            let dumps_core = dumping.any(|ends| ends == row.ends) && !forbidden;
            let exits = matches!(row.ends, Ends::Exit(_));

            assert_eq!(row.checkpoints[0], Checkpoint::Planted, "{}", row.name);
            assert_eq!(unique.len(), row.checkpoints.len(), "{}", row.name);
            assert!(has(Checkpoint::Exit), "{}", row.name);
            assert_eq!(has(Checkpoint::ExitCall), exits, "{}", row.name);
            assert_eq!(has(Checkpoint::Signal), !exits && row.ends != Ends::Signal(libc::SIGKILL), "{}", row.name);
            assert_eq!(has(Checkpoint::Core), dumps_core, "{}", row.name);
        }
    }

    #[test]
    fn a_control_names_a_checkpoint_that_is_looked_at_after_planted() {
        for row in all() {
            if let Expectation::Leak { at, .. } = row.expect {
                assert!(row.checkpoints[1..].contains(&at), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_control_does_not_rest_on_a_core_that_the_machine_may_refuse() {
        for row in all() {
            assert!(!matches!(row.expect, Expectation::Leak { at: Checkpoint::Core, .. }), "{}", row.name);
        }
    }

    #[test]
    fn every_ablation_turns_a_row_and_rows_name_no_other() {
        let named: BTreeSet<String> = all().into_iter().flat_map(|row| row.turned_by).collect();

        assert_eq!(named, BTreeSet::from(ABLATIONS.map(str::to_owned)));
    }

    #[test]
    fn limits_and_shielded_rows_name_what_they_rest_on() {
        let named = |name: &str| all().into_iter().find(|row| row.name == name).unwrap().turned_by;

        assert_eq!(named("secmem-mlock/sigsegv"), ["dont-dump"]);
        assert_eq!(named("secmem-memfd/sigkill"), ["descriptor-close"]);
        assert_eq!(named("secmem-mlock/sigkill"), [""; 0]);
        // And two controls, which let the library wipe what they have decoded.
        let controls: Vec<_> = all().into_iter().filter(|row| !row.sole_home && !row.turned_by.is_empty()).collect();
        assert!(controls.iter().all(|row| is_fragments(row) && row.turned_by == ["wipe"]), "{controls:?}");
        assert_eq!(controls.len(), 2);
    }

    #[test]
    fn mutations_are_shown_by_rows_that_notice_one_of_their_own() {
        for row in all().into_iter().filter(|row| row.shows.iter().any(|id| id == "S25")) {
            assert!(row.turned_by.iter().any(|ablation| ablation != "wipe"), "{}", row.name);
        }
        assert!(all().iter().any(|row| row.turned_by == ["wipe"] && !row.shows.iter().any(|id| id == "S25")));
    }

    #[test]
    fn every_requirement_of_the_library_has_a_row() {
        // What else there is, is not the library's: a process of its own that holds keys, and the harness.
        let wanted = (1..=20).chain([24, 25]).map(|number| format!("S{number}"));
        let shown: BTreeSet<String> = all().into_iter().flat_map(|row| row.shows).collect();
        let missing: Vec<_> = wanted.filter(|id| !shown.contains(id)).collect();

        assert_eq!(missing, [] as [&str; 0]);
    }

    #[test]
    fn every_row_speaks_for_a_requirement() {
        for row in all() {
            assert!(!row.shows.is_empty(), "{}", row.name);
            for id in row.shows {
                let (list, number) = id.split_at(1);
                assert!(["S", "H"].contains(&list) && number.parse::<u8>().is_ok(), "{id}");
            }
        }
    }

    #[test]
    fn rows_read_back_from_json_as_they_were_written() {
        let rows = all();

        let text = serde_json::to_string(&rows).unwrap();

        assert_eq!(serde_json::from_str::<Vec<Row>>(&text).unwrap(), rows);
    }

    #[test]
    fn every_canary_is_long_enough_to_leave_pieces() {
        for row in all() {
            assert!([32, 48, 64].contains(&row.canary_len), "{}", row.name);
        }
    }
}
