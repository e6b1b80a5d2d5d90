//! The machine as the instruction sees it while it runs: reads go to the machine, writes are collected, and `commit`
//! carries them out at the end, so that an instruction that faults half way has changed nothing.

use iced_x86::Register;

use super::width::Width;
use crate::x86::mode::Mode;
use crate::{ByteOrder, ExecuteError, GuestAddr, Machine, RegisterId};

/// Most registers that an instruction writes: two, and the flags (`xadd`, `div`).
const MOST_REGISTERS: usize = 3;

#[derive(Clone, Copy)]
struct Store {
    addr: GuestAddr,
    bytes: [u8; 8],
    width: Width,
}

pub(super) struct State<'a> {
    mode: Mode,
    addr: GuestAddr,
    machine: &'a mut dyn Machine,
    written: [Option<(RegisterId, u64)>; MOST_REGISTERS],
    store: Option<Store>,
    undefined_flags: u64,
}

/// Where a register lies in the whole one: its id, width, and the bit that it starts at.
fn locate(mode: Mode, register: Register) -> Option<(RegisterId, Width, u32)> {
    let whole = register.full_register();
    if !whole.is_gpr64() {
        return None;
    }
    let id = *mode.ids().general.get(whole.number())?;
    let first_bit = if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) { 8 } else { 0 };
    Some((id, Width::from_bytes(register.size())?, first_bit))
}

fn unavailable(mode: Mode, id: RegisterId) -> ExecuteError {
    ExecuteError::Register { name: mode.registers().get(usize::from(id.0)).map_or("", |register| register.name) }
}

impl<'a> State<'a> {
    pub(super) fn new(mode: Mode, addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        Self { mode, addr, machine, written: [None; MOST_REGISTERS], store: None, undefined_flags: 0 }
    }

    /// For what must not depend on the flags: they read as 0, and the machine is not asked for them.
    pub(super) fn without_flags(mode: Mode, addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        let mut state = Self::new(mode, addr, machine);
        if let Some(first) = state.written.first_mut() {
            *first = Some((mode.ids().flags, 0));
        }
        state
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// The width of an address, of a whole register, and of what a plain `push` stores.
    pub(super) fn word(&self) -> Width {
        match self.mode {
            Mode::Protected => Width::Long,
            Mode::Long => Width::Quad,
        }
    }

    pub(super) fn not_supported(&self) -> ExecuteError {
        ExecuteError::NotSupported { addr: self.addr }
    }

    /// For what the guest relies on to be atomic.
    pub(super) fn needs_atomicity(&self) -> Result<(), ExecuteError> {
        if self.machine.is_alone() { Ok(()) } else { Err(self.not_supported()) }
    }

    /// A whole register, as this instruction has left it so far.
    pub(super) fn whole(&mut self, id: RegisterId) -> Result<u64, ExecuteError> {
        let written = self.written.iter().flatten().find(|(written, _)| *written == id);
        match written {
            Some((_, value)) => Ok(*value),
            None => {
                let value = self.machine.register(id).ok_or_else(|| unavailable(self.mode, id))?;
                Ok(self.mode.trim(value))
            }
        }
    }

    pub(super) fn set_whole(&mut self, id: RegisterId, value: u64) -> Result<(), ExecuteError> {
        let not_supported = self.not_supported();
        let taken = |entry: &&mut Option<(RegisterId, u64)>| entry.is_none_or(|(written, _)| written == id);
        *self.written.iter_mut().find(taken).ok_or(not_supported)? = Some((id, self.mode.trim(value)));
        Ok(())
    }

    pub(super) fn sp(&mut self) -> Result<u64, ExecuteError> {
        self.whole(self.mode.ids().sp)
    }

    pub(super) fn set_sp(&mut self, value: u64) -> Result<(), ExecuteError> {
        self.set_whole(self.mode.ids().sp, value)
    }

    pub(super) fn bp(&mut self) -> Result<u64, ExecuteError> {
        self.whole(self.mode.ids().bp)
    }

    /// The value of a general register or of a part of one.
    pub(super) fn register(&mut self, register: Register) -> Result<u64, ExecuteError> {
        let (id, width, first_bit) = locate(self.mode, register).ok_or_else(|| self.not_supported())?;
        Ok(width.trim(self.whole(id)? >> first_bit))
    }

    /// Sets a general register or a part of one: 32 bits clear the upper half of one of 64, 8 and 16 keep the rest (Intel SDM
    /// volume 1, section 3.4.1.1).
    pub(super) fn set_register(&mut self, register: Register, value: u64) -> Result<(), ExecuteError> {
        let (id, width, first_bit) = locate(self.mode, register).ok_or_else(|| self.not_supported())?;
        let value = width.trim(value);
        let whole = match width {
            Width::Long | Width::Quad => value,
            Width::Byte | Width::Word => self.whole(id)? & !(width.mask() << first_bit) | value << first_bit,
        };
        self.set_whole(id, whole)
    }

    pub(super) fn flags(&mut self) -> Result<u64, ExecuteError> {
        self.whole(self.mode.ids().flags)
    }

    /// Sets the flags in `defined` from `values`; the status flags in `undefined` stay as they are, and are told.
    pub(super) fn set_flags(&mut self, defined: u64, values: u64, undefined: u64) -> Result<(), ExecuteError> {
        let old = self.flags()?;
        self.undefined_flags |= undefined;
        self.set_whole(self.mode.ids().flags, old & !defined | values & defined)
    }

    pub(super) fn load(&mut self, addr: GuestAddr, width: Width) -> Result<u64, ExecuteError> {
        let addr = GuestAddr(self.mode.trim(addr.0));
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..usize::from(width.bytes())).unwrap_or_default();
        if self.machine.read(addr, part) {
            Ok(ByteOrder::Little.number(part))
        } else {
            Err(ExecuteError::Fault { addr })
        }
    }

    /// The one store of the instruction. Nothing reads memory after it.
    pub(super) fn store(&mut self, addr: GuestAddr, width: Width, value: u64) {
        let addr = GuestAddr(self.mode.trim(addr.0));
        self.store = Some(Store { addr, bytes: value.to_le_bytes(), width });
    }

    /// Carries out the writes, and gives the undefined flags. The registers go first, because they can be put back.
    pub(super) fn commit(mut self) -> Result<u64, ExecuteError> {
        let mut before = [None; MOST_REGISTERS];
        if let Err(error) = self.apply(&mut before) {
            for (id, value) in before.into_iter().flatten() {
                // What it held a moment ago it holds again: nothing to do about a machine that refuses that.
                self.machine.set_register(id, value);
            }
            return Err(error);
        }
        Ok(self.undefined_flags)
    }

    fn apply(&mut self, before: &mut [Option<(RegisterId, u64)>; MOST_REGISTERS]) -> Result<(), ExecuteError> {
        for ((id, value), before) in self.written.iter().flatten().zip(before) {
            let old = self.machine.register(*id).ok_or_else(|| unavailable(self.mode, *id))?;
            if !self.machine.set_register(*id, *value) {
                return Err(unavailable(self.mode, *id));
            }
            *before = Some((*id, old));
        }
        let Some(Store { addr, bytes, width }) = self.store else { return Ok(()) };
        let part = bytes.get(..usize::from(width.bytes())).unwrap_or_default();
        if self.machine.write(addr, part) { Ok(()) } else { Err(ExecuteError::Fault { addr }) }
    }
}
