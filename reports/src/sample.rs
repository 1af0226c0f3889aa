//! Runs made by hand, with something of everything: one set for the tests of all formats.

use findings::{
    Build, Class, Controls, CoreLimit, Coverage, Dumpable, Exposure, Fact, Finding, Form, FormChance, Frame, Kept,
    Looked, Machine, NotShown, Observation, Origin, Outcome, Rule, Run, SCHEMA, Sensitivity, Settings, Share, Tool,
    Verdict, Writer,
};

/// A name that tries to speak HTML, Markdown and terminal.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script>|`pipe`\n# newline\u{1b}[31m\u{202e}";

/// Ten rows, three of them not as expected, ten findings.
pub(crate) fn run() -> Run {
    let outcomes = vec![
        secmem_exit(),
        secmem_killed(),
        secmem_leaking(),
        bare_vec(),
        grown_vec(),
        argv(),
        undecided(),
        silent_control(),
        hostile(),
        surviving_child(),
    ];
    judged(outcomes)
}

/// The rows of [`run`] that are as expected and name nothing hostile.
pub(crate) fn clean() -> Run {
    judged(vec![secmem_exit(), secmem_killed(), bare_vec(), grown_vec(), argv(), surviving_child()])
}

/// As many clean rows as a full audit has: twelve holders, sixteen endings.
pub(crate) fn large() -> Run {
    let holders = [
        "secmem-memfd",
        "secmem-mlock",
        "zeroize-vec",
        "memsec",
        "bare-vec",
        "stack-array",
        "format-string",
        "grown-vec",
        "moved-box",
        "argv",
        "environ",
        "peer",
    ];
    let endings = [
        "wipe-and-stay",
        "timeout",
        "panic-unwind",
        "panic-abort",
        "return",
        "exit",
        "_exit",
        "abort",
        "sigint",
        "sigterm",
        "sighup",
        "sigquit",
        "sigabrt",
        "sigkill",
        "fork-child",
        "exec",
    ];
    let row = |holder: &str, ending: &str, of: fn() -> Outcome| {
        let (holder, ending) = (holder.to_owned(), ending.to_owned());
        Outcome { scenario: format!("{holder}/{ending}"), holder, ending, ..of() }
    };
    let rows = holders.iter().enumerate().flat_map(|(at, holder)| {
        endings.iter().map(move |ending| row(holder, ending, if at < 3 { secmem_exit } else { bare_vec }))
    });
    judged(rows.collect())
}

/// No row at all.
pub(crate) fn empty() -> Run {
    judged(Vec::new())
}

/// A run that was stopped after two rows.
pub(crate) fn interrupted() -> Run {
    let mut run = Run { interrupted: true, ..judged(vec![secmem_exit(), bare_vec()]) };
    run.verdict = run.judge();
    run
}

fn judged(outcomes: Vec<Outcome>) -> Run {
    let mut run = Run {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "residue".to_owned(), version: "0.1.0".to_owned() },
        machine: Machine {
            kernel: "Linux 6.18.0".to_owned(),
            arch: "x86_64".to_owned(),
            facts: vec![
                fact("ptrace", true, "a child could be seized"),
                fact("memfd_secret", true, "one page was made and written"),
                fact("kernel core", true, "core_pattern names a file"),
                fact("lock limit", false, "64 KiB may be locked, 8,192 KiB were asked for"),
            ],
        },
        build: Build {
            subject: "scenarios".to_owned(),
            digest: "blake3:9c1185a5c5e9fc54612808977ee8f548b2258d31".to_owned(),
            profile: "audit".to_owned(),
            rustc: "rustc 1.95.0 (59807616e 2026-04-14)".to_owned(),
            ablation: None,
        },
        settings: Settings {
            min_length: 6,
            decoys: 8,
            filter: String::new(),
            required: Vec::new(),
            timeout_seconds: 20,
            repeat: 1,
            fixed_layout: false,
        },
        sensitivity: Sensitivity {
            min_length: 6,
            windows: 1_458,
            searched: outcomes.iter().map(|outcome| outcome.coverage().read).sum(),
            expected_chance_hits: 0.000_032,
            expected_in_random_bytes: Some(0.000_002),
            chance_hits_below: Some(0.375),
            forms: vec![FormChance {
                form: Form::Raw,
                windows: 27,
                in_random_bytes: 0.000_002,
                in_own_alphabet: 0.000_032,
            }],
            decoys: 8 * outcomes.len() as u64,
            decoy_hits: 0,
        },
        not_shown: vec![
            NotShown {
                what: "swap".to_owned(),
                why: "no swap device is read; pages that were swapped out count as refused".to_owned(),
            },
            NotShown {
                what: "vector registers".to_owned(),
                why: "the general registers of every thread are searched, wider ones are not".to_owned(),
            },
            NotShown {
                what: "freed physical pages".to_owned(),
                why: "memory that the kernel took back is not part of any process".to_owned(),
            },
        ],
        shard: None,
        interrupted: false,
        verdict: Verdict::Inconclusive,
        outcomes,
    };
    run.verdict = run.judge();
    run
}

