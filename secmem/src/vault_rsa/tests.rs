use std::collections::HashMap;

use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, Oaep, RsaPrivateKey};

use super::*;
use crate::ct;
use crate::scrub::Stack;
use crate::sys::{Call, seam};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A paragraph of the vectors: what it is, its name, and its fields.
type Paragraph = (&'static str, &'static str, HashMap<&'static str, Vec<u8>>);

/// The keys of another implementation, each with its ciphertexts.
fn vectors() -> Vec<(Paragraph, Vec<Paragraph>)> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/rsa-oaep.txt"));
    let mut keys: Vec<(Paragraph, Vec<Paragraph>)> = Vec::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.starts_with('#') && !paragraph.trim().is_empty())
    {
        let mut lines = paragraph.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
        let (kind, name) = lines.next().unwrap();
        let fields = lines.map(|(name, hex)| (name, if name == "bits" { Vec::new() } else { unhex(hex) })).collect();
        if kind == "key" {
            keys.push(((kind, name, fields), Vec::new()));
        } else {
            keys.last_mut().unwrap().1.push((kind, name, fields));
        }
    }
    keys
}

/// One key of each size, of the other implementation.
fn keys() -> Vec<Vec<u8>> {
    let keys = vectors().into_iter().filter(|((_, name, _), _)| *name == "p-above-q");
    keys.map(|((.., fields), _)| fields["secret"].clone()).collect()
}

fn opened(secret: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, Error> {
    let most = Bits::of_secret(secret).unwrap().most();
    let mut out = vec![0xEE; most + 3];
    let len = unwrap(secret, wrapped, &mut out);
    let content = out[..*len.as_ref().unwrap_or(&0)].to_vec();
    assert!(out[content.len()..].iter().all(|byte| *byte == 0), "something stands behind the content");
    len.map(|_| content)
}

fn is_refused(secret: &[u8], wrapped: &[u8]) -> bool {
    matches!(opened(secret, wrapped), Err(Error::Refused))
}

/// The sizes of which keys are drawn here: without optimisation, one waits for the others.
fn drawn() -> &'static [Bits] {
    if cfg!(debug_assertions) { &[Bits::B2048] } else { &Bits::ALL }
}

/// The key as yet another implementation knows it, which looks whether its numbers are right.
fn rivals(secret: &[u8]) -> RsaPrivateKey {
    let len = Bits::of_secret(secret).unwrap().len();
    let (n, rest) = secret.split_at(len);
    let [p, q] = [0, 1].map(|at| BigUint::from_bytes_be(&rest[at * len / 2..][..len / 2]));
    let one = BigUint::from(1_u8);
    let less = (&p - &one) * (&q - &one);
    // The exponent's inverse: k times `less` and 1 is a multiple of 65537 for one k below it.
    let d = (1..65537_u32).map(|k| &less * k + &one).find(|number| number % 65537_u32 == BigUint::from(0_u8)).unwrap()
        / 65537_u32;
    let key = RsaPrivateKey::from_components(BigUint::from_bytes_be(n), 65537_u32.into(), d, vec![p, q]).unwrap();
    key.validate().unwrap();
    key
}

#[test]
fn what_others_wrapped_is_unwrapped_and_what_they_padded_wrongly_is_refused() {
    let mut seen = [0, 0];
    for ((_, key, fields), cases) in vectors() {
        let secret = &fields["secret"];
        assert_eq!(public(secret).unwrap(), fields["public"], "{key}");
        for (_, name, fields) in cases {
            let found = opened(secret, &fields["cipher"]);
            if let Some(content) = fields.get("content") {
                assert_eq!(&found.unwrap(), content, "{key}: {name}");
                seen[0] += 1;
            } else {
                assert!(matches!(found, Err(Error::Refused)), "{key}: {name}: {found:?}");
                seen[1] += 1;
            }
        }
    }
    assert_eq!(seen, [30, 69]);
}

#[test]
fn what_is_wrapped_others_unwrap_at_every_limit() {
    for secret in keys() {
        let bits = Bits::of_secret(&secret).unwrap();
        let (public, rival) = (public(&secret).unwrap(), rivals(&secret));
        for len in [0, 1, 16, bits.most() - 1, bits.most()] {
            let content: Vec<u8> = (0..len).map(|at| at as u8).collect();

            let wrapped = wrap(&public, &content).unwrap();

            assert_eq!(wrapped.len(), bits.len());
            assert_eq!(rival.decrypt(Oaep::new::<sha2::Sha256>(), &wrapped).unwrap(), content);
            assert_eq!(opened(&secret, &wrapped).unwrap(), content);
        }
        let most = bits.most();
        let long = wrap(&public, &vec![0; most + 1]);
        assert!(matches!(long, Err(Error::Long { len, most: limit }) if len == most + 1 && limit == most), "{long:?}");
    }
}

