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
3:  lea 1(%edx), %edx
    ret
END

SNIP tail_call, 10
    call 1f
    mov %esp, %ebx
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
    mov (%esp), %ecx
    ret
END

/* Like longjmp: three calls that never come back. */
SNIP unwind, 10
    mov %esp, %ebp
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
3:  mov %esp, %eax
    mov %ebp, %esp
    mov $4f, %edx
    jmp *%edx
L landed
4:  sub %ebp, %eax
    ret
END

/* Two stacks that take turns: each leaves the other in the middle of a function. */
SNIP switch_stacks, 10
    mov $data + 1024, %ebx
    mov $1f, %eax
    sub $4, %ebx
    mov %eax, (%ebx)
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
2:  xchg %ebx, %esp
    ret
END

/* A function that is left for another stack and never returned from: the harness's own end. */
SNIP left_for_good, 3
    call 1f
L never
    ud2
L callee
1:  mov $data + 256, %esp
    push $0x66
    jmp snippet_done
END

/* The same code at its physical address, which is mapped as well: a kernel's first steps. */
SNIP identity, 10
    mov $1f - KBASE, %eax
    jmp *%eax
L low
1:  call 3f
    mov %esi, %ecx
    mov $2f, %eax
    jmp *%eax
L high
2:  call 3f
    ret
L both
3:  mov (%esp), %esi
    ret
END

/* 15 bytes is the most; the kernel refuses it, and takes 14. */
SNIP longest, 10
    .byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e
    mov $0x11223344, %eax
    .byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e
    mov $0x22334455, %ebx
    .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e
    lea 0x12345678(%eax, %ebx, 4), %ecx
    mov $data, %edx
    xor %esi, %esi
    .byte 0x3e, 0x3e, 0x3e, 0x3e
    movl $0x7654321, 0x100(%edx, %esi, 8)
    .byte 0x3e, 0x3e, 0x3e
    movl $-2, 0x108(%edx, %esi, 8)
    /* jmp, and a conditional one, with branch hints. */
    .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e
    {disp32} jmp 1f
L never
    ud2
L after
1:  .byte 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e
    {disp32} je 2f
L not_taken
    inc %esi
L last
2:  ret
END

/* A store to what comes next, and to what was before: the first must be seen at once. */
SNIP self_modifying, 10
    mov $1, %ecx
L ahead
    movb $0x11, snip_self_modifying.changed + 1
L changed
    mov $0x22, %al
    inc %ecx
L behind
    movb $0x22, snip_self_modifying.changed + 1
L after
    ret
END

SNIP nops, 10
    nop
    endbr32
    pause
    .byte 0x66, 0x90
    nopl (%eax)
    nopl 0(%eax, %eax)
    nopw 0x200(%eax, %eax)
    lea 0(%esi), %esi
    xchg %ax, %ax
    lfence
    mfence
    sfence
    prefetcht0 (%esp)
    ret
END

/* A function's ordinary beginning and end. */
SNIP frame, 10
    push %ebp
    mov %esp, %ebp
    sub $0x20, %esp
    movl $0, -4(%ebp)
    jmp 2f
L body
1:  mov -4(%ebp), %eax
    add %eax, -8(%ebp)
    addl $1, -4(%ebp)
L condition
2:  cmpl $4, -4(%ebp)
    jle 1b
L epilogue
    mov -8(%ebp), %eax
    leave
    ret
END

/* An instruction that lies on two pages: QEMU translates what holds it in its own way. */
    .section .edge, "ax"
    .balign 4096
    .skip 4096 - 7, 0xcc
SNIP page_cross, 10
    mov $5, %ecx
L again
1:  mov $0x11223344, %eax
    add %eax, %ebx
    loop 1b
L after
    call 2f
    ret
L callee
2:  mov (%esp), %edx
    ret
END
