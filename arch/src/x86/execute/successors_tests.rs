//! Where every class of instruction can go, and the stack pointer that it leaves.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::fake::{Fake, HERE, MEMORY, slot};
use crate::x86::X86_64;
use crate::{Execute, ExecuteError, GuestAddr, Successors};

/// The stack pointer of all cases.
const SP: u64 = MEMORY + 0x80;

/// No flags; some registers with values.
fn fake() -> Fake {
    Fake::new()
        .without("flags")
        .with("ax", MEMORY)
        .with("cx", 0x18)
        .with("dx", 0x1234_8100_0123)
        .with("bp", MEMORY + 0x40)
}

/// The places as distances from the instruction's start, and the stack pointer as one from `SP`.
#[track_caller]
fn check(fake: &mut Fake, text: &str, code: &[u8], first: i64, second: Option<i64>, sp: i64) {
    let place = |distance: i64| HERE.wrapping_add(distance.cast_unsigned());
    let expected = Successors { first: place(first), second: second.map(place), sp: SP.wrapping_add_signed(sp) };
    let before = fake.clone();
    assert_eq!(fake.successors(code), Ok(expected), "{text}");
    assert!(*fake == before, "{text}: changed");
    assert!(X86_64.has_successor(&slot(code), HERE), "{text}");
}

/// To the next instruction, with a stack pointer that far away.
#[track_caller]
fn goes_on(text: &str, code: &[u8], sp: i64) {
    check(&mut fake(), text, code, code.len() as i64, None, sp);
}

#[test]
fn conditional_branches_have_two() {
    let cases: [(&str, &[u8], i64); 9] = [
        ("je .+0x12", &[0x74, 0x10], 0x12),
        ("jne .-0xe", &[0x75, 0xf0], -0xe),
        ("jg .+0x106", &[0x0f, 0x8f, 0x00, 0x01, 0, 0], 0x106),
        ("loop .+0x12", &[0xe2, 0x10], 0x12),
        ("loope .+0x12", &[0xe1, 0x10], 0x12),
        ("loopne .+0x12", &[0xe0, 0x10], 0x12),
        ("jrcxz .+0x12", &[0xe3, 0x10], 0x12),
        ("jecxz .+0x13", &[0x67, 0xe3, 0x10], 0x13),
        ("xbegin .+0x12", &[0xc7, 0xf8, 0x0c, 0, 0, 0], 0x12),
    ];
    for (text, code, target) in cases {
        check(&mut fake(), text, code, target, Some(code.len() as i64), 0);
    }
    check(&mut fake(), "je .+2: one place", &[0x74, 0x00], 2, None, 0);
}

#[test]
fn near_transfers_have_one() {
    let cases: [(&str, &[u8], i64, i64); 12] = [
        ("jmp .+0x12", &[0xeb, 0x10], 0x12, 0),
        ("jmp .+0x105", &[0xe9, 0x00, 0x01, 0, 0], 0x105, 0),
        ("jmp *%r11", &[0x41, 0xff, 0xe3], 0x40, 0),
        ("jmp *0x20(%rax)", &[0xff, 0x60, 0x20], 0x77, 0),
        ("jmp *(%rax,%rcx,2)", &[0xff, 0x24, 0x48], 0x99, 0),
        ("call .+0x105", &[0xe8, 0x00, 0x01, 0, 0], 0x105, -8),
        ("cs call .+0x106", &[0x2e, 0xe8, 0x00, 0x01, 0, 0], 0x106, -8),
        ("call *%r11", &[0x41, 0xff, 0xd3], 0x40, -8),
        ("call *0x20(%rax)", &[0xff, 0x50, 0x20], 0x77, -8),
        ("ret", &[0xc3], 0x55, 8),
        ("ret $0x10", &[0xc2, 0x10, 0], 0x55, 0x18),
        ("rep ret", &[0xf3, 0xc3], 0x55, 8),
    ];
    for (text, code, target, sp) in cases {
        let mut fake = fake().with("r11", HERE.0 + 0x40).with_word(0x20, HERE.0 + 0x77).with_word(0x30, HERE.0 + 0x99);
        fake = fake.with_word(0x80, HERE.0 + 0x55);
        check(&mut fake, text, code, target, None, sp);
    }
}

