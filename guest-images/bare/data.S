/* Snippets: what instructions do to registers, flags and memory. */
#include "bare.inc"

    .text

SNIP push_pop, 10
    push $0x7f
    push $-2
    push $0x12345678
    pushw $0x1234
    pushw %ax
    push %rax
    push %r12
    lea data(%rip), %rbx
    push (%rbx)
    push data + 8(%rip)
    push 16(%rbx)
    pushw 24(%rbx)
    popw %cx
    pop %rdx
    pop 32(%rbx)
    popw 40(%rbx)
    pushw %cx
    pop data + 48(%rip)
    pop %r13
    pop %rsi
    popw %di
    popw %bp
    pop %r8
    pop %r9
    pop %r10
    ret
END

SNIP push_rsp, 10
    mov %rsp, %rbx
    push %rsp
    mov (%rsp), %rax
    pop %rcx
    push %rsp
    pop %rsp
    mov %rsp, %rdx
    /* The address of a pop to the stack is that after the pop. */
    push $0x11
    push $0x22
    pop (%rsp)
    pop %rsi
    push $0x33
    push $0x34
    push $0x44
    pop 8(%rsp)
    push 8(%rsp)
    pop %rdi
    pop %r8
    pop %r10
    lea data + 64(%rip), %rax
    push %rax
    pop %rsp
    mov %rsp, %r9
    mov %rbx, %rsp
    ret
END

SNIP enter_leave, 10
    enter $32, $0
    mov %rsp, %rax
    leave
    enter $16, $1
    mov %rsp, %rbx
    leave
    lea stack_frame(%rip), %rcx
    mov %rsp, %rdx
    mov %rdx, %rbp
    enter $8, $3
    mov %rsp, %rsi
    leave
    ret
END

SNIP exchange, 10
    lea data(%rip), %rdi
    xchg %rax, %rbx
    xchg %rcx, (%rdi)
    xchg %dl, 9(%rdi)
    xchg %r8, %rax
    lock xadd %r9, 16(%rdi)
    lock xadd %r10d, 24(%rdi)
    xadd %r11, %r12
    mov 32(%rdi), %rax
    lock cmpxchg %r13, 32(%rdi)
    setz %sil
    lock cmpxchg %r14, 40(%rdi)
    setz %bpl
    mov $0x5a, %r15d
    cmpxchg %r15, %rbx
    lock incq 48(%rdi)
    lock orb $0x81, 56(%rdi)
    lock negq 64(%rdi)
    lock btsl $3, 72(%rdi)
    lock btrq $5, 80(%rdi)
    lock btcq $60, 80(%rdi)
    lock subq $1, 88(%rdi)
    movbe 96(%rdi), %r15
    bswap %rcx
    ret
END

/* Both outcomes of the wide ones. */
SNIP exchange_wide, 10
    lea data + 128(%rip), %rdi
    mov (%rdi), %rax
    mov 8(%rdi), %rdx
    mov $1, %ebx
    mov $2, %ecx
    lock cmpxchg16b (%rdi)
    setz %r8b
    lock cmpxchg16b (%rdi)
    setz %r9b
    cmpxchg8b 32(%rdi)
    setz %r10b
    ret
END

SNIP bits, 10, OF + SF + AF + PF
    mov $0x8000000180000001, %rax
    bt $0, %rax
    setc %cl
    bts $1, %rax
    setc %ch
    btr $63, %rax
    setc %dl
    btc $31, %eax
    setc %dh
    lea data(%rip), %rdi
    mov $100, %ebx
    /* The bit's number reaches beyond the operand. */
    bts %rbx, (%rdi)
    mov $-9, %rbx
    btr %rbx, 64(%rdi)
    bsf %r8, %r9
    bsr %r8, %r10
    popcnt %r8, %r11
    tzcnt %r8, %r12
    lzcnt %r8, %r13
    andn %r8, %r9, %r14
    btc $7, %r15
    ret
END

SNIP multiply_divide, 10, ARITH
    mov $0x123456789, %rax
    mov $0xfedcba987, %rcx
    mul %rcx
    mov %rdx, %r8
    imul %rax, %rcx
    imul $-77, %rcx, %rbx
    imul $0x12345, %r9, %r9
    imul %r10
    mov %rax, %r11
    xor %edx, %edx
    mov $1000007, %ecx
    div %rcx
    mov %rax, %r12
    mov %rdx, %r13
    mov $-1000000007, %rax
    cqo
    idiv %rcx
    mov %rax, %r14
    mov %rdx, %r15
    mov $0x1234, %eax
    mov $0x56, %cl
    div %cl
    mulx %rbx, %rsi, %rdi
    ret
END

SNIP shifts, 10, AF + OF
    mov $4, %ecx
    shl %cl, %rax
    shr $7, %rbx
    sar $9, %rdx
    rol %rsi
    ror $13, %rdi
    stc
    rcl $3, %r8
    rcr %cl, %r9
    shld $12, %r8, %r10
    shrd %cl, %r9, %r11
    shlw $5, data(%rip)
    sarq %cl, data + 8(%rip)
    rolb $3, data + 16(%rip)
    /* A count of 0 leaves the flags; 64 is one. */
    xor %ecx, %ecx
    stc
    shl %cl, %r12
    setc %al
    mov $64, %ecx
    shr %cl, %r13
    setc %bl
    rol %cl, %r14
    setc %dl
    shlx %r8, %r9, %r15
    rorx $5, %r9, %rbp
    shl $3, %r14
    ret
