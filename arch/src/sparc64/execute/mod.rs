//! Out-of-line evaluation of sparc64 instructions.
//!
//! Two program counters: an instruction that is not a transfer goes to nPC; a transfer does as well, unless it annuls
//! its delay slot or has none; what it transfers to comes after that (`next`). Where the instruction lies in its block,
//! `Machine::place`, tells what nPC is.
//!
//! An instruction runs against a `State`, which reads the machine and collects what would change; at the end `execute`
//! commits that, and the others throw it away. Register windows are not the machine's to show: `save`, `restore` and
//! `return` are not executed, but where they go and the stack pointer that they leave is known. Addresses are 64 bits
//! wide: a 32-bit process (PSTATE.AM) is not meant.
//!
//! Manual: The SPARC Architecture Manual, Version 9, appendix A.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod alu;
mod condition;
#[cfg(test)]
mod fake;
mod liveness;
mod memory;
mod next;
mod registers;
mod state;
mod successors;
#[cfg(test)]
mod tests;

use self::state::State;
use super::transfer::{Transfer, transfer};
use super::word::{O7, Word};
use super::{Sparc64, decode};
use crate::{Execute, ExecuteError, Executed, Flow, GuestAddr, InsnSlot, Machine, NextPc, Successors};

/// sethi 0, %g0
const NOP: [u8; 4] = [0x01, 0, 0, 0];

impl Execute for Sparc64 {
    fn nop(&self) -> &'static [u8] {
        &NOP
    }

    fn reads_flags(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        decode::instruction(addr, slot.bytes()).is_ok_and(|word| registers::reads_flags(word, addr))
    }

    fn flags_are_exact(&self) -> bool {
        // QEMU's target/sparc has computed them at once, into what `state` shows and `set_pc` keeps, since 9.0; it
        // lists no registers before 10.1.
        true
    }

    fn next_pc(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<NextPc, ExecuteError> {
        let word = decode::instruction(addr, slot.bytes())?;
        if slot.insn.flow == Flow::Trap {
            return Ok(NextPc::Leaves);
        }
        next::pc(word, &mut State::new(addr, machine)).map(NextPc::At)
    }

    fn npc(&self, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Option<GuestAddr>, ExecuteError> {
        next::npc(&mut State::new(addr, machine)).map(Some)
    }

    fn successors(
        &self,
        slot: &InsnSlot,
        addr: GuestAddr,
        machine: &mut dyn Machine,
    ) -> Result<Successors, ExecuteError> {
        successors::evaluate(slot, addr, machine)
    }

    fn has_successor(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        successors::are_known(slot, addr)
    }

    fn flags_dead_after(&self, text: &[u8], addr: GuestAddr, function: &std::ops::Range<u64>) -> bool {
        liveness::flags_are_dead(text, addr, function)
    }

    fn execute(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Executed, ExecuteError> {
        let word = decode::instruction(addr, slot.bytes())?;
        let mut state = State::new(addr, machine);
        // Before anything that decides it may be overwritten.
        let next = next::pc(word, &mut state)?;
        run(word, &mut state)?;
        state.commit()?;
        Ok(Executed { next, undefined_flags: 0 })
    }
}

/// What the instruction does besides going on.
fn run(word: Word, state: &mut State<'_>) -> Result<(), ExecuteError> {
    let addr = state.addr();
    match transfer(word, addr) {
        Some(Transfer::Branch { .. } | Transfer::CompareBranch { .. }) => return Ok(()),
        Some(Transfer::Call { .. }) => return state.set(O7, addr.0),
        Some(Transfer::JumpAndLink) => return state.set(word.rd(), addr.0),
        // It restores a window.
        Some(Transfer::Return) => return Err(state.not_supported()),
        None => {}
    }
    match (word.op(), word.op3()) {
        // sethi; its only other instruction without a transfer is illtrap
        (0, _) if word.op2() == 4 => state.set(word.rd(), u64::from(word.bits(0, 22)) << 10),
        (2, 0x00..=0x1f) => alu::run(word, state),
        (2, 0x25..=0x27) => alu::shift(word, state),
        (2, 0x28) => registers::read(word, state),
        (2, 0x2c) => condition::move_on_condition(word, state),
        (2, 0x2d) => alu::divide_signed(word, state),
        (2, 0x2e) => {
            let ones = state.operand(word)?.count_ones();
            state.set(word.rd(), u64::from(ones))
        }
        (2, 0x2f) => condition::move_on_register(word, state),
        (2, 0x30) => registers::write(word, state),
        // flush: what was stored is seen by who fetches it.
        (2, 0x3b) => Ok(()),
        (3, _) => memory::run(word, state),
        _ => Err(state.not_supported()),
    }
}
