//! Probes come and go: at start from the command line, later from the control socket or a Rust program.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qkprobe_arch::{GuestAddr, InsnSlot};
use qkprobe_lang::{Action, Privilege, ProbeConfig};
use qkprobe_resolve::ImageTarget;

use super::prepare::{Abilities, Prepared, Refused, place_of, prepare, slot_of};
use super::{InlineUse, Listed, Probes};
use crate::counters::{MAX_OUTPUTS, Totals};
use crate::engine::kprobe::{Access, Handler, Kprobe, ReturnWork, Watch};
use crate::record::Output;
use crate::registry::{New, Place, ProbeId, RegistryError};
use crate::running::Plugin;

/// How long somebody who adds or removes probes waits for a vCPU to come to a safepoint.
const PATIENCE: Duration = Duration::from_secs(1);

/// A probe that was added.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) output: u32,
    pub(crate) id: Option<ProbeId>,
}

/// A probe that is gone, and what it had counted.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) output: Arc<Output>,
    pub(crate) totals: Totals,
}

impl Plugin {
    pub(crate) fn target(&self) -> ImageTarget<'_> {
        ImageTarget { arch: self.arch, image: self.image.as_deref() }
    }

    pub(crate) fn abilities(&self) -> Abilities<'_> {
        Abilities {
            api: self.machine.api,
            qemu: &self.machine.qemu,
            control: self.control_path.is_some(),
            exact_stop: self.machine.api.set_pc.is_some(),
            unfound: self.paging.as_ref().err().copied(),
            locator: self.locator.as_deref(),
        }
    }

    /// Adds probes by their definitions, all or none.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn add(&self, configs: &[ProbeConfig]) -> Result<Vec<Added>, Refused> {
        let mut probes = self.probes.lock();
        let mut events = probes.events.clone();
        let prepared = prepare(configs, &mut events, &self.target(), self.abilities())?;
        let added = self.insert(&mut probes, prepared)?;
        probes.events = events;
        Ok(added)
    }

    /// Registers what was prepared. Its definitions are not entered into `Probes::events`.
    ///
    /// # Errors
    /// What the registry refuses; nothing is registered then.
    pub(crate) fn insert(&self, probes: &mut Probes, prepared: Vec<Prepared>) -> Result<Vec<Added>, Refused> {
        if self.writer.output_count() + prepared.len() > MAX_OUTPUTS {
            let message = format!("at most {MAX_OUTPUTS} probes are possible");
            return Err(Refused { errno: libc::ENOSPC, message });
        }
        check_groups(probes, &prepared)?;
        self.make_room(&prepared);
        let waits = prepared.iter().any(|probe| waits(&probe.handler));
        if waits {
            self.watch(probes)?;
        }
        let mut registrations = Vec::with_capacity(prepared.len());
        let mut listed = Vec::with_capacity(prepared.len());
        for probe in prepared {
            let inline = self.inline_for(probes, &probe);
            let (new, one) = self.enlist(probe, inline);
            listed.push((one, new.is_some()));
            registrations.extend(new);
        }
        let outputs: Vec<u32> = listed.iter().map(|((output, _), _)| *output).collect();
        let ids = match self.register(registrations) {
            Ok(ids) => ids,
            Err(refused) => {
                outputs.iter().for_each(|output| self.writer.retire_output(*output));
                self.unwatch(probes);
                return Err(refused);
            }
        };
        let mut ids = ids.into_iter();
        let mut added = Vec::with_capacity(listed.len());
        for ((output, mut probe), registered) in listed {
            probe.id = if registered { ids.next() } else { None };
            added.push(Added { output, id: probe.id });
            probes.list.insert(output, probe);
        }
        Ok(added)
    }

    fn register(&self, registrations: Vec<New<Kprobe>>) -> Result<Vec<ProbeId>, Refused> {
        let target = self.target();
        let slot = |place: Place, _: &Kprobe| -> Result<Option<InsnSlot>, Refused> {
            let known = matches!(place, Place::Image(_)) && target.has_text(place.addr());
            match slot_of(place, &target) {
                None if known && target.unsettled(place.addr()).is_none() => {
                    let message = format!("{}: no instruction", place.addr());
                    Err(Refused { errno: libc::EILSEQ, message })
                }
                slot => Ok(slot),
            }
        };
        self.registry.register_all(registrations, slot).map_err(|error| match error {
            RegistryError::Prepare(refused) => refused,
            error => Refused { errno: libc::EDEADLK, message: error.to_string() },
        })
    }

    /// Room for what is new: counters, registers that are looked for, what landings may do.
    fn make_room(&self, prepared: &[Prepared]) {
        self.counters.grow(self.writer.output_count() + prepared.len());
        let mut used = self.used_registers.lock();
        for probe in prepared {
            let Some(definition) = &probe.definition else { continue };
            let entry = definition.entry.as_ref().into_iter().flat_map(|entry| entry.registers());
            used.extend(definition.program.registers().iter().chain(entry));
        }
        drop(used);
        let wanted = prepared.iter().filter(|probe| waits(&probe.handler)).map(|probe| probe.access).max();
        if let Some(Access::Write | Access::Pc) = wanted
            && self.raise_landing_access()
        {
            let all = self.landings.all().into_iter();
            self.cache.request(all.map(|key| self.stale_landing(key)).collect::<Vec<_>>());
        }
    }

    fn inline_for(&self, probes: &mut Probes, probe: &Prepared) -> Option<InlineUse> {
        let place = probe.place?;
        // An instruction that may fault and restart is counted by a callback, which can tell, where QEMU tells; or behind it,
        // where that is as good.
        let restarts = || {
            let slot = slot_of(place, &self.target());
            let until_done = |slot: &InsnSlot| !probe.attempts && self.arch.restarts_until_done(slot, place.addr());
            self.machine.api.register_vcpu_discon_cb.is_some()
                && slot.is_none_or(|slot| self.arch.may_restart(&slot, place.addr()) && !until_done(&slot))
        };
        if !probe.counts_only || probe.privilege == Privilege::User || restarts() {
            return None;
        }
        let counter = *probes.inline_by_place.entry(place).or_insert_with(|| self.inline_counters.allocate());
        let now = self.inline_counters.sum(counter);
        Some(InlineUse { counter, since: probe.enabled.then_some(now), before: 0 })
    }

    fn enlist(&self, probe: Prepared, inline: Option<InlineUse>) -> (Option<New<Kprobe>>, (u32, Listed)) {
        let output = Arc::new(probe.output);
        let index = self.writer.add_output(Arc::clone(&output));
        let action = match &probe.handler {
            Handler::Pre(event) | Handler::Post(event) => event.action,
            Handler::Return(kretprobe) => match &kretprobe.work {
                ReturnWork::Event(event) => event.action,
                ReturnWork::Handlers(_) => Action::Count,
            },
            Handler::Step(_) | Handler::Watch(_) => Action::Count,
        };
        let listed = Listed {
            id: None,
            place: probe.place,
            output,
            action,
            kind: if matches!(probe.handler, Handler::Return(_)) { "r" } else { "p" },
            enabled: probe.enabled,
            waits: waits(&probe.handler),
            inline,
        };
        let kprobe = Kprobe {
            output: index,
            privilege: probe.privilege,
            access: probe.access,
            inline: inline.map(|inline| inline.counter),
            attempts: probe.attempts,
            handler: probe.handler,
        };
        let new = probe.place.map(|place| New { place, payload: kprobe, enabled: probe.enabled });
        (new, (index, listed))
    }

    /// Where tasks begin and end, and where a kernel starts: what was pending there is over.
    fn watch(&self, probes: &mut Probes) -> Result<(), Refused> {
        if !probes.watches.is_empty() {
            return Ok(());
        }
        use qkprobe_lang::{SymbolLookup, Target as _};
        let target = self.target();
        // Where every call comes through, which is behind the symbol if a function has two entries.
        let address = |name: &&str| match target.symbol(None, name) {
            SymbolLookup::One { addr, .. } => target.check_place(addr).ok(),
            _ => None,
        };
        let ends: Vec<_> = self.arch.task_end_symbols().iter().filter_map(address).collect();
        let start = self.arch.task_start_symbols().iter().find_map(address);
        let knows_tasks = !ends.is_empty() && start.is_some();
        let stacks = ends.into_iter().chain(start).map(|addr| (addr, Watch::Stack));
        let life = address(&"start_kernel").map(|addr| (addr, Watch::Life));
        let watch = |(addr, watch): (GuestAddr, Watch)| {
            let kprobe = Kprobe {
                output: u32::MAX,
                privilege: Privilege::Kernel,
                access: Access::Read,
                inline: None,
                attempts: true,
                handler: Handler::Watch(watch),
            };
            New::enabled(place_of(addr, &target), kprobe)
        };
        probes.watches = self.register(stacks.chain(life).map(watch).collect())?;
        // Only when that is so in the running code as well.
        let settled = self.settle();
        self.pending.new_generation();
        self.knows_tasks.store(knows_tasks && settled, Ordering::Relaxed);
        Ok(())
    }

    fn unwatch(&self, probes: &mut Probes) {
        if !probes.watches.is_empty() && !probes.list.values().any(|probe| probe.waits) {
            self.knows_tasks.store(false, Ordering::Relaxed);
            let _ = self.registry.unregister_all(&std::mem::take(&mut probes.watches));
        }
    }

    /// Unregisters the probes of these outputs. When it returns, no handler of theirs runs or starts.
    pub(crate) fn remove(&self, outputs: &[u32]) -> Result<Vec<Gone>, Refused> {
        self.remove_those(|_| outputs.to_vec())
    }

    /// The same for those that `choose` names, while nobody else changes what there is.
    pub(crate) fn remove_those(&self, choose: impl FnOnce(&Probes) -> Vec<u32>) -> Result<Vec<Gone>, Refused> {
        let mut gone = Vec::new();
        {
            let mut probes = self.probes.lock();
            let outputs = choose(&probes);
            let ids: Vec<_> = outputs.iter().filter_map(|output| probes.list.get(output)?.id).collect();
            let waited = outputs.iter().any(|output| probes.list.get(output).is_some_and(|probe| probe.waits));
            let refused = |error: RegistryError<_>| Refused { errno: libc::EDEADLK, message: error.to_string() };
            let removed = self.registry.unregister_all(&ids).map_err(refused)?;
            if waited {
                self.forget_pending(&removed.iter().map(|probe| probe.token()).collect());
            }
            // From here on nothing refers to them.
            drop(removed);
            for output in &outputs {
                let Some(probe) = probes.list.remove(output) else { continue };
                if let Some(definition) = &probe.output.definition {
                    probes.events.remove(definition);
                }
                gone.push((*output, probe));
            }
            self.unwatch(&mut probes);
        }
        // Until its code is translated anew, an inline counter may still count; not so the next probe of this index.
        self.settle();
        let totals = |(output, probe): (u32, Listed)| {
            let totals = self.totals(output, &probe);
            self.writer.retire_output(output);
            Gone { output: probe.output, totals }
        };
        Ok(gone.into_iter().map(totals).collect())
    }

    /// What these probes wait for is waited for no more; landings that nobody needs go.
    fn forget_pending(&self, tokens: &HashSet<usize>) {
        self.pending.forget(|instance| tokens.contains(&instance.token), |_| {});
        // An arrival that took one of them before is still running.
        self.registry.synchronize();
        let retired = self.landings.retire(|keep| {
            self.pending.each(|instance| {
                keep(GuestAddr(instance.first));
                keep(GuestAddr(instance.second));
            });
        });
        self.cache.request(retired.into_iter().map(|key| self.stale_landing(key)).collect::<Vec<_>>());
    }

    /// Enables or disables the probes of these outputs.
    pub(crate) fn set_enabled(&self, outputs: &[u32], on: bool) {
        self.set_enabled_those(|_| outputs.to_vec(), on);
    }

    /// The same for those that `choose` names, while nobody else changes what there is.
    pub(crate) fn set_enabled_those(&self, choose: impl FnOnce(&Probes) -> Vec<u32>, on: bool) {
        let mut probes = self.probes.lock();
        let outputs = choose(&probes);
        let mut stopped = Vec::new();
        for output in &outputs {
            let Some(probe) = probes.list.get_mut(output).filter(|probe| probe.enabled != on) else { continue };
            probe.enabled = on;
            if let Some(inline) = probe.inline.as_mut().filter(|_| on) {
                inline.since = Some(self.inline_counters.sum(inline.counter));
            }
            if let Some(id) = probe.id {
                let _ = self.registry.set_enabled(id, on);
            }
            if !on {
                stopped.push(*output);
            }
        }
        drop(probes);
        if !outputs.is_empty() {
            self.settle();
        }
        let mut probes = self.probes.lock();
        for output in stopped {
            let inline = probes.list.get_mut(&output).filter(|probe| !probe.enabled);
            if let Some(inline) = inline.and_then(|probe| probe.inline.as_mut()) {
                inline.before = inline.total(self.inline_counters.sum(inline.counter));
                inline.since = None;
            }
        }
    }

    /// Waits until the guest's code is translated for the probes as they are now; false where no vCPU came to a safepoint
    /// within a second.
    pub(crate) fn settle(&self) -> bool {
        self.cache.settle(PATIENCE)
    }

    /// The same without waiting.
    pub(crate) fn is_settled(&self) -> bool {
        self.cache.settle(Duration::ZERO)
    }

    /// Waits until it is known where the kernel runs: when the first probe comes to a running guest, the kernel's next block
    /// tells.
    pub(crate) fn wait_for_kernel(&self) -> bool {
        let start = Instant::now();
        while !self.is_located() {
            if start.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// What a probe has counted.
    pub(crate) fn totals(&self, output: u32, probe: &Listed) -> Totals {
        let mut totals = self.counters.totals(output);
        totals.hits += probe.inline.map_or(0, |inline| inline.total(self.inline_counters.sum(inline.counter)));
        totals
    }
}

/// A user's probe in the group of a reserved one could be taken for it.
fn check_groups(probes: &Probes, prepared: &[Prepared]) -> Result<(), Refused> {
    let outputs = || probes.list.values().map(|probe| &*probe.output).chain(prepared.iter().map(|probe| &probe.output));
    let taken = |group: &str| outputs().any(|other| other.reserved && other.group == group);
    match prepared.iter().map(|probe| &probe.output).find(|output| !output.reserved && taken(&output.group)) {
        None => Ok(()),
        Some(Output { group, name, .. }) => {
            let message = format!("{group}/{name}: the group {group} is that of watch= probes: choose another");
            Err(Refused { errno: libc::EBUSY, message })
        }
    }
}

fn waits(handler: &Handler) -> bool {
    match handler {
        Handler::Return(_) | Handler::Post(_) => true,
        Handler::Step(handlers) => handlers.post.is_some(),
        Handler::Pre(_) | Handler::Watch(_) => false,
    }
}
