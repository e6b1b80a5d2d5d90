//! A machine of plain values for the tests of this folder.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::super::{X86, X86_32, X86_64};
use crate::{
    Arch, ByteOrder, Execute, ExecuteError, Executed, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors,
};

/// Where the tests' instructions lie.
pub(super) const HERE: GuestAddr = GuestAddr(0xffff_ffff_8100_0000);
/// Where `Fake::memory` lies.
pub(super) const MEMORY: u64 = 0xffff_8880_0000_1000;
/// Both for 32 bits.
pub(super) const HERE_32: GuestAddr = GuestAddr(0xc100_0000);
pub(super) const MEMORY_32: u64 = 0xc200_1000;

/// All registers 0, the flags as after reset, 256 bytes of memory.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    arch: &'static X86,
    registers: Vec<Option<u64>>,
    pub(super) memory: Vec<u8>,
    pub(super) is_writable: bool,
    pub(super) is_alone: bool,
    /// The one that cannot be set.
    pub(super) fixed: Option<RegisterId>,
}

impl PartialEq for Fake {
    fn eq(&self, other: &Self) -> bool {
        (&self.registers, &self.memory) == (&other.registers, &other.memory)
    }
}

impl Fake {
    /// Of 64 bits.
    pub(super) fn new() -> Self {
        Self::of(&X86_64)
    }

    /// Of 32 bits.
    pub(super) fn new_32() -> Self {
        Self::of(&X86_32)
    }

    fn of(arch: &'static X86) -> Self {
        let registers = vec![Some(0); arch.registers().len()];
        let fake = Self { arch, registers, memory: vec![0; 256], is_writable: true, is_alone: true, fixed: None };
        let sp = fake.memory_start() + 0x80;
        fake.with("flags", 2).with("sp", sp)
    }

    fn index(&self, name: &str) -> usize {
        usize::from(self.arch.register(name).expect("a register").0)
    }

    pub(super) fn here(&self) -> GuestAddr {
        if self.arch.word_bytes() == 8 { HERE } else { HERE_32 }
    }

    fn memory_start(&self) -> u64 {
        if self.arch.word_bytes() == 8 { MEMORY } else { MEMORY_32 }
    }

    pub(super) fn with(mut self, name: &str, value: u64) -> Self {
        let index = self.index(name);
        self.registers[index] = Some(value);
        self
    }

    /// The register cannot be read.
    pub(super) fn without(mut self, name: &str) -> Self {
        let index = self.index(name);
        self.registers[index] = None;
        self
    }

    /// The word `offset` bytes into memory, as wide as an address.
    pub(super) fn with_word(mut self, offset: usize, value: u64) -> Self {
        let bytes = self.arch.word_bytes();
        self.memory[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self
    }

    pub(super) fn get(&self, name: &str) -> u64 {
        self.registers[self.index(name)].expect("a value")
    }

    pub(super) fn word(&self, offset: usize) -> u64 {
        ByteOrder::Little.number(&self.memory[offset..offset + self.arch.word_bytes()])
    }

    pub(super) fn slot(&self, bytes: &[u8]) -> InsnSlot {
        let slot = InsnSlot::prepare(self.arch, self.here(), bytes).expect("an instruction");
        assert_eq!(slot.bytes(), bytes, "one instruction");
        slot
    }

    pub(super) fn execute(&mut self, bytes: &[u8]) -> Result<Executed, ExecuteError> {
        let (slot, here) = (self.slot(bytes), self.here());
        let predicted = self.arch.next_pc(&slot, here, self);
        let executed = self.arch.execute(&slot, here, self);
        if let Ok(executed) = executed {
            assert_eq!(predicted, Ok(NextPc::At(executed.next)), "{bytes:x?}");
        }
        executed
    }

    /// Executes what completes, and gives how far it went from the instruction's start.
    pub(super) fn distance(&mut self, bytes: &[u8]) -> i64 {
        let executed = self.execute(bytes).unwrap_or_else(|error| panic!("{bytes:x?}: {error}"));
        executed.next.wrapping_offset_from(self.here()).cast_signed()
    }

    pub(super) fn next_pc(&mut self, bytes: &[u8]) -> Result<NextPc, ExecuteError> {
        self.arch.next_pc(&self.slot(bytes), self.here(), self)
    }

    pub(super) fn successors(&mut self, bytes: &[u8]) -> Result<Successors, ExecuteError> {
        self.arch.successors(&self.slot(bytes), self.here(), self)
    }

    pub(super) fn has_successor(&self, bytes: &[u8]) -> bool {
        self.arch.has_successor(&self.slot(bytes), self.here())
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(self.memory_start())?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.memory.len()).then_some(start..end)
    }
}

/// Of 64 bits.
pub(super) fn slot(bytes: &[u8]) -> InsnSlot {
    Fake::new().slot(bytes)
}

impl Machine for Fake {
    fn register(&mut self, RegisterId(id): RegisterId) -> Option<u64> {
        self.registers[usize::from(id)]
    }

    fn set_register(&mut self, id: RegisterId, value: u64) -> bool {
        if self.fixed == Some(id) {
            return false;
        }
        self.registers[usize::from(id.0)] = Some(value);
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

    fn is_alone(&self) -> bool {
        self.is_alone
    }
}
