//! What the manual says, on bytes of real code. `arch/tests/native.rs` compares the same code with a CPU.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::fake::{Fake, HERE, MEMORY, slot};
use super::flags::{AF, CF, OF, PF, SF, STATUS, ZF};
use crate::x86::X86_64;
use crate::{Arch, Execute, ExecuteError, GuestAddr, NextPc};

/// X1: the kernel tests the counter before it decrements it.
#[test]
fn loop_counts_before_it_compares() {
    // loop .-0x10
    let code = [0xe2, 0xee];
    for (counter, distance, left) in [(1, 2, 0), (0, -16, u64::MAX), (2, -16, 1), (1 << 32, -16, 0xffff_ffff)] {
        let mut fake = Fake::new().with("cx", counter);
        assert_eq!(fake.distance(&code), distance, "rcx {counter}");
        assert_eq!(fake.get("cx"), left);
    }
    // addr32 loop .-0x10: the upper half neither counts nor survives.
    for (counter, distance, left) in [(0xabc_0000_0001, 3, 0), (0xabc_0000_0000, -16, 0xffff_ffff)] {
        let mut fake = Fake::new().with("cx", counter);
        assert_eq!(fake.distance(&[0x67, 0xe2, 0xed]), distance, "rcx {counter:#x}");
        assert_eq!(fake.get("cx"), left);
    }
}

/// X2: the kernel pops 8 bytes.
#[test]
fn ret_drops_the_arguments() {
    // ret $16; ret $0xfff0; ret; rep ret; data16 ret
    let cases: [(&[u8], u64); 5] =
        [(&[0xc2, 16, 0], 24), (&[0xc2, 0xf0, 0xff], 0xfff8), (&[0xc3], 8), (&[0xf3, 0xc3], 8), (&[0x66, 0xc3], 8)];
    for (code, dropped) in cases {
        let mut fake = Fake::new().with_word(0x80, 0xffff_ffff_8100_0123);
        assert_eq!(fake.distance(code), 0x123, "{code:x?}");
        assert_eq!(fake.get("sp"), MEMORY + 0x80 + dropped, "{code:x?}");
    }
}

/// X3: the kernel pushes P+5, whatever the prefixes.
#[test]
fn a_call_pushes_its_own_end() {
    let target = 0xffff_ffff_8100_0040;
    let cases: [(&str, &[u8]); 7] = [
        ("call .+0x40", &[0xe8, 0x3b, 0, 0, 0]),
        ("cs call .+0x40", &[0x2e, 0xe8, 0x3a, 0, 0, 0]),
        ("data16 call .+0x40", &[0x66, 0xe8, 0x3a, 0, 0, 0]),
        ("call *%r11", &[0x41, 0xff, 0xd3]),
        ("cs call *%r11", &[0x2e, 0x41, 0xff, 0xd3]),
        ("call *8(%rsp)", &[0xff, 0x54, 0x24, 0x08]),
        ("call *%gs:0x10", &[0x65, 0xff, 0x14, 0x25, 0x10, 0, 0, 0]),
    ];
    for (text, code) in cases {
        let mut fake = Fake::new().with("r11", target).with("gs_base", MEMORY + 0x78).with_word(0x88, target);
        assert_eq!(fake.distance(code), 0x40, "{text}");
        assert_eq!(fake.get("sp"), MEMORY + 0x78, "{text}");
        assert_eq!(fake.word(0x78), HERE.0 + code.len() as u64, "{text}");
    }
}

