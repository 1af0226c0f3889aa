//! The environment in place: the strings that the program's variables are, and the block that execve(2) laid out, which
//! `/proc/PID/environ` shows.

use std::ffi::{CStr, OsStr, c_char};
use std::io;

unsafe extern "C" {
    /// environ(7)
    static mut environ: *mut *mut c_char;
}

/// Lends `look` the value of each variable of that name, the one that getenv(3) finds first.
///
/// # Safety
///
/// No other thread uses the environment meanwhile, and nobody has a reference to such a value.
pub(crate) unsafe fn each_value(name: &[u8], look: &mut dyn FnMut(&mut [u8])) {
    // SAFETY: nobody else reads or writes the pointer now (this function's contract).
    let mut at = unsafe { environ };
    while !at.is_null() {
        // SAFETY: an array of pointers that ends with a null pointer, whose end was not passed.
        let entry = unsafe { at.read() };
        if entry.is_null() {
            return;
        }
        // SAFETY: each entry is a C string.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        let len = text.len();
        if let Some(begin) = value_of(text, name) {
            // SAFETY: within the string.
            let start = unsafe { entry.cast::<u8>().add(begin) };
            // SAFETY: the rest of the string, to which nobody else refers (this function's contract). Strings of the block and
            // of setenv(3) can be written to; those that putenv(3) was given are the program's own.
            look(unsafe { std::slice::from_raw_parts_mut(start, len - begin) });
        }
        // SAFETY: the entry was not the last one.
        at = unsafe { at.add(1) };
    }
}

/// Lends `look` the value of each variable of that name in the block that execve(2) laid out, where it stands also when the
/// program has set the variable to something else.
///
/// # Safety
///
/// As [`each_value`].
pub(crate) unsafe fn each_value_in_block(name: &[u8], look: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
    let (start, end) = block()?;
    let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel laid the strings out on the stack, above all frames, where they stay; nobody refers to them now
    // (this function's contract).
    let block = unsafe { std::slice::from_raw_parts_mut(start, end) };
    for text in block.split_mut(|byte| *byte == 0) {
        if let Some(begin) = value_of(text, name) {
            look(&mut text[begin..]);
        }
    }
    Ok(())
}

/// Removes a variable from what the program and its children get.
///
/// # Safety
///
/// As [`each_value`].
pub(crate) unsafe fn remove(name: &OsStr) {
    // SAFETY: no other thread uses the environment (this function's contract).
    unsafe { std::env::remove_var(name) };
}

/// Where the value begins in `name=value`.
fn value_of(text: &[u8], name: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(name)?.strip_prefix(b"=")?;
    Some(text.len() - rest.len())
}

/// Start and length of the block: proc_pid_stat(5), fields 50 and 51, *env_start* and *env_end*.
fn block() -> io::Result<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in the second field can hold anything, also blanks and brackets.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(47).map(|field| field.parse::<usize>().ok());
    match (fields.next().flatten(), fields.next().flatten()) {
        (Some(start), Some(end)) if start != 0 && start <= end => Ok((start, end - start)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_begins_behind_its_own_name_alone() {
        assert_eq!(value_of(b"KEY=abc", b"KEY"), Some(4));
        assert_eq!(value_of(b"KEY=", b"KEY"), Some(4));
        for other in [&b"KEY"[..], b"KEYS=abc", b"MY_KEY=abc", b"KE", b""] {
            assert_eq!(value_of(other, b"KEY"), None);
        }
    }

    #[test]
    fn the_block_is_what_the_kernel_shows() {
        let (start, len) = block().unwrap();
        let shown = std::fs::read("/proc/self/environ").unwrap();

        assert_ne!(start, 0);
        assert_eq!(len, shown.len());
    }
}
