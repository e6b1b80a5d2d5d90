//! What the kernel's own kprobes refuse, emulate, or get wrong on x86, one test for each: here each is an instruction like any
//! other, because it runs where it stands. Every test looks at some snippets, in the guests for x86_64 and i386 and in each QEMU, with
//! a probe before and behind each instruction, first a counter and then an event: the states must be those without probes and those
//! of the tables, and so must the counts. It also looks whether the instructions that it is about are in those snippets. All
//! tests share the boots ([`probed`]).
//!
//! How the kernel treats instructions (`arch/x86/kernel/kprobes/core.c`, `can_probe`, `prepare_emulation`):
//!
//! | instruction | kernel | test |
//! | --- | --- | --- |
//! | int3, int n, into, int1, ud0, ud1, ud2 | EILSEQ | [`refused_int3_int_n_into_int1_ud`] |
//! | iret, far call, far jmp | EOPNOTSUPP | [`refused_iret_and_far_transfers`] |
//! | call and jmp through memory (FF /2, /4) | EOPNOTSUPP | [`refused_call_and_jmp_through_memory`] |
//! | the same with another size of addresses | EOPNOTSUPP | [`refused_call_and_jmp_with_another_address_size`] |
//! | vmcall, vmlaunch, vmresume, vmxoff | EOPNOTSUPP | [`refused_vmcall_family`] |
//! | mov to %ss, pop %ss | EINVAL | [`refused_mov_and_pop_ss`] |
//! | `ud2; "xen"`, `ud2; "kvm"` | EINVAL | [`refused_xen_and_kvm_prefixes`] |
//! | 15 bytes | ENOSPC | [`refused_15_bytes`] |
//! | cli, sti, pushf, popf | emulated | [`emulated_cli_sti_pushf_popf`] |
//! | ret, lret | emulated | [`emulated_ret_and_lret`] |
//! | call, jmp, jcc, loop, jcxz, through registers too | emulated | [`emulated_call_jmp_jcc_loop_jcxz`] |
//! | all others | stepped elsewhere, or boosted | [`stepped_all_others`] |
//!
//! There is no boosting here, and nothing to fix up behind a step: nothing is moved. What kprobes get wrong:
//!
//! | | probe on | test |
//! | --- | --- | --- |
//! | X1 | `loop` with 1 and 0 in the counter | [`x1_loop_counts_before_it_looks`] |
//! | X2 | `ret $16`, `lret $16` | [`x2_ret_pops_its_immediate`] |
//! | X3 | `cs call`, six bytes | [`x3_cs_call_returns_behind_itself`] |
//! | X4 | a return probe on `__switch_to` | `x4_*` of `switches.rs` |
//! | X5 | the first emulated instruction: a warning | `x5_*` of `switches.rs` |

use qkprobe_tests::Qemu;

use crate::{CASES, Guest, Site, common, i386, probed, sites, x86_64};

/// What a row is about: snippets, and how instructions begin of which there must be one each.
struct Row {
    snippets: &'static [&'static str],
    begins: &'static [&'static [u8]],
}

/// With counters, and with callbacks that read registers and memory.
#[track_caller]
fn check(guest: &Guest, Row { snippets, begins }: &Row) {
    let all = sites(&common::image(guest.kernel), guest);
    let is_of = |site: &Site, snippet: &str| site.name.rsplit_once('_').is_some_and(|(name, _)| name == snippet);
    for snippet in *snippets {
        assert!(all.iter().any(|site| is_of(site, snippet)), "{}: no snippet {snippet}", guest.kernel.name());
    }
    let sites: Vec<&Site> = all.iter().filter(|site| snippets.iter().any(|snippet| is_of(site, snippet))).collect();
    for begin in *begins {
        let ran = sites.iter().any(|site| site.bytes.starts_with(begin) && site.hits > 0);
        assert!(ran, "{}: no {begin:02x?} is executed in {snippets:?}", guest.kernel.name());
    }
    for qemu in Qemu::selected() {
        for case in [CASES[0], CASES[5]] {
            probed(qemu, guest, case).assert_right(qemu, guest, &sites, snippets);
        }
    }
}

