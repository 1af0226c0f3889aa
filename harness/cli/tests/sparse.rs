//! A file of 20 GiB that holds hardly anything: searched in little memory, and the little that it holds is found.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};

const LENGTH: u64 = 20 << 30;
const SECRET: &[u8] = b"k\x91v\xa2Qm\x07\xd3\x18\xe6Z\x8f,\xb4n\xc1";

#[test]
fn twenty_gibibytes_of_nothing_are_searched_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let [large, secret] = ["large", "secret"].map(|name| dir.path().join(name));
    std::fs::write(&secret, SECRET).unwrap();
    let file = File::create(&large).unwrap();
    file.set_len(LENGTH).unwrap();
    let places = [12_345, LENGTH / 2 - 7, LENGTH - SECRET.len() as u64];
    for at in places {
        file.write_all_at(SECRET, at).unwrap();
    }
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 30, "the temporary directory keeps no holes");

    let output = Command::new(env!("CARGO_BIN_EXE_residue"))
        .args(["scan", "--json", "--secret-file"])
        .args([&secret, &large])
        .output()
        .unwrap();

    // The only child of this test's process, in KiB.
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(used < 200 << 10, "{used} KiB");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let outcomes: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = outcomes[0]["findings"].as_array().unwrap();
    assert_eq!(found.iter().map(|finding| finding["address"].as_u64().unwrap()).collect::<Vec<_>>(), places);
    let coverage = &outcomes[0]["observations"][0]["coverage"];
    assert!(coverage["never_populated"].as_u64().unwrap() > 19 << 30, "{coverage}");
    assert_eq!(coverage["refused"].as_array().unwrap().len(), 0, "{coverage}");
}