#[test]
fn the_limits_are_190_318_and_446_bytes() {
    assert_eq!(Bits::ALL.map(Bits::most), [190, 318, 446]);
}

#[test]
fn each_wrapping_is_another() {
    let public = public(&keys()[0]).unwrap();

    assert_ne!(wrap(&public, b"sesam").unwrap(), wrap(&public, b"sesam").unwrap());
}

#[test]
fn every_changed_bit_and_length_is_refused() {
    let secret = &keys()[0];
    let wrapped = wrap(&public(secret).unwrap(), b"sesam").unwrap();
    let bits = if cfg!(debug_assertions) { 37 } else { 1 };

    for bit in (0..wrapped.len() * 8).step_by(bits) {
        let mut changed = wrapped.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(secret, &changed), "bit {bit}");
    }
    for len in [0, 1, 128, 255] {
        assert!(is_refused(secret, &wrapped[..len]), "{len} bytes");
    }
    for len in [257, 384, 512, 1000] {
        let mut longer = wrapped.clone();
        longer.resize(len, 0);
        assert!(is_refused(secret, &longer), "{len} bytes");
    }
    assert_eq!(opened(secret, &wrapped).unwrap(), b"sesam");
}

#[test]
fn another_key_refuses() {
    let of_2048 = vectors().into_iter().take(2).map(|((.., fields), _)| fields["secret"].clone());
    let secrets: Vec<Vec<u8>> = of_2048.collect();

    let wrapped = wrap(&public(&secrets[0]).unwrap(), b"sesam").unwrap();

    assert_eq!(opened(&secrets[0], &wrapped).unwrap(), b"sesam");
    assert!(is_refused(&secrets[1], &wrapped));
}

#[test]
fn the_place_must_have_room_for_the_longest_content() {
    let secret = &keys()[0];
    let wrapped = wrap(&public(secret).unwrap(), b"").unwrap();

    let short = unwrap(secret, &wrapped, &mut [0; 189]);
    assert!(matches!(short, Err(Error::Room { len: 189, needed: 190 })), "{short:?}");
    assert_eq!(unwrap(secret, &wrapped, &mut [0; 190]).unwrap(), 0);
}

#[test]
fn what_is_no_key_is_refused() {
    for len in [0, 1, 895, 897, 1793] {
        let found = unwrap(&vec![1; len], &[0; 256], &mut [0; 512]);
        assert!(matches!(found, Err(Error::Key)), "{len}: {found:?}");
        assert!(matches!(public(&vec![1; len]), Err(Error::Key)), "{len}");
    }
    // Even numbers where there must be odd ones, and zeros, on which nothing must panic.
    assert!(matches!(unwrap(&[0; 896], &[0; 256], &mut [0; 512]), Err(Error::Refused)));
    assert!(matches!(unwrap(&[0xFE; 896], &[0; 256], &mut [0; 512]), Err(Error::Refused)));
    assert!(matches!(unwrap(&[0xFF; 896], &[1; 256], &mut [0; 512]), Err(Error::Refused)));
}

#[test]
fn only_a_public_key_of_a_known_kind_is_taken() {
    let der = public(&keys()[0]).unwrap();
    assert!(wrap(&der, b"").is_ok());
    let refused = |der: &[u8]| matches!(wrap(der, b""), Err(Error::PublicKey));

    for len in 0..der.len() {
        assert!(refused(&der[..len]), "{len} bytes of it");
    }
    assert!(refused(&[&der[..], &[0]].concat()));
    let change = |at: usize, to: u8| {
        let mut changed = der.clone();
        changed[at] = to;
        changed
    };
    let (exponent, modulus) = (der.len() - 3, der.len() - 5 - 256);
    assert!(refused(&change(exponent + 2, 3)), "another exponent");
    assert!(refused(&change(modulus, 0x7F)), "a modulus of 2047 bits");
    assert!(refused(&change(modulus + 255, 0)), "an even modulus");
    // The last arcs of rsaEncryption and of id-RSASSA-PSS (RFC 8017, C).
    let arc = der.windows(3).position(|three| three == [0x0D, 0x01, 0x01]).unwrap() + 3;
    assert_eq!(der[arc], 1);
    assert!(refused(&change(arc, 10)), "a key for signatures");
}

