/* Snippets: what only a kernel may do. Flags, segments, control registers, traps, faults, waiting, user mode. */
#include "bare.inc"

    .text

SNIP interrupt_flag, 10
    pushfq
    pop %rax
    sti
    pushfq
    pop %rbx
    cli
    pushfq
    pop %rcx
    sti
    nop
    cli
    ret
END

SNIP flags, 10
    push $2 + ARITH
    popfq
    pushfq
    pop %rax
    push $2 + IF + CF
    popfq
    pushfq
    pop %rbx
    push $2 + ZF + 0x400
    popfq
    pushfq
    pop %rcx
    pushfw
    popw %dx
    pushw $2 + PF + SF
    popfw
    pushfq
    pop %rsi
    stc
    pushfq
    pop %rdi
    cmc
    std
    pushfq
    pop %r8
    cld
    clc
    /* The identification flag, and what may not be set. */
    push $2 + 0x200000 + CF
    popfq
    pushfq
    pop %r9
    push $2 + OF
    popfq
    ret
END

/* Nothing comes between the first and what follows it. */
SNIP stack_segment, 10
    mov %ss, %eax
    mov %eax, %ss
    mov %rsp, %rbx
    mov %ss, %ecx
    push $0x11
    mov %eax, %ss
    pop %rdx
    ret
END

SNIP segments, 10
    mov %cs, %eax
    mov %ds, %ebx
    push $KERNEL_DS
    pop %fs
    push $KERNEL_DS
    pop %gs
    push %fs
    pop %rcx
    push %gs
    pop %rdx
    xor %esi, %esi
    mov %esi, %es
    mov %es, %edi
    mov $KERNEL_DS, %esi
    mov %esi, %es
    mov %es, %r8d
    lea data(%rip), %r9
    mov %gs:(%r9), %r10
    mov %fs:8(%r9), %r11
    lsl %esi, %r12d
    verr %si
    str %r13w
    ret
END

SNIP control_registers, 10
    mov %cr0, %rax
    mov %rax, %cr0
    mov %cr3, %rbx
    mov %rbx, %cr3
    mov %cr4, %rcx
    mov %rcx, %cr4
    mov $3, %edx
    mov %rdx, %cr8
    mov %cr8, %rsi
    xor %edx, %edx
    mov %rdx, %cr8
    mov %cr8, %rdi
    clts
    smsw %r8d
    ret
END

SNIP debug_registers, 3
    lea data(%rip), %rax
    mov %rax, %dr0
    mov %dr0, %rbx
    mov %dr7, %rcx
    xor %edx, %edx
    mov %rdx, %dr0
    mov %dr6, %rsi
    ret
END

/* IA32_KERNEL_GS_BASE, and what `swapgs` makes of it. */
SNIP model_registers, 10
    mov $0xc0000102, %ecx
    lea data(%rip), %rax
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
    rdmsr
    mov %rax, %rbx
    swapgs
    mov %gs:16, %rsi
    swapgs
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    rdmsr
    rdgsbase %r8
    ret
END

SNIP identify, 3
    mov $1, %eax
    xor %ecx, %ecx
    cpuid
    xor %eax, %eax
    cpuid
    ret
END

/* Its value is another each time. */
SNIP timestamp, 10
    rdtsc
    mov %eax, %esi
    mov %edx, %edi
    rdtscp
    sub %esi, %eax
    sbb %edi, %edx
    mov $1, %eax
    mov $2, %edx
    xor %esi, %esi
    xor %edi, %edi
    ret
END

SNIP flush, 10
    lea data(%rip), %rax
    invlpg (%rax)
    mov (%rax), %rbx
    clflush (%rax)
    wbinvd
    ret
END

/* Ports: the PIT's third counter, which nobody uses. */
SNIP ports, 3
    mov $0xb0, %al
    out %al, $0x43
    mov $0x61, %edx
    in %dx, %al
    and $1, %eax
    ret
END

SNIP breakpoint, 10
    mov $1, %eax
    cmp %eax, %eax
