//! A process to acquire: this program again, with memory of one kind, standing still until its input ends.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use memmap2::{Advice, MmapMut, MmapOptions};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Bytes of memory that a target touches.
pub const TOUCHED: usize = 1024 * MIB;

/// What kind of memory a target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1 GiB in pages of 4 KiB.
    Small,
    /// 1 GiB in huge pages, as far as the kernel has them.
    Huge,
    /// 64 GiB reserved, of which 1 GiB is touched: 16 KiB in each MiB.
    Sparse,
}

impl Kind {
    /// All kinds, by the word that a target is started with.
    pub const ALL: [(&'static str, Self); 3] = [("4K", Self::Small), ("huge", Self::Huge), ("sparse", Self::Sparse)];
}

/// A running target; it ends when this is dropped.
pub struct Target(Child);

impl Target {
    /// Starts one and waits until its memory is there.
    pub fn start(word: &str) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(["target", word]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let target = Self(child);
        let mut line = String::new();
        if BufReader::new(stdout).read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("the target with {word} memory ended")));
        }
        Ok(target)
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be gone
        let _ = self.0.wait();
    }
}

/// What a target does.
pub fn stand(word: &str) -> io::Result<()> {
    let kind = Kind::ALL.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    let memory = fill(kind.ok_or(io::ErrorKind::InvalidInput)?)?;
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(memory);
    Ok(())
}

fn fill(kind: Kind) -> io::Result<MmapMut> {
    let mut random = vec![0; MIB];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    let size = if kind == Kind::Sparse { 64 * TOUCHED } else { TOUCHED };
    let mut memory = MmapOptions::new().len(size).no_reserve_swap().map_anon()?;
    memory.advise(if kind == Kind::Huge { Advice::HugePage } else { Advice::NoHugePage })?;
    let here = if kind == Kind::Sparse { 4 * PAGE } else { MIB };
    for (number, piece) in (0_u64..).zip(memory.chunks_mut(MIB)) {
        piece[..here].copy_from_slice(&random[..here]);
        piece[..8].copy_from_slice(&number.to_le_bytes()); // no two alike
    }
    Ok(memory)
}
