//! Secrets from descriptors, files and the environment: whole or an error, in their place alone.

mod common;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use common::{in_child, in_child_with};
use secmem::input::{InputError, Prompt, Readers};
use secmem::{Bytes, Error, Secret, Text};

/// A descriptor that gives these bytes and then ends.
fn gives(bytes: &[u8]) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let bytes = bytes.to_vec();
    std::thread::spawn(move || writer.write_all(&bytes)); // more than a pipe holds
    reader.into()
}

fn to_end(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    Secret::options().read_to_end(gives(bytes).as_fd(), limit)
}

fn line(fd: &OwnedFd, limit: usize) -> Result<String, Error> {
    Secret::options().read_line(fd.as_fd(), limit).map(|text: Text| text.expose_to_string().unwrap())
}

fn is_too_long<T: std::fmt::Debug>(result: &Result<T, Error>, most: usize) -> bool {
    matches!(result, Err(Error::Input(InputError::TooLong { limit })) if *limit == most)
}

#[test]
fn all_that_a_descriptor_gives_is_read_up_to_the_limit() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    for len in [0, 1, 39, 40, 255, 256, 257, 65_536, 100_000] {
        assert_eq!(to_end(&bytes[..len], len).unwrap().expose_to_vec().unwrap(), &bytes[..len], "{len}");
        if len > 0 {
            assert!(is_too_long(&to_end(&bytes[..len], len - 1), len - 1), "{len}");
        }
    }
    assert_eq!(to_end(&bytes, usize::MAX).unwrap().len(), bytes.len());
}

#[test]
fn lines_are_read_one_by_one_and_what_is_too_long_is_passed_over() {
    let input = gives("first\r\nsecond ß\n\n0123456789\n123456789\nlast".as_bytes());

    assert_eq!(line(&input, 9).unwrap(), "first");
    assert_eq!(line(&input, 9).unwrap(), "second ß");
    assert_eq!(line(&input, 9).unwrap(), "");
    assert!(is_too_long(&line(&input, 9), 9));
    assert_eq!(line(&input, 9).unwrap(), "123456789");
    assert_eq!(line(&input, 9).unwrap(), "last");
    assert!(matches!(line(&input, 9), Err(Error::Input(InputError::Nothing))));
}

#[test]
fn the_end_of_a_line_does_not_count_and_a_long_one_is_passed_over_however_long() {
    let input = gives(format!("12345\r\n123456\r\n{}\nok\n", "x".repeat(70_000)).as_bytes());

    assert_eq!(line(&input, 5).unwrap(), "12345");
    assert!(is_too_long(&line(&input, 5), 5));
    assert!(is_too_long(&line(&input, 5), 5));
    assert_eq!(line(&input, 5).unwrap(), "ok");
}

#[test]
fn a_line_that_is_no_text_is_an_error() {
    assert!(matches!(line(&gives(b"ab\xFFcd\n"), 9), Err(Error::Utf8 { at: 2 })));
}

#[test]
fn a_descriptor_that_cannot_be_read_is_an_error() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let error = Secret::options().read_to_end(writer.as_fd(), 9).unwrap_err();

    assert!(matches!(error, Error::Read { got: 0, source: Some(_), .. }), "{error:?}");
}

