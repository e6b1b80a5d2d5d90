//! What each snippet of `guest-images/bare` for x86_64 executes, counted by hand from its source.

/// A snippet, or a piece of code that a snippet uses.
pub(crate) struct Snippet {
    /// The symbol, without `snip_`.
    pub(crate) name: &'static str,
    /// How often the harness calls it, or how often it is called in all.
    pub(crate) runs: u64,
    /// From a label on, how often each instruction is attempted in one run. Up to the first label: once.
    pub(crate) labels: Vec<(String, u64)>,
    /// Runs in user mode.
    pub(crate) user: bool,
}

pub(crate) fn snippet(name: &'static str, runs: u64, labels: &[(&str, u64)]) -> Snippet {
    let labels = labels.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
    Snippet { name, runs, labels, user: false }
}

pub(crate) fn user(name: &'static str, runs: u64, labels: &[(&str, u64)]) -> Snippet {
    Snippet { user: true, ..snippet(name, runs, labels) }
}

/// The conditions in the order of the snippets that go through them.
const CONDITIONS: [&str; 16] = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"];

/// All conditional jumps, short and long ones; a bit of `not_taken` for each condition, the first one highest.
pub(crate) fn jumps(name: &'static str, not_taken: u16) -> Snippet {
    let mut labels = Vec::new();
    for prefix in ["", "far_"] {
        for (place, condition) in CONDITIONS.iter().enumerate() {
            labels.push((format!("{prefix}not_{condition}"), u64::from(not_taken >> (15 - place) & 1)));
            labels.push((format!("{prefix}after_{condition}"), 1));
        }
    }
    Snippet { name, runs: 3, labels, user: false }
}

/// Four instructions that trap, and are skipped.
fn virtual_machine() -> Snippet {
    let labels = ["vmcall", "vmlaunch", "vmresume", "vmxoff"]
        .into_iter()
        .flat_map(|call| [(call.to_owned(), 1), (format!("never_{call}"), 0), (format!("after_{call}"), 1)]);
    Snippet { name: "virtual_machine", runs: 10, labels: labels.collect(), user: false }
}

/// Every snippet, by the files of the guest.
pub(crate) fn all() -> Vec<Snippet> {
    let mut all = flow();
    all.extend(shapes());
    all.extend(data());
    all.extend(system());
    all
}

fn flow() -> Vec<Snippet> {
    vec![
        snippet("loop_rcx0", 3, &[("not_taken", 0), ("taken", 1)]),
        snippet("loop_rcx1", 3, &[("not_taken", 1), ("taken", 0)]),
        snippet("loop_rcx5", 100, &[("again", 5), ("after", 1)]),
        snippet("loop_self", 3, &[("self", 9), ("after", 1)]),
        snippet("loope_flag", 3, &[("again", 4), ("after", 1)]),
        snippet("loope_count", 3, &[("again", 3), ("after", 1)]),
        snippet(
            "loope_edges",
            3,
            &[("rcx1_not_taken", 1), ("rcx0_not_taken", 0), ("rcx0_taken", 1), ("ne_not_taken", 1)],
        ),
        snippet("loopne_flag", 3, &[("again", 3), ("after", 1)]),
        snippet(
            "loopne_edges",
            3,
            &[("rcx1_not_taken", 1), ("rcx0_not_taken", 0), ("rcx0_taken", 1), ("e_not_taken", 1)],
        ),
        snippet("loop_ecx", 3, &[("again", 2), ("after", 1)]),
        snippet(
            "jrcxz",
            3,
            &[("rcx_set", 1), ("ecx_set", 0), ("ecx_zero", 1), ("rcx_not_zero", 0), ("rcx_zero", 1), ("ecx_one", 1)],
        ),
        snippet("ret_imm", 10, &[]),
        snippet("ret_imm0", 3, &[]),
        snippet("ret_rep", 10, &[]),
        snippet("ret_as_jump", 10, &[("never", 0), ("out", 1), ("target", 1)]),
        snippet("call_cs", 10, &[("site", 1)]),
        snippet("call_direct", 100, &[("back", 1), ("callee", 2)]),
        snippet("call_register", 3, &[("callee", 2)]),
        snippet("call_memory", 10, &[("one", 3), ("two", 1), ("three", 1)]),
        snippet("narrow_address", 10, &[("never", 0), ("callee", 1), ("target", 1)]),
        snippet("jmp_direct", 3, &[("never_1", 0), ("middle", 1), ("never_2", 0), ("first", 1), ("last", 1)]),
        snippet("jmp_indirect", 10, &[("never_1", 0), ("one", 1), ("two", 1), ("three", 1), ("four", 1), ("five", 1)]),
        jumps("jcc_none", 0b1010_1010_1010_1010),
        jumps("jcc_all", 0b0101_0101_0101_1001),
        jumps("jcc_sign", 0b1010_1010_0110_0101),
        snippet("far_ret", 3, &[("other", 1), ("back", 1)]),
        snippet("far_ret_imm", 3, &[("back", 1)]),
        snippet("far_memory", 3, &[("never", 0), ("callee", 1), ("target", 1), ("back", 1)]),
        snippet("iret_same_stack", 3, &[("back", 1)]),
        snippet("iret_other_stack", 3, &[("other", 1), ("back", 1)]),
    ]
}

