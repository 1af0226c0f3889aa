//! How each form writes a secret: one function a family of forms.
//!
//! What a form puts before or after a whole secret is left out, as another secret beside it would change it.

use zeroize::Zeroizing;

use super::{Bits, Form, Text};

/// The texts of one form, one a phase. A phase that the secret does not have is empty.
pub(super) fn write(form: Form, secret: &[u8]) -> Vec<Text> {
    match form {
        Form::Raw => vec![raw(secret)],
        Form::Reversed => vec![rearranged(secret, |at| secret.len() - 1 - at)],
        Form::HexLower => vec![digits(secret, HEX_LOWER, 0)],
        Form::HexUpper => vec![digits(secret, HEX_UPPER, 0)],
        Form::Base64 => BASE64_PHASES.map(|first| digits(secret, &base64(b"+/"), first)).into(),
        Form::Base64Url => BASE64_PHASES.map(|first| digits(secret, &base64(b"-_"), first)).into(),
        Form::Swap16 => vec![swapped(secret, 2)],
        Form::Swap32 => vec![swapped(secret, 4)],
        Form::Swap64 => vec![swapped(secret, 8)],
        Form::Utf16Le => units(secret, |character| {
            character.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<_>>().into()
        }),
        Form::Utf16Be => units(secret, |character| {
            character.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<_>>().into()
        }),
        Form::Utf32Le => units(secret, |character| u32::from(character).to_le_bytes().to_vec().into()),
        Form::JsonArray => vec![numbers(secret, b","), numbers(secret, b", ")],
        Form::PercentLower => vec![percent(secret, HEX_LOWER, |_| false), percent(secret, HEX_LOWER, is_unreserved)],
        Form::PercentUpper => vec![percent(secret, HEX_UPPER, |_| false), percent(secret, HEX_UPPER, is_unreserved)],
        Form::Xor36 => vec![masked(secret, 0x36)],
        Form::Xor5c => vec![masked(secret, 0x5c)],
        Form::Inverted => vec![masked(secret, 0xff)],
        Form::Limbs30 => vec![limbs30(secret)],
        Form::Limbs32 => limbs(secret, 4),
        Form::Limbs64 => limbs(secret, 8),
        Form::AesEncKey | Form::AesDecKey => vec![rearranged(secret, |at| at), swapped(secret, 4)],
        Form::Sha256Schedule | Form::Sha512Schedule => vec![Text { least: SCHEDULE, ..rearranged(secret, |at| at) }],
        Form::HmacBlock => {
            let block =
                |mask, word| Text { bytes: masked_bytes(&swapped(secret, word), mask), ..swapped(secret, word) };
            vec![block(0x36, 4), block(0x5c, 4), block(0x36, 8), block(0x5c, 8)]
        }
        Form::HmacSha256State | Form::HmacSha512State | Form::Ed25519Key => vec![rearranged(secret, |at| at)],
        Form::ChachaState => chacha(secret),
        Form::RsaNumber => vec![rearranged(secret, |at| at), rearranged(secret, |at| secret.len() - 1 - at)],
        // Found by what they look like, of whatever secret.
        Form::Aes128Schedule
        | Form::Aes192Schedule
        | Form::Aes256Schedule
        | Form::Pkcs1Key
        | Form::Pkcs8Key
        | Form::Sec1Key
        | Form::OpenSshKey
        | Form::PemKey => Vec::new(),
    }
}

const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// The first bit of the secret that begins a character of base64, when 0, 1 or 2 bytes of the group come before it.
const BASE64_PHASES: [usize; 3] = [0, 4, 2];

/// Bytes of the shortest piece of a message schedule that counts. Of fewer words, each a sum of words of the message, none
/// of those follows; with fragments this long the table stays small enough to be searched at speed.
const SCHEDULE: usize = 16;

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

