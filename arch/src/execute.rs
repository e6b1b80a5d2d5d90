//! Out-of-line evaluation of a slot, an optional ability of an ISA: where an instruction goes (`next_pc`), and what it
//! leaves behind (`execute`), computed from the copy, without the guest running it.
//!
//! The kernel emulates some instructions of its probes too, and gets a few wrong (`loop`, `ret $16`, `cs call` on x86):
//! here the guest must find what it would have found without a probe.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::{Arch, DecodeError, GuestAddr, InsnSlot, RegisterId};

/// The registers and the memory that an instruction is evaluated against: the stopped vCPU, or a copy of its state.
///
/// `Execute::next_pc` only reads. `Execute::execute` reads all it needs before it changes anything.
pub trait Machine {
    /// The value of a register, zero-extended; `None` when it is not to be had. A machine whose flags are not what the
    /// guest would read (QEMU computes arithmetic flags lazily: at a hit they may be stale) says `None` for the flags
    /// register, at least for an instruction of which `Execute::reads_flags` is true.
    fn register(&mut self, id: RegisterId) -> Option<u64>;

    /// Sets a register; false when that is impossible, and then the register is as before. The program counter is
    /// never set: it is returned.
    fn set_register(&mut self, id: RegisterId, value: u64) -> bool;

    /// Fills `bytes` from memory; false on a fault. An access may lie across a page's end.
    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool;

    /// Writes all of `bytes`, or says false and writes none.
    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool;

    /// Where the evaluated instruction lies in its translated block: on an ISA with delay slots that tells where it
    /// goes. A machine whose next program counter may be stale must say it.
    fn place(&mut self) -> BlockPlace {
        BlockPlace::Exact
    }

    /// Whether nobody else touches memory while an instruction is evaluated: all other vCPUs stand still, or this is a
    /// copy. Read-modify-write instructions that the guest relies on to be atomic are refused otherwise.
    fn is_alone(&self) -> bool {
        false
    }
}

/// Where an instruction lies in the block that the machine has translated it in. A SPARC's next program counter is a part
/// of the block's identity in QEMU, and the register is stale wherever one block jumps straight to the next. But while a block
/// is translated the register is exact, for its first instruction; and it goes on only where execution does, which tells of
/// the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockPlace {
    /// The machine's registers are all exact, the next program counter included: this is a copy of a state.
    #[default]
    Exact,
    /// Right behind this instruction, in the same block.
    Behind(InsnSlot),
    /// The first one of its block, in no delay slot.
    First,
    /// The first one of its block, in the delay slot of a transfer at the end of another (or at the target of the first of
    /// two transfers that follow one another): then this is where execution goes.
    Slot {
        /// The next program counter.
        npc: GuestAddr,
    },
    /// Behind an instruction of its block that cannot be read any more.
    Unknown,
}

/// Zeroes wherever one looks, outside of delay slots; not alone, as a guest is not. For what does not hang on values.
pub(crate) struct Blank;

impl Machine for Blank {
    fn register(&mut self, _: RegisterId) -> Option<u64> {
        Some(0)
    }

    fn set_register(&mut self, _: RegisterId, _: u64) -> bool {
        false
    }

    fn read(&mut self, _: GuestAddr, bytes: &mut [u8]) -> bool {
        bytes.fill(0);
        true
    }

    fn write(&mut self, _: GuestAddr, _: &[u8]) -> bool {
        false
    }

    fn place(&mut self) -> BlockPlace {
        BlockPlace::First
    }
}

/// Where execution goes after an instruction that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPc {
    /// To this address.
    At(GuestAddr),
    /// It traps on purpose: a breakpoint, a software interrupt, a system or hypervisor call, an undefined instruction.
    /// What runs next is not the registers' and the memory's to say alone.
    Leaves,
}

/// Where execution can be after an instruction that completes, and the stack pointer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successors {
    /// The one place; of a conditional branch, the taken target, or the delay slot that executes if it is taken; of what
    /// may be a delay slot, the target of the transfer before it.
    pub first: GuestAddr,
    /// Of a conditional branch, the next instruction, when that is another place.
    pub second: Option<GuestAddr>,
    /// The stack pointer that the instruction leaves, the same at both places.
    pub sp: u64,
}

/// What `Execute::execute` did besides the registers and the memory that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The next program counter.
    pub next: GuestAddr,
    /// The bits of the flags register that the ISA's manual leaves undefined after this instruction, or that CPU models
    /// set differently. A comparison must mask them: they are as they were, or as one of the models sets them.
    pub undefined_flags: u64,
}

