//! What each rule means to an auditor: its weakness in CWE, its step in Common Criteria, and how far a clean
//! result reaches.
//!
//! A rule names a kind of place ([`Class`]); a finding under it is the whole secret or a [fragment](Extent).
//! Every row says what it does *not* show. Nothing here is a statement about a product: a run is material for
//! somebody's judgement.
//!
//! # Source
//!
//! Weaknesses: the CWE list, version 4.14. The test: FCS_CKM.6, Test 1, of the protection profile
//! "General-Purpose Computing Platforms" 2.0 (published 2026-04-16). Rows name a standard only where its text
//! was read.

use std::fmt;

use findings::{Class, Finding};

/// The version of the CWE list that the names are from.
pub const CWE_VERSION: &str = "CWE 4.14";

/// The test whose steps the rows name.
pub const COMMON_CRITERIA: &str = "General-Purpose Computing Platforms PP 2.0, FCS_CKM.6 Test 1";

/// How older security targets name the same requirement.
pub const OLDER_NAMES: &str =
    "Security targets written before CC:2022 call the requirement FCS_CKM.4 or FCS_CKM_EXT.4; both map to FCS_CKM.6.";

/// What holds for every row of fragments.
pub const FRAGMENTS: &str = "Step 9 fails on 32 consecutive bits and lets the evaluator choose the fragments. A run \
    looks for every fragment from its shortest length up, at every offset, in the forms that the rule ids name. \
    Shorter fragments, other orders of bytes and the repetition with a different key are not part of it.";

/// What the table as a whole does not say.
pub const SCOPE: &str = "A run is input for an evaluation by an accredited laboratory, not an evaluation. That the \
    list of keys is complete, and that every circumstance of destruction was tried, is for the developer to argue.";

/// How far a result reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimLevel {
    /// The looks of a run are direct evidence, within what its coverage lists.
    EvidenceFor,
    /// They show a part; the row says which part is missing.
    Partial,
    /// No look of ours can show it.
    CannotProve,
}

impl ClaimLevel {
    /// The words in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EvidenceFor => "evidence for",
            Self::Partial => "partial",
            Self::CannotProve => "cannot prove",
        }
    }
}

impl fmt::Display for ClaimLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether a residue is the whole secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// All bytes of the secret, in any form.
    Whole,
    /// A part of it.
    Fragment,
}

impl Extent {
    /// What a finding shows of the secret.
    pub const fn of(finding: &Finding) -> Self {
        if finding.whole { Self::Whole } else { Self::Fragment }
    }

    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Fragment => "fragment",
        }
    }

    /// The steps of [`COMMON_CRITERIA`] that look for it. Step 4 searches while the key is in use and shows that
    /// the search works; step 8 is the same search after destruction; step 9 searches for pieces.
    pub const fn steps(self) -> &'static str {
        match self {
            Self::Whole => "steps 4 and 8",
            Self::Fragment => "step 9",
        }
    }
}

/// A weakness of the CWE list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cwe {
    /// Its number.
    pub id: u16,
    /// Its name in [`CWE_VERSION`].
    pub name: &'static str,
}

impl fmt::Display for Cwe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CWE-{} {}", self.id, self.name)
    }
}

const COMPILER_REMOVAL: Cwe = Cwe { id: 14, name: "Compiler Removal of Code to Clear Buffers" };
const TIMING: Cwe = Cwe { id: 208, name: "Observable Timing Discrepancy" };
const BEFORE_TRANSFER: Cwe =
    Cwe { id: 212, name: "Improper Removal of Sensitive Information Before Storage or Transfer" };
const BEFORE_REUSE: Cwe = Cwe { id: 226, name: "Sensitive Information in Resource Not Removed Before Reuse" };
const HEAP: Cwe = Cwe { id: 244, name: "Improper Clearing of Heap Memory Before Release ('Heap Inspection')" };
const CLEARTEXT: Cwe = Cwe { id: 316, name: "Cleartext Storage of Sensitive Information in Memory" };
const CORE_DUMP: Cwe = Cwe { id: 528, name: "Exposure of Core Dump File to an Unauthorized Control Sphere" };
const LOG: Cwe = Cwe { id: 532, name: "Insertion of Sensitive Information into Log File" };
const NOT_LOCKED: Cwe = Cwe { id: 591, name: "Sensitive Data Storage in Improperly Locked Memory" };
const OPTIMISATION: Cwe =
    Cwe { id: 733, name: "Compiler Optimization Removal or Modification of Security-critical Code" };

