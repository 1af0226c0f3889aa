//! What runs on other stacks: handlers, and who binds functions there. Of the scrubbed stack alone, and so on x86-64 alone.
#![allow(unsafe_code)] // every function here ends in foreign code, or reads what the loader keeps

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::ptr::{self, NonNull};

use super::{Call, check, seam};

/// Bytes of the largest frame that the kernel writes for a signal on this processor: `AT_MINSIGSTKSZ` (Linux 5.14), or
/// what AVX-512 takes where the kernel does not say.
pub(crate) fn signal_frame() -> usize {
    const AVX512: usize = 4 << 10;
    // SAFETY: getauxval reads a table that the kernel wrote at the process's start.
    let told = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
    usize::try_from(told).unwrap_or(0).max(AVX512)
}

/// Where handlers with `SA_ONSTACK` run in this thread.
pub(crate) struct AlternateStack(libc::stack_t);

impl AlternateStack {
    /// Bytes; 0 where there is none.
    pub(crate) fn len(&self) -> usize {
        if self.0.ss_flags & libc::SS_DISABLE == 0 { self.0.ss_size } else { 0 }
    }
}

/// Makes `len` bytes from `start` on the place where this thread's handlers with `SA_ONSTACK` run; returns the one before.
///
/// # Safety
///
/// The range is writable and nobody else's until another place is set.
pub(crate) unsafe fn alternate_stack(start: NonNull<u8>, len: usize) -> io::Result<AlternateStack> {
    let new = libc::stack_t { ss_sp: start.as_ptr().cast(), ss_flags: 0, ss_size: len };
    // SAFETY: the place is fit for handlers (this function's contract).
    unsafe { set_alternate_stack(&AlternateStack(new)) }
}

/// Bytes of the place where this thread's handlers with `SA_ONSTACK` run; 0 if it has none.
pub(crate) fn alternate_stack_len() -> usize {
    let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: sets nothing; `now` is a valid place for the answer.
    check(unsafe { libc::sigaltstack(ptr::null(), &raw mut now) }).map_or(0, |()| AlternateStack(now).len())
}

/// [`alternate_stack`] for a place that was returned before.
///
/// # Safety
///
/// The place is as fit for handlers as it was then.
pub(crate) unsafe fn set_alternate_stack(new: &AlternateStack) -> io::Result<AlternateStack> {
    seam::ask(Call::AlternateStack)?;
    let mut before = AlternateStack(libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 });
    // SAFETY: `new` is fit for handlers (this function's contract), `before` a valid place for the answer.
    check(unsafe { libc::sigaltstack(&raw const new.0, &raw mut before.0) })?;
    Ok(before)
}

/// Tells each loaded object that binds functions when they are first called: its name, and how many they are.
pub(crate) fn each_lazy_object(tell: &mut dyn FnMut(&CStr, usize)) {
    /// What the C library hands to the callback, as it was handed in.
    type Teller<'a> = &'a mut dyn FnMut(&CStr, usize);

    extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr(3) passes a structure that is valid during the call.
        let info = unsafe { &*info };
        // SAFETY: the place of the teller, which nobody else uses during the call.
        let tell = unsafe { &mut *data.cast::<Teller<'_>>() };
        let functions = lazy_functions(info);
        if functions > 0 && !info.dlpi_name.is_null() {
            // SAFETY: the loader's name of the object, a C string that lives as long as the object is loaded.
            tell(unsafe { CStr::from_ptr(info.dlpi_name) }, functions);
        }
        0
    }

    let mut tell: Teller<'_> = tell;
    // SAFETY: the callback has the right signature, unwinds nowhere (a panic in it aborts), and is given its teller.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut tell).cast()) };
}

/// How many functions an object binds when they are first called: elf(5).
fn lazy_functions(info: &libc::dl_phdr_info) -> usize {
    const DT_PLTRELSZ: u64 = 2;
    const DT_JMPREL: u64 = 23;
    const DT_BIND_NOW: u64 = 24;
    const DT_FLAGS: u64 = 30;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const DF_BIND_NOW: u64 = 8;
    const DF_1_NOW: u64 = 1;
    /// `R_X86_64_JUMP_SLOT`; others in the table, as for functions that are chosen by the processor, are bound at once.
    const JUMP_SLOT: u64 = 7;

    let at = |address: u64| std::ptr::with_exposed_provenance::<u64>(address as usize);
    for number in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: the array has `dlpi_phnum` headers.
        let header = unsafe { info.dlpi_phdr.add(number) };
        // SAFETY: the loader keeps the headers of a loaded object, and changes none.
        let header = unsafe { &*header };
        if header.p_type != libc::PT_DYNAMIC {
            continue;
        }
        let mut entry = at(info.dlpi_addr + header.p_vaddr);
        let (mut table, mut size) = (0, 0);
        loop {
            // SAFETY: the dynamic section of a loaded object is an array of pairs of words that ends with a tag of 0.
            let [tag, value] = unsafe { entry.cast::<[u64; 2]>().read() };
            match tag {
                0 => break,
                DT_BIND_NOW => return 0,
                DT_FLAGS if value & DF_BIND_NOW != 0 => return 0,
                DT_FLAGS_1 if value & DF_1_NOW != 0 => return 0,
                DT_PLTRELSZ => size = value,
                // The C library writes addresses over the offsets that stand in the file.
                DT_JMPREL => table = if value < info.dlpi_addr { info.dlpi_addr + value } else { value },
                _ => {}
            }
            entry = entry.wrapping_add(2);
        }
        let slot = |number: u64| {
            // SAFETY: the table lies in the loaded object: `size` bytes of entries of three words each.
            let kind = unsafe { at(table + 24 * number + 8).read() };
            kind & 0xFFFF_FFFF == JUMP_SLOT
        };
        return if table == 0 { 0 } else { (0..size / 24).filter(|number| slot(*number)).count() };
    }
    0
}