#[test]
fn a_key_that_is_drawn_is_one() {
    for bits in drawn() {
        let [secret, other] = [0, 1].map(|_| generate(*bits, Secret::options()).unwrap());
        secret
            .with(|secret| {
                let rival = rivals(secret);
                assert_eq!(rival.n().bits(), bits.len() * 8);
                for prime in rival.primes() {
                    assert_eq!(prime.bits(), bits.len() * 4);
                    let prime = num_from(prime);
                    assert!(crypto_primes::is_prime(crypto_primes::Flavor::Any, &prime));
                }
                other.with(|other| assert!(!ct::eq(secret, other))).unwrap();

                let wrapped = wrap(&public(secret).unwrap(), b"sesam").unwrap();
                assert_eq!(opened(secret, &wrapped).unwrap(), b"sesam");
                assert_eq!(rival.decrypt(Oaep::new::<sha2::Sha256>(), &wrapped).unwrap(), b"sesam");
            })
            .unwrap();
    }
}

fn num_from(number: &BigUint) -> crypto_bigint::U2048 {
    let bytes = number.to_bytes_be();
    let mut all = [0; 256];
    all[256 - bytes.len()..].copy_from_slice(&bytes);
    crypto_bigint::U2048::from_be_slice(&all)
}

#[test]
fn a_faulty_result_is_not_given_out() {
    let secret = &keys()[0];
    let wrapped = wrap(&public(secret).unwrap(), b"sesam").unwrap();
    let raised = |secret: &[u8]| {
        let mut padded = [0; 256];
        with_random(Bits::B2048, |random| power::private::<16, 32>(secret, &wrapped, random, &mut padded))
            .map(|()| padded)
    };
    assert_eq!(raised(secret).unwrap()[0], 0);

    // A bit of each of p, q, dp, dq and qinv, as if it had tipped over while the key was used.
    for number in 0..5 {
        let mut faulty = secret.clone();
        faulty[256 + 128 * number + 100] ^= 4;
        let found = raised(&faulty);
        assert!(matches!(found, Err(Error::Refused)), "number {number}");
    }
}

#[test]
fn each_operation_is_blinded_anew() {
    let secret = &keys()[0];
    let wrapped = wrap(&public(secret).unwrap(), b"sesam").unwrap();
    opened(secret, &wrapped).unwrap();
    let before = seam::calls(Call::Random);

    opened(secret, &wrapped).unwrap();

    assert!(seam::calls(Call::Random) > before, "nothing was drawn");
}

#[test]
fn without_random_bytes_nothing_is_done() {
    let secret = &keys()[0];
    let der = public(secret).unwrap();
    let wrapped = wrap(&der, b"sesam").unwrap();
    let refused = |found: Error| match found {
        Error::Memory(MemoryError::Random { source }) => assert_eq!(source.raw_os_error(), Some(libc::ENOSYS)),
        other => panic!("{other:?}"),
    };

    seam::fail_next(Call::Random, libc::ENOSYS);
    refused(wrap(&der, b"sesam").unwrap_err());
    seam::fail_next(Call::Random, libc::ENOSYS);
    refused(opened(secret, &wrapped).unwrap_err());
    seam::fail_next(Call::Random, libc::ENOSYS);
    refused(generate(Bits::B2048, Secret::options()).unwrap_err());
    assert_eq!(seam::left(), 0);
}

#[test]
fn an_error_shows_nothing() {
    let secret = &keys()[0];
    let error = opened(secret, &[0; 256]).unwrap_err();

    assert_eq!(error.to_string(), "this was not wrapped for this key, or was changed");
    assert_eq!(format!("{error:?}"), "Refused");
}

/// What runs off a stack ends at a guard page, and so does the process: what is asked of it is half of what it has.
#[test]
fn the_stacks_are_not_half_used() {
    let ended = seam::in_child("vault_rsa::tests::the_stacks_are_not_half_used", || {
        let on_half = |bits, f: &mut dyn FnMut(&mut Random<'_>) -> Option<()>| {
            let (mut done, mut errno) = (None, 0);
            let run = || done = f(&mut Random::new(&mut errno));
            Stack::new(stack(bits) / 2).unwrap().run(run).unwrap();
            done.unwrap();
        };
        for secret in keys() {
            let bits = Bits::of_secret(&secret).unwrap();
            let (mut padded, mut wrapped) = (vec![0; bits.len()], vec![0; bits.len()]);
            let (mut out, mut len) = (vec![0; bits.most()], 0);
            on_half(bits, &mut |random| {
                oaep::encode(b"sesam", random, &mut padded);
                sized!(bits, power::public, &secret[..bits.len()], &padded, &mut wrapped)
            });
            on_half(bits, &mut |random| open(bits, &secret, &wrapped, random, &mut out, &mut len));
            assert_eq!(&out[..len], b"sesam");
        }
        for bits in drawn() {
            let mut drawn = vec![0; bits.secret_len()];
            on_half(*bits, &mut |random| sized!(bits, prime::key, &mut drawn, random));
        }
    });

    assert!(ended.status.success(), "{ended:?}");
}
