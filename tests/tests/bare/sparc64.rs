//! What each snippet of `guest-images/bare/sparc64` executes, counted by hand from its source.

use super::snippet::{Snippet, snippet};

/// The conditions in the order of the snippets that go through them.
const CONDITIONS: [&str; 14] = ["ne", "g", "ge", "gu", "cc", "pos", "vc", "e", "le", "l", "leu", "cs", "neg", "vs"];

/// All conditions; a bit of `not_taken` for each, the first one highest.
fn conditions(name: &'static str, not_taken: u16) -> Snippet {
    let mut labels = Vec::new();
    for (place, condition) in CONDITIONS.iter().enumerate() {
        labels.push((format!("not_{condition}"), u64::from(not_taken >> (13 - place) & 1)));
        labels.push((format!("after_{condition}"), 1));
    }
    Snippet { name, runs: 3, labels }
}

/// Every snippet.
pub(crate) fn all() -> Vec<Snippet> {
    vec![
        snippet("nops", 10, &[]),
        snippet("taken", 10, &[("slot", 1), ("not_taken", 0), ("target", 1)]),
        snippet("untaken", 10, &[("slot", 1), ("not_taken", 1), ("target", 0)]),
        snippet("annulled_taken", 10, &[("slot", 1), ("not_taken", 0), ("target", 1)]),
        snippet("annulled_untaken", 10, &[("slot", 0), ("not_taken", 1), ("target", 0)]),
        snippet("always", 10, &[("slot", 1), ("never", 0), ("target", 1)]),
        snippet("always_annulled", 10, &[("slot", 0), ("target", 1)]),
        snippet("never", 10, &[("slot", 1), ("next", 1), ("target", 0)]),
        snippet("never_annulled", 10, &[("slot", 0), ("next", 1), ("target", 0)]),
        conditions("conditions_none", 0b00_0000_0111_1111),
        conditions("conditions_zero", 0b11_0100_0001_0111),
        conditions("conditions_negative", 0b01_1001_0100_1101),
        conditions("conditions_xcc", 0b00_0000_0111_1111),
        snippet(
            "on_register",
            10,
            &[
                ("z_not_taken", 0),
                ("z", 1),
                ("nz_slot", 0),
                ("nz_not_taken", 1),
                ("lz_not_taken", 0),
                ("lz", 1),
                ("gez_not_taken", 1),
                ("gez", 1),
                ("lez_not_taken", 0),
                ("lez", 1),
                ("gz_slot", 0),
                ("gz_not_taken", 1),
            ],
        ),
        snippet("on_float", 10, &[("e_not_taken", 0), ("e", 1), ("ne_slot", 0), ("ne_not_taken", 1)]),
        snippet("loop", 20, &[("body", 5), ("after", 1)]),
        snippet("loop_annulled", 20, &[("body", 5), ("slot", 4), ("after", 1)]),
        snippet("loop_self", 20, &[("branch", 8), ("after", 1)]),
        snippet("call_direct", 20, &[("back", 1), ("callee", 2)]),
        snippet("call_register", 20, &[("over", 0), ("back", 1), ("callee", 2), ("first", 1), ("second", 1)]),
        snippet("call_tail", 20, &[("never", 0), ("callee", 1)]),
        snippet("read_pc", 10, &[("never", 0), ("target", 1)]),
        snippet("couple", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_jump", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_untaken", 20, &[("never", 0), ("one", 1), ("two", 0)]),
        snippet("couple_first_untaken", 20, &[("slot", 1), ("one", 0), ("two", 1)]),
        snippet("couple_call", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_on_flags", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_annulled_taken", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_annulled_untaken", 20, &[("slot", 0), ("next", 1), ("one", 0), ("two", 0)]),
        snippet("couple_annuls_taken", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("couple_annuls_untaken", 20, &[("never", 0), ("one", 0), ("behind_one", 1), ("two", 0)]),
        snippet("couple_annuls_always", 20, &[("never", 0), ("one", 0), ("behind_one", 0), ("two", 1)]),
        snippet(
            "couple_of_three",
            20,
            &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1), ("behind_two", 0), ("three", 1)],
        ),
        snippet("save_restore", 20, &[]),
        snippet("frame", 20, &[("back", 1), ("callee", 1)]),
        snippet("frame_return", 20, &[("back", 1), ("callee", 1)]),
        // 20 calls, 6 windows: 14 spills on the way down, 14 fills on the way up.
        snippet("deep", 5, &[("back", 1), ("save", 34), ("body", 20), ("call", 19), ("behind", 20), ("restore", 34)]),
        // `flushw` spills one window each time that it is tried.
        snippet(
            "deep_flushw",
            5,
            &[("back", 1), ("body", 5), ("call", 4), ("flush", 6), ("flushed", 1), ("behind", 5), ("restore", 10)],
        ),
        snippet("fill_at_return", 5, &[("back", 1), ("callee", 1), ("flush", 2), ("return", 2), ("slot", 1)]),
        snippet("clean", 5, &[("save", 2), ("cleaned", 1)]),
        snippet("loads", 20, &[]),
        snippet("stores", 20, &[]),
        snippet("ldstub_spin", 20, &[("try", 4), ("held", 3), ("release", 1), ("taken", 1)]),
        snippet("casx_loop", 20, &[("again", 2), ("slot", 1), ("after", 1)]),
        snippet("cas_swap", 20, &[]),
        snippet("arithmetic", 20, &[]),
        snippet("conditional_moves", 20, &[]),
        snippet("trap_counted", 20, &[]),
        snippet("trap_retried", 20, &[("twice", 2), ("after", 1)]),
        snippet("trap_skips", 20, &[("skipped", 0), ("after", 1)]),
        snippet("trap_in_slot", 20, &[("never", 0), ("target", 1)]),
        snippet("trap_retried_in_slot", 20, &[("twice", 2), ("never", 0), ("target", 1)]),
        snippet("faults", 20, &[("illegal", 1), ("load", 1), ("store", 1), ("divide", 1), ("after", 1)]),
        snippet("fault_in_slot", 20, &[("load", 1), ("never", 0), ("target", 1)]),
        snippet("retry_away", 20, &[("never", 0), ("target", 1)]),
        snippet("done_away", 20, &[("never", 0), ("target", 1)]),
        snippet("retry_in_slot", 20, &[("never", 0), ("one", 1), ("behind_one", 0), ("two", 1)]),
        snippet("privileged", 20, &[]),
    ]
}

