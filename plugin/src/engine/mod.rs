//! What happens when the guest runs: blocks are translated, probes are hit.

pub(crate) mod hit;
pub(crate) mod locate;
pub(crate) mod translate;
pub(crate) mod vcpu;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod hit_tests;
#[cfg(test)]
mod locate_tests;

use std::sync::Arc;

use qkprobe_lang::{Action, Definition, Filter, Privilege};

use crate::qemu::inline_count::InlineCounter;

/// What a probe does at a hit: the payload that the registry keeps for the engine.
#[derive(Debug)]
pub(crate) struct Event {
    /// Index into the outputs and the counters.
    pub(crate) output: u32,
    pub(crate) definition: Arc<Definition>,
    pub(crate) filter: Option<Filter>,
    pub(crate) action: Action,
    pub(crate) privilege: Privilege,
    /// Set where translated code counts by itself: no callback is needed for this probe.
    pub(crate) inline: Option<InlineCounter>,
}

impl Event {
    /// Whether a hit has nothing to do but count.
    pub(crate) fn counts_only(&self) -> bool {
        self.action == Action::Count && self.filter.is_none()
    }
}

/// How the callback of a block serves a site: fixed when the block is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// It runs with kernel privilege, and inline counters count by themselves.
    Plain,
    /// It runs with kernel privilege; no inline counter was planted, so the callback counts for all.
    CountAll,
    /// The address does not tell the privilege: the registers are asked. No inline counter was planted.
    AskPrivilege,
}

/// Nanoseconds of the host's monotonic clock: the same for all threads.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing; CLOCK_MONOTONIC always exists, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
