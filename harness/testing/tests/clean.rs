//! Closures that leave nothing. Each is what a user's test looks like.

use zeroize::{Zeroize, Zeroizing};

/// A key that is wiped when it is dropped.
struct Key(Zeroizing<Vec<u8>>);

impl Key {
    fn checksum(&self) -> u32 {
        self.0.iter().map(|byte| u32::from(*byte)).sum()
    }
}

#[test]
fn a_key_that_is_wiped_on_drop_is_clean() {
    // It depends on the processor whether the copy leaves a piece in a vector register.
    residue_test::Check::new().without_registers().assert_clean(|secret| {
        let key = Key(Zeroizing::new(secret.to_vec()));
        assert!(key.checksum() > 0);
    });
}

#[test]
fn a_secret_that_is_not_copied_is_clean() {
    residue_test::assert_clean(|secret| assert!(secret.iter().any(|byte| *byte != 0)));
}

#[test]
fn a_test_may_make_several_checks_each_in_a_process_of_its_own() {
    for length in [16, 200] {
        residue_test::Check::new().length(length).text().without_registers().assert_clean(|secret| {
            assert_eq!(secret.len(), length);
            assert!(secret.iter().all(u8::is_ascii_alphanumeric));
            let mut copy = secret.to_vec();
            copy.zeroize();
        });
    }
}

mod in_a_module {
    #[test]
    #[ignore = "for the test of the harnesses, which runs it by name"]
    fn an_ignored_test_is_found_too() {
        residue_test::assert_clean(|_| {});
    }
}
