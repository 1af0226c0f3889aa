//! Who wrote a few words of a target's memory: the last write to each, with the registers and the stack of that moment.
//!
//! The processor's debug registers stop a thread behind every instruction that stores to a watched word. They see
//! neither the kernel's writes nor those through another mapping of the same page, so the words are compared at every
//! system call's entry and exit and around the delivery of every signal that has a handler.
//!
//! Registers and stacks are bytes of the target: only those of the last write are kept, and they are wiped.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::unistd::Pid;
use zeroize::{Zeroize, Zeroizing};

use crate::snapshot::Region;
use crate::sys;

/// Bytes of stack that are copied at a write: enough for the frames of the functions on the way to it.
const STACK_COPY: usize = 64 * 1024;

/// Writes to one word after which it is not watched any longer: at some 50 µs each they take five seconds.
pub(crate) const MOST_TRAPS: u64 = 100_000;

/// Debug register that says which breakpoint was hit.
const STATUS: usize = 6;

/// Debug register that switches breakpoints on.
const CONTROL: usize = 7;

/// Part of memory that one debug register can watch: 1, 2, 4 or 8 bytes at a multiple of that length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Word {
    pub(crate) address: u64,
    pub(crate) length: u8,
}

impl Word {
    /// How many can be watched at a time: the processor has four breakpoint registers.
    pub(crate) const MOST: usize = 4;

    /// The first and the last of the widest words that lie in a range; one and the same where there is but one.
    /// `None` for an empty range.
    pub(crate) fn ends(start: u64, length: u64) -> Option<(Self, Self)> {
        let end = start.checked_add(length)?;
        [8_u8, 4, 2, 1].into_iter().find_map(|width| {
            let step = u64::from(width);
            let first = start.checked_next_multiple_of(step)?;
            let last = (end / step * step).checked_sub(step)?;
            let word = |address| Self { address, length: width };
            (first <= last).then(|| (word(first), word(last)))
        })
    }
}

/// How a word was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By an instruction of the target, which the registers of the moment stand behind.
    Instruction,
    /// By the kernel, during this system call.
    Call {
        /// Its number.
        number: u64,
        /// Its first argument.
        first: u64,
    },
    /// By the kernel, when it laid the registers on the stack to deliver this signal.
    SignalFrame(i32),
    /// By the kernel, when it laid out the new image of an `execve`, which the old image called.
    Exec,
    /// By nobody that was watched: the kernel on its own, another process, another mapping of the same page.
    Unseen,
}

impl How {
    /// The system call from which a thread with these registers returns.
    pub(super) fn call(registers: &libc::user_regs_struct) -> Self {
        Self::Call { number: registers.orig_rax, first: registers.rdi }
    }
}

/// Bytes of a stack, wiped on drop.
#[derive(Clone, Default)]
pub(crate) struct StackCopy {
    /// Address of the first byte.
    start: u64,
    bytes: Zeroizing<Vec<u8>>,
}

impl StackCopy {
    /// Copies from the stack pointer upwards, as far as there is memory, over an older copy if there is one: a fresh
    /// one a trap would be most of what a trap costs.
    fn take(mem: &File, pointer: u64, older: Option<Self>) -> Self {
        let mut bytes = older.map_or_else(|| Zeroizing::new(Vec::with_capacity(STACK_COPY)), |older| older.bytes);
        bytes.resize(STACK_COPY, 0);
        let mut got = 0;
        while got < STACK_COPY {
            match mem.read_at(&mut bytes[got..], pointer.saturating_add(got as u64)) {
                Ok(read) if read > 0 => got += read,
                _ => break,
            }
        }
        bytes.truncate(got);
        Self { start: pointer, bytes }
    }

    /// The eight bytes at an address, if they were copied.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    #[cfg(test)]
    pub(crate) fn of(start: u64, words: &[u64]) -> Self {
        Self { start, bytes: Zeroizing::new(words.iter().flat_map(|word| word.to_le_bytes()).collect()) }
    }
}

/// A write, with the thread's state just behind it.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) how: How,
    pub(crate) registers: libc::user_regs_struct,
    pub(crate) stack: StackCopy,
    /// The mappings of the moment, where they are not those of a later look: the image that called `execve` is gone.
    pub(crate) regions: Option<Rc<[Region]>>,
}

