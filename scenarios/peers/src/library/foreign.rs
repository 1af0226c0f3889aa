//! Peers that are foreign functions, or take raw pointers: the C library, libsodium and OpenSSL where the machine has them,
//! the crate `memsec`, and loops as people write them.
#![allow(unsafe_code)] // each call of a peer is a promise about its interface

use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;
use std::ptr::null;

use libloading::Library;

/// What every allocating peer holds.
const KEY: [u8; 32] = [7; 32];

/// `explicit_bzero` of the C library.
pub fn explicit_bzero(data: &mut [u8]) {
    // SAFETY: the slice is writable for its whole length.
    unsafe { libc::explicit_bzero(data.as_mut_ptr().cast(), data.len()) }
}

/// `memzero` of memsec.
pub fn memsec_memzero(data: &mut [u8]) {
    // SAFETY: the slice is writable for its whole length.
    unsafe { memsec::memzero(data.as_mut_ptr(), data.len()) }
}

/// Six passes of volatile bytes, the random one from the kernel: the loop that people write.
pub fn volatile_six(data: &mut [u8]) {
    let pass = |data: &mut [u8], byte| {
        for place in data {
            // SAFETY: a reference to a byte can be written through.
            unsafe { std::ptr::write_volatile(place, byte) };
        }
    };
    for byte in [0x00, 0xFF, 0xAA, 0x55] {
        pass(data, byte);
    }
    let mut rest = &mut *data;
    while !rest.is_empty() {
        // SAFETY: the slice is writable for its whole length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        rest = &mut rest[usize::try_from(got).unwrap_or(0)..];
    }
    pass(data, 0x00);
}

