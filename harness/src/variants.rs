//! The ways in which a secret may be written in memory.
//!
//! [`encode`] turns a secret into [`Pattern`]s: the bytes to look for, and for each of them which bits of the secret
//! it shows. From that follows how much of the secret a piece of a pattern gives away, in whatever form: lengths are
//! counted in bits of the secret, so 6 bytes are 6 raw bytes, 12 hexadecimal digits or 8 characters of base64.
//!
//! A pattern holds only what the secret alone decides. Base64 packs three bytes into four characters, so its text
//! depends on where in a group the secret begins: hence three phases, each without the characters that the secret
//! shares with a neighbour. Zeros, commas and signs that a form puts between the bytes of a secret are part of a
//! pattern, but show nothing of the secret; none stands at an end of a pattern.
//!
//! Of some forms it is not the secret that is written, but what is made from it, like the round keys of a cipher. Then
//! all that is said of the secret here holds for what was made.
//!
//! A new form is one arm of `write`, in `write.rs`. Searching for patterns happens in [`scan`](crate::scan).

pub(crate) mod aes;
mod rsa;
mod sha2;
mod write;

use std::ops::Range;

pub use findings::Form;
use zeroize::Zeroizing;

/// The forms that are looked for unless something else is asked for.
pub const FORMS: [Form; 31] = [
    Form::Raw,
    Form::Reversed,
    Form::HexLower,
    Form::HexUpper,
    Form::Base64,
    Form::Base64Url,
    Form::Swap16,
    Form::Swap32,
    Form::Swap64,
    Form::Utf16Le,
    Form::Utf16Be,
    Form::Utf32Le,
    Form::JsonArray,
    Form::PercentLower,
    Form::PercentUpper,
    Form::Xor36,
    Form::Xor5c,
    Form::Inverted,
    Form::Limbs30,
    Form::Limbs32,
    Form::Limbs64,
    Form::AesEncKey,
    Form::AesDecKey,
    Form::Sha256Schedule,
    Form::Sha512Schedule,
    Form::HmacBlock,
    Form::HmacSha256State,
    Form::HmacSha512State,
    Form::ChachaState,
    Form::Ed25519Key,
    Form::RsaNumber,
];

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
    /// Whether a byte of the secret counts only if all of it is shown: half a decimal number says little.
    whole_bytes: bool,
    /// Pieces that show fewer bytes are no residues, whatever the shortest length that is asked for.
    least: usize,
}

/// A few neighbouring bits of the secret; bit 0 is the highest of the first byte. None, for what the form puts between.
#[derive(Clone, Copy)]
struct Bits {
    first: usize,
    count: usize,
}

impl Bits {
    const NONE: Self = Self { first: 0, count: 0 };

    const fn byte(at: usize) -> Self {
        Self { first: 8 * at, count: 8 }
    }

    /// As what they count: one byte of a text shows at most one byte of a secret, even where a character of UTF-8
    /// became shorter.
    fn weight(self) -> usize {
        self.count.min(8)
    }
}

/// Writes a secret in each of those forms.
///
/// A pattern that reads like an earlier one is left out: base64url where it uses none of its own characters, capital
/// hexadecimal without a letter, a palindrome reversed. So is one that would be empty.
pub fn encode(secret: &[u8], forms: &[Form]) -> Vec<Pattern> {
    let mut patterns: Vec<Pattern> = Vec::new();
    for &form in forms {
        let mut phase = 0;
        for made in made(form, secret) {
            for text in write::write(form, &made) {
                if !text.bytes.is_empty() && patterns.iter().all(|earlier| earlier.text.bytes != text.bytes) {
                    patterns.push(Pattern { form, phase, secret: made.clone(), text });
                }
                phase += 1;
            }
        }
    }
    patterns
}

/// What a form writes: the secret, or all that is made from it. Nothing, if the secret is not of that kind.
fn made(form: Form, secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    match form {
        Form::AesEncKey => aes::encryption(secret).into_iter().collect(),
        Form::AesDecKey => aes::decryption(secret).into_iter().collect(),
        Form::Sha256Schedule => sha2::schedules256(secret),
        Form::Sha512Schedule => sha2::schedules512(secret),
        Form::HmacSha256State => sha2::states256(secret),
        Form::HmacSha512State => sha2::states512(secret),
        Form::Ed25519Key => sha2::ed25519(secret),
        Form::RsaNumber => rsa::numbers(secret),
        form if form.is_unknown() => Vec::new(),
        _ => vec![Zeroizing::new(secret.to_vec())],
    }
}

