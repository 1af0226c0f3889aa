//! The token that a POST has to bring: kept in an arena, and compared in a time that tells neither what it is nor how long.

use axum::http::{HeaderMap, header};

use super::Error;
use crate::secret::Secret;
use crate::{Control, Policy, ct, wipe};

/// Characters that a token has at least.
pub const SHORTEST_TOKEN: usize = 16;
/// Characters that it has at most.
pub const LONGEST_TOKEN: usize = 128;

/// A token, zero behind its last character. No character is zero, so that equal slots are equal tokens.
#[derive(Debug)]
pub(super) struct Bearer(Secret);

impl Bearer {
    pub(super) fn new(token: &Secret) -> Result<Self, Error> {
        let is_one = |text: &[u8]| {
            (SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
        };
        if !token.with(is_one)? {
            return Err(Error::Token);
        }
        let copy = |slot: &mut [u8]| token.with(|text| wipe::copy(text, &mut slot[..text.len()]));
        // In memory like that which it came in.
        let (had, any) = (token.protection(), Policy::default());
        let policy = Control::ALL.iter().fold(any, |policy, it| policy.with(*it, had.control(*it).asked));
        Ok(Self(Secret::options().policy(policy).filled(LONGEST_TOKEN, copy)?))
    }

    /// Whether a request has brought it.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return false };
        let brought = line.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        brought.is_some_and(|(_, token)| self.is(token))
    }

    fn is(&self, brought: &[u8]) -> bool {
        let mut slot = [0; LONGEST_TOKEN];
        let Some(start) = slot.get_mut(..brought.len()) else { return false };
        wipe::copy(brought, start);
        let same = self.0.with(|own| ct::eq(own, &slot));
        wipe::wipe(&mut slot);
        same.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &[u8]) -> Secret {
        Secret::try_from(text.to_vec()).unwrap()
    }

    fn with(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_token_is_known_and_no_other_text_is() {
        let bearer = Bearer::new(&secret(b"a-token-of-24-characters")).unwrap();
        let long = format!("Bearer {}", "x".repeat(200));

        for line in ["Bearer a-token-of-24-characters", "bearer a-token-of-24-characters"] {
            assert!(bearer.is_in(&with(&[line])), "{line}");
        }
        for lines in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a-token-of-24-character"],
            &["Bearer a-token-of-24-characters "],
            &["Bearer a-token-of-24-charactersx"],
            &["Bearer b-token-of-24-characters"],
            &["Basic a-token-of-24-characters"],
            &["a-token-of-24-characters"],
            &["Bearer a-token-of-24-characters", "Bearer a-token-of-24-characters"],
            &[&long],
        ] {
            assert!(!bearer.is_in(&with(lines)), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        for text in [&b"too-short"[..], b"with a space in it", &[b'x'; LONGEST_TOKEN + 1], b"0123456789abcde\0"] {
            let refused = Bearer::new(&secret(text)).unwrap_err();

            assert!(matches!(refused, Error::Token), "{refused}");
        }
    }
}
