# Instructions that the executor supports in 32-bit code, in the forms that differ. native.rs runs each on the host's CPU.
#
# Rules for a new line: as in x86_64.s, but there is no memory without a base register.

# Two operands
    .irp op, add, or, adc, sbb, and, sub, xor, cmp
    \op %cl,%bl
    \op %ah,%dh
    \op %ah,%al
    \op %cx,%dx
    \op %ecx,%edx
    \op %edx,%edx
    \op %ebp,%ebp
    \op $0x12,%al
    \op $-0x70,%bh
    \op $0x1234,%ax
    \op $0x7fffffff,%eax
    \op $-0x80,%ebx
    \op $-0x12345678,%eax
    \op $-1,%esi
    \op %cl,(%ebx)
    \op %ch,0x10(%eax)
    \op %ecx,(%esp)
    \op (%esi),%cl
    \op 1(%edi),%dh
    \op 3(%edi),%dx
    \op -0x80(%edx,%ebx,4),%edi
    \op (%ebx),%ebx
    \op %ebp,(%ebx)
    \op\()b $-0x80,(%ebx)
    \op\()w $0x1234,(%ebx)
    \op\()l $0x12345678,2(%ebx)
    .endr
    .irp op, add, or, adc, sbb, and, sub, xor
    lock \op %cl,(%ebx)
    lock \op %ecx,8(%ebx,%edx)
    lock \op\()l $1,(%edi)
    .endr
    test %cl,%bl
    test %ah,%dl
    test %cx,%dx
    test %ecx,%edx
    test $0x12,%al
    test $0x80,%bh
    test $0x8000,%ax
    test $-0x80000000,%eax
    test %cl,(%ebx)
    test %edx,(%ebx,%ecx,8)
    testb $0x20,8(%edi)
    testw $0x2000,8(%edi)
    testl $0x20000000,8(%edi)

# One operand
    .irp op, inc, dec, neg, not
    \op %al
    \op %bh
    \op %cx
    \op %edx
    \op %esi
    \op %esp
    \op\()b (%ebx)
    \op\()w 3(%ebx)
    \op\()l (%ebx,%ecx,4)
    \op\()l 8(%ebx)
    lock \op\()b (%ebx)
    .endr

# Shifts and rotates
    .irp op, shl, shr, sar, rol, ror
    .irp count, 0, 1, 2, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64
    \op $\count,%bl
    \op $\count,%ah
    \op $\count,%dx
    \op $\count,%eax
    \op $\count,%esi
    .endr
    \op %cl,%al
    \op %cl,%cl
    \op %cl,%ch
    \op %cl,%dx
    \op %cl,%ebx
    \op %cl,%ecx
    \op\()b $3,(%ebx)
    \op\()w $15,(%ebx)
    \op\()l $0,(%ebx)
    \op\()l (%ebx)
    \op\()l $31,(%ebx,%edx,2)
    \op\()b %cl,(%ebx)
    \op\()w %cl,(%ebx)
    \op\()l %cl,(%ebx)
    .endr
    # Opcode extension 6, an alias of shl: shl $4,%eax; shl $1,%bl; shl %cl,%edx
    .byte 0xc1, 0xf0, 0x04
    .byte 0xc0, 0xf3, 0x01
    .byte 0x48, 0xd3, 0xf2

# Bits
    .irp op, bt, bts, btr, btc
    \op %cx,%dx
    \op %ecx,%edx
    \op %ecx,%ecx
    \op $0,%ax
    \op $17,%dx
    \op $31,%ecx
    \op $63,%ecx
    \op $64,%ecx
    \op %cx,(%ebx)
    \op %ecx,(%ebx)
    \op %edx,(%edi)
    \op\()w $17,(%ebx)
    \op\()l $5,(%ebx)
    .endr
    .irp op, bts, btr, btc
    lock \op %ecx,(%ebx)
    lock \op\()l $5,(%ebx)
    .endr

# Multiplication
    .irp r, %cx, %dx
    imul \r,%ax
    imul $-3,\r,%bx
    .endr
    .irp r, %ecx, %edx, %eax
    imul \r,%eax
    imul $-3,\r,%ebx
    .endr
    .irp r, %ecx, %edx, %eax
    imul \r,%eax
    imul $-3,\r,%ebx
    .endr
    imul (%ebx),%cx
    imul 4(%ebx),%ecx
    imul $100,(%ebx),%edx
    imul $-0x12345678,8(%ebx,%ecx,8),%edx

