//! Which loaded objects find their functions only when they first call them.
//!
//! The loader's resolver then runs in the middle of a call and saves the registers that carry arguments, vector registers among
//! them, on the stack that is in use (elf(5), `DT_BIND_NOW`; ld.so(8), `LD_BIND_NOW`). On the stack of [`run`](super::run) that
//! is overwritten; elsewhere it stays.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::sys::stack;

/// An object of this process (the program or a shared library) with functions that are bound when they are first called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LazilyBound {
    /// Where the loader found it; empty for the program itself.
    pub object: PathBuf,
    /// How many functions it looks up that way, if it calls them all.
    pub functions: usize,
}

/// The objects that are loaded now and bound lazily.
///
/// rustc links programs so that they are not (`-C relro-level=full`). Libraries of the system often are; with `LD_BIND_NOW=1` in
/// the environment of its start, a process binds all of them at once, and the answer is empty. What is opened later by
/// `dlopen` is not known yet: ask again.
#[must_use]
pub fn lazily_bound() -> Vec<LazilyBound> {
    // As ld.so(8) reads it: set, and not empty. It was read when the process started; who changed it since misleads this.
    if std::env::var_os("LD_BIND_NOW").is_some_and(|value| !value.is_empty()) {
        return Vec::new();
    }
    let mut found = Vec::new();
    stack::each_lazy_object(&mut |name, functions| {
        let object = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
        found.push(LazilyBound { object, functions });
    });
    found
}
