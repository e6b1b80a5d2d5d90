//! The conventions of the two kernels, privilege, and entry points.

use iced_x86::{Instruction, Mnemonic, OpKind, Register as X86Register};

use super::mode::Mode;
use super::{X86, decode, regs};
use crate::{
    Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, Execute, GuestAddr, Insn, InsnSlot, Privilege,
    Register, RegisterId, RegisterSource, ReturnPlace, Role,
};

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
const ENDBR32: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfb];

/// The landing pad of indirect branches, in the forms that the 64-bit kernel's `is_endbr` accepts
/// (`arch/x86/include/asm/ibt.h`). At boot the kernel seals the pads of functions whose address nobody takes, so text in
/// memory differs from the image.
const LANDING_PADS_64: [&[u8]; 4] = [
    ENDBR64,
    ENDBR32,
    // Sealed: `data16 nopl (%rax)`, in newer kernels `nopl -42(%rax)`.
    &[0x66, 0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0xd6],
];
/// A 32-bit kernel checks no indirect branches, so its compiler puts no pads; and nothing would seal one.
const LANDING_PADS_32: [&[u8]; 1] = [ENDBR32];

/// What the kernel's `__fentry__` call becomes at boot: a 5-byte nop.
const FENTRY_NOPS_64: [&[u8]; 1] = [&[0x0f, 0x1f, 0x44, 0x00, 0x00]];
/// On 32 bits, since Linux kernel commit a89dfde3dc3c ("x86: Remove dynamic NOP selection") (in v5.13), `lea
/// %ds:0x0(%esi,%eiz,1),%esi`; before, the long nop or `nop; lea 0x0(%esi,%eiz,1),%esi`, as the CPU likes it.
const FENTRY_NOPS_32: [&[u8]; 3] =
    [&[0x3e, 0x8d, 0x74, 0x26, 0x00], &[0x0f, 0x1f, 0x44, 0x00, 0x00], &[0x90, 0x8d, 0x74, 0x26, 0x00]];

/// The page of the legacy vsyscalls: user code in the kernel's half.
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;
/// The same of 32-bit kernels before v3.16: the vDSO of `CONFIG_COMPAT_VDSO`.
const COMPAT_VDSO_PAGE: u64 = 0xffff_e000;
/// Where the 32-bit kernel's half begins by default (`CONFIG_VMSPLIT_3G`), which is also the highest choice.
const PAGE_OFFSET_32: u64 = 0xc000_0000;

/// `do_task_dead` (since v4.9) schedules for the last time. `do_exit`, which calls it, is pending like any other until then.
const TASK_END: [&str; 1] = ["do_task_dead"];
/// Since Linux kernel commit 3aec4ecb3d1f ("x86: Rewrite ret_from_fork() in C") (in v6.5) the assembly that a new task
/// starts with is `ret_from_fork_asm`, and `ret_from_fork` a C function that it calls, with its return address on the
/// stack; before, `ret_from_fork` is the assembly.
const TASK_START: [&str; 2] = ["ret_from_fork_asm", "ret_from_fork"];

