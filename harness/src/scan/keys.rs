//! Keys that nobody named: found by what they look like, in memory of any program.
//!
//! - **Round keys of AES**, 128, 192 and 256 bits: all words of a schedule of encryption follow from the key before them.
//!   All of them are checked, so chance has no part in it. Words are looked for at addresses that are multiples of four, in
//!   the order of the standard and with the bytes of each word reversed, as code without AES instructions keeps them.
//! - **Private keys in DER**: PKCS #1, PKCS #8 and SEC1, decoded whole; of an RSA key also that the product of the primes
//!   ends as the modulus does.
//! - **Private keys in PEM**, and in the format of OpenSSH, as text or not. Keys under a passphrase are no finding.
//!
//! A schedule of which a byte was overwritten, a key without its wrapping and round keys of decryption are not found.
//! What is found is told by address, length and kind, never by content.
//!
//! # Source
//!
//! FIPS 197; RFC 8017, 5208, 5915, 7468; PROTOCOL.key of OpenSSH.

use memchr::memmem::Finder as Needle;
use pkcs1::RsaPrivateKey;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::Decode;
use pkcs8::der::asn1::UintRef;
use sec1::EcPrivateKey;
use zeroize::{Zeroize, Zeroizing};

use super::{Form, MOST, Match};
use crate::canary::distinct_non_zero;
use crate::variants::aes;

/// The needle number of what was found without a needle.
pub(crate) const UNKNOWN: u32 = u32::MAX - 1;

/// Bytes of the longest key that is looked for: RSA of 16 384 bits fills 9 to 13 KiB.
const LONGEST: usize = 16 << 10;

/// Looks for keys in the bytes of one look at memory.
pub(super) struct Finder {
    substitutes: [u8; 256],
    begin: Needle<'static>,
    ssh: Needle<'static>,
    version: Needle<'static>,
    /// The last bytes of the stretch, in which keys may begin that go on behind them. Wiped on drop.
    carry: Zeroizing<Vec<u8>>,
    /// The address of the first of them.
    at: u64,
    found: Vec<Match>,
    /// Keys beyond [`MOST`].
    unlisted: u64,
}

impl Finder {
    pub(super) fn new() -> Self {
        Self {
            substitutes: aes::substitutes(),
            begin: Needle::new("-----BEGIN "),
            ssh: Needle::new(SSH),
            version: Needle::new(&[2, 1]),
            carry: Zeroizing::new(Vec::new()),
            at: 0,
            found: Vec::new(),
            unlisted: 0,
        }
    }

    /// Takes the next bytes; they go on the stretch if their address does.
    pub(super) fn feed(&mut self, address: u64, bytes: &[u8]) {
        if address != self.at.wrapping_add(self.carry.len() as u64) {
            self.end_stretch();
            self.at = address;
        }
        // A buffer of its own size each time: a vector that grows would leave copies.
        let mut view = Zeroizing::new(Vec::with_capacity(self.carry.len() + bytes.len()));
        view.extend_from_slice(&self.carry);
        view.extend_from_slice(bytes);
        let ready = view.len().saturating_sub(LONGEST);
        self.search(&view, ready);
        self.carry = Zeroizing::new(view[ready..].to_vec());
        self.at = self.at.wrapping_add(ready as u64);
    }

    /// Everything found, in the order of addresses, but no more than [`MOST`], and how many more there were; a key within
    /// another (PKCS #1 in PKCS #8) is told once.
    pub(super) fn finish(mut self) -> (Vec<Match>, u64) {
        self.end_stretch();
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable_by_key(|one| (one.address, std::cmp::Reverse(one.length)));
        let mut end = 0_u128;
        found.retain(|one| {
            let here = u128::from(one.address) + u128::from(one.length);
            let within = here <= end;
            end = end.max(here);
            !within
        });
        (found, self.unlisted)
    }

    fn end_stretch(&mut self) {
        let carry = std::mem::replace(&mut self.carry, Zeroizing::new(Vec::new()));
        self.search(&carry, carry.len());
    }

