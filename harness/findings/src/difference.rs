//! What in a program's memory depends on its key, whatever it was made into.

use serde::{Deserialize, Serialize};

use crate::{Class, Verdict};

/// Name and version of the shape of a [`Difference`] as JSON.
pub const DIFFERENCE_SCHEMA: &str = "secmem.difference/1";

/// The result of running a program with one key and with another, several times, by turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// [`DIFFERENCE_SCHEMA`].
    pub schema: String,
    /// The program's file name.
    pub subject: String,
    /// Runs with each key; the first key ran as often once more, for the noise.
    pub runs: u32,
    /// Runs that were made; fewer than three times as many where it was interrupted.
    pub made: u32,
    /// Bytes that were the same in all runs of each of the three groups, so that they could be compared.
    pub compared: u64,
    /// Bytes that changed between runs with one key. Nothing is known of what they hold.
    pub restless: u64,
    /// Bytes of memory that was there in some runs alone and not zero.
    pub unpaired: u64,
    /// Where bytes are the same in all runs of a key and differ between the keys.
    pub keyed: Vec<Stretch>,
    /// The same between the two groups of runs with one key: what chance and time alone show. Their bytes are not among
    /// the others.
    pub noise: Vec<Stretch>,
    /// Where so many neighbouring bytes are restless that they could hold a secret.
    pub unknown: Vec<Stretch>,
    /// Residues of the key in a form that is known, which a search found in the same runs: the most in any one.
    pub found: u32,
    /// What may be said.
    pub verdict: Verdict,
    /// Why it is inconclusive, or what was not compared.
    pub reasons: Vec<String>,
}

/// Neighbouring bytes that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The moment.
    pub checkpoint: String,
    /// The process of the tree; 1 is the one that was started.
    pub process: u32,
    /// The kind of place.
    pub class: Class,
    /// The mapping as the kernel names it, empty for anonymous memory; the register and its thread; the descriptor.
    pub place: String,
    /// Address of the first byte, the same in every run; for a register 0, behind a descriptor an offset.
    pub address: u64,
    /// Bytes from the first to the last that differs.
    pub length: u64,
    /// How many of them differ.
    pub differing: u64,
    /// How many of those belong to a residue that the search for the key's known forms finds too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub known: u64,
    /// How many of those that differ lie in words that are addresses of mapped memory under both keys: where something was
    /// put, as a length that depends on the key decides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub addresses: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Difference {
    /// Bytes that depend on the key.
    pub fn keyed_bytes(&self) -> u64 {
        differing(&self.keyed)
    }

    /// Those of them that no known form explains.
    pub fn unexplained_bytes(&self) -> u64 {
        self.keyed.iter().map(|stretch| stretch.differing.saturating_sub(stretch.known)).sum()
    }

    /// Bytes that differ between two groups of runs with one key: the noise floor.
    pub fn noise_bytes(&self) -> u64 {
        differing(&self.noise)
    }

    /// What may be said of these figures: [`verdict`](Self#structfield.verdict) must equal it.
    ///
    /// More than the noise, or a residue in a known form, is a leak. Anything that was not compared makes the absence of
    /// both inconclusive.
    pub fn judge(&self) -> Verdict {
        let keyed = self.keyed_bytes();
        match (keyed > self.noise_bytes() || self.found > 0, keyed == 0 && self.reasons.is_empty()) {
            (true, _) => Verdict::Leak,
            (false, true) => Verdict::Clean,
            (false, false) => Verdict::Inconclusive,
        }
    }
}

fn differing(stretches: &[Stretch]) -> u64 {
    stretches.iter().map(|stretch| stretch.differing).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(keyed: u64, noise: u64, reasons: &[&str]) -> Difference {
        let stretch = |differing| Stretch {
            checkpoint: "exit".to_owned(),
            process: 1,
            class: Class::Heap,
            place: "[heap]".to_owned(),
            address: 0x1000,
            length: differing,
            differing,
            known: 0,
            addresses: 0,
        };
        let stretches = |bytes: u64| (bytes > 0).then(|| stretch(bytes)).into_iter().collect();
        Difference {
            schema: DIFFERENCE_SCHEMA.to_owned(),
            subject: "program".to_owned(),
            runs: 4,
            made: 12,
            compared: 4096,
            restless: 0,
            unpaired: 0,
            keyed: stretches(keyed),
            noise: stretches(noise),
            unknown: Vec::new(),
            found: 0,
            verdict: Verdict::Inconclusive,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        }
    }

    #[test]
    fn what_depends_on_the_key_is_a_leak_only_above_the_noise() {
        assert_eq!(difference(32, 0, &[]).judge(), Verdict::Leak);
        assert_eq!(difference(32, 31, &["refused"]).judge(), Verdict::Leak);
        assert_eq!(difference(32, 32, &[]).judge(), Verdict::Inconclusive);
    }

    #[test]
    fn clean_means_that_all_was_compared() {
        assert_eq!(difference(0, 3, &[]).judge(), Verdict::Clean);
        assert_eq!(difference(0, 0, &["refused"]).judge(), Verdict::Inconclusive);
    }

    #[test]
    fn it_is_never_cleaner_than_a_search() {
        let found = Difference { found: 1, ..difference(0, 0, &[]) };

        assert_eq!(found.judge(), Verdict::Leak);
    }
}