impl Text {
    /// Room enough from the start: growing would leave a copy behind.
    fn with_capacity(bytes: usize) -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(bytes));
        Self { shows: Vec::with_capacity(bytes.capacity()), bytes, whole_bytes: false, least: 0 }
    }

    fn push(&mut self, byte: u8, shows: Bits) {
        self.bytes.push(byte);
        self.shows.push(shows);
    }

    /// Takes bytes that show nothing away from the ends.
    fn trimmed(mut self) -> Self {
        let shows = |bits: &Bits| bits.count > 0;
        let end = self.shows.iter().rposition(shows).map_or(0, |last| last + 1);
        self.bytes.truncate(end);
        self.shows.truncate(end);
        let start = self.shows.iter().position(shows).unwrap_or(0);
        self.bytes.drain(..start);
        self.shows.drain(..start);
        self
    }
}

impl Pattern {
    /// How the secret is written.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Which of the texts of its form it is.
    ///
    /// Base64: how many bytes of a group of three come before the secret. UTF-16 and UTF-32: 0 for a character a byte,
    /// 1 for the characters of a secret in UTF-8. JSON: 1 with spaces. Percent encoding: 1 where letters and digits
    /// stay as they are. Limbs: 0 for the highest limb first, 1 for the lowest first; those of 30 bits have no phases. Round keys: 1 where the
    /// bytes of each 32-bit word are reversed. Of what else is made from a secret, the parts count on in the order in which
    /// they are made.
    pub fn phase(&self) -> u8 {
        self.phase
    }

    /// The bytes to look for. They give the secret away.
    pub fn bytes(&self) -> &[u8] {
        &self.text.bytes
    }

    /// The part of the secret that a piece of the pattern shows: index of the byte in which it begins, and length in
    /// bytes, rounded down.
    ///
    /// Where the form puts bytes in another order, the piece need not show neighbours: then the index is that of the
    /// first one.
    pub(crate) fn shown(&self, piece: Range<usize>) -> Range<usize> {
        let shows = || self.text.shows[piece.clone()].iter().filter(|bits| bits.count > 0);
        if self.text.whole_bytes {
            let mut tally = Tally::new(self);
            piece.clone().for_each(|at| tally.add(at));
            let first = tally.of_byte.iter().position(|bits| *bits == 8).unwrap_or(0);
            return first..first + tally.whole;
        }
        let bits: usize = shows().map(|bits| bits.count).sum();
        let first = shows().map(|bits| bits.first).min().unwrap_or(0);
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
        let bytes = if self.text.whole_bytes {
            self.shown(piece).len() as f64
        } else {
            self.text.shows[piece].iter().map(|bits| bits.weight()).sum::<usize>() as f64 / 8.0
        };
        alphabet(&self.secret).powf(-bytes)
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
    /// Bits shown, by [`Bits::weight`].
    bits: usize,
    /// Bytes of the secret that are shown entirely.
    whole: usize,
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
        Self { pattern, bits: 0, whole: 0, of_byte, of_value: Zeroizing::new(vec![0; 256]), values: 0 }
    }

    fn tells(&self, min_length: usize) -> bool {
        let bits = if self.pattern.text.whole_bytes { 8 * self.whole } else { self.bits };
        bits >= 8 * min_length.max(self.pattern.text.least) && self.values >= MIN_VALUES
    }

