/* Snippets: where execution goes. Loops, jumps, calls, returns, far transfers. */
#include "bare.inc"

    .text

/* X1: `loop` counts down first and then looks. A kprobe in the kernel looks first. */
SNIP loop_rcx0, 3
    xor %ecx, %ecx
    xor %eax, %eax
    loop 1f
L not_taken
    inc %eax
    ret
L taken
1:  dec %eax
    ret
END

SNIP loop_rcx1, 3
    mov $1, %ecx
    xor %eax, %eax
    loop 1f
L not_taken
    inc %eax
    ret
L taken
1:  dec %eax
    ret
END

SNIP loop_rcx5, 100
    mov $5, %ecx
    xor %eax, %eax
L again
1:  inc %eax
    loop 1b
L after
    ret
END

/* Backwards to itself. */
SNIP loop_self, 3
    mov $9, %ecx
L self
1:  loop 1b
L after
    ret
END

/* ZF ends it at 4, the counter would at 5. */
SNIP loope_flag, 3, AF
    mov $5, %ecx
    xor %eax, %eax
L again
1:  inc %eax
    test $4, %al
    loope 1b
L after
    ret
END

SNIP loope_count, 3
    mov $3, %ecx
    xor %eax, %eax
L again
1:  inc %eax
    cmp %r8, %r8
    loope 1b
L after
    ret
END

SNIP loope_edges, 3
    xor %eax, %eax
    mov $1, %ecx
    cmp %eax, %eax
    loope 1f
L rcx1_not_taken
    inc %eax
1:  xor %ecx, %ecx
    cmp %eax, %eax
    loope 2f
L rcx0_not_taken
    inc %eax
L rcx0_taken
2:  cmp $-1, %eax
    loope 3f
L ne_not_taken
    add $16, %eax
3:  ret
END

SNIP loopne_flag, 3
    mov $5, %ecx
    xor %eax, %eax
L again
1:  inc %eax
    cmp $3, %al
    loopne 1b
L after
    ret
END

SNIP loopne_edges, 3
    xor %eax, %eax
    mov $1, %ecx
    cmp $7, %eax
    loopne 1f
L rcx1_not_taken
    inc %eax
1:  xor %ecx, %ecx
    cmp $7, %eax
    loopne 2f
L rcx0_not_taken
    inc %eax
L rcx0_taken
2:  cmp %eax, %eax
    loopne 3f
L e_not_taken
    add $16, %eax
3:  ret
END

/* Only ECX counts; its upper half is not looked at. */
SNIP loop_ecx, 3
    mov $0xcccc000000000002, %rcx
    xor %eax, %eax
L again
1:  inc %eax
    addr32 loop 1b
L after
    ret
END

SNIP jrcxz, 3
    mov $0x100000000, %rcx
    xor %eax, %eax
    jrcxz 1f
L rcx_set
    inc %eax
1:  jecxz 2f
L ecx_set
    add $16, %eax
L ecx_zero
2:  xor %ecx, %ecx
    jrcxz 3f
L rcx_not_zero
    add $16, %eax
L rcx_zero
3:  inc %ecx
    jecxz 4f
L ecx_one
    inc %eax
4:  ret
END

/* X2: the immediate is popped as well. rbx: what the stack pointer is off afterwards. */
SNIP ret_imm, 10
    mov %rsp, %rbx
    push $0x11
    push $0x22
    call 1f
    sub %rsp, %rbx
    ret
1:  mov $5, %eax
    ret $16
END

SNIP ret_imm0, 3
    mov %rsp, %rbx
    call 1f
    sub %rsp, %rbx
    ret
1:  mov $6, %eax
    ret $0
END

SNIP ret_rep, 10
    mov %rsp, %rbx
    call 1f
    sub %rsp, %rbx
    ret
1:  mov $7, %eax
    repz ret
END

/* As a retpoline returns: to where it was told, not to where it was called from. */
SNIP ret_as_jump, 10
    lea snip_ret_as_jump.target(%rip), %rax
    call 2f
L never
1:  pause
    lfence
    jmp 1b
L out
2:  mov %rax, (%rsp)
    ret
L target
    mov %rsp, %rbx
    ret
END

/* X3: six bytes. rax: the return address minus the call's own. */
SNIP call_cs, 10
L site
    .byte 0x2e
    call 1f
    ret
1:  mov (%rsp), %rax
    lea snip_call_cs.site(%rip), %rcx
    sub %rcx, %rax
    ret
END

SNIP call_direct, 100
    call 1f
L back
    call 1f
    ret
L callee
1:  inc %eax
    mov (%rsp), %rcx
    ret
END

SNIP call_register, 3
    lea 1f(%rip), %rax
    call *%rax
    mov %rax, %r10
    call *%r10
    ret
L callee
1:  mov (%rsp), %rcx
    inc %rdx
    ret
END

/* In the kernel a probe on these is refused. */
SNIP call_memory, 10
    lea callees(%rip), %rbx
    xor %eax, %eax
    call *callees(%rip)
    call *(%rbx)
    call *8(%rbx)
    mov $2, %ecx
    call *(%rbx, %rcx, 8)
    call *8(%rbx, %rcx, 8)
    lea 1f(%rip), %rdx
    push %rdx
    call *(%rsp)
    pop %rdx
    ret