fn fact(name: &str, present: bool, detail: &str) -> Fact {
    Fact { name: name.to_owned(), present, detail: detail.to_owned() }
}

fn outcome(holder: &str, ending: &str, expectation: &str, ended: &str, observations: Vec<Observation>) -> Outcome {
    Outcome {
        scenario: format!("{holder}/{ending}"),
        holder: holder.to_owned(),
        ending: ending.to_owned(),
        expectation: expectation.to_owned(),
        control: expectation.starts_with("leak@"),
        verdict: if expectation.starts_with("clean") { Verdict::Clean } else { Verdict::Leak },
        as_expected: true,
        reasons: Vec::new(),
        ended: ended.to_owned(),
        controls: Controls { planted: 1, decoys: 8, decoy_hits: 0 },
        observations,
        findings: Vec::new(),
        shows: vec!["S4".to_owned(), "H2".to_owned()],
    }
}

/// A look that read all there was.
fn look(checkpoint: &str, process: u32, whole: u32, fragments: u32) -> Observation {
    let read = 1_384_448 + 4096 * u64::from(process);
    let never_populated = 3_219_456;
    Observation {
        checkpoint: checkpoint.to_owned(),
        process,
        looked: Looked::Yes,
        threads: 1,
        coverage: Coverage {
            verified: 0,
            listed: read + never_populated + 28_672,
            read,
            injected: 0,
            never_populated,
            shielded: 0,
            refused: Vec::new(),
            excluded: vec![
                Share { why: "[vsyscall]".to_owned(), bytes: 4096 },
                Share { why: "[vvar]".to_owned(), bytes: 16_384 },
                Share { why: "[vvar_vclock]".to_owned(), bytes: 8192 },
            ],
        },
        kept: Some(Kept {
            pipes: 1,
            bytes: Coverage { listed: 48, read: 48, ..Coverage::default() },
            ..Kept::default()
        }),
        exposure: Some(Exposure {
            swapped: Some(0),
            locked: Some(65_536),
            dumpable: Some(Dumpable::User),
            core_limit: Some(CoreLimit::Unlimited),
            coredump_filter: Some(0x33),
        }),
        core: None,
        kept_freed: None,
        whole,
        fragments,
        public: 0,
        decoy_hits: 0,
    }
}

fn unseen(checkpoint: &str, looked: Looked) -> Observation {
    let (coverage, kept, exposure) = (Coverage::default(), None, None);
    Observation { looked, threads: 0, coverage, kept, exposure, ..look(checkpoint, 1, 0, 0) }
}

fn injected(mut look: Observation, bytes: u64) -> Observation {
    look.coverage.listed += bytes;
    look.coverage.read += bytes;
    look.coverage.injected += bytes;
    look
}

fn shielded(mut look: Observation, bytes: u64) -> Observation {
    look.coverage.listed += bytes;
    look.coverage.shielded += bytes;
    look
}

fn refused(mut look: Observation, why: &str, bytes: u64) -> Observation {
    look.coverage.listed += bytes;
    look.coverage.refuse(why, bytes);
    look
}

struct At<'a> {
    class: Class,
    form: Form,
    checkpoint: &'a str,
    process: u32,
    place: &'a str,
    address: u64,
    /// First byte and number of bytes of a secret of 32.
    secret: (u64, u64),
}

