//! Every test and every ablation that `secmem/PARITY.md` names is there.

use std::collections::BTreeSet;
use std::path::Path;

/// The functions in the sources below `dir`.
fn functions(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            into.extend(names.map(str::to_owned));
        }
    }
}

/// The names in quotation marks of one kind, within `text`.
fn quoted(text: &str, mark: char) -> BTreeSet<&str> {
    text.split(mark).skip(1).step_by(2).collect()
}

#[test]
fn every_test_that_a_promise_rests_on_is_there() {
    let secmem = Path::new(env!("CARGO_MANIFEST_DIR")).join("../secmem");
    let page = std::fs::read_to_string(secmem.join("PARITY.md")).unwrap();
    let mut there = BTreeSet::new();
    ["src", "tests"].iter().for_each(|dir| functions(&secmem.join(dir), &mut there));

    // Names of functions and fields have fewer words than a sentence.
    let is_sentence = |name: &&str| name.matches('_').count() > 3 && !name.contains(|c: char| c.is_uppercase());
    let named: BTreeSet<&str> = quoted(&page, '`').into_iter().filter(is_sentence).collect();

    assert!(named.len() > 60, "{}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !there.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_ablation_that_a_promise_rests_on_can_be_had() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("secmem/PARITY.md")).unwrap();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, declared) = manifest.split_once("cfg(secmem_ablate, values(").unwrap();
    let declared = quoted(declared.split_once(')').unwrap().0, '"');

    // Behind a test or a row, in brackets, and not the name of a file or of a path.
    let in_brackets = page.split("(`").skip(1).filter_map(|rest| rest.split_once(')'));
    let is_ablation = |name: &&str| !name.is_empty() && name.bytes().all(|it| it.is_ascii_lowercase() || it == b'-');
    let named: BTreeSet<&str> =
        in_brackets.flat_map(|(list, _)| list.split('`').step_by(2)).filter(is_ablation).collect();

    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.difference(&declared).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_that_a_promise_rests_on_is_in_the_catalogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("secmem/PARITY.md")).unwrap();
    let catalogue = std::fs::read_to_string(root.join("scenarios/src/catalog.rs")).unwrap();
    let table = catalogue.split_once("static TABLE").unwrap().1;
    let rows: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("line(&"))
        .map(|line| {
            line.split(',').take(2).map(|name| name.trim().trim_start_matches('&')).collect::<Vec<_>>().join("/")
        })
        .map(|row| row.to_lowercase().replace('_', "-"))
        .collect();

    let is_row = |name: &&str| {
        let plain = name.bytes().all(|it| it.is_ascii_lowercase() || b"-/".contains(&it));
        plain && name.matches('/').count() == 1 && !name.starts_with('/') && !name.ends_with('/')
    };
    let named: BTreeSet<&str> = quoted(&page, '`').into_iter().filter(is_row).collect();

    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|name| !rows.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
