//! A run against a list of residues that somebody knows of: `residue baseline`, and `residue run --baseline`.

use std::path::Path;
use std::time::SystemTime;

use findings::{Baseline, BaselineError, Compared, Residue, Run, Verdict};

use crate::Failure;
use crate::args::Baseline as Args;
use crate::output::{printable, read_run, say};

/// `residue baseline`.
pub(crate) fn baseline(args: &Args) -> Result<Verdict, Failure> {
    let list = List::read(&args.list)?;
    let run = read_run(&args.run)?;
    let (verdict, text) = list.hold(&run)?;
    say(&text)?;
    Ok(verdict)
}

/// A list that was read and can be used.
pub(crate) struct List<'a> {
    path: &'a Path,
    baseline: Baseline,
}

impl<'a> List<'a> {
    /// Reads and checks it.
    pub(crate) fn read(path: &'a Path) -> Result<Self, Failure> {
        let unread = |why: String| Failure::Usage(format!("read {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| unread(error.to_string()))?;
        let baseline: Baseline = toml::from_str(&text).map_err(|error| unread(error.to_string()))?;
        let list = Self { path, baseline };
        list.baseline.check().map_err(|error| list.wrong(&error))?;
        Ok(list)
    }

    /// What a run comes to with it, and how it stands to it in words.
    pub(crate) fn hold(&self, run: &Run) -> Result<(Verdict, String), Failure> {
        // UTC, as the day of a commit or a build is told.
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let today = now.get(..10).unwrap_or_default();
        let compared = self.baseline.compare(run, today).map_err(|error| self.wrong(&error))?;
        Ok((compared.verdict(run), printable(&self.describe(&compared, run))))
    }

    fn wrong(&self, error: &BaselineError) -> Failure {
        Failure::Usage(format!("{}: {error}", self.path.display()))
    }

    fn describe(&self, compared: &Compared, run: &Run) -> String {
        let mut text = String::new();
        let mut list = |title: &str, residues: &mut dyn Iterator<Item = String>| {
            for residue in residues {
                text.push_str(&format!("{title:8} {residue}\n"));
            }
        };
        list("new", &mut compared.new.iter().map(Residue::to_string));
        list("stale", &mut compared.stale.iter().map(Residue::to_string));
        list("expired", &mut compared.expired.iter().map(|(residue, day)| format!("{residue} (on {day})")));
        list("known", &mut compared.known.iter().map(Residue::to_string));
        for residue in &compared.new {
            text.push_str(&draft(residue));
        }
        let path = self.path.display();
        text.push_str(&match (compared.holds(), compared.verdict(run)) {
            (false, _) => format!("The list {path} does not hold.\n"),
            (true, Verdict::Inconclusive) => format!("The list {path} holds, but the run is inconclusive.\n"),
            (true, _) => format!("The list {path} holds.\n"),
        });
        text
    }
}

/// The entry that would list a new residue, without what only people can say: it is refused until they have.
fn draft(residue: &Residue) -> String {
    let fields = toml::to_string(residue).unwrap_or_default();
    format!("\n[[known]]\n{fields}reason = \"\"\nowner = \"\"\nexpires = \"\"\n\n")
}
