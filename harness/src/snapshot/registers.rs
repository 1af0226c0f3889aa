//! The registers of a stopped thread, as bytes that can be searched.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use nix::unistd::Pid;
use zeroize::Zeroize;

use super::xsave::{self, Layout, View};
use crate::scan::{Index, Match, Scanner};
use crate::sys;

/// The general registers in the order of the kernel's `user_regs_struct` (sys/user.h), eight bytes each.
const GENERAL: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
];

/// Indices of the stack pointer and of the thread pointer in [`GENERAL`].
const STACK_POINTER: usize = 19;
const THREAD_POINTER: usize = 21;

/// Addresses that one view of the vector state gets, more than the kernel hands out of it.
const VIEW: u64 = 0x20000;

/// Bytes of a thread's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RegisterPart {
    /// Offsets in the general registers, as the kernel hands them out.
    General(Vec<usize>),
    /// Offsets in the extended state, in the layout of XSAVE.
    Vector(Vec<usize>),
}

/// The registers of one thread.
pub(crate) struct Registers {
    /// Its stack pointer.
    pub(crate) stack_pointer: u64,
    /// Address of its control block (`fs_base`); 0 for none.
    pub(crate) thread_pointer: u64,
    /// Pieces in ascending order of their "address": the general registers at 0, then each view of the vector state at
    /// a multiple of [`VIEW`]. The same bytes stand in several views; [`Registers::named`] sorts that out.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    views: Vec<View>,
}

impl Drop for Registers {
    fn drop(&mut self) {
        for (_, bytes) in &mut self.pieces {
            bytes.zeroize();
        }
    }
}

/// Reads the general registers and the extended state (x87, SSE, AVX and up, in the layout of XSAVE).
///
/// # Errors
///
/// The error of either request. A machine without extended state has none to search.
pub(crate) fn read(thread: Pid) -> std::io::Result<Registers> {
    let general = sys::general_registers(thread)?;
    match sys::vector_registers(thread) {
        Ok(area) => Ok(Registers::new(general, Some(area))),
        // no XSAVE here
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {
            Ok(Registers::new(general, None))
        }
        Err(error) => Err(error),
    }
}

