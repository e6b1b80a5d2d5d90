//! Where execution can go, and the stack pointer there, without the flags.

use super::super::word::{SP, Word};
use super::super::{decode, regs};
use super::next::{self, Ways};
use super::state::State;
use super::{registers, run};
use crate::execute::Blank;
use crate::{ExecuteError, Flow, GuestAddr, InsnSlot, Machine, Successors};

pub(super) fn evaluate(
    slot: &InsnSlot,
    addr: GuestAddr,
    machine: &mut dyn Machine,
) -> Result<Successors, ExecuteError> {
    let word = decode::instruction(addr, slot.bytes())?;
    let mut state = State::for_successors(addr, machine);
    if slot.insn.flow == Flow::Trap {
        return Err(state.not_supported());
    }
    let Ways { first, second } = next::pc_ways(word, &mut state)?;
    let sp = stack_pointer(word, &mut state)?;
    Ok(Successors { first, second, sp })
}

/// The stack pointer that the instruction leaves.
fn stack_pointer(word: Word, state: &mut State<'_>) -> Result<u64, ExecuteError> {
    let is_sum = word.rd() == SP;
    match (word.op(), word.op3()) {
        // `save`: what another register of the new window gets does not tell what its stack pointer is.
        (2, 0x3c) if is_sum => state.sum(word),
        (2, 0x3c) => Err(state.not_supported()),
        (2, 0x3d) if is_sum => state.sum(word),
        // `restore`, `return`
        (2, 0x3d | 0x39) => state.whole(regs::FP),
        // wrpr %cwp
        (2, 0x32) if word.rd() == 9 => Err(state.not_supported()),
        _ if registers::writes_stack_pointer(word) => {
            run(word, state)?;
            state.whole(regs::SP)
        }
        _ => state.whole(regs::SP),
    }
}

/// Nothing about successors but the errors `Fault` and `Register` hangs on values, outside of delay slots: an
/// evaluation with any shows it.
pub(super) fn are_known(slot: &InsnSlot, addr: GuestAddr) -> bool {
    evaluate(slot, addr, &mut Blank).is_ok()
}
