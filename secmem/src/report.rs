//! What the whole process got of what it asked for, and whether the kernel agrees.
//!
//! A report says what the calls answered when memory was made. [`verify`] does not believe it: it reads
//! `/proc/self/smaps`, where a later `munlock` or `MADV_DODUMP`, of a library or of a bug, shows as a missing flag.

use std::fmt;
use std::ops::Range;

use crate::arena::register::{self, Stretch};
use crate::arena::{self, Backend};
use crate::error::Error;
use crate::harden::Posture;
use crate::policy::{Control, Policy, Reached};
use crate::stats::Statistics;

/// One mapping that holds secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaReport {
    /// The kind of memory; never [`Backend::Auto`].
    pub backend: Backend,
    /// Bytes of data, whole pages.
    pub bytes: usize,
    /// Secrets that live in it.
    pub live: usize,
    /// Whether it is closed between accesses.
    pub sealed: bool,
    /// What came of each control that concerns pages.
    pub controls: Vec<Reached>,
}

impl ArenaReport {
    pub(crate) fn is_locked(&self) -> bool {
        is_locked(&self.controls)
    }
}

/// A protected stack, or that of its signal handlers: see `scrub`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackReport {
    /// The kind of memory; never [`Backend::Auto`].
    pub backend: Backend,
    /// Bytes, whole pages.
    pub bytes: usize,
    /// Whether code runs on it; that of the handlers is taken as long as the other one, and does not say so.
    pub running: bool,
    /// What came of each control that concerns pages.
    pub controls: Vec<Reached>,
}

impl StackReport {
    pub(crate) fn is_locked(&self) -> bool {
        is_locked(&self.controls)
    }
}

fn is_locked(controls: &[Reached]) -> bool {
    controls.iter().any(|it| it.control == Control::Lock && it.reached)
}

/// The state of the whole process, as far as it concerns secrets. See [`Report::now`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Who may read the process, and what a crash leaves.
    pub posture: Posture,
    /// Whether a forked child knows that it is one, however it was made; `None` before the first secret, when there is nothing to know.
    pub fork_witness: Option<Reached>,
    /// Every mapping that holds secrets.
    pub arenas: Vec<ArenaReport>,
    /// Every protected stack, and that of its signal handlers.
    pub stacks: Vec<StackReport>,
    /// Counts.
    pub statistics: Statistics,
}

impl Report {
    /// As it is now.
    ///
    /// # Errors
    ///
    /// As [`Posture::now`].
    pub fn now() -> Result<Self, Error> {
        Ok(Self {
            posture: Posture::now()?,
            fork_witness: arena::has_fork_witness().then(|| arena::fork_witness(Policy::default())),
            arenas: arenas(),
            stacks: stacks(),
            statistics: Statistics::now(),
        })
    }
}

impl fmt::Display for Report {
    /// A few lines for a log; numbers and names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "process: {}", if self.posture.is_hardened() { "hardened" } else { "not hardened" })?;
        if let Some(witness) = &self.fork_witness {
            writeln!(f, "{witness}")?;
        }
        for arena in &self.arenas {
            let ArenaReport { backend, bytes, live, sealed, controls } = arena;
            let sealed = if *sealed { ", sealed" } else { "" };
            writeln!(f, "arena: {backend}, {bytes} bytes, {live} secrets{sealed}")?;
            write_degraded(f, controls)?;
        }
        for stack in &self.stacks {
            let StackReport { backend, bytes, running, controls } = stack;
            let running = if *running { ", running" } else { "" };
            writeln!(f, "stack: {backend}, {bytes} bytes{running}")?;
            write_degraded(f, controls)?;
        }
        Ok(())
    }
}

fn write_degraded(f: &mut fmt::Formatter<'_>, controls: &[Reached]) -> fmt::Result {
    controls.iter().filter(|control| control.is_degraded()).try_for_each(|control| writeln!(f, "  {control}"))
}

/// The controls that concern single pages, as a stretch has them.
fn of_pages(stretch: &Stretch) -> Vec<Reached> {
    let whole = [Control::MemfdSecret, Control::ForkWitness];
    stretch.protection.controls().filter(|it| !whole.contains(&it.control)).collect()
}

pub(crate) fn stacks() -> Vec<StackReport> {
    let report = |stack: &Stretch| StackReport {
        backend: stack.protection.reached,
        bytes: stack.data.len(),
        running: stack.is_running(),
        controls: of_pages(stack),
    };
    register::look(|all| all.iter().map(|stack| report(stack)).collect())
}

