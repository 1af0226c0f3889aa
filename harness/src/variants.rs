//! The ways in which a secret may be written in memory.
//!
//! [`encode`] turns a secret into [`Pattern`]s: the bytes to look for, and for each of them which bits of the secret
//! it shows. From that follows how much of the secret a piece of a pattern gives away, in whatever form: lengths are
//! counted in bits of the secret, so 6 bytes are 6 raw bytes, 12 hexadecimal digits or 8 characters of base64.
//!
//! A pattern holds only what the secret alone decides. Base64 packs three bytes into four characters, so its text
//! depends on where in a group the secret begins: hence three phases, each without the characters that the secret
//! shares with a neighbour.
//!
//! A new form is one arm of [`write`]. Searching for patterns happens in [`scan`](crate::scan).

use std::ops::Range;

pub use findings::Form;
use zeroize::Zeroizing;

/// The forms that are looked for unless something else is asked for.
pub const FORMS: [Form; 6] = [Form::Raw, Form::Reversed, Form::HexLower, Form::HexUpper, Form::Base64, Form::Base64Url];

/// Different values other than zero that a residue must show to be one.
///
/// Without it, a secret with a run of zeros would be found in every empty page.
pub const MIN_VALUES: usize = 3;

/// A secret as one form writes it. Its bytes are wiped on drop and reach no text.
pub struct Pattern {
    form: Form,
    phase: u8,
    secret: Zeroizing<Vec<u8>>,
    text: Text,
}

/// Encoded bytes, each with the bits of the secret that it shows.
#[derive(Default)]
struct Text {
    bytes: Zeroizing<Vec<u8>>,
    shows: Vec<Bits>,
}

/// A few neighbouring bits of the secret; bit 0 is the highest of the first byte.
#[derive(Clone, Copy)]
struct Bits {
    first: usize,
    count: usize,
}

impl Bits {
    const fn byte(at: usize) -> Self {
        Self { first: 8 * at, count: 8 }
    }
}

/// Writes a secret in each of those forms.
///
/// A pattern that reads like an earlier one is left out: base64url where it uses none of its own characters, capital
/// hexadecimal without a letter, a palindrome reversed. So is one that would be empty.
pub fn encode(secret: &[u8], forms: &[Form]) -> Vec<Pattern> {
    let mut patterns: Vec<Pattern> = Vec::new();
    for &form in forms {
        for (phase, text) in (0..).zip(write(form, secret)) {
            if !text.bytes.is_empty() && patterns.iter().all(|earlier| earlier.text.bytes != text.bytes) {
                patterns.push(Pattern { form, phase, secret: Zeroizing::new(secret.to_vec()), text });
            }
        }
    }
    patterns
}

/// The texts of one form, one a phase.
fn write(form: Form, secret: &[u8]) -> Vec<Text> {
    match form {
        Form::Raw => vec![rearranged(secret, |at| at)],
        Form::Reversed => vec![rearranged(secret, |at| secret.len() - 1 - at)],
        Form::HexLower => vec![digits(secret, b"0123456789abcdef", 0)],
        Form::HexUpper => vec![digits(secret, b"0123456789ABCDEF", 0)],
        Form::Base64 => BASE64_PHASES.map(|first| digits(secret, &base64(b"+/"), first)).into(),
        Form::Base64Url => BASE64_PHASES.map(|first| digits(secret, &base64(b"-_"), first)).into(),
    }
}

/// The first bit of the secret that begins a character of base64, when 0, 1 or 2 bytes of the group come before it.
const BASE64_PHASES: [usize; 3] = [0, 4, 2];

/// The alphabet of base64 with its last two characters.
///
/// # Source
///
/// RFC 4648, sections 4 and 5.
fn base64(last: &[u8; 2]) -> [u8; 64] {
    let mut alphabet = [0; 64];
    let characters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last);
    for (place, character) in alphabet.iter_mut().zip(characters) {
        *place = character;
    }
    alphabet
}

/// The secret's bytes in another order: place `at` holds byte `from(at)`.
fn rearranged(secret: &[u8], from: impl Fn(usize) -> usize) -> Text {
    let mut text = Text::with_capacity(secret.len());
    for at in (0..secret.len()).map(from) {
        text.push(secret[at], Bits::byte(at));
    }
    text
}

/// The secret's bits in digits of an alphabet of 2, 4, 16 or 64 characters, beginning at bit `first`; a last digit
/// that the secret does not fill is left out.
fn digits(secret: &[u8], alphabet: &[u8], first: usize) -> Text {
    let count = alphabet.len().ilog2() as usize;
    let bit = |at: usize| usize::from(secret[at / 8] >> (7 - at % 8) & 1);
    let mut text = Text::with_capacity(8 * secret.len() / count);
    for first in (first..).step_by(count).take_while(|first| first + count <= 8 * secret.len()) {
        let digit = (first..first + count).fold(0, |digit, at| digit << 1 | bit(at));
        text.push(alphabet[digit], Bits { first, count });
    }
    text
}