    fn add(&mut self, at: usize) {
        let bits = self.pattern.text.shows[at];
        self.bits += bits.weight();
        for bit in bits.first..bits.first + bits.count {
            let value = self.pattern.secret[bit / 8];
            self.of_byte[bit / 8] += 1;
            if self.of_byte[bit / 8] == 8 {
                self.whole += 1;
                self.of_value[usize::from(value)] += 1;
                self.values += usize::from(value != 0 && self.of_value[usize::from(value)] == 1);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let bits = self.pattern.text.shows[at];
        self.bits -= bits.weight();
        for bit in bits.first..bits.first + bits.count {
            let value = self.pattern.secret[bit / 8];
            if self.of_byte[bit / 8] == 8 {
                self.whole -= 1;
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
    fn words_are_swapped_from_the_beginning_and_what_is_left_at_the_end_is_no_word() {
        assert_eq!(texts(Form::Swap16, b"abcdefghijk"), ["badcfehgji"]);
        assert_eq!(texts(Form::Swap32, b"abcdefghijk"), ["dcbahgfe"]);
        assert_eq!(texts(Form::Swap64, b"abcdefghijk"), ["hgfedcba"]);
        assert_eq!(texts(Form::Swap64, b"abc"), [""; 0]);
    }

    #[test]
    fn limbs_count_from_the_low_end_of_a_number_and_the_highest_is_filled_up() {
        assert_eq!(texts(Form::Limbs32, b"abcdefghij"), ["ba\0\0fedcjihg", "ghijcdef\0\0ab"]);
        assert_eq!(texts(Form::Limbs64, b"abcdefghij"), ["ba\0\0\0\0\0\0jihgfedc", "cdefghij\0\0\0\0\0\0ab"]);
        let forms = [Form::Reversed, Form::Swap32, Form::Swap64, Form::Limbs32, Form::Limbs64];
        assert_eq!(encode(b"abcdefghABCDEFGH", &forms).len(), 5); // of each kind of limbs, one reads like swapped words
    }

    #[test]
    fn an_integer_of_python_is_found_by_limbs_of_thirty_bits() {
        // int.from_bytes(bytes(range(1, 13)), "big") has the digits 0x090a0b0c, 0x141c2024, 0x10305060, 0x40.
        let secret: Vec<u8> = (1..13).collect();

        let pattern = encode(&secret, &[Form::Limbs30]).swap_remove(0);

        let digits = [0x090a_0b0cu32, 0x141c_2024, 0x0030_4050, 0];
        let number = secret.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        let expected: Vec<u8> =
            (0..4).flat_map(|limb| ((number >> (30 * limb)) as u32 & ((1 << 30) - 1)).to_le_bytes()).collect();
        assert_eq!(pattern.bytes(), &expected[..pattern.bytes().len()]);
        assert_eq!(expected[..4], digits[0].to_le_bytes());
        assert_eq!(pattern.shown(0..pattern.bytes().len()), 0..12);
    }

    #[test]
    fn characters_are_widened_a_byte_each_and_as_characters() {
        assert_eq!(texts(Form::Utf16Le, b"abc"), ["a\0b\0c"]);
        assert_eq!(texts(Form::Utf16Be, b"abc"), ["a\0b\0c"]);
        assert_eq!(texts(Form::Utf32Le, b"abc"), ["a\0\0\0b\0\0\0c"]);
        let euro = encode("1€2".as_bytes(), &[Form::Utf16Le, Form::Utf16Be]);
        let texts: Vec<_> = euro.iter().map(Pattern::bytes).collect();
        assert_eq!(texts, [&b"1\0\xe2\0\x82\0\xac\x002"[..], b"1\0\xac\x202", b"1\x20\xac\x002"]);
    }

    #[test]
    fn numbers_and_percent_signs_are_written_in_all_their_ways() {
        assert_eq!(texts(Form::JsonArray, b"\0\x0c\x22\xfa"), ["0,12,34,250", "0, 12, 34, 250"]);
        assert_eq!(texts(Form::PercentLower, b"a/\xfb"), ["61%2f%fb", "a%2f%fb"]);
        assert_eq!(texts(Form::PercentUpper, b"a/\xfb"), ["61%2F%FB", "a%2F%FB"]);
    }

    #[test]
    fn masks_are_those_of_hmac_and_all_ones() {
        let masked =
            [Form::Xor36, Form::Xor5c, Form::Inverted].map(|form| encode(b"\x01\x80", &[form])[0].bytes().to_vec());

        assert_eq!(masked, [[0x37, 0xb6], [0x5d, 0xdc], [0xfe, 0x7f]]);
    }

    #[test]
    fn only_whole_numbers_of_an_array_count() {
        let pattern = encode(b"\x0c\x22\xfa\x0d\x23\xfb\x0e", &[Form::JsonArray]).swap_remove(0); // 12,34,250,13,35,251,14

        assert_eq!((pattern.shown(1..22), pattern.shown(1..21)), (1..7, 1..6));
        assert_eq!(pattern.shortest_residues(6), [Range { start: 0, end: 19 }, Range { start: 3, end: 22 }]);
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
        // All pieces of the schedules of SHA-2 would take minutes.
        for pattern in encode(secret, &FORMS).iter().filter(|pattern| pattern.bytes().len() < 200) {
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
