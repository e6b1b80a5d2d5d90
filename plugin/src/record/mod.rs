//! Records on their way out: a ring per vCPU, one writer thread, two formats, and the summary.

pub(crate) mod format;
pub(crate) mod ring;
#[cfg(all(test, feature = "shuttle"))]
mod ring_model;
pub(crate) mod sink;
pub(crate) mod summary;
pub(crate) mod writer;
#[cfg(test)]
mod writer_tests;

use std::sync::Arc;

use qkprobe_lang::Definition;

pub(crate) use writer::WriterHandle;

/// One probe as the writer and the summary know it. Made at registration, kept to the end.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` for a probe of a Rust program, which makes no records.
    pub(crate) definition: Option<Arc<Definition>>,
    /// `open`.
    pub(crate) name: String,
    /// `kprobes`.
    pub(crate) group: String,
    /// `do_sys_openat2+0x0/0x190`, or the bare address in hex.
    pub(crate) place: String,
    /// Of a return probe: `do_sys_openat2`. Its records begin with the address that the function returned to.
    pub(crate) function: Option<String>,
    /// The module that the place is in.
    pub(crate) module: Option<String>,
    /// Linked address, if the place is known.
    pub(crate) address: Option<u64>,
    /// Added to `address` when the kernel runs elsewhere.
    pub(crate) in_image: bool,
    /// A probe of the tool that started QEMU (`watch=`). No listing shows it, no client changes it, and its records go only to
    /// who subscribes to its group.
    pub(crate) reserved: bool,
}

/// Something to tell beside the records: the text under a probe changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Nanoseconds of the host's monotonic clock.
    pub(crate) time: u64,
    /// `text`, ...
    pub(crate) kind: &'static str,
    /// The probe's place.
    pub(crate) place: String,
    /// What happened.
    pub(crate) text: String,
}
