//! The program as a user meets it: exit codes, help, plain text in pipes, what a scan finds.

use std::path::Path;
use std::process::{Command, Output};

fn residue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residue")).args(args).env_remove("NO_COLOR").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_bad_flag_is_wrong_usage() {
    assert_eq!(residue(&["audit", "--no-such-flag"]).status.code(), Some(64));
    assert_eq!(residue(&["no-such-command"]).status.code(), Some(64));
    assert_eq!(residue(&["scan", "/"]).status.code(), Some(64));
}

#[test]
fn shards_that_make_no_sense_and_rows_that_are_not_there_are_wrong_usage() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    for shard in ["0/3", "4/3", "1", "1/0", "+1/3", "1/20000", "a/b"] {
        let output = residue(&["audit", "/bin/true", "--out", out, "--shard", shard]);

        assert_eq!(output.status.code(), Some(64), "{shard}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("NUMBER/OF"), "{shard}");
    }
    assert_eq!(residue(&["merge", "--out", out]).status.code(), Some(64));
    assert_eq!(residue(&["merge", "/no/such/run.json", "--out", out]).status.code(), Some(64));
}

#[test]
fn a_directory_that_cannot_be_one_is_wrong_usage_and_named() {
    for dir in ["/dev/null", "/dev/null/evidence", "/proc/no-such-directory"] {
        for command in [&["audit", "/bin/true", "--out", dir][..], &["run", "--out", dir, "--", "true"]] {
            let output = residue(command);

            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(64), "{command:?}: {said}");
            assert!(said.contains(dir), "{said}");
        }
    }
}

#[test]
fn a_thread_of_the_kernel_is_told_as_one() {
    let flags = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    let flags = flags.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    if flags.is_none_or(|flags| flags & 0x0020_0000 == 0) {
        eprintln!("skipped: process 2 is no thread of the kernel here");
        return;
    }

    let output = residue(&["scan", "2", "--unknown-keys"]);

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("a thread of the kernel"), "{said}");
}

#[test]
fn a_panic_is_an_internal_error() {
    assert_eq!(residue(&["panic"]).status.code(), Some(70));
}

#[test]
fn every_subcommand_shows_an_example() {
    for command in ["audit", "baseline", "merge", "run", "diff", "explain", "report", "scan", "core", "list", "doctor"]
    {
        let output = residue(&[command, "--help"]);

        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(stdout(&output).contains("Example"), "{command}");
    }
}

#[test]
fn a_pipe_gets_plain_text() {
    for args in [&["doctor"][..], &["--help"], &["audit", "--help"]] {
        assert!(!stdout(&residue(args)).contains('\x1b'), "{args:?}");
    }
}

const SECRET: [u8; 32] =
    *b"k\x91v\xa2Qm\x07\xd3\x18\xe6Z\x8f,\xb4n\xc1\x3d\xf7H\x95a\x0b\xde\x74T\xa9\x1c\xeb3\x86O\xd8";

/// An ELF core with one segment of memory that holds these pieces at these offsets, and nothing else.
fn core(length: usize, pieces: &[(usize, &[u8])]) -> Vec<u8> {
    let mut memory = vec![0xA5; length];
    for (at, piece) in pieces {
        memory[*at..at + piece.len()].copy_from_slice(piece);
    }
    let mut core = Vec::new();
    core.extend_from_slice(b"\x7fELF\x02\x01\x01");
    core.resize(16, 0);
    core.extend_from_slice(&4_u16.to_le_bytes()); // ET_CORE
    core.extend_from_slice(&62_u16.to_le_bytes()); // x86-64
    core.extend_from_slice(&1_u32.to_le_bytes());
    for word in [0_u64, 64, 0] {
        core.extend_from_slice(&word.to_le_bytes()); // entry, program headers, section headers
    }
    core.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        core.extend_from_slice(&half.to_le_bytes());
    }
    core.extend_from_slice(&1_u32.to_le_bytes()); // PT_LOAD
    core.extend_from_slice(&6_u32.to_le_bytes()); // rw-
    for word in [120, 0x7000_0000, 0, length as u64, length as u64, 4096] {
        core.extend_from_slice(&word.to_le_bytes());
    }
    core.extend_from_slice(&memory);
    core
}

fn scan(dir: &Path, core: &[u8]) -> Output {
    let (file, secret) = (dir.join("core"), dir.join("secret"));
    std::fs::write(&file, core).unwrap();
    std::fs::write(&secret, SECRET).unwrap();
    residue(&["scan", file.to_str().unwrap(), "--secret-file", secret.to_str().unwrap(), "--json"])
}

/// Address, length, first byte of the secret, bytes of the secret.
fn found(output: &Output) -> Vec<(u64, u64, u64, u64)> {
    let outcomes: serde_json::Value = serde_json::from_str(&stdout(output)).unwrap();
    let number = |finding: &serde_json::Value, name: &str| finding[name].as_u64().unwrap();
    outcomes[0]["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let [address, length, offset, shown] =
                ["address", "length", "secret_offset", "secret_length"].map(|name| number(finding, name));
            (address, length, offset, shown)
        })
        .collect()
}

#[test]
fn two_fragments_of_a_hand_made_core_are_found_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    // The second lies across the edge of the 256 KiB pieces in which files are read, wherever the segment begins.
    let edge = 256 * 1024 - 5;
    let core = core(600 * 1024, &[(4097, &SECRET[9..15]), (edge, &SECRET[3..19]), (300_001, &SECRET[20..25])]);

    let output = scan(dir.path(), &core);

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(found(&output), [(0x7000_0000 + 4097, 6, 9, 6), (0x7000_0000 + edge as u64, 16, 3, 16)]);
}

#[test]
fn a_core_without_the_secret_is_clean() {
    let dir = tempfile::tempdir().unwrap();

    let output = scan(dir.path(), &core(64 * 1024, &[]));

    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
}

#[test]
fn a_truncated_core_is_inconclusive() {
    let dir = tempfile::tempdir().unwrap();
    let whole = core(64 * 1024, &[]);

    let output = scan(dir.path(), &whole[..whole.len() - 1]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("the core ends before its headers say"));
}

#[test]
fn a_secret_that_is_too_short_or_too_regular_is_refused_without_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    for secret in ["abc", "hunterhunterhunter", "zzzzzzzzzzzzzzzzzzzz"] {
        let file = dir.path().join("weak");
        std::fs::write(&file, secret).unwrap();

        let output = residue(&["scan", "/dev/null", "--secret-file", file.to_str().unwrap()]);

        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(!said.contains(secret));
    }
}