/// `memcmp` of the C library, which stops at the first difference: the reference, not a peer.
pub fn memcmp(a: &[u8], b: &[u8]) -> bool {
    // SAFETY: both slices are readable for that length, which the caller makes equal.
    unsafe { libc::memcmp(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0 }
}

/// `memeq` of memsec.
pub fn memsec_memeq(a: &[u8], b: &[u8]) -> bool {
    // SAFETY: both slices are readable for that length, which the caller makes equal.
    unsafe { memsec::memeq(a.as_ptr(), b.as_ptr(), a.len()) }
}

/// Makes, writes and frees 32 bytes with memsec.
pub fn memsec_secret() {
    // SAFETY: the allocation is written to before anything reads it.
    let Some(place) = (unsafe { memsec::malloc::<[u8; 32]>() }) else { return };
    // SAFETY: the allocation holds 32 bytes.
    unsafe { place.as_ptr().write(black_box(KEY)) };
    // SAFETY: it is freed once, and nobody refers to it.
    unsafe { memsec::free(place) };
}

type Zero = unsafe extern "C" fn(*mut c_void, usize);
type Compare = unsafe extern "C" fn(*const c_void, *const c_void, usize) -> c_int;

/// Some of libsodium's functions.
#[derive(Clone, Copy)]
pub struct Sodium {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    memzero: Zero,
    memcmp: Compare,
}

impl Sodium {
    /// The library; the reason if this machine has none.
    pub fn load() -> Result<Self, String> {
        let library = load(&["libsodium.so.26", "libsodium.so.23"])?;
        // SAFETY: the name and the type are those of sodium/core.h.
        let init = *unsafe { library.get::<unsafe extern "C" fn() -> c_int>(b"sodium_init") }.map_err(said)?;
        // SAFETY: it may be called at any time.
        if unsafe { init() } < 0 {
            return Err("sodium_init failed".to_owned());
        }
        Ok(Self {
            // SAFETY: the name and the type are those of sodium/utils.h.
            malloc: *unsafe { library.get(b"sodium_malloc") }.map_err(said)?,
            // SAFETY: as above.
            free: *unsafe { library.get(b"sodium_free") }.map_err(said)?,
            // SAFETY: as above.
            memzero: *unsafe { library.get(b"sodium_memzero") }.map_err(said)?,
            // SAFETY: as above.
            memcmp: *unsafe { library.get(b"sodium_memcmp") }.map_err(said)?,
        })
    }

    /// `sodium_memzero`.
    pub fn zero(self, data: &mut [u8]) {
        // SAFETY: the slice is writable for its whole length.
        unsafe { (self.memzero)(data.as_mut_ptr().cast(), data.len()) }
    }

    /// `sodium_memcmp`.
    pub fn eq(self, a: &[u8], b: &[u8]) -> bool {
        // SAFETY: both slices are readable for that length, which the caller makes equal.
        unsafe { (self.memcmp)(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0 }
    }

    /// Makes, writes and frees 32 bytes.
    pub fn secret(self) {
        // SAFETY: libsodium was initialised.
        let place = unsafe { (self.malloc)(KEY.len()) };
        if place.is_null() {
            return;
        }
        // SAFETY: the allocation holds as many bytes.
        unsafe { place.cast::<[u8; 32]>().write_unaligned(black_box(KEY)) };
        // SAFETY: it is freed once, and nobody refers to it.
        unsafe { (self.free)(place) };
    }
}

/// Some of OpenSSL's functions.
#[derive(Clone, Copy)]
pub struct OpenSsl {
    malloc: unsafe extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int),
    cleanse: Zero,
    memcmp: Compare,
}

impl OpenSsl {
    /// The library with an arena of 64 KiB; the reason if this machine has none.
    pub fn load() -> Result<Self, String> {
        let library = load(&["libcrypto.so.3", "libcrypto.so.1.1"])?;
        type Init = unsafe extern "C" fn(usize, usize) -> c_int;
        // SAFETY: the name and the type are those of openssl/crypto.h.
        let init = *unsafe { library.get::<Init>(b"CRYPTO_secure_malloc_init") }.map_err(said)?;
        // SAFETY: it is called once; both are powers of two.
        if unsafe { init(64 << 10, 16) } == 0 {
            return Err("CRYPTO_secure_malloc_init failed".to_owned());
        }
        Ok(Self {
            // SAFETY: the name and the type are those of openssl/crypto.h.
            malloc: *unsafe { library.get(b"CRYPTO_secure_malloc") }.map_err(said)?,
            // SAFETY: as above.
            free: *unsafe { library.get(b"CRYPTO_secure_clear_free") }.map_err(said)?,
            // SAFETY: as above.
            cleanse: *unsafe { library.get(b"OPENSSL_cleanse") }.map_err(said)?,
            // SAFETY: as above.
            memcmp: *unsafe { library.get(b"CRYPTO_memcmp") }.map_err(said)?,
        })
    }

    /// `OPENSSL_cleanse`.
    pub fn zero(self, data: &mut [u8]) {
        // SAFETY: the slice is writable for its whole length.
        unsafe { (self.cleanse)(data.as_mut_ptr().cast(), data.len()) }
    }

    /// `CRYPTO_memcmp`.
    pub fn eq(self, a: &[u8], b: &[u8]) -> bool {
        // SAFETY: both slices are readable for that length, which the caller makes equal.
        unsafe { (self.memcmp)(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0 }
    }

    /// Makes, writes, wipes and frees 32 bytes.
    pub fn secret(self) {
        // SAFETY: file and line are for its own reports, and may be none.
        let place = unsafe { (self.malloc)(KEY.len(), null(), 0) };
        if place.is_null() {
            return;
        }
        // SAFETY: the allocation holds as many bytes.
        unsafe { place.cast::<[u8; 32]>().write_unaligned(black_box(KEY)) };
        // SAFETY: it is freed once, with its length, and nobody refers to it.
        unsafe { (self.free)(place, KEY.len(), null(), 0) };
    }
}

/// The first of these libraries that the machine has; never unloaded, for its functions are kept.
fn load(names: &[&str]) -> Result<&'static Library, String> {
    for name in names {
        // SAFETY: the initialisers of these libraries set up their own state and do nothing else.
        if let Ok(library) = unsafe { Library::new(*name) } {
            return Ok(Box::leak(Box::new(library)));
        }
    }
    Err(format!("no {} on this machine", names.join(", no ")))
}

fn said(error: libloading::Error) -> String {
    error.to_string()
}
