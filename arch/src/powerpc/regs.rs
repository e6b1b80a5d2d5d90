//! `pt_regs` names of powerpc, in the kernel's order, and QEMU's registers behind them; then this project's additions.
//!
//! QEMU lists `lr`, `ctr` and `xer` twice: in the feature `org.gnu.gdb.power.core` they are what the guest has, among the
//! SPRs (`org.qemu.power.spr`) they read as 0. Seen on QEMU 10.0 and 11.1, pseries, mac99 and ppce500.

use crate::{Register, RegisterId, RegisterSource, Role};

const CORE: Option<&str> = Some("org.gnu.gdb.power.core");
/// Live, but for what QEMU keeps elsewhere while it runs (those that CORE has as well, and `cfar`: they read as 0). Which ones
/// exist hangs on the CPU model.
const SPR: Option<&str> = Some("org.qemu.power.spr");

const GENERAL: [&str; 32] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r16", "r17",
    "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "r30", "r31",
];

pub(super) const SP: RegisterId = RegisterId(1);
/// The first argument, and the result.
pub(super) const R3: RegisterId = RegisterId(3);
pub(super) const MSR: RegisterId = RegisterId(33);
pub(super) const CTR: RegisterId = RegisterId(34);
pub(super) const LINK: RegisterId = RegisterId(35);
pub(super) const XER: RegisterId = RegisterId(36);
pub(super) const CCR: RegisterId = RegisterId(37);
pub(super) const SRR0: RegisterId = RegisterId(42);
pub(super) const SRR1: RegisterId = RegisterId(43);
/// 64 bits.
pub(super) const TAR: RegisterId = RegisterId(44);
pub(super) const HSRR0: RegisterId = RegisterId(45);
pub(super) const HSRR1: RegisterId = RegisterId(46);
pub(super) const PVR: RegisterId = RegisterId(47);
pub(super) const AMR: RegisterId = RegisterId(48);
/// 32 bits; Book E.
pub(super) const CSRR0: RegisterId = RegisterId(44);
pub(super) const DSRR0: RegisterId = RegisterId(45);
pub(super) const MCSRR0: RegisterId = RegisterId(46);

/// The general register of that number, modulo 32.
pub(super) const fn general(number: u32) -> RegisterId {
    RegisterId((number & 31) as u8)
}

/// All but the additions of one width, which follow at `COMMON`.
const COMMON: usize = 44;

const fn reg(name: &'static str, qemu: &'static str, feature: Option<&'static str>, bytes: u8, role: Role) -> Register {
    Register { name, bytes, source: RegisterSource::Qemu { name: qemu, feature }, role }
}

const fn role(number: usize) -> Role {
    match number {
        1 => Role::StackPointer,
        3..=10 => Role::Argument(number as u8 - 2),
        _ => Role::Other,
    }
}

/// The names are those of `regoffset_table` (Linux `arch/powerpc/kernel/ptrace/ptrace.c`), up to `dsisr`; there the general
/// registers are `gpr0` to `gpr31`, which `find` knows too. Additions go to the end, so that ids stay.
const fn table<const N: usize>(word: u8, mode_field: &'static str, own: &[&'static str]) -> [Register; N] {
    let nothing = Register { name: "", bytes: word, source: RegisterSource::Constant(0), role: Role::Other };
    let mut table = [nothing; N];
    let mut number = 0;
    while number < 32 {
        table[number] = reg(GENERAL[number], GENERAL[number], CORE, word, role(number));
        number += 1;
    }
    table[32] = Register { name: "nip", bytes: word, source: RegisterSource::ProbeAddress, role: Role::ProgramCounter };
    table[33] = reg("msr", "msr", CORE, word, Role::Other);
    table[34] = reg("ctr", "ctr", CORE, word, Role::Other);
    table[35] = reg("link", "lr", CORE, word, Role::Other);
    table[36] = reg("xer", "xer", CORE, 4, Role::Other);
    table[37] = reg("ccr", "cr", CORE, 4, Role::Flags);
    // `softe` is a byte of the kernel's per-CPU area, `mq` a register of the 601: a breakpoint-based kprobe shows 0.
    table[38] = Register { name: mode_field, ..nothing };
    // The program check interrupt, as a breakpoint-based kprobe shows it.
    table[39] = Register { name: "trap", source: RegisterSource::Constant(0x700), ..nothing };
    // Of the last data fault. Book E has `dear` and `esr` instead.
    table[40] = reg("dar", "dar", SPR, word, Role::Other);
    table[41] = reg("dsisr", "dsisr", SPR, word, Role::Other);
    table[42] = reg("srr0", "srr0", SPR, word, Role::Other);
    table[43] = reg("srr1", "srr1", SPR, word, Role::Other);
    let mut at = COMMON;
    while at < N {
        table[at] = reg(own[at - COMMON], own[at - COMMON], SPR, word, Role::Other);
        at += 1;
    }
    table
}

