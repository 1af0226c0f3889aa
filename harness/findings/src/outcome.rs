//! What became of one scenario.

use serde::{Deserialize, Serialize};

use crate::{Coverage, Exposure, Finding, Kept, Verdict};

/// The result of one row of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `holder/ending`.
    pub scenario: String,
    /// What held the secret.
    pub holder: String,
    /// How the process was to end.
    pub ending: String,
    /// What had to be seen: `clean`, `clean (shielded)`, `leak@CHECKPOINT`, `leak@CHECKPOINT (fragments)`, `either (WHY)`.
    pub expectation: String,
    /// Whether it is a leaky control: a row that proves that the harness finds what is there.
    pub control: bool,
    /// What was seen.
    pub verdict: Verdict,
    /// Whether that is what the row expects.
    pub as_expected: bool,
    /// Why it is inconclusive or not as expected; empty otherwise.
    pub reasons: Vec<String>,
    /// How the first process ended: `exit N`, `signal N`, or what the harness had to do.
    pub ended: String,
    /// Every look, in order.
    pub observations: Vec<Observation>,
    /// The row's own controls.
    pub controls: Controls,
    /// Residues at the checkpoints after `planted`, and at `planted` itself where the secret may have one home alone.
    pub findings: Vec<Finding>,
    /// Requirements that the row speaks for.
    pub shows: Vec<String>,
}

/// One look at one process at one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The checkpoint's name.
    pub checkpoint: String,
    /// The process of the tree; 1 is the one that was started.
    pub process: u32,
    /// Whether it was looked at.
    pub looked: Looked,
    /// Threads whose registers were searched.
    pub threads: u32,
    /// What was read.
    pub coverage: Coverage,
    /// What the kernel keeps for the process behind its descriptors; absent where that was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// What decides who else may get the process's bytes; absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// Where the core came from, if one was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<CoreSource>,
    /// What was freed and kept for the look; absent unless that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_freed: Option<KeptFreed>,
    /// Whole copies of the canary, in any form.
    pub whole: u32,
    /// Pieces of the canary.
    pub fragments: u32,
    /// Pieces of the canary that are no residue, because the program's own file shows the same bytes of it to anybody.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub public: u32,
    /// Hits of decoys, which were never planted.
    pub decoy_hits: u32,
}

/// Freed memory that a library in the process kept from being used again, so that residues in it stay visible.
///
/// Other users of the program do not have it: what is found in it, they may have overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFreed {
    /// Blocks that were freed and kept.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that were freed after all, because so much was kept already.
    pub released: u64,
}

/// Who wrote a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoreSource {
    /// The kernel, into a file.
    Kernel,
    /// The program that the kernel pipes cores to.
    Handler,
    /// The harness, at the fatal signal: the mappings that the kernel would have written.
    Own,
}

impl CoreSource {
    /// The words in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "the kernel's file",
            Self::Handler => "stored by the machine's crash handler",
            Self::Own => "written by the harness at the fatal signal, as the kernel would have",
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Whether a checkpoint was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Looked {
    /// Reached and looked at.
    Yes,
    /// Never reached, or reached too late; the reason.
    Missed(String),
    /// This machine cannot show it; the reason.
    NotLookedAt(String),
}

/// The controls of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controls {
    /// Whole copies found at `planted`, while the secret was alive. Zero makes the row inconclusive.
    pub planted: u32,
    /// Decoys searched for at every look.
    pub decoys: u32,
    /// Hits of decoys over all looks. Any makes the row inconclusive.
    pub decoy_hits: u32,
}

impl Outcome {
    /// The bytes of all looks of this row.
    pub fn coverage(&self) -> Coverage {
        let mut total = Coverage::default();
        for observation in &self.observations {
            total.add(&observation.coverage);
        }
        total
    }

    /// What the kernel kept behind descriptors, over all looks of this row that looked there.
    pub fn kept(&self) -> Kept {
        let mut total = Kept::default();
        self.observations.iter().filter_map(|observation| observation.kept.as_ref()).for_each(|kept| total.add(kept));
        total
    }
}
