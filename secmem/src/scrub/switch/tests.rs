//! What stands in registers right behind the switch, before any compiler's code can change it: of what the function on the
//! other stack had left there, nothing. On each way through the assembly that this processor can go, which is never
//! less than the one without AVX.
#![allow(unsafe_code)] // registers are filled and read by assembly

use std::arch::x86_64::__cpuid_count;
use std::arch::{asm, naked_asm};
use std::ffi::c_void;
use std::ops::Range;

use super::{Frame, Width, call_on};
use crate::arena::Enclosure;
use crate::policy::Policy;

type Function = unsafe extern "sysv64" fn(*mut c_void);

const BYTE: u8 = 0xA7;

/// What each register is filled with.
#[repr(align(64))]
struct Pattern([u8; 64]);

static PATTERN: Pattern = Pattern([BYTE; 64]);

/// A function that fills the vector registers as its lines say, then those of x87 (by their names in MMX), two places of
/// its stack, and the general registers that a function may change; all from the 64 bytes at its argument.
macro_rules! litters {
    ($name:ident: $($line:literal),+) => {
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name(from: *mut c_void) {
            naked_asm!(
                $($line,)+
                ".irp r,0,1,2,3,4,5,6,7",
                "movq mm\\r, [rdi]",
                ".endr",
                "mov rax, [rdi]",
                "mov [rsp - 500], rax",
                "mov [rsp - 40000], rax",
                ".irp r,cx,dx,si,8,9,10,11,di",
                "mov r\\r, [rdi]",
                ".endr",
                "ret",
            )
        }
    };
}

litters!(litter_sse: ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "movdqu xmm\\r, [rdi]", ".endr");
litters!(litter_avx: ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "vmovdqu ymm\\r, [rdi]", ".endr");
litters!(litter_avx512:
    ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "vmovdqu64 zmm\\r, [rdi]",
    ".endr",
    ".irp r,0,1,2,3,4,5,6,7",
    "kmovq k\\r, [rdi]",
    ".endr"
);

/// rax, rcx, rdx, rsi, rdi and r8 to r11, and behind them what `xsave` or `fxsave` writes.
#[repr(C, align(64))]
struct Registers {
    state: [u8; 16 << 10],
    general: [u8; 9 * 8],
}

/// Runs `litter` on another stack and cleans up after it, or, without one, runs it here; and looks at once.
fn left_by(litter: Function, width: Width, frame: Option<&Frame>) -> Box<Registers> {
    let mut left = Box::new(Registers { state: [0; 16 << 10], general: [0; 9 * 8] });
    let needed = __cpuid_count(0xD, 0).ebx as usize; // which the processor has where it has AVX
    assert!(matches!(width, Width::Sse) || needed <= left.state.len(), "{needed} bytes of state");
    let (called, frame) = match frame {
        Some(frame) => (call_on as *const c_void, std::ptr::from_ref(frame)),
        None => (litter as *const c_void, std::ptr::null()),
    };
    // SAFETY: either function is called with the arguments that it has, and keeps to its ABI, as the registers say that are
    // told to be changed, but that the litter leaves MMX in use: `emms` ends that. The frame's stack is the caller's
    // alone. What follows the call stores to `left`, which is as long and as aligned as `xsave` needs.
    unsafe {
        asm!(
            "call r15",
            "mov [r13], rax",
            "mov [r13 + 8], rcx",
            "mov [r13 + 16], rdx",
            "mov [r13 + 24], rsi",
            "mov [r13 + 32], rdi",
            "mov [r13 + 40], r8",
            "mov [r13 + 48], r9",
            "mov [r13 + 56], r10",
            "mov [r13 + 64], r11",
            "cmp r14, {avx}",
            "jne 2f",
            "mov eax, -1",
            "mov edx, -1",
            "xsave64 [r12]",
            "jmp 3f",
            "2:",
            "fxsave64 [r12]",
            "3:",
            "emms",
            avx = const Width::Avx as u64,
            in("r12") left.state.as_mut_ptr(),
            in("r13") left.general.as_mut_ptr(),
            in("r14") width as u64,
            in("r15") called,
            inout("rdi") PATTERN.0.as_ptr() => _,
            inout("rsi") litter => _,
            inout("rdx") frame => _,
            clobber_abi("sysv64"),
        );
    }
    left
}

/// A part of the extended state: what is in it, and its number (Intel SDM vol. 1, 13.1).
type Component = (&'static str, u32);

/// Where `xsave` puts the registers that a litter fills, by name: the legacy region, and what the processor says of the others.
fn places(components: &[Component]) -> Vec<(&'static str, Range<usize>)> {
    let x87 = (0..8).map(|number| ("x87", 32 + 16 * number..32 + 16 * number + 8));
    let others = components.iter().map(|&(name, component)| {
        let told = __cpuid_count(0xD, component);
        (name, told.ebx as usize..(told.ebx + told.eax) as usize)
    });
    x87.chain([("xmm", 160..160 + 16 * 16)]).chain(others).collect()
}

#[test]
fn nothing_that_a_function_leaves_in_registers_or_on_the_stack_gets_past_the_switch() {
    let mut ways: Vec<(Width, Function, &[Component])> = vec![(Width::Sse, litter_sse, &[])];
    if std::arch::is_x86_feature_detected!("avx") {
        ways.push((Width::Avx, litter_avx, &[("upper halves of ymm", 2)]));
    }
    if std::arch::is_x86_feature_detected!("avx512bw") {
        const ALL: &[Component] =
            &[("upper halves of ymm", 2), ("masks", 5), ("upper halves of zmm", 6), ("zmm from 16 on", 7)];
        ways.push((Width::Avx, litter_avx512, ALL));
    }
    for (number, (width, litter, components)) in ways.into_iter().enumerate() {
        let here = left_by(litter, width, None);
        assert_eq!(here.general, [BYTE; 9 * 8], "the look at way {number} would not see general registers");
        for (name, place) in places(components) {
            let filled = here.state[place].iter().all(|&byte| byte == BYTE);
            assert!(filled, "the look at way {number} would not see {name}");
        }

        let mut stack = Enclosure::new(Policy::default(), 64 << 10).unwrap();
        let mut frame = Frame::new(&mut stack);
        frame.width = width as u64;
        let there = left_by(litter, width, Some(&frame));

        let parts = [("general registers", &there.general[..]), ("the state", &there.state)];
        let kept = parts.map(|(name, part)| {
            let words = part.chunks(8).enumerate().filter(|(_, word)| **word == [BYTE; 8]);
            (name, words.map(|(at, _)| 8 * at).collect::<Vec<_>>())
        });
        assert_eq!(kept, [("general registers", vec![]), ("the state", vec![])], "way {number}, offsets");
        assert!(stack.ends_in_zeros(stack.len()), "way {number} leaves something on the stack");
    }
}
