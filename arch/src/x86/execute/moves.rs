//! Moves, extensions, exchanges, conditional moves and sets. None of them touches a flag.

use iced_x86::{ConditionCode, Instruction, Mnemonic, Register};

use super::flags;
use super::operand::{Operand, effective, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// `mov` and `movzx`: values are zero-extended already, immediates sign-extended. Segment, control and debug registers
/// are none of `State`'s: refused there.
pub(super) fn copy(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let destination = Operand::locate(instruction, 0, state)?;
    let value = Operand::locate(instruction, 1, state)?.read(state)?;
    destination.write(state, value)
}

/// `movsx`, `movsxd`.
pub(super) fn copy_signed(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let destination = Operand::locate(instruction, 0, state)?;
    let (source, width) = sized(instruction, 1, state)?;
    let value = width.signed(source.read(state)?);
    destination.write(state, value.cast_unsigned())
}

/// The offset without the segment's base.
pub(super) fn lea(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let destination = Operand::locate(instruction, 0, state)?;
    let offset = effective(instruction, 0, state)?;
    destination.write(state, offset)
}

/// With memory `xchg` is atomic even without a prefix. Both are read before either is written; when both lie in one
/// register (`xchg %al,%ah`) the second write adds to the first.
pub(super) fn exchange(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let first = Operand::locate(instruction, 0, state)?;
    let second = Operand::locate(instruction, 1, state)?;
    if matches!(first, Operand::Memory(..)) || matches!(second, Operand::Memory(..)) {
        state.needs_atomicity()?;
    }
    let (a, b) = (first.read(state)?, second.read(state)?);
    first.write(state, b)?;
    second.write(state, a)
}

/// `bswap` of 16 bits is undefined.
pub(super) fn swap_bytes(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (operand, width) = sized(instruction, 0, state)?;
    let value = operand.read(state)?;
    let swapped = match width {
        Width::Quad => value.swap_bytes(),
        Width::Long => value.swap_bytes() >> 32,
        Width::Word | Width::Byte => return Err(state.not_supported()),
    };
    operand.write(state, swapped)
}

/// `cbw`, `cwde`, `cdqe`: the accumulator's lower half into all of it.
pub(super) fn widen_accumulator(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (half, width, whole) = match instruction.mnemonic() {
        Mnemonic::Cbw => (Register::AL, Width::Byte, Register::AX),
        Mnemonic::Cwde => (Register::AX, Width::Word, Register::EAX),
        Mnemonic::Cdqe => (Register::EAX, Width::Long, Register::RAX),
        _ => return Err(state.not_supported()),
    };
    let value = width.signed(state.register(half)?);
    state.set_register(whole, value.cast_unsigned())
}

/// `cwd`, `cdq`, `cqo`: the accumulator's sign into all of rDX.
pub(super) fn spread_sign(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (from, width, to) = match instruction.mnemonic() {
        Mnemonic::Cwd => (Register::AX, Width::Word, Register::DX),
        Mnemonic::Cdq => (Register::EAX, Width::Long, Register::EDX),
        Mnemonic::Cqo => (Register::RAX, Width::Quad, Register::RDX),
        _ => return Err(state.not_supported()),
    };
    let is_negative = width.is_negative(state.register(from)?);
    state.set_register(to, if is_negative { u64::MAX } else { 0 })
}

pub(super) fn is_conditional(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo,
        Cmovp, Cmovs,
    };
    matches!(
        instruction.mnemonic(),
        Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

/// `cmovcc` reads its source in any case, and a 32-bit destination loses its upper half in any case.
pub(super) fn conditional(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let destination = Operand::locate(instruction, 0, state)?;
    let value = Operand::locate(instruction, 1, state)?.read(state)?;
    let value = if condition(instruction.condition_code(), state)? { value } else { destination.read(state)? };
    destination.write(state, value)
}

pub(super) fn is_set(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns, Seto, Setp, Sets,
    };
    matches!(
        instruction.mnemonic(),
        Seta | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}

/// `setcc`.
pub(super) fn set(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let destination = Operand::locate(instruction, 0, state)?;
    let value = condition(instruction.condition_code(), state)?;
    destination.write(state, u64::from(value))
}

/// Whether the condition holds now.
pub(super) fn condition(condition: ConditionCode, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let flags = state.flags()?;
    flags::holds(condition, flags).ok_or_else(|| state.not_supported())
}
