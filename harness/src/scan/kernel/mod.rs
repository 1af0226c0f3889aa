//! The loops that every byte passes through.
//!
//! A kernel asks the filter about the window at every `step`-th offset and hands out the offsets for which the answer
//! is *maybe*. All kernels hand out the same offsets; they differ in speed alone.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use super::filter::Filter;
use super::index::{WINDOW, word};

/// Which loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// One window after the other, on any machine.
    Portable,
    /// Eight windows at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Token),
}

impl Kernel {
    /// The fastest loop that this machine can run.
    pub(super) fn best() -> Self {
        Self::all().last().unwrap_or(Self::Portable)
    }

    /// All loops that this machine can run, the slowest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = avx2::Token::new().map(Self::Avx2);
        #[cfg(not(target_arch = "x86_64"))]
        let vector = None;
        [Self::Portable].into_iter().chain(vector)
    }

    /// What a report calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
        }
    }

    /// Appends the offsets among `offsets.start`, `offsets.start + step`, … below `offsets.end` at which a window lies
    /// in `view` that the filter does not rule out, in ascending order.
    pub(super) fn candidates(
        self,
        filter: &Filter,
        view: &[u8],
        offsets: Range<usize>,
        step: usize,
        out: &mut Vec<usize>,
    ) {
        let last = (view.len() + 1).saturating_sub(WINDOW);
        let offsets = offsets.start..offsets.end.min(last);
        match self {
            Self::Portable => portable(filter, view, offsets, step, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => {
                let rest = token.candidates(filter, view, offsets.clone(), step, out);
                portable(filter, view, rest..offsets.end, step, out);
            }
        }
    }
}

fn portable(filter: &Filter, view: &[u8], offsets: Range<usize>, step: usize, out: &mut Vec<usize>) {
    out.extend(offsets.step_by(step).filter(|at| filter.maybe(word(&view[*at..]))));
}
