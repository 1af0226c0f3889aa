//! `residue core`.

use std::io::ErrorKind;

use findings::Verdict;
use harness::attach::AttachError;
use harness::dump::{self, WriteError};
use harness::interrupt;
use indicatif::HumanBytes;

use crate::args::Core;
use crate::output::{printable, say};
use crate::{Failure, chain};

/// `residue core`.
pub(crate) fn core(args: &Core) -> Result<Verdict, Failure> {
    let interrupted = interrupt::flag().map_err(|error| Failure::internal("catch Ctrl-C", &error))?;
    let dump = dump::write(args.process, &args.output, &interrupted).map_err(refused)?;
    let mut text = format!(
        "{}: {} of memory and the registers of {} threads of process {}, which stood still for {} ms\n",
        args.output.display(),
        HumanBytes(dump.coverage.read),
        dump.threads,
        args.process,
        dump.stopped.as_millis()
    );
    for why in &dump.unread {
        text.push_str(&format!("  not in it: {why}\n"));
    }
    say(&printable(&text))?;
    Ok(if dump.unread.is_empty() { Verdict::Clean } else { Verdict::Inconclusive })
}

fn refused(error: WriteError) -> Failure {
    let usage = match &error {
        WriteError::Attach { source } => !matches!(source, AttachError::Stop { .. } | AttachError::Search { .. }),
        WriteError::Make { source, .. } => matches!(
            source.kind(),
            ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory
        ),
        _ => false,
    };
    if usage { Failure::Usage(chain(&error)) } else { Failure::Internal(chain(&error)) }
}
