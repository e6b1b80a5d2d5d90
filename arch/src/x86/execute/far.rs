//! Transfers that load CS: far jumps, calls and returns, returns from interrupts, and the returns of fast system calls.
//! Only the target and the stack pointer are evaluated, from the kernel's own mode and in the direction in which kernels go.
//!
//! Not looked at: the descriptor behind the selector. Through a call gate or a task gate the target would be the gate's; a
//! kernel has none that it goes through itself.

use iced_x86::{Code, Instruction, Register};

use super::operand::address;
use super::state::State;
use super::width::Width;
use crate::x86::mode::Mode;
use crate::{ExecuteError, GuestAddr};

/// How a transfer finds its target.
#[derive(Clone, Copy)]
enum Kind {
    /// The offset is in the instruction.
    DirectJump(u64),
    /// CS and the return address are pushed, each of that width.
    DirectCall(u64, Width),
    /// A far pointer in memory, with an offset of that width.
    Jump(Width),
    Call(Width),
    /// Offset and CS, popped in words of that width.
    Return(Width),
    /// Offset, CS, flags; and stack pointer and SS from 64-bit mode, or to a lesser privilege.
    InterruptReturn(Width),
    /// Target and flags in registers.
    SystemCallReturn(Register),
    /// Target in rDX, stack pointer in rCX.
    SystemEntryReturn(Register, Register),
}

fn kind(instruction: &Instruction) -> Option<Kind> {
    Some(match instruction.code() {
        Code::Jmp_ptr1616 => Kind::DirectJump(u64::from(instruction.far_branch16())),
        Code::Jmp_ptr1632 => Kind::DirectJump(u64::from(instruction.far_branch32())),
        Code::Call_ptr1616 => Kind::DirectCall(u64::from(instruction.far_branch16()), Width::Word),
        Code::Call_ptr1632 => Kind::DirectCall(u64::from(instruction.far_branch32()), Width::Long),
        Code::Jmp_m1616 => Kind::Jump(Width::Word),
        Code::Jmp_m1632 => Kind::Jump(Width::Long),
        Code::Jmp_m1664 => Kind::Jump(Width::Quad),
        Code::Call_m1616 => Kind::Call(Width::Word),
        Code::Call_m1632 => Kind::Call(Width::Long),
        Code::Call_m1664 => Kind::Call(Width::Quad),
        Code::Retfw | Code::Retfw_imm16 => Kind::Return(Width::Word),
        Code::Retfd | Code::Retfd_imm16 => Kind::Return(Width::Long),
        Code::Retfq | Code::Retfq_imm16 => Kind::Return(Width::Quad),
        Code::Iretw => Kind::InterruptReturn(Width::Word),
        Code::Iretd => Kind::InterruptReturn(Width::Long),
        Code::Iretq => Kind::InterruptReturn(Width::Quad),
        Code::Sysretd => Kind::SystemCallReturn(Register::ECX),
        Code::Sysretq => Kind::SystemCallReturn(Register::RCX),
        Code::Sysexitd => Kind::SystemEntryReturn(Register::EDX, Register::ECX),
        Code::Sysexitq => Kind::SystemEntryReturn(Register::RDX, Register::RCX),
        _ => return None,
    })
}

/// Whether registers and memory tell where it goes; if not, it traps on purpose.
pub(super) fn goes_on(instruction: &Instruction) -> bool {
    kind(instruction).is_some()
}

/// Gives the target, and leaves the stack pointer in the state; CS, SS, the flags and what a call pushes are not
/// evaluated. Anything else is not supported.
pub(super) fn run(instruction: &Instruction, state: &mut State<'_>) -> Result<GuestAddr, ExecuteError> {
    let kind = kind(instruction).ok_or_else(|| state.not_supported())?;
    let top = state.sp()?;
    // CS and the return address, each as wide as the offset.
    let called = |width: Width| top.wrapping_sub(2 * u64::from(width.bytes()));
    let (target, sp) = match kind {
        Kind::DirectJump(target) => (target, top),
        Kind::DirectCall(target, width) => (target, called(width)),
        Kind::Jump(width) => (pointer(instruction, width, state)?, top),
        Kind::Call(width) => (pointer(instruction, width, state)?, called(width)),
        Kind::Return(width) => {
            let arguments = instruction.try_immediate(0).unwrap_or_default();
            (word(state, top, width, 0)?, after_far_return(state, top, width, arguments)?)
        }
        Kind::InterruptReturn(width) => (word(state, top, width, 0)?, after_interrupt_return(state, top, width)?),
        Kind::SystemCallReturn(target) => (state.register(target)?, top),
        Kind::SystemEntryReturn(target, sp) => (state.register(target)?, state.register(sp)?),
    };
    state.set_sp(sp)?;
    Ok(GuestAddr(target))
}

fn pointer(instruction: &Instruction, width: Width, state: &mut State<'_>) -> Result<u64, ExecuteError> {
    let addr = address(instruction, 0, state)?;
    state.load(addr, width)
}

/// The word of that number on the stack.
fn word(state: &mut State<'_>, top: u64, width: Width, number: u64) -> Result<u64, ExecuteError> {
    state.load(GuestAddr(top.wrapping_add(number * u64::from(width.bytes()))), width)
}

/// The low two bits of a selector.
const PRIVILEGE: u64 = 3;

/// Whether the selector that a return pops is of another privilege than the CPU now has.
fn changes_privilege(state: &mut State<'_>, selector: u64) -> Result<bool, ExecuteError> {
    let now = state.whole(state.mode().ids().cs)?;
    Ok((selector ^ now) & PRIVILEGE != 0)
}

/// From 64-bit mode the stack pointer is popped whatever the privilege; from protected mode with a change of it alone, and
/// on the way to virtual-8086 mode (Intel SDM volume 2, "IRET").
fn after_interrupt_return(state: &mut State<'_>, top: u64, width: Width) -> Result<u64, ExecuteError> {
    const VM: u64 = 1 << 17;
    let popped = state.mode() == Mode::Long || {
        let (selector, flags) = (word(state, top, width, 1)?, word(state, top, width, 2)?);
        flags & VM != 0 || changes_privilege(state, selector)?
    };
    if popped { word(state, top, width, 3) } else { Ok(top.wrapping_add(3 * u64::from(width.bytes()))) }
}

/// The arguments lie above offset and CS. A return to a lesser privilege finds the other stack's pointer above them, and
/// drops as many arguments there (Intel SDM volume 2, "RET", "return to outer privilege level").
fn after_far_return(state: &mut State<'_>, top: u64, width: Width, arguments: u64) -> Result<u64, ExecuteError> {
    let selector = word(state, top, width, 1)?;
    let above = top.wrapping_add(2 * u64::from(width.bytes())).wrapping_add(arguments);
    if !changes_privilege(state, selector)? {
        return Ok(above);
    }
    Ok(word(state, above, width, 0)?.wrapping_add(arguments))
}
