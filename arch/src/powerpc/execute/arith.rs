//! Integer arithmetic: what writes RT.
//!
//! Where the manual leaves the upper word of a 64-bit result undefined (`mulhw`, `divw` and their kin), it is what QEMU
//! and the CPUs leave there.

use super::branch::sign_extend;
use super::flags::{self, Sum, sum};
use super::state::{CA, State};
use crate::ExecuteError;
use crate::powerpc::word::Word;

/// Bit 21: the overflow is recorded.
const OVERFLOW: u32 = 1 << 10;

/// Immediate operands; false for other instructions.
pub(super) fn immediate(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let signed = word.signed().cast_unsigned();
    let value = match word.opcode() {
        // mulli
        7 => state.general(word.a())?.wrapping_mul(signed),
        // subfic
        8 => carrying(sum(!state.general(word.a())?, signed, true), state)?,
        // addic, addic.
        12 | 13 => carrying(sum(state.general(word.a())?, signed, false), state)?,
        // addi, addis
        14 => state.general_or_zero(word.a())?.wrapping_add(signed),
        15 => state.general_or_zero(word.a())?.wrapping_add(signed << 16),
        // addpcis: the number is in three pieces.
        19 if word.0 >> 1 & 31 == 2 => {
            let number = word.0 & 0xffc0 | word.a() << 1 | word.0 & 1;
            state.needs_64()?;
            let high = i64::from(number as u16 as i16) << 16;
            state.here().0.wrapping_add(4).wrapping_add_signed(high)
        }
        _ => return Ok(false),
    };
    state.set_general(word.t(), value)?;
    if word.opcode() == 13 {
        flags::record(value, state)?;
    }
    Ok(true)
}

/// On a CPU of 32 bits the upper half of a complement is no part of the number, nor of any sum: only bits up to 31 count.
fn carrying(sum: Sum, state: &mut State<'_>) -> Result<u64, ExecuteError> {
    sum.set_carry(state)?;
    Ok(sum.value)
}

/// Primary opcode 31, the XO form; false for other instructions.
pub(super) fn registers(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let has_overflow = word.0 & OVERFLOW != 0;
    let extended = word.extended() & 0x1ff;
    if is_sum(extended) {
        add(word, extended, has_overflow, state)?;
        return Ok(true);
    }
    let (left, right) = (state.general(word.a())?, state.general(word.b())?);
    let (value, overflow) = match extended {
        // mulhd, mulhdu, mulhw, mulhwu: the bit of the overflow is none.
        73 | 9 | 75 | 11 if has_overflow => return Ok(false),
        73 => (high_signed(left, right), None),
        9 => (((u128::from(left) * u128::from(right)) >> 64) as u64, None),
        75 => (u64::from((sign_extend(left).wrapping_mul(sign_extend(right)) >> 32) as u32), None),
        11 => (((left & 0xffff_ffff) * (right & 0xffff_ffff)) >> 32, None),
        // mulld, mullw
        233 => {
            let high = high_signed(left, right);
            let value = left.wrapping_mul(right);
            (value, Some(high.cast_signed() != value.cast_signed() >> 63))
        }
        235 => {
            let value = sign_extend(left).wrapping_mul(sign_extend(right));
            (value, Some(value != sign_extend(value)))
        }
        _ => match divide(extended, left, right, state)? {
            Some(value) => (value, Some(false)),
            None => return Ok(false),
        },
    };
    if is_double(extended) {
        state.needs_64()?;
    }
    finish(word, value, overflow.filter(|_| has_overflow), state)?;
    Ok(true)
}

fn finish(word: Word, value: u64, overflow: Option<bool>, state: &mut State<'_>) -> Result<(), ExecuteError> {
    state.set_general(word.t(), value)?;
    if let Some(overflow) = overflow {
        flags::set_overflow(overflow, overflow, state)?;
    }
    if word.last() { flags::record(value, state) } else { Ok(()) }
}

fn high_signed(left: u64, right: u64) -> u64 {
    ((i128::from(left.cast_signed()) * i128::from(right.cast_signed())) >> 64) as u64
}

/// Of products and quotients: those of 64-bit CPUs.
const fn is_double(extended: u32) -> bool {
    matches!(extended, 73 | 9 | 233 | 425 | 393 | 489 | 457)
}

const fn is_sum(extended: u32) -> bool {
    matches!(extended, 8 | 10 | 40 | 104 | 136 | 138 | 200 | 202 | 232 | 234 | 266)
}

