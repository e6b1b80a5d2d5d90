//! The hit: what runs on the vCPU around the probed instruction. No lock, no allocation, no panic.
//!
//! Before the instruction:
//! 1. Mark the ring, so that the writer can order the records of all vCPUs; pin the epoch.
//! 2. Load the site's probe list: one snapshot, newest probe first.
//! 3. For each enabled probe: privilege, then what it does (`event`, `kretprobe`, a Rust handler).
//! 4. If somebody wants to run after the instruction and the block does not go on behind it, wait for its successor.
//!
//! After it, `post` runs where the block goes on, and `arrive` where execution was awaited: the successors of control
//! transfers, and the return addresses of probed functions.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use crossbeam_epoch::Guard;
use qkprobe_arch::{Arch, ExecuteError, GuestAddr};
use qkprobe_lang::{Backpressure, Halt, Privilege, SymbolNames};

use super::Serving;
pub(crate) use super::context::GuestState;
use super::context::{Call, Context};
use super::kprobe::{Handler, Kprobe};
use super::locate::Locator;
use super::pending::landing::{Landing, Landings};
use super::pending::{DATA_BYTES, Instance, Kind, Pending};
use super::vcpu::Vcpu;
use super::verify::Verifier;
use crate::api::handlers::{Hit, Pre};
use crate::counters;
use crate::record::WriterHandle;
use crate::registry::{Place, Probe, Registry, Site};

/// What all hits share.
pub(crate) struct HitEnv<'a> {
    pub(crate) arch: &'static dyn Arch,
    pub(crate) registry: &'a Registry<Kprobe>,
    /// How many vCPUs the machine may have.
    pub(crate) vcpus: usize,
    /// Whether a vCPU's index tells who hits (see `Vcpus`).
    pub(crate) cpus_known: bool,
    pub(crate) locator: Option<&'a Locator>,
    /// Runtime minus linked address, once known.
    pub(crate) slide: Option<u64>,
    pub(crate) writer: &'a WriterHandle,
    pub(crate) backpressure: Backpressure,
    pub(crate) names: &'a dyn SymbolNames,
    pub(crate) pending: &'a Pending,
    pub(crate) landings: &'a Landings,
    /// Drops the translated code at an address, now; only on this vCPU's thread.
    pub(crate) retranslate: &'a dyn Fn(GuestAddr) -> bool,
    pub(crate) verifier: Option<&'a Verifier>,
}

/// What is to be done when the hit is over and nothing of it is held any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// Go on here instead.
    pub(crate) jump: Option<GuestAddr>,
    /// Stop or end the machine first.
    pub(crate) halt: Option<Halted>,
}

/// A probe that stops or ends the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Halted {
    pub(crate) halt: Halt,
    /// The probe's output.
    pub(crate) output: u32,
    /// Where the vCPU is.
    pub(crate) addr: GuestAddr,
    /// The program counter may be set without forgetting a transfer whose delay slot this is.
    pub(crate) may_leave: bool,
}

/// Where an instruction lies in its block, on an ISA with delay slots (`qkprobe_arch::BlockPlace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The ISA has none, or execution is not before the instruction, or QEMU does not show the next program counter.
    Any,
    /// Not the first.
    Behind,
    /// The first, in no delay slot.
    First,
    /// The first, where execution goes on here.
    Slot(GuestAddr),
}

/// How a callback of a site is served: fixed when the block is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) serving: Serving,
    /// Behind the instruction the block ends, and a probe wants to run there.
    pub(crate) lands: bool,
    /// The instruction may fault and run again, and this QEMU tells of exceptions.
    pub(crate) restarts: bool,
    pub(crate) spot: Spot,
}

