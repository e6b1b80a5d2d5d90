//! Near control transfers. In 64-bit mode they are 64 bits wide whatever the prefixes say, and so is the return address.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::moves::condition;
use super::operand::sized;
use super::stack::{pop_value, push_value};
use super::state::State;
use super::width::Width;
use crate::{ExecuteError, GuestAddr};

/// Runs a near transfer and gives its target. Anything else is not supported.
pub(super) fn run(instruction: &Instruction, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    match instruction.mnemonic() {
        Mnemonic::Jmp => target(instruction, state),
        Mnemonic::Call => {
            // A target in memory is read with the stack pointer before the push. The return address is the end of the
            // instruction, prefixes included: the kernel's kprobes assume 5 bytes for `cs call`.
            let target = target(instruction, state)?;
            push_value(state, Width::Quad, instruction.next_ip())?;
            Ok(target)
        }
        Mnemonic::Ret => {
            // `ret $16` drops the callee's arguments too; the kernel's kprobes forget them.
            let arguments = instruction.try_immediate(0).unwrap_or_default();
            pop_value(state, Width::Quad, arguments).map(GuestAddr)
        }
        _ if instruction.is_jcc_short_or_near() => {
            let taken = condition(instruction.condition_code(), state)?;
            Ok(branch(instruction, taken))
        }
        Mnemonic::Jrcxz | Mnemonic::Jecxz => {
            let counter = state.register(counter(instruction))?;
            Ok(branch(instruction, counter == 0))
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
    Ok(branch(instruction, goes_on && condition_holds))
}

/// RCX, or ECX with an address-size prefix.
fn counter(instruction: &Instruction) -> Register {
    use iced_x86::Code::{Jecxz_rel8_64, Loop_rel8_64_ECX, Loope_rel8_64_ECX, Loopne_rel8_64_ECX};
    match instruction.code() {
        Jecxz_rel8_64 | Loop_rel8_64_ECX | Loope_rel8_64_ECX | Loopne_rel8_64_ECX => Register::ECX,
        _ => Register::RCX,
    }
}

fn branch(instruction: &Instruction, taken: bool) -> GuestAddr {
    GuestAddr(if taken { instruction.near_branch_target() } else { instruction.next_ip() })
}

/// Where `jmp` and `call` go. What is not a 64-bit operand is a far transfer or another mode's.
fn target(instruction: &Instruction, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    if matches!(instruction.try_op_kind(0), Ok(OpKind::NearBranch64)) {
        return Ok(GuestAddr(instruction.near_branch_target()));
    }
    match sized(instruction, 0, state)? {
        (operand, Width::Quad) => operand.read(state).map(GuestAddr),
        _ => Err(state.not_supported()),
    }
}
