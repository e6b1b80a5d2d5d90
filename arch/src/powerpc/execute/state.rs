//! The machine as the instruction sees it while it runs: reads go to the machine, writes are collected, and `commit`
//! carries them out at the end, so that an instruction that faults half way has changed nothing.

use crate::powerpc::{Powerpc, regs};
use crate::{Arch, ByteOrder, ExecuteError, GuestAddr, Machine, RegisterId};

/// More than the larger of the register tables.
const MOST_REGISTERS: usize = 64;
/// `stmw r0` stores all general registers of 32 bits.
pub(super) const MOST_BYTES: usize = 128;

/// Bits of XER (Power ISA 3.1B Book I, section 3.2.2), from the lowest: 32-bit overflow and carry came with ISA 3.0.
pub(super) const SO: u64 = 1 << 31;
pub(super) const OV: u64 = 1 << 30;
pub(super) const CA: u64 = 1 << 29;
pub(super) const OV32: u64 = 1 << 19;
pub(super) const CA32: u64 = 1 << 18;
/// Bit 0 of MSR: 64-bit mode.
const SF: u32 = 63;

struct Store {
    addr: GuestAddr,
    bytes: [u8; MOST_BYTES],
    len: usize,
}

pub(super) struct State<'a> {
    pub(super) isa: &'a Powerpc,
    addr: GuestAddr,
    machine: &'a mut dyn Machine,
    written: [Option<u64>; MOST_REGISTERS],
    /// Bits of CR that are written, and their values: the others are not read for that.
    cr: (u64, u64),
    reads_cr: bool,
    store: Option<Store>,
}

impl<'a> State<'a> {
    pub(super) fn new(isa: &'a Powerpc, addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        Self { isa, addr, machine, written: [None; MOST_REGISTERS], cr: (0, 0), reads_cr: true, store: None }
    }

    /// For what must not depend on CR: what reads it is not supported.
    pub(super) fn without_cr(isa: &'a Powerpc, addr: GuestAddr, machine: &'a mut dyn Machine) -> Self {
        Self { reads_cr: false, ..Self::new(isa, addr, machine) }
    }

    pub(super) fn not_supported(&self) -> ExecuteError {
        ExecuteError::NotSupported { addr: self.addr }
    }

    fn unavailable(&self, id: RegisterId) -> ExecuteError {
        ExecuteError::Register {
            name: self.isa.registers().get(usize::from(id.0)).map_or("", |register| register.name),
        }
    }

    /// The instruction's own address.
    pub(super) fn here(&self) -> GuestAddr {
        self.addr
    }

    pub(super) fn is_64(&self) -> bool {
        self.isa.is_64
    }

    /// For instructions that 32-bit CPUs lack.
    pub(super) fn needs_64(&self) -> Result<(), ExecuteError> {
        if self.is_64() { Ok(()) } else { Err(self.not_supported()) }
    }

    /// A value as a register of this width holds it.
    pub(super) fn trim(&self, value: u64) -> u64 {
        if self.is_64() { value } else { value & 0xffff_ffff }
    }

    /// A register, as this instruction has left it so far. CR is read by `cr`.
    pub(super) fn get(&mut self, id: RegisterId) -> Result<u64, ExecuteError> {
        if let Some(Some(value)) = self.written.get(usize::from(id.0)) {
            return Ok(*value);
        }
        self.machine.register(id).ok_or_else(|| self.unavailable(id))
    }

    pub(super) fn set(&mut self, id: RegisterId, value: u64) -> Result<(), ExecuteError> {
        let value = self.trim(value);
        let not_supported = self.not_supported();
        *self.written.get_mut(usize::from(id.0)).ok_or(not_supported)? = Some(value);
        Ok(())
    }

    pub(super) fn general(&mut self, number: u32) -> Result<u64, ExecuteError> {
        self.get(regs::general(number)).map(|value| self.trim(value))
    }

    pub(super) fn set_general(&mut self, number: u32, value: u64) -> Result<(), ExecuteError> {
        self.set(regs::general(number), value)
    }

    /// RA where 0 means the number 0.
    pub(super) fn general_or_zero(&mut self, number: u32) -> Result<u64, ExecuteError> {
        if number == 0 { Ok(0) } else { self.general(number) }
    }