1:  mov (%rsp), %rcx
    ret
L one
    lea 1(%rax, %rax), %rax
    ret
L two
    lea 2(, %rax, 4), %rax
    ret
L three
    lea 3(, %rax, 8), %rax
    ret
END

/* With an address of 32 bits: the first GB is mapped at 0 as well. */
SNIP narrow_address, 10
    mov $narrow - KBASE, %ebx
    xor %eax, %eax
    addr32 call *(%ebx)
    mov $1, %ecx
    addr32 jmp *(%ebx, %ecx, 8)
L never
    ud2
L callee
    inc %eax
    ret
L target
    add $16, %eax
    ret
END

SNIP jmp_direct, 3
    xor %eax, %eax
    {disp8} jmp 1f
L never_1
    ud2
L middle
2:  inc %eax
    {disp32} jmp 3f
L never_2
    ud2
L first
1:  {disp32} jmp 2b
L last
3:  ret
END

SNIP jmp_indirect, 10
    xor %eax, %eax
    lea snip_jmp_indirect.one(%rip), %rdx
    jmp *%rdx
L never_1
    ud2
L one
    inc %eax
    lea targets(%rip), %rbx
    jmp *(%rbx)
L two
    inc %eax
    mov $1, %ecx
    jmp *targets(, %rcx, 8)
L three
    inc %eax
    jmp *targets + 16(%rip)
L four
    inc %eax
    push $0x77
    mov 24(%rbx), %r12
    jmp *%r12
L five
    pop %rdx
    ret
END

/* Taken and not taken, with each of three states of the flags. rax: a bit for each jump that was not taken. */
    .macro CONDITIONS
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    lea (%rax, %rax), %rax
    j\cc 1f
L not_\cc
    lea 1(%rax), %rax
L after_\cc
1:
    .endr
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    lea (%rbx, %rbx), %rbx
    {disp32} j\cc 1f
L far_not_\cc
    lea 1(%rbx), %rbx
L far_after_\cc
1:
    .endr
    .endm
    .macro FLAGS value
    mov $0, %eax
    mov $0, %ebx
    push $\value
    popfq
    .endm

SNIP jcc_none, 3
    FLAGS 2
    CONDITIONS
    ret
END
SNIP jcc_all, 3
    FLAGS 2 + ARITH
    CONDITIONS
    ret
END
SNIP jcc_sign, 3
    FLAGS 2 + SF
    CONDITIONS
    ret
END

/* Another code segment and back. */
SNIP far_ret, 3
    mov %rsp, %rbx
    push $OTHER_CS
    lea 1f(%rip), %rax
    push %rax
    lretq
L other
1:  mov %cs, %ecx
    push $KERNEL_CS
    lea 2f(%rip), %rax
    push %rax
    lretq
L back
2:  mov %cs, %edx
    sub %rsp, %rbx
    ret
END

SNIP far_ret_imm, 3
    mov %rsp, %rbx
    push $0x33
    push $0x44
    push $KERNEL_CS
    lea 1f(%rip), %rax
    push %rax
    lretq $16
L back
1:  sub %rsp, %rbx
    ret
END

/* Like Intel's CPUs and unlike AMD's, QEMU takes a 64-bit offset here. */
SNIP far_memory, 3
    rex.w lcall *far_callee(%rip)
    mov %cs, %edx
    lea far_target(%rip), %rbx
    rex.w ljmp *(%rbx)
L never
    ud2
L callee
    mov %cs, %ecx
    mov (%rsp), %rax
    lretq
L target
    mov %cs, %esi
    rex.w ljmp *16(%rbx)
L back
    mov %cs, %edi
    ret
END

SNIP iret_same_stack, 3
    mov %rsp, %rbx
    push $KERNEL_DS
    push %rbx
    push $2 + ARITH
    push $KERNEL_CS
    lea 1f(%rip), %rax
    push %rax
    iretq
L back
1:  pushfq
    pop %rcx
    sub %rsp, %rbx
    ret
END

SNIP iret_other_stack, 3
    mov %rsp, %rbp
    lea data + 512(%rip), %rbx
    push $KERNEL_DS
    push %rbx
    push $2 + CF + IF
    push $OTHER_CS
    lea 1f(%rip), %rax
    push %rax
    iretq
L other
1:  mov %cs, %ecx
    mov %rsp, %rdx
    push $0x55
    pushfq
    push $KERNEL_DS
    push %rbp
    push $2
    push $KERNEL_CS
    lea 2f(%rip), %rax
    push %rax
    iretq
L back
2:  mov %cs, %esi
    ret
END

    .section .data
    .balign 16
callees:
    .quad snip_call_memory.one, snip_call_memory.two, snip_call_memory.three, snip_call_memory.one
targets:
    .quad snip_jmp_indirect.two, snip_jmp_indirect.three, snip_jmp_indirect.four, snip_jmp_indirect.five
narrow:
    .quad snip_narrow_address.callee, snip_narrow_address.target
far_callee:
    .quad snip_far_memory.callee
    .quad OTHER_CS
far_target:
    .quad snip_far_memory.target
    .quad OTHER_CS
    .quad snip_far_memory.back
    .quad KERNEL_CS
