//! Arithmetic, logic and shifts.

use super::super::regs;
use super::super::word::Word;
use super::state::State;
use crate::ExecuteError;

/// A result, and what CCR is after it.
struct Computed {
    result: u64,
    ccr: u64,
}

/// Bit 4 of the opcode: the condition codes are set.
const SETS_FLAGS: u32 = 0x10;

/// The first two columns of the opcode map: `op3` 0x00 to 0x1f.
pub(super) fn run(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let sets_flags = word.op3() & SETS_FLAGS != 0;
    let a = state.get(word.rs1())?;
    let b = state.operand(word)?;
    let computed = match (word.op3() & !SETS_FLAGS, sets_flags) {
        (0x00, _) => add(a, b, 0),
        (0x01, _) => logic(a & b),
        (0x02, _) => logic(a | b),
        (0x03, _) => logic(a ^ b),
        (0x04, _) => subtract(a, b, 0),
        (0x05, _) => logic(a & !b),
        (0x06, _) => logic(a | !b),
        (0x07, _) => logic(!(a ^ b)),
        // The carry is that of 32 bits.
        (0x08, _) => add(a, b, state.flags()? & 1),
        (0x0c, _) => subtract(a, b, state.flags()? & 1),
        (0x09, false) => logic(a.wrapping_mul(b)),
        (0x0a, _) => multiply(u64::from(a as u32) * u64::from(b as u32), state)?,
        (0x0b, _) => {
            let product = i64::from(a as u32 as i32) * i64::from(b as u32 as i32);
            multiply(product.cast_unsigned(), state)?
        }
        // A division by 0 traps.
        (0x0d, false) => logic(a.checked_div(b).ok_or_else(|| state.not_supported())?),
        // The divisions of 64 bits by 32, and cryptography.
        _ => return Err(state.not_supported()),
    };
    if sets_flags {
        state.set_flags(computed.ccr)?;
    }
    state.set(word.rd(), computed.result)
}

/// The upper half of a product of 32 bits goes to `%y` as well.
fn multiply(product: u64, state: &mut State<'_>) -> Result<Computed, ExecuteError> {
    state.set_whole(regs::Y, product >> 32)?;
    Ok(logic(product))
}

/// N and Z of icc and xcc; what is neither an addition nor a subtraction clears V and C.
fn logic(result: u64) -> Computed {
    Computed { result, ccr: sign_and_zero(result) }
}

fn sign_and_zero(result: u64) -> u64 {
    let low = result as u32;
    let icc = u64::from(low >> 31) << 3 | u64::from(low == 0) << 2;
    let xcc = (result >> 63) << 3 | u64::from(result == 0) << 2;
    icc | xcc << 4
}

/// CCR after a subtraction.
pub(super) fn subtract_flags(a: u64, b: u64) -> u64 {
    subtract(a, b, 0).ccr
}

fn add(a: u64, b: u64, carry: u64) -> Computed {
    let result = a.wrapping_add(b).wrapping_add(carry);
    // Into each bit: where the sum differs from the sum without carries. Out of the highest: the majority.
    let carries = a & b | (a | b) & !result;
    let overflows = !(a ^ b) & (a ^ result);
    Computed { result, ccr: sign_and_zero(result) | carry_and_overflow(carries, overflows) }
}

fn subtract(a: u64, b: u64, borrow: u64) -> Computed {
    let result = a.wrapping_sub(b).wrapping_sub(borrow);
    let borrows = !a & b | !(a ^ b) & result;
    let overflows = (a ^ b) & (a ^ result);
    Computed { result, ccr: sign_and_zero(result) | carry_and_overflow(borrows, overflows) }
}

/// C and V from bit 31 for icc, and from bit 63 for xcc.
fn carry_and_overflow(carries: u64, overflows: u64) -> u64 {
    let of = |bit: u32| carries >> bit & 1 | (overflows >> bit & 1) << 1;
    of(31) | of(63) << 4
}

/// `sdivx`: the most negative number divided by -1 is itself (manual, appendix A).
pub(super) fn divide_signed(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let a = state.get(word.rs1())?.cast_signed();
    let b = state.operand(word)?.cast_signed();
    if b == 0 {
        return Err(state.not_supported());
    }
    state.set(word.rd(), a.wrapping_div(b).cast_unsigned())
}

/// Shifts of 32 bits take 5 bits of the count, and those of 64 take 6 (manual, appendix A).
pub(super) fn shift(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = state.get(word.rs1())?;
    let count = if word.is_immediate() { u64::from(word.bits(0, 6)) } else { state.get(word.rs2())? };
    let is_wide = word.bit(12);
    let count = (count & if is_wide { 63 } else { 31 }) as u32;
    let result = match (word.op3(), is_wide) {
        (0x25, true) => value << count,
        // By the manual all 64 bits are shifted; QEMU's target/sparc (seen in 11.1, and not in 7.2) clears the upper
        // half.
        (0x25, false) => {
            let shifted = value << count;
            if shifted >> 32 == 0 { shifted } else { return Err(state.not_supported()) }
        }
        (0x26, true) => value >> count,
        (0x26, false) => (value & 0xffff_ffff) >> count,
        (_, true) => (value.cast_signed() >> count).cast_unsigned(),
        (_, false) => i64::from((value as u32).cast_signed() >> count).cast_unsigned(),
    };
    state.set(word.rd(), result)
}
