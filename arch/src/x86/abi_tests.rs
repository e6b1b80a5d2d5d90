//! What each of the two kernels answers.

use super::{X86_32, X86_64};
use crate::{Arch, ArgumentPlace, GuestAddr, InsnSlot, Privilege, RegisterId, RegisterSource, ReturnPlace, Role};

#[test]
fn the_entry_lies_behind_the_landing_pad() {
    // endbr64; call __fentry__
    assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 0, 0, 0]), 4);
    // endbr32
    assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfb]), 4);
    // Sealed: data16 nopl (%rax); nopl -42(%rax)
    assert_eq!(X86_64.entry_skip(&[0x66, 0x0f, 0x1f, 0x00, 0x55]), 4);
    assert_eq!(X86_64.entry_skip(&[0x0f, 0x1f, 0x40, 0xd6, 0x55]), 4);
    // rdsspq %rdx; nopl 0(%rax); push %rbp; nothing; a cut endbr64
    assert_eq!(X86_64.entry_skip(&[0xf3, 0x48, 0x0f, 0x1e, 0xca]), 0);
    assert_eq!(X86_64.entry_skip(&[0x0f, 0x1f, 0x40, 0x00]), 0);
    assert_eq!(X86_64.entry_skip(&[0x55]), 0);
    assert_eq!(X86_64.entry_skip(&[]), 0);
    assert_eq!(X86_64.entry_skip(&[0xf3, 0x0f, 0x1e]), 0);
}

#[test]
fn entries_are_recognised() {
    assert!(X86_64.looks_like_entry(&[0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00]));
    assert!(X86_64.looks_like_entry(&[0x66, 0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x44, 0x00, 0x00]));
    assert!(X86_64.looks_like_entry(&[0x0f, 0x1f, 0x44, 0x00, 0x00, 0x55]));
    // Any block may start with a call or a push.
    assert!(!X86_64.looks_like_entry(&[0xe8, 0, 0, 0, 0]));
    assert!(!X86_64.looks_like_entry(&[0x55]));
    assert!(!X86_64.looks_like_entry(&[]));
}

#[test]
fn arguments_come_in_the_order_of_system_v() {
    let name = |n| match X86_64.argument(n) {
        Some(ArgumentPlace::Register(RegisterId(id))) => X86_64.registers()[usize::from(id)].name,
        place => panic!("argument {n} is {place:?}"),
    };
    assert_eq!([1, 2, 3, 4, 5, 6].map(name), ["di", "si", "dx", "cx", "r8", "r9"]);
    assert_eq!(X86_64.argument(7), Some(ArgumentPlace::Stack { offset: 8 }));
    assert_eq!(X86_64.argument(8), Some(ArgumentPlace::Stack { offset: 16 }));
    assert_eq!(X86_64.argument(0), None);
}

#[test]
fn the_return_address_is_popped() {
    assert_eq!(X86_64.return_place(), ReturnPlace::Stack);
    assert_eq!(X86_64.sp_after_return(0xffff_c900_0000_3f58), 0xffff_c900_0000_3f60);
}

#[test]
fn an_exception_aligns_the_stack_and_pushes_five_words() {
    let restarted = |sp: u64, frame: u64, ip: u64, flags: u64| {
        let mut memory = |addr: GuestAddr| match addr.0.wrapping_sub(frame) {
            0 => Some(ip),
            0x10 => Some(flags),
            _ => None,
        };
        X86_64.is_restart(sp, GuestAddr(0xffff_ffff_8100_0010), &mut memory)
    };
    // Unaligned: down to ...50; SS 48, RSP 40, flags 38, CS 30, RIP 28.
    let frame = 0xffff_c900_0000_3f28;
    assert!(restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0010, 0x10246));
    assert!(restarted(0xffff_c900_0000_3f50, frame, 0xffff_ffff_8100_0010, 0x10246));
    assert!(!restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0040, 0x10246), "a fix-up");
    assert!(!restarted(0xffff_c900_0000_3f58, frame, 0xffff_ffff_8100_0010, 0x346), "single-stepped");
    assert!(!restarted(0xffff_c900_0000_3f68, frame, 0xffff_ffff_8100_0010, 0x10246), "another frame");
}

