//! The journal: what it shows of what was done to it, what it survives, and what it says of keys and buffers.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::pieces::{pattern, pieces, pieces_after};
use common::{CHILD, Refused, in_child, skipped};
use secmem::journal::{
    self, Action, Actor, Amount, Checks, Entry, Error, Fault, Head, Journal, Name, Options, Outcome, SigningKey,
    Subject, Sync, Verdict,
};
use secmem::manager::{self, Manager};
use secmem::{Backend, Secret, TestClock, pqc, records};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn entry(text: &str) -> Entry {
    Entry::done(Action::Other(name(text)), None)
}

fn verified(path: &Path, checks: &Checks) -> Verdict {
    journal::verify(File::open(path).unwrap(), checks).unwrap()
}

fn fault(path: &Path, checks: &Checks) -> (u64, Fault) {
    match verified(path, checks) {
        Verdict::Broken { line, fault } => (line, fault),
        other => panic!("{other:?}"),
    }
}

/// How many entries a journal has that is whole.
fn entries(path: &Path) -> u64 {
    match verified(path, &Checks::default()) {
        Verdict::Whole(account) => account.head.entries,
        other => panic!("{other:?}"),
    }
}

/// A journal's place, in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    Place { directory, path }
}

/// A journal of six lines, and the head of each.
fn six(options: Options) -> (Place, Vec<Head>) {
    let place = place();
    let journal = Journal::open(&place.path, options).unwrap();
    let mut heads = vec![journal.head().unwrap()];
    heads.extend((2..=6).map(|at| journal.append(&entry(&format!("entry-{at}"))).unwrap()));
    (place, heads)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().split_inclusive('\n').map(str::to_owned).collect()
}

fn columns(line: &str) -> Vec<&str> {
    line.trim_end().split(' ').collect()
}

