# Instructions that the x86_64 executor supports, in the forms that differ. native.rs runs each on the host's CPU.
#
# Rules for a new line: memory lies at a base register (the test makes it point into its buffer), at a small offset from
# %gs, or at 0x2200(%rip); base and index differ; a bit offset in a register is neither. Direct transfers go to .+0x40 or
# .-0x40. Nothing that reads %fs, and no 66 prefix on a transfer: the vendors differ there.

# Two operands
    .irp op, add, or, adc, sbb, and, sub, xor, cmp
    \op %cl,%bl
    \op %ah,%dh
    \op %ah,%al
    \op %r9b,%sil
    \op %cx,%dx
    \op %r8w,%r8w
    \op %ecx,%edx
    \op %r10d,%r11d
    \op %edx,%edx
    \op %rcx,%rdx
    \op %r8,%rsp
    \op %rbp,%rbp
    \op $0x12,%al
    \op $-0x70,%bh
    \op $0x1234,%ax
    \op $-1,%r9w
    \op $0x7fffffff,%eax
    \op $-0x80,%ebx
    \op $1,%r12d
    \op $-0x12345678,%rax
    \op $0x12345678,%r13
    \op $-1,%rsi
    \op %cl,(%rbx)
    \op %ch,0x10(%rax)
    \op %cx,8(%rbp,%r9,2)
    \op %ecx,-4(%r13)
    \op %rcx,(%rsp)
    \op %r15,0x123(%r12,%rdx,8)
    \op (%rsi),%cl
    \op 1(%rdi),%dh
    \op 3(%rdi),%dx
    \op (%r14,%rax),%r8d
    \op -0x80(%rdx,%rbx,4),%rdi
    \op (%rbx),%rbx
    \op %eax,%gs:0x28
    \op %gs:0x30(,%rcx,8),%rdx
    \op %rdx,0x2200(%rip)
    \op 0x2200(%rip),%cx
    \op\()l $0x12,0x2200(%eip)
    \op %ebp,(%ebx)
    \op 8(%r9d,%r10d,2),%r11
    \op %gs:8(%ecx),%r11b
    \op\()b $-0x80,(%rbx)
    \op\()w $0x1234,(%rbx)
    \op\()l $0x12345678,2(%rbx)
    \op\()q $-3,2(%rbx)
    .endr
    .irp op, add, or, adc, sbb, and, sub, xor
    lock \op %cl,(%rbx)
    lock \op %rcx,8(%rbx,%rdx)
    lock \op\()l $1,(%rdi)
    .endr
    test %cl,%bl
    test %ah,%dl
    test %cx,%dx
    test %ecx,%edx
    test %rcx,%rdx
    test %r8,%r8
    test $0x12,%al
    test $0x80,%bh
    test $0x8000,%ax
    test $-0x80000000,%eax
    test $-0x80000000,%rax
    test $0x12345678,%r9
    test %cl,(%rbx)
    test %rdx,(%rbx,%rcx,8)
    testb $0x20,8(%rdi)
    testw $0x2000,8(%rdi)
    testl $0x20000000,8(%rdi)
    testq $-2,0x2200(%rip)

# One operand
    .irp op, inc, dec, neg, not
    \op %al
    \op %bh
    \op %r8b
    \op %cx
    \op %edx
    \op %r9d
    \op %rsi
    \op %rsp
    \op\()b (%rbx)
    \op\()w 3(%rbx)
    \op\()l (%rbx,%rcx,4)
    \op\()q 0x2200(%rip)
    \op\()l %gs:0x10
    \op\()l 8(%ebx)
    lock \op\()b (%rbx)
    lock \op\()q (%rbx)
    .endr

