//! The System V convention as the 64-bit kernel uses it, privilege, and entry points.

use super::{decode, regs};
use crate::{
    Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, Execute, GuestAddr, Insn, InsnSlot, Privilege,
    Register, RegisterId, RegisterSource, ReturnPlace, Role,
};

/// The landing pad of indirect branches, in the forms that the kernel's `is_endbr` accepts (`arch/x86/include/asm/ibt.h`).
/// At boot the kernel seals the pads of functions whose address nobody takes, so text in memory differs from the image.
const LANDING_PADS: [[u8; 4]; 4] = [
    // endbr64, endbr32
    [0xf3, 0x0f, 0x1e, 0xfa],
    [0xf3, 0x0f, 0x1e, 0xfb],
    // Sealed: `data16 nopl (%rax)`, in newer kernels `nopl -42(%rax)`.
    [0x66, 0x0f, 0x1f, 0x00],
    [0x0f, 0x1f, 0x40, 0xd6],
];
/// What the kernel's `__fentry__` call becomes at boot: a 5-byte nop.
const FENTRY_NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// The page of the legacy vsyscalls: user code in the kernel's half.
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;

/// `do_task_dead` (since v4.9) schedules for the last time. `do_exit`, which calls it, is pending like any other until then.
const TASK_END: [&str; 1] = ["do_task_dead"];
/// Since Linux kernel commit 3aec4ecb3d1f ("x86: Rewrite ret_from_fork() in C") (in v6.5) the assembly that a new task
/// starts with is `ret_from_fork_asm`, and `ret_from_fork` a C function that it calls, with its return address on the
/// stack; before, `ret_from_fork` is the assembly.
const TASK_START: [&str; 2] = ["ret_from_fork_asm", "ret_from_fork"];

fn is_memory_operand(kind: iced_x86::OpKind) -> bool {
    use iced_x86::OpKind::{
        Memory, MemoryESDI, MemoryESEDI, MemoryESRDI, MemorySegDI, MemorySegEDI, MemorySegESI, MemorySegRDI,
        MemorySegRSI, MemorySegSI,
    };
    matches!(
        kind,
        Memory
            | MemoryESDI
            | MemoryESEDI
            | MemoryESRDI
            | MemorySegDI
            | MemorySegEDI
            | MemorySegESI
            | MemorySegRDI
            | MemorySegRSI
            | MemorySegSI
    )
}

const TRAP_FLAG: u64 = 1 << 8;

