//! What comes through a redactor, and what does not.

#[path = "../common/mod.rs"]
mod common;
mod forms;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use secmem::redact::{Error, FRAGMENT, Form, LONGEST, Patterns, REDACTED, Redactor, Registered, SHORTEST};
use secmem::{Secret, purge};

use common::{in_child, in_child_with};

/// With everything that an encoding escapes, and no byte twice in a row.
const TRICKY: &str = "p\"a\\s's<w>ö&r d+/=1%\n€2";
const KEY: [u8; 32] = [
    0x00, 0xff, 0x10, 0x9c, 0x3e, 0x41, 0x42, 0x0a, 0x7f, 0x80, 0xc3, 0x28, 0x5c, 0x22, 0x27, 0x25, 0x2b, 0xf0, 0x9f,
    0x92, 0xa9, 0xde, 0xad, 0xbe, 0xef, 0x01, 0x02, 0x03, 0x64, 0x65, 0xfe, 0x99,
];
const PASSPHRASE: &str = "correct horse battery staple";
const SHORT: &str = "hunter-2";

fn redactor(secrets: &[&[u8]]) -> (Redactor, Vec<Registered>) {
    let redactor = Redactor::new().unwrap();
    let registered = secrets.iter().map(|secret| redactor.register_bytes(secret).unwrap()).collect();
    (redactor, registered)
}

/// What a writer makes of a text in pieces.
fn written<'a>(redactor: &Redactor, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut writer = redactor.writer(Vec::new()).unwrap();
    pieces.into_iter().for_each(|piece| writer.write_all(piece).unwrap());
    writer.into_inner().unwrap()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What may stand around a form that is redacted but for what belongs to no byte of the secret: quotes, brackets, the bits of a
/// neighbour's in base64.
fn is_redacted(framed: &[u8], form: &[u8], out: &[u8]) -> bool {
    let left = out.len().saturating_sub(framed.len() - form.len() + REDACTED.len());
    contains(out, REDACTED.as_bytes()) && left <= 12 && !contains(out, &form[form.len() / 4..3 * form.len() / 4])
}

