//! What can be asked of `residue`, and how its help reads.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use harness::audit::Part;
use harness::program::{Feed, Moment};
use harness::sweep::Sweep;

const EXIT_CODES: &str = "Exit codes: 0 clean, 1 leak, 2 inconclusive, 64 wrong usage, 70 internal error.";

const RUN: &str = "\
Examples:
  residue run -- python3 -c 'import sys; key = sys.stdin.readline(); del key'
  residue run --feed pty -- ssh-add key.pem
  residue run --feed env:TOKEN --follow --repeat 5 --out evidence -- ./deploy.sh
  residue run --secret db=password.txt --feed file:/run/db.pass --at 'stdout:^ready' --at exit -- ./server
  residue run --sweep SIGTERM:64 -- ./server
  residue run --feed arg:1 --at signal:SIGTERM --at after:2s --at syscall:execve -- ./tool KEY

The secret is random unless --secret names one. On stdin a newline follows it, then the end of file; at a terminal (pty) it
is typed, with Enter, once the program reads. With --bytes it is raw, and nothing follows.

Without PROGRAM, residue.toml of this directory says what to run, and options here win over it:
  baseline = \"residue-baseline.toml\"      # residues that are known, as in `residue baseline --help`

  [run]
  program = [\"./server\", \"--port\", \"0\"]
  repeat = 3                              # timeout and out, too

  [secret]                                # where it comes from, never the secret itself
  name = \"db\"
  env = \"DB_PASSWORD\"                     # or file = \"FILE\", or random = 32
  feed = \"stdin\"                          # kind = \"text\" or \"bytes\", too

  [look]
  at = [\"stdout:^ready\", \"exit\"]
  follow = true                           # min-length, unknown-keys and attribute, too

Nothing counts as clean until the secret was seen whole in the program while it lived. The program runs under ptrace: one
that uses ptrace itself, or a set-user-ID program run by an ordinary user, ends inconclusive.
";

const BASELINE: &str = "\
Example:
  residue run --out evidence -- ./server; residue baseline evidence/run.json --list residue-baseline.toml

The list:
  schema = \"secmem.baseline/1\"

  [[known]]
  scenario = \"server\"         # the row of an audit, or the program's name
  family = \"raw\"              # raw, order, text, mask, limbs, derived or unknown
  class = \"heap\"              # as in the report: heap, stack, dead-stack, anonymous, register, …
  length = \"whole\"            # \"under 8\", \"8 to 15\", \"16 to 31\", \"32 or more\" (bytes of the secret) or \"whole\"
  moment = \"exit\"             # optional: at any moment without it
  writer = \"tls::session\"     # optional: the function that is charged with it, where the run names one
  reason = \"the TLS library keeps the session key, issue 12\"
  owner = \"platform team\"
  expires = \"2027-12-31\"      # the last day, UTC
  intermittent = true         # optional: it comes and goes, so its absence is no reason to fail

A residue that is not on the list fails (new), with a draft of its entry; so do an entry without its residue (stale) and
one whose day has passed (expired). Residues of rows that have to leak, the controls, need no entry, and addresses and
names of mappings play no part. `residue run --baseline FILE` does the same at once.

Exits 0 when the list holds, 1 when it does not, 2 when the run itself is inconclusive.
";

const DIFF: &str = "\
Examples:
  residue diff -- ./derive-key
  residue diff --feed file:/run/app.key --runs 8 --out evidence -- ./server --once
  residue diff --secret one=a.pem --secret other=b.pem --feed stdin -- ./sign document

A search finds the forms of a key that it knows. This finds the others: a byte that is the same in all runs with a key
and differs between two keys depends on the key, whatever it was made into. Which bits of the key it tells is not said: a
result that is meant for the world, a length and a choice of way depend on the key too.

Every run has its memory at the same addresses and gets the same random numbers from the kernel; what the program prints
goes nowhere. The first key runs as often once more: what differs between its two groups is the noise, and only more than
that is a leak. Memory that changes between runs with one key, or is not there in all of them, cannot be compared: a
program that mixes a clock into what it keeps ends inconclusive.
";

const CORE: &str = "\
Example:
  residue core 4321 -o before.core
  residue scan before.core --secret-file key.bin

The process stands still while it is written, and then goes on. The file is its owner's alone and holds whatever the process
held. What lies behind descriptors (pipes, sockets) is no part of a core.

Exits 0 when all of the memory is in the file, and 2 when some could not be read: the file says which, and a scan of it that
finds nothing is then inconclusive.
";

const MERGE: &str = "\
Example:
  residue audit scenarios --seed-file seed.hex --fixed-layout --shard 1/2 --out one   # on one machine
  residue audit scenarios --seed-file seed.hex --fixed-layout --shard 2/2 --out two   # on another of the same kind
  residue merge one/run.json two/run.json --out whole

The shards have to be of the same subject, settings and machine, and none may be missing.

run.json holds all that was measured. repeatable.json, beside it, leaves out what the moment decides: addresses, numbers of bytes,
threads and hits, words of reasons, and with --repeat the residues that are not in all runs. The same subject, seed
and options give the same repeatable.json to the byte, whole or merged, as far as the subject does the same again.

Exits with the verdict of the whole run.
";

/// Does my program leave this key in memory?
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every scenario of a subject, look at its memory, judge, write run.json and the reports
    #[command(after_help = format!("Example:\n  residue audit target/audit/scenarios --out target/evidence\n\n{EXIT_CODES}"))]
    Audit(Audit),
    /// Put the shards of a run together: run.json and the reports as one whole run would have written them
    #[command(after_help = format!("{MERGE}\n{EXIT_CODES}"))]
    Merge(Merge),
    /// Hold a run against a list of known residues: new, stale and expired ones fail
    #[command(after_help = format!("{BASELINE}\n{EXIT_CODES}"))]
    Baseline(Baseline),
    /// Render the reports of a run again
    #[command(after_help = format!("Example:\n  residue report target/evidence/run.json --out /tmp/report\n\nExits with the verdict of the run. {EXIT_CODES}"))]
    Report(Report),
    /// Search files, directories, core dumps and live processes for a secret, whole and in pieces, in every form
    #[command(after_help = format!("Examples:\n  residue scan core.1234 --secret-file key.bin\n  residue scan 4321 --secret-file key.bin\n  residue scan 4321 --unknown-keys\n  residue scan target/ --seed-file seed.hex --subject target/audit/scenarios\n\n{EXIT_CODES}"))]
    Scan(Scan),
    /// Write a core of a process that runs: its memory and registers, to be searched as often as need be
    #[command(after_help = format!("{CORE}\n{EXIT_CODES}"))]
    Core(Core),
    /// Run any program, give it a secret, and search its memory for what is left
    #[command(after_help = format!("{RUN}\n{EXIT_CODES}"))]
    Run(Box<Run>),
    /// Run a program with two keys by turns, and find what in its memory depends on the key, whatever it was made into
    #[command(after_help = format!("{DIFF}\n{EXIT_CODES}"))]
    Diff(Diff),
    /// Name who wrote a residue: run its row again with the place watched, print the stack of the write
    #[command(after_help = format!("Example:\n  residue explain 4f1d0c9a --run target/evidence/run.json --subject target/audit/scenarios\n\nExits 0 when the writer was found, 2 when not. {EXIT_CODES}"))]
    Explain(Explain),
    /// Print the catalogue of a subject
    #[command(after_help = "Example:\n  residue list target/audit/scenarios")]
    List(List),
    /// Print what this machine can show, and how to enable the rest
    #[command(
        after_help = "Example:\n  residue doctor\n\nExits 0 when everything can be shown, 2 when something cannot."
    )]
    Doctor,
    /// Panic, so that a test can see the exit code
    #[command(hide = true)]
    Panic,
}

