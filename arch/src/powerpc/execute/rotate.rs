//! Rotates and shifts: what writes RA from RS.

use super::branch::sign_extend;
use super::flags;
use super::state::State;
use crate::ExecuteError;
use crate::powerpc::word::Word;

/// Bits `first` to `last` in the manual's numbering, around the end when the first is behind the last.
fn mask(first: u32, last: u32) -> u64 {
    let from = u64::MAX >> (first & 63);
    let to = u64::MAX << (63 - (last & 63));
    if first <= last { from & to } else { from | to }
}

/// The low word, twice, rotated.
fn rotate_word(value: u64, by: u32) -> u64 {
    let word = u64::from((value as u32).rotate_left(by & 31));
    word << 32 | word
}

/// rlwimi, rlwinm, rlwnm, and primary opcode 30; false for other instructions.
pub(super) fn rotate(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let source = state.general(word.t())?;
    let (rotated, mask, inserts) = match word.opcode() {
        20 => (rotate_word(source, word.b()), mask(word.c() + 32, word.e() + 32), true),
        21 => (rotate_word(source, word.b()), mask(word.c() + 32, word.e() + 32), false),
        23 => {
            let by = state.general(word.b())? as u32;
            (rotate_word(source, by), mask(word.c() + 32, word.e() + 32), false)
        }
        30 => {
            state.needs_64()?;
            double(word, source, state)?
        }
        _ => return Ok(false),
    };
    let kept = if inserts { state.general(word.a())? & !mask } else { 0 };
    finish(word, rotated & mask | kept, state)?;
    Ok(true)
}

fn double(word: Word, source: u64, state: &mut State<'_>) -> Result<(u64, u64, bool), ExecuteError> {
    // Of the six bits of the mask's end the highest comes last; so does that of the count.
    let end = word.c() | word.0 & 0x20;
    let count = word.b() | (word.0 & 2) << 4;
    let rotated = source.rotate_left(count);
    Ok(match word.0 >> 1 & 15 {
        // rldicl, rldicr, rldic, rldimi: bit 30 is the count's.
        0 | 1 => (rotated, mask(end, 63), false),
        2 | 3 => (rotated, mask(0, end), false),
        4 | 5 => (rotated, mask(end, 63 - count), false),
        6 | 7 => (rotated, mask(end, 63 - count), true),
        // rldcl, rldcr
        8 | 9 => {
            let rotated = source.rotate_left((state.general(word.b())? & 63) as u32);
            (rotated, if word.0 & 2 == 0 { mask(end, 63) } else { mask(0, end) }, false)
        }
        _ => return Err(state.not_supported()),
    })
}

fn finish(word: Word, value: u64, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = state.trim(value);
    state.set_general(word.a(), value)?;
    if word.last() { flags::record(value, state) } else { Ok(()) }
}

/// Primary opcode 31; false for other instructions.
pub(super) fn shift(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let source = state.general(word.t())?;
    let count = state.general(word.b())?;
    let low = source & 0xffff_ffff;
    let value = match word.extended() {
        // slw, srw: by 32 and more nothing is left.
        24 => low.checked_shl(count as u32 & 63).unwrap_or_default() & 0xffff_ffff,
        536 => low >> (count & 63),
        // sld, srd
        27 => wide(state, || source.checked_shl(count as u32 & 127).unwrap_or_default())?,
        539 => wide(state, || source.checked_shr(count as u32 & 127).unwrap_or_default())?,
        // sraw, srawi
        792 => right_algebraic(sign_extend(source), (count & 63).min(32) as u32, state)?,
        824 => right_algebraic(sign_extend(source), word.b(), state)?,
        // srad, sradi
        794 => {
            state.needs_64()?;
            right_algebraic(source, count as u32 & 127, state)?
        }
        826 | 827 => {
            state.needs_64()?;
            right_algebraic(source, word.b() | (word.0 & 2) << 4, state)?
        }
        // extswsli (ISA 3.0)
        890 | 891 => wide(state, || sign_extend(source) << (word.b() | (word.0 & 2) << 4))?,
        _ => return Ok(false),
    };
    finish(word, value, state)?;
    Ok(true)
}

fn wide(state: &State<'_>, value: impl FnOnce() -> u64) -> Result<u64, ExecuteError> {
    state.needs_64().map(|()| value())
}

/// The carry says that ones were shifted out of a negative number.
fn right_algebraic(value: u64, by: u32, state: &mut State<'_>) -> Result<u64, ExecuteError> {
    let signed = value.cast_signed();
    let result = signed.checked_shr(by).unwrap_or(signed >> 63);
    let lost = value & !u64::MAX.checked_shl(by).unwrap_or_default();
    let carry = signed < 0 && lost != 0;
    flags::set_carry(carry, carry, state)?;
    Ok(result.cast_unsigned())
}
