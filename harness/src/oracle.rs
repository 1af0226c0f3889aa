//! What the fuzz targets check: properties that hold for any input. Each panics when one does not.

use std::io::Write;

use crate::snapshot::{self, Part};

/// Any bytes, taken as a core file: no panic, no more bytes handed on than the file has, and the parts add up.
///
/// # Panics
///
/// When a property does not hold, or when a temporary file cannot be written.
pub fn core(data: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("write it");
    let mut handed_on = 0;
    let coverage = snapshot::read_core(&file, |part, address, bytes| {
        handed_on += bytes.len();
        if part != Part::Memory {
            let start = usize::try_from(address).expect("an offset in the file");
            assert_eq!(data.get(start..start + bytes.len()), Some(bytes));
        }
    });
    assert!(handed_on <= data.len());
    if let Ok(coverage) = coverage {
        assert_eq!(coverage.read, handed_on as u64);
        // A header may list more than can be counted; then nothing may pass for complete.
        assert!(coverage.adds_up() || coverage.refused_bytes() > 0);
    }
}

/// Any bytes, taken as needles, haystack and chunk lengths: the index finds what the naive search finds.
///
/// # Panics
///
/// When they disagree.
pub fn scan(data: &[u8]) {
    crate::scan::oracle(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_the_core_target_passes_its_oracle() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/core");
        let seeds: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();

        assert!(!seeds.is_empty());
        for seed in seeds {
            core(&std::fs::read(seed).unwrap());
        }
    }
}
