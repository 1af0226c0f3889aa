//! Cores from everywhere: of our own writing, gcore's, and as crash handlers store them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use base64ct::{Base64, Encoding};

/// No word in it, or it would be found in the messages of the C library.
const SECRET: &str = "Tz4-mQ9#vLx2_Rk7+Wj1";

fn residue(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_residue")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A process with the secret in its memory, which ends with status 5 when told to.
struct Holder(Child);

impl Holder {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read -r go; exit 5"]).arg(SECRET).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Once it has written, it is the shell and no longer a fork of ours.
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// It ends as it would have without us.
    fn end(mut self) {
        drop(self.0.stdin.take());
        assert_eq!(self.0.wait().unwrap().code(), Some(5));
    }
}

/// Whether a tool is there; a test that needs it says why it is skipped.
fn have(tool: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success();
    if !there {
        eprintln!("skipped: no {tool} on this machine");
    }
    there
}

fn scan(what: &str, dir: &Path) -> Output {
    let secret = dir.join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    residue(&["scan", what, "--secret-file", secret.to_str().unwrap(), "--json"])
}

/// Address, form, length, first byte and bytes of the secret, of all that was found in memory.
fn found(output: &Output) -> Vec<String> {
    let outcomes: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = outcomes[0]["findings"].as_array().unwrap();
    let in_memory = findings.iter().filter(|finding| finding["address"] != 0 && finding["place"] != "notes");
    let mut found: Vec<String> = in_memory
        .map(|finding| {
            let [address, length, offset, shown] =
                ["address", "length", "secret_offset", "secret_length"].map(|name| &finding[name]);
            format!("{address} {} {length} {offset} {shown}", finding["rule"]["form"])
        })
        .collect();
    found.sort();
    found
}

/// Writes a core of a holder and returns what a scan of the process itself found just before.
fn own_core(path: &Path) -> (Vec<String>, Output) {
    let holder = Holder::start();
    let live = scan(&holder.pid(), path.parent().unwrap());
    let written = residue(&["core", &holder.pid(), "-o", path.to_str().unwrap()]);
    holder.end();
    assert_eq!(live.status.code(), Some(1), "{}", text(&live));
    (found(&live), written)
}

#[test]
fn a_core_of_our_own_shows_what_the_process_showed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");

    let (live, written) = own_core(&path);

    assert_eq!(written.status.code(), Some(0), "{}", text(&written));
    assert!(text(&written).contains("stood still for"), "{}", text(&written));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = scan(path.to_str().unwrap(), dir.path());
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(!live.is_empty());
    assert_eq!(found(&again), live);
}

#[test]
fn a_core_of_a_process_without_the_secret_is_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();

    let written = residue(&["core", &other.id().to_string(), "-o", path.to_str().unwrap()]);
    other.kill().unwrap();
    other.wait().unwrap();

    assert_eq!(written.status.code(), Some(0), "{}", text(&written));
    let output = scan(path.to_str().unwrap(), dir.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_file_that_is_there_is_not_overwritten_and_no_process_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let (there, absent) = (dir.path().join("there"), dir.path().join("absent"));
    std::fs::write(&there, "mine").unwrap();
    let holder = Holder::start();

    let refused = residue(&["core", &holder.pid(), "-o", there.to_str().unwrap()]);
    let nobody = residue(&["core", "4000000", "-o", absent.to_str().unwrap()]);
    holder.end();

    assert_eq!((refused.status.code(), nobody.status.code()), (Some(64), Some(64)));
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    assert!(!absent.exists());
}

#[test]
fn a_core_of_our_own_that_is_cut_off_is_inconclusive_or_a_leak_and_never_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");
    own_core(&path);
    let whole = std::fs::read(&path).unwrap();

    for length in [20, 64, 500, 5000, whole.len() / 2, whole.len() - 10] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let output = scan(path.to_str().unwrap(), dir.path());

        assert!(matches!(output.status.code(), Some(1 | 2)), "{length}: {}", text(&output));
    }
}

#[test]
fn the_tools_of_others_read_a_core_of_our_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");
    own_core(&path);
    let path = path.to_str().unwrap();

    for (tool, args, expected) in [
        ("readelf", &["--wide", "--headers", "--notes"][..], "NT_FILE"),
        ("eu-readelf", &["--notes"], "rip:"),
        ("gdb", &["--batch", "--nx", "-ex", "info registers rip rsp", "-ex", "x/i $pc", "--core"], "rip "),
    ] {
        if have(tool) {
            let output = Command::new(tool).args(args).arg(path).env("LC_ALL", "C").output().unwrap();

            let text = text(&output);
            assert!(output.status.success() && text.contains(expected), "{tool}: {text}");
            assert!(!text.contains("Warning:") && !text.contains("warning: Couldn't"), "{tool}: {text}");
        }
    }
}

