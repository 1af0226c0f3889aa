//! What is hidden from the compiler, and what is taken away from registers.
#![allow(unsafe_code)] // one comment of assembly; a few instructions that clear registers

/// The same value, of which the compiler no longer knows anything: it can neither turn a mask back into a branch, nor
/// gather the steps of a loop into vector registers, where nothing would clear them. The value stays in a general
/// register: on the stack it would be a residue.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    #[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let mut hidden = value;
        // SAFETY: the template is a comment: it reads and writes one register and touches neither memory nor flags.
        unsafe { core::arch::asm!("/* {0} */", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags)) };
        hidden
    }
    #[cfg(not(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))))]
    core::hint::black_box(value)
}

/// Runs `work`, which is given references to secrets, and leaves nothing of them in registers.
///
/// Optimised, the steps of the work stand in registers alone. Without optimisation they all pass over the stack, which is
/// then overwritten below this frame.
#[inline(always)]
pub(super) fn cleanly<R>(work: impl FnOnce() -> R) -> R {
    let result = apart(work);
    // An interpreter has no stack to clean, and would take most of its time for it.
    if cfg!(all(unoptimised, not(miri))) {
        clear_stack();
    }
    clear_registers();
    result
}

/// A frame of its own: its end gives back the registers that it has to keep for the caller.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Overwrites what calls from this depth have left.
#[inline(never)]
fn clear_stack() {
    let mut room = [0; 8 << 10];
    crate::wipe::wipe(&mut room);
}

/// Clears the registers that a function need not keep for its caller. On x86-64; elsewhere what a function leaves in them
/// stays.
#[inline(always)]
fn clear_registers() {
    #[cfg(all(not(miri), target_arch = "x86_64"))]
    // SAFETY: zeroes registers that are told to be changed, and touches no memory. That it might keeps it where it is called.
    unsafe {
        core::arch::asm!(
            "xor eax, eax",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor esi, esi",
            "xor edi, edi",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
}
