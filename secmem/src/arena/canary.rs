//! Bytes on both sides of a secret that must not change while it lives.
//!
//! Whoever writes past a secret, or before it, changes them, and is found out when the access ends or the secret does: by being
//! dropped or wiped, at its deadline, with its last use, in a purge. Then every arena is overwritten first, and only after that
//! the process is ended, without a dump. A forced purge alone looks at none: the process is ending anyway, or its handlers
//! are at work.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use super::list;
use crate::error::Error;
use crate::{ct, sys};

/// Bytes before a secret: what keeps it aligned to 16.
pub(super) const BEFORE: usize = 16;

/// Bytes after a secret.
const AFTER: usize = size_of::<u64>();

/// Bytes of a slot that are not the secret's.
pub(super) const BOTH: usize = BEFORE + AFTER;

/// Random, drawn with the first secret; 0 before that.
static KEY: AtomicU64 = AtomicU64::new(0);

/// Draws the key, if it is not there yet.
pub(super) fn ready() -> Result<(), Error> {
    if KEY.load(Ordering::Relaxed) == 0 {
        let mut key = [0; size_of::<u64>()];
        // So few bytes come whole or not at all (getrandom(2)).
        sys::random(&mut key).map_err(|source| Error::Random { source })?;
        // Of two threads that are here at once, the first one's key stands.
        let _ = KEY.compare_exchange(0, u64::from_ne_bytes(key) | 1, Ordering::Relaxed, Ordering::Relaxed);
    }
    Ok(())
}

/// The canaries of one slot. They depend on its address, so that those of one slot are no good for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canary {
    slot: NonNull<u8>,
    len: usize,
}

impl Canary {
    /// For a secret of `len` bytes in a slot of [`BOTH`] bytes more.
    ///
    /// # Safety
    ///
    /// The slot stays mapped, readable and writable as long as this value is used.
    pub(super) unsafe fn new(slot: NonNull<u8>, len: usize) -> Self {
        Self { slot, len }
    }

    #[inline]
    pub(super) fn set(self) {
        for (place, word) in self.words() {
            // SAFETY: the place lies within the slot, which is writable (`new`'s contract).
            unsafe { place.write_unaligned(word) };
        }
    }

    /// Whether no byte has changed. All are looked at, whatever the first ones say.
    #[inline]
    pub(super) fn intact(self) -> bool {
        compiler_fence(Ordering::SeqCst); // what `set` stored is not taken for what stands there now
        let changed = self.words().into_iter().fold(0, |changed, (place, word)| {
            // SAFETY: the place lies within the slot, which is readable (`new`'s contract).
            let found = unsafe { place.read_unaligned() }; // a whole word: volatile, it would be eight bytes one by one
            changed | (found ^ word)
        });
        ct::opaque(changed) == 0 // a compiler that knew the sum would stop at the first difference
    }

    #[inline]
    fn words(self) -> [(*mut u64, u64); 3] {
        let start = self.slot.as_ptr();
        let key = KEY.load(Ordering::Relaxed) ^ (start.addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let place = |at: usize| start.wrapping_add(at).cast::<u64>();
        [(place(0), key), (place(8), key.rotate_left(24)), (place(BEFORE + self.len), key.rotate_left(48))]
    }
}

/// Ends the process, after every secret. The damage is done, and by whom is not known: nothing here may be trusted.
#[cold]
pub(super) fn damaged() -> ! {
    if !cfg!(secmem_ablate = "damage-wipe") {
        list::purge_forced();
    }
    sys::complain("secmem: memory beside a secret was overwritten; every secret was wiped\n");
    sys::abort_without_dump()
}
