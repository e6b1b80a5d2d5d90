//! Out-of-line evaluation of powerpc instructions: the classes that the kernel's `analyse_instr` (Linux
//! `arch/powerpc/lib/sstep.c`) knows, without reservations, floating point and vectors.
//!
//! The instruction runs against a `State`, which reads the machine and collects what would change (registers, bits of
//! CR, at most one store); at the end `execute` commits that, and `next_pc` throws it away. Results are those of the Power
//! ISA 3.1B, Book I; forms that it calls invalid are not executed. A 64-bit CPU is in 32-bit mode when `MSR[SF]` is 0; direct
//! targets are those of 64-bit mode even then.
//!
//! QEMU keeps CR, XER, CTR and LR exact at every instruction, so that no flags can be stale.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod arith;
mod branch;
mod condition;
#[cfg(test)]
mod fake;
mod flags;
mod logic;
mod memory;
mod rotate;
mod special;
mod state;
mod successors;
#[cfg(test)]
mod tests;

use self::memory::Access;
use self::state::State;
use super::Powerpc;
use super::decode::Instruction;
use super::word::Word;
use crate::{Arch, ByteOrder, Execute, ExecuteError, Executed, Flow, GuestAddr, InsnSlot, Machine, NextPc, Successors};

/// `ori r0,r0,0`
const NOP: u32 = 0x6000_0000;
static NOP_BIG: [u8; 4] = NOP.to_be_bytes();
static NOP_LITTLE: [u8; 4] = NOP.to_le_bytes();

impl Execute for Powerpc {
    fn nop(&self) -> &'static [u8] {
        match self.byte_order() {
            ByteOrder::Big => &NOP_BIG,
            ByteOrder::Little => &NOP_LITTLE,
        }
    }

    fn flags_are_exact(&self) -> bool {
        true
    }

    fn reads_flags(&self, _: &InsnSlot, _: GuestAddr) -> bool {
        false
    }

    fn next_pc(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<NextPc, ExecuteError> {
        let instruction = self.mode().instruction(addr, slot.bytes())?;
        let mut state = State::new(self, addr, machine);
        match slot.insn.flow {
            Flow::Next if branch::traps(instruction, &mut state)? == Some(true) => Ok(NextPc::Leaves),
            Flow::Next => Ok(NextPc::At(self.behind(slot, addr))),
            Flow::Trap => {
                let next = branch::interrupt_return(instruction.word, &mut state)?;
                Ok(next.map_or(NextPc::Leaves, NextPc::At))
            }
            _ => branch::run(instruction.word, &mut state).map(NextPc::At),
        }
    }

    fn successors(
        &self,
        slot: &InsnSlot,
        addr: GuestAddr,
        machine: &mut dyn Machine,
    ) -> Result<Successors, ExecuteError> {
        successors::evaluate(self, slot, addr, machine)
    }

    fn has_successor(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        successors::are_known(self, slot, addr)
    }

    fn flags_dead_after(&self, _: &[u8], _: GuestAddr, _: &std::ops::Range<u64>) -> bool {
        // There is nothing to lose.
        true
    }

    fn execute(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Executed, ExecuteError> {
        let instruction = self.mode().instruction(addr, slot.bytes())?;
        let mut state = State::new(self, addr, machine);
        let next = match slot.insn.flow {
            Flow::Next => {
                run(instruction, &mut state)?;
                self.behind(slot, addr)
            }
            Flow::Trap => return Err(state.not_supported()),
            _ => branch::run(instruction.word, &mut state)?,
        };
        state.commit()?;
        Ok(Executed { next, undefined_flags: 0 })
    }
}

impl Powerpc {
    fn behind(&self, slot: &InsnSlot, addr: GuestAddr) -> GuestAddr {
        self.mode().address(addr.0.wrapping_add(u64::from(slot.insn.len)))
    }
}

/// Everything that goes on to the next instruction.
fn run(instruction: Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    if let Some(access) = Access::of(instruction) {
        return access.run(state);
    }
    match branch::traps(instruction, state)? {
        Some(false) => return Ok(()),
        Some(true) => return Err(state.not_supported()),
        None => {}
    }
    if compute(instruction, state)? { Ok(()) } else { Err(state.not_supported()) }
}

/// What is neither a transfer nor an access; false when it is not evaluated.
fn compute(instruction: Instruction, state: &mut State<'_>) -> Result<bool, ExecuteError> {
    let word = instruction.word;
    if instruction.prefix.is_some() {
        return memory::add_immediate(instruction, state);
    }
    if word.0 == NOP {
        return Ok(true);
    }
    match word.opcode() {
        4 => arith::multiply_add(word, state),
        7 | 8 | 12..=15 => arith::immediate(word, state),
        10 | 11 => condition::compare_immediate(word, state),
        19 => Ok(is_barrier(word) || condition::logic(word, state)? || arith::immediate(word, state)?),
        20..=23 | 30 => rotate::rotate(word, state),
        24..=29 => logic::immediate(word, state),
        31 => Ok(is_barrier(word)
            || condition::registers(word, state)?
            || special::registers(word, state)?
            || arith::registers(word, state)?
            || arith::remainder(word, state)?
            || logic::registers(word, state)?
            || rotate::shift(word, state)?),
        _ => Ok(false),
    }
}

/// What orders accesses has nothing to order in one instruction; a prefetch faults on no address.
fn is_barrier(word: Word) -> bool {
    match (word.opcode(), word.extended()) {
        // isync
        (19, 150) => true,
        // sync, lwsync, ptesync; eieio; dcbt, dcbtst
        (31, 598 | 854 | 278 | 246) => !word.last(),
        _ => false,
    }
}
