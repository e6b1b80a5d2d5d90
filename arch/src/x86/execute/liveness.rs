//! Whether the arithmetic flags are still of use: a walk forward to what reads them, or to where all are overwritten.

use std::ops::Range;

use super::{STATUS, may_keep_flags};
use crate::x86::decode;
use crate::x86::mode::Mode;
use crate::{Flow, GuestAddr};

/// Compilers set the flags again within a few instructions.
const MOST_INSTRUCTIONS: usize = 64;

/// `text` begins at `addr`, inside of `function`. A flag that an instruction leaves undefined counts as overwritten: nothing can make use of it.
pub(super) fn flags_are_dead(mode: Mode, text: &[u8], addr: GuestAddr, function: &Range<u64>) -> bool {
    let mut unwritten = STATUS;
    let mut here = addr;
    for _ in 0..MOST_INSTRUCTIONS {
        let Some(rest) = usize::try_from(here.wrapping_offset_from(addr)).ok().and_then(|at| text.get(at..)) else {
            return false;
        };
        let Ok(instruction) = decode::instruction(mode, here, rest) else { return false };
        if instruction.rflags_read() & unwritten != 0 {
            return false;
        }
        here = match decode::flow(&instruction) {
            Flow::Next => {
                // A count may be 0: nothing is written then.
                if !may_keep_flags(&instruction) {
                    unwritten &= !instruction.rflags_modified();
                }
                if unwritten == 0 {
                    return true;
                }
                mode.behind(&instruction)
            }
            // A jump to another function is a call by the same convention, and so is the one to the return thunk.
            Flow::Jump { target } if !function.is_empty() && !function.contains(&target.0) => return true,
            Flow::Jump { target } => target,
            // System V ABI, AMD64 supplement, section 3.2.1, and the Intel386 one, section 2.2.3: the flags are not preserved
            // across calls, and pass nothing.
            // Compilers keep them over no indirect jump either.
            Flow::Call { .. } | Flow::IndirectCall | Flow::Return | Flow::IndirectJump => return true,
            Flow::Branch { .. } | Flow::Trap => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: GuestAddr = GuestAddr(0xffff_ffff_8100_0000);

    fn dead(text: &[u8]) -> bool {
        flags_are_dead(Mode::Long, text, HERE, &(0..0))
    }

    #[test]
    fn what_writes_all_flags_ends_them() {
        let cases: [(&str, &[u8]); 11] = [
            ("add %rax,%rbx", &[0x48, 0x01, 0xc3]),
            ("xor %eax,%eax", &[0x31, 0xc0]),
            ("test %eax,%eax", &[0x85, 0xc0]),
            ("cmp $3,%rax", &[0x48, 0x83, 0xf8, 0x03]),
            ("shl $3,%eax", &[0xc1, 0xe0, 0x03]),
            ("popf", &[0x9d]),
            ("imul %ecx,%eax", &[0x0f, 0xaf, 0xc1]),
            ("cmpxchg %rcx,(%rax)", &[0x48, 0x0f, 0xb1, 0x08]),
            (
                "mov %rax,%rbx; lea (%rax),%rcx; nop; sub $8,%rsp",
                &[0x48, 0x89, 0xc3, 0x48, 0x8d, 0x08, 0x90, 0x48, 0x83, 0xec, 0x08],
            ),
            // The branch reads flags, but others.
            ("test %eax,%eax; je", &[0x85, 0xc0, 0x74, 0x10]),
            ("clc; inc %eax; jb", &[0xf8, 0xff, 0xc0, 0x72, 0x10]),
        ];
        for (text, code) in cases {
            assert!(dead(code), "{text}");
        }
    }

    #[test]
    fn a_jump_to_another_function_ends_them() {
        // mov %rax,%rbx; jmp +0x100
        let code = [0x48, 0x89, 0xc3, 0xe9, 0x00, 0x01, 0x00, 0x00];
        assert!(flags_are_dead(Mode::Long, &code, HERE, &(HERE.0 - 0x20..HERE.0 + 0x40)));
        assert!(
            !flags_are_dead(Mode::Long, &code, HERE, &(HERE.0 - 0x20..HERE.0 + 0x200)),
            "inside, and not in the text"
        );
        assert!(!flags_are_dead(Mode::Long, &code, HERE, &(0..0)), "nobody knows the function");
    }

    #[test]
    fn what_reads_a_flag_keeps_them() {
        let cases: [(&str, &[u8]); 17] = [
            ("je", &[0x74, 0x10]),
            ("mov %rax,%rbx; jne", &[0x48, 0x89, 0xc3, 0x75, 0x10]),
            ("cmove %ecx,%eax", &[0x0f, 0x44, 0xc1]),
            ("setb %al", &[0x0f, 0x92, 0xc0]),
            ("adc %rbx,%rax", &[0x48, 0x11, 0xd8]),
            ("sbb %eax,%eax", &[0x19, 0xc0]),
            ("pushf", &[0x9c]),
            ("lahf", &[0x9f]),
            ("cmc", &[0xf5]),
            ("rcl $1,%eax", &[0xd1, 0xd0]),
            // Partial writers, and a reader of what they left.
            ("inc %eax; jb", &[0xff, 0xc0, 0x72, 0x10]),
            ("rol $1,%eax; je", &[0xd1, 0xc0, 0x74, 0x10]),
            ("stc; js", &[0xf9, 0x78, 0x10]),
            // The count may be 0, or is.
            ("shl %cl,%eax; je", &[0xd3, 0xe0, 0x74, 0x10]),
            ("shl $0x20,%eax; je", &[0xc1, 0xe0, 0x20, 0x74, 0x10]),
            ("repe cmpsb; je", &[0xf3, 0xa6, 0x74, 0x10]),
            // Both ways are not walked, whatever decides.
            ("loop; xor %eax,%eax", &[0xe2, 0x10, 0x31, 0xc0]),
        ];
        for (text, code) in cases {
            assert!(!dead(code), "{text}");
        }
    }

    #[test]
    fn partial_writers_add_up() {
        // inc %eax; je: only the old CF is left, which je does not read; but it branches.
        assert!(!dead(&[0xff, 0xc0, 0x74, 0x10]));
        // inc %eax; clc
        assert!(dead(&[0xff, 0xc0, 0xf8]));
        // inc %eax; sete %al (a new ZF); clc
        assert!(dead(&[0xff, 0xc0, 0x0f, 0x94, 0xc0, 0xf8]));
        // inc %eax; setb %al (the old CF); clc
        assert!(!dead(&[0xff, 0xc0, 0x0f, 0x92, 0xc0, 0xf8]));
        // shl %cl,%eax; xor %eax,%eax
        assert!(dead(&[0xd3, 0xe0, 0x31, 0xc0]));
    }

    #[test]
    fn calls_and_returns_preserve_no_flags() {
        // call; call *%rax; ret; jmp *%rax
        for code in [&[0xe8, 0, 0, 0, 0][..], &[0xff, 0xd0], &[0xc3], &[0xff, 0xe0]] {
            assert!(dead(code), "{code:x?}");
        }
        // int3; ud2; syscall; iretq; vmcall
        for code in [&[0xcc][..], &[0x0f, 0x0b], &[0x0f, 0x05], &[0x48, 0xcf], &[0x0f, 0x01, 0xc1]] {
            assert!(!dead(code), "{code:x?}");
        }
    }

    #[test]
    fn direct_jumps_are_followed_inside_the_text() {
        // jmp .+4; je; xor %eax,%eax
        assert!(dead(&[0xeb, 0x02, 0x74, 0x10, 0x31, 0xc0]));
        // jmp .+4; xor %eax,%eax; je
        assert!(!dead(&[0xeb, 0x02, 0x31, 0xc0, 0x74, 0x10]));
        // jmp behind the text; before it; to itself; to the text's end
        assert!(!dead(&[0xeb, 0x10, 0x31, 0xc0]));
        assert!(!dead(&[0xeb, 0xf0, 0x31, 0xc0]));
        assert!(!dead(&[0xeb, 0xfe]));
        assert!(!dead(&[0xeb, 0x00]));
    }

    #[test]
    fn the_walk_has_an_end() {
        assert!(!dead(&[]));
        // Cut short; no instruction.
        assert!(!dead(&[0x48, 0x01]));
        assert!(!dead(&[0x06, 0x31, 0xc0]));
        // The 64th instruction is looked at, the 65th is not.
        let mut text = [0x90; 66];
        text[63..65].copy_from_slice(&[0x31, 0xc0]);
        assert!(dead(&text));
        text[63..66].copy_from_slice(&[0x90, 0x31, 0xc0]);
        assert!(!dead(&text));
    }
}
