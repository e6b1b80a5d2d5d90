//! `pt_regs` names of x86_64, in the kernel's order, and QEMU's registers behind them; then this project's additions.

use crate::{Register, RegisterId, RegisterSource, Role};

const fn reg(name: &'static str, qemu: &'static str, bytes: u8, role: Role) -> Register {
    Register { name, bytes, source: RegisterSource::Qemu { name: qemu, feature: None }, role }
}

pub(super) const R15: RegisterId = RegisterId(0);
pub(super) const R14: RegisterId = RegisterId(1);
pub(super) const R13: RegisterId = RegisterId(2);
pub(super) const R12: RegisterId = RegisterId(3);
pub(super) const BP: RegisterId = RegisterId(4);
pub(super) const BX: RegisterId = RegisterId(5);
pub(super) const R11: RegisterId = RegisterId(6);
pub(super) const R10: RegisterId = RegisterId(7);
pub(super) const R9: RegisterId = RegisterId(8);
pub(super) const R8: RegisterId = RegisterId(9);
pub(super) const AX: RegisterId = RegisterId(10);
pub(super) const CX: RegisterId = RegisterId(11);
pub(super) const DX: RegisterId = RegisterId(12);
pub(super) const SI: RegisterId = RegisterId(13);
pub(super) const DI: RegisterId = RegisterId(14);
pub(super) const CS: RegisterId = RegisterId(17);
pub(super) const FLAGS: RegisterId = RegisterId(18);
pub(super) const SP: RegisterId = RegisterId(19);
pub(super) const SS: RegisterId = RegisterId(20);
pub(super) const FS_BASE: RegisterId = RegisterId(21);
pub(super) const GS_BASE: RegisterId = RegisterId(22);
pub(super) const BLOCK_PC: RegisterId = RegisterId(23);

/// The names are those of `regoffset_table` (Linux `arch/x86/kernel/ptrace.c`), up to `ss`. QEMU lists segment selectors
/// with 4 bytes. Additions go to the end, so that ids stay.
pub(super) static REGISTERS: [Register; 24] = [
    reg("r15", "r15", 8, Role::Other),
    reg("r14", "r14", 8, Role::Other),
    reg("r13", "r13", 8, Role::Other),
    reg("r12", "r12", 8, Role::Other),
    reg("bp", "rbp", 8, Role::Other),
    reg("bx", "rbx", 8, Role::Other),
    reg("r11", "r11", 8, Role::Other),
    reg("r10", "r10", 8, Role::Other),
    reg("r9", "r9", 8, Role::Argument(6)),
    reg("r8", "r8", 8, Role::Argument(5)),
    reg("ax", "rax", 8, Role::ReturnValue),
    reg("cx", "rcx", 8, Role::Argument(4)),
    reg("dx", "rdx", 8, Role::Argument(3)),
    reg("si", "rsi", 8, Role::Argument(2)),
    reg("di", "rdi", 8, Role::Argument(1)),
    // Not in a system call, as a breakpoint-based kprobe shows it.
    Register { name: "orig_ax", bytes: 8, source: RegisterSource::Constant(u64::MAX), role: Role::Other },
    Register { name: "ip", bytes: 8, source: RegisterSource::ProbeAddress, role: Role::ProgramCounter },
    reg("cs", "cs", 4, Role::Other),
    reg("flags", "eflags", 4, Role::Flags),
    reg("sp", "rsp", 8, Role::StackPointer),
    reg("ss", "ss", 4, Role::Other),
    // In no `pt_regs`: where `%fs:` and `%gs:` (the kernel's per-CPU data) point.
    reg("fs_base", "fs_base", 8, Role::Other),
    reg("gs_base", "gs_base", 8, Role::Other),
    // Without a name, because its value is none that a user could want: see `Arch::block_pc`.
    reg("", "rip", 8, Role::Other),
];

pub(super) fn find(name: &str) -> Option<RegisterId> {
    let index = REGISTERS.iter().position(|register| register.name == name && !name.is_empty())?;
    u8::try_from(index).ok().map(RegisterId)
}
