//! A line: how it is written, chained and taken apart. The format is told in `mod`.

use std::fmt::{self, Write as _};

use super::actor::Actor;
use super::entry::Entry;
use super::sign::{PublicKey, SIGNATURE, SigningKey};
use super::verify::Fault;
use super::{Error, Head};

/// What each line begins with: the format, and its version.
const VERSION: &str = "SMJ1";
/// Bytes of the longest line, its end among them. Each name has three times its bytes at most.
pub(super) const LONGEST_LINE: usize = 4096;
/// What the hash of a line is for.
const CHAIN: &str = "secmem journal v1 chain";
/// What a signature is for.
const SIGNED: &[u8] = b"secmem journal v1 signature ";
/// Bytes of a chain's link.
pub(super) const LINK: usize = 32;

pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// As many bytes as are wanted, from lower hex.
pub(super) fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// The link after `before` for a line whose part before the link is `said`.
fn link(before: &[u8; LINK], said: &[u8]) -> [u8; LINK] {
    let mut hasher = blake3::Hasher::new_derive_key(CHAIN);
    if !cfg!(secmem_ablate = "journal-chain") {
        hasher.update(before);
    }
    hasher.update(said);
    *hasher.finalize().as_bytes()
}

fn signed(link: &[u8; LINK]) -> [u8; SIGNED.len() + LINK] {
    let mut message = [0; SIGNED.len() + LINK];
    message[..SIGNED.len()].copy_from_slice(SIGNED);
    message[SIGNED.len()..].copy_from_slice(link);
    message
}

/// Column or `-`.
struct Maybe<'a, T>(Option<&'a T>);

impl<T: fmt::Display> fmt::Display for Maybe<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(it) => it.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// The line of an entry behind `before`, and where the chain is with it.
pub(super) fn write(
    before: &Head,
    millis: u64,
    actor: Option<&Actor>,
    entry: &Entry,
    key: Option<&SigningKey>,
) -> Result<(String, Head), Error> {
    let number = before.entries + 1;
    let mut line = String::with_capacity(512);
    let who = actor.map(|it| &it.who);
    let purpose = actor.and_then(|it| it.purpose.as_ref());
    let Entry { action, subject, outcome, amount } = entry;
    // Writing to a string does not fail.
    let _ = write!(line, "{VERSION} {number} {millis} {} {} {action}", Maybe(who), Maybe(purpose));
    let _ = write!(line, " {} {outcome} {}", Maybe(subject.as_ref()), Maybe(amount.as_ref()));
    let link = link(&before.link, line.as_bytes());
    let _ = write!(line, " {}", Hex(&link));
    if let Some(key) = key {
        let _ = write!(line, " {}", Hex(&key.sign(&signed(&link))?));
    }
    line.push('\n');
    Ok((line, Head { entries: number, link }))
}

/// Whether `bytes` can be how the line after `before` begins, as far as they go: what is cut off must be ours.
pub(super) fn can_begin(before: &Head, bytes: &[u8]) -> bool {
    let begin = format!("{VERSION} {} ", before.entries + 1);
    let common = begin.len().min(bytes.len());
    bytes[..common] == begin.as_bytes()[..common]
}

/// A line that is what its own columns say.
pub(super) struct Line<'a> {
    pub(super) head: Head,
    pub(super) action: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) amount: &'a [u8],
    signature: Option<[u8; SIGNATURE]>,
}

/// Takes a line apart, without its end, and holds it against what comes before it.
pub(super) fn read<'a>(before: &Head, line: &'a [u8]) -> Result<Line<'a>, Fault> {
    let columns: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    if columns[0] != VERSION.as_bytes() {
        return Err(Fault::Version);
    }
    let (signature, columns) = match columns.len() {
        10 => (None, &columns[..]),
        11 => (Some(unhex(columns[10]).ok_or(Fault::Form)?), &columns[..10]),
        _ => return Err(Fault::Form),
    };
    if columns.iter().any(|column| column.is_empty() || !column.iter().all(u8::is_ascii_graphic)) {
        return Err(Fault::Form);
    }
    let entries = number(columns[1]).ok_or(Fault::Form)?;
    number(columns[2]).ok_or(Fault::Form)?;
    if entries != before.entries + 1 {
        return Err(Fault::Number { found: entries, expected: before.entries + 1 });
    }
    let said: usize = columns[..9].iter().map(|column| column.len() + 1).sum::<usize>() - 1;
    let stated = unhex(columns[9]).ok_or(Fault::Form)?;
    let link = link(&before.link, &line[..said]);
    if stated != link {
        return Err(Fault::Chain);
    }
    let head = Head { entries, link };
    if (entries == 1) != (columns[5] == b"begin") {
        return Err(Fault::Begin);
    }
    Ok(Line { head, action: columns[5], subject: columns[6], amount: columns[8], signature })
}

impl Line<'_> {
    /// Whether it is signed by this key.
    pub(super) fn is_signed_by(&self, key: &super::sign::Verifier) -> bool {
        self.signature.is_some_and(|it| key.is_of(&signed(&self.head.link), &it))
    }

    pub(super) fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// Of the first line: whose signatures all of them have, if they have any.
    pub(super) fn signer(&self) -> Result<Option<PublicKey>, Fault> {
        let subject = std::str::from_utf8(self.subject).map_err(|_| Fault::Begin)?;
        match subject.split_once('>') {
            None => Ok(None),
            Some((_, key)) => key.parse().map(Some).map_err(|_| Fault::Begin),
        }
    }

    /// How many entries it says were not written.
    pub(super) fn missed(&self) -> u64 {
        let of_miss = self.amount.strip_prefix(b"entries=").filter(|_| self.action == b"miss");
        of_miss.and_then(number).unwrap_or(0)
    }

    pub(super) fn is_mended(&self) -> bool {
        self.action == b"mend"
    }
}

/// A number as it is written: nothing before it that could be left out.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Amount, Name, Outcome, Subject};
    use super::*;

    /// The longest that can be said fits.
    #[test]
    fn no_line_is_longer_than_the_longest() {
        let name = || "\n".repeat(super::super::LONGEST_NAME).parse::<Name>().unwrap();
        let entry = Entry {
            action: Action::Other(name()),
            subject: Some(Subject::Keys(name(), name())),
            outcome: Outcome::Failed(name()),
            amount: Some(Amount::Buffers(u64::MAX)),
        };
        let before = Head { entries: u64::MAX - 1, link: [0xFF; LINK] };
        let actor = Actor::new(name()).purpose(name());
        let key = SigningKey::draw().unwrap();

        let (line, head) = write(&before, u64::MAX, Some(&actor), &entry, Some(&key)).unwrap();

        assert!(line.len() <= LONGEST_LINE, "{}", line.len());
        let read = read(&before, line.trim_end().as_bytes()).unwrap();
        assert!(read.head == head && read.is_signed_by(&key.public().verifier().unwrap()));
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        assert_eq!((number(b"0"), number(b"10"), number(b"18446744073709551615")), (Some(0), Some(10), Some(u64::MAX)));
        for wrong in [&b""[..], b"01", b"+1", b"-1", b"1 ", b"18446744073709551616", b"x"] {
            assert_eq!(number(wrong), None);
        }
    }
}
