//! The hit: what runs on the vCPU, before the probed instruction. No lock, no allocation, no panic.
//!
//! 1. Mark the ring, so that the writer can order the records of all vCPUs; pin the epoch.
//! 2. Load the site's probe list: one snapshot, newest probe first.
//! 3. For each enabled probe: privilege, room in the ring, fetch program, filter, commit, count.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use qkprobe_arch::{Arch, GuestAddr, RegisterId, RegisterSource};
use qkprobe_lang::{Action, Backpressure, Common, HitContext, Privilege, Space, SymbolNames};

use super::vcpu::Vcpu;
use super::{Event, Serving, now};
use crate::record::WriterHandle;
use crate::registry::Site;

/// The guest's registers and memory at the hit: QEMU's, or a fake's.
pub(crate) trait GuestState {
    /// A register's value, if there is such a register.
    fn register(&self, id: RegisterId) -> Option<u64>;
    /// Reads memory as the vCPU's current translation maps it; all or nothing.
    fn read(&self, addr: GuestAddr, out: &mut [u8]) -> bool;
}

/// What all hits share.
pub(crate) struct HitEnv<'a> {
    pub(crate) arch: &'static dyn Arch,
    /// Whether a vCPU's index tells who hits (see `Vcpus`).
    pub(crate) cpus_known: bool,
    /// Runtime minus linked address, once known.
    pub(crate) slide: Option<u64>,
    pub(crate) writer: &'a WriterHandle,
    pub(crate) backpressure: Backpressure,
    pub(crate) names: &'a dyn SymbolNames,
}

struct Context<'a, G> {
    guest: &'a G,
    arch: &'static dyn Arch,
    ip: GuestAddr,
    slide: Option<u64>,
}

impl<G: GuestState> HitContext for Context<'_, G> {
    #[inline]
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        match self.arch.registers().get(usize::from(id.0))?.source {
            RegisterSource::Qemu { .. } => self.guest.register(id),
            // QEMU's own program counter is stale in a callback.
            RegisterSource::ProbeAddress => Some(self.ip.0),
            RegisterSource::Constant(value) => Some(value),
        }
    }

    #[inline]
    fn read(&mut self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        // One translation serves both spaces. As in the kernel, a user access must not reach the kernel's half, while a
        // kernel access to a user address is served.
        (space == Space::Kernel || self.arch.is_user_address(addr)) && self.guest.read(addr, out)
    }

    fn slide(&mut self, addr: GuestAddr) -> Option<GuestAddr> {
        self.slide.map(|slide| addr.wrapping_add(slide))
    }
}

/// One execution of the site's instruction.
#[inline]
pub(crate) fn hit<G: GuestState>(env: &HitEnv<'_>, vcpu: &Vcpu, site: &Site<Event>, guest: &G, serving: Serving) {
    vcpu.ring.begin_hit();
    let guard = vcpu.reader.pin();
    let privileged = serving != Serving::AskPrivilege || {
        let value = guest.register(env.arch.privilege_register());
        value.is_none_or(|value| env.arch.is_privileged(value))
    };
    vcpu.reader.set_in_handler(true);
    for probe in site.snapshot(&guard) {
        let event = &probe.payload;
        let wanted = match event.privilege {
            Privilege::Kernel => privileged,
            Privilege::User => !privileged,
            Privilege::Any => true,
        };
        let counts_itself = event.inline.is_some() && serving == Serving::Plain;
        if wanted && !counts_itself && probe.enabled() {
            run(env, vcpu, site, event, guest);
        }
    }
    vcpu.reader.set_in_handler(false);
    drop(guard);
    vcpu.ring.end_hit();
}

#[inline]
fn run<G: GuestState>(env: &HitEnv<'_>, vcpu: &Vcpu, site: &Site<Event>, event: &Event, guest: &G) {
    let Some(cell) = vcpu.counters.cell(event.output) else { return };
    if event.counts_only() {
        cell.hit();
        return;
    }
    // Before the timestamp nothing may wait: the writer orders by it.
    let program = &event.definition.program;
    let max_len = program.max_len();
    let mut reservation = loop {
        match vcpu.ring.reserve(max_len) {
            Some(reservation) => break reservation,
            None if env.backpressure == Backpressure::Lossless && env.writer.is_alive() => env.writer.wait_for_room(),
            None => {
                cell.hit();
                cell.dropped();
                return;
            }
        }
    };
    let time = now();
    let addr = match site.place() {
        crate::registry::Place::Image(addr) => env.slide.map_or(addr, |slide| addr.wrapping_add(slide)),
        crate::registry::Place::Virtual(addr) => addr,
    };
    let mut context = Context { guest, arch: env.arch, ip: addr, slide: env.slide };
    let data = reservation.data();
    let len = program.run(&mut context, data);
    if let Some(filter) = &event.filter {
        // No guest has that many CPUs: comparisons with a real number fail.
        let cpu = if env.cpus_known { vcpu.index } else { u32::MAX };
        let common = Common { ip: addr.0, cpu };
        let record = data.get(..len).unwrap_or_default();
        if !filter.matches(record, &common, env.names) {
            cell.filtered();
            return;
        }
    }
    cell.hit();
    if event.action == Action::Trace {
        reservation.commit(time, event.output, len);
        env.writer.committed(&vcpu.ring);
    }
}
