//! A definition's arguments, compiled: which registers to read, which pointers to follow, and where each value goes
//! in the record.
//!
//! # The record
//! What `Program::run` writes, in this order:
//!
//! 1. The fault bitmap: one bit per element, least significant bit of the first byte first. An argument has one
//!    element, an array of N has N, a constant string has none. A set bit says that the element could not be read,
//!    and that its field is 0.
//! 2. The fixed fields, packed, in the order of the arguments: numbers of 1, 2, 4 or 8 bytes; per string, two 16-bit
//!    numbers: where it starts, counted from the record's start, and its length. All little-endian, on any host.
//! 3. The strings' bytes, without NUL.
//!
//! A constant string is not stored: it is in the definition.

mod compile;
mod exec;
mod record;

pub(crate) use compile::{Input, compile};
pub(crate) use record::{Element, element, elements, whole};

use qkprobe_arch::{ByteOrder, GuestAddr, RegisterId};

use crate::arg::{Bits, Deref, TypeKind};

/// The page that no single memory access crosses.
pub const PAGE_BYTES: u64 = 4096;
/// Most bytes of a string, as in the kernel; one of them is its NUL, which is not stored.
pub const MAX_STRING_BYTES: usize = 4096;
/// Most bytes of all strings of one record together. Later strings are cut.
pub const MAX_TAIL_BYTES: usize = 56 << 10;

/// Which memory a pointer means. They differ on guests whose user and kernel address spaces overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The kernel's.
    Kernel,
    /// The current user process's.
    User,
}

/// The guest at a hit.
pub trait HitContext {
    /// A register's value; `None` where there is none.
    fn register(&mut self, id: RegisterId) -> Option<u64>;

    /// Fills `out` from guest memory, all or nothing. The access never crosses a page of `PAGE_BYTES`.
    fn read(&mut self, space: Space, addr: GuestAddr, out: &mut [u8]) -> bool;

    /// The runtime address of a linked address of the kernel image; `None` while the slide is unknown.
    fn slide(&mut self, addr: GuestAddr) -> Option<GuestAddr>;

    /// Word `index` of what the entry program of a return probe saved; see `Definition::entry`.
    fn saved(&mut self, index: usize) -> Option<u64> {
        let _ = index;
        None
    }

    /// Where the guest goes after the probed instruction, as a runtime address; `None` where that is not known.
    fn next_pc(&mut self) -> Option<u64> {
        None
    }

    /// Nanoseconds from the function's entry to its return; only at a return.
    fn latency(&mut self) -> Option<u64> {
        None
    }

    /// The time of the function's entry in nanoseconds, by the clock of the records; only at a return.
    fn entry_time(&mut self) -> Option<u64> {
        None
    }
}

/// Where a field's innermost value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    /// The register in this slot of `Program::registers`.
    Register(u8),
    /// The word `offset` bytes above the stack pointer, which is in this slot.
    Stack {
        slot: u8,
        offset: u64,
    },
    Constant(u64),
    /// A linked address of the image.
    Image(GuestAddr),
    /// A word of the entry program.
    Saved(u16),
    NextPc,
    Latency,
    EntryTime,
}

/// The last step of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// The value itself.
    Value,
    /// Numbers in memory.
    Memory(Deref),
    /// A string in memory, or at a constant address.
    String(Deref),
    /// An array of pointers to strings.
    Strings { pointers: Deref, space: Space },
    /// Nothing: a constant string.
    Nothing,
}

/// One argument, ready to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    operand: Operand,
    store: Store,
    pub(crate) kind: TypeKind,
    /// Bytes of one element in the record; 4 for strings.
    pub(crate) bytes: u8,
    bits: Option<Bits>,
    pub(crate) count: u8,
    pub(crate) is_array: bool,
    /// Pointers to follow before the last step: so many of `Program::derefs`, from `first_deref` on.
    first_deref: u16,
    derefs: u16,
    /// Offset in the record.
    pub(crate) offset: u16,
    /// Index of the first element's bit in the fault bitmap.
    pub(crate) first_element: u16,
}

/// A definition's arguments, compiled.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) fields: Box<[Field]>,
    derefs: Box<[Deref]>,
    registers: Box<[RegisterId]>,
    bitmap_bytes: usize,
    fixed_len: usize,
    max_len: usize,
    word_bytes: usize,
    order: ByteOrder,
    /// All bits of an address.
    pub(crate) mask: u64,
    stack_bias: u64,
    thread_size: u64,
}

impl Program {
    /// The most bytes that `run` writes.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// The registers that `run` asks for, each once.
    #[must_use]
    pub fn registers(&self) -> &[RegisterId] {
        &self.registers
    }

    /// The guest's byte order.
    pub(crate) fn order(&self) -> ByteOrder {
        self.order
    }

    /// Bytes of the guest's word.
    pub(crate) fn word_bytes(&self) -> u8 {
        if self.word_bytes >= 8 { 8 } else { 4 }
    }

    /// Whether the program has no arguments.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether `run` asks for `HitContext::next_pc`.
    #[must_use]
    pub fn needs_next_pc(&self) -> bool {
        self.fields.iter().any(|field| field.operand == Operand::NextPc)
    }

    /// Whether `run` asks for `HitContext::latency` or `HitContext::entry_time`: the entry's time must be kept.
    #[must_use]
    pub fn needs_entry_time(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.operand, Operand::Latency | Operand::EntryTime))
    }

    /// Whether `run` reads guest memory.
    #[must_use]
    pub fn reads_memory(&self) -> bool {
        self.fields.iter().any(|field| {
            field.derefs > 0
                || matches!(field.operand, Operand::Stack { .. })
                || matches!(field.store, Store::Memory(_) | Store::String(_) | Store::Strings { .. })
        })
    }
}
