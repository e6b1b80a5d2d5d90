//! What each snippet of `guest-images/bare/powerpc` executes, counted by hand from its source.

use super::snippet::{Snippet, snippet};

/// The conditions in the order of the snippets that go through them.
const CONDITIONS: [&str; 8] = ["lt", "le", "eq", "ge", "gt", "ne", "so", "ns"];

/// All conditions; a bit of `not_taken` for each, the first one highest.
fn conditions(name: &'static str, not_taken: u8) -> Snippet {
    let mut labels = Vec::new();
    for (place, condition) in CONDITIONS.iter().enumerate() {
        labels.push((format!("not_{condition}"), u64::from(not_taken >> (7 - place) & 1)));
        labels.push((format!("after_{condition}"), 1));
    }
    Snippet { name, runs: 3, labels }
}

/// Every snippet.
pub(crate) fn all() -> Vec<Snippet> {
    vec![
        snippet("nops", 10, &[]),
        snippet("jump", 10, &[("never", 0), ("backward", 1), ("forward", 1)]),
        conditions("less", 0b0011_1010),
        conditions("greater", 0b1110_0010),
        conditions("equal_overflow", 0b1000_1101),
        snippet("loop", 20, &[("body", 5), ("after", 1)]),
        snippet("loop_self", 20, &[("branch", 9), ("after", 1)]),
        snippet("loop_wraps", 20, &[("not_taken", 0), ("taken", 1)]),
        snippet("counter_zero", 20, &[("not_taken", 0), ("taken", 1), ("two", 1)]),
        snippet(
            "counter_and_condition",
            20,
            &[
                ("until_three", 3),
                ("three", 1),
                ("until_zero", 3),
                ("zero", 1),
                ("zt_not_taken", 0),
                ("zt", 1),
                ("zf_not_taken", 1),
                ("nzt_not_taken", 0),
                ("nzt", 1),
            ],
        ),
        snippet("call_direct", 20, &[("back", 1), ("callee", 2)]),
        snippet("call_conditional", 20, &[("back", 1), ("callee", 1)]),
        snippet("call_register", 20, &[("back", 1), ("callee", 3)]),
        snippet("where_am_i", 20, &[("link", 1)]),
        snippet("return_conditional", 20, &[("equal", 1), ("never", 0)]),
        snippet("return_counted", 20, &[("back", 1), ("callee", 1), ("again", 1), ("counted", 1)]),
        snippet("tail_call", 20, &[("never", 0), ("callee", 1)]),
        snippet("by_target_register", 20, &[("never", 0), ("one", 1), ("equal", 1), ("never_too", 0), ("two", 1)]),
        snippet("recursion", 5, &[("back", 1), ("enter", 8), ("call", 7), ("leave", 8)]),
        snippet("loads", 20, &[]),
        snippet("stores", 20, &[]),
        snippet("multiple", 20, &[("load", 1), ("store", 1), ("after", 1)]),
        snippet("cache", 20, &[]),
        snippet("reserve", 20, &[("again", 1), ("after", 1)]),
        snippet("reserve_lost", 20, &[("again", 2), ("lose", 1), ("keep", 1), ("check", 2), ("after", 1)]),
        snippet("prefixed", 20, &[]),
        snippet("prefixed_at_a_line", 20, &[("last", 1), ("next_line", 1)]),
        snippet("arithmetic", 20, &[]),
        snippet("logic", 20, &[]),
        snippet("conditions", 20, &[]),
        snippet("system_call", 20, &[]),
        snippet("hypervisor", 20, &[]),
        snippet("trap", 20, &[("untaken", 1), ("always", 1), ("equal", 1), ("after", 1)]),
        snippet("trap_retried", 20, &[("twice", 2), ("between", 1), ("thrice", 3), ("after", 1)]),
        snippet("illegal", 20, &[("illegal", 1), ("after", 1)]),
        snippet("unaligned_reservation", 20, &[("load", 1), ("after", 1)]),
        snippet("machine_state", 20, &[]),
        snippet("return_from_interrupt", 20, &[("never", 0), ("target", 1)]),
        snippet("return_loop", 20, &[("again", 4), ("return", 3), ("never", 0), ("after", 1)]),
        snippet("special_registers", 20, &[]),
    ]
}

