//! `push`, `pop`, `leave`. The stack's addresses are 64 bits wide in 64-bit mode, and 32 on a 32-bit stack; SS has no base.

use iced_x86::{Instruction, OpKind, Register};

use super::operand::{Operand, memory_width};
use super::state::State;
use super::width::Width;
use crate::{ExecuteError, GuestAddr};

/// Makes room on the stack and stores `value` there.
pub(super) fn push_value(state: &mut State<'_>, width: Width, value: u64) -> Result<(), ExecuteError> {
    let top = state.sp()?.wrapping_sub(u64::from(width.bytes()));
    state.set_sp(top)?;
    state.store(GuestAddr(top), width, value);
    Ok(())
}

/// Takes the value at the top of the stack, and `further` bytes with it.
pub(super) fn pop_value(state: &mut State<'_>, width: Width, further: u64) -> Result<u64, ExecuteError> {
    let top = state.sp()?;
    let value = state.load(GuestAddr(top), width)?;
    state.set_sp(top.wrapping_add(u64::from(width.bytes())).wrapping_add(further))?;
    Ok(value)
}

/// The source is read, and its address computed, with the stack pointer before the push.
pub(super) fn push(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let source = Operand::locate(instruction, 0, state)?;
    let width = match (source.width(), instruction.try_op_kind(0)) {
        (Some(width), _) => width,
        (None, Ok(OpKind::Immediate16 | OpKind::Immediate8to16)) => Width::Word,
        (None, _) => state.word(),
    };
    let value = source.read(state)?;
    push_value(state, width, value)
}

/// The destination's address is computed with the stack pointer after the pop; `pop %rsp` keeps the value.
pub(super) fn pop(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let width = match instruction.try_op_kind(0) {
        Ok(OpKind::Memory) => memory_width(instruction),
        Ok(OpKind::Register) => Width::from_bytes(instruction.op0_register().size()),
        _ => None,
    };
    let width = width.ok_or_else(|| state.not_supported())?;
    let value = pop_value(state, width, 0)?;
    Operand::locate(instruction, 0, state)?.write(state, value)
}

/// The frame pointer becomes the stack pointer, and the caller's frame pointer is popped.
pub(super) fn leave(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let (width, frame) = match instruction.code() {
        iced_x86::Code::Leaveq => (Width::Quad, Register::RBP),
        iced_x86::Code::Leaved => (Width::Long, Register::EBP),
        iced_x86::Code::Leavew => (Width::Word, Register::BP),
        _ => return Err(state.not_supported()),
    };
    let top = state.bp()?;
    state.set_sp(top)?;
    let value = pop_value(state, width, 0)?;
    state.set_register(frame, value)
}
