//! A machine of plain values for the tests of this folder.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::super::X86_64;
use crate::{Arch, Execute, ExecuteError, Executed, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors};

/// Where the tests' instructions lie.
pub(super) const HERE: GuestAddr = GuestAddr(0xffff_ffff_8100_0000);
/// Where `Fake::memory` lies.
pub(super) const MEMORY: u64 = 0xffff_8880_0000_1000;

/// All registers 0, the flags as after reset, 256 bytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fake {
    registers: Vec<Option<u64>>,
    pub(super) memory: Vec<u8>,
    pub(super) is_writable: bool,
    pub(super) is_alone: bool,
    /// The one that cannot be set.
    pub(super) fixed: Option<RegisterId>,
}

fn index(name: &str) -> usize {
    usize::from(X86_64.register(name).expect("a register").0)
}

impl Fake {
    pub(super) fn new() -> Self {
        let registers = vec![Some(0); X86_64.registers().len()];
        let fake = Self { registers, memory: vec![0; 256], is_writable: true, is_alone: true, fixed: None };
        fake.with("flags", 2).with("sp", MEMORY + 0x80)
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

    /// The 64-bit word `offset` bytes into memory.
    pub(super) fn with_word(mut self, offset: usize, value: u64) -> Self {
        self.memory[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn get(&self, name: &str) -> u64 {
        self.registers[index(name)].expect("a value")
    }

    pub(super) fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.memory[offset..offset + 8].try_into().expect("8 bytes"))
    }

    pub(super) fn execute(&mut self, bytes: &[u8]) -> Result<Executed, ExecuteError> {
        let slot = slot(bytes);
        let predicted = X86_64.next_pc(&slot, HERE, self);
        let executed = X86_64.execute(&slot, HERE, self);
        if let Ok(executed) = executed {
            assert_eq!(predicted, Ok(NextPc::At(executed.next)), "{bytes:x?}");
        }
        executed
    }

    /// Executes what completes, and gives how far it went from the instruction's start.
    pub(super) fn distance(&mut self, bytes: &[u8]) -> i64 {
        let executed = self.execute(bytes).unwrap_or_else(|error| panic!("{bytes:x?}: {error}"));
        executed.next.wrapping_offset_from(HERE).cast_signed()
    }

    pub(super) fn next_pc(&mut self, bytes: &[u8]) -> Result<NextPc, ExecuteError> {
        X86_64.next_pc(&slot(bytes), HERE, self)
    }

    pub(super) fn successors(&mut self, bytes: &[u8]) -> Result<Successors, ExecuteError> {
        X86_64.successors(&slot(bytes), HERE, self)
    }

    fn range(&self, GuestAddr(addr): GuestAddr, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(addr.checked_sub(MEMORY)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.memory.len()).then_some(start..end)
    }
}

pub(super) fn slot(bytes: &[u8]) -> InsnSlot {
    let slot = InsnSlot::prepare(&X86_64, HERE, bytes).expect("an instruction");
    assert_eq!(slot.bytes(), bytes, "one instruction");
    slot
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
