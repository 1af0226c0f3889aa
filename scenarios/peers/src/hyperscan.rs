//! Hyperscan (or Vectorscan) as a peer: many literals at once, by its C interface, where the machine has the library.
#![allow(unsafe_code)] // a foreign library: every call of it is a promise about its interface

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr::{null, null_mut};

use libloading::Library;

/// `HS_MODE_BLOCK` of hs_compile.h.
const BLOCK: c_uint = 1;

/// `HS_SUCCESS` of hs_common.h.
const SUCCESS: c_int = 0;

/// `hs_compile_lit_multi` of hs_compile.h (5.2).
type Compile = unsafe extern "C" fn(
    expressions: *const *const c_char,
    flags: *const c_uint,
    ids: *const c_uint,
    lengths: *const usize,
    elements: c_uint,
    mode: c_uint,
    platform: *const c_void,
    database: *mut *mut c_void,
    error: *mut *mut c_void,
) -> c_int;

/// `hs_alloc_scratch` of hs_runtime.h.
type Scratch = unsafe extern "C" fn(database: *const c_void, scratch: *mut *mut c_void) -> c_int;

/// `match_event_handler` of hs_runtime.h.
type OnMatch = unsafe extern "C" fn(c_uint, c_ulonglong, c_ulonglong, c_uint, *mut c_void) -> c_int;

/// `hs_scan` of hs_runtime.h.
type Scan = unsafe extern "C" fn(
    database: *const c_void,
    data: *const c_char,
    length: c_uint,
    flags: c_uint,
    scratch: *mut c_void,
    on_match: OnMatch,
    context: *mut c_void,
) -> c_int;

/// A compiled set of literals. Lives as long as the bench does, so nothing is given back.
pub struct Hyperscan {
    _library: Library,
    scan: Scan,
    database: *mut c_void,
    scratch: *mut c_void,
}

impl Hyperscan {
    /// Compiles the literals; the reason if that cannot be had on this machine.
    pub fn new(literals: &[&[u8]]) -> Result<Self, String> {
        // SAFETY: Hyperscan's initialisers ask the processor what it can and do nothing else.
        let library = unsafe { Library::new("libhs.so.5") }
            .map_err(|_| "no libhs.so.5 on this machine (Debian: libhyperscan5)".to_owned())?;
        // SAFETY: the name and the type are those of hs_compile.h.
        let compile =
            unsafe { library.get::<Compile>(b"hs_compile_lit_multi\0") }.map_err(|error| error.to_string())?;
        // SAFETY: the name and the type are those of hs_runtime.h.
        let make_scratch =
            unsafe { library.get::<Scratch>(b"hs_alloc_scratch\0") }.map_err(|error| error.to_string())?;
        // SAFETY: the name and the type are those of hs_runtime.h.
        let scan = *unsafe { library.get::<Scan>(b"hs_scan\0") }.map_err(|error| error.to_string())?;

        let expressions: Vec<*const c_char> = literals.iter().map(|literal| literal.as_ptr().cast()).collect();
        let lengths: Vec<usize> = literals.iter().map(|literal| literal.len()).collect();
        let flags = vec![0; literals.len()];
        let ids: Vec<c_uint> = (0..).take(literals.len()).collect(); // all the same take minutes to compile
        let (mut database, mut error) = (null_mut(), null_mut());
        // SAFETY:
        // - the four lists have `elements` entries each and live through the call, as do the literals;
        // - no platform means this one; the last two are places for one pointer each.
        let compiled = unsafe {
            compile(
                expressions.as_ptr(),
                flags.as_ptr(),
                ids.as_ptr(),
                lengths.as_ptr(),
                literals.len() as c_uint,
                BLOCK,
                null(),
                &raw mut database,
                &raw mut error,
            )
        };
        if compiled != SUCCESS {
            return Err(format!("Hyperscan refused {} literals", literals.len()));
        }
        let mut scratch = null_mut();
        // SAFETY: `database` was just compiled; a null scratch asks for a new one.
        let made = unsafe { make_scratch(database, &raw mut scratch) };
        if made != SUCCESS {
            return Err("Hyperscan got no memory to work in".to_owned());
        }
        Ok(Self { _library: library, scan, database, scratch })
    }

    /// How many matches end in those bytes.
    pub fn count(&self, bytes: &[u8]) -> u64 {
        let mut count = 0_u64;
        let length = c_uint::try_from(bytes.len()).expect("a few MiB");
        // SAFETY:
        // - database and scratch belong together, and this thread alone uses them: `Hyperscan` is neither Send nor Sync;
        // - `bytes` is borrowed through the call; `add` takes the context for the `u64` that it is.
        let scanned = unsafe {
            (self.scan)(self.database, bytes.as_ptr().cast(), length, 0, self.scratch, add, (&raw mut count).cast())
        };
        assert_eq!(scanned, SUCCESS, "Hyperscan scans a block");
        count
    }
}

/// Counts one match and asks for more.
unsafe extern "C" fn add(_: c_uint, _: c_ulonglong, _: c_ulonglong, _: c_uint, context: *mut c_void) -> c_int {
    // SAFETY: `count` passes a pointer to its own `u64`, which nobody else touches while the scan runs.
    unsafe { *context.cast::<u64>() += 1 };
    0
}