#[test]
fn jumps_go_where_their_operand_says() {
    let target = 0xffff_ffff_8100_0123;
    let cases: [(&str, &[u8]); 9] = [
        ("jmp .+0x123", &[0xe9, 0x1e, 0x01, 0, 0]),
        ("bnd jmp .+0x123", &[0xf2, 0xe9, 0x1d, 0x01, 0, 0]),
        ("jmp *%rdx", &[0xff, 0xe2]),
        ("notrack jmp *%rdx", &[0x3e, 0xff, 0xe2]),
        ("data16 jmp *%rdx", &[0x66, 0xff, 0xe2]),
        ("jmp *(%rax,%rcx,8)", &[0xff, 0x24, 0xc8]),
        ("jmp *-0x10(%r13)", &[0x41, 0xff, 0x65, 0xf0]),
        ("jmp *%gs:(%rcx)", &[0x65, 0xff, 0x21]),
        ("jmp *%fs:0x10(,%rcx,4)", &[0x64, 0xff, 0x24, 0x8d, 0x10, 0, 0, 0]),
    ];
    for (text, code) in cases {
        let mut fake = Fake::new().with("dx", target).with("ax", MEMORY).with("cx", 3).with("r13", MEMORY + 0x28);
        fake = fake.with("gs_base", MEMORY + 0x15).with("fs_base", MEMORY - 4).with_word(0x18, target);
        assert_eq!(fake.distance(code), 0x123, "{text}");
        assert_eq!(fake.get("sp"), MEMORY + 0x80, "{text}");
    }
}

#[test]
fn memory_may_lie_beside_the_code() {
    // jmp *0x100a(%rip): what follows the instruction is at HERE+6.
    let code = [0xff, 0x25, 0x0a, 0x10, 0, 0];
    let fault = Err(ExecuteError::Fault { addr: GuestAddr(0xffff_ffff_8100_1010) });
    assert_eq!(Fake::new().next_pc(&code), fault);
    // addr32 mov 0x100a(%rip),%eax: the address is cut to 32 bits.
    let fault = ExecuteError::Fault { addr: GuestAddr(0x8100_1011) };
    assert_eq!(Fake::new().execute(&[0x67, 0x8b, 0x05, 0x0a, 0x10, 0, 0]), Err(fault));
}

#[test]
fn an_address_prefix_cuts_the_offset_and_not_the_base() {
    // mov %gs:0x10(%eax),%rbx with an address-size prefix
    let mut fake = Fake::new().with("ax", 0x1234_ffff_fff8).with("gs_base", MEMORY).with_word(8, 77);
    assert_eq!(fake.distance(&[0x65, 0x67, 0x48, 0x8b, 0x58, 0x10]), 6);
    assert_eq!(fake.get("bx"), 77);
    // lea %gs:8(%rax,%rcx,2),%dx: no base at all, and the rest of rdx stays.
    let mut fake = Fake::new().with("ax", 0x1_fff0).with("cx", 8).with("gs_base", MEMORY).with("dx", u64::MAX);
    assert_eq!(fake.distance(&[0x65, 0x66, 0x8d, 0x54, 0x48, 0x08]), 6);
    assert_eq!(fake.get("dx"), 0xffff_ffff_ffff_0008);
}

#[test]
fn conditional_jumps_look_at_their_flags() {
    // The 16 conditions in the order of their numbers: what makes each of the even ones hold.
    let makes = [OF, CF, ZF, CF | ZF, SF, PF, SF, ZF];
    for (number, flags) in makes.into_iter().enumerate() {
        let number = u8::try_from(number * 2).expect("small");
        for (flags, taken) in [(flags | 2, true), (2, false)] {
            // jCC .+0x12, and the long form
            assert_eq!(
                Fake::new().with("flags", flags).distance(&[0x70 | number, 0x10]),
                [2, 0x12][usize::from(taken)]
            );
            let negated = [0x0f, 0x81 | number, 0x10, 0, 0, 0];
            assert_eq!(Fake::new().with("flags", flags).distance(&negated), [0x16, 6][usize::from(taken)]);
        }
    }
}

#[test]
fn counters_of_zero_jump() {
    // jrcxz .+0x12; jecxz .+0x13
    assert_eq!(Fake::new().distance(&[0xe3, 0x10]), 0x12);
    assert_eq!(Fake::new().with("cx", 1 << 32).distance(&[0xe3, 0x10]), 2);
    assert_eq!(Fake::new().with("cx", 1 << 32).distance(&[0x67, 0xe3, 0x10]), 0x13);
    // loope .+0x12, loopne .+0x12: counter and flag must both agree.
    for (code, flags, counter, distance) in
        [(0xe1, ZF, 2, 0x12), (0xe1, 0, 2, 2), (0xe1, ZF, 1, 2), (0xe0, 0, 2, 0x12), (0xe0, ZF, 2, 2), (0xe0, 0, 1, 2)]
    {
        let mut fake = Fake::new().with("flags", flags).with("cx", counter);
        assert_eq!(fake.distance(&[code, 0x10]), distance, "{code:x} {flags:x} {counter}");
        assert_eq!((fake.get("cx"), fake.get("flags")), (counter - 1, flags));
    }
}

