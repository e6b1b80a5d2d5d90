//! `verify=on`: what each probed instruction will do is predicted from its slot's copy before it runs, and compared with
//! what QEMU did after it. A mismatch names the instruction: the decoder, the evaluation of the next PC, or the executor
//! in `arch` is wrong, or QEMU is.
//!
//! Compared are the next PC, all general registers, and the bytes that it stores. Left out: the arithmetic flags, and
//! the values of instructions that read them (QEMU computes flags lazily, so at a hit they are stale), and memory that
//! may be a device's. A value loaded from memory that somebody else changed meanwhile is counted as raced.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use qkprobe_arch::{
    Arch, BlockPlace, Execute, GuestAddr, InsnSlot, Machine, Register, RegisterId, RegisterSource, Role,
};
use qkprobe_lang::Space;

use super::context::{Context, GuestState};
use super::hit::Frame;
use super::kprobe::Kprobe;
use super::pending::{DATA_BYTES, Instance};
use crate::message::say;
use crate::registry::Site;

/// Registers of any ISA.
const MOST_REGISTERS: usize = 80;
/// Registers that one instruction writes.
const MOST_WRITTEN: usize = 4;
/// So many mismatches are told; all are counted.
const MOST_TOLD: u64 = 20;

/// What has been compared so far.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    /// Instructions of which state and next PC were compared.
    checked: AtomicU64,
    /// Instructions of which only the next PC was compared.
    next_pc_only: AtomicU64,
    /// Loads that somebody else's store came between.
    raced: AtomicU64,
    mismatches: AtomicU64,
}

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verified {
    /// Executions of which state and next PC were compared.
    pub(crate) checked: u64,
    /// Executions of which only the next PC was compared.
    pub(crate) next_pc_only: u64,
    /// Executions of which a load was overtaken by a store of somebody else.
    pub(crate) raced: u64,
    /// Executions that went another way than predicted.
    pub(crate) mismatches: u64,
}

/// The state that an instruction is expected to leave.
#[derive(Clone, Debug)]
pub(crate) struct Prediction {
    addr: GuestAddr,
    registers: [Option<u64>; MOST_REGISTERS],
    /// The registers are those that it leaves.
    executed: bool,
    next: GuestAddr,
    store: Option<Access>,
    load: Option<Access>,
}

/// Memory that an instruction accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    addr: GuestAddr,
    bytes: [u8; 8],
    len: u8,
}

impl Access {
    fn new(addr: GuestAddr, bytes: &[u8]) -> Option<Self> {
        let mut access = Self { addr, bytes: [0; 8], len: u8::try_from(bytes.len()).ok()? };
        access.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(access)
    }

    fn is_so<G: GuestState>(&self, guest: &G) -> bool {
        let mut now = [0; 8];
        let len = usize::from(self.len);
        now.get_mut(..len).is_some_and(|now| guest.read(Space::Kernel, self.addr, now)) && now == self.bytes
    }
}

/// The machine that a prediction is computed on: reads come from the guest, writes stay here.
struct Scratch<'a, 'c, G> {
    context: &'a mut Context<'c, G>,
    written: [Option<(RegisterId, u64)>; MOST_WRITTEN],
    store: Option<Access>,
    load: Option<Access>,
    /// It touched memory that may be a device's.
    device: bool,
}

impl<G: GuestState> Machine for Scratch<'_, '_, G> {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        let written = self.written.iter().flatten().find(|(written, _)| *written == id);
        written.map(|(_, value)| *value).or_else(|| self.context.get(id))
    }

    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        let free = self.written.iter_mut().find(|entry| entry.is_none_or(|(written, _)| written == id));
        free.map(|entry| *entry = Some((id, value))).is_some()
    }

    fn place(&mut self) -> BlockPlace {
        self.context.place()
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        if !self.context.guest.is_ram(addr) {
            self.device = true;
            return false;
        }
        let done = self.context.guest.read(Space::Kernel, addr, bytes);
        self.load = Access::new(addr, bytes);
        done
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        if !self.context.guest.is_ram(addr) {
            self.device = true;
            return false;
        }
        self.store = Access::new(addr, bytes);
        true
    }

    fn is_alone(&self) -> bool {
        // What it writes stays here.
        true
    }
}

