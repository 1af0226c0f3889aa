//! What the program is asked, and what it says.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secmem::journal::{self, Account, Checks, Head, PublicKey, Verdict};

const WHOLE: u8 = 0;
const BROKEN: u8 = 1;
pub(crate) const INTERNAL: u8 = 70;

/// Looks after audit logs of the library secmem.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = CODES)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tells whether a journal is what was written.
    ///
    /// Without --key its signatures are not checked. Without --head nothing shows lines that were cut off its end; and of a
    /// journal without signatures, nothing shows that all of it was written anew.
    #[command(after_help = CODES)]
    Verify {
        /// The journal.
        file: PathBuf,
        /// Each entry has to be signed by this key: ed25519: and 64 digits of hex.
        #[arg(long, value_name = "KEY")]
        key: Option<PublicKey>,
        /// The journal has to have come by here, as this command or the program that writes it has said it: NUMBER:HEX. May
        /// be given several times.
        #[arg(long, value_name = "HEAD")]
        head: Vec<Head>,
    },
}

const CODES: &str =
    "Exit codes: 0 whole; 1 broken, with the line and why; 2 wrong usage; 70 the journal could not be read";

pub(crate) fn run() -> ExitCode {
    let Task::Verify { file, key, head } = Args::parse().task; // wrong usage exits 2
    let checks = key.into_iter().fold(Checks::default(), Checks::signed_by);
    let checks = head.into_iter().fold(checks, Checks::head);
    let told = File::open(&file).and_then(|it| journal::verify(it, &checks)).and_then(|verdict| tell(&verdict));
    ExitCode::from(told.unwrap_or_else(|error| {
        // Where nobody takes it, the exit code alone says so.
        let _ = writeln!(io::stderr(), "secmem-journal: {}: {}", file.display(), error);
        INTERNAL
    }))
}

fn tell(verdict: &Verdict) -> io::Result<u8> {
    let mut out = io::stdout().lock();
    match verdict {
        Verdict::Whole(account) => {
            write!(out, "{}", sums(account))?;
            writeln!(out, "whole")?;
            Ok(WHOLE)
        }
        Verdict::Torn { account, bytes } => {
            write!(out, "{}", sums(account))?;
            let line = account.head.entries + 1;
            writeln!(out, "broken at line {line}: {bytes} bytes without an end, which opening the journal cuts off")?;
            Ok(BROKEN)
        }
        Verdict::Broken { line, fault } => {
            writeln!(out, "broken at line {line}: {fault}")?;
            Ok(BROKEN)
        }
    }
}

fn sums(account: &Account) -> String {
    let Account { head, missed, mended, .. } = account;
    let mut text = format!("{} entries; head {head}\n", head.entries);
    if *missed > 0 {
        text += &format!("{missed} entries could not be written, and the journal says where\n");
    }
    if *mended > 0 {
        text += &format!("{mended} half entries were cut off, and the journal says where\n");
    }
    text += &match (account.signer, account.checked) {
        (Some(key), true) => format!("signed by {key}, checked\n"),
        (Some(key), false) => format!("says that {key} has signed it; not checked\n"),
        (None, _) => "not signed\n".to_owned(),
    };
    text
}