#[test]
fn what_traps_on_purpose_leaves_the_straight_line() {
    let cases: [(&str, &[u8]); 10] = [
        ("syscall", &[0x0f, 0x05]),
        ("sysenter", &[0x0f, 0x34]),
        ("int3", &[0xcc]),
        ("int1", &[0xf1]),
        ("int $0x80", &[0xcd, 0x80]),
        ("ud2", &[0x0f, 0x0b]),
        ("ud1 %esp,%ecx", &[0x0f, 0xb9, 0xcc]),
        ("vmcall", &[0x0f, 0x01, 0xc1]),
        ("vmlaunch", &[0x0f, 0x01, 0xc2]),
        ("rsm", &[0x0f, 0xaa]),
    ];
    for (text, code) in cases {
        assert_eq!(Fake::new().next_pc(code), Ok(NextPc::Leaves), "{text}");
        assert_eq!(Fake::new().execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
    }
}

/// Their targets are known (see `successors_tests`), and what else they change is not evaluated.
#[test]
fn far_transfers_have_a_target_and_are_not_executed() {
    let cases: [(&str, &[u8]); 5] = [
        ("iretq", &[0x48, 0xcf]),
        ("lretq", &[0x48, 0xcb]),
        ("lcall *(%rax)", &[0xff, 0x18]),
        ("rex.W ljmp *(%rax)", &[0x48, 0xff, 0x28]),
        ("sysretq", &[0x48, 0x0f, 0x07]),
    ];
    for (text, code) in cases {
        let target = 0x8100_0123;
        let mut fake = Fake::new().with("ax", MEMORY).with("cx", target).with_word(0, target).with_word(0x80, target);
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(GuestAddr(target))), "{text}");
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
    }
    // hlt waits, and goes on.
    for code in [&[0xf4][..], &[0xf3, 0xf4]] {
        let next = NextPc::At(HERE.wrapping_add(code.len() as u64));
        assert_eq!(Fake::new().next_pc(code), Ok(next));
        assert_eq!(Fake::new().execute(code), Err(ExecuteError::NotSupported { addr: HERE }));
    }
}

#[test]
fn what_is_not_evaluated_is_refused() {
    let cases: [(&str, &[u8]); 17] = [
        ("pushf", &[0x9c]),
        ("popf", &[0x9d]),
        ("enter $0x20,$0", &[0xc8, 0x20, 0, 0]),
        ("rep movsq", &[0xf3, 0x48, 0xa5]),
        ("mov %cr3,%rax", &[0x0f, 0x20, 0xd8]),
        ("mov %cs,%eax", &[0x8c, 0xc8]),
        ("mov %eax,%ss", &[0x8e, 0xd0]),
        ("push %fs", &[0x0f, 0xa0]),
        ("divq %rcx, by 0", &[0x48, 0xf7, 0xf1]),
        ("tzcnt %ecx,%eax, of 0", &[0xf3, 0x0f, 0xbc, 0xc1]),
        ("bsf %ecx,%eax, of 0", &[0x0f, 0xbc, 0xc1]),
        ("shld $3,%cx,%ax", &[0x66, 0x0f, 0xa4, 0xc8, 0x03]),
        ("bswap %ax", &[0x66, 0x0f, 0xc8]),
        ("wrmsr", &[0x0f, 0x30]),
        ("cpuid", &[0x0f, 0xa2]),
        ("movups (%rax),%xmm0", &[0x0f, 0x10, 0x00]),
        ("rcl $1,%eax", &[0xd1, 0xd0]),
    ];
    for (text, code) in cases {
        let mut fake = Fake::new();
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(HERE.wrapping_add(code.len() as u64))), "{text}");
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
        assert_eq!(fake, Fake::new(), "{text}");
    }
    // xbegin .+0x12: whether transactions work is the CPU's to say.
    let xbegin = [0xc7, 0xf8, 0x0c, 0, 0, 0];
    assert_eq!(Fake::new().next_pc(&xbegin), Err(ExecuteError::NotSupported { addr: HERE }));
}

