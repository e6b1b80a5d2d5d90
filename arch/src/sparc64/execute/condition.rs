//! Conditions: of branches, and of moves.

use super::super::transfer::Test;
use super::super::word::Word;
use super::state::State;
use crate::ExecuteError;

/// Does the branch's condition hold?
pub(super) fn holds(test: Test, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    Ok(match test {
        Test::Always => true,
        Test::Never => false,
        Test::Integer { cond, first_bit } => of_flags(cond, state.flags()? >> first_bit),
        Test::Float { cond, number } => of_comparison(cond, state.float_condition(number)?),
        Test::Register { rcond, number } => {
            of_register(rcond, state.get(number)?).ok_or_else(|| state.not_supported())?
        }
    })
}

/// A condition on C, V, Z, N in bits 0 to 3 (manual, appendix A.6).
pub(super) const fn of_flags(cond: u32, flags: u64) -> bool {
    let [carry, overflow, zero, negative] = [flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0];
    let holds = match cond & 7 {
        0 => false,
        1 => zero,
        2 => zero || negative != overflow,
        3 => negative != overflow,
        4 => carry || zero,
        5 => carry,
        6 => negative,
        _ => overflow,
    };
    // The upper eight are the contraries.
    holds != (cond & 8 != 0)
}

/// A condition on the outcome of a floating-point comparison (manual, appendix A.4): 0 equal, 1 less, 2 greater, 3
/// unordered.
const fn of_comparison(cond: u32, outcome: u32) -> bool {
    const LESS: u32 = 2;
    const GREATER: u32 = 4;
    const UNORDERED: u32 = 8;
    let wanted = match cond & 7 {
        0 => 0,
        1 => LESS | GREATER | UNORDERED,
        2 => LESS | GREATER,
        3 => UNORDERED | LESS,
        4 => LESS,
        5 => UNORDERED | GREATER,
        6 => GREATER,
        _ => UNORDERED,
    };
    let holds = wanted >> (outcome & 3) & 1 != 0;
    holds != (cond & 8 != 0)
}

/// A register against 0 (manual, appendix A.3).
const fn of_register(rcond: u32, value: u64) -> Option<bool> {
    let value = value.cast_signed();
    Some(match rcond {
        1 => value == 0,
        2 => value <= 0,
        3 => value < 0,
        5 => value != 0,
        6 => value > 0,
        7 => value >= 0,
        _ => return None,
    })
}

/// MOVcc on integer or floating-point condition codes.
pub(super) fn move_on_condition(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let cond = word.bits(14, 4);
    let test =
        if word.bit(18) { Test::integer(cond, word.bits(11, 2) * 2) } else { Test::float(cond, word.bits(11, 2)) };
    if holds(test, state)? {
        let value = if word.is_immediate() { word.signed(0, 11).cast_unsigned() } else { state.get(word.rs2())? };
        state.set(word.rd(), value)?;
    }
    Ok(())
}

/// MOVr.
pub(super) fn move_on_register(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let test = Test::Register { rcond: word.bits(10, 3), number: word.rs1() };
    if holds(test, state)? {
        let value = if word.is_immediate() { word.signed(0, 10).cast_unsigned() } else { state.get(word.rs2())? };
        state.set(word.rd(), value)?;
    }
    Ok(())
}
