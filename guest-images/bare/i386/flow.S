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
    cmp %edx, %edx
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

/* Only CX counts; its upper half is not looked at. */
SNIP loop_cx, 3
    mov $0xcccc0002, %ecx
    xor %eax, %eax
L again
1:  inc %eax
    addr16 loop 1b
L after
    ret
END

SNIP jcxz, 3
    mov $0x10000, %ecx
    xor %eax, %eax
    jecxz 1f
L ecx_set
    inc %eax
1:  jcxz 2f
L cx_set
    add $16, %eax
L cx_zero
2:  xor %ecx, %ecx
    jecxz 3f
L ecx_not_zero
    add $16, %eax
L ecx_zero
3:  inc %ecx
    jcxz 4f
L cx_one
    inc %eax
4:  ret
END

/* X2: the immediate is popped as well. rbx: what the stack pointer is off afterwards. */
SNIP ret_imm, 10
    mov %esp, %ebx
    push $0x11
    push $0x22
    call 1f
    sub %esp, %ebx
    ret
1:  mov $5, %eax
    ret $8
END

SNIP ret_imm0, 3
    mov %esp, %ebx
    call 1f
    sub %esp, %ebx
    ret
1:  mov $6, %eax
    ret $0
END

SNIP ret_rep, 10
    mov %esp, %ebx
    call 1f
    sub %esp, %ebx
    ret
1:  mov $7, %eax
    repz ret
END

/* As a retpoline returns: to where it was told, not to where it was called from. */
SNIP ret_as_jump, 10
    mov $snip_ret_as_jump.target, %eax
    call 2f
L never
1:  pause
    lfence
    jmp 1b
L out
2:  mov %eax, (%esp)
    ret
L target
    mov %esp, %ebx
    ret
END

/* X3: six bytes. rax: the return address minus the call's own. */
SNIP call_cs, 10
L site
    .byte 0x2e
    call 1f
    ret
1:  mov (%esp), %eax
    mov $snip_call_cs.site, %ecx
    sub %ecx, %eax
    ret
END

SNIP call_direct, 100
    call 1f
L back
    call 1f
    ret
L callee
1:  inc %eax
    mov (%esp), %ecx
    ret
END

SNIP call_register, 3
    mov $1f, %eax
    call *%eax
    mov %eax, %edi
    call *%edi
    ret
L callee
1:  mov (%esp), %ecx
    inc %edx
    ret
END

/* In the kernel a probe on these is refused. */
SNIP call_memory, 10
    mov $callees, %ebx
    xor %eax, %eax
    call *callees
    call *(%ebx)
    call *4(%ebx)
    mov $2, %ecx
    call *(%ebx, %ecx, 4)
    call *4(%ebx, %ecx, 4)
    mov $1f, %edx
    push %edx
    call *(%esp)
    pop %edx
    ret
1:  mov (%esp), %ecx
    ret
L one
    lea 1(%eax, %eax), %eax
    ret
L two
    lea 2(, %eax, 4), %eax
    ret
L three
    lea 3(, %eax, 8), %eax
    ret
END

/* With an address of 16 bits: low memory is mapped at 0 as well. */
SNIP narrow_address, 10
    movl $snip_narrow_address.callee, 0x600
    movl $snip_narrow_address.target, 0x604
    mov $0x600, %ebx
    xor %eax, %eax
    addr16 call *(%bx)
    addr16 jmp *4(%bx)
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
    mov $snip_jmp_indirect.one, %edx
    jmp *%edx
L never_1
    ud2
L one
    inc %eax
    mov $targets, %ebx
    jmp *(%ebx)
L two
    inc %eax
    mov $1, %ecx
    jmp *targets(, %ecx, 4)
L three
    inc %eax
    jmp *targets + 8
L four
    inc %eax
    push $0x77
    mov 12(%ebx), %esi
    jmp *%esi
L five
    pop %edx
    ret
END

/* Taken and not taken, with each of three states of the flags. rax: a bit for each jump that was not taken. */
    .macro CONDITIONS
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    lea (%eax, %eax), %eax
    j\cc 1f
L not_\cc
    lea 1(%eax), %eax
L after_\cc
1:
    .endr
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    lea (%ebx, %ebx), %ebx
    {disp32} j\cc 1f
L far_not_\cc
    lea 1(%ebx), %ebx
L far_after_\cc
1:
    .endr
    .endm
    .macro FLAGS value
    mov $0, %eax
    mov $0, %ebx
    push $\value
    popf
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
    mov %esp, %ebx
    push $OTHER_CS
    mov $1f, %eax
    push %eax
    lret
L other
1:  mov %cs, %ecx
    push $KERNEL_CS
    mov $2f, %eax
    push %eax
    lret
L back
2:  mov %cs, %edx
    sub %esp, %ebx
    ret
END

SNIP far_ret_imm, 3
    mov %esp, %ebx
    push $0x33
    push $0x44
    push $KERNEL_CS
    mov $1f, %eax
    push %eax
    lret $8
L back
1:  sub %esp, %ebx
    ret
END

SNIP far_direct, 3
    lcall $OTHER_CS, $1f
    mov %cs, %edx
    ljmp $OTHER_CS, $2f
L never
    ud2
L callee
1:  mov %cs, %ecx
    lret
L target
2:  mov %cs, %esi
    ljmp $KERNEL_CS, $3f
L back
3:  mov %cs, %edi
    ret
END

SNIP far_memory, 3
    lcall *far_callee
    mov %cs, %edx
    mov $far_target, %ebx
    ljmp *(%ebx)
L never
    ud2
L callee
    mov %cs, %ecx
    lret
L target
    mov %cs, %esi
    ljmp *8(%ebx)
L back
    mov %cs, %edi
    ret
END

/* To the same privilege it leaves the stack pointer alone. */
SNIP iret_same_stack, 3
    mov %esp, %ebx
    push $2 + ARITH
    push $OTHER_CS
    push $1f
    iret
L other
1:  pushf
    pop %ecx
    mov %cs, %esi
    push $2
    push $KERNEL_CS
    push $2f
    iret
L back
2:  mov %cs, %edi
    sub %esp, %ebx
    ret
END

    .section .data
    .balign 16
callees:
    .long snip_call_memory.one, snip_call_memory.two, snip_call_memory.three, snip_call_memory.one
targets:
    .long snip_jmp_indirect.two, snip_jmp_indirect.three, snip_jmp_indirect.four, snip_jmp_indirect.five
far_callee:
    .long snip_far_memory.callee, OTHER_CS
far_target:
    .long snip_far_memory.target, OTHER_CS
    .long snip_far_memory.back, KERNEL_CS
