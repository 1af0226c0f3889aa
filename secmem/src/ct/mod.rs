//! Work on secrets in a time that does not depend on their bytes.
//!
//! Every byte is read, whatever the others say; nothing branches on a byte, and no byte chooses which memory is read.
//! Differences and masks are hidden from the compiler, which could turn them back into branches. What depends on the
//! lengths are times and addresses: lengths are no secret here. Results go into the caller's place, which can be a slot
//! of a secret; in between they stand in registers alone, which each function clears when it is done
//! (without optimisation also on the stack, which is then overwritten).
//!
//! [`eq`] says whether bytes are the same; [`compare`] which come first. [`select`], [`copy_if`], [`swap_if`] and [`look_up`]
//! choose by a [`Choice`] or an index that nobody is to know. [`hex`] and [`base64`] write text and read it.
//!
//! Tests follow each function instruction by instruction for different secrets; `cargo bench --bench ct` measures times.

pub mod base64;
mod choice;
mod eq;
pub mod hex;
mod hidden;
mod order;
mod pick;
mod text;
mod words;

pub use choice::Choice;
pub use eq::eq;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(miri)))]
pub(crate) use eq::eq_by_sse2;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub(crate) use eq::is_zero;
#[cfg(all(feature = "std", target_os = "linux"))]
pub(crate) use hidden::opaque;
pub use order::{Order, compare};
pub use pick::{copy_if, look_up, select, swap_if};
pub use text::CodecError;

/// The end of a decoder: if anything was `wrong`, what it wrote is overwritten. That is told anyway.
fn settle(wrong: u64, into: &mut [u8]) -> Result<(), CodecError> {
    if hidden::opaque(wrong) == 0 {
        return Ok(());
    }
    crate::wipe::wipe(into);
    Err(CodecError::Invalid)
}

#[cfg(test)]
mod tests;