/// What the rules of one kind of place stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The kind of place.
    pub class: Class,
    /// The primary weakness of a finding there, whole or fragment.
    pub cwe: Cwe,
    /// Whether the place is part of the memory that [`COMMON_CRITERIA`] dumps and searches.
    pub dumped: bool,
    /// How far "no whole copy here" reaches.
    pub whole: ClaimLevel,
    /// How far "no fragment here" reaches. Never more than partial, for the reason in [`FRAGMENTS`].
    pub fragment: ClaimLevel,
    /// What a clean result does not show.
    pub does_not_show: &'static str,
}

impl Control {
    /// The steps of [`COMMON_CRITERIA`], or `None` where that test does not look.
    pub const fn steps(&self, extent: Extent) -> Option<&'static str> {
        if self.dumped { Some(extent.steps()) } else { None }
    }

    /// How far a clean result reaches.
    pub const fn claim(&self, extent: Extent) -> ClaimLevel {
        match extent {
            Extent::Whole => self.whole,
            Extent::Fragment => self.fragment,
        }
    }
}

/// The control that the rules of a class belong to.
pub const fn control(class: Class) -> Control {
    use ClaimLevel::{EvidenceFor, Partial};
    let (cwe, dumped, whole, does_not_show) = match class {
        Class::Stack => (BEFORE_REUSE, true, EvidenceFor, "Frames that came and went between two looks."),
        Class::DeadStack => {
            (BEFORE_REUSE, true, EvidenceFor, "Frames that later calls had overwritten before the look.")
        }
        Class::AlternateStack => (
            BEFORE_REUSE,
            true,
            EvidenceFor,
            "Frames of signals that later ones had overwritten, and stacks that were named before the look began.",
        ),
        Class::Heap | Class::Arena => (
            HEAP,
            true,
            EvidenceFor,
            "Blocks that were reused before the look, and other allocators than this build's.",
        ),
        Class::MappedChunk => (CLEARTEXT, true, EvidenceFor, "Allocations that were given back before the look."),
        Class::Anonymous => (CLEARTEXT, true, EvidenceFor, "Pages that were given back to the kernel before the look."),
        Class::File => {
            (CLEARTEXT, true, Partial, "The file itself, the kernel's cache of it, and its pages that are not mapped.")
        }
        Class::Shared => (
            CLEARTEXT,
            true,
            Partial,
            "What processes outside the tree copied from it, and its pages that are not mapped.",
        ),
        Class::SecretMemory => (
            CLEARTEXT,
            true,
            Partial,
            "The bytes after the last live stop: shielded memory is then known to be unreadable, not to be wiped.",
        ),
        Class::Vdso => (CLEARTEXT, true, EvidenceFor, "The data pages behind it, which are excluded from every look."),
        Class::Argv => (CLEARTEXT, true, EvidenceFor, "Who read the arguments before the look."),
        Class::Environ => {
            (CLEARTEXT, true, EvidenceFor, "Copies in the environment of programs that were started before the look.")
        }
        Class::Auxv => (CLEARTEXT, true, EvidenceFor, "Who read it before the look."),
        Class::Register => (
            BEFORE_REUSE,
            false,
            Partial,
            "Register sets that were not read, and values between two stops; the test searches dumped memory alone.",
        ),
        Class::Pipe | Class::Socket => (
            BEFORE_REUSE,
            false,
            Partial,
            "What its reader had taken before the look, and what was sent and waits at a peer outside of the tree.",
        ),
        Class::Memfd | Class::DeletedFile => (
            BEFORE_REUSE,
            false,
            Partial,
            "Stretches that were cut off or overwritten before the look; of a deleted file also its blocks on the disk.",
        ),
        Class::ThreadName => {
            (CLEARTEXT, false, EvidenceFor, "Names that threads had before, and who read them: every user may.")
        }
        Class::Core => (
            CORE_DUMP,
            true,
            Partial,
            "Who may read the file, where handlers send it, and mappings that the kernel leaves out.",
        ),
        Class::Data => (
            BEFORE_TRANSFER,
            false,
            Partial,
            "Earlier contents of the file, its backups, and blocks of the disk that it gave up.",
        ),
    };
    Control { class, cwe, dumped, whole, fragment: Partial, does_not_show }
}

