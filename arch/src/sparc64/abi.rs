//! The 64-bit SPARC convention as the kernel uses it, privilege, traps, and entry points.
//!
//! System V ABI, SPARC Version 9 processor supplement (SCD 2.4), chapter 3: the first six arguments in `%o0` to `%o5`,
//! the others in the caller's frame; a bias of 2047 on the stack pointer; the return address is 8 bytes behind the
//! call, whose address is in `%o7`. Callers do not mark that they expect a structure, as those of the 32-bit ABI do: a
//! large one is returned through a pointer that is the first argument.

use super::word::{SP, Word};
use super::{decode, regs, transfer};
use crate::{
    Arch, ArgumentPlace, BoundaryError, ByteOrder, DecodeError, Execute, GuestAddr, Insn, InsnSlot, Privilege,
    Register, RegisterId, RegisterSource, ReturnPlace, Role, Translate,
};

const STACK_BIAS: u64 = 2047;
/// The register save area of a frame: 16 registers of the window, and then 6 words for the arguments that came in
/// registers.
const SAVE_AREA: u64 = 16 * 8;
/// `call` and `jmpl` leave their own address; behind them lies the delay slot.
const CALL_AND_DELAY_SLOT: u64 = 8;
/// PSTATE.PRIV in TSTATE.
const PRIVILEGED: u64 = 1 << (8 + 2);

/// `struct pt_regs` that the kernel's trap entry (`etrap`) puts right below the stack it interrupted: its size, and
/// what lies where.
const PT_REGS_BYTES: u64 = 0xa0;
const PT_TPC: u64 = 0x88;
/// `y` in the upper half, and in the lower a magic number with the trap type in its low 9 bits.
const PT_Y_AND_MAGIC: u64 = 0x98;
const PT_MAGIC: u64 = 0x57ac_6c00;
const TRAP_TYPE: u64 = 0x1ff;
/// `mem_address_not_aligned` and the two of floating-point accesses (manual, chapter 7).
const NOT_ALIGNED: std::ops::RangeInclusive<u64> = 0x34..=0x36;

/// `do_task_dead` (since v4.9) schedules for the last time.
const TASK_END: [&str; 1] = ["do_task_dead"];
/// Where `switch_to` jumps for a task that has not run yet (`arch/sparc/include/asm/switch_to_64.h`); older
/// kernels have `ret_from_syscall` instead.
const TASK_START: [&str; 2] = ["ret_from_fork", "ret_from_syscall"];

/// The 64-bit SPARC kernel.
#[derive(Debug)]
pub struct Sparc64;

