//! Out-of-line evaluation of x86 instructions.
//!
//! The slot's bytes are decoded at the original's address; the instruction then runs against a `State`, which reads
//! the machine and collects what would change (registers, at most one store, the flags); at the end `execute` commits
//! that, and `next_pc` throws it away. Results are those of the Intel SDM, volume 2; where a 66 prefix on a near branch
//! divides the vendors (in 64-bit mode), Intel's (and QEMU's) way is taken, as the decoder does.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod alu;
mod bits;
#[cfg(test)]
mod fake;
mod far;
mod flags;
mod liveness;
mod moves;
mod operand;
#[cfg(test)]
mod protected_tests;
mod scan;
mod shift;
mod stack;
mod state;
mod successors;
#[cfg(test)]
mod successors_tests;
mod swap;
#[cfg(test)]
mod tests;
mod transfer;
mod wide;
mod width;

use iced_x86::{Instruction, Mnemonic, Register, RflagsBits};

use self::state::State;
use super::{X86, decode};
use crate::{Execute, ExecuteError, Executed, Flow, GuestAddr, InsnSlot, Machine, NextPc, Successors};

/// One byte, so that it fits wherever an instruction was.
const NOP: [u8; 1] = [0x90];
/// The arithmetic flags, in the decoder's numbering.
const STATUS: u32 = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

impl Execute for X86 {
    fn nop(&self) -> &'static [u8] {
        &NOP
    }

    fn reads_flags(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        let Ok(instruction) = decode::instruction(self.mode, addr, slot.bytes()) else { return false };
        let modified = instruction.rflags_modified() & STATUS;
        let keeps_some = modified != 0 && modified != STATUS;
        instruction.rflags_read() & STATUS != 0
            || keeps_some
            || flags::keeps_status(&instruction)
            || may_keep_flags(&instruction)
    }

    fn next_pc(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<NextPc, ExecuteError> {
        if slot.insn.flow == Flow::Next {
            let next = addr.wrapping_add(u64::from(slot.insn.len));
            return Ok(NextPc::At(GuestAddr(self.mode.trim(next.0))));
        }
        let instruction = decode::instruction(self.mode, addr, slot.bytes())?;
        let mut state = State::new(self.mode, addr, machine);
        match slot.insn.flow {
            Flow::Trap if !far::goes_on(&instruction) => Ok(NextPc::Leaves),
            Flow::Trap => far::run(&instruction, &mut state).map(NextPc::At),
            _ => transfer::run(&instruction, &mut state).map(NextPc::At),
        }
    }

    fn successors(
        &self,
        slot: &InsnSlot,
        addr: GuestAddr,
        machine: &mut dyn Machine,
    ) -> Result<Successors, ExecuteError> {
        successors::evaluate(self.mode, slot, addr, machine)
    }

    fn has_successor(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        successors::are_known(self.mode, slot, addr)
    }

    fn flags_dead_after(&self, text: &[u8], addr: GuestAddr, function: &std::ops::Range<u64>) -> bool {
        liveness::flags_are_dead(self.mode, text, addr, function)
    }

    fn execute(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Executed, ExecuteError> {
        let instruction = decode::instruction(self.mode, addr, slot.bytes())?;
        let mut state = State::new(self.mode, addr, machine);
        if instruction.has_lock_prefix() {
            state.needs_atomicity()?;
        }
        let next = match decode::flow(&instruction) {
            Flow::Next => {
                run(&instruction, &mut state)?;
                self.mode.behind(&instruction)
            }
            Flow::Trap => return Err(state.not_supported()),
            _ => transfer::run(&instruction, &mut state)?,
        };
        let undefined_flags = state.commit()?;
        Ok(Executed { next, undefined_flags })
    }
}

/// Does the instruction keep all arithmetic flags when a register (a shift's count, the counter of a repetition) is 0?
fn may_keep_flags(instruction: &Instruction) -> bool {
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let compares = instruction.is_string_instruction() && instruction.rflags_modified() & STATUS != 0;
    repeats && compares || shift::may_keep_flags(instruction)
}

/// Everything that goes on to the next instruction.
fn run(instruction: &Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    match instruction.mnemonic() {
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr64 | Mnemonic::Endbr32 => Ok(()),
        // A prefetch faults on no address.
        Mnemonic::Prefetchnta | Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2 => Ok(()),
        Mnemonic::Prefetch | Mnemonic::Prefetchw => Ok(()),
        // What orders accesses has nothing to order in one instruction.
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => Ok(()),
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movnti => moves::copy(instruction, state),
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
        Mnemonic::Shld => shift::run_double(instruction, state, shift::double_left),
        Mnemonic::Shrd => shift::run_double(instruction, state, shift::double_right),
        Mnemonic::Shlx => shift::run_flagless(instruction, state, shift::shl),
        Mnemonic::Shrx => shift::run_flagless(instruction, state, shift::shr),
        Mnemonic::Sarx => shift::run_flagless(instruction, state, shift::sar),
        Mnemonic::Rorx => shift::run_flagless(instruction, state, shift::ror),
        Mnemonic::Mul => wide::multiply(instruction, state, wide::unsigned),
        Mnemonic::Div => wide::divide(instruction, state, wide::divide_unsigned),
        Mnemonic::Idiv => wide::divide(instruction, state, wide::divide_signed),
        Mnemonic::Xadd => swap::exchange_and_add(instruction, state),
        Mnemonic::Cmpxchg => swap::compare_and_exchange(instruction, state),
        Mnemonic::Bsf => scan::scan(instruction, state, scan::lowest),
        Mnemonic::Bsr => scan::scan(instruction, state, scan::highest),
        Mnemonic::Tzcnt => scan::count_trailing(instruction, state),
        Mnemonic::Popcnt => scan::count_ones(instruction, state),
        Mnemonic::Lahf => {
            let flags = flags::low_byte(state.flags()?);
            state.set_register(Register::AH, flags)
        }
        Mnemonic::Bt => bits::test(instruction, state),
        Mnemonic::Bts => bits::change(instruction, state, bits::set),
        Mnemonic::Btr => bits::change(instruction, state, bits::reset),
        Mnemonic::Btc => bits::change(instruction, state, bits::complement),
        _ if moves::is_conditional(instruction) => moves::conditional(instruction, state),
        _ if moves::is_set(instruction) => moves::set(instruction, state),
        _ => match flags::directly(instruction, state)? {
            Some((touched, values)) => state.set_flags(touched, values, 0),
            None => Err(state.not_supported()),
        },
    }
}
