//! Reading the memory of another process, and searching it on the way.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use harness::attach;
use harness::canary::{Canary, Seed};
use harness::scan::{Index, Scanner};
use harness::variants::Form;
use scenario_protocol::CanaryKind;

use crate::target::{Kind, TOUCHED, Target};
use crate::{ROUNDS, judged, rate, row, spent};

/// Rounds here: each stops a process with a GiB of memory.
const FEW: usize = ROUNDS.div_ceil(2);

/// What is measured of one kind of memory, each the best of its rounds.
#[derive(Default)]
struct Best {
    plain: f64,
    copy: f64,
    searched: f64,
    stopped: f64,
}

/// The table of all kinds of memory.
pub fn table() -> String {
    let mut text = "## Acquire\n\nA process with 1 GiB of memory is stopped, its memory read and let go. *process_vm_readv*: that call alone over the \
         same memory, which is all that the machine allows. *copy*: ours, into a buffer that nobody looks at, the second look \
         at a sample of it included; *copy + scan*: the same, searched for 16 secrets from 16 bytes on, on one thread; \
         *stopped*: for how long by the clock, while it was searched. `sparse`: 64 GiB reserved, of which 16 KiB in each MiB \
         are touched. Targets are ratios to *process_vm_readv*.\n\n"
        .to_owned();
    text.push_str(
        "| memory | process_vm_readv | copy | ratio | target | copy + scan | ratio | target | stopped, s |\n|-|-|-|-|-|-|-|-|-|\n",
    );
    for (word, kind) in Kind::ALL {
        let cells = match measure(word, kind) {
            Ok(best) => {
                let (copy, searched) = (best.copy / best.plain, best.searched / best.plain);
                let (least_copy, least_searched) = kind.targets();
                vec![
                    word.to_owned(),
                    format!("{:.1}", best.plain),
                    format!("{:.1}", best.copy),
                    format!("{copy:.2}"),
                    judged(copy, Some(least_copy)),
                    format!("{:.1}", best.searched),
                    format!("{searched:.2}"),
                    judged(searched, least_searched),
                    format!("{:.3}", best.stopped),
                ]
            }
            Err(why) => vec![word.to_owned(), format!("not measured: {why}")]
                .into_iter()
                .chain(["–"; 7].map(str::to_owned))
                .collect(),
        };
        let line = row(&cells);
        eprint!("{line}");
        text.push_str(&line);
    }
    text
}

fn measure(word: &str, kind: Kind) -> Result<Best, String> {
    let target = Target::start(word, kind).map_err(|error| error.to_string())?;
    let seed = Seed::from_hex(&"5c".repeat(32)).expect("64 digits");
    let secrets: Vec<Canary> =
        (0..16).map(|at| seed.canary(&format!("bench {at}"), CanaryKind::Bytes, 32 + at)).collect();
    let needles: Vec<&[u8]> = secrets.iter().map(Canary::bytes).collect();
    let index = Index::new(&needles, &[Form::Raw], 16).expect("canaries can be searched for");
    let mut best = Best { stopped: f64::INFINITY, ..Best::default() };
    let go_on = AtomicBool::new(false);
    for _ in 0..FEW {
        let mut plain = Ok(0);
        let time = spent(|| plain = target.copy());
        let bytes = plain.map_err(|error| format!("process_vm_readv: {error}"))?;
        best.plain = best.plain.max(rate(bytes, time));

        let mut bytes = 0_usize;
        let mut failed = None;
        let time = spent(|| {
            failed = attach::read(target.pid(), &go_on, |_, piece| bytes += piece.len()).err();
        });
        if let Some(error) = failed {
            return Err(error.to_string());
        }
        if bytes < TOUCHED {
            return Err(format!("only {bytes} bytes were read"));
        }
        best.copy = best.copy.max(rate(bytes, time));

        let mut scanner = Scanner::new(&index);
        let start = Instant::now();
        let time = spent(|| {
            failed = attach::read(target.pid(), &go_on, |at, piece| scanner.feed(at, piece)).err();
        });
        best.stopped = best.stopped.min(start.elapsed().as_secs_f64());
        best.searched = best.searched.max(rate(bytes, time));
        if !scanner.finish().is_empty() {
            return Err("a secret was found that is nowhere".to_owned());
        }
    }
    Ok(best)
}