impl Arch for Sparc64 {
    fn name(&self) -> &'static str {
        "sparc64"
    }

    fn target(&self) -> &'static str {
        "sparc64"
    }

    fn word_bytes(&self) -> usize {
        8
    }

    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Big
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
            1..=6 => ArgumentPlace::Register(RegisterId(regs::O0.0 + (n - 1) as u8)),
            n => ArgumentPlace::Stack { offset: SAVE_AREA + u64::from(n - 1) * 8 },
        })
    }

    fn return_value(&self) -> RegisterId {
        regs::O0
    }

    fn stack_pointer(&self) -> RegisterId {
        regs::SP
    }

    fn stack_bias(&self) -> u64 {
        STACK_BIAS
    }

    fn thread_size(&self) -> u64 {
        // Two pages of 8 KiB: THREAD_SHIFT, Linux `arch/sparc/include/asm/thread_info_64.h`.
        16 << 10
    }

    fn return_place(&self) -> ReturnPlace {
        ReturnPlace::RegisterPlus(regs::O7, CALL_AND_DELAY_SLOT)
    }

    fn sp_after_return(&self, sp_at_entry: u64) -> u64 {
        sp_at_entry
    }

    /// A trap stores where it came from in a register, TPC, and most handlers leave no trace: those of a TLB miss and
    /// of register windows end with `retry`, which runs the instruction again. Only handlers that call C put a
    /// `pt_regs` below the stack; it stays there, so what lies there may be of this trap or of an earlier one.
    ///
    /// So an instruction that trapped and is met again with the same stack pointer is taken for a restart, unless what
    /// lies there tells that an unaligned access was emulated, after which execution goes on behind it. Not told apart
    /// is an access that failed for good (its handler went to a fix-up of the exception table) and that is executed
    /// again later by the same frame: that execution counts as a restart.
    fn is_restart(&self, sp: u64, addr: GuestAddr, word: &mut dyn FnMut(GuestAddr) -> Option<u64>) -> bool {
        let frame = GuestAddr(sp.wrapping_add(STACK_BIAS).wrapping_sub(PT_REGS_BYTES));
        let mark = word(frame.wrapping_add(PT_Y_AND_MAGIC));
        // Memory that cannot be found yet, or a guest that is no Linux kernel: nothing tells against it.
        let (Some(mark), Some(tpc)) = (mark, word(frame.wrapping_add(PT_TPC))) else { return true };
        let is_frame = mark & 0xffff_ffff & !TRAP_TYPE == PT_MAGIC;
        let was_emulated = is_frame && NOT_ALIGNED.contains(&(mark & TRAP_TYPE)) && tpc == addr.0.wrapping_add(4);
        !was_emulated
    }

    fn makes_no_restart(&self, handler: GuestAddr) -> bool {
        // The trap table has 32 bytes for each type, twice 512 of them. Resets, instruction_access_exception, _MMU_miss and
        // _error (08 to 0b), interrupt_level_n (41 to 4f), interrupt_vector (60), fast_instruction_access_MMU_miss (64 to 67);
        // UltraSPARC user's manual, table 6-10. cpu_mondo, dev_mondo and resumable errors of sun4v (7c to 7f). And unaligned
        // accesses (34 to 36), which a kernel emulates or gives up, and never has run again.
        matches!(handler.0 >> 5 & 0x1ff, 0x00..=0x0b | 0x34..=0x36 | 0x41..=0x4f | 0x60 | 0x64..=0x67 | 0x7c..=0x7f)
    }

    fn exception_keeps_sp(&self) -> bool {
        // A window trap has rotated the windows.
        false
    }

    fn block_pc(&self) -> Option<RegisterId> {
        // Blocks are keyed by virtual address, and a trap tells the address of the instruction that raised it.
        None
    }

    fn alias_of(&self, id: RegisterId) -> Option<RegisterId> {
        regs::alias_of(id)
    }

    fn npc_register(&self) -> Option<RegisterId> {
        Some(regs::NPC)
    }

    fn has_delay_slot(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        let word = decode::instruction(addr, slot.bytes()).ok();
        word.and_then(|word| transfer::transfer(word, addr)).is_some_and(transfer::has_delay_slot)
    }

    fn may_restart(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        // Memory; and what spills or fills a register window: save, restore, return, flushw.
        decode::instruction(addr, slot.bytes())
            .map_or(true, |word| word.op() == 3 || word.op() == 2 && matches!(word.op3(), 0x2b | 0x39 | 0x3c | 0x3d))
    }

    fn restarts_until_done(&self, slot: &InsnSlot, addr: GuestAddr) -> bool {
        // flushw, save and restore raise nothing but spill, fill and clean_window (manual, A.22 and A.45), whose handlers end
        // with `retry`. A handler that cannot store or load the user's window (Linux arch/sparc/kernel/winfixup.S)
        // keeps it elsewhere and ends so as well, or ends the process.
        decode::instruction(addr, slot.bytes())
            .is_ok_and(|word| word.op() == 2 && matches!(word.op3(), 0x2b | 0x3c | 0x3d))
    }

    fn task_end_symbols(&self) -> &'static [&'static str] {
        &TASK_END
    }

    fn task_start_symbols(&self) -> &'static [&'static str] {
        &TASK_START
    }

    fn writable(&self, id: RegisterId) -> bool {
        let Some(register) = regs::REGISTERS.get(usize::from(id.0)) else { return false };
        // %g0 is 0.
        matches!(register.source, RegisterSource::Qemu { .. })
            && !matches!(register.role, Role::ProgramCounter | Role::NextProgramCounter)
            && id != regs::G0
    }

    fn entry_skip(&self, _text: &[u8]) -> u64 {
        0
    }

    fn decode(&self, addr: GuestAddr, bytes: &[u8]) -> Result<Insn, DecodeError> {
        decode::decode(addr, bytes)
    }

    fn check_boundary(&self, start: GuestAddr, _text: &[u8], offset: u64) -> Result<(), BoundaryError> {
        decode::check_boundary(start, offset)
    }

    fn privilege(&self, _addr: GuestAddr) -> Privilege {
        // The kernel and its processes have address spaces of their own, over the same addresses.
        Privilege::AskRegisters
    }

    fn is_user_address(&self, _addr: GuestAddr) -> bool {
        true
    }

    fn image_region(&self) -> std::ops::RangeInclusive<u64> {
        // Linux `arch/sparc/include/asm/pgtable_64.h`: the image, 4 MiB to 96 MiB. A process may have code there as
        // well.
        0x40_0000..=0x5ff_ffff
    }

    fn privilege_register(&self) -> RegisterId {
        regs::TSTATE
    }

    fn is_privileged(&self, value: u64) -> bool {
        // A trap sets PSTATE.PRIV, so handlers at higher trap levels have it too (manual, chapter 7).
        value & PRIVILEGED != 0
    }

    fn as_execute(&self) -> Option<&dyn Execute> {
        Some(self)
    }

    fn as_translate(&self) -> Option<&dyn Translate> {
        Some(self)
    }

    fn is_device(&self, physical: u64) -> bool {
        // QEMU's hw/sparc64/sun4u.c: the PCI host's registers and windows; memory is below.
        physical >= 0x1fe_0000_0000
    }

    fn looks_like_entry(&self, text: &[u8]) -> bool {
        // save %sp, -N, %sp
        Word::from_bytes(text).is_some_and(|word| {
            let is_save = word.op() == 2 && word.op3() == 0x3c && word.is_immediate();
            is_save && word.rd() == SP && word.rs1() == SP && word.signed(0, 13) < 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: GuestAddr = GuestAddr(0x52_0010);

    fn slot(word: u32) -> InsnSlot {
        InsnSlot::prepare(&Sparc64, HERE, &word.to_be_bytes()).expect("an instruction")
    }

    #[test]
    fn arguments_come_in_the_outs_and_then_in_the_callers_frame() {
        let name = |n| match Sparc64.argument(n) {
            Some(ArgumentPlace::Register(RegisterId(id))) => Sparc64.registers()[usize::from(id)].name,
            place => panic!("argument {n} is {place:?}"),
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(name), ["o0", "o1", "o2", "o3", "o4", "o5"]);
        // The bias is added by who reads it: sp + 2047 + 176.
        assert_eq!(Sparc64.argument(7), Some(ArgumentPlace::Stack { offset: 176 }));
        assert_eq!(Sparc64.argument(8), Some(ArgumentPlace::Stack { offset: 184 }));
        assert_eq!(Sparc64.argument(0), None);
        assert_eq!(Sparc64.stack_bias(), 2047);
    }

    #[test]
    fn functions_return_behind_the_delay_slot_of_the_call() {
        let ReturnPlace::RegisterPlus(RegisterId(id), 8) = Sparc64.return_place() else { panic!("not 8 bytes on") };
        assert_eq!(Sparc64.registers()[usize::from(id)].name, "o7");
        assert_eq!(Sparc64.sp_after_return(0xffff_f800_1f42_b0d1), 0xffff_f800_1f42_b0d1);
    }

    #[test]
    fn registers_have_the_kernels_names() {
        // Linux 6.1 arch/sparc/kernel/ptrace_64.c, regoffset_table.
        let kernel = [
            "g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "tstate",
            "pc", "npc", "y", "lr",
        ];
        assert!(kernel.iter().all(|name| Sparc64.register(name).is_some()));
        let own = [
            "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7", "in0",
            "in1", "in2", "in3", "in4", "in5", "in7", "sp", "fp", "fsr",
        ];
        assert!(own.iter().all(|name| Sparc64.register(name).is_some()));
        assert_eq!(Sparc64.registers().len(), kernel.len() + own.len());
        for stranger in ["in6", "tpc", "tnpc", "pil", "asi", "ccr", "%i0", "I0", ""] {
            assert_eq!(Sparc64.register(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn the_kernels_ins_are_the_windows_outs() {
        let qemu = |name| {
            let RegisterId(id) = Sparc64.register(name).expect("a register");
            match Sparc64.registers()[usize::from(id)].source {
                RegisterSource::Qemu { name, feature: None } => name,
                source => panic!("{name} comes from {source:?}"),
            }
        };
        assert_eq!(["i0", "i5", "i6", "i7", "lr"].map(qemu), ["o0", "o5", "sp", "o7", "o7"]);
        assert_eq!(["o0", "o5", "o6", "o7", "sp"].map(qemu), ["o0", "o5", "sp", "o7", "sp"]);
        assert_eq!(["in0", "in5", "fp", "in7"].map(qemu), ["i0", "i5", "fp", "i7"]);
        assert_eq!(["g1", "l7", "tstate", "npc", "y"].map(qemu), ["g1", "l7", "state", "npc", "y"]);
        let aliases = (0..).zip(Sparc64.registers()).filter_map(|(id, register)| {
            let RegisterId(of) = Sparc64.alias_of(RegisterId(id))?;
            Some((register.name, Sparc64.registers()[usize::from(of)].name))
        });
        let expected = [
            ("i0", "o0"),
            ("i1", "o1"),
            ("i2", "o2"),
            ("i3", "o3"),
            ("i4", "o4"),
            ("i5", "o5"),
            ("i6", "sp"),
            ("i7", "o7"),
            ("lr", "o7"),
            ("o6", "sp"),
        ];
        assert_eq!(aliases.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_steers_is_not_writable() {
        let fixed: Vec<&str> = (0_u8..)
            .zip(Sparc64.registers())
            .filter(|(id, _)| !Sparc64.writable(RegisterId(*id)))
            .map(|(_, register)| register.name)
            .collect();
        assert_eq!(fixed, ["g0", "pc", "npc"]);
    }

    #[test]
    fn privilege_is_in_the_state() {
        assert_eq!(Sparc64.privilege(GuestAddr(0x40_4000)), Privilege::AskRegisters);
        assert_eq!(Sparc64.privilege(GuestAddr(0xffff_f800_0000_0000)), Privilege::AskRegisters);
        // TSO is 0, PEF, PRIV, IE; the same of a process.
        assert!(Sparc64.is_privileged(0x44_8200_1605));
        assert!(!Sparc64.is_privileged(0x44_8200_1205));
        assert!(Sparc64.is_user_address(GuestAddr(0xffff_f800_0000_0000)));
    }

    #[test]
    fn a_trap_is_a_restart_unless_its_access_was_emulated() {
        let sp = 0xffff_f800_1f42_b0d1_u64;
        let restarted = |tpc: u64, magic: u64| {
            // sp + 2047 - 160
            let regs = 0xffff_f800_1f42_b830;
            let mut memory = |addr: GuestAddr| match addr.0 - regs {
                0x88 => Some(tpc),
                0x98 => Some(0x1234_5678 << 32 | magic),
                _ => None,
            };
            Sparc64.is_restart(sp, HERE, &mut memory)
        };
        // Nothing was stored; a fault of this instruction (fast_data_access_MMU_miss) went through C.
        assert!(restarted(0, 0));
        assert!(restarted(HERE.0, 0x57ac_6c68));
        // An interrupt of earlier.
        assert!(restarted(0x52_0014, 0x57ac_6c4e));
        assert!(!restarted(0x52_0014, 0x57ac_6c34));
        // Of another instruction.
        assert!(restarted(0x52_1014, 0x57ac_6c34));
        // No frame.
        assert!(restarted(0x52_0014, 0x34));
    }

    #[test]
    fn windows_are_spilled_and_filled_until_the_instruction_is_done() {
        let until_done = |word| Sparc64.restarts_until_done(&slot(word), HERE);
        // save; restore; flushw
        assert!([0x9de3_bf50, 0x81e8_0000, 0x8158_0000].map(until_done).iter().all(|until| *until));
        // return %i7 + 8, which traps on an unaligned target too; ldx [%o0], %g1; stb %g1, [%g2]; nop
        assert!([0x81cf_e008, 0xc25a_0000, 0xc228_8000, 0x0100_0000].map(until_done).iter().all(|until| !until));
    }

    #[test]
    fn what_touches_memory_or_windows_may_run_again() {
        let may = |word| Sparc64.may_restart(&slot(word), HERE);
        // ldx [%o0], %g1; stb %g1, [%g2]; casx [%g1], %g2, %g3; prefetch
        assert!([0xc25a_0000, 0xc228_8000, 0xc7f0_5002, 0xc168_4000].map(may).iter().all(|may| *may));
        // save; restore; return %i7 + 8; flushw
        assert!([0x9de3_bf50, 0x81e8_0000, 0x81cf_e008, 0x8158_0000].map(may).iter().all(|may| *may));
        // nop; add; call; retl; rdpr %pstate, %g1; saved
        assert!(
            [0x0100_0000, 0x8200_4002, 0x4000_0004, 0x81c3_e008, 0x8351_8000, 0x8188_0000]
                .map(may)
                .iter()
                .all(|may| !may)
        );
    }

    #[test]
    fn interrupts_and_failed_fetches_are_no_exceptions_of_the_instruction() {
        // The trap table of a 6.1 kernel, and of trap levels above 0.
        let precedes = |kind: u64| {
            let of = |level: u64| Sparc64.makes_no_restart(GuestAddr(0x42_0000 + level * 0x4000 + kind * 32));
            assert_eq!(of(0), of(1));
            of(0)
        };
        assert!([0x08, 0x41, 0x4e, 0x60, 0x64].map(precedes).iter().all(|precedes| *precedes));
        // Unaligned: a word, a double, a double to be stored.
        assert!([0x34, 0x35, 0x36].map(precedes).iter().all(|precedes| *precedes));
        // Spill, fill, data miss, data protection, privileged, ta 0x6d.
        assert!([0x80, 0x90, 0xc4, 0x68, 0x6c, 0x11, 0x16d].map(precedes).iter().all(|precedes| !precedes));
    }

    #[test]
    fn delay_slots_are_where_a_transfer_leaves_one() {
        let has = |word| Sparc64.has_delay_slot(&slot(word), HERE);
        // be; be,a; ba; bn; call; retl; return; brz,a
        let with =
            [0x0280_0004, 0x2280_0004, 0x1080_0004, 0x0080_0004, 0x4000_0004, 0x81c3_e008, 0x81cf_e008, 0x22c2_0004];
        assert!(with.map(has).iter().all(|has| *has));
        // ba,a; bn,a; cwbe; nop; ta 5; done
        let without = [0x3080_0004, 0x2080_0004, 0x12c2_2064, 0x0100_0000, 0x91d0_2005, 0x81f0_0000];
        assert!(without.map(has).iter().all(|has| !has));
    }

    #[test]
    fn entries_are_recognised() {
        assert!(Sparc64.looks_like_entry(&[0x9d, 0xe3, 0xbf, 0x50, 0x01]));
        // save %sp, 176, %sp; restore; nop; cut
        assert!(!Sparc64.looks_like_entry(&[0x9d, 0xe3, 0xa0, 0xb0]));
        assert!(!Sparc64.looks_like_entry(&[0x81, 0xe8, 0x00, 0x00]));
        assert!(!Sparc64.looks_like_entry(&[0x01, 0x00, 0x00, 0x00]));
        assert!(!Sparc64.looks_like_entry(&[0x9d, 0xe3, 0xbf]));
    }
}