/// The general registers: what QEMU shows and an instruction of the executor's classes may write. The flags where they
/// are exact.
fn compared(arch: &dyn Arch) -> impl Iterator<Item = (RegisterId, &'static Register)> {
    let exact = arch.as_execute().is_some_and(Execute::flags_are_exact);
    let all = arch.registers().iter().enumerate();
    all.filter_map(|(index, register)| Some((RegisterId(u8::try_from(index).ok()?), register))).filter(
        move |(id, register)| {
            matches!(register.source, RegisterSource::Qemu { .. })
                && arch.writable(*id)
                && arch.alias_of(*id).is_none()
                && (exact || register.role != Role::Flags)
        },
    )
}

impl Verifier {
    pub(crate) fn totals(&self) -> Verified {
        Verified {
            checked: self.checked.load(Ordering::Relaxed),
            next_pc_only: self.next_pc_only.load(Ordering::Relaxed),
            raced: self.raced.load(Ordering::Relaxed),
            mismatches: self.mismatches.load(Ordering::Relaxed),
        }
    }

    /// Before an instruction behind which its block goes on.
    pub(super) fn predict<G: GuestState>(&self, frame: &Frame<'_, G>, site: &Site<Kprobe>) {
        let mut prediction = frame.vcpu.prediction.take().unwrap_or_else(|| Box::new(Prediction::none(frame.addr)));
        *prediction = Prediction::none(frame.addr);
        if let Some((slot, execute)) = site.slot(frame.guard).zip(frame.env.arch.as_execute()) {
            prediction.next = frame.addr.wrapping_add(u64::from(slot.insn.len));
            if execute.flags_are_exact() || !execute.reads_flags(slot, frame.addr) {
                prediction.execute(frame, slot, execute);
            }
        }
        frame.vcpu.prediction.set(Some(prediction));
    }

    /// After it.
    pub(super) fn check<G: GuestState>(&self, frame: &Frame<'_, G>, site: &Site<Kprobe>) {
        let Some(prediction) = frame.vcpu.prediction.take() else { return };
        if frame.env.key(prediction.addr) == frame.env.key(frame.addr)
            && let Some(slot) = site.slot(frame.guard)
        {
            let next = prediction.addr.wrapping_add(u64::from(slot.insn.len));
            if let Some(problem) = self.compare(frame, &prediction, next) {
                self.tell(frame, site, &problem);
            }
        }
        frame.vcpu.prediction.set(Some(prediction));
    }