impl Write {
    fn into_stack(mut self) -> StackCopy {
        std::mem::take(&mut self.stack)
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let registers = &mut self.registers;
        for register in [
            &mut registers.rax,
            &mut registers.rbx,
            &mut registers.rcx,
            &mut registers.rdx,
            &mut registers.rsi,
            &mut registers.rdi,
            &mut registers.rbp,
            &mut registers.r8,
            &mut registers.r9,
            &mut registers.r10,
            &mut registers.r11,
            &mut registers.r12,
            &mut registers.r13,
            &mut registers.r14,
            &mut registers.r15,
        ] {
            register.zeroize();
        }
    }
}

/// What is known of one watched word in one process.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) word: Word,
    /// What it held when it was last looked at; `None` where there was nothing to read.
    value: Option<Zeroizing<[u8; 8]>>,
    /// Instructions that were seen to store to it.
    pub(crate) traps: u64,
    pub(crate) last: Option<Write>,
}

impl Slot {
    fn new(word: Word) -> Self {
        Self { word, value: None, traps: 0, last: None }
    }

    fn read(&self, mem: &File) -> Option<Zeroizing<[u8; 8]>> {
        let mut bytes = Zeroizing::new([0; 8]);
        mem.read_exact_at(&mut bytes[..usize::from(self.word.length)], self.word.address).ok()?;
        Some(bytes)
    }

    /// Whether the word still holds what it held behind the last write that was seen.
    pub(crate) fn stands(&self, mem: &File) -> bool {
        self.read(mem) == self.value
    }

    /// Whether the bytes could be read at all: those of memfd_secret cannot, so only instructions are seen there.
    pub(crate) fn is_readable(&self) -> bool {
        self.value.is_some()
    }

    /// Whether it was written too often to go on watching it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.traps >= MOST_TRAPS
    }
}

/// The watched words of a tree of processes.
pub(super) struct Watch {
    words: Vec<Word>,
    /// One list of slots a process, as long as `words`.
    processes: Vec<Vec<Slot>>,
    /// Where processes stand that are in `execve`.
    leaving: BTreeMap<usize, Write>,
}

impl Watch {
    /// Words beyond [`Word::MOST`] are not watched.
    pub(super) fn new(words: &[Word]) -> Self {
        Self {
            words: words.iter().copied().take(Word::MOST).collect(),
            processes: Vec::new(),
            leaving: BTreeMap::new(),
        }
    }

    pub(super) fn slots(&self, process: usize) -> &[Slot] {
        self.processes.get(process).map_or(&[], Vec::as_slice)
    }

    /// A new image: what was known of the old one's memory is void. `thread` stands in its exec stop.
    pub(super) fn begin(&mut self, thread: Pid, process: usize, mem: &File) {
        self.inherit(process, None);
        self.compare(thread, process, mem, |_| How::Exec);
        // The stack of the new image has no frames yet; who called `execve` stood on the old one's.
        let caller = self.leaving.remove(&process);
        for slot in &mut self.processes[process] {
            if let Some(last) = &mut slot.last
                && let Some(caller) = &caller
            {
                last.clone_from(caller);
            }
        }
        self.arm(thread);
    }

    /// A thread stands at the entry of `execve`.
    pub(super) fn leave(&mut self, thread: Pid, process: usize, mem: &File, regions: Vec<Region>) {
        if let Some(mut caller) = write(thread, mem, None, |_| How::Exec) {
            let regions = Some(regions.into());
            caller.regions = regions;
            self.leaving.insert(process, caller);
        }
    }

    /// A new process: made by fork, it has its parent's memory, and who wrote that.
    pub(super) fn inherit(&mut self, process: usize, parent: Option<usize>) {
        let blank = || self.words.iter().copied().map(Slot::new).collect();
        let slots = parent.and_then(|parent| self.processes.get(parent).cloned()).unwrap_or_else(blank);
        if self.processes.len() <= process {
            self.processes.resize_with(process + 1, Vec::new);
        }
        self.processes[process] = slots;
    }

    /// Sets a stopped thread's debug registers.
    ///
    /// What the kernel refuses shows later: a word that changes without a trap has no writer.
    pub(super) fn arm(&self, thread: Pid) {
        // Off first: the kernel checks every address against the control register that is set.
        let mut done = sys::set_debug_register(thread, CONTROL, 0);
        let mut control = 0;
        for (number, word) in self.words.iter().enumerate() {
            done = done.and_then(|()| sys::set_debug_register(thread, number, word.address));
            control |= control_bits(number, *word);
        }
        drop(done.and_then(|()| sys::set_debug_register(thread, CONTROL, control)));
    }

