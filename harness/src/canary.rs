//! Secrets that the harness plants, and decoys that it never plants.
//!
//! Everything comes from one [`Seed`], so that a run can be repeated with the same bytes, and from names: a canary is
//! a function of (seed, label, kind, length), a decoy also of its number. Labels keep rows of the catalogue apart.
//!
//! Canaries are made to be found: no stretch of four bytes is dull (zeros, repeats) or stands in the canary twice,
//! so each piece of one says where in the canary it belongs, and chance alone hardly ever shows one.
//!
//! The bytes of seeds and canaries live on the heap, are wiped on drop, and reach no text: `Debug` prints lengths.
//! How a secret may be written in memory is told in [`variants`](crate::variants).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use scenario_protocol::CanaryKind;
use zeroize::{Zeroize, Zeroizing};

/// What all canaries of a run are made from: 32 bytes.
pub struct Seed(Zeroizing<Vec<u8>>);

const SEED_LEN: usize = 32;

/// Separates these derivations from any other use of the same seed.
const DOMAIN: &[u8] = b"secmem canary 1";

/// Why a text is not a [`Seed`]. Holds nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a seed is written as 64 hexadecimal digits; this text has {length} characters{}", if *.length == 64 { ", not all of them digits" } else { "" })]
pub struct ParseSeedError {
    /// Characters of the text.
    length: usize,
}

impl Seed {
    /// A fresh seed from the kernel.
    ///
    /// # Errors
    ///
    /// What opening or reading `/dev/urandom` fails with.
    ///
    /// # Source
    ///
    /// random(4): once the system has booted, `/dev/urandom` is as good as getrandom(2). It is read straight into the
    /// seed's place.
    pub fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; SEED_LEN]);
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The seed that a user wrote down, as 64 hexadecimal digits of either case.
    ///
    /// # Errors
    ///
    /// [`ParseSeedError`] if the text is anything else. It tells the length of the text alone.
    pub fn from_hex(text: &str) -> Result<Self, ParseSeedError> {
        let refused = || ParseSeedError { length: text.chars().count() };
        if text.len() != 2 * SEED_LEN {
            return Err(refused());
        }
        let mut bytes = Zeroizing::new(vec![0; SEED_LEN]);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (high, low) else { return Err(refused()) };
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(bytes))
    }

    /// The canary of that label.
    pub fn canary(&self, label: &str, kind: CanaryKind, len: usize) -> Canary {
        self.derive(label, kind, len, 0)
    }

    /// Decoys for the canary of that label: as long, made of the same, and planted nowhere.
    pub fn decoys(&self, label: &str, kind: CanaryKind, len: usize, count: u32) -> Vec<Canary> {
        (1..=count).map(|number| self.derive(label, kind, len, number)).collect()
    }

    /// Number 0 is the canary, the others are its decoys.
    ///
    /// Bytes that would break a rule of [`fits`] are drawn again from the same stream, so the result depends on
    /// nothing but the arguments.
    fn derive(&self, label: &str, kind: CanaryKind, len: usize, number: u32) -> Canary {
        let key = Zeroizing::new(<[u8; SEED_LEN]>::try_from(self.0.as_slice()).expect("a seed has 32 bytes"));
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(DOMAIN);
        hasher.update(&[match kind {
            CanaryKind::Bytes => 0,
            CanaryKind::Text => 1,
        }]);
        hasher.update(&number.to_le_bytes());
        hasher.update(label.as_bytes()); // last, because it alone has no fixed length
        let mut stream = hasher.finalize_xof();
        hasher.zeroize();

        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        let mut drawn = Zeroizing::new([0]);
        while bytes.len() < len {
            stream.fill(&mut *drawn);
            let byte = match kind {
                CanaryKind::Bytes => drawn[0],
                CanaryKind::Text => TEXT[usize::from(drawn[0]) % TEXT.len()],
            };
            // 248 is the largest multiple of 62 in a byte: without this test the first letters would come more often.
            let fair = kind == CanaryKind::Bytes || usize::from(drawn[0]) < 256 / TEXT.len() * TEXT.len();
            if fair && fits(&bytes, byte) {
                bytes.push(byte);
            }
        }
        stream.zeroize();
        Canary(bytes)
    }
}

const TEXT: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Whether a canary may go on with that byte: not zero, not one of the three before it, and not the end of four
/// bytes that stand in the canary already. Quadratic in the length, which is a few hundred at most.
fn fits(so_far: &[u8], byte: u8) -> bool {
    let last = &so_far[so_far.len().saturating_sub(3)..];
    let again = || so_far.windows(4).any(|window| window[..3] == *last && window[3] == byte);
    byte != 0 && !last.contains(&byte) && !again()
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A secret that is looked for: planted by the harness, or given by the user.
pub struct Canary(Zeroizing<Vec<u8>>);

impl Canary {
    /// A secret of the user's.
    ///
    /// # Errors
    ///
    /// [`TooWeak`], as [`check_strength`] tells.
    pub fn given(secret: Zeroizing<Vec<u8>>) -> Result<Self, TooWeak> {
        check_strength(&secret)?;
        Ok(Self(secret))
    }

    /// The secret itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canary({} bytes)", self.0.len())
    }
}

/// Shortest secret of a user's that can be searched for, in bytes.
///
/// With fragments of six bytes and up, eight bytes are three windows: below that, a hit says little.
pub const MIN_SECRET: usize = 8;