L trap_1
    int3
L after
    inc %eax
    cmp %eax, %eax
L trap_2
    .byte 0xcd, 0x03
L after_2
    ret
END

/* A trap behind each instruction that begins with TF set. */
SNIP single_step, 10
    push $2 + TF
    push $2
    pop %rbx
    popfq
    nop
    mov %rsp, %rcx
    call 1f
    push %rbx
    popfq
    nop
    ret
1:  lea 5(%rcx), %rdx
    ret
END

/* The CPU's own breakpoint and watchpoint: traps before the one, behind the other. */
SNIP hardware_breakpoint, 10
    lea snip_hardware_breakpoint.here(%rip), %rax
    mov %rax, %dr0
    mov $0x402, %ecx
    mov %rcx, %dr7
    xor %edx, %edx
L here
    inc %edx
    mov $0x400, %ecx
    mov %rcx, %dr7
    xor %eax, %eax
    mov %rax, %dr0
    mov %rax, %dr6
    ret
END

SNIP hardware_watchpoint, 10
    lea data(%rip), %rax
    mov %rax, %dr0
    /* Writes of 8 bytes. */
    mov $0x90402, %ecx
    mov %rcx, %dr7
    mov (%rax), %rdx
    cmp %eax, %eax
L write
    mov %rcx, (%rax)
L mid_1
    cmp %eax, %eax
L rmw
    lock incq (%rax)
L mid_2
    mov $0x400, %ecx
    mov %rcx, %dr7
    xor %eax, %eax
    mov %rax, %dr0
    mov %rax, %dr6
    ret
END

SNIP software_interrupt, 10
    cmp %eax, %eax
L trap_1
    int $0x80
L after
    setz %al
    ret
END

/* The handler lets it go on behind the fault. */
    .macro RESUME_AT label
    lea \label(%rip), %rax
    mov %rax, fix_rip(%rip)
    .endm

SNIP undefined, 10
    cmp %eax, %eax
    RESUME_AT 1f
L trap_1
    ud2
L never
    inc %ecx
L after
1:  setz %al
    ret
END

/* The two other instructions that are none, by the manual. */
SNIP undefined_others, 10
    cmp %eax, %eax
    RESUME_AT 1f
L ud1
    ud1 %eax, %ecx
L never_1
    inc %ecx
L after_ud1
1:  RESUME_AT 2f
L ud0
    .byte 0x0f, 0xff, 0xc8
L never_2
    inc %ecx
L after_ud0
2:  setz %al
    ret
END

/* `int1` traps behind itself. */
SNIP trap_int1, 10
    mov $1, %eax
    cmp %eax, %eax
L trap_1
    .byte 0xf1
L after
    setz %al
    ret
END

/* What only a virtual machine may do. */
SNIP virtual_machine, 10
    cmp %eax, %eax
    .irp call, vmcall, vmlaunch, vmresume, vmxoff
    RESUME_AT 1f
L \call
    \call
L never_\call
    inc %ecx
L after_\call
1:
    .endr
    setz %al
    ret
END

/* What stands before an instruction for Xen, and for KVM, to emulate it. The last byte of the KVM's is a nop. */
SNIP emulate_prefix, 10
    RESUME_AT 1f
L xen
    ud2
L xen_words
    .ascii "xen"
L after_xen
1:  xor %eax, %eax
    xor %ecx, %ecx
    cpuid
    xor %eax, %eax
    xor %ebx, %ebx
    xor %ecx, %ecx
    xor %edx, %edx
    RESUME_AT 2f
L kvm
    ud2
L kvm_words
    .ascii "kvm\x90"
L after_kvm
2:  xor %eax, %eax
    ret
END

SNIP divide_error, 10
    RESUME_AT 1f
    xor %edx, %edx
    xor %ecx, %ecx
L fault
    div %rcx
L never
    inc %ecx
L after
1:  setz %al
    ret
END

SNIP general_fault, 10
    RESUME_AT 1f
    mov $0x8000000000000000, %rbx
    cmp %eax, %eax