    /// Searches for keys that begin in the first `ready` bytes of what is in view, which begins at `self.at`.
    fn search(&mut self, view: &[u8], ready: usize) {
        let mut found: Vec<(usize, usize, Form)> = Vec::new();
        self.schedules(view, ready, &mut found);
        // The header of a structure stands up to four bytes before its version.
        found.extend(self.version.find_iter(view).filter_map(|at| der(view, at)));
        found.extend(self.begin.find_iter(view).filter_map(|at| Some((at, pem(&view[at..])?, Form::PemKey))));
        found.extend(self.ssh.find_iter(view).filter_map(|at| Some((at, open_ssh(&view[at..])?, Form::OpenSshKey))));
        found.retain(|(at, ..)| *at < ready);
        let room = MOST - self.found.len();
        self.unlisted += found.len().saturating_sub(room) as u64;
        self.found.extend(found.into_iter().take(room).map(|(at, length, form)| Match {
            address: self.at.wrapping_add(at as u64),
            needle: UNKNOWN,
            form,
            phase: 0,
            length: length as u64,
            secret_offset: 0,
            secret_length: length as u64,
            whole: true,
        }));
    }

    fn schedules(&self, view: &[u8], ready: usize, found: &mut Vec<(usize, usize, Form)>) {
        let first = (self.at.next_multiple_of(4) - self.at) as usize;
        // Of each kind the first byte of the first computed word, as it stands and with words reversed: one look-up says no
        // to 255 of 256.
        let mut at = first;
        while at < ready {
            let Some(bytes) = view.get(at..at + 36).and_then(|bytes| bytes.first_chunk::<36>()) else {
                // At the end of a stretch, shorter ones may still fit; they need 176 bytes, so they do not.
                break;
            };
            for (key, form) in KEYS {
                let computed = |reversed: usize| {
                    let last = bytes[key - 4 + (1 ^ reversed)];
                    bytes[reversed] ^ self.substitutes[usize::from(last)] ^ 1 == bytes[key + reversed]
                };
                for reversed in [0, 3] {
                    if computed(reversed)
                        && let Some(length) = self.schedule(&view[at..], key, reversed == 3)
                    {
                        found.push((at, length, form));
                    }
                }
            }
            at += 4;
        }
    }

    /// The length of the schedule that begins with a key of so many bytes, if these bytes are one.
    fn schedule(&self, bytes: &[u8], key: usize, reversed: bool) -> Option<usize> {
        let length = 16 * (key / 4 + 7);
        let mut here = Zeroizing::new(bytes.get(..length)?.to_vec());
        if reversed {
            here.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        }
        // Of the second computed word most who passed the first test fail; only then all is computed.
        let second = |at: usize| here[at] ^ here[at - key] == here[at - 4];
        if !(key + 4..key + 16).all(second) {
            return None;
        }
        (aes::expand(&here[..key])? == here).then_some(length)
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.carry.zeroize();
    }
}

/// Bytes of a key of AES, and what its schedule is called.
const KEYS: [(usize, Form); 3] = [(16, Form::Aes128Schedule), (24, Form::Aes192Schedule), (32, Form::Aes256Schedule)];

/// A private key whose version number's tag stands at `version`: where it begins, its length, its kind.
fn der(view: &[u8], version: usize) -> Option<(usize, usize, Form)> {
    if !matches!(view.get(version + 2)?, 0 | 1) {
        return None;
    }
    let before = |count: usize| version.checked_sub(count).map(|at| (at, &view[at..version]));
    let (start, length) = [before(2), before(3), before(4)].into_iter().flatten().find_map(|(at, header)| {
        let (head, content) = match *header {
            [0x30, length] if length < 0x80 => (2, usize::from(length)),
            [0x30, 0x81, length] => (3, usize::from(length)),
            [0x30, 0x82, high, low] => (4, usize::from(high) << 8 | usize::from(low)),
            _ => return None,
        };
        Some((at, head + content))
    })?;
    let bytes = view.get(start..start + length)?;
    let form = if RsaPrivateKey::<UintRef<'_>>::from_der(bytes).is_ok_and(|key| is_product(&key)) {
        Form::Pkcs1Key
    } else if PrivateKeyInfoRef::from_der(bytes).is_ok_and(|key| is_random(key.private_key.as_bytes())) {
        Form::Pkcs8Key
    } else if EcPrivateKey::from_der(bytes).is_ok_and(|key| is_random(key.private_key)) {
        Form::Sec1Key
    } else {
        return None;
    };
    Some((start, length, form))
}

