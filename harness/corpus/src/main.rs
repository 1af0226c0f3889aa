//! How much does `residue` see? Programs that are known to leak, and programs that must stay clean, are run and searched
//! twice: by the oracle, in the plainest way, and by `residue` itself.
//!
//! First the oracle looks at three runs of each victim; what it finds in all three is stable. Only then does
//! `residue run` look at a run of its own. Recall is the share of the stable residues that it finds, precision the share
//! of its findings that the oracle confirms where both looked at the same stops.
//!
//! Exit codes: 0 all stable residues were found, nothing in a program that must stay clean, and both agree; 1 otherwise;
//! 2 when no victim could be run; 64 and 70 as everywhere.

mod oracle;
mod prepare;
mod results;
mod score;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use findings::{EXIT_INTERNAL, EXIT_USAGE};
use harness::canary::Canary;
use harness::chain;
use harness::program::{Options, Source};

use prepare::{Prepared, Tools, Unprepared};
use results::Results;
use score::{Both, Score};
use table::{Expect, Victim};

/// Runs of the oracle, which say what is stable.
const RUNS: u32 = 3;

/// Seconds that one run of a victim may take.
const TIMEOUT: u64 = 120;

/// Runs programs that leak and programs that do not, and counts what residue sees of them.
#[derive(Parser)]
#[command(after_help = "Example:\n  corpus target/release/residue --filter python")]
struct Args {
    /// The program `residue`
    residue: PathBuf,
    /// Only victims whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Victims that run at the same time [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Print the victims and what is expected of them, and run none
    #[arg(long)]
    list: bool,
    /// Write what came of each victim to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the victims that use real crates are built [default: a directory that goes with the run]
    #[arg(long, value_name = "DIR")]
    build: Option<PathBuf>,
}

/// What became of a victim.
enum Fate {
    Scored(Score),
    Skipped(String),
    Failed(String),
}

fn main() -> ExitCode {
    let code = std::panic::catch_unwind(real_main).unwrap_or(EXIT_INTERNAL);
    ExitCode::from(code)
}

fn real_main() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print(); // a closed stream leaves the exit code as the only answer
            return code;
        }
    };
    let table = match table::table() {
        Ok(table) => table,
        Err(why) => {
            eprintln!("corpus: {why}");
            return EXIT_INTERNAL;
        }
    };
    let victims: Vec<Victim> = table.victims.into_iter().filter(|victim| victim.name.contains(&args.filter)).collect();
    if victims.is_empty() {
        eprintln!("corpus: no victim's name contains {:?}", args.filter);
        return EXIT_USAGE;
    }
    if args.list {
        for victim in &victims {
            println!("{:<28} {:<8} {:<13} {}", victim.name, victim.language, victim.expect, victim.why);
        }
        return 0;
    }
    let dir = match tempfile::Builder::new().prefix("residue-corpus").tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            eprintln!("corpus: make a directory for the victims: {error}");
            return EXIT_INTERNAL;
        }
    };
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let tools = Tools::new(args.build.unwrap_or_else(|| dir.path().join("crates")));
    let fates = run_all(&victims, &args.residue, dir.path(), jobs, &tools);
    let results = Results::of(&victims, &fates, &table.facts);
    print!("{results}");
    if let Some(path) = &args.json
        && let Err(error) = results.write(path)
    {
        eprintln!("corpus: write {}: {error}", path.display());
        return EXIT_INTERNAL;
    }
    results.exit_code()
}

fn run_all(victims: &[Victim], residue: &Path, dir: &Path, jobs: usize, tools: &Tools) -> Vec<Fate> {
    let next = AtomicUsize::new(0);
    let fates: Vec<Mutex<Option<Fate>>> = victims.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(victim) = victims.get(number) else { return };
            let fate = one(victim, residue, &dir.join(victim.name.replace('/', "-")), tools);
            print_fate(victim, &fate);
            *fates[number].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(fate);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let taken = |fate: Mutex<Option<Fate>>| fate.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let unseen = || Fate::Failed("it was not run".to_owned());
    fates.into_iter().map(|fate| taken(fate).unwrap_or_else(unseen)).collect()
}

