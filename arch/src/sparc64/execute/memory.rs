//! Loads and stores of integers. Of the address spaces, that of the running code is meant: those with another one are
//! not executed.

use super::super::word::Word;
use super::state::State;
use crate::ExecuteError;

/// Address space identifier of plain accesses: ASI_PRIMARY.
const PRIMARY: u64 = 0x80;
/// Bit 4 of the opcode: the address space is named.
const NAMES_SPACE: u32 = 0x10;

pub(super) fn run(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let op3 = word.op3();
    if matches!(op3, 0x2d | 0x3d) {
        // A prefetch faults on no address.
        return Ok(());
    }
    let is_swap_on_equal = matches!(op3, 0x3c | 0x3e);
    if op3 & NAMES_SPACE != 0 || is_swap_on_equal {
        let space = if word.is_immediate() { state.asi()? } else { u64::from(word.bits(5, 8)) };
        if space != PRIMARY {
            return Err(state.not_supported());
        }
    }
    if is_swap_on_equal {
        return compare_and_swap(word, state);
    }
    let addr = state.sum(word)?;
    match op3 & !NAMES_SPACE {
        0x00 => load(word, state, addr, 4, false),
        0x01 => load(word, state, addr, 1, false),
        0x02 => load(word, state, addr, 2, false),
        0x08 => load(word, state, addr, 4, true),
        0x09 => load(word, state, addr, 1, true),
        0x0a => load(word, state, addr, 2, true),
        0x0b => load(word, state, addr, 8, false),
        0x03 => load_pair(word, state, addr),
        0x04 => store(word, state, addr, 4),
        0x05 => store(word, state, addr, 1),
        0x06 => store(word, state, addr, 2),
        0x0e => store(word, state, addr, 8),
        0x07 => store_pair(word, state, addr),
        0x0d => {
            state.needs_atomicity()?;
            let old = state.load(addr, 1)?;
            state.store(addr, 1, 0xff)?;
            state.set(word.rd(), old)
        }
        0x0f => {
            state.needs_atomicity()?;
            let old = state.load(addr, 4)?;
            let new = state.get(word.rd())?;
            state.store(addr, 4, new)?;
            state.set(word.rd(), old)
        }
        // Floating point.
        _ => Err(state.not_supported()),
    }
}

fn load(word: Word, state: &mut State<'_>, addr: u64, len: usize, signed: bool) -> Result<(), ExecuteError> {
    let value = state.load(addr, len)?;
    let shift = 64 - 8 * len as u32;
    let value = if signed { ((value << shift).cast_signed() >> shift).cast_unsigned() } else { value };
    state.set(word.rd(), value)
}

fn store(word: Word, state: &mut State<'_>, addr: u64, len: usize) -> Result<(), ExecuteError> {
    let value = state.get(word.rd())?;
    state.store(addr, len, value)
}

/// `ldd` and `std`: two words, in an even register and the odd one behind it.
fn pair(word: Word, state: &State<'_>) -> Result<(u32, u32), ExecuteError> {
    let first = word.rd();
    if first.is_multiple_of(2) { Ok((first, first + 1)) } else { Err(state.not_supported()) }
}

fn load_pair(word: Word, state: &mut State<'_>, addr: u64) -> Result<(), ExecuteError> {
    let (first, second) = pair(word, state)?;
    let value = state.load(addr, 8)?;
    state.set(first, value >> 32)?;
    state.set(second, value & 0xffff_ffff)
}

fn store_pair(word: Word, state: &mut State<'_>, addr: u64) -> Result<(), ExecuteError> {
    let (first, second) = pair(word, state)?;
    let value = state.get(first)? << 32 | state.get(second)? & 0xffff_ffff;
    state.store(addr, 8, value)
}

/// `cas` and `casx`: if memory at rs1 holds what rs2 does, it gets rd; rd gets what it held.
fn compare_and_swap(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    state.needs_atomicity()?;
    let len: usize = if word.op3() == 0x3e { 8 } else { 4 };
    let mask = u64::MAX >> (64 - 8 * len as u32);
    let addr = state.get(word.rs1())?;
    let old = state.load(addr, len)?;
    if old == state.get(word.rs2())? & mask {
        let new = state.get(word.rd())?;
        state.store(addr, len, new)?;
    }
    state.set(word.rd(), old)
}
