//! Definitions against a kernel image: where `lang`, which knows no images, and `symbols`, which knows no language, meet. Whoever
//! brings definitions comes through here, the plugin at a registration and the command that checks a file without a guest, so both
//! say the same.
//!
//! 1. An [`ImageTarget`] answers what a definition's parser asks: places, names, instruction boundaries.
//! 2. A [`Resolver`] takes what a user wrote to a [`Resolved`] probe: parsed, its filter and effects compiled, its instruction decoded,
//!    and everything refused that can be refused without asking a QEMU.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")
)]

mod changes;
mod hint;
mod probe;
mod target;
#[cfg(test)]
mod target_tests;

pub use probe::{Refused, Resolved, Resolver, SAVED_BYTES, Step, needs_memory};
pub use target::{ImageTarget, write_name};