#[test]
fn a_file_is_read_whole_and_refused_where_others_may_read_it() {
    let place = std::env::temp_dir().join(format!("secmem-input-{}", std::process::id()));
    fs::write(&place, b"from a file").unwrap();
    let read = |limit, readers| Secret::options().read_file(&place, limit, readers);
    for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, false)] {
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();

        assert_eq!(read(11, Readers::Anyone).unwrap().expose_to_vec().unwrap(), b"from a file");
        match read(11, Readers::Owner) {
            Ok(bytes) => assert!(!refused && bytes.len() == 11, "{mode:o}"),
            Err(Error::Input(InputError::Readable { mode: found })) => assert!(refused && found == mode, "{mode:o}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(is_too_long(&read(10, Readers::Anyone), 10));
    fs::remove_file(&place).unwrap();
    assert!(matches!(read(11, Readers::Anyone), Err(Error::Input(InputError::File { .. }))));
}

#[test]
fn a_secret_goes_to_a_descriptor_from_its_place() {
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| ((at * 13) >> 2) as u8).collect();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let secret = Secret::try_from(bytes.clone()).unwrap();
    let writing = std::thread::spawn(move || secret.write_to(writer.as_fd()));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();

    assert!(writing.join().unwrap().is_ok());
    assert_eq!(got, bytes);

    let full = File::options().write(true).open("/dev/full").unwrap();
    let text = Text::try_from("open sesame".to_owned()).unwrap();
    let error = text.write_to(full.as_fd()).unwrap_err();
    assert!(matches!(error, Error::Write { wanted: 11, got: 0, .. }), "{error:?}");
}

#[test]
fn a_question_without_a_terminal_takes_a_line() {
    // Standard input of the children is /dev/null.
    let ended = in_child(|| {
        let nothing = Prompt::new("Password: ").read(Secret::options());
        assert!(matches!(nothing, Err(Error::Input(InputError::Nothing))), "{nothing:?}");
    });

    assert!(ended.status.success(), "{ended:?}");
}

const NAME: &str = "SECMEM_TEST_VARIABLE";

/// Everything that the kernel shows of this process's environment.
fn shown() -> Vec<u8> {
    fs::read("/proc/self/environ").unwrap()
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The rest of a test, in a process that has the variable in its block, and that has no other thread.
///
/// The test program has threads; so the test forks, and the child is alone.
fn take_alone(replaced: i32) {
    if std::env::var_os(NAME).is_none() {
        // Once more, with the variable in what execve lays out.
        use std::os::unix::process::CommandExt;
        let args = std::env::args_os().skip(1);
        let error = std::process::Command::new("/proc/self/exe").args(args).env(NAME, "a value from execve").exec();
        panic!("{error}");
    }
    let failed = common::fork(|| {
        let checked = std::panic::catch_unwind(|| take(replaced));
        i32::from(checked.is_err())
    });
    assert_eq!(failed, 0);
}

fn take(replaced: i32) {
    let mut expected: &[u8] = b"a value from execve";
    if replaced == 1 {
        common::set_variable(NAME, "another value");
        expected = b"another value";
    }
    assert!(holds(&shown(), b"a value from execve"));
    let short = Secret::options().take_variable(NAME, 5);
    assert!(is_too_long(&short, 5), "{short:?}");
    assert!(holds(&shown(), b"a value from execve"), "what was refused stays");
    let there = common::variable(NAME);

    let taken = Secret::options().take_variable(NAME, 100).unwrap();

    assert_eq!(taken.expose_to_vec().unwrap(), expected);
    assert!(!holds(&shown(), b"value from"), "the block still has it");
    assert!(holds(&shown(), NAME.as_bytes()), "this is the block that it stood in");
    assert!(common::peek(there, expected.len()).iter().all(|byte| *byte == 0), "the string still has it");
    assert!(std::env::var_os(NAME).is_none());
    common::set_variable(NAME, "a third value");
    let third = Secret::options().expires_in(std::time::Duration::from_secs(60)).take_variable(NAME, 100).unwrap();
    assert!(third.with(|bytes| bytes == b"a third value").unwrap());
    common::set_variable(NAME, "a fourth value");
    assert!(Secret::options().take_variable(NAME, 100).is_ok(), "the thread of the deadlines does not count");
    let again = Secret::options().take_variable(NAME, 100);
    assert!(matches!(again, Err(Error::Input(InputError::NoVariable))), "{again:?}");
}

#[test]
fn a_variable_is_taken_and_wiped_where_execve_laid_it_out() {
    let ended = in_child_with(0, |replaced| {
        take_alone(replaced); // in a closure of this test, by whose name the child finds it
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_variable_that_was_set_anew_is_wiped_in_both_places() {
    let ended = in_child_with(1, |replaced| {
        take_alone(replaced); // in a closure of this test, by whose name the child finds it
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_variable_is_not_taken_beside_other_threads() {
    let other = std::thread::spawn(std::thread::park);
    let taken = Secret::options().take_variable("PATH", 1 << 20);
    other.thread().unpark();

    assert!(matches!(taken, Err(Error::Input(InputError::Threads { count: 2.. }))), "{taken:?}");
    for name in ["", "A=B", "A\0B"] {
        let taken = Secret::options().take_variable(name, 100);
        assert!(matches!(taken, Err(Error::Input(InputError::NoVariable))), "{taken:?}");
    }
}
