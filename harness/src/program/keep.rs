//! Freed memory that stays as it was: a library of ours is loaded into the program, which then never reuses what it frees.
//!
//! Whether it was loaded is looked up in the mappings of every process that is looked at: programs that are linked
//! statically, that get rights by their set-user-ID bit or that clear their environment do not load it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use findings::KeptFreed;
use object::LittleEndian;
use object::elf::{FileHeader64, SHT_DYNSYM};
use object::read::elf::{FileHeader, Sym};

use crate::snapshot;
use crate::target::Process;

/// The symbol behind which the library counts, and what stands there first (`harness/keep-freed`).
const SYMBOL: &[u8] = b"RESIDUE_KEPT_FREED";
const MAGIC: u64 = 0x6b65_7074_6672_6565;

/// Bytes that such a library may have.
const LARGEST: u64 = 256 << 20;

/// Why freed memory cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The library cannot be read.
    #[error("read {path}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Some other file.
    #[error("{path} is not the library that keeps freed memory")]
    Other {
        /// Its path.
        path: String,
    },
    /// The dynamic linker takes these letters for the end of a name (ld.so(8), *LD_PRELOAD*).
    #[error("{path}: a library whose path holds a space or a colon cannot be loaded into a program; move it")]
    Path {
        /// Its path.
        path: String,
    },
}

/// The library, ready to be loaded into programs.
pub(super) struct Keeper {
    path: Vec<u8>,
    device: u64,
    inode: u64,
    /// Where its account lies, counted from where the library begins in memory.
    account: u64,
}

impl Keeper {
    /// Reads the library at a path.
    pub(super) fn new(path: &Path) -> Result<Self, KeepError> {
        let name = || path.display().to_string();
        let failed = |source| KeepError::Read { path: name(), source };
        let whole = path.canonicalize().map_err(failed)?;
        let meta = whole.metadata().map_err(failed)?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(KeepError::Other { path: name() });
        }
        let bytes = std::fs::read(&whole).map_err(failed)?;
        let account = account(&bytes).ok_or_else(|| KeepError::Other { path: name() })?;
        let path = whole.as_os_str().as_bytes().to_vec();
        if path.iter().any(|letter| letter.is_ascii_whitespace() || *letter == b':') {
            return Err(KeepError::Path { path: name() });
        }
        Ok(Self { path, device: meta.dev(), inode: meta.ino(), account })
    }

    /// Has the program load it, before what it is asked to load otherwise.
    pub(super) fn preload(&self, envp: &mut Vec<CString>) {
        const NAME: &[u8] = b"LD_PRELOAD=";
        let before = envp.iter().position(|variable| variable.as_bytes().starts_with(NAME));
        let before = before.map(|number| envp.remove(number));
        let others = before.as_ref().map_or(&b""[..], |variable| &variable.as_bytes()[NAME.len()..]);
        let separator: &[u8] = if others.is_empty() { b"" } else { b":" };
        let variable = [NAME, &self.path, separator, others].concat();
        envp.extend(CString::new(variable)); // neither a path nor a variable holds a NUL
    }

    /// What was kept in a process that stands still, or why nothing was, in words.
    pub(super) fn kept(&self, process: &Process) -> Result<KeptFreed, String> {
        let regions = snapshot::regions(process).map_err(|error| crate::session::chain(&error))?;
        let loaded = regions.iter().find(|region| {
            (region.inode, region.offset) == (self.inode, 0) && region.name.as_bytes() == self.path
                || (region.inode, region.device, region.offset) == (self.inode, self.device, 0)
        });
        let Some(loaded) = loaded else {
            return Err("the library that keeps it is not loaded there (a program that is linked statically, has a \
                        set-user-ID bit or clears its environment?)"
                .to_owned());
        };
        let mut bytes = [0; 32];
        let read = process.mem.read_exact_at(&mut bytes, loaded.start + self.account);
        read.map_err(|error| format!("the account of the library that keeps it cannot be read: {error}"))?;
        let mut words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let [magic, blocks, bytes, released] = [(); 4].map(|()| words.next().unwrap_or(0));
        if magic != MAGIC {
            return Err("the account of the library that keeps it is not where it should be".to_owned());
        }
        Ok(KeptFreed { blocks, bytes, released })
    }
}

/// The address of the account in a library that was not loaded yet.
fn account(library: &[u8]) -> Option<u64> {
    let elf = FileHeader64::<LittleEndian>::parse(library).ok()?;
    let endian = elf.endian().ok()?;
    let symbols = elf.sections(endian, library).ok()?.symbols(endian, library, SHT_DYNSYM).ok()?;
    let symbol = symbols.iter().find(|symbol| symbols.symbol_name(endian, symbol).is_ok_and(|name| name == SYMBOL))?;
    Some(symbol.st_value(endian))
}