fn finding(outcome: &Outcome, at: At<'_>) -> Finding {
    let (secret_offset, secret_length) = at.secret;
    let rule = Rule { class: at.class, form: at.form };
    let length = match at.form {
        Form::HexLower | Form::HexUpper => secret_length * 2,
        Form::Base64 | Form::Base64Url => secret_length * 4 / 3,
        _ => secret_length,
    };
    Finding {
        rule,
        scenario: outcome.scenario.clone(),
        checkpoint: at.checkpoint.to_owned(),
        process: at.process,
        place: at.place.to_owned(),
        permissions: if at.class == Class::Register { String::new() } else { "rw-p".to_owned() },
        address: at.address,
        length,
        secret_offset,
        secret_length,
        whole: secret_length == 32,
        derived: None,
        fingerprint: format!("{:016x}", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(at.address ^ secret_length ^ 0x5bd1)),
        writer: None,
        freed: None,
        unattributed: None,
        repeats: None,
    }
}

fn frame(function: &str, at: Option<(&str, u32)>, inlined: bool) -> Frame {
    let module = Some(if at.is_some() { "scenarios" } else { "libc.so.6" }.to_owned());
    let (file, line) = at.unzip();
    Frame {
        function: function.to_owned(),
        file: file.map(str::to_owned),
        line,
        inlined,
        module,
        origin: Origin::Unknown,
    }
}

fn secmem_exit() -> Outcome {
    let looks = vec![
        injected(look("planted", 1, 1, 0), 4096),
        injected(look("wiped", 1, 0, 0), 4096),
        injected(look("exit-call", 1, 0, 0), 4096),
        shielded(look("exit", 1, 0, 0), 4096),
    ];
    outcome("secmem-memfd", "exit", "clean", "exit 0", looks)
}

fn secmem_killed() -> Outcome {
    let looks = vec![
        injected(look("planted", 1, 1, 0), 4096),
        shielded(look("exit", 1, 0, 0), 4096),
        unseen("core", Looked::NotLookedAt("SIGKILL leaves no core".to_owned())),
    ];
    outcome("secmem-memfd", "sigkill", "clean (shielded)", "signal 9", looks)
}

fn secmem_leaking() -> Outcome {
    let looks = vec![look("planted", 1, 1, 0), look("signal", 1, 1, 1), look("signal", 2, 1, 0), look("exit", 1, 0, 0)];
    let mut row = outcome("secmem-mlock", "sigterm", "clean", "signal 15", looks);
    row.verdict = Verdict::Leak;
    row.as_expected = false;
    row.reasons = vec!["3 residues at signal, where none may be".to_owned()];
    let at = |class, process, place, address, secret| At {
        class,
        form: Form::Raw,
        checkpoint: "signal",
        process,
        place,
        address,
        secret,
    };
    let mut stack = finding(&row, at(Class::DeadStack, 1, "[stack]", 0x7ffd_21a3_f6e8, (8, 16)));
    stack.writer = Some(Writer {
        frames: vec![
            frame("core::ptr::copy_nonoverlapping<u8>", Some(("library/core/src/intrinsics/mod.rs", 3281)), true),
            frame("secmem::secret::Secret::fill", Some(("secmem/src/secret.rs", 118)), true),
            frame("scenarios::holder::plant", Some(("scenarios/src/holder.rs", 64)), false),
            frame("libc.so.6+0x271ca", None, false),
        ],
        ..Writer::default()
    });
    let heap = finding(&row, at(Class::Heap, 1, "[heap]", 0x5555_5558_92a0, (0, 32)));
    let child = finding(&row, at(Class::Anonymous, 2, "", 0x7f11_0400_0b20, (0, 32)));
    row.findings = vec![stack, heap, child];
    row
}

