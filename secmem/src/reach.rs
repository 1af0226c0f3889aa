//! What a build for this target has of the protection, and what it lacks, with the reason.
//!
//! Known when the program is compiled, so that a program can refuse to be built without what it rests on:
//!
//! ```
//! use secmem::reach::{Part, State};
//!
//! const _: () = assert!(matches!(Part::Wipe.here(), State::Present | State::Unproven(_)));
//!
//! for part in Part::ALL {
//!     println!("{part}: {}", part.here());
//! }
//! ```
//!
//! What one machine grants of what is there, `Policy` asks for, `Report` tells and `verify` holds against the kernel. All of
//! that is Linux's: elsewhere, and without feature `std`, there is no `Secret`, so that none is kept without protection by
//! mistake; code that names one does not compile.
#![cfg_attr(
    not(all(feature = "std", target_os = "linux")),
    doc = "\n```compile_fail\nlet key = secmem::Secret::new(32); // not here\n```"
)]
//!
//! The tests run on Linux, on x86-64, with glibc. For whatever else is listed here the crate was compiled and no more; where that says
//! too little, a part is [`Unproven`](State::Unproven).

use core::fmt;

/// A part of what this crate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// `ct`: equality, order, choice, table look-up and codecs.
    ConstantTime,
    /// `wipe`: overwriting that the optimiser keeps.
    Wipe,
    /// What `ct` and `wipe::copy` leave in registers is cleared.
    ClearedRegisters,
    /// `Secret`, `Bytes`, `Text`, `Sealed`, and what limits their lives.
    Types,
    /// `Typed`.
    TypedValues,
    /// Memory that no read from outside reaches: memfd_secret(2).
    SecretMemory,
    /// Memory that is never written to swap.
    Lock,
    /// Pages without access on either side.
    Guards,
    /// Memory without access, `Sealed`, that stays locked meanwhile.
    Sealing,
    /// Kept out of core dumps.
    DumpExclusion,
    /// Kept from forked children.
    ForkExclusion,
    /// `purge`: wiped on panics, at exit and on signals.
    Purge,
    /// `scrub`: other people's code on a stack that is wiped, and registers that are cleared.
    Scrub,
    /// `WipingAlloc`: what is freed is overwritten.
    WipingAllocator,
    /// `Coffer`: secrets that lie encrypted.
    Coffer,
    /// `input`: from terminals, descriptors, files and variables, straight into place.
    Input,
    /// `harden`: the process closed to others.
    Hardening,
    /// `verify`, `Report`: what the kernel says of all that.
    Verification,
}

/// What came of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// There, and tested on such a target. What needs the system is asked for at run time, and may be refused there.
    Present,
    /// There, but what it claims was not tested on such a target, or only in part: the reason.
    Unproven(&'static str),
    /// Not there: the reason.
    Absent(&'static str),
}

/// What a crate is built for, as far as that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    LinuxX86,
    Linux,
    MacOs,
    Windows,
    FreeBsd,
    Wasm,
    Other,
    /// Without feature `std`, where that was tested.
    CoreX86,
    /// Without feature `std`, on anything else.
    Core,
}

/// This build's.
const HERE: Target = {
    if cfg!(not(feature = "std")) {
        let tested = cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"));
        if tested { Target::CoreX86 } else { Target::Core }
    } else if cfg!(target_os = "linux") {
        if cfg!(target_arch = "x86_64") { Target::LinuxX86 } else { Target::Linux }
    } else if cfg!(target_os = "macos") {
        Target::MacOs
    } else if cfg!(windows) {
        Target::Windows
    } else if cfg!(target_os = "freebsd") {
        Target::FreeBsd
    } else if cfg!(target_family = "wasm") {
        Target::Wasm
    } else {
        Target::Other
    }
};

/// Why registers are not cleared elsewhere.
const ASSEMBLY: &str = "assembly of x86-64";