fn shapes() -> Vec<Snippet> {
    vec![
        snippet("recursion", 10, &[("self", 10), ("deeper", 9), ("leaf", 10)]),
        snippet("recursion_pair", 3, &[("even", 4), ("even_deeper", 4), ("odd", 4), ("odd_deeper", 3), ("out", 1)]),
        snippet("tail_call", 10, &[("never", 0), ("tail", 1)]),
        snippet("tail_callee", 10, &[]),
        snippet(
            "unwind",
            10,
            &[("never_1", 0), ("first", 1), ("never_2", 0), ("second", 1), ("never_3", 0), ("third", 1), ("landed", 1)],
        ),
        snippet("switch_stacks", 10, &[("other", 1), ("other_again", 1), ("other_at_last", 1), ("switch", 6)]),
        snippet("left_for_good", 3, &[("never", 0), ("callee", 1)]),
        snippet("identity", 10, &[("low", 1), ("high", 1), ("both", 2)]),
        snippet("longest", 10, &[("never", 0), ("after", 1), ("not_taken", 0), ("last", 1)]),
        // The guest sees each store once. QEMU begins one that changes its own block, finds the block gone, and does the
        // store again in a block of one instruction: the probe fires twice. Nothing in the plugin API tells them apart.
        snippet("self_modifying", 10, &[("ahead", 2), ("changed", 1), ("behind", 2), ("after", 1)]),
        snippet("nops", 10, &[]),
        snippet("frame", 10, &[("body", 5), ("condition", 6), ("epilogue", 1)]),
        snippet("page_cross", 10, &[("again", 5), ("after", 1), ("callee", 1)]),
    ]
}

fn data() -> Vec<Snippet> {
    vec![
        snippet("push_pop", 10, &[]),
        snippet("push_rsp", 10, &[]),
        snippet("enter_leave", 10, &[]),
        snippet("exchange", 10, &[]),
        snippet("exchange_wide", 10, &[]),
        snippet("bits", 10, &[]),
        snippet("multiply_divide", 10, &[]),
        snippet("shifts", 10, &[]),
        snippet("chains", 10, &[]),
        snippet("values_none", 3, &[]),
        snippet("values_all", 3, &[]),
        snippet("values_sign", 3, &[]),
        snippet("strings_repeated", 10, &[]),
        snippet("strings", 10, &[]),
        snippet("moves", 10, &[]),
        snippet("vectors", 10, &[]),
    ]
}