#[test]
fn stack_instructions_move_by_what_they_are() {
    let cases: [(&str, &[u8], i64); 27] = [
        ("push %rbx", &[0x53], -8),
        ("push %rsp", &[0x54], -8),
        ("push %bx", &[0x66, 0x53], -2),
        ("push $1", &[0x6a, 0x01], -8),
        ("pushw $1", &[0x66, 0x6a, 0x01], -2),
        ("push $0x12345678", &[0x68, 0x78, 0x56, 0x34, 0x12], -8),
        // Neither is the operand's memory read, nor the top of the stack.
        ("push -8(%rax)", &[0xff, 0x70, 0xf8], -8),
        ("push %fs", &[0x0f, 0xa0], -8),
        ("pushf", &[0x9c], -8),
        ("pushfw", &[0x66, 0x9c], -2),
        ("pop %rbx", &[0x5b], 8),
        ("pop %bx", &[0x66, 0x5b], 2),
        ("pop -8(%rax)", &[0x8f, 0x40, 0xf8], 8),
        ("pop %gs", &[0x0f, 0xa9], 8),
        ("popf", &[0x9d], 8),
        ("popfw", &[0x66, 0x9d], 2),
        ("enter $0x20,$0", &[0xc8, 0x20, 0, 0], -0x28),
        // Two frame pointers more.
        ("enter $0x20,$2", &[0xc8, 0x20, 0, 2], -0x38),
        ("leave", &[0xc9], -0x38),
        ("leavew", &[0x66, 0xc9], -0x3e),
        ("add $0x18,%rsp", &[0x48, 0x83, 0xc4, 0x18], 0x18),
        ("sub $0x18,%rsp", &[0x48, 0x83, 0xec, 0x18], -0x18),
        ("sub %rcx,%rsp", &[0x48, 0x29, 0xcc], -0x18),
        ("inc %rsp", &[0x48, 0xff, 0xc4], 1),
        ("and $-0x40,%rsp", &[0x48, 0x83, 0xe4, 0xc0], 0),
        ("lea -8(%rsp,%rcx),%rsp", &[0x48, 0x8d, 0x64, 0x0c, 0xf8], 0x10),
        ("lea 8(%rbp),%rsp", &[0x48, 0x8d, 0x65, 0x08], -0x38),
    ];
    for (text, code, sp) in cases {
        goes_on(text, code, sp);
    }
}

#[test]
fn the_stack_pointer_may_come_from_anywhere() {
    let other = MEMORY + 0x1000;
    let cases: [(&str, &[u8], u64); 10] = [
        ("mov %rbx,%rsp", &[0x48, 0x89, 0xdc], other),
        ("mov %ebx,%esp", &[0x89, 0xdc], other & 0xffff_ffff),
        ("mov $0x10,%spl", &[0x40, 0xb4, 0x10], MEMORY & !0xff | 0x10),
        ("mov 8(%rax),%rsp", &[0x48, 0x8b, 0x60, 0x08], other),
        ("mov %gs:8,%rsp", &[0x65, 0x48, 0x8b, 0x24, 0x25, 8, 0, 0, 0], other),
        ("pop %rsp", &[0x5c], other),
        ("pop %sp", &[0x66, 0x5c], (SP + 2) & !0xffff | other & 0xffff),
        ("xchg %rsp,%rbx", &[0x48, 0x87, 0xe3], other),
        ("xchg %rbx,%rsp", &[0x48, 0x87, 0xdc], other),
        ("xadd %rbx,%rsp", &[0x48, 0x0f, 0xc1, 0xdc], SP.wrapping_add(other)),
    ];
    for (text, code, sp) in cases {
        let mut fake = fake().with("bx", other).with_word(8, other).with_word(0x80, other).with("gs_base", MEMORY);
        // mov $0x10,%ah needs a REX prefix to be %spl.
        check(&mut fake, text, code, code.len() as i64, None, sp.wrapping_sub(SP).cast_signed());
    }
}

