//! What is counted at a hit: a block of counters per vCPU, so that no hit writes a cache line of another vCPU.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::primitive::Mutex;

/// Counters of one probe on one vCPU, or their sum.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    hits: AtomicU64,
    filtered: AtomicU64,
    dropped: AtomicU64,
    /// Counted by the writer thread only.
    written: AtomicU64,
    reexecuted: AtomicU64,
    missed: AtomicU64,
    entered: AtomicU64,
    abandoned: AtomicU64,
    effects: AtomicU64,
}

/// The sum over all vCPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) hits: u64,
    pub(crate) filtered: u64,
    pub(crate) dropped: u64,
    pub(crate) written: u64,
    /// Restarts of an execution that was counted already.
    pub(crate) reexecuted: u64,
    /// What could not be served: `maxactive`, a full table, an effect that QEMU refused.
    pub(crate) missed: u64,
    /// Calls of a return probe's function.
    pub(crate) entered: u64,
    /// Calls that will never return.
    pub(crate) abandoned: u64,
    /// Hits that changed the guest.
    pub(crate) effects: u64,
}

impl Totals {
    /// Calls that have not returned yet.
    pub(crate) fn pending(&self) -> u64 {
        self.entered.saturating_sub(self.hits + self.filtered + self.abandoned)
    }
}

const CHUNK: usize = 1024;
const CHUNKS: usize = 4096;

type Chunk = [Cell; CHUNK];

/// One vCPU's counters, by the probe's output index. Chunks come when a probe is registered, never at a hit.
pub(crate) struct VcpuCounters {
    chunks: Box<[AtomicPtr<Chunk>]>,
}

impl std::fmt::Debug for VcpuCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VcpuCounters").finish_non_exhaustive()
    }
}

/// Adds one; only the vCPU's own thread writes, so no atomic read-modify-write is needed.
#[inline]
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

impl Cell {
    #[inline]
    pub(crate) fn hit(&self) {
        bump(&self.hits);
    }

    #[inline]
    pub(crate) fn filtered(&self) {
        bump(&self.filtered);
    }

    #[inline]
    pub(crate) fn dropped(&self) {
        bump(&self.dropped);
    }

    #[inline]
    pub(crate) fn written(&self) {
        bump(&self.written);
    }

    #[inline]
    pub(crate) fn reexecuted(&self) {
        bump(&self.reexecuted);
    }

    #[inline]
    pub(crate) fn missed(&self) {
        bump(&self.missed);
    }

    #[inline]
    pub(crate) fn entered(&self) {
        bump(&self.entered);
    }

    #[inline]
    pub(crate) fn abandoned(&self) {
        bump(&self.abandoned);
    }

    #[inline]
    pub(crate) fn effects(&self) {
        bump(&self.effects);
    }

    /// All to 0, for another probe. Nobody may count meanwhile.
    fn reset(&self) {
        let Self { hits, filtered, dropped, written, reexecuted, missed, entered, abandoned, effects } = self;
        for counter in [hits, filtered, dropped, written, reexecuted, missed, entered, abandoned, effects] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl VcpuCounters {
    fn new() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect() }
    }

    /// The counters of a probe, if it is registered.
    #[inline]
    pub(crate) fn cell(&self, output: u32) -> Option<&Cell> {
        let index = output as usize;
        // Acquire, paired with the Release in `grow`: the chunk's zeroes are visible.
        let chunk = self.chunks.get(index / CHUNK)?.load(Ordering::Acquire);
        // SAFETY: null or a chunk that lives as long as `self` (freed only in `drop`).
        unsafe { chunk.as_ref() }?.get(index % CHUNK)
    }

    fn grow(&self, outputs: usize) {
        for slot in self.chunks.iter().take(outputs.div_ceil(CHUNK)) {
            if slot.load(Ordering::Relaxed).is_null() {
                let chunk: Box<Chunk> = Box::new(std::array::from_fn(|_| Cell::default()));
                slot.store(Box::into_raw(chunk), Ordering::Release);
            }
        }
    }
}

