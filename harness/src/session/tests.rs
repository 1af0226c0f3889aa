//! Cores that do not go to a file, judged by a target that a shell is.

use std::process::Command;

use super::*;
use crate::canary::Seed;
use crate::variants::FORMS;

/// A script that aborts while it holds its canary, or after it has become another program that does not.
const ROW: &str = r#"{"name":"script/abort","holder":"script","ending":"abort","canary":"text","canary_len":32,
"expect":"clean","ends":{"signal":6},"checkpoints":["planted","signal","exit","core"],"sole_home":false,"needs":[],
"turned_by":[],"shows":[]}"#;

/// Announces `planted` and waits for the answer, as a shell can.
const PLANTED: &str = r"printf '\305\000' >&3; dd bs=16 count=1 <&3 >/dev/null 2>&1";

/// The look at the core of a script, on a machine whose kernel pipes cores to a program.
fn core_of(script: &str) -> Look {
    let dir = tempfile::tempdir().unwrap();
    let [text, subject, work] = ["text", "subject", "work"].map(|name| dir.path().join(name));
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // By a program of its own: a child that another test forks meanwhile would inherit our descriptor open for writing,
    // and nobody can execute a file that somebody may write (ETXTBSY, execve(2)).
    assert!(Command::new("install").args(["-m", "755"]).args([&text, &subject]).status().unwrap().success());
    std::fs::create_dir(&work).unwrap();
    let row: Row = serde_json::from_str(ROW).unwrap();
    let canary = Seed::random().unwrap().canary(&row.name, row.canary, row.canary_len);
    let index = Index::new(&[canary.bytes()], &FORMS, 6).unwrap();
    let setting = Setting {
        subject: &subject,
        dir: &work,
        timeout: Duration::from_secs(60),
        no_core: Some("cores go to a program"),
        handler: Some(Handler::Other("nobody".to_owned())),
        interrupted: &AtomicBool::new(false),
        layout: Layout::Natural,
        derived: None,
        watching: None,
        pass: None,
    };
    let record = run(&row, &canary, &index, &setting);
    record.looks.iter().find(|look| look.checkpoint == Checkpoint::Core).cloned().unwrap()
}

#[test]
fn where_cores_go_to_a_program_the_harness_takes_its_own() {
    let leak = core_of(&format!("read secret <&4; {PLANTED}; kill -ABRT $$"));
    let clean = core_of(&format!("read secret <&4; {PLANTED}; exec sh -c 'kill -ABRT $$'"));

    if leak.looked != Looked::Yes {
        // Then the machine writes no core at all, to a program or a file, and ours would be more than anyone gets.
        eprintln!("skipped: {:?}", leak.looked);
        return;
    }
    assert_eq!((leak.core, clean.core), (Some(CoreSource::Own), Some(CoreSource::Own)));
    assert!(leak.hits.iter().any(|hit| hit.found.whole), "{leak:?}");
    assert!(clean.hits.is_empty() && clean.coverage.read > 0 && clean.coverage.refused.is_empty(), "{clean:?}");
}