#[track_caller]
fn row(wide: &Row, narrow: &Row) {
    check(&x86_64(), wide);
    check(&i386(), narrow);
}

#[test]
fn refused_int3_int_n_into_int1_ud() {
    let begins: &[&[u8]] =
        &[&[0xcc], &[0xcd, 0x03], &[0xcd, 0x80], &[0xf1], &[0x0f, 0xff], &[0x0f, 0xb9], &[0x0f, 0x0b]];
    let wide =
        Row { snippets: &["breakpoint", "software_interrupt", "trap_int1", "undefined", "undefined_others"], begins };
    row(&wide, &Row { begins, ..wide });
    check(&i386(), &Row { snippets: &["overflow"], begins: &[&[0xce]] });
}

#[test]
fn refused_iret_and_far_transfers() {
    // REX.W stands before iretq, and before a far transfer with an offset of 64 bits.
    row(
        &Row {
            snippets: &["iret_same_stack", "iret_other_stack", "far_memory"],
            begins: &[&[0x48, 0xcf], &[0x48, 0xff, 0x1d], &[0x48, 0xff, 0x2b]],
        },
        &Row {
            snippets: &["iret_same_stack", "far_direct", "far_memory"],
            begins: &[&[0xcf], &[0x9a], &[0xea], &[0xff, 0x1d], &[0xff, 0x2b]],
        },
    );
}

#[test]
fn refused_call_and_jmp_through_memory() {
    // call *DISP; call *(%rbx); call *8(%rbx); call *(%rbx,%rcx,8); jmp *(%rbx); jmp *DISP(,%rcx,8).
    row(
        &Row {
            snippets: &["call_memory", "jmp_indirect"],
            begins: &[
                &[0xff, 0x15],
                &[0xff, 0x13],
                &[0xff, 0x53, 0x08],
                &[0xff, 0x14, 0xcb],
                &[0xff, 0x23],
                &[0xff, 0x24, 0xcd],
            ],
        },
        &Row {
            snippets: &["call_memory", "jmp_indirect"],
            begins: &[&[0xff, 0x15], &[0xff, 0x13], &[0xff, 0x53, 0x04], &[0xff, 0x14, 0x8b], &[0xff, 0x23]],
        },
    );
}

#[test]
fn refused_call_and_jmp_with_another_address_size() {
    // (%ebx) and (%ebx,%ecx,8); (%bx) and 4(%bx).
    row(
        &Row { snippets: &["narrow_address"], begins: &[&[0x67, 0xff, 0x13], &[0x67, 0xff, 0x24, 0xcb]] },
        &Row { snippets: &["narrow_address"], begins: &[&[0x67, 0xff, 0x17], &[0x67, 0xff, 0x67, 0x04]] },
    );
}

#[test]
fn refused_vmcall_family() {
    let begins: &[&[u8]] = &[&[0x0f, 0x01, 0xc1], &[0x0f, 0x01, 0xc2], &[0x0f, 0x01, 0xc3], &[0x0f, 0x01, 0xc4]];
    let row_of = || Row { snippets: &["virtual_machine"], begins };
    row(&row_of(), &row_of());
}

#[test]
fn refused_mov_and_pop_ss() {
    // There is no pop %ss with 64 bits.
    row(
        &Row { snippets: &["stack_segment"], begins: &[&[0x8e, 0xd0]] },
        &Row { snippets: &["stack_segment"], begins: &[&[0x8e, 0xd0], &[0x17]] },
    );
}

#[test]
fn refused_xen_and_kvm_prefixes() {
    let row_of = || Row { snippets: &["emulate_prefix"], begins: &[&[0x0f, 0x0b], &[0x0f, 0xa2]] };
    row(&row_of(), &row_of());
}