/// Prepares and runs a victim: the oracle's runs, then the one of `residue`.
fn one(victim: &Victim, residue: &Path, dir: &Path, tools: &Tools) -> Fate {
    if let Err(error) = std::fs::create_dir(dir) {
        return Fate::Failed(format!("make {}: {error}", dir.display()));
    }
    let prepared = match prepare::prepare(victim, dir, tools) {
        Ok(prepared) => prepared,
        Err(Unprepared::Skip(why)) => return Fate::Skipped(why),
        Err(Unprepared::Failed(why)) => return Fate::Failed(why),
    };
    let runs: Result<Vec<Both>, String> = (0..RUNS).map(|_| both(victim, &prepared)).collect();
    let scored = runs.and_then(|runs| {
        let product = product(victim, &prepared, residue, dir)?;
        Ok(score::score(victim, &runs, &product))
    });
    scored.map_or_else(Fate::Failed, Fate::Scored)
}

/// One run at whose stops both look.
fn both(victim: &Victim, prepared: &Prepared) -> Result<Both, String> {
    let moments: Result<_, _> = victim.at.iter().map(|at| at.parse()).collect();
    let secret = match &prepared.secret {
        None => Source::Random(usize::from(victim.length)),
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| format!("read the secret: {error}"))?;
            Source::Given(Canary::given(bytes.into()).map_err(|error| chain(&error))?)
        }
    };
    let known = victim.prefix.len() as u64;
    let feed = prepared.feed.parse().map_err(|error| chain(&error))?;
    let options = Options {
        text: !victim.bytes,
        moments: moments.map_err(|error: harness::program::ParseMomentError| chain(&error))?,
        follow: victim.follow,
        timeout: Duration::from_secs(TIMEOUT),
        min_length: oracle::MIN_LENGTH as usize,
        decoys: 4,
        ..Options::new(prepared.program.clone(), secret, feed)
    };
    let (mut places, mut troubles) = (Vec::new(), Vec::new());
    let outcome = harness::oracle::frozen(&options, &mut |secret, moment, process, pid| match oracle::look(
        secret, known, moment, process, pid,
    ) {
        Ok(found) => places.extend(found),
        Err(error) => troubles.push(format!("{moment}: {error}")),
    });
    let residue = outcome.map_err(|error| chain(&error))?;
    Ok(Both { oracle: places, troubles, residue })
}

/// One run of the program `residue`, as a user starts it.
fn product(victim: &Victim, prepared: &Prepared, residue: &Path, dir: &Path) -> Result<findings::Outcome, String> {
    let out = dir.join("residue");
    let mut command = Command::new(residue);
    command.args(["run", "--feed", &prepared.feed]);
    match &prepared.secret {
        None => command.arg("--secret-random").arg(victim.length.to_string()),
        Some(path) => command.arg("--secret").arg(format!("key={}", path.display())),
    };
    command.args(victim.writer.is_some().then_some("--attribute"));
    command.args(["--timeout", &TIMEOUT.to_string(), if victim.bytes { "--bytes" } else { "--text" }]);
    command.args(victim.at.iter().flat_map(|at| ["--at", at]));
    command.args(victim.follow.then_some("--follow"));
    command.arg("--out").arg(&out).arg("--").args(&prepared.program);
    let output = command.output().map_err(|error| format!("start {}: {error}", residue.display()))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let run =
        std::fs::read_to_string(out.join("run.json")).map_err(|error| format!("no run.json ({error}): {said}"))?;
    let run = reports::parse(&run).map_err(|error| chain(&error))?;
    if output.status.code() != Some(i32::from(run.verdict.exit_code())) {
        return Err(format!("residue ended with {}, and its verdict is {}", output.status, run.verdict));
    }
    run.outcomes.into_iter().next().ok_or_else(|| "no outcome".to_owned())
}

fn print_fate(victim: &Victim, fate: &Fate) {
    let name = &victim.name;
    match fate {
        Fate::Scored(score) => {
            let word = if score.wrong.is_empty() { "ok" } else { "WRONG" };
            let expected = victim.expect;
            let (stable, recalled, places) = (score.stable, score.recalled, score.seen_by_both);
            let mut text = format!("{word:<6} {name:<28} {expected:<13}");
            if victim.expect == Expect::Leak {
                text += &format!("{recalled} of {stable} stable; {places} places in {RUNS} runs");
                if score.beyond > 0 {
                    text += &format!(", {} in other forms", score.beyond);
                }
            }
            println!("{}", text.trim_end());
            score.wrong.iter().for_each(|wrong| println!("         {wrong}"));
        }
        Fate::Skipped(why) => println!("skip   {name:<28} {why}"),
        Fate::Failed(why) => println!("FAILED {name:<28} {}", why.trim_end()),
    }
}
