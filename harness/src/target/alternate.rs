//! The stacks that threads name for their signals.
//!
//! Nothing of `/proc` tells them; the calls of sigaltstack(2) are seen as they are made. The kernel reads the new stack at
//! the call's entry, and may write the old one to the same place before its exit: so it is read at the entry, and believed
//! once the call has succeeded.
//!
//! What a thread named before we came, as in a process that ran already, is not known, nor what a call of the 32-bit kind
//! names.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

/// The alternate stack of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Alternate {
    /// First address, and the one behind the last.
    range: Option<(u64, u64)>,
    /// What the call names in which the thread is: `Some(None)` for none.
    asked: Option<Option<(u64, u64)>>,
}

impl Alternate {
    /// The one that signals are delivered on now.
    pub(super) const fn range(&self) -> Option<(u64, u64)> {
        self.range
    }

    /// The thread is at the entry of sigaltstack(2), with `new` as its first argument.
    pub(super) fn ask(&mut self, mem: &File, new: u64) {
        let mut bytes = [0; 24];
        // A null pointer only asks for the old one; what cannot be read makes the call fail.
        self.asked = (new != 0 && mem.read_exact_at(&mut bytes, new).is_ok()).then(|| named(&bytes));
    }

    /// The thread is at the exit of a system call.
    pub(super) fn settle(&mut self, thread: Pid) {
        if let Some(asked) = self.asked.take()
            && nix::sys::ptrace::getregs(thread).is_ok_and(|registers| registers.rax == 0)
        {
            self.range = asked;
        }
    }

    /// What the first thread of a new process begins with.
    pub(super) const fn inherited(&self) -> Self {
        Self { range: self.range, asked: None }
    }
}

/// Reads a `stack_t`.
///
/// # Source
///
/// sigaltstack(2); asm/signal.h: the pointer, the flags and four bytes of padding, the size. `SS_DISABLE` is 2.
fn named(bytes: &[u8; 24]) -> Option<(u64, u64)> {
    let [start, flags, size] = [0, 8, 16].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    });
    let disabled = flags as u32 & libc::SS_DISABLE.cast_unsigned() != 0;
    Some((start, start.checked_add(size)?)).filter(|_| !disabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(start: u64, flags: u64, size: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (at, word) in [start, flags, size].into_iter().enumerate() {
            bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_stack_is_read_as_the_kernel_reads_it() {
        assert_eq!(named(&stack(0x1000, 0, 0x2000)), Some((0x1000, 0x3000)));
        // Garbage in the padding; SS_AUTODISARM.
        assert_eq!(named(&stack(0x1000, 0xdead_beef_8000_0000, 0x2000)), Some((0x1000, 0x3000)));
        assert_eq!(named(&stack(0x1000, 2, 0x2000)), None);
        assert_eq!(named(&stack(0x1000, 0, u64::MAX)), None);
    }
}