/// Whether the last 32 of these bytes may be random: they hold at least two thirds as many values as they are (random ones
/// hold 30, and fewer than 22 in less than one case of a billion).
///
/// Libraries hold what stands before the key of an elliptic curve as a constant; what follows it there, in a program's text
/// or zeros, makes a structure without fault but no key.
fn is_random(key: &[u8]) -> bool {
    let last = &key[key.len().saturating_sub(32)..];
    last.len() >= 16 && 3 * distinct_non_zero(last) >= 2 * last.len()
}

/// Whether the last eight bytes of the modulus are those of the product of the primes.
fn is_product(key: &RsaPrivateKey<UintRef<'_>>) -> bool {
    let low = |number: &UintRef<'_>| number.as_bytes().iter().fold(0_u64, |low, byte| low << 8 | u64::from(*byte));
    low(&key.prime1).wrapping_mul(low(&key.prime2)) == low(&key.modulus) && low(&key.modulus) != 0
}

/// The length of the PEM of a private key that these bytes begin with.
fn pem(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let label = bytes.get(11..)?;
    let label = &label[..label.windows(5).take(40).position(|window| window == b"-----")?];
    if !label.ends_with(b"PRIVATE KEY") || label.starts_with(b"ENCRYPTED") {
        return None;
    }
    let end = [b"-----END ", label, b"-----"].concat();
    let start = 11 + label.len() + 5;
    let length = memchr::memmem::find(&bytes[start..], &end)?;
    let body = bytes[start..start + length].trim_ascii();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(byte);
    // Lines that say how a key is encrypted hold colons. So short is no key.
    let is_key = body.len() >= 48 && body.iter().all(is_base64);
    // "openssh-key-v1", NUL, and a cipher whose name has four letters, which is "none".
    let is_open = label != b"OPENSSH PRIVATE KEY" || body.starts_with(b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmU");
    (is_key && is_open).then_some(start + length + end.len())
}

/// What a key of OpenSSH's begins with when no passphrase covers it: magic, cipher, key derivation and its options.
const SSH: &[u8] = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01";

/// The length of the key in OpenSSH's format that these bytes begin with.
fn open_ssh(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let private = SSH.len() + 4 + number(SSH.len())?;
    let length = private.checked_add(4)?.checked_add(number(private)?)?;
    // The same random number twice, by which a decryption is checked.
    (length <= LONGEST && bytes.len() >= length && number(private + 4)? == number(private + 8)?).then_some(length)
}

/// Whether a key of each kind is found where it is planted: the positive control. The reason if not.
pub(crate) fn silent() -> Option<String> {
    let key: Vec<u8> = (0..32).map(|at: u8| at.wrapping_mul(37) ^ 0x5a).collect();
    let mut plants: Vec<(Form, Zeroizing<Vec<u8>>)> =
        KEYS.iter().filter_map(|(length, form)| Some((*form, aes::expand(&key[..*length])?))).collect();
    let pkcs8 = [&b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], &key].concat();
    let sec1 =
        [&b"\x30\x31\x02\x01\x01\x04\x20"[..], &key, b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"].concat();
    let pem = pkcs8::der::pem::encode_string("PRIVATE KEY", pkcs8::der::pem::LineEnding::LF, &pkcs8).ok();
    plants.push((Form::Pkcs8Key, pkcs8.into()));
    plants.push((Form::Sec1Key, sec1.into()));
    plants.extend(pem.map(|text| (Form::PemKey, text.into_bytes().into())));
    let missing = plants.iter().find(|(form, bytes)| {
        let mut finder = Finder::new();
        finder.feed(0x1000, &[&[b'.'; 64][..], bytes, &[b'.'; 64]].concat());
        !finder.finish().0.iter().any(|found| found.form == *form && found.address == 0x1040)
    });
    match missing {
        Some((form, _)) => Some(format!("silent control: a planted {} was not found", form.name())),
        None if plants.len() < 6 => Some("silent control: not every kind of key could be planted".to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = include_str!("../../tests/keys/rsa-pkcs1.pem");
    const PKCS8: &str = include_str!("../../tests/keys/rsa-pkcs8.pem");
    const EC: &str = include_str!("../../tests/keys/ec-sec1.pem");
    const SSH_KEY: &str = include_str!("../../tests/keys/openssh.pem");
    const SSH_LOCKED: &str = include_str!("../../tests/keys/openssh-locked.pem");
    const PKCS8_LOCKED: &str = include_str!("../../tests/keys/rsa-pkcs8-locked.pem");

    fn random(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"keys").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn find(memory: &[u8], chunk: usize) -> Vec<(u64, u64, Form)> {
        let mut finder = Finder::new();
        for (number, piece) in memory.chunks(chunk).enumerate() {
            finder.feed(0x7000 + (number * chunk) as u64, piece);
        }
        finder.finish().0.iter().map(|found| (found.address - 0x7000, found.length, found.form)).collect()
    }

    fn decoded(pem: &str) -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let value = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let body = body.trim_end_matches('=');
        let bits: Vec<u8> = body.bytes().flat_map(|byte| (0..6).rev().map(move |bit| value(byte) >> bit & 1)).collect();
        bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    /// A plant in random bytes, at an offset that is a multiple of four.
    fn in_random(plant: &[u8]) -> Vec<u8> {
        let mut memory = random(100_000);
        memory[50_000..50_000 + plant.len()].copy_from_slice(plant);
        memory
    }

    #[test]
    fn schedules_of_each_length_and_order_are_found_however_the_bytes_are_cut() {
        for (length, form) in KEYS {
            let schedule = aes::expand(&random(length)).unwrap();
            let reversed: Vec<u8> = schedule.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
            for plant in [&schedule[..], &reversed] {
                for chunk in [100_000, 4096, 50_100, 333] {
                    assert_eq!(find(&in_random(plant), chunk), [(50_000, schedule.len() as u64, form)]);
                }
            }
        }
    }

    #[test]
    fn a_schedule_with_one_wrong_byte_is_none() {
        for wrong in [0, 16, 100, 175] {
            let mut schedule = aes::expand(&random(16)).unwrap();
            schedule[wrong] ^= 1;

            assert_eq!(find(&in_random(&schedule), 4096), []);
        }
    }

    #[test]
    fn private_keys_are_found_in_each_of_their_formats() {
        for (text, form) in
            [(RSA, Form::Pkcs1Key), (PKCS8, Form::Pkcs8Key), (EC, Form::Sec1Key), (SSH_KEY, Form::OpenSshKey)]
        {
            let der = decoded(text);

            assert_eq!(find(&in_random(text.as_bytes()), 4096), [(50_000, text.trim_end().len() as u64, Form::PemKey)]);
            assert_eq!(find(&in_random(&der), 4096), [(50_000, der.len() as u64, form)]);
            assert_eq!(find(&der[..der.len() - 1], 4096), [], "cut short");
        }
    }

    #[test]
    fn keys_under_a_passphrase_and_public_ones_are_no_finding() {
        for text in [SSH_LOCKED, PKCS8_LOCKED] {
            assert_eq!(find(&in_random(text.as_bytes()), 4096), []);
            assert_eq!(find(&in_random(&decoded(text)), 4096), []);
        }
        let sample = "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n";
        assert_eq!(find(&in_random(sample.as_bytes()), 4096), []);
    }

    #[test]
    fn what_stands_before_a_key_makes_none_of_what_follows_it_by_accident() {
        let before = b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        for after in [&[0; 32][..], b"the alphabet of the message here", &[b'a'; 32]] {
            assert_eq!(find(&in_random(&[&before[..], after].concat()), 4096), []);
        }
        assert_eq!(
            find(&in_random(&before[..]), 4096),
            [(50_000, 48, Form::Pkcs8Key)],
            "as a key, random bytes follow"
        );
    }

    #[test]
    fn random_bytes_zeros_and_this_program_hold_no_key() {
        assert_eq!(find(&random(8 << 20), 256 << 10), []);
        assert_eq!(find(&vec![0; 1 << 20], 256 << 10), []);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc =
            maps.lines().find(|line| line.ends_with("libc.so.6")).and_then(|line| line.find('/').map(|at| &line[at..]));
        assert_eq!(find(&std::fs::read(libc.unwrap()).unwrap(), 256 << 10), []);
    }

    #[test]
    fn each_kind_proves_that_it_can_be_found() {
        assert_eq!(silent(), None);
    }

    #[test]
    fn no_key_reaches_over_a_gap() {
        let schedule = aes::expand(&random(32)).unwrap();
        let mut finder = Finder::new();

        finder.feed(0x1000, &schedule[..100]);
        finder.feed(0x1000 + 104, &schedule[100..]);

        assert_eq!(finder.finish(), (Vec::new(), 0));
    }
}