#[test]
fn every_form_of_a_secret_is_redacted_between_other_text() {
    let long: Vec<u8> = (0..3000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let secrets =
        [TRICKY.as_bytes(), &KEY, PASSPHRASE.as_bytes(), SHORT.as_bytes(), "длинный пароль".as_bytes(), &long];
    for secret in secrets {
        let (redactor, _registered) = redactor(&[secret]);
        for (name, form) in forms::all(secret) {
            let framed = [b"before (", &form[..], b") after"].concat();
            let out = written(&redactor, [&framed[..]]);

            let shown: String = String::from_utf8_lossy(&out).chars().take(200).collect();
            assert!(is_redacted(&framed, &form, &out), "{name} of {} bytes: {shown}", secret.len());
            assert!(out.starts_with(b"before (") && out.ends_with(b") after"), "{name}: {shown}");
        }
    }
}

#[test]
fn a_secret_that_is_not_registered_or_no_longer_is_comes_through() {
    let (redactor, registered) = redactor(&[&KEY]);
    let forms = forms::all(PASSPHRASE.as_bytes());
    assert!(forms.iter().all(|(_, form)| written(&redactor, [&form[..]]) == *form));
    let other = redactor.register_bytes(PASSPHRASE.as_bytes()).unwrap();
    assert!(forms.iter().all(|(_, form)| written(&redactor, [&form[..]]) != *form));
    assert_eq!(redactor.counts().registered, 2);

    drop(other);

    assert!(forms.iter().all(|(_, form)| written(&redactor, [&form[..]]) == *form));
    assert_eq!(written(&redactor, [&KEY[..]]), REDACTED.as_bytes(), "the other one still is");
    drop(registered);
    assert_eq!(written(&redactor, [&KEY[..]]), KEY);
}

#[test]
fn many_secrets_are_known_and_a_table_that_grows_forgets_none() {
    let secret = |at: u64| blake(at, 32);
    let redactor = Redactor::new().unwrap();
    let mut registered: Vec<_> =
        (0..200).map(|at| Some(redactor.register(&Secret::try_from(secret(at)).unwrap()).unwrap())).collect();
    for at in (0..200).step_by(2) {
        registered[at] = None;
    }
    let more: Vec<_> = (200..300).map(|at| redactor.register_bytes(&secret(at)).unwrap()).collect();

    for at in 0..300 {
        let known = at >= 200 || at % 2 == 1;
        assert_eq!(written(&redactor, [&secret(at)[..]]) == REDACTED.as_bytes(), known, "{at}");
    }
    drop(more);
}

/// Bytes that nobody would guess, the same in each run.
fn blake(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn every_split_of_every_form_is_as_one_piece() {
    for secret in [TRICKY.as_bytes(), &KEY, SHORT.as_bytes()] {
        let (redactor, _registered) = redactor(&[secret]);
        for (name, form) in forms::all(secret) {
            let framed = [b"x = ", &form[..], b" and so on"].concat();
            let whole = written(&redactor, [&framed[..]]);
            assert!(contains(&whole, REDACTED.as_bytes()), "{name}");
            for at in 0..=framed.len() {
                let (head, tail) = framed.split_at(at);
                assert_eq!(written(&redactor, [head, tail]), whole, "{name} at {at}");
            }
            assert_eq!(written(&redactor, framed.chunks(1)), whole, "{name}, byte by byte");
        }
    }
}

#[test]
fn a_secret_that_flushes_cut_anywhere_does_not_come_out() {
    for secret in [TRICKY.as_bytes(), &KEY, PASSPHRASE.as_bytes(), SHORT.as_bytes()] {
        let (redactor, _registered) = redactor(&[secret]);
        for (name, form) in forms::all(secret) {
            let framed = [b"before (", &form[..], b") after"].concat();
            let flushed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let mut writer = redactor.writer(Vec::new()).unwrap();
                for piece in pieces {
                    writer.write_all(piece).unwrap();
                    writer.flush().unwrap();
                }
                writer.into_inner().unwrap()
            };
            assert!(is_redacted(&framed, &form, &flushed(&mut framed.chunks(1))), "{name}, after each byte");
            for cut in 0..framed.len() {
                let (head, tail) = framed.split_at(cut);
                assert!(is_redacted(&framed, &form, &flushed(&mut [head, tail].into_iter())), "{name} at {cut}");
            }
        }
    }
}

#[test]
fn a_question_comes_out_whole_at_a_flush() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes(), &KEY]);
    let mut writer = redactor.writer(Vec::new()).unwrap();
    for question in ["Password: ", "Go on? [y/N] ", "> ", "$ ", "50 % done\n", "Name:"] {
        let before = writer.get_ref().unwrap().len();

        writer.write_all(question.as_bytes()).unwrap();
        writer.flush().unwrap();

        assert_eq!(&writer.get_ref().unwrap()[before..], question.as_bytes());
    }
    let before = writer.get_ref().unwrap().len();
    writer.write_all(b"cor").unwrap();
    writer.flush().unwrap();
    assert_eq!(writer.get_ref().unwrap().len(), before, "what the secret begins with waits");
    writer.write_all(b"al").unwrap();
    writer.flush().unwrap();
    assert!(writer.get_ref().unwrap().ends_with(b"coral"), "and comes when it is something else");
}

#[test]
fn fragments_of_twelve_bytes_are_redacted_and_shorter_ones_are_not() {
    let (redactor, _registered) = redactor(&[&KEY]);
    for len in 1..KEY.len() {
        for start in 0..=KEY.len() - len {
            let part = &KEY[start..start + len];
            let out = written(&redactor, [b"<", part, b">"]);
            if len >= FRAGMENT {
                assert_eq!(out, format!("<{REDACTED}>").as_bytes(), "{start} and {len}");
            } else {
                assert_eq!(out, [b"<", part, b">"].concat(), "{start} and {len}");
            }
        }
    }
    let (short, _registered) = self::redactor(&[SHORT.as_bytes()]);
    assert_eq!(short.text("hunter-"), "hunter-");
}

