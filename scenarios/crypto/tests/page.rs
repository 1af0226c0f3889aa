//! The page of the residues has a line for each pair, and names crates in the versions that are built here: what was measured of
//! another is no answer.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// From the workspace's root.
fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pairs of the catalogue.
fn pairs() -> BTreeSet<String> {
    let listing = Command::new(env!("CARGO_BIN_EXE_scenarios-crypto")).arg("crates").output().unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&listing.stdout).unwrap();
    listing.as_array().unwrap().iter().map(|pair| pair["name"].as_str().unwrap().to_owned()).collect()
}

/// What `Cargo.lock` says that our program depends on: name and version.
fn crates() -> BTreeSet<String> {
    let lock: toml::Table = file("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let name_of = |package: &toml::Value| package["name"].as_str().unwrap().to_owned();
    let ours = packages.iter().find(|package| name_of(package) == env!("CARGO_PKG_NAME")).unwrap();
    let full = |dependency: &toml::Value| {
        let dependency = dependency.as_str().unwrap();
        // The version stands there only where there are several.
        let versioned = || packages.iter().find(|package| name_of(package) == dependency).unwrap();
        match dependency.split_once(' ') {
            Some(_) => dependency.to_owned(),
            None => format!("{dependency} {}", versioned()["version"].as_str().unwrap()),
        }
    };
    ours["dependencies"].as_array().unwrap().iter().map(full).collect()
}

/// The first two cells of each line of the page's table, without backquotes.
fn lines() -> Vec<(String, String)> {
    let page = file("secmem/RESIDUES.md");
    let cells = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    };
    page.lines().filter_map(cells).collect()
}

#[test]
fn each_pair_has_its_line_and_each_line_its_pair() {
    let lines = lines();

    let named: BTreeSet<_> = lines.iter().map(|(pair, _)| pair.clone()).collect();

    assert_eq!(named, pairs());
    assert_eq!(named.len(), lines.len(), "a pair has two lines");
}

#[test]
fn each_line_names_a_crate_in_the_version_that_is_built() {
    let built = crates();
    assert!(built.iter().any(|it| it.starts_with("ml-kem ")), "{built:?}");

    let odd: Vec<_> = lines().into_iter().filter(|(_, of)| of != "std" && !built.contains(of)).collect();

    assert!(
        odd.is_empty(),
        "measured with another version (`cargo xtask pairs --allocator glibc --markdown`): {odd:?}"
    );
}
