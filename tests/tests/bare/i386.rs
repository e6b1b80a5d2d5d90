//! What each snippet of `guest-images/bare/i386` executes, counted by hand from its source. Many are those of x86_64 with
//! narrower registers, and run as often.

use super::snippets::{self, Snippet, snippet};

/// Those of x86_64 that there are not, or not in the same shape.
const OTHERWISE: [&str; 13] = [
    "loop_ecx",
    "jrcxz",
    "far_memory",
    "iret_same_stack",
    "iret_other_stack",
    "push_rsp",
    "control_registers",
    "hardware_watchpoint",
    "user_syscall",
    "user_calls",
    "self_modifying",
    "nops",
    "model_registers",
];

/// Every snippet.
pub(crate) fn all() -> Vec<Snippet> {
    let mut all = snippets::all();
    all.retain(|snippet| !OTHERWISE.contains(&snippet.name));
    all.extend([
        snippet("loop_cx", 3, &[("again", 2), ("after", 1)]),
        snippet(
            "jcxz",
            3,
            &[("ecx_set", 1), ("cx_set", 0), ("cx_zero", 1), ("ecx_not_zero", 0), ("ecx_zero", 1), ("cx_one", 1)],
        ),
        snippet("far_direct", 3, &[("never", 0), ("callee", 1), ("target", 1), ("back", 1)]),
        snippet("far_memory", 3, &[("never", 0), ("callee", 1), ("target", 1), ("back", 1)]),
        snippet("iret_same_stack", 3, &[("other", 1), ("back", 1)]),
        // As on x86_64, QEMU does a store to its own block twice.
        snippet("self_modifying", 10, &[("ahead", 2), ("changed", 1), ("behind", 2), ("after", 1)]),
        snippet("nops", 10, &[]),
        snippet("push_all", 10, &[]),
        snippet("push_sp", 10, &[]),
        snippet("decimal", 10, &[]),
        snippet("control_registers", 10, &[]),
        snippet("model_registers", 10, &[]),
        snippet("overflow", 10, &[("untaken", 1), ("between", 1), ("trap_1", 1), ("after", 1)]),
    ]);
    all
}

/// Where execution leaves the straight line on purpose, by the label of the instruction. An `into` that does not trap goes on,
/// but nobody can tell beforehand.
pub(crate) const LEAVES: [(&str, &str); 18] = [
    ("breakpoint", "trap_1"),
    ("breakpoint", "trap_2"),
    ("software_interrupt", "trap_1"),
    ("overflow", "untaken"),
    ("overflow", "trap_1"),
    ("undefined", "trap_1"),
    ("undefined_others", "ud1"),
    ("undefined_others", "ud0"),
    ("trap_int1", "trap_1"),
    ("virtual_machine", "vmcall"),
    ("virtual_machine", "vmlaunch"),
    ("virtual_machine", "vmresume"),
    ("virtual_machine", "vmxoff"),
    ("divide_error", "fault"),
    ("general_fault", "fault"),
    ("pf_skip", "fault"),
    ("user_iret", "enter"),
    ("user_code", "leave"),
];

/// What is attempted twice and completes once, by the label of the instruction.
pub(crate) const RESTARTED: [(&str, &str); 8] = [
    ("pf_map", "load"),
    ("pf_map", "push"),
    ("pf_map", "rmw"),
    ("pf_map", "call"),
    ("pf_map", "pop"),
    ("pf_map", "jump"),
    ("self_modifying", "ahead"),
    ("self_modifying", "behind"),
];

