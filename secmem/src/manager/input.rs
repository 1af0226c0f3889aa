//! Data on its way into a buffer: it belongs to the manager from the call on, and is wiped where it stood.

use std::fmt;

use crate::wipe;

/// What a caller hands over. Bytes that are lent are overwritten; a vector or a string is, to the end of its capacity. That
/// happens whatever comes of the call.
pub struct Input<'a>(Source<'a>);

enum Source<'a> {
    Lent(&'a mut [u8]),
    Given(Vec<u8>),
}

impl Input<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Source::Lent(bytes) => bytes,
            Source::Given(bytes) => bytes,
        }
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if cfg!(secmem_ablate = "manager-input") {
            return;
        }
        match &mut self.0 {
            Source::Lent(bytes) => wipe::wipe(bytes),
            Source::Given(bytes) => wipe::wipe_vec(bytes),
        }
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

impl<'a> From<&'a mut [u8]> for Input<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self(Source::Lent(bytes))
    }
}

impl<'a, const N: usize> From<&'a mut [u8; N]> for Input<'a> {
    fn from(bytes: &'a mut [u8; N]) -> Self {
        Self(Source::Lent(bytes))
    }
}

impl<'a> From<&'a mut Vec<u8>> for Input<'a> {
    /// The vector's capacity is wiped with it, and it is empty afterwards.
    fn from(bytes: &'a mut Vec<u8>) -> Self {
        Self(Source::Given(std::mem::take(bytes)))
    }
}

impl From<Vec<u8>> for Input<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Given(bytes))
    }
}

impl From<String> for Input<'_> {
    fn from(text: String) -> Self {
        Self(Source::Given(text.into_bytes()))
    }
}