#[test]
fn what_cannot_be_told_from_chance_is_refused() {
    let redactor = Redactor::new().unwrap();
    let refused = |bytes: &[u8]| redactor.register_bytes(bytes).unwrap_err();
    assert!(matches!(refused(b""), Error::Length { len: 0 }));
    assert!(matches!(refused(&KEY[..SHORTEST - 1]), Error::Length { len } if len == SHORTEST - 1));
    assert!(matches!(refused(&vec![7; LONGEST + 1]), Error::Length { .. }));
    assert!(matches!(refused(&[0; 32]), Error::Monotonous));
    assert!(matches!(refused(b"abababababababab"), Error::Monotonous));
    assert!(matches!(redactor.register(&Secret::new(32).unwrap()), Err(Error::Monotonous)));
    let mut ended = Secret::try_from(KEY.to_vec()).unwrap();
    ended.wipe().unwrap();
    assert!(matches!(redactor.register(&ended), Err(Error::Memory(secmem::Error::Wiped))));
    assert_eq!(redactor.counts().registered, 0);
}

#[test]
fn zeros_within_a_secret_are_no_secret_by_themselves() {
    let mut secret = KEY.to_vec();
    secret.extend([0; 20]);
    secret.extend(b"end of it");
    let (redactor, _registered) = redactor(&[&secret]);

    assert_eq!(written(&redactor, [&[0_u8; 40][..]]), [0; 40]);
    assert_eq!(redactor.text("0".repeat(64)), "0".repeat(64));
    assert_eq!(written(&redactor, [&secret[..]]), REDACTED.as_bytes());
}

#[test]
fn a_registration_is_no_use_of_the_secret() {
    let secret = Secret::options().max_uses(1).filled(32, |slot| {
        slot.copy_from_slice(&KEY);
        Ok::<(), secmem::Error>(())
    });
    let secret = secret.unwrap();
    let redactor = Redactor::new().unwrap();

    let _registered = redactor.register(&secret).unwrap();

    secret.with(|bytes| assert_eq!(bytes, KEY)).unwrap();
}

#[test]
fn a_reading_that_was_plain_for_long_goes_on_with_the_next_escape() {
    let secret = "a\"bcdefghijklmnopqrstuvwxyz\"01234";
    let (redactor, _registered) = redactor(&[secret.as_bytes()]);
    let json = serde_json::to_string(secret).unwrap();
    assert_eq!(redactor.text(&json), "\"[redacted]\"");
    assert_eq!(redactor.text(serde_json::to_string(&json).unwrap()), r#""\"[redacted]\"""#);
}

// What the console filter that this crate's authors began with let through, one by one.

#[test]
fn a_label_and_a_secret_in_two_arguments() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
    let out = redactor.text(format_args!("{} {}", "password:", PASSPHRASE));
    assert_eq!(out, "password: [redacted]");
}

#[test]
fn nested_objects_and_debug_prints() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "printed")]
    struct User {
        name: &'static str,
        login: Option<(u8, &'static str)>,
        token: Vec<u8>,
    }
    let (redactor, _registered) = redactor(&[TRICKY.as_bytes(), &KEY]);
    let user = User { name: "ann", login: Some((1, TRICKY)), token: KEY.to_vec() };

    assert_eq!(
        redactor.text(format_args!("{user:?}")),
        r#"User { name: "ann", login: Some((1, "[redacted]")), token: [[redacted]] }"#
    );
    let pretty = redactor.text(format_args!("{user:#?}"));
    assert!(pretty.contains("\"[redacted]\"") && !pretty.contains("159") && !pretty.contains("s<w>"), "{pretty}");
    let json = serde_json::json!({"user": {"password": TRICKY, "key": KEY.to_vec()}});
    assert_eq!(redactor.text(&json), r#"{"user":{"key":[[redacted]],"password":"[redacted]"}}"#);
}

#[test]
fn errors_and_their_causes() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
    let cause = io::Error::other(format!("password is {PASSPHRASE}"));
    assert_eq!(redactor.text(&cause), "password is [redacted]");
    let out = redactor.text(format_args!("{:?}", io::Error::other(cause)));
    assert!(out.contains(REDACTED) && !out.contains("battery"), "{out}");
}

