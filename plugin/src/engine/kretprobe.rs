//! Return probes: the entry puts an instance aside, the return finds it again (`pending`).
//!
//! 1. The function is entered: the return address and the stack pointer that the return will leave; `maxactive`; the entry
//!    program's record or the entry handler's data.
//! 2. The return address becomes a landing, the first time that anybody waits there.
//! 3. Execution arrives there with that stack pointer: `hit::arrive` finds the instance, and `returned` runs.
//!
//! What never arrives is abandoned: its frame or its task is gone.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use qkprobe_arch::{GuestAddr, ReturnPlace};

use super::context::{Call, GuestState};
use super::hit::Frame;
use super::kprobe::{Handler, Kprobe, Kretprobe, ReturnWork, Watch};
use super::now;
use super::pending::{DATA_BYTES, Instance, Kind};
use crate::api::handlers::Hit;
use crate::registry::Probe;

impl<G: GuestState> Frame<'_, G> {
    /// An instance will never arrive.
    pub(super) fn abandon(&self, instance: &Instance) {
        match instance.kind {
            Kind::Restart => self.forget_restart(instance),
            Kind::Return | Kind::Post if instance.token == 0 => {}
            Kind::Return | Kind::Post => {
                // SAFETY: as in `arrive`.
                let probe = unsafe { Probe::<Kprobe>::from_token(instance.token, self.guard) };
                if let Some(cell) = self.cell(&probe.payload) {
                    cell.abandoned();
                }
                if let Handler::Return(kretprobe) = &probe.payload.handler
                    && let Some(limit) = &kretprobe.limit
                {
                    limit.give_back();
                }
            }
        }
    }

    pub(super) fn watch(&self, watch: Watch) {
        match watch {
            Watch::Stack => {
                if let Some(sp) = self.sp() {
                    self.env.pending.end_stack(sp, &mut |over| self.abandon(over));
                }
            }
            Watch::Life => self.env.pending.forget(|_| true, |over| self.abandon(over)),
        }
    }

    /// A return probe's function is entered.
    pub(super) fn call(&mut self, probe: &Arc<Probe<Kprobe>>, kretprobe: &Kretprobe) -> bool {
        let kprobe = &probe.payload;
        let Some(cell) = self.cell(kprobe) else { return false };
        // Before the limit: calls that were unwound hold no place.
        let Some(sp) = self.drop_over() else { return false };
        if kretprobe.limit.as_ref().is_some_and(|limit| !limit.take()) {
            cell.missed();
            return false;
        }
        if !self.put_aside(probe, kretprobe, sp)
            && let Some(limit) = &kretprobe.limit
        {
            limit.give_back();
        }
        false
    }

    /// Runs the entry side; false if no return will be reported.
    fn put_aside(&mut self, probe: &Arc<Probe<Kprobe>>, kretprobe: &Kretprobe, sp: u64) -> bool {
        let kprobe = &probe.payload;
        let Some(cell) = self.cell(kprobe) else { return false };
        let arch = self.env.arch;
        let mut context = self.context(None, None);
        let target = match arch.return_place() {
            ReturnPlace::Stack => self.guest.stack_word(GuestAddr(sp)).or_else(|| context.word(GuestAddr(sp))),
            ReturnPlace::Register(id) => context.get(id),
            ReturnPlace::RegisterPlus(id, bytes) => context.get(id).map(|call| call.wrapping_add(bytes)),
        };
        let Some(target) = target else {
            cell.missed();
            return false;
        };
        let target = GuestAddr(target);
        let key = self.env.key(target);
        let mut instance = Instance {
            kind: Kind::Return,
            token: probe.token(),
            sp: arch.sp_after_return(sp),
            first: key.0,
            second: key.0,
            time: if kretprobe.needs_time() { now() } else { 0 },
            data: [0; DATA_BYTES],
        };
        let len = match &kretprobe.work {
            ReturnWork::Event(event) => {
                let entry = event.definition.entry.as_ref();
                entry.map_or(0, |entry| entry.run(&mut context, &mut instance.data))
            }
            ReturnWork::Handlers(handlers) => {
                if let Some(entry) = &handlers.entry {
                    let mut hit = Hit::new(&mut context, arch, self.vcpu.index, self.addr, kprobe.access);
                    if !entry(&mut hit, &mut instance.data) {
                        return false;
                    }
                }
                DATA_BYTES
            }
        };
        let waits = self.wait(&instance, len, [target; 2]);
        if waits {
            cell.entered()
        } else {
            cell.missed()
        }
        waits
    }

    /// A return probe's function has returned.
    pub(super) fn returned(&mut self, kprobe: &Kprobe, instance: &Instance, addr: GuestAddr) {
        let Handler::Return(kretprobe) = &kprobe.handler else { return };
        if let Some(limit) = &kretprobe.limit {
            limit.give_back();
        }
        match &kretprobe.work {
            ReturnWork::Event(event) => {
                let call = Call { instance, definition: Some(&event.definition) };
                self.event(kprobe, event, None, Some((call, addr)));
            }
            ReturnWork::Handlers(handlers) => {
                if let Some(cell) = self.cell(kprobe) {
                    cell.hit();
                }
                let mut context = self.context(None, Some(Call { instance, definition: None }));
                context.time = now();
                let mut hit = Hit::new(&mut context, self.env.arch, self.vcpu.index, addr, kprobe.access);
                (handlers.handler)(&mut hit, &instance.data);
            }
        }
    }
}
