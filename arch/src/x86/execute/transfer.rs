//! Near control transfers. In 64-bit mode they are 64 bits wide whatever the prefixes say, and so is the return address;
//! elsewhere a 66 prefix makes them 16 bits wide.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::moves::condition;
use super::operand::sized;
use super::stack::{pop_value, push_value};
use super::state::State;
use super::width::Width;
use crate::{ExecuteError, GuestAddr};

/// Runs a near transfer and gives its target. Anything else is not supported.
pub(super) fn run(instruction: &Instruction, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    match instruction.mnemonic() {
        Mnemonic::Jmp => target(instruction, state).map(|(target, _)| target),
        Mnemonic::Call => {
            // A target in memory is read with the stack pointer before the push. The return address is the end of the
            // instruction, prefixes included: the kernel's kprobes assume 5 bytes for `cs call`.
            let (target, width) = target(instruction, state)?;
            push_value(state, width, instruction.next_ip())?;
            Ok(target)
        }
        Mnemonic::Ret => {
            // `ret $16` drops the callee's arguments too; the kernel's kprobes forget them.
            let arguments = instruction.try_immediate(0).unwrap_or_default();
            let width = match instruction.code() {
                Code::Retnw | Code::Retnw_imm16 => Width::Word,
                _ => state.word(),
            };
            pop_value(state, width, arguments).map(GuestAddr)
        }
        _ if instruction.is_jcc_short_or_near() => {
            let taken = condition(instruction.condition_code(), state)?;
            Ok(branch(instruction, state, taken))
        }
        Mnemonic::Jrcxz | Mnemonic::Jecxz | Mnemonic::Jcxz => {
            let counter = state.register(counter(instruction))?;
            Ok(branch(instruction, state, counter == 0))
        }
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => count(instruction, state),
        _ => Err(state.not_supported()),
    }
}

/// The counter is decremented first, and then compared with 0: 1 falls through, 0 goes round 2^64 times. The kernel's
/// kprobes compare it before. No flag changes.
fn count(instruction: &Instruction, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let register = counter(instruction);
    let left = state.register(register)?.wrapping_sub(1);
    state.set_register(register, left)?;
    let goes_on = state.register(register)? != 0;
    let condition_holds = match instruction.mnemonic() {
        Mnemonic::Loop => true,
        _ => condition(instruction.condition_code(), state)?,
    };
    Ok(branch(instruction, state, goes_on && condition_holds))
}

/// As wide as an address: RCX, ECX or CX.
fn counter(instruction: &Instruction) -> Register {
    use Code::{
        Jcxz_rel8_16, Jcxz_rel8_32, Jecxz_rel8_16, Jecxz_rel8_32, Jecxz_rel8_64, Loop_rel8_16_CX, Loop_rel8_16_ECX,
        Loop_rel8_32_CX, Loop_rel8_32_ECX, Loop_rel8_64_ECX, Loope_rel8_16_CX, Loope_rel8_16_ECX, Loope_rel8_32_CX,
        Loope_rel8_32_ECX, Loope_rel8_64_ECX, Loopne_rel8_16_CX, Loopne_rel8_16_ECX, Loopne_rel8_32_CX,
        Loopne_rel8_32_ECX, Loopne_rel8_64_ECX,
    };
    match instruction.code() {
        Jcxz_rel8_16 | Jcxz_rel8_32 | Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX => Register::CX,
        Jecxz_rel8_16 | Jecxz_rel8_32 | Jecxz_rel8_64 | Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX
        | Loope_rel8_16_ECX | Loope_rel8_32_ECX | Loope_rel8_64_ECX | Loopne_rel8_16_ECX | Loopne_rel8_32_ECX
        | Loopne_rel8_64_ECX => Register::ECX,
        _ => Register::RCX,
    }
}

fn branch(instruction: &Instruction, state: &State<'_>, taken: bool) -> GuestAddr {
    if taken { GuestAddr(instruction.near_branch_target()) } else { state.mode().behind(instruction) }
}

/// Where `jmp` and `call` go, and how wide their operand is. What is not a near transfer's is refused.
fn target(instruction: &Instruction, state: &mut State<'_>) -> Result<(GuestAddr, Width), ExecuteError> {
    let direct = match instruction.try_op_kind(0) {
        Ok(OpKind::NearBranch64) => Some(Width::Quad),
        Ok(OpKind::NearBranch32) => Some(Width::Long),
        Ok(OpKind::NearBranch16) => Some(Width::Word),
        _ => None,
    };
    if let Some(width) = direct {
        return Ok((GuestAddr(instruction.near_branch_target()), width));
    }
    let (operand, width) = sized(instruction, 0, state)?;
    // A far pointer is wider than an address, or goes by another name.
    if width != state.word() && width != Width::Word {
        return Err(state.not_supported());
    }
    Ok((GuestAddr(operand.read(state)?), width))
}