impl Registers {
    /// General registers in the kernel's order, and the extended state in the layout that XSAVE has on this machine.
    pub(crate) fn new(general: Vec<u8>, area: Option<Vec<u8>>) -> Self {
        let word = |number: usize| {
            let bytes = general.get(number * 8..number * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (stack_pointer, thread_pointer) = (word(STACK_POINTER), word(THREAD_POINTER));
        let mut pieces = vec![(0, general)];
        let mut views = Vec::new();
        if let Some(mut area) = area {
            area.truncate(usize::try_from(VIEW).unwrap_or(usize::MAX)); // a note can be of any length
            views = xsave::views(&area, Layout::of_this_machine());
            let gathered = |view: &View| view.offsets.iter().map(|offset| area[*offset]).collect();
            pieces.extend((1..).zip(&views).map(|(number, view)| (number * VIEW, gathered(view))));
            area.zeroize();
        }
        Self { stack_pointer, thread_pointer, pieces, views }
    }

    /// The general registers, and the extended state as the kernel hands it out; empty on a machine without.
    pub(crate) fn plain(&self) -> [&[u8]; 2] {
        let general = self.pieces.first().map_or(&[][..], |(_, bytes)| bytes);
        let area = self.pieces.get(1..).and_then(<[_]>::last).map_or(&[][..], |(_, bytes)| bytes);
        [general, area]
    }

    /// What was found in the [`pieces`](Self::pieces), each residue once, with the name of its register and its bytes there.
    ///
    /// Of residues whose bytes are the same or part of another's, the longest stays, and of those alike the one in the
    /// narrowest registers.
    pub(crate) fn named(&self, found: Vec<Match>) -> Vec<(Match, String, RegisterPart)> {
        let (mut named, mut vector) = (Vec::new(), Vec::new());
        for hit in found {
            match hit.address.checked_sub(VIEW) {
                None => {
                    let first = usize::try_from(hit.address).unwrap_or(usize::MAX);
                    let last = first.saturating_add(usize::try_from(hit.length).unwrap_or(0));
                    named.push((hit, general(hit.address), RegisterPart::General((first..last).collect())));
                }
                Some(place) => {
                    let number = usize::try_from(place / VIEW).unwrap_or(usize::MAX);
                    let first = usize::try_from(place % VIEW).unwrap_or(usize::MAX);
                    let last = first + usize::try_from(hit.length).unwrap_or(0);
                    let Some(view) = self.views.get(number) else { continue };
                    let mut bytes = view.offsets.get(first..last).unwrap_or_default().to_vec();
                    bytes.sort_unstable();
                    let whole_area = number + 1 == self.views.len();
                    vector.push((Reverse(hit.length), whole_area, Reverse(number), first, last, bytes, hit));
                }
            }
        }
        vector.sort_unstable_by_key(|one| (one.0, one.1, one.2, one.3));
        let mut kept: Vec<(Match, Vec<usize>)> = Vec::new();
        for (_, _, Reverse(number), first, last, bytes, hit) in vector {
            let repeats = kept.iter().any(|(other, around)| {
                (other.needle, other.form) == (hit.needle, hit.form)
                    && bytes.iter().all(|byte| around.binary_search(byte).is_ok())
            });
            if repeats {
                continue;
            }
            let view = &self.views[number];
            let (from, to) = (view.name(first), view.name(last.saturating_sub(1)));
            let whole_area = number + 1 == self.views.len();
            let name = if from == to || whole_area { from } else { format!("{from} to {to}") };
            named.push((hit, name, RegisterPart::Vector(view.offsets.get(first..last).unwrap_or_default().to_vec())));
            kept.push((hit, bytes));
        }
        named
    }
}

/// The name of the register at an offset: in the general ones, or in an area of vector state.
pub(crate) fn name(area: Option<&[u8]>, offset: usize) -> String {
    let Some(area) = area else { return general(offset as u64) };
    let views = xsave::views(area, Layout::of_this_machine());
    let named = |view: &View| Some(view.name(view.offsets.iter().position(|at| *at == offset)?));
    views.iter().find_map(named).unwrap_or_default()
}

/// Offsets of those bytes of an area of vector state that a search explains.
pub(crate) fn explained(area: &[u8], index: &Index) -> BTreeSet<usize> {
    let mut explained = BTreeSet::new();
    for view in xsave::views(area, Layout::of_this_machine()) {
        let mut bytes: Vec<u8> = view.offsets.iter().map(|at| area[*at]).collect();
        let mut scanner = Scanner::new(index);
        scanner.feed(0, &bytes);
        bytes.zeroize();
        for hit in scanner.finish() {
            let first = usize::try_from(hit.address).unwrap_or(usize::MAX);
            let length = usize::try_from(hit.length).unwrap_or(usize::MAX);
            explained.extend(view.offsets.iter().skip(first).take(length));
        }
    }
    explained
}

/// The name of the general register at an offset.
fn general(offset: u64) -> String {
    GENERAL.get(usize::try_from(offset / 8).unwrap_or(usize::MAX)).map_or("general", |name| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Form;

    /// Finds a secret in an area of 16 ymm registers.
    fn named(plant: impl FnOnce(&mut [u8], &[u8])) -> Vec<String> {
        let secret: Vec<u8> = (100..132).collect();
        let mut area = vec![0; 832];
        plant(&mut area, &secret);
        let views = xsave::views(&area, Layout::of_avx());
        let pieces: Vec<_> = (1..)
            .zip(&views)
            .map(|(number, view)| (number * VIEW, view.offsets.iter().map(|at| area[*at]).collect::<Vec<u8>>()))
            .collect();
        let index = Index::new(&[&secret[..]], &[Form::Raw], 6).unwrap();
        let mut scanner = Scanner::new(&index);
        for (at, bytes) in &pieces {
            scanner.feed(*at, bytes);
        }
        let registers = Registers { stack_pointer: 0, thread_pointer: 0, pieces, views };
        let name = |(hit, name, _): (Match, String, RegisterPart)| {
            format!("{name}: {}{}", hit.length, if hit.whole { " whole" } else { "" })
        };
        registers.named(scanner.finish()).into_iter().map(name).collect()
    }

    #[test]
    fn a_value_in_one_ymm_register_is_one_whole_residue() {
        let found = named(|area, secret| {
            area[160 + 7 * 16..][..16].copy_from_slice(&secret[..16]);
            area[576 + 7 * 16..][..16].copy_from_slice(&secret[16..]);
        });

        assert_eq!(found, ["ymm7: 32 whole"]);
    }

    #[test]
    fn a_value_in_two_neighbouring_xmm_registers_is_one_whole_residue() {
        let found = named(|area, secret| area[160 + 3 * 16..][..32].copy_from_slice(secret));

        assert_eq!(found, ["xmm3 to xmm4: 32 whole"]);
    }

    #[test]
    fn a_value_where_no_register_is_known_is_found_in_the_area() {
        let found = named(|area, secret| area[512 + 24..][..32].copy_from_slice(secret));

        assert_eq!(found, ["xstate+0x218: 32 whole"]);
    }

    #[test]
    fn two_residues_are_two() {
        let found = named(|area, secret| {
            area[160..][..16].copy_from_slice(&secret[..16]);
            area[576 + 9 * 16..][..8].copy_from_slice(&secret[..8]);
        });

        assert_eq!(found, ["xmm0: 16", "ymm9: 8"]);
    }

    #[test]
    fn general_registers_are_named_by_their_place() {
        assert_eq!([0, 14 * 8 + 3, 19 * 8].map(general), ["r15", "rdi", "rsp"]);
    }
}
