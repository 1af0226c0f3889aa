//! A process to acquire: this program again, with memory of one kind, standing still until its input ends.

use std::io::{self, BufRead, BufReader, IoSliceMut, Read};
use std::process::{Child, Command, Stdio};

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

const MIB: usize = 1 << 20;
/// What a sparse target touches of each MiB.
const HERE: usize = 16 << 10;

/// Read at once by [`Target::copy`]: what stays in the cache.
const BUFFER: usize = 256 << 10;

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

    /// The least that copying, and copying with a search, may reach of process_vm_readv by itself: what a prototype
    /// reached on another machine.
    pub fn targets(self) -> (f64, Option<f64>) {
        match self {
            Self::Small => (0.98, Some(0.73)),
            Self::Huge => (0.97, Some(0.39)),
            Self::Sparse => (0.88, None),
        }
    }
}

/// A running target; it ends when this is dropped.
pub struct Target {
    child: Child,
    kind: Kind,
    /// Where its memory begins.
    start: usize,
}

impl Target {
    /// Starts one and waits until its memory is there.
    pub fn start(word: &str, kind: Kind) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(["target", word]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut target = Self { child, kind, start: 0 };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let start = line.trim_end().parse();
        target.start = start.map_err(|_| io::Error::other(format!("the target with {word} memory ended")))?;
        Ok(target)
    }

    /// Copies what it has touched into a buffer, and does nothing else: as fast as the kernel lets anyone. Returns how
    /// many bytes that were.
    pub fn copy(&self) -> io::Result<usize> {
        let pid = Pid::from_raw(self.pid());
        let stretch = if self.kind == Kind::Sparse { HERE } else { BUFFER };
        let step = if self.kind == Kind::Sparse { MIB } else { BUFFER };
        let stretches: Vec<_> = (0..TOUCHED / stretch)
            .map(|number| RemoteIoVec { base: self.start + number * step, len: stretch })
            .collect();
        let mut buffer = vec![0; BUFFER];
        let mut bytes = 0;
        for parts in stretches.chunks(BUFFER / stretch) {
            bytes += process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], parts)?;
        }
        Ok(bytes)
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be gone
        let _ = self.child.wait();
    }
}

/// What a target does.
pub fn stand(word: &str) -> io::Result<()> {
    let kind = Kind::ALL.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    let memory = fill(kind.ok_or(io::ErrorKind::InvalidInput)?)?;
    println!("{}", memory.as_ptr().addr());
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
    let here = if kind == Kind::Sparse { HERE } else { MIB };
    for (number, piece) in (0_u64..).zip(memory.chunks_mut(MIB)) {
        piece[..here].copy_from_slice(&random[..here]);
        piece[..8].copy_from_slice(&number.to_le_bytes()); // no two alike
    }
    Ok(memory)
}