fn add(word: Word, extended: u32, has_overflow: bool, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let left = state.general(word.a())?;
    // subfc, subf, neg, subfe, subfze, subfme: from what is added, the first operand is subtracted.
    let left = if matches!(extended, 8 | 40 | 104 | 136 | 200 | 232) { !left } else { left };
    let right = match extended {
        // neg; subfze, addze
        104 | 200 | 202 => 0,
        // subfme, addme
        232 | 234 => u64::MAX,
        _ => state.general(word.b())?,
    };
    let carry = match extended {
        // addc, add
        10 | 266 => false,
        // subfc, subf, neg
        8 | 40 | 104 => true,
        _ => state.xer()? & CA != 0,
    };
    let sum = sum(left, right, carry);
    if !matches!(extended, 40 | 104 | 266) {
        sum.set_carry(state)?;
    }
    if has_overflow {
        sum.set_overflow(state)?;
    }
    finish(word, sum.value, None, state)
}

/// Quotients, unless they leave the result undefined (a division by 0, or one whose quotient does not fit).
fn divide(extended: u32, left: u64, right: u64, state: &State<'_>) -> Result<Option<u64>, ExecuteError> {
    let (low_left, low_right) = (left & 0xffff_ffff, right & 0xffff_ffff);
    let signed = |value: u64| i128::from(value.cast_signed());
    let signed_word = |value: u64| signed(sign_extend(value));
    let quotient = match extended {
        // divd, divw
        489 => checked(signed(left), signed(right), i64::MIN.into(), i64::MAX.into()),
        491 => checked(signed_word(left), signed_word(right), i32::MIN.into(), i32::MAX.into()),
        // divdu, divwu
        457 => checked(left.into(), right.into(), 0, u64::MAX.into()),
        459 => checked(low_left.into(), low_right.into(), 0, u32::MAX.into()),
        // divde, divwe: the dividend is shifted by a word.
        425 => checked(signed(left) << 64, signed(right), i64::MIN.into(), i64::MAX.into()),
        427 => checked(signed_word(left) << 32, signed_word(right), i32::MIN.into(), i32::MAX.into()),
        // divdeu, divweu
        393 if left < right => u64::try_from((u128::from(left) << 64) / u128::from(right)).ok(),
        393 => None,
        395 => checked(i128::from(low_left) << 32, low_right.into(), 0, u32::MAX.into()),
        _ => return Ok(None),
    };
    let quotient = quotient.ok_or_else(|| state.not_supported())?;
    // The dword forms fill the register, the word forms its low half; QEMU sign-extends that of divwe alone.
    let is_word = matches!(extended, 491 | 459 | 395);
    Ok(Some(if is_word { quotient & 0xffff_ffff } else { quotient }))
}

fn checked(left: i128, right: i128, least: i128, most: i128) -> Option<u64> {
    let quotient = left.checked_div(right)?;
    (least..=most).contains(&quotient).then_some(quotient as u64)
}

/// Remainders (ISA 3.0), primary opcode 31, the X form; false for other instructions.
pub(super) fn remainder(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let extended = word.extended();
    // modsd, modud, modsw, moduw
    if !matches!(extended, 777 | 265 | 779 | 267) || word.last() {
        return Ok(false);
    }
    state.needs_64()?;
    let (left, right) = (state.general(word.a())?, state.general(word.b())?);
    let value = match extended {
        777 => left.cast_signed().checked_rem(right.cast_signed()).map(i64::cast_unsigned),
        265 => left.checked_rem(right),
        // QEMU sign-extends it.
        779 => (left as u32 as i32).checked_rem(right as u32 as i32).map(|value| i64::from(value).cast_unsigned()),
        _ => (left as u32).checked_rem(right as u32).map(u64::from),
    };
    let value = value.ok_or_else(|| state.not_supported())?;
    state.set_general(word.t(), value)?;
    Ok(true)
}

/// Primary opcode 4: maddhd, maddhdu, maddld (ISA 3.0); false for other instructions.
pub(super) fn multiply_add(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let extended = word.0 & 63;
    if !matches!(extended, 48 | 49 | 51) {
        return Ok(false);
    }
    state.needs_64()?;
    // To the 40x and the e500 these are other instructions; their kernels have 32 bits.
    let (left, right, third) = (state.general(word.a())?, state.general(word.b())?, state.general(word.c())?);
    let signed = |value: u64| i128::from(value.cast_signed());
    let value = match extended {
        48 => (signed(left) * signed(right)).wrapping_add(signed(third)) >> 64,
        49 => (u128::from(left) * u128::from(right)).wrapping_add(third.into()).cast_signed() >> 64,
        _ => return state.set_general(word.t(), left.wrapping_mul(right).wrapping_add(third)).map(|()| true),
    };
    state.set_general(word.t(), value as u64)?;
    Ok(true)
}
