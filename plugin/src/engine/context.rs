//! The guest at a hit, as programs, effects and the executor see it.

use qkprobe_arch::{Arch, BlockPlace, GuestAddr, InsnSlot, Machine, RegisterId, RegisterSource};
use qkprobe_lang::{Definition, HitContext, HitMachine, Space};

use super::hit::Spot;
use super::pending::Instance;

/// The guest's registers and memory at the hit: QEMU's, or a fake's.
pub(crate) trait GuestState {
    /// A register's value, if there is such a register.
    fn register(&self, id: RegisterId) -> Option<u64>;
    /// Sets a register; false where that is impossible. Only in a callback with `Access::Write`.
    fn set_register(&self, id: RegisterId, value: u64) -> bool;
    /// Reads memory as the vCPU's current translation maps it; all or nothing.
    fn read(&self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool;
    /// Writes memory; all or nothing.
    fn write(&self, space: Space, addr: GuestAddr, bytes: &[u8]) -> bool;
    /// The word at an address of the running kernel stack, if there is a faster way than `read`.
    fn stack_word(&self, _addr: GuestAddr) -> Option<u64> {
        None
    }
    /// Whether the address is certainly mapped to RAM: reading a device would change it.
    fn is_ram(&self, addr: GuestAddr) -> bool;
}

/// A call that returns: what was put aside at its entry.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) definition: Option<&'a Definition>,
}

/// The guest at one hit.
pub(crate) struct Context<'a, G> {
    pub(crate) guest: &'a G,
    pub(crate) arch: &'static dyn Arch,
    /// What the program counter reads as.
    pub(crate) ip: GuestAddr,
    pub(crate) slide: Option<u64>,
    /// After the instruction: where execution is.
    pub(crate) next_pc: Option<GuestAddr>,
    /// At a return.
    pub(crate) call: Option<Call<'a>>,
    /// Nanoseconds, as records have them.
    pub(crate) time: u64,
    pub(crate) spot: Spot,
}

impl<G: GuestState> Context<'_, G> {
    #[inline]
    pub(crate) fn get(&self, id: RegisterId) -> Option<u64> {
        match self.arch.registers().get(usize::from(id.0))?.source {
            RegisterSource::Qemu { .. } if self.arch.npc_register() == Some(id) => self.npc(),
            RegisterSource::Qemu { .. } => self.guest.register(id),
            // QEMU's own program counter is stale in a callback.
            RegisterSource::ProbeAddress => Some(self.ip.0),
            RegisterSource::Constant(value) => Some(value),
        }
    }

    /// Where execution goes next: QEMU's own register is as stale as the program counter.
    #[cold]
    fn npc(&self) -> Option<u64> {
        let execute = self.arch.as_execute()?;
        if let Some(next) = self.next_pc {
            return Some(next.0.wrapping_add(4));
        }
        let mut context = Context { call: None, ..*self };
        execute.npc(self.ip, &mut context).ok()?.map(|npc| npc.0)
    }

    /// Reads a word of the guest.
    pub(crate) fn word(&self, addr: GuestAddr) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..self.arch.word_bytes())?;
        self.guest.read(Space::Kernel, addr, bytes).then(|| self.arch.byte_order().number(bytes))
    }
}

impl<G: GuestState> Context<'_, G> {
    /// The instruction right before this one, if it is on the same page. ISAs with delay slots have instructions of 4 bytes.
    fn before(&self) -> Option<InsnSlot> {
        const PAGE: u64 = 8192;
        let addr = GuestAddr(self.ip.0.checked_sub(4)?);
        let mut bytes = [0; 4];
        let same_page = addr.0 / PAGE == self.ip.0 / PAGE;
        let read = same_page && self.guest.read(Space::Kernel, addr, &mut bytes);
        read.then(|| InsnSlot::prepare(self.arch, addr, &bytes).ok()).flatten()
    }
}

impl<G: GuestState> HitContext for Context<'_, G> {
    #[inline]
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        self.get(id)
    }

    #[inline]
    fn read(&mut self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        // Where one translation serves both spaces: as in the kernel, a user access must not reach the kernel's half, while
        // a kernel access to a user address is served.
        (space == Space::Kernel || self.arch.is_user_address(addr)) && self.guest.read(space, addr, out)
    }

    fn slide(&mut self, addr: GuestAddr) -> Option<GuestAddr> {
        self.slide.map(|slide| addr.wrapping_add(slide))
    }

    fn saved(&mut self, index: usize) -> Option<u64> {
        let call = self.call?;
        call.definition?.entry.as_ref()?.number(&call.instance.data, index)
    }

    fn latency(&mut self) -> Option<u64> {
        self.call.map(|call| self.time.saturating_sub(call.instance.time))
    }

    fn entry_time(&mut self) -> Option<u64> {
        self.call.map(|call| call.instance.time)
    }

    fn next_pc(&mut self) -> Option<u64> {
        self.next_pc.map(|next| next.0)
    }
}

impl<G: GuestState> HitMachine for Context<'_, G> {
    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        self.arch.writable(id) && self.guest.set_register(id, value)
    }

    fn write(&mut self, space: Space, addr: GuestAddr, bytes: &[u8]) -> bool {
        (space == Space::Kernel || self.arch.is_user_address(addr)) && self.guest.write(space, addr, bytes)
    }
}

/// For the executor: everything but flags that QEMU cannot take is written. Those are dead after an instruction that is
/// skipped or replaced (registration refuses others).
impl<G: GuestState> Machine for Context<'_, G> {
    fn register(&mut self, id: RegisterId) -> Option<u64> {
        // The executor knows where QEMU's own is exact; what `get` gives for it comes from the executor.
        if self.arch.npc_register() == Some(id) { self.guest.register(id) } else { self.get(id) }
    }

    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        let is_flags = |id: RegisterId| {
            let register = self.arch.registers().get(usize::from(id.0));
            register.is_some_and(|register| register.role == qkprobe_arch::Role::Flags)
        };
        let exact = self.arch.as_execute().is_some_and(qkprobe_arch::Execute::flags_are_exact);
        (is_flags(id) && !exact) || (self.arch.writable(id) && self.guest.set_register(id, value))
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        self.guest.read(Space::Kernel, addr, bytes)
    }

    fn place(&mut self) -> BlockPlace {
        match self.spot {
            Spot::Any => BlockPlace::Exact,
            Spot::Behind => self.before().map_or(BlockPlace::Unknown, BlockPlace::Behind),
            Spot::First => BlockPlace::First,
            Spot::Slot(npc) => BlockPlace::Slot { npc },
        }
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        self.guest.write(Space::Kernel, addr, bytes)
    }
}
