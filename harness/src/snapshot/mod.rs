//! What a stopped target holds: mappings, memory, registers, and its core.
//!
//! Bytes go from here to a scan in pieces and are wiped behind it; only who compares runs keeps them, for as long as that takes. What could not be read is
//! counted, to the byte, in [`findings::Coverage`].

mod core;
mod dump;
mod exposure;
mod holes;
mod kept;
mod live;
mod maps;
mod notes;
mod pages;
mod places;
mod registers;
mod shared;
mod steady;
mod stored;
mod xsave;

pub(crate) use core::find as find_core;
pub use core::{CoreError, Part, read as read_core};
pub(crate) use core::{read_stream as read_core_stream, read_until as read_core_until};
pub use dump::DumpError;
pub(crate) use dump::{Extent, write as write_core};
pub(crate) use exposure::read as exposure;
pub(crate) use holes::{edges, next_data};
pub(crate) use kept::{Step, Store, read as read_kept, stable_part, waiting_to_be_read};
pub(crate) use live::{Injection, read as read_live};
use maps::InitialStack;
#[cfg(test)]
pub(crate) use maps::parse as parse_maps;
pub(crate) use maps::regions;
pub use maps::{MapsError, Region};
pub(crate) use notes::Notes;
pub(crate) use places::Places;
pub(crate) use registers::{
    RegisterPart, Registers, explained as explained_registers, name as register_name, read as read_registers,
};

pub(crate) use stored::{Stored, begins_core, open as open_stored};

/// Bytes that one read moves: small enough to stay in the cache for the scan that follows it.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Bytes of a page on x86-64.
pub(crate) const PAGE: u64 = 4096;