pub(super) static REGISTERS_64: [Register; 49] = table(8, "softe", &["tar", "hsrr0", "hsrr1", "pvr", "amr"]);
pub(super) static REGISTERS_32: [Register; 49] = table(4, "mq", &["csrr0", "dsrr0", "mcsrr0", "dear", "esr"]);

pub(super) fn find(registers: &[Register], name: &str) -> Option<RegisterId> {
    // `gpr3` is `r3`; `gprs` and `gpr03` are nothing.
    let short = name.strip_prefix("gp").filter(|short| GENERAL.contains(short)).unwrap_or(name);
    let index = registers.iter().position(|register| register.name == short)?;
    u8::try_from(index).ok().map(RegisterId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        // Linux 6.12 arch/powerpc/kernel/ptrace/ptrace.c, regoffset_table, and the names of spec and documentation.
        let common = ["nip", "msr", "ctr", "link", "xer", "ccr", "trap", "dar", "dsisr"];
        for registers in [&REGISTERS_64[..], &REGISTERS_32[..]] {
            assert!(common.iter().all(|name| find(registers, name).is_some()));
            for number in 0..32 {
                let id = Some(general(number));
                assert_eq!(find(registers, &format!("r{number}")), id);
                assert_eq!(find(registers, &format!("gpr{number}")), id);
            }
            for stranger in
                ["pc", "ip", "lr", "cr", "sp", "r32", "gpr32", "gprs", "gpr", "gp", "gpnip", "R3", "", "%r3"]
            {
                assert_eq!(find(registers, stranger), None, "{stranger}");
            }
        }
        assert!(find(&REGISTERS_64, "softe").is_some() && find(&REGISTERS_64, "mq").is_none());
        assert!(find(&REGISTERS_32, "softe").is_none() && find(&REGISTERS_32, "mq").is_some());
    }

    #[test]
    fn ids_lead_to_their_registers() {
        let name = |registers: &[Register], RegisterId(id): RegisterId| registers[usize::from(id)].name;
        let wide = [SP, R3, MSR, CTR, LINK, XER, CCR, SRR0, SRR1, TAR, HSRR0, HSRR1, PVR];
        let expected = ["r1", "r3", "msr", "ctr", "link", "xer", "ccr", "srr0", "srr1", "tar", "hsrr0", "hsrr1", "pvr"];
        assert_eq!(wide.map(|id| name(&REGISTERS_64, id)), expected);
        let narrow = [SP, MSR, CTR, LINK, XER, CCR, SRR0, SRR1, CSRR0, DSRR0, MCSRR0];
        let expected = ["r1", "msr", "ctr", "link", "xer", "ccr", "srr0", "srr1", "csrr0", "dsrr0", "mcsrr0"];
        assert_eq!(narrow.map(|id| name(&REGISTERS_32, id)), expected);
    }

    #[test]
    fn what_qemu_lists_twice_is_chosen_by_feature() {
        let qemu = |name| match REGISTERS_64[usize::from(find(&REGISTERS_64, name).expect("a register").0)].source {
            RegisterSource::Qemu { name, feature } => (name, feature),
            source => panic!("{name} comes from {source:?}"),
        };
        let core = Some("org.gnu.gdb.power.core");
        assert_eq!(["link", "ctr", "xer", "ccr"].map(qemu), [("lr", core), ("ctr", core), ("xer", core), ("cr", core)]);
        assert_eq!(qemu("r3"), ("r3", core));
        assert_eq!(qemu("dar"), ("dar", Some("org.qemu.power.spr")));
    }
}