fn is_memory_operand(kind: OpKind) -> bool {
    use OpKind::{
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

impl X86 {
    fn is_64(&self) -> bool {
        self.mode == Mode::Long
    }

    /// Whether an operand of the kernel's is memory that is there from the beginning, so that an access never faults and runs again:
    /// the stack (a fault of the kernel on its own stack is a double fault, as the exception's frame goes to the same one: Intel
    /// SDM volume 3, section 6.12.1, "if the handler is to be executed at the same privilege level", and 6.15, interrupt 8), the
    /// image, and the static per-CPU variables, which FS (32 bits) or GS hold.
    fn is_always_mapped(&self, instruction: &Instruction) -> bool {
        let per_cpu = if self.is_64() { X86Register::GS } else { X86Register::FS };
        let (base, segment) = (instruction.memory_base(), instruction.memory_segment());
        let absolute = base == X86Register::None || instruction.is_ip_rel_memory_operand();
        match instruction.memory_index() {
            X86Register::None if matches!(base, X86Register::RSP | X86Register::ESP) => true,
            X86Register::None if absolute => {
                // On 32 bits modules may lie there as well, whose pages come to each task when it touches them (`vmalloc_fault`).
                let image = || self.is_64() && self.image_region().contains(&instruction.memory_displacement64());
                let flat = !matches!(segment, X86Register::FS | X86Register::GS);
                segment == per_cpu || (flat && image())
            }
            _ => false,
        }
    }

    fn landing_pad(&self, text: &[u8]) -> Option<&'static [u8]> {
        let pads: &[&'static [u8]] = if self.is_64() { &LANDING_PADS_64 } else { &LANDING_PADS_32 };
        pads.iter().copied().find(|pad| text.starts_with(pad))
    }
}

impl Arch for X86 {
    fn name(&self) -> &'static str {
        self.target()
    }

    fn target(&self) -> &'static str {
        if self.is_64() { "x86_64" } else { "i386" }
    }

    fn syscall_prefix(&self) -> &'static str {
        if self.is_64() { "__x64_sys_" } else { "__ia32_sys_" }
    }

    fn word_bytes(&self) -> usize {
        usize::from(self.mode.word_bytes())
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Little
    }

    fn registers(&self) -> &'static [Register] {
        self.mode.registers()
    }

    fn register(&self, name: &str) -> Option<RegisterId> {
        self.mode.find_register(name)
    }

    fn argument(&self, n: u32) -> Option<ArgumentPlace> {
        let registers: &[RegisterId] = if self.is_64() { &regs::ARGUMENTS_64 } else { &regs::ARGUMENTS_32 };
        // The return address is the word at the stack pointer; what no register holds lies above it.
        let index = n.checked_sub(1)?;
        let above = || u64::from(n) - registers.len() as u64;
        Some(registers.get(index as usize).map_or_else(
            || ArgumentPlace::Stack { offset: above() * u64::from(self.mode.word_bytes()) },
            |id| ArgumentPlace::Register(*id),
        ))
    }

    fn return_value(&self) -> RegisterId {
        self.mode.ids().ax
    }

    fn stack_pointer(&self) -> RegisterId {
        self.mode.ids().sp
    }

    fn stack_bias(&self) -> u64 {
        0
    }

    fn thread_size(&self) -> u64 {
        // THREAD_SIZE (Linux `arch/x86/include/asm/page_64_types.h`, `page_32_types.h`), without KASAN.
        if self.is_64() { 16 << 10 } else { 8 << 10 }
    }

    fn return_place(&self) -> ReturnPlace {
        ReturnPlace::Stack
    }

    fn sp_after_return(&self, sp_at_entry: u64) -> u64 {
        self.mode.trim(sp_at_entry.wrapping_add(u64::from(self.mode.word_bytes())))
    }

    fn is_restart(&self, sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
        // A debug trap after the instruction before pushes the same program counter; it is told by TF.
        let frame = if self.is_64() {
            // Intel SDM volume 3, section 6.14.2, "64-Bit Mode Stack Frame": the stack pointer is aligned down to 16; then
            // SS, RSP, RFLAGS, CS, RIP are pushed, 8 bytes each and whatever the privilege was, and then an error code, if any.
            (sp & !15).wrapping_sub(5 * 8)
        } else {
            // Section 6.12.1: on the same stack EFLAGS, CS, EIP are pushed, 4 bytes each, and an error code, if any. The
            // kernel builds a whole `pt_regs` below them, and before it returns it copies them back to right here (Linux
            // `arch/x86/entry/entry_32.S`, `FIXUP_FRAME` and `IRET_FRAME`).
            sp.wrapping_sub(3 * 4)
        };
        let word_bytes = u64::from(self.mode.word_bytes());
        let mut at = |number: u64| word(GuestAddr(self.mode.trim(frame.wrapping_add(number * word_bytes))));
        at(0) == Some(addr.0) && at(2).is_some_and(|flags| flags & TRAP_FLAG == 0)
    }

    fn exception_keeps_sp(&self) -> bool {
        true
    }

    fn block_pc(&self) -> Option<RegisterId> {
        // QEMU's target/i386/tcg (CF_PCREL) keeps eip exact at a block's start, and computes from there inside.
        Some(self.mode.ids().block_pc)
    }

    fn may_restart(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        decode::instruction(self.mode, addr, slot.bytes()).map_or(true, |instruction| {
            let kernel = self.privilege(addr) == Privilege::Kernel;
            let memory = (0..instruction.op_count())
                .map(|n| instruction.op_kind(n))
                .filter(|kind| is_memory_operand(*kind))
                .any(|kind| !(kernel && kind == OpKind::Memory && self.is_always_mapped(&instruction)));
            // `lea` and long nops only look as if they accessed memory.
            let accesses = memory && !matches!(instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
            accesses || (instruction.is_stack_instruction() && !kernel)
        })
    }

    fn task_end_symbols(&self) -> &'static [&'static str] {
        &TASK_END
    }

    fn task_start_symbols(&self) -> &'static [&'static str] {
        &TASK_START
    }

    fn writable(&self, id: RegisterId) -> bool {
        let Some(register) = self.registers().get(usize::from(id.0)) else { return false };
        // Setting the program counter aborts QEMU 11.1.
        matches!(register.source, RegisterSource::Qemu { .. })
            && register.role != Role::ProgramCounter
            && !self.mode.ids().fixed.contains(&id)
    }

    fn entry_skip(&self, text: &[u8]) -> u64 {
        self.landing_pad(text).map_or(0, |pad| pad.len() as u64)
    }

    fn decode(&self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
        decode::decode(self.mode, addr, bytes)
    }

    fn check_boundary(&self, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
        decode::check_boundary(self.mode, start, text, offset)
    }

    fn privilege(&self, addr: GuestAddr) -> Privilege {
        // The upper half belongs to the kernel, except for a page. A 32-bit kernel may be configured to begin lower
        // than here, never higher.
        let is_kernel = if self.is_64() {
            addr.0 >> 63 == 1 && addr.0 & !0xfff != VSYSCALL_PAGE
        } else {
            addr.0 >= PAGE_OFFSET_32 && addr.0 & !0xfff != COMPAT_VDSO_PAGE
        };
        if is_kernel { Privilege::Kernel } else { Privilege::AskRegisters }
    }

    fn is_user_address(&self, addr: GuestAddr) -> bool {
        // With another CONFIG_VMSPLIT the kernel's lower part counts as the user's.
        if self.is_64() { addr.0 >> 63 == 0 } else { addr.0 < PAGE_OFFSET_32 }
    }

    fn image_region(&self) -> std::ops::RangeInclusive<u64> {
        if self.is_64() {
            // Linux Documentation/arch/x86/x86_64/mm.rst: "kernel text mapping, mapped to physical address 0"; modules and
            // JITed BPF follow at ffffffffc0000000 (with KASLR).
            0xffff_ffff_8000_0000..=0xffff_ffff_bfff_ffff
        } else {
            // In the linear map, within the 512 MiB of `KERNEL_IMAGE_SIZE` (Linux `arch/x86/include/asm/page_32_types.h`).
            // Modules lie behind the linear map, which is as long as the memory: in a machine with less, they lie in here.
            PAGE_OFFSET_32..=PAGE_OFFSET_32 + 0x1fff_ffff
        }
    }

    fn privilege_register(&self) -> RegisterId {
        self.mode.ids().cs
    }

    fn is_privileged(&self, value: u64) -> bool {
        // The low two bits of a code segment selector are the current privilege level. (In real and virtual-8086 mode the
        // register is no selector, and code of those modes lies in the first MiB.)
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
        let nops: &[&[u8]] = if self.is_64() { &FENTRY_NOPS_64 } else { &FENTRY_NOPS_32 };
        self.landing_pad(text).is_some() || nops.iter().any(|nop| text.starts_with(nop))
    }
}