#[derive(Debug, Group)]
pub(crate) struct Audit {
    /// The program with the scenarios; it answers to `list` and `run NAME`
    pub(crate) subject: PathBuf,
    /// Directory for run.json and the reports; made if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Only rows whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) filter: String,
    /// All rows of the library, but only the first control and the first clean row of every other holder
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rows that run at the same time [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Count the run as inconclusive unless this can be looked at; may be given more than once
    #[arg(long, value_name = "ABILITY", value_parser = ["core"])]
    pub(crate) require: Vec<String>,
    /// 64 hexadecimal digits from which all canaries follow [default: random, never written anywhere]
    #[arg(long, value_name = "FILE")]
    pub(crate) seed_file: Option<PathBuf>,
    /// Seconds that one row may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Shortest residue that counts, in bytes of the secret
    #[arg(long, value_name = "BYTES", default_value_t = 6, value_parser = clap::value_parser!(u16).range(4..=32))]
    pub(crate) min_length: u16,
    /// Label for the report: the profile with which the subject was built
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    pub(crate) profile: String,
    /// Label for the report: the compiler with which the subject was built
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    pub(crate) rustc: String,
    /// Label for the report: the protection that was taken out of the subject
    #[arg(long, value_name = "NAME")]
    pub(crate) ablation: Option<String>,
    /// Name who wrote the findings of rows that are not as expected, or all findings; runs those rows again
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "unexpected")]
    pub(crate) attribute: Option<Which>,
    /// Run one part of the rows alone: every OF-th, from the NUMBER-th on. `residue merge` puts the parts together
    #[arg(long, value_name = "NUMBER/OF")]
    pub(crate) shard: Option<Part>,
    /// Run each row so often; a residue that is not in all runs is shown as intermittent
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) repeat: u32,
    /// Have the kernel put memory at the same addresses in every run, and give programs the same random numbers, so that
    /// runs can be compared
    #[arg(long)]
    pub(crate) fixed_layout: bool,
    /// Send a signal while the secret is in use: run each row once for each of POINTS points, spread over the instructions
    /// between the moment at which the secret is planted and whatever is looked at next, and judge what the signal leaves
    #[arg(long, value_name = "SIGNAL:POINTS", conflicts_with = "repeat")]
    pub(crate) sweep: Option<Sweep>,
}