impl Drop for VcpuCounters {
    fn drop(&mut self) {
        for slot in &self.chunks {
            let chunk = slot.load(Ordering::Relaxed);
            if !chunk.is_null() {
                // SAFETY: made by `Box::into_raw` in `grow`, and `&mut self`: nobody uses it any more.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

/// All vCPUs' counters, and those of the writer thread.
#[derive(Debug)]
pub(crate) struct Counters {
    state: Mutex<State>,
    /// Records that the writer could not write, counted by the writer thread.
    pub(crate) writer: std::sync::Arc<VcpuCounters>,
}

#[derive(Debug)]
struct State {
    outputs: usize,
    vcpus: Vec<std::sync::Arc<VcpuCounters>>,
}

/// The most probes that may ever be registered in one run.
pub(crate) const MAX_OUTPUTS: usize = CHUNK * CHUNKS;

impl Counters {
    pub(crate) fn new() -> Self {
        let writer = std::sync::Arc::new(VcpuCounters::new());
        Self { state: Mutex::new(State { outputs: 0, vcpus: vec![std::sync::Arc::clone(&writer)] }), writer }
    }

    /// A new vCPU's counters.
    pub(crate) fn add_vcpu(&self) -> std::sync::Arc<VcpuCounters> {
        let mut state = self.state.lock();
        let counters = std::sync::Arc::new(VcpuCounters::new());
        counters.grow(state.outputs);
        state.vcpus.push(std::sync::Arc::clone(&counters));
        counters
    }

    /// Makes room for outputs below `outputs`.
    pub(crate) fn grow(&self, outputs: usize) {
        let mut state = self.state.lock();
        if outputs > state.outputs {
            state.vcpus.iter().for_each(|vcpu| vcpu.grow(outputs));
            state.outputs = outputs;
        }
    }

    /// Sets an output's counters to 0, for another probe: after the last hit of the one before, and after the writer
    /// has written its records.
    pub(crate) fn reset(&self, output: u32) {
        self.state.lock().vcpus.iter().filter_map(|vcpu| vcpu.cell(output)).for_each(Cell::reset);
    }

    pub(crate) fn totals(&self, output: u32) -> Totals {
        let mut totals = Totals::default();
        for cell in self.state.lock().vcpus.iter().filter_map(|vcpu| vcpu.cell(output)) {
            totals.hits += cell.hits.load(Ordering::Relaxed);
            totals.filtered += cell.filtered.load(Ordering::Relaxed);
            totals.dropped += cell.dropped.load(Ordering::Relaxed);
            totals.written += cell.written.load(Ordering::Relaxed);
            totals.reexecuted += cell.reexecuted.load(Ordering::Relaxed);
            totals.missed += cell.missed.load(Ordering::Relaxed);
            totals.entered += cell.entered.load(Ordering::Relaxed);
            totals.abandoned += cell.abandoned.load(Ordering::Relaxed);
            totals.effects += cell.effects.load(Ordering::Relaxed);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vcpu_counts_for_itself_and_the_sum_is_exact() {
        let counters = Counters::new();
        counters.grow(3000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let vcpu = counters.add_vcpu();
                scope.spawn(move || {
                    for round in 0..100_000 {
                        let cell = vcpu.cell(2999).expect("grown");
                        cell.hit();
                        if round % 10 == 0 {
                            cell.dropped();
                        }
                    }
                });
            }
        });
        assert_eq!(counters.totals(2999), Totals { hits: 400_000, dropped: 40_000, ..Totals::default() });
        assert_eq!(counters.totals(2998), Totals::default());
    }

    #[test]
    fn an_unknown_output_has_no_cell() {
        let counters = Counters::new();
        let vcpu = counters.add_vcpu();
        assert!(vcpu.cell(0).is_none());
        assert!(vcpu.cell(u32::MAX).is_none());
    }
}