pub(crate) fn arenas() -> Vec<ArenaReport> {
    arena::look(|looks| {
        looks
            .map(|look| ArenaReport {
                backend: look.backend,
                bytes: look.data.len(),
                live: look.live,
                sealed: look.sealed,
                controls: look.controls.clone(),
            })
            .collect()
    })
}

/// What the kernel says of the mappings that hold secrets, and of protected stacks. See [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Confirmation {
    /// Mappings of secrets that were looked up.
    pub arenas: usize,
    /// Protected stacks that were looked up, and those of their signal handlers.
    pub stacks: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// What should be there, and is not.
    pub missing: Vec<Missing>,
}

impl Confirmation {
    /// Whether the kernel confirms every control that was reached.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.missing.is_empty()
    }
}

/// A protection that was there when the memory was made and that the kernel no longer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// A control.
    Control {
        /// Which.
        control: Control,
        /// The kind of memory that lacks it.
        backend: Backend,
        /// Bytes of the arena or stack.
        bytes: usize,
    },
    /// The memory may be used in another way than it should: sealed memory that is open, or pages made executable.
    Access {
        /// The kind of memory.
        backend: Backend,
        /// Bytes of the arena.
        bytes: usize,
    },
    /// The memory is not mapped, or not as one piece of the process: nothing can be said of it.
    Unmapped {
        /// The kind of memory.
        backend: Backend,
        /// Bytes of the arena or stack.
        bytes: usize,
    },
    /// The page by which a forked child knows that it is one is no longer zeroed in it: the child would take itself for its
    /// parent.
    ForkWitness,
}

/// Asks the kernel whether every mapping that holds secrets, and every protected stack, still has what it had when it was made:
/// locked (`lo`), out of dumps (`dd`), out of forked children (`dc`), between pages without access, closed if it is sealed and
/// nobody is within; and whether the page by which forked children know themselves still is zeroed in them (`wf`).
///
/// Reads `/proc/self/smaps` once, which costs some ten microseconds for each of the process's mappings, of which an arena and a
/// stack are three; once more for sealed memory that somebody opened or closed meanwhile. It costs no access to a secret.
///
/// # Errors
///
/// [`Error::Verify`] if that file cannot be read; [`Error::Forked`] in a forked child.
///
/// # Source
///
/// proc_pid_smaps(5), *VmFlags*.
pub fn verify() -> Result<Confirmation, Error> {
    confirm(|_| true, |_| true)
}

/// [`verify`] for the arena that holds an address.
pub(crate) fn verify_at(address: usize) -> Result<Confirmation, Error> {
    confirm(|data| data.contains(&address), |_| false)
}

/// [`verify`] for the stacks at `wanted` addresses.
#[cfg(target_arch = "x86_64")]
pub(crate) fn verify_stacks(wanted: impl Fn(&Range<usize>) -> bool) -> Result<Confirmation, Error> {
    confirm(|_| false, wanted)
}

fn confirm(
    arenas: impl Fn(&Range<usize>) -> bool,
    stacks: impl Fn(&Range<usize>) -> bool,
) -> Result<Confirmation, Error> {
    if arena::in_child() {
        return Err(Error::Forked);
    }
    let read = || smaps().map_err(|source| Error::Verify { source });
    // Both are locked before the file is read: what it says is what there is, until the end.
    arena::look(|looks| {
        register::look(|stretches| {
            let mut confirmation = Confirmation::default();
            let smaps = read()?;
            let now = areas(&smaps);
            for look in looks.filter(|look| arenas(&look.data)) {
                let mut missing = Vec::new();
                look.still(|closed| {
                    let expected = Expected::of_arena(&look, closed);
                    missing = expected.missing(&now);
                    if look.sealed && !missing.is_empty() {
                        // It may have been opened or closed since. Now it is not.
                        missing = expected.missing(&areas(&read()?));
                    }
                    Ok::<(), Error>(())
                })?;
                confirmation.arenas += 1;
                confirmation.bytes += look.data.len();
                confirmation.missing.extend(missing);
            }
            for stretch in stretches.iter().filter(|stretch| stacks(&stretch.data)) {
                confirmation.stacks += 1;
                confirmation.bytes += stretch.data.len();
                let controls = of_pages(stretch);
                confirmation.missing.extend(Expected::of_stack(stretch, &controls).missing(&now));
            }
            if let Some(page) = arena::fork_witness_page()
                && !now.iter().any(|it| it.range.contains(&page) && it.has("wf"))
            {
                confirmation.missing.push(Missing::ForkWitness);
            }
            Ok(confirmation)
        })
    })
}