/// Registers after a snippet that follow from its source alone.
pub(crate) const LITERALS: [(&str, &[(&str, u64)]); 47] = [
    ("loop_rcx0", &[("ecx", 0xffff_ffff), ("eax", 0xffff_ffff)]),
    ("loop_rcx1", &[("ecx", 0), ("eax", 1)]),
    ("ret_imm", &[("ebx", 0), ("eax", 5)]),
    ("far_ret_imm", &[("ebx", 0)]),
    ("call_cs", &[("eax", 6)]),
    ("loop_rcx5", &[("ecx", 0), ("eax", 5)]),
    ("loop_self", &[("ecx", 0)]),
    ("loope_flag", &[("ecx", 1), ("eax", 4)]),
    ("loope_count", &[("ecx", 0), ("eax", 3)]),
    ("loope_edges", &[("ecx", 0xffff_fffe), ("eax", 17)]),
    ("loopne_flag", &[("ecx", 2), ("eax", 3)]),
    ("loopne_edges", &[("ecx", 0xffff_fffe), ("eax", 17)]),
    // Only the lower half is counted down.
    ("loop_cx", &[("ecx", 0xcccc_0000), ("eax", 2)]),
    ("jcxz", &[("ecx", 1), ("eax", 2)]),
    ("ret_imm0", &[("ebx", 0), ("eax", 6)]),
    ("ret_rep", &[("ebx", 0), ("eax", 7)]),
    ("call_register", &[("edx", 0xdddd_0005)]),
    ("call_memory", &[("eax", 231)]),
    ("jmp_direct", &[("eax", 1)]),
    ("jmp_indirect", &[("eax", 4), ("edx", 0x77)]),
    ("jcc_none", &[("eax", 0b1010_1010_1010_1010), ("ebx", 0b1010_1010_1010_1010)]),
    ("jcc_all", &[("eax", 0b0101_0101_0101_1001), ("ebx", 0b0101_0101_0101_1001)]),
    ("jcc_sign", &[("eax", 0b1010_1010_0110_0101), ("ebx", 0b1010_1010_0110_0101)]),
    ("values_none", &[("eax", 0b0101_0101_0101_0101)]),
    ("values_all", &[("eax", 0b1010_1010_1010_0110)]),
    ("values_sign", &[("eax", 0b0101_0101_1001_1010)]),
    ("far_ret", &[("ecx", 0x30), ("edx", 8), ("ebx", 0)]),
    ("far_direct", &[("ecx", 0x30), ("edx", 8), ("esi", 0x30), ("edi", 8)]),
    ("far_memory", &[("ecx", 0x30), ("edx", 8), ("esi", 0x30), ("edi", 8)]),
    // The flags of the frame.
    ("iret_same_stack", &[("ecx", 0x8d7), ("esi", 0x30), ("edi", 8), ("ebx", 0)]),
    ("recursion", &[("eax", 9), ("ecx", 0)]),
    ("recursion_pair", &[("eax", 4 + 3 * 16), ("edx", 0xdddd_0004)]),
    ("switch_stacks", &[("ecx", 2 + 3 * 16)]),
    ("self_modifying", &[("eax", 0xaaaa_0011), ("ecx", 2)]),
    // eax as it was stored over; what stood for the stack pointer is passed over.
    ("push_all", &[("eax", 0x0000_0055), ("ecx", 0)]),
    ("interrupt_flag", &[("eax", 0x2), ("ebx", 0x202), ("ecx", 0x2)]),
    ("flags", &[("eax", 0x8d7), ("ebx", 0x203), ("ecx", 0x442), ("edi", 0x87), ("flags", 0x802)]),
    ("breakpoint", &[("eax", 2), ("traps", 2)]),
    ("undefined_others", &[("ecx", 0xcccc_0002), ("traps", 2)]),
    ("trap_int1", &[("eax", 1), ("traps", 1)]),
    ("virtual_machine", &[("ecx", 0xcccc_0002), ("traps", 4)]),
    ("emulate_prefix", &[("eax", 0), ("esi", 0x5151_0006), ("traps", 2)]),
    ("narrow_address", &[("eax", 17), ("traps", 0)]),
    ("overflow", &[("eax", 0x8000_0000), ("traps", 1)]),
    // nop, mov, call, lea, ret, push, popf.
    ("single_step", &[("traps", 7)]),
    ("pf_map", &[("traps", 6), ("edi", 0x55)]),
    ("user_iret", &[("eax", 7 + 6 + 5 + 4 + 3 + 2 + 1), ("ebx", 0x1b), ("edx", 8), ("traps", 1)]),
];
