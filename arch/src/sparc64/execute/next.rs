//! PC and nPC after an instruction.
//!
//! QEMU translates a block for a pair of PC and nPC and goes on in it while one instruction follows the other in
//! memory. So a block's first instruction goes to the nPC that the block was translated for, and a later one is in the delay
//! slot of the transfer before it. A block begins in a delay slot, and then has that one instruction, behind a transfer that
//! annuls (QEMU ends its block there), or that is the last one of its page; and between two transfers that follow one another
//! (a DCTI couple; manual, 6.3.4.3), of which the second one is in the delay slot of the first: one instruction at
//! the target of the first executes, and then the target of the second.

use super::super::decode;
use super::super::regs;
use super::super::transfer::{Test, Transfer, transfer};
use super::super::word::Word;
use super::state::State;
use super::{alu, condition};
use crate::{BlockPlace, ExecuteError, GuestAddr, InsnSlot};

const INSN: u64 = 4;

/// One place, or two: first the one where a condition holds, or a transfer has been taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    pub(super) first: GuestAddr,
    pub(super) second: Option<GuestAddr>,
}

impl Ways {
    const fn one(first: GuestAddr) -> Self {
        Self { first, second: None }
    }

    fn two(first: GuestAddr, second: GuestAddr) -> Self {
        Self { first, second: Some(second).filter(|second| *second != first) }
    }

    fn only(self, state: &State<'_>) -> Result<GuestAddr, ExecuteError> {
        if self.second.is_none() { Ok(self.first) } else { Err(state.not_supported()) }
    }
}

/// Whether a branch's condition holds, if that is to be known: for successors the flags are not asked.
fn decided(test: Test, state: &mut State<'_>) -> Result<Option<bool>, ExecuteError> {
    if state.is_for_successors() && matches!(test, Test::Integer { .. } | Test::Float { .. }) {
        return Ok(None);
    }
    condition::holds(test, state).map(Some)
}

/// nPC while the instruction is about to run: where it goes, if it does nothing about that.
pub(super) fn npc(state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    npc_ways(state)?.only(state)
}

fn npc_ways(state: &mut State<'_>) -> Result<Ways, ExecuteError> {
    let behind = state.addr().wrapping_add(INSN);
    match state.place() {
        BlockPlace::Exact => state.whole(regs::NPC).map(GuestAddr).map(Ways::one),
        BlockPlace::First => Ok(Ways::one(behind)),
        BlockPlace::Behind(slot) => {
            let (transfer, word) = before(&slot, state)?;
            transfer.map_or(Ok(Ways::one(behind)), |transfer| delayed(transfer, word, state))
        }
        BlockPlace::Slot { npc } => Ok(Ways::one(npc)),
        BlockPlace::Unknown => Err(state.not_supported()),
    }
}

/// The transfer that an instruction before this one is, and its word.
fn before(slot: &InsnSlot, state: &State<'_>) -> Result<(Option<Transfer>, Word), ExecuteError> {
    let addr = GuestAddr(state.addr().0.wrapping_sub(INSN));
    let word = decode::instruction(addr, slot.bytes())?;
    Ok((transfer(word, addr), word))
}

/// nPC right behind a transfer. Execution has come here, so it has annulled nothing. The registers have not changed
/// since, but for what it has written itself.
fn delayed(transfer: Transfer, word: Word, state: &mut State<'_>) -> Result<Ways, ExecuteError> {
    let behind = state.addr().wrapping_add(INSN);
    Ok(match transfer {
        Transfer::CompareBranch { .. } | Transfer::Branch { test: Test::Never, .. } => Ways::one(behind),
        // To here, without a delay slot.
        Transfer::Branch { test: Test::Always, annul: true, .. } => Ways::one(behind),
        Transfer::Branch { annul: true, target, .. } => Ways::one(target),
        Transfer::Branch { test, target, .. } => match decided(test, state)? {
            Some(true) => Ways::one(target),
            Some(false) => Ways::one(behind),
            None => Ways::two(target, behind),
        },
        Transfer::Call { target } => Ways::one(target),
        Transfer::JumpAndLink => Ways::one(jumped(word, state)?),
        Transfer::Return => Ways::one(returned(word, state)?),
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
    pc_ways(word, state)?.only(state)
}

/// The same; for successors with both ways of a branch on flags.
pub(super) fn pc_ways(word: Word, state: &mut State<'_>) -> Result<Ways, ExecuteError> {
    match transfer(word, state.addr()) {
        Some(Transfer::Branch { test: Test::Always, annul: true, target }) => Ok(Ways::one(target)),
        // The delay slot, or behind that.
        Some(Transfer::Branch { test, annul: true, .. }) => {
            let slot = npc(state)?;
            let skipped = slot.wrapping_add(INSN);
            Ok(match decided(test, state)? {
                Some(true) => Ways::one(slot),
                Some(false) => Ways::one(skipped),
                None => Ways::two(slot, skipped),
            })
        }
        Some(Transfer::CompareBranch { cond, wide, target }) => {
            if compares(word, cond, wide, state)? {
                Ok(Ways::one(target))
            } else {
                npc_ways(state)
            }
        }
        None
        | Some(
            Transfer::Branch { annul: false, .. } | Transfer::Call { .. } | Transfer::JumpAndLink | Transfer::Return,
        ) => npc_ways(state),
    }
}

/// CWBcond and CXBcond: the condition is on what a subtraction would leave.
fn compares(word: Word, cond: u32, wide: bool, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let first = state.get(word.rs1())?;
    let second = if word.is_immediate() { word.signed(0, 5).cast_unsigned() } else { state.get(word.rs2())? };
    let flags = alu::subtract_flags(first, second);
    Ok(condition::of_flags(cond, if wide { flags >> 4 } else { flags }))
}
