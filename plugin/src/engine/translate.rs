//! Translation: which instructions of a block have a site.
//!
//! The common case must cost next to nothing: one host pointer, one table look-up, and away. A block starts on one
//! page and all its instructions start there (only an x86 instruction may end on the next page), so one page's sites
//! are all there is to look at.

use qkprobe_arch::{Arch, GuestAddr, Privilege as AddressPrivilege};

use std::sync::Arc;

use super::locate::{Locator, Verdict};
use super::{Event, Serving};
use crate::qemu::host_memory::HostAddr;
use crate::qemu::inline_count::InlineCounter;
use crate::registry::{Place, Probe, Reader, Registry, Site};

/// A block as QEMU hands it over, or a fake.
pub(crate) trait Block {
    /// How many instructions.
    fn len(&self) -> usize;
    /// Virtual address of an instruction.
    fn vaddr(&self, index: usize) -> GuestAddr;
    /// Host pointer of an instruction's first byte, if it lies in RAM.
    fn host(&self, index: usize) -> Option<HostAddr>;
    /// Copies an instruction's bytes; returns how many.
    fn bytes(&self, index: usize, out: &mut [u8]) -> usize;
    /// Makes the instruction call back with this site.
    fn plant_callback(&mut self, index: usize, site: &Site<Event>, serving: Serving);
    /// Whether QEMU's inline counters can be trusted in this run.
    fn can_count(&self) -> bool;
    /// Makes the instruction add to this counter.
    fn plant_count(&mut self, index: usize, counter: InlineCounter);
}

/// Text that a probe's address no longer begins with: what the slot holds, and what the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextChange {
    /// The address is a boundary, with another instruction (a breakpoint, a patched call).
    Changed,
    /// The address lies inside an instruction: the probe cannot fire.
    NoBoundary,
}

/// What a translation found out beside planting.
pub(crate) trait Findings {
    fn verdict(&mut self, verdict: Verdict);
    fn text_changed(&mut self, site: &Site<Event>, change: TextChange);
}

/// Looks at one block and plants what it must.
pub(crate) fn translate(
    arch: &dyn Arch,
    registry: &Registry<Event>,
    reader: &Reader,
    locator: Option<&Locator>,
    block: &mut impl Block,
    findings: &mut impl Findings,
) {
    let count = block.len();
    if count == 0 {
        return;
    }
    let vaddr = block.vaddr(0);
    let host = block.host(0);
    let guard = reader.pin();
    let mut linked = None;
    if let Some(locator) = locator {
        let mut first = [0; qkprobe_arch::MAX_INSN_BYTES];
        let len = block.bytes(0, &mut first).min(first.len());
        let first = first.get(..len).unwrap_or_default();
        let (found, verdict) = locator.block(vaddr, host, first);
        linked = found;
        if let Some(verdict) = verdict {
            findings.verdict(verdict);
        }
        if let Some(linked) = found
            && locator.wants_entries()
            && arch.looks_like_entry(first)
            && let Some(verdict) = locator.entry_seen(linked)
        {
            findings.verdict(verdict);
        }
    }
    if let Some(linked) = linked {
        plant(arch, registry, Place::Image(linked), vaddr, block, count, &guard, findings);
    }
    plant(arch, registry, Place::Virtual(vaddr), vaddr, block, count, &guard, findings);
}

#[allow(clippy::too_many_arguments, reason = "one call site a place kind; a struct would only rename them")]
fn plant(
    arch: &dyn Arch,
    registry: &Registry<Event>,
    first: Place,
    vaddr: GuestAddr,
    block: &mut impl Block,
    count: usize,
    guard: &crossbeam_epoch::Guard,
    findings: &mut impl Findings,
) {
    let offset_of = |addr: GuestAddr| addr.wrapping_offset_from(vaddr);
    let last_vaddr = block.vaddr(count - 1);
    let last = first.with_addr(first.addr().wrapping_add(offset_of(last_vaddr)));
    if !registry.any_site_between(first, last, guard) {
        return;
    }
    let serving = match arch.privilege(vaddr) {
        AddressPrivilege::AskRegisters => Serving::AskPrivilege,
        AddressPrivilege::Kernel if block.can_count() => Serving::Plain,
        AddressPrivilege::Kernel => Serving::CountAll,
    };
    let mut index = 0;
    registry.sites_on_page(first, guard, |site| {
        if !(first..=last).contains(&site.place()) {
            return;
        }
        let offset = site.place().addr().wrapping_offset_from(first.addr());
        while index < count && offset_of(block.vaddr(index)) < offset {
            index += 1;
        }
        if index == count || offset_of(block.vaddr(index)) != offset {
            // A block may begin inside what another path runs as one instruction; only text that differs from the
            // slot says that the probe has lost its boundary.
            findings.text_changed(site, TextChange::NoBoundary);
            return;
        }
        if let Some(slot) = site.slot() {
            let mut bytes = [0; qkprobe_arch::MAX_INSN_BYTES];
            let len = block.bytes(index, &mut bytes).min(bytes.len());
            if &bytes[..len] != slot.bytes() {
                findings.text_changed(site, TextChange::Changed);
            }
        }
        plant_site(site, index, block, serving, guard);
    });
}

/// An inline counter for the probes that only count, where that can be trusted; one callback for all others.
fn plant_site(
    site: &Site<Event>,
    index: usize,
    block: &mut impl Block,
    serving: Serving,
    guard: &crossbeam_epoch::Guard,
) {
    let probes = site.snapshot(guard);
    let inline = |probe: &&Arc<Probe<Event>>| serving == Serving::Plain && probe.payload.inline.is_some();
    // All probes of an address that only count share one counter: QEMU may scale the vCPU's index twice for a second
    // one in the same block.
    if let Some(counter) = probes.iter().find(inline).and_then(|probe| probe.payload.inline) {
        block.plant_count(index, counter);
    }
    if !probes.iter().all(|probe| inline(&probe)) {
        block.plant_callback(index, site, serving);
    }
}