/// Those that there are not with 32 bits.
const ONLY_64: [&str; 5] =
    ["by_target_register", "prefixed", "prefixed_at_a_line", "hypervisor", "unaligned_reservation"];

/// Every snippet of the guest with 32 bits.
pub(crate) fn all_32() -> Vec<Snippet> {
    let mut all = all();
    all.retain(|snippet| !ONLY_64.contains(&snippet.name));
    all
}

/// Where attempts and completions differ: an instruction that traps and is tried again, and is given up by the handler in
/// the end. How often the one at the label completes in one run. In little endian `multiple` completes neither.
pub(crate) const COMPLETED: [(&str, &str, u64); 6] = [
    ("trap", "always", 0),
    ("trap", "equal", 0),
    ("trap_retried", "twice", 0),
    ("trap_retried", "thrice", 0),
    ("illegal", "illegal", 0),
    ("unaligned_reservation", "load", 0),
];

/// What some of them must leave.
pub(crate) const LITERALS: [(&str, &[(&str, u64)]); 17] = [
    ("less", &[("r4", 0x3a)]),
    ("greater", &[("r4", 0xe2)]),
    ("equal_overflow", &[("r4", 0x8d)]),
    ("loop", &[("r4", 5), ("ctr", 0)]),
    ("loop_wraps", &[("r4", 0), ("ctr", u64::MAX)]),
    ("counter_and_condition", &[("r4", 3), ("r5", 3), ("ctr", 1)]),
    ("call_register", &[("r3", 0x0444_40c0_c000_0036)]),
    // 0 + 0 + 1 + ... + 7.
    ("recursion", &[("r3", 28)]),
    ("reserve_lost", &[("r5", 1)]),
    ("prefixed", &[("r3", 0x1234_5678), ("r6", u64::MAX)]),
    ("prefixed_at_a_line", &[("r3", 0x0765_4321), ("r4", 0x0765_4322)]),
    ("system_call", &[("r3", 0x0444_40c0_c000_0233), ("traps", 2)]),
    // H_FUNCTION.
    ("hypervisor", &[("r3", u64::MAX - 1), ("traps", 0)]),
    ("trap", &[("traps", 2)]),
    ("trap_retried", &[("r4", 2), ("traps", 5)]),
    ("unaligned_reservation", &[("traps", 1)]),
    ("return_loop", &[("r5", 0), ("traps", 0)]),
];

/// The same with 32 bits.
pub(crate) const COMPLETED_32: [(&str, &str, u64); 5] = [
    ("trap", "always", 0),
    ("trap", "equal", 0),
    ("trap_retried", "twice", 0),
    ("trap_retried", "thrice", 0),
    ("illegal", "illegal", 0),
];

pub(crate) const LITERALS_32: [(&str, &[(&str, u64)]); 13] = [
    ("less", &[("r4", 0x3a)]),
    ("greater", &[("r4", 0xe2)]),
    ("equal_overflow", &[("r4", 0x8d)]),
    ("loop", &[("r4", 5), ("ctr", 0)]),
    ("loop_wraps", &[("r4", 0), ("ctr", 0xffff_ffff)]),
    ("counter_and_condition", &[("r4", 3), ("r5", 3), ("ctr", 1)]),
    ("call_register", &[("r3", 0x1111_0306)]),
    // 0 + 0 + 1 + ... + 7.
    ("recursion", &[("r3", 28)]),
    ("reserve_lost", &[("r5", 1)]),
    ("system_call", &[("r3", 0x1111_0503), ("traps", 2)]),
    ("trap", &[("traps", 2)]),
    ("trap_retried", &[("r4", 2), ("traps", 5)]),
    ("return_loop", &[("r5", 0), ("traps", 0)]),
];