/// The secret as it is. The first and the last line of a PEM stand in every program that reads such files, so they are no
/// part of it.
fn raw(secret: &[u8]) -> Text {
    let Some(inside) = super::rsa::armour(secret) else { return rearranged(secret, |at| at) };
    let mut text = Text::with_capacity(secret.len());
    for (at, byte) in secret.iter().enumerate() {
        text.push(*byte, if inside.contains(&at) { Bits::byte(at) } else { Bits::NONE });
    }
    text.trimmed()
}

/// ChaCha20's state as far as the key decides it: the four words of constants and the key behind them, and each word of the
/// key four and eight times in a row. Nothing, for what is no key.
///
/// # Source
///
/// RFC 8439, section 2.3. Vector code that works on four or eight blocks at a time spreads the words.
fn chacha(secret: &[u8]) -> Vec<Text> {
    if secret.len() != 32 {
        return Vec::new();
    }
    let mut state = Text::with_capacity(48);
    b"expand 32-byte k".iter().for_each(|byte| state.push(*byte, Bits::NONE));
    secret.iter().enumerate().for_each(|(at, byte)| state.push(*byte, Bits::byte(at)));
    let spread = |lanes: usize| {
        let mut text = Text::with_capacity(32 * lanes);
        for place in 0..32 * lanes {
            let at = place / (4 * lanes) * 4 + place % 4;
            let first = place % (4 * lanes) < 4; // the others show the same again
            text.push(secret[at], if first { Bits::byte(at) } else { Bits::NONE });
        }
        text
    };
    vec![state, spread(4).trimmed(), spread(8).trimmed()]
}

/// The bytes of a text, each exclusive-or the same one.
fn masked_bytes(text: &Text, mask: u8) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.bytes.iter().map(|byte| byte ^ mask).collect())
}

/// The secret's bytes in another order: place `at` holds byte `from(at)`.
fn rearranged(secret: &[u8], from: impl Fn(usize) -> usize) -> Text {
    let mut text = Text::with_capacity(secret.len());
    for at in (0..secret.len()).map(from) {
        text.push(secret[at], Bits::byte(at));
    }
    text
}

/// Each word of so many bytes reversed. The words count from the secret's beginning; what is left at its end makes no
/// word, so where it goes depends on more than the secret.
fn swapped(secret: &[u8], word: usize) -> Text {
    let words = &secret[..secret.len() / word * word];
    rearranged(words, |at| at / word * word + word - 1 - at % word)
}

