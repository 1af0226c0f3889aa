//! The numbers of an RSA private key that is given as PEM or DER: from each of them, and the public key, the others follow.
//!
//! # Source
//!
//! RFC 8017, appendix A.1.2 (`RSAPrivateKey`); RFC 5958, section 2 (the wrapping of PKCS #8); RFC 7468 (PEM).

use pkcs1::RsaPrivateKey;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::UintRef;
use pkcs8::der::{Decode, pem};
use zeroize::Zeroizing;

/// `d`, `p`, `q`, `d mod (p-1)`, `d mod (q-1)` and the inverse of `q`, each with its highest byte first. None if the
/// secret is no RSA key, or one that is encrypted.
pub(super) fn numbers(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let decoded = Zeroizing::new(pem::decode_vec(secret.trim_ascii()).map(|(_, der)| der).unwrap_or_default());
    let der = if decoded.is_empty() { secret } else { decoded.as_slice() };
    let inner = PrivateKeyInfoRef::from_der(der).map_or(der, |wrapped| wrapped.private_key.as_bytes());
    let Ok(key) = RsaPrivateKey::<UintRef<'_>>::from_der(inner) else { return Vec::new() };
    let numbers = [key.private_exponent, key.prime1, key.prime2, key.exponent1, key.exponent2, key.coefficient];
    numbers.iter().map(|number| Zeroizing::new(number.as_bytes().to_vec())).collect()
}

/// Whether a secret is PEM, whose first and last line tell nothing of it.
pub(super) fn armour(secret: &[u8]) -> Option<std::ops::Range<usize>> {
    let first = secret.starts_with(b"-----BEGIN ").then(|| secret.iter().position(|byte| *byte == b'\n'))??;
    let last = secret.windows(9).rposition(|window| window == b"-----END ")?;
    (first < last).then_some(first..last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genrsa -traditional 512`: a key for tests and nothing else.
    const PKCS1: &str = include_str!("../../tests/keys/rsa-pkcs1.pem");
    const PKCS8: &str = include_str!("../../tests/keys/rsa-pkcs8.pem");

    #[test]
    fn a_key_gives_the_same_numbers_in_each_of_its_wrappings() {
        let numbers = numbers(PKCS1.as_bytes());

        assert_eq!(numbers.len(), 6);
        assert_eq!(numbers, super::numbers(PKCS8.as_bytes()));
        assert_eq!((numbers[1].len(), numbers[2].len()), (32, 32));
    }

    #[test]
    fn what_is_no_key_gives_nothing() {
        assert!(numbers(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_empty());
        assert!(numbers(&[0x30; 64]).is_empty() && numbers(b"").is_empty());
    }

    #[test]
    fn the_lines_around_a_key_are_told_from_it() {
        let inside = &PKCS1[armour(PKCS1.as_bytes()).unwrap()];

        assert!(!inside.contains("RSA") && inside.len() > 300);
        assert_eq!(armour(b"-----BEGIN nothing"), None);
    }
}
