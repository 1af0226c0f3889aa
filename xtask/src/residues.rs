//! What each pair is about, and what its bare half leaves, as lines of a table in Markdown.
//!
//! The program with the pairs says which crate each uses, by the name in its manifest, and for what; cargo says in which
//! version, and whether the library depends on the same. Nobody writes either down.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use xshell::cmd;

use crate::audit;
use crate::failure::Failure;
use crate::workspace::Workspace;

/// The package of the library.
const LIBRARY: &str = "secmem";

/// What stands above the lines of [`Pair::line`].
pub(crate) const HEAD: &str = "\
| pair | crate | does | left of the secret, by search | bytes that depend on it: stack, heap, registers, elsewhere | scrubbed | in secmem |
|---|---|---|---|---|---|---|";

/// Forms that are made of a secret as a step of what is done with it, and what they are. The others are the secret, however it
/// is written.
const STEPS: [(&str, &str); 9] = [
    ("aes-enc-key", "round keys"),
    ("aes-dec-key", "round keys"),
    ("sha256-schedule", "message schedule"),
    ("sha512-schedule", "message schedule"),
    ("hmac-block", "block of HMAC"),
    ("hmac-sha256-state", "state of HMAC"),
    ("hmac-sha512-state", "state of HMAC"),
    ("chacha-state", "state of ChaCha20"),
    ("ed25519-key", "scalar and prefix"),
];

/// What a pair is about.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Name and version of the crate.
    package: String,
    /// What it does.
    operation: String,
    /// What the derived secret consists of: names and bytes, in their order.
    parts: Vec<(String, u64)>,
    /// Whether the library depends on that crate in that version.
    of_the_library: bool,
}

/// All pairs by their names.
pub(crate) fn pairs(workspace: &Workspace, subject: &Path) -> Result<BTreeMap<String, Pair>, Failure> {
    let doing = |error| Failure::because("reading the crates of the pairs", error);
    let listing = cmd!(workspace.sh, "{subject} crates").quiet().read()?;
    let listing: Value = serde_json::from_str(&listing).map_err(|error| doing(error.into()))?;
    // With the features off there is only half of the library.
    let metadata = cmd!(workspace.sh, "cargo metadata --locked --all-features --format-version 1").quiet().read()?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| doing(error.into()))?;
    read(&listing, &metadata).map_err(doing)
}

type Error = Box<dyn std::error::Error>;

fn read(listing: &Value, metadata: &Value) -> Result<BTreeMap<String, Pair>, Error> {
    let packages: BTreeMap<&str, (&str, &str)> = array(&metadata["packages"])?
        .iter()
        .map(|package| Ok((text(&package["id"])?, (text(&package["name"])?, text(&package["version"])?))))
        .collect::<Result<_, Error>>()?;
    let dependencies = |of: &str| -> Result<BTreeMap<&str, &str>, Error> {
        let nodes = array(&metadata["resolve"]["nodes"])?;
        let is_it = |node: &&Value| node["id"].as_str().and_then(|id| packages.get(id)).is_some_and(|it| it.0 == of);
        let node = nodes.iter().find(is_it).ok_or_else(|| format!("cargo knows no {of}"))?;
        // What tests and build scripts use is not what a user gets.
        let normal =
            |one: &&Value| one["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it["kind"].is_null()));
        array(&node["deps"])?.iter().filter(normal).map(|one| Ok((text(&one["name"])?, text(&one["pkg"])?))).collect()
    };
    let (ours, librarys) = (dependencies(audit::CRYPTO)?, dependencies(LIBRARY)?);
    let librarys: BTreeSet<&str> = librarys.into_values().collect();
    let pair = |it: &Value| {
        let dependency = text(&it["dependency"])?;
        let (package, of_the_library) = if dependency == "std" {
            ("std".to_owned(), false)
        } else {
            let id = ours.get(dependency.replace('-', "_").as_str()).ok_or_else(|| format!("no {dependency}"))?;
            let (name, version) = packages.get(id).ok_or_else(|| format!("cargo knows no {id}"))?;
            (format!("{name} {version}"), librarys.contains(id))
        };
        let part = |part: &Value| Some((part[0].as_str()?.to_owned(), part[1].as_u64()?));
        let parts = array(&it["parts"])?.iter().map(part).collect::<Option<_>>().ok_or("an odd part")?;
        let operation = text(&it["operation"])?.to_owned();
        Ok((text(&it["name"])?.to_owned(), Pair { package, operation, parts, of_the_library }))
    };
    array(listing)?.iter().map(pair).collect()
}

fn array(value: &Value) -> Result<&Vec<Value>, Error> {
    value.as_array().ok_or_else(|| "no array where one belongs".into())
}

fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| "no text where one belongs".into())
}

