//! What 32 bits do otherwise than 64: widths, addresses, the stack, and where transfers go.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::fake::{Fake, HERE_32 as HERE, MEMORY_32 as MEMORY};
use crate::{Execute, ExecuteError, GuestAddr, NextPc, Successors};

const SP: u64 = MEMORY + 0x80;

fn fake() -> Fake {
    Fake::new_32().with("ax", MEMORY).with("cx", 0x18).with("dx", 0xc100_0123).with("bp", MEMORY + 0x40)
}

/// How far the instruction goes from its start, and the stack pointer from `SP`.
#[track_caller]
fn check(fake: &mut Fake, text: &str, code: &[u8], distance: i64, sp: i64) {
    let successors = fake.successors(code).map(|found| (found.first, found.sp));
    let place = HERE.wrapping_add(distance.cast_unsigned());
    let sp = SP.wrapping_add_signed(sp);
    assert_eq!(successors, Ok((place, sp)), "{text}");
    assert!(fake.has_successor(code), "{text}");
    assert_eq!(fake.distance(code), distance, "{text}");
    assert_eq!(fake.get("sp"), sp, "{text}");
}

#[test]
fn near_transfers_push_and_pop_four_bytes() {
    let cases: [(&str, &[u8], i64, i64); 11] = [
        ("jmp .+0x12", &[0xeb, 0x10], 0x12, 0),
        ("jmp *%edx", &[0xff, 0xe2], 0x123, 0),
        ("jmp *0x20(%eax)", &[0xff, 0x60, 0x20], 0x77, 0),
        ("jmp *(%eax,%ecx,2)", &[0xff, 0x24, 0x48], 0x99, 0),
        ("jmp *0xc2001020", &[0xff, 0x25, 0x20, 0x10, 0x00, 0xc2], 0x77, 0),
        ("call .+0x105", &[0xe8, 0x00, 0x01, 0, 0], 0x105, -4),
        ("call *%edx", &[0xff, 0xd2], 0x123, -4),
        ("call *%ds:0x20(%eax)", &[0x3e, 0xff, 0x50, 0x20], 0x77, -4),
        ("ret", &[0xc3], 0x55, 4),
        ("ret $0x10", &[0xc2, 0x10, 0], 0x55, 0x14),
        ("rep ret", &[0xf3, 0xc3], 0x55, 4),
    ];
    for (text, code, distance, sp) in cases {
        let mut fake = fake().with_word(0x20, HERE.0 + 0x77).with_word(0x30, HERE.0 + 0x99);
        fake = fake.with_word(0x80, HERE.0 + 0x55);
        check(&mut fake, text, code, distance, sp);
        if sp < 0 {
            assert_eq!(fake.word(0x7c), HERE.0 + code.len() as u64, "{text}");
        }
    }
}

#[test]
fn transfers_of_16_bits_cut_the_target() {
    let cases: [(&str, &[u8], u64, i64); 4] = [
        ("jmpw .+0x104", &[0x66, 0xe9, 0x00, 0x01], 0x104, 0),
        ("callw .+0x104", &[0x66, 0xe8, 0x00, 0x01], 0x104, -2),
        ("jmpw *%dx", &[0x66, 0xff, 0xe2], 0x123, 0),
        ("retw", &[0x66, 0xc3], 0x4567, 2),
    ];
    for (text, code, target, sp) in cases {
        let mut fake = fake().with_word(0x80, 0x1234_4567);
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(GuestAddr(target))), "{text}");
        let executed = fake.execute(code).map(|executed| executed.next);
        assert_eq!(executed, Ok(GuestAddr(target)), "{text}");
        assert_eq!(fake.get("sp"), SP.wrapping_add_signed(sp), "{text}");
    }
}

#[test]
fn counters_are_as_wide_as_addresses() {
    // loop .-0x10; loopw (67 prefix) .-0x10
    for (code, counter, distance, left) in [
        (&[0xe2, 0xee][..], 1, 2, 0),
        (&[0xe2, 0xee], 0, -16, 0xffff_ffff),
        (&[0xe2, 0xee], 0x1_0000, -16, 0xffff),
        (&[0x67, 0xe2, 0xed], 0x1_0001, 3, 0x1_0000),
        (&[0x67, 0xe2, 0xed], 0x1_0000, -16, 0x1_ffff),
    ] {
        let mut fake = Fake::new_32().with("cx", counter);
        assert_eq!(fake.distance(code), distance, "{code:x?} {counter:#x}");
        assert_eq!(fake.get("cx"), left, "{code:x?} {counter:#x}");
    }
    // jecxz .+0x12; jcxz .+0x13
    assert_eq!(Fake::new_32().with("cx", 0x1_0000).distance(&[0xe3, 0x10]), 2);
    assert_eq!(Fake::new_32().with("cx", 0x1_0000).distance(&[0x67, 0xe3, 0x10]), 0x13);
}