fn system() -> Vec<Snippet> {
    let fault = [("fault", 1), ("never", 0), ("after", 1)];
    vec![
        snippet("interrupt_flag", 10, &[]),
        snippet("flags", 10, &[]),
        snippet("stack_segment", 10, &[]),
        snippet("segments", 10, &[]),
        snippet("control_registers", 10, &[]),
        snippet("debug_registers", 3, &[]),
        snippet("model_registers", 10, &[]),
        snippet("identify", 3, &[]),
        snippet("timestamp", 10, &[]),
        snippet("flush", 10, &[]),
        snippet("ports", 3, &[]),
        snippet("breakpoint", 10, &[("trap_1", 1), ("after", 1), ("trap_2", 1), ("after_2", 1)]),
        snippet("single_step", 10, &[]),
        snippet("hardware_breakpoint", 10, &[("here", 1)]),
        // As with `self_modifying`: QEMU notices the watchpoint in the middle of a block, and begins again with a block of
        // this one instruction.
        snippet("hardware_watchpoint", 10, &[("write", 2), ("mid_1", 1), ("rmw", 2), ("mid_2", 1)]),
        snippet("software_interrupt", 10, &[("trap_1", 1), ("after", 1)]),
        snippet("undefined", 10, &[("trap_1", 1), ("never", 0), ("after", 1)]),
        snippet(
            "undefined_others",
            10,
            &[("ud1", 1), ("never_1", 0), ("after_ud1", 1), ("ud0", 1), ("never_2", 0), ("after_ud0", 1)],
        ),
        snippet("trap_int1", 10, &[("trap_1", 1), ("after", 1)]),
        virtual_machine(),
        snippet(
            "emulate_prefix",
            10,
            &[("xen", 1), ("xen_words", 0), ("after_xen", 1), ("kvm", 1), ("kvm_words", 0), ("after_kvm", 1)],
        ),
        snippet("divide_error", 10, &fault),
        snippet("general_fault", 10, &fault),
        snippet("pf_skip", 10, &fault),
        // What faults is attempted twice; its probe fires before each attempt, as a breakpoint there would.
        snippet(
            "pf_map",
            10,
            &[
                ("load", 2),
                ("mid_1", 1),
                ("push", 2),
                ("mid_2", 1),
                ("rmw", 2),
                ("mid_3", 1),
                ("call", 2),
                ("mid_4", 1),
                ("pop", 2),
                ("mid_5", 1),
                ("jump", 2),
                ("callee", 2),
            ],
        ),
        snippet("pf_rep", 10, &[]),
        snippet("halt", 5, &[]),
        snippet("user_iret", 10, &[("enter", 1), ("back", 1)]),
        user("user_code", 10, &[("again", 7), ("after", 1), ("leave", 1), ("callee", 1)]),
        snippet("user_syscall", 10, &[("enter", 1), ("entry", 1)]),
        user("user_calls", 10, &[("leave", 1)]),
    ]
}

/// Code that the harness does not call by itself.
pub(crate) const FRAGMENTS: [&str; 3] = ["tail_callee", "user_code", "user_calls"];

/// Where execution leaves the straight line on purpose, by the label of the instruction: traps, what faults and is
/// skipped, and the ways to user mode and back. There is no "after" of these.
pub(crate) const LEAVES: [(&str, &str); 18] = [
    ("breakpoint", "trap_1"),
    ("breakpoint", "trap_2"),
    ("software_interrupt", "trap_1"),
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
    ("user_syscall", "enter"),
    ("user_calls", "leave"),
];

/// What is attempted twice and completes once, by the label of the instruction.
pub(crate) const RESTARTED: [(&str, &str); 10] = [
    ("pf_map", "load"),
    ("pf_map", "push"),
    ("pf_map", "rmw"),
    ("pf_map", "call"),
    ("pf_map", "pop"),
    ("pf_map", "jump"),
    ("self_modifying", "ahead"),
    ("self_modifying", "behind"),
    ("hardware_watchpoint", "write"),
    ("hardware_watchpoint", "rmw"),
];

