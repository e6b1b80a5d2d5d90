//! Whether the condition codes are still of use: a walk forward to what reads them, or to where all are overwritten.

use std::ops::Range;

use super::super::transfer::{Test, Transfer, transfer};
use super::super::{decode, word::Word};
use super::registers;
use crate::GuestAddr;

const INSN: u64 = 4;
/// Compilers set the flags again within a few instructions.
const MOST_INSTRUCTIONS: usize = 64;

/// `text` begins at `addr`, inside of `function`. Only icc and xcc are meant.
pub(super) fn flags_are_dead(text: &[u8], addr: GuestAddr, function: &Range<u64>) -> bool {
    let at = |here: GuestAddr| -> Option<Word> {
        let offset = usize::try_from(here.wrapping_offset_from(addr)).ok()?;
        decode::instruction(here, text.get(offset..)?).ok()
    };
    // What the delay slot does about the flags.
    let slot_is_harmless = |here: GuestAddr| {
        let slot = here.wrapping_add(INSN);
        at(slot).is_some_and(|word| transfer(word, slot).is_none() && !registers::reads_flags(word, slot))
    };
    let mut here = addr;
    for _ in 0..MOST_INSTRUCTIONS {
        let Some(word) = at(here) else { return false };
        if registers::reads_flags(word, here) {
            return false;
        }
        if registers::writes_flags(word) {
            return true;
        }
        let behind = here.wrapping_add(INSN);
        here = match transfer(word, here) {
            None if leaves(word) => return false,
            None | Some(Transfer::Branch { test: Test::Never, annul: false, .. }) => behind,
            Some(Transfer::Branch { test: Test::Never, .. }) => behind.wrapping_add(INSN),
            Some(Transfer::Branch { test: Test::Always, annul, target }) => {
                if !annul {
                    if !slot_is_harmless(here) {
                        return false;
                    }
                    if at(behind).is_some_and(registers::writes_flags) {
                        return true;
                    }
                }
                // A jump to another function is a call by the same convention.
                if !function.is_empty() && !function.contains(&target.0) {
                    return true;
                }
                target
            }
            // SCD 2.4, chapter 3: CCR is volatile across calls, and passes nothing.
            Some(Transfer::Call { .. } | Transfer::JumpAndLink | Transfer::Return) => return slot_is_harmless(here),
            Some(Transfer::Branch { .. } | Transfer::CompareBranch { .. }) => return false,
        };
    }
    false
}

/// A trap hands the flags on: `ta` (which reads none), `done`, `retry`, `illtrap`, `sir`.
fn leaves(word: Word) -> bool {
    match (word.op(), word.op3()) {
        (0, _) => word.op2() == 0,
        (2, 0x3a | 0x3e) => true,
        (2, 0x30) => word.rd() == 15,
        _ => false,
    }
}
