//! Taking a variable out of the process's own block of variables, so that neither it nor `/proc/PID/environ` has it any more.

use std::ffi::{CStr, c_char};
use std::{fs, io};

use crate::wipe;

unsafe extern "C" {
    /// environ(7): pointers to `NAME=value`, a null pointer last.
    static mut environ: *mut *mut c_char;
}

/// Gives the value of the first variable of that name to `take`, then overwrites every one of that name and removes it.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] while the process has a thread besides this one, which might be reading the block;
/// [`io::ErrorKind::ReadOnlyFilesystem`] where the program has put the variable into memory that cannot be written; those of
/// reading `/proc/self`. Nothing was taken then.
pub(crate) fn take_variable<R>(name: &str, take: impl FnOnce(&[u8]) -> R) -> io::Result<Option<R>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut take = Some(take);
    let mut taken = None;
    let mut at = 0;
    while let Some(entry) = entry(at) {
        // SAFETY: entries are strings with an end, of which nobody else has a reference: there is no other thread.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        let Some(value) = text.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) else {
            at += 1;
            continue;
        };
        if !is_writable(entry.addr(), text.len())? {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if let Some(take) = take.take() {
            taken = Some(take(value));
        }
        let len = text.len();
        // SAFETY: the string is that long, its memory can be written (asked above), and the references to it are gone.
        let text = unsafe { std::slice::from_raw_parts_mut(entry.cast::<u8>(), len) };
        wipe::wipe(text);
        remove(at);
    }
    Ok(taken)
}

/// The string at that place; `None` at the end.
fn entry(at: usize) -> Option<*mut c_char> {
    // SAFETY: a pointer that is read; no other thread changes it.
    let block = unsafe { environ };
    if block.is_null() {
        return None; // clearenv(3)
    }
    // SAFETY: the callers go up one by one and stop at the null pointer, which belongs to the block.
    let place = unsafe { block.add(at) };
    // SAFETY: that place is within the block, which no other thread changes.
    let entry = unsafe { place.read() };
    (!entry.is_null()).then_some(entry)
}

/// Moves the later ones, and the null pointer, one place forward.
fn remove(mut at: usize) {
    loop {
        let next = entry(at + 1);
        // SAFETY: a pointer that is read; no other thread changes it.
        let block = unsafe { environ };
        // SAFETY: `at` is the place of an entry, so within the block.
        let place = unsafe { block.add(at) };
        // SAFETY: the block can be written, as setenv(3) does; no other thread reads it.
        unsafe { place.write(next.unwrap_or(std::ptr::null_mut())) };
        if next.is_none() {
            return;
        }
        at += 1;
    }
}

/// Whether a range lies in one mapping that can be written.
fn is_writable(start: usize, len: usize) -> io::Result<bool> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().any(|line| {
        let mut words = line.split(' ');
        let (range, access) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let ends = range.split_once('-').and_then(|(low, high)| Some((number(low)?, number(high)?)));
        ends.is_some_and(|(low, high)| low <= start && start + len <= high) && access.as_bytes().get(1) == Some(&b'w')
    }))
}
