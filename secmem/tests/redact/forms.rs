//! The forms in which a secret may turn up, each written by the plainest code.

use std::fmt::Write as _;

/// A name, and the text.
pub(crate) type Form = (String, Vec<u8>);

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    bits(bytes, 6, alphabet)
}

fn bits(bytes: &[u8], width: usize, alphabet: &[u8]) -> Vec<u8> {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    (0..(8 * bytes.len()).div_ceil(width))
        .map(|at| alphabet[(0..width).fold(0, |value, bit_of| value << 1 | bit(at * width + bit_of))])
        .collect()
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn each(bytes: &[u8], separator: &str, mut write: impl FnMut(&mut String, u8)) -> Vec<u8> {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 {
            text.push_str(separator);
        }
        write(&mut text, *byte);
    }
    text.into_bytes()
}

/// Every form of `secret` that is said to be found.
pub(crate) fn all(secret: &[u8]) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut add = |name: &str, text: Vec<u8>| forms.push((name.to_owned(), text));
    add("raw", secret.to_vec());
    add("reversed", secret.iter().rev().copied().collect());
    for (name, separator) in [("", ""), (":", ":"), (" ", " "), ("-", "-"), ("lines", "\n    ")] {
        add(&format!("hex {name}"), each(secret, separator, |text, byte| write!(text, "{byte:02x}").unwrap()));
        add(&format!("HEX {name}"), each(secret, separator, |text, byte| write!(text, "{byte:02X}").unwrap()));
    }
    add("0x", each(secret, ", ", |text, byte| write!(text, "0x{byte:02x}").unwrap()));
    add("\\x", each(secret, "", |text, byte| write!(text, "\\x{byte:02x}").unwrap()));
    add("Debug in hexadecimal", format!("{secret:x?}").into_bytes());
    for phase in 0..3 {
        let framed: Vec<u8> = std::iter::repeat_n(b'!', phase).chain(secret.iter().copied()).chain(*b"?..").collect();
        add(&format!("base64 from {phase} on"), base64(&framed, STANDARD));
        add(&format!("base64 of addresses from {phase} on"), base64(&framed, URL));
        let lines: Vec<_> = base64(&framed, STANDARD).chunks(16).map(<[u8]>::to_vec).collect();
        add(&format!("base64 in lines from {phase} on"), lines.join(&b"\r\n"[..]));
        add(&format!("base64 in lines in JSON from {phase} on"), lines.join(&b"\\n"[..]));
    }
    for phase in 0..5 {
        let framed: Vec<u8> = std::iter::repeat_n(b'!', phase).chain(secret.iter().copied()).chain(*b"?..").collect();
        add(&format!("base32 from {phase} on"), bits(&framed, 5, BASE32));
        add(&format!("base32 from {phase} on, small"), bits(&framed, 5, BASE32).to_ascii_lowercase());
    }
    add("base64", base64(secret, STANDARD));
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    for (name, all) in [("percent", false), ("percent, all", true)] {
        let write = |text: &mut String, byte: u8, upper: bool| match (!all && unreserved(byte), upper) {
            (true, _) => text.push(char::from(byte)),
            (false, true) => write!(text, "%{byte:02X}").unwrap(),
            (false, false) => write!(text, "%{byte:02x}").unwrap(),
        };
        add(name, each(secret, "", |text, byte| write(text, byte, true)));
        add(&format!("{name}, small"), each(secret, "", |text, byte| write(text, byte, false)));
        let form = each(secret, "", |text, byte| if byte == b' ' { text.push('+') } else { write(text, byte, true) });
        add(&format!("form, {name}"), form);
    }
    let of_an_address = |byte: u8| unreserved(byte) || b"!*'();:@&=+$,/?#".contains(&byte);
    let address = |text: &mut String, byte: u8| match of_an_address(byte) {
        true => text.push(char::from(byte)),
        false => write!(text, "%{byte:02X}").unwrap(),
    };
    add("percent, of a whole address", each(secret, "", address));
    add("escape_ascii", secret.escape_ascii().to_string().into_bytes());
    add("array", each(secret, ",", |text, byte| write!(text, "{byte}").unwrap()));
    add("Debug", format!("{secret:?}").into_bytes());
    add("pretty Debug", format!("{secret:#?}").into_bytes());
    let deep = format!("{:#?}", Some(Some(Some(secret))));
    let numbers = deep.split(['[', ']']).nth(1).unwrap();
    add("pretty Debug, deep", numbers.trim().trim_end_matches(',').as_bytes().to_vec());
    add("signed array", each(secret, ", ", |text, byte| write!(text, "{}", byte as i8).unwrap()));
    let mut at = 0;
    let object = each(secret, ",", |text, byte| {
        write!(text, "\"{at}\":{byte}").unwrap();
        at += 1;
    });
    add("an object of indices", [b"{", &object[..], b"}"].concat());
    let spread = |order: fn(u16) -> [u8; 2]| secret.iter().flat_map(|byte| order(u16::from(*byte))).collect();
    if secret.is_ascii() {
        add("16 bits a byte", spread(u16::to_le_bytes));
        add("16 bits a byte, high first", spread(u16::to_be_bytes));
        add("32 bits a byte", secret.iter().flat_map(|byte| u32::from(*byte).to_le_bytes()).collect());
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = serde_json::to_string(text).unwrap();
        add("JSON", json.clone().into_bytes());
        add("JSON in JSON", serde_json::to_string(&json).unwrap().into_bytes());
        add("escape_debug", format!("{text:?}").into_bytes());
        add("escape_unicode", text.escape_unicode().to_string().into_bytes());
        let units = |text: &mut String, unit: u16| match u8::try_from(unit)
            .ok()
            .filter(|byte| (b' '..127).contains(byte) && !b"\"\\".contains(byte))
        {
            Some(byte) => text.push(char::from(byte)),
            None => write!(text, "\\u{unit:04x}").unwrap(),
        };
        let mut ascii = String::new();
        text.encode_utf16().for_each(|unit| units(&mut ascii, unit));
        add("JSON of ASCII alone", ascii.into_bytes());
        let html = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;");
        add("HTML", html.into_bytes());
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        if wide.iter().filter(|byte| **byte != 0).count() >= 8 {
            add("UTF-16", wide);
            add("UTF-16, high first", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        }
    }
    forms
}
