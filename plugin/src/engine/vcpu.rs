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
    resumes: Cell<Option<Resume>>,
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

/// Where the vCPU was stopped.
#[derive(Clone, Copy, Debug)]
struct Resume {
    place: Place,
    addr: GuestAddr,
    /// The stack pointer: an interrupt that comes meanwhile may lead to the same place.
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

    /// The machine was stopped before the instruction of a place, at `addr`, with this stack pointer; its hit is over.
    pub(crate) fn will_resume_at(&self, place: Place, addr: GuestAddr, sp: Option<u64>) {
        self.resumes.set(Some(Resume { place, addr, sp }));
    }

    /// Whether it was stopped somewhere and has not gone on since.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.resumes.get().is_some()
    }

    /// If the vCPU was stopped at this place with this stack pointer: where that was. Interrupts are served meanwhile, and
    /// their code may have places of its own.
    pub(crate) fn stopped_at(&self, place: Place, sp: Option<u64>) -> Option<GuestAddr> {
        self.resumes.get().filter(|resume| (resume.place, resume.sp) == (place, sp)).map(|resume| resume.addr)
    }

    /// The same, and then it is stopped there no more.
    #[cold]
    pub(crate) fn resumes_at(&self, place: Place, sp: Option<u64>) -> Option<GuestAddr> {
        self.stopped_at(place, sp).inspect(|_| self.resumes.set(None))
    }
}