/// A hit while it lasts.
pub(super) struct Frame<'a, G> {
    pub(super) env: &'a HitEnv<'a>,
    pub(super) vcpu: &'a Vcpu,
    pub(super) guest: &'a G,
    pub(super) guard: &'a Guard,
    /// The site whose instruction runs; none at a landing.
    pub(super) site: Option<&'a Site<Kprobe>>,
    /// Where it runs.
    pub(super) addr: GuestAddr,
    pub(super) spot: Spot,
    /// Rarely anything, and then only written once: a hit copies none.
    pub(super) after: Option<After>,
}

impl HitEnv<'_> {
    /// Where a place is now.
    #[inline]
    pub(crate) fn runtime(&self, place: Place) -> GuestAddr {
        match place {
            Place::Image(addr) => self.slide.map_or(addr, |slide| addr.wrapping_add(slide)),
            Place::Virtual(addr) => addr,
        }
    }

    /// What stands for an address among the landings, whichever of its aliases it is: QEMU runs a block that was translated
    /// at one of them at all of them. The linked address for the kernel's own code.
    #[inline]
    pub(super) fn key(&self, addr: GuestAddr) -> GuestAddr {
        self.locator.and_then(|locator| locator.canonical(addr)).unwrap_or(addr)
    }

    /// The address behind a key.
    #[inline]
    fn addr_of(&self, key: GuestAddr) -> GuestAddr {
        self.locator.and_then(|locator| locator.running(key)).map_or(key, |(addr, _)| addr)
    }
}

/// Runs `body` as a hit.
#[inline]
pub(super) fn within<'a, G: GuestState>(
    env: &'a HitEnv<'a>,
    vcpu: &'a Vcpu,
    guest: &'a G,
    site: Option<&'a Site<Kprobe>>,
    addr: GuestAddr,
    body: impl FnOnce(&mut Frame<'_, G>),
) -> Option<After> {
    vcpu.ring.begin_hit();
    let guard = vcpu.reader.pin();
    vcpu.reader.set_in_handler(true);
    let mut frame = Frame { env, vcpu, guest, guard: &guard, site, addr, spot: Spot::Any, after: None };
    body(&mut frame);
    let after = frame.after;
    vcpu.reader.set_in_handler(false);
    drop(guard);
    vcpu.ring.end_hit();
    after
}

/// The site's instruction is about to run.
pub(crate) fn hit<G: GuestState>(
    env: &HitEnv<'_>,
    vcpu: &Vcpu,
    site: &Site<Kprobe>,
    guest: &G,
    planted: Planted,
) -> Option<After> {
    let addr = env.runtime(site.place());
    if vcpu.is_stopped() && vcpu.resumes_at(site.place(), guest.register(env.arch.stack_pointer())).is_some() {
        // It was stopped here, before the instruction, and all that was to be done is done.
        return None;
    }
    within(env, vcpu, guest, Some(site), addr, |frame| {
        frame.spot = planted.spot;
        let privileged = frame.privileged(planted.serving);
        let restarted = site.restarts().load(std::sync::atomic::Ordering::Relaxed) != 0 && frame.is_restart(site);
        let probes = site.snapshot(frame.guard);
        let (block, sp) = if planted.restarts { frame.marks() } else { (None, None) };
        let has_steps = || probes.iter().any(|probe| matches!(probe.payload.handler, Handler::Step(_)));
        if block.is_some() || has_steps() {
            vcpu.enter(site.place(), probes.first().map(|newest| newest.id()), block, sp);
        } else {
            vcpu.pass();
        }
        for probe in probes {
            let kprobe = &probe.payload;
            let counts_itself = kprobe.inline.is_some() && planted.serving == Serving::Plain;
            if counts_itself || !kprobe.is_pre() || !runs(probe, privileged) {
                continue;
            }
            if restarted && !frame.runs_again(kprobe) {
                continue;
            }
            if frame.pre(probe) {
                // The flow has changed: as in the kernel, older probes and the end of the instruction are not seen.
                return;
            }
        }
        if planted.lands {
            frame.await_successor(site, probes, privileged, restarted);
        } else if let Some(verifier) = env.verifier {
            frame.addr = frame.alias();
            verifier.predict(frame, site);
        }
    })
}

