//! The registers of the current window under their own names, in QEMU's order, and then under the names that the kernel
//! gives them in `pt_regs`.
//!
//! The kernel's `i0` to `i7` are the *outs* of the interrupted window: what its trap handler sees as its ins
//! (`u_regs[8..16]`, Linux `arch/sparc/include/uapi/asm/ptrace.h`). So `%i0` is here what it is in `kprobe_events`, the
//! first argument at a function's entry, and the window's own ins are `%in0` to `%in5`, `%fp` and `%in7`.

use crate::{Register, RegisterId, RegisterSource, Role};

const fn reg(name: &'static str, qemu: &'static str, role: Role) -> Register {
    Register { name, bytes: 8, source: RegisterSource::Qemu { name: qemu, feature: None }, role }
}

const fn plain(name: &'static str) -> Register {
    reg(name, name, Role::Other)
}

const fn alias(name: &'static str, qemu: &'static str) -> Register {
    reg(name, qemu, Role::Other)
}

pub(super) const G0: RegisterId = RegisterId(0);
pub(super) const O0: RegisterId = RegisterId(8);
pub(super) const SP: RegisterId = RegisterId(14);
pub(super) const O7: RegisterId = RegisterId(15);
pub(super) const FP: RegisterId = RegisterId(30);
pub(super) const TSTATE: RegisterId = RegisterId(32);
pub(super) const NPC: RegisterId = RegisterId(34);
pub(super) const Y: RegisterId = RegisterId(35);
pub(super) const FSR: RegisterId = RegisterId(36);

/// Ids 0 to 31 are the numbers that instructions have for the registers. QEMU's `state` is laid out as TSTATE is (CCR
/// in bits 32 to 39, ASI 24 to 31, PSTATE 8 to 19, CWP 0 to 4), and its condition codes are exact at a hit. Additions
/// go to the end, so that ids stay.
pub(super) static REGISTERS: [Register; 47] = [
    plain("g0"),
    plain("g1"),
    plain("g2"),
    plain("g3"),
    plain("g4"),
    plain("g5"),
    plain("g6"),
    plain("g7"),
    reg("o0", "o0", Role::Argument(1)),
    reg("o1", "o1", Role::Argument(2)),
    reg("o2", "o2", Role::Argument(3)),
    reg("o3", "o3", Role::Argument(4)),
    reg("o4", "o4", Role::Argument(5)),
    reg("o5", "o5", Role::Argument(6)),
    reg("sp", "sp", Role::StackPointer),
    plain("o7"),
    plain("l0"),
    plain("l1"),
    plain("l2"),
    plain("l3"),
    plain("l4"),
    plain("l5"),
    plain("l6"),
    plain("l7"),
    reg("in0", "i0", Role::Other),
    reg("in1", "i1", Role::Other),
    reg("in2", "i2", Role::Other),
    reg("in3", "i3", Role::Other),
    reg("in4", "i4", Role::Other),
    reg("in5", "i5", Role::Other),
    plain("fp"),
    reg("in7", "i7", Role::Other),
    reg("tstate", "state", Role::Flags),
    Register { name: "pc", bytes: 8, source: RegisterSource::ProbeAddress, role: Role::ProgramCounter },
    // Exact only where a translated block begins: see `Execute::next_pc`.
    reg("npc", "npc", Role::NextProgramCounter),
    plain("y"),
    plain("fsr"),
    // Of `pt_regs`: `regoffset_table` in Linux `arch/sparc/kernel/ptrace_64.c`, beside those above.
    alias("i0", "o0"),
    alias("i1", "o1"),
    alias("i2", "o2"),
    alias("i3", "o3"),
    alias("i4", "o4"),
    alias("i5", "o5"),
    alias("i6", "sp"),
    alias("i7", "o7"),
    alias("lr", "o7"),
    alias("o6", "sp"),
];

/// The register that an instruction numbers `number`.
pub(super) fn numbered(number: u32) -> RegisterId {
    // A number has 5 bits.
    RegisterId((number & 31) as u8)
}

pub(super) fn find(name: &str) -> Option<RegisterId> {
    let index = REGISTERS.iter().position(|register| register.name == name)?;
    u8::try_from(index).ok().map(RegisterId)
}

/// The first register with the same QEMU register behind it, if that is another one.
pub(super) fn alias_of(id: RegisterId) -> Option<RegisterId> {
    Some(match id.0 {
        37..=42 => RegisterId(O0.0 + (id.0 - 37)),
        43 | 46 => SP,
        44 | 45 => O7,
        _ => return None,
    })
}
