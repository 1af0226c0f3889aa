//! The registers of a stopped thread, as bytes that can be searched.

use nix::unistd::Pid;

use crate::sys;

/// The general registers in the order of the kernel's `user_regs_struct` (sys/user.h), eight bytes each.
const GENERAL: [&str; 27] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
];

/// Index of the stack pointer in [`GENERAL`].
const STACK_POINTER: usize = 19;

/// Where the vector state begins in the "addresses" of a thread's registers.
const VECTOR: u64 = 0x1000;

/// The registers of one thread.
pub(crate) struct Registers {
    /// Its stack pointer.
    pub(crate) stack_pointer: u64,
    /// Pieces in ascending order of their "address", which [`name`] turns into a register's name.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
}

impl Drop for Registers {
    fn drop(&mut self) {
        use zeroize::Zeroize;
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
    let stack_pointer = general
        .get(STACK_POINTER * 8..STACK_POINTER * 8 + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let mut pieces = vec![(0, general)];
    match sys::vector_registers(thread) {
        Ok(vector) => pieces.push((VECTOR, vector)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {} // no XSAVE here
        Err(error) => return Err(error),
    }
    Ok(Registers { stack_pointer, pieces })
}

/// The name of the register at a piece's "address".
pub(crate) fn name(address: u64) -> String {
    match address.checked_sub(VECTOR) {
        None => {
            GENERAL.get(usize::try_from(address / 8).unwrap_or(usize::MAX)).map_or("general", |name| name).to_owned()
        }
        // The legacy area holds x87 from byte 32 and the low halves of the vector registers from byte 160.
        Some(offset @ 32..160) => format!("st{}", (offset - 32) / 16),
        Some(offset @ 160..416) => format!("xmm{}", (offset - 160) / 16),
        // The XSAVE header is 64 bytes at 512; the high halves of ymm0 to ymm15 follow it in the standard layout.
        Some(offset @ 576..832) => format!("ymm{} (high half)", (offset - 576) / 16),
        Some(offset) => format!("xstate+{offset:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_named_by_their_place() {
        let names: Vec<_> =
            [0, 14 * 8 + 3, 19 * 8, VECTOR + 160, VECTOR + 160 + 7 * 16, VECTOR + 576].into_iter().map(name).collect();

        assert_eq!(names, ["r15", "rdi", "rsp", "xmm0", "xmm7", "ymm0 (high half)"]);
    }
}