END

SNIP chains, 10
    mov $-1, %rax
    mov $1, %ecx
    add %rcx, %rax
    adc $0, %rbx
    adc %rdx, data(%rip)
    adc data + 8(%rip), %r8
    sub %r9, %r10
    sbb $0, %r11
    sbb %r12, data + 16(%rip)
    sbb data + 24(%rip), %r13
    adcx %r14, %rsi
    adox %r15, %rdi
    cmc
    adc $0x7f, %bpl
    sbb %rdx, %rdx
    neg %r14
    not %r15
    inc %rcx
    dec %eax
    add $-1, %ecx
    cmp $5, %rcx
    ret
END

/* A bit for each condition that holds, by setcc in the data and by cmovcc in rax. */
    .macro VALUES flags
    lea data(%rip), %rdi
    mov $0, %eax
    mov $1, %ebx
    push $\flags
    popfq
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    set\cc (%rdi)
    lea 1(%rdi), %rdi
    lea (%rax, %rax), %rax
    mov %rax, %rcx
    lea 1(%rcx), %rcx
    cmov\cc %rcx, %rax
    cmov\cc (%rdi), %edx
    .endr
    .endm

SNIP values_none, 3
    VALUES 2
    ret
END
SNIP values_all, 3
    VALUES 2 + ARITH
    ret
END
SNIP values_sign, 3
    VALUES 2 + SF
    ret
END

/* How often QEMU calls back for a repeated instruction is its own business; what it does is not. */
SNIP strings_repeated, 10
    cld
    lea data(%rip), %rsi
    lea data + 256(%rip), %rdi
    xor %ecx, %ecx
    rep movsb
    mov $1, %ecx
    rep movsq
    mov $100, %ecx
    rep movsb
    mov $100, %ecx
    mov $0x33, %eax
    rep stosb
    mov $1, %ecx
    rep stosq
    xor %ecx, %ecx
    rep stosl
    lea data + 256(%rip), %rdi
    mov $100, %ecx
    mov $0x33, %eax
    repne scasb
    mov %rcx, %r8
    repe scasb
    mov %rcx, %r9
    lea data(%rip), %rsi
    lea data + 264(%rip), %rdi
    mov $100, %ecx
    repe cmpsb
    mov %rcx, %r10
    mov $100, %ecx
    repne cmpsb
    mov %rcx, %r11
    mov $3, %ecx
    rep lodsq
    std
    lea data + 512(%rip), %rdi
    lea data + 507(%rip), %rsi
    mov $37, %ecx
    rep movsb
    cld
    xor %ecx, %ecx
    cmp %ecx, %ecx
    repe cmpsb
    ret
END

SNIP strings, 10
    cld
    lea data(%rip), %rsi
    lea data + 64(%rip), %rdi
    movsb
    movsw
    movsl
    movsq
    lodsb
    lodsq
    stosb
    stosw
    stosl
    stosq
    std
    movsb
    lodsw
    stosb
    cld
    cmpsb
    cmpsq
    scasb
    scasl
    ret
END

SNIP moves, 10
    mov data(%rip), %rax
    mov %rax, data + 8(%rip)
    mov $data, %rbx
    movabs data + 16, %al
    movabs %eax, data + 24
    mov data + 32(%rip), %cl
    movzbl data + 33(%rip), %edx
    movsbq data + 34(%rip), %rsi
    movzwl data + 36(%rip), %edi
    movswl data + 38(%rip), %r8d
    movslq data + 40(%rip), %r9
    movb $0x7e, data + 44(%rip)
    movw $0x1234, data + 46(%rip)
    movl $0x12345678, data + 48(%rip)
    movq $-3, data + 56(%rip)
    mov %ah, %ch
    mov %sil, %bpl
    lea (%rip), %r10
    lea -8(%rbx, %rbx, 2), %r11
    lea 5(%ebx), %r12d
    addq $-5, data + 64(%rip)
    incl data + 72(%rip)
    mov 3(%rbx), %r13
    xlatb
    cbtw
    cwtl
    cltq
    cltd
    lahf
    clc
    sahf
    ret
END

SNIP vectors, 10
    movups data(%rip), %xmm0
    movaps data + 16(%rip), %xmm1
    paddd %xmm1, %xmm0
    pshufd $0x1b, %xmm0, %xmm1
    movdqa %xmm0, data + 32(%rip)
    movq %xmm1, %rax
    movd %xmm0, %ebx
    mov $7, %ecx
    cvtsi2sd %rcx, %xmm0
    addsd seven_and_half(%rip), %xmm0
    sqrtsd %xmm0, %xmm1
    cvttsd2si %xmm1, %rdx
    movsd %xmm1, data + 48(%rip)
    ucomisd %xmm0, %xmm1
    seta %sil
    pmovmskb %xmm0, %edi
    crc32q %r8, %r9
    ret
END

    .section .rodata
    .balign 8
stack_frame: .quad 0
seven_and_half: .double 7.5
