//! Kernel calls that `nix` does not wrap, or not in the way that a tracer needs.
//!
//! One function a call, each result checked. Everything else in this crate is safe code.
#![allow(unsafe_code)] // raw fork, ptrace requests with real-time signals, register sets by size

mod descriptors;
mod pages;
mod probe;
mod spawn;
mod trace;

pub(crate) use descriptors::{
    Peeked, copy_secret_file, coredump_mask, peek, peek_offset, pidfd_getfd, pidfd_open, set_peek_offset,
    share_descriptors, share_memory, socket_number, unsent, waiting,
};
#[cfg(test)]
pub(crate) use pages::pages_of_three_kinds;
pub(crate) use pages::{PageRun, scan_pages};
pub(crate) use probe::probe_memfd_secret;
pub(crate) use spawn::{Descriptors, HIGHEST, Image, spawn_traced};
pub(crate) use trace::{
    Call, End, Stop, SyscallStop, Waited, debug_register, detach, float_registers, general_registers,
    instruction_pointer, is_step, listen, read_vm, read_vm_parts, resume, set_debug_register, step, syscall_stop,
    vector_registers, wait,
};
