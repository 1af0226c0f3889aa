//! What must hold of wiping, comparing, redacting and of a vault's frames, for any bytes: for fuzz targets and for the seeds that tests replay.

use crate::ct;
use crate::wipe::{Schedule, wipe_with};

/// Wipes a copy of `data` by each schedule, at an address that the data chooses.
///
/// # Panics
///
/// If a byte of the copy is not zero afterwards, or one beside it has changed.
pub fn wipe(data: &[u8]) {
    const FENCE: u8 = 0x9D;
    let before = 64 + data.first().map_or(0, |&byte| usize::from(byte) % 64);
    for schedule in [Schedule::Single, Schedule::SixPass] {
        let mut buffer = vec![FENCE; before + data.len() + 64];
        let place = before..before + data.len();
        buffer[place.clone()].copy_from_slice(data);

        wipe_with(&mut buffer[place.clone()], schedule).expect("the kernel has random bytes");

        assert!(buffer[place.clone()].iter().all(|&byte| byte == 0), "{schedule:?} left something");
        let fences = buffer[..place.start].iter().chain(&buffer[place.end..]);
        assert!(fences.into_iter().all(|&byte| byte == FENCE), "{schedule:?} went too far");
    }
}

/// Holds [`ct::eq`] against `==`: both parts of `data` at many splits, halves, and single flipped bits.
///
/// # Panics
///
/// If the two disagree.
pub fn compare(data: &[u8]) {
    let agree = |a: &[u8], b: &[u8]| assert_eq!(ct::eq(a, b), a == b, "lengths {} and {}", a.len(), b.len());
    for at in (0..=data.len()).step_by(data.len() / 64 + 1) {
        let (head, tail) = data.split_at(at);
        agree(head, tail);
        agree(tail, &data[..tail.len()]);
        agree(head, &data[data.len() - head.len()..]);
    }
    let mut copy = data.to_vec();
    agree(data, &copy);
    for at in (0..data.len()).step_by(data.len() / 64 + 1) {
        copy[at] ^= 1 << (at % 8);
        agree(data, &copy);
        copy[at] = data[at];
    }
}

/// Lets a redactor that knows a secret read a text with it, in one piece, in pieces and with flushes. The first byte of `data` says
/// how long the secret is, the second how it is written, the third how the text is cut; then come the secret and the text, with
/// the secret where `@` stands.
///
/// # Panics
///
/// If the secret comes out, if a cut makes a difference, or if a text without it is changed.
#[cfg(all(feature = "redact", target_arch = "x86_64"))]
pub fn redact(data: &[u8]) {
    use std::io::Write as _;

    use crate::redact::{REDACTED, Redactor};

    let Some(([len, form, cut], data)) = data.split_first_chunk() else { return };
    let (secret, text) = data.split_at(usize::from(*len).min(data.len()));
    let redactor = Redactor::new().expect("memory for secrets");
    let Ok(_registered) = redactor.register_bytes(secret) else { return };
    // Where the two overlap without a difference, wherever one begins in the other, the mark completes what stands beside it.
    let mark = REDACTED.as_bytes();
    let completes = |begin: usize| {
        let after = &mark[mark.len().saturating_sub(begin)..]; // what of it lies in the secret, where it begins before it
        let at = begin.saturating_sub(mark.len());
        let common = after.len().min(secret.len() - at);
        secret[at..at + common] == after[..common]
    };
    if (1..secret.len() + mark.len()).any(completes) {
        return;
    }
    let written = written(secret, *form);
    let pieces: Vec<_> = text.split(|byte| *byte == b'@').collect();
    let other = pieces.split_last().map_or(&[][..], |(_, before)| before);
    if form % FORMS == 4 && other.iter().any(|piece| piece.ends_with(b"\\")) {
        return; // a backslash of other text makes an escape of the secret's first byte: then that is what the text says
    }
    let text = pieces.join(&written[..]);
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>, flush: bool| {
        let mut writer = redactor.writer(Vec::new()).expect("memory for secrets");
        for piece in pieces {
            writer.write_all(piece).expect("a vector");
            if flush {
                writer.flush().expect("a vector");
            }
        }
        writer.into_inner().expect("a vector")
    };

    let whole = read(&mut std::iter::once(&text[..]), false);

    let cut = usize::from(*cut).max(1);
    assert_eq!(read(&mut text.chunks(cut), false), whole, "a cut makes a difference");
    for out in [&whole, &read(&mut text.chunks(cut), true)] {
        assert!(!out.windows(written.len()).any(|window| window == written), "the secret has come out");
        assert!(!out.windows(secret.len()).any(|window| window == secret), "the secret has come out as it is");
    }
    let silent = Redactor::new().expect("memory for secrets");
    let mut writer = silent.writer(Vec::new()).expect("memory for secrets");
    text.chunks(cut).for_each(|piece| writer.write_all(piece).expect("a vector"));
    assert_eq!(writer.into_inner().expect("a vector"), text, "a redactor that knows nothing changes something");
    // A stretch of nearly equal bytes is no window of a fingerprint, and where it is at an end it comes through.
    let is_varied = |window: &[u8]| window.iter().collect::<std::collections::BTreeSet<_>>().len() > 2;
    if text == secret && secret.windows(8).all(is_varied) {
        assert_eq!(whole, REDACTED.as_bytes(), "the secret alone is something else");
    }
}

/// Ways in which [`written`] writes.
#[cfg(all(feature = "redact", target_arch = "x86_64"))]
const FORMS: u8 = 6;

#[cfg(all(feature = "redact", target_arch = "x86_64"))]
fn written(secret: &[u8], form: u8) -> Vec<u8> {
    let each = |write: &dyn Fn(u8) -> String| secret.iter().map(|byte| write(*byte)).collect::<String>().into_bytes();
    match form % FORMS {
        0 => secret.to_vec(),
        1 => each(&|byte| format!("{byte:02x}")),
        2 => each(&|byte| format!("%{byte:02X}")),
        3 => format!("{secret:?}").into_bytes(),
        4 => secret.escape_ascii().to_string().into_bytes(),
        _ => {
            let mut text = vec![0; ct::base64::STANDARD_UNPADDED.encoded_len(secret.len())];
            ct::base64::STANDARD_UNPADDED.encode(secret, &mut text).expect("the length that it asked for");
            text
        }
    }
}

/// Holds a packet of a vault's socket to what it says of itself; see `vault::frame`.
///
/// # Panics
///
/// If a frame, or its body, is not the same when it is written again.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub fn frame(data: &[u8]) {
    crate::vault::frame::hold(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_wiped(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            wipe(&data);
        }

        #[cfg(all(feature = "redact", target_arch = "x86_64"))]
        #[test]
        fn any_secret_in_any_text_is_redacted(
            secret in proptest::collection::vec(any::<u8>(), 8..40),
            text in "[a-f0-9 ,@%+\\\\\\[]{0,60}",
            (form, cut) in any::<(u8, u8)>(),
        ) {
            redact(&[&[secret.len() as u8, form, cut % 16], &secret[..], text.as_bytes()].concat());
        }

        #[test]
        fn any_bytes_compare_as_they_should(data in proptest::collection::vec(0..2u8, 0..600)) {
            compare(&data);
        }
    }
}
