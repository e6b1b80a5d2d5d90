//! What happens when the guest runs: blocks are translated, probes are hit.
//!
//! `translate` plants callbacks, `hit` serves them, `event` is what a definition does there,
//! `kretprobe` what a return probe does. `pending` knows what is
//! awaited (returns, the ends of instructions, restarts), `locate` where the kernel lies.

pub(crate) mod context;
pub(crate) mod event;
pub(crate) mod hit;
pub(crate) mod kprobe;
mod kretprobe;
pub(crate) mod locate;
pub(crate) mod pending;
pub(crate) mod restart;
pub(crate) mod translate;
pub(crate) mod vcpu;
pub(crate) mod verify;

#[cfg(test)]
mod effect_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod fake_block;
#[cfg(test)]
mod fake_state;
#[cfg(test)]
mod hit_tests;
#[cfg(test)]
mod landing_tests;
#[cfg(test)]
mod locate_tests;
#[cfg(test)]
mod post_tests;
#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod return_tests;
#[cfg(test)]
mod unregister_tests;

/// How the callback of a block serves a site: fixed when the block is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// It runs with kernel privilege, and inline counters count by themselves.
    Plain,
    /// It runs with kernel privilege; no inline counter was planted, so the callback counts for all.
    CountAll,
    /// Nobody could tell the privilege when the block was translated: the registers are asked. No inline counter was planted.
    AskPrivilege,
    /// It runs without kernel privilege. No inline counter was planted.
    User,
}

/// Nanoseconds of the host's monotonic clock: the same for all threads.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; CLOCK_MONOTONIC always exists, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
