//! Out-of-line evaluation of x86_64 instructions.
//!
//! The slot's bytes are decoded at the original's address; the instruction then runs against a `State`, which reads
//! the machine and collects what would change (registers, at most one store, the flags); at the end `execute` commits
//! that, and `next_pc` throws it away. Results are those of the Intel SDM, volume 2; where a 66 prefix on a near branch
//! divides the vendors, Intel's (and QEMU's) way is taken, as the decoder does.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod alu;
mod bits;
#[cfg(test)]
mod fake;
mod flags;
mod moves;
mod operand;
mod shift;
mod stack;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod width;

use iced_x86::{Instruction, Mnemonic, RflagsBits};

use self::state::State;
use super::{X86_64, decode};
use crate::{Execute, ExecuteError, Executed, Flow, GuestAddr, InsnSlot, Machine, NextPc};

/// One byte, so that it fits wherever an instruction was.
const NOP: [u8; 1] = [0x90];
const HLT: u8 = 0xf4;
/// The arithmetic flags, in the decoder's numbering.
const STATUS: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

impl Execute for X86_64 {
    fn nop(&self) -> &'static [u8] {
        &NOP
    }

    fn reads_flags(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        let Ok(instruction) = decode::instruction(64, addr, slot.bytes()) else { return false };
        let modified = instruction.rflags_modified() & STATUS;
        let keeps_some = modified != 0 && modified != STATUS;
        instruction.rflags_read() & STATUS != 0 || keeps_some || shift::may_keep_flags(&instruction)
    }

    fn next_pc(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<NextPc, ExecuteError> {
        match slot.insn.flow {
            Flow::Trap => Ok(NextPc::Leaves),
            Flow::Next if is_halt(slot) => Ok(NextPc::Leaves),
            Flow::Next => Ok(NextPc::At(addr.wrapping_add(u64::from(slot.insn.len)))),
            _ => {
                let instruction = decode::instruction(64, addr, slot.bytes())?;
                transfer::run(&instruction, &mut State::new(addr, machine)).map(NextPc::At)
            }
        }
    }

    fn execute(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Executed, ExecuteError> {
        let instruction = decode::instruction(64, addr, slot.bytes())?;
        let mut state = State::new(addr, machine);
        if instruction.has_lock_prefix() {
            state.needs_atomicity()?;
        }
        let next = match decode::flow(&instruction) {
            Flow::Next => {
                run(&instruction, &mut state)?;
                GuestAddr(instruction.next_ip())
            }
            Flow::Trap => return Err(state.not_supported()),
            _ => transfer::run(&instruction, &mut state)?,
        };
        let undefined_flags = state.commit()?;
        Ok(Executed { next, undefined_flags })
    }
}

/// `hlt` has no operands: its opcode is its last byte. Other instructions may end in that byte.
fn is_halt(slot: &InsnSlot) -> bool {
    slot.bytes().last() == Some(&HLT)
        && decode::instruction(64, GuestAddr(0), slot.bytes())
            .is_ok_and(|instruction| instruction.mnemonic() == Mnemonic::Hlt)
}

/// Everything that goes on to the next instruction.
fn run(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr64 | Mnemonic::Endbr32 => Ok(()),
        Mnemonic::Mov | Mnemonic::Movzx => moves::copy(instruction, state),
        Mnemonic::Movsx | Mnemonic::Movsxd => moves::copy_signed(instruction, state),
        Mnemonic::Lea => moves::lea(instruction, state),
        Mnemonic::Xchg => moves::exchange(instruction, state),
        Mnemonic::Bswap => moves::swap_bytes(instruction, state),
        Mnemonic::Cbw | Mnemonic::Cwde | Mnemonic::Cdqe => moves::widen_accumulator(instruction, state),
        Mnemonic::Cwd | Mnemonic::Cdq | Mnemonic::Cqo => moves::spread_sign(instruction, state),
        Mnemonic::Push => stack::push(instruction, state),
        Mnemonic::Pop => stack::pop(instruction, state),
        Mnemonic::Leave => stack::leave(instruction, state),
        Mnemonic::Add => alu::binary(instruction, state, alu::add),
        Mnemonic::Adc => alu::binary(instruction, state, alu::adc),
        Mnemonic::Sub => alu::binary(instruction, state, alu::sub),
        Mnemonic::Sbb => alu::binary(instruction, state, alu::sbb),
        Mnemonic::And => alu::binary(instruction, state, alu::and),
        Mnemonic::Or => alu::binary(instruction, state, alu::or),
        Mnemonic::Xor => alu::binary(instruction, state, alu::xor),
        Mnemonic::Cmp => alu::compare(instruction, state, alu::sub),
        Mnemonic::Test => alu::compare(instruction, state, alu::and),
        Mnemonic::Inc => alu::unary(instruction, state, alu::inc),
        Mnemonic::Dec => alu::unary(instruction, state, alu::dec),
        Mnemonic::Neg => alu::unary(instruction, state, alu::neg),
        Mnemonic::Not => alu::unary(instruction, state, alu::not),
        Mnemonic::Imul => alu::multiply(instruction, state),
        Mnemonic::Shl | Mnemonic::Sal => shift::run(instruction, state, shift::shl),
        Mnemonic::Shr => shift::run(instruction, state, shift::shr),
        Mnemonic::Sar => shift::run(instruction, state, shift::sar),
        Mnemonic::Rol => shift::run(instruction, state, shift::rol),
        Mnemonic::Ror => shift::run(instruction, state, shift::ror),
        Mnemonic::Bt => bits::test(instruction, state),
        Mnemonic::Bts => bits::change(instruction, state, bits::set),
        Mnemonic::Btr => bits::change(instruction, state, bits::reset),
        Mnemonic::Btc => bits::change(instruction, state, bits::complement),
        _ if moves::is_conditional(instruction) => moves::conditional(instruction, state),
        _ if moves::is_set(instruction) => moves::set(instruction, state),
        _ => Err(state.not_supported()),
    }
}