#[test]
fn a_core_of_gcores_shows_what_the_process_showed() {
    if !have("gcore") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let holder = Holder::start();

    let live = scan(&holder.pid(), dir.path());
    let prefix = dir.path().join("gcore");
    let made = Command::new("gcore").args(["-a", "-o", prefix.to_str().unwrap(), &holder.pid()]).output().unwrap();
    let pid = holder.pid();
    holder.end();
    let path = format!("{}.{pid}", prefix.display());
    if !Path::new(&path).exists() {
        eprintln!("skipped: gcore wrote no core: {}", text(&made));
        return;
    }

    let output = scan(&path, dir.path());

    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let in_core = found(&output);
    assert!(found(&live).iter().all(|finding| in_core.contains(finding)), "{:?} {in_core:?}", found(&live));
}

/// As systemd-coredump and apport store it: name, and bytes.
fn stored(core: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let zstd = ruzstd::encoding::compress_to_vec(core, ruzstd::encoding::CompressionLevel::Fastest);
    let checked = lz4_flex::frame::FrameInfo::new().content_checksum(true);
    let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(checked, Vec::new());
    lz4.write_all(core).unwrap();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    xz.write_all(core).unwrap();
    vec![
        ("core.sh.0.0123456789abcdef0123456789abcdef.42.1700000000000000.zst", zstd),
        ("core.sh.0.0123456789abcdef0123456789abcdef.42.1700000000000000.lz4", lz4.finish().unwrap()),
        ("core.sh.0.0123456789abcdef0123456789abcdef.42.1700000000000000.xz", xz.finish().unwrap()),
        ("_usr_bin_sh.0.crash", apport(core)),
    ]
}

/// A report as apport writes it: the core packed by gzip in pieces, each a line of base64 of its own.
fn apport(core: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(core).unwrap();
    let packed = packer.finish().unwrap();
    let mut report = b"ProblemType: Crash\nDate: Thu Jan  1 00:00:00 1970\nCoreDump: base64\n".to_vec();
    let (header, body) = packed.split_at(10);
    for piece in std::iter::once(header).chain(body.chunks(1 << 20)) {
        report.extend_from_slice(format!(" {}\n", Base64::encode_string(piece)).as_bytes());
    }
    report.extend_from_slice(b"ExecutablePath: /usr/bin/sh\nProcStatus:\n Name:\tsh\n Pid:\t42\n");
    report
}

#[test]
fn a_core_that_a_crash_handler_stored_shows_what_the_core_showed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");
    let (live, _) = own_core(&path);
    let core = std::fs::read(&path).unwrap();

    for (name, bytes) in stored(&core) {
        let stored = dir.path().join(name);
        std::fs::write(&stored, &bytes).unwrap();
        let output = scan(stored.to_str().unwrap(), dir.path());
        std::fs::write(&stored, &bytes[..bytes.len() / 2]).unwrap();
        let half = scan(stored.to_str().unwrap(), dir.path());
        std::fs::write(&stored, &bytes[..bytes.len().min(30)]).unwrap();
        let start = scan(stored.to_str().unwrap(), dir.path());

        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert_eq!(found(&output), live, "{name}");
        assert!(matches!(half.status.code(), Some(1 | 2)), "{name}: {}", text(&half));
        assert!(text(&half).contains("inconclusive") || text(&half).contains("not read"), "{name}: {}", text(&half));
        assert_eq!(
            start.status.code(),
            if name.ends_with("crash") { Some(0) } else { Some(2) },
            "{name}: {}",
            text(&start)
        );
    }
}

#[test]
fn a_stored_core_without_the_secret_is_clean_and_a_broken_one_inconclusive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.core");
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    residue(&["core", &other.id().to_string(), "-o", path.to_str().unwrap()]);
    other.kill().unwrap();
    other.wait().unwrap();
    let core = std::fs::read(&path).unwrap();

    for (name, mut bytes) in stored(&core) {
        let stored = dir.path().join(name);
        std::fs::write(&stored, &bytes).unwrap();
        let whole = scan(stored.to_str().unwrap(), dir.path());
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(b'!');
        std::fs::write(&stored, &bytes).unwrap();
        let broken = scan(stored.to_str().unwrap(), dir.path());

        assert_eq!(whole.status.code(), Some(0), "{name}: {}", text(&whole));
        assert_eq!(broken.status.code(), Some(2), "{name}: {}", text(&broken));
    }
}

#[test]
fn the_doctor_says_where_cores_go() {
    let said = text(&residue(&["doctor"]));

    assert!(said.lines().any(|line| line.contains("core_pattern") && line.contains("cores go to")), "{said}");
}
