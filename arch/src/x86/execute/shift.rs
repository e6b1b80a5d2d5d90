//! Shifts and rotates.
//!
//! The count is taken modulo 32, with 64-bit operands modulo 64; a count of 0 changes no flag. OF is defined for a count of
//! 1 alone; shifts leave AF undefined, and CF too when `shl` or `shr` shift by the operand's width or more; rotates
//! touch CF and OF only (Intel SDM volume 2, "SAL/SAR/SHL/SHR" and "RCL/RCR/ROL/ROR").

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::flags::{self, AF, CF, OF, PF, SF, ZF};
use super::operand::{Operand, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// What one shift gives.
#[derive(Clone, Copy)]
pub(super) struct Shifted {
    result: u64,
    carry: bool,
    overflow: bool,
    /// SF, ZF and PF follow the result, and AF is undefined.
    is_shift: bool,
    carry_is_defined: bool,
}

/// The operand zero-extended, and the masked count, which is not 0.
pub(super) type Shift = fn(Width, u64, u32) -> Shifted;

pub(super) fn shl(width: Width, value: u64, count: u32) -> Shifted {
    let result = width.trim(value << count);
    let carry = count <= width.bits() && value >> (width.bits() - count) & 1 != 0;
    let overflow = width.is_negative(result) != carry;
    Shifted { result, carry, overflow, is_shift: true, carry_is_defined: count < width.bits() }
}

pub(super) fn shr(width: Width, value: u64, count: u32) -> Shifted {
    Shifted {
        result: value >> count,
        carry: value >> (count - 1) & 1 != 0,
        overflow: width.is_negative(value),
        is_shift: true,
        carry_is_defined: count < width.bits(),
    }
}

pub(super) fn sar(width: Width, value: u64, count: u32) -> Shifted {
    let signed = width.signed(value);
    Shifted {
        result: width.trim((signed >> count).cast_unsigned()),
        carry: signed >> (count - 1) & 1 != 0,
        overflow: false,
        is_shift: true,
        carry_is_defined: true,
    }
}

pub(super) fn rol(width: Width, value: u64, count: u32) -> Shifted {
    let result = rotate_left(width, value, count % width.bits());
    let carry = result & 1 != 0;
    let overflow = width.is_negative(result) != carry;
    Shifted { result, carry, overflow, is_shift: false, carry_is_defined: true }
}

pub(super) fn ror(width: Width, value: u64, count: u32) -> Shifted {
    let result = rotate_left(width, value, (width.bits() - count % width.bits()) % width.bits());
    let carry = width.is_negative(result);
    let overflow = carry != (result & width.top() >> 1 != 0);
    Shifted { result, carry, overflow, is_shift: false, carry_is_defined: true }
}

/// `count` is less than the width.
fn rotate_left(width: Width, value: u64, count: u32) -> u64 {
    if count == 0 { value } else { width.trim(value << count) | value >> (width.bits() - count) }
}

pub(super) fn run(instruction: &Instruction, state: &mut State<'_>, shift: Shift) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let count = masked(width, Operand::locate(instruction, 1, state)?.read(state)?);
    let value = destination.read(state)?;
    if count == 0 {
        // Still a write: a 32-bit register loses its upper half, and memory must be writable.
        return destination.write(state, value);
    }
    finish(state, destination, width, shift(width, value, count), count)
}

fn finish(
    state: &mut State<'_>,
    destination: Operand,
    width: Width,
    shifted: Shifted,
    count: u32,
) -> Result<(), ExecuteError> {
    let Shifted { result, carry, overflow, is_shift, carry_is_defined } = shifted;
    destination.write(state, result)?;
    let mut values = flags::when(CF, carry) | flags::when(OF, overflow);
    let mut undefined = if count == 1 { 0 } else { OF };
    let mut touched = CF | OF;
    if is_shift {
        values |= flags::of_result(result, width);
        undefined |= AF | if carry_is_defined { 0 } else { CF };
        touched |= SF | ZF | PF;
    }
    state.set_flags(touched & !undefined, values, undefined)
}

/// `shld`: the destination goes left, and the source's top comes in from the right.
pub(super) fn double_left(width: Width, value: u64, further: u64, count: u32) -> Shifted {
    let result = width.trim(value << count) | further >> (width.bits() - count);
    let carry = value >> (width.bits() - count) & 1 != 0;
    double(width, value, result, carry)
}

/// `shrd`: the destination goes right, and the source's bottom comes in from the left.
pub(super) fn double_right(width: Width, value: u64, further: u64, count: u32) -> Shifted {
    let result = value >> count | width.trim(further << (width.bits() - count));
    let carry = value >> (count - 1) & 1 != 0;
    double(width, value, result, carry)
}

/// OF tells that the sign changed.
fn double(width: Width, value: u64, result: u64, carry: bool) -> Shifted {
    let overflow = width.is_negative(value ^ result);
    Shifted { result, carry, overflow, is_shift: true, carry_is_defined: true }
}

/// Destination and source, both zero-extended, and the masked count, which is not 0.
pub(super) type DoubleShift = fn(Width, u64, u64, u32) -> Shifted;

/// `shld`, `shrd`. With 16 bits a count above 16 gives an undefined result: that width is not evaluated.
pub(super) fn run_double(
    instruction: &Instruction,
    state: &mut State<'_>,
    shift: DoubleShift,
) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    if !matches!(width, Width::Long | Width::Quad) {
        return Err(state.not_supported());
    }
    let further = Operand::locate(instruction, 1, state)?.read(state)?;
    let count = masked(width, Operand::locate(instruction, 2, state)?.read(state)?);
    let value = destination.read(state)?;
    if count == 0 {
        return destination.write(state, value);
    }
    finish(state, destination, width, shift(width, value, further, count), count)
}

/// `shlx`, `shrx`, `sarx`, `rorx`: the source shifted into the destination, and no flag touched.
pub(super) fn run_flagless(instruction: &Instruction, state: &mut State<'_>, shift: Shift) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let value = Operand::locate(instruction, 1, state)?.read(state)?;
    let count = masked(width, Operand::locate(instruction, 2, state)?.read(state)?);
    let result = if count == 0 { value } else { shift(width, value, count).result };
    destination.write(state, result)
}

fn masked(width: Width, count: u64) -> u32 {
    (count & if width == Width::Quad { 0x3f } else { 0x1f }) as u32
}

/// Does the instruction keep all flags when a register says so?
pub(super) fn may_keep_flags(instruction: &Instruction) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    let shifts = matches!(instruction.mnemonic(), Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd);
    // The count is the last operand.
    let count = instruction.op_count().saturating_sub(1);
    shifts && matches!(instruction.try_op_kind(count), Ok(OpKind::Register))
}