#[derive(Debug, Group)]
pub(crate) struct Baseline {
    /// The run.json of `residue audit`, `residue merge` or `residue run --out`
    #[arg(value_name = "RUN.JSON")]
    pub(crate) run: PathBuf,
    /// The list, in TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) list: PathBuf,
}

#[derive(Debug, Group)]
pub(crate) struct Merge {
    /// The run.json of every shard, in any order
    #[arg(required = true, value_name = "RUN.JSON")]
    pub(crate) shards: Vec<PathBuf>,
    /// Directory for run.json and the reports; made if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Which findings get a writer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Which {
    /// Those of rows that are not as expected, leaky controls apart
    Unexpected,
    /// All of them, those of the controls too
    All,
}

#[derive(Debug, Group)]
pub(crate) struct Explain {
    /// Fingerprint of the finding, or the start of it
    pub(crate) fingerprint: String,
    /// The run.json that holds it
    #[arg(long, value_name = "FILE")]
    pub(crate) run: PathBuf,
    /// The program with the scenarios, the same build as that of the run, which is then run again. Without it the writers
    /// are those that the run named (`residue run --attribute`)
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) subject: Option<PathBuf>,
    /// 64 hexadecimal digits from which the canary follows [default: random; fingerprints do not depend on it]
    #[arg(long, value_name = "FILE")]
    pub(crate) seed_file: Option<PathBuf>,
    /// Seconds that one run of the row may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Print the finding with its writer as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Report {
    /// A run.json
    pub(crate) run: PathBuf,
    /// Directory for the reports; made if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Group)]