fn bare_vec() -> Outcome {
    let looks =
        vec![look("planted", 1, 1, 0), look("exit-call", 1, 1, 0), look("exit", 1, 2, 0), look("core", 1, 1, 0)];
    let mut row = outcome("bare-vec", "exit", "leak@exit", "exit 0", looks);
    let at = |class, form, checkpoint, address| At {
        class,
        form,
        checkpoint,
        process: 1,
        place: "[heap]",
        address,
        secret: (0, 32),
    };
    let mut raw = finding(&row, at(Class::Heap, Form::Raw, "exit", 0x5555_5558_92a0));
    let from = |function, line, how: &str| Writer {
        frames: vec![
            frame(function, None, false),
            frame("scenarios::holder::bare", Some(("scenarios/src/holder.rs", line)), false),
        ],
        how: how.to_owned(),
        ..Writer::default()
    };
    raw.writer = Some(from("read", 31, "system call read(4, …)"));
    raw.freed = Some(from("cfree", 33, "instruction"));
    let encoded = finding(&row, at(Class::Heap, Form::Base64, "exit", 0x5555_5558_9300));
    let core = finding(&row, At { place: "", ..at(Class::Core, Form::Raw, "core", 0x1_52a0) });
    row.findings = vec![raw, encoded, core];
    row
}

fn grown_vec() -> Outcome {
    let looks = vec![look("planted", 1, 1, 3), look("wiped", 1, 0, 2)];
    let mut row = outcome("grown-vec", "wipe-and-stay", "leak@wiped (fragments)", "exit 0", looks);
    let at = |class, place, address, secret| At {
        class,
        form: Form::Raw,
        checkpoint: "wiped",
        process: 1,
        place,
        address,
        secret,
    };
    let heap = finding(&row, at(Class::Heap, "[heap]", 0x5555_5558_9310, (16, 16)));
    let register = finding(&row, at(Class::Register, "thread 1: r12", 0, (24, 8)));
    row.findings = vec![heap, register];
    row
}

fn argv() -> Outcome {
    let looks = vec![look("planted", 1, 1, 0), look("exec", 1, 1, 0)];
    let mut row = outcome("argv", "exec", "leak@exec", "exit 0", looks);
    let at = At {
        class: Class::Argv,
        form: Form::Raw,
        checkpoint: "exec",
        process: 1,
        place: "[stack]",
        address: 0x7ffd_21a4_0f20,
        secret: (0, 32),
    };
    row.findings = vec![finding(&row, at)];
    row
}

fn undecided() -> Outcome {
    let looks = vec![
        look("planted", 1, 1, 0),
        refused(look("exit", 1, 0, 0), "EIO", 12_288),
        unseen("core", Looked::Missed("the core breaks off after 1,048,576 bytes".to_owned())),
    ];
    let mut row = outcome("zeroize-vec", "abort", "clean", "signal 6", looks);
    row.verdict = Verdict::Inconclusive;
    row.as_expected = false;
    row.reasons = vec![
        "12,288 bytes at exit were refused (EIO)".to_owned(),
        "core was missed: the core breaks off after 1,048,576 bytes".to_owned(),
    ];
    row
}

fn silent_control() -> Outcome {
    let looks = vec![look("planted", 1, 0, 0), look("exit", 1, 0, 0)];
    let mut row = outcome("stack-array", "panic-abort", "leak@exit", "signal 6", looks);
    row.verdict = Verdict::Inconclusive;
    row.as_expected = false;
    row.controls.planted = 0;
    row.reasons =
        vec!["the canary was not found at planted, so nothing that was not found is shown to be gone".to_owned()];
    row
}

fn hostile() -> Outcome {
    let looks = vec![look("planted", 1, 1, 0), look("exit", 1, 1, 0)];
    let mut row = outcome(HOSTILE, "exit", &format!("either ({HOSTILE})"), "exit 0", looks);
    let at = At {
        class: Class::File,
        form: Form::HexLower,
        checkpoint: "exit",
        process: 1,
        place: HOSTILE,
        address: 0x7f11_0800_0000,
        secret: (0, 32),
    };
    row.findings = vec![finding(&row, at)];
    row.findings[0].writer = Some(Writer {
        frames: vec![frame(HOSTILE, Some((HOSTILE, 1)), false)],
        how: HOSTILE.to_owned(),
        ..Writer::default()
    });
    row.shows = vec![HOSTILE.to_owned()];
    row
}

fn surviving_child() -> Outcome {
    let looks = vec![look("planted", 1, 1, 0), look("exit", 1, 0, 0), look("child", 2, 0, 0), look("exit", 2, 0, 0)];
    outcome("boxed-text", "fork-child", "clean", "exit 0", looks)
}
