//! The machine as the instruction sees it while it runs: reads go to the machine, writes are collected, and `commit`
//! carries them out at the end, so that an instruction that faults half way has changed nothing.

use super::super::regs;
use super::super::word::Word;
use crate::{BlockPlace, ByteOrder, ExecuteError, GuestAddr, Machine, RegisterId};

/// Most registers that an instruction writes: one and the flags and `%y` (`umulcc`), or two (`ldd`).
const MOST_REGISTERS: usize = 3;
/// CCR in TSTATE.
const CCR_SHIFT: u32 = 32;
const CCR: u64 = 0xff << CCR_SHIFT;

#[derive(Clone, Copy)]
struct Store {
    addr: GuestAddr,
    bytes: [u8; 8],
    len: usize,
}

pub(super) struct State<'a> {
    addr: GuestAddr,
    machine: &'a mut dyn Machine,
    written: [Option<(RegisterId, u64)>; MOST_REGISTERS],
    store: Option<Store>,
    /// What is asked is where execution goes and with which stack pointer, if the instruction completes: without flags,
    /// and an access is aligned then.
    is_for_successors: bool,
}

fn unavailable(id: RegisterId) -> ExecuteError {
    ExecuteError::Register { name: regs::REGISTERS.get(usize::from(id.0)).map_or("", |register| register.name) }
}

impl<'a> State<'a> {
    pub(super) fn new(addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        Self { addr, machine, written: [None; MOST_REGISTERS], store: None, is_for_successors: false }
    }

    /// For what must not depend on the flags: what reads them is not supported.
    pub(super) fn for_successors(addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        Self { is_for_successors: true, ..Self::new(addr, machine) }
    }

    pub(super) fn is_for_successors(&self) -> bool {
        self.is_for_successors
    }

    /// Where the instruction lies.
    pub(super) fn addr(&self) -> GuestAddr {
        self.addr
    }

    pub(super) fn not_supported(&self) -> ExecuteError {
        ExecuteError::NotSupported { addr: self.addr }
    }

    /// For what the guest relies on to be atomic.
    pub(super) fn needs_atomicity(&self) -> Result<(), ExecuteError> {
        if self.machine.is_alone() { Ok(()) } else { Err(self.not_supported()) }
    }

    pub(super) fn place(&mut self) -> BlockPlace {
        self.machine.place()
    }

    /// A register of `regs`, as this instruction has left it so far.
    pub(super) fn whole(&mut self, id: RegisterId) -> Result<u64, ExecuteError> {
        let written = self.written.iter().flatten().find(|(written, _)| *written == id);
        match written {
            Some((_, value)) => Ok(*value),
            None => self.machine.register(id).ok_or_else(|| unavailable(id)),
        }
    }

    pub(super) fn set_whole(&mut self, id: RegisterId, value: u64) -> Result<(), ExecuteError> {
        let not_supported = self.not_supported();
        let taken = |entry: &&mut Option<(RegisterId, u64)>| entry.is_none_or(|(written, _)| written == id);
        *self.written.iter_mut().find(taken).ok_or(not_supported)? = Some((id, value));
        Ok(())
    }

    /// The register of that number; `%g0` is 0.
    pub(super) fn get(&mut self, number: u32) -> Result<u64, ExecuteError> {
        if number == 0 { Ok(0) } else { self.whole(regs::numbered(number)) }
    }

    /// Sets the register of that number; `%g0` stays 0.
    pub(super) fn set(&mut self, number: u32, value: u64) -> Result<(), ExecuteError> {
        if number == 0 { Ok(()) } else { self.set_whole(regs::numbered(number), value) }
    }

    /// The second operand: a constant of 13 bits, or a register.
    pub(super) fn operand(&mut self, word: Word) -> Result<u64, ExecuteError> {
        if word.is_immediate() { Ok(word.signed(0, 13).cast_unsigned()) } else { self.get(word.rs2()) }
    }

    /// rs1 + the second operand: the address that a load, a store or an indirect jump means.
    pub(super) fn sum(&mut self, word: Word) -> Result<u64, ExecuteError> {
        Ok(self.get(word.rs1())?.wrapping_add(self.operand(word)?))
    }

    /// The 8 bits of CCR: C, V, Z, N of icc from bit 0 on, the same of xcc from bit 4 on.
    pub(super) fn flags(&mut self) -> Result<u64, ExecuteError> {
        if self.is_for_successors {
            return Err(self.not_supported());
        }
        Ok((self.whole(regs::TSTATE)? & CCR) >> CCR_SHIFT)
    }

    pub(super) fn set_flags(&mut self, ccr: u64) -> Result<(), ExecuteError> {
        let old = if self.is_for_successors { 0 } else { self.whole(regs::TSTATE)? };
        self.set_whole(regs::TSTATE, old & !CCR | ccr << CCR_SHIFT & CCR)
    }

    /// The address space that `%asi` names.
    pub(super) fn asi(&mut self) -> Result<u64, ExecuteError> {
        if self.is_for_successors {
            return Err(self.not_supported());
        }
        Ok(self.whole(regs::TSTATE)? >> 24 & 0xff)
    }

    /// Floating-point condition code `number`: 0 equal, 1 less, 2 greater, 3 unordered (manual, FSR).
    pub(super) fn float_condition(&mut self, number: u32) -> Result<u32, ExecuteError> {
        let first_bit = if number == 0 { 10 } else { 30 + 2 * number };
        Ok((self.whole(regs::FSR)? >> first_bit & 3) as u32)
    }

    /// A number of `len` bytes, which must be aligned: otherwise the instruction traps.
    pub(super) fn load(&mut self, addr: u64, len: usize) -> Result<u64, ExecuteError> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..len).unwrap_or_default();
        if !addr.is_multiple_of(len as u64) && !self.is_for_successors {
            return Err(self.not_supported());
        }
        let addr = GuestAddr(addr);
        if self.machine.read(addr, part) { Ok(ByteOrder::Big.number(part)) } else { Err(ExecuteError::Fault { addr }) }
    }

    /// The one store of the instruction, of the low `len` bytes. Nothing reads memory after it.
    pub(super) fn store(&mut self, addr: u64, len: usize, value: u64) -> Result<(), ExecuteError> {
        if !addr.is_multiple_of(len as u64) {
            return Err(self.not_supported());
        }
        let shift = 64 - 8 * len as u32;
        self.store = Some(Store { addr: GuestAddr(addr), bytes: (value << shift).to_be_bytes(), len });
        Ok(())
    }

    /// Carries out the writes. The registers go first, because they can be put back.
    pub(super) fn commit(mut self) -> Result<(), ExecuteError> {
        let mut before = [None; MOST_REGISTERS];
        let applied = self.apply(&mut before);
        if applied.is_err() {
            for (id, value) in before.into_iter().flatten() {
                // What it held a moment ago it holds again: nothing to do about a machine that refuses that.
                self.machine.set_register(id, value);
            }
        }
        applied
    }

    fn apply(&mut self, before: &mut [Option<(RegisterId, u64)>; MOST_REGISTERS]) -> Result<(), ExecuteError> {
        for ((id, value), before) in self.written.iter().flatten().zip(before) {
            let old = self.machine.register(*id).ok_or_else(|| unavailable(*id))?;
            if !self.machine.set_register(*id, *value) {
                return Err(unavailable(*id));
            }
            *before = Some((*id, old));
        }
        let Some(Store { addr, bytes, len }) = self.store else { return Ok(()) };
        let part = bytes.get(..len).unwrap_or_default();
        if self.machine.write(addr, part) { Ok(()) } else { Err(ExecuteError::Fault { addr }) }
    }
}
