//! How much of the listed memory was really read, to the byte.

use serde::{Deserialize, Serialize};

/// Bytes of address space at one checkpoint: `listed = read + never_populated + shielded + refused + excluded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Bytes of all mappings that the kernel lists.
    pub listed: u64,
    /// Bytes that were read and searched.
    pub read: u64,
    /// The part of `read` that was read a second time and found equal, so that nobody wrote it meanwhile.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub verified: u64,
    /// The part of `read` that was read by a `write(2)` which the target was made to run (`memfd_secret` memory).
    pub injected: u64,
    /// Bytes of pages that were never populated (there is nothing to read, and reading could allocate them) or are the
    /// kernel's page of zeroes, which nobody has written.
    pub never_populated: u64,
    /// Bytes of `memfd_secret` mappings where both `/proc/PID/mem` and `process_vm_readv` were tried and refused,
    /// with no descriptor open in the tree.
    pub shielded: u64,
    /// Bytes that could not be read, by reason (an errno's name). Never counted as clean.
    pub refused: Vec<Share>,
    /// Bytes of mappings on the closed list of exclusions, by reason.
    pub excluded: Vec<Share>,
}

/// A number of bytes with the reason that they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Why.
    pub why: String,
    /// How many bytes.
    pub bytes: u64,
}

impl Coverage {
    /// Bytes refused, over all reasons; saturates, as all sums here do: hostile headers can list more than 2^64 bytes.
    pub fn refused_bytes(&self) -> u64 {
        sum(&self.refused)
    }

    /// Bytes excluded, over all reasons.
    pub fn excluded_bytes(&self) -> u64 {
        sum(&self.excluded)
    }

    /// Whether the parts add up to what was listed. A sum that saturated never does.
    pub fn adds_up(&self) -> bool {
        let parts = [self.read, self.never_populated, self.shielded, self.refused_bytes(), self.excluded_bytes()];
        let sum: u128 = parts.into_iter().map(u128::from).sum();
        self.listed != u64::MAX
            && sum == u128::from(self.listed)
            && self.injected <= self.read
            && self.verified <= self.read
    }

    /// Counts bytes as refused for that reason.
    pub fn refuse(&mut self, why: &str, bytes: u64) {
        add(&mut self.refused, why, bytes);
    }

    /// Counts bytes as excluded for that reason.
    pub fn exclude(&mut self, why: &str, bytes: u64) {
        add(&mut self.excluded, why, bytes);
    }

    /// Adds another look's bytes to this one's.
    pub fn add(&mut self, other: &Self) {
        self.listed = self.listed.saturating_add(other.listed);
        self.read = self.read.saturating_add(other.read);
        self.verified = self.verified.saturating_add(other.verified);
        self.injected = self.injected.saturating_add(other.injected);
        self.never_populated = self.never_populated.saturating_add(other.never_populated);
        self.shielded = self.shielded.saturating_add(other.shielded);
        for share in &other.refused {
            self.refuse(&share.why, share.bytes);
        }
        for share in &other.excluded {
            self.exclude(&share.why, share.bytes);
        }
    }
}

/// Old files lack figures that came later; new ones leave them out where they say nothing.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn sum(shares: &[Share]) -> u64 {
    shares.iter().fold(0, |sum: u64, share| sum.saturating_add(share.bytes))
}

/// Keeps the shares sorted by reason, so that the same bytes give the same text whatever the order of reading.
fn add(shares: &mut Vec<Share>, why: &str, bytes: u64) {
    if bytes == 0 {
        return;
    }
    match shares.binary_search_by(|share| share.why.as_str().cmp(why)) {
        Ok(at) => shares[at].bytes = shares[at].bytes.saturating_add(bytes),
        Err(at) => shares.insert(at, Share { why: why.to_owned(), bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_keeps_each_reason_and_still_adds_up() {
        let mut total = Coverage { listed: 30, read: 10, never_populated: 10, ..Coverage::default() };
        total.refuse("EIO", 6);
        total.exclude("[vvar]", 4);
        let part = total.clone();

        total.add(&part);

        assert!(total.adds_up());
        assert_eq!(total.refused, [Share { why: "EIO".to_owned(), bytes: 12 }]);
    }

    #[test]
    fn bytes_beyond_counting_never_add_up() {
        let mut coverage = Coverage { listed: u64::MAX, ..Coverage::default() };
        coverage.refuse("hostile", u64::MAX);
        coverage.refuse("hostile", 1);

        assert_eq!(coverage.refused_bytes(), u64::MAX);
        assert!(!coverage.adds_up());
    }

    #[test]
    fn a_byte_that_nobody_accounts_for_shows() {
        let coverage = Coverage { listed: 10, read: 9, ..Coverage::default() };

        assert!(!coverage.adds_up());
    }
}
