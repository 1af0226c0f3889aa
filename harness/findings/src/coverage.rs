//! How much of the listed memory was really read, to the byte.

use serde::{Deserialize, Serialize};

/// Bytes of address space at one checkpoint: `listed = read + never_populated + shielded + refused + excluded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Bytes of all mappings that the kernel lists.
    pub listed: u64,
    /// Bytes that were read and searched.
    pub read: u64,
    /// The part of `read` that was read by a `write(2)` which the target was made to run (`memfd_secret` memory).
    pub injected: u64,
    /// Bytes of pages that were never populated: there is nothing to read, and reading could allocate them.
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
    /// Bytes refused, over all reasons.
    pub fn refused_bytes(&self) -> u64 {
        self.refused.iter().map(|share| share.bytes).sum()
    }

    /// Bytes excluded, over all reasons.
    pub fn excluded_bytes(&self) -> u64 {
        self.excluded.iter().map(|share| share.bytes).sum()
    }

    /// Whether the parts add up to what was listed.
    pub fn adds_up(&self) -> bool {
        self.listed == self.read + self.never_populated + self.shielded + self.refused_bytes() + self.excluded_bytes()
            && self.injected <= self.read
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
        self.listed += other.listed;
        self.read += other.read;
        self.injected += other.injected;
        self.never_populated += other.never_populated;
        self.shielded += other.shielded;
        for share in &other.refused {
            self.refuse(&share.why, share.bytes);
        }
        for share in &other.excluded {
            self.exclude(&share.why, share.bytes);
        }
    }
}

/// Keeps the shares sorted by reason, so that the same bytes give the same text whatever the order of reading.
fn add(shares: &mut Vec<Share>, why: &str, bytes: u64) {
    if bytes == 0 {
        return;
    }
    match shares.binary_search_by(|share| share.why.as_str().cmp(why)) {
        Ok(at) => shares[at].bytes += bytes,
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
    fn a_byte_that_nobody_accounts_for_shows() {
        let coverage = Coverage { listed: 10, read: 9, ..Coverage::default() };

        assert!(!coverage.adds_up());
    }
}