#[test]
fn a_fault_changes_nothing() {
    let cases: [(&str, &[u8], u64); 9] = [
        ("add %rbx,(%rax)", &[0x48, 0x01, 0x18], 0),
        ("mov (%rax),%rbx", &[0x48, 0x8b, 0x18], 0),
        ("push (%rax)", &[0xff, 0x30], 0),
        ("pop (%rax)", &[0x8f, 0x00], 0),
        ("call *(%rax)", &[0xff, 0x10], 0),
        ("cmove (%rax),%rbx", &[0x48, 0x0f, 0x44, 0x18], 0),
        ("leave", &[0xc9], 0),
        ("movb $1,(%rax)", &[0xc6, 0x00, 0x01], 0),
        ("xchg %rbx,(%rax)", &[0x48, 0x87, 0x18], 0),
    ];
    for (text, code, addr) in cases {
        let before = Fake::new();
        let mut fake = before.clone();
        assert_eq!(fake.execute(code), Err(ExecuteError::Fault { addr: GuestAddr(addr) }), "{text}");
        assert_eq!(fake, before, "{text}");
    }
    // Readable, and not writable.
    let cases: [(&str, &[u8], u64); 5] = [
        ("add %rbx,(%rsp)", &[0x48, 0x01, 0x1c, 0x24], 0x80),
        ("push %rax", &[0x50], 0x78),
        ("call .+0x40", &[0xe8, 0x3b, 0, 0, 0], 0x78),
        ("pop 8(%rsp)", &[0x8f, 0x44, 0x24, 0x08], 0x90),
        ("shll $0,(%rsp)", &[0xc1, 0x24, 0x24, 0x00], 0x80),
    ];
    for (text, code, offset) in cases {
        let mut before = Fake::new().with("bx", 7);
        before.is_writable = false;
        let mut fake = before.clone();
        assert_eq!(fake.execute(code), Err(ExecuteError::Fault { addr: GuestAddr(MEMORY + offset) }), "{text}");
        assert_eq!(fake, before, "{text}");
    }
}

#[test]
fn a_register_that_cannot_be_set_changes_nothing() {
    // pop %rbx; leave; xchg %rax,%rbx; add %rax,%rbx; push %rbx
    let cases: [(&str, &[u8]); 5] =
        [("bx", &[0x5b]), ("bp", &[0xc9]), ("bx", &[0x48, 0x93]), ("flags", &[0x48, 0x01, 0xc3]), ("sp", &[0x53])];
    for (name, code) in cases {
        let mut before = Fake::new().with("ax", 1).with("bx", 2).with("bp", MEMORY);
        before.fixed = X86_64.register(name);
        let mut fake = before.clone();
        assert_eq!(fake.execute(code), Err(ExecuteError::Register { name }), "{code:x?}");
        assert_eq!(fake, before, "{code:x?}");
    }
}