#[test]
fn everything_else_goes_on() {
    let cases: [(&str, &[u8]); 20] = [
        ("nop", &[0x90]),
        ("hlt", &[0xf4]),
        ("sti", &[0xfb]),
        ("cli", &[0xfa]),
        ("mov %rsp,%rax", &[0x48, 0x89, 0xe0]),
        ("mov %rax,(%rsp)", &[0x48, 0x89, 0x04, 0x24]),
        ("cmp %rax,%rsp", &[0x48, 0x39, 0xc4]),
        ("test %rsp,%rsp", &[0x48, 0x85, 0xe4]),
        ("bt $3,%rsp", &[0x48, 0x0f, 0xba, 0xe4, 0x03]),
        // Memory that is not there, and flags that are not known, make no difference.
        ("add %rax,(%rcx)", &[0x48, 0x01, 0x01]),
        ("cmove %ecx,%eax", &[0x0f, 0x44, 0xc1]),
        ("adc %rcx,%rax", &[0x48, 0x11, 0xc8]),
        ("rep movsq", &[0xf3, 0x48, 0xa5]),
        ("mov %rax,%cr3", &[0x0f, 0x22, 0xd8]),
        ("wrmsr", &[0x0f, 0x30]),
        ("cpuid", &[0x0f, 0xa2]),
        ("swapgs", &[0x0f, 0x01, 0xf8]),
        ("movups (%rax),%xmm0", &[0x0f, 0x10, 0x00]),
        ("lock cmpxchg %rcx,(%rax)", &[0xf0, 0x48, 0x0f, 0xb1, 0x08]),
        ("div %rcx", &[0x48, 0xf7, 0xf1]),
    ];
    for (text, code) in cases {
        goes_on(text, code, 0);
    }
}

/// Words on the stack from `SP` on, of that many bytes.
fn with_stack(mut fake: Fake, bytes: usize, words: &[u64]) -> Fake {
    for (number, word) in words.iter().enumerate() {
        let at = 0x80 + number * bytes;
        fake.memory[at..at + bytes].copy_from_slice(&word.to_le_bytes()[..bytes]);
    }
    fake
}

#[test]
fn returns_from_interrupts_pop_five_words() {
    let (ip, sp) = (0x7f12_3456_789a, 0x7ffd_0123_4568);
    // RIP, CS, RFLAGS, RSP, SS
    let frame = [ip, 0x33, 0x246, sp, 0x2b];
    let cases: [(&str, &[u8], usize, u64, u64); 3] = [
        ("iretq", &[0x48, 0xcf], 8, ip, sp),
        ("iretd", &[0xcf], 4, 0x3456_789a, 0x0123_4568),
        ("iretw", &[0x66, 0xcf], 2, 0x789a, 0x4568),
    ];
    for (text, code, bytes, ip, sp) in cases {
        let expected = Successors { first: GuestAddr(ip), second: None, sp };
        assert_eq!(with_stack(fake(), bytes, &frame).successors(code), Ok(expected), "{text}");
        assert!(X86_64.has_successor(&slot(code), HERE), "{text}");
    }
}

#[test]
fn far_returns_pop_the_segment_too() {
    let ip = 0xffff_ffff_8123_4568;
    let cases: [(&str, &[u8], usize, u64, u64); 6] = [
        ("lretq", &[0x48, 0xcb], 8, ip, 16),
        ("lretq $0x10", &[0x48, 0xca, 0x10, 0], 8, ip, 32),
        ("lret", &[0xcb], 4, 0x8123_4568, 8),
        ("lret $0x10", &[0xca, 0x10, 0], 4, 0x8123_4568, 24),
        ("lretw", &[0x66, 0xcb], 2, 0x4568, 4),
        ("lretw $0x10", &[0x66, 0xca, 0x10, 0], 2, 0x4568, 20),
    ];
    for (text, code, bytes, ip, popped) in cases {
        let mut fake = with_stack(fake(), bytes, &[ip, 0x10]).with("cs", 0x10);
        let expected = Successors { first: GuestAddr(ip), second: None, sp: SP + popped };
        assert_eq!(fake.successors(code), Ok(expected), "{text}");
        assert!(X86_64.has_successor(&slot(code), HERE), "{text}");
    }
    // To the user: the other stack's pointer lies above the arguments, and as many are dropped there.
    for (code, sp) in [(&[0x48, 0xcb][..], 0x7ffd_0000), (&[0x48, 0xca, 0x08, 0], 0x7ffd_0018)] {
        let mut fake = with_stack(fake(), 8, &[0x40_1000, 0x33, 0x7ffd_0000, 0x7ffd_0010]).with("cs", 0x10);
        let expected = Successors { first: GuestAddr(0x40_1000), second: None, sp };
        assert_eq!(fake.successors(code), Ok(expected), "{code:x?}");
    }
}