/// This build's target, in words.
pub const TARGET: &str = HERE.name();

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::LinuxX86 => "Linux on x86-64",
            Self::Linux => "Linux on other processors",
            Self::MacOs => "macOS",
            Self::Windows => "Windows",
            Self::FreeBsd => "FreeBSD",
            Self::Wasm => "WebAssembly",
            Self::Other => "another system",
            Self::CoreX86 => "Linux on x86-64, without `std`",
            Self::Core => "without `std`",
        }
    }
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::ConstantTime,
        Self::Wipe,
        Self::ClearedRegisters,
        Self::Types,
        Self::TypedValues,
        Self::SecretMemory,
        Self::Lock,
        Self::Guards,
        Self::Sealing,
        Self::DumpExclusion,
        Self::ForkExclusion,
        Self::Purge,
        Self::Scrub,
        Self::WipingAllocator,
        Self::Coffer,
        Self::Input,
        Self::Hardening,
        Self::Verification,
    ];

    /// What this build has of it.
    #[must_use]
    pub const fn here(self) -> State {
        match (self, self.on(HERE)) {
            (Self::Coffer, State::Present) if !cfg!(feature = "coffer") => {
                State::Absent("built without feature `coffer`")
            }
            (Self::TypedValues, State::Present | State::Unproven(_)) if !cfg!(feature = "typed") => {
                State::Absent("built without feature `typed`")
            }
            (Self::ClearedRegisters, State::Unproven(_)) if !cfg!(target_arch = "x86_64") => State::Absent(ASSEMBLY),
            (_, State::Present) if !cfg!(target_env = "gnu") => {
                State::Unproven("compiled, never run with this C library")
            }
            (_, state) => state,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConstantTime => "constant time",
            Self::Wipe => "wipe",
            Self::ClearedRegisters => "cleared registers",
            Self::Types => "protected types",
            Self::TypedValues => "typed values",
            Self::SecretMemory => "memfd_secret",
            Self::Lock => "lock",
            Self::Guards => "guard pages",
            Self::Sealing => "sealing",
            Self::DumpExclusion => "dump exclusion",
            Self::ForkExclusion => "fork exclusion",
            Self::Purge => "wipe at endings",
            Self::Scrub => "scrub",
            Self::WipingAllocator => "wiping allocator",
            Self::Coffer => "coffer",
            Self::Input => "input",
            Self::Hardening => "hardening",
            Self::Verification => "verification",
        }
    }

    const fn on(self, target: Target) -> State {
        match target {
            Target::LinuxX86 => State::Present,
            Target::Linux => self.on_other_processors(),
            _ => match self {
                Self::ConstantTime | Self::Wipe | Self::ClearedRegisters => self.of_the_core(target),
                _ => State::Absent(self.lacks(target)),
            },
        }
    }

    const fn on_other_processors(self) -> State {
        match self {
            Self::ClearedRegisters => State::Absent(ASSEMBLY),
            Self::Scrub => State::Absent("assembly of x86-64: it changes the stack pointer"),
            Self::Coffer => State::Absent("its cipher runs in `scrub`"),
            _ => State::Unproven("compiled, never run"),
        }
    }

    /// What every build has, and what of it was seen where.
    const fn of_the_core(self, target: Target) -> State {
        match (self, target) {
            (Self::Wipe, Target::CoreX86) => State::Present,
            (Self::ConstantTime | Self::ClearedRegisters, Target::CoreX86) => State::Unproven(
                "results tested; the tests that follow instructions and registers take the build with `std`",
            ),
            (Self::ClearedRegisters, Target::Wasm) => State::Absent(ASSEMBLY),
            (Self::ClearedRegisters, _) => State::Unproven("on x86-64 alone, and never run there"),
            (_, Target::Wasm) => {
                State::Unproven("compiled; what an engine makes of the code, and copies, nobody knows")
            }
            _ => State::Unproven("compiled, never run"),
        }
    }

    /// Why a target has not got what Linux has.
    const fn lacks(self, target: Target) -> &'static str {
        match (target, self) {
            (Target::CoreX86 | Target::Core, _) => "built without feature `std`: no system is asked for anything",
            (Target::Other, _) => "no port to this system",
            (Target::Wasm, Self::Lock | Self::Guards | Self::Sealing | Self::SecretMemory) => {
                "linear memory has no pages that could be locked or closed, and its host reads all of it"
            }
            (Target::Wasm, _) => "nothing to rest on: memory is the host's",
            (Target::MacOs | Target::Windows | Target::FreeBsd, Self::SecretMemory) => "a call of Linux's",
            (Target::MacOs | Target::FreeBsd, Self::Lock) => "no port, though mlock(2) is there",
            (Target::MacOs | Target::FreeBsd, Self::Guards | Self::Sealing) => "no port, though mprotect(2) is there",
            (Target::MacOs, Self::DumpExclusion) => "no advice of madvise(2) keeps pages out of a core",
            (Target::MacOs, Self::ForkExclusion) => "no port, though minherit(2) can take pages from children",
            (Target::FreeBsd, Self::DumpExclusion) => "no port, though MADV_NOCORE of madvise(2) is there",
            (Target::FreeBsd, Self::ForkExclusion) => {
                "no port, though INHERIT_ZERO and INHERIT_NONE of minherit(2) are there"
            }
            (Target::Windows, Self::Lock) => "no port, though VirtualLock is there",
            (Target::Windows, Self::Guards) => "no port, though PAGE_NOACCESS is there",
            (Target::Windows, Self::Sealing) => {
                "PAGE_NOACCESS drops VirtualLock: memory cannot be closed and locked at once"
            }
            (Target::Windows, Self::ForkExclusion) => "no fork there",
            _ => "no port: nobody has run one",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Unproven(why) => write!(f, "unproven: {why}"),
            Self::Absent(why) => write!(f, "absent: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: [Target; 9] = [
        Target::LinuxX86,
        Target::Linux,
        Target::MacOs,
        Target::Windows,
        Target::FreeBsd,
        Target::Wasm,
        Target::Other,
        Target::CoreX86,
        Target::Core,
    ];

    #[test]
    fn protected_types_are_linuxs_alone_and_so_is_what_they_rest_on() {
        for target in TARGETS {
            let linux = matches!(target, Target::LinuxX86 | Target::Linux);
            for part in Part::ALL {
                let core = matches!(part, Part::ConstantTime | Part::Wipe | Part::ClearedRegisters);
                let there = !matches!(part.on(target), State::Absent(_));
                assert!(core || linux || !there, "{part} on {}", target.name());
            }
            assert_eq!(linux, !matches!(Part::Types.on(target), State::Absent(_)), "{}", target.name());
        }
    }

    #[test]
    fn only_what_the_tests_run_on_is_called_present() {
        for target in TARGETS {
            let present = Part::ALL.iter().filter(|part| part.on(target) == State::Present).count();
            let expected = match target {
                Target::LinuxX86 => Part::ALL.len(),
                Target::CoreX86 => 1,
                _ => 0,
            };
            assert_eq!(present, expected, "{}", target.name());
        }
    }

    #[test]
    fn this_build_has_what_it_says() {
        let protected = cfg!(all(feature = "std", target_os = "linux"));
        assert_eq!(protected, !matches!(Part::Types.here(), State::Absent(_)));
        // Compiled only where the types are: a table that said so elsewhere would not compile.
        #[cfg(all(feature = "std", target_os = "linux"))]
        let _: fn(usize) -> Result<crate::Secret, crate::Error> = crate::Secret::new;

        let coffer = cfg!(all(feature = "coffer", target_os = "linux", target_arch = "x86_64"));
        assert_eq!(coffer, !matches!(Part::Coffer.here(), State::Absent(_)));
        let typed = cfg!(all(feature = "typed", target_os = "linux"));
        assert_eq!(typed, !matches!(Part::TypedValues.here(), State::Absent(_)));
    }

    #[test]
    fn the_page_shows_this_table() {
        let page = include_str!("../README.md");
        let shown = &TARGETS[..6];
        let row = |cells: Vec<&str>| format!("| {} |", cells.join(" | "));
        let word = |state: State| match state {
            State::Present => "present",
            State::Unproven(_) => "unproven",
            State::Absent(_) => "–",
        };

        let mut rows = vec![row(std::iter::once("").chain(shown.iter().map(|target| target.name())).collect())];
        rows.push(format!("|---|{}", "---|".repeat(shown.len())));
        for part in Part::ALL {
            let cells = shown.iter().map(|target| word(part.on(*target)));
            rows.push(row(std::iter::once(part.name()).chain(cells).collect()));
        }
        let table = rows.join("\n").replace("|  |", "| |");
        assert!(page.contains(&table), "README.md is to show\n{table}");
    }
}
