//! `residue.toml`: what a project wants run, so that `residue run` alone does it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::Failure;
use crate::args::Run;

/// Its name, in the directory where `residue run` is started.
pub(crate) const FILE: &str = "residue.toml";

/// The file. It holds no secret, only where one comes from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Project {
    run: Running,
    secret: Secret,
    look: Looking,
    baseline: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Running {
    program: Vec<String>,
    repeat: Option<u32>,
    timeout: Option<u64>,
    out: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Secret {
    name: Option<String>,
    file: Option<String>,
    env: Option<String>,
    random: Option<u16>,
    feed: Option<String>,
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Text,
    Bytes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Looking {
    at: Vec<String>,
    follow: bool,
    min_length: Option<u16>,
    unknown_keys: bool,
    attribute: bool,
}

/// Completes a command line that names no program by the project's file, if there is one here. What the command line says
/// stands. Returns what was taken from the file, by its names there; `None` if it was not used.
///
/// # Errors
///
/// [`Failure::Usage`] when the file cannot be read, holds what nobody knows, or contradicts itself.
pub(crate) fn complete(args: &mut Run) -> Result<Option<Vec<&'static str>>, Failure> {
    let path = Path::new(FILE);
    if !args.program.is_empty() || !path.exists() {
        return Ok(None);
    }
    let wrong = |why: String| Failure::Usage(format!("{FILE}: {why}"));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // The message alone: its usual form repeats the line, and somebody may have put a secret there.
    let project: Project = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        wrong(format!("line {line}: {}", error.message()))
    })?;
    project.fill(args).map(Some).map_err(wrong)
}

impl Project {
    fn fill(self, args: &mut Run) -> Result<Vec<&'static str>, String> {
        let mut used = Vec::new();
        if !self.run.program.is_empty() {
            args.program = self.run.program.iter().map(OsString::from).collect();
            used.push("run.program");
        }
        let source = self.secret.source()?;
        if args.secret.is_none() && args.secret_random.is_none() {
            match source {
                Some(Source::Named(secret)) => fill(&mut args.secret, Some(secret), "secret", &mut used),
                Some(Source::Random(length)) => fill(&mut args.secret_random, Some(length), "secret", &mut used),
                None => {}
            }
        }
        if let (Some(kind), false, false) = (self.secret.kind, args.text, args.bytes) {
            match kind {
                Kind::Text => args.text = true,
                Kind::Bytes => args.bytes = true,
            }
            used.push("secret.kind");
        }
        fill(&mut args.feed, parsed("secret.feed", self.secret.feed.as_deref())?, "secret.feed", &mut used);
        if args.at.is_empty() && !self.look.at.is_empty() {
            let moments = self.look.at.iter().map(|text| parse("look.at", text));
            args.at = moments.collect::<Result<_, _>>()?;
            used.push("look.at");
        }
        within("look.min-length", self.look.min_length, 4..=32)?;
        within("run.repeat", self.run.repeat, 1..=10_000)?;
        within("run.timeout", self.run.timeout, 1..=86_400)?;
        fill(&mut args.min_length, self.look.min_length, "look.min-length", &mut used);
        fill(&mut args.repeat, self.run.repeat, "run.repeat", &mut used);
        fill(&mut args.timeout, self.run.timeout, "run.timeout", &mut used);
        fill(&mut args.out, self.run.out, "run.out", &mut used);
        fill(&mut args.baseline, self.baseline, "baseline", &mut used);
        for (ours, theirs, name) in [
            (&mut args.follow, self.look.follow, "look.follow"),
            (&mut args.unknown_keys, self.look.unknown_keys, "look.unknown-keys"),
            (&mut args.attribute, self.look.attribute, "look.attribute"),
        ] {
            if theirs && !*ours {
                *ours = true;
                used.push(name);
            }
        }
        Ok(used)
    }
}

/// A secret as the command line names it.
enum Source {
    Named(String),
    Random(u16),
}

impl Secret {
    fn source(&self) -> Result<Option<Source>, String> {
        let name = self.name.as_deref().unwrap_or("secret");
        if name.is_empty() || name.contains('=') {
            return Err("secret.name is empty or holds an equals sign".to_owned());
        }
        match (&self.file, &self.env, self.random) {
            (None, None, None) => Ok(None),
            (Some(file), None, None) if !file.starts_with("env:") => Ok(Some(Source::Named(format!("{name}={file}")))),
            (Some(_), None, None) => Err("secret.file begins with env: (write ./env:…, or secret.env)".to_owned()),
            (None, Some(variable), None) => Ok(Some(Source::Named(format!("{name}=env:{variable}")))),
            (None, None, Some(length)) => {
                within("secret.random", Some(length), 8..=4000)?;
                Ok(Some(Source::Random(length)))
            }
            _ => Err("the secret comes from one of secret.file, secret.env and secret.random".to_owned()),
        }
    }
}

fn fill<T>(ours: &mut Option<T>, theirs: Option<T>, name: &'static str, used: &mut Vec<&'static str>) {
    if ours.is_none() && theirs.is_some() {
        *ours = theirs;
        used.push(name);
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), String> {
    match value {
        Some(value) if !range.contains(&value) => {
            Err(format!("{name} is {value}, and may be {} to {}", range.start(), range.end()))
        }
        _ => Ok(()),
    }
}

fn parsed<T: FromStr<Err: std::error::Error>>(name: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|text| parse(name, text)).transpose()
}

fn parse<T: FromStr<Err: std::error::Error>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| format!("{name}: {}", crate::chain(&error)))
}