#[test]
fn arrays_as_a_console_prints_them() {
    let (redactor, _registered) = redactor(&[&KEY]);
    let numbers: Vec<String> = KEY.iter().map(|byte| format!("{byte:>3}")).collect();
    let rows: Vec<String> = numbers.chunks(12).map(|row| row.join(", ")).collect();
    let out = redactor.text(format_args!("{{ x: Uint8Array(32) [\n  {}\n] }}", rows.join(",\n  ")));
    assert!(out.starts_with("{ x: Uint8Array(32) [\n") && out.ends_with("[redacted]\n] }"), "{out}");

    let hex: Vec<String> = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(redactor.text(format_args!("<Buffer {}>", hex.join(" "))), "<Buffer [redacted]>");
}

#[test]
fn what_is_no_secret_is_not_redacted() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes(), &KEY, SHORT.as_bytes(), TRICKY.as_bytes()]);
    for text in [
        "The monkey is keyed up today",
        "Password buffer sanitized in main process",
        "the secret token key password passwd",
        "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
    ] {
        assert_eq!(redactor.text(text), text);
    }
    assert_eq!(redactor.counts().redacted, 0);
}

/// The page of this module states a rate of mistakes that no test would live to see; this one sees that it is not far off.
#[test]
fn neither_english_nor_noise_is_taken_for_a_secret() {
    let redactor = Redactor::new().unwrap();
    let registered: Vec<_> = (0..16).map(|at| redactor.register_bytes(&blake(at, 32)).unwrap()).collect();
    let english = [include_str!("../../README.md"), include_str!("../../src/redact/mod.rs")].concat();
    assert!(written(&redactor, [english.as_bytes()]) == english.as_bytes());
    for seed in 100..104 {
        let noise = blake(seed, 64 << 10);
        assert!(written(&redactor, [&noise[..]]) == noise);
        let mut hex = String::new();
        noise.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        assert_eq!(redactor.text(&hex), hex);
    }
    assert_eq!(redactor.counts().redacted, 0);
    assert_eq!(registered.len(), 16);
}

#[test]
fn matches_are_counted_with_their_forms() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
    let hex: String = PASSPHRASE.bytes().map(|byte| format!("{byte:02x}")).collect();

    redactor.text(format_args!("{PASSPHRASE}, {PASSPHRASE}, {hex}"));

    let counts = redactor.counts();
    assert_eq!((counts.redacted, counts.found(Form::Raw), counts.found(Form::Hex)), (3, 2, 1));
    let others = Form::ALL.iter().filter(|form| ![Form::Raw, Form::Hex].contains(form));
    assert_eq!(others.map(|form| counts.found(*form)).sum::<u64>(), 0);
}

#[test]
fn nothing_shows_content_by_debug() {
    let (redactor, registered) = redactor(&[PASSPHRASE.as_bytes()]);
    let mut writer = redactor.writer(Vec::new()).unwrap();
    writer.write_all(b"corr").unwrap();
    let shown = format!("{redactor:?} {registered:?} {writer:?}");
    assert!(!shown.contains("corr") && !shown.contains("99, 111"), "{shown}");
}

#[test]
fn the_switch_is_for_development_counted_and_ends_with_its_scope() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
    match redactor.off_in_development() {
        Ok(off) if cfg!(debug_assertions) => {
            let again = redactor.off_in_development().unwrap();
            assert_eq!(redactor.text(PASSPHRASE), PASSPHRASE);
            drop(off);
            assert_eq!(redactor.text(PASSPHRASE), PASSPHRASE);
            drop(again);
            assert_eq!(redactor.counts().turned_off, 2);
        }
        Err(Error::NotInDevelopment) if !cfg!(debug_assertions) => assert_eq!(redactor.counts().turned_off, 0),
        other => panic!("{other:?} with debug_assertions {}", cfg!(debug_assertions)),
    }
    assert_eq!(redactor.text(PASSPHRASE), REDACTED);
}