# Shifts and rotates
    .irp op, shl, shr, sar, rol, ror
    .irp count, 0, 1, 2, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64
    \op $\count,%bl
    \op $\count,%ah
    \op $\count,%dx
    \op $\count,%eax
    \op $\count,%rsi
    .endr
    \op %cl,%al
    \op %cl,%cl
    \op %cl,%ch
    \op %cl,%dx
    \op %cl,%ebx
    \op %cl,%ecx
    \op %cl,%rbx
    \op %cl,%r12
    \op %cl,%rcx
    \op\()b $3,(%rbx)
    \op\()w $15,(%rbx)
    \op\()l $0,(%rbx)
    \op\()l (%rbx)
    \op\()l $31,(%rbx,%rdx,2)
    \op\()q $63,-8(%rbx)
    \op\()b %cl,(%rbx)
    \op\()w %cl,(%rbx)
    \op\()l %cl,(%rbx)
    \op\()q %cl,0x2200(%rip)
    .endr
    # Opcode extension 6, an alias of shl: shl $4,%eax; shl $1,%bl; shl %cl,%rdx
    .byte 0xc1, 0xf0, 0x04
    .byte 0xc0, 0xf3, 0x01
    .byte 0x48, 0xd3, 0xf2

# Bits
    .irp op, bt, bts, btr, btc
    \op %cx,%dx
    \op %ecx,%edx
    \op %rcx,%rdx
    \op %rcx,%rcx
    \op $0,%ax
    \op $17,%dx
    \op $31,%ecx
    \op $63,%rcx
    \op $64,%rcx
    \op %cx,(%rbx)
    \op %ecx,(%rbx)
    \op %rcx,(%rbx)
    \op %r8,8(%rbx,%rdx,8)
    \op %rcx,0x2200(%rip)
    \op %edx,(%edi)
    \op %rdx,%gs:0x400
    \op\()w $17,(%rbx)
    \op\()l $5,(%rbx)
    \op\()q $63,(%rbx)
    \op\()q $0xff,0x2200(%rip)
    .endr
    .irp op, bts, btr, btc
    lock \op %rcx,(%rbx)
    lock \op\()l $5,(%rbx)
    .endr

# Multiplication
    .irp r, %cx, %dx, %r9w
    imul \r,%ax
    imul $-3,\r,%bx
    imul $0x1234,\r,%r8w
    .endr
    .irp r, %ecx, %edx, %r9d, %eax
    imul \r,%eax
    imul $-3,\r,%ebx
    imul $0x12345678,\r,%r8d
    .endr
    .irp r, %rcx, %rdx, %r9, %rax
    imul \r,%rax
    imul $-3,\r,%rbx
    imul $0x12345678,\r,%r8
    .endr
    imul (%rbx),%cx
    imul 4(%rbx),%ecx
    imul 0x2200(%rip),%rcx
    imul $100,(%rbx),%edx
    imul $-0x12345678,8(%rbx,%rcx,8),%rdx
    imul $2,%gs:8,%r12

