//! Translation: which instructions of a block have a site.
//!
//! The common case must cost next to nothing: one host pointer, one table look-up, and away. A block starts on one
//! page and all its instructions start there (only an x86 instruction may end on the next page), so one page's sites
//! are all there is to look at.

use qkprobe_arch::{Arch, Flow, GuestAddr, InsnSlot, Privilege as AddressPrivilege, RegisterId};
use qkprobe_lang::Privilege;

use super::Serving;
use super::hit::{Planted, Spot};
use super::kprobe::{Access, Kprobe};
use super::locate::{Locator, Verdict};
use super::pending::landing::{Landing, Landings};
use crate::qemu::host_memory::{self, HostAddr};
use crate::qemu::inline_count::InlineCounter;
use crate::registry::{Place, Reader, Registry, Site, Text};

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
    /// A register of the vCPU that is about to run the block: what the block was translated for, such as its privilege, is
    /// there.
    fn register(&self, id: RegisterId) -> Option<u64>;
    /// Makes the instruction call back with this site, before it runs.
    fn plant_callback(&mut self, index: usize, site: &Site<Kprobe>, planted: Planted, access: Access);
    /// Makes the instruction call back with the site of the instruction before it, which has then run.
    fn plant_post(&mut self, index: usize, site: &Site<Kprobe>, serving: Serving, access: Access);
    /// Makes the instruction call back with this landing.
    fn plant_landing(&mut self, index: usize, landing: &Landing, access: Access);
    /// Whether QEMU's inline counters can be trusted in this run.
    fn can_count(&self) -> bool;
    /// Makes the instruction add to this counter.
    fn plant_count(&mut self, index: usize, counter: InlineCounter);
}

/// The text under a site's probes is another than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextChange {
    /// Another instruction (a breakpoint, a patched call): the probes go on with it.
    Changed(InsnSlot),
    /// The address lies inside an instruction now: the probes cannot fire.
    Gone,
    /// The address is an instruction's again.
    Back(InsnSlot),
}

/// What a translation found out beside planting.
pub(crate) trait Findings {
    fn verdict(&mut self, verdict: Verdict);
    fn text_changed(&mut self, site: &Site<Kprobe>, change: TextChange);
}

/// What translation looks things up in.
#[derive(Clone, Copy)]
pub(crate) struct Where<'a> {
    pub(crate) arch: &'a dyn Arch,
    pub(crate) registry: &'a Registry<Kprobe>,
    pub(crate) locator: Option<&'a Locator>,
    pub(crate) landings: &'a Landings,
    /// What callbacks at landings may do.
    pub(crate) landing_access: Access,
    /// Every probed instruction is verified.
    pub(crate) verify: bool,
    /// This QEMU tells of exceptions.
    pub(crate) exceptions: bool,
}

/// Looks at one block and plants what it must.
pub(crate) fn translate(at: Where<'_>, reader: &Reader, block: &mut impl Block, findings: &mut impl Findings) {
    let count = block.len();
    if count == 0 {
        return;
    }
    let vaddr = block.vaddr(0);
    let host = block.host(0);
    let guard = reader.pin();
    let mut linked = None;
    if let Some(locator) = at.locator {
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
            && at.arch.looks_like_entry(first)
            && let Some(verdict) = locator.entry_seen(linked, host)
        {
            findings.verdict(verdict);
        }
    }
    // Before the sites: a function has returned before the next instruction is hit.
    let key = linked.unwrap_or(vaddr);
    if at.landings.may_be_on_page(key) {
        for index in 0..count {
            let offset = block.vaddr(index).wrapping_offset_from(vaddr);
            if let Some(landing) = at.landings.get(key.wrapping_add(offset)) {
                block.plant_landing(index, landing, at.landing_access);
            }
        }
    }
    let mut planting = Planting { at, vaddr, block, count, guard: &guard, findings };
    if let Some(linked) = linked {
        planting.run(Place::Image(linked));
    }
    planting.run(Place::Virtual(vaddr));
}

