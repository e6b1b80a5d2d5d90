//! A definition at work: fetch, filter, record, and what it changes.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use qkprobe_arch::{GuestAddr, InsnSlot, ReturnPlace};
use qkprobe_lang::{Action, Backpressure, Common, FlowChange, HitMachine as _};

use super::context::{Call, Context, GuestState};
use super::hit::{Frame, Halted};
use super::kprobe::{Changes, Event, Kprobe};
use super::now;

/// What a return's record begins with: the address that the function returned to.
pub(crate) const CALLER_BYTES: usize = 8;

impl<G: GuestState> Frame<'_, G> {
    /// One definition at one hit. `next_pc` after the instruction, `call` at a return with the address where it went.
    /// True if it changed the flow.
    #[inline]
    pub(super) fn event(
        &mut self,
        kprobe: &Kprobe,
        event: &Event,
        next_pc: Option<GuestAddr>,
        call: Option<(Call<'_>, GuestAddr)>,
    ) -> bool {
        let Some(cell) = self.cell(kprobe) else { return false };
        if event.counts_only() {
            cell.hit();
            return false;
        }
        // Before the timestamp nothing may wait: the writer orders by it.
        let program = &event.definition.program;
        let prefix = if call.is_some() { CALLER_BYTES } else { 0 };
        let env = self.env;
        let mut reservation = loop {
            match self.vcpu.ring.reserve(prefix + program.max_len()) {
                Some(reservation) => break reservation,
                None if env.backpressure == Backpressure::Lossless && env.writer.is_alive() => {
                    env.writer.wait_for_room();
                }
                None => {
                    cell.hit();
                    cell.dropped();
                    return self.change(kprobe, event, next_pc);
                }
            }
        };
        let time = now();
        let mut context = self.context(next_pc, call.map(|(call, _)| call));
        context.time = time;
        if let Some((_, caller)) = call {
            context.ip = caller;
        }
        let ip = context.ip;
        let data = reservation.data();
        if let (Some((_, caller)), Some(place)) = (call, data.get_mut(..prefix)) {
            place.copy_from_slice(&caller.0.to_le_bytes());
        }
        let len = data.get_mut(prefix..).map_or(0, |data| program.run(&mut context, data));
        if let Some(filter) = &event.filter {
            // No guest has that many CPUs: comparisons with a real number fail.
            let cpu = if env.cpus_known { self.vcpu.index } else { u32::MAX };
            let common = Common { ip: ip.0, cpu };
            let record = data.get(prefix..prefix + len).unwrap_or_default();
            if !filter.matches(record, &common, env.names) {
                cell.filtered();
                return false;
            }
        }
        cell.hit();
        if event.action == Action::Trace {
            reservation.commit(time, kprobe.output, prefix + len);
            env.writer.committed(&self.vcpu.ring);
        }
        self.change(kprobe, event, next_pc)
    }

    /// The effects of a hit that passed the filter. True if the flow has changed.
    #[inline]
    fn change(&mut self, kprobe: &Kprobe, event: &Event, next_pc: Option<GuestAddr>) -> bool {
        match &event.effects {
            Some(changes) => self.change_guest(kprobe, changes, next_pc),
            None => false,
        }
    }

    #[cold]
    fn change_guest(&mut self, kprobe: &Kprobe, changes: &Changes, next_pc: Option<GuestAddr>) -> bool {
        let effects = &changes.effects;
        if !effects.fault.should_fail(&changes.state) {
            return false;
        }
        if next_pc.is_none() && self.site.is_some() {
            self.addr = self.alias();
        }
        let mut context = self.context(next_pc, None);
        let mut done = true;
        for set in &effects.sets {
            done &= set.apply(&mut context);
        }
        let jump = match &effects.flow {
            None => None,
            Some(FlowChange::Skip | FlowChange::Replace(_)) if !self.may_leave() => None,
            Some(FlowChange::Skip) => self.own_slot().map(|slot| self.addr.wrapping_add(u64::from(slot.insn.len))),
            Some(FlowChange::Override(value)) => override_return(&mut context, *value),
            Some(FlowChange::Replace(_)) => changes.replacement.as_ref().and_then(|slot| self.execute(slot)),
        };
        done &= jump.is_some() || effects.flow.is_none();
        if let Some(cell) = self.cell(kprobe) {
            if done { cell.effects() } else { cell.missed() }
        }
        if let Some(halt) = effects.halt {
            let may_leave = next_pc.is_none() && self.site.is_some() && self.may_leave();
            self.after.get_or_insert_default().halt =
                Some(Halted { halt, output: kprobe.output, addr: self.addr, may_leave });
        }
        if jump.is_some() {
            self.after.get_or_insert_default().jump = jump;
        }
        jump.is_some()
    }

    fn own_slot(&self) -> Option<InsnSlot> {
        self.site?.slot(self.guard).copied()
    }

    /// Executes another instruction in place of the probed one; gives where it goes. It may be longer or shorter: if it goes
    /// straight on, that means behind the probed one.
    fn execute(&self, replacement: &InsnSlot) -> Option<GuestAddr> {
        let execute = self.env.arch.as_execute()?;
        let own = self.own_slot()?;
        let mut context: Context<'_, G> = self.context(None, None);
        let executed = execute.execute(replacement, self.addr, &mut context).ok()?;
        let behind = self.addr.wrapping_add(u64::from(replacement.insn.len));
        let behind_own = self.addr.wrapping_add(u64::from(own.insn.len));
        Some(if executed.next == behind { behind_own } else { executed.next })
    }
}

/// Returns from the function that is being entered.
fn override_return<G: GuestState>(context: &mut Context<'_, G>, value: u64) -> Option<GuestAddr> {
    let arch = context.arch;
    let sp = context.get(arch.stack_pointer())?;
    let target = match arch.return_place() {
        ReturnPlace::Stack => context.word(GuestAddr(sp))?,
        ReturnPlace::Register(id) => context.get(id)?,
        ReturnPlace::RegisterPlus(id, bytes) => context.get(id)?.wrapping_add(bytes),
    };
    let after = arch.sp_after_return(sp);
    let set = context.set_register(arch.return_value(), value)
        && (after == sp || context.set_register(arch.stack_pointer(), after));
    set.then_some(GuestAddr(target))
}
