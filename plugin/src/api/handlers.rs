//! Handlers in Rust: what they get, and what they may answer.

use std::fmt;

use qkprobe_arch::{Arch, ArgumentPlace, GuestAddr, RegisterId};
use qkprobe_lang::{HitMachine, Space};

use crate::engine::kprobe::Access;

/// Bytes of private data that a return probe's entry handler may leave for its return handler.
pub const DATA_BYTES: usize = crate::engine::pending::DATA_BYTES;

/// Most bytes of one string.
const MAX_STRING: usize = 4096;
const PAGE: u64 = 4096;

/// What a pre handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pre {
    /// The instruction runs, then post handlers.
    GoOn,
    /// The flow has changed: the vCPU goes on at this address, the instruction does not run, and neither older probes of
    /// the place nor any post handler. Only where the probe was registered with `Kprobe::changes_flow`; otherwise it is
    /// `GoOn`. The arithmetic flags are lost, so nobody may read them there: at a function's entry, going back to the
    /// caller, nobody does.
    JumpTo(GuestAddr),
}

pub(crate) type PreFn = dyn Fn(&mut Hit<'_>) -> Pre + Send + Sync;
pub(crate) type PostFn = dyn Fn(&mut Hit<'_>) + Send + Sync;
pub(crate) type EntryFn = dyn Fn(&mut Hit<'_>, &mut [u8; DATA_BYTES]) -> bool + Send + Sync;
pub(crate) type ReturnFn = dyn Fn(&mut Hit<'_>, &[u8; DATA_BYTES]) + Send + Sync;

/// The handlers of a `Kprobe`.
#[derive(Default)]
pub(crate) struct StepHandlers {
    pub(crate) pre: Option<Box<PreFn>>,
    pub(crate) post: Option<Box<PostFn>>,
}

/// The handlers of a `Kretprobe`.
pub(crate) struct ReturnHandlers {
    pub(crate) entry: Option<Box<EntryFn>>,
    pub(crate) handler: Box<ReturnFn>,
}

impl fmt::Debug for StepHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepHandlers").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReturnHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnHandlers").finish_non_exhaustive()
    }
}

/// The guest at a hit. Handlers run on the vCPU's thread while the vCPU stands still: they must not wait, and may not
/// register or unregister (that is refused).
pub struct Hit<'a> {
    machine: &'a mut dyn HitMachine,
    arch: &'static dyn Arch,
    vcpu: u32,
    addr: GuestAddr,
    access: Access,
}

impl fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit").field("vcpu", &self.vcpu).field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl<'a> Hit<'a> {
    pub(crate) fn new(
        machine: &'a mut dyn HitMachine,
        arch: &'static dyn Arch,
        vcpu: u32,
        addr: GuestAddr,
        access: Access,
    ) -> Self {
        Self { machine, arch, vcpu, addr, access }
    }

    /// The handler may do no more than that.
    pub(crate) fn limit(&mut self, access: Access) {
        self.access = self.access.min(access);
    }

    pub(crate) fn may_jump(&self) -> bool {
        self.access == Access::Pc
    }

    /// QEMU's index of the vCPU. Where one thread runs several vCPUs, QEMU does not tell which one hits.
    #[must_use]
    pub fn vcpu(&self) -> u32 {
        self.vcpu
    }

    /// Where the probe is, as the guest runs it. In a return handler: where the function has returned to. In a post handler
    /// behind a call, a jump or the end of a translated block: where execution is, as `next_pc`.
    #[must_use]
    pub fn addr(&self) -> GuestAddr {
        self.addr
    }

    /// In a post handler: where execution is.
    pub fn next_pc(&mut self) -> Option<GuestAddr> {
        self.machine.next_pc().map(GuestAddr)
    }

    /// In a return handler: nanoseconds since the function was entered.
    pub fn latency(&mut self) -> Option<u64> {
        self.machine.latency()
    }

    /// A register by the name that a definition gives it (`ax`, `sp`, ...).
    pub fn register(&mut self, name: &str) -> Option<u64> {
        let id = self.arch.register(name)?;
        self.machine.register(id)
    }

    /// The N-th argument (from 1); meaningful at a function's entry only.
    pub fn argument(&mut self, n: u32) -> Option<u64> {
        match self.arch.argument(n)? {
            ArgumentPlace::Register(id) => self.machine.register(id),
            ArgumentPlace::Stack { offset } => {
                let sp = self.machine.register(self.arch.stack_pointer())?;
                self.word(GuestAddr(sp.wrapping_add(self.arch.stack_bias()).wrapping_add(offset)))
            }
            ArgumentPlace::Zero => Some(0),
        }
    }

    /// A function's result; meaningful in a return handler.
    pub fn return_value(&mut self) -> Option<u64> {
        self.machine.register(self.arch.return_value())
    }

    /// Fills `out` from guest memory as the kernel sees it, all or nothing. Where user programs have addresses of their own
    /// (sparc64) theirs are read by [`read_user`](Self::read_user).
    pub fn read(&mut self, addr: GuestAddr, out: &mut [u8]) -> bool {
        self.read_from(Space::Kernel, addr, out)
    }

    /// The same from the memory of the user program that runs.
    pub fn read_user(&mut self, addr: GuestAddr, out: &mut [u8]) -> bool {
        self.read_from(Space::User, addr, out)
    }

    fn read_from(&mut self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = addr.wrapping_add(done as u64);
            let len = rest.len().min(usize::try_from(PAGE - at.0 % PAGE).unwrap_or(1));
            let Some(piece) = rest.get_mut(..len) else { return false };
            if !self.machine.read(space, at, piece) {
                return false;
            }
            done += len;
        }
        true
    }

    /// A word of the guest's size and byte order.
    pub fn word(&mut self, addr: GuestAddr) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..self.arch.word_bytes())?;
        self.read(addr, bytes).then(|| self.arch.byte_order().number(bytes))
    }

    /// A string up to its NUL, at most 4096 bytes of it. The guest is not trusted: any byte may be in it.
    pub fn string(&mut self, addr: GuestAddr) -> Option<Vec<u8>> {
        self.string_from(Space::Kernel, addr)
    }

    /// The same from the memory of the user program that runs.
    pub fn user_string(&mut self, addr: GuestAddr) -> Option<Vec<u8>> {
        self.string_from(Space::User, addr)
    }

    fn string_from(&mut self, space: Space, addr: GuestAddr) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < MAX_STRING {
            let at = addr.wrapping_add(text.len() as u64);
            let mut piece = [0; 64];
            let len = piece.len().min(usize::try_from(PAGE - at.0 % PAGE).unwrap_or(1));
            let piece = piece.get_mut(..len)?;
            if !self.machine.read(space, at, piece) {
                return None;
            }
            if let Some(nul) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(piece.get(..nul)?);
                break;
            }
            text.extend_from_slice(piece);
        }
        Some(text)
    }

    /// Sets a register. Only where the probe was registered with `changes_state`; false where that is impossible.
    pub fn set_register(&mut self, name: &str, value: u64) -> bool {
        let Some(id) = self.arch.register(name) else { return false };
        self.set(id, value)
    }

    /// Sets the register of a function's result.
    pub fn set_return_value(&mut self, value: u64) -> bool {
        self.set(self.arch.return_value(), value)
    }

    fn set(&mut self, id: RegisterId, value: u64) -> bool {
        self.access >= Access::Write && self.machine.set_register(id, value)
    }

    /// Writes guest memory. Only where the probe was registered with `changes_state`.
    pub fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        self.access >= Access::Write && self.machine.write(Space::Kernel, addr, bytes)
    }
}
