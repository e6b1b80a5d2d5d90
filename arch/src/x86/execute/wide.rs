//! Multiplication into and division of the accumulator pair: rDX:rAX, or AX for bytes.
//!
//! `mul` and one-operand `imul` define CF and OF, which tell that the high half counts; the divisions leave all six
//! undefined (Intel SDM volume 2). A division whose quotient does not fit raises #DE: it does not complete, and is refused.

use iced_x86::{Instruction, Register};

use super::alu::signed_product;
use super::flags::{self, AF, CF, OF, PF, SF, STATUS, ZF};
use super::operand::{Operand, sized};
use super::state::State;
use super::width::Width;
use crate::ExecuteError;

/// The low half and the high half.
fn halves(width: Width) -> (Register, Register) {
    match width {
        Width::Byte => (Register::AL, Register::AH),
        Width::Word => (Register::AX, Register::DX),
        Width::Long => (Register::EAX, Register::EDX),
        Width::Quad => (Register::RAX, Register::RDX),
    }
}

/// The low and the high half of the product of two values of that width, and whether the high one counts.
type Product = fn(Width, u64, u64) -> (u64, u64, bool);

/// Both halves of a 128-bit number, the low one of that width.
fn split(width: Width, product: u128) -> (u64, u64) {
    (width.trim(product as u64), width.trim((product >> width.bits()) as u64))
}

pub(super) fn unsigned(width: Width, a: u64, b: u64) -> (u64, u64, bool) {
    let (low, high) = split(width, u128::from(a) * u128::from(b));
    (low, high, high != 0)
}

pub(super) fn signed(width: Width, a: u64, b: u64) -> (u64, u64, bool) {
    let (product, is_cut) = signed_product(width, a, b);
    let (low, high) = split(width, product.cast_unsigned());
    (low, high, is_cut)
}

pub(super) fn multiply(instruction: &Instruction, state: &mut State<'_>, product: Product) -> Result<(), ExecuteError> {
    let (source, width) = sized(instruction, 0, state)?;
    let (low, high) = halves(width);
    let (low_value, high_value, counts) = product(width, state.register(low)?, source.read(state)?);
    state.set_register(low, low_value)?;
    state.set_register(high, high_value)?;
    state.set_flags(CF | OF, flags::when(CF | OF, counts), SF | ZF | AF | PF)
}

/// Quotient and remainder of a number of twice that width by one of that width; `None` when the quotient does not fit.
type Division = fn(Width, u128, u64) -> Option<(u64, u64)>;

pub(super) fn divide_unsigned(width: Width, dividend: u128, divisor: u64) -> Option<(u64, u64)> {
    let divisor = u128::from(divisor);
    let quotient = dividend.checked_div(divisor)?;
    let remainder = dividend.checked_rem(divisor)?;
    (quotient <= u128::from(width.mask())).then_some((quotient as u64, remainder as u64))
}

/// Towards zero; the remainder has the dividend's sign.
pub(super) fn divide_signed(width: Width, dividend: u128, divisor: u64) -> Option<(u64, u64)> {
    let unused = 128 - 2 * width.bits();
    let dividend = (dividend << unused).cast_signed() >> unused;
    let divisor = i128::from(width.signed(divisor));
    let quotient = dividend.checked_div(divisor)?;
    let remainder = dividend.checked_rem(divisor)?;
    let fits = i128::from(width.signed(quotient as u64)) == quotient;
    fits.then_some((quotient as u64, remainder as u64))
}

pub(super) fn divide(instruction: &Instruction, state: &mut State<'_>, division: Division) -> Result<(), ExecuteError> {
    let (source, width) = sized(instruction, 0, state)?;
    let (low, high) = halves(width);
    let dividend = u128::from(state.register(high)?) << width.bits() | u128::from(state.register(low)?);
    let divisor = Operand::read(source, state)?;
    let (quotient, remainder) = division(width, dividend, divisor).ok_or_else(|| state.not_supported())?;
    state.set_register(low, quotient)?;
    state.set_register(high, remainder)?;
    state.set_flags(0, 0, STATUS)
}