    /// Takes in a trap. Says whether the stop was one of ours.
    pub(super) fn trapped(&mut self, thread: Pid, process: usize, mem: &File) -> bool {
        let hit = sys::debug_register(thread, STATUS).unwrap_or(0) & 0b1111;
        if hit == 0 {
            return false;
        }
        drop(sys::set_debug_register(thread, STATUS, 0)); // ESRCH: killed while it stood still
        let mut tired = false;
        for (number, slot) in self.processes.get_mut(process).into_iter().flatten().enumerate() {
            if hit >> number & 1 == 0 {
                continue;
            }
            slot.traps += 1;
            tired |= slot.is_given_up();
            slot.value = slot.read(mem);
            slot.last = write(thread, mem, slot.last.take(), |_| How::Instruction);
        }
        if tired {
            self.disarm(thread, process);
        }
        true
    }

    /// Stops watching what was written too often.
    fn disarm(&self, thread: Pid, process: usize) {
        let live = self.slots(process).iter().enumerate().filter(|(_, slot)| !slot.is_given_up());
        let control = live.fold(0, |control, (number, slot)| control | control_bits(number, slot.word));
        drop(sys::set_debug_register(thread, CONTROL, control)); // ESRCH: killed while it stood still
    }

    /// Looks which words changed without a trap since they were last looked at: `how` says what that means here.
    pub(super) fn compare(
        &mut self,
        thread: Pid,
        process: usize,
        mem: &File,
        how: impl Fn(&libc::user_regs_struct) -> How,
    ) {
        for slot in self.processes.get_mut(process).into_iter().flatten() {
            let now = slot.read(mem);
            if now == slot.value {
                continue;
            }
            let fresh = slot.value.is_none() && now.as_ref().is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
            // Mapped or unmapped: nobody wrote what is there now.
            slot.last = if fresh || now.is_none() { None } else { write(thread, mem, slot.last.take(), &how) };
            slot.value = now;
        }
    }
}

/// The state of a thread behind a write; `older` is the write before it, whose room is used again.
pub(super) fn write(
    thread: Pid,
    mem: &File,
    older: Option<Write>,
    how: impl Fn(&libc::user_regs_struct) -> How,
) -> Option<Write> {
    let registers = nix::sys::ptrace::getregs(thread).ok()?; // ESRCH: killed while it stood still
    let stack = StackCopy::take(mem, registers.rsp, older.map(Write::into_stack));
    Some(Write { how: how(&registers), registers, stack, regions: None })
}

/// The control register's bits that make breakpoint `number` watch writes to `word`, in this thread alone.
///
/// # Source
///
/// Intel SDM volume 3, *Debug Control Register (DR7)*: L0 to L3 from bit 0, R/W and LEN from bit 16.
fn control_bits(number: usize, word: Word) -> u64 {
    const ON_WRITE: u64 = 0b01;
    let length = match word.length {
        1 => 0b00,
        2 => 0b01,
        4 => 0b11,
        _ => 0b10,
    };
    1 << (number * 2) | (length << 2 | ON_WRITE) << (16 + number * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_residue_lie_in_it_and_are_as_wide_as_fits() {
        let ends = |start, length| {
            let (first, last) = Word::ends(start, length)?;
            Some((first.address, last.address, first.length))
        };

        assert_eq!(ends(0x1000, 48), Some((0x1000, 0x1028, 8)));
        assert_eq!(ends(0x1003, 30), Some((0x1008, 0x1018, 8)));
        assert_eq!(ends(0x1004, 8), Some((0x1004, 0x1008, 4)));
        assert_eq!(ends(0x1001, 6), Some((0x1002, 0x1004, 2)));
        assert_eq!(ends(0x1001, 1), Some((0x1001, 0x1001, 1)));
        assert_eq!(ends(0x1001, 0), None);
        assert_eq!(ends(u64::MAX - 3, 64), None);
    }

    #[test]
    fn the_control_register_is_that_of_the_manual() {
        let word = |length| Word { address: 0x1000, length };

        assert_eq!(control_bits(0, word(8)), 0x0009_0001);
        assert_eq!(control_bits(1, word(4)), 0x00d0_0004);
        assert_eq!(control_bits(3, word(1)), 0x1000_0040);
    }

    #[test]
    fn a_word_is_read_from_a_stack_copy_only_where_it_was_copied() {
        let copy = StackCopy::of(0x1000, &[1, 2]);

        assert_eq!((copy.word(0x1000), copy.word(0x1008)), (Some(1), Some(2)));
        assert_eq!((copy.word(0xff8), copy.word(0x1009), copy.word(u64::MAX)), (None, None, None));
    }
}