#[test]
fn refused_15_bytes() {
    for guest in [x86_64(), i386()] {
        let sites = sites(&common::image(guest.kernel), &guest);
        let longest = sites.iter().filter(|site| site.name.starts_with("longest_") && site.hits > 0);
        assert!(longest.filter(|site| site.bytes.len() == 15).count() > 2, "{}", guest.kernel.name());
        check(&guest, &Row { snippets: &["longest"], begins: &[] });
    }
}

#[test]
fn emulated_cli_sti_pushf_popf() {
    let begins: &[&[u8]] = &[&[0xfa], &[0xfb], &[0x9c], &[0x9d], &[0x66, 0x9c], &[0x66, 0x9d]];
    let row_of = || Row { snippets: &["interrupt_flag", "flags"], begins };
    row(&row_of(), &row_of());
}

#[test]
fn emulated_ret_and_lret() {
    const SNIPPETS: &[&str] = &["ret_imm", "ret_imm0", "ret_rep", "ret_as_jump", "far_ret", "far_ret_imm"];
    row(
        &Row {
            snippets: SNIPPETS,
            begins: &[&[0xc3], &[0xf3, 0xc3], &[0xc2, 0x10, 0], &[0xc2, 0, 0], &[0x48, 0xcb], &[0x48, 0xca]],
        },
        &Row { snippets: SNIPPETS, begins: &[&[0xc3], &[0xf3, 0xc3], &[0xc2], &[0xcb], &[0xca]] },
    );
}

#[test]
fn emulated_call_jmp_jcc_loop_jcxz() {
    const SNIPPETS: [&str; 14] = [
        "call_direct",
        "call_register",
        "jmp_direct",
        "jmp_indirect",
        "jcc_none",
        "jcc_all",
        "jcc_sign",
        "loop_rcx5",
        "loop_self",
        "loope_flag",
        "loope_count",
        "loopne_flag",
        "loopne_edges",
        "loope_edges",
    ];
    // call and jmp, jo to jg of both lengths, loopne to loop, jmp *%edx.
    let begins: &[&[u8]] = &[
        &[0xe8],
        &[0xeb],
        &[0xe9],
        &[0x70],
        &[0x7f],
        &[0x0f, 0x80],
        &[0x0f, 0x8f],
        &[0xe0],
        &[0xe1],
        &[0xe2],
        &[0xff, 0xd0],
        &[0xff, 0xe2],
    ];
    row(&Row { snippets: &SNIPPETS, begins }, &Row { snippets: &SNIPPETS, begins });
    row(
        &Row { snippets: &["jrcxz", "loop_ecx"], begins: &[&[0xe3], &[0x67, 0xe3], &[0x67, 0xe2]] },
        &Row { snippets: &["jcxz", "loop_cx"], begins: &[&[0xe3], &[0x67, 0xe3], &[0x67, 0xe2]] },
    );
}

#[test]
fn stepped_all_others() {
    // An address relative to %rip, and what kprobes never boost: strings, and more.
    row(
        &Row {
            snippets: &[
                "push_pop",
                "exchange",
                "bits",
                "multiply_divide",
                "shifts",
                "strings_repeated",
                "moves",
                "vectors",
            ],
            begins: &[&[0xf3]],
        },
        &Row {
            snippets: &["push_pop", "exchange", "bits", "multiply_divide", "shifts", "strings_repeated", "moves"],
            begins: &[&[0xf3]],
        },
    );
}

#[test]
fn x1_loop_counts_before_it_looks() {
    let row_of = || Row { snippets: &["loop_rcx0", "loop_rcx1"], begins: &[&[0xe2]] };
    row(&row_of(), &row_of());
}

#[test]
fn x2_ret_pops_its_immediate() {
    row(
        &Row { snippets: &["ret_imm", "far_ret_imm"], begins: &[&[0xc2, 0x10, 0], &[0x48, 0xca, 0x10, 0]] },
        &Row { snippets: &["ret_imm", "far_ret_imm"], begins: &[&[0xc2], &[0xca]] },
    );
}

#[test]
fn x3_cs_call_returns_behind_itself() {
    let row_of = || Row { snippets: &["call_cs"], begins: &[&[0x2e, 0xe8]] };
    row(&row_of(), &row_of());
}
