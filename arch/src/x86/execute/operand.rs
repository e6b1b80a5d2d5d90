//! Operands: where an instruction's values come from and go to, and the addresses of memory operands.

use iced_x86::{Instruction, OpKind, Register};

use super::state::State;
use super::width::Width;
use crate::{ExecuteError, GuestAddr};

/// One operand, located: an instruction that reads and writes memory computes its address once.
#[derive(Clone, Copy)]
pub(super) enum Operand {
    Register(Register, Width),
    Memory(GuestAddr, Width),
    /// Sign-extended as the instruction says.
    Immediate(u64),
}

impl Operand {
    /// The operand of that number, counted in Intel's order: the destination is number 0.
    pub(super) fn locate(instruction: &Instruction, number: u32, state: &mut State<'_>) -> Result<Self, ExecuteError> {
        match instruction.try_op_kind(number) {
            Ok(OpKind::Register) => {
                let register = instruction.try_op_register(number).unwrap_or_default();
                let width = Width::from_bytes(register.size()).ok_or_else(|| state.not_supported())?;
                Ok(Self::Register(register, width))
            }
            Ok(OpKind::Memory) => {
                let width = memory_width(instruction).ok_or_else(|| state.not_supported())?;
                Ok(Self::Memory(address(instruction, 0, state)?, width))
            }
            _ => instruction.try_immediate(number).map(Self::Immediate).map_err(|_| state.not_supported()),
        }
    }

    /// `None` for an immediate, which is as wide as the operand that it joins.
    pub(super) fn width(self) -> Option<Width> {
        match self {
            Self::Register(_, width) | Self::Memory(_, width) => Some(width),
            Self::Immediate(_) => None,
        }
    }

    /// The value, zero-extended (an immediate: sign-extended).
    pub(super) fn read(self, state: &mut State<'_>) -> Result<u64, ExecuteError> {
        match self {
            Self::Register(register, _) => state.register(register),
            Self::Memory(addr, width) => state.load(addr, width),
            Self::Immediate(value) => Ok(value),
        }
    }

    pub(super) fn write(self, state: &mut State<'_>, value: u64) -> Result<(), ExecuteError> {
        match self {
            Self::Register(register, _) => state.set_register(register, value),
            Self::Memory(addr, width) => {
                state.store(addr, width, value);
                Ok(())
            }
            Self::Immediate(_) => Err(state.not_supported()),
        }
    }
}

/// An operand that decides the width of the instruction, so no immediate.
pub(super) fn sized(
    instruction: &Instruction,
    number: u32,
    state: &mut State<'_>,
) -> Result<(Operand, Width), ExecuteError> {
    let operand = Operand::locate(instruction, number, state)?;
    let width = operand.width().ok_or_else(|| state.not_supported())?;
    Ok((operand, width))
}

pub(super) fn memory_width(instruction: &Instruction) -> Option<Width> {
    Width::from_bytes(instruction.memory_size().size())
}

/// The linear address of the memory operand, `further` bytes on. Segment bases are added to what the address size has
/// cut; in 64-bit mode only FS and GS have any (Intel SDM volume 1, section 3.3.4), and in a kernel of 32 bits.
pub(super) fn address(
    instruction: &Instruction,
    further: u64,
    state: &mut State<'_>,
) -> Result<GuestAddr, ExecuteError> {
    let base = match instruction.memory_segment() {
        Register::FS => state.whole(state.mode().ids().fs_base)?,
        Register::GS => state.whole(state.mode().ids().gs_base)?,
        _ => 0,
    };
    let offset = effective(instruction, further, state)?;
    Ok(GuestAddr(state.mode().trim(base.wrapping_add(offset))))
}

/// The offset in the segment: what `lea` gives.
pub(super) fn effective(instruction: &Instruction, further: u64, state: &mut State<'_>) -> Result<u64, ExecuteError> {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let mut offset = instruction.memory_displacement64().wrapping_add(further);
    // The displacement of a rip-relative operand is its address already.
    if !matches!(base, Register::None | Register::RIP | Register::EIP) {
        offset = offset.wrapping_add(state.register(base)?);
    }
    if index != Register::None {
        let scale = u64::from(instruction.memory_index_scale());
        offset = offset.wrapping_add(state.register(index)?.wrapping_mul(scale));
    }
    let address_bytes = match (base, index) {
        (Register::None, Register::None) => instruction.memory_displ_size() as usize,
        (Register::None, index) => index.size(),
        (base, _) => base.size(),
    };
    Ok(Width::from_bytes(address_bytes).map_or(offset, |width| width.trim(offset)))
}
