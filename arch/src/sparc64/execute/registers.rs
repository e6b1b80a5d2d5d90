//! Registers of state: what reads and writes them, and which instructions the flags matter to.

use super::super::regs;
use super::super::transfer::{Test, Transfer, transfer};
use super::super::word::{SP, Word};
use super::state::State;
use crate::{ExecuteError, GuestAddr};

/// `rd %y, ...`, and `membar`, which has nothing to order in one instruction.
pub(super) fn read(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = match word.rs1() {
        0 => state.whole(regs::Y)?,
        2 => state.flags()?,
        3 => state.asi()?,
        5 => state.addr().0,
        15 if word.rd() == 0 => return Ok(()),
        _ => return Err(state.not_supported()),
    };
    state.set(word.rd(), value)
}

/// `wr`: what is written is rs1 xor the second operand.
pub(super) fn write(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = state.get(word.rs1())? ^ state.operand(word)?;
    match word.rd() {
        0 => state.set_whole(regs::Y, value & 0xffff_ffff),
        2 => state.set_flags(value & 0xff),
        _ => Err(state.not_supported()),
    }
}

/// Does it read icc or xcc, or what else lies in the flags register (`%asi`)?
pub(super) fn reads_flags(word: Word, addr: GuestAddr) -> bool {
    if let Some(transfer) = transfer(word, addr) {
        return matches!(transfer, Transfer::Branch { test: Test::Integer { .. }, .. });
    }
    match (word.op(), word.op3()) {
        // addc, subc, addccc, subccc, mulscc
        (2, 0x08 | 0x0c | 0x18 | 0x1c | 0x24) => true,
        (2, 0x28) => matches!(word.rs1(), 2 | 3),
        (2, 0x2c) => word.bit(18) && !matches!(word.bits(14, 4), 0 | 8),
        // fmovcc on icc or xcc
        (2, 0x35) => word.bits(5, 5) <= 3 && word.bits(11, 3) >= 4,
        (2, 0x3a) => !matches!(word.cond(), 0 | 8),
        // An access in the space that %asi names.
        (3, op3) => op3 & 0x10 != 0 && word.is_immediate(),
        _ => false,
    }
}

/// Does it set all of icc and xcc?
pub(super) fn writes_flags(word: Word) -> bool {
    match (word.op(), word.op3()) {
        (2, 0x10..=0x18 | 0x1a..=0x1c | 0x1e..=0x24) => true,
        (2, 0x30) => word.rd() == 2,
        _ => false,
    }
}

/// May it write the stack pointer of the window that it runs in?
pub(super) fn writes_stack_pointer(word: Word) -> bool {
    let rd = word.rd();
    match (word.op(), word.op3()) {
        (0, _) => word.op2() == 4 && rd == SP,
        // AES and the like, floating point, and what writes registers of state.
        (2, 0x19 | 0x30..=0x35 | 0x37 | 0x39 | 0x3a | 0x3b | 0x3e | 0x3f) => false,
        (2, 0x36) => rd == SP && writes_integer(word.opf()),
        (2, _) => rd == SP,
        // Stores, floating point, prefetch.
        (3, 0x04..=0x07 | 0x0e | 0x14..=0x17 | 0x1e | 0x20..=0x27 | 0x2d | 0x30 | 0x32..=0x37 | 0x3d) => false,
        (3, 0x03 | 0x13) => rd & !1 == SP,
        (3, _) => rd == SP,
        _ => false,
    }
}

/// VIS instructions with an integer register for a destination: edges, arrays, comparisons, moves.
const fn writes_integer(opf: u32) -> bool {
    matches!(
        opf,
        0x00..=0x14
            | 0x16..=0x1a
            | 0x1e | 0x20 | 0x22 | 0x24 | 0x26 | 0x28 | 0x2a | 0x2c | 0x2e
            | 0x30 | 0x32 | 0x34 | 0x3c | 0x3f
            | 0x41 | 0x43 | 0x45 | 0x47 | 0x4a
            | 0x110 | 0x111 | 0x113 | 0x115 | 0x116
            | 0x120 | 0x122 | 0x128 | 0x12a | 0x12b | 0x12c | 0x12e | 0x12f
            | 0x190..=0x19e
    )
}