#[test]
fn names_and_long_words_are_rules_for_whoever_asks() {
    let redactor = Redactor::with_patterns(Patterns::usual()).unwrap();
    for (text, expected) in [
        ("password=hunter2&user=ann", "password=[redacted]&user=ann"),
        (r#"{"api_key": "abc", "n": 1}"#, r#"{"api_key": "[redacted]", "n": 1}"#),
        ("TOKEN : xyz\nnext", "TOKEN : [redacted]\nnext"),
        (r#"\"secret\":\"abc\""#, r#"\"secret\":\"[redacted]\""#),
        ("The monkey is keyed up today", "The monkey is keyed up today"),
        ("Password buffer sanitized in main process", "Password buffer sanitized in main process"),
        ("0123456789abcdef0123456789ABCDE.", "0123456789abcdef0123456789ABCDE."),
        ("<0123456789abcdef0123456789ABCDEF+/>", "<[redacted]>"),
        // The mistakes that the page names.
        ("password: required", "password: [redacted]"),
        ("monkey: see, monkey: do", "monkey: [redacted], monkey: [redacted]"),
    ] {
        assert_eq!(redactor.text(text), expected);
        assert_eq!(written(&redactor, text.as_bytes().chunks(1)), expected.as_bytes());
    }
    assert!(redactor.counts().found(Form::Pattern) > 0);
    let without = Redactor::new().unwrap();
    assert_eq!(without.text("password=hunter2"), "password=hunter2");
}

/// Takes a few bytes at a time, or refuses.
struct Slow(Arc<Mutex<(Vec<u8>, bool)>>);

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, refuses) = &mut *self.0.lock().unwrap();
        if *refuses {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        taken.extend(&bytes[..bytes.len().min(3)]);
        Ok(bytes.len().min(3))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_the_other_writer_refuses_is_kept_and_told_and_comes_once() {
    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
    let place = Arc::new(Mutex::new((Vec::new(), true)));
    let mut writer = redactor.writer(Slow(Arc::clone(&place))).unwrap();

    assert_eq!(writer.write(b"a line that is longer than what waits\n").unwrap(), 38, "taken, and kept");
    assert_eq!(writer.write(b"another\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    place.lock().unwrap().1 = false;
    writer.write_all(b"another\n").unwrap();
    writer.write_all(PASSPHRASE.as_bytes()).unwrap();
    drop(writer);

    let (taken, _) = &*place.lock().unwrap();
    assert_eq!(String::from_utf8_lossy(taken), "a line that is longer than what waits\nanother\n[redacted]");
}

#[test]
fn after_a_purge_nothing_comes_through() {
    let ended = in_child(|| {
        let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
        let mut writer = redactor.writer(Vec::new()).unwrap();
        writer.write_all(b"correct ").unwrap();

        purge::purge_all();

        assert!(writer.write_all(PASSPHRASE.as_bytes()).is_err());
        assert!(!redactor.text(PASSPHRASE).contains("battery"));
        assert!(matches!(redactor.try_text(PASSPHRASE), Err(Error::Memory(secmem::Error::Purged))));
        let (again, _registered) = self::redactor(&[PASSPHRASE.as_bytes()]);
        assert_eq!(again.text(PASSPHRASE), REDACTED);
    });
    assert!(ended.status.success(), "{ended:?}");
}

#[test]
fn a_forked_child_shows_nothing_and_waits_for_nobody() {
    let ended = in_child(|| {
        let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
        let status = common::fork(|| {
            let forked = matches!(redactor.try_text(PASSPHRASE), Err(Error::Memory(secmem::Error::Forked)));
            i32::from(!forked)
        });
        assert_eq!(status, 0);
    });
    assert!(ended.status.success(), "{ended:?}");
}

// Panics.

#[test]
fn the_message_of_a_panic_is_redacted_and_secrets_are_purged_in_either_order() {
    for order in 0..3 {
        let ended = in_child_with(order, |order| {
            let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
            let secret = Secret::try_from(KEY.to_vec()).unwrap();
            std::panic::set_hook(Box::new(|info| eprintln!("an older hook has it: {info}")));
            let plan = purge::Plan::default();
            if order == 0 {
                purge::install(&plan).unwrap();
            }
            redactor.install_panic_filter().unwrap();
            if order == 1 {
                purge::install(&plan).unwrap();
            }
            let joined = std::thread::Builder::new()
                .name("worker".to_owned())
                .spawn(|| panic!("no login with {PASSPHRASE} today"))
                .unwrap()
                .join();
            assert!(joined.is_err());
            let purged = matches!(secret.with(|_| ()), Err(secmem::Error::Purged));
            assert_eq!(purged, order < 2, "as planned");
        });

        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{order}: {said}");
        assert!(said.contains("thread 'worker' panicked at "), "{order}: {said}");
        assert_eq!(said.matches("no login with [redacted] today").count(), 1, "{order}: {said}");
        assert!(!said.contains("battery") && !said.contains("an older hook"), "{order}: {said}");
    }
}

#[test]
fn a_second_panic_is_told_by_what_is_registered_then() {
    let ended = in_child(|| {
        let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
        redactor.install_panic_filter().unwrap();
        purge::install(&purge::Plan::default()).unwrap();
        let fails = || std::thread::spawn(|| panic!("with {PASSPHRASE}")).join().unwrap_err();
        fails();
        fails();
    });

    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert_eq!(said.matches("with [redacted]").count(), 1, "{said}");
    assert_eq!(said.matches("thread '[not shown: ").count(), 1, "of the second, no name: {said}");
    assert_eq!(
        said.matches(":\n[not shown: ").count(),
        1 + said.matches("backtrace:\n[").count(),
        "nor a message: {said}"
    );
    assert!(!said.contains("battery"), "{said}");
}

// Loggers.

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<String>>);

impl Kept {
    fn told(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl log::Log for Kept {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }
    fn log(&self, record: &log::Record<'_>) {
        struct Pairs<'a>(&'a mut String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Pairs<'_> {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                write!(self.0, " {key}={value:?}").map_err(Into::into)
            }
        }
        let mut told = self.0.lock().unwrap();
        write!(told, "{} {}: {}", record.level(), record.target(), record.args()).unwrap();
        record.key_values().visit(&mut Pairs(&mut told)).unwrap();
        told.push('\n');
    }
    fn flush(&self) {}
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_logger_gets_messages_targets_and_pairs_without_the_secrets() {
    use log::Log as _;

    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes(), &KEY]);
    let kept = Kept::default();
    let logger = redactor.logger(kept.clone());
    let key = format!("{KEY:?}");
    let pairs: [(&str, log::kv::Value<'_>); 4] = [
        ("tries", 3.into()),
        ("password", PASSPHRASE.into()),
        ("key", log::kv::Value::from_debug(&KEY)),
        (PASSPHRASE, true.into()),
    ];
    let record = |level, message: std::fmt::Arguments<'_>| {
        let mut record = log::Record::builder();
        logger.log(&record.level(level).target(PASSPHRASE).key_values(&pairs).args(message).build());
    };

    record(log::Level::Info, format_args!("{} {key}", "login with"));
    record(log::Level::Debug, format_args!("{PASSPHRASE}"));

    let expected = "INFO [redacted]: login with [[redacted]] tries=3 password=\"[redacted]\" key=\"[[redacted]]\" [redacted]=true\n";
    assert_eq!(kept.told(), expected);
}

#[test]
fn a_layer_writes_events_and_spans_without_the_secrets() {
    use tracing_subscriber::prelude::*;

    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes(), &KEY]);
    let kept = Kept::default();
    {
        let _default = tracing_subscriber::registry().with(redactor.layer(kept.clone())).set_default();
        let span = tracing::info_span!("request", user = "ann", token = PASSPHRASE, later = tracing::field::Empty);
        let _entered = span.enter();
        span.record("later", tracing::field::debug(KEY));
        let error = io::Error::other(PASSPHRASE);
        tracing::warn!(target: "app", tries = 3, password = %PASSPHRASE, key = ?KEY, error = &error as &dyn std::error::Error, "{PASSPHRASE} failed");
    }

    let expected = " WARN app: request{user=ann token=[redacted] later=[[redacted]]}: [redacted] failed tries=3 \
                    password=[redacted] key=[[redacted]] error=[redacted]\n";
    // The message comes where the macro puts it.
    let told = kept.told();
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    assert_eq!(sorted(&told), sorted(expected), "{told}");
}

