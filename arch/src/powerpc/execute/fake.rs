//! A machine of plain values for the tests of this folder.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::powerpc::Powerpc;
use crate::{Arch, Execute, ExecuteError, Executed, GuestAddr, InsnSlot, Machine, NextPc, RegisterId, Successors};

/// Where the tests' instructions lie.
pub(super) const HERE: GuestAddr = GuestAddr(0xc000_0000);
/// Where `Fake::memory` lies.
pub(super) const MEMORY: u64 = 0xc100_1000;

/// All registers 0 but MSR (64-bit mode where there is one) and r1; 256 bytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fake {
    isa: &'static str,
    registers: Vec<Option<u64>>,
    pub(super) memory: Vec<u8>,
    pub(super) is_writable: bool,
    /// How often memory was read.
    pub(super) reads: u32,
    /// The one that cannot be set.
    pub(super) fixed: Option<&'static str>,
}

impl Fake {
    pub(super) fn new(isa: &'static Powerpc) -> Self {
        let registers = vec![Some(0); isa.registers().len()];
        let fake = Self { isa: isa.name(), registers, memory: vec![0; 256], is_writable: true, reads: 0, fixed: None };
        let mode = if isa.is_64 { 1 << 63 } else { 0 };
        fake.with("msr", mode).with("r1", MEMORY + 0x80)
    }

    fn isa(&self) -> &'static dyn Arch {
        crate::by_name(self.isa).expect("an ISA")
    }

    fn execute_ability(&self) -> &'static dyn Execute {
        self.isa().as_execute().expect("the ability")
    }

    fn index(&self, name: &str) -> usize {
        usize::from(self.isa().register(name).expect("a register").0)
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

    pub(super) fn get(&self, name: &str) -> u64 {
        self.registers[self.index(name)].expect("a value")
    }

    pub(super) fn slot(&self, words: &[u32]) -> InsnSlot {
        let bytes: Vec<u8> = words
            .iter()
            .flat_map(|word| match self.isa().byte_order() {
                crate::ByteOrder::Big => word.to_be_bytes(),
                crate::ByteOrder::Little => word.to_le_bytes(),
            })
            .collect();
        let slot = InsnSlot::prepare(self.isa(), HERE, &bytes).expect("an instruction");
        assert_eq!(slot.bytes(), bytes, "one instruction");
        slot
    }

    pub(super) fn execute(&mut self, words: &[u32]) -> Result<Executed, ExecuteError> {
        let slot = self.slot(words);
        let predicted = self.execute_ability().next_pc(&slot, HERE, self);
        let executed = self.execute_ability().execute(&slot, HERE, self);
        if let Ok(executed) = executed {
            assert_eq!(predicted, Ok(NextPc::At(executed.next)), "{words:x?}");
        }
        executed
    }

    /// Executes what completes, and gives where it went.
    pub(super) fn goes_to(&mut self, word: u32) -> u64 {
        self.execute(&[word]).unwrap_or_else(|error| panic!("{word:x}: {error}")).next.0
    }

    pub(super) fn next_pc(&mut self, word: u32) -> Result<NextPc, ExecuteError> {
        let slot = self.slot(&[word]);
        self.execute_ability().next_pc(&slot, HERE, self)
    }

    pub(super) fn successors(&mut self, words: &[u32]) -> Result<Successors, ExecuteError> {
        let slot = self.slot(words);
        self.execute_ability().successors(&slot, HERE, self)
    }

    pub(super) fn has_successor(&self, words: &[u32]) -> bool {
        self.execute_ability().has_successor(&self.slot(words), HERE)
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
        if self.fixed.is_some_and(|name| self.index(name) == usize::from(id)) {
            return false;
        }
        self.registers[usize::from(id)] = Some(value);
        true
    }

    fn read(&mut self, addr: GuestAddr, bytes: &mut [u8]) -> bool {
        self.reads += 1;
        let Some(range) = self.range(addr, bytes.len()) else { return false };
        bytes.copy_from_slice(&self.memory[range]);
        true
    }

    fn write(&mut self, addr: GuestAddr, bytes: &[u8]) -> bool {
        let Some(range) = self.range(addr, bytes.len()).filter(|_| self.is_writable) else { return false };
        self.memory[range].copy_from_slice(bytes);
        true
    }
}