/// Registers after a snippet that follow from its source alone; `rsp` is the harness's own in all but one, which is
/// tested too. The first ones are where kprobes in the kernel go wrong.
pub(crate) const LITERALS: [(&str, &[(&str, u64)]); 46] = [
    // X1: counted down, then looked at. An in-kernel kprobe makes rax 1 and -1 of these.
    ("loop_rcx0", &[("rcx", 0xffff_ffff_ffff_ffff), ("rax", 0xffff_ffff)]),
    ("loop_rcx1", &[("rcx", 0), ("rax", 1)]),
    // X2: rbx is how far the stack pointer is off behind the call.
    ("ret_imm", &[("rbx", 0), ("rax", 5)]),
    ("far_ret_imm", &[("rbx", 0)]),
    // X3: how far the return address is from the call.
    ("call_cs", &[("rax", 6)]),
    ("loop_rcx5", &[("rcx", 0), ("rax", 5)]),
    ("loop_self", &[("rcx", 0)]),
    ("loope_flag", &[("rcx", 1), ("rax", 4)]),
    ("loope_count", &[("rcx", 0), ("rax", 3)]),
    ("loope_edges", &[("rcx", 0xffff_ffff_ffff_fffe), ("rax", 17)]),
    ("loopne_flag", &[("rcx", 2), ("rax", 3)]),
    ("loopne_edges", &[("rcx", 0xffff_ffff_ffff_fffe), ("rax", 17)]),
    ("loop_ecx", &[("rcx", 0), ("rax", 2)]),
    ("jrcxz", &[("rcx", 1), ("rax", 2)]),
    ("ret_imm0", &[("rbx", 0), ("rax", 6)]),
    ("ret_rep", &[("rbx", 0), ("rax", 7)]),
    ("call_register", &[("rdx", 0xdddd_0000_dddd_0005)]),
    ("call_memory", &[("rax", 231)]),
    ("jmp_direct", &[("rax", 1)]),
    ("jmp_indirect", &[("rax", 4), ("rdx", 0x77)]),
    ("jcc_none", &[("rax", 0b1010_1010_1010_1010), ("rbx", 0b1010_1010_1010_1010)]),
    ("jcc_all", &[("rax", 0b0101_0101_0101_1001), ("rbx", 0b0101_0101_0101_1001)]),
    ("jcc_sign", &[("rax", 0b1010_1010_0110_0101), ("rbx", 0b1010_1010_0110_0101)]),
    ("values_none", &[("rax", 0b0101_0101_0101_0101)]),
    ("values_all", &[("rax", 0b1010_1010_1010_0110)]),
    ("values_sign", &[("rax", 0b0101_0101_1001_1010)]),
    ("far_ret", &[("rcx", 0x40), ("rdx", 8), ("rbx", 0)]),
    ("far_memory", &[("rcx", 0x40), ("rdx", 8), ("rsi", 0x40), ("rdi", 8)]),
    ("recursion", &[("rax", 9), ("rcx", 0)]),
    ("recursion_pair", &[("rax", 4 + 3 * 16), ("rdx", 0xdddd_0000_dddd_0004)]),
    ("switch_stacks", &[("rcx", 2 + 3 * 16)]),
    ("self_modifying", &[("rax", 0xaaaa_0000_aaaa_0011), ("rcx", 2)]),
    ("interrupt_flag", &[("rax", 0x2), ("rbx", 0x202), ("rcx", 0x2)]),
    ("flags", &[("rax", 0x8d7), ("rbx", 0x203), ("rcx", 0x442), ("rdi", 0x87), ("flags", 0x802)]),
    ("breakpoint", &[("rax", 2), ("traps", 2)]),
    ("undefined_others", &[("rcx", 0xcccc_0000_cccc_0002), ("traps", 2)]),
    ("trap_int1", &[("rax", 1), ("traps", 1)]),
    ("virtual_machine", &[("rcx", 0xcccc_0000_cccc_0002), ("traps", 4)]),
    ("emulate_prefix", &[("rax", 0), ("rsi", 0x5151_0000_5151_0006), ("traps", 2)]),
    ("narrow_address", &[("rax", 17), ("rcx", 1), ("traps", 0)]),
    // nop, mov, call, lea, ret, push, popfq.
    ("single_step", &[("traps", 7)]),
    ("hardware_breakpoint", &[("traps", 1), ("rdx", 1)]),
    ("hardware_watchpoint", &[("traps", 2)]),
    ("pf_map", &[("traps", 6), ("r8", 0x55)]),
    ("halt", &[("rax", 1), ("irqs", 1)]),
    ("user_iret", &[("rax", 7 + 6 + 5 + 4 + 3 + 2 + 1), ("rbx", 0x2b), ("rdx", 8), ("traps", 1)]),
];