/// Each byte exclusive-or the same one.
fn masked(secret: &[u8], mask: u8) -> Text {
    let mut text = Text::with_capacity(secret.len());
    for (at, byte) in secret.iter().enumerate() {
        text.push(byte ^ mask, Bits::byte(at));
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

/// A character a byte, and, if the secret is UTF-8 of more than ASCII, its characters.
///
/// A character's bits are spread over the bytes of its encoding other than zero.
fn units(secret: &[u8], encode: impl Fn(char) -> Zeroizing<Vec<u8>>) -> Vec<Text> {
    let longest = 4 * secret.len();
    // Where the one byte other than zero stands in a small character.
    let small = encode('\u{1}');
    let mut bytes = Text::with_capacity(longest);
    for (at, byte) in secret.iter().enumerate() {
        for place in small.iter() {
            if *place == 0 { bytes.push(0, Bits::NONE) } else { bytes.push(*byte, Bits::byte(at)) }
        }
    }
    let mut characters = Text::with_capacity(longest);
    let text = str::from_utf8(secret).ok().filter(|text| !text.is_ascii()).unwrap_or("");
    for (at, character) in text.char_indices() {
        let encoded = encode(character);
        let filled = encoded.iter().filter(|byte| **byte != 0).count();
        let bits = 8 * character.len_utf8();
        let mut before = 0;
        for byte in encoded.iter().copied() {
            if byte == 0 {
                characters.push(0, Bits::NONE);
                continue;
            }
            let share = bits * before / filled..bits * (before + 1) / filled;
            characters.push(byte, Bits { first: 8 * at + share.start, count: share.len() });
            before += 1;
        }
    }
    vec![bytes.trimmed(), characters.trimmed()]
}

/// A decimal number for each byte, with that between them. A number counts if all of it is there.
fn numbers(secret: &[u8], between: &[u8]) -> Text {
    let mut text = Text { whole_bytes: true, ..Text::with_capacity(secret.len() * (3 + between.len())) };
    for (at, byte) in secret.iter().enumerate() {
        if at > 0 {
            between.iter().for_each(|sign| text.push(*sign, Bits::NONE));
        }
        let digits = 1 + usize::from(*byte >= 10) + usize::from(*byte >= 100);
        for digit in 0..digits {
            let value = byte / [1, 10, 100][digits - 1 - digit] % 10;
            let share = 8 * digit / digits..8 * (digit + 1) / digits;
            text.push(b'0' + value, Bits { first: 8 * at + share.start, count: share.len() });
        }
    }
    text
}

/// Percent encoding, but for bytes that may stay.
fn percent(secret: &[u8], alphabet: &[u8; 16], may_stay: impl Fn(u8) -> bool) -> Text {
    let mut text = Text::with_capacity(3 * secret.len());
    for (at, byte) in secret.iter().enumerate() {
        if may_stay(*byte) {
            text.push(*byte, Bits::byte(at));
            continue;
        }
        text.push(b'%', Bits::NONE);
        for (half, digit) in [byte >> 4, byte & 15].into_iter().enumerate() {
            text.push(alphabet[usize::from(digit)], Bits { first: 8 * at + 4 * half, count: 4 });
        }
    }
    text.trimmed()
}

/// Whether a byte is one that a URI holds as it is.
///
/// # Source
///
/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The secret as a number whose first byte is the highest, in limbs of so many bytes: the highest limb first, each
/// with its lowest byte first; and the lowest limb first, each with its highest byte first.
///
/// The lowest limb first with its lowest byte first is the secret reversed. Limbs count from the number's low end, so
/// the highest one may be filled up with zeros; if it is full, the first of the two is the secret with swapped words.
fn limbs(secret: &[u8], limb: usize) -> Vec<Text> {
    let count = secret.len().div_ceil(limb);
    let zeros = count * limb - secret.len();
    let write = |from: &dyn Fn(usize) -> usize| {
        let mut text = Text::with_capacity(count * limb);
        for place in (0..count * limb).map(from) {
            match place.checked_sub(zeros) {
                Some(at) => text.push(secret[at], Bits::byte(at)),
                None => text.push(0, Bits::NONE),
            }
        }
        text.trimmed()
    };
    vec![write(&|at| at / limb * limb + limb - 1 - at % limb), write(&|at| (count - 1 - at / limb) * limb + at % limb)]
}

/// The secret as a number whose first byte is the highest, 30 bits to each little-endian word of 32, the lowest first.
///
/// # Source
///
/// CPython's `Include/cpython/longintrepr.h`: digits of `PYLONG_BITS_IN_DIGIT`, which is 30 on 64-bit machines.
fn limbs30(secret: &[u8]) -> Text {
    const LIMB: usize = 30;
    let bits = 8 * secret.len();
    let bit = |weight: usize| secret[(bits - 1 - weight) / 8] >> (weight % 8) & 1;
    let mut text = Text::with_capacity(4 * bits.div_ceil(LIMB));
    for low in (0..bits).step_by(LIMB) {
        let end = bits.min(low + LIMB);
        for byte in 0..4 {
            let share = (low + 8 * byte).min(end)..(low + 8 * byte + 8).min(end);
            let value = share.clone().rev().fold(0, |value, weight| value << 1 | bit(weight));
            text.push(value, Bits { first: bits - share.end, count: share.len() });
        }
    }
    text.trimmed()
}
