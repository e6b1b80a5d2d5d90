//! The System V conventions as the kernel uses them, privilege, and entry points. On 64 bits there are two:
//!
//! - ELFv2 (all little-endian kernels; big-endian ones by configuration): a function has two entries. Through a pointer it is
//!   entered at the global one, which is the symbol's address and computes the TOC pointer from r12; a direct call enters
//!   at the local one behind that. Both ways lead through the local entry: `Arch::entry_skip` goes there.
//! - ELFv1 (big-endian kernels before): the symbol `SYM` is a descriptor in `.opd`, whose first word is the code's address;
//!   the code itself is `.SYM` in the symbol table. There is one entry.

use super::decode::{self, Mode};
use super::{Powerpc, frame, regs};
use crate::{
    Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, Execute, GuestAddr, Insn, InsnSlot, Privilege,
    Register, RegisterId, RegisterSource, ReturnPlace,
};

/// `addis r2,r12,...`, `lis r2,...` (what linkers make of it), `addi r2,r2,...`; the displacements do not count.
const ADDIS_R2_R12: u32 = 0x3c4c_0000;
const LIS_R2: u32 = 0x3c40_0000;
const ADDI_R2_R2: u32 = 0x3842_0000;
const MFLR_R0: u32 = 0x7c08_02a6;
const STD_R0_16_R1: u32 = 0xf801_0010;
const STW_R0_4_R1: u32 = 0x9001_0004;
/// What the call of `_mcount` becomes at boot.
const NOP: u32 = 0x6000_0000;

/// `MSR[PR]`: bit 49 of 64.
const PROBLEM_STATE: u64 = 0x4000;
/// Where the kernel's addresses begin: PAGE_OFFSET. On 32 bits it can be configured otherwise; nobody does.
const KERNEL_64: u64 = 0xc000_0000_0000_0000;
const KERNEL_32: u64 = 0xc000_0000;

/// `do_task_dead` (since v4.9) schedules for the last time. Big-endian kernels of ELFv1 have the code under the name with a dot.
const TASK_END: [&str; 2] = [".do_task_dead", "do_task_dead"];
/// New tasks start in one of several pieces of assembly (`ret_from_fork`, `ret_from_fork_scv`, `ret_from_kernel_thread`, later
/// `ret_from_kernel_user_thread` and `start_kernel_thread`), each of which calls this first, on a stack that holds nothing
/// that is pending.
const TASK_START: [&str; 2] = [".schedule_tail", "schedule_tail"];

impl Powerpc {
    fn words<const N: usize>(&self, text: &[u8]) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(text.get(..4 * N)?.chunks_exact(4)) {
            *word = u32::try_from(self.order.number(bytes)).ok()?;
        }
        Some(words)
    }

    /// Bytes of the two instructions at a global entry that set up the TOC pointer (ELFv2 ABI, section 2.3.2.1; Linux
    /// `arch/powerpc/include/asm/text-patching.h`, `ppc_function_entry`). A kernel that addresses relative to the PC has none.
    fn toc_setup(&self, text: &[u8]) -> u64 {
        let Some([first, second]) = self.words(text).filter(|_| self.is_64) else { return 0 };
        let sets = matches!(first & 0xffff_0000, ADDIS_R2_R12 | LIS_R2) && second & 0xffff_0000 == ADDI_R2_R2;
        if sets { 8 } else { 0 }
    }

    /// The names of a function, of which only ELFv1 has the first.
    fn with_dot<'a>(&self, names: &'a [&'static str; 2]) -> &'a [&'static str] {
        let [_, plain @ ..] = names;
        if self.is_64 && self.order == ByteOrder::Big { names } else { plain }
    }

    pub(super) fn mode(&self) -> Mode {
        Mode { order: self.order, is_64: self.is_64 }
    }
}

