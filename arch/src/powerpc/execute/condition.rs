//! The condition register and XER: compares, logic on bits, moves, and what selects by a bit.

use super::branch::sign_extend;
use super::flags::field;
use super::state::{CA, CA32, OV, OV32, State};
use crate::ExecuteError;
use crate::powerpc::word::Word;

/// cmpi, cmpli; false for other instructions.
pub(super) fn compare_immediate(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let right = match word.opcode() {
        10 => word.unsigned(),
        11 => word.signed().cast_unsigned(),
        _ => return Ok(false),
    };
    compare(word, word.opcode() == 11, right, state)?;
    Ok(true)
}

/// The field BF, by the operands in the width of L.
fn compare(word: Word, is_signed: bool, right: u64, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let left = state.general(word.a())?;
    // Bit 10: L. A CPU of 32 bits takes no other than 0.
    let is_double = word.t() & 1 == 1;
    if is_double {
        state.needs_64()?;
    }
    let (left, right) = if is_double { (left, right) } else { (sign_extend(left), sign_extend(right)) };
    // Words that are sign-extended compare unsigned as they do without.
    let order = if is_signed { left.cast_signed().cmp(&right.cast_signed()) } else { left.cmp(&right) };
    let xer = state.xer()?;
    state.set_cr_field(word.t() >> 2, field(order, xer));
    Ok(())
}

fn bit(cr: u64, number: u32) -> bool {
    cr >> (31 - (number & 31)) & 1 == 1
}

/// Primary opcode 19, CR logic and mcrf; false for other instructions.
pub(super) fn logic(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    if word.last() {
        return Ok(false);
    }
    let operation: fn(bool, bool) -> bool = match word.extended() {
        0 => {
            let value = state.cr()? >> (28 - 4 * (word.a() >> 2)) & 15;
            state.set_cr_field(word.t() >> 2, value);
            return Ok(true);
        }
        257 => |left, right| left && right,
        129 => |left, right| left && !right,
        289 => |left, right| left == right,
        225 => |left, right| !(left && right),
        33 => |left, right| !(left || right),
        449 => |left, right| left || right,
        417 => |left, right| left || !right,
        193 => |left, right| left != right,
        _ => return Ok(false),
    };
    let cr = state.cr()?;
    let mask = 1 << (31 - word.t());
    state.set_cr(mask, if operation(bit(cr, word.a()), bit(cr, word.b())) { mask } else { 0 });
    Ok(true)
}

/// Primary opcode 31; false for other instructions.
pub(super) fn registers(word: Word, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    if word.0 >> 1 & 31 == 15 {
        return select(word, state).map(|()| true);
    }
    match word.extended() {
        // cmp, cmpl
        0 | 32 => {
            let right = state.general(word.b())?;
            compare(word, word.extended() == 0, right, state)?;
        }
        19 => move_from(word, state)?,
        144 => move_to(word, state)?,
        // mcrxrx (ISA 3.0)
        576 => {
            state.needs_64()?;
            let xer = state.xer()?;
            let bits = [(OV, 8), (OV32, 4), (CA, 2), (CA32, 1)];
            let value = bits.iter().map(|(flag, bit)| if xer & flag != 0 { *bit } else { 0 }).sum();
            state.set_cr_field(word.t() >> 2, value);
        }
        // setb (ISA 3.0)
        128 => {
            state.needs_64()?;
            let value = state.cr()? >> (28 - 4 * (word.a() >> 2));
            let value = if value & 8 != 0 { u64::MAX } else { value >> 2 & 1 };
            state.set_general(word.t(), value)?;
        }
        // setbc, setbcr, setnbc, setnbcr (ISA 3.1)
        extended @ (384 | 416 | 448 | 480) => {
            state.needs_64()?;
            let is_set = bit(state.cr()?, word.a()) != (extended & 32 != 0);
            let one = if extended & 64 == 0 { 1 } else { u64::MAX };
            state.set_general(word.t(), if is_set { one } else { 0 })?;
        }
        // cmprb, cmpeqb (ISA 3.0)
        192 => compare_range(word, state)?,
        224 => {
            state.needs_64()?;
            let (byte, set) = (state.general(word.a())? as u8, state.general(word.b())?);
            let value = if set.to_le_bytes().contains(&byte) { 4 } else { 0 };
            state.set_cr_field(word.t() >> 2, value);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// isel: bits 21 to 25 name the bit of CR.
fn select(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = if bit(state.cr()?, word.c()) { state.general_or_zero(word.a())? } else { state.general(word.b())? };
    state.set_general(word.t(), value)
}

/// The one field that bits 12 to 19 of the one-field forms choose.
fn one_field(word: Word) -> Option<u32> {
    let fields = word.0 >> 12 & 0xff;
    fields.is_power_of_two().then(|| fields.leading_zeros() - 24)
}

/// mfcr, mfocrf. Bits of the fields that mfocrf does not choose are undefined; here 0, as CPUs have them.
fn move_from(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let cr = state.cr()?;
    let value = if word.0 & 1 << 20 == 0 {
        cr
    } else {
        let field = one_field(word).ok_or_else(|| state.not_supported())?;
        cr & 0xf << (28 - 4 * field)
    };
    state.set_general(word.t(), value)
}

/// mtcrf, mtocrf.
fn move_to(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    if word.0 & 1 << 20 != 0 && one_field(word).is_none() {
        return Err(state.not_supported());
    }
    let value = state.general(word.t())?;
    let fields = word.0 >> 12 & 0xff;
    let mask = (0..8).filter(|field| fields >> field & 1 == 1).fold(0, |mask, field| mask | 0xf << (4 * field));
    state.set_cr(mask, value);
    Ok(())
}

/// cmprb: bit 10 says that there are two ranges.
fn compare_range(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    state.needs_64()?;
    let byte = state.general(word.a())? as u8;
    let [low, high, second_low, second_high, ..] = state.general(word.b())?.to_le_bytes();
    let found = (low..=high).contains(&byte) || word.t() & 1 == 1 && (second_low..=second_high).contains(&byte);
    state.set_cr_field(word.t() >> 2, if found { 4 } else { 0 });
    Ok(())
}
