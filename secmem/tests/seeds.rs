//! What fuzzing starts from, or has found, replayed. The seeds lie beside the fuzz targets, so a package is without this test.

use std::path::Path;

use secmem::oracle;

fn replay(folder: &str, oracle: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(folder);
    let mut seeds = 0;
    for entry in folder.read_dir().unwrap() {
        oracle(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}

#[test]
fn every_seed_is_wiped() {
    replay("wipe", oracle::wipe);
}

#[test]
fn every_seed_compares_as_it_should() {
    replay("compare", oracle::compare);
}

#[cfg(all(feature = "redact", target_arch = "x86_64"))]
#[test]
fn every_seed_is_redacted() {
    replay("redact", oracle::redact);
}

#[cfg(all(feature = "vault", target_arch = "x86_64"))]
#[test]
fn every_seed_is_a_frame_or_none() {
    replay("frame", oracle::frame);
}
