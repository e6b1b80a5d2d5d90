//! Bit scans and counts: `bsf`, `bsr`, `tzcnt`, `popcnt`.

use iced_x86::Instruction;

use super::flags::{self, AF, CF, OF, PF, SF, STATUS, ZF};
use super::operand::{Operand, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// The number of the bit in a value that is not 0.
type Scan = fn(u64) -> u32;

pub(super) fn lowest(value: u64) -> u32 {
    value.trailing_zeros()
}

pub(super) fn highest(value: u64) -> u32 {
    u64::BITS - 1 - value.leading_zeros()
}

/// `bsf`, `bsr`. Of 0 there is no lowest or highest bit: ZF is set, and the destination left alone, which the kernel
/// relies on with 64 bits (Linux `arch/x86/include/asm/bitops.h`, `fls64`). With a part of a register CPUs differ in what
/// becomes of the rest, so that is refused.
pub(super) fn scan(instruction: &Instruction, state: &mut State<'_>, scan: Scan) -> Result<(), ExecuteError> {
    let (destination, width, value) = operands(instruction, state)?;
    if value != 0 {
        destination.write(state, u64::from(scan(value)))?;
    } else if width != state.word() {
        return Err(state.not_supported());
    }
    state.set_flags(ZF, flags::when(ZF, value == 0), CF | OF | SF | AF | PF)
}

/// `tzcnt` is `rep bsf` to a CPU without BMI1, and the kernel uses it as such: the result is the same, unless the source
/// is 0, and ZF and CF are not. So 0 is refused, and these flags are told as undefined; they are set as BMI1 does.
pub(super) fn count_trailing(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (destination, _, value) = operands(instruction, state)?;
    if value == 0 {
        return Err(state.not_supported());
    }
    let count = lowest(value);
    destination.write(state, u64::from(count))?;
    state.set_flags(CF | ZF, flags::when(ZF, count == 0), STATUS)
}

/// `popcnt`: ZF tells 0, the others are cleared.
pub(super) fn count_ones(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (destination, _, value) = operands(instruction, state)?;
    destination.write(state, u64::from(value.count_ones()))?;
    state.set_flags(STATUS, flags::when(ZF, value == 0), 0)
}

fn operands(instruction: &Instruction, state: &mut State<'_>) -> Result<(Operand, Width, u64), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let value = Operand::locate(instruction, 1, state)?.read(state)?;
    Ok((destination, width, value))
}