# Moves
    mov %al,%bl
    mov %ah,%bl
    mov %bl,%ah
    mov %dh,%ch
    mov %ax,%dx
    mov %eax,%eax
    mov %eax,%esp
    mov %esp,%ebp
    mov $0x12,%bl
    mov $0x12,%dh
    mov $0x9234,%bx
    mov $0x92345678,%ebx
    mov $-1,%ebx
    mov %cl,(%ebx)
    mov %ch,(%ebx)
    mov %cx,1(%ebx)
    mov %ecx,(%ebx,%ecx,1)
    mov %ecx,-8(%esp)
    mov %ebx,(%ebx)
    mov (%ebx),%cl
    mov (%ebx),%ch
    mov (%ebx),%cx
    mov (%ebx),%ecx
    mov 0x40(%esp,%esi,8),%edi
    mov (%esp),%esp
    mov (%ebp),%ebp
    mov (%eax),%edx
    movb $0x12,(%ebx)
    movw $0x9234,(%ebx)
    movl $0x92345678,(%ebx)
    movl $-0x12345678,(%ebx)
    .irp op, movz, movs
    \op\()bw %cl,%dx
    \op\()bw %ah,%ax
    \op\()bl %cl,%edx
    \op\()bl %bh,%ebx
    \op\()wl %cx,%edx
    \op\()bw (%ebx),%cx
    \op\()bl (%ebx),%ebx
    .endr
    lea (%ebx),%eax
    lea 8(%ebx,%ecx,8),%edx
    lea -0x12345678(%ebx,%ecx,4),%edx
    lea 8(%esp),%esp
    lea (%eax,%eax,4),%eax
    lea 1(%ecx,%edx),%cx
    lea (%ebx,%ecx),%eax
    # lea %gs:8(%ecx),%eax
    .byte 0x65, 0x48, 0x8d, 0x41, 0x08
    lea -0x12345678,%eax
    xchg %al,%ah
    xchg %cl,%dh
    xchg %ax,%dx
    xchg %cx,%dx
    xchg %eax,%edx
    xchg %ecx,%ecx
    xchg %esp,%eax
    xchg %cl,(%ebx)
    xchg %ch,(%ebx)
    xchg %cx,(%ebx)
    xchg %ecx,4(%ebx,%edx)
    xchg %ebx,(%ebx)
    .irp r, %eax, %ecx, %esp, %eax, %ebx, %esp
    bswap \r
    .endr
    cbtw
    cwtl
    cwtd
    cltd
    .irp cc, o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g
    cmov\cc %cx,%dx
    cmov\cc %ecx,%edx
    cmov\cc (%ebx),%dx
    cmov\cc (%ebx),%edx
    set\cc %al
    set\cc %bh
    set\cc (%ebx)
    .endr

# Stack
    .irp r, %eax, %ebx, %ecx, %esp, %ebp, %edi
    push \r
    pop \r
    .endr
    .irp r, %ax, %sp, %bp
    push \r
    pop \r
    .endr
    push $0x12
    push $-0x12
    push $0x12345678
    push $-0x12345678
    pushw $-0x12
    pushw $0x1234
    push (%ebx)
    push 8(%esp)
    push (%esp)
    pushw (%ebx)
    pop (%ebx)
    pop 8(%esp)
    pop (%esp)
    pop -8(%esp)
    popw (%ebx)
    popw -0x10(%esp)
    leave
    data16 leave

# Nothing
    nop
    data16 nop
    nopl (%eax)
    nopw %cs:0x12345678(%eax,%eax,8)
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
    .irp op, loop, loope, loopne, jecxz, loopw, loopew, loopnew, jcxz
    \op .+0x40
    \op .-0x40
    .endr
    call .+0x40
    call .-0x40
    # cs call .+0x40, which as makes no prefix of
    .byte 0x2e, 0xe8, 0x3a, 0, 0, 0
    bnd call .-0x40
    .irp op, jmp, call
    \op *%eax
    \op *%ecx
    notrack \op *%edi
    \op *(%ebx)
    \op *8(%ebx,%ecx,8)
    \op *8(%esp)
    \op *(%esp)
    .endr
    ret
    rep ret
    bnd ret
    ret $0
    ret $8
    ret $16
    ret $0xfff0

# The accumulator pair. The divisor is no part of eax or edx.
    .irp op, mul, imul, div, idiv
    \op %cl
    \op %cx
    \op %ecx
    \op\()b (%ebx)
    \op\()w 4(%ebx)
    \op\()l (%ebx)
    .endr
    .irp op, mul, imul
    \op %ah
    \op %al
    \op %dx
    \op %eax
    \op %edx
    .endr

# Exchanges with a computation.
    .irp prefix, , lock
    .irp op, xadd, cmpxchg
    \prefix \op %cl,(%ebx)
    \prefix \op %dh,(%ebx)
    \prefix \op %cx,(%ebx)
    \prefix \op %ecx,4(%ebx)
    \prefix \op %ecx,(%ebx,%esi,8)
    \prefix \op %eax,(%ebx)
    .endr
    .endr
    .irp op, xadd, cmpxchg
    \op %cl,%bl
    \op %cx,%bx
    \op %ecx,%ebx
    \op %ecx,%ecx
    .endr
    xadd %ah,%al
    xadd %eax,%eax
    xadd %eax,%ecx

# Scans and counts.
    .irp op, bsf, bsr, tzcnt, popcnt
    \op %cx,%dx
    \op %ecx,%edx
    \op %ecx,%ecx
    \op (%ebx),%edx
    .endr

# Shifts with two sources, and without flags.
    .irp op, shld, shrd
    \op $0,%ecx,%edx
    \op $1,%ecx,%edx
    \op $5,%ecx,%edx
    \op $33,%ecx,%edx
    \op $63,%ebx,%edx
    \op %cl,%ebx,%edx
    \op %cl,%ecx,%edx
    \op $7,%ecx,(%ebx)
    \op %cl,%edx,(%ebx)
    .endr
    .irp op, shlx, shrx, sarx
    \op %ecx,%edx,%eax
    \op %ecx,(%ebx),%eax
    .endr
    rorx $0,%edx,%eax
    rorx $5,%edx,%eax
    rorx $63,%edx,%eax
    rorx $8,(%ebx),%eax

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
    prefetcht0 (%ebx)
    prefetcht1 (%ebx)
    prefetcht2 (%ebx)
    prefetchnta (%ebx)
    prefetchw (%ebx)
    movnti %ecx,(%ebx)
    movnti %ecx,8(%ebx)
