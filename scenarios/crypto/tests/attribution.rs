//! Who wrote what well-known crates leave of a key: the function and the line in the crate, and the line that called it.
//!
//! Lines are looked up by their text, in the crate's source as cargo unpacked it and in ours by the comment that ends
//! them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Class, Finding, Form, Frame, Origin, Writer};
use harness::audit::{self, Attribution, Options};
use harness::canary::Seed;
use harness::{attribute, machine};

/// A known residue, and who is known to leave it.
struct Known {
    scenario: &'static str,
    class: Class,
    form: Form,
    /// Of what is made of the canary, or of the canary itself.
    derived: bool,
    how: &'static str,
    /// Of the frame in the crate: its package, a part of the function's name, and what the line says.
    within: Option<(&'static str, &'static str, &'static str)>,
    /// The comment that ends the line of `victim.rs`.
    marker: &'static str,
}

impl Known {
    const fn new(scenario: &'static str, marker: &'static str) -> Self {
        Self {
            scenario,
            class: Class::DeadStack,
            form: Form::Raw,
            derived: false,
            how: "instruction",
            within: None,
            marker,
        }
    }

    /// Finds it, has its writers named, and returns those that fit, outermost function first checked.
    #[track_caller]
    fn writers(&self) -> Vec<Writer> {
        let found = self.attributed();
        let named = found.iter().filter_map(|finding| finding.writer.clone());
        let all = named.flat_map(|writer| [writer.end.clone().map(|end| *end), Some(writer)]).flatten();
        let fits: Vec<_> = all.filter(|writer| self.fits(writer)).collect();
        assert!(!fits.is_empty(), "nobody who fits in {found:#?}");
        fits
    }

    fn fits(&self, writer: &Writer) -> bool {
        let own = |frame: &Frame| {
            frame.origin == Origin::Own
                && frame.file.as_ref().is_some_and(|file| file.ends_with("src/victim.rs"))
                && source(frame).ends_with(&format!("// residue: {}", self.marker))
        };
        let within = |frame: &Frame| {
            self.within.is_none_or(|(package, function, line)| {
                frame.origin == Origin::Dependency
                    && frame.file.as_ref().is_some_and(|file| file.starts_with(&format!("crates/{package}-")))
                    && frame.function.contains(function)
                    && source(frame).contains(line)
            })
        };
        writer.how.starts_with(self.how) && writer.frames.iter().any(own) && writer.frames.iter().any(within)
    }