/// The 64-bit x86 kernel.
#[derive(Debug)]
pub struct X86_64;

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }

    fn target(&self) -> &'static str {
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

    fn return_place(&self) -> ReturnPlace {
        ReturnPlace::Stack
    }

    fn sp_after_return(&self, sp_at_entry: u64) -> u64 {
        sp_at_entry.wrapping_add(8)
    }

    fn is_restart(&self, sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
        // Intel SDM volume 3, section 6.14.2, "64-Bit Mode Stack Frame": the stack pointer is aligned down to 16; then SS,
        // RSP, RFLAGS, CS, RIP are pushed, 8 bytes each and whatever the privilege was, and then an error code, if any.
        let frame = GuestAddr((sp & !15).wrapping_sub(5 * 8));
        // A debug trap after the instruction before pushes the same RIP; it is told by TF.
        let stepped = |flags: u64| flags & TRAP_FLAG != 0;
        word(frame) == Some(addr.0) && word(frame.wrapping_add(2 * 8)).is_some_and(|flags| !stepped(flags))
    }

    fn exception_keeps_sp(&self) -> bool {
        true
    }

    fn block_pc(&self) -> Option<RegisterId> {
        // QEMU's target/i386/tcg (CF_PCREL) keeps eip exact at a block's start, and computes from there inside.
        Some(regs::BLOCK_PC)
    }

    fn may_restart(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        // `lea` and long nops only look as if they accessed memory.
        decode::instruction(64, addr, slot.bytes()).map_or(true, |instruction| {
            use iced_x86::Mnemonic;
            let has_memory = (0..instruction.op_count()).any(|n| is_memory_operand(instruction.op_kind(n)));
            let accesses = has_memory && !matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
            accesses || instruction.is_stack_instruction()
        })
    }

    fn task_end_symbols(&self) -> &'static [&'static str] {
        &TASK_END
    }

    fn task_start_symbols(&self) -> &'static [&'static str] {
        &TASK_START
    }

    fn writable(&self, id: RegisterId) -> bool {
        let Some(register) = regs::REGISTERS.get(usize::from(id.0)) else { return false };
        // Setting the program counter aborts QEMU 11.1; selectors would not load their descriptors.
        let fixed = [regs::CS, regs::SS, regs::FS_BASE, regs::GS_BASE, regs::BLOCK_PC];
        matches!(register.source, RegisterSource::Qemu { .. })
            && register.role != Role::ProgramCounter
            && !fixed.contains(&id)
    }

    fn entry_skip(&self, text: &[u8]) -> u64 {
        landing_pad(text).map_or(0, |pad| pad.len() as u64)
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

    fn is_user_address(&self, addr: GuestAddr) -> bool {
        addr.0 >> 63 == 0
    }

    fn image_region(&self) -> std::ops::RangeInclusive<u64> {
        // Linux Documentation/arch/x86/x86_64/mm.rst: "kernel text mapping, mapped to physical address 0"; modules and
        // JITed BPF follow at ffffffffc0000000 (with KASLR).
        0xffff_ffff_8000_0000..=0xffff_ffff_bfff_ffff
    }

    fn privilege_register(&self) -> RegisterId {
        regs::CS
    }

    fn is_privileged(&self, value: u64) -> bool {
        // The low two bits of a code segment selector are the current privilege level.
        value & 3 == 0
    }

    fn as_execute(&self) -> Option<&dyn Execute> {
        Some(self)
    }

    fn is_device(&self, physical: u64) -> bool {
        // The PC's map (Linux arch/x86/kernel/e820.c shows it at boot): video memory and option ROMs below 1 MiB, devices in
        // the last GiB below 4 GiB.
        matches!(physical, 0xa_0000..0x10_0000 | 0xc000_0000..0x1_0000_0000)
    }

    fn looks_like_entry(&self, text: &[u8]) -> bool {
        landing_pad(text).is_some() || text.starts_with(&FENTRY_NOP)
    }
}

