//! Addition, subtraction, logic, multiplication.
//!
//! Flags per the Intel SDM, volume 2: additions and subtractions define all six; logic clears CF and OF and leaves AF
//! undefined; `inc` and `dec` keep CF; `not` touches none; `imul` defines CF and OF alone.

use iced_x86::Instruction;

use super::flags::{self, AF, CF, OF, PF, SF, STATUS, ZF};
use super::operand::{Operand, sized};
use super::state::State;
use super::wide;
use super::width::Width;
use crate::ExecuteError;

/// What an operation gives: the result, and the flags that it defines or leaves undefined.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) result: u64,
    pub(super) flags: u64,
    pub(super) defined: u64,
    pub(super) undefined: u64,
}

/// Both operands zero-extended, and the old flags.
pub(super) type Binary = fn(Width, u64, u64, u64) -> Outcome;
pub(super) type Unary = fn(Width, u64) -> Outcome;

/// Carries go out of the top bit where both operands have it, or one has it and the result lost it.
fn sum(width: Width, a: u64, b: u64, carry: u64) -> Outcome {
    let result = width.trim(a.wrapping_add(b).wrapping_add(carry));
    let carries = a & b | (a | b) & !result;
    let overflow = (a ^ result) & (b ^ result);
    outcome(width, result, carries, overflow, a ^ b ^ result)
}

fn difference(width: Width, a: u64, b: u64, borrow: u64) -> Outcome {
    let result = width.trim(a.wrapping_sub(b).wrapping_sub(borrow));
    let borrows = !a & b | (!a | b) & result;
    let overflow = (a ^ b) & (a ^ result);
    outcome(width, result, borrows, overflow, a ^ b ^ result)
}

/// `carries` and `overflow` count in the top bit. AF is the carry out of bit 3, which is what differs in bit 4 from
/// the sum without carries.
fn outcome(width: Width, result: u64, carries: u64, overflow: u64, differs: u64) -> Outcome {
    let flags = flags::of_result(result, width)
        | flags::when(CF, carries & width.top() != 0)
        | flags::when(OF, overflow & width.top() != 0)
        | flags::when(AF, differs & 0x10 != 0);
    Outcome { result, flags, defined: STATUS, undefined: 0 }
}

fn logic(width: Width, result: u64) -> Outcome {
    let result = width.trim(result);
    Outcome { result, flags: flags::of_result(result, width), defined: STATUS & !AF, undefined: AF }
}

pub(super) fn add(width: Width, a: u64, b: u64, _: u64) -> Outcome {
    sum(width, a, b, 0)
}

pub(super) fn adc(width: Width, a: u64, b: u64, old: u64) -> Outcome {
    sum(width, a, b, old & CF)
}

pub(super) fn sub(width: Width, a: u64, b: u64, _: u64) -> Outcome {
    difference(width, a, b, 0)
}

pub(super) fn sbb(width: Width, a: u64, b: u64, old: u64) -> Outcome {
    difference(width, a, b, old & CF)
}

pub(super) fn and(width: Width, a: u64, b: u64, _: u64) -> Outcome {
    logic(width, a & b)
}

pub(super) fn or(width: Width, a: u64, b: u64, _: u64) -> Outcome {
    logic(width, a | b)
}

pub(super) fn xor(width: Width, a: u64, b: u64, _: u64) -> Outcome {
    logic(width, a ^ b)
}

pub(super) fn inc(width: Width, a: u64) -> Outcome {
    Outcome { defined: STATUS & !CF, ..sum(width, a, 1, 0) }
}

pub(super) fn dec(width: Width, a: u64) -> Outcome {
    Outcome { defined: STATUS & !CF, ..difference(width, a, 1, 0) }
}

pub(super) fn neg(width: Width, a: u64) -> Outcome {
    difference(width, 0, a, 0)
}

pub(super) fn not(width: Width, a: u64) -> Outcome {
    Outcome { result: width.trim(!a), flags: 0, defined: 0, undefined: 0 }
}

/// Two operands into the first.
pub(super) fn binary(instruction: &Instruction, state: &mut State<'_>, operation: Binary) -> Result<(), ExecuteError> {
    let (destination, outcome) = evaluate(instruction, state, operation)?;
    destination.write(state, outcome.result)?;
    state.set_flags(outcome.defined, outcome.flags, outcome.undefined)
}

/// Two operands into the flags alone.
pub(super) fn compare(instruction: &Instruction, state: &mut State<'_>, operation: Binary) -> Result<(), ExecuteError> {
    let (_, outcome) = evaluate(instruction, state, operation)?;
    state.set_flags(outcome.defined, outcome.flags, outcome.undefined)
}

fn evaluate(
    instruction: &Instruction,
    state: &mut State<'_>,
    operation: Binary,
) -> Result<(Operand, Outcome), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let source = Operand::locate(instruction, 1, state)?;
    let (a, b) = (destination.read(state)?, width.trim(source.read(state)?));
    let old = state.flags()?;
    Ok((destination, operation(width, a, b, old)))
}

pub(super) fn unary(instruction: &Instruction, state: &mut State<'_>, operation: Unary) -> Result<(), ExecuteError> {
    let (destination, width) = sized(instruction, 0, state)?;
    let outcome = operation(width, destination.read(state)?);
    destination.write(state, outcome.result)?;
    if outcome.defined == 0 {
        return Ok(());
    }
    state.set_flags(outcome.defined, outcome.flags, outcome.undefined)
}

/// `imul` with two or three operands (with one: `wide`): the low half of the signed product; CF and OF tell that the high half counts.
pub(super) fn multiply(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let factors = match instruction.op_count() {
        2 => (0, 1),
        3 => (1, 2),
        _ => return wide::multiply(instruction, state, wide::signed),
    };
    let (destination, width) = sized(instruction, 0, state)?;
    let a = Operand::locate(instruction, factors.0, state)?.read(state)?;
    let b = Operand::locate(instruction, factors.1, state)?.read(state)?;
    let (product, is_cut) = signed_product(width, a, b);
    // The low 64 bits.
    let result = width.trim(product as u64);
    let lost = flags::when(CF | OF, is_cut);
    destination.write(state, result)?;
    state.set_flags(CF | OF, lost, SF | ZF | AF | PF)
}

/// The whole product, and whether its low half alone does not tell it.
pub(super) fn signed_product(width: Width, a: u64, b: u64) -> (i128, bool) {
    let product = i128::from(width.signed(a)) * i128::from(width.signed(b));
    (product, i128::from(width.signed(product as u64)) != product)
}
