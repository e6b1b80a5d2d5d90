/* Snippets: code of unusual shape. Recursion, tail calls, unwinding, other stacks, other addresses, long instructions. */
#include "bare.inc"

    .text

SNIP recursion, 10
    mov $10, %ecx
    xor %eax, %eax
    call 1f
    ret
L self
1:  dec %ecx
    jz 2f
L deeper
    call 1b
    inc %eax
L leaf
2:  ret
END

/* Mutual, and both ways out. */
SNIP recursion_pair, 3
    mov $7, %ecx
    xor %eax, %eax
    call 1f
    ret
L even
1:  dec %ecx
    js 3f
L even_deeper
    call 2f
    inc %eax
    ret
L odd
2:  dec %ecx
    js 3f
L odd_deeper
    call 1b
    add $16, %eax
    ret
L out
3:  lea 1(%rdx), %rdx
    ret
END

SNIP tail_call, 10
    call 1f
    mov %rsp, %rbx
    ret
1:  inc %eax
    jmp 2f
L never
    ud2
L tail
2:  inc %eax
    jmp snip_tail_callee
END

FRAGMENT tail_callee
    mov (%rsp), %rcx
    ret
END

/* Like longjmp: three calls that never come back. */
SNIP unwind, 10
    mov %rsp, %rbp
    call 1f
L never_1
    ud2
L first
1:  push $1
    call 2f
L never_2
    ud2
L second
2:  push $2
    call 3f
L never_3
    ud2
L third
3:  mov %rsp, %rax
    mov %rbp, %rsp
    lea 4f(%rip), %rdx
    jmp *%rdx
L landed
4:  sub %rbp, %rax
    ret
END

/* Two stacks that take turns: each leaves the other in the middle of a function. */
SNIP switch_stacks, 10
    lea data + 1024(%rip), %rbx
    lea 1f(%rip), %rax
    sub $8, %rbx
    mov %rax, (%rbx)
    xor %ecx, %ecx
    call 2f
    add $1, %ecx
    call 2f
    add $1, %ecx
    call 2f
    ret
L other
1:  add $16, %ecx
    call 2f
L other_again
    add $16, %ecx
    call 2f
L other_at_last
    add $16, %ecx
    jmp 2f
/* Leaves one stack, returns on the other. */
L switch
2:  xchg %rbx, %rsp
    ret
END

/* A function that is left for another stack and never returned from: the harness's own end. */
SNIP left_for_good, 3
    call 1f
L never
    ud2
L callee
1:  lea data + 256(%rip), %rsp
    push $0x66
    jmp snippet_done
END

/* The same code at its physical address, which is mapped as well: a kernel's first steps. */
SNIP identity, 10
    lea 1f(%rip), %rax
    sub $KBASE, %rax
    jmp *%rax
L low
1:  lea (%rip), %rcx
    call 3f
    lea 2f(%rip), %rax
    add $KBASE, %rax
    jmp *%rax
L high
2:  lea (%rip), %rdx
    call 3f
    ret
L both
3:  mov (%rsp), %rsi
    ret
END

/* 15 bytes is the most; the kernel refuses it, and takes 14. */
SNIP longest, 10
    .byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e
    mov $0x1122334455667788, %rax
    .byte 0x3e, 0x3e, 0x3e, 0x3e
    mov $0x2233445566778899, %rbx
    .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e
    lea 0x12345678(%rax, %rbx, 4), %rcx
    .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66
    lea 0x1234567(%rax, %rbx, 8), %rdx
    lea data(%rip), %r8
    xor %r9d, %r9d
    .byte 0x3e, 0x3e, 0x3e
    movq $0x7654321, 0x100(%r8, %r9, 8)
    .byte 0x3e, 0x3e
    movq $-2, 0x108(%r8, %r9, 8)
    /* jmp, and a conditional one, with branch hints and operand size prefixes. */
    .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e
    {disp32} jmp 1f
L never
    ud2
L after
1:  .byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e
    {disp32} je 2f
L not_taken
    inc %r9
L last
2:  ret
END

/* A store to what comes next, and to what was before: the first must be seen at once. */
SNIP self_modifying, 10
    mov $1, %ecx
L ahead
    movb $0x11, snip_self_modifying.changed + 1(%rip)
L changed
    mov $0x22, %al
    inc %ecx
L behind
    movb $0x22, snip_self_modifying.changed + 1(%rip)
L after
    ret
END

SNIP nops, 10
    nop
    endbr64
    pause
    .nops 2
    .nops 3
    .nops 4
    .nops 5
    .nops 6
    .nops 7
    .nops 8
    .nops 9
    .byte 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0
    xchg %ax, %ax
    lfence
    mfence
    sfence
    prefetcht0 (%rsp)
    ret
END

/* A function's ordinary beginning and end. */
SNIP frame, 10
    push %rbp
    mov %rsp, %rbp
    sub $0x20, %rsp
    movl $0, -4(%rbp)
    jmp 2f
L body
1:  mov -4(%rbp), %eax
    add %eax, -8(%rbp)
    addl $1, -4(%rbp)
L condition
2:  cmpl $4, -4(%rbp)
    jle 1b
L epilogue
    mov -8(%rbp), %eax
    leave
    ret
END

/* An instruction that lies on two pages: QEMU translates what holds it in its own way. */
    .section .text.edge, "ax"
    .balign 4096
    .skip 4096 - 10, 0xcc
SNIP page_cross, 10
    mov $5, %ecx
L again
1:  mov $0x1122334455667788, %rax
    add %rax, %rbx
    loop 1b
L after
    call 2f
    ret
L callee
2:  mov (%rsp), %rdx
    ret
END