impl Arch for Powerpc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn target(&self) -> &'static str {
        if self.is_64 { "ppc64" } else { "ppc" }
    }

    fn word_bytes(&self) -> usize {
        if self.is_64 { 8 } else { 4 }
    }

    fn byte_order(&self) -> ByteOrder {
        self.order
    }

    fn registers(&self) -> &'static [Register] {
        if self.is_64 { &regs::REGISTERS_64 } else { &regs::REGISTERS_32 }
    }

    fn register(&self, name: &str) -> Option<RegisterId> {
        regs::find(self.registers(), name)
    }

    fn argument(&self, n: u32) -> Option<ArgumentPlace> {
        Some(match n {
            0 => return None,
            // r3 to r10
            1..=8 => ArgumentPlace::Register(regs::general(n + 2)),
            _ => ArgumentPlace::Zero,
        })
    }

    fn return_value(&self) -> RegisterId {
        regs::R3
    }

    fn stack_pointer(&self) -> RegisterId {
        regs::SP
    }

    fn stack_bias(&self) -> u64 {
        0
    }

    fn thread_size(&self) -> u64 {
        // THREAD_SHIFT without KASAN and without 256K pages.
        if self.is_64 { 16 << 10 } else { 8 << 10 }
    }

    fn return_place(&self) -> ReturnPlace {
        ReturnPlace::Register(regs::LINK)
    }

    fn sp_after_return(&self, sp_at_entry: u64) -> u64 {
        sp_at_entry
    }

    fn is_restart(&self, sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
        if self.is_64 { frame::is_restart_64(sp, addr, word) } else { frame::is_restart_32(sp, addr, word) }
    }

    fn exception_keeps_sp(&self) -> bool {
        true
    }

    fn makes_no_restart(&self, handler: GuestAddr) -> bool {
        // Power ISA 3.1, Book III, figure "Effective addresses of interrupt vectors", and LPCR[AIL]: the offset is in the low
        // 14 bits, relocated or not. System reset, machine check, instruction storage and segment, external, decrementer,
        // hypervisor decrementer, doorbells, hypervisor maintenance and virtualization, performance monitor; on 32 bits
        // the ITLB miss of the 603 and the thermal and system management interrupts. Book E's vectors may be anywhere.
        matches!(
            handler.0 & 0x3fff,
            0x100
                | 0x200
                | 0x400
                | 0x480
                | 0x500
                | 0x900
                | 0x980
                | 0xa00
                | 0xe20
                | 0xe60
                | 0xe80
                | 0xea0
                | 0xf00
                | 0x1000
        )
    }

    fn user_memory_lock(&self) -> Option<RegisterId> {
        // Kernel userspace access prevention (KUAP) of radix kernels: Linux `arch/powerpc/include/asm/book3s/64/kup.h`.
        self.is_64.then_some(regs::AMR)
    }

    fn block_pc(&self) -> Option<RegisterId> {
        // QEMU translates for the virtual address; its program counter is stale in a callback.
        None
    }

    fn may_restart(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        self.mode().instruction(addr, slot.bytes()).map_or(true, decode::accesses_memory)
    }

    fn task_end_symbols(&self) -> &'static [&'static str] {
        self.with_dot(&TASK_END)
    }

    fn task_start_symbols(&self) -> &'static [&'static str] {
        self.with_dot(&TASK_START)
    }

    fn writable(&self, id: RegisterId) -> bool {
        // MSR would not change the mode that the block was translated for; the SPRs are not registers that compute.
        let computes = id.0 < 32 || [regs::CTR, regs::LINK, regs::XER, regs::CCR].contains(&id);
        computes
            && self
                .registers()
                .get(usize::from(id.0))
                .is_some_and(|register| matches!(register.source, RegisterSource::Qemu { .. }))
    }

    fn entry_skip(&self, text: &[u8]) -> u64 {
        self.toc_setup(text)
    }

    fn decode(&self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
        self.mode().decode(addr, bytes)
    }

    fn check_boundary(&self, start: GuestAddr, text: &[u8], offset: u64) -> Result<(), BoundaryError> {
        self.mode().check_boundary(start, text, offset)
    }

    fn privilege(&self, addr: GuestAddr) -> Privilege {
        // Code with translation off runs at low addresses, as user code does.
        if addr.0 >= if self.is_64 { KERNEL_64 } else { KERNEL_32 } {
            Privilege::Kernel
        } else {
            Privilege::AskRegisters
        }
    }

    fn is_user_address(&self, addr: GuestAddr) -> bool {
        addr.0 < if self.is_64 { KERNEL_64 } else { KERNEL_32 }
    }

    fn image_region(&self) -> std::ops::RangeInclusive<u64> {
        // The image lies at the start of the linear map, in one piece; modules do not lie in that, but on 32 bits behind it
        // (Linux Documentation/arch/powerpc/vmemmap_dedup.rst and `arch/powerpc/include/asm/book3s/64/radix.h`), and there a
        // small machine's linear map ends early.
        if self.is_64 { KERNEL_64..=KERNEL_64 + 0x3fff_ffff } else { KERNEL_32..=KERNEL_32 + 0x07ff_ffff }
    }

    fn privilege_register(&self) -> RegisterId {
        regs::MSR
    }

    fn is_privileged(&self, value: u64) -> bool {
        value & PROBLEM_STATE == 0
    }

    fn linear_map(&self, addr: GuestAddr) -> Option<u64> {
        // `__pa` with MEMORY_START 0 (Linux arch/powerpc/include/asm/page.h). What lies behind the end of memory is for the
        // caller to find out.
        let start = if self.is_64 { KERNEL_64 } else { KERNEL_32 };
        addr.0.checked_sub(start)
    }

    fn is_device(&self, physical: u64) -> bool {
        // QEMU's machines have memory from 0 on, and devices from here (hw/pci-host/spapr.h, pnv.h; hw/ppc/mac_newworld.c,
        // e500.c).
        physical >= if self.is_64 { 0x2000_0000_0000 } else { 0x8000_0000 }
    }

    fn as_execute(&self) -> Option<&dyn Execute> {
        Some(self)
    }

    fn looks_like_entry(&self, text: &[u8]) -> bool {
        let traced = if self.is_64 {
            self.words(text) == Some([MFLR_R0, NOP]) || self.words(text) == Some([MFLR_R0, STD_R0_16_R1, NOP])
        } else {
            self.words(text) == Some([MFLR_R0, STW_R0_4_R1, NOP])
        };
        traced || self.toc_setup(text) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PPC, PPC64, PPC64LE};
    use super::*;

    fn big(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn little(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn interrupts_and_failed_fetches_are_no_exceptions_of_the_instruction() {
        let precedes = |handler| PPC64LE.makes_no_restart(GuestAddr(handler));
        // Decrementer with and without relocation, external, instruction storage.
        assert!(
            [0x900, 0xc000_0000_0000_4900, 0xc000_0000_0000_4500, 0x400].map(precedes).iter().all(|precedes| *precedes)
        );
        // Data storage and segment, alignment, program, system call, facility.
        let own = [0xc000_0000_0000_4300, 0x380, 0x600, 0x700, 0xc000_0000_0000_4c00, 0xf60];
        assert!(own.map(precedes).iter().all(|precedes| !precedes));
    }

    #[test]
    fn the_entry_lies_behind_the_toc() {
        // addis r2,r12,0x149; addi r2,r2,-0x6f00; mflr r0: do_sys_openat2 of Debian's 6.1
        assert_eq!(PPC64LE.entry_skip(&little(&[0x3c4c_0149, 0x3842_9100, 0x7c08_02a6])), 8);
        assert_eq!(PPC64.entry_skip(&big(&[0x3c4c_0149, 0x3842_9100])), 8);
        // lis r2,...; addi r2,r2,...
        assert_eq!(PPC64LE.entry_skip(&little(&[0x3c40_c000, 0x3842_9100])), 8);
        // addis r2,r12; mflr r0. addis r3,r12; addi r2,r2. The other byte order. One of the two. 32 bits.
        assert_eq!(PPC64LE.entry_skip(&little(&[0x3c4c_0149, 0x7c08_02a6])), 0);
        assert_eq!(PPC64LE.entry_skip(&little(&[0x3c6c_0149, 0x3842_9100])), 0);
        assert_eq!(PPC64LE.entry_skip(&big(&[0x3c4c_0149, 0x3842_9100])), 0);
        assert_eq!(PPC64LE.entry_skip(&little(&[0x3c4c_0149])), 0);
        assert_eq!(PPC.entry_skip(&big(&[0x3c4c_0149, 0x3842_9100])), 0);
    }

    #[test]
    fn entries_are_recognised() {
        // The TOC; mflr r0; nop. mflr r0; std r0,16(r1); nop.
        assert!(PPC64LE.looks_like_entry(&little(&[0x3c4c_0149, 0x3842_9100])));
        assert!(PPC64LE.looks_like_entry(&little(&[0x7c08_02a6, 0x6000_0000])));
        assert!(PPC64.looks_like_entry(&big(&[0x7c08_02a6, 0xf801_0010, 0x6000_0000])));
        // mflr r0; stw r0,4(r1); nop
        assert!(PPC.looks_like_entry(&big(&[0x7c08_02a6, 0x9001_0004, 0x6000_0000])));
        // Any block may start with these: mflr r0; std r0,16(r1); stdu r1. mflr r0. nop.
        assert!(!PPC64.looks_like_entry(&big(&[0x7c08_02a6, 0xf801_0010, 0xf821_ffa1])));
        assert!(!PPC64.looks_like_entry(&big(&[0x7c08_02a6])));
        assert!(!PPC.looks_like_entry(&big(&[0x7c08_02a6, 0x6000_0000])));
        assert!(!PPC.looks_like_entry(&big(&[0x6000_0000])));
    }

    #[test]
    fn arguments_are_in_registers_or_nowhere() {
        let name = |n| match PPC64LE.argument(n) {
            Some(ArgumentPlace::Register(RegisterId(id))) => PPC64LE.registers()[usize::from(id)].name,
            place => panic!("argument {n} is {place:?}"),
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(name), ["r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10"]);
        assert_eq!(PPC64LE.argument(9), Some(ArgumentPlace::Zero));
        assert_eq!(PPC64LE.argument(0), None);
        assert_eq!(PPC.argument(8), Some(ArgumentPlace::Register(RegisterId(10))));
    }

    #[test]
    fn the_return_address_is_in_the_link_register() {
        assert_eq!(PPC64LE.return_place(), ReturnPlace::Register(PPC64LE.register("link").expect("a register")));
        assert_eq!(PPC64LE.sp_after_return(0xc000_0000_0123_4560), 0xc000_0000_0123_4560);
    }

    #[test]
    fn what_computes_is_writable() {
        let writable = |isa: &Powerpc| -> Vec<&str> {
            (0_u8..)
                .zip(isa.registers())
                .filter(|(id, _)| isa.writable(RegisterId(*id)))
                .map(|(_, register)| register.name)
                .collect()
        };
        for isa in [&PPC64LE, &PPC] {
            let found = writable(isa);
            assert_eq!(found.len(), 36);
            assert_eq!(found[32..], ["ctr", "link", "xer", "ccr"]);
        }
    }

    #[test]
    fn privilege_follows_address_and_msr() {
        assert_eq!(PPC64LE.privilege(GuestAddr(0xc000_0000_0010_0000)), Privilege::Kernel);
        assert_eq!(PPC64LE.privilege(GuestAddr(0xc008_0000_0010_0000)), Privilege::Kernel);
        assert_eq!(PPC64LE.privilege(GuestAddr(0xd000_0000_0010_0000)), Privilege::Kernel);
        // The kernel in real mode, and users.
        assert_eq!(PPC64LE.privilege(GuestAddr(0x4000)), Privilege::AskRegisters);
        assert_eq!(PPC64LE.privilege(GuestAddr(0x7fff_8000_0000)), Privilege::AskRegisters);
        assert_eq!(PPC.privilege(GuestAddr(0xc010_0000)), Privilege::Kernel);
        assert_eq!(PPC.privilege(GuestAddr(0xb010_0000)), Privilege::AskRegisters);
        assert!(PPC64LE.is_user_address(GuestAddr(0x7fff_8000_0000)));
        assert!(!PPC64LE.is_user_address(GuestAddr(0xc000_0000_0010_0000)));
        assert!(PPC.is_user_address(GuestAddr(0xbfff_ffff)));
        assert!(!PPC.is_user_address(GuestAddr(0xc000_0000)));
        // MSR of the kernel and of a user program: QEMU 11.1, pseries.
        assert!(PPC64LE.is_privileged(0x8000_0000_0280_9033));
        assert!(!PPC64LE.is_privileged(0x8000_0000_0280_f033));
    }

    #[test]
    fn each_kernel_has_its_target() {
        let found = |target, order| crate::for_kernel(target, order).map(Arch::name);
        assert_eq!(found("ppc64", Some(ByteOrder::Little)), Some("ppc64le"));
        assert_eq!(found("ppc64", Some(ByteOrder::Big)), Some("ppc64"));
        assert_eq!(found("ppc64", None), Some("ppc64le"));
        assert_eq!(found("ppc", None), Some("ppc"));
        assert_eq!(found("ppc", Some(ByteOrder::Little)), None);
    }
}
