//! The switch of stacks: run a function on other memory, and leave neither registers nor that memory as it left them.
//!
//! One function of assembly, because between the end of the closure and the last store of the wipe no compiler may put
//! anything of its own on either stack.
#![allow(unsafe_code)] // assembly that changes the stack pointer

use std::arch::naked_asm;
use std::ffi::c_void;
use std::panic::{self, AssertUnwindSafe};

use crate::arena::Enclosure;

/// What is to run, and how it went.
struct Task<F> {
    f: Option<F>,
    panicked: bool,
}

/// Runs `f` on `stack`, which is overwritten after it; says whether it panicked.
pub(super) fn run_on<F: FnOnce()>(stack: &mut Enclosure, f: F) -> bool {
    let mut task = Task { f: Some(f), panicked: false };
    let frame = Frame::new(stack);
    // SAFETY: the stack is borrowed exclusively until this returns, and its pages are writable; `enter` is given the task
    // that it expects, catches every panic, and so returns.
    unsafe { call_on((&raw mut task).cast(), enter::<F>, &raw const frame) };
    task.panicked
}

/// The first function on the protected stack. No panic gets past it, and neither does what a panic carries.
unsafe extern "sysv64" fn enter<F: FnOnce()>(task: *mut c_void) {
    // SAFETY: the caller passes its task, which outlives this call and which nobody else uses meanwhile.
    let task = unsafe { &mut *task.cast::<Task<F>>() };
    let Some(f) = task.f.take() else { return };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        task.panicked = true;
        // What is thrown may itself panic when it is dropped. That second payload is leaked rather than tried again.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
    }
}

/// Where to run, and how to clean up. The assembly reads the fields by their offsets.
#[repr(C)]
struct Frame {
    /// One past the stack: whole pages lie between `bottom` and `top`.
    top: *mut u8,
    /// The lowest byte of the stack.
    bottom: *mut u8,
    /// What the vector and floating-point registers become: [`IMAGE`].
    image: *const Image,
    /// [`Width`].
    width: u64,
    /// Where the part begins that is overwritten without a look: [`ALWAYS`] bytes, or fewer if there are no more.
    always: *mut u8,
}

/// Bytes below the top that most closures use. They stay in the first-level cache, where a store costs no more than a look;
/// below them a look costs half of it (measured on a Xeon with 48 KiB of such a cache).
const ALWAYS: usize = 16 << 10;

/// What the processor has beyond SSE2, which every x86-64 has.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Width {
    /// 16-byte registers, restored by `fxrstor`.
    Sse = 0,
    /// `xrstor`, and 32-byte stores.
    Avx = 1,
}

/// State components that `xrstor` puts back to their first state: x87, SSE, AVX, the three of AVX-512, and the two of AMX
/// (Intel SDM vol. 1, 13.1). Those that the system has not enabled are ignored. Protection keys (bit 9) are not data.
const COMPONENTS: u32 = 0x6_00E7;

/// An area of the XSAVE layout (Intel SDM vol. 1, 13.4) in which no component is in use.
#[repr(C, align(64))]
struct Image([u8; 512 + 64]);

/// `fxrstor` takes the legacy region as it is: all zero but for the control words that a new process has.
static IMAGE: Image = {
    let mut bytes = [0; 512 + 64];
    bytes[0] = 0x7F; // FCW 0x037F
    bytes[1] = 0x03;
    bytes[24] = 0x80; // MXCSR 0x1F80
    bytes[25] = 0x1F;
    Image(bytes)
};

impl Frame {
    fn new(stack: &mut Enclosure) -> Self {
        let bottom = stack.start().as_ptr();
        // Whether the system saves AVX state, so that `xrstor` may be used. Asked once in a process: under a hypervisor cpuid
        // takes a microsecond.
        let width = if std::arch::is_x86_feature_detected!("avx") { Width::Avx } else { Width::Sse };
        let always = bottom.wrapping_add(stack.len().saturating_sub(ALWAYS));
        Self { top: bottom.wrapping_add(stack.len()), bottom, image: &raw const IMAGE, width: width as u64, always }
    }
}