/// Why an instruction was not evaluated. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// Not of the classes that are evaluated; or it raises an exception other than a fault with these operands (a
    /// division by 0), or leaves a register undefined; or atomic, and the machine is not alone. The kernel's errno:
    /// EOPNOTSUPP.
    #[error("the instruction at {addr} cannot be executed out of line")]
    NotSupported {
        /// The instruction.
        addr: GuestAddr,
    },
    /// Memory that the instruction accesses is not mapped, or not writable: where it runs, it faults. EFAULT.
    #[error("the instruction faults at {addr}")]
    Fault {
        /// The first byte of the access.
        addr: GuestAddr,
    },
    /// The machine does not show the register, or does not let it be changed.
    #[error("the register {name} is not available")]
    Register {
        /// Its name in `Arch::registers`.
        name: &'static str,
    },
    /// The slot holds no instruction of this ISA. EILSEQ.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The ability itself. `addr` is where the original lies, so that relative operands mean what they mean there.
///
/// Faults are found where memory is read or written. What else an instruction may raise (a non-canonical target, an
/// alignment check, control-flow enforcement) is not evaluated: the answer is for the instruction that completes.
pub trait Execute: Arch {
    /// An instruction that does nothing: what `replace = "nop"` puts into a slot.
    fn nop(&self) -> &'static [u8];

    /// Does QEMU show the flags register at a hit as the guest would read it, and keep it when a plugin sets the program
    /// counter? Then the flags are registers like the others, and nothing need be left out because of `reads_flags` or of flags
    /// that are not dead.
    fn flags_are_exact(&self) -> bool {
        false
    }

    /// Does the result depend on flags that earlier instructions computed (a conditional branch or move, an addition
    /// with carry, an instruction that keeps a part of them)? If so, the machine's flags must be exact. Where they always are,
    /// false is as good an answer.
    fn reads_flags(&self, slot: &InsnSlot, addr: GuestAddr) -> bool;

    /// Where execution goes after the instruction. Exact for every control transfer that goes on, near or far, a return
    /// from an interrupt or to the user included; it reads the registers and the memory: call it before the instruction
    /// runs. A conditional branch reads the flags register too, see `reads_flags`. An instruction that repeats goes to
    /// the next one once it has finished, and so does one that waits for an interrupt.
    ///
    /// # Errors
    /// `Fault` when the target lies in memory that cannot be read; `Register` when the machine withholds a register;
    /// `NotSupported` when the target hangs on more than registers and memory (transactions); in a delay slot, when the
    /// transfer before it has overwritten what told where it leads; and when the machine's `place` leaves open whether
    /// this is one.
    fn next_pc(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<NextPc, ExecuteError>;

    /// Where ISAs have a register for it: the next program counter while the instruction at `addr` is about to run. It
    /// is the address behind the instruction unless this is a delay slot. There an instruction must not be skipped or
    /// replaced, because QEMU forgets the transfer when a plugin sets the program counter; elsewhere a skipped transfer
    /// skips only itself, and its delay slot runs like any other instruction. `Ok(None)` on other ISAs.
    ///
    /// # Errors
    /// As `next_pc` in a delay slot.
    fn npc(&self, _addr: GuestAddr, _machine: &mut dyn Machine) -> Result<Option<GuestAddr>, ExecuteError> {
        Ok(None)
    }

    /// Where execution can go after the instruction, and the stack pointer that it leaves. Unlike `next_pc` it needs no
    /// flags, which may be stale at a hit, and never reads that register: of a conditional branch it gives both places.
    /// Only what decides is read: no memory for an instruction whose target and stack pointer the registers tell. Changes
    /// nothing. Call it before the instruction runs.
    ///
    /// # Errors
    /// `NotSupported` for what traps on purpose, and where the stack pointer hangs on flags or on an instruction that
    /// is not evaluated: what `has_successor` denies; and in some delay slots, as `next_pc`. `Fault` and `Register` as the
    /// machine says.
    fn successors(
        &self,
        slot: &InsnSlot,
        addr: GuestAddr,
        machine: &mut dyn Machine,
    ) -> Result<Successors, ExecuteError>;

    /// Whether `successors` can answer for the instruction, whatever the registers and the memory hold. A delay slot is judged
    /// as if it were none.
    fn has_successor(&self, slot: &InsnSlot, addr: GuestAddr) -> bool;

    /// Whether nothing reads the arithmetic flags that hold at `addr` before they are all overwritten, as far as the text
    /// from `addr` on proves: a walk over straight-line code and direct jumps within `text`, which begins at `addr`. At
    /// a call, a return, an indirect jump and a jump out of `function` (the addresses of the function that `addr` is in,
    /// empty if nobody knows) the flags are dead by the calling convention. False means "not proved":
    /// something reads them, or branches, or traps, or the walk left the text or found no end.
    fn flags_dead_after(&self, text: &[u8], addr: GuestAddr, function: &std::ops::Range<u64>) -> bool;

    /// Executes the instruction: changes registers and memory as it would, all or nothing.
    ///
    /// # Errors
    /// `NotSupported` for the classes that are not evaluated, among them all for which `next_pc` says `Leaves`
    /// and all far transfers; `Fault` and `Register` as the machine says.
    fn execute(&self, slot: &InsnSlot, addr: GuestAddr, machine: &mut dyn Machine) -> Result<Executed, ExecuteError>;
}
