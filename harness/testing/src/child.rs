//! The process that is looked at: plants the secret, calls the closure, ends. Nothing of ours copies the secret: it goes
//! from the descriptor into one mapping, which is wiped and given back.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use memmap2::MmapMut;
use zeroize::Zeroize;

/// The variable that makes a process one of ours: which check of the test it is here for, and the secret's length.
pub(crate) const VARIABLE: &str = "RESIDUE_TEST";

/// Where it finds the secret: out of the way of descriptors that programs open.
pub(crate) const DESCRIPTOR: i32 = 62;

/// Exit status after a closure that has returned. One that hardly anybody else ends with: a closure that ends the
/// process itself has to be told apart.
pub(crate) const RETURNED: i32 = 86;

/// Exit status after a closure that has panicked.
pub(crate) const PANICKED: i32 = 87;

/// Exit status when the secret could not be read.
pub(crate) const NOT_PLANTED: i32 = 88;

/// Bytes of stack between the closure and what comes after it, which would overwrite the frames that the closure leaves.
const GAP: usize = 64 * 1024;

/// What a process of ours is here for.
pub(crate) struct Task {
    /// Which check of the test, from 1.
    pub(crate) number: u32,
    length: usize,
}

impl Task {
    /// The task of this process; `None` in one that the user started.
    pub(crate) fn given() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let (number, length) = text.split_once(':')?;
        Some(Self { number: number.parse().ok()?, length: length.parse().ok()? })
    }

    /// What [`given`](Self::given) reads.
    pub(crate) fn text(number: u32, length: usize) -> String {
        format!("{number}:{length}")
    }
}

/// Calls the closure with the secret and ends the process.
pub(crate) fn run(task: &Task, closure: impl FnOnce(&[u8])) -> ! {
    // Its message could hold the secret, as that of a failed comparison would.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("the closure panicked at {place}; what it said is not shown, for it could hold the secret");
    }));
    let status = match plant(task.length) {
        Ok(mut home) => {
            let returned = below(|| catch_unwind(AssertUnwindSafe(|| closure(&home[..task.length]))).is_ok());
            home.zeroize();
            drop(home);
            if returned { RETURNED } else { PANICKED }
        }
        Err(error) => {
            eprintln!("the secret could not be read: {error}");
            NOT_PLANTED
        }
    };
    std::process::exit(status)
}

/// A mapping with the secret. The read that brings it is where it is seen first.
fn plant(length: usize) -> io::Result<MmapMut> {
    let mut home = MmapMut::map_anon(length)?;
    // Opened anew, because a descriptor that is known by its number alone cannot be owned without unsafe code.
    File::open(format!("/proc/self/fd/{DESCRIPTOR}"))?.read_exact(&mut home[..length])?;
    Ok(home)
}

/// Does the work with its frames far below ours.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    let gap = [0_u8; GAP];
    black_box(&gap);
    let done = work();
    black_box(&gap); // it has to be there until now
    done
}
