//! Control-transfer instructions: what they test, and where they lead.
//!
//! SPARC delays them: a transfer sets nPC, so that the instruction at the old nPC, the delay slot, executes before the
//! target does. An annulling conditional branch that is not taken skips its delay slot, and so
//! does an annulling branch always, taken as it is. `Cbcond` (since Oracle SPARC Architecture 2011) has none.

use super::word::{I7, O7, Word, sign_extend};
use crate::{Flow, GuestAddr};

/// What a branch asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Always,
    Never,
    /// A condition (manual, appendix A.6) on the 4 bits of CCR that begin at bit `first_bit`: 0 is icc, 4 is xcc.
    Integer {
        cond: u32,
        first_bit: u32,
    },
    /// A condition (appendix A.4) on floating-point condition code `number`.
    Float {
        cond: u32,
        number: u32,
    },
    /// A register against 0 (appendix A.3).
    Register {
        rcond: u32,
        number: u32,
    },
}

impl Test {
    pub(super) const fn integer(cond: u32, first_bit: u32) -> Self {
        match cond {
            0 => Self::Never,
            8 => Self::Always,
            _ => Self::Integer { cond, first_bit },
        }
    }

    pub(super) const fn float(cond: u32, number: u32) -> Self {
        match cond {
            0 => Self::Never,
            8 => Self::Always,
            _ => Self::Float { cond, number },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// Bicc, BPcc, BPr, FBfcc, FBPfcc.
    Branch {
        test: Test,
        annul: bool,
        target: GuestAddr,
    },
    /// CWBcond, CXBcond: compares a register with another or a constant, and branches at once.
    CompareBranch {
        cond: u32,
        /// All 64 bits are compared.
        wide: bool,
        target: GuestAddr,
    },
    Call {
        target: GuestAddr,
    },
    /// To rs1 + operand; rd gets the instruction's own address.
    JumpAndLink,
    /// To rs1 + operand, and back one register window.
    Return,
}

/// The transfer at `addr`, if it is one that is delayed or branches at once; traps and `done`/`retry` are not.
pub(super) fn transfer(word: Word, addr: GuestAddr) -> Option<Transfer> {
    let words_on = |words: i64| GuestAddr(addr.0.wrapping_add_signed(words * 4));
    let annul = word.bit(29);
    Some(match (word.op(), word.op2(), word.op3()) {
        (0, 1, _) => {
            let first_bit = word.bits(20, 2) * 2;
            let target = words_on(word.signed(0, 19));
            Transfer::Branch { test: Test::integer(word.cond(), first_bit), annul, target }
        }
        (0, 2, _) => {
            Transfer::Branch { test: Test::integer(word.cond(), 0), annul, target: words_on(word.signed(0, 22)) }
        }
        (0, 3, _) if word.bit(28) => Transfer::CompareBranch {
            cond: word.bits(25, 3) | word.bits(29, 1) << 3,
            wide: word.bit(21),
            target: words_on(sign_extend(word.bits(19, 2) << 8 | word.bits(5, 8), 10)),
        },
        (0, 3, _) => {
            let words = sign_extend(word.bits(20, 2) << 14 | word.bits(0, 14), 16);
            let test = Test::Register { rcond: word.bits(25, 3), number: word.rs1() };
            Transfer::Branch { test, annul, target: words_on(words) }
        }
        (0, 5, _) => {
            let test = Test::float(word.cond(), word.bits(20, 2));
            Transfer::Branch { test, annul, target: words_on(word.signed(0, 19)) }
        }
        (0, 6, _) => {
            Transfer::Branch { test: Test::float(word.cond(), 0), annul, target: words_on(word.signed(0, 22)) }
        }
        (1, ..) => Transfer::Call { target: words_on(word.signed(0, 30)) },
        (2, _, 0x38) => Transfer::JumpAndLink,
        (2, _, 0x39) => Transfer::Return,
        _ => return None,
    })
}

/// Has the transfer a delay slot that executes before its target, at least when it is taken?
pub(super) fn has_delay_slot(transfer: Transfer) -> bool {
    match transfer {
        Transfer::Branch { test: Test::Always | Test::Never, annul, .. } => !annul,
        Transfer::CompareBranch { .. } => false,
        Transfer::Branch { .. } | Transfer::Call { .. } | Transfer::JumpAndLink | Transfer::Return => true,
    }
}

/// Where execution goes after the instruction, and after its delay slot, if there is one.
pub(super) fn flow(word: Word, addr: GuestAddr) -> Flow {
    match transfer(word, addr) {
        Some(Transfer::Branch { test: Test::Always, target, .. }) => Flow::Jump { target },
        // What it annuls is not executed.
        Some(Transfer::Branch { test: Test::Never, annul: true, .. }) => Flow::Jump { target: addr.wrapping_add(8) },
        Some(Transfer::Branch { test: Test::Never, .. }) => Flow::Next,
        Some(Transfer::Branch { target, .. } | Transfer::CompareBranch { target, .. }) => Flow::Branch { target },
        Some(Transfer::Call { target }) => Flow::Call { target },
        Some(Transfer::JumpAndLink) if word.rd() == O7 => Flow::IndirectCall,
        Some(Transfer::JumpAndLink) if word.rd() == 0 && is_behind_a_call(word) => Flow::Return,
        Some(Transfer::Return) if is_behind_a_call(word) => Flow::Return,
        Some(Transfer::JumpAndLink | Transfer::Return) => Flow::IndirectJump,
        None if leaves(word) => Flow::Trap,
        None => Flow::Next,
    }
}

/// `%o7` or `%i7` plus 8, and plus 12, where a caller of the 32-bit ABI has put an `unimp` behind the delay slot.
fn is_behind_a_call(word: Word) -> bool {
    matches!(word.rs1(), O7 | I7) && word.is_immediate() && matches!(word.signed(0, 13), 8 | 12)
}

/// `illtrap`, `ta`, `sir`, `done`, `retry`. A trap on a condition goes on.
fn leaves(word: Word) -> bool {
    match (word.op(), word.op3()) {
        (0, _) => word.op2() == 0,
        (2, 0x3a) => word.cond() == 8,
        (2, 0x30) => is_sir(word),
        (2, 0x3e) => true,
        _ => false,
    }
}

/// `sir` is encoded as a write to ancillary state register 15.
fn is_sir(word: Word) -> bool {
    word.rd() == 15 && word.rs1() == 0 && word.is_immediate()
}