    /// A 32-bit CPU, or `MSR[SF]` is 0.
    pub(super) fn is_32_bit_mode(&mut self) -> Result<bool, ExecuteError> {
        Ok(!self.is_64() || self.get(regs::MSR)? >> SF == 0)
    }

    /// An address as the mode has it.
    pub(super) fn address(&mut self, addr: u64) -> Result<GuestAddr, ExecuteError> {
        Ok(GuestAddr(if self.is_32_bit_mode()? { addr & 0xffff_ffff } else { addr }))
    }

    /// CR, bit 0 of the manual being the highest of 32.
    pub(super) fn cr(&mut self) -> Result<u64, ExecuteError> {
        if !self.reads_cr {
            return Err(self.not_supported());
        }
        let (mask, value) = self.cr;
        Ok(self.get(regs::CCR)? & 0xffff_ffff & !mask | value & mask)
    }

    pub(super) fn set_cr(&mut self, mask: u64, value: u64) {
        self.cr = (self.cr.0 | mask, self.cr.1 & !mask | value & mask);
    }

    /// Sets one of the eight fields.
    pub(super) fn set_cr_field(&mut self, field: u32, value: u64) {
        let shift = 28 - 4 * (field & 7);
        self.set_cr(0xf << shift, value << shift);
    }

    pub(super) fn xer(&mut self) -> Result<u64, ExecuteError> {
        self.get(regs::XER).map(|value| value & 0xffff_ffff)
    }

    pub(super) fn set_xer(&mut self, mask: u64, value: u64) -> Result<(), ExecuteError> {
        let old = self.xer()?;
        self.set(regs::XER, old & !mask | value & mask)
    }

    /// Has the CPU the 32-bit overflow and carry of ISA 3.0?
    pub(super) fn has_isa_300(&mut self) -> Result<bool, ExecuteError> {
        if !self.is_64() {
            return Ok(false);
        }
        // The version of POWER9, 10, 11 (Linux `arch/powerpc/include/asm/reg.h`, PVR_POWER9 and so on).
        Ok(matches!(self.get(regs::PVR)? >> 16 & 0xffff, 0x4e | 0x80 | 0x82))
    }

    pub(super) fn load(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> Result<(), ExecuteError> {
        if self.machine.read(addr, bytes) { Ok(()) } else { Err(ExecuteError::Fault { addr }) }
    }

    pub(super) fn order(&self) -> ByteOrder {
        self.isa.order
    }

    /// The one store of the instruction. Nothing reads memory after it.
    pub(super) fn store(&mut self, addr: GuestAddr, data: &[u8]) -> Result<(), ExecuteError> {
        let mut bytes = [0; MOST_BYTES];
        bytes.get_mut(..data.len()).ok_or_else(|| self.not_supported())?.copy_from_slice(data);
        self.store = Some(Store { addr, bytes, len: data.len() });
        Ok(())
    }

    /// Carries out the writes. The registers go first, because they can be put back.
    pub(super) fn commit(mut self) -> Result<(), ExecuteError> {
        if self.cr.0 != 0 {
            self.reads_cr = true;
            let cr = self.cr()?;
            self.set(regs::CCR, cr)?;
        }
        let mut before = [None; MOST_REGISTERS];
        if let Err(error) = self.apply(&mut before) {
            for (id, value) in (0..).zip(before) {
                // What it held a moment ago it holds again: nothing to do about a machine that refuses that.
                value.map(|value| self.machine.set_register(RegisterId(id), value));
            }
            return Err(error);
        }
        Ok(())
    }

    fn apply(&mut self, before: &mut [Option<u64>; MOST_REGISTERS]) -> Result<(), ExecuteError> {
        for ((id, value), before) in (0..).map(RegisterId).zip(self.written).zip(before) {
            let Some(value) = value else { continue };
            let old = self.machine.register(id).ok_or_else(|| self.unavailable(id))?;
            if !self.machine.set_register(id, value) {
                return Err(self.unavailable(id));
            }
            *before = Some(old);
        }
        let Some(Store { addr, bytes, len }) = &self.store else { return Ok(()) };
        let part = bytes.get(..*len).unwrap_or_default();
        if self.machine.write(*addr, part) { Ok(()) } else { Err(ExecuteError::Fault { addr: *addr }) }
    }
}