    fn compare<G: GuestState>(&self, frame: &Frame<'_, G>, expected: &Prediction, next: GuestAddr) -> Option<String> {
        if !expected.executed {
            self.next_pc_only.fetch_add(1, Ordering::Relaxed);
            return (next != expected.next).then(|| format!("next PC {next}, predicted {}", expected.next));
        }
        let mut problem = (next != expected.next).then(|| format!("next PC {next}, predicted {}", expected.next));
        for (id, register) in compared(frame.env.arch) {
            let want = expected.registers.get(usize::from(id.0)).copied().flatten();
            let have = frame.guest.register(id);
            if let (Some(want), Some(have)) = (want, have)
                && want != have
            {
                let text = problem.get_or_insert_default();
                let _ = write!(text, " {}={have:#x}, predicted {want:#x}", register.name);
            }
        }
        if let Some(store) = expected.store
            && !store.is_so(frame.guest)
        {
            let text = problem.get_or_insert_default();
            let _ = write!(text, " memory at {} differs from {:02x?}", store.addr, store.bytes);
        }
        let overtaken =
            |load: Access| expected.store.is_none_or(|store| store.addr != load.addr) && !load.is_so(frame.guest);
        if problem.is_some() && (expected.load.is_some_and(overtaken) || frame.env.vcpus > 1 && expected.load.is_some())
        {
            self.raced.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.checked.fetch_add(1, Ordering::Relaxed);
        problem
    }

    /// Before an instruction that ends its block: what is to be compared at the landing goes into the instance. Returns
    /// how much of its data is used.
    pub(super) fn predict_landing<G: GuestState>(
        &self,
        frame: &Frame<'_, G>,
        site: &Site<Kprobe>,
        instance: &mut Instance,
    ) -> usize {
        instance.token = 0;
        let Some((slot, execute)) = site.slot(frame.guard).zip(frame.env.arch.as_execute()) else { return 0 };
        let mut landing = Landed { from: frame.addr, ..Landed::default() };
        if execute.flags_are_exact() || !execute.reads_flags(slot, frame.addr) {
            let mut prediction = Prediction::none(frame.addr);
            prediction.execute(frame, slot, execute);
            if prediction.executed {
                landing.next = Some(prediction.next);
                landing.store = prediction.store;
            }
        }
        landing.encode(&mut instance.data);
        DATA_BYTES
    }

    /// At the landing; that its stack pointer is right is why it was found.
    pub(super) fn check_landed<G: GuestState>(&self, frame: &Frame<'_, G>, instance: &Instance) {
        let landed = Landed::decode(&instance.data);
        let Some(next) = landed.next else {
            self.next_pc_only.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let right = frame.env.key(next) == frame.env.key(frame.addr)
            && landed.store.is_none_or(|store| store.is_so(frame.guest));
        self.checked.fetch_add(1, Ordering::Relaxed);
        if !right {
            let text = format!("went to {}, predicted {next}; store predicted {:?}", frame.addr, landed.store);
            self.mismatch(landed.from, &text, &[]);
        }
    }

    #[cold]
    fn tell<G: GuestState>(&self, frame: &Frame<'_, G>, site: &Site<Kprobe>, problem: &str) {
        let bytes = site.slot(frame.guard).map_or(&[][..], InsnSlot::bytes);
        self.mismatch(site.place().addr(), problem, bytes);
    }

    #[cold]
    fn mismatch(&self, addr: GuestAddr, problem: &str, bytes: &[u8]) {
        if self.mismatches.fetch_add(1, Ordering::Relaxed) < MOST_TOLD {
            say!("qkprobe: verify: {addr} [{bytes:02x?}]: {problem}");
        }
    }
}

impl Prediction {
    fn none(addr: GuestAddr) -> Self {
        Self { addr, registers: [None; MOST_REGISTERS], executed: false, next: addr, store: None, load: None }
    }

    /// Predicts by executing the copy, if it is of a class that can be.
    fn execute<G: GuestState>(&mut self, frame: &Frame<'_, G>, slot: &InsnSlot, execute: &dyn Execute) {
        let mut context = frame.context(None, None);
        let mut scratch =
            Scratch { context: &mut context, written: [None; MOST_WRITTEN], store: None, load: None, device: false };
        let Ok(executed) = execute.execute(slot, frame.addr, &mut scratch) else { return };
        if scratch.device {
            return;
        }
        let (written, store, load) = (scratch.written, scratch.store, scratch.load);
        for (id, register) in compared(frame.env.arch) {
            if register.role == Role::Flags && executed.undefined_flags != 0 {
                continue;
            }
            let new = written.iter().flatten().find(|(written, _)| *written == id).map(|(_, value)| *value);
            if let Some(entry) = self.registers.get_mut(usize::from(id.0)) {
                *entry = new.or_else(|| frame.guest.register(id));
            }
        }
        (self.store, self.load) = (store, load);
        self.next = executed.next;
        self.executed = true;
    }
}

/// What an instance keeps of a prediction.
#[derive(Clone, Copy, Debug, Default)]
struct Landed {
    from: GuestAddr,
    next: Option<GuestAddr>,
    store: Option<Access>,
}

impl Landed {
    fn encode(&self, data: &mut [u8; DATA_BYTES]) {
        let store = self.store.map_or((0, [0; 8], 0), |store| (store.addr.0, store.bytes, store.len));
        let words =
            [self.from.0, self.next.map_or(0, |next| next.0), store.0, u64::from_le_bytes(store.1), u64::from(store.2)];
        for (word, place) in words.iter().zip(data.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(data: &[u8; DATA_BYTES]) -> Self {
        let mut words = data.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let mut word = || words.next().unwrap_or(0);
        let (from, next, addr, bytes, len) = (word(), word(), word(), word(), word());
        Self {
            from: GuestAddr(from),
            next: Some(GuestAddr(next)).filter(|next| next.0 != 0),
            store: u8::try_from(len).ok().filter(|len| *len != 0).map(|len| Access {
                addr: GuestAddr(addr),
                bytes: bytes.to_le_bytes(),
                len,
            }),
        }
    }
}