/// QEMU's flags may be stale at a hit: what needs them can be told, and does not guess.
#[test]
fn exact_flags_are_asked_for_where_they_matter() {
    let needed: [(&str, &[u8]); 16] = [
        ("je .+0x12", &[0x74, 0x10]),
        ("loopne .+0x12", &[0xe0, 0x10]),
        ("cmovb %ecx,%eax", &[0x0f, 0x42, 0xc1]),
        ("sete %al", &[0x0f, 0x94, 0xc0]),
        ("adc %rbx,%rax", &[0x48, 0x11, 0xd8]),
        ("sbb %eax,%eax", &[0x19, 0xc0]),
        ("inc %eax", &[0xff, 0xc0]),
        ("bt $3,%eax", &[0x0f, 0xba, 0xe0, 0x03]),
        ("shl %cl,%eax", &[0xd3, 0xe0]),
        ("rol $3,%eax", &[0xc1, 0xc0, 0x03]),
        ("shld %cl,%rcx,%rax", &[0x48, 0x0f, 0xa5, 0xc8]),
        ("pushf", &[0x9c]),
        ("stac", &[0x0f, 0x01, 0xcb]),
        ("cld", &[0xfc]),
        ("repe cmpsb", &[0xf3, 0xa6]),
        ("clc", &[0xf8]),
    ];
    for (text, code) in needed {
        assert!(X86_64.reads_flags(&slot(code), HERE), "{text}");
    }
    let idle: [(&str, &[u8]); 14] = [
        ("nop", &[0x90]),
        ("mov %rax,%rbx", &[0x48, 0x89, 0xc3]),
        ("add %rax,%rbx", &[0x48, 0x01, 0xc3]),
        ("xor %eax,%eax", &[0x31, 0xc0]),
        ("not %eax", &[0xf7, 0xd0]),
        ("shl $3,%eax", &[0xc1, 0xe0, 0x03]),
        ("imul %rcx,%rax", &[0x48, 0x0f, 0xaf, 0xc1]),
        ("loop .+0x12", &[0xe2, 0x10]),
        ("jrcxz .+0x12", &[0xe3, 0x10]),
        ("ret", &[0xc3]),
        ("call *(%rax)", &[0xff, 0x10]),
        ("rep movsq", &[0xf3, 0x48, 0xa5]),
        ("cmpxchg %rcx,(%rax)", &[0x48, 0x0f, 0xb1, 0x08]),
        ("div %rcx", &[0x48, 0xf7, 0xf1]),
    ];
    for (text, code) in idle {
        assert!(!X86_64.reads_flags(&slot(code), HERE), "{text}");
    }
    let withheld = Err(ExecuteError::Register { name: "flags" });
    assert_eq!(Fake::new().without("flags").next_pc(&[0x74, 0x10]), withheld);
    let next = Ok(NextPc::At(GuestAddr(0xffff_ffff_8100_0012)));
    assert_eq!(Fake::new().without("flags").next_pc(&[0xe2, 0x10]), next);
}

#[test]
fn what_must_be_atomic_needs_a_machine_that_is_alone() {
    // lock addl $1,(%rsp); xchg %rax,(%rsp); lock btsq $0,(%rsp)
    let cases: [&[u8]; 3] =
        [&[0xf0, 0x83, 0x04, 0x24, 0x01], &[0x48, 0x87, 0x04, 0x24], &[0xf0, 0x48, 0x0f, 0xba, 0x2c, 0x24, 0x00]];
    for code in cases {
        let mut fake = Fake::new().with("ax", 1);
        fake.is_alone = false;
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{code:x?}");
        fake.is_alone = true;
        assert_eq!(fake.distance(code), code.len() as i64, "{code:x?}");
        assert_eq!(fake.word(0x80), 1, "{code:x?}");
    }
    // Between registers nothing is shared: xchg %rax,%rbx.
    let mut fake = Fake::new().with("ax", 1);
    fake.is_alone = false;
    assert_eq!(fake.distance(&[0x48, 0x93]), 2);
    assert_eq!((fake.get("ax"), fake.get("bx")), (0, 1));
}