# Moves
    mov %al,%bl
    mov %ah,%bl
    mov %bl,%ah
    mov %dh,%ch
    mov %r9b,%sil
    mov %ax,%dx
    mov %eax,%eax
    mov %r10d,%r11d
    mov %rax,%rsp
    mov %rsp,%rbp
    mov $0x12,%bl
    mov $0x12,%dh
    mov $0x9234,%bx
    mov $0x92345678,%ebx
    mov $-1,%rbx
    movabs $0x123456789abcdef0,%r10
    movabs $0x923456789abcdef0,%rax
    mov %cl,(%rbx)
    mov %ch,(%rbx)
    mov %cx,1(%rbx)
    mov %ecx,(%rbx,%rcx,1)
    mov %rcx,-8(%rsp)
    mov %rbx,(%rbx)
    mov (%rbx),%cl
    mov (%rbx),%ch
    mov (%rbx),%cx
    mov (%rbx),%ecx
    mov (%rbx),%rcx
    mov 0x40(%rsp,%rsi,8),%rdi
    mov (%rsp),%rsp
    mov (%rbp),%rbp
    mov %gs:0x28,%rax
    mov %gs:(%rcx),%eax
    mov %r8,%gs:0x10(%rcx,%rdx,4)
    mov 0x2200(%rip),%r15
    mov 0x2200(%eip),%r15d
    mov %r15b,0x2200(%rip)
    mov (%eax),%rdx
    mov (%ebx,%ecx,2),%r8w
    mov %rdx,-0x10(%r8d)
    movabs %gs:0x28,%al
    movabs %gs:0x28,%rax
    movabs %eax,%gs:0x48
    addr32 movabs %gs:0x28,%ax
    movb $0x12,(%rbx)
    movw $0x9234,(%rbx)
    movl $0x92345678,(%rbx)
    movq $-0x12345678,(%rbx)
    movq $0,0x2200(%rip)
    movl $1,%gs:0x18
    .irp op, movz, movs
    \op\()bw %cl,%dx
    \op\()bw %ah,%ax
    \op\()bl %cl,%edx
    \op\()bl %bh,%ebx
    \op\()bl %sil,%edi
    \op\()bq %cl,%rdx
    \op\()bq %r8b,%r8
    \op\()wl %cx,%edx
    \op\()wl %r9w,%r9d
    \op\()wq %cx,%rdx
    \op\()bw (%rbx),%cx
    \op\()bl (%rbx),%ebx
    \op\()bq (%rbx,%rdx,8),%rcx
    \op\()wl %gs:8,%ecx
    \op\()wq 0x2200(%rip),%rcx
    .endr
    movslq %ecx,%rdx
    movslq %eax,%rax
    movslq (%rbx),%rdx
    movslq (%rbx,%r9,4),%r9
    # movsxd without REX.W is a move: movsxd %ecx,%edx
    .byte 0x63, 0xd1
    lea (%rbx),%rax
    lea 8(%rbx,%rcx,8),%rdx
    lea -0x12345678(%rbx,%rcx,4),%edx
    lea 8(%rsp),%rsp
    lea (%rax,%rax,4),%rax
    lea 0x10(,%r12,8),%r13
    lea 1(%rcx,%rdx),%cx
    lea (%ebx,%ecx),%rax
    lea -1(%r9d),%ax
    lea 0x2200(%rip),%rax
    lea 0x2200(%rip),%ax
    # lea %gs:8(%rcx),%rax
    .byte 0x65, 0x48, 0x8d, 0x41, 0x08
    lea -0x12345678,%rax
    addr32 lea 0x12345678,%rax
    xchg %al,%ah
    xchg %cl,%dh
    xchg %r8b,%sil
    xchg %ax,%dx
    xchg %cx,%dx
    xchg %eax,%edx
    xchg %eax,%r8d
    xchg %ecx,%ecx
    xchg %rax,%rdx
    xchg %rsp,%rax
    xchg %rcx,%r9
    xchg %cl,(%rbx)
    xchg %ch,(%rbx)
    xchg %cx,(%rbx)
    xchg %ecx,4(%rbx,%rdx)
    xchg %rcx,0x2200(%rip)
    xchg %rbx,(%rbx)
    xchg %eax,%gs:0x20
    .irp r, %eax, %ecx, %esp, %r8d, %rax, %rbx, %rsp, %r15
    bswap \r
    .endr
    cbtw
    cwtl
    cltq
    cwtd
    cltd
    cqto
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    cmov\cc %cx,%dx
    cmov\cc %ecx,%edx
    cmov\cc %rcx,%r8
    cmov\cc (%rbx),%dx
    cmov\cc (%rbx),%edx
    cmov\cc 0x2200(%rip),%rdx
    set\cc %al
    set\cc %bh
    set\cc %sil
    set\cc (%rbx)
    set\cc 0x2200(%rip)
    .endr

# Stack
    .irp r, %rax, %rbx, %rcx, %rsp, %rbp, %rdi, %r8, %r12, %r15
    push \r
    pop \r
    .endr
    .irp r, %ax, %sp, %bp, %r9w
    push \r
    pop \r
    .endr
    push $0x12
    push $-0x12
    push $0x12345678
    push $-0x12345678
    pushw $-0x12
    pushw $0x1234
    push (%rbx)
    push 8(%rsp)
    push (%rsp)
    push 0x2200(%rip)
    push %gs:0x28
    pushw (%rbx)
    pop (%rbx)
    pop 8(%rsp)
    pop (%rsp)
    pop -8(%rsp)
    pop 0x2200(%rip)
    pop %gs:0x28
    popw (%rbx)
    popw -0x10(%rsp)
    leave
    data16 leave

# Nothing
    nop
    data16 nop
    nopl (%rax)
    nopw %cs:0x12345678(%rax,%rax,8)
    pause
    endbr64
    endbr32