fn landing_pad(text: &[u8]) -> Option<&'static [u8; 4]> {
    LANDING_PADS.iter().find(|pad| text.starts_with(*pad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_lies_behind_the_landing_pad() {
        // endbr64; call __fentry__
        assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0]), 4);
        // endbr32
        assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfb]), 4);
        // Sealed: data16 nopl (%rax); nopl -42(%rax)
        assert_eq!(X86_64.entry_skip(&[0x66, 0x0f, 0x1f, 0x00, 0x55]), 4);
        assert_eq!(X86_64.entry_skip(&[0x0f, 0x1f, 0x40, 0xd6, 0x55]), 4);
        // rdsspq %rdx; nopl 0(%rax); push %rbp; nothing; a cut endbr64
        assert_eq!(X86_64.entry_skip(&[0xf3, 0x48, 0x0f, 0x1e, 0xca]), 0);
        assert_eq!(X86_64.entry_skip(&[0x0f, 0x1f, 0x40, 0x00]), 0);
        assert_eq!(X86_64.entry_skip(&[0x55]), 0);
        assert_eq!(X86_64.entry_skip(&[]), 0);
        assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e]), 0);
    }

    #[test]
    fn entries_are_recognised() {
        assert!(X86_64.looks_like_entry(&[0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00]));
        assert!(X86_64.looks_like_entry(&[0x66, 0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x44, 0x00, 0x00]));
        assert!(X86_64.looks_like_entry(&[0x0f, 0x1f, 0x44, 0x00, 0x00, 0x55]));
        // Any block may start with a call or a push.
        assert!(!X86_64.looks_like_entry(&[0xe8, 0, 0, 0, 0]));
        assert!(!X86_64.looks_like_entry(&[0x55]));
        assert!(!X86_64.looks_like_entry(&[]));
    }

    #[test]
    fn arguments_come_in_the_order_of_system_v() {
        let name = |n| match X86_64.argument(n) {
            Some(ArgumentPlace::Register(RegisterId(id))) => X86_64.registers()[usize::from(id)].name,
            place => panic!("argument {n} is {place:?}"),
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(name), ["di", "si", "dx", "cx", "r8", "r9"]);
        assert_eq!(X86_64.argument(7), Some(ArgumentPlace::Stack { offset: 8 }));
        assert_eq!(X86_64.argument(8), Some(ArgumentPlace::Stack { offset: 16 }));
        assert_eq!(X86_64.argument(0), None);
    }

    #[test]
    fn the_return_address_is_popped() {
        assert_eq!(X86_64.return_place(), ReturnPlace::Stack);
        assert_eq!(X86_64.sp_after_return(0xffff_c900_0000_3f58), 0xffff_c900_0000_3f60);
    }

    #[test]
    fn an_exception_aligns_the_stack_and_pushes_five_words() {
        let restarted = |sp: u64, frame: u64, ip: u64, flags: u64| {
            let mut memory = |addr: GuestAddr| match addr.0.wrapping_sub(frame) {
                0 => Some(ip),
                0x10 => Some(flags),
                _ => None,
            };
            X86_64.is_restart(sp, GuestAddr(0xffff_ffff_8100_0010), &mut memory)
        };
        // Unaligned: down to ...50; SS 48, RSP 40, flags 38, CS 30, RIP 28.
        let frame = 0xffff_c900_0000_3f28;
        assert!(restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0010, 0x10246));
        assert!(restarted(0xffff_c900_0000_3f50, frame, 0xffff_ffff_8100_0010, 0x10246));
        assert!(!restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0040, 0x10246), "a fix-up");
        assert!(!restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0010, 0x346), "single-stepped");
        assert!(!restarted(0xffff_c900_0000_3f68, frame, 0xffff_ffff_8100_0010, 0x10246), "another frame");
    }

    #[test]
    fn general_registers_and_flags_are_writable() {
        let writable: Vec<&str> = (0_u8..)
            .zip(X86_64.registers())
            .filter(|(id, _)| X86_64.writable(RegisterId(*id)))
            .map(|(_, register)| register.name)
            .collect();
        let expected = [
            "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "flags",
            "sp",
        ];
        assert_eq!(writable, expected);
    }

    #[test]
    fn registers_have_the_kernels_names() {
        // Linux 6.12 arch/x86/kernel/ptrace.c, regoffset_table.
        let kernel = [
            "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "bx", "cx", "dx", "si", "di", "bp", "ax", "orig_ax",
            "ip", "cs", "flags", "sp", "ss",
        ];
        assert!(kernel.iter().all(|name| X86_64.register(name).is_some()));
        // Then this project's own.
        let own: Vec<&str> = X86_64.registers().iter().map(|register| register.name).skip(kernel.len()).collect();
        assert_eq!(own, ["fs_base", "gs_base", ""], "the last one cannot be named");
        for stranger in ["rax", "eax", "al", "rip", "RAX", "", "%ax"] {
            assert_eq!(X86_64.register(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn registers_come_from_their_qemu_names() {
        let qemu = |name| {
            let RegisterId(id) = X86_64.register(name).expect("a register");
            match X86_64.registers()[usize::from(id)].source {
                RegisterSource::Qemu { name, feature: None } => name,
                source => panic!("{name} comes from {source:?}"),
            }
        };
        let names = ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "r8", "r15", "flags", "cs", "ss"];
        let expected = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r15", "eflags", "cs", "ss"];
        assert_eq!(names.map(qemu), expected);
        let program_counter = X86_64.registers().iter().find(|register| register.role == Role::ProgramCounter);
        assert_eq!(program_counter.map(|register| register.name), Some("ip"));
    }

    #[test]
    fn privilege_follows_address_and_selector() {
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_8100_0000)), Privilege::Kernel);
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_c000_0000)), Privilege::Kernel);
        assert_eq!(X86_64.privilege(GuestAddr(0xff00_0000_0000_0000)), Privilege::Kernel);
        assert_eq!(X86_64.privilege(GuestAddr(0x40_0000)), Privilege::AskRegisters);
        // The vsyscall page and its neighbours.
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_0000)), Privilege::AskRegisters);
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_0c00)), Privilege::AskRegisters);
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_1000)), Privilege::Kernel);
        assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff5f_ffff)), Privilege::Kernel);
        // __KERNEL_CS, __USER_CS, __USER32_CS
        assert!(X86_64.is_privileged(0x10));
        assert!(!X86_64.is_privileged(0x33));
        assert!(!X86_64.is_privileged(0x23));
    }
}