/// A number that is drawn from a seed, which is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = std::env::var("SECMEM_TEST_SEED").ok().and_then(|it| it.parse().ok());
        let seed = seed.unwrap_or(clock.as_nanos() as u64);
        eprintln!("SECMEM_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `most`.
    fn next(&mut self, most: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut it = self.0;
        it = (it ^ it >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        it = (it ^ it >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (it ^ it >> 31) % most
    }
}

#[test]
fn what_was_appended_stands_there_in_its_columns_and_is_whole() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let actor = Actor::new(name("user 7")).purpose(name("a case\n"));
    let said = Entry::failed(Action::Other(name("seen")), Some(Subject::Other(name("a>b"))), name("no"));

    let head = journal::acting_as(&actor, || journal.append(&said.amount(Amount::Bytes(7)))).unwrap();
    journal.append(&entry("later")).unwrap();

    let lines = lines(&place.path);
    assert_eq!(lines.len(), 3);
    let begin = columns(&lines[0]);
    assert_eq!(
        (begin[0], begin[1], &begin[3..6], &begin[7..9]),
        ("SMJ1", "1", &["-", "-", "begin"][..], &["done", "-"][..])
    );
    assert!(begin[6].starts_with("journal:") && begin[6].len() == 40, "{begin:?}");
    let said = columns(&lines[1]);
    assert_eq!(&said[3..9], ["user%207", "a%20case%0A", "other:seen", "other:a%3Eb", "failed:no", "bytes=7"]);
    assert_eq!(head.to_string(), format!("2:{}", said[9]));
    assert_eq!(&columns(&lines[2])[3..6], ["-", "-", "other:later"]);
    let Verdict::Whole(account) = verified(&place.path, &Checks::default().head(head)) else { panic!() };
    assert_eq!((account.head, account.signer, account.checked), (journal.head().unwrap(), None, false));
    assert_eq!(account.len, fs::metadata(&place.path).unwrap().len());
    assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// By a program of this repository's that shares no code with the library: see the page of the module for the format.
#[test]
fn the_chain_is_what_the_format_says() {
    let (place, _) = six(Options::default());
    let mut before = [0; 32];
    for line in lines(&place.path) {
        let (said, stated) = line.trim_end().rsplit_once(' ').unwrap();
        let mut hasher = blake3::Hasher::new_derive_key("secmem journal v1 chain");
        hasher.update(&before).update(said.as_bytes());
        before = *hasher.finalize().as_bytes();
        assert_eq!(stated, before.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}

#[test]
fn a_journal_goes_on_where_it_was() {
    let (place, heads) = six(Options::default());

    let journal = Journal::open(&place.path, Options::default().head(heads[3])).unwrap();

    assert_eq!((journal.head().unwrap(), journal.mended()), (heads[5], None));
    journal.append(&entry("more")).unwrap();
    assert_eq!(entries(&place.path), 7);
}

#[test]
fn every_changed_byte_is_told_at_its_line() {
    let key = SigningKey::draw().unwrap();
    let checks = Checks::default().signed_by(key.public());
    // Signatures take their time where nothing is optimised: a byte of each column, and then some.
    for (options, checks, step) in
        [(Options::default(), Checks::default(), 1), (Options::default().sign(key), checks, 31)]
    {
        let (place, _) = six(options);
        let whole = fs::read(&place.path).unwrap();
        assert!(matches!(verified(&place.path, &checks), Verdict::Whole(_)));
        for at in (0..whole.len()).step_by(step) {
            let line = 1 + whole[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let verdict = journal::verify(&changed[..], &checks).unwrap();
            // The last line's end is another matter: without it the line is half an entry.
            let torn = at == whole.len() - 1 && matches!(verdict, Verdict::Torn { .. });
            assert!(torn || matches!(verdict, Verdict::Broken { line: it, .. } if it == line), "{at}: {verdict:?}");
        }
    }
}

#[test]
fn lines_that_are_removed_repeated_or_moved_are_told() {
    let (place, _) = six(Options::default());
    let whole = lines(&place.path);
    let of = |order: &[usize]| {
        let text: String = order.iter().map(|at| whole[*at].as_str()).collect();
        journal::verify(text.as_bytes(), &Checks::default()).unwrap()
    };
    let number = |line, found| Verdict::Broken { line, fault: Fault::Number { found, expected: line } };

    assert!(matches!(of(&[0, 1, 2, 3, 4, 5]), Verdict::Whole(_)));
    assert_eq!(of(&[0, 1, 3, 4, 5]), number(3, 4));
    assert_eq!(of(&[0, 1, 2, 2, 3]), number(4, 3));
    assert_eq!(of(&[0, 2, 1, 3]), number(2, 3));
    assert_eq!(of(&[1, 2, 3]), number(1, 2));
    let of_another = lines(&six(Options::default()).0.path);
    let spliced = [&whole[..3], &of_another[3..]].concat().concat();
    assert_eq!(
        journal::verify(spliced.as_bytes(), &Checks::default()).unwrap(),
        Verdict::Broken { line: 4, fault: Fault::Chain }
    );
}

/// What the page says that a chain does not show, and that signatures do not; and what does.
#[test]
fn lines_cut_off_the_end_are_shown_by_a_head_that_was_kept_and_by_nothing_else() {
    let key = SigningKey::draw().unwrap();
    let checks = Checks::default().signed_by(key.public());
    let (place, heads) = six(Options::default().sign(key));
    let four = lines(&place.path)[..4].concat();
    fs::write(&place.path, &four).unwrap();

    assert!(matches!(verified(&place.path, &checks), Verdict::Whole(it) if it.head == heads[3]));
    assert_eq!(fault(&place.path, &checks.clone().head(heads[5])), (5, Fault::CutOff { kept: 6 }));
    assert!(matches!(verified(&place.path, &checks.clone().head(heads[3])), Verdict::Whole(_)));
    // All of it, too.
    fs::write(&place.path, "").unwrap();
    assert_eq!(fault(&place.path, &checks), (1, Fault::Empty));
    assert!(matches!(
        Journal::open(&place.path, Options::default().head(heads[0])),
        Err(Error::Broken { line: 1, source: Fault::CutOff { kept: 1 } })
    ));
}

#[test]
fn who_writes_all_anew_is_found_out_by_a_signature_or_a_head() {
    let key = SigningKey::draw().unwrap();
    let signed = Checks::default().signed_by(key.public());
    let (place, heads) = six(Options::default().sign(key));
    let unsigned = six(Options::default()); // a whole journal, by its own account
    let other = six(Options::default().sign(SigningKey::draw().unwrap()));
    assert!(matches!(verified(&unsigned.0.path, &Checks::default()), Verdict::Whole(_)));
    assert!(matches!(verified(&place.path, &signed), Verdict::Whole(it) if it.checked));

    assert_eq!(fault(&unsigned.0.path, &signed), (1, Fault::OtherKey));
    assert_eq!(fault(&other.0.path, &signed), (1, Fault::OtherKey));
    assert_eq!(fault(&unsigned.0.path, &Checks::default().head(heads[2])), (3, Fault::OtherHead));
    // The name of the key with signatures of another, or with none.
    let mut stripped = String::new();
    for line in lines(&place.path) {
        stripped += line.rsplit_once(' ').unwrap().0;
        stripped.push('\n');
    }
    let verdict = journal::verify(stripped.as_bytes(), &Checks::default()).unwrap();
    assert_eq!(verdict, Verdict::Broken { line: 1, fault: Fault::Unsigned });
    let mut line = lines(&place.path).swap_remove(0);
    let stolen = columns(&lines(&other.0.path)[0])[10].to_owned();
    line.replace_range(line.len() - 129..line.len() - 1, &stolen);
    let verdict = journal::verify(line.as_bytes(), &signed).unwrap();
    assert_eq!(verdict, Verdict::Broken { line: 1, fault: Fault::Signature });
}

#[test]
fn a_journal_is_signed_by_one_key_or_not_at_all() {
    let (signed, _) = six(Options::default().sign(SigningKey::draw().unwrap()));
    let (unsigned, _) = six(Options::default());
    let other = || Options::default().sign(SigningKey::draw().unwrap());

    assert!(matches!(Journal::open(&signed.path, Options::default()), Err(Error::OtherKey)));
    assert!(matches!(Journal::open(&signed.path, other()), Err(Error::OtherKey)));
    assert!(matches!(Journal::open(&unsigned.path, other()), Err(Error::OtherKey)));
}

#[test]
fn bytes_that_are_no_journal_are_told_and_not_added_to() {
    let long = [b'x'; 5000];
    for (bytes, expected) in [
        (&b"hello\n"[..], Fault::Version),
        (b"hello", Fault::Version), // somebody's file, of one line without an end
        (b"SMJ1 2 ", Fault::Version),
        (b"\n", Fault::Version),
        (b"SMJ2 1 0 - - begin - done - 00\n", Fault::Version),
        (b"SMJ1 1 0 - - begin - done -\n", Fault::Form),
        (b"SMJ1 1 0 - -  begin - done -\n", Fault::Form),
        (b"SMJ1 01 0 - - begin - done - 00\n", Fault::Form),
        (&long, Fault::TooLong),
    ] {
        let place = place();
        fs::write(&place.path, bytes).unwrap();
        assert_eq!(fault(&place.path, &Checks::default()), (1, expected));
        let refused = Journal::open(&place.path, Options::default());
        assert!(matches!(refused, Err(Error::Broken { line: 1, source }) if source == expected), "{refused:?}");
        assert_eq!(fs::read(&place.path).unwrap(), bytes);
    }
}

#[test]
fn half_an_entry_is_told_and_cut_off_at_every_length() {
    let (place, heads) = six(Options::default());
    let whole = fs::read(&place.path).unwrap();
    let last = lines(&place.path)[5].len();
    let first = lines(&place.path)[0].len();
    for len in (whole.len() - last + 1..whole.len()).chain([1, first - 1]) {
        fs::write(&place.path, &whole[..len]).unwrap();
        let Verdict::Torn { account, bytes } = verified(&place.path, &Checks::default()) else { panic!("{len}") };
        assert_eq!(account.len + bytes, len as u64);

        let journal = Journal::open(&place.path, Options::default()).unwrap();

        assert_eq!(journal.mended(), Some(bytes));
        assert_eq!(entries(&place.path), account.head.entries.max(1) + 1, "and an entry says so");
        let lines = lines(&place.path);
        let said = columns(lines.last().unwrap());
        assert_eq!((said[5], said[8]), ("mend", format!("bytes={bytes}").as_str()));
        if account.head.entries == 5 {
            assert!(
                matches!(verified(&place.path, &Checks::default().head(heads[4])), Verdict::Whole(it) if it.mended == 1)
            );
        }
    }
}

#[test]
fn one_process_writes() {
    let (place, _) = six(Options::default());
    let journal = Journal::open(&place.path, Options::default()).unwrap();

    assert!(matches!(Journal::open(&place.path, Options::default()), Err(Error::Locked)));
    drop(journal);

    assert!(Journal::open(&place.path, Options::default()).is_ok());
}

#[test]
fn what_is_no_file_is_refused() {
    let place = place();
    let link = place.directory.path().join("link");
    std::os::unix::fs::symlink("journal", &link).unwrap();
    let directory = place.directory.path().join("directory");
    fs::create_dir(&directory).unwrap();

    assert!(matches!(Journal::open("/dev/null", Options::default()), Err(Error::NoFile)));
    assert!(matches!(Journal::open(&link, Options::default()), Err(Error::Open { doing: "open", .. })));
    assert!(matches!(Journal::open(&directory, Options::default()), Err(Error::Open { doing: "open", .. })));
    assert!(!place.path.exists());
}

#[test]
fn a_file_that_changes_under_its_writer_stops_it() {
    let (place, _) = six(Options::default());
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let whole = fs::read(&place.path).unwrap();
    let mut other = OpenOptions::new().append(true).open(&place.path).unwrap();

    other.write_all(b"SMJ1 forged\n").unwrap();
    let (len, expected) = (whole.len() as u64 + 12, whole.len() as u64);
    assert!(
        matches!(journal.append(&entry("x")), Err(Error::Changed { len: a, expected: b }) if (a, b) == (len, expected))
    );
    other.set_len(expected).unwrap();
    assert!(journal.append(&entry("x")).is_ok(), "what is as it was can go on");
    let Verdict::Whole(account) = verified(&place.path, &Checks::default()) else { panic!() };
    assert_eq!((account.head.entries, account.missed), (8, 1));
    other.set_len(expected - 3).unwrap();
    assert!(matches!(journal.append(&entry("x")), Err(Error::Changed { .. })));

    let elsewhere = place.directory.path().join("elsewhere");
    other.set_len(fs::metadata(&place.path).unwrap().len().max(expected)).unwrap();
    fs::rename(&place.path, &elsewhere).unwrap();
    assert!(matches!(journal.append(&entry("x")), Err(Error::Removed)));
    fs::write(&place.path, b"another").unwrap();
    assert!(matches!(journal.append(&entry("x")), Err(Error::Removed)));
    fs::remove_file(&elsewhere).unwrap();
    assert!(matches!(journal.append(&entry("x")), Err(Error::Removed)));
}

#[test]
fn a_forked_child_writes_nothing() {
    let (place, _) = six(Options::default());
    let journal = Journal::open(&place.path, Options::default()).unwrap();

    let mut journal = Some(journal);
    let ended = common::fork(|| {
        let journal = journal.take().expect("the child has a copy");
        let refused = journal.append(&entry("child"));
        drop(journal); // the last handle, there
        i32::from(!matches!(refused, Err(Error::Memory(secmem::Error::Forked))))
    });

    assert_eq!(ended, 0);
    assert!(
        matches!(Journal::open(&place.path, Options::default()), Err(Error::Locked)),
        "the lock is the parent's still"
    );
    journal.unwrap().append(&entry("parent")).unwrap();
    assert_eq!(entries(&place.path), 7);
}

/// As any program's can that starts others: between fork and exec they have the file open, too.
#[test]
fn a_journal_that_is_dropped_can_be_opened_while_a_child_has_the_file_yet() {
    let ended = in_child(|| {
        let (place, _) = six(Options::default());
        let journal = Journal::open(&place.path, Options::default()).unwrap();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap(); // where this process fails

        let in_child = std::thread::spawn(move || {
            // It says that it is there, and waits to be told to end.
            common::fork(|| i32::from((&theirs).write(&[0]).and((&theirs).read(&mut [0])).is_err()))
        });
        ours.read_exact(&mut [0]).unwrap();
        drop(journal);

        assert!(Journal::open(&place.path, Options::default()).is_ok());
        ours.write_all(&[0]).unwrap();
        assert_eq!(in_child.join().unwrap(), 0);
    });
    assert!(ended.status.success(), "{ended:?}");
}

/// Appends as fast as it can, and says the number of each entry that was written.
fn append_for_ever(path: &Path, sync: Sync) -> ! {
    let journal = Journal::open(path, Options::default().sync(sync)).unwrap();
    let mut out = std::io::stdout();
    loop {
        let head = journal.append(&entry(&"x".repeat(100))).unwrap();
        out.write_all(format!("{}\n", head.entries).as_bytes()).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_at_any_time_loses_no_entry_that_was_written() {
    const NAME: &str = "a_process_that_is_killed_at_any_time_loses_no_entry_that_was_written";
    if std::env::var(CHILD).as_deref() == Ok(NAME) {
        append_for_ever(&PathBuf::from(std::env::var_os("SECMEM_TEST_PATH").unwrap()), Sync::Leave);
    }
    let mut random = Random::new();
    let place = place();
    let mut told = 0;
    let mut mended = 0;
    for _ in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(CHILD, NAME);
        child.env("SECMEM_TEST_PATH", &place.path).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        let mut acknowledged = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = told + 1 + random.next(60);
        let spins = random.next(100_000);
        let mut number = |line: Option<std::io::Result<String>>| {
            // What the harness of the tests prints is no number.
            let number = line?.unwrap().parse::<u64>();
            told = number.as_ref().map_or(told, |it| *it);
            Some(told)
        };
        while number(acknowledged.next()).expect("it writes for ever") < until {}
        (0..spins).for_each(|it| _ = std::hint::black_box(it));
        child.kill().unwrap();
        while number(acknowledged.next()).is_some() {} // what it has said before
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        match verified(&place.path, &Checks::default()) {
            Verdict::Whole(account) => assert!(account.head.entries >= told, "{account:?} after {told}"),
            Verdict::Torn { account, .. } => {
                assert!(account.head.entries >= told, "{account:?} after {told}");
                mended += 1;
            }
            broken => panic!("{broken:?} after {told}"),
        }
    }
    eprintln!("{told} entries, {mended} of 20 processes killed within one"); // for who runs it; nothing depends on it
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    assert!(journal.head().unwrap().entries >= told);
}

/// The kernel writes a line in one piece where it can. A limit cuts one in the middle, at a place that is drawn; what would take the
/// half back is refused; then the process is killed.
#[test]
fn a_process_that_is_killed_within_a_line_leaves_half_of_it_and_no_other_is_lost() {
    const NAME: &str = "a_process_that_is_killed_within_a_line_leaves_half_of_it_and_no_other_is_lost";
    if std::env::var(CHILD).as_deref() == Ok(NAME) {
        let limit = std::env::var("SECMEM_TEST_LIMIT").unwrap().parse().unwrap();
        append_until(limit, &PathBuf::from(std::env::var_os("SECMEM_TEST_PATH").unwrap()));
    }
    let mut random = Random::new();
    for _ in 0..10 {
        let place = place();
        drop(Journal::open(&place.path, Options::default()).unwrap());
        let limit = fs::metadata(&place.path).unwrap().len() + 1 + random.next(5000);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(CHILD, NAME);
        child.env("SECMEM_TEST_PATH", &place.path).env("SECMEM_TEST_LIMIT", limit.to_string());
        let ended = child.stdin(Stdio::null()).output().unwrap();
        assert_eq!(ended.status.signal(), Some(9), "{ended:?}");

        let standing = match verified(&place.path, &Checks::default()) {
            Verdict::Torn { account, bytes } => {
                assert_eq!(account.len + bytes, limit);
                account
            }
            Verdict::Whole(account) => {
                assert_eq!(account.len, limit); // the limit is the end of a line
                account
            }
            broken => panic!("{broken:?}"),
        };
        let kept = fs::read(&place.path).unwrap()[..standing.len as usize].to_vec();

        let journal = Journal::open(&place.path, Options::default().head(standing.head)).unwrap();

        assert_eq!(journal.mended(), Some(limit - standing.len).filter(|it| *it > 0));
        journal.append(&entry("after")).unwrap();
        assert!(fs::read(&place.path).unwrap().starts_with(&kept), "what was whole stands as it stood");
        assert!(matches!(verified(&place.path, &Checks::default()), Verdict::Whole(_)));
    }
}

/// Appends until the file has so many bytes, and is killed there.
fn append_until(limit: u64, path: &Path) -> ! {
    let journal = Journal::open(path, Options::default()).unwrap();
    common::set_handler(libc::SIGXFSZ, libc::SIG_IGN, 0);
    common::limit_file_size(limit);
    common::refuse(Refused { number: libc::SYS_ftruncate, argument: None }, libc::EIO);
    let error = loop {
        if let Err(error) = journal.append(&entry("until it is full")) {
            break error;
        }
    };
    assert!(matches!(error, Error::Write { .. }), "{error:?}");
    assert!(matches!(journal.append(&entry("again")), Err(Error::TakeBack { .. } | Error::Write { .. })));
    common::raise(libc::SIGKILL);
    unreachable!("it was killed");
}

#[test]
fn a_limit_that_is_reached_is_an_error_and_the_chain_goes_on() {
    let ended = in_child(|| {
        let place = place();
        let journal = Journal::open(&place.path, Options::default()).unwrap();
        common::set_handler(libc::SIGXFSZ, libc::SIG_IGN, 0);
        let full = fs::metadata(&place.path).unwrap().len() + 1000;
        common::limit_file_size_softly(full);
        let written = (0..).find(|_| journal.append(&entry("x")).is_err()).unwrap();
        assert!(written > 1);
        for _ in 0..4 {
            let refused = journal.append(&entry("y"));
            assert!(
                matches!(&refused, Err(Error::Write { source }) if source.raw_os_error() == Some(libc::EFBIG)),
                "{refused:?}"
            );
        }
        assert_eq!(journal.missed().unwrap(), 5);
        assert_eq!(entries(&place.path), 1 + written, "nothing of what was refused stands there");

        common::limit_file_size_softly(u64::MAX);
        journal.append(&entry("z")).unwrap();

        let Verdict::Whole(account) = verified(&place.path, &Checks::default()) else { panic!() };
        assert_eq!((account.head.entries, account.missed), (1 + written + 2, 5));
        assert_eq!(journal.missed().unwrap(), 0);
    });
    assert!(ended.status.success(), "{ended:?}");
}

/// On a small file system that is full; the disk is the kernel's own.
#[test]
fn a_full_disk_is_an_error_and_the_chain_goes_on() {
    const NAME: &str = "a_full_disk_is_an_error_and_the_chain_goes_on";
    if std::env::var(CHILD).as_deref() == Ok(NAME) {
        let disk = PathBuf::from(std::env::var_os("SECMEM_TEST_PATH").unwrap());
        let (path, ballast) = (disk.join("journal"), disk.join("ballast"));
        let journal = Journal::open(&path, Options::default()).unwrap();
        fs::write(&ballast, vec![1; 32 << 10]).unwrap();
        let refused = (0..10_000).find_map(|_| journal.append(&entry(&"x".repeat(100))).err()).expect("it is full");
        assert!(
            matches!(&refused, Error::Write { source } if source.raw_os_error() == Some(libc::ENOSPC)),
            "{refused:?}"
        );
        let standing = entries(&path);
        assert!(matches!(journal.append(&entry(&"x".repeat(100))), Err(Error::Write { .. })));

        fs::remove_file(&ballast).unwrap();
        journal.append(&entry("y")).unwrap();

        let Verdict::Whole(account) = verified(&path, &Checks::default()) else { panic!() };
        assert_eq!((account.head.entries, account.missed), (standing + 2, 2));
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let shell = "mount -t tmpfs -o size=64k none \"$0\" || exit 77; exec \"$@\"";
    let mut child = Command::new("unshare");
    child.args(["--mount", "--propagation", "private", "sh", "-c", shell]).arg(disk.path());
    child.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture", "--test-threads=1"]);
    let output = match child.env(CHILD, NAME).env("SECMEM_TEST_PATH", disk.path()).stdin(Stdio::null()).output() {
        Err(error) => return skipped(&format!("unshare: {error}")),
        Ok(output) => output,
    };
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || error.starts_with("unshare:") {
        return skipped(&format!("no small disk: {error}"));
    }
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_disk_that_does_not_say_that_it_has_an_entry_is_an_error_and_the_entry_is_taken_back() {
    let ended = in_child(|| {
        let (place, heads) = six(Options::default());
        let journal = Journal::open(&place.path, Options::default()).unwrap();
        common::refuse(Refused { number: libc::SYS_fdatasync, argument: None }, libc::EIO);

        assert!(matches!(journal.append(&entry("x")), Err(Error::Sync { .. })));

        assert_eq!((entries(&place.path), journal.head().unwrap()), (6, heads[5]));
        drop(journal);
        let journal = Journal::open(&place.path, Options::default().sync(Sync::Leave)).unwrap();
        journal.append(&entry("x")).unwrap();
        assert!(matches!(journal.sync(), Err(Error::Sync { .. })));
        assert_eq!(entries(&place.path), 7);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn threads_append_and_the_chain_holds() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default().sync(Sync::Leave)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let actor = Actor::new(name(&format!("thread {thread}")));
            let journal = &journal;
            scope.spawn(move || {
                journal::acting_as(&actor, || (0..100).for_each(|_| _ = journal.append(&entry("x")).unwrap()));
            });
        }
    });
    assert_eq!(entries(&place.path), 401);
    let of_two = lines(&place.path).iter().filter(|line| columns(line)[3] == "thread%202").count();
    assert_eq!(of_two, 100);
}

#[test]
fn an_actor_is_the_one_before_again_also_after_a_panic() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default().sync(Sync::Leave)).unwrap();
    let (outer, inner) = (Actor::new(name("outer")), Actor::new(name("inner")));
    journal::acting_as(&outer, || {
        let panicked = std::panic::catch_unwind(|| journal::acting_as(&inner, || panic!("on purpose")));
        assert!(panicked.is_err());
        journal.append(&entry("x")).unwrap();
    });
    journal.append(&entry("x")).unwrap();

    let lines = lines(&place.path);
    assert_eq!((columns(&lines[1])[3], columns(&lines[2])[3]), ("outer", "-"));
}

/// What was done, with what, and with what result: of all lines but the first.
fn told(path: &Path) -> Vec<String> {
    let told = |line: &String| {
        let columns = columns(line);
        columns[3..9].join(" ")
    };
    lines(path)[1..].iter().map(told).collect()
}

#[test]
fn a_keyring_writes_who_used_which_key_for_what_and_with_what_result() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let keys = records::Keyring::new(records::Config::default()).unwrap();
    keys.record_in(&journal).unwrap();
    assert!(matches!(keys.record_in(&journal), Err(Error::Attached)));
    let first = keys.active().unwrap();
    let wrapping = Secret::try_from(vec![9; 32]).unwrap();
    let actor = Actor::new(name("user 7")).purpose(name("migration"));

    journal::acting_as(&actor, || {
        let record = keys.encrypt(&mut *b"sesam".to_vec(), b"").unwrap();
        keys.decrypt(&record, b"", Secret::options()).unwrap();
        keys.decrypt(&record, b"other", Secret::options()).unwrap_err();
        keys.decrypt(b"no record", b"", Secret::options()).unwrap_err();
        keys.rotate().unwrap();
        keys.reencrypt(&record, b"").unwrap();
        keys.export(&first, &wrapping).unwrap();
        keys.import(&record, &wrapping).unwrap_err();
    });
    keys.revoke(&first).unwrap();
    keys.revoke(&first).unwrap_err();
    let second = keys.active().unwrap();
    keys.shutdown();

    let expected = [
        format!("user%207 migration encrypt key:{first} done bytes=5"),
        format!("user%207 migration decrypt key:{first} done bytes=5"),
        format!("user%207 migration decrypt key:{first} failed:altered -"),
        "user%207 migration decrypt - failed:malformed -".to_owned(),
        format!("user%207 migration rotate key:{first}>{second} done -"),
        format!("user%207 migration reencrypt key:{first}>{second} done -"),
        format!("user%207 migration export key:{first} done -"),
        "user%207 migration import - failed:malformed -".to_owned(),
        format!("- - revoke key:{first} done -"),
        format!("- - revoke key:{first} failed:key -"),
        "- - shutdown - done keys=1".to_owned(),
    ];
    assert_eq!(told(&place.path), expected);
    assert!(!fs::read_to_string(&place.path).unwrap().contains("sesam"));
}

#[test]
fn derived_keys_write_who_used_which_and_with_what_result() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let secret = |bytes: &[u8]| Secret::try_from(bytes.to_vec()).unwrap();
    let config = pqc::Config::default().cost(pqc::Cost { memory: 64, passes: 1, lanes: 1 });
    let keys = pqc::Keys::new(secret(&[1; 32]), secret(&[2; 16]), config).unwrap();
    keys.record_in(&journal).unwrap();
    let events = keys.events(16);
    let id: manager::Id = "biometrics>x%".parse().unwrap();

    let record = keys.encrypt(&id, b"sesam".to_vec(), b"").unwrap();
    keys.decrypt(&record, b"", Secret::options()).unwrap();
    keys.decrypt_stored(&record, b"other", Secret::options()).unwrap_err();
    keys.ratchet().unwrap();
    keys.decrypt(&record, b"", Secret::options()).unwrap_err();
    keys.export(Secret::options()).unwrap();

    let expected = [
        "- - encrypt key:biometrics%3Ex%25 done bytes=5",
        "- - decrypt key:biometrics%3Ex%25 done bytes=5",
        "- - decrypt key:biometrics%3Ex%25 failed:altered -",
        "- - ratchet other:base-secret done epoch=1",
        "- - decrypt key:biometrics%3Ex%25 failed:key -",
        "- - export other:base-secret done epoch=1",
    ];
    assert_eq!(told(&place.path), expected);
    assert_eq!(events.take(), Some(pqc::Event::Encrypted { key: id, len: 5 }));
    assert_eq!(std::iter::from_fn(|| events.take()).count(), 5);
}

#[test]
fn a_manager_writes_what_it_denies_and_not_what_owners_do() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let manager = Manager::new(manager::Config::default().max_buffers(1)).unwrap();
    manager.record_in(&journal).unwrap();
    let (owner, stranger) = (manager.owner().unwrap(), manager.owner().unwrap());
    let id = manager.allocate(&owner, 64, Some("a".parse().unwrap())).unwrap();
    manager.write(&owner, &id, b"sesam".to_vec()).unwrap();

    let actor = Actor::new(name("-")).purpose(name("x\ny"));
    journal::acting_as(&actor, || manager.read(&stranger, &id, .., |_| ()).unwrap_err());
    manager.allocate(&stranger, 9, None).unwrap_err();
    let _ = manager.cleanup_forced().unwrap();
    manager.shutdown().unwrap();

    let expected = [
        "%2D x%0Ay reach buffer:a failed:denied -",
        "- - allocate - failed:refused bytes=9",
        "- - wipe - done buffers=1",
        "- - shutdown - done buffers=0",
    ];
    assert_eq!(told(&place.path), expected);
}

#[test]
fn what_cannot_be_written_is_not_handed_out_and_the_next_entry_says_how_much_was_missed() {
    let ended = in_child(|| {
        let place = place();
        let journal = Journal::open(&place.path, Options::default()).unwrap();
        let keys = records::Keyring::new(records::Config::default()).unwrap();
        let record = keys.encrypt(vec![1; 5], b"").unwrap();
        keys.record_in(&journal).unwrap();
        let events = keys.events(64);
        let id = keys.active().unwrap();
        let wrapping = Secret::try_from(vec![9; 32]).unwrap();
        common::set_handler(libc::SIGXFSZ, libc::SIG_IGN, 0);
        common::limit_file_size_softly(fs::metadata(&place.path).unwrap().len());

        let unrecorded = |error| assert!(matches!(error, records::Error::Unrecorded(Error::Write { .. })), "{error:?}");
        unrecorded(keys.encrypt(vec![1; 5], b"").unwrap_err());
        unrecorded(keys.decrypt(&record, b"", Secret::options()).map(drop).unwrap_err());
        unrecorded(keys.reencrypt(&record, b"").unwrap_err());
        unrecorded(keys.export(&id, &wrapping).unwrap_err());
        keys.revoke(&id).unwrap(); // what ends something goes on
        assert!(keys.decrypt(&record, b"", Secret::options()).is_err());

        let heard: Vec<_> = std::iter::from_fn(|| events.take()).collect();
        assert!(heard.contains(&records::Event::KeyRevoked { key: id }), "whoever listens is told: {heard:?}");
        assert!(!heard.iter().any(|it| matches!(it, records::Event::Encrypted { .. })), "{heard:?}");
        let missed = journal.missed().unwrap();
        assert!(missed >= 6, "{missed}");
        common::limit_file_size_softly(u64::MAX);
        keys.encrypt(vec![1; 5], b"").unwrap();
        let told = told(&place.path);
        assert_eq!((told.len(), told[0].as_str()), (2, format!("- - miss - done entries={missed}").as_str()));
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn the_thread_of_the_deadlines_does_not_write_itself_and_its_entries_come() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let clock = TestClock::new();
    let hour = Duration::from_secs(3600);
    let keys = records::Keyring::new(records::Config::default().clock(clock).retention(2 * hour)).unwrap();
    keys.record_in(&journal).unwrap();
    let first = keys.active().unwrap();
    let second = keys.rotate().unwrap();

    clock.advance(2 * hour);

    let patience = Instant::now() + Duration::from_secs(60);
    while entries(&place.path) < 3 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    let expected = [format!("- - rotate key:{first}>{second} done -"), format!("- - expire key:{first} done -")];
    assert_eq!(told(&place.path), expected);
}

#[test]
fn the_key_that_signs_is_in_its_arena_alone_and_gone_at_the_end() {
    let ended = in_child(|| {
        let place = place();
        let fill = |slot: &mut [u8]| {
            slot.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(at));
            Ok::<(), secmem::Error>(())
        };
        let seed = Secret::options().backend(Backend::Mlock).filled(32, fill).unwrap();
        let at = seed.with(<[u8]>::as_ptr).unwrap().addr();
        let journal = Journal::open(&place.path, Options::default().sign(SigningKey::new(seed).unwrap())).unwrap();
        let control = pieces_after(|| {
            let stays: [u8; 32] = std::array::from_fn(pattern);
            std::hint::black_box(&stays);
        });
        assert!(control.iter().any(|it| !(at..at + 32).contains(it)), "the search finds what a stack holds");

        let found = pieces_after(|| _ = journal.append(&entry("x")).unwrap());
        assert!(found.len() >= 20 && found.iter().all(|it| (at..at + 32).contains(it)), "{found:x?}");
        drop(journal);
        assert_eq!(pieces(), Vec::<usize>::new());
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn no_error_and_no_debug_shows_what_entries_say() {
    let (place, _) = six(Options::default());
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    let mut lines = lines(&place.path);
    lines[3] = lines[3].replace("entry-4", "sesam");
    fs::write(&place.path, lines.concat()).unwrap();

    let changed = journal.append(&entry("entry")).unwrap_err();
    drop(journal);
    let broken = Journal::open(&place.path, Options::default()).unwrap_err();

    assert!(matches!(broken, Error::Broken { line: 4, source: Fault::Chain }));
    let text = format!("{changed} {changed:?} {broken} {broken:?} {:?}", verified(&place.path, &Checks::default()));
    assert!(!text.contains("sesam") && !text.contains("entry-"), "{text}");
    assert!(matches!(entry("x").outcome, Outcome::Done));
}

#[test]
fn what_a_journal_says_of_itself_nobody_else_says() {
    let place = place();
    let journal = Journal::open(&place.path, Options::default()).unwrap();
    for action in [Action::Begin, Action::Mend, Action::Miss] {
        assert!(matches!(journal.append(&Entry::done(action, None)), Err(Error::NotYours)));
    }
    drop(journal);
    assert!(matches!(verified(&place.path, &Checks::default()), Verdict::Whole(_)));
}
