/* Snippets: what only a kernel may do. Flags, segments, control registers, traps, faults, waiting, user mode. */
#include "bare.inc"

    .text

SNIP interrupt_flag, 10
    pushf
    pop %eax
    sti
    pushf
    pop %ebx
    cli
    pushf
    pop %ecx
    sti
    nop
    cli
    ret
END

SNIP flags, 10
    push $2 + ARITH
    popf
    pushf
    pop %eax
    push $2 + IF + CF
    popf
    pushf
    pop %ebx
    push $2 + ZF + 0x400
    popf
    pushf
    pop %ecx
    pushfw
    popw %dx
    pushw $2 + PF + SF
    popfw
    pushf
    pop %esi
    stc
    pushf
    pop %edi
    cmc
    std
    pushf
    pop %ebp
    cld
    clc
    push $2 + OF
    popf
    ret
END

/* Nothing comes between the first and what follows it. */
SNIP stack_segment, 10
    mov %ss, %eax
    mov %eax, %ss
    mov %esp, %ebx
    mov %ss, %ecx
    push $0x11
    push %ss
    pop %ss
    pop %edx
    push %eax
    push %esp
    lss (%esp), %esp
    pop %esi
    ret
END

SNIP segments, 10
    mov %cs, %eax
    mov %ds, %ebx
    push $KERNEL_DS
    pop %fs
    push %cs
    pop %ecx
    push %ds
    pop %es
    xor %esi, %esi
    mov %esi, %gs
    mov %gs, %edi
    lds far_pointer, %esi
    les far_pointer, %ebp
    mov %fs:data + 8, %edx
    mov %es:(%ebp), %ebp
    lsl %ebx, %edi
    verr %bx
    str %cx
    ret
END

SNIP control_registers, 10
    mov %cr0, %eax
    mov %eax, %cr0
    mov %cr3, %ebx
    mov %ebx, %cr3
    mov %cr4, %ecx
    mov %ecx, %cr4
    clts
    smsw %edx
    ret
END

SNIP debug_registers, 3
    mov $data, %eax
    mov %eax, %dr0
    mov %dr0, %ebx
    mov %dr7, %ecx
    xor %edx, %edx
    mov %edx, %dr0
    mov %dr6, %esi
    ret
END

/* IA32_SYSENTER_CS. */
SNIP model_registers, 10
    mov $0x174, %ecx
    mov $0x1234, %eax
    xor %edx, %edx
    wrmsr
    xor %eax, %eax
    rdmsr
    mov %eax, %ebx
    xor %eax, %eax
    wrmsr
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
    mov $data, %eax
    invlpg (%eax)
    mov (%eax), %ebx
    clflush (%eax)
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

/* Only what overflows traps. */
SNIP overflow, 10
    xor %eax, %eax
L untaken
    into
L between
    mov $0x7fffffff, %eax
    inc %eax
L trap_1
    into
L after
    mov $bounds, %ebx
    mov $7, %ecx
    bound %ecx, (%ebx)
    ret
END

/* A trap behind each instruction that begins with TF set. */
SNIP single_step, 10
    push $2 + TF
    push $2
    pop %ebx
    popf
    nop
    mov %esp, %ecx
    call 1f
    push %ebx
    popf
    nop
    ret
1:  lea 5(%ecx), %edx
    ret
END

/* The CPU's own breakpoint. */
SNIP hardware_breakpoint, 10
    mov $snip_hardware_breakpoint.here, %eax
    mov %eax, %dr0
    mov $0x402, %ecx
    mov %ecx, %dr7
    xor %edx, %edx
L here
    inc %edx
    mov $0x400, %ecx
    mov %ecx, %dr7
    xor %eax, %eax
    mov %eax, %dr0
    mov %eax, %dr6
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
    movl $\label, fix_ip
    .endm

SNIP undefined, 10
    RESUME_AT 1f
    cmp %eax, %eax
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
    div %ecx
L never
    inc %ecx
L after
1:  setz %al
    ret
END

/* A segment that there is not. */
SNIP general_fault, 10
    RESUME_AT 1f
    mov $0x58, %ebx
    cmp %eax, %eax
L fault
    mov %ebx, %gs
L never
    inc %ecx
L after
1:  setz %al
    ret
END

SNIP pf_skip, 10
    movl $0, fault_pte
    mov $FAULT_VA, %ebx
    invlpg (%ebx)
    RESUME_AT 1f
    cmp %eax, %eax
L fault
    add %ecx, (%ebx)
L never
    inc %ecx
L after
1:  mov %cr2, %edx
    ret
END

/* The handler maps the page, and the instruction runs a second time. */
    .macro ABSENT
    movl $0, fault_pte
    mov $FAULT_VA, %ebx
    invlpg (%ebx)
    movl $fault_pte, fix_pte
    .endm

SNIP pf_map, 10
    ABSENT
    cmp %eax, %eax
L load
    mov (%ebx), %ecx
L mid_1
    ABSENT
    cmp %eax, %eax
L push
    push 8(%ebx)
L mid_2
    pop %edx
    ABSENT
    cmp %eax, %eax
L rmw
    lock incl 16(%ebx)
L mid_3
    decl 16(%ebx)
    ABSENT
    cmp %eax, %eax
L call
    call *(%ebx)
L mid_4
    ABSENT
    push $0x55
    cmp %eax, %eax
L pop
    popl 12(%ebx)
L mid_5
    mov 12(%ebx), %edi
    movl $snip_pf_map.callee, 12(%ebx)
    ABSENT
    cmp %eax, %eax
L jump
    jmp *16(%ebx)
L callee
    mov (%esp), %esi
    ret
END

/* A repeated one that stops in the middle: the page behind this one is absent. */
SNIP pf_rep, 10
    ABSENT
    mov %ebx, %edi
    sub $4, %edi
    mov $16, %ecx
    cmp %eax, %eax
    rep stosb
    mov (%ebx), %edx
    mov $snip_pf_map.callee, %ebp
    mov %ebp, (%ebx)
    mov %ebp, 4(%ebx)
    mov %ebp, 8(%ebx)
    ret
END

/* The timer, once. It may be due before `hlt` is reached: `sti` holds it back until then. */
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
    mov interrupts, %eax
    ret
END

/* To user mode by `iret`, back by an interrupt. */
SNIP user_iret, 10
    mov %esp, kernel_sp
    movl $1f, kernel_ip
    push $USER_DS
    push $USER_STACK
    push $2
    push $USER_CS
    push $USER_VA + snip_user_code - user_page
    xor %eax, %eax
L enter
    iret
L back
1:  mov %cs, %edx
    ret
END

/* Mapped for user mode as well. */
    .section .user, "ax"
    .balign 4096
    .globl user_page
user_page:

FRAGMENT user_code
    mov $7, %ecx
    mov %cs, %ebx
L again
1:  add %ecx, %eax
    push %eax
    loop 1b
L after
    call 2f
L leave
    int $0x81
L callee
2:  mov (%esp), %esi
    ret
END

    .section .rodata
    .balign 8
far_pointer:
    .long data
    .word KERNEL_DS, 0
bounds:
    .long 0, 9
