//! Where control goes: branches, traps, returns from interrupts.

use super::state::State;
use crate::powerpc::decode::Instruction;
use crate::powerpc::regs;
use crate::powerpc::word::Word;
use crate::{ExecuteError, Flow, GuestAddr, RegisterId};

/// Bits of BO (Power ISA 3.1B Book I, section 2.4, figure 40).
const IGNORE_CONDITION: u32 = 0b10000;
const CONDITION: u32 = 0b01000;
const KEEP_COUNT: u32 = 0b00100;
const COUNT_IS_ZERO: u32 = 0b00010;

/// Where a taken branch goes.
pub(super) fn target(word: Word, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    match state.isa.mode().flow(state.here(), word) {
        Flow::Jump { target } | Flow::Branch { target } | Flow::Call { target } => return Ok(target),
        _ => {}
    }
    let register = match word.extended() {
        16 => regs::LINK,
        // To count down what one jumps to is an invalid form.
        528 if word.t() & KEEP_COUNT != 0 => regs::CTR,
        560 => tar(state)?,
        _ => return Err(state.not_supported()),
    };
    let target = state.get(register)? & !3;
    state.address(target)
}

fn tar(state: &State<'_>) -> Result<RegisterId, ExecuteError> {
    state.needs_64().map(|()| regs::TAR)
}

/// A branch: the next PC, with the count and the link register as it leaves them.
pub(super) fn run(word: Word, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let target = target(word, state)?;
    let next = state.isa.mode().address(state.here().0.wrapping_add(4));
    let is_taken = word.opcode() == 18 || is_taken(word, state)?;
    if word.last() {
        state.set(regs::LINK, next.0)?;
    }
    Ok(if is_taken { target } else { next })
}

fn is_taken(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let bo = word.t();
    let counts = bo & KEEP_COUNT != 0 || {
        let count = state.get(regs::CTR)?.wrapping_sub(1);
        state.set(regs::CTR, count)?;
        let is_zero = if state.is_32_bit_mode()? { count & 0xffff_ffff == 0 } else { count == 0 };
        is_zero == (bo & COUNT_IS_ZERO != 0)
    };
    // The condition is looked at only where it decides.
    Ok(counts && (bo & IGNORE_CONDITION != 0 || (state.cr()? >> (31 - word.a()) & 1 == 1) == (bo & CONDITION != 0)))
}

/// Of what leaves the straight line (`Flow::Trap`), what goes on at an address that registers hold.
pub(super) fn interrupt_return(word: Word, state: &mut State<'_>) -> Result<Option<GuestAddr>, ExecuteError> {
    if word.opcode() != 19 {
        return Ok(None);
    }
    let (address, mode) = match (word.extended(), state.is_64()) {
        (18, true) => (regs::SRR0, Some(regs::SRR1)),
        (274, true) => (regs::HSRR0, Some(regs::HSRR1)),
        // rfscv
        (82, true) => (regs::LINK, Some(regs::CTR)),
        // rfi: on 64 bits only Book E has it.
        (50, _) => (regs::SRR0, None),
        (51, false) => (regs::CSRR0, None),
        (39, false) => (regs::DSRR0, None),
        (38, false) => (regs::MCSRR0, None),
        _ => return Ok(None),
    };
    let address = state.get(address)? & !3;
    let is_32_bit_mode = match mode {
        Some(mode) => state.get(mode)? >> 63 == 0,
        None => !state.is_64(),
    };
    Ok(Some(GuestAddr(if is_32_bit_mode { address & 0xffff_ffff } else { address })))
}

/// Is it a trap, and does it trap with these operands? `None` for what is no trap.
pub(super) fn traps(instruction: Instruction, state: &mut State<'_>) -> Result<Option<bool>, ExecuteError> {
    let Instruction { prefix: None, word } = instruction else { return Ok(None) };
    let (right, is_double) = match (word.opcode(), word.extended()) {
        (2, _) => (word.signed().cast_unsigned(), true),
        (3, _) => (word.signed().cast_unsigned(), false),
        (31, 68) => (state.general(word.b())?, true),
        (31, 4) => (state.general(word.b())?, false),
        _ => return Ok(None),
    };
    if is_double {
        state.needs_64()?;
    }
    let left = state.general(word.a())?;
    let (left, right) = if is_double { (left, right) } else { (sign_extend(left), sign_extend(right)) };
    let signed = left.cast_signed().cmp(&right.cast_signed());
    // Sign-extended words compare as they do without.
    let unsigned = left.cmp(&right);
    let to = word.t();
    Ok(Some(
        to & 16 != 0 && signed.is_lt()
            || to & 8 != 0 && signed.is_gt()
            || to & 4 != 0 && signed.is_eq()
            || to & 2 != 0 && unsigned.is_lt()
            || to & 1 != 0 && unsigned.is_gt(),
    ))
}

/// The low word as a signed number.
pub(super) const fn sign_extend(value: u64) -> u64 {
    value as u32 as i32 as i64 as u64
}