impl Text {
    /// Room enough from the start: growing would leave a copy behind.
    fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(bytes)), shows: Vec::with_capacity(bytes) }
    }

    fn push(&mut self, byte: u8, shows: Bits) {
        self.bytes.push(byte);
        self.shows.push(shows);
    }
}

impl Pattern {
    /// How the secret is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Which of the texts of its form it is: for base64, how many bytes of a group of three come before the secret.
    pub fn phase(&self) -> u8 {
        self.phase
    }

    /// The bytes to look for. They give the secret away.
    pub fn bytes(&self) -> &[u8] {
        &self.text.bytes
    }

    /// The part of the secret that a piece of the pattern shows: index of the byte in which it begins, and length in
    /// bytes, rounded down.
    pub(crate) fn shown(&self, piece: Range<usize>) -> Range<usize> {
        let shows = &self.text.shows[piece];
        let bits: usize = shows.iter().map(|bits| bits.count).sum();
        let first = shows.iter().map(|bits| bits.first).min().unwrap_or(0);
        first / 8..first / 8 + bits / 8
    }

    /// Whether a piece of the pattern is a residue: it shows at least `min_length` bytes of the secret, counted in
    /// bits, and among the bytes that it shows entirely at least [`MIN_VALUES`] different values other than zero.
    pub(crate) fn tells(&self, piece: Range<usize>, min_length: usize) -> bool {
        let mut tally = Tally::new(self);
        piece.for_each(|at| tally.add(at));
        tally.tells(min_length)
    }

    /// The shortest residues: all pieces that [`tell`](Self::tells) and contain no shorter one that does.
    ///
    /// Every residue contains one of them. Both their starts and their ends ascend.
    pub(crate) fn shortest_residues(&self, min_length: usize) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut tally = Tally::new(self);
        let mut end = 0;
        for start in 0..self.bytes().len() {
            while end < self.bytes().len() && !tally.tells(min_length) {
                tally.add(end);
                end += 1;
            }
            if !tally.tells(min_length) {
                break;
            }
            tally.remove(start);
            if !tally.tells(min_length) {
                found.push(start..end);
            }
        }
        found
    }

    /// How likely bytes made of the secret's own alphabet, in this form, show that piece by chance.
    pub(crate) fn chance(&self, piece: Range<usize>) -> f64 {
        let bits: usize = self.text.shows[piece].iter().map(|bits| bits.count).sum();
        alphabet(&self.secret).powf(-(bits as f64) / 8.0)
    }
}

/// How many values a byte of the secret can have, as far as its looks tell: those of the classes (digits, small and
/// capital letters, other visible characters) that it uses, or 256.
fn alphabet(secret: &[u8]) -> f64 {
    let mut sizes = [0.0; 4];
    for byte in secret {
        match byte {
            b'0'..=b'9' => sizes[0] = 10.0,
            b'a'..=b'z' => sizes[1] = 26.0,
            b'A'..=b'Z' => sizes[2] = 26.0,
            b' '..=b'~' => sizes[3] = 33.0,
            _ => return 256.0,
        }
    }
    sizes.iter().sum()
}

/// What a growing and shrinking piece of a pattern shows.
struct Tally<'a> {
    pattern: &'a Pattern,
    bits: usize,
    /// Bits shown of each byte of the secret.
    of_byte: Vec<u8>,
    /// How many bytes of each value are shown entirely.
    of_value: Zeroizing<Vec<usize>>,
    /// Values other than zero among them.
    values: usize,
}

impl<'a> Tally<'a> {
    fn new(pattern: &'a Pattern) -> Self {
        let of_byte = vec![0; pattern.secret.len()];
        Self { pattern, bits: 0, of_byte, of_value: Zeroizing::new(vec![0; 256]), values: 0 }
    }

    fn tells(&self, min_length: usize) -> bool {
        self.bits >= 8 * min_length && self.values >= MIN_VALUES
    }