/// Where attempts and completions differ: an instruction that traps and is tried again, or is given up by the handler.
/// How often the one at the label completes in one run.
pub(crate) const COMPLETED: [(&str, &str, u64); 14] = [
    ("deep", "save", 20),
    ("deep", "restore", 20),
    ("deep_flushw", "flush", 1),
    ("deep_flushw", "restore", 5),
    ("fill_at_return", "flush", 1),
    ("fill_at_return", "return", 1),
    ("clean", "save", 1),
    ("trap_retried", "twice", 1),
    ("trap_retried_in_slot", "twice", 1),
    ("faults", "illegal", 0),
    ("faults", "load", 0),
    ("faults", "store", 0),
    ("faults", "divide", 0),
    ("fault_in_slot", "load", 0),
];

/// What some of them must leave.
pub(crate) const LITERALS: [(&str, &[(&str, u64)]); 14] = [
    ("conditions_none", &[("o1", 0x7f)]),
    ("conditions_zero", &[("o1", 0x3417), ("ccr", 0x04)]),
    ("conditions_negative", &[("o1", 0x194d), ("ccr", 0x08)]),
    ("loop", &[("o0", 0), ("o1", 10)]),
    ("loop_annulled", &[("o0", 0), ("o1", 5)]),
    ("loop_self", &[("o0", u64::MAX)]),
    ("save_restore", &[("o1", 0x18c_0000_00c9), ("spills", 0), ("fills", 0)]),
    ("frame", &[("o0", 33), ("o1", 20)]),
    ("frame_return", &[("o0", 31)]),
    // 1 + (0 + 1 + ... + 19).
    ("deep", &[("o0", 191), ("spills", 14), ("fills", 14)]),
    ("deep_flushw", &[("o0", 11), ("spills", 5), ("fills", 5)]),
    ("clean", &[("o0", 0), ("traps", 1)]),
    ("trap_in_slot", &[("o0", 0x18c_0000_02c6), ("traps", 2)]),
    ("faults", &[("traps", 4)]),
];
