//! `bt`, `bts`, `btr`, `btc`: CF becomes the bit; ZF stays; OF, SF, AF and PF are undefined (Intel SDM volume 2).

use iced_x86::{Instruction, OpKind};

use super::flags::{self, AF, CF, OF, PF, SF};
use super::operand::{Operand, address, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// The value with the bit changed.
pub(super) type Change = fn(u64, u64) -> u64;

pub(super) fn set(value: u64, bit: u64) -> u64 {
    value | bit
}

pub(super) fn reset(value: u64, bit: u64) -> u64 {
    value & !bit
}

pub(super) fn complement(value: u64, bit: u64) -> u64 {
    value ^ bit
}

pub(super) fn test(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (operand, bit) = locate(instruction, state)?;
    let value = operand.read(state)?;
    report(state, value, bit)
}

pub(super) fn change(instruction: &Instruction, state: &mut State<'_>, change: Change) -> Result<(), ExecuteError> {
    let (operand, bit) = locate(instruction, state)?;
    let value = operand.read(state)?;
    operand.write(state, change(value, bit))?;
    report(state, value, bit)
}

fn report(state: &mut State<'_>, value: u64, bit: u64) -> Result<(), ExecuteError> {
    state.set_flags(CF, flags::when(CF, value & bit != 0), OF | SF | AF | PF)
}

/// The operand that holds the bit, and the bit in it. A register's offset into memory is signed and not cut: it
/// addresses a bit string, of which the word that holds the bit is accessed.
fn locate(instruction: &Instruction, state: &mut State<'_>) -> Result<(Operand, u64), ExecuteError> {
    let (operand, width) = sized(instruction, 0, state)?;
    let offset = Operand::locate(instruction, 1, state)?.read(state)?;
    let bit = 1 << (offset & u64::from(width.bits() - 1));
    let is_string = matches!(instruction.try_op_kind(1), Ok(OpKind::Register));
    match operand {
        Operand::Memory(..) if is_string => {
            let further = word_of(width, offset).wrapping_mul(i64::from(width.bytes()));
            Ok((Operand::Memory(address(instruction, further.cast_unsigned(), state)?, width), bit))
        }
        _ => Ok((operand, bit)),
    }
}

/// How many words of that width before or behind the first one the bit lies.
fn word_of(width: Width, offset: u64) -> i64 {
    width.signed(offset).div_euclid(i64::from(width.bits()))
}
