//! One vCPU: everything a hit on it needs, made when its thread starts.

use std::cell::Cell;
use std::sync::Arc;

use qkprobe_arch::GuestAddr;

use super::verify::Prediction;
use crate::counters::VcpuCounters;
use crate::record::ring::Ring;
use crate::registry::{Place, ProbeId, Reader};

/// A vCPU's own part of the engine. Used only on the thread that runs the vCPU; the ring's other end is the writer's.
pub(crate) struct Vcpu {
    pub(crate) index: u32,
    pub(crate) ring: Arc<Ring>,
    pub(crate) reader: Reader,
    pub(crate) counters: Arc<VcpuCounters>,
    last: Cell<Option<Last>>,
    resumes: Cell<Option<(Place, GuestAddr)>>,
    /// `verify=on`: what the instruction that runs now is expected to do.
    pub(crate) prediction: Cell<Option<Box<Prediction>>>,
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The last site whose instruction this vCPU began.
#[derive(Clone, Copy, Debug)]
struct Last {
    place: Place,
    newest: Option<ProbeId>,
    /// Where QEMU says its block is, if it may fault.
    block: Option<u64>,
    /// The stack pointer, if it may fault and the exception would not tell.
    sp: Option<u64>,
}

impl Vcpu {
    pub(crate) fn new(index: u32, ring: Arc<Ring>, reader: Reader, counters: Arc<VcpuCounters>) -> Self {
        Self {
            index,
            ring,
            reader,
            counters,
            last: Cell::new(None),
            resumes: Cell::new(None),
            prediction: Cell::new(None),
        }
    }

    /// A site's instruction begins, seen by the probes up to the newest of this moment.
    #[inline]
    pub(crate) fn enter(&self, place: Place, newest: Option<ProbeId>, block: Option<u64>, sp: Option<u64>) {
        self.last.set(Some(Last { place, newest, block, sp }));
    }

    /// An instruction begins of which nothing need be known later.
    #[inline]
    pub(crate) fn pass(&self) {
        self.last.set(None);
    }

    /// Whether this probe saw the instruction begin.
    pub(crate) fn has_entered(&self, place: Place, probe: ProbeId) -> bool {
        self.last.get().is_some_and(|last| last.place == place && last.newest.is_some_and(|newest| probe <= newest))
    }

    /// An exception comes from this block: the place, if that was the last hit's, and the stack pointer, if that was noted.
    pub(crate) fn left(&self, from: GuestAddr) -> Option<(Place, Option<u64>)> {
        self.last.get().filter(|last| last.block == Some(from.0)).map(|last| (last.place, last.sp))
    }

    /// The machine was stopped before the instruction of a place, at `addr`; its hit is over.
    pub(crate) fn will_resume_at(&self, place: Place, addr: GuestAddr) {
        self.resumes.set(Some((place, addr)));
    }

    /// Whether it was stopped somewhere and has not gone on since.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.resumes.get().is_some()
    }

    /// If this is the hit that was over before the machine stopped: where the vCPU was.
    #[inline]
    pub(crate) fn resumes_at(&self, place: Place) -> Option<GuestAddr> {
        self.resumes.get()?;
        self.resumes.take().filter(|(stopped, _)| *stopped == place).map(|(_, addr)| addr)
    }
}
