//! The crates import each other as ARCHITECTURE.md says, no edge more and no edge fewer.

mod architecture;

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// `from → to`, or `from → to (tests)` where only tests import.
type Edges = BTreeSet<String>;

/// The packages of the workspace, and of the fuzz targets and the peers, which are workspaces of their own.
fn packages() -> Vec<Package> {
    let manifests = ["Cargo.toml", "fuzz/Cargo.toml", "scenarios/peers/Cargo.toml"]
        .map(|manifest| architecture::root().join(manifest));
    manifests.iter().flat_map(|manifest| metadata(manifest)).collect()
}

fn metadata(manifest: &Path) -> Vec<Package> {
    // Without dependencies cargo reads the manifests alone and needs no network.
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap().packages
}

fn edges_in_manifests() -> Edges {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut edges = Edges::new();
    for package in &packages {
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains(dependency.name.as_str())) {
            let tests = if dependency.kind == DependencyKind::Development { " (tests)" } else { "" };
            edges.insert(format!("{} → {}{tests}", package.name, dependency.name));
        }
    }
    edges
}

fn edges_in_the_architecture() -> Edges {
    let mut edges = Edges::new();
    for [from, imports, in_tests] in architecture::table("| crate | imports | in tests also |") {
        let names = |cell: &str| architecture::names(cell).into_iter().map(str::to_owned).collect::<Vec<_>>();
        for from in names(&from) {
            edges.extend(names(&imports).iter().map(|to| format!("{from} → {to}")));
            edges.extend(names(&in_tests).iter().map(|to| format!("{from} → {to} (tests)")));
        }
    }
    edges
}

#[test]
fn the_crates_import_each_other_as_the_architecture_says() {
    let (real, allowed) = (edges_in_manifests(), edges_in_the_architecture());

    let too_many: Vec<_> = real.difference(&allowed).collect();
    let too_few: Vec<_> = allowed.difference(&real).collect();
    assert!(
        too_many.is_empty() && too_few.is_empty(),
        "not in ARCHITECTURE.md: {too_many:?}; not in any manifest: {too_few:?}"
    );
}

#[test]
fn every_crate_has_its_line_in_the_architecture() {
    let rows = architecture::table("| crate | imports | in tests also |");
    let listed: BTreeSet<_> =
        rows.iter().flat_map(|[crate_name, _, _]| architecture::names(crate_name)).map(str::to_owned).collect();

    let real: BTreeSet<_> = packages().into_iter().map(|package| package.name.to_string()).collect();

    assert_eq!(real, listed);
}

#[test]
fn every_crate_of_the_workspace_follows_its_lints() {
    for package in metadata(&architecture::root().join("Cargo.toml")) {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();

        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{}", package.manifest_path);
    }
}