/// The site's instruction has run, and the block goes on behind it.
pub(crate) fn post<G: GuestState>(
    env: &HitEnv<'_>,
    vcpu: &Vcpu,
    site: &Site<Kprobe>,
    guest: &G,
    serving: Serving,
) -> Option<After> {
    let addr = env.runtime(site.place());
    within(env, vcpu, guest, Some(site), addr, |frame| {
        let Some(slot) = site.slot(frame.guard) else { return };
        let next = addr.wrapping_add(u64::from(slot.insn.len));
        if let Some(verifier) = env.verifier {
            verifier.check(frame, site);
        }
        let privileged = frame.privileged(serving);
        for probe in site.snapshot(frame.guard) {
            // One that came in between has not seen the instruction begin.
            let seen = matches!(probe.payload.handler, Handler::Post(_)) || vcpu.has_entered(site.place(), probe.id());
            if seen && probe.payload.is_post() && runs(probe, privileged) {
                frame.post(probe, next);
            }
        }
    })
}

/// Execution is at a landing.
pub(crate) fn arrive<G: GuestState>(env: &HitEnv<'_>, vcpu: &Vcpu, landing: &Landing, guest: &G) -> Option<After> {
    let key = landing.addr();
    let addr = env.addr_of(key);
    within(env, vcpu, guest, None, addr, |frame| {
        let Some(sp) = guest.register(env.arch.stack_pointer()) else { return };
        env.pending.arrive(sp, key.0, &mut |instance| {
            if let (Kind::Post, Some(verifier)) = (instance.kind, env.verifier.filter(|_| instance.token == 0)) {
                verifier.check_landed(frame, instance);
                return;
            }
            // SAFETY: instances hold tokens of registered probes; `Plugin::unregister` makes the table forget them and then
            // waits for a grace period before it lets go of the probe, and this runs under a guard.
            let probe = unsafe { Probe::<Kprobe>::from_token(instance.token, frame.guard) };
            match instance.kind {
                Kind::Return => frame.returned(&probe.payload, instance, addr),
                Kind::Post if !probe.enabled() => {}
                Kind::Post => {
                    frame.addr = GuestAddr(instance.time);
                    frame.post(probe, addr);
                }
                Kind::Restart => {}
            }
        });
    })
}

/// Whether a probe is to run at all.
#[inline]
fn runs(probe: &Probe<Kprobe>, privileged: bool) -> bool {
    let wanted = match probe.payload.privilege {
        Privilege::Kernel => privileged,
        Privilege::User => !privileged,
        Privilege::Any => true,
    };
    wanted && probe.enabled()
}

