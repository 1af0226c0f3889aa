//! Whole vector registers, put together from where XSAVE stores their parts.
//!
//! XSAVE keeps the low 16 bytes of a vector register in one place, the next 16 in another and the upper half of an
//! AVX-512 register in a third, so a value of 32 bytes in one register lies in two pieces far apart. A [`View`] lists
//! the bytes of the area in the order in which a program sees them: `zmm0` to `zmm31` one after the other, then `ymm`,
//! then `xmm`, because a value may also fill the low parts of neighbouring registers. One residue then shows in more
//! than one view; each byte of a view knows its offset in the area, which tells residues from their repetitions.
//!
//! The kernel hands the area out in its standard layout, whose offsets CPUID names. A compacted area (bit 63 of
//! XCOMP_BV) is never handed out; if it were, only the parts at fixed offsets would be put together.
//!
//! # Source
//!
//! Intel SDM volume 1, chapter 13, *Managing state using the XSAVE feature set*; CPUID leaf 0x0d.

use std::arch::x86_64::__cpuid_count;

/// Offsets of the 16 low parts in the legacy area.
const XMM: usize = 160;

/// Offset of x87 and MMX registers in the legacy area, 16 bytes each.
const X87: usize = 32;

/// Where XCOMP_BV lies.
const XCOMP: usize = 520;

/// State components with an offset of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Upper halves of ymm0 to ymm15, 16 bytes each.
    ymm: Option<usize>,
    /// k0 to k7, 8 bytes each.
    opmask: Option<usize>,
    /// Upper halves of zmm0 to zmm15, 32 bytes each.
    zmm: Option<usize>,
    /// zmm16 to zmm31, 64 bytes each.
    high: Option<usize>,
}

impl Layout {
    /// The standard layout of this machine.
    pub(super) fn of_this_machine() -> Self {
        let offset = |component: u32| {
            let leaf = __cpuid_count(0x0d, component);
            (leaf.eax > 0 && leaf.ebx > 0).then_some(leaf.ebx as usize)
        };
        // Leaf 0x0d is reserved where the processor has no XSAVE.
        if __cpuid_count(0, 0).eax < 0x0d {
            return Self { ymm: None, opmask: None, zmm: None, high: None };
        }
        Self { ymm: offset(2), opmask: offset(5), zmm: offset(6), high: offset(7) }
    }

    /// A machine with AVX and no more.
    #[cfg(test)]
    pub(super) const fn of_avx() -> Self {
        Self { ymm: Some(576), opmask: None, zmm: None, high: None }
    }
}

/// Bytes of the area in another order.
pub(super) struct View {
    /// For each byte, its offset in the area.
    pub(super) offsets: Vec<usize>,
    /// Name of the registers, and bytes of each: 0 for the area itself.
    name: &'static str,
    width: usize,
}

impl View {
    /// The register in which a byte of the view lies.
    pub(super) fn name(&self, at: usize) -> String {
        at.checked_div(self.width).map_or_else(|| format!("xstate+{at:#x}"), |number| format!("{}{number}", self.name))
    }
}

/// All views of an area, the widest registers first and the area itself last.
pub(super) fn views(area: &[u8], layout: Layout) -> Vec<View> {
    let compacted = area.get(XCOMP + 7).is_some_and(|byte| byte & 0x80 != 0);
    let fits = |start: Option<usize>, length: usize| start.filter(|start| !compacted && start + length <= area.len());
    let (ymm, zmm) = (fits(layout.ymm, 256), fits(layout.zmm, 512));
    let high = fits(layout.high, 1024);
    let legacy = area.len() >= XMM + 256;
    // The bytes of one register up to a width, or nothing if the area does not hold them.
    let register = |number: usize, width: usize| -> Option<Vec<usize>> {
        if number >= 16 {
            let start = high? + (number - 16) * 64;
            return Some((start..start + width).collect());
        }
        let mut bytes: Vec<usize> = (XMM + number * 16..XMM + number * 16 + 16).collect();
        if width > 16 {
            bytes.extend(ymm? + number * 16..ymm? + number * 16 + 16);
        }
        if width > 32 {
            bytes.extend(zmm? + number * 32..zmm? + number * 32 + 32);
        }
        Some(bytes)
    };
    let mut views = Vec::new();
    if legacy {
        for (name, width) in [("zmm", 64), ("ymm", 32), ("xmm", 16)] {
            let offsets: Vec<usize> = (0..32).map_while(|number| register(number, width)).flatten().collect();
            if !offsets.is_empty() {
                views.push(View { offsets, name, width });
            }
        }
        // Ten bytes of sixteen: a value in two x87 registers has a gap in the area.
        let offsets = (0..8).flat_map(|number| X87 + number * 16..X87 + number * 16 + 10).collect();
        views.push(View { offsets, name: "st", width: 10 });
        let offsets = (0..8).flat_map(|number| X87 + number * 16..X87 + number * 16 + 8).collect();
        views.push(View { offsets, name: "mm", width: 8 });
    }
    if let Some(start) = fits(layout.opmask, 64) {
        views.push(View { offsets: (start..start + 64).collect(), name: "k", width: 8 });
    }
    views.push(View { offsets: (0..area.len()).collect(), name: "", width: 0 });
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { ymm: Some(576), opmask: Some(1088), zmm: Some(1152), high: Some(1664) };

    #[test]
    fn a_register_is_put_together_from_its_three_places() {
        let mut area = vec![0; 2688];
        area[160 + 7 * 16..][..16].fill(1);
        area[576 + 7 * 16..][..16].fill(2);
        area[1152 + 7 * 32..][..32].fill(3);
        area[1664 + 3 * 64..][..64].fill(4);

        let views = views(&area, LAYOUT);
        let zmm: Vec<u8> = views[0].offsets.iter().map(|at| area[*at]).collect();

        assert_eq!(zmm[7 * 64..8 * 64], [[1; 16], [2; 16], [3; 16], [3; 16]].concat());
        assert_eq!(zmm[19 * 64..20 * 64], [4; 64]);
        assert_eq!((views[0].name(19 * 64 + 5), views[1].name(7 * 32)), ("zmm19".to_owned(), "ymm7".to_owned()));
    }

    #[test]
    fn an_area_that_breaks_off_still_shows_what_it_holds() {
        let names = |length| -> Vec<_> { views(&vec![0; length], LAYOUT).iter().map(|view| view.name(0)).collect() };

        assert_eq!(names(2688), ["zmm0", "ymm0", "xmm0", "st0", "mm0", "k0", "xstate+0x0"]);
        assert_eq!(names(832), ["ymm0", "xmm0", "st0", "mm0", "xstate+0x0"]);
        assert_eq!(names(100), ["xstate+0x0"]);
        assert_eq!(names(0), ["xstate+0x0"]);
    }

    #[test]
    fn a_compacted_area_is_read_where_offsets_are_fixed() {
        let mut area = vec![0; 2688];
        area[XCOMP + 7] = 0x80;

        let names: Vec<_> = views(&area, LAYOUT).iter().map(|view| view.name(0)).collect();

        assert_eq!(names, ["xmm0", "st0", "mm0", "xstate+0x0"]);
    }
}
