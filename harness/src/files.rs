//! Searching files: cores by their headers, those that a crash handler stored unpacked on the way, everything else as plain
//! bytes.
//!
//! Directories are walked without following symbolic links. What is no regular file and what cannot be read makes the
//! search inconclusive. The needles prove themselves in every search: each is found in a sheet of bytes in
//! which it was planted, and decoys are found nowhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Class, Controls, Coverage, Finding, Looked, Observation, Outcome, Verdict};
use zeroize::Zeroize;

use crate::audit::DECOYS;
use crate::canary::{Canary, Seed};
use crate::judge;
use crate::progress::{Observer, Progress};
use crate::scan::{Index, IndexError, Scanner, keys};
use crate::session::{Hit, chain, search_core, search_core_stream};
use crate::snapshot::{self, CHUNK, CoreError, Stored};
use crate::variants::{FORMS, encode};
use crate::veil::{nameable, veil};
use scenario_protocol::CanaryKind;

/// What to search for.
#[derive(Debug)]
pub struct Needles {
    secrets: Vec<Canary>,
    decoys: Vec<Canary>,
    min_length: usize,
    unknown_keys: bool,
}

/// Why a search could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// There is nothing to search for.
    #[error("no secret to search for")]
    NoNeedle,
    /// The secrets cannot be indexed.
    #[error("prepare the search")]
    Index {
        /// Why.
        #[from]
        source: IndexError,
    },
    /// Decoys need random bytes.
    #[error("draw random bytes for the decoys")]
    Random {
        /// Why.
        source: io::Error,
    },
}

impl Needles {
    /// Takes the secrets and draws decoys as long as the longest of them.
    ///
    /// # Errors
    ///
    /// [`SearchError::NoNeedle`] without a secret, [`SearchError::Random`] without random bytes.
    pub fn new(secrets: Vec<Canary>, min_length: usize) -> Result<Self, SearchError> {
        let longest = secrets.iter().map(|secret| secret.bytes().len()).max().ok_or(SearchError::NoNeedle)?;
        let seed = Seed::random().map_err(|source| SearchError::Random { source })?;
        let text = secrets.iter().all(|secret| secret.bytes().iter().all(u8::is_ascii_alphanumeric));
        let kind = if text { CanaryKind::Text } else { CanaryKind::Bytes };
        let decoys = seed.decoys("files", kind, longest, DECOYS);
        Ok(Self { secrets, decoys, min_length, unknown_keys: false })
    }

    /// No secret, but all keys that can be told by what they look like: round keys of AES, private keys in DER and PEM.
    pub fn of_unknown_keys() -> Self {
        Self { secrets: Vec::new(), decoys: Vec::new(), min_length: 0, unknown_keys: true }
    }

    /// The same secrets, and all keys that can be told by what they look like.
    pub fn with_unknown_keys(self) -> Self {
        Self { unknown_keys: true, ..self }
    }

    pub(crate) fn index(&self) -> Result<Index, IndexError> {
        if self.unknown_keys && self.secrets.is_empty() {
            return Ok(Index::of_unknown_keys());
        }
        let index = Index::new(&self.all(), &FORMS, self.min_length)?;
        Ok(if self.unknown_keys { index.with_unknown_keys() } else { index })
    }

    /// Why the search for keys by what they look like finds none, if it does not.
    pub(crate) fn silent(&self) -> Option<String> {
        if self.unknown_keys { keys::silent() } else { None }
    }

    /// Secrets first, then decoys: the order of needle numbers.
    pub(crate) fn all(&self) -> Vec<&[u8]> {
        self.secrets.iter().chain(&self.decoys).map(Canary::bytes).collect()
    }

