//! `pt_regs` names in the kernel's order, and QEMU's registers behind them; then this project's additions.

use super::mode::Mode;
use crate::{Register, RegisterId, RegisterSource, Role};

const fn reg(name: &'static str, qemu: &'static str, bytes: u8, role: Role) -> Register {
    Register { name, bytes, source: RegisterSource::Qemu { name: qemu, feature: None }, role }
}

/// Not in a system call, as a breakpoint-based kprobe shows it: -1.
const fn orig_ax(bytes: u8) -> Register {
    let source = RegisterSource::Constant(u64::MAX >> (64 - 8 * bytes));
    Register { name: "orig_ax", bytes, source, role: Role::Other }
}

const fn ip(bytes: u8) -> Register {
    Register { name: "ip", bytes, source: RegisterSource::ProbeAddress, role: Role::ProgramCounter }
}

/// Where the registers stand in the table of a mode.
#[derive(Debug)]
pub(super) struct Ids {
    /// By their numbers in instructions: ax cx dx bx sp bp si di, and r8 to r15 where there are any.
    pub(super) general: &'static [RegisterId],
    pub(super) cs: RegisterId,
    pub(super) flags: RegisterId,
    pub(super) fs_base: RegisterId,
    pub(super) gs_base: RegisterId,
    pub(super) block_pc: RegisterId,
    /// What of QEMU's must not be set: selectors would not load their descriptors.
    pub(super) fixed: &'static [RegisterId],
    pub(super) ax: RegisterId,
    pub(super) bp: RegisterId,
    pub(super) sp: RegisterId,
}

const fn ids<const N: usize>(indices: [u8; N]) -> [RegisterId; N] {
    let mut ids = [RegisterId(0); N];
    let mut number = 0;
    while number < N {
        ids[number] = RegisterId(indices[number]);
        number += 1;
    }
    ids
}

const GENERAL_64: [RegisterId; 16] = ids([10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0]);
const FIXED_64: [RegisterId; 5] = ids([17, 20, 21, 22, 23]);
static IDS_64: Ids = Ids {
    general: &GENERAL_64,
    cs: RegisterId(17),
    flags: RegisterId(18),
    fs_base: RegisterId(21),
    gs_base: RegisterId(22),
    block_pc: RegisterId(23),
    fixed: &FIXED_64,
    ax: GENERAL_64[0],
    sp: GENERAL_64[4],
    bp: GENERAL_64[5],
};

const GENERAL_32: [RegisterId; 8] = ids([6, 1, 2, 0, 15, 5, 3, 4]);
const FIXED_32: [RegisterId; 9] = ids([7, 8, 9, 10, 13, 16, 17, 18, 19]);
static IDS_32: Ids = Ids {
    general: &GENERAL_32,
    cs: RegisterId(13),
    flags: RegisterId(14),
    fs_base: RegisterId(17),
    gs_base: RegisterId(18),
    block_pc: RegisterId(19),
    fixed: &FIXED_32,
    ax: GENERAL_32[0],
    sp: GENERAL_32[4],
    bp: GENERAL_32[5],
};

/// The arguments in registers: System V ABI, AMD64 supplement, section 3.2.3.
pub(super) const ARGUMENTS_64: [RegisterId; 6] =
    [GENERAL_64[7], GENERAL_64[6], GENERAL_64[2], GENERAL_64[1], GENERAL_64[8], GENERAL_64[9]];
/// gcc's `-mregparm=3`, with which 32-bit kernels are built (always since v2.6.20).
pub(super) const ARGUMENTS_32: [RegisterId; 3] = [GENERAL_32[0], GENERAL_32[2], GENERAL_32[1]];

/// The names are those of `regoffset_table` (Linux `arch/x86/kernel/ptrace.c`), up to `ss`. QEMU lists segment selectors
/// with 4 bytes. Additions go to the end, so that ids stay.
static REGISTERS_64: [Register; 24] = [
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
    orig_ax(8),
    ip(8),
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

/// The same for 32 bits. Listed so by QEMU's target i386, 10.0 and 11.1.
static REGISTERS_32: [Register; 20] = [
    reg("bx", "ebx", 4, Role::Other),
    reg("cx", "ecx", 4, Role::Argument(3)),
    reg("dx", "edx", 4, Role::Argument(2)),
    reg("si", "esi", 4, Role::Other),
    reg("di", "edi", 4, Role::Other),
    reg("bp", "ebp", 4, Role::Other),
    // The result as well.
    reg("ax", "eax", 4, Role::Argument(1)),
    reg("ds", "ds", 4, Role::Other),
    reg("es", "es", 4, Role::Other),
    reg("fs", "fs", 4, Role::Other),
    reg("gs", "gs", 4, Role::Other),
    orig_ax(4),
    ip(4),
    reg("cs", "cs", 4, Role::Other),
    reg("flags", "eflags", 4, Role::Flags),
    // What the kernel shows: it completes the frame of an exception in kernel mode, which holds no stack pointer.
    reg("sp", "esp", 4, Role::StackPointer),
    reg("ss", "ss", 4, Role::Other),
    reg("fs_base", "fs_base", 4, Role::Other),
    reg("gs_base", "gs_base", 4, Role::Other),
    reg("", "eip", 4, Role::Other),
];

impl Mode {
    pub(super) fn ids(self) -> &'static Ids {
        match self {
            Self::Protected => &IDS_32,
            Self::Long => &IDS_64,
        }
    }

    pub(super) fn registers(self) -> &'static [Register] {
        match self {
            Self::Protected => &REGISTERS_32,
            Self::Long => &REGISTERS_64,
        }
    }

    pub(super) fn find_register(self, name: &str) -> Option<RegisterId> {
        let index = self.registers().iter().position(|register| register.name == name && !name.is_empty())?;
        u8::try_from(index).ok().map(RegisterId)
    }
}
