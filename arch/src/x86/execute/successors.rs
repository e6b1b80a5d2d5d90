//! Where execution can go, and the stack pointer there, without the flags.
//!
//! The instruction runs against a `State` that is thrown away, whose flags are not the machine's. Of what goes on to the next
//! instruction only that part runs that changes the stack pointer: most instructions cost one register read, and a
//! `push (%rax)` no access to memory.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register, RflagsBits};

use super::operand::address;
use super::state::State;
use super::width::Width;
use super::{STATUS, far, run, transfer};
use crate::execute::Blank;
use crate::x86::decode;
use crate::x86::mode::Mode;
use crate::{ExecuteError, Flow, GuestAddr, InsnSlot, Machine, Successors};

pub(super) fn evaluate(
    mode: Mode,
    slot: &InsnSlot,
    addr: GuestAddr,
    machine: &mut dyn Machine,
) -> Result<Successors, ExecuteError> {
    let instruction = decode::instruction(mode, addr, slot.bytes())?;
    let mut state = State::without_flags(mode, addr, machine);
    let next = mode.behind(&instruction);
    let (first, second) = match slot.insn.flow {
        Flow::Next => {
            move_stack_pointer(&instruction, &mut state)?;
            (next, None)
        }
        // No branch of this kind touches the stack.
        Flow::Branch { .. } => {
            let target = GuestAddr(instruction.near_branch_target());
            (target, (target != next).then_some(next))
        }
        Flow::Trap => (far::run(&instruction, &mut state)?, None),
        Flow::Jump { .. } | Flow::IndirectJump | Flow::Call { .. } | Flow::IndirectCall | Flow::Return => {
            (transfer::run(&instruction, &mut state)?, None)
        }
    };
    Ok(Successors { first, second, sp: state.sp()? })
}

/// Leaves in the state the stack pointer that an instruction leaves which goes on to the next one.
fn move_stack_pointer(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    if writes_stack_pointer(instruction) {
        // `cmove %rax,%rsp`: nobody can tell.
        if instruction.rflags_read() & STATUS != RflagsBits::NONE {
            return Err(state.not_supported());
        }
        if instruction.has_lock_prefix() {
            state.needs_atomicity()?;
        }
        return run(instruction, state);
    }
    let sp = match instruction.code() {
        // The frame pointer is popped from where the frame pointer points.
        Code::Leaveq => state.bp()?.wrapping_add(8),
        Code::Leaved => state.bp()?.wrapping_add(4),
        Code::Leavew => state.bp()?.wrapping_add(2),
        // The offset of a far pointer; that SS may have a base from here on is not looked at.
        Code::Lss_r32_m1632 if instruction.op0_register() == Register::ESP => {
            let addr = address(instruction, 0, state)?;
            state.load(addr, Width::Long)?
        }
        // Fixed: `push` and `pop` of every kind, `enter`.
        _ => match instruction.stack_pointer_increment() {
            0 => return Ok(()),
            by => state.sp()?.wrapping_add_signed(i64::from(by)),
        },
    };
    state.set_sp(sp)
}

/// Is the stack pointer, or a part of it, an operand that the instruction may write? By the instruction's first operand,
/// unless it is known as one that only reads it; and by the second of those that write two.
fn writes_stack_pointer(instruction: &Instruction) -> bool {
    let is_stack_pointer = |number| {
        matches!(instruction.try_op_kind(number), Ok(OpKind::Register))
            && instruction.try_op_register(number).unwrap_or_default().full_register() == Register::RSP
    };
    match instruction.mnemonic() {
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Push | Mnemonic::Nop | Mnemonic::Lss => false,
        Mnemonic::Xchg | Mnemonic::Xadd | Mnemonic::Mulx => is_stack_pointer(0) || is_stack_pointer(1),
        _ => is_stack_pointer(0),
    }
}

/// Nothing about successors but the errors `Fault` and `Register` hangs on values: an evaluation with any shows it.
pub(super) fn are_known(mode: Mode, slot: &InsnSlot, addr: GuestAddr) -> bool {
    evaluate(mode, slot, addr, &mut Blank).is_ok()
}
