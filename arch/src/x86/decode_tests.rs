//! Lengths, flows and boundaries, on bytes under a disassembler's text.

use super::decode::{check_boundary, decode};
use super::mode::Mode;
use crate::{BoundaryError, DecodeError, Flow, GuestAddr, Insn};

const KERNEL: GuestAddr = GuestAddr(0xffff_ffff_8100_0000);

fn decode64(bytes: &[u8]) -> Result<Insn, DecodeError> {
    decode(Mode::Long, KERNEL, bytes)
}

fn flow64(bytes: &[u8]) -> Flow {
    decode64(bytes).expect("an instruction").flow
}

fn boundaries(text: &[u8], offsets: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    offsets.filter(|offset| check_boundary(Mode::Long, KERNEL, text, *offset).is_ok()).collect()
}

/// `kernel_clone` of Debian's 6.12.117+deb12-cloud-amd64, as far as the offsets below go.
#[rustfmt::skip]
const KERNEL_CLONE: [u8; 72] = [
    0xf3, 0x0f, 0x1e, 0xfa,                               //  0: endbr64
    0xe8, 0xc7, 0xd4, 0xfc, 0xff,                         //  4: call   __fentry__
    0x41, 0x57,                                           //  9: push   %r15
    0x41, 0x56,                                           // 11: push   %r14
    0x41, 0x55,                                           // 13: push   %r13
    0x41, 0x54,                                           // 15: push   %r12
    0x55,                                                 // 17: push   %rbp
    0x53,                                                 // 18: push   %rbx
    0x48, 0x89, 0xfb,                                     // 19: mov    %rdi,%rbx
    0x48, 0x83, 0xec, 0x38,                               // 22: sub    $0x38,%rsp
    0x4c, 0x8b, 0x3f,                                     // 26: mov    (%rdi),%r15
    0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0x00, 0x00, 0x00, // 29: mov    %gs:0x28,%rax
    0x48, 0x89, 0x44, 0x24, 0x30,                         // 38: mov    %rax,0x30(%rsp)
    0x31, 0xc0,                                           // 43: xor    %eax,%eax
    0x48, 0xc7, 0x44, 0x24, 0x10, 0x00, 0x00, 0x00, 0x00, // 45: movq   $0x0,0x10(%rsp)
    0x48, 0xc7, 0x44, 0x24, 0x18, 0x00, 0x00, 0x00, 0x00, // 54: movq   $0x0,0x18(%rsp)
    0x4c, 0x89, 0xf8,                                     // 63: mov    %r15,%rax
    0x48, 0xc7, 0x44, 0x24, 0x20, 0x00,                   // 66: movq   $0x0,0x20(%rsp), cut
];

/// What `register_kprobe` of that very kernel accepted, each offset tried in turn.
#[test]
fn boundaries_are_those_the_kernel_accepts() {
    assert_eq!(boundaries(&KERNEL_CLONE, 0..=63), [0, 4, 9, 11, 13, 15, 17, 18, 19, 22, 26, 29, 38, 43, 45, 54, 63]);
}

#[test]
fn an_offset_inside_an_instruction_names_it() {
    let error = check_boundary(Mode::Long, KERNEL, &KERNEL_CLONE, 31).expect_err("inside");
    assert_eq!(
        error,
        BoundaryError::Inside {
            addr: GuestAddr(0xffff_ffff_8100_001f),
            start: GuestAddr(0xffff_ffff_8100_001d),
            len: 9
        }
    );
    assert_eq!(error.to_string(), "0xffffffff8100001f is inside the instruction at 0xffffffff8100001d (9 bytes)");
}

#[test]
fn the_walk_stops_where_the_text_does() {
    let cut = GuestAddr(0xffff_ffff_8100_0042);
    assert_eq!(
        check_boundary(Mode::Long, KERNEL, &KERNEL_CLONE, 70),
        Err(BoundaryError::Decode(DecodeError::CutShort { addr: cut }))
    );
    assert_eq!(check_boundary(Mode::Long, KERNEL, &KERNEL_CLONE[..9], 9), Ok(()));
    let end = GuestAddr(0xffff_ffff_8100_0009);
    assert_eq!(
        check_boundary(Mode::Long, KERNEL, &KERNEL_CLONE[..9], u64::MAX),
        Err(BoundaryError::Decode(DecodeError::CutShort { addr: end }))
    );
}