#[test]
fn stack_instructions_move_by_what_they_are() {
    let cases: [(&str, &[u8], i64); 24] = [
        ("push %ebx", &[0x53], -4),
        ("push %bx", &[0x66, 0x53], -2),
        ("push $1", &[0x6a, 0x01], -4),
        ("pushw $1", &[0x66, 0x6a, 0x01], -2),
        ("push $0x12345678", &[0x68, 0x78, 0x56, 0x34, 0x12], -4),
        ("push -8(%eax)", &[0xff, 0x70, 0xf8], -4),
        ("push %fs", &[0x0f, 0xa0], -4),
        ("pushf", &[0x9c], -4),
        ("pusha", &[0x60], -32),
        ("pushaw", &[0x66, 0x60], -16),
        ("pop %ebx", &[0x5b], 4),
        ("pop %es", &[0x07], 4),
        ("pop -8(%eax)", &[0x8f, 0x40, 0xf8], 4),
        ("popf", &[0x9d], 4),
        ("popa", &[0x61], 32),
        ("enter $0x20,$0", &[0xc8, 0x20, 0, 0], -0x24),
        ("enter $0x20,$2", &[0xc8, 0x20, 0, 2], -0x2c),
        ("leave", &[0xc9], -0x3c),
        ("leavew", &[0x66, 0xc9], -0x3e),
        ("add $0x18,%esp", &[0x83, 0xc4, 0x18], 0x18),
        ("sub %ecx,%esp", &[0x29, 0xcc], -0x18),
        ("inc %esp", &[0x44], 1),
        ("and $-0x40,%esp", &[0x83, 0xe4, 0xc0], 0),
        ("lea -8(%esp,%ecx),%esp", &[0x8d, 0x64, 0x0c, 0xf8], 0x10),
    ];
    for (text, code, sp) in cases {
        let next = HERE.wrapping_add(code.len() as u64);
        let expected = Successors { first: next, second: None, sp: SP.wrapping_add_signed(sp) };
        assert_eq!(fake().without("flags").successors(code), Ok(expected), "{text}");
        assert!(fake().has_successor(code), "{text}");
    }
    // lss (%esp),%esp
    let expected = Successors { first: HERE.wrapping_add(4), second: None, sp: 0x1234_5678 };
    assert_eq!(fake().with_word(0x80, 0x1234_5678).successors(&[0x0f, 0xb2, 0x24, 0x24]), Ok(expected));
}

#[test]
fn pushes_and_pops_store_and_load_words() {
    let mut fake = fake().with("bx", 0xdead_beef);
    check(&mut fake, "push %ebx", &[0x53], 1, -4);
    assert_eq!(fake.word(0x7c), 0xdead_beef);
    check(&mut fake, "pop %esi", &[0x5e], 1, 0);
    assert_eq!(fake.get("si"), 0xdead_beef);
    // Sign-extended to the width of the stack: push $-2
    check(&mut fake, "push $-2", &[0x6a, 0xfe], 2, -4);
    assert_eq!((fake.word(0x7c), fake.word(0x80)), (0xffff_fffe, 0));
    // The frame pointer is popped from where the frame pointer points.
    let mut fake = self::fake().with_word(0x40, 0x1122_3344);
    check(&mut fake, "leave", &[0xc9], 1, -0x3c);
    assert_eq!(fake.get("bp"), 0x1122_3344);
}

