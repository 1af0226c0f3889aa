//! A function run in single steps: the addresses of its instructions, and the registers that it leaves.

use std::arch::asm;
use std::ptr;

/// What a child did between two breakpoints.
pub struct Trace {
    pub instructions: Vec<u64>,
    /// General and vector registers at the second.
    pub registers: Vec<u8>,
}

/// Runs `act` in a forked child, an instruction at a time.
///
/// It must neither allocate nor take locks: the child has a copy of this thread alone.
pub fn trace(act: impl Fn()) -> Trace {
    secmem::scrub::run(|| {}).unwrap(); // what stands in registers from before is not the act's
    // SAFETY: the child runs the act, which takes no lock, and ends.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: makes the parent this process's tracer.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
            breakpoint();
            act();
            breakpoint();
            super::exit_now(0)
        }
        child => follow(child),
    }
}

#[inline(always)]
fn breakpoint() {
    // SAFETY: stops for the tracer, which lets it go on behind the instruction.
    unsafe { asm!("int3", options(nomem, nostack, preserves_flags)) };
}

fn follow(child: i32) -> Trace {
    let mut instructions = Vec::new();
    let mut within = false;
    loop {
        let mut status = 0;
        // SAFETY: waits for a child of ours; `status` is a valid place.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP, "the child: {status:#x}");
        // SAFETY: zero is valid for every field of the structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        ask(libc::PTRACE_GETSIGINFO, child, (&raw mut info).cast());
        // SAFETY: zero is valid for every field of the structure.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        ask(libc::PTRACE_GETREGS, child, (&raw mut registers).cast());
        let step = info.si_code == libc::TRAP_TRACE;
        if within {
            instructions.push(registers.rip);
        }
        if within && !step {
            let trace = Trace { instructions, registers: left(child, &registers) };
            // SAFETY: ends a child of ours.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: waits for it; the status is not asked for.
            unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
            return trace;
        }
        within = true;
        ask(libc::PTRACE_SINGLESTEP, child, ptr::null_mut());
    }
}

fn left(child: i32, registers: &libc::user_regs_struct) -> Vec<u8> {
    /// The extended state as the kernel keeps it, in the layout of XSAVE: vector registers of each width among it.
    const NT_X86_XSTATE: libc::c_long = 0x202;
    let mut state = vec![0_u8; 16 << 10];
    let mut place = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    // SAFETY: the child is stopped and traced by this thread; the place is as long as it says.
    let read = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, child, NT_X86_XSTATE, &raw mut place) };
    assert_eq!(read, 0, "{}", std::io::Error::last_os_error());
    state.truncate(place.iov_len);
    let general = [
        registers.rax,
        registers.rbx,
        registers.rcx,
        registers.rdx,
        registers.rsi,
        registers.rdi,
        registers.rbp,
        registers.r8,
        registers.r9,
        registers.r10,
        registers.r11,
        registers.r12,
        registers.r13,
        registers.r14,
        registers.r15,
    ];
    general.iter().flat_map(|register| register.to_ne_bytes()).chain(state).collect()
}

fn ask(request: libc::c_uint, child: i32, data: *mut u8) {
    // SAFETY: the child is stopped and traced by this thread; `data` is what the request writes to, or null.
    let done = unsafe { libc::ptrace(request, child, ptr::null_mut::<u8>(), data) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