#[test]
#[rustfmt::skip]
fn the_walk_passes_padding_and_alternatives() {
    let text = [
        0xc3,                                                       //  0: ret
        0xcc, 0xcc, 0xcc,                                           //  1: int3, between functions
        0x90, 0x90,                                                 //  4: nop, room for patches
        0xf3, 0x0f, 0x1e, 0xfa,                                     //  6: endbr64
        0x0f, 0x1f, 0x44, 0x00, 0x00,                               // 10: nopl   0x0(%rax,%rax,1)
        0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, // 15: data16 cs nopw 0x0(%rax,%rax,1)
        0x00,
        0x2e, 0x41, 0xff, 0xd3,                                     // 26: cs call *%r11
        0x2e, 0xe8, 0x00, 0x00, 0x00, 0x00,                         // 30: cs call 36
        0x67, 0x0f, 0xb9, 0x40, 0x10,                               // 36: ud1    0x10(%eax),%eax
        0x0f, 0x0b,                                                 // 41: ud2
        0xcc,                                                       // 43: int3
    ];
    assert_eq!(boundaries(&text, 0..=43), [0, 1, 2, 3, 4, 5, 6, 10, 15, 26, 30, 36, 41, 43]);
    assert_eq!(decode64(&[0xcc; 16]), Ok(Insn { len: 1, flow: Flow::Trap }));
}

/// Without its signature `ud2; "kvm"` would swallow the first byte of the instruction that it is for.
#[test]
#[rustfmt::skip]
fn the_walk_passes_the_signature_of_an_emulate_prefix() {
    let text = [
        0x0f, 0x0b, b'x', b'e', b'n', 0x0f, 0xa2,             // 0: ud2; "xen"; cpuid
        0x0f, 0x0b, b'k', b'v', b'm', 0x48, 0x89, 0xc3,       // 7: ud2; "kvm"; mov %rax,%rbx
        0x0f, 0x0b, 0x78, 0x65, 0x90,                         // 15: ud2; js; nop
    ];
    assert_eq!(boundaries(&text, 0..=19), [0, 5, 7, 12, 15, 17, 19]);
    let error = check_boundary(Mode::Long, KERNEL, &text, 8).expect_err("inside");
    assert!(matches!(error, BoundaryError::Inside { len: 5, .. }), "{error}");
    assert_eq!(decode64(&text), Ok(Insn { len: 2, flow: Flow::Trap }));
}

#[test]
fn near_transfers_are_told_apart() {
    let target = GuestAddr(0xffff_ffff_8100_0012);
    // jmp .+0x12; jmp with a 32-bit offset; bnd jmp
    assert_eq!(flow64(&[0xeb, 0x10]), Flow::Jump { target });
    assert_eq!(flow64(&[0xe9, 0x0d, 0, 0, 0]), Flow::Jump { target });
    assert_eq!(flow64(&[0xf2, 0xe9, 0x0c, 0, 0, 0]), Flow::Jump { target });
    // je; loop; loopne; jrcxz; jecxz; xbegin
    assert_eq!(flow64(&[0x74, 0x10]), Flow::Branch { target });
    assert_eq!(flow64(&[0xe2, 0x10]), Flow::Branch { target });
    assert_eq!(flow64(&[0xe0, 0x10]), Flow::Branch { target });
    assert_eq!(flow64(&[0xe3, 0x10]), Flow::Branch { target });
    assert_eq!(flow64(&[0x67, 0xe3, 0x0f]), Flow::Branch { target });
    assert_eq!(flow64(&[0xc7, 0xf8, 0x0c, 0, 0, 0]), Flow::Branch { target });
    // call; cs call
    assert_eq!(flow64(&[0xe8, 0x0d, 0, 0, 0]), Flow::Call { target });
    assert_eq!(decode64(&[0x2e, 0xe8, 0x0c, 0, 0, 0]), Ok(Insn { len: 6, flow: Flow::Call { target } }));
    // call *%rax; cs call *%r11; call *(%rip); jmp *%rax; notrack jmp *%rax
    assert_eq!(flow64(&[0xff, 0xd0]), Flow::IndirectCall);
    assert_eq!(flow64(&[0x2e, 0x41, 0xff, 0xd3]), Flow::IndirectCall);
    assert_eq!(flow64(&[0xff, 0x15, 0, 0, 0, 0]), Flow::IndirectCall);
    assert_eq!(flow64(&[0xff, 0xe0]), Flow::IndirectJump);
    assert_eq!(flow64(&[0x3e, 0xff, 0xe0]), Flow::IndirectJump);
    // ret; ret $16; rep ret
    assert_eq!(flow64(&[0xc3]), Flow::Return);
    assert_eq!(decode64(&[0xc2, 0x10, 0]), Ok(Insn { len: 3, flow: Flow::Return }));
    assert_eq!(flow64(&[0xf3, 0xc3]), Flow::Return);
}