/// The sites of one block.
struct Planting<'a, B, F> {
    at: Where<'a>,
    vaddr: GuestAddr,
    block: &'a mut B,
    count: usize,
    guard: &'a crossbeam_epoch::Guard,
    findings: &'a mut F,
}

impl<B: Block, F: Findings> Planting<'_, B, F> {
    fn offset_of(&self, addr: GuestAddr) -> u64 {
        addr.wrapping_offset_from(self.vaddr)
    }

    /// `first`: the block's first instruction as a place of the kind that is looked for.
    fn run(&mut self, first: Place) {
        // To the block's last byte: a call that was patched over a probe ends its block.
        let mut bytes = [0; qkprobe_arch::MAX_INSN_BYTES];
        let last_len = self.block.bytes(self.count - 1, &mut bytes).max(1) as u64;
        let len = self.offset_of(self.block.vaddr(self.count - 1)) + last_len;
        let last = first.with_addr(first.addr().wrapping_add(len - 1));
        let registry = self.at.registry;
        if !registry.any_site_between(first, last, self.guard) {
            return;
        }
        let serving = self.serving();
        let mut index = 0;
        registry.sites_on_page(first, self.guard, |site| {
            if !(first..=last).contains(&site.place()) {
                return;
            }
            let offset = site.place().addr().wrapping_offset_from(first.addr());
            while index < self.count && self.offset_of(self.block.vaddr(index)) < offset {
                index += 1;
            }
            let is_boundary = index < self.count && self.offset_of(self.block.vaddr(index)) == offset;
            if is_boundary {
                self.see(site, index);
                self.plant(site, index, serving);
            } else {
                self.miss(site, index, offset);
            }
        });
    }

    /// QEMU never runs a block with another privilege than it was translated for.
    fn serving(&self) -> Serving {
        let arch = self.at.arch;
        let privileged = match arch.privilege(self.vaddr) {
            AddressPrivilege::Kernel => Some(true),
            AddressPrivilege::AskRegisters => {
                self.block.register(arch.privilege_register()).map(|value| arch.is_privileged(value))
            }
        };
        match privileged {
            None => Serving::AskPrivilege,
            Some(false) => Serving::User,
            Some(true) if self.block.can_count() && !self.at.verify => Serving::Plain,
            Some(true) => Serving::CountAll,
        }
    }

    /// Where an instruction lies in the block, on an ISA with delay slots.
    fn spot(&self, index: usize) -> Spot {
        let Some(id) = self.at.arch.npc_register() else { return Spot::Any };
        if index != 0 {
            return Spot::Behind;
        }
        // A block is translated for a pair of PC and nPC, by the vCPU that is there.
        match self.block.register(id).map(GuestAddr) {
            None => Spot::Any,
            Some(npc) if npc == self.vaddr.wrapping_add(4) => Spot::First,
            Some(npc) => Spot::Slot(npc),
        }
    }

    /// The site's instruction is in the block: is it the one that the slot holds?
    fn see(&mut self, site: &Site<Kprobe>, index: usize) {
        let mut bytes = [0; qkprobe_arch::MAX_INSN_BYTES];
        let len = self.block.bytes(index, &mut bytes).min(bytes.len());
        let bytes = bytes.get(..len).unwrap_or_default();
        let before = site.see_text(Text::Present);
        let known = site.slot(self.guard);
        let same = known.is_some_and(|slot| slot.bytes() == bytes);
        if same && before != Text::Gone {
            return;
        }
        let addr = self.block.vaddr(index);
        let Ok(slot) = InsnSlot::prepare(self.at.arch, addr, bytes) else { return };
        if !same {
            site.renew_slot(slot, self.guard);
        }
        match before {
            // The image's text differs from what runs: the kernel relocates and patches itself before.
            Text::Unseen => {}
            Text::Present => self.findings.text_changed(site, TextChange::Changed(slot)),
            Text::Gone => self.findings.text_changed(site, TextChange::Back(slot)),
        }
    }

    /// No instruction of the block begins at the site. A block may begin inside what another path runs as one
    /// instruction; only text that differs from the slot says that the probe has lost its boundary, or that there is no slot: the
    /// image has no instruction at such a place.
    fn miss(&mut self, site: &Site<Kprobe>, index: usize, offset: u64) {
        let Some(covering) = index.checked_sub(1) else { return };
        let Some(slot) = site.slot(self.guard) else {
            // Nothing tells what was expected in the kernel's text, so what runs is what counts. In other code, programs differ.
            if matches!(site.place(), Place::Image(_)) && site.see_text(Text::Gone) != Text::Gone {
                self.findings.text_changed(site, TextChange::Gone);
            }
            return;
        };
        let Some(host) = self.block.host(covering) else { return };
        let inside = offset.wrapping_sub(self.offset_of(self.block.vaddr(covering)));
        let mut bytes = [0; qkprobe_arch::MAX_INSN_BYTES];
        let Some(bytes) = bytes.get_mut(..slot.bytes().len()) else { return };
        let changed = host_memory::read(HostAddr(host.0.wrapping_add(inside as usize)), bytes) && bytes != slot.bytes();
        if changed && site.see_text(Text::Gone) != Text::Gone {
            self.findings.text_changed(site, TextChange::Gone);
        }
    }

    /// Whether what runs after the instruction is the one behind it, in this block.
    fn goes_on(&self, slot: &InsnSlot, index: usize) -> bool {
        let arch = self.at.arch;
        // QEMU puts a delay slot into the block only where it is executed, and goes on behind one only where that is certain:
        // behind that of a branch which is never taken.
        slot.insn.flow == Flow::Next
            || (arch.npc_register().is_some() && arch.has_delay_slot(slot, self.block.vaddr(index)))
    }

    /// Where an inline counter counts each execution once: at the instruction, or, if it may run again, at the one behind it,
    /// where it has run. None where only a callback can tell.
    fn counts_at(&self, slot: Option<&InsnSlot>, index: usize, restarts: bool, goes_on: bool) -> Option<usize> {
        if !restarts {
            return Some(index);
        }
        let until_done = slot.is_some_and(|slot| self.at.arch.restarts_until_done(slot, self.block.vaddr(index)));
        (until_done && goes_on).then_some(index + 1)
    }

    /// An inline counter for the probes that only count, where that can be trusted; one callback for all others.
    fn plant(&mut self, site: &Site<Kprobe>, index: usize, serving: Serving) {
        let probes = site.snapshot(self.guard);
        let (slot, addr) = (site.slot(self.guard), self.block.vaddr(index));
        let goes_on = index + 1 < self.count && slot.is_some_and(|slot| self.goes_on(slot, index));
        let restarts = self.at.exceptions && slot.is_none_or(|slot| self.at.arch.may_restart(slot, addr));
        let counts_at = self.counts_at(slot, index, restarts, goes_on);
        let may_run = |probe: &&Kprobe| serving != Serving::User || probe.privilege != Privilege::Kernel;
        let enabled = || probes.iter().filter(|probe| probe.enabled()).map(|probe| &probe.payload).filter(may_run);
        // A vCPU that is held comes here again and again: translated code could not tell that from an execution.
        let inexact = || counts_at.is_none() || enabled().any(Kprobe::holds);
        let serving = if serving == Serving::Plain && inexact() { Serving::CountAll } else { serving };
        let inline = |probe: &&Kprobe| serving == Serving::Plain && probe.inline.is_some();
        // All probes of an address that only count share one counter: QEMU may scale the vCPU's index twice for a second
        // one in the same block.
        if let Some((at, counter)) = counts_at.zip(enabled().find(inline).and_then(|probe| probe.inline)) {
            self.block.plant_count(at, counter);
        }
        let others = || enabled().filter(|probe| !inline(probe));
        let Some(access) = others().map(|probe| probe.access).max() else { return };
        let after = self.at.verify || others().any(Kprobe::is_post);
        let lands = after && !goes_on;
        if lands || self.at.verify || others().any(Kprobe::is_pre) {
            let spot = self.spot(index);
            self.block.plant_callback(index, site, Planted { serving, lands, restarts, spot }, access);
        }
        if after && goes_on {
            self.block.plant_post(index + 1, site, serving, access);
        }
    }
}
