//! PC and nPC after an instruction.

use super::super::regs;
use super::super::transfer::{Test, Transfer, transfer};
use super::super::word::Word;
use super::state::State;
use super::{alu, condition};
use crate::{ExecuteError, GuestAddr};

const INSN: u64 = 4;

/// nPC while the instruction is about to run: where it goes, if it does nothing about that.
pub(super) fn npc(state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let behind = state.addr().wrapping_add(INSN);
    let Some((word, addr)) = state.previous()? else { return state.whole(regs::NPC).map(GuestAddr) };
    // Execution has come here, so the one before has annulled nothing. The registers have not changed since, but for what it has
    // written itself.
    Ok(match transfer(word, addr) {
        None | Some(Transfer::CompareBranch { .. }) => behind,
        Some(Transfer::Branch { test: Test::Always, annul: true, .. }) => behind,
        Some(Transfer::Branch {
            test: Test::Integer { .. } | Test::Float { .. } | Test::Register { .. },
            annul: true,
            target,
        }) => target,
        Some(Transfer::Branch { test, target, .. }) => {
            if condition::holds(test, state)? {
                target
            } else {
                behind
            }
        }
        Some(Transfer::Call { target }) => target,
        Some(Transfer::JumpAndLink) => jumped(word, state)?,
        Some(Transfer::Return) => returned(word, state)?,
    })
}

/// Where `jmpl` has led: it may have overwritten what told.
fn jumped(word: Word, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let overwrites = |number| word.rd() != 0 && word.rd() == number;
    if overwrites(word.rs1()) || (!word.is_immediate() && overwrites(word.rs2())) {
        return Err(state.not_supported());
    }
    state.sum(word).map(GuestAddr)
}

/// Where `return` has led. Its ins are the outs now, and its outs and locals are out of sight.
fn returned(word: Word, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let not_supported = state.not_supported();
    let now = |number| match number {
        0..=7 => Ok(number),
        24..=31 => Ok(number - 16),
        _ => Err(not_supported),
    };
    let base = state.get(now(word.rs1())?)?;
    let offset = if word.is_immediate() { state.operand(word)? } else { state.get(now(word.rs2())?)? };
    Ok(GuestAddr(base.wrapping_add(offset)))
}

/// Where execution goes right after the instruction.
pub(super) fn pc(word: Word, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let addr = state.addr();
    match transfer(word, addr) {
        Some(Transfer::Branch { test: Test::Always, annul: true, target }) => Ok(target),
        Some(Transfer::Branch { test, annul: true, .. }) => {
            let goes = condition::holds(test, state)?;
            let npc = npc(state)?;
            Ok(if goes { npc } else { npc.wrapping_add(INSN) })
        }
        Some(Transfer::CompareBranch { cond, wide, target }) => {
            if compares(word, cond, wide, state)? {
                Ok(target)
            } else {
                npc(state)
            }
        }
        None
        | Some(
            Transfer::Branch { annul: false, .. } | Transfer::Call { .. } | Transfer::JumpAndLink | Transfer::Return,
        ) => npc(state),
    }
}

/// CWBcond and CXBcond: the condition is on what a subtraction would leave.
pub(super) fn compares(word: Word, cond: u32, wide: bool, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let first = state.get(word.rs1())?;
    let second = if word.is_immediate() { word.signed(0, 5).cast_unsigned() } else { state.get(word.rs2())? };
    let flags = alu::subtract_flags(first, second);
    Ok(condition::of_flags(cond, if wide { flags >> 4 } else { flags }))
}