L fault
    mov (%rbx), %rcx
L never
    inc %ecx
L after
1:  setz %al
    ret
END

SNIP pf_skip, 10
    movq $0, fault_pte(%rip)
    mov $FAULT_VA, %ebx
    invlpg (%rbx)
    RESUME_AT 1f
    cmp %eax, %eax
L fault
    add %rcx, (%rbx)
L never
    inc %ecx
L after
1:  mov %cr2, %rdx
    ret
END

/* The handler maps the page, and the instruction runs a second time. */
    .macro ABSENT
    lea fault_pte(%rip), %rax
    movq $0, (%rax)
    mov $FAULT_VA, %ebx
    invlpg (%rbx)
    mov %rax, fix_pte(%rip)
    .endm

SNIP pf_map, 10
    ABSENT
    cmp %eax, %eax
L load
    mov (%rbx), %rcx
L mid_1
    ABSENT
    cmp %eax, %eax
L push
    push 8(%rbx)
L mid_2
    pop %rdx
    ABSENT
    cmp %eax, %eax
L rmw
    lock incl 16(%rbx)
L mid_3
    decl 16(%rbx)
    ABSENT
    cmp %eax, %eax
L call
    call *(%rbx)
L mid_4
    ABSENT
    lea -4(%rbx), %rbx
    push $0x55
    cmp %eax, %eax
L pop
    popq 12(%rbx)
L mid_5
    mov 12(%rbx), %r8
    lea snip_pf_map.callee(%rip), %r9
    mov %r9, 12(%rbx)
    ABSENT
    cmp %eax, %eax
L jump
    jmp *16(%rbx)
L callee
    mov (%rsp), %rsi
    ret
END

/* A repeated one that stops in the middle: the page behind this one is absent. */
SNIP pf_rep, 10
    ABSENT
    mov %rbx, %rdi
    sub $4, %rdi
    mov $16, %ecx
    cmp %eax, %eax
    rep stosb
    mov (%rbx), %rdx
    lea snip_pf_map.callee(%rip), %r9
    mov %r9, (%rbx)
    mov %r9, 8(%rbx)
    ret
END

/* The timer, once. It may come before `hlt` is reached: `sti` holds it back until then. */
SNIP halt, 5
    mov $0x30, %al
    out %al, $0x43
    mov $0xfe, %al
    out %al, $0x21
    mov $0x80, %al
    out %al, $0x40
    mov $1, %al
    out %al, $0x40
    sti
    hlt
    cli
    mov interrupts(%rip), %rax
    ret
END

/* To user mode by `iretq`, back by an interrupt. */
SNIP user_iret, 10
    mov %rsp, kernel_rsp(%rip)
    lea 1f(%rip), %rax
    mov %rax, kernel_rip(%rip)
    push $USER_DS
    push $USER_STACK
    push $2
    push $USER_CS
    push $USER_VA + snip_user_code - user_page
    xor %eax, %eax
L enter
    iretq
L back
1:  mov %cs, %edx
    ret
END

/* To user mode by `sysretq`, back by `syscall`. */
SNIP user_syscall, 10
    mov %rsp, kernel_rsp(%rip)
    mov $USER_VA + snip_user_calls - user_page, %ecx
    mov $2, %r11d
    mov $USER_STACK, %esp
L enter
    sysretq
L entry
    mov %cs, %edx
    mov %rsp, %rbx
    mov kernel_rsp(%rip), %rsp
    ret
END

/* Mapped for user mode as well. */
    .section .text.user, "ax"
    .balign 4096
    .globl user_page
user_page:

FRAGMENT user_code
    mov $7, %ecx
    mov %cs, %ebx
L again
1:  add %rcx, %rax
    push %rax
    loop 1b
L after
    call 2f
L leave
    int $0x81
L callee
2:  mov (%rsp), %rsi
    ret
END

FRAGMENT user_calls
    mov %cs, %eax
    push %rax
    pop %r8
L leave
    syscall
END