    fn add(&mut self, at: usize) {
        let bits = self.pattern.text.shows[at];
        self.bits += bits.count;
        for bit in bits.first..bits.first + bits.count {
            let value = self.pattern.secret[bit / 8];
            self.of_byte[bit / 8] += 1;
            if self.of_byte[bit / 8] == 8 {
                self.of_value[usize::from(value)] += 1;
                self.values += usize::from(value != 0 && self.of_value[usize::from(value)] == 1);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let bits = self.pattern.text.shows[at];
        self.bits -= bits.count;
        for bit in bits.first..bits.first + bits.count {
            let value = self.pattern.secret[bit / 8];
            if self.of_byte[bit / 8] == 8 {
                self.of_value[usize::from(value)] -= 1;
                self.values -= usize::from(value != 0 && self.of_value[usize::from(value)] == 0);
            }
            self.of_byte[bit / 8] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8; 12] = b"\x01\xfe\xab\xcd\xef\x10\x32\x54\x76\x98\xba\xdc";

    fn texts(form: Form, secret: &[u8]) -> Vec<String> {
        encode(secret, &[form]).iter().map(|pattern| String::from_utf8_lossy(pattern.bytes()).into_owned()).collect()
    }

    #[test]
    fn raw_and_reversed_are_the_bytes_forwards_and_backwards() {
        let patterns = encode(SECRET, &[Form::Raw, Form::Reversed]);

        let backwards: Vec<u8> = SECRET.iter().rev().copied().collect();
        assert_eq!(patterns[0].bytes(), SECRET);
        assert_eq!(patterns[1].bytes(), backwards);
    }

    #[test]
    fn hexadecimal_is_written_in_either_case() {
        assert_eq!(texts(Form::HexLower, SECRET), ["01feabcdef1032547698badc"]);
        assert_eq!(texts(Form::HexUpper, SECRET), ["01FEABCDEF1032547698BADC"]);
    }

    #[test]
    fn base64_holds_what_the_secret_alone_decides_in_each_phase() {
        // As base64(1) writes it after 0, 1 and 2 bytes x: c2VjcmV0LXNlY3JldA==, eHNlY3JldC1zZWNyZXQ= and
        // eHhzZWNyZXQtc2VjcmV0.
        assert_eq!(
            texts(Form::Base64, b"secret-secret"),
            ["c2VjcmV0LXNlY3Jld", "NlY3JldC1zZWNyZX", "zZWNyZXQtc2VjcmV0"]
        );
    }

    #[test]
    fn base64url_stays_only_where_it_differs() {
        let secret = b"\xfb\xef\xbe\x01\x02\x03\x04\x05\x06";

        let patterns = encode(secret, &[Form::Base64, Form::Base64Url]);

        let kept: Vec<_> = patterns.iter().map(|pattern| (pattern.form(), pattern.phase())).collect();
        let b64 = Form::Base64;
        assert_eq!(kept[..4], [(b64, 0), (b64, 1), (b64, 2), (Form::Base64Url, 0)]);
        assert_eq!(patterns[3].bytes(), b"----AQIDBAUG");
        assert!(encode(b"plain letters", &[Form::Base64, Form::Base64Url]).iter().all(|one| one.form() == b64));
    }

    #[test]
    fn a_palindrome_is_not_looked_for_twice() {
        assert_eq!(encode(b"abcdeedcba", &[Form::Raw, Form::Reversed]).len(), 1);
    }

    #[test]
    fn a_piece_shows_the_bytes_that_its_bits_make_up() {
        let pattern = |form, phase: usize| encode(SECRET, &[form]).swap_remove(phase);

        assert_eq!(pattern(Form::Raw, 0).shown(2..8), 2..8);
        assert_eq!(pattern(Form::Reversed, 0).shown(2..8), 4..10);
        assert_eq!(pattern(Form::HexLower, 0).shown(3..15), 1..7);
        assert_eq!(pattern(Form::Base64, 0).shown(0..8), 0..6);
        assert_eq!(pattern(Form::Base64, 1).shown(0..8), 0..6);
        assert_eq!(pattern(Form::Base64, 2).shown(1..9), 1..7);
    }

    #[test]
    fn six_bytes_are_six_raw_bytes_twelve_digits_or_eight_characters() {
        for (form, length) in [(Form::Raw, 6), (Form::Reversed, 6), (Form::HexUpper, 12), (Form::Base64, 8)] {
            for pattern in encode(SECRET, &[form]) {
                let shortest = pattern.shortest_residues(6);

                assert!(shortest.iter().all(|piece| piece.len() == length), "{form:?}");
                assert_eq!(shortest.len(), pattern.bytes().len() - length + 1, "{form:?}");
            }
        }
    }

    #[test]
    fn a_piece_of_too_few_values_tells_nothing() {
        let secret = b"\x07\x08\x09\0\0\0\0\0\0\0\0\x09\x09";
        let pattern = encode(secret, &[Form::Raw]).swap_remove(0);

        assert_eq!(pattern.shortest_residues(6), [Range { start: 0, end: 6 }]);
        assert!(pattern.tells(0..6, 6) && !pattern.tells(1..13, 6));
    }

    #[test]
    fn the_shortest_residues_are_those_that_the_definition_gives() {
        let secret = b"aab\0\0bcabcaaab\0c\0dee";
        for pattern in encode(secret, &FORMS) {
            let length = pattern.bytes().len();
            let mut expected = Vec::new();
            for start in 0..length {
                for end in start..=length {
                    let tells = |piece| pattern.tells(piece, 5);
                    if tells(start..end) && !tells(start + 1..end) && !tells(start..end - 1) {
                        expected.push(start..end);
                    }
                }
            }

            assert_eq!(pattern.shortest_residues(5), expected, "{:?}", pattern.form());
        }
    }

    #[test]
    fn chance_counts_the_alphabet_that_the_secret_uses() {
        let chance = |secret: &[u8], form, length| encode(secret, &[form])[0].chance(0..length);

        assert_eq!(chance(SECRET, Form::Raw, 6), 256f64.powi(-6));
        assert_eq!(chance(SECRET, Form::HexLower, 12), 256f64.powi(-6));
        assert_eq!(chance(SECRET, Form::Base64, 8), 256f64.powi(-6));
        assert_eq!(chance(b"Letters4nd5o", Form::Raw, 6), 62f64.powi(-6));
    }
}
