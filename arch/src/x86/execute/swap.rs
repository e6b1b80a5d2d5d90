//! `xadd` and `cmpxchg`: read, compute, write back; what is exchanged is a register.

use iced_x86::{Instruction, Register};

use super::alu;
use super::operand::{Operand, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// The source gets the destination's old value, and then the destination the sum: `xadd %eax,%eax` doubles.
pub(super) fn exchange_and_add(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let source = Operand::locate(instruction, 1, state)?;
    let (a, b) = (destination.read(state)?, source.read(state)?);
    let sum = alu::add(width, a, b, 0);
    source.write(state, a)?;
    destination.write(state, sum.result)?;
    state.set_flags(sum.defined, sum.flags, sum.undefined)
}

/// The flags are those of `cmp` of the accumulator with the destination. Memory is written in either case.
pub(super) fn compare_and_exchange(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let source = Operand::locate(instruction, 1, state)?;
    let accumulator = match width {
        Width::Byte => Register::AL,
        Width::Word => Register::AX,
        Width::Long => Register::EAX,
        Width::Quad => Register::RAX,
    };
    let (found, expected, new) = (destination.read(state)?, state.register(accumulator)?, source.read(state)?);
    let comparison = alu::sub(width, expected, found, 0);
    if found == expected {
        destination.write(state, new)?;
    } else {
        state.set_register(accumulator, found)?;
        // A register is not written: its upper half stays. CPUs do so, whatever the manual's pseudocode says.
        if matches!(destination, Operand::Memory(..)) {
            destination.write(state, found)?;
        }
    }
    state.set_flags(comparison.defined, comparison.flags, comparison.undefined)
}
