//! The System V convention as the 64-bit kernel uses it, privilege, and entry points.

use super::{decode, regs};
use crate::{
    Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, GuestAddr, Insn, Privilege, Register, RegisterId,
};

/// `endbr64`, the landing pad of indirect branches.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What the kernel's `__fentry__` call becomes at boot: a 5-byte nop.
const FENTRY_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// The page of the legacy vsyscalls: user code in the kernel's half.
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;

/// The 64-bit x86 kernel.
#[derive(Debug)]
pub struct X86_64;

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }

    fn word_bytes(&self) -> usize {
        8
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    fn registers(&self) -> &'static [Register] {
        &regs::REGISTERS
    }

    fn register(&self, name: &str) -> Option<RegisterId> {
        regs::find(name)
    }

    fn argument(&self, n: u32) -> Option<ArgumentPlace> {
        Some(match n {
            0 => return None,
            1 => ArgumentPlace::Register(regs::DI),
            2 => ArgumentPlace::Register(regs::SI),
            3 => ArgumentPlace::Register(regs::DX),
            4 => ArgumentPlace::Register(regs::CX),
            5 => ArgumentPlace::Register(regs::R8),
            6 => ArgumentPlace::Register(regs::R9),
            // The return address is the word at the stack pointer; the seventh argument lies above it.
            n => ArgumentPlace::Stack { offset: u64::from(n - 6) * 8 },
        })
    }

    fn return_value(&self) -> RegisterId {
        regs::AX
    }

    fn stack_pointer(&self) -> RegisterId {
        regs::SP
    }

    fn stack_bias(&self) -> u64 {
        0
    }

    fn thread_size(&self) -> u64 {
        16 << 10
    }

    fn entry_skip(&self, text: &[u8]) -> u64 {
        if text.starts_with(&ENDBR64) { ENDBR64.len() as u64 } else { 0 }
    }

    fn decode(&self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
        decode::decode(64, addr, bytes)
    }

    fn check_boundary(&self, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
        decode::check_boundary(64, start, text, offset)
    }

    fn privilege(&self, addr: GuestAddr) -> Privilege {
        // The upper half belongs to the kernel, except for the vsyscall page.
        if addr.0 >> 63 == 1 && addr.0 & !0xfff != VSYSCALL_PAGE { Privilege::Kernel } else { Privilege::AskRegisters }
    }

    fn privilege_register(&self) -> RegisterId {
        regs::CS
    }

    fn is_privileged(&self, value: u64) -> bool {
        // The low two bits of a code segment selector are the current privilege level.
        value & 3 == 0
    }

    fn looks_like_entry(&self, text: &[u8]) -> bool {
        text.starts_with(&ENDBR64) || text.starts_with(&FENTRY_NOP)
    }
}
