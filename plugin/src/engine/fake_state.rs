//! The registers and the memory of a guest without QEMU.

use std::cell::Cell;

use qkprobe_arch::{GuestAddr, RegisterId};
use qkprobe_lang::Space;

use super::context::GuestState;
use super::fake::arch;

/// Four kernel stacks side by side.
pub(crate) const STACKS: u64 = 0xffff_c900_0000_0000;
const STACK_BYTES: usize = 4 * 0x4000;

/// Registers hold their index at first. Memory below 0x1000 faults, `hello` lies at 0x7000, the stacks are memory, zeroes
/// elsewhere, which nobody can write.
#[derive(Debug)]
pub(crate) struct FakeState {
    registers: Box<[Cell<u64>]>,
    stacks: Box<[Cell<u8>]>,
    /// What QEMU's own program counter says, if anything.
    pub(crate) block_pc: Cell<Option<u64>>,
    /// The first byte that is a device's.
    pub(crate) devices: Cell<u64>,
}

impl FakeState {
    fn new(cs: u64) -> Self {
        let all = 0..arch().registers().len() as u64;
        let registers = all.map(|index| Cell::new(0x7000 + index * 0x1_0000)).collect();
        let state = Self {
            registers,
            stacks: (0..STACK_BYTES).map(|_| Cell::new(0)).collect(),
            block_pc: Cell::new(None),
            devices: Cell::new(u64::MAX),
        };
        state.set("si", 0x7000);
        state.set("cs", cs);
        state
    }

    /// In the kernel.
    pub(crate) fn kernel() -> Self {
        Self::new(0x10)
    }

    /// In a user program.
    pub(crate) fn user() -> Self {
        Self::new(0x33)
    }

    pub(crate) fn set(&self, name: &str, value: u64) {
        let id = arch().register(name).expect("a register");
        self.registers[usize::from(id.0)].set(value);
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        let id = arch().register(name).expect("a register");
        self.registers[usize::from(id.0)].get()
    }

    /// Sets a word of a stack.
    pub(crate) fn poke(&self, addr: u64, value: u64) {
        assert!(self.write(Space::Kernel, GuestAddr(addr), &value.to_le_bytes()), "{addr:#x} is no stack's");
    }

    pub(crate) fn peek(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.read(Space::Kernel, GuestAddr(addr), &mut bytes), "{addr:#x} faults");
        u64::from_le_bytes(bytes)
    }

    /// A call is done: the stack pointer is at the return address.
    pub(crate) fn call(&self, back: u64) {
        let sp = self.get("sp") - 8;
        self.set("sp", sp);
        self.poke(sp, back);
    }

    /// A return is done; gives where it went.
    pub(crate) fn ret(&self) -> u64 {
        let sp = self.get("sp");
        self.set("sp", sp + 8);
        self.peek(sp)
    }

    fn stack(&self, addr: u64, len: usize) -> Option<&[Cell<u8>]> {
        let start = usize::try_from(addr.checked_sub(STACKS)?).ok()?;
        self.stacks.get(start..start.checked_add(len)?)
    }
}

impl GuestState for FakeState {
    fn register(&self, id: RegisterId) -> Option<u64> {
        if arch().block_pc() == Some(id) {
            return self.block_pc.get();
        }
        self.registers.get(usize::from(id.0)).map(Cell::get)
    }

    fn set_register(&self, id: RegisterId, value: u64) -> bool {
        let register = self.registers.get(usize::from(id.0));
        register.map(|register| register.set(value)).is_some()
    }

    fn read(&self, _space: Space, addr: GuestAddr, out: &mut [u8]) -> bool {
        if addr.0 < 0x1000 {
            return false;
        }
        if let Some(stack) = self.stack(addr.0, out.len()) {
            out.iter_mut().zip(stack).for_each(|(byte, cell)| *byte = cell.get());
            return true;
        }
        for (offset, byte) in out.iter_mut().enumerate() {
            *byte = match addr.0.wrapping_add(offset as u64) {
                at @ 0x7000..0x7005 => b"hello"[(at - 0x7000) as usize],
                _ => 0,
            };
        }
        true
    }

    fn write(&self, _space: Space, addr: GuestAddr, bytes: &[u8]) -> bool {
        let stack = self.stack(addr.0, bytes.len());
        stack.map(|stack| bytes.iter().zip(stack).for_each(|(byte, cell)| cell.set(*byte))).is_some()
    }

    fn is_ram(&self, addr: GuestAddr) -> bool {
        addr.0 >= 0x1000 && addr.0 < self.devices.get()
    }
}
