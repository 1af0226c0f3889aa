//! Rows of the real catalogue, run as one and run in three parts: what the same input gives again is the same to the byte.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::Run;
use harness::audit::{self, Course, Options};
use harness::canary::Seed;
use harness::progress::Nobody;

/// Written down, so that both runs plant the same.
const SEED: &str = "6b1f0c92d5ae4377810b9ce2f64d38a75520e9cb1746fd03a8b29e71c45d60f3";

fn run(part: Option<&str>) -> Run {
    let options = Options {
        subject: PathBuf::from(env!("CARGO_BIN_EXE_scenarios")),
        filter: "/wipe".to_owned(), // a row of every holder: all of them take minutes without optimisation
        quick: false,
        jobs: 2,
        timeout: Duration::from_secs(60),
        min_length: 6,
        decoys: 8,
        required: Vec::new(),
        seed: Seed::from_hex(SEED).unwrap(),
        profile: "test".to_owned(),
        rustc: "test".to_owned(),
        ablation: None,
        attribution: audit::Attribution::Nothing,
        course: Course { part: part.map(|part| part.parse().unwrap()), repeat: 2, fixed_layout: true, sweep: None },
    };
    let rows = audit::rows(&options).unwrap();
    audit::run(&options, &rows, &AtomicBool::new(false), &Nobody).unwrap()
}

fn json(run: &Run) -> String {
    serde_json::to_string_pretty(&run.repeatable()).unwrap()
}

#[test]
fn three_shards_put_together_give_what_one_whole_run_gives() {
    let whole = run(None);
    let shards: Vec<Run> = ["3/3", "1/3", "2/3"].map(|part| run(Some(part))).into();
    let merged = findings::merge(shards.clone()).unwrap();

    let sizes: Vec<_> = shards.iter().map(|shard| shard.outcomes.len()).collect();
    assert!(sizes.iter().all(|size| *size > whole.outcomes.len() / 4), "{sizes:?}");
    assert_eq!(merged.shard, None);
    assert!(json(&whole).contains("\"residues\": [\n"));
    // A row alone can be read where both documents cannot.
    for (merged, whole) in merged.repeatable().rows.iter().zip(&whole.repeatable().rows) {
        assert_eq!(merged, whole);
    }
    assert_eq!(json(&merged), json(&whole));
}