const SMAPS: &str = "/proc/self/smaps";

/// The file, where it is kept open.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
static KEPT: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();

/// Keeps the file open, for a process that will open none any more.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn keep_open() -> std::io::Result<()> {
    let file = std::fs::File::open(SMAPS)?;
    let _ = KEPT.set(file); // another one is as good
    Ok(())
}

fn smaps() -> std::io::Result<String> {
    #[cfg(all(feature = "vault", target_arch = "x86_64"))]
    if let Some(file) = KEPT.get() {
        return read_again(file);
    }
    std::fs::read_to_string(SMAPS)
}

/// All of a file of the kernel's, from its beginning: it is made anew for each reading.
#[cfg(all(feature = "vault", target_arch = "x86_64"))]
pub(crate) fn read_again(mut file: &std::fs::File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};

    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A mapping as `smaps` lists it.
#[derive(Debug)]
struct Area<'a> {
    range: Range<usize>,
    permissions: &'a str,
    flags: &'a str,
}

impl Area<'_> {
    fn has(&self, flag: &str) -> bool {
        self.flags.split_ascii_whitespace().any(|it| it == flag)
    }
}

fn areas(smaps: &str) -> Vec<Area<'_>> {
    let mut areas: Vec<Area<'_>> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(area) = areas.last_mut() {
                area.flags = flags;
            }
        } else if let Some((low, high)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let (Some(low), Some(high), Some(permissions)) = (number(low), number(high), words.next()) {
                areas.push(Area { range: low..high, permissions, flags: "" });
            }
        }
    }
    areas
}

/// How a mapping should be.
struct Expected<'a> {
    backend: Backend,
    data: &'a Range<usize>,
    controls: &'a [Reached],
    /// `None` where it always is open, else whether it is closed now.
    closed: Option<bool>,
}

impl<'a> Expected<'a> {
    fn of_arena(look: &'a arena::Look, closed: bool) -> Self {
        let arena::Look { backend, data, controls, .. } = look;
        Self { backend: *backend, data, controls, closed: look.sealed.then_some(closed) }
    }

    fn of_stack(stretch: &'a Stretch, controls: &'a [Reached]) -> Self {
        Self { backend: stretch.protection.reached, data: &stretch.data, controls, closed: None }
    }

    fn missing(&self, areas: &[Area<'_>]) -> Vec<Missing> {
        let Self { backend, data, controls, closed } = *self;
        let bytes = data.len();
        let within: Vec<_> = areas.iter().filter(|it| it.range.start < data.end && data.start < it.range.end).collect();
        let mapped: usize = within.iter().map(|it| it.range.end.min(data.end) - it.range.start.max(data.start)).sum();
        if mapped != bytes {
            return vec![Missing::Unmapped { backend, bytes }];
        }
        let at = |address: usize| areas.iter().find(|it| it.range.contains(&address));
        let no_access = |address: usize| at(address).is_some_and(|it| it.permissions.starts_with("---"));
        let confirmed = |control| match control {
            Control::Lock => within.iter().all(|it| it.has("lo")),
            Control::DontDump => within.iter().all(|it| it.has("dd")),
            Control::DontFork => within.iter().all(|it| it.has("dc")),
            Control::Guards => no_access(data.start.wrapping_sub(1)) && no_access(data.end),
            _ => true,
        };
        let reached = controls.iter().filter(|it| it.reached).map(|it| it.control);
        let mut missing: Vec<_> = reached
            .filter(|control| !confirmed(*control))
            .map(|control| Missing::Control { control, backend, bytes })
            .collect();
        let allowed = |it: &&Area<'_>| match closed {
            None => it.permissions.starts_with("rw-"),
            Some(true) => it.permissions.starts_with("---"),
            Some(false) => it.permissions.starts_with("r") && it.permissions.as_bytes().get(2) == Some(&b'-'),
        };
        if !within.iter().all(allowed) {
            missing.push(Missing::Access { backend, bytes });
        }
        missing
    }
}