/// Why a secret cannot be searched for: memory would show it, or pieces of it, by chance. Holds no byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooWeak {
    /// Fewer than [`MIN_SECRET`] bytes.
    #[error("a secret of {length} bytes is too short to be searched for: it takes at least {MIN_SECRET}")]
    Short {
        /// Bytes of the secret.
        length: usize,
    },
    /// Too many of its pieces look like anything.
    #[error(
        "a secret of {length} bytes is too regular to be searched for: of its {pieces} pieces of four bytes, {dull} \
         repeat another or hold fewer than three different values other than zero, and at most {} may",
        .pieces / 4
    )]
    Regular {
        /// Bytes of the secret.
        length: usize,
        /// Stretches of four bytes in it.
        pieces: usize,
        /// How many of them are dull.
        dull: usize,
    },
}

/// Whether a secret can be told from what stands in memory anyway.
///
/// # Errors
///
/// [`TooWeak`] if it has fewer than [`MIN_SECRET`] bytes, or if more than a quarter of its stretches of four bytes
/// repeat an earlier one or hold fewer than three different values other than zero.
pub fn check_strength(secret: &[u8]) -> Result<(), TooWeak> {
    let length = secret.len();
    if length < MIN_SECRET {
        return Err(TooWeak::Short { length });
    }
    let pieces = length - 3;
    let mut telling: Vec<_> = secret.windows(4).filter(|window| distinct_non_zero(window) >= 3).collect();
    telling.sort_unstable();
    telling.dedup();
    let dull = pieces - telling.len();
    if dull > pieces / 4 { Err(TooWeak::Regular { length, pieces, dull }) } else { Ok(()) }
}

/// How many different values other than zero a few bytes hold.
pub(crate) fn distinct_non_zero(bytes: &[u8]) -> usize {
    bytes.iter().enumerate().filter(|(at, byte)| **byte != 0 && !bytes[..*at].contains(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::from_hex(&"a5".repeat(32)).unwrap()
    }

    #[test]
    fn the_same_seed_and_label_give_the_same_canary() {
        let [first, again] = [seed(), seed()].map(|seed| seed.canary("vec/drop", CanaryKind::Bytes, 32));

        assert_eq!(first.bytes(), again.bytes());
    }

    #[test]
    fn seeds_labels_kinds_and_decoys_differ() {
        let other = Seed::from_hex(&"5a".repeat(32)).unwrap();
        let mut all = vec![
            seed().canary("vec/drop", CanaryKind::Bytes, 32),
            seed().canary("vec/exit", CanaryKind::Bytes, 32),
            seed().canary("vec/drop", CanaryKind::Text, 32),
            other.canary("vec/drop", CanaryKind::Bytes, 32),
        ];
        all.extend(seed().decoys("vec/drop", CanaryKind::Bytes, 32, 8));

        for (at, canary) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|earlier| earlier.bytes() != canary.bytes()), "number {at}");
        }
    }

    #[test]
    fn no_piece_of_a_canary_is_dull_or_stands_in_it_twice() {
        for kind in [CanaryKind::Bytes, CanaryKind::Text] {
            let canary = seed().canary("long", kind, 2048);

            let windows: Vec<_> = canary.bytes().windows(4).collect();
            assert!(windows.iter().all(|window| distinct_non_zero(window) == 4));
            assert!((0..windows.len()).all(|at| !windows[..at].contains(&windows[at])));
        }
    }

    #[test]
    fn a_text_canary_is_made_of_letters_and_digits_alone() {
        let canary = seed().canary("argv", CanaryKind::Text, 512);

        assert!(canary.bytes().iter().all(u8::is_ascii_alphanumeric));
    }

    #[test]
    fn random_seeds_differ() {
        let [one, other] = [(); 2].map(|()| Seed::random().unwrap().canary("x", CanaryKind::Bytes, 32));

        assert_ne!(one.bytes(), other.bytes());
    }

    #[test]
    fn a_text_that_is_no_seed_is_refused_and_not_repeated() {
        for text in ["", "a5", &"a5".repeat(33), &"g5".repeat(32), &"+5".repeat(32)] {
            let error = Seed::from_hex(text).unwrap_err();

            assert!(text.len() < 3 || !error.to_string().contains(text));
        }
    }

    #[test]
    fn debug_output_shows_lengths_alone() {
        let canary = seed().canary("x", CanaryKind::Text, 32);

        assert_eq!(format!("{canary:?} {:?}", seed()), "Canary(32 bytes) Seed(..)");
    }

    #[test]
    fn every_canary_is_strong_enough_to_be_searched_for() {
        for len in [MIN_SECRET, 16, 32, 64] {
            for kind in [CanaryKind::Bytes, CanaryKind::Text] {
                assert_eq!(check_strength(seed().canary("x", kind, len).bytes()), Ok(()));
            }
        }
    }

    #[test]
    fn secrets_that_people_have_are_strong_enough() {
        for secret in ["correct horse battery staple", "6f1ed002ab5595859014ebf0951522d9", "hunter2-aaaa-Xq81"] {
            assert_eq!(check_strength(secret.as_bytes()), Ok(()), "{secret}");
        }
    }

    #[test]
    fn short_and_regular_secrets_are_refused_with_their_length_and_the_reason() {
        let refused = |secret: &[u8]| check_strength(secret).unwrap_err();

        assert_eq!(refused(b"hunter2"), TooWeak::Short { length: 7 });
        assert_eq!(refused(&[0; 32]), TooWeak::Regular { length: 32, pieces: 29, dull: 29 });
        assert_eq!(refused(b"abcdabcdabcdabcd"), TooWeak::Regular { length: 16, pieces: 13, dull: 9 });
        assert_eq!(
            refused(&[0; 32]).to_string(),
            "a secret of 32 bytes is too regular to be searched for: of its 29 pieces of four bytes, 29 repeat \
             another or hold fewer than three different values other than zero, and at most 7 may"
        );
    }
}