#[test]
fn what_leaves_the_straight_line_is_a_trap() {
    let cases: [(&str, &[u8]); 24] = [
        ("int3", &[0xcc]),
        ("int1", &[0xf1]),
        ("int $0x80", &[0xcd, 0x80]),
        ("ud0 %eax,%eax", &[0x0f, 0xff, 0xc0]),
        ("ud1 %esp,%ecx", &[0x0f, 0xb9, 0xcc]),
        ("ud2", &[0x0f, 0x0b]),
        ("lcall *(%rax)", &[0xff, 0x18]),
        ("ljmp *(%rax)", &[0xff, 0x28]),
        ("lret", &[0xcb]),
        ("lretq", &[0x48, 0xcb]),
        ("iret", &[0xcf]),
        ("iretq", &[0x48, 0xcf]),
        ("syscall", &[0x0f, 0x05]),
        ("sysretq", &[0x48, 0x0f, 0x07]),
        ("sysenter", &[0x0f, 0x34]),
        ("sysexit", &[0x0f, 0x35]),
        ("rsm", &[0x0f, 0xaa]),
        ("vmcall", &[0x0f, 0x01, 0xc1]),
        ("vmlaunch", &[0x0f, 0x01, 0xc2]),
        ("vmrun", &[0x0f, 0x01, 0xd8]),
        ("skinit", &[0x0f, 0x01, 0xde]),
        // FRED, Intel SDM volume 2; binutils 2.40 does not know them.
        ("eretu", &[0xf3, 0x0f, 0x01, 0xca]),
        ("erets", &[0xf2, 0x0f, 0x01, 0xca]),
        ("uiret", &[0xf3, 0x0f, 0x01, 0xec]),
    ];
    for (text, bytes) in cases {
        assert_eq!(decode64(bytes).map(|insn| insn.flow), Ok(Flow::Trap), "{text}");
        assert_eq!(decode64(bytes).map(|insn| usize::from(insn.len)), Ok(bytes.len()), "{text}");
    }
}

#[test]
fn what_only_waits_or_masks_goes_on() {
    let cases: [(&str, &[u8]); 8] = [
        ("hlt", &[0xf4]),
        ("sti", &[0xfb]),
        ("cli", &[0xfa]),
        ("popf", &[0x9d]),
        ("mwait", &[0x0f, 0x01, 0xc9]),
        ("xabort $0", &[0xc6, 0xf8, 0]),
        ("rep movsb", &[0xf3, 0xa4]),
        ("lkgs %di", &[0xf2, 0x0f, 0x00, 0xf7]),
    ];
    for (text, bytes) in cases {
        let len = u8::try_from(bytes.len()).expect("short");
        assert_eq!(decode64(bytes), Ok(Insn { len, flow: Flow::Next }), "{text}");
    }
}

#[test]
fn more_than_15_bytes_are_no_instruction() {
    // lock addl $0x11223344,%gs:0x11223344(%r8d,%r9d,4)
    let longest = [0x65, 0x67, 0xf0, 0x43, 0x81, 0x84, 0x88, 0x44, 0x33, 0x22, 0x11, 0x44, 0x33, 0x22, 0x11];
    assert_eq!(decode64(&longest), Ok(Insn { len: 15, flow: Flow::Next }));
    let mut too_long = [0x2e; 32];
    too_long[1..16].copy_from_slice(&longest);
    assert_eq!(decode64(&too_long), Err(DecodeError::Invalid { addr: KERNEL }));
    assert_eq!(decode64(&too_long[..15]), Err(DecodeError::Invalid { addr: KERNEL }));
    assert_eq!(decode64(&[0x66; 32]), Err(DecodeError::Invalid { addr: KERNEL }));
    // 14 prefixes may still become an instruction.
    assert_eq!(decode64(&[0x66; 14]), Err(DecodeError::CutShort { addr: KERNEL }));
}

#[test]
fn short_text_and_wrong_text_are_told_apart() {
    let invalid = Err(DecodeError::Invalid { addr: KERNEL });
    let cut = Err(DecodeError::CutShort { addr: KERNEL });
    assert_eq!(decode64(&[]), cut);
    assert_eq!(decode64(&[0x0f]), cut);
    assert_eq!(decode64(&[0xe8, 0, 0, 0]), cut);
    // push %es, a 32-bit opcode; lock nop
    assert_eq!(decode64(&[0x06, 0, 0]), invalid);
    assert_eq!(decode64(&[0xf0, 0x90, 0, 0]), invalid);
}

#[test]
fn targets_wrap_as_addresses_do() {
    // jmp .-2 at 0; jmp .+4 at the last but one byte
    let back = decode(Mode::Long, GuestAddr(0), &[0xeb, 0xfc]).map(|insn| insn.flow);
    assert_eq!(back, Ok(Flow::Jump { target: GuestAddr(0xffff_ffff_ffff_fffe) }));
    let forth = decode(Mode::Long, GuestAddr(0xffff_ffff_ffff_fffe), &[0xeb, 0x02]).map(|insn| insn.flow);
    assert_eq!(forth, Ok(Flow::Jump { target: GuestAddr(2) }));
}