# Transfers
    jmp .+0x40
    jmp .-0x40
    {disp32} jmp .+0x40
    bnd jmp .+0x40
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    j\cc .+0x40
    j\cc .-0x40
    {disp32} j\cc .+0x40
    .endr
    je,pt .+0x40
    .irp op, loop, loope, loopne, jrcxz, jecxz
    \op .+0x40
    \op .-0x40
    .endr
    addr32 loop .+0x40
    addr32 loope .+0x40
    addr32 loopne .-0x40
    call .+0x40
    call .-0x40
    # cs call .+0x40, which as makes no prefix of
    .byte 0x2e, 0xe8, 0x3a, 0, 0, 0
    bnd call .-0x40
    .irp op, jmp, call
    \op *%rax
    \op *%rcx
    \op *%r11
    cs \op *%r11
    notrack \op *%rdi
    bnd \op *%r8
    \op *(%rbx)
    \op *8(%rbx,%rcx,8)
    \op *8(%rsp)
    \op *(%rsp)
    \op *0x2200(%rip)
    \op *%gs:0x28
    \op *%gs:(%rcx)
    \op *(%ebx)
    .endr
    ret
    rep ret
    bnd ret
    ret $0
    ret $8
    ret $16
    ret $0xfff0

# The accumulator pair. The divisor is no part of rax or rdx.
    .irp op, mul, imul, div, idiv
    \op %cl
    \op %r9b
    \op %cx
    \op %r8w
    \op %ecx
    \op %r10d
    \op %rcx
    \op %r15
    \op\()b (%rbx)
    \op\()w 4(%rbx)
    \op\()l (%rbx)
    \op\()q 8(%rbx)
    .endr
    .irp op, mul, imul
    \op %ah
    \op %al
    \op %dx
    \op %eax
    \op %rdx
    .endr

# Exchanges with a computation.
    .irp prefix, , lock
    .irp op, xadd, cmpxchg
    \prefix \op %cl,(%rbx)
    \prefix \op %dh,(%rbx)
    \prefix \op %cx,(%rbx)
    \prefix \op %ecx,4(%rbx)
    \prefix \op %rcx,(%rbx,%rsi,8)
    \prefix \op %r9,%gs:0x28
    \prefix \op %eax,(%rbx)
    .endr
    .endr
    .irp op, xadd, cmpxchg
    \op %cl,%bl
    \op %cx,%bx
    \op %ecx,%ebx
    \op %r9d,%r10d
    \op %rcx,%rbx
    \op %rcx,%rcx
    .endr
    xadd %ah,%al
    xadd %eax,%eax
    xadd %eax,%ecx

# Scans and counts.
    .irp op, bsf, bsr, tzcnt, popcnt
    \op %cx,%dx
    \op %ecx,%edx
    \op %ecx,%ecx
    \op %r9,%r10
    \op (%rbx),%edx
    \op 8(%rbx),%r8
    .endr

# Shifts with two sources, and without flags.
    .irp op, shld, shrd
    \op $0,%ecx,%edx
    \op $1,%ecx,%edx
    \op $5,%ecx,%edx
    \op $31,%r9d,%r10d
    \op $33,%ecx,%edx
    \op $1,%rcx,%rdx
    \op $63,%rbx,%rdx
    \op %cl,%ebx,%edx
    \op %cl,%rbx,%rdx
    \op %cl,%rcx,%rdx
    \op $7,%rcx,(%rbx)
    \op %cl,%edx,(%rbx)
    .endr
    .irp op, shlx, shrx, sarx
    \op %ecx,%edx,%eax
    \op %rcx,%rdx,%rax
    \op %r9,%r9,%r9
    \op %ecx,(%rbx),%eax
    \op %rcx,(%rbx),%rax
    .endr
    rorx $0,%edx,%eax
    rorx $5,%edx,%eax
    rorx $63,%rdx,%rax
    rorx $8,(%rbx),%rax

# Flags alone.
    clc
    stc
    cmc
    cld
    std
    sahf
    lahf

# What does nothing here.
    lfence
    mfence
    sfence
    prefetcht0 (%rbx)
    prefetcht1 (%rbx)
    prefetcht2 (%rbx)
    prefetchnta (%rbx)
    prefetchw (%rbx)
    movnti %ecx,(%rbx)
    movnti %rcx,8(%rbx)