#[test]
fn addresses_are_cut_to_what_they_are_wide() {
    // mov 0x10(%ebx),%esi, round the end
    let mut fake = fake().with("bx", 0xffff_fff8).with("fs_base", MEMORY - 8).with_word(8, 77);
    assert_eq!(fake.execute(&[0x8b, 0x73, 0x10]), Err(ExecuteError::Fault { addr: GuestAddr(8) }));
    // mov %fs:0x10(%ebx),%esi; mov %fs:0x10,%esi: per-CPU data
    assert_eq!(fake.distance(&[0x64, 0x8b, 0x73, 0x18]), 4);
    assert_eq!(fake.get("si"), 77);
    let mut fake = fake.with("si", 0);
    assert_eq!(fake.distance(&[0x64, 0x8b, 0x35, 0x10, 0, 0, 0]), 7);
    assert_eq!(fake.get("si"), 77);
    // mov (%bx,%si),%al: 16 bits; lea 0x10(%bx),%eax
    let mut fake = fake.with("bx", 0xabcd_fff0).with("si", 0x1234_0020);
    assert_eq!(fake.execute(&[0x67, 0x8a, 0x00]), Err(ExecuteError::Fault { addr: GuestAddr(0x10) }));
    assert_eq!(fake.distance(&[0x67, 0x8d, 0x47, 0x10]), 4);
    assert_eq!(fake.get("ax"), 0);
    // mov 0xc2001008,%eax: the short form
    assert_eq!(fake.distance(&[0xa1, 0x08, 0x10, 0x00, 0xc2]), 5);
    assert_eq!(fake.get("ax"), 77);
}

#[test]
fn registers_are_32_bits() {
    // add %ecx,%eax; dec %eax; mul %ecx; bswap %eax; neg %eax
    let mut fake = Fake::new_32().with("ax", 0xffff_ffff).with("cx", 2);
    assert_eq!(fake.distance(&[0x01, 0xc8]), 2);
    assert_eq!((fake.get("ax"), fake.get("flags")), (1, 0x13));
    assert_eq!(fake.distance(&[0x48]), 1);
    assert_eq!((fake.get("ax"), fake.get("flags")), (0, 0x47));
    let mut fake = fake.with("ax", 0xc000_0001);
    assert_eq!(fake.distance(&[0xf7, 0xe1]), 2);
    assert_eq!((fake.get("ax"), fake.get("dx")), (0x8000_0002, 1));
    assert_eq!(fake.distance(&[0x0f, 0xc8]), 2);
    assert_eq!(fake.get("ax"), 0x0200_0080);
    // bsf of 0 leaves the destination; of a part of a register nobody can tell. bsr %ecx,%eax; bsr %cx,%ax
    let mut fake = fake.with("cx", 0);
    assert_eq!(fake.distance(&[0x0f, 0xbd, 0xc1]), 3);
    assert_eq!((fake.get("ax"), fake.get("flags") & 0x40), (0x0200_0080, 0x40));
    assert_eq!(fake.execute(&[0x66, 0x0f, 0xbd, 0xc1]), Err(ExecuteError::NotSupported { addr: HERE }));
}

/// Words on the stack from `SP` on.
fn with_stack(mut fake: Fake, bytes: usize, words: &[u64]) -> Fake {
    for (number, word) in words.iter().enumerate() {
        let at = 0x80 + number * bytes;
        fake.memory[at..at + bytes].copy_from_slice(&word.to_le_bytes()[..bytes]);
    }
    fake
}

#[test]
fn returns_from_interrupts_pop_the_stack_with_a_change_of_privilege() {
    /// Bytes of a word, code, and the EIP, CS, EFLAGS, ESP, SS on the stack; then where it goes, and the stack pointer there.
    type Case<'a> = (&'a str, usize, &'a [u8], [u64; 5], u64, u64);
    let (ip, sp) = (0xb7f1_2345, 0xbfd0_1234);
    // iret; iretw
    let cases: [Case<'_>; 5] = [
        ("to the user", 4, &[0xcf], [ip, 0x73, 0x246, sp, 0x7b], ip, sp),
        ("to the kernel", 4, &[0xcf], [ip, 0x60, 0x246, sp, 0x7b], ip, SP + 12),
        ("to virtual-8086 mode", 4, &[0xcf], [ip, 0x60, 0x2_0246, sp, 0x7b], ip, sp),
        ("iretw to the user", 2, &[0x66, 0xcf], [ip, 0x73, 0x246, sp, 0x7b], 0x2345, 0x1234),
        ("iretw to the kernel", 2, &[0x66, 0xcf], [ip, 0x60, 0x246, sp, 0x7b], 0x2345, SP + 6),
    ];
    for (text, bytes, code, frame, ip, sp) in cases {
        let mut fake = with_stack(fake(), bytes, &frame).with("cs", 0x60);
        let expected = Successors { first: GuestAddr(ip), second: None, sp };
        assert_eq!(fake.successors(code), Ok(expected), "{text}");
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(GuestAddr(ip))), "{text}");
        assert!(fake.has_successor(code), "{text}");
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
    }
}