/// A finding of the search: which bytes of what.
#[derive(Debug)]
pub(crate) struct Found {
    derived: bool,
    form: String,
    bytes: Range<u64>,
}

impl Found {
    pub(crate) fn read(finding: &Value) -> Result<Self, Error> {
        let number = |name: &str| finding[name].as_u64().ok_or("a finding without an offset or a length");
        let from = number("secret_offset")?;
        let bytes = from..from.checked_add(number("secret_length")?).ok_or("an odd length")?;
        let form = text(&finding["rule"]["form"])?.to_owned();
        Ok(Self { derived: !finding["derived"].is_null(), form, bytes })
    }
}

impl Pair {
    /// Its line: `bytes` by place, as [`HEAD`] has them.
    pub(crate) fn line(&self, name: &str, found: &[Found], bytes: [u64; 4], scrubbed: &str) -> String {
        let left = self.left(found);
        let bytes = bytes.map(|bytes| bytes.to_string()).join(", ");
        let uses = if self.of_the_library { "yes" } else { "–" };
        format!("| `{name}` | {} | {} | {left} | {bytes} | {scrubbed} | {uses} |", self.package, self.operation)
    }

    /// What was found: of each thing how many of its bytes at all, and in how many places.
    fn left(&self, found: &[Found]) -> String {
        let mut things: BTreeMap<(usize, String), Vec<Range<u64>>> = BTreeMap::new();
        for (rank, thing, bytes) in found.iter().flat_map(|one| self.things(one)) {
            things.entry((rank, thing)).or_default().push(bytes);
        }
        let told = things.into_iter().map(|((_, thing), places)| {
            let s = if places.len() == 1 { "" } else { "s" };
            let count = places.len();
            format!("{thing}: {} B in {count} place{s}", distinct(places))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// What a finding is of, in the order in which that is told: the key, what is a step from it, parts of what is made of it.
    fn things(&self, found: &Found) -> Vec<(usize, String, Range<u64>)> {
        let step = STEPS.iter().find(|(form, _)| *form == found.form).map(|(_, step)| *step);
        match (found.derived, step) {
            (false, None) => vec![(0, "key".to_owned(), found.bytes.clone())],
            (false, Some(step)) => vec![(1, step.to_owned(), found.bytes.clone())],
            (true, Some(step)) => vec![(1, format!("{step} of what is derived"), found.bytes.clone())],
            (true, None) => {
                let (mut things, mut begin) = (Vec::new(), 0);
                for (rank, (name, len)) in self.parts.iter().enumerate() {
                    let bytes = found.bytes.start.max(begin)..found.bytes.end.min(begin + len);
                    if !bytes.is_empty() {
                        things.push((2 + rank, name.clone(), bytes));
                    }
                    begin += len;
                }
                things
            }
        }
    }
}

/// How many bytes lie in any of the ranges.
fn distinct(mut ranges: Vec<Range<u64>>) -> u64 {
    ranges.sort_by_key(|range| range.start);
    let (mut sum, mut end) = (0, 0);
    for range in ranges {
        sum += range.end.saturating_sub(range.start.max(end));
        end = end.max(range.end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair() -> Pair {
        let parts = vec![("shared secret".to_owned(), 32), ("vector".to_owned(), 100)];
        Pair { package: "kem 1.2.3".to_owned(), operation: "decapsulates".to_owned(), parts, of_the_library: true }
    }

    fn found(derived: bool, form: &str, bytes: Range<u64>) -> Found {
        Found { derived, form: form.to_owned(), bytes }
    }

    #[test]
    fn bytes_that_lie_in_several_places_are_counted_once() {
        assert_eq!(distinct(vec![8..16, 0..10, 20..24, 21..22]), 20);
        assert_eq!(distinct(Vec::new()), 0);
    }

    #[test]
    fn a_line_tells_the_key_first_then_steps_then_the_parts_of_what_is_derived() {
        let all = [
            found(true, "raw", 30..40),
            found(false, "aes-enc-key", 32..240),
            found(false, "raw", 0..32),
            found(false, "swap32", 0..8),
        ];

        let line = pair().line("kem", &all, [1, 2, 3, 4], "clean");

        assert_eq!(
            line,
            "| `kem` | kem 1.2.3 | decapsulates | key: 32 B in 2 places; round keys: 208 B in 1 place; \
             shared secret: 2 B in 1 place; vector: 8 B in 1 place | 1, 2, 3, 4 | clean | yes |"
        );
    }

    #[test]
    fn versions_and_what_the_library_uses_are_cargos_to_say() {
        let package =
            |name: &str, version: &str| json!({"id": format!("{name}@{version}"), "name": name, "version": version});
        let dependency = |name: &str, package: &str, kinds: &[Value]| {
            let kinds: Vec<_> = kinds.iter().map(|kind| json!({"kind": kind})).collect();
            json!({"name": name, "pkg": package, "dep_kinds": kinds})
        };
        let metadata = json!({
            "packages": [
                package("aes-gcm", "0.10.3"), package("aes-gcm", "0.11.1"),
                package(audit::CRYPTO, "0.1.0"), package(LIBRARY, "0.1.0")
            ],
            "resolve": {"nodes": [
                {"id": "scenarios-crypto@0.1.0", "deps": [
                    dependency("aes_gcm", "aes-gcm@0.10.3", &[Value::Null]),
                    dependency("aes_gcm_now", "aes-gcm@0.11.1", &[Value::Null])]},
                {"id": "secmem@0.1.0", "deps": [
                    dependency("old", "aes-gcm@0.10.3", &[json!("dev")]),
                    dependency("other_name", "aes-gcm@0.11.1", &[json!("dev"), Value::Null])]}
            ]}
        });
        let of = |dependency: &str| {
            let listing = json!([{"name": "it", "dependency": dependency, "operation": "does", "parts": [["a", 3]]}]);
            read(&listing, &metadata).map(|mut pairs| pairs.remove("it").unwrap())
        };

        let (old, new, std) = (of("aes-gcm").unwrap(), of("aes-gcm-now").unwrap(), of("std").unwrap());

        assert_eq!([&old.package, &new.package, &std.package], ["aes-gcm 0.10.3", "aes-gcm 0.11.1", "std"]);
        assert_eq!([old.of_the_library, new.of_the_library, std.of_the_library], [false, true, false]);
        assert_eq!(new.parts, [("a".to_owned(), 3)]);
        assert!(of("no-such-crate").is_err());
    }

    #[test]
    fn a_finding_that_lacks_a_part_is_an_error() {
        let whole = json!({"rule": {"form": "raw"}, "secret_offset": 1, "secret_length": 2});

        let read = Found::read(&whole).unwrap();

        assert_eq!((read.derived, read.bytes), (false, 1..3));
        for part in ["rule", "secret_offset", "secret_length"] {
            let mut odd = whole.clone();
            odd.as_object_mut().unwrap().remove(part);
            assert!(Found::read(&odd).is_err(), "{part}");
        }
    }
}