/// The whole table, in the order of [`Class::ALL`].
pub fn table() -> impl Iterator<Item = Control> {
    Class::ALL.into_iter().map(control)
}

/// Something that an auditor may ask for and that no rule stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// What would have to be shown.
    pub what: &'static str,
    /// Its weaknesses, where the list has them.
    pub cwe: &'static [Cwe],
    /// How far a run reaches.
    pub claim: ClaimLevel,
    /// What is missing.
    pub does_not_show: &'static str,
}

/// What searching for residues shows in part or not at all.
pub const BEYOND: [Beyond; 8] = [
    Beyond {
        what: "A wipe in the source is still there after the compiler",
        cwe: &[COMPILER_REMOVAL, OPTIMISATION],
        claim: ClaimLevel::Partial,
        does_not_show: "A clean row shows the effect in this build; another compiler, profile or target may differ.",
    },
    Beyond {
        what: "The secret never reached swap or a hibernation image",
        cwe: &[NOT_LOCKED],
        claim: ClaimLevel::CannotProve,
        does_not_show: "Swap devices are not read, and a page that came back leaves its copy there.",
    },
    Beyond {
        what: "The kernel keeps no copy outside the mappings that were read",
        cwe: &[],
        claim: ClaimLevel::CannotProve,
        does_not_show: "Pipes, sockets and nameless files of the process are read; the page cache of others, send queues, key rings, \
            message queues and freed physical pages are outside the look.",
    },
    Beyond {
        what: "No log or other output holds the secret",
        cwe: &[LOG],
        claim: ClaimLevel::CannotProve,
        does_not_show: "Files are searched only where they were named for a scan.",
    },
    Beyond {
        what: "Caches, store buffers and unread registers of the processor are empty",
        cwe: &[],
        claim: ClaimLevel::CannotProve,
        does_not_show: "A process cannot read them, and the test dumps memory alone.",
    },
    Beyond {
        what: "Nothing remains in the memory chips",
        cwe: &[],
        claim: ClaimLevel::CannotProve,
        does_not_show: "Physical remanence is outside what software can read.",
    },
    Beyond {
        what: "Operations take the same time whatever the secret",
        cwe: &[TIMING],
        claim: ClaimLevel::CannotProve,
        does_not_show: "Timing leaves no residue to scan for.",
    },
    Beyond {
        what: "Every key is listed and destroyed in every circumstance",
        cwe: &[],
        claim: ClaimLevel::CannotProve,
        does_not_show: "A run knows the secrets that it planted and the endings that it played.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_row_and_the_sentence_that_limits_it() {
        let rows: Vec<_> = table().collect();

        assert_eq!(rows.iter().map(|row| row.class).collect::<Vec<_>>(), Class::ALL);
        assert!(rows.iter().all(|row| row.does_not_show.ends_with('.')));
        assert!(BEYOND.iter().all(|row| row.does_not_show.ends_with('.')));
    }

    #[test]
    fn a_fragment_is_never_claimed_as_more_than_partial() {
        assert!(table().all(|row| row.claim(Extent::Fragment) >= ClaimLevel::Partial));
    }

    #[test]
    fn no_rule_claims_what_cannot_be_proven_and_nothing_beyond_the_rules_claims_evidence() {
        assert!(table().all(|row| row.whole != ClaimLevel::CannotProve));
        assert!(BEYOND.iter().all(|row| row.claim != ClaimLevel::EvidenceFor));
    }

    #[test]
    fn the_steps_tell_a_whole_key_from_a_fragment() {
        let heap = control(Class::Heap);

        assert_eq!(heap.steps(Extent::Whole), Some("steps 4 and 8"));
        assert_eq!(heap.steps(Extent::Fragment), Some("step 9"));
        assert_eq!(control(Class::Register).steps(Extent::Whole), None);
    }
}
