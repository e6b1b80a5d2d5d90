//! One vCPU: everything a hit on it needs, made when its thread starts.

use std::sync::Arc;

use crate::counters::VcpuCounters;
use crate::record::ring::Ring;
use crate::registry::Reader;

/// A vCPU's own part of the engine. Used only on the thread that runs the vCPU; the ring's other end is the writer's.
#[derive(Debug)]
pub(crate) struct Vcpu {
    pub(crate) index: u32,
    pub(crate) ring: Arc<Ring>,
    pub(crate) reader: Reader,
    pub(crate) counters: Arc<VcpuCounters>,
}