#[test]
fn far_transfers_go_where_they_say() {
    let ip = 0xc123_4568;
    let cases: [(&str, &[u8], u64, i64); 10] = [
        ("ljmp $0x60,$0xc1234568", &[0xea, 0x68, 0x45, 0x23, 0xc1, 0x60, 0], ip, 0),
        ("ljmpw $0x60,$0x4568", &[0x66, 0xea, 0x68, 0x45, 0x60, 0], 0x4568, 0),
        ("lcall $0x60,$0xc1234568", &[0x9a, 0x68, 0x45, 0x23, 0xc1, 0x60, 0], ip, -8),
        ("lcallw $0x60,$0x4568", &[0x66, 0x9a, 0x68, 0x45, 0x60, 0], 0x4568, -4),
        ("ljmp *8(%eax)", &[0xff, 0x68, 0x08], ip, 0),
        ("lcall *8(%eax)", &[0xff, 0x58, 0x08], ip, -8),
        ("lret", &[0xcb], 0xc100_4321, 8),
        ("lret $0x10", &[0xca, 0x10, 0], 0xc100_4321, 24),
        ("lretw", &[0x66, 0xcb], 0x4321, 4),
        ("sysexit", &[0x0f, 0x35], 0xc100_0123, 0x1000),
    ];
    for (text, code, target, sp) in cases {
        let (bytes, back) = if code == [0x66, 0xcb] { (2, 0x4321) } else { (4, 0xc100_4321) };
        let fake = with_stack(fake(), bytes, &[back, 0x60]);
        let mut fake = fake.with("cs", 0x60).with("cx", SP + 0x1000).with_word(8, ip);
        let expected = Successors { first: GuestAddr(target), second: None, sp: SP.wrapping_add_signed(sp) };
        assert_eq!(fake.successors(code), Ok(expected), "{text}");
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(GuestAddr(target))), "{text}");
    }
    // lret $8 to the user: the other stack's pointer lies above the arguments, and as many are dropped there.
    let mut fake = with_stack(fake(), 4, &[0x0804_8000, 0x73, 1, 2, 0xbfd0_0010]).with("cs", 0x60);
    let expected = Successors { first: GuestAddr(0x0804_8000), second: None, sp: 0xbfd0_0018 };
    assert_eq!(fake.successors(&[0xca, 8, 0]), Ok(expected));
}

#[test]
fn what_is_not_evaluated_is_refused() {
    let cases: [(&str, &[u8]); 12] = [
        ("pusha", &[0x60]),
        ("popa", &[0x61]),
        ("enter $0x20,$0", &[0xc8, 0x20, 0, 0]),
        ("bound %eax,(%ecx)", &[0x62, 0x01]),
        ("aaa", &[0x37]),
        ("das", &[0x2f]),
        ("aam", &[0xd4, 0x0a]),
        ("push %ds", &[0x1e]),
        ("mov %ds,%eax", &[0x8c, 0xd8]),
        ("les (%eax),%ecx", &[0xc4, 0x08]),
        ("pushf", &[0x9c]),
        ("cmpxchg8b (%eax)", &[0x0f, 0xc7, 0x08]),
    ];
    for (text, code) in cases {
        let mut fake = fake();
        assert_eq!(fake.next_pc(code), Ok(NextPc::At(HERE.wrapping_add(code.len() as u64))), "{text}");
        assert_eq!(fake.execute(code), Err(ExecuteError::NotSupported { addr: HERE }), "{text}");
        assert!(fake == self::fake(), "{text}");
    }
    // into; int $0x80; sysenter
    for code in [&[0xce][..], &[0xcd, 0x80], &[0x0f, 0x34]] {
        assert_eq!(fake().next_pc(code), Ok(NextPc::Leaves), "{code:x?}");
        assert!(!fake().has_successor(code), "{code:x?}");
    }
}

#[test]
fn flags_die_as_in_64_bits() {
    let dead = |text: &[u8]| crate::x86::X86_32.flags_dead_after(text, HERE, &(0..0));
    // inc %eax (one byte); clc. In 64 bits the first byte is a prefix.
    assert!(dead(&[0x40, 0xf8]));
    // inc %eax; jb
    assert!(!dead(&[0x40, 0x72, 0x10]));
    // mov 8(%eax),%edx; test %edx,%edx; then into and a call
    assert!(dead(&[0x8b, 0x50, 0x08, 0x85, 0xd2]));
    assert!(!dead(&[0xce, 0x85, 0xd2]));
    assert!(dead(&[0xe8, 0, 0, 0, 0]));
}