#[test]
fn a_66_prefix_does_not_shorten_a_near_jump() {
    let target = GuestAddr(0xffff_ffff_8101_0000);
    // data16 jmp .+0x10000
    let bytes = [0x66, 0xe9, 0xfa, 0xff, 0x00, 0x00];
    assert_eq!(decode64(&bytes), Ok(Insn { len: 6, flow: Flow::Jump { target } }));
}

/// 32 bits.
fn decode32(bytes: &[u8]) -> Result<Insn, DecodeError> {
    decode(Mode::Protected, GuestAddr(0xc100_0000), bytes)
}

#[test]
fn near_transfers_of_32_bits() {
    let target = GuestAddr(0xc100_0012);
    let cases: [(&str, &[u8], Flow); 17] = [
        ("jmp .+0x12", &[0xeb, 0x10], Flow::Jump { target }),
        ("jmp .+0x12", &[0xe9, 0x0d, 0, 0, 0], Flow::Jump { target }),
        ("je .+0x12", &[0x74, 0x10], Flow::Branch { target }),
        ("je .+0x12", &[0x0f, 0x84, 0x0c, 0, 0, 0], Flow::Branch { target }),
        ("loop .+0x12", &[0xe2, 0x10], Flow::Branch { target }),
        ("jecxz .+0x12", &[0xe3, 0x10], Flow::Branch { target }),
        ("jcxz .+0x12", &[0x67, 0xe3, 0x0f], Flow::Branch { target }),
        ("call .+0x12", &[0xe8, 0x0d, 0, 0, 0], Flow::Call { target }),
        ("call *%eax", &[0xff, 0xd0], Flow::IndirectCall),
        ("call *%ds:0xc1c62600", &[0x3e, 0xff, 0x15, 0, 0x26, 0xc6, 0xc1], Flow::IndirectCall),
        ("jmp *-0x3e4e0000(,%eax,4)", &[0xff, 0x24, 0x85, 0, 0, 0xb2, 0xc1], Flow::IndirectJump),
        ("ret", &[0xc3], Flow::Return),
        ("ret $8", &[0xc2, 8, 0], Flow::Return),
        // With a 66 prefix they are 16 bits wide.
        ("jmpw .+0x12", &[0x66, 0xe9, 0x0e, 0x00], Flow::Jump { target: GuestAddr(0x12) }),
        ("callw .+0x12", &[0x66, 0xe8, 0x0e, 0x00], Flow::Call { target: GuestAddr(0x12) }),
        ("retw", &[0x66, 0xc3], Flow::Return),
        ("xbegin .+0x12", &[0xc7, 0xf8, 0x0c, 0, 0, 0], Flow::Branch { target }),
    ];
    for (text, bytes, flow) in cases {
        let len = u8::try_from(bytes.len()).expect("short");
        assert_eq!(decode32(bytes), Ok(Insn { len, flow }), "{text}");
    }
    // jmp .+4 two bytes before the end of all addresses
    let forth = decode(Mode::Protected, GuestAddr(0xffff_fffe), &[0xeb, 0x02]).map(|insn| insn.flow);
    assert_eq!(forth, Ok(Flow::Jump { target: GuestAddr(2) }));
}

#[test]
fn what_only_32_bits_have() {
    let cases: [(&str, &[u8], Flow); 15] = [
        ("push %es", &[0x06], Flow::Next),
        ("pop %ds", &[0x1f], Flow::Next),
        ("inc %eax", &[0x40], Flow::Next),
        ("dec %edi", &[0x4f], Flow::Next),
        ("pusha", &[0x60], Flow::Next),
        ("popa", &[0x61], Flow::Next),
        ("bound %eax,(%ecx)", &[0x62, 0x01], Flow::Next),
        ("aam", &[0xd4, 0x0a], Flow::Next),
        ("les (%eax),%ecx", &[0xc4, 0x08], Flow::Next),
        ("mov 0xc1001234,%al", &[0xa0, 0x34, 0x12, 0x00, 0xc1], Flow::Next),
        ("into", &[0xce], Flow::Trap),
        ("lcall $0x60,$0xc1001234", &[0x9a, 0x34, 0x12, 0x00, 0xc1, 0x60, 0x00], Flow::Trap),
        ("ljmp $0x60,$0xc1001234", &[0xea, 0x34, 0x12, 0x00, 0xc1, 0x60, 0x00], Flow::Trap),
        ("sysexit", &[0x0f, 0x35], Flow::Trap),
        ("iret", &[0xcf], Flow::Trap),
    ];
    for (text, bytes, flow) in cases {
        let len = u8::try_from(bytes.len()).expect("short");
        assert_eq!(decode32(bytes), Ok(Insn { len, flow }), "{text}");
    }
}