impl<G: GuestState> Frame<'_, G> {
    #[inline]
    fn privileged(&self, serving: Serving) -> bool {
        match serving {
            Serving::Plain | Serving::CountAll => true,
            Serving::User => false,
            Serving::AskPrivilege => {
                let value = self.guest.register(self.env.arch.privilege_register());
                value.is_none_or(|value| self.env.arch.is_privileged(value))
            }
        }
    }

    #[inline]
    pub(super) fn cell(&self, kprobe: &Kprobe) -> Option<&counters::Cell> {
        self.vcpu.counters.cell(kprobe.output)
    }

    pub(super) fn sp(&self) -> Option<u64> {
        self.guest.register(self.env.arch.stack_pointer())
    }

    #[inline]
    pub(super) fn context<'c>(&'c self, next_pc: Option<GuestAddr>, call: Option<Call<'c>>) -> Context<'c, G> {
        let Self { env, guest, addr, spot, .. } = self;
        let ip = next_pc.unwrap_or(*addr);
        Context { guest, arch: env.arch, ip, slide: env.slide, next_pc, call, time: 0, spot: *spot }
    }

    /// What an exception of the instruction will be known by: where QEMU says that the block is, and the stack pointer.
    fn marks(&self) -> (Option<u64>, Option<u64>) {
        let arch = self.env.arch;
        let block = arch.block_pc().map_or(Some(self.addr.0), |id| self.guest.register(id));
        (block, if arch.exception_keeps_sp() { None } else { self.sp() })
    }

    /// Whether execution goes on behind the instruction unless that itself transfers: QEMU forgets the transfer whose delay slot
    /// it is when the program counter is set.
    pub(super) fn may_leave(&self) -> bool {
        let Some(execute) = self.env.arch.as_execute().filter(|arch| arch.npc_register().is_some()) else {
            return true;
        };
        let npc = execute.npc(self.addr, &mut self.context(None, None));
        matches!(npc, Ok(None)) || npc == Ok(Some(self.addr.wrapping_add(4)))
    }

    /// Where the instruction really runs: at which of its virtual addresses.
    pub(super) fn alias(&self) -> GuestAddr {
        const OFFSET: u64 = 0xfff;
        let page = self.env.arch.block_pc().and_then(|id| self.guest.register(id));
        page.map_or(self.addr, |page| GuestAddr(page & !OFFSET | self.addr.0 & OFFSET))
    }

    /// Counts a re-execution; whether the probe wants to see it.
    fn runs_again(&self, kprobe: &Kprobe) -> bool {
        if let Some(cell) = self.cell(kprobe) {
            cell.reexecuted();
        }
        kprobe.attempts
    }

    /// One probe before the instruction; true if it changed the flow.
    #[inline]
    fn pre(&mut self, probe: &Arc<Probe<Kprobe>>) -> bool {
        let kprobe = &probe.payload;
        match &kprobe.handler {
            Handler::Pre(event) => self.event(kprobe, event, None, None),
            Handler::Return(kretprobe) => self.call(probe, kretprobe),
            Handler::Step(handlers) => {
                if let Some(cell) = self.cell(kprobe) {
                    cell.hit();
                }
                let Some(pre) = &handlers.pre else { return false };
                let mut context = self.context(None, None);
                let mut hit = Hit::new(&mut context, self.env.arch, self.vcpu.index, self.addr, kprobe.access);
                match pre(&mut hit) {
                    Pre::GoOn => false,
                    Pre::JumpTo(addr) => {
                        let may = hit.may_jump();
                        if may {
                            self.after.get_or_insert_default().jump = Some(addr);
                        }
                        may
                    }
                }
            }
            Handler::Watch(watch) => {
                self.watch(*watch);
                false
            }
            Handler::Post(_) => false,
        }
    }

    /// One probe after the instruction.
    fn post(&mut self, probe: &Probe<Kprobe>, next: GuestAddr) {
        let kprobe = &probe.payload;
        match &kprobe.handler {
            Handler::Post(event) => {
                self.event(kprobe, event, Some(next), None);
            }
            Handler::Step(handlers) => {
                let Some(post) = &handlers.post else { return };
                if let Some(cell) = self.cell(kprobe).filter(|_| handlers.pre.is_none()) {
                    cell.hit();
                }
                let mut context = self.context(Some(next), None);
                post(&mut Hit::new(&mut context, self.env.arch, self.vcpu.index, self.addr, kprobe.access));
            }
            Handler::Pre(_) | Handler::Return(_) | Handler::Watch(_) => {}
        }
    }

    /// Waits at the successors of the instruction for those who want to run after it.
    fn await_successor(
        &mut self,
        site: &Site<Kprobe>,
        probes: &[Arc<Probe<Kprobe>>],
        privileged: bool,
        restarted: bool,
    ) {
        let (Some(slot), Some(execute)) = (site.slot(self.guard), self.env.arch.as_execute()) else { return };
        let sp = self.drop_over();
        let on_program_stack = sp.is_some_and(|sp| self.on_program_stack(sp));
        self.addr = self.alias();
        let mut context = self.context(None, None);
        let waits = |probe: &&Arc<Probe<Kprobe>>| probe.payload.is_post() && runs(probe, privileged);
        let successors = execute.successors(slot, self.addr, &mut context);
        if let Err(ExecuteError::Fault { .. }) = successors {
            // So will the instruction: it does not end this time.
            return;
        }
        let (Ok(successors), Some(_)) = (successors, sp) else {
            probes.iter().filter(waits).filter_map(|probe| self.cell(&probe.payload)).for_each(counters::Cell::missed);
            return;
        };
        let ways = [successors.first, successors.second.unwrap_or(successors.first)];
        let may_repeat = !on_program_stack || self.env.arch.may_restart(slot, self.addr);
        let mut instance = Instance {
            kind: Kind::Post,
            token: 0,
            sp: successors.sp,
            first: self.env.key(successors.first).0,
            second: self.env.key(successors.second.unwrap_or(successors.first)).0,
            // No time is asked for after an instruction, but where it was.
            time: self.addr.0,
            data: [0; DATA_BYTES],
        };
        if let Some(verifier) = self.env.verifier {
            let len = verifier.predict_landing(self, site, &mut instance);
            self.env.pending.cancel(Kind::Post, instance.token, instance.sp, instance.first);
            self.wait(&instance, len, ways);
        }
        // The newest last: what is newest arrives first.
        for probe in probes.iter().rev().filter(waits) {
            instance.token = probe.token();
            // The instruction faulted, or repeats itself, or the fetch of what it leads to faulted (`iret` to a page that is not
            // there yet): this is the same execution. On a program's stack one that does not fault is another vCPU's, in front
            // of the same successor: programs that were forked have equal ones.
            let again = may_repeat && self.env.pending.cancel(Kind::Post, instance.token, instance.sp, instance.first);
            let cell = self.cell(&probe.payload);
            // What has something to do before the instruction has counted a restart that was told already.
            let counts = if restarted { !probe.payload.is_pre() } else { again };
            if let Some(cell) = cell.filter(|_| counts) {
                cell.reexecuted();
            }
            if !self.wait(&instance, 0, ways)
                && let Some(cell) = self.cell(&probe.payload)
            {
                cell.missed();
            }
        }
    }

    /// The stack pointer; what it shows to be over is dropped. Kernel code with a program's stack pointer, as at the begin of a
    /// trap, shows nothing: another program's stack, on another vCPU, may have the same page.
    pub(super) fn drop_over(&self) -> Option<u64> {
        let sp = self.sp()?;
        if !self.on_program_stack(sp) {
            self.env.pending.drop_over(sp, &mut |over| self.abandon(over));
        }
        Some(sp)
    }

    /// Kernel code with a program's stack pointer, as in the first instructions of a trap.
    fn on_program_stack(&self, sp: u64) -> bool {
        self.env.arch.is_user_address(GuestAddr(sp)) && !self.env.arch.is_user_address(self.addr)
    }

    /// Puts an instance aside and makes sure that its arrival is seen. `ways` are the addresses behind its keys. False if
    /// that is impossible.
    pub(super) fn wait(&self, instance: &Instance, data_len: usize, ways: [GuestAddr; 2]) -> bool {
        let HitEnv { pending, landings, retranslate, .. } = self.env;
        if pending.push(instance, data_len).is_err() {
            return false;
        }
        let [first, second] = ways;
        let ensure = |key: u64, addr: GuestAddr| landings.ensure(GuestAddr(key), || retranslate(addr));
        let seen =
            ensure(instance.first, first) && (instance.second == instance.first || ensure(instance.second, second));
        // One that is not there any more was taken, and counted, by another vCPU on an equal stack.
        seen || !pending.cancel(instance.kind, instance.token, instance.sp, instance.first)
    }
}