/// Calls `function(data)` on the stack of `frame`, and then, before it leaves that stack: gives every vector, mask, tile
/// and x87 register its first state, gives the control words back, zeroes the general registers, and overwrites the
/// stack from the lowest byte that is not zero to the top. It was all zero before, and what lies below that byte still is: each
/// byte of it was looked at, by an instruction that brings none of them into a register.
///
/// # Safety
///
/// The stack is writable and nobody else's; `function` returns, and does not unwind out of itself.
#[unsafe(naked)]
unsafe extern "sysv64" fn call_on(
    data: *mut c_void,
    function: unsafe extern "sysv64" fn(*mut c_void),
    frame: *const Frame,
) {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp", // holds on both stacks, so a debugger sees the caller from within the closure
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        ".cfi_offset rbx, -24",
        ".cfi_offset r12, -32",
        ".cfi_offset r13, -40",
        ".cfi_offset r14, -48",
        ".cfi_offset r15, -56",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rsp, [r12]",
        "call rsi",
        // Still on the other stack: a signal that comes now writes what it saves where it will be overwritten.
        "mov rcx, [r12 + 16]",
        "cmp qword ptr [r12 + 24], {avx}",
        "jne 2f",
        "mov eax, {components}",
        "xor edx, edx",
        #[cfg(not(secmem_ablate = "vector-registers"))]
        "xrstor [rcx]",
        #[cfg(secmem_ablate = "vector-registers")]
        "vxorps ymm0, ymm0, ymm0", // what the stack is overwritten with
        "jmp 3f",
        "2:",
        "fxrstor [rcx]",
        "3:",
        "ldmxcsr [rbx]",
        "fldcw [rbx + 4]",
        #[cfg(not(secmem_ablate = "stack-wipe"))]
        "mov rdi, [r12 + 8]",
        #[cfg(secmem_ablate = "stack-wipe")]
        "lea rdi, [rsp - 128]", // below what the closure has left: a run of the loop, and no more
        "mov rcx, [r12]",
        "xor eax, eax",
        "xor edx, edx",
        "xor esi, esi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        // Whole pages, so the blocks of 128 bytes come out even. The vector registers are zero by now.
        "cmp qword ptr [r12 + 24], {avx}",
        "jne 5f",
        "vcmptrueps ymm0, ymm0, ymm0", // all ones: what `vptest` finds in common with them is not zero
        "jmp 8f",
        "7:",
        "vptest ymm0, [rdi]",
        "jnz 9f",
        "vptest ymm0, [rdi + 32]",
        "jnz 9f",
        "vptest ymm0, [rdi + 64]",
        "jnz 9f",
        "vptest ymm0, [rdi + 96]",
        "jnz 9f",
        "sub rdi, -128",
        "8:",
        "cmp rdi, [r12 + 32]",
        "jb 7b",
        "9:",
        "vxorps ymm0, ymm0, ymm0",
        "4:",
        "vmovdqa [rdi], ymm0",
        "vmovdqa [rdi + 32], ymm0",
        "vmovdqa [rdi + 64], ymm0",
        "vmovdqa [rdi + 96], ymm0",
        "sub rdi, -128",
        "cmp rdi, rcx",
        "jb 4b",
        "vzeroupper",
        "jmp 6f",
        "5:",
        "movaps [rdi], xmm0",
        "movaps [rdi + 16], xmm0",
        "movaps [rdi + 32], xmm0",
        "movaps [rdi + 48], xmm0",
        "movaps [rdi + 64], xmm0",
        "movaps [rdi + 80], xmm0",
        "movaps [rdi + 96], xmm0",
        "movaps [rdi + 112], xmm0",
        "sub rdi, -128",
        "cmp rdi, rcx",
        "jb 5b",
        "6:",
        "mov rsp, rbx",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        avx = const Width::Avx as u64,
        components = const COMPONENTS,
    )
}

#[cfg(test)]
mod tests;