pub(crate) struct Scan {
    /// Files, directories (walked without following links), ELF cores (searched by their headers; also as systemd-coredump
    /// and apport store them, unpacked on the way), or numbers of processes, which are stopped, searched and let go on
    #[arg(required = true, value_name = "PATH|PID")]
    pub(crate) paths: Vec<PathBuf>,
    /// Search for the bytes of this file, all of them; may be given more than once
    #[arg(long, value_name = "FILE", required_unless_present_any = ["seed_file", "unknown_keys"])]
    pub(crate) secret_file: Vec<PathBuf>,
    /// Search for the canaries of a run that was given this seed
    #[arg(long, value_name = "FILE", requires = "subject")]
    pub(crate) seed_file: Option<PathBuf>,
    /// The subject of that run
    #[arg(long, value_name = "PROGRAM", requires = "seed_file")]
    pub(crate) subject: Option<PathBuf>,
    /// Shortest residue that counts, in bytes of the secret
    #[arg(long, value_name = "BYTES", default_value_t = 6, value_parser = clap::value_parser!(u16).range(4..=32))]
    pub(crate) min_length: u16,
    /// Also find keys that nobody named, by what they look like: round keys of AES, private keys in DER and PEM, OpenSSH's
    #[arg(long)]
    pub(crate) unknown_keys: bool,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Core {
    /// Number of the process
    #[arg(value_name = "PID")]
    pub(crate) process: i32,
    /// Where to write it; a file that is there is not overwritten
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Group)]
pub(crate) struct Run {
    /// The secret, with a name for it: from a file, or from a variable, which the program then does not get. A last
    /// newline is left out unless --bytes
    #[arg(long, value_name = "NAME=FILE|NAME=env:VAR", conflicts_with = "secret_random")]
    pub(crate) secret: Option<String>,
    /// A random secret of so many bytes, fresh in every run [default: 32]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(8..=4000))]
    pub(crate) secret_random: Option<u16>,
    /// A random secret is letters and digits [default for stdin, pty, env and arg]
    #[arg(long, conflicts_with = "bytes")]
    pub(crate) text: bool,
    /// A random secret is any bytes [default for fd and file], and on stdin no newline follows
    #[arg(long)]
    pub(crate) bytes: bool,
    /// How the program gets it: stdin, pty, fd:N, env:VAR, file:PATH (made for the run) or arg:N (from 1)
    /// [default: stdin]
    #[arg(long, value_name = "HOW")]
    pub(crate) feed: Option<Feed>,
    /// When to look: exit, stdout:REGEX (first match), signal:NAME and syscall:NAME (the first in each process after the
    /// secret arrived), after:DURATION; may be given more than once [default: exit]
    #[arg(long, value_name = "MOMENT")]
    pub(crate) at: Vec<Moment>,
    /// Look at the processes that it starts, too
    #[arg(long)]
    pub(crate) follow: bool,
    /// Run it so often; a residue that is not in all runs is shown as intermittent [default: 1]
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) repeat: Option<u32>,
    /// Seconds that one run may take [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: Option<u64>,
    /// Shortest residue that counts, in bytes of the secret [default: 6]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(4..=32))]
    pub(crate) min_length: Option<u16>,
    /// Also find keys that nobody named, by what they look like: round keys of AES, private keys in DER and PEM, OpenSSH's
    #[arg(long)]
    pub(crate) unknown_keys: bool,
    /// Also send a signal while the secret is in use: run it once more for each of POINTS points, spread over the
    /// instructions between the moment at which the secret is seen alive and the first of --at, and judge what is left in the end.
    /// What it prints then goes nowhere. A window of more than a million is cut
    #[arg(long, value_name = "SIGNAL:POINTS")]
    pub(crate) sweep: Option<Sweep>,
    /// Directory for run.json and the reports; made if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Name who wrote what was found; runs the program again, a few times for each residue, and throws away what it then
    /// prints
    #[arg(long)]
    pub(crate) attribute: bool,
    /// Keep what the program frees from being used again, so that residues in it stay visible: by a library that is loaded into
    /// it, libresidue_keep_freed.so beside this program unless named
    #[arg(long, value_name = "LIBRARY", num_args = 0..=1, require_equals = true)]
    pub(crate) keep_freed: Option<Option<PathBuf>>,
    /// Print run.json; the program's own output then goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Hold what was found against this list of known residues, as `residue baseline` does
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// The program and its arguments; without it residue.toml of this directory says what to run
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, Group)]
pub(crate) struct Diff {
    /// A key, with a name for it, from a file; given twice. A last newline is left out unless --bytes
    #[arg(long, value_name = "NAME=FILE", conflicts_with = "secret_random")]
    pub(crate) secret: Vec<String>,
    /// Two random keys of so many bytes [default: 32]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(8..=4000))]
    pub(crate) secret_random: Option<u16>,
    /// Random keys are letters and digits [default for stdin, pty, env and arg]
    #[arg(long, conflicts_with = "bytes")]
    pub(crate) text: bool,
    /// Random keys are any bytes [default for fd and file], and on stdin no newline follows
    #[arg(long)]
    pub(crate) bytes: bool,
    /// How the program gets it: stdin, pty, fd:N, env:VAR, file:PATH (made for the run) or arg:N (from 1)
    #[arg(long, value_name = "HOW", default_value = "stdin")]
    pub(crate) feed: Feed,
    /// When to look, as for `residue run`; may be given more than once
    #[arg(long, value_name = "MOMENT", default_value = "exit")]
    pub(crate) at: Vec<Moment>,
    /// Look at the processes that it starts, too
    #[arg(long)]
    pub(crate) follow: bool,
    /// Runs with each of the two keys, and as many once more with the first
    #[arg(long, value_name = "TIMES", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub(crate) runs: u32,
    /// Seconds that one run may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Directory for difference.json and difference.txt; made if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print difference.json
    #[arg(long)]
    pub(crate) json: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, Group)]
pub(crate) struct List {
    /// The program with the scenarios
    pub(crate) subject: PathBuf,
    /// Print JSON, as the subject does
    #[arg(long)]
    pub(crate) json: bool,
}
