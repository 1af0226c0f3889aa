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
mod score;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use findings::{EXIT_INTERNAL, EXIT_USAGE};
use harness::chain;
use harness::program::{Options, Output, Source};

use prepare::{Prepared, Tools, Unprepared};
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
    let victims = match table::victims() {
        Ok(victims) => victims,
        Err(why) => {
            eprintln!("corpus: {why}");
            return EXIT_INTERNAL;
        }
    };
    let victims: Vec<Victim> = victims.into_iter().filter(|victim| victim.name.contains(&args.filter)).collect();
    if victims.is_empty() {
        eprintln!("corpus: no victim's name contains {:?}", args.filter);
        return EXIT_USAGE;
    }
    if args.list {
        for victim in &victims {
            println!("{:<28} {:<8} {:<13} {}", victim.name, victim.language, expected(victim.expect), victim.why);
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
    let fates = run_all(&victims, &args.residue, dir.path(), jobs);
    summarise(&victims, &fates)
}

fn run_all(victims: &[Victim], residue: &Path, dir: &Path, jobs: usize) -> Vec<Fate> {
    let tools = Tools::default();
    let next = AtomicUsize::new(0);
    let fates: Vec<Mutex<Option<Fate>>> = victims.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(victim) = victims.get(number) else { return };
            let fate = one(victim, residue, &dir.join(&victim.name), &tools);
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
        Ok(score::score(victim.expect, &runs, &product))
    });
    scored.map_or_else(Fate::Failed, Fate::Scored)
}

/// One run at whose stops both look.
fn both(victim: &Victim, prepared: &Prepared) -> Result<Both, String> {
    let moments: Result<_, _> = victim.at.iter().map(|at| at.parse()).collect();
    let options = Options {
        program: prepared.program.clone(),
        secret: Source::Random(usize::from(victim.length)),
        feed: prepared.feed.parse().map_err(|error| chain(&error))?,
        text: !victim.bytes,
        moments: moments.map_err(|error: harness::program::ParseMomentError| chain(&error))?,
        follow: victim.follow,
        repeat: 1,
        timeout: Duration::from_secs(TIMEOUT),
        min_length: oracle::MIN_LENGTH as usize,
        decoys: 4,
        unknown_keys: false,
        hidden_variable: None,
        variables: Vec::new(),
        digest: true,
        output: Output::Discard,
        attribute: false,
        keep_freed: None,
    };
    let (mut places, mut troubles) = (Vec::new(), Vec::new());
    let outcome = harness::oracle::frozen(&options, &mut |secret, moment, process, pid| match oracle::look(
        secret, moment, process, pid,
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
    command.args(["run", "--feed", &prepared.feed, "--secret-random", &victim.length.to_string()]);
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

const fn expected(expect: Expect) -> &'static str {
    match expect {
        Expect::Leak => "leak",
        Expect::Clean => "clean",
        Expect::Inconclusive => "inconclusive",
    }
}

fn print_fate(victim: &Victim, fate: &Fate) {
    let name = &victim.name;
    match fate {
        Fate::Scored(score) => {
            let word = if score.wrong.is_empty() { "ok" } else { "WRONG" };
            let expected = expected(victim.expect);
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

fn summarise(victims: &[Victim], fates: &[Fate]) -> u8 {
    let scores: Vec<(&Victim, &Score)> = victims
        .iter()
        .zip(fates)
        .filter_map(|(victim, fate)| match fate {
            Fate::Scored(score) => Some((victim, score)),
            Fate::Skipped(_) | Fate::Failed(_) => None,
        })
        .collect();
    let sum = |of: fn(&Score) -> u32| scores.iter().map(|(_, score)| of(score)).sum::<u32>();
    let share = |part: u32, whole: u32| if whole == 0 { 100.0 } else { 100.0 * f64::from(part) / f64::from(whole) };
    let skipped = fates.iter().filter(|fate| matches!(fate, Fate::Skipped(_))).count();
    let failed = fates.iter().filter(|fate| matches!(fate, Fate::Failed(_))).count();
    let wrong = scores.iter().filter(|(_, score)| !score.wrong.is_empty()).count();
    let negatives: Vec<_> = scores.iter().filter(|(victim, _)| victim.expect == Expect::Clean).collect();
    let hit = negatives.iter().filter(|(_, score)| score.hits > 0).count();
    let leaks = scores.iter().filter(|(victim, _)| victim.expect == Expect::Leak).count();
    let unclear = scores.len() - leaks - negatives.len();
    let (stable, recalled) = (sum(|score| score.stable), sum(|score| score.recalled));
    let (claimed, confirmed) = (sum(|score| score.claimed), sum(|score| score.confirmed));
    let (seen, both) = (sum(|score| score.seen), sum(|score| score.seen_by_both));
    println!();
    println!(
        "victims    {} run: {leaks} that leak, {} that stay clean, {unclear} that cannot be seen",
        scores.len(),
        negatives.len()
    );
    println!("           {skipped} skipped, {failed} failed, {wrong} wrong");
    println!("recall     {:.1} %: {recalled} of {stable} stable residues", share(recalled, stable));
    println!("precision  {:.1} %: {confirmed} of {claimed} findings confirmed", share(confirmed, claimed));
    println!(
        "same stops {both} of {seen} places that the oracle sees; {} more in forms it does not know",
        sum(|score| score.beyond)
    );
    println!("negatives  {hit} of {} with a hit", negatives.len());
    match (scores.is_empty(), failed, wrong) {
        (_, 1.., _) => EXIT_INTERNAL,
        (true, 0, _) => 2,
        (false, 0, 0) => 0,
        (false, 0, _) => 1,
    }
}
