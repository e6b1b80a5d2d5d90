//! CR0 of the record forms; carry and overflow.

use super::branch::sign_extend;
use super::state::{CA, CA32, OV, OV32, SO, State};
use crate::ExecuteError;

/// A field of CR: less, greater, equal, summary overflow.
pub(super) fn field(order: std::cmp::Ordering, xer: u64) -> u64 {
    let bits = match order {
        std::cmp::Ordering::Less => 8,
        std::cmp::Ordering::Greater => 4,
        std::cmp::Ordering::Equal => 2,
    };
    bits | u64::from(xer & SO != 0)
}

/// Sets CR0 as a record form does: the result, in the mode's width, against 0.
pub(super) fn record(value: u64, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let value = if state.is_32_bit_mode()? { sign_extend(value) } else { value };
    let xer = state.xer()?;
    state.set_cr_field(0, field(value.cast_signed().cmp(&0), xer));
    Ok(())
}

/// A sum of two numbers and a carry, with what it means for XER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) value: u64,
    /// Out of bit 64, and out of bit 32.
    carry: (bool, bool),
    overflow: (bool, bool),
}

pub(super) fn sum(left: u64, right: u64, carry: bool) -> Sum {
    let value = left.wrapping_add(right).wrapping_add(u64::from(carry));
    // What was added to each bit from the one below it.
    let carries_in = left ^ right ^ value;
    let carries_out = left & right | (left | right) & !value;
    let out = |bit: u32| carries_out >> bit & 1 == 1;
    let overflows = |bit: u32| (carries_in ^ carries_out) >> bit & 1 == 1;
    Sum { value, carry: (out(63), out(31)), overflow: (overflows(63), overflows(31)) }
}

impl Sum {
    pub(super) fn set_carry(&self, state: &mut State<'_>) -> Result<(), ExecuteError> {
        let (whole, low) = self.carry;
        set_carry(if state.is_32_bit_mode()? { low } else { whole }, low, state)
    }

    pub(super) fn set_overflow(&self, state: &mut State<'_>) -> Result<(), ExecuteError> {
        let (whole, low) = self.overflow;
        set_overflow(if state.is_32_bit_mode()? { low } else { whole }, low, state)
    }
}

/// Carry, and that out of the low word.
pub(super) fn set_carry(carry: bool, low: bool, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let mask = if state.has_isa_300()? { CA | CA32 } else { CA };
    let bits = if carry { CA } else { 0 } | if low { CA32 } else { 0 };
    state.set_xer(mask, bits)
}

/// Overflow, which the summary keeps, and that of the low word.
pub(super) fn set_overflow(overflow: bool, low: bool, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let mask = if state.has_isa_300()? { OV | OV32 } else { OV };
    let bits = if overflow { OV } else { 0 } | if low { OV32 } else { 0 };
    let summary = state.xer()? & SO != 0 || overflow;
    state.set_xer(mask | SO, bits | if summary { SO } else { 0 })
}
