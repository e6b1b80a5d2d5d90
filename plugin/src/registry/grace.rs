//! A grace period that one can wait for, on top of `crossbeam-epoch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_epoch::Collector;

use crate::primitive::relax;

/// Returns when every guard of `collector` that existed at the call is dropped.
///
/// A deferred function runs only when the global epoch has advanced twice beyond the epoch in which it was deferred,
/// and a pinned participant holds the epoch back: so when it has run, all earlier guards are gone. The loop pumps the
/// epoch, because otherwise only other participants' pins would.
pub(super) fn synchronize(collector: &Collector) {
    let handle = collector.register();
    let done = Arc::new(AtomicBool::new(false));
    let signal = Arc::clone(&done);
    // Release, paired with the Acquire below: what readers did before their guards ended is visible to the caller.
    handle.pin().defer(move || signal.store(true, Ordering::Release));
    let mut round = 0;
    while !done.load(Ordering::Acquire) {
        handle.pin().flush();
        relax(round);
        round = round.saturating_add(1);
    }
}