    /// How many secrets.
    pub(crate) fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// How many decoys.
    pub(crate) fn decoys(&self) -> u32 {
        u32::try_from(self.decoys.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_decoy(&self, needle: u32) -> bool {
        needle as usize >= self.secrets.len() && needle != keys::UNKNOWN
    }
}

/// Searches one path, and everything below it if it is a directory.
///
/// # Errors
///
/// [`SearchError`] when the needles cannot be indexed; what cannot be read is part of the outcome.
pub fn search(
    path: &Path,
    needles: &Needles,
    interrupted: &AtomicBool,
    observer: &dyn Observer,
) -> Result<Outcome, SearchError> {
    let index = needles.index()?;
    let mut reasons: Vec<String> = needles.silent().into_iter().collect();
    let planted = prove(&index, needles);
    let expected = needles.secrets.len();
    if planted as usize != expected {
        reasons.push(format!("silent control: {planted} of {expected} secrets were found where they were planted"));
    }
    let mut found = Vec::new();
    let mut coverage = Coverage::default();
    let mut files = Vec::new();
    let root = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    list(path, &root, &mut files, &mut reasons);
    for file in files {
        if interrupted.load(Ordering::Relaxed) {
            reasons.push("interrupted".to_owned());
            break;
        }
        match one(&file, &index) {
            Ok((part, hits)) => {
                observer.on(&Progress::Searched { bytes: part.read });
                coverage.add(&part);
                found.extend(hits.into_iter().map(|hit| (file.clone(), hit)));
            }
            Err(error) => {
                reasons.push(format!("{}: {}", file.display(), chain(&error)));
            }
        }
    }
    reasons.extend(judge::unread("file", &coverage));
    let decoy_hits = found.iter().filter(|(_, hit)| needles.is_decoy(hit.found.needle)).count();
    if decoy_hits > 0 {
        reasons.push(format!("{decoy_hits} hits of decoys, which are nowhere"));
    }
    let findings: Vec<Finding> = found
        .iter()
        .filter(|(_, hit)| !needles.is_decoy(hit.found.needle))
        .map(|(file, hit)| judge::finding(&nameable(file.display().to_string(), &index), "file", 0, hit))
        .collect();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let verdict = judge::seen(&findings, &reasons, number(decoy_hits));
    let whole = findings.iter().filter(|finding| finding.whole).count();
    let mut outcome = Outcome {
        scenario: path.display().to_string(),
        holder: "files".to_owned(),
        ending: "at rest".to_owned(),
        expectation: "clean".to_owned(),
        control: false,
        verdict,
        as_expected: verdict == Verdict::Clean,
        reasons,
        ended: "not run".to_owned(),
        observations: vec![Observation {
            checkpoint: "file".to_owned(),
            process: 0,
            looked: Looked::Yes,
            threads: 0,
            coverage,
            kept: None,
            exposure: None,
            core: None,
            kept_freed: None,
            whole: number(whole),
            fragments: number(findings.len() - whole),
            public: 0,
            decoy_hits: number(decoy_hits),
        }],
        controls: Controls { planted, decoys: number(needles.decoys.len()), decoy_hits: number(decoy_hits) },
        findings,
        shows: Vec::new(),
    };
    veil(&mut outcome, &index);
    Ok(outcome)
}

/// The positive control: how many of the secrets the index finds in every one of their forms, planted in a sheet of
/// otherwise equal bytes.
pub(crate) fn prove(index: &Index, needles: &Needles) -> u32 {
    let found = |needle: usize, secret: &Canary| {
        encode(secret.bytes(), &FORMS).iter().all(|pattern| {
            let mut sheet = vec![b'.'; 61];
            sheet.extend_from_slice(pattern.bytes());
            sheet.resize(sheet.len() + 61, b'.');
            let mut scanner = Scanner::new(index);
            scanner.feed(0, &sheet);
            sheet.zeroize();
            scanner.finish().iter().any(|hit| hit.needle as usize == needle && hit.whole)
        })
    };
    let found = needles.secrets.iter().enumerate().filter(|(needle, secret)| found(*needle, secret)).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}

/// All regular files below a path, in the order of their names. What is not searched and is no link into what is
/// gets a reason.
pub(crate) fn list(path: &Path, root: &Path, files: &mut Vec<PathBuf>, reasons: &mut Vec<String>) {
    let listed = path.symlink_metadata().and_then(|meta| {
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut below = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            below.sort();
            for path in below {
                list(&path, root, files, reasons);
            }
        } else if kind.is_file() {
            files.push(path.to_owned());
        } else if kind.is_symlink() {
            // One that leads nowhere, or to what is searched where it lies, hides nothing.
            if path.canonicalize().is_ok_and(|real| !real.starts_with(root)) {
                reasons.push(format!("{}: a symbolic link out of what is searched, not followed", path.display()));
            }
        } else {
            reasons.push(format!("{}: neither file nor directory, not read", path.display()));
        }
        Ok(())
    });
    if let Err(error) = listed {
        reasons.push(format!("{}: {error}", path.display()));
    }
}

pub(crate) fn one(path: &Path, index: &Index) -> Result<(Coverage, Vec<Hit>), CoreError> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if is_core(&file)? {
        return search_core(&file, index);
    }
    let (mut coverage, mut hits) = (Coverage::default(), Vec::new());
    if let Some(Stored { mut core, is_report }) = snapshot::open_stored(&file)? {
        (coverage, hits) = search_core_stream(&mut core, index)?;
        if !is_report {
            return Ok((coverage, hits));
        }
    }
    let listed = file.metadata()?.len();
    let (read, in_text) = plain(&file, index)?;
    let mut text = Coverage { listed: listed.max(read), read, ..Coverage::default() };
    text.refuse("the file shrank while it was read", text.listed - read);
    coverage.add(&text);
    hits.extend(in_text);
    Ok((coverage, hits))
}

/// Whether a file begins like an ELF core.
fn is_core(file: &File) -> io::Result<bool> {
    let mut start = [0; 18];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(snapshot::begins_core(&start)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn plain(mut file: &File, index: &Index) -> io::Result<(u64, Vec<Hit>)> {
    let mut scanner = Scanner::new(index);
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    let read = loop {
        match file.read(&mut buffer) {
            Ok(0) => break Ok(at),
            Ok(read) => {
                scanner.feed(at, &buffer[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    buffer.zeroize();
    let hit = |found| Hit { found, class: Class::Data, place: String::new(), permissions: String::new() };
    Ok((read?, scanner.finish().into_iter().map(hit).collect()))
}