#[test]
fn far_jumps_and_calls_follow_their_pointer() {
    let ip = 0xffff_ffff_8123_4568;
    let cases: [(&str, &[u8], u64, u64); 6] = [
        ("rex.W ljmp *8(%rax)", &[0x48, 0xff, 0x68, 0x08], ip, 0),
        ("ljmp *8(%rax)", &[0xff, 0x68, 0x08], 0x8123_4568, 0),
        ("ljmpw *8(%rax)", &[0x66, 0xff, 0x68, 0x08], 0x4568, 0),
        ("rex.W lcall *8(%rax)", &[0x48, 0xff, 0x58, 0x08], ip, 16),
        ("lcall *8(%rax)", &[0xff, 0x58, 0x08], 0x8123_4568, 8),
        ("lcallw *8(%rax)", &[0x66, 0xff, 0x58, 0x08], 0x4568, 4),
    ];
    for (text, code, ip_expected, pushed) in cases {
        let expected = Successors { first: GuestAddr(ip_expected), second: None, sp: SP - pushed };
        assert_eq!(fake().with_word(8, ip).successors(code), Ok(expected), "{text}");
        assert!(X86_64.has_successor(&slot(code), HERE), "{text}");
    }
    // What does not fit in the memory that is there.
    let fault = Err(ExecuteError::Fault { addr: GuestAddr(MEMORY - 8) });
    assert_eq!(fake().successors(&[0xff, 0x68, 0xf8]), fault);
    assert_eq!(fake().with("sp", MEMORY - 8).successors(&[0x48, 0xcf]), fault);
}

#[test]
fn returns_to_the_user_have_their_target_in_registers() {
    let cases: [(&str, &[u8], u64, u64); 4] = [
        ("sysretq", &[0x48, 0x0f, 0x07], 0x7f12_3456_789a, SP),
        ("sysretl", &[0x0f, 0x07], 0x3456_789a, SP),
        ("sysexitq", &[0x48, 0x0f, 0x35], 0x1234_8100_0123, 0x7f12_3456_789a),
        ("sysexitl", &[0x0f, 0x35], 0x8100_0123, 0x3456_789a),
    ];
    for (text, code, first, sp) in cases {
        let expected = Successors { first: GuestAddr(first), second: None, sp };
        assert_eq!(fake().with("cx", 0x7f12_3456_789a).successors(code), Ok(expected), "{text}");
        assert!(X86_64.has_successor(&slot(code), HERE), "{text}");
    }
}

#[test]
fn what_nobody_can_tell_has_none() {
    let cases: [(&str, &[u8]); 18] = [
        ("int3", &[0xcc]),
        ("int1", &[0xf1]),
        ("int $0x80", &[0xcd, 0x80]),
        ("ud0 %eax,%eax", &[0x0f, 0xff, 0xc0]),
        ("ud1 %esp,%ecx", &[0x0f, 0xb9, 0xcc]),
        ("ud2", &[0x0f, 0x0b]),
        ("syscall", &[0x0f, 0x05]),
        ("sysenter", &[0x0f, 0x34]),
        ("vmcall", &[0x0f, 0x01, 0xc1]),
        ("vmmcall", &[0x0f, 0x01, 0xd9]),
        ("vmlaunch", &[0x0f, 0x01, 0xc2]),
        ("rsm", &[0x0f, 0xaa]),
        // The stack pointer hangs on flags, on the CPU's state, or on who else writes there.
        ("cmove %rax,%rsp", &[0x48, 0x0f, 0x44, 0xe0]),
        ("adc $8,%rsp", &[0x48, 0x83, 0xd4, 0x08]),
        ("mov %cr3,%rsp", &[0x0f, 0x20, 0xdc]),
        ("mov %ss,%esp", &[0x8c, 0xd4]),
        ("xchg %rsp,(%rax)", &[0x48, 0x87, 0x20]),
        ("lock xadd %rsp,(%rax)", &[0xf0, 0x48, 0x0f, 0xc1, 0x20]),
    ];
    for (text, code) in cases {
        let mut fake = fake();
        fake.is_alone = false;
        assert_eq!(fake.successors(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
        assert!(!X86_64.has_successor(&slot(code), HERE), "{text}");
    }
}

#[test]
fn only_what_decides_is_asked_for() {
    // je needs the stack pointer; push %rbx no %rbx; ret the word at the stack pointer.
    let mut blind = Fake::new().without("flags").without("bx").without("sp");
    assert_eq!(blind.successors(&[0x74, 0x10]), Err(ExecuteError::Register { name: "sp" }));
    let mut no_memory = fake().with("sp", 0).without("bx");
    let next = Successors { first: HERE.wrapping_add(2), second: None, sp: 8u64.wrapping_neg() };
    assert_eq!(no_memory.successors(&[0xff, 0x33]).map(|found| found.sp), Ok(next.sp));
    assert_eq!(no_memory.successors(&[0xff, 0x33]), Ok(next));
    assert_eq!(no_memory.successors(&[0xc3]), Err(ExecuteError::Fault { addr: GuestAddr(0) }));
}
