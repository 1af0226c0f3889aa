//! Every test that `secmem/PARITY.md` names is there.

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

#[test]
fn every_test_that_a_promise_rests_on_is_there() {
    let secmem = Path::new(env!("CARGO_MANIFEST_DIR")).join("../secmem");
    let page = std::fs::read_to_string(secmem.join("PARITY.md")).unwrap();
    let mut there = BTreeSet::new();
    ["src", "tests"].iter().for_each(|dir| functions(&secmem.join(dir), &mut there));

    // Names of functions and fields have fewer words than a sentence.
    let is_sentence = |name: &&str| name.matches('_').count() > 3 && !name.contains(|c: char| c.is_uppercase());
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(is_sentence).collect();

    assert!(named.len() > 60, "{}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !there.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
