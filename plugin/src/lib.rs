//! libqkprobe.so: kprobes for guest kernels, from outside.
//!
//! One hit, from QEMU's call to the line of text, is told in ARCHITECTURE.md. The rooms of this crate:
//! - `qemu`: the only FFI. Version detection, the function table, callback shapes, guest access.
//! - `registry`: who is probed where; the mutex for those who change it, epochs for those who look.
//! - `engine`: translation, hits, and where the running kernel lies.
//! - `record`: rings, the writer thread, formats, the summary.
//! - `install`, `running`: from arguments to a plugin, and from there to the summary.

pub mod api;
mod args;
mod control;
mod counters;
mod ending;
mod engine;
#[cfg(test)]
mod fuzz_tests;
mod halt;
mod install;
mod message;
mod names;
mod primitive;
mod probes;
mod qemu;
mod record;
pub mod registry;
mod running;

pub use api::{DATA_BYTES, Error, Guest, GuestAddr, Hit, Kprobe, Kretprobe, Pre, Privilege, Probe, ProbeHandle};