#[test]
fn general_registers_and_flags_are_writable() {
    let writable: Vec<&str> = (0_u8..)
        .zip(X86_64.registers())
        .filter(|(id, _)| X86_64.writable(RegisterId(*id)))
        .map(|(_, register)| register.name)
        .collect();
    let expected =
        ["r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "flags", "sp"];
    assert_eq!(writable, expected);
}

#[test]
fn registers_have_the_kernels_names() {
    // Linux 6.12 arch/x86/kernel/ptrace.c, regoffset_table.
    let kernel = [
        "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "bx", "cx", "dx", "si", "di", "bp", "ax", "orig_ax",
        "ip", "cs", "flags", "sp", "ss",
    ];
    assert!(kernel.iter().all(|name| X86_64.register(name).is_some()));
    // Then this project's own.
    let own: Vec<&str> = X86_64.registers().iter().map(|register| register.name).skip(kernel.len()).collect();
    assert_eq!(own, ["fs_base", "gs_base", ""], "the last one cannot be named");
    for stranger in ["rax", "eax", "al", "rip", "RAX", "", "%ax"] {
        assert_eq!(X86_64.register(stranger), None, "{stranger}");
    }
}

#[test]
fn registers_come_from_their_qemu_names() {
    let qemu = |name| {
        let RegisterId(id) = X86_64.register(name).expect("a register");
        match X86_64.registers()[usize::from(id)].source {
            RegisterSource::Qemu { name, feature: None } => name,
            source => panic!("{name} comes from {source:?}"),
        }
    };
    let names = ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "r8", "r15", "flags", "cs", "ss"];
    let expected = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r15", "eflags", "cs", "ss"];
    assert_eq!(names.map(qemu), expected);
    let program_counter = X86_64.registers().iter().find(|register| register.role == Role::ProgramCounter);
    assert_eq!(program_counter.map(|register| register.name), Some("ip"));
}

#[test]
fn privilege_follows_address_and_selector() {
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_8100_0000)), Privilege::Kernel);
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_c000_0000)), Privilege::Kernel);
    assert_eq!(X86_64.privilege(GuestAddr(0xff00_0000_0000_0000)), Privilege::Kernel);
    assert_eq!(X86_64.privilege(GuestAddr(0x40_0000)), Privilege::AskRegisters);
    // The vsyscall page and its neighbours.
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_0000)), Privilege::AskRegisters);
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_0c00)), Privilege::AskRegisters);
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff60_1000)), Privilege::Kernel);
    assert_eq!(X86_64.privilege(GuestAddr(0xffff_ffff_ff5f_ffff)), Privilege::Kernel);
    // __KERNEL_CS, __USER_CS, __USER32_CS
    assert!(X86_64.is_privileged(0x10));
    assert!(!X86_64.is_privileged(0x33));
    assert!(!X86_64.is_privileged(0x23));
}

#[test]
fn arguments_of_32_bits_come_in_three_registers() {
    let name = |n| match X86_32.argument(n) {
        Some(ArgumentPlace::Register(RegisterId(id))) => X86_32.registers()[usize::from(id)].name,
        place => panic!("argument {n} is {place:?}"),
    };
    assert_eq!([1, 2, 3].map(name), ["ax", "dx", "cx"]);
    assert_eq!(X86_32.argument(4), Some(ArgumentPlace::Stack { offset: 4 }));
    assert_eq!(X86_32.argument(5), Some(ArgumentPlace::Stack { offset: 8 }));
    assert_eq!(X86_32.argument(0), None);
    assert_eq!(X86_32.registers()[usize::from(X86_32.return_value().0)].name, "ax");
}

#[test]
fn registers_of_32_bits_have_the_kernels_names() {
    // Linux 6.1 arch/x86/include/asm/ptrace.h, in the order of struct pt_regs; then this project's own, of which the last
    // one cannot be named.
    #[rustfmt::skip]
    let expected = [
        "bx", "cx", "dx", "si", "di", "bp", "ax", "ds", "es", "fs", "gs", "orig_ax", "ip", "cs", "flags", "sp", "ss",
        "fs_base", "gs_base", "",
    ];
    let names: Vec<&str> = X86_32.registers().iter().map(|register| register.name).collect();
    assert_eq!(names, expected);
    for stranger in ["eax", "r8", "rax", "al", "eip", ""] {
        assert_eq!(X86_32.register(stranger), None, "{stranger}");
    }
    assert!(X86_32.registers().iter().all(|register| register.bytes == 4));
    let source = |name| X86_32.registers()[usize::from(X86_32.register(name).expect("a register").0)].source;
    assert_eq!(source("sp"), RegisterSource::Qemu { name: "esp", feature: None });
    assert_eq!(source("di"), RegisterSource::Qemu { name: "edi", feature: None });
    assert_eq!(source("orig_ax"), RegisterSource::Constant(0xffff_ffff));
}

#[test]
fn general_registers_of_32_bits_and_flags_are_writable() {
    let writable: Vec<&str> = (0_u8..)
        .zip(X86_32.registers())
        .filter(|(id, _)| X86_32.writable(RegisterId(*id)))
        .map(|(_, register)| register.name)
        .collect();
    assert_eq!(writable, ["bx", "cx", "dx", "si", "di", "bp", "ax", "flags", "sp"]);
}

#[test]
fn a_return_of_32_bits_pops_four_bytes() {
    assert_eq!(X86_32.return_place(), ReturnPlace::Stack);
    assert_eq!(X86_32.sp_after_return(0xc290_1f58), 0xc290_1f5c);
    assert_eq!(X86_32.sp_after_return(0xffff_fffc), 0);
}

