//! Searching files: cores by their headers, those that a crash handler stored unpacked on the way, everything else as plain
//! bytes.
//!
//! Directories are walked without following symbolic links. What is no regular file and what cannot be read makes the
//! search inconclusive. The needles prove themselves in every search: each is found in a sheet of bytes in
//! which it was planted, and decoys are found nowhere.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use findings::{Class, Controls, Coverage, Looked, Observation, Outcome, Verdict};
use zeroize::{Zeroize, Zeroizing};

use crate::audit::DECOYS;
use crate::canary::{Canary, Seed};
use crate::judge;
use crate::progress::{Observer, Progress};
use crate::scan::{Index, IndexError, Scanner, keys};
use crate::session::{self, Hit, Searched, chain, search_core, search_core_stream};
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

    fn is_decoy(&self, needle: u32) -> bool {
        needle as usize >= self.secrets.len() && needle != keys::UNKNOWN
    }

    /// What one look at something that was there before us came to: how many secrets were found where they were planted,
    /// what keeps the look from being clean, each hit with the name of what it lies in, and the checkpoint and the process
    /// of the look. The names and the rest of the look are the caller's to fill in.
    pub(crate) fn outcome<'a>(
        &self,
        planted: u32,
        mut reasons: Vec<String>,
        hits: impl Iterator<Item = (String, &'a Hit)>,
        (checkpoint, process): (&str, u32),
    ) -> Outcome {
        let expected = self.secrets.len();
        if planted as usize != expected {
            let why = format!("silent control: {planted} of {expected} secrets were found where they were planted");
            reasons.insert(0, why);
        }
        let (mut findings, mut decoy_hits) = (Vec::new(), 0_u32);
        for (name, hit) in hits {
            if self.is_decoy(hit.found.needle) {
                decoy_hits = decoy_hits.saturating_add(1);
            } else {
                findings.push(judge::finding(&name, checkpoint, process, hit));
            }
        }
        if decoy_hits > 0 {
            reasons.push(format!("{decoy_hits} hits of decoys, which are nowhere"));
        }
        let verdict = judge::seen(&findings, &reasons, decoy_hits);
        let whole = judge::count(findings.iter().filter(|finding| finding.whole));
        let observation = Observation {
            checkpoint: checkpoint.to_owned(),
            process,
            looked: Looked::Yes,
            threads: 0,
            coverage: Coverage::default(),
            kept: None,
            exposure: None,
            core: None,
            kept_freed: None,
            whole,
            fragments: judge::count(findings.iter()) - whole,
            public: 0,
            decoy_hits,
        };
        Outcome {
            scenario: String::new(),
            holder: String::new(),
            ending: String::new(),
            expectation: "clean".to_owned(),
            control: false,
            verdict,
            as_expected: verdict == Verdict::Clean,
            reasons,
            ended: String::new(),
            observations: vec![observation],
            controls: Controls { planted, decoys: judge::count(self.decoys.iter()), decoy_hits },
            findings,
            shows: Vec::new(),
        }
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
    let mut found = Vec::new();
    let mut coverage = Coverage::default();
    let mut files = Vec::new();
    let root = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    list(path, &root, &index, &mut files, &mut found, &mut reasons);
    for file in files {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        match one(&file, &index, interrupted) {
            Ok(Searched { coverage: part, hits, unlisted }) => {
                observer.on(&Progress::Searched { bytes: part.read });
                coverage.add(&part);
                reasons.extend(session::unlisted(&file.display().to_string(), unlisted));
                found.extend(hits.into_iter().map(|hit| (file.clone(), hit)));
            }
            Err(error) => {
                reasons.push(format!("{}: {}", file.display(), chain(&error)));
            }
        }
    }
    if interrupted.load(Ordering::Relaxed) {
        reasons.push("interrupted".to_owned());
    }
    reasons.extend(judge::unread("file", &coverage));
    let hits = found.iter().map(|(file, hit)| (nameable(file.display().to_string(), &index), hit));
    let mut outcome = needles.outcome(planted, reasons, hits, ("file", 0));
    outcome.scenario = path.display().to_string();
    outcome.holder = "files".to_owned();
    outcome.ending = "at rest".to_owned();
    outcome.ended = "not run".to_owned();
    outcome.observations.iter_mut().for_each(|observation| observation.coverage = coverage.clone());
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

/// All regular files below a path, in the order of their names, and what is found in the names of everything there, links'
/// aims included. What is not searched and is no link into what is gets a reason.
pub(crate) fn list(
    path: &Path,
    root: &Path,
    index: &Index,
    files: &mut Vec<PathBuf>,
    names: &mut Vec<(PathBuf, Hit)>,
    reasons: &mut Vec<String>,
) {
    let mut search = |text: &std::ffi::OsStr, place: &str| {
        let mut scanner = Scanner::new(index);
        scanner.feed(0, text.as_bytes());
        let hit = |found| Hit { found, class: Class::Data, place: place.to_owned(), permissions: String::new() };
        names.extend(scanner.finish().into_iter().map(|found| (path.to_owned(), hit(found))));
    };
    search(path.file_name().unwrap_or_default(), "its name");
    if let Ok(aim) = path.read_link() {
        search(aim.as_os_str(), "where it leads");
    }
    let listed = path.symlink_metadata().and_then(|meta| {
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut below = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            below.sort();
            for path in below {
                list(&path, root, index, files, names, reasons);
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

/// Searches one file: a core, a stored core, or anything else as it is.
///
/// # Errors
///
/// When it cannot be opened, or is a core that cannot be read as one.
pub(crate) fn one(path: &Path, index: &Index, interrupted: &AtomicBool) -> Result<Searched, CoreError> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if is_core(&file)? {
        return search_core(&file, index, interrupted);
    }
    let mut searched = Searched::default();
    if let Some(Stored { mut core, is_report }) = snapshot::open_stored(&file)? {
        searched = search_core_stream(&mut core, index, interrupted)?;
        if !is_report {
            return Ok(searched);
        }
    }
    let text = plain(&file, file.metadata()?.len(), index, interrupted)?;
    searched.coverage.add(&text.coverage);
    searched.hits.extend(text.hits);
    searched.unlisted += text.unlisted;
    Ok(searched)
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

/// Reads a file but for its holes, which hold zeroes: they count as never populated.
fn plain(file: &File, length: u64, index: &Index, interrupted: &AtomicBool) -> io::Result<Searched> {
    let mut scanner = Scanner::new(index);
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    let mut coverage = Coverage::default();
    let (mut at, mut data) = (0, 0);
    let why = loop {
        if interrupted.load(Ordering::Relaxed) {
            break Some("interrupted".to_owned());
        }
        if at >= data && at < length {
            // Behind the end of a file there is no hole.
            let end = length.min(file.metadata()?.len());
            if end <= at {
                break Some("the file shrank while it was read".to_owned());
            }
            let hole;
            (hole, data) = snapshot::next_data(file, at, end);
            snapshot::edges(at, hole).for_each(|(at, zeroes)| scanner.feed(at, zeroes));
            coverage.never_populated += hole - at;
            at = hole;
            if at < length && at == data {
                continue;
            }
        }
        // One that grows is read to where it ends then; so is one that tells no length, as those of /proc do.
        let room = if at < data { usize::try_from(data - at).unwrap_or(CHUNK) } else { CHUNK };
        match file.read_at(&mut buffer[..room.min(CHUNK)], at) {
            Ok(0) => break (at < length).then(|| "the file shrank while it was read".to_owned()),
            Ok(read) => {
                scanner.feed(at, &buffer[..read]);
                coverage.read += read as u64;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if at == 0 => return Err(error),
            Err(error) => break Some(error.to_string()),
        }
    };
    if let Some(why) = why {
        // Where the rest begins behind the length that was told, it is unknown, and more than nothing.
        coverage.refuse(&why, length.saturating_sub(at).max(1));
    }
    coverage.listed = coverage.read + coverage.never_populated + coverage.refused_bytes();
    let (found, unlisted) = scanner.finish_counted();
    let hit = |found| Hit { found, class: Class::Data, place: String::new(), permissions: String::new() };
    Ok(Searched { coverage, hits: found.into_iter().map(hit).collect(), unlisted })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"k\x91v\xa2Qm\x07\xd3\x18\xe6Z\x8f,\xb4n\xc1";

    fn needles() -> Needles {
        Needles::new(vec![Canary::given(Zeroizing::new(SECRET.to_vec())).unwrap()], 6).unwrap()
    }

    fn sparse(length: u64, secret_at: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        file.write_all_at(SECRET, secret_at).unwrap();
        file
    }

    #[test]
    fn what_lies_between_holes_is_found_where_it_lies() {
        let index = needles().index().unwrap();
        let (length, at) = (64 << 20, (32 << 20) - 3);

        let searched = plain(&sparse(length, at), length, &index, &AtomicBool::new(false)).unwrap();

        let places: Vec<_> = searched.hits.iter().map(|hit| (hit.found.address, hit.found.whole)).collect();
        assert_eq!(places, [(at, true)]);
        assert_eq!((searched.coverage.listed, searched.coverage.adds_up()), (length, true));
        assert_eq!(searched.coverage.refused, []);
    }

    #[test]
    fn a_file_that_is_longer_or_shorter_than_it_was_adds_up_and_is_never_complete_when_shorter() {
        let index = needles().index().unwrap();
        let (file, go_on) = (sparse(8 << 20, 4 << 20), AtomicBool::new(false));

        let [grown, shrunk] = [1 << 20, 9 << 20].map(|told| plain(&file, told, &index, &go_on).unwrap());

        assert_eq!((grown.hits.len(), grown.coverage.adds_up(), grown.coverage.listed), (1, true, 8 << 20));
        assert_eq!((shrunk.hits.len(), shrunk.coverage.adds_up()), (1, true));
        assert!(shrunk.coverage.refused_bytes() >= 1 << 20, "{:?}", shrunk.coverage);
    }

    #[test]
    fn an_interrupt_ends_a_file_before_it_is_read_and_says_so() {
        let index = needles().index().unwrap();
        let stop = AtomicBool::new(true);
        let length = 64 << 20;

        let searched = plain(&sparse(length, 5), length, &index, &stop).unwrap();

        assert_eq!((searched.hits.len(), searched.coverage.read), (0, 0));
        assert_eq!(searched.coverage.refused[0].why, "interrupted");
        assert_eq!((searched.coverage.listed, searched.coverage.adds_up()), (length, true));
    }

    #[test]
    fn names_of_files_and_directories_and_aims_of_links_are_searched_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::create_dir(dir.path().join(&hex)).unwrap();
        std::fs::write(dir.path().join(&hex).join(format!("{}.txt", &hex[..16])), "nothing").unwrap();
        std::os::unix::fs::symlink(format!("{hex}/."), dir.path().join("link")).unwrap();

        let outcome = search(dir.path(), &needles(), &AtomicBool::new(false), &crate::progress::Nobody).unwrap();

        let mut found: Vec<_> =
            outcome.findings.iter().map(|finding| (finding.place.as_str(), finding.secret_length)).collect();
        found.sort_unstable();
        assert_eq!(found, [("its name", 8), ("its name", 16), ("where it leads", 16)]);
        assert!(!format!("{outcome:?}").contains(&hex[..16]), "{outcome:?}");
    }

    #[test]
    fn a_search_that_is_interrupted_is_inconclusive() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"nothing").unwrap();
        let search = |stop| search(dir.path(), &needles(), &AtomicBool::new(stop), &crate::progress::Nobody).unwrap();

        let [stopped, whole] = [true, false].map(search);

        assert!(stopped.reasons.contains(&"interrupted".to_owned()), "{:?}", stopped.reasons);
        assert_eq!((stopped.verdict, whole.verdict), (Verdict::Inconclusive, Verdict::Clean));
    }

    #[test]
    fn a_file_full_of_a_secret_lists_what_it_can_and_says_how_much_more_there_is() {
        let index = needles().index().unwrap();
        let more = 100;
        let full = [SECRET, b"."].concat().repeat(crate::scan::MOST + more);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&full, 0).unwrap();

        let searched = plain(&file, full.len() as u64, &index, &AtomicBool::new(false)).unwrap();

        assert_eq!((searched.hits.len(), searched.unlisted), (crate::scan::MOST, more as u64));
        assert!(searched.hits.iter().all(|hit| hit.found.whole && hit.found.address < 17 * crate::scan::MOST as u64));
        let said = session::unlisted("full", searched.unlisted).unwrap();
        assert_eq!(said, "full: 100 places more that hold a needle are not listed");
    }
}