#[test]
fn undefined_flags_are_told_and_kept() {
    let cases: [(&str, &[u8], u64); 13] = [
        ("and %eax,%eax", &[0x21, 0xc0], AF),
        ("add %eax,%eax", &[0x01, 0xc0], 0),
        ("bt $3,%eax", &[0x0f, 0xba, 0xe0, 0x03], OF | SF | AF | PF),
        ("imul %eax,%eax", &[0x0f, 0xaf, 0xc0], SF | ZF | AF | PF),
        ("shl $1,%eax", &[0xd1, 0xe0], AF),
        ("shl $2,%eax", &[0xc1, 0xe0, 0x02], AF | OF),
        ("shl $8,%al", &[0xc0, 0xe0, 0x08], AF | OF | CF),
        ("shl $0,%eax", &[0xc1, 0xe0, 0x00], 0),
        ("ror $3,%eax", &[0xc1, 0xc8, 0x03], OF),
        ("mul %ecx", &[0xf7, 0xe1], SF | ZF | AF | PF),
        ("div %ecx", &[0xf7, 0xf1], STATUS),
        ("shrd $2,%ecx,%eax", &[0x0f, 0xac, 0xc8, 0x02], AF | OF),
        ("bsr %ecx,%eax", &[0x0f, 0xbd, 0xc1], CF | OF | SF | AF | PF),
    ];
    for (text, code, undefined) in cases {
        let mut fake = Fake::new().with("flags", STATUS | 0x202).with("cx", 5);
        let executed = fake.execute(code).expect("supported");
        assert_eq!(executed.undefined_flags, undefined, "{text}");
        assert_eq!(fake.get("flags") & undefined, undefined, "{text}");
        assert_eq!(fake.get("flags") & 0x202, 0x202, "{text}");
    }
}

#[test]
fn parts_of_registers_keep_the_rest() {
    // mov %ah,%bl; mov $0x1234,%bx; xor %ebx,%ebx; movsbl %bh,%eax; cwde; cqo
    let mut fake = Fake::new().with("ax", 0x1122_3344_5566_ff88).with("bx", 0xaaaa_bbbb_cccc_dddd);
    assert_eq!(fake.distance(&[0x88, 0xe3]), 2);
    assert_eq!(fake.get("bx"), 0xaaaa_bbbb_cccc_ddff);
    assert_eq!(fake.distance(&[0x66, 0xbb, 0x34, 0x92]), 4);
    assert_eq!(fake.get("bx"), 0xaaaa_bbbb_cccc_9234);
    assert_eq!(fake.distance(&[0x0f, 0xbe, 0xc7]), 3);
    assert_eq!(fake.get("ax"), 0xffff_ff92);
    assert_eq!(fake.distance(&[0x98]), 1);
    assert_eq!(fake.get("ax"), 0xffff_ff92);
    assert_eq!(fake.distance(&[0x48, 0x99]), 2);
    assert_eq!(fake.get("dx"), 0);
    assert_eq!(fake.distance(&[0x31, 0xdb]), 2);
    assert_eq!((fake.get("bx"), fake.get("flags")), (0, ZF | PF | 2));
}

/// The native test cannot run these two: they are the kernel's.
#[test]
fn access_to_the_user_is_a_flag() {
    let mut fake = Fake::new().with("flags", STATUS | 2);
    assert_eq!(fake.distance(&[0x0f, 0x01, 0xcb]), 3);
    assert_eq!(fake.get("flags"), STATUS | 2 | 0x40000);
    assert_eq!(fake.distance(&[0x0f, 0x01, 0xca]), 3);
    assert_eq!(fake.get("flags"), STATUS | 2);
}

/// On a CPU without BMI1 it is `bsf`, whose result is the same and whose flags are not.
#[test]
fn tzcnt_holds_for_every_cpu() {
    // tzcnt %ecx,%eax
    let mut fake = Fake::new().with("cx", 0x50);
    let executed = fake.execute(&[0xf3, 0x0f, 0xbc, 0xc1]).expect("supported");
    assert_eq!((fake.get("ax"), executed.undefined_flags), (4, STATUS));
}

#[test]
fn divisions_that_do_not_fit_are_refused() {
    // div %cl of 0x1000; idiv %cl of -128 by -1; idiv %rcx of -2^127 by -1
    for (code, ax, dx, cx) in [
        (&[0xf6, 0xf1][..], 0x1000, 0, 0x10),
        (&[0xf6, 0xf9], 0xff80, 0, 0xff),
        (&[0x48, 0xf7, 0xf9], 0, 1 << 63, u64::MAX),
    ] {
        let mut fake = Fake::new().with("ax", ax).with("dx", dx).with("cx", cx);
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{code:x?}");
    }
}