#[test]
fn writers_for_a_layer_of_others_redact() {
    use tracing_subscriber::prelude::*;

    let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes(), &KEY]);
    let kept = Kept::default();
    let theirs = kept.clone();
    let layer =
        tracing_subscriber::fmt::layer().with_writer(redactor.make_writer(move || theirs.clone())).without_time();
    let default = tracing_subscriber::registry().with(layer).set_default();
    tracing::error!(key = ?KEY, "{PASSPHRASE} failed");
    drop(default);

    let told = kept.told();
    assert!(told.ends_with(": [redacted] failed key=[[redacted]]\n"), "{told}");
}

/// Events of this crate's own, which come of what a redactor does itself, find nobody waiting for themselves.
#[cfg(feature = "tracing")]
#[test]
fn a_layer_hears_of_its_own_memory() {
    use tracing_subscriber::prelude::*;

    let ended = in_child(|| {
        let (redactor, _registered) = redactor(&[PASSPHRASE.as_bytes()]);
        let kept = Kept::default();
        tracing_subscriber::registry().with(redactor.layer(kept.clone())).init();
        std::thread::spawn(|| tracing::info!("{PASSPHRASE}")).join().unwrap(); // its first protected stack
        let many: Vec<_> = (0..100).map(|_| Secret::new(4096).unwrap()).collect();
        assert_eq!(many.len(), 100);

        let told = kept.told();
        assert!(told.contains("[redacted]") && told.contains("memory for secrets was made"), "{told}");
        assert!(!told.contains("battery"), "{told}");
    });
    assert!(ended.status.success(), "{ended:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 256 }))]

    /// Any text with any secret in any form, cut anywhere, is as one piece, and holds no form of it.
    #[test]
    fn any_text_with_any_secret_at_any_split(
        secret in "[ -~é€\u{1F511}\"\\\\%&+\n]{8,40}",
        around in prop::collection::vec("[a-z0-9 ,:%&\\\\+\\[\\]\"=\\n\u{0}]{0,40}", 1..4),
        form in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(1..40_usize, 1..40),
    ) {
        let redactor = Redactor::new().unwrap();
        let registered = redactor.register_bytes(secret.as_bytes());
        prop_assume!(registered.is_ok());
        let forms = forms::all(secret.as_bytes());
        let (name, form) = form.get(&forms);
        // What is left of the secret's own text around would be one of the same letters.
        let text = around.iter().map(String::as_bytes).collect::<Vec<_>>().join(&[b" (", &form[..], b") "].concat()[..]);
        let whole = written(&redactor, [&text[..]]);
        let (mut rest, mut pieces) = (&text[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }

        prop_assert_eq!(&written(&redactor, pieces), &whole);
        if around.len() > 1 {
            prop_assert!(contains(&whole, REDACTED.as_bytes()), "{}", name);
            for (name, form) in &forms {
                prop_assert!(!contains(&whole, form), "{}", name);
            }
        } else {
            prop_assert_eq!(whole, text);
        }
    }
}