#[test]
fn an_exception_of_32_bits_pushes_three_words_where_the_stack_is() {
    let restarted = |sp: u64, frame: u64, ip: u64, flags: u64| {
        let mut memory = |addr: GuestAddr| match addr.0.wrapping_sub(frame) {
            0 => Some(ip),
            8 => Some(flags),
            _ => None,
        };
        X86_32.is_restart(sp, GuestAddr(0xc100_0010), &mut memory)
    };
    // EFLAGS at ...54, CS 50, EIP 4c.
    assert!(restarted(0xc290_1f58, 0xc290_1f4c, 0xc100_0010, 0x10246));
    assert!(!restarted(0xc290_1f58, 0xc290_1f4c, 0xc100_0040, 0x10246), "a fix-up");
    assert!(!restarted(0xc290_1f58, 0xc290_1f4c, 0xc100_0010, 0x346), "single-stepped");
    assert!(!restarted(0xc290_1f5c, 0xc290_1f4c, 0xc100_0010, 0x10246), "another frame");
}

#[test]
fn entries_of_32_bits_are_recognised() {
    // As Debian's 6.1 has them once it has booted: lea %ds:0x0(%esi,%eiz,1),%esi
    assert!(X86_32.looks_like_entry(&[0x3e, 0x8d, 0x74, 0x26, 0x00, 0x55]));
    assert!(X86_32.looks_like_entry(&[0xf3, 0x0f, 0x1e, 0xfb]));
    assert!(!X86_32.looks_like_entry(&[0xe8, 0, 0, 0, 0]));
    assert!(!X86_32.looks_like_entry(&[0x55, 0x89, 0xe5]));
    // endbr32; endbr64, which is nothing of a 32-bit kernel's; push %ebp
    assert_eq!(X86_32.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfb, 0x55]), 4);
    assert_eq!(X86_32.entry_skip(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55]), 0);
    assert_eq!(X86_32.entry_skip(&[0x55]), 0);
}

#[test]
fn privilege_of_32_bits_follows_address_and_selector() {
    assert_eq!(X86_32.privilege(GuestAddr(0xc100_0000)), Privilege::Kernel);
    assert_eq!(X86_32.privilege(GuestAddr(0xffff_ffff)), Privilege::Kernel);
    assert_eq!(X86_32.privilege(GuestAddr(0xbfff_ffff)), Privilege::AskRegisters);
    assert_eq!(X86_32.privilege(GuestAddr(0x0100_0000)), Privilege::AskRegisters);
    // The vDSO of old kernels.
    assert_eq!(X86_32.privilege(GuestAddr(0xffff_e420)), Privilege::AskRegisters);
    // __KERNEL_CS, __USER_CS
    assert!(X86_32.is_privileged(0x60));
    assert!(!X86_32.is_privileged(0x73));
    assert!(X86_32.is_user_address(GuestAddr(0xbfff_ffff)) && !X86_32.is_user_address(GuestAddr(0xc000_0000)));
    assert_eq!((X86_32.word_bytes(), X86_32.thread_size(), X86_32.stack_bias()), (4, 8192, 0));
}

#[test]
fn what_accesses_more_than_the_kernels_own_stack_may_run_again() {
    let may = |addr: u64, bytes: &[u8]| {
        let slot = InsnSlot::prepare(&X86_64, GuestAddr(addr), bytes).expect("an instruction");
        X86_64.may_restart(&slot, GuestAddr(addr))
    };
    let kernel = 0xffff_ffff_8100_0010;
    // mov %rax,(%rcx); mov (%rsp,%rax),%rax; mov %gs:(%rax),%rax; push (%rax); call *(%rax); rep stosq; mov 0x10,%rax;
    // mov %fs:0xffffffff81000000,%rax
    let accesses: [&[u8]; 8] = [
        &[0x48, 0x89, 0x01],
        &[0x48, 0x8b, 0x04, 0x04],
        &[0x65, 0x48, 0x8b, 0x00],
        &[0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0],
        &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0x81],
        &[0xff, 0x30],
        &[0xff, 0x10],
        &[0xf3, 0x48, 0xab],
    ];
    assert!(accesses.iter().all(|bytes| may(kernel, bytes)));
    // push %rbp; call; ret; pop %rbp; leave; call *%rax; mov 8(%rsp),%rax; mov %gs:0x20,%rax; mov 0x100(%rip),%rax;
    // mov 0xffffffff81000000,%rax; push 0x100(%rip)
    let stack: [&[u8]; 11] = [
        &[0x55],
        &[0xe8, 0, 0, 0, 0],
        &[0xc3],
        &[0x5d],
        &[0xc9],
        &[0xff, 0xd0],
        &[0x48, 0x8b, 0x44, 0x24, 8],
        &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x20, 0, 0, 0],
        &[0x48, 0x8b, 0x05, 0, 1, 0, 0],
        &[0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0x81],
        &[0xff, 0x35, 0, 1, 0, 0],
    ];
    for bytes in stack {
        assert!(!may(kernel, bytes), "{bytes:x?}");
    }
    assert!(stack.iter().all(|bytes| may(0x40_1000, bytes)), "a user's stack grows by faults");
    // lea 8(%rdi),%rax; nopl (%rax); mov %rsp,%rbp; jmp
    let none: [&[u8]; 4] = [&[0x48, 0x8d, 0x47, 8], &[0x0f, 0x1f, 0], &[0x48, 0x89, 0xe5], &[0xeb, 0]];
    assert!(none.iter().all(|bytes| !may(kernel, bytes) && !may(0x40_1000, bytes)));
}
