//! Who wrote what the leaky holders leave: the function, and the line of the source that says so.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use findings::{Class, Finding, Frame, Origin, Writer};
use harness::audit::{self, Attribution, Options};
use harness::canary::Seed;
use harness::machine;

fn findings(scenario: &str) -> Vec<Finding> {
    let options = Options {
        subject: PathBuf::from(env!("CARGO_BIN_EXE_scenarios")),
        filter: String::new(),
        quick: false,
        jobs: 1,
        timeout: Duration::from_secs(60),
        min_length: 6,
        decoys: 2,
        required: Vec::new(),
        seed: Seed::random().unwrap(),
        profile: "test".to_owned(),
        rustc: "test".to_owned(),
        ablation: None,
        attribution: Attribution::All,
        course: audit::Course::default(),
    };
    let rows = audit::catalogue(&options.subject).unwrap();
    let row = rows.iter().find(|row| row.name == scenario).unwrap();
    let outcome = audit::row(row, &machine::probe(), &options, &AtomicBool::new(false));
    assert!(!outcome.findings.is_empty(), "{scenario}: {:?}", outcome.reasons);
    outcome.findings
}

/// The writers of findings at that checkpoint in that kind of place, ends of findings included.
///
/// A whole secret has a writer. A fragment may have a reason instead: how much of one is left can depend on addresses.
fn writers(scenario: &str, checkpoint: &str, class: Class) -> Vec<Writer> {
    let mut writers = Vec::new();
    for finding in findings(scenario) {
        if finding.checkpoint == checkpoint && finding.rule.class == class {
            let Some(writer) = finding.writer else {
                let why = finding.unattributed.expect("a writer or a reason");
                assert!(!finding.whole, "{scenario}: {why}");
                continue;
            };
            writers.extend(writer.end.clone().map(|end| *end));
            writers.push(writer);
        }
    }
    writers
}

/// The text of the line that a frame names.
fn source(frame: &Frame) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let (Some(file), Some(line)) = (&frame.file, frame.line) else { return String::new() };
    // As the line tables have it: from the root of the workspace, or from the directory of this crate.
    let text =
        [root.join(file), root.join("scenarios").join(file)].iter().find_map(|path| std::fs::read_to_string(path).ok());
    text.unwrap_or_default().lines().nth(line as usize - 1).unwrap_or_default().trim().to_owned()
}

/// A writer of that kind with a frame of that function of `holder.rs` at a line with that text.
#[track_caller]
fn assert_written(writers: &[Writer], how: &str, function: &str, line: &str) {
    let by = |writer: &&Writer| {
        writer.how.starts_with(how)
            && writer.frames.iter().any(|frame| {
                frame.origin == Origin::Own
                    && frame.function.ends_with(function)
                    && frame.file.as_ref().is_some_and(|file| file.ends_with("holder.rs"))
                    && source(frame).contains(line)
            })
    };
    assert!(writers.iter().any(|writer| by(&writer)), "no {how} by {function} at {line:?} in {writers:#?}");
}

#[test]
fn a_secret_read_straight_into_its_place_was_written_by_the_kernel_for_the_holder() {
    let writers = writers("vec/wipe", "wiped", Class::Heap);

    assert_written(&writers, "system call read(4, …)", "vec", "plant.fill(&mut bytes)?");
}

#[test]
fn what_a_growing_vector_leaves_is_charged_to_the_line_that_grew_it() {
    let writers = writers("grown-vec/wipe", "wiped", Class::Heap);

    assert_written(&writers, "system call read(4, …)", "grow", "canary.read_into(bytes)?");
    assert_written(&writers, "instruction", "grow", "bytes.resize(plant.len, 0);");
    let copied = writers.iter().find(|writer| writer.how == "instruction").unwrap();
    assert_eq!(copied.frames[0].origin, Origin::Libc, "{copied:#?}");
    let charged = &copied.frames[copied.charged().unwrap()];
    assert!(charged.function.ends_with("grow"), "{charged:?}");
    assert!(copied.frames.iter().any(|frame| frame.inlined) || cfg!(debug_assertions), "{copied:#?}");
}

#[test]
fn the_format_machinery_writes_for_the_line_that_formats() {
    let writers = writers("string-format/wipe", "wiped", Class::Heap);

    assert_written(&writers, "instruction", "string_format", "format!");
}

#[test]
fn a_box_that_moved_was_written_once() {
    let writers = writers("moved-box/wipe", "wiped", Class::Heap);

    assert_written(&writers, "system call read(4, …)", "moved_box", "plant.fill(&mut key[..])?");
}

#[test]
fn a_residue_on_the_stack_names_the_function_whose_frame_it_lies_in() {
    let found = findings("stack-array/wipe");

    let found: Vec<_> = found.iter().filter(|finding| finding.rule.class == Class::DeadStack).collect();
    let writers: Vec<_> = found.iter().filter_map(|finding| finding.writer.clone()).collect();
    assert_written(&writers, "system call read(4, …)", "stack_array", "plant.fill(place)?");
    let holders: Vec<_> = writers.iter().filter_map(|writer| writer.frames.get(writer.holder? as usize)).collect();
    assert!(holders.iter().any(|frame| frame.function.ends_with("stack_array")), "{holders:?}");
}

#[test]
fn what_stands_in_the_arguments_was_put_there_by_execve_for_its_caller() {
    let writers = writers("argv/wipe", "wiped", Class::Argv);

    assert_written(&writers, "system call execve", "start_again", "next.exec()");
}

#[test]
fn a_register_has_a_writer_or_the_reason_why_not() {
    let found = findings("grown-vec/wipe");

    let registers = found.iter().filter(|finding| finding.rule.class == Class::Register);
    for finding in registers {
        assert_ne!(finding.writer.is_some(), finding.unattributed.is_some(), "{finding:?}");
    }
}