    /// The findings of that kind behind the end of the key, each with its writer.
    fn attributed(&self) -> Vec<Finding> {
        let options = Options {
            subject: PathBuf::from(env!("CARGO_BIN_EXE_scenarios-crypto")),
            filter: String::new(),
            quick: false,
            jobs: 1,
            timeout: Duration::from_secs(60),
            min_length: 6,
            decoys: 2,
            required: Vec::new(),
            seed: Seed::random().unwrap(),
            profile: "test".to_owned(),
            rustc: "test".to_owned(),
            ablation: None,
            attribution: Attribution::Nothing,
            course: harness::audit::Course::default(),
        };
        let (machine, never) = (machine::probe(), AtomicBool::new(false));
        let rows = audit::catalogue(&options.subject).unwrap();
        let row = rows.iter().find(|row| row.name == self.scenario).unwrap();
        let outcome = audit::row(row, &machine, &options, &never);
        assert!(outcome.as_expected, "{:?}", outcome.reasons);
        let mut found: Vec<_> = outcome
            .findings
            .into_iter()
            .filter(|finding| {
                finding.checkpoint == "wiped"
                    && (finding.rule.class, finding.rule.form) == (self.class, self.form)
                    && finding.derived.is_some() == self.derived
            })
            .collect();
        let mut wanted: Vec<_> = found.iter_mut().collect();
        attribute::attribute(row, &machine, &options, &mut wanted, &never);
        found
    }
}

/// The text of the line that a frame names, without the space around it.
fn source(frame: &Frame) -> String {
    let (Some(file), Some(line)) = (&frame.file, frame.line) else { return String::new() };
    let text = places(file).iter().find_map(|path| std::fs::read_to_string(path).ok());
    text.unwrap_or_default().lines().nth(line as usize - 1).unwrap_or_default().trim().to_owned()
}

/// Where the file of a frame may lie: unpacked by cargo, or in the workspace, as seen from its root or from this crate.
fn places(file: &str) -> Vec<PathBuf> {
    let Some(in_package) = file.strip_prefix("crates/") else {
        let this = Path::new(env!("CARGO_MANIFEST_DIR"));
        return vec![this.join("../..").join(file), this.join(file)];
    };
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registries = std::fs::read_dir(home.unwrap_or_default().join("registry/src"));
    registries.into_iter().flatten().flatten().map(|registry| registry.path().join(in_package)).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn argon2_leaves_the_key_that_it_derives() {
    let known = Known {
        derived: true,
        within: Some(("argon2", "finalize", "blake2b_long(&[&blockhash_bytes], out)")),
        ..Known::new("argon2/bare", "argon2")
    };

    let writers = known.writers();

    assert!(writers.iter().any(|writer| writer.frames.iter().any(|frame| frame.inlined)), "{writers:#?}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn scrypt_leaves_the_key_that_it_derives() {
    let within = Some(("scrypt", "scrypt", "pbkdf2_hmac::<Sha256>(password, &b, 1, output)"));

    Known { derived: true, within, ..Known::new("scrypt/bare", "scrypt") }.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn hkdf_leaves_the_key_by_a_memcpy_that_is_charged_to_its_caller() {
    // Which line that is, the compiler tells in some builds and not in others: of the copies in it, one is left.
    let within = Some(("block-buffer", "digest_blocks", ""));

    let writers = Known { within, ..Known::new("hkdf/bare", "hkdf extract") }.writers();

    let charged = |writer: &Writer| {
        writer.frames[0].origin == Origin::Libc
            && writer.frames[0].function.contains("memcpy")
            && writer.charged().is_some_and(|at| writer.frames[at].function.contains("digest_blocks"))
    };
    assert!(writers.iter().any(charged), "{writers:#?}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn hkdf_leaves_the_key_that_it_derives() {
    let within = Some(("hkdf", "expand_multi_info", "let output = hmac.finalize();"));

    Known { derived: true, within, ..Known::new("hkdf/bare", "hkdf expand") }.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn aes_gcm_leaves_the_key_where_it_makes_round_keys_of_it() {
    let within = Some(("aes-gcm", "new", "Aes::new(key).into()"));

    Known { within, ..Known::new("aes-gcm/bare", "aes-gcm") }.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn a_signal_leaves_the_round_keys_that_it_found_in_registers() {
    let known = Known {
        form: Form::AesEncKey,
        how: "frame of signal 10",
        within: Some(("signal-hook", "raise", "libc::raise")),
        ..Known::new("aes-gcm-signal/bare", "signal")
    };

    known.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn chacha20poly1305_leaves_the_key_where_it_encrypts() {
    let within = Some(("chacha20poly1305", "encrypt_in_place_detached", "C::new(&self.key, nonce)"));

    // The cipher's state holds the key as it is: the form that says more names it.
    let form = Form::ChachaState;
    Known { form, within, ..Known::new("chacha20poly1305/bare", "chacha20poly1305") }.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn ed25519_dalek_leaves_the_seed_of_its_signing_key() {
    let within = Some(("ed25519-dalek", "from_bytes", "secret_key: *secret_key"));

    Known { within, ..Known::new("ed25519-dalek/bare", "ed25519-dalek") }.writers();
}

#[test]
#[cfg_attr(debug_assertions, ignore = "wants an optimised build")]
fn a_buffered_reader_leaves_what_read_brought() {
    let how = "system call read(4, …)";

    let writers = Known { class: Class::Heap, how, ..Known::new("bufreader/bare", "bufreader") }.writers();

    assert!(writers.iter().any(|writer| writer.frames.iter().any(|frame| frame.origin == Origin::Std)), "{writers:#?}");
}
