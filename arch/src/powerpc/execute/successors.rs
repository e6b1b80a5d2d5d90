//! Where execution can go, and the stack pointer there, without CR.
//!
//! The instruction runs against a `State` that is thrown away, and only if it may change the stack pointer: most cost one
//! register read, and no access to memory but where the stack pointer is loaded.

use super::memory::Access;
use super::state::State;
use super::{branch, compute};
use crate::execute::Blank;
use crate::powerpc::decode::Instruction;
use crate::powerpc::word::Word;
use crate::powerpc::{Powerpc, regs};
use crate::{ExecuteError, Flow, GuestAddr, InsnSlot, Machine, Successors};

/// The number of the stack pointer.
const SP: u32 = 1;

pub(super) fn evaluate(
    isa: &Powerpc,
    slot: &InsnSlot,
    addr: GuestAddr,
    machine: &mut dyn Machine,
) -> Result<Successors, ExecuteError> {
    let instruction = isa.mode().instruction(addr, slot.bytes())?;
    let mut state = State::without_cr(isa, addr, machine);
    let next = isa.behind(slot, addr);
    let word = instruction.word;
    let (first, second) = match slot.insn.flow {
        Flow::Next => {
            move_stack_pointer(instruction, &mut state)?;
            (next, None)
        }
        Flow::Trap => {
            let target = branch::interrupt_return(word, &mut state)?;
            (target.ok_or_else(|| state.not_supported())?, None)
        }
        Flow::Jump { target } | Flow::Call { target } => (target, None),
        Flow::Branch { .. } | Flow::IndirectJump | Flow::IndirectCall | Flow::Return => {
            let target = branch::target(word, &mut state)?;
            let is_conditional = !crate::powerpc::decode::always_branches(word.t());
            (target, (is_conditional && target != next).then_some(next))
        }
    };
    Ok(Successors { first, second, sp: state.get(regs::SP)? })
}

/// Leaves in the state the stack pointer that an instruction leaves which goes on to the next one.
fn move_stack_pointer(instruction: Instruction, state: &mut State<'_>) -> Result<(), ExecuteError> {
    if let Some(access) = Access::of(instruction) {
        return access.move_stack_pointer(SP, state);
    }
    if !names_stack_pointer(instruction) || is_trap(instruction) {
        return Ok(());
    }
    if compute(instruction, state)? || !may_write(instruction, state.is_64()) {
        Ok(())
    } else {
        Err(state.not_supported())
    }
}

/// Does a field that may be a destination say r1? What reads CR must be told exactly, since CR is withheld.
fn names_stack_pointer(Instruction { prefix, word }: Instruction) -> bool {
    match (prefix, word.opcode(), word.extended()) {
        // addpcis; the others write CR.
        (None, 19, extended) => extended & 31 == 2 && word.t() == SP,
        // isel; mfcr; setb, setbc, setbcr, setnbc, setnbcr
        (None, 31, extended) if extended & 31 == 15 => word.t() == SP,
        (None, 31, 19 | 128 | 384 | 416 | 448 | 480) => word.t() == SP,
        _ => word.t() == SP || word.a() == SP,
    }
}

fn is_trap(Instruction { prefix, word }: Instruction) -> bool {
    prefix.is_none() && matches!((word.opcode(), word.extended()), (2 | 3, _) | (31, 4 | 68))
}

/// Of what is not evaluated: may it write the general register that it names as RT or RA?
fn may_write(Instruction { prefix, word }: Instruction, is_64: bool) -> bool {
    if let Some(prefix) = prefix {
        // plq writes RT and the next one.
        return prefix.0 >> 24 & 3 == 0 && word.opcode() == 56;
    }
    match word.opcode() {
        // SPE, of 32-bit CPUs, has many that do; VMX none.
        4 => !is_64,
        // lfsu, lfdu, stfsu, stfdu: RA; lq
        49 | 51 | 53 | 55 | 56 => true,
        31 => indexed_may_write(word),
        _ => false,
    }
}

fn indexed_may_write(word: Word) -> bool {
    !matches!(
        word.extended(),
        // mtmsr, mtmsrd, mtsr, mtsrin, mtspr, mtpmr, mtdcr, mtdcrx
        146 | 178 | 210 | 242 | 467 | 462 | 451 | 387
            // stbcx., sthcx., stwcx., stdcx., stqcx.
            | 694 | 726 | 150 | 214 | 182
            // External PID and cache-inhibited stores: stbepx, sthepx, stwepx, stdepx, stbcix, sthcix, stwcix, stdcix.
            | 223 | 415 | 159 | 157 | 981 | 949 | 917 | 1013
            // stwat, stdat, stswi, stswx
            | 710 | 742 | 725 | 661
            // mtvsrd, mtvsrwa, mtvsrwz, mtvsrws, mtvsrdd
            | 179 | 211 | 243 | 403 | 435
            // tlbie, tlbiel, slbie, slbieg, slbmte, slbia, slbsync, tlbivax, tlbilx, tlbwe, tlbre, tlbsx, wrtee, wrteei
            | 306 | 274 | 434 | 466 | 402 | 498 | 338 | 786 | 18 | 978 | 914 | 131 | 163
            // msgsnd, msgclr, msgsndp, msgclrp, wait
            | 206 | 238 | 142 | 174 | 30
            // dcbz, dcbi, dcba, dcbtls, dcbtstls, icbt, icbtls, dcblc, icblc
            | 1014 | 470 | 758 | 166 | 134 | 22 | 486 | 390 | 230
            // VMX and floating point: lvx and so on; lfsx, lfdx, lfiwax, lfiwzx, lfdpx and the stores.
            | 7 | 39 | 71 | 103 | 359 | 135 | 167 | 199 | 231 | 487 | 6 | 38
            | 535 | 599 | 855 | 887 | 791 | 663 | 727 | 983 | 919
            // VSX: lxvd2x, lxvw4x, lxsdx, lxvdsx, lxsspx, lxsiwzx, lxsiwax, lxvx, lxvl and the stores.
            | 844 | 780 | 588 | 332 | 524 | 12 | 76 | 268 | 269 | 301 | 812 | 876 | 781 | 813 | 364
            | 972 | 908 | 716 | 652 | 140 | 396 | 397 | 429 | 940 | 1004 | 909 | 941
            // hashst, hashchk
            | 722 | 754 | 658 | 690
    )
}

/// Nothing about successors but the errors `Fault` and `Register` hangs on values, save for quotients: an evaluation with any
/// shows it.
pub(super) fn are_known(isa: &Powerpc, slot: &InsnSlot, addr: GuestAddr) -> bool {
    evaluate(isa, slot, addr, &mut Blank).is_ok()
}
