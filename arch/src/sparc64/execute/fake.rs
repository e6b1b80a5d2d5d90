//! A machine of plain values for the tests of this folder.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::super::Sparc64;
use crate::{
    Arch, BlockPlace, Execute, ExecuteError, Executed, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors,
};

/// Where the tests' instructions lie.
pub(super) const HERE: u64 = 0x52_0010;
/// Where `Fake::memory` lies.
pub(super) const MEMORY: u64 = 0xffff_f800_1f42_b000;

/// What nPC holds where nobody can rely on it.
const STALE: u64 = 0xdead_0000;

/// All registers 0 but nPC and the stack pointer; 256 bytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fake {
    pub(super) registers: Vec<Option<u64>>,
    pub(super) memory: Vec<u8>,
    pub(super) is_writable: bool,
    pub(super) is_alone: bool,
    pub(super) place: BlockPlace,
}

fn index(name: &str) -> usize {
    let id = Sparc64.register(name).expect("a register");
    usize::from(Sparc64.alias_of(id).unwrap_or(id).0)
}

pub(super) fn slot(word: u32) -> InsnSlot {
    InsnSlot::prepare(&Sparc64, GuestAddr(HERE), &word.to_be_bytes()).expect("an instruction")
}

fn before(word: u32) -> InsnSlot {
    InsnSlot::prepare(&Sparc64, GuestAddr(HERE - 4), &word.to_be_bytes()).expect("an instruction")
}

impl Fake {
    pub(super) fn new() -> Self {
        let registers = vec![Some(0); Sparc64.registers().len()];
        let memory = vec![0; 256];
        let fake = Self { registers, memory, is_writable: true, is_alone: true, place: BlockPlace::Exact };
        fake.with("npc", HERE + 4).with("sp", MEMORY + 0x80 - 2047)
    }

    pub(super) fn with(mut self, name: &str, value: u64) -> Self {
        self.registers[index(name)] = Some(value);
        self
    }

    /// The register cannot be read.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.registers[index(name)] = None;
        self
    }

    /// icc in the low 4 bits of CCR, xcc above.
    pub(super) fn with_ccr(self, ccr: u64) -> Self {
        self.with("tstate", ccr << 32 | 0x80 << 24 | 0x16 << 8)
    }

    /// Behind that instruction in its block: the register nPC is stale.
    pub(super) fn behind(self, word: u32) -> Self {
        self.at(BlockPlace::Behind(before(word)))
    }

    /// The first of its block, translated for this nPC: the register is stale.
    pub(super) fn in_slot(self, npc: u64) -> Self {
        self.at(BlockPlace::Slot { npc: GuestAddr(npc) })
    }

    pub(super) fn at(mut self, place: BlockPlace) -> Self {
        self.place = place;
        self.with("npc", STALE)
    }

    pub(super) fn get(&self, name: &str) -> u64 {
        self.registers[index(name)].expect("a value")
    }

    pub(super) fn ccr(&self) -> u64 {
        self.get("tstate") >> 32
    }

    pub(super) fn execute(&mut self, word: u32) -> Result<Executed, ExecuteError> {
        Sparc64.execute(&slot(word), GuestAddr(HERE), self)
    }

    /// What the instruction leaves, if it completes.
    pub(super) fn after(mut self, word: u32) -> Self {
        self.execute(word).unwrap_or_else(|error| panic!("{word:#010x}: {error}"));
        self
    }

    /// How far it is to the next instruction.
    pub(super) fn goes(&mut self, word: u32) -> i64 {
        match Sparc64.next_pc(&slot(word), GuestAddr(HERE), self) {
            Ok(NextPc::At(next)) => next.0.wrapping_sub(HERE).cast_signed(),
            other => panic!("{word:#010x}: {other:?}"),
        }
    }

    pub(super) fn next_pc(&mut self, word: u32) -> Result<NextPc, ExecuteError> {
        Sparc64.next_pc(&slot(word), GuestAddr(HERE), self)
    }

    pub(super) fn successors(&mut self, word: u32) -> Result<Successors, ExecuteError> {
        Sparc64.successors(&slot(word), GuestAddr(HERE), self)
    }

    /// The distances to the successors, and the stack pointer there.
    pub(super) fn ways(&mut self, word: u32) -> (i64, Option<i64>, u64) {
        let Successors { first, second, sp } =
            self.successors(word).unwrap_or_else(|error| panic!("{word:#010x}: {error}"));
        let distance = |addr: GuestAddr| addr.0.wrapping_sub(HERE).cast_signed();
        (distance(first), second.map(distance), sp)
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(MEMORY)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.memory.len()).then_some(start..end)
    }
}

impl Machine for Fake {
    fn register(&mut self, RegisterId(id): RegisterId) -> Option<u64> {
        self.registers[usize::from(id)]
    }

    fn set_register(&mut self, RegisterId(id): RegisterId, value: u64) -> bool {
        self.registers[usize::from(id)] = Some(value);
        true
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        bytes.copy_from_slice(&self.memory[range]);
        true
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()).filter(|_| self.is_writable) else { return false };
        self.memory[range].copy_from_slice(bytes);
        true
    }

    fn place(&mut self) -> BlockPlace {
        self.place
    }

    fn is_alone(&self) -> bool {
        self.is_alone
    }
}
